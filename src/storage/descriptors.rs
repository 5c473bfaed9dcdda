//! A bounded cache of sealed segments that are open for reading: file and index.
//!
//! Least recently used goes first. An entry is shared with the reads that use it, so one that falls out while it is read
//! stays open until the read ends. Active segments are not in it: their log holds them open.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::index::SparseIndex;
use crate::runtime::File;

/// A segment by the number of its log and its sequence.
pub(super) type SegmentKey = (u64, u64);

/// A segment that has ended, open for reading.
pub(super) struct OpenSegment {
    pub file: File,
    /// Its index; `None` while the log still has it in memory.
    pub index: Option<SparseIndex>,
}

struct Entry {
    segment: Rc<OpenSegment>,
    used: u64,
}

/// The cache.
pub(super) struct Descriptors {
    entries: RefCell<HashMap<SegmentKey, Entry>>,
    entries_max: usize,
    uses: Cell<u64>,
}

impl Descriptors {
    /// An empty cache of at most `entries_max` segments, at least one.
    pub(super) fn new(entries_max: usize) -> Descriptors {
        Descriptors { entries: RefCell::default(), entries_max: entries_max.max(1), uses: Cell::new(0) }
    }

    fn next_use(&self) -> u64 {
        self.uses.set(self.uses.get() + 1);
        self.uses.get()
    }

    /// The segment, if it is open.
    pub(super) fn find(&self, key: SegmentKey) -> Option<Rc<OpenSegment>> {
        let used = self.next_use();
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&key)?;
        entry.used = used;
        Some(entry.segment.clone())
    }

    /// Keeps a segment open. If somebody else opened it meanwhile, theirs is kept.
    pub(super) fn keep(&self, key: SegmentKey, segment: OpenSegment) -> Rc<OpenSegment> {
        let used = self.next_use();
        let mut entries = self.entries.borrow_mut();
        if !entries.contains_key(&key) && entries.len() >= self.entries_max {
            // A miss costs an open and the read of a seal, beside which a pass over some hundred entries is nothing.
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            oldest.and_then(|key| entries.remove(&key));
        }
        let entry = entries.entry(key).or_insert_with(|| Entry { segment: Rc::new(segment), used });
        entry.segment.clone()
    }

    /// Closes the segment once its reads have ended.
    pub(super) fn forget(&self, key: SegmentKey) {
        self.entries.borrow_mut().remove(&key);
    }

    /// Closes all segments of a log.
    pub(super) fn forget_log(&self, log: u64) {
        self.entries.borrow_mut().retain(|key, _| key.0 != log);
    }
}
