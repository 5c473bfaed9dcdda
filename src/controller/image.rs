//! The cluster as the metadata log says: brokers, topics, partitions, configurations, tombstones, producer ids.
//!
//! An image is a value: shards hold it behind an `Arc` and never see it change. [`ClusterImage::apply`] makes the next image of
//! a copy, one record at a time, and is the only way to one; it checks each record against the image and leaves the image as
//! it was if the record does not fit. Copies share what did not change, down to the topic: a record that changes one of
//! 10 000 topics copies that topic and a chunk of the map, not the other 9 999.
//!
//! It decides nothing: which records follow from a request is the matter of the handlers beside it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::{BrokerRegistration, ConfigResource, MetadataRecord, Partition};
use super::shared_map::SharedMap;
use crate::types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, PartitionId, ProducerId, TopicId, TopicName,
    TopicPartition,
};

/// Values of configuration keys that were set, by key.
pub type ConfigOverrides = BTreeMap<String, String>;

/// A topic of the image.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Its partitions; the index in this list is the partition's index. Never empty.
    pub partitions: Vec<Arc<Partition>>,
    /// Overrides of configuration keys.
    pub configs: ConfigOverrides,
}

impl Topic {
    /// The partition of this index.
    pub fn partition(&self, partition: PartitionId) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(partition.value()).ok()?)
    }

    fn partition_mut(&mut self, partition: PartitionId) -> Option<&mut Arc<Partition>> {
        self.partitions.get_mut(usize::try_from(partition.value()).ok()?)
    }
}

/// A deleted topic of which files remain.
#[derive(Clone, Debug, PartialEq)]
pub struct DeletedTopic {
    /// The id that it had.
    pub id: TopicId,
    /// The name that it had; another topic may have it by now.
    pub name: TopicName,
    /// The brokers that still have files of it. Never empty.
    pub brokers: BTreeSet<BrokerId>,
}

/// A state of the cluster: the metadata log up to an offset.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterImage {
    version: Offset,
    brokers: BTreeMap<BrokerId, Arc<BrokerRegistration>>,
    topics: SharedMap<TopicId, Arc<Topic>>,
    topics_by_name: SharedMap<UnifiedName, TopicId>,
    partitions: usize,
    deleted_topics: BTreeMap<TopicId, Arc<DeletedTopic>>,
    broker_configs: BTreeMap<Option<BrokerId>, Arc<ConfigOverrides>>,
    next_producer_id: Option<ProducerId>,
}

/// A record that does not fit the image: the log is damaged, or not this cluster's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The record's offset was replayed before.
    #[error("metadata offset {offset} comes after {version} was reached")]
    OffsetBehind {
        /// The record's offset.
        offset: Offset,
        /// The image's version.
        version: Offset,
    },
    /// A registration does not raise the broker's epoch.
    #[error("broker {broker} registers with epoch {epoch} after epoch {current}")]
    BrokerEpoch {
        /// The broker.
        broker: BrokerId,
        /// The epoch of the record.
        epoch: BrokerEpoch,
        /// The epoch that it has.
        current: BrokerEpoch,
    },
    /// A topic's name is taken, or differs from a taken one in `.` and `_` only.
    #[error("topic {name} is created, but {existing} exists")]
    NameTaken {
        /// The name in the record.
        name: TopicName,
        /// The topic that exists.
        existing: TopicName,
    },
    /// A topic's id was used before.
    #[error("topic id {topic} is used twice")]
    IdTaken {
        /// The id.
        topic: TopicId,
    },
    /// No topic has this id.
    #[error("topic id {topic} is unknown")]
    UnknownTopic {
        /// The id.
        topic: TopicId,
    },
    /// The topic has no such partition.
    #[error("partition {0} is unknown")]
    UnknownPartition(TopicPartition),
    /// A topic would have no partition.
    #[error("topic id {topic} has no partitions")]
    NoPartitions {
        /// The id.
        topic: TopicId,
    },
    /// The indexes of partitions leave a gap or repeat.
    #[error("partition {found} stands where {expected} is due")]
    PartitionIndex {
        /// The index that continues the topic's.
        expected: usize,
        /// The partition of the record.
        found: TopicPartition,
    },
    /// Replicas, in-sync replicas and leader contradict each other.
    #[error(
        "partition {0}: its leader is not in sync, or its in-sync replicas are not among its replicas, or one repeats"
    )]
    Replicas(TopicPartition),
    /// An epoch does not rise with the change.
    #[error(
        "partition {partition} changes at partition epoch {partition_epoch} and leader epoch {leader_epoch}, too low or unchanged"
    )]
    PartitionEpochs {
        /// The partition.
        partition: TopicPartition,
        /// The partition epoch of the record.
        partition_epoch: PartitionEpoch,
        /// The leader epoch of the record.
        leader_epoch: LeaderEpoch,
    },
    /// The topic was deleted before.
    #[error("topic id {topic} is deleted twice")]
    DeletedTwice {
        /// The id.
        topic: TopicId,
    },
    /// The broker has no files of a deleted topic of this id.
    #[error("broker {broker} removed topic id {topic}, which was not to be removed there")]
    NotDeleted {
        /// The id.
        topic: TopicId,
        /// The broker.
        broker: BrokerId,
    },
    /// Producer ids would be handed out again.
    #[error("producer ids below {next} are reserved after those below {current}")]
    ProducerIds {
        /// The first free id by the record.
        next: ProducerId,
        /// The first free id by the image.
        current: ProducerId,
    },
}

