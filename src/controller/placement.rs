//! Which brokers hold new partitions: by rule, or as the client wrote it down.
//!
//! By rule, leaders go round the brokers from a start that the topic's random id gives, so that topics do not all begin at
//! one broker; the followers of each next round over the brokers are shifted by one more, so that the partitions of a broker
//! that fails are spread over all others. Racks are not considered.
//!
//! Source: Kafka's assignment of replicas to brokers (KIP-36, without racks).

use std::ops::Range;

use super::topics::ManualAssignment;
use crate::types::{BrokerId, TopicId};

/// Why a client's assignment of replicas is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// A partition is assigned more than once.
    #[error("partition {partition} is assigned more than once")]
    Repeated {
        /// The partition's index.
        partition: i32,
    },
    /// The indexes are not 0, 1, ... without a gap.
    #[error("partition {partition} is assigned, but the topic would have {partitions} partitions, indexed from 0")]
    Gap {
        /// An index outside.
        partition: i32,
        /// How many partitions are assigned.
        partitions: usize,
    },
    /// A partition has no replicas.
    #[error("partition {partition} is assigned to no broker")]
    Empty {
        /// The partition's index.
        partition: i32,
    },
    /// A broker is not registered.
    #[error("partition {partition} is assigned to broker {broker}, which is not registered")]
    UnknownBroker {
        /// The partition's index.
        partition: i32,
        /// The broker's id, as it came.
        broker: i32,
    },
    /// A partition has a broker twice.
    #[error("partition {partition} is assigned to broker {broker} more than once")]
    RepeatedBroker {
        /// The partition's index.
        partition: i32,
        /// The broker's id.
        broker: i32,
    },
    /// Partitions differ in their number of replicas.
    #[error("partition {partition} has {replicas} replicas, others of the topic have {others}")]
    Uneven {
        /// The partition's index.
        partition: i32,
        /// Its replicas.
        replicas: usize,
        /// Those of partition 0.
        others: usize,
    },
}

/// The replicas of the topic's partitions of these indexes, `replication_factor` each, the leader first. Where a partition
/// goes depends on no other one, so that a topic can grow.
///
/// `brokers` are distinct and at least as many as `replication_factor`, which is at least 1.
pub(super) fn place(
    topic: TopicId,
    partitions: Range<usize>,
    replication_factor: usize,
    brokers: &[BrokerId],
) -> Vec<Vec<BrokerId>> {
    assert!((1..=brokers.len()).contains(&replication_factor), "the caller checks the replication factor");
    let random = u128::from_be_bytes(topic.bytes());
    // Both below the number of brokers, from halves of the id that hold no fixed bits of the UUID at their ends.
    let start = (random % brokers.len() as u128) as usize;
    let shift = ((random >> 96) % brokers.len() as u128) as usize;
    let replicas = |partition: usize| {
        let leader = start + partition;
        let shift = shift + partition / brokers.len();
        (0..replication_factor)
            .map(|replica| {
                let distance = if replica == 0 { 0 } else { 1 + (shift + replica - 1) % (brokers.len() - 1) };
                brokers[(leader + distance) % brokers.len()]
            })
            .collect()
    };
    partitions.map(replicas).collect()
}

/// The replicas of each partition, in the order of the partitions, as a client assigned them to some of `brokers`.
pub(super) fn check_assignment(
    assignments: &[ManualAssignment],
    brokers: &[BrokerId],
) -> Result<Vec<Vec<BrokerId>>, AssignmentError> {
    let partitions = assignments.len();
    let mut placed: Vec<Option<Vec<BrokerId>>> = vec![None; partitions];
    for assignment in assignments {
        let partition = assignment.partition;
        let slot = usize::try_from(partition).ok().and_then(|index| placed.get_mut(index));
        let slot = slot.ok_or(AssignmentError::Gap { partition, partitions })?;
        if slot.is_some() {
            return Err(AssignmentError::Repeated { partition });
        }
        *slot = Some(check_replicas(assignment, brokers)?);
    }
    // As many as there are slots, and no slot was filled twice: none is empty.
    let placed: Vec<_> = placed.into_iter().flatten().collect();
    let others = placed.first().map_or(0, Vec::len);
    for (partition, replicas) in (0..).zip(&placed) {
        if replicas.len() != others {
            return Err(AssignmentError::Uneven { partition, replicas: replicas.len(), others });
        }
    }
    Ok(placed)
}

