//! Taking records out of the front of a log: retention and DeleteRecords.
//!
//! The order is what makes it safe: the log start is durable in a checkpoint before DeleteRecords answers and before any file
//! is unlinked; segments go oldest first; a file is unlinked after the last read that had found it. A crash in between leaves
//! segments below the log start, which the next open removes. An active segment whose records are all expired is ended first,
//! and the header of the next one is durable before the old one goes, so that the log end is never lost.

use std::io;
use std::rc::Rc;

use super::error::{DeleteRecordsError, DurabilityError, IoFailure};
use super::format::{seal_path, segment_path};
use super::log::{Inner, Log, LogEvent, Phase, State};
use super::retention::{RetainedLog, RetentionDecision, RetentionLimits, SegmentAge, decide};
use super::segment::Segment;
use super::tail::CHUNK_BYTES_MIN;
use crate::runtime::{Duration, File, OpenMode, directory, sleep};
use crate::types::{LeaderEpoch, Offset, Timestamp};

/// Bytes that a large file is shortened by at a time, so that freeing its blocks holds up the file system's journal for
/// milliseconds only.
const SHORTEN_BYTES: u64 = 64 << 20;
/// The pause between two of those steps.
const SHORTEN_PAUSE: Duration = Duration::from_millis(20);

impl Log {
    /// Drops the segments that retention has no use for any more, by the time of the shard's retention clock. To be called
    /// now and then, for all logs, by one task of the shard. Returns how many went.
    ///
    /// # Errors
    /// If the new log start could not be made durable; then nothing was removed. A file that cannot be unlinked is not an
    /// error: the next open removes it.
    pub async fn enforce_retention(&self) -> Result<usize, DurabilityError> {
        self.enforce_retention_at(self.0.storage.retention_time()).await
    }

    /// As [`Log::enforce_retention`], at `now`.
    pub(super) async fn enforce_retention_at(&self, now: Timestamp) -> Result<usize, DurabilityError> {
        let inner = &self.0;
        let decision = {
            let state = inner.state.borrow();
            if !matches!(state.phase, Phase::Open) || state.closing {
                return Ok(0);
            }
            state.decide_retention(now)
        };
        if decision.seal_active {
            inner.end_active_segment(now).await?;
        }
        if decision.expired.is_empty() {
            return Ok(0);
        }
        let _passage = inner.lifecycle_gate.pass().await;
        // The log has changed while this waited: decide again, for good.
        let new_start = {
            let state = inner.state.borrow();
            let gone = state.decide_retention(now).expired.len();
            gone.checked_sub(1).and_then(|last| state.segments[last].end.get()).map(|end| end.offset)
        };
        let Some(new_start) = new_start else { return Ok(0) };
        inner.move_start(new_start).await
    }

    /// Makes the records before `before` unreadable, and removes the segments that hold nothing else. Returns the log start,
    /// which is durable then, and not below `before`.
    ///
    /// # Errors
    /// See [`DeleteRecordsError`].
    pub async fn delete_records(&self, before: Offset) -> Result<Offset, DeleteRecordsError> {
        let inner = &self.0;
        let _passage = inner.lifecycle_gate.pass().await;
        {
            let state = inner.state.borrow();
            if before > state.committed {
                return Err(DeleteRecordsError::OutOfRange { before, committed_end: state.committed });
            }
            if matches!(state.phase, Phase::Closed) {
                return Err(DurabilityError::Closed.into());
            }
            // Only what is durable is an answer: an earlier call may have moved the start and failed to write it down.
            if state.checkpoint.settled && before <= state.checkpoint.log_start {
                return Ok(state.log_start);
            }
        }
        inner.move_start(before).await?;
        Ok(self.log_start())
    }
}

