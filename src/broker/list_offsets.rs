//! ListOffsets: the ends of a partition, and offsets by time.
//!
//! | timestamp | answer |
//! |---|---|
//! | −1 latest | the high watermark; with read_committed the last stable offset |
//! | −2 earliest, −4 earliest local | the log start offset |
//! | −3 max timestamp | the record with the latest timestamp |
//! | −5 last tiered, −6 earliest pending upload | −1: nothing is tiered |
//! | ≥ 0 | the first record at or after that time |
//!
//! Not found is offset −1 and timestamp −1. Offsets at or above the high watermark are never given out.
//!
//! Source: KIP-79, KIP-405, KIP-734, KIP-1005, KIP-1023.

use std::rc::Rc;

use super::shard::{Shard, at};
use crate::partition::read_error_code;
use crate::types::{ErrorCode, LeaderEpoch, Timestamp, TopicPartition};
use crate::wire::TopicKey;
use crate::wire::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
    ListOffsetsTopicResponse,
};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LAST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// The first version that knows each of the later special timestamps.
const fn known_from(timestamp: i64) -> i16 {
    match timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LAST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => 1,
    }
}

pub(super) async fn answer(shard: &Rc<Shard>, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let image = shard.image();
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let id = shard.topic_id(&image, TopicKey::Name(&topic.name));
        wanted.extend(topic.partitions.iter().map(|asked| (at(id, asked.partition_index), asked.clone())));
    }
    let found = shard.gather(wanted, move |shard, at, asked| async move { find(&shard, version, at, &asked).await });
    let mut found = found.await.into_iter();
    let describe_topic = |topic: ListOffsetsTopic| {
        let partitions = topic.partitions.iter().zip(found.by_ref());
        let partitions = partitions.map(|(asked, found)| describe(asked.partition_index, found)).collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    };
    ListOffsetsResponse::default().with_topics(request.topics.into_iter().map(describe_topic).collect())
}

/// What was found: an offset, and its time and epoch where they are known. `None` where there is no such record.
type Found = Option<(i64, Option<Timestamp>, Option<LeaderEpoch>)>;

async fn find(
    shard: &Rc<Shard>,
    version: i16,
    at: TopicPartition,
    wanted: &ListOffsetsPartition,
) -> Result<Found, ErrorCode> {
    let partition = shard.led_partition(&shard.image(), at, LeaderEpoch::new(wanted.current_leader_epoch))?;
    if version < known_from(wanted.timestamp) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let code = |error| read_error_code(&error);
    let timed = match wanted.timestamp {
        LATEST => {
            // Without transactions the last stable offset is the high watermark, whichever isolation is asked for.
            let end = partition.last_stable_offset();
            return Ok(Some((end.value(), None, Some(partition.leader_epoch()))));
        }
        EARLIEST | EARLIEST_LOCAL => {
            let start = partition.log_start();
            return Ok(Some((start.value(), None, partition.epoch_of(start))));
        }
        LAST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok(None),
        MAX_TIMESTAMP => partition.max_timestamp().await.map_err(code)?,
        other => {
            let at = Timestamp::new(other).ok_or(ErrorCode::InvalidRequest)?;
            partition.offset_for_timestamp(at).await.map_err(code)?
        }
    };
    Ok(timed.map(|found| (found.offset.value(), Some(found.timestamp), found.leader_epoch)))
}

fn describe(index: i32, found: Result<Found, ErrorCode>) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(Some((offset, timestamp, epoch))) => response
            .with_offset(offset)
            .with_timestamp(timestamp.map_or(-1, Timestamp::millis))
            .with_leader_epoch(epoch.map_or(-1, LeaderEpoch::value)),
        Ok(None) => response.with_offset(-1).with_timestamp(-1),
        Err(code) => response.with_error_code(code.code()).with_offset(-1).with_timestamp(-1),
    }
}
