//! The configuration of a broker in real types, as the rest of the program reads it.
//!
//! Built at start from [`Settings`] and the machine's figures, immutable afterwards and cheap to share; what is set while the
//! broker runs makes another one ([`BrokerConfig::with_dynamic`]). It also keeps the settings it came from, since a topic's
//! configuration is the broker's with the topic's own values over it.

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;
use std::path::PathBuf;

use super::dynamic::DynamicSettings;
use super::entry::ConfigEntry;
use super::key::{Key, Value};
use super::keys;
use super::listener::{AdminListener, Listener};
use super::settings::{ConfigError, Settings, Source};
use super::topic::{TopicConfig, TopicSettings};
use crate::types::BrokerId;

/// Bytes of memory that a shard needs at least: below, the budgets do not hold one large request and its answer.
const SHARD_MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Bytes of memory that a shard takes at most unless `memory.bytes` says otherwise: more serves reads that the page cache of a
/// shared machine would rather have.
const SHARD_MEMORY_BYTES_DEFAULT_MAX: u64 = 1 << 30;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object for each event.
    Json,
}

/// The least severe log lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only errors.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And what happens seldom.
    Info,
    /// And what helps to find a bug.
    Debug,
    /// Everything.
    Trace,
}

/// What a broker runs with.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// This broker's id (`node.id`).
    pub node_id: BrokerId,
    /// Where it listens, at least one (`listeners`, `advertised.listeners`).
    pub listeners: Vec<Listener>,
    /// Where metrics and health are served (`admin.listener`); absent where they are not.
    pub admin_listener: Option<AdminListener>,
    /// The data directory (`log.dirs`).
    pub data_dir: PathBuf,
    /// Shards, each with a part of the partitions (`shards`).
    pub shards: u16,
    /// Bytes of memory for all shards together (`memory.bytes`).
    pub memory_bytes: u64,
    /// The form of log lines (`log.format`).
    pub log_format: LogFormat,
    /// Which log lines are written (`log.level`).
    pub log_level: LogLevel,
    /// What a stopping broker gives to requests in progress (`shutdown.timeout.ms`).
    pub shutdown_timeout: Duration,
    /// Bytes of a request at most (`socket.request.max.bytes`).
    pub request_bytes_max: u64,
    /// Elements of arrays that a request may hold in all (`max.request.elements`).
    pub request_elements_max: usize,
    /// Partitions of a page of DescribeTopicPartitions at most (`max.request.partition.size.limit`).
    pub page_partitions_max: i32,
    /// Until when a connection's first request is due (`connections.handshake.timeout.ms`).
    pub handshake_timeout: Duration,
    /// What a short request may take from its first to its last byte (`request.receive.timeout.ms`).
    pub receive_timeout: Duration,
    /// What a client may take to take short answers (`response.send.timeout.ms`).
    pub send_timeout: Duration,
    /// How long a connection may be silent (`connections.max.idle.ms`).
    pub connection_idle_max: Duration,
    /// Client connections at most (`max.connections`).
    pub connections_max: u32,
    /// Client connections from one address at most (`max.connections.per.ip`).
    pub connections_per_address_max: u32,
    /// Fetch sessions of all shards together at most (`max.incremental.fetch.session.cache.slots`).
    pub fetch_sessions_max: u32,
    /// Whether a request may create a topic (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// Partitions of a new topic (`num.partitions`).
    pub partitions_default: NonZeroU32,
    /// Replicas of a new topic (`default.replication.factor`).
    pub replication_factor_default: NonZeroU16,
    /// After which silence a producer is forgotten (`producer.id.expiration.ms`).
    pub producer_expiration: Duration,
    /// Producers that a partition remembers at most (`max.producer.ids.per.partition`).
    pub producers_max: usize,
    /// Time between two looks for segments to delete (`log.retention.check.interval.ms`).
    pub retention_check_interval: Duration,
    /// Bytes after which a partition writes a checkpoint (`checkpoint.bytes`).
    pub checkpoint_bytes: u64,
    /// Time after which a dirty partition writes a checkpoint (`checkpoint.interval.ms`).
    pub checkpoint_interval: Duration,
    /// Bytes of free disk below which produce is refused (`log.dir.reserve.bytes`).
    pub disk_reserve_bytes: u64,
    settings: Settings,
}

