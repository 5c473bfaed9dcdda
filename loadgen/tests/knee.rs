//! `sweep` against a broker whose knee is known: librdkafka's mock cluster with a round trip of its own.
//!
//! With one request in flight, so many records a request and so long a round trip it takes no more than a certain rate, however
//! fast the machine is; what is asked for between two round trips waits. Where an SLO is below the round trip there is
//! no knee. The machine adds to round trips, so the knee may lie lower, never higher.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use loadgen::cli::{Command, CommandLine, Exit, ResultLine};
use loadgen::commands;
use loadgen::result::{ResultFile, RunState};
use rdkafka::ClientContext;
use rdkafka::mocking::MockCluster;

const TOPIC: &str = "events";
/// Below the time for which a request may wait for its turn before that counts as saturation.
const ROUND_TRIP: Duration = Duration::from_millis(8);
const BATCH_RECORDS: u32 = 5;

fn cluster() -> MockCluster<'static, impl ClientContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    cluster.broker_round_trip_time(1, ROUND_TRIP).unwrap();
    cluster
}

/// A sweep of short steps, its result line and its result.
fn sweep(bootstrap: &str, json: &Path, arguments: &[&str]) -> (ResultLine, ResultFile) {
    let (batch, json_name) = (BATCH_RECORDS.to_string(), json.to_str().unwrap());
    let fixed = ["loadgen", "sweep", "--bootstrap-server", bootstrap, "--topic", TOPIC, "--quiet", "--json", json_name];
    let load = ["--max-inflight", "1", "--batch-records", &batch, "--record-size", "100", "--threads", "1"];
    // The mock lets a fetch wait to its end, whatever comes meanwhile.
    let fetches = ["--fetch-max-wait-ms", "2"];
    let steps = ["--duration", "700ms", "--warmup", "200ms", "--interval", "100ms", "--min-rate", "100"];
    let line = fixed.iter().chain(&load).chain(&fetches).chain(&steps).chain(arguments);
    let line = match CommandLine::try_parse_from(line).unwrap().command() {
        Command::Sweep(arguments) => commands::sweep(*arguments),
        other => panic!("{other:?}"),
    };
    (line, serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap())
}

#[test]
fn the_knee_lies_below_what_round_trips_allow() {
    let (cluster, scratch) = (cluster(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let searched = ["--slo", "p99<40ms", "--max-rate", "3k", "--resolution", "20%", "--repeats", "2"];
    let (line, file) = sweep(&cluster.bootstrap_servers(), &scratch.path().join("json"), &searched);
    let sweep = file.sweep.unwrap();
    let knee = sweep.knee.unwrap_or_else(|| panic!("no knee: {:?}", sweep.steps));
    let most = f64::from(BATCH_RECORDS) / ROUND_TRIP.as_secs_f64();
    // What a step ends with before its queue has grown beyond the SLO is a few percent above.
    assert!((100.0..1.1 * most).contains(&knee), "{knee} of {most}: {:?}", sweep.steps);
    assert_eq!((line.exit, line.state), (Exit::Done, RunState::Ok));

    assert_eq!((file.command.as_str(), file.result.rate_target.map(f64::round)), ("sweep", Some(knee.round())));
    let at_knee: Vec<bool> = sweep.steps.iter().filter(|step| step.rate_target == knee).map(|step| step.met).collect();
    assert!(at_knee.windows(2).any(|pair| pair == [true, true]), "{at_knee:?}");
    let above = sweep.steps.iter().filter(|step| step.rate_target > 2.0 * most);
    assert!(above.clone().count() == 0 || above.clone().all(|step| !step.met), "{:?}", sweep.steps);
    assert!(sweep.steps.iter().all(|step| step.latency.contains_key("response") && step.latency.contains_key("e2e")));
}

#[test]
fn there_is_no_knee_where_a_round_trip_is_too_slow() {
    let (cluster, scratch) = (cluster(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let (line, file) = sweep(&cluster.bootstrap_servers(), &scratch.path().join("json"), &["--slo", "p50<5ms"]);
    let sweep = file.sweep.unwrap();
    assert_eq!((line.exit, sweep.knee), (Exit::Slo, None));
    let steps: Vec<_> = sweep.steps.iter().map(|step| (step.rate_target, step.met)).collect();
    assert_eq!(steps, [(100.0, false); 2], "the lowest rate, and again");
}
