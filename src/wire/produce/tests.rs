//! Produce against the codec of `kafka-protocol` as an oracle (versions 3–13), and against bytes worked out by hand (0–2).

use std::ops::RangeInclusive;

use bytes::{Buf, BytesMut};
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;

use super::*;
use crate::types::{BrokerId, LeaderEpoch, TopicId};
use crate::wire::cursor::Expected;

fn api(version: i16) -> Api {
    Api::new(ApiKey::Produce, version).expect("in the table")
}

/// Those of the table, so that widening it widens these tests.
fn advertised() -> RangeInclusive<i16> {
    ApiKey::Produce.row().min..=ApiKey::Produce.row().max
}

fn served() -> RangeInclusive<i16> {
    SERVED_FROM..=ApiKey::Produce.row().max
}

fn an_id() -> TopicId {
    TopicId::from_random(0x77)
}

const TRADES: &str = "trades";

fn key(version: i16) -> TopicKey<'static> {
    if version >= IDS_FROM { TopicKey::Id(an_id()) } else { TopicKey::Name(TRADES) }
}

/// A request of two topics: three partitions, then none.
fn oracle_request(version: i16) -> (kafka::ProduceRequest, Bytes) {
    let partition = |index, records: Option<&'static [u8]>| {
        PartitionProduceData::default().with_index(index).with_records(records.map(Bytes::from_static))
    };
    let mut topic = TopicProduceData::default().with_partition_data(vec![
        partition(0, Some(b"some records")),
        partition(-1, None),
        partition(i32::MAX, Some(b"")),
    ]);
    if version >= IDS_FROM {
        topic.topic_id = an_id().into();
    } else {
        topic.name = kafka::TopicName(StrBytes::from_static_str(TRADES));
    }
    let request = kafka::ProduceRequest::default()
        .with_transactional_id(Some(kafka::TransactionalId(StrBytes::from_static_str("t-1"))))
        .with_acks(-1)
        .with_timeout_ms(1500)
        .with_topic_data(vec![topic.clone(), topic.with_partition_data(Vec::new())]);
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("encodes");
    (request, body.freeze())
}

/// Versions 0–2 of a request for partition 5 of topic `t`, as the schema of Kafka 3.9 lays them out.
const REQUEST_OF_VERSION_2: &[u8] = &[
    0, 1, // acks
    0, 0, 0, 9, // timeout
    0, 0, 0, 1, 0, 1, b't', // one topic
    0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 2, 0xaa, 0xbb, // one partition and its records
];

#[test]
fn every_served_version_reads_what_the_codec_encodes() {
    for version in served() {
        let (_, body) = oracle_request(version);
        let request = ProduceRequest::parse(api(version), &body).expect("parses");
        assert!(!request.is_refused());
        assert_eq!(request.transactional_id, Some("t-1"));
        assert_eq!(request.acks, Ok(Acks::All));
        assert_eq!(request.timeout, Duration::from_millis(1500));
        let topics: Vec<_> = request.topics.collect();
        assert_eq!(topics.len(), 2);
        assert_eq!([topics[0].topic, topics[1].topic], [key(version); 2], "v{version}");
        assert_eq!(topics[1].partitions.len(), 0);
        let partitions: Vec<_> = topics[0].partitions.map(|partition| (partition.index, partition.records)).collect();
        let expected = [(0, Some(&b"some records"[..])), (-1, None), (i32::MAX, Some(&b""[..]))];
        assert_eq!(partitions, expected, "v{version}");
        let first = topics[0].partitions.clone().next().expect("three").records.expect("not null");
        assert!(body.as_ptr_range().contains(&first.as_ptr()), "records are slices of the frame");
    }
}

/// A value that owns nothing can be copied; so reading a request allocates nothing that outlives the reading.
#[test]
fn a_request_owns_nothing() {
    fn assert_copy<T: Copy>(_: &T) {}
    let request = ProduceRequest::parse(api(2), REQUEST_OF_VERSION_2).expect("parses");
    assert_copy(&request);
    assert_copy(&request.topics.clone().next());
}

