//! OffsetForLeaderEpoch: where a leader's epoch ends, by which a consumer finds out whether what it has read is still there.
//!
//! The answer names the largest epoch that is not above the asked one and the offset behind its last record. Of the current
//! epoch that is the high watermark: consumers see no further. An epoch that cannot be known here is epoch −1 and offset −1,
//! which is no error.
//!
//! Replicas compare their epochs by another protocol; every client here is a consumer, whatever replica id it gives.
//!
//! Source: KIP-101, KIP-279, KIP-320.

use std::rc::Rc;

use super::shard::{Shard, at};
use crate::storage::epochs::EpochEnd;
use crate::types::{ErrorCode, LeaderEpoch, TopicPartition};
use crate::wire::TopicKey;
use crate::wire::messages::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderTopic,
    OffsetForLeaderTopicResult,
};

/// What the wire says where nothing is known.
const UNDEFINED: i32 = -1;

pub(super) async fn answer(shard: &Rc<Shard>, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let image = shard.image();
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let id = shard.topic_id(&image, TopicKey::Name(&topic.topic));
        wanted.extend(topic.partitions.iter().map(|asked| {
            let epochs = (LeaderEpoch::new(asked.current_leader_epoch), LeaderEpoch::new(asked.leader_epoch));
            (at(id, asked.partition), epochs)
        }));
    }
    let ends = shard.gather(wanted, |shard, at, (current, asked)| async move { find(&shard, at, current, asked) });
    let mut ends = ends.await.into_iter();
    let describe_topic = |topic: OffsetForLeaderTopic| {
        let partitions = topic.partitions.iter().zip(ends.by_ref());
        let partitions = partitions.map(|(asked, end)| describe(asked.partition, end)).collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    };
    OffsetForLeaderEpochResponse::default().with_topics(request.topics.into_iter().map(describe_topic).collect())
}

/// Where `asked` ends in a partition that the client takes to be led in `current`.
fn find(
    shard: &Rc<Shard>,
    at: TopicPartition,
    current: Option<LeaderEpoch>,
    asked: Option<LeaderEpoch>,
) -> Result<Option<EpochEnd>, ErrorCode> {
    let partition = shard.led_partition(&shard.image(), at, current)?;
    Ok(asked.and_then(|asked| partition.epoch_end(asked)))
}

fn describe(index: i32, end: Result<Option<EpochEnd>, ErrorCode>) -> EpochEndOffset {
    let response = EpochEndOffset::default().with_partition(index);
    let undefined = |response: EpochEndOffset| response.with_leader_epoch(UNDEFINED).with_end_offset(UNDEFINED.into());
    match end {
        Ok(Some(end)) => response.with_leader_epoch(end.epoch.value()).with_end_offset(end.end.value()),
        Ok(None) => undefined(response),
        Err(code) => undefined(response).with_error_code(code.code()),
    }
}
