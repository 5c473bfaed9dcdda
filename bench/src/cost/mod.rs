//! What a produced and a fetched byte cost a broker in CPU time, by stage, beside a bare ring that moves as many bytes; and
//! how often a request allocates.
//!
//! | column | what it is |
//! |---|---|
//! | ring | a bare ring that receives the request and sends an answer of the same length ([`servers::floor`]) |
//! | validate, append, write, read | the functions of the stage by themselves ([`stages`]) |
//! | rest | what is left of the whole: frames, headers, tasks and their wake-ups, answers; what stages share counts against it |
//! | broker | the whole broker under load, all its threads, kernel workers included |
//!
//! Every row has processes and a directory of its own. One connection keeps its requests in flight over the loopback; the
//! batch is uncompressed, for one partition, acks=all. Fetches are served from the append buffers.

mod calls;
pub(crate) mod servers;
mod stages;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bench::requests::{self, Shape};
use bench::scratch::Scratch;
use clap::Args;
use corelane::types::{Offset, Timestamp};
use serde::Serialize;

use self::calls::Calls;
use self::stages::{Stages, Subject};
use crate::load::{self, Load};
use crate::serving::{Serving, cpu_nanos, machine_line};

const SHAPES: [Shape; 4] = [
    Shape { records: 1, value_bytes: 100 },
    Shape { records: 16, value_bytes: 1 << 10 },
    Shape { records: 63, value_bytes: 1 << 10 },
    Shape { records: 1000, value_bytes: 1 << 10 },
];

/// Bytes that the bare ring receives at once at most: as many as a busy connection of a broker.
const BUFFER_BYTES: usize = 256 << 10;

/// Batches in the log when fetches are measured; the one in the middle is fetched.
const BATCHES_FETCHED: usize = 16;

/// How much is measured, and where.
#[derive(Args)]
pub(crate) struct Options {
    /// Milliseconds of a run, after a tenth of it to warm up.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    run_ms: u64,
    /// Requests in flight on the connection.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=128))]
    in_flight: u32,
    /// Where the data directories are made, and removed; the directory for temporary files if it is not given.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Prints one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// One line of the result. Times are nanoseconds of CPU per request.
#[derive(Serialize)]
struct Row {
    request: &'static str,
    shape: String,
    batch_bytes: usize,
    write_caching: bool,
    ring: f64,
    /// By name, in the order of the data.
    stages: Vec<(&'static str, f64)>,
    rest: f64,
    broker: f64,
    allocations: f64,
}

/// The whole result.
#[derive(Serialize)]
struct Report {
    machine: String,
    run_ms: u64,
    in_flight: u32,
    rows: Vec<Row>,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let mut report =
        Report { machine: machine_line()?, run_ms: options.run_ms, in_flight: options.in_flight, rows: Vec::new() };
    for write_caching in [false, true] {
        for shape in SHAPES {
            report.rows.push(produce_row(options, shape, write_caching)?);
        }
    }
    for shape in SHAPES {
        report.rows.push(fetch_row(options, shape)?);
    }
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(())
}

fn produce_row(options: &Options, shape: Shape, write_caching: bool) -> io::Result<Row> {
    let Stages { validate, append, write, .. } = stages(options, shape, write_caching)?;
    let batch = shape.batch(now())?;
    let batch_bytes = batch.len();
    let request = requests::produce(batch)?;
    let directory = scratch(options)?;
    let broker = Broker::start(directory.path())?;
    let mut calls = Calls::new(broker.address())?;
    calls.create_topic(write_caching)?;
    let (answer_bytes, _) = calls.produce(&request)?;
    let load = load(options, &request, answer_bytes);
    let (whole, allocations, requests) = broker.measure(&load, options)?;
    let (_, offset) = calls.produce(&request)?;
    if offset < i64::try_from(requests * shape.records as u64).map_err(io::Error::other)? {
        return Err(io::Error::other(format!("{requests} requests were answered, and the log ends at {offset}")));
    }
    let stages = vec![("validate", validate), ("append", append), ("write", write)];
    let ring = floor(options, &load)?;
    Ok(Row::new("produce", shape, batch_bytes, write_caching, Measured { ring, stages, whole, allocations }))
}

fn fetch_row(options: &Options, shape: Shape) -> io::Result<Row> {
    let Stages { read, .. } = stages(options, shape, false)?;
    let batch = shape.batch(now())?;
    let batch_bytes = batch.len();
    let directory = scratch(options)?;
    let broker = Broker::start(directory.path())?;
    let mut calls = Calls::new(broker.address())?;
    calls.create_topic(false)?;
    let request = requests::produce(batch)?;
    for _ in 0..BATCHES_FETCHED {
        calls.produce(&request)?;
    }
    let middle = Offset::ZERO.plus((BATCHES_FETCHED / 2 * shape.records) as u64);
    let request = requests::fetch(middle, batch_bytes)?;
    let (answer_bytes, records_bytes) = calls.fetch(&request)?;
    if records_bytes != batch_bytes {
        return Err(io::Error::other(format!("a fetch of {batch_bytes} bytes gives {records_bytes}")));
    }
    let load = load(options, &request, answer_bytes);
    let (whole, allocations, _) = broker.measure(&load, options)?;
    let ring = floor(options, &load)?;
    let stages = vec![("read", read)];
    Ok(Row::new("fetch", shape, batch_bytes, false, Measured { ring, stages, whole, allocations }))
}

fn stages(options: &Options, shape: Shape, write_caching: bool) -> io::Result<Stages> {
    let directory = scratch(options)?;
    stages::measure(&Subject {
        shape,
        group: options.in_flight as usize,
        write_caching,
        time: Duration::from_millis(options.run_ms),
        directory: directory.path().to_owned(),
    })
}

fn load(options: &Options, request: &[u8], answer_bytes: usize) -> Load {
    Load { connections: 1, pipeline: options.in_flight as usize, request: request.to_vec(), answer_bytes }
}

/// Nanoseconds of CPU per request of a bare ring under this load.
fn floor(options: &Options, load: &Load) -> io::Result<f64> {
    let numbers = [BUFFER_BYTES, load.request.len(), load.answer_bytes].map(|number| number.to_string());
    let [buffer, request, answer] = &numbers;
    let words = ["cost-floor", "--buffer-bytes", buffer, "--request-bytes", request, "--answer-bytes", answer];
    let serving = Serving::start(&words.map(str::to_owned))?;
    let pid = serving.pid();
    let run = load::drive(serving.address(), load, Duration::from_millis(options.run_ms), move || cpu_nanos(pid))?;
    Ok((run.after - run.before) as f64 / run.requests.max(1) as f64)
}

/// A broker's process.
struct Broker(Rc<RefCell<Serving>>);

impl Broker {
    fn start(directory: &Path) -> io::Result<Broker> {
        let directory = directory.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        let words = ["cost-broker", "--data-dir", directory];
        Ok(Broker(Rc::new(RefCell::new(Serving::start(&words.map(str::to_owned))?))))
    }

