//! Produce: each partition's batch is checked and appended on the shard that owns the partition; the answer goes out when all
//! are committed.
//!
//! Appending happens in the order of arrival and waits for nothing but room; committing (durable, or written with write
//! caching) is waited for by the connection's writer, so that the next request can be appended meanwhile. What other shards own
//! goes to them in one message each, which shares the frame; their lanes keep the order. The frame is given back as soon as its
//! batches are in the logs.
//!
//! One partition's error leaves the others alone. With acks=0 there is no answer, and an error ends the connection (rule 9).
//! A result that is not known when the time runs out is REQUEST_TIMED_OUT: the records may still be committed.

mod append;
pub(super) mod lanes;

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::budgets::requests::SlabMemory;
use super::connection::Connection;
use super::listeners::{Endpoint, ListenerId};
use super::mail::{Answer, Ask, PendingAnswer, answer_of};
use super::responses::Response;
use super::router::RequestError;
use super::shard::Shard;
use crate::controller::ClusterImage;
use crate::runtime::{Duration, Instant, Slice, timeout};
use crate::types::{BrokerId, ErrorCode, ShardId, TopicId, TopicPartition};
use crate::wire::produce::{
    Acks, ProducePartition, ProduceRequest, ProduceResponseEncoder, ProducedPartition, RecordError,
};
use crate::wire::{Api, CorrelationId, CurrentLeader, NodeEndpoint, RequestHeader, TopicKey};

pub(super) use append::Produced;
use append::{Open, Terms};
use lanes::AskedBatch;
pub(super) use lanes::ProduceAsk;

/// The first version whose clients know zstd (KIP-110).
const ZSTD_FROM: i16 = 7;

/// How much later than its deadline the answer of another shard may come.
const ANSWER_PATIENCE: Duration = Duration::from_millis(100);

/// Answers that a shard keeps for reuse, and what one of them has room for at most: together some 2 MiB.
const SPARE_ANSWERS_MAX: usize = 256;
const SPARE_PARTITIONS_MAX: usize = 64;
const SPARE_NAMES_BYTES_MAX: usize = 1024;

/// What became of one partition's batch so far.
enum Outcome {
    /// In a log of this shard, to be committed.
    Open(Open),
    /// With another shard: the place in the answer's `parts`, and in what that shard answers.
    Away { part: usize, place: usize },
    /// Known.
    Known(Produced),
}

/// One partition of the answer.
struct AnsweredPartition {
    index: i32,
    at: Option<TopicPartition>,
    outcome: Outcome,
}

/// What another shard was asked, and has answered once `produced` is there.
struct Part {
    shard: ShardId,
    asked: Vec<AskedBatch>,
    pending: Option<PendingAnswer>,
    produced: Vec<Produced>,
}

struct AnsweredTopic {
    /// Where its name lies in the answer's `names`; `None` if the client named it by id.
    name: Option<Range<usize>>,
    id: TopicId,
    partitions: usize,
}

/// What an answer begins with, and until when it is waited for.
#[derive(Clone, Copy)]
struct Head {
    listener: ListenerId,
    api: Api,
    correlation: CorrelationId,
    deadline: Instant,
    is_wanted: bool,
}

/// The answer to a Produce request, until every batch of it is committed or has failed.
pub(super) struct ProduceAnswer {
    head: Head,
    names: String,
    topics: Vec<AnsweredTopic>,
    partitions: Vec<AnsweredPartition>,
    parts: Vec<Part>,
    /// Of the frame, while other shards have batches that lie in it.
    request: Option<Rc<SlabMemory>>,
}

