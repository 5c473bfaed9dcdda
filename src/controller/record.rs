//! The records of the metadata log as values, and their bytes.
//!
//! A [`MetadataRecord`] is one change of the cluster; the log of all of them is the cluster. [`MetadataRecord::decode`] takes
//! any bytes: they are verified, ids and epochs are parsed into their types, and what this version does not know is a typed
//! error. Whether a record fits the cluster as it is now is not decided here but by `ClusterImage::apply`.
//!
//! Source: `schema/metadata.fbs`, which says how the format may grow.

use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, InvalidFlatbuffer, Vector, VerifierOptions, WIPOffset};

use crate::types::{
    BrokerEpoch, BrokerId, Incarnation, LeaderEpoch, PartitionEpoch, PartitionId, ProducerId, TopicId, TopicName,
    TopicNameError,
};
use crate::wire::generated::metadata as schema;

/// The format that this version writes, and the highest that it reads.
const FORMAT: u16 = 1;

/// Bytes with which the encoder starts; most records are shorter.
const ENCODED_BYTES: usize = 256;

/// The verifier's measure of a record (what it would take if no two references met) at most, in multiples of its bytes. Tables
/// of one kind share the list of their fields' places, which is less than half of what they take, so honest records stay below
/// 3; a record whose lists all refer to one big table is refused before its lists are unfolded in memory.
const APPARENT_FACTOR_MAX: usize = 4;

/// One change of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A broker started; replaces its earlier registration.
    BrokerRegistered(BrokerRegistration),
    /// A topic exists from here on, with all its partitions.
    TopicCreated {
        /// Its id, never used before.
        topic: TopicId,
        /// Its name.
        name: TopicName,
        /// Its partitions, indexed from 0 without a gap.
        partitions: Vec<Partition>,
        /// Overrides of configuration keys, as (key, value).
        configs: Vec<(String, String)>,
    },
    /// A topic has more partitions.
    PartitionsAdded {
        /// The topic.
        topic: TopicId,
        /// The new partitions; their indexes continue those that the topic has.
        partitions: Vec<Partition>,
    },
    /// The leader, its epoch or the in-sync replicas of a partition changed.
    PartitionChanged {
        /// The topic.
        topic: TopicId,
        /// The index of the partition.
        partition: PartitionId,
        /// The in-sync replicas from now on.
        isr: Vec<BrokerId>,
        /// The leader from now on, if there is one.
        leader: Option<BrokerId>,
        /// The epoch of that leadership.
        leader_epoch: LeaderEpoch,
        /// The epoch of the partition's state from now on.
        partition_epoch: PartitionEpoch,
    },
    /// A topic is gone for clients; its files are still to be removed. Leaves a tombstone.
    TopicDeleted {
        /// The topic.
        topic: TopicId,
        /// The name that it had.
        name: TopicName,
        /// The brokers that still have files of it.
        brokers: Vec<BrokerId>,
    },
    /// A broker has removed every file of a deleted topic; with the last broker the tombstone ends.
    TopicRemoved {
        /// The deleted topic.
        topic: TopicId,
        /// The broker that has no file of it any more.
        broker: BrokerId,
    },
    /// A configuration key was set, or reset to what applies without it.
    ConfigChanged {
        /// Whose key.
        resource: ConfigResource,
        /// Kafka's name of the key.
        key: String,
        /// The value; `None` resets.
        value: Option<String>,
    },
    /// Every producer id below `next` may have been handed out.
    ProducerIdsReserved {
        /// The first id that is still free.
        next: ProducerId,
        /// The broker that the block went to; absent in a snapshot.
        broker: Option<BrokerId>,
    },
}

/// A broker as it registered at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// The broker.
    pub broker: BrokerId,
    /// This start of its process.
    pub incarnation: Incarnation,
    /// Where clients reach it, by listener.
    pub listeners: Vec<Listener>,
    /// The epoch of this registration.
    pub epoch: BrokerEpoch,
}

/// An address at which clients reach a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Kafka's listener name.
    pub name: String,
    /// The host as advertised: a name or an address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// A partition's replicas and who leads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its index in its topic.
    pub index: PartitionId,
    /// The brokers that hold it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// The replicas that are in sync; never empty.
    pub isr: Vec<BrokerId>,
    /// The leader, one of the in-sync replicas; `None` while nobody leads.
    pub leader: Option<BrokerId>,
    /// The epoch of the leadership.
    pub leader_epoch: LeaderEpoch,
    /// The epoch of this state.
    pub partition_epoch: PartitionEpoch,
}

/// What a configuration key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic.
    Topic(TopicId),
    /// One broker.
    Broker(BrokerId),
    /// Every broker that has no value of its own.
    AllBrokers,
}

