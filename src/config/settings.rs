//! The sources of a broker's configuration and their merge: what was set while it ran > flag > `--set` > file > default.
//!
//! A [`Settings`] holds only values that passed their key's check, each with its origin, so an error can always say where
//! the bad value stands. It knows names and texts, not what they mean: `broker` and `topic` turn them into real types.
//! It reads no file and no metadata: it is given texts.

use std::collections::BTreeMap;
use std::fmt;

use super::dynamic::DynamicSettings;
use super::key::{Key, Value, ValueError};
use super::{keys, refused};

/// Characters of a user's text that an error repeats at most: names may come from a hostile client.
const ECHO_CHARACTERS_MAX: usize = 64;

/// Where a value was written. A later one in this order wins over an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file of this path.
    File(String),
    /// `--set key=value`.
    Set,
    /// A flag of its own, such as `--listen`.
    Flag(&'static str),
    /// The configuration of brokers that was set while they ran.
    Dynamic,
    /// The configuration of a topic.
    Topic,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => f.write_str(path),
            Origin::Set => f.write_str("--set"),
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Dynamic => f.write_str("broker configuration"),
            Origin::Topic => f.write_str("topic configuration"),
        }
    }
}

/// Where a value comes from, as CreateTopics and DescribeConfigs report it. A later one wins over an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The default of the table.
    Default,
    /// The broker's flags, `--set` or file.
    Static,
    /// Set of all brokers while they ran.
    DynamicDefault,
    /// Set of this broker while it ran.
    DynamicBroker,
    /// The topic's own configuration.
    Topic,
}

/// A value of a key, by the name that it was given under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The key's name on the level of the source; a coarser key's, where that one is set or has the default.
    pub name: &'static str,
    /// The value, in the unit of that key.
    pub value: Value,
    /// Where it comes from.
    pub source: Source,
}

/// Why a configuration is refused. Every one is the user's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such key.
    #[error("{origin}: unknown key '{name}'; the nearest one is '{nearest}'")]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// What was written, cut to 64 characters.
        name: String,
        /// The valid name with the least edit distance.
        nearest: &'static str,
    },
    /// A topic's key where the broker's is wanted, or the other way round.
    #[error("{origin}: '{name}' is {belongs}; use '{instead}' here")]
    OtherLevel {
        /// Where it stands.
        origin: Origin,
        /// What was written.
        name: &'static str,
        /// Whose key it is.
        belongs: &'static str,
        /// The name that means the same on this level.
        instead: &'static str,
    },
    /// A key of the broker alone, in the configuration of a topic.
    #[error("{origin}: '{name}' is a key of the broker, not of a topic")]
    BrokerOnly {
        /// Where it stands.
        origin: Origin,
        /// What was written.
        name: &'static str,
    },
    /// A key that is read only when the broker starts.
    #[error("'{name}' is read when the broker starts and cannot be changed while it runs")]
    ReadOnly {
        /// The key.
        name: &'static str,
    },
    /// A key of Kafka's that cannot mean anything here.
    #[error("{origin}: '{name}' does not apply: {advice}")]
    Refused {
        /// Where it stands.
        origin: Origin,
        /// What was written, cut to 64 characters.
        name: String,
        /// What to do in its place.
        advice: &'static str,
    },
    /// A value that its key does not allow.
    #[error("{origin}: '{name}' {wrong}, not '{value}'")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key.
        name: &'static str,
        /// What was written, cut to 64 characters.
        value: String,
        /// What the key allows.
        wrong: ValueError,
    },
    /// A value that is well formed and yet cannot be used.
    #[error("'{name}': {reason}")]
    Unusable {
        /// The key.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The same key twice in one source.
    #[error("{origin}: '{name}' is given twice")]
    Twice {
        /// Where it stands.
        origin: Origin,
        /// The key.
        name: &'static str,
    },
    /// A file that is not TOML, or holds a value of a type that no key has.
    #[error("{origin}: {reason}")]
    Syntax {
        /// The file.
        origin: Origin,
        /// What is wrong and where.
        reason: String,
    },
}

impl ConfigError {
    pub(super) fn value(origin: &Origin, name: &'static str, value: &str, wrong: ValueError) -> ConfigError {
        ConfigError::Value { origin: origin.clone(), name, value: echo(value), wrong }
    }
}