impl BrokerConfig {
    /// Turns settings into a configuration for `shards` shards, given the bytes that `memory.bytes` defaults to
    /// ([`memory_bytes_default`]).
    pub fn new(settings: Settings, shards: u16, memory_bytes_default: u64) -> Result<BrokerConfig, ConfigError> {
        let read = Reader { settings: &settings };
        let config = BrokerConfig {
            node_id: i32::try_from(read.number(&keys::NODE_ID)).ok().and_then(BrokerId::new).expect("in its range"),
            listeners: read.listeners()?,
            admin_listener: read.admin_listener()?,
            data_dir: read.data_dir()?,
            shards,
            memory_bytes: read.memory_bytes(shards, memory_bytes_default)?,
            log_format: if read.word(&keys::LOG_FORMAT) == "json" { LogFormat::Json } else { LogFormat::Text },
            log_level: match read.word(&keys::LOG_LEVEL) {
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "debug" => LogLevel::Debug,
                "trace" => LogLevel::Trace,
                _ => LogLevel::Info,
            },
            shutdown_timeout: read.millis(&keys::SHUTDOWN_TIMEOUT_MS),
            request_bytes_max: read.number(&keys::SOCKET_REQUEST_MAX_BYTES),
            request_elements_max: read.number_u32(&keys::MAX_REQUEST_ELEMENTS) as usize,
            page_partitions_max: i32::try_from(read.number(&keys::MAX_REQUEST_PARTITION_SIZE_LIMIT))
                .expect("in its range"),
            handshake_timeout: read.millis(&keys::CONNECTIONS_HANDSHAKE_TIMEOUT_MS),
            receive_timeout: read.millis(&keys::REQUEST_RECEIVE_TIMEOUT_MS),
            send_timeout: read.millis(&keys::RESPONSE_SEND_TIMEOUT_MS),
            connection_idle_max: read.millis(&keys::CONNECTIONS_MAX_IDLE_MS),
            connections_max: read.number_u32(&keys::MAX_CONNECTIONS),
            connections_per_address_max: read.number_u32(&keys::MAX_CONNECTIONS_PER_IP),
            fetch_sessions_max: read.number_u32(&keys::MAX_INCREMENTAL_FETCH_SESSION_CACHE_SLOTS),
            auto_create_topics: read.value(&keys::AUTO_CREATE_TOPICS_ENABLE) == Value::Boolean(true),
            partitions_default: NonZeroU32::new(read.number_u32(&keys::NUM_PARTITIONS)).expect("in its range"),
            replication_factor_default: u16::try_from(read.number(&keys::DEFAULT_REPLICATION_FACTOR))
                .ok()
                .and_then(NonZeroU16::new)
                .expect("in its range"),
            producer_expiration: read.millis(&keys::PRODUCER_ID_EXPIRATION_MS),
            producers_max: read.number_u32(&keys::MAX_PRODUCER_IDS_PER_PARTITION) as usize,
            retention_check_interval: read.millis(&keys::LOG_RETENTION_CHECK_INTERVAL_MS),
            checkpoint_bytes: read.number(&keys::CHECKPOINT_BYTES),
            checkpoint_interval: read.millis(&keys::CHECKPOINT_INTERVAL_MS),
            disk_reserve_bytes: read.number(&keys::LOG_DIR_RESERVE_BYTES),
            settings: Settings::new(),
        };
        Ok(BrokerConfig { settings, ..config })
    }

    /// The configuration of a topic that sets these (name, value) pairs itself. An error is INVALID_CONFIG.
    pub fn topic(
        &self,
        pairs: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
    ) -> Result<TopicConfig, ConfigError> {
        Ok(TopicSettings::new(&self.settings, pairs)?.to_config())
    }

    /// Every key of such a topic with its value in force and where that comes from.
    pub fn topic_entries(
        &self,
        pairs: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>,
    ) -> Result<Vec<ConfigEntry>, ConfigError> {
        Ok(TopicSettings::new(&self.settings, pairs)?.entries())
    }

