//! What recording costs a shard: nanoseconds of its thread for each sample, alone and while another thread scrapes without
//! pause, which is far more often than anything does.
//!
//! The clock is a row of its own: a request is timed with one look at it, shared by all answers that are sent together. What
//! is measured runs on a shard's thread with plain loops; the price of a loop is in every row.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use corelane::metrics::{ApiCode, Reading, Recording, render};
use corelane::runtime::{Duration, Instant, metrics, real};
use corelane::types::ShardId;
use corelane::wire::ApiKey;

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Samples of each row
    #[arg(long, default_value_t = 20_000_000)]
    samples: u64,
}

/// One row: a name, and a step that is taken once for each sample.
type Row = (&'static str, fn(&Recording, u64));

const ROWS: &[Row] = &[
    ("counter", |metrics, sample| metrics.commit_bytes.add(sample)),
    ("histogram", |metrics, sample| metrics.appends.record(duration(sample))),
    ("histogram of an API", |metrics, sample| {
        metrics.requests.at(API).record(duration(sample));
    }),
    ("look at the clock", |_, _| {
        black_box(Instant::now());
    }),
];

const API: ApiCode = ApiCode::new(ApiKey::Produce.code()).expect("a key below 128");

/// Up to a millisecond, scattered.
fn duration(sample: u64) -> Duration {
    Duration::from_nanos(sample.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44)
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let samples = options.samples;
    real::run(&real::Options::default(), async move { measure(samples) }).map_err(io::Error::other)
}

fn measure(samples: u64) {
    let metrics = metrics();
    let alone = ROWS.iter().map(|row| nanos(&metrics, row, samples)).collect::<Vec<_>>();
    let scrapes = Scrapes::start(metrics.reading());
    let scraped = ROWS.iter().map(|row| nanos(&metrics, row, samples)).collect::<Vec<_>>();
    let count = scrapes.stop();
    println!("{:22} {:>10} {:>14}", "ns per sample", "alone", "while scraped");
    for (((name, _), alone), scraped) in ROWS.iter().zip(alone).zip(scraped) {
        println!("{name:22} {alone:>10.2} {scraped:>14.2}");
    }
    println!("{count} scrapes meanwhile");
}

/// Nanoseconds of this thread for one sample.
fn nanos(metrics: &Recording, (_, step): &Row, samples: u64) -> f64 {
    (0..samples / 10).for_each(|sample| step(metrics, black_box(sample)));
    let before = real::thread_cpu_nanos();
    (0..samples).for_each(|sample| step(metrics, black_box(sample)));
    (real::thread_cpu_nanos() - before) as f64 / samples as f64
}

/// A thread that renders one shard's metrics over and over.
struct Scrapes {
    ended: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Scrapes {
    fn start(reading: Reading) -> Scrapes {
        let (ended, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, counted) = (ended.clone(), count.clone());
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                black_box(render(&[(ShardId(0), reading.clone())], |code| ApiKey::from_code(code).map(ApiKey::name)));
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Scrapes { ended, count, thread }
    }

    fn stop(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic");
        self.count.load(Ordering::Relaxed)
    }
}
