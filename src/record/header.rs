//! The header of a record batch, format version 2 ("magic 2"). All numbers are big-endian:
//!
//! ```text
//!  0       8       12      16 17      21  23      27          35          43          51  53      57      61
//!  | base  | batch | part. |m | CRC   |at-| last  | base      | max       | producer  |pr.| base  | record|
//!  | offset| length| leader|a | 32C   |tri| offset| timestamp | timestamp | id        |epo| seq.  | count |
//!  | i64   | i32   | epoch |g | u32   |but| delta | i64       | i64       | i64       |ch | i32   | i32   |
//!  |<- log overhead ->|     |i |       |es | i32   |           |           |           |i16|       |       |
//!                           |c |       |<------------------- what the CRC covers, to the end of the records
//! ```
//!
//! *Batch length* counts the bytes after itself. Base offset and partition leader epoch lie outside the CRC, so that a
//! broker can set them without reading the records. −1 on the wire is absence, an `Option` here.
//!
//! A [`BatchHeader`] is a view of 61 bytes and promises nothing about them; `RecordBatch` does.
//! Source: KIP-98, KIP-101, `DefaultRecordBatch` of Apache Kafka (the drawing in its documentation).

use std::mem::{offset_of, size_of};

use zerocopy::big_endian::{I16, I32, I64, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// The header as it lies in a buffer. The accessors map −1 to `None`; any 61 bytes are a `BatchHeader`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    pub(super) base_offset: I64,
    pub(super) batch_length: I32,
    pub(super) leader_epoch: I32,
    pub(super) magic: u8,
    pub(super) crc: U32,
    pub(super) attributes: U16,
    pub(super) last_offset_delta: I32,
    pub(super) base_timestamp: I64,
    pub(super) max_timestamp: I64,
    pub(super) producer_id: I64,
    pub(super) producer_epoch: I16,
    pub(super) base_sequence: I32,
    pub(super) record_count: I32,
}

/// Bytes of the header.
pub const HEADER_BYTES: usize = size_of::<BatchHeader>();
/// Bytes that *batch length* does not count: base offset and the length itself.
pub const LOG_OVERHEAD: usize = offset_of!(BatchHeader, leader_epoch);
/// Where the magic byte lies: at the same place in all formats, 0 and 1 included.
pub const MAGIC_AT: usize = offset_of!(BatchHeader, magic);
/// Where the bytes start that the CRC covers.
pub const CRC_REGION_AT: usize = offset_of!(BatchHeader, attributes);
/// The one format that this broker reads and writes.
pub const MAGIC: u8 = 2;

const _: () = assert!(HEADER_BYTES == 61 && LOG_OVERHEAD == 12 && MAGIC_AT == 16 && CRC_REGION_AT == 21);

impl BatchHeader {
    /// The first 61 bytes of `batch` as a header; `None` if there are fewer.
    pub fn view(batch: &[u8]) -> Option<&BatchHeader> {
        BatchHeader::ref_from_prefix(batch).ok().map(|(header, _)| header)
    }

    /// The offset of the first record; `None` if the field is negative, which no log holds.
    pub fn base_offset(&self) -> Option<Offset> {
        Offset::new(self.base_offset.get())
    }

    /// Bytes of the whole batch, header included; `None` if the length field is negative.
    pub fn batch_bytes(&self) -> Option<usize> {
        usize::try_from(self.batch_length.get()).ok().map(|length| length + LOG_OVERHEAD)
    }

