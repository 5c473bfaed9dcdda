//! Produce, by hand: the request read in place, the response written into one buffer.
//!
//! A request is verified once, whole, by [`ProduceRequest::parse`]; after that its topics, partitions and records are
//! slices of the frame, found again each time they are iterated, with nothing allocated. Versions 0–2 are read too, since
//! their answer must name what they asked for; [`ProduceRequest::is_refused`] tells them. What the records hold is not
//! looked at here.
//!
//! Source: `ProduceRequest.json` and `ProduceResponse.json` of Kafka 4.2 (transactional id from 3, record errors from 8,
//! flexible from 9, KIP-951's leader hints from 10, topic ids from 13); versions 0–2 from Kafka 3.9.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::cursor::{Cursor, DecodeError, ELEMENTS_MAX, Element, List, Malformed};
use super::frame::CorrelationId;
use super::table::{Api, ApiKey};
use super::topic::{CurrentLeader, NodeEndpoint, TopicKey, write_endpoints};
use super::writer::Writer;
use crate::types::{ErrorCode, Offset, PartitionId, Timestamp};

/// The first version that is served: v2 record batches. Earlier ones are answered UNSUPPORTED_VERSION.
const SERVED_FROM: i16 = 3;
/// The first version that names topics by id.
const IDS_FROM: i16 = 13;
/// The first version with record errors and an error message.
const RECORD_ERRORS_FROM: i16 = 8;
/// The first version with leader hints.
const LEADER_HINTS_FROM: i16 = 10;

/// What a producer wants to be true before it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Acks {
    /// Nothing: no answer is sent (0).
    None,
    /// The leader has the records (1).
    Leader,
    /// Every in-sync replica has them (−1).
    All,
}

/// A number of acks other than 0, 1 and −1: INVALID_REQUIRED_ACKS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("acks is 0, 1 or -1, not {0}")]
pub struct InvalidAcks(pub i16);

impl Acks {
    fn from_wire(acks: i16) -> Result<Acks, InvalidAcks> {
        match acks {
            0 => Ok(Acks::None),
            1 => Ok(Acks::Leader),
            -1 => Ok(Acks::All),
            other => Err(InvalidAcks(other)),
        }
    }

    /// The number on the wire.
    pub(crate) const fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// A Produce request of any advertised version, its parts lying in the frame.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRequest<'a> {
    /// The API and version.
    pub api: Api,
    /// The transactional id, if the producer has one.
    pub transactional_id: Option<&'a str>,
    /// What to wait for.
    pub acks: Result<Acks, InvalidAcks>,
    /// How long to wait for it; a negative time of the wire is none.
    pub timeout: Duration,
    /// The topics, in the client's order.
    pub topics: List<'a, ProduceTopic<'a>>,
}

/// A topic of a Produce request.
#[derive(Clone, Copy, Debug)]
pub struct ProduceTopic<'a> {
    /// Its name, or from version 13 on its id.
    pub topic: TopicKey<'a>,
    /// Its partitions, in the client's order.
    pub partitions: List<'a, ProducePartition<'a>>,
}

/// A partition of a Produce request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducePartition<'a> {
    /// The index as the client wrote it, to be echoed.
    pub index: i32,
    /// The record batches; `None` for null.
    pub records: Option<&'a [u8]>,
}

impl ProducePartition<'_> {
    /// The partition meant; `None` if no partition can have this index.
    pub const fn partition(&self) -> Option<PartitionId> {
        PartitionId::new(self.index)
    }
}

impl<'a> ProduceRequest<'a> {
    /// Reads and verifies the body of a Produce request. Bytes after it are ignored, as Kafka does.
    ///
    /// Panics if `api` is not Produce.
    pub fn parse(api: Api, body: &'a [u8]) -> Result<ProduceRequest<'a>, DecodeError> {
        ProduceRequest::parse_within(ELEMENTS_MAX, api, body)
    }

    /// The same, with `elements_max` elements of arrays at most; no more than [`ELEMENTS_MAX`].
    pub fn parse_within(elements_max: usize, api: Api, body: &'a [u8]) -> Result<ProduceRequest<'a>, DecodeError> {
        assert_eq!(api.key(), ApiKey::Produce);
        let mut cursor = Cursor::new(body, api).within(elements_max);
        ProduceRequest::read(api, &mut cursor).map_err(|malformed| malformed.of(api))
    }

    fn read(api: Api, cursor: &mut Cursor<'a>) -> Result<ProduceRequest<'a>, Malformed> {
        let transactional_id = if api.version() >= SERVED_FROM { cursor.nullable_string()? } else { None };
        let acks = Acks::from_wire(cursor.i16()?);
        let timeout = Duration::from_millis(u64::try_from(cursor.i32()?).unwrap_or(0));
        let topics = List::read(cursor)?;
        cursor.skip_tagged_fields()?;
        Ok(ProduceRequest { api, transactional_id, acks, timeout, topics })
    }

    /// Whether the version is one that is only listed: every partition is to be answered UNSUPPORTED_VERSION.
    pub const fn is_refused(&self) -> bool {
        self.api.version() < SERVED_FROM
    }
}

impl<'a> Element<'a> for ProduceTopic<'a> {
    /// Flexible: an empty name, no partitions, no tagged fields.
    const LEAST_BYTES: usize = 1 + 1 + 1;

    fn read(cursor: &mut Cursor<'a>) -> Result<ProduceTopic<'a>, Malformed> {
        let topic = TopicKey::read(cursor, IDS_FROM)?;
        let partitions = List::read(cursor)?;
        cursor.skip_tagged_fields()?;
        Ok(ProduceTopic { topic, partitions })
    }
}

impl<'a> Element<'a> for ProducePartition<'a> {
    /// Flexible: the index, null records, no tagged fields.
    const LEAST_BYTES: usize = 4 + 1 + 1;

    fn read(cursor: &mut Cursor<'a>) -> Result<ProducePartition<'a>, Malformed> {
        let index = cursor.i32()?;
        let records = cursor.nullable_bytes()?;
        cursor.skip_tagged_fields()?;
        Ok(ProducePartition { index, records })
    }
}

/// What became of one partition's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducedPartition<'a> {
    /// The index, as in the request.
    pub index: i32,
    /// Success, or why not.
    pub error: ErrorCode,
    /// The offset of the first record.
    pub base_offset: Option<Offset>,
    /// The time that was stamped on the records, for topics with LogAppendTime; a duplicate has its original's largest one.
    pub log_append_time: Option<Timestamp>,
    /// The first offset that can be read.
    pub log_start_offset: Option<Offset>,
    /// The records that were refused.
    pub record_errors: &'a [RecordError<'a>],
    /// Why the batch was refused, for people; cut at 1 KiB.
    pub error_message: Option<&'a str>,
    /// Who leads instead, with NOT_LEADER_OR_FOLLOWER.
    pub current_leader: Option<CurrentLeader>,
}

/// A record that made its batch be refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordError<'a> {
    /// The record's index in its batch, from 0.
    pub batch_index: i32,
    /// Why, for people; cut at 1 KiB.
    pub message: Option<&'a str>,
}

