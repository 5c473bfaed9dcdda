//! Verdicts from readings, readings from counters, and a planted load that must be noticed.

use std::hint::black_box;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::result::latency_histogram;

/// An idle machine of two cores.
fn idle() -> QuietReading {
    QuietReading {
        cores: 2,
        load_1m: 0.2,
        others_cores: 0.03,
        steal_percent: 0.2,
        pressure: Some(Pressure { cpu: 0.4, memory: 0.0, io: 3.0 }),
        hiccups: hiccups(&[(80, 4990), (300, 10)]),
        busiest: vec![Busy { name: "sshd".to_owned(), pid: 7, cores: 0.02 }],
    }
}

fn hiccups(counts: &[(u64, u64)]) -> Histogram<u64> {
    let mut histogram = latency_histogram();
    counts.iter().for_each(|(micros, count)| histogram.record_n(*micros, *count).unwrap());
    histogram
}

/// The verdict of the probe `name`.
fn verdict(reading: &QuietReading, name: &str) -> Verdict {
    reading.probes().into_iter().find(|probe| probe.name == name).expect("a probe").verdict
}

#[test]
fn an_idle_machine_is_good() {
    for probe in idle().probes() {
        assert_eq!(probe.verdict, Verdict::Good, "{probe:?}");
    }
}

#[test]
fn a_core_that_is_busy_elsewhere_is_bad_and_named() {
    let compiler = Busy { name: "rustc".to_owned(), pid: 42, cores: 0.98 };
    let reading = QuietReading { others_cores: 1.0, busiest: vec![compiler], ..idle() };
    assert_eq!(verdict(&reading, "other processes"), Verdict::Bad);
    let probes = reading.probes();
    assert!(probes.iter().any(|probe| probe.measured.contains("rustc (42) 0.98")), "{probes:?}");
}

#[test]
fn each_figure_has_its_own_verdict() {
    let pressure = |cpu, memory, io| QuietReading { pressure: Some(Pressure { cpu, memory, io }), ..idle() };
    let rows = [
        ("load average", QuietReading { load_1m: 9.0, ..idle() }, Verdict::Doubtful),
        ("load average", QuietReading { load_1m: 9.0, cores: 64, ..idle() }, Verdict::Good),
        ("other processes", QuietReading { others_cores: 0.3, ..idle() }, Verdict::Doubtful),
        ("steal", QuietReading { steal_percent: 3.0, ..idle() }, Verdict::Doubtful),
        ("steal", QuietReading { steal_percent: 9.0, ..idle() }, Verdict::Bad),
        ("pressure", pressure(10.0, 0.0, 0.0), Verdict::Doubtful),
        ("pressure", pressure(90.0, 0.0, 0.0), Verdict::Bad),
        ("pressure", pressure(0.0, 20.0, 0.0), Verdict::Bad),
        ("pressure", pressure(0.0, 0.0, 100.0), Verdict::Doubtful),
        ("pressure", QuietReading { pressure: None, ..idle() }, Verdict::Unknown),
        ("hiccups", QuietReading { hiccups: hiccups(&[(80, 980), (3_000, 20)]), ..idle() }, Verdict::Doubtful),
        ("hiccups", QuietReading { hiccups: hiccups(&[(80, 4980), (20_000, 20)]), ..idle() }, Verdict::Bad),
    ];
    for (name, reading, expected) in rows {
        assert_eq!(verdict(&reading, name), expected, "{name} {reading:?}");
    }
}

fn stat(name: &str, started: u64, cpu_ms: u64) -> ProcessStat {
    ProcessStat { name: name.to_owned(), ended: false, cpu: Duration::from_millis(cpu_ms), started, rss_bytes: 0 }
}