    /// The epoch of the leader that appended the batch; `None` before a leader did.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        LeaderEpoch::new(self.leader_epoch.get())
    }

    /// The format version; 2 in every batch that is accepted.
    pub fn magic(&self) -> u8 {
        self.magic
    }

    /// The CRC-32C that the header claims.
    pub fn crc(&self) -> u32 {
        self.crc.get()
    }

    /// Codec, timestamp type and flags.
    pub fn attributes(&self) -> Attributes {
        Attributes(self.attributes.get())
    }

    /// The offset of the last record minus the base offset, as written. Compaction keeps it when it removes that record.
    pub fn last_offset_delta(&self) -> i32 {
        self.last_offset_delta.get()
    }

    /// The time that the records' timestamp deltas count from; with a delete horizon, that horizon.
    pub fn base_timestamp(&self) -> Option<Timestamp> {
        Timestamp::new(self.base_timestamp.get())
    }

    /// The latest timestamp of the records, or the time of the append under [`TimestampType::LogAppend`].
    pub fn max_timestamp(&self) -> Option<Timestamp> {
        Timestamp::new(self.max_timestamp.get())
    }

    /// The producer's id; `None` for a producer without idempotence.
    pub fn producer_id(&self) -> Option<ProducerId> {
        ProducerId::new(self.producer_id.get())
    }

    /// The epoch of the producer's id.
    pub fn producer_epoch(&self) -> Option<ProducerEpoch> {
        ProducerEpoch::new(self.producer_epoch.get())
    }

    /// The sequence number of the first record; `None` also in control batches.
    pub fn base_sequence(&self) -> Option<Sequence> {
        Sequence::new(self.base_sequence.get())
    }

    /// The number of records, as written.
    pub fn record_count(&self) -> i32 {
        self.record_count.get()
    }
}

/// The CRC-32C (Castagnoli) of a batch: over the header from its attributes on, then the records as they lie, compressed or
/// not.
pub fn batch_crc(header: &BatchHeader, records: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header.as_bytes()[CRC_REGION_AT..]), records)
}

/// An optional number as the wire has it: −1 for absence.
pub(super) fn wire_timestamp(timestamp: Option<Timestamp>) -> i64 {
    timestamp.map_or(-1, Timestamp::millis)
}

/// How the records of a batch are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// gzip (RFC 1952).
    Gzip = 1,
    /// Snappy: one raw block, or xerial's stream of blocks.
    Snappy = 2,
    /// An LZ4 frame.
    Lz4 = 3,
    /// Zstandard (RFC 8878, KIP-110).
    Zstd = 4,
}

impl Codec {
    /// Every codec, by its number.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// Kafka's name of it, as in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec number that Kafka does not define.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression codec {found}, known are 0 to 4")]
pub struct UnknownCodec {
    /// The number in the attributes, 5 to 7.
    pub found: u8,
}

/// What a record's timestamp means (`message.timestamp.type`, KIP-32).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TimestampType {
    /// The producer's time of each record.
    #[default]
    Create,
    /// The broker's time of the append, the same for all records of a batch: the header's max timestamp.
    LogAppend,
}

/// The attributes of a batch: bits 0–2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
/// The bits above have no meaning yet and are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attributes(u16);

impl Attributes {
    const CODEC: u16 = 0b111;
    const LOG_APPEND_TIME: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;
    const DELETE_HORIZON: u16 = 1 << 6;

    /// The attributes of a plain batch with this codec: create time, no flags.
    pub const fn new(codec: Codec) -> Attributes {
        Attributes(codec as u16)
    }

    /// The bits, as on the wire.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The codec of the records.
    pub fn codec(self) -> Result<Codec, UnknownCodec> {
        let number = self.0 & Attributes::CODEC;
        Codec::ALL.get(usize::from(number)).copied().ok_or(UnknownCodec { found: number as u8 })
    }

