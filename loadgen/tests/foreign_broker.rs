//! The load generator against a broker that is not ours: librdkafka's mock cluster.
//!
//! It shows that the client knows only the protocol, in the older versions that the mock speaks, and that both halves of
//! `verify` work on real sockets: what was written is found, whole and in order, and a log that lacks what a journal claims is
//! not. The mock keeps its logs in memory and knows no sequence errors: how a broker recovers is not shown here.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use corelane::runtime::{Duration, real};
use loadgen::client::{Bootstrap, ConnectionOptions};
use loadgen::history::{Anomaly, Report};
use loadgen::verify::{self, Acks, CheckOptions, Progress, WriteOptions, WriteSummary};
use rdkafka::ClientContext;
use rdkafka::mocking::MockCluster;

const TOPIC: &str = "events";
const PARTITIONS: u32 = 4;

fn options(bootstrap: &str, journal: PathBuf) -> WriteOptions {
    WriteOptions {
        bootstrap: Bootstrap::resolve(bootstrap, ConnectionOptions::default()).unwrap(),
        topic: TOPIC.to_owned(),
        create: None,
        journal,
        acks: Acks::All,
        idempotence: false,
        reconnect: None,
        writers: 2,
        inflight_max: 5,
        batch_records: 7,
        record_bytes: 100..=300,
        rate_bytes: None,
        duration: Some(Duration::from_secs(20)),
        num_records: Some(10_000),
    }
}

fn write(options: WriteOptions) -> WriteSummary {
    let run = verify::write(options, Arc::new(Progress::default()));
    real::run(&real::Options::default(), run).unwrap().unwrap()
}

fn check(bootstrap: &str, journals: &[&Path]) -> Report {
    let bootstrap = Bootstrap::resolve(bootstrap, ConnectionOptions::default()).unwrap();
    let options = CheckOptions { bootstrap, journals: journals.iter().map(|path| path.to_path_buf()).collect() };
    let run = async move { verify::check(&options).await };
    real::run(&real::Options::default(), run).unwrap().unwrap().report
}

fn cluster() -> MockCluster<'static, impl ClientContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS as i32, 1).unwrap();
    cluster
}

#[test]
fn what_was_written_is_found_whole() {
    let cluster = cluster();
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (first, second) = (scratch.path().join("first"), scratch.path().join("second"));
    let summary = write(options(&cluster.bootstrap_servers(), first.clone()));
    assert_eq!((summary.acked_records, summary.unknown_records), (10_000, 0), "{summary:?}");
    assert!(summary.refused_records.is_empty() && summary.disconnected.is_none(), "{summary:?}");
    let idempotent = WriteOptions { idempotence: true, ..options(&cluster.bootstrap_servers(), second.clone()) };
    assert_eq!(write(idempotent).acked_records, 10_000);

    let report = check(&cluster.bootstrap_servers(), &[&first, &second]);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.tally.acked, report.tally.read, report.tally.foreign), (20_000, 20_000, 0));
    let half = check(&cluster.bootstrap_servers(), &[&second]);
    assert!(half.is_clean() && half.tally.foreign == 10_000, "{half}");
}

#[test]
fn a_log_that_lacks_what_was_acknowledged_is_found_out() {
    let (full, empty) = (cluster(), cluster());
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let journal = scratch.path().join("journal");
    write(options(&full.bootstrap_servers(), journal.clone()));
    let report = check(&empty.bootstrap_servers(), &[&journal]);
    assert_eq!((report.count(Anomaly::LostWrite), report.counts().count()), (10_000, 1), "{report}");
}
