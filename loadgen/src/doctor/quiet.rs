//! What happens on the machine while the doctor does nothing: who else computes, what is stolen, who waits, who wakes late.
//!
//! All figures come from counters that are read before and after one window, but the load average, which is the kernel's own
//! memory of the last minute. The doctor's own time is taken out. A verdict is a function of a [`QuietReading`]. Processes that
//! end within the window count, but are not named: the kernel forgets them.
//!
//! Sources: proc(5), sections /proc/stat and /proc/loadavg; Documentation/accounting/psi.rst of Linux.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::{Limit, Probe, Verdict};
use crate::hiccup::HiccupMeter;
use crate::machine::{ProcError, ProcFile, ProcessError, ProcessStat, cores, now, own_cpu};

/// Runnable threads for each core, averaged over a minute. That minute is over, so it cannot be bad.
const LOAD: Limit = Limit::MostGood(0.5);
/// Cores that others use. It is the same on a large machine: the shard on that core is the one with the worst latency.
const OTHERS: Limit = Limit::Most { good: 0.1, doubtful: 0.5 };
/// Per cent of all cores' time that the hypervisor gave to somebody else.
const STEAL: Limit = Limit::Most { good: 1.0, doubtful: 5.0 };
/// Per cent of the time in which somebody waited for a core.
const PRESSURE_CPU: Limit = Limit::Most { good: 5.0, doubtful: 25.0 };
/// Per cent of the time in which somebody waited for memory to be reclaimed.
const PRESSURE_MEMORY: Limit = Limit::Most { good: 0.5, doubtful: 5.0 };
/// Per cent of the time in which somebody waited for a disk. Never bad: io_uring counts as waiting while it only listens.
const PRESSURE_IO: Limit = Limit::MostGood(10.0);
/// Microseconds: a hundredth of all moments is worse. What waking a halted virtual core takes is well within.
const HICCUP_P99: Limit = Limit::Most { good: 1_000.0, doubtful: 5_000.0 };
/// Microseconds: a thousandth of all moments is worse.
const HICCUP_P999: Limit = Limit::Most { good: 2_000.0, doubtful: 10_000.0 };

/// How many of the processes that compute are named.
const NAMED_MAX: usize = 3;
/// Cores below which a process is not worth naming.
const NAMED_CORES_MIN: f64 = 0.01;

/// A window that could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum QuietError {
    /// A file of the kernel.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// No thread for the hiccup meter.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What was observed.
#[derive(Clone, Debug)]
pub(super) struct QuietReading {
    cores: usize,
    load_1m: f64,
    /// Cores that others used, on average.
    others_cores: f64,
    steal_percent: f64,
    /// Absent where the kernel does not account for it.
    pressure: Option<Pressure<f64>>,
    /// In microseconds.
    hiccups: Histogram<u64>,
    /// The processes that used most, the first the most.
    busiest: Vec<Busy>,
}

/// A process that computed.
#[derive(Clone, PartialEq, Debug)]
struct Busy {
    name: String,
    pid: u32,
    cores: f64,
}

/// Time in which some task waited: as a total in microseconds, or as a percentage.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Pressure<T> {
    cpu: T,
    memory: T,
    io: T,
}

impl QuietReading {
    /// Observes for `window`, which is how long it takes.
    pub(super) fn observe(window: Duration) -> Result<QuietReading, QuietError> {
        let before = Counters::read()?;
        let began = now();
        let meter = HiccupMeter::start().map_err(QuietError::Thread)?;
        thread::sleep(window);
        let hiccups = meter.stop();
        let seconds = now().saturating_duration_since(began).as_secs_f64();
        Ok(Counters::read()?.since(&before, seconds, hiccups))
    }

    /// The verdicts.
    pub(super) fn probes(&self) -> Vec<Probe> {
        let mut others = Probe::new(
            "other processes",
            "a core that computes for others is missing to a shard or to the load; end them, or wait until they are done",
        )
        .figure(("together", "cores"), self.others_cores, OTHERS);
        for Busy { name, pid, cores } in &self.busiest {
            others = others.told(&format!("{name} ({pid}) {cores:.2}"));
        }
        let load = Probe::new("load average", "others computed within the last minute; wait, or see who it was")
            .figure(("per core", ""), self.load_1m / self.cores as f64, LOAD);
        let steal = Probe::new(
            "steal",
            "the hypervisor runs other guests on these cores, and results scatter with their work; take a machine of your own",
        )
        .figure(("stolen", "%"), self.steal_percent, STEAL);
        let micros = |quantile| self.hiccups.value_at_quantile(quantile) as f64;
        let hiccups = Probe::new(
            "hiccups",
            "a thread that only sleeps is woken late, and so is every answer; see what else runs, and the power settings",
        )
        .noted(("p50", "µs"), micros(0.5))
        .figure(("p99", "µs"), micros(0.99), HICCUP_P99)
        .figure(("p99.9", "µs"), micros(0.999), HICCUP_P999)
        .noted(("max", "µs"), self.hiccups.max() as f64);
        vec![load, others, steal, self.pressure_probe(), hiccups]
    }

    fn pressure_probe(&self) -> Probe {
        let probe = Probe::new(
            "pressure",
            "tasks wait for cores, memory or disks that others hold; end those, or give the machine more of it (io alone may \
             be a server that waits on io_uring while nobody asks)",
        );
        let Some(Pressure { cpu, memory, io }) = self.pressure else {
            return probe.stated("the kernel does not account for it", Verdict::Unknown, "");
        };
        probe.figure(("cpu", "%"), cpu, PRESSURE_CPU).figure(("memory", "%"), memory, PRESSURE_MEMORY).figure(
            ("io", "%"),
            io,
            PRESSURE_IO,
        )
    }
}

