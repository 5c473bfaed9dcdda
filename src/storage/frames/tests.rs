//! The frame log on the simulated disk: order, durability through power cuts, full and failing disks, corruption, switches.

use core::time::Duration;

use super::file::SPACE_STEP_BYTES;
use super::format::scan;
use super::*;
use crate::runtime::directory;
use crate::runtime::sim::{DiskFault, Handle, NodeId, PowerCut, Simulation, SimulationOptions};
use crate::runtime::sleep;
use crate::types::ShardId;

const SHARD: ShardId = ShardId(0);
const DIRECTORY: &str = "/meta";
const FIRST: &str = "/meta/00000000000000000001.log";
const SECOND: &str = "/meta/00000000000000000002.log";

fn meta() -> &'static Path {
    Path::new(DIRECTORY)
}

/// A world with one node that has the directory.
fn world(seed: u64) -> (Simulation, NodeId) {
    let simulation = Simulation::new(seed, SimulationOptions::default());
    let node = simulation.add_node(1);
    on(&simulation, node, async {
        directory::create(meta()).await.unwrap();
        directory::sync(Path::new("/")).await.unwrap();
    });
    (simulation, node)
}

/// Runs on the node until it is done.
fn on<T: 'static>(simulation: &Simulation, node: NodeId, future: impl Future<Output = T> + 'static) -> T {
    simulation.run_on(node, SHARD, future).unwrap().expect("the process lives on")
}

fn restart(handle: &Handle, node: NodeId) {
    handle.kill(node);
    handle.restart(node);
}

async fn reopen() -> (FrameLog, Vec<Vec<u8>>) {
    let (log, replayed) = FrameLog::create(meta()).await.unwrap();
    let all = replayed.snapshot.iter().chain(&replayed.frames).map(|payload| payload.to_vec()).collect();
    (log, all)
}

fn numbered(count: u8) -> Vec<Vec<u8>> {
    (1..=count).map(|number| vec![number; usize::from(number) * 37]).collect()
}

#[test]
fn payloads_come_back_in_the_order_of_the_calls() {
    let (simulation, node) = world(1);
    for round in 0..3 {
        on(&simulation, node, async move {
            let (log, before) = reopen().await;
            assert_eq!(before, numbered(100 * round));
            let next = numbered(100 * (round + 1)).split_off(usize::from(100 * round));
            let appends: Vec<Append> = next.into_iter().map(|payload| log.append(payload)).collect();
            for append in appends {
                append.durable().await.unwrap();
            }
        });
        restart(&simulation, node);
        if round == 1 {
            break;
        }
    }
}

#[test]
fn what_arrives_during_a_write_is_one_write() {
    let (simulation, node) = world(2);
    on(&simulation, node, async {
        let (log, _) = reopen().await;
        for payload in numbered(50) {
            log.append(payload);
        }
        log.barrier().durable().await.unwrap();
    });
    let content = simulation.peek(node, Path::new(FIRST)).unwrap();
    let header = FileHeader::decode(&content).unwrap();
    let scan = scan(&content, &header).unwrap();
    assert_eq!(scan.frames.len(), 50);
    assert_eq!(scan.last_write, FRAMES_START, "all fifty were queued before the writer ran");
}

#[test]
fn the_observer_hears_before_those_who_wait() {
    let (simulation, node) = world(3);
    on(&simulation, node, async {
        let (log, _) = reopen().await;
        let durable = Rc::new(Cell::new(None));
        let seen = durable.clone();
        log.observe(move |event| match event {
            FrameEvent::Durable { end } => seen.set(Some(end)),
            other => panic!("{other:?}"),
        });
        for payload in numbered(5) {
            let append = log.append(payload);
            let ticket = append.ticket;
            append.durable().await.unwrap();
            assert!(durable.get() > Some(ticket));
        }
    });
}

/// A directory without a log is no empty log.
#[test]
fn a_missing_log_is_an_error() {
    let (simulation, node) = world(4);
    let result = on(&simulation, node, async { FrameLog::open(meta()).await.map(|_| ()) });
    assert!(matches!(result, Err(OpenError::Missing { .. })));
}

