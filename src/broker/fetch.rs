//! Fetch: record batches from the logs, sent from where they lie; and waiting until there are enough of them.
//!
//! The partitions are read once in the client's order. The first one that has anything is served whole, whatever the limits
//! say; after it both limits hold (rule 15). If that is less than `min_bytes` the fetch parks and looks once more: from then on
//! every partition that moves on tells it how many bytes arrived, and it reads again when they are enough, when something
//! failed, or when its time is up.
//!
//! No sessions are kept: a client that asks for one is told that it has none (id 0) and fetches in full, as it does with a
//! broker whose sessions are all taken; one that goes on with a session it cannot have gets FETCH_SESSION_ID_NOT_FOUND.
//!
//! Source: KIP-227 (sessions), KIP-74 (limits), KIP-320 (leader epochs).

use std::rc::Rc;
use std::sync::Arc;

use super::connection::Connection;
use super::responses::Response;
use super::router::RequestError;
use super::shard::Shard;
use crate::controller::ClusterImage;
use crate::partition::{ParkedFetch, Parking, Partition, read_error_code};
use crate::runtime::{Duration, Instant, Slice, timeout};
use crate::storage::Batches;
use crate::types::{BrokerId, ErrorCode, Pieces, TopicId, TopicPartition};
use crate::wire::fetch::{
    FetchHead, FetchPartition, FetchRequest, FetchResponseEncoder, FetchedPartition, SessionRequest,
};
use crate::wire::{CurrentLeader, NodeEndpoint, RequestHeader};

/// Bytes of records in one answer at most, whatever the client asks for: what the memory for answers can bear.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Reads that a connection keeps room for between two fetches.
const READS_KEPT: usize = 256;

/// What one partition answers.
pub(super) enum Read {
    /// Its records, perhaps none yet.
    Records {
        partition: Rc<Partition>,
        batches: Batches,
    },
    Failed {
        partition: Option<Rc<Partition>>,
        code: ErrorCode,
    },
    Moved {
        at: TopicPartition,
    },
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
    let mut reads = connection.reads().take();
    read_enough(shard, &request, &mut reads).await;
    let answer = encode_all(shard, connection, header, &request, &mut reads);
    reads.shrink_to(READS_KEPT);
    connection.reads().set(reads);
    Ok(Response::Ready(answer))
}