#[test]
fn counters_become_shares_of_the_window() {
    let counters = |ticks, pressure, own, processes: &[(u32, ProcessStat)]| Counters {
        load_1m: 1.5,
        ticks,
        pressure: Some(Pressure { cpu: pressure, memory: 0, io: 2 * pressure }),
        own: Duration::from_millis(own),
        processes: processes.iter().cloned().collect(),
    };
    let per_second = rustix::param::clock_ticks_per_second();
    // Two seconds of two cores: one and a half busy, half of a second of that the doctor's own, and a tenth stolen.
    let after = Ticks { busy: 3 * per_second + 7, idle: per_second * 6 / 10, stolen: per_second * 4 / 10 };
    let before =
        counters(Ticks { busy: 7, idle: 0, stolen: 0 }, 0, 100, &[(1, stat("old", 5, 900)), (2, stat("b", 6, 10))]);
    let later = [(1, stat("new", 50, 1000)), (2, stat("b", 6, 1210)), (3, stat("idle", 7, 0)), (4, stat("c", 8, 100))];
    let reading = counters(after, 500_000, 600, &later).since(&before, 2.0, latency_histogram());
    assert_eq!((reading.load_1m, reading.others_cores), (1.5, 1.25));
    assert_eq!(reading.steal_percent, 10.0);
    assert_eq!(reading.pressure, Some(Pressure { cpu: 25.0, memory: 0.0, io: 50.0 }));
    let named: Vec<(&str, f64)> = reading.busiest.iter().map(|busy| (busy.name.as_str(), busy.cores)).collect();
    assert_eq!(named, [("b", 0.6), ("new", 0.5), ("c", 0.05)], "a pid that is used again begins at nothing");
}

#[test]
fn the_kernels_files_are_read_or_refused() {
    let ticks = Ticks::parse(&ProcFile::of("cpu  1 2 3 40 5 6 7 8 0 0\ncpu0 9 9 9 9 9 9 9 9 0 0\n"));
    assert_eq!(ticks.unwrap(), Ticks { busy: 1 + 2 + 3 + 6 + 7, idle: 45, stolen: 8 });
    for text in ["", "cpu  1 2 3 4 5 6 7\n", "cpu0 1 2 3 4 5 6 7 8\n", "cpu  1 2 3 x 5 6 7 8\n"] {
        assert!(Ticks::parse(&ProcFile::of(text)).is_err(), "{text:?}");
    }
    let file = "some avg10=6.36 avg60=3.55 avg300=2.14 total=8645\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
    assert_eq!(waited(&ProcFile::of(file)).unwrap(), 8645);
    for text in ["", "some avg10=1\n", "full avg10=0.00 total=9\n"] {
        assert!(waited(&ProcFile::of(text)).is_err(), "{text:?}");
    }
}

#[test]
fn this_machine_is_observed() {
    let reading = QuietReading::observe(Duration::from_millis(100)).unwrap();
    assert!(reading.others_cores <= reading.cores as f64 + 1.0, "{reading:?}");
    assert!(reading.steal_percent <= 100.0, "{reading:?}");
    assert!(reading.hiccups.len() >= 10, "{reading:?}");
}

/// A process that is ended with the test, however that ends.
struct Spinner(Child);

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The load of other tests is on the same cores, so only that much load is found is asserted, which nothing else can undo;
/// it takes both cores for two seconds and is run by hand: `cargo test -p loadgen a_planted_load -- --ignored`.
#[test]
#[ignore = "computes on every core for two seconds"]
fn a_planted_load_on_every_core_is_noticed() {
    let spin = |_| {
        let mut command = Command::new("sh");
        Spinner(command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap())
    };
    let spinners: Vec<Spinner> = (0..cores()).map(spin).collect();
    let reading = QuietReading::observe(Duration::from_secs(2)).unwrap();
    black_box(&spinners);
    assert_eq!(verdict(&reading, "other processes"), Verdict::Bad, "{reading:?}");
    let pids: Vec<u32> = spinners.iter().map(|spinner| spinner.0.id()).collect();
    assert!(reading.busiest.iter().any(|busy| pids.contains(&busy.pid)), "{:?}", reading.busiest);
}
