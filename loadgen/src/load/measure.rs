//! What a thread of load measures: five histograms and a few counters, for the interval that is under way.
//!
//! A [`Recorder`] belongs to one thread and is written by its producers and consumers; at the end of each interval its
//! [`Sample`] is taken out whole and handed to whoever adds them up, so recording costs no synchronisation. Latencies count by
//! when a record was *due*: only those due in the measured window are recorded, however late they end, so that the number
//! of samples is the schedule's. It adds nothing up and prints nothing.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use hdrhistogram::Histogram;

use crate::result::{LATENCY_US_MAX, latency_histogram};

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LatencyKind {
    /// From when a record was due to its acknowledgement.
    Response,
    /// From when its request was sent to the acknowledgement.
    Service,
    /// From when it was due to when its request was sent.
    Slip,
    /// From when it was due to its being handed to a consumer.
    EndToEnd,
    /// From a fetch being sent to its answer, of fetches that brought records.
    Fetch,
}

impl LatencyKind {
    /// Every kind.
    pub const ALL: [LatencyKind; 5] =
        [LatencyKind::Response, LatencyKind::Service, LatencyKind::Slip, LatencyKind::EndToEnd, LatencyKind::Fetch];

    /// Its name in results.
    pub const fn name(self) -> &'static str {
        match self {
            LatencyKind::Response => "response",
            LatencyKind::Service => "service",
            LatencyKind::Slip => "slip",
            LatencyKind::EndToEnd => "e2e",
            LatencyKind::Fetch => "fetch",
        }
    }
}

/// A histogram of microseconds, and what was too long for it.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// The samples.
    pub histogram: Histogram<u64>,
    /// Samples beyond the histogram's end.
    pub overflow: u64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { histogram: latency_histogram(), overflow: 0 }
    }
}

impl Latencies {
    /// Adds `count` samples of so many nanoseconds.
    #[inline]
    pub fn record(&mut self, nanos: u64, count: u64) {
        let micros = (nanos / 1000).max(1);
        if micros > LATENCY_US_MAX {
            self.overflow += count;
        } else {
            self.histogram.saturating_record_n(micros, count);
        }
    }

    /// Adds all samples of another one; nothing is lost.
    pub fn add(&mut self, other: &Latencies) {
        self.histogram.add(&other.histogram).expect("the bounds are the same");
        self.overflow += other.overflow;
    }

    /// Samples.
    pub fn count(&self) -> u64 {
        self.histogram.len() + self.overflow
    }
}

/// Records and their bytes.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Records.
    pub records: u64,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
}

impl Flow {
    /// Adds another flow.
    pub fn add(&mut self, other: Flow) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// What a thread measured in one interval.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// By [`LatencyKind`], in its order.
    pub latencies: [Latencies; 5],
    /// Acknowledged, whenever due.
    pub acked: Flow,
    /// Handed to consumers, whenever due.
    pub consumed: Flow,
    /// Acknowledged, of those due in the measured window, before the end of the count.
    pub measured_in: Flow,
    /// Handed to consumers, likewise.
    pub measured_out: Flow,
    /// Records given up, and answers with an unexpected error.
    pub errors: u64,
    /// Records that were dropped because of overload.
    pub dropped: u64,
    /// How far the schedule was ahead of the producers at least, in nanoseconds: what lies below a moment's delay.
    pub lag_ns_min: Option<u64>,
    /// Acknowledged records that consumers were not handed, at least.
    pub backlog_min: Option<u64>,
    /// Looks at the requests in flight, and those that found the limit met for long while records were due.
    pub looks: u64,
    /// See `looks`.
    pub looks_at_limit: u64,
    /// CPU time of the thread.
    pub cpu_ns: u64,
    /// How long it was measured.
    pub span_ns: u64,
}

impl Sample {
    /// Adds of another sample only what was due in the measured window.
    pub fn add_measured(&mut self, other: &Sample) {
        for (into, from) in self.latencies.iter_mut().zip(&other.latencies) {
            into.add(from);
        }
        self.measured_in.add(other.measured_in);
        self.measured_out.add(other.measured_out);
    }

    /// Adds everything of another sample: of another thread in the same interval, or of another interval.
    pub fn add(&mut self, other: &Sample) {
        self.add_measured(other);
        self.acked.add(other.acked);
        self.consumed.add(other.consumed);
        self.errors += other.errors;
        self.dropped += other.dropped;
        self.lag_ns_min = self.lag_ns_min.max(other.lag_ns_min);
        self.backlog_min = self.backlog_min.max(other.backlog_min);
        self.looks += other.looks;
        self.looks_at_limit += other.looks_at_limit;
        self.cpu_ns += other.cpu_ns;
        self.span_ns = self.span_ns.max(other.span_ns);
    }
}

/// Where a thread of load records. See the head of this file.
#[derive(Debug, Default)]
pub struct Recorder {
    /// When a record has to be due to count, in nanoseconds of the monotonic clock.
    window: Cell<(u64, u64)>,
    /// Until when it has to end to count for the rate.
    count_until: Cell<u64>,
    sample: RefCell<Sample>,
}

impl Recorder {
    /// A recorder that records no latencies until it is given a window.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// Sets what counts: records that are due in `window`, for the rate those of them that end before `count_until`.
    pub fn measure(&self, window: Range<u64>, count_until: u64) {
        self.window.set((window.start, window.end));
        self.count_until.set(count_until);
    }

    /// Whether a record that is due then counts.
    #[inline]
    pub fn counts(&self, due_ns: u64) -> bool {
        let (from, to) = self.window.get();
        (from..to).contains(&due_ns)
    }

    /// Whether a record that ends now counts for the rate, if it counts at all.
    #[inline]
    pub fn is_in_time(&self, now_ns: u64) -> bool {
        now_ns < self.count_until.get()
    }

    /// Records something.
    #[inline]
    pub fn record<R>(&self, record: impl FnOnce(&mut Sample) -> R) -> R {
        record(&mut self.sample.borrow_mut())
    }

    /// Takes out what was measured since the last time.
    pub fn take(&self) -> Sample {
        self.sample.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_add_up_without_loss() {
        let (mut one, mut other) = (Sample::default(), Sample::default());
        one.latencies[0].record(5_000_000, 3);
        other.latencies[0].record(7_000_000, 2);
        other.latencies[0].record(u64::MAX, 4);
        one.lag_ns_min = Some(5);
        one.add(&other);
        let response = &one.latencies[0];
        assert_eq!((response.count(), response.overflow, response.histogram.max()), (9, 4, 7_003));
        assert_eq!(one.lag_ns_min, Some(5));
    }

    #[test]
    fn only_what_is_due_in_the_window_counts() {
        let recorder = Recorder::new();
        assert!(!recorder.counts(0));
        recorder.measure(10..20, 30);
        assert_eq!([9, 10, 19, 20].map(|due| recorder.counts(due)), [false, true, true, false]);
        assert_eq!([29, 30].map(|now| recorder.is_in_time(now)), [true, false]);
        recorder.record(|sample| sample.errors += 1);
        assert_eq!((recorder.take().errors, recorder.take().errors), (1, 0));
    }
}
