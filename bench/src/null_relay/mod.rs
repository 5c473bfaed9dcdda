//! The floor under the broker: what it costs to receive, check, write, acknowledge and send on a byte, in class B or C.
//!
//! The relay ([`server`]) runs in a process of its own; the load is a shard of the runtime in this one. Each lane has a producer
//! that keeps a number of frames in flight and a consumer: one in, one write, one out. When the time is over the producers end,
//! and whatever was sent must have been acknowledged and have come out, byte for byte as many; else there is no result.
//!
//! A broker's CPU time per GB is quoted as a ratio to this, measured in the same run, on the same cores and disk.

mod segment;
pub(crate) mod server;
mod tail;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use bench::scratch::Scratch;
use clap::Args;
use corelane::runtime::{Buffer, Class, Duration, Instant, Stream, connect, real, sleep, spawn};
use corelane::types::Piece;
use serde::Serialize;

use self::segment::Durable;
use self::server::{ACK_BYTES, Role, WELCOME, greeting};
use self::tail::{PAYLOAD_BYTES_MAX, frame};
use crate::load::{self, Flow, Load, Run};
use crate::serving::{Serving, cpu_seconds, machine_line, write_json};

/// Bytes of a segment, if nothing else is said: with [`SEGMENTS_MAX`] of them a lane has half a gigabyte on disk.
pub(crate) const SEGMENT_BYTES: u64 = 256 << 20;
/// Segments of a lane that are there at most, if nothing else is said.
pub(crate) const SEGMENTS_MAX: u16 = 2;

/// Bytes that a consumer receives at once at most.
const RECEIVE_BYTES_MAX: usize = 256 << 10;
/// How long the last frames may take to come out.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// How much is measured, and where.
#[derive(Args)]
pub(crate) struct Options {
    /// When a frame is acknowledged: B written, C flushed
    #[arg(long, value_enum)]
    class: Durable,
    /// Bytes of payload of a frame: a batch of a broker
    #[arg(long, default_value_t = 64 << 10, value_parser = clap::value_parser!(u32).range(1..=PAYLOAD_BYTES_MAX as i64))]
    batch_bytes: u32,
    /// Bytes of a record, by which batches are counted as records; nothing else depends on it
    #[arg(long, default_value_t = 1 << 10, value_parser = clap::value_parser!(u32).range(1..))]
    record_bytes: u32,
    /// Producers, each with a consumer and segments of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    lanes: u16,
    /// Frames in flight per producer
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=128))]
    in_flight: u16,
    /// Milliseconds before the measurement
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=600_000))]
    warmup_ms: u64,
    /// Milliseconds of the measurement
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    run_ms: u64,
    /// Where a directory for the segments is made, and removed; the directory for temporary files if it is not given
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Bytes at which a segment ends
    #[arg(long, default_value_t = SEGMENT_BYTES, value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 30))]
    segment_bytes: u64,
    /// Segments of a lane that are there at most
    #[arg(long, default_value_t = SEGMENTS_MAX, value_parser = clap::value_parser!(u16).range(1..))]
    segments_max: u16,
    /// The core that the relay stays on
    #[arg(long)]
    core: Option<usize>,
    /// The core that the load stays on
    #[arg(long)]
    load_core: Option<usize>,
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
    class: String,
    batch_bytes: u32,
    record_bytes: u32,
    lanes: u16,
    in_flight: u16,
    records_per_s: f64,
    /// Bytes of payload.
    bytes_per_s: f64,
    /// User and system seconds of the relay per 10⁹ bytes of payload.
    cpu_s_per_gb: f64,
    seconds: f64,
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let machine = machine_line()?;
    let scratch = Scratch::new(&options.directory.clone().unwrap_or_else(std::env::temp_dir))?;
    let serving = Serving::start(&words(options, &scratch)?)?;
    let run = drive(options, &serving)?;
    let report = Report::new(options, machine, &run);
    println!("{}", report.machine);
    println!(
        "null relay, class {}, {} B batches of {} B records, {} × {} in flight: {:.0} records/s, {:.1} MB/s, {:.3} CPU s/GB",
        report.class,
        report.batch_bytes,
        report.record_bytes,
        report.lanes,
        report.in_flight,
        report.records_per_s,
        report.bytes_per_s / 1e6,
        report.cpu_s_per_gb,
    );
    options.json.as_ref().map_or(Ok(()), |path| write_json(path, &report))
}

