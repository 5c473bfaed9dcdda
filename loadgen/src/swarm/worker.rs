//! A thread of a swarm: its share of the connections, told step by step what to do with them.
//!
//! Tasks exist for what is under way only: one for a connection that is being made, one for a connection that owes answers.
//! Requests are due by an open-loop schedule, to one connection after the other; one whose connection still owes an answer
//! waits behind it, and its latency counts from when it was due.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use corelane::runtime::sync::Notify;
use corelane::runtime::{Class, Duration, Instant, Stream, real, sleep, sleep_until, spawn, terminated, yield_now};
use corelane::types::ShardId;

use super::SwarmOptions;
use super::ask::{Asks, Worth};
use super::conduct::{Shared, Step};
use super::member::{self, Fault};
use super::plan::SwarmPlan;
use crate::load::measure::Latencies;
use crate::load::schedule::{Arrival, Pace, Schedule};

/// Connections that a thread is making, or asking whether they are there, at the same time: a quarter of the queue of
/// connections to be accepted that brokers usually have, so that not the queue's overflow is measured.
const UNDER_WAY_MAX: usize = 1024;
/// Between two looks for the next step.
const LOOK: Duration = Duration::from_millis(5);
/// Requests that are handed out in one go: then the tasks that serve them have their turn.
const HANDED_OUT: usize = 64;
/// Answers so long after the end still count for the rate: they were under way then, or held up by a stall.
const COUNT_GRACE: Duration = Duration::from_secs(2);

/// What a thread measures.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// From when a connection was to be begun to the broker's answer about its versions.
    pub connect: Latencies,
    /// From when a request was due to its answer, of those due in the measured window.
    pub response: Latencies,
    /// From when it was sent to its answer.
    pub service: Latencies,
    /// Connections that were made.
    pub opened: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// Connections that were made and then lost.
    pub broken: u64,
    /// Good answers.
    pub answered: u64,
    /// Those of requests due in the measured window, not long after its end.
    pub measured: u64,
    /// Bytes of records in them.
    pub measured_bytes: u64,
    /// Requests with another answer or none, or whose connection was lost before.
    pub errors: u64,
    /// What the thread used of the measured window, in nanoseconds of CPU.
    pub cpu_ns: u64,
}

impl Tally {
    /// Its latencies by their names in results.
    pub fn latencies(&self) -> impl Iterator<Item = (&'static str, &Latencies)> {
        [("connect", &self.connect), ("response", &self.response), ("service", &self.service)].into_iter()
    }

    /// Adds all that another one has; nothing is lost.
    pub fn add(&mut self, other: &Tally) {
        self.connect.add(&other.connect);
        self.response.add(&other.response);
        self.service.add(&other.service);
        self.opened += other.opened;
        self.failed += other.failed;
        self.broken += other.broken;
        self.answered += other.answered;
        self.measured += other.measured;
        self.measured_bytes += other.measured_bytes;
        self.errors += other.errors;
        self.cpu_ns += other.cpu_ns;
    }
}

/// A connection's place.
struct Seat {
    address: SocketAddr,
    partition: usize,
    /// `None` before it is made, and after it was lost.
    stream: Option<Stream>,
    /// When the requests that it has not been asked yet were due.
    waiting: VecDeque<u64>,
    /// Whether a task serves it.
    is_served: bool,
}

struct Worker {
    shard: ShardId,
    options: Arc<SwarmOptions>,
    shared: Arc<Shared>,
    asks: Asks,
    seats: RefCell<Vec<Seat>>,
    /// What of the schedule is measured.
    window: RefCell<Range<u64>>,
    /// Tasks of connections.
    under_way: Cell<usize>,
    /// One of them has ended.
    ended: Notify,
}

/// Runs one thread's part.
pub(super) async fn work(shard: ShardId, options: Arc<SwarmOptions>, plan: Arc<SwarmPlan>, shared: Arc<Shared>) {
    let asks = match Asks::new(&options, &plan) {
        Ok(asks) => asks,
        Err(error) => return shared.stop(Some(error.to_string())),
    };
    if shard == ShardId(0) {
        stop_when_asked(shared.clone());
    }
    let threads = usize::from(options.load.threads);
    let numbers = (u32::from(shard.0)..options.connections).step_by(threads);
    let seat = |number| {
        let (address, partition) = plan.place(number);
        Seat { address, partition, stream: None, waiting: VecDeque::new(), is_served: false }
    };
    let seats = RefCell::new(numbers.map(seat).collect());
    let (window, under_way, ended) = (RefCell::new(0..0), Cell::new(0), Notify::new());
    let worker = Rc::new(Worker { shard, options, shared, asks, seats, window, under_way, ended });
    for step in [Step::Connect, Step::Load, Step::Probe] {
        let Some(start_ns) = worker.turn(step).await else { continue };
        match step {
            Step::Connect => connect_all(&worker, start_ns).await,
            Step::Load => load(&worker, start_ns).await,
            Step::Probe => probe_all(&worker).await,
            Step::Close => {}
        }
        worker.shared.arrive();
    }
    worker.turn(Step::Close).await;
    // The last references to the sockets, which closes them.
    worker.seats.borrow_mut().clear();
}

