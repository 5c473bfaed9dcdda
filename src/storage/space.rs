//! Zeroed space ahead of the appends: in the segment that is written, and the next segment, ready before it is needed.
//!
//! A small durable write onto blocks that were written before is 3–5 times faster than one that extends its file, so a task of
//! the background class zeroes ahead: in steps that double while the log keeps catching up and halve when it falls silent, in
//! pieces of at most 256 KiB, at the shard's pace. The space counts only once it is synced. The writer never waits for a step;
//! if a write reaches into the one that is being zeroed (a sudden burst), the task stops at the end of its piece and the write
//! goes on then, since two writes to one place would race.
//!
//! The next segment is zeroed, synced, moved to its name and its directory synced before the log may roll into it. A roll that
//! finds none ready does all that first; it never skips it.

use std::cell::Cell;
use std::rc::Rc;

use super::commit::LARGE_COMMIT_BYTES;
use super::error::IoFailure;
use super::format::{FIRST_BATCH_AT, fresh_path, segment_path};
use super::log::{HeaderState, Inner, Phase, State};
use super::shard::Storage;
use crate::runtime::{Class, Durability, Duration, File, Instant, OpenMode, directory, sleep_until, spawn};
use crate::types::limits::BLOCK_BYTES;

/// Bytes that are zeroed by one write at most: about 1 ms of a disk, which is what a commit beside it waits at worst.
pub(super) const ZERO_PIECE_BYTES: usize = 256 << 10;
/// Bytes of a step of a silent log: what 10 000 of them waste is 160 MB.
const STEP_BYTES_MIN: u64 = 16 << 10;
/// Bytes of a step of a busy log: some milliseconds of a fast disk ahead.
const STEP_BYTES_MAX: u64 = 4 << 20;
/// A log that uses up a step within this time gets a larger one.
const STEP_QUICK: Duration = Duration::from_secs(1);
/// A log that takes longer than this for a step gets a smaller one.
const STEP_SLOW: Duration = Duration::from_secs(10);
/// Bytes before the end of a segment at which the next one is prepared at the latest.
const READY_BYTES_MAX: u64 = 256 << 20;

const BLOCK: u64 = BLOCK_BYTES as u64;
const _: () = assert!(ZERO_PIECE_BYTES.is_multiple_of(BLOCK_BYTES) && STEP_BYTES_MIN.is_multiple_of(BLOCK));
const _: () = assert!(STEP_BYTES_MAX.is_multiple_of(BLOCK) && STEP_BYTES_MIN < STEP_BYTES_MAX);

/// A segment's file that is ready to be rolled into.
pub(super) struct ReadySegment {
    pub sequence: u64,
    pub file: File,
    pub prewritten_end: u64,
}

/// What a log knows of its zeroed space.
pub(super) struct Space {
    /// Where the zeroed, durable space of the segment that is written ends.
    pub prewritten_end: u64,
    step_bytes: u64,
    step_started: Option<Instant>,
    /// A task zeroes behind `prewritten_end`.
    zeroing: bool,
    /// The task is to stop at the end of its piece.
    stop_zeroing: bool,
    ready: Option<ReadySegment>,
    /// A task prepares the next segment, or it has failed to, until the next roll.
    ready_asked: bool,
}

impl Space {
    /// In a segment whose zeroed space ends at `prewritten_end`.
    pub(super) fn new(prewritten_end: u64) -> Space {
        Space {
            prewritten_end,
            step_bytes: STEP_BYTES_MIN,
            step_started: None,
            zeroing: false,
            stop_zeroing: false,
            ready: None,
            ready_asked: false,
        }
    }

    /// In a new segment.
    pub(super) fn enter(&mut self, prewritten_end: u64) {
        assert!(!self.zeroing, "the writer has waited for it");
        self.prewritten_end = prewritten_end;
        self.ready_asked = false;
    }

    /// Whether a write up to `to` must wait for the zeroing task. Tells the task to stop, then.
    pub(super) fn is_in_the_way(&mut self, to: u64) -> bool {
        let waits = self.zeroing && to > self.prewritten_end;
        self.stop_zeroing |= waits;
        waits
    }

    /// Whether the writer must wait for the zeroing task before it leaves the segment. Tells the task to stop, then.
    pub(super) fn is_busy(&mut self) -> bool {
        self.stop_zeroing |= self.zeroing;
        self.zeroing
    }

