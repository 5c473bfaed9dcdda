//! A consumer: fetches its share of the partitions, takes every record apart, and checks what it was handed.
//!
//! One task for each broker that leads one of its partitions, with one fetch under way: the next one is sent as soon as the
//! offsets of an answer are known, before its records are looked at, so that broker and consumer work at the same time.
//! Incremental fetch sessions (KIP-227) are used where the broker has them.
//!
//! A consumer ends when the run's producers have and everything that was acknowledged was handed out, or has not come for
//! [`DRAIN`]. What that means is not decided here.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use corelane::record::{BatchScanner, DecompressLimits, Decompressors, RecordBatch, RecordReader};
use corelane::runtime::sync::Notify;
use corelane::runtime::{Class, Duration, Instant, Slice, sleep, sleep_until, spawn, yield_now};
use corelane::types::{Offset, Piece};
use corelane::wire::client::fetch::{FETCH_MAX, FetchAnswer, FetchAsk, FetchFrom, FetchRequestEncoder, FetchTurn};
use corelane::wire::fetch::FetchSessionId;
use corelane::wire::produce::Acks;
use corelane::wire::{Api, ApiKey};

use super::measure::Flow;
use super::options::{ConsumerOptions, StartAt};
use super::track::Seen;
use super::worker::Worker;
use crate::client::connection::Answer;
use crate::client::{ClientError, Connection};
use crate::stamp::Stamp;

/// How long a consumer waits for acknowledged records, after the producers have ended and the last record came.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// How long records are taken apart before others of the thread have their turn: producers that are due above all.
const TURN: Duration = Duration::from_micros(200);
/// Before the next attempt after an error.
const RETRY: Duration = Duration::from_millis(50);
/// Bytes of a batch at most: what a broker's length field may claim.
const BATCH_BYTES_MAX: usize = 100 << 20;
/// Kafka's code of an offset that the log does not have.
const OFFSET_OUT_OF_RANGE: i16 = 1;

/// What a consumer leaves behind.
pub(super) struct ConsumerEnd {
    /// Its set.
    pub(super) set: u32,
    /// By partition in the plan: what it was handed of each producer's records.
    pub(super) seen: Vec<(usize, Vec<Seen>)>,
    /// Records with bytes that are not those written, and batches with a wrong checksum.
    pub(super) corrupt: u64,
    /// Records in another partition than they were written to.
    pub(super) misplaced: u64,
    /// Records of other runs, or without a stamp.
    pub(super) foreign: u64,
}

/// See the head of this file.
pub(super) struct Consumer {
    worker: Rc<Worker>,
    options: ConsumerOptions,
    set: u32,
    state: Rc<ReadState>,
    /// The connections that were made before the start.
    first: Vec<Connection>,
    /// Called after each look at who leads what.
    looked: Rc<Notify>,
}

/// What all tasks of a consumer share.
struct ReadState {
    /// Its partitions, by their number in the plan, in order.
    partitions: RefCell<Vec<Position>>,
    decompressors: RefCell<Decompressors>,
    counts: Cell<Counts>,
    /// When a record came last.
    came_ns: Cell<u64>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    corrupt: u64,
    misplaced: u64,
    foreign: u64,
}

/// Where a consumer stands in a partition.
struct Position {
    /// Its number in the plan.
    number: usize,
    /// The next offset to fetch.
    next: Offset,
    /// The offset after the last record that was handed out: an answer begins with the batch that holds what was asked for.
    handed: Offset,
    /// The offset that the session was told last, so that only changes are told again.
    told: Option<Offset>,
    /// Who serves it now.
    leader: SocketAddr,
    seen: Vec<Seen>,
}

