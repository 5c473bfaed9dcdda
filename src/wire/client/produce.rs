//! Produce, by hand, as a client: the request as pieces around batches that are sent where they lie, the response read in
//! place.
//!
//! Topics go by name, so the last version here is 12. What a broker answers is checked as strictly as what a client asks:
//! no length is believed before its bytes are there. Record errors and messages are skipped: they are for people.
//!
//! Source: `ProduceRequest.json` and `ProduceResponse.json` of Kafka 4.2.

use core::time::Duration;

use bytes::BytesMut;

use super::read_response_header;
use crate::types::{Offset, Piece, Pieces};
use crate::wire::cursor::{Cursor, DecodeError, Element, List, Malformed};
use crate::wire::frame::CorrelationId;
use crate::wire::produce::Acks;
use crate::wire::table::{Api, ApiKey};
use crate::wire::writer::{Writer, write_length};

/// The last version that names topics by their names.
pub const PRODUCE_MAX: i16 = 12;

/// Writes a Produce request of version 3 to [`PRODUCE_MAX`]: [`topic`](Self::topic), then [`partition`](Self::partition) for
/// each of its partitions, and so on, then [`finish`](Self::finish). Numbers of topics and partitions are announced and then
/// kept; breaking the announcement is a bug and panics. There is no transactional id.
#[derive(Debug)]
pub struct ProduceRequestEncoder<'b, S> {
    writer: Writer<'b>,
    pieces: Pieces<S>,
    /// The first encoded piece, kept until the length of the frame can be written into it.
    head: Option<BytesMut>,
    bytes: usize,
    topics_left: usize,
    partitions_left: usize,
}

impl<'b, S: AsRef<[u8]>> ProduceRequestEncoder<'b, S> {
    /// Starts a request for so many topics. Its encoded pieces are carved from `buffer`, whose allocation serves many
    /// requests.
    ///
    /// Panics if `api` is not Produce in a version of this encoder.
    pub fn new(
        (api, correlation): (Api, CorrelationId),
        client_id: &str,
        (acks, timeout): (Acks, Duration),
        topics: usize,
        buffer: &'b mut BytesMut,
    ) -> ProduceRequestEncoder<'b, S> {
        assert!(api.key() == ApiKey::Produce && (3..=PRODUCE_MAX).contains(&api.version()));
        let mut writer = Writer::request(api, correlation, client_id, buffer, 64 + topics * 96);
        writer.nullable_string(None);
        writer.i16(acks.wire());
        writer.duration(timeout);
        writer.length(topics);
        ProduceRequestEncoder {
            writer,
            pieces: Pieces::new(),
            head: None,
            bytes: 0,
            topics_left: topics,
            partitions_left: 0,
        }
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

    /// Writes the next partition of the topic; `records` are sent where they lie.
    pub fn partition(&mut self, index: i32, records: S) {
        self.partitions_left = self.partitions_left.checked_sub(1).expect("no more partitions were announced");
        self.writer.i32(index);
        self.writer.length(records.as_ref().len());
        let encoded = self.writer.take();
        self.bytes += encoded.len() + records.as_ref().len();
        match self.head {
            None => self.head = Some(encoded),
            Some(_) => self.pieces.push_encoded(encoded.freeze()),
        }
        self.pieces.push_shared(records);
        self.writer.no_tagged_fields();
        self.end_of_topic();
    }

    fn end_of_topic(&mut self) {
        if self.partitions_left == 0 {
            self.writer.no_tagged_fields();
        }
    }

    /// Ends the request and returns the whole frame, in order.
    pub fn finish(mut self) -> Vec<Piece<S>> {
        assert_eq!((self.topics_left, self.partitions_left), (0, 0), "topics or partitions are missing");
        self.writer.no_tagged_fields();
        let last = self.writer.take();
        let bytes = self.bytes + last.len();
        let Some(mut head) = self.head else {
            let mut whole = last;
            write_length(&mut whole, bytes);
            return vec![Piece::Encoded(whole.freeze())];
        };
        write_length(&mut head, bytes);
        self.pieces.push_encoded(last.freeze());
        let mut pieces = Vec::with_capacity(1 + self.pieces.as_slice().len());
        pieces.push(Piece::Encoded(head.freeze()));
        pieces.extend(self.pieces.into_vec());
        pieces
    }
}

