//! A producer: makes records when they are due, batches them per partition, and sends batches to the partitions' leaders.
//!
//! ```text
//! generator → lanes → links → broker
//!               ↑       │
//!               └───────┘  settled, or to be sent again
//! ```
//! One task makes records and sends requests; one task a link takes what comes back. A request holds one batch a partition at
//! most, as a Kafka client's does. A leader that moves or vanishes costs no record: what it refused goes to the new one, what is
//! unknown goes again with idempotence and is given up without.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use corelane::runtime::sync::Notify;
use corelane::runtime::{Class, Duration, Instant, Task, sleep_until, spawn, timeout, wall_clock, yield_now};
use corelane::types::{Offset, PartitionId};
use corelane::wire::client::produce::ProduceAnswer;
use corelane::wire::produce::Acks;

use super::generate::{Generator, Pause, Turn};
use super::lane::{Appended, Batch, BatchLimits, Lane};
use super::link::{Ended, InFlight, Link};
use super::measure::Flow;
use super::options::{Overload, ProducerOptions};
use super::payload::Payload;
use super::schedule::Schedule;
use super::track::Sent;
use super::worker::Worker;
use crate::client::ClientError;
use crate::journal::Outcome;
use crate::stamp::WriterId;
use crate::verdict::{Verdict, judge};

/// Bytes of payload that wait to be sent, of all producers of a thread together: beyond it records are made later.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Bytes of payload that every producer may have waiting, however many there are.
const WAITING_BYTES_MIN: usize = 256 << 10;
/// The same of a producer without a schedule, whose records are made only because there is room for them.
const UNPACED_WAITING_BYTES_MAX: usize = 2 << 20;
/// Bytes of payload that are made before others of the thread have their turn.
const TURN_BYTES: usize = 64 << 10;
/// How long records that are due before the end are still made after it.
const GENERATE_GRACE_NS: u64 = 10_000_000_000;
/// How long the limit of requests in flight may hold records up before that counts.
const HELD_UP_NS: u64 = 10_000_000;
/// How long a producer waits for the disk of the journal before it looks again.
const JOURNAL_STEP_NS: u64 = 1_000_000;
/// How long the producer waits at most before it looks again.
const STEP_NS: u64 = 50_000_000;
/// Between two looks for batches that could not be delivered in time.
const EXPIRE_EVERY_NS: u64 = 100_000_000;

/// What a producer leaves behind.
pub(super) struct ProducerEnd {
    /// Which one it was.
    pub(super) number: u32,
    /// The first of its partitions.
    pub(super) first: usize,
    /// What it sent, by partition.
    pub(super) sent: Vec<Sent>,
}

/// See the head of this file.
pub(super) struct Producer {
    worker: Rc<Worker>,
    options: ProducerOptions,
    number: u32,
    /// Its partitions, by their number in the plan. Its lanes are theirs, in the same order.
    partitions: Range<usize>,
    lanes: RefCell<Vec<Lane>>,
    /// By lane: its link, and whether it waits in the link's queue.
    places: RefCell<Vec<Place>>,
    links: RefCell<Vec<Rc<Link>>>,
    /// Something came back, or a connection was made.
    call: Rc<Notify>,
    /// Bytes of payload that wait to be sent.
    waiting_bytes: Cell<usize>,
    waiting_bytes_max: usize,
    /// When the next record is due, for those who look.
    next_due: Cell<Option<u64>>,
    topology_version: Cell<u64>,
    expire_at: Cell<u64>,
    payload: Cell<Option<Payload>>,
}

#[derive(Clone, Copy)]
struct Place {
    link: usize,
    is_queued: bool,
}