/// How the relay's process is started.
fn words(options: &Options, scratch: &Scratch) -> io::Result<Vec<String>> {
    let directory = scratch.path().to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let (class, segment_bytes, segments_max) =
        (class_name(options.class), options.segment_bytes.to_string(), options.segments_max.to_string());
    let mut words = vec!["relay-server", "--directory", directory, "--class", &class];
    words.extend(["--segment-bytes", &segment_bytes, "--segments-max", &segments_max]);
    let core = options.core.map(|core| core.to_string());
    if let Some(core) = &core {
        words.extend(["--core", core]);
    }
    Ok(words.into_iter().map(str::to_owned).collect())
}

fn class_name(class: Durable) -> String {
    clap::ValueEnum::to_possible_value(&class).expect("no class is hidden").get_name().to_owned()
}

/// Puts the load on the relay; the cost is seconds of its CPU time.
fn drive(options: &Options, serving: &Serving) -> io::Result<Run<f64>> {
    let payload: Vec<u8> =
        (0..options.batch_bytes).map(|index| (index.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    let load = Load {
        connections: usize::from(options.lanes),
        pipeline: usize::from(options.in_flight),
        request: frame(&payload),
        answer_bytes: ACK_BYTES,
    };
    let (address, pid) = (serving.address(), serving.pid());
    let (warm_up, time) = (Duration::from_millis(options.warmup_ms), Duration::from_millis(options.run_ms));
    let main = async move {
        let content = load::content(&load.request, load.pipeline);
        let (mut flows, mut consumed) = (Vec::new(), Vec::new());
        for lane in 0..load.connections {
            let (producer, consumer) = lane_clients(address, u16::try_from(lane).map_err(io::Error::other)?).await?;
            let bytes = Rc::new(Cell::new(0));
            spawn(Class::Fetch, consume(consumer, bytes.clone()));
            consumed.push(bytes);
            flows.push(Flow::start(producer, &load, &content));
        }
        let run = load::watch(&flows, warm_up, time, || cpu_seconds(pid)).await?;
        flows.iter().for_each(|flow| flow.end());
        settle(&flows, &consumed).await?;
        Ok(run)
    };
    real::run(&real::Options { core: options.load_core }, main).map_err(io::Error::other)?
}

/// The producer's and the consumer's connection of a lane.
async fn lane_clients(address: SocketAddr, lane: u16) -> io::Result<(Stream, Stream)> {
    let (producer, consumer) = (connect(address).await?, connect(address).await?);
    for (stream, role) in [(&producer, Role::Producer), (&consumer, Role::Consumer)] {
        let greeting = greeting(role, lane).to_vec();
        stream.send(vec![Piece::Encoded(greeting.into())]).await.0?;
    }
    for stream in [&producer, &consumer] {
        let (received, welcome) = stream.receive(Buffer::with_capacity(WELCOME.len())).await;
        received?;
        // Nothing follows it before the first frame is sent.
        if *welcome != *WELCOME {
            return Err(io::Error::other("the relay does not take the lane; its own output says why"));
        }
    }
    Ok((producer, consumer))
}

/// Counts what comes out.
async fn consume(stream: Stream, bytes: Rc<Cell<u64>>) {
    let mut buffer = Buffer::with_capacity(RECEIVE_BYTES_MAX);
    loop {
        let (received, back) = stream.receive(buffer).await;
        buffer = back;
        let count = received.expect("the relay lives as long as the run");
        assert!(count > 0 && buffer.clear(), "the relay keeps the connection, and nobody the bytes");
        bytes.set(bytes.get() + count as u64);
    }
}

/// Waits until all that was sent is acknowledged and has come out.
async fn settle(flows: &[Rc<Flow>], consumed: &[Rc<Cell<u64>>]) -> io::Result<()> {
    let end = Instant::now().plus(SETTLE_MAX);
    let settled = |(flow, bytes): (&Rc<Flow>, &Rc<Cell<u64>>)| flow.is_answered() && bytes.get() == flow.bytes_sent();
    while !flows.iter().zip(consumed).all(settled) {
        if Instant::now() >= end {
            return Err(io::Error::other(
                "the relay has not acknowledged and sent on what it was sent, no less and no more",
            ));
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

impl Report {
    fn new(options: &Options, machine: String, run: &Run<f64>) -> Report {
        let bytes = run.requests as f64 * f64::from(options.batch_bytes);
        Report {
            schema: 1,
            kind: "null_relay",
            machine,
            class: class_name(options.class),
            batch_bytes: options.batch_bytes,
            record_bytes: options.record_bytes,
            lanes: options.lanes,
            in_flight: options.in_flight,
            records_per_s: bytes / f64::from(options.record_bytes) / run.seconds,
            bytes_per_s: bytes / run.seconds,
            cpu_s_per_gb: (run.after - run.before) / (bytes / 1e9),
            seconds: run.seconds,
        }
    }
}