    /// What the timestamps mean.
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Attributes::LOG_APPEND_TIME == 0 { TimestampType::Create } else { TimestampType::LogAppend }
    }

    /// The batch belongs to a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & Attributes::TRANSACTIONAL != 0
    }

    /// The batch holds a marker that a broker wrote, not a client's records.
    pub const fn is_control(self) -> bool {
        self.0 & Attributes::CONTROL != 0
    }

    /// The base timestamp is the time from which compaction may drop tombstones (KIP-534).
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Attributes::DELETE_HORIZON != 0
    }

    /// The same with another codec.
    #[must_use]
    pub const fn with_codec(self, codec: Codec) -> Attributes {
        Attributes(self.0 & !Attributes::CODEC | codec as u16)
    }

    /// The same with another meaning of the timestamps.
    #[must_use]
    pub const fn with_timestamp_type(self, timestamp_type: TimestampType) -> Attributes {
        match timestamp_type {
            TimestampType::Create => Attributes(self.0 & !Attributes::LOG_APPEND_TIME),
            TimestampType::LogAppend => Attributes(self.0 | Attributes::LOG_APPEND_TIME),
        }
    }

    /// The same as part of a transaction.
    #[must_use]
    pub const fn transactional(self) -> Attributes {
        Attributes(self.0 | Attributes::TRANSACTIONAL)
    }

    /// The same as a control batch.
    #[must_use]
    pub const fn control(self) -> Attributes {
        Attributes(self.0 | Attributes::CONTROL)
    }
}

/// Who produced a batch, for idempotence: the base sequence is that of the batch's first record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Producer {
    /// The producer's id.
    pub id: ProducerId,
    /// The epoch of the id.
    pub epoch: ProducerEpoch,
    /// The sequence number of the first record.
    pub base_sequence: Sequence,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_drawing_says() {
        let bytes: Vec<u8> = (0..HEADER_BYTES as u8).collect();
        let header = BatchHeader::view(&bytes).unwrap();
        assert_eq!(header.base_offset(), Offset::new(0x0001_0203_0405_0607));
        assert_eq!(header.batch_bytes(), Some(0x0809_0a0b + LOG_OVERHEAD));
        assert_eq!(header.leader_epoch(), LeaderEpoch::new(0x0c0d_0e0f));
        assert_eq!(header.magic(), 16);
        assert_eq!(header.crc(), 0x1112_1314);
        assert_eq!(header.attributes().bits(), 0x1516);
        assert_eq!(header.last_offset_delta(), 0x1718_191a);
        assert_eq!(header.base_timestamp(), Timestamp::new(0x1b1c_1d1e_1f20_2122));
        assert_eq!(header.max_timestamp(), Timestamp::new(0x2324_2526_2728_292a));
        assert_eq!(header.producer_id(), ProducerId::new(0x2b2c_2d2e_2f30_3132));
        assert_eq!(header.producer_epoch(), ProducerEpoch::new(0x3334));
        assert_eq!(header.base_sequence(), Sequence::new(0x3536_3738));
        assert_eq!(header.record_count(), 0x393a_3b3c);
        assert!(BatchHeader::view(&bytes[1..]).is_none());
    }

    #[test]
    fn minus_one_is_absence() {
        let header = BatchHeader::view(&[0xff; HEADER_BYTES]).unwrap();
        assert_eq!((header.base_offset(), header.batch_bytes(), header.leader_epoch()), (None, None, None));
        assert_eq!((header.producer_id(), header.producer_epoch(), header.base_sequence()), (None, None, None));
        assert_eq!((header.base_timestamp(), header.max_timestamp()), (None, None));
    }

    #[test]
    fn attributes_name_their_bits() {
        for codec in Codec::ALL {
            assert_eq!(Attributes::new(codec).codec(), Ok(codec));
        }
        assert_eq!(Attributes(0b101).codec(), Err(UnknownCodec { found: 5 }));
        let all = Attributes::new(Codec::Zstd).with_timestamp_type(TimestampType::LogAppend).transactional().control();
        assert_eq!(all.bits(), 0b11_1100);
        assert!(all.is_transactional() && all.is_control() && !all.has_delete_horizon());
        assert_eq!(all.timestamp_type(), TimestampType::LogAppend);
        assert_eq!(all.with_timestamp_type(TimestampType::Create).bits(), 0b11_0100);
        assert!(Attributes(1 << 6).has_delete_horizon());
    }

    #[test]
    fn the_crc_is_castagnoli() {
        // RFC 3720, appendix B.4, has the polynomial; "123456789" is its customary check value.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