/// Appends what a request holds; `None` if it wants no answer.
pub(super) async fn answer(
    shard: &Rc<Shard>,
    connection: &Connection,
    header: &RequestHeader<'_>,
    frame: &Slice,
) -> Result<Option<Response>, RequestError> {
    let request =
        ProduceRequest::parse_within(shard.config().request_elements_max, header.api, &frame[header.body_offset..])?;
    let head = Head {
        listener: connection.listener(),
        api: header.api,
        correlation: header.correlation,
        deadline: Instant::now().plus(request.timeout),
        is_wanted: !matches!(request.acks, Ok(Acks::None)),
    };
    let mut answer = ProduceAnswer::begin(shard, head);
    let terms = terms(&request, head.deadline);
    let image = shard.image();
    for topic in request.topics {
        answer.add_topic(topic.topic, topic.partitions.len());
        let id = shard.topic_id(&image, topic.topic);
        for partition in topic.partitions {
            let (at, outcome) = match (&terms, id) {
                (Ok(terms), Ok(id)) => answer.append(shard, terms, id, &partition, frame).await,
                (Err((code, reason)), _) => (None, Outcome::Known(Produced::refused(*code, reason))),
                (_, Err(code)) => (None, Outcome::Known(Produced::refused(code, "the topic is not known here"))),
            };
            answer.partitions.push(AnsweredPartition { index: partition.index, at, outcome });
        }
    }
    if let Ok(terms) = terms {
        answer.ask_others(shard, &terms, frame).await;
    }
    if head.is_wanted || !answer.parts.is_empty() {
        return Ok(Some(Response::Produced(answer)));
    }
    match answer.first_error() {
        Some(reason) => Err(RequestError::Unacknowledged(reason)),
        None => {
            answer.give_back(shard);
            Ok(None)
        }
    }
}

/// What the request says of all its batches; or why every one of them is refused.
fn terms(request: &ProduceRequest<'_>, deadline: Instant) -> Result<Terms, (ErrorCode, String)> {
    if request.is_refused() {
        let reason = "record batches of version 2 need Produce 3 or later".to_string();
        return Err((ErrorCode::UnsupportedVersion, reason));
    }
    let acks = request.acks.map_err(|error| (ErrorCode::InvalidRequiredAcks, error.to_string()))?;
    if request.transactional_id.is_some() {
        return Err((ErrorCode::InvalidTxnState, "transactions are not supported".to_string()));
    }
    Ok(Terms { acks, zstd_allowed: request.api.version() >= ZSTD_FROM, deadline })
}

impl ProduceAnswer {
    /// An answer without partitions. Its lists are those of an earlier answer of the shard, where there is one.
    fn begin(shard: &Shard, head: Head) -> Box<ProduceAnswer> {
        match shard.spare_answers.borrow_mut().pop() {
            Some(mut spare) => {
                spare.head = head;
                spare
            }
            None => Box::new(ProduceAnswer {
                head,
                names: String::new(),
                topics: Vec::new(),
                partitions: Vec::new(),
                parts: Vec::new(),
                request: None,
            }),
        }
    }

    /// Leaves the lists of an answer that has been encoded to later ones.
    pub(super) fn give_back(mut self: Box<Self>, shard: &Shard) {
        self.names.clear();
        self.topics.clear();
        self.partitions.clear();
        self.parts.clear();
        self.request = None;
        let mut spare = shard.spare_answers.borrow_mut();
        let small =
            self.partitions.capacity() <= SPARE_PARTITIONS_MAX && self.names.capacity() <= SPARE_NAMES_BYTES_MAX;
        if small && spare.len() < SPARE_ANSWERS_MAX {
            spare.push(self);
        }
    }

    /// Keeps the memory of the request until the shards that were asked have answered.
    pub(super) fn keep_while_away(&mut self, request: Rc<SlabMemory>) {
        self.request = Some(request).filter(|_| !self.parts.is_empty());
    }

    fn add_topic(&mut self, topic: TopicKey<'_>, partitions: usize) {
        let (name, id) = match topic {
            TopicKey::Name(name) => {
                let start = self.names.len();
                self.names.push_str(name);
                (Some(start..self.names.len()), TopicId::from_bytes([0; 16]))
            }
            TopicKey::Id(id) => (None, id),
        };
        self.topics.push(AnsweredTopic { name, id, partitions });
    }

