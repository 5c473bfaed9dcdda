//! The segment file: its name, its header block, and the numbers that tie the layout together.
//!
//! ```text
//! <sequence>.log
//! 0     header: an envelope (see `codec`, magic "CLsegmnt", version 1) in one sector; its body, big-endian:
//!       16 topic id · i32 partition · i32 leader epoch that started the segment · u64 sequence · i64 base offset
//!       i64 created (wall clock, ms) · u32 bytes of one write at most · u32 bytes not durable at any time at most
//!       zeros to 4096
//! 4096  record batches, one behind the other, each as on the wire
//!       at least 64 zero bytes
//! ```
//!
//! Since the header lies in one sector, a power cut leaves it there or not there, never half. A file whose block 0 is zero is
//! prepared space that no acknowledged batch lies in. This file reads and writes bytes in memory only.

use std::path::{Path, PathBuf};

use bytes::BufMut;

use super::codec::{DecodeError, ENVELOPE_BYTES, Envelope};
use crate::types::limits::{BLOCK_BYTES, SECTOR_BYTES, ZERO_TAIL_BYTES};
use crate::types::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicId, TopicPartition};

/// Where the first batch of a segment lies: behind the header block.
pub const FIRST_BATCH_AT: u64 = BLOCK_BYTES as u64;
/// Bytes of a segment at most: positions in an index are 32 bits wide, and Kafka's `segment.bytes` ends there too.
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;
/// Bytes of a write beyond its batches at most: the header block before them, the part of the tail block that is written
/// again, the rest of the last block, and one block of zeros.
pub const WRITE_OVERHEAD_BYTES: u64 = 4 * BLOCK_BYTES as u64;

const ENVELOPE: Envelope = Envelope { what: "a segment's header", magic: *b"CLsegmnt", version: 1 };
const BODY_BYTES: usize = 16 + 4 + 4 + 8 + 8 + 8 + 4 + 4;

const _: () = assert!(ENVELOPE_BYTES + BODY_BYTES <= SECTOR_BYTES);
const _: () = assert!(ZERO_TAIL_BYTES <= BLOCK_BYTES);

/// What block 0 of a segment says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The partition that the segment belongs to.
    pub partition: TopicPartition,
    /// The epoch of the leader that started it.
    pub leader_epoch: LeaderEpoch,
    /// Its number in the partition, rising by one from segment to segment.
    pub sequence: u64,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// When it was started, by the wall clock.
    pub created: Timestamp,
    /// Bytes of one write into it at most.
    pub write_bytes_max: u32,
    /// Bytes of it that may be written and not yet durable at most: how much a power cut can tear.
    pub unsynced_bytes_max: u32,
}

impl SegmentHeader {
    /// Whether the segment was started for write caching: for more than one write that is not durable.
    pub fn allows_write_caching(&self) -> bool {
        self.unsynced_bytes_max > self.write_bytes_max
    }

    /// The header as its block begins; zeros fill the rest of the block.
    pub fn encode(&self) -> Vec<u8> {
        ENVELOPE.encode(|body| {
            body.put_slice(&self.partition.topic.bytes());
            body.put_i32(self.partition.partition.value());
            body.put_i32(self.leader_epoch.value());
            body.put_u64(self.sequence);
            body.put_i64(self.base_offset.value());
            body.put_i64(self.created.millis());
            body.put_u32(self.write_bytes_max);
            body.put_u32(self.unsynced_bytes_max);
        })
    }

    /// Reads block 0.
    ///
    /// # Errors
    /// Any difference from what [`SegmentHeader::encode`] writes; also for a block of zeros (see [`is_zero`]).
    pub fn decode(block: &[u8]) -> Result<SegmentHeader, DecodeError> {
        let mut reader = ENVELOPE.open(block)?;
        let topic = TopicId::from_bytes(reader.array()?);
        let number = reader.i32()?;
        let partition =
            PartitionId::new(number).ok_or_else(|| reader.wrong("partition", "not negative", number.into()))?;
        let number = reader.i32()?;
        let leader_epoch =
            LeaderEpoch::new(number).ok_or_else(|| reader.wrong("leader epoch", "not negative", number.into()))?;
        let header = SegmentHeader {
            partition: TopicPartition { topic, partition },
            leader_epoch,
            sequence: reader.u64()?,
            base_offset: reader.checked("base offset", Offset::new)?,
            created: reader.checked("created", Timestamp::new)?,
            write_bytes_max: reader.u32()?,
            unsynced_bytes_max: reader.u32()?,
        };
        reader.finish()?;
        Ok(header)
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // By 16 bytes at a time: the compiler makes vector instructions of it.
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0) && rest.iter().all(|&byte| byte == 0)
}

