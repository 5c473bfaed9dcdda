//! Options of `replay`, and how a workload of the OpenMessaging Benchmark becomes a load. It opens no connection.
//!
//! The file says what the load is; what the benchmark has in a driver file (brokers, replicas, acknowledgements, batches) are
//! options, named as elsewhere. Consumers are counted per topic in the file: here there are as many in all, each with its
//! share of the partitions of every topic, so that connections, rates and bytes are the benchmark's. What else is not taken
//! literally:
//!
//! | field | here |
//! |---|---|
//! | `payloadFile` | without compression random bytes, since then brokers do not look into values |
//! | `randomizedPayloadPoolSize` | values that do not repeat, where no codec would see that they do |
//! | `consumerBacklogSizeGB` | written in the warm-up, which lasts as long as that takes |
//! | `backlogDrainRatio` | a run ends when everything was read, whatever part of it would do |

use std::path::PathBuf;

use clap::Args;
use corelane::record::Codec;
use corelane::runtime::Duration;

use super::load::{CoreList, Sizes};
use super::{
    BacklogArguments, ConsumerArguments, DataArguments, GateArguments, OutputArguments, ProducerArguments,
    RunArguments, TargetArguments, UsageError, values,
};
use crate::load::keys::KeyDistribution;
use crate::load::options::{LoadOptions, ProducerOptions, StartAt};
use crate::load::payload::PayloadSource;
use crate::load::schedule::Pace;
use crate::replay::{KEYS, Keys, Payload, ReplayPlan};

/// Bytes that the codecs look back at their usual levels, at most (zstd's 2 MiB): values that repeat within them are
/// compressed away.
const WINDOW_BYTES: u64 = 2 << 20;
/// Pairs of a producer and a partition: each takes 3 KiB before anything is sent, all of them 1.5 GiB.
const PAIRS_MAX: u64 = 512 << 10;

/// The options of `loadgen replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArguments {
    /// A workload file
    #[arg(value_name = "WORKLOAD.yaml")]
    pub workload: PathBuf,
    /// Brokers to begin with
    #[arg(long, value_name = "HOST:PORT,...")]
    pub bootstrap_server: Option<String>,
    /// Topics are NAME-0, NAME-1 … [default: replay- and the partitions of each]
    #[arg(long, value_name = "NAME")]
    pub topic: Option<String>,
    /// Replicas of each partition
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..))]
    pub replication_factor: i16,
    /// Configures the topics that are created; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::assignment)]
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
    /// Measured time in place of testDurationMinutes
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub duration: Option<Duration>,
    /// Time before it in place of warmupDurationMinutes
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub warmup: Option<Duration>,
    /// Threads that make load; by default half of the cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Cores of these threads, like 0,2-3; one thread a core unless --threads says otherwise
    #[arg(long, value_name = "CORES", value_parser = super::load::parse_cores)]
    pub cpu_list: Option<CoreList>,
    /// What chance is made of: the same seed gives the same records
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Requests in flight per connection [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_inflight: Option<u32>,
    /// Who acknowledges: 0, 1, all [default: all]
    #[arg(long, value_name = "ACKS")]
    pub acks: Option<String>,
    /// Milliseconds that a batch waits for more records [default: 0]
    #[arg(long, value_name = "MS")]
    pub linger_ms: Option<u64>,
    /// Bytes of a batch at most [default: 16384]
    #[arg(long, value_name = "BYTES")]
    pub batch_size: Option<usize>,
    /// Gives producers ids, and sends again what is not answered
    #[arg(long)]
    pub idempotence: bool,
    /// none, gzip, snappy, lz4, zstd [default: none]
    #[arg(long, value_name = "CODEC")]
    pub compression_type: Option<String>,
    /// Bytes for which a broker waits before it answers a fetch [default: 1]
    #[arg(long, value_name = "BYTES")]
    pub fetch_min_bytes: Option<i32>,
    /// Milliseconds that it waits for them [default: 500]
    #[arg(long, value_name = "MS")]
    pub fetch_max_wait_ms: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it says what it is")]
    pub output: OutputArguments,
    #[command(flatten)]
    #[allow(missing_docs, reason = "it says what it is")]
    pub gate: GateArguments,
}