/// Bytes that are not a record which this version can replay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The flatbuffer is not well formed.
    #[error("not a metadata record: {0}")]
    Malformed(#[from] InvalidFlatbuffer),
    /// The record was written in a newer format.
    #[error("a metadata record of format {found}, this version reads formats 1 to {FORMAT}")]
    Format {
        /// The format that it names.
        found: u16,
    },
    /// The record is of a kind that this version does not know.
    #[error("a metadata record of unknown kind {kind}")]
    Kind {
        /// The number of the union's member.
        kind: u8,
    },
    /// A number that must not be negative.
    #[error("{field} of a metadata record is {value}, and is never negative")]
    Negative {
        /// The field in the schema.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// A name that no topic can have.
    #[error("a metadata record names a topic badly: {0}")]
    TopicName(#[from] TopicNameError),
    /// A configuration key of a topic and of a broker at once.
    #[error("a metadata record sets a key of both a topic and a broker")]
    ResourceAmbiguous,
}

impl MetadataRecord {
    /// The bytes of this record, unframed: the log adds length and checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::with_capacity(ENCODED_BYTES);
        let (change_type, change) = self.encode_change(&mut builder);
        let record = schema::RecordArgs { format: FORMAT, change_type, change: Some(change) };
        let record = schema::Record::create(&mut builder, &record);
        builder.finish(record, None);
        builder.finished_data().to_vec()
    }

    fn encode_change(&self, b: &mut FlatBufferBuilder<'_>) -> (schema::Change, WIPOffset<flatbuffers::UnionWIPOffset>) {
        use schema::Change;
        match self {
            MetadataRecord::BrokerRegistered(registration) => {
                (Change::BrokerRegistered, encode_registration(b, registration).as_union_value())
            }
            MetadataRecord::TopicCreated { topic, name, partitions, configs } => {
                let name = Some(b.create_string(name.as_str()));
                let partitions = Some(encode_partitions(b, partitions));
                let configs = Some(encode_configs(b, configs));
                let args = schema::TopicCreatedArgs {
                    topic: Some(&schema::Id::new(&topic.bytes())),
                    name,
                    partitions,
                    configs,
                };
                (Change::TopicCreated, schema::TopicCreated::create(b, &args).as_union_value())
            }
            MetadataRecord::PartitionsAdded { topic, partitions } => {
                let partitions = Some(encode_partitions(b, partitions));
                let args = schema::PartitionsAddedArgs { topic: Some(&schema::Id::new(&topic.bytes())), partitions };
                (Change::PartitionsAdded, schema::PartitionsAdded::create(b, &args).as_union_value())
            }
            MetadataRecord::PartitionChanged { topic, partition, isr, leader, leader_epoch, partition_epoch } => {
                let args = schema::PartitionChangedArgs {
                    isr: Some(encode_brokers(b, isr)),
                    topic: Some(&schema::Id::new(&topic.bytes())),
                    partition: partition.value(),
                    leader: leader.map(BrokerId::value),
                    leader_epoch: leader_epoch.value(),
                    partition_epoch: partition_epoch.value(),
                };
                (Change::PartitionChanged, schema::PartitionChanged::create(b, &args).as_union_value())
            }
            MetadataRecord::TopicDeleted { topic, name, brokers } => {
                let name = Some(b.create_string(name.as_str()));
                let brokers = Some(encode_brokers(b, brokers));
                let args = schema::TopicDeletedArgs { topic: Some(&schema::Id::new(&topic.bytes())), name, brokers };
                (Change::TopicDeleted, schema::TopicDeleted::create(b, &args).as_union_value())
            }
            MetadataRecord::TopicRemoved { topic, broker } => {
                let args =
                    schema::TopicRemovedArgs { topic: Some(&schema::Id::new(&topic.bytes())), broker: broker.value() };
                (Change::TopicRemoved, schema::TopicRemoved::create(b, &args).as_union_value())
            }
            MetadataRecord::ConfigChanged { resource, key, value } => {
                (Change::ConfigChanged, encode_config_changed(b, *resource, key, value.as_deref()).as_union_value())
            }
            MetadataRecord::ProducerIdsReserved { next, broker } => {
                let args = schema::ProducerIdsReservedArgs { next: next.value(), broker: broker.map(BrokerId::value) };
                (Change::ProducerIdsReserved, schema::ProducerIdsReserved::create(b, &args).as_union_value())
            }
        }
    }

    /// The record of these bytes; they need no alignment.
    pub fn decode(bytes: &[u8]) -> Result<MetadataRecord, DecodeError> {
        use schema::Change;
        let max_apparent_size = bytes.len().saturating_mul(APPARENT_FACTOR_MAX);
        let options = VerifierOptions { max_apparent_size, ..VerifierOptions::default() };
        let record = schema::root_as_record_with_opts(&options, bytes)?;
        if !(1..=FORMAT).contains(&record.format()) {
            return Err(DecodeError::Format { found: record.format() });
        }
        let kind = record.change_type();
        let unknown = || DecodeError::Kind { kind: kind.0 };
        match kind {
            Change::BrokerRegistered => decode_registration(record.change_as_broker_registered().ok_or_else(unknown)?),
            Change::TopicCreated => decode_topic_created(record.change_as_topic_created().ok_or_else(unknown)?),
            Change::PartitionsAdded => {
                let table = record.change_as_partitions_added().ok_or_else(unknown)?;
                Ok(MetadataRecord::PartitionsAdded {
                    topic: topic_id(table.topic()),
                    partitions: decode_partitions(table.partitions())?,
                })
            }
            Change::PartitionChanged => {
                decode_partition_changed(record.change_as_partition_changed().ok_or_else(unknown)?)
            }
            Change::TopicDeleted => {
                let table = record.change_as_topic_deleted().ok_or_else(unknown)?;
                Ok(MetadataRecord::TopicDeleted {
                    topic: topic_id(table.topic()),
                    name: TopicName::new(table.name())?,
                    brokers: decode_brokers("brokers", table.brokers())?,
                })
            }
            Change::TopicRemoved => {
                let table = record.change_as_topic_removed().ok_or_else(unknown)?;
                Ok(MetadataRecord::TopicRemoved {
                    topic: topic_id(table.topic()),
                    broker: broker_id("broker", table.broker())?,
                })
            }
            Change::ConfigChanged => decode_config_changed(record.change_as_config_changed().ok_or_else(unknown)?),
            Change::ProducerIdsReserved => {
                let table = record.change_as_producer_ids_reserved().ok_or_else(unknown)?;
                Ok(MetadataRecord::ProducerIdsReserved {
                    next: not_negative("next", table.next(), ProducerId::new(table.next()))?,
                    broker: table.broker().map(|broker| broker_id("broker", broker)).transpose()?,
                })
            }
            _ => Err(unknown()),
        }
    }
}

type Tables<'a, T> = Vector<'a, ForwardsUOffset<T>>;
type Encoded<'b, T> = WIPOffset<Vector<'b, ForwardsUOffset<T>>>;

fn encode_registration<'b>(
    b: &mut FlatBufferBuilder<'b>,
    registration: &BrokerRegistration,
) -> WIPOffset<schema::BrokerRegistered<'b>> {
    let listeners: Vec<_> = registration
        .listeners
        .iter()
        .map(|listener| {
            let (name, host) = (Some(b.create_string(&listener.name)), Some(b.create_string(&listener.host)));
            schema::Listener::create(b, &schema::ListenerArgs { name, host, port: listener.port })
        })
        .collect();
    let args = schema::BrokerRegisteredArgs {
        broker: registration.broker.value(),
        incarnation: Some(&schema::Id::new(&registration.incarnation.bytes())),
        listeners: Some(b.create_vector(&listeners)),
        epoch: registration.epoch.value(),
    };
    schema::BrokerRegistered::create(b, &args)
}

