//! What one client may take: every limit by its key, seen from outside, while another client is served.
//!
//! Each test lowers its limit far enough to be met at once, and sees that it was counted.

mod clients;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use corelane::types::ErrorCode;
use corelane::wire::messages::{DescribeTopicPartitionsRequest, MetadataRequest, MetadataRequestTopic};

use clients::wire::{Client, FETCH_BY_NAME, batch, batches, code, fetch_request, partitions, sequenced, topic_name};
use clients::{SOON, noise};
use support::{Broker, BrokerOptions, Scratch, now};

fn start(scratch: &Scratch, settings: &[(&str, &str)]) -> Broker {
    let options = BrokerOptions::new(&scratch.path().join("data")).admin("127.0.0.1:0");
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    options.start().unwrap_or_else(|ended| panic!("{ended}"))
}

/// The sum over the shards of the series of /metrics that begin so.
fn metric(broker: &Broker, name: &str, label: &str) -> u64 {
    let admin = broker.ready().admin.expect("it is on");
    let mut stream = silent(admin);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer in UTF-8");
    let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    series.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).expect("a count")).sum()
}

/// Waits until the limit of this name was met once or more.
#[track_caller]
fn await_met(broker: &Broker, limit: &str) {
    let label = format!("limit=\"{limit}\"");
    clients::eventually(&format!("the limit {limit} is counted"), || {
        (metric(broker, "corelane_limits_met_total", &label) > 0).then_some(())
    });
}

/// A socket that says nothing.
fn silent(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the kernel accepts");
    stream.set_read_timeout(Some(SOON)).expect("not zero");
    stream
}

/// Waits for the broker to end a connection; how long that took.
#[track_caller]
fn ended(mut stream: TcpStream) -> Duration {
    let begun = now();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection is not closed: {error}"),
    }
    now().duration_since(begun)
}

/// Whether a new connection is served.
fn is_served(address: SocketAddr) -> bool {
    let mut stream = silent(address);
    // ApiVersions 0.
    let request = [&14_u32.to_be_bytes()[..], &[0, 18, 0, 0, 0, 0, 0, 7, 0, 4], b"test"].concat();
    let mut length = [0; 4];
    stream.write_all(&request).is_ok() && stream.read_exact(&mut length).is_ok()
}

#[test]
fn max_connections_and_max_connections_per_ip_refuse_what_is_beyond() {
    let scratch = Scratch::new("limits-connections");
    for (key, value, limit) in
        [("max.connections", "3", "connections"), ("max.connections.per.ip", "3", "connections_per_ip")]
    {
        let broker = start(&scratch, &[(key, value)]);
        let mut held: Vec<Client> = (0..3).map(|_| Client::connect(broker.address())).collect();
        for (number, client) in held.iter_mut().enumerate() {
            client.create_topic(&format!("{key}-{number}"), 1, &[]);
        }
        assert!(!is_served(broker.address()), "{key}={value}: a fourth connection is served");
        clients::eventually("the refusal is logged", || broker.stderr().contains(&format!("{key}=3")).then_some(()));
        await_met(&broker, limit);
        held[0].append(&format!("{key}-0"), 0, &batch(&[b"those that are there go on"]));
        held.pop();
        clients::eventually("the place is free again", || is_served(broker.address()).then_some(()));
    }
}

#[test]
fn connections_handshake_timeout_ms_ends_a_connection_without_a_request() {
    let scratch = Scratch::new("limits-handshake");
    let broker = start(&scratch, &[("connections.handshake.timeout.ms", "700")]);
    let mut client = Client::connect(broker.address());
    client.create_topic("handshake", 1, &[]);
    let mut by_bytes = silent(broker.address());
    by_bytes.write_all(&[0, 0, 0]).expect("sent");
    let waited = ended(silent(broker.address()));
    assert!(waited >= Duration::from_millis(600) && waited < SOON, "{waited:?}");
    ended(by_bytes);
    await_met(&broker, "handshake");
    // Who has made a request may be silent for longer.
    client.append("handshake", 0, &batch(&[b"value"]));
}

