//! Retention, DeleteRecords, rolls by age, zeroed space, checkpoints.
//!
//! What must stay is read again after a restart.

use super::*;
use crate::runtime::sim::{DiskFault, PowerCut};
use crate::runtime::{Duration, File, Instant, OpenMode, directory, sleep, wall_clock};

async fn names() -> Vec<String> {
    directory::list(&directory_path()).await.expect("it is there").into_iter().map(|entry| entry.name).collect()
}

#[test]
fn retention_by_size_and_by_age_removes_the_oldest_segments() {
    let (simulation, node) = world(31);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        for number in 0..300i64 {
            append_bytes(&log, &batch(1, 1000, 1, number * 1000, None)).expect("room");
        }
        log.flush().await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        assert_eq!((log.segment_count(), log.enforce_retention_at(time(300_000)).await.expect("works")), (5, 0));
        log.set_options(LogOptions { retention_bytes: Some(150_000), ..small_options() });
        assert_eq!(log.enforce_retention_at(time(300_000)).await.expect("works"), 2);
        assert!(log.log_start() > offset(100) && log.size_bytes() >= 150_000);
        assert!(matches!(log.read(offset(0), ALL).await, Err(ReadError::OutOfRange { .. })));
        assert!(!names().await.iter().any(|name| name.starts_with("0000000001") || name.starts_with("0000000002")));

        // Everything is older than a minute: the active segment goes too, and the log end stays.
        let age = LogOptions { retention_age: Some(Duration::from_secs(60)), ..small_options() };
        log.set_options(age);
        log.enforce_retention_at(time(900_000)).await.expect("works");
        log.enforce_retention_at(time(900_000)).await.expect("works");
        assert_eq!((log.log_start(), log.log_end(), log.segment_count()), (offset(300), offset(300), 1));
        drop(log);
        let (log, _) = open(&storage).await;
        assert_eq!((log.log_start(), log.log_end()), (offset(300), offset(300)), "the end is not lost");
        append(&log, 1, 10);
        log.flush().await.expect("a healthy disk");
        assert_eq!(log.durable_end(), offset(301));
    });
}

#[test]
fn a_wall_clock_that_jumps_ahead_expires_nothing() {
    let (simulation, node) = world(39);
    let handle = (*simulation).clone();
    run(&simulation, node, async move {
        let hour = Duration::from_secs(3600);
        let options = LogOptions { retention_age: Some(hour), ..small_options() };
        let storage = storage();
        let log = Log::create(&storage, &directory_path(), partition(), options).await.expect("a new log");
        for _ in 0..150 {
            append_bytes(&log, &batch(1, 1000, 1, wall_clock().millis(), None)).expect("room");
        }
        log.flush().await.expect("a healthy disk");
        handle.jump_wall_clock(node, 365 * 24 * 3_600_000);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(log.enforce_retention().await.expect("works"), 0);
        assert_eq!((log.log_start(), log.segment_count()), (offset(0), 3));
        // They do age, by the time that passes.
        sleep(hour).await;
        log.enforce_retention().await.expect("works");
        log.enforce_retention().await.expect("works");
        assert_eq!(log.log_start(), offset(150));
    });
}

#[test]
fn deleted_records_stay_deleted() {
    let (simulation, node) = world(32);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        for _ in 0..10 {
            append(&log, 3, 100);
        }
        log.flush().await.expect("a healthy disk");
        assert_eq!(log.delete_records(offset(17)).await.expect("works"), offset(17));
        assert_eq!(log.delete_records(offset(5)).await.expect("works"), offset(17));
        let error = log.delete_records(offset(31)).await.expect_err("behind the end");
        assert!(matches!(error, DeleteRecordsError::OutOfRange { .. }));
        drop(log);
        let (log, _) = open(&storage).await;
        assert_eq!((log.log_start(), log.log_end()), (offset(17), offset(30)));
        assert!(matches!(log.read(offset(16), ALL).await, Err(ReadError::OutOfRange { .. })));
        assert_eq!(log.delete_records(offset(30)).await.expect("works"), offset(30));
    });
}

