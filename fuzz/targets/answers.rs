//! The answers that are encoded by hand, checked by a decoder that was written elsewhere.
//!
//! An input becomes a Produce or Fetch answer of any version with everything in it that a field can hold; the frame that is
//! encoded must be read whole by the `kafka-protocol` crate and say the same. Texts and names are not varied beyond what the
//! other side of the wire can send. What the broker answers to what is not looked at.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use corelane::types::{BrokerId, ErrorCode, LeaderEpoch, Offset, Piece, ProducerId, Timestamp, TopicId};
use corelane::wire::client::decode_response;
use corelane::wire::client::messages::{FetchResponse, ProduceResponse};
use corelane::wire::fetch::{
    AbortedTransaction, EpochEnd, FetchHead, FetchResponseEncoder, FetchSessionId, FetchedPartition,
};
use corelane::wire::produce::{ProduceResponseEncoder, ProducedPartition, RecordError};
use corelane::wire::{Api, ApiKey, CorrelationId, CurrentLeader, NodeEndpoint, TopicKey};

use super::Source;
use super::seeds::{error_code, version_of};

/// Topics, partitions of a topic and elements of other lists at most.
const LIST_MAX: u8 = 4;
/// The first version that names topics by id, of both APIs.
const IDS_FROM: i16 = 13;
const LENGTH_BYTES: usize = 4;

/// An answer to Produce or Fetch that the input describes.
pub(crate) fn response_encoders(input: &[u8]) {
    let mut source = Source::new(input);
    if source.byte() & 1 == 0 {
        produce(&mut source);
    } else {
        fetch(&mut source);
    }
}

fn produce(source: &mut Source<'_>) {
    let api = version_of(ApiKey::Produce, source.byte());
    let correlation = CorrelationId(source.number() as i32);
    let (throttle, topics) = (duration(source), count(source));
    let mut buffer = BytesMut::new();
    let mut encoder = ProduceResponseEncoder::new(api, correlation, topics, &mut buffer);
    let mut expected = Vec::new();
    for _ in 0..topics {
        let (name, partitions) = (source.bytes(16), count(source));
        encoder.topic(key(api, name), partitions);
        for _ in 0..partitions {
            let message = text(source.bytes(8));
            let error = RecordError { batch_index: source.number() as i32, message: Some(&message) };
            let errors = vec![error; count(source)];
            let partition = ProducedPartition {
                index: source.number() as i32,
                error: error_code(source.byte()),
                base_offset: Offset::new(source.number()),
                log_append_time: Timestamp::new(source.number()),
                log_start_offset: Offset::new(source.number()),
                record_errors: &errors,
                error_message: Some(message.as_str()).filter(|text| text.len() > 2),
                current_leader: leader(source),
            };
            encoder.partition(&partition);
            expected.push((partition.index, partition.error.code(), partition.base_offset.map_or(-1, Offset::value)));
        }
    }
    let rack = text(source.bytes(4));
    let frame = encoder.finish(throttle, &endpoints(source, &rack));
    let answer: ProduceResponse = decoded(api, correlation, frame);
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    let found: Vec<_> = partitions.map(|found| (found.index, found.error_code, found.base_offset)).collect();
    assert_eq!((answer.responses.len(), found), (topics, expected), "{api}");
}

fn fetch(source: &mut Source<'_>) {
    let api = version_of(ApiKey::Fetch, source.byte());
    let correlation = CorrelationId(source.number() as i32);
    let head = FetchHead {
        throttle: duration(source),
        error: ErrorCode::None,
        session: Some(FetchSessionId(source.number() as i32)),
    };
    let topics = count(source);
    let mut buffer = BytesMut::new();
    let mut encoder = FetchResponseEncoder::<&[u8]>::new(api, correlation, &head, topics, &mut buffer);
    let mut expected = Vec::new();
    for _ in 0..topics {
        let (name, partitions) = (source.bytes(16), count(source));
        encoder.topic(key(api, name), partitions);
        for _ in 0..partitions {
            let transaction = AbortedTransaction {
                producer: ProducerId::new(source.number()).unwrap_or(ProducerId::new(0).expect("0 is an id")),
                first_offset: Offset::new(source.number()).unwrap_or(Offset::ZERO),
            };
            let aborted = vec![transaction; count(source)];
            let partition = FetchedPartition {
                index: source.number() as i32,
                error: error_code(source.byte()),
                high_watermark: Offset::new(source.number()),
                last_stable_offset: Offset::new(source.number()),
                log_start_offset: Offset::new(source.number()),
                aborted_transactions: Some(aborted.as_slice()).filter(|aborted| !aborted.is_empty()),
                preferred_read_replica: BrokerId::new(source.number() as i32),
                diverging_epoch: LeaderEpoch::new(source.number() as i32)
                    .map(|epoch| EpochEnd { epoch, end_offset: Offset::ZERO }),
                current_leader: leader(source),
            };
            let records: Vec<&[u8]> = (0..count(source)).map(|_| source.bytes(40)).collect();
            encoder.partition(&partition, records.iter().copied());
            let high_watermark = partition.high_watermark.map_or(-1, Offset::value);
            expected.push((partition.index, partition.error.code(), high_watermark, records.concat()));
        }
    }
    let records: usize = expected.iter().map(|(.., records)| records.len()).sum();
    assert_eq!(encoder.records_bytes(), records);
    let rack = text(source.bytes(4));
    let pieces = encoder.finish(&endpoints(source, &rack));
    let frame: Vec<u8> = pieces.into_vec().iter().flat_map(|piece: &Piece<&[u8]>| piece.as_ref().to_vec()).collect();
    let answer: FetchResponse = decoded(api, correlation, frame.into());
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let found: Vec<_> = partitions
        .map(|found| {
            let records = found.records.as_deref().expect("records are empty, never null").to_vec();
            (found.partition_index, found.error_code, found.high_watermark, records)
        })
        .collect();
    assert_eq!((answer.responses.len(), found), (topics, expected), "{api}");
}

