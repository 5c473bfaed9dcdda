//! Options of the halves of `verify`, and how they become what these take.
//!
//! The first half writes and keeps a journal, the second reads back; anything may happen in between.

use std::path::PathBuf;

use corelane::wire::produce::Acks;

use super::UsageError;
use super::load::{DataArguments, PaceArguments, ProducerArguments, RunArguments, TargetArguments};
use crate::client::{Bootstrap, ConnectionOptions};
use crate::load::LoadOptions;
use crate::verify::CheckOptions;

/// The halves of `verify`.
#[derive(Debug, clap::Subcommand)]
pub enum Verify {
    /// Writes stamped records and journals what became of each batch
    ///
    /// It produces as `produce` does. With --idempotence what is not answered is sent again until delivery.timeout.ms is over,
    /// so that brokers may come and go; without it every batch is sent once, and what is not answered stays unknown.
    Write(Box<WriteArguments>),
    /// Reads a topic back and holds it against the journals of its runs
    Check(CheckArguments),
}

/// The options of `loadgen verify write`. There is nothing to warm up by default: every batch is journaled, measured or not.
#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("warmup", |arg| arg.default_value("0s").help("Time before it, whose records do not count")))]
#[allow(missing_docs, reason = "each part says what it is")]
pub struct WriteArguments {
    /// The journal; it must not exist yet
    #[arg(long, value_name = "FILE")]
    pub journal: PathBuf,
    #[command(flatten)]
    pub target: TargetArguments,
    #[command(flatten)]
    pub run: RunArguments,
    #[command(flatten)]
    pub pace: PaceArguments,
    #[command(flatten)]
    pub producers: ProducerArguments,
    #[command(flatten)]
    pub data: DataArguments,
    /// Shows no live line
    #[arg(long)]
    pub quiet: bool,
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
    pub fn options(&self) -> Result<LoadOptions, UsageError> {
        if self.target.topics.is_some() {
            return Err(UsageError::Unused { option: "--topics", with: "a journal, which is of one topic".to_owned() });
        }
        let properties = self.target.properties()?;
        let pace = self.pace.pace(&self.data);
        let mut producers = self.producers.options(pace, &self.data, &properties)?;
        if producers.acks == Acks::None {
            return Err(UsageError::Unproven);
        }
        producers.retries = producers.idempotence;
        let mut options = self.run.load(&self.target, &properties, Some(producers), None)?;
        options.journal = Some(self.journal.clone());
        Ok(options)
    }
}

impl CheckArguments {
    /// Resolves the brokers.
    pub fn options(self) -> Result<CheckOptions, UsageError> {
        let bootstrap = Bootstrap::resolve(&self.bootstrap_server, ConnectionOptions::default())?;
        Ok(CheckOptions { bootstrap, journals: self.journal })
    }
}
