//! Fetch, by hand: the request read in place. The response, pieces of the log's own buffers, is in [`response`].
//!
//! A request is verified once, whole, by [`FetchRequest::parse`]; after that its topics and partitions are found again in
//! the frame each time they are iterated, with nothing allocated. −1 of the wire is `None` here. Fields that only Kafka's
//! own followers send (cluster id, directory id, their high watermark) are skipped: replication has its own protocol.
//!
//! Source: `FetchRequest.json` of Kafka 4.2 (sessions from 7, KIP-227; leader epochs from 9, KIP-320; rack from 11, KIP-392;
//! flexible from 12; topic ids from 13; replica state from 15, KIP-903).

use core::time::Duration;

use super::cursor::{Cursor, DecodeError, ELEMENTS_MAX, Element, Expected, List, Malformed};
use super::table::{Api, ApiKey};
use super::topic::TopicKey;
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionId};

pub mod response;

pub use response::{AbortedTransaction, EpochEnd, FetchHead, FetchResponseEncoder, FetchedPartition};

/// The first version that names topics by id.
const IDS_FROM: i16 = 13;
/// The first version with sessions.
const SESSIONS_FROM: i16 = 7;
/// The first version that keeps the replica's id and epoch in a tagged field.
const REPLICA_STATE_FROM: i16 = 15;
/// The tag of that field.
const REPLICA_STATE_TAG: u32 = 1;

/// Which records a consumer may see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Isolation {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset, with the aborted transactions listed.
    ReadCommitted,
}

/// The id of a fetch session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchSessionId(pub i32);

/// What a request wants with sessions (KIP-227). Its two numbers are read once, here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionRequest {
    /// A full fetch without a session.
    Sessionless {
        /// The session that ends with it.
        closes: Option<FetchSessionId>,
    },
    /// A full fetch that asks for a new session.
    Open {
        /// The session that it replaces.
        closes: Option<FetchSessionId>,
    },
    /// A fetch of what the session holds, as changed by this request.
    Continue {
        /// The session; 0, which no session has, if the client gave none.
        id: FetchSessionId,
        /// The epoch that the client expects it to be in. Any number: a wrong one is answered
        /// INVALID_FETCH_SESSION_EPOCH.
        epoch: i32,
    },
}

impl SessionRequest {
    fn from_wire(id: i32, epoch: i32) -> SessionRequest {
        let closes = if id == 0 { None } else { Some(FetchSessionId(id)) };
        match epoch {
            -1 => SessionRequest::Sessionless { closes },
            0 => SessionRequest::Open { closes },
            _ => SessionRequest::Continue { id: FetchSessionId(id), epoch },
        }
    }
}

/// The follower that a fetch says it comes from. Replicas of this broker do not fetch in this way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replica {
    /// Its broker id.
    pub broker: BrokerId,
    /// Its broker epoch, from version 15 on.
    pub epoch: Option<i64>,
}

/// A Fetch request, its parts lying in the frame.
#[derive(Clone, Copy, Debug)]
pub struct FetchRequest<'a> {
    /// The API and version.
    pub api: Api,
    /// The follower that it comes from; `None` for consumers.
    pub replica: Option<Replica>,
    /// How long to wait for `min_bytes`; a negative time of the wire is none.
    pub max_wait: Duration,
    /// Bytes to wait for; a negative number of the wire is 0.
    pub min_bytes: u32,
    /// Bytes to answer at most; a negative number of the wire is 0. The first non-empty partition may exceed it.
    pub max_bytes: u32,
    /// Which records may be seen.
    pub isolation: Isolation,
    /// What it wants with sessions.
    pub session: SessionRequest,
    /// The topics to fetch, or to add to the session.
    pub topics: List<'a, FetchTopic<'a>>,
    /// The topics to take out of the session.
    pub forgotten: List<'a, ForgottenTopic<'a>>,
    /// The consumer's rack; empty if it has none.
    pub rack: &'a str,
}

/// A topic of a Fetch request.
#[derive(Clone, Copy, Debug)]
pub struct FetchTopic<'a> {
    /// Its name, or from version 13 on its id.
    pub topic: TopicKey<'a>,
    /// Its partitions, in the client's order.
    pub partitions: List<'a, FetchPartition>,
}

/// A partition of a Fetch request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchPartition {
    /// The index as the client wrote it, to be echoed.
    pub index: i32,
    /// The leader epoch that the client knows.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Where to read; `None` for a negative offset, which is out of every range.
    pub fetch_offset: Option<Offset>,
    /// The epoch of the last record that the client has.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// A follower's own log start offset.
    pub log_start_offset: Option<Offset>,
    /// Bytes to answer at most from this partition; a negative number of the wire is 0.
    pub max_bytes: u32,
}

impl FetchPartition {
    /// The partition meant; `None` if no partition can have this index.
    pub const fn partition(&self) -> Option<PartitionId> {
        PartitionId::new(self.index)
    }
}

/// A topic to take out of a session.
#[derive(Clone, Copy, Debug)]
pub struct ForgottenTopic<'a> {
    /// Its name, or from version 13 on its id.
    pub topic: TopicKey<'a>,
    /// The indexes of its partitions.
    pub partitions: List<'a, i32>,
}