/// Encodes what was read; `reads` is empty afterwards.
fn encode_all(
    shard: &Shard,
    connection: &Connection,
    header: &RequestHeader<'_>,
    request: &FetchRequest<'_>,
    reads: &mut Vec<Read>,
) -> Pieces<Slice> {
    let image = shard.image();
    let head = FetchHead { throttle: Duration::ZERO, error: ErrorCode::None, session: None };
    let mut buffer = shard.response_buffer.borrow_mut();
    let topics = request.topics.len();
    let encoder = FetchResponseEncoder::new(header.api, header.correlation, &head, topics, &mut buffer);
    let mut encoder = encoder.reusing(connection.responses().take_list());
    let mut leaders = Vec::new();
    let mut reads = reads.drain(..);
    for topic in request.topics {
        encoder.topic(topic.topic, topic.partitions.len());
        for (partition, read) in topic.partitions.zip(reads.by_ref()) {
            if let Some(leader) = encode(&mut encoder, &image, &partition, read) {
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

/// Reads until there are `min_bytes`, something to tell, or no time left.
async fn read_enough(shard: &Rc<Shard>, request: &FetchRequest<'_>, reads: &mut Vec<Read>) {
    let deadline = Instant::now().plus(request.max_wait);
    // Most fetches find enough at once: they park nowhere.
    let bytes = read_all(shard, &shard.image(), request, reads).await;
    if is_enough(shard, request, reads, bytes) || request.max_wait.is_zero() {
        return;
    }
    loop {
        let image = shard.image();
        // Parked before reading, so that nothing that arrives in between is missed.
        let parked = ParkedFetch::new(wanted_bytes(request) as u64);
        let parkings = park(shard, &image, request, &parked);
        let bytes = read_all(shard, &image, request, reads).await;
        let left = deadline.since(Instant::now());
        if is_enough(shard, request, reads, bytes) || left.is_zero() || parkings.is_empty() {
            return;
        }
        reads.clear();
        parked.arrived(bytes as u64);
        if timeout(left, parked.ready()).await.is_err() {
            drop(parkings);
            read_all(shard, &shard.image(), request, reads).await;
            return;
        }
    }
}

/// Bytes for which the request waits: no more than an answer may hold.
fn wanted_bytes(request: &FetchRequest<'_>) -> usize {
    (request.min_bytes.min(request.max_bytes) as usize).min(ANSWER_BYTES_MAX)
}

/// Whether what was read, `bytes` bytes of records, is to be answered without waiting for more.
fn is_enough(shard: &Shard, request: &FetchRequest<'_>, reads: &[Read], bytes: usize) -> bool {
    let failed = reads.iter().any(|read| !matches!(read, Read::Records { .. }));
    bytes >= wanted_bytes(request) || failed || shard.is_draining()
}

fn park(
    shard: &Rc<Shard>,
    image: &Arc<ClusterImage>,
    request: &FetchRequest<'_>,
    parked: &Rc<ParkedFetch>,
) -> Vec<Parking> {
    each_partition(shard, image, request).filter_map(|(_, found)| found.ok()).map(|led| led.park(parked)).collect()
}

/// The partitions of the request in order, each with its partition here or why there is none.
fn each_partition<'a>(
    shard: &'a Rc<Shard>,
    image: &'a Arc<ClusterImage>,
    request: &FetchRequest<'a>,
) -> impl Iterator<Item = (FetchPartition, Result<Rc<Partition>, Unavailable>)> + 'a {
    request.topics.flat_map(move |topic| {
        let id = shard.topic_id(image, topic.topic);
        topic.partitions.map(move |partition| (partition, find(shard, image, id, &partition)))
    })
}

struct Unavailable {
    code: ErrorCode,
    at: Option<TopicPartition>,
}

fn find(
    shard: &Rc<Shard>,
    image: &Arc<ClusterImage>,
    topic: Result<TopicId, ErrorCode>,

    wanted: &FetchPartition,
) -> Result<Rc<Partition>, Unavailable> {
    let unavailable = |code| Unavailable { code, at: None };
    let topic = topic.map_err(unavailable)?;
    let index = wanted.partition().ok_or(unavailable(ErrorCode::UnknownTopicOrPartition))?;
    let at = TopicPartition { topic, partition: index };
    let found = shard.led_partition(image, at, wanted.current_leader_epoch);
    found.map_err(|code| Unavailable { code, at: Some(at) })
}

/// Reads every partition once into `reads`, and says how many bytes of records came together.
async fn read_all(
    shard: &Rc<Shard>,
    image: &Arc<ClusterImage>,
    request: &FetchRequest<'_>,
    reads: &mut Vec<Read>,
) -> usize {
    reads.clear();
    let mut left = (request.max_bytes as usize).min(ANSWER_BYTES_MAX);
    let mut bytes = 0;
    for (wanted, found) in each_partition(shard, image, request) {
        let read = match found {
            Ok(partition) => read_one(partition, &wanted, left, bytes == 0).await,
            Err(Unavailable { code: ErrorCode::NotLeaderOrFollower, at: Some(at) }) => Read::Moved { at },
            Err(Unavailable { code, .. }) => Read::Failed { partition: None, code },
        };
        if let Read::Records { batches, .. } = &read {
            bytes += batches.bytes;
            left = left.saturating_sub(batches.bytes);
        }
        reads.push(read);
    }
    bytes
}

async fn read_one(partition: Rc<Partition>, wanted: &FetchPartition, left: usize, first: bool) -> Read {
    let Some(from) = wanted.fetch_offset else {
        return Read::Failed { partition: Some(partition), code: ErrorCode::OffsetOutOfRange };
    };
    let bytes_max = left.min(wanted.max_bytes as usize);
    match partition.read(from, bytes_max, first).await {
        Ok(batches) => Read::Records { partition, batches },
        Err(error) => {
            let code = read_error_code(&error);
            Read::Failed { partition: Some(partition), code }
        }
    }
}

/// Encodes one partition; returns the leader that the answer names, if another broker leads it.
fn encode(
    encoder: &mut FetchResponseEncoder<'_, Slice>,
    image: &ClusterImage,
    wanted: &FetchPartition,
    read: Read,
) -> Option<BrokerId> {
    let failed = |code| FetchedPartition::failed(wanted.index, code);
    let described = |partition: &Partition, error: ErrorCode| FetchedPartition {
        high_watermark: Some(partition.high_watermark()),
        last_stable_offset: Some(partition.last_stable_offset()),
        log_start_offset: Some(partition.log_start()),
        ..failed(error)
    };
    match read {
        Read::Records { partition, batches } => {
            encoder.partition(&described(&partition, ErrorCode::None), batches.slices);
            None
        }
        Read::Failed { partition: Some(partition), code } => {
            encoder.partition(&described(&partition, code), []);
            None
        }
        Read::Failed { partition: None, code } => {
            encoder.partition(&failed(code), []);
            None
        }
        Read::Moved { at } => {
            let current = image.partition(at);
            let current_leader = current
                .map(|partition| CurrentLeader { leader: partition.leader, epoch: Some(partition.leader_epoch) });
            let moved = failed(ErrorCode::NotLeaderOrFollower);
            encoder.partition(&FetchedPartition { current_leader, ..moved }, []);
            current.and_then(|partition| partition.leader)
        }
    }
}
