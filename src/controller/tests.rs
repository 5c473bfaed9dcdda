//! The controller as a whole: what handlers decide, replayed from bytes, is the same cluster everywhere. Also the vocabulary
//! of its parts' tests.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::prelude::*;

use super::*;
use crate::config::{BrokerConfig, Settings};
use crate::types::{BrokerId, Incarnation, PartitionId, TopicId, TopicPartition};

pub(super) const RULES: TopicRules = TopicRules {
    partitions_default: NonZeroU32::new(2).expect("not zero"),
    replication_factor_default: NonZeroU16::MIN,
    topic_partitions_max: 20,
    cluster_partitions_max: 30,
};

pub(super) fn broker(id: i32) -> BrokerId {
    BrokerId::new(id).expect("not negative")
}

/// Replays what was decided, through its bytes, and returns the answer.
pub(super) fn commit<R>(controller: &mut Controller, decision: Decision<R>) -> R {
    for record in &decision.records {
        let decoded = MetadataRecord::decode(&record.encode()).expect("what is encoded can be decoded");
        assert_eq!(decoded, *record);
        controller.replay(controller.image().version(), &decoded).expect("decided by this image");
    }
    decision.response
}

/// A controller of `brokers` registered brokers, from 1.
pub(super) fn controller_of(brokers: i32) -> Controller {
    let mut controller = Controller::new();
    for id in 1..=brokers {
        let request = RegisterBroker {
            broker: broker(id),
            incarnation: Incarnation::from_random(0),
            listeners: vec![],
            clean_shutdown: None,
        };
        let decision = controller.register_broker(&request);
        let _ = commit(&mut controller, decision);
    }
    controller
}

/// A topic as a client asks for it that leaves all to the broker. Its id is made of the name.
pub(super) fn topic(name: &str) -> CreateTopic {
    let id = name.bytes().fold(1, |id: u128, byte| id.wrapping_mul(0x0100_0000_01b3_0193).wrapping_add(byte.into()));
    CreateTopic {
        name: name.into(),
        id: TopicId::from_random(id),
        partitions: None,
        replication_factor: None,
        assignments: vec![],
        configs: vec![],
    }
}

pub(super) fn create(controller: &mut Controller, name: &str, partitions: i32) -> TopicId {
    let wanted = CreateTopic { partitions: Some(partitions), ..topic(name) };
    let request = CreateTopics { topics: vec![wanted], validate_only: false };
    let decision = controller.create_topics(&request, &RULES, &|_, _| Ok(()));
    let mut response = commit(controller, decision);
    response.pop().expect("one answer").1.expect("created").id
}

pub(super) fn partition_at(controller: &Controller, topic: TopicId, index: i32) -> Partition {
    let partition = PartitionId::new(index).expect("not negative");
    let found = controller.image().partition(TopicPartition { topic, partition }).expect("exists");
    Partition::clone(found)
}

/// What a cluster is asked over its life.
#[derive(Clone, Debug)]
enum Command {
    Start { broker: i32, incarnation: u8, clean: bool },
    Create { names: Vec<u8>, partitions: i32, replication_factor: i16, id: u32 },
    Grow { names: Vec<u8>, partitions: i32 },
    Delete { names: Vec<u8> },
    FilesRemoved { broker: i32 },
    ProducerIds { broker: i32 },
    AlterConfigs { topic: Option<u8>, key: usize, value: Option<i64> },
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => (1..4, any::<u8>(), any::<bool>())
            .prop_map(|(broker, incarnation, clean)| Command::Start { broker, incarnation, clean }),
        4 => (prop::collection::vec(0u8..8, 1..4), -1..9, -1i16..4, any::<u32>()).prop_map(
            |(names, partitions, replication_factor, id)| Command::Create { names, partitions, replication_factor, id }
        ),
        2 => (prop::collection::vec(0u8..8, 1..4), -1..12)
            .prop_map(|(names, partitions)| Command::Grow { names, partitions }),
        2 => prop::collection::vec(0u8..8, 1..3).prop_map(|names| Command::Delete { names }),
        2 => (1..4).prop_map(|broker| Command::FilesRemoved { broker }),
        1 => (1..4).prop_map(|broker| Command::ProducerIds { broker }),
        2 => (prop::option::of(0u8..8), 0usize..2, prop::option::of(-2i64..9)).prop_map(
            |(topic, key, value)| Command::AlterConfigs { topic, key, value }
        ),
    ]
}

/// Some names collide with each other, one is illegal.
fn name(number: u8) -> String {
    ["a", "b", "c.d", "c_d", "c-d", "e.f_g", "e_f.g", "h/"][usize::from(number)].into()
}

