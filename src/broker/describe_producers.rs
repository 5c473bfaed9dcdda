//! DescribeProducers: the idempotent producers that partitions remember.
//!
//! A producer is remembered from its first batch until it was silent for `producer.id.expiration.ms`, in every partition by
//! itself. What was accepted counts, durable or not. Errors are those of each partition.
//!
//! Source: KIP-664.

use std::rc::Rc;

use super::shard::{Shard, at};
use crate::storage::producers::ActiveProducer;
use crate::types::{ErrorCode, Offset, Sequence, Timestamp, TopicName, TopicPartition};
use crate::wire::TopicKey;
use crate::wire::messages::{
    DescribeProducersPartitionResult, DescribeProducersRequest, DescribeProducersResponse, DescribeProducersTopic,
    DescribeProducersTopicResult, ProducerId, ProducerState, StrBytes,
};

pub(super) async fn answer(shard: &Rc<Shard>, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let image = shard.image();
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let id = TopicName::new(&topic.name).map_err(|_| ErrorCode::InvalidTopicException);
        let id = id.and_then(|_| shard.topic_id(&image, TopicKey::Name(&topic.name)));
        wanted.extend(topic.partition_indexes.iter().map(|index| (at(id, *index), ())));
    }
    let found = shard.gather(wanted, |shard, at, ()| async move { find(&shard, at) });
    let mut found = found.await.into_iter();
    let describe_topic = |topic: DescribeProducersTopic| {
        let refusal = TopicName::new(&topic.name).err().map(|error| error.to_string());
        let partitions = topic.partition_indexes.iter().zip(found.by_ref());
        let partitions = partitions.map(|(index, found)| describe(*index, found, refusal.as_deref())).collect();
        DescribeProducersTopicResult::default().with_name(topic.name).with_partitions(partitions)
    };
    DescribeProducersResponse::default().with_topics(request.topics.into_iter().map(describe_topic).collect())
}

/// The producers that one partition remembers, by id.
fn find(shard: &Rc<Shard>, at: TopicPartition) -> Result<Vec<ActiveProducer>, ErrorCode> {
    shard.partition(&shard.image(), at).map(|partition| partition.active_producers())
}

fn describe(
    index: i32,
    found: Result<Vec<ActiveProducer>, ErrorCode>,
    refusal: Option<&str>,
) -> DescribeProducersPartitionResult {
    let response = DescribeProducersPartitionResult::default().with_partition_index(index);
    match found {
        Ok(producers) => response.with_active_producers(producers.iter().map(producer).collect()),
        Err(code) => {
            let message = refusal.map(|text| StrBytes::from_string(text.to_owned()));
            response.with_error_code(code.code()).with_error_message(message)
        }
    }
}

fn producer(active: &ActiveProducer) -> ProducerState {
    let coordinator_epoch = active.coordinator_epoch.and_then(|epoch| i32::try_from(epoch).ok());
    ProducerState::default()
        .with_producer_id(ProducerId(active.producer.value()))
        .with_producer_epoch(active.epoch.value().into())
        .with_last_sequence(active.last_sequence.map_or(-1, Sequence::value))
        .with_last_timestamp(active.last_timestamp.map_or(-1, Timestamp::millis))
        .with_coordinator_epoch(coordinator_epoch.unwrap_or(-1))
        .with_current_txn_start_offset(active.open_transaction.map_or(-1, Offset::value))
}
