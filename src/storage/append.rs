//! Accepting a batch: sequence check, offsets, one copy into the append buffers, and a call for the writer. Synchronous.
//!
//! Batches that are accepted while a write is in flight are the next write: that is the whole group commit. What is accepted
//! here is decided; the writer cannot refuse it, only fail, and then it is written again from the same buffers.

use std::rc::Rc;

use zerocopy::IntoBytes;

use super::error::AppendError;
use super::format::{FIRST_BATCH_AT, SegmentHeader, WRITE_OVERHEAD_BYTES};
use super::index::IndexedBatch;
use super::log::{Inner, Log, Phase, State};
use super::producers::{AcceptedBatch, ProducerBatch, Verdict};
use super::segment::{Age, LogPoint, Segment, position_u32};
use super::tail::{CHUNK_BYTES_MIN, ChunkBytes, TailBatch};
use crate::record::{HEADER_BYTES, ProducedBatch, Stamp, StampTime};
use crate::runtime::{Instant, wall_clock};
use crate::types::{LeaderEpoch, Offset, Timestamp};

/// Bytes that one log may hold in append buffers before they are durable, as a share of the shard's budget: a log whose disk
/// stalls must leave room for the others.
const PENDING_SHARE: u64 = 4;

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// It may be acknowledged once the committed end has reached this. A duplicate has its original's.
    pub end: Offset,
    /// The time of the append, if the topic's timestamps are that. A duplicate has its original's largest timestamp, whatever
    /// the topic's timestamps are: that is what Kafka answers.
    pub log_append_time: Option<Timestamp>,
    /// The first offset of the log.
    pub log_start: Offset,
    /// Whether the batch had been appended before.
    pub duplicate: bool,
}

/// A chunk is no longer than this share of the shard's budget, unless one batch needs it: a small budget still has to serve
/// several logs.
const CHUNK_SHARE: usize = 32;

/// How a batch will lie in the log.
struct Placement {
    /// Whether it begins a new segment.
    rolls: bool,
    /// The chunk that it needs.
    chunk: Option<ChunkBytes>,
}

impl Log {
    /// Accepts a batch of a client, as the leader of `leader_epoch`. Its offsets follow the log end. The call copies the batch
    /// and returns; [`Appended::end`] says what to wait for.
    ///
    /// # Errors
    /// See [`AppendError`]. After any of them nothing has changed.
    pub fn append(&self, batch: &ProducedBatch<'_>, leader_epoch: LeaderEpoch) -> Result<Appended, AppendError> {
        let inner = &self.0;
        let now = Instant::now();
        let placement = {
            let state = inner.state.borrow();
            state.check_open()?;
            if let Some(original) = state.check_sequence(batch)? {
                return Ok(duplicate(&state, &original));
            }
            if inner.storage.is_disk_full() {
                return Err(AppendError::DiskFull);
            }
            state.place(batch, now, inner.storage.options.tail_bytes_max as u64)?
        };
        let chunk_bytes = match placement.chunk {
            None => 0,
            Some(chunk) => inner.reserve_chunk(chunk).ok_or(AppendError::Backpressure)?,
        };
        let appended = {
            let mut state = inner.state.borrow_mut();
            inner.note_dirty(&mut state);
            if placement.rolls {
                inner.storage.charge_chunk(CHUNK_BYTES_MIN, inner);
                state.roll(leader_epoch, wall_clock());
                inner.storage.metrics().rolls.add(1);
            }
            let appended = accept(inner, &mut state, batch, leader_epoch, chunk_bytes, now);
            inner.note_growth(&state);
            appended
        };
        #[cfg(feature = "planted-bugs")]
        if super::planted::is_planted(super::planted::Bug::AckBeforeDurable) {
            inner.advance();
        }
        inner.call_writer();
        Ok(appended)
    }
}

impl Inner {
    /// Charges a chunk to the shard's budget: as long as it is wished, if there is room for that.
    fn reserve_chunk(self: &Rc<Self>, chunk: ChunkBytes) -> Option<usize> {
        let cap = (self.storage.options.tail_bytes_max / CHUNK_SHARE).next_power_of_two();
        let sizes = [chunk.wished.min(cap).max(chunk.least), chunk.least];
        sizes.into_iter().find(|&bytes| self.storage.reserve_tail(bytes, self))
    }
}

fn duplicate(state: &State, original: &AcceptedBatch) -> Appended {
    Appended {
        base_offset: original.base_offset,
        last_offset: original.last_offset(),
        end: original.last_offset().next(),
        log_append_time: original.timestamp,
        log_start: state.log_start,
        duplicate: true,
    }
}

/// The batch as the producers' state sees it; `None` without idempotence.
fn producer_batch(batch: &ProducedBatch<'_>) -> Option<ProducerBatch> {
    batch.producer().map(|producer| ProducerBatch {
        producer: producer.id,
        epoch: producer.epoch,
        first_sequence: producer.base_sequence,
        records: batch.record_count(),
    })
}

