//! What a load consists of: everything that a run needs to know, checked and resolved, with nothing of the command line.
//!
//! Rates are of all producers together, sizes are bytes, times are durations. Who makes these options sees to their being
//! possible; the parts of the engine only assert it.

use std::ops::RangeInclusive;

use corelane::record::Codec;
use corelane::runtime::Duration;
use corelane::wire::produce::Acks;

use super::keys::KeyDistribution;
use super::payload::PayloadSource;
use super::schedule::{Arrival, Pace};
use crate::client::Bootstrap;

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
    /// How many there are; they split the partitions among themselves.
    pub count: u32,
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

/// Where consumers begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartAt {
    /// With the oldest record.
    Earliest,
    /// With the first that is written after the start.
    Latest,
}
