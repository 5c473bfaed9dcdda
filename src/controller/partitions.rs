//! More partitions for topics that exist.
//!
//! Takes what a client wrote, unchecked, and answers topic by topic: an error of one topic leaves the others alone, while each
//! topic grows whole, by one record. New partitions have as many replicas as the topic's first one. Unless the client assigns
//! brokers, they go on round the brokers where the topic's placement ended. Records that exist stay where they are: a client
//! that maps keys to partitions by their number maps them anew.
//!
//! A topic is never made smaller, and what limits new topics limits growth alike.
//!
//! Source: CreatePartitions 0–3 of Kafka 4.2; KIP-195.

use std::collections::BTreeMap;

use super::image::Topic;
use super::placement::{check_replicas, place};
use super::record::MetadataRecord;
use super::topics::new_partition;
use super::{AssignmentError, Controller, Decision, ManualAssignment, TopicRules};
use crate::types::{BrokerId, ErrorCode, PartitionId, TopicId};

/// A request to add partitions to topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatePartitions {
    /// The topics.
    pub topics: Vec<GrowTopic>,
    /// Check and answer only, add nothing.
    pub validate_only: bool,
}

/// A topic that is to have more partitions, as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrowTopic {
    /// Its name.
    pub name: String,
    /// How many partitions it is to have in all.
    pub partitions: i32,
    /// The brokers of each new partition, the preferred leader first, if the client says so.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// A topic that grew, or with `validate_only` would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrownTopic {
    /// Its id.
    pub id: TopicId,
    /// The new partitions, by index.
    pub added: Vec<PartitionId>,
}

/// Why a topic does not grow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreatePartitionsError {
    /// No topic has this name.
    #[error("no topic has this name")]
    Unknown,
    /// The request names the topic more than once.
    #[error("the topic is in the request more than once")]
    Repeated,
    /// The topic has as many partitions, or more.
    #[error("the topic has {existing} partition(s); {partitions} would not be more")]
    NotMore {
        /// Those that it has.
        existing: usize,
        /// The number wanted, as it came.
        partitions: i32,
    },
    /// There are more or fewer assignments than new partitions.
    #[error("{assignments} assignment(s) are given for {added} new partition(s)")]
    AssignmentCount {
        /// How many are given.
        assignments: usize,
        /// How many partitions are to be added.
        added: usize,
    },
    /// An assignment does not fit.
    #[error("{0}")]
    Assignment(#[from] AssignmentError),
    /// There are fewer brokers than replicas of the topic.
    #[error("the replication factor {replication_factor} cannot be reached with {brokers} registered broker(s)")]
    TooFewBrokers {
        /// The replicas of the topic's partitions.
        replication_factor: usize,
        /// The brokers registered.
        brokers: usize,
    },
    /// More partitions than a topic may have.
    #[error("{partitions} partitions are more than the {max} that a topic may have")]
    TopicTooLarge {
        /// The partitions wanted.
        partitions: usize,
        /// The limit.
        max: usize,
    },
    /// More partitions than the cluster may have.
    #[error("{added} more partitions on top of {existing} are more than the {max} that the cluster may have")]
    ClusterFull {
        /// The partitions to be added.
        added: usize,
        /// Those that exist or were granted earlier in the request.
        existing: usize,
        /// The limit.
        max: usize,
    },
}

impl CreatePartitionsError {
    /// Kafka's code for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            CreatePartitionsError::Unknown => ErrorCode::UnknownTopicOrPartition,
            CreatePartitionsError::Repeated => ErrorCode::InvalidRequest,
            CreatePartitionsError::NotMore { .. } => ErrorCode::InvalidPartitions,
            CreatePartitionsError::AssignmentCount { .. } | CreatePartitionsError::Assignment(_) => {
                ErrorCode::InvalidReplicaAssignment
            }
            CreatePartitionsError::TooFewBrokers { .. } => ErrorCode::InvalidReplicationFactor,
            CreatePartitionsError::TopicTooLarge { .. } | CreatePartitionsError::ClusterFull { .. } => {
                ErrorCode::PolicyViolation
            }
        }
    }
}

