//! One core's world: the partitions it owns, the connections it serves, and what its handlers share.
//!
//! Everything hangs off this object and nothing off the process. Partitions are found by topic id and index; names are looked
//! up in the cluster's image, so that there is one truth about them. Image and owners come from the first shard.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::admissions::{Admissions, ConnectionLimits};
use super::budgets::Budgets;
use super::configs::CurrentConfig;
use super::connection::Connection;
use super::data_directory::DataDirectory;
use super::fetch::across::AskedFetches;
use super::fetch_sessions::{FetchSessions, SessionLimits};
use super::first::First;
use super::listeners::{Endpoint, ListenerId};
use super::mail::{Post, View};
use super::owners::Owners;
use super::produce::ProduceAnswer;
use super::produce::lanes::Lanes;
use crate::config::BrokerConfig;
use crate::controller::ClusterImage;
use crate::metrics::Recording;
use crate::partition::Partition;
use crate::record::{Decompressors, Recompressor};
use crate::runtime::sync::Notify;
use crate::runtime::{metrics, random_u64};
use crate::storage::Storage;
use crate::types::{BrokerId, ClusterId, ErrorCode, LeaderEpoch, PartitionId, ShardId, TopicId, TopicPartition};
use crate::wire::TopicKey;

/// The shard that has the metadata log, accepts connections and starts and stops the others.
pub(super) const FIRST: ShardId = ShardId(0);

/// Bytes of the buffer in which headers of answers are encoded, until the next one is needed.
const RESPONSE_BUFFER_BYTES: usize = 16 << 10;

/// The partitions of one topic that this shard leads, by index.
pub(super) type TopicPartitions = Vec<Option<Rc<Partition>>>;

/// The state of one shard.
pub(super) struct Shard {
    pub(super) data: DataDirectory,
    pub(super) metrics: Recording,
    pub(super) storage: Rc<Storage>,
    pub(super) post: Post,
    pub(super) admissions: Admissions,
    /// What other shards have asked for and wait for.
    pub(super) asked_fetches: AskedFetches,
    pub(super) fetch_sessions: RefCell<FetchSessions>,
    pub(super) produce_lanes: Lanes,
    pub(super) decompressors: RefCell<Decompressors>,
    pub(super) recompressor: RefCell<Recompressor>,
    /// Where answers to Produce and Fetch are encoded; pieces of it are split off.
    pub(super) response_buffer: RefCell<BytesMut>,
    /// Answers to Produce that have been sent, emptied, for the next ones.
    #[expect(clippy::vec_box, reason = "they go on to the next connection in their boxes")]
    pub(super) spare_answers: RefCell<Vec<Box<ProduceAnswer>>>,
    /// Called when the shard is to leave the mesh.
    pub(super) ended: Notify,
    first: Option<First>,
    pub(super) configs: CurrentConfig,
    node: BrokerId,
    shards: u16,
    budgets: Budgets,
    endpoints: Vec<Endpoint>,
    image: RefCell<Arc<ClusterImage>>,
    owners: RefCell<Owners>,
    partitions: RefCell<BTreeMap<TopicId, TopicPartitions>>,
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    next_connection: Cell<u64>,
    next_ticket: Cell<u64>,
    draining: Cell<bool>,
    drained: Notify,
}

/// What a shard is made of.
pub(super) struct Parts {
    pub(super) config: Arc<BrokerConfig>,
    pub(super) storage: Rc<Storage>,
    pub(super) post: Post,
    pub(super) admissions: Admissions,
    pub(super) first: Option<First>,
    pub(super) setup: Setup,
}

/// What the first shard tells every shard when it begins.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) data: DataDirectory,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) image: Arc<ClusterImage>,
    pub(super) owners: Owners,
}

impl Shard {
    pub(super) fn new(parts: Parts) -> Rc<Shard> {
        let Parts { config, storage, post, admissions, first, setup } = parts;
        Rc::new(Shard {
            fetch_sessions: RefCell::new(FetchSessions::new(
                SessionLimits::new(&config, post.shard(), config.shards),
                post.shard(),
                config.shards,
                random_u64(),
            )),
            budgets: Budgets::new(&config, config.shards),
            node: config.node_id,
            shards: config.shards,
            // A copy of its own: shards share no counter that every request touches.
            configs: CurrentConfig::new(Rc::new(BrokerConfig::clone(&config))),
            data: setup.data,
            metrics: metrics(),
            storage,
            post,
            admissions,
            asked_fetches: AskedFetches::default(),
            produce_lanes: Lanes::default(),
            first,
            endpoints: setup.endpoints,
            image: RefCell::new(setup.image),
            owners: RefCell::new(setup.owners),
            decompressors: RefCell::new(Decompressors::new()),
            recompressor: RefCell::new(Recompressor::new()),
            response_buffer: RefCell::new(BytesMut::with_capacity(RESPONSE_BUFFER_BYTES)),
            spare_answers: RefCell::default(),
            ended: Notify::new(),
            partitions: RefCell::default(),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            next_ticket: Cell::new(0),
            draining: Cell::new(false),
            drained: Notify::new(),
        })
    }