#[test]
fn request_receive_timeout_ms_ends_a_connection_that_sends_by_single_bytes() {
    let scratch = Scratch::new("limits-receive");
    let broker = start(&scratch, &[("request.receive.timeout.ms", "900")]);
    let mut client = Client::connect(broker.address());
    client.create_topic("receive", 1, &[]);
    let mut slow = silent(broker.address());
    let request = [&14_u32.to_be_bytes()[..], &[0, 18, 0, 0, 0, 0, 0, 7, 0, 4], b"test"].concat();
    slow.write_all(&request).expect("sent");
    slow.write_all(&100_u32.to_be_bytes()).expect("sent");
    let begun = now();
    while slow.write_all(&[0]).is_ok() && now().duration_since(begun) < SOON {
        std::thread::sleep(Duration::from_millis(100));
    }
    let waited = now().duration_since(begun);
    assert!(waited >= Duration::from_millis(800) && waited < SOON, "{waited:?}");
    clients::eventually("it is logged", || broker.stderr().contains("request.receive.timeout.ms").then_some(()));
    await_met(&broker, "receive");
    client.append("receive", 0, &batch(&[b"value"]));
}

#[test]
fn response_send_timeout_ms_ends_a_connection_that_never_reads() {
    let scratch = Scratch::new("limits-send");
    let broker = start(&scratch, &[("response.send.timeout.ms", "500"), ("message.max.bytes", "8388608")]);
    let mut client = Client::connect(broker.address());
    client.create_topic("send", 1, &[]);
    // More than the buffers of both sockets hold.
    for _ in 0..6 {
        client.append("send", 0, &batch(&[&noise(3, 4 << 20)]));
    }
    let mut deaf = Client::connect(broker.address());
    let request = fetch_request(&[("send", 0, 0, 64 << 20)]);
    let sent = deaf.send(FETCH_BY_NAME, &request);
    clients::eventually("its connection is closed", || {
        broker.stderr().contains("response.send.timeout.ms").then_some(())
    });
    await_met(&broker, "send");
    drop((deaf, sent));
    // Somebody who reads gets all of it.
    let answer = client.send(FETCH_BY_NAME, &request);
    let data = partitions(client.receive(answer)).remove(0);
    assert_eq!((code(data.error_code), batches(&data).len()), (ErrorCode::None, 6));
}

#[test]
fn connections_max_idle_ms_ends_a_connection_without_requests() {
    let scratch = Scratch::new("limits-idle");
    let broker = start(&scratch, &[("connections.max.idle.ms", "800")]);
    let mut idle = silent(broker.address());
    let request = [&14_u32.to_be_bytes()[..], &[0, 18, 0, 0, 0, 0, 0, 7, 0, 4], b"test"].concat();
    idle.write_all(&request).expect("sent");
    let waited = ended(idle);
    assert!(waited >= Duration::from_millis(600) && waited < SOON, "{waited:?}");
    await_met(&broker, "idle");
    // A parked fetch is no silence.
    let mut client = Client::connect(broker.address());
    client.create_topic("idle", 1, &[]);
    let request = fetch_request(&[("idle", 0, 0, 1)]).with_min_bytes(1).with_max_wait_ms(2_500);
    assert_eq!(client.fetch_all(&request).len(), 1);
}

#[test]
fn socket_request_max_bytes_ends_a_connection_that_announces_more() {
    let scratch = Scratch::new("limits-bytes");
    let broker = start(&scratch, &[("socket.request.max.bytes", "100000")]);
    let mut large = silent(broker.address());
    large.write_all(&100_001_u32.to_be_bytes()).expect("sent");
    ended(large);
    await_met(&broker, "request_bytes");
    let mut client = Client::connect(broker.address());
    client.create_topic("bytes", 1, &[]);
    client.append("bytes", 0, &batch(&[&noise(1, 90_000)]));
}

