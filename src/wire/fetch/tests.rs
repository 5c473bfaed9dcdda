//! Fetch against the codec of `kafka-protocol` as an oracle in every version, and against bytes worked out by hand.

use std::ops::RangeInclusive;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages as kafka;
use kafka_protocol::messages::fetch_request as oracle;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;

use super::*;
use crate::types::{ErrorCode, Piece, Pieces, ProducerId, TopicId};
use crate::wire::{CorrelationId, CurrentLeader, NodeEndpoint};

fn api(version: i16) -> Api {
    Api::new(ApiKey::Fetch, version).expect("in the table")
}

/// Those of the table, so that widening it widens these tests.
fn versions() -> RangeInclusive<i16> {
    ApiKey::Fetch.row().min..=ApiKey::Fetch.row().max
}

fn an_id() -> TopicId {
    TopicId::from_random(0x77)
}

fn key(version: i16) -> TopicKey<'static> {
    if version >= IDS_FROM { TopicKey::Id(an_id()) } else { TopicKey::Name("trades") }
}

fn offset(value: i64) -> Offset {
    Offset::new(value).expect("not negative")
}

fn broker(value: i32) -> BrokerId {
    BrokerId::new(value).expect("not negative")
}

/// A request that uses every field that its version has.
fn oracle_request(version: i16) -> Bytes {
    let since = |first: i16, value: i32| if version >= first { value } else { -1 };
    let mut partition = oracle::FetchPartition::default()
        .with_partition(7)
        .with_current_leader_epoch(since(9, 3))
        .with_fetch_offset(1 << 40)
        .with_last_fetched_epoch(since(12, 2))
        .with_log_start_offset(i64::from(since(5, 11)))
        .with_partition_max_bytes(1 << 20);
    if version >= 17 {
        partition.replica_directory_id = an_id().into();
    }
    if version >= 18 {
        partition.high_watermark = 9;
    }
    let outside = oracle::FetchPartition::default().with_partition(-3).with_fetch_offset(-1);
    let mut topic = oracle::FetchTopic::default().with_partitions(vec![partition, outside]);
    let mut forgotten = oracle::ForgottenTopic::default().with_partitions(vec![4, 5]);
    if version >= IDS_FROM {
        topic.topic_id = an_id().into();
        forgotten.topic_id = an_id().into();
    } else {
        topic.topic = kafka::TopicName(StrBytes::from_static_str("trades"));
        forgotten.topic = kafka::TopicName(StrBytes::from_static_str("trades"));
    }
    let mut request = kafka::FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_isolation_level(1)
        .with_topics(vec![topic]);
    if version >= SESSIONS_FROM {
        request = request.with_session_id(77).with_session_epoch(5).with_forgotten_topics_data(vec![forgotten]);
    }
    if version >= 11 {
        request.rack_id = StrBytes::from_static_str("eu-1");
    }
    if version >= 12 {
        request.cluster_id = Some(StrBytes::from_static_str("AAAAAAAAAAAAAAAAAAAAAA"));
    }
    if version >= REPLICA_STATE_FROM {
        let state = oracle::ReplicaState::default().with_replica_id(kafka::BrokerId(3)).with_replica_epoch(44);
        request.replica_state = state;
    } else {
        request.replica_id = kafka::BrokerId(3);
    }
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("encodes");
    body.freeze()
}

