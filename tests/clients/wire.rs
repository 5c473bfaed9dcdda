//! A client that is a socket and the protocol's messages: it hides nothing, retries nothing and sends whatever it is told.
//!
//! Every read is bounded by [`SOON`], so a broker that does not answer fails the test and does not hang it. Requests go out
//! in the version that the test names. It keeps no state but the next correlation id.

use std::io::{ErrorKind, Read, Write};
use std::marker::PhantomData;
use std::net::{Shutdown, SocketAddr, TcpStream};

use bytes::Bytes;
use corelane::record::{
    BatchBuilder, Codec, DecompressLimits, Decompressors, Header, Producer, RecordBatch, RecordReader, UncheckedBatch,
};
use corelane::types::{ErrorCode, ProducerEpoch, ProducerId, Sequence, Timestamp};
use corelane::wire::client::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData, PartitionProduceData,
    PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use corelane::wire::client::{decode_response, encode_request};
use corelane::wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, InitProducerIdRequest, InitProducerIdResponse,
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic, StrBytes, TopicName,
    Uuid,
};
use corelane::wire::{Api, CorrelationId};
use kafka_protocol::protocol::Request;

use super::SOON;

/// The last versions that name topics, and the first that give their ids.
pub(crate) const PRODUCE_BY_NAME: i16 = 12;
pub(crate) const PRODUCE_BY_ID: i16 = 13;
pub(crate) const FETCH_BY_NAME: i16 = 12;
pub(crate) const FETCH_BY_ID: i16 = 13;

/// A connection to a broker.
pub(crate) struct Client {
    stream: TcpStream,
    next: i32,
}

/// A request on its way, to be received as an answer to `R`.
pub(crate) struct Sent<R> {
    api: Api,
    correlation: CorrelationId,
    request: PhantomData<R>,
}

impl Client {
    /// Connects to the broker at `address`.
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, SOON).expect("the broker accepts");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(SOON)).expect("not zero");
        stream.set_write_timeout(Some(SOON)).expect("not zero");
        Client { stream, next: 1 }
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let sent = self.send(version, request);
        self.receive(sent)
    }

    /// Sends a request.
    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> Sent<R> {
        let (frame, sent) = self.encode(version, request);
        self.send_bytes(&frame);
        sent
    }

    /// A request as its frame, the length included.
    pub(crate) fn encode<R: Request>(&mut self, version: i16, request: &R) -> (Bytes, Sent<R>) {
        let api = Api::lookup(R::KEY, version).expect("an API of the table");
        let correlation = CorrelationId(self.next);
        self.next += 1;
        let frame = encode_request(api, correlation, Some("corelane-tests"), request).expect("the request encodes");
        (frame, Sent { api, correlation, request: PhantomData })
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker takes what is sent");
    }

    /// Sends a frame with these contents, the length put in front.
    pub(crate) fn send_frame(&mut self, contents: &[u8]) {
        let length = u32::try_from(contents.len()).expect("a frame");
        self.send_bytes(&[&length.to_be_bytes(), contents].concat());
    }

    /// The next frame without its length, which has to be the answer to `sent`.
    pub(crate) fn receive<R: Request>(&mut self, sent: Sent<R>) -> R::Response {
        let frame = self.receive_frame();
        decode_response(sent.api, sent.correlation, frame).expect("the answer to this request")
    }

    /// The next frame without its length.
    pub(crate) fn receive_frame(&mut self) -> Bytes {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("an answer");
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length")];
        self.stream.read_exact(&mut frame).expect("a whole answer");
        frame.into()
    }

    /// Sends no more; answers can still be received.
    pub(crate) fn end_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is there");
    }

    /// Demands that the broker closes the connection, without a further answer.
    #[track_caller]
    pub(crate) fn assert_closed(mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection is not closed: {error}"),
        }
        assert_eq!(rest.len(), 0, "an answer came instead of the end: {rest:02x?}");
    }

    /// Creates a topic and returns its id.
    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32, configuration: &[(&str, &str)]) -> Uuid {
        let configs = configuration.iter().map(|(key, value)| {
            let value = Some(StrBytes::from_string((*value).to_owned()));
            CreatableTopicConfig::default().with_name(StrBytes::from_string((*key).to_owned())).with_value(value)
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let created = self.call(7, &request).topics.remove(0);
        assert_eq!(code(created.error_code), ErrorCode::None, "creating {name}: {:?}", created.error_message);
        created.topic_id
    }

    /// Sends a batch to one partition with acks=all; the answer for that partition.
    pub(crate) fn produce(&mut self, topic: &str, partition: i32, batch: &[u8]) -> PartitionProduceResponse {
        let request = produce_request(topic, partition, batch, -1);
        self.call(PRODUCE_BY_NAME, &request).responses.remove(0).partition_responses.remove(0)
    }

    /// Sends a batch that has to be taken; returns its base offset.
    #[track_caller]
    pub(crate) fn append(&mut self, topic: &str, partition: i32, batch: &[u8]) -> i64 {
        let answer = self.produce(topic, partition, batch);
        assert_eq!(code(answer.error_code), ErrorCode::None, "{:?}", answer.error_message);
        answer.base_offset
    }

    /// Fetches from one partition, without waiting for more than is there.
    pub(crate) fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let request = fetch_request(&[(topic, partition, offset, 8 << 20)]);
        self.fetch_all(&request).remove(0)
    }

    /// Fetches; the answers of all partitions, one after the other.
    pub(crate) fn fetch_all(&mut self, request: &FetchRequest) -> Vec<PartitionData> {
        partitions(self.call(FETCH_BY_NAME, request))
    }

    /// The answer to ListOffsets for one partition.
    pub(crate) fn list_offset(
        &mut self,
        version: i16,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> ListOffsetsPartitionResponse {
        let wanted = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        self.call(version, &request).topics.remove(0).partitions.remove(0)
    }

    /// A new producer id, for idempotence.
    pub(crate) fn init_producer_id(&mut self) -> ProducerId {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer: InitProducerIdResponse = self.call(4, &request);
        assert_eq!((code(answer.error_code), answer.producer_epoch), (ErrorCode::None, 0));
        ProducerId::new(answer.producer_id.0).expect("an id")
    }
}

/// The topic's name as a message holds it.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The error code of this number.
#[track_caller]
pub(crate) fn code(number: i16) -> ErrorCode {
    ErrorCode::from_code(number).unwrap_or_else(|| panic!("error code {number} is not one of ours"))
}

/// A request that produces one batch.
pub(crate) fn produce_request(topic: &str, partition: i32, batch: &[u8], acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(Bytes::copy_from_slice(batch)));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic])
}

