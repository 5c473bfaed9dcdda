//! Which shard owns which partition.
//!
//! The partitions of a topic go round the shards, from the topic's first one on; the first one is chosen so that partitions
//! are spread evenly. The first shard chooses, at start for every topic and later for each new one, and tells the others; the
//! data directory does not know of it, so that a restart may have any number of shards.
//!
//! Invariant: a topic's first shard never changes while the broker runs, and with it no partition's owner.

use std::collections::BTreeMap;

use crate::types::{ShardId, TopicId, TopicPartition};

/// The owners of all partitions, as one shard knows them.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    first: BTreeMap<TopicId, ShardId>,
    /// Partitions that each shard owns. Only the first shard, which chooses, keeps them.
    loads: Vec<usize>,
}

impl Owners {
    /// No partition yet, on `shards` shards, at least one.
    pub(super) fn new(shards: u16) -> Owners {
        assert!(shards > 0);
        Owners { first: BTreeMap::new(), loads: vec![0; usize::from(shards)] }
    }

    /// The owner of `at`; `None` as long as its topic has no place.
    pub(super) fn owner(&self, at: TopicPartition) -> Option<ShardId> {
        let first = usize::from(self.first.get(&at.topic)?.0);
        let index = usize::try_from(at.partition.value()).ok()?;
        Some(shard((first + index) % self.loads.len()))
    }

    /// Chooses the first shard of a topic of `partitions` partitions, unless it has one: the one from which on those
    /// partitions that do not go round evenly meet the least loaded shards.
    pub(super) fn place(&mut self, topic: TopicId, partitions: usize) -> ShardId {
        if let Some(first) = self.first.get(&topic) {
            return *first;
        }
        let shards = self.loads.len();
        let uneven = partitions % shards;
        let load = |first: usize| (0..uneven).map(|step| self.loads[(first + step) % shards]).sum::<usize>();
        let first = (0..shards).min_by_key(|first| load(*first)).expect("there is a shard");
        self.first.insert(topic, shard(first));
        self.count(topic, 0, partitions);
        shard(first)
    }

    /// Takes over what the first shard has chosen.
    pub(super) fn learn(&mut self, topic: TopicId, first: ShardId) {
        self.first.insert(topic, first);
    }

    /// A topic has grown from one number of partitions to another.
    pub(super) fn count(&mut self, topic: TopicId, from: usize, to: usize) {
        let Some(first) = self.first.get(&topic) else { return };
        let (first, shards) = (usize::from(first.0), self.loads.len());
        for index in from..to {
            self.loads[(first + index) % shards] += 1;
        }
    }

    /// A topic of `partitions` partitions is gone.
    pub(super) fn forget(&mut self, topic: TopicId, partitions: usize) {
        let Some(first) = self.first.remove(&topic) else { return };
        let (first, shards) = (usize::from(first.0), self.loads.len());
        for index in 0..partitions {
            let load = &mut self.loads[(first + index) % shards];
            *load = load.saturating_sub(1);
        }
    }
}

fn shard(index: usize) -> ShardId {
    ShardId(u16::try_from(index).expect("fewer than 65 536 shards"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PartitionId;

    fn topic(number: u8) -> TopicId {
        TopicId::from_bytes([number; 16])
    }

    fn at(number: u8, index: i32) -> TopicPartition {
        TopicPartition { topic: topic(number), partition: PartitionId::new(index).expect("not negative") }
    }

    #[test]
    fn partitions_go_round_and_topics_begin_where_least_lies() {
        let mut owners = Owners::new(3);
        assert_eq!(owners.owner(at(1, 0)), None);
        assert_eq!(owners.place(topic(1), 4), ShardId(0));
        let of = |owners: &Owners, number, index| owners.owner(at(number, index)).map(|shard| shard.0);
        assert_eq!((0..4).map(|index| of(&owners, 1, index)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(owners.place(topic(2), 1), ShardId(1));
        assert_eq!(owners.place(topic(3), 1), ShardId(2));
        assert_eq!(owners.loads, [2, 2, 2]);
        assert_eq!(owners.place(topic(2), 1), ShardId(1), "a topic keeps its place");
        owners.count(topic(2), 1, 3);
        assert_eq!(owners.loads, [3, 2, 3]);
        owners.forget(topic(1), 4);
        assert_eq!((owners.loads.as_slice(), of(&owners, 1, 0)), (&[1, 1, 2][..], None));
    }

    #[test]
    fn single_partition_topics_are_spread_evenly() {
        let mut owners = Owners::new(4);
        for number in 0..102 {
            owners.place(topic(number), 1);
        }
        assert_eq!(owners.loads.iter().map(|load| load / 25).collect::<Vec<_>>(), [1, 1, 1, 1]);
    }

    #[test]
    fn what_one_shard_chose_another_learns() {
        let (mut first, mut other) = (Owners::new(4), Owners::new(4));
        for number in 0..9 {
            other.learn(topic(number), first.place(topic(number), 3));
        }
        for (number, index) in [(0, 0), (3, 2), (8, 1)] {
            assert_eq!(first.owner(at(number, index)), other.owner(at(number, index)));
        }
    }
}
