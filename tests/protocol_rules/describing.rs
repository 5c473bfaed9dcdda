//! What the broker says of itself: the cluster, its directory, its topics page by page, its producers.
//!
//! Other tests make topics in the same broker at the same time, so that nothing here counts on being alone.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use corelane::types::ErrorCode;
use corelane::wire::control::OPERATIONS_NOT_ASKED;
use corelane::wire::messages::{
    BrokerId, DescribableLogDirTopic, DescribeClusterRequest, DescribeClusterResponse, DescribeLogDirsRequest,
    DescribeLogDirsResult, DescribeProducersPartitionResult, DescribeProducersRequest, DescribeProducersTopic,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsTopic, MetadataRequest, MetadataRequestTopic, ProducerId,
    ProducerState, TopicPartitionsCursor,
};

use super::Shared;
use super::clients::noise;
use super::clients::wire::{BATCH_TIME, Client, batch, code, sequenced, topic_name};
use super::support::{BrokerOptions, Scratch};

/// Bits of the operations that clients look for: create 5, delete 6, alter 7, describe 8.
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8;
const TOPIC_OPERATIONS: i32 = 1 << 6 | 1 << 7 | 1 << 8;

fn kind(kind: i8) -> DescribeClusterRequest {
    DescribeClusterRequest::default().with_endpoint_type(kind)
}

/// Hosts and ports of the brokers.
fn endpoints(answer: &DescribeClusterResponse) -> Vec<(String, i32)> {
    answer.brokers.iter().map(|broker| (broker.host.to_string(), broker.port)).collect()
}

#[test]
fn the_cluster_is_described_in_every_version() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let ready = shared.0.ready();
    for version in 0..=2 {
        for fenced in [false, version >= 2] {
            let answer = client.call(version, &kind(1).with_include_fenced_brokers(fenced));
            assert_eq!((code(answer.error_code), &answer.error_message), (ErrorCode::None, &None));
            assert_eq!((answer.endpoint_type, &*answer.cluster_id), (1, &*ready.cluster.to_string()));
            assert_eq!(answer.controller_id, BrokerId(ready.node.value()));
            assert_eq!(answer.brokers.len(), 1);
            assert_eq!((answer.brokers[0].broker_id, answer.brokers[0].is_fenced), (answer.controller_id, false));
            assert_eq!(endpoints(&answer), [("127.0.0.1".to_owned(), i32::from(shared.address().port()))]);
            assert_eq!(answer.cluster_authorized_operations, OPERATIONS_NOT_ASKED);
        }
        let asked = client.call(version, &kind(1).with_include_cluster_authorized_operations(true));
        let operations = asked.cluster_authorized_operations;
        assert!(operations > 0 && operations & CLUSTER_OPERATIONS == CLUSTER_OPERATIONS, "{operations:b}");
    }
}

#[test]
fn metadata_tells_what_a_client_may_do_to_those_who_ask() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("operations", 1, &[]);
    let topics = ["operations", "operations-nowhere"];
    let topics = topics.map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name)))).to_vec();
    let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(false);
    for version in 8..=13 {
        let of_the_cluster = version <= 10;
        let asked = request
            .clone()
            .with_include_topic_authorized_operations(true)
            .with_include_cluster_authorized_operations(of_the_cluster);
        let answer = client.call(version, &asked);
        let told: Vec<_> = answer.topics.iter().map(|topic| topic.topic_authorized_operations).collect();
        assert_eq!((told[0] & TOPIC_OPERATIONS, told[1]), (TOPIC_OPERATIONS, OPERATIONS_NOT_ASKED), "{version}");
        let cluster = answer.cluster_authorized_operations;
        let expected = if of_the_cluster { CLUSTER_OPERATIONS } else { 0 };
        assert_eq!(cluster & CLUSTER_OPERATIONS, expected, "version {version}");
        let answer = client.call(version, &request);
        assert_eq!(answer.topics[0].topic_authorized_operations, OPERATIONS_NOT_ASKED, "version {version}");
        assert_eq!(answer.cluster_authorized_operations, OPERATIONS_NOT_ASKED, "version {version}");
    }
}

