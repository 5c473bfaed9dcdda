//! Pages of an image: their order, where they end, and what their cursors may be.

use super::*;
use crate::controller::{BrokerRegistration, MetadataRecord};
use crate::types::{BrokerEpoch, Incarnation, LeaderEpoch, Offset, PartitionEpoch, PartitionId, TopicId};
use crate::wire::messages::{DescribeTopicPartitionsTopic, TopicPartitionsCursor};

/// Partitions of a page at most.
const MAX: i32 = 2000;

fn broker(id: i32) -> types::BrokerId {
    types::BrokerId::new(id).expect("not negative")
}

/// A topic whose partitions lie on brokers 1 and 2, led by 1.
fn topic(name: &str, partitions: i32) -> MetadataRecord {
    let id = name.bytes().fold(7, |id: u128, byte| id << 8 | u128::from(byte));
    let replicas = vec![broker(1), broker(2)];
    let partition = |index| Partition {
        index: PartitionId::new(index).expect("not negative"),
        replicas: replicas.clone(),
        isr: replicas.clone(),
        leader: Some(broker(1)),
        leader_epoch: LeaderEpoch::new(3).expect("not negative"),
        partition_epoch: PartitionEpoch::ZERO,
    };
    MetadataRecord::TopicCreated {
        topic: TopicId::from_random(id),
        name: types::TopicName::new(name).expect("legal"),
        partitions: (0..partitions).map(partition).collect(),
        configs: Vec::new(),
    }
}

fn registered(id: i32) -> MetadataRecord {
    MetadataRecord::BrokerRegistered(BrokerRegistration {
        broker: broker(id),
        incarnation: Incarnation::from_random(1),
        listeners: Vec::new(),
        epoch: BrokerEpoch::new(i64::from(id)).expect("not negative"),
    })
}

/// The cluster of brokers 1 and 2 with these topics.
fn image(topics: &[(&str, i32)]) -> ClusterImage {
    let topics = topics.iter().map(|&(name, partitions)| topic(name, partitions));
    let records: Vec<_> = [registered(1), registered(2)].into_iter().chain(topics).collect();
    ClusterImage::from_snapshot(Offset::ZERO, &records).expect("a cluster")
}

fn request(topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
    let topics = topics.iter().map(|name| DescribeTopicPartitionsTopic::default().with_name(topic_name(name)));
    let cursor = cursor.map(|(name, partition)| {
        TopicPartitionsCursor::default().with_topic_name(topic_name(name)).with_partition_index(partition)
    });
    DescribeTopicPartitionsRequest::default()
        .with_topics(topics.collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor)
}

/// Topic, error code and indexes of a page, and where the next one begins.
type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

fn shown(response: &DescribeTopicPartitionsResponse) -> Page {
    let topics = response.topics.iter().map(|topic| {
        let name = topic.name.as_ref().expect("every topic is named").to_string();
        (name, topic.error_code, topic.partitions.iter().map(|partition| partition.partition_index).collect())
    });
    let next = response.next_cursor.as_ref().map(|next| (next.topic_name.to_string(), next.partition_index));
    (topics.collect(), next)
}

fn ok(name: &str, indexes: std::ops::Range<i32>) -> (String, i16, Vec<i32>) {
    (name.to_owned(), 0, indexes.collect())
}

fn next(name: &str, partition: i32) -> Option<(String, i32)> {
    Some((name.to_owned(), partition))
}

#[test]
fn topics_are_sorted_by_name_although_the_image_is_not() {
    // In the image '.' and '_' are one character.
    let image = image(&[("a_b", 1), ("a.c", 1), ("a-a", 1), ("Z", 1)]);
    let (topics, rest) = shown(&answer(&image, MAX, &request(&[], 2000, None)));
    assert_eq!(topics, [ok("Z", 0..1), ok("a-a", 0..1), ok("a.c", 0..1), ok("a_b", 0..1)]);
    assert_eq!(rest, None);
    let (topics, _) = shown(&answer(&image, MAX, &request(&["a_b", "Z", "a_b", "a.c"], 2000, None)));
    assert_eq!(topics, [ok("Z", 0..1), ok("a.c", 0..1), ok("a_b", 0..1)], "each once");
}

#[test]
fn a_page_ends_where_its_partitions_are_used_up_and_the_next_one_goes_on_there() {
    let image = image(&[("a", 3), ("b", 2), ("c", 4)]);
    let page = |cursor| shown(&answer(&image, MAX, &request(&[], 4, cursor)));
    assert_eq!(page(None), (vec![ok("a", 0..3), ok("b", 0..1)], next("b", 1)));
    assert_eq!(page(Some(("b", 1))), (vec![ok("b", 1..2), ok("c", 0..3)], next("c", 3)));
    assert_eq!(page(Some(("c", 3))), (vec![ok("c", 3..4)], None));
    // At the end of a topic the next page begins with the topic behind it.
    let page = |limit| shown(&answer(&image, MAX, &request(&["c", "a"], limit, None)));
    assert_eq!(page(3), (vec![ok("a", 0..3)], next("c", 0)));
    assert_eq!(page(7), (vec![ok("a", 0..3), ok("c", 0..4)], None));
}

