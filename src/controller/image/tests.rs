//! Records that fit the image and records that do not.

use proptest::prelude::*;

use super::*;
use crate::controller::record;
use crate::types::Incarnation;

fn broker(id: i32) -> BrokerId {
    BrokerId::new(id).expect("not negative")
}

fn id(number: u8) -> TopicId {
    TopicId::from_bytes([number; 16])
}

fn name(name: &str) -> TopicName {
    TopicName::new(name).expect("legal")
}

fn partition(index: i32) -> Partition {
    Partition {
        index: PartitionId::new(index).expect("not negative"),
        replicas: vec![broker(1), broker(2)],
        isr: vec![broker(1), broker(2)],
        leader: Some(broker(1)),
        leader_epoch: LeaderEpoch::ZERO,
        partition_epoch: PartitionEpoch::ZERO,
    }
}

fn created(topic: u8, text: &str, partitions: Vec<Partition>) -> MetadataRecord {
    MetadataRecord::TopicCreated { topic: id(topic), name: name(text), partitions, configs: vec![] }
}

fn changed(isr: &[i32], leader: Option<i32>, leader_epoch: i32, partition_epoch: i32) -> MetadataRecord {
    MetadataRecord::PartitionChanged {
        topic: id(1),
        partition: PartitionId::new(1).expect("not negative"),
        isr: isr.iter().copied().map(broker).collect(),
        leader: leader.map(broker),
        leader_epoch: LeaderEpoch::new(leader_epoch).expect("not negative"),
        partition_epoch: PartitionEpoch::new(partition_epoch).expect("not negative"),
    }
}

fn deleted(topic: u8, text: &str, brokers: &[i32]) -> MetadataRecord {
    let brokers = brokers.iter().copied().map(broker).collect();
    MetadataRecord::TopicDeleted { topic: id(topic), name: name(text), brokers }
}

fn registered(epoch: i64) -> MetadataRecord {
    MetadataRecord::BrokerRegistered(BrokerRegistration {
        broker: broker(1),
        incarnation: Incarnation::from_bytes([0; 16]),
        listeners: vec![],
        epoch: BrokerEpoch::new(epoch).expect("not negative"),
    })
}

fn config(resource: ConfigResource, value: Option<&str>) -> MetadataRecord {
    MetadataRecord::ConfigChanged { resource, key: "k".into(), value: value.map(str::to_owned) }
}

fn producer_ids(next: i64) -> MetadataRecord {
    MetadataRecord::ProducerIdsReserved { next: ProducerId::new(next).expect("not negative"), broker: None }
}

fn apply(image: &mut ClusterImage, record: &MetadataRecord) -> Result<(), ReplayError> {
    image.apply(image.version(), record)
}

/// Broker 1 at epoch 5, topic `a.b` of two partitions, a tombstone on brokers 1 and 2, producer ids up to 1000.
fn image() -> ClusterImage {
    let mut image = ClusterImage::new();
    let records = [
        registered(5),
        created(1, "a.b", vec![partition(0), partition(1)]),
        created(2, "gone", vec![partition(0)]),
        deleted(2, "gone", &[1, 2]),
        producer_ids(1_000),
    ];
    for record in records {
        apply(&mut image, &record).expect("fits");
    }
    image
}