impl Consumer {
    /// Consumer `number` of the run, set by set: every `count`-th partition is its own.
    pub(super) fn new(worker: Rc<Worker>, options: &ConsumerOptions, number: u32) -> Consumer {
        let (set, place) = (number / options.count, number % options.count);
        let producers = worker.options.producers.as_ref().map_or(0, |producers| producers.count as usize);
        let own = worker.plan.partitions.iter().enumerate().skip(place as usize).step_by(options.count as usize);
        let position = |(number, partition): (usize, &super::plan::PlannedPartition)| Position {
            number,
            next: partition.start,
            handed: partition.start,
            told: None,
            leader: partition.leader,
            seen: vec![Seen::default(); producers],
        };
        let state = ReadState {
            partitions: RefCell::new(own.map(position).collect()),
            decompressors: RefCell::default(),
            counts: Cell::default(),
            came_ns: Cell::new(0),
        };
        let looked = Rc::new(Notify::new());
        worker.topology.subscribe(looked.clone());
        Consumer { worker, options: options.clone(), set, state: Rc::new(state), first: Vec::new(), looked }
    }

    fn leaders(&self) -> Vec<SocketAddr> {
        let mut leaders: Vec<_> = self.state.partitions.borrow().iter().map(|position| position.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        leaders
    }

    /// Makes the first connections.
    pub(super) async fn connect(&mut self) -> Result<(), ClientError> {
        for leader in self.leaders() {
            self.first.push(Connection::open(leader, &self.worker.options.bootstrap.options).await?);
        }
        Ok(())
    }

    /// Reads until the run ends.
    pub(super) async fn run(mut self) -> ConsumerEnd {
        if self.worker.options.producers.is_none() {
            sleep_until(Instant::from_nanos(self.worker.times().start)).await;
        }
        self.wait_for_backlog().await;
        self.state.came_ns.set(Instant::now().nanos());
        let mut first = std::mem::take(&mut self.first);
        while !self.is_done() {
            // One task a leader; when one of them ends because a leader moved, all are set up anew.
            let moved = Rc::new(Moved::default());
            let mut tasks = Vec::new();
            for leader in self.leaders() {
                let known = first.iter().position(|connection| connection.address() == leader);
                let reader = Reader {
                    worker: self.worker.clone(),
                    options: self.options.clone(),
                    state: self.state.clone(),
                    leader,
                    connection: known.map(|at| first.swap_remove(at)),
                    session: None,
                    moved: moved.clone(),
                };
                tasks.push(spawn(Class::Produce, reader.run()));
            }
            for task in tasks {
                task.await;
            }
            if !self.is_done() {
                self.follow_leaders().await;
            }
        }
        if self.worker.options.producers.is_none() {
            self.worker.shared.reader_is_done();
        }
        let Counts { corrupt, misplaced, foreign } = self.state.counts.get();
        let seen = self.state.partitions.take().into_iter().map(|position| (position.number, position.seen)).collect();
        ConsumerEnd { set: self.set, seen, corrupt, misplaced, foreign }
    }

    async fn wait_for_backlog(&self) {
        let (worker, wanted) = (&self.worker, self.options.backlog_bytes);
        while wanted > 0 && worker.shared.acked_bytes.load(Ordering::Relaxed) < wanted && !self.is_done() {
            sleep(RETRY).await;
        }
    }

    async fn follow_leaders(&self) {
        self.worker.topology.refresh();
        self.looked.notified().await;
        for position in &mut *self.state.partitions.borrow_mut() {
            position.leader = self.worker.topology.leader(position.number);
            position.told = None;
        }
    }

    fn is_done(&self) -> bool {
        is_done(&self.worker, &self.state)
    }
}

/// Whether there is nothing more to read, or it does not come.
fn is_done(worker: &Worker, state: &ReadState) -> bool {
    let (shared, options, now) = (&worker.shared, &worker.options, Instant::now().nanos());
    if options.producers.is_none() {
        let enough = options.num_records.is_some_and(|wanted| shared.consumed.load(Ordering::Relaxed) >= wanted);
        return enough || shared.is_stopping() || now >= worker.times().end || has_read_all(worker, state);
    }
    if !shared.producers_are_done(options) {
        return false;
    }
    // Without acknowledgements nobody knows where the logs should end, but how many records there should be.
    let is_told = options.producers.as_ref().is_some_and(|producers| producers.acks != Acks::None);
    let drained = if is_told {
        let acked_end = |position: &Position| shared.acked_end[position.number].load(Ordering::Relaxed);
        state.partitions.borrow().iter().all(|position| position.next.value().unsigned_abs() >= acked_end(position))
    } else {
        shared.consumed.load(Ordering::Relaxed) >= shared.progress.acked_records() * worker.consumer_sets()
    };
    let patience = DRAIN.as_nanos() as u64;
    let since = state.came_ns.get().max(shared.producers_done_at.load(Ordering::Relaxed));
    drained || now > since + patience
}

/// Whether a consumer that began with the oldest record has read all that was there when the run began.
fn has_read_all(worker: &Worker, state: &ReadState) -> bool {
    let from = worker.options.consumers.as_ref().map(|consumers| consumers.from);
    let is_at_end = |position: &Position| position.next >= worker.plan.partitions[position.number].end;
    from == Some(StartAt::Earliest) && state.partitions.borrow().iter().all(is_at_end)
}

/// Tells the tasks of a consumer that one of them met a leader that is none any more.
#[derive(Default)]
struct Moved(Cell<bool>);

/// The task for one leader.
struct Reader {
    worker: Rc<Worker>,
    options: ConsumerOptions,
    state: Rc<ReadState>,
    leader: SocketAddr,
    connection: Option<Connection>,
    session: Option<FetchTurn>,
    moved: Rc<Moved>,
}

/// A fetch that is under way.
struct Fetch {
    answer: Answer,
    api: Api,
    sent_ns: u64,
}

impl Reader {
    async fn run(mut self) {
        let mut buffer = BytesMut::new();
        let mut under_way = None;
        while !is_done(&self.worker, &self.state) && !self.moved.0.get() {
            let fetch = match under_way.take() {
                Some(fetch) => fetch,
                None => match self.send(&mut buffer).await {
                    Some(fetch) => fetch,
                    None => continue,
                },
            };
            let Fetch { answer, api, sent_ns } = fetch;
            let Ok(frame) = answer.receive().await else {
                self.lost().await;
                continue;
            };
            let now_ns = Instant::now().nanos();
            let Ok(answer) = FetchAnswer::parse(api, &frame) else {
                self.lost().await;
                continue;
            };
            let is_good = self.take_offsets(&answer);
            let rests = !self.options.rest.is_zero();
            if is_good && !rests && !is_done(&self.worker, &self.state) {
                under_way = self.send(&mut buffer).await;
            }
            let records = self.take_records(&answer).await;
            if records > 0 {
                self.state.came_ns.set(now_ns);
                if self.worker.recorder.counts(sent_ns) {
                    self.worker.recorder.record(|sample| sample.latencies[4].record(now_ns - sent_ns, 1));
                }
                if rests {
                    sleep(self.options.rest).await;
                }
            }
            if !is_good {
                sleep(RETRY).await;
            }
        }
    }

