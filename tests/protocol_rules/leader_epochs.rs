//! Where leader epochs end: what a consumer is told that checks whether the records which it has read are still there.
//!
//! A broker that starts after a kill leads in a new epoch; tests that need several epochs have a broker of their own.

use corelane::types::ErrorCode;
use corelane::wire::messages::{
    BrokerId, DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic, EpochEndOffset,
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use super::Shared;
use super::clients::wire::{Client, batch, batches, code, topic_name};
use super::support::{BrokerOptions, Scratch};

/// No epoch: of the request that it does not know one, of the answer that there is none.
const NONE: i32 = -1;

fn wanted(partition: i32, current: i32, asked: i32) -> OffsetForLeaderPartition {
    OffsetForLeaderPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(current)
        .with_leader_epoch(asked)
}

fn ask(client: &mut Client, version: i16, topic: &str, wanted: OffsetForLeaderPartition) -> EpochEndOffset {
    let partition = wanted.partition;
    let topic = OffsetForLeaderTopic::default().with_topic(topic_name(topic)).with_partitions(vec![wanted]);
    let replica = BrokerId(if version >= 3 { -1 } else { -2 });
    let request = OffsetForLeaderEpochRequest::default().with_replica_id(replica).with_topics(vec![topic]);
    let end = client.call(version, &request).topics.remove(0).partitions.remove(0);
    assert_eq!(end.partition, partition);
    end
}

/// Error, epoch and end offset of an answer.
fn shown(end: &EpochEndOffset) -> (ErrorCode, i32, i64) {
    (code(end.error_code), end.leader_epoch, end.end_offset)
}

#[test]
fn rule_21_the_current_epoch_ends_at_the_high_watermark() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-21-end", 1, &[]);
    let epoch = client.list_offset(11, "rule-21-end", 0, -1).leader_epoch;
    for version in 2..=4 {
        let before = client.list_offset(11, "rule-21-end", 0, -1).offset;
        let mut end = |current, asked| shown(&ask(&mut client, version, "rule-21-end", wanted(0, current, asked)));
        assert_eq!(end(NONE, epoch), (ErrorCode::None, epoch, before), "version {version}");
        assert_eq!(client.append("rule-21-end", 0, &batch(&[b"one", b"two"])), before);
        let mut end = |current, asked| shown(&ask(&mut client, version, "rule-21-end", wanted(0, current, asked)));
        assert_eq!(end(epoch, epoch), (ErrorCode::None, epoch, before + 2), "version {version}");
        // What nobody can know yet is undefined, and no error.
        assert_eq!(end(epoch, epoch + 1), (ErrorCode::None, NONE, -1), "version {version}");
        assert_eq!(end(epoch, NONE), (ErrorCode::None, NONE, -1), "version {version}");
        assert_eq!(end(epoch + 1, epoch), (ErrorCode::UnknownLeaderEpoch, NONE, -1), "version {version}");
    }
}

#[test]
fn rule_21_each_partition_has_its_own_error() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-21-errors", 1, &[]);
    let good = OffsetForLeaderTopic::default()
        .with_topic(topic_name("rule-21-errors"))
        .with_partitions([7, 0, -3].map(|partition| wanted(partition, NONE, 0)).to_vec());
    let unknown = OffsetForLeaderTopic::default()
        .with_topic(topic_name("rule-21-nowhere"))
        .with_partitions(vec![wanted(0, NONE, 0)]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![good, unknown]);
    let answer = client.call(4, &request);
    let shown: Vec<_> = answer
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|end| (topic.topic.to_string(), end.partition, shown(end))))
        .collect();
    let nowhere = (ErrorCode::UnknownTopicOrPartition, NONE, -1);
    let expected = [
        ("rule-21-errors".to_owned(), 7, nowhere),
        ("rule-21-errors".to_owned(), 0, (ErrorCode::None, 0, 0)),
        ("rule-21-errors".to_owned(), -3, nowhere),
        ("rule-21-nowhere".to_owned(), 0, nowhere),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn rule_21_epochs_are_true_and_monotonic_over_restarts() {
    let scratch = Scratch::new("leader-epochs");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let mut broker = options.start().expect("it starts");
    let mut client = Client::connect(broker.address());
    client.create_topic("t", 1, &[]);
    // The epoch of each leadership and the offset at which it began; the second one writes nothing.
    let mut leaderships: Vec<(i32, i64)> = Vec::new();
    for records in [2, 0, 3, 1] {
        let latest = client.list_offset(11, "t", 0, -1);
        assert!(leaderships.last().is_none_or(|(epoch, _)| *epoch < latest.leader_epoch), "{leaderships:?}");
        leaderships.push((latest.leader_epoch, latest.offset));
        for _ in 0..records {
            client.append("t", 0, &batch(&[b"value"]));
        }
        broker.kill();
        broker = options.start().expect("it starts again");
        client = Client::connect(broker.address());
    }
    let &[(first, 0), (silent, 2), (third, 2), (fourth, 5)] = &leaderships[..] else { panic!("{leaderships:?}") };
    let current = client.list_offset(11, "t", 0, -1).leader_epoch;
    assert!(current > fourth);
    let mut end = |claimed, asked| shown(&ask(&mut client, 4, "t", wanted(0, claimed, asked)));
    assert_eq!(end(current, first), (ErrorCode::None, first, 2));
    assert_eq!(end(current, silent), (ErrorCode::None, first, 2), "it wrote nothing: the largest below it");
    assert_eq!(end(current, third), (ErrorCode::None, third, 5));
    assert_eq!(end(current, fourth), (ErrorCode::None, fourth, 6));
    assert_eq!(end(current, current), (ErrorCode::None, current, 6), "it has written nothing yet");
    assert_eq!(end(current, current + 1), (ErrorCode::None, NONE, -1));
    for stale in [first, silent, third, fourth] {
        assert_eq!(end(stale, first), (ErrorCode::FencedLeaderEpoch, NONE, -1));
    }
    assert_eq!(end(current + 1, first), (ErrorCode::UnknownLeaderEpoch, NONE, -1));

    // The records say the same of themselves.
    let data = client.fetch("t", 0, 0);
    let stamped: Vec<i32> =
        batches(&data).iter().map(|batch| batch.header().leader_epoch().expect("stamped").value()).collect();
    assert_eq!(stamped, [first, first, third, third, third, fourth]);

    // An epoch whose records are deleted ends where the log begins.
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(3);
    let topic = DeleteRecordsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    assert_eq!(client.call(2, &request).topics[0].partitions[0].low_watermark, 3);
    let mut end = |asked| shown(&ask(&mut client, 4, "t", wanted(0, current, asked)));
    assert_eq!(end(first), (ErrorCode::None, first, 3));
    assert_eq!(end(third), (ErrorCode::None, third, 5));
}
