//! What a load consists of: everything that a run needs to know, checked and resolved, with nothing of the command line.
//!
//! Rates are of all producers together, sizes are bytes, times are durations. Who makes these options sees to their being
//! possible; the parts of the engine only assert it.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use corelane::record::Codec;
use corelane::runtime::Duration;
use corelane::wire::produce::Acks;

use super::keys::KeyDistribution;
use super::payload::PayloadSource;
use super::schedule::{Arrival, Pace};
use crate::client::Bootstrap;

/// Requests in flight per partition that a broker can tell apart from new ones when they are sent again (KIP-98).
pub const IDEMPOTENT_INFLIGHT_MAX: usize = 5;

/// Everything about a run.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where to find the brokers.
    pub bootstrap: Bootstrap,
    /// The topics.
    pub topics: TopicOptions,
    /// Threads of load, each with its share of producers and consumers.
    pub threads: u16,
    /// The cores that the threads are pinned to, one after the other; empty: unpinned.
    pub cores: Vec<usize>,
    /// The producers; `None`: there are none.
    pub producers: Option<ProducerOptions>,
    /// The consumers; `None`: there are none.
    pub consumers: Option<ConsumerOptions>,
    /// Time before the measured one.
    pub warmup: Duration,
    /// Measured time.
    pub duration: Duration,
    /// Measured records after which the run ends early.
    pub num_records: Option<u64>,
    /// Length of the steps of the series.
    pub interval: Duration,
    /// What chance is made of.
    pub seed: u64,
    /// The broker's process, where it is on this machine and known.
    pub broker_pid: Option<u32>,
    /// A file that does not exist yet, which is told what becomes of each batch. It is of one topic.
    pub journal: Option<PathBuf>,
}

impl LoadOptions {
    /// Records per second over the first `seconds` of the measured time; `None` without a schedule.
    pub fn rate_target(&self, seconds: f64) -> Option<f64> {
        let pace = self.producers.as_ref()?.pace?;
        let warmup = self.warmup.as_secs_f64();
        Some((pace.due_by(warmup + seconds) - pace.due_by(warmup)) / seconds)
    }

    /// A run of 30 seconds on one topic that exists, by one thread, with nobody in it yet.
    pub fn new(bootstrap: Bootstrap, topic: &str) -> LoadOptions {
        LoadOptions {
            bootstrap,
            topics: TopicOptions { names: vec![topic.to_owned()], create: None },
            threads: 1,
            cores: Vec::new(),
            producers: None,
            consumers: None,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(30),
            num_records: None,
            interval: Duration::from_secs(1),
            seed: 1,
            broker_pid: None,
            journal: None,
        }
    }
}

/// Which topics, and how to make them.
#[derive(Clone, Debug)]
pub struct TopicOptions {
    /// Their names.
    pub names: Vec<String>,
    /// How to create those that do not exist.
    pub create: Option<TopicShape>,
}

/// What a created topic is like.
#[derive(Clone, Debug)]
pub struct TopicShape {
    /// Its partitions.
    pub partitions: i32,
    /// Replicas of each.
    pub replication_factor: i16,
    /// Its configuration.
    pub configs: Vec<(String, String)>,
}

/// What producers do.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// How many there are.
    pub count: u32,
    /// Whether each writes to one topic only, the first one to the first and so on, round and round; else to all of them.
    pub one_topic_each: bool,
    /// Connections of each to every leader; partitions keep to one.
    pub connections: usize,
    /// The schedule; `None`: as fast as the brokers acknowledge.
    pub pace: Option<Pace>,
    /// How records are spread over time.
    pub arrival: Arrival,
    /// What happens to records that are due while every request slot is taken.
    pub overload: Overload,
    /// Requests in flight per connection.
    pub inflight_max: usize,
    /// Who acknowledges.
    pub acks: Acks,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// Bytes of a batch at most, uncompressed; a single record may be larger.
    pub batch_bytes: usize,
    /// Records of a batch at most.
    pub batch_records: u32,
    /// Bytes of a request at most; a single batch may be larger.
    pub request_bytes: usize,
    /// Whether producers have ids and send again what is not answered.
    pub idempotence: bool,
    /// Whether what a broker refuses for now is sent again. Without idempotence that may change the order of a partition's
    /// records, since others are in flight meanwhile.
    pub retries: bool,
    /// The batches' codec.
    pub codec: Codec,
    /// How long a batch may take from being sealed to being acknowledged, retries included, before it is given up.
    pub delivery_timeout: Duration,
    /// Values.
    pub payload: PayloadSource,
    /// Bytes of a value, evenly drawn.
    pub record_bytes: RangeInclusive<usize>,
    /// Headers of a record.
    pub headers: usize,
    /// How keys are drawn.
    pub key_distribution: KeyDistribution,
    /// How many keys there are.
    pub keys: usize,
}

impl Default for ProducerOptions {
    /// One producer without a schedule, of records of 1 KiB without keys, with the defaults of Kafka's client elsewhere; where
    /// its newest version deviates from older ones, that of the newest, but without idempotence.
    fn default() -> ProducerOptions {
        ProducerOptions {
            count: 1,
            one_topic_each: false,
            connections: 1,
            pace: None,
            arrival: Arrival::Uniform,
            overload: Overload::Queue,
            inflight_max: 5,
            acks: Acks::All,
            linger: Duration::ZERO,
            batch_bytes: 16_384,
            batch_records: u32::MAX,
            request_bytes: 1 << 20,
            idempotence: false,
            retries: true,
            codec: Codec::None,
            delivery_timeout: Duration::from_secs(120),
            payload: PayloadSource::Entropy(1.0),
            record_bytes: 1024..=1024,
            headers: 0,
            key_distribution: KeyDistribution::None,
            keys: 10_000,
        }
    }
}

/// What to do when the brokers are slower than the schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overload {
    /// Records wait; their latency counts from when they were due.
    Queue,
    /// Records that cannot be batched when they are due are left out, and counted.
    Drop,
    /// The run ends.
    Abort,
}

/// What consumers do.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// How many there are in a set; they split the partitions among themselves.
    pub count: u32,
    /// Sets of consumers, each of which reads everything.
    pub sets: u32,
    /// Where they begin.
    pub from: StartAt,
    /// Bytes for which a broker waits before it answers.
    pub fetch_bytes_min: i32,
    /// How long it waits for them.
    pub fetch_wait_max: Duration,
    /// Bytes of an answer at most.
    pub fetch_bytes_max: i32,
    /// Bytes of a partition in an answer at most.
    pub partition_bytes_max: i32,
    /// How long a consumer rests after each answer with records.
    pub rest: Duration,
    /// Bytes that producers are ahead before consumers begin.
    pub backlog_bytes: u64,
}

impl Default for ConsumerOptions {
    /// One consumer of what is written from now on, with the defaults of Kafka's client.
    fn default() -> ConsumerOptions {
        ConsumerOptions {
            count: 1,
            sets: 1,
            from: StartAt::Latest,
            fetch_bytes_min: 1,
            fetch_wait_max: Duration::from_millis(500),
            fetch_bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
            rest: Duration::ZERO,
            backlog_bytes: 0,
        }
    }
}

impl ConsumerOptions {
    /// Consumers of all sets.
    pub fn total(&self) -> u32 {
        self.count * self.sets
    }
}

/// Where consumers begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartAt {
    /// With the oldest record.
    Earliest,
    /// With the first that is written after the start.
    Latest,
}
