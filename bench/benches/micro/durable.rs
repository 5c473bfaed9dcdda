//! Ways of making small appends durable: 4 KiB each, one under way per file, by the wall clock.
//!
//! | way | what an append is |
//! |---|---|
//! | `write_sync` | a write that extends the file, then a sync of the file |
//! | `prewritten` | one write with RWF_DSYNC onto blocks that were written and synced before; what the broker's log does |
//! | `journal` | a place in the next durable write of one file that all share; what it costs to copy it home later is not in it |
//!
//! The time is per append, so its inverse is appends per second of all files together. Measured through the runtime's files,
//! which are opened with O_DIRECT: it says nothing of a file system that has none.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use corelane::runtime::sync::{Notify, Sender, oneshot};
use corelane::runtime::{Buffer, Class, Durability, File, Instant, OpenMode, Slice, directory, spawn};
use corelane::types::limits::BLOCK_BYTES;
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::shards::{on_shard, scaled};

const FILES: [u64; 4] = [1, 16, 64, 256];

/// Blocks of a file that are written before; appends go round in them.
const PREWRITTEN_BLOCKS: u64 = 16;

/// Appends of a file in one sample at least: the files have to be made for each.
const APPENDS_MIN: u64 = 16;

const BLOCK: u64 = BLOCK_BYTES as u64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    WriteSync,
    Prewritten,
    Journal,
}

pub(crate) fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    for (way, name) in [(Way::WriteSync, "write_sync"), (Way::Prewritten, "prewritten"), (Way::Journal, "journal")] {
        for files in FILES {
            group.bench_function(BenchmarkId::new(name, files), |bencher| {
                bencher.iter_custom(|count| {
                    let scratch = crate::scratch();
                    let directory = scratch.path().to_owned();
                    on_shard(async move { appends(way, &directory, files, count).await })
                });
            });
        }
    }
    group.finish();
}

/// Time of `count` durable appends to so many files, all at once.
async fn appends(way: Way, directory: &Path, files: u64, count: u64) -> io::Result<Duration> {
    let each = count.div_ceil(files).max(APPENDS_MIN);
    let mut block = Buffer::with_capacity(BLOCK_BYTES);
    block.append(&[b'x'; BLOCK_BYTES]);
    let block = block.freeze();
    let journal = match way {
        // Twice the blocks of its longest write.
        Way::Journal => Some(Journal::start(create(directory, "journal", 2 * files, &block).await?, 2 * files)),
        _ => None,
    };
    let mut appenders = Vec::new();
    for number in 0..files {
        let blocks = if way == Way::Prewritten { PREWRITTEN_BLOCKS } else { 0 };
        let file = create(directory, &number.to_string(), blocks, &block).await?;
        appenders.push(Appender { file, block: block.clone(), journal: journal.clone() });
    }
    directory::sync(directory).await?;
    let begin = Instant::now();
    let append = |appender: Appender| spawn(Class::Produce, async move { appender.append(way, each).await });
    let tasks: Vec<_> = appenders.into_iter().map(append).collect();
    for task in tasks {
        task.await?;
    }
    let time = Instant::now().since(begin);
    if let Some(journal) = journal {
        journal.end();
    }
    Ok(scaled(time, each * files, count))
}

/// A new file whose first `blocks` blocks are written and durable.
async fn create(directory: &Path, name: &str, blocks: u64, block: &Slice) -> io::Result<File> {
    let file = File::open(&directory.join(name), OpenMode::Create).await?;
    for number in 0..blocks {
        file.write_at(number * BLOCK, vec![block.clone()], Durability::Written).await.0?;
    }
    file.sync().await?;
    Ok(file)
}

/// One file, and who appends to it.
struct Appender {
    file: File,
    block: Slice,
    journal: Option<Rc<Journal>>,
}

impl Appender {
    async fn append(&self, way: Way, count: u64) -> io::Result<()> {
        for number in 0..count {
            let pieces = vec![self.block.clone()];
            match way {
                Way::WriteSync => {
                    self.file.write_at(number * BLOCK, pieces, Durability::Written).await.0?;
                    self.file.sync().await?;
                }
                Way::Prewritten => {
                    let position = number % PREWRITTEN_BLOCKS * BLOCK;
                    self.file.write_at(position, pieces, Durability::Durable).await.0?;
                }
                Way::Journal => {
                    let journal = self.journal.as_ref().expect("this way has one");
                    let written = journal.append(self.block.clone()).await;
                    written.ok_or_else(|| io::Error::other("a write of the journal failed"))?;
                }
            }
        }
        Ok(())
    }
}

/// A file that all append to: what comes during a write is the next write.
#[derive(Default)]
struct Journal {
    waiting: RefCell<Vec<(Slice, Sender<()>)>>,
    has_ended: Cell<bool>,
    work: Notify,
}

impl Journal {
    /// Starts to write to `file`, round in its first `blocks` blocks.
    fn start(file: File, blocks: u64) -> Rc<Journal> {
        let journal = Rc::new(Journal::default());
        spawn(Class::Produce, journal.clone().write(file, blocks));
        journal
    }

    fn end(&self) {
        self.has_ended.set(true);
        self.work.notify();
    }

    /// Waits until `block` is durable; `None` if it will not be.
    async fn append(&self, block: Slice) -> Option<()> {
        if self.has_ended.get() {
            return None;
        }
        let (sender, written) = oneshot();
        self.waiting.borrow_mut().push((block, sender));
        self.work.notify();
        written.await
    }

    async fn write(self: Rc<Self>, file: File, blocks: u64) {
        let mut next = 0;
        while !self.has_ended.get() {
            let (pieces, senders): (Vec<_>, Vec<_>) = self.waiting.take().into_iter().unzip();
            let count = pieces.len() as u64;
            if count == 0 {
                self.work.notified().await;
                continue;
            }
            let first = if next + count > blocks { 0 } else { next };
            if file.write_at(first * BLOCK, pieces, Durability::Durable).await.0.is_err() {
                // Dropping the senders tells all who wait.
                self.end();
                self.waiting.take();
                return;
            }
            next = first + count;
            senders.into_iter().for_each(|sender| sender.send(()));
        }
    }
}
