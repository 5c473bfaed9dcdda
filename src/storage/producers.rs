//! What idempotence remembers of each producer: its epoch and its last five batches.
//!
//! A batch of an idempotent producer is accepted if its sequence follows the last accepted one, answered like the original
//! if it is one of the last five, and refused otherwise. The state is that of *accepted* batches; whatever a failed write
//! took back is undone exactly by [`ProducerStates::roll_back`], as long as [`ProducerStates::durable`] has not passed it.
//! Retention and DeleteRecords leave producers alone: they go when they were silent for the expiry time.
//!
//! A batch older than the last five is called a duplicate only if all its sequences are known to have been accepted in
//! this epoch; a producer without state may start anywhere, so a sequence below its first one may be a lost batch.
//!
//! The number of producers is bounded as Kafka bounds it: by forgetting. A refusal would let whoever makes ids fast lock
//! everybody else out, and clients survive being forgotten (KIP-360). Those longest silent go first, never one with an open
//! transaction. Time is monotonic and comes in as a [`Duration`] since a point that the caller chooses once; the stored form
//! keeps how long each was silent, so that a jump of the wall clock expires nobody. The time a broker is down does not count.
//! Sources: KIP-98 (sequences, epochs, five batches), KIP-360 (no state: any sequence; a new epoch starts at 0), KIP-185.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};

use bytes::BufMut;

use super::codec::{DecodeError, Reader, put_count, put_optional};
use crate::types::limits::PRODUCER_BATCHES_MAX;
use crate::types::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// Producers of one log at most. A stored producer takes at most 169 bytes, so that a snapshot stays below 11 MiB.
pub const PRODUCERS_MAX: usize = 65_536;

/// Sequences that a log can tell apart looking back: half of their range, or the past could not be told from the future.
const SEQUENCES_BACK_MAX: u32 = 1 << 30;
const SEQUENCE_RANGE: i64 = 1 << 31;

/// Bytes of a stored producer without batches.
const PRODUCER_BYTES_MIN: usize = 8 + 2 + 4 + 8 + 8 + 4 + 1;

/// What a batch says of its producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerBatch {
    /// Who wrote it.
    pub producer: ProducerId,
    /// In which epoch.
    pub epoch: ProducerEpoch,
    /// The sequence of its first record.
    pub first_sequence: Sequence,
    /// Its sequences: last offset delta + 1, at least 1.
    pub records: u32,
}

/// An accepted batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceptedBatch {
    /// The sequence of its first record.
    pub first_sequence: Sequence,
    /// Its sequences and offsets, at least 1.
    pub records: u32,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Its largest timestamp, or the log append time.
    pub timestamp: Option<Timestamp>,
}

impl AcceptedBatch {
    /// The offset of its last record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.records) - 1)
    }

    /// The sequence of its last record.
    pub fn last_sequence(&self) -> Sequence {
        self.first_sequence.plus(self.records - 1)
    }
}

/// A producer that is remembered, as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveProducer {
    /// The producer.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The last sequence that it wrote in this epoch.
    pub last_sequence: Option<Sequence>,
    /// The largest timestamp of its last batch, or the log append time.
    pub last_timestamp: Option<Timestamp>,
    /// The first offset of the transaction that is open, if one is.
    pub open_transaction: Option<Offset>,
    /// The epoch of the coordinator that wrote its last transaction marker.
    pub coordinator_epoch: Option<u32>,
}

/// What to do with a batch that is not refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is the next one: append it and [`ProducerStates::accept`] it.
    Accept,
    /// It is there already: answer as for this one, once that one may be answered.
    Duplicate(AcceptedBatch),
}

