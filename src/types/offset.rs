//! Positions in a partition's log: offsets, leader epochs and record timestamps.
//!
//! All three are non-negative by construction; arithmetic that would leave the range is a bug and panics in debug builds.
//! Source: KIP-101 (leader epochs), the record batch format v2 (offsets and timestamps).

use std::fmt;

/// The offset of a record in its partition: 0 for the first record ever appended, dense, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(i64);

impl Offset {
    /// The offset of the first record of a new log.
    pub const ZERO: Offset = Offset(0);
    /// An upper bound of every offset.
    pub const MAX: Offset = Offset(i64::MAX);

    /// The offset `value`; `None` if it is negative.
    pub const fn new(value: i64) -> Option<Offset> {
        if value < 0 { None } else { Some(Offset(value)) }
    }

    /// The offset as Kafka writes it.
    pub const fn value(self) -> i64 {
        self.0
    }

    /// The offset `records` after this one, saturating at [`Offset::MAX`].
    #[must_use]
    pub const fn plus(self, records: u64) -> Offset {
        Offset(self.0.saturating_add_unsigned(records))
    }

    /// The offset directly after this one.
    #[must_use]
    pub const fn next(self) -> Offset {
        self.plus(1)
    }

    /// The offset directly before this one; `None` at zero.
    #[must_use]
    pub const fn previous(self) -> Option<Offset> {
        Offset::new(self.0 - 1)
    }

    /// How many offsets lie between `earlier` and this one; 0 if `earlier` is not earlier.
    pub const fn since(self, earlier: Offset) -> u64 {
        if self.0 > earlier.0 { (self.0 - earlier.0).unsigned_abs() } else { 0 }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// The epoch of a partition's leadership, raised at every change of leader (KIP-101).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaderEpoch(i32);

impl LeaderEpoch {
    /// The epoch of a partition's first leader.
    pub const ZERO: LeaderEpoch = LeaderEpoch(0);

    /// The epoch `value`; `None` if it is negative.
    pub const fn new(value: i32) -> Option<LeaderEpoch> {
        if value < 0 { None } else { Some(LeaderEpoch(value)) }
    }

    /// The epoch as Kafka writes it.
    pub const fn value(self) -> i32 {
        self.0
    }

    /// The epoch of the next leadership.
    #[must_use]
    pub const fn next(self) -> LeaderEpoch {
        LeaderEpoch(self.0 + 1)
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}", self.0)
    }
}

/// A wall-clock time in milliseconds since 1970-01-01 UTC, as records carry it. Never negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01 00:00:00 UTC.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// The time `milliseconds` after 1970; `None` if it is negative.
    pub const fn new(milliseconds: i64) -> Option<Timestamp> {
        if milliseconds < 0 { None } else { Some(Timestamp(milliseconds)) }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to this time; 0 if `earlier` is not earlier.
    pub const fn millis_since(self, earlier: Timestamp) -> u64 {
        if self.0 > earlier.0 { (self.0 - earlier.0).unsigned_abs() } else { 0 }
    }

    /// The time `milliseconds` later, saturating.
    #[must_use]
    pub const fn plus_millis(self, milliseconds: u64) -> Timestamp {
        Timestamp(self.0.saturating_add_unsigned(milliseconds))
    }

    /// The time `milliseconds` earlier, not before 1970.
    #[must_use]
    pub const fn minus_millis(self, milliseconds: u64) -> Timestamp {
        let value = self.0.saturating_sub_unsigned(milliseconds);
        Timestamp(if value < 0 { 0 } else { value })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_never_negative() {
        assert_eq!(Offset::new(-1), None);
        assert_eq!(Offset::ZERO.previous(), None);
        assert_eq!(Offset::ZERO.next().previous(), Some(Offset::ZERO));
        assert_eq!(Offset::MAX.plus(u64::MAX), Offset::MAX);
    }

    #[test]
    fn distances_do_not_wrap() {
        let five = Offset::ZERO.plus(5);
        assert_eq!(five.since(Offset::ZERO), 5);
        assert_eq!(Offset::ZERO.since(five), 0);
        assert_eq!(Timestamp::EPOCH.minus_millis(1), Timestamp::EPOCH);
        assert_eq!(Timestamp::EPOCH.plus_millis(7).millis_since(Timestamp::EPOCH), 7);
    }
}
