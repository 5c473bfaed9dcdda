//! A broker under mutated frames: it stays, stays small, answers or closes each time, and a good client beside the attackers
//! hardly notices.
//!
//! Attackers send one mutated frame at a time, over connections that they keep for as long as the broker lets them, each
//! with a good request behind it: the answer to that one, or the end of the connection, has to come. Some lengths in front
//! of the frames are lies. Quiet and hostile windows take turns, so that whatever else the machine does hits both alike, and
//! the good client's rates are compared by their medians.
//!
//! Frames that ask politely for much (topics of thousands of partitions, a wait of days) are no attack on the decoders and
//! are made modest first; see [`Attackers::modest`]. Environment: CORELANE_HOSTILE_CONNECTION_FRAMES (50 000),
//! CORELANE_HOSTILE_SEED; see `scripts/hostile`.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use corelane::record::HEADER_BYTES;
use corelane::types::ErrorCode;
use corelane::wire::messages::{ApiVersionsRequest, StrBytes};
use corelane::wire::{Api, ApiKey, CorrelationId, Request, client, decode_request, parse_header};

use super::clients::wire::{Client, PRODUCE_BY_NAME, batch, batches, code, fetch_request, produce_request};
use super::clients::{SOON, noise};
use super::corpus::{self, Frame};
use super::process::resident_memory;
use super::support::{Broker, BrokerOptions, Scratch, now};
use super::targets::random::Random;
use super::{alone, hex, mutate, number};

/// Connections that attack at a time.
const ATTACKERS: usize = 2;
/// How long an answer, or the end of the connection, may take.
const ANSWER_WITHIN: Duration = SOON;
/// What the broker may grow by under attack.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// The least of its rate that a good client keeps.
const RATE_KEPT_MIN: f64 = 0.5;
/// A window of quiet, and how many windows of attack follow each.
const WINDOW: Duration = Duration::from_millis(400);
const HOSTILE_WINDOWS: usize = 3;
/// Windows of each kind at least: medians of fewer say nothing.
const WINDOWS_MIN: usize = 8;
/// What ends the exchange with an attacker's connection: the correlation id of the good request.
const PING: CorrelationId = CorrelationId(0x0070_6e67);
/// The first bytes of a frame, its length.
const LENGTH_BYTES: usize = 4;
/// Partitions that a mutated frame may create.
const PARTITIONS_MAX: i32 = 8;

/// The least memory that a shard takes.
const SHARD_MEMORY_BYTES: usize = 64 << 20;

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Memory for a broker: the least that it takes for as many shards as there are cores, so that its caches are soon full.
pub(crate) fn memory_bytes() -> usize {
    SHARD_MEMORY_BYTES * cores()
}

/// A broker with little memory, all of its caches filled.
pub(crate) fn warm_broker(scratch: &Scratch) -> Broker {
    cold_broker(scratch, |_| ())
}

/// The same, after `before` has written what is not to lie in any cache.
pub(crate) fn cold_broker(scratch: &Scratch, before: impl FnOnce(&mut Client)) -> Broker {
    let options = BrokerOptions::new(&scratch.path().join("data"))
        .set("memory.bytes", &memory_bytes().to_string())
        .set("auto.create.topics.enable", "false");
    let broker = options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let mut client = Client::connect(broker.address());
    before(&mut client);
    // A partition of each shard, if they are dealt out evenly, and enough for all of the memory of each.
    let partitions = i32::try_from(cores()).expect("few");
    client.create_topic("warm", partitions, &[]);
    let value = noise(1, 900_000);
    for _ in 0..SHARD_MEMORY_BYTES / value.len() {
        for partition in 0..partitions {
            client.append("warm", partition, &batch(&[&value]));
        }
    }
    broker
}

/// Produce requests that the good client has in flight, as many as real producers have.
const INFLIGHT: usize = 5;

/// A good client: one connection appends, another one reads behind it, as producers and consumers do.
struct Good {
    /// No further record is to be sent.
    stop: Arc<AtomicBool>,
    /// No further record will be acknowledged.
    complete: Arc<AtomicBool>,
    /// Records that were read back.
    done: Arc<AtomicU64>,
    producer: JoinHandle<u64>,
    consumer: JoinHandle<u64>,
}

