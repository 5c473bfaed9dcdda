//! DescribeProducers: the idempotent producers that partitions remember.
//!
//! A producer is remembered from its first batch until it was silent for `producer.id.expiration.ms`, in every partition by
//! itself. What was accepted counts, durable or not. Errors are those of each partition.
//!
//! An answer holds a bounded number of producers, at least those of any one partition. Partitions from the first one on that
//! finds no room are refused with POLICY_VIOLATION: a request that names a partition a thousand times is short, and its
//! answer would not be.
//!
//! Source: KIP-664.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::shard::{Shard, at};
use crate::storage::producers::{ActiveProducer, PRODUCERS_MAX};
use crate::types::{ErrorCode, Offset, Sequence, Timestamp, TopicName, TopicPartition};
use crate::wire::TopicKey;
use crate::wire::messages::{
    DescribeProducersPartitionResult, DescribeProducersRequest, DescribeProducersResponse, DescribeProducersTopic,
    DescribeProducersTopicResult, ProducerId, ProducerState, StrBytes,
};

/// Producers of an answer at most: twice those of the fullest partition. 64 bytes each until they are encoded, 8 MiB in all.
const ANSWER_PRODUCERS_MAX: usize = 2 * PRODUCERS_MAX;

pub(super) async fn answer(shard: &Rc<Shard>, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let image = shard.image();
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let id = TopicName::new(&topic.name).map_err(|_| ErrorCode::InvalidTopicException);
        let id = id.and_then(|_| shard.topic_id(&image, TopicKey::Name(&topic.name)));
        wanted.extend(topic.partition_indexes.iter().map(|index| (at(id, *index), ())));
    }
    let room = Arc::new(AtomicUsize::new(ANSWER_PRODUCERS_MAX));
    let found = shard.gather(wanted, move |shard, at, ()| {
        let room = room.clone();
        async move { take(&room, find(&shard, at)?) }
    });
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

/// Takes what was found out of the room of the answer. Once something did not fit, nothing does.
fn take(room: &AtomicUsize, found: Vec<ActiveProducer>) -> Result<Vec<ActiveProducer>, ErrorCode> {
    let smaller = |left: usize| Some(left.saturating_sub(found.len()));
    let left = room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, smaller).unwrap_or(0);
    if left > 0 && left >= found.len() { Ok(found) } else { Err(ErrorCode::PolicyViolation) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{self, ProducerEpoch};

    fn producers(count: usize) -> Vec<ActiveProducer> {
        let active = ActiveProducer {
            producer: types::ProducerId::new(7).expect("not negative"),
            epoch: ProducerEpoch::new(1).expect("not negative"),
            last_sequence: None,
            last_timestamp: None,
            open_transaction: None,
            coordinator_epoch: None,
        };
        vec![active; count]
    }

    #[test]
    fn an_answer_has_room_for_any_one_partition_and_is_bounded() {
        let room = AtomicUsize::new(ANSWER_PRODUCERS_MAX);
        assert!(take(&room, producers(PRODUCERS_MAX)).is_ok());
        assert!(take(&room, producers(PRODUCERS_MAX - 1)).is_ok());
        assert_eq!(take(&room, producers(2)), Err(ErrorCode::PolicyViolation), "there is room for one");
        assert_eq!(take(&room, producers(0)), Err(ErrorCode::PolicyViolation), "then there is none any more");
        assert!(size_of::<ProducerState>() <= 64, "a producer costs more than the limit's note says");
    }

    #[test]
    fn what_a_producer_has_not_is_minus_1_on_the_wire() {
        let state = producer(&producers(1)[0]);
        assert_eq!((state.producer_id, state.producer_epoch, state.coordinator_epoch), (ProducerId(7), 1, -1));
        assert_eq!((state.last_sequence, state.last_timestamp, state.current_txn_start_offset), (-1, -1, -1));
    }
}
