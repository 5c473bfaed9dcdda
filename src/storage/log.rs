//! The log of one partition: what it keeps in memory, and where its ends are.
//!
//! ```text
//! log start ......... durable ......... written ......... accepted = log end
//!                                  └ in flight ┘
//! committed = durable; with write caching = written
//! ```
//!
//! Batches are *accepted* when they lie in the append buffers with their offsets, *in flight* during a write, *written* when
//! the kernel has them, *durable* when they lie on stable storage. Nothing is acknowledged and nothing is read beyond the
//! committed end, which never goes back. One writer task moves the ends; appends, reads and background work only look.
//!
//! A [`Log`] is a handle; the work is in the files beside this one: `append`, `writer`, `space`, `read`, `lookup`, `lifecycle`,
//! `retire` and `recovery`. State is borrowed for the length of a synchronous step, never across a wait.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::checkpoint::Checkpoint;
use super::epochs::{EpochEnd, LeaderEpochs};
use super::error::{DurabilityError, IoFailure, OpenError};
use super::format::FIRST_BATCH_AT;
use super::gate::Gate;
use super::options::LogOptions;
use super::planted::{self, Bug};
use super::producers::{ActiveProducer, ProducerStates};
use super::recovery::{self, RecoveryReport};
use super::segment::{LogPoint, Segment};
use super::shard::Storage;
use super::space::Space;
use super::tail::{Release, Tail};
use crate::metrics::Histogram;
use crate::runtime::sync::{Notify, Sender, oneshot};
use crate::runtime::{File, Instant, Task};
use crate::types::{LeaderEpoch, Offset, TopicPartition};

/// Batches in flight that an idle log keeps room for: 24 bytes each.
const UNCOMMITTED_KEPT: usize = 256;

/// Something that happened to a log, told to its observer as it happens.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// The committed end has moved up.
    Committed {
        /// The new committed end.
        end: Offset,
        /// The durable end: with write caching it may lie before it.
        durable: Offset,
        /// Bytes of batches between the committed end before and this one.
        bytes: u64,
    },
    /// The log start has moved up, durably.
    Started {
        /// The new log start.
        log_start: Offset,
    },
    /// The log is closed by a failure; what was accepted and is not committed has an unknown outcome.
    Failed(IoFailure),
    /// The log is open again after a failure; all that was accepted is durable.
    Recovered,
}

/// What a log does with appends.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// It takes them.
    Open,
    /// A write failed; the writer writes all that is not known to be durable again. Appends are refused meanwhile.
    Recovering,
    /// That failed too. Appends are refused until [`Log::recover`].
    Failed(IoFailure),
    /// It was closed for good.
    Closed,
}

/// How far the header of the segment that is written has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderState {
    /// The next write begins with it.
    Due,
    /// It is written.
    Written,
    /// It is durable.
    Durable,
}

/// When the last checkpoint was, and what makes the next one due.
pub(super) struct CheckpointState {
    pub generation: u64,
    /// Where the last one has the recovery point.
    pub point: LogPoint,
    /// The log start that it holds. The log's own may be further up for a while, or for longer if a checkpoint fails.
    pub log_start: Offset,
    /// When it was written.
    pub at: Instant,
    /// [`State::appended_bytes`] at its recovery point.
    pub appended_bytes: u64,
    /// Whether it claims that nothing was written after it; to be taken back before the next write.
    pub clean: bool,
    /// Whether it is known to be durable: one that was only read may lie in the page cache, left by a process that was killed
    /// while it wrote it. Then it is synced before its successor is written over the one before it.
    pub settled: bool,
    /// Of each slot, whether its name is known to be durable: the file may be there since a try that failed.
    pub named: [bool; 2],
    /// That checkpoint's successor, unclean: taken before the first append, written before the first write.
    pub dirty_mark: Option<Box<Checkpoint>>,
}

/// Somebody who waits until the log is durable up to a point.
pub(super) struct Waiter {
    pub point: LogPoint,
    pub done: Sender<()>,
}