#[test]
fn the_cluster_of_controllers_is_not_described_here() {
    let shared = Shared::broker();
    let mut client = shared.client();
    for version in 1..=2 {
        for (wanted, expected) in [
            (2, ErrorCode::MismatchedEndpointType),
            (0, ErrorCode::UnsupportedEndpointType),
            (3, ErrorCode::UnsupportedEndpointType),
            (-1, ErrorCode::UnsupportedEndpointType),
        ] {
            let answer = client.call(version, &kind(wanted));
            assert_eq!(code(answer.error_code), expected, "endpoint type {wanted}");
            assert!(answer.error_message.is_some_and(|message| !message.is_empty()));
            assert_eq!((answer.brokers.len(), answer.controller_id), (0, BrokerId(-1)));
        }
    }
}

#[test]
fn rule_06_a_client_is_told_the_address_of_the_listener_that_it_came_in_by() {
    let scratch = Scratch::new("two-listeners");
    let options = BrokerOptions::new(&scratch.path().join("data")).listen("127.0.0.1:0,127.0.0.1:0");
    let broker = options.start().expect("it starts");
    let listening = &broker.ready().listen;
    assert!(listening.len() == 2 && listening[0] != listening[1], "{listening:?}");
    for address in listening {
        let mut client = Client::connect(*address);
        let expected = [("127.0.0.1".to_owned(), i32::from(address.port()))];
        for version in 0..=2 {
            assert_eq!(endpoints(&client.call(version, &kind(1))), expected);
        }
        let metadata = client.call(12, &MetadataRequest::default().with_topics(Some(Vec::new())));
        let told: Vec<_> = metadata.brokers.iter().map(|broker| (broker.host.to_string(), broker.port)).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn rule_06_a_listener_of_every_address_serves_both_families() {
    let has_v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    for every in [":0", "0.0.0.0:0", "[::]:0"] {
        if every.starts_with('[') && !has_v6 {
            continue;
        }
        let scratch = Scratch::new("every-address");
        let options = BrokerOptions::new(&scratch.path().join("data")).listen(every);
        let broker = options.argument("--advertise").argument("localhost:0").start().expect("it starts");
        let listening = &broker.ready().listen;
        let families = if has_v6 && every != "0.0.0.0:0" { 2 } else { 1 };
        assert_eq!(listening.len(), families, "{every} is {listening:?}");
        for address in listening {
            assert!(address.ip().is_unspecified() && address.port() == listening[0].port(), "{listening:?}");
            let loopback = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            let mut client = Client::connect(SocketAddr::new(loopback, address.port()));
            let expected = [("localhost".to_owned(), i32::from(address.port()))];
            assert_eq!(endpoints(&client.call(1, &kind(1))), expected);
        }
    }
}

fn log_dirs(client: &mut Client, version: i16, topics: Option<Vec<(&str, Vec<i32>)>>) -> DescribeLogDirsResult {
    let topics = topics.map(|topics| {
        let asked = topics.into_iter().map(|(name, partitions)| {
            DescribableLogDirTopic::default().with_topic(topic_name(name)).with_partitions(partitions)
        });
        asked.collect()
    });
    let mut answer = client.call(version, &DescribeLogDirsRequest::default().with_topics(topics));
    assert_eq!((code(answer.error_code), answer.results.len()), (ErrorCode::None, 1), "one directory");
    let result = answer.results.remove(0);
    assert_eq!(code(result.error_code), ErrorCode::None);
    for partition in result.topics.iter().flat_map(|topic| &topic.partitions) {
        assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
    }
    result
}

/// The sizes of the topic's partitions, by index.
fn sizes(result: &DescribeLogDirsResult, name: &str) -> Vec<(i32, i64)> {
    let topics = result.topics.iter().filter(|topic| topic.name == topic_name(name));
    topics.flat_map(|topic| &topic.partitions).map(|part| (part.partition_index, part.partition_size)).collect()
}

#[test]
fn the_log_directory_is_an_absolute_path_with_the_size_of_its_file_system() {
    let shared = Shared::broker();
    let mut client = shared.client();
    for version in 1..=4 {
        let result = log_dirs(&mut client, version, Some(Vec::new()));
        assert_eq!(result.topics, [], "no topics are none");
        let directory = Path::new(&*result.log_dir);
        assert!(directory.is_absolute(), "{directory:?}");
        let identity = std::fs::read_to_string(directory.join("corelane.toml")).expect("it is the data directory");
        assert!(identity.contains(&shared.0.ready().cluster.to_string()));
        if version >= 4 {
            assert!(result.usable_bytes > 0 && result.usable_bytes <= result.total_bytes, "{result:?}");
        }
    }
}

#[test]
fn a_relative_data_directory_is_described_by_its_absolute_path() {
    let scratch = Scratch::new("relative");
    let broker = BrokerOptions::new(Path::new("./inside/data")).directory(scratch.path()).start().expect("it starts");
    let result = log_dirs(&mut Client::connect(broker.address()), 4, None);
    let canonical = scratch.path().canonicalize().expect("it exists").join("inside/data");
    assert_eq!(Path::new(&*result.log_dir), canonical);
}

#[test]
fn sizes_of_partitions_are_those_of_their_segments() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("sized", 3, &[]);
    let whole = |client: &mut Client, version| {
        let result = log_dirs(client, version, None);
        sizes(&result, "sized")
    };
    let before = whole(&mut client, 4);
    assert_eq!(before.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2]);
    let value = noise(35, 20_000);
    let bytes = batch(&[&value]);
    client.append("sized", 1, &bytes);
    client.append("sized", 1, &bytes);
    for version in 1..=4 {
        let after = whole(&mut client, version);
        let grown: Vec<i64> = after.iter().zip(&before).map(|(after, before)| after.1 - before.1).collect();
        assert_eq!(grown, [0, 2 * bytes.len() as i64, 0], "version {version}");
    }
    // No more than the files have.
    let result = log_dirs(&mut client, 4, Some(vec![("sized", vec![1])]));
    let partitions = std::fs::read_dir(Path::new(&*result.log_dir).join("p")).expect("partitions lie there");
    let directories = partitions.map(|entry| entry.expect("readable").path());
    let here =
        directories.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sized-1.")));
    let files =
        here.flat_map(|path| std::fs::read_dir(path).expect("a directory")).map(|entry| entry.expect("readable"));
    let logs = files.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"));
    let on_disk: u64 = logs.map(|entry| entry.metadata().expect("a file").len()).sum();
    let told = sizes(&result, "sized");
    assert!(told.len() == 1 && told[0].1 > 40_000 && told[0].1 as u64 <= on_disk, "{told:?} of {on_disk}");
}

