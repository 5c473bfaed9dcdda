//! Logs in a simulated machine: lives of work that end in a power cut, a kill or a close, and what must be there after each.
//!
//! The cheap layer: `storage::Log` without sockets, so that one seed crosses many crashes. Its promise is checked after every
//! one of them, the whole content of every log each time. Faults of the disk come at a seed's rate, within the promise: errors
//! and full disks, not bytes that change behind everybody's back (those are `damage`'s).

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use corelane::runtime::sim::{DiskFaults, NodeId, PerMillion, PowerCut, Random, Simulation, SimulationOptions, Stuck};
use corelane::runtime::{Duration, directory};
use corelane::storage::{Log, LogOptions, OpenError, Storage, StorageOptions};
use corelane::types::{LeaderEpoch, PartitionId, ShardId, TopicId, TopicPartition};

use crate::log_model::{End, Model};
use crate::log_work::{Life, read_all};
use crate::totals::Totals;

const SHARD: ShardId = ShardId(0);
/// Appends of a seed at least.
pub(crate) const APPENDS_MIN: u64 = 500;
/// Lives of a seed at most: a seed whose disk stays full gives up.
const LIVES_MAX: u64 = 400;
const DISK_BYTES: u64 = 256 << 20;
/// Virtual time of a life at most.
const LIFE_MAX: Duration = Duration::from_secs(3);

/// A machine with logs on it, and what must be true of them.
pub(crate) struct LogWorld {
    pub(crate) simulation: Simulation,
    pub(crate) node: NodeId,
    pub(crate) random: Random,
    pub(crate) models: Vec<Rc<RefCell<Model>>>,
    pub(crate) totals: Rc<RefCell<Totals>>,
    storage_options: StorageOptions,
    faults: DiskFaults,
    appends: Rc<Cell<u64>>,
    lives: u64,
}

/// What a life is to end with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    PowerCut,
    Kill,
    Close,
}

/// What opening the logs came to.
enum Opening {
    Open(Rc<Life>),
    /// The power went meanwhile.
    Cut,
    /// A fault of the disk stood in the way.
    Refused,
}

fn draw_options(random: &mut Random) -> LogOptions {
    LogOptions {
        segment_bytes: *random.choose(&[16 << 10, 64 << 10, 256 << 10, 1 << 20]),
        index_interval_bytes: *random.choose(&[512, 4096]),
        write_caching: random.happens(PerMillion(300_000)),
        flush_interval: Duration::from_millis(*random.choose(&[20, 100])),
        flush_messages: *random.choose(&[u64::MAX, u64::MAX, 50]),
        flush_bytes: *random.choose(&[16 << 10, 128 << 10]),
        retention_bytes: *random.choose(&[None, None, None, Some(128 << 10)]),
        retention_age: None,
        append_write_bytes_max: *random.choose(&[48 << 10, 128 << 10, 512 << 10]),
        checkpoint_bytes: *random.choose(&[32 << 10, 256 << 10, 64 << 20]),
        checkpoint_interval: Duration::from_millis(*random.choose(&[50, 500, 5_000])),
        ..LogOptions::default()
    }
    .sane()
}

pub(crate) fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId::new(number).expect("not negative") }
}

impl LogWorld {
    /// A machine with one to three logs that do not exist yet.
    pub(crate) fn new(seed: u64) -> LogWorld {
        let mut random = Random::fork(seed, 77);
        let options =
            SimulationOptions { disk_bytes: DISK_BYTES, steps_max: 20_000_000, ..SimulationOptions::default() };
        let simulation = Simulation::new(seed, options);
        let node = simulation.add_node(1);
        let logs = 1 + random.index(3);
        let models = (0..logs).map(|number| {
            let options = draw_options(&mut random);
            let directory = PathBuf::from(format!("/log-{number}"));
            let producers = 1 + random.index(3);
            let number = i32::try_from(number).expect("a few logs");
            Rc::new(RefCell::new(Model::new(partition(number), directory, options, producers)))
        });
        let models = models.collect();
        let storage_options = StorageOptions {
            tail_bytes_max: *random.choose(&[2 << 20, 16 << 20]),
            descriptors_max: *random.choose(&[2, 16]),
            free_bytes_min: 1 << 20,
            ..StorageOptions::default()
        };
        let faults = if random.happens(PerMillion(250_000)) {
            let mut rate = || PerMillion(*random.choose(&[0, 300, 3_000]));
            let (read_errors, write_errors, sync_errors) = (rate(), rate(), rate());
            let slowdown = *random.choose(&[1, 1, 5]);
            DiskFaults { read_errors, write_errors, sync_errors, slowdown, ..DiskFaults::default() }
        } else {
            DiskFaults::default()
        };
        LogWorld {
            simulation,
            node,
            random,
            models,
            totals: Rc::default(),
            storage_options,
            faults,
            appends: Rc::default(),
            lives: 0,
        }
    }

