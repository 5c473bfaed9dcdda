//! Fetch: record batches from the logs, sent from where they lie; and waiting until there are enough of them.
//!
//! What is read, in which order and until when, is the matter of `read`; a request whose partitions lie on several shards that
//! of `across`. Here a request becomes a list of partitions, and what was read an answer, both by way of the client's session
//! if it has one.
//!
//! Source: KIP-227 (sessions), KIP-74 (limits), KIP-320 (leader epochs).

pub(super) mod across;
pub(super) mod read;

use std::rc::Rc;

use super::budgets::responses::SendMemory;
use super::connection::Connection;
use super::fetch_sessions::{Fetch, Refused, Told};
use super::listeners::Endpoint;
use super::responses::Response;
use super::router::RequestError;
use super::shard::Shard;
use crate::controller::ClusterImage;
use crate::metrics::Limit;
use crate::partition::ParkedFetch;
use crate::runtime::{Class, Duration, Instant, Slice, spawn};
use crate::types::{BrokerId, ErrorCode, Pieces, TopicId, TopicPartition};
use crate::wire::fetch::{
    FetchHead, FetchPartition, FetchRequest, FetchResponseEncoder, FetchedPartition, Isolation, SessionRequest,
};
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
    let request =
        FetchRequest::parse_within(shard.config().request_elements_max, header.api, &frame[header.body_offset..])?;
    let mut scratch = connection.fetch_scratch().take();
    let limits = limits(&request, connection.sending());
    let answered = match fetch(shard, &request, &limits, &mut scratch).await {
        Ok(fetch) => encode_all(shard, connection, header, &request, fetch, &mut scratch),
        Err(refused) => Err(refused),
    };
    scratch.wanted.clear();
    scratch.reads.clear();
    scratch.wanted.shrink_to(PARTITIONS_KEPT);
    scratch.reads.shrink_to(PARTITIONS_KEPT);
    connection.fetch_scratch().set(scratch);
    Ok(Response::ready(answered.unwrap_or_else(|refused| {
        close_elsewhere(shard, &request);
        encode_refusal(shard, header, refused)
    })))
}

/// Finds out what is to be fetched, and fetches it.
async fn fetch(
    shard: &Rc<Shard>,
    request: &FetchRequest<'_>,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Result<Fetch, Refused> {
    let fetch = {
        let mut sessions = shard.fetch_sessions.borrow_mut();
        let fetch = sessions.begin(request, Instant::now())?;
        let image = shard.image();
        let wanted = sessions.wanted(&fetch, request, &image)?;
        list(shard, wanted, &mut scratch.wanted);
        fetch
    };
    read_enough(shard, limits, scratch).await;
    Ok(fetch)
}

/// Ends a session that the client will not use again, if another shard has it.
fn close_elsewhere(shard: &Rc<Shard>, request: &FetchRequest<'_>) {
    let SessionRequest::Continue { id, .. } = request.session else { return };
    let owner = shard.fetch_sessions.borrow().owner(id).filter(|owner| *owner != shard.id());
    if let Some(owner) = owner {
        let shard = shard.clone();
        spawn(Class::Background, async move {
            shard.call(owner, move |owner| async move { owner.fetch_sessions.borrow_mut().close(id) }).await;
        });
    }
}

fn encode_refusal(shard: &Shard, header: &RequestHeader<'_>, refused: Refused) -> Pieces<Slice> {
    let head = FetchHead { throttle: Duration::ZERO, error: refused.error, session: refused.session };
    let mut buffer = shard.response_buffer.borrow_mut();
    let encoder = FetchResponseEncoder::new(header.api, header.correlation, &head, 0, &mut buffer);
    encoder.finish(&[])
}

/// What the client asks for, as far as memory lets an answer go.
fn limits(request: &FetchRequest<'_>, sending: &SendMemory) -> Limits {
    let bytes_max = sending.answer_bytes((request.max_bytes as usize).min(ANSWER_BYTES_MAX));
    // It waits for no more than an answer may hold.
    let bytes_min = (request.min_bytes as usize).min(bytes_max);
    let zstd_known = request.api.version() >= ZSTD_FROM;
    Limits { bytes_max, bytes_min, deadline: Instant::now().plus(request.max_wait), zstd_known }
}

