//! What clients are told when they create and delete topics.

use super::*;
use crate::controller::tests::{RULES, broker, commit, controller_of, create, partition_at, topic};

fn request(topics: Vec<CreateTopic>) -> CreateTopics {
    CreateTopics { topics, validate_only: false }
}

/// Knows the key `retention.ms`, with numbers.
fn check(key: &str, value: &str) -> Result<(), String> {
    match (key, value.parse::<u64>()) {
        ("retention.ms", Ok(_)) => Ok(()),
        _ => Err(format!("not valid: {key}={value}")),
    }
}

fn refusal(controller: &Controller, wanted: CreateTopic) -> CreateTopicError {
    let mut decision = controller.create_topics(&request(vec![wanted]), &RULES, &check);
    assert_eq!(decision.records, []);
    decision.response.pop().expect("one answer").1.expect_err("refused")
}

fn by_name(name: &str) -> DeleteTopic {
    DeleteTopic { name: Some(name.into()), id: None }
}

fn by_id(id: TopicId) -> DeleteTopic {
    DeleteTopic { name: None, id: Some(id) }
}

#[test]
fn what_the_client_leaves_open_the_broker_decides() {
    let mut controller = controller_of(3);
    let decision = controller.create_topics(&request(vec![topic("t")]), &RULES, &check);
    let response = commit(&mut controller, decision);
    let created = response[0].1.as_ref().expect("created");
    assert_eq!((created.partitions, created.replication_factor), (2, 1));
    assert_eq!(controller.image().topic_by_name("t").expect("exists").id, created.id);
    let first = partition_at(&controller, created.id, 0);
    assert_eq!((first.leader, &first.isr), (Some(first.replicas[0]), &first.replicas));
    assert_eq!((first.leader_epoch, first.partition_epoch), (LeaderEpoch::ZERO, PartitionEpoch::ZERO));
}

#[test]
fn the_client_may_assign_brokers_itself() {
    let mut controller = controller_of(3);
    let assignments = vec![
        ManualAssignment { partition: 1, brokers: vec![2, 3] },
        ManualAssignment { partition: 0, brokers: vec![3, 1] },
    ];
    let wanted = CreateTopic { assignments, ..topic("t") };
    let decision = controller.create_topics(&request(vec![wanted.clone()]), &RULES, &check);
    let _ = commit(&mut controller, decision);
    assert_eq!(partition_at(&controller, wanted.id, 0).replicas, [broker(3), broker(1)]);
    assert_eq!(partition_at(&controller, wanted.id, 1).leader, Some(broker(2)));

    let other = CreateTopic { name: "u".into(), id: TopicId::from_random(9), ..wanted };
    let counted = CreateTopic { partitions: Some(2), ..other.clone() };
    assert_eq!(refusal(&controller, counted), CreateTopicError::AssignedAndCounted);
    let factored = CreateTopic { replication_factor: Some(2), ..other.clone() };
    assert_eq!(refusal(&controller, factored), CreateTopicError::AssignedAndFactor);
    let unknown = vec![ManualAssignment { partition: 0, brokers: vec![4] }];
    let error = refusal(&controller, CreateTopic { assignments: unknown, ..other });
    assert_eq!(error, AssignmentError::UnknownBroker { partition: 0, broker: 4 }.into());
    assert_eq!(error.code(), ErrorCode::InvalidReplicaAssignment);
}

#[test]
fn validation_only_answers_alike_and_decides_nothing() {
    let controller = controller_of(1);
    let mut wanted = request(vec![topic("t"), topic("a b")]);
    let real = controller.create_topics(&wanted, &RULES, &check);
    wanted.validate_only = true;
    let tried = controller.create_topics(&wanted, &RULES, &check);
    assert_eq!(tried.response, real.response);
    assert_eq!((tried.records.len(), real.records.len()), (0, 1));
}

