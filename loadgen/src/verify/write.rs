//! The writing half: a run of writers that fill a topic's partitions and journal what becomes of every batch.
//!
//! Every writer has a connection of its own to each leader and a lane per partition. All pace themselves by one schedule in
//! bytes per second, if there is one: a batch is due when the schedule says so, however late it leaves. The run ends when its
//! time, its number of records or [`Progress::stop`] says so, or when a connection breaks for good; then every answer that is
//! still to come is waited for, and what stays unanswered is journaled as unknown.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use corelane::runtime::{Class, Duration, Instant, random_u64, spawn};
use corelane::types::PartitionId;
use hdrhistogram::Histogram;

use super::lane::Lane;
use super::link::Link;
use crate::client::{Bootstrap, ClientError, NewTopic, create_topic, producer_id};
use crate::journal::file::{JournalError, JournalWriter};
use crate::journal::{JournalHeader, Outcome, file};
use crate::stamp::{RunId, WriterId};

/// Requests in flight per partition that a broker can tell apart from new ones when they are sent again (KIP-98).
pub const IDEMPOTENT_INFLIGHT_MAX: usize = 5;
/// Latencies are kept from 1 µs to an hour, in three digits.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Which replicas acknowledge a batch. A run that proves something waits for one at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Acks {
    /// The leader alone.
    #[value(name = "1")]
    Leader,
    /// Every in-sync replica.
    All,
}

impl Acks {
    pub(super) fn wire(self) -> i16 {
        match self {
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Where to find the brokers.
    pub bootstrap: Bootstrap,
    /// The topic.
    pub topic: String,
    /// How to create it, unless it exists.
    pub create: Option<NewTopic>,
    /// The journal; it must not exist yet.
    pub journal: PathBuf,
    /// Who acknowledges.
    pub acks: Acks,
    /// Whether writers have producer ids and send again what is not answered.
    pub idempotence: bool,
    /// How long a broker may be away; `None`: a broken connection ends the run.
    pub reconnect: Option<Duration>,
    /// Writers, each with a connection of its own to every leader.
    pub writers: u32,
    /// Requests in flight per writer and partition, each with one batch.
    pub inflight_max: usize,
    /// Records of a batch.
    pub batch_records: u32,
    /// Bytes of a record's value, evenly drawn; at least a stamp.
    pub record_bytes: RangeInclusive<usize>,
    /// Bytes of values per second, in all; `None`: as fast as they are acknowledged.
    pub rate_bytes: Option<u64>,
    /// When to stop sending.
    pub duration: Option<Duration>,
    /// After how many records to stop sending.
    pub num_records: Option<u64>,
}

/// What others may see and do while a run is under way, from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Batches that were acknowledged.
    pub acked_batches: AtomicU64,
    /// Records that were acknowledged.
    pub acked_records: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Ends the run: nothing new is sent, what is under way is waited for.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct WriteSummary {
    /// From the first batch to the last answer.
    pub elapsed: Duration,
    /// Batches that were acknowledged.
    pub acked_batches: u64,
    /// Records that were acknowledged.
    pub acked_records: u64,
    /// Bytes of their batches.
    pub acked_bytes: u64,
    /// Records with an unknown result.
    pub unknown_records: u64,
    /// Records that were refused, by Kafka's error code.
    pub refused_records: BTreeMap<i16, u64>,
    /// From due to acknowledged, per batch: the 99th percentile. `None` without acknowledgements.
    pub response_p99: Option<Duration>,
    /// The first fault of a connection.
    pub disconnected: Option<String>,
}

/// A run that could not start, or whose journal is not whole.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No topic to write to.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The schedule: when the next batch is due.
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    next_ns: Cell<u64>,
}

impl Pace {
    fn new(bytes_per_second: Option<u64>, start: Instant) -> Pace {
        Pace { bytes_per_second, next_ns: Cell::new(start.nanos()) }
    }

    /// Takes the next batch's place in the schedule and yields when it is due, in nanoseconds of the monotonic clock; how
    /// long to wait if that is in the future.
    pub(super) fn take(&self, bytes: u64) -> Result<u64, Duration> {
        let now = Instant::now().nanos();
        let Some(rate) = self.bytes_per_second else { return Ok(now) };
        let due = self.next_ns.get();
        if due > now {
            return Err(Duration::from_nanos(due - now));
        }
        self.next_ns.set(due + bytes.saturating_mul(1_000_000_000) / rate.max(1));
        Ok(due)
    }
}

/// What all lanes of a run share.
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) options: WriteOptions,
    pub(super) journal: JournalWriter,
    pub(super) pace: Pace,
    progress: Arc<Progress>,
    started: Instant,
    deadline: Option<Instant>,
    records_left: Cell<u64>,
    summary: RefCell<WriteSummary>,
    latency_us: RefCell<Histogram<u64>>,
}

