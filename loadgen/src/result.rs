//! The result of a run as it is kept: one JSON object with everything that a later look needs, histograms included.
//!
//! What reads and writes it: the subcommands that run a load write it (`--json`), `compare`, `report` and `--baseline` read
//! it. Field names and units are fixed; a reader ignores fields that it does not know, and a missing optional one is absent.
//! Times are microseconds and rates are records per second unless the name says otherwise. It computes nothing but the
//! percentiles of a histogram.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};

/// The number of the form below; a reader refuses a higher one.
pub const SCHEMA: u32 = 1;
/// Latencies are kept from 1 µs to an hour, in three digits; what is longer is counted as overflow.
pub const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant decimal digits of a latency.
pub const LATENCY_DIGITS: u8 = 3;

/// An empty histogram of latencies in microseconds.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).expect("the bounds are valid")
}

/// A result file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResultFile {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `loadgen 0.1.0`.
    pub tool: String,
    /// The subcommand.
    pub command: String,
    /// The commit that the tool was built from; empty where it was not built from a checkout.
    pub git: String,
    /// The command line, without the program's name.
    pub args: Vec<String>,
    /// `--tag key=value`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// When the load began, in milliseconds since 1970 (UTC).
    pub started_ms: u64,
    /// What it ran on.
    pub machine: Machine,
    /// What it ran against.
    pub target: Target,
    /// What an acknowledgement meant.
    pub class: DurabilityClass,
    /// What was measured.
    pub result: Outcome,
    /// The same over time.
    pub series: Vec<Interval>,
    /// The steps of a sweep, where this is one: `result` and `series` are then those of the step at the knee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
}

/// The machine that the load generator ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The host's name.
    pub host: String,
    /// System and version: `Linux 6.18.44`.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// Cores that the process may use.
    pub cores: usize,
    /// Memory of the machine.
    pub memory_bytes: u64,
}

/// The brokers and the topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `--bootstrap-server`.
    pub bootstrap: String,
    /// The topics.
    pub topics: Vec<String>,
    /// Partitions of all of them.
    pub partitions: usize,
    /// Replicas of each partition.
    pub replication_factor: usize,
}

/// What an acknowledgement means: whether it survives kill -9 (B) or power loss (C) as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum DurabilityClass {
    /// Acknowledged from the memory of the process.
    A,
    /// In the kernel's hands before the acknowledgement.
    B,
    /// Flushed to stable storage before the acknowledgement.
    C,
    /// The broker does not tell.
    #[default]
    #[serde(rename = "unknown")]
    Unknown,
}

/// What a run is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It kept its schedule: every figure counts.
    Ok,
    /// It did not: the latencies beyond the median say more about the client's queue than about the broker.
    Saturated,
    /// There was no schedule: throughput, CPU and service time count.
    Unpaced,
    /// It did not do what it was to do.
    Invalid,
}

impl RunState {
    /// As in the result line.
    pub const fn name(self) -> &'static str {
        match self {
            RunState::Ok => "ok",
            RunState::Saturated => "saturated",
            RunState::Unpaced => "unpaced",
            RunState::Invalid => "invalid",
        }
    }
}

/// What was measured, after the warm-up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What the run is worth.
    pub state: RunState,
    /// Why it is saturated or invalid; in an unpaced run, what bounded it. Empty where there is nothing to say.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Seconds that were measured.
    pub seconds: f64,
    /// The schedule, in records per second; absent without one.
    pub rate_target: Option<f64>,
    /// Acknowledged records per second.
    pub rate_in: f64,
    /// Records per second that consumers were handed.
    pub rate_out: f64,
    /// Acknowledged records.
    pub records_in: u64,
    /// Records that consumers were handed.
    pub records_out: u64,
    /// Bytes of keys, values and headers of the acknowledged records.
    pub bytes_in: u64,
    /// The same of what consumers were handed.
    pub bytes_out: u64,
    /// Records that were given up, and answers with an error that a client does not expect.
    pub errors: u64,
    /// By name: `response` (intended to acknowledged), `service` (sent to acknowledged), `slip` (intended to sent), `e2e`
    /// (intended to handed to the consumer), `fetch` (a fetch that brought records). Only those that were measured.
    pub latency: BTreeMap<String, Latency>,
    /// How late a thread that sleeps was woken during the run: what the machine itself adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hiccup: Option<Latency>,
    /// The broker's process, where its pid is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<BrokerCost>,
    /// The load generator itself.
    #[serde(rename = "self")]
    pub own: OwnCost,
    /// Whether everything arrived, where consumers read what producers wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,
}

/// A histogram and the percentiles that are looked at, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them are faster.
    pub p50_us: u64,
    /// The 90th percentile.
    pub p90_us: u64,
    /// The 99th.
    pub p99_us: u64,
    /// The 99.9th.
    pub p999_us: u64,
    /// The 99.99th.
    pub p9999_us: u64,
    /// The slowest.
    pub max_us: u64,
    /// The mean.
    pub mean_us: f64,
    /// Samples, those above the histogram's end included.
    pub count: u64,
    /// Samples above the histogram's end.
    pub overflow: u64,
    /// The histogram, base64 of HdrHistogram's V2 encoding.
    pub hdr: String,
}

/// An embedded histogram that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("not a histogram in HdrHistogram's V2 encoding: {0}")]
pub struct HistogramError(String);

