//! A synthetic broker's answers: Produce and Fetch by hand, and as much of the control plane as a run asks for.
//!
//! Nothing is refused politely: what it does not know, or cannot read, ends the connection.

use std::rc::Rc;

use bytes::BytesMut;
use corelane::runtime::sync::Notify;
use corelane::runtime::{Duration, Instant, Slice, real, timeout};
use corelane::types::{ErrorCode, Offset, Piece};
use corelane::wire::control::encode_response;
use corelane::wire::fetch::{FetchHead, FetchRequest, FetchResponseEncoder, FetchedPartition};
use corelane::wire::messages::{
    ApiVersion, ApiVersionsResponse, CreatableTopicResult, CreateTopicsResponse, ListOffsetsPartitionResponse,
    ListOffsetsResponse, ListOffsetsTopicResponse, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic, StrBytes, TopicName,
};
use corelane::wire::produce::{Acks, ProduceRequest, ProduceResponseEncoder, ProducedPartition};
use corelane::wire::{Api, ApiKey, CorrelationId, Request, Response, decode_request, parse_header};

use super::SyntheticBroker;

/// What it speaks, each in these versions.
const SPOKEN: [(ApiKey, i16, i16); 6] = [
    (ApiKey::Produce, 3, 12),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 9),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
];
/// Its only node.
const NODE: i32 = 1;
/// ListOffsets asks for the oldest offset by this time.
const EARLIEST: i64 = -2;

impl SyntheticBroker {
    /// The answer to a request, without its length field; empty if there is none to give, `None` if the connection is to end.
    pub(super) async fn answer(&self, frame: &Slice, encoded: &mut BytesMut) -> Option<Vec<Piece<Slice>>> {
        self.slow_down();
        let header = parse_header(frame).ok()?;
        let (api, correlation) = (header.api, header.correlation);
        match api.key() {
            ApiKey::Produce => self.produce(api, correlation, &frame[header.body_offset..], encoded),
            ApiKey::Fetch => self.fetch(api, correlation, &frame[header.body_offset..], encoded).await,
            _ => {
                let body = frame.slice(header.body_offset..frame.len()).into_bytes();
                let response = self.control(&decode_request(api, body).ok()?)?;
                Some(vec![Piece::Encoded(encode_response(api, correlation, response).ok()?)])
            }
        }
    }

    /// Burns CPU until it is the planted part of all that this thread has used for itself: the receiving and sending of
    /// requests counts as well as the answering.
    fn slow_down(&self) {
        let part = self.options.faults.slow_down;
        if part <= 0.0 {
            return;
        }
        let burnt = self.burnt_ns.get();
        let began = real::thread_cpu_nanos();
        let owed = ((began - burnt) as f64 * part) as u64;
        let mut now = began;
        while now - began + burnt < owed {
            now = real::thread_cpu_nanos();
        }
        self.burnt_ns.set(burnt + (now - began));
    }

    fn produce(
        &self,
        api: Api,
        correlation: CorrelationId,
        body: &[u8],
        encoded: &mut BytesMut,
    ) -> Option<Vec<Piece<Slice>>> {
        let request = ProduceRequest::parse(api, body).ok()?;
        let mut response = ProduceResponseEncoder::new(api, correlation, request.topics.len(), encoded);
        let mut partitions = self.partitions.borrow_mut();
        let mut is_told = true;
        for topic in request.topics {
            response.topic(topic.topic, topic.partitions.len());
            for produced in topic.partitions {
                let index = usize::try_from(produced.index).ok()?;
                let appended = partitions.get_mut(index)?.produce(produced.records?, &self.options.faults)?;
                if let Some(misplaced) = appended.misplaced {
                    let other = (index + partitions.len() - 1) % partitions.len();
                    partitions[other].append(&misplaced);
                }
                is_told &= appended.is_told;
                let base_offset = Offset::new(i64::try_from(appended.offset).ok()?);
                let none = ProducedPartition::failed(produced.index, ErrorCode::None);
                response.partition(&ProducedPartition { base_offset, ..none });
            }
        }
        let frame = response.finish(Duration::ZERO, &[]);
        drop(partitions);
        self.call_waiting();
        if request.acks == Ok(Acks::None) {
            return Some(Vec::new());
        }
        // What it forgets to tell it never tells: the client finds out when the connection ends.
        is_told.then(|| vec![Piece::Encoded(frame)])
    }