impl ProducedPartition<'_> {
    /// A partition that failed with nothing more to say.
    pub const fn failed(index: i32, error: ErrorCode) -> ProducedPartition<'static> {
        ProducedPartition {
            index,
            error,
            base_offset: None,
            log_append_time: None,
            log_start_offset: None,
            record_errors: &[],
            error_message: None,
            current_leader: None,
        }
    }
}

/// Writes a Produce response: [`topic`](Self::topic), then [`partition`](Self::partition) for each of its partitions, and so
/// on, then [`finish`](Self::finish). Numbers of topics and partitions are announced and then kept; breaking the
/// announcement is a bug and panics.
#[derive(Debug)]
pub struct ProduceResponseEncoder<'b> {
    writer: Writer<'b>,
    version: i16,
    topics_left: usize,
    partitions_left: usize,
}

impl<'b> ProduceResponseEncoder<'b> {
    /// Starts the response to a request of this version, for so many topics. The frame is carved from `buffer`, whose
    /// allocation serves many responses; one of 16 KiB per shard does.
    ///
    /// Panics if `api` is not Produce.
    pub fn new(api: Api, correlation: CorrelationId, topics: usize, buffer: &'b mut BytesMut) -> Self {
        assert_eq!(api.key(), ApiKey::Produce);
        // One partition of a topic takes about 40 bytes beside the topic's name.
        let mut writer = Writer::response(api, correlation, buffer, 64 + topics * 96);
        writer.length(topics);
        ProduceResponseEncoder { writer, version: api.version(), topics_left: topics, partitions_left: 0 }
    }

    /// Starts the next topic, named as in the request.
    pub fn topic(&mut self, topic: TopicKey<'_>, partitions: usize) {
        assert_eq!(self.partitions_left, 0, "the topic before has partitions to come");
        self.topics_left = self.topics_left.checked_sub(1).expect("no more topics were announced");
        topic.write(&mut self.writer, self.version, IDS_FROM);
        self.writer.length(partitions);
        self.partitions_left = partitions;
        self.end_of_topic();
    }

    /// Writes the next partition of the topic.
    pub fn partition(&mut self, partition: &ProducedPartition<'_>) {
        self.partitions_left = self.partitions_left.checked_sub(1).expect("no more partitions were announced");
        let (writer, version) = (&mut self.writer, self.version);
        writer.i32(partition.index);
        writer.i16(partition.error.code());
        writer.i64(partition.base_offset.map_or(-1, Offset::value));
        if version >= 2 {
            writer.i64(partition.log_append_time.map_or(-1, Timestamp::millis));
        }
        if version >= 5 {
            writer.i64(partition.log_start_offset.map_or(-1, Offset::value));
        }
        if version >= RECORD_ERRORS_FROM {
            writer.length(partition.record_errors.len());
            for error in partition.record_errors {
                writer.i32(error.batch_index);
                writer.message(error.message);
                writer.no_tagged_fields();
            }
            writer.message(partition.error_message);
        }
        match partition.current_leader {
            Some(leader) if version >= LEADER_HINTS_FROM => {
                writer.varint(1);
                leader.write_tagged(writer, 0);
            }
            _ => writer.no_tagged_fields(),
        }
        self.end_of_topic();
    }

    fn end_of_topic(&mut self) {
        if self.partitions_left == 0 {
            self.writer.no_tagged_fields();
        }
    }

    /// Ends the response and returns the whole frame. `endpoints` tells where the leaders are that partitions named.
    pub fn finish(mut self, throttle: Duration, endpoints: &[NodeEndpoint<'_>]) -> Bytes {
        assert_eq!((self.topics_left, self.partitions_left), (0, 0), "topics or partitions are missing");
        if self.version >= 1 {
            self.writer.duration(throttle);
        }
        write_endpoints(&mut self.writer, endpoints, self.version >= LEADER_HINTS_FROM);
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests;
