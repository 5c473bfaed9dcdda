//! What the disk below a folder does with the writes of a log: small direct ones, large direct ones, small durable ones.
//!
//! All go to one file whose blocks were written before, one write at a time, past the page cache. The file loses its name
//! before the first write, so that nothing stays behind whatever happens. The space it takes is given back at the end.
//!
//! Sources: open(2), O_DIRECT and O_DSYNC: the buffer, the offset and the length are multiples of the block size.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::fs::{OFlags, fstatfs, fstatvfs};
use rustix::io::Errno;

use super::report::{Limit, Probe, Verdict};
use crate::machine::now;
use crate::result::{LATENCY_US_MAX, latency_histogram};

/// Microseconds of a 4 KiB write into the device's hands.
const DIRECT_P99: Limit = Limit::Most { good: 2_000.0, doubtful: 50_000.0 };
/// MB (10⁶ bytes) per second in writes of 1 MiB.
const LARGE: Limit = Limit::Least { good: 100.0, doubtful: 20.0 };
/// Microseconds of a 4 KiB write that is on stable storage. A turning disk is doubtful, a stalling one bad.
const DURABLE_P99: Limit = Limit::Most { good: 10_000.0, doubtful: 200_000.0 };
/// GiB that are free: a minute of a fast run.
const FREE_GIB: Limit = Limit::Least { good: 10.0, doubtful: 1.0 };

/// A block of every disk that is in use.
const BLOCK_BYTES: usize = 4 << 10;
/// A large write.
const LARGE_BYTES: usize = 1 << 20;
/// What is written over and over: enough that a device does not see one block all the time.
const FILE_BYTES: usize = 16 << 20;
/// How long each kind of write is measured.
const MEASURED: Duration = Duration::from_millis(700);
/// How long the blocks may take to be written for the first time; a slower disk gets a smaller file.
const PREPARING_MAX: Duration = Duration::from_secs(2);

