//! A broker of several shards is one broker: whatever shard a client talks to, and however many there are after a restart.
//!
//! Topics have more partitions than there are shards, so that every request of these tests goes across all of them.

mod clients;
mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use corelane::types::ErrorCode;
use corelane::wire::client::messages::{
    PartitionData, PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use corelane::wire::messages::{MetadataRequest, MetadataRequestTopic};

use clients::wire::{
    Client, FETCH_BY_NAME, PRODUCE_BY_NAME, batch, batches, code, fetch_request, partitions, produce_request,
    topic_name, values as record_values,
};
use support::{Broker, BrokerOptions, Scratch, now};

/// Partitions of a topic: some on every shard of the brokers here.
const PARTITIONS: i32 = 9;

fn options(scratch: &Scratch, shards: &str) -> BrokerOptions {
    BrokerOptions::new(&scratch.path().join("data"))
        .argument("--shards")
        .argument(shards)
        .set("memory.bytes", "402653184")
}

fn start(scratch: &Scratch, shards: &str) -> Broker {
    options(scratch, shards).start().unwrap_or_else(|ended| panic!("{ended}"))
}

/// A request with one batch for every partition of a topic.
fn produce_to_all(topic: &str, value: &str) -> ProduceRequest {
    let data = (0..PARTITIONS).map(|partition| {
        let records = batch(&[format!("{value}-{partition}").as_bytes()]);
        PartitionProduceData::default().with_index(partition).with_records(Some(Bytes::from(records)))
    });
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(data.collect());
    ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic])
}

fn base_offsets(response: ProduceResponse) -> Vec<i64> {
    let answered = response.responses.into_iter().flat_map(|topic| topic.partition_responses);
    let offset = |(place, partition): (usize, PartitionProduceResponse)| {
        assert_eq!(partition.index, i32::try_from(place).expect("a few"), "in the order of the request");
        assert_eq!(code(partition.error_code), ErrorCode::None, "{:?}", partition.error_message);
        partition.base_offset
    };
    answered.enumerate().map(offset).collect()
}

/// The values of every partition of a topic, from its start.
fn values(client: &mut Client, topic: &str) -> Vec<Vec<String>> {
    let wanted: Vec<_> = (0..PARTITIONS).map(|partition| (topic, partition, 0, 1 << 20)).collect();
    let answers = client.fetch_all(&fetch_request(&wanted));
    let of_partition = |data: &PartitionData| {
        let records = batches(data).iter().flat_map(record_values).collect::<Vec<_>>();
        records.into_iter().map(|value| String::from_utf8(value).expect("text")).collect()
    };
    answers.iter().map(of_partition).collect()
}

#[test]
fn data_of_two_shards_is_served_with_one_and_with_four_and_so_on() {
    let scratch = Scratch::new("shards");
    let mut expected: Vec<Vec<String>> = vec![Vec::new(); usize::try_from(PARTITIONS).expect("a few")];
    // More than there are cores, too; stopped in order and killed in turns.
    for (life, shards) in ["2", "1", "4", "3", "2"].into_iter().enumerate() {
        let broker = start(&scratch, shards);
        let mut client = Client::connect(broker.address());
        if life == 0 {
            client.create_topic("all", PARTITIONS, &[]);
        }
        assert_eq!(values(&mut client, "all"), expected, "life {life}, {shards} shards");
        for round in 0..3 {
            let value = format!("life-{life}-{round}");
            let offsets = base_offsets(client.call(PRODUCE_BY_NAME, &produce_to_all("all", &value)));
            for (partition, values) in expected.iter_mut().enumerate() {
                assert_eq!(offsets[partition], i64::try_from(values.len()).expect("a few"));
                values.push(format!("{value}-{partition}"));
            }
        }
        assert_eq!(values(&mut client, "all"), expected);
        if life % 2 == 0 {
            broker.kill();
        } else {
            let ended = broker.terminate();
            assert_eq!(ended.code(), Some(0), "{ended}");
        }
    }
}