/// What a log keeps in memory.
pub(super) struct State {
    pub options: LogOptions,
    pub phase: Phase,
    /// No more appends, since the log is being closed.
    pub closing: bool,
    /// Oldest first; batches are accepted into the last one.
    pub segments: VecDeque<Rc<Segment>>,
    pub tail: Tail,
    pub epochs: LeaderEpochs,
    pub producers: ProducerStates,
    pub log_start: Offset,
    /// Bytes that were accepted since the log was opened.
    pub appended_bytes: u64,
    pub accepted: LogPoint,
    pub written: LogPoint,
    pub durable: LogPoint,
    /// The committed end: never goes back.
    pub committed: Offset,
    /// What the observer was told of it.
    pub announced: LogPoint,
    /// The ends of the batches that are accepted and not committed, oldest first, and when each was accepted.
    pub uncommitted: VecDeque<(Offset, Instant)>,
    /// The file of the segment of `written`; `None` until the first write after the segment was begun.
    pub file: Option<File>,
    pub header: HeaderState,
    /// The header is to be written although no batch waits.
    pub header_wanted: bool,
    /// Whether *written* is committed now; follows the option with a delay.
    pub caching: bool,
    /// A flush is to be started.
    pub flush_wanted: bool,
    /// A flush is under way.
    pub flushing: bool,
    /// The shard's timer will ask for a flush.
    pub flush_timed: bool,
    /// A failure that a task beside the writer met.
    pub failure: Option<IoFailure>,
    /// Rises with every failure: what a task beside the writer began before does not count any more.
    pub era: u64,
    pub space: Space,
    pub waiters: Vec<Waiter>,
    pub writer: Option<Task<()>>,
    pub checkpoint: CheckpointState,
}

impl State {
    /// The segment of `written`.
    pub(super) fn written_segment(&self) -> &Rc<Segment> {
        self.segment(self.written.sequence).expect("the segment that is written is not retired")
    }

    /// The segment that batches are accepted into.
    pub(super) fn active(&self) -> &Rc<Segment> {
        self.segments.back().expect("a log has an active segment")
    }

    /// The segment with this number.
    pub(super) fn segment(&self, sequence: u64) -> Option<&Rc<Segment>> {
        let first = self.segments.front()?.sequence();
        self.segments.get(usize::try_from(sequence.checked_sub(first)?).ok()?)
    }

    /// Checks what must always hold.
    pub(super) fn check(&self) {
        assert!(self.durable <= self.written && self.written <= self.accepted, "the ends of a log are in order");
        assert!(self.log_start <= self.accepted.offset && self.committed <= self.accepted.offset);
    }

    /// Takes the times of the batches that are committed now.
    fn time_appends(&mut self, times: &Histogram) {
        if self.uncommitted.front().is_none_or(|(end, _)| *end > self.committed) {
            return;
        }
        let now = Instant::now();
        while let Some((_, accepted)) = self.uncommitted.pop_front_if(|(end, _)| *end <= self.committed) {
            times.record(now.since(accepted));
        }
        if self.uncommitted.is_empty() {
            self.uncommitted.shrink_to(UNCOMMITTED_KEPT);
        }
    }

    /// Bytes of batches from one point to a later one; what was retired in between does not count.
    fn bytes_between(&self, from: LogPoint, to: LogPoint) -> u64 {
        if from.sequence == to.sequence {
            return to.position.saturating_sub(from.position);
        }
        let ended = self.segments.iter().filter(|segment| (from.sequence..to.sequence).contains(&segment.sequence()));
        let ends = ended.filter_map(|segment| Some(segment.end.get()?.position - FIRST_BATCH_AT)).sum::<u64>();
        ends.saturating_sub(from.position.saturating_sub(FIRST_BATCH_AT)) + to.position.saturating_sub(FIRST_BATCH_AT)
    }

    /// Bytes of all segments, up to the log end.
    pub(super) fn size_bytes(&self) -> u64 {
        let ended: u64 = self.segments.iter().filter_map(|segment| segment.end.get()).map(|end| end.position).sum();
        ended + self.accepted.position
    }
}

/// Who is told of events.
type Observer = Rc<dyn Fn(LogEvent)>;

/// A log, shared by its handles and its tasks.
pub(super) struct Inner {
    pub storage: Rc<Storage>,
    /// Of the shard's logs, this one.
    pub number: u64,
    pub directory: PathBuf,
    pub partition: TopicPartition,
    pub state: RefCell<State>,
    /// When its next checkpoint is due, while it waits for one.
    pub checkpoint_due: Cell<Option<Instant>>,
    /// Calls the writer.
    pub work: Notify,
    /// Calls the writer when space has been zeroed, or zeroing has given up.
    pub zeroed: Notify,
    /// Held while the next segment is prepared or taken.
    pub ready_gate: Gate,
    /// Held by one of: retention, DeleteRecords, close.
    pub lifecycle_gate: Gate,
    /// Held while the segment that is written is synced.
    pub sync_gate: Gate,
    /// Held while a checkpoint's slot is written. Whoever holds it never waits for the writer.
    pub slot_gate: Gate,
    observer: RefCell<Option<Observer>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.storage.due_checkpoints.forget(self.checkpoint_due.get(), self.number);
        self.storage.forget_log(self.number, self.state.get_mut().tail.memory_bytes());
    }
}