/// File systems that keep files in memory, by their number in `linux/magic.h`.
const IN_MEMORY: [(u32, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

const GIB: f64 = (1 << 30) as f64;

/// What cannot be done in the folder.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} in {directory}: {source}")]
pub(super) struct DiskError {
    what: &'static str,
    directory: PathBuf,
    source: io::Error,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct DiskReading {
    free_bytes: u64,
    /// The name of the file system, if it keeps files in memory.
    in_memory: Option<&'static str>,
    direct: Writes,
    large: Writes,
    durable: Writes,
}

/// Writes of one kind.
#[derive(Clone, Debug)]
struct Writes {
    /// Microseconds of each.
    took: Histogram<u64>,
    /// How many per second.
    rate: f64,
}

impl DiskReading {
    /// Measures in `directory`.
    pub(super) fn measure(directory: &Path) -> Result<DiskReading, DiskError> {
        let failed = |what| move |source| DiskError { what, directory: directory.to_owned(), source };
        let path = directory.join(format!(".loadgen-doctor-{}", std::process::id()));
        let direct = open(&path, OFlags::DIRECT, true).map_err(failed("open a file with O_DIRECT"))?;
        let durable = open(&path, OFlags::DIRECT | OFlags::DSYNC, false);
        fs::remove_file(&path).map_err(failed("remove a file"))?;
        let durable = durable.map_err(failed("open a file with O_DSYNC"))?;
        let looked = |error: Errno| failed("look at the file system")(error.into());
        let space = fstatvfs(&direct).map_err(looked)?;
        let kind = fstatfs(&direct).map_err(looked)?.f_type;
        let mut buffer = Buffer::new();
        let bytes = prepare(&direct, &mut buffer).map_err(failed("write with O_DIRECT"))?;
        let write = |file, length| overwrite(file, buffer.first(length), bytes);
        Ok(DiskReading {
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            // The number is 32 bits in a field whose width is the architecture's.
            in_memory: IN_MEMORY.iter().find(|(number, _)| kind as u32 == *number).map(|(_, name)| *name),
            direct: write(&direct, BLOCK_BYTES).map_err(failed("write with O_DIRECT"))?,
            large: write(&direct, LARGE_BYTES).map_err(failed("write with O_DIRECT"))?,
            durable: write(&durable, BLOCK_BYTES).map_err(failed("write with O_DSYNC"))?,
        })
    }

    /// The verdicts.
    pub(super) fn probes(reading: Result<DiskReading, DiskError>) -> Vec<Probe> {
        let space = Probe::new("disk space", "a full disk ends a run; free some, or name another folder");
        let direct = Probe::new(
            "direct writes",
            "the log is written past the page cache, and nothing hides a slow disk; see what else writes to it",
        );
        let durable = Probe::new(
            "durable writes",
            "each acknowledgement waits for one; a slow disk is all that would be measured, and memory is no storage",
        );
        let DiskReading { free_bytes, in_memory, direct: small, large, durable: safe } = match reading {
            Ok(reading) => reading,
            Err(error) => return vec![direct.failed(&error)],
        };
        let micros = |writes: &Writes, quantile| writes.took.value_at_quantile(quantile) as f64;
        let direct = direct
            .noted(("4 KiB", "/s"), small.rate)
            .noted(("p50", "µs"), micros(&small, 0.5))
            .figure(("p99", "µs"), micros(&small, 0.99), DIRECT_P99)
            .figure(("1 MiB", "MB/s"), large.rate * LARGE_BYTES as f64 / 1e6, LARGE);
        let durable = durable.noted(("4 KiB", "/s"), safe.rate).noted(("p50", "µs"), micros(&safe, 0.5)).figure(
            ("p99", "µs"),
            micros(&safe, 0.99),
            DURABLE_P99,
        );
        let durable = match in_memory {
            Some(name) => durable.stated(&format!("on {name}"), Verdict::Bad, "on a disk"),
            None => durable,
        };
        vec![space.figure(("free", "GiB"), free_bytes as f64 / GIB, FREE_GIB), direct, durable]
    }
}

fn open(path: &Path, flags: OFlags, new: bool) -> io::Result<File> {
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    OpenOptions::new().write(true).create_new(new).custom_flags(flags).open(path)
}

/// Writes the file's blocks for the first time and returns how many bytes there are: a multiple of a large write.
fn prepare(file: &File, buffer: &mut Buffer) -> io::Result<usize> {
    let began = now();
    let mut bytes = 0;
    while bytes == 0 || bytes < FILE_BYTES && now().saturating_duration_since(began) < PREPARING_MAX {
        file.write_all_at(buffer.first(LARGE_BYTES), bytes as u64)?;
        bytes += LARGE_BYTES;
    }
    file.sync_all()?;
    Ok(bytes)
}

/// Writes `block` over the first `bytes` of the file, from its head to its end and again.
fn overwrite(file: &File, block: &[u8], bytes: usize) -> io::Result<Writes> {
    let mut took = latency_histogram();
    let mut at = 0;
    let began = now();
    let mut issued = began;
    while issued.saturating_duration_since(began) < MEASURED {
        file.write_all_at(block, at as u64)?;
        let done = now();
        let micros = u64::try_from(done.saturating_duration_since(issued).as_micros()).unwrap_or(u64::MAX);
        took.saturating_record(micros.min(LATENCY_US_MAX));
        issued = done;
        at = (at + block.len()) % bytes;
    }
    let rate = took.len() as f64 / issued.saturating_duration_since(began).as_secs_f64();
    Ok(Writes { took, rate })
}

/// A large write's bytes, at an address that is a multiple of a block.
struct Buffer {
    bytes: Vec<u8>,
    aligned: usize,
}

impl Buffer {
    fn new() -> Buffer {
        let bytes = vec![0x5a; LARGE_BYTES + BLOCK_BYTES];
        let aligned = bytes.as_ptr().align_offset(BLOCK_BYTES);
        assert!(aligned < BLOCK_BYTES, "every address is less than a block away from an aligned one");
        Buffer { bytes, aligned }
    }

    fn first(&self, length: usize) -> &[u8] {
        &self.bytes[self.aligned..][..length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(micros: u64, rate: f64) -> Writes {
        let mut took = latency_histogram();
        took.record_n(micros, 100).unwrap();
        Writes { took, rate }
    }

    fn fast() -> DiskReading {
        let direct = writes(80, 12_000.0);
        DiskReading {
            free_bytes: 50 << 30,
            in_memory: None,
            large: writes(800, 1_200.0),
            durable: writes(300, 3_000.0),
            direct,
        }
    }

    fn verdict(reading: DiskReading, name: &str) -> Verdict {
        DiskReading::probes(Ok(reading)).into_iter().find(|probe| probe.name == name).expect("a probe").verdict
    }

    #[test]
    fn each_kind_of_write_has_its_verdict() {
        for probe in DiskReading::probes(Ok(fast())) {
            assert_eq!(probe.verdict, Verdict::Good, "{probe:?}");
        }
        let rows = [
            ("disk space", DiskReading { free_bytes: 5 << 30, ..fast() }, Verdict::Doubtful),
            ("disk space", DiskReading { free_bytes: 1 << 20, ..fast() }, Verdict::Bad),
            ("direct writes", DiskReading { direct: writes(9_000, 100.0), ..fast() }, Verdict::Doubtful),
            ("direct writes", DiskReading { large: writes(100_000, 10.0), ..fast() }, Verdict::Bad),
            ("durable writes", DiskReading { durable: writes(12_000, 80.0), ..fast() }, Verdict::Doubtful),
            ("durable writes", DiskReading { durable: writes(300_000, 3.0), ..fast() }, Verdict::Bad),
            ("durable writes", DiskReading { in_memory: Some("tmpfs"), ..fast() }, Verdict::Bad),
        ];
        for (name, reading, expected) in rows {
            assert_eq!(verdict(reading.clone(), name), expected, "{name} {reading:?}");
        }
    }

    #[test]
    fn a_folder_is_measured_and_left_as_it_was() {
        let beside = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(beside.parent().unwrap()).unwrap();
        let reading = DiskReading::measure(directory.path()).unwrap();
        assert!(reading.free_bytes > 0 && reading.in_memory.is_none());
        for writes in [&reading.direct, &reading.large, &reading.durable] {
            assert!(writes.rate > 0.0 && !writes.took.is_empty(), "{writes:?}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_bad() {
        let error = DiskReading::measure(Path::new("/proc/nowhere")).unwrap_err();
        let probes = DiskReading::probes(Err(error));
        assert_eq!((probes.len(), probes[0].verdict), (1, Verdict::Bad));
        assert!(probes[0].measured.contains("/proc/nowhere"), "{}", probes[0].measured);
    }

    #[test]
    fn files_in_memory_are_known() {
        if !Path::new("/dev/shm").exists() {
            return;
        }
        // Older kernels have no direct writes there, which is bad as well.
        match DiskReading::measure(Path::new("/dev/shm")) {
            Ok(reading) => assert_eq!(verdict(reading, "durable writes"), Verdict::Bad),
            Err(error) => assert_eq!(DiskReading::probes(Err(error))[0].verdict, Verdict::Bad),
        }
    }
}
