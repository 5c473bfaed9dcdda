//! Fetch: record batches from the logs, sent from where they lie; and waiting until there are enough of them.
//!
//! What is read, in which order and until when, is the matter of `read`; a request whose partitions lie on several shards that
//! of `across`. Here a request becomes a list of partitions, and what was read an answer.
//!
//! No sessions are kept: a client that asks for one is told that it has none (id 0) and fetches in full, as it does with a
//! broker whose sessions are all taken; one that goes on with a session it cannot have gets FETCH_SESSION_ID_NOT_FOUND.
//!
//! Source: KIP-227 (sessions), KIP-74 (limits), KIP-320 (leader epochs).

pub(super) mod across;
pub(super) mod read;

use std::rc::Rc;

use super::connection::Connection;
use super::responses::Response;
use super::router::RequestError;
use super::shard::Shard;
use crate::controller::ClusterImage;
use crate::partition::ParkedFetch;
use crate::runtime::{Duration, Instant, Slice};
use crate::types::{BrokerId, ErrorCode, Pieces, TopicPartition};
use crate::wire::fetch::{FetchHead, FetchRequest, FetchResponseEncoder, FetchedPartition, SessionRequest};
use crate::wire::{CurrentLeader, NodeEndpoint, RequestHeader};

pub(super) use across::FetchAsk;
use read::{Ends, Limits, Read, Wanted};

/// Bytes of records in one answer at most, whatever the client asks for: what the memory for answers can bear.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The first version whose clients know zstd (KIP-110).
const ZSTD_FROM: i16 = 10;

/// Partitions that a connection keeps room for between two fetches.
const PARTITIONS_KEPT: usize = 256;

/// The lists of a fetch.
#[derive(Default)]
pub(super) struct Scratch {
    wanted: Vec<Wanted>,
    reads: Vec<Read>,
}

pub(super) async fn answer(
    shard: &Rc<Shard>,
    connection: &Connection,
    header: &RequestHeader<'_>,
    frame: &Slice,
) -> Result<Response, RequestError> {
    let request = FetchRequest::parse(header.api, &frame[header.body_offset..])?;
    if let SessionRequest::Continue { .. } = request.session {
        let error = ErrorCode::FetchSessionIdNotFound;
        let head = FetchHead { throttle: Duration::ZERO, error, session: None };
        let mut buffer = shard.response_buffer.borrow_mut();
        let encoder = FetchResponseEncoder::new(header.api, header.correlation, &head, 0, &mut buffer);
        return Ok(Response::Ready(encoder.finish(&[])));
    }
    let mut scratch = connection.fetch_scratch().take();
    list(shard, &request, &mut scratch.wanted);
    read_enough(shard, &limits(&request), &mut scratch).await;
    let answer = encode_all(shard, connection, header, &request, &mut scratch);
    scratch.wanted.shrink_to(PARTITIONS_KEPT);
    scratch.reads.shrink_to(PARTITIONS_KEPT);
    connection.fetch_scratch().set(scratch);
    Ok(Response::Ready(answer))
}

fn limits(request: &FetchRequest<'_>) -> Limits {
    let bytes_max = (request.max_bytes as usize).min(ANSWER_BYTES_MAX);
    // It waits for no more than an answer may hold.
    let bytes_min = (request.min_bytes as usize).min(bytes_max);
    let zstd_known = request.api.version() >= ZSTD_FROM;
    Limits { bytes_max, bytes_min, deadline: Instant::now().plus(request.max_wait), zstd_known }
}

/// The partitions of the request in order, each with the shard that owns it.
fn list(shard: &Rc<Shard>, request: &FetchRequest<'_>, wanted: &mut Vec<Wanted>) {
    wanted.clear();
    let image = shard.image();
    for topic in request.topics {
        let id = shard.topic_id(&image, topic.topic);
        for partition in topic.partitions {
            let index = partition.partition().ok_or(ErrorCode::UnknownTopicOrPartition);
            let at = id.and_then(|topic| Ok(TopicPartition { topic, partition: index? }));
            let owner = at.and_then(|at| shard.owner(at));
            wanted.push(Wanted {
                index: partition.index,
                at: owner.and(at),
                owner: owner.unwrap_or(shard.id()),
                from: partition.fetch_offset,
                bytes_max: partition.max_bytes,
                leader_epoch: partition.current_leader_epoch,
            });
        }
    }
}