/// A call whose checkpoint failed left the log start moved, and the next call took that for an answer: a power cut brought
/// the records back. Now only a start that a checkpoint holds is an answer.
#[test]
fn records_are_deleted_durably_or_not_at_all() {
    for seed in 0..20 {
        let (simulation, node) = world(seed);
        let handle = (*simulation).clone();
        run(&simulation, node, async move {
            let storage = storage();
            let log = create(&storage).await;
            for _ in 0..10 {
                append(&log, 3, 100);
            }
            log.flush().await.expect("a healthy disk");
            sleep(Duration::from_secs(1)).await;
            handle.fail_next(node, DiskFault::WriteError, "/log/checkpoint");
            assert!(log.delete_records(offset(17)).await.is_err());
            assert_eq!(log.delete_records(offset(17)).await.expect("works"), offset(17));
        });
        simulation.power_cut(node, PowerCut::OldOrNew);
        simulation.restart(node);
        run(&simulation, node, async move {
            let (log, _) = open(&storage()).await;
            assert_eq!((log.log_start(), log.log_end()), (offset(17), offset(30)), "seed {seed}");
        });
    }
}

#[test]
fn a_segment_that_is_read_is_unlinked_after_the_read() {
    let (simulation, node) = world(33);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        for _ in 0..150 {
            append(&log, 1, 1000);
        }
        log.flush().await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        let located = log.0.locate(offset(3)).await.expect("it is there").expect("nothing changes meanwhile");
        let deleting = {
            let log = log.clone();
            crate::runtime::spawn(
                crate::runtime::Class::Background,
                async move { log.delete_records(offset(140)).await },
            )
        };
        sleep(Duration::from_secs(1)).await;
        assert!(names().await.contains(&"0000000001.log".to_owned()), "somebody reads it");
        assert_eq!(log.log_start(), offset(140), "the records are gone at once");
        drop(located);
        deleting.await.expect("works");
        assert!(!names().await.contains(&"0000000001.log".to_owned()));
    });
}

#[test]
fn a_segment_ends_by_age() {
    let (simulation, node) = world(34);
    run(&simulation, node, async {
        let storage = storage();
        let options = LogOptions { segment_age: Duration::from_secs(10), ..small_options() };
        let (log, _) = open_at(&storage, &directory_path(), options).await;
        append(&log, 1, 10);
        sleep(Duration::from_secs(9)).await;
        append(&log, 1, 10);
        assert_eq!(log.segment_count(), 1);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(log.segment_count(), 1, "no batch, no roll");
        append(&log, 1, 10);
        assert_eq!(log.segment_count(), 2);
        log.flush().await.expect("a healthy disk");
    });
}

#[test]
fn space_is_zeroed_ahead_and_the_next_segment_is_ready() {
    let (simulation, node) = world(35);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        sleep(Duration::from_secs(1)).await;
        assert!(names().await.contains(&"0000000001.log".to_owned()), "the first segment is prepared");
        for _ in 0..300 {
            append(&log, 1, 700);
            log.flush().await.expect("a healthy disk");
            sleep(Duration::from_millis(20)).await;
        }
        let counters = storage.metrics();
        assert!(counters.rolls.get() >= 3 && counters.prewritten_bytes.get() > 0);
        assert_eq!(counters.unprepared_rolls.get(), 0, "every segment was ready in time");
        assert_eq!(counters.unprepared_commits.get(), 0, "no commit had to extend its file");
        log.close().await.expect("closed");
    });
}

#[test]
fn sealed_segments_are_cut_to_their_length() {
    let (simulation, node) = world(36);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        for _ in 0..80 {
            append(&log, 1, 1000);
        }
        log.flush().await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        assert!(names().await.contains(&"0000000001.seal".to_owned()));
        let file = File::open(&format::segment_path(&directory_path(), 1), OpenMode::Read).await.expect("it is there");
        assert!(file.length().await.expect("works") <= (64 << 10) + 8192);
    });
}

