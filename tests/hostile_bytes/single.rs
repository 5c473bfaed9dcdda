//! Single attacks, one test each: what is tried, that it costs the broker next to nothing, and that others go on.
//!
//! Every test has a broker of its own with little memory, its caches filled first, so that growth is the attack's. Attacks
//! by slowness need deadlines and are tested where those are configured.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use corelane::types::ErrorCode;
use corelane::wire::Api;
use corelane::wire::client::messages::FetchRequest;

use super::alone;
use super::attack::{cold_broker, memory_bytes, warm_broker};
use super::clients::wire::{Client, FETCH_BY_NAME, batch, batches, code, fetch_request, partitions};
use super::clients::{SOON, eventually, noise};
use super::process::{file_limit, open_files, resident_memory, set_file_limit};
use super::support::{Broker, BrokerOptions, Scratch, now};
use super::targets::grow;
use super::targets::random::Random;

/// What an attack that is refused at once may cost: connections, log lines, the allocator's slack.
const SMALL_BYTES: u64 = 16 << 20;
/// What a client may make the broker hold for it that it never reads: an answer that is sent and one that waits, each of 8
/// reads whose slabs have 2 MiB, and the 16 MiB of slabs that a shard keeps for reuse.
const OWED_BYTES_MAX: u64 = 64 << 20;

/// Watches what a broker holds beyond what it held at first.
struct Growth {
    pid: u32,
    idle: u64,
}

impl Growth {
    fn of(broker: &Broker) -> Growth {
        Growth { pid: broker.pid(), idle: resident_memory(broker.pid()) }
    }

    #[track_caller]
    fn assert_at_most(&self, bytes: u64, when: &str) {
        let grown = resident_memory(self.pid).saturating_sub(self.idle);
        assert!(grown <= bytes, "{when}: the broker grew by {grown} bytes from {}, {bytes} are allowed", self.idle);
        println!("{when}: grown by {grown} bytes from {}", self.idle);
    }
}

/// A connection that sends whatever it is told.
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, SOON).expect("the broker accepts");
    stream.set_read_timeout(Some(SOON)).expect("not zero");
    stream.set_write_timeout(Some(SOON)).expect("not zero");
    stream
}

/// Demands that the broker closes the connection without an answer.
#[track_caller]
fn assert_closed(mut stream: TcpStream, what: &str) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        Err(error) => panic!("{what}: the connection is not closed: {error}"),
    }
    assert!(rest.is_empty(), "{what}: an answer came: {rest:02x?}");
}

/// Demands that a client which was there before still writes and reads.
#[track_caller]
fn assert_served(neighbour: &mut Client, topic: &str) {
    let offset = neighbour.append(topic, 0, &batch(&[b"still here"]));
    assert_eq!(batches(&neighbour.fetch(topic, 0, offset)).len(), 1);
}

#[test]
fn lengths_of_minus_1_of_0_and_of_2_to_the_31_minus_1_end_their_connection_alone() {
    let _alone = alone();
    let scratch = Scratch::new("hostile-lengths");
    let broker = warm_broker(&scratch);
    let mut neighbour = Client::connect(broker.address());
    neighbour.create_topic("neighbour", 1, &[]);
    let growth = Growth::of(&broker);
    for length in [-1, 0, i32::MAX, i32::MIN] {
        for _ in 0..50 {
            let mut stream = connect(broker.address());
            stream.write_all(&length.to_be_bytes()).expect("four bytes are taken");
            assert_closed(stream, &format!("length {length}"));
        }
        assert_served(&mut neighbour, "neighbour");
    }
    growth.assert_at_most(SMALL_BYTES, "after lengths that cannot be");
}

