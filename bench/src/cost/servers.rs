//! What the load is put on: a whole broker, or a bare ring that receives and sends as many bytes.
//!
//! Each runs on the main thread of a process of its own, prints the address that it listens on, and serves until it is killed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use bench::broker::config;
use clap::Args;
use corelane::broker::{Broker, ListenerPlan};
use corelane::cli;
use corelane::runtime::real;
use corelane::types::ShardId;

use crate::serving::{announce, answer_questions};

/// How a broker is started.
#[derive(Args)]
pub(crate) struct BrokerOptions {
    /// The data directory.
    #[arg(long)]
    data_dir: PathBuf,
}

/// How a bare ring is started.
#[derive(Args)]
pub(crate) struct FloorOptions {
    /// Bytes received at once at most.
    #[arg(long)]
    buffer_bytes: usize,
    /// Bytes of a request.
    #[arg(long)]
    request_bytes: usize,
    /// Bytes of an answer.
    #[arg(long)]
    answer_bytes: usize,
}

/// Serves until the process is killed; every byte on standard input is answered with the number of allocations so far.
pub(crate) fn broker(options: &BrokerOptions) -> io::Result<()> {
    answer_questions(crate::allocations);
    let config = config(&options.data_dir)?;
    cli::start_logging(&config);
    let plans = config.listeners.iter().map(ListenerPlan::new).collect::<Result<_, _>>().map_err(io::Error::other)?;
    let broker = Broker::new(config, plans).run(ShardId(0), |ready| announce(ready.listening[0]));
    let served = real::run(&real::Options::default(), broker).map_err(io::Error::other)?;
    served.map_err(|error| io::Error::other(error.to_string()))
}

/// Serves until the process is killed.
pub(crate) fn floor(options: &FloorOptions) -> io::Result<()> {
    let FloorOptions { buffer_bytes, request_bytes, answer_bytes } = *options;
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    match real::floor::answer(address, buffer_bytes, request_bytes, answer_bytes, announce)? {}
}
