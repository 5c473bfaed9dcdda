//! Disks that fail: a write or sync that does not work, a full disk, damage, garbage in what was being written.
//!
//! What is acknowledged afterwards is held to the same promise as before.

use std::cell::RefCell;

use super::*;
use crate::runtime::sim::{DiskFault, PowerCut};
use crate::runtime::{Duration, sleep, timeout};

/// What the paths of segments begin with, whatever they were opened by.
const SEGMENT: &str = "/log/00000";

type Events = Rc<RefCell<Vec<String>>>;

/// Notes what the log tells, but for the committed end.
fn listen(log: &Log) -> Events {
    let events = Events::default();
    let heard = events.clone();
    log.observe(move |event| match event {
        LogEvent::Committed { .. } => {}
        LogEvent::Started { log_start } => heard.borrow_mut().push(format!("started {log_start}")),
        LogEvent::Failed(failure) => heard.borrow_mut().push(format!("failed {}", failure.operation)),
        LogEvent::Recovered => heard.borrow_mut().push("recovered".to_owned()),
    });
    events
}

/// One failure of a write or sync is made good from memory: nobody hears of it but the counters.
fn a_failure_is_made_good(fault: DiskFault, caching: bool) {
    let (simulation, node) = world(11);
    let handle = (*simulation).clone();
    let held = run(&simulation, node, async move {
        let storage = storage();
        let options = LogOptions { write_caching: caching, ..small_options() };
        let log = Log::create(&storage, &directory_path(), partition(), options).await.expect("a new log");
        let events = listen(&log);
        append(&log, 3, 300);
        log.flush().await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        handle.fail_next(node, fault, SEGMENT);
        append(&log, 2, 3000);
        append(&log, 2, 3000);
        log.flush().await.expect("it is made good");
        sleep(Duration::from_millis(10)).await;
        assert_eq!(storage.metrics().failures.get(), 1);
        assert_eq!((log.durable_end(), log.committed_end()), (offset(7), offset(7)));
        assert_eq!(*events.borrow(), ["recovered"]);
        append(&log, 1, 100);
        log.flush().await.expect("it goes on");
        read_all(&log).await
    });
    simulation.power_cut(node, PowerCut::OldOrNew);
    simulation.restart(node);
    run(&simulation, node, async move {
        let (log, report) = open(&storage()).await;
        assert!(read_all(&log).await == held, "{report:?}");
    });
}

#[test]
fn a_failed_write_is_made_good_from_memory() {
    a_failure_is_made_good(DiskFault::WriteError, false);
}

#[test]
fn a_failed_write_is_made_good_with_write_caching() {
    a_failure_is_made_good(DiskFault::WriteError, true);
}

#[test]
fn a_failed_sync_is_made_good_from_memory() {
    a_failure_is_made_good(DiskFault::SyncError, true);
}

#[test]
fn a_log_that_cannot_be_made_good_is_closed_until_it_is_called() {
    let (simulation, node) = world(12);
    let handle = (*simulation).clone();
    run(&simulation, node, async move {
        let storage = storage();
        let log = create(&storage).await;
        let events = listen(&log);
        append(&log, 3, 300);
        log.flush().await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        handle.fail_next(node, DiskFault::WriteError, SEGMENT);
        handle.fail_next(node, DiskFault::WriteError, SEGMENT);
        append(&log, 2, 300);
        assert!(matches!(log.flush().await, Err(DurabilityError::Io(_))));
        assert_eq!(*events.borrow(), ["failed write"]);
        assert_eq!((log.committed_end(), log.log_end(), log.is_open()), (offset(3), offset(5), false));
        let bytes = batch(1, 10, 1, 1, None);
        assert_eq!(append_bytes(&log, &bytes), Err(AppendError::Closed));
        assert_eq!(storage.metrics().failed_logs.get(), 1);
        let committed = ReadLimits { end: log.committed_end(), ..ALL };
        assert_eq!(log.read(offset(0), committed).await.expect("what is durable stays readable").end, offset(3));

        log.recover();
        log.flush().await.expect("the disk works again");
        sleep(Duration::from_millis(10)).await;
        assert_eq!(*events.borrow(), ["failed write", "recovered"]);
        assert_eq!((log.committed_end(), log.is_open(), storage.metrics().failed_logs.get()), (offset(5), true, 0));
        assert_eq!(storage.metrics().appends.count(), 2, "the batch that was made good is timed too, once");
        append(&log, 1, 10);
        log.close().await.expect("closed");
        let (log, report) = open(&storage).await;
        assert!(report.was_clean() && log.log_end() == offset(6));
    });
}