#[test]
fn a_frame_that_is_announced_and_does_not_come_takes_no_memory() {
    let _alone = alone();
    let scratch = Scratch::new("hostile-announced");
    let broker = warm_broker(&scratch);
    let mut neighbour = Client::connect(broker.address());
    neighbour.create_topic("neighbour", 1, &[]);
    let growth = Growth::of(&broker);
    // 1 % of the memory each: below every limit, and together twice what there is.
    let announced = i32::try_from(memory_bytes() / 100).expect("megabytes");
    let mut waiting: Vec<TcpStream> = (0..200).map(|_| connect(broker.address())).collect();
    for stream in &mut waiting {
        stream.write_all(&announced.to_be_bytes()).expect("four bytes are taken");
        stream.write_all(&[0; 1000]).expect("a thousand bytes are taken");
    }
    thread::sleep(Duration::from_millis(500));
    assert_served(&mut neighbour, "neighbour");
    growth.assert_at_most(SMALL_BYTES, "with 200 announced frames");
    drop(waiting);
    assert_served(&mut neighbour, "neighbour");
}

#[test]
fn a_dozen_bytes_that_claim_two_billion_elements_are_refused_by_every_array_of_every_api() {
    let _alone = alone();
    let scratch = Scratch::new("hostile-claims");
    let broker = warm_broker(&scratch);
    let mut neighbour = Client::connect(broker.address());
    neighbour.create_topic("neighbour", 1, &[]);
    let growth = Growth::of(&broker);
    let mut claims = 0;
    for api in Api::all() {
        // Several bodies, since an array inside an array shows only where the outer one has an element.
        for stream in 0..3 {
            let frame = grow::frame(api, &grow::body(api, &mut Random::new(stream)));
            for place in grow::places(&frame).into_iter().filter(|place| place.counts) {
                let claimed = grow::with_number(&frame, place, i32::MAX);
                let end = (place.at + 12).min(claimed.len());
                let length = u32::try_from(end).expect("small").to_be_bytes();
                let mut stream = connect(broker.address());
                stream.write_all(&[&length[..], &claimed[..end]].concat()).expect("a few bytes are taken");
                assert_closed(stream, &format!("{api} at {place:?}"));
                claims += 1;
            }
        }
    }
    assert_served(&mut neighbour, "neighbour");
    growth.assert_at_most(SMALL_BYTES, &format!("after {claims} claims"));
    assert!(claims > 100, "{claims} claims");
}

/// Batches of a MB that lie on the disk alone, and how many of them each request of a client asks for that does not read.
const MUCH: i64 = 32;
const ASKED: i64 = 8;

#[test]
fn a_client_that_never_reads_while_it_asks_for_megabytes_costs_no_more_than_its_share() {
    let _alone = alone();
    let scratch = Scratch::new("hostile-never-reads");
    let broker = cold_broker(&scratch, |client| {
        client.create_topic("much", 1, &[]);
        for number in 0..MUCH as u64 {
            client.append("much", 0, &batch(&[&noise(number, 1_000_000)]));
        }
    });
    let mut neighbour = Client::connect(broker.address());
    neighbour.create_topic("neighbour", 1, &[]);
    let growth = Growth::of(&broker);
    let mut greedy = Client::connect(broker.address());
    // The same partition over and over: what is read from the disk is this client's alone, 1.6 GB in all.
    let ask = |round: i64| -> FetchRequest {
        let wanted: Vec<_> = (0..ASKED).map(|step| ("much", 0, (round + step) % MUCH, 1 << 20)).collect();
        fetch_request(&wanted)
    };
    let (frames, sent): (Vec<Bytes>, Vec<_>) = (0..200).map(|round| greedy.encode(FETCH_BY_NAME, &ask(round))).unzip();
    greedy.send_bytes(&frames.concat());
    let began = now();
    while now() - began < Duration::from_secs(3) {
        assert_served(&mut neighbour, "neighbour");
        growth.assert_at_most(OWED_BYTES_MAX, "while answers wait");
    }
    // When it reads at last, it gets what it asked for, in order; of each answer as much as memory had room for.
    for (round, waiting) in (0..).zip(sent).take(20) {
        let data = partitions(greedy.receive(waiting));
        assert_eq!(data.len() as i64, ASKED);
        assert!(!batches(&data[0]).is_empty(), "every answer goes on");
        for (step, data) in (0..).zip(&data) {
            let first = batches(data).first().map(|batch| batch.base_offset().value());
            assert!(first.is_none_or(|first| first == (round + step) % MUCH), "{first:?}");
        }
    }
    drop(greedy);
    eventually("what was owed to a client that left is given back", || {
        (resident_memory(growth.pid) <= growth.idle + OWED_BYTES_MAX / 2).then_some(())
    });
    assert_served(&mut neighbour, "neighbour");
}

