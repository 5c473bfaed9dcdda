//! The seal: the file beside a sealed segment that spares a start from scanning it.
//!
//! Written once, when the segment will not grow any more, and never changed. It repeats what the segment says of itself and
//! adds what only a scan could tell: index, leader epochs, aborted transactions, and the producers as they were at the
//! segment's end. A seal that is missing, damaged or of another segment is built again from the segment; nothing is lost
//! with it, so a wrong one is an error of its own and not corruption of the log.
//!
//! It does no I/O; the parts say themselves what they hold.

use core::time::Duration;

use bytes::BufMut;

use super::codec::{DecodeError, Envelope, Reader, put_count};
use super::epochs::LeaderEpochs;
use super::index::SparseIndex;
use super::producers::{ProducerLimits, ProducerStates};
use crate::types::{Offset, PartitionId, ProducerId, TopicId, TopicPartition};

/// The file:
///
/// ```text
/// envelope "CLseal" (see codec) with the body
///   topic id 16 · partition i32 · sequence u64 · base offset i64 · next offset i64 · segment bytes u32
///   · index · leader epochs · aborted transactions · producers
/// index:   u32 interval · u32 start · u64 uncovered · i64 max timestamp · u32 count · varints (see index)
/// epochs:  u32 count · (i32 epoch · i64 start)*
/// aborted: u32 count · (i64 producer · i64 first · i64 last · i64 last stable)*
/// ```
const SEAL: Envelope = Envelope { what: "seal", magic: *b"CLseal\0\0", version: 1 };

/// Aborted transactions of one segment at most: a segment of 2 GiB full of transactions of 2 KiB, all aborted. 32 bytes each.
pub const ABORTED_MAX: usize = 1 << 20;
const ABORTED_BYTES: usize = 32;

/// A transaction that was aborted: what a reader of committed records skips.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer: ProducerId,
    /// The offset of its first record.
    pub first: Offset,
    /// The offset of its abort marker.
    pub last: Offset,
    /// The last stable offset when the marker was written.
    pub last_stable: Offset,
}

/// Which segment it is, and how far it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentIdentity {
    /// Whose log.
    pub partition: TopicPartition,
    /// The segment's sequence number in the log.
    pub sequence: u64,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset behind its last record.
    pub next_offset: Offset,
    /// Bytes from the start of the file to the end of the last batch.
    pub bytes: u32,
}

/// What a seal holds.
#[derive(Clone, Debug)]
pub struct Seal {
    /// The segment.
    pub segment: SegmentIdentity,
    /// Its index, with its largest timestamp.
    pub index: SparseIndex,
    /// The leader epochs of the log up to the segment's end.
    pub epochs: LeaderEpochs,
    /// The transactions whose abort marker lies in the segment, by that marker's offset.
    pub aborted: Vec<AbortedTransaction>,
    /// The producers at the segment's end.
    pub producers: ProducerStates,
}

impl Seal {
    /// The bytes of the file. `now` is the clock that the producers' times are of.
    pub fn encode(&self, now: Duration) -> Vec<u8> {
        SEAL.encode(|bytes| {
            put_identity(bytes, &self.segment);
            self.index.encode(bytes);
            self.epochs.encode(bytes);
            put_count(bytes, self.aborted.len());
            for transaction in &self.aborted {
                bytes.put_i64(transaction.producer.value());
                bytes.put_i64(transaction.first.value());
                bytes.put_i64(transaction.last.value());
                bytes.put_i64(transaction.last_stable.value());
            }
            self.producers.encode(bytes, now);
        })
    }

    /// Reads the bytes of the file.
    ///
    /// # Errors
    /// Whatever [`Seal::encode`] cannot have written.
    pub fn decode(bytes: &[u8], limits: ProducerLimits, now: Duration) -> Result<Seal, DecodeError> {
        let mut reader = SEAL.open(bytes)?;
        let segment = read_identity(&mut reader)?;
        let index = SparseIndex::decode(&mut reader, segment.base_offset)?;
        let epochs = LeaderEpochs::decode(&mut reader)?;
        let count = reader.count("aborted transactions", ABORTED_MAX, ABORTED_BYTES)?;
        let mut aborted: Vec<AbortedTransaction> = Vec::with_capacity(count);
        for _ in 0..count {
            let transaction = read_aborted(&mut reader)?;
            if aborted.last().is_some_and(|before| before.last >= transaction.last) {
                return Err(reader.wrong("abort marker", "behind the one before", transaction.last.value().into()));
            }
            aborted.push(transaction);
        }
        let producers = ProducerStates::decode(&mut reader, limits, now)?;
        reader.finish()?;
        Ok(Seal { segment, index, epochs, aborted, producers })
    }
}

/// Appends topic id, partition, sequence, base offset, next offset and length.
pub(super) fn put_identity(bytes: &mut Vec<u8>, segment: &SegmentIdentity) {
    bytes.extend_from_slice(&segment.partition.topic.bytes());
    bytes.put_i32(segment.partition.partition.value());
    bytes.put_u64(segment.sequence);
    bytes.put_i64(segment.base_offset.value());
    bytes.put_i64(segment.next_offset.value());
    bytes.put_u32(segment.bytes);
}

/// Reads topic id and partition.
pub(super) fn read_partition(reader: &mut Reader<'_>) -> Result<TopicPartition, DecodeError> {
    let topic = TopicId::from_bytes(reader.array()?);
    let number = reader.i32()?;
    let partition = PartitionId::new(number);
    let partition = partition.ok_or_else(|| reader.wrong("partition", "not negative", number.into()))?;
    Ok(TopicPartition { topic, partition })
}

