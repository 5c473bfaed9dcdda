//! Fetch, by hand, as a client: the request in one piece, the response read in place.
//!
//! Topics go by name, so the last version here is 12. What a broker answers is checked as strictly as what a client asks:
//! no length is believed before its bytes are there. Aborted transactions and leader hints are skipped: who reads committed
//! records only, or follows hints, decodes with the codec's messages.
//!
//! Source: `FetchRequest.json` and `FetchResponse.json` of Kafka 4.2; KIP-227 (sessions).

use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::read_response_header;
use crate::types::Offset;
use crate::wire::cursor::{Cursor, DecodeError, Element, List, Malformed};
use crate::wire::fetch::FetchSessionId;
use crate::wire::frame::CorrelationId;
use crate::wire::table::{Api, ApiKey};
use crate::wire::writer::Writer;

/// The last version that names topics by their names.
pub const FETCH_MAX: i16 = 12;
/// The first version with sessions.
const SESSIONS_FROM: i16 = 7;

/// What stands before the topics of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchAsk {
    /// How long the broker may wait for `bytes_min`.
    pub wait_max: Duration,
    /// Bytes to wait for.
    pub bytes_min: i32,
    /// Bytes of the answer at most; a larger batch comes whole all the same.
    pub bytes_max: i32,
    /// The session, from version 7 on. `None`: a full fetch without one.
    pub session: Option<FetchTurn>,
}

/// Where a session stands (KIP-227).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchTurn {
    /// The session; 0 asks for one.
    pub id: FetchSessionId,
    /// Its epoch: 0 for a full fetch, then 1, 2, 3 …
    pub epoch: i32,
}

/// A partition to fetch from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchFrom {
    /// The partition.
    pub index: i32,
    /// The first record to fetch.
    pub offset: Offset,
    /// Bytes of it at most.
    pub bytes_max: i32,
}

/// Writes a Fetch request of version 4 to [`FETCH_MAX`]: [`topic`](Self::topic), then [`partition`](Self::partition) for each
/// of its partitions, and so on, then [`finish`](Self::finish). Numbers are announced and then kept; breaking the
/// announcement is a bug and panics. Everything below the high watermark is asked for (read uncommitted).
#[derive(Debug)]
pub struct FetchRequestEncoder<'b> {
    writer: Writer<'b>,
    version: i16,
    topics_left: usize,
    partitions_left: usize,
}

impl<'b> FetchRequestEncoder<'b> {
    /// Starts a request for so many topics, carved from `buffer`, whose allocation serves many requests.
    ///
    /// Panics if `api` is not Fetch in a version of this encoder.
    pub fn new(
        (api, correlation): (Api, CorrelationId),
        client_id: &str,
        ask: &FetchAsk,
        topics: usize,
        buffer: &'b mut BytesMut,
    ) -> FetchRequestEncoder<'b> {
        assert!(api.key() == ApiKey::Fetch && (4..=FETCH_MAX).contains(&api.version()));
        let version = api.version();
        let mut writer = Writer::request(api, correlation, client_id, buffer, 64 + topics * 96);
        writer.i32(-1);
        writer.duration(ask.wait_max);
        writer.i32(ask.bytes_min);
        writer.i32(ask.bytes_max);
        writer.u8(0);
        if version >= SESSIONS_FROM {
            writer.i32(ask.session.map_or(0, |turn| turn.id.0));
            writer.i32(ask.session.map_or(-1, |turn| turn.epoch));
        }
        writer.length(topics);
        FetchRequestEncoder { writer, version, topics_left: topics, partitions_left: 0 }
    }

    /// Starts the next topic.
    pub fn topic(&mut self, name: &str, partitions: usize) {
        assert_eq!(self.partitions_left, 0, "the topic before has partitions to come");
        self.topics_left = self.topics_left.checked_sub(1).expect("no more topics were announced");
        self.writer.string(name);
        self.writer.length(partitions);
        self.partitions_left = partitions;
        self.end_of_topic();
    }

    /// Writes the next partition of the topic.
    pub fn partition(&mut self, from: &FetchFrom) {
        self.partitions_left = self.partitions_left.checked_sub(1).expect("no more partitions were announced");
        let writer = &mut self.writer;
        writer.i32(from.index);
        if self.version >= 9 {
            writer.i32(-1);
        }
        writer.i64(from.offset.value());
        if self.version >= 12 {
            writer.i32(-1);
        }
        if self.version >= 5 {
            writer.i64(-1);
        }
        writer.i32(from.bytes_max);
        writer.no_tagged_fields();
        self.end_of_topic();
    }

    fn end_of_topic(&mut self) {
        if self.partitions_left == 0 {
            self.writer.no_tagged_fields();
        }
    }

    /// Ends the request and returns the whole frame. No partition is taken out of a session.
    pub fn finish(mut self) -> Bytes {
        assert_eq!((self.topics_left, self.partitions_left), (0, 0), "topics or partitions are missing");
        if self.version >= SESSIONS_FROM {
            self.writer.length(0);
        }
        if self.version >= 11 {
            self.writer.string("");
        }
        self.writer.no_tagged_fields();
        self.writer.finish()
    }
}