/// The partitions in order, each with the shard that owns it.
fn list(
    shard: &Rc<Shard>,
    partitions: impl Iterator<Item = (Result<TopicId, ErrorCode>, FetchPartition)>,
    wanted: &mut Vec<Wanted>,
) {
    wanted.clear();
    for (topic, partition) in partitions {
        let index = partition.partition().ok_or(ErrorCode::UnknownTopicOrPartition);
        let at = topic.and_then(|topic| Ok(TopicPartition { topic, partition: index? }));
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

/// Reads until there are enough bytes, something to tell, or no time left.
async fn read_enough(shard: &Rc<Shard>, limits: &Limits, scratch: &mut Scratch) {
    let Scratch { wanted, reads } = scratch;
    let all_here = wanted.iter().all(|wanted| wanted.owner == shard.id());
    loop {
        if all_here {
            let park = || ParkedFetch::new(limits.bytes_min as u64);
            read::read_until(shard, wanted, limits, park, reads).await;
        } else {
            across::read_across(shard, wanted, limits, reads).await;
        }
        let bytes = reads.iter().map(Read::bytes).sum();
        // Bytes that came while the fetch parked may have been counted twice: then it waits once more.
        if read::is_enough(shard, limits, wanted, reads, bytes) || wanted.is_empty() {
            return;
        }
    }
}

/// Encodes what was read, as far as the client's session does not know it yet.
fn encode_all(
    shard: &Shard,
    connection: &Connection,
    header: &RequestHeader<'_>,
    request: &FetchRequest<'_>,
    fetch: Fetch,
    scratch: &mut Scratch,
) -> Result<Pieces<Slice>, Refused> {
    let Scratch { wanted, reads } = scratch;
    let image = shard.image();
    let told = wanted.iter().zip(reads.iter());
    let told = told.map(|(wanted, read)| Told::of(&describe(wanted, read, &image), read.bytes()));
    let mut sessions = shard.fetch_sessions.borrow_mut();
    let opens = fetch == Fetch::Opening;
    let answer = sessions.answer(fetch, request, told, Instant::now())?;
    if opens && answer.session().is_none() {
        shard.metrics.limits_met.at(Limit::FetchSessions).add(1);
    }
    let head = FetchHead { throttle: Duration::ZERO, error: ErrorCode::None, session: answer.session() };
    let mut buffer = shard.response_buffer.borrow_mut();
    let encoder = FetchResponseEncoder::new(header.api, header.correlation, &head, answer.topics_len(), &mut buffer);
    let mut encoder = encoder.reusing(connection.responses().take_list());
    let mut leaders: Vec<(BrokerId, Endpoint)> = Vec::new();
    shard.metrics.fetch_bytes.add(reads.iter().map(|read| read.bytes() as u64).sum());
    for topic in answer.topics() {
        encoder.topic(topic.key, topic.reads.len());
        for place in topic.reads {
            let read = std::mem::replace(&mut reads[place], Read::Unread);
            let described = FetchedPartition {
                // Of transactions that were aborted; there are none yet.
                aborted_transactions: (request.isolation == Isolation::ReadCommitted).then_some(&[]),
                ..describe(&wanted[place], &read, &image)
            };
            if let Some(leader) = described.current_leader.and_then(|current| current.leader) {
                leaders.extend(shard.endpoint(&image, leader, connection.listener()).map(|at| (leader, at)));
            }
            match read {
                Read::Records { batches, .. } => encoder.partition(&described, batches.slices),
                _ => encoder.partition(&described, []),
            }
        }
    }
    let endpoints: Vec<NodeEndpoint<'_>> = leaders
        .iter()
        .map(|(node, at)| NodeEndpoint { node: *node, host: &at.host, port: at.port, rack: None })
        .collect();
    Ok(encoder.finish(&endpoints))
}

/// What the answer says of a partition, beside its records.
fn describe(wanted: &Wanted, read: &Read, image: &ClusterImage) -> FetchedPartition<'static> {
    let failed = |code| FetchedPartition::failed(wanted.index, code);
    let with_ends = |ends: &Ends, error: ErrorCode| FetchedPartition {
        high_watermark: Some(ends.high_watermark),
        last_stable_offset: Some(ends.last_stable_offset),
        log_start_offset: Some(ends.log_start_offset),
        ..failed(error)
    };
    match read {
        Read::Records { ends, .. } => with_ends(ends, ErrorCode::None),
        Read::Failed { ends: Some(ends), code } => with_ends(ends, *code),
        Read::Failed { ends: None, code } => failed(*code),
        Read::Moved => {
            let current = wanted.at.ok().and_then(|at| image.partition(at));
            let current_leader = current
                .map(|partition| CurrentLeader { leader: partition.leader, epoch: Some(partition.leader_epoch) });
            FetchedPartition { current_leader, ..failed(ErrorCode::NotLeaderOrFollower) }
        }
        Read::Unread => unreachable!("every partition is read before it is told"),
    }
}
