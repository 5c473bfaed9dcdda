//! The bytes of one simulated file: what a read sees, what is durable, and every write in between.
//!
//! Blocks of 4 KiB are the unit of transfers, sectors of 512 bytes the unit that survives a power cut. A write is *in flight*
//! until it completes, then *pending* until a sync, a durable write of the same block, or a power cut decides about it.
//! A power cut makes each sector the durable one or that of any pending or in-flight write to it, and the length any one that
//! the file had since the durable one. Changes of the length become durable in order, as the journals of ext4 and XFS have it.
//!
//! Sources: pwritev2(2) on RWF_DSYNC, fsync(2), open(2) on O_DIRECT.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::random::{PerMillion, Random};
use super::super::trace::Counters;
use super::PowerCut;
use super::space::Blocks;
use crate::runtime::file::Durability;
use crate::types::limits::{BLOCK_BYTES, SECTOR_BYTES};

const BLOCK: u64 = BLOCK_BYTES as u64;
const SECTOR: u64 = SECTOR_BYTES as u64;
const BLOCK_SECTORS: u64 = BLOCK / SECTOR;

/// One block of content.
pub(super) type Block = Rc<[u8; BLOCK_BYTES]>;
type Image = BTreeMap<u64, Block>;

/// A write as it was submitted.
pub(super) struct Write {
    /// Number of the first block.
    pub(super) first: u64,
    pub(super) blocks: Vec<Block>,
    pub(super) durability: Durability,
}

impl Write {
    fn end(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }

    fn block(&self, number: u64) -> Option<&Block> {
        self.blocks.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn extent(&self, id: u64) -> Extent {
        Extent { id, first: self.first, end: self.end() }
    }
}

/// Which write a version is of, and the blocks that it covered.
#[derive(Clone, Copy)]
struct Extent {
    id: u64,
    first: u64,
    end: u64,
}

/// The content that a completed write, not yet durable, gave to a block.
struct Version {
    write: Extent,
    order: u64,
    block: Block,
    /// A sync failed on it: no later sync makes it durable.
    doomed: bool,
}

/// How much of a write a power cut or an error leaves.
#[derive(Clone, Copy)]
enum Fate {
    All,
    Nothing,
    /// Sectors below this one of the file.
    Below(u64),
    /// This sector of the file and those behind it.
    From(u64),
    /// Each sector by itself.
    Each(PerMillion),
}

impl Fate {
    fn draw(random: &mut Random, extent: Extent) -> Fate {
        let sectors = extent.first * BLOCK_SECTORS..=extent.end * BLOCK_SECTORS;
        match random.below(8) {
            0 => Fate::All,
            1 => Fate::Nothing,
            2 => Fate::Below(random.within(sectors)),
            3 => Fate::From(random.within(sectors)),
            _ => Fate::Each(*random.choose(&[PerMillion(150_000), PerMillion(500_000), PerMillion(850_000)])),
        }
    }

    fn keeps(self, sector: u64, random: &mut Random) -> bool {
        match self {
            Fate::All => true,
            Fate::Nothing => false,
            Fate::Below(end) => sector < end,
            Fate::From(start) => sector >= start,
            Fate::Each(chance) => random.happens(chance),
        }
    }
}

/// How many sectors of a write changed something, and how many of those survived.
#[derive(Default)]
struct Survival {
    changed: u64,
    kept: u64,
}

/// The content of a file. Positions and lengths are in bytes unless they are called blocks or sectors.
#[derive(Default)]
pub(super) struct Contents {
    cached: Image,
    durable: Image,
    pending: BTreeMap<u64, Vec<Version>>,
    in_flight: BTreeMap<u64, Write>,
    length: u64,
    durable_length: u64,
    /// Lengths since the durable one, with the order of their change.
    pending_lengths: Vec<(u64, u64)>,
    unreadable: BTreeSet<u64>,
    space: Blocks,
    order: u64,
}

fn sector_of(block: &Block, sector: u64) -> &[u8] {
    let start = (sector % BLOCK_SECTORS * SECTOR) as usize;
    &block[start..start + SECTOR_BYTES]
}

fn set_sector(block: &mut Block, sector: u64, bytes: &[u8]) {
    let start = (sector % BLOCK_SECTORS * SECTOR) as usize;
    Rc::make_mut(block)[start..start + SECTOR_BYTES].copy_from_slice(bytes);
}

fn block_of(image: &Image, number: u64) -> Block {
    image.get(&number).cloned().unwrap_or_else(|| Rc::new([0; BLOCK_BYTES]))
}

/// Zeros everything from `length` on.
fn trim(image: &mut Image, length: u64) {
    drop(image.split_off(&length.div_ceil(BLOCK)));
    if !length.is_multiple_of(BLOCK)
        && let Some(last) = image.get_mut(&(length / BLOCK))
    {
        Rc::make_mut(last)[(length % BLOCK) as usize..].fill(0);
    }
}

/// A sector that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unreadable;

impl Contents {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Blocks of the device that the file uses.
    pub(super) fn space_blocks(&self) -> u64 {
        self.space.count()
    }

