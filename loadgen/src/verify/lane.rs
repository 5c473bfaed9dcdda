//! A lane: one writer's batches to one partition, several under way, settled in order.
//!
//! Requests of one connection are appended in order, so a lane's records lie in the log in the order of their sequences. The
//! queue holds every batch from the first one that is not journaled on; only its front is ever journaled, so a journal is in
//! order too. An idempotent lane *rewinds* when its front has to be sent again: it waits for every answer that is still to
//! come, then sends all that is not settled, in order. A batch that may have been appended once is never journaled as refused.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use corelane::record::{BatchBuilder, Codec, Producer};
use corelane::runtime::{Duration, Instant, sleep, wall_clock};
use corelane::types::{Offset, PartitionId, ProducerEpoch, ProducerId, Sequence};
use corelane::wire::ApiKey;
use corelane::wire::client::messages::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};

use super::link::Link;
use super::write::Run;
use crate::client::{ClientError, Reply, topic_name};
use crate::journal::{Entry, Outcome};
use crate::stamp::{STAMP_BYTES, Stamp, WriterId};
use crate::verdict::{Verdict, judge};

/// The last version of Produce that names topics by their names.
const PRODUCE_MAX: i16 = 12;
/// Milliseconds that a broker may wait for its replicas: Kafka's default of its clients.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// Before a rewound lane sends again what was refused for now.
const RETRY: Duration = Duration::from_millis(20);
/// How long a lane sleeps at most before it looks whether the run has ended.
const PACE_STEP: Duration = Duration::from_millis(50);
/// The filler of values is cut out of a block of this many pseudo-random bytes.
const FILLER_BYTES: usize = 64 << 10;
/// Sequence numbers of the protocol wrap here (KIP-98).
const SEQUENCE_WRAP: u64 = 1 << 31;

/// A batch that is not journaled yet.
struct Sent {
    sequence: u64,
    count: u32,
    records: Bytes,
    due_ns: u64,
    reply: Option<Reply<ProduceResponse>>,
    /// What became of it, while a batch before it is not settled.
    settled: Option<Outcome>,
    /// Whether an attempt with an unknown end was made.
    may_be_there: bool,
}

/// What became of an attempt.
enum End {
    /// Nothing more will be known.
    Settled(Outcome),
    /// To be sent again; what the batch counts as if it is not.
    Again(Outcome),
}

/// See the head of this file.
pub(super) struct Lane {
    run: Rc<Run>,
    link: Rc<Link>,
    writer: WriterId,
    partition: PartitionId,
    producer: Option<(ProducerId, ProducerEpoch)>,
    next: u64,
    queue: VecDeque<Sent>,
    builder: BatchBuilder,
    filler: Rc<[u8]>,
    value: Vec<u8>,
    /// Nothing more is sent for the first time.
    stopped: bool,
    /// Until when a batch is sent again without any being acknowledged.
    patience: Option<Instant>,
}

impl Lane {
    pub(super) fn new(
        run: Rc<Run>,
        link: Rc<Link>,
        writer: WriterId,
        partition: PartitionId,
        producer: Option<(ProducerId, ProducerEpoch)>,
    ) -> Lane {
        let builder = BatchBuilder::new(Codec::None);
        let (queue, value, filler) = (VecDeque::new(), Vec::new(), filler());
        let (stopped, patience) = (false, None);
        Lane { run, link, writer, partition, producer, next: 0, queue, builder, filler, value, stopped, patience }
    }

    /// Sends until the run ends, then waits for every answer.
    pub(super) async fn run(mut self) {
        loop {
            self.fill().await;
            let Some(front) = self.queue.pop_front() else { break };
            self.settle(front).await;
        }
    }

    /// Sends new batches while there is room for them and their time has come.
    async fn fill(&mut self) {
        while self.queue.len() < self.run.options.inflight_max && !self.stopped && self.run.goes_on() {
            let due_ns = match self.run.pace.take(self.run.batch_bytes()) {
                Ok(due_ns) => due_ns,
                Err(_) if !self.queue.is_empty() => return,
                Err(wait) => {
                    sleep(wait.min(PACE_STEP)).await;
                    continue;
                }
            };
            if !self.run.journal.has_room().await {
                self.stopped = true;
                return;
            }
            let count = self.run.claim_records();
            if count == 0 {
                return;
            }
            let mut sent = self.next_batch(count, due_ns);
            match self.send(&sent.records).await {
                Ok(reply) => sent.reply = Some(reply),
                Err(error) => {
                    self.run.disconnected(error);
                    self.stopped = true;
                    // It never left: it is no part of the history.
                    self.next = sent.sequence;
                    return;
                }
            }
            self.queue.push_back(sent);
        }
    }