    /// The broker of the same start with other values set since.
    #[must_use]
    pub fn with_dynamic(&self, dynamic: DynamicSettings) -> BrokerConfig {
        let settings = self.settings.with_dynamic(dynamic);
        let read = Reader { settings: &settings };
        // Every key of the broker alone that can change while it runs; a topic's keys are read from the settings.
        let producer_expiration = read.millis(&keys::PRODUCER_ID_EXPIRATION_MS);
        BrokerConfig { producer_expiration, settings, ..self.clone() }
    }

    /// Every key of the broker with its value in force and where that comes from.
    pub fn entries(&self) -> Vec<ConfigEntry> {
        keys::ALL.iter().map(|key| self.entry(key)).collect()
    }

    /// What was set of all brokers while they ran, and nothing else.
    pub fn dynamic_default_entries(&self) -> Vec<ConfigEntry> {
        let set = self.settings.dynamic_defaults();
        let entries = set.map(|(key, value)| {
            let mut entry =
                ConfigEntry { value: Some(value.clone()), source: Source::DynamicDefault, ..self.entry(key) };
            entry.synonyms.retain(|synonym| synonym.source == Source::DynamicDefault);
            entry
        });
        entries.collect()
    }

    fn entry(&self, key: &'static Key) -> ConfigEntry {
        let (value, source) = self.settings.value(key).unzip();
        let value = match value {
            // The machine has decided.
            None if key == &keys::MEMORY_BYTES => i64::try_from(self.memory_bytes).ok().map(Value::Number),
            value => value,
        };
        let source = source.unwrap_or(Source::Default);
        ConfigEntry { name: key.name, value, source, synonyms: self.settings.synonyms(key), key }
    }

    /// The list that a topic or broker has which sets `key` to `own` itself, or does not set it; empty for what is no list.
    pub fn list(&self, key: &'static Key, own: Option<&str>) -> Vec<String> {
        let own = own.and_then(|text| key.parse(text).ok());
        match own.or_else(|| Some(self.settings.value(key)?.0)) {
            Some(Value::List(entries)) => entries,
            _ => Vec::new(),
        }
    }
}

/// What `memory.bytes` is where nothing sets it: half of the machine's memory or of its cgroup's limit, at most 1 GiB for
/// each shard, at least 64 MiB for each shard. All in bytes.
pub fn memory_bytes_default(machine_bytes: u64, cgroup_bytes: Option<u64>, shards: u16) -> u64 {
    let shards = u64::from(shards.max(1));
    let half = machine_bytes.min(cgroup_bytes.unwrap_or(u64::MAX)) / 2;
    half.clamp(SHARD_MEMORY_BYTES_MIN * shards, SHARD_MEMORY_BYTES_DEFAULT_MAX * shards)
}

/// Reads checked values in real types.
struct Reader<'a> {
    settings: &'a Settings,
}

