//! The blocks of the device that a file uses, as disjoint ranges.
//!
//! Only their number counts: the simulated device is full when they exceed its capacity. What they hold is kept elsewhere.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of block numbers.
#[derive(Default)]
pub(super) struct Blocks {
    /// End by start; neighbours never touch.
    ranges: BTreeMap<u64, u64>,
}

impl Blocks {
    pub(super) fn count(&self) -> u64 {
        self.ranges.iter().map(|(start, end)| end - start).sum()
    }

    /// How many of these blocks are not in the set.
    pub(super) fn missing(&self, blocks: Range<u64>) -> u64 {
        let held = |(&start, &end): (&u64, &u64)| end.min(blocks.end).saturating_sub(start.max(blocks.start));
        let present: u64 = self.ranges.range(..blocks.end).map(held).sum();
        blocks.end.saturating_sub(blocks.start) - present
    }

    pub(super) fn insert(&mut self, blocks: Range<u64>) {
        if blocks.is_empty() {
            return;
        }
        let Range { mut start, mut end } = blocks;
        // From the back, every range that begins at or before the new end: stop at the first that ends before the new start.
        while let Some((&known_start, &known_end)) = self.ranges.range(..=end).next_back() {
            if known_end < start {
                break;
            }
            self.ranges.remove(&known_start);
            start = start.min(known_start);
            end = end.max(known_end);
        }
        self.ranges.insert(start, end);
    }

    pub(super) fn insert_all(&mut self, blocks: impl Iterator<Item = u64>) {
        for block in blocks {
            if self.missing(block..block + 1) > 0 {
                self.insert(block..block + 1);
            }
        }
    }

    /// Removes the blocks from `end` on.
    pub(super) fn truncate(&mut self, end: u64) {
        drop(self.ranges.split_off(&end));
        if let Some(mut last) = self.ranges.last_entry() {
            *last.get_mut() = end.min(*last.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_are_cut() {
        let mut blocks = Blocks::default();
        blocks.insert(4..6);
        blocks.insert(8..10);
        assert_eq!((blocks.count(), blocks.missing(0..10)), (4, 6));
        blocks.insert(5..8);
        assert_eq!(blocks.ranges.iter().collect::<Vec<_>>(), [(&4, &10)]);
        blocks.insert_all([0, 1, 5].into_iter());
        assert_eq!(blocks.count(), 8);
        blocks.truncate(5);
        assert_eq!((blocks.count(), blocks.missing(1..6)), (3, 3));
        blocks.truncate(0);
        assert_eq!(blocks.count(), 0);
    }
}
