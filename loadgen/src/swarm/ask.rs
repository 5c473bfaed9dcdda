//! The requests of a swarm, made once per thread, and what an answer is worth.
//!
//! A request for a partition is always the same bytes: a connection has one request in flight, so that all of them can have the
//! same number. Nothing of an idle connection is here.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use corelane::record::{BatchBuilder, Codec};
use corelane::runtime::{Buffer, Duration, Slice};
use corelane::wire::client::fetch::{FetchAnswer, FetchAsk, FetchFrom, FetchRequestEncoder};
use corelane::wire::client::produce::{ProduceAnswer, ProduceRequestEncoder};
use corelane::wire::client::{decode_response, encode_request};
use corelane::wire::control::EncodeError;
use corelane::wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataRequestTopic, MetadataResponse,
};
use corelane::wire::produce::Acks;
use corelane::wire::{Api, CorrelationId};

use super::plan::SwarmPlan;
use super::{Ask, SwarmOptions};
use crate::client::topic_name;

/// The number of every request.
pub(super) const CORRELATION: CorrelationId = CorrelationId(1);
/// How long a broker may wait for its replicas: Kafka's default of its clients.
const PRODUCE_TIMEOUT: Duration = Duration::from_secs(30);

/// The requests of a thread.
pub(super) struct Asks {
    api: Option<(Ask, Api)>,
    hello: Slice,
    /// By partition.
    frames: Vec<Slice>,
    /// The answer about metadata that was found good last: the same bytes again are as good, and need not be taken apart.
    good: RefCell<Vec<u8>>,
}

/// What an answer is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Worth {
    /// It is what was asked for, with so many bytes of records.
    Good(u64),
    /// Kafka's error code.
    Error(i16),
    /// It cannot be read.
    Nonsense,
}

impl Asks {
    /// The requests of a plan.
    ///
    /// # Errors
    /// A client id that no request holds.
    pub(super) fn new(options: &SwarmOptions, plan: &SwarmPlan) -> Result<Asks, EncodeError> {
        let client_id = options.load.bootstrap.options.client_id.as_str();
        let hello = ApiVersionsRequest::default();
        let hello = encode_request(Api::API_VERSIONS_0, CORRELATION, Some(client_id), &hello)?;
        let mut frames = Vec::new();
        if let Some((ask, api)) = plan.api {
            let record_bytes = options.requests.map_or(0, |requests| requests.record_bytes);
            for number in 0..plan.load.partitions.len() {
                let frame = match ask {
                    Ask::Metadata => metadata(api, client_id, plan, number)?,
                    Ask::Produce => produce(api, client_id, plan, (number, record_bytes)),
                    Ask::Fetch => fetch(api, client_id, plan, number),
                };
                frames.push(kept(&frame));
            }
        }
        Ok(Asks { api: plan.api, hello: kept(&hello), frames, good: RefCell::default() })
    }

    /// What every connection asks first: ApiVersions.
    pub(super) fn hello(&self) -> Slice {
        self.hello.clone()
    }

    /// What a connection of this partition asks.
    pub(super) fn frame(&self, partition: usize) -> Slice {
        self.frames[partition].clone()
    }

    /// What the answer to [`Asks::hello`] is worth.
    pub(super) fn judge_hello(frame: Slice) -> Worth {
        let answer = decode_response::<ApiVersionsResponse>(Api::API_VERSIONS_0, CORRELATION, frame.into_bytes());
        answer.map_or(Worth::Nonsense, |answer| worth(answer.error_code, 0))
    }

    /// What the answer to a request is worth.
    pub(super) fn judge(&self, frame: Slice) -> Worth {
        let (ask, api) = self.api.expect("what was asked is answered");
        match ask {
            Ask::Metadata => self.judge_metadata(api, frame),
            Ask::Produce => judge_produce(api, &frame),
            Ask::Fetch => judge_fetch(api, &frame),
        }
    }

    fn judge_metadata(&self, api: Api, frame: Slice) -> Worth {
        if **self.good.borrow() == *frame {
            return Worth::Good(0);
        }
        let Ok(answer) = decode_response::<MetadataResponse>(api, CORRELATION, frame.clone().into_bytes()) else {
            return Worth::Nonsense;
        };
        let Some(topic) = answer.topics.first() else { return Worth::Nonsense };
        let worth = worth(topic.error_code, 0);
        if worth == Worth::Good(0) {
            self.good.replace(frame.to_vec());
        }
        worth
    }
}

fn judge_produce(api: Api, frame: &[u8]) -> Worth {
    let Ok(mut answer) = ProduceAnswer::parse(api, frame) else { return Worth::Nonsense };
    let partition = answer.topics.next().and_then(|mut topic| topic.partitions.next());
    partition.map_or(Worth::Nonsense, |partition| worth(partition.error_code, 0))
}

fn judge_fetch(api: Api, frame: &[u8]) -> Worth {
    let Ok(mut answer) = FetchAnswer::parse(api, frame) else { return Worth::Nonsense };
    let partition = answer.topics.next().and_then(|mut topic| topic.partitions.next());
    match (answer.error_code, partition) {
        (0, None) => Worth::Nonsense,
        (0, Some(partition)) => worth(partition.error_code, partition.records.len() as u64),
        (code, _) => Worth::Error(code),
    }
}

fn worth(error_code: i16, bytes: u64) -> Worth {
    if error_code == 0 { Worth::Good(bytes) } else { Worth::Error(error_code) }
}

fn kept(frame: &[u8]) -> Slice {
    let mut buffer = Buffer::with_capacity(frame.len());
    buffer.append(frame);
    buffer.freeze()
}

fn topic_of(plan: &SwarmPlan, number: usize) -> &str {
    &plan.load.topics[plan.load.partitions[number].topic]
}

fn metadata(api: Api, client_id: &str, plan: &SwarmPlan, number: usize) -> Result<Bytes, EncodeError> {
    let mut topic = MetadataRequestTopic::default();
    topic.name = Some(topic_name(topic_of(plan, number)));
    let mut request = MetadataRequest::default();
    request.topics = Some(vec![topic]);
    request.allow_auto_topic_creation = false;
    encode_request(api, CORRELATION, Some(client_id), &request)
}

fn produce(api: Api, client_id: &str, plan: &SwarmPlan, (number, record_bytes): (usize, usize)) -> Bytes {
    let value: Vec<u8> = (0..record_bytes).map(|at| at as u8).collect();
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(Some(plan.made), None, Some(&value), &[]);
    let batch = builder.finish().ok().flatten().expect("a record without compression makes a batch");
    let (mut buffer, waits) = (BytesMut::new(), (Acks::All, PRODUCE_TIMEOUT));
    let mut request = ProduceRequestEncoder::new((api, CORRELATION), client_id, waits, 1, &mut buffer);
    request.topic(topic_of(plan, number), 1);
    request.partition(plan.load.partitions[number].index, batch);
    let mut frame = BytesMut::new();
    request.finish().iter().for_each(|piece| frame.extend_from_slice(piece.as_ref()));
    frame.freeze()
}

fn fetch(api: Api, client_id: &str, plan: &SwarmPlan, number: usize) -> Bytes {
    let partition = &plan.load.partitions[number];
    let ask = FetchAsk { wait_max: Duration::ZERO, bytes_min: 0, bytes_max: 1, session: None };
    let mut buffer = BytesMut::new();
    let mut request = FetchRequestEncoder::new((api, CORRELATION), client_id, &ask, 1, &mut buffer);
    request.topic(topic_of(plan, number), 1);
    request.partition(&FetchFrom { index: partition.index, offset: partition.end, bytes_max: 1 });
    request.finish()
}
