//! What was set of brokers while they ran: of one broker, and of all of them. Durable in the cluster's metadata.
//!
//! Only keys with [`Change::Dynamic`] are here, each value checked. It does not know where the metadata lie; it is given
//! (name, value) pairs, and what of them this version cannot use it leaves out and tells, so that a broker starts after
//! a downgrade too.
//!
//! Source: KIP-226 (dynamic broker configuration).

use std::collections::BTreeMap;

use super::key::{Change, Key, Value};
use super::keys;
use super::settings::{ConfigError, Origin, broker_key, topic_key};

/// The values that were set while brokers ran, as one broker sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicSettings {
    one: BTreeMap<&'static str, Value>,
    all: BTreeMap<&'static str, Value>,
}

impl DynamicSettings {
    /// What the metadata say of this broker (`one`) and of all brokers, and what is wrong with those that are left out.
    pub fn read<T: AsRef<str>>(
        one: impl IntoIterator<Item = (T, T)>,
        all: impl IntoIterator<Item = (T, T)>,
    ) -> (DynamicSettings, Vec<ConfigError>) {
        let mut errors = Vec::new();
        let mut usable = |(name, text): (T, T)| match Level::Broker.parse(name.as_ref(), text.as_ref()) {
            Ok((name, value)) => Some((name, value)),
            Err(error) => {
                errors.push(error);
                None
            }
        };
        let one = one.into_iter().filter_map(&mut usable).collect();
        let all = all.into_iter().filter_map(&mut usable).collect();
        (DynamicSettings { one, all }, errors)
    }

    pub(super) fn of_one(&self, key: &Key) -> Option<&Value> {
        self.one.get(key.name)
    }

    pub(super) fn of_all(&self, key: &Key) -> Option<&Value> {
        self.all.get(key.name)
    }

    /// What is set of all brokers, in the order of the table.
    pub(super) fn defaults(&self) -> impl Iterator<Item = (&'static Key, &Value)> {
        keys::ALL.iter().filter_map(|key| Some((*key, self.all.get(key.name)?)))
    }
}

/// Whose keys can be changed while brokers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A topic's.
    Topic,
    /// A broker's, or those of all brokers.
    Broker,
}

impl Level {
    /// The key that `name` means on this level, with its name there.
    ///
    /// # Errors
    /// If there is none, or it cannot be changed while brokers run.
    pub fn key(self, name: &str) -> Result<(&'static str, &'static Key), ConfigError> {
        match self {
            Level::Topic => topic_key(name),
            Level::Broker => match broker_key(name, &Origin::Dynamic)? {
                Key { name, change: Change::ReadOnly, .. } => Err(ConfigError::ReadOnly { name }),
                key => Ok((key.name, key)),
            },
        }
    }

    /// The value that `text` means for the key `name` of this level.
    ///
    /// # Errors
    /// As [`Level::key`], and if the key does not allow the value.
    pub fn parse(self, name: &str, text: &str) -> Result<(&'static str, Value), ConfigError> {
        let (name, key) = self.key(name)?;
        let origin = match self {
            Level::Topic => Origin::Topic,
            Level::Broker => Origin::Dynamic,
        };
        key.parse(text).map(|value| (name, value)).map_err(|wrong| ConfigError::value(&origin, name, text, wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, Source};

    fn dynamic(one: &[(&'static str, &'static str)], all: &[(&'static str, &'static str)]) -> DynamicSettings {
        let (settings, errors) = DynamicSettings::read(one.iter().copied(), all.iter().copied());
        assert_eq!(errors, []);
        settings
    }

    #[test]
    fn one_broker_wins_over_all_over_the_start_over_the_default() {
        let key = &keys::LOG_RETENTION_MS;
        let mut settings = Settings::new();
        let in_force = |settings: &Settings| {
            let (value, source) = settings.value(key).expect("a default");
            (value.to_string(), source)
        };
        let hours = (168 * 3_600_000).to_string();
        assert_eq!(in_force(&settings), (hours, Source::Default));
        settings.add_set("log.retention.minutes", "2").expect("valid");
        assert_eq!(in_force(&settings), ("120000".to_owned(), Source::Static));
        let all = settings.with_dynamic(dynamic(&[], &[("log.retention.ms", "3")]));
        assert_eq!(in_force(&all), ("3".to_owned(), Source::DynamicDefault));
        let one = settings.with_dynamic(dynamic(&[("log.retention.ms", "4")], &[("log.retention.ms", "3")]));
        assert_eq!(in_force(&one), ("4".to_owned(), Source::DynamicBroker));

        let synonyms = one.synonyms(key);
        let told: Vec<_> = synonyms.iter().map(|told| (told.name, told.value.to_string(), told.source)).collect();
        let expected = [
            ("log.retention.ms", "4", Source::DynamicBroker),
            ("log.retention.ms", "3", Source::DynamicDefault),
            ("log.retention.minutes", "2", Source::Static),
            ("log.retention.hours", "168", Source::Default),
        ];
        assert_eq!(told, expected.map(|(name, value, source)| (name, value.to_owned(), source)));
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_told() {
        let pairs = [("node.id", "2"), ("log.retention.ms", "x"), ("future.key", "1"), ("log.retention.bytes", "7")];
        let (settings, errors) = DynamicSettings::read(pairs, []);
        assert_eq!(settings, dynamic(&[("log.retention.bytes", "7")], &[]));
        let errors: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors[0].contains("'node.id' is read when the broker starts"), "{errors:?}");
        assert!(errors[1].starts_with("broker configuration: 'log.retention.ms' is an integer"), "{errors:?}");
        assert!(errors[2].contains("unknown key 'future.key'"), "{errors:?}");
    }

    #[test]
    fn each_level_has_its_names() {
        let names = |level: Level, name| level.key(name).map(|(name, key)| (name, key.name));
        assert_eq!(names(Level::Topic, "retention.ms"), Ok(("retention.ms", "log.retention.ms")));
        assert_eq!(names(Level::Broker, "log.retention.ms"), Ok(("log.retention.ms", "log.retention.ms")));
        let message = |level: Level, name| level.key(name).expect_err(name).to_string();
        assert!(message(Level::Topic, "log.retention.ms").contains("use 'retention.ms' here"));
        assert!(message(Level::Broker, "retention.ms").contains("use 'log.retention.ms' here"));
        assert!(message(Level::Topic, "num.partitions").contains("a key of the broker"));
        assert!(message(Level::Broker, "num.partitions").contains("cannot be changed while it runs"));
    }
}
