//! The load: producers and consumers on threads of their own, what they measure, and what a run is worth.
//!
//! | module | what it does |
//! |---|---|
//! | [`options`], [`plan`] | what a run consists of; what it finds out before it begins |
//! | [`schedule`], [`keys`], [`payload`], `generate` | when records are due, where they go, what is in them |
//! | `lane`, `link`, [`producer`](mod@producer) | batches of a partition, a connection, and who drives both |
//! | [`consumer`](mod@consumer) | fetches, and takes records apart |
//! | `topology` | who leads what, asked again when it changes |
//! | [`measure`], [`collect`] | what a thread records, and what all of them add up to |
//! | [`track`], `judge` | whether everything arrived; whether the schedule was kept |
//! | `worker` | a thread of load |
//!
//! [`run`] is the whole of it. Only the schedule decides when a record is due: latencies count from then, however late anything
//! else is (no coordinated omission).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use corelane::runtime::real::{self, StartError};
use corelane::runtime::{Duration, side, terminated};
use corelane::types::ShardId;

pub mod collect;
mod consumer;
mod generate;
mod judge;
pub mod keys;
mod lane;
mod link;
pub mod measure;
pub mod options;
pub mod payload;
pub mod plan;
mod producer;
mod progress;
pub mod schedule;
mod topology;
pub mod track;
mod worker;

pub use generate::HEADERS_MAX;
pub use options::LoadOptions;
pub use progress::Progress;
pub use worker::WorkerError;

use self::collect::{Collected, Collector};
use self::judge::{Evidence, judge};
use self::measure::{Latencies, LatencyKind};
use self::plan::Plan;
use self::track::Seen;
use self::worker::{Shared, WorkerEnd, work};
use crate::client::ClientError;
use crate::journal::JournalHeader;
use crate::journal::file::{self, JournalEnd, JournalError, JournalTally, JournalWriter};
use crate::result::{BrokerCost, Interval, Latency, Outcome, OwnCost, Verification};

/// Between two looks for samples.
const COLLECT_EVERY: Duration = Duration::from_millis(20);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The machine lacks something.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A broker cannot be asked, or a thread of load cannot reach one.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// What became of the batches cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<ClientError> for LoadError {
    fn from(error: ClientError) -> LoadError {
        LoadError::Worker(WorkerError::Client(error))
    }
}

/// What a run measured.
#[derive(Debug)]
pub struct LoadResult {
    /// What it found out before it began.
    pub plan: Plan,
    /// When the load began, in milliseconds since 1970.
    pub started_ms: u64,
    /// What was measured.
    pub outcome: Outcome,
    /// The same over time, histograms included.
    pub series: Vec<Collected>,
    /// What the journal holds, if there is one.
    pub journal: Option<JournalTally>,
    /// Seconds of the schedule, warm-up included.
    scheduled_s: f64,
}

impl LoadResult {
    /// The steps of the series without their histograms, and without what came after the schedule's end.
    pub fn intervals(&self) -> Vec<Interval> {
        let intervals = self.series.iter().map(|collected| &collected.interval);
        intervals.take_while(|interval| interval.at_s <= self.scheduled_s).cloned().collect()
    }
}

/// Runs a load to its end. `watch` is told of every interval as it is completed, on a thread of its own; SIGINT and SIGTERM
/// end the run in order. Blocks.
pub fn run(options: LoadOptions, watch: impl FnMut(&Interval) + Send + 'static) -> Result<LoadResult, LoadError> {
    run_beside(options, Arc::default(), watch)
}

/// The same, for those who do something meanwhile that depends on its progress.
pub fn run_beside(
    options: LoadOptions,
    progress: Arc<Progress>,
    mut watch: impl FnMut(&Interval) + Send + 'static,
) -> Result<LoadResult, LoadError> {
    let options = Arc::new(options);
    let planning = options.clone();
    let plan = real::run(&real::Options::default(), async move { Plan::make(&planning).await })??;
    let plan = Arc::new(plan);
    let (journal, journal_end) = begin_journal(&options, &plan)?.unzip();
    let shared = Arc::new(Shared::new(plan.partitions.len(), progress));
    let has_ended = Arc::new(AtomicBool::new(false));

    let collecting = {
        let (options, shared, has_ended) = (options.clone(), shared.clone(), has_ended.clone());
        std::thread::spawn(move || {
            let (mut collector, mut series) = (Collector::new(&options), Vec::new());
            collector.begin();
            loop {
                let at_end = has_ended.load(Ordering::Acquire);
                for collected in collector.collect(&shared, at_end) {
                    watch(&collected.interval);
                    series.push(collected);
                }
                if at_end {
                    return (collector, series);
                }
                side::pause(COLLECT_EVERY);
            }
        })
    };
    let placed = {
        let cores = options.cores.clone();
        move |shard: ShardId| real::Options { core: cores.get(usize::from(shard.0)).copied() }
    };
    let working = {
        let (options, plan, shared) = (options.clone(), plan.clone(), shared.clone());
        real::run_shards(options.threads, placed, move |shard| {
            let (options, plan, shared) = (options.clone(), plan.clone(), shared.clone());
            let journal = journal.clone();
            async move {
                if shard == ShardId(0) {
                    stop_when_asked(shared.clone());
                }
                work(shard, options, plan, shared, journal).await
            }
        })
    };
    has_ended.store(true, Ordering::Release);
    let (collector, series) = collecting.join().expect("the collector does not panic");
    let journal = journal_end.map(JournalEnd::finish).transpose()?;
    let ends = working?.into_iter().collect::<Result<Vec<WorkerEnd>, WorkerError>>()?;
    let verify = verification(&options, ends);
    let outcome = outcome(&options, &shared, &collector, verify);
    let plan = Arc::try_unwrap(plan).unwrap_or_else(|plan| (*plan).clone());
    let scheduled_s = (options.warmup + options.duration).as_secs_f64();
    Ok(LoadResult { plan, started_ms: shared.started_ms(), outcome, series, journal, scheduled_s })
}