fn echo(text: &str) -> String {
    text.chars().take(ECHO_CHARACTERS_MAX).collect()
}

/// The values that were set, each checked, each with its origin. What is not set has its default.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, (Value, Origin)>,
    dynamic: DynamicSettings,
}

impl Settings {
    /// Nothing set: every key has its default.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// Adds what a TOML file says; keys may be bare, quoted or nested. `path` is for errors alone.
    pub fn add_file(&mut self, path: &str, text: &str) -> Result<(), ConfigError> {
        let origin = Origin::File(path.to_owned());
        let syntax = |reason: String| ConfigError::Syntax { origin: origin.clone(), reason };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| syntax(error.to_string()))?;
        let mut seen = BTreeMap::new();
        let mut leaves = Vec::new();
        flatten("", table, &mut leaves).map_err(syntax)?;
        for (name, value) in leaves {
            let key = broker_key(&name, &origin)?;
            if seen.insert(key.name, ()).is_some() {
                return Err(ConfigError::Twice { origin, name: key.name });
            }
            self.insert(key, &value, origin.clone())?;
        }
        Ok(())
    }

    /// Adds one `--set`; of two for the same key the later one wins.
    pub fn add_set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let key = broker_key(name, &Origin::Set)?;
        self.insert(key, value, Origin::Set)
    }

    /// Adds the value of a flag that stands for `key`. `flag` is its name, for errors alone.
    pub fn add_flag(&mut self, flag: &'static str, key: &'static Key, value: &str) -> Result<(), ConfigError> {
        self.insert(key, value, Origin::Flag(flag))
    }

    /// Keeps the value of the stronger origin, whatever the order in which the sources are added.
    fn insert(&mut self, key: &'static Key, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let value = key.parse(text).map_err(|wrong| ConfigError::value(&origin, key.name, text, wrong))?;
        if self.values.get(key.name).is_none_or(|(_, present)| *present <= origin) {
            self.values.insert(key.name, (value, origin));
        }
        Ok(())
    }

    /// The same start with other settings over it.
    #[must_use]
    pub fn with_dynamic(&self, dynamic: DynamicSettings) -> Settings {
        Settings { values: self.values.clone(), dynamic }
    }

    /// The value in force, in the unit of `key`: that of the strongest source; of one source, that of the finest key.
    /// `None` where there is none at all.
    pub fn value(&self, key: &'static Key) -> Option<(Value, Source)> {
        let (from, value, source) = self.layers(key).next()?;
        let value = if from.name == key.name { value } else { scale(value, from.unit().milliseconds()) };
        Some((value, source))
    }

    /// Every value that the key or a coarser one has, the one in force first.
    pub fn synonyms(&self, key: &'static Key) -> Vec<Synonym> {
        self.layers(key).map(|(from, value, source)| Synonym { name: from.name, value, source }).collect()
    }

    /// Source by source, in each the key and then its coarser ones.
    fn layers(&self, key: &'static Key) -> impl Iterator<Item = (&'static Key, Value, Source)> {
        let sources = [Source::DynamicBroker, Source::DynamicDefault, Source::Static, Source::Default];
        let names = move || core::iter::once(key).chain(key.coarser.iter().copied());
        let found = move |source| names().filter_map(move |from| Some((from, self.value_of(from, source)?, source)));
        sources.into_iter().flat_map(found)
    }

    fn value_of(&self, key: &'static Key, source: Source) -> Option<Value> {
        match source {
            Source::Default => {
                key.default.map(|text| key.parse(text).expect("every default of the table passes its own check"))
            }
            Source::Static => self.values.get(key.name).map(|(value, _)| value.clone()),
            Source::DynamicDefault => self.dynamic.of_all(key).cloned(),
            Source::DynamicBroker => self.dynamic.of_one(key).cloned(),
            Source::Topic => None,
        }
    }

    /// What was set of all brokers while they ran.
    pub(super) fn dynamic_defaults(&self) -> impl Iterator<Item = (&'static Key, &Value)> {
        self.dynamic.defaults()
    }

    /// Whether the broker's start sets the key.
    pub fn is_set(&self, key: &'static Key) -> bool {
        self.values.contains_key(key.name)
    }

    /// The number of shards that was asked for, if any was.
    pub fn shards(&self) -> Option<u16> {
        match self.value(&keys::SHARDS)?.0 {
            Value::Number(number) => Some(u16::try_from(number).expect("in its range")),
            other => unreachable!("{} is a number, not {other}", keys::SHARDS.name),
        }
    }
}

