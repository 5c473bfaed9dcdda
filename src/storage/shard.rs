//! What the logs of one shard share: the budget of append buffers, the pace of zeroing, the flush timer, the watch on free
//! space, descriptors of sealed segments, metrics.
//!
//! One [`Storage`] per shard, held by an `Rc`; everything hangs off it and nothing is process-wide. It knows its logs weakly,
//! so that dropping a log's last handle is enough to forget it. One flush task runs while written bytes wait for their
//! flush; idle logs cost nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::{Rc, Weak};

use super::commit::{CommitScheduler, DirectCommits};
use super::descriptors::Descriptors;
use super::due::DueCheckpoints;
use super::log::Inner;
use super::options::StorageOptions;
use super::retention::RetentionClock;
use super::space::{Pace, ZERO_PIECE_BYTES};
use super::tail::Release;
use crate::metrics::{Budget, Recording};
use crate::record::Decompressors;
use crate::runtime::sync::{Sender, oneshot};
use crate::runtime::{Buffer, Class, Duration, Instant, Slice, directory, metrics, sleep_until, spawn, wall_clock};
use crate::types::Timestamp;
use crate::types::limits::BLOCK_BYTES;

/// Accuracy of the flush timer. While bytes wait for their flush, the shard wakes this often at most.
const FLUSH_TICK: Duration = Duration::from_millis(10);

/// The storage of a shard.
pub struct Storage {
    pub(super) options: StorageOptions,
    pub(super) commits: Box<dyn CommitScheduler>,
    pub(super) descriptors: Descriptors,
    pub(super) due_checkpoints: DueCheckpoints,
    pub(super) pace: Pace,
    pub(super) decompressors: RefCell<Decompressors>,
    /// The origin of the time that producers expire by.
    pub(super) started: Instant,
    retention_clock: RefCell<RetentionClock>,
    zeros: Slice,
    tail_bytes: Cell<usize>,
    /// A log for each chunk that may be worth releasing, oldest first.
    releasable: RefCell<VecDeque<Weak<Inner>>>,
    flushes: RefCell<VecDeque<(Instant, Weak<Inner>)>>,
    flushing: Cell<bool>,
    /// Bytes that may be appended before the free space reaches the low-water mark, as far as this shard's own appends go;
    /// looked up now and then, counted down in between. At 0 appends are refused.
    room_bytes: Cell<u64>,
    /// Those whose append met full buffers.
    waiting_for_room: RefCell<Vec<Sender<()>>>,
    log_count: Cell<u64>,
    metrics: Recording,
}

impl Storage {
    /// The storage of the shard that this task runs on.
    pub fn new(options: StorageOptions) -> Rc<Storage> {
        let mut zeros = Buffer::with_capacity(ZERO_PIECE_BYTES);
        zeros.append_zeros(ZERO_PIECE_BYTES);
        Rc::new(Storage {
            commits: Box::new(DirectCommits),
            descriptors: Descriptors::new(options.descriptors_max),
            due_checkpoints: DueCheckpoints::default(),
            pace: Pace::new(options.prewrite_bytes_per_second),
            decompressors: RefCell::new(Decompressors::new()),
            started: Instant::now(),
            retention_clock: RefCell::new(RetentionClock::new(wall_clock(), Duration::ZERO)),
            zeros: zeros.freeze(),
            tail_bytes: Cell::new(0),
            releasable: RefCell::default(),
            flushes: RefCell::default(),
            flushing: Cell::new(false),
            room_bytes: Cell::new(u64::MAX),
            waiting_for_room: RefCell::default(),
            log_count: Cell::new(0),
            metrics: metrics(),
            options,
        })
    }

    /// What the shard measures, of its storage and else.
    pub fn metrics(&self) -> &Recording {
        &self.metrics
    }

    /// Bytes of memory in append buffers now.
    pub fn tail_bytes(&self) -> usize {
        self.tail_bytes.get()
    }

    /// Whether appends are refused for want of space.
    pub fn is_disk_full(&self) -> bool {
        self.room_bytes.get() == 0
    }

    /// Looks at the free space of the file system of `directory`, and refuses appends from now on if it lies at the
    /// low-water mark or below, or takes them again. To be called every second or so, by one task of the shard.
    ///
    /// # Errors
    /// What the system says; nothing changes then.
    pub async fn watch_disk(&self, path: &Path) -> std::io::Result<u64> {
        let free = directory::free_bytes(path).await?;
        self.room_bytes.set(free.saturating_sub(self.options.free_bytes_min));
        Ok(free)
    }

    /// A write met a full disk: appends are refused until [`Storage::watch_disk`] finds room.
    pub(super) fn disk_is_full(&self) {
        self.room_bytes.set(0);
    }

    /// `bytes` are appended: a disk that fills up between two looks is full before a write finds out.
    pub(super) fn take_room(&self, bytes: u64) {
        self.room_bytes.set(self.room_bytes.get().saturating_sub(bytes));
    }

    /// `bytes` zero bytes, at most [`ZERO_PIECE_BYTES`].
    pub(super) fn zeros(&self, bytes: usize) -> Slice {
        self.zeros.slice(0..bytes)
    }

