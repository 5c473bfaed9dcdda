//! Damage that no power cut explains: refused with its row of the recovery table, nothing served, nothing cut.
//!
//! A log of known content is killed and damaged in one place. Opening it must name the row, and so must opening it again: the
//! first refusal has changed nothing. Then the damage is taken back, and everything must be there. Beside these rows, the ones
//! that chance reaches too seldom: a creation cut short, and a checkpoint's slot gone bad.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use corelane::runtime::sim::{NodeId, PowerCut, Random, Simulation, SimulationOptions};
use corelane::runtime::{Duration, directory, sleep};
use corelane::storage::format::{checkpoint_path, segment_path};
use corelane::storage::{Log, LogOptions, OpenError, RecoveryCase, Storage, StorageOptions};
use corelane::types::{LeaderEpoch, ShardId};

use crate::log_model::{End, Model};
use crate::log_work::{Appender, Life, observe};
use crate::log_world::{open_one, partition};
use crate::payload::Sizes;
use crate::totals::Totals;

const SHARD: ShardId = ShardId(0);
/// All batches are so long: whole sectors, so that a damaged one has bytes in each of its sectors.
const BATCH_BYTES: u64 = 1024;
const FIRST_BATCH_AT: u64 = 4096;
/// A segment that ends soon.
const SHORT_SEGMENT_BYTES: u64 = 16 << 10;
const SHORT_SEGMENT_BATCHES: u64 = SHORT_SEGMENT_BYTES / BATCH_BYTES;
/// A segment that does not.
const LONG_SEGMENT_BYTES: u64 = 1 << 20;
/// Bytes of a write at most: what a power cut can tear.
const WRITE_BYTES_MAX: u64 = 48 << 10;

/// A damage: what was there before, to be put back.
enum Damage {
    Bytes(Vec<(PathBuf, u64, Vec<u8>)>),
    Moved { from: PathBuf, to: PathBuf },
}

struct Patient {
    simulation: Simulation,
    node: NodeId,
    random: Random,
    model: Rc<RefCell<Model>>,
    totals: Rc<RefCell<Totals>>,
    appends: Rc<Cell<u64>>,
    batch_bytes: u64,
}

impl Patient {
    fn new(seed: u64, number: u64, segment_bytes: u64) -> Patient {
        let simulation = Simulation::new(seed.wrapping_add(number << 48), SimulationOptions::default());
        let node = simulation.add_node(1);
        let options = LogOptions {
            segment_bytes,
            append_write_bytes_max: WRITE_BYTES_MAX,
            checkpoint_bytes: u64::MAX,
            checkpoint_interval: Duration::from_secs(3600),
            ..LogOptions::default()
        };
        let model = Rc::new(RefCell::new(Model::new(partition(0), PathBuf::from("/log"), options.sane(), 1)));
        let random = Random::fork(seed, 200 + number);
        Patient {
            simulation,
            node,
            random,
            model,
            totals: Rc::default(),
            appends: Rc::default(),
            batch_bytes: BATCH_BYTES,
        }
    }

    fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Option<T> {
        self.simulation.run_on(self.node, SHARD, future).unwrap_or_else(|stuck| panic!("{stuck}"))
    }

    /// Opens the log, appends `batches` batches, waits until they are durable, and closes it or not.
    fn fill(&mut self, batches: u64, closes: bool) {
        let (model, totals, appends) = (self.model.clone(), self.totals.clone(), self.appends.clone());
        let mut random = Random::new(self.random.bits());
        let batch_bytes = usize::try_from(self.batch_bytes).expect("small");
        let ran = self.run(async move {
            let life = Life::new(Storage::new(StorageOptions::default()), appends, LeaderEpoch::ZERO, false);
            let log = open_one(&life, &model, &totals).await.unwrap_or_else(|error| panic!("{error}"));
            let observed = model.clone();
            log.observe(move |event| observe(&observed, &event));
            let sizes = Sizes::Sectors { bytes: batch_bytes };
            let mut appender = Appender::new(sizes, &mut random);
            let wanted = model.borrow().batches.len() as u64 + batches;
            while (model.borrow().batches.len() as u64) < wanted {
                let appended = appender.append(&life, &log, &model, &mut random);
                let end = appended.unwrap_or_else(|error| panic!("{error}"));
                if random.coin() {
                    wait_committed(&log, end).await;
                }
            }
            let end = model.borrow().end();
            wait_committed(&log, end).await;
            if closes {
                log.close().await.unwrap_or_else(|error| panic!("{error}"));
            }
        });
        assert!(ran.is_some(), "nothing ends this life");
        let ended = if closes { End::Closed } else { End::Killed(self.simulation.now()) };
        self.end_life(ended);
    }

