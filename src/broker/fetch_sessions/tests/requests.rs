//! Requests as clients send them, and a broker around the sessions that answers what it is told to.
//!
//! The requests go through the codec of `kafka-protocol` and the parser of `wire`, so that nothing here depends on how they
//! are taken apart. What the broker answers lies open for the tests to change.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::fetch_request as oracle;
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::*;
use crate::controller::{MetadataRecord, Partition};
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch, PartitionId, TopicName};
use crate::wire::TopicKey;
use crate::wire::fetch::FetchedPartition;
use crate::wire::{Api, ApiKey};

/// A topic, by the name that the tests use for it whether the request does or not.
pub(super) type Key = (&'static str, i32);

/// The topics that every image has unless a test says otherwise, and the byte that their ids repeat.
const TOPICS: &[(&str, u8)] = &[("a", 1), ("b", 2), ("c", 3)];

/// The id that the requests name a topic by. `again` is topic b made a second time.
pub(super) fn id(topic: &str) -> TopicId {
    let byte = match topic {
        "again" => 9,
        _ => TOPICS.iter().find(|(name, _)| *name == topic).expect("a topic of the tests").1,
    };
    TopicId::from_bytes([byte; 16])
}

pub(super) fn offset(value: i64) -> Option<Offset> {
    Offset::new(value)
}

/// A partition without error whose offsets are all `value`.
pub(super) fn marks(value: i64) -> FetchedPartition<'static> {
    FetchedPartition {
        high_watermark: offset(value),
        last_stable_offset: offset(value),
        log_start_offset: offset(0),
        ..FetchedPartition::failed(0, ErrorCode::None)
    }
}

/// An image at this version with these topics.
pub(super) fn image(version: u64, topics: &[(&str, u8)]) -> ClusterImage {
    let broker = BrokerId::new(1).expect("not negative");
    let partition = Partition {
        index: PartitionId::new(0).expect("not negative"),
        replicas: vec![broker],
        isr: vec![broker],
        leader: Some(broker),
        leader_epoch: LeaderEpoch::ZERO,
        partition_epoch: PartitionEpoch::ZERO,
    };
    let created = |(name, byte): &(&str, u8)| MetadataRecord::TopicCreated {
        topic: TopicId::from_bytes([*byte; 16]),
        name: TopicName::new(name).expect("legal"),
        partitions: vec![partition.clone()],
        configs: vec![],
    };
    let records: Vec<_> = topics.iter().map(created).collect();
    ClusterImage::from_snapshot(Offset::ZERO.plus(version), &records).expect("they fit")
}

/// A request to be.
#[derive(Clone)]
pub(super) struct Asked {
    version: i16,
    session: (i32, i32),
    offset: i64,
    topics: Vec<oracle::FetchTopic>,
    forgotten: Vec<oracle::ForgottenTopic>,
}

/// The bytes of a request.
pub(super) struct Body {
    version: i16,
    bytes: Bytes,
}

impl Body {
    pub(super) fn parse(&self) -> FetchRequest<'_> {
        let api = Api::new(ApiKey::Fetch, self.version).expect("in the table");
        FetchRequest::parse(api, &self.bytes).expect("well formed")
    }
}

impl Asked {
    /// A request without partitions and sessions.
    pub(super) fn new(version: i16) -> Asked {
        Asked { version, session: (0, -1), offset: 0, topics: vec![], forgotten: vec![] }
    }

    pub(super) fn session(mut self, id: i32, epoch: i32) -> Asked {
        self.session = (id, epoch);
        self
    }

    /// The offset of the partitions that are named from here on.
    pub(super) fn at(mut self, offset: i64) -> Asked {
        self.offset = offset;
        self
    }

    pub(super) fn partitions(mut self, topic: &str, indexes: &[i32]) -> Asked {
        let partition = |index: &i32| {
            let partition = oracle::FetchPartition::default().with_partition(*index);
            partition.with_fetch_offset(self.offset).with_partition_max_bytes(1 << 20)
        };
        let mut named = oracle::FetchTopic::default().with_partitions(indexes.iter().map(partition).collect());
        match self.version {
            13.. => named.topic_id = id(topic).into(),
            _ => named.topic = kafka::TopicName(StrBytes::from_string(topic.to_owned())),
        }
        self.topics.push(named);
        self
    }

    pub(super) fn forget(mut self, topic: &str, indexes: &[i32]) -> Asked {
        let mut named = oracle::ForgottenTopic::default().with_partitions(indexes.to_vec());
        match self.version {
            13.. => named.topic_id = id(topic).into(),
            _ => named.topic = kafka::TopicName(StrBytes::from_string(topic.to_owned())),
        }
        self.forgotten.push(named);
        self
    }