impl Producer {
    /// Producer `number` of the run.
    pub(super) fn new(worker: Rc<Worker>, options: &ProducerOptions, payload: Payload, number: u32) -> Rc<Producer> {
        let limits = BatchLimits { bytes: options.batch_bytes, records: options.batch_records };
        let plan = worker.plan.clone();
        let id = plan.producer_ids[number as usize];
        let topic = number as usize % plan.topics.len();
        let partitions = if options.one_topic_each { plan.partitions_of(topic) } else { 0..plan.partitions.len() };
        let lane = |partition: usize| {
            let partition = PartitionId::new(partition as i32).expect("not negative");
            Lane::new((plan.run, WriterId(number), partition), id, options.codec, limits, worker.journal.clone())
        };
        let lanes = partitions.clone().map(lane).collect();
        let per_producer = WAITING_BYTES_MAX / options.count.div_ceil(u32::from(worker.options.threads)) as usize;
        let producer = Rc::new(Producer {
            options: options.clone(),
            number,
            partitions,
            lanes: RefCell::new(lanes),
            places: RefCell::default(),
            links: RefCell::default(),
            call: Rc::default(),
            waiting_bytes: Cell::new(0),
            waiting_bytes_max: per_producer.max(WAITING_BYTES_MIN),
            next_due: Cell::new(None),
            topology_version: Cell::new(worker.topology.version()),
            expire_at: Cell::new(0),
            payload: Cell::new(Some(payload)),
            worker,
        });
        let lanes = 0..producer.partitions.len();
        let places = lanes.map(|lane| Place { link: producer.link_of(lane), is_queued: false }).collect();
        *producer.places.borrow_mut() = places;
        producer.worker.topology.subscribe(producer.call.clone());
        producer
    }

    /// Makes the first connections.
    pub(super) async fn connect(&self) -> Result<(), ClientError> {
        let links = self.links.borrow().clone();
        for link in links {
            link.reconnect().await?;
        }
        Ok(())
    }

    /// The link that a lane belongs to now.
    fn link_of(&self, lane: usize) -> usize {
        let partition = self.partitions.start + lane;
        let (address, slot) = (self.worker.topology.leader(partition), lane % self.options.connections);
        let mut links = self.links.borrow_mut();
        let known = links.iter().position(|link| link.address == address && link.slot == slot);
        known.unwrap_or_else(|| {
            links.push(Link::new(address, slot, self.worker.options.bootstrap.options.clone()));
            links.len() - 1
        })
    }

    /// How far the producer is behind its schedule, in nanoseconds.
    pub(super) fn lag_ns(&self, now_ns: u64) -> u64 {
        self.next_due.get().map_or(0, |due| now_ns.saturating_sub(due))
    }

    /// Whether records have been held up by the limit of requests in flight for a while.
    pub(super) fn is_held_up(&self, now_ns: u64) -> bool {
        self.links.borrow().iter().any(|link| link.blocked_for(now_ns).is_some_and(|blocked| blocked > HELD_UP_NS))
    }

    /// What was sent, once it has all met its end.
    pub(super) fn take_end(&self) -> ProducerEnd {
        let lanes = self.lanes.take();
        let sent = lanes.into_iter().map(Lane::into_sent).collect();
        ProducerEnd { number: self.number, first: self.partitions.start, sent }
    }

    /// Makes and sends records until the run ends, then waits until each has met its end.
    pub(super) async fn run(self: Rc<Producer>) {
        let (mut generator, mut lingering, mut buffer) = (self.generator(), VecDeque::new(), BytesMut::new());
        let mut serving = Vec::new();
        let mut has_ended = false;
        // Without a schedule a record is due when it is made.
        sleep_until(Instant::from_nanos(self.worker.times().start)).await;
        while !(has_ended && self.is_done()) {
            self.follow_leaders();
            self.serve_new_links(&mut serving);
            let now_ns = Instant::now().nanos();
            let pause = if has_ended { Pause::End } else { self.generate(&mut generator, now_ns, &mut lingering) };
            if pause == Pause::End && !has_ended {
                has_ended = true;
                lingering.clear();
                self.seal_all(now_ns);
            }
            self.queue_lingered(&mut lingering, now_ns);
            self.dispatch(now_ns, &mut buffer);
            self.expire(now_ns);
            if pause == Pause::Enough {
                yield_now().await;
            } else {
                let due = if let Pause::Until(due_ns) = pause { Some(due_ns) } else { None };
                let lingered = lingering.front().map(|&(deadline, _)| deadline);
                self.wait(now_ns, due.into_iter().chain(lingered).min()).await;
            }
        }
        self.links.borrow().iter().for_each(|link| link.end());
        for task in serving {
            task.await;
        }
        self.next_due.set(None);
        self.worker.shared.producer_is_done();
    }

