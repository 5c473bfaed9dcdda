//! The writer of a log: the one task that writes to its segments and moves its ends.
//!
//! It looks at the state, takes one step, and looks again; it sleeps when there is nothing to do. At most one write is in
//! flight. With write caching a flush may run beside the writes; what is not durable stays within what the segment's header
//! allows, since recovery tells torn from corrupt by it.
//!
//! **After a failed write or sync** every byte since the durable point is suspect. The ends fall back to the durable point,
//! appends are refused, and all that was accepted is written again from the append buffers, which keep it until it is durable,
//! through a new descriptor, then synced. Offsets and sequences stay as they were decided, so a producer that tries again
//! meets its own batch. If that fails too, the log is closed until somebody calls for another try. A full disk is not a
//! failure: the write waits for room.

use std::rc::Rc;

use super::commit::{CommitPlan, Pending};
use super::error::IoFailure;
use super::format::{FIRST_BATCH_AT, WRITE_OVERHEAD_BYTES, segment_path};
use super::log::{HeaderState, Inner, LogEvent, Phase, State};
use super::segment::LogPoint;
use super::shard::Storage;
use crate::runtime::{Buffer, Class, Duration, File, Instant, OpenMode, Slice, sleep, spawn};
use crate::types::limits::{BLOCK_BYTES, ZERO_TAIL_BYTES};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// How long a write waits on a full disk before it is tried again.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(250);

/// A write: its place, and what the log's ends are after it.
struct Commit {
    from: u64,
    end: LogPoint,
    with_header: bool,
    plan: CommitPlan,
    file: File,
}

/// What the writer does next.
enum Step {
    /// Sleep until called.
    Wait,
    /// Sleep until the zeroing task gives way.
    WaitForZeroing,
    /// The log is closed.
    End,
    /// A task beside the writer met a failure.
    Fail(IoFailure),
    /// Take back the claim that nothing is written behind the last checkpoint.
    MarkDirty,
    /// Make durable what is written, and wait for it.
    Sync,
    /// Make durable what is written, while writes go on.
    Flush,
    /// Open the segment that is written again.
    Reopen,
    /// All is made good after a failure.
    Reinstate,
    /// Go on in the next segment.
    NextSegment,
    /// Write.
    Commit(Commit),
}

impl Inner {
    /// Calls the writer, and starts it at the first call.
    pub(super) fn call_writer(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.writer.is_none() {
            state.writer = Some(spawn(Class::Produce, self.clone().write()));
        }
        drop(state);
        self.work.notify();
    }

    async fn write(self: Rc<Self>) {
        let mut pieces = Vec::new();
        loop {
            let step = self.state.borrow_mut().next_step(&self.storage);
            let done = match step {
                Step::Wait => {
                    self.work.notified().await;
                    Ok(())
                }
                Step::WaitForZeroing => {
                    self.zeroed.notified().await;
                    Ok(())
                }
                Step::End => break,
                Step::Fail(failure) => Err(failure),
                Step::MarkDirty => self.write_dirty_mark().await,
                Step::Sync => self.sync_written().await,
                Step::Flush => {
                    self.start_flush();
                    Ok(())
                }
                Step::Reopen => self.reopen().await,
                Step::Reinstate => self.reinstate().await,
                Step::NextSegment => self.enter_next_segment().await,
                Step::Commit(commit) => self.commit(commit, &mut pieces).await,
            };
            if let Err(failure) = done {
                self.failed(failure).await;
            }
        }
    }

    /// Carries out a commit.
    async fn commit(self: &Rc<Self>, commit: Commit, pieces: &mut Vec<Slice>) -> Result<(), IoFailure> {
        let Commit { from, end, with_header, plan, file } = commit;
        let path = || segment_path(&self.directory, end.sequence);
        if plan.sync_before {
            self.sync_file(&file, end.sequence).await?;
        }
        {
            let state = self.state.borrow();
            let mut data_from = from;
            if with_header {
                pieces.push(header_block(&state));
                data_from = FIRST_BATCH_AT;
            }
            state.tail.pieces(end.sequence, data_from, end.position, &self.storage.zero_block(), pieces);
        }
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let to = from + bytes as u64;
        let (written, emptied) = file.write_at(from, std::mem::take(pieces), plan.durability).await;
        *pieces = emptied;
        pieces.clear();
        written.map_err(|error| IoFailure::new("write", path(), error))?;
        let metrics = self.storage.metrics();
        metrics.commits.add(1);
        metrics.commit_bytes.add(bytes as u64);
        if plan.sync_after {
            self.sync_file(&file, end.sequence).await?;
        }
        self.commit_done(end, to, plan);
        self.make_space(to, bytes as u64);
        Ok(())
    }