    /// Which shard this is.
    pub(super) fn id(&self) -> ShardId {
        self.post.shard()
    }

    /// How many shards the broker has.
    pub(super) fn shards(&self) -> u16 {
        self.shards
    }

    /// What only the first shard has.
    ///
    /// # Panics
    /// On another shard.
    pub(super) fn first(&self) -> &First {
        self.first.as_ref().expect("what changes the cluster runs on the first shard")
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Rc<BrokerConfig> {
        self.configs.get()
    }

    /// The memory of this shard.
    pub(super) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    pub(super) fn node(&self) -> BrokerId {
        self.node
    }

    pub(super) fn cluster(&self) -> ClusterId {
        self.data.cluster()
    }

    /// The cluster as this shard knows it.
    pub(super) fn image(&self) -> Arc<ClusterImage> {
        self.image.borrow().clone()
    }

    /// Knows the cluster by `view` from now on; one that is older than what is known only adds its new topics.
    pub(super) fn see(&self, view: &View) {
        let mut owners = self.owners.borrow_mut();
        for (topic, first) in view.placed.iter() {
            owners.learn(*topic, *first);
        }
        let mut image = self.image.borrow_mut();
        if view.image.version() >= image.version() {
            *image = view.image.clone();
        }
    }

    /// Which shards own which partitions.
    pub(super) fn owners(&self) -> &RefCell<Owners> {
        &self.owners
    }

    /// The shard that owns `at`, if this broker has it.
    ///
    /// # Errors
    /// `LeaderNotAvailable` while the topic is new; `UnknownTopicOrPartition` if there is no such topic.
    pub(super) fn owner(&self, at: TopicPartition) -> Result<ShardId, ErrorCode> {
        self.owners.borrow().owner(at).ok_or_else(|| match self.image.borrow().topic(at.topic) {
            Some(_) => ErrorCode::LeaderNotAvailable,
            None => ErrorCode::UnknownTopicOrPartition,
        })
    }

    /// A number that no other request of this shard has.
    pub(super) fn next_ticket(&self) -> u64 {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        ticket
    }

    /// How many connections may be open.
    pub(super) fn connection_limits(&self) -> ConnectionLimits {
        let config = self.config();
        ConnectionLimits {
            all: config.connections_max as usize,
            per_address: config.connections_per_address_max as usize,
        }
    }

    /// Where clients of `listener` reach `broker`.
    pub(super) fn endpoint(&self, image: &ClusterImage, broker: BrokerId, listener: ListenerId) -> Option<Endpoint> {
        if broker == self.node() {
            return self.endpoints.get(listener.0).cloned();
        }
        let registered = image.broker(broker)?;
        let told = registered.listeners.get(listener.0)?;
        Some(Endpoint { host: told.host.clone(), port: told.port })
    }

    /// The topic that a request names.
    pub(super) fn topic_id(&self, image: &ClusterImage, topic: TopicKey<'_>) -> Result<TopicId, ErrorCode> {
        topic_id(image, topic)
    }

    /// The partition, if this shard leads it.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition` if there is none; `KafkaStorageError` if its log could not be opened;
    /// `NotLeaderOrFollower` if another broker leads it.
    pub(super) fn partition(&self, image: &ClusterImage, at: TopicPartition) -> Result<Rc<Partition>, ErrorCode> {
        let known = self.partitions.borrow();
        let index = usize::try_from(at.partition.value()).ok();
        let found = known.get(&at.topic).zip(index).and_then(|(topic, index)| topic.get(index)?.clone());
        found.ok_or_else(|| match image.partition(at) {
            None => ErrorCode::UnknownTopicOrPartition,
            Some(partition) if partition.leader == Some(self.node()) => ErrorCode::KafkaStorageError,
            Some(_) => ErrorCode::NotLeaderOrFollower,
        })
    }

    /// The partition, if the client's idea of its leadership is the same as ours.
    pub(super) fn led_partition(
        &self,
        image: &ClusterImage,
        at: TopicPartition,
        epoch: Option<LeaderEpoch>,
    ) -> Result<Rc<Partition>, ErrorCode> {
        let partition = self.partition(image, at)?;
        match epoch {
            Some(epoch) if epoch < partition.leader_epoch() => Err(ErrorCode::FencedLeaderEpoch),
            Some(epoch) if epoch > partition.leader_epoch() => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(partition),
        }
    }

    /// Serves a partition from now on.
    pub(super) fn add_partition(&self, at: TopicPartition, partition: Rc<Partition>) {
        let mut known = self.partitions.borrow_mut();
        let topic = known.entry(at.topic).or_default();
        let index = usize::try_from(at.partition.value()).expect("partition ids are not negative");
        if topic.len() <= index {
            topic.resize(index + 1, None);
        }
        topic[index] = Some(partition);
    }

    /// Serves the topic no more.
    pub(super) fn remove_topic(&self, topic: TopicId) -> TopicPartitions {
        self.partitions.borrow_mut().remove(&topic).unwrap_or_default()
    }

    /// Every partition that is served, by topic and index.
    pub(super) fn partitions(&self) -> Vec<Rc<Partition>> {
        self.partitions.borrow().values().flatten().flatten().cloned().collect()
    }

    /// Every partition of a topic that is served, by index.
    pub(super) fn partitions_of(&self, topic: TopicId) -> Vec<Rc<Partition>> {
        self.partitions.borrow().get(&topic).into_iter().flatten().flatten().cloned().collect()
    }

    /// The first `count` partitions behind `last`, by topic and index; from the first one on without it.
    pub(super) fn partitions_after(&self, last: Option<TopicPartition>, count: usize) -> Vec<Rc<Partition>> {
        entries_after(&self.partitions.borrow(), last).take(count).cloned().collect()
    }

    /// The partition ids of a topic that are served.
    pub(super) fn serves(&self, topic: TopicId, partition: PartitionId) -> bool {
        let index = usize::try_from(partition.value()).ok();
        let known = self.partitions.borrow();
        known.get(&topic).zip(index).is_some_and(|(topic, index)| topic.get(index).is_some_and(Option::is_some))
    }

    /// Keeps a connection in the books until the returned number is given to [`Shard::disconnected`].
    pub(super) fn connected(&self, connection: Rc<Connection>) -> u64 {
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        self.connections.borrow_mut().insert(number, connection);
        self.metrics.connections.add(1);
        number
    }

    pub(super) fn disconnected(&self, number: u64) {
        let mut connections = self.connections.borrow_mut();
        connections.remove(&number);
        self.metrics.connections.subtract(1);
        if connections.is_empty() {
            self.drained.notify();
        }
    }

    /// Every connection that is open now.
    pub(super) fn connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    pub(super) fn connections_len(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Whether no new work is taken.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Lets every connection answer what it has received, then ends it; returns when all have ended.
    pub(super) async fn drain(&self) {
        self.draining.set(true);
        for partition in self.partitions() {
            partition.wake();
        }
        for connection in self.connections() {
            connection.drain();
        }
        while self.connections_len() > 0 {
            self.drained.notified().await;
        }
    }
}

/// The topic that a request names, in the cluster as `image` has it.
pub(super) fn topic_id(image: &ClusterImage, topic: TopicKey<'_>) -> Result<TopicId, ErrorCode> {
    match topic {
        TopicKey::Name(name) => {
            image.topic_by_name(name).map(|topic| topic.id).ok_or(ErrorCode::UnknownTopicOrPartition)
        }
        TopicKey::Id(id) => image.topic(id).map(|topic| topic.id).ok_or(ErrorCode::UnknownTopicId),
    }
}

/// The partition of a request: the topic as it was found, and the index as the client gave it.
pub(super) fn at(topic: Result<TopicId, ErrorCode>, index: i32) -> Result<TopicPartition, ErrorCode> {
    let partition = PartitionId::new(index).ok_or(ErrorCode::UnknownTopicOrPartition);
    topic.and_then(|topic| Ok(TopicPartition { topic, partition: partition? }))
}

fn entries_after<T>(
    topics: &BTreeMap<TopicId, Vec<Option<T>>>,
    last: Option<TopicPartition>,
) -> impl Iterator<Item = &T> {
    let from = last.map_or(Bound::Unbounded, |last| Bound::Included(last.topic));
    topics.range((from, Bound::Unbounded)).flat_map(move |(topic, partitions)| {
        let seen =
            last.filter(|last| last.topic == *topic).and_then(|last| usize::try_from(last.partition.value()).ok());
        partitions.iter().skip(seen.map_or(0, |seen| seen + 1)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_gone_through_in_slices() {
        let topic = |byte| TopicId::from_bytes([byte; 16]);
        let at =
            |byte, index| TopicPartition { topic: topic(byte), partition: PartitionId::new(index).expect("small") };
        let here = |byte, index| Some((byte, index));
        let topics = BTreeMap::from([
            (topic(1), vec![here(1, 0), None, here(1, 2)]),
            (topic(2), vec![None]),
            (topic(4), vec![here(4, 0)]),
        ]);
        let after = |last| entries_after(&topics, last).copied().collect::<Vec<_>>();
        assert_eq!(after(None), [(1, 0), (1, 2), (4, 0)]);
        assert_eq!(after(Some(at(1, 0))), [(1, 2), (4, 0)]);
        assert_eq!(after(Some(at(1, 2))), [(4, 0)]);
        assert_eq!(after(Some(at(3, 7))), [(4, 0)], "a topic that was deleted meanwhile");
        assert_eq!(after(Some(at(4, 0))), []);
    }
}
