//! A test per row of the table: the state is made on the simulated disk, opened, and what the log holds then is compared.

use std::path::PathBuf;

use super::super::checkpoint::Checkpoint;
use super::super::format::{SegmentHeader, checkpoint_path, segment_path};
use super::super::tests::*;
use super::super::*;
use crate::runtime::sim::{NodeId, Simulation};
use crate::runtime::{Duration, File, OpenMode, directory, sleep};
use crate::types::limits::{BLOCK_BYTES, SECTOR_BYTES};

/// A log with some batches, as it lies on disk after its process was killed.
struct Scene {
    simulation: Simulation,
    node: NodeId,
    /// The bytes of the batches.
    held: Vec<u8>,
    /// Offset and position of each batch, and of the end, in the last segment.
    places: Vec<(i64, u64)>,
    segment: u64,
}

fn segment_file(sequence: u64) -> PathBuf {
    segment_path(&directory_path(), sequence)
}

/// `batches` batches of one record of `value_bytes` bytes, everything durable, not closed.
fn scene(batches: usize, value_bytes: usize) -> Scene {
    let (simulation, node) = world(9);
    let (held, places, segment) = run(&simulation, node, async move {
        let storage = storage();
        let log = create(&storage).await;
        let mut places = Vec::new();
        for _ in 0..batches {
            let appended = append(&log, 1, value_bytes);
            let state = log.0.state.borrow();
            let bytes = log.read_tail(appended.base_offset, ReadLimits { bytes_max: 1, ..ALL }).expect("there").bytes;
            places.push((
                appended.base_offset.value(),
                state.accepted.position - bytes as u64,
                state.accepted.sequence,
            ));
        }
        log.flush().await.expect("a healthy disk");
        let end = log.0.state.borrow().accepted;
        places.push((end.offset.value(), end.position, end.sequence));
        // Whatever runs in the background comes to its end.
        sleep(Duration::from_secs(1)).await;
        (read_all(&log).await, places, end.sequence)
    });
    simulation.kill(node);
    simulation.restart(node);
    let places = places.into_iter().filter(|place| place.2 == segment).map(|place| (place.0, place.1)).collect();
    Scene { simulation, node, held, places, segment }
}

impl Scene {
    fn run<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> T {
        run(&self.simulation, self.node, task)
    }

    fn corrupt(&self, path: PathBuf, position: u64, bytes: &[u8]) {
        self.simulation.corrupt(self.node, &path, position, bytes).expect("the file is there");
    }

    /// Zeros the part of a batch that lies in the sector around `position`, as if the write had not reached that sector.
    fn lose_sector(&self, batch: usize, position: u64) {
        let (start, end) = (self.places[batch].1, self.places[batch + 1].1);
        let sector = position - position % SECTOR_BYTES as u64;
        let (from, to) = (sector.max(start), (sector + SECTOR_BYTES as u64).min(end));
        self.corrupt(segment_file(self.segment), from, &vec![0; (to - from) as usize]);
    }

    /// Opens the log: it holds the first `held` bytes, and goes on.
    fn opens_with(self, case: RecoveryCase, held: usize) -> RecoveryReport {
        let expected = self.held[..held].to_vec();
        let report = self.run(async move {
            let storage = storage();
            let (log, report) = open(&storage).await;
            assert!(report.hits(case) > 0, "{case}: {report:?}");
            assert!(read_all(&log).await == expected, "{case}: {report:?}");
            assert_eq!(log.committed_end(), log.log_end());
            append(&log, 1, 100);
            log.flush().await.expect("it goes on");
            let grown = read_all(&log).await;
            log.close().await.expect("closed");
            let (log, report_again) = open(&storage).await;
            assert!(report_again.was_clean() && read_all(&log).await == grown, "{case}: {report_again:?}");
            report
        });
        assert!(!case.is_corruption());
        report
    }

    /// Opening the log is refused, and nothing on disk changes.
    fn refused(self, case: RecoveryCase) -> Corruption {
        let path = segment_file(self.segment);
        let before = self.simulation.peek(self.node, &path).ok();
        let corruption = self.run(async move {
            let storage = storage();
            let opened = Log::open(&storage, &directory_path(), partition(), small_options()).await;
            assert_eq!(storage.metrics().corruptions.get(), 1);
            match opened {
                Err(OpenError::Corrupt { case: found, corruption }) => {
                    assert_eq!(found, case, "{corruption}");
                    corruption
                }
                Err(error) => panic!("{case}: {error}"),
                Ok((_, report)) => panic!("{case}: opened {report:?}"),
            }
        });
        assert!(case.is_corruption());
        assert_eq!(self.simulation.peek(self.node, &path).ok(), before);
        corruption
    }

