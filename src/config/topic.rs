//! The configuration of a topic: the broker's defaults with the topic's own values over them, in real types.
//!
//! A topic stores only (name, value) pairs of what it sets itself; the rest follows the broker. Every pair is checked here
//! and an error means INVALID_CONFIG. There are no −1 sentinels: "no limit" is `None`.

use core::time::Duration;
use std::collections::BTreeMap;

use super::entry::ConfigEntry;
use super::key::{Key, Kind, Value};
use super::keys;
use super::settings::{ConfigError, Origin, Settings, Source, Synonym, topic_key};

/// Whose clock a record's timestamp shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at the append.
    LogAppendTime,
}

/// With write caching: acknowledged records are flushed when the first of these is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushPolicy {
    /// Since the oldest record that is not flushed.
    pub interval: Duration,
    /// Records that are not flushed.
    pub records: u64,
    /// Bytes that are not flushed.
    pub bytes: u64,
}

/// The codec that records are stored with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// The one that they come with.
    Producer,
    /// None.
    Uncompressed,
    /// gzip.
    Gzip {
        /// From 1 to 9; `None` is gzip's own.
        level: Option<u32>,
    },
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd {
        /// From −131 072 to 22.
        level: i32,
    },
}

/// What holds for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Bytes of a segment at most (`segment.bytes`).
    pub segment_bytes_max: u64,
    /// Age of a segment's first record at which a new one is begun (`segment.ms`).
    pub segment_age_max: Duration,
    /// Bytes of a segment between two entries of its index, about (`index.interval.bytes`).
    pub index_interval_bytes: u64,
    /// Age of a segment's newest record beyond which it is deleted; `None` keeps it (`retention.ms`, `cleanup.policy`).
    pub retention_age_max: Option<Duration>,
    /// Bytes of a partition beyond which its oldest segments are deleted; `None` sets no limit (`retention.bytes`,
    /// `cleanup.policy`).
    pub retention_bytes_max: Option<u64>,
    /// The codec that records are stored with (`compression.type` and the levels).
    pub compression: CompressionType,
    /// Bytes of a record batch at most, compressed (`max.message.bytes`).
    pub message_bytes_max: u64,
    /// Whose time a record carries (`message.timestamp.type`).
    pub timestamp_type: TimestampType,
    /// How far a record's time may lie before the broker's (`message.timestamp.before.max.ms`).
    pub timestamp_before_max: Duration,
    /// How far a record's time may lie after the broker's (`message.timestamp.after.max.ms`).
    pub timestamp_after_max: Duration,
    /// `None`: durable before the ack. `Some`: written before the ack, flushed by this policy (`write.caching`, `flush.*`).
    pub write_caching: Option<FlushPolicy>,
    /// In-sync replicas below which acks=all is refused (`min.insync.replicas`).
    pub insync_replicas_min: u16,
}

/// The broker's settings with a topic's own values over them.
pub(super) struct TopicSettings<'a> {
    broker: &'a Settings,
    overrides: BTreeMap<&'static str, Value>,
}