#[test]
fn every_version_reads_what_the_codec_encodes() {
    for version in versions() {
        let body = oracle_request(version);
        let request = FetchRequest::parse(api(version), &body).expect("parses");
        let epoch = if version >= REPLICA_STATE_FROM { Some(44) } else { None };
        assert_eq!(request.replica, Some(Replica { broker: broker(3), epoch }), "v{version}");
        assert_eq!(request.max_wait, Duration::from_millis(500));
        assert_eq!((request.min_bytes, request.max_bytes), (1, 50 << 20));
        assert_eq!(request.isolation, Isolation::ReadCommitted);
        assert_eq!(request.rack, if version >= 11 { "eu-1" } else { "" });
        let session = match version >= SESSIONS_FROM {
            true => SessionRequest::Continue { id: FetchSessionId(77), epoch: 5 },
            false => SessionRequest::Sessionless { closes: None },
        };
        assert_eq!(request.session, session);

        let topics: Vec<_> = request.topics.collect();
        assert_eq!((topics.len(), topics[0].topic), (1, key(version)));
        let since = |first: i16, value: i32| if version >= first { LeaderEpoch::new(value) } else { None };
        let expected = FetchPartition {
            index: 7,
            current_leader_epoch: since(9, 3),
            fetch_offset: Some(offset(1 << 40)),
            last_fetched_epoch: since(12, 2),
            log_start_offset: if version >= 5 { Some(offset(11)) } else { None },
            max_bytes: 1 << 20,
        };
        let outside = FetchPartition {
            index: -3,
            current_leader_epoch: None,
            fetch_offset: None,
            last_fetched_epoch: None,
            log_start_offset: None,
            max_bytes: 0,
        };
        assert_eq!(topics[0].partitions.collect::<Vec<_>>(), [expected, outside], "v{version}");

        let forgotten: Vec<_> = request.forgotten.collect();
        assert_eq!(forgotten.len(), usize::from(version >= SESSIONS_FROM));
        if let Some(topic) = forgotten.first() {
            assert_eq!(topic.topic, key(version));
            assert_eq!(topic.partitions.collect::<Vec<_>>(), [4, 5]);
        }
    }
}

/// A value that owns nothing can be copied; so reading a request allocates nothing that outlives the reading.
#[test]
fn a_request_owns_nothing() {
    fn assert_copy<T: Copy>(_: &T) {}
    let body = oracle_request(18);
    let request = FetchRequest::parse(api(18), &body).expect("parses");
    assert_copy(&request);
    assert_copy(&request.topics.clone().next());
}

#[test]
fn a_consumer_is_no_replica() {
    for version in [4, 14, 15, 18] {
        let mut body = BytesMut::new();
        kafka::FetchRequest::default().encode(&mut body, version).expect("encodes");
        let request = FetchRequest::parse(api(version), &body).expect("parses");
        assert_eq!(request.replica, None, "v{version}");
        assert_eq!(request.max_bytes, i32::MAX as u32);
    }
}

#[test]
fn rule_16_the_two_numbers_of_a_session() {
    let closes = Some(FetchSessionId(9));
    for (id, epoch, expected) in [
        (0, -1, SessionRequest::Sessionless { closes: None }),
        (9, -1, SessionRequest::Sessionless { closes }),
        (0, 0, SessionRequest::Open { closes: None }),
        (9, 0, SessionRequest::Open { closes }),
        (9, 1, SessionRequest::Continue { id: FetchSessionId(9), epoch: 1 }),
        (0, 1, SessionRequest::Continue { id: FetchSessionId(0), epoch: 1 }),
        (9, -2, SessionRequest::Continue { id: FetchSessionId(9), epoch: -2 }),
    ] {
        assert_eq!(SessionRequest::from_wire(id, epoch), expected, "{id} {epoch}");
    }
}

#[test]
fn an_unknown_isolation_level_is_refused() {
    let mut body = oracle_request(4).to_vec();
    body[16] = 2;
    let refused = FetchRequest::parse(api(4), &body).expect_err("refused");
    assert_eq!(refused.to_string(), "Fetch v4: expected isolation level 0 or 1 at byte 16 of the body");
}

#[test]
fn rule_28_every_truncated_request_is_refused() {
    for version in versions() {
        let body = oracle_request(version);
        for length in 0..body.len() {
            let refused = FetchRequest::parse(api(version), &body[..length]);
            assert!(refused.is_err(), "v{version} cut at {length}");
        }
    }
}

#[test]
fn counts_that_cannot_fit_are_refused_where_they_stand() {
    let mut body = oracle_request(4).to_vec();
    body[17..21].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    let refused = FetchRequest::parse(api(4), &body).expect_err("refused");
    assert_eq!(refused, DecodeError { api: api(4), position: 17, expected: Expected::Elements(0x7fff_ffff) });
}

