//! Options of the subcommands that make load, and how they become [`LoadOptions`].
//!
//! Conventional names come first: those of Kafka's own tools and clients. A flag wins over `--command-property`, that over
//! `--command-config`, that over the default.

use std::path::PathBuf;

use clap::Args;
use corelane::record::Codec;
use corelane::runtime::{Duration, startup};
use corelane::wire::produce::Acks;

use super::UsageError;
use super::properties::Properties;
use super::values;
use crate::client::{Bootstrap, ConnectionOptions};
use crate::load::HEADERS_MAX;
use crate::load::keys::KeyDistribution;
use crate::load::options::{
    ConsumerOptions, IDEMPOTENT_INFLIGHT_MAX, LoadOptions, Overload, ProducerOptions, StartAt, TopicOptions, TopicShape,
};
use crate::load::payload::PayloadSource;
use crate::load::schedule::{Arrival, Pace};

/// The brokers and the topics.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Target")]
pub struct TargetArguments {
    /// Brokers to begin with [default: localhost:9092]
    #[arg(long, value_name = "HOST:PORT,...")]
    pub bootstrap_server: Option<String>,
    /// The topic
    #[arg(long, value_name = "NAME", default_value = "loadgen")]
    pub topic: String,
    /// Several topics: NAME-0, NAME-1 …
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub topics: Option<u32>,
    /// Creates topics that do not exist
    #[arg(long)]
    pub create: bool,
    /// Partitions of a topic that is created
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..), requires = "create")]
    pub partitions: i32,
    /// Replicas of each partition of a topic that is created
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..), requires = "create")]
    pub replication_factor: i16,
    /// Configures a topic that is created; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::assignment, requires = "create")]
    pub topic_config: Vec<(String, String)>,
    /// Properties of Kafka's clients, a line each
    #[arg(long, value_name = "FILE")]
    pub command_config: Option<PathBuf>,
    /// A property of Kafka's clients; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::assignment)]
    pub command_property: Vec<(String, String)>,
    /// The broker's process on this machine: its CPU, memory and writes become part of the result
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
}

/// How long, and on what.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Run")]
pub struct RunArguments {
    /// Measured time [default: 30s, and with --num-records until they are done]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub duration: Option<Duration>,
    /// Time before it
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    pub warmup: Duration,
    /// Ends the run after so many measured records, if a given duration has not ended it before
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub num_records: Option<u64>,
    /// Threads that make load; by default half of the cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Cores of these threads, like 0,2-3; one thread a core unless --threads says otherwise
    #[arg(long, value_name = "CORES", value_parser = parse_cores)]
    pub cpu_list: Option<CoreList>,
    /// What chance is made of: the same seed gives the same records
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// How fast producers are.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Producers")]
pub struct PaceArguments {
    /// Records per second, of all producers together, like 500, 10k, 1.5M; -1: as fast as they are acknowledged
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// Bytes of values per second in place of records
    #[arg(long, value_name = "RATE", value_parser = values::scaled, conflicts_with_all = ["rate", "payload_file"])]
    pub rate_bytes: Option<f64>,
    /// A rate that changes in a straight line and then stays, like 10k..1M/60s
    #[arg(long, value_name = "FROM..TO/TIME", value_parser = values::ramp, conflicts_with_all = ["rate", "rate_bytes"])]
    pub ramp: Option<Pace>,
}

/// What producers do.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Producers")]
pub struct ProducerArguments {
    /// How a schedule spreads records over time: uniform, poisson, burst, burst:PERIOD [default: uniform]
    #[arg(long, value_name = "HOW", value_parser = values::arrival)]
    pub arrival: Option<Arrival>,
    /// Requests in flight per connection [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_inflight: Option<u32>,
    /// What happens to records that are due while the brokers are slower than the schedule: queue, drop, abort [default: queue]
    #[arg(long, value_name = "HOW", value_parser = values::overload)]
    pub on_overload: Option<Overload>,
    /// Producers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub producers: u32,
    /// Connections of each producer to every leader
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Who acknowledges: 0, 1, all [default: all]
    #[arg(long, value_name = "ACKS")]
    pub acks: Option<String>,
    /// Milliseconds that a batch waits for more records [default: 0]
    #[arg(long, value_name = "MS")]
    pub linger_ms: Option<u64>,
    /// Bytes of a batch at most [default: 16384]
    #[arg(long, value_name = "BYTES")]
    pub batch_size: Option<usize>,
    /// Records of a batch at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_records: Option<u32>,
    /// Gives producers ids, and sends again what is not answered
    #[arg(long)]
    pub idempotence: bool,
    /// none, gzip, snappy, lz4, zstd [default: none]
    #[arg(long, value_name = "CODEC")]
    pub compression_type: Option<String>,
}

/// What records hold.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Records")]
pub struct DataArguments {
    /// Bytes of a value, or a range of them; 40 of them are a stamp
    #[arg(long, value_name = "N|N..M", default_value = "1024", value_parser = parse_sizes)]
    pub record_size: Sizes,
    /// The share of each value that no codec can shorten
    #[arg(long, value_name = "0..1", default_value = "1", value_parser = values::share, conflicts_with = "payload_file")]
    pub payload_entropy: f64,
    /// Values are the lines of this file, each behind a stamp
    #[arg(long, value_name = "FILE", conflicts_with = "record_size")]
    pub payload_file: Option<PathBuf>,
    /// Headers of a record, each with a value of 16 bytes
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=HEADERS_MAX as i64))]
    pub headers: u32,
    /// How many keys there are
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "key_dist")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub keys: u32,
    /// How keys are drawn: none, rr, uniform, zipf:THETA, hot:SHARE
    #[arg(long, value_name = "HOW", default_value = "none", value_parser = values::key_distribution)]
    pub key_dist: KeyDistribution,
}