#[test]
fn a_failed_log_closes_without_a_clean_checkpoint() {
    let (simulation, node) = world(13);
    let handle = (*simulation).clone();
    run(&simulation, node, async move {
        let storage = storage();
        let log = create(&storage).await;
        append(&log, 3, 300);
        log.flush().await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        handle.fail_next(node, DiskFault::WriteError, SEGMENT);
        handle.fail_next(node, DiskFault::WriteError, SEGMENT);
        append(&log, 2, 300);
        assert!(log.close().await.is_err());
        assert_eq!(storage.metrics().failed_logs.get(), 0, "it is closed for good, and no longer by the failure");
        let (log, report) = open(&storage).await;
        assert!(!report.was_clean() && log.log_end() >= offset(3), "{report:?}");
    });
}

/// Closing met a log between its last write and its sync, and the writer opened it again behind its back: it waited for ever.
/// Now what is closed stays closed.
#[test]
fn a_log_that_is_being_made_good_closes() {
    for micros in (0..1500).step_by(10) {
        let (simulation, node) = world(15);
        let handle = (*simulation).clone();
        let recovered = run(&simulation, node, async move {
            let storage = storage();
            let log = create(&storage).await;
            append(&log, 3, 300);
            log.flush().await.expect("a healthy disk");
            sleep(Duration::from_secs(1)).await;
            handle.fail_next(node, DiskFault::WriteError, SEGMENT);
            append(&log, 2, 300);
            sleep(Duration::from_micros(micros)).await;
            let closed = timeout(Duration::from_secs(30), log.close()).await;
            closed.expect("it ends").expect("it is made good first");
            let (log, _) = open(&storage).await;
            log.log_end()
        });
        assert_eq!(recovered, offset(5), "closed after {micros} us");
    }
}

