//! A hiccup meter: a thread that sleeps for a millisecond over and over, and records by how much it overslept.
//!
//! What it sees is what the machine itself adds to every latency: other processes, interrupts, a hypervisor that runs somebody
//! else. A stall is recorded once for each millisecond that it swallowed, shorter every time, so that the percentiles are
//! those of a moment taken at random and can be held against those of requests on a schedule. The thread is not pinned,
//! and does not see what delays a thread that never sleeps.
//!
//! Source: the idea is that of jHiccup; the correction is HdrHistogram's for an expected interval.

use std::io;
use std::mem;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::machine::now;
use crate::result::{LATENCY_US_MAX, latency_histogram};

/// How long it sleeps each time: short enough to meet every stall of a millisecond; it costs a thousand wakeups per second.
const SLEEP: Duration = Duration::from_millis(1);

/// A running meter. Dropping it stops the thread within a sleep.
#[derive(Debug)]
pub struct HiccupMeter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// What was recorded since the last [`HiccupMeter::take`], in microseconds.
    interval: Mutex<Histogram<u64>>,
    stopped: AtomicBool,
}

impl HiccupMeter {
    /// Starts the thread; an error if the system gives none.
    pub fn start() -> io::Result<HiccupMeter> {
        let shared = Shared { interval: Mutex::new(latency_histogram()), stopped: AtomicBool::new(false) };
        let shared = Arc::new(shared);
        let measured = shared.clone();
        let thread = thread::Builder::new().name("hiccups".to_owned()).spawn(move || measured.run())?;
        Ok(HiccupMeter { shared, thread: Some(thread) })
    }

    /// The hiccups since the last call or the start, in microseconds.
    pub fn take(&self) -> Histogram<u64> {
        let empty = latency_histogram();
        let mut interval = self.shared.interval.lock().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut interval, empty)
    }

    /// Ends the thread and returns the hiccups since the last [`Self::take`].
    pub fn stop(mut self) -> Histogram<u64> {
        self.end();
        self.take()
    }

    fn end(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the meter's thread does not panic");
        }
    }
}

impl Drop for HiccupMeter {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn run(&self) {
        // The kernel may delay a sleeper by 50 µs to wake it together with others. That it does so is no hiccup; where it
        // cannot be told not to, the figures are that much higher.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        while !self.stopped.load(Ordering::Relaxed) {
            let due = now() + SLEEP;
            thread::sleep(SLEEP);
            let overslept = now().saturating_duration_since(due);
            let mut interval = self.interval.lock().unwrap_or_else(PoisonError::into_inner);
            record(&mut interval, overslept);
        }
    }
}

/// Records a hiccup, and a shorter one for each further sleep that it took the place of.
fn record(histogram: &mut Histogram<u64>, overslept: Duration) {
    let micros = u64::try_from(overslept.as_micros()).unwrap_or(u64::MAX).min(LATENCY_US_MAX);
    let sleep_us = SLEEP.as_micros() as u64;
    histogram.record_correct(micros, sleep_us).expect("it is within the bounds");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_for_every_sleep_that_it_swallowed() {
        let mut histogram = latency_histogram();
        record(&mut histogram, Duration::from_micros(60));
        record(&mut histogram, Duration::from_millis(100));
        assert_eq!(histogram.len(), 1 + 100);
        assert_eq!(histogram.count_between(50_000, 101_000), 51);
        record(&mut histogram, Duration::MAX);
        assert!(histogram.max() >= LATENCY_US_MAX);
    }

    #[test]
    fn intervals_are_taken_while_it_runs() {
        let meter = HiccupMeter::start().unwrap();
        let samples_after = |millis| {
            thread::sleep(Duration::from_millis(millis));
            meter.take().len()
        };
        let first = samples_after(100);
        assert!(first > 10, "{first} samples in 100 ms");
        let again = meter.take().len();
        assert!(again < first, "the interval begins anew: {again} after {first}");
        thread::sleep(Duration::from_millis(20));
        assert!(!meter.stop().is_empty());
    }
}