impl Controller {
    /// Adds partitions to topics. Answers once for each name, in the order in which the request names them first. A topic
    /// that the request names more than once does not grow.
    pub fn create_partitions(
        &self,
        request: &CreatePartitions,
        rules: &TopicRules,
    ) -> Decision<Vec<(String, Result<GrownTopic, CreatePartitionsError>)>> {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        request.topics.iter().for_each(|topic| *times.entry(&topic.name).or_default() += 1);
        let image = self.image();
        let mut growth = Growth {
            controller: self,
            rules,
            brokers: image.brokers().map(|registration| registration.broker).collect(),
            partitions: image.partitions_len(),
            records: Vec::new(),
        };
        let mut response = Vec::with_capacity(times.len());
        for topic in &request.topics {
            let name = topic.name.clone();
            match times.remove(topic.name.as_str()) {
                Some(1) => response.push((name, growth.grow(topic))),
                Some(_) => response.push((name, Err(CreatePartitionsError::Repeated))),
                // It was answered where the request names it first.
                None => {}
            }
        }
        let records = if request.validate_only { Vec::new() } else { growth.records };
        Decision { records, response }
    }
}

/// A request to add partitions at work: what it has granted so far counts for the topics that follow.
struct Growth<'a> {
    controller: &'a Controller,
    rules: &'a TopicRules,
    brokers: Vec<BrokerId>,
    /// Partitions of the cluster, with those granted.
    partitions: usize,
    records: Vec<MetadataRecord>,
}

impl Growth<'_> {
    fn grow(&mut self, wanted: &GrowTopic) -> Result<GrownTopic, CreatePartitionsError> {
        let topic = self.controller.image().topic_by_name(&wanted.name).ok_or(CreatePartitionsError::Unknown)?.clone();
        let existing = topic.partitions.len();
        let partitions = usize::try_from(wanted.partitions).ok().filter(|&partitions| partitions > existing);
        let partitions =
            partitions.ok_or(CreatePartitionsError::NotMore { existing, partitions: wanted.partitions })?;
        self.check_limits(partitions, partitions - existing)?;
        let placed = match &wanted.assignments {
            Some(assignments) => self.assigned(&topic, partitions, assignments)?,
            None => self.placed(&topic, partitions)?,
        };
        assert_eq!(placed.len(), partitions - existing, "one placement for each new partition");

        self.partitions += placed.len();
        let indexes = existing..partitions;
        let new: Vec<_> = indexes.zip(placed).map(|(index, replicas)| new_partition(index, replicas)).collect();
        let added = new.iter().map(|partition| partition.index).collect();
        self.records.push(MetadataRecord::PartitionsAdded { topic: topic.id, partitions: new });
        Ok(GrownTopic { id: topic.id, added })
    }

    fn check_limits(&self, partitions: usize, added: usize) -> Result<(), CreatePartitionsError> {
        let max = self.rules.topic_partitions_max;
        if partitions > max {
            return Err(CreatePartitionsError::TopicTooLarge { partitions, max });
        }
        let (existing, max) = (self.partitions, self.rules.cluster_partitions_max);
        if added > max.saturating_sub(existing) {
            return Err(CreatePartitionsError::ClusterFull { added, existing, max });
        }
        Ok(())
    }

    /// The replicas of the new partitions as the client wrote them.
    fn assigned(
        &self,
        topic: &Topic,
        partitions: usize,
        assignments: &[Vec<i32>],
    ) -> Result<Vec<Vec<BrokerId>>, CreatePartitionsError> {
        let existing = topic.partitions.len();
        let added = partitions - existing;
        if assignments.len() != added {
            return Err(CreatePartitionsError::AssignmentCount { assignments: assignments.len(), added });
        }
        let others = replication_factor(topic);
        let assigned = (wire_index(existing)..).zip(assignments).map(|(partition, brokers)| {
            let replicas = check_replicas(&ManualAssignment { partition, brokers: brokers.clone() }, &self.brokers)?;
            if replicas.len() != others {
                return Err(AssignmentError::Uneven { partition, replicas: replicas.len(), others }.into());
            }
            Ok(replicas)
        });
        assigned.collect()
    }

    /// The replicas of the new partitions by rule.
    fn placed(&self, topic: &Topic, partitions: usize) -> Result<Vec<Vec<BrokerId>>, CreatePartitionsError> {
        let (replication_factor, brokers) = (replication_factor(topic), self.brokers.len());
        if replication_factor > brokers {
            return Err(CreatePartitionsError::TooFewBrokers { replication_factor, brokers });
        }
        Ok(place(topic.id, topic.partitions.len()..partitions, replication_factor, &self.brokers))
    }
}

/// The replicas of the topic's partitions; all have as many.
fn replication_factor(topic: &Topic) -> usize {
    topic.partitions.first().expect("a topic has a partition").replicas.len()
}

