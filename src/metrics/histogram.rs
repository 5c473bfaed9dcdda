//! Durations, counted in buckets of growing width: the shape of an HdrHistogram, in relaxed atomics.
//!
//! An octave from 2ⁿ to 2ⁿ⁺¹ microseconds is split into [`SUB_BUCKETS`] equal parts, so that the bounds are whole numbers of
//! microseconds, and a quantile that is read from them is off by half of its value at most: the exported bounds *are* the
//! buckets. More parts would be more precise and as many more time series in every scrape.
//!
//! Recording is two additions and no allocation. Sum and buckets are read one after the other: a scrape in the middle of a
//! recording sees a sample in one of them that is not in the other yet. The number of samples is the sum of the buckets.
//!
//! Source: HdrHistogram's bucketing (Gil Tene), with one-bit precision; Prometheus' `le`, which is inclusive.

use core::time::Duration;

use super::cell::Counter;

/// Parts of an octave, as a power of two.
const SUB_BUCKET_BITS: u32 = 1;
const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;
/// The first bound is 4 µs: less than a request takes that does anything at all.
const EXPONENT_MIN: u32 = 2;
/// The last bound is 2²⁵ µs = 33.6 s: more than clients wait (30 s is their default) goes into the last bucket.
const EXPONENT_MAX: u32 = 25;
/// One up to the first bound, those of the octaves, one without an upper bound.
const BUCKETS: usize = (EXPONENT_MAX - EXPONENT_MIN) as usize * SUB_BUCKETS + 2;

const _: () = assert!(SUB_BUCKET_BITS <= EXPONENT_MIN, "parts of the first octave are whole microseconds");

/// How long something took, for every time it happened.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    nanos: Counter,
}

impl Histogram {
    /// Counts something that took `duration`.
    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].add(1);
        self.nanos.add(nanos);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// Nanoseconds that all of them took together.
    pub fn sum_nanos(&self) -> u64 {
        self.nanos.get()
    }

    /// For each bucket its upper bound in microseconds, inclusive, and the number of those that took no longer. The last
    /// one has no bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.buckets.iter().enumerate().scan(0, |count, (index, bucket)| {
            *count += bucket.get();
            Some((upper_bound_micros(index), *count))
        })
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [const { Counter::new() }; BUCKETS], nanos: Counter::new() }
    }
}

/// The bucket of a duration: the first one whose bound is not less.
fn bucket(nanos: u64) -> usize {
    // Whole microseconds below it, so that what is exactly on a bound lies below it.
    let micros = nanos.saturating_sub(1) / 1000;
    if micros < 1 << EXPONENT_MIN {
        return 0;
    }
    let exponent = micros.ilog2();
    let part = (micros >> (exponent - SUB_BUCKET_BITS)) as usize % SUB_BUCKETS;
    ((exponent - EXPONENT_MIN) as usize * SUB_BUCKETS + part + 1).min(BUCKETS - 1)
}

/// The upper bound of a bucket in microseconds; `None` for the last one.
fn upper_bound_micros(index: usize) -> Option<u64> {
    if index == BUCKETS - 1 {
        return None;
    }
    // A bucket ends where the next one begins.
    let octave = 1_u64 << (EXPONENT_MIN as usize + index / SUB_BUCKETS);
    Some(octave + (octave >> SUB_BUCKET_BITS) * (index % SUB_BUCKETS) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Vec<u64> {
        (0..BUCKETS).map_while(upper_bound_micros).collect()
    }

    #[test]
    fn the_bounds_are_halves_of_octaves() {
        let bounds = bounds();
        assert_eq!(bounds[..7], [4, 6, 8, 12, 16, 24, 32]);
        assert_eq!((bounds.len(), bounds.last()), (BUCKETS - 1, Some(&(1 << EXPONENT_MAX))));
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1] && pair[1] * 2 <= pair[0] * 3));
    }

    #[test]
    fn every_duration_lies_in_the_first_bucket_whose_bound_is_not_less() {
        let bounds = bounds();
        let expected = |nanos: u64| bounds.iter().position(|bound| nanos <= bound * 1000).unwrap_or(BUCKETS - 1);
        let around = bounds.iter().flat_map(|bound| [bound * 1000 - 1, bound * 1000, bound * 1000 + 1]);
        for nanos in around.chain([0, 1, 999, 1000, 4000, 5_500, 77_777_777, u64::MAX]) {
            assert_eq!(bucket(nanos), expected(nanos), "{nanos} ns");
        }
    }

    #[test]
    fn buckets_are_told_cumulated() {
        let histogram = Histogram::default();
        for nanos in [0, 4_000, 4_001, 6_000, 7_000, 60_000_000_000] {
            histogram.record(Duration::from_nanos(nanos));
        }
        let told: Vec<_> = histogram.cumulative().collect();
        assert_eq!(told[..4], [(Some(4), 2), (Some(6), 4), (Some(8), 5), (Some(12), 5)]);
        assert_eq!(told[BUCKETS - 2..], [(Some(1 << EXPONENT_MAX), 5), (None, 6)]);
        assert_eq!((histogram.count(), histogram.sum_nanos()), (6, 60_000_021_001));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.cumulative().last(), Some((None, 7)));
    }
}