#[test]
fn a_full_disk_closes_no_log() {
    let (simulation, node) = world(14);
    let handle = (*simulation).clone();
    simulation.set_disk_capacity(node, 400 << 10);
    run(&simulation, node, async move {
        let storage = storage();
        let log = create(&storage).await;
        let events = listen(&log);
        let mut refused = None;
        for _ in 0..200 {
            match append_bytes(&log, &batch(1, 4000, b'x', 1, None)) {
                Ok(_) => sleep(Duration::from_millis(20)).await,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        assert_eq!(refused, Some(AppendError::DiskFull));
        assert!(log.is_open() && log.committed_end() < log.log_end());
        let end = log.log_end();
        sleep(Duration::from_secs(5)).await;
        handle.set_disk_capacity(node, 64 << 20);
        log.flush().await.expect("there is room again");
        assert_eq!(log.committed_end(), end);
        let bytes = batch(1, 10, 1, 1, None);
        assert_eq!(append_bytes(&log, &bytes), Err(AppendError::DiskFull), "until somebody looks");
        storage.watch_disk(&directory_path()).await.expect("it is there");
        append_bytes(&log, &bytes).expect("there is room");
        assert!(events.borrow().is_empty() && storage.metrics().failures.get() == 0);
        log.close().await.expect("closed");
    });
}

#[test]
fn below_the_low_water_mark_appends_are_refused_and_retention_works() {
    let (simulation, node) = world(15);
    run(&simulation, node, async {
        let storage = Storage::new(StorageOptions { free_bytes_min: 2 << 30, ..StorageOptions::default() });
        let log = create(&storage).await;
        for _ in 0..150 {
            append(&log, 1, 1000);
        }
        log.flush().await.expect("a healthy disk");
        storage.watch_disk(&directory_path()).await.expect("it is there");
        assert_eq!(append_bytes(&log, &batch(1, 10, 1, 1, None)), Err(AppendError::DiskFull));
        assert_eq!(log.delete_records(offset(120)).await.expect("a healthy disk"), offset(120));
        assert!(log.segment_count() < 3);
    });
}

/// Drops the append buffers of a log, as far as they are durable.
fn forget_tail(log: &Log) {
    for _ in 0..100 {
        if let tail::Release::Freed(bytes) = log.0.release_tail_chunk() {
            log.0.storage.release_tail(bytes);
        }
    }
}

#[test]
fn a_damaged_batch_is_reported_and_the_rest_is_served() {
    let (simulation, node) = world(16);
    let handle = (*simulation).clone();
    run(&simulation, node, async move {
        let storage = storage();
        let log = create(&storage).await;
        for _ in 0..150 {
            append(&log, 1, 1000);
        }
        log.flush().await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        forget_tail(&log);
        let whole = read_all(&log).await;
        let length = whole.len() / 150;
        let position = format::FIRST_BATCH_AT + 20 * length as u64;
        let path = format::segment_path(&directory_path(), 1);
        handle.flip_bit(node, &path, position + 500, 4).expect("it is there");

        let before = log.read(offset(0), ALL).await.expect("the batches before it");
        assert_eq!(before.end, offset(20));
        match log.read(offset(20), ALL).await {
            Err(ReadError::Corrupt { corruption, resumes_at }) => {
                assert_eq!((corruption.file, corruption.position), (path, position));
                assert!(resumes_at.is_some_and(|at| at > offset(20) && at < offset(30)), "{resumes_at:?}");
            }
            other => panic!("{other:?}"),
        }
        for from in 21..150 {
            let batches = log.read(offset(from), ALL).await.expect("the batches behind it");
            assert!(joined(&batches) == whole[from as usize * length..batches.end.value() as usize * length]);
        }
        assert_eq!(storage.metrics().corruptions.get(), 1);
        assert!(log.is_open(), "a damaged batch closes no log");
    });
}

/// What a power cut turns to garbage, or makes unreadable, in what was being written is found, or was never acknowledged.
fn damage_under_write_is_never_silent(cut: PowerCut) {
    let (mut refused, mut opened) = (0, 0);
    for seed in 0..60 {
        let (simulation, node) = world(seed);
        let held = Rc::new(RefCell::new((Vec::new(), Offset::ZERO)));
        let noted = held.clone();
        simulation.power_cut_after(node, 20 + simulation.draw(40), cut);
        let life = simulation.start(node, SHARD, async move {
            let log = create(&storage()).await;
            loop {
                append(&log, 1, 700);
                log.flush().await.expect("a healthy disk");
                *noted.borrow_mut() = (read_all(&log).await, log.committed_end());
            }
        });
        let handle = (*simulation).clone();
        simulation.run_until(Duration::from_secs(60), || !handle.is_running(node)).expect("it is cut");
        drop(life);
        simulation.restart(node);
        let result = run(&simulation, node, async move {
            match Log::open(&storage(), &directory_path(), partition(), small_options()).await {
                Ok((log, _)) => Ok((log.log_end(), read_all(&log).await)),
                Err(error) => Err(error.to_string()),
            }
        });
        let held = held.borrow();
        match result {
            Ok((end, bytes)) => {
                opened += 1;
                assert!(end >= held.1 && bytes.starts_with(&held.0), "seed {seed}: {end} of {}", held.1);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0 && opened > 0, "{refused} refused, {opened} opened");
}

#[test]
fn garbage_under_a_write_is_never_silent() {
    damage_under_write_is_never_silent(PowerCut::Garbage);
}

#[test]
fn an_unreadable_sector_under_a_write_is_never_silent() {
    damage_under_write_is_never_silent(PowerCut::Unreadable);
}
