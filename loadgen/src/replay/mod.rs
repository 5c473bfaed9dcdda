//! Reading a workload file of the OpenMessaging Benchmark, unchanged, and what it asks of a load generator.
//!
//! Two steps: [`Workload::parse`] takes the file at its word, field by field, and [`Workload::plan`] turns it into what an
//! engine needs, in units that say so. The benchmark itself takes unknown fields for comments and unknown keys for none; here
//! both are errors, and so is every field that would have no effect. It runs nothing and opens no payload file.
//!
//! Source: openmessaging/benchmark, `Workload.java` for the fields and their defaults, `WorkloadGenerator.java`
//! for what they mean, `KeyDistributor.java` for the number of keys.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::stamp::STAMP_BYTES;

/// Keys that the benchmark draws from, whatever the distribution.
pub const KEYS: u32 = 10_000;

/// Every field of a workload file.
const FIELDS: [&str; 17] = [
    "name",
    "topics",
    "partitionsPerTopic",
    "keyDistributor",
    "messageSize",
    "useRandomizedPayloads",
    "randomBytesRatio",
    "randomizedPayloadPoolSize",
    "payloadFile",
    "subscriptionsPerTopic",
    "producersPerTopic",
    "consumerPerSubscription",
    "producerRate",
    "consumerBacklogSizeGB",
    "backlogDrainRatio",
    "testDurationMinutes",
    "warmupDurationMinutes",
];

/// The fields of a driver file, which stands beside the workload and says how to reach and to configure a system.
const DRIVER_FIELDS: [&str; 6] =
    ["driverClass", "replicationFactor", "topicConfig", "commonConfig", "producerConfig", "consumerConfig"];

/// How alike two names are, from 0 to 1, for one to be offered in place of the other.
const SIMILARITY_MIN: f64 = 0.7;

/// A workload file as it is written: what the file does not say has the benchmark's default.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// Topics to create.
    pub topics: u32,
    /// Partitions of each.
    pub partitions_per_topic: u32,
    /// How keys are chosen.
    #[serde(default)]
    pub key_distributor: KeyDistributor,
    /// Bytes of a record's value.
    pub message_size: u32,
    /// Values are drawn at random instead of read from a file.
    #[serde(default)]
    pub use_randomized_payloads: bool,
    /// The part of a random value that is random, from 0 to 1; the rest is zeros.
    pub random_bytes_ratio: Option<f64>,
    /// How many random values there are.
    pub randomized_payload_pool_size: Option<u32>,
    /// The file with the value of every record.
    pub payload_file: Option<PathBuf>,
    /// Consumer groups of each topic.
    pub subscriptions_per_topic: u32,
    /// Producers of each topic.
    pub producers_per_topic: u32,
    /// Consumers of each group.
    pub consumer_per_subscription: u32,
    /// Records per second of all producers together; 0 to look for the highest rate that consumers keep up with.
    pub producer_rate: u32,
    /// GiB that are written before consumers begin, counted once for each group; 0 to begin at once.
    #[serde(default, rename = "consumerBacklogSizeGB")]
    pub consumer_backlog_size_gb: u64,
    /// The part of the backlog that is to be read before the run may end, from 0 to 1; all of it by default.
    pub backlog_drain_ratio: Option<f64>,
    /// Minutes to measure.
    pub test_duration_minutes: u32,
    /// Minutes before that.
    #[serde(default = "warmup_minutes")]
    pub warmup_duration_minutes: u32,
}

const fn warmup_minutes() -> u32 {
    1
}

/// How the benchmark chooses keys, all of them from the same [`KEYS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyDistributor {
    /// Records have no key.
    #[default]
    NoKey,
    /// One after the other.
    KeyRoundRobin,
    /// By the clock's nanoseconds.
    RandomNano,
}

/// What a workload asks of a load generator.
#[derive(Clone, PartialEq, Debug)]
pub struct ReplayPlan {
    /// What people call it.
    pub name: String,
    /// Topics.
    pub topics: u32,
    /// Partitions of each topic.
    pub partitions_per_topic: u32,
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// What the values are made of.
    pub payload: Payload,
    /// How keys are chosen.
    pub keys: Keys,
    /// Producers of each topic; each writes to that topic only.
    pub producers_per_topic: u32,
    /// Consumer groups of each topic; each reads everything.
    pub subscriptions_per_topic: u32,
    /// Consumers of each group.
    pub consumers_per_subscription: u32,
    /// Records per second of all producers together; without it the highest rate is looked for that consumers keep up with.
    pub rate: Option<f64>,
    /// How long to measure; with a backlog, counted from when it is read.
    pub duration: Duration,
    /// How long to run before that.
    pub warmup: Duration,
    /// What is written before the consumers begin.
    pub backlog: Option<Backlog>,
}