    fn batch_bytes(&self) -> usize {
        (self.places[1].1 - self.places[0].1) as usize
    }
}

#[test]
fn clean() {
    let (simulation, node) = world(9);
    run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        append(&log, 5, 100);
        log.close().await.expect("closed");
        let (log, report) = open(&storage).await;
        assert_eq!(report.cases().collect::<Vec<_>>(), [RecoveryCase::Clean]);
        assert_eq!((log.log_end(), report.bytes_scanned), (offset(5), 0));
    });
}

#[test]
fn a_clean_checkpoint_is_taken_back_before_the_next_write() {
    let scene = {
        let (simulation, node) = world(9);
        let held = run(&simulation, node, async {
            let storage = storage();
            let log = create(&storage).await;
            append(&log, 1, 100);
            log.close().await.expect("closed");
            let (log, _) = open(&storage).await;
            append(&log, 1, 100);
            log.flush().await.expect("a healthy disk");
            read_all(&log).await
        });
        simulation.kill(node);
        simulation.restart(node);
        Scene { simulation, node, held, places: Vec::new(), segment: 1 }
    };
    let held = scene.held.len();
    let report = scene.opens_with(RecoveryCase::NewBatches, held);
    assert!(!report.was_clean());
}

#[test]
fn never_written() {
    let (simulation, node) = world(9);
    run(&simulation, node, async {
        let storage = storage();
        let (log, report) = open(&storage).await;
        assert_eq!(report.cases().collect::<Vec<_>>(), [RecoveryCase::NeverWritten]);
        drop(log);
    });
    // The first checkpoint goes to slot 1. Torn, and with the prepared segment there, the log is made anew.
    simulation.run_for(Duration::from_secs(1)).expect("time passes");
    simulation.kill(node);
    simulation.restart(node);
    simulation.flip_bit(node, &checkpoint_path(&directory_path(), 1), 30, 2).expect("it is there");
    assert!(simulation.peek(node, &segment_file(1)).is_ok(), "the first segment is prepared");
    run(&simulation, node, async {
        let storage = storage();
        let (log, report) = open(&storage).await;
        assert_eq!(report.cases().collect::<Vec<_>>(), [RecoveryCase::NeverWritten]);
        append(&log, 1, 100);
        log.flush().await.expect("it goes on");
    });
}

#[test]
fn slot_unusable() {
    let scene = scene(3, 100);
    scene.run(async {
        let storage = storage();
        let (log, _) = open(&storage).await;
        log.close().await.expect("closed");
    });
    // Both slots are written; the newest one, whatever it is, is damaged.
    let newest = [0, 1].into_iter().max_by_key(|&slot| {
        let bytes = scene.simulation.peek(scene.node, &checkpoint_path(&directory_path(), slot)).expect("it is there");
        let limits = super::producer_limits(&small_options());
        Checkpoint::decode(&bytes, limits, Duration::ZERO).expect("it is whole").generation
    });
    let path = checkpoint_path(&directory_path(), newest.expect("two slots"));
    scene.simulation.flip_bit(scene.node, &path, 40, 0).expect("it is there");
    let held = scene.held.len();
    let report = scene.opens_with(RecoveryCase::SlotUnusable, held);
    assert!(!report.was_clean(), "what remains is not believed to be clean");
}

#[test]
fn checkpoint_lost() {
    let scene = scene(3, 100);
    scene.simulation.flip_bit(scene.node, &checkpoint_path(&directory_path(), 1), 40, 0).expect("it is there");
    scene.refused(RecoveryCase::CheckpointLost);
}

#[test]
fn unfinished_file() {
    let scene = scene(3, 100);
    scene.run(async {
        File::open(&directory_path().join("0000000002.new"), OpenMode::Create).await.expect("created");
        File::open(&directory_path().join("0000000001.seal.new"), OpenMode::Create).await.expect("created");
    });
    let held = scene.held.len();
    let report = scene.opens_with(RecoveryCase::UnfinishedFile, held);
    assert_eq!(report.hits(RecoveryCase::UnfinishedFile), 2);
}

