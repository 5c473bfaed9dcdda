//! The bytes of metadata records: frozen, complete, and safe to read whatever they are.

use proptest::prelude::*;

use super::*;
use crate::wire::generated::metadata as schema;

/// The record of [`golden`] as format 1 writes it. It must decode for ever; a change of it is a change of the format.
const GOLDEN: &str = concat!(
    "1000000000000a000c000600050008000a00000000020100100000000c0020000400140018001c000c00000030313233",
    "3435363738396162636465668c0000004400000004000000010000000c00000008000c00040008000800000014000000",
    "0400000007000000636f6d70616374000e000000636c65616e75702e706f6c6963790000010000001400000010001800",
    "0000040008000c0010001400100000001c00000010000000020000000700000009000000010000000200000002000000",
    "0100000002000000060000007472616465730000",
);

fn golden() -> MetadataRecord {
    let broker = |id| BrokerId::new(id).expect("not negative");
    MetadataRecord::TopicCreated {
        topic: TopicId::from_bytes(*b"0123456789abcdef"),
        name: TopicName::new("trades").expect("legal"),
        partitions: vec![Partition {
            index: PartitionId::new(0).expect("not negative"),
            replicas: vec![broker(1), broker(2)],
            isr: vec![broker(2)],
            leader: Some(broker(2)),
            leader_epoch: LeaderEpoch::new(7).expect("not negative"),
            partition_epoch: PartitionEpoch::new(9).expect("not negative"),
        }],
        configs: vec![("cleanup.policy".into(), "compact".into())],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn broker_ids() -> impl Strategy<Value = BrokerId> {
    (0..=i32::MAX).prop_map(|id| BrokerId::new(id).expect("not negative"))
}

fn topic_ids() -> impl Strategy<Value = TopicId> {
    any::<[u8; 16]>().prop_map(TopicId::from_bytes)
}

fn topic_names() -> impl Strategy<Value = TopicName> {
    prop::collection::vec(0..64usize, 1..40).prop_map(|letters| {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let name: String = letters.iter().map(|&letter| char::from(LETTERS[letter])).collect();
        TopicName::new(&name).expect("legal letters")
    })
}

fn texts() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn some_brokers() -> impl Strategy<Value = Vec<BrokerId>> {
    prop::collection::vec(broker_ids(), 0..4)
}

fn partitions() -> impl Strategy<Value = Vec<Partition>> {
    let partition =
        (0..=i32::MAX, some_brokers(), some_brokers(), prop::option::of(broker_ids()), 0..=i32::MAX, 0..=i32::MAX)
            .prop_map(|(index, replicas, isr, leader, leader_epoch, partition_epoch)| Partition {
                index: PartitionId::new(index).expect("not negative"),
                replicas,
                isr,
                leader,
                leader_epoch: LeaderEpoch::new(leader_epoch).expect("not negative"),
                partition_epoch: PartitionEpoch::new(partition_epoch).expect("not negative"),
            });
    prop::collection::vec(partition, 0..4)
}

fn registrations() -> impl Strategy<Value = MetadataRecord> {
    let listener = (texts(), texts(), any::<u16>()).prop_map(|(name, host, port)| Listener { name, host, port });
    (broker_ids(), any::<[u8; 16]>(), prop::collection::vec(listener, 0..3), 0..=i64::MAX).prop_map(
        |(broker, incarnation, listeners, epoch)| {
            MetadataRecord::BrokerRegistered(BrokerRegistration {
                broker,
                incarnation: Incarnation::from_bytes(incarnation),
                listeners,
                epoch: BrokerEpoch::new(epoch).expect("not negative"),
            })
        },
    )
}

fn changes() -> impl Strategy<Value = MetadataRecord> {
    partitions()
        .prop_filter_map("a partition to take the values of", |partitions| partitions.into_iter().next())
        .prop_map(|p| MetadataRecord::PartitionChanged {
            topic: TopicId::from_bytes([3; 16]),
            partition: p.index,
            isr: p.isr,
            leader: p.leader,
            leader_epoch: p.leader_epoch,
            partition_epoch: p.partition_epoch,
        })
}

/// Any record, whether or not it makes sense.
pub(in crate::controller) fn records() -> impl Strategy<Value = MetadataRecord> {
    let resources = prop_oneof![
        topic_ids().prop_map(ConfigResource::Topic),
        broker_ids().prop_map(ConfigResource::Broker),
        Just(ConfigResource::AllBrokers),
    ];
    prop_oneof![
        registrations(),
        (topic_ids(), topic_names(), partitions(), prop::collection::vec((texts(), texts()), 0..3)).prop_map(
            |(topic, name, partitions, configs)| MetadataRecord::TopicCreated { topic, name, partitions, configs }
        ),
        (topic_ids(), partitions())
            .prop_map(|(topic, partitions)| MetadataRecord::PartitionsAdded { topic, partitions }),
        changes(),
        (topic_ids(), topic_names(), some_brokers()).prop_map(|(topic, name, brokers)| MetadataRecord::TopicDeleted {
            topic,
            name,
            brokers
        }),
        (topic_ids(), broker_ids()).prop_map(|(topic, broker)| MetadataRecord::TopicRemoved { topic, broker }),
        (resources, texts(), prop::option::of(texts()))
            .prop_map(|(resource, key, value)| MetadataRecord::ConfigChanged { resource, key, value }),
        (0..=i64::MAX, prop::option::of(broker_ids())).prop_map(|(next, broker)| {
            MetadataRecord::ProducerIdsReserved { next: ProducerId::new(next).expect("not negative"), broker }
        }),
    ]
}

#[test]
fn the_format_is_frozen() {
    assert_eq!(hex(&golden().encode()), GOLDEN);
    assert_eq!(MetadataRecord::decode(&unhex(GOLDEN)), Ok(golden()));
}

proptest! {
    #[test]
    fn every_record_survives_its_bytes_at_any_alignment(record in records(), before in 0usize..8) {
        let mut bytes = vec![0xaa; before];
        bytes.extend(record.encode());
        prop_assert_eq!(MetadataRecord::decode(&bytes[before..]), Ok(record));
    }

    #[test]
    fn damaged_records_are_errors_or_records(record in records(), damage in any::<(u16, u8)>()) {
        let mut bytes = record.encode();
        for length in 0..bytes.len() {
            let _ = MetadataRecord::decode(&bytes[..length]);
        }
        let at = usize::from(damage.0) % bytes.len();
        bytes[at] ^= damage.1;
        if let Ok(other) = MetadataRecord::decode(&bytes) {
            prop_assert_eq!(MetadataRecord::decode(&other.encode()), Ok(other));
        }
    }

    #[test]
    fn noise_is_an_error_or_a_record(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = MetadataRecord::decode(&bytes);
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_one_record_is_survived() {
    let bytes = golden().encode();
    // The last field to be written is the topic's name; up to three bytes of padding follow its terminating zero.
    for length in 0..bytes.len() - 3 {
        assert!(MetadataRecord::decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let _ = MetadataRecord::decode(&damaged);
    }
}

/// A record with this change, of format `format`.
fn build(
    format: u16,
    change: impl FnOnce(&mut FlatBufferBuilder<'_>) -> (schema::Change, WIPOffset<flatbuffers::UnionWIPOffset>),
) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let (change_type, change) = change(&mut builder);
    let args = schema::RecordArgs { format, change_type, change: Some(change) };
    let record = schema::Record::create(&mut builder, &args);
    builder.finish(record, None);
    builder.finished_data().to_vec()
}

fn removed(
    broker: i32,
) -> impl FnOnce(&mut FlatBufferBuilder<'_>) -> (schema::Change, WIPOffset<flatbuffers::UnionWIPOffset>) {
    move |b| {
        let args = schema::TopicRemovedArgs { topic: Some(&schema::Id::new(&[1; 16])), broker };
        (schema::Change::TopicRemoved, schema::TopicRemoved::create(b, &args).as_union_value())
    }
}

#[test]
fn newer_formats_and_unknown_kinds_are_told_apart_from_damage() {
    assert!(MetadataRecord::decode(&build(FORMAT, removed(1))).is_ok());
    for found in [0, FORMAT + 1, u16::MAX] {
        assert_eq!(MetadataRecord::decode(&build(found, removed(1))), Err(DecodeError::Format { found }));
    }
    for kind in [schema::Change::ENUM_MAX + 1, u8::MAX] {
        let bytes = build(FORMAT, |b| (schema::Change(kind), removed(1)(b).1));
        assert_eq!(MetadataRecord::decode(&bytes), Err(DecodeError::Kind { kind }));
    }
}

#[test]
fn records_that_unfold_to_far_more_than_their_bytes_are_refused() {
    let bytes = build(FORMAT, |b| {
        let brokers = Some(b.create_vector(&[1; 1_000]));
        let args = schema::PartitionArgs { replicas: brokers, isr: brokers, ..Default::default() };
        let partition = schema::Partition::create(b, &args);
        let partitions = Some(b.create_vector(&[partition; 1_000]));
        let args = schema::PartitionsAddedArgs { topic: Some(&schema::Id::new(&[1; 16])), partitions };
        (schema::Change::PartitionsAdded, schema::PartitionsAdded::create(b, &args).as_union_value())
    });
    assert!(bytes.len() < 10_000);
    let error = DecodeError::Malformed(InvalidFlatbuffer::ApparentSizeTooLarge);
    assert_eq!(MetadataRecord::decode(&bytes), Err(error));
}

#[test]
fn numbers_below_zero_are_refused() {
    let error = DecodeError::Negative { field: "broker", value: -2 };
    assert_eq!(MetadataRecord::decode(&build(FORMAT, removed(-2))), Err(error));
}

#[test]
fn a_key_of_a_topic_and_of_a_broker_at_once_is_refused() {
    let bytes = build(FORMAT, |b| {
        let key = Some(b.create_string("k"));
        let topic = schema::Id::new(&[1; 16]);
        let args = schema::ConfigChangedArgs { topic: Some(&topic), broker: Some(1), key, value: None };
        (schema::Change::ConfigChanged, schema::ConfigChanged::create(b, &args).as_union_value())
    });
    assert_eq!(MetadataRecord::decode(&bytes), Err(DecodeError::ResourceAmbiguous));
}
