//! What happens to a log besides appends and reads: checkpoints, sealing, closing. Background work, serialised by gates.
//!
//! A checkpoint is *taken* from memory at the accepted end, at one instant, and *written* once the log is durable up to there:
//! so producers, epochs and index fit the recovery point exactly, whatever arrives meanwhile. A clean one claims that nothing
//! lies behind it; before the first write after it that claim is taken back, durably. So an idle log costs nothing, and a
//! clean start reads a checkpoint and one block.
//!
//! A failed checkpoint or seal closes no log: the one before still holds, and the next try goes to the same slot.

use std::io;
use std::path::Path;
use std::rc::Rc;

use super::checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, RecoveryPoint};
use super::error::{CloseError, DurabilityError, IoFailure};
use super::format::{checkpoint_path, seal_path, segment_path};
use super::log::{Inner, Log, Phase, State};
use super::seal::{Seal, SegmentIdentity};
use super::segment::{LogPoint, Segment, position_u32};
use crate::runtime::{Buffer, Durability, File, Instant, OpenMode, directory};
use crate::types::limits::BLOCK_BYTES;

impl State {
    /// A checkpoint with its recovery point at the accepted end. Its generation and log start are set when it is written.
    pub(super) fn take_checkpoint(&self) -> Checkpoint {
        let point = self.accepted;
        Checkpoint {
            generation: 0,
            clean: false,
            partition: self.active().header.partition,
            log_start: self.log_start,
            recovery_point: RecoveryPoint {
                sequence: point.sequence,
                position: position_u32(point.position),
                next_offset: point.offset,
            },
            segments: self.segments.iter().map(|segment| segment.summary(point)).collect(),
            epochs: self.epochs.clone(),
            producers: self.producers.clone(),
            active_index: self.active().index.borrow().clone(),
        }
    }
}

/// The recovery point as a point of the log.
pub(super) fn recovery_point(checkpoint: &Checkpoint) -> LogPoint {
    let RecoveryPoint { sequence, position, next_offset } = checkpoint.recovery_point;
    LogPoint { sequence, position: position.into(), offset: next_offset }
}

impl Inner {
    /// Before the first append after a clean checkpoint: takes the one that will say otherwise.
    pub(super) fn note_dirty(&self, state: &mut State) {
        if std::mem::take(&mut state.checkpoint.clean) {
            state.checkpoint.dirty_mark = Some(Box::new(state.take_checkpoint()));
        }
    }

    /// Before the first write after a clean checkpoint: makes it known that it is not clean any more.
    pub(super) async fn write_dirty_mark(&self) -> Result<(), IoFailure> {
        // It stays in its place until it is written: what is appended meanwhile must not take another one.
        let mark = self.state.borrow().checkpoint.dirty_mark.clone();
        let Some(mark) = mark else { return Ok(()) };
        self.write_checkpoint(*mark).await?;
        self.state.borrow_mut().checkpoint.dirty_mark = None;
        Ok(())
    }

    /// Takes a checkpoint, waits until the log is durable up to it, writes it.
    pub(super) async fn checkpoint(&self, clean: bool) -> Result<(), DurabilityError> {
        let (mut checkpoint, appended_bytes) = {
            let state = self.state.borrow();
            (state.take_checkpoint(), state.appended_bytes)
        };
        checkpoint.clean = clean;
        self.durable_up_to(recovery_point(&checkpoint)).await?;
        self.write_checkpoint(checkpoint).await?;
        let mut state = self.state.borrow_mut();
        state.checkpoint.appended_bytes = state.checkpoint.appended_bytes.max(appended_bytes);
        Ok(())
    }

    /// Writes a checkpoint of a log all of which is durable: one that was just made, or recovered.
    pub(super) async fn write_checkpoint_now(&self) -> Result<(), IoFailure> {
        let checkpoint = self.state.borrow().take_checkpoint();
        self.write_checkpoint(checkpoint).await
    }

