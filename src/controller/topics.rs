//! Creation and deletion of topics.
//!
//! Both take what a client wrote, unchecked, and answer topic by topic: an error of one topic leaves the others alone, while
//! each topic is created or deleted whole, by one record. Deletion leaves a tombstone that names the brokers which have files
//! to remove; [`Controller::files_removed`] ends it, broker by broker. So after a crash at any point the metadata say which
//! files belong to nobody.
//!
//! Source: CreateTopics 2–7 and DeleteTopics 1–6 of Kafka 4.2; KIP-464 (defaults), KIP-516 (topic ids).

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};

use super::image::{ConfigOverrides, Topic};
use super::placement::{check_assignment, place};
use super::record::{MetadataRecord, Partition};
use super::{AssignmentError, Controller, Decision};
use crate::types::{BrokerId, ErrorCode, LeaderEpoch, PartitionEpoch, PartitionId, TopicId, TopicName, TopicNameError};

/// A request to create topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopics {
    /// The topics.
    pub topics: Vec<CreateTopic>,
    /// Check and answer only, create nothing.
    pub validate_only: bool,
}

/// A topic to create, as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// The id that it is to have, drawn at random by the caller.
    pub id: TopicId,
    /// How many partitions; `None` leaves it to the broker or to `assignments`.
    pub partitions: Option<i32>,
    /// How many replicas of each; `None` leaves it to the broker or to `assignments`.
    pub replication_factor: Option<i16>,
    /// Which brokers hold which partition, if the client says so.
    pub assignments: Vec<ManualAssignment>,
    /// Overrides of configuration keys; of a key that repeats the last counts.
    pub configs: Vec<(String, Option<String>)>,
}

/// The brokers of a partition, as the client wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualAssignment {
    /// The partition's index.
    pub partition: i32,
    /// The ids of the brokers, the preferred leader first.
    pub brokers: Vec<i32>,
}

/// What the configuration says of new topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicRules {
    /// Partitions of a topic for which the client gives no number.
    pub partitions_default: NonZeroU32,
    /// Replicas of a topic for which the client gives no number.
    pub replication_factor_default: NonZeroU16,
    /// Partitions of one topic at most.
    pub topic_partitions_max: usize,
    /// Partitions of all topics together at most.
    pub cluster_partitions_max: usize,
}

/// Says whether a topic may have this key and value, or why not.
pub type ConfigCheck<'a> = &'a dyn Fn(&str, &str) -> Result<(), String>;

/// A topic that was created, or with `validate_only` would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id.
    pub id: TopicId,
    /// Its partitions.
    pub partitions: usize,
    /// The replicas of each.
    pub replication_factor: usize,
    /// The overrides that it has.
    pub configs: ConfigOverrides,
}