fn decode_registration(table: schema::BrokerRegistered<'_>) -> Result<MetadataRecord, DecodeError> {
    let listeners = table
        .listeners()
        .iter()
        .map(|l| Listener { name: l.name().to_owned(), host: l.host().to_owned(), port: l.port() })
        .collect();
    Ok(MetadataRecord::BrokerRegistered(BrokerRegistration {
        broker: broker_id("broker", table.broker())?,
        incarnation: Incarnation::from_bytes(table.incarnation().bytes().into()),
        listeners,
        epoch: not_negative("epoch", table.epoch(), BrokerEpoch::new(table.epoch()))?,
    }))
}

fn decode_topic_created(table: schema::TopicCreated<'_>) -> Result<MetadataRecord, DecodeError> {
    Ok(MetadataRecord::TopicCreated {
        topic: topic_id(table.topic()),
        name: TopicName::new(table.name())?,
        partitions: decode_partitions(table.partitions())?,
        configs: table.configs().iter().map(|c| (c.key().to_owned(), c.value().to_owned())).collect(),
    })
}

fn decode_partition_changed(table: schema::PartitionChanged<'_>) -> Result<MetadataRecord, DecodeError> {
    Ok(MetadataRecord::PartitionChanged {
        topic: topic_id(table.topic()),
        partition: partition_id(table.partition())?,
        isr: decode_brokers("isr", table.isr())?,
        leader: table.leader().map(|leader| broker_id("leader", leader)).transpose()?,
        leader_epoch: leader_epoch(table.leader_epoch())?,
        partition_epoch: partition_epoch(table.partition_epoch())?,
    })
}

