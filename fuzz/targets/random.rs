//! Numbers by chance that are the same for the same seed (SplitMix64: Steele, Lea, Flood 2014).
//!
//! Every choice of the hostile tests is drawn here, so that a seed and a number name a frame for ever. It is not for
//! secrets, and it is not spread evenly over odd ranges: the remainder is good enough for choices.

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The sequence of this seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The sequence number `stream` of this seed: as good as unrelated to every other one.
    pub(crate) fn stream(seed: u64, stream: u64) -> Random {
        let mut mixed = Random::new(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        Random { state: mixed.next() }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Whether something happens that does so once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A byte.
    pub(crate) fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }
}
