//! Properties of Kafka's clients, from `--command-config` and `--command-property`.
//!
//! The keys are those of which loadgen has the thing; any other is an error that names the nearest one, so that nobody
//! believes in a setting that has no effect. A key that this subcommand has no use for is an error too.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use corelane::runtime::Duration;

use super::UsageError;

/// Every key that has an effect.
const KEYS: [&str; 17] = [
    "acks",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "client.id",
    "compression.type",
    "delivery.timeout.ms",
    "enable.idempotence",
    "fetch.max.bytes",
    "fetch.max.wait.ms",
    "fetch.min.bytes",
    "linger.ms",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.request.size",
    "request.timeout.ms",
    "security.protocol",
];

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    values: BTreeMap<String, String>,
    used: RefCell<BTreeSet<&'static str>>,
}

impl Properties {
    /// Reads a file of `key=value` lines (`#` begins a comment line), then single properties, which win.
    pub fn read(file: Option<&Path>, single: &[(String, String)]) -> Result<Properties, UsageError> {
        let mut properties = Properties::default();
        if let Some(path) = file {
            let failed = |what: String| UsageError::File { path: path.to_owned(), what };
            let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!'])) {
                let (key, value) = line.split_once('=').ok_or_else(|| failed(format!("{line:?} is not key=value")))?;
                properties.set(key.trim(), value.trim())?;
            }
        }
        for (key, value) in single {
            properties.set(key, value)?;
        }
        if let Some(protocol) = properties.text("security.protocol")
            && protocol != "PLAINTEXT"
        {
            let what = format!("{protocol:?} is not spoken here, only PLAINTEXT");
            return Err(UsageError::Property { key: "security.protocol".to_owned(), what });
        }
        Ok(properties)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), UsageError> {
        if !KEYS.contains(&key) {
            let distance = |known: &&&str| strsim::damerau_levenshtein(known, key);
            let nearest = KEYS.iter().min_by_key(distance).expect("there are keys");
            let what = format!("it has no effect here; the nearest that has one is {nearest}");
            return Err(UsageError::Property { key: key.to_owned(), what });
        }
        self.values.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// The value of a key.
    pub fn text(&self, key: &'static str) -> Option<&str> {
        debug_assert!(KEYS.contains(&key));
        self.used.borrow_mut().insert(key);
        self.values.get(key).map(String::as_str)
    }

    /// The same as a number.
    pub fn number<N: FromStr>(&self, key: &'static str) -> Result<Option<N>, UsageError> {
        let wrong = |text: &str| UsageError::Property { key: key.to_owned(), what: format!("{text:?} is no number") };
        self.text(key).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    /// The same as a time.
    pub fn milliseconds(&self, key: &'static str) -> Result<Option<Duration>, UsageError> {
        Ok(self.number(key)?.map(Duration::from_millis))
    }

    /// The same as a switch that is off unless it is given.
    pub fn flag(&self, key: &'static str) -> Result<bool, UsageError> {
        match self.text(key) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                Err(UsageError::Property { key: key.to_owned(), what: format!("{other:?} is neither true nor false") })
            }
        }
    }

    /// An error if a property was given that nobody asked for.
    pub fn all_used(&self) -> Result<(), UsageError> {
        // These are asked for last, or hold for every subcommand.
        let general = ["bootstrap.servers", "client.id", "request.timeout.ms", "security.protocol"];
        let used = self.used.borrow();
        match self.values.keys().find(|key| !used.contains(key.as_str()) && !general.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                Err(UsageError::Property { key: key.clone(), what: "this subcommand has no use for it".to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(pairs: &[(&str, &str)]) -> Result<Properties, UsageError> {
        let owned: Vec<_> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Properties::read(None, &owned)
    }

    #[test]
    fn a_file_is_read_and_single_properties_win() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("client.properties");
        std::fs::write(&path, "# mine\nlinger.ms = 5\nacks=1\n").expect("written");
        let properties = Properties::read(Some(&path), &[("acks".to_owned(), "all".to_owned())]).expect("known keys");
        assert_eq!(properties.milliseconds("linger.ms").unwrap(), Some(Duration::from_millis(5)));
        assert_eq!(properties.text("acks"), Some("all"));
        assert!(properties.all_used().is_ok());
    }

    #[test]
    fn what_has_no_effect_is_an_error() {
        let error = single(&[("linger.m", "5")]).unwrap_err().to_string();
        assert!(error.contains("nearest that has one is linger.ms"), "{error}");
        let error = single(&[("security.protocol", "SSL")]).unwrap_err().to_string();
        assert!(error.contains("only PLAINTEXT"), "{error}");
        let unused = single(&[("fetch.min.bytes", "1")]).unwrap();
        assert!(unused.all_used().unwrap_err().to_string().contains("no use for it"));
        assert!(single(&[("batch.size", "x")]).unwrap().number::<usize>("batch.size").is_err());
        assert!(single(&[("enable.idempotence", "yes")]).unwrap().flag("enable.idempotence").is_err());
    }
}
