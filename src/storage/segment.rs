//! A segment as the log keeps it in memory, and points of a log.
//!
//! A segment is *active* while batches go into it, *ended* once the log has rolled past it, *sealed* once its seal is durable;
//! then its index is dropped from memory and read back when it is needed. It is *retired* when retention has taken it out of
//! the log: its file is unlinked after the last reader that had found it before. This file does no I/O.

use core::time::Duration;
use std::cell::{Cell, RefCell};

use super::checkpoint::SegmentSummary;
use super::epochs::LeaderEpochs;
use super::format::{FIRST_BATCH_AT, SegmentHeader};
use super::index::SparseIndex;
use super::options::LogOptions;
use super::producers::ProducerStates;
use super::retention::SegmentAge;
use crate::runtime::Instant;
use crate::runtime::sync::Notify;
use crate::types::{Offset, Timestamp};

/// A point of a log: a byte position in a segment, and the offset of the record that begins there. Points of one log are
/// ordered alike by place and by offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LogPoint {
    /// The segment.
    pub sequence: u64,
    /// Bytes from the start of its file.
    pub position: u64,
    /// The offset of what begins there.
    pub offset: Offset,
}

impl LogPoint {
    /// Where the first batch of a segment lies.
    pub(super) fn start_of(header: &SegmentHeader) -> LogPoint {
        LogPoint { sequence: header.sequence, position: FIRST_BATCH_AT, offset: header.base_offset }
    }

    /// Segment and position.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.sequence, self.position)
    }
}

/// A position in a segment, as indexes and checkpoints have it.
pub(super) fn position_u32(position: u64) -> u32 {
    u32::try_from(position).expect("segments end below 2 GiB")
}

/// The age of something, counted by the monotonic clock; what passed before the process started is brought along.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    since: Instant,
    before: Duration,
}

impl Age {
    /// Zero at `now`.
    pub(super) fn new(now: Instant) -> Age {
        Age { since: now, before: Duration::ZERO }
    }

    /// What the wall clock says has passed since `created`. A clock that was set back gives zero.
    pub(super) fn from_wall_clock(created: Timestamp, wall_clock: Timestamp, now: Instant) -> Age {
        Age { since: now, before: Duration::from_millis(wall_clock.millis_since(created)) }
    }

    /// The age at `now`.
    pub(super) fn at(&self, now: Instant) -> Duration {
        now.since(self.since).saturating_add(self.before)
    }
}

/// A segment.
pub(super) struct Segment {
    pub header: SegmentHeader,
    /// The index, while it is not only in the seal.
    pub index: RefCell<Option<SparseIndex>>,
    /// Where it ends, once the log has rolled.
    pub end: Cell<Option<LogPoint>>,
    /// The largest timestamp, once it has ended.
    pub max_timestamp: Cell<Option<Timestamp>>,
    /// The wall clock when it ended.
    pub ended_at: Cell<Option<Timestamp>>,
    /// From when on retention counts its age; set when retention first sees it.
    pub age: Cell<Option<SegmentAge>>,
    /// Epochs and producers at its end, for the seal.
    pub at_end: RefCell<Option<Box<(LeaderEpochs, ProducerStates)>>>,
    /// The age of its first batch; `None` while it is empty.
    pub first_batch: Cell<Option<Age>>,
    /// Whether its seal is durable.
    pub sealed: Cell<bool>,
    readers: Cell<u32>,
    drained: Notify,
}

impl Segment {
    /// An empty segment, to be the active one.
    pub(super) fn new(header: SegmentHeader, options: &LogOptions) -> Segment {
        let index = SparseIndex::new(header.base_offset, position_u32(FIRST_BATCH_AT), options.index_interval_bytes);
        Segment {
            header,
            index: RefCell::new(Some(index)),
            end: Cell::new(None),
            max_timestamp: Cell::new(None),
            ended_at: Cell::new(None),
            age: Cell::new(None),
            at_end: RefCell::new(None),
            first_batch: Cell::new(None),
            sealed: Cell::new(false),
            readers: Cell::new(0),
            drained: Notify::new(),
        }
    }

    /// Its number.
    pub(super) fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// The offset of its first record.
    pub(super) fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    /// Ends it at the wall clock's `now`: the log goes on elsewhere.
    pub(super) fn finish(&self, end: LogPoint, now: Timestamp) {
        assert!(end.sequence == self.sequence() && end.offset >= self.base_offset() && self.end.get().is_none());
        self.max_timestamp.set(self.index.borrow().as_ref().and_then(SparseIndex::max_timestamp));
        self.ended_at.set(Some(now));
        self.end.set(Some(end));
    }

    /// What a checkpoint says of it, in a log that goes up to `log_end`.
    pub(super) fn summary(&self, log_end: LogPoint) -> SegmentSummary {
        let end = self.end.get().filter(|end| *end <= log_end).unwrap_or(log_end);
        SegmentSummary {
            sequence: self.sequence(),
            base_offset: self.base_offset(),
            next_offset: end.offset,
            bytes: position_u32(end.position),
            max_timestamp: self.max_timestamp(),
            sealed_at: self.ended_at.get(),
        }
    }

    /// The largest timestamp of its batches, accepted ones included.
    pub(super) fn max_timestamp(&self) -> Option<Timestamp> {
        if self.end.get().is_some() {
            return self.max_timestamp.get();
        }
        self.index.borrow().as_ref().and_then(SparseIndex::max_timestamp)
    }

    /// Waits until nobody reads from its file. The log has let go of it, so nobody begins to.
    pub(super) async fn drained(&self) {
        while self.readers.get() > 0 {
            self.drained.notified().await;
        }
    }
}

/// A reader of a segment's file: while it lives, the file is not unlinked.
pub(super) struct SegmentReader {
    segment: std::rc::Rc<Segment>,
}

impl SegmentReader {
    pub(super) fn new(segment: std::rc::Rc<Segment>) -> SegmentReader {
        segment.readers.set(segment.readers.get() + 1);
        SegmentReader { segment }
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }
}

impl Drop for SegmentReader {
    fn drop(&mut self) {
        let left = self.segment.readers.get() - 1;
        self.segment.readers.set(left);
        if left == 0 {
            self.segment.drained.notify();
        }
    }
}