#[test]
fn every_shard_serves_every_partition_and_topic() {
    let scratch = Scratch::new("shards-any");
    let broker = start(&scratch, "3");
    // Connections go round the shards: these are on all of them.
    let mut connections: Vec<Client> = (0..6).map(|_| Client::connect(broker.address())).collect();
    connections[4].create_topic("any", PARTITIONS, &[]);
    for (number, client) in connections.iter_mut().enumerate() {
        let offsets = base_offsets(client.call(PRODUCE_BY_NAME, &produce_to_all("any", &number.to_string())));
        assert_eq!(offsets, vec![i64::try_from(number).expect("a few"); offsets.len()]);
    }
    let first = values(&mut connections[0], "any");
    for client in &mut connections {
        assert_eq!(values(client, "any"), first);
        for partition in 0..PARTITIONS {
            assert_eq!(client.list_offset(7, "any", partition, -1).offset, 6);
        }
    }
    // A topic that one connection creates is there for all others at once; one that is deleted is gone for all.
    for (number, other) in [(0, 1), (1, 5), (5, 0)] {
        let name = format!("made-by-{number}");
        connections[number].create_topic(&name, 1, &[]);
        connections[other].append(&name, 0, &batch(&[b"value"]));
        delete_topic(&mut connections[other], &name);
        let gone = connections[number].produce(&name, 0, &batch(&[b"value"]));
        assert_eq!(code(gone.error_code), ErrorCode::UnknownTopicOrPartition);
    }
}

fn delete_topic(client: &mut Client, name: &str) {
    use corelane::wire::messages::DeleteTopicsRequest;
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(name)]).with_timeout_ms(10_000);
    assert_eq!(code(client.call(5, &request).responses[0].error_code), ErrorCode::None);
}

#[test]
fn pipelined_requests_are_appended_and_answered_in_their_order() {
    let scratch = Scratch::new("shards-order");
    let broker = start(&scratch, "3");
    let mut client = Client::connect(broker.address());
    client.create_topic("order", PARTITIONS, &[]);
    // One connection, many requests under way, each for another partition than the one before; answers come in their order.
    const ROUNDS: i64 = 40;
    let mut sent = Vec::new();
    for _ in 0..ROUNDS {
        for partition in 0..PARTITIONS {
            sent.push((
                partition,
                client.send(PRODUCE_BY_NAME, &produce_request("order", partition, &batch(&[b"v"]), -1)),
            ));
        }
    }
    let mut next = vec![0; usize::try_from(PARTITIONS).expect("a few")];
    for (partition, sent) in sent {
        let answer = client.receive(sent).responses.remove(0).partition_responses.remove(0);
        let next = &mut next[usize::try_from(partition).expect("a few")];
        assert_eq!((code(answer.error_code), answer.index, answer.base_offset), (ErrorCode::None, partition, *next));
        *next += 1;
    }
    assert!(next.iter().all(|next| *next == ROUNDS));
    // A request that is no produce starts when the produces before it are answered: it sees what they did.
    let produced: Vec<_> = (0..PARTITIONS)
        .map(|at| client.send(PRODUCE_BY_NAME, &produce_request("order", at, &batch(&[b"v"]), -1)))
        .collect();
    let wanted: Vec<_> = (0..PARTITIONS).map(|partition| ("order", partition, ROUNDS, 1 << 20)).collect();
    let fetched = client.send(FETCH_BY_NAME, &fetch_request(&wanted));
    produced.into_iter().for_each(|sent| drop(client.receive(sent)));
    let answers = partitions(client.receive(fetched));
    assert!(answers.iter().all(|data| batches(data).len() == 1), "one new batch in every partition");
}

