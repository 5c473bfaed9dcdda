//! The order of events of a swarm: which step is due, and the looks at both processes between the steps.
//!
//! It runs on a thread beside the shards, so that looking costs them nothing. Threads of load are told the step and when it
//! begins, and tell when they have done it. Whatever ends a run early (a signal, a broker that is silent, a process that is
//! gone) leads to the last step, in which everything is closed.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use corelane::runtime::{Duration, side};
use corelane::types::ShardId;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::SwarmOptions;
use super::member::Fault;
use super::worker::Tally;
use crate::hiccup::HiccupMeter;
use crate::load::measure::Latencies;
use crate::machine::{ProcessCost, ProcessError, ProcessUsage};
use crate::result::{Interval, IntervalLatency, latency_histogram};

/// Between two looks at how far the threads are.
const LOOK: Duration = Duration::from_millis(10);
/// From a step being told to its beginning: by then every thread has heard of it.
const LEAD: Duration = Duration::from_millis(20);

/// What the threads of load are doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// They make connections, and then keep them.
    Connect,
    /// They send requests.
    Load,
    /// They ask every connection whether it is there.
    Probe,
    /// They close everything.
    Close,
}

/// How it goes.
#[derive(Debug)]
pub struct Progress<'a> {
    /// What is being done.
    pub step: Step,
    /// Seconds since the beginning.
    pub seconds: f64,
    /// Connections that were made so far.
    pub opened: u64,
    /// Connections that could not be made, or were lost.
    pub lost: u64,
    /// The requests of the interval that has just ended.
    pub interval: Option<&'a Interval>,
}

/// What threads and conductor tell each other.
pub(super) struct Shared {
    /// The step and when it begins.
    step: Mutex<Option<(Step, u64)>>,
    /// Threads that have done the step.
    arrived: AtomicU32,
    stop: AtomicBool,
    /// The shards have ended.
    has_ended: AtomicBool,
    /// Why it was ended early.
    stopped_because: Mutex<Option<String>>,
    /// The first fault of a connection, the first error of a request.
    first_fault: Mutex<Option<String>>,
    first_error: Mutex<Option<i16>>,
    /// When the last connection was begun, and when the last was made.
    last_begun: AtomicU64,
    last_connected: AtomicU64,
    /// By thread: what it has measured since the conductor looked.
    tallies: Vec<Mutex<Tally>>,
    series: Mutex<Vec<(Interval, Tally)>>,
}

impl Shared {
    pub(super) fn new(threads: u16) -> Shared {
        Shared {
            step: Mutex::new(None),
            arrived: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            stopped_because: Mutex::new(None),
            first_fault: Mutex::new(None),
            first_error: Mutex::new(None),
            last_begun: AtomicU64::new(0),
            last_connected: AtomicU64::new(0),
            tallies: (0..threads).map(|_| Mutex::default()).collect(),
            series: Mutex::default(),
        }
    }

    /// The step that is due, and when it begins.
    pub(super) fn now_at(&self) -> Option<(Step, u64)> {
        *locked(&self.step)
    }

