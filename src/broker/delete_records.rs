//! DeleteRecords: raises a partition's log start offset, durably before it answers.
//!
//! Offset −1 is the high watermark. An offset above it is OFFSET_OUT_OF_RANGE; one below the log start offset changes nothing.
//!
//! Source: KIP-107.

use std::rc::Rc;

use super::shard::Shard;
use crate::partition::delete_records_error_code;
use crate::types::{ErrorCode, Offset, PartitionId, TopicPartition};
use crate::wire::TopicKey;
use crate::wire::messages::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};

/// The offset of a request that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub(super) async fn answer(shard: &Rc<Shard>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(wanted.partition_index);
            partitions.push(match delete(shard, &topic.name, wanted).await {
                Ok(start) => result.with_low_watermark(start.value()),
                Err(code) => result.with_low_watermark(-1).with_error_code(code.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete(shard: &Rc<Shard>, topic: &str, wanted: &DeleteRecordsPartition) -> Result<Offset, ErrorCode> {
    let image = shard.image();
    let topic = shard.topic_id(&image, TopicKey::Name(topic))?;
    let index = PartitionId::new(wanted.partition_index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = shard.partition(&image, TopicPartition { topic, partition: index })?;
    let before = match wanted.offset {
        HIGH_WATERMARK => partition.high_watermark(),
        offset => Offset::new(offset).ok_or(ErrorCode::OffsetOutOfRange)?,
    };
    partition.delete_records(before).await.map_err(|error| delete_records_error_code(&error))
}
