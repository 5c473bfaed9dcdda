//! Random lives of a log, ended by power cuts and kills, against a model: what was acknowledged is there after the next open,
//! what is there was appended, byte for byte, in order; nothing stale, nothing foreign.
//!
//! Whole brokers on such disks are tested in `tests/simulator`.

use std::cell::RefCell;

use super::*;
use crate::runtime::sim::{DiskFaults, Handle, PerMillion, PowerCut};
use crate::runtime::{Duration, random_u64, sleep, yield_now};

/// Seeds of a test run; the others are run by hand with more.
const SEEDS: u64 = 150;

struct Accepted {
    base: Offset,
    end: Offset,
    bytes: Vec<u8>,
}

/// What the log must be.
struct Model {
    accepted: Vec<Accepted>,
    /// The end of what was acknowledged.
    committed: Offset,
    /// The end of what was known to be durable.
    durable: Offset,
    /// What DeleteRecords has answered, and the most that it was asked for.
    deleted: Offset,
    delete_asked: Offset,
    options: LogOptions,
    /// Bytes of the value of every batch, if they are all the same.
    value_bytes: Option<usize>,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    appends: u64,
    stale_bytes: u64,
    hits: [u64; RecoveryCase::ALL.len()],
}

impl Totals {
    fn add(&mut self, report: &RecoveryReport) {
        self.stale_bytes += report.stale_bytes;
        for case in RecoveryCase::ALL {
            self.hits[case as usize] += u64::from(report.hits(case));
        }
    }
}

impl Model {
    fn end(&self) -> Offset {
        self.accepted.last().map_or(Offset::ZERO, |last| last.end)
    }

    /// The bytes that a read of everything from `start` to `end` gives.
    fn bytes(&self, start: Offset, end: Offset) -> Vec<u8> {
        let held = self.accepted.iter().filter(|batch| batch.end > start && batch.end <= end);
        held.flat_map(|batch| batch.bytes.iter().copied()).collect()
    }
}

fn below(bound: u64) -> u64 {
    random_u64() % bound
}

fn random_options(simulation: &Simulation) -> LogOptions {
    let pick = |values: &[u64]| values[simulation.draw(values.len() as u64) as usize];
    LogOptions {
        segment_bytes: pick(&[16 << 10, 64 << 10, 256 << 10]),
        append_write_bytes_max: pick(&[64 << 10, 256 << 10]),
        flush_bytes: pick(&[8 << 10, 64 << 10]),
        flush_interval: Duration::from_millis(pick(&[1, 20])),
        index_interval_bytes: 512,
        write_caching: simulation.draw(4) == 0,
        retention_age: None,
        ..LogOptions::default()
    }
}

fn model(simulation: &Simulation) -> Rc<RefCell<Model>> {
    let same_size = simulation.draw(2) == 0;
    Rc::new(RefCell::new(Model {
        accepted: Vec::new(),
        committed: Offset::ZERO,
        durable: Offset::ZERO,
        deleted: Offset::ZERO,
        delete_asked: Offset::ZERO,
        options: random_options(simulation),
        value_bytes: same_size.then(|| 60 + simulation.draw(2000) as usize),
        totals: Totals::default(),
    }))
}

/// Opens the log and compares it with the model: it holds all that must be there, and nothing else.
async fn open_and_check(model: &Rc<RefCell<Model>>, storage: &Rc<Storage>, must: Offset) -> Result<Log, OpenError> {
    let options = model.borrow().options.clone();
    let (log, report) = Log::open(storage, &directory_path(), partition(), options).await?;
    let held = read_all(&log).await;
    let mut model = model.borrow_mut();
    model.totals.add(&report);
    let (start, end) = (log.log_start(), log.log_end());
    assert!(end >= must, "the log ends at {end}, {must} was promised: {report:?}");
    assert!(end <= model.end(), "the log ends at {end}, only {} was appended: {report:?}", model.end());
    assert!(start >= model.deleted && start <= model.delete_asked, "{start}");
    assert!(held == model.bytes(start, end), "the bytes differ: {report:?}");
    model.accepted.retain(|batch| batch.end <= end);
    assert_eq!(model.end(), end, "whole batches only");
    (model.committed, model.durable) = (end, end);
    Ok(log)
}