    /// A thread has done the step.
    pub(super) fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::Release);
    }

    /// Ends the run early, for the first reason that is given.
    pub(super) fn stop(&self, because: Option<String>) {
        if let Some(because) = because {
            locked(&self.stopped_because).get_or_insert(because);
        }
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The shards have ended, or never began.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    pub(super) fn record(&self, shard: ShardId, record: impl FnOnce(&mut Tally)) {
        record(&mut locked(&self.tallies[usize::from(shard.0)]));
    }

    pub(super) fn note_fault(&self, fault: &Fault) {
        locked(&self.first_fault).get_or_insert_with(|| fault.to_string());
    }

    pub(super) fn note_error(&self, code: i16) {
        locked(&self.first_error).get_or_insert(code);
    }

    pub(super) fn begun_connecting(&self, now_ns: u64) {
        self.last_begun.fetch_max(now_ns, Ordering::Relaxed);
    }

    pub(super) fn connected(&self, now_ns: u64) {
        self.last_connected.fetch_max(now_ns, Ordering::Relaxed);
    }

    /// When the last connection was begun, and when the last was made.
    pub(super) fn last_connections(&self) -> (u64, u64) {
        (self.last_begun.load(Ordering::Relaxed), self.last_connected.load(Ordering::Relaxed))
    }

    /// Whether it was ended early.
    pub(super) fn is_cut_short(&self) -> bool {
        locked(&self.stopped_because).is_some()
    }

    /// Why it was ended early, the first fault, the first error.
    pub(super) fn notes(&self) -> (Option<String>, Option<String>, Option<i16>) {
        (locked(&self.stopped_because).clone(), locked(&self.first_fault).clone(), *locked(&self.first_error))
    }

    pub(super) fn take_series(&self) -> Vec<(Interval, Tally)> {
        std::mem::take(&mut *locked(&self.series))
    }

    /// What all threads have measured since the last call.
    fn take_tallies(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in &self.tallies {
            let empty = Tally::default();
            let taken = std::mem::replace(&mut *locked(tally), empty);
            sum.add(&taken);
        }
        sum
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both processes at a point of time.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// Nanoseconds of the monotonic clock.
    pub(super) at_ns: u64,
    /// The load generator.
    pub(super) own: ProcessUsage,
    /// The broker, where its pid is known.
    pub(super) broker: Option<ProcessUsage>,
}

impl Look {
    /// Looks now.
    pub(super) fn take(broker_pid: Option<u32>) -> Result<Look, ProcessError> {
        let broker = broker_pid.map(ProcessUsage::of).transpose()?;
        Ok(Look { at_ns: monotonic_ns(), own: ProcessUsage::own()?, broker })
    }

    /// Seconds between an earlier look and this one.
    pub(super) fn seconds_since(&self, earlier: &Look) -> f64 {
        self.at_ns.saturating_sub(earlier.at_ns) as f64 / 1e9
    }
}

/// The clock of the shards.
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What the conductor saw; what a run that ended early did not come to is missing.
#[derive(Debug)]
pub(super) struct Conducted {
    /// Before the first connection.
    pub(super) before: Look,
    /// When the first connection was due.
    pub(super) connect_start_ns: u64,
    /// With every connection made.
    pub(super) connected: Option<Look>,
    /// At the end of the time without requests.
    pub(super) idle: Option<Look>,
    /// At the beginning and the end of what is measured under requests.
    pub(super) measured: Option<(Look, Look)>,
    /// All that the threads measured.
    pub(super) total: Tally,
    /// The machine's hiccups under requests.
    pub(super) hiccups: Histogram<u64>,
}

/// Leads the threads through the steps.
pub(super) fn conduct(
    options: &SwarmOptions,
    shared: &Shared,
    before: Look,
    watch: impl FnMut(&Progress<'_>),
) -> Result<Conducted, ProcessError> {
    let seen = Conducted {
        before: before.clone(),
        connect_start_ns: 0,
        connected: None,
        idle: None,
        measured: None,
        total: Tally::default(),
        hiccups: latency_histogram(),
    };
    // Without the thread there is no hiccup curve; the run is none the worse.
    let hiccups = HiccupMeter::start().ok();
    let (step, part) = (Step::Connect, Part::NoSeries);
    let mut conductor = Conductor { options, shared, watch, seen, hiccups, step, start_ns: 0, part, last: before };
    let done = conductor.lead();
    shared.stop(None);
    conductor.go(Step::Close);
    conductor.tick();
    done.map(|()| conductor.seen)
}

/// What an interval belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing that the series shows.
    NoSeries,
    WarmUp,
    Measured,
}

struct Conductor<'a, W> {
    options: &'a SwarmOptions,
    shared: &'a Shared,
    watch: W,
    seen: Conducted,
    hiccups: Option<HiccupMeter>,
    step: Step,
    /// When the step begins.
    start_ns: u64,
    part: Part,
    /// The look at the end of the last interval.
    last: Look,
}