fn stop_when_asked(shared: Arc<Shared>) {
    let terminated = terminated();
    drop(spawn(Class::Background, async move {
        terminated.await;
        shared.stop(Some("interrupted".to_owned()));
    }));
}

impl Worker {
    /// Waits for a step and tells when it begins; `None` if it is not made.
    async fn turn(&self, step: Step) -> Option<u64> {
        loop {
            match self.shared.now_at() {
                Some((now, start_ns)) if now == step => return Some(start_ns),
                Some((now, _)) if now > step => return None,
                _ => sleep(LOOK).await,
            }
        }
    }

    fn record(&self, record: impl FnOnce(&mut Tally)) {
        self.shared.record(self.shard, record);
    }

    fn silence_max(&self) -> Duration {
        self.options.load.bootstrap.options.silence_max
    }

    /// This thread's share of a schedule.
    fn schedule(&self, rate: f64, start_ns: u64) -> Schedule {
        let share = (u32::from(self.shard.0), u32::from(self.options.load.threads));
        Schedule::new(Pace::steady(rate), Arrival::Uniform, start_ns, share, 0)
    }

    fn stream(&self, index: usize) -> Option<Stream> {
        self.seats.borrow()[index].stream.clone()
    }

    fn task_ended(&self) {
        self.under_way.set(self.under_way.get() - 1);
        self.ended.notify();
    }

    /// Waits until fewer than `count` tasks are under way.
    async fn until_fewer_than(&self, count: usize) {
        while self.under_way.get() >= count {
            self.ended.notified().await;
        }
    }

    /// A connection is of no use any more: what waits for it is in vain.
    fn lose(&self, index: usize, fault: &Fault) {
        let lost = {
            let seat = &mut self.seats.borrow_mut()[index];
            seat.stream = None;
            std::mem::take(&mut seat.waiting).len() as u64
        };
        self.shared.note_fault(fault);
        self.record(|tally| {
            tally.broken += 1;
            tally.errors += lost;
        });
    }
}

/// Makes every connection, at the rate that was asked for.
async fn connect_all(worker: &Rc<Worker>, start_ns: u64) {
    let mut schedule = worker.options.connect_rate.map(|rate| worker.schedule(rate, start_ns));
    let count = worker.seats.borrow().len();
    for index in 0..count {
        worker.until_fewer_than(UNDER_WAY_MAX).await;
        let due = match &mut schedule {
            None => Instant::now().nanos(),
            Some(schedule) => {
                let due = schedule.next_due();
                schedule.advance();
                sleep_until(Instant::from_nanos(due)).await;
                due
            }
        };
        if worker.shared.is_stopping() {
            break;
        }
        worker.shared.begun_connecting(Instant::now().nanos());
        worker.under_way.set(worker.under_way.get() + 1);
        drop(spawn(Class::Produce, connect(worker.clone(), index, due)));
    }
    worker.until_fewer_than(1).await;
}

async fn connect(worker: Rc<Worker>, index: usize, due: u64) {
    let address = worker.seats.borrow()[index].address;
    match member::open(address, &worker.asks, worker.silence_max()).await {
        Ok(stream) => {
            worker.seats.borrow_mut()[index].stream = Some(stream);
            let now = Instant::now().nanos();
            worker.record(|tally| {
                tally.opened += 1;
                tally.connect.record(now.saturating_sub(due), 1);
            });
            worker.shared.connected(now);
        }
        Err(fault) => {
            worker.shared.note_fault(&fault);
            worker.record(|tally| tally.failed += 1);
            if matches!(fault, Fault::Silent) {
                // The others would wait as long, one after the other.
                worker.shared.stop(Some("the broker does not answer new connections".to_owned()));
            }
        }
    }
    worker.task_ended();
}

