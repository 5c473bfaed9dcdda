//! Topics by name and by id, those that nobody has made, and those that are made on demand.
//!
//! The configuration is the default one: unknown topics are created where the request allows it.

use corelane::types::ErrorCode;
use corelane::wire::messages::{
    CreatableTopic, CreateTopicsRequest, DeleteTopicState, DeleteTopicsRequest, MetadataRequest, MetadataRequestTopic,
    MetadataResponse, MetadataResponseTopic, Uuid,
};

use super::Shared;
use super::clients::wire::{Client, code, topic_name};

fn named(names: &[&str], may_create: bool) -> MetadataRequest {
    let topics = names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
    MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(may_create)
}

fn by_id(id: Uuid) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_topic_id(id).with_name(None);
    MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true)
}

fn only(mut answer: MetadataResponse) -> (ErrorCode, MetadataResponseTopic) {
    assert_eq!(answer.topics.len(), 1);
    let topic = answer.topics.remove(0);
    (code(topic.error_code), topic)
}

fn holds(answer: &MetadataResponse, name: &str) -> bool {
    answer.topics.iter().any(|topic| topic.name.as_ref() == Some(&topic_name(name)))
}

#[test]
fn rule_08_a_topic_is_found_by_name_and_by_id_and_never_by_both() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let id = client.create_topic("rule-08", 3, &[]);
    assert!(!id.is_nil());
    let (error, found) = only(client.call(13, &named(&["rule-08"], false)));
    assert_eq!((error, found.topic_id, found.partitions.len()), (ErrorCode::None, id, 3));
    let (error, found) = only(client.call(13, &by_id(id)));
    assert_eq!((error, found.name, found.partitions.len()), (ErrorCode::None, Some(topic_name("rule-08")), 3));
    let mut both = by_id(id);
    both.topics.iter_mut().flatten().for_each(|topic| topic.name = Some(topic_name("rule-08")));
    assert_eq!(only(client.call(13, &both)).0, ErrorCode::InvalidRequest);
}

#[test]
fn rule_08_unknown_ids_unknown_names_and_illegal_names_are_told_apart() {
    let shared = Shared::broker();
    let mut client = shared.client();
    assert_eq!(only(client.call(13, &by_id(Uuid::from_bytes([7; 16])))).0, ErrorCode::UnknownTopicId);
    let (error, topic) = only(client.call(13, &named(&["rule-08-unknown"], false)));
    assert_eq!((error, topic.partitions.len()), (ErrorCode::UnknownTopicOrPartition, 0));
    let long = "a".repeat(250);
    for illegal in ["", ".", "..", "with space", "slash/", "ünicode", &long] {
        let (error, _) = only(client.call(13, &named(&[illegal], true)));
        assert_eq!(error, ErrorCode::InvalidTopicException, "{illegal:?}");
    }
    let answer = client.call(13, &named(&["rule-08-unknown", "..", "rule-08-unknown-too"], false));
    let errors: Vec<_> = answer.topics.iter().map(|topic| code(topic.error_code)).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(errors, [unknown, ErrorCode::InvalidTopicException, unknown], "one does not spoil the others");
}

#[test]
fn rule_08_null_topics_are_all_and_an_empty_list_is_none() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-08-all", 1, &[]);
    let (all, none) =
        (MetadataRequest::default().with_topics(None), MetadataRequest::default().with_topics(Some(Vec::new())));
    for version in 1..=13 {
        assert!(holds(&client.call(version, &all), "rule-08-all"), "version {version}");
        let answer = client.call(version, &none);
        assert_eq!((answer.topics.len(), answer.brokers.len()), (0, 1), "version {version}");
    }
    assert!(holds(&client.call(0, &none), "rule-08-all"), "in version 0 an empty list is all");
}

#[test]
fn rule_08_a_topic_is_created_only_when_the_request_allows_it_and_never_for_all() {
    let shared = Shared::broker();
    let mut client = shared.client();
    assert_eq!(only(client.call(13, &named(&["rule-08-auto"], false))).0, ErrorCode::UnknownTopicOrPartition);
    let all = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(true);
    assert!(!holds(&client.call(13, &all), "rule-08-auto"));
    let (first, _) = only(client.call(13, &named(&["rule-08-auto"], true)));
    let retriable = [ErrorCode::None, ErrorCode::LeaderNotAvailable, ErrorCode::UnknownTopicOrPartition];
    assert!(retriable.contains(&first), "{first}");
    let created = super::clients::eventually("the topic is created", || {
        let (error, topic) = only(client.call(13, &named(&["rule-08-auto"], true)));
        (error == ErrorCode::None).then_some(topic)
    });
    assert_eq!(created.partitions.len(), 1, "num.partitions");
    // Versions before 4 cannot say so and always allow it.
    super::clients::eventually("version 3 creates", || {
        let (error, _) = only(client.call(3, &named(&["rule-08-old"], true)));
        (error == ErrorCode::None).then_some(())
    });
}

#[test]
fn rule_08_the_controller_is_a_live_broker_and_the_cluster_keeps_its_id() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let cluster = shared.0.ready().cluster.to_string();
    for version in 2..=13 {
        // Versions before 4 cannot say that nothing is to be created.
        let answer = client.call(version, &named(&[], version < 4));
        assert!(answer.brokers.iter().any(|broker| broker.node_id == answer.controller_id), "version {version}");
        assert_eq!(answer.cluster_id.as_deref(), Some(cluster.as_str()), "version {version}");
        let told = &answer.brokers[0];
        assert_eq!((&*told.host, told.port), ("127.0.0.1", i32::from(shared.address().port())));
    }
}

fn create(client: &mut Client, topic: CreatableTopic) -> ErrorCode {
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    code(client.call(7, &request).topics.remove(0).error_code)
}

#[test]
fn rule_26_creating_with_minus_1_takes_the_brokers_defaults() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let topic = |name, partitions, replicas| {
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
    };
    assert_eq!(create(&mut client, topic("rule-26", -1, -1)), ErrorCode::None);
    let (error, found) = only(client.call(13, &named(&["rule-26"], false)));
    assert_eq!((error, found.partitions.len()), (ErrorCode::None, 1));
    assert_eq!(found.partitions[0].replica_nodes.len(), 1);
    assert_eq!(create(&mut client, topic("rule-26", -1, -1)), ErrorCode::TopicAlreadyExists);
    assert_eq!(create(&mut client, topic("rule-26-none", 0, 1)), ErrorCode::InvalidPartitions);
    assert_eq!(create(&mut client, topic("rule-26-many", 1, 3)), ErrorCode::InvalidReplicationFactor);
    assert_eq!(create(&mut client, topic("rule/26", 1, 1)), ErrorCode::InvalidTopicException);
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free_with_a_new_id() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let first = client.create_topic("deleted", 2, &[]);
    let state = DeleteTopicState::default().with_name(Some(topic_name("deleted")));
    let request = DeleteTopicsRequest::default().with_topics(vec![state]).with_timeout_ms(10_000);
    assert_eq!(code(client.call(6, &request).responses[0].error_code), ErrorCode::None);
    assert_eq!(only(client.call(13, &by_id(first))).0, ErrorCode::UnknownTopicId);
    assert_eq!(code(client.call(6, &request).responses[0].error_code), ErrorCode::UnknownTopicOrPartition);
    let second = client.create_topic("deleted", 1, &[]);
    assert_ne!(first, second);
    assert_eq!(client.append("deleted", 0, &super::clients::wire::batch(&[b"new"])), 0);
}