/// The replicas of one partition as a client assigned them to some of `brokers`.
pub(super) fn check_replicas(
    assignment: &ManualAssignment,
    brokers: &[BrokerId],
) -> Result<Vec<BrokerId>, AssignmentError> {
    let partition = assignment.partition;
    if assignment.brokers.is_empty() {
        return Err(AssignmentError::Empty { partition });
    }
    let mut replicas = Vec::with_capacity(assignment.brokers.len().min(brokers.len()));
    for &broker in &assignment.brokers {
        let known = BrokerId::new(broker).filter(|broker| brokers.contains(broker));
        let known = known.ok_or(AssignmentError::UnknownBroker { partition, broker })?;
        if replicas.contains(&known) {
            return Err(AssignmentError::RepeatedBroker { partition, broker });
        }
        replicas.push(known);
    }
    Ok(replicas)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::controller::tests::broker;

    fn brokers(count: i32) -> Vec<BrokerId> {
        (1..=count).map(broker).collect()
    }

    fn assignment(partition: i32, brokers: &[i32]) -> ManualAssignment {
        ManualAssignment { partition, brokers: brokers.to_vec() }
    }

    #[test]
    fn leaders_and_replicas_are_spread_evenly() {
        for (count, factor) in [(1, 1), (2, 2), (3, 3), (5, 3), (7, 2)] {
            let partitions = 20 * count as usize;
            let placed = place(TopicId::from_random(0x1234_5678 << 90), 0..partitions, factor, &brokers(count));
            let (mut leaders, mut held) = (BTreeMap::new(), BTreeMap::new());
            for replicas in &placed {
                assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), factor, "{replicas:?}");
                *leaders.entry(replicas[0]).or_insert(0) += 1;
                replicas.iter().for_each(|broker| *held.entry(*broker).or_insert(0) += 1);
            }
            assert!(leaders.len() == count as usize && leaders.values().all(|&n| n == 20), "{leaders:?}");
            assert!(held.values().all(|&n| n == 20 * factor), "{held:?}");
        }
    }

    #[test]
    fn the_load_of_a_broker_that_fails_falls_on_all_others() {
        let placed = place(TopicId::from_random(7), 0..40, 2, &brokers(5));
        let heirs: BTreeSet<_> = placed.iter().filter(|r| r[0] == broker(1)).map(|r| r[1]).collect();
        assert_eq!(heirs.len(), 4);
    }

    #[test]
    fn the_start_depends_on_the_topic() {
        let starts: BTreeSet<_> = (0..64).map(|id| place(TopicId::from_random(id), 0..1, 1, &brokers(4))).collect();
        assert_eq!(starts.len(), 4);
    }

    #[test]
    fn assignments_are_taken_in_the_order_of_partitions() {
        let placed = check_assignment(&[assignment(1, &[2, 1]), assignment(0, &[3, 2])], &brokers(3));
        assert_eq!(placed, Ok(vec![vec![broker(3), broker(2)], vec![broker(2), broker(1)]]));
    }

    #[test]
    fn bad_assignments_are_named() {
        let refused = |assignments: &[ManualAssignment]| check_assignment(assignments, &brokers(3)).unwrap_err();
        let ok = assignment(0, &[1, 2]);
        assert_eq!(refused(&[ok.clone(), ok.clone()]), AssignmentError::Repeated { partition: 0 });
        let gap = |partition| AssignmentError::Gap { partition, partitions: 2 };
        assert_eq!(refused(&[ok.clone(), assignment(2, &[1, 2])]), gap(2));
        assert_eq!(refused(&[ok.clone(), assignment(-1, &[1, 2])]), gap(-1));
        assert_eq!(refused(&[assignment(0, &[])]), AssignmentError::Empty { partition: 0 });
        for broker in [4, -1] {
            let unknown = AssignmentError::UnknownBroker { partition: 0, broker };
            assert_eq!(refused(&[assignment(0, &[1, broker])]), unknown);
        }
        assert_eq!(refused(&[assignment(0, &[2, 2])]), AssignmentError::RepeatedBroker { partition: 0, broker: 2 });
        let uneven = AssignmentError::Uneven { partition: 1, replicas: 1, others: 2 };
        assert_eq!(refused(&[ok, assignment(1, &[3])]), uneven);
    }
}