/// A handle of a log. Clones share it.
#[derive(Clone)]
pub struct Log(pub(super) Rc<Inner>);

impl Inner {
    pub(super) fn new(storage: &Rc<Storage>, directory: &Path, partition: TopicPartition, state: State) -> Rc<Inner> {
        state.check();
        storage.charge_tail(state.tail.memory_bytes());
        let log = Rc::new(Inner {
            storage: storage.clone(),
            number: storage.next_log_number(),
            directory: directory.to_path_buf(),
            partition,
            state: RefCell::new(state),
            checkpoint_due: Cell::new(None),
            work: Notify::new(),
            zeroed: Notify::new(),
            ready_gate: Gate::default(),
            lifecycle_gate: Gate::default(),
            sync_gate: Gate::default(),
            slot_gate: Gate::default(),
            observer: RefCell::new(None),
        });
        log.note_growth(&log.state.borrow());
        log
    }

    /// Tells the observer. No state is borrowed: it may look at the log.
    pub(super) fn tell(&self, event: LogEvent) {
        let observer = self.observer.borrow().clone();
        if let Some(observer) = observer {
            observer(event);
        }
    }

    /// To be called whenever an end of the log has moved: moves the committed end, tells it, answers who waits.
    pub(super) fn advance(&self) {
        let mut reached = Vec::new();
        let committed = {
            let mut state = self.state.borrow_mut();
            state.check();
            let state = &mut *state;
            let durable = state.durable;
            state.producers.durable(durable.offset);
            let end = if state.caching { state.written } else { durable };
            let end = if planted::is_planted(Bug::AckBeforeDurable) { state.accepted } else { end };
            state.committed = state.committed.max(end.offset);
            state.time_appends(&self.storage.metrics().appends);
            if !state.waiters.is_empty() {
                reached.extend(state.waiters.extract_if(.., |waiter| waiter.point <= durable));
            }
            let news = end.offset > state.announced.offset;
            let before = if news { std::mem::replace(&mut state.announced, end) } else { end };
            news.then(|| LogEvent::Committed {
                end: end.offset,
                durable: durable.offset,
                bytes: state.bytes_between(before, end),
            })
        };
        self.storage.call_for_room();
        for waiter in reached {
            waiter.done.send(());
        }
        if let Some(event) = committed {
            self.tell(event);
        }
    }

    /// Waits until the log is durable up to `point`.
    pub(super) async fn durable_up_to(&self, point: LogPoint) -> Result<(), DurabilityError> {
        let waits = {
            let mut state = self.state.borrow_mut();
            match &state.phase {
                Phase::Failed(failure) if state.durable < point => return Err(failure.clone().into()),
                Phase::Closed if state.durable < point => return Err(DurabilityError::Closed),
                _ if state.durable >= point => return Ok(()),
                _ => {}
            }
            let (done, waits) = oneshot();
            state.waiters.push(Waiter { point, done });
            waits
        };
        self.work.notify();
        match waits.await {
            Some(()) => Ok(()),
            None => match &self.state.borrow().phase {
                Phase::Failed(failure) => Err(failure.clone().into()),
                _ => Err(DurabilityError::Closed),
            },
        }
    }

    /// The shard's timer asks for a flush.
    pub(super) fn flush_is_due(&self) {
        let mut state = self.state.borrow_mut();
        state.flush_timed = false;
        state.flush_wanted = true;
        drop(state);
        self.work.notify();
    }

    /// Releases a chunk of the append buffers. For the shard's budget.
    pub(super) fn release_tail_chunk(&self) -> Release {
        let mut state = self.state.borrow_mut();
        let durable = state.durable.place();
        state.tail.release(durable)
    }
}

impl Log {
    /// Creates the log of `partition` in `directory`, which may be there but holds no log; its parent exists. Durable when
    /// it returns. What an earlier call left that did not come to its end is removed.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] if the directory holds a log with batches.
    pub async fn create(
        storage: &Rc<Storage>,
        directory: &Path,
        partition: TopicPartition,
        options: LogOptions,
    ) -> Result<Log, OpenError> {
        recovery::create(storage, directory, partition, options.sane()).await.map(Log)
    }

    /// Opens the log of `partition` in `directory` and finds its end. When it returns, everything up to the end is durable
    /// and everything behind it is zero.
    ///
    /// # Errors
    /// See [`OpenError`]: what a power cut explains is repaired and reported, everything else is refused.
    pub async fn open(
        storage: &Rc<Storage>,
        directory: &Path,
        partition: TopicPartition,
        options: LogOptions,
    ) -> Result<(Log, RecoveryReport), OpenError> {
        let (inner, report) = recovery::open(storage, directory, partition, options.sane()).await?;
        Ok((Log(inner), report))
    }