/// Why a topic is not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// The name is not allowed.
    #[error("{0}")]
    Name(#[from] TopicNameError),
    /// The name differs from another topic's in `.` and `_` only.
    #[error("topic '{name}' collides with topic '{other}': '.' and '_' are one character in the names of metrics")]
    Collision {
        /// The name.
        name: TopicName,
        /// The other one, of a topic that exists or of the same request.
        other: TopicName,
    },
    /// The request names the topic more than once.
    #[error("topic '{name}' is in the request more than once")]
    Repeated {
        /// The name, as it came.
        name: String,
    },
    /// The topic exists.
    #[error("topic '{name}' already exists")]
    Exists {
        /// The name.
        name: TopicName,
    },
    /// The id that was drawn is another topic's. A random one never is.
    #[error("topic id {id} is taken")]
    IdTaken {
        /// The id.
        id: TopicId,
    },
    /// The number of partitions is not positive.
    #[error("the number of partitions is 1 or more, or -1 for the broker's default, not {partitions}")]
    Partitions {
        /// The number, as it came.
        partitions: i32,
    },
    /// The replication factor is not positive.
    #[error("the replication factor is 1 or more, or -1 for the broker's default, not {replication_factor}")]
    ReplicationFactor {
        /// The number, as it came.
        replication_factor: i16,
    },
    /// There are fewer brokers than replicas.
    #[error("the replication factor {replication_factor} cannot be reached with {brokers} registered broker(s)")]
    TooFewBrokers {
        /// The replicas wanted.
        replication_factor: usize,
        /// The brokers registered.
        brokers: usize,
    },
    /// Replicas are assigned, and their number is given as well.
    #[error("replicas are assigned to brokers, so the replication factor must be -1")]
    AssignedAndFactor,
    /// Replicas are assigned, and the number of partitions is given as well.
    #[error("replicas are assigned to brokers, so the number of partitions must be -1")]
    AssignedAndCounted,
    /// The assignment does not fit.
    #[error("{0}")]
    Assignment(#[from] AssignmentError),
    /// More partitions than a topic may have.
    #[error("{partitions} partitions are more than the {max} that a topic may have")]
    TopicTooLarge {
        /// The partitions wanted.
        partitions: usize,
        /// The limit.
        max: usize,
    },
    /// More partitions than the cluster may have.
    #[error("{partitions} more partitions on top of {existing} are more than the {max} that the cluster may have")]
    ClusterFull {
        /// The partitions wanted.
        partitions: usize,
        /// Those that exist or were granted earlier in the request.
        existing: usize,
        /// The limit.
        max: usize,
    },
    /// A configuration key has no value.
    #[error("configuration key '{key}' has no value")]
    ConfigNull {
        /// The key, as it came.
        key: String,
    },
    /// A configuration key or its value is not allowed.
    #[error("{reason}")]
    Config {
        /// What the check says.
        reason: String,
    },
}

impl CreateTopicError {
    /// Kafka's code for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            CreateTopicError::Name(_) | CreateTopicError::Collision { .. } => ErrorCode::InvalidTopicException,
            CreateTopicError::Repeated { .. }
            | CreateTopicError::AssignedAndFactor
            | CreateTopicError::AssignedAndCounted => ErrorCode::InvalidRequest,
            CreateTopicError::Exists { .. } => ErrorCode::TopicAlreadyExists,
            CreateTopicError::IdTaken { .. } => ErrorCode::UnknownServerError,
            CreateTopicError::Partitions { .. } => ErrorCode::InvalidPartitions,
            CreateTopicError::ReplicationFactor { .. } | CreateTopicError::TooFewBrokers { .. } => {
                ErrorCode::InvalidReplicationFactor
            }
            CreateTopicError::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
            CreateTopicError::TopicTooLarge { .. } | CreateTopicError::ClusterFull { .. } => ErrorCode::PolicyViolation,
            CreateTopicError::ConfigNull { .. } | CreateTopicError::Config { .. } => ErrorCode::InvalidConfig,
        }
    }
}

/// A topic to delete, by name or by id. The client's request has room for both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeleteTopic {
    /// The name, as it came.
    pub name: Option<String>,
    /// The id.
    pub id: Option<TopicId>,
}

/// What became of a topic to delete, with what the request said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopicResult {
    /// How the request named it.
    pub request: DeleteTopic,
    /// The topic's id and name, or why it is not deleted.
    pub result: Result<(TopicId, TopicName), DeleteTopicError>,
}

/// Why a topic is not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteTopicError {
    /// Both name and id are given.
    #[error("a topic is named by its name or by its id, not by both")]
    NameAndId,
    /// Neither name nor id is given.
    #[error("a topic is named by its name or by its id, and both are missing")]
    Unnamed,
    /// The request names one topic more than once, by whichever means.
    #[error("the topic is in the request more than once")]
    Repeated,
    /// No topic has this name.
    #[error("no topic has this name")]
    UnknownName,
    /// No topic has this id.
    #[error("no topic has this id")]
    UnknownId,
}

impl DeleteTopicError {
    /// Kafka's code for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            DeleteTopicError::NameAndId | DeleteTopicError::Unnamed | DeleteTopicError::Repeated => {
                ErrorCode::InvalidRequest
            }
            DeleteTopicError::UnknownName => ErrorCode::UnknownTopicOrPartition,
            DeleteTopicError::UnknownId => ErrorCode::UnknownTopicId,
        }
    }
}

impl Controller {
    /// Creates topics. Answers once for each name, in the order in which the request names them first.
    pub fn create_topics(
        &self,
        request: &CreateTopics,
        rules: &TopicRules,
        check_config: ConfigCheck<'_>,
    ) -> Decision<Vec<(String, Result<CreatedTopic, CreateTopicError>)>> {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        request.topics.iter().for_each(|topic| *times.entry(&topic.name).or_default() += 1);
        let mut creation = Creation::new(self, rules, check_config);
        let mut response = Vec::with_capacity(times.len());
        for topic in &request.topics {
            let name = topic.name.clone();
            match times.remove(topic.name.as_str()) {
                Some(1) => response.push((name, creation.create(topic))),
                Some(_) => response.push((name.clone(), Err(CreateTopicError::Repeated { name }))),
                // It was answered where the request names it first.
                None => {}
            }
        }
        let records = if request.validate_only { Vec::new() } else { creation.records };
        Decision { records, response }
    }

