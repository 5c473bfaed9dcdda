//! Which of the oldest segments of a log may go: a decision, and the clock that it is made by.
//!
//! A segment goes when its newest record is older than the retention time, when the log without it is still as large as the
//! retention size, or when it lies below the log start offset. Only sealed segments go, oldest first without gaps, and none
//! that holds a record which is not committed.
//!
//! Neither a timestamp nor a clock can stop this or rush it:
//! - Records of a sealed segment were appended before it was sealed, so a timestamp from the future counts as the time of
//!   sealing. A time of sealing in the future (the wall clock was ahead then) counts as the present: [`SegmentAge`] holds
//!   that first sight, so that the segment ages from then on.
//! - [`RetentionClock`] follows the wall clock back at once, which at worst keeps data for longer, but forward at most at
//!   twice the speed of the monotonic clock. A wall clock that jumps a year ahead expires nothing by jumping, and a machine
//!   that slept for a night catches up in a night. At the start of the process it has to believe the wall clock.
//!
//! Source: Kafka's `retention.ms`, `retention.bytes`; the largest timestamp of a segment decides (KIP-32).

use core::time::Duration;

use super::checkpoint::SegmentSummary;
use crate::types::{Offset, Timestamp};

/// A wall clock that cannot jump ahead. One per shard.
#[derive(Clone, Debug)]
pub struct RetentionClock {
    time: Timestamp,
    monotonic: Duration,
}

impl RetentionClock {
    /// A clock that starts at what the wall clock says; `monotonic` is the time since any fixed point.
    pub fn new(wall: Timestamp, monotonic: Duration) -> RetentionClock {
        RetentionClock { time: wall, monotonic }
    }

    /// The time to decide by, now that the clocks stand at `wall` and `monotonic`.
    pub fn advance(&mut self, wall: Timestamp, monotonic: Duration) -> Timestamp {
        let passed = monotonic.saturating_sub(self.monotonic);
        let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        // Only whole milliseconds are taken off, so that frequent calls lose none.
        self.monotonic = self.monotonic.saturating_add(Duration::from_millis(passed_ms)).min(monotonic);
        let fastest = self.time.plus_millis(passed_ms.saturating_mul(2));
        self.time = wall.min(fastest);
        self.time
    }
}

/// From when on a sealed segment ages: the time of its newest record, as far as that can be true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentAge {
    since: Timestamp,
}

impl SegmentAge {
    /// The age of a sealed segment that is seen at `now` for the first time.
    pub fn first_seen(segment: &SegmentSummary, now: Timestamp) -> SegmentAge {
        let sealed_at = segment.sealed_at.unwrap_or(now).min(now);
        SegmentAge { since: segment.max_timestamp.unwrap_or(sealed_at).min(sealed_at) }
    }

    /// How long ago its newest record was written, in milliseconds.
    pub fn millis(self, now: Timestamp) -> u64 {
        now.millis_since(self.since)
    }
}

/// How long and how much a log keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetentionLimits {
    /// The age at which records may go (`retention.ms`); `None` keeps them for ever.
    pub age: Option<Duration>,
    /// Bytes of all segments that stay at least (`retention.bytes`); `None` for no bound.
    pub bytes: Option<u64>,
}

/// A log as retention sees it.
#[derive(Clone, Copy, Debug)]
pub struct RetainedLog<'a> {
    /// Its sealed segments, oldest first, each with its age.
    pub sealed: &'a [(SegmentSummary, SegmentAge)],
    /// Its active segment.
    pub active: &'a SegmentSummary,
    /// The first offset that may be read.
    pub start: Offset,
    /// The offset behind the last committed record.
    pub committed_end: Offset,
}

/// Why segments go. The order is that of the rules: the first that holds is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// All records lie below the log start offset.
    BelowStart,
    /// All records are older than the retention time.
    Age,
    /// The log is larger than the retention size without it.
    Size,
}

/// What may go now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RetentionDecision {
    /// Why each of the oldest sealed segments goes; as many go as there are reasons.
    pub expired: Vec<Expiry>,
    /// Whether the active segment is expired by age as well: it is to be sealed, and goes the next time.
    pub seal_active: bool,
}