    /// Moves the ends after a commit that ended on block boundary `to`.
    fn commit_done(self: &Rc<Self>, end: LogPoint, to: u64, plan: CommitPlan) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if to > state.space.prewritten_end {
            if to - state.space.prewritten_end < super::commit::LARGE_COMMIT_BYTES {
                self.storage.metrics().unprepared_commits.add(1);
            }
            state.space.prewritten_end = to;
        }
        state.written = end;
        if plan.is_durable() {
            state.durable = end;
            state.header = HeaderState::Durable;
        } else if state.header == HeaderState::Due {
            state.header = HeaderState::Written;
        }
        state.header_wanted &= end.sequence != state.accepted.sequence;
        let times_flush = state.durable < state.written && !state.flush_timed;
        state.flush_timed |= times_flush;
        let interval = state.options.flush_interval;
        drop(guard);
        if times_flush {
            self.storage.flush_at(Instant::now().plus(interval), self);
        }
        self.advance();
    }

    /// Syncs the segment `sequence`, one sync at a time: of two that run at once, the kernel tells a failure to one only, and
    /// the other would vouch for bytes that are lost. A failure is left for the writer too, whoever called.
    pub(super) async fn sync_file(&self, file: &File, sequence: u64) -> Result<(), IoFailure> {
        let _passage = self.sync_gate.pass().await;
        let era = {
            let state = self.state.borrow();
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state.era
        };
        self.storage.metrics().syncs.add(1);
        let synced = file.sync().await;
        synced.map_err(|error| {
            let failure = IoFailure::new("sync", segment_path(&self.directory, sequence), error);
            let mut state = self.state.borrow_mut();
            if state.era == era {
                state.failure = Some(failure.clone());
            }
            failure
        })
    }

    /// Makes durable what was written when it was called. The file is not left before it returns.
    async fn sync_written(&self) -> Result<(), IoFailure> {
        let (file, point, era) = {
            let state = self.state.borrow();
            (state.file.clone(), state.written, state.era)
        };
        let file = file.expect("what is written was written to a file");
        let synced = self.sync_file(&file, point.sequence).await;
        let mut state = self.state.borrow_mut();
        if state.era != era {
            // What this sync covered has been suspect since, and is written again.
            return Ok(());
        }
        synced?;
        assert_eq!(point.sequence, state.durable.sequence);
        state.durable = state.durable.max(point);
        if state.header == HeaderState::Written {
            state.header = HeaderState::Durable;
        }
        if !state.options.write_caching && state.durable == state.written {
            state.caching = false;
        }
        drop(state);
        self.advance();
        Ok(())
    }

    /// Flushes in a task of its own.
    fn start_flush(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        state.flushing = true;
        state.flush_wanted = false;
        drop(state);
        let log = self.clone();
        spawn(Class::Produce, async move {
            let flushed = log.sync_written().await;
            let mut state = log.state.borrow_mut();
            state.flushing = false;
            if let Err(failure) = flushed {
                tracing::debug!(%failure, "a flush has failed; the writer takes it from here");
            }
            let waits = state.durable < state.written && !std::mem::replace(&mut state.flush_timed, true);
            let interval = state.options.flush_interval;
            drop(state);
            if waits {
                log.storage.flush_at(Instant::now().plus(interval), &log);
            }
            log.work.notify();
        });
    }

    /// Goes on in the next segment: its file is there and durable when this returns. The last one can be sealed now.
    async fn enter_next_segment(self: &Rc<Self>) -> Result<(), IoFailure> {
        let sequence = self.state.borrow().written.sequence + 1;
        let ready = self.take_ready(sequence).await?;
        let ended = {
            let mut state = self.state.borrow_mut();
            let ended = state.written_segment().clone();
            let next = state.segment(sequence).expect("the log has rolled").clone();
            let start = LogPoint::start_of(&next.header);
            assert!(state.durable == state.written && start.offset == state.written.offset);
            (state.written, state.durable) = (start, start);
            state.file = Some(ready.file);
            state.header = HeaderState::Due;
            state.space.enter(ready.prewritten_end);
            state.caching = state.options.write_caching && next.header.allows_write_caching();
            ended
        };
        spawn(Class::Background, self.clone().seal(ended));
        Ok(())
    }

    /// Opens the file of the segment that is written, after a failure; or makes it, if nothing in it counts yet.
    async fn reopen(&self) -> Result<(), IoFailure> {
        let (sequence, header) = {
            let state = self.state.borrow();
            (state.written.sequence, state.header)
        };
        let (file, prewritten_end) = if header == HeaderState::Due {
            let ready = self.reopen_begun(sequence).await?;
            (ready.file, ready.prewritten_end)
        } else {
            let path = segment_path(&self.directory, sequence);
            let file = File::open(&path, OpenMode::Write).await.map_err(|error| IoFailure::new("open", path, error))?;
            (file, self.state.borrow().space.prewritten_end)
        };
        let mut state = self.state.borrow_mut();
        state.file = Some(file);
        state.space.prewritten_end = prewritten_end;
        Ok(())
    }

    /// Waits a moment for room on a full disk. What was written is flushed first: the bound for that holds all the same.
    async fn wait_for_room(&self) {
        let is_flushed = {
            let state = self.state.borrow();
            state.durable == state.written || state.flushing || state.file.is_none()
        };
        if !is_flushed && self.sync_written().await.is_err() {
            // The writer finds the failure, and does not wait for room with it.
            return;
        }
        sleep(FULL_DISK_PAUSE).await;
    }

    /// Takes a failure: the first one is to be made good from memory, one while that is going on closes the log.
    async fn failed(&self, failure: IoFailure) {
        if failure.is_full() && failure.operation != "sync" {
            self.storage.disk_is_full();
            if !self.state.borrow().closing {
                tracing::warn!(%failure, "the disk is full, the write waits for room");
                self.wait_for_room().await;
                return;
            }
        }
        self.storage.metrics().failures.add(1);
        let closed = {
            let mut state = self.state.borrow_mut();
            if matches!(state.phase, Phase::Failed(_) | Phase::Closed) {
                return;
            }
            state.era += 1;
            state.failure = None;
            state.written = state.durable;
            if state.header == HeaderState::Written {
                state.header = HeaderState::Due;
            }
            state.file = None;
            let again = matches!(state.phase, Phase::Recovering);
            state.phase = if again { Phase::Failed(failure.clone()) } else { Phase::Recovering };
            if again {
                // Dropping them answers them.
                state.waiters.clear();
            }
            again
        };
        self.storage.call_for_room();
        if closed {
            self.storage.metrics().failed_logs.add(1);
            self.tell(LogEvent::Failed(failure));
        } else {
            tracing::error!(log = %self.directory.display(), %failure, "writing again what is not durable");
        }
    }

    /// Everything was written again: syncs it, and opens the log.
    async fn reinstate(&self) -> Result<(), IoFailure> {
        let (file, point) = {
            let state = self.state.borrow();
            (state.file.clone(), state.written)
        };
        let file = file.expect("it was opened again");
        self.sync_file(&file, point.sequence).await?;
        {
            let mut state = self.state.borrow_mut();
            state.durable = point;
            if matches!(state.phase, Phase::Closed) {
                return Ok(());
            }
            state.phase = Phase::Open;
        }
        self.advance();
        self.tell(LogEvent::Recovered);
        Ok(())
    }
}