impl<'a> TopicSettings<'a> {
    /// Checks the topic's own values: known topic keys, each once, each in range.
    pub(super) fn new(
        broker: &'a Settings,
        pairs: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
    ) -> Result<TopicSettings<'a>, ConfigError> {
        let mut overrides = BTreeMap::new();
        for (name, text) in pairs {
            let (name, key) = topic_key(name.as_ref())?;
            let text = text.as_ref();
            let value = key.parse(text).map_err(|wrong| ConfigError::value(&Origin::Topic, name, text, wrong))?;
            if overrides.insert(name, value).is_some() {
                return Err(ConfigError::Twice { origin: Origin::Topic, name });
            }
        }
        Ok(TopicSettings { broker, overrides })
    }

    fn value(&self, key: &'static Key) -> (Value, Source) {
        let own = key.topic.and_then(|name| self.overrides.get(name));
        match own {
            Some(value) => (value.clone(), Source::Topic),
            None => self.broker.value(key).expect("every key of a topic has a default"),
        }
    }

    fn number(&self, key: &'static Key) -> Option<u64> {
        match self.value(key) {
            (Value::Number(number), _) => u64::try_from(number).ok(),
            (other, _) => unreachable!("{} is a number, not {other}", key.name),
        }
    }

    /// A number whose range has no −1.
    fn limit(&self, key: &'static Key) -> u64 {
        debug_assert!(matches!(key.kind, Kind::Number { min: 0.., .. }), "{}", key.name);
        self.number(key).expect("the range excludes negative numbers")
    }

    fn is_true(&self, key: &'static Key) -> bool {
        self.value(key).0 == Value::Boolean(true)
    }

    /// The values in real types.
    pub(super) fn to_config(&self) -> TopicConfig {
        let millis = |key| Duration::from_millis(self.limit(key));
        let flush = FlushPolicy {
            interval: millis(&keys::LOG_FLUSH_INTERVAL_MS),
            records: self.limit(&keys::LOG_FLUSH_INTERVAL_MESSAGES),
            bytes: self.limit(&keys::FLUSH_BYTES),
        };
        let append_time = self.value(&keys::LOG_MESSAGE_TIMESTAMP_TYPE).0 == Value::Choice("LogAppendTime");
        let deletes = matches!(self.value(&keys::LOG_CLEANUP_POLICY).0, Value::List(words) if !words.is_empty());
        let retained = |key| self.number(key).filter(|_| deletes);
        TopicConfig {
            segment_bytes_max: self.limit(&keys::LOG_SEGMENT_BYTES),
            segment_age_max: millis(&keys::LOG_ROLL_MS),
            index_interval_bytes: self.limit(&keys::LOG_INDEX_INTERVAL_BYTES),
            retention_age_max: retained(&keys::LOG_RETENTION_MS).map(Duration::from_millis),
            retention_bytes_max: retained(&keys::LOG_RETENTION_BYTES),
            compression: self.compression(),
            message_bytes_max: self.limit(&keys::MESSAGE_MAX_BYTES),
            timestamp_type: if append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            timestamp_before_max: millis(&keys::LOG_MESSAGE_TIMESTAMP_BEFORE_MAX_MS),
            timestamp_after_max: millis(&keys::LOG_MESSAGE_TIMESTAMP_AFTER_MAX_MS),
            write_caching: self.is_true(&keys::WRITE_CACHING).then_some(flush),
            insync_replicas_min: u16::try_from(self.limit(&keys::MIN_INSYNC_REPLICAS))
                .expect("the range is that of i16"),
        }
    }

    fn compression(&self) -> CompressionType {
        let level = |key| match self.value(key) {
            (Value::Number(level), _) => level,
            (other, _) => unreachable!("{} is a number, not {other}", key.name),
        };
        match self.value(&keys::COMPRESSION_TYPE).0 {
            Value::Choice("uncompressed") => CompressionType::Uncompressed,
            Value::Choice("gzip") => {
                CompressionType::Gzip { level: u32::try_from(level(&keys::COMPRESSION_GZIP_LEVEL)).ok() }
            }
            Value::Choice("snappy") => CompressionType::Snappy,
            Value::Choice("lz4") => CompressionType::Lz4,
            Value::Choice("zstd") => {
                let level = i32::try_from(level(&keys::COMPRESSION_ZSTD_LEVEL)).expect("in its range");
                CompressionType::Zstd { level }
            }
            _ => CompressionType::Producer,
        }
    }

    /// Every key of a topic with its value in force, in the order of the table.
    pub(super) fn entries(&self) -> Vec<ConfigEntry> {
        let entry = |(name, key): (&'static str, &'static Key)| {
            let own = self.overrides.get(name);
            let own = own.map(|value| Synonym { name, value: value.clone(), source: Source::Topic });
            let synonyms = own.into_iter().chain(self.broker.synonyms(key)).collect();
            let (value, source) = self.value(key);
            ConfigEntry { name, value: Some(value), source, synonyms, key }
        };
        keys::of_topics().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(broker: &Settings, pairs: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
        Ok(TopicSettings::new(broker, pairs.iter().copied())?.to_config())
    }

    #[test]
    fn a_topic_without_its_own_values_follows_the_broker() {
        let mut broker = Settings::new();
        let defaults = config(&broker, &[]).expect("valid");
        assert_eq!(defaults.retention_age_max, Some(Duration::from_secs(7 * 24 * 3600)));
        assert_eq!((defaults.retention_bytes_max, defaults.write_caching), (None, None));
        assert_eq!((defaults.segment_bytes_max, defaults.message_bytes_max), (1 << 30, 1_048_588));
        broker.add_set("log.retention.hours", "-1").expect("valid");
        broker.add_set("log.segment.bytes", "1048576").expect("valid");
        let changed = config(&broker, &[]).expect("valid");
        assert_eq!((changed.retention_age_max, changed.segment_bytes_max), (None, 1 << 20));
    }

    #[test]
    fn own_values_win() {
        let mut broker = Settings::new();
        broker.add_set("log.retention.ms", "1000").expect("valid");
        let pairs = [("retention.ms", "-1"), ("write.caching", "true"), ("flush.ms", "7"), ("segment.ms", "60000")];
        let config = config(&broker, &pairs).expect("valid");
        assert_eq!(config.retention_age_max, None);
        assert_eq!(config.segment_age_max, Duration::from_secs(60));
        let flush =
            FlushPolicy { interval: Duration::from_millis(7), records: i64::MAX.unsigned_abs(), bytes: 1 << 20 };
        assert_eq!(config.write_caching, Some(flush));
    }

    #[test]
    fn wrong_pairs_are_refused() {
        let message = |pairs: &[(&str, &str)]| config(&Settings::new(), pairs).expect_err("refused").to_string();
        assert!(message(&[("cleanup.policy", "compact")]).contains("or of none: delete"));
        assert!(message(&[("retention.msx", "1")]).contains("the nearest one is 'retention.ms'"));
        assert!(message(&[("log.retention.ms", "1")]).contains("use 'retention.ms' here"));
        assert!(message(&[("node.id", "1")]).contains("a key of the broker"));
        assert!(message(&[("segment.bytes", "1")]).contains("ranges from 1048576 to 2147483647 bytes"));
        assert!(message(&[("retention.ms", "1"), ("retention.ms", "2")]).contains("twice"));
        assert!(message(&[("preallocate", "true")]).contains("does not apply"));
        assert!(message(&[(&"x".repeat(100_000), "1")]).len() < 200);
    }

    #[test]
    fn entries_tell_value_and_source() {
        let mut broker = Settings::new();
        broker.add_set("log.roll.hours", "1").expect("valid");
        let settings = TopicSettings::new(&broker, [("retention.bytes", "5")]).expect("valid");
        let entries = settings.entries();
        assert_eq!(entries.len(), keys::of_topics().count());
        let find = |name| entries.iter().find(|entry| entry.name == name).expect("an entry");
        let told = |name| (find(name).value.as_ref().expect("a value").to_string(), find(name).source);
        assert_eq!(told("retention.bytes"), ("5".to_owned(), Source::Topic));
        assert_eq!(told("segment.ms"), ("3600000".to_owned(), Source::Static));
        assert_eq!(told("cleanup.policy"), ("delete".to_owned(), Source::Default));
        let synonyms = |name| find(name).synonyms.iter().map(|told| (told.name, told.source)).collect::<Vec<_>>();
        let own = [("retention.bytes", Source::Topic), ("log.retention.bytes", Source::Default)];
        assert_eq!(synonyms("retention.bytes"), own);
        assert_eq!(synonyms("segment.ms"), [("log.roll.hours", Source::Static), ("log.roll.hours", Source::Default)]);
    }

    #[test]
    fn without_a_cleanup_policy_nothing_is_deleted() {
        let broker = Settings::new();
        let pairs = [("retention.ms", "5"), ("retention.bytes", "6")];
        let limits = |config: TopicConfig| (config.retention_age_max, config.retention_bytes_max);
        let kept = config(&broker, &[&pairs[..], &[("cleanup.policy", "")]].concat()).expect("valid");
        assert_eq!(limits(kept), (None, None));
        let deleted = config(&broker, &pairs).expect("valid");
        assert_eq!(limits(deleted), (Some(Duration::from_millis(5)), Some(6)));
    }

    #[test]
    fn the_levels_belong_to_their_codecs() {
        let broker = Settings::new();
        let compression = |name, level: &str| {
            let pairs = [("compression.type", name), ("compression.gzip.level", level)];
            config(&broker, &pairs).expect("valid").compression
        };
        assert_eq!(config(&broker, &[]).expect("valid").compression, CompressionType::Producer);
        assert_eq!(compression("producer", "9"), CompressionType::Producer);
        assert_eq!(compression("uncompressed", "9"), CompressionType::Uncompressed);
        assert_eq!(compression("gzip", "9"), CompressionType::Gzip { level: Some(9) });
        assert_eq!(compression("gzip", "-1"), CompressionType::Gzip { level: None });
        assert_eq!(compression("snappy", "9"), CompressionType::Snappy);
        assert_eq!(compression("lz4", "9"), CompressionType::Lz4);
        assert_eq!(compression("zstd", "9"), CompressionType::Zstd { level: 3 });
        let pairs = [("compression.type", "zstd"), ("compression.zstd.level", "-7")];
        assert_eq!(config(&broker, &pairs).expect("valid").compression, CompressionType::Zstd { level: -7 });
    }
}
