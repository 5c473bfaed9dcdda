//! What a leader demands of a produced batch before it appends it.
//!
//! [`validate_produce`] takes the bytes that one partition got in a Produce request and proves them to be exactly one batch
//! that every consumer can read: framing, CRC, header, then every record, unpacked as a stream where it is compressed. The
//! bytes stay as they are; what has to change is in the [`Stamp`] of the [`ProducedBatch`].
//!
//! It does not look at sequences, producer epochs or transactions: they need state. Base offset and partition leader epoch of
//! a client are not trusted and not read.
//!
//! Source: `LogValidator` and `ProduceRequest.validateRecords` of Apache Kafka; KIP-32 and KIP-937 (timestamps).

use super::batch::{FrameError, UncheckedBatch};
use super::header::{Attributes, BatchHeader, Codec, Producer, TimestampType};
use super::stamp::{Stamp, StampTime};
use super::unpack::{DecompressLimits, Decompressors};
use super::walk::{Input, Plain, RecordError, walk_records};
use crate::types::{ErrorCode, LeaderEpoch, Offset, Timestamp};

/// What a topic and the version of the request allow.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRules {
    /// Bytes of a batch at most, header included (`max.message.bytes`).
    pub batch_bytes_max: usize,
    /// The request's version knows zstd (Produce 7 and later).
    pub zstd_allowed: bool,
    /// Every record needs a key (`cleanup.policy=compact`).
    pub key_required: bool,
    /// What the topic's timestamps mean (`message.timestamp.type`).
    pub timestamp_type: TimestampType,
    /// Milliseconds that a record's time may lie before the broker's (`message.timestamp.before.max.ms`).
    pub timestamp_before_max_ms: u64,
    /// Milliseconds that a record's time may lie after the broker's (`message.timestamp.after.max.ms`).
    pub timestamp_after_max_ms: u64,
    /// What may come out of a compressed batch.
    pub decompress: DecompressLimits,
}

/// Why a produced batch is refused. Indexes of records count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// No bytes at all.
    #[error("a partition of a produce request holds exactly one record batch, this one none")]
    Empty,
    /// Not one whole batch.
    #[error(transparent)]
    Frame(FrameError),
    /// Bytes after the batch.
    #[error("a partition of a produce request holds exactly one record batch, {bytes} bytes follow it")]
    MoreThanOne {
        /// Bytes after the first batch.
        bytes: usize,
    },
    /// A batch larger than the topic takes.
    #[error("the batch has {found} bytes, max.message.bytes is {max}")]
    TooLarge {
        /// Bytes of the batch.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The bytes are not those that the client sent.
    #[error("the batch's CRC is {found:#010x}, its header says {expected:#010x}")]
    Crc {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// The header's count is not positive, or not the span of the offsets.
    #[error("the batch says {found} records and a last offset delta of {last_offset_delta}")]
    RecordCount {
        /// The count.
        found: i32,
        /// The last offset delta, which is the count − 1 in a new batch.
        last_offset_delta: i32,
    },
    /// A control batch: only brokers write them.
    #[error("a client may not write control records")]
    Control,
    /// A batch with a delete horizon: only compaction writes them.
    #[error("a client may not set a delete horizon")]
    DeleteHorizon,
    /// A producer id without an epoch or a sequence.
    #[error("producer id {producer_id} comes with epoch {epoch} and base sequence {base_sequence}")]
    Producer {
        /// The producer id.
        producer_id: i64,
        /// The epoch, as written.
        epoch: i16,
        /// The base sequence, as written.
        base_sequence: i32,
    },
    /// A transactional batch without a producer id.
    #[error("a transactional batch needs a producer id")]
    TransactionalWithoutProducer,
    /// A codec that does not exist.
    #[error("unknown compression codec {found}, known are 0 to 4")]
    UnknownCodec {
        /// The number in the attributes.
        found: u8,
    },
    /// A codec that exists, but not in this version of the request.
    #[error("{codec} needs a later version of the produce request")]
    CodecNotAllowed {
        /// The codec.
        codec: Codec,
    },
    /// The batch claims the broker's timestamp type.
    #[error("a client may not set the timestamp type to LogAppendTime")]
    LogAppendTime,
    /// The records are not well formed, or do not unpack.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// The offset deltas are not 0, 1, 2 …
    #[error("record {index} has offset delta {found}")]
    OffsetDelta {
        /// The record, which is also the delta expected.
        index: u32,
        /// The delta.
        found: i32,
    },
    /// A record without a key where every record needs one.
    #[error("record {index} has no key, and a compacted topic needs one")]
    KeyMissing {
        /// The record.
        index: u32,
    },
    /// A record's time is too far from the broker's, negative, or no number of 64 bits.
    #[error("record {index} has timestamp {found}, allowed are {earliest} to {latest}")]
    Timestamp {
        /// The record.
        index: u32,
        /// Its timestamp in milliseconds, saturated.
        found: i64,
        /// The earliest allowed.
        earliest: Timestamp,
        /// The latest allowed.
        latest: Timestamp,
    },
}

impl ProduceError {
    /// The code that the client is answered with. CORRUPT_MESSAGE means "send it again" to clients and is kept for bytes
    /// that changed on the way; MESSAGE_TOO_LARGE makes them split the batch; the others are final.
    pub const fn code(&self) -> ErrorCode {
        match self {
            ProduceError::Frame(FrameError::Magic { found: 0 | 1 }) => ErrorCode::UnsupportedForMessageFormat,
            ProduceError::Frame(_) | ProduceError::Crc { .. } => ErrorCode::CorruptMessage,
            ProduceError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            ProduceError::Records(error) if error.is_too_large() => ErrorCode::MessageTooLarge,
            ProduceError::UnknownCodec { .. } | ProduceError::CodecNotAllowed { .. } => {
                ErrorCode::UnsupportedCompressionType
            }
            ProduceError::LogAppendTime | ProduceError::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            ProduceError::Empty
            | ProduceError::MoreThanOne { .. }
            | ProduceError::RecordCount { .. }
            | ProduceError::Control
            | ProduceError::DeleteHorizon
            | ProduceError::Producer { .. }
            | ProduceError::TransactionalWithoutProducer
            | ProduceError::Records(_)
            | ProduceError::OffsetDelta { .. }
            | ProduceError::KeyMissing { .. } => ErrorCode::InvalidRecord,
        }
    }

    /// The record that is at fault (from 0), for the record errors of a Produce response (version 8 and later, KIP-467).
    pub const fn record_index(&self) -> Option<u32> {
        match self {
            ProduceError::Records(RecordError::Malformed { index, .. })
            | ProduceError::OffsetDelta { index, .. }
            | ProduceError::KeyMissing { index }
            | ProduceError::Timestamp { index, .. } => Some(*index),
            _ => None,
        }
    }
}

/// A batch that passed. Its base offset and leader epoch are the client's and mean nothing until it is stamped.
#[derive(Clone, Copy, Debug)]
pub struct ProducedBatch<'a> {
    header: &'a BatchHeader,
    bytes: &'a [u8],
    codec: Codec,
    producer: Option<Producer>,
    time: StampTime,
}