/// What of a workload cannot be run here.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Unfit {
    /// More than memory takes.
    #[error(
        "'topics', 'partitionsPerTopic' and 'producersPerTopic' make {0} pairs of a producer and a partition, and \
         {PAIRS_MAX} are kept at most"
    )]
    Pairs(u64),
    /// More than a protocol's 32 bits.
    #[error("'{0}' is too large")]
    Large(&'static str),
}

impl ReplayArguments {
    /// The topics of a workload, and where they are.
    pub fn target(&self, plan: &ReplayPlan) -> Result<TargetArguments, UsageError> {
        let partitions = i32::try_from(plan.partitions_per_topic).map_err(|_| Unfit::Large("partitionsPerTopic"))?;
        Ok(TargetArguments {
            bootstrap_server: self.bootstrap_server.clone(),
            // With the partitions in the name one workload does not meet the topics of another.
            topic: self.topic.clone().unwrap_or_else(|| format!("replay-{partitions}")),
            topics: Some(plan.topics),
            create: true,
            partitions,
            replication_factor: self.replication_factor,
            topic_config: self.topic_config.clone(),
            command_config: self.command_config.clone(),
            command_property: self.command_property.clone(),
            broker_pid: self.broker_pid,
        })
    }

    /// The load. Without a rate in the workload it has no schedule.
    pub fn options(&self, plan: &ReplayPlan) -> Result<LoadOptions, UsageError> {
        let producers = totalled("producersPerTopic", plan.producers_per_topic, plan.topics)?;
        let pairs = u64::from(producers) * u64::from(plan.partitions_per_topic);
        if pairs > PAIRS_MAX {
            return Err(Unfit::Pairs(pairs).into());
        }
        let target = self.target(plan)?;
        let properties = target.properties()?;
        let pace = plan.rate.map(Pace::steady);
        let mut producers = self.producers(producers).options(pace, &data(plan), &properties)?;
        producers.one_topic_each = true;
        if producers.codec != Codec::None {
            producers.payload = compressible(&plan.payload, plan.record_bytes);
        }
        let consumers = totalled("consumerPerSubscription", plan.consumers_per_subscription, plan.topics)?;
        totalled("subscriptionsPerTopic", consumers, plan.subscriptions_per_topic)?;
        let consumers = match (consumers, plan.subscriptions_per_topic) {
            (0, _) | (_, 0) => None,
            (count, sets) => {
                let backlog = BacklogArguments { backlog_bytes: plan.backlog.map(|backlog| backlog.bytes as f64) };
                let consumers = self.consumers(count, sets).options(&backlog, StartAt::Latest, &properties)?;
                if consumers.from != StartAt::Latest {
                    let what = "what earlier runs left is no part of the workload".to_owned();
                    return Err(UsageError::Property { key: "auto.offset.reset".to_owned(), what });
                }
                Some(consumers)
            }
        };
        let warmup = self.warmup.unwrap_or(plan.warmup).max(time_of_backlog(plan, &producers));
        let duration = Some(self.duration.unwrap_or(plan.duration));
        let (threads, cpu_list) = (self.threads, self.cpu_list.clone());
        let run = RunArguments { duration, warmup, num_records: None, threads, cpu_list, seed: self.seed };
        let mut options = run.load(&target, &properties, Some(producers), consumers)?;
        options.interval = self.output.interval.unwrap_or(options.interval);
        Ok(options)
    }

    fn producers(&self, producers: u32) -> ProducerArguments {
        ProducerArguments {
            arrival: None,
            max_inflight: self.max_inflight,
            on_overload: None,
            producers,
            connections: 1,
            acks: self.acks.clone(),
            linger_ms: self.linger_ms,
            batch_size: self.batch_size,
            batch_records: None,
            idempotence: self.idempotence,
            compression_type: self.compression_type.clone(),
        }
    }