    async fn fetch(
        &self,
        api: Api,
        correlation: CorrelationId,
        body: &[u8],
        encoded: &mut BytesMut,
    ) -> Option<Vec<Piece<Slice>>> {
        let request = FetchRequest::parse(api, body).ok()?;
        let deadline = Instant::now().plus(request.max_wait);
        let waiting = Rc::new(Notify::new());
        self.waiting.borrow_mut().push(waiting.clone());
        loop {
            let left = deadline.since(Instant::now());
            let has_enough = self.available(&request) >= u64::from(request.min_bytes);
            if has_enough || left.is_zero() {
                break;
            }
            // Called or not, the next look tells.
            let _ = timeout(left, waiting.notified()).await;
        }
        self.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiting));
        let head = FetchHead { throttle: Duration::ZERO, error: ErrorCode::None, session: None };
        let mut response = FetchResponseEncoder::new(api, correlation, &head, request.topics.len(), encoded);
        let partitions = self.partitions.borrow();
        let mut bytes_left = request.max_bytes as usize;
        for topic in request.topics {
            response.topic(topic.topic, topic.partitions.len());
            for asked in topic.partitions {
                let log = partitions.get(usize::try_from(asked.index).ok()?)?;
                let offset = asked.fetch_offset?.value().unsigned_abs();
                let (start, end) = (log.start(), log.end());
                let at = |offset: u64| i64::try_from(offset).ok().and_then(Offset::new);
                if offset < start || offset > end {
                    let failed = FetchedPartition::failed(asked.index, ErrorCode::OffsetOutOfRange);
                    response.partition(&FetchedPartition { log_start_offset: at(start), ..failed }, []);
                    continue;
                }
                let slices: Vec<Slice> = match bytes_left {
                    0 => Vec::new(),
                    left => log.read(offset, left.min(asked.max_bytes as usize)).collect(),
                };
                bytes_left = bytes_left.saturating_sub(slices.iter().map(|slice| slice.len()).sum());
                let fetched = FetchedPartition {
                    high_watermark: at(end),
                    last_stable_offset: at(end),
                    log_start_offset: at(start),
                    ..FetchedPartition::failed(asked.index, ErrorCode::None)
                };
                response.partition(&fetched, slices);
            }
        }
        Some(response.finish(&[]).into_vec())
    }

    /// Records behind the offsets that are asked for, at a byte each: enough to know whether there is something.
    fn available(&self, request: &FetchRequest<'_>) -> u64 {
        let partitions = self.partitions.borrow();
        let mut records = 0;
        for topic in request.topics {
            for asked in topic.partitions {
                let log = usize::try_from(asked.index).ok().and_then(|index| partitions.get(index));
                let offset = asked.fetch_offset.map_or(0, |offset| offset.value().unsigned_abs());
                records += log.map_or(0, |log| log.end().saturating_sub(offset));
            }
        }
        records
    }

    fn control(&self, request: &Request) -> Option<Response> {
        Some(match request {
            Request::ApiVersions(_) => {
                let row = |(key, min, max): (ApiKey, i16, i16)| {
                    ApiVersion::default().with_api_key(key.code()).with_min_version(min).with_max_version(max)
                };
                let rows = SPOKEN.into_iter().map(row).collect();
                Response::ApiVersions(ApiVersionsResponse::default().with_api_keys(rows))
            }
            Request::Metadata(asked) => {
                let names = asked.topics.iter().flatten().filter_map(|topic| topic.name.clone());
                Response::Metadata(self.metadata(names))
            }
            Request::CreateTopics(asked) => {
                let created = |name: &TopicName| CreatableTopicResult::default().with_name(name.clone());
                let topics = asked.topics.iter().map(|topic| created(&topic.name)).collect();
                Response::CreateTopics(CreateTopicsResponse::default().with_topics(topics))
            }
            Request::ListOffsets(asked) => {
                let partitions = self.partitions.borrow();
                let mut topics = Vec::new();
                for topic in &asked.topics {
                    let mut found = Vec::new();
                    for at in &topic.partitions {
                        let log = partitions.get(usize::try_from(at.partition_index).ok()?)?;
                        let offset = if at.timestamp == EARLIEST { log.start() } else { log.end() };
                        let answer = ListOffsetsPartitionResponse::default().with_partition_index(at.partition_index);
                        found.push(answer.with_offset(i64::try_from(offset).ok()?));
                    }
                    let answer = ListOffsetsTopicResponse::default().with_name(topic.name.clone());
                    topics.push(answer.with_partitions(found));
                }
                Response::ListOffsets(ListOffsetsResponse::default().with_topics(topics))
            }
            _ => return None,
        })
    }

    fn metadata(&self, names: impl Iterator<Item = TopicName>) -> MetadataResponse {
        let address = self.address.get();
        let broker = MetadataResponseBroker::default()
            .with_node_id(NODE.into())
            .with_host(StrBytes::from_string(address.ip().to_string()))
            .with_port(i32::from(address.port()));
        let partition = |index: u32| {
            MetadataResponsePartition::default()
                .with_partition_index(index as i32)
                .with_leader_id(NODE.into())
                .with_replica_nodes(vec![NODE.into()])
                .with_isr_nodes(vec![NODE.into()])
        };
        let topic = |name| {
            let partitions = (0..self.options.partitions).map(partition).collect();
            MetadataResponseTopic::default().with_name(Some(name)).with_partitions(partitions)
        };
        MetadataResponse::default().with_brokers(vec![broker]).with_topics(names.map(topic).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::synthetic::{Faults, SyntheticOptions};

    /// What a broker with this slowdown has burnt after it worked for so long, as a part of what its thread used otherwise.
    fn burnt_part(slow_down: f64) -> f64 {
        let options =
            SyntheticOptions { partitions: 1, retained_bytes: 1, faults: Faults { slow_down, ..Faults::default() } };
        let run = async move {
            let broker = SyntheticBroker::new(options, SocketAddr::from(([127, 0, 0, 1], 1)));
            for step in 1..=20 {
                while real::thread_cpu_nanos() - broker.burnt_ns.get() < step * 1_000_000 {}
                broker.slow_down();
            }
            let burnt = broker.burnt_ns.get() as f64;
            burnt / (real::thread_cpu_nanos() as f64 - burnt)
        };
        std::thread::spawn(|| real::run(&real::Options::default(), run).unwrap()).join().unwrap()
    }

    #[test]
    fn a_slowdown_is_the_planted_part_of_all_cpu() {
        let part = burnt_part(0.5);
        assert!((0.45..0.55).contains(&part), "{part}");
        assert_eq!(burnt_part(0.0), 0.0);
    }
}