/// Creates the journal of a run that is to have one.
fn begin_journal(options: &LoadOptions, plan: &Plan) -> Result<Option<(JournalWriter, JournalEnd)>, JournalError> {
    let (Some(path), Some(producers)) = (&options.journal, &options.producers) else { return Ok(None) };
    assert_eq!(plan.topics.len(), 1, "a journal is of one topic");
    let header = JournalHeader {
        run: plan.run,
        topic: plan.topics[0].to_string(),
        partitions: plan.partitions.len() as u32,
        writers: producers.count,
        idempotent: producers.idempotence,
    };
    file::create(path, &header).map(Some)
}

fn stop_when_asked(shared: Arc<Shared>) {
    let terminated = terminated();
    drop(corelane::runtime::spawn(corelane::runtime::Class::Background, async move {
        terminated.await;
        shared.stop(Some("interrupted"));
    }));
}

/// Holds what was handed out against what was sent; `None` unless both were done here.
fn verification(options: &LoadOptions, ends: Vec<WorkerEnd>) -> Option<Verification> {
    options.producers.as_ref()?;
    let sets = options.consumers.as_ref()?.sets;
    let mut result = Verification::default();
    // By set and partition.
    let mut seen: BTreeMap<(u32, usize), Vec<Seen>> = BTreeMap::new();
    let mut producers = Vec::new();
    for end in ends {
        producers.extend(end.producers);
        for consumer in end.consumers {
            result.corrupt += consumer.corrupt;
            result.misplaced += consumer.misplaced;
            result.foreign += consumer.foreign;
            seen.extend(consumer.seen.into_iter().map(|(partition, seen)| ((consumer.set, partition), seen)));
        }
    }
    for (set, producer) in (0..sets).flat_map(|set| producers.iter().map(move |producer| (set, producer))) {
        for (partition, sent) in (producer.first..).zip(&producer.sent) {
            let of_partition = seen.get(&(set, partition)).and_then(|seen| seen.get(producer.number as usize));
            track::merge(&mut result, &track::verify(sent, of_partition.unwrap_or(&Seen::default())));
        }
    }
    Some(result)
}

fn outcome(options: &LoadOptions, shared: &Shared, collector: &Collector, verify: Option<Verification>) -> Outcome {
    let total = &collector.total;
    let seconds = measured_seconds(options, shared);
    let rate_target = options.rate_target(seconds);
    let rate_in = total.measured_in.records as f64 / seconds;
    let stopped_because = shared.stopped_because.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (state, reasons) = judge(&Evidence {
        rate_target,
        rate_in,
        total,
        least: &collector.least,
        cpu_share: collector.cpu_share(),
        stopped_because: stopped_because.as_deref(),
    });
    let measured = LatencyKind::ALL.iter().zip(&total.latencies).filter(|(_, latencies)| latencies.count() > 0);
    let latency = |latencies: &Latencies| Latency::new(&latencies.histogram, latencies.overflow);
    let hiccups = &collector.hiccup_total;
    let bytes = if options.producers.is_some() { total.measured_in.bytes } else { total.measured_out.bytes };
    Outcome {
        state,
        reasons,
        seconds,
        rate_target,
        rate_in,
        rate_out: total.measured_out.records as f64 / seconds,
        records_in: total.measured_in.records,
        records_out: total.measured_out.records,
        bytes_in: total.measured_in.bytes,
        bytes_out: total.measured_out.bytes,
        errors: total.errors,
        latency: measured.map(|(kind, latencies)| (kind.name().to_owned(), latency(latencies))).collect(),
        hiccup: (!hiccups.is_empty()).then(|| Latency::new(hiccups, 0)),
        broker: collector.broker_cost().map(|(cost, rss)| BrokerCost {
            cpu_s_per_gb: cost.cpu.as_secs_f64() / (bytes.max(1) as f64 / 1e9),
            cpu_s: cost.cpu.as_secs_f64(),
            rss,
            ctx: cost.switches,
            written: cost.written_bytes,
        }),
        own: OwnCost { cpu: collector.own_cpu(), threads: usize::from(options.threads) },
        verify,
    }
}

/// How long was measured: the whole window, unless the run ended before it did.
fn measured_seconds(options: &LoadOptions, shared: &Shared) -> f64 {
    let planned = options.duration.as_secs_f64();
    let Some(times) = shared.times(options) else { return planned };
    let done = shared.done_at();
    let ended_early = options.num_records.is_some() || shared.is_stopping() || options.producers.is_none();
    if ended_early && done < times.end {
        // A run of nothing would be divided by nothing.
        (done.saturating_sub(times.measure) as f64 / 1e9).max(1e-9)
    } else {
        planned
    }
}
