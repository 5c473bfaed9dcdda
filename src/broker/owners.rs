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
    topics: BTreeMap<TopicId, Place>,
    /// Partitions that each shard owns. Only the first shard, which chooses, keeps them.
    loads: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    first: ShardId,
    /// Partitions that are counted in the loads.
    partitions: usize,
}

impl Owners {
    /// No partition yet, on `shards` shards, at least one.
    pub(super) fn new(shards: u16) -> Owners {
        assert!(shards > 0);
        Owners { topics: BTreeMap::new(), loads: vec![0; usize::from(shards)] }
    }

    /// The owner of `at`; `None` as long as its topic has no place.
    pub(super) fn owner(&self, at: TopicPartition) -> Option<ShardId> {
        let first = usize::from(self.topics.get(&at.topic)?.first.0);
        let index = usize::try_from(at.partition.value()).ok()?;
        Some(shard((first + index) % self.loads.len()))
    }

    /// Chooses the first shard of a topic of `partitions` partitions, unless it has one: the one from which on those
    /// partitions that do not go round evenly meet the least loaded shards.
    pub(super) fn place(&mut self, topic: TopicId, partitions: usize) -> ShardId {
        if let Some(place) = self.topics.get(&topic) {
            return place.first;
        }
        let shards = self.loads.len();
        let uneven = partitions % shards;
        let load = |first: usize| (0..uneven).map(|step| self.loads[(first + step) % shards]).sum::<usize>();
        let first = (0..shards).min_by_key(|first| load(*first)).expect("there is a shard");
        self.learn(topic, shard(first));
        self.grow(topic, partitions);
        shard(first)
    }

    /// Takes over what the first shard has chosen.
    pub(super) fn learn(&mut self, topic: TopicId, first: ShardId) {
        self.topics.entry(topic).or_insert(Place { first, partitions: 0 });
    }

    /// A topic has got `added` more partitions.
    pub(super) fn grow(&mut self, topic: TopicId, added: usize) {
        let Some(place) = self.topics.get_mut(&topic) else { return };
        for index in place.partitions..place.partitions + added {
            let shards = self.loads.len();
            self.loads[(usize::from(place.first.0) + index) % shards] += 1;
        }
        place.partitions += added;
    }

    /// A topic is gone.
    pub(super) fn forget(&mut self, topic: TopicId) {
        let Some(place) = self.topics.remove(&topic) else { return };
        for index in 0..place.partitions {
            let shards = self.loads.len();
            self.loads[(usize::from(place.first.0) + index) % shards] -= 1;
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
        owners.grow(topic(2), 2);
        assert_eq!(owners.loads, [3, 2, 3]);
        owners.forget(topic(1));
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
