//! Reads and look-ups: from the buffers, from disk, by time; idempotence across restarts.
//!
//! Every answer is compared with what was appended, byte for byte.

use super::*;
use crate::runtime::{Duration, sleep};

#[test]
fn buffers_are_released_within_the_budget_and_the_disk_takes_over() {
    let (simulation, node) = world(21);
    run(&simulation, node, async {
        let options = StorageOptions { free_bytes_min: 0, tail_bytes_max: 128 << 10, ..StorageOptions::default() };
        let storage = Storage::new(options);
        let log = create(&storage).await;
        let mut stored = Vec::new();
        for number in 0..400u32 {
            let bytes = batch(1 + number % 3, 900, (number % 251) as u8, 1, None);
            loop {
                match append_bytes(&log, &bytes) {
                    Ok(appended) => {
                        let read =
                            log.read_tail(appended.base_offset, ReadLimits { bytes_max: 1, ..ALL }).expect("there");
                        stored.push((appended, joined(&read)));
                        break;
                    }
                    Err(AppendError::Backpressure) => sleep(Duration::from_millis(1)).await,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(storage.tail_bytes() <= (128 << 10) + 3 * 4096);
        }
        log.flush().await.expect("a healthy disk");
        assert!(log.read_tail(offset(0), ALL).is_none(), "the oldest are not in memory any more");
        for (appended, bytes) in &stored {
            for at in [appended.base_offset, appended.last_offset] {
                let read = log.read(at, ReadLimits { bytes_max: 1, ..ALL }).await.expect("good batches");
                assert!(joined(&read) == *bytes, "{at}");
                assert_eq!(read.end, appended.end);
                let nothing = ReadLimits { bytes_max: 1, first_batch_whole: false, ..ALL };
                assert_eq!(log.read(at, nothing).await.expect("good batches").end, at);
                let limit = ReadLimits { end: appended.last_offset, ..ALL };
                assert!(log.read(at, limit).await.expect("good batches").is_empty());
            }
        }
        let all: Vec<u8> = stored.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(read_all(&log).await == all);
        log.close().await.expect("closed");
        assert_eq!(storage.tail_bytes(), 0);
    });
}

#[test]
fn a_stalled_disk_pushes_back() {
    let (simulation, node) = world(22);
    run(&simulation, node, async {
        let options = StorageOptions { free_bytes_min: 0, tail_bytes_max: 256 << 10, ..StorageOptions::default() };
        let storage = Storage::new(options);
        let log = create(&storage).await;
        let bytes = batch(1, 9000, 1, 1, None);
        // Nothing runs between the calls, so nothing reaches the disk.
        let accepted = (0..100).take_while(|_| append_bytes(&log, &bytes).is_ok()).count();
        assert!((5..30).contains(&accepted), "{accepted}");
        assert_eq!(append_bytes(&log, &bytes), Err(AppendError::Backpressure));
        log.flush().await.expect("a healthy disk");
        append_bytes(&log, &bytes).expect("there is room again");
        log.close().await.expect("closed");
    });
}

#[test]
fn a_batch_that_cannot_fit_is_refused() {
    let (simulation, node) = world(23);
    run(&simulation, node, async {
        let log = create(&storage()).await;
        let error = append_bytes(&log, &batch(1, 70_000, 1, 1, None)).expect_err("longer than a segment");
        assert!(matches!(error, AppendError::TooLarge { .. }));
        // A larger limit is in force from the next segment on, which the batch begins.
        log.set_options(LogOptions { append_write_bytes_max: 1 << 20, segment_bytes: 1 << 20, ..small_options() });
        append(&log, 1, 10);
        append(&log, 1, 70_000);
        assert_eq!(log.segment_count(), 2);
        log.flush().await.expect("a healthy disk");
        let read = log.read(offset(1), ALL).await.expect("good");
        assert!(read.bytes > 70_000);
    });
}

#[test]
fn offsets_are_found_by_time() {
    let (simulation, node) = world(24);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        // Ten records per batch, a second apart, over several segments; one batch is late.
        for number in 0..100i64 {
            let at = if number == 50 { 1000 } else { 100_000 + number * 10_000 };
            append_bytes(&log, &batch(10, 300, 1, at, None)).expect("room");
        }
        log.flush().await.expect("a healthy disk");
        assert!(log.segment_count() > 3);
        let end = log.committed_end();
        let find = async |at| {
            log.offset_for_timestamp(time(at), end)
                .await
                .expect("good")
                .map(|it| (it.offset.value(), it.timestamp.millis()))
        };
        assert_eq!(find(0).await, Some((0, 100_000)));
        assert_eq!(find(100_005).await, Some((5, 100_005)));
        assert_eq!(find(100_010).await, Some((10, 110_000)));
        assert_eq!(find(100_000 + 77 * 10_000 + 3).await, Some((773, 870_003)));
        assert_eq!(find(600_000).await, Some((510, 610_000)), "the late batch is passed over");
        assert_eq!(find(100_000 + 99 * 10_000 + 9).await, Some((999, 1_090_009)));
        assert_eq!(find(2_000_000).await, None);
        let max = log.max_timestamp(end).await.expect("good").expect("records");
        assert_eq!((max.offset, max.timestamp, max.leader_epoch), (offset(999), time(1_090_009), Some(EPOCH)));
        let max = log.max_timestamp(offset(735)).await.expect("good").expect("records");
        assert_eq!((max.offset, max.timestamp), (offset(734), time(100_000 + 73 * 10_000 + 4)));
        let bounded = log.offset_for_timestamp(time(900_000), offset(700)).await.expect("good");
        assert_eq!(bounded, None);

        log.delete_records(offset(105)).await.expect("a healthy disk");
        let first = log.offset_for_timestamp(time(0), end).await.expect("good").expect("records");
        assert_eq!((first.offset, first.timestamp), (offset(105), time(200_005)));
    });
}

