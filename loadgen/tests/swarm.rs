//! A swarm against a broker that is not ours: librdkafka's mock cluster.
//!
//! It shows that every connection is made, asked in turn and found again in every kind of request, in the older versions
//! that the mock speaks, that connections which a broker closes are counted and void the run, and that a broker's errors are
//! not answers. What connections cost is not shown: broker and swarm share a process here.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;
use loadgen::cli::{Command, CommandLine};
use loadgen::result::RunState;
use loadgen::swarm::{self, Progress, Step, SwarmOptions, SwarmResult};
use rdkafka::ClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

const TOPIC: &str = "events";

fn cluster(brokers: i32) -> MockCluster<'static, impl ClientContext> {
    let cluster = MockCluster::new(brokers).unwrap();
    cluster.create_topic(TOPIC, 4, 1).unwrap();
    cluster
}

fn options(bootstrap: &str, arguments: &str) -> SwarmOptions {
    let fixed = ["loadgen", "swarm", "--topic", TOPIC, "--threads", "2", "--bootstrap-server", bootstrap];
    let line = CommandLine::try_parse_from(fixed.into_iter().chain(arguments.split(' '))).unwrap();
    match line.command() {
        Command::Swarm(arguments) => arguments.options().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn run(options: SwarmOptions) -> SwarmResult {
    swarm::run(options, |_: &Progress<'_>| ()).unwrap()
}

/// Times that are short enough for a test and long enough for a machine that does something else beside it.
const SHORT: &str = "--connections 101 --connect-rate 2k --idle 100ms --warmup 200ms --duration 1s --rate 500";

#[test]
fn every_connection_is_made_asked_and_found_again() {
    for request in ["metadata", "produce", "fetch"] {
        let cluster = cluster(2);
        let measured = run(options(&cluster.bootstrap_servers(), &format!("{SHORT} --request {request}")));
        let (swarm, outcome) = (&measured.swarm, &measured.outcome);
        assert_eq!((swarm.opened, swarm.failed, swarm.broken), (101, 0, 0), "{request}: {swarm:?}");
        assert_eq!((outcome.errors, outcome.records_in), (0, 500), "{request}: {:?}", outcome.reasons);
        assert_eq!(
            (outcome.seconds, outcome.rate_in),
            (1.0, 500.0),
            "{request}: the schedule, and all of it was answered"
        );
        assert_ne!(outcome.state, RunState::Invalid, "{request}: {:?}", outcome.reasons);
        let samples = |name: &str| outcome.latency[name].count;
        assert_eq!((samples("connect"), samples("response"), samples("service")), (101, 500, 500), "{request}");
        assert!(outcome.latency["response"].mean_us >= outcome.latency["service"].mean_us, "{request}");
        let bytes = if request == "produce" { 500 * 1024 } else { 0 };
        assert_eq!((outcome.bytes_in, outcome.bytes_out), (bytes, 0), "{request}");
        let in_series: u64 = measured.series.iter().map(|(_, tally)| tally.response.count()).sum();
        assert!(in_series > 0 && in_series <= 500, "{request}: {in_series}");
    }
}

#[test]
fn without_requests_connections_are_kept() {
    let cluster = cluster(1);
    let arguments = "--connections 33 --connect-rate -1 --duration 300ms";
    let measured = run(options(&cluster.bootstrap_servers(), arguments));
    assert_eq!((measured.swarm.opened, measured.swarm.broken), (33, 0));
    assert_eq!((measured.outcome.state, measured.outcome.rate_target), (RunState::Ok, None));
    assert_eq!(measured.outcome.latency.keys().collect::<Vec<_>>(), ["connect"]);
    assert!(
        measured.series.is_empty() && measured.swarm.own.cpu_idle.is_some() && measured.swarm.own.cpu_loaded.is_none()
    );
}

#[test]
fn idle_connections_that_a_broker_closes_are_found_out() {
    let cluster = cluster(1);
    let arguments = "--connections 20 --connect-rate -1 --duration 2s --interval 100ms";
    let options = options(&cluster.bootstrap_servers(), arguments);
    let (opened, all_are_open) = mpsc::channel();
    let running = std::thread::spawn(move || {
        swarm::run(options, move |progress| {
            if progress.step == Step::Connect && progress.opened == 20 {
                // Nobody listens to the second time.
                let _ = opened.send(());
            }
        })
    });
    all_are_open.recv_timeout(Duration::from_secs(60)).unwrap();
    cluster.broker_down(1).unwrap();
    cluster.broker_up(1).unwrap();
    let measured = running.join().unwrap().unwrap();
    assert_eq!((measured.swarm.opened, measured.swarm.broken), (20, 20), "{:?}", measured.outcome.reasons);
    assert_eq!(measured.outcome.state, RunState::Invalid);
    assert!(measured.outcome.reasons[0].contains("20 connections were lost"), "{:?}", measured.outcome.reasons);
}

#[test]
fn an_error_is_no_answer() {
    let cluster = cluster(1);
    let options = options(&cluster.bootstrap_servers(), &format!("{SHORT} --request produce"));
    // MESSAGE_TOO_LARGE, which the mock answers from now on.
    let failing = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 5000];
    cluster.request_errors(RDKafkaApiKey::Produce, &failing);
    let measured = run(options);
    assert_eq!((measured.outcome.state, measured.outcome.records_in), (RunState::Invalid, 0));
    assert!(measured.outcome.errors > 500 && measured.swarm.broken == 0, "{:?}", measured.swarm);
    assert!(measured.outcome.reasons[0].contains("the first error is 10"), "{:?}", measured.outcome.reasons);
}