/// A life of the log.
struct Life {
    must: Offset,
    steps: u64,
    /// Writes and syncs fail now and then.
    faulty: bool,
    /// Cuts the power so many disk operations after the log was opened.
    fuse: Option<(Handle, NodeId, PowerCut, u64)>,
}

/// One life of the log: opens it, and does this and that until the steps are over or the process ends.
async fn live(model: Rc<RefCell<Model>>, life: Life) -> Result<(), OpenError> {
    let storage =
        Storage::new(StorageOptions { free_bytes_min: 0, tail_bytes_max: 1 << 20, ..StorageOptions::default() });
    let mut log = match open_and_check(&model, &storage, life.must).await {
        Err(OpenError::Io(_)) if life.faulty => return Ok(()),
        opened => opened?,
    };
    observe(&log, &model);
    let works = |result: Result<(), String>| assert!(result.is_ok() || life.faulty, "{result:?}");
    if let Some((handle, node, cut, operations)) = life.fuse {
        handle.power_cut_after(node, operations, cut);
    }
    for _ in 0..life.steps {
        match below(100) {
            0..60 => append_some(&log, &model),
            60..72 => works(log.flush().await.map_err(|error| error.to_string())),
            72..82 => sleep(Duration::from_micros(below(3000))).await,
            82..88 => read_some(&log, &model).await,
            88..92 => works(log.0.checkpoint(false).await.map_err(|error| error.to_string())),
            92..94 => works(delete_some(&log, &model).await.map_err(|error| error.to_string())),
            94..97 => toggle_caching(&log, &model),
            97 => {
                let closed = log.close().await;
                works(closed.as_ref().copied().map_err(|error| error.to_string()));
                let must = if closed.is_ok() { model.borrow().end() } else { model.borrow().committed };
                log = match open_and_check(&model, &storage, must).await {
                    Err(OpenError::Io(_)) if life.faulty => return Ok(()),
                    opened => opened?,
                };
                observe(&log, &model);
            }
            98 => log.recover(),
            _ => yield_now().await,
        }
        let durable = log.durable_end();
        let mut model = model.borrow_mut();
        model.durable = model.durable.max(durable);
    }
    Ok(())
}

fn observe(log: &Log, model: &Rc<RefCell<Model>>) {
    let model = model.clone();
    log.observe(move |event| {
        let LogEvent::Committed { end, durable, .. } = event else { return };
        let mut model = model.borrow_mut();
        assert!(end > model.committed, "the committed end moves up");
        model.committed = end;
        model.durable = model.durable.max(durable);
    });
}

fn append_some(log: &Log, model: &Rc<RefCell<Model>>) {
    for _ in 0..=below(6) {
        let same = model.borrow().value_bytes;
        let (records, value_bytes) = match same {
            Some(bytes) => (1, bytes),
            None => (1 + below(5) as u32, [below(100), below(1500), below(9000)][below(3) as usize] as usize),
        };
        let bytes = batch(records, value_bytes, 1 + (random_u64() % 250) as u8, 1000, None);
        let appended = match append_bytes(log, &bytes) {
            Ok(appended) => appended,
            Err(AppendError::Backpressure | AppendError::TooLarge { .. }) => return,
            Err(AppendError::Recovering | AppendError::Closed) => return,
            Err(error) => panic!("{error}"),
        };
        let one = ReadLimits { bytes_max: 1, ..ALL };
        let stored = log.read_tail(appended.base_offset, one).expect("it is in the buffers");
        let mut model = model.borrow_mut();
        assert_eq!(appended.base_offset, model.end(), "offsets are dense");
        model.totals.appends += 1;
        model.accepted.push(Accepted { base: appended.base_offset, end: appended.end, bytes: joined(&stored) });
    }
}

