//! What the kernel tells: the machine that a run was made on, and what a process has used so far.
//!
//! A reading of a process is a snapshot of counters that only grow; what was used meanwhile is [`ProcessUsage::since`], which
//! refuses two readings of different processes under one pid. The workers of io_uring are threads of their process, so
//! they are in every figure. Nothing here is kept up to date, and nothing is guessed: what cannot be read is an error.
//!
//! Sources: proc(5), sections /proc/pid/stat, status, io and /proc/cpuinfo, meminfo; clock_gettime(2) for this process's own
//! time, because the ticks of /proc are 10 ms long.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::result::Machine;

/// A file of the kernel that cannot be read, or does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// The system refused.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has another form than proc(5) gives.
    #[error("{path} has no {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
    },
}

/// Why a process cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such process, or it has ended and only waits to be reaped, or its pid belongs to another one now.
    #[error("process {0} is gone")]
    Vanished(u32),
    /// It is there, but does not tell.
    #[error(transparent)]
    Proc(#[from] ProcError),
}

/// The clock of the threads beside the shards, where the runtime's clock is not.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What this runs on.
pub fn describe() -> Result<Machine, ProcError> {
    let system = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let cpuinfo = ProcFile::read("/proc/cpuinfo")?;
    Ok(Machine {
        host: text(system.nodename()),
        kernel: format!("{} {}", text(system.sysname()), text(system.release())),
        // Not every architecture names its processors there.
        cpu: cpuinfo.labelled("model name").map_or_else(|| text(system.machine()), str::to_owned),
        cores: cores(),
        memory_bytes: memory_bytes("MemTotal:")?,
    })
}

/// Cores that this process may use: its affinity and its cgroup's quota count.
pub(crate) fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// A line of /proc/meminfo, such as `MemAvailable:`, in bytes.
pub(crate) fn memory_bytes(label: &'static str) -> Result<u64, ProcError> {
    ProcFile::read("/proc/meminfo")?.kibibytes(label)
}

/// What a process has used since it began. Only the difference of two readings says something, [`Self::rss_bytes`] aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessUsage {
    /// User and system time of all threads, those that have ended included.
    pub cpu: Duration,
    /// Memory that is resident now.
    pub rss_bytes: u64,
    /// Bytes that it caused to be written to storage: pages when they are dirtied, direct writes when they are issued.
    pub written_bytes: u64,
    /// Context switches of each living thread, voluntary and not, by thread id.
    switches: BTreeMap<u32, u64>,
    pid: u32,
    /// Ticks between the boot and its start, which tell it from a later process with the same pid.
    started: u64,
}

/// What a process used between two readings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessCost {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Context switches, voluntary and not, of the threads that lived at the end; the kernel forgets those of others.
    pub switches: u64,
    /// Bytes that it caused to be written to storage.
    pub written_bytes: u64,
}

impl ProcessUsage {
    /// Of the process `pid`. Its CPU time comes in ticks of 10 ms, and the bytes written need the right to trace it.
    pub fn of(pid: u32) -> Result<ProcessUsage, ProcessError> {
        let stat = ProcessStat::read(pid)?;
        if stat.ended {
            return Err(ProcessError::Vanished(pid));
        }
        let root = Path::new("/proc").join(pid.to_string());
        let io = living(pid, ProcFile::read(root.join("io")))?;
        Ok(ProcessUsage {
            cpu: stat.cpu,
            rss_bytes: stat.rss_bytes,
            written_bytes: io.number("write_bytes:")?,
            switches: switches(pid, &root.join("task"))?,
            pid,
            started: stat.started,
        })
    }

    /// Of this process, with its CPU time in nanoseconds.
    pub fn own() -> Result<ProcessUsage, ProcessError> {
        let usage = ProcessUsage::of(std::process::id())?;
        Ok(ProcessUsage { cpu: own_cpu(), ..usage })
    }

    /// What was used between `earlier` and this reading.
    pub fn since(&self, earlier: &ProcessUsage) -> Result<ProcessCost, ProcessError> {
        if (self.pid, self.started) != (earlier.pid, earlier.started) {
            return Err(ProcessError::Vanished(earlier.pid));
        }
        let before = |thread: &u32| earlier.switches.get(thread).copied().unwrap_or(0);
        Ok(ProcessCost {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            switches: self.switches.iter().map(|(thread, now)| now.saturating_sub(before(thread))).sum(),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
        })
    }
}

/// User and system time of all threads of this process so far.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a process has not used less than nothing")
}