fn decide(controller: &Controller, command: &Command) -> Vec<MetadataRecord> {
    let image = controller.image();
    match command {
        Command::Start { broker: id, incarnation, clean } => {
            let clean_shutdown = image.broker(broker(*id)).filter(|_| *clean).map(|current| current.epoch);
            let incarnation = Incarnation::from_random((*incarnation).into());
            let request = RegisterBroker { broker: broker(*id), incarnation, listeners: vec![], clean_shutdown };
            controller.register_broker(&request).records
        }
        Command::Create { names, partitions, replication_factor, id } => {
            let wanted = |(index, number): (usize, &u8)| CreateTopic {
                id: TopicId::from_random(u128::from(*id) << 32 | index as u128),
                partitions: Some(*partitions).filter(|partitions| *partitions != -1),
                replication_factor: Some(*replication_factor).filter(|factor| *factor != -1),
                configs: vec![("retention.ms".into(), Some(id.to_string()))],
                ..topic(&name(*number))
            };
            let topics = names.iter().enumerate().map(wanted).collect();
            let request = CreateTopics { topics, validate_only: false };
            controller.create_topics(&request, &RULES, &|_, _| Ok(())).records
        }
        Command::Grow { names, partitions } => {
            let grow = |number: &u8| GrowTopic { name: name(*number), partitions: *partitions, assignments: None };
            let request = CreatePartitions { topics: names.iter().map(grow).collect(), validate_only: false };
            controller.create_partitions(&request, &RULES).records
        }
        Command::Delete { names } => {
            let by_name = |number: &u8| DeleteTopic { name: Some(name(*number)), id: None };
            controller.delete_topics(&names.iter().map(by_name).collect::<Vec<_>>()).records
        }
        Command::FilesRemoved { broker: id } => {
            let deleted = image.deleted_topics().map(|deleted| deleted.id).next();
            deleted.map(|deleted| controller.files_removed(deleted, broker(*id)).records).unwrap_or_default()
        }
        Command::ProducerIds { broker: id } => {
            controller.allocate_producer_ids(broker(*id)).map(|decision| decision.records).unwrap_or_default()
        }
        Command::AlterConfigs { topic, key, value } => {
            let resource =
                topic.map_or(NamedResource::Broker(String::new()), |topic| NamedResource::Topic(name(topic)));
            let keys = if topic.is_some() { ["retention.ms", "flush.ms"] } else { ["log.retention.ms", "flush.bytes"] };
            let operation = Ok(if value.is_some() { ConfigOperation::Set } else { ConfigOperation::Delete });
            let value = value.map(|value| value.to_string());
            let alteration = Alteration::Change(vec![KeyChange { key: keys[*key].into(), operation, value }]);
            let resources = vec![AlterResource { resource, alteration }];
            let started = BrokerConfig::new(Settings::new(), 1, 1 << 30).expect("the defaults are good");
            controller.alter_configs(&AlterConfigs { resources, validate_only: false }, &started).records
        }
    }
}

fn check_image(image: &ClusterImage) {
    let topics: Vec<_> = image.topics().collect();
    assert_eq!(topics.len(), image.topics_len());
    assert_eq!(topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(), image.partitions_len());
    assert!(image.partitions_len() <= RULES.cluster_partitions_max);
    for topic in topics {
        assert_eq!(image.topic(topic.id), Some(topic));
        assert_eq!(image.topic_by_name(topic.name.as_str()), Some(topic));
    }
}

proptest! {
    #[test]
    fn what_is_decided_makes_the_same_cluster_wherever_it_is_replayed(
        commands in prop::collection::vec(command(), 0..60),
    ) {
        let mut controller = Controller::new();
        let mut replica = ClusterImage::new();
        for command in &commands {
            let before = controller.image().clone();
            let records = decide(&controller, command);
            prop_assert_eq!(&before, controller.image(), "a handler changes nothing");
            for record in records {
                let offset = controller.image().version();
                prop_assert_eq!(controller.replay(offset, &record), Ok(()));
                let read = MetadataRecord::decode(&record.encode()).expect("encoded by this version");
                prop_assert_eq!(replica.apply(offset, &read), Ok(()));
            }
            prop_assert_eq!(&**controller.image(), &replica);
            check_image(&replica);
        }
        let snapshot: Vec<_> = replica.snapshot().collect();
        let rebuilt = ClusterImage::from_snapshot(replica.version(), &snapshot).expect("a snapshot fits an empty image");
        prop_assert_eq!(&rebuilt, &replica);
        prop_assert!(rebuilt.snapshot().eq(snapshot));
    }
}
