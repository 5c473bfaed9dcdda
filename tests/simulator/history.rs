//! What clients of a broker know: what was sent, what was answered, what was seen; and what must follow from it.
//!
//! Checked as things are read and once more at the end, for each partition:
//!
//! - a batch that is read was sent to this partition, byte for byte, and was not refused;
//! - an acknowledged batch lies at its offset, once, unless it was deleted; with write caching a power cut may take what was
//!   acknowledged within the flush bound before it;
//! - what a consumer has seen at an offset stays there (without write caching);
//! - offsets are dense, no batch is there twice, and the batches of one producer and connection are in its order;
//! - the log start is not before what was deleted, nor behind what anybody asked to delete.
//!
//! A violation panics; the runner adds the seed.

use std::collections::BTreeMap;

use corelane::record::{BatchScanner, Decompressors, RecordBatch};
use corelane::runtime::{Duration, Instant};

use crate::payload::{Sent, Stamp};

/// What became of a batch, as far as its client knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Not known, or not yet.
    Unknown,
    /// Acknowledged at this offset, at this time.
    Acknowledged { base: i64, at: Instant },
    /// Acknowledged, and a power cut came within the flush bound.
    Excused { base: i64 },
    /// Refused for good: it must never be seen.
    Refused { code: i16 },
}

struct Known {
    sent: Sent,
    /// The connection that it was first sent on, if order is only kept within one.
    connection: Option<u64>,
    fate: Fate,
}

/// What holds for a topic's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Promise {
    /// With write caching: after this time an acknowledged record is on stable storage.
    pub(crate) flush_bound: Option<Duration>,
    /// Whether old segments may go by themselves.
    pub(crate) retention: bool,
}

/// What is known of one partition.
pub(crate) struct PartitionHistory {
    name: String,
    pub(crate) number: u64,
    promise: Promise,
    known: BTreeMap<(u64, u64), Known>,
    seen: BTreeMap<i64, Stamp>,
    /// The log start at least, and at most unless there is retention.
    pub(crate) start_min: i64,
    pub(crate) start_max: i64,
    pub(crate) high_watermark: i64,
    pub(crate) acknowledged: u64,
    /// With write caching: when the machine lost power for the last time.
    last_cut: Option<Instant>,
    decompressors: Decompressors,
}

/// What the bytes of a Fetch answer hold.
pub(crate) struct Seen {
    /// Where to read on.
    pub(crate) end: i64,
    pub(crate) batches: u64,
}

impl PartitionHistory {
    pub(crate) fn new(name: String, number: u64, promise: Promise) -> PartitionHistory {
        PartitionHistory {
            name,
            number,
            promise,
            known: BTreeMap::new(),
            seen: BTreeMap::new(),
            start_min: 0,
            start_max: 0,
            high_watermark: 0,
            acknowledged: 0,
            last_cut: None,
            decompressors: Decompressors::new(),
        }
    }

    pub(crate) fn is_cached(&self) -> bool {
        self.promise.flush_bound.is_some()
    }

    /// A batch is about to be sent for the first time.
    pub(crate) fn sent(&mut self, sent: Sent, connection: Option<u64>) {
        let key = (sent.stamp.producer, sent.stamp.number);
        let before = self.known.insert(key, Known { sent, connection, fate: Fate::Unknown });
        assert!(before.is_none(), "{}: a stamp is used once", self.name);
    }

    /// An acknowledgement has come, on a connection made at `connected`.
    pub(crate) fn acknowledged(&mut self, stamp: Stamp, base: i64, connected: Instant, at: Instant) {
        let name = &self.name;
        let known = self.known.get_mut(&(stamp.producer, stamp.number)).expect("it was sent");
        assert!(base >= 0, "{name}: {stamp:?} is acknowledged at {base}");
        assert_eq!(known.fate, Fate::Unknown, "{name}: {stamp:?} is answered twice");
        // It may have been under way when the power went.
        let is_late = self.last_cut.is_some_and(|cut| connected <= cut);
        known.fate = if is_late { Fate::Excused { base } } else { Fate::Acknowledged { base, at } };
        self.acknowledged += 1;
        if let Some(other) = self.seen.get(&base) {
            assert_eq!(*other, stamp, "{name}: acknowledged at {base}, where a consumer saw another batch");
        }
    }

    pub(crate) fn refused(&mut self, stamp: Stamp, code: i16) {
        let known = self.known.get_mut(&(stamp.producer, stamp.number)).expect("it was sent");
        known.fate = Fate::Refused { code };
    }

    /// The machine lost power at `at`; with `faults` a flush may have taken any time.
    pub(crate) fn power_cut(&mut self, at: Instant, faults: bool) {
        let Some(bound) = self.promise.flush_bound else { return };
        self.last_cut = Some(at);
        for known in self.known.values_mut() {
            if let Fate::Acknowledged { base, at: acknowledged } = known.fate
                && (faults || at.since(acknowledged) <= bound)
            {
                known.fate = Fate::Excused { base };
            }
        }
        self.high_watermark = 0;
    }

