//! Adds up what the threads of load measured: the series, interval by interval, and the total.
//!
//! An interval is complete when every thread has handed in its sample; intervals are completed in order. Beside the load it
//! watches the broker's process, where its pid is known, and the machine's hiccups. It is driven from a thread beside the
//! shards and judges nothing.

use std::collections::{BTreeMap, HashMap};

use corelane::runtime::Duration;
use hdrhistogram::Histogram;

use super::measure::{Latencies, LatencyKind, Sample};
use super::options::LoadOptions;
use super::worker::Shared;
use crate::hiccup::HiccupMeter;
use crate::machine::{ProcessCost, ProcessUsage};
use crate::result::{Interval, IntervalLatency, latency_histogram};

/// An interval and everything that was measured in it.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The step of the series.
    pub interval: Interval,
    /// What all threads measured.
    pub sample: Sample,
}

/// See the head of this file.
pub(super) struct Collector {
    threads: usize,
    step: Duration,
    warmup: Duration,
    /// Seconds from the start to the end of the measured window.
    scheduled_s: f64,
    /// CPU time of all threads in the measured window, and how long that was so far.
    own_cpu_ns: u64,
    own_span_ns: u64,
    /// How many times each record is handed out in a run that has both producers and consumers.
    sets: Option<u64>,
    broker_pid: Option<u32>,
    hiccups: Option<HiccupMeter>,
    /// Samples of intervals that are not complete, by their number.
    pending: BTreeMap<u64, (usize, Sample)>,
    /// By thread and interval: its CPU time.
    cpu: HashMap<(u16, u64), u64>,
    next: u64,
    acked: u64,
    consumed: u64,
    broker_before: Option<ProcessUsage>,
    /// The broker's usage when the measured window began.
    broker_at_measure: Option<ProcessUsage>,
    broker_last: Option<ProcessUsage>,
    pub(super) total: Sample,
    pub(super) hiccup_total: Histogram<u64>,
    pub(super) least: Vec<(Option<u64>, Option<u64>)>,
}

impl Collector {
    pub(super) fn new(options: &LoadOptions) -> Collector {
        Collector {
            threads: usize::from(options.threads),
            step: options.interval,
            warmup: options.warmup,
            scheduled_s: (options.warmup + options.duration).as_secs_f64(),
            own_cpu_ns: 0,
            own_span_ns: 0,
            sets: options.producers.as_ref().and(options.consumers.as_ref()).map(|consumers| u64::from(consumers.sets)),
            broker_pid: options.broker_pid,
            // Without the thread there is no hiccup curve; the run is none the worse.
            hiccups: HiccupMeter::start().ok(),
            pending: BTreeMap::new(),
            cpu: HashMap::new(),
            next: 0,
            acked: 0,
            consumed: 0,
            broker_before: None,
            broker_at_measure: None,
            broker_last: None,
            total: Sample::default(),
            hiccup_total: latency_histogram(),
            least: Vec::new(),
        }
    }

    /// Takes what has come, and completes the intervals that are complete; all of them at the end.
    pub(super) fn collect(&mut self, shared: &Shared, at_end: bool) -> Vec<Collected> {
        for (interval, thread, sample) in shared.take_samples() {
            self.cpu.insert((thread, interval), sample.cpu_ns);
            let (threads, sum) = self.pending.entry(interval).or_default();
            *threads += 1;
            sum.add(&sample);
        }
        let mut complete = Vec::new();
        while let Some(entry) = self.pending.first_entry() {
            if entry.get().0 < self.threads && !at_end {
                break;
            }
            let (number, (_, sample)) = entry.remove_entry();
            complete.push(self.complete(number, sample));
        }
        complete
    }

