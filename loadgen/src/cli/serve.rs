//! Options of `selftest serve`: the synthetic broker as a process of its own.
//!
//! Only what a measurement of the load generator needs can be set. The faults that `verify` is tested with are for tests.

use std::net::SocketAddr;

use clap::Args;

use crate::gate::allowance;

/// The parts of `selftest` beside the measurement.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum SelftestPart {
    /// Serves the synthetic broker, which keeps records in memory, until SIGTERM or SIGINT
    Serve(ServeArguments),
}

/// The options of `loadgen selftest serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArguments {
    /// Where to listen; port 0 takes a free one, which the ready line tells
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Partitions of its topic, which has any name
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// Uses more CPU than it needs, by this part: 5%, for comparisons that are to find it
    #[arg(long, value_name = "PART", value_parser = allowance)]
    pub slow_down: Option<f64>,
    /// The core to run on
    #[arg(long, value_name = "CORE")]
    pub cpu: Option<usize>,
}