    fn address(&self) -> SocketAddr {
        self.0.borrow().address()
    }

    /// Nanoseconds of CPU and allocations per request, and the requests that were answered.
    fn measure(&self, load: &Load, options: &Options) -> io::Result<(f64, f64, u64)> {
        let serving = self.0.clone();
        let cost = move || {
            let mut serving = serving.borrow_mut();
            Ok((cpu_nanos(serving.pid())?, serving.ask()?))
        };
        let run = load::drive(self.address(), load, Duration::from_millis(options.run_ms), cost)?;
        let per_request = |before: u64, after: u64| (after - before) as f64 / run.requests.max(1) as f64;
        let nanos = per_request(run.before.0, run.after.0);
        Ok((nanos, per_request(run.before.1, run.after.1), run.requests))
    }
}

#[expect(clippy::disallowed_methods, reason = "the measuring thread is no shard")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(since.as_millis()).ok();
    millis.and_then(Timestamp::new).expect("the clock stands within 64 bits of milliseconds after 1970")
}

/// A directory for one measurement.
fn scratch(options: &Options) -> io::Result<Scratch> {
    Scratch::new(&options.directory.clone().unwrap_or_else(std::env::temp_dir))
}

/// What was measured of one row.
struct Measured {
    ring: f64,
    stages: Vec<(&'static str, f64)>,
    whole: f64,
    allocations: f64,
}

impl Row {
    fn new(request: &'static str, shape: Shape, batch_bytes: usize, write_caching: bool, measured: Measured) -> Row {
        let Measured { ring, stages, whole, allocations } = measured;
        let known = ring + stages.iter().map(|(_, nanos)| nanos).sum::<f64>();
        let (shape, rest) = (shape.name(), whole - known);
        Row { request, shape, batch_bytes, write_caching, ring, stages, rest, broker: whole, allocations }
    }
}

impl Report {
    fn print(&self) {
        println!("{}", self.machine);
        println!("1 connection, {} requests in flight, runs of {} ms", self.in_flight, self.run_ms);
        let mut head = String::new();
        for row in &self.rows {
            let names = row.stages.iter().map(|(name, _)| format!("{name:>9}")).collect::<String>();
            let title = match row.request {
                "produce" => format!("produce, write.caching={}", row.write_caching),
                _ => "fetch".to_owned(),
            };
            if head != title {
                println!("\n{title:<32}ns per byte of records {:>30}ns per request", "");
                let columns = format!("{:>8}{names}{:>8}{:>9}", "ring", "rest", "broker");
                println!("{:<12}{:>9}{columns}{:>7}{:>10}{:>9}", "batch", "bytes", "×ring", "broker", "allocs");
                head = title;
            }
            let per_byte = |nanos: f64| nanos / row.batch_bytes as f64;
            let stages = row.stages.iter().map(|(_, nanos)| format!("{:>9.3}", per_byte(*nanos))).collect::<String>();
            let (ring, rest, broker) = (per_byte(row.ring), per_byte(row.rest), per_byte(row.broker));
            println!(
                "{:<12}{:>9}{ring:>8.3}{stages}{rest:>8.3}{broker:>9.3}{:>7.2}{:>10.0}{:>9.2}",
                row.shape,
                row.batch_bytes,
                row.broker / row.ring,
                row.broker,
                row.allocations,
            );
        }
    }
}
