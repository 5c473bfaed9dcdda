//! The stages of a produce and of a fetch by themselves: the functions that the broker calls, on a shard with a real log, and
//! no socket.
//!
//! As many batches as a connection keeps in flight are validated, then appended, then waited for until they are committed.
//! Validating and appending is CPU time of the thread between two looks at its clock. Writing is what is left of the CPU
//! time of the process: the log's writer, the kernel's part of its writes and syncs, zeroing ahead, wake-ups. It is one write
//! per group, while a broker's groups depend on how requests and writes fall together.

use std::io;
use std::path::PathBuf;

use bench::broker::{open_partition, other};
use bench::requests::Shape;
use corelane::partition::Partition;
use corelane::record::{Decompressors, validate_produce};
use corelane::runtime::{Duration, Instant, real, wall_clock};
use corelane::storage::Storage;
use corelane::types::Offset;

use crate::serving::cpu_nanos;

/// Reads between two looks at the clock: one is too short to be seen.
const READS: u64 = 64;

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The batches.
    pub(crate) shape: Shape,
    /// Batches that are appended before the log is waited for.
    pub(crate) group: usize,
    /// The topic's durability.
    pub(crate) write_caching: bool,
    /// How long, after a tenth of it to warm up.
    pub(crate) time: Duration,
    /// An empty directory.
    pub(crate) directory: PathBuf,
}

/// Nanoseconds of CPU per batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stages {
    /// CRC and validation of every record.
    pub(crate) validate: f64,
    /// The copy into the append buffer, index and bookkeeping.
    pub(crate) append: f64,
    /// Until it is committed.
    pub(crate) write: f64,
    /// Finding and sharing it in the append buffers.
    pub(crate) read: f64,
}

/// CPU times in nanoseconds, and the batches that they are for.
#[derive(Clone, Copy, Default)]
struct Sums {
    batches: u64,
    validate: u64,
    append: u64,
}

/// Measures on a shard of its own, on the calling thread.
pub(crate) fn measure(subject: &Subject) -> io::Result<Stages> {
    let subject = subject.clone();
    real::run(&real::Options::default(), async move { measure_here(&subject).await }).map_err(io::Error::other)?
}

async fn measure_here(subject: &Subject) -> io::Result<Stages> {
    let (storage, partition) = open_partition(&subject.directory, subject.write_caching).await?;
    let batch = subject.shape.batch(wall_clock())?;
    let process = std::process::id();
    produce(&partition, &storage, &batch, subject.group, subject.time / 10).await?;
    let before = cpu_nanos(process)?;
    let sums = produce(&partition, &storage, &batch, subject.group, subject.time).await?;
    let all = cpu_nanos(process)? - before;
    let read = read(&partition, batch.len(), subject.time / 4).await?;
    let per_batch = |nanos: u64| nanos as f64 / sums.batches as f64;
    let write = per_batch(all.saturating_sub(sums.validate + sums.append));
    Ok(Stages { validate: per_batch(sums.validate), append: per_batch(sums.append), write, read })
}

/// Appends groups of the batch for `time`.
async fn produce(
    partition: &Partition,
    storage: &Storage,
    batch: &[u8],
    group: usize,
    time: Duration,
) -> io::Result<Sums> {
    let (rules, mut decompressors) = (partition.produce_rules(), Decompressors::new());
    let mut sums = Sums::default();
    let mut validated = Vec::with_capacity(group);
    let end = Instant::now().plus(time);
    while Instant::now() < end {
        let begin = real::thread_cpu_nanos();
        for _ in 0..group {
            let batch = validate_produce(batch, wall_clock(), &rules, &mut decompressors);
            validated.push(batch.map_err(io::Error::other)?);
        }
        let middle = real::thread_cpu_nanos();
        let mut log_end = Offset::ZERO;
        for batch in validated.drain(..) {
            log_end = match partition.append(&batch) {
                Ok(appended) => appended.end,
                Err(error) => return Err(io::Error::other(error)),
            };
        }
        sums.append += real::thread_cpu_nanos() - middle;
        sums.validate += middle - begin;
        sums.batches += group as u64;
        partition.committed(log_end).await.map_err(io::Error::other)?;
        if storage.is_disk_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
    }
    Ok(sums)
}

/// Nanoseconds of CPU per read of the log's last batch, which lies in the append buffers.
async fn read(partition: &Partition, bytes: usize, time: Duration) -> io::Result<f64> {
    let last = partition.high_watermark().previous().ok_or(io::ErrorKind::UnexpectedEof)?;
    let (mut nanos, mut reads) = (0, 0);
    let end = Instant::now().plus(time);
    while Instant::now() < end {
        let begin = real::thread_cpu_nanos();
        for _ in 0..READS {
            let batches = partition.read(last, bytes, true).await.map_err(other)?;
            assert_eq!(batches.bytes, bytes, "a batch is read whole");
        }
        nanos += real::thread_cpu_nanos() - begin;
        reads += READS;
    }
    Ok(nanos as f64 / reads as f64)
}
