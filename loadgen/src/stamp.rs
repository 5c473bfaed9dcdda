//! The stamp at the head of every record's value: who wrote it, where to, as which of its records, and when it was due.
//!
//! ```text
//! 0  magic u32 | 4 CRC32C u32 | 8 run u64 | 16 writer u32 | 20 partition u32 | 24 sequence u64 | 32 due ns u64 | 40 filler
//! ```
//! All numbers are big-endian. The CRC covers everything behind itself, and the magic is one number, so a value with a good
//! stamp is the value that was written, wherever it lies. What a stamp does not hold is whether its record was
//! acknowledged: that is the journal's.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use corelane::types::PartitionId;

const MAGIC: u32 = u32::from_be_bytes(*b"CLG2");
const MAGIC_AT: Range<usize> = 0..4;
const CRC_AT: Range<usize> = 4..8;
const RUN_AT: Range<usize> = 8..16;
const WRITER_AT: Range<usize> = 16..20;
const PARTITION_AT: Range<usize> = 20..24;
const SEQUENCE_AT: Range<usize> = 24..32;
const DUE_AT: Range<usize> = 32..40;

/// Bytes of a stamp, and so of a stamped value at least.
pub const STAMP_BYTES: usize = DUE_AT.end;

/// A run of the load generator; random, so that no two share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for RunId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<RunId, Self::Err> {
        u64::from_str_radix(text, 16).map(RunId)
    }
}

/// One of a run's producers, from 0. It writes each partition in the order of its sequence numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriterId(pub u32);

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a stamp says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The run that wrote the record.
    pub run: RunId,
    /// Its producer.
    pub writer: WriterId,
    /// The partition that the record was meant for.
    pub partition: PartitionId,
    /// Which of the writer's records in the partition it is: 0, 1, 2 …
    pub sequence: u64,
    /// When it was due, in nanoseconds of the writing machine's monotonic clock.
    pub due_ns: u64,
}

/// Why a value holds no stamp, or not the bytes that were stamped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StampError {
    /// Shorter than a stamp.
    #[error("a stamped value has {STAMP_BYTES} bytes or more, this one has {0}")]
    Short(usize),
    /// Not stamped, or its first bytes are damaged.
    #[error("a stamp begins with {MAGIC:#010x}, this value with {0:#010x}")]
    Magic(u32),
    /// Damaged.
    #[error("the value's CRC is {found:#010x}, its stamp says {expected:#010x}")]
    Crc {
        /// What the stamp says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// Not a partition's number.
    #[error("{0} is no partition")]
    Partition(u32),
}

impl Stamp {
    /// Stamps `value`, whose filler is written already and whose first [`STAMP_BYTES`] bytes are not.
    ///
    /// # Panics
    /// If the value is shorter than a stamp.
    pub fn write(&self, value: &mut [u8]) {
        value[MAGIC_AT].copy_from_slice(&MAGIC.to_be_bytes());
        value[RUN_AT].copy_from_slice(&self.run.0.to_be_bytes());
        value[WRITER_AT].copy_from_slice(&self.writer.0.to_be_bytes());
        value[PARTITION_AT].copy_from_slice(&self.partition.value().to_be_bytes());
        value[SEQUENCE_AT].copy_from_slice(&self.sequence.to_be_bytes());
        value[DUE_AT].copy_from_slice(&self.due_ns.to_be_bytes());
        let crc = crc(value);
        value[CRC_AT].copy_from_slice(&crc.to_be_bytes());
    }

    /// Reads the stamp of `value` and proves that every byte is as it was stamped.
    pub fn read(value: &[u8]) -> Result<Stamp, StampError> {
        if value.len() < STAMP_BYTES {
            return Err(StampError::Short(value.len()));
        }
        let magic = u32_at(value, MAGIC_AT);
        if magic != MAGIC {
            return Err(StampError::Magic(magic));
        }
        let (expected, found) = (u32_at(value, CRC_AT), crc(value));
        if expected != found {
            return Err(StampError::Crc { expected, found });
        }
        let partition = u32_at(value, PARTITION_AT);
        let partition_id = i32::try_from(partition).ok().and_then(PartitionId::new);
        Ok(Stamp {
            run: RunId(u64_at(value, RUN_AT)),
            writer: WriterId(u32_at(value, WRITER_AT)),
            partition: partition_id.ok_or(StampError::Partition(partition))?,
            sequence: u64_at(value, SEQUENCE_AT),
            due_ns: u64_at(value, DUE_AT),
        })
    }
}

fn crc(value: &[u8]) -> u32 {
    crc32c::crc32c(&value[CRC_AT.end..])
}

fn u32_at(value: &[u8], at: Range<usize>) -> u32 {
    u32::from_be_bytes(value[at].try_into().expect("four bytes"))
}

fn u64_at(value: &[u8], at: Range<usize>) -> u64 {
    u64::from_be_bytes(value[at].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        let partition = PartitionId::new(7).expect("not negative");
        Stamp { run: RunId(0x0102_0304_0506_0708), writer: WriterId(3), partition, sequence: 9, due_ns: 10 }
    }

    #[test]
    fn golden_bytes() {
        let mut value = [0xaa; STAMP_BYTES + 2];
        stamp().write(&mut value);
        let body = [
            &[1_u8, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 3, 0, 0, 0, 7][..],
            &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 10, 0xaa, 0xaa],
        ]
        .concat();
        assert_eq!(value[..4], *b"CLG2");
        assert_eq!(value[4..8], crc32c::crc32c(&body).to_be_bytes());
        assert_eq!(value[8..], body);
        assert_eq!(Stamp::read(&value), Ok(stamp()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let mut value = [0x55; STAMP_BYTES + 24];
        stamp().write(&mut value);
        for bit in 0..value.len() * 8 {
            let mut damaged = value;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Stamp::read(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..value.len() {
            assert!(Stamp::read(&value[..length]).is_err(), "{length} bytes");
        }
    }
}
