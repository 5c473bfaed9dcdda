//! The sparse index of one segment: where to start reading for an offset or for a time.
//!
//! One entry per `interval` bytes of batches. An entry is made at the start of a batch and says: this batch has that base
//! offset, lies at that position, and every batch *before* it has timestamps below or at that maximum. So a search for a
//! time can start at the last entry whose maximum lies below it, and misses nothing. Offsets, positions and maxima rise
//! along the list, which makes both searches binary and lets the stored form keep small differences (about 6 bytes each).
//!
//! The index is built alike during append and during a recovery scan, by [`SparseIndex::push`] for every batch. It reads
//! nothing from the segment itself.

use bytes::BufMut;

use super::codec::{DecodeError, Reader, put_count, put_optional, put_varint};
use crate::types::{Offset, Timestamp};

/// Entries of one segment at most: a segment of 2 GiB with an entry every 512 bytes. 24 bytes each in memory.
pub const INDEX_ENTRIES_MAX: usize = 4 << 20;

/// The smallest distance between two entries, in bytes; ties [`INDEX_ENTRIES_MAX`] to the largest segment.
pub const INDEX_INTERVAL_BYTES_MIN: u32 = 512;

/// Bytes of a stored entry at least: three varints.
const ENTRY_BYTES_MIN: usize = 3;

const _: () = assert!(INDEX_ENTRIES_MAX as u64 * INDEX_INTERVAL_BYTES_MIN as u64 >= 1 << 31);

/// A batch as the index sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexedBatch {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Where it begins in the segment, in bytes from the start of the file.
    pub position: u32,
    /// Its length in bytes.
    pub bytes: u32,
    /// The largest timestamp of its records, if they have any.
    pub max_timestamp: Option<Timestamp>,
}

/// An entry: what stands in the module's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    offset_delta: u32,
    position: u32,
    max_before: Option<Timestamp>,
}

/// The index of one segment. The batches that are pushed lie one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseIndex {
    base_offset: Offset,
    start: u32,
    interval: u32,
    entries: Vec<Entry>,
    max: Option<Timestamp>,
    /// Bytes of batches since the last entry, or since the start.
    uncovered: u64,
}

impl SparseIndex {
    /// The index of an empty segment whose first batch will have `base_offset` and lie at `start`, with an entry every
    /// `interval` bytes (at least [`INDEX_INTERVAL_BYTES_MIN`]).
    pub fn new(base_offset: Offset, start: u32, interval: u32) -> SparseIndex {
        let interval = interval.max(INDEX_INTERVAL_BYTES_MIN);
        SparseIndex { base_offset, start, interval, entries: Vec::new(), max: None, uncovered: 0 }
    }

    /// Takes note of the next batch of the segment.
    pub fn push(&mut self, batch: &IndexedBatch) {
        assert!(batch.base_offset >= self.base_offset && batch.position >= self.start);
        if self.uncovered >= u64::from(self.interval) && self.entries.len() < INDEX_ENTRIES_MAX {
            // A segment never spans 2^32 offsets; if one did, it would only be searched from an earlier entry.
            if let Ok(offset_delta) = u32::try_from(batch.base_offset.since(self.base_offset)) {
                let entry = Entry { offset_delta, position: batch.position, max_before: self.max };
                debug_assert!(self.entries.last().is_none_or(|last| last.position < entry.position));
                self.entries.push(entry);
                self.uncovered = 0;
            }
        }
        self.uncovered += u64::from(batch.bytes);
        self.max = self.max.max(batch.max_timestamp);
    }

    /// Where to start reading for the record at `offset`: the position of a batch that begins at or before it.
    pub fn position_for(&self, offset: Offset) -> u32 {
        let delta = offset.since(self.base_offset);
        let after = self.entries.partition_point(|entry| u64::from(entry.offset_delta) <= delta);
        self.position_before(after)
    }

    /// Where to start reading for the first record with a timestamp at or behind `at`: every batch before that position is
    /// older. There is such a record only if [`SparseIndex::max_timestamp`] is not below `at`; asked for that maximum itself,
    /// the search finds the first record that has it.
    pub fn position_for_time(&self, at: Timestamp) -> u32 {
        let after = self.entries.partition_point(|entry| entry.max_before.is_none_or(|max| max < at));
        self.position_before(after)
    }

    /// The offset of the first entry behind `position`: from there on batches are found without those before it.
    pub fn offset_behind(&self, position: u32) -> Option<Offset> {
        let after = self.entries.partition_point(|entry| entry.position <= position);
        self.entries.get(after).map(|entry| self.base_offset.plus(u64::from(entry.offset_delta)))
    }

