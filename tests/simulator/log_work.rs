//! What happens to the logs of a shard while they live: appends, reads, deletions, upkeep, as tasks of the node.
//!
//! The tasks tell the models synchronously what they did, so that a crash between any two steps leaves log and model
//! comparable. They end when `stop` is set, or with their process. The code under test is `corelane::storage` alone.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use corelane::record::{DecompressLimits, Decompressors, ProduceRules, Producer, TimestampType, validate_produce};
use corelane::runtime::sim::{PerMillion, Random};
use corelane::runtime::{Class, Duration, Instant, Task, sleep, spawn, wall_clock, yield_now};
use corelane::storage::{AppendError, CloseError, DeleteRecordsError, Log, LogEvent, ReadError, ReadLimits, Storage};
use corelane::types::{LeaderEpoch, Offset, ProducerEpoch, Sequence};

use crate::log_model::{Accepted, Model};
use crate::payload::{Maker, Sent, Sizes, Stamp, stamped};

const RULES: ProduceRules = ProduceRules {
    batch_bytes_max: 1 << 20,
    zstd_allowed: true,
    key_required: false,
    timestamp_type: TimestampType::Create,
    timestamp_before_max_ms: u64::MAX,
    timestamp_after_max_ms: 3_600_000,
    decompress: DecompressLimits::DEFAULT,
};

/// Batches of one producer that a log knows again.
const REMEMBERED_BATCHES: usize = 5;

/// How long a log may be out of room while its disk works.
const ROOM_MAX: Duration = Duration::from_millis(500);

/// What the tasks of one life share with the driver.
pub(crate) struct Life {
    pub(crate) stop: Cell<bool>,
    /// Batches accepted in the whole run.
    pub(crate) appends: Rc<Cell<u64>>,
    /// Whether faults of the disk are on, or were in this life.
    pub(crate) faults: Cell<bool>,
    pub(crate) storage: Rc<Storage>,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) logs: RefCell<Vec<(Log, Rc<RefCell<Model>>)>>,
    pub(crate) tasks: RefCell<Vec<Task<()>>>,
}

impl Life {
    pub(crate) fn new(storage: Rc<Storage>, appends: Rc<Cell<u64>>, epoch: LeaderEpoch, faults: bool) -> Rc<Life> {
        Rc::new(Life {
            stop: Cell::new(false),
            appends,
            faults: Cell::new(faults),
            storage,
            epoch,
            logs: RefCell::default(),
            tasks: RefCell::default(),
        })
    }

    /// Starts the work on an open log.
    pub(crate) fn work(self: &Rc<Life>, log: &Log, model: &Rc<RefCell<Model>>, random: &mut Random) {
        let observed = model.clone();
        log.observe(move |event| observe(&observed, &event));
        let fork = |random: &mut Random| Random::new(random.bits());
        let start = |task: Task<()>| self.tasks.borrow_mut().push(task);
        start(spawn(Class::Produce, append_all(self.clone(), log.clone(), model.clone(), fork(random))));
        start(spawn(Class::Fetch, read_on(self.clone(), log.clone(), model.clone(), fork(random))));
        start(spawn(Class::Background, keep_up(self.clone(), log.clone(), model.clone(), fork(random))));
        self.logs.borrow_mut().push((log.clone(), model.clone()));
    }

    /// Where the ends of the logs are.
    pub(crate) fn describe(&self) -> String {
        let describe = |(log, model): &(Log, Rc<RefCell<Model>>)| {
            let ends = [log.log_start(), log.durable_end(), log.written_end(), log.log_end()];
            let model = model.borrow();
            let (caches, pending) = (model.options.write_caching, model.end().since(model.committed));
            format!("{}: ends {ends:?}, open {}, caching {caches}, {pending} open", model.name, log.is_open())
        };
        self.logs.borrow().iter().map(describe).collect::<Vec<_>>().join("; ")
    }

    /// Ends the tasks and closes the logs.
    pub(crate) async fn close(self: Rc<Life>) {
        self.stop.set(true);
        for task in self.tasks.take() {
            task.await;
        }
        for (log, model) in self.logs.take() {
            let closed: Result<(), CloseError> = log.close().await;
            let name = &model.borrow().name;
            assert!(closed.is_ok() || self.faults.get(), "{name}: {closed:?}");
        }
    }
}

pub(crate) fn observe(model: &Rc<RefCell<Model>>, event: &LogEvent) {
    let mut model = model.borrow_mut();
    match event {
        LogEvent::Committed { end, durable, .. } => model.committed(*end, *durable, Instant::now()),
        LogEvent::Started { log_start } => {
            model.start_min = model.start_min.max(*log_start);
            model.start_max = model.start_max.max(*log_start);
        }
        LogEvent::Failed(_) | LogEvent::Recovered => model.met_faults = true,
    }
}

/// The appender of a log: how its batches come.
pub(crate) struct Appender {
    maker: Maker,
    sizes: Sizes,
    decompressors: Decompressors,
    number: u64,
    recent: Vec<(Sent, usize, Offset)>,
}

