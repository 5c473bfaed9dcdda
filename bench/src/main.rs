//! The `bench` binary: floors and micro-benchmarks of the broker's hot pieces, each bounded in time.
//!
//! Results are printed for people, with the machine and the date above them. What is compared is CPU time of the measured
//! process, which depends on other load far less than rates do. Allocations are counted in every process of this program, at
//! the price of two atomic additions each.

mod cost;
mod echo;
mod load;
mod null_relay;
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
    /// The floor per byte: receive, CRC32C, write with O_DIRECT, acknowledge, send on, and nothing else
    NullRelay(null_relay::Options),
    /// The floor per request: small requests that a bare ring answers, per second of its CPU
    Echo(echo::Options),
    /// Echo over TCP on three kinds of server: thousand requests per CPU-second of the server
    RingTable(ring_table::Options),
    /// What produce and fetch cost a broker: ns per byte by stage, and allocations per request
    Cost(cost::Options),
    /// What it costs a shard to record one sample of a metric
    Recording(recording::Options),
    /// The relay by itself, for a load from elsewhere; started by null-relay
    RelayServer(null_relay::server::Options),
    /// One echo server; started by echo and ring-table
    EchoServer(ring_table::server::Options),
    /// One broker that tells its allocations; started by cost
    CostBroker(cost::servers::BrokerOptions),
    /// One bare ring that answers; started by cost
    CostFloor(cost::servers::FloorOptions),
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().command {
        Command::NullRelay(options) => null_relay::run(&options),
        Command::Echo(options) => echo::run(&options),
        Command::RingTable(options) => ring_table::run(&options),
        Command::Cost(options) => cost::run(&options),
        Command::Recording(options) => recording::run(&options),
        Command::RelayServer(options) => null_relay::server::run(&options),
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_subcommand_and_option_is_explained() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            assert!(subcommand.get_about().is_some() && help.contains(name), "{name} is not explained");
            for argument in subcommand.get_arguments() {
                assert!(argument.get_help().is_some(), "{name} does not explain {}", argument.get_id());
            }
        }
    }
}