    /// One zero block.
    pub(super) fn zero_block(&self) -> Slice {
        self.zeros(BLOCK_BYTES)
    }

    /// The time by which producers expire.
    pub(super) fn uptime(&self) -> Duration {
        Instant::now().since(self.started)
    }

    /// The time that retention decides by, on all logs of the shard: the wall clock, held back where it jumped ahead.
    pub(super) fn retention_time(&self) -> Timestamp {
        self.retention_clock.borrow_mut().advance(wall_clock(), self.uptime())
    }

    /// A number for a log, for the life of the shard.
    pub(super) fn next_log_number(&self) -> u64 {
        let number = self.log_count.get();
        self.log_count.set(number + 1);
        number
    }

    /// Charges `bytes` of append buffers, whatever the budget says: what a log cannot do without.
    pub(super) fn charge_tail(&self, bytes: usize) {
        self.set_tail_bytes(self.tail_bytes.get() + bytes);
    }

    /// As [`Storage::charge_tail`], for a chunk of `log` that may be released some day.
    pub(super) fn charge_chunk(&self, bytes: usize, log: &Rc<Inner>) {
        self.charge_tail(bytes);
        self.releasable.borrow_mut().push_back(Rc::downgrade(log));
    }

    /// Gives `bytes` of append buffers back.
    pub(super) fn release_tail(&self, bytes: usize) {
        self.set_tail_bytes(self.tail_bytes.get().checked_sub(bytes).expect("what was charged"));
    }

    fn set_tail_bytes(&self, bytes: usize) {
        self.tail_bytes.set(bytes);
        self.metrics.memory_bytes.at(Budget::Append).set(bytes as u64);
    }

    /// Charges `bytes` of append buffers for a chunk of `log`; durable chunks of any log make room, oldest first.
    /// `false` if there is no room: everything else waits for the disk. No state of any log may be borrowed.
    #[must_use]
    pub(super) fn reserve_tail(&self, bytes: usize, log: &Rc<Inner>) -> bool {
        let room = |storage: &Storage| storage.tail_bytes.get() + bytes <= storage.options.tail_bytes_max;
        let mut tries = self.releasable.borrow().len();
        while !room(self) && tries > 0 {
            tries -= 1;
            let Some(oldest) = self.releasable.borrow_mut().pop_front() else { break };
            let Some(owner) = oldest.upgrade() else { continue };
            match owner.release_tail_chunk() {
                Release::Freed(bytes) => self.release_tail(bytes),
                Release::Part(bytes) => {
                    self.release_tail(bytes);
                    // What it stands for is still to be released: without it that memory would never come back.
                    self.releasable.borrow_mut().push_back(oldest);
                }
                Release::Busy => self.releasable.borrow_mut().push_back(oldest),
            }
        }
        if !room(self) {
            return false;
        }
        self.charge_chunk(bytes, log);
        true
    }

    /// Waits until an append that was refused with `Backpressure` may find room: some log of the shard has moved on.
    pub async fn room(&self) {
        let (sender, called) = oneshot();
        self.waiting_for_room.borrow_mut().push(sender);
        called.await;
    }

    /// Lets those try again whose append met full buffers.
    pub(super) fn call_for_room(&self) {
        for waiting in self.waiting_for_room.take() {
            waiting.send(());
        }
    }

    /// Gives back what a log held that is no more.
    pub(super) fn forget_log(&self, log: u64, tail_bytes: usize) {
        self.release_tail(tail_bytes);
        self.descriptors.forget_log(log);
        self.releasable.borrow_mut().retain(|log| log.strong_count() > 0);
    }

    /// Has `log` flush what it has written when `deadline` comes.
    pub(super) fn flush_at(self: &Rc<Self>, deadline: Instant, log: &Rc<Inner>) {
        self.flushes.borrow_mut().push_back((deadline, Rc::downgrade(log)));
        if !self.flushing.replace(true) {
            spawn(Class::Produce, flush_when_due(self.clone()));
        }
    }

    /// Has `log`, which waits for its flush, flush by `deadline` if it would later.
    pub(super) fn flush_by(&self, deadline: Instant, log: &Rc<Inner>) {
        for (at, waiting) in self.flushes.borrow_mut().iter_mut() {
            if std::ptr::eq(waiting.as_ptr(), Rc::as_ptr(log)) {
                *at = deadline.min(*at);
            }
        }
    }

    /// Has every log flush whose deadline has come; gives the earliest other one.
    fn flush_due(&self, now: Instant) -> Option<Instant> {
        let mut due = Vec::new();
        let next = {
            let mut flushes = self.flushes.borrow_mut();
            // Logs may differ in their interval, so the list is not in order; it holds one entry per log that waits.
            flushes.retain(|(deadline, log)| {
                let waits = *deadline > now;
                if !waits {
                    due.extend(log.upgrade());
                }
                waits
            });
            flushes.iter().map(|(deadline, _)| *deadline).min()
        };
        for log in due {
            log.flush_is_due();
        }
        next
    }
}

async fn flush_when_due(storage: Rc<Storage>) {
    loop {
        let now = Instant::now();
        let Some(next) = storage.flush_due(now) else { break };
        sleep_until(next.min(now.plus(FLUSH_TICK))).await;
    }
    storage.flushing.set(false);
}