#[test]
fn a_full_disk_refuses_and_the_log_goes_on() {
    let (simulation, node) = world(5);
    let handle = simulation.clone();
    on(&simulation, node, async move {
        let (log, _) = reopen().await;
        log.append(vec![1]).durable().await.unwrap();
        let large = || vec![2; SPACE_STEP_BYTES];
        handle.fail_next(node, DiskFault::NoSpace, ".log");
        handle.fail_next(node, DiskFault::NoSpace, ".new");
        let (first, second) = (log.append(large()), log.append(vec![3]));
        assert!(matches!(first.durable().await, Err(AppendError::Full { .. })));
        assert!(matches!(second.durable().await, Err(AppendError::Full { .. })), "it may build on the first");
        log.append(vec![4]).durable().await.unwrap();
        log.append(large()).durable().await.unwrap();
    });
    restart(&simulation, node);
    on(&simulation, node, async {
        let (_, all) = reopen().await;
        assert_eq!(all.iter().map(|payload| payload[0]).collect::<Vec<u8>>(), [1, 4, 2]);
    });
}

#[test]
fn a_failed_write_closes_the_log_until_it_is_opened_again() {
    let (simulation, node) = world(6);
    let handle = simulation.clone();
    on(&simulation, node, async move {
        let (log, _) = reopen().await;
        log.append(vec![1]).durable().await.unwrap();
        handle.fail_next(node, DiskFault::WriteError, ".");
        let (first, second) = (log.append(vec![2]), log.append(vec![3]));
        assert!(matches!(first.durable().await, Err(AppendError::Closed { .. })));
        assert!(matches!(second.durable().await, Err(AppendError::Closed { .. })));
        assert!(matches!(log.append(vec![4]).durable().await, Err(AppendError::Closed { .. })));
    });
    restart(&simulation, node);
    on(&simulation, node, async {
        let (log, all) = reopen().await;
        assert_eq!(all[0], [1]);
        log.append(vec![5]).durable().await.unwrap();
    });
}

#[test]
fn a_failed_sync_closes_the_log() {
    let (simulation, node) = world(7);
    let handle = simulation.clone();
    on(&simulation, node, async move {
        let (log, _) = reopen().await;
        handle.fail_next(node, DiskFault::SyncError, ".");
        let append = log.append(vec![2; SPACE_STEP_BYTES]);
        assert!(matches!(append.durable().await, Err(AppendError::Closed { .. })));
    });
}

#[test]
fn a_payload_larger_than_a_frame_is_refused_alone() {
    let (simulation, node) = world(8);
    on(&simulation, node, async {
        let (log, _) = reopen().await;
        let result = log.append(vec![1; FRAME_PAYLOAD_BYTES_MAX + 1]).durable().await;
        assert!(matches!(result, Err(AppendError::TooLarge { .. })));
        log.append(vec![1; FRAME_PAYLOAD_BYTES_MAX]).durable().await.unwrap();
        log.append(vec![2]).durable().await.unwrap();
    });
    restart(&simulation, node);
    let lengths = on(&simulation, node, async { reopen().await.1.iter().map(Vec::len).collect::<Vec<_>>() });
    assert_eq!(lengths, [FRAME_PAYLOAD_BYTES_MAX, 1]);
}

#[test]
fn damage_to_what_was_durable_is_corruption_with_file_and_position() {
    let (simulation, node) = world(9);
    on(&simulation, node, async {
        let (log, _) = reopen().await;
        for payload in numbered(3) {
            log.append(payload).durable().await.unwrap();
        }
    });
    simulation.kill(node);
    simulation.flip_bit(node, Path::new(FIRST), 2 * 4096 + 30, 5).unwrap();
    simulation.restart(node);
    match on(&simulation, node, async { FrameLog::open(meta()).await.map(|_| ()) }) {
        Err(OpenError::Corrupt { file, position, .. }) => {
            assert_eq!((file.as_path(), position), (Path::new(FIRST), 2 * 4096));
        }
        other => panic!("{other:?}"),
    }
}

/// What a torn write left behind is gone before the next append: intact frames of it must not meet the frames that follow.
#[test]
fn a_torn_end_is_zeroed_before_the_log_goes_on() {
    let (simulation, node) = world(16);
    on(&simulation, node, async {
        let (log, _) = reopen().await;
        let together: Vec<Append> = (1..=4).map(|number| log.append(vec![number; 5000])).collect();
        for append in together {
            append.durable().await.unwrap();
        }
    });
    simulation.kill(node);
    // The second of the four frames, as if its sectors had not reached the disk.
    simulation.flip_bit(node, Path::new(FIRST), 4096 + 5100, 2).unwrap();
    simulation.restart(node);
    on(&simulation, node, async {
        let (log, replayed) = FrameLog::open(meta()).await.unwrap();
        assert_eq!(replayed.frames, [vec![1; 5000]]);
        assert_eq!(replayed.torn_bytes, 3 * 5024);
        log.append(vec![9]).durable().await.unwrap();
    });
    simulation.power_cut(node, PowerCut::OldOrNew);
    simulation.restart(node);
    on(&simulation, node, async {
        let (_, replayed) = FrameLog::open(meta()).await.unwrap();
        assert_eq!(replayed.frames, [vec![1; 5000], vec![9]]);
        assert_eq!(replayed.torn_bytes, 0);
    });
}

