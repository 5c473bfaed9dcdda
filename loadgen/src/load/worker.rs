//! A thread of load: its producers and consumers, what they share, and the looks that are taken at them.
//!
//! Threads share nothing but [`Shared`], a few atomics and the list of samples; each has its connections, its view of who leads
//! what, and its recorder. A thread ends when its producers have an end for every record and its consumers were handed
//! everything that was acknowledged, or have waited for it in vain.

use std::cell::{Cell, OnceCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use corelane::runtime::{Class, Duration, Instant, real, sleep, spawn, wall_clock};
use corelane::types::ShardId;

use super::consumer::{Consumer, ConsumerEnd};
use super::judge::COUNT_GRACE;
use super::measure::{Recorder, Sample};
use super::options::LoadOptions;
use super::payload::{Payload, PayloadError};
use super::plan::Plan;
use super::producer::{Producer, ProducerEnd};
use super::progress::Progress;
use super::topology::Topology;
use crate::client::ClientError;
use crate::journal::file::JournalWriter;

/// Between two looks at producers and consumers.
const LOOK: Duration = Duration::from_millis(10);
/// From everybody being ready to the first record.
const LEAD: Duration = Duration::from_millis(20);

/// When a run begins and what of it is measured, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Times {
    /// The first record is due.
    pub(super) start: u64,
    /// The warm-up ends.
    pub(super) measure: u64,
    /// Nothing is due any more.
    pub(super) end: u64,
}

impl Times {
    fn new(start: u64, options: &LoadOptions) -> Times {
        let measure = start + options.warmup.as_nanos() as u64;
        Times { start, measure, end: measure.saturating_add(options.duration.as_nanos() as u64) }
    }

    /// What is measured.
    pub(super) fn window(self) -> Range<u64> {
        self.measure..self.end
    }
}

/// What threads tell each other and the collector.
pub(super) struct Shared {
    /// Threads that are ready.
    ready: AtomicU32,
    /// When the run begins; 0 until that is known.
    start: AtomicU64,
    /// The same by the wall clock, in milliseconds since 1970.
    started_ms: AtomicU64,
    /// What others see of the run.
    pub(super) progress: Arc<Progress>,
    /// Why, if not because somebody asked for it.
    pub(super) stopped_because: Mutex<Option<String>>,
    /// Producers that have an end for every record.
    pub(super) producers_done: AtomicU32,
    /// When the last of them had, on the monotonic clock; without producers, when the last consumer had ended.
    pub(super) producers_done_at: AtomicU64,
    /// By partition: the offset after the last acknowledged record.
    pub(super) acked_end: Vec<AtomicU64>,
    /// Bytes of acknowledged records.
    pub(super) acked_bytes: AtomicU64,
    /// Records that consumers were handed.
    pub(super) consumed: AtomicU64,
    /// Samples: the interval's number, the thread, what it measured.
    samples: Mutex<Vec<(u64, u16, Sample)>>,
}

impl Shared {
    pub(super) fn new(partitions: usize, progress: Arc<Progress>) -> Shared {
        Shared {
            ready: AtomicU32::new(0),
            start: AtomicU64::new(0),
            started_ms: AtomicU64::new(0),
            progress,
            stopped_because: Mutex::new(None),
            producers_done: AtomicU32::new(0),
            producers_done_at: AtomicU64::new(0),
            acked_end: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            acked_bytes: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            samples: Mutex::new(Vec::new()),
        }
    }

    /// When the run began; `None` before it does.
    pub(super) fn times(&self, options: &LoadOptions) -> Option<Times> {
        let start = self.start.load(Ordering::Acquire);
        (start > 0).then(|| Times::new(start, options))
    }

    /// When the run began, in milliseconds since 1970.
    pub(super) fn started_ms(&self) -> u64 {
        self.started_ms.load(Ordering::Relaxed)
    }

    /// Ends the run: nothing new is made, what is under way is waited for.
    pub(super) fn stop(&self, because: Option<&str>) {
        if let Some(because) = because {
            let mut reason = self.stopped_because.lock().unwrap_or_else(PoisonError::into_inner);
            reason.get_or_insert_with(|| because.to_owned());
        }
        self.progress.stop();
    }