/// A sessionless fetch of partitions, each a topic, an index, an offset and the bytes at most; it waits for nothing.
pub(crate) fn fetch_request(wanted: &[(&str, i32, i64, i32)]) -> FetchRequest {
    let topics = wanted.iter().map(|&(topic, partition, offset, bytes_max)| {
        FetchTopic::default()
            .with_topic(topic_name(topic))
            .with_partitions(vec![fetch_partition(partition, offset, bytes_max)])
    });
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(64 << 20)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(topics.collect())
}

/// One partition of a fetch.
pub(crate) fn fetch_partition(partition: i32, offset: i64, bytes_max: i32) -> FetchPartition {
    FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(bytes_max)
}

/// The partitions of an answer, one after the other.
pub(crate) fn partitions(response: FetchResponse) -> Vec<PartitionData> {
    assert_eq!(code(response.error_code), ErrorCode::None);
    response.responses.into_iter().flat_map(|topic| topic.partitions).collect()
}

/// An uncompressed batch of these values, without keys, all with timestamp 1 700 000 000 000.
pub(crate) fn batch(values: &[&[u8]]) -> Vec<u8> {
    compressed(Codec::None, values)
}

/// The same with a codec.
pub(crate) fn compressed(codec: Codec, values: &[&[u8]]) -> Vec<u8> {
    build(BatchBuilder::new(codec), values)
}

/// A batch of an idempotent producer.
pub(crate) fn sequenced(id: ProducerId, epoch: i16, base_sequence: i32, values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.set_producer(Some(Producer {
        id,
        epoch: ProducerEpoch::new(epoch).expect("not negative"),
        base_sequence: Sequence::new(base_sequence).expect("not negative"),
    }));
    build(builder, values)
}

/// The time of the records of [`batch`].
pub(crate) const BATCH_TIME: i64 = 1_700_000_000_000;

/// The batch that a builder makes of these values.
pub(crate) fn build(mut builder: BatchBuilder, values: &[&[u8]]) -> Vec<u8> {
    let no_headers: &[Header<'_>] = &[];
    values.iter().for_each(|value| builder.append(Timestamp::new(BATCH_TIME), None, Some(value), no_headers));
    builder.finish().expect("the codec works").expect("at least one value").to_vec()
}

/// One record with this timestamp.
pub(crate) fn timed(timestamp: i64, value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(Timestamp::new(timestamp), None, Some(value), &[]);
    builder.finish().expect("no codec").expect("one record").to_vec()
}

/// The batches of a fetched partition, each with a CRC that fits.
#[track_caller]
pub(crate) fn batches(data: &PartitionData) -> Vec<RecordBatch<'_>> {
    let mut rest: &[u8] = data.records.as_deref().expect("records are empty, never null");
    let mut found = Vec::new();
    while !rest.is_empty() {
        let unchecked = UncheckedBatch::frame(rest, rest.len()).expect("whole batches");
        rest = &rest[unchecked.bytes().len()..];
        found.push(unchecked.check().expect("a CRC that fits"));
    }
    found
}

/// The values of a batch's records, of which none is null.
pub(crate) fn values(batch: &RecordBatch<'_>) -> Vec<Vec<u8>> {
    let mut decompressors = Decompressors::new();
    let mut records = RecordReader::new(batch, &mut decompressors, &DecompressLimits::DEFAULT);
    let mut values = Vec::new();
    while let Some(record) = records.next_record() {
        values.push(record.expect("the batch was checked").value.expect("no value is null").to_vec());
    }
    values
}