#[test]
fn only_partitions_that_are_asked_for_and_are_there_have_a_size() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("sized-some", 4, &[]);
    client.create_topic("sized-none", 1, &[]);
    let asked = vec![
        ("sized-some", vec![2, 9, -1, 2]),
        ("sized-nowhere", vec![0]),
        ("sized-none", vec![1]),
        ("sized-some", vec![0, 2]),
    ];
    let result = log_dirs(&mut client, 4, Some(asked));
    let indexes: Vec<i32> = sizes(&result, "sized-some").iter().map(|(index, _)| *index).collect();
    assert_eq!((result.topics.len(), indexes), (1, vec![0, 2]));
}

fn page(names: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
    let topics = names.iter().map(|name| DescribeTopicPartitionsTopic::default().with_name(topic_name(name)));
    let cursor = cursor.map(|(name, partition)| {
        TopicPartitionsCursor::default().with_topic_name(topic_name(name)).with_partition_index(partition)
    });
    DescribeTopicPartitionsRequest::default()
        .with_topics(topics.collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor)
}

#[test]
fn topics_are_described_page_by_page() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let id = client.create_topic("paged-b", 3, &[]);
    client.create_topic("paged-a", 2, &[]);
    let names = ["paged-b", "paged-c", "paged-a"];
    let mut seen = Vec::new();
    let mut cursor: Option<(String, i32)> = None;
    for _ in 0..4 {
        let start = cursor.as_ref().map(|(name, partition)| (name.as_str(), *partition));
        let answer = client.call(0, &page(&names, 2, start));
        for topic in &answer.topics {
            let name = topic.name.as_ref().expect("named").to_string();
            let indexes: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            seen.push((name, code(topic.error_code), indexes));
        }
        cursor = answer.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
        if cursor.is_none() {
            break;
        }
    }
    let entry = |name: &str, error, indexes: &[i32]| (name.to_owned(), error, indexes.to_vec());
    let expected = [
        entry("paged-a", ErrorCode::None, &[0, 1]),
        entry("paged-b", ErrorCode::None, &[0, 1]),
        entry("paged-b", ErrorCode::None, &[2]),
        entry("paged-c", ErrorCode::UnknownTopicOrPartition, &[]),
    ];
    assert_eq!((&seen[..], cursor), (&expected[..], None));

    let answer = client.call(0, &page(&["paged-b"], 2000, None));
    let (topic, partition) = (&answer.topics[0], &answer.topics[0].partitions[2]);
    assert_eq!((topic.topic_id, topic.is_internal, &answer.next_cursor), (id, false, &None));
    assert_eq!(topic.topic_authorized_operations & TOPIC_OPERATIONS, TOPIC_OPERATIONS);
    let node = BrokerId(shared.0.ready().node.value());
    assert_eq!((code(partition.error_code), partition.leader_id, partition.leader_epoch), (ErrorCode::None, node, 0));
    assert_eq!((&partition.replica_nodes, &partition.isr_nodes), (&vec![node], &vec![node]));
    let nobody = (Some(vec![]), Some(vec![]), vec![]);
    let told = (&partition.eligible_leader_replicas, &partition.last_known_elr, &partition.offline_replicas);
    assert_eq!(told, (&nobody.0, &nobody.1, &nobody.2));
}