async fn append_all(life: Rc<Life>, log: Log, model: Rc<RefCell<Model>>, mut random: Random) {
    let bytes_max = usize::try_from(model.borrow().options.batch_bytes_max()).unwrap_or(usize::MAX).min(1 << 20);
    let sizes = Sizes::draw(&mut random, bytes_max);
    let mut appender = Appender::new(sizes, &mut random);
    let burst_max = *random.choose(&[1, 3, 10, 40]);
    let pause_us = *random.choose(&[0, 200, 3_000]);
    let mut room_at = Instant::now();
    while !life.stop.get() {
        let burst = 1 + random.below(burst_max);
        let mut end = Offset::ZERO;
        for _ in 0..burst {
            match appender.append(&life, &log, &model, &mut random) {
                Ok(appended) => (end, room_at) = (appended, Instant::now()),
                Err(AppendError::Backpressure) => {
                    let waited = Instant::now().since(room_at);
                    assert!(
                        waited < ROOM_MAX || life.faults.get(),
                        "{}: no room for {waited:?} although the disk works",
                        model.borrow().name
                    );
                    sleep(Duration::from_micros(500)).await;
                    break;
                }
                Err(error @ (AppendError::Recovering | AppendError::DiskFull)) => {
                    assert!(life.faults.get(), "{}: {error} without a fault", model.borrow().name);
                    model.borrow_mut().met_faults = true;
                    sleep(Duration::from_millis(5)).await;
                    break;
                }
                Err(AppendError::Closed) => {
                    assert!(life.faults.get(), "{}: closed without a fault", model.borrow().name);
                    model.borrow_mut().met_faults = true;
                    log.recover();
                    sleep(Duration::from_millis(10)).await;
                    break;
                }
                Err(error) => panic!("{}: {error}", model.borrow().name),
            }
            if random.happens(PerMillion(100_000)) {
                yield_now().await;
            }
        }
        // A producer that waits for its acknowledgements, for a while: a failed log gives none.
        let patience = Instant::now().plus(Duration::from_millis(50));
        while !life.stop.get() && log.committed_end() < end && Instant::now() < patience {
            sleep(Duration::from_micros(200)).await;
        }
        if pause_us > 0 {
            sleep(Duration::from_micros(random.below(pause_us))).await;
        } else {
            yield_now().await;
        }
    }
}

impl Appender {
    pub(crate) fn new(sizes: Sizes, random: &mut Random) -> Appender {
        let maker = Maker::new(random);
        Appender { maker, sizes, decompressors: Decompressors::new(), number: random.bits() >> 8, recent: Vec::new() }
    }

    /// Appends a batch, or one of the last few again. Returns its end.
    pub(crate) fn append(
        &mut self,
        life: &Life,
        log: &Log,
        model: &Rc<RefCell<Model>>,
        random: &mut Random,
    ) -> Result<Offset, AppendError> {
        if !self.recent.is_empty() && random.happens(PerMillion(30_000)) {
            let again = random.index(self.recent.len());
            return self.append_again(again, life, log, &model.borrow());
        }
        let (owner, producer, base) = {
            let model = model.borrow();
            let owner = random.happens(PerMillion(600_000)).then(|| random.index(model.producers.len()));
            let producer = owner.map(|index| {
                let known = &model.producers[index];
                let bumps = random.happens(PerMillion(5_000));
                let epoch = ProducerEpoch::new(known.epoch.value() + i16::from(bumps)).expect("not negative");
                let base_sequence = if bumps { Sequence::new(0).expect("not negative") } else { known.next };
                Producer { id: known.id, epoch, base_sequence }
            });
            (owner, producer, model.end())
        };
        let log_number = u64::from(model.borrow().partition.partition.value().unsigned_abs());
        let stamp = Stamp { log: log_number, producer: owner.map_or(0, |index| index as u64 + 1), number: self.number };
        self.number += 1;
        let sent = self.maker.make(random, stamp, self.sizes, producer, wall_clock());
        let batch = validate_produce(&sent.bytes, wall_clock(), &RULES, &mut self.decompressors);
        let batch = batch.unwrap_or_else(|error| panic!("{}: {error}", model.borrow().name));
        // The model first: the log may tell what is committed before the call returns.
        let (records, bytes) = (sent.records, stamped(&sent.bytes, base, life.epoch));
        model.borrow_mut().batches.push(Accepted { base, records, bytes, producer: owner.zip(producer) });
        let appended = log.append(&batch, life.epoch);
        let mut model = model.borrow_mut();
        let appended = match appended {
            Ok(appended) => appended,
            Err(error) => {
                model.batches.pop();
                return Err(error);
            }
        };
        let name = &model.name;
        assert!(!appended.duplicate, "{name}: a new batch is taken for a duplicate");
        assert_eq!((appended.base_offset, appended.end), (base, model.end()), "{name}: the offsets of a new batch");
        if let Some((index, producer)) = owner.zip(producer) {
            if model.producers[index].epoch != producer.epoch {
                self.recent.retain(|(_, other, _)| *other != index);
            }
            (model.producers[index].epoch, model.producers[index].next) =
                (producer.epoch, producer.base_sequence.plus(records));
            self.recent.push((sent, index, base));
            let of_this = self.recent.iter().filter(|(_, other, _)| *other == index).count();
            if of_this > REMEMBERED_BATCHES {
                let oldest = self.recent.iter().position(|(_, other, _)| *other == index).expect("there are some");
                self.recent.remove(oldest);
            }
        }
        life.appends.set(life.appends.get() + 1);
        Ok(appended.end)
    }