/// What values are made of.
#[derive(Clone, PartialEq, Debug)]
pub enum Payload {
    /// Random bytes, then zeros.
    Random {
        /// The part that is random, from 0 to 1.
        entropy: f64,
        /// How many different values there are.
        pool: u32,
    },
    /// The bytes of a file, the same in every record; the path is relative to the benchmark's folder.
    File(PathBuf),
}

/// How keys are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// Records have none.
    None,
    /// So many, one after the other.
    RoundRobin(u32),
    /// So many, each as likely as any other.
    Uniform(u32),
}

/// What is written before the consumers begin.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Backlog {
    /// Bytes of values that wait to be read, counted once for each group.
    pub bytes: u64,
    /// The part of it that is to be read before the run may end, from 0 to 1.
    pub drain_ratio: f64,
}

/// A file that is no workload.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// A name that no workload has.
    #[error("a workload has no field '{field}'{}", nearest.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default())]
    UnknownField {
        /// What it says.
        field: String,
        /// The field that it is most like, if it is like any.
        nearest: Option<&'static str>,
    },
    /// A field of the other kind of file.
    #[error(
        "'{0}' belongs into a driver file: how a broker is reached and configured is said with loadgen's own options"
    )]
    DriverField(String),
    /// No YAML, a field that is missing, or a value of the wrong kind; the text says where.
    #[error(transparent)]
    Yaml(#[from] serde_saphyr::Error),
}