    fn generator(&self) -> Generator {
        let (options, times) = (&self.worker.options, self.worker.times());
        let share = (self.number, self.options.count);
        let schedule = |pace| Schedule::new(pace, self.options.arrival, times.start, share, options.seed);
        let wanted = options.num_records.map_or(u64::MAX, |records| {
            let (each, rest) = (records / u64::from(share.1), records % u64::from(share.1));
            each + u64::from(u64::from(self.number) < rest)
        });
        let payload = self.payload.take().expect("a producer runs once");
        let extent = (self.partitions.len(), wanted);
        Generator::new(&self.options, payload, self.options.pace.map(schedule), (self.number, options.seed), extent)
    }

    /// Makes what is due. `lingering` gets the lanes in which a batch was begun, with the end of its linger time.
    fn generate(&self, generator: &mut Generator, now_ns: u64, lingering: &mut VecDeque<(u64, usize)>) -> Pause {
        let times = self.worker.times();
        let is_paced = self.options.pace.is_some();
        let last_ns = if is_paced { times.end.saturating_add(GENERATE_GRACE_NS) } else { times.end };
        if self.worker.shared.is_stopping() || now_ns >= last_ns {
            return Pause::End;
        }
        if let Some(journal) = self.worker.journal.as_ref().filter(|journal| !journal.has_room()) {
            if !journal.has_failed() {
                return Pause::Until(now_ns + JOURNAL_STEP_NS);
            }
            self.worker.shared.stop(Some("the journal cannot be written"));
            return Pause::End;
        }
        let most = if is_paced { usize::MAX } else { UNPACED_WAITING_BYTES_MAX };
        let bytes = self.waiting_bytes_max.min(most).saturating_sub(self.waiting_bytes.get()).min(TURN_BYTES);
        if bytes == 0 {
            return Pause::Full;
        }
        let turn = Turn { now_ns, timestamp: wall_clock(), end_ns: times.end, count_from_ns: times.measure, bytes };
        let linger_ns = self.options.linger.as_nanos() as u64;
        let (links, mut places) = (self.links.borrow(), self.places.borrow_mut());
        let sheds = self.options.overload != Overload::Queue;
        let blocked: Vec<bool> = links.iter().map(|link| sheds && link.blocked_for(now_ns).is_some()).collect();
        let link_of: Vec<usize> = if sheds { places.iter().map(|place| place.link).collect() } else { Vec::new() };
        let fill = generator.fill(
            &mut self.lanes.borrow_mut(),
            &turn,
            |lane, open| !sheds || !open.has_sealed() || !blocked[link_of[lane]],
            |lane, appended| {
                if appended == Appended::Filled || linger_ns == 0 {
                    enqueue(&links, &mut places, lane);
                } else if appended == Appended::Begun {
                    lingering.push_back((now_ns + linger_ns, lane));
                }
            },
        );
        self.waiting_bytes.set(self.waiting_bytes.get() + fill.bytes);
        self.next_due.set(generator.next_due());
        if fill.dropped > 0 {
            self.worker.recorder.record(|sample| sample.dropped += fill.dropped);
            if self.options.overload == Overload::Abort {
                self.worker.shared.stop(Some("the brokers were slower than the schedule (--on-overload abort)"));
            }
        }
        match (fill.pause, lingering.front()) {
            // Records join a batch that waits for them when it goes or is full, with their own due times, and not one by one:
            // nothing would be sent earlier. What is to be left out is decided when it is due.
            (Pause::Until(due_ns), Some(&(deadline, _))) if !sheds => {
                Pause::Until(generator.due_after(fill.room).unwrap_or(due_ns).min(deadline))
            }
            (pause, _) => pause,
        }
    }