impl<W: FnMut(&Progress<'_>)> Conductor<'_, W> {
    fn lead(&mut self) -> Result<(), ProcessError> {
        self.go(Step::Connect);
        self.seen.connect_start_ns = self.start_ns;
        self.wait_for_all();
        self.seen.connected = Some(self.look()?);
        if !self.wait_until(monotonic_ns() + self.options.idle.as_nanos() as u64) {
            return Ok(());
        }
        self.seen.idle = Some(self.look()?);
        if self.options.requests.is_some() && !self.lead_load()? {
            return Ok(());
        }
        self.go(Step::Probe);
        self.wait_for_all();
        Ok(())
    }

    /// `false` if the run is to end before the load has.
    fn lead_load(&mut self) -> Result<bool, ProcessError> {
        self.tick();
        self.go(Step::Load);
        self.part = Part::WarmUp;
        let measure_ns = self.start_ns + self.options.load.warmup.as_nanos() as u64;
        if !self.wait_until(measure_ns) {
            return Ok(false);
        }
        let begin = self.look()?;
        self.tick();
        self.part = Part::Measured;
        let in_time = self.wait_until(measure_ns + self.options.load.duration.as_nanos() as u64);
        self.seen.measured = Some((begin, self.look()?));
        self.tick();
        self.part = Part::NoSeries;
        self.wait_for_all();
        Ok(in_time)
    }

    fn look(&self) -> Result<Look, ProcessError> {
        Look::take(self.options.load.broker_pid)
    }

    /// Tells the threads what is next.
    fn go(&mut self, step: Step) {
        (self.step, self.start_ns) = (step, monotonic_ns() + LEAD.as_nanos() as u64);
        self.shared.arrived.store(0, Ordering::Relaxed);
        *locked(&self.shared.step) = Some((step, self.start_ns));
    }

    /// Waits until every thread has done the step.
    fn wait_for_all(&mut self) {
        let threads = u32::from(self.options.load.threads);
        while self.shared.arrived.load(Ordering::Acquire) < threads && !self.shared.has_ended.load(Ordering::Acquire) {
            self.pause();
        }
        self.tick();
    }

    /// Waits for a point of time; `false` if the run is to end before it.
    fn wait_until(&mut self, at_ns: u64) -> bool {
        while monotonic_ns() < at_ns {
            if self.shared.is_stopping() || self.shared.has_ended.load(Ordering::Acquire) {
                return false;
            }
            self.pause();
        }
        true
    }

    fn pause(&mut self) {
        side::pause(LOOK);
        if monotonic_ns().saturating_sub(self.last.at_ns) >= self.options.load.interval.as_nanos() as u64 {
            self.tick();
        }
    }

    /// Takes what was measured, and ends the interval.
    fn tick(&mut self) {
        let tally = self.shared.take_tallies();
        self.seen.total.add(&tally);
        let hiccups = self.hiccups.as_ref().map(HiccupMeter::take).unwrap_or_else(latency_histogram);
        // A broker that is gone is told of at the end of the step.
        let Ok(now) = self.look() else { return };
        let before = std::mem::replace(&mut self.last, now);
        let interval = (self.part != Part::NoSeries).then(|| self.interval(&before, &tally, hiccups.max()));
        if self.part == Part::Measured {
            self.seen.hiccups.add(&hiccups).expect("it takes whatever a meter records");
        }
        (self.watch)(&Progress {
            step: self.step,
            seconds: self.last.seconds_since(&self.seen.before),
            opened: self.seen.total.opened,
            lost: self.seen.total.failed + self.seen.total.broken,
            interval: interval.as_ref(),
        });
        if let Some(interval) = interval {
            locked(&self.shared.series).push((interval, tally));
        }
    }

    fn interval(&self, before: &Look, tally: &Tally, hiccup_max_us: u64) -> Interval {
        let seconds = self.last.seconds_since(before).max(1e-9);
        let cores = |cost: Result<ProcessCost, ProcessError>| Some(cost.ok()?.cpu.as_secs_f64() / seconds);
        let broker = self.last.broker.as_ref().zip(before.broker.as_ref());
        Interval {
            at_s: self.last.at_ns.saturating_sub(self.start_ns) as f64 / 1e9,
            seconds,
            warmup: self.part == Part::WarmUp,
            rate_in: tally.answered as f64 / seconds,
            latency: tally
                .latencies()
                .filter_map(|(name, latencies)| Some((name.to_owned(), percentiles(latencies)?)))
                .collect(),
            errors: tally.errors,
            own_cpu: cores(self.last.own.since(&before.own)).unwrap_or(0.0),
            broker_cpu: broker.and_then(|(now, before)| cores(now.since(before))),
            hiccup_max_us,
            ..Interval::default()
        }
    }
}

fn percentiles(latencies: &Latencies) -> Option<IntervalLatency> {
    let at = |quantile| latencies.histogram.value_at_quantile(quantile);
    (latencies.count() > 0).then(|| IntervalLatency {
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: latencies.histogram.max(),
        count: latencies.count(),
    })
}