/// The number in milliseconds; −1, "no limit", stays.
fn scale(value: Value, factor: i64) -> Value {
    match value {
        Value::Number(number) if number >= 0 => Value::Number(number.saturating_mul(factor)),
        other => other,
    }
}

/// The leaves of a TOML table as (dotted name, text).
fn flatten(prefix: &str, table: toml::Table, leaves: &mut Vec<(String, String)>) -> Result<(), String> {
    for (name, value) in table {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&name, inner, leaves)?,
            toml::Value::Array(entries) => {
                let texts: Option<Vec<String>> = entries.iter().map(scalar).collect();
                let texts = texts.ok_or_else(|| format!("'{name}' is a list of something else than texts"))?;
                leaves.push((name, texts.join(",")));
            }
            other => {
                let text =
                    scalar(&other).ok_or_else(|| format!("'{name}' is neither text, number, boolean nor list"))?;
                leaves.push((name, text));
            }
        }
    }
    Ok(())
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// The key of a broker-level name, or the error that helps most.
pub(super) fn broker_key(name: &str, origin: &Origin) -> Result<&'static Key, ConfigError> {
    if let Some(key) = keys::by_name(name) {
        return Ok(key);
    }
    if let Some(key) = keys::by_topic_name(name) {
        return Err(ConfigError::OtherLevel {
            origin: origin.clone(),
            name: key.topic.unwrap_or(key.name),
            belongs: "the key of a topic",
            instead: key.name,
        });
    }
    Err(unknown(name, origin, keys::ALL.iter().map(|key| key.name)))
}

/// The key of a topic-level name, or the error that helps most.
pub(super) fn topic_key(name: &str) -> Result<(&'static str, &'static Key), ConfigError> {
    let origin = Origin::Topic;
    if let Some((topic_name, key)) = keys::of_topics().find(|(topic_name, _)| *topic_name == name) {
        return Ok((topic_name, key));
    }
    match keys::by_name(name) {
        Some(Key { name, topic: Some(instead), .. }) => {
            Err(ConfigError::OtherLevel { origin, name, belongs: "the broker's default", instead })
        }
        Some(Key { name, topic: None, .. }) => Err(ConfigError::BrokerOnly { origin, name }),
        None => Err(unknown(name, &origin, keys::of_topics().map(|(topic_name, _)| topic_name))),
    }
}

fn unknown(name: &str, origin: &Origin, valid: impl Iterator<Item = &'static str>) -> ConfigError {
    let (origin, name) = (origin.clone(), echo(name));
    if let Some(advice) = refused::advice(&name) {
        return ConfigError::Refused { origin, name, advice };
    }
    let nearest = valid.min_by_key(|valid| edit_distance(&name, valid)).expect("the table is not empty");
    ConfigError::Unknown { origin, name, nearest }
}