impl State {
    /// What to do next.
    fn next_step(&mut self, storage: &Storage) -> Step {
        match self.phase {
            Phase::Closed => return Step::End,
            Phase::Failed(_) => return Step::Wait,
            Phase::Open | Phase::Recovering => {}
        }
        if matches!(self.phase, Phase::Recovering) && self.file.is_none() && (self.flushing || self.space.is_busy()) {
            // A sync that is still under way may fail too, and must not take with it what is about to be written again.
            self.failure = None;
            return if self.flushing { Step::Wait } else { Step::WaitForZeroing };
        }
        if let Some(failure) = self.failure.take() {
            return Step::Fail(failure);
        }
        let recovering = matches!(self.phase, Phase::Recovering);
        let pending = self.written < self.accepted || (self.header_wanted && self.header == HeaderState::Due);
        if !recovering && !pending {
            return self.idle_step();
        }
        if self.checkpoint.dirty_mark.is_some() {
            return Step::MarkDirty;
        }
        if self.file.is_none() {
            return Step::Reopen;
        }
        if recovering && !pending {
            return Step::Reinstate;
        }
        let ended = self.written_segment().end.get().is_some_and(|end| end == self.written);
        if ended && self.header != HeaderState::Due {
            if self.durable < self.written {
                return Step::Sync;
            }
            if self.space.is_busy() || self.flushing {
                return if self.flushing { Step::Wait } else { Step::WaitForZeroing };
            }
            return Step::NextSegment;
        }
        self.commit_step(storage, recovering)
    }

