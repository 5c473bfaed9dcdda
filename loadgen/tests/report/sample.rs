//! Results from seeds: a run with a warm-up, a stall in the middle and a long tail.
//!
//! Latencies are spread like those of real brokers (logarithmic normal, one in some hundred many times slower). What a test
//! changes it changes in the result that it is given.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use loadgen::result::{
    BrokerCost, DurabilityClass, Interval, IntervalLatency, Latency, Machine, Outcome, OwnCost, ResultFile, RunState,
    SCHEMA, Sweep, SweepStep, Target, Verification, latency_histogram,
};

const INTERVALS: u64 = 45;
const WARMUP: u64 = 5;
/// The interval in which nothing is acknowledged.
const STALL: u64 = 27;
const SAMPLES: u64 = 1_500;
const RECORD_BYTES: f64 = 1024.0;

/// Xorshift (Marsaglia, 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Evenly from 0 to 1.
    fn even(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal, by the sum of twelve.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.even()).sum::<f64>() - 6.0
    }

    /// Microseconds around `median`.
    fn latency(&mut self, median: f64) -> u64 {
        let tail = if self.even() < 0.004 { 1.0 + 25.0 * self.even() } else { 1.0 };
        (median * tail * (0.35 * self.normal()).exp()) as u64 + 1
    }
}

/// Names of latencies and their medians in microseconds.
const MEDIANS: [(&str, f64); 5] =
    [("response", 900.0), ("service", 640.0), ("slip", 40.0), ("e2e", 1_500.0), ("fetch", 420.0)];

/// A paced run whose latencies are `factor` times those of a run of seed alone.
pub(crate) fn paced(seed: u64, factor: f64) -> ResultFile {
    let mut random = Random::new(seed);
    let target = 200_000.0;
    let mut whole: BTreeMap<&str, Histogram<u64>> = MEDIANS.map(|(name, _)| (name, latency_histogram())).into();
    let mut hiccup = latency_histogram();
    let mut series = Vec::new();
    for index in 0..INTERVALS {
        let stalled = index == STALL;
        let rate = if stalled { 0.0 } else { target * (1.0 + 0.01 * random.normal()) };
        let mut latency = BTreeMap::new();
        for (name, median) in MEDIANS.iter().filter(|_| index >= WARMUP && !stalled) {
            let mut histogram = latency_histogram();
            // After the stall what had waited comes through.
            let late = if index == STALL + 1 && *name != "fetch" { 40.0 } else { 1.0 };
            (0..SAMPLES).for_each(|_| histogram.record(random.latency(median * factor * late)).unwrap());
            whole.get_mut(name).unwrap().add(&histogram).unwrap();
            latency.insert((*name).to_owned(), interval_latency(&histogram));
        }
        let hiccup_max_us = random.latency(90.0).max(60);
        (0..1000).for_each(|_| hiccup.record(random.latency(55.0)).unwrap());
        series.push(Interval {
            at_s: (index + 1) as f64,
            seconds: 1.0,
            warmup: index < WARMUP,
            rate_in: rate,
            rate_out: rate * (1.0 + 0.004 * random.normal()),
            bytes_in: rate * RECORD_BYTES,
            bytes_out: rate * RECORD_BYTES,
            latency,
            backlog: if stalled { 200_000 } else { 40 },
            errors: 0,
            own_cpu: 0.42,
            broker_cpu: Some(0.61),
            hiccup_max_us,
        });
    }
    let latency = whole.iter().map(|(name, histogram)| ((*name).to_owned(), Latency::new(histogram, 0))).collect();
    let hiccup = Latency::new(&hiccup, 0);
    file(Outcome { latency, hiccup: Some(hiccup), ..outcome(target, (INTERVALS - WARMUP) as f64) }, series)
}

fn interval_latency(histogram: &Histogram<u64>) -> IntervalLatency {
    let at = |quantile| histogram.value_at_quantile(quantile);
    let (max_us, count) = (histogram.max(), histogram.len());
    IntervalLatency { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us, count }
}

