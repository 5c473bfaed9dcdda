//! The table of configuration keys: a row per key, each the only definition of that key.
//!
//! A key is here when, and only when, something reads it. Names, types and defaults are Kafka 4.2's where Kafka has the
//! thing; where this broker differs the row says so. Removing a row removes the key; what still reads it fails to compile.
//! The values themselves live in `settings`; what they mean in types, in `broker` and `topic`.

use super::key::{Change, Key, Kind, Unit};

const INT_MAX: i64 = i32::MAX as i64;
const LONG_MAX: i64 = i64::MAX;
const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;

/// An empty row, for the fields that most rows leave as they are.
const ROW: Key = Key {
    name: "",
    topic: None,
    kind: Kind::Boolean,
    default: None,
    coarser: &[],
    change: Change::ReadOnly,
    documentation: "",
};

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $key:ident = { $($field:ident: $value:expr),+ $(,)? };)+) => {
        $($(#[doc = $doc])+ pub static $key: Key = Key { $($field: $value,)+ documentation: concat!($($doc),+), ..ROW };)+

        /// Every key, in the order of the table.
        pub static ALL: &[&Key] = &[$(&$key),+];
    };
}

keys! {
    // The node and where it listens.

    /// The id of this broker, unique in its cluster.
    NODE_ID = { name: "node.id", kind: Kind::int(0, INT_MAX, Unit::Count), default: Some("1") };

    /// The addresses to listen on, each `host:port` or `PLAINTEXT://host:port`. `localhost` is 127.0.0.1 and, where
    /// present, [::1]; an empty host is every address; port 0 takes a free one.
    LISTENERS = { name: "listeners", kind: Kind::List, default: Some("localhost:9092") };

    /// The addresses that clients are told, one for each of `listeners` in the same order. Not set: those of `listeners`.
    ADVERTISED_LISTENERS = { name: "advertised.listeners", kind: Kind::List };

    /// Where metrics and health are served over HTTP, `host:port`; port 0 takes a free one, `none` serves them nowhere. There
    /// is no access control: whoever reaches the address may read them.
    ADMIN_LISTENER = { name: "admin.listener", kind: Kind::List, default: Some("127.0.0.1:9644") };

    /// The data directory. Exactly one: partitions are spread over shards, not over directories.
    LOG_DIRS = { name: "log.dirs", kind: Kind::List, default: Some("./data") };

    /// The shards: executors that each own a part of the partitions, one on a core. More than there are cores share them.
    /// Not set: one for each core. Any number serves any data directory. Not a key of Kafka's.
    SHARDS = { name: "shards", kind: Kind::int(1, 1024, Unit::Count) };

    /// The memory that shards plan with: 45 % of it are append buffers, which are the cache of recent records too, and a
    /// request may take 7.5 %. Not set: half of the memory of the machine or of its cgroup, at most 1 GiB for each shard and
    /// at least 64 MiB for each shard.
    MEMORY_BYTES = { name: "memory.bytes", kind: Kind::long(64 * MIB, LONG_MAX, Unit::Bytes) };

    /// The form of the log lines on standard error.
    LOG_FORMAT = { name: "log.format", kind: Kind::Choice(&["text", "json"]), default: Some("text") };

    /// The least severe log lines that are written.
    LOG_LEVEL = {
        name: "log.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        default: Some("info"),
    };

    /// The time that a stopping broker gives to requests that are in progress.
    SHUTDOWN_TIMEOUT_MS = {
        name: "shutdown.timeout.ms",
        kind: Kind::int(0, INT_MAX, Unit::Milliseconds),
        default: Some("30000"),
    };

    // Connections and requests.

    /// The greatest request accepted. The memory budget may lower it; the start log line shows the limit in force.
    SOCKET_REQUEST_MAX_BYTES = {
        name: "socket.request.max.bytes",
        kind: Kind::int(KIB, INT_MAX, Unit::Bytes),
        default: Some("104857600"),
    };

    /// The most elements of arrays (topics, partitions, brokers, keys) that a request may hold in all, since each can become
    /// much more memory than it has bytes. A request with more ends its connection. Not a key of Kafka's.
    MAX_REQUEST_ELEMENTS = {
        name: "max.request.elements",
        kind: Kind::int(1_000, 131_072, Unit::Count),
        default: Some("131072"),
    };

    /// Partitions that an answer to DescribeTopicPartitions holds at most, however many the client asks for; the client asks
    /// again for the rest. With three replicas each, 2 000 take about 100 KB.
    MAX_REQUEST_PARTITION_SIZE_LIMIT = {
        name: "max.request.partition.size.limit",
        kind: Kind::int(1, 100_000, Unit::Count),
        default: Some("2000"),
    };

    /// A new connection whose first request is not there after this is closed. Not a key of Kafka's.
    CONNECTIONS_HANDSHAKE_TIMEOUT_MS = {
        name: "connections.handshake.timeout.ms",
        kind: Kind::int(1, INT_MAX, Unit::Milliseconds),
        default: Some("10000"),
    };

    /// A request of which bytes are missing this long after its first ones ends its connection. A long one is granted another
    /// second for each 64 KiB of it. Not a key of Kafka's.
    REQUEST_RECEIVE_TIMEOUT_MS = {
        name: "request.receive.timeout.ms",
        kind: Kind::int(1, INT_MAX, Unit::Milliseconds),
        default: Some("30000"),
    };

    /// A client that has not taken its answers after this loses its connection; of long answers, the next MiB. Not a key of
    /// Kafka's.
    RESPONSE_SEND_TIMEOUT_MS = {
        name: "response.send.timeout.ms",
        kind: Kind::int(1, INT_MAX, Unit::Milliseconds),
        default: Some("300000"),
    };

    /// A connection without a request for this long is closed.
    CONNECTIONS_MAX_IDLE_MS = {
        name: "connections.max.idle.ms",
        kind: Kind::long(1, LONG_MAX, Unit::Milliseconds),
        default: Some("600000"),
    };

    /// The greatest number of client connections; further ones are closed at once. Kafka's default is 2147483647; here it
    /// is finite.
    MAX_CONNECTIONS = { name: "max.connections", kind: Kind::int(1, INT_MAX, Unit::Count), default: Some("10000") };

    /// The greatest number of client connections from one address; further ones are closed at once. Kafka's default is
    /// 2147483647; here it is finite.
    MAX_CONNECTIONS_PER_IP = {
        name: "max.connections.per.ip",
        kind: Kind::int(0, INT_MAX, Unit::Count),
        default: Some("8000"),
    };

    /// How many fetch sessions the broker keeps: what clients fetch, so that they need not say it again. 0 keeps none. Kafka
    /// has the same default; here the sessions are bounded by memory, too.
    MAX_INCREMENTAL_FETCH_SESSION_CACHE_SLOTS = {
        name: "max.incremental.fetch.session.cache.slots",
        kind: Kind::int(0, INT_MAX, Unit::Count),
        default: Some("1000"),
    };

    // Topics.

    /// Whether a request for an unknown topic may create it, where the client allows it too.
    AUTO_CREATE_TOPICS_ENABLE = { name: "auto.create.topics.enable", default: Some("true") };

    /// The partitions of a topic that is created without a number of its own.
    NUM_PARTITIONS = { name: "num.partitions", kind: Kind::int(1, 100_000, Unit::Count), default: Some("1") };

    /// The replicas of a topic that is created without a number of its own.
    DEFAULT_REPLICATION_FACTOR = {
        name: "default.replication.factor",
        kind: Kind::int(1, 32_767, Unit::Count),
        default: Some("1"),
    };

    /// A produce with acks=all is refused while fewer replicas than this are in sync.
    MIN_INSYNC_REPLICAS = {
        name: "min.insync.replicas",
        topic: Some("min.insync.replicas"),
        kind: Kind::int(1, 32_767, Unit::Count),
        default: Some("1"),
        change: Change::Dynamic,
    };

    // Records.

    /// The greatest record batch accepted, after compression.
    MESSAGE_MAX_BYTES = {
        name: "message.max.bytes",
        topic: Some("max.message.bytes"),
        kind: Kind::int(0, INT_MAX, Unit::Bytes),
        default: Some("1048588"),
        change: Change::Dynamic,
    };

    /// Whether a record's timestamp is the producer's or the time of its append.
    LOG_MESSAGE_TIMESTAMP_TYPE = {
        name: "log.message.timestamp.type",
        topic: Some("message.timestamp.type"),
        kind: Kind::Choice(&["CreateTime", "LogAppendTime"]),
        default: Some("CreateTime"),
        change: Change::Dynamic,
    };

    /// The codec that records are stored with. `producer` is whatever they come with; any other one has the broker unpack and
    /// pack what comes otherwise.
    COMPRESSION_TYPE = {
        name: "compression.type",
        topic: Some("compression.type"),
        kind: Kind::Choice(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        default: Some("producer"),
        change: Change::Dynamic,
    };

    /// The level at which the broker packs with gzip, where compression.type has it do so; -1 is gzip's own.
    COMPRESSION_GZIP_LEVEL = {
        name: "compression.gzip.level",
        topic: Some("compression.gzip.level"),
        kind: Kind::Level { min: 1, max: 9, usual: -1 },
        default: Some("-1"),
        change: Change::Dynamic,
    };

    /// The level at which the broker packs with zstd, where compression.type has it do so.
    COMPRESSION_ZSTD_LEVEL = {
        name: "compression.zstd.level",
        topic: Some("compression.zstd.level"),
        kind: Kind::Level { min: -131_072, max: 22, usual: 3 },
        default: Some("3"),
        change: Change::Dynamic,
    };

    /// How far the producer's timestamp may lie before the broker's clock; a record beyond is refused.
    LOG_MESSAGE_TIMESTAMP_BEFORE_MAX_MS = {
        name: "log.message.timestamp.before.max.ms",
        topic: Some("message.timestamp.before.max.ms"),
        kind: Kind::long(0, LONG_MAX, Unit::Milliseconds),
        default: Some("9223372036854775807"),
        change: Change::Dynamic,
    };

    /// How far the producer's timestamp may lie after the broker's clock; a record beyond is refused.
    LOG_MESSAGE_TIMESTAMP_AFTER_MAX_MS = {
        name: "log.message.timestamp.after.max.ms",
        topic: Some("message.timestamp.after.max.ms"),
        kind: Kind::long(0, LONG_MAX, Unit::Milliseconds),
        default: Some("3600000"),
        change: Change::Dynamic,
    };

    /// An idempotent producer that appended nothing for this long is forgotten.
    PRODUCER_ID_EXPIRATION_MS = {
        name: "producer.id.expiration.ms",
        kind: Kind::int(1, INT_MAX, Unit::Milliseconds),
        default: Some("86400000"),
        change: Change::Dynamic,
    };

    /// The most idempotent producers that a partition remembers. Of more, the one that was silent for longest is forgotten; it
    /// may go on, but what it sends again is not recognised. Not a key of Kafka's.
    MAX_PRODUCER_IDS_PER_PARTITION = {
        name: "max.producer.ids.per.partition",
        kind: Kind::int(1, 65_536, Unit::Count),
        default: Some("65536"),
    };

    // Segments and their index.

    /// A segment that would grow beyond this is followed by a new one.
    LOG_SEGMENT_BYTES = {
        name: "log.segment.bytes",
        topic: Some("segment.bytes"),
        kind: Kind::int(MIB, INT_MAX, Unit::Bytes),
        default: Some("1073741824"),
        change: Change::Dynamic,
    };

    /// A segment whose first record is older than this is followed by a new one at the next append. Not set: `log.roll.hours`.
    LOG_ROLL_MS = {
        name: "log.roll.ms",
        topic: Some("segment.ms"),
        kind: Kind::long(1, LONG_MAX, Unit::Milliseconds),
        coarser: &[&LOG_ROLL_HOURS],
        change: Change::Dynamic,
    };

    /// `log.roll.ms` in hours, used where that one is not set.
    LOG_ROLL_HOURS = { name: "log.roll.hours", kind: Kind::int(1, INT_MAX, Unit::Hours), default: Some("168") };

    /// About how many bytes of a segment lie between two entries of its index.
    LOG_INDEX_INTERVAL_BYTES = {
        name: "log.index.interval.bytes",
        topic: Some("index.interval.bytes"),
        kind: Kind::int(0, INT_MAX, Unit::Bytes),
        default: Some("4096"),
        change: Change::Dynamic,
    };

    // Retention.

    /// What becomes of old records: `delete` has the retention keys decide, an empty list keeps them for ever.
    LOG_CLEANUP_POLICY = {
        name: "log.cleanup.policy",
        topic: Some("cleanup.policy"),
        kind: Kind::Words(&["delete"]),
        default: Some("delete"),
        change: Change::Dynamic,
    };

    /// A segment whose newest record is older than this is deleted; -1 keeps it. Not set: `log.retention.minutes`.
    LOG_RETENTION_MS = {
        name: "log.retention.ms",
        topic: Some("retention.ms"),
        kind: Kind::long(-1, LONG_MAX, Unit::Milliseconds),
        coarser: &[&LOG_RETENTION_MINUTES, &LOG_RETENTION_HOURS],
        change: Change::Dynamic,
    };

    /// `log.retention.ms` in minutes, used where that one is not set. Not set: `log.retention.hours`.
    LOG_RETENTION_MINUTES = { name: "log.retention.minutes", kind: Kind::int(-1, INT_MAX, Unit::Minutes) };

    /// `log.retention.ms` in hours, used where neither that one nor `log.retention.minutes` is set.
    LOG_RETENTION_HOURS = { name: "log.retention.hours", kind: Kind::int(-1, INT_MAX, Unit::Hours), default: Some("168") };

    /// The oldest segments of a partition that exceeds this are deleted; -1 sets no limit.
    LOG_RETENTION_BYTES = {
        name: "log.retention.bytes",
        topic: Some("retention.bytes"),
        kind: Kind::long(-1, LONG_MAX, Unit::Bytes),
        default: Some("-1"),
        change: Change::Dynamic,
    };

    /// The time between two looks for segments to delete.
    LOG_RETENTION_CHECK_INTERVAL_MS = {
        name: "log.retention.check.interval.ms",
        kind: Kind::long(1, LONG_MAX, Unit::Milliseconds),
        default: Some("300000"),
    };

    // Durability and recovery.

    /// Whether a record may be acknowledged once the kernel has it (it survives the process, not a power cut) instead of
    /// once it is on stable storage. The `flush` keys have an effect only where this is true. Not a key of Kafka's.
    WRITE_CACHING = {
        name: "write.caching",
        topic: Some("write.caching"),
        default: Some("false"),
        change: Change::Dynamic,
    };

    /// With write caching: the longest time that an acknowledged record waits for its flush. Kafka's default is never.
    LOG_FLUSH_INTERVAL_MS = {
        name: "log.flush.interval.ms",
        topic: Some("flush.ms"),
        kind: Kind::long(1, LONG_MAX, Unit::Milliseconds),
        default: Some("100"),
        change: Change::Dynamic,
    };

    /// With write caching: the most records of a partition that wait for a flush.
    LOG_FLUSH_INTERVAL_MESSAGES = {
        name: "log.flush.interval.messages",
        topic: Some("flush.messages"),
        kind: Kind::long(1, LONG_MAX, Unit::Count),
        default: Some("9223372036854775807"),
        change: Change::Dynamic,
    };

    /// With write caching: the most bytes of a partition that wait for a flush. Not a key of Kafka's.
    FLUSH_BYTES = {
        name: "flush.bytes",
        topic: Some("flush.bytes"),
        kind: Kind::long(1, LONG_MAX, Unit::Bytes),
        default: Some("1048576"),
        change: Change::Dynamic,
    };

    /// A partition writes a checkpoint after this many bytes, so that a restart scans no more. Not a key of Kafka's.
    CHECKPOINT_BYTES = {
        name: "checkpoint.bytes",
        kind: Kind::long(MIB, LONG_MAX, Unit::Bytes),
        default: Some("67108864"),
    };

    /// A partition with appends since its last checkpoint writes one after this time. Not a key of Kafka's.
    CHECKPOINT_INTERVAL_MS = {
        name: "checkpoint.interval.ms",
        kind: Kind::long(100, LONG_MAX, Unit::Milliseconds),
        default: Some("5000"),
    };

    /// Produce is refused while the data directory has less free space than this; deletion and checkpoints use the rest.
    /// Not a key of Kafka's.
    LOG_DIR_RESERVE_BYTES = {
        name: "log.dir.reserve.bytes",
        kind: Kind::long(0, LONG_MAX, Unit::Bytes),
        default: Some("16777216"),
    };
}

/// The key of this broker-level name.
pub fn by_name(name: &str) -> Option<&'static Key> {
    ALL.iter().copied().find(|key| key.name == name)
}

/// The key of this topic-level name.
pub fn by_topic_name(name: &str) -> Option<&'static Key> {
    ALL.iter().copied().find(|key| key.topic == Some(name))
}