    /// Blocks that reserving these bytes would take from the device.
    pub(super) fn missing_blocks(&self, position: u64, bytes: u64) -> u64 {
        self.space.missing(position / BLOCK..(position + bytes).div_ceil(BLOCK))
    }

    pub(super) fn reserve(&mut self, position: u64, bytes: u64) {
        self.space.insert(position / BLOCK..(position + bytes).div_ceil(BLOCK));
    }

    /// The current point of the order of changes: what was completed up to it is what a sync that starts now covers.
    pub(super) fn mark(&self) -> u64 {
        self.order
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Puts a write in flight.
    ///
    /// # Panics
    /// If it overlaps one that is in flight and differs from it there: which of them wins is chance.
    pub(super) fn submit(&mut self, id: u64, write: Write) {
        for other in self.in_flight.values() {
            for number in write.first.max(other.first)..write.end().min(other.end()) {
                assert!(
                    write.block(number) == other.block(number),
                    "two different writes are in flight to block {number} (blocks {}..{} and {}..{})",
                    write.first,
                    write.end(),
                    other.first,
                    other.end(),
                );
            }
        }
        self.in_flight.insert(id, write);
    }

    /// Completes a write as asked.
    pub(super) fn complete(&mut self, id: u64) {
        let Some(write) = self.in_flight.remove(&id) else { return };
        let end = write.end() * BLOCK;
        self.extend(end);
        for sector in write.first * BLOCK_SECTORS..write.end() * BLOCK_SECTORS {
            self.unreadable.remove(&sector);
        }
        match write.durability {
            Durability::Written => {
                let (order, extent) = (self.next_order(), write.extent(id));
                for (number, block) in (write.first..).zip(write.blocks) {
                    self.cached.insert(number, block.clone());
                    self.pending.entry(number).or_default().push(Version {
                        write: extent,
                        order,
                        block,
                        doomed: false,
                    });
                }
            }
            Durability::Durable => {
                // What makes the bytes findable is durable with them, and lengths become durable in order.
                let shrunk = self.pending_lengths.iter().any(|&(_, length)| length < self.durable_length);
                if end > self.durable_length || shrunk {
                    self.harden_lengths(self.order);
                }
                for (number, block) in (write.first..).zip(write.blocks) {
                    self.cached.insert(number, block.clone());
                    self.durable.insert(number, block);
                    self.pending.remove(&number);
                }
            }
        }
    }

    /// Ends a write that failed or whose process died: some sectors are written, none of them durably.
    pub(super) fn abandon(&mut self, id: u64, random: &mut Random) {
        let Some(mut write) = self.in_flight.remove(&id) else { return };
        let fate = Fate::draw(random, write.extent(id));
        let mut touched = false;
        for (number, block) in (write.first..).zip(&mut write.blocks) {
            let mut mixed = block_of(&self.cached, number);
            for sector in number * BLOCK_SECTORS..(number + 1) * BLOCK_SECTORS {
                if fate.keeps(sector, random) {
                    set_sector(&mut mixed, sector, sector_of(block, sector));
                    touched = true;
                }
            }
            *block = mixed;
        }
        if touched {
            write.durability = Durability::Written;
            self.in_flight.insert(id, write);
            self.complete(id);
        }
    }

    /// Completes a write that reports success and lands on the blocks from `first` on instead, durably.
    pub(super) fn misdirect(&mut self, id: u64, first: u64) {
        let Some(write) = self.in_flight.remove(&id) else { return };
        self.extend(write.end() * BLOCK);
        self.harden_lengths(self.order);
        for (number, block) in (first..).zip(write.blocks) {
            self.cached.insert(number, block.clone());
            self.durable.insert(number, block);
        }
    }

    /// Appends up to `bytes` bytes at `position`, fewer at the end of the file, by calling `give` for every block. A block
    /// under a write in flight is, sector by sector, the old or the new one.
    pub(super) fn read(
        &self,
        position: u64,
        bytes: u64,
        random: &mut Random,
        mut give: impl FnMut(&[u8]),
    ) -> Result<u64, Unreadable> {
        let end = self.length.min(position + bytes).max(position);
        if self.unreadable.range(position / SECTOR..end.div_ceil(SECTOR)).next().is_some() {
            return Err(Unreadable);
        }
        for number in position / BLOCK..end.div_ceil(BLOCK) {
            let mut block = block_of(&self.cached, number);
            for written in self.in_flight.values().filter_map(|write| write.block(number)) {
                for sector in 0..BLOCK_SECTORS {
                    if random.coin() {
                        set_sector(&mut block, sector, sector_of(written, sector));
                    }
                }
            }
            give(&block[..BLOCK.min(end - number * BLOCK) as usize]);
        }
        Ok(end - position)
    }

    /// Extends the file to at least `end`; what is new reads as zeros.
    pub(super) fn extend(&mut self, end: u64) {
        if end > self.length {
            self.set_length(end);
        }
    }

    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            trim(&mut self.cached, length);
            drop(self.pending.split_off(&length.div_ceil(BLOCK)));
            for version in self.pending.get_mut(&(length / BLOCK)).into_iter().flatten() {
                Rc::make_mut(&mut version.block)[(length % BLOCK) as usize..].fill(0);
            }
            self.space.truncate(length.div_ceil(BLOCK));
        }
        self.length = length;
        let order = self.next_order();
        self.pending_lengths.push((order, length));
    }

