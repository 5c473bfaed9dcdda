//! The command line: subcommands, how they end, and the last line of standard output.
//!
//! An option exists only if it works. Every subcommand ends with `RESULT state=… rate=… p99_ms=… exit=…`, also when it fails,
//! so that scripts need to look at one line only. It parses and prints; what a subcommand does is elsewhere.

mod compare;
mod load;
mod output;
mod properties;
mod replay;
mod serve;
mod swarm;
mod sweep;
mod values;
mod verify;

use std::fmt;
use std::path::PathBuf;
use std::process::{ExitCode, Termination};

use clap::Parser;
use corelane::runtime::Duration;

use crate::client::ClientError;
use crate::load::options::IDEMPOTENT_INFLIGHT_MAX;
use crate::machine::ProcessError;
use crate::result::RunState;

pub use self::compare::{BlockLoadArguments, BlocksArguments, CompareArguments, FreshTopicArguments, Side};
pub use self::load::{
    BacklogArguments, ConsumerArguments, DataArguments, PaceArguments, ProducerArguments, RunArguments, TargetArguments,
};
pub use self::output::{GateArguments, OutputArguments};
pub use self::replay::{ReplayArguments, Unfit};
pub use self::serve::{SelftestPart, ServeArguments};
pub use self::swarm::{ConnectionArguments, SwarmArguments};
pub use self::sweep::{SearchArguments, SweepArguments, short_steps};
pub use self::verify::{CheckArguments, Verify, WriteArguments};

/// A load generator and history checker for any Kafka-compatible broker
///
/// Without a subcommand it does what `e2e` does, whose options these are.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, args_conflicts_with_subcommands = true, subcommand_help_heading = "Subcommands")]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    e2e: E2eArguments,
}

impl CommandLine {
    /// What to do.
    pub fn command(self) -> Command {
        self.command.unwrap_or_else(|| Command::E2e(Box::new(self.e2e)))
    }
}

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Produces and consumes at once, and measures both
    E2e(Box<E2eArguments>),
    /// Produces only
    Produce(Box<ProduceArguments>),
    /// Consumes only
    Consume(Box<ConsumeArguments>),
    /// Proves that nothing is lost, repeated, reordered or damaged
    #[command(subcommand)]
    Verify(Box<Verify>),
    /// Finds the knee: the highest rate that meets an SLO in every repeat
    Sweep(Box<SweepArguments>),
    /// Runs a workload file of the OpenMessaging Benchmark
    Replay(Box<ReplayArguments>),
    /// Opens many connections at once, and measures what they cost
    ///
    /// It looks at the broker (--broker-pid), opens the connections, keeps them idle, sends requests over them in turn, asks
    /// each once more whether it is there, and closes them; the broker's memory and CPU are looked at in between. A broker that
    /// has had as many connections before has kept their memory: start it anew to see what they cost.
    Swarm(Box<SwarmArguments>),
    /// Holds results against each other
    Compare(Box<CompareArguments>),
    /// Makes a page of HTML of results
    Report(ReportArguments),
    /// Measures the load generator itself
    Selftest(SelftestArguments),
    /// Tells whether this machine is fit to measure on
    Doctor(DoctorArguments),
}

/// The options of `loadgen e2e`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs, reason = "each part says what it is")]
pub struct E2eArguments {
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
    #[command(flatten)]
    pub consumers: ConsumerArguments,
    #[command(flatten)]
    pub backlog: BacklogArguments,
    #[command(flatten)]
    pub output: OutputArguments,
    #[command(flatten)]
    pub gate: GateArguments,
}

/// The options of `loadgen produce`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs, reason = "each part says what it is")]
pub struct ProduceArguments {
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
    #[command(flatten)]
    pub output: OutputArguments,
    #[command(flatten)]
    pub gate: GateArguments,
}

/// The options of `loadgen consume`. What lies there already is read within a warm-up, so that there is none by default.
#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("warmup", |arg| arg.default_value("0s").help("Time before it, whose records do not count")))]
#[allow(missing_docs, reason = "each part says what it is")]
pub struct ConsumeArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    #[command(flatten)]
    pub run: RunArguments,
    #[command(flatten)]
    pub consumers: ConsumerArguments,
    #[command(flatten)]
    pub output: OutputArguments,
    #[command(flatten)]
    pub gate: GateArguments,
}

/// The options of `loadgen report`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArguments {
    /// Results
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Where the page goes
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub out: PathBuf,
    /// Results that were measured in pairs, whose ratios the page shows
    #[arg(long, value_name = "A:B,...", value_delimiter = ',')]
    pub pairs: Vec<String>,
}

