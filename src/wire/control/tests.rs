//! The control plane against the codec's own encoders, and against hostile bytes.

mod configuring;
mod describing;

use bytes::{Buf, BytesMut};
use kafka_protocol::protocol::VersionRange;
use proptest::prelude::*;

use super::*;
use crate::types::TopicId;
use crate::wire::ELEMENTS_MAX;
use crate::wire::messages::*;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name(name: &'static str) -> TopicName {
    TopicName(text(name))
}

fn an_id() -> Uuid {
    TopicId::from_random(0x1234).into()
}

/// A request that uses every field that its version has.
fn full_request(api: Api) -> Option<Request> {
    let version = api.version();
    Some(match api.key() {
        ApiKey::Produce | ApiKey::Fetch => return None,
        ApiKey::ListOffsets => {
            let epoch = if version >= 4 { 3 } else { -1 };
            let partition = |index| {
                ListOffsetsPartition::default()
                    .with_partition_index(index)
                    .with_current_leader_epoch(epoch)
                    .with_timestamp(-2)
            };
            let topic =
                ListOffsetsTopic::default().with_name(name("orders")).with_partitions(vec![partition(0), partition(7)]);
            ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_isolation_level(i8::from(version >= 2))
                .with_topics(vec![topic.clone(), topic])
                .with_timeout_ms(if version >= 10 { 5000 } else { 0 })
                .into()
        }
        ApiKey::Metadata => {
            let named = MetadataRequestTopic::default().with_name(Some(name("orders")));
            let mut topics = vec![named];
            if version >= 12 {
                topics.push(MetadataRequestTopic::default().with_name(None).with_topic_id(an_id()));
            }
            MetadataRequest::default()
                .with_topics(Some(topics))
                .with_allow_auto_topic_creation(version < 4)
                .with_include_cluster_authorized_operations((8..=10).contains(&version))
                .with_include_topic_authorized_operations(version >= 8)
                .into()
        }
        ApiKey::ApiVersions => {
            let software = |text: &'static str| StrBytes::from_static_str(if version >= 3 { text } else { "" });
            ApiVersionsRequest::default()
                .with_client_software_name(software("librdkafka"))
                .with_client_software_version(software("2.12.1"))
                .into()
        }
        ApiKey::CreateTopics => {
            let assignment = CreatableReplicaAssignment::default()
                .with_partition_index(0)
                .with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
            let config = |value| CreatableTopicConfig::default().with_name(text("cleanup.policy")).with_value(value);
            let topic = CreatableTopic::default()
                .with_name(name("orders"))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(vec![assignment])
                .with_configs(vec![config(Some(text("compact"))), config(None)]);
            CreateTopicsRequest::default()
                .with_topics(vec![topic])
                .with_timeout_ms(30_000)
                .with_validate_only(true)
                .into()
        }
        ApiKey::DeleteTopics if version >= 6 => {
            let by_name = DeleteTopicState::default().with_name(Some(name("orders")));
            let by_id = DeleteTopicState::default().with_name(None).with_topic_id(an_id());
            DeleteTopicsRequest::default().with_topics(vec![by_name, by_id]).with_timeout_ms(1).into()
        }
        ApiKey::DeleteTopics => DeleteTopicsRequest::default()
            .with_topic_names(vec![name("orders"), name("trades")])
            .with_timeout_ms(1)
            .into(),
        ApiKey::DeleteRecords => {
            let partition = DeleteRecordsPartition::default().with_partition_index(2).with_offset(-1);
            let topic = DeleteRecordsTopic::default().with_name(name("orders")).with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(9).into()
        }
        ApiKey::InitProducerId => InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text("t-1"))))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(if version >= 3 { 17 } else { -1 }))
            .with_producer_epoch(if version >= 3 { 2 } else { -1 })
            .into(),
        ApiKey::DescribeConfigs | ApiKey::AlterConfigs | ApiKey::IncrementalAlterConfigs => {
            configuring::full_request(api)
        }
        _ => describing::full_request(api),
    })
}