impl Latency {
    /// The percentiles of `histogram`, beside which `overflow` samples were too long for it.
    pub fn new(histogram: &Histogram<u64>, overflow: u64) -> Latency {
        let mut encoded = Vec::new();
        V2Serializer::new().serialize(histogram, &mut encoded).expect("memory takes it, and counts fit");
        let count = histogram.len() + overflow;
        // What was too long for the histogram lies above all that is in it.
        let at = |quantile: f64| {
            let share = quantile * count as f64 / histogram.len().max(1) as f64;
            if share > 1.0 { LATENCY_US_MAX } else { histogram.value_at_quantile(share) }
        };
        Latency {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: at(1.0),
            mean_us: histogram.mean(),
            count,
            overflow,
            hdr: BASE64.encode(encoded),
        }
    }

    /// The histogram, in microseconds.
    pub fn histogram(&self) -> Result<Histogram<u64>, HistogramError> {
        let bytes = BASE64.decode(&self.hdr).map_err(|error| HistogramError(error.to_string()))?;
        Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| HistogramError(error.to_string()))
    }
}

/// What the broker's process used while the load was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerCost {
    /// Seconds of CPU, user and system, of all threads, per gigabyte (10⁹ bytes) of `bytes_in`; of `bytes_out` where nothing
    /// was produced.
    pub cpu_s_per_gb: f64,
    /// Seconds of CPU.
    pub cpu_s: f64,
    /// Resident memory at the end, in bytes.
    pub rss: u64,
    /// Context switches, voluntary and not.
    pub ctx: u64,
    /// Bytes that it caused to be written to storage.
    pub written: u64,
}

/// What the load generator used while the load was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnCost {
    /// Cores in use, on average: seconds of CPU per second.
    pub cpu: f64,
    /// Its threads that make load.
    pub threads: usize,
}

/// Whether what was acknowledged arrived. The first six are faults; an honest broker has zeros there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Acknowledged records that no consumer was handed.
    pub lost: u64,
    /// Records that a consumer was handed more than once.
    pub duplicated: u64,
    /// Records that came after later ones of the same producer and partition.
    pub reordered: u64,
    /// Records whose bytes are not those that were written, and batches with a wrong checksum.
    pub corrupt: u64,
    /// Records in another partition than they were written to.
    pub misplaced: u64,
    /// Records that were refused or never sent, and are there.
    pub phantom: u64,
    /// Acknowledged records that consumers were handed.
    pub delivered: u64,
    /// Records without an acknowledgement, handed to a consumer all the same: allowed.
    pub unacked_delivered: u64,
    /// Records without an acknowledgement that no consumer was handed: allowed.
    pub unacked_lost: u64,
    /// Records of other runs.
    pub foreign: u64,
}

impl Verification {
    /// Whether the broker kept its promises.
    pub fn is_clean(&self) -> bool {
        let Verification { lost, duplicated, reordered, corrupt, misplaced, phantom, .. } = *self;
        lost + duplicated + reordered + corrupt + misplaced + phantom == 0
    }
}

/// One step of the series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its end, in seconds since the load began.
    pub at_s: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Whether it belongs to the warm-up: there are no latencies then.
    pub warmup: bool,
    /// Acknowledged records per second.
    pub rate_in: f64,
    /// Records per second that consumers were handed.
    pub rate_out: f64,
    /// Bytes per second of the acknowledged records.
    pub bytes_in: f64,
    /// Bytes per second of what consumers were handed.
    pub bytes_out: f64,
    /// By name, as in [`Outcome::latency`], but only what had samples.
    pub latency: BTreeMap<String, IntervalLatency>,
    /// Acknowledged records that consumers have not been handed yet.
    pub backlog: u64,
    /// Errors.
    pub errors: u64,
    /// Cores that the load generator used.
    pub own_cpu: f64,
    /// Cores that the broker used, where its pid is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_cpu: Option<f64>,
    /// The longest hiccup, in microseconds.
    pub hiccup_max_us: u64,
}

/// Percentiles of an interval, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalLatency {
    /// The median.
    pub p50_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The 99.9th.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
    /// Samples.
    pub count: u64,
}

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// The SLO, as given.
    pub slo: String,
    /// The highest rate that met it in every repeat, in records per second; absent if none did.
    pub knee: Option<f64>,
    /// Every run, in the order in which they were made.
    pub steps: Vec<SweepStep>,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepStep {
    /// The schedule, in records per second.
    pub rate_target: f64,
    /// What was acknowledged.
    pub rate_in: f64,
    /// Bytes of it per second.
    pub bytes_in: f64,
    /// What the run is worth.
    pub state: RunState,
    /// Whether it met the SLO.
    pub met: bool,
    /// By name, as in [`Outcome::latency`].
    pub latency: BTreeMap<String, IntervalLatency>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedded_histogram_is_read_back_whole() {
        let mut histogram = latency_histogram();
        for value in [1, 1_000, 1_000, 77_777, LATENCY_US_MAX] {
            histogram.record(value).expect("within the bounds");
        }
        let latency = Latency::new(&histogram, 2);
        assert_eq!((latency.count, latency.overflow), (7, 2));
        assert_eq!((latency.p50_us, latency.p90_us, latency.max_us), (77_823, LATENCY_US_MAX, LATENCY_US_MAX));
        assert_eq!(latency.histogram().expect("readable"), histogram);
        let damaged = Latency { hdr: "AAAA".to_owned(), ..latency };
        assert!(damaged.histogram().is_err());
    }

    #[test]
    fn only_faults_make_a_verification_unclean() {
        let allowed =
            Verification { delivered: 9, unacked_delivered: 1, unacked_lost: 2, foreign: 3, ..Default::default() };
        assert!(allowed.is_clean());
        assert!(!Verification { lost: 1, ..allowed }.is_clean());
        assert!(!Verification { phantom: 1, ..allowed }.is_clean());
    }
}