/// What consumers do.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Consumers")]
pub struct ConsumerArguments {
    /// Consumers, which split the partitions among themselves
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub consumers: u32,
    /// Sets of so many consumers, each of which reads everything
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub subscriptions: u32,
    /// Bytes for which a broker waits before it answers a fetch [default: 1]
    #[arg(long, value_name = "BYTES")]
    pub fetch_min_bytes: Option<i32>,
    /// Milliseconds that it waits for them [default: 500]
    #[arg(long, value_name = "MS")]
    pub fetch_max_wait_ms: Option<u64>,
    /// Where consumers begin: earliest, latest; by default with the run's own records, and `consume` with the oldest
    #[arg(long, value_name = "WHERE", value_parser = values::start_at)]
    pub from: Option<StartAt>,
    /// How long a consumer rests after each answer
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub slow_consumer: Option<Duration>,
}

/// What only a run with producers and consumers has.
#[derive(Clone, Debug, Default, Args)]
pub struct BacklogArguments {
    /// Bytes that producers are ahead before consumers begin, like 500M
    #[arg(long, value_name = "BYTES", value_parser = values::scaled, help_heading = "Consumers")]
    pub backlog_bytes: Option<f64>,
}

/// A rate as it was given.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate(pub Option<f64>);

/// Sizes as they were given.
#[derive(Clone, PartialEq, Debug)]
pub struct Sizes(pub std::ops::RangeInclusive<usize>);

/// Cores as they were given.
#[derive(Clone, PartialEq, Debug)]
pub struct CoreList(pub Vec<usize>);

pub(super) fn parse_cores(text: &str) -> Result<CoreList, String> {
    values::cores(text).map(CoreList)
}

pub(super) fn parse_rate(text: &str) -> Result<Rate, String> {
    values::rate(text).map(Rate)
}

fn parse_sizes(text: &str) -> Result<Sizes, String> {
    values::sizes(text).map(Sizes)
}

/// Measured time, unless something else is given.
const DURATION: Duration = Duration::from_secs(30);
/// The same of a run that ends with its last record: without end, but for a forgotten one.
const DAY: Duration = Duration::from_secs(24 * 3600);