    fn consumers(&self, consumers: u32, subscriptions: u32) -> ConsumerArguments {
        ConsumerArguments {
            consumers,
            subscriptions,
            fetch_min_bytes: self.fetch_min_bytes,
            fetch_max_wait_ms: self.fetch_max_wait_ms,
            from: None,
            slow_consumer: None,
        }
    }
}

/// What the records hold.
fn data(plan: &ReplayPlan) -> DataArguments {
    let (key_dist, keys) = match plan.keys {
        Keys::None => (KeyDistribution::None, KEYS),
        Keys::RoundRobin(keys) => (KeyDistribution::RoundRobin, keys),
        Keys::Uniform(keys) => (KeyDistribution::Uniform, keys),
    };
    let payload_entropy = match plan.payload {
        Payload::Random { entropy, .. } => entropy,
        Payload::File(_) => 1.0,
    };
    let record_size = Sizes(plan.record_bytes..=plan.record_bytes);
    DataArguments { record_size, payload_entropy, payload_file: None, headers: 0, keys, key_dist }
}

/// Values that a codec finds as compressible as the workload's.
fn compressible(payload: &Payload, record_bytes: usize) -> PayloadSource {
    match payload {
        Payload::File(path) => PayloadSource::Constant(path.clone()),
        Payload::Random { pool, entropy } if u64::from(*pool) * (record_bytes as u64) < WINDOW_BYTES => {
            PayloadSource::Repeated { values: *pool, entropy: *entropy }
        }
        Payload::Random { entropy, .. } => PayloadSource::Entropy(*entropy),
    }
}

/// How many there are of something of which each topic has some.
fn totalled(field: &'static str, per_topic: u32, topics: u32) -> Result<u32, Unfit> {
    per_topic.checked_mul(topics).ok_or(Unfit::Large(field))
}

/// How long it takes until consumers begin.
fn time_of_backlog(plan: &ReplayPlan, producers: &ProducerOptions) -> Duration {
    let (Some(backlog), Some(pace)) = (plan.backlog, producers.pace) else { return Duration::ZERO };
    Duration::from_secs_f64(backlog.bytes as f64 / (pace.to * plan.record_bytes as f64))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, CommandLine};
    use crate::replay::Workload;

    const WORKLOAD: &str = "