fn outcome(rate: f64, seconds: f64) -> Outcome {
    let records = (rate * seconds) as u64;
    Outcome {
        state: RunState::Ok,
        reasons: Vec::new(),
        seconds,
        rate_target: Some(rate),
        rate_in: rate * 0.998,
        rate_out: rate * 0.997,
        records_in: records,
        records_out: records,
        bytes_in: records * RECORD_BYTES as u64,
        bytes_out: records * RECORD_BYTES as u64,
        errors: 0,
        latency: BTreeMap::new(),
        hiccup: None,
        broker: Some(BrokerCost {
            cpu_s_per_gb: 2.98,
            cpu_s: 24.4,
            rss: 310_000_000,
            ctx: 1_812_345,
            written: 8_300_000_000,
        }),
        own: OwnCost { cpu: 0.42, threads: 2 },
        verify: Some(Verification { delivered: records, foreign: 12, ..Verification::default() }),
    }
}

fn file(result: Outcome, series: Vec<Interval>) -> ResultFile {
    let args = "e2e --bootstrap-server 127.0.0.1:9092 --rate 200k --partitions 8 --create --tag note=<b>bold</b>";
    ResultFile {
        schema: SCHEMA,
        tool: "loadgen 0.1.0".to_owned(),
        command: "e2e".to_owned(),
        git: "0123456789ab".to_owned(),
        args: args.split(' ').map(str::to_owned).collect(),
        tags: [("note".to_owned(), "<b>bold</b>".to_owned())].into(),
        started_ms: 1_790_000_000_000,
        machine: Machine {
            host: "bench-1".to_owned(),
            kernel: "Linux 6.18.44".to_owned(),
            cpu: "Imaginary CPU @ 3.0 GHz".to_owned(),
            cores: 2,
            memory_bytes: 8_000_000_000,
        },
        target: Target {
            bootstrap: "127.0.0.1:9092".to_owned(),
            topics: vec!["loadgen".to_owned()],
            partitions: 8,
            replication_factor: 1,
        },
        class: DurabilityClass::C,
        result,
        series,
        sweep: None,
    }
}

/// A run that could not keep its schedule.
pub(crate) fn saturated(seed: u64) -> ResultFile {
    let mut file = paced(seed, 12.0);
    file.result.state = RunState::Saturated;
    file.result.rate_in *= 0.83;
    let reasons = ["achieved 83 % of the schedule", "4 of 4 connections were at --max-inflight for 31 s"];
    file.result.reasons = reasons.map(str::to_owned).to_vec();
    file
}

/// A run without a schedule.
pub(crate) fn unpaced(seed: u64) -> ResultFile {
    let mut file = paced(seed, 3.0);
    file.result.state = RunState::Unpaced;
    file.result.rate_target = None;
    file.result.reasons = vec!["loadgen-bound: its threads used 97 % of their cores".to_owned()];
    let is_scheduled = |name: &str| matches!(name, "response" | "slip" | "e2e");
    file.result.latency.retain(|name, _| !is_scheduled(name));
    file.series.iter_mut().for_each(|interval| interval.latency.retain(|name, _| !is_scheduled(name)));
    file
}

/// A sweep with three repeats a rate, whose latency rises towards 400 000 records a second.
pub(crate) fn sweep(seed: u64) -> ResultFile {
    let mut random = Random::new(seed);
    let mut steps = Vec::new();
    for rate_target in [50e3, 100e3, 150e3, 200e3, 250e3, 300e3, 350e3, 380e3, 420e3] {
        for _ in 0..3 {
            let saturated = rate_target > 400e3;
            let load = (rate_target / 400e3_f64).min(0.995);
            let median = 300.0 / (1.0 - load) * (0.05 * random.normal()).exp();
            let (at, count) = (|factor: f64| (median * factor) as u64, 100_000);
            let response =
                IntervalLatency { p50_us: at(1.0), p99_us: at(3.1), p999_us: at(9.0), max_us: at(30.0), count };
            let end_to_end =
                IntervalLatency { p50_us: at(1.6), p99_us: at(4.4), p999_us: at(12.0), max_us: at(33.0), count };
            let rate_in = if saturated { 396e3 } else { rate_target * 0.999 };
            steps.push(SweepStep {
                rate_target,
                rate_in,
                bytes_in: rate_in * RECORD_BYTES,
                state: if saturated { RunState::Saturated } else { RunState::Ok },
                met: !saturated && response.p99_us < 5_000,
                latency: [("response".to_owned(), response), ("e2e".to_owned(), end_to_end)].into(),
            });
        }
    }
    let mut file = paced(seed, 1.0);
    file.command = "sweep".to_owned();
    file.sweep = Some(Sweep { slo: "p99<5ms,e2e.p99.9<40ms,rate>=0.99".to_owned(), knee: Some(300e3), steps });
    file
}