/// Decides at `now`, the time of a [`RetentionClock`].
pub fn decide(log: RetainedLog<'_>, limits: RetentionLimits, now: Timestamp) -> RetentionDecision {
    let age_ms = limits.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let too_old = |age: SegmentAge| age_ms.is_some_and(|limit| age.millis(now) > limit);
    let sealed_bytes: u64 = log.sealed.iter().map(|(segment, _)| u64::from(segment.bytes)).sum();
    let mut bytes = sealed_bytes + u64::from(log.active.bytes);
    let mut decision = RetentionDecision::default();
    for (segment, age) in log.sealed {
        if segment.next_offset > log.committed_end {
            return decision;
        }
        let rest = bytes - u64::from(segment.bytes);
        let expiry = if segment.next_offset <= log.start {
            Expiry::BelowStart
        } else if too_old(*age) {
            Expiry::Age
        } else if limits.bytes.is_some_and(|limit| rest >= limit) {
            Expiry::Size
        } else {
            return decision;
        };
        decision.expired.push(expiry);
        bytes = rest;
    }
    let active = log.active;
    let holds_committed = active.next_offset > active.base_offset && active.next_offset <= log.committed_end;
    // Without a timestamp nothing is known of its age before it is sealed by its own age.
    let age = active.max_timestamp.map(|max| SegmentAge { since: max.min(now) });
    decision.seal_active = holds_committed && age.is_some_and(too_old);
    decision
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const NOW: i64 = 1_700_000_000_000;

    fn time(value: i64) -> Timestamp {
        Timestamp::new(value).expect("not negative")
    }

    fn at(value: i64) -> Offset {
        Offset::new(value).expect("not negative")
    }

    /// Ten records and 1000 bytes, with a newest record and a time of sealing so many hours before NOW.
    fn segment(sequence: u64, newest: Option<i64>, sealed: Option<i64>) -> SegmentSummary {
        let ago = |hours: i64| time(NOW - hours * HOUR_MS as i64);
        let base_offset = at(10 * sequence as i64);
        SegmentSummary {
            sequence,
            base_offset,
            next_offset: base_offset.plus(10),
            bytes: 1000,
            max_timestamp: newest.map(ago),
            sealed_at: sealed.map(ago),
        }
    }

    struct Example {
        sealed: Vec<(SegmentSummary, SegmentAge)>,
        active: SegmentSummary,
        start: Offset,
        committed_end: Offset,
    }

    impl Example {
        fn new(hours: &[(Option<i64>, i64)], active: Option<i64>) -> Example {
            let seal = |(index, &(newest, sealed)): (usize, &(Option<i64>, i64))| {
                let segment = segment(index as u64, newest, Some(sealed));
                (segment, SegmentAge::first_seen(&segment, time(NOW)))
            };
            let sealed = hours.iter().enumerate().map(seal).collect();
            let active = segment(hours.len() as u64, active, None);
            Example { sealed, active, start: Offset::ZERO, committed_end: active.next_offset }
        }

        fn decide(&self, age_hours: Option<u64>, bytes: Option<u64>) -> RetentionDecision {
            let Example { sealed, active, start, committed_end } = self;
            let log = RetainedLog { sealed, active, start: *start, committed_end: *committed_end };
            let age = age_hours.map(|hours| Duration::from_millis(hours * HOUR_MS));
            decide(log, RetentionLimits { age, bytes }, time(NOW))
        }
    }

    #[test]
    fn the_newest_record_decides_and_no_segment_is_skipped() {
        let log = Example::new(&[(Some(9), 9), (Some(8), 8), (Some(1), 1), (Some(7), 1)], Some(0));
        assert_eq!(log.decide(Some(5), None).expired, [Expiry::Age; 2]);
        assert_eq!(log.decide(Some(8), None).expired, [Expiry::Age; 1], "as old as the limit is not older");
        assert_eq!(log.decide(None, None), RetentionDecision::default());
        assert!(!log.decide(Some(5), None).seal_active);
    }

    #[test]
    fn the_log_never_shrinks_below_the_retention_size() {
        let log = Example::new(&[(None, 1), (None, 1), (None, 1)], None);
        for (bytes, gone) in [(4000, 0), (3001, 0), (3000, 1), (2999, 1), (1000, 3), (0, 3)] {
            assert_eq!(log.decide(None, Some(bytes)).expired.len(), gone, "{bytes}");
        }
    }

    #[test]
    fn what_lies_below_the_start_goes_and_what_is_not_committed_stays() {
        let mut log = Example::new(&[(Some(1), 1), (Some(1), 1), (Some(9), 9)], Some(9));
        log.start = at(15);
        assert_eq!(log.decide(Some(5), None).expired, [Expiry::BelowStart]);
        log.start = at(20);
        assert_eq!(log.decide(Some(5), None).expired, [Expiry::BelowStart, Expiry::BelowStart, Expiry::Age]);
        log.committed_end = at(29);
        let decision = log.decide(Some(5), Some(0));
        assert_eq!((decision.expired.len(), decision.seal_active), (2, false));
    }

    #[test]
    fn an_expired_active_segment_is_sealed_once_all_before_it_go() {
        let expired = Example::new(&[(Some(9), 9)], Some(8));
        assert!(expired.decide(Some(5), None).seal_active);
        assert!(!expired.decide(None, Some(0)).seal_active, "size alone never takes the active segment");
        let kept = Example::new(&[(Some(1), 1)], Some(8));
        assert!(!kept.decide(Some(5), None).seal_active);
        let mut empty = Example::new(&[], Some(8));
        empty.active.next_offset = empty.active.base_offset;
        assert!(!empty.decide(Some(5), None).seal_active);
    }

    #[test]
    fn a_timestamp_from_the_future_does_not_stop_retention() {
        let log = Example::new(&[(Some(-1_000_000), 9), (Some(-1), 6)], Some(0));
        assert_eq!(log.decide(Some(5), None).expired, [Expiry::Age; 2]);
    }

    #[test]
    fn a_segment_sealed_in_the_future_ages_from_when_it_is_seen() {
        let sealed = segment(0, Some(-5000), Some(-5000));
        let age = SegmentAge::first_seen(&sealed, time(NOW));
        assert_eq!(age.millis(time(NOW)), 0);
        assert_eq!(age.millis(time(NOW + 7)), 7);
    }

    #[test]
    fn records_without_timestamps_age_from_sealing() {
        let log = Example::new(&[(None, 9), (None, 2)], None);
        assert_eq!(log.decide(Some(5), None).expired, [Expiry::Age]);
    }

    #[test]
    fn a_jump_ahead_is_followed_at_twice_the_speed() {
        let year = 365 * 24 * HOUR_MS;
        let mut clock = RetentionClock::new(time(NOW), Duration::ZERO);
        assert_eq!(clock.advance(time(NOW + 1000), Duration::from_secs(1)), time(NOW + 1000));
        let ahead = time(NOW + 1000).plus_millis(year);
        assert_eq!(clock.advance(ahead, Duration::from_secs(2)), time(NOW + 3000));
        assert_eq!(clock.advance(ahead, Duration::from_secs(3)), time(NOW + 5000));
        // An ordinary sleep of the machine, which the monotonic clock does not see, is caught up with.
        let mut slept = RetentionClock::new(time(NOW), Duration::ZERO);
        let wall = |ms: u64| time(NOW).plus_millis(8 * HOUR_MS + ms);
        assert_eq!(slept.advance(wall(8 * HOUR_MS), Duration::from_millis(8 * HOUR_MS)), wall(8 * HOUR_MS));
    }

    #[test]
    fn a_jump_back_is_followed_at_once() {
        let mut clock = RetentionClock::new(time(NOW), Duration::ZERO);
        assert_eq!(clock.advance(time(5), Duration::from_secs(1)), time(5));
        assert_eq!(clock.advance(time(1005), Duration::from_secs(2)), time(1005));
    }

    #[test]
    fn frequent_looks_at_the_clock_lose_no_time() {
        let mut clock = RetentionClock::new(time(0), Duration::ZERO);
        let far = time(NOW);
        let mut last = time(0);
        for step in 1..=10_000 {
            last = clock.advance(far, Duration::from_micros(300 * step));
        }
        assert_eq!(last, time(6000));
    }
}