    /// The next step, if one is due after a commit of `commit_bytes` that ended at `end`, in a segment of `segment_bytes`.
    fn next_step(&mut self, end: u64, commit_bytes: u64, segment_bytes: u64, now: Instant) -> Option<(u64, u64)> {
        let limit = (FIRST_BATCH_AT + segment_bytes).next_multiple_of(BLOCK);
        let ahead = self.prewritten_end.saturating_sub(end);
        if self.zeroing || commit_bytes >= LARGE_COMMIT_BYTES || ahead >= self.step_bytes / 2 {
            return None;
        }
        let from = self.prewritten_end.max(end);
        if from >= limit {
            return None;
        }
        match self.step_started.map(|started| now.since(started)) {
            Some(taken) if taken <= STEP_QUICK => self.step_bytes = (self.step_bytes * 2).min(STEP_BYTES_MAX),
            Some(taken) if taken >= STEP_SLOW => self.step_bytes = (self.step_bytes / 2).max(STEP_BYTES_MIN),
            _ => {}
        }
        self.step_started = Some(now);
        self.prewritten_end = from;
        (self.zeroing, self.stop_zeroing) = (true, false);
        Some((from, limit.min(from + self.step_bytes)))
    }
}

/// The pace at which a shard zeroes space.
pub(super) struct Pace {
    nanos_per_block: u64,
    next: Cell<Option<Instant>>,
}

impl Pace {
    /// At most `bytes_per_second`, at least one block.
    pub(super) fn new(bytes_per_second: u64) -> Pace {
        Pace { nanos_per_block: 1_000_000_000 / (bytes_per_second / BLOCK).max(1), next: Cell::new(None) }
    }

    /// Waits until `bytes` may be zeroed.
    async fn wait(&self, bytes: u64) {
        let now = Instant::now();
        let start = self.next.get().map_or(now, |next| next.max(now));
        self.next.set(Some(start.plus(Duration::from_nanos(bytes / BLOCK * self.nanos_per_block))));
        if start > now {
            sleep_until(start).await;
        }
    }
}