    /// Whether the run is to end now.
    pub(super) fn is_stopping(&self) -> bool {
        self.progress.is_stopping()
    }

    /// A producer has an end for every record.
    pub(super) fn producer_is_done(&self) {
        self.producers_done_at.fetch_max(Instant::now().nanos(), Ordering::Relaxed);
        self.producers_done.fetch_add(1, Ordering::Release);
    }

    /// A consumer of a run without producers has ended.
    pub(super) fn reader_is_done(&self) {
        self.producers_done_at.fetch_max(Instant::now().nanos(), Ordering::Relaxed);
    }

    /// When the run had done what it was to do, on the monotonic clock.
    pub(super) fn done_at(&self) -> u64 {
        self.producers_done_at.load(Ordering::Relaxed)
    }

    /// Takes out the samples that have come.
    pub(super) fn take_samples(&self) -> Vec<(u64, u16, Sample)> {
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether every producer of the run has an end for every record.
    pub(super) fn producers_are_done(&self, options: &LoadOptions) -> bool {
        let count = options.producers.as_ref().map_or(0, |producers| producers.count);
        self.producers_done.load(Ordering::Acquire) == count
    }
}

/// What producers and consumers of a thread share.
pub(super) struct Worker {
    pub(super) options: Arc<LoadOptions>,
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Recorder,
    pub(super) topology: Rc<Topology>,
    /// What is told of each batch.
    pub(super) journal: Option<JournalWriter>,
    times: OnceCell<Times>,
    has_ended: Cell<bool>,
}

impl Worker {
    /// How many times each record is handed out.
    pub(super) fn consumer_sets(&self) -> u64 {
        self.options.consumers.as_ref().map_or(0, |consumers| u64::from(consumers.sets))
    }

    /// When the run began.
    ///
    /// # Panics
    /// Before it has.
    pub(super) fn times(&self) -> Times {
        *self.times.get().expect("producers and consumers run once the start is known")
    }
}

/// What a thread leaves behind.
pub(super) struct WorkerEnd {
    pub(super) producers: Vec<ProducerEnd>,
    pub(super) consumers: Vec<ConsumerEnd>,
}

/// Why a thread could not begin.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A broker that cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A payload that cannot be had.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Another thread could not begin.
    #[error("the run did not begin")]
    NotBegun,
}

/// Which of `count` things belong to thread `shard` of `threads`.
pub(super) fn own(count: u32, shard: ShardId, threads: u16) -> impl Iterator<Item = u32> {
    (0..count).filter(move |number| number % u32::from(threads) == u32::from(shard.0))
}

/// Runs one thread's part.
pub(super) async fn work(
    shard: ShardId,
    options: Arc<LoadOptions>,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    journal: Option<JournalWriter>,
) -> Result<WorkerEnd, WorkerError> {
    let topology = Topology::new(options.bootstrap.clone(), plan.clone());
    let (recorder, times, has_ended) = (Recorder::new(), OnceCell::new(), Cell::new(false));
    let worker = Rc::new(Worker { options, plan, shared, recorder, topology, journal, times, has_ended });
    let prepared = prepare(&worker, shard).await;
    if prepared.is_err() {
        worker.shared.stop(None);
    }
    let (producers, consumers) = prepared?;
    let start = agree_on_start(&worker.options, &worker.shared).await.ok_or(WorkerError::NotBegun)?;
    let times = Times::new(start, &worker.options);
    worker.times.set(times).expect("set once");
    worker.recorder.measure(times.window(), times.end.saturating_add(COUNT_GRACE.as_nanos() as u64));

    let sampling = spawn(Class::Background, sample(worker.clone(), shard));
    let looking = spawn(Class::Background, look(worker.clone(), producers.clone()));
    let producing: Vec<_> = producers.iter().map(|producer| spawn(Class::Produce, producer.clone().run())).collect();
    let consuming: Vec<_> = consumers.into_iter().map(|consumer| spawn(Class::Produce, consumer.run())).collect();
    for task in producing {
        task.await;
    }
    let mut ends = Vec::with_capacity(consuming.len());
    for task in consuming {
        ends.push(task.await);
    }
    worker.topology.end();
    worker.has_ended.set(true);
    looking.await;
    sampling.await;
    let producers = producers.iter().map(|producer| producer.take_end()).collect();
    Ok(WorkerEnd { producers, consumers: ends })
}

