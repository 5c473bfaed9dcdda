//! Options of `compare`: results that are there already, or two brokers that are to be measured now.
//!
//! What makes load is only for brokers: beside files it is refused, not ignored. There is no `--topic` and no `--create`, since
//! every run has topics of its own.

use std::path::PathBuf;

use clap::Args;

use super::{
    BacklogArguments, ConsumerArguments, DataArguments, E2eArguments, GateArguments, OutputArguments, PaceArguments,
    ProducerArguments, RunArguments, TargetArguments, values,
};

/// The groups of options that only a measurement has; clap names each after its struct.
const MEASURED: [&str; 8] = [
    "BlocksArguments",
    "FreshTopicArguments",
    "RunArguments",
    "PaceArguments",
    "ProducerArguments",
    "DataArguments",
    "ConsumerArguments",
    "BacklogArguments",
];

/// The options of `loadgen compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareArguments {
    /// Two results, A and B
    #[arg(value_name = "FILE", num_args = 2, required_unless_present_any = ["pairs", "a"], conflicts_with = "pairs")]
    #[arg(conflicts_with_all = MEASURED)]
    pub files: Vec<PathBuf>,
    /// Results that were measured in pairs, one soon after the other, like a1.json:b1.json,a2.json:b2.json
    #[arg(long, value_name = "A:B,...", value_delimiter = ',', conflicts_with_all = MEASURED)]
    pub pairs: Vec<String>,
    /// Writes what was found as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes a page of HTML: what was found, and the first pair
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Two brokers.
    #[command(flatten)]
    pub blocks: BlocksArguments,
    /// What each run is made of.
    #[command(flatten)]
    pub load: BlockLoadArguments,
}

/// Two brokers, measured in turns.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Two brokers")]
pub struct BlocksArguments {
    /// Brokers of A to begin with: A and B are measured now, in turns, each time with a run of e2e
    #[arg(long, value_name = "HOST:PORT,...", requires = "b")]
    pub a: Option<String>,
    /// Brokers of B
    #[arg(long, value_name = "HOST:PORT,...", requires = "a")]
    pub b: Option<String>,
    /// A's process on this machine: its CPU per byte is compared, the figure that noise moves least
    #[arg(long, value_name = "PID", requires = "b_pid", requires = "a")]
    pub a_pid: Option<u32>,
    /// B's process
    #[arg(long, value_name = "PID", requires = "a_pid", requires = "a")]
    pub b_pid: Option<u32>,
    /// How often both are measured: A and B, then B and A, and so on; there is no verdict below 6
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    #[arg(requires = "a")]
    pub blocks: u32,
    /// Keeps the result of every run in this folder
    #[arg(long, value_name = "DIR", requires = "a")]
    pub keep: Option<PathBuf>,
    /// Prints what was found only
    #[arg(long, requires = "a")]
    pub quiet: bool,
}

/// What each run of a comparison is made of: the options of `e2e` that do not name the broker or what is written.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "each part says what it is")]
pub struct BlockLoadArguments {
    #[command(flatten)]
    pub topics: FreshTopicArguments,
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
}

/// The topics that are made for a run and deleted after it, and how brokers are talked to.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Topics of each run")]
pub struct FreshTopicArguments {
    /// Topics
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub topics: Option<u32>,
    /// Partitions of each
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Replicas of each partition
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i16).range(1..))]
    pub replication_factor: i16,
    /// Configures them; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::assignment)]
    pub topic_config: Vec<(String, String)>,
    /// Properties of Kafka's clients, a line each
    #[arg(long, value_name = "FILE")]
    pub command_config: Option<PathBuf>,
    /// A property of Kafka's clients; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::assignment)]
    pub command_property: Vec<(String, String)>,
}

/// One of the two that are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side<'a> {
    /// `a` or `b`.
    pub name: &'static str,
    /// Its brokers.
    pub servers: &'a str,
    /// Its process.
    pub pid: Option<u32>,
}

impl BlocksArguments {
    /// A and B, where brokers are to be measured.
    pub fn sides(&self) -> Option<[Side<'_>; 2]> {
        let (a, b) = (self.a.as_deref()?, self.b.as_deref()?);
        let side = |name, servers, pid| Side { name, servers, pid };
        Some([side("a", a, self.a_pid), side("b", b, self.b_pid)])
    }
}

impl BlockLoadArguments {
    /// The run of `side` on topics named `topic`, in block `number`.
    pub fn e2e(&self, side: Side<'_>, topic: String, number: u32) -> E2eArguments {
        let BlockLoadArguments { topics, run, pace, producers, data, consumers, backlog } = self.clone();
        let target = TargetArguments {
            bootstrap_server: Some(side.servers.to_owned()),
            topic,
            topics: topics.topics,
            create: true,
            partitions: topics.partitions,
            replication_factor: topics.replication_factor,
            topic_config: topics.topic_config,
            command_config: topics.command_config,
            command_property: topics.command_property,
            broker_pid: side.pid,
        };
        let tag = [("side", side.name.to_owned()), ("block", number.to_string())];
        let tag = tag.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let (output, gate) = (OutputArguments { tag, ..Default::default() }, GateArguments::default());
        E2eArguments { target, run, pace, producers, data, consumers, backlog, output, gate }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, CommandLine};

    fn compare(arguments: &str) -> Result<CompareArguments, clap::Error> {
        let line = CommandLine::try_parse_from(["loadgen", "compare"].into_iter().chain(arguments.split(' ')))?;
        match line.command() {
            Command::Compare(arguments) => Ok(*arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_brokers_are_measured_with_the_options_of_a_run() {
        let given = "--a h:1 --b h:2 --a-pid 11 --b-pid 12 --rate 5k --duration 2s --partitions 3";
        let arguments = compare(given).unwrap();
        let [a, b] = arguments.blocks.sides().unwrap();
        assert_eq!((arguments.blocks.blocks, a.servers, b.pid), (7, "h:1", Some(12)));
        let run = arguments.load.e2e(b, "t".to_owned(), 4);
        assert_eq!((run.target.bootstrap_server.as_deref(), run.target.broker_pid), (Some("h:2"), Some(12)));
        assert!(run.target.create && run.target.partitions == 3 && run.pace.rate.is_some());
        assert_eq!(run.output.tag, [("side", "b"), ("block", "4")].map(|(key, value)| (key.into(), value.into())));
    }

    #[test]
    fn options_of_a_measurement_mean_nothing_beside_files() {
        assert!(compare("x.json y.json").unwrap().blocks.sides().is_none());
        assert_eq!(compare("--pairs x.json:y.json --json o.json").unwrap().pairs.len(), 1);
        let measured = [
            "--rate 5k",
            "--duration 2s",
            "--partitions 3",
            "--consumers 2",
            "--record-size 100",
            "--backlog-bytes 5M",
            "--a h:1 --b h:2",
            "--blocks 8",
            "--quiet",
            "--keep d",
        ];
        for option in measured {
            for files in ["x.json y.json", "--pairs x.json:y.json"] {
                assert!(compare(&format!("{option} {files}")).is_err(), "{option} {files}");
            }
        }
    }

    #[test]
    fn both_brokers_are_named_and_both_processes_or_none() {
        for wrong in ["--a h:1", "--b h:1", "--rate 5k", "--a h:1 --b h:2 --a-pid 3", "--a h:1 --b h:2 --create"] {
            assert!(compare(wrong).is_err(), "{wrong}");
        }
    }
}