#[test]
fn acks_are_typed() {
    let (_, body) = oracle_request(3);
    for (wire, acks) in [(0, Ok(Acks::None)), (1, Ok(Acks::Leader)), (-1, Ok(Acks::All)), (2, Err(InvalidAcks(2)))] {
        let mut body = body.to_vec();
        body[5..7].copy_from_slice(&i16::to_be_bytes(wire));
        assert_eq!(ProduceRequest::parse(api(3), &body).map(|request| request.acks), Ok(acks));
    }
}

#[test]
fn rule_7_versions_0_to_2_are_read_and_refused_in_their_own_shape() {
    for version in 0..SERVED_FROM {
        let request = ProduceRequest::parse(api(version), REQUEST_OF_VERSION_2).expect("parses");
        assert!(request.is_refused());
        assert_eq!((request.acks, request.transactional_id), (Ok(Acks::Leader), None));
        let mut buffer = BytesMut::new();
        let mut encoder =
            ProduceResponseEncoder::new(api(version), CorrelationId(7), request.topics.len(), &mut buffer);
        for topic in request.topics {
            encoder.topic(topic.topic, topic.partitions.len());
            for partition in topic.partitions {
                encoder.partition(&ProducedPartition::failed(partition.index, ErrorCode::UnsupportedVersion));
            }
        }
        let frame = encoder.finish(Duration::ZERO, &[]);
        let partition = [0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 5, 0, 35, 255, 255, 255, 255, 255, 255, 255, 255];
        let tail: &[u8] = match version {
            0 => &[],
            1 => &[0, 0, 0, 0],
            _ => &[255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0],
        };
        let length = (4 + partition.len() + tail.len()) as u8;
        let expected = [&[0, 0, 0, length, 0, 0, 0, 7][..], &partition, tail].concat();
        assert_eq!(frame, expected, "v{version}");
    }
}

#[test]
fn rule_28_every_truncated_request_is_refused() {
    for version in advertised() {
        let body = if version < SERVED_FROM { REQUEST_OF_VERSION_2.into() } else { oracle_request(version).1 };
        assert!(ProduceRequest::parse(api(version), &body).is_ok());
        for length in 0..body.len() {
            let refused = ProduceRequest::parse(api(version), &body[..length]);
            assert!(refused.is_err(), "v{version} cut at {length}");
        }
    }
}

#[test]
fn a_count_that_cannot_fit_is_refused_where_it_stands() {
    let mut body = REQUEST_OF_VERSION_2.to_vec();
    body[6..10].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    let refused = ProduceRequest::parse(api(2), &body).expect_err("refused");
    assert_eq!(refused, DecodeError { api: api(2), position: 6, expected: Expected::Elements(0x7fff_ffff) });
    let mut body = REQUEST_OF_VERSION_2.to_vec();
    body[21..25].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    let refused = ProduceRequest::parse(api(2), &body).expect_err("refused");
    assert_eq!((refused.position, refused.expected), (25, Expected::Bytes(0x7fff_ffff)));
}