#[test]
fn a_producer_is_known_again_after_a_restart() {
    let (simulation, node) = world(25);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        let send =
            |log: &Log, sequence, epoch| append_bytes(log, &batch(3, 100, 1, 1, Some(producer(9, epoch, sequence))));
        let first = send(&log, 0, 0).expect("room");
        let again = send(&log, 0, 0).expect("a duplicate is answered");
        assert_eq!((again.base_offset, again.end, again.duplicate), (first.base_offset, first.end, true));
        assert_eq!((first.log_append_time, again.log_append_time), (None, Some(time(3))), "its largest timestamp");
        assert!(matches!(send(&log, 7, 0), Err(AppendError::Sequence(_))));
        send(&log, 3, 0).expect("it follows");
        log.flush().await.expect("a healthy disk");

        // A kill: the state comes from the scan. A close: from the checkpoint.
        drop(log);
        let (log, report) = open(&storage).await;
        assert!(!report.was_clean());
        assert!(send(&log, 3, 0).expect("a duplicate").duplicate);
        assert!(!send(&log, 6, 0).expect("it follows").duplicate);
        log.close().await.expect("closed");
        let (log, report) = open(&storage).await;
        assert!(report.was_clean());
        assert!(send(&log, 6, 0).expect("a duplicate").duplicate);
        send(&log, 0, 1).expect("a new epoch starts at 0");
        assert!(matches!(send(&log, 9, 0), Err(AppendError::Sequence(_))), "the old epoch is fenced");
        assert_eq!(log.log_end(), offset(12));
    });
}

#[test]
fn write_caching_is_switched_on_and_off_at_run_time() {
    let (simulation, node) = world(26);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        append(&log, 1, 100);
        log.flush().await.expect("a healthy disk");
        let caching = LogOptions { write_caching: true, flush_interval: Duration::from_millis(50), ..small_options() };
        log.set_options(caching.clone());
        append(&log, 1, 100);
        assert_eq!(log.segment_count(), 2, "a segment is for caching from its start");
        sleep(Duration::from_millis(20)).await;
        assert_eq!((log.committed_end(), log.durable_end()), (offset(2), offset(1)), "written is enough");
        sleep(Duration::from_millis(60)).await;
        assert_eq!(log.durable_end(), offset(2), "the flush came in time");
        append(&log, 1, 100);
        sleep(Duration::from_millis(5)).await;
        assert_eq!((log.committed_end(), log.durable_end()), (offset(3), offset(2)));
        log.set_options(small_options());
        sleep(Duration::from_millis(20)).await;
        assert_eq!(log.durable_end(), offset(3), "what was only written is synced first");
        append(&log, 1, 100);
        log.flush().await.expect("a healthy disk");
        log.set_options(caching);
        append(&log, 1, 100);
        assert_eq!(log.segment_count(), 2, "this one was begun for caching");
        sleep(Duration::from_millis(5)).await;
        assert_eq!((log.committed_end(), log.durable_end()), (offset(5), offset(4)), "written is enough again");
        log.close().await.expect("closed");
    });
}