impl Run {
    /// Whether new batches may be sent.
    pub(super) fn goes_on(&self) -> bool {
        let over = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        !over && self.records_left.get() > 0 && !self.progress.stop.load(Ordering::Relaxed)
    }

    /// Records of the next batch: those of a full one, or what is left.
    pub(super) fn claim_records(&self) -> u32 {
        let left = self.records_left.get();
        let count = u64::from(self.options.batch_records).min(left);
        self.records_left.set(left - count);
        count as u32
    }

    /// Bytes of values in a full batch, on average.
    pub(super) fn batch_bytes(&self) -> u64 {
        let (least, most) = (*self.options.record_bytes.start(), *self.options.record_bytes.end());
        (least + most) as u64 / 2 * u64::from(self.options.batch_records)
    }

    /// Bytes of a record's value: drawn evenly, the same for the same record of the same run.
    pub(super) fn record_bytes(&self, writer: WriterId, sequence: u64) -> usize {
        let (least, most) = (*self.options.record_bytes.start(), *self.options.record_bytes.end());
        let mixed = (self.id.0 ^ u64::from(writer.0) << 48 ^ sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        least + (mixed >> 32) as usize % (most - least + 1)
    }

    /// Notes a broken connection.
    pub(super) fn disconnected(&self, error: ClientError) {
        self.summary.borrow_mut().disconnected.get_or_insert_with(|| error.to_string());
    }

    /// Counts a batch whose end is journaled.
    pub(super) fn count(&self, outcome: Outcome, records: u32, bytes: usize, due_ns: u64) {
        let mut summary = self.summary.borrow_mut();
        match outcome {
            Outcome::Acked(_) => {
                summary.acked_batches += 1;
                summary.acked_records += u64::from(records);
                summary.acked_bytes += bytes as u64;
                self.progress.acked_batches.fetch_add(1, Ordering::Relaxed);
                self.progress.acked_records.fetch_add(u64::from(records), Ordering::Relaxed);
                let latency = Instant::now().nanos().saturating_sub(due_ns);
                self.latency_us.borrow_mut().saturating_record(latency / 1000);
            }
            Outcome::Refused(code) => *summary.refused_records.entry(code).or_default() += u64::from(records),
            Outcome::Unknown => summary.unknown_records += u64::from(records),
        }
    }
}

/// Runs to the end. The journal is whole when this returns without an error.
pub async fn write(options: WriteOptions, progress: Arc<Progress>) -> Result<WriteSummary, WriteError> {
    let first = options.bootstrap.connect().await?;
    if let Some(topic) = &options.create {
        create_topic(&first, topic).await?;
    }
    let leaders = options.bootstrap.leaders(&first, &options.topic).await?;
    let mut producers = Vec::with_capacity(options.writers as usize);
    for _ in 0..options.writers {
        producers.push(if options.idempotence { Some(producer_id(&first).await?) } else { None });
    }
    drop(first);

    let header = JournalHeader {
        run: RunId(random_u64()),
        topic: options.topic.clone(),
        partitions: leaders.len() as u32,
        writers: options.writers,
        idempotent: options.idempotence,
    };
    let (journal, journal_end) = file::create(&options.journal, &header).await?;
    let started = Instant::now();
    let run = Rc::new(Run {
        id: header.run,
        pace: Pace::new(options.rate_bytes, started),
        progress,
        started,
        deadline: options.duration.map(|duration| started.plus(duration)),
        records_left: Cell::new(options.num_records.unwrap_or(u64::MAX)),
        summary: RefCell::default(),
        latency_us: RefCell::new(Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are valid")),
        journal,
        options,
    });
    let mut lanes = Vec::new();
    for (writer, producer) in (0..).map(WriterId).zip(producers) {
        let mut links: HashMap<_, Rc<Link>> = HashMap::new();
        for (index, &leader) in (0..).zip(&leaders) {
            let partition = PartitionId::new(index).expect("not negative");
            let new = || Rc::new(Link::new(leader, run.options.bootstrap.options.clone(), run.options.reconnect));
            let link = links.entry(leader).or_insert_with(new).clone();
            let lane = Lane::new(run.clone(), link, writer, partition, producer);
            lanes.push(spawn(Class::Produce, lane.run()));
        }
    }
    for lane in lanes {
        lane.await;
    }
    journal_end.finish().await?;
    let mut summary = run.summary.take();
    summary.elapsed = Instant::now().since(run.started);
    let latency = run.latency_us.borrow();
    let p99 = Duration::from_micros(latency.value_at_quantile(0.99));
    summary.response_p99 = (!latency.is_empty()).then_some(p99);
    Ok(summary)
}