#[test]
fn pages_of_any_size_give_every_partition_once() {
    let topics = [("a", 5), ("a.b", 1), ("a_c", 7), ("b", 2), ("z", 1)];
    let image = image(&topics);
    for limit in 1..=17 {
        let mut seen: Vec<(String, i32)> = Vec::new();
        let mut cursor: Option<(String, i32)> = None;
        for _ in 0..=16 {
            let start = cursor.as_ref().map(|(name, partition)| (name.as_str(), *partition));
            let (topics, next) = shown(&answer(&image, MAX, &request(&[], limit, start)));
            let partitions = topics.iter().flat_map(|(name, _, indexes)| indexes.iter().map(|i| (name.clone(), *i)));
            let before = seen.len();
            seen.extend(partitions);
            assert!(seen.len() - before <= limit as usize, "a page of {} of {limit}", seen.len() - before);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        let all: Vec<(String, i32)> =
            topics.iter().flat_map(|&(name, count)| (0..count).map(move |index| (name.to_owned(), index))).collect();
        assert_eq!((seen, cursor), (all, None), "limit {limit}");
    }
}

#[test]
fn the_limit_is_at_least_1_and_at_most_that_of_the_broker() {
    let image = image(&[("a", 2100), ("b", 1)]);
    for (limit, count) in
        [(i32::MIN, 1), (-1, 1), (0, 1), (1, 1), (1999, 1999), (2000, 2000), (2001, 2000), (i32::MAX, 2000)]
    {
        let page = shown(&answer(&image, MAX, &request(&[], limit, None)));
        assert_eq!(page, (vec![ok("a", 0..count)], next("a", count)), "limit {limit}");
    }
}

#[test]
fn unknown_and_illegal_names_have_errors_of_their_own_and_take_no_room() {
    let image = image(&[("a", 1), ("c", 1)]);
    let (topics, rest) = shown(&answer(&image, MAX, &request(&["c", "b", "a", "x/y"], 2, None)));
    let (unknown, illegal) = (ErrorCode::UnknownTopicOrPartition.code(), ErrorCode::InvalidTopicException.code());
    let expected = [ok("a", 0..1), ("b".to_owned(), unknown, vec![]), ok("c", 0..1)];
    assert_eq!((&topics[..], rest), (&expected[..], next("x/y", 0)));
    let (topics, rest) = shown(&answer(&image, MAX, &request(&["c", "b", "a", "x/y"], 2, Some(("x/y", 0)))));
    assert_eq!((topics, rest), (vec![("x/y".to_owned(), illegal, vec![])], None));
}

#[test]
fn a_cursor_may_name_what_is_gone_but_not_what_was_never_asked_for() {
    let image = image(&[("a", 2), ("c", 2)]);
    // The topic was deleted since, or has fewer partitions than its namesake had.
    assert_eq!(shown(&answer(&image, MAX, &request(&[], 9, Some(("b", 7))))), (vec![ok("c", 0..2)], None));
    assert_eq!(shown(&answer(&image, MAX, &request(&["c"], 9, Some(("c", i32::MAX))))), (vec![ok("c", 0..0)], None));
    let invalid = ErrorCode::InvalidRequest.code();
    let refused = |topics: &[&str], cursor| shown(&answer(&image, MAX, &request(topics, 9, Some(cursor))));
    let error = |name: &str| (name.to_owned(), invalid, vec![]);
    assert_eq!(refused(&["c", "a"], ("b", 0)), (vec![error("a"), error("c")], None));
    assert_eq!(refused(&["c", "a"], ("a", -1)), (vec![error("a"), error("c")], None));
    assert_eq!(refused(&[], ("a", -1)), (vec![error("a")], None), "the only place for the error");
}

#[test]
fn brokers_that_are_not_registered_lead_nothing_and_are_offline() {
    let records = [registered(2), topic("t", 1)];
    let image = ClusterImage::from_snapshot(Offset::ZERO, &records).expect("a cluster");
    let response = answer(&image, MAX, &request(&["t"], 1, None));
    let partition = &response.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.leader_id, partition.leader_epoch), (0, BrokerId(-1), 3));
    assert_eq!(partition.replica_nodes, [BrokerId(1), BrokerId(2)]);
    assert_eq!(partition.offline_replicas, [BrokerId(1)]);
    assert_eq!((&partition.eligible_leader_replicas, &partition.last_known_elr), (&Some(vec![]), &Some(vec![])));
}