impl TargetArguments {
    /// The properties of Kafka's clients that were given.
    pub fn properties(&self) -> Result<Properties, UsageError> {
        Properties::read(self.command_config.as_deref(), &self.command_property)
    }

    /// `--bootstrap-server`, from wherever it was given.
    pub fn servers(&self, properties: &Properties) -> String {
        let given = self.bootstrap_server.as_deref().or_else(|| properties.text("bootstrap.servers"));
        given.unwrap_or("localhost:9092").to_owned()
    }

    /// Resolves the brokers. Blocks.
    pub fn bootstrap(&self, properties: &Properties) -> Result<Bootstrap, UsageError> {
        let mut options = ConnectionOptions::default();
        if let Some(id) = properties.text("client.id") {
            options.client_id = id.to_owned();
        }
        if let Some(time) = properties.milliseconds("request.timeout.ms")? {
            options.silence_max = time;
        }
        Ok(Bootstrap::resolve(&self.servers(properties), options)?)
    }

    /// The topics.
    pub fn topics(&self) -> TopicOptions {
        let names = match self.topics {
            None => vec![self.topic.clone()],
            Some(count) => (0..count).map(|number| format!("{}-{number}", self.topic)).collect(),
        };
        let (partitions, replication_factor) = (self.partitions, self.replication_factor);
        let shape = TopicShape { partitions, replication_factor, configs: self.topic_config.clone() };
        TopicOptions { names, create: self.create.then_some(shape) }
    }
}

impl RunArguments {
    /// The options of a run with these producers and consumers.
    pub fn load(
        &self,
        target: &TargetArguments,
        properties: &Properties,
        producers: Option<ProducerOptions>,
        consumers: Option<ConsumerOptions>,
    ) -> Result<LoadOptions, UsageError> {
        let cores = self.cpu_list.clone().map_or_else(Vec::new, |list| list.0);
        if let Some(core) = cores.iter().find(|core| !(0..).map_while(startup::core).any(|known| known == **core)) {
            return Err(UsageError::Core(*core));
        }
        let actors = producers.as_ref().map_or(0, |it| it.count) + consumers.as_ref().map_or(0, |it| it.total());
        let default = if cores.is_empty() { startup::cores().div_ceil(2) } else { cores.len() };
        let default = default.min(actors as usize).clamp(1, 1024) as u16;
        let threads = self.threads.unwrap_or(default);
        let pinned = (0..usize::from(threads)).filter_map(|thread| cores.get(thread % cores.len().max(1)).copied());
        properties.all_used()?;
        Ok(LoadOptions {
            bootstrap: target.bootstrap(properties)?,
            topics: target.topics(),
            threads,
            cores: pinned.collect(),
            producers,
            consumers,
            warmup: self.warmup,
            duration: self.duration.unwrap_or(if self.num_records.is_some() { DAY } else { DURATION }),
            num_records: self.num_records,
            interval: Duration::from_secs(1),
            seed: self.seed,
            broker_pid: target.broker_pid,
            journal: None,
        })
    }
}

impl PaceArguments {
    /// The schedule of records like these; `None`: there is none.
    pub fn pace(&self, data: &DataArguments) -> Option<Pace> {
        let record_bytes = &data.record_size.0;
        let mean = (record_bytes.start() + record_bytes.end()) as f64 / 2.0;
        let steady = self.rate.and_then(|rate| rate.0).or_else(|| self.rate_bytes.map(|bytes| bytes / mean));
        self.ramp.or(steady.map(Pace::steady))
    }
}