    /// Deletes topics. Answers once for each distinct way in which the request names one, in the order of the request. A
    /// topic that the request names more than once is not deleted.
    pub fn delete_topics(&self, request: &[DeleteTopic]) -> Decision<Vec<DeletedTopicResult>> {
        let mut times: BTreeMap<TopicId, usize> = BTreeMap::new();
        for topic in request.iter().filter_map(|wanted| self.find_topic(wanted).ok()) {
            *times.entry(topic.id).or_default() += 1;
        }
        let mut answered: BTreeSet<&DeleteTopic> = BTreeSet::new();
        let mut records = Vec::new();
        let mut response = Vec::new();
        for wanted in request {
            if !answered.insert(wanted) {
                continue;
            }
            let result = self.find_topic(wanted).and_then(|topic| match times.get(&topic.id) {
                Some(1) => Ok(topic),
                _ => Err(DeleteTopicError::Repeated),
            });
            if let Ok(topic) = result {
                records.push(deletion(topic));
            }
            let result = result.map(|topic| (topic.id, topic.name.clone()));
            response.push(DeletedTopicResult { request: wanted.clone(), result });
        }
        Decision { records, response }
    }

    /// Notes that a broker has no file of a deleted topic any more. No records if that was known, or the topic is not deleted.
    pub fn files_removed(&self, topic: TopicId, broker: BrokerId) -> Decision<()> {
        let tombstone = self.image().deleted_topic(topic).filter(|deleted| deleted.brokers.contains(&broker));
        let record = tombstone.map(|_| MetadataRecord::TopicRemoved { topic, broker });
        Decision { records: record.into_iter().collect(), response: () }
    }

    fn find_topic(&self, wanted: &DeleteTopic) -> Result<&Topic, DeleteTopicError> {
        let (found, unknown) = match (&wanted.name, wanted.id) {
            (Some(_), Some(_)) => return Err(DeleteTopicError::NameAndId),
            (None, None) => return Err(DeleteTopicError::Unnamed),
            (Some(name), None) => (self.image().topic_by_name(name), DeleteTopicError::UnknownName),
            (None, Some(id)) => (self.image().topic(id), DeleteTopicError::UnknownId),
        };
        found.map(|topic| &**topic).ok_or(unknown)
    }
}

/// A request to create topics at work: what it has granted so far counts for the topics that follow.
struct Creation<'a> {
    controller: &'a Controller,
    rules: &'a TopicRules,
    check_config: ConfigCheck<'a>,
    brokers: Vec<BrokerId>,
    /// Partitions of the cluster, with those granted.
    partitions: usize,
    /// Granted names, by their unified form.
    names: BTreeMap<String, TopicName>,
    ids: BTreeSet<TopicId>,
    records: Vec<MetadataRecord>,
}