/// The same body by the codec alone.
fn oracle_bytes(request: &Request, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    match request {
        Request::ListOffsets(inner) => inner.encode(&mut body, version),
        Request::Metadata(inner) => inner.encode(&mut body, version),
        Request::ApiVersions(inner) => inner.encode(&mut body, version),
        Request::CreateTopics(inner) => inner.encode(&mut body, version),
        Request::DeleteTopics(inner) => inner.encode(&mut body, version),
        Request::DeleteRecords(inner) => inner.encode(&mut body, version),
        Request::InitProducerId(inner) => inner.encode(&mut body, version),
        Request::OffsetForLeaderEpoch(inner) => inner.encode(&mut body, version),
        Request::DescribeLogDirs(inner) => inner.encode(&mut body, version),
        Request::CreatePartitions(inner) => inner.encode(&mut body, version),
        Request::DescribeCluster(inner) => inner.encode(&mut body, version),
        Request::DescribeProducers(inner) => inner.encode(&mut body, version),
        Request::DescribeTopicPartitions(inner) => inner.encode(&mut body, version),
        Request::DescribeConfigs(inner) => inner.encode(&mut body, version),
        Request::AlterConfigs(inner) => inner.encode(&mut body, version),
        Request::IncrementalAlterConfigs(inner) => inner.encode(&mut body, version),
    }
    .expect("the codec encodes its own request");
    body.freeze()
}

fn samples() -> impl Iterator<Item = (Api, Request, Bytes)> {
    Api::all().filter_map(|api| {
        let request = full_request(api)?;
        let bytes = oracle_bytes(&request, codec_version(api));
        Some((api, request, bytes))
    })
}

#[test]
fn every_control_plane_version_of_the_table_decodes_what_the_codec_encodes() {
    for (api, request, body) in samples() {
        assert_eq!(bounds::check(ELEMENTS_MAX, api, &body), Ok(body.len()), "{api}");
        assert_eq!(decode_request(api, body), Ok(request), "{api}");
    }
}

/// The codec's ranges, but for the versions that are adapted here.
#[test]
fn the_table_claims_nothing_that_the_codec_cannot_do() {
    for row in crate::wire::table::TABLE {
        let oracle = kafka_protocol::messages::ApiKey::try_from(row.key.code()).expect("known");
        let VersionRange { min, max } = oracle.valid_versions();
        match row.key {
            ApiKey::Produce => assert_eq!((min, max), (3, row.max)),
            ApiKey::ListOffsets => assert_eq!((min, max), (row.min, row.max - 1)),
            _ => assert!(min <= row.min && row.max <= max, "{row:?} against {min}..={max}"),
        }
    }
}

#[test]
fn rule_28_every_truncated_request_is_refused() {
    for (api, _, body) in samples() {
        for length in 0..body.len() {
            let refused = decode_request(api, body.slice(..length));
            assert!(refused.is_err(), "{api} cut at {length} of {}: {refused:?}", body.len());
        }
    }
}

#[test]
fn null_topics_of_metadata_are_all_and_an_empty_list_is_none() {
    for version in 1..=13 {
        let api = Api::new(ApiKey::Metadata, version).expect("in the table");
        for topics in [None, Some(Vec::new())] {
            let request = Request::Metadata(MetadataRequest::default().with_topics(topics));
            let body = oracle_bytes(&request, version);
            assert_eq!(decode_request(api, body), Ok(request), "{api}");
        }
    }
}

#[test]
fn unknown_tagged_fields_and_bytes_after_the_request_do_not_disturb() {
    let api = Api::new(ApiKey::Metadata, 12).expect("in the table");
    let body = Bytes::from_static(&[0, 1, 0, 1, 99, 3, 1, 2, 3, b'j', b'u', b'n', b'k']);
    let Ok(Request::Metadata(request)) = decode_request(api, body) else { panic!("refused") };
    assert_eq!(request.topics, None);
    assert_eq!(request.unknown_tagged_fields[&99], &[1, 2, 3][..]);
}

