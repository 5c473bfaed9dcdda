//! Options of `loadgen swarm`, and how they become [`SwarmOptions`].
//!
//! What only some kinds of requests have is an error with the others: nothing that is given is without effect.

use clap::Args;
use corelane::runtime::{Duration, startup};

use super::load::{CoreList, Rate, parse_cores, parse_rate};
use super::values;
use super::{GateArguments, OutputArguments, RunArguments, TargetArguments, UsageError};
use crate::load::options::ConsumerOptions;
use crate::swarm::{Ask, Requests, SwarmOptions};

/// Times and sizes of what is not given.
const IDLE: Duration = Duration::from_secs(5);
const WARMUP: Duration = Duration::from_secs(5);
const RECORD_BYTES: usize = 1024;
const RATE: f64 = 1000.0;

/// The options of `loadgen swarm`.
#[derive(Clone, Debug, Args)]
#[allow(missing_docs, reason = "each part says what it is")]
pub struct SwarmArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    #[command(flatten)]
    pub connections: ConnectionArguments,
    #[command(flatten)]
    pub output: OutputArguments,
    #[command(flatten)]
    pub gate: GateArguments,
}

/// The connections and what they do.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionArguments {
    /// How many, like 500, 10k; to the leaders of the topic's partitions in turn
    #[arg(long, value_name = "N", default_value = "1k", value_parser = connections)]
    pub connections: u32,
    /// How many are begun per second; -1: as fast as they are answered
    #[arg(long, value_name = "RATE", default_value = "1k", allow_hyphen_values = true, value_parser = parse_rate)]
    pub connect_rate: Rate,
    /// What they ask in turn: none, metadata (of the topic), produce (a record), fetch (what is new, without waiting)
    #[arg(long, value_name = "WHAT", default_value = "none", value_parser = request)]
    pub request: Request,
    /// Requests per second, of all connections together [default: 1k]
    #[arg(long, value_name = "RATE", value_parser = values::scaled)]
    pub rate: Option<f64>,
    /// Bytes of a record that is produced [default: 1024]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub record_size: Option<u32>,
    /// Measured time of the requests; without requests how long all connections are kept
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    pub duration: Duration,
    /// Requests before the measured ones [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub warmup: Option<Duration>,
    /// How long all connections are kept before the first request [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub idle: Option<Duration>,
    /// Threads that make load; by default half of the cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Cores of these threads, like 0,2-3; one thread a core unless --threads says otherwise
    #[arg(long, value_name = "CORES", value_parser = parse_cores)]
    pub cpu_list: Option<CoreList>,
}

/// What is asked, as it was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request(pub Option<Ask>);

fn request(text: &str) -> Result<Request, String> {
    match text {
        "none" => Ok(Request(None)),
        "metadata" => Ok(Request(Some(Ask::Metadata))),
        "produce" => Ok(Request(Some(Ask::Produce))),
        "fetch" => Ok(Request(Some(Ask::Fetch))),
        _ => Err("it is none, metadata, produce or fetch".to_owned()),
    }
}

/// Connections of a run at most: a machine's limits end it long before.
const CONNECTIONS_MAX: u32 = 10_000_000;

fn connections(text: &str) -> Result<u32, String> {
    let count = u32::try_from(values::count(text)?).ok().filter(|count| *count <= CONNECTIONS_MAX);
    count.ok_or_else(|| format!("it is {CONNECTIONS_MAX} at most"))
}

