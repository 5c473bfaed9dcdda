//! How the machine is set up: frequency, clock, huge pages, limits, memory. Read, never changed.
//!
//! A verdict is a function of a [`Settings`]; what a virtual machine does not show, such as its frequency, is unknown and not
//! bad. Whether a broker could start here is its own to say; the limits are looked at because a load generator shares them.
//!
//! Sources: Documentation/admin-guide/pm/cpufreq.rst and mm/transhuge.rst of Linux; getrlimit(2).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::report::{Limit, Probe, Verdict};
use crate::machine::{ProcError, cores, memory_bytes, now};

/// Nanoseconds of one look at the clock, of which every request takes several: from user memory good, by a slow device bad.
const CLOCK_NS: Limit = Limit::Most { good: 150.0, doubtful: 2_000.0 };
/// GiB of memory that are to be had: a broker's buffers, the records of a run and its histograms.
const MEMORY_GIB: Limit = Limit::Least { good: 2.0, doubtful: 0.5 };
/// Descriptors: each connection and each segment is one.
const FILES: Limit = Limit::Least { good: 8_192.0, doubtful: 1_024.0 };
/// KiB of locked memory that the rings of one shard take (`corelane::runtime` refuses to start with less).
const LOCKED_KIB_PER_CORE: f64 = 192.0;
/// KiB of locked memory that the first executor asks for.
const LOCKED_KIB_MIN: f64 = 512.0;
/// Looks at the clock that are timed.
const CLOCK_LOOKS: u32 = 100_000;

const GIB: f64 = (1 << 30) as f64;
const CPUS: &str = "/sys/devices/system/cpu";

/// What was read; absent is what the machine does not show.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Settings {
    cores: usize,
    /// The frequency governors of all cores.
    governors: BTreeSet<String>,
    /// Whether cores may exceed their nominal frequency.
    turbo: Option<bool>,
    clock_source: Option<String>,
    /// Nanoseconds of one look at the clock.
    clock_ns: f64,
    /// `always`, `madvise` or `never`.
    huge_pages: Option<String>,
    memory_available_bytes: u64,
    /// KiB that may be locked; absent without a limit.
    locked_kib: Option<u64>,
    /// Descriptors that may be had, up to the hard limit, which the runtime raises the soft one to; absent without a limit.
    files: Option<u64>,
}