    /// When nothing waits to be written.
    fn idle_step(&self) -> Step {
        if self.durable == self.written || self.flushing {
            return Step::Wait;
        }
        if !self.options.write_caching {
            return Step::Sync;
        }
        if self.wants_flush() { Step::Flush } else { Step::Wait }
    }

    /// With write caching: whether it is time to flush.
    fn wants_flush(&self) -> bool {
        let waited_for = self.waiters.iter().any(|waiter| waiter.point <= self.written);
        let bytes = self.written.position - self.durable.position;
        self.flush_wanted
            || waited_for
            || bytes >= self.flush_bytes()
            || self.written.offset.since(self.durable.offset) >= self.options.flush_messages
    }

    /// Bytes after which to flush, within what the segment was started for.
    fn flush_bytes(&self) -> u64 {
        let header = &self.written_segment().header;
        let allowed = u64::from(header.unsynced_bytes_max).saturating_sub(2 * u64::from(header.write_bytes_max));
        self.options.flush_bytes.min(allowed.max(1))
    }

    /// The next write, or what has to come before it.
    fn commit_step(&mut self, storage: &Storage, recovering: bool) -> Step {
        let segment = self.written_segment().header;
        let with_header = self.header == HeaderState::Due;
        let (sequence, position) = self.written.place();
        let bytes_max = u64::from(segment.write_bytes_max) - WRITE_OVERHEAD_BYTES;
        let end = self.tail.write_end(sequence, position, bytes_max).unwrap_or(position);
        assert!(end > position || with_header, "there is something to write");
        let from = if with_header { 0 } else { position - position % BLOCK };
        let to = (end + ZERO_TAIL_BYTES as u64).next_multiple_of(BLOCK);
        assert!(to - from <= u64::from(segment.write_bytes_max), "a write stays within what its segment allows");
        // A header that is written alone is so because the segments before it are about to go.
        let caching = self.caching && !recovering && end > position;
        if caching {
            if !self.options.write_caching {
                return if self.flushing { Step::Wait } else { Step::Sync };
            }
            if !self.flushing && self.durable < self.written && self.wants_flush() {
                return Step::Flush;
            }
            if to - (self.durable.position - self.durable.position % BLOCK) > u64::from(segment.unsynced_bytes_max) {
                return if self.flushing { Step::Wait } else { Step::Flush };
            }
        }
        if self.space.is_in_the_way(to) {
            return Step::WaitForZeroing;
        }
        let unsynced_bytes = self.written.position - self.durable.position;
        let prewritten_end = self.space.prewritten_end;
        let plan = storage.commits.plan(&Pending { from, to, prewritten_end, unsynced_bytes, write_caching: caching });
        let offset = self.tail.offset_at(sequence, end, self.accepted.offset);
        let end = LogPoint { sequence, position: end, offset };
        let file = self.file.clone().expect("it was opened before");
        Step::Commit(Commit { from, end, with_header, plan, file })
    }
}

/// Block 0 of the segment that is written.
fn header_block(state: &State) -> Slice {
    let mut block = Buffer::with_capacity(BLOCK_BYTES);
    block.append(&state.written_segment().header.encode());
    block.append_zeros(block.remaining_in_block());
    block.freeze()
}