    fn position_before(&self, index: usize) -> u32 {
        index.checked_sub(1).map_or(self.start, |index| self.entries[index].position)
    }

    /// The largest timestamp of the batches so far.
    pub fn max_timestamp(&self) -> Option<Timestamp> {
        self.max
    }

    /// The offset of the segment's first record.
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no entry; reading then starts at the segment's first batch.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets every batch at or behind `position`, and those before it back to the nearest entry. Returns where that is:
    /// the batches from there to `position` are to be pushed again.
    #[must_use]
    pub fn rewind(&mut self, position: u32) -> u32 {
        let kept = self.entries.partition_point(|entry| entry.position < position);
        self.entries.truncate(kept);
        let Some(last) = self.entries.pop() else {
            *self = SparseIndex::new(self.base_offset, self.start, self.interval);
            return self.start;
        };
        // The entry is made anew when its batch comes again.
        self.uncovered = u64::from(self.interval);
        self.max = last.max_before;
        last.position
    }

    /// Appends the index: interval, start and bytes since the last entry, the maximum, then per entry the differences of
    /// offset, position and maximum to the one before as varints. No maximum counts as 0, a maximum as one more than it is.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.put_u32(self.interval);
        bytes.put_u32(self.start);
        bytes.put_u64(self.uncovered);
        put_optional(bytes, self.max.map(Timestamp::millis));
        put_count(bytes, self.entries.len());
        let mut last = self.origin();
        for entry in &self.entries {
            put_varint(bytes, u64::from(entry.offset_delta - last.offset_delta));
            put_varint(bytes, u64::from(entry.position - last.position));
            put_varint(bytes, rank(entry.max_before) - rank(last.max_before));
            last = *entry;
        }
    }

    /// Reads what [`SparseIndex::encode`] wrote for the segment that begins at `base_offset`.
    ///
    /// # Errors
    /// Too few bytes, too many entries, or entries that do not rise.
    pub fn decode(reader: &mut Reader<'_>, base_offset: Offset) -> Result<SparseIndex, DecodeError> {
        let (interval, start, uncovered) = (reader.u32()?, reader.u32()?, reader.u64()?);
        if interval < INDEX_INTERVAL_BYTES_MIN {
            return Err(reader.wrong("index interval", "at least 512", interval.into()));
        }
        let max = reader.optional("maximum timestamp", Timestamp::new)?;
        let count = reader.count("index entries", INDEX_ENTRIES_MAX, ENTRY_BYTES_MIN)?;
        let mut index = SparseIndex { max, uncovered, ..SparseIndex::new(base_offset, start, interval) };
        index.entries.reserve_exact(count);
        let mut last = index.origin();
        for _ in 0..count {
            let delta = reader.varint("index offset")?;
            let position = reader.varint("index position")?;
            let later = reader.varint("index timestamp")?;
            let next = last.advanced(delta, position, later).filter(|next| next.max_before <= max);
            last = next.ok_or_else(|| reader.wrong("index entry", "behind the one before", delta.into()))?;
            index.entries.push(last);
        }
        Ok(index)
    }

    /// The entry that every index has without storing it: its first batch.
    fn origin(&self) -> Entry {
        Entry { offset_delta: 0, position: self.start, max_before: None }
    }
}

/// A maximum as a number that rises with it: 0 for none.
fn rank(max: Option<Timestamp>) -> u64 {
    max.map_or(0, |timestamp| timestamp.millis().unsigned_abs() + 1)
}