/// Reads until there are enough bytes, something to tell, or no time left.
async fn read_enough(shard: &Rc<Shard>, limits: &Limits, scratch: &mut Scratch) {
    let Scratch { wanted, reads } = scratch;
    let all_here = wanted.iter().all(|wanted| wanted.owner == shard.id());
    loop {
        if all_here {
            let parked = ParkedFetch::new(limits.bytes_min as u64);
            read::read_until(shard, wanted, limits, &parked, reads).await;
        } else {
            across::read_across(shard, wanted, limits, reads).await;
        }
        let bytes = reads.iter().map(Read::bytes).sum();
        // Bytes that came while the fetch parked may have been counted twice: then it waits once more.
        if read::is_enough(shard, limits, reads, bytes) || wanted.is_empty() {
            return;
        }
    }
}

/// Encodes what was read; the lists are empty afterwards.
fn encode_all(
    shard: &Shard,
    connection: &Connection,
    header: &RequestHeader<'_>,
    request: &FetchRequest<'_>,
    scratch: &mut Scratch,
) -> Pieces<Slice> {
    let image = shard.image();
    let head = FetchHead { throttle: Duration::ZERO, error: ErrorCode::None, session: None };
    let mut buffer = shard.response_buffer.borrow_mut();
    let topics = request.topics.len();
    let encoder = FetchResponseEncoder::new(header.api, header.correlation, &head, topics, &mut buffer);
    let mut encoder = encoder.reusing(connection.responses().take_list());
    let mut leaders = Vec::new();
    let mut read = scratch.wanted.drain(..).zip(scratch.reads.drain(..));
    for topic in request.topics {
        let count = topic.partitions.len();
        encoder.topic(topic.topic, count);
        for (wanted, read) in read.by_ref().take(count) {
            if let Some(leader) = encode(&mut encoder, &image, &wanted, read) {
                leaders.extend(shard.endpoint(&image, leader, connection.listener()).map(|at| (leader, at)));
            }
        }
    }
    let endpoints: Vec<NodeEndpoint<'_>> = leaders
        .iter()
        .map(|(node, at)| NodeEndpoint { node: *node, host: &at.host, port: at.port, rack: None })
        .collect();
    encoder.finish(&endpoints)
}

/// Encodes one partition; returns the leader that the answer names, if another broker leads it.
fn encode(
    encoder: &mut FetchResponseEncoder<'_, Slice>,
    image: &ClusterImage,
    wanted: &Wanted,
    read: Read,
) -> Option<BrokerId> {
    let failed = |code| FetchedPartition::failed(wanted.index, code);
    let described = |ends: &Ends, error: ErrorCode| FetchedPartition {
        high_watermark: Some(ends.high_watermark),
        last_stable_offset: Some(ends.last_stable_offset),
        log_start_offset: Some(ends.log_start_offset),
        ..failed(error)
    };
    match read {
        Read::Records { ends, batches } => {
            encoder.partition(&described(&ends, ErrorCode::None), batches.slices);
            None
        }
        Read::Failed { ends: Some(ends), code } => {
            encoder.partition(&described(&ends, code), []);
            None
        }
        Read::Failed { ends: None, code } => {
            encoder.partition(&failed(code), []);
            None
        }
        Read::Unread => unreachable!("every partition is read before it is told"),
        Read::Moved => {
            let current = wanted.at.ok().and_then(|at| image.partition(at));
            let current_leader = current
                .map(|partition| CurrentLeader { leader: partition.leader, epoch: Some(partition.leader_epoch) });
            let moved = failed(ErrorCode::NotLeaderOrFollower);
            encoder.partition(&FetchedPartition { current_leader, ..moved }, []);
            current.and_then(|partition| partition.leader)
        }
    }
}