async fn read_some(log: &Log, model: &Rc<RefCell<Model>>) {
    let (start, end) = (log.log_start(), log.committed_end());
    if start >= end {
        return;
    }
    let from = start.plus(below(end.since(start)));
    let batches = log.read(from, ReadLimits { end, ..ALL }).await.expect("good batches");
    let model = model.borrow();
    let first = model.accepted.iter().find(|batch| batch.end > from).expect("it was appended").base;
    assert!(joined(&batches) == model.bytes(from, batches.end), "from {first}");
    assert!(batches.end > from);
}

async fn delete_some(log: &Log, model: &Rc<RefCell<Model>>) -> Result<(), DeleteRecordsError> {
    let (start, end) = (log.log_start(), log.committed_end());
    let before = start.plus(below(end.since(start) + 1));
    {
        let mut model = model.borrow_mut();
        model.delete_asked = model.delete_asked.max(before);
    }
    let answered = log.delete_records(before).await?;
    let mut model = model.borrow_mut();
    model.deleted = model.deleted.max(answered);
    Ok(())
}

fn toggle_caching(log: &Log, model: &Rc<RefCell<Model>>) {
    let mut model = model.borrow_mut();
    model.options.write_caching ^= true;
    log.set_options(model.options.clone());
}

/// Some lives of one log. Each but the last is ended by a power cut or a kill. Gives what was counted and the trace's hash.
fn lives(seed: u64, cut: PowerCut, faulty: bool) -> (Totals, crate::runtime::sim::Counters, u64) {
    let (simulation, node) = world(seed);
    let model = model(&simulation);
    let mut must = Offset::ZERO;
    if faulty {
        let rate = PerMillion(3000);
        simulation.set_disk_faults(node, DiskFaults { write_errors: rate, sync_errors: rate, ..DiskFaults::default() });
    }
    for _ in 0..3 + simulation.draw(6) {
        let steps = 20 + simulation.draw(150);
        let is_kill = simulation.draw(3) == 0;
        // Short lives meet what the one before has left, long ones get far, some do not even get to the end of opening.
        let operations = 1 + simulation.draw([6, 40, 300][simulation.draw(3) as usize]);
        let in_opening = simulation.draw(4) == 0;
        if in_opening && !is_kill {
            simulation.power_cut_after(node, operations, cut);
        }
        let fuse = (!in_opening && !is_kill).then(|| ((*simulation).clone(), node, cut, operations));
        let mut ended =
            Box::pin(simulation.start(node, SHARD, live(model.clone(), Life { must, steps, faulty, fuse })));
        let limit = if is_kill { Duration::from_micros(simulation.draw(60_000)) } else { Duration::from_secs(30) };
        let mut result = None;
        let handle = (*simulation).clone();
        let _ = simulation.run_until(limit, || {
            use std::task::{Context, Poll, Waker};
            if let Poll::Ready(output) = ended.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                result = Some(output);
            }
            result.is_some() || !handle.is_running(node)
        });
        if let Some(Some(Err(error))) = result {
            panic!("seed {seed}: {error}");
        }
        // What is only written survives the process, not the machine; and not the process either if a sync of it fails: whoever
        // would write it again is gone.
        let killed = is_kill && handle.is_running(node) && !faulty;
        must = if killed { model.borrow().committed } else { model.borrow().durable };
        if handle.is_running(node) {
            if is_kill { handle.kill(node) } else { handle.power_cut(node, cut) }
        }
        {
            // The next life may end before it has looked; what is only written is not durable until it has.
            let mut model = model.borrow_mut();
            model.committed = must;
        }
        // A cut that was on its way comes while nothing runs.
        simulation.run_for(Duration::from_secs(1)).expect("time passes");
        handle.restart(node);
    }
    let last = model.clone();
    simulation.set_disk_faults(node, DiskFaults::default());
    run(&simulation, node, async move {
        let storage = storage();
        open_and_check(&last, &storage, must).await.expect("it opens");
    });
    let totals = std::mem::take(&mut model.borrow_mut().totals);
    (totals, simulation.counters(), simulation.trace_hash())
}

