//! Every shape of load delivers what it says: codecs, keys, headers, topics, threads, acks, numbers of records.
//!
//! The verification of each run counts every record; what differs is asked for in the test.

use corelane::record::Codec;
use corelane::runtime::Duration;
use corelane::wire::produce::Acks;
use loadgen::load::keys::KeyDistribution;
use loadgen::load::options::StartAt;
use loadgen::load::{self};
use loadgen::result::RunState;
use loadgen::synthetic::{Faults, Stall};

use super::{RATE, broker, options, producers, run, verified};

#[test]
fn every_codec_arrives_whole() {
    for codec in Codec::ALL {
        let result = run(broker(Faults::default()), |options| producers(options).codec = codec);
        let verification = verified(&result);
        assert!(verification.is_clean() && verification.delivered == RATE as u64, "{codec}: {verification:?}");
    }
}

#[test]
fn keys_headers_topics_and_threads_go_together() {
    let result = run(broker(Faults::default()), |options| {
        options.threads = 2;
        options.topics.names = vec!["one".to_owned(), "two".to_owned()];
        options.consumers.as_mut().expect("there are consumers").count = 3;
        let producers = producers(options);
        (producers.count, producers.connections, producers.headers) = (3, 2, 2);
        (producers.key_distribution, producers.linger) = (KeyDistribution::Zipf(1.0), Duration::from_millis(5));
    });
    // Both topics are the synthetic broker's one: each consumer of the one meets the records of the other.
    let verification = verified(&result);
    assert_eq!(verification.lost, 0, "{verification:?}");
    assert_eq!(result.outcome.latency["response"].count, RATE as u64);
    assert_eq!(result.outcome.own.threads, 2);
    // A value, a key of 5 to 6 bytes, and two headers of 2 and 16 bytes.
    let mean = result.outcome.bytes_in as f64 / result.outcome.records_in as f64;
    assert!((190.0..196.0).contains(&mean), "{mean} bytes a record");
}

#[test]
fn every_set_of_consumers_reads_everything() {
    const SETS: u64 = 3;
    let result = run(broker(Faults::default()), |options| {
        let consumers = options.consumers.as_mut().expect("there are consumers");
        (consumers.count, consumers.sets) = (2, SETS as u32);
    });
    let verification = verified(&result);
    assert!(verification.is_clean() && verification.delivered == SETS * RATE as u64, "{verification:?}");
    let outcome = &result.outcome;
    assert_eq!((outcome.records_in, outcome.records_out), (RATE as u64, SETS * RATE as u64), "{:?}", outcome.reasons);
    assert_eq!(outcome.latency["e2e"].count, SETS * RATE as u64);
    assert_eq!(result.series.last().expect("there are intervals").interval.backlog, 0);
}

#[test]
fn a_batch_that_lingers_behind_a_full_one_is_sent() {
    // The run ends within a stall, in which full batches wait and the next ones linger behind them: a lane that was queued for
    // the one was not queued for the other, whose records then waited for ever.
    let stall = Stall { every: Duration::from_secs(1), length: Duration::from_millis(800) };
    let result = run(broker(Faults { stall: Some(stall), ..Faults::default() }), |options| {
        let producers = producers(options);
        (producers.linger, producers.batch_records) = (Duration::from_millis(2), 7);
        (producers.inflight_max, producers.key_distribution) = (1, KeyDistribution::Uniform);
    });
    let verification = verified(&result);
    assert!(verification.is_clean() && verification.delivered == RATE as u64, "{verification:?}");
}

#[test]
fn acks_are_as_asked_for() {
    for acks in [Acks::None, Acks::Leader] {
        let result = run(broker(Faults::default()), |options| producers(options).acks = acks);
        let verification = verified(&result);
        assert!(verification.is_clean() && verification.delivered == RATE as u64, "{acks:?}: {verification:?}");
        // Without an acknowledgement there is no response, and the slip is known all the same.
        assert_eq!(result.outcome.latency.contains_key("response"), acks != Acks::None);
        assert_eq!(result.outcome.latency["slip"].count, RATE as u64);
    }
}

#[test]
fn a_number_of_records_ends_the_run() {
    let result = run(broker(Faults::default()), |options| {
        (options.num_records, options.duration) = (Some(1_001), Duration::from_secs(60));
    });
    assert_eq!((result.outcome.records_in, verified(&result).delivered), (1_001, 1_001));
    assert!(result.outcome.seconds < 10.0, "{} s", result.outcome.seconds);
}

#[test]
fn what_lies_there_is_consumed_once() {
    let address = broker(Faults::default());
    let produced = run(address, |options| options.consumers = None);
    assert!(produced.outcome.verify.is_none() && produced.outcome.records_out == 0);
    let mut options = options(address);
    options.producers = None;
    options.duration = Duration::from_secs(30);
    options.consumers.as_mut().expect("there are consumers").from = StartAt::Earliest;
    let consumed = load::run(options, |_| ()).expect("the broker is there");
    assert_eq!(consumed.outcome.records_out, RATE as u64);
    assert_eq!(consumed.outcome.state, RunState::Unpaced);
    assert!(consumed.outcome.seconds < 20.0, "it ends with the last record");
}

#[test]
fn the_warm_up_does_not_count() {
    let result = run(broker(Faults::default()), |options| options.warmup = Duration::from_millis(500));
    assert_eq!(result.outcome.latency["response"].count, RATE as u64);
    assert_eq!(verified(&result).delivered, (1.5 * RATE) as u64, "what is verified is everything");
    let warm = result.series.iter().filter(|step| step.interval.warmup);
    assert!(warm.clone().count() == 2 && warm.into_iter().all(|step| step.interval.latency.is_empty()));
}

#[test]
fn consumers_can_be_behind_by_a_backlog() {
    let result = run(broker(Faults::default()), |options| {
        options.consumers.as_mut().expect("there are consumers").backlog_bytes = 300_000;
    });
    assert!(verified(&result).is_clean());
    let most = result.series.iter().map(|step| step.interval.backlog).max().expect("there are intervals");
    assert!(most > 1_000, "{most} records");
}
