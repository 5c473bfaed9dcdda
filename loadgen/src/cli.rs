//! The command line: subcommands, how they end, and the last line of standard output.
//!
//! An option exists only if it works. Every subcommand ends with `RESULT state=… rate=… p99_ms=… exit=…`, also when it fails,
//! so that scripts need to look at one line only. It parses and prints; what a subcommand does is elsewhere.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{ExitCode, Termination};
use std::str::FromStr;

use clap::Parser;
use corelane::runtime::Duration;

use crate::client::{Bootstrap, ClientError, ConnectionOptions, NewTopic};
use crate::stamp::STAMP_BYTES;
use crate::verify::write::IDEMPOTENT_INFLIGHT_MAX;
use crate::verify::{Acks, CheckOptions, WriteOptions};

/// A load generator and history checker for any Kafka-compatible broker.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Proves that nothing is lost, repeated, reordered or damaged
    #[command(subcommand)]
    Verify(Verify),
}

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

/// Options that do not fit together, or a broker without an address.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// `--max-inflight` is out of its range.
    #[error("--max-inflight is 1 or more, with --idempotence {IDEMPOTENT_INFLIGHT_MAX} at most, not {0}")]
    Inflight(usize),
    /// A broker that cannot be found.
    #[error(transparent)]
    Bootstrap(#[from] ClientError),
}

/// How a subcommand ends: one code per kind of cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Done = 0,
    /// The command line, or a file that it names.
    Usage = 1,
    /// A broker cannot be reached, or is lost.
    Connect = 2,
    /// The data is not what it should be.
    Data = 4,
    /// The run did not do what it was to do.
    Invalid = 5,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// The last line of standard output.
#[derive(Clone, Copy, Debug)]
pub struct ResultLine {
    /// Records per second that were acknowledged or read.
    pub rate: f64,
    /// The 99th percentile of the latency that counts here, where there was any.
    pub p99: Option<Duration>,
    /// How it ends.
    pub exit: Exit,
}

impl ResultLine {
    /// Of a subcommand that measured nothing.
    pub fn failed(exit: Exit) -> ResultLine {
        ResultLine { rate: 0.0, p99: None, exit }
    }
}

impl fmt::Display for ResultLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.exit == Exit::Done { "ok" } else { "invalid" };
        write!(f, "RESULT state={state} rate={:.0} p99_ms=", self.rate)?;
        match self.p99 {
            Some(p99) => write!(f, "{:.3}", p99.as_secs_f64() * 1e3)?,
            None => f.write_str("-")?,
        }
        write!(f, " exit={}", self.exit as u8)
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it has the form key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `250ms`, `30s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| "it begins with a number")?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err("its unit is ms, s, m or h".to_owned()),
    };
    milliseconds.map(Duration::from_millis).ok_or_else(|| "it is too long".to_owned())
}

/// `1024`, `100..2000` with both ends included.
fn sizes(text: &str) -> Result<RangeInclusive<usize>, String> {
    let size = |text: &str| usize::from_str(text).map_err(|_| format!("{text:?} is no number of bytes"));
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let (least, most) = (size(least)?, size(most)?);
    if least < STAMP_BYTES {
        return Err(format!("a value holds a stamp, so it has {STAMP_BYTES} bytes or more"));
    }
    if least <= most { Ok(least..=most) } else { Err("the second size is below the first".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(arguments: &[&str]) -> Result<WriteArguments, clap::Error> {
        let fixed = ["loadgen", "verify", "write", "--topic", "t", "--journal", "j"];
        let line = CommandLine::try_parse_from(fixed.iter().chain(arguments))?;
        match line.command {
            Command::Verify(Verify::Write(arguments)) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sizes_and_durations_are_read() {
        assert_eq!(sizes("1024"), Ok(1024..=1024));
        assert_eq!(sizes("100..2000"), Ok(100..=2000));
        for wrong in ["39", "100..99", "x", "..", "100..", "-1"] {
            assert!(sizes(wrong).is_err(), "{wrong}");
        }
        for (text, milliseconds) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for wrong in ["", "s", "30", "1d", "-1s", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_are_checked_against_each_other() {
        let options = write(&["--create", "--partitions", "3", "--topic-config", "a=b=c"]).unwrap().options().unwrap();
        let create = options.create.unwrap();
        assert_eq!((create.partitions, create.configs), (3, vec![("a".to_owned(), "b=c".to_owned())]));
        assert!(write(&["--partitions", "3"]).is_err(), "partitions without --create mean nothing");
        let many = write(&["--idempotence", "--max-inflight", "6"]).unwrap();
        assert!(matches!(many.options(), Err(UsageError::Inflight(6))));
        assert!(write(&["--max-inflight", "6"]).unwrap().options().is_ok());
    }

    #[test]
    fn the_result_line_is_fixed() {
        let line = ResultLine { rate: 1234.5, p99: Some(Duration::from_micros(1500)), exit: Exit::Done };
        assert_eq!(line.to_string(), "RESULT state=ok rate=1234 p99_ms=1.500 exit=0");
        assert_eq!(ResultLine::failed(Exit::Data).to_string(), "RESULT state=invalid rate=0 p99_ms=- exit=4");
    }
}