#[test]
fn refusals_have_kafkas_codes_and_say_why() {
    let mut controller = controller_of(1);
    let _ = create(&mut controller, "a.b", 1);
    let partitions = |partitions| CreateTopic { partitions: Some(partitions), ..topic("t") };
    let factor = |factor| CreateTopic { replication_factor: Some(factor), ..topic("t") };
    let config = |key: &str, value: Option<&str>| CreateTopic {
        configs: vec![(key.into(), value.map(str::to_owned))],
        ..topic("t")
    };
    let cases = [
        (topic(""), ErrorCode::InvalidTopicException, "not empty"),
        (topic("a b"), ErrorCode::InvalidTopicException, "' '"),
        (topic("a_b"), ErrorCode::InvalidTopicException, "'a_b' collides with topic 'a.b'"),
        (topic("a.b"), ErrorCode::TopicAlreadyExists, "'a.b' already exists"),
        (partitions(0), ErrorCode::InvalidPartitions, "not 0"),
        (partitions(-2), ErrorCode::InvalidPartitions, "not -2"),
        (partitions(21), ErrorCode::PolicyViolation, "21 partitions are more than the 20"),
        (factor(0), ErrorCode::InvalidReplicationFactor, "not 0"),
        (factor(-3), ErrorCode::InvalidReplicationFactor, "not -3"),
        (factor(2), ErrorCode::InvalidReplicationFactor, "factor 2 cannot be reached with 1"),
        (config("retention.ms", Some("x")), ErrorCode::InvalidConfig, "retention.ms=x"),
        (config("x", Some("1")), ErrorCode::InvalidConfig, "x=1"),
        (config("retention.ms", None), ErrorCode::InvalidConfig, "'retention.ms' has no value"),
    ];
    for (wanted, code, text) in cases {
        let error = refusal(&controller, wanted.clone());
        assert_eq!(error.code(), code, "{wanted:?}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn the_topics_of_one_request_are_checked_against_each_other() {
    let controller = controller_of(1);
    let wide = |name: &str| CreateTopic { partitions: Some(16), ..topic(name) };
    let wanted = request(vec![topic("x"), wide("a.b"), topic("x"), topic("a_b"), wide("c"), topic("d")]);
    let decision = controller.create_topics(&wanted, &RULES, &check);
    let codes: Vec<_> = decision
        .response
        .iter()
        .map(|(name, result)| (name.as_str(), result.as_ref().map_or_else(|e| e.code(), |_| ErrorCode::None)))
        .collect();
    let expected = [
        ("x", ErrorCode::InvalidRequest),
        ("a.b", ErrorCode::None),
        ("a_b", ErrorCode::InvalidTopicException),
        ("c", ErrorCode::PolicyViolation),
        ("d", ErrorCode::None),
    ];
    assert_eq!(codes, expected);
    assert_eq!(decision.records.len(), 2);

    let same_id = vec![topic("x"), CreateTopic { id: topic("x").id, ..topic("y") }];
    let decision = controller.create_topics(&request(same_id), &RULES, &check);
    assert_eq!(decision.response[1].1, Err(CreateTopicError::IdTaken { id: topic("x").id }));
}

#[test]
fn of_a_repeated_key_the_last_value_counts() {
    let controller = controller_of(1);
    let configs = ["1", "2"].map(|value| ("retention.ms".to_owned(), Some(value.to_owned()))).to_vec();
    let wanted = request(vec![CreateTopic { configs, ..topic("t") }]);
    let decision = controller.create_topics(&wanted, &RULES, &check);
    let created = decision.response[0].1.as_ref().expect("created");
    assert_eq!(created.configs, ConfigOverrides::from([("retention.ms".to_owned(), "2".to_owned())]));
}

#[test]
fn deleted_topics_are_gone_at_once_and_their_files_when_every_broker_says_so() {
    let mut controller = controller_of(2);
    let wanted = CreateTopic { replication_factor: Some(2), ..topic("t") };
    let decision = controller.create_topics(&request(vec![wanted.clone()]), &RULES, &check);
    let _ = commit(&mut controller, decision);
    let other = create(&mut controller, "u", 1);

    let decision = controller.delete_topics(&[by_name("t"), by_id(other)]);
    let response = commit(&mut controller, decision);
    let names: Vec<_> = response.iter().map(|answer| answer.result.clone().expect("deleted").1).collect();
    assert_eq!(names.iter().map(TopicName::as_str).collect::<Vec<_>>(), ["t", "u"]);
    assert_eq!((controller.image().topics_len(), controller.image().partitions_len()), (0, 0));
    assert_eq!(refusal(&controller, wanted.clone()), CreateTopicError::IdTaken { id: wanted.id });

    for (id, left) in [(1, 1), (1, 1), (2, 0), (2, 0)] {
        let decision = controller.files_removed(wanted.id, broker(id));
        commit(&mut controller, decision);
        assert_eq!(controller.image().deleted_topic(wanted.id).map_or(0, |topic| topic.brokers.len()), left);
    }
}

#[test]
fn deletions_that_name_nothing_or_one_topic_twice_are_refused() {
    let mut controller = controller_of(1);
    let (t, u) = (create(&mut controller, "t", 1), create(&mut controller, "u", 1));
    let nobody = TopicId::from_random(77);
    let both = DeleteTopic { name: Some("u".into()), id: Some(u) };
    let wanted = [
        by_name("t"),
        by_id(t),
        by_name("v"),
        by_id(nobody),
        both.clone(),
        DeleteTopic { name: None, id: None },
        by_name("u"),
        by_name("u"),
    ];
    let decision = controller.delete_topics(&wanted);
    let errors: Vec<_> = decision.response.iter().map(|answer| answer.result.clone().expect_err("refused")).collect();
    let expected = [
        DeleteTopicError::Repeated,
        DeleteTopicError::Repeated,
        DeleteTopicError::UnknownName,
        DeleteTopicError::UnknownId,
        DeleteTopicError::NameAndId,
        DeleteTopicError::Unnamed,
        DeleteTopicError::Repeated,
    ];
    assert_eq!(errors, expected);
    assert_eq!(decision.records, []);
    let codes = expected.map(|error| error.code());
    let (invalid, unknown) = (ErrorCode::InvalidRequest, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(codes, [invalid, invalid, unknown, ErrorCode::UnknownTopicId, invalid, invalid, invalid]);
}