/// The options of `loadgen selftest`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SelftestArguments {
    /// Another part of it than the measurement.
    #[command(subcommand)]
    pub part: Option<SelftestPart>,
    /// The whole path with only the socket calls replaced; else over loopback sockets
    #[arg(long)]
    pub noop: bool,
    /// Records of each run
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub num_records: u64,
    /// Bytes of a value
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub record_size: usize,
    /// Bytes of a batch at most
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    pub batch_size: usize,
    /// Partitions
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// The core to run on
    #[arg(long, value_name = "CORE")]
    pub cpu: Option<usize>,
    /// Fails (exit 3) if fewer records per second are produced, consumed and verified, like 5M
    #[arg(long, value_name = "RATE", value_parser = values::scaled)]
    pub min_rate: Option<f64>,
    /// Writes what was found as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The options of `loadgen doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct DoctorArguments {
    /// A directory on the disk that brokers will write to
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub data_dir: PathBuf,
    /// Writes what was found as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Options that do not fit together, or name what cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// `--max-inflight` is out of its range.
    #[error("--max-inflight is 1 or more, with --idempotence {IDEMPOTENT_INFLIGHT_MAX} at most, not {0}")]
    Inflight(usize),
    /// `--acks` is none of its values.
    #[error("--acks is 0, 1 or all, not {0:?}")]
    Acks(String),
    /// A journal of what nobody acknowledged.
    #[error("--acks 0 proves nothing: nobody tells what became of a batch")]
    Unproven,
    /// Idempotence needs every replica's acknowledgement.
    #[error("--idempotence goes with --acks all only")]
    IdempotentAcks,
    /// What only a schedule has.
    #[error("--arrival and --on-overload are of a schedule: they go with --rate, --rate-bytes or --ramp")]
    Unscheduled,
    /// `--compression-type` is none of its values.
    #[error("--compression-type is none, gzip, snappy, lz4 or zstd, not {0:?}")]
    Codec(String),
    /// The broker's process cannot be looked at.
    #[error("--broker-pid: {0}")]
    Broker(#[from] ProcessError),
    /// A core that is not there, or not for this process.
    #[error("--cpu-list: this process cannot run on core {0}")]
    Core(usize),
    /// A baseline of other connections.
    #[error("{}: {tag} is {before} in the baseline and {now} in the run", path.display())]
    Baseline {
        /// The baseline.
        path: PathBuf,
        /// What is different.
        tag: &'static str,
        /// There.
        before: String,
        /// Here.
        now: String,
    },
    /// An option that would have no effect.
    #[error("{option} has no effect with {with}")]
    Unused {
        /// Which.
        option: &'static str,
        /// What takes its effect.
        with: String,
    },
    /// A property of Kafka's clients.
    #[error("property {key}: {what}")]
    Property {
        /// Its name.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file that an option names.
    #[error("{}: {what}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A pair that is none.
    #[error("{0:?} is no pair of results like a.json:b.json")]
    Pair(String),
    /// Options of a sweep that leave nothing to search.
    #[error("sweep: {0}")]
    Sweep(&'static str),
    /// A workload that cannot be run here as it stands.
    #[error(transparent)]
    Unfit(#[from] Unfit),
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
    /// The SLO is not met.
    Slo = 3,
    /// The data is not what it should be.
    Data = 4,
    /// The run was saturated, or did not do what it was to do.
    Invalid = 5,
    /// It is worse than its baseline.
    Regression = 6,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// The last line of standard output.
#[derive(Clone, Copy, Debug)]
pub struct ResultLine {
    /// What the run is worth; where nothing is run, whether it was done.
    pub state: RunState,
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
        ResultLine { state: RunState::Invalid, rate: 0.0, p99: None, exit }
    }

    /// Of a subcommand that was done and has no rate.
    pub fn done() -> ResultLine {
        ResultLine { state: RunState::Ok, rate: 0.0, p99: None, exit: Exit::Done }
    }
}

impl fmt::Display for ResultLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RESULT state={} rate={:.0} p99_ms=", self.state.name(), self.rate)?;
        match self.p99 {
            Some(p99) => write!(f, "{:.3}", p99.as_secs_f64() * 1e3)?,
            None => f.write_str("-")?,
        }
        write!(f, " exit={}", self.exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(arguments: &[&str]) -> Result<Box<WriteArguments>, clap::Error> {
        let fixed = ["loadgen", "verify", "write", "--topic", "t", "--journal", "j"];
        let line = CommandLine::try_parse_from(fixed.iter().chain(arguments))?;
        match line.command() {
            Command::Verify(verify) => match *verify {
                Verify::Write(arguments) => Ok(arguments),
                Verify::Check(_) => panic!("another subcommand"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_subcommand_it_is_e2e() {
        let consumers = |arguments: &[&str]| match CommandLine::try_parse_from(arguments).unwrap().command() {
            Command::E2e(arguments) => arguments.consumers.consumers,
            other => panic!("{other:?}"),
        };
        assert_eq!(consumers(&["loadgen"]), 1);
        assert_eq!(consumers(&["loadgen", "--consumers", "3"]), 3);
        assert_eq!(consumers(&["loadgen", "e2e", "--consumers", "3"]), 3);
        assert!(CommandLine::try_parse_from(["loadgen", "--rate", "5", "produce"]).is_err());
    }

    #[test]
    fn a_number_of_records_is_not_cut_short_by_a_time_that_nobody_gave() {
        let seconds = |arguments: &[&str]| {
            let fixed = ["loadgen", "produce", "--bootstrap-server", "127.0.0.1:9092"];
            let line = CommandLine::try_parse_from(fixed.iter().chain(arguments)).unwrap();
            let Command::Produce(produce) = line.command() else { panic!("another subcommand") };
            let properties = produce.target.properties().unwrap();
            produce.run.load(&produce.target, &properties, None, None).unwrap().duration.as_secs()
        };
        assert_eq!(seconds(&[]), 30);
        assert_eq!(seconds(&["--num-records", "5"]), 24 * 3600);
        assert_eq!(seconds(&["--num-records", "5", "--duration", "7s"]), 7);
    }

    #[test]
    fn what_only_a_schedule_has_is_refused_without_one() {
        let options = |arguments: &[&str]| {
            let line = CommandLine::try_parse_from(["loadgen", "produce"].iter().chain(arguments)).unwrap();
            let Command::Produce(produce) = line.command() else { panic!("another subcommand") };
            let properties = produce.target.properties().unwrap();
            produce.producers.options(produce.pace.pace(&produce.data), &produce.data, &properties).map(drop)
        };
        for of_a_schedule in [["--arrival", "poisson"], ["--on-overload", "drop"]] {
            assert!(matches!(options(&of_a_schedule), Err(UsageError::Unscheduled)), "{of_a_schedule:?}");
            assert!(options(&[&of_a_schedule[..], &["--rate", "10"]].concat()).is_ok());
        }
        assert!(options(&[]).is_ok());
    }

    #[test]
    fn consumers_alone_have_the_warm_up_that_they_are_given() {
        let warmup = |arguments: &[&str]| {
            let line = CommandLine::try_parse_from(["loadgen", "consume"].iter().chain(arguments)).unwrap();
            let Command::Consume(consume) = line.command() else { panic!("another subcommand") };
            consume.run.warmup
        };
        assert_eq!((warmup(&[]), warmup(&["--warmup", "3s"])), (Duration::ZERO, Duration::from_secs(3)));
    }

    #[test]
    fn options_are_checked_against_each_other() {
        let options = write(&["--create", "--partitions", "3", "--topic-config", "a=b=c"]).unwrap().options().unwrap();
        let create = options.topics.create.unwrap();
        assert_eq!((create.partitions, create.configs), (3, vec![("a".to_owned(), "b=c".to_owned())]));
        assert!(write(&["--partitions", "3"]).is_err(), "partitions without --create mean nothing");
        let many = write(&["--idempotence", "--max-inflight", "6"]).unwrap();
        assert!(matches!(many.options(), Err(UsageError::Inflight(6))));
        assert!(write(&["--max-inflight", "6"]).unwrap().options().is_ok());
    }

    #[test]
    fn a_run_that_proves_something_sends_again_only_what_is_recognized() {
        let retries = |arguments: &[&str]| write(arguments).unwrap().options().unwrap().producers.unwrap().retries;
        assert_eq!((retries(&[]), retries(&["--idempotence"])), (false, true));
        assert!(matches!(write(&["--acks", "0"]).unwrap().options(), Err(UsageError::Unproven)));
        assert!(matches!(write(&["--topics", "2"]).unwrap().options(), Err(UsageError::Unused { .. })));
    }

    #[test]
    fn what_has_no_effect_is_refused() {
        let parses = |text: &str| CommandLine::try_parse_from(["loadgen"].into_iter().chain(text.split(' '))).is_ok();
        assert!(parses("e2e --create --partitions 3 --replication-factor 2 --keys 9 --key-dist rr"));
        for text in ["e2e --partitions 3", "consume --replication-factor 2", "produce --keys 9"] {
            assert!(!parses(text), "{text}");
        }
        assert!(!parses("produce --rate-bytes 1M --payload-file f"), "the file says how long records are");
    }

    #[test]
    fn the_result_line_is_fixed() {
        let line =
            ResultLine { state: RunState::Ok, rate: 1234.5, p99: Some(Duration::from_micros(1500)), exit: Exit::Done };
        assert_eq!(line.to_string(), "RESULT state=ok rate=1234 p99_ms=1.500 exit=0");
        assert_eq!(ResultLine::failed(Exit::Data).to_string(), "RESULT state=invalid rate=0 p99_ms=- exit=4");
    }
}