/// The counters of one moment.
#[derive(Clone, Debug)]
struct Counters {
    load_1m: f64,
    ticks: Ticks,
    pressure: Option<Pressure<u64>>,
    own: Duration,
    processes: BTreeMap<u32, ProcessStat>,
}

/// The line `cpu` of /proc/stat, in ticks of all cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ticks {
    busy: u64,
    idle: u64,
    stolen: u64,
}

impl Counters {
    fn read() -> Result<Counters, ProcError> {
        let load = ProcFile::read("/proc/loadavg")?;
        let first = load.text().split_ascii_whitespace().next().and_then(|load| load.parse().ok());
        Ok(Counters {
            load_1m: first.ok_or_else(|| load.malformed("load average"))?,
            ticks: Ticks::parse(&ProcFile::read("/proc/stat")?)?,
            pressure: Pressure::read()?,
            own: own_cpu(),
            processes: processes()?,
        })
    }

    fn since(&self, before: &Counters, seconds: f64, hiccups: Histogram<u64>) -> QuietReading {
        let ticks = self.ticks.since(before.ticks);
        let tick_seconds = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        let own = self.own.saturating_sub(before.own).as_secs_f64();
        let all = (ticks.busy + ticks.idle + ticks.stolen).max(1) as f64;
        let percent = |after: u64, before: u64| after.saturating_sub(before) as f64 / (seconds * 1e6) * 100.0;
        QuietReading {
            cores: cores(),
            load_1m: self.load_1m,
            others_cores: ((ticks.busy as f64 * tick_seconds - own) / seconds).max(0.0),
            steal_percent: ticks.stolen as f64 / all * 100.0,
            pressure: self.pressure.zip(before.pressure).map(|(after, before)| Pressure {
                cpu: percent(after.cpu, before.cpu),
                memory: percent(after.memory, before.memory),
                io: percent(after.io, before.io),
            }),
            hiccups,
            busiest: busiest(&self.processes, &before.processes, seconds),
        }
    }
}

impl Ticks {
    fn parse(file: &ProcFile) -> Result<Ticks, ProcError> {
        let line = file.text().lines().find_map(|line| line.strip_prefix("cpu "));
        let line = line.ok_or_else(|| file.malformed("line for all cores"))?;
        let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|ticks| ticks.parse().ok()).collect();
        // What guests of this machine use is in `user` and `nice` already.
        match ticks[..] {
            [user, nice, system, idle, iowait, irq, softirq, stolen, ..] => {
                Ok(Ticks { busy: user + nice + system + irq + softirq, idle: idle + iowait, stolen })
            }
            _ => Err(file.malformed("eight counters of ticks")),
        }
    }

    /// The kernel's idle counters may step back a little.
    fn since(self, before: Ticks) -> Ticks {
        Ticks {
            busy: self.busy.saturating_sub(before.busy),
            idle: self.idle.saturating_sub(before.idle),
            stolen: self.stolen.saturating_sub(before.stolen),
        }
    }
}

impl Pressure<u64> {
    /// `None` on a kernel without it, or where it is switched off.
    fn read() -> Result<Option<Pressure<u64>>, ProcError> {
        let [cpu, memory, io] = ["cpu", "memory", "io"].map(|what| {
            let file = ProcFile::read(PathBuf::from("/proc/pressure").join(what)).ok();
            file.map(|file| waited(&file)).transpose()
        });
        Ok(match (cpu?, memory?, io?) {
            (Some(cpu), Some(memory), Some(io)) => Some(Pressure { cpu, memory, io }),
            _ => None,
        })
    }
}

/// Microseconds in which some task waited: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn waited(file: &ProcFile) -> Result<u64, ProcError> {
    let some = file.text().lines().find_map(|line| line.strip_prefix("some "));
    let total = some.and_then(|some| some.rsplit_once("total=")).and_then(|(_, total)| total.trim().parse().ok());
    total.ok_or_else(|| file.malformed("total of waiting"))
}

/// All processes but this one.
fn processes() -> Result<BTreeMap<u32, ProcessStat>, ProcError> {
    let root = PathBuf::from("/proc");
    let unreadable = |source| ProcError::Unreadable { path: root.clone(), source };
    let mut processes = BTreeMap::new();
    for entry in std::fs::read_dir(&root).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).filter(|pid| *pid != std::process::id())
        else {
            continue;
        };
        match ProcessStat::read(pid) {
            Ok(stat) => drop(processes.insert(pid, stat)),
            Err(ProcessError::Vanished(_)) => {}
            Err(ProcessError::Proc(error)) => return Err(error),
        }
    }
    Ok(processes)
}

fn busiest(after: &BTreeMap<u32, ProcessStat>, before: &BTreeMap<u32, ProcessStat>, seconds: f64) -> Vec<Busy> {
    let cores = |pid: &u32, stat: &ProcessStat| {
        let earlier = before.get(pid).filter(|earlier| earlier.started == stat.started).map(|earlier| earlier.cpu);
        stat.cpu.saturating_sub(earlier.unwrap_or_default()).as_secs_f64() / seconds
    };
    let busy = |(pid, stat): (&u32, &ProcessStat)| Busy { name: stat.name.clone(), pid: *pid, cores: cores(pid, stat) };
    let mut busiest: Vec<Busy> = after.iter().map(busy).filter(|busy| busy.cores >= NAMED_CORES_MIN).collect();
    busiest.sort_by(|a, b| b.cores.total_cmp(&a.cores));
    busiest.truncate(NAMED_MAX);
    busiest
}

#[cfg(test)]
mod tests;