/// The walk skips tagged fields. A codec that knew one of these tags would read its content instead, unchecked.
#[test]
fn the_codec_knows_no_tagged_field_of_these_requests() {
    for (api, _, body) in samples().filter(|(api, ..)| api.is_flexible()) {
        for tag in 0..8 {
            let tagged = [&body[..body.len() - 1], &[1, tag, 2, 0xff, 0xff]].concat();
            assert!(decode_request(api, tagged.into()).is_ok(), "{api} tag {tag}");
        }
    }
}

/// Every length of every sample is replaced by huge ones: wherever it lies, the walk refuses it or the request still
/// decodes to something no larger than its bytes allow. Without the walk, the codec would abort the process here.
#[test]
fn hostile_lengths_never_reach_the_codec() {
    let lengths: [&[u8]; 4] =
        [&[0x7f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff, 0xff, 0xff, 0x7f], &[0x80, 0, 0, 0]];
    let mut refused = 0;
    for (api, _, body) in samples() {
        for position in 0..body.len() {
            for length in lengths {
                let mut hostile = body.to_vec();
                hostile.splice(position..(position + length.len()).min(body.len()), length.iter().copied());
                refused += usize::from(decode_request(api, hostile.into()).is_err());
            }
        }
    }
    assert!(refused > 1000, "only {refused} were refused: the test has lost its teeth");
}

#[test]
fn a_dozen_bytes_that_claim_2_to_the_31_elements_are_refused_by_the_walk() {
    for (api, _, body) in samples().filter(|(api, ..)| api.key() != ApiKey::ApiVersions) {
        // The place of the first array: the fields before it are those of the sample.
        let array = match api.key() {
            ApiKey::ListOffsets => 4 + usize::from(api.version() >= 2),
            ApiKey::OffsetForLeaderEpoch if api.version() >= 3 => 4,
            ApiKey::InitProducerId | ApiKey::DescribeCluster => continue,
            _ => 0,
        };
        let claim: &[u8] = if api.is_flexible() { &[0xff, 0xff, 0xff, 0xff, 0x07] } else { &[0x7f, 0xff, 0xff, 0xff] };
        let hostile = [&body[..array], claim, &[0; 8]].concat();
        let refused = bounds::check(ELEMENTS_MAX, api, &hostile).expect_err("the walk lets a hostile length through");
        assert!(matches!(refused.expected, Expected::Elements(count) if count > 1 << 30), "{api}: {refused}");
        assert_eq!(refused.position, array, "{api}");
    }
}

/// Empty names of two bytes would be decoded to 36 times as much.
#[test]
fn more_elements_than_any_cluster_needs_are_refused() {
    let api = Api::new(ApiKey::Metadata, 0).expect("in the table");
    let body = |count: usize| [&(count as i32).to_be_bytes()[..], &vec![0; count * 2]].concat();
    assert!(decode_request(api, body(ELEMENTS_MAX).into()).is_ok());
    let refused = decode_request(api, body(ELEMENTS_MAX * 2).into()).expect_err("refused");
    assert_eq!((refused.position, refused.expected), (0, Expected::FewerElements));
    assert!(size_of::<CreatableTopic>() <= 112, "the largest element costs more than the limit's note says");
}