#[test]
fn a_fetch_over_all_shards_waits_for_its_minimum_and_no_longer() {
    let scratch = Scratch::new("shards-wait");
    let broker = start(&scratch, "3");
    let (mut consumer, mut producer) = (Client::connect(broker.address()), Client::connect(broker.address()));
    producer.create_topic("wait", PARTITIONS, &[]);
    let wanted: Vec<_> = (0..PARTITIONS).map(|partition| ("wait", partition, 0, 1 << 20)).collect();
    let wait = |min_bytes, max_wait_ms| fetch_request(&wanted).with_min_bytes(min_bytes).with_max_wait_ms(max_wait_ms);

    // Nothing comes: all of the time.
    let begun = now();
    let answers = consumer.fetch_all(&wait(1, 300));
    assert!(answers.iter().all(|data| batches(data).is_empty()));
    let waited = now().duration_since(begun);
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(5), "{waited:?}");

    // One record in any partition, whichever shard owns it, ends the wait.
    for partition in 0..PARTITIONS {
        let at =
            wanted.iter().map(|&(topic, index, _, bytes)| (topic, index, if index < partition { 1 } else { 0 }, bytes));
        let request = fetch_request(&at.collect::<Vec<_>>()).with_min_bytes(1).with_max_wait_ms(20_000);
        let sent = consumer.send(FETCH_BY_NAME, &request);
        std::thread::sleep(Duration::from_millis(30));
        let begun = now();
        producer.append("wait", partition, &batch(&[b"value"]));
        let answers = partitions(consumer.receive(sent));
        assert!(now().duration_since(begun) < Duration::from_secs(10), "partition {partition}");
        let found: BTreeSet<i32> =
            answers.iter().filter(|data| !batches(data).is_empty()).map(|data| data.partition_index).collect();
        assert_eq!(found, BTreeSet::from([partition]));
    }

    // Bytes of different shards count together, and fewer than the minimum are not enough.
    let each = batch(&[&[7; 1000]]);
    let from_end: Vec<_> = (0..PARTITIONS).map(|partition| ("wait", partition, 1, 1 << 20)).collect();
    let least = i32::try_from(5 * each.len()).expect("small");
    let request = fetch_request(&from_end).with_min_bytes(least).with_max_wait_ms(20_000);
    let begun = now();
    let sent = consumer.send(FETCH_BY_NAME, &request);
    for partition in 0..5 {
        std::thread::sleep(Duration::from_millis(60));
        producer.append("wait", partition, &each);
    }
    let answers = partitions(consumer.receive(sent));
    let waited = now().duration_since(begun);
    assert!(waited >= Duration::from_millis(240) && waited < Duration::from_secs(10), "{waited:?}");
    assert_eq!(answers.iter().map(|data| batches(data).len()).sum::<usize>(), 5);
}

#[test]
fn acks_0_reaches_every_shard_and_an_error_there_ends_the_connection() {
    let scratch = Scratch::new("shards-acks-0");
    let broker = start(&scratch, "3");
    let mut client = Client::connect(broker.address());
    client.create_topic("unasked", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        let (frame, _) = client.encode(PRODUCE_BY_NAME, &produce_request("unasked", partition, &batch(&[b"v"]), 0));
        client.send_bytes(&frame);
    }
    // No answer comes before that of the next request; nor does anybody wait for the disk.
    for partition in 0..PARTITIONS {
        clients::eventually("the record is committed", || {
            (client.list_offset(7, "unasked", partition, -1).offset == 1).then_some(())
        });
    }
    for partition in 0..3 {
        let mut client = Client::connect(broker.address());
        let mut damaged = batch(&[b"value"]);
        *damaged.last_mut().expect("bytes") ^= 1;
        let (frame, _) = client.encode(PRODUCE_BY_NAME, &produce_request("unasked", partition, &damaged, 0));
        client.send_bytes(&frame);
        client.assert_closed();
    }
}

#[test]
fn topics_are_created_by_asking_for_them_on_any_shard() {
    let scratch = Scratch::new("shards-auto");
    let broker = start(&scratch, "3");
    for number in 0..6 {
        let mut client = Client::connect(broker.address());
        let name = format!("asked-{number}");
        created_by_asking(&mut client, &name, broker.address());
        client.append(&name, 0, &batch(&[b"value"]));
    }
}

/// Asks for the topic until it is there; then every other connection knows it too.
fn created_by_asking(client: &mut Client, name: &str, address: SocketAddr) {
    let asked = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(true);
    clients::eventually("the topic is there", || {
        let topic = client.call(9, &request).topics.remove(0);
        (code(topic.error_code) == ErrorCode::None).then_some(())
    });
    let known = Client::connect(address).call(9, &request.clone().with_allow_auto_topic_creation(false));
    assert_eq!(code(known.topics[0].error_code), ErrorCode::None);
}