    /// Seals and queues every open batch: nothing will be added.
    fn seal_all(&self, now_ns: u64) {
        let (links, mut places) = (self.links.borrow(), self.places.borrow_mut());
        for (number, lane) in self.lanes.borrow_mut().iter_mut().enumerate().filter(|(_, lane)| !lane.is_empty()) {
            lane.seal(now_ns);
            enqueue(&links, &mut places, number);
        }
    }

    /// Seals the open batches that have waited long enough and queues their lanes. They have to be
    /// sealed: a lane that is queued for an older batch already is not looked at again for one that is open.
    fn queue_lingered(&self, lingering: &mut VecDeque<(u64, usize)>, now_ns: u64) {
        let (links, mut places) = (self.links.borrow(), self.places.borrow_mut());
        let mut lanes = self.lanes.borrow_mut();
        let linger_ns = self.options.linger.as_nanos() as u64;
        while let Some((_, lane)) = lingering.pop_front_if(|(deadline, _)| *deadline <= now_ns) {
            // A batch that was filled since has gone, and what is open now has a deadline of its own.
            if lanes[lane].open_since().is_some_and(|begun| begun + linger_ns <= now_ns) {
                lanes[lane].seal(now_ns);
                enqueue(&links, &mut places, lane);
            }
        }
    }

    /// Sends what is ready wherever there is room for a request.
    fn dispatch(self: &Rc<Producer>, now_ns: u64, buffer: &mut BytesMut) {
        let links = self.links.borrow().clone();
        for (index, link) in links.iter().enumerate() {
            if !link.is_open() {
                if !link.ready.borrow().is_empty() && link.wants_connection(now_ns) {
                    drop(spawn(Class::Produce, self.clone().reconnect(link.clone())));
                }
                continue;
            }
            while link.in_flight() < self.options.inflight_max {
                let batches = self.collect(index, link, now_ns);
                if batches.is_empty() {
                    break;
                }
                if let Err(batches) = link.send(&self.worker.plan, self.options.acks, batches, buffer) {
                    for (partition, batch) in batches {
                        self.send_again(partition - self.partitions.start, batch);
                    }
                    break;
                }
            }
            let is_blocked = link.in_flight() >= self.options.inflight_max && !link.ready.borrow().is_empty();
            link.set_blocked(is_blocked, now_ns);
        }
    }

    /// The batches of the next request through a link, with their partitions and in the order of these.
    fn collect(&self, index: usize, link: &Link, now_ns: u64) -> Vec<(usize, Batch)> {
        let links = self.links.borrow();
        let (mut places, mut lanes) = (self.places.borrow_mut(), self.lanes.borrow_mut());
        let (mut batches, mut bytes) = (Vec::new(), 0);
        let turns = link.ready.borrow().len();
        for _ in 0..turns {
            let Some(number) = link.ready.borrow_mut().pop_front() else { break };
            let lane = &mut lanes[number];
            places[number].is_queued = false;
            if places[number].link != index {
                enqueue(&links, &mut places, number);
                continue;
            }
            if !lane.has_sealed() {
                lane.seal(now_ns);
            }
            // One that waits for what is in flight is queued again by what comes back.
            let Some(next_bytes) = lane.next_bytes() else { continue };
            if bytes > 0 && bytes + next_bytes > self.options.request_bytes {
                places[number].is_queued = true;
                link.ready.borrow_mut().push_front(number);
                break;
            }
            bytes += next_bytes;
            let batch = lane.take().expect("it has a next batch");
            self.waiting_bytes.set(self.waiting_bytes.get() - batch.payload_bytes as usize);
            batches.push((self.partitions.start + number, batch));
            if lane.has_sealed() || self.options.linger.is_zero() && !lane.is_empty() {
                enqueue(&links, &mut places, number);
            }
        }
        batches.sort_unstable_by_key(|(partition, _)| *partition);
        batches
    }

    async fn reconnect(self: Rc<Producer>, link: Rc<Link>) {
        if let Err(error) = link.reconnect().await {
            tracing::debug!(%error, "no connection");
            self.worker.topology.refresh();
        }
        self.call.notify();
    }

