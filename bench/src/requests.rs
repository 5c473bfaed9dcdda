//! The record batches and the requests of measurements, as they come over the wire.
//!
//! They are made once and used again and again: the same batch for one partition of one topic, in a Produce request, and the
//! Fetch request that reads it. Nothing is sent here.

use std::io;

use bytes::Bytes;
use corelane::record::{BatchBuilder, Codec};
use corelane::types::{Offset, Timestamp};
use corelane::wire::client::encode_request;
use corelane::wire::client::messages::{
    FetchPartition, FetchRequest, FetchTopic, PartitionProduceData, ProduceRequest, TopicProduceData,
};
use corelane::wire::messages::{StrBytes, TopicName};
use corelane::wire::{Api, ApiKey, CorrelationId};

const TOPIC: &str = "cost";

/// Milliseconds that a broker has for a request.
pub const TIMEOUT_MS: i32 = 30_000;
/// The number of every request.
pub const CORRELATION: CorrelationId = CorrelationId(1);

/// The records of one request: one batch for one partition.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Records of the batch.
    pub records: usize,
    /// Bytes of each record's value.
    pub value_bytes: usize,
}

impl Shape {
    /// records×bytes, for a table.
    pub fn name(self) -> String {
        let Shape { records, value_bytes } = self;
        if value_bytes >= 1024 {
            format!("{records}×{} KiB", value_bytes >> 10)
        } else {
            format!("{records}×{value_bytes} B")
        }
    }

    /// The batch, uncompressed, at time `now`.
    ///
    /// # Errors
    /// A shape without records.
    pub fn batch(self, now: Timestamp) -> io::Result<Bytes> {
        self.batch_in(Codec::None, now)
    }

    /// The batch in a codec. The values repeat from record to record: lz4 makes a small part of them.
    ///
    /// # Errors
    /// A shape without records, or the codec's own.
    pub fn batch_in(self, codec: Codec, now: Timestamp) -> io::Result<Bytes> {
        let mut builder = BatchBuilder::new(codec);
        let value: Vec<u8> = (0..self.value_bytes).map(|index| ((index * index) >> 3) as u8).collect();
        for _ in 0..self.records {
            builder.append(Some(now), None, Some(&value), &[]);
        }
        let batch = builder.finish().map_err(io::Error::other)?.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Bytes::copy_from_slice(batch))
    }
}

/// A version of an API that the broker speaks.
///
/// # Panics
/// If it does not.
pub fn api(key: ApiKey, version: i16) -> Api {
    Api::new(key, version).expect("a version of the table")
}

/// The topic of all requests.
pub fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

/// Produce, in the version that is measured.
pub fn produce_api() -> Api {
    api(ApiKey::Produce, 9)
}

/// Fetch, in the version that is measured.
pub fn fetch_api() -> Api {
    api(ApiKey::Fetch, 12)
}

/// A Produce request of one partition with acks=all, its length field included.
///
/// # Errors
/// A batch that no frame holds.
pub fn produce(batch: Bytes) -> io::Result<Bytes> {
    produce_to(1, &batch)
}

/// The same of so many partitions of one topic, the batch for each.
///
/// # Errors
/// Batches that no frame holds together.
pub fn produce_to(partitions: i32, batch: &Bytes) -> io::Result<Bytes> {
    let partition = |index| {
        let mut partition = PartitionProduceData::default();
        partition.index = index;
        partition.records = Some(batch.clone());
        partition
    };
    let mut topic = TopicProduceData::default();
    topic.name = topic_name();
    topic.partition_data = (0..partitions).map(partition).collect();
    let mut request = ProduceRequest::default();
    request.transactional_id = None;
    request.acks = -1;
    request.timeout_ms = TIMEOUT_MS;
    request.topic_data = vec![topic];
    encode_request(produce_api(), CORRELATION, Some("bench"), &request).map_err(io::Error::other)
}

/// A Fetch request of `bytes` bytes from `offset`, as a consumer without a session sends it, its length field included.
///
/// # Errors
/// More bytes than the request's 31 bits can ask for.
pub fn fetch(offset: Offset, bytes: usize) -> io::Result<Bytes> {
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
