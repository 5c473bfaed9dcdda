//! The checkpoint: from where a start resumes a log, in two slots that are written in turn.
//!
//! It is written only after the log is durable up to the recovery point that it names, so everything before that point is
//! known good and a bad batch there is corruption; what lies behind it is scanned. A write that is torn ruins one slot, the
//! other one still holds the checkpoint before: the newest valid slot counts. Losing both costs a scan of the whole log (and
//! a log start offset that DeleteRecords had moved within a segment), so both being invalid is reported, not hidden.
//!
//! The segments are listed so that a clean start opens none of them but the active one, and so that a missing one is seen.
//! Open transactions are part of the producers.

use core::time::Duration;

use bytes::BufMut;

use super::codec::{BODY_BYTES_MAX, DecodeError, ENVELOPE_BYTES, Envelope, Reader, put_count, put_optional};
use super::epochs::LeaderEpochs;
use super::index::SparseIndex;
use super::producers::{ProducerLimits, ProducerStates};
use super::seal::read_partition;
use crate::types::limits::BLOCK_BYTES;
use crate::types::{Offset, Timestamp, TopicPartition};

/// The file, padded with zeros to whole blocks:
///
/// ```text
/// envelope "CLckpt" (see codec), with the body
///   generation u64 · clean u8 · topic id 16 · partition i32 · log start i64
///   · recovery point: sequence u64 · position u32 · next offset i64
///   · segments: u32 count · (sequence u64 · base i64 · next i64 · bytes u32 · max timestamp i64 · sealed at i64)*
///   · leader epochs · producers (both see seal) · active: u8, then its index if 1
/// ```
const CHECKPOINT: Envelope = Envelope { what: "checkpoint", magic: *b"CLckpt\0\0", version: 1 };

/// Segments of one log at most: 64 TiB in segments of 1 GiB. 44 bytes each.
pub const SEGMENTS_MAX: usize = 65_536;
const SEGMENT_BYTES: usize = 44;

/// Bytes of a slot at most.
pub const CHECKPOINT_BYTES_MAX: usize = (ENVELOPE_BYTES + BODY_BYTES_MAX).next_multiple_of(BLOCK_BYTES);

/// What a log knows of one of its segments without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSummary {
    /// Its sequence number in the log.
    pub sequence: u64,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset behind its last record.
    pub next_offset: Offset,
    /// Bytes from the start of the file to the end of the last batch.
    pub bytes: u32,
    /// The largest timestamp of its records, if they have any.
    pub max_timestamp: Option<Timestamp>,
    /// The wall clock when it was sealed; `None` for the active segment.
    pub sealed_at: Option<Timestamp>,
}

/// The first byte and the first offset that are not known to be durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecoveryPoint {
    /// The sequence number of the segment.
    pub sequence: u64,
    /// The position in it, in bytes from the start of the file.
    pub position: u32,
    /// The offset of the batch that will lie there.
    pub next_offset: Offset,
}

/// What a checkpoint holds.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Rises by one with every checkpoint of the log. Slot = generation modulo 2.
    pub generation: u64,
    /// Whether the log ends exactly at the recovery point: nothing is to be scanned.
    pub clean: bool,
    /// Whose log.
    pub partition: TopicPartition,
    /// The first offset that may be read.
    pub log_start: Offset,
    /// Up to where the log is durable.
    pub recovery_point: RecoveryPoint,
    /// The segments, oldest first; the last one is the active one.
    pub segments: Vec<SegmentSummary>,
    /// The leader epochs up to the recovery point.
    pub epochs: LeaderEpochs,
    /// The producers and their open transactions at the recovery point.
    pub producers: ProducerStates,
    /// The index of the active segment up to the recovery point.
    pub active_index: Option<SparseIndex>,
}

impl Checkpoint {
    /// The slot that a generation is written to: 0 or 1.
    pub fn slot(generation: u64) -> usize {
        usize::from(generation % 2 == 1)
    }