    /// Moves lanes to the links of their leaders, where nothing of them is in flight.
    fn follow_leaders(&self) {
        let version = self.worker.topology.version();
        if self.topology_version.replace(version) == version {
            return;
        }
        for number in 0..self.partitions.len() {
            if self.lanes.borrow()[number].is_idle() {
                let link = self.link_of(number);
                self.places.borrow_mut()[number].link = link;
            }
        }
    }

    fn serve_new_links(self: &Rc<Producer>, serving: &mut Vec<Task<()>>) {
        let links = self.links.borrow();
        for link in &links[serving.len()..] {
            serving.push(spawn(Class::Produce, self.clone().serve(link.clone())));
        }
    }

    /// Takes what comes back through a link.
    async fn serve(self: Rc<Producer>, link: Rc<Link>) {
        while let Some((request, ended)) = link.next_end().await {
            let verdicts = match ended {
                Ended::Told => vec![Verdict::Acked(None); request.batches.len()],
                Ended::Lost => {
                    self.worker.topology.refresh();
                    vec![Verdict::Unknown; request.batches.len()]
                }
                Ended::Answered(api, frame) => match ProduceAnswer::parse(api, &frame) {
                    Ok(answer) => self.verdicts(&request, &answer),
                    Err(error) => {
                        tracing::debug!(%error, "an answer that makes no sense");
                        link.give_up_connection();
                        vec![Verdict::Unknown; request.batches.len()]
                    }
                },
            };
            self.settle(request, verdicts);
            self.call.notify();
        }
    }

    /// What an answer says about each batch of its request.
    fn verdicts(&self, request: &InFlight, answer: &ProduceAnswer<'_>) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Unknown; request.batches.len()];
        for topic in answer.topics {
            for partition in topic.partitions {
                let number = self.worker.plan.number_of(topic.name, partition.index);
                let at =
                    number.and_then(|number| request.batches.binary_search_by_key(&number, |(asked, _)| *asked).ok());
                if let Some(at) = at {
                    verdicts[at] = judge(partition.error_code, partition.base_offset);
                }
            }
        }
        verdicts
    }

    /// Gives every batch of a request its end, or another turn.
    fn settle(&self, request: InFlight, verdicts: Vec<Verdict>) {
        let now_ns = Instant::now().nanos();
        let sent_ns = request.sent_ns;
        for ((partition, mut batch), verdict) in request.batches.into_iter().zip(verdicts) {
            let lane = partition - self.partitions.start;
            if verdict.asks_for_leader() {
                self.worker.topology.refresh();
            }
            batch.may_be_there |= verdict == Verdict::Unknown;
            match verdict {
                Verdict::Acked(offset) => self.acked(lane, batch, offset, (sent_ns, now_ns)),
                Verdict::RefusedForNow(_) if self.options.retries => self.send_again(lane, batch),
                Verdict::Unknown | Verdict::RefusedForNow(_) if self.options.idempotence => {
                    self.send_again(lane, batch)
                }
                Verdict::RefusedForNow(_) | Verdict::RefusedForGood(_) | Verdict::Unknown => {
                    tracing::debug!(lane, ?verdict, "a batch is given up");
                    self.worker.recorder.record(|sample| sample.errors += u64::from(batch.count()));
                    let outcome = if batch.may_be_there { Outcome::Unknown } else { verdict.outcome() };
                    self.lanes.borrow_mut()[lane].settle(batch, outcome);
                    self.lane_came_back(lane);
                }
            }
        }
    }

