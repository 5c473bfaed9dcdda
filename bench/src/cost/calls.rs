//! The few calls that prepare a broker for a measurement, and look at it afterwards.
//!
//! The client of the load looks into no answer. The calls here do: a measurement begins and ends with one, and an error in it
//! ends the measurement.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bench::requests::{CORRELATION, TIMEOUT_MS, api, fetch_api, produce_api, topic_name};
use bytes::Bytes;
use corelane::wire::ApiKey;
use corelane::wire::client::messages::{FetchResponse, ProduceResponse};
use corelane::wire::client::{decode_response, encode_request};
use corelane::wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse, StrBytes,
};

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

    /// Sends a request of [`bench::requests::produce`]; gives the bytes of its answer and the offset of the batch.
    pub(crate) fn produce(&mut self, request: &[u8]) -> io::Result<(usize, i64)> {
        let answer = self.call(request)?;
        let bytes = answer.len() + size_of::<i32>();
        let answer: ProduceResponse = decode_response(produce_api(), CORRELATION, answer).map_err(io::Error::other)?;
        let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        good("Produce", partition.map(|partition| partition.error_code))?;
        Ok((bytes, partition.map_or(0, |partition| partition.base_offset)))
    }

    /// Sends a request of [`bench::requests::fetch`]; gives the bytes of its answer and of its records.
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