topics: 3
partitionsPerTopic: 4
keyDistributor: KEY_ROUND_ROBIN
messageSize: 500
useRandomizedPayloads: true
randomBytesRatio: 0.25
randomizedPayloadPoolSize: 100
subscriptionsPerTopic: 1
consumerPerSubscription: 2
producersPerTopic: 5
producerRate: 3000
testDurationMinutes: 2
";

    fn options(replaced: &[(&str, &str)], arguments: &[&str]) -> Result<LoadOptions, UsageError> {
        let text = replaced.iter().fold(WORKLOAD.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let plan = Workload::parse(&text).unwrap().plan().unwrap();
        let fixed = ["loadgen", "replay", "w.yaml", "--bootstrap-server", "127.0.0.1:9092"];
        match CommandLine::try_parse_from(fixed.iter().chain(arguments)).unwrap().command() {
            Command::Replay(arguments) => arguments.options(&plan),
            other => panic!("{other:?}"),
        }
    }

    fn unfit(replaced: &[(&str, &str)], arguments: &[&str]) -> Unfit {
        match options(replaced, arguments) {
            Err(UsageError::Unfit(unfit)) => unfit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn counts_of_a_topic_become_counts_of_the_load() {
        let options = options(&[], &["--linger-ms", "3", "--topic-config", "a=b"]).unwrap();
        assert_eq!(options.topics.names, ["replay-4-0", "replay-4-1", "replay-4-2"]);
        let shape = options.topics.create.unwrap();
        assert_eq!((shape.partitions, shape.configs), (4, vec![("a".to_owned(), "b".to_owned())]));
        let producers = options.producers.unwrap();
        assert_eq!(
            (producers.count, producers.pace, producers.record_bytes),
            (15, Some(Pace::steady(3000.0)), 500..=500)
        );
        assert_eq!((producers.key_distribution, producers.keys), (KeyDistribution::RoundRobin, 10_000));
        assert_eq!(producers.payload, crate::load::payload::PayloadSource::Entropy(0.25));
        assert_eq!((producers.linger, options.consumers.unwrap().count), (Duration::from_millis(3), 6));
        assert_eq!((options.warmup.as_secs(), options.duration.as_secs()), (60, 120));
    }

    #[test]
    fn times_can_be_shortened_but_not_below_that_of_the_backlog() {
        let backlog = ("testDurationMinutes: 2", "testDurationMinutes: 2\nconsumerBacklogSizeGB: 3");
        let given = ["--duration", "7s", "--warmup", "1s"];
        let short = options(&[], &given).unwrap();
        assert_eq!((short.warmup.as_secs(), short.duration.as_secs()), (1, 7));
        // 3 GiB at 3000 × 500 B a second.
        let backlogged = options(&[backlog], &given).unwrap();
        assert_eq!((backlogged.warmup.as_secs(), backlogged.duration.as_secs()), (2147, 7));
        assert_eq!(backlogged.consumers.unwrap().backlog_bytes, 3 << 30);
    }

    #[test]
    fn a_workload_may_have_no_consumers_and_no_rate() {
        let alone = options(&[("PerSubscription: 2", "PerSubscription: 0"), ("Rate: 3000", "Rate: 0")], &[]).unwrap();
        assert!(alone.consumers.is_none() && alone.producers.unwrap().pace.is_none());
    }

    #[test]
    fn every_subscription_is_a_set_of_consumers_and_every_producer_has_its_topic() {
        let options = options(&[("subscriptionsPerTopic: 1", "subscriptionsPerTopic: 2")], &[]).unwrap();
        let consumers = options.consumers.unwrap();
        assert_eq!((consumers.count, consumers.sets, consumers.total()), (6, 2, 12));
        assert!(options.producers.unwrap().one_topic_each);
    }

    #[test]
    fn values_repeat_where_a_codec_would_see_that() {
        let payload = |replaced: &[(&str, &str)], codec: &str| {
            options(replaced, &["--compression-type", codec]).unwrap().producers.unwrap().payload
        };
        assert_eq!(payload(&[], "none"), PayloadSource::Entropy(0.25));
        assert_eq!(payload(&[], "zstd"), PayloadSource::Repeated { values: 100, entropy: 0.25 });
        assert_eq!(payload(&[("PoolSize: 100", "PoolSize: 5000")], "zstd"), PayloadSource::Entropy(0.25));
        let file = [
            ("useRandomizedPayloads: true", "payloadFile: p"),
            ("randomBytesRatio: 0.25", ""),
            ("randomizedPayloadPoolSize: 100", ""),
        ];
        assert_eq!(payload(&file, "zstd"), PayloadSource::Constant("p".into()));
        assert_eq!(payload(&file, "none"), PayloadSource::Entropy(1.0));
    }

    #[test]
    fn what_cannot_be_run_as_it_stands_is_named() {
        assert_eq!(unfit(&[("topics: 3", "topics: 40000")], &[]), Unfit::Pairs(800_000));
        assert_eq!(unfit(&[("PerTopic: 5", "PerTopic: 4000000000")], &[]), Unfit::Large("producersPerTopic"));
        let groups = [("subscriptionsPerTopic: 1", "subscriptionsPerTopic: 4000000000")];
        assert_eq!(unfit(&groups, &[]), Unfit::Large("subscriptionsPerTopic"));
        let earliest = options(&[], &["--command-property", "auto.offset.reset=earliest"]);
        assert!(earliest.unwrap_err().to_string().contains("no part of the workload"));
    }
}
