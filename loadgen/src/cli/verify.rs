//! Options of the halves of `verify`, and how they become what these take.
//!
//! The first half writes and keeps a journal, the second reads back; anything may happen in between.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use corelane::runtime::Duration;

use super::UsageError;
use super::values::{assignment, duration, sizes};
use crate::client::{Bootstrap, ConnectionOptions, NewTopic};
use crate::verify::write::IDEMPOTENT_INFLIGHT_MAX;
use crate::verify::{Acks, CheckOptions, WriteOptions};

/// The halves of `verify`.
#[derive(Debug, clap::Subcommand)]
pub enum Verify {
    /// Writes stamped records and journals what became of each batch
    Write(WriteArguments),
    /// Reads a topic back and holds it against the journals of its runs
    Check(CheckArguments),
}

/// The options of `loadgen verify write`.
#[derive(Debug, clap::Args)]
pub struct WriteArguments {
    /// Brokers to begin with
    #[arg(long, value_name = "HOST:PORT,...", default_value = "localhost:9092")]
    bootstrap_server: String,
    /// The topic
    #[arg(long)]
    topic: String,
    /// Creates the topic unless it exists
    #[arg(long)]
    create: bool,
    /// Partitions of a topic that is created
    #[arg(long, value_name = "N", default_value_t = 8, requires = "create")]
    partitions: i32,
    /// Replicas of each partition of a topic that is created
    #[arg(long, value_name = "N", default_value_t = 1, requires = "create")]
    replication_factor: i16,
    /// Configures a topic that is created; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment, requires = "create")]
    topic_config: Vec<(String, String)>,
    /// The journal; it must not exist yet
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
    /// Who acknowledges
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// Gives every producer an id and sends again what is not answered
    #[arg(long)]
    idempotence: bool,
    /// Goes on when a connection breaks, and waits so long for the broker to come back
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    reconnect: Option<Duration>,
    /// Producers, each with its own connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    producers: u32,
    /// Requests in flight per producer and partition, each with one batch
    #[arg(long, value_name = "N", default_value_t = IDEMPOTENT_INFLIGHT_MAX)]
    max_inflight: usize,
    /// Records of a batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_records: u32,
    /// Bytes of a record's value, or a range of them
    #[arg(long, value_name = "N|N..M", default_value = "1024", value_parser = sizes)]
    record_size: RangeInclusive<usize>,
    /// Bytes of values per second, in all; without it as fast as they are acknowledged
    #[arg(long, value_name = "N")]
    rate_bytes: Option<u64>,
    /// How long to send
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    duration: Duration,
    /// After how many records to stop
    #[arg(long, value_name = "N")]
    num_records: Option<u64>,
}

/// The options of `loadgen verify check`.
#[derive(Debug, clap::Args)]
pub struct CheckArguments {
    /// Brokers to begin with
    #[arg(long, value_name = "HOST:PORT,...", default_value = "localhost:9092")]
    bootstrap_server: String,
    /// The journals of all runs on the topic; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    journal: Vec<PathBuf>,
}

impl WriteArguments {
    /// Resolves the brokers and checks the options against each other.
    pub fn options(self) -> Result<WriteOptions, UsageError> {
        if self.max_inflight == 0 || self.idempotence && self.max_inflight > IDEMPOTENT_INFLIGHT_MAX {
            return Err(UsageError::Inflight(self.max_inflight));
        }
        let (name, partitions, replication_factor) = (self.topic.clone(), self.partitions, self.replication_factor);
        let create = NewTopic { name, partitions, replication_factor, configs: self.topic_config };
        Ok(WriteOptions {
            bootstrap: Bootstrap::resolve(&self.bootstrap_server, ConnectionOptions::default())?,
            topic: self.topic,
            create: self.create.then_some(create),
            journal: self.journal,
            acks: self.acks,
            idempotence: self.idempotence,
            reconnect: self.reconnect,
            writers: self.producers,
            inflight_max: self.max_inflight,
            batch_records: self.batch_records,
            record_bytes: self.record_size,
            rate_bytes: self.rate_bytes,
            duration: Some(self.duration),
            num_records: self.num_records,
        })
    }
}

impl CheckArguments {
    /// Resolves the brokers.
    pub fn options(self) -> Result<CheckOptions, UsageError> {
        let bootstrap = Bootstrap::resolve(&self.bootstrap_server, ConnectionOptions::default())?;
        Ok(CheckOptions { bootstrap, journals: self.journal })
    }
}