#[test]
fn damage_to_the_last_frame_before_a_clean_end_is_corruption() {
    let (simulation, node) = world(10);
    on(&simulation, node, async {
        let (log, _) = reopen().await;
        log.append(vec![1; 100]).durable().await.unwrap();
        log.close().await.unwrap();
        assert!(matches!(log.append(vec![2]).durable().await, Err(AppendError::Closed { .. })));
    });
    restart(&simulation, node);
    let all = on(&simulation, node, async { reopen().await.1 });
    assert_eq!(all, [vec![1; 100]], "the mark itself is no payload");
    simulation.kill(node);
    simulation.flip_bit(node, Path::new(FIRST), 4096 + 50, 0).unwrap();
    simulation.restart(node);
    let result = on(&simulation, node, async { FrameLog::open(meta()).await.map(|_| ()) });
    assert!(matches!(result, Err(OpenError::Corrupt { position: 4096, .. })), "{result:?}");
}

#[test]
fn a_damaged_header_is_named() {
    let (simulation, node) = world(11);
    on(&simulation, node, async { reopen().await });
    simulation.kill(node);
    simulation.flip_bit(node, Path::new(FIRST), 21, 0).unwrap();
    simulation.restart(node);
    let result = on(&simulation, node, async { FrameLog::open(meta()).await.map(|_| ()) });
    assert!(matches!(result, Err(OpenError::Header { source: DecodeError::Checksum { .. }, .. })), "{result:?}");
}

#[test]
fn a_switch_begins_a_new_file_in_order_and_removes_the_old_one() {
    let (simulation, node) = world(12);
    on(&simulation, node, async {
        let (log, _) = reopen().await;
        log.append(vec![1]);
        log.append(vec![2]);
        log.switch(vec![b"one".to_vec(), b"and two".to_vec()]);
        assert!(!log.outgrown());
        log.append(vec![3]).durable().await.unwrap();
        assert_eq!(log.sequence(), Some(2));
    });
    assert!(simulation.peek(node, Path::new(FIRST)).is_err());
    restart(&simulation, node);
    on(&simulation, node, async {
        let (_, replayed) = FrameLog::open(meta()).await.unwrap();
        assert_eq!(replayed.snapshot, [&b"one"[..], &b"and two"[..]]);
        assert_eq!(replayed.frames, [&[3][..]]);
    });
}

#[test]
fn a_log_is_outgrown_by_its_frames_and_not_by_its_snapshot() {
    let (simulation, node) = world(13);
    on(&simulation, node, async {
        let (log, _) = reopen().await;
        while !log.outgrown() {
            log.append(vec![1; 1 << 20]).durable().await.unwrap();
        }
        let written = log.inner.active.borrow().as_ref().map(|active| active.end);
        assert!(written.is_some_and(|end| (8 << 20..10 << 20).contains(&end)));
        log.switch(vec![vec![9; 3 << 20]; 5]);
        log.barrier().durable().await.unwrap();
        assert!(!log.outgrown());
        for _ in 0..15 {
            assert!(!log.outgrown());
            log.append(vec![1; 1 << 20]).durable().await.unwrap();
        }
        assert!(log.outgrown());
    });
}

/// Without room for a new file the old one goes on.
#[test]
fn a_switch_without_room_stays_on_the_old_file() {
    let (simulation, node) = world(14);
    let handle = simulation.clone();
    on(&simulation, node, async move {
        let (log, _) = reopen().await;
        log.append(vec![1]);
        handle.fail_next(node, DiskFault::NoSpace, ".new");
        log.switch(vec![vec![7]]);
        log.append(vec![2]).durable().await.unwrap();
        assert_eq!(log.sequence(), Some(1));
    });
    assert!(simulation.peek(node, Path::new(SECOND)).is_err());
    restart(&simulation, node);
    assert_eq!(on(&simulation, node, async { reopen().await.1 }), [[1], [2]]);
}

