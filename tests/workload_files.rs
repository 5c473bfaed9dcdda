//! Workload files of the OpenMessaging Benchmark run unchanged: `loadgen replay` against a broker.
//!
//! What a file says is what the broker gets: topics, partitions, sizes, rate; and everything that was written is read. Without
//! a rate the highest is found that both sides keep up with, and run. The times of a file are minutes: the tests have
//! seconds in their place. Latencies and throughputs are not judged here.

mod support;

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use loadgen::cli::{Command, CommandLine, Exit, ResultLine};
use loadgen::commands;
use loadgen::result::{ResultFile, RunState};
use loadgen::stamp::Stamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, TopicPartitionList};

use support::{Scratch, SharedBroker, now};

/// Low enough for a debug build on a busy machine.
const PACED: &str = "
name: two topics

topics: 2
partitionsPerTopic: 3
messageSize: 300
payloadFile: \"payload/payload-300b.data\"
subscriptionsPerTopic: 1
producersPerTopic: 2
consumerPerSubscription: 1
producerRate: 400
consumerBacklogSizeGB: 0
testDurationMinutes: 15
";

/// A disk that stalls for a moment, or a busy machine, is no reason to call the load too much.
const PATIENT: [&str; 2] = ["--max-inflight", "100"];

/// Replays `workload`; the result line, and the result if there is one.
fn replay(scratch: &Scratch, bootstrap: &str, workload: &str, arguments: &[&str]) -> (ResultLine, Option<ResultFile>) {
    let (file, json) = (scratch.path().join("workload.yaml"), scratch.path().join("result.json"));
    std::fs::write(&file, workload).expect("written");
    let name = |path: &Path| path.to_str().expect("a name of ours").to_owned();
    let fixed = ["loadgen", "replay", &name(&file), "--json", &name(&json), "--bootstrap-server", bootstrap, "--quiet"];
    let line = CommandLine::try_parse_from(fixed.iter().chain(arguments)).expect("a command line");
    let Command::Replay(arguments) = line.command() else { panic!("another subcommand") };
    let line = commands::replay(*arguments);
    (line, std::fs::read(&json).ok().map(|text| serde_json::from_slice(&text).expect("a result")))
}

#[test]
fn a_broker_gets_what_the_file_says() {
    let (broker, scratch) = (SharedBroker::running("workload"), Scratch::new("workload"));
    let short = [&PATIENT[..], &["--duration", "1500ms", "--warmup", "200ms", "--topic", "paced"]].concat();
    for _ in 0..2 {
        // The second time on the topics of the first, whose records are no part of it.
        let (line, file) = replay(&scratch, &broker.bootstrap(), PACED, &short);
        let file = file.expect("a result");
        let result = &file.result;
        assert_eq!(line.exit, Exit::Done, "{:?}", result.reasons);
        assert_eq!((file.target.topics.join(" ").as_str(), file.target.partitions), ("paced-0 paced-1", 6));
        assert_eq!((file.command.as_str(), file.tags["workload"].as_str()), ("replay", "two topics"));
        assert_eq!((result.rate_target, result.records_in, result.bytes_in), (Some(400.0), 600, 600 * 300));
        let verify = result.verify.expect("consumers read");
        assert!(verify.is_clean() && verify.delivered == 680 && verify.foreign == 0, "{verify:?}");
        assert!(file.sweep.is_none());
    }
}

#[test]
fn every_subscription_reads_everything_and_every_producer_keeps_to_its_topic() {
    let (broker, scratch) = (SharedBroker::running("workload"), Scratch::new("workload"));
    let workload = PACED.replace("subscriptionsPerTopic: 1", "subscriptionsPerTopic: 2");
    let short = [&PATIENT[..], &["--duration", "500ms", "--warmup", "0ms", "--topic", "subscribed"]].concat();
    let (line, file) = replay(&scratch, &broker.bootstrap(), &workload, &short);
    let result = file.expect("a result").result;
    assert_eq!(line.exit, Exit::Done, "{:?}", result.reasons);
    let verify = result.verify.expect("consumers read");
    assert!(verify.is_clean() && verify.delivered == 2 * 200, "{verify:?}");
    // Producers 0 and 2 have the first topic, 1 and 3 the second; partitions are numbered through.
    let mut writers = [0, 1].map(|topic| writers_of(&broker.bootstrap(), &format!("subscribed-{topic}")));
    writers.iter_mut().for_each(|writers| writers.sort_unstable());
    writers.iter_mut().for_each(Vec::dedup);
    assert_eq!(writers, [[0, 2], [1, 3]]);
}

