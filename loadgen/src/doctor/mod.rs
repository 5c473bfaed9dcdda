//! Is this machine, as it is now, fit to measure on?
//!
//! | file | what it looks at |
//! |---|---|
//! | `quiet` | five seconds in which the doctor does nothing: load, other processes, steal, pressure, hiccups |
//! | `setting` | frequency, clock, huge pages, memory, limits |
//! | `speed` | checksum and copy of one core |
//! | `loopback` | round trips and a stream over TCP |
//! | `disk` | free space, direct and durable writes below a folder |
//! | `report` | figures against limits, the verdict, the table and the JSON |
//!
//! One after the other, so that no probe disturbs another; each is bounded in time, and all together take less than 15 s on
//! a machine whose disk answers. Measuring is apart from judging: a verdict is a function of what was read. It changes
//! nothing on the machine.

mod disk;
mod loopback;
mod quiet;
mod report;
mod setting;
mod speed;

use std::path::PathBuf;
use std::time::Duration;

pub use quiet::QuietError;
pub use report::{DoctorReport, Figure, Probe, Verdict};

use crate::machine::{ProcError, describe};
use disk::DiskReading;
use loopback::LoopbackReading;
use quiet::QuietReading;
use setting::Settings;
use speed::SpeedReading;

/// How long the machine is watched: five thousand hiccups, so that the 99.9th percentile is five of them.
const WINDOW: Duration = Duration::from_secs(5);

/// Why the machine cannot be examined. A probe that fails is no such reason: it is a bad probe.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// A file of the kernel that every Linux has.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// The machine could not be watched.
    #[error(transparent)]
    Quiet(#[from] QuietError),
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// The folder whose disk is written to; it exists.
    pub directory: PathBuf,
}

/// Examines the machine, which takes about ten seconds of the calling thread.
pub fn examine(options: &DoctorOptions) -> Result<DoctorReport, DoctorError> {
    examine_over(WINDOW, options)
}

fn examine_over(window: Duration, options: &DoctorOptions) -> Result<DoctorReport, DoctorError> {
    let machine = describe()?;
    let mut probes = QuietReading::observe(window)?.probes();
    probes.extend(Settings::read()?.probes());
    probes.push(SpeedReading::measure().probe());
    probes.push(LoopbackReading::probe(LoopbackReading::measure()));
    probes.extend(DiskReading::probes(DiskReading::measure(&options.directory)));
    Ok(DoctorReport::new(machine, probes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::now;

    /// What is promised of all probes together.
    const TOTAL_MAX: Duration = Duration::from_secs(15);

    #[test]
    fn a_whole_examination_is_bounded_and_complete() {
        let beside = std::env::current_exe().unwrap();
        let options = DoctorOptions { directory: beside.parent().unwrap().to_owned() };
        let window = WINDOW / 10;
        let began = now();
        let report = examine_over(window, &options).unwrap();
        let elapsed = now().saturating_duration_since(began);
        assert!(elapsed >= window && elapsed < window + TOTAL_MAX - WINDOW, "{elapsed:?}");
        let names: Vec<&str> = report.probes.iter().map(|probe| probe.name).collect();
        let expected = [
            "load average",
            "other processes",
            "steal",
            "pressure",
            "hiccups",
            "frequency",
            "clock",
            "huge pages",
            "memory",
            "limits",
            "core",
            "loopback",
            "disk space",
            "direct writes",
            "durable writes",
        ];
        assert_eq!(names, expected);
        for probe in &report.probes {
            assert!(!probe.measured.is_empty() && !probe.why.is_empty(), "{probe:?}");
        }
    }
}