    /// The bytes of its slot, a multiple of [`BLOCK_BYTES`]. `now` is the clock that the producers' times are of.
    pub fn encode(&self, now: Duration) -> Vec<u8> {
        let mut bytes = CHECKPOINT.encode(|bytes| {
            bytes.put_u64(self.generation);
            bytes.push(u8::from(self.clean));
            bytes.extend_from_slice(&self.partition.topic.bytes());
            bytes.put_i32(self.partition.partition.value());
            bytes.put_i64(self.log_start.value());
            bytes.put_u64(self.recovery_point.sequence);
            bytes.put_u32(self.recovery_point.position);
            bytes.put_i64(self.recovery_point.next_offset.value());
            put_count(bytes, self.segments.len());
            self.segments.iter().for_each(|segment| put_segment(bytes, segment));
            self.epochs.encode(bytes);
            self.producers.encode(bytes, now);
            bytes.push(u8::from(self.active_index.is_some()));
            if let Some(index) = &self.active_index {
                index.encode(bytes);
            }
        });
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }

    /// Reads the bytes of a slot.
    ///
    /// # Errors
    /// Whatever [`Checkpoint::encode`] cannot have written.
    pub fn decode(bytes: &[u8], limits: ProducerLimits, now: Duration) -> Result<Checkpoint, DecodeError> {
        let mut reader = CHECKPOINT.open(bytes)?;
        let generation = reader.u64()?;
        let clean = reader.flag("clean")?;
        let partition = read_partition(&mut reader)?;
        let log_start = reader.checked("log start offset", Offset::new)?;
        let recovery_point = RecoveryPoint {
            sequence: reader.u64()?,
            position: reader.u32()?,
            next_offset: reader.checked("next offset", Offset::new)?,
        };
        let segments = read_segments(&mut reader)?;
        let epochs = LeaderEpochs::decode(&mut reader)?;
        let producers = ProducerStates::decode(&mut reader, limits, now)?;
        let active_index = if reader.flag("active index")? {
            let Some(active) = segments.last() else {
                return Err(reader.wrong("active index", "0 without segments", 1));
            };
            Some(SparseIndex::decode(&mut reader, active.base_offset)?)
        } else {
            None
        };
        reader.finish()?;
        Ok(Checkpoint {
            generation,
            clean,
            partition,
            log_start,
            recovery_point,
            segments,
            epochs,
            producers,
            active_index,
        })
    }
}

/// Why neither slot has a checkpoint of this log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Both slots are there and neither can be used.
    #[error("no valid checkpoint: slot 0: {first}; slot 1: {second}")]
    BothInvalid {
        /// What is wrong with slot 0.
        first: Box<SlotError>,
        /// What is wrong with slot 1.
        second: Box<SlotError>,
    },
}

/// Why a slot cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// There is no such file.
    #[error("missing")]
    Missing,
    /// It is not a checkpoint.
    #[error(transparent)]
    Invalid(#[from] DecodeError),
    /// It belongs to another log.
    #[error("belongs to {found}, expected {expected}")]
    Foreign {
        /// This log.
        expected: TopicPartition,
        /// The log in the file.
        found: TopicPartition,
    },
    /// Its generation belongs to the other slot.
    #[error("holds generation {generation}, which belongs to the other slot")]
    Misplaced {
        /// The generation in the file.
        generation: u64,
    },
}

/// The newest valid checkpoint of two slots, and what is wrong with the other one, if something is.
#[derive(Debug)]
pub struct Chosen {
    /// The checkpoint; `None` if the log has never had one (neither file is there).
    pub checkpoint: Option<Checkpoint>,
    /// The other slot's error, to be logged; [`SlotError::Missing`] is ordinary before the second checkpoint.
    pub other: Option<SlotError>,
}