/// Who wrote the records of a topic of three partitions.
fn writers_of(bootstrap: &str, topic: &str) -> Vec<u32> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "nobody's")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    (0..3).for_each(|partition| {
        list.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).expect("a partition");
    });
    consumer.assign(&list).expect("an assignment");
    let (mut writers, mut ended) = (Vec::new(), 0);
    while ended < 3 {
        match consumer.poll(Duration::from_secs(10)).expect("records or the end") {
            Ok(message) => {
                let stamp = Stamp::read(message.payload().unwrap_or_default()).expect("a stamp");
                writers.push(stamp.writer.0);
            }
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    writers
}

#[test]
fn a_topic_that_is_not_there_is_told_at_once() {
    let broker = SharedBroker::running("workload");
    let began = now();
    for subcommand in ["e2e", "produce", "consume"] {
        let fixed = ["loadgen", subcommand, "--bootstrap-server", &broker.bootstrap(), "--topic", "nowhere", "--quiet"];
        let line = match CommandLine::try_parse_from(fixed).expect("a command line").command() {
            Command::E2e(arguments) => commands::e2e(*arguments),
            Command::Produce(arguments) => commands::produce(*arguments),
            Command::Consume(arguments) => commands::consume(*arguments),
            other => panic!("{other:?}"),
        };
        assert_eq!(line.exit, Exit::Usage, "{subcommand}");
    }
    assert!(now() - began < Duration::from_secs(5), "nobody waits for what does not come");
}

#[test]
fn topics_of_another_shape_are_not_mistaken_for_the_workloads() {
    let (broker, scratch) = (SharedBroker::running("workload"), Scratch::new("workload"));
    let short = ["--duration", "200ms", "--warmup", "0ms", "--topic", "shape"];
    replay(&scratch, &broker.bootstrap(), PACED, &short);
    let other = PACED.replace("partitionsPerTopic: 3", "partitionsPerTopic: 4");
    std::fs::remove_file(scratch.path().join("result.json")).expect("the first run left one");
    let (line, file) = replay(&scratch, &broker.bootstrap(), &other, &short);
    assert!(line.exit == Exit::Usage && file.is_none(), "{line}");
}

#[test]
fn without_a_rate_the_highest_is_found_and_run() {
    let (broker, scratch) = (SharedBroker::running("workload"), Scratch::new("workload"));
    let workload = PACED.replace("topics: 2", "topics: 1").replace("producerRate: 400", "producerRate: 0");
    // Ten records a request and one request at a time: no machine takes many.
    let bounded = ["--max-inflight", "1", "--batch-size", "3500", "--topic", "highest"];
    let short = ["--duration", "400ms", "--warmup", "100ms", "--interval", "100ms"];
    let (line, file) = replay(&scratch, &broker.bootstrap(), &workload, &[&bounded[..], &short].concat());
    let file = file.expect("a result");
    let sweep = file.sweep.expect("there was a search");
    let knee = sweep.knee.unwrap_or_else(|| panic!("no rate: {:?}", sweep.steps));
    assert_eq!((line.exit, line.state), (Exit::Done, RunState::Unpaced), "{:?}", file.result.reasons);
    assert_eq!((sweep.slo.as_str(), file.result.rate_target), ("kept up", None));
    assert!(!file.result.latency.contains_key("response") && file.result.latency.contains_key("service"));
    assert!(sweep.steps.iter().any(|step| !step.met && step.rate_target > knee), "{:?}", sweep.steps);
    assert!((0.5 * knee..knee).contains(&file.result.rate_in), "{} of {knee}", file.result.rate_in);
    assert!(file.result.verify.expect("consumers read").is_clean());
}