    fn next_batch(&mut self, count: u32, due_ns: u64) -> Sent {
        let sequence = self.next;
        let timestamp = Some(wall_clock());
        for step in 0..u64::from(count) {
            let bytes = self.run.record_bytes(self.writer, sequence + step).max(STAMP_BYTES);
            self.value.clear();
            self.value.resize(STAMP_BYTES, 0);
            let from = (sequence + step).wrapping_mul(97) as usize % FILLER_BYTES;
            let around = self.filler[from..].iter().chain(self.filler.iter().cycle());
            self.value.extend(around.take(bytes - STAMP_BYTES));
            let (run, writer, partition) = (self.run.id, self.writer, self.partition);
            let stamp = Stamp { run, writer, partition, sequence: sequence + step, due_ns };
            stamp.write(&mut self.value);
            self.builder.append(timestamp, None, Some(&self.value), &[]);
        }
        let base = Sequence::new((sequence % SEQUENCE_WRAP) as i32).expect("below the wrap");
        self.builder.set_producer(self.producer.map(|(id, epoch)| Producer { id, epoch, base_sequence: base }));
        let batch = self.builder.finish().expect("nothing is compressed").expect("there are records");
        self.next += u64::from(count);
        let records = Bytes::copy_from_slice(batch);
        Sent { sequence, count, records, due_ns, reply: None, settled: None, may_be_there: false }
    }

    async fn send(&self, records: &Bytes) -> Result<Reply<ProduceResponse>, ClientError> {
        let mut partition = PartitionProduceData::default();
        partition.index = self.partition.value();
        partition.records = Some(records.clone());
        let mut topic = TopicProduceData::default();
        topic.name = topic_name(&self.run.options.topic);
        topic.partition_data = vec![partition];
        let mut request = ProduceRequest::default();
        request.acks = self.run.options.acks.wire();
        request.timeout_ms = PRODUCE_TIMEOUT_MS;
        request.topic_data = vec![topic];
        self.link.connection().await?.send(ApiKey::Produce, PRODUCE_MAX, &request)
    }

    fn is_idempotent(&self) -> bool {
        self.producer.is_some()
    }

    /// Journals the front once it is known what became of it, or sends it again with everything behind it.
    async fn settle(&mut self, mut front: Sent) {
        let end = match (front.settled, front.reply.take()) {
            (Some(outcome), _) => End::Settled(outcome),
            (None, Some(reply)) => self.answered(&mut front, reply.receive().await),
            (None, None) => End::Again(Outcome::Unknown),
        };
        match end {
            End::Again(_) if !self.is_out_of_patience() => {
                self.queue.push_front(front);
                self.rewind().await;
            }
            End::Again(outcome) | End::Settled(outcome) => self.journal(&front, outcome),
        }
    }

    /// Takes an answer. Only an idempotent batch is ever sent again: the broker recognizes it.
    fn answered(&self, sent: &mut Sent, answer: Result<ProduceResponse, ClientError>) -> End {
        let partition = answer.as_ref().ok().and_then(|answer| answer.responses.first()?.partition_responses.first());
        let judged = partition.map(|partition| judge(partition.error_code, Offset::new(partition.base_offset)));
        let verdict = judged.unwrap_or(Verdict::Unknown);
        if let Err(error) = answer {
            self.run.disconnected(error);
        }
        sent.may_be_there |= verdict == Verdict::Unknown;
        match verdict {
            Verdict::RefusedForNow(_) | Verdict::Unknown if self.is_idempotent() => End::Again(verdict.outcome()),
            _ => End::Settled(verdict.outcome()),
        }
    }

    fn is_out_of_patience(&mut self) -> bool {
        let now = Instant::now();
        let limit = self.run.options.reconnect.unwrap_or_default();
        now >= *self.patience.get_or_insert_with(|| now.plus(limit))
    }

    fn journal(&mut self, sent: &Sent, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Refused(_) if sent.may_be_there => Outcome::Unknown,
            outcome => outcome,
        };
        match outcome {
            Outcome::Acked(_) => self.patience = None,
            // An idempotent writer's next batches would all leave a gap.
            _ if self.is_idempotent() => (self.stopped, self.patience) = (true, Some(Instant::now())),
            _ => {}
        }
        let Sent { sequence, count, .. } = *sent;
        self.run.journal.push(&Entry { writer: self.writer, partition: self.partition, sequence, count, outcome });
        self.run.count(outcome, count, sent.records.len(), sent.due_ns);
    }

    /// Waits for every answer that is still to come, then sends again all that is not settled.
    async fn rewind(&mut self) {
        for index in 0..self.queue.len() {
            let Some(reply) = self.queue[index].reply.take() else { continue };
            let answer = reply.receive().await;
            let mut sent = self.queue.remove(index).expect("the index is in the queue");
            if let End::Settled(outcome) = self.answered(&mut sent, answer) {
                sent.settled = Some(outcome);
            }
            self.queue.insert(index, sent);
        }
        sleep(RETRY).await;
        for index in 0..self.queue.len() {
            if self.queue[index].settled.is_some() {
                continue;
            }
            let records = self.queue[index].records.clone();
            match self.send(&records).await {
                Ok(reply) => self.queue[index].reply = Some(reply),
                // What was not sent now is sent by the next rewind, or given up when patience ends.
                Err(error) => return self.run.disconnected(error),
            }
        }
    }
}

/// Bytes that no compression shortens much (xorshift64, the same in every run).
fn filler() -> Rc<[u8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..FILLER_BYTES / 8).flat_map(|_| next()).collect()
}