const HEAD: FetchHead =
    FetchHead { throttle: Duration::from_millis(5), error: ErrorCode::None, session: Some(FetchSessionId(42)) };

fn head_without_session() -> FetchHead {
    FetchHead { throttle: Duration::ZERO, error: ErrorCode::None, session: None }
}

#[test]
fn golden_bytes_of_version_12() {
    let aborted =
        [AbortedTransaction { producer: ProducerId::new(0x11).expect("not negative"), first_offset: offset(12) }];
    let partition = FetchedPartition {
        high_watermark: Some(offset(0x10)),
        last_stable_offset: Some(offset(0x0f)),
        log_start_offset: Some(offset(2)),
        aborted_transactions: Some(&aborted),
        ..FetchedPartition::failed(3, ErrorCode::None)
    };
    let mut buffer = BytesMut::new();
    let mut encoder = FetchResponseEncoder::new(api(12), CorrelationId(7), &HEAD, 1, &mut buffer);
    encoder.topic(TopicKey::Name("t1"), 1);
    encoder.partition(&partition, [&b"hel"[..], b"lo"]);
    let pieces = encoder.finish(&[]);
    #[rustfmt::skip]
    let before = [
        0, 0, 0, 81, 0, 0, 0, 7, 0, // length, correlation, no tagged fields
        0, 0, 0, 5, 0, 0, 0, 0, 0, 42, // throttle, error, session
        2, 3, b't', b'1', 2, // one topic, its name, one partition
        0, 0, 0, 3, 0, 0, // index, error
        0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0, 0, 2, // high watermark, last stable, start
        2, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, 12, 0, // one aborted transaction
        255, 255, 255, 255, // no preferred replica
        6, // five bytes of records
    ];
    // No tagged fields of the partition, the topic and the response.
    let expected = [&before[..], b"hello", &[0, 0, 0]].concat();
    assert_eq!(pieces.to_bytes(), expected);
    assert_eq!(pieces.bytes(), expected.len());
    let shapes: Vec<_> = pieces.as_slice().iter().map(|piece| matches!(piece, Piece::Shared(_))).collect();
    assert_eq!(shapes, [false, true, true, false]);
}

#[test]
fn golden_bytes_of_version_16() {
    let leader = CurrentLeader { leader: Some(broker(2)), epoch: LeaderEpoch::new(5) };
    let partition = FetchedPartition {
        current_leader: Some(leader),
        ..FetchedPartition::failed(3, ErrorCode::NotLeaderOrFollower)
    };
    let mut buffer = BytesMut::new();
    let mut encoder =
        FetchResponseEncoder::<'_, Bytes>::new(api(16), CorrelationId(7), &head_without_session(), 1, &mut buffer);
    encoder.topic(TopicKey::Id(TopicId::from_bytes([0xab; 16])), 1);
    encoder.partition(&partition, []);
    let frame = encoder.finish(&[NodeEndpoint { node: broker(2), host: "h", port: 9092, rack: None }]).to_bytes();
    #[rustfmt::skip]
    let expected = [
        &[0, 0, 0, 98, 0, 0, 0, 7, 0][..], // length, correlation, no tagged fields
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // throttle, error, session
        &[2], &[0xab; 16], &[2], // one topic, its id, one partition
        &[0, 0, 0, 3, 0, 6], // index, error
        &[255; 24], // high watermark, last stable offset, log start offset
        &[0], &[255; 4], &[1], // no aborted transactions, no preferred replica, no records
        &[1, 1, 9, 0, 0, 0, 2, 0, 0, 0, 5, 0], // one tagged field: the current leader
        &[0], // end of the topic
        &[1, 0, 13, 2, 0, 0, 0, 2, 2, b'h', 0, 0, 0x23, 0x84, 0, 0], // one tagged field: the endpoints
    ]
    .concat();
    assert_eq!(frame, expected);
}

