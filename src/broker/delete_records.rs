//! DeleteRecords: raises a partition's log start offset, durably before it answers.
//!
//! Offset −1 is the high watermark. An offset above it is OFFSET_OUT_OF_RANGE; one below the log start offset changes nothing.
//!
//! Source: KIP-107.

use std::rc::Rc;

use super::shard::{Shard, at};
use crate::partition::delete_records_error_code;
use crate::types::{ErrorCode, Offset, TopicPartition};
use crate::wire::TopicKey;
use crate::wire::messages::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
    DeleteRecordsTopicResult,
};

/// The offset of a request that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub(super) async fn answer(shard: &Rc<Shard>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let image = shard.image();
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let id = shard.topic_id(&image, TopicKey::Name(&topic.name));
        wanted.extend(topic.partitions.iter().map(|asked| (at(id, asked.partition_index), asked.offset)));
    }
    let deleted = shard.gather(wanted, |shard, at, before| async move { delete(&shard, at, before).await });
    let mut deleted = deleted.await.into_iter();
    let describe_topic = |topic: DeleteRecordsTopic| {
        let partitions = topic.partitions.iter().zip(deleted.by_ref()).map(|(asked, deleted)| {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            match deleted {
                Ok(start) => result.with_low_watermark(start.value()),
                Err(code) => result.with_low_watermark(-1).with_error_code(code.code()),
            }
        });
        DeleteRecordsTopicResult::default().with_partitions(partitions.collect()).with_name(topic.name)
    };
    DeleteRecordsResponse::default().with_topics(request.topics.into_iter().map(describe_topic).collect())
}

async fn delete(shard: &Rc<Shard>, at: TopicPartition, before: i64) -> Result<Offset, ErrorCode> {
    let partition = shard.partition(&shard.image(), at)?;
    let before = match before {
        HIGH_WATERMARK => partition.high_watermark(),
        offset => Offset::new(offset).ok_or(ErrorCode::OffsetOutOfRange)?,
    };
    partition.delete_records(before).await.map_err(|error| delete_records_error_code(&error))
}