#[test]
fn unused_space() {
    // More than half of the segment is full: the next one is ready.
    let scene = scene(40, 1000);
    assert!(scene.simulation.peek(scene.node, &segment_file(2)).is_ok());
    // Its first write was torn: the batches came, the header did not.
    scene.corrupt(segment_file(2), 8192, &[7; 600]);
    let held = scene.held.len();
    scene.opens_with(RecoveryCase::UnusedSpace, held);
}

#[test]
fn retired_segment() {
    let (simulation, node) = world(9);
    let held = run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        for _ in 0..150 {
            append(&log, 1, 1000);
        }
        log.flush().await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        let first = segment_file(1);
        let copy = directory::read(&first, 1 << 20).await.expect("it is there");
        log.delete_records(offset(120)).await.expect("a healthy disk");
        assert!(File::open(&first, OpenMode::Read).await.is_err(), "it was removed");
        // As if the crash had come before the removal.
        directory::replace(&first, &copy).await.expect("written");
        read_all(&log).await
    });
    simulation.kill(node);
    simulation.restart(node);
    let scene = Scene { simulation, node, held, places: Vec::new(), segment: 1 };
    let bytes = scene.held.len();
    scene.opens_with(RecoveryCase::RetiredSegment, bytes);
}

/// A log of three segments with a checkpoint in the last one.
fn sealed_scene() -> Scene {
    let (simulation, node) = world(9);
    let held = run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        for _ in 0..150 {
            append(&log, 1, 1000);
        }
        sleep(Duration::from_secs(1)).await;
        log.0.checkpoint(false).await.expect("a healthy disk");
        read_all(&log).await
    });
    simulation.kill(node);
    simulation.restart(node);
    Scene { simulation, node, held, places: Vec::new(), segment: 1 }
}

#[test]
fn seal_missing() {
    let scene = sealed_scene();
    scene.run(async { directory::remove_file(&directory_path().join("0000000001.seal")).await.expect("it is there") });
    let held = scene.held.len();
    let report = scene.opens_with(RecoveryCase::SealMissing, held);
    assert_eq!(report.hits(RecoveryCase::SealMissing), 1);
}

#[test]
fn segment_missing() {
    let scene = sealed_scene();
    scene.run(async { directory::remove_file(&segment_file(2)).await.expect("it is there") });
    scene.refused(RecoveryCase::SegmentMissing);
}

#[test]
fn header_damaged() {
    let scene = scene(3, 100);
    scene.simulation.flip_bit(scene.node, &segment_file(1), 50, 1).expect("it is there");
    let corruption = scene.refused(RecoveryCase::HeaderDamaged);
    assert_eq!((corruption.file, corruption.position), (segment_file(1), 0));
}

#[test]
fn a_segment_of_another_partition_is_refused() {
    let scene = scene(3, 100);
    let mut foreign = small_options().segment_header(partition(), 1, EPOCH, time(5));
    foreign.partition.partition = crate::types::PartitionId::new(4).expect("not negative");
    scene.corrupt(segment_file(1), 0, &foreign.encode());
    scene.refused(RecoveryCase::HeaderDamaged);
}

#[test]
fn no_new_batches() {
    let (simulation, node) = world(9);
    let held = run(&simulation, node, async {
        let storage = storage();
        let log = create(&storage).await;
        append(&log, 5, 100);
        log.0.checkpoint(false).await.expect("a healthy disk");
        read_all(&log).await
    });
    simulation.kill(node);
    simulation.restart(node);
    let scene = Scene { simulation, node, held, places: Vec::new(), segment: 1 };
    let bytes = scene.held.len();
    let report = scene.opens_with(RecoveryCase::NoNewBatches, bytes);
    assert_eq!((report.batches_scanned, report.bytes_rewritten), (0, 0));
}

#[test]
fn new_batches() {
    let scene = scene(3, 100);
    let held = scene.held.len();
    let report = scene.opens_with(RecoveryCase::NewBatches, held);
    let from_the_header = format::FIRST_BATCH_AT + held as u64;
    assert_eq!((report.batches_scanned, report.bytes_rewritten), (3, from_the_header));
    assert_eq!(report.stale_bytes, 0);
}