    fn harden_lengths(&mut self, mark: u64) {
        let count = self.pending_lengths.partition_point(|&(order, _)| order <= mark);
        for (_, length) in self.pending_lengths.drain(..count) {
            if length < self.durable_length {
                trim(&mut self.durable, length);
            }
            self.durable_length = length;
        }
    }

    /// A sync: makes everything durable that was completed up to `mark`.
    pub(super) fn harden(&mut self, mark: u64) {
        self.harden_lengths(mark);
        let durable = &mut self.durable;
        self.pending.retain(|number, versions| {
            let newest = versions.iter().rposition(|version| version.order <= mark && !version.doomed);
            if let Some(newest) = newest {
                durable.insert(*number, versions[newest].block.clone());
                versions.drain(..=newest);
            }
            !versions.is_empty()
        });
    }

    /// A sync that failed: what it covered stays in doubt for good, and the kernel may forget it at once.
    pub(super) fn doom(&mut self, mark: u64, random: &mut Random) {
        let forgets = random.coin();
        for (number, versions) in &mut self.pending {
            for version in versions.iter_mut().filter(|version| version.order <= mark) {
                version.doomed = true;
            }
            if forgets && versions.iter().all(|version| version.doomed) {
                self.cached.insert(*number, block_of(&self.durable, *number));
            }
        }
        trim(&mut self.cached, self.length);
    }

    /// Overwrites `bytes` at `position` wherever they lie, durably: latent corruption.
    pub(super) fn corrupt(&mut self, position: u64, change: impl Fn(&mut u8)) {
        let (number, at) = (position / BLOCK, (position % BLOCK) as usize);
        for image in [&mut self.cached, &mut self.durable] {
            let block = image.entry(number).or_insert_with(|| Rc::new([0; BLOCK_BYTES]));
            change(&mut Rc::make_mut(block)[at]);
        }
        for version in self.pending.get_mut(&number).into_iter().flatten() {
            change(&mut Rc::make_mut(&mut version.block)[at]);
        }
    }

