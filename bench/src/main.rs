//! The `bench` binary: floors and micro-benchmarks of the broker's hot pieces, each bounded in time.
//!
//! Results are printed for people, with the machine and the date above them. What is compared is CPU time of the measured
//! process, which depends on other load far less than rates do. Allocations are counted in every process of this program, at
//! the price of two atomic additions each.

mod cost;
mod load;
mod recording;
mod ring_table;
mod serving;

use std::alloc::System;

use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Floors and micro-benchmarks of the broker's hot pieces.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Echo over TCP on three kinds of server: thousand requests per CPU-second of the server.
    RingTable(ring_table::Options),
    /// What produce and fetch cost a broker: ns per byte by stage, and allocations per request.
    Cost(cost::Options),
    /// What it costs a shard to record one sample of a metric.
    Recording(recording::Options),
    /// One echo server; started by ring-table.
    #[command(hide = true)]
    EchoServer(ring_table::server::Options),
    /// One broker; started by cost.
    #[command(hide = true)]
    CostBroker(cost::servers::BrokerOptions),
    /// One bare ring that answers; started by cost.
    #[command(hide = true)]
    CostFloor(cost::servers::FloorOptions),
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().command {
        Command::RingTable(options) => ring_table::run(&options),
        Command::Cost(options) => cost::run(&options),
        Command::Recording(options) => recording::run(&options),
        Command::EchoServer(options) => ring_table::server::run(&options),
        Command::CostBroker(options) => cost::servers::broker(&options),
        Command::CostFloor(options) => cost::servers::floor(&options),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Allocations of this process so far, those that made an earlier one larger included.
fn allocations() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.allocations + stats.reallocations) as u64
}
