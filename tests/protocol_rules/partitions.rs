//! Topics that grow while clients use them.
//!
//! The broker is the only one of its cluster, so that replica assignments can name it or nobody. What the placement of several
//! brokers does is tested in `controller`.

use corelane::types::ErrorCode;
use corelane::wire::messages::{
    BrokerId, CreatableTopic, CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
    CreateTopicsRequest, MetadataRequest, MetadataRequestTopic,
};

use super::Shared;
use super::clients::eventually;
use super::clients::wire::{
    Client, FETCH_BY_NAME, batch, batches, code, fetch_request, partitions as fetched, topic_name,
};
use super::support::{BrokerOptions, Scratch};

const LATEST: i16 = 3;

fn grow(name: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(None)
}

fn assigned(name: &str, count: i32, brokers: &[&[i32]]) -> CreatePartitionsTopic {
    let assignments = brokers.iter().map(|brokers| {
        let ids = brokers.iter().copied().map(BrokerId);
        CreatePartitionsAssignment::default().with_broker_ids(ids.collect())
    });
    grow(name, count).with_assignments(Some(assignments.collect()))
}

fn request(topics: Vec<CreatePartitionsTopic>) -> CreatePartitionsRequest {
    CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(10_000)
}

/// Name and error code of every result.
fn create(client: &mut Client, version: i16, request: &CreatePartitionsRequest) -> Vec<(String, ErrorCode)> {
    let results = client.call(version, request).results;
    for result in &results {
        let fine = code(result.error_code) == ErrorCode::None;
        assert_eq!(result.error_message.is_none(), fine, "an error says why: {result:?}");
    }
    results.iter().map(|result| (result.name.to_string(), code(result.error_code))).collect()
}

fn created(client: &mut Client, topic: CreatePartitionsTopic) -> ErrorCode {
    let results = create(client, LATEST, &request(vec![topic]));
    assert_eq!(results.len(), 1);
    results[0].1
}

/// The indexes of the topic's partitions that have a leader.
fn led(client: &mut Client, name: &str) -> Vec<i32> {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
    let partitions = client.call(13, &request).topics.remove(0).partitions;
    partitions
        .iter()
        .filter(|partition| partition.leader_id.0 >= 0)
        .map(|partition| partition.partition_index)
        .collect()
}

#[test]
fn rule_26_create_partitions_lists_a_result_for_every_topic() {
    let shared = Shared::broker();
    let mut client = shared.client();
    for (version, name) in ["rule-26-0", "rule-26-1", "rule-26-2", "rule-26-3"].into_iter().enumerate() {
        client.create_topic(name, 2, &[]);
        let [same, less, twice, good] = ["same", "less", "twice", "good"].map(|what| format!("{name}-{what}"));
        for topic in [&same, &less, &twice, &good] {
            client.create_topic(topic, 2, &[]);
        }
        let unknown = format!("{name}-unknown");
        let topics = vec![
            grow(name, 3),
            grow(&same, 2),
            grow(&twice, 3),
            grow(&less, 1),
            grow(&unknown, 3),
            grow(&twice, 4),
            grow("with space", 3),
            grow(&good, 5),
        ];
        let results = create(&mut client, version as i16, &request(topics));
        let expected = [
            (name.to_owned(), ErrorCode::None),
            (same.clone(), ErrorCode::InvalidPartitions),
            (twice.clone(), ErrorCode::InvalidRequest),
            (less.clone(), ErrorCode::InvalidPartitions),
            (unknown, ErrorCode::UnknownTopicOrPartition),
            ("with space".to_owned(), ErrorCode::UnknownTopicOrPartition),
            (good.clone(), ErrorCode::None),
        ];
        assert_eq!(results, expected, "version {version}");
        assert_eq!(led(&mut client, name), [0, 1, 2]);
        assert_eq!(led(&mut client, &good), [0, 1, 2, 3, 4]);
        for topic in [&same, &less, &twice] {
            assert_eq!(led(&mut client, topic), [0, 1], "{topic}");
        }
    }
    assert_eq!(create(&mut client, LATEST, &request(Vec::new())), []);
}