impl Inner {
    /// After a commit of `commit_bytes` up to `end`: starts whatever space has to be made.
    pub(super) fn make_space(self: &Rc<Self>, end: u64, commit_bytes: u64) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        self.ask_for_ready(state);
        let full = self.storage.is_disk_full() || state.closing || !matches!(state.phase, Phase::Open);
        if state.caching || full {
            return;
        }
        let Some(file) = state.file.clone() else { return };
        let step = state.space.next_step(end, commit_bytes, state.options.segment_bytes, Instant::now());
        if let Some((from, to)) = step {
            spawn(Class::Background, self.clone().zero_ahead(file, from, to));
        }
    }

    /// Has the next segment prepared if the active one nears its end.
    fn ask_for_ready(self: &Rc<Self>, state: &mut State) {
        let left = state.options.segment_bytes.saturating_sub(state.accepted.position);
        let near = left <= (state.options.segment_bytes / 2).min(READY_BYTES_MAX);
        if near && !state.space.ready_asked && state.accepted.sequence == state.written.sequence {
            state.space.ready_asked = true;
            spawn(Class::Background, self.clone().make_ready(state.written.sequence + 1));
        }
    }

    /// Zeroes `from..to` of the segment that is written.
    async fn zero_ahead(self: Rc<Self>, file: File, from: u64, to: u64) {
        let zeroed = self.zero_pieces(&file, from, to).await;
        let mut state = self.state.borrow_mut();
        state.space.zeroing = false;
        match zeroed {
            Ok(end) => state.space.prewritten_end = end,
            // The writer knows of a failed sync; a write fails for the batches too, soon enough, if the disk is bad.
            Err(failure) => tracing::debug!(%failure, "space was not zeroed ahead"),
        }
        drop(state);
        self.zeroed.notify();
        self.work.notify();
    }

    /// The end of what was zeroed and synced: `to`, or `from` if the writer was in a hurry.
    async fn zero_pieces(&self, file: &File, from: u64, to: u64) -> Result<u64, IoFailure> {
        let sequence = self.state.borrow().written.sequence;
        let failed = |operation| move |error| IoFailure::new(operation, segment_path(&self.directory, sequence), error);
        file.allocate(from, to - from).await.map_err(failed("allocate"))?;
        let mut position = from;
        while position < to {
            let bytes = (to - position).min(ZERO_PIECE_BYTES as u64);
            self.storage.pace.wait(bytes).await;
            if self.state.borrow().space.stop_zeroing {
                return Ok(from);
            }
            zero(&self.storage, file, position, bytes).await.map_err(failed("write"))?;
            position += bytes;
        }
        self.sync_file(file, sequence).await?;
        self.storage.metrics().prewritten_bytes.add(to - from);
        Ok(to)
    }

    /// Prepares segment `sequence` in the background, to be found by the roll.
    pub(super) async fn make_ready(self: Rc<Self>, sequence: u64) {
        let _passage = self.ready_gate.pass().await;
        let step = {
            let state = self.state.borrow();
            // Whoever has a file of it, or has had one with something in it, keeps that one.
            let begun =
                state.file.is_some() || state.header != HeaderState::Due || state.committed > state.durable.offset;
            let late = state.written.sequence > sequence || (state.written.sequence == sequence && begun);
            if state.closing || late || state.space.ready.is_some() {
                return;
            }
            state.space.step_bytes
        };
        match self.prepare(sequence, step, true).await {
            Ok(ready) => self.state.borrow_mut().space.ready = Some(ready),
            Err(failure) => tracing::debug!(%failure, "the next segment was not prepared ahead"),
        }
    }

    /// The prepared file of segment `sequence`; prepares it now if it is not ready.
    pub(super) async fn take_ready(&self, sequence: u64) -> Result<ReadySegment, IoFailure> {
        let _passage = self.ready_gate.pass().await;
        let ready = self.state.borrow_mut().space.ready.take();
        if let Some(ready) = ready.filter(|ready| ready.sequence == sequence) {
            return Ok(ready);
        }
        self.storage.metrics().unprepared_rolls.add(1);
        self.prepare(sequence, STEP_BYTES_MIN, false).await
    }

    /// The file of segment `sequence`, which is the one that is written and has no durable header: the one that is there, or
    /// a prepared one. What is there may hold batches that were acknowledged as written; they are written again in place.
    pub(super) async fn reopen_begun(&self, sequence: u64) -> Result<ReadySegment, IoFailure> {
        let _passage = self.ready_gate.pass().await;
        let ready = self.state.borrow_mut().space.ready.take();
        if let Some(ready) = ready.filter(|ready| ready.sequence == sequence) {
            return Ok(ready);
        }
        let path = segment_path(&self.directory, sequence);
        match File::open(&path, OpenMode::Write).await {
            Ok(file) => {
                let synced = directory::sync(&self.directory).await;
                synced.map_err(|error| IoFailure::new("sync", &self.directory, error))?;
                let prewritten_end = self.state.borrow().space.prewritten_end;
                Ok(ReadySegment { sequence, file, prewritten_end })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.prepare(sequence, STEP_BYTES_MIN, false).await
            }
            Err(error) => Err(IoFailure::new("open", path, error)),
        }
    }

    /// Makes the file of segment `sequence`: header block and `step_bytes` zeroed and synced, then its name, synced too.
    async fn prepare(&self, sequence: u64, step_bytes: u64, paced: bool) -> Result<ReadySegment, IoFailure> {
        let (fresh, path) = (fresh_path(&self.directory, sequence), segment_path(&self.directory, sequence));
        let failed = |operation| {
            let fresh = fresh.clone();
            move |error| IoFailure::new(operation, fresh, error)
        };
        match directory::remove_file(&fresh).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove")(error)),
            _ => {}
        }
        let file = File::open(&fresh, OpenMode::Create).await.map_err(failed("create"))?;
        let end = FIRST_BATCH_AT + step_bytes;
        file.allocate(0, end).await.map_err(failed("allocate"))?;
        let mut position = 0;
        while position < end {
            let bytes = (end - position).min(ZERO_PIECE_BYTES as u64);
            if paced {
                self.storage.pace.wait(bytes).await;
            }
            zero(&self.storage, &file, position, bytes).await.map_err(failed("write"))?;
            position += bytes;
        }
        file.sync().await.map_err(failed("sync"))?;
        directory::rename(&fresh, &path).await.map_err(failed("rename"))?;
        directory::sync(&self.directory).await.map_err(|error| IoFailure::new("sync", &self.directory, error))?;
        self.storage.metrics().prewritten_bytes.add(end);
        Ok(ReadySegment { sequence, file, prewritten_end: end })
    }
}

/// Writes `bytes` zeros at `position`: at most a piece, whole blocks.
pub(super) async fn zero(storage: &Storage, file: &File, position: u64, bytes: u64) -> std::io::Result<()> {
    let bytes = usize::try_from(bytes).expect("at most a piece");
    file.write_at(position, vec![storage.zeros(bytes)], Durability::Written).await.0
}
