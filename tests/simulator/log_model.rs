//! What must be true of one log: every batch it has accepted, and how much of that no crash may take.
//!
//! With one appender the log's content is known exactly: after a crash it is what was accepted, cut at the end of a batch,
//! and the cut lies nowhere before what was promised. Every batch that is read is compared byte for byte. A violation
//! panics with the log's name; the runner adds the seed.

use std::path::PathBuf;
use std::rc::Rc;

use corelane::record::{BatchScanner, Producer, ScanError};
use corelane::runtime::{Duration, Instant};
use corelane::storage::{Batches, LogOptions, ReadLimits};
use corelane::types::{Offset, ProducerEpoch, ProducerId, Sequence, TopicPartition};

/// What ended a life of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It was closed.
    Closed,
    /// Its process was killed, at this time.
    Killed(Instant),
    /// Its machine lost power, at this time.
    PowerCut(Instant),
}

impl End {
    /// What two ends in a row are, if the log was not opened in between.
    fn then(self, next: End) -> End {
        match (self, next) {
            // What was killed flushes nothing any more, and loses what it had not flushed by then.
            (End::Killed(at), End::PowerCut(_)) => End::PowerCut(at),
            _ => self,
        }
    }
}

/// A batch that was accepted.
pub(crate) struct Accepted {
    pub(crate) base: Offset,
    pub(crate) records: u32,
    /// As it lies in the log.
    pub(crate) bytes: Rc<[u8]>,
    /// Which of the model's producers made it, and in which sequence.
    pub(crate) producer: Option<(usize, Producer)>,
}

impl Accepted {
    pub(crate) fn end(&self) -> Offset {
        self.base.plus(u64::from(self.records))
    }
}

/// A producer of the log.
pub(crate) struct ModelProducer {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    pub(crate) next: Sequence,
}

/// A log and what is known of it.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) partition: TopicPartition,
    pub(crate) directory: PathBuf,
    pub(crate) options: LogOptions,
    pub(crate) created: bool,
    /// Whether it is open in this life.
    pub(crate) open: bool,
    /// How the last life ended in which it was open.
    pub(crate) ended: End,
    pub(crate) batches: Vec<Accepted>,
    pub(crate) producers: Vec<ModelProducer>,
    /// The committed end that was told last.
    pub(crate) committed: Offset,
    /// The durable end when it was told.
    pub(crate) durable: Offset,
    /// With write caching: each committed end and when it was told.
    pub(crate) told: Vec<(Offset, Instant)>,
    /// The log start that is durable at least.
    pub(crate) start_min: Offset,
    /// The log start that anybody asked for at most.
    pub(crate) start_max: Offset,
    /// Whether this life met a fault of the disk: then the time of a flush is not bounded.
    pub(crate) met_faults: bool,
}

/// What the flush bound of a topic leaves open: the timer's tick, the flush itself on a busy disk, the steps of the writer.
const FLUSH_SLACK: Duration = Duration::from_millis(100);

impl Model {
    pub(crate) fn new(partition: TopicPartition, directory: PathBuf, options: LogOptions, producers: usize) -> Model {
        let zero = |number: usize| ModelProducer {
            id: ProducerId::new(1000 + number as i64).expect("not negative"),
            epoch: ProducerEpoch::new(0).expect("not negative"),
            next: Sequence::new(0).expect("not negative"),
        };
        Model {
            name: directory.display().to_string(),
            partition,
            directory,
            options,
            created: false,
            open: false,
            ended: End::Closed,
            batches: Vec::new(),
            producers: (0..producers).map(zero).collect(),
            committed: Offset::ZERO,
            durable: Offset::ZERO,
            told: Vec::new(),
            start_min: Offset::ZERO,
            start_max: Offset::ZERO,
            met_faults: false,
        }
    }

