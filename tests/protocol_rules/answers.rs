//! What answers say beside what was asked for: ranges that clients draw conclusions from, ends, leaders, epochs, pauses.
//!
//! Each test builds the state in which a naive broker's answer differs from the right one, and reads the whole answer. It does
//! not judge the records themselves; that is what the other files of this directory do.

use corelane::record::Codec;
use corelane::types::ErrorCode;
use corelane::wire::client::messages::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelane::wire::messages::{
    ApiVersionsRequest, DescribeTopicPartitionsRequest, DescribeTopicPartitionsTopic, ListOffsetsPartition,
    ListOffsetsRequest, ListOffsetsTopic, MetadataRequest, MetadataRequestTopic, StrBytes,
};

use super::Shared;
use super::clients::wire::{
    Client, FETCH_BY_NAME, batch, batches, code, compressed, fetch_request, partitions, produce_request, topic_name,
};

#[test]
fn rule_04_the_ranges_from_which_clients_conclude_what_a_broker_can_do() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let software = StrBytes::from_static_str("corelane-tests");
    let asked = ApiVersionsRequest::default()
        .with_client_software_name(software.clone())
        .with_client_software_version(software);
    let ranges = client.call(3, &asked).api_keys;
    let range = |key: i16| {
        let found = ranges.iter().find(|range| range.api_key == key).expect("it is listed");
        found.min_version..=found.max_version
    };
    // librdkafka: Produce 3 and Fetch 4 for batches of version 2, Produce 7 and Fetch 10 for zstd.
    let (produce, fetch) = (range(0), range(1));
    assert!([0, 3, 7].iter().all(|version| produce.contains(version)), "{produce:?}");
    assert!([4, 10].iter().all(|version| fetch.contains(version)), "{fetch:?}");
    // And what it concludes is so.
    client.create_topic("rule-04", 1, &[]);
    let produced = |client: &mut Client, version, codec| {
        let request = produce_request("rule-04", 0, &compressed(codec, &[b"value"]), -1);
        code(client.call(version, &request).responses[0].partition_responses[0].error_code)
    };
    assert_eq!(produced(&mut client, 3, Codec::None), ErrorCode::None);
    assert_eq!(produced(&mut client, 7, Codec::Zstd), ErrorCode::None);
    assert_eq!(produced(&mut client, 6, Codec::Zstd), ErrorCode::UnsupportedCompressionType);
    for version in [4, 10] {
        let data = partitions(client.call(version, &fetch_request(&[("rule-04", 0, 0, 1 << 20)])));
        assert_eq!(batches(&data[0]).len(), 2, "version {version}");
    }
}

#[test]
fn rule_18_read_committed_reads_to_the_last_stable_offset_which_is_the_high_watermark() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-18", 1, &[]);
    for _ in 0..3 {
        client.append("rule-18", 0, &batch(&[b"value"]));
    }
    for isolation in [0, 1] {
        let request = fetch_request(&[("rule-18", 0, 0, 1 << 20)]).with_isolation_level(isolation);
        let data = partitions(client.call(FETCH_BY_NAME, &request)).remove(0);
        assert_eq!((data.high_watermark, data.last_stable_offset, batches(&data).len()), (3, 3, 3));
        // Who reads committed records is told of aborted transactions, of which there are none.
        let aborted = data.aborted_transactions.map(|aborted| aborted.len());
        assert_eq!(aborted, (isolation == 1).then_some(0));
        let wanted = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(topic_name("rule-18")).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_isolation_level(isolation)
            .with_topics(vec![topic]);
        assert_eq!(client.call(7, &request).topics[0].partitions[0].offset, 3);
    }
}

#[test]
fn rule_20_every_answer_names_the_same_leader_at_the_same_epoch() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-20", 3, &[]);
    let asked = MetadataRequestTopic::default().with_name(Some(topic_name("rule-20")));
    let metadata = client.call(12, &MetadataRequest::default().with_topics(Some(vec![asked])));
    assert_eq!(metadata.brokers.len(), 1);
    let leader = metadata.brokers[0].node_id;
    let topic = DescribeTopicPartitionsTopic::default().with_name(topic_name("rule-20"));
    let request = DescribeTopicPartitionsRequest::default().with_topics(vec![topic]).with_response_partition_limit(100);
    let described = client.call(0, &request);
    for partition in &metadata.topics[0].partitions {
        let index = partition.partition_index;
        assert_eq!(partition.leader_id, leader);
        let same = described.topics[0].partitions.iter().find(|other| other.partition_index == index);
        let same = same.expect("it is described");
        assert_eq!((same.leader_id, same.leader_epoch), (leader, partition.leader_epoch));
        client.append("rule-20", index, &batch(&[b"value"]));
        assert_eq!(client.list_offset(7, "rule-20", index, -1).leader_epoch, partition.leader_epoch);
        let data = client.fetch("rule-20", index, 0);
        let epoch = batches(&data)[0].leader_epoch().map(|epoch| epoch.value());
        assert_eq!(epoch, Some(partition.leader_epoch), "the epoch in the batch");
        // Nobody else leads, so no answer names another leader.
        assert_eq!((data.current_leader.leader_id.0, data.current_leader.leader_epoch), (-1, -1));
    }
}

#[test]
fn rule_22_no_answer_asks_for_a_pause() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-22", 1, &[]);
    for version in 3..=12 {
        let data = PartitionProduceData::default().with_records(Some(batch(&[b"value"]).into()));
        let topic = TopicProduceData::default().with_name(topic_name("rule-22")).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        assert_eq!(client.call(version, &request).throttle_time_ms, 0, "Produce {version}");
    }
    for version in 4..=12 {
        let answer = client.call(version, &fetch_request(&[("rule-22", 0, 0, 1 << 20)]));
        assert_eq!(answer.throttle_time_ms, 0, "Fetch {version}");
    }
    for version in 3..=12 {
        let metadata = client.call(version, &MetadataRequest::default().with_topics(Some(Vec::new())));
        assert_eq!(metadata.throttle_time_ms, 0, "Metadata {version}");
    }
}