    fn faulty(&self) -> bool {
        self.faults != DiskFaults::default()
    }

    /// Runs on the node; `None` if its process ended first.
    pub(crate) fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Option<T> {
        self.simulation.run_on(self.node, SHARD, future).unwrap_or_else(|stuck: Stuck| panic!("{stuck}"))
    }

    /// Opens or creates every log and compares each with its model.
    /// `disturbed`: the power may go meanwhile, or later.
    fn open(&mut self, disturbed: bool) -> Opening {
        self.lives += 1;
        let epoch = LeaderEpoch::new(i32::try_from(self.lives / 2).expect("few lives")).expect("not negative");
        let faults = self.faulty() && self.random.coin();
        self.simulation.set_disk_faults(self.node, if faults { self.faults } else { DiskFaults::default() });
        if disturbed && self.random.happens(PerMillion(150_000)) {
            let operations = 1 + self.random.below(40);
            self.simulation.power_cut_after(self.node, operations, PowerCut::OldOrNew);
        }
        let (options, models) = (self.storage_options.clone(), self.models.clone());
        let (appends, totals) = (self.appends.clone(), self.totals.clone());
        let mut random = Random::new(self.random.bits());
        let opened = self.run(async move {
            let life = Life::new(Storage::new(options), appends, epoch, faults);
            for model in &models {
                let log = match open_one(&life, model, &totals).await {
                    Ok(log) => log,
                    Err(error) if faults => {
                        assert!(matches!(error, OpenError::Io(_)), "{}: {error}", model.borrow().name);
                        return None;
                    }
                    Err(error) => panic!("{}: {error}", model.borrow().name),
                };
                life.work(&log, model, &mut random);
            }
            Some(life)
        });
        match opened {
            None => Opening::Cut,
            Some(None) => Opening::Refused,
            Some(Some(life)) => Opening::Open(life),
        }
    }

    /// Opens, works, ends. The process has ended afterwards, and every model knows how.
    fn live(&mut self) {
        let life = match self.open(true) {
            Opening::Open(life) => life,
            Opening::Cut => return self.end_lives(End::PowerCut(self.simulation.now())),
            Opening::Refused => return self.kill(),
        };
        self.totals.borrow_mut().lives += 1;
        life.faults.set(life.faults.get() || self.faulty());
        self.simulation.set_disk_faults(self.node, self.faults);
        let plan = match self.random.below(10) {
            0..=5 => Plan::PowerCut,
            6..=7 => Plan::Kill,
            _ => Plan::Close,
        };
        tracing::debug!(now = ?self.simulation.now(), ?plan, faults = ?self.faults, "the logs are open");
        let until = self.appends.get() + 10 + self.random.below(200);
        if plan == Plan::PowerCut {
            let operations = 1 + self.random.below(120);
            self.simulation.power_cut_after(self.node, operations, PowerCut::OldOrNew);
        }
        if self.random.happens(PerMillion(60_000)) {
            self.fill_disk(&life);
        }
        let (simulation, node, appends) = (&self.simulation, self.node, &self.appends);
        let done = || appends.get() >= until || !simulation.is_running(node);
        match simulation.run_until(LIFE_MAX, done) {
            Ok(()) | Err(Stuck::TimedOut { .. }) => {}
            Err(stuck) => panic!("{stuck}"),
        }
        self.end(plan, life);
    }

    fn end(&mut self, plan: Plan, life: Rc<Life>) {
        if self.simulation.is_running(self.node) {
            match plan {
                Plan::PowerCut => self.simulation.power_cut(self.node, PowerCut::OldOrNew),
                Plan::Kill => return self.kill(),
                Plan::Close => return self.close(life),
            }
        }
        self.end_lives(End::PowerCut(self.simulation.now()));
    }

    fn close(&mut self, life: Rc<Life>) {
        self.heal();
        // A log that a fault has failed closes as it was.
        let whole = !life.faults.get();
        let now = self.simulation.now();
        if self.run(life.close()).is_none() {
            return self.end_lives(End::PowerCut(self.simulation.now()));
        }
        self.totals.borrow_mut().closes += 1;
        self.end_lives(if whole { End::Closed } else { End::Killed(now) });
        self.simulation.kill(self.node);
    }

    fn kill(&mut self) {
        self.simulation.kill(self.node);
        self.end_lives(End::Killed(self.simulation.now()));
    }

    fn end_lives(&self, end: End) {
        tracing::debug!(?end, "a life has ended");
        for model in &self.models {
            model.borrow_mut().end_life(end);
        }
    }

    fn heal(&self) {
        self.simulation.set_disk_faults(self.node, DiskFaults::default());
        self.simulation.set_disk_capacity(self.node, DISK_BYTES);
    }