impl<'a> ProducedBatch<'a> {
    /// The batch as the client sent it, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The number of records, at least 1; as many offsets as the batch takes.
    pub fn record_count(&self) -> u32 {
        self.header.record_count().unsigned_abs()
    }

    /// Who produced it; `None` without idempotence.
    pub fn producer(&self) -> Option<Producer> {
        self.producer
    }

    /// The codec of the records.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Codec, timestamp type and flags, as the client sent them.
    pub fn attributes(&self) -> Attributes {
        self.header.attributes()
    }

    /// The batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes().is_transactional()
    }

    /// The max timestamp that the stamped batch has.
    pub fn max_timestamp(&self) -> Option<Timestamp> {
        match self.time {
            StampTime::Create { max } => max,
            StampTime::LogAppend { at } => Some(at),
        }
    }

    /// The header as the client sent it.
    pub(super) fn header(&self) -> &'a BatchHeader {
        self.header
    }

    /// The same batch in other bytes: those of another codec.
    pub(super) fn with_bytes<'b>(&self, header: &'b BatchHeader, bytes: &'b [u8], codec: Codec) -> ProducedBatch<'b> {
        ProducedBatch { header, bytes, codec, producer: self.producer, time: self.time }
    }

    /// What to write into the batch when it is appended at `base_offset`.
    pub fn stamp(&self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Stamp {
        Stamp { base_offset, leader_epoch, time: self.time }
    }
}

/// Proves that `bytes` are exactly one good batch of a client, at the broker's time `now`.
///
/// Uncompressed batches allocate nothing; compressed ones use `decompressors` again, a window at a time.
pub fn validate_produce<'a>(
    bytes: &'a [u8],
    now: Timestamp,
    rules: &ProduceRules,
    decompressors: &mut Decompressors,
) -> Result<ProducedBatch<'a>, ProduceError> {
    let batch = frame(bytes, rules)?;
    let header = batch.header();
    let (codec, producer) = check_header(header, rules)?;
    let mut walk = RecordWalk::new(header, now, rules);
    match decompressors.unpack(codec, batch.records(), &rules.decompress) {
        Some(mut unpacked) => walk.run(&mut unpacked)?,
        None => walk.run(&mut Plain { rest: batch.records() })?,
    }
    let time = match rules.timestamp_type {
        TimestampType::Create => StampTime::Create { max: walk.max_timestamp },
        TimestampType::LogAppend => StampTime::LogAppend { at: now },
    };
    Ok(ProducedBatch { header, bytes: batch.bytes(), codec, producer, time })
}