    /// Appends a batch here, or puts it down for the shard that owns its partition.
    async fn append(
        &mut self,
        shard: &Rc<Shard>,
        terms: &Terms,
        topic: TopicId,
        batch: &ProducePartition<'_>,
        frame: &Slice,
    ) -> (Option<TopicPartition>, Outcome) {
        let refused = |code: ErrorCode, reason: &str| Outcome::Known(Produced::refused(code, reason));
        let Some(index) = batch.partition() else {
            let reason = "a partition's index is not negative";
            return (None, refused(ErrorCode::UnknownTopicOrPartition, reason));
        };
        let at = TopicPartition { topic, partition: index };
        let records = batch.records.unwrap_or_default();
        let outcome = match shard.owner(at) {
            Ok(owner) if owner == shard.id() => match append::append(shard, terms, at, records).await {
                Ok(open) => Outcome::Open(open),
                Err(produced) => Outcome::Known(produced),
            },
            Ok(owner) => {
                let part = self.part(owner);
                let asked = &mut self.parts[part].asked;
                asked.push(AskedBatch { at, records: range_in(frame, records) });
                Outcome::Away { part, place: asked.len() - 1 }
            }
            Err(code) => refused(code, code.name()),
        };
        (Some(at), outcome)
    }

    /// The place of the part of `owner` among the parts.
    fn part(&mut self, owner: ShardId) -> usize {
        self.parts.iter().position(|part| part.shard == owner).unwrap_or_else(|| {
            self.parts.push(Part { shard: owner, asked: Vec::new(), pending: None, produced: Vec::new() });
            self.parts.len() - 1
        })
    }

    async fn ask_others(&mut self, shard: &Rc<Shard>, terms: &Terms, frame: &Slice) {
        for part in &mut self.parts {
            let batches = std::mem::take(&mut part.asked);
            let ask = ProduceAsk { terms: *terms, frame: frame.clone(), batches };
            part.pending = Some(shard.ask(part.shard, Ask::Produce(ask)).await);
        }
    }

    fn first_error(&self) -> Option<String> {
        let error = |partition: &AnsweredPartition, produced: &Produced| {
            let index = partition.index;
            match produced {
                Produced::Done { .. } => None,
                Produced::Failed { code, reason, .. } => {
                    Some(format!("partition {index}: {code}: {}", reason.as_deref().unwrap_or("no reason")))
                }
                Produced::Moved => Some(format!("partition {index}: {}", ErrorCode::NotLeaderOrFollower)),
            }
        };
        self.partitions.iter().find_map(|partition| match &partition.outcome {
            Outcome::Open(_) => None,
            Outcome::Known(produced) => error(partition, produced),
            Outcome::Away { part, place } => error(partition, self.parts[*part].produced.get(*place)?),
        })
    }

    /// Whether there is nothing left to wait for.
    pub(super) fn is_settled(&mut self) -> bool {
        let open = |partition: &AnsweredPartition| match &partition.outcome {
            Outcome::Open(open) => self.head.is_wanted && open.outcome().is_none(),
            _ => false,
        };
        self.parts.iter_mut().all(Part::has_answered) && !self.partitions.iter().any(open)
    }

    /// Waits until every batch is committed or has failed, and encodes the answer, if one is wanted.
    ///
    /// # Errors
    /// None is wanted, and there is something to say.
    pub(super) async fn settle(&mut self, shard: &Shard) -> Result<Option<Bytes>, RequestError> {
        let Head { deadline, is_wanted, .. } = self.head;
        for partition in self.partitions.iter_mut().filter(|_| is_wanted) {
            if let Outcome::Open(open) = &partition.outcome {
                partition.outcome = Outcome::Known(open.settle(deadline).await);
            }
        }
        for part in &mut self.parts {
            part.settle(deadline).await;
        }
        if is_wanted {
            return Ok(Some(self.encode(shard)));
        }
        self.first_error().map_or(Ok(None), |reason| Err(RequestError::Unacknowledged(reason)))
    }

