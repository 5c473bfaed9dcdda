//! The load generator against a broker that is not ours: librdkafka's mock cluster.
//!
//! It shows that the client knows only the protocol, in the older versions that the mock speaks, and that both halves of
//! `verify` work on real sockets: what was written is found, whole and in order, and a log that lacks what a journal claims is
//! not. The mock keeps its logs in memory and knows no sequence errors: how a broker recovers is not shown here.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};

use corelane::runtime::real;
use loadgen::client::{Bootstrap, ConnectionOptions};
use loadgen::history::{Anomaly, Report};
use loadgen::journal::file::JournalTally;
use loadgen::load::options::ProducerOptions;
use loadgen::load::{self, LoadOptions};
use loadgen::verify::{self, CheckOptions};
use rdkafka::ClientContext;
use rdkafka::mocking::MockCluster;

const TOPIC: &str = "events";
const PARTITIONS: u32 = 4;

fn options(bootstrap: &str, journal: PathBuf) -> LoadOptions {
    let producers = ProducerOptions {
        count: 2,
        retries: false,
        batch_records: 7,
        record_bytes: 100..=300,
        ..ProducerOptions::default()
    };
    LoadOptions {
        producers: Some(producers),
        journal: Some(journal),
        num_records: Some(10_000),
        ..LoadOptions::new(Bootstrap::resolve(bootstrap, ConnectionOptions::default()).unwrap(), TOPIC)
    }
}

fn write(options: LoadOptions) -> JournalTally {
    load::run(options, |_| ()).unwrap().journal.unwrap()
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
    let tally = write(options(&cluster.bootstrap_servers(), first.clone()));
    assert_eq!((tally.acked_records, tally.unknown_records), (10_000, 0), "{tally:?}");
    assert!(tally.refused_records.is_empty(), "{tally:?}");
    let mut idempotent = options(&cluster.bootstrap_servers(), second.clone());
    idempotent.producers.as_mut().unwrap().idempotence = true;
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