/// A rename that failed may have happened all the same: then the next start looks at the new file, and what was appended to
/// the old one since would be lost.
#[test]
fn a_switch_that_may_have_happened_closes_the_log() {
    let (simulation, node) = world(15);
    let handle = simulation.clone();
    on(&simulation, node, async move {
        let (log, _) = reopen().await;
        log.append(vec![1]).durable().await.unwrap();
        log.switch(vec![vec![1]]);
        let after = log.append(vec![2]);
        let fresh = Path::new(SECOND).with_extension("new");
        while handle.peek(node, &fresh).is_err() {
            sleep(Duration::from_micros(1)).await;
        }
        // From here on the only change of names is the rename.
        handle.fail_next(node, DiskFault::NameError, "/meta");
        assert!(matches!(after.durable().await, Err(AppendError::Closed { .. })));
    });
    restart(&simulation, node);
    let all = on(&simulation, node, async { reopen().await.1 });
    assert_eq!(all, [[1]]);
}

/// Payload `number`: the number and a length that depends on it, so that writes take one to three blocks.
fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(8 + (number as usize * 977) % 6000, number as u8);
    payload
}

fn number(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}

/// Appends numbered payloads for ever from what the log holds on, some at once, with a switch now and then; counts what was
/// acknowledged.
async fn keep_appending(acknowledged: Rc<Cell<u64>>, handle: Handle) {
    let Ok((log, replayed)) = FrameLog::create(meta()).await else { return };
    // A snapshot says how many payloads it stands for.
    let mut count = replayed.snapshot.first().map_or(0, |snapshot| number(snapshot));
    for frame in &replayed.frames {
        assert_eq!(frame, &payload(count));
        count += 1;
    }
    assert!(count >= acknowledged.get(), "{count} payloads are left of {}", acknowledged.get());
    loop {
        if handle.draw(5) == 0 {
            log.switch(vec![count.to_be_bytes().to_vec()]);
        }
        let together = 1 + handle.draw(6);
        let appends: Vec<Append> = (count..count + together).map(|number| log.append(payload(number))).collect();
        count += together;
        let mut all = true;
        for append in appends {
            all &= append.durable().await.is_ok();
        }
        if !all {
            return;
        }
        acknowledged.set(count);
        sleep(Duration::from_micros(handle.draw(2000))).await;
    }
}

/// Nothing that was acknowledged is lost, nothing comes back out of order, whatever operation the power fails in.
#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    for seed in 0..60 {
        let (simulation, node) = world(seed);
        let acknowledged = Rc::new(Cell::new(0));
        for _ in 0..12 {
            simulation.power_cut_after(node, 1 + simulation.draw(40), PowerCut::OldOrNew);
            simulation.start(node, SHARD, keep_appending(acknowledged.clone(), simulation.clone()));
            let handle = simulation.clone();
            simulation.run_until(Duration::from_secs(60), || !handle.is_running(node)).unwrap();
            simulation.restart(node);
        }
        on(&simulation, node, {
            let acknowledged = acknowledged.clone();
            async move {
                let (_, replayed) = FrameLog::create(meta()).await.unwrap();
                let base = replayed.snapshot.first().map_or(0, |snapshot| number(snapshot));
                assert!(base + replayed.frames.len() as u64 >= acknowledged.get());
            }
        });
        assert!(acknowledged.get() > 0, "seed {seed} acknowledged nothing");
    }
}

/// Sectors that turn to garbage or unreadable while they are written take nothing with them that was acknowledged.
#[test]
fn ruined_sectors_under_write_lose_nothing_that_was_acknowledged() {
    for (seed, cut) in (100..130).zip([PowerCut::Garbage, PowerCut::Unreadable].into_iter().cycle()) {
        let (simulation, node) = world(seed);
        let acknowledged = Rc::new(Cell::new(0));
        simulation.power_cut_after(node, 12 + simulation.draw(60), cut);
        simulation.start(node, SHARD, keep_appending(acknowledged.clone(), simulation.clone()));
        let handle = simulation.clone();
        simulation.run_until(Duration::from_secs(60), || !handle.is_running(node)).unwrap();
        simulation.restart(node);
        let expected = acknowledged.get();
        on(&simulation, node, async move {
            match FrameLog::create(meta()).await {
                Ok((_, replayed)) => {
                    let base = replayed.snapshot.first().map_or(0, |snapshot| number(snapshot));
                    assert!(base + replayed.frames.len() as u64 >= expected, "silent loss");
                }
                // An unreadable sector is an error that names the file; so is garbage in a file that has its name.
                Err(OpenError::Io { .. }) => assert_eq!(cut, PowerCut::Unreadable),
                Err(other) => panic!("seed {seed}: {other}"),
            }
        });
    }
}