#[test]
fn checkpoints_come_by_bytes_and_by_time() {
    let (simulation, node) = world(37);
    run(&simulation, node, async {
        let storage = storage();
        let options =
            LogOptions { checkpoint_bytes: 10_000, checkpoint_interval: Duration::from_secs(5), ..small_options() };
        let (log, _) = open_at(&storage, &directory_path(), options).await;
        let written = || storage.metrics().checkpoints.get();
        let made = written();
        append(&log, 1, 100);
        log.checkpoint_if_due().await.expect("works");
        assert_eq!(written(), made, "not yet");
        append(&log, 1, 12_000);
        log.checkpoint_if_due().await.expect("works");
        assert_eq!(written(), made + 1, "by bytes");
        append(&log, 1, 100);
        sleep(Duration::from_secs(6)).await;
        log.checkpoint_if_due().await.expect("works");
        assert_eq!(written(), made + 2, "by time");
        sleep(Duration::from_secs(60)).await;
        log.checkpoint_if_due().await.expect("works");
        assert_eq!(written(), made + 2, "an idle log is left alone");
        drop(log);
        let (_, report) = open(&storage).await;
        assert_eq!(report.batches_scanned, 0);
    });
}

/// The directories of the logs whose checkpoint is due at `now`, looked at as upkeep does.
async fn look_at_due(storage: &Storage, now: Instant) -> Vec<PathBuf> {
    let mut visited = Vec::new();
    while let Some(log) = storage.take_checkpoint_due(now) {
        log.checkpoint_if_due().await.expect("works");
        visited.push(log.directory().to_path_buf());
    }
    visited
}

#[test]
fn only_logs_that_were_written_to_are_visited_for_checkpoints() {
    let (simulation, node) = world(40);
    run(&simulation, node, async {
        let storage = storage();
        let options = LogOptions { checkpoint_bytes: 20_000, ..small_options() };
        let interval = options.checkpoint_interval;
        let mut logs = Vec::new();
        for number in 0..100 {
            let path = PathBuf::from(format!("/log{number}"));
            logs.push(Log::create(&storage, &path, partition(), options.clone()).await.expect("a new log"));
        }
        sleep(interval).await;
        assert_eq!(look_at_due(&storage, Instant::now()).await, Vec::<PathBuf>::new(), "all are idle");

        // By time, once for any number of appends.
        for _ in 0..10 {
            append(&logs[7], 1, 100);
        }
        append(&logs[3], 1, 100);
        logs[3].flush().await.expect("a healthy disk");
        assert_eq!(storage.checkpoints_waiting(), 2);
        sleep(interval).await;
        let mut visited = look_at_due(&storage, Instant::now()).await;
        visited.sort();
        assert_eq!(visited, [PathBuf::from("/log3"), PathBuf::from("/log7")]);
        assert_eq!(storage.checkpoints_waiting(), 0);

        // By bytes, long before the time.
        append(&logs[5], 1, 100);
        sleep(interval).await;
        look_at_due(&storage, Instant::now()).await;
        append(&logs[5], 1, 10_000);
        assert_eq!(look_at_due(&storage, Instant::now()).await, Vec::<PathBuf>::new());
        append(&logs[5], 1, 10_000);
        let written = storage.metrics().checkpoints.get();
        assert_eq!(look_at_due(&storage, Instant::now()).await, [PathBuf::from("/log5")]);
        assert!(storage.metrics().checkpoints.get() > written);

        // A log that is gone waits for nothing.
        append(&logs[9], 1, 100);
        logs[9].flush().await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(storage.checkpoints_waiting(), 1);
        logs.remove(9).close().await.expect("closed");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(storage.checkpoints_waiting(), 0);
    });
}

#[test]
fn a_checkpoint_that_fails_is_tried_again() {
    let (simulation, node) = world(41);
    let handle = (*simulation).clone();
    run(&simulation, node, async move {
        let storage = storage();
        let log = create(&storage).await;
        append(&log, 1, 100);
        log.flush().await.expect("a healthy disk");
        sleep(log.options().checkpoint_interval).await;
        handle.fail_next(node, DiskFault::WriteError, "/log/checkpoint");
        let due = storage.take_checkpoint_due(Instant::now()).expect("it is due");
        assert!(due.checkpoint_if_due().await.is_err());
        assert!(storage.take_checkpoint_due(Instant::now()).is_none(), "it rests first");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(look_at_due(&storage, Instant::now()).await, [directory_path()]);
        assert_eq!(storage.checkpoints_waiting(), 0);
    });
}
