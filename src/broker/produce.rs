//! Produce: each partition's batch is checked and appended at once; the answer goes out when all are committed.
//!
//! Appending happens in the order of arrival and waits for nothing but room; committing (durable, or written with write
//! caching) is waited for by the connection's writer, so that the next request can be appended meanwhile. The frame is given
//! back as soon as its batches are in the logs.
//!
//! One partition's error leaves the others alone. With acks=0 there is no answer, and an error ends the connection (rule 9).
//! A result that is not known when the time runs out is REQUEST_TIMED_OUT: the records may still be committed.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::connection::Connection;
use super::listeners::{Endpoint, ListenerId};
use super::responses::Response;
use super::router::RequestError;
use super::shard::Shard;
use crate::controller::ClusterImage;
use crate::partition::{CommitError, Partition, append_error_code};
use crate::record::{BatchHeader, Codec, ProduceRules, validate_produce};
use crate::runtime::{Duration, Instant, Slice, timeout, wall_clock, yield_now};
use crate::storage::{AppendError, Appended};
use crate::types::{BrokerId, ErrorCode, TopicId, TopicPartition};
use crate::wire::produce::{
    Acks, ProducePartition, ProduceRequest, ProduceResponseEncoder, ProducedPartition, RecordError,
};
use crate::wire::{Api, CorrelationId, CurrentLeader, NodeEndpoint, RequestHeader, TopicKey};

/// The first version whose clients know zstd (KIP-110).
const ZSTD_FROM: i16 = 7;

/// Answers that a shard keeps for reuse, and what one of them has room for at most: together some 2 MiB.
const SPARE_ANSWERS_MAX: usize = 256;
const SPARE_PARTITIONS_MAX: usize = 64;
const SPARE_NAMES_BYTES_MAX: usize = 1024;

/// What became of one partition's batch.
enum Outcome {
    /// In the log, to be committed.
    Appended { partition: Rc<Partition>, appended: Appended },
    /// Not appended.
    Refused { code: ErrorCode, reason: String, record: Option<u32> },
    /// Not led here.
    Moved { at: TopicPartition },
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
}

/// The answer to a Produce request, until every batch of it is committed or has failed.
pub(super) struct ProduceAnswer {
    head: Head,
    names: String,
    topics: Vec<AnsweredTopic>,
    partitions: Vec<(i32, Outcome)>,
}

/// Appends what a request holds; `None` if it wants no answer.
pub(super) async fn answer(
    shard: &Rc<Shard>,
    connection: &Connection,
    header: &RequestHeader<'_>,
    frame: &Slice,
) -> Result<Option<Response>, RequestError> {
    let request = ProduceRequest::parse(header.api, &frame[header.body_offset..])?;
    let head = Head {
        listener: connection.listener(),
        api: header.api,
        correlation: header.correlation,
        deadline: Instant::now().plus(request.timeout),
    };
    let mut answer = ProduceAnswer::begin(shard, head);
    let image = shard.image();
    for topic in request.topics {
        answer.add_topic(topic.topic, topic.partitions.len());
        let id = shard.topic_id(&image, topic.topic);
        for partition in topic.partitions {
            let outcome = match id {
                Ok(id) => {
                    let outcome = append(shard, &image, &request, id, &partition, head.deadline).await;
                    // Unpacking takes long enough for others to be let in before the next batch.
                    if is_compressed(partition.records) {
                        yield_now().await;
                    }
                    outcome
                }
                Err(code) => Outcome::refused(code, "the topic is not known here"),
            };
            answer.partitions.push((partition.index, outcome));
        }
    }
    match request.acks {
        Ok(Acks::None) => match answer.first_error() {
            Some(reason) => Err(RequestError::Unacknowledged(reason)),
            None => {
                answer.give_back(shard);
                Ok(None)
            }
        },
        _ => Ok(Some(Response::Produced(answer))),
    }
}

async fn append(
    shard: &Rc<Shard>,
    image: &Arc<ClusterImage>,
    request: &ProduceRequest<'_>,
    topic: TopicId,
    batch: &ProducePartition<'_>,
    deadline: Instant,
) -> Outcome {
    if request.is_refused() {
        return Outcome::refused(ErrorCode::UnsupportedVersion, "record batches of version 2 need Produce 3 or later");
    }
    let acks = match request.acks {
        Ok(acks) => acks,
        Err(error) => return Outcome::refused(ErrorCode::InvalidRequiredAcks, error),
    };
    if request.transactional_id.is_some() {
        return Outcome::refused(ErrorCode::InvalidTxnState, "transactions are not supported");
    }
    let Some(index) = batch.partition() else {
        return Outcome::refused(ErrorCode::UnknownTopicOrPartition, "a partition's index is not negative");
    };
    let at = TopicPartition { topic, partition: index };
    let partition = match shard.partition(image, at) {
        Ok(partition) => partition,
        Err(ErrorCode::NotLeaderOrFollower) => return Outcome::Moved { at },
        Err(code) => return Outcome::refused(code, code.name()),
    };
    let config = partition.config();
    if acks == Acks::All && config.insync_replicas_min > 1 {
        let reason = format!("1 replica is in sync, min.insync.replicas is {}", config.insync_replicas_min);
        return Outcome::refused(ErrorCode::NotEnoughReplicas, reason);
    }
    let rules = ProduceRules { zstd_allowed: request.api.version() >= ZSTD_FROM, ..partition.produce_rules() };
    let records = batch.records.unwrap_or_default();
    let mut late = false;
    loop {
        let validated = {
            let mut decompressors = shard.decompressors.borrow_mut();
            validate_produce(records, wall_clock(), &rules, &mut decompressors)
        };
        let produced = match validated {
            Ok(produced) => produced,
            Err(error) => {
                return Outcome::Refused {
                    code: error.code(),
                    record: error.record_index(),
                    reason: error.to_string(),
                };
            }
        };
        if produced.is_transactional() {
            return Outcome::refused(ErrorCode::InvalidTxnState, "transactions are not supported");
        }
        match partition.append(&produced) {
            Ok(appended) => return Outcome::Appended { partition, appended },
            Err(AppendError::Backpressure) if !late => {
                let left = deadline.since(Instant::now());
                late = timeout(left, shard.storage.room()).await.is_err();
            }
            Err(error) => return Outcome::refused(append_error_code(&error), error),
        }
    }
}