/// One topic of two partitions: one with records in two slices, one without any and with every hint.
fn respond(version: i16) -> Pieces<&'static [u8]> {
    let aborted = [AbortedTransaction { producer: ProducerId::new(7).expect("not negative"), first_offset: offset(1) }];
    let read = FetchedPartition {
        high_watermark: Some(offset(1 << 33)),
        last_stable_offset: Some(offset(1 << 32)),
        log_start_offset: Some(offset(5)),
        aborted_transactions: Some(&aborted),
        preferred_read_replica: if version >= 11 { Some(broker(4)) } else { None },
        ..FetchedPartition::failed(0, ErrorCode::None)
    };
    let hints = FetchedPartition {
        diverging_epoch: Some(EpochEnd { epoch: LeaderEpoch::ZERO, end_offset: offset(99) }),
        current_leader: Some(CurrentLeader { leader: None, epoch: LeaderEpoch::new(6) }),
        ..FetchedPartition::failed(1, ErrorCode::FencedLeaderEpoch)
    };
    let mut buffer = BytesMut::new();
    let mut encoder = FetchResponseEncoder::new(api(version), CorrelationId(-9), &HEAD, 2, &mut buffer);
    encoder.topic(key(version), 2);
    encoder.partition(&read, [&b"first batch"[..], b"second batch"]);
    encoder.partition(&hints, []);
    encoder.topic(key(version), 0);
    assert_eq!(encoder.records_bytes(), 23);
    encoder.finish(&[NodeEndpoint { node: broker(2), host: "b2", port: 65_535, rack: Some("r") }])
}

#[test]
fn every_version_writes_what_the_codec_decodes() {
    for version in versions() {
        let mut frame = respond(version).to_bytes();
        assert_eq!(frame.get_i32() as usize, frame.len());
        assert_eq!(frame.get_i32(), -9);
        if version >= 12 {
            assert_eq!(frame.get_u8(), 0);
        }
        let decoded = kafka::FetchResponse::decode(&mut frame, version).expect("decodes");
        assert_eq!(frame.len(), 0, "v{version} leaves bytes");
        assert_eq!(decoded.throttle_time_ms, 5);
        assert_eq!(decoded.session_id, if version >= SESSIONS_FROM { 42 } else { 0 });
        let [topic, empty] = &decoded.responses[..] else { panic!("two topics") };
        assert_eq!(empty.partitions.len(), 0);
        match key(version) {
            TopicKey::Name(name) => assert_eq!(&*topic.topic.0, name),
            TopicKey::Id(id) => assert_eq!(TopicId::from(topic.topic_id), id),
        }
        let [read, hints] = &topic.partitions[..] else { panic!("two partitions") };
        assert_eq!((read.error_code, read.high_watermark, read.last_stable_offset), (0, 1 << 33, 1 << 32));
        assert_eq!(read.log_start_offset, if version >= 5 { 5 } else { -1 });
        assert_eq!(read.preferred_read_replica.0, if version >= 11 { 4 } else { -1 });
        assert_eq!(read.records.as_deref(), Some(&b"first batchsecond batch"[..]));
        let aborted = read.aborted_transactions.as_ref().expect("not null");
        assert_eq!((aborted[0].producer_id.0, aborted[0].first_offset), (7, 1));
        assert_eq!((hints.partition_index, hints.error_code, hints.high_watermark), (1, 74, -1));
        assert_eq!(hints.records.as_deref(), Some(&b""[..]), "empty, never null: librdkafka refuses null records");
        assert_eq!(hints.aborted_transactions, None);
        let tagged = version >= 12;
        assert_eq!(
            (hints.current_leader.leader_id.0, hints.current_leader.leader_epoch),
            (-1, if tagged { 6 } else { -1 })
        );
        let diverging = (hints.diverging_epoch.epoch, hints.diverging_epoch.end_offset);
        assert_eq!(diverging, if tagged { (0, 99) } else { (-1, -1) });
        assert_eq!(decoded.node_endpoints.len(), usize::from(version >= 16));
        if let Some(endpoint) = decoded.node_endpoints.first() {
            let found = (endpoint.node_id.0, &*endpoint.host, endpoint.port, endpoint.rack.as_deref());
            assert_eq!(found, (2, "b2", 65_535, Some("r")));
        }
    }
}

