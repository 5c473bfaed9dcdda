//! The simulator's only source of chance: xoshiro256++, seeded through SplitMix64.
//!
//! Every subject (scheduling, disk of a node, network …) draws from a generator of its own, forked from the seed by a label,
//! so that one more draw in one of them does not reshuffle the others. Not for secrets.
//!
//! Source: Blackman and Vigna, "Scrambled linear pseudorandom number generators" (2021).

use std::ops::RangeInclusive;

/// A chance in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct PerMillion(pub u32);

impl PerMillion {
    /// It never happens, and costs no draw.
    pub const NEVER: PerMillion = PerMillion(0);
    /// It always happens.
    pub const ALWAYS: PerMillion = PerMillion(1_000_000);
}

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Random {
    /// The generator of `seed`; equal seeds give equal draws.
    pub fn new(seed: u64) -> Random {
        let mut state = seed;
        Random { state: std::array::from_fn(|_| split_mix(&mut state)) }
    }

    /// The generator of one subject of a seed. `label` tells the subjects apart.
    pub fn fork(seed: u64, label: u64) -> Random {
        let mut label = label;
        Random::new(seed ^ split_mix(&mut label))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let drawn = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        drawn
    }

    /// A number below `bound`, which is not 0. The bias is below 2⁻³² for the bounds that a simulation uses.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        let product = u128::from(self.bits()) * u128::from(bound);
        (product >> 64) as u64
    }

    /// An index of a list of `length` elements, which is not empty.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number of the range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let width = range.end().checked_sub(*range.start()).expect("the range is not empty");
        match width.checked_add(1) {
            Some(bound) => range.start() + self.below(bound),
            None => self.bits(),
        }
    }

    /// Whether something of this chance happens.
    pub fn happens(&mut self, chance: PerMillion) -> bool {
        chance > PerMillion::NEVER && self.below(1_000_000) < u64::from(chance.0)
    }

    /// One of two.
    pub fn coin(&mut self) -> bool {
        self.bits() >> 63 == 1
    }

    /// One element of a list, which is not empty.
    pub fn choose<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.index(list.len())]
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.bits().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_label_fix_every_draw() {
        let draws = |seed, label| {
            let mut random = Random::fork(seed, label);
            (0..8).map(|_| random.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        assert_ne!(draws(1, 2), draws(2, 2));
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs of xoshiro256++ from the state 1, 2, 3, 4.
        let mut random = Random { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| random.bits()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_its_ends() {
        let mut random = Random::new(7);
        let mut seen = [0_u32; 3];
        for _ in 0..300 {
            seen[random.within(5..=7) as usize - 5] += 1;
        }
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
        assert!(!random.happens(PerMillion::NEVER) && random.happens(PerMillion::ALWAYS));
    }
}