    /// The connection broke, or the broker made no sense.
    async fn lost(&mut self) {
        (self.connection, self.session) = (None, None);
        self.moved.0.set(true);
        sleep(RETRY).await;
    }

    /// Sends a fetch; `None` if the broker cannot be reached now.
    async fn send(&mut self, buffer: &mut BytesMut) -> Option<Fetch> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.session = None;
            match Connection::open(self.leader, &self.worker.options.bootstrap.options).await {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => {
                    tracing::debug!(%error, "no connection");
                    self.lost().await;
                    return None;
                }
            }
        }
        let connection = self.connection.clone()?;
        let Ok(api) = connection.api(ApiKey::Fetch, FETCH_MAX) else {
            self.lost().await;
            return None;
        };
        let answer = connection.call(|correlation, client_id| {
            let frame = self.encode((api, correlation), client_id, buffer);
            Ok(vec![Piece::<Slice>::Encoded(frame)])
        });
        match answer {
            Ok(answer) => Some(Fetch { answer, api, sent_ns: Instant::now().nanos() }),
            Err(_) => {
                self.lost().await;
                None
            }
        }
    }

    /// A fetch of this leader's partitions: in a session of those whose offset has changed, else of all.
    fn encode(
        &mut self,
        (api, correlation): (Api, corelane::wire::CorrelationId),
        client_id: &str,
        buffer: &mut BytesMut,
    ) -> bytes::Bytes {
        let plan = &self.worker.plan;
        let turn = self.session.unwrap_or(FetchTurn { id: FetchSessionId(0), epoch: 0 });
        let mut partitions = self.state.partitions.borrow_mut();
        let mut own: Vec<&mut Position> = partitions
            .iter_mut()
            .filter(|position| position.leader == self.leader)
            .filter(|position| turn.epoch == 0 || position.told != Some(position.next))
            .collect();
        let ask = FetchAsk {
            wait_max: self.options.fetch_wait_max,
            bytes_min: self.options.fetch_bytes_min,
            bytes_max: self.options.fetch_bytes_max,
            session: Some(turn),
        };
        let topic_of = |position: &Position| plan.partitions[position.number].topic;
        let topics = own.chunk_by(|one, other| topic_of(one) == topic_of(other)).count();
        let mut request = FetchRequestEncoder::new((api, correlation), client_id, &ask, topics, buffer);
        for of_topic in own.chunk_by_mut(|one, other| topic_of(one) == topic_of(other)) {
            request.topic(&plan.topics[topic_of(of_topic[0])], of_topic.len());
            for position in of_topic {
                let index = plan.partitions[position.number].index;
                let bytes_max = self.options.partition_bytes_max;
                request.partition(&FetchFrom { index, offset: position.next, bytes_max });
                position.told = Some(position.next);
            }
        }
        request.finish()
    }

    /// Moves on behind the batches of an answer; whether there was no error in it.
    fn take_offsets(&mut self, answer: &FetchAnswer<'_>) -> bool {
        if answer.error_code != 0 {
            // The session is gone or out of step: begin another one.
            self.session = None;
            self.count_error("the fetch", answer.error_code);
            return false;
        }
        self.session = (answer.session.0 != 0).then(|| {
            let epoch = self.session.map_or(0, |turn| turn.epoch);
            FetchTurn { id: answer.session, epoch: if epoch == i32::MAX { 1 } else { epoch + 1 } }
        });
        let mut is_good = true;
        let mut partitions = self.state.partitions.borrow_mut();
        for topic in answer.topics {
            for fetched in topic.partitions {
                let Some(at) = place_of(&self.worker, &partitions, topic.name, fetched.index) else { continue };
                let position = &mut partitions[at];
                match fetched.error_code {
                    0 => {
                        let mut scanner = BatchScanner::new(fetched.records, 0, BATCH_BYTES_MAX);
                        while let Some(Ok(batch)) = scanner.next_unchecked() {
                            let header = batch.header();
                            let last = u64::try_from(header.last_offset_delta()).unwrap_or(0);
                            let after = header.base_offset().map_or(position.next, |base| base.plus(last + 1));
                            position.next = position.next.max(after);
                        }
                        continue;
                    }
                    OFFSET_OUT_OF_RANGE => {
                        // Retention was faster: what lies between was never handed out, and counts as lost.
                        if let Some(start) = fetched.log_start_offset.filter(|start| *start > position.next) {
                            position.next = start;
                        }
                    }
                    code if crate::verdict::judge(code, None).asks_for_leader() => self.moved.0.set(true),
                    _ => {}
                }
                position.told = None;
                is_good = false;
                self.count_error(topic.name, fetched.error_code);
            }
        }
        is_good
    }

    fn count_error(&self, what: &str, code: i16) {
        tracing::debug!(what, code, "a fetch failed");
        self.worker.recorder.record(|sample| sample.errors += 1);
    }

    /// Takes the records of an answer apart; how many there were.
    async fn take_records(&self, answer: &FetchAnswer<'_>) -> u64 {
        let mut taken = 0;
        let mut began = Instant::now();
        for topic in answer.topics {
            for fetched in topic.partitions {
                let Some(at) = place_of(&self.worker, &self.state.partitions.borrow(), topic.name, fetched.index)
                else {
                    continue;
                };
                let mut rest = fetched.records;
                while !rest.is_empty() {
                    let mut scanner = BatchScanner::new(rest, 0, BATCH_BYTES_MAX);
                    match scanner.next() {
                        Some(Ok(batch)) => {
                            taken += self.take_batch(&batch, at);
                            rest = &rest[batch.bytes().len()..];
                        }
                        // The last batch may be cut; a bad one is one fault, and the next begins where it ends.
                        _ => match BatchScanner::new(rest, 0, BATCH_BYTES_MAX).next_unchecked() {
                            Some(Ok(batch)) => {
                                let counts = self.state.counts.get();
                                self.state.counts.set(Counts { corrupt: counts.corrupt + 1, ..counts });
                                rest = &rest[batch.bytes().len()..];
                            }
                            _ => break,
                        },
                    }
                    let now = Instant::now();
                    if now.since(began) > TURN {
                        yield_now().await;
                        began = Instant::now();
                    }
                }
            }
        }
        taken
    }

    /// Takes a batch of the partition at this place apart; how many records that were not handed out before.
    fn take_batch(&self, batch: &RecordBatch<'_>, at: usize) -> u64 {
        let position = &mut self.state.partitions.borrow_mut()[at];
        let decompressors = &mut *self.state.decompressors.borrow_mut();
        let mut counts = self.state.counts.get();
        let (recorder, run) = (&self.worker.recorder, self.worker.plan.run);
        let is_paced = self.worker.options.producers.as_ref().is_some_and(|producers| producers.pace.is_some());
        let is_alone = self.worker.options.producers.is_none();
        let now_ns = Instant::now().nanos();
        let (mut flow, mut measured) = (Flow::default(), Flow::default());
        let mut reader = RecordReader::new(batch, decompressors, &DecompressLimits::default());
        recorder.record(|sample| {
            while let Some(record) = reader.next_record() {
                let Ok(record) = record else {
                    counts.corrupt += 1;
                    break;
                };
                if batch.base_offset().plus(u64::try_from(record.offset_delta).unwrap_or(0)) < position.handed {
                    continue;
                }
                let value = record.value.unwrap_or_default();
                let headers: usize =
                    record.headers().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum();
                let bytes = (record.key.map_or(0, <[u8]>::len) + value.len() + headers) as u64;
                flow.add(Flow { records: 1, bytes });
                if is_alone {
                    if recorder.counts(now_ns) {
                        measured.add(Flow { records: 1, bytes });
                    }
                    continue;
                }
                let Ok(stamp) = Stamp::read(value) else {
                    counts.corrupt += 1;
                    continue;
                };
                if stamp.run != run {
                    counts.foreign += 1;
                    continue;
                }
                if stamp.partition.value().unsigned_abs() as usize != position.number {
                    counts.misplaced += 1;
                    continue;
                }
                if let Some(seen) = position.seen.get_mut(stamp.writer.0 as usize) {
                    seen.record(stamp.sequence);
                }
                if recorder.counts(stamp.due_ns) {
                    if is_paced {
                        sample.latencies[3].record(now_ns.saturating_sub(stamp.due_ns), 1);
                    }
                    if recorder.is_in_time(now_ns) {
                        measured.add(Flow { records: 1, bytes });
                    }
                }
            }
            sample.consumed.add(flow);
            sample.measured_out.add(measured);
        });
        position.handed = position.handed.max(batch.next_offset());
        self.state.counts.set(counts);
        self.worker.shared.consumed.fetch_add(flow.records, Ordering::Relaxed);
        flow.records
    }
}

/// The place of a partition that an answer names among a consumer's own; `None` if it is not one of them.
fn place_of(worker: &Worker, partitions: &[Position], topic: &str, index: i32) -> Option<usize> {
    let number = worker.plan.number_of(topic, index)?;
    partitions.binary_search_by_key(&number, |position| position.number).ok()
}