#[test]
fn records_that_do_not_fit_are_named_and_change_nothing() {
    let at = |topic, partition| TopicPartition { topic, partition: PartitionId::new(partition).expect("not negative") };
    let index = |expected, found| ReplayError::PartitionIndex { expected, found: at(id(1), found) };
    let epochs = |leader_epoch, partition_epoch| ReplayError::PartitionEpochs {
        partition: at(id(1), 1),
        partition_epoch: PartitionEpoch::new(partition_epoch).expect("not negative"),
        leader_epoch: LeaderEpoch::new(leader_epoch).expect("not negative"),
    };
    let taken = |text| ReplayError::NameTaken { name: name(text), existing: name("a.b") };
    let added = |topic, partitions| MetadataRecord::PartitionsAdded { topic: id(topic), partitions };
    let removed = |topic, on| MetadataRecord::TopicRemoved { topic: id(topic), broker: broker(on) };
    let unknown = ReplayError::UnknownTopic { topic: id(9) };
    let replicas = ReplayError::Replicas(at(id(1), 1));
    let epoch = |value| BrokerEpoch::new(value).expect("not negative");
    let twice = Partition { replicas: vec![broker(1), broker(1)], isr: vec![broker(1)], ..partition(0) };
    let cases = [
        (registered(5), ReplayError::BrokerEpoch { broker: broker(1), epoch: epoch(5), current: epoch(5) }),
        (created(3, "a.b", vec![partition(0)]), taken("a.b")),
        (created(3, "a_b", vec![partition(0)]), taken("a_b")),
        (created(1, "new", vec![partition(0)]), ReplayError::IdTaken { topic: id(1) }),
        (created(2, "new", vec![partition(0)]), ReplayError::IdTaken { topic: id(2) }),
        (created(3, "new", vec![]), ReplayError::NoPartitions { topic: id(3) }),
        (created(3, "new", vec![twice]), ReplayError::Replicas(at(id(3), 0))),
        (added(1, vec![partition(3)]), index(2, 3)),
        (added(1, vec![partition(2), partition(2)]), index(3, 2)),
        (added(9, vec![partition(0)]), unknown.clone()),
        (changed(&[1, 2], Some(1), 0, 0), epochs(0, 0)),
        (changed(&[2], Some(2), 0, 1), epochs(0, 1)),
        (changed(&[1, 2], None, 0, 1), epochs(0, 1)),
        (changed(&[2], Some(1), 1, 1), replicas.clone()),
        (changed(&[], None, 1, 1), replicas.clone()),
        (changed(&[1, 3], Some(1), 1, 1), replicas.clone()),
        (changed(&[1, 1], Some(1), 1, 1), replicas),
        (deleted(2, "gone", &[1]), ReplayError::DeletedTwice { topic: id(2) }),
        (removed(2, 3), ReplayError::NotDeleted { topic: id(2), broker: broker(3) }),
        (removed(1, 1), ReplayError::NotDeleted { topic: id(1), broker: broker(1) }),
        (config(ConfigResource::Topic(id(9)), Some("v")), unknown),
        (
            producer_ids(999),
            ReplayError::ProducerIds {
                next: ProducerId::new(999).expect("not negative"),
                current: ProducerId::new(1_000).expect("not negative"),
            },
        ),
    ];
    for (record, error) in cases {
        let mut image = image();
        assert_eq!(apply(&mut image, &record), Err(error), "{record:?}");
        assert_eq!(image, self::image(), "{record:?}");
    }
    let behind = ReplayError::OffsetBehind { offset: Offset::ZERO.plus(4), version: Offset::ZERO.plus(5) };
    assert_eq!(image().apply(Offset::ZERO.plus(4), &producer_ids(2_000)), Err(behind));
}

#[test]
fn offsets_may_skip() {
    let mut image = image();
    image.apply(Offset::ZERO.plus(100), &producer_ids(2_000)).expect("fits");
    assert_eq!(image.version(), Offset::ZERO.plus(101));
}

#[test]
fn leaders_come_and_go_with_their_epochs() {
    let mut image = image();
    for (isr, leader, leader_epoch, partition_epoch) in
        [(&[1, 2][..], None, 1, 1), (&[2], Some(2), 2, 2), (&[2, 1], Some(2), 2, 3), (&[2, 1], Some(2), 3, 4)]
    {
        let record = changed(isr, leader, leader_epoch, partition_epoch);
        apply(&mut image, &record).expect("fits");
        let partitions = &image.topic(id(1)).expect("exists").partitions;
        assert_eq!(partitions[1].leader, leader.map(broker));
        assert_eq!(partitions[1].leader_epoch.value(), leader_epoch);
        assert_eq!(*partitions[0], partition(0));
    }
}

