//! DescribeTopicPartitions: topics with their partitions, in pages that are bounded by the number of partitions.
//!
//! Topics are sorted by name; an empty list of them is all. A page ends where its partitions are used up, in the middle of a
//! topic if need be, and says where the next one begins; the client sends that cursor with the same topics. The next page is
//! of the cluster as it is then: a topic that was deleted meanwhile is missing in it.
//!
//! No partition has eligible leader replicas beside its in-sync ones, so both lists of them are empty.
//!
//! Source: KIP-966.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::authorized_operations;
use crate::controller::{ClusterImage, Partition, Topic};
use crate::types::{self, ErrorCode};
use crate::wire::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic, NextTopicPartitionsCursor,
    StrBytes, TopicName,
};

/// A page of at most `partitions_max` partitions, which is 1 or more, however many the client asks for.
pub(super) fn answer(
    image: &ClusterImage,
    partitions_max: i32,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let limit = request.response_partition_limit.clamp(1, partitions_max);
    let limit = usize::try_from(limit).expect("clamped to at least 1");
    match Start::new(request) {
        Some(start) => page(image, &names(image, request, &start, limit), &start, limit),
        None => refused(request),
    }
}

/// Where a page begins.
struct Start<'a> {
    topic: &'a str,
    partition: usize,
}

impl Start<'_> {
    /// `None` if the cursor is not one that a page of these topics can have given out.
    fn new(request: &DescribeTopicPartitionsRequest) -> Option<Start<'_>> {
        let Some(cursor) = &request.cursor else { return Some(Start { topic: "", partition: 0 }) };
        let partition = usize::try_from(cursor.partition_index).ok()?;
        let listed = request.topics.is_empty() || request.topics.iter().any(|topic| topic.name == cursor.topic_name);
        listed.then_some(Start { topic: &cursor.topic_name, partition })
    }
}

/// The names from the start on, sorted; of all topics as many as a page can hold, and the one behind it.
fn names<'a>(
    image: &'a ClusterImage,
    request: &'a DescribeTopicPartitionsRequest,
    start: &Start<'_>,
    limit: usize,
) -> Vec<&'a str> {
    if !request.topics.is_empty() {
        let names: BTreeSet<&str> = request.topics.iter().map(|topic| &**topic.name).collect();
        return names.into_iter().filter(|name| *name >= start.topic).collect();
    }
    let mut names: Vec<&str> =
        image.topics().map(|topic| topic.name.as_str()).filter(|name| *name >= start.topic).collect();
    // The image has another order. Every topic has a partition, so no more topics than that are needed.
    if names.len() > limit + 1 {
        names.select_nth_unstable(limit);
        names.truncate(limit + 1);
    }
    names.sort_unstable();
    names
}

fn page(image: &ClusterImage, names: &[&str], start: &Start<'_>, limit: usize) -> DescribeTopicPartitionsResponse {
    let mut topics = Vec::new();
    let mut left = limit;
    let mut next = None;
    for &name in names {
        if left == 0 {
            next = Some(cursor(name, 0));
            break;
        }
        let Some(topic) = image.topic_by_name(name) else {
            topics.push(unknown(name));
            continue;
        };
        let first = if name == start.topic { start.partition.min(topic.partitions.len()) } else { 0 };
        let end = topic.partitions.len().min(first + left);
        topics.push(describe(image, topic, &topic.partitions[first..end]));
        if end < topic.partitions.len() {
            next = Some(cursor(name, end));
            break;
        }
        left -= end - first;
    }
    DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(next)
}

fn cursor(topic: &str, partition: usize) -> NextTopicPartitionsCursor {
    let partition = i32::try_from(partition).expect("partitions are limited far below 2^31");
    NextTopicPartitionsCursor::default().with_topic_name(topic_name(topic)).with_partition_index(partition)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Each topic of the request with the error; the cursor's where no topics are listed, since the error has no other place.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let listed: BTreeSet<&TopicName> = request.topics.iter().map(|topic| &topic.name).collect();
    let cursor = request.cursor.iter().map(|cursor| &cursor.topic_name).filter(|_| listed.is_empty());
    let topics = listed.iter().copied().chain(cursor).map(|name| error(name, ErrorCode::InvalidRequest));
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    match types::TopicName::new(name) {
        Ok(_) => error(name, ErrorCode::UnknownTopicOrPartition),
        Err(_) => error(name, ErrorCode::InvalidTopicException),
    }
}

fn error(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    let name = Some(topic_name(name));
    DescribeTopicPartitionsResponseTopic::default().with_name(name).with_error_code(code.code())
}

fn describe(
    image: &ClusterImage,
    topic: &Topic,
    partitions: &[Arc<Partition>],
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(topic.name.as_str())))
        .with_topic_id(Uuid::from_bytes(topic.id.bytes()))
        .with_partitions(partitions.iter().map(|partition| describe_partition(image, partition)).collect())
        .with_topic_authorized_operations(authorized_operations::TOPIC)
}

fn describe_partition(image: &ClusterImage, partition: &Partition) -> DescribeTopicPartitionsResponsePartition {
    let ids = |brokers: &[types::BrokerId]| brokers.iter().map(|broker| BrokerId(broker.value())).collect::<Vec<_>>();
    let is_known = |broker: &types::BrokerId| image.broker(*broker).is_some();
    let offline: Vec<_> = partition.replicas.iter().copied().filter(|broker| !is_known(broker)).collect();
    let leader = partition.leader.filter(is_known);
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(partition.index.value())
        .with_leader_id(BrokerId(leader.map_or(-1, types::BrokerId::value)))
        .with_leader_epoch(partition.leader_epoch.value())
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.isr))
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(ids(&offline))
}

#[cfg(test)]
mod tests;
