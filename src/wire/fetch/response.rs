//! The Fetch response: header pieces from one buffer, and between them the records as slices of whoever owns them.
//!
//! ```text
//! | length, header, topic, partition, records length | records … | tags, partition, records length | records … | end |
//!   encoded                                            shared      encoded                           shared      encoded
//! ```
//! Records are never copied and never null: librdkafka refuses null records, so nothing to send is a length of 0. The frame's
//! length is known and written at the end. What is sent, and when, is not decided here.
//!
//! Source: `FetchResponse.json` of Kafka 4.2 (error and session from 7, preferred replica from 11, diverging epoch and
//! current leader from 12, endpoints from 16: KIP-227, 392, 595, 951).

use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{FetchSessionId, IDS_FROM, SESSIONS_FROM};
use crate::types::{BrokerId, ErrorCode, LeaderEpoch, Offset, Piece, Pieces, ProducerId};
use crate::wire::frame::CorrelationId;
use crate::wire::table::{Api, ApiKey};
use crate::wire::topic::{CurrentLeader, NodeEndpoint, TopicKey, write_endpoints};
use crate::wire::writer::{Writer, write_length};

/// The first version with leader hints in partitions.
const LEADER_HINTS_FROM: i16 = 12;
/// The first version that tells where leaders are.
const ENDPOINTS_FROM: i16 = 16;
const DIVERGING_EPOCH_TAG: usize = 0;
const CURRENT_LEADER_TAG: usize = 1;

/// What stands before the topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchHead {
    /// How long the client is to pause.
    pub throttle: Duration,
    /// An error of the session, from version 7 on; then there are no topics.
    pub error: ErrorCode,
    /// The session that this answer belongs to.
    pub session: Option<FetchSessionId>,
}

/// A transaction whose records a read-committed consumer drops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer: ProducerId,
    /// Its first record.
    pub first_offset: Offset,
}

/// The end of an epoch in the leader's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The offset after its last record.
    pub end_offset: Offset,
}

/// What one partition answers, beside its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchedPartition<'a> {
    /// The index, as in the request.
    pub index: i32,
    /// Success, or why not.
    pub error: ErrorCode,
    /// The first offset that is not committed.
    pub high_watermark: Option<Offset>,
    /// The first offset of an open transaction, else the high watermark.
    pub last_stable_offset: Option<Offset>,
    /// The first offset that can be read.
    pub log_start_offset: Option<Offset>,
    /// For read-committed fetches, the aborted transactions that reach into these records.
    pub aborted_transactions: Option<&'a [AbortedTransaction]>,
    /// The replica that the consumer should rather ask.
    pub preferred_read_replica: Option<BrokerId>,
    /// Where the client's log and this one part.
    pub diverging_epoch: Option<EpochEnd>,
    /// Who leads instead, with NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH.
    pub current_leader: Option<CurrentLeader>,
}

impl FetchedPartition<'_> {
    /// A partition that failed with nothing more to say.
    pub const fn failed(index: i32, error: ErrorCode) -> FetchedPartition<'static> {
        FetchedPartition {
            index,
            error,
            high_watermark: None,
            last_stable_offset: None,
            log_start_offset: None,
            aborted_transactions: None,
            preferred_read_replica: None,
            diverging_epoch: None,
            current_leader: None,
        }
    }
}

/// Writes a Fetch response: [`topic`](Self::topic), then [`partition`](Self::partition) for each of its partitions, and so on,
/// then [`finish`](Self::finish). Numbers of topics and partitions are announced and then kept; breaking the announcement
/// is a bug and panics. The whole response must stay below 2 GiB, which the response budget of a shard sees to.
#[derive(Debug)]
pub struct FetchResponseEncoder<'b, S> {
    writer: Writer<'b>,
    version: i16,
    /// The first encoded piece, kept until the length of the frame can be written into it. Its place in `pieces` is the
    /// first, and empty until then.
    head: Option<BytesMut>,
    pieces: Vec<Piece<S>>,
    records_bytes: usize,
    topics_left: usize,
    partitions_left: usize,
}