/// Chooses among the contents of slot 0 and slot 1 (`None`: no such file) of the log of `partition`.
///
/// # Errors
/// At least one slot is there and none is valid.
pub fn choose(
    slots: [Option<&[u8]>; 2],
    partition: TopicPartition,
    limits: ProducerLimits,
    now: Duration,
) -> Result<Chosen, CheckpointError> {
    let read = |slot: usize| -> Result<Checkpoint, SlotError> {
        let checkpoint = Checkpoint::decode(slots[slot].ok_or(SlotError::Missing)?, limits, now)?;
        let (generation, found) = (checkpoint.generation, checkpoint.partition);
        if found != partition {
            return Err(SlotError::Foreign { expected: partition, found });
        }
        if Checkpoint::slot(generation) != slot {
            return Err(SlotError::Misplaced { generation });
        }
        Ok(checkpoint)
    };
    match (read(0), read(1)) {
        (Ok(first), Ok(second)) => {
            let newest = if first.generation > second.generation { first } else { second };
            Ok(Chosen { checkpoint: Some(newest), other: None })
        }
        (Ok(checkpoint), Err(error)) | (Err(error), Ok(checkpoint)) => {
            Ok(Chosen { checkpoint: Some(checkpoint), other: Some(error) })
        }
        (Err(SlotError::Missing), Err(SlotError::Missing)) => Ok(Chosen { checkpoint: None, other: None }),
        (Err(first), Err(second)) => {
            Err(CheckpointError::BothInvalid { first: Box::new(first), second: Box::new(second) })
        }
    }
}

fn put_segment(bytes: &mut Vec<u8>, segment: &SegmentSummary) {
    bytes.put_u64(segment.sequence);
    bytes.put_i64(segment.base_offset.value());
    bytes.put_i64(segment.next_offset.value());
    bytes.put_u32(segment.bytes);
    put_optional(bytes, segment.max_timestamp.map(Timestamp::millis));
    put_optional(bytes, segment.sealed_at.map(Timestamp::millis));
}

