//! The leader epochs of a log: which epoch wrote from which offset on.
//!
//! A list of (epoch, start offset), both strictly rising; an epoch ends where the next begins, the last one at the log end.
//! Two replicas find the point where they part by comparing these lists instead of their ends, so that nothing that was
//! committed is cut away. An epoch that wrote nothing has no entry.
//!
//! Sources: KIP-101 (epochs instead of the high watermark), KIP-279 (the answer names the largest epoch not above the asked
//! one), KIP-320.

use bytes::BufMut;

use super::codec::{DecodeError, Reader, put_count};
use crate::types::{LeaderEpoch, Offset};

/// Epochs that are kept at most: a change of leader every minute for 45 days within the retained log. 12 bytes each. Beyond
/// it the oldest are merged into their successor, which makes a divergence that old be answered with an earlier offset.
pub const EPOCHS_MAX: usize = 65_536;
const ENTRY_BYTES: usize = 12;

/// An epoch and the offset of its first record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The offset of the first record that it wrote.
    pub start: Offset,
}

/// An epoch and where it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The largest known epoch not above the asked one, or the asked one if all known ones are above it.
    pub epoch: LeaderEpoch,
    /// The offset behind its last record.
    pub end: Offset,
}

/// The epochs of one log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// The epochs of a log that holds nothing.
    pub fn new() -> LeaderEpochs {
        LeaderEpochs::default()
    }

    /// Notes that `epoch` writes the record at `start`. Cheap and without effect while the epoch stays the same.
    ///
    /// What contradicts it goes: entries of this or a higher epoch, and entries that start at or behind `start`.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) {
        if self.latest().is_some_and(|latest| latest.epoch == epoch && latest.start <= start) {
            return;
        }
        while self.latest().is_some_and(|latest| latest.epoch >= epoch || latest.start >= start) {
            self.entries.pop();
        }
        if self.entries.len() == EPOCHS_MAX {
            // The second oldest takes over from where the oldest began.
            let start = self.entries[0].start;
            self.entries.remove(0);
            self.entries[0].start = start;
        }
        self.entries.push(EpochStart { epoch, start });
    }

    /// The newest epoch that wrote a record.
    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// All epochs, oldest first.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The epoch that wrote the record at `offset`; `None` before the first known one. `offset` lies below the log end.
    pub fn epoch_for(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start <= offset);
        after.checked_sub(1).map(|index| self.entries[index].epoch)
    }

    /// Where the largest epoch not above `epoch` ends in a log that ends at `log_end`; `None` if `epoch` is above all
    /// known ones, so that this log cannot say.
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        let latest = self.latest()?;
        if epoch == latest.epoch {
            return Some(EpochEnd { epoch, end: log_end });
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end = self.entries.get(next)?.start;
        let epoch = next.checked_sub(1).map_or(epoch, |index| self.entries[index].epoch);
        Some(EpochEnd { epoch, end })
    }

    /// Forgets epochs that wrote nothing below `end`, the new log end.
    pub fn truncate_end(&mut self, end: Offset) {
        let kept = self.entries.partition_point(|entry| entry.start < end);
        self.entries.truncate(kept);
    }

    /// Forgets epochs that wrote nothing at or behind `start`, the new log start; the one that wrote it begins there now.
    pub fn truncate_start(&mut self, start: Offset) {
        let after = self.entries.partition_point(|entry| entry.start <= start);
        let Some(covering) = after.checked_sub(1) else { return };
        self.entries.drain(..covering);
        self.entries[0].start = start;
    }

    /// Appends the list: a count, then 12 bytes per epoch.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        put_count(bytes, self.entries.len());
        for entry in &self.entries {
            bytes.put_i32(entry.epoch.value());
            bytes.put_i64(entry.start.value());
        }
    }

    /// Reads what [`LeaderEpochs::encode`] wrote.
    ///
    /// # Errors
    /// Too few bytes, too many entries, negative numbers, or a list that does not rise.
    pub fn decode(reader: &mut Reader<'_>) -> Result<LeaderEpochs, DecodeError> {
        let count = reader.count("leader epochs", EPOCHS_MAX, ENTRY_BYTES)?;
        let mut entries: Vec<EpochStart> = Vec::with_capacity(count);
        for _ in 0..count {
            let number = reader.i32()?;
            let epoch = LeaderEpoch::new(number);
            let epoch = epoch.ok_or_else(|| reader.wrong("leader epoch", "not negative", number.into()))?;
            let start = reader.checked("leader epoch start", Offset::new)?;
            if entries.last().is_some_and(|last| last.epoch >= epoch || last.start >= start) {
                return Err(reader.wrong("leader epoch", "above the one before, as its start", number.into()));
            }
            entries.push(EpochStart { epoch, start });
        }
        Ok(LeaderEpochs { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::codec::hex;

    fn epoch(value: i32) -> LeaderEpoch {
        LeaderEpoch::new(value).expect("not negative")
    }

    fn at(value: i64) -> Offset {
        Offset::new(value).expect("not negative")
    }

    fn epochs(list: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::new();
        for &(number, start) in list {
            epochs.assign(epoch(number), at(start));
        }
        epochs
    }

    fn list(epochs: &LeaderEpochs) -> Vec<(i32, i64)> {
        epochs.entries().iter().map(|entry| (entry.epoch.value(), entry.start.value())).collect()
    }

    #[test]
    fn epoch_zero_is_kept_and_repetition_changes_nothing() {
        let epochs = epochs(&[(0, 0), (0, 5), (0, 9), (2, 20), (2, 21)]);
        assert_eq!(list(&epochs), [(0, 0), (2, 20)]);
    }

    #[test]
    fn what_contradicts_a_new_epoch_goes() {
        assert_eq!(list(&epochs(&[(1, 0), (2, 10), (3, 20), (4, 10)])), [(1, 0), (4, 10)]);
        assert_eq!(list(&epochs(&[(1, 0), (4, 10), (3, 20)])), [(1, 0), (3, 20)]);
        assert_eq!(list(&epochs(&[(1, 10), (1, 5)])), [(1, 5)]);
    }

    #[test]
    fn offsets_find_their_epoch() {
        let epochs = epochs(&[(1, 5), (3, 20)]);
        let found = |offset| epochs.epoch_for(at(offset)).map(LeaderEpoch::value);
        assert_eq!([found(4), found(5), found(19), found(20), found(99)], [None, Some(1), Some(1), Some(3), Some(3)]);
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let epochs = epochs(&[(2, 10), (4, 20), (5, 30)]);
        let end = |asked| epochs.end_offset_for(epoch(asked), at(40)).map(|end| (end.epoch.value(), end.end.value()));
        assert_eq!(end(1), Some((1, 10)), "older than all: its end is where the first begins");
        assert_eq!(end(2), Some((2, 20)));
        assert_eq!(end(3), Some((2, 20)), "unknown: the largest below it");
        assert_eq!(end(4), Some((4, 30)));
        assert_eq!(end(5), Some((5, 40)), "the newest ends at the log end");
        assert_eq!(end(6), None);
        assert_eq!(LeaderEpochs::new().end_offset_for(epoch(0), at(0)), None);
    }

    #[test]
    fn truncation_keeps_the_epoch_that_covers_the_edge() {
        let all = epochs(&[(0, 0), (1, 10), (2, 20)]);
        for (end, kept) in [(0, 0), (1, 1), (10, 1), (11, 2), (20, 2), (21, 3)] {
            let mut cut = all.clone();
            cut.truncate_end(at(end));
            assert_eq!(cut.entries().len(), kept, "end {end}");
        }
        for (start, rest) in [
            (0, vec![(0, 0), (1, 10), (2, 20)]),
            (9, vec![(0, 9), (1, 10), (2, 20)]),
            (10, vec![(1, 10), (2, 20)]),
            (50, vec![(2, 50)]),
        ] {
            let mut cut = all.clone();
            cut.truncate_start(at(start));
            assert_eq!(list(&cut), rest, "start {start}");
        }
        let mut later = epochs(&[(3, 100)]);
        later.truncate_start(at(50));
        assert_eq!(list(&later), [(3, 100)]);
    }

    #[test]
    fn the_format_is_frozen() {
        let epochs = epochs(&[(0, 0), (7, 256)]);
        let mut bytes = Vec::new();
        epochs.encode(&mut bytes);
        assert_eq!(hex(&bytes), "00000002000000000000000000000000000000070000000000000100");
        let mut reader = Reader::new("epochs", &bytes);
        assert_eq!(LeaderEpochs::decode(&mut reader), Ok(epochs));
        assert_eq!(reader.finish(), Ok(()));
        for length in 0..bytes.len() {
            assert!(LeaderEpochs::decode(&mut Reader::new("epochs", &bytes[..length])).is_err(), "{length}");
        }
    }

    #[test]
    fn lists_that_do_not_rise_are_refused() {
        for wrong in [[(1, 0), (1, 5)], [(2, 0), (1, 5)], [(1, 5), (2, 5)], [(-1, 0), (2, 5)], [(1, -1), (2, 5)]] {
            let mut bytes = Vec::new();
            put_count(&mut bytes, 2);
            for (epoch, start) in wrong {
                bytes.put_i32(epoch);
                bytes.put_i64(start);
            }
            let decoded = LeaderEpochs::decode(&mut Reader::new("epochs", &bytes));
            assert!(matches!(decoded, Err(DecodeError::Field { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn the_list_is_bounded() {
        let mut epochs = LeaderEpochs::new();
        for number in 0..=EPOCHS_MAX as i32 {
            epochs.assign(epoch(number), at(i64::from(number) * 10));
        }
        assert_eq!(epochs.entries().len(), EPOCHS_MAX);
        assert_eq!(list(&epochs)[0], (1, 0));
    }
}