#[test]
fn records_are_sent_where_they_lie() {
    for version in [4, 18] {
        let pieces = respond(version);
        let shared: Vec<&[u8]> = pieces
            .as_slice()
            .iter()
            .filter_map(|piece| if let Piece::Shared(slice) = piece { Some(*slice) } else { None })
            .collect();
        assert_eq!(shared, [&b"first batch"[..], b"second batch"]);
    }
}

/// The buffer of a shard serves one response after another while earlier ones are still being sent.
#[test]
fn a_buffer_serves_many_responses() {
    let mut buffer = BytesMut::with_capacity(4096);
    let mut sent = Vec::new();
    for number in 0..100 {
        let mut encoder = FetchResponseEncoder::new(api(12), CorrelationId(number), &HEAD, 1, &mut buffer);
        encoder.topic(TopicKey::Name("t"), 2);
        encoder.partition(&FetchedPartition::failed(0, ErrorCode::None), [&b"records"[..], b""]);
        encoder.partition(&FetchedPartition::failed(1, ErrorCode::None), [&b""[..]]);
        sent.push(encoder.finish(&[]));
    }
    for (number, pieces) in sent.iter().enumerate() {
        assert_eq!(pieces.as_slice().len(), 3, "empty slices are no pieces");
        let mut frame = pieces.to_bytes();
        assert_eq!((frame.get_i32() as usize, frame.get_i32() as usize), (pieces.bytes() - 4, number));
        frame.advance(1);
        let decoded = kafka::FetchResponse::decode(&mut frame, 12).expect("decodes");
        assert_eq!(decoded.responses[0].partitions[0].records.as_deref(), Some(&b"records"[..]));
    }
}

#[test]
fn a_session_error_stands_alone() {
    let head = FetchHead { error: ErrorCode::FetchSessionIdNotFound, ..head_without_session() };
    let pieces =
        FetchResponseEncoder::<'_, Bytes>::new(api(7), CorrelationId(1), &head, 0, &mut BytesMut::new()).finish(&[]);
    assert_eq!(pieces.to_bytes()[..], [0, 0, 0, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 70, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
#[should_panic(expected = "no more partitions were announced")]
fn a_response_that_breaks_its_announcement_panics() {
    let mut buffer = BytesMut::new();
    let mut encoder = FetchResponseEncoder::<'_, Bytes>::new(api(4), CorrelationId(1), &HEAD, 1, &mut buffer);
    encoder.topic(TopicKey::Name("t"), 0);
    encoder.partition(&FetchedPartition::failed(0, ErrorCode::None), []);
}

#[test]
#[should_panic(expected = "ids are used from 13")]
fn a_name_in_a_version_of_ids_panics() {
    FetchResponseEncoder::<'_, Bytes>::new(api(13), CorrelationId(1), &HEAD, 1, &mut BytesMut::new())
        .topic(TopicKey::Name("t"), 0);
}

fn read_all(request: FetchRequest<'_>) -> usize {
    let partitions = request.topics.map(|topic| topic.partitions.count()).sum::<usize>();
    partitions + request.forgotten.map(|topic| topic.partitions.count()).sum::<usize>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(version in versions(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = FetchRequest::parse(api(version), &body).map(read_all);
    }

    #[test]
    fn random_small_numbers_never_panic(version in versions(), body in prop::collection::vec(0u8..4, 0..300)) {
        if let Ok(request) = FetchRequest::parse(api(version), &body) {
            prop_assert!(read_all(request) <= body.len());
        }
    }

    /// One byte of a good request changed: refused, or still read to the end.
    #[test]
    fn a_damaged_request_never_panics(version in versions(), position: prop::sample::Index, byte: u8) {
        let mut body = oracle_request(version).to_vec();
        let position = position.index(body.len());
        body[position] = byte;
        let _ = FetchRequest::parse(api(version), &body).map(read_all);
    }
}