    fn acked(&self, lane: usize, batch: Batch, offset: Option<Offset>, (sent_ns, now_ns): (u64, u64)) {
        let (worker, count) = (&self.worker, u64::from(batch.count()));
        let is_answered = self.options.acks != Acks::None;
        worker.recorder.record(|sample| {
            sample.acked.add(Flow { records: count, bytes: batch.payload_bytes });
            let [response, service, slip, ..] = &mut sample.latencies;
            let mut measured = 0;
            for &due_ns in batch.due.iter().filter(|due_ns| worker.recorder.counts(**due_ns)) {
                measured += 1;
                if self.options.pace.is_some() {
                    slip.record(sent_ns.saturating_sub(due_ns), 1);
                    if is_answered {
                        response.record(now_ns.saturating_sub(due_ns), 1);
                    }
                }
            }
            if measured > 0 && is_answered {
                service.record(now_ns - sent_ns, measured);
            }
            if measured > 0 && worker.recorder.is_in_time(now_ns) {
                // The bytes of a batch across the window's edge are shared out evenly.
                sample.measured_in.add(Flow { records: measured, bytes: batch.payload_bytes * measured / count });
            }
        });
        worker.shared.progress.add_acked(count);
        worker.shared.acked_bytes.fetch_add(batch.payload_bytes, Ordering::Relaxed);
        if let Some(offset) = offset {
            let end = offset.plus(count).value().unsigned_abs();
            worker.shared.acked_end[self.partitions.start + lane].fetch_max(end, Ordering::Relaxed);
        }
        self.lanes.borrow_mut()[lane].settle(batch, Outcome::Acked(offset));
        self.lane_came_back(lane);
    }

    fn send_again(&self, lane: usize, batch: Batch) {
        self.waiting_bytes.set(self.waiting_bytes.get() + batch.payload_bytes as usize);
        self.lanes.borrow_mut()[lane].give_back(batch);
        self.lane_came_back(lane);
    }

    /// Something of a lane is no longer in flight: it may have had to wait for that, to send or to move.
    fn lane_came_back(&self, number: usize) {
        let (is_idle, has_sealed) = {
            let lane = &self.lanes.borrow()[number];
            (lane.is_idle(), lane.has_sealed())
        };
        if is_idle {
            let link = self.link_of(number);
            self.places.borrow_mut()[number].link = link;
        }
        if has_sealed {
            enqueue(&self.links.borrow(), &mut self.places.borrow_mut(), number);
        }
    }

    /// Gives up what could not be delivered in time, and once the run is stopped what waits for a broker that is away.
    fn expire(&self, now_ns: u64) {
        let look_at = self.expire_at.get();
        if now_ns < look_at {
            return;
        }
        self.expire_at.set(now_ns + EXPIRE_EVERY_NS);
        let mut given_up = Flow::default();
        let sealed_before = now_ns.saturating_sub(self.options.delivery_timeout.as_nanos() as u64);
        let (links, places) = (self.links.borrow(), self.places.borrow());
        let is_stopping = self.worker.shared.is_stopping();
        for (lane, place) in self.lanes.borrow_mut().iter_mut().zip(places.iter()) {
            let is_in_vain = is_stopping && !links[place.link].is_open();
            given_up.add(lane.expire(if is_in_vain { u64::MAX } else { sealed_before }));
        }
        if given_up.records > 0 {
            self.waiting_bytes.set(self.waiting_bytes.get() - given_up.bytes as usize);
            self.worker.recorder.record(|sample| sample.errors += given_up.records);
        }
    }

    fn is_done(&self) -> bool {
        self.lanes.borrow().iter().all(Lane::is_done)
    }

    /// Waits until something came back, `until` at most.
    async fn wait(&self, now_ns: u64, until: Option<u64>) {
        let links = self.links.borrow().iter().filter_map(|link| link.retry_at()).min();
        let until = until.into_iter().chain(links).chain([now_ns + STEP_NS]).min().unwrap_or(now_ns);
        let left = Duration::from_nanos(until.saturating_sub(Instant::now().nanos()));
        if left.is_zero() {
            yield_now().await;
        } else {
            // Woken or not, the next turn looks at everything.
            let _ = timeout(left, self.call.notified()).await;
        }
    }
}

/// Puts a lane into the queue of its link, unless it is there.
fn enqueue(links: &[Rc<Link>], places: &mut [Place], lane: usize) {
    let place = &mut places[lane];
    if !place.is_queued {
        place.is_queued = true;
        links[place.link].ready.borrow_mut().push_back(lane);
    }
}
