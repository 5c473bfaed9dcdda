//! One record batch in a byte slice: framed ([`UncheckedBatch`]), then proved good ([`RecordBatch`]).
//!
//! Framing looks only at length and magic, so a slice can be cut into batches without reading their records. A
//! `RecordBatch` exists only if its CRC holds and its header agrees with itself: base and last offset are offsets, the count
//! is not negative and not above the span of the offsets, the codec is known. Its records are not walked here; the batch may
//! still hold anything that a CRC can be computed over (`validate_produce` and `RecordReader` look inside).
//!
//! Source: `DefaultRecordBatch.ensureValid` and `ByteBufferLogInputStream` of Apache Kafka.

use zerocopy::FromBytes;

use super::header::{
    Attributes, BatchHeader, Codec, HEADER_BYTES, LOG_OVERHEAD, MAGIC, MAGIC_AT, UnknownCodec, batch_crc,
};
use crate::types::{ErrorCode, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// The least batch length: a header without records.
const LENGTH_MIN: usize = HEADER_BYTES - LOG_OVERHEAD;

/// Why bytes are not one framed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end inside the batch. What is there is sane so far.
    #[error("the batch needs {need} bytes, {have} are there")]
    Incomplete {
        /// Bytes that are there.
        have: usize,
        /// Bytes that the batch has; while its length is not known yet, bytes that the header needs.
        need: usize,
    },
    /// The length field is no batch's.
    #[error("a batch's length is {LENGTH_MIN} to {max}, this one says {found}")]
    Length {
        /// The length field.
        found: i32,
        /// The largest length allowed here.
        max: usize,
    },
    /// Another format, such as those before Kafka 0.11 (0 and 1).
    #[error("a batch's format version is {MAGIC}, this one says {found}")]
    Magic {
        /// The magic byte.
        found: u8,
    },
}

/// Why a framed batch is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes are not those that were sent or written.
    #[error("the batch's CRC is {found:#010x}, its header says {expected:#010x}")]
    Crc {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// First and last offset are not a range of offsets.
    #[error("base offset {base} and last offset delta {delta} are not offsets")]
    Offsets {
        /// The base offset.
        base: i64,
        /// The last offset delta.
        delta: i32,
    },
    /// The partition leader epoch is below −1.
    #[error("partition leader epoch {found} is not an epoch")]
    LeaderEpoch {
        /// What the header says.
        found: i32,
    },
    /// More records than offsets, or a negative number.
    #[error("the batch has {offsets} offsets but says {found} records")]
    RecordCount {
        /// What the header says.
        found: i32,
        /// Last offset delta + 1.
        offsets: i64,
    },
    /// A codec that does not exist.
    #[error(transparent)]
    Codec(#[from] UnknownCodec),
}

impl BatchError {
    /// The code that a client is answered with: always CORRUPT_MESSAGE.
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::CorruptMessage
    }
}

/// Bytes that have a batch's length and magic, and nothing else known about them.
#[derive(Clone, Copy, Debug)]
pub struct UncheckedBatch<'a> {
    header: &'a BatchHeader,
    bytes: &'a [u8],
}

impl<'a> UncheckedBatch<'a> {
    /// Frames the batch at the start of `bytes`; what follows it is left alone. A batch longer than `bytes_max` (header
    /// included) is a [`FrameError::Length`], so that garbage cannot ask for gigabytes.
    pub fn frame(bytes: &'a [u8], bytes_max: usize) -> Result<UncheckedBatch<'a>, FrameError> {
        let have = bytes.len();
        let length_max = bytes_max.saturating_sub(LOG_OVERHEAD);
        let Some((_, after_offset)) = bytes.split_at_checked(size_of::<i64>()) else {
            return Err(FrameError::Incomplete { have, need: HEADER_BYTES });
        };
        let Some(length) = after_offset.first_chunk().map(|field| i32::from_be_bytes(*field)) else {
            return Err(FrameError::Incomplete { have, need: HEADER_BYTES });
        };
        // The magic first: the older formats have shorter headers, and a shorter length with them.
        if let Some(&found) = bytes.get(MAGIC_AT)
            && found != MAGIC
            && length > 0
        {
            return Err(FrameError::Magic { found });
        }
        match usize::try_from(length) {
            Ok(sane) if sane >= LENGTH_MIN && sane <= length_max => {
                let need = sane + LOG_OVERHEAD;
                let Some(bytes) = bytes.get(..need) else {
                    return Err(FrameError::Incomplete { have, need });
                };
                let (header, _) = BatchHeader::ref_from_prefix(bytes).expect("the length was checked to hold a header");
                Ok(UncheckedBatch { header, bytes })
            }
            _ => Err(FrameError::Length { found: length, max: length_max }),
        }
    }

    /// The header, of which only length and magic are known to be good.
    pub fn header(&self) -> &'a BatchHeader {
        self.header
    }

