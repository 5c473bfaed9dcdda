//! From configuration keys to the options of logs and to the rules for produced batches.
//!
//! Configuration has typed and checked the values; here they only change hands. Not here: what the options mean.

use crate::config::{self, BrokerConfig, CompressionType, TopicConfig};
use crate::record::{Codec, Compression, DecompressLimits, ProduceRules, TimestampType};
use crate::storage::{LogOptions, StorageOptions};

/// Share of a shard's memory for append buffers, which are the tail cache too, in percent.
pub const APPEND_MEMORY_PERCENT: u64 = 45;

/// Bytes of a write beside the largest batch: header block, tail block, zeros.
const WRITE_BYTES_BESIDE: u64 = 64 << 10;

/// The options of one log.
pub fn log_options(topic: &TopicConfig, broker: &BrokerConfig) -> LogOptions {
    let defaults = LogOptions::default();
    let flush = topic.write_caching;
    LogOptions {
        segment_bytes: topic.segment_bytes_max,
        segment_age: topic.segment_age_max,
        index_interval_bytes: u32::try_from(topic.index_interval_bytes).unwrap_or(u32::MAX),
        write_caching: flush.is_some(),
        flush_interval: flush.map_or(defaults.flush_interval, |policy| policy.interval),
        flush_messages: flush.map_or(defaults.flush_messages, |policy| policy.records),
        flush_bytes: flush.map_or(defaults.flush_bytes, |policy| policy.bytes),
        retention_age: topic.retention_age_max,
        retention_bytes: topic.retention_bytes_max,
        append_write_bytes_max: defaults.append_write_bytes_max.max(topic.message_bytes_max + WRITE_BYTES_BESIDE),
        checkpoint_bytes: broker.checkpoint_bytes,
        checkpoint_interval: broker.checkpoint_interval,
        producer_expiry: broker.producer_expiration,
        producers_max: broker.producers_max,
    }
}

/// The options that the logs of one shard share.
pub fn storage_options(broker: &BrokerConfig) -> StorageOptions {
    let append = broker.memory_bytes / u64::from(broker.shards) / 100 * APPEND_MEMORY_PERCENT;
    StorageOptions {
        tail_bytes_max: usize::try_from(append).unwrap_or(usize::MAX),
        free_bytes_min: broker.disk_reserve_bytes,
        ..StorageOptions::default()
    }
}

/// What a produced batch is measured by.
pub(super) fn produce_rules(topic: &TopicConfig) -> ProduceRules {
    let millis = |duration: core::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    ProduceRules {
        batch_bytes_max: usize::try_from(topic.message_bytes_max).unwrap_or(usize::MAX),
        zstd_allowed: true,
        key_required: false,
        timestamp_type: match topic.timestamp_type {
            config::TimestampType::CreateTime => TimestampType::Create,
            config::TimestampType::LogAppendTime => TimestampType::LogAppend,
        },
        timestamp_before_max_ms: millis(topic.timestamp_before_max),
        timestamp_after_max_ms: millis(topic.timestamp_after_max),
        decompress: DecompressLimits::DEFAULT,
    }
}

/// The codec that batches are stored with; `None` leaves each as it comes.
pub(super) fn compression(topic: &TopicConfig) -> Option<Compression> {
    match topic.compression {
        CompressionType::Producer => None,
        CompressionType::Uncompressed => Some(Compression::new(Codec::None)),
        CompressionType::Gzip { level: None } => Some(Compression::new(Codec::Gzip)),
        CompressionType::Gzip { level: Some(level) } => Some(Compression::gzip(level)),
        CompressionType::Snappy => Some(Compression::new(Codec::Snappy)),
        CompressionType::Lz4 => Some(Compression::new(Codec::Lz4)),
        CompressionType::Zstd { level } => Some(Compression::zstd(level)),
    }
}
