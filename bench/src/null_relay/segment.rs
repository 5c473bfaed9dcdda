//! The segment files of a lane: appended to in whole blocks, rolled, removed.
//!
//! They are laid out and written as those of the broker's log are: a header block (empty here), frames one behind the other, a
//! partial last block that is written again by the next write, zeros behind every write. How a write becomes durable is decided
//! by the broker's own [`CommitScheduler`]; in class C the space ahead of small writes is zeroed in pieces and synced, in steps
//! as long as those of a busy log. Files beyond the number that may be there are removed, the oldest first.
//!
//! What it does without: the seal and the checkpoints of a log, the next segment prepared before it is needed, the pace of
//! zeroing, and in class B the flush that follows the acknowledgement.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use corelane::runtime::sync::Notify;
use corelane::runtime::{Buffer, Class, Durability, File, OpenMode, Slice, directory, spawn};
use corelane::storage::commit::{CommitScheduler, DirectCommits, LARGE_COMMIT_BYTES, Pending};
use corelane::storage::format::{FIRST_BATCH_AT, segment_path};
use corelane::types::limits::{BLOCK_BYTES, ZERO_TAIL_BYTES};

use super::tail::Run;

/// Bytes that are zeroed by one write, as in the broker's log.
const ZERO_PIECE_BYTES: usize = 256 << 10;
/// Bytes that are zeroed ahead at a time: a step of a busy log.
const STEP_BYTES: u64 = 4 << 20;

/// What is true of a frame when it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Durable {
    /// Written with O_DIRECT, not flushed
    #[value(name = "B")]
    No,
    /// Flushed: onto zeroed blocks with RWF_DSYNC, and large writes past them with a sync
    #[value(name = "C")]
    Yes,
}

/// How far the active segment is zeroed; shared with the task that does it.
#[derive(Default)]
struct Zeroed {
    end: Cell<u64>,
    is_busy: Cell<bool>,
    failure: RefCell<Option<io::Error>>,
    finished: Notify,
}

/// The segments of one lane.
pub(crate) struct Segments {
    directory: PathBuf,
    durable: Durable,
    /// Files that may be there at most.
    files_max: usize,
    zeros: Slice,
    active: Option<File>,
    /// Numbers of the files that are there, the active one last.
    numbers: VecDeque<u64>,
    zeroed: Rc<Zeroed>,
}

impl Segments {
    /// Makes `directory`, with nothing in it.
    pub(crate) async fn create(directory: PathBuf, durable: Durable, files_max: usize) -> io::Result<Segments> {
        assert!(files_max > 0);
        directory::create(&directory).await?;
        let mut zeros = Buffer::with_capacity(ZERO_PIECE_BYTES);
        zeros.append_zeros(ZERO_PIECE_BYTES);
        let zeros = zeros.freeze();
        let (numbers, zeroed) = (VecDeque::new(), Rc::default());
        Ok(Segments { directory, durable, files_max, zeros, active: None, numbers, zeroed })
    }

    /// Writes a run. When it returns, what [`Durable`] says is true.
    pub(crate) async fn write(&mut self, run: &Run) -> io::Result<()> {
        let file = match &self.active {
            Some(file) if self.numbers.back() == Some(&run.segment) => file.clone(),
            _ => self.enter(run.segment).await?,
        };
        let pieces = self.pieces(&run.bytes);
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let (from, to) = (run.position, run.position + bytes);
        if to > self.zeroed.end.get() {
            // Two writes to one place would race.
            self.zeroing_ended().await?;
        }
        let plan = DirectCommits.plan(&Pending {
            from,
            to,
            prewritten_end: self.zeroed.end.get(),
            unsynced_bytes: 0,
            write_caching: self.durable == Durable::No,
        });
        file.write_at(from, pieces, plan.durability).await.0?;
        if plan.sync_after {
            file.sync().await?;
        }
        if self.durable == Durable::Yes {
            self.zero_ahead(&file, to, bytes);
        }
        Ok(())
    }