impl<'b, S: AsRef<[u8]>> FetchResponseEncoder<'b, S> {
    /// Starts the response to a request of this version, for so many topics. Its encoded pieces are carved from `buffer`,
    /// whose allocation serves many responses; one of 16 KiB per shard does.
    ///
    /// Panics if `api` is not Fetch.
    pub fn new(
        api: Api,
        correlation: CorrelationId,
        head: &FetchHead,
        topics: usize,
        buffer: &'b mut BytesMut,
    ) -> FetchResponseEncoder<'b, S> {
        assert_eq!(api.key(), ApiKey::Fetch);
        // One partition of a topic takes about 60 bytes beside the topic's name.
        let mut writer = Writer::response(api, correlation, buffer, 64 + topics * 128);
        writer.duration(head.throttle);
        if api.version() >= SESSIONS_FROM {
            writer.i16(head.error.code());
            writer.i32(head.session.map_or(0, |session| session.0));
        }
        writer.length(topics);
        FetchResponseEncoder {
            writer,
            version: api.version(),
            head: None,
            pieces: Vec::new(),
            records_bytes: 0,
            topics_left: topics,
            partitions_left: 0,
        }
    }

    /// Lets the pieces lie in `list`, the emptied list of an earlier answer, whose memory so serves again.
    #[must_use]
    pub fn reusing(mut self, list: Vec<Piece<S>>) -> FetchResponseEncoder<'b, S> {
        assert!(list.is_empty() && self.pieces.is_empty(), "nothing is encoded yet");
        self.pieces = list;
        self
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

    /// Writes the next partition of the topic, with its records in order; none is fine.
    pub fn partition(&mut self, partition: &FetchedPartition<'_>, records: impl IntoIterator<Item = S>) {
        self.partitions_left = self.partitions_left.checked_sub(1).expect("no more partitions were announced");
        self.fields(partition);
        self.records(records);
        self.tagged_fields(partition);
        self.end_of_topic();
    }

    /// Writes the length of the records and puts them behind all that was encoded before.
    fn records(&mut self, records: impl IntoIterator<Item = S>) {
        let place = self.pieces.len();
        self.pieces.push(Piece::Encoded(Bytes::new()));
        self.pieces.extend(records.into_iter().filter(|slice| !slice.as_ref().is_empty()).map(Piece::Shared));
        let bytes: usize = self.pieces[place..].iter().map(|piece| piece.as_ref().len()).sum();
        self.writer.length(bytes);
        self.records_bytes += bytes;
        if bytes == 0 {
            self.pieces.truncate(place);
        } else if place == 0 {
            self.head = Some(self.writer.take());
        } else {
            self.pieces[place] = Piece::Encoded(self.writer.take().freeze());
        }
    }

    fn fields(&mut self, partition: &FetchedPartition<'_>) {
        let (writer, version) = (&mut self.writer, self.version);
        writer.i32(partition.index);
        writer.i16(partition.error.code());
        writer.i64(partition.high_watermark.map_or(-1, Offset::value));
        writer.i64(partition.last_stable_offset.map_or(-1, Offset::value));
        if version >= 5 {
            writer.i64(partition.log_start_offset.map_or(-1, Offset::value));
        }
        match partition.aborted_transactions {
            None => writer.null_length(),
            Some(aborted) => {
                writer.length(aborted.len());
                for transaction in aborted {
                    writer.i64(transaction.producer.value());
                    writer.i64(transaction.first_offset.value());
                    writer.no_tagged_fields();
                }
            }
        }
        if version >= 11 {
            writer.i32(partition.preferred_read_replica.map_or(-1, BrokerId::value));
        }
    }

    fn tagged_fields(&mut self, partition: &FetchedPartition<'_>) {
        let writer = &mut self.writer;
        if self.version < LEADER_HINTS_FROM {
            return writer.no_tagged_fields();
        }
        let fields = usize::from(partition.diverging_epoch.is_some()) + usize::from(partition.current_leader.is_some());
        writer.varint(fields);
        if let Some(end) = partition.diverging_epoch {
            writer.varint(DIVERGING_EPOCH_TAG);
            writer.varint(4 + 8 + 1);
            writer.i32(end.epoch.value());
            writer.i64(end.end_offset.value());
            writer.no_tagged_fields();
        }
        if let Some(leader) = partition.current_leader {
            leader.write_tagged(writer, CURRENT_LEADER_TAG);
        }
    }

    fn end_of_topic(&mut self) {
        if self.partitions_left == 0 {
            self.writer.no_tagged_fields();
        }
    }

    /// Bytes of records so far.
    pub const fn records_bytes(&self) -> usize {
        self.records_bytes
    }

    /// Ends the response and returns the whole frame. `endpoints` tells where the leaders are that partitions named.
    pub fn finish(mut self, endpoints: &[NodeEndpoint<'_>]) -> Pieces<S> {
        assert_eq!((self.topics_left, self.partitions_left), (0, 0), "topics or partitions are missing");
        write_endpoints(&mut self.writer, endpoints, self.version >= ENDPOINTS_FROM);
        let last = self.writer.take();
        match self.head.take() {
            Some(mut head) => {
                self.pieces.push(Piece::Encoded(last.freeze()));
                let bytes = head.len() + self.pieces.iter().map(|piece| piece.as_ref().len()).sum::<usize>();
                write_length(&mut head, bytes);
                self.pieces[0] = Piece::Encoded(head.freeze());
            }
            None => {
                let mut whole = last;
                let bytes = whole.len();
                write_length(&mut whole, bytes);
                self.pieces.push(Piece::Encoded(whole.freeze()));
            }
        }
        self.pieces.into()
    }
}