impl ClusterImage {
    /// The cluster before its first record.
    pub const fn new() -> ClusterImage {
        ClusterImage {
            version: Offset::ZERO,
            brokers: BTreeMap::new(),
            topics: SharedMap::new(),
            topics_by_name: SharedMap::new(),
            partitions: 0,
            deleted_topics: BTreeMap::new(),
            broker_configs: BTreeMap::new(),
            next_producer_id: None,
        }
    }

    /// The image that `records`, a snapshot, describe at `version`.
    pub fn from_snapshot<'a>(
        version: Offset,
        records: impl IntoIterator<Item = &'a MetadataRecord>,
    ) -> Result<ClusterImage, ReplayError> {
        let mut image = ClusterImage::new();
        for record in records {
            image.change(record)?;
        }
        image.version = version;
        Ok(image)
    }

    /// The offset of the metadata record that comes next: every earlier one is in this image.
    pub fn version(&self) -> Offset {
        self.version
    }

    /// The broker's registration.
    pub fn broker(&self, broker: BrokerId) -> Option<&Arc<BrokerRegistration>> {
        self.brokers.get(&broker)
    }

    /// All registered brokers, by id.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<BrokerRegistration>> {
        self.brokers.values()
    }

    /// The topic of this id.
    pub fn topic(&self, topic: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&topic)
    }

    /// The topic of exactly this name, which need not be a legal one.
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topic_colliding(name).filter(|topic| topic.name.as_str() == name)
    }

    /// The topic whose name equals `name` when `.` is read as `_` in both.
    pub fn topic_colliding(&self, name: &str) -> Option<&Arc<Topic>> {
        let (_, topic) = self.topics_by_name.find(|other| unified_order(other.0.as_str(), name))?;
        self.topics.get(topic)
    }

    /// All topics, in the order of their names with `.` read as `_`.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics_by_name.iter().filter_map(|(_, topic)| self.topics.get(topic))
    }

    /// The topics that are new since `earlier`, or changed: also in their partitions.
    pub fn topics_changed_since(&self, earlier: &ClusterImage) -> impl Iterator<Item = &Arc<Topic>> {
        let unshared = self.topics.unshared(&earlier.topics);
        let is_same = |id: &TopicId, topic| earlier.topics.get(id).is_some_and(|before| Arc::ptr_eq(before, topic));
        unshared.filter(move |(id, topic)| !is_same(id, topic)).map(|(_, topic)| topic)
    }

    /// How many topics there are.
    pub fn topics_len(&self) -> usize {
        self.topics.len()
    }

    /// The partition, by its topic's id.
    pub fn partition(&self, partition: TopicPartition) -> Option<&Arc<Partition>> {
        self.topic(partition.topic)?.partition(partition.partition)
    }

    /// How many partitions there are in all topics.
    pub fn partitions_len(&self) -> usize {
        self.partitions
    }

    /// The deleted topics of which files remain, by id.
    pub fn deleted_topics(&self) -> impl ExactSizeIterator<Item = &Arc<DeletedTopic>> {
        self.deleted_topics.values()
    }

    /// The deleted topic of this id, while files of it remain.
    pub fn deleted_topic(&self, topic: TopicId) -> Option<&Arc<DeletedTopic>> {
        self.deleted_topics.get(&topic)
    }

    /// Configuration keys that were set of one broker, or with `None` of all brokers.
    pub fn broker_configs(&self, broker: Option<BrokerId>) -> Option<&Arc<ConfigOverrides>> {
        self.broker_configs.get(&broker)
    }

    /// The first producer id that was not handed out; `None` before the first was.
    pub fn next_producer_id(&self) -> Option<ProducerId> {
        self.next_producer_id
    }

    /// Makes this image the one after `record`, which stands at `offset` of the metadata log. Offsets may skip what the log
    /// keeps for itself. On an error the image is unchanged.
    pub fn apply(&mut self, offset: Offset, record: &MetadataRecord) -> Result<(), ReplayError> {
        if offset < self.version {
            return Err(ReplayError::OffsetBehind { offset, version: self.version });
        }
        self.change(record)?;
        self.version = offset.next();
        Ok(())
    }

    /// Records that make this image of an empty one ([`ClusterImage::from_snapshot`]), in an order that depends on the image
    /// alone.
    pub fn snapshot(&self) -> impl Iterator<Item = MetadataRecord> {
        let brokers = self.brokers.values().map(|broker| MetadataRecord::BrokerRegistered((**broker).clone()));
        let topics = self.topics().map(|topic| MetadataRecord::TopicCreated {
            topic: topic.id,
            name: topic.name.clone(),
            partitions: topic.partitions.iter().map(|partition| (**partition).clone()).collect(),
            configs: topic.configs.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        });
        let deleted = self.deleted_topics.values().map(|topic| MetadataRecord::TopicDeleted {
            topic: topic.id,
            name: topic.name.clone(),
            brokers: topic.brokers.iter().copied().collect(),
        });
        let configs = self.broker_configs.iter().flat_map(|(broker, configs)| {
            let resource = broker.map_or(ConfigResource::AllBrokers, ConfigResource::Broker);
            configs.iter().map(move |(key, value)| MetadataRecord::ConfigChanged {
                resource,
                key: key.clone(),
                value: Some(value.clone()),
            })
        });
        let producer_ids = self.next_producer_id.map(|next| MetadataRecord::ProducerIdsReserved { next, broker: None });
        brokers.chain(topics).chain(deleted).chain(configs).chain(producer_ids)
    }

    fn change(&mut self, record: &MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::BrokerRegistered(registration) => self.register_broker(registration),
            MetadataRecord::TopicCreated { topic, name, partitions, configs } => {
                self.create_topic(*topic, name, partitions, configs)
            }
            MetadataRecord::PartitionsAdded { topic, partitions } => self.add_partitions(*topic, partitions),
            MetadataRecord::PartitionChanged { topic, partition, isr, leader, leader_epoch, partition_epoch } => {
                let changed = PartitionChange {
                    isr,
                    leader: *leader,
                    leader_epoch: *leader_epoch,
                    partition_epoch: *partition_epoch,
                };
                self.change_partition(TopicPartition { topic: *topic, partition: *partition }, changed)
            }
            MetadataRecord::TopicDeleted { topic, name, brokers } => self.delete_topic(*topic, name, brokers),
            MetadataRecord::TopicRemoved { topic, broker } => self.end_tombstone(*topic, *broker),
            MetadataRecord::ConfigChanged { resource, key, value } => {
                self.change_config(*resource, key, value.as_deref())
            }
            MetadataRecord::ProducerIdsReserved { next, broker: _ } => self.reserve_producer_ids(*next),
        }
    }

    fn register_broker(&mut self, registration: &BrokerRegistration) -> Result<(), ReplayError> {
        let &BrokerRegistration { broker, epoch, .. } = registration;
        if let Some(current) =
            self.brokers.get(&broker).map(|current| current.epoch).filter(|current| epoch <= *current)
        {
            return Err(ReplayError::BrokerEpoch { broker, epoch, current });
        }
        self.brokers.insert(broker, Arc::new(registration.clone()));
        Ok(())
    }

    fn create_topic(
        &mut self,
        id: TopicId,
        name: &TopicName,
        partitions: &[Partition],
        configs: &[(String, String)],
    ) -> Result<(), ReplayError> {
        if let Some(existing) = self.topic_colliding(name.as_str()) {
            return Err(ReplayError::NameTaken { name: name.clone(), existing: existing.name.clone() });
        }
        if self.topics.get(&id).is_some() || self.deleted_topics.contains_key(&id) {
            return Err(ReplayError::IdTaken { topic: id });
        }
        if partitions.is_empty() {
            return Err(ReplayError::NoPartitions { topic: id });
        }
        check_new_partitions(id, 0, partitions)?;
        let topic = Topic {
            id,
            name: name.clone(),
            partitions: partitions.iter().cloned().map(Arc::new).collect(),
            configs: configs.iter().cloned().collect(),
        };
        self.partitions += topic.partitions.len();
        self.topics.insert(id, Arc::new(topic));
        self.topics_by_name.insert(UnifiedName(name.clone()), id);
        Ok(())
    }

    fn add_partitions(&mut self, id: TopicId, partitions: &[Partition]) -> Result<(), ReplayError> {
        let topic = self.known_topic(id)?;
        check_new_partitions(id, topic.partitions.len(), partitions)?;
        self.topic_mut(id)?.partitions.extend(partitions.iter().cloned().map(Arc::new));
        self.partitions += partitions.len();
        Ok(())
    }

    fn change_partition(&mut self, at: TopicPartition, changed: PartitionChange<'_>) -> Result<(), ReplayError> {
        let unknown = ReplayError::UnknownPartition(at);
        let current = self.known_topic(at.topic)?.partition(at.partition).ok_or(unknown.clone())?;
        let PartitionChange { isr, leader, leader_epoch, partition_epoch } = changed;
        let led_anew = leader == current.leader || leader_epoch > current.leader_epoch;
        if partition_epoch <= current.partition_epoch || leader_epoch < current.leader_epoch || !led_anew {
            return Err(ReplayError::PartitionEpochs { partition: at, partition_epoch, leader_epoch });
        }
        let next = Partition { isr: isr.to_vec(), leader, leader_epoch, partition_epoch, ..Partition::clone(current) };
        if !replicas_agree(&next) {
            return Err(ReplayError::Replicas(at));
        }
        *self.topic_mut(at.topic)?.partition_mut(at.partition).ok_or(unknown)? = Arc::new(next);
        Ok(())
    }

    /// A tombstone may come without its topic: a snapshot has no more of it.
    fn delete_topic(&mut self, id: TopicId, name: &TopicName, brokers: &[BrokerId]) -> Result<(), ReplayError> {
        if self.deleted_topics.contains_key(&id) {
            return Err(ReplayError::DeletedTwice { topic: id });
        }
        if let Some(topic) = self.topics.remove(&id) {
            self.topics_by_name.remove(&UnifiedName(topic.name.clone()));
            self.partitions -= topic.partitions.len();
        }
        if !brokers.is_empty() {
            let topic = DeletedTopic { id, name: name.clone(), brokers: brokers.iter().copied().collect() };
            self.deleted_topics.insert(id, Arc::new(topic));
        }
        Ok(())
    }

    fn end_tombstone(&mut self, topic: TopicId, broker: BrokerId) -> Result<(), ReplayError> {
        let unknown = ReplayError::NotDeleted { topic, broker };
        let Some(deleted) = self.deleted_topics.get_mut(&topic) else { return Err(unknown) };
        if !deleted.brokers.contains(&broker) {
            return Err(unknown);
        }
        Arc::make_mut(deleted).brokers.remove(&broker);
        if deleted.brokers.is_empty() {
            self.deleted_topics.remove(&topic);
        }
        Ok(())
    }

    fn change_config(&mut self, resource: ConfigResource, key: &str, value: Option<&str>) -> Result<(), ReplayError> {
        let broker = match resource {
            ConfigResource::Topic(id) => {
                set(&mut self.topic_mut(id)?.configs, key, value);
                return Ok(());
            }
            ConfigResource::Broker(broker) => Some(broker),
            ConfigResource::AllBrokers => None,
        };
        let configs = self.broker_configs.entry(broker).or_default();
        set(Arc::make_mut(configs), key, value);
        if configs.is_empty() {
            self.broker_configs.remove(&broker);
        }
        Ok(())
    }

    fn reserve_producer_ids(&mut self, next: ProducerId) -> Result<(), ReplayError> {
        if let Some(current) = self.next_producer_id.filter(|current| next < *current) {
            return Err(ReplayError::ProducerIds { next, current });
        }
        self.next_producer_id = Some(next);
        Ok(())
    }

    fn known_topic(&self, id: TopicId) -> Result<&Topic, ReplayError> {
        self.topics.get(&id).map(Arc::as_ref).ok_or(ReplayError::UnknownTopic { topic: id })
    }

    /// The topic, of this image alone: copied if another image shares it.
    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, ReplayError> {
        self.topics.get_mut(&id).map(Arc::make_mut).ok_or(ReplayError::UnknownTopic { topic: id })
    }
}