#[test]
fn max_request_elements_ends_a_connection_that_sends_more() {
    let scratch = Scratch::new("limits-elements");
    let broker = start(&scratch, &[("max.request.elements", "1000")]);
    let mut client = Client::connect(broker.address());
    client.create_topic("elements", 1, &[]);
    // Of each topic the topic and its partition count.
    let wanted = |topics: usize| fetch_request(&vec![("elements", 0, 0, 1); topics]);
    assert_eq!(client.fetch_all(&wanted(490)).len(), 490);
    let mut greedy = Client::connect(broker.address());
    let (frame, _) = greedy.encode(FETCH_BY_NAME, &wanted(510));
    greedy.send_bytes(&frame);
    greedy.assert_closed();
    let mut greedy = Client::connect(broker.address());
    let topics = (0..1001).map(|_| MetadataRequestTopic::default().with_name(Some(topic_name("elements"))));
    let (frame, _) = greedy.encode(9, &MetadataRequest::default().with_topics(Some(topics.collect())));
    greedy.send_bytes(&frame);
    greedy.assert_closed();
    await_met(&broker, "request_elements");
    client.append("elements", 0, &batch(&[b"value"]));
}

/// Nobody is refused: the answer says where the next page begins.
#[test]
fn max_request_partition_size_limit_cuts_pages_of_partitions() {
    let scratch = Scratch::new("limits-pages");
    let broker = start(&scratch, &[("max.request.partition.size.limit", "3")]);
    let mut client = Client::connect(broker.address());
    client.create_topic("pages", 5, &[]);
    let page = client.call(0, &DescribeTopicPartitionsRequest::default().with_response_partition_limit(100));
    assert_eq!(page.topics[0].partitions.len(), 3);
    let next = page.next_cursor.expect("there are more");
    assert_eq!((&**next.topic_name, next.partition_index), ("pages", 3));
}

#[test]
fn max_incremental_fetch_session_cache_slots_leaves_further_clients_without_a_session() {
    let scratch = Scratch::new("limits-sessions");
    let broker = start(&scratch, &[("max.incremental.fetch.session.cache.slots", "2")]);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(broker.address())).collect();
    clients[0].create_topic("sessions", 1, &[]);
    let open = fetch_request(&[("sessions", 0, 0, 1)]).with_session_epoch(0);
    let ids: Vec<i32> = clients.iter_mut().map(|client| client.call(FETCH_BY_NAME, &open).session_id).collect();
    assert_eq!(ids.iter().filter(|id| **id != 0).count(), 2, "{ids:?}");
    await_met(&broker, "fetch_sessions");
    clients::eventually("the sessions are told", || {
        (metric(&broker, "corelane_fetch_sessions", "") == 2).then_some(())
    });
}

#[test]
fn max_producer_ids_per_partition_forgets_the_producer_that_was_silent_for_longest() {
    let scratch = Scratch::new("limits-producers");
    let broker = start(&scratch, &[("max.producer.ids.per.partition", "8")]);
    let mut client = Client::connect(broker.address());
    client.create_topic("producers", 1, &[]);
    let first = client.init_producer_id();
    client.append("producers", 0, &sequenced(first, 0, 0, &[b"value"]));
    assert_eq!(client.append("producers", 0, &sequenced(first, 0, 0, &[b"value"])), 0, "a duplicate, as remembered");
    std::thread::sleep(Duration::from_millis(20));
    for _ in 0..8 {
        let id = client.init_producer_id();
        client.append("producers", 0, &sequenced(id, 0, 0, &[b"value"]));
    }
    assert!(metric(&broker, "corelane_producers_evicted_total", "") > 0);
    assert_eq!(client.append("producers", 0, &sequenced(first, 0, 0, &[b"value"])), 9, "it is not known any more");
}