impl Entry {
    /// The entry that lies by these differences behind this one, if there can be such an entry.
    fn advanced(self, delta: u64, position: u64, later: u64) -> Option<Entry> {
        let offset_delta = u32::try_from(u64::from(self.offset_delta).checked_add(delta)?).ok()?;
        let position = u32::try_from(u64::from(self.position).checked_add(position)?).ok()?;
        let max_before = match rank(self.max_before).checked_add(later)?.checked_sub(1) {
            None => None,
            Some(millis) => Some(Timestamp::new(i64::try_from(millis).ok()?)?),
        };
        let behind = offset_delta > self.offset_delta && position > self.position;
        behind.then_some(Entry { offset_delta, position, max_before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::codec::hex;

    const BASE: i64 = 1000;
    const START: u32 = 4096;

    fn at(value: i64) -> Offset {
        Offset::new(value).expect("not negative")
    }

    fn time(value: i64) -> Timestamp {
        Timestamp::new(value).expect("not negative")
    }

    /// Batches of 10 records and 300 bytes with the given maxima (−1: no timestamp).
    fn batches(maxima: &[i64]) -> Vec<IndexedBatch> {
        let batch = |(number, &max): (usize, &i64)| IndexedBatch {
            base_offset: at(BASE + 10 * number as i64),
            position: START + 300 * number as u32,
            bytes: 300,
            max_timestamp: Timestamp::new(max),
        };
        maxima.iter().enumerate().map(batch).collect()
    }

    fn index(batches: &[IndexedBatch]) -> SparseIndex {
        let mut index = SparseIndex::new(at(BASE), START, 0);
        batches.iter().for_each(|batch| index.push(batch));
        index
    }

    #[test]
    fn offsets_find_the_last_entry_at_or_before_them() {
        let index = index(&batches(&[1; 9]));
        // An entry every second batch, since one of 300 bytes does not fill the interval of 512.
        assert_eq!(index.len(), 4);
        let cases = [(BASE, 0), (BASE + 19, 0), (BASE + 20, 2), (BASE + 39, 2), (BASE + 40, 4), (BASE + 999, 8)];
        for (offset, batch) in cases {
            assert_eq!(index.position_for(at(offset)), START + 300 * batch, "{offset}");
        }
        assert_eq!(index.position_for(at(0)), START, "an offset of an earlier segment");
    }

    #[test]
    fn a_search_by_time_starts_behind_older_batches_only() {
        let maxima = [5, 3, 9, 9, -1, 9, 40, 2, 60, 70, 1];
        let batches = batches(&maxima);
        let index = index(&batches);
        assert_eq!(index.max_timestamp(), Some(time(70)));
        for asked in 0..=70 {
            let first = batches.iter().find(|batch| batch.max_timestamp >= Some(time(asked))).expect("70 is there");
            let position = index.position_for_time(time(asked));
            assert!(position <= first.position, "{asked}");
            assert!(first.position - position <= 600, "{asked} starts more than an interval early");
        }
    }

    #[test]
    fn rewinding_and_pushing_again_gives_the_same_index() {
        let batches = batches(&[5, 3, 9, 9, -1, 9, 40, 2, 60, 70, 1]);
        for kept in 0..=batches.len() {
            let mark = START + 300 * kept as u32;
            let mut rewound = index(&batches);
            let from = rewound.rewind(mark);
            assert!(from <= mark);
            let again = batches.iter().filter(|batch| batch.position >= from && batch.position < mark);
            again.for_each(|batch| rewound.push(batch));
            assert_eq!(rewound, index(&batches[..kept]), "{kept} batches kept");
        }
    }

    #[test]
    fn an_index_without_timestamps_searches_from_the_last_entry() {
        let index = index(&batches(&[-1; 7]));
        assert_eq!(index.max_timestamp(), None);
        assert_eq!(index.position_for_time(time(0)), START + 1800);
    }

    #[test]
    fn the_format_is_frozen() {
        let index = index(&batches(&[-1, 5, 300, 300, 2, 2]));
        let mut bytes = Vec::new();
        index.encode(&mut bytes);
        let golden = "00000200000010000000000000000258000000000000012c0000000214d8040614d804a702";
        assert_eq!(hex(&bytes), golden);
        let mut reader = Reader::new("index", &bytes);
        assert_eq!(SparseIndex::decode(&mut reader, at(BASE)), Ok(index));
        assert_eq!(reader.finish(), Ok(()));
        for length in 0..bytes.len() {
            assert!(SparseIndex::decode(&mut Reader::new("index", &bytes[..length]), at(BASE)).is_err(), "{length}");
        }
    }

    #[test]
    fn entries_that_do_not_rise_are_refused() {
        for entry in [[0, 1, 0], [1, 0, 0], [1, 1, 9], [u64::MAX, 1, 0], [1, u64::MAX, 0], [1, 1, u64::MAX]] {
            let mut bytes = Vec::new();
            SparseIndex::new(at(BASE), START, 512).encode(&mut bytes);
            bytes.truncate(bytes.len() - 4);
            put_count(&mut bytes, 1);
            entry.into_iter().for_each(|value| put_varint(&mut bytes, value));
            let decoded = SparseIndex::decode(&mut Reader::new("index", &bytes), at(BASE));
            assert!(matches!(decoded, Err(DecodeError::Field { field: "index entry", .. })), "{entry:?}: {decoded:?}");
        }
    }
}