    /// Sends one of the last batches of a producer again: it is known, and gets the offsets that it had.
    fn append_again(&mut self, again: usize, life: &Life, log: &Log, model: &Model) -> Result<Offset, AppendError> {
        let (sent, _, base) = &self.recent[again];
        let batch = validate_produce(&sent.bytes, wall_clock(), &RULES, &mut self.decompressors).expect("it was good");
        let appended = log.append(&batch, life.epoch)?;
        let name = &model.name;
        assert!(appended.duplicate, "{name}: the batch at {base} was taken twice, now at {}", appended.base_offset);
        assert_eq!(appended.base_offset, *base, "{name}: the offset of a duplicate");
        Ok(appended.end)
    }
}

async fn read_on(life: Rc<Life>, log: Log, model: Rc<RefCell<Model>>, mut random: Random) {
    let mut next = log.log_start();
    while !life.stop.get() {
        sleep(Duration::from_micros(300 + random.below(4_000))).await;
        let (start, committed) = (log.log_start(), log.committed_end());
        if random.happens(PerMillion(300_000)) {
            next = start.plus(random.below(committed.since(start) + 1));
        }
        let bytes_max = 1 + random.index(1 << 16);
        let limits = ReadLimits { bytes_max, end: committed, first_batch_whole: true };
        next = next.max(start);
        if let Some(end) = read_once(&life, &log, &model, next, limits).await {
            next = end;
        }
    }
}

/// Reads and checks; returns where to read on, or nothing after an error that faults explain.
async fn read_once(
    life: &Life,
    log: &Log,
    model: &Rc<RefCell<Model>>,
    from: Offset,
    limits: ReadLimits,
) -> Option<Offset> {
    let read = match log.read_tail(from, limits) {
        Some(batches) => Ok(batches),
        None => log.read(from, limits).await,
    };
    let model = model.borrow();
    match read {
        Ok(batches) => {
            model.check(from, limits, &batches);
            Some(batches.end)
        }
        Err(ReadError::OutOfRange { .. }) if from < log.log_start() => None,
        Err(ReadError::Io(_)) if life.faults.get() => None,
        Err(error) => panic!("{}: a read from {from}: {error}", model.name),
    }
}

/// Reads the whole log and checks it.
pub(crate) async fn read_all(life: &Life, log: &Log, model: &Rc<RefCell<Model>>) {
    let end = log.committed_end();
    assert_eq!(end, model.borrow().end(), "{}: all of an open log is committed", model.borrow().name);
    let mut next = log.log_start();
    while next < end {
        let limits = ReadLimits { bytes_max: 1 << 18, end, first_batch_whole: true };
        match read_once(life, log, model, next, limits).await {
            Some(behind) => next = behind,
            None => return,
        }
    }
}

async fn keep_up(life: Rc<Life>, log: Log, model: Rc<RefCell<Model>>, mut random: Random) {
    let pause_ms = 5 + random.below(60);
    while !life.stop.get() {
        sleep(Duration::from_millis(1 + random.below(pause_ms))).await;
        let faults = || life.faults.get();
        let done = log.checkpoint_if_due().await;
        assert!(done.is_ok() || faults(), "{}: a checkpoint: {done:?}", model.borrow().name);
        if life.storage.watch_disk(Path::new("/")).await.is_ok() && life.storage.is_disk_full() {
            model.borrow_mut().met_faults = true;
        }
        if model.borrow().options.retention_bytes.is_some() {
            let done = log.enforce_retention().await;
            assert!(done.is_ok() || faults(), "{}: retention: {done:?}", model.borrow().name);
        }
        if random.happens(PerMillion(60_000)) {
            delete(&life, &log, &model, &mut random).await;
        }
    }
}

async fn delete(life: &Life, log: &Log, model: &Rc<RefCell<Model>>, random: &mut Random) {
    let (start, committed) = (log.log_start(), log.committed_end());
    // Mostly a little, so that there is something left to look at.
    let share = *random.choose(&[10, 10, 10, 2, 1]);
    let before = start.plus(random.below(committed.since(start) / share + 1));
    {
        let mut model = model.borrow_mut();
        model.start_max = model.start_max.max(before);
    }
    let deleted: Result<Offset, DeleteRecordsError> = log.delete_records(before).await;
    let mut model = model.borrow_mut();
    match deleted {
        Ok(now) => {
            assert!(now >= before, "{}: starts at {now} after everything before {before} was deleted", model.name);
            model.start_min = model.start_min.max(now);
        }
        Err(DeleteRecordsError::NotDurable(_)) if life.faults.get() => {}
        Err(error) => panic!("{}: records before {before} are not deleted: {error}", model.name),
    }
}