fn full_response(key: ApiKey) -> Option<Response> {
    Some(match key {
        ApiKey::Produce | ApiKey::Fetch => return None,
        ApiKey::ListOffsets => {
            let partition = ListOffsetsPartitionResponse::default()
                .with_partition_index(1)
                .with_timestamp(1_700_000_000_000)
                .with_offset(42)
                .with_leader_epoch(3);
            let topic = ListOffsetsTopicResponse::default().with_name(name("orders")).with_partitions(vec![partition]);
            ListOffsetsResponse::default().with_topics(vec![topic]).into()
        }
        ApiKey::Metadata => {
            let broker = MetadataResponseBroker::default()
                .with_node_id(BrokerId(1))
                .with_host(text("localhost"))
                .with_port(9092)
                .with_rack(Some(text("a")));
            let partition = MetadataResponsePartition::default()
                .with_leader_id(BrokerId(1))
                .with_leader_epoch(4)
                .with_replica_nodes(vec![BrokerId(1)])
                .with_isr_nodes(vec![BrokerId(1)]);
            let topic = MetadataResponseTopic::default()
                .with_name(Some(name("orders")))
                .with_topic_id(an_id())
                .with_topic_authorized_operations(0b1111)
                .with_partitions(vec![partition]);
            MetadataResponse::default()
                .with_brokers(vec![broker])
                .with_cluster_id(Some(text("AAAAAAAAAAAAAAAAAAAAAA")))
                .with_controller_id(BrokerId(1))
                .with_cluster_authorized_operations(0b1111)
                .with_topics(vec![topic])
                .into()
        }
        ApiKey::ApiVersions => crate::wire::api_versions::response(4).into(),
        ApiKey::CreateTopics => {
            let config = CreatableTopicConfigs::default()
                .with_name(text("cleanup.policy"))
                .with_value(Some(text("delete")))
                .with_config_source(5);
            let topic = CreatableTopicResult::default()
                .with_name(name("orders"))
                .with_topic_id(an_id())
                .with_error_message(Some(text("no")))
                .with_num_partitions(3)
                .with_replication_factor(1)
                .with_configs(Some(vec![config]));
            CreateTopicsResponse::default().with_topics(vec![topic]).into()
        }
        ApiKey::DeleteTopics => {
            let result = DeletableTopicResult::default()
                .with_name(Some(name("orders")))
                .with_topic_id(an_id())
                .with_error_code(3)
                .with_error_message(Some(text("no such topic")));
            DeleteTopicsResponse::default().with_responses(vec![result]).into()
        }
        ApiKey::DeleteRecords => {
            let partition = DeleteRecordsPartitionResult::default().with_partition_index(2).with_low_watermark(5);
            let topic = DeleteRecordsTopicResult::default().with_name(name("orders")).with_partitions(vec![partition]);
            DeleteRecordsResponse::default().with_topics(vec![topic]).into()
        }
        ApiKey::InitProducerId => InitProducerIdResponse::default().with_producer_id(ProducerId(17)).into(),
        ApiKey::DescribeConfigs | ApiKey::AlterConfigs | ApiKey::IncrementalAlterConfigs => {
            configuring::full_response(key)
        }
        _ => describing::full_response(key),
    })
}

/// What the codec makes of a body that is followed by nothing.
fn oracle_response(key: ApiKey, body: &mut Bytes, version: i16) -> Response {
    let decoded = match key {
        ApiKey::ListOffsets => ListOffsetsResponse::decode(body, version).map(Response::from),
        ApiKey::Metadata => MetadataResponse::decode(body, version).map(Response::from),
        ApiKey::ApiVersions => ApiVersionsResponse::decode(body, version).map(Response::from),
        ApiKey::CreateTopics => CreateTopicsResponse::decode(body, version).map(Response::from),
        ApiKey::DeleteTopics => DeleteTopicsResponse::decode(body, version).map(Response::from),
        ApiKey::DeleteRecords => DeleteRecordsResponse::decode(body, version).map(Response::from),
        ApiKey::InitProducerId => InitProducerIdResponse::decode(body, version).map(Response::from),
        ApiKey::OffsetForLeaderEpoch => OffsetForLeaderEpochResponse::decode(body, version).map(Response::from),
        ApiKey::DescribeLogDirs => DescribeLogDirsResponse::decode(body, version).map(Response::from),
        ApiKey::CreatePartitions => CreatePartitionsResponse::decode(body, version).map(Response::from),
        ApiKey::DescribeCluster => DescribeClusterResponse::decode(body, version).map(Response::from),
        ApiKey::DescribeProducers => DescribeProducersResponse::decode(body, version).map(Response::from),
        ApiKey::DescribeTopicPartitions => DescribeTopicPartitionsResponse::decode(body, version).map(Response::from),
        ApiKey::DescribeConfigs => DescribeConfigsResponse::decode(body, version).map(Response::from),
        ApiKey::AlterConfigs => AlterConfigsResponse::decode(body, version).map(Response::from),
        ApiKey::IncrementalAlterConfigs => IncrementalAlterConfigsResponse::decode(body, version).map(Response::from),
        ApiKey::Produce | ApiKey::Fetch => unreachable!("not of the control plane"),
    };
    decoded.expect("the codec decodes what it encoded")
}