/// Puts a batch where its placement says.
fn accept(
    inner: &Inner,
    state: &mut State,
    batch: &ProducedBatch<'_>,
    leader_epoch: LeaderEpoch,
    chunk_bytes: usize,
    now: Instant,
) -> Appended {
    let LogPoint { sequence, position, offset } = state.accepted;
    let bytes = u32::try_from(batch.bytes().len()).expect("placement has bounded it by a segment");
    let stamp = batch.stamp(offset, leader_epoch);
    let header = stamp.header(batch.bytes());
    let tail_batch = TailBatch { base_offset: offset, sequence, position, bytes };
    let records = &batch.bytes()[HEADER_BYTES..];
    state.tail.append(tail_batch, header.as_bytes(), records, chunk_bytes);

    let max_timestamp = header.max_timestamp();
    if let Some(producer) = producer_batch(batch) {
        state.producers.accept(&producer, offset, max_timestamp, now.since(inner.storage.started));
        inner.storage.metrics().producers_evicted.add(state.producers.take_evicted());
    }
    state.epochs.assign(leader_epoch, offset);
    let segment = state.active().clone();
    if let Some(index) = segment.index.borrow_mut().as_mut() {
        let position = position_u32(position);
        index.push(&IndexedBatch { base_offset: offset, position, bytes, max_timestamp });
    }
    if segment.first_batch.get().is_none() {
        segment.first_batch.set(Some(Age::new(now)));
    }
    let end = offset.plus(u64::from(batch.record_count()));
    state.accepted = LogPoint { sequence, position: position + u64::from(bytes), offset: end };
    state.appended_bytes += u64::from(bytes);
    state.uncommitted.push_back((end, now));
    inner.storage.metrics().produce_bytes.add(u64::from(bytes));
    inner.storage.take_room(u64::from(bytes));
    state.check();
    Appended {
        base_offset: offset,
        last_offset: end.previous().expect("a batch has a record"),
        end,
        log_append_time: log_append_time(&stamp),
        log_start: state.log_start,
        duplicate: false,
    }
}

impl State {
    fn check_open(&self) -> Result<(), AppendError> {
        match self.phase {
            Phase::Open if !self.closing => Ok(()),
            Phase::Recovering if !self.closing => Err(AppendError::Recovering),
            _ => Err(AppendError::Closed),
        }
    }

    /// The original, if the batch is a duplicate.
    fn check_sequence(&self, batch: &ProducedBatch<'_>) -> Result<Option<AcceptedBatch>, AppendError> {
        let Some(producer) = producer_batch(batch) else { return Ok(None) };
        match self.producers.check(&producer)? {
            Verdict::Accept => Ok(None),
            Verdict::Duplicate(original) => Ok(Some(original)),
        }
    }

    fn place(&self, batch: &ProducedBatch<'_>, now: Instant, tail_bytes_max: u64) -> Result<Placement, AppendError> {
        let bytes = batch.bytes().len();
        let bytes_max = self.options.batch_bytes_max();
        if bytes as u64 > bytes_max {
            return Err(AppendError::TooLarge { bytes: bytes as u64, bytes_max });
        }
        // A log whose disk stalls must leave room for the others.
        let pending_bytes_max = (tail_bytes_max / PENDING_SHARE).max(2 * self.options.append_write_bytes_max);
        if self.pending_bytes() + bytes as u64 > pending_bytes_max {
            return Err(AppendError::Backpressure);
        }
        let rolls = self.must_roll(bytes as u64, now);
        Ok(Placement { rolls, chunk: self.tail.chunk_for(bytes, rolls) })
    }

    /// Whether a batch of `bytes` bytes begins a new segment.
    fn must_roll(&self, bytes: u64, now: Instant) -> bool {
        let segment = self.active();
        let header = &segment.header;
        // A segment has its limits for life: recovery goes by what its header says.
        if bytes + WRITE_OVERHEAD_BYTES > u64::from(header.write_bytes_max) {
            return true;
        }
        if self.options.write_caching && !header.allows_write_caching() {
            return true;
        }
        let Some(first) = segment.first_batch.get() else { return false };
        let filled = self.accepted.position - FIRST_BATCH_AT;
        filled + bytes > self.options.segment_bytes || first.at(now) >= self.options.segment_age
    }

    /// Bytes that are accepted and not durable.
    fn pending_bytes(&self) -> u64 {
        if self.accepted.sequence == self.durable.sequence {
            return self.accepted.position - self.durable.position;
        }
        let behind = self.segments.iter().filter(|segment| segment.sequence() >= self.durable.sequence);
        let ended: u64 = behind.filter_map(|segment| segment.end.get()).map(|end| end.position).sum();
        ended + self.accepted.position - self.durable.position
    }

    /// Ends the active segment and begins the next one. Its file comes with the first write.
    pub(super) fn roll(&mut self, leader_epoch: LeaderEpoch, now: Timestamp) {
        let active = self.active();
        active.finish(self.accepted, now);
        *active.at_end.borrow_mut() = Some(Box::new((self.epochs.clone(), self.producers.clone())));
        let header = self.options.segment_header(active.header.partition, active.sequence() + 1, leader_epoch, now);
        let header = SegmentHeader { base_offset: self.accepted.offset, ..header };
        self.segments.push_back(Rc::new(Segment::new(header, &self.options)));
        self.accepted = LogPoint::start_of(&header);
        self.tail.begin_segment(header.sequence);
    }
}

fn log_append_time(stamp: &Stamp) -> Option<Timestamp> {
    match stamp.time {
        StampTime::Create { .. } => None,
        StampTime::LogAppend { at } => Some(at),
    }
}