/// Whether the batch at the front of `records` is compressed, as far as its header goes.
fn is_compressed(records: Option<&[u8]>) -> bool {
    let header = records.and_then(BatchHeader::view);
    header.is_some_and(|header| header.attributes().codec() != Ok(Codec::None))
}

impl Outcome {
    fn refused(code: ErrorCode, reason: impl ToString) -> Outcome {
        Outcome::Refused { code, reason: reason.to_string(), record: None }
    }
}

impl ProduceAnswer {
    /// An answer without partitions. Its lists are those of an earlier answer of the shard, where there is one.
    fn begin(shard: &Shard, head: Head) -> Box<ProduceAnswer> {
        match shard.spare_answers.borrow_mut().pop() {
            Some(mut spare) => {
                spare.head = head;
                spare
            }
            None => Box::new(ProduceAnswer { head, names: String::new(), topics: Vec::new(), partitions: Vec::new() }),
        }
    }

    /// Leaves the lists of an answer that has been encoded to later ones.
    pub(super) fn give_back(mut self: Box<Self>, shard: &Shard) {
        self.names.clear();
        self.topics.clear();
        self.partitions.clear();
        let mut spare = shard.spare_answers.borrow_mut();
        let small =
            self.partitions.capacity() <= SPARE_PARTITIONS_MAX && self.names.capacity() <= SPARE_NAMES_BYTES_MAX;
        if small && spare.len() < SPARE_ANSWERS_MAX {
            spare.push(self);
        }
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

    fn first_error(&self) -> Option<String> {
        self.partitions.iter().find_map(|(index, outcome)| match outcome {
            Outcome::Appended { .. } => None,
            Outcome::Refused { code, reason, .. } => Some(format!("partition {index}: {code}: {reason}")),
            Outcome::Moved { .. } => Some(format!("partition {index}: {}", ErrorCode::NotLeaderOrFollower)),
        })
    }

    /// Whether there is nothing left to wait for.
    pub(super) fn is_settled(&self) -> bool {
        self.partitions.iter().all(|(_, outcome)| match outcome {
            Outcome::Appended { partition, appended } => partition.outcome(appended.end).is_some(),
            _ => true,
        })
    }

    /// Waits until every batch is committed or has failed, and encodes the answer.
    pub(super) async fn settle(&self, shard: &Shard) -> Bytes {
        for (_, outcome) in &self.partitions {
            if let Outcome::Appended { partition, appended } = outcome
                && partition.outcome(appended.end).is_none()
            {
                let left = self.head.deadline.since(Instant::now());
                // What is open after the deadline is told as such by `encode`; the others need no time any more.
                let _ = timeout(left, partition.committed(appended.end)).await;
            }
        }
        self.encode(shard)
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
            for (index, outcome) in partitions.by_ref().take(topic.partitions) {
                if let Some(leader) = encode_partition(&mut encoder, &image, *index, outcome) {
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

/// Encodes what became of one partition's batch; returns the leader that the answer names, if another broker leads it.
fn encode_partition(
    encoder: &mut ProduceResponseEncoder<'_>,
    image: &ClusterImage,
    index: i32,
    outcome: &Outcome,
) -> Option<BrokerId> {
    let failed = |code| ProducedPartition::failed(index, code);
    match outcome {
        Outcome::Appended { partition, appended } => {
            encoder.partition(&match partition.outcome(appended.end) {
                Some(Ok(())) => ProducedPartition {
                    base_offset: Some(appended.base_offset),
                    log_append_time: appended.log_append_time,
                    log_start_offset: Some(partition.log_start()),
                    ..failed(ErrorCode::None)
                },
                Some(Err(CommitError::Failed)) => failed(ErrorCode::KafkaStorageError),
                Some(Err(CommitError::Deleted)) => failed(ErrorCode::UnknownTopicOrPartition),
                None => failed(ErrorCode::RequestTimedOut),
            });
            None
        }
        Outcome::Refused { code, reason, record } => {
            let error = record.map(|record| RecordError {
                batch_index: i32::try_from(record).unwrap_or(i32::MAX),
                message: Some(reason),
            });
            let (record_errors, error_message) = (error.as_slice(), Some(reason.as_str()));
            encoder.partition(&ProducedPartition { error_message, record_errors, ..failed(*code) });
            None
        }
        Outcome::Moved { at } => {
            let current = image.partition(*at);
            let current_leader = current
                .map(|partition| CurrentLeader { leader: partition.leader, epoch: Some(partition.leader_epoch) });
            encoder.partition(&ProducedPartition { current_leader, ..failed(ErrorCode::NotLeaderOrFollower) });
            current.and_then(|partition| partition.leader)
        }
    }
}