#[test]
fn rolled_on() {
    let scene = scene(150, 1000);
    assert_eq!(scene.segment, 3);
    let held = scene.held.len();
    let report = scene.opens_with(RecoveryCase::RolledOn, held);
    assert_eq!(report.hits(RecoveryCase::RolledOn), 2);
}

#[test]
fn torn_header() {
    // The header of a batch lies across two sectors; the second one is missing.
    let scene = scene(40, 500);
    let across = (0..40).find(|&batch| {
        let sector = scene.places[batch].1 % SECTOR_BYTES as u64;
        (SECTOR_BYTES as u64 - 60..SECTOR_BYTES as u64 - 20).contains(&sector)
    });
    let batch = across.expect("one of them does");
    let start = scene.places[batch].1;
    scene.lose_sector(batch, start + 61);
    let held = batch * scene.batch_bytes();
    let report = scene.opens_with(RecoveryCase::TornHeader, held);
    assert!(report.stale_bytes > 0);
}

#[test]
fn torn_batch() {
    let scene = scene(5, 2000);
    let start = scene.places[3].1;
    scene.lose_sector(3, start + 1000);
    let held = 3 * scene.batch_bytes();
    let report = scene.opens_with(RecoveryCase::TornBatch, held);
    assert_eq!(report.batches_scanned, 3);
}

#[test]
fn torn_front() {
    let scene = scene(5, 2000);
    let (start, end) = (scene.places[3].1, scene.places[4].1);
    scene.corrupt(segment_file(1), start, &vec![0; (end - start) as usize]);
    let held = 3 * scene.batch_bytes();
    scene.opens_with(RecoveryCase::TornFront, held);
}

#[test]
fn damaged_batch() {
    // The last batch but one has lost a bit, close to the end: no power cut does that.
    let scene = scene(5, 2000);
    let at = scene.places[3].1;
    scene.simulation.flip_bit(scene.node, &segment_file(1), at + 700, 3).expect("it is there");
    let corruption = scene.refused(RecoveryCase::DamagedBatch);
    assert_eq!((&corruption.file, corruption.position), (&segment_file(1), at));
    assert!(corruption.expected.contains("offset 3"), "{corruption}");
}

#[test]
fn a_batch_with_another_offset_is_damage() {
    let scene = scene(5, 2000);
    let at = scene.places[2].1;
    scene.corrupt(segment_file(1), at, &9i64.to_be_bytes());
    scene.refused(RecoveryCase::DamagedBatch);
}

#[test]
fn beyond_window() {
    // A sector is missing, as after a torn write, but more follows than a write can hold.
    let (simulation, node) = world(9);
    let at = run(&simulation, node, async {
        let storage = storage();
        let options = LogOptions { segment_bytes: 1 << 20, ..small_options() };
        let log = Log::create(&storage, &directory_path(), partition(), options).await.expect("a new log");
        for _ in 0..100 {
            append(&log, 1, 1000);
        }
        log.flush().await.expect("a healthy disk");
        log.0.state.borrow().accepted.position - 90_000
    });
    simulation.kill(node);
    simulation.restart(node);
    let sector = at - at % SECTOR_BYTES as u64;
    simulation.corrupt(node, &segment_file(1), sector, &[0; SECTOR_BYTES]).expect("it is there");
    let scene = Scene { simulation, node, held: Vec::new(), places: Vec::new(), segment: 1 };
    scene.refused(RecoveryCase::BeyondWindow);
}

#[test]
fn bad_before_next() {
    let scene = scene(150, 1000);
    let first = scene.simulation.peek(scene.node, &segment_file(1)).expect("it is there");
    let last = first.iter().rposition(|&byte| byte != 0).expect("it is not empty") as u64;
    scene.simulation.flip_bit(scene.node, &segment_file(1), last, 0).expect("it is there");
    scene.refused(RecoveryCase::BadBeforeNext);
}

#[test]
fn segments_apart() {
    let scene = scene(150, 1000);
    let block = scene.simulation.peek(scene.node, &segment_file(2)).expect("it is there");
    let header = SegmentHeader::decode(&block[..BLOCK_BYTES]).expect("a header");
    let moved = SegmentHeader { base_offset: header.base_offset.next(), ..header };
    scene.corrupt(segment_file(2), 0, &moved.encode());
    scene.refused(RecoveryCase::SegmentsApart);
}