/// A client that does not wait is told so of what is made for it, and hears at once of what cannot be made.
#[test]
fn rule_26_who_does_not_wait_for_partitions_is_told_that_they_are_still_being_made() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let name = "rule-26-impatient";
    let topic =
        |name| CreatableTopic::default().with_name(topic_name(name)).with_num_partitions(2).with_replication_factor(1);
    for (timeout_ms, name) in [(0, name), (-1, "rule-26-impatient-too")] {
        let topics = vec![topic(name), topic("with space")];
        let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(timeout_ms);
        let results = client.call(7, &request).topics;
        let codes: Vec<ErrorCode> = results.iter().map(|result| code(result.error_code)).collect();
        assert_eq!(codes, [ErrorCode::RequestTimedOut, ErrorCode::InvalidTopicException]);
        eventually("the partitions that nobody waited for", || appendable(&mut client, name, 1));
    }
    let request = request(vec![grow(name, 4), grow("rule-26-nowhere", 3)]).with_timeout_ms(0);
    let codes = [ErrorCode::RequestTimedOut, ErrorCode::UnknownTopicOrPartition];
    let results = create(&mut client, LATEST, &request);
    assert_eq!(results.iter().map(|(_, code)| *code).collect::<Vec<_>>(), codes, "{results:?}");
    eventually("the added partitions that nobody waited for", || appendable(&mut client, name, 3));

    let validated = CreateTopicsRequest::default().with_topics(vec![topic("rule-26-unmade")]).with_validate_only(true);
    let result = client.call(7, &validated.with_timeout_ms(0)).topics.remove(0);
    assert_eq!(code(result.error_code), ErrorCode::None, "there is nothing to wait for");
}

/// Whether a partition takes a record.
fn appendable(client: &mut Client, name: &str, partition: i32) -> Option<()> {
    let answer = client.produce(name, partition, &batch(&[b"here"]));
    (code(answer.error_code) == ErrorCode::None).then_some(())
}

#[test]
fn rule_26_counts_that_do_not_grow_or_grow_without_bound_are_refused() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-26-count", 3, &[]);
    for count in [i32::MIN, -1, 0, 1, 3] {
        assert_eq!(created(&mut client, grow("rule-26-count", count)), ErrorCode::InvalidPartitions, "{count}");
    }
    for count in [100_001, i32::MAX] {
        assert_eq!(created(&mut client, grow("rule-26-count", count)), ErrorCode::PolicyViolation, "{count}");
    }
    assert_eq!(led(&mut client, "rule-26-count"), [0, 1, 2]);
}

#[test]
fn rule_26_new_partitions_go_where_the_client_assigns_them() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-26-assigned", 1, &[]);
    let node = shared.0.ready().node.value();
    let nobody = node + 76;
    let wrong: [(i32, &[&[i32]]); 7] = [
        (3, &[&[node]]),
        (2, &[]),
        (2, &[&[node], &[node]]),
        (2, &[&[nobody]]),
        (2, &[&[-1]]),
        (2, &[&[]]),
        (2, &[&[node, node]]),
    ];
    for (count, brokers) in wrong {
        let refused = created(&mut client, assigned("rule-26-assigned", count, brokers));
        assert_eq!(refused, ErrorCode::InvalidReplicaAssignment, "{count} {brokers:?}");
    }
    assert_eq!(led(&mut client, "rule-26-assigned"), [0]);
    assert_eq!(created(&mut client, assigned("rule-26-assigned", 3, &[&[node], &[node]])), ErrorCode::None);
    assert_eq!(led(&mut client, "rule-26-assigned"), [0, 1, 2]);
}