/// Why a batch is refused. All are the client's fault, or the loss of what it sent before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SequenceError {
    /// A newer epoch of the producer has written (INVALID_PRODUCER_EPOCH).
    #[error("producer {producer} writes with epoch {found}, its epoch is {current}")]
    StaleEpoch {
        /// The producer.
        producer: ProducerId,
        /// Its epoch in this log.
        current: ProducerEpoch,
        /// The batch's epoch.
        found: ProducerEpoch,
    },
    /// The batch does not follow the last one (OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error("producer {producer} epoch {epoch} sends sequence {found}, expected {expected}")]
    OutOfOrder {
        /// The producer.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The sequence that would have been accepted.
        expected: Sequence,
        /// The batch's first sequence.
        found: Sequence,
    },
    /// The batch was accepted before the last five: its offset is not known any more (DUPLICATE_SEQUENCE_NUMBER).
    #[error("producer {producer} epoch {epoch} sends sequence {found} again, the oldest remembered is {oldest}")]
    DuplicateTooOld {
        /// The producer.
        producer: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The first sequence of the oldest remembered batch.
        oldest: Sequence,
        /// The batch's first sequence.
        found: Sequence,
    },
}

/// How far a truncation could be followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Truncation {
    /// The state is that of the shorter log.
    Exact,
    /// Some producer's state before the cut is not known any more: rebuild from an older snapshot and the log.
    Rebuild,
}

/// Bounds of the state of one log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerLimits {
    /// Producers at most, 1 to [`PRODUCERS_MAX`].
    pub count_max: usize,
    /// How long a producer may be silent (`producer.id.expiration.ms`).
    pub expiry: Duration,
}

/// The last batches of an epoch, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct LastBatches {
    batches: [Option<AcceptedBatch>; PRODUCER_BATCHES_MAX],
}

impl LastBatches {
    const NONE: LastBatches = LastBatches { batches: [None; PRODUCER_BATCHES_MAX] };

    fn iter(&self) -> impl Iterator<Item = &AcceptedBatch> {
        self.batches.iter().flatten()
    }

    fn last(&self) -> Option<AcceptedBatch> {
        self.batches[PRODUCER_BATCHES_MAX - 1]
    }

    fn oldest(&self) -> Option<AcceptedBatch> {
        self.iter().next().copied()
    }

    /// Adds the newest; returns the oldest if it had to go.
    fn push(&mut self, batch: AcceptedBatch) -> Option<AcceptedBatch> {
        self.batches.rotate_left(1);
        self.batches[PRODUCER_BATCHES_MAX - 1].replace(batch)
    }