    fn end_life(&mut self, ended: End) {
        self.simulation.kill(self.node);
        self.simulation.restart(self.node);
        self.model.borrow_mut().end_life(ended);
    }

    /// Opens the log and gives the row that it is refused with.
    fn refusal(&mut self) -> Result<RecoveryCase, String> {
        let (model, totals) = (self.model.clone(), Rc::new(RefCell::new(Totals::default())));
        let appends = self.appends.clone();
        let opened = self.run(async move {
            let life = Life::new(Storage::new(StorageOptions::default()), appends, LeaderEpoch::ZERO, false);
            match open_one(&life, &model, &totals).await {
                Ok(_) => Err("the log is opened all the same".to_owned()),
                Err(OpenError::Corrupt { case, .. }) => Ok(case),
                Err(error) => Err(error.to_string()),
            }
        });
        self.simulation.kill(self.node);
        self.simulation.restart(self.node);
        opened.expect("nothing ends this life")
    }

    /// Overwrites bytes of a file with what `change` makes of them.
    fn change(&self, path: PathBuf, position: u64, bytes: u64, change: impl Fn(&mut [u8])) -> (PathBuf, u64, Vec<u8>) {
        let content =
            self.simulation.peek(self.node, &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let range = usize::try_from(position).expect("small")..usize::try_from(position + bytes).expect("small");
        let before = content[range].to_vec();
        let mut after = before.clone();
        change(&mut after);
        assert_ne!(before, after, "a damage changes something");
        self.simulation.corrupt(self.node, &path, position, &after).unwrap_or_else(|error| panic!("{error}"));
        (path, position, before)
    }

    fn rename(&self, from: &Path, to: &Path) {
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        let done = self.run(async move {
            directory::rename(&from, &to).await?;
            directory::sync(Path::new("/log")).await
        });
        assert!(matches!(done, Some(Ok(()))), "the file is moved");
    }

    fn undo(&self, damage: Damage) {
        match damage {
            Damage::Bytes(changes) => {
                for (path, position, before) in changes {
                    let undone = self.simulation.corrupt(self.node, &path, position, &before);
                    undone.unwrap_or_else(|error| panic!("{error}"));
                }
            }
            Damage::Moved { from, to } => self.rename(&to, &from),
        }
    }

    /// Damages the log in the way of `case`.
    fn damage(&mut self, case: RecoveryCase) -> Damage {
        let directory = PathBuf::from("/log");
        let flip = |bytes: &mut [u8]| bytes[0] ^= 0x10;
        let in_batch = |batch: u64| FIRST_BATCH_AT + batch * BATCH_BYTES + 200;
        let segment = segment_path(&directory, 1);
        match case {
            RecoveryCase::CheckpointLost => {
                self.fill(4, true);
                self.fill(4, false);
                let slots = [0, 1].map(|slot| checkpoint_path(&directory, slot));
                let there = slots.into_iter().filter(|path| self.simulation.peek(self.node, path).is_ok());
                Damage::Bytes(there.map(|path| self.change(path, 30, 1, flip)).collect())
            }
            RecoveryCase::SegmentMissing => {
                self.fill(2 * SHORT_SEGMENT_BATCHES + 3, true);
                let to = PathBuf::from("/log/moved-away");
                self.rename(&segment, &to);
                Damage::Moved { from: segment, to }
            }
            RecoveryCase::HeaderDamaged => {
                self.fill(5, false);
                Damage::Bytes(vec![self.change(segment, 40, 1, flip)])
            }
            RecoveryCase::DamagedBatch => {
                let batches = 3 + self.random.below(10);
                self.fill(batches, false);
                Damage::Bytes(vec![self.change(segment, in_batch(batches - 1), 1, flip)])
            }
            RecoveryCase::BeyondWindow => {
                self.fill(80, false);
                let batch = self.random.below(20);
                Damage::Bytes(vec![self.change(segment, in_batch(batch), 1, flip)])
            }
            RecoveryCase::BadBeforeNext => {
                self.fill(SHORT_SEGMENT_BATCHES + 5, false);
                let batch = self.random.below(SHORT_SEGMENT_BATCHES);
                Damage::Bytes(vec![self.change(segment, in_batch(batch), 1, flip)])
            }
            RecoveryCase::SegmentsApart => {
                self.fill(SHORT_SEGMENT_BATCHES + 5, false);
                let last = FIRST_BATCH_AT + (SHORT_SEGMENT_BATCHES - 1) * BATCH_BYTES;
                Damage::Bytes(vec![self.change(segment, last, BATCH_BYTES, |bytes| bytes.fill(0))])
            }
            other => panic!("{other} is no damage"),
        }
    }

    /// Everything is there, and more can be appended.
    fn is_whole(&mut self) {
        self.fill(1, true);
        self.fill(1, true);
    }
}

async fn wait_committed(log: &Log, end: corelane::types::Offset) {
    while log.committed_end() < end {
        sleep(Duration::from_micros(100)).await;
    }
}

/// The rows that a log is refused with.
fn refusals() -> impl Iterator<Item = RecoveryCase> {
    RecoveryCase::ALL.into_iter().filter(|case| case.is_corruption())
}

fn refuse(seed: u64, number: u64, case: RecoveryCase) -> Patient {
    let segment_bytes = match case {
        RecoveryCase::DamagedBatch | RecoveryCase::BeyondWindow | RecoveryCase::HeaderDamaged => LONG_SEGMENT_BYTES,
        _ => SHORT_SEGMENT_BYTES,
    };
    let mut patient = Patient::new(seed, number, segment_bytes);
    let damage = patient.damage(case);
    for _ in 0..2 {
        assert_eq!(patient.refusal(), Ok(case), "{case}");
        patient.totals.borrow_mut().add_refusal(case);
    }
    patient.undo(damage);
    patient.is_whole();
    patient
}

/// The creation of a log is cut off by power, again and again; in the end it is there.
fn cut_creation(seed: u64, number: u64) -> Patient {
    let mut patient = Patient::new(seed, number, SHORT_SEGMENT_BYTES);
    for _ in 0..3 {
        let operations = 1 + patient.random.below(14);
        patient.simulation.power_cut_after(patient.node, operations, PowerCut::OldOrNew);
        let (model, totals, appends) = (patient.model.clone(), patient.totals.clone(), patient.appends.clone());
        let ran = patient.run(async move {
            let life = Life::new(Storage::new(StorageOptions::default()), appends, LeaderEpoch::ZERO, false);
            open_one(&life, &model, &totals).await.map(drop).unwrap_or_else(|error| panic!("{error}"));
            sleep(Duration::from_millis(50)).await;
        });
        if ran.is_some() {
            patient.simulation.power_cut(patient.node, PowerCut::OldOrNew);
        }
        patient.simulation.restart(patient.node);
        let now = patient.simulation.now();
        patient.model.borrow_mut().end_life(End::PowerCut(now));
    }
    patient.fill(5, false);
    patient.is_whole();
    patient
}

/// The newest slot goes bad: the older one counts, and everything is there.
fn bad_slot(seed: u64, number: u64) -> Patient {
    let mut patient = Patient::new(seed, number, SHORT_SEGMENT_BYTES);
    patient.fill(6, true);
    patient.fill(6, true);
    let slot = usize::from(patient.random.coin());
    patient.change(checkpoint_path(Path::new("/log"), slot), 60, 1, |bytes| bytes[0] ^= 1);
    patient.model.borrow_mut().ended = End::Killed(patient.simulation.now());
    patient.fill(6, false);
    patient.is_whole();
    patient
}

/// Of the last write only the sector is there in which the last batch's header begins: as if that batch had never been.
fn torn_header(seed: u64, number: u64) -> Patient {
    const SECTOR_BYTES: u64 = 512;
    let mut patient = Patient::new(seed, number, SHORT_SEGMENT_BYTES);
    let header_bytes_there = 20 + patient.random.below(40);
    patient.batch_bytes = 2 * SECTOR_BYTES - header_bytes_there;
    patient.fill(2, false);
    let missing_from = FIRST_BATCH_AT + 2 * SECTOR_BYTES;
    let missing = patient.batch_bytes - header_bytes_there;
    patient.change(segment_path(Path::new("/log"), 1), missing_from, missing, |bytes| bytes.fill(0));
    {
        let mut model = patient.model.borrow_mut();
        model.batches.pop();
        (model.committed, model.durable) = (model.end(), model.end());
    }
    patient.fill(1, false);
    patient.is_whole();
    patient
}

/// Runs the scenarios of a seed: two refusals in turn, so that every row comes often enough, and the rest.
pub(crate) fn run(seed: u64) -> (Totals, u64) {
    let cases: Vec<RecoveryCase> = refusals().collect();
    let case = |turn: u64| cases[usize::try_from((2 * seed + turn) % cases.len() as u64).expect("a few")];
    let refused = [refuse(seed, 1, case(0)), refuse(seed, 2, case(1))];
    let patients = refused.into_iter().chain([bad_slot(seed, 3), torn_header(seed, 4)]);
    let patients = patients.chain((5..9).map(|number| cut_creation(seed, number)));
    let mut totals = Totals::default();
    let mut hash = 0_u64;
    for patient in patients {
        totals.add(&patient.totals.borrow());
        totals.add_counters(&patient.simulation.counters());
        totals.appends += patient.model.borrow().batches.len() as u64;
        hash = hash.rotate_left(7) ^ patient.simulation.trace_hash();
    }
    (totals, hash)
}