impl Good {
    fn start(address: SocketAddr) -> Good {
        Client::connect(address).create_topic("good", 1, &[]);
        let (stop, complete) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (acked, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let producer = thread::spawn({
            let (stop, acked) = (stop.clone(), acked.clone());
            move || produce_until(address, &stop, &acked)
        });
        let consumer = thread::spawn({
            let (complete, done) = (complete.clone(), done.clone());
            move || consume_until(address, &complete, &acked, &done)
        });
        Good { stop, complete, done, producer, consumer }
    }

    /// Records written and read in `window`, by the second.
    fn rate(&self, window: Duration) -> f64 {
        let (began, before) = (now(), self.done.load(Ordering::Relaxed));
        thread::sleep(window);
        let done = self.done.load(Ordering::Relaxed) - before;
        done as f64 / (now() - began).as_secs_f64()
    }

    /// Ends the client; how many records were acknowledged, all of which have been read.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let acked = self.producer.join().expect("the good producer was never refused");
        self.complete.store(true, Ordering::Release);
        let read = self.consumer.join().expect("the good consumer read what was written");
        assert_eq!(read, acked, "records read and records acknowledged");
        acked
    }
}

/// Appends records until it is stopped; each lands at the offset of its number. Returns how many there are.
fn produce_until(address: SocketAddr, stop: &AtomicBool, acked: &AtomicU64) -> u64 {
    let mut client = Client::connect(address);
    let mut waiting = VecDeque::new();
    let mut next = 0;
    loop {
        while waiting.len() < INFLIGHT && !stop.load(Ordering::Relaxed) {
            waiting.push_back(client.send(PRODUCE_BY_NAME, &produce_request("good", 0, &good_batch(next), -1)));
            next += 1;
        }
        let Some(sent) = waiting.pop_front() else { return next };
        let answer = client.receive(sent).responses.remove(0).partition_responses.remove(0);
        assert_eq!(code(answer.error_code), ErrorCode::None, "{:?}", answer.error_message);
        assert_eq!(answer.base_offset, acked.load(Ordering::Relaxed) as i64, "nobody else writes here");
        acked.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads the same records behind the producer, until the last one is acknowledged and read.
fn consume_until(address: SocketAddr, complete: &AtomicBool, acked: &AtomicU64, done: &AtomicU64) -> u64 {
    let mut client = Client::connect(address);
    loop {
        let next = done.load(Ordering::Relaxed);
        if complete.load(Ordering::Acquire) && next >= acked.load(Ordering::Relaxed) {
            return next;
        }
        done.fetch_add(read_good(&mut client, next), Ordering::Relaxed);
    }
}

/// Reads the good client's records from number `next` on, waiting a little for the first; how many came, each as written.
fn read_good(client: &mut Client, next: u64) -> u64 {
    let request = fetch_request(&[("good", 0, next as i64, 1 << 20)]).with_max_wait_ms(100).with_min_bytes(1);
    let data = client.fetch_all(&request).remove(0);
    assert_eq!(code(data.error_code), ErrorCode::None);
    let found = batches(&data);
    for (number, stored) in (next..).zip(&found) {
        assert_eq!(stored.base_offset().value(), number as i64);
        assert_eq!(stored.records(), &good_batch(number)[HEADER_BYTES..], "record {number}");
    }
    found.len() as u64
}

fn good_batch(number: u64) -> Vec<u8> {
    batch(&[&[&number.to_be_bytes()[..], &noise(number, 100)].concat()])
}

/// What became of the frames that were sent.
#[derive(Default, Debug)]
struct Tally {
    sent: AtomicU64,
    answered: AtomicU64,
    closed: AtomicU64,
    lies: AtomicU64,
    spared: AtomicU64,
    longest_ms: AtomicU64,
}

struct Attackers {
    address: SocketAddr,
    frames: Vec<Frame>,
    seed: u64,
    count: u64,
    next: AtomicU64,
    attacking: AtomicBool,
    ping: Bytes,
    tally: Tally,
}

impl Attackers {
    /// Attacks whenever it may, until every frame has been sent.
    fn run(&self) {
        let mut connection = None;
        loop {
            if !self.attacking.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return;
            }
            let frame = mutate::frame(&self.frames, self.seed, number);
            let Some(frame) = Attackers::modest(frame) else {
                self.tally.spared.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let began = now();
            connection = self.exchange(connection.take(), &frame, number);
            let took = (now() - began).as_millis() as u64;
            self.tally.longest_ms.fetch_max(took, Ordering::Relaxed);
            self.tally.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The frame, waiting no longer than milliseconds; `None` if it would create thousands of partitions. Both are the
    /// right of any client and are bounded by other means than decoding.
    fn modest(mut frame: Vec<u8>) -> Option<Vec<u8>> {
        let Ok(header) = parse_header(&frame) else { return Some(frame) };
        let (api, body) = (header.api, header.body_offset);
        match api.key() {
            ApiKey::Fetch => {
                let wait = body + if api.version() >= 15 { 0 } else { 4 };
                if let Some(wait) = frame.get_mut(wait..wait + 4) {
                    wait.copy_from_slice(&[0, 0, 0, 2]);
                }
                Some(frame)
            }
            ApiKey::CreateTopics => {
                let request = decode_request(api, Bytes::copy_from_slice(&frame[body..]));
                let Ok(Request::CreateTopics(request)) = request else { return Some(frame) };
                let many = |number: i32, assigned: usize| number > PARTITIONS_MAX || assigned > PARTITIONS_MAX as usize;
                let much = request.topics.iter().any(|topic| many(topic.num_partitions, topic.assignments.len()));
                (!much).then_some(frame)
            }
            _ => Some(frame),
        }
    }

    /// Sends a frame with a good request behind it, and waits for the answer to that or for the end of the connection.
    fn exchange(&self, connection: Option<TcpStream>, frame: &[u8], number: u64) -> Option<TcpStream> {
        let mut stream = connection.unwrap_or_else(|| self.connect());
        let mut random = Random::stream(!self.seed, number);
        let honest = i32::try_from(frame.len()).expect("frames are small");
        let length = match random.below(32) {
            0 => *random.choose(&[-1, 0, 1, i32::MAX, i32::MIN, 100 << 20, 1 << 20, 8 << 10]),
            1 => honest + 1,
            2 => honest - 1,
            _ => honest,
        };
        let bytes = [&length.to_be_bytes()[..], frame, &self.ping].concat();
        // The broker may have closed before all is written.
        let written = stream.write_all(&bytes);
        if length != honest {
            self.tally.lies.fetch_add(1, Ordering::Relaxed);
            // A longer frame is waited for; this is its end.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let name =
            || format!("frame {number} of seed {}, length {length}, written {written:?}: {}", self.seed, hex(frame));
        loop {
            match self.next_answer(&mut stream) {
                Ok(Some(PING)) if length == honest => {
                    self.tally.answered.fetch_add(1, Ordering::Relaxed);
                    return Some(stream);
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.tally.closed.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                Err(error) => panic!("neither an answer nor an end: {error}: {}", name()),
            }
        }
    }

    /// The correlation id of the next answer; `None` if the connection has ended.
    fn next_answer(&self, stream: &mut TcpStream) -> Result<Option<CorrelationId>, std::io::Error> {
        let ended = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(None),
            _ => Err(error),
        };
        let mut length = [0; LENGTH_BYTES];
        if let Err(error) = stream.read_exact(&mut length) {
            return ended(error);
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("answers have a length")];
        match stream.read_exact(&mut frame) {
            Ok(()) => Ok(client::response_correlation(&frame)),
            Err(error) => ended(error),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, ANSWER_WITHIN).expect("the broker accepts");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("not zero");
        stream.set_write_timeout(Some(ANSWER_WITHIN)).expect("not zero");
        stream
    }
}

/// A good request whose answer is [`PING`].
fn ping() -> Bytes {
    let api = Api::new(ApiKey::ApiVersions, 3).expect("in the table");
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("good"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    client::encode_request(api, PING, None, &request).expect("it encodes")
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Creates the topics that frames name, and lets the frames name them by the ids that they have here.
fn at_home(frames: &mut [Frame], broker: &Broker) {
    let mut client = Client::connect(broker.address());
    let created: Vec<[u8; 16]> = corpus::topic_names()
        .iter()
        .map(|name| client.create_topic(name, 3, &[("segment.bytes", "1048576")]).into_bytes())
        .collect();
    let told: Vec<[u8; 16]> = corpus::topic_ids().into_iter().collect();
    for frame in frames {
        for at in 0..frame.bytes.len().saturating_sub(15) {
            if let Some(index) = told.iter().position(|id| frame.bytes[at..at + 16] == *id) {
                frame.bytes[at..at + 16].copy_from_slice(&created[index % created.len()]);
            }
        }
    }
}

#[test]
fn a_broker_under_mutated_frames_lives_stays_small_and_serves_a_good_client() {
    let _alone = alone();
    let count = number("CORELANE_HOSTILE_CONNECTION_FRAMES").unwrap_or(50_000);
    let seed = number("CORELANE_HOSTILE_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{count} frames, seed {seed}");
    let scratch = Scratch::new("hostile-bytes");
    let mut broker = warm_broker(&scratch);
    let mut frames = corpus::all();
    at_home(&mut frames, &broker);
    let attackers = Arc::new(Attackers {
        address: broker.address(),
        frames,
        seed,
        count,
        next: AtomicU64::new(0),
        attacking: AtomicBool::new(false),
        ping: ping(),
        tally: Tally::default(),
    });
    let good = Good::start(broker.address());
    good.rate(2 * WINDOW);
    let idle = resident_memory(broker.pid());

    let began = now();
    let threads: Vec<JoinHandle<()>> = (0..ATTACKERS)
        .map(|_| {
            let attackers = attackers.clone();
            thread::spawn(move || attackers.run())
        })
        .collect();
    let (mut quiet, mut hostile, mut largest) = (Vec::new(), Vec::new(), idle);
    while threads.iter().any(|thread| !thread.is_finished()) {
        attackers.attacking.store(false, Ordering::Relaxed);
        quiet.push(good.rate(WINDOW));
        attackers.attacking.store(true, Ordering::Relaxed);
        for _ in 0..HOSTILE_WINDOWS {
            let rate = good.rate(WINDOW);
            // The last window may be hostile for a part of its time only.
            if threads.iter().all(|thread| !thread.is_finished()) {
                hostile.push(rate);
            }
            largest = largest.max(resident_memory(broker.pid()));
        }
        assert!(broker.is_running(), "the broker ended under attack:\n{}", broker.stderr());
        assert!(largest <= idle + GROWTH_BYTES_MAX, "{largest} bytes of memory, idle {idle}, seed {seed}");
    }
    let took = now() - began;
    for thread in threads {
        thread.join().expect("every frame was answered, or its connection closed");
    }
    let acked = good.finish();
    let (quiet_rate, hostile_rate, windows) = (median(quiet.clone()), median(hostile.clone()), hostile.len());
    println!(
        "{took:?}, {:?}, memory {idle} idle, {largest} at most, good client {quiet_rate:.0}/s quiet, \
         {hostile_rate:.0}/s under attack, {windows} windows, {acked} records",
        attackers.tally
    );
    assert_all_there(&broker, acked);
    assert!(!broker.stderr().contains("panic"), "{}", broker.stderr());
    let sent = attackers.tally.sent.load(Ordering::Relaxed) + attackers.tally.spared.load(Ordering::Relaxed);
    assert_eq!(sent, count, "every frame was sent or spared");
    assert!(windows >= WINDOWS_MIN || count < 50_000, "{windows} windows are no measurement");
    assert!(
        hostile_rate >= RATE_KEPT_MIN * quiet_rate || windows < WINDOWS_MIN,
        "the good client did {hostile_rate:.0}/s under attack and {quiet_rate:.0}/s without: {hostile:.0?} {quiet:.0?}"
    );
    let ended = broker.terminate();
    assert_eq!(ended.code(), Some(0), "{ended}");
}

/// Demands that the good client's records are all there, in order.
fn assert_all_there(broker: &Broker, acked: u64) {
    let mut client = Client::connect(broker.address());
    let mut next = 0;
    while next < acked {
        let read = read_good(&mut client, next);
        assert!(read > 0, "record {next} of {acked} is gone");
        next += read;
    }
    assert_eq!(next, acked, "records beyond those that were acknowledged");
}