impl SwarmArguments {
    /// The options of a run.
    pub fn options(&self) -> Result<SwarmOptions, UsageError> {
        let given = &self.connections;
        let properties = self.target.properties()?;
        let requests = given.requests()?;
        // Only where the logs end is found out for them.
        let fetches = requests.is_some_and(|requests| requests.ask == Ask::Fetch);
        let ends = fetches.then(ConsumerOptions::default);
        let cores = given.cpu_list.as_ref().map_or(0, |list| list.0.len());
        let threads = if cores == 0 { startup::cores().div_ceil(2) } else { cores };
        let threads = threads.min(given.connections as usize).clamp(1, 1024) as u16;
        let run = RunArguments {
            duration: Some(given.duration),
            warmup: given.warmup.unwrap_or(WARMUP),
            num_records: None,
            threads: Some(given.threads.unwrap_or(threads)),
            cpu_list: given.cpu_list.clone(),
            seed: 0,
        };
        let mut load = run.load(&self.target, &properties, None, ends)?;
        load.interval = self.output.interval.unwrap_or(load.interval);
        let idle = if requests.is_some() { given.idle.unwrap_or(IDLE) } else { given.duration };
        let (connections, connect_rate) = (given.connections, given.connect_rate.0);
        Ok(SwarmOptions { load, connections, connect_rate, idle, requests })
    }
}

impl ConnectionArguments {
    fn requests(&self) -> Result<Option<Requests>, UsageError> {
        let unused = |option, is_given| match is_given {
            true => Err(UsageError::Unused { option, with: format!("--request {}", self.request.name()) }),
            false => Ok(()),
        };
        if self.request.0 != Some(Ask::Produce) {
            unused("--record-size", self.record_size.is_some())?;
        }
        let Some(ask) = self.request.0 else {
            unused("--rate", self.rate.is_some())?;
            unused("--warmup", self.warmup.is_some())?;
            unused("--idle", self.idle.is_some())?;
            return Ok(None);
        };
        let record_bytes = self.record_size.map_or(RECORD_BYTES, |bytes| bytes as usize);
        Ok(Some(Requests { ask, rate: self.rate.unwrap_or(RATE), record_bytes }))
    }
}

impl Request {
    fn name(self) -> &'static str {
        self.0.map_or("none", Ask::name)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Command, CommandLine};
    use super::*;

    fn options(arguments: &[&str]) -> Result<SwarmOptions, String> {
        let line = ["loadgen", "swarm", "--bootstrap-server", "127.0.0.1:1"].iter().chain(arguments);
        let line = CommandLine::try_parse_from(line).map_err(|error| error.to_string())?;
        match line.command() {
            Command::Swarm(arguments) => arguments.options().map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_are_those_that_were_asked_for() {
        let produce =
            options(&["--connections", "10k", "--request", "produce", "--rate", "2k", "--record-size", "100"]);
        let produce = produce.unwrap();
        let expected = Requests { ask: Ask::Produce, rate: 2000.0, record_bytes: 100 };
        assert_eq!(
            (produce.connections, produce.connect_rate, produce.requests),
            (10_000, Some(1000.0), Some(expected))
        );
        assert_eq!((produce.idle, produce.load.warmup), (IDLE, WARMUP));
        let none = options(&["--connect-rate", "-1", "--duration", "7s"]).unwrap();
        assert_eq!((none.requests, none.connect_rate, none.idle), (None, None, Duration::from_secs(7)));
        assert!(
            options(&["--request", "fetch"]).unwrap().load.consumers.is_some(),
            "a fetch needs to know where logs end"
        );
    }

    #[test]
    fn what_has_no_effect_is_an_error() {
        for (option, value) in [("--rate", "1k"), ("--warmup", "1s"), ("--idle", "1s"), ("--record-size", "9")] {
            let error = options(&[option, value]).unwrap_err();
            assert!(error.contains(option) && error.contains("--request none"), "{error}");
        }
        assert!(options(&["--request", "fetch", "--record-size", "9"]).unwrap_err().contains("--request fetch"));
        for wrong in ["0", "1.5", "-1", "20M", "x"] {
            assert!(options(&["--connections", wrong]).is_err(), "{wrong}");
        }
        assert!(options(&["--request", "produce", "--rate", "-1"]).is_err(), "without a schedule nothing is measured");
    }
}