/// A Fetch response, its parts lying in the frame.
#[derive(Clone, Copy, Debug)]
pub struct FetchAnswer<'a> {
    /// How long the client is asked to pause.
    pub throttle: Duration,
    /// Kafka's error code for the whole fetch, of its session; 0 is success.
    pub error_code: i16,
    /// The session that it belongs to; 0 for none.
    pub session: FetchSessionId,
    /// The topics; in a session only those with something to tell.
    pub topics: List<'a, FetchedTopic<'a>>,
}

/// A topic of a Fetch response.
#[derive(Clone, Copy, Debug)]
pub struct FetchedTopic<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its partitions.
    pub partitions: List<'a, FetchedRecords<'a>>,
}

/// What a partition answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchedRecords<'a> {
    /// The partition.
    pub index: i32,
    /// Kafka's error code; 0 is success.
    pub error_code: i16,
    /// The first offset that is not committed.
    pub high_watermark: Option<Offset>,
    /// The first offset that can be read.
    pub log_start_offset: Option<Offset>,
    /// Record batches; the last one may be cut.
    pub records: &'a [u8],
}

impl<'a> FetchAnswer<'a> {
    /// Reads and verifies a response from its frame, the length field not included; the correlation id is not looked at.
    pub fn parse(api: Api, frame: &'a [u8]) -> Result<FetchAnswer<'a>, DecodeError> {
        assert!(api.key() == ApiKey::Fetch && (4..=FETCH_MAX).contains(&api.version()));
        let mut cursor = Cursor::new(frame, api);
        FetchAnswer::read(api, &mut cursor).map_err(|malformed| malformed.of(api))
    }

    fn read(api: Api, cursor: &mut Cursor<'a>) -> Result<FetchAnswer<'a>, Malformed> {
        read_response_header(api, cursor)?;
        let throttle = Duration::from_millis(u64::try_from(cursor.i32()?).unwrap_or(0));
        let (error_code, session) =
            if api.version() >= SESSIONS_FROM { (cursor.i16()?, cursor.i32()?) } else { (0, 0) };
        let topics = List::read(cursor)?;
        cursor.skip_tagged_fields()?;
        Ok(FetchAnswer { throttle, error_code, session: FetchSessionId(session), topics })
    }
}

impl<'a> Element<'a> for FetchedTopic<'a> {
    /// Flexible: an empty name, no partitions, no tagged fields.
    const LEAST_BYTES: usize = 1 + 1 + 1;

    fn read(cursor: &mut Cursor<'a>) -> Result<FetchedTopic<'a>, Malformed> {
        let name = cursor.string()?;
        let partitions = List::read(cursor)?;
        cursor.skip_tagged_fields()?;
        Ok(FetchedTopic { name, partitions })
    }
}

impl<'a> Element<'a> for FetchedRecords<'a> {
    /// Flexible: index, error, three offsets, null transactions, replica, null records, no tagged fields.
    const LEAST_BYTES: usize = 4 + 2 + 8 + 8 + 1 + 1;

    fn read(cursor: &mut Cursor<'a>) -> Result<FetchedRecords<'a>, Malformed> {
        let version = cursor.version();
        let (index, error_code, high_watermark) = (cursor.i32()?, cursor.i16()?, Offset::new(cursor.i64()?));
        cursor.i64()?;
        let log_start_offset = if version >= 5 { Offset::new(cursor.i64()?) } else { None };
        for _ in 0..cursor.nullable_count(8 + 8)?.unwrap_or(0) {
            cursor.take(8 + 8)?;
            cursor.skip_tagged_fields()?;
        }
        if version >= 11 {
            cursor.i32()?;
        }
        let records = cursor.nullable_bytes()?.unwrap_or_default();
        cursor.skip_tagged_fields()?;
        Ok(FetchedRecords { index, error_code, high_watermark, log_start_offset, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ErrorCode, ProducerId};
    use crate::wire::fetch::{
        AbortedTransaction, FetchHead, FetchRequest, FetchResponseEncoder, FetchedPartition, SessionRequest,
    };
    use crate::wire::topic::TopicKey;
    use crate::wire::{frame::LENGTH_BYTES, parse_header};

    fn versions() -> impl Iterator<Item = Api> {
        Api::all().filter(|api| api.key() == ApiKey::Fetch && (4..=FETCH_MAX).contains(&api.version()))
    }

    fn offset(value: i64) -> Offset {
        Offset::new(value).expect("not negative")
    }

    #[test]
    fn every_version_of_the_request_is_read_by_a_broker() {
        assert_eq!(versions().count(), 9);
        for api in versions() {
            let mut buffer = BytesMut::new();
            let session = Some(FetchTurn { id: FetchSessionId(5), epoch: 3 });
            let ask = FetchAsk { wait_max: Duration::from_millis(500), bytes_min: 1, bytes_max: 77, session };
            let mut request = FetchRequestEncoder::new((api, CorrelationId(7)), "me", &ask, 1, &mut buffer);
            request.topic("one", 2);
            request.partition(&FetchFrom { index: 4, offset: offset(9), bytes_max: 55 });
            request.partition(&FetchFrom { index: 5, offset: offset(0), bytes_max: 66 });
            let frame = request.finish().slice(LENGTH_BYTES..);
            let header = parse_header(&frame).expect("a header");
            let read = FetchRequest::parse(api, &frame[header.body_offset..]).expect("a request");
            assert_eq!((read.max_wait, read.min_bytes, read.max_bytes), (ask.wait_max, 1, 77));
            assert_eq!((read.replica, read.rack, read.forgotten.len()), (None, "", 0));
            if api.version() >= SESSIONS_FROM {
                assert_eq!(read.session, SessionRequest::Continue { id: FetchSessionId(5), epoch: 3 });
            }
            let partitions: Vec<_> = read
                .topics
                .flat_map(|topic| {
                    topic.partitions.map(move |at| (topic.topic, at.index, at.fetch_offset, at.max_bytes))
                })
                .collect();
            let one = TopicKey::Name("one");
            assert_eq!(partitions, [(one, 4, Some(offset(9)), 55), (one, 5, Some(offset(0)), 66)], "{api}");
        }
    }

    #[test]
    fn every_version_of_the_response_is_read_and_no_shorter_one() {
        for api in versions() {
            let mut buffer = BytesMut::new();
            let head = FetchHead {
                throttle: Duration::from_millis(11),
                error: ErrorCode::None,
                session: Some(FetchSessionId(5)),
            };
            let mut response = FetchResponseEncoder::new(api, CorrelationId(7), &head, 1, &mut buffer);
            response.topic(TopicKey::Name("one"), 2);
            let producer = ProducerId::new(1).expect("not negative");
            let aborted = [AbortedTransaction { producer, first_offset: offset(2) }];
            response.partition(
                &FetchedPartition {
                    high_watermark: Some(offset(20)),
                    log_start_offset: Some(offset(3)),
                    aborted_transactions: Some(&aborted),
                    ..FetchedPartition::failed(4, ErrorCode::None)
                },
                [Bytes::from_static(b"batch"), Bytes::from_static(b"es")],
            );
            response.partition(&FetchedPartition::failed(5, ErrorCode::NotLeaderOrFollower), []);
            let frame = response.finish(&[]).to_bytes().slice(LENGTH_BYTES..);
            let answer = FetchAnswer::parse(api, &frame).expect("well formed");
            assert_eq!((answer.throttle, answer.error_code), (Duration::from_millis(11), 0));
            assert_eq!(answer.session, FetchSessionId(if api.version() >= SESSIONS_FROM { 5 } else { 0 }));
            let partitions: Vec<_> = answer.topics.flat_map(|topic| topic.partitions).collect();
            let first = FetchedRecords {
                index: 4,
                error_code: 0,
                high_watermark: Some(offset(20)),
                log_start_offset: (api.version() >= 5).then(|| offset(3)),
                records: b"batches",
            };
            assert_eq!(partitions[0], first, "{api}");
            assert_eq!((partitions[1].error_code, partitions[1].records.len()), (6, 0), "{api}");
            for length in 0..frame.len() {
                assert!(FetchAnswer::parse(api, &frame[..length]).is_err(), "{api}: {length} bytes");
            }
        }
    }
}