    fn encode(&self, shard: &Shard) -> Bytes {
        let Head { listener, api, correlation, .. } = self.head;
        let image = shard.image();
        let mut buffer = shard.response_buffer.borrow_mut();
        let mut encoder = ProduceResponseEncoder::new(api, correlation, self.topics.len(), &mut buffer);
        let mut leaders: Vec<(BrokerId, Endpoint)> = Vec::new();
        let mut partitions = self.partitions.iter();
        for topic in &self.topics {
            let key = match &topic.name {
                Some(range) => TopicKey::Name(&self.names[range.clone()]),
                None => TopicKey::Id(topic.id),
            };
            encoder.topic(key, topic.partitions);
            for partition in partitions.by_ref().take(topic.partitions) {
                let produced = match &partition.outcome {
                    Outcome::Known(produced) => Some(produced),
                    Outcome::Away { part, place } => self.parts[*part].produced.get(*place),
                    Outcome::Open(_) => None,
                };
                if let Some(leader) = encode_partition(&mut encoder, &image, partition, produced) {
                    leaders.extend(shard.endpoint(&image, leader, listener).map(|at| (leader, at)));
                }
            }
        }
        let endpoints: Vec<NodeEndpoint<'_>> = leaders
            .iter()
            .map(|(node, at)| NodeEndpoint { node: *node, host: &at.host, port: at.port, rack: None })
            .collect();
        encoder.finish(Duration::ZERO, &endpoints)
    }
}

impl Part {
    fn take(&mut self, answer: Option<Answer>) {
        self.pending = None;
        match answer {
            Some(Answer::Produced(produced)) => self.produced = produced,
            None => {}
            Some(_) => unreachable!("a produce is answered with what was produced"),
        }
    }

    fn has_answered(&mut self) -> bool {
        let Some(pending) = &mut self.pending else { return true };
        match pending.try_take() {
            Some(answer) => {
                self.take(answer);
                true
            }
            None => false,
        }
    }

    /// Waits for the answer. The other shard keeps the deadline too; a little more time is for its answer's way.
    async fn settle(&mut self, deadline: Instant) {
        if let Some(pending) = self.pending.take() {
            let left = deadline.plus(ANSWER_PATIENCE).since(Instant::now());
            self.take(timeout(left, answer_of(pending)).await.ok());
        }
    }
}

/// Where `part`, which is a part of `frame`, lies in it.
fn range_in(frame: &Slice, part: &[u8]) -> Range<usize> {
    if part.is_empty() {
        return 0..0;
    }
    let start = part.as_ptr().addr() - frame.as_ptr().addr();
    start..start + part.len()
}

/// Encodes what became of one partition's batch, which is not known if `produced` is `None`; returns the leader that the answer
/// names, if another broker leads it.
fn encode_partition(
    encoder: &mut ProduceResponseEncoder<'_>,
    image: &ClusterImage,
    partition: &AnsweredPartition,
    produced: Option<&Produced>,
) -> Option<BrokerId> {
    let failed = |code| ProducedPartition::failed(partition.index, code);
    match produced {
        Some(Produced::Done { base_offset, log_append_time, log_start }) => {
            encoder.partition(&ProducedPartition {
                base_offset: Some(*base_offset),
                log_append_time: *log_append_time,
                log_start_offset: Some(*log_start),
                ..failed(ErrorCode::None)
            });
            None
        }
        Some(Produced::Failed { code, reason, record }) => {
            let message = reason.as_deref();
            let error =
                record.map(|record| RecordError { batch_index: i32::try_from(record).unwrap_or(i32::MAX), message });
            let record_errors = error.as_slice();
            encoder.partition(&ProducedPartition { error_message: message, record_errors, ..failed(*code) });
            None
        }
        Some(Produced::Moved) => {
            let current = partition.at.and_then(|at| image.partition(at));
            let current_leader = current
                .map(|partition| CurrentLeader { leader: partition.leader, epoch: Some(partition.leader_epoch) });
            encoder.partition(&ProducedPartition { current_leader, ..failed(ErrorCode::NotLeaderOrFollower) });
            current.and_then(|partition| partition.leader)
        }
        None => {
            encoder.partition(&failed(ErrorCode::RequestTimedOut));
            None
        }
    }
}