/// Runs the seeds and prints what was met; every row in `rows` at least `least` times.
fn run_seeds(seeds: std::ops::Range<u64>, rows: &[RecoveryCase], least: u64) {
    let count = seeds.end - seeds.start;
    let mut totals = Totals::default();
    let (mut cuts, mut torn) = (0, 0);
    for seed in seeds {
        let (counted, counters, _) = lives(seed, PowerCut::OldOrNew, false);
        totals.appends += counted.appends;
        totals.stale_bytes += counted.stale_bytes;
        for (sum, hits) in totals.hits.iter_mut().zip(counted.hits) {
            *sum += hits;
        }
        (cuts, torn) = (cuts + counters.power_cuts, torn + counters.writes_torn);
    }
    let Totals { appends, stale_bytes, hits } = totals;
    println!("{count} seeds: {appends} appends, {cuts} power cuts, {torn} torn writes, {stale_bytes} stale bytes");
    for case in RecoveryCase::ALL {
        println!("{case:>18} {}", hits[case as usize]);
        assert!(!case.is_corruption() || hits[case as usize] == 0, "{case}: a power cut was taken for damage");
    }
    for &case in rows {
        assert!(hits[case as usize] >= least, "{case} was met {} times", hits[case as usize]);
    }
    assert!(torn >= least && stale_bytes > 0);
}

/// The rows that power cuts and kills lead to.
const ROWS: [RecoveryCase; 12] = [
    RecoveryCase::Clean,
    RecoveryCase::NeverWritten,
    RecoveryCase::SlotUnusable,
    RecoveryCase::UnfinishedFile,
    RecoveryCase::UnusedSpace,
    RecoveryCase::RetiredSegment,
    RecoveryCase::SealMissing,
    RecoveryCase::NoNewBatches,
    RecoveryCase::NewBatches,
    RecoveryCase::RolledOn,
    RecoveryCase::TornBatch,
    RecoveryCase::TornFront,
];

#[test]
fn what_was_acknowledged_survives_and_nothing_else_appears() {
    run_seeds(0..SEEDS, &[RecoveryCase::Clean, RecoveryCase::NewBatches, RecoveryCase::TornBatch], 1);
}

/// For hands: `cargo test --lib -- --ignored many_lives --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn many_lives() {
    run_seeds(0..10_000, &ROWS, 50);
}

/// Power cuts of disks whose writes and syncs fail now and then.
#[test]
fn what_was_acknowledged_survives_failing_disks_too() {
    let mut errors = 0;
    for seed in 0..SEEDS {
        errors += lives(seed, PowerCut::OldOrNew, true).1.disk_errors;
    }
    assert!(errors > 0);
}

/// For hands, as `many_lives`.
#[test]
#[ignore = "takes minutes"]
fn many_lives_on_failing_disks() {
    for seed in 0..5_000 {
        lives(seed, PowerCut::OldOrNew, true);
    }
}

#[test]
fn a_seed_repeats() {
    for seed in [3, 77] {
        assert_eq!(lives(seed, PowerCut::OldOrNew, false).2, lives(seed, PowerCut::OldOrNew, false).2);
    }
}

/// Each planted bug is found by some seed.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found() {
    use planted::{Bug, plant};
    for bug in Bug::ALL {
        plant(Some(bug));
        let found = (0..500).find(|&seed| std::panic::catch_unwind(|| lives(seed, PowerCut::OldOrNew, false)).is_err());
        plant(None);
        println!("{} is found by seed {found:?}", bug.name());
        assert!(found.is_some(), "{}", bug.name());
    }
}