    fn complete(&mut self, number: u64, sample: Sample) -> Collected {
        // Samples are taken a moment late, and the last one is as long as the run's end lets it be.
        let (step, seconds) = (self.step.as_secs_f64(), (sample.span_ns as f64 / 1e9).max(1e-9));
        let at_s = number as f64 * step + seconds.min(step);
        let warmup = (number + 1) as f64 * step <= self.warmup.as_secs_f64();
        self.acked += sample.acked.records;
        self.consumed += sample.consumed.records;
        let broker = self.look_at_broker(warmup);
        let hiccups = self.hiccups.as_ref().map(HiccupMeter::take);
        let hiccup_max_us = hiccups.as_ref().map_or(0, Histogram::max);
        if warmup {
            // Samples are taken a moment after an interval's end: what was due since then counts.
            self.total.add_measured(&sample);
        } else {
            self.total.add(&sample);
            if (number as f64 * step) < self.scheduled_s {
                self.own_cpu_ns += sample.cpu_ns;
                self.own_span_ns += sample.span_ns;
            }
            self.least.push((sample.lag_ns_min, sample.backlog_min));
            if let Some(hiccups) = &hiccups {
                self.hiccup_total.add(hiccups).expect("it takes whatever a meter records");
            }
        }
        self.next = number + 1;
        let latency =
            LatencyKind::ALL.iter().zip(&sample.latencies).filter(|(_, latencies)| !warmup && latencies.count() > 0);
        let interval = Interval {
            at_s,
            seconds,
            warmup,
            rate_in: sample.acked.records as f64 / seconds,
            rate_out: sample.consumed.records as f64 / seconds,
            bytes_in: sample.acked.bytes as f64 / seconds,
            bytes_out: sample.consumed.bytes as f64 / seconds,
            latency: latency.map(|(kind, latencies)| (kind.name().to_owned(), percentiles(latencies))).collect(),
            backlog: self.sets.map_or(0, |sets| (self.acked * sets).saturating_sub(self.consumed)),
            errors: sample.errors,
            own_cpu: sample.cpu_ns as f64 / 1e9 / seconds,
            broker_cpu: broker.map(|cost| cost.cpu.as_secs_f64() / seconds),
            hiccup_max_us,
        };
        Collected { interval, sample }
    }

    fn look_at_broker(&mut self, warmup: bool) -> Option<ProcessCost> {
        let now = ProcessUsage::of(self.broker_pid?).ok()?;
        let cost = self.broker_before.as_ref().and_then(|before| now.since(before).ok());
        if warmup || self.broker_at_measure.is_none() {
            self.broker_at_measure = Some(now.clone());
        }
        self.broker_last = Some(now.clone());
        self.broker_before = Some(now);
        cost
    }

    /// Notes what the broker has used before the run begins.
    pub(super) fn begin(&mut self) {
        let usage = self.broker_pid.and_then(|pid| ProcessUsage::of(pid).ok());
        (self.broker_before, self.broker_at_measure) = (usage.clone(), usage);
    }

    /// What the broker used in the measured window, and its memory at the end.
    pub(super) fn broker_cost(&self) -> Option<(ProcessCost, u64)> {
        let (from, to) = (self.broker_at_measure.as_ref()?, self.broker_last.as_ref()?);
        Some((to.since(from).ok()?, to.rss_bytes))
    }

    /// CPU seconds per second of all threads together in the measured window, without what came after it.
    pub(super) fn own_cpu(&self) -> f64 {
        self.own_cpu_ns as f64 / self.own_span_ns.max(1) as f64
    }

    /// The highest share of its time that a thread used, over whole intervals of the measured window.
    pub(super) fn cpu_share(&self) -> f64 {
        let first = self.warmup.as_nanos().div_ceil(self.step.as_nanos().max(1)) as u64;
        let last = self.next.saturating_sub(1);
        let measured = |interval: u64| interval >= first && interval < last;
        let mut shares: HashMap<u16, (u64, u64)> = HashMap::new();
        for (&(thread, _), &cpu_ns) in self.cpu.iter().filter(|((_, interval), _)| measured(*interval)) {
            let share = shares.entry(thread).or_default();
            share.0 += cpu_ns;
            share.1 += self.step.as_nanos() as u64;
        }
        shares.values().map(|(cpu, wall)| *cpu as f64 / *wall as f64).fold(0.0, f64::max)
    }
}

fn percentiles(latencies: &Latencies) -> IntervalLatency {
    let at = |quantile| latencies.histogram.value_at_quantile(quantile);
    IntervalLatency {
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: latencies.histogram.max(),
        count: latencies.count(),
    }
}