#[test]
fn a_tombstone_lasts_until_its_last_broker_and_its_name_is_free_at_once() {
    let mut image = image();
    apply(&mut image, &created(3, "gone", vec![partition(0)])).expect("the name is free");
    let removed = |on| MetadataRecord::TopicRemoved { topic: id(2), broker: broker(on) };
    apply(&mut image, &removed(1)).expect("fits");
    let left = image.deleted_topic(id(2)).expect("broker 2 has files");
    assert_eq!((left.name.as_str(), left.brokers.len()), ("gone", 1));
    apply(&mut image, &removed(2)).expect("fits");
    assert_eq!(image.deleted_topics().len(), 0);
    assert_eq!(image.topic_by_name("gone").map(|topic| topic.id), Some(id(3)));
}

#[test]
fn names_are_found_exactly() {
    let image = image();
    assert!(image.topic_by_name("a.b").is_some());
    for absent in ["a_b", "a", "a.b.", "gone", "", "é"] {
        assert!(image.topic_by_name(absent).is_none(), "{absent}");
    }
}

#[test]
fn configs_are_set_and_reset() {
    let mut image = image();
    let before = image.clone();
    let resources = [ConfigResource::Topic(id(1)), ConfigResource::Broker(broker(1)), ConfigResource::AllBrokers];
    for resource in resources {
        apply(&mut image, &config(resource, Some("v"))).expect("fits");
    }
    let expected = ConfigOverrides::from([("k".to_owned(), "v".to_owned())]);
    assert_eq!(image.topic(id(1)).expect("exists").configs, expected);
    assert_eq!(image.broker_configs(Some(broker(1))).map(|configs| &**configs), Some(&expected));
    assert_eq!(image.broker_configs(None).map(|configs| &**configs), Some(&expected));
    let snapshot: Vec<_> = image.snapshot().collect();
    assert_eq!(ClusterImage::from_snapshot(image.version(), &snapshot), Ok(image.clone()));
    for resource in resources {
        apply(&mut image, &config(resource, None)).expect("fits");
    }
    assert_eq!(image.snapshot().collect::<Vec<_>>(), before.snapshot().collect::<Vec<_>>());
}

#[test]
fn the_topics_that_changed_since_an_image_are_told() {
    let before = image();
    let mut after = before.clone();
    let changed = |after: &ClusterImage| after.topics_changed_since(&before).map(|topic| topic.id).collect::<Vec<_>>();
    assert_eq!(changed(&after), []);
    apply(&mut after, &created(7, "seven", vec![partition(0)])).expect("fits");
    assert_eq!(changed(&after), [id(7)]);
    apply(&mut after, &config(ConfigResource::Topic(id(1)), Some("1"))).expect("fits");
    assert_eq!(changed(&after), [id(1), id(7)]);
    apply(&mut after, &deleted(1, "one", &[1])).expect("fits");
    assert_eq!(changed(&after), [id(7)]);
}

#[test]
fn a_change_shares_every_other_topic_with_the_image_before() {
    let mut image = image();
    apply(&mut image, &created(3, "other", vec![partition(0)])).expect("fits");
    let before = image.clone();
    apply(&mut image, &changed(&[1], Some(1), 1, 1)).expect("fits");
    let topic = |image: &ClusterImage, number| image.topic(id(number)).expect("exists").clone();
    assert!(Arc::ptr_eq(&topic(&image, 3), &topic(&before, 3)));
    assert!(Arc::ptr_eq(&topic(&image, 1).partitions[0], &topic(&before, 1).partitions[0]));
    assert_eq!(*topic(&before, 1).partitions[1], partition(1));
}

proptest! {
    #[test]
    fn any_record_fits_or_changes_nothing(records in prop::collection::vec(record::tests::records(), 0..40)) {
        let mut image = image();
        for record in &records {
            let before = image.clone();
            if apply(&mut image, record).is_err() {
                prop_assert_eq!(&before, &image);
            }
        }
        let snapshot: Vec<_> = image.snapshot().collect();
        prop_assert_eq!(ClusterImage::from_snapshot(image.version(), &snapshot), Ok(image));
    }
}