/// The index of a partition that exists, or comes next, as clients write it.
fn wire_index(index: usize) -> i32 {
    i32::try_from(index).expect("partitions are limited far below 2^31")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::tests::{RULES, broker, commit, controller_of, create, partition_at, topic};
    use crate::controller::{CreateTopic, CreateTopics};
    use crate::types::{LeaderEpoch, PartitionEpoch};

    fn grow(name: &str, partitions: i32) -> GrowTopic {
        GrowTopic { name: name.into(), partitions, assignments: None }
    }

    fn assigned(name: &str, partitions: i32, assignments: &[&[i32]]) -> GrowTopic {
        let assignments = Some(assignments.iter().map(|brokers| brokers.to_vec()).collect());
        GrowTopic { assignments, ..grow(name, partitions) }
    }

    fn request(topics: Vec<GrowTopic>) -> CreatePartitions {
        CreatePartitions { topics, validate_only: false }
    }

    fn refusal(controller: &Controller, wanted: GrowTopic) -> CreatePartitionsError {
        let mut decision = controller.create_partitions(&request(vec![wanted]), &RULES);
        assert_eq!(decision.records, []);
        decision.response.pop().expect("one answer").1.expect_err("refused")
    }

    /// A topic `t` of one partition with two replicas.
    fn replicated(controller: &mut Controller) -> TopicId {
        let wanted = CreateTopic { partitions: Some(1), replication_factor: Some(2), ..topic("t") };
        let request = CreateTopics { topics: vec![wanted], validate_only: false };
        let decision = controller.create_topics(&request, &RULES, &|_, _| Ok(()));
        commit(controller, decision).pop().expect("one answer").1.expect("created").id
    }

    #[test]
    fn a_topic_grows_by_partitions_in_their_first_state_and_keeps_those_that_it_has() {
        let mut controller = controller_of(3);
        let id = create(&mut controller, "t", 2);
        let before = [0, 1].map(|index| partition_at(&controller, id, index));
        let decision = controller.create_partitions(&request(vec![grow("t", 5)]), &RULES);
        assert_eq!(decision.records.len(), 1);
        let grown = commit(&mut controller, decision).remove(0).1.expect("granted");
        assert_eq!((grown.id, grown.added.iter().map(|added| added.value()).collect()), (id, vec![2, 3, 4]));
        assert_eq!([0, 1].map(|index| partition_at(&controller, id, index)), before);
        let last = partition_at(&controller, id, 4);
        assert_eq!((last.leader, &last.isr), (Some(last.replicas[0]), &last.replicas));
        assert_eq!((last.leader_epoch, last.partition_epoch), (LeaderEpoch::ZERO, PartitionEpoch::ZERO));
        assert_eq!(controller.image().partitions_len(), 5);
    }

    #[test]
    fn a_topic_that_grew_is_placed_as_one_that_was_created_so() {
        let (mut grown, mut created) = (controller_of(3), controller_of(3));
        let id = create(&mut grown, "t", 2);
        for partitions in [3, 7] {
            let decision = grown.create_partitions(&request(vec![grow("t", partitions)]), &RULES);
            let _ = commit(&mut grown, decision);
        }
        assert_eq!(create(&mut created, "t", 7), id);
        assert_eq!(grown.image().topic(id), created.image().topic(id));
    }

    #[test]
    fn the_client_may_assign_brokers_itself() {
        let mut controller = controller_of(3);
        let id = replicated(&mut controller);
        let decision = controller.create_partitions(&request(vec![assigned("t", 3, &[&[3, 1], &[2, 3]])]), &RULES);
        let _ = commit(&mut controller, decision);
        assert_eq!(partition_at(&controller, id, 1).replicas, [broker(3), broker(1)]);
        assert_eq!(partition_at(&controller, id, 2).leader, Some(broker(2)));
    }

    #[test]
    fn refusals_have_kafkas_codes_and_say_why() {
        let mut controller = controller_of(3);
        let _ = replicated(&mut controller);
        let partition = 1;
        let cases = [
            (grow("u", 2), CreatePartitionsError::Unknown, ErrorCode::UnknownTopicOrPartition),
            (grow("a b", 2), CreatePartitionsError::Unknown, ErrorCode::UnknownTopicOrPartition),
            (
                grow("t", 21),
                CreatePartitionsError::TopicTooLarge { partitions: 21, max: 20 },
                ErrorCode::PolicyViolation,
            ),
            (
                assigned("t", 3, &[&[1, 2]]),
                CreatePartitionsError::AssignmentCount { assignments: 1, added: 2 },
                ErrorCode::InvalidReplicaAssignment,
            ),
            (
                assigned("t", 2, &[]),
                CreatePartitionsError::AssignmentCount { assignments: 0, added: 1 },
                ErrorCode::InvalidReplicaAssignment,
            ),
            (
                assigned("t", 2, &[&[1, 4]]),
                AssignmentError::UnknownBroker { partition, broker: 4 }.into(),
                ErrorCode::InvalidReplicaAssignment,
            ),
            (
                assigned("t", 2, &[&[1, 1]]),
                AssignmentError::RepeatedBroker { partition, broker: 1 }.into(),
                ErrorCode::InvalidReplicaAssignment,
            ),
            (
                assigned("t", 2, &[&[]]),
                AssignmentError::Empty { partition }.into(),
                ErrorCode::InvalidReplicaAssignment,
            ),
            (
                assigned("t", 2, &[&[1]]),
                AssignmentError::Uneven { partition, replicas: 1, others: 2 }.into(),
                ErrorCode::InvalidReplicaAssignment,
            ),
        ];
        for (wanted, error, code) in cases {
            assert_eq!(refusal(&controller, wanted.clone()), error, "{wanted:?}");
            assert_eq!(error.code(), code, "{error}");
        }
        for partitions in [1, 0, -1, i32::MIN] {
            let error = refusal(&controller, grow("t", partitions));
            assert_eq!(error, CreatePartitionsError::NotMore { existing: 1, partitions });
            assert_eq!(error.code(), ErrorCode::InvalidPartitions);
        }
        assert_eq!(refusal(&controller, grow("t", i32::MAX)).code(), ErrorCode::PolicyViolation);
    }

    #[test]
    fn a_cluster_with_too_few_brokers_grows_no_topic_that_has_more_replicas() {
        let mut two = controller_of(2);
        let id = replicated(&mut two);
        let records: Vec<_> = two.image().snapshot().collect();
        let one: Vec<_> = records
            .into_iter()
            .filter(|record| !matches!(record, MetadataRecord::BrokerRegistered(b) if b.broker == broker(2)))
            .collect();
        let image = super::super::ClusterImage::from_snapshot(two.image().version(), &one).expect("fits");
        assert!(image.topic(id).is_some());
        let error = refusal(&Controller::from_image(image), grow("t", 2));
        assert_eq!(error, CreatePartitionsError::TooFewBrokers { replication_factor: 2, brokers: 1 });
        assert_eq!(error.code(), ErrorCode::InvalidReplicationFactor);
    }

    #[test]
    fn each_topic_of_a_request_has_its_own_result_and_counts_for_those_after_it() {
        let mut controller = controller_of(1);
        for name in ["a", "b", "c", "d"] {
            let _ = create(&mut controller, name, 1);
        }
        let wanted = vec![grow("b", 3), grow("a", 20), grow("x", 9), grow("c", 9), grow("b", 4), grow("d", 8)];
        let decision = controller.create_partitions(&request(wanted), &RULES);
        let codes: Vec<_> = decision
            .response
            .iter()
            .map(|(name, result)| (name.as_str(), result.as_ref().map_or_else(|e| e.code(), |_| ErrorCode::None)))
            .collect();
        let expected = [
            ("b", ErrorCode::InvalidRequest),
            ("a", ErrorCode::None),
            ("x", ErrorCode::UnknownTopicOrPartition),
            ("c", ErrorCode::PolicyViolation),
            ("d", ErrorCode::None),
        ];
        assert_eq!(codes, expected);
        assert_eq!(decision.records.len(), 2);
        let full = CreatePartitionsError::ClusterFull { added: 8, existing: 23, max: 30 };
        assert_eq!(decision.response[3].1, Err(full));
        let _ = commit(&mut controller, decision);
        assert_eq!(controller.image().partitions_len(), 30);
    }

    #[test]
    fn validation_only_answers_alike_and_decides_nothing() {
        let mut controller = controller_of(1);
        let _ = create(&mut controller, "t", 1);
        let mut wanted = request(vec![grow("t", 2), grow("u", 2)]);
        let real = controller.create_partitions(&wanted, &RULES);
        wanted.validate_only = true;
        let tried = controller.create_partitions(&wanted, &RULES);
        assert_eq!(tried.response, real.response);
        assert_eq!((tried.records.len(), real.records.len()), (0, 1));
    }
}