    /// Writes a checkpoint whose recovery point is durable into the slot that is not the newest. One that is older than the
    /// newest is dropped.
    async fn write_checkpoint(&self, mut checkpoint: Checkpoint) -> Result<(), IoFailure> {
        let _passage = self.slot_gate.pass().await;
        let point = recovery_point(&checkpoint);
        let (settled, generation) = {
            let last = &self.state.borrow().checkpoint;
            (last.settled, last.generation)
        };
        if !settled {
            settle_checkpoint(&self.directory, generation).await?;
            self.state.borrow_mut().checkpoint.settled = true;
        }
        let bytes = {
            let state = self.state.borrow();
            assert!(point <= state.durable, "a checkpoint claims no more than what is durable");
            if point < state.checkpoint.point || matches!(state.phase, Phase::Closed) {
                return Ok(());
            }
            // What retention has taken since is gone from disk, or about to be.
            let first = state.segments.front().map_or(0, |segment| segment.sequence());
            checkpoint.segments.retain(|segment| segment.sequence >= first);
            checkpoint.log_start = state.log_start;
            checkpoint.generation = state.checkpoint.generation + 1;
            checkpoint.encode(self.storage.uptime())
        };
        let slot = Checkpoint::slot(checkpoint.generation);
        let named = self.state.borrow().checkpoint.named[slot];
        write_whole(&checkpoint_path(&self.directory, slot), &bytes).await?;
        if !named {
            sync_names(&self.directory).await?;
        }
        self.storage.metrics().checkpoints.add(1);
        let mut state = self.state.borrow_mut();
        let last = &mut state.checkpoint;
        last.generation = checkpoint.generation;
        last.named[slot] = true;
        last.point = point;
        last.log_start = checkpoint.log_start;
        last.at = Instant::now();
        last.clean = checkpoint.clean;
        Ok(())
    }

    /// Writes the seal of a segment that has ended, cuts off the space behind its end, and lets go of its index.
    pub(super) async fn seal(self: Rc<Self>, segment: Rc<Segment>) {
        let _passage = self.lifecycle_gate.pass().await;
        {
            let state = self.state.borrow();
            let in_log = state.segment(segment.sequence()).is_some();
            if segment.sealed.get() || !in_log || matches!(state.phase, Phase::Closed) {
                return;
            }
        }
        if let Err(failure) = self.write_seal(&segment).await {
            tracing::warn!(%failure, "a segment was not sealed, it will be tried again");
        }
    }

    async fn write_seal(&self, segment: &Segment) -> Result<(), IoFailure> {
        let end = segment.end.get().expect("it has ended");
        let bytes = {
            let index = segment.index.borrow();
            let at_end = segment.at_end.borrow();
            let (Some(index), Some(at_end)) = (index.as_ref(), at_end.as_ref()) else { return Ok(()) };
            let (epochs, producers) = (**at_end).clone();
            let identity = SegmentIdentity {
                partition: self.partition,
                sequence: segment.sequence(),
                base_offset: segment.base_offset(),
                next_offset: end.offset,
                bytes: position_u32(end.position),
            };
            let seal = Seal { segment: identity, index: index.clone(), epochs, aborted: Vec::new(), producers };
            seal.encode(self.storage.uptime())
        };
        let path = seal_path(&self.directory, segment.sequence());
        directory::replace(&path, &bytes).await.map_err(|error| IoFailure::new("write", &path, error))?;
        let path = segment_path(&self.directory, segment.sequence());
        let shortened = shorten(&path, end.position.next_multiple_of(BLOCK_BYTES as u64)).await;
        shortened.map_err(|error| IoFailure::new("shorten", &path, error))?;
        segment.sealed.set(true);
        self.storage.descriptors.forget((self.number, segment.sequence()));
        *segment.index.borrow_mut() = None;
        *segment.at_end.borrow_mut() = None;
        Ok(())
    }

    /// Seals what an earlier try has left.
    async fn seal_leftovers(self: &Rc<Self>) {
        let left: Vec<_> = {
            let state = self.state.borrow();
            // The segment that the writer stands in is still zeroed and read as one that is written.
            let left = state.segments.iter().filter(|segment| segment.sequence() < state.written.sequence);
            let ended = left.filter(|segment| !segment.sealed.get());
            ended.filter(|segment| segment.end.get().is_some_and(|end| end <= state.durable)).cloned().collect()
        };
        for segment in left {
            self.clone().seal(segment).await;
        }
    }
}