#[test]
fn every_served_version_writes_what_the_codec_decodes() {
    let leader = CurrentLeader { leader: BrokerId::new(2), epoch: LeaderEpoch::new(5) };
    let errors =
        [RecordError { batch_index: 4, message: Some("no key") }, RecordError { batch_index: 5, message: None }];
    let appended = ProducedPartition {
        base_offset: Offset::new(1 << 40),
        log_append_time: Timestamp::new(1_700_000_000_000),
        log_start_offset: Offset::new(12),
        ..ProducedPartition::failed(0, ErrorCode::None)
    };
    let moved = ProducedPartition {
        current_leader: Some(leader),
        record_errors: &errors,
        error_message: Some("moved"),
        ..ProducedPartition::failed(1, ErrorCode::NotLeaderOrFollower)
    };
    let rack = "r".repeat(200);
    let endpoint = NodeEndpoint { node: BrokerId::new(2).expect("not negative"), host: "b2", port: 9092, rack: None };
    let endpoints = [endpoint, NodeEndpoint { rack: Some(&rack), ..endpoint }];
    for version in served() {
        let mut buffer = BytesMut::new();
        let mut encoder = ProduceResponseEncoder::new(api(version), CorrelationId(-9), 2, &mut buffer);
        encoder.topic(key(version), 2);
        encoder.partition(&appended);
        encoder.partition(&moved);
        encoder.topic(key(version), 0);
        let mut frame = encoder.finish(Duration::from_millis(30), &endpoints);
        assert_eq!(frame.get_i32() as usize, frame.len());
        assert_eq!(frame.get_i32(), -9);
        if version >= 9 {
            assert_eq!(frame.get_u8(), 0);
        }
        let decoded = kafka::ProduceResponse::decode(&mut frame, version).expect("decodes");
        assert_eq!(frame.len(), 0, "v{version} leaves bytes");
        assert_eq!(decoded.throttle_time_ms, 30);
        assert_eq!(decoded.responses.len(), 2);
        let topic = &decoded.responses[0];
        match key(version) {
            TopicKey::Name(name) => assert_eq!(&*topic.name.0, name),
            TopicKey::Id(id) => assert_eq!(TopicId::from(topic.topic_id), id),
        }
        let [first, second] = &topic.partition_responses[..] else { panic!("two partitions") };
        assert_eq!((first.index, first.error_code, first.base_offset), (0, 0, 1 << 40));
        assert_eq!(first.log_append_time_ms, 1_700_000_000_000);
        assert_eq!(first.log_start_offset, if version >= 5 { 12 } else { -1 });
        assert_eq!((second.index, second.error_code, second.base_offset), (1, 6, -1));
        if version >= RECORD_ERRORS_FROM {
            let errors: Vec<_> = second.record_errors.iter().map(|error| error.batch_index).collect();
            assert_eq!(errors, [4, 5]);
            assert_eq!(second.record_errors[0].batch_index_error_message.as_deref(), Some("no key"));
            assert_eq!(second.error_message.as_deref(), Some("moved"));
        }
        let hints = version >= LEADER_HINTS_FROM;
        assert_eq!(second.current_leader.leader_id.0, if hints { 2 } else { -1 });
        assert_eq!(second.current_leader.leader_epoch, if hints { 5 } else { -1 });
        assert_eq!(decoded.node_endpoints.len(), if hints { 2 } else { 0 });
        if hints {
            let [first, second] = &decoded.node_endpoints[..] else { panic!("two endpoints") };
            assert_eq!((first.node_id.0, &*first.host, first.port, first.rack.as_deref()), (2, "b2", 9092, None));
            assert_eq!(second.rack.as_deref(), Some(&*rack));
        }
    }
}

#[test]
#[should_panic(expected = "topics or partitions are missing")]
fn a_response_that_breaks_its_announcement_panics() {
    let mut buffer = BytesMut::new();
    let mut encoder = ProduceResponseEncoder::new(api(9), CorrelationId(1), 1, &mut buffer);
    encoder.topic(TopicKey::Name("t"), 1);
    encoder.finish(Duration::ZERO, &[]);
}

fn read_all(request: ProduceRequest<'_>) -> usize {
    request.topics.flat_map(|topic| topic.partitions).map(|partition| partition.records.map_or(0, <[u8]>::len)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(version in advertised(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ProduceRequest::parse(api(version), &body).map(read_all);
    }

    #[test]
    fn random_small_numbers_never_panic(version in advertised(), body in prop::collection::vec(0u8..4, 0..300)) {
        if let Ok(request) = ProduceRequest::parse(api(version), &body) {
            prop_assert!(read_all(request) <= body.len());
            if version >= SERVED_FROM {
                let decoded = kafka::ProduceRequest::decode(&mut Bytes::from(body.clone()), version);
                prop_assert!(decoded.is_ok(), "the codec refuses what was accepted: {decoded:?}");
            }
        }
    }

    /// One byte of a good request changed: refused, or still read to the end.
    #[test]
    fn a_damaged_request_never_panics(version in served(), position: prop::sample::Index, byte: u8) {
        let mut body = oracle_request(version).1.to_vec();
        let position = position.index(body.len());
        body[position] = byte;
        let _ = ProduceRequest::parse(api(version), &body).map(read_all);
    }
}
