//! Many connections at once: what it costs a broker to have N clients, idle and under a given rate of requests.
//!
//! | module | what it does |
//! |---|---|
//! | [`plan`] | where connections go; what the machine's limits say to their number |
//! | `ask` | the requests, made once, and what an answer is worth |
//! | `member` | a connection that costs next to nothing while it is idle |
//! | `worker` | a thread's share of the connections |
//! | `conduct` | the order of events, and the looks at both processes in between |
//! | [`summary`], [`table`] | what it all came to, and as people read it |
//!
//! One script for every run: look, connect everything, look, keep it idle, look, send requests, look, ask every connection once
//! more whether it is there, close, look. Connections that fail or break are counted and not made again: a run with any of them
//! did not have N clients and is invalid. What a connection costs in memory shows on a broker that was just started: one that
//! has had as many before has kept the memory.

use std::sync::Arc;

use corelane::runtime::real::{self, StartError};
use corelane::runtime::{Duration, side};
use corelane::types::ShardId;

mod ask;
mod conduct;
mod member;
pub mod plan;
pub mod summary;
pub mod table;
mod worker;

pub use self::conduct::{Progress, Step};
pub use self::plan::{LimitError, SwarmPlan};
pub use self::summary::{Swarm, SwarmFile};
pub use self::worker::Tally;

use self::conduct::{Look, Shared, conduct};
use crate::client::ClientError;
use crate::load::LoadOptions;
use crate::machine::ProcessError;
use crate::result::{Interval, Outcome};

/// What both processes are given to free the memory of connections that were closed before they are looked at last.
const SETTLE: Duration = Duration::from_secs(1);

/// Everything about a run.
#[derive(Clone, Debug)]
pub struct SwarmOptions {
    /// Brokers, topics, threads, times; without producers, and with consumers only to find out where logs end.
    pub load: LoadOptions,
    /// How many connections.
    pub connections: u32,
    /// How many of them are begun per second; `None`: as fast as they are answered.
    pub connect_rate: Option<f64>,
    /// How long all of them are kept before the first request.
    pub idle: Duration,
    /// What is asked; `None`: nothing.
    pub requests: Option<Requests>,
}

/// What connections ask, in turn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Requests {
    /// What.
    pub ask: Ask,
    /// Requests per second, of all connections together.
    pub rate: f64,
    /// Bytes of the value of a record that is produced.
    pub record_bytes: usize,
}

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// The metadata of the connection's topic.
    Metadata,
    /// One record for the connection's partition, with acks=all.
    Produce,
    /// What is new in the connection's partition since the run began, one batch at most, without waiting for any.
    Fetch,
}

impl Ask {
    /// As on the command line and in results.
    pub const fn name(self) -> &'static str {
        match self {
            Ask::Metadata => "metadata",
            Ask::Produce => "produce",
            Ask::Fetch => "fetch",
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// The machine lacks something.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A broker cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// So many connections are not possible.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The broker's process cannot be looked at.
    #[error("the broker's process: {0}")]
    Process(ProcessError),
    /// The broker's process ended.
    #[error("the broker's process: {0}")]
    Lost(ProcessError),
}

/// What a run measured.
#[derive(Debug)]
pub struct SwarmResult {
    /// What it found out before it began.
    pub plan: SwarmPlan,
    /// What was measured, as of any run.
    pub outcome: Outcome,
    /// What only a swarm has.
    pub swarm: Swarm,
    /// The requests over time, histograms included.
    pub series: Vec<(Interval, Tally)>,
}

/// Runs a swarm to its end. `watch` is told how it goes, on a thread of its own; SIGINT and SIGTERM end the run in order.
/// Blocks.
pub fn run(
    options: SwarmOptions,
    watch: impl FnMut(&Progress<'_>) + Send + 'static,
) -> Result<SwarmResult, SwarmError> {
    let options = Arc::new(options);
    let planning = options.clone();
    let plan = real::run(&real::Options::default(), async move { SwarmPlan::make(&planning).await })??;
    plan.check_limits(&options)?;
    let plan = Arc::new(plan);
    let shared = Arc::new(Shared::new(options.load.threads));
    let before = Look::take(options.load.broker_pid).map_err(SwarmError::Process)?;
    let conducting = {
        let (options, shared) = (options.clone(), shared.clone());
        std::thread::spawn(move || conduct(&options, &shared, before, watch))
    };
    let placed = {
        let cores = options.load.cores.clone();
        move |shard: ShardId| real::Options { core: cores.get(usize::from(shard.0)).copied() }
    };
    let working = {
        let (options, plan, shared) = (options.clone(), plan.clone(), shared.clone());
        real::run_shards(options.load.threads, placed, move |shard| {
            worker::work(shard, options.clone(), plan.clone(), shared.clone())
        })
    };
    shared.end();
    let conducted = conducting.join().expect("the conductor does not panic");
    working?;
    side::pause(SETTLE);
    let conducted = conducted.map_err(SwarmError::Lost)?;
    let after = Look::take(options.load.broker_pid).map_err(SwarmError::Lost)?;
    let (outcome, swarm) = summary::sum_up(&options, &shared, &conducted, &after);
    let series = shared.take_series();
    let plan = Arc::try_unwrap(plan).unwrap_or_else(|plan| (*plan).clone());
    Ok(SwarmResult { plan, outcome, swarm, series })
}