/// Reads what [`put_identity`] appended.
fn read_identity(reader: &mut Reader<'_>) -> Result<SegmentIdentity, DecodeError> {
    let partition = read_partition(reader)?;
    let sequence = reader.u64()?;
    let base_offset = reader.checked("base offset", Offset::new)?;
    let next_offset = reader.checked("next offset", Offset::new)?;
    if next_offset < base_offset {
        return Err(reader.wrong("next offset", "not below the base offset", next_offset.value().into()));
    }
    Ok(SegmentIdentity { partition, sequence, base_offset, next_offset, bytes: reader.u32()? })
}

fn read_aborted(reader: &mut Reader<'_>) -> Result<AbortedTransaction, DecodeError> {
    Ok(AbortedTransaction {
        producer: reader.checked("aborted producer", ProducerId::new)?,
        first: reader.checked("first offset", Offset::new)?,
        last: reader.checked("abort marker", Offset::new)?,
        last_stable: reader.checked("last stable offset", Offset::new)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::codec::{assert_every_damage_is_refused, hex};
    use crate::storage::index::IndexedBatch;
    use crate::storage::producers::ProducerBatch;
    use crate::types::{LeaderEpoch, ProducerEpoch, Sequence, Timestamp};

    const LIMITS: ProducerLimits = ProducerLimits { count_max: 10, expiry: Duration::from_secs(60) };
    const NOW: Duration = Duration::from_secs(5);

    fn at(value: i64) -> Offset {
        Offset::new(value).expect("not negative")
    }

    fn example() -> Seal {
        let partition = TopicPartition {
            topic: TopicId::from_bytes([0xab; 16]),
            partition: PartitionId::new(3).expect("not negative"),
        };
        let segment =
            SegmentIdentity { partition, sequence: 9, base_offset: at(1000), next_offset: at(1040), bytes: 6496 };
        let mut index = SparseIndex::new(at(1000), 4096, 512);
        let mut producers = ProducerStates::new(LIMITS);
        for number in 0..4u32 {
            let base_offset = at(1000 + 10 * i64::from(number));
            let max_timestamp = Timestamp::new(70);
            index.push(&IndexedBatch { base_offset, position: 4096 + 600 * number, bytes: 600, max_timestamp });
            let batch = ProducerBatch {
                producer: ProducerId::new(1).expect("not negative"),
                epoch: ProducerEpoch::new(0).expect("not negative"),
                first_sequence: Sequence::new(10 * number as i32).expect("not negative"),
                records: 10,
            };
            producers.replay(&batch, base_offset, max_timestamp, NOW);
        }
        let mut epochs = LeaderEpochs::new();
        epochs.assign(LeaderEpoch::ZERO, at(0));
        epochs.assign(LeaderEpoch::new(4).expect("not negative"), at(1020));
        let producer = ProducerId::new(8).expect("not negative");
        let aborted = vec![AbortedTransaction { producer, first: at(900), last: at(1001), last_stable: at(900) }];
        Seal { segment, index, epochs, aborted, producers }
    }

    fn decode(bytes: &[u8]) -> Result<Seal, DecodeError> {
        Seal::decode(bytes, LIMITS, NOW)
    }

    #[test]
    fn the_format_is_frozen() {
        let bytes = example().encode(NOW);
        let golden = [
            "434c7365616c0000 0001 0000 578f05f0 0000011f",
            "abababababababababababababababab 00000003 0000000000000009 00000000000003e8 0000000000000410 00001960",
            "00000200 00001000 0000000000000258 0000000000000046 00000003 0ad80447 0ad80400 0ad80400",
            "00000002 00000000 0000000000000000 00000004 00000000000003fc",
            "00000001 0000000000000008 0000000000000384 00000000000003e9 0000000000000384",
            "00000001 0000000000000001 0000 00000028 0000000000000000 ffffffffffffffff ffffffff 04",
            "00000000 0000000a 00000000000003e8 0000000000000046",
            "0000000a 0000000a 00000000000003f2 0000000000000046",
            "00000014 0000000a 00000000000003fc 0000000000000046",
            "0000001e 0000000a 0000000000000406 0000000000000046",
        ];
        assert_eq!(hex(&bytes), golden.concat().replace(' ', ""));
    }

    #[test]
    fn what_is_written_is_read() {
        let seal = example();
        let bytes = seal.encode(NOW);
        let read = decode(&bytes).expect("intact");
        assert_eq!((read.segment, &read.index, &read.epochs), (seal.segment, &seal.index, &seal.epochs));
        assert_eq!(read.aborted, seal.aborted);
        assert_eq!(read.encode(NOW), bytes);
    }

    #[test]
    fn every_damage_is_refused() {
        let bytes = example().encode(NOW);
        assert_every_damage_is_refused(&bytes, decode);
        let mut padded = bytes;
        padded.resize(4096, 0);
        assert_every_damage_is_refused_behind_padding(&padded);
    }

    fn assert_every_damage_is_refused_behind_padding(padded: &[u8]) {
        assert!(decode(padded).is_ok());
        let mut damaged = padded.to_vec();
        for byte in 0..damaged.len() {
            damaged[byte] ^= 0x10;
            assert!(decode(&damaged).is_err(), "byte {byte}");
            damaged[byte] ^= 0x10;
        }
    }
}