/// A workload that cannot be run.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum PlanError {
    /// Nothing would happen.
    #[error("'{0}' is 0: there would be nothing to run")]
    Zero(&'static str),
    /// The benchmark runs such a workload until it is killed.
    #[error("'testDurationMinutes' is 0, which means without end: give the minutes to measure")]
    Endless,
    /// A value has no room for the stamp that every record carries.
    #[error("'messageSize' is {0}: every value holds a stamp of {STAMP_BYTES} bytes by which losses are found")]
    Small(u32),
    /// A part of the whole is more than the whole, or negative.
    #[error("'{field}' is {value}, and has to be from 0 to 1")]
    Ratio {
        /// The field.
        field: &'static str,
        /// What it says.
        value: f64,
    },
    /// A field that another one needs.
    #[error("'{needed}' is missing: '{field}' needs it")]
    Missing {
        /// What is missing.
        needed: &'static str,
        /// What needs it.
        field: &'static str,
    },
    /// A field that would have no effect.
    #[error("'{field}' has no effect {reason}: leave it out")]
    Idle {
        /// The field.
        field: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// No values to send.
    #[error("there is neither 'payloadFile' nor 'useRandomizedPayloads: true'")]
    NoPayload,
    /// Nobody to read the backlog.
    #[error("'consumerBacklogSizeGB' needs consumers, and there are none")]
    UnreadBacklog,
    /// Two searches at once.
    #[error("with 'consumerBacklogSizeGB' a 'producerRate' is needed: the highest rate cannot be looked for meanwhile")]
    BacklogWithoutRate,
    /// More than 64 bits count.
    #[error("'consumerBacklogSizeGB' is {0}, which is beyond all disks")]
    BacklogTooLarge(u64),
}

impl Workload {
    /// Reads a workload file.
    pub fn parse(yaml: &str) -> Result<Workload, WorkloadError> {
        // The names first, so that a slip is answered with the field that was meant and not with a list of all.
        let names: BTreeMap<String, IgnoredAny> = serde_saphyr::from_str(yaml)?;
        for name in names.into_keys() {
            if DRIVER_FIELDS.contains(&name.as_str()) {
                return Err(WorkloadError::DriverField(name));
            }
            if !FIELDS.contains(&name.as_str()) {
                return Err(WorkloadError::UnknownField { nearest: nearest(&name), field: name });
            }
        }
        Ok(serde_saphyr::from_str(yaml)?)
    }

    /// What it asks of a load generator.
    pub fn plan(&self) -> Result<ReplayPlan, PlanError> {
        let needed = [
            ("topics", self.topics),
            ("partitionsPerTopic", self.partitions_per_topic),
            ("producersPerTopic", self.producers_per_topic),
        ];
        if let Some((field, _)) = needed.into_iter().find(|(_, value)| *value == 0) {
            return Err(PlanError::Zero(field));
        }
        if self.test_duration_minutes == 0 {
            return Err(PlanError::Endless);
        }
        let record_bytes = self.message_size as usize;
        if record_bytes < STAMP_BYTES {
            return Err(PlanError::Small(self.message_size));
        }
        let minutes = |minutes: u32| Duration::from_secs(u64::from(minutes) * 60);
        Ok(ReplayPlan {
            name: self.name.clone(),
            topics: self.topics,
            partitions_per_topic: self.partitions_per_topic,
            record_bytes,
            payload: self.payload()?,
            keys: self.key_distributor.into(),
            producers_per_topic: self.producers_per_topic,
            subscriptions_per_topic: self.subscriptions_per_topic,
            consumers_per_subscription: self.consumer_per_subscription,
            rate: (self.producer_rate > 0).then_some(f64::from(self.producer_rate)),
            duration: minutes(self.test_duration_minutes),
            warmup: minutes(self.warmup_duration_minutes),
            backlog: self.backlog()?,
        })
    }

    fn payload(&self) -> Result<Payload, PlanError> {
        if self.use_randomized_payloads {
            if self.payload_file.is_some() {
                return Err(PlanError::Idle { field: "payloadFile", reason: "with 'useRandomizedPayloads: true'" });
            }
            let missing = |needed| PlanError::Missing { needed, field: "useRandomizedPayloads" };
            let entropy = self.random_bytes_ratio.ok_or(missing("randomBytesRatio"))?;
            let pool = self.randomized_payload_pool_size.ok_or(missing("randomizedPayloadPoolSize"))?;
            if pool == 0 {
                return Err(PlanError::Zero("randomizedPayloadPoolSize"));
            }
            return Ok(Payload::Random { entropy: ratio("randomBytesRatio", entropy)?, pool });
        }
        let reason = "without 'useRandomizedPayloads: true'";
        if self.random_bytes_ratio.is_some() {
            return Err(PlanError::Idle { field: "randomBytesRatio", reason });
        }
        if self.randomized_payload_pool_size.is_some() {
            return Err(PlanError::Idle { field: "randomizedPayloadPoolSize", reason });
        }
        self.payload_file.clone().map(Payload::File).ok_or(PlanError::NoPayload)
    }

    fn backlog(&self) -> Result<Option<Backlog>, PlanError> {
        if self.consumer_backlog_size_gb == 0 {
            return match self.backlog_drain_ratio {
                Some(_) => Err(PlanError::Idle { field: "backlogDrainRatio", reason: "without a backlog" }),
                None => Ok(None),
            };
        }
        if self.subscriptions_per_topic == 0 || self.consumer_per_subscription == 0 {
            return Err(PlanError::UnreadBacklog);
        }
        if self.producer_rate == 0 {
            return Err(PlanError::BacklogWithoutRate);
        }
        let gib = self.consumer_backlog_size_gb;
        let bytes = gib.checked_mul(1 << 30).ok_or(PlanError::BacklogTooLarge(gib))?;
        let drain_ratio = ratio("backlogDrainRatio", self.backlog_drain_ratio.unwrap_or(1.0))?;
        Ok(Some(Backlog { bytes, drain_ratio }))
    }
}

impl From<KeyDistributor> for Keys {
    fn from(distributor: KeyDistributor) -> Keys {
        match distributor {
            KeyDistributor::NoKey => Keys::None,
            KeyDistributor::KeyRoundRobin => Keys::RoundRobin(KEYS),
            // The nanoseconds of a clock, divided by the number of keys, leave any remainder as often as any other.
            KeyDistributor::RandomNano => Keys::Uniform(KEYS),
        }
    }
}

fn ratio(field: &'static str, value: f64) -> Result<f64, PlanError> {
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(PlanError::Ratio { field, value }) }
}

/// The field that `name` is most like, unless it is like none.
fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |field: &str| strsim::jaro_winkler(&field.to_lowercase(), &name.to_lowercase());
    let (likeness, field) =
        FIELDS.map(|field| (likeness(field), field)).into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= SIMILARITY_MIN).then_some(field)
}