impl ProducerArguments {
    /// What producers do, on this schedule and with records like these.
    pub fn options(
        &self,
        pace: Option<Pace>,
        data: &DataArguments,
        properties: &Properties,
    ) -> Result<ProducerOptions, UsageError> {
        if pace.is_none() && (self.arrival.is_some() || self.on_overload.is_some()) {
            return Err(UsageError::Unscheduled);
        }
        let acks = match self.acks.as_deref().or_else(|| properties.text("acks")) {
            None | Some("all" | "-1") => Acks::All,
            Some("1") => Acks::Leader,
            Some("0") => Acks::None,
            Some(other) => return Err(UsageError::Acks(other.to_owned())),
        };
        let idempotence = self.idempotence || properties.flag("enable.idempotence")?;
        if idempotence && acks != Acks::All {
            return Err(UsageError::IdempotentAcks);
        }
        let default = ProducerOptions::default();
        let inflight = properties.number("max.in.flight.requests.per.connection")?;
        let inflight_max = self.max_inflight.map(|max| max as usize).or(inflight).unwrap_or(default.inflight_max);
        if inflight_max == 0 || idempotence && inflight_max > IDEMPOTENT_INFLIGHT_MAX {
            return Err(UsageError::Inflight(inflight_max));
        }
        let codec = self.compression_type.as_deref().or_else(|| properties.text("compression.type")).unwrap_or("none");
        let known = Codec::ALL.into_iter().find(|known| known.name() == codec);
        let linger = self.linger_ms.map(Duration::from_millis).or(properties.milliseconds("linger.ms")?);
        let payload = match &data.payload_file {
            Some(path) => PayloadSource::File(path.clone()),
            None => PayloadSource::Entropy(data.payload_entropy),
        };
        Ok(ProducerOptions {
            count: self.producers,
            one_topic_each: default.one_topic_each,
            connections: self.connections as usize,
            pace,
            arrival: self.arrival.unwrap_or(default.arrival),
            overload: self.on_overload.unwrap_or(default.overload),
            inflight_max,
            acks,
            linger: linger.unwrap_or(default.linger),
            batch_bytes: self.batch_size.or(properties.number("batch.size")?).unwrap_or(default.batch_bytes),
            batch_records: self.batch_records.unwrap_or(default.batch_records),
            request_bytes: properties.number("max.request.size")?.unwrap_or(default.request_bytes),
            idempotence,
            retries: default.retries,
            codec: known.ok_or_else(|| UsageError::Codec(codec.to_owned()))?,
            delivery_timeout: properties.milliseconds("delivery.timeout.ms")?.unwrap_or(default.delivery_timeout),
            payload,
            record_bytes: data.record_size.0.clone(),
            headers: data.headers as usize,
            key_distribution: data.key_dist,
            keys: data.keys as usize,
        })
    }
}

impl ConsumerArguments {
    /// What consumers do; where they begin unless that is given.
    pub fn options(
        &self,
        backlog: &BacklogArguments,
        from: StartAt,
        properties: &Properties,
    ) -> Result<ConsumerOptions, UsageError> {
        let given = match properties.text("auto.offset.reset") {
            None => None,
            Some(text) => Some(
                values::start_at(text)
                    .map_err(|error| UsageError::Property { key: "auto.offset.reset".to_owned(), what: error })?,
            ),
        };
        let wait = self.fetch_max_wait_ms.map(Duration::from_millis).or(properties.milliseconds("fetch.max.wait.ms")?);
        let default = ConsumerOptions::default();
        let fetch_bytes_min = self.fetch_min_bytes.or(properties.number("fetch.min.bytes")?);
        let partition_bytes_max = properties.number("max.partition.fetch.bytes")?;
        Ok(ConsumerOptions {
            count: self.consumers,
            sets: self.subscriptions,
            from: self.from.or(given).unwrap_or(from),
            fetch_bytes_min: fetch_bytes_min.unwrap_or(default.fetch_bytes_min),
            fetch_wait_max: wait.unwrap_or(default.fetch_wait_max),
            fetch_bytes_max: properties.number("fetch.max.bytes")?.unwrap_or(default.fetch_bytes_max),
            partition_bytes_max: partition_bytes_max.unwrap_or(default.partition_bytes_max),
            rest: self.slow_consumer.unwrap_or(default.rest),
            backlog_bytes: backlog.backlog_bytes.unwrap_or(0.0) as u64,
        })
    }
}
