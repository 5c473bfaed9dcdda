//! One fetch session: the partitions that a client fetches, and what it was last told of each.
//!
//! The partitions stand in the order in which they are read. One that was told with records goes to the end, so that over
//! several fetches the limits on bytes fall on each in turn. A partition is told when it has records, an error or a hint, or
//! when one of its offsets differs from what was told last; after an error it is told once more, whatever it is.
//!
//! A topic is asked for by the name or the id that the client gave. Where the client gave an id, the name is learned from the
//! first image that has it: then a topic that is gone (UNKNOWN_TOPIC_OR_PARTITION) or that was made again under another id
//! (INCONSISTENT_TOPIC_ID) is told from one that is not known here yet (UNKNOWN_TOPIC_ID). None of them ends the session.
//!
//! Source: KIP-227; KIP-516 (topic ids in sessions).

use std::collections::HashMap;
use std::rc::Rc;

use super::ordered::{Ordered, Place};
use crate::controller::ClusterImage;
use crate::runtime::Instant;
use crate::types::{ErrorCode, Offset, TopicId, TopicName};
use crate::wire::TopicKey;
use crate::wire::fetch::{FetchPartition, FetchRequest, FetchSessionId, FetchedPartition};

/// Bytes that a partition of a session is counted as: its entries in the list and in the index, and as much again, since
/// both grow by doubling.
pub(super) const PARTITION_BYTES: usize = 2 * (size_of::<Partition>() + 16 + size_of::<(PartitionKey, Place)>() + 1);
/// Bytes that a topic is counted as, beside those of its name in the request.
pub(super) const TOPIC_BYTES: usize = 2 * (size_of::<Topic>() + 16 + size_of::<(Rc<str>, Place)>() + 1);
/// Bytes that a session is counted as, beside its topics and partitions: its entries among all sessions, and what its lists
/// and maps take at least.
pub(super) const SESSION_BYTES: usize = 2 * (size_of::<Session>() + 64) + 512;

/// A partition in its session: the place of its topic, and its index as the client wrote it.
type PartitionKey = (Place, i32);

/// What was told of a partition, as far as the next answer depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::broker) struct Told {
    offsets: ToldOffsets,
    failed: bool,
    has_records: bool,
    has_hint: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ToldOffsets {
    high_watermark: Option<Offset>,
    last_stable: Option<Offset>,
    log_start: Option<Offset>,
}

impl Told {
    /// What the client learns when `partition` is sent with so many bytes of records.
    pub(in crate::broker) fn of(partition: &FetchedPartition<'_>, records_bytes: usize) -> Told {
        Told {
            offsets: ToldOffsets {
                high_watermark: partition.high_watermark,
                last_stable: partition.last_stable_offset,
                log_start: partition.log_start_offset,
            },
            failed: partition.error != ErrorCode::None,
            has_records: records_bytes > 0,
            has_hint: partition.preferred_read_replica.is_some() || partition.diverging_epoch.is_some(),
        }
    }

    /// What a later answer is compared with; nothing after an error.
    fn lasting(&self) -> Option<ToldOffsets> {
        if self.failed { None } else { Some(self.offsets) }
    }
}

/// A topic as the client names it.
enum Key {
    Name(Rc<str>),
    Id(TopicId),
}

struct Topic {
    key: Key,
    /// The name that an id was once known under.
    name: Option<TopicName>,
    /// Its id in the image that the session was last resolved with.
    found: Result<TopicId, ErrorCode>,
    partitions: usize,
}

impl Topic {
    fn new(key: Key) -> Topic {
        Topic { key, name: None, found: Err(ErrorCode::UnknownTopicOrPartition), partitions: 0 }
    }

    fn resolve(&mut self, image: &ClusterImage) {
        self.found = match &self.key {
            Key::Name(name) => {
                image.topic_by_name(name).map(|topic| topic.id).ok_or(ErrorCode::UnknownTopicOrPartition)
            }
            Key::Id(id) => match (image.topic(*id), &self.name) {
                (Some(topic), name) => {
                    if name.is_none() {
                        self.name = Some(topic.name.clone());
                    }
                    Ok(*id)
                }
                (None, None) => Err(ErrorCode::UnknownTopicId),
                (None, Some(name)) if image.topic_by_name(name.as_str()).is_some() => {
                    Err(ErrorCode::InconsistentTopicId)
                }
                (None, Some(_)) => Err(ErrorCode::UnknownTopicOrPartition),
            },
        };
    }
}

/// The places of topics by what the client calls them: names up to version 12, ids from 13 on.
enum TopicPlaces {
    Names(HashMap<Rc<str>, Place>),
    Ids(HashMap<TopicId, Place>),
}