/// The context switches of each thread; threads that end meanwhile are left out.
fn switches(pid: u32, tasks: &Path) -> Result<BTreeMap<u32, u64>, ProcessError> {
    let unreadable = |source| ProcError::Unreadable { path: tasks.to_owned(), source };
    let entries = living(pid, std::fs::read_dir(tasks).map_err(unreadable))?;
    let mut switches = BTreeMap::new();
    for entry in entries {
        let entry = living(pid, entry.map_err(unreadable))?;
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match living(pid, ProcFile::read(entry.path().join("status"))) {
            Ok(status) => {
                let [voluntary, forced] = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
                switches.insert(thread, status.number(voluntary)? + status.number(forced)?);
            }
            Err(ProcessError::Vanished(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(switches)
}

/// One line of /proc/pid/stat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ProcessStat {
    /// The name of its program, cut to 15 bytes by the kernel.
    pub(crate) name: String,
    /// It has ended and only waits to be reaped.
    pub(crate) ended: bool,
    /// User and system time of all threads, in ticks of 10 ms.
    pub(crate) cpu: Duration,
    /// Ticks between the boot and its start.
    pub(crate) started: u64,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
}

impl ProcessStat {
    /// Of the process `pid`.
    pub(crate) fn read(pid: u32) -> Result<ProcessStat, ProcessError> {
        let file = living(pid, ProcFile::read(Path::new("/proc").join(pid.to_string()).join("stat")))?;
        Ok(ProcessStat::parse(&file)?)
    }

    /// The name stands in parentheses and may hold any character, so the fields are counted behind the last one.
    fn parse(file: &ProcFile) -> Result<ProcessStat, ProcError> {
        let name = file.text.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
        let (name, rest) = name.ok_or_else(|| file.malformed("name in parentheses"))?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and the state is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at: usize, expected| {
            field(at).and_then(|field| field.parse::<u64>().ok()).ok_or_else(|| file.malformed(expected))
        };
        let state = field(3).ok_or_else(|| file.malformed("state"))?;
        let ticks = number(14, "user time")? + number(15, "system time")?;
        Ok(ProcessStat {
            name: name.to_owned(),
            ended: matches!(state, "Z" | "X"),
            cpu: Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()),
            started: number(22, "start time")?,
            rss_bytes: number(24, "resident pages")? * rustix::param::page_size() as u64,
        })
    }
}

/// Turns what the system says of a process that has ended into [`ProcessError::Vanished`].
fn living<T>(pid: u32, read: Result<T, ProcError>) -> Result<T, ProcessError> {
    read.map_err(|error| match &error {
        ProcError::Unreadable { source, .. } if is_gone(source) => ProcessError::Vanished(pid),
        _ => ProcessError::Proc(error),
    })
}

/// Opening a file of an ended process finds none; reading one that was opened before finds no process.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// A small file of the kernel, read whole.
#[derive(Debug)]
pub(crate) struct ProcFile {
    path: PathBuf,
    text: String,
}

impl ProcFile {
    /// A file of the given text, for tests of what reads one.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> ProcFile {
        ProcFile { path: "file".into(), text: text.to_owned() }
    }

    /// Reads `path`.
    pub(crate) fn read(path: impl Into<PathBuf>) -> Result<ProcFile, ProcError> {
        let path = path.into();
        match std::fs::read(&path) {
            // Names of programs need not be UTF-8.
            Ok(bytes) => Ok(ProcFile { text: String::from_utf8_lossy(&bytes).into_owned(), path }),
            Err(source) => Err(ProcError::Unreadable { path, source }),
        }
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// What stands after the first `label:` at the head of a line, blanks before the colon allowed.
    fn labelled(&self, label: &str) -> Option<&str> {
        let value = |line: &'_ str| -> Option<usize> {
            let rest = line.strip_prefix(label)?.trim_start().strip_prefix(':')?.trim_start();
            Some(line.len() - rest.len())
        };
        self.text.lines().find_map(|line| value(line).map(|at| line[at..].trim_end()))
    }

    /// The number after `label`, in the first line that begins with it.
    pub(crate) fn number(&self, label: &'static str) -> Result<u64, ProcError> {
        let rest = self.text.lines().find_map(|line| line.strip_prefix(label));
        let number = rest.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
        number.ok_or_else(|| self.malformed(label))
    }

    /// The same where it counts KiB, in bytes.
    fn kibibytes(&self, label: &'static str) -> Result<u64, ProcError> {
        Ok(self.number(label)? * 1024)
    }

    /// It has no `expected`.
    pub(crate) fn malformed(&self, expected: &'static str) -> ProcError {
        ProcError::Malformed { path: self.path.clone(), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Fields 1 to 24 of proc(5).
    fn stat(name: &str, state: &str) -> ProcFile {
        ProcFile::of(&format!("77 ({name}) {state} 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 4242 1000000 25 99\n"))
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        for name in ["corelane", "a b", "x) R 1 (", "(", ""] {
            let read = ProcessStat::parse(&stat(name, "S")).unwrap();
            let page = rustix::param::page_size() as u64;
            assert_eq!((read.name.as_str(), read.ended), (name, false));
            assert_eq!((read.started, read.rss_bytes), (4242, 25 * page));
            let ticks = rustix::param::clock_ticks_per_second();
            assert_eq!(read.cpu, Duration::from_millis(300 * 1000 / ticks));
        }
        assert!(ProcessStat::parse(&stat("x", "Z")).unwrap().ended);
        let whole = stat("x", "S").text;
        let needed = whole.find(" 99").unwrap();
        for length in 0..needed - 1 {
            let cut = ProcessStat::parse(&ProcFile::of(&whole[..length]));
            assert!(matches!(cut, Err(ProcError::Malformed { .. })), "{:?}", &whole[..length]);
        }
    }

    #[test]
    fn labelled_lines_are_read() {
        let read = ProcFile::of("MemTotal:       16 kB\nmodel name\t: Some CPU @ 2 GHz \nwrite_bytes: 4096\n");
        assert_eq!(read.kibibytes("MemTotal:").unwrap(), 16 * 1024);
        assert_eq!(read.labelled("model name"), Some("Some CPU @ 2 GHz"));
        assert_eq!(read.labelled("model"), None);
        assert_eq!(read.number("write_bytes:").unwrap(), 4096);
        let error = read.number("read_bytes:").unwrap_err();
        assert_eq!(error.to_string(), "file has no read_bytes:");
    }

    #[test]
    fn the_machine_is_described() {
        let machine = describe().unwrap();
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
        assert!(machine.cores >= 1 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(!machine.host.is_empty() && !machine.cpu.is_empty(), "{machine:?}");
    }

    #[test]
    fn what_this_process_uses_is_counted() {
        // On the disk that the build is on: /tmp may be memory, where nothing is written to storage.
        let beside = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(beside.parent().unwrap()).unwrap();
        let before = ProcessUsage::own().unwrap();
        let spun = own_cpu() + Duration::from_millis(50);
        while own_cpu() < spun {}
        (0..20).for_each(|_| std::thread::sleep(Duration::from_millis(1)));
        std::fs::write(directory.path().join("file"), vec![1; 1 << 20]).unwrap();
        let after = ProcessUsage::own().unwrap();
        let cost = after.since(&before).unwrap();
        assert!(cost.cpu >= Duration::from_millis(50), "{cost:?}");
        assert!(cost.switches >= 20, "{cost:?}");
        assert!(cost.written_bytes >= 1 << 20, "{cost:?}");
        assert!(after.rss_bytes > 1 << 20, "{after:?}");
    }

    #[test]
    fn another_process_is_read_until_it_ends() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        let first = ProcessUsage::of(pid).unwrap();
        assert_eq!(ProcessUsage::of(pid).unwrap().since(&first).unwrap().written_bytes, 0);
        drop(child.stdin.take());
        // Until it is waited for it stays as a zombie, whose counters are not a living process's.
        let deadline = now() + Duration::from_secs(10);
        while !ProcessStat::read(pid).unwrap().ended {
            assert!(now() < deadline, "cat ends with its input");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(matches!(ProcessUsage::of(pid), Err(ProcessError::Vanished(gone)) if gone == pid));
        child.wait().unwrap();
        assert!(matches!(ProcessUsage::of(pid), Err(ProcessError::Vanished(gone)) if gone == pid));
    }

    #[test]
    fn readings_of_two_processes_are_not_subtracted() {
        let first = ProcessUsage::own().unwrap();
        let reused = ProcessUsage { started: first.started + 1, ..first.clone() };
        assert!(matches!(reused.since(&first), Err(ProcessError::Vanished(_))));
    }

    #[test]
    fn threads_that_ended_do_not_count_backwards() {
        let base = ProcessUsage::own().unwrap();
        let earlier = ProcessUsage { switches: BTreeMap::from([(1, 10), (2, 1_000)]), ..base.clone() };
        let later = ProcessUsage { switches: BTreeMap::from([(1, 15), (3, 7)]), ..base };
        assert_eq!(later.since(&earlier).unwrap().switches, 12);
    }
}