    /// The whole batch, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes after the header: the records, compressed or not.
    pub fn records(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The CRC that the header claims, and the one that the bytes give.
    pub fn crc(&self) -> (u32, u32) {
        (self.header.crc(), batch_crc(self.header, self.records()))
    }

    /// Proves the batch good: CRC and header.
    pub fn check(self) -> Result<RecordBatch<'a>, BatchError> {
        let (expected, found) = self.crc();
        if expected != found {
            return Err(BatchError::Crc { expected, found });
        }
        let header = self.header;
        let (base, delta) = (header.base_offset.get(), header.last_offset_delta());
        let last = base.checked_add(i64::from(delta));
        if base < 0 || delta < 0 || last.is_none() {
            return Err(BatchError::Offsets { base, delta });
        }
        if header.leader_epoch.get() < -1 {
            return Err(BatchError::LeaderEpoch { found: header.leader_epoch.get() });
        }
        let (found, offsets) = (header.record_count(), i64::from(delta) + 1);
        // Fewer records than offsets is what compaction leaves; none at all too.
        if found < 0 || i64::from(found) > offsets {
            return Err(BatchError::RecordCount { found, offsets });
        }
        let codec = header.attributes().codec()?;
        Ok(RecordBatch { header, bytes: self.bytes, codec })
    }
}

/// A batch whose CRC holds and whose header agrees with itself.
#[derive(Clone, Copy, Debug)]
pub struct RecordBatch<'a> {
    header: &'a BatchHeader,
    bytes: &'a [u8],
    codec: Codec,
}

impl<'a> RecordBatch<'a> {
    /// The whole batch, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes after the header: the records, compressed or not.
    pub fn records(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The header.
    pub fn header(&self) -> &'a BatchHeader {
        self.header
    }

    /// The offset of the first record, or of the first that compaction has removed.
    pub fn base_offset(&self) -> Offset {
        self.header.base_offset().expect("checked when the batch was made")
    }

    /// The offset of the last record (inclusive).
    pub fn last_offset(&self) -> Offset {
        self.base_offset().plus(u64::from(self.last_offset_delta()))
    }

    /// The offset that the next batch of a log without gaps starts at.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// Last offset minus base offset.
    pub fn last_offset_delta(&self) -> u32 {
        self.header.last_offset_delta().unsigned_abs()
    }

    /// The number of records.
    pub fn record_count(&self) -> u32 {
        self.header.record_count().unsigned_abs()
    }

    /// The epoch of the leader that appended the batch; `None` before a leader did.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.header.leader_epoch()
    }

    /// The codec of the records.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Codec, timestamp type and flags.
    pub fn attributes(&self) -> Attributes {
        self.header.attributes()
    }

    /// The latest timestamp of the records; `None` if none has one.
    pub fn max_timestamp(&self) -> Option<Timestamp> {
        self.header.max_timestamp()
    }

    /// The producer's id; `None` for a producer without idempotence.
    pub fn producer_id(&self) -> Option<ProducerId> {
        self.header.producer_id()
    }

    /// The epoch of the producer's id.
    pub fn producer_epoch(&self) -> Option<ProducerEpoch> {
        self.header.producer_epoch()
    }

    /// The sequence number of the first record; `None` also in control batches.
    pub fn base_sequence(&self) -> Option<Sequence> {
        self.header.base_sequence()
    }
}