#[test]
fn an_empty_list_of_topics_is_all_of_them_and_nothing_is_created() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("paged-all", 1, &[]);
    let (mut names, mut cursor): (Vec<String>, Option<(String, i32)>) = (Vec::new(), None);
    for _ in 0..10_000 {
        let start = cursor.as_ref().map(|(name, partition)| (name.as_str(), *partition));
        let answer = client.call(0, &page(&[], 5, start));
        names.extend(answer.topics.iter().map(|topic| topic.name.as_ref().expect("named").to_string()));
        cursor = answer.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(cursor, None, "the pages come to an end");
    assert!(names.is_sorted() && names.iter().any(|name| name == "paged-all"), "{names:?}");
    for _ in 0..2 {
        let answer = client.call(0, &page(&["paged-auto", "paged/illegal"], 5, None));
        let codes: Vec<_> = answer.topics.iter().map(|topic| code(topic.error_code)).collect();
        assert_eq!(codes, [ErrorCode::UnknownTopicOrPartition, ErrorCode::InvalidTopicException]);
    }
    let answer = client.call(0, &page(&["paged-all"], 5, Some(("paged-other", 0))));
    assert_eq!(code(answer.topics[0].error_code), ErrorCode::InvalidRequest, "a cursor from elsewhere");
}

fn producers(client: &mut Client, topic: &str, partitions: &[i32]) -> Vec<DescribeProducersPartitionResult> {
    let asked =
        DescribeProducersTopic::default().with_name(topic_name(topic)).with_partition_indexes(partitions.to_vec());
    let answer = client.call(0, &DescribeProducersRequest::default().with_topics(vec![asked])).topics.remove(0);
    assert_eq!(answer.name, topic_name(topic));
    assert_eq!(answer.partitions.iter().map(|part| part.partition_index).collect::<Vec<_>>(), partitions);
    answer.partitions
}

#[test]
fn producers_are_described_partition_by_partition() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("producers", 2, &[]);
    let (one, two) = (client.init_producer_id(), client.init_producer_id());
    client.append("producers", 0, &sequenced(two, 0, 0, &[b"a"]));
    client.append("producers", 0, &sequenced(one, 0, 0, &[b"a", b"b", b"c"]));
    client.append("producers", 0, &sequenced(one, 0, 3, &[b"d"]));
    client.append("producers", 0, &sequenced(two, 1, 0, &[b"b", b"c"]));
    client.append("producers", 0, &batch(&[b"of nobody"]));
    let state = |id: corelane::types::ProducerId, epoch, last_sequence| {
        ProducerState::default()
            .with_producer_id(ProducerId(id.value()))
            .with_producer_epoch(epoch)
            .with_last_sequence(last_sequence)
            .with_last_timestamp(BATCH_TIME)
            .with_coordinator_epoch(-1)
            .with_current_txn_start_offset(-1)
    };
    let found = producers(&mut client, "producers", &[1, 0]);
    assert!(found.iter().all(|part| code(part.error_code) == ErrorCode::None && part.error_message.is_none()));
    assert_eq!(found[0].active_producers, []);
    assert_eq!(found[1].active_producers, [state(one, 0, 3), state(two, 1, 1)]);
}

#[test]
fn producers_of_what_is_not_there_are_errors_of_each_partition() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("producers-some", 1, &[]);
    let mut codes = |topic: &str, partitions: &[i32]| {
        let found = producers(&mut client, topic, partitions);
        assert!(found.iter().all(|partition| partition.active_producers.is_empty()));
        found.iter().map(|partition| code(partition.error_code)).collect::<Vec<_>>()
    };
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes("producers-some", &[5, 0, -1]), [unknown, ErrorCode::None, unknown]);
    assert_eq!(codes("producers-nowhere", &[0]), [unknown]);
    assert_eq!(codes("producers nowhere", &[0, 1]), [ErrorCode::InvalidTopicException; 2]);
}