impl Settings {
    /// Reads them.
    pub(super) fn read() -> Result<Settings, ProcError> {
        Ok(Settings {
            cores: cores(),
            governors: governors(Path::new(CPUS)),
            turbo: turbo(Path::new(CPUS)),
            clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            clock_ns: clock_ns(),
            huge_pages: line("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|line| chosen(&line)),
            memory_available_bytes: memory_bytes("MemAvailable:")?,
            locked_kib: getrlimit(Resource::Memlock).current.map(|bytes| bytes / 1024),
            files: getrlimit(Resource::Nofile).maximum,
        })
    }

    /// The verdicts.
    pub(super) fn probes(&self) -> Vec<Probe> {
        vec![self.frequency(), self.clock(), self.huge_pages(), self.memory(), self.limits()]
    }

    fn frequency(&self) -> Probe {
        let probe = Probe::new(
            "frequency",
            "cores that change their frequency make equal work take unequal time; `cpupower frequency-set -g performance`, \
             and switch turbo off for figures that are compared",
        );
        let governors = self.governors.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let probe = match governors.as_str() {
            "" => probe.stated("governor not visible", Verdict::Unknown, "governor performance"),
            "performance" => probe.stated("performance", Verdict::Good, "governor performance"),
            other => probe.stated(other, Verdict::Doubtful, "governor performance"),
        };
        match self.turbo {
            None => probe.stated("turbo not visible", Verdict::Unknown, "turbo off"),
            Some(false) => probe.stated("turbo off", Verdict::Good, "turbo off"),
            Some(true) => probe.stated("turbo on", Verdict::Doubtful, "turbo off"),
        }
    }

    fn clock(&self) -> Probe {
        Probe::new(
            "clock",
            "a clock that is read by a system call costs more than a small request; choose tsc as the clock source",
        )
        .told(self.clock_source.as_deref().unwrap_or("source not visible"))
        .figure(("a look", "ns"), self.clock_ns, CLOCK_NS)
    }

    fn huge_pages(&self) -> Probe {
        let probe = Probe::new(
            "huge pages",
            "the kernel stops threads to gather huge pages that nobody asked for; \
             `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`",
        );
        let threshold = "madvise or never";
        match self.huge_pages.as_deref() {
            None => probe.stated("not visible", Verdict::Unknown, threshold),
            Some(mode @ ("madvise" | "never")) => probe.stated(mode, Verdict::Good, threshold),
            Some(mode) => probe.stated(mode, Verdict::Doubtful, threshold),
        }
    }

    fn memory(&self) -> Probe {
        Probe::new("memory", "without free memory the kernel reclaims pages in the middle of a run; end what holds it")
            .figure(("available", "GiB"), self.memory_available_bytes as f64 / GIB, MEMORY_GIB)
    }

    fn limits(&self) -> Probe {
        let probe = Probe::new(
            "limits",
            "rings lock memory, and connections and segments are descriptors; raise `ulimit -l` and the hard `ulimit -n`",
        );
        let needed = (LOCKED_KIB_PER_CORE * self.cores as f64).max(LOCKED_KIB_MIN);
        let probe = match self.locked_kib {
            None => probe.told("memlock unlimited"),
            Some(kib) => probe.figure(("memlock", "KiB"), kib as f64, Limit::Least { good: needed, doubtful: needed }),
        };
        match self.files {
            None => probe.told("nofile unlimited"),
            Some(files) => probe.figure(("nofile", ""), files as f64, FILES),
        }
    }
}

/// The first line of a file of the kernel, where there is one.
fn line(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().next().map(|line| line.trim().to_owned())
}

/// The word in brackets: `always [madvise] never`.
fn chosen(line: &str) -> Option<String> {
    Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// Of every core below `cpus` that shows one.
fn governors(cpus: &Path) -> BTreeSet<String> {
    let cores = fs::read_dir(cpus).into_iter().flatten().flatten();
    cores.filter_map(|core| line(core.path().join("cpufreq/scaling_governor"))).collect()
}

/// By Intel's driver, or by that of everybody else.
fn turbo(cpus: &Path) -> Option<bool> {
    let forbidden = line(cpus.join("intel_pstate/no_turbo")).map(|flag| flag == "0");
    forbidden.or_else(|| line(cpus.join("cpufreq/boost")).map(|flag| flag == "1"))
}

fn clock_ns() -> f64 {
    let began = now();
    let last = (0..CLOCK_LOOKS).fold(began, |_, _| now());
    let elapsed: Duration = last.saturating_duration_since(began);
    elapsed.as_nanos() as f64 / f64::from(CLOCK_LOOKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuned() -> Settings {
        Settings {
            cores: 2,
            governors: BTreeSet::from(["performance".to_owned()]),
            turbo: Some(false),
            clock_source: Some("tsc".to_owned()),
            clock_ns: 20.0,
            huge_pages: Some("madvise".to_owned()),
            memory_available_bytes: 8 << 30,
            locked_kib: Some(8192),
            files: Some(1 << 20),
        }
    }

    fn verdict(settings: &Settings, name: &str) -> Verdict {
        settings.probes().into_iter().find(|probe| probe.name == name).expect("a probe").verdict
    }

    #[test]
    fn each_setting_has_its_verdict() {
        for probe in tuned().probes() {
            assert_eq!(probe.verdict, Verdict::Good, "{probe:?}");
        }
        let governors = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let rows = [
            ("frequency", Settings { governors: governors(&[]), ..tuned() }, Verdict::Unknown),
            (
                "frequency",
                Settings { governors: governors(&["performance", "powersave"]), ..tuned() },
                Verdict::Doubtful,
            ),
            ("frequency", Settings { turbo: Some(true), ..tuned() }, Verdict::Doubtful),
            ("frequency", Settings { turbo: None, ..tuned() }, Verdict::Unknown),
            ("clock", Settings { clock_ns: 900.0, ..tuned() }, Verdict::Doubtful),
            ("clock", Settings { clock_ns: 5_000.0, ..tuned() }, Verdict::Bad),
            ("clock", Settings { clock_source: None, ..tuned() }, Verdict::Good),
            ("huge pages", Settings { huge_pages: Some("always".to_owned()), ..tuned() }, Verdict::Doubtful),
            ("huge pages", Settings { huge_pages: None, ..tuned() }, Verdict::Unknown),
            ("memory", Settings { memory_available_bytes: 1 << 30, ..tuned() }, Verdict::Doubtful),
            ("memory", Settings { memory_available_bytes: 1 << 20, ..tuned() }, Verdict::Bad),
            ("limits", Settings { locked_kib: Some(64), ..tuned() }, Verdict::Bad),
            ("limits", Settings { cores: 64, ..tuned() }, Verdict::Bad),
            ("limits", Settings { locked_kib: None, files: None, ..tuned() }, Verdict::Good),
            ("limits", Settings { files: Some(1024), ..tuned() }, Verdict::Doubtful),
            ("limits", Settings { files: Some(256), ..tuned() }, Verdict::Bad),
        ];
        for (name, settings, expected) in rows {
            assert_eq!(verdict(&settings, name), expected, "{name} {settings:?}");
        }
    }

    #[test]
    fn the_kernels_files_are_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!((governors(root.path()), turbo(root.path())), (BTreeSet::new(), None));
        for (core, governor) in [("cpu0", "performance\n"), ("cpu1", "powersave\n")] {
            let folder = root.path().join(core).join("cpufreq");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("scaling_governor"), governor).unwrap();
        }
        let names: Vec<String> = governors(root.path()).into_iter().collect();
        assert_eq!(names, ["performance", "powersave"]);
        for (file, content, expected) in
            [("cpufreq/boost", "0\n", false), ("cpufreq/boost", "1\n", true), ("intel_pstate/no_turbo", "1\n", false)]
        {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            assert_eq!(turbo(root.path()), Some(expected), "{file} {content}");
        }
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("always"), None);
    }

    #[test]
    fn this_machine_is_read() {
        let settings = Settings::read().unwrap();
        assert!(settings.clock_ns > 0.0 && settings.memory_available_bytes > 0, "{settings:?}");
    }
}