    pub(super) fn body(&self) -> Body {
        let mut request = kafka::FetchRequest::default().with_topics(self.topics.clone());
        if self.version >= 7 {
            request = request.with_session_id(self.session.0).with_session_epoch(self.session.1);
            request.forgotten_topics_data = self.forgotten.clone();
        }
        let mut bytes = BytesMut::new();
        request.encode(&mut bytes, self.version).expect("it encodes");
        Body { version: self.version, bytes: bytes.freeze() }
    }
}

/// What a client was told.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) session: Option<FetchSessionId>,
    /// How many partitions were read, at which offsets, and of which topics.
    pub(super) wanted: usize,
    pub(super) offsets: Vec<i64>,
    pub(super) topics: Vec<Result<TopicId, ErrorCode>>,
    /// The topics of the answer with the indexes of their partitions.
    pub(super) groups: Vec<(&'static str, Vec<i32>)>,
    /// The same, flat.
    pub(super) partitions: Vec<Key>,
}

/// The sessions of one shard, with what its partitions answer.
pub(super) struct World {
    pub(super) sessions: FetchSessions,
    pub(super) now: Instant,
    pub(super) image: ClusterImage,
    /// Bytes of records that partitions have.
    pub(super) records: BTreeMap<Key, usize>,
    /// How many partitions are served with records in one answer.
    pub(super) partitions_served: usize,
    told: BTreeMap<Key, FetchedPartition<'static>>,
}

impl World {
    pub(super) fn new() -> World {
        World::with_limits(SessionLimits { sessions_max: 10, bytes_max: 1 << 20 })
    }

    pub(super) fn with_limits(limits: SessionLimits) -> World {
        World {
            sessions: FetchSessions::new(limits, ShardId(0), 1, 7),
            now: Instant::from_nanos(0),
            image: image(1, TOPICS),
            records: BTreeMap::new(),
            partitions_served: usize::MAX,
            told: BTreeMap::new(),
        }
    }

    /// What a partition answers, to be changed.
    pub(super) fn told(&mut self, topic: &'static str, index: i32) -> &mut FetchedPartition<'static> {
        self.told.entry((topic, index)).or_insert_with(|| marks(0))
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        self.now = self.now.plus(duration);
    }

    /// A whole fetch, without waiting.
    pub(super) fn fetch(&mut self, asked: &Asked) -> Result<Answered, Refused> {
        let body = asked.body();
        let request = body.parse();
        let fetch = self.sessions.begin(&request, self.now)?;
        let wanted: Vec<_> = self.sessions.wanted(&fetch, &request, &self.image)?.collect();
        let mut served = 0;
        let names = names_of(&self.sessions, &fetch, &request);
        let told: Vec<Told> = wanted
            .iter()
            .zip(&names)
            .map(|((topic, partition), name)| {
                let key = (*name, partition.index);
                let told = self.told.get(&key).copied().unwrap_or(marks(0));
                let reads = told.error == ErrorCode::None && served < self.partitions_served;
                let records = self.records.get(&key).copied().filter(|_| reads && topic.is_ok());
                served += usize::from(records.is_some());
                match topic {
                    Ok(_) => Told::of(&told, records.unwrap_or(0)),
                    Err(error) => Told::of(&FetchedPartition::failed(partition.index, *error), 0),
                }
            })
            .collect();
        let answer = self.sessions.answer(fetch, &request, told, self.now)?;
        let groups: Vec<(&'static str, Vec<i32>)> = answer
            .topics()
            .map(|topic| {
                let len = topic.reads.len();
                let indexes: Vec<i32> = topic.reads.map(|read| wanted[read].1.index).collect();
                assert_eq!(len, indexes.len(), "lengths are announced");
                (name_of(topic.key), indexes)
            })
            .collect();
        assert_eq!(answer.topics_len(), groups.len(), "lengths are announced");
        Ok(Answered {
            session: answer.session(),
            wanted: wanted.len(),
            offsets: wanted.iter().map(|(_, partition)| partition.fetch_offset.map_or(-1, Offset::value)).collect(),
            topics: wanted.iter().map(|(topic, _)| *topic).collect(),
            partitions: groups.iter().flat_map(|(name, indexes)| indexes.iter().map(|index| (*name, *index))).collect(),
            groups,
        })
    }
}

/// The names of the topics of everything that a fetch reads, in order.
fn names_of(sessions: &FetchSessions, fetch: &Fetch, request: &FetchRequest<'_>) -> Vec<&'static str> {
    match fetch {
        Fetch::Incremental(continued) => {
            let session = &sessions.sessions[continued.place];
            session.topics_in_order().map(name_of).collect()
        }
        _ => request.topics.flat_map(|topic| topic.partitions.map(move |_| name_of(topic.topic))).collect(),
    }
}

fn name_of(key: TopicKey<'_>) -> &'static str {
    let known = ["a", "b", "c", "again", "", "not/a topic"];
    let is_it = |name: &&&str| match key {
        TopicKey::Name(found) => found == **name,
        TopicKey::Id(found) => !name.is_empty() && !name.contains('/') && found == id(name),
    };
    known.iter().find(is_it).expect("a topic of the tests")
}
