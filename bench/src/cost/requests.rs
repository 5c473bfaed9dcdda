//! The requests of a measurement as frames, and the few calls that prepare a broker for it.
//!
//! Frames are encoded once and sent again and again: the client of the load looks into no answer. The calls here do: a
//! measurement begins and ends with one, and an error in it ends the measurement.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use corelane::record::{BatchBuilder, Codec};
use corelane::types::{Offset, Timestamp};
use corelane::wire::client::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionProduceData, ProduceRequest, ProduceResponse,
    TopicProduceData,
};
use corelane::wire::client::{decode_response, encode_request};
use corelane::wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse, StrBytes, TopicName,
};
use corelane::wire::{Api, ApiKey, CorrelationId};

const TOPIC: &str = "cost";
const TIMEOUT_MS: i32 = 30_000;
const CORRELATION: CorrelationId = CorrelationId(1);

/// The records of one request: one uncompressed batch for one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Records of the batch.
    pub(crate) records: usize,
    /// Bytes of each record's value.
    pub(crate) value_bytes: usize,
}

impl Shape {
    /// records×bytes, for a table.
    pub(crate) fn name(self) -> String {
        let Shape { records, value_bytes } = self;
        if value_bytes >= 1024 {
            format!("{records}×{} KiB", value_bytes >> 10)
        } else {
            format!("{records}×{value_bytes} B")
        }
    }

    /// The batch, at time `now`.
    pub(crate) fn batch(self, now: Timestamp) -> io::Result<Bytes> {
        let mut builder = BatchBuilder::new(Codec::None);
        let value: Vec<u8> = (0..self.value_bytes).map(|index| ((index * index) >> 3) as u8).collect();
        for _ in 0..self.records {
            builder.append(Some(now), None, Some(&value), &[]);
        }
        let batch = builder.finish().map_err(io::Error::other)?.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Bytes::copy_from_slice(batch))
    }
}

fn api(key: ApiKey, version: i16) -> Api {
    Api::new(key, version).expect("a version of the table")
}

fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn produce_api() -> Api {
    api(ApiKey::Produce, 9)
}

fn fetch_api() -> Api {
    api(ApiKey::Fetch, 12)
}

/// A Produce request with acks=all.
pub(crate) fn produce(batch: Bytes) -> io::Result<Bytes> {
    let mut partition = PartitionProduceData::default();
    partition.records = Some(batch);
    let mut topic = TopicProduceData::default();
    topic.name = topic_name();
    topic.partition_data = vec![partition];
    let mut request = ProduceRequest::default();
    request.transactional_id = None;
    request.acks = -1;
    request.timeout_ms = TIMEOUT_MS;
    request.topic_data = vec![topic];
    encode_request(produce_api(), CORRELATION, Some("bench"), &request).map_err(io::Error::other)
}

/// A Fetch request of `bytes` bytes from `offset`, as a consumer without a session sends it.
pub(crate) fn fetch(offset: Offset, bytes: usize) -> io::Result<Bytes> {
    let bytes = i32::try_from(bytes).map_err(io::Error::other)?;
    let mut partition = FetchPartition::default();
    partition.current_leader_epoch = -1;
    partition.fetch_offset = offset.value();
    partition.log_start_offset = -1;
    partition.partition_max_bytes = bytes;
    let mut topic = FetchTopic::default();
    topic.topic = topic_name();
    topic.partitions = vec![partition];
    let mut request = FetchRequest::default();
    request.replica_id = (-1).into();
    request.max_wait_ms = 500;
    request.min_bytes = 1;
    request.max_bytes = bytes;
    request.session_epoch = -1;
    request.topics = vec![topic];
    encode_request(fetch_api(), CORRELATION, Some("bench"), &request).map_err(io::Error::other)
}

/// A connection for one request at a time.
pub(crate) struct Calls {
    stream: TcpStream,
}

impl Calls {
    /// Connects.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Calls> {
        Ok(Calls { stream: TcpStream::connect(address)? })
    }

    /// The answer to a request, without its length.
    fn call(&mut self, request: &[u8]) -> io::Result<Bytes> {
        self.stream.write_all(request)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok(answer.into())
    }

    /// Makes the topic, of one partition.
    pub(crate) fn create_topic(&mut self, write_caching: bool) -> io::Result<()> {
        let mut config = CreatableTopicConfig::default();
        config.name = StrBytes::from_static_str("write.caching");
        config.value = Some(StrBytes::from_string(write_caching.to_string()));
        let mut topic = CreatableTopic::default();
        topic.name = topic_name();
        topic.num_partitions = 1;
        topic.replication_factor = 1;
        topic.configs = vec![config];
        let mut request = CreateTopicsRequest::default();
        request.topics = vec![topic];
        request.timeout_ms = TIMEOUT_MS;
        let api = api(ApiKey::CreateTopics, 5);
        let frame = encode_request(api, CORRELATION, None, &request).map_err(io::Error::other)?;
        let answer: CreateTopicsResponse =
            decode_response(api, CORRELATION, self.call(&frame)?).map_err(io::Error::other)?;
        good("CreateTopics", answer.topics.first().map(|topic| topic.error_code))
    }

    /// Sends a request of [`produce`]; gives the bytes of its answer and the offset of the batch.
    pub(crate) fn produce(&mut self, request: &[u8]) -> io::Result<(usize, i64)> {
        let answer = self.call(request)?;
        let bytes = answer.len() + size_of::<i32>();
        let answer: ProduceResponse = decode_response(produce_api(), CORRELATION, answer).map_err(io::Error::other)?;
        let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        good("Produce", partition.map(|partition| partition.error_code))?;
        Ok((bytes, partition.map_or(0, |partition| partition.base_offset)))
    }

    /// Sends a request of [`fetch`]; gives the bytes of its answer and of its records.
    pub(crate) fn fetch(&mut self, request: &[u8]) -> io::Result<(usize, usize)> {
        let answer = self.call(request)?;
        let bytes = answer.len() + size_of::<i32>();
        let answer: FetchResponse = decode_response(fetch_api(), CORRELATION, answer).map_err(io::Error::other)?;
        let partition = answer.responses.first().and_then(|topic| topic.partitions.first());
        good("Fetch", partition.map(|partition| partition.error_code))?;
        Ok((bytes, partition.and_then(|partition| partition.records.as_ref()).map_or(0, Bytes::len)))
    }
}

fn good(what: &str, code: Option<i16>) -> io::Result<()> {
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::other(format!("{what}: the broker answers error {code}"))),
        None => Err(io::Error::other(format!("{what}: the broker's answer is empty"))),
    }
}
