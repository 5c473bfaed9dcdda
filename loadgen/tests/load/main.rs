//! The load generator against a broker that keeps its promises, and against brokers that break one: what it reports is what
//! happened.
//!
//! The brokers are synthetic ones on loopback sockets, each on a thread of its own. Rates are low enough for a busy machine;
//! nothing here measures how fast anything is.

mod faults;
mod pacing;
mod shapes;

use std::net::SocketAddr;

use corelane::record::Codec;
use corelane::runtime::Duration;
use corelane::wire::produce::Acks;
use loadgen::client::{Bootstrap, ConnectionOptions};
use loadgen::load::keys::KeyDistribution;
use loadgen::load::options::{
    ConsumerOptions, LoadOptions, Overload, ProducerOptions, StartAt, TopicOptions, TopicShape,
};
use loadgen::load::payload::PayloadSource;
use loadgen::load::schedule::{Arrival, Pace};
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
        connections: 1,
        pace: Some(Pace::steady(RATE)),
        arrival: Arrival::Uniform,
        overload: Overload::Queue,
        inflight_max: 5,
        acks: Acks::All,
        linger: Duration::ZERO,
        batch_bytes: 16_384,
        batch_records: 20,
        request_bytes: 1 << 20,
        idempotence: false,
        codec: Codec::None,
        delivery_timeout: Duration::from_secs(10),
        payload: PayloadSource::Entropy(0.5),
        record_bytes: 100..=200,
        headers: 0,
        key_distribution: KeyDistribution::None,
        keys: 100,
    };
    let consumers = ConsumerOptions {
        count: 1,
        from: StartAt::Latest,
        fetch_bytes_min: 1,
        fetch_wait_max: Duration::from_millis(100),
        fetch_bytes_max: 50 << 20,
        partition_bytes_max: 1 << 20,
        rest: Duration::ZERO,
        backlog_bytes: 0,
    };
    let shape = TopicShape { partitions: PARTITIONS as i32, replication_factor: 1, configs: Vec::new() };
    LoadOptions {
        bootstrap: Bootstrap::at(address, ConnectionOptions::default()),
        topics: TopicOptions { names: vec!["load".to_owned()], create: Some(shape) },
        threads: 1,
        cores: Vec::new(),
        producers: Some(producers),
        consumers: Some(consumers),
        warmup: Duration::ZERO,
        duration: Duration::from_secs(1),
        num_records: None,
        interval: Duration::from_millis(250),
        seed: 1,
        broker_pid: None,
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