#[test]
fn responses_with_every_field_set_encode_in_every_version() {
    for api in Api::all() {
        let Some(response) = full_response(api.key()) else { continue };
        let mut frame = encode_response(api, CorrelationId(-7), response.clone()).expect("encodes");
        assert_eq!(frame.get_i32() as usize, frame.len(), "{api}");
        assert_eq!(frame.get_i32(), -7);
        if api.response_header_version() == 1 {
            assert_eq!(frame.get_u8(), 0);
        }
        let version = codec_version(api);
        let decoded = oracle_response(api.key(), &mut frame, version);
        assert_eq!(frame.len(), 0, "{api} leaves bytes");
        if api.version() == api.key().row().max && api.key() != ApiKey::Metadata {
            assert_eq!(decoded, response, "{api}");
        }
        match (decoded, response) {
            (Response::Metadata(decoded), Response::Metadata(sent)) => {
                assert_eq!(decoded.brokers.len(), 1);
                assert_eq!(decoded.topics[0].name, sent.topics[0].name);
                let operations = if (8..=10).contains(&version) { 0b1111 } else { OPERATIONS_NOT_ASKED };
                assert_eq!(decoded.cluster_authorized_operations, operations, "{api}");
            }
            (Response::ListOffsets(decoded), Response::ListOffsets(_)) => {
                let partition = &decoded.topics[0].partitions[0];
                assert_eq!((partition.offset, partition.timestamp), (42, 1_700_000_000_000));
                assert_eq!(partition.leader_epoch, if version >= 4 { 3 } else { -1 }, "{api}");
            }
            (Response::DescribeCluster(decoded), Response::DescribeCluster(_)) => {
                assert_eq!((decoded.endpoint_type, decoded.brokers[0].is_fenced), (1, version >= 2), "{api}");
            }
            (Response::DescribeLogDirs(decoded), Response::DescribeLogDirs(_)) => {
                let total = if version >= 4 { 1 << 50 } else { -1 };
                assert_eq!((decoded.results.len(), decoded.results[0].total_bytes), (1, total), "{api}");
            }
            _ => {}
        }
    }
}

#[test]
fn a_response_of_another_api_is_a_typed_error() {
    let api = Api::new(ApiKey::Metadata, 3).expect("in the table");
    let refused = encode_response(api, CorrelationId(0), InitProducerIdResponse::default().into());
    let message = refused.expect_err("refused").to_string();
    assert_eq!(message, "cannot encode for Metadata v3: this is a body of InitProducerId");
}

fn any_control_api() -> impl Strategy<Value = Api> {
    let apis: Vec<Api> = samples().map(|(api, ..)| api).collect();
    prop::sample::select(apis)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(api in any_control_api(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_request(api, body.into());
    }

    /// Small numbers make lengths that fit, so the walk goes deep.
    #[test]
    fn random_small_numbers_never_panic(api in any_control_api(), body in prop::collection::vec(0u8..6, 0..200)) {
        let checked = bounds::check(ELEMENTS_MAX, api, &body);
        let decoded = decode_request(api, body.into());
        prop_assert_eq!(checked.is_ok(), decoded.is_ok(), "the walk and the codec disagree: {:?}", decoded);
    }
}