#[test]
fn without_descriptors_old_clients_go_on_and_new_ones_get_in_once_there_are_some_again() {
    let _alone = alone();
    let scratch = Scratch::new("hostile-descriptors");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let mut broker = options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let mut old = Client::connect(broker.address());
    old.create_topic("rolls", 1, &[("segment.bytes", "1048576")]);
    assert_served(&mut old, "rolls");
    let before = file_limit(broker.pid());
    set_file_limit(broker.pid(), open_files(broker.pid()) as u64);
    // They connect, since the kernel does that alone; nobody takes them in.
    let refused: Vec<TcpStream> = (0..20).map(|_| connect(broker.address())).collect();
    eventually("the broker says that it has no descriptors", || {
        broker.stderr().contains("no connection can be accepted now").then_some(())
    });
    for _ in 0..20 {
        assert_served(&mut old, "rolls");
    }
    assert!(broker.is_running(), "{}", broker.stderr());

    set_file_limit(broker.pid(), before);
    drop(refused);
    let mut new = Client::connect(broker.address());
    assert_served(&mut new, "rolls");
    // Segments of a MiB: some rolls, by an old client and a new one.
    for number in 0..8 {
        let value = noise(number, 400_000);
        for client in [&mut old, &mut new] {
            let offset = client.append("rolls", 0, &batch(&[&value]));
            let data = client.fetch("rolls", 0, offset);
            assert_eq!(code(data.error_code), ErrorCode::None);
            assert_eq!(batches(&data)[0].records(), &batch(&[&value])[61..]);
        }
    }
    let ended = broker.terminate();
    assert_eq!(ended.code(), Some(0), "{ended}");
}

#[test]
fn a_segment_rolls_while_there_are_no_descriptors_or_after() {
    let _alone = alone();
    let scratch = Scratch::new("hostile-descriptors-roll");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let mut broker = options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let mut client = Client::connect(broker.address());
    client.create_topic("rolls", 1, &[("segment.bytes", "1048576")]);
    assert_served(&mut client, "rolls");
    let before = file_limit(broker.pid());
    set_file_limit(broker.pid(), open_files(broker.pid()) as u64);
    let mut acked = Vec::new();
    for number in 0..10u64 {
        let answer = client.produce("rolls", 0, &batch(&[&noise(number, 400_000)]));
        match code(answer.error_code) {
            ErrorCode::None => acked.push((answer.base_offset, number)),
            error => assert_eq!(error, ErrorCode::KafkaStorageError, "a roll without descriptors is the disk's fault"),
        }
    }
    assert!(broker.is_running(), "{}", broker.stderr());
    set_file_limit(broker.pid(), before);
    let number = 100;
    let offset = eventually("the log takes records again", || {
        let answer = client.produce("rolls", 0, &batch(&[&noise(number, 400_000)]));
        (code(answer.error_code) == ErrorCode::None).then_some(answer.base_offset)
    });
    acked.push((offset, number));
    for (offset, number) in acked {
        let data = client.fetch("rolls", 0, offset);
        assert_eq!(code(data.error_code), ErrorCode::None, "offset {offset}");
        assert_eq!(batches(&data)[0].records(), &batch(&[&noise(number, 400_000)])[61..], "offset {offset}");
    }
    let ended = broker.terminate();
    assert_eq!(ended.code(), Some(0), "{ended}");
}