    /// The end of what was accepted.
    pub(crate) fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, Accepted::end)
    }

    /// The batch that holds `offset`.
    pub(crate) fn find(&self, offset: Offset) -> Option<usize> {
        let index = self.batches.partition_point(|batch| batch.end() <= offset);
        (index < self.batches.len()).then_some(index)
    }

    /// The log has told a committed end.
    pub(crate) fn committed(&mut self, end: Offset, durable: Offset, now: Instant) {
        let name = &self.name;
        assert!(end > self.committed, "{name}: the committed end goes from {} to {end}", self.committed);
        assert!(end <= self.end(), "{name}: {end} is committed, {} was accepted", self.end());
        self.committed = end;
        self.durable = durable;
        if self.options.write_caching {
            self.told.push((end, now));
        }
    }

    /// A life has ended.
    pub(crate) fn end_life(&mut self, end: End) {
        self.ended = if self.open { end } else { self.ended.then(end) };
        self.open = false;
    }

    /// The end that must be there after `end` of a life.
    fn promised(&self, end: End) -> Offset {
        match end {
            End::Closed => self.end(),
            End::Killed(_) => self.committed,
            End::PowerCut(_) if !self.options.write_caching => self.committed,
            End::PowerCut(_) if self.met_faults => self.durable,
            End::PowerCut(at) => {
                let bound = self.options.flush_interval + FLUSH_SLACK;
                let flushed = self.told.iter().rev().find(|(_, told)| at.since(*told) > bound);
                flushed.map_or(self.durable, |&(end, _)| end.max(self.durable))
            }
        }
    }

    /// The log was opened again and says where it starts and ends.
    pub(crate) fn reopened(&mut self, start: Offset, end: Offset) {
        let (name, ended) = (&self.name, self.ended);
        let promised = self.promised(ended);
        assert!(
            end >= promised,
            "{name}: ends at {end} after {ended:?}, {promised} was promised (durable {}, flush interval {:?}, told {:?})",
            self.durable,
            self.options.flush_interval,
            self.told.iter().rev().take(6).collect::<Vec<_>>()
        );
        assert!(end <= self.end(), "{name}: ends at {end} after {ended:?}, {} was accepted", self.end());
        assert!(start >= self.start_min, "{name}: starts at {start}, records before {} were deleted", self.start_min);
        assert!(start <= end, "{name}: starts at {start} and ends at {end}");
        assert!(
            start <= self.start_max || self.options.retention_bytes.is_some(),
            "{name}: starts at {start}, nobody deleted more than {}",
            self.start_max
        );
        self.cut(end);
        self.start_min = start;
        self.start_max = self.start_max.max(start);
        self.open = true;
        self.met_faults = false;
    }

    fn cut(&mut self, end: Offset) {
        let kept = self.batches.partition_point(|batch| batch.end() <= end);
        self.batches.truncate(kept);
        assert_eq!(self.end(), end, "{}: the end is not that of a batch that was accepted", self.name);
        (self.committed, self.durable) = (end, end);
        self.told.clear();
        for (index, producer) in self.producers.iter_mut().enumerate() {
            let last = self.batches.iter().rev().find_map(|batch| {
                batch.producer.filter(|&(owner, _)| owner == index).map(|(_, stamp)| (stamp, batch.records))
            });
            let zero = Sequence::new(0).expect("not negative");
            (producer.epoch, producer.next) = match last {
                Some((stamp, records)) => (stamp.epoch, stamp.base_sequence.plus(records)),
                None => (ProducerEpoch::new(0).expect("not negative"), zero),
            };
        }
    }

    /// Checks what a read from `from` gave.
    pub(crate) fn check(&self, from: Offset, limits: ReadLimits, read: &Batches) {
        let name = &self.name;
        let mut bytes = Vec::with_capacity(read.bytes);
        read.slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        assert_eq!(bytes.len(), read.bytes, "{name}: the slices add up");
        let scanner = BatchScanner::new(&bytes, 0, usize::MAX);
        let mut expected = self.find(from);
        let mut end = from;
        for batch in scanner {
            let batch = batch.unwrap_or_else(|error: ScanError| panic!("{name}: a read from {from} gave {error}"));
            let known = expected.and_then(|index| self.batches.get(index));
            let known = known.unwrap_or_else(|| panic!("{name}: a read from {from} gave more than was accepted"));
            assert!(
                *batch.bytes() == *known.bytes,
                "{name}: at {} lies another batch than the one accepted (base {}, {} bytes for {})",
                known.base,
                batch.base_offset(),
                batch.bytes().len(),
                known.bytes.len()
            );
            end = known.end();
            assert!(end <= limits.end, "{name}: a read up to {} gave a batch up to {end}", limits.end);
            expected = expected.map(|index| index + 1);
        }
        assert_eq!(read.end, end, "{name}: where to read on");
        assert!(end > from || from >= limits.end, "{name}: a read from {from} up to {} gave nothing", limits.end);
    }
}