    /// Has `observer` called at every event, from the task that causes it: it must be quick. It may look at the log.
    pub fn observe(&self, observer: impl Fn(LogEvent) + 'static) {
        *self.0.observer.borrow_mut() = Some(Rc::new(observer));
    }

    /// Whose log it is.
    pub fn partition(&self) -> TopicPartition {
        self.0.partition
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// The first offset that may be read.
    pub fn log_start(&self) -> Offset {
        self.0.state.borrow().log_start
    }

    /// The offset of the next record: the accepted end.
    pub fn log_end(&self) -> Offset {
        self.0.state.borrow().accepted.offset
    }

    /// The end of what the kernel has.
    pub fn written_end(&self) -> Offset {
        self.0.state.borrow().written.offset
    }

    /// The end of what lies on stable storage.
    pub fn durable_end(&self) -> Offset {
        self.0.state.borrow().durable.offset
    }

    /// The end of what may be acknowledged and read here: the durable end, with write caching the written end.
    pub fn committed_end(&self) -> Offset {
        self.0.state.borrow().committed
    }

    /// Whether it takes appends, as far as its own state goes.
    pub fn is_open(&self) -> bool {
        let state = self.0.state.borrow();
        matches!(state.phase, Phase::Open) && !state.closing
    }

    /// Bytes of its segments, up to the log end.
    pub fn size_bytes(&self) -> u64 {
        self.0.state.borrow().size_bytes()
    }

    /// How many segments it has, the active one included.
    pub fn segment_count(&self) -> usize {
        self.0.state.borrow().segments.len()
    }

    /// The epoch of the last record.
    pub fn epoch_at_end(&self) -> Option<LeaderEpoch> {
        self.0.state.borrow().epochs.latest().map(|latest| latest.epoch)
    }

    /// The epoch of the record at `offset`; `None` outside the log.
    pub fn leader_epoch_for(&self, offset: Offset) -> Option<LeaderEpoch> {
        let state = self.0.state.borrow();
        if offset >= state.accepted.offset { None } else { state.epochs.epoch_for(offset) }
    }

    /// Where the largest epoch not above `epoch` ends (KIP-101, KIP-279); `None` if `epoch` is above all known ones.
    pub fn end_offset_for(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let state = self.0.state.borrow();
        state.epochs.end_offset_for(epoch, state.accepted.offset)
    }

    /// The idempotent producers that it remembers, by id.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        self.0.state.borrow().producers.active()
    }

    /// The options in force.
    pub fn options(&self) -> LogOptions {
        self.0.state.borrow().options.clone()
    }

    /// Replaces the options; [`LogOptions`] says of each when it takes effect.
    pub fn set_options(&self, options: LogOptions) {
        let mut state = self.0.state.borrow_mut();
        let options = options.sane();
        if state.flush_timed && options.flush_interval < state.options.flush_interval {
            self.0.storage.flush_by(Instant::now().plus(options.flush_interval), &self.0);
        }
        state.options = options;
        if state.options.write_caching && state.written_segment().header.allows_write_caching() {
            state.caching = true;
        }
        let limits = recovery::producer_limits(&state.options);
        state.producers.set_limits(limits);
        drop(state);
        self.0.work.notify();
    }

    /// Forgets idempotent producers that were silent for the expiry time (`producer.id.expiration.ms`). Returns how many.
    pub fn expire_producers(&self) -> usize {
        let now = Instant::now().since(self.0.storage.started);
        self.0.state.borrow_mut().producers.expire(now)
    }

    /// Makes durable whatever was accepted before the call.
    ///
    /// # Errors
    /// If the log fails before.
    pub async fn flush(&self) -> Result<(), DurabilityError> {
        let accepted = self.0.state.borrow().accepted;
        self.0.durable_up_to(accepted).await
    }

    /// Tries again to make good a log that a failure has closed: all that was accepted and is not durable is written from
    /// memory, through a new descriptor, and synced. [`LogEvent::Recovered`] or [`LogEvent::Failed`] says how it ended.
    /// Nothing happens to a log that has not failed.
    pub fn recover(&self) {
        let mut state = self.0.state.borrow_mut();
        if !matches!(state.phase, Phase::Failed(_)) {
            return;
        }
        state.phase = Phase::Recovering;
        drop(state);
        self.0.storage.metrics().failed_logs.subtract(1);
        self.0.work.notify();
    }
}
