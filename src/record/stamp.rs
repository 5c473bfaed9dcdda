//! What a leader writes into a produced batch: base offset, leader epoch, and the time if it has to change.
//!
//! Base offset and leader epoch lie outside the CRC and cost nothing. The CRC is computed anew only if timestamp type or max
//! timestamp change; the records are never touched, under LogAppendTime either (readers take the header's max timestamp for
//! every record then).
//!
//! Source: KIP-32; `DefaultRecordBatch.setMaxTimestamp` and `setPartitionLeaderEpoch` of Apache Kafka.

use zerocopy::{FromBytes, IntoBytes};

use super::header::{BatchHeader, HEADER_BYTES, TimestampType, batch_crc, wire_timestamp};
use crate::types::{LeaderEpoch, Offset, Timestamp};

/// The time that a batch gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StampTime {
    /// The producer's times; the header's max timestamp becomes `max`, which is right already in most batches.
    Create {
        /// The latest timestamp of the records; `None` if none has one.
        max: Option<Timestamp>,
    },
    /// The time of the append, for all records.
    LogAppend {
        /// The broker's clock.
        at: Timestamp,
    },
}

/// What a leader writes into a batch that it appends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The offset of the first record.
    pub base_offset: Offset,
    /// The epoch of the leadership.
    pub leader_epoch: LeaderEpoch,
    /// The time.
    pub time: StampTime,
}

impl Stamp {
    /// The header that `batch` gets: for buffers that are written once, front to back. The records follow it unchanged.
    ///
    /// # Panics
    /// If `batch` is shorter than a header: only a validated batch is stamped.
    pub fn header(&self, batch: &[u8]) -> BatchHeader {
        let (header, records) = BatchHeader::ref_from_prefix(batch).expect("a validated batch has a header");
        let mut stamped = *header;
        stamped.base_offset.set(self.base_offset.value());
        stamped.leader_epoch.set(self.leader_epoch.value());
        let (timestamp_type, max) = match self.time {
            StampTime::Create { max } => (TimestampType::Create, max),
            StampTime::LogAppend { at } => (TimestampType::LogAppend, Some(at)),
        };
        stamped.attributes.set(header.attributes().with_timestamp_type(timestamp_type).bits());
        stamped.max_timestamp.set(wire_timestamp(max));
        if (stamped.attributes, stamped.max_timestamp) != (header.attributes, header.max_timestamp) {
            stamped.crc.set(batch_crc(&stamped, records));
        }
        stamped
    }

    /// Stamps `batch` where it lies.
    ///
    /// # Panics
    /// If `batch` is shorter than a header: only a validated batch is stamped.
    pub fn apply(&self, batch: &mut [u8]) {
        let header = self.header(batch);
        batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    }
}