/// Sends requests by the schedule, and waits for the last answer.
async fn load(worker: &Rc<Worker>, start_ns: u64) {
    let options = worker.options.clone();
    let Some(requests) = options.requests else { return };
    let measure = start_ns + options.load.warmup.as_nanos() as u64;
    let end = measure + options.load.duration.as_nanos() as u64;
    worker.window.replace(measure..end);
    let mut schedule = worker.schedule(requests.rate, start_ns);
    let (count, mut cpu_before) = (worker.seats.borrow().len(), None);
    for (handed_out, index) in (0..count).cycle().enumerate() {
        let due = schedule.next_due();
        schedule.advance();
        if Instant::now().nanos() < due {
            sleep_until(Instant::from_nanos(due.min(end))).await;
        } else if handed_out.is_multiple_of(HANDED_OUT) {
            yield_now().await;
        }
        if due >= end || worker.shared.is_stopping() {
            break;
        }
        if due >= measure && cpu_before.is_none() {
            cpu_before = Some(real::thread_cpu_nanos());
        }
        hand_out(worker, index, due);
    }
    let cpu_ns = cpu_before.map_or(0, |before| real::thread_cpu_nanos() - before);
    worker.record(|tally| tally.cpu_ns += cpu_ns);
    worker.until_fewer_than(1).await;
}

/// Gives a request to a connection.
fn hand_out(worker: &Rc<Worker>, index: usize, due: u64) {
    let is_idle = {
        let seat = &mut worker.seats.borrow_mut()[index];
        seat.stream.is_some().then(|| {
            seat.waiting.push_back(due);
            !std::mem::replace(&mut seat.is_served, true)
        })
    };
    match is_idle {
        None => worker.record(|tally| tally.errors += 1),
        Some(false) => {}
        Some(true) => {
            worker.under_way.set(worker.under_way.get() + 1);
            drop(spawn(Class::Produce, serve(worker.clone(), index)));
        }
    }
}

/// Asks what a connection is to ask, one request after the other.
async fn serve(worker: Rc<Worker>, index: usize) {
    let next = || {
        let seat = &mut worker.seats.borrow_mut()[index];
        let next = seat.waiting.pop_front().zip(seat.stream.clone());
        seat.is_served = next.is_some();
        next.map(|(due, stream)| (due, stream, seat.partition))
    };
    while let Some((due, stream, partition)) = next() {
        let sent = Instant::now().nanos();
        let answer = member::exchange(&stream, worker.asks.frame(partition), worker.silence_max()).await;
        let now = Instant::now().nanos();
        let worth = answer.map(|frame| worker.asks.judge(frame));
        match worth {
            Ok(Worth::Good(bytes)) => answered(&worker, (due, sent, now), bytes),
            Ok(Worth::Error(code)) => {
                worker.shared.note_error(code);
                worker.record(|tally| tally.errors += 1);
            }
            Ok(Worth::Nonsense) => lose_asked(&worker, index, &Fault::Nonsense),
            Err(fault) => lose_asked(&worker, index, &fault),
        }
    }
    worker.task_ended();
}

fn lose_asked(worker: &Worker, index: usize, fault: &Fault) {
    worker.record(|tally| tally.errors += 1);
    worker.lose(index, fault);
}

fn answered(worker: &Worker, (due, sent, now): (u64, u64, u64), bytes: u64) {
    let window = worker.window.borrow().clone();
    worker.record(|tally| {
        tally.answered += 1;
        if window.contains(&due) {
            tally.response.record(now.saturating_sub(due), 1);
            tally.service.record(now.saturating_sub(sent), 1);
            if now < window.end + COUNT_GRACE.as_nanos() as u64 {
                tally.measured += 1;
                tally.measured_bytes += bytes;
            }
        }
    });
}

/// Asks every connection whether it is there.
async fn probe_all(worker: &Rc<Worker>) {
    let count = worker.seats.borrow().len();
    for index in 0..count {
        worker.until_fewer_than(UNDER_WAY_MAX).await;
        if worker.shared.is_stopping() {
            break;
        }
        if let Some(stream) = worker.stream(index) {
            worker.under_way.set(worker.under_way.get() + 1);
            drop(spawn(Class::Produce, probe(worker.clone(), index, stream)));
        }
    }
    worker.until_fewer_than(1).await;
}

async fn probe(worker: Rc<Worker>, index: usize, stream: Stream) {
    if let Err(fault) = member::greet(&stream, &worker.asks, worker.silence_max()).await {
        worker.lose(index, &fault);
    }
    worker.task_ended();
}
