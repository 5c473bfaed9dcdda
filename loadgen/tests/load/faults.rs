//! Every fault of a broker is found, and called by its name.
//!
//! Each test plants one fault, which befalls every n-th batch of a partition, and looks at the counts of all of them.

use loadgen::result::{RunState, Verification};
use loadgen::synthetic::Faults;

use super::{RATE, broker, producers, run, verified};

/// The verification of a run against a broker with these faults.
fn found(faults: Faults) -> Verification {
    // One producer, so that neighbouring batches of a partition are of the same.
    let result = run(broker(faults), |options| producers(options).count = 1);
    assert_eq!(result.outcome.records_in, RATE as u64, "all were acknowledged");
    verified(&result)
}

#[test]
fn an_honest_broker_is_found_to_be_one() {
    let result = run(broker(Faults::default()), |_| ());
    let verification = verified(&result);
    assert!(verification.is_clean(), "{verification:?}");
    let outcome = &result.outcome;
    assert_eq!((outcome.records_in, outcome.records_out), (RATE as u64, RATE as u64));
    assert_eq!((verification.delivered, verification.unacked_delivered), (RATE as u64, 0));
    assert!(outcome.bytes_in == outcome.bytes_out && outcome.bytes_in > 100 * RATE as u64);
    for name in ["response", "service", "slip", "e2e"] {
        assert_eq!(outcome.latency[name].count, RATE as u64, "{name}");
    }
    // A record is sent after it is due, acknowledged after it was sent, and handed out after it was due.
    let p50 = |name: &str| outcome.latency[name].p50_us;
    assert!(p50("slip") <= p50("response") && p50("service") <= p50("response") && p50("e2e") > 0);
    assert!(outcome.latency["response"].max_us >= outcome.latency["service"].max_us);
}

#[test]
fn acknowledged_records_that_are_thrown_away_are_lost() {
    let found = found(Faults { lose: Some(7), ..Faults::default() });
    assert!(found.lost > 0 && found.delivered + found.lost == RATE as u64, "{found:?}");
    assert_eq!(Verification { lost: 0, delivered: 0, ..found }, Verification::default());
}

#[test]
fn records_that_are_appended_twice_are_duplicates() {
    let found = found(Faults { repeat: Some(7), ..Faults::default() });
    assert!(found.duplicated > 0, "{found:?}");
    assert_eq!(found.delivered, RATE as u64);
    assert_eq!(Verification { duplicated: 0, delivered: 0, ..found }, Verification::default());
}

#[test]
fn records_behind_later_ones_are_reordered() {
    let found = found(Faults { swap: Some(7), ..Faults::default() });
    assert!(found.reordered > 0, "{found:?}");
    // The last batch of a partition may still wait for the one that it is to come after.
    assert!(found.delivered + found.lost == RATE as u64 && found.lost <= 4 * 20, "{found:?}");
    assert_eq!(Verification { reordered: 0, delivered: 0, lost: 0, ..found }, Verification::default());
}

#[test]
fn changed_bytes_are_corruption_even_under_a_good_checksum() {
    let found = found(Faults { corrupt: Some(7), ..Faults::default() });
    // One record of a batch is damaged: it is corrupt, and what was written is not there.
    assert!(found.corrupt > 0 && found.lost == found.corrupt, "{found:?}");
    assert_eq!(Verification { corrupt: 0, lost: 0, delivered: 0, ..found }, Verification::default());
}

#[test]
fn records_in_another_partition_are_misplaced() {
    let found = found(Faults { misplace: Some(7), ..Faults::default() });
    assert!(found.misplaced > 0 && found.lost == found.misplaced, "{found:?}");
    assert_eq!(Verification { misplaced: 0, lost: 0, delivered: 0, ..found }, Verification::default());
}

#[test]
fn what_was_never_acknowledged_is_no_loss() {
    // The broker appends, and the connection ends before the answer.
    let result = run(broker(Faults { forget: Some(40), ..Faults::default() }), |_| ());
    let found = verified(&result);
    assert!(found.is_clean() && found.unacked_delivered > 0, "{found:?}");
    assert_eq!(result.outcome.errors, found.unacked_delivered + found.unacked_lost, "they were given up");
    assert_ne!(result.outcome.state, RunState::Invalid);
}