impl<'a> FetchRequest<'a> {
    /// Whether it names topics by id, not by name.
    pub fn names_topics_by_id(&self) -> bool {
        self.api.version() >= IDS_FROM
    }

    /// Reads and verifies the body of a Fetch request. Bytes after it are ignored, as Kafka does.
    ///
    /// Panics if `api` is not Fetch.
    pub fn parse(api: Api, body: &'a [u8]) -> Result<FetchRequest<'a>, DecodeError> {
        FetchRequest::parse_within(ELEMENTS_MAX, api, body)
    }

    /// The same, with `elements_max` elements of arrays at most; no more than [`ELEMENTS_MAX`].
    pub fn parse_within(elements_max: usize, api: Api, body: &'a [u8]) -> Result<FetchRequest<'a>, DecodeError> {
        assert_eq!(api.key(), ApiKey::Fetch);
        let mut cursor = Cursor::new(body, api).within(elements_max);
        FetchRequest::read(api, &mut cursor).map_err(|malformed| malformed.of(api))
    }

    fn read(api: Api, cursor: &mut Cursor<'a>) -> Result<FetchRequest<'a>, Malformed> {
        let version = api.version();
        let mut replica = None;
        if version < REPLICA_STATE_FROM {
            replica = BrokerId::new(cursor.i32()?).map(|broker| Replica { broker, epoch: None });
        }
        let max_wait = Duration::from_millis(u64::from(at_least_0(cursor.i32()?)));
        let min_bytes = at_least_0(cursor.i32()?);
        let max_bytes = at_least_0(cursor.i32()?);
        let isolation = isolation(cursor)?;
        let session = if version >= SESSIONS_FROM {
            SessionRequest::from_wire(cursor.i32()?, cursor.i32()?)
        } else {
            SessionRequest::Sessionless { closes: None }
        };
        let topics = List::read(cursor)?;
        let forgotten = if version >= SESSIONS_FROM { List::read(cursor)? } else { List::empty(cursor) };
        let rack = if version >= 11 { cursor.string()? } else { "" };
        cursor.tagged_fields(|tag, content| {
            if tag != REPLICA_STATE_TAG || version < REPLICA_STATE_FROM {
                return Ok(false);
            }
            let (broker, epoch) = (content.i32()?, content.i64()?);
            replica = BrokerId::new(broker).map(|broker| Replica { broker, epoch: (epoch >= 0).then_some(epoch) });
            content.skip_tagged_fields().map(|()| true)
        })?;
        Ok(FetchRequest { api, replica, max_wait, min_bytes, max_bytes, isolation, session, topics, forgotten, rack })
    }
}

fn at_least_0(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn isolation(cursor: &mut Cursor<'_>) -> Result<Isolation, Malformed> {
    let start = *cursor;
    match cursor.i8()? {
        0 => Ok(Isolation::ReadUncommitted),
        1 => Ok(Isolation::ReadCommitted),
        _ => Err(start.malformed(Expected::IsolationLevel)),
    }
}

impl<'a> Element<'a> for FetchTopic<'a> {
    /// Flexible: an empty name, no partitions, no tagged fields.
    const LEAST_BYTES: usize = 1 + 1 + 1;

    fn read(cursor: &mut Cursor<'a>) -> Result<FetchTopic<'a>, Malformed> {
        let topic = TopicKey::read(cursor, IDS_FROM)?;
        let partitions = List::read(cursor)?;
        cursor.skip_tagged_fields()?;
        Ok(FetchTopic { topic, partitions })
    }
}

impl<'a> Element<'a> for FetchPartition {
    /// Version 4: index, offset, maximum.
    const LEAST_BYTES: usize = 4 + 8 + 4;

    fn read(cursor: &mut Cursor<'a>) -> Result<FetchPartition, Malformed> {
        let version = cursor.version();
        let index = cursor.i32()?;
        let current_leader_epoch = if version >= 9 { LeaderEpoch::new(cursor.i32()?) } else { None };
        let fetch_offset = Offset::new(cursor.i64()?);
        let last_fetched_epoch = if version >= 12 { LeaderEpoch::new(cursor.i32()?) } else { None };
        let log_start_offset = if version >= 5 { Offset::new(cursor.i64()?) } else { None };
        let max_bytes = at_least_0(cursor.i32()?);
        cursor.skip_tagged_fields()?;
        Ok(FetchPartition {
            index,
            current_leader_epoch,
            fetch_offset,
            last_fetched_epoch,
            log_start_offset,
            max_bytes,
        })
    }
}

impl<'a> Element<'a> for ForgottenTopic<'a> {
    /// Flexible: an empty name, no partitions, no tagged fields.
    const LEAST_BYTES: usize = 1 + 1 + 1;

    fn read(cursor: &mut Cursor<'a>) -> Result<ForgottenTopic<'a>, Malformed> {
        let topic = TopicKey::read(cursor, IDS_FROM)?;
        let partitions = List::read(cursor)?;
        cursor.skip_tagged_fields()?;
        Ok(ForgottenTopic { topic, partitions })
    }
}

#[cfg(test)]
mod tests;