impl Default for ClusterImage {
    fn default() -> Self {
        ClusterImage::new()
    }
}

/// The new values of a partition.
struct PartitionChange<'a> {
    isr: &'a [BrokerId],
    leader: Option<BrokerId>,
    leader_epoch: LeaderEpoch,
    partition_epoch: PartitionEpoch,
}

fn set(configs: &mut ConfigOverrides, key: &str, value: Option<&str>) {
    match value {
        Some(value) => configs.insert(key.to_owned(), value.to_owned()),
        None => configs.remove(key),
    };
}

/// Checks that the partitions' indexes continue `existing` ones and that each agrees with itself.
fn check_new_partitions(topic: TopicId, existing: usize, partitions: &[Partition]) -> Result<(), ReplayError> {
    for (expected, partition) in (existing..).zip(partitions) {
        let at = TopicPartition { topic, partition: partition.index };
        if usize::try_from(partition.index.value()) != Ok(expected) {
            return Err(ReplayError::PartitionIndex { expected, found: at });
        }
        if !replicas_agree(partition) {
            return Err(ReplayError::Replicas(at));
        }
    }
    Ok(())
}

/// Whether leader ∈ in-sync replicas ⊆ replicas, with no in-sync set empty and no broker twice.
fn replicas_agree(partition: &Partition) -> bool {
    let replicas: BTreeSet<_> = partition.replicas.iter().collect();
    let isr: BTreeSet<_> = partition.isr.iter().collect();
    replicas.len() == partition.replicas.len()
        && isr.len() == partition.isr.len()
        && !isr.is_empty()
        && isr.is_subset(&replicas)
        && partition.leader.is_none_or(|leader| isr.contains(&leader))
}

/// A topic's name in the order in which `.` and `_` are one character, so that names that must not coexist are equal.
#[derive(Clone, Debug)]
struct UnifiedName(TopicName);

impl Ord for UnifiedName {
    fn cmp(&self, other: &Self) -> Ordering {
        unified_order(self.0.as_str(), other.0.as_str())
    }
}

impl PartialOrd for UnifiedName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for UnifiedName {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for UnifiedName {}

fn unified_order(a: &str, b: &str) -> Ordering {
    let unified = |byte: u8| if byte == b'.' { b'_' } else { byte };
    a.bytes().map(unified).cmp(b.bytes().map(unified))
}

#[cfg(test)]
mod tests;
