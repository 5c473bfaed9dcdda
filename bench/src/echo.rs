//! The floor for requests: how many small ones a bare ring answers per second of its CPU.
//!
//! The bare server of [`crate::ring_table`] alone, under two loads: 64 connections with one request in flight each, which is
//! what latency-bound clients do, and with several, which is what clients do that pipeline. It measures what `ring-table` does,
//! in the size of a small produce request, and gives it to a program.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::ring_table::server::Server;
use crate::ring_table::{EchoLoad, run_one};
use crate::serving::{machine_line, write_json};

/// How much is measured.
#[derive(Args)]
pub(crate) struct Options {
    /// Bytes of a request, and of its answer
    #[arg(long, default_value_t = 170, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    request_bytes: u32,
    /// Connections, all at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Requests in flight per connection of the second load; the first has one
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=128))]
    pipeline: u16,
    /// Milliseconds of a load, after a tenth of it to warm up
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(50..=600_000))]
    run_ms: u64,
    /// Writes the result to this file too, as one JSON object
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The result.
#[derive(Serialize)]
struct Report {
    schema: u32,
    kind: &'static str,
    machine: String,
    request_bytes: u32,
    loads: Vec<Row>,
}

/// What one load came to.
#[derive(Serialize)]
struct Row {
    connections: u16,
    in_flight: u16,
    requests_per_cpu_s: f64,
    requests_per_s: f64,
    seconds: f64,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let report = measure(options)?;
    println!("{}", report.machine);
    for row in &report.loads {
        println!(
            "echo, bare ring, {} B, {} × {} in flight: {:.0} requests per CPU-second, {:.0} per second",
            report.request_bytes, row.connections, row.in_flight, row.requests_per_cpu_s, row.requests_per_s
        );
    }
    options.json.as_ref().map_or(Ok(()), |path| write_json(path, &report))
}

fn measure(options: &Options) -> io::Result<Report> {
    let machine = machine_line()?;
    let mut loads = Vec::new();
    for in_flight in [1, options.pipeline] {
        let load = EchoLoad {
            connections: usize::from(options.connections),
            bytes: options.request_bytes as usize,
            pipeline: usize::from(in_flight),
        };
        let run = run_one(Server::Bare, load, Duration::from_millis(options.run_ms))?;
        let (requests, cpu_seconds) = (run.requests as f64, (run.after - run.before).max(1) as f64 / 1e9);
        loads.push(Row {
            connections: options.connections,
            in_flight,
            requests_per_cpu_s: requests / cpu_seconds,
            requests_per_s: requests / run.seconds,
            seconds: run.seconds,
        });
    }
    Ok(Report { schema: 1, kind: "echo", machine, request_bytes: options.request_bytes, loads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_json_with_the_agreed_names() {
        let row = Row { connections: 64, in_flight: 1, requests_per_cpu_s: 2e5, requests_per_s: 1.5e5, seconds: 3.0 };
        let report = Report { schema: 1, kind: "echo", machine: "m".to_owned(), request_bytes: 170, loads: vec![row] };
        let text = serde_json::to_string(&report).expect("numbers and text");
        let json: serde_json::Value = serde_json::from_str(&text).expect("one object");
        let load = serde_json::json!({
            "connections": 64, "in_flight": 1, "requests_per_cpu_s": 2e5, "requests_per_s": 1.5e5, "seconds": 3.0,
        });
        let expected =
            serde_json::json!({ "schema": 1, "kind": "echo", "machine": "m", "request_bytes": 170, "loads": [load] });
        assert_eq!(json, expected);
    }
}
