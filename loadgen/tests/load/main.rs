//! The load generator against a broker that keeps its promises, and against brokers that break one: what it reports is what
//! happened.
//!
//! The brokers are synthetic ones on loopback sockets, each on a thread of its own. Rates are low enough for a busy machine;
//! nothing here measures how fast anything is.

mod faults;
mod pacing;
mod shapes;

use std::net::SocketAddr;

use corelane::runtime::Duration;
use loadgen::client::{Bootstrap, ConnectionOptions};
use loadgen::load::options::{ConsumerOptions, LoadOptions, ProducerOptions, TopicOptions, TopicShape};
use loadgen::load::payload::PayloadSource;
use loadgen::load::schedule::Pace;
use loadgen::load::{self, LoadResult};
use loadgen::result::Verification;
use loadgen::synthetic::{Faults, SyntheticOptions, serve_beside};

const PARTITIONS: u32 = 4;
const RATE: f64 = 5_000.0;

/// A broker with these faults.
fn broker(faults: Faults) -> SocketAddr {
    let options = SyntheticOptions { partitions: PARTITIONS, retained_bytes: 256 << 20, faults };
    serve_beside(options, None).expect("a broker")
}

/// A second of [`RATE`] records a second, without a warm-up, from two producers to one consumer.
fn options(address: SocketAddr) -> LoadOptions {
    let producers = ProducerOptions {
        count: 2,
        pace: Some(Pace::steady(RATE)),
        batch_records: 20,
        delivery_timeout: Duration::from_secs(10),
        payload: PayloadSource::Entropy(0.5),
        record_bytes: 100..=200,
        keys: 100,
        ..ProducerOptions::default()
    };
    let consumers = ConsumerOptions { fetch_wait_max: Duration::from_millis(100), ..ConsumerOptions::default() };
    let shape = TopicShape { partitions: PARTITIONS as i32, replication_factor: 1, configs: Vec::new() };
    let bootstrap = Bootstrap::at(address, ConnectionOptions::default());
    LoadOptions {
        topics: TopicOptions { names: vec!["load".to_owned()], create: Some(shape) },
        producers: Some(producers),
        consumers: Some(consumers),
        duration: Duration::from_secs(1),
        interval: Duration::from_millis(250),
        ..LoadOptions::new(bootstrap, "load")
    }
}

/// Runs a load after `change` has changed its options.
fn run(address: SocketAddr, change: impl FnOnce(&mut LoadOptions)) -> LoadResult {
    let mut options = options(address);
    change(&mut options);
    load::run(options, |_| ()).expect("the broker is there")
}

/// The producers of a run that has some.
fn producers(options: &mut LoadOptions) -> &mut ProducerOptions {
    options.producers.as_mut().expect("there are producers")
}

/// What a run says about its records.
fn verified(result: &LoadResult) -> Verification {
    result.outcome.verify.expect("records were produced and consumed")
}