fn encode_partitions<'b>(
    b: &mut FlatBufferBuilder<'b>,
    partitions: &[Partition],
) -> Encoded<'b, schema::Partition<'b>> {
    let tables: Vec<_> = partitions
        .iter()
        .map(|partition| {
            let args = schema::PartitionArgs {
                index: partition.index.value(),
                replicas: Some(encode_brokers(b, &partition.replicas)),
                isr: Some(encode_brokers(b, &partition.isr)),
                leader: partition.leader.map(BrokerId::value),
                leader_epoch: partition.leader_epoch.value(),
                partition_epoch: partition.partition_epoch.value(),
            };
            schema::Partition::create(b, &args)
        })
        .collect();
    b.create_vector(&tables)
}

fn decode_partitions(tables: Tables<'_, schema::Partition<'_>>) -> Result<Vec<Partition>, DecodeError> {
    let decode = |table: schema::Partition<'_>| {
        Ok(Partition {
            index: partition_id(table.index())?,
            replicas: decode_brokers("replicas", table.replicas())?,
            isr: decode_brokers("isr", table.isr())?,
            leader: table.leader().map(|leader| broker_id("leader", leader)).transpose()?,
            leader_epoch: leader_epoch(table.leader_epoch())?,
            partition_epoch: partition_epoch(table.partition_epoch())?,
        })
    };
    tables.iter().map(decode).collect()
}

fn encode_configs<'b>(b: &mut FlatBufferBuilder<'b>, configs: &[(String, String)]) -> Encoded<'b, schema::Config<'b>> {
    let tables: Vec<_> = configs
        .iter()
        .map(|(key, value)| {
            let (key, value) = (Some(b.create_string(key)), Some(b.create_string(value)));
            schema::Config::create(b, &schema::ConfigArgs { key, value })
        })
        .collect();
    b.create_vector(&tables)
}

fn encode_config_changed<'b>(
    b: &mut FlatBufferBuilder<'b>,
    resource: ConfigResource,
    key: &str,
    value: Option<&str>,
) -> WIPOffset<schema::ConfigChanged<'b>> {
    let key = Some(b.create_string(key));
    let value = value.map(|value| b.create_string(value));
    let (topic, broker) = match resource {
        ConfigResource::Topic(topic) => (Some(schema::Id::new(&topic.bytes())), None),
        ConfigResource::Broker(broker) => (None, Some(broker.value())),
        ConfigResource::AllBrokers => (None, None),
    };
    schema::ConfigChanged::create(b, &schema::ConfigChangedArgs { topic: topic.as_ref(), broker, key, value })
}

fn decode_config_changed(table: schema::ConfigChanged<'_>) -> Result<MetadataRecord, DecodeError> {
    let resource = match (table.topic(), table.broker()) {
        (Some(topic), None) => ConfigResource::Topic(topic_id(topic)),
        (None, Some(broker)) => ConfigResource::Broker(broker_id("broker", broker)?),
        (None, None) => ConfigResource::AllBrokers,
        (Some(_), Some(_)) => return Err(DecodeError::ResourceAmbiguous),
    };
    let value = table.value().map(str::to_owned);
    Ok(MetadataRecord::ConfigChanged { resource, key: table.key().to_owned(), value })
}

fn encode_brokers<'b>(b: &mut FlatBufferBuilder<'b>, brokers: &[BrokerId]) -> WIPOffset<Vector<'b, i32>> {
    b.create_vector_from_iter(brokers.iter().map(|broker| broker.value()))
}

fn decode_brokers(field: &'static str, brokers: Vector<'_, i32>) -> Result<Vec<BrokerId>, DecodeError> {
    brokers.iter().map(|broker| broker_id(field, broker)).collect()
}

fn topic_id(id: &schema::Id) -> TopicId {
    TopicId::from_bytes(id.bytes().into())
}

fn broker_id(field: &'static str, value: i32) -> Result<BrokerId, DecodeError> {
    not_negative(field, value, BrokerId::new(value))
}

fn partition_id(value: i32) -> Result<PartitionId, DecodeError> {
    not_negative("partition", value, PartitionId::new(value))
}

fn leader_epoch(value: i32) -> Result<LeaderEpoch, DecodeError> {
    not_negative("leader_epoch", value, LeaderEpoch::new(value))
}

fn partition_epoch(value: i32) -> Result<PartitionEpoch, DecodeError> {
    not_negative("partition_epoch", value, PartitionEpoch::new(value))
}

/// What `parsed` holds, or the error that `field` holds the negative number `value`.
fn not_negative<T>(field: &'static str, value: impl Into<i64>, parsed: Option<T>) -> Result<T, DecodeError> {
    parsed.ok_or_else(|| DecodeError::Negative { field, value: value.into() })
}

#[cfg(test)]
pub(super) mod tests;