impl TopicPlaces {
    fn get(&self, key: TopicKey<'_>) -> Option<Place> {
        match (self, key) {
            (TopicPlaces::Names(places), TopicKey::Name(name)) => places.get(name).copied(),
            (TopicPlaces::Ids(places), TopicKey::Id(id)) => places.get(&id).copied(),
            _ => unreachable!("a request that names topics in another way is refused before"),
        }
    }

    fn remove(&mut self, key: &Key) {
        let removed = match (self, key) {
            (TopicPlaces::Names(places), Key::Name(name)) => places.remove(name),
            (TopicPlaces::Ids(places), Key::Id(id)) => places.remove(id),
            _ => unreachable!("keys are of the session's own kind"),
        };
        assert!(removed.is_some(), "every topic has its place");
    }
}

struct Partition {
    topic: Place,
    wanted: FetchPartition,
    /// What the client knows of it; `None` if it is to be told in any case.
    told: Option<ToldOffsets>,
}

impl Partition {
    /// Takes in what is to be told, and says whether it must be.
    fn tell(&mut self, told: &Told) -> bool {
        let known = self.told == Some(told.offsets);
        self.told = told.lasting();
        !known || told.failed || told.has_records || told.has_hint
    }
}

/// A partition that an answer tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::broker) struct Included {
    pub(super) topic: Place,
    /// Its position among those that were read.
    pub(super) read: u32,
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

/// The memory for sessions is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// The partitions that one client fetches.
pub(super) struct Session {
    id: FetchSessionId,
    /// The epoch that the next request has to name.
    epoch: i32,
    opened: Instant,
    pub(super) used: Instant,
    /// The number of partitions under which the session is listed as one that a larger one may replace.
    pub(super) listed: Option<usize>,
    topics: Ordered<Topic>,
    topic_places: TopicPlaces,
    partitions: Ordered<Partition>,
    partition_places: HashMap<PartitionKey, Place>,
    name_bytes: usize,
    /// The version of the image that the topics were resolved with; `None` if some were not.
    resolved_at: Option<Offset>,
}

impl Session {
    /// A session of the partitions of a request, of which it was `told` in the same order.
    pub(super) fn open(
        id: FetchSessionId,
        request: &FetchRequest<'_>,
        told: impl IntoIterator<Item = Told>,
        now: Instant,
    ) -> Session {
        let (topics, partitions) = (request.topics.len(), request.topics.map(|topic| topic.partitions.len()).sum());
        let topic_places = if request.names_topics_by_id() {
            TopicPlaces::Ids(HashMap::with_capacity(topics))
        } else {
            TopicPlaces::Names(HashMap::with_capacity(topics))
        };
        let mut session = Session {
            id,
            epoch: 1,
            opened: now,
            used: now,
            listed: None,
            topics: Ordered::with_capacity(topics),
            topic_places,
            partitions: Ordered::with_capacity(partitions),
            partition_places: HashMap::with_capacity(partitions),
            name_bytes: 0,
            resolved_at: None,
        };
        let mut told = told.into_iter();
        for topic in request.topics {
            let mut at = session.topic_places.get(topic.topic);
            for wanted in topic.partitions {
                let told = told.next().expect("every partition that was read is told");
                let topic_place = *at.get_or_insert_with(|| session.add_topic(topic.topic));
                let place = session.put(topic_place, wanted);
                session.partitions[place].told = told.lasting();
            }
        }
        assert!(told.next().is_none(), "nothing is told that was not read");
        session
    }

    pub(super) fn id(&self) -> FetchSessionId {
        self.id
    }

    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// How many partitions there are.
    pub(super) fn len(&self) -> usize {
        self.partitions.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Whether its requests name topics by id.
    pub(super) fn names_topics_by_id(&self) -> bool {
        matches!(self.topic_places, TopicPlaces::Ids(_))
    }

    /// Bytes of memory that it is counted as.
    pub(super) fn bytes(&self) -> usize {
        let places = self.topics.places() * TOPIC_BYTES + self.partitions.places() * PARTITION_BYTES;
        SESSION_BYTES + places + self.name_bytes
    }

    /// Goes on to the next epoch; after 2³¹−1 that is 1.
    pub(super) fn advance(&mut self) {
        self.epoch = next_epoch(self.epoch);
    }

    /// Adds, changes and then forgets partitions as the request says. It stops with an error where it would count as more
    /// than `bytes_max` bytes; then the session is of no use any more.
    pub(super) fn update(&mut self, request: &FetchRequest<'_>, bytes_max: usize) -> Result<(), Full> {
        for topic in request.topics {
            let mut at = self.topic_places.get(topic.topic);
            for wanted in topic.partitions {
                let topic_place = *at.get_or_insert_with(|| self.add_topic(topic.topic));
                self.put(topic_place, wanted);
                if self.bytes() > bytes_max {
                    return Err(Full);
                }
            }
        }
        for topic in request.forgotten {
            if let Some(topic_place) = self.topic_places.get(topic.topic) {
                for index in topic.partitions {
                    self.forget((topic_place, index));
                }
            }
        }
        Ok(())
    }

    /// The partitions in the order in which they are to be read, each with its topic's id in `image` or why there is none.
    pub(super) fn wanted(&mut self, image: &ClusterImage) -> SessionPartitions<'_> {
        if self.resolved_at != Some(image.version()) {
            self.topics.values_mut().for_each(|topic| topic.resolve(image));
            self.resolved_at = Some(image.version());
        }
        SessionPartitions { session: self, next: self.partitions.first() }
    }