impl Reader<'_> {
    fn value(&self, key: &'static Key) -> Value {
        self.settings.value(key).expect("the key has a default").0
    }

    /// A number whose range has no −1.
    fn number(&self, key: &'static Key) -> u64 {
        match self.value(key) {
            Value::Number(number) => u64::try_from(number).expect("the range excludes negative numbers"),
            other => unreachable!("{} is a number, not {other}", key.name),
        }
    }

    fn number_u32(&self, key: &'static Key) -> u32 {
        u32::try_from(self.number(key)).expect("the range is that of i32")
    }

    fn millis(&self, key: &'static Key) -> Duration {
        Duration::from_millis(self.number(key))
    }

    fn word(&self, key: &'static Key) -> &'static str {
        match self.value(key) {
            Value::Choice(word) => word,
            other => unreachable!("{} is a choice, not {other}", key.name),
        }
    }

    fn list(&self, key: &'static Key) -> Option<Vec<String>> {
        match self.settings.value(key)?.0 {
            Value::List(entries) => Some(entries),
            other => unreachable!("{} is a list, not {other}", key.name),
        }
    }

    fn listeners(&self) -> Result<Vec<Listener>, ConfigError> {
        let listeners = self.list(&keys::LISTENERS).expect("the key has a default");
        let advertised = self.list(&keys::ADVERTISED_LISTENERS);
        Listener::parse_all(&listeners, advertised.as_deref())
            .map_err(|error| ConfigError::Unusable { name: keys::LISTENERS.name, reason: error.to_string() })
    }

    fn admin_listener(&self) -> Result<Option<AdminListener>, ConfigError> {
        let unusable = |reason| ConfigError::Unusable { name: keys::ADMIN_LISTENER.name, reason };
        match self.list(&keys::ADMIN_LISTENER).expect("the key has a default").as_slice() {
            [one] => AdminListener::parse(one).map_err(|error| unusable(error.to_string())),
            several => Err(unusable(format!("names one address, not {}", several.len()))),
        }
    }

    fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        let directories = self.list(&keys::LOG_DIRS).expect("the key has a default");
        match directories.as_slice() {
            [one] => Ok(PathBuf::from(one)),
            several => Err(ConfigError::Unusable {
                name: keys::LOG_DIRS.name,
                reason: format!("names one directory, not {}", several.len()),
            }),
        }
    }

    fn memory_bytes(&self, shards: u16, default: u64) -> Result<u64, ConfigError> {
        if !self.settings.is_set(&keys::MEMORY_BYTES) {
            return Ok(default);
        }
        let bytes = self.number(&keys::MEMORY_BYTES);
        let least = SHARD_MEMORY_BYTES_MIN * u64::from(shards);
        if bytes < least {
            let reason = format!("{shards} shards need at least {least} bytes, not {bytes}");
            return Err(ConfigError::Unusable { name: keys::MEMORY_BYTES.name, reason });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::Change;
    use crate::config::listener::BindHost;

    const GIB: u64 = 1 << 30;

    fn with(pairs: &[(&str, &str)], shards: u16) -> Result<BrokerConfig, ConfigError> {
        let mut settings = Settings::new();
        for (name, value) in pairs {
            settings.add_set(name, value)?;
        }
        BrokerConfig::new(settings, shards, GIB)
    }

    #[test]
    fn defaults_start_a_broker_on_localhost() {
        let config = with(&[], 1).expect("valid");
        assert_eq!(config.node_id.value(), 1);
        assert_eq!((config.listeners.len(), config.listeners[0].port), (1, 9092));
        assert_eq!(config.listeners[0].host, BindHost::Localhost);
        let admin = config.admin_listener.expect("on by default");
        assert_eq!((admin.host, admin.port), (BindHost::Address(core::net::Ipv4Addr::LOCALHOST.into()), 9644));
        assert_eq!(config.data_dir, PathBuf::from("./data"));
        assert_eq!((config.memory_bytes, config.auto_create_topics, config.partitions_default.get()), (GIB, true, 1));
        assert_eq!((config.log_format, config.log_level), (LogFormat::Text, LogLevel::Info));
        assert_eq!(config.shutdown_timeout, Duration::from_secs(30));
        assert_eq!((config.checkpoint_bytes, config.checkpoint_interval), (64 << 20, Duration::from_secs(5)));
    }

    #[test]
    fn every_log_level_and_format_has_its_type() {
        for (word, level) in [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ] {
            assert_eq!(with(&[("log.level", word)], 1).expect("valid").log_level, level);
        }
        assert_eq!(with(&[("log.format", "json")], 1).expect("valid").log_format, LogFormat::Json);
    }

    #[test]
    fn values_that_cannot_be_used_are_refused() {
        let message = |pairs: &[(&str, &str)], shards| with(pairs, shards).expect_err("refused").to_string();
        assert!(message(&[("log.dirs", "a,b")], 1).contains("names one directory, not 2"));
        assert!(message(&[("admin.listener", "a:1,b:2")], 1).contains("names one address, not 2"));
        assert!(message(&[("admin.listener", "9644")], 1).contains("'9644' is not host:port"));
        assert!(message(&[("listeners", "0.0.0.0:9092")], 1).contains("set advertised.listeners"));
        assert!(message(&[("memory.bytes", "67108864")], 2).contains("2 shards need at least 134217728"));
        assert!(message(&[("memory.bytes", "67108863")], 1).contains("ranges from 67108864"));
    }

    #[test]
    fn memory_follows_the_smaller_of_machine_and_cgroup_within_its_bounds() {
        assert_eq!(memory_bytes_default(8 * GIB, None, 1), GIB);
        assert_eq!(memory_bytes_default(8 * GIB, None, 8), 4 * GIB);
        assert_eq!(memory_bytes_default(8 * GIB, Some(GIB), 2), GIB / 2);
        assert_eq!(memory_bytes_default(GIB / 16, None, 2), 128 << 20);
    }

    #[test]
    fn a_topic_is_the_broker_with_its_own_values_over_it() {
        let config = with(&[("log.retention.bytes", "7"), ("log.segment.bytes", "1048576")], 1).expect("valid");
        let topic = config.topic([("retention.bytes", "8")]).expect("valid");
        assert_eq!((topic.retention_bytes_max, topic.segment_bytes_max), (Some(8), 1 << 20));
        assert_eq!(config.topic_entries([("retention.bytes", "8")]).map(|entries| entries.len()), {
            Ok(keys::of_topics().count())
        });
    }

    fn dynamic(one: &[(&'static str, &'static str)], all: &[(&'static str, &'static str)]) -> DynamicSettings {
        let (settings, errors) = DynamicSettings::read(one.iter().copied(), all.iter().copied());
        assert_eq!(errors, []);
        settings
    }

    /// Whoever makes another key of the broker dynamic has to say so in `with_dynamic`.
    #[test]
    fn every_dynamic_key_of_the_broker_alone_takes_effect() {
        let alone = keys::ALL.iter().filter(|key| key.topic.is_none() && key.change == Change::Dynamic);
        assert_eq!(alone.map(|key| key.name).collect::<Vec<_>>(), ["producer.id.expiration.ms"]);
        let config = with(&[("producer.id.expiration.ms", "5")], 1).expect("valid");
        let changed = config.with_dynamic(dynamic(&[], &[("producer.id.expiration.ms", "6")]));
        assert_eq!(changed.producer_expiration, Duration::from_millis(6));
        let back = changed.with_dynamic(DynamicSettings::default());
        assert_eq!(back.producer_expiration, Duration::from_millis(5));
    }

    #[test]
    fn topics_follow_what_is_set_while_the_broker_runs() {
        let start = with(&[("log.retention.bytes", "7")], 1).expect("valid");
        let retention = |config: &BrokerConfig, own: &[(&str, &str)]| {
            config.topic(own.iter().copied()).expect("valid").retention_bytes_max
        };
        let changed = start.with_dynamic(dynamic(&[], &[("log.retention.bytes", "8")]));
        assert_eq!((retention(&start, &[]), retention(&changed, &[])), (Some(7), Some(8)));
        assert_eq!(retention(&changed, &[("retention.bytes", "9")]), Some(9));
    }

    #[test]
    fn entries_of_the_broker_are_all_keys_and_those_of_all_brokers_what_was_set() {
        let start = with(&[("log.retention.bytes", "7")], 1).expect("valid");
        let config = start.with_dynamic(dynamic(&[("log.retention.ms", "1")], &[("log.retention.ms", "2")]));
        let entries = config.entries();
        assert_eq!(entries.len(), keys::ALL.len());
        let find = |name| {
            let entry = entries.iter().find(|entry| entry.name == name).expect("an entry");
            (entry.value.as_ref().map(Value::to_string), entry.source)
        };
        assert_eq!(find("log.retention.ms"), (Some("1".into()), Source::DynamicBroker));
        assert_eq!(find("log.retention.bytes"), (Some("7".into()), Source::Static));
        assert_eq!(find("memory.bytes"), (Some(GIB.to_string()), Source::Default));
        assert_eq!(find("advertised.listeners"), (None, Source::Default));
        assert!(entries.iter().any(|entry| entry.name == "node.id" && entry.is_read_only()));

        let defaults = config.dynamic_default_entries();
        assert_eq!(defaults.len(), 1);
        assert_eq!((defaults[0].name, defaults[0].source), ("log.retention.ms", Source::DynamicDefault));
        assert_eq!(defaults[0].value, Some(Value::Number(2)));
        assert_eq!(defaults[0].synonyms.len(), 1);
    }

    #[test]
    fn a_list_is_the_topics_own_or_the_brokers() {
        let config = with(&[], 1).expect("valid");
        assert_eq!(config.list(&keys::LOG_CLEANUP_POLICY, None), ["delete"]);
        assert_eq!(config.list(&keys::LOG_CLEANUP_POLICY, Some("")), [] as [&str; 0]);
        assert_eq!(config.list(&keys::LOG_RETENTION_MS, None), [] as [&str; 0]);
    }
}