/// Makes durable the checkpoint of `generation`, which was read but not written by this process, and the names beside it. The
/// bytes are written again: a sync that failed for the process before may have left pages that no later sync writes.
pub(super) async fn settle_checkpoint(directory: &Path, generation: u64) -> Result<(), IoFailure> {
    let path = checkpoint_path(directory, Checkpoint::slot(generation));
    let read = directory::read(&path, CHECKPOINT_BYTES_MAX).await;
    let mut bytes = read.map_err(|error| IoFailure::new("read", &path, error))?;
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    write_whole(&path, &bytes).await?;
    sync_names(directory).await
}

async fn sync_names(directory: &Path) -> Result<(), IoFailure> {
    directory::sync(directory).await.map_err(|error| IoFailure::new("sync", directory, error))
}

/// Cuts a file to `bytes` if it is longer.
async fn shorten(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::open(path, OpenMode::Write).await?;
    if file.length().await? > bytes {
        file.set_length(bytes).await?;
    }
    Ok(())
}

/// Writes `bytes`, whole blocks, over the front of the file, which is made if need be, and makes them durable. The name of the
/// file may be not.
async fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), IoFailure> {
    let failed = |operation| move |error| IoFailure::new(operation, path, error);
    let file = match File::open(path, OpenMode::Write).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            File::open(path, OpenMode::Create).await.map_err(failed("create"))?
        }
        opened => opened.map_err(failed("open"))?,
    };
    let mut buffer = Buffer::with_capacity(bytes.len());
    buffer.append(bytes);
    let (written, _) = file.write_at(0, vec![buffer.freeze()], Durability::Written).await;
    written.map_err(failed("write"))?;
    file.sync().await.map_err(failed("sync"))
}

impl Log {
    /// Writes a checkpoint if the log has grown and one is due by bytes or by time, and seals what a failure had left. To be
    /// called for the logs that [`super::Storage::take_checkpoint_due`] gives, by one task of the shard.
    ///
    /// # Errors
    /// The checkpoint before is still good then, and the next call tries again.
    pub async fn checkpoint_if_due(&self) -> Result<(), DurabilityError> {
        let due = {
            let state = self.0.state.borrow();
            let last = &state.checkpoint;
            let usable = matches!(state.phase, Phase::Open) && !state.closing;
            let grown = state.accepted > last.point;
            let bytes = state.appended_bytes - last.appended_bytes;
            let age = Instant::now().since(last.at);
            usable && grown && (bytes >= state.options.checkpoint_bytes || age >= state.options.checkpoint_interval)
        };
        let done = if due {
            self.0.seal_leftovers().await;
            self.0.checkpoint(false).await
        } else {
            Ok(())
        };
        self.0.note_checkpoint();
        done
    }

    /// Closes the log: takes no more appends, makes durable what was accepted, and writes a clean checkpoint, so that the
    /// next open scans nothing. When it returns, nothing of the log touches the disk any more, also after an error.
    ///
    /// # Errors
    /// If the log has failed, or fails now: the next open recovers it.
    pub async fn close(self) -> Result<(), CloseError> {
        let inner = &self.0;
        inner.state.borrow_mut().closing = true;
        inner.work.notify();
        let closed = self.drain().await;
        let writer = {
            let mut state = inner.state.borrow_mut();
            if let Phase::Failed(_) = std::mem::replace(&mut state.phase, Phase::Closed) {
                inner.storage.metrics().failed_logs.subtract(1);
            }
            state.waiters.clear();
            state.writer.take()
        };
        inner.work.notify();
        inner.zeroed.notify();
        if let Some(writer) = writer {
            writer.await;
        }
        while inner.state.borrow_mut().space.is_busy() {
            inner.zeroed.notified().await;
        }
        // Whoever held a gate has gone; whoever comes now finds the log closed.
        drop(inner.ready_gate.pass().await);
        drop(inner.lifecycle_gate.pass().await);
        drop(inner.slot_gate.pass().await);
        inner.storage.descriptors.forget_log(inner.number);
        closed
    }

    async fn drain(&self) -> Result<(), CloseError> {
        let inner = &self.0;
        self.flush().await?;
        inner.seal_leftovers().await;
        let _passage = inner.lifecycle_gate.pass().await;
        let is_clean = {
            let state = inner.state.borrow();
            state.checkpoint.clean && state.checkpoint.point == state.accepted
        };
        if !is_clean {
            inner.checkpoint(true).await?;
        }
        Ok(())
    }
}