#[test]
fn rule_26_validation_only_answers_alike_and_adds_nothing() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-26-validated", 1, &[]);
    let mut wanted = request(vec![grow("rule-26-validated", 4), grow("rule-26-nowhere", 4)]).with_validate_only(true);
    let tried = create(&mut client, LATEST, &wanted);
    assert_eq!(led(&mut client, "rule-26-validated"), [0]);
    assert_eq!(
        code(client.produce("rule-26-validated", 1, &batch(&[b"value"])).error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    wanted.validate_only = false;
    assert_eq!(create(&mut client, LATEST, &wanted), tried);
    assert_eq!(tried[1].1, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(led(&mut client, "rule-26-validated"), [0, 1, 2, 3]);
}

#[test]
fn new_partitions_can_be_used_when_the_answer_is_there_and_whoever_fetches_is_not_disturbed() {
    let shared = Shared::broker();
    let (mut consumer, mut client) = (shared.client(), shared.client());
    client.create_topic("grown", 1, &[]);
    assert_eq!(client.append("grown", 0, &batch(&[b"before"])), 0);
    let waiting = fetch_request(&[("grown", 0, 1, 1 << 20)]).with_max_wait_ms(60_000).with_min_bytes(1);
    let sent = consumer.send(FETCH_BY_NAME, &waiting);
    for count in [2, 3, 7] {
        assert_eq!(created(&mut client, grow("grown", count)), ErrorCode::None);
        for partition in led(&mut client, "grown").into_iter().rev().take_while(|partition| *partition > 0) {
            assert!(client.append("grown", partition, &batch(&[b"new"])) >= 0);
            assert!(!batches(&client.fetch("grown", partition, 0)).is_empty());
        }
    }
    assert_eq!(client.append("grown", 0, &batch(&[b"after"])), 1, "the old partition goes on");
    let data = fetched(consumer.receive(sent)).remove(0);
    assert_eq!(code(data.error_code), ErrorCode::None);
    let offsets: Vec<_> = batches(&data).iter().map(|batch| batch.base_offset().value()).collect();
    assert_eq!(offsets, [1], "the fetch was parked all the time");
}

#[test]
fn two_clients_that_grow_one_topic_at_once_do_not_meet() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("grown-by-two", 1, &[]);
    let mut others = [shared.client(), shared.client()];
    for round in 0..10 {
        let counts = [2 + round * 2, 3 + round * 2];
        let sent = [0, 1].map(|other| others[other].send(LATEST, &request(vec![grow("grown-by-two", counts[other])])));
        let mut granted = 0;
        for (other, sent) in others.iter_mut().zip(sent) {
            match code(other.receive(sent).results[0].error_code) {
                ErrorCode::None => granted += 1,
                // The larger one came first.
                refused => assert_eq!(refused, ErrorCode::InvalidPartitions),
            }
        }
        assert!(granted >= 1);
        let all = led(&mut client, "grown-by-two");
        assert_eq!(all.len() as i32, counts[1]);
        all.into_iter()
            .for_each(|partition| assert!(client.append("grown-by-two", partition, &batch(&[b"value"])) >= 0));
    }
}

#[test]
fn partitions_that_were_added_are_there_after_a_kill() {
    let scratch = Scratch::new("grown-partitions");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let broker = options.start().expect("it starts");
    let mut client = Client::connect(broker.address());
    client.create_topic("grown", 1, &[]);
    assert_eq!(created(&mut client, grow("grown", 4)), ErrorCode::None);
    for partition in 0..4 {
        assert_eq!(client.append("grown", partition, &batch(&[b"value"])), 0);
    }
    broker.kill();
    let broker = options.start().expect("it starts again");
    assert_eq!(broker.ready().partitions, 4);
    let mut client = Client::connect(broker.address());
    assert_eq!(led(&mut client, "grown"), [0, 1, 2, 3]);
    for partition in 0..4 {
        assert_eq!(client.append("grown", partition, &batch(&[b"value"])), 1);
    }
    assert_eq!(created(&mut client, grow("grown", 5)), ErrorCode::None);
    assert_eq!(client.append("grown", 4, &batch(&[b"value"])), 0);
}