/// One batch, whole, not too large, with a good CRC.
fn frame<'a>(bytes: &'a [u8], rules: &ProduceRules) -> Result<UncheckedBatch<'a>, ProduceError> {
    if bytes.is_empty() {
        return Err(ProduceError::Empty);
    }
    let batch = UncheckedBatch::frame(bytes, usize::MAX).map_err(ProduceError::Frame)?;
    let found = batch.bytes().len();
    if found < bytes.len() {
        return Err(ProduceError::MoreThanOne { bytes: bytes.len() - found });
    }
    if found > rules.batch_bytes_max {
        return Err(ProduceError::TooLarge { found, max: rules.batch_bytes_max });
    }
    match batch.crc() {
        (expected, found) if expected != found => Err(ProduceError::Crc { expected, found }),
        _ => Ok(batch),
    }
}

fn check_header(header: &BatchHeader, rules: &ProduceRules) -> Result<(Codec, Option<Producer>), ProduceError> {
    let (found, last_offset_delta) = (header.record_count(), header.last_offset_delta());
    if found <= 0 || last_offset_delta != found - 1 {
        return Err(ProduceError::RecordCount { found, last_offset_delta });
    }
    let attributes = header.attributes();
    if attributes.is_control() {
        return Err(ProduceError::Control);
    }
    if attributes.has_delete_horizon() {
        return Err(ProduceError::DeleteHorizon);
    }
    if attributes.timestamp_type() == TimestampType::LogAppend {
        return Err(ProduceError::LogAppendTime);
    }
    let codec = attributes.codec().map_err(|unknown| ProduceError::UnknownCodec { found: unknown.found })?;
    if codec == Codec::Zstd && !rules.zstd_allowed {
        return Err(ProduceError::CodecNotAllowed { codec });
    }
    let producer = match (header.producer_id(), header.producer_epoch(), header.base_sequence()) {
        (None, _, _) if attributes.is_transactional() => return Err(ProduceError::TransactionalWithoutProducer),
        (None, _, _) => None,
        (Some(id), Some(epoch), Some(base_sequence)) => Some(Producer { id, epoch, base_sequence }),
        (Some(id), _, _) => {
            return Err(ProduceError::Producer {
                producer_id: id.value(),
                epoch: header.producer_epoch.get(),
                base_sequence: header.base_sequence.get(),
            });
        }
    };
    Ok((codec, producer))
}

/// The rules for single records, and the latest timestamp so far.
struct RecordWalk {
    count: u32,
    base_timestamp: i64,
    max_timestamp: Option<Timestamp>,
    key_required: bool,
    /// Earliest and latest time allowed; none of both under LogAppendTime, where the records' own times are not used.
    bounds: Option<(Timestamp, Timestamp)>,
}

impl RecordWalk {
    fn new(header: &BatchHeader, now: Timestamp, rules: &ProduceRules) -> RecordWalk {
        let earliest = now.minus_millis(rules.timestamp_before_max_ms);
        let latest = now.plus_millis(rules.timestamp_after_max_ms);
        RecordWalk {
            count: header.record_count().unsigned_abs(),
            base_timestamp: header.base_timestamp.get(),
            max_timestamp: None,
            key_required: rules.key_required,
            bounds: (rules.timestamp_type == TimestampType::Create).then_some((earliest, latest)),
        }
    }

    fn run<I: Input>(&mut self, input: &mut I) -> Result<(), ProduceError> {
        walk_records(input, self.count, |index, fields| {
            if i64::from(fields.offset_delta) != i64::from(index) {
                return Err(ProduceError::OffsetDelta { index, found: fields.offset_delta });
            }
            if self.key_required && fields.key.is_none() {
                return Err(ProduceError::KeyMissing { index });
            }
            self.check_time(index, fields.timestamp_delta)
        })
    }

    #[inline]
    fn check_time(&mut self, index: u32, delta: i64) -> Result<(), ProduceError> {
        let Some((earliest, latest)) = self.bounds else {
            return Ok(());
        };
        let millis = self.base_timestamp.checked_add(delta);
        match millis.map(Timestamp::new) {
            Some(Some(time)) if earliest <= time && time <= latest => {
                self.max_timestamp = self.max_timestamp.max(Some(time));
                Ok(())
            }
            // −1: the producer gave no time.
            _ if millis == Some(-1) => Ok(()),
            _ => {
                let found = self.base_timestamp.saturating_add(delta);
                Err(ProduceError::Timestamp { index, found, earliest, latest })
            }
        }
    }
}