impl State {
    fn decide_retention(&self, now: Timestamp) -> RetentionDecision {
        let seen = |segment: &Rc<Segment>| {
            let summary = segment.summary(self.accepted);
            let age = segment.age.get().unwrap_or_else(|| SegmentAge::first_seen(&summary, now));
            segment.age.set(Some(age));
            (summary, age)
        };
        let ended = self.segments.iter().filter(|segment| segment.end.get().is_some_and(|end| end <= self.durable));
        let sealed: Vec<_> = ended.map(seen).collect();
        let active = self.active().summary(self.accepted);
        let (start, committed_end) = (self.log_start, self.committed);
        let limits = RetentionLimits { age: self.options.retention_age, bytes: self.options.retention_bytes };
        decide(RetainedLog { sealed: &sealed, active: &active, start, committed_end }, limits, now)
    }
}

impl Inner {
    /// Ends the active segment, whose records are all expired, and makes the next one's header durable.
    async fn end_active_segment(self: &Rc<Self>, now: Timestamp) -> Result<(), DurabilityError> {
        let accepted = {
            let mut state = self.state.borrow_mut();
            if !state.decide_retention(now).seal_active {
                return Ok(());
            }
            self.note_dirty(&mut state);
            self.storage.charge_chunk(CHUNK_BYTES_MIN, self);
            let epoch = state.epochs.latest().map_or(LeaderEpoch::ZERO, |latest| latest.epoch);
            state.roll(epoch, now);
            state.header_wanted = true;
            self.storage.metrics().rolls.add(1);
            self.note_growth(&state);
            state.accepted
        };
        self.call_writer();
        // The writer answers after its next write into the segment, and that write begins with the header.
        self.durable_up_to(accepted).await
    }

    /// Makes `log_start` the log's start, durably, then removes the segments below it. The caller holds the lifecycle gate.
    async fn move_start(&self, log_start: Offset) -> Result<usize, DurabilityError> {
        let (retired, announced) = {
            let mut state = self.state.borrow_mut();
            let moved = log_start > state.log_start;
            state.log_start = state.log_start.max(log_start);
            let start = state.log_start;
            state.epochs.truncate_start(start);
            let below = state
                .segments
                .iter()
                .take_while(|segment| segment.end.get().is_some_and(|end| end.offset <= start && end <= state.durable))
                .count();
            // The segment of the durable end stays: the recovery point lies there until the next checkpoint.
            let below =
                below.min(state.segments.iter().take_while(|it| it.sequence() < state.durable.sequence).count());
            let retired: Vec<_> = state.segments.drain(..below).collect();
            (retired, moved.then_some(start))
        };
        let durable = self.checkpoint(false).await;
        if let Err(error) = durable {
            let mut state = self.state.borrow_mut();
            for segment in retired.into_iter().rev() {
                state.segments.push_front(segment);
            }
            return Err(error);
        }
        if let Some(log_start) = announced {
            self.tell(LogEvent::Started { log_start });
        }
        for segment in &retired {
            self.remove(segment).await;
        }
        Ok(retired.len())
    }

    /// Unlinks the files of a segment that the log has let go of, after its last reader.
    async fn remove(&self, segment: &Segment) {
        segment.drained().await;
        self.storage.descriptors.forget((self.number, segment.sequence()));
        let bytes = segment.end.get().map_or(0, |end| end.position);
        if let Err(failure) = self.unlink(segment.sequence(), bytes).await {
            tracing::warn!(%failure, "a segment below the log start was not removed; the next open removes it");
            return;
        }
        self.storage.metrics().segments_removed.add(1);
    }

    async fn unlink(&self, sequence: u64, bytes: u64) -> Result<(), IoFailure> {
        let path = segment_path(&self.directory, sequence);
        if bytes > SHORTEN_BYTES {
            let file =
                File::open(&path, OpenMode::Write).await.map_err(|error| IoFailure::new("open", &path, error))?;
            let mut length = bytes;
            while length > SHORTEN_BYTES {
                length -= SHORTEN_BYTES;
                let shortened = file.set_length(length.next_multiple_of(4096)).await;
                shortened.map_err(|error| IoFailure::new("shorten", &path, error))?;
                sleep(SHORTEN_PAUSE).await;
            }
        }
        for path in [seal_path(&self.directory, sequence), path] {
            match directory::remove_file(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(IoFailure::new("remove", path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
