//! One number that a shard writes and others read.
//!
//! There is one writer, so a number is changed by a load and a store: no instruction locks a cache line. A reader on another
//! thread sees every number whole, and sees a later one sooner or later; it orders nothing by them (`Relaxed`).

use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, from the start of the process.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub(super) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds `by`.
    pub fn add(&self, by: u64) {
        self.0.store(self.get().wrapping_add(by), Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Makes it `value`.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds `by`.
    pub fn add(&self, by: u64) {
        self.set(self.get() + by);
    }

    /// Takes `by` away, which was added before.
    pub fn subtract(&self, by: u64) {
        self.set(self.get().checked_sub(by).expect("what was added"));
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What tells the members of a family apart.
pub trait Label: Copy {
    /// The label's name.
    const NAME: &'static str;
    /// How many values it has at most.
    const COUNT: usize;
    /// Whether all members exist from the start. Otherwise each comes with its first use: for labels with many values, most
    /// of which are never seen.
    const FROM_START: bool;

    /// The number of this value, below [`Label::COUNT`].
    fn index(self) -> usize;
}

/// A metric for each value of a label.
#[derive(Debug)]
pub struct Family<L, M> {
    members: Box<[OnceLock<Box<M>>]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, M: Default> Family<L, M> {
    /// The member for this value. The first call for it may allocate; later ones cost a load.
    pub fn at(&self, value: L) -> &M {
        self.members[value.index()].get_or_init(Box::default)
    }

    /// Those that exist, each with the number of its value.
    pub fn members(&self) -> impl Iterator<Item = (usize, &M)> {
        self.members.iter().enumerate().filter_map(|(index, member)| Some((index, &**member.get()?)))
    }
}

impl<L: Label, M: Default> Default for Family<L, M> {
    fn default() -> Self {
        let member = || if L::FROM_START { OnceLock::from(Box::default()) } else { OnceLock::new() };
        Family { members: std::iter::repeat_with(member).take(L::COUNT).collect(), label: PhantomData }
    }
}