/// Makes the thread's producers and consumers and connects them.
async fn prepare(worker: &Rc<Worker>, shard: ShardId) -> Result<(Vec<Rc<Producer>>, Vec<Consumer>), WorkerError> {
    let (mut producers, mut consumers) = (Vec::new(), Vec::new());
    if let Some(options) = &worker.options.producers {
        let (sizes, seed) = (options.record_bytes.clone(), worker.options.seed);
        let payload = Payload::new(&options.payload, sizes, options.headers, seed)?;
        for number in own(options.count, shard, worker.options.threads) {
            let producer = Producer::new(worker.clone(), options, payload.from_place(number), number);
            producer.connect().await?;
            producers.push(producer);
        }
    }
    if let Some(options) = &worker.options.consumers {
        for number in own(options.total(), shard, worker.options.threads) {
            let mut consumer = Consumer::new(worker.clone(), options, number);
            consumer.connect().await?;
            consumers.push(consumer);
        }
    }
    Ok((producers, consumers))
}

/// Waits until every thread is ready; the last one sets the start. `None` if one of them cannot begin.
async fn agree_on_start(options: &LoadOptions, shared: &Shared) -> Option<u64> {
    if shared.ready.fetch_add(1, Ordering::AcqRel) + 1 == u32::from(options.threads) {
        shared.started_ms.store(wall_clock().millis().unsigned_abs(), Ordering::Relaxed);
        shared.start.store(Instant::now().plus(LEAD).nanos(), Ordering::Release);
    }
    while !shared.is_stopping() {
        match shared.start.load(Ordering::Acquire) {
            0 => sleep(Duration::from_millis(1)).await,
            start => return Some(start),
        }
    }
    None
}

/// Hands out what was measured at the end of each interval, and once more at the end.
async fn sample(worker: Rc<Worker>, shard: ShardId) {
    let step = worker.options.interval.as_nanos() as u64;
    let mut cpu_before = real::thread_cpu_nanos();
    let mut began = worker.times().start;
    for interval in 0.. {
        let end = worker.times().start + (interval + 1) * step;
        while Instant::now().nanos() < end && !worker.has_ended.get() {
            let left = Duration::from_nanos(end.saturating_sub(Instant::now().nanos()));
            sleep(left.min(LOOK)).await;
        }
        let mut sample = worker.recorder.take();
        let (cpu, now) = (real::thread_cpu_nanos(), Instant::now().nanos());
        (sample.cpu_ns, sample.span_ns) = (cpu - cpu_before, now.saturating_sub(began));
        (cpu_before, began) = (cpu, now);
        worker.shared.samples.lock().unwrap_or_else(PoisonError::into_inner).push((interval, shard.0, sample));
        if worker.has_ended.get() {
            break;
        }
    }
}

/// Looks how far producers are behind, whether the limit of requests in flight holds them up, and how far consumers are.
async fn look(worker: Rc<Worker>, producers: Vec<Rc<Producer>>) {
    while !worker.has_ended.get() {
        sleep(LOOK).await;
        let now = Instant::now().nanos();
        if !worker.times().window().contains(&now) {
            continue;
        }
        let lag = producers.iter().map(|producer| producer.lag_ns(now)).max();
        let held_up = producers.iter().any(|producer| producer.is_held_up(now));
        let acked = worker.shared.progress.acked_records() * worker.consumer_sets();
        let backlog = acked.saturating_sub(worker.shared.consumed.load(Ordering::Relaxed));
        worker.recorder.record(|sample| {
            let least = |before: Option<u64>, now: u64| Some(before.map_or(now, |before| before.min(now)));
            if let Some(lag) = lag {
                sample.lag_ns_min = least(sample.lag_ns_min, lag);
                sample.looks += 1;
                sample.looks_at_limit += u64::from(held_up);
            }
            if worker.options.consumers.is_some() && worker.options.producers.is_some() {
                sample.backlog_min = least(sample.backlog_min, backlog);
            }
        });
    }
}