    /// Takes in what was `told`, in the order of [`Session::wanted`], and lists what the answer has to include.
    pub(super) fn tell(&mut self, told: impl IntoIterator<Item = Told>, included: &mut Vec<Included>) {
        included.clear();
        let mut next = self.partitions.first();
        let mut read = 0;
        for told in told {
            let place = next.expect("nothing is told that was not read");
            next = self.partitions.after(place);
            let partition = &mut self.partitions[place];
            if partition.tell(&told) {
                included.push(Included { topic: partition.topic, read });
                if told.has_records {
                    self.partitions.move_to_end(place);
                }
            }
            read += 1;
        }
        assert_eq!(read as usize, self.partitions.len(), "every partition that was read is told");
    }

    /// The topic, as the client calls it.
    pub(super) fn key(&self, topic: Place) -> TopicKey<'_> {
        match &self.topics[topic].key {
            Key::Name(name) => TopicKey::Name(name),
            Key::Id(id) => TopicKey::Id(*id),
        }
    }

    /// The topics of the partitions in their order.
    #[cfg(test)]
    pub(super) fn topics_in_order(&self) -> impl Iterator<Item = TopicKey<'_>> {
        self.partitions.iter().map(|partition| self.key(partition.topic))
    }

    fn add_topic(&mut self, key: TopicKey<'_>) -> Place {
        self.resolved_at = None;
        let place = match (&mut self.topic_places, key) {
            (TopicPlaces::Names(places), TopicKey::Name(name)) => {
                let name: Rc<str> = name.into();
                self.name_bytes += name.len();
                let place = self.topics.push(Topic::new(Key::Name(name.clone())));
                places.insert(name, place);
                place
            }
            (TopicPlaces::Ids(places), TopicKey::Id(id)) => {
                let place = self.topics.push(Topic::new(Key::Id(id)));
                places.insert(id, place);
                place
            }
            _ => unreachable!("a request that names topics in another way is refused before"),
        };
        debug_assert_eq!(self.topic_places.get(key), Some(place));
        place
    }

    /// Adds a partition at the end, or changes where and how it is read.
    fn put(&mut self, topic: Place, wanted: FetchPartition) -> Place {
        let key = (topic, wanted.index);
        if let Some(place) = self.partition_places.get(&key) {
            self.partitions[*place].wanted = wanted;
            return *place;
        }
        let place = self.partitions.push(Partition { topic, wanted, told: None });
        self.partition_places.insert(key, place);
        self.topics[topic].partitions += 1;
        place
    }

    fn forget(&mut self, key: PartitionKey) {
        let Some(place) = self.partition_places.remove(&key) else { return };
        self.partitions.remove(place);
        let topic = &mut self.topics[key.0];
        topic.partitions -= 1;
        if topic.partitions == 0 {
            let topic = self.topics.remove(key.0);
            self.topic_places.remove(&topic.key);
            if let Key::Name(name) = &topic.key {
                self.name_bytes -= name.len();
            }
        }
    }
}

/// The partitions of a session, in the order in which they are to be read.
pub(in crate::broker) struct SessionPartitions<'a> {
    session: &'a Session,
    next: Option<Place>,
}

impl Iterator for SessionPartitions<'_> {
    type Item = (Result<TopicId, ErrorCode>, FetchPartition);

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.next?;
        self.next = self.session.partitions.after(place);
        let partition = &self.session.partitions[place];
        Some((self.session.topics[partition.topic].found, partition.wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_go_round_without_0_and_the_last_one() {
        assert_eq!([1, 2, i32::MAX - 1, i32::MAX].map(next_epoch), [2, 3, i32::MAX, 1]);
    }
}