fn read_segments(reader: &mut Reader<'_>) -> Result<Vec<SegmentSummary>, DecodeError> {
    let count = reader.count("segments", SEGMENTS_MAX, SEGMENT_BYTES)?;
    let mut segments: Vec<SegmentSummary> = Vec::with_capacity(count);
    for _ in 0..count {
        let segment = SegmentSummary {
            sequence: reader.u64()?,
            base_offset: reader.checked("base offset", Offset::new)?,
            next_offset: reader.checked("next offset", Offset::new)?,
            bytes: reader.u32()?,
            max_timestamp: reader.optional("maximum timestamp", Timestamp::new)?,
            sealed_at: reader.optional("time of sealing", Timestamp::new)?,
        };
        let follows = segments
            .last()
            .is_none_or(|before| before.sequence < segment.sequence && before.next_offset <= segment.base_offset);
        if !follows || segment.next_offset < segment.base_offset {
            return Err(reader.wrong(
                "segment sequence",
                "behind the one before, as its offsets",
                segment.sequence.into(),
            ));
        }
        segments.push(segment);
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::codec::hex;
    use crate::storage::index::IndexedBatch;
    use crate::types::{LeaderEpoch, PartitionId, TopicId};

    const LIMITS: ProducerLimits = ProducerLimits { count_max: 10, expiry: Duration::from_secs(60) };
    const NOW: Duration = Duration::from_secs(5);

    fn at(value: i64) -> Offset {
        Offset::new(value).expect("not negative")
    }

    fn partition() -> TopicPartition {
        TopicPartition { topic: TopicId::from_bytes([0xab; 16]), partition: PartitionId::new(3).expect("not negative") }
    }

    fn example(generation: u64) -> Checkpoint {
        let segment = |sequence, base: i64, sealed: i64| SegmentSummary {
            sequence,
            base_offset: at(base),
            next_offset: at(base + 100),
            bytes: 8192,
            max_timestamp: Timestamp::new(base),
            sealed_at: Timestamp::new(sealed),
        };
        let mut epochs = LeaderEpochs::new();
        epochs.assign(LeaderEpoch::ZERO, at(50));
        let mut index = SparseIndex::new(at(150), 4096, 512);
        for number in 0..2 {
            let base_offset = at(150 + 50 * i64::from(number));
            let (position, bytes) = (4096 + 2048 * number, 2048);
            index.push(&IndexedBatch { base_offset, position, bytes, max_timestamp: None });
        }
        Checkpoint {
            generation,
            clean: true,
            partition: partition(),
            log_start: at(60),
            recovery_point: RecoveryPoint { sequence: 4, position: 8192, next_offset: at(250) },
            segments: vec![segment(3, 50, 777), segment(4, 150, -1)],
            epochs,
            producers: ProducerStates::new(LIMITS),
            active_index: Some(index),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Checkpoint, DecodeError> {
        Checkpoint::decode(bytes, LIMITS, NOW)
    }

    #[test]
    fn the_format_is_frozen() {
        let bytes = example(6).encode(NOW);
        let golden = [
            "434c636b70740000 0001 0000 53f1a1cf 000000ca",
            "0000000000000006 01 abababababababababababababababab 00000003 000000000000003c",
            "0000000000000004 00002000 00000000000000fa",
            "00000002",
            "0000000000000003 0000000000000032 0000000000000096 00002000 0000000000000032 0000000000000309",
            "0000000000000004 0000000000000096 00000000000000fa 00002000 0000000000000096 ffffffffffffffff",
            "00000001 00000000 0000000000000032",
            "00000000",
            "01 00000200 00001000 0000000000000800 ffffffffffffffff 00000001 328010 00",
        ];
        let golden = golden.concat().replace(' ', "");
        assert_eq!(hex(&bytes[..golden.len() / 2]), golden);
        assert_eq!(bytes.len(), BLOCK_BYTES);
        assert!(bytes[golden.len() / 2..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn what_is_written_is_read() {
        let checkpoint = example(6);
        let bytes = checkpoint.encode(NOW);
        let read = decode(&bytes).expect("intact");
        assert_eq!(read.segments, checkpoint.segments);
        assert_eq!((read.recovery_point, read.log_start), (checkpoint.recovery_point, checkpoint.log_start));
        assert_eq!((&read.epochs, &read.active_index), (&checkpoint.epochs, &checkpoint.active_index));
        assert_eq!(read.encode(NOW), bytes);
    }

    #[test]
    fn every_damage_is_refused() {
        let bytes = example(6).encode(NOW);
        let body = ENVELOPE_BYTES + 202;
        for length in 0..body {
            assert!(decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        let mut damaged = bytes;
        for bit in 0..damaged.len() * 8 {
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit} flipped");
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn segments_that_overlap_or_run_back_are_refused() {
        let changes: [fn(&mut [SegmentSummary]); 4] = [
            |segments| segments.swap(0, 1),
            |segments| segments[1].sequence = 3,
            |segments| segments[1].base_offset = at(149),
            |segments| segments[1].next_offset = at(149),
        ];
        for change in changes {
            let mut checkpoint = example(6);
            change(&mut checkpoint.segments);
            let decoded = decode(&checkpoint.encode(NOW));
            assert!(matches!(decoded, Err(DecodeError::Field { field: "segment sequence", .. })), "{decoded:?}");
        }
    }

    fn generation(slots: [Option<&[u8]>; 2]) -> Result<Option<u64>, CheckpointError> {
        let chosen = choose(slots, partition(), LIMITS, NOW)?;
        Ok(chosen.checkpoint.map(|checkpoint| checkpoint.generation))
    }

    #[test]
    fn the_newest_valid_slot_counts() {
        let (older, newer) = (example(6).encode(NOW), example(7).encode(NOW));
        let torn = &newer[..100];
        assert_eq!(generation([None, None]), Ok(None));
        assert_eq!(generation([Some(&older), Some(&newer)]), Ok(Some(7)));
        assert_eq!(generation([Some(&example(8).encode(NOW)), Some(&newer)]), Ok(Some(8)));
        assert_eq!(generation([Some(&older), Some(torn)]), Ok(Some(6)));
        assert_eq!(generation([None, Some(&newer)]), Ok(Some(7)));
        let Err(CheckpointError::BothInvalid { first, second }) = generation([None, Some(torn)]) else {
            panic!("no slot is valid");
        };
        assert!(matches!((*first, *second), (SlotError::Missing, SlotError::Invalid(_))));
    }

    #[test]
    fn slots_of_another_log_or_place_do_not_count() {
        let mut foreign = example(7);
        foreign.partition.partition = PartitionId::new(4).expect("not negative");
        let (good, foreign) = (example(6).encode(NOW), foreign.encode(NOW));
        let chosen = choose([Some(&good), Some(&foreign)], partition(), LIMITS, NOW).expect("slot 0 is good");
        assert!(matches!(chosen.other, Some(SlotError::Foreign { .. })));
        let chosen = choose([Some(&good), Some(&good)], partition(), LIMITS, NOW).expect("slot 0 is good");
        assert_eq!(chosen.other, Some(SlotError::Misplaced { generation: 6 }));
    }
}