impl<'a> Creation<'a> {
    fn new(controller: &'a Controller, rules: &'a TopicRules, check_config: ConfigCheck<'a>) -> Creation<'a> {
        let image = controller.image();
        Creation {
            controller,
            rules,
            check_config,
            brokers: image.brokers().map(|registration| registration.broker).collect(),
            partitions: image.partitions_len(),
            names: BTreeMap::new(),
            ids: BTreeSet::new(),
            records: Vec::new(),
        }
    }

    fn create(&mut self, topic: &CreateTopic) -> Result<CreatedTopic, CreateTopicError> {
        let name = self.check_name(&topic.name)?;
        self.check_id(topic.id)?;
        let configs = self.check_configs(&topic.configs)?;
        let placed = self.place(topic)?;

        self.partitions += placed.len();
        self.names.insert(name.unified(), name.clone());
        self.ids.insert(topic.id);
        let created = CreatedTopic {
            id: topic.id,
            partitions: placed.len(),
            replication_factor: placed.first().map_or(0, Vec::len),
            configs: configs.clone(),
        };
        self.records.push(MetadataRecord::TopicCreated {
            topic: topic.id,
            name,
            partitions: (0..).zip(placed).map(|(index, replicas)| new_partition(index, replicas)).collect(),
            configs: configs.into_iter().collect(),
        });
        Ok(created)
    }

    fn check_name(&self, name: &str) -> Result<TopicName, CreateTopicError> {
        let name = TopicName::new(name)?;
        let existing = self.controller.image().topic_colliding(name.as_str()).map(|topic| &topic.name);
        match existing.or_else(|| self.names.get(&name.unified())) {
            None => Ok(name),
            Some(other) if *other == name => Err(CreateTopicError::Exists { name }),
            Some(other) => Err(CreateTopicError::Collision { other: other.clone(), name }),
        }
    }

    fn check_id(&self, id: TopicId) -> Result<(), CreateTopicError> {
        let image = self.controller.image();
        let taken = image.topic(id).is_some() || image.deleted_topic(id).is_some() || self.ids.contains(&id);
        if taken { Err(CreateTopicError::IdTaken { id }) } else { Ok(()) }
    }

    fn check_configs(&self, configs: &[(String, Option<String>)]) -> Result<ConfigOverrides, CreateTopicError> {
        let mut checked = ConfigOverrides::new();
        for (key, value) in configs {
            let value = value.as_ref().ok_or_else(|| CreateTopicError::ConfigNull { key: key.clone() })?;
            (self.check_config)(key, value).map_err(|reason| CreateTopicError::Config { reason })?;
            checked.insert(key.clone(), value.clone());
        }
        Ok(checked)
    }

    /// The replicas of each partition.
    fn place(&self, topic: &CreateTopic) -> Result<Vec<Vec<BrokerId>>, CreateTopicError> {
        if !topic.assignments.is_empty() {
            if topic.replication_factor.is_some() {
                return Err(CreateTopicError::AssignedAndFactor);
            }
            if topic.partitions.is_some() {
                return Err(CreateTopicError::AssignedAndCounted);
            }
            self.check_limits(topic.assignments.len())?;
            return Ok(check_assignment(&topic.assignments, &self.brokers)?);
        }
        let replication_factor = match topic.replication_factor {
            None => usize::from(self.rules.replication_factor_default.get()),
            Some(given) => usize::try_from(given)
                .ok()
                .filter(|&factor| factor > 0)
                .ok_or(CreateTopicError::ReplicationFactor { replication_factor: given })?,
        };
        let partitions = match topic.partitions {
            None => self.rules.partitions_default.get() as usize,
            Some(given) => usize::try_from(given)
                .ok()
                .filter(|&partitions| partitions > 0)
                .ok_or(CreateTopicError::Partitions { partitions: given })?,
        };
        self.check_limits(partitions)?;
        if replication_factor > self.brokers.len() {
            return Err(CreateTopicError::TooFewBrokers { replication_factor, brokers: self.brokers.len() });
        }
        Ok(place(topic.id, 0..partitions, replication_factor, &self.brokers))
    }

    fn check_limits(&self, partitions: usize) -> Result<(), CreateTopicError> {
        let max = self.rules.topic_partitions_max;
        if partitions > max {
            return Err(CreateTopicError::TopicTooLarge { partitions, max });
        }
        let (existing, max) = (self.partitions, self.rules.cluster_partitions_max);
        if partitions > max.saturating_sub(existing) {
            return Err(CreateTopicError::ClusterFull { partitions, existing, max });
        }
        Ok(())
    }
}

/// The partition `index`, which is counted from 0, in its first state: all replicas in sync, the first one leads.
pub(super) fn new_partition(index: usize, replicas: Vec<BrokerId>) -> Partition {
    let index = i32::try_from(index).ok().and_then(PartitionId::new);
    Partition {
        index: index.expect("partitions are limited far below 2^31"),
        isr: replicas.clone(),
        leader: replicas.first().copied(),
        replicas,
        leader_epoch: LeaderEpoch::ZERO,
        partition_epoch: PartitionEpoch::ZERO,
    }
}

/// The record that deletes a topic; its tombstone waits for every broker that holds a replica.
fn deletion(topic: &Topic) -> MetadataRecord {
    let brokers: BTreeSet<BrokerId> = topic.partitions.iter().flat_map(|p| p.replicas.iter().copied()).collect();
    MetadataRecord::TopicDeleted { topic: topic.id, name: topic.name.clone(), brokers: brokers.into_iter().collect() }
}

#[cfg(test)]
mod tests;