    /// The blocks that hold `bytes`. The last one goes out as a copy, since it may be received into meanwhile.
    fn pieces(&self, bytes: &Slice) -> Vec<Slice> {
        let partial = bytes.len() % BLOCK_BYTES;
        let whole = bytes.len() - partial;
        let mut pieces = Vec::with_capacity(3);
        if whole > 0 {
            pieces.push(bytes.slice(0..whole));
        }
        if partial > 0 {
            let mut last = Buffer::with_capacity(BLOCK_BYTES);
            last.append(&bytes[whole..]);
            last.append_zeros(BLOCK_BYTES - partial);
            pieces.push(last.freeze());
        }
        if partial == 0 || BLOCK_BYTES - partial < ZERO_TAIL_BYTES {
            pieces.push(self.zeros.slice(0..BLOCK_BYTES));
        }
        pieces
    }

    /// Makes the file of segment `number` and goes on there.
    async fn enter(&mut self, number: u64) -> io::Result<File> {
        self.zeroing_ended().await?;
        let file = File::open(&segment_path(&self.directory, number), OpenMode::Create).await?;
        let zeroed_end = match self.durable {
            Durable::No => FIRST_BATCH_AT,
            Durable::Yes => FIRST_BATCH_AT + STEP_BYTES,
        };
        zero(&file, &self.zeros, 0, zeroed_end).await?;
        directory::sync(&self.directory).await?;
        self.zeroed.end.set(zeroed_end);
        self.numbers.push_back(number);
        self.active = Some(file.clone());
        while self.numbers.len() > self.files_max {
            self.remove_oldest().await?;
        }
        Ok(file)
    }

    async fn remove_oldest(&mut self) -> io::Result<()> {
        let Some(number) = self.numbers.pop_front() else { return Ok(()) };
        directory::remove_file(&segment_path(&self.directory, number)).await
    }

    /// After a write of `bytes` bytes up to `end`: starts the next step if it is due.
    fn zero_ahead(&self, file: &File, end: u64, bytes: u64) {
        let zeroed = &self.zeroed;
        let from = zeroed.end.get().max(end);
        let ahead = from - end;
        if zeroed.is_busy.get() {
            return;
        }
        zeroed.end.set(from);
        if bytes >= LARGE_COMMIT_BYTES || ahead >= STEP_BYTES / 2 {
            return;
        }
        zeroed.is_busy.set(true);
        let (zeroed, file, zeros) = (zeroed.clone(), file.clone(), self.zeros.clone());
        spawn(Class::Background, async move {
            match zero(&file, &zeros, from, STEP_BYTES).await {
                Ok(()) => zeroed.end.set(from + STEP_BYTES),
                Err(error) => drop(zeroed.failure.replace(Some(error))),
            }
            zeroed.is_busy.set(false);
            zeroed.finished.notify();
        });
    }

    async fn zeroing_ended(&self) -> io::Result<()> {
        while self.zeroed.is_busy.get() {
            self.zeroed.finished.notified().await;
        }
        self.zeroed.failure.take().map_or(Ok(()), Err)
    }

    /// Removes all files and the directory.
    pub(crate) async fn remove(mut self) -> io::Result<()> {
        self.zeroing_ended().await?;
        self.active = None;
        while !self.numbers.is_empty() {
            self.remove_oldest().await?;
        }
        directory::remove(&self.directory).await
    }
}

/// Allocates and zeroes `bytes` bytes at `position`, whole blocks, and makes that durable.
async fn zero(file: &File, zeros: &Slice, position: u64, bytes: u64) -> io::Result<()> {
    file.allocate(position, bytes).await?;
    let (mut at, end) = (position, position + bytes);
    while at < end {
        let piece = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_at(at, vec![zeros.slice(0..piece)], Durability::Written).await.0?;
        at += piece as u64;
    }
    file.sync().await
}