    /// Leaves no room on the disk for a while.
    fn fill_disk(&mut self, life: &Rc<Life>) {
        life.faults.set(true);
        tracing::debug!(now = ?self.simulation.now(), "the disk gets full");
        let room = self.random.below(1 << 20);
        let free = self.run(async { directory::free_bytes(Path::new("/")).await });
        let Some(Ok(free)) = free else { return };
        self.simulation.set_disk_capacity(self.node, DISK_BYTES - free + room);
        let while_full = Duration::from_millis(20 + self.random.below(500));
        // The power may go meanwhile, and when it went is what counts.
        match self.simulation.run_until(while_full, || !self.simulation.is_running(self.node)) {
            Ok(()) | Err(Stuck::TimedOut { .. }) => self.simulation.set_disk_capacity(self.node, DISK_BYTES),
            Err(stuck) => panic!("{stuck}"),
        }
    }

    /// The whole of a seed.
    fn run_seed(&mut self) {
        while self.appends.get() < APPENDS_MIN || self.simulation.counters().power_cuts == 0 {
            assert!(self.lives < LIVES_MAX, "{} appends in {} lives", self.appends.get(), self.lives);
            self.live();
            self.heal();
            self.simulation.restart(self.node);
        }
        self.faults = DiskFaults::default();
        // A fuse that was lit before is put out by the cut.
        self.simulation.power_cut(self.node, PowerCut::OldOrNew);
        self.end_lives(End::PowerCut(self.simulation.now()));
        self.simulation.restart(self.node);
        // One that has burnt down already takes effect with the operation that it struck.
        let ended = self.simulation.run_until(Duration::from_millis(200), || !self.simulation.is_running(self.node));
        if ended.is_ok() {
            self.simulation.restart(self.node);
        }
        self.settle();
        self.simulation.restart(self.node);
        self.open_closed();
    }

    /// With everything healed: opens, compares, appends to every log, closes.
    fn settle(&mut self) {
        let Opening::Open(life) = self.open(false) else { panic!("nothing disturbs this life") };
        let ends: Vec<_> = self.models.iter().map(|model| model.borrow().end()).collect();
        let models = &self.models;
        let appended = || models.iter().zip(&ends).all(|(model, &end)| model.borrow().committed > end);
        let settled = self.simulation.run_until(LIFE_MAX, appended);
        settled.unwrap_or_else(|stuck| panic!("nothing is appended any more: {stuck}; {}", life.describe()));
        self.close(life);
    }

    /// Opens logs that were closed: nothing is scanned, and everything is there.
    fn open_closed(&mut self) {
        let (options, models, totals) = (self.storage_options.clone(), self.models.clone(), self.totals.clone());
        let appends = self.appends.clone();
        let opened = self.run(async move {
            let life = Life::new(Storage::new(options), appends, LeaderEpoch::ZERO, false);
            for model in &models {
                let log = open_one(&life, model, &totals).await;
                let log = log.unwrap_or_else(|error| panic!("{}: {error}", model.borrow().name));
                log.close().await.unwrap_or_else(|error| panic!("{}: {error}", model.borrow().name));
            }
        });
        assert!(opened.is_some(), "nothing ends this life");
    }
}

/// Opens a log, or creates it if that did not come to its end before, and compares it with its model.
pub(crate) async fn open_one(
    life: &Rc<Life>,
    model: &Rc<RefCell<Model>>,
    totals: &Rc<RefCell<Totals>>,
) -> Result<Log, OpenError> {
    let (created, directory, partition, options) = {
        let model = model.borrow();
        (model.created, model.directory.clone(), model.partition, model.options.clone())
    };
    // As the broker does: what a creation has left behind is opened.
    let begun = created || matches!(directory::list(&directory).await, Ok(entries) if !entries.is_empty());
    if !begun {
        let log = Log::create(&life.storage, &directory, partition, options).await?;
        let mut model = model.borrow_mut();
        (model.created, model.open) = (true, true);
        return Ok(log);
    }
    let (log, report) = Log::open(&life.storage, &directory, partition, options).await?;
    totals.borrow_mut().add_report(&report);
    {
        let mut model = model.borrow_mut();
        assert!(
            !created || model.ended != End::Closed || report.was_clean(),
            "{}: {report:?} after a close",
            model.name
        );
        model.reopened(log.log_start(), log.log_end());
        model.created = true;
    }
    read_all(life, &log, model).await;
    Ok(log)
}

/// Runs a seed; gives its counts and the hash of its trace.
pub(crate) fn run(seed: u64) -> (Totals, u64) {
    let mut world = LogWorld::new(seed);
    world.run_seed();
    let mut totals = world.totals.borrow().clone();
    totals.seeds = 1;
    totals.appends = world.appends.get();
    totals.add_counters(&world.simulation.counters());
    (totals, world.simulation.trace_hash())
}
