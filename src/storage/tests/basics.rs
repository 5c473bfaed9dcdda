//! One log on a healthy disk: appends, reads, rolls, reopening.
//!
//! What a disk does wrong is not here: see the files beside this one.

use super::*;
use crate::metrics::Budget;
use crate::runtime::{Duration, Instant, sleep};

#[test]
fn what_is_appended_is_committed_and_read_back() {
    let (simulation, node) = world(1);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        let first = append(&log, 3, 10);
        let second = append(&log, 2, 5000);
        assert_eq!((first.base_offset, first.last_offset, first.end), (offset(0), offset(2), offset(3)));
        assert_eq!((second.base_offset, log.log_end(), log.committed_end()), (offset(3), offset(5), offset(0)));
        log.flush().await.expect("a healthy disk");
        assert_eq!((log.written_end(), log.durable_end(), log.committed_end()), (offset(5), offset(5), offset(5)));
        let tail = log.read_tail(offset(0), ALL).expect("it is in the buffers");
        assert_eq!(tail.end, offset(5));
        let from_middle = log.read_tail(offset(4), ALL).expect("it is in the buffers");
        assert_eq!(joined(&tail)[tail.bytes - from_middle.bytes..], joined(&from_middle));
        let one = log.read_tail(offset(0), ReadLimits { bytes_max: 1, ..ALL }).expect("there");
        assert_eq!(one.end, offset(3));
        assert!(
            log.read_tail(offset(0), ReadLimits { bytes_max: 1, first_batch_whole: false, ..ALL })
                .expect("there")
                .is_empty()
        );
        assert!(log.read_tail(offset(0), ReadLimits { end: offset(2), ..ALL }).expect("there").is_empty());
        assert!(log.read(offset(5), ALL).await.expect("the end").is_empty());
        assert!(matches!(log.read(offset(6), ALL).await, Err(ReadError::OutOfRange { .. })));
        log.close().await.expect("closed");
    });
}

#[test]
fn appends_are_counted_when_they_are_accepted_and_timed_when_they_are_committed() {
    let (simulation, node) = world(4);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        let sent = batch(3, 10, b'v', 1000, None);
        append_bytes(&log, &sent).expect("room");
        append_bytes(&log, &sent).expect("room");
        let metrics = storage.metrics();
        assert_eq!((metrics.produce_bytes.get(), metrics.appends.count()), (2 * sent.len() as u64, 0));
        assert_eq!(metrics.memory_bytes.at(Budget::Append).get(), storage.tail_bytes() as u64);
        let (begun, written) = (Instant::now(), metrics.device_written_bytes.get());
        log.flush().await.expect("a healthy disk");
        let took = Instant::now().since(begun).as_nanos();
        assert_eq!(metrics.appends.count(), 2);
        assert!(metrics.appends.sum_nanos() > 0 && u128::from(metrics.appends.sum_nanos()) <= 2 * took);
        assert!(metrics.device_written_bytes.get() - written >= metrics.commit_bytes.get());
        log.close().await.expect("closed");
    });
}

#[test]
fn a_closed_log_opens_clean_and_goes_on() {
    let (simulation, node) = world(2);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        let mut written = Vec::new();
        for round in 0..5u8 {
            for records in 1..40 {
                append_bytes(&log, &batch(records, 100, round, 1000, None)).expect("room");
            }
            log.flush().await.expect("a healthy disk");
        }
        written.extend(read_all(&log).await);
        let end = log.log_end();
        assert!(log.segment_count() > 2, "it has rolled");
        log.close().await.expect("closed");

        let (log, report) = open(&storage).await;
        assert!(report.was_clean(), "{report:?}");
        assert_eq!((log.log_end(), log.committed_end()), (end, end));
        assert_eq!(read_all(&log).await, written, "from disk, byte for byte");
        append(&log, 1, 10);
        log.flush().await.expect("a healthy disk");
        assert_eq!(log.durable_end(), end.next());
        drop(log);
    });
}

#[test]
fn a_log_that_was_not_closed_is_scanned() {
    let (simulation, node) = world(3);
    let written = run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        for records in 1..100 {
            append(&log, records, 50);
        }
        log.flush().await.expect("a healthy disk");
        sleep(Duration::from_millis(50)).await;
        read_all(&log).await
    });
    simulation.kill(node);
    simulation.restart(node);
    run(&simulation, node, async move {
        let storage = storage();
        let (log, report) = open(&storage).await;
        assert!(!report.was_clean());
        assert!(report.hits(RecoveryCase::RolledOn) > 0 && report.batches_scanned > 0, "{report:?}");
        assert_eq!(read_all(&log).await, written);
        log.close().await.expect("closed");
    });
}
