//! What can be set about a log and about all logs of a shard. Plain values: the partition maps configuration keys to them.
//!
//! Options of a log may change while it runs ([`super::Log::set_options`]); each says when a change takes effect. Values that
//! cannot work are brought into range by [`LogOptions::sane`], not refused: the configuration has refused them before.

use core::time::Duration;

use super::format::{FIRST_BATCH_AT, SEGMENT_BYTES_MAX, SegmentHeader, WRITE_OVERHEAD_BYTES};
use super::index::INDEX_INTERVAL_BYTES_MIN;
use crate::types::{LeaderEpoch, Offset, Timestamp, TopicPartition};

/// Bytes of one write at least: a block of batches and its overhead.
const WRITE_BYTES_MIN: u64 = 2 * WRITE_OVERHEAD_BYTES;
/// Bytes of one write at most, and of what is flushed at once: more would let too much damage pass as torn.
const WRITE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a segment at least.
const SEGMENT_BYTES_MIN: u64 = FIRST_BATCH_AT + 4096;

/// The options of one log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogOptions {
    /// Bytes at which a segment ends: a batch that would lead beyond them begins the next one (`segment.bytes`). Also what a
    /// batch has at most. From the next append.
    pub segment_bytes: u64,
    /// Age of a segment's first batch at which the next batch begins a new segment (`segment.ms`). From the next append.
    pub segment_age: Duration,
    /// Bytes between two entries of the index (`index.interval.bytes`). From the next segment.
    pub index_interval_bytes: u32,
    /// Whether *written* is enough for an acknowledgement (`write.caching`). On: at once if the active segment was started for
    /// it, else from the next one, which the next append begins. Off: once all that was written is durable.
    pub write_caching: bool,
    /// With write caching: time from a write to its flush (`flush.ms`). At once, if it gets shorter.
    pub flush_interval: Duration,
    /// With write caching: records that are written and not flushed, at which a flush starts (`flush.messages`).
    pub flush_messages: u64,
    /// With write caching: bytes that are written and not flushed, at which a flush starts (`flush.bytes`).
    pub flush_bytes: u64,
    /// Age at which records are dropped, a segment at a time (`retention.ms`).
    pub retention_age: Option<Duration>,
    /// Bytes that the log keeps, a segment at a time (`retention.bytes`).
    pub retention_bytes: Option<u64>,
    /// Bytes of one write at most, overhead included; a batch must fit. It bounds what a power cut can tear, and so tells
    /// torn from corrupt: more is faster under load, less sees more damage. From the next segment.
    pub append_write_bytes_max: u64,
    /// Bytes appended after which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// Time after which a log that was appended to gets a checkpoint.
    pub checkpoint_interval: Duration,
    /// How long a silent producer is remembered (`producer.id.expiration.ms`).
    pub producer_expiry: Duration,
    /// Producers remembered at most.
    pub producers_max: usize,
}

impl Default for LogOptions {
    /// Kafka's defaults where Kafka has the thing.
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 1 << 30,
            segment_age: Duration::from_secs(7 * 24 * 3600),
            index_interval_bytes: 4096,
            write_caching: false,
            flush_interval: Duration::from_millis(100),
            flush_messages: u64::MAX,
            flush_bytes: 1 << 20,
            retention_age: Some(Duration::from_secs(7 * 24 * 3600)),
            retention_bytes: None,
            append_write_bytes_max: 2 << 20,
            checkpoint_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(5),
            producer_expiry: Duration::from_secs(24 * 3600),
            producers_max: 65_536,
        }
    }
}

impl LogOptions {
    /// The same with every value in the range in which it can work.
    #[must_use]
    pub fn sane(mut self) -> LogOptions {
        self.segment_bytes = self.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX - FIRST_BATCH_AT);
        self.append_write_bytes_max = self.append_write_bytes_max.clamp(WRITE_BYTES_MIN, WRITE_BYTES_MAX);
        self.flush_bytes = self.flush_bytes.clamp(1, WRITE_BYTES_MAX);
        self.index_interval_bytes = self.index_interval_bytes.max(INDEX_INTERVAL_BYTES_MIN);
        self
    }

    /// Bytes of a batch that a segment started with these options takes at most.
    pub fn batch_bytes_max(&self) -> u64 {
        (self.append_write_bytes_max - WRITE_OVERHEAD_BYTES).min(self.segment_bytes)
    }

    /// The header of segment `sequence` of an empty log of `partition`, started at the wall clock's `now`.
    pub(super) fn segment_header(
        &self,
        partition: TopicPartition,
        sequence: u64,
        leader_epoch: LeaderEpoch,
        now: Timestamp,
    ) -> SegmentHeader {
        let bytes = |bytes: u64| u32::try_from(bytes).expect("sane options stay far below 4 GiB");
        SegmentHeader {
            partition,
            leader_epoch,
            sequence,
            base_offset: Offset::ZERO,
            created: now,
            write_bytes_max: bytes(self.append_write_bytes_max),
            unsynced_bytes_max: bytes(self.unsynced_bytes_max()),
        }
    }

    /// Bytes that may be written and not durable in a segment started with these options: one write; with write caching
    /// what a flush waits for, and a write beside it.
    pub(super) fn unsynced_bytes_max(&self) -> u64 {
        let cached = if self.write_caching { self.flush_bytes + self.append_write_bytes_max } else { 0 };
        self.append_write_bytes_max + cached
    }
}

/// The options that the logs of a shard share.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageOptions {
    /// Bytes of append buffers, which are the tail cache too, at most: the shard's append share of its memory.
    pub tail_bytes_max: usize,
    /// Sealed segments that are kept open for reading at most. Each costs a descriptor and the memory of its index.
    pub descriptors_max: usize,
    /// Free bytes of the file system below which appends are refused, so that retention and checkpoints have room.
    pub free_bytes_min: u64,
    /// Bytes per second that are zeroed ahead of appends at most, all logs together.
    pub prewrite_bytes_per_second: u64,
}

impl Default for StorageOptions {
    fn default() -> StorageOptions {
        StorageOptions {
            tail_bytes_max: 256 << 20,
            descriptors_max: 256,
            free_bytes_min: 64 << 20,
            prewrite_bytes_per_second: 256 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_brought_into_range() {
        let sane = LogOptions { segment_bytes: 1, append_write_bytes_max: 0, ..LogOptions::default() }.sane();
        assert_eq!(sane.segment_bytes, SEGMENT_BYTES_MIN);
        assert_eq!(sane.batch_bytes_max(), SEGMENT_BYTES_MIN);
        let huge = LogOptions { flush_bytes: u64::MAX, segment_bytes: u64::MAX, write_caching: true, ..sane }.sane();
        assert_eq!(huge.segment_bytes, SEGMENT_BYTES_MAX - FIRST_BATCH_AT);
        assert!(u32::try_from(huge.unsynced_bytes_max()).is_ok(), "the header has 32 bits for it");
        assert_eq!(LogOptions::default().sane(), LogOptions::default());
    }
}
