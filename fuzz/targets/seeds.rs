//! Inputs to begin with: what each target finds in the world when nobody is hostile.
//!
//! They are made from the table and by the encoders themselves, so that a new row or a new format is among them at once.
//! `fuzz/corpus` holds what was found beyond them. The same call always gives the same bytes.

use core::time::Duration;

use bytes::Bytes;
use corelane::controller::{ConfigResource, MetadataRecord};
use corelane::record::{BatchBuilder, Codec, Header, Producer};
use corelane::storage::codec::Envelope;
use corelane::types::{ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use corelane::wire::client::encode_request;
use corelane::wire::client::messages::{
    FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, PartitionProduceData, ProduceRequest, TopicProduceData,
};
use corelane::wire::messages::{StrBytes, TopicName, Uuid};
use corelane::wire::{Api, ApiKey, CorrelationId};

use super::random::Random;
use super::{grow, stored};

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;

/// The version of `key` that a byte of an input chooses.
pub(crate) fn version_of(key: ApiKey, choice: u8) -> Api {
    let row = key.row();
    let versions = row.max - row.min + 1;
    Api::new(key, row.min + i16::from(choice) % versions).expect("a version of its row")
}

/// The byte that makes [`version_of`] choose this version.
fn choice_of(api: Api) -> u8 {
    u8::try_from(api.version() - api.key().row().min).expect("rows are short")
}

/// The inputs to begin with of the target of this name.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "request_frame" => Api::all().map(|api| grow::frame(api, &grow::body(api, &mut Random::new(1)))).collect(),
        "produce_request" => of_rows(ApiKey::Produce, |api| produce(api, &["topic"], &batches())),
        "fetch_request" => of_rows(ApiKey::Fetch, |api| fetch(api, &["topic", "other"])),
        "produced_batch" => batches().into_iter().map(|batch| [&[0], &batch[..]].concat()).collect(),
        "unpack_gzip" => vec![packed(Codec::Gzip)],
        "unpack_snappy" => vec![packed(Codec::Snappy), raw_snappy()],
        "unpack_lz4" => vec![packed(Codec::Lz4)],
        "unpack_zstd" => vec![packed(Codec::Zstd)],
        "response_encoders" => (0..8).map(|seed| noise(seed, 200)).collect(),
        "segment_header" => stored::segment_headers(),
        "checkpoint" => stored::checkpoints(),
        "seal" => stored::seals(),
        "metadata_file" => vec![metadata_file()],
        "metadata_payload" => vec![metadata_payload()],
        other => panic!("no target is called {other}"),
    }
}

fn of_rows(key: ApiKey, make: impl Fn(Api) -> Vec<u8>) -> Vec<Vec<u8>> {
    let apis = Api::all().filter(|api| api.key() == key);
    let body = |api: Api| {
        let frame = make(api);
        let body = grow::frame(api, &[]).len();
        [&[choice_of(api)], &frame[body..]].concat()
    };
    apis.map(body).collect()
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes).map(|_| random.byte()).collect()
}

/// Batches of every codec, of an idempotent producer, with and without keys, values and headers.
pub(crate) fn batches() -> Vec<Vec<u8>> {
    Codec::ALL.iter().flat_map(|codec| [batch(*codec, None), batch(*codec, Some(3))]).collect()
}

fn batch(codec: Codec, producer: Option<i64>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    builder.set_producer(producer.and_then(|id| {
        let (epoch, base_sequence) = (ProducerEpoch::new(0)?, Sequence::new(0)?);
        Some(Producer { id: ProducerId::new(id)?, epoch, base_sequence })
    }));
    let time = |millis: i64| Timestamp::new(1_700_000_000_000 + millis);
    let header = Header { key: b"header", value: Some(b"of a record") };
    builder.append(time(0), Some(b"key"), Some(b"a value, a value, a value, a value, a value"), &[header]);
    builder.append(time(5), None, Some(b""), &[]);
    builder.append(time(-5), Some(b""), None, &[Header { key: b"", value: None }, header]);
    builder.finish().expect("it compresses").expect("it has records").to_vec()
}

/// A count and the compressed records of a batch.
fn packed(codec: Codec) -> Vec<u8> {
    [&[2], &batch(codec, None)[corelane::record::HEADER_BYTES..]].concat()
}

/// The records as librdkafka compresses them: one block without frames, which lies behind xerial's header and a length.
fn raw_snappy() -> Vec<u8> {
    let framed = packed(Codec::Snappy);
    [&framed[..1], &framed[1 + 16 + 4..]].concat()
}