/// Insertions, deletions and substitutions of characters that turn `from` into `to` (Levenshtein), case ignored.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, left) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, right) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(!left.eq_ignore_ascii_case(right));
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// Splits `key=value` at the first `=`; `None` without one, or without a key.
pub fn split_assignment(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').map(|(name, value)| (name.trim(), value)).filter(|(name, _)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Result<Settings, ConfigError> {
        let mut settings = Settings::new();
        settings.add_file("broker.toml", text)?;
        Ok(settings)
    }

    fn number(settings: &Settings, key: &'static Key) -> Option<i64> {
        match settings.value(key) {
            Some((Value::Number(number), _)) => Some(number),
            _ => None,
        }
    }

    #[test]
    fn bare_quoted_and_nested_keys_are_alike() {
        for text in [
            "log.retention.ms = 5",
            "'log.retention.ms' = 5",
            "[log.retention]\nms = 5",
            "[log]\nretention = { ms = '5' }",
            "log.'retention.ms' = 5",
        ] {
            let settings = from_file(text).expect(text);
            assert_eq!(number(&settings, &keys::LOG_RETENTION_MS), Some(5), "{text}");
        }
    }

    #[test]
    fn a_stronger_source_wins_whatever_the_order() {
        let file = |settings: &mut Settings| settings.add_file("f", "node.id = 2");
        let set = |settings: &mut Settings| settings.add_set("node.id", "3");
        let flag = |settings: &mut Settings| settings.add_flag("--node-id", &keys::NODE_ID, "4");
        let mut settings = Settings::new();
        assert_eq!(number(&settings, &keys::NODE_ID), Some(1));
        file(&mut settings).expect("valid");
        assert_eq!(number(&settings, &keys::NODE_ID), Some(2));
        set(&mut settings).expect("valid");
        file(&mut settings).expect("valid");
        assert_eq!(number(&settings, &keys::NODE_ID), Some(3));
        flag(&mut settings).expect("valid");
        set(&mut settings).expect("valid");
        assert_eq!(number(&settings, &keys::NODE_ID), Some(4));
    }

    #[test]
    fn the_last_of_two_sets_wins_and_two_in_a_file_are_an_error() {
        let mut settings = Settings::new();
        settings.add_set("node.id", "3").expect("valid");
        settings.add_set("node.id", "2").expect("valid");
        assert_eq!(number(&settings, &keys::NODE_ID), Some(2));
        let twice = from_file("'node.id' = 1\nnode.id = 2").expect_err("twice");
        assert!(matches!(twice, ConfigError::Twice { name: "node.id", .. }), "{twice}");
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        for (wrong, nearest) in [
            ("node.ids", "node.id"),
            ("log.retention.mss", "log.retention.ms"),
            ("Num.Partition", "num.partitions"),
            ("listener", "listeners"),
        ] {
            let error = Settings::new().add_set(wrong, "1").expect_err(wrong);
            assert!(error.to_string().contains(&format!("unknown key '{wrong}'")), "{error}");
            assert!(error.to_string().ends_with(&format!("'{nearest}'")), "{error}");
        }
    }

    #[test]
    fn keys_of_the_other_level_and_keys_that_do_not_apply_are_explained() {
        let message = |name| Settings::new().add_set(name, "1").expect_err(name).to_string();
        assert_eq!(message("retention.ms"), "--set: 'retention.ms' is the key of a topic; use 'log.retention.ms' here");
        assert!(message("num.io.threads").contains("no thread pools"));
        assert!(message("zookeeper.connect").contains("no ZooKeeper"));
    }

    #[test]
    fn a_value_out_of_range_or_of_another_type_states_what_is_allowed() {
        let message = |name, value| Settings::new().add_set(name, value).expect_err(name).to_string();
        assert_eq!(
            message("log.segment.bytes", "5"),
            "--set: 'log.segment.bytes' ranges from 1048576 to 2147483647 bytes, not '5'"
        );
        assert!(message("node.id", "one").contains("is an integer from 0 to 2147483647"));
        assert!(message("log.format", "xml").contains("is one of: text, json"));
        assert!(message("log.cleanup.policy", "compact").contains("is a list of these, each once, or of none: delete"));
        assert!(message("write.caching", "yes").contains("'true' or 'false'"));
        assert!(message("listeners", "a:1,,b:2").contains("none of them empty"));
    }

    #[test]
    fn a_file_that_is_no_configuration_is_an_error_with_its_place() {
        for text in ["node.id = ", "node.id = 1.5", "node.id = 2020-01-01", "listeners = [[1]]"] {
            let error = from_file(text).expect_err(text);
            assert!(error.to_string().starts_with("broker.toml: "), "{error}");
        }
    }

    #[test]
    fn a_coarser_key_counts_only_where_the_finer_is_not_set() {
        let mut settings = Settings::new();
        assert_eq!(number(&settings, &keys::LOG_RETENTION_MS), Some(168 * 3_600_000));
        settings.add_set("log.retention.hours", "2").expect("valid");
        assert_eq!(number(&settings, &keys::LOG_RETENTION_MS), Some(2 * 3_600_000));
        settings.add_set("log.retention.minutes", "3").expect("valid");
        assert_eq!(number(&settings, &keys::LOG_RETENTION_MS), Some(180_000));
        settings.add_set("log.retention.minutes", "-1").expect("valid");
        assert_eq!(number(&settings, &keys::LOG_RETENTION_MS), Some(-1));
        settings.add_set("log.retention.ms", "7").expect("valid");
        assert_eq!(number(&settings, &keys::LOG_RETENTION_MS), Some(7));
    }

    #[test]
    fn distances_count_edits() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "SAME"), 0);
    }
}
