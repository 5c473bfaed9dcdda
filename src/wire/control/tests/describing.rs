//! Requests and responses of the APIs that describe the cluster or add partitions to it, with every field of a version set.
//!
//! Samples for the tests beside this file, which send them through both codecs in every version. They decide nothing.

use super::*;

/// A request that uses every field that its version has.
pub(super) fn full_request(api: Api) -> Request {
    let version = api.version();
    match api.key() {
        ApiKey::OffsetForLeaderEpoch => {
            let partition =
                OffsetForLeaderPartition::default().with_partition(7).with_current_leader_epoch(4).with_leader_epoch(3);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(name("orders"))
                .with_partitions(vec![partition.clone(), partition]);
            OffsetForLeaderEpochRequest::default()
                .with_replica_id(BrokerId(if version >= 3 { -1 } else { -2 }))
                .with_topics(vec![topic])
                .into()
        }
        ApiKey::DescribeLogDirs => {
            let topic = DescribableLogDirTopic::default().with_topic(name("orders")).with_partitions(vec![0, 5]);
            DescribeLogDirsRequest::default().with_topics(Some(vec![topic.clone(), topic])).into()
        }
        ApiKey::CreatePartitions => {
            let assignment = |brokers: [i32; 2]| {
                CreatePartitionsAssignment::default().with_broker_ids(brokers.map(BrokerId).to_vec())
            };
            let topic = |assignments| {
                CreatePartitionsTopic::default().with_name(name("orders")).with_count(6).with_assignments(assignments)
            };
            CreatePartitionsRequest::default()
                .with_topics(vec![topic(None), topic(Some(vec![assignment([1, 2]), assignment([2, 3])]))])
                .with_timeout_ms(30_000)
                .with_validate_only(true)
                .into()
        }
        ApiKey::DescribeCluster => DescribeClusterRequest::default()
            .with_include_cluster_authorized_operations(true)
            .with_endpoint_type(if version >= 1 { 2 } else { 1 })
            .with_include_fenced_brokers(version >= 2)
            .into(),
        ApiKey::DescribeProducers => {
            let topic = DescribeProducersTopic::default().with_name(name("orders")).with_partition_indexes(vec![0, 5]);
            DescribeProducersRequest::default().with_topics(vec![topic.clone(), topic]).into()
        }
        ApiKey::DescribeTopicPartitions => {
            let topic = DescribeTopicPartitionsTopic::default().with_name(name("orders"));
            let cursor = TopicPartitionsCursor::default().with_topic_name(name("orders")).with_partition_index(3);
            DescribeTopicPartitionsRequest::default()
                .with_topics(vec![topic.clone(), topic])
                .with_response_partition_limit(17)
                .with_cursor(Some(cursor))
                .into()
        }
        other => unreachable!("{other} has no sample"),
    }
}

/// A response with every field set.
pub(super) fn full_response(key: ApiKey) -> Response {
    match key {
        ApiKey::OffsetForLeaderEpoch => {
            let end = EpochEndOffset::default().with_partition(7).with_leader_epoch(3).with_end_offset(42);
            let topic = OffsetForLeaderTopicResult::default().with_topic(name("orders")).with_partitions(vec![end]);
            OffsetForLeaderEpochResponse::default().with_topics(vec![topic]).into()
        }
        ApiKey::DescribeLogDirs => {
            let partition = DescribeLogDirsPartition::default().with_partition_index(5).with_partition_size(1 << 40);
            let topic = DescribeLogDirsTopic::default().with_name(name("orders")).with_partitions(vec![partition]);
            let result = DescribeLogDirsResult::default()
                .with_log_dir(text("/var/lib/corelane"))
                .with_topics(vec![topic])
                .with_total_bytes(1 << 50)
                .with_usable_bytes(1 << 49);
            DescribeLogDirsResponse::default().with_error_code(0).with_results(vec![result]).into()
        }
        ApiKey::CreatePartitions => {
            let result = CreatePartitionsTopicResult::default()
                .with_name(name("orders"))
                .with_error_code(37)
                .with_error_message(Some(text("not more than there are")));
            CreatePartitionsResponse::default().with_results(vec![result]).into()
        }
        ApiKey::DescribeCluster => {
            let broker = DescribeClusterBroker::default()
                .with_broker_id(BrokerId(1))
                .with_host(text("localhost"))
                .with_port(9092)
                .with_rack(Some(text("a")))
                .with_is_fenced(true);
            DescribeClusterResponse::default()
                .with_error_code(114)
                .with_error_message(Some(text("not here")))
                .with_cluster_id(text("AAAAAAAAAAAAAAAAAAAAAA"))
                .with_controller_id(BrokerId(1))
                .with_brokers(vec![broker])
                .with_cluster_authorized_operations(0b1111)
                .into()
        }
        ApiKey::DescribeProducers => {
            let producer = ProducerState::default()
                .with_producer_id(ProducerId(17))
                .with_producer_epoch(2)
                .with_last_sequence(9)
                .with_last_timestamp(1_700_000_000_000)
                .with_coordinator_epoch(-1)
                .with_current_txn_start_offset(-1);
            let partition = DescribeProducersPartitionResult::default()
                .with_partition_index(5)
                .with_error_code(3)
                .with_error_message(Some(text("no such partition")))
                .with_active_producers(vec![producer]);
            let topic =
                DescribeProducersTopicResult::default().with_name(name("orders")).with_partitions(vec![partition]);
            DescribeProducersResponse::default().with_topics(vec![topic]).into()
        }
        ApiKey::DescribeTopicPartitions => described_topic_partitions().into(),
        other => unreachable!("{other} has no sample"),
    }
}

fn described_topic_partitions() -> DescribeTopicPartitionsResponse {
    let brokers = || vec![BrokerId(1), BrokerId(2)];
    let partition = DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(5)
        .with_leader_id(BrokerId(1))
        .with_leader_epoch(4)
        .with_replica_nodes(brokers())
        .with_isr_nodes(brokers())
        .with_eligible_leader_replicas(Some(brokers()))
        .with_last_known_elr(Some(brokers()))
        .with_offline_replicas(brokers());
    let topic = DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(name("orders")))
        .with_topic_id(an_id())
        .with_topic_authorized_operations(0b1111)
        .with_partitions(vec![partition]);
    let cursor = NextTopicPartitionsCursor::default().with_topic_name(name("orders")).with_partition_index(6);
    DescribeTopicPartitionsResponse::default().with_topics(vec![topic]).with_next_cursor(Some(cursor))
}

#[test]
fn a_page_without_a_cursor_is_null_on_the_wire() {
    let api = Api::new(ApiKey::DescribeTopicPartitions, 0).expect("in the table");
    let request: Request = DescribeTopicPartitionsRequest::default().into();
    let body = oracle_bytes(&request, 0);
    assert_eq!(body[..], [1, 0, 0, 0x07, 0xd0, 0xff, 0]);
    assert_eq!(decode_request(api, body), Ok(request));
}

#[test]
fn null_topics_of_describe_log_dirs_are_all_and_an_empty_list_is_none() {
    for version in 1..=4 {
        let api = Api::new(ApiKey::DescribeLogDirs, version).expect("in the table");
        for topics in [None, Some(Vec::new())] {
            let request: Request = DescribeLogDirsRequest::default().with_topics(topics).into();
            let body = oracle_bytes(&request, version);
            assert_eq!(decode_request(api, body), Ok(request), "{api}");
        }
    }
}