    /// Takes the newest away and puts `oldest` back.
    fn pop(&mut self, oldest: Option<AcceptedBatch>) {
        self.batches[PRODUCER_BATCHES_MAX - 1] = oldest;
        self.batches.rotate_right(1);
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Producer {
    epoch: ProducerEpoch,
    /// Filled from the back, so that the newest is always the last element.
    batches: LastBatches,
    /// Sequences accepted one behind the other in this epoch, up to the last one; at most [`SEQUENCES_BACK_MAX`].
    in_a_row: u32,
    /// Of the caller's clock; negative if it was silent for longer than that clock has run.
    last_seen_ms: i64,
    /// The first offset of the transaction that is open, if one is.
    open_transaction: Option<Offset>,
    /// The epoch of the coordinator that wrote the last transaction marker.
    coordinator_epoch: Option<u32>,
}

impl Producer {
    fn new(epoch: ProducerEpoch, now: Duration) -> Producer {
        Producer {
            epoch,
            batches: LastBatches::NONE,
            in_a_row: 0,
            last_seen_ms: millis(now),
            open_transaction: None,
            coordinator_epoch: None,
        }
    }

    /// Adds a batch of this epoch; returns the one that is forgotten for it.
    fn push(&mut self, batch: AcceptedBatch, now: Duration) -> Option<AcceptedBatch> {
        // A log that was compacted or repaired may have gaps: what lies before one is no longer known to be in a row.
        let row = if self.expected() == batch.first_sequence { self.in_a_row } else { 0 };
        self.in_a_row = row.saturating_add(batch.records).min(SEQUENCES_BACK_MAX);
        self.last_seen_ms = millis(now);
        self.batches.push(batch)
    }

    fn describe(&self, producer: ProducerId) -> ActiveProducer {
        let last = self.batches.last();
        ActiveProducer {
            producer,
            epoch: self.epoch,
            last_sequence: last.map(|last| last.last_sequence()),
            last_timestamp: last.and_then(|last| last.timestamp),
            open_transaction: self.open_transaction,
            coordinator_epoch: self.coordinator_epoch,
        }
    }

    fn expected(&self) -> Sequence {
        self.batches.last().map_or(FIRST_SEQUENCE, |last| last.last_sequence().plus(1))
    }

    fn silent_ms(&self, now: Duration) -> u64 {
        u64::try_from(millis(now).saturating_sub(self.last_seen_ms)).unwrap_or(0)
    }

    /// The verdict on a batch of this producer's current epoch.
    fn check(&self, batch: &ProducerBatch) -> Result<Verdict, SequenceError> {
        let same =
            |known: &&AcceptedBatch| known.first_sequence == batch.first_sequence && known.records == batch.records;
        if let Some(original) = self.batches.iter().find(same) {
            return Ok(Verdict::Duplicate(*original));
        }
        let (producer, epoch, found) = (batch.producer, batch.epoch, batch.first_sequence);
        let expected = self.expected();
        if found == expected {
            return Ok(Verdict::Accept);
        }
        let oldest = self.batches.oldest().map_or(expected, |oldest| oldest.first_sequence);
        let remembered = distance(oldest, expected);
        let back = distance(found, expected);
        // Wholly within what was accepted in a row, and wholly before the oldest batch that is remembered.
        if back <= self.in_a_row && batch.records <= back && back - batch.records >= remembered {
            return Err(SequenceError::DuplicateTooOld { producer, epoch, oldest, found });
        }
        Err(SequenceError::OutOfOrder { producer, epoch, expected, found })
    }
}

/// The sequence that a new epoch starts with.
const FIRST_SEQUENCE: Sequence = match Sequence::new(0) {
    Some(sequence) => sequence,
    None => unreachable!(),
};

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// How many sequences after `from` comes `to`, going up and around.
fn distance(from: Sequence, to: Sequence) -> u32 {
    let distance = (i64::from(to.value()) - i64::from(from.value())).rem_euclid(SEQUENCE_RANGE);
    u32::try_from(distance).expect("a remainder of 2^31")
}

/// A producer before an accepted batch.
#[derive(Clone, Debug)]
enum Before {
    /// It had no state.
    Absent,
    /// It was in the same epoch; the batch that fell out of its memory.
    Epoch { forgotten: Option<AcceptedBatch>, in_a_row: u32, open_transaction: Option<Offset> },
    /// It was in another epoch.
    Other(Box<Producer>),
}

#[derive(Clone, Debug)]
struct Undo {
    producer: ProducerId,
    base_offset: Offset,
    before: Before,
}

/// The producers of one log.
#[derive(Clone, Debug)]
pub struct ProducerStates {
    limits: ProducerLimits,
    producers: HashMap<ProducerId, Producer>,
    /// What to restore if a write fails: one per accepted batch that is not durable, in the order of offsets. Its length is
    /// bounded by the append buffers that hold those batches.
    undo: VecDeque<Undo>,
    /// Producers that had to go because there were too many, until somebody asks.
    evicted: u64,
}

impl ProducerStates {
    /// The state of a log that no producer has written to.
    pub fn new(limits: ProducerLimits) -> ProducerStates {
        let mut states = ProducerStates { limits, producers: HashMap::new(), undo: VecDeque::new(), evicted: 0 };
        states.set_limits(limits);
        states
    }

    /// Replaces the limits; they take effect with the next batch and the next expiry.
    pub fn set_limits(&mut self, limits: ProducerLimits) {
        let count_max = limits.count_max.clamp(1, PRODUCERS_MAX);
        self.limits = ProducerLimits { count_max, ..limits };
    }

    /// How many producers are remembered.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is remembered.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// The producers that are remembered, by id. What is accepted counts, durable or not.
    pub fn active(&self) -> Vec<ActiveProducer> {
        let mut active: Vec<ActiveProducer> = self.producers.iter().map(|(id, known)| known.describe(*id)).collect();
        active.sort_unstable_by_key(|active| active.producer);
        active
    }

    /// The first offset of the oldest open transaction, if there is one: the last stable offset does not pass it.
    pub fn first_open_transaction(&self) -> Option<Offset> {
        self.producers.values().filter_map(|producer| producer.open_transaction).min()
    }

    /// Whether a batch of a client is the next one, a duplicate, or wrong. Changes nothing.
    ///
    /// # Errors
    /// See [`SequenceError`].
    pub fn check(&self, batch: &ProducerBatch) -> Result<Verdict, SequenceError> {
        assert!(batch.records >= 1, "a batch holds at least one record");
        let Some(known) = self.producers.get(&batch.producer) else { return Ok(Verdict::Accept) };
        let (producer, epoch, found) = (batch.producer, batch.epoch, batch.first_sequence);
        if epoch < known.epoch {
            return Err(SequenceError::StaleEpoch { producer, current: known.epoch, found: epoch });
        }
        if epoch == known.epoch {
            return known.check(batch);
        }
        if found == FIRST_SEQUENCE {
            return Ok(Verdict::Accept);
        }
        Err(SequenceError::OutOfOrder { producer, epoch, expected: FIRST_SEQUENCE, found })
    }

    /// Takes note of a batch that was checked and is being appended at `base_offset`, with its largest timestamp (or its
    /// log append time). Offsets rise from call to call.
    pub fn accept(&mut self, batch: &ProducerBatch, base_offset: Offset, timestamp: Option<Timestamp>, now: Duration) {
        debug_assert_eq!(self.check(batch), Ok(Verdict::Accept));
        assert!(self.undo.back().is_none_or(|last| last.base_offset < base_offset), "offsets rise");
        let before = self.take_note(batch, base_offset, timestamp, now);
        self.undo.push_back(Undo { producer: batch.producer, base_offset, before });
    }

    /// Takes note of a batch that is in the log: during recovery, or on a follower. What the log holds is not checked.
    pub fn replay(&mut self, batch: &ProducerBatch, base_offset: Offset, timestamp: Option<Timestamp>, now: Duration) {
        self.take_note(batch, base_offset, timestamp, now);
    }

    fn take_note(
        &mut self,
        batch: &ProducerBatch,
        base_offset: Offset,
        timestamp: Option<Timestamp>,
        now: Duration,
    ) -> Before {
        let accepted =
            AcceptedBatch { first_sequence: batch.first_sequence, records: batch.records, base_offset, timestamp };
        if let Some(known) = self.producers.get_mut(&batch.producer) {
            if known.epoch == batch.epoch {
                let (in_a_row, open_transaction) = (known.in_a_row, known.open_transaction);
                let forgotten = known.push(accepted, now);
                return Before::Epoch { forgotten, in_a_row, open_transaction };
            }
            let mut fresh = Producer::new(batch.epoch, now);
            fresh.coordinator_epoch = known.coordinator_epoch;
            fresh.push(accepted, now);
            return Before::Other(Box::new(std::mem::replace(known, fresh)));
        }
        if self.producers.len() >= self.limits.count_max {
            self.forget_the_longest_silent(now);
        }
        let mut producer = Producer::new(batch.epoch, now);
        producer.push(accepted, now);
        self.producers.insert(batch.producer, producer);
        Before::Absent
    }

    /// Makes room for new producers: an eighth of the limit at once, so that a flood of ids pays for one pass now and then.
    fn forget_the_longest_silent(&mut self, now: Duration) {
        let idle = |producer: &Producer| producer.open_transaction.is_none();
        let mut silences: Vec<u64> =
            self.producers.values().filter(|producer| idle(producer)).map(|producer| producer.silent_ms(now)).collect();
        let going = (self.limits.count_max / 8).max(1).min(silences.len());
        let Some(index) = going.checked_sub(1) else { return };
        let (_, &mut shortest, _) = silences.select_nth_unstable_by(index, |a, b| b.cmp(a));
        let mut left = going;
        self.producers.retain(|_, producer| {
            let goes = left > 0 && idle(producer) && producer.silent_ms(now) >= shortest;
            left -= usize::from(goes);
            !goes
        });
        self.evicted += going as u64;
    }

    /// How many producers had to go because there were too many, since this was asked last.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Everything below `end` is durable and will not be rolled back.
    pub fn durable(&mut self, end: Offset) {
        while self.undo.front().is_some_and(|undo| undo.base_offset < end) {
            self.undo.pop_front();
        }
    }

    /// Undoes every accepted batch from offset `to` on, exactly. `to` is not below the durable end.
    ///
    /// A producer that expired or was evicted meanwhile stays unknown.
    pub fn roll_back(&mut self, to: Offset) {
        while let Some(undo) = self.undo.pop_back_if(|undo| undo.base_offset >= to) {
            let Some(producer) = self.producers.get_mut(&undo.producer) else { continue };
            match undo.before {
                Before::Absent => {
                    self.producers.remove(&undo.producer);
                }
                Before::Epoch { forgotten, in_a_row, open_transaction } => {
                    producer.batches.pop(forgotten);
                    producer.in_a_row = in_a_row;
                    producer.open_transaction = open_transaction;
                }
                Before::Other(earlier) => *producer = *earlier,
            }
        }
    }

    /// Forgets what was written at or behind `end`, the new end of a log that is cut back further than the durable point.
    pub fn truncate_to(&mut self, end: Offset) -> Truncation {
        self.undo.clear();
        let mut result = Truncation::Exact;
        for producer in self.producers.values_mut() {
            let Some(last) = producer.batches.last().filter(|last| last.base_offset >= end) else { continue };
            let behind = |batch: &Option<AcceptedBatch>| batch.is_some_and(|batch| batch.base_offset >= end);
            let expected = last.last_sequence().plus(1);
            while behind(&producer.batches.batches[PRODUCER_BATCHES_MAX - 1]) {
                producer.batches.pop(None);
            }
            let gone = distance(producer.expected(), expected);
            producer.in_a_row = producer.in_a_row.saturating_sub(gone);
            let begun = producer.open_transaction.is_none_or(|start| start < end);
            // With no batch left it may have been unknown, in another epoch, or further back in this one.
            if producer.batches.last().is_none() || !begun {
                result = Truncation::Rebuild;
            }
        }
        result
    }

    /// Forgets producers that were silent for the expiry time. Returns how many.
    pub fn expire(&mut self, now: Duration) -> usize {
        let before = self.producers.len();
        let expiry_ms = millis(self.limits.expiry).unsigned_abs();
        self.producers.retain(|_, producer| producer.open_transaction.is_some() || producer.silent_ms(now) < expiry_ms);
        before - self.producers.len()
    }

    /// Appends the state, ordered by producer id: a count, then per producer
    ///
    /// ```text
    /// id i64 · epoch i16 · sequences in a row u32 · milliseconds silent u64 · open transaction i64 or −1
    /// · coordinator epoch i32 or −1 · batches u8 · per batch, oldest first:
    ///   first sequence i32 · records u32 · base offset i64 · timestamp i64 or −1
    /// ```
    ///
    /// Batches that are not durable are in it too: take a snapshot that outlives a failed write only when there are none.
    pub fn encode(&self, bytes: &mut Vec<u8>, now: Duration) {
        let mut producers: Vec<(&ProducerId, &Producer)> = self.producers.iter().collect();
        producers.sort_unstable_by_key(|(id, _)| **id);
        put_count(bytes, producers.len());
        for (id, producer) in producers {
            bytes.put_i64(id.value());
            bytes.put_i16(producer.epoch.value());
            bytes.put_u32(producer.in_a_row);
            bytes.put_u64(producer.silent_ms(now));
            put_optional(bytes, producer.open_transaction.map(Offset::value));
            bytes.put_u32(producer.coordinator_epoch.unwrap_or(u32::MAX));
            bytes.push(u8::try_from(producer.batches.iter().count()).expect("at most five"));
            for batch in producer.batches.iter() {
                bytes.put_i32(batch.first_sequence.value());
                bytes.put_u32(batch.records);
                bytes.put_i64(batch.base_offset.value());
                put_optional(bytes, batch.timestamp.map(Timestamp::millis));
            }
        }
    }

    /// Reads what [`ProducerStates::encode`] wrote. Nothing of it can be rolled back.
    ///
    /// # Errors
    /// Too few bytes, too many producers, ids that do not rise, and values that no batch can have.
    pub fn decode(
        reader: &mut Reader<'_>,
        limits: ProducerLimits,
        now: Duration,
    ) -> Result<ProducerStates, DecodeError> {
        let mut states = ProducerStates::new(limits);
        let count = reader.count("producers", PRODUCERS_MAX, PRODUCER_BYTES_MIN)?;
        states.producers.reserve(count);
        let mut last = None;
        for _ in 0..count {
            let id = reader.checked("producer id", ProducerId::new)?;
            if last.replace(id).is_some_and(|last| last >= id) {
                return Err(reader.wrong("producer id", "above the one before", id.value().into()));
            }
            states.producers.insert(id, Producer::decode(reader, now)?);
        }
        Ok(states)
    }
}

impl Producer {
    fn decode(reader: &mut Reader<'_>, now: Duration) -> Result<Producer, DecodeError> {
        let number = reader.i16()?;
        let epoch = ProducerEpoch::new(number);
        let epoch = epoch.ok_or_else(|| reader.wrong("producer epoch", "not negative", number.into()))?;
        let in_a_row = reader.u32()?;
        let silent_ms = reader.u64()?;
        let open_transaction = reader.optional("open transaction", Offset::new)?;
        let coordinator_epoch = Some(reader.u32()?).filter(|&epoch| epoch != u32::MAX);
        let count = usize::from(reader.u8()?);
        if count > PRODUCER_BATCHES_MAX {
            return Err(reader.wrong("producer batches", "at most 5", count as i128));
        }
        let mut batches = LastBatches::NONE;
        for _ in 0..count {
            let batch = decode_batch(reader)?;
            if batches.last().is_some_and(|last| last.last_offset() >= batch.base_offset) {
                return Err(reader.wrong("base offset", "behind the batch before", batch.base_offset.value().into()));
            }
            batches.push(batch);
        }
        if in_a_row > SEQUENCES_BACK_MAX {
            return Err(reader.wrong("sequences in a row", "at most 2^30", in_a_row.into()));
        }
        let last_seen_ms = millis(now).saturating_sub_unsigned(silent_ms);
        Ok(Producer { epoch, batches, in_a_row, last_seen_ms, open_transaction, coordinator_epoch })
    }
}

fn decode_batch(reader: &mut Reader<'_>) -> Result<AcceptedBatch, DecodeError> {
    let number = reader.i32()?;
    let first_sequence = Sequence::new(number);
    let first_sequence = first_sequence.ok_or_else(|| reader.wrong("sequence", "not negative", number.into()))?;
    let records = reader.u32()?;
    if records == 0 || i64::from(records) > SEQUENCE_RANGE {
        return Err(reader.wrong("records of a batch", "1 to 2^31", records.into()));
    }
    let base_offset = reader.checked("base offset", Offset::new)?;
    let timestamp = reader.optional("timestamp", Timestamp::new)?;
    Ok(AcceptedBatch { first_sequence, records, base_offset, timestamp })
}

#[cfg(test)]
mod tests;