/// The answer in a frame, whose length is right and which holds nothing else.
fn decoded<R>(api: Api, correlation: CorrelationId, frame: Bytes) -> R
where
    R: kafka_protocol::protocol::Decodable,
{
    let length = frame.first_chunk().map(|length| i32::from_be_bytes(*length));
    assert_eq!(length, i32::try_from(frame.len() - LENGTH_BYTES).ok(), "{api}: the length of the frame");
    // The codec begins with version 3. Up to there the fields at the end are those of version 3 that came later.
    let known = if api.key() == ApiKey::Produce && api.version() < 3 { older(api, &frame) } else { frame };
    let api = if api.key() == ApiKey::Produce { at_least(api, 3) } else { api };
    decode_response(api, correlation, known.slice(LENGTH_BYTES..)).unwrap_or_else(|error| panic!("{api}: {error}"))
}

fn at_least(api: Api, version: i16) -> Api {
    Api::new(api.key(), api.version().max(version)).expect("a later version of the same row")
}

/// An answer of Produce 0 to 2 as one of version 3: the append time of each partition and the throttle time are added.
fn older(api: Api, frame: &[u8]) -> Bytes {
    let mut source = Source::new(frame);
    let mut bytes = source.bytes(LENGTH_BYTES + 4).to_vec();
    let mut copy = |bytes: &mut Vec<u8>, count: usize| {
        let taken = source.bytes(count);
        bytes.extend_from_slice(taken);
        taken.iter().fold(0usize, |number, byte| number << 8 | usize::from(*byte))
    };
    for _ in 0..copy(&mut bytes, 4) {
        let name = copy(&mut bytes, 2);
        copy(&mut bytes, name);
        for _ in 0..copy(&mut bytes, 4) {
            copy(&mut bytes, 4 + 2 + 8);
            if api.version() >= 2 {
                copy(&mut bytes, 8);
            } else {
                bytes.extend_from_slice(&[0xff; 8]);
            }
        }
    }
    if api.version() >= 1 {
        copy(&mut bytes, 4);
    } else {
        bytes.extend_from_slice(&[0; 4]);
    }
    assert!(source.rest().is_empty(), "{api}: bytes behind the end of the answer");
    bytes.into()
}

fn count(source: &mut Source<'_>) -> usize {
    usize::from(source.byte() % LIST_MAX)
}

fn duration(source: &mut Source<'_>) -> Duration {
    Duration::from_millis(source.number() as u64)
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

fn key(api: Api, name: &[u8]) -> TopicKey<'_> {
    if api.version() >= IDS_FROM {
        let mut id = [0; 16];
        id[..name.len()].copy_from_slice(name);
        return TopicKey::Id(TopicId::from_bytes(id));
    }
    // Names are UTF-8, which requests were checked for.
    TopicKey::Name(std::str::from_utf8(name).unwrap_or("not text"))
}

fn leader(source: &mut Source<'_>) -> Option<CurrentLeader> {
    let (leader, epoch) = (BrokerId::new(source.number() as i32), LeaderEpoch::new(source.number() as i32));
    (source.byte() & 1 == 0).then_some(CurrentLeader { leader, epoch })
}

fn endpoints<'a>(source: &mut Source<'_>, rack: &'a str) -> Vec<NodeEndpoint<'a>> {
    let node = BrokerId::new(source.number() as i32).unwrap_or(BrokerId::new(1).expect("1 is an id"));
    let rack = Some(rack).filter(|rack| !rack.is_empty());
    vec![NodeEndpoint { node, host: "host", port: source.number() as u16, rack }; count(source)]
}