/// A Produce response, its parts lying in the frame.
#[derive(Clone, Copy, Debug)]
pub struct ProduceAnswer<'a> {
    /// The topics, in the order of the request.
    pub topics: List<'a, ProducedTopic<'a>>,
    /// How long the client is asked to pause.
    pub throttle: Duration,
}

/// A topic of a Produce response.
#[derive(Clone, Copy, Debug)]
pub struct ProducedTopic<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its partitions, in the order of the request.
    pub partitions: List<'a, PartitionAnswer>,
}

/// What became of the records for one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionAnswer {
    /// The partition.
    pub index: i32,
    /// Kafka's error code; 0 is success.
    pub error_code: i16,
    /// The offset of the first record, where there is one.
    pub base_offset: Option<Offset>,
}

impl<'a> ProduceAnswer<'a> {
    /// Reads and verifies a response from its frame, the length field not included; the correlation id is not looked at.
    pub fn parse(api: Api, frame: &'a [u8]) -> Result<ProduceAnswer<'a>, DecodeError> {
        assert!(api.key() == ApiKey::Produce && api.version() <= PRODUCE_MAX);
        let mut cursor = Cursor::new(frame, api);
        ProduceAnswer::read(api, &mut cursor).map_err(|malformed| malformed.of(api))
    }

    fn read(api: Api, cursor: &mut Cursor<'a>) -> Result<ProduceAnswer<'a>, Malformed> {
        read_response_header(api, cursor)?;
        let topics = List::read(cursor)?;
        let throttle = Duration::from_millis(u64::try_from(cursor.i32()?).unwrap_or(0));
        cursor.skip_tagged_fields()?;
        Ok(ProduceAnswer { topics, throttle })
    }
}

impl<'a> Element<'a> for ProducedTopic<'a> {
    /// Flexible: an empty name, no partitions, no tagged fields.
    const LEAST_BYTES: usize = 1 + 1 + 1;

    fn read(cursor: &mut Cursor<'a>) -> Result<ProducedTopic<'a>, Malformed> {
        let name = cursor.string()?;
        let partitions = List::read(cursor)?;
        cursor.skip_tagged_fields()?;
        Ok(ProducedTopic { name, partitions })
    }
}

impl<'a> Element<'a> for PartitionAnswer {
    /// Version 3: index, error, offset, time.
    const LEAST_BYTES: usize = 4 + 2 + 8 + 8;

    fn read(cursor: &mut Cursor<'a>) -> Result<PartitionAnswer, Malformed> {
        let version = cursor.version();
        let (index, error_code, base_offset) = (cursor.i32()?, cursor.i16()?, Offset::new(cursor.i64()?));
        cursor.i64()?;
        if version >= 5 {
            cursor.i64()?;
        }
        if version >= 8 {
            List::<RecordError>::read(cursor)?;
            cursor.nullable_string()?;
        }
        cursor.skip_tagged_fields()?;
        Ok(PartitionAnswer { index, error_code, base_offset })
    }
}

/// A record that made its batch be refused; only its length matters here.
struct RecordError;

impl<'a> Element<'a> for RecordError {
    /// Flexible: the index, a null message, no tagged fields.
    const LEAST_BYTES: usize = 4 + 1 + 1;

    fn read(cursor: &mut Cursor<'a>) -> Result<RecordError, Malformed> {
        cursor.i32()?;
        cursor.nullable_string()?;
        cursor.skip_tagged_fields().map(|()| RecordError)
    }
}

/// The bytes of a frame that its pieces are, without its length field; for tests.
#[cfg(test)]
fn body_of<S: AsRef<[u8]>>(pieces: Vec<Piece<S>>) -> bytes::Bytes {
    let whole = Pieces::from(pieces).to_bytes();
    let length = u32::from_be_bytes(*whole.first_chunk().expect("a length")) as usize;
    assert_eq!(length, whole.len() - crate::wire::frame::LENGTH_BYTES);
    whole.slice(crate::wire::frame::LENGTH_BYTES..)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::ErrorCode;
    use crate::wire::produce::{ProduceRequest, ProduceResponseEncoder, ProducedPartition, RecordError};
    use crate::wire::topic::TopicKey;
    use crate::wire::{frame::LENGTH_BYTES, parse_header};

    fn versions() -> impl Iterator<Item = Api> {
        Api::all().filter(|api| api.key() == ApiKey::Produce && (3..=PRODUCE_MAX).contains(&api.version()))
    }

    #[test]
    fn every_version_of_the_request_is_read_by_a_broker() {
        assert_eq!(versions().count(), 10);
        for api in versions() {
            let mut buffer = BytesMut::new();
            let waits = (Acks::All, Duration::from_secs(3));
            let mut request = ProduceRequestEncoder::new((api, CorrelationId(7)), "me", waits, 2, &mut buffer);
            request.topic("one", 2);
            request.partition(4, Bytes::from_static(b"first"));
            request.partition(5, Bytes::from_static(b""));
            request.topic("two", 1);
            request.partition(0, Bytes::from_static(b"second"));
            let frame = body_of(request.finish());
            let header = parse_header(&frame).expect("a header");
            assert_eq!((header.api, header.correlation, header.client_id), (api, CorrelationId(7), Some("me")));
            let read = ProduceRequest::parse(api, &frame[header.body_offset..]).expect("a request");
            assert_eq!((read.acks, read.timeout, read.transactional_id), (Ok(Acks::All), waits.1, None));
            let partitions: Vec<_> = read
                .topics
                .flat_map(|topic| {
                    topic.partitions.map(move |partition| (topic.topic, partition.index, partition.records))
                })
                .collect();
            let (one, two) = (TopicKey::Name("one"), TopicKey::Name("two"));
            let expected: [(_, _, Option<&[u8]>); 3] =
                [(one, 4, Some(b"first")), (one, 5, Some(b"")), (two, 0, Some(b"second"))];
            assert_eq!(partitions, expected, "{api}");
        }
    }

    #[test]
    fn every_version_of_the_response_is_read_and_no_shorter_one() {
        for api in versions() {
            let mut buffer = BytesMut::new();
            let mut response = ProduceResponseEncoder::new(api, CorrelationId(7), 1, &mut buffer);
            response.topic(TopicKey::Name("one"), 2);
            let errors = [RecordError { batch_index: 1, message: Some("late") }];
            response.partition(&ProducedPartition {
                base_offset: Offset::new(9),
                error_message: Some("why"),
                record_errors: &errors,
                ..ProducedPartition::failed(4, ErrorCode::None)
            });
            response.partition(&ProducedPartition::failed(5, ErrorCode::NotLeaderOrFollower));
            let frame = response.finish(Duration::from_millis(11), &[]).slice(LENGTH_BYTES..);
            let answer = ProduceAnswer::parse(api, &frame).expect("well formed");
            assert_eq!(answer.throttle, Duration::from_millis(11));
            let partitions: Vec<_> = answer.topics.flat_map(|topic| topic.partitions).collect();
            let (base_offset, no_offset) = (Offset::new(9), None);
            let expected = [
                PartitionAnswer { index: 4, error_code: 0, base_offset },
                PartitionAnswer { index: 5, error_code: 6, base_offset: no_offset },
            ];
            assert_eq!(partitions, expected, "{api}");
            for length in 0..frame.len() {
                assert!(ProduceAnswer::parse(api, &frame[..length]).is_err(), "{api}: {length} bytes");
            }
        }
    }
}