    /// Decides about everything that is not durable.
    pub(super) fn power_cut(&mut self, cut: PowerCut, random: &mut Random, counters: &mut Counters) {
        let length = self.choose_length(random, counters);
        self.choose_sectors(random, counters);
        self.damage(cut, random, counters);
        self.in_flight.clear();
        trim(&mut self.durable, length);
        self.cached.clone_from(&self.durable);
        self.space.truncate(length.div_ceil(BLOCK));
        self.space.insert_all(self.durable.keys().copied());
        self.length = length;
        self.durable_length = length;
    }

    fn choose_length(&mut self, random: &mut Random, counters: &mut Counters) -> u64 {
        let kept = random.index(self.pending_lengths.len() + 1);
        counters.lengths_lost += u64::from(kept < self.pending_lengths.len());
        let all_kept = kept == self.pending_lengths.len();
        if let Some(&(mark, _)) = kept.checked_sub(1).and_then(|last| self.pending_lengths.get(last)) {
            self.harden_lengths(mark);
        }
        self.pending_lengths.clear();
        let grown =
            self.in_flight.values().map(|write| write.end() * BLOCK).filter(|_| all_kept && random.coin()).max();
        self.durable_length.max(grown.unwrap_or(0))
    }

    fn choose_sectors(&mut self, random: &mut Random, counters: &mut Counters) {
        let mut versions = std::mem::take(&mut self.pending);
        for (&id, write) in &self.in_flight {
            for (number, block) in (write.first..).zip(&write.blocks) {
                let version = Version { write: write.extent(id), order: u64::MAX, block: block.clone(), doomed: false };
                versions.entry(number).or_default().push(version);
            }
        }
        let mut fates: BTreeMap<u64, (Fate, Survival)> = BTreeMap::new();
        for version in versions.values().flatten() {
            let extent = version.write;
            fates.entry(extent.id).or_insert_with(|| (Fate::draw(random, extent), Survival::default()));
        }
        for (number, versions) in versions {
            let before = block_of(&self.durable, number);
            let mut after = before.clone();
            for sector in number * BLOCK_SECTORS..(number + 1) * BLOCK_SECTORS {
                let old = sector_of(&before, sector);
                let survivors: Vec<usize> = (0..versions.len())
                    .filter(|&index| fates[&versions[index].write.id].0.keeps(sector, random))
                    .collect();
                let chosen = (!survivors.is_empty()).then(|| *random.choose(&survivors));
                for (index, version) in versions.iter().enumerate() {
                    if sector_of(&version.block, sector) != old {
                        let survival = &mut fates.get_mut(&version.write.id).expect("every version has a fate").1;
                        survival.changed += 1;
                        survival.kept += u64::from(chosen == Some(index));
                    }
                }
                if let Some(index) = chosen {
                    set_sector(&mut after, sector, sector_of(&versions[index].block, sector));
                }
                let newest = &versions[versions.len() - 1].block;
                counters.sectors_lost += u64::from(sector_of(newest, sector) != sector_of(&after, sector));
            }
            self.durable.insert(number, after);
        }
        for (_, survival) in fates.into_values() {
            match survival {
                Survival { changed, kept } if kept == changed => counters.writes_kept += 1,
                Survival { kept: 0, .. } => counters.writes_lost += 1,
                Survival { .. } => counters.writes_torn += 1,
            }
        }
    }

    fn damage(&mut self, cut: PowerCut, random: &mut Random, counters: &mut Counters) {
        if cut == PowerCut::OldOrNew {
            return;
        }
        for write in self.in_flight.values() {
            let sector = random.within(write.first * BLOCK_SECTORS..=write.end() * BLOCK_SECTORS - 1);
            counters.sectors_damaged += 1;
            if cut == PowerCut::Unreadable {
                self.unreadable.insert(sector);
                continue;
            }
            let mut garbage = [0; SECTOR_BYTES];
            random.fill(&mut garbage);
            let block = self.durable.entry(sector / BLOCK_SECTORS).or_insert_with(|| Rc::new([0; BLOCK_BYTES]));
            set_sector(block, sector, &garbage);
        }
    }
}