/// The frame of a Produce request of any version, without its length: every batch in a partition of its own, in each topic.
pub(crate) fn produce(api: Api, topics: &[&str], batches: &[Vec<u8>]) -> Vec<u8> {
    let by_id = api.version() >= 13;
    let topics = topics.iter().map(|name| {
        let data = (0..).zip(batches).map(|(index, batch)| {
            PartitionProduceData::default().with_index(index).with_records(Some(Bytes::copy_from_slice(batch)))
        });
        let topic = TopicProduceData::default().with_partition_data(data.collect());
        if by_id { topic.with_topic_id(id_of(name)) } else { topic.with_name(name_of(name)) }
    });
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(topics.collect::<Vec<_>>());
    if api.version() >= 3 {
        return encode(api, &request);
    }
    // The codec begins with version 3; the ones before lack the transactional id, two bytes in front of the acks.
    let served = encode(Api::new(ApiKey::Produce, 3).expect("in the table"), &request);
    let body = grow::frame(api, &[]).len();
    grow::frame(api, &served[body + 2..])
}

/// The frame of a Fetch request of any version, without its length, that waits for nothing.
pub(crate) fn fetch(api: Api, topics: &[&str]) -> Vec<u8> {
    let version = api.version();
    let by_id = version >= 13;
    let wanted = topics.iter().map(|name| {
        let partition = FetchPartition::default().with_fetch_offset(0).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_partitions(vec![partition.clone(), partition.with_partition(1)]);
        if by_id { topic.with_topic_id(id_of(name)) } else { topic.with_topic(name_of(name)) }
    });
    let mut request =
        FetchRequest::default().with_min_bytes(1).with_max_bytes(1 << 20).with_topics(wanted.collect::<Vec<_>>());
    if version >= 7 {
        let forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
        let forgotten =
            if by_id { forgotten.with_topic_id(id_of("gone")) } else { forgotten.with_topic(name_of("gone")) };
        request = request.with_session_epoch(-1).with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 11 {
        request = request.with_rack_id(StrBytes::from_static_str("rack"));
    }
    encode(api, &request)
}

fn encode<R: kafka_protocol::protocol::Request>(api: Api, request: &R) -> Vec<u8> {
    encode_request(api, CorrelationId(7), Some("hostile"), request).expect("it encodes").slice(LENGTH_BYTES..).to_vec()
}

fn name_of(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The id that stands for a name where no broker has given one yet.
pub(crate) fn id_of(name: &str) -> Uuid {
    let mut id = [0; 16];
    id.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
    Uuid::from_bytes(id)
}

fn records() -> Vec<MetadataRecord> {
    let (key, value) = ("retention.ms".to_owned(), Some("1".to_owned()));
    vec![
        MetadataRecord::ProducerIdsReserved { next: ProducerId::new(1000).expect("positive"), broker: None },
        MetadataRecord::ConfigChanged { resource: ConfigResource::AllBrokers, key, value },
    ]
}

/// A payload of two records, as `quorum` writes it: offset, count, then each with its length.
fn metadata_payload() -> Vec<u8> {
    let records: Vec<Vec<u8>> = records().iter().map(MetadataRecord::encode).collect();
    let mut payload = [&Offset::ZERO.value().to_be_bytes()[..], &(records.len() as u32).to_be_bytes()].concat();
    for record in records {
        payload.extend_from_slice(&(record.len() as u32).to_be_bytes());
        payload.extend_from_slice(&record);
    }
    payload
}

/// A file of the metadata log without a snapshot and with three frames in two writes.
fn metadata_file() -> Vec<u8> {
    stored::metadata_file_of(&[&[b"first".as_slice(), b"second"], &[b"third"]])
}

/// The clock of everything stored.
pub(crate) const NOW: Duration = Duration::from_secs(5);

/// An envelope of a kind of stored file around `body`, with a checksum that fits.
pub(crate) fn envelope(what: &'static str, magic: [u8; 8], body: &[u8]) -> Vec<u8> {
    Envelope { what, magic, version: 1 }.encode(|bytes| bytes.extend_from_slice(body))
}

/// The error code that a byte of an input chooses.
pub(crate) fn error_code(choice: u8) -> ErrorCode {
    ErrorCode::ALL[usize::from(choice) % ErrorCode::ALL.len()]
}
