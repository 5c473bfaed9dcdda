//! A load goes on over kill −9 and a restart of the broker, and everything that was acknowledged is there, once, in order.
//!
//! The load generator as a client that people use it as: producers that send again what is not answered, consumers that go on
//! where they were, verification of every record. The broker is killed twice in one run, under load. What was lost is not
//! the only promise: a client that reconnects must also get on with its work.

mod support;

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use corelane::record::Codec;
use loadgen::client::{Bootstrap, ConnectionOptions};
use loadgen::load::keys::KeyDistribution;
use loadgen::load::options::{ConsumerOptions, LoadOptions, ProducerOptions, TopicOptions, TopicShape};
use loadgen::load::payload::PayloadSource;
use loadgen::load::schedule::Pace;
use loadgen::load::{self, LoadResult};
use loadgen::result::DurabilityClass;

use support::{BrokerOptions, Scratch, fixed_port};

const RATE: f64 = 10_000.0;
const SECONDS: u64 = 8;
const PARTITIONS: i32 = 6;

fn options(address: SocketAddr) -> LoadOptions {
    let producers = ProducerOptions {
        count: 2,
        pace: Some(Pace::steady(RATE)),
        idempotence: true,
        codec: Codec::Lz4,
        payload: PayloadSource::Entropy(0.5),
        record_bytes: 100..=1000,
        headers: 1,
        key_distribution: KeyDistribution::Uniform,
        keys: 1000,
        ..ProducerOptions::default()
    };
    let shape = TopicShape { partitions: PARTITIONS, replication_factor: 1, configs: Vec::new() };
    let bootstrap = Bootstrap::at(address, ConnectionOptions::default());
    LoadOptions {
        topics: TopicOptions { names: vec!["survives".to_owned()], create: Some(shape) },
        producers: Some(producers),
        consumers: Some(ConsumerOptions { count: 2, ..ConsumerOptions::default() }),
        duration: Duration::from_secs(SECONDS),
        ..LoadOptions::new(bootstrap, "survives")
    }
}

#[test]
fn a_load_survives_kills_of_the_broker() {
    let scratch = Scratch::new("load-survives");
    let port = fixed_port();
    let serving = BrokerOptions::new(scratch.path()).port(port);
    let mut broker = serving.start().expect("it starts");
    let address = broker.address();
    let running = thread::spawn(move || load::run(options(address), |_| ()));
    for _ in 0..2 {
        thread::sleep(Duration::from_secs(2));
        broker.kill();
        thread::sleep(Duration::from_millis(300));
        broker = serving.start().expect("it starts again");
    }
    let result: LoadResult = running.join().expect("no panic").expect("the broker was there at the start");
    let outcome = &result.outcome;
    let verification = outcome.verify.expect("records were produced and consumed");
    assert!(verification.is_clean(), "{verification:?}");
    // Idempotent producers give nothing up while the broker comes back in time.
    assert_eq!(verification.delivered, RATE as u64 * SECONDS, "{verification:?} {:?}", outcome.reasons);
    assert_eq!(outcome.latency["response"].count, RATE as u64 * SECONDS);
    assert_eq!(result.plan.class, DurabilityClass::C);
    // The outages are in the latencies: nobody waited for the broker before the clock ran.
    assert!(outcome.latency["response"].max_us > 300_000, "{} us", outcome.latency["response"].max_us);
    broker.terminate();
}

#[test]
fn a_load_whose_broker_stays_away_ends_and_tells() {
    let scratch = Scratch::new("load-deserted");
    let broker = BrokerOptions::new(scratch.path()).start().expect("it starts");
    let mut options = options(broker.address());
    options.producers.as_mut().expect("there are producers").delivery_timeout = Duration::from_secs(1);
    options.consumers = None;
    options.duration = Duration::from_secs(3);
    let running = thread::spawn(move || load::run(options, |_| ()));
    thread::sleep(Duration::from_secs(1));
    broker.kill();
    let outcome = running.join().expect("no panic").expect("the broker was there at the start").outcome;
    assert!(outcome.errors > 0, "what was given up is counted: {outcome:?}");
    assert_eq!(outcome.records_in + outcome.errors, RATE as u64 * 3, "every record has met its end");
}