/// The rows that have a topic-level name, in the order of the table.
pub fn of_topics() -> impl Iterator<Item = (&'static str, &'static Key)> {
    ALL.iter().copied().filter_map(|key| Some((key.topic?, key)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_on_each_level_and_documented() {
        let mut names = HashSet::new();
        let mut topic_names = HashSet::new();
        for key in ALL {
            assert!(names.insert(key.name), "{} twice", key.name);
            assert!(key.topic.is_none_or(|name| topic_names.insert(name)), "{:?} twice", key.topic);
            assert!(key.documentation.trim_end().ends_with('.'), "{} has no documentation", key.name);
        }
    }

    #[test]
    fn every_default_passes_its_own_check() {
        for key in ALL {
            if let Some(default) = key.default {
                let value = key.parse(default);
                assert_eq!(value.map(|value| value.to_string()).as_deref(), Ok(default), "{}", key.name);
            }
            // What has no default of its own gets one from a coarser key, or is documented to be optional.
            let inherited = key.coarser.iter().any(|coarser| coarser.default.is_some());
            assert!(key.default.is_some() || inherited || key.documentation.contains("Not set:"), "{}", key.name);
        }
    }

    #[test]
    fn every_key_of_a_topic_can_be_changed_while_the_broker_runs() {
        assert!(of_topics().all(|(_, key)| key.change == Change::Dynamic));
        // A coarser key is read beneath a finer one that may change, so it must not change itself: the finer one would hide it.
        assert!(ALL.iter().flat_map(|key| key.coarser).all(|coarser| coarser.change == Change::ReadOnly));
    }

    #[test]
    fn the_defaults_of_kafka_are_kept() {
        for (name, default) in [
            ("message.max.bytes", "1048588"),
            ("log.segment.bytes", "1073741824"),
            ("log.roll.hours", "168"),
            ("log.retention.hours", "168"),
            ("log.retention.bytes", "-1"),
            ("log.message.timestamp.after.max.ms", "3600000"),
            ("socket.request.max.bytes", "104857600"),
            ("producer.id.expiration.ms", "86400000"),
            ("compression.type", "producer"),
            ("compression.gzip.level", "-1"),
            ("compression.zstd.level", "3"),
        ] {
            assert_eq!(by_name(name).and_then(|key| key.default), Some(default), "{name}");
        }
    }
}