    /// A broker told its high watermark. Answers of several connections may overtake each other.
    pub(crate) fn told_high_watermark(&mut self, now: i64) {
        self.high_watermark = self.high_watermark.max(now);
    }

    /// Checks the records that a fetch from `from` gave, below the high watermark of the same answer.
    pub(crate) fn fetched(&mut self, from: i64, high_watermark: i64, records: &[u8]) -> Seen {
        let mut next = from;
        let mut batches = 0;
        for batch in BatchScanner::new(records, 0, usize::MAX) {
            let batch = batch.unwrap_or_else(|error| panic!("{}: a fetch from {from} gave {error}", self.name));
            let (base, end) = (batch.base_offset().value(), batch.next_offset().value());
            let name = &self.name;
            assert!(end <= high_watermark, "{name}: a batch up to {end} above the high watermark {high_watermark}");
            if batches == 0 {
                assert!(base <= from && from < end, "{name}: a fetch from {from} begins with {base}..{end}");
            } else {
                assert_eq!(base, next, "{name}: a fetch skips offsets");
            }
            let stamp = self.check(&batch);
            if !self.is_cached() {
                let before = *self.seen.entry(base).or_insert(stamp);
                assert_eq!(before, stamp, "{}: at {base} there was another batch before", self.name);
            }
            next = end;
            batches += 1;
        }
        Seen { end: next, batches }
    }

    /// Checks a batch against what was sent.
    fn check(&mut self, batch: &RecordBatch<'_>) -> Stamp {
        let (name, base) = (&self.name, batch.base_offset().value());
        let stamp = Stamp::of(batch, &mut self.decompressors);
        let stamp = stamp.unwrap_or_else(|| panic!("{name}: nobody sent the batch at {base}"));
        assert_eq!(stamp.log, self.number, "{name}: at {base} lies a batch of another partition: {stamp:?}");
        let known = self.known.get(&(stamp.producer, stamp.number));
        let known = known.unwrap_or_else(|| panic!("{name}: {stamp:?} at {base} was never sent"));
        assert!(
            batch.records() == &known.sent.bytes[corelane::record::HEADER_BYTES..],
            "{name}: {stamp:?} at {base} has other records than those sent"
        );
        match known.fate {
            Fate::Acknowledged { base: told, .. } | Fate::Excused { base: told } => {
                assert_eq!(base, told, "{name}: {stamp:?} was acknowledged at another offset");
            }
            Fate::Refused { code } => panic!("{name}: {stamp:?} at {base} was refused with {code}"),
            Fate::Unknown => {}
        }
        stamp
    }

    /// Checks the log start that an answer tells.
    pub(crate) fn told_start(&mut self, start: i64) {
        let name = &self.name;
        assert!(start >= self.start_min, "{name}: starts at {start}, {} were deleted", self.start_min);
        assert!(
            start <= self.start_max || self.promise.retention,
            "{name}: starts at {start}, nobody deleted more than {}",
            self.start_max
        );
        self.start_min = start;
        self.start_max = self.start_max.max(start);
    }

    /// Checks the whole of the partition: `batches` are all of them from the log start on, as (base, stamp).
    pub(crate) fn whole(&self, start: i64, batches: &BTreeMap<i64, Stamp>) {
        let name = &self.name;
        let mut places: BTreeMap<(u64, u64), i64> = BTreeMap::new();
        for (&base, stamp) in batches {
            let before = places.insert((stamp.producer, stamp.number), base);
            assert!(before.is_none(), "{name}: {stamp:?} is there twice, at {} and {base}", before.unwrap_or_default());
        }
        for (key, known) in &self.known {
            if let Fate::Acknowledged { base, at } = known.fate
                && base >= start
            {
                assert!(
                    places.contains_key(key),
                    "{name}: {:?} was acknowledged at {base} ({at:?}) and is lost ({:?})",
                    known.sent.stamp,
                    self.promise
                );
            }
        }
        for (&base, stamp) in self.seen.range(start..) {
            assert_eq!(batches.get(&base), Some(stamp), "{name}: a consumer saw {stamp:?} at {base}");
        }
        let mut last: BTreeMap<(u64, Option<u64>), u64> = BTreeMap::new();
        for stamp in batches.values() {
            let connection = self.known.get(&(stamp.producer, stamp.number)).and_then(|known| known.connection);
            let before = last.insert((stamp.producer, connection), stamp.number);
            assert!(before.is_none_or(|before| before < stamp.number), "{name}: {stamp:?} came before {before:?}");
        }
    }

    /// The stamps of a fetch's batches by their base offset, without the checks.
    pub(crate) fn stamps(&mut self, records: &[u8]) -> Vec<(i64, Stamp)> {
        let batches = BatchScanner::new(records, 0, usize::MAX).filter_map(Result::ok);
        let decompressors = &mut self.decompressors;
        batches.filter_map(|batch| Some((batch.base_offset().value(), Stamp::of(&batch, decompressors)?))).collect()
    }
}