/// The path of a segment.
pub fn segment_path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:010}.log"))
}

/// The path of a segment that is being prepared.
pub fn fresh_path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:010}.new"))
}

/// The path of the file beside a sealed segment.
pub fn seal_path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:010}.seal"))
}

/// The path of a checkpoint's slot.
pub fn checkpoint_path(directory: &Path, slot: usize) -> PathBuf {
    directory.join(format!("checkpoint.{slot}"))
}

/// What a name in a partition's directory stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileName {
    /// A segment, or prepared space for one.
    Segment(u64),
    /// Space whose preparation did not end.
    Fresh(u64),
    /// The file beside a sealed segment.
    Seal(u64),
    /// The file beside a sealed segment, on its way to replace it.
    FreshSeal(u64),
    /// A checkpoint's slot.
    Checkpoint,
}

impl FileName {
    /// The meaning of `name`; `None` for what is not a log's.
    pub fn parse(name: &str) -> Option<FileName> {
        if matches!(name, "checkpoint.0" | "checkpoint.1") {
            return Some(FileName::Checkpoint);
        }
        let (digits, kind) = name.split_once('.')?;
        let plain = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let sequence = digits.parse().ok().filter(|_| plain)?;
        match kind {
            "log" => Some(FileName::Segment(sequence)),
            "new" => Some(FileName::Fresh(sequence)),
            "seal" => Some(FileName::Seal(sequence)),
            "seal.new" => Some(FileName::FreshSeal(sequence)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{assert_every_damage_is_refused, hex};
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            partition: TopicPartition {
                topic: TopicId::from_bytes([0xab; 16]),
                partition: PartitionId::new(3).expect("not negative"),
            },
            leader_epoch: LeaderEpoch::new(7).expect("not negative"),
            sequence: 12,
            base_offset: Offset::new(1000).expect("not negative"),
            created: Timestamp::new(1_700_000_000_000).expect("not negative"),
            write_bytes_max: 1 << 20,
            unsynced_bytes_max: 2 << 20,
        }
    }

    #[test]
    fn the_header_block_is_frozen() {
        let bytes = header().encode();
        let golden = [
            "434c7365676d6e74", // magic
            "00010000",         // version
            "605d7a55",         // CRC
            "00000038",         // bytes of the body
            "abababababababababababababababab",
            "00000003",         // partition
            "00000007",         // leader epoch
            "000000000000000c", // sequence
            "00000000000003e8", // base offset
            "0000018bcfe56800", // created
            "00100000",         // write bytes
            "00200000",         // unsynced bytes
        ];
        assert_eq!(hex(&bytes), golden.concat());
        assert_every_damage_is_refused(&bytes, SegmentHeader::decode);
        let mut block = bytes;
        block.resize(BLOCK_BYTES, 0);
        assert_eq!(SegmentHeader::decode(&block), Ok(header()));
        block[BLOCK_BYTES - 1] = 1;
        assert!(SegmentHeader::decode(&block).is_err(), "the rest of the block is zero");
        assert!(SegmentHeader::decode(&[0; BLOCK_BYTES]).is_err(), "zeros are no header");
    }

    #[test]
    fn names_are_told_apart() {
        let directory = Path::new("p");
        for (path, expected) in [
            (segment_path(directory, 1), Some(FileName::Segment(1))),
            (segment_path(directory, u64::MAX), Some(FileName::Segment(u64::MAX))),
            (fresh_path(directory, 7), Some(FileName::Fresh(7))),
            (seal_path(directory, 7), Some(FileName::Seal(7))),
            (checkpoint_path(directory, 1), Some(FileName::Checkpoint)),
            (directory.join("0000000007.seal.new"), Some(FileName::FreshSeal(7))),
            (directory.join("7.log"), None),
            (directory.join("+000000007.log"), None),
            (directory.join("checkpoint.2"), None),
        ] {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
            assert_eq!(FileName::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn zeros_are_seen_at_every_length() {
        for length in 0..70 {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            if let Some(last) = bytes.last_mut() {
                *last = 1;
                assert!(!is_zero(&bytes));
            }
        }
    }
}
