//! What pairs of measurements tell: the median ratio, a bootstrap interval around it, a test for any difference at all.
//!
//! The interval is the percentile bootstrap of the median over pairs. For few pairs that is too narrow (for seven it spans the
//! second to the sixth ratio, which holds the true median in 7 of 8 cases, not in 19 of 20). So a difference is claimed only
//! where the interval excludes 1 *and* Wilcoxon's signed-rank test of the logarithms of the ratios, exact for any number of
//! pairs, gives p ≤ 0.05. That test cannot reach 0.05 with fewer than six pairs: with those there is no verdict at all.
//!
//! It assumes that pairs are independent of each other and that A and B change places within blocks (ABBA), so that without a
//! difference a ratio is as likely above as below 1. Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993),
//! chapter 13; Wilcoxon, Individual Comparisons by Ranking Methods (1945).

use std::fmt;

use serde::Serialize;

use crate::figures;
use crate::metric::Better;

/// What an interval is to hold.
pub const CONFIDENCE: f64 = 0.95;
/// With five pairs that all agree the signed-rank test gives p = 2/2⁵ = 0.0625.
pub const PAIRS_MIN: usize = 6;
/// The interval's ends then wander by about one part in a hundred of its width from seed to seed.
const RESAMPLES: usize = 10_000;
/// Fixed, so that the same files always give the same interval.
const SEED: u64 = 0x005E_ED0F_C0DE;
/// Ratios closer to 1 than this are shown as 0.0 %: no difference to anyone, however sure it is.
const INDIFFERENCE: f64 = 0.000_5;

/// What was found for a figure.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Ratio {
    /// The median of A's values.
    pub a: f64,
    /// The median of B's values.
    pub b: f64,
    /// The median of pairwise ratios B/A; not the ratio of the medians.
    pub median: f64,
    /// The 95 % bootstrap interval of `median`; absent below [`PAIRS_MIN`] pairs.
    pub interval: Option<(f64, f64)>,
    /// Pairs in which B was better.
    pub wins: usize,
    /// Pairs.
    pub pairs: usize,
    /// What to make of it.
    pub verdict: Verdict,
}

/// Whether B differs from A.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There are not enough pairs to tell.
    TooFewPairs,
    /// None is shown by these pairs.
    NoDifference,
    /// B is better by this part of A.
    Better(f64),
    /// B is worse by this part of A.
    Worse(f64),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::TooFewPairs => write!(f, "no verdict below {PAIRS_MIN} pairs"),
            Verdict::NoDifference => f.write_str("no difference"),
            Verdict::Better(part) => write!(f, "better by {}", figures::percent(*part)),
            Verdict::Worse(part) => write!(f, "worse by {}", figures::percent(*part)),
        }
    }
}

/// Values that have no ratio.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
pub enum NoRatio {
    /// There are none.
    #[error("no values")]
    Empty,
    /// A ratio takes two figures that are above zero and finite.
    #[error("{0} against {1} has no ratio")]
    Undefined(f64, f64),
}

/// Holds the second value of every pair against the first.
pub fn ratio(values: &[(f64, f64)], better: Better) -> Result<Ratio, NoRatio> {
    let is_usable = |value: f64| value.is_finite() && value > 0.0;
    if let Some((a, b)) = values.iter().find(|(a, b)| !is_usable(*a) || !is_usable(*b)) {
        return Err(NoRatio::Undefined(*a, *b));
    }
    let mut ratios: Vec<f64> = values.iter().map(|(a, b)| b / a).collect();
    let side = |of: fn(&(f64, f64)) -> f64| median(&mut values.iter().map(of).collect::<Vec<_>>());
    let (a, b) = (side(|pair| pair.0).ok_or(NoRatio::Empty)?, side(|pair| pair.1).ok_or(NoRatio::Empty)?);
    let interval = (values.len() >= PAIRS_MIN).then(|| bootstrap(&ratios));
    let median = median(&mut ratios).ok_or(NoRatio::Empty)?;
    let wins = values.iter().filter(|(a, b)| figures::is_better(better, *a, *b)).count();
    let verdict = match interval {
        None => Verdict::TooFewPairs,
        Some((low, high)) if low <= 1.0 && 1.0 <= high => Verdict::NoDifference,
        Some(_) if (median - 1.0).abs() < INDIFFERENCE || signed_rank(&ratios) > 1.0 - CONFIDENCE => {
            Verdict::NoDifference
        }
        Some(_) if figures::is_better(better, 1.0, median) => Verdict::Better((median - 1.0).abs()),
        Some(_) => Verdict::Worse((median - 1.0).abs()),
    };
    Ok(Ratio { a, b, median, interval, wins, pairs: values.len(), verdict })
}

/// Sorts `values`; absent where there are none.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[values.len() / 2 - 1], upper) })
}

/// The percentile interval of the median; `values` is not empty.
fn bootstrap(values: &[f64]) -> (f64, f64) {
    let mut random = SplitMix(SEED);
    let mut resample = vec![0.0; values.len()];
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            resample.fill_with(|| values[random.below(values.len())]);
            median(&mut resample)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    let outside = (RESAMPLES as f64 * (1.0 - CONFIDENCE) / 2.0) as usize;
    (medians[outside], medians[RESAMPLES - 1 - outside])
}

/// The two-sided p-value of Wilcoxon's signed-rank test that the logarithms of `ratios` lie evenly around zero. Ratios of
/// exactly 1 say nothing and are left out, equal distances share their ranks.
fn signed_rank(ratios: &[f64]) -> f64 {
    let mut logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).filter(|log| *log != 0.0).collect();
    logs.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Twice the ranks, so that shared ones are whole: the ranks i+1..=j of a tie have the mean (i+1+j)/2.
    let mut ranks = Vec::with_capacity(logs.len());
    for tie in logs.chunk_by(|a, b| a.abs() == b.abs()) {
        let before = ranks.len();
        ranks.resize(before + tie.len(), 2 * before + tie.len() + 1);
    }
    let total: usize = ranks.iter().sum();
    let positive: usize = logs.iter().zip(&ranks).filter(|(log, _)| **log > 0.0).map(|(_, rank)| rank).sum();
    // If there is no difference every sign is a fair coin: the probability of each sum of ranks, one rank after the other.
    let mut probability = vec![0.0; total + 1];
    probability[0] = 1.0;
    for rank in ranks {
        for sum in (0..=total).rev() {
            let with = if sum >= rank { probability[sum - rank] } else { 0.0 };
            probability[sum] = f64::midpoint(probability[sum], with);
        }
    }
    let lesser = positive.min(total - positive);
    (2.0 * probability[..=lesser].iter().sum::<f64>()).min(1.0)
}

/// Steele, Lea and Flood's SplitMix64 (2014): enough for resampling, and the same on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Even within one part in 2⁶⁴ / `end`.
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal noise (Box and Muller) from a seed.
    struct Noise(SplitMix);

    impl Noise {
        fn next(&mut self) -> f64 {
            let mut uniform = || (self.0.next() >> 11) as f64 / (1u64 << 53) as f64;
            let (radius, angle) = ((-2.0 * (1.0 - uniform()).ln()).sqrt(), std::f64::consts::TAU * uniform());
            radius * angle.cos()
        }
    }

    /// Blocks whose level wanders by a tenth, as a shared machine's does; each run has `noise` of its own.
    fn pairs(seed: u64, count: usize, noise: f64, factor: f64) -> Vec<(f64, f64)> {
        let mut random = Noise(SplitMix(seed));
        let run = |random: &mut Noise, level: f64| level * (noise * random.next()).exp();
        (0..count)
            .map(|_| {
                let level = 1000.0 * (0.1 * random.next()).exp();
                (run(&mut random, level), run(&mut random, level * factor))
            })
            .collect()
    }

    fn verdicts(count: usize, noise: f64, factor: f64) -> Vec<Verdict> {
        let one = |seed| ratio(&pairs(seed, count, noise, factor), Better::Lower).unwrap().verdict;
        (0..400).map(one).collect()
    }

    #[test]
    fn equals_seldom_differ() {
        for (count, noise) in [(6, 0.02), (7, 0.10), (10, 0.02)] {
            let wrong = verdicts(count, noise, 1.0).iter().filter(|verdict| **verdict != Verdict::NoDifference).count();
            // 5 % of 400 are 20; more than 29 come by chance in one of fifty such tests, and the seeds are fixed.
            assert!(wrong <= 29, "{wrong} of 400 with {count} pairs and noise {noise}");
        }
    }

    #[test]
    fn a_planted_slowdown_is_found() {
        for (count, noise) in [(7, 0.02), (10, 0.02)] {
            let found =
                verdicts(count, noise, 1.05).iter().filter(|verdict| matches!(verdict, Verdict::Worse(_))).count();
            assert!(found >= 360, "{found} of 400 with {count} pairs and noise {noise}");
        }
    }

    #[test]
    fn the_verdict_knows_which_way_is_better() {
        let slower: Vec<(f64, f64)> = (0..8).map(|i| (100.0, 110.0 + f64::from(i))).collect();
        let latency = ratio(&slower, Better::Lower).unwrap();
        assert!(matches!(latency.verdict, Verdict::Worse(part) if (0.13..0.14).contains(&part)), "{latency:?}");
        assert_eq!((latency.wins, latency.pairs, latency.a), (0, 8, 100.0));
        let rate = ratio(&slower, Better::Higher).unwrap();
        assert!(matches!(rate.verdict, Verdict::Better(_)) && rate.wins == 8, "{rate:?}");
    }

    #[test]
    fn few_pairs_equal_pairs_and_impossible_ones_have_no_verdict() {
        let five = ratio(&[(1.0, 2.0); 5], Better::Lower).unwrap();
        assert_eq!((five.verdict, five.interval, five.median), (Verdict::TooFewPairs, None, 2.0));
        let equal = ratio(&[(1.0, 1.0); 9], Better::Lower).unwrap();
        assert_eq!((equal.verdict, equal.wins), (Verdict::NoDifference, 0));
        let hair: Vec<(f64, f64)> = (0..9).map(|i| (1.0, 1.0001 + 1e-6 * f64::from(i))).collect();
        assert_eq!(ratio(&hair, Better::Lower).unwrap().verdict, Verdict::NoDifference);
        assert_eq!(ratio(&[], Better::Lower), Err(NoRatio::Empty));
        assert_eq!(ratio(&[(0.0, 1.0)], Better::Lower), Err(NoRatio::Undefined(0.0, 1.0)));
        assert!(ratio(&[(1.0, f64::INFINITY)], Better::Lower).is_err());
    }

    #[test]
    fn the_signed_rank_test_is_exact() {
        let up = |count: usize| (1..=count).map(|i| 1.0 + i as f64 / 100.0).collect::<Vec<_>>();
        assert_eq!(signed_rank(&up(5)), 2.0 / 32.0);
        assert_eq!(signed_rank(&up(6)), 2.0 / 64.0);
        // Seven, of which the nearest two are below: the sets of ranks that sum to 3 or less are {}, 1, 2, 3, 1+2.
        let mut two_below = up(7);
        two_below[0] = 1.0 / two_below[0];
        two_below[1] = 1.0 / two_below[1];
        assert_eq!(signed_rank(&two_below), 2.0 * 5.0 / 128.0);
        // All at the same distance: a sign test. One of four against: (1 + 4) of 16, twice.
        assert_eq!(signed_rank(&[2.0, 2.0, 2.0, 0.5]), 2.0 * 5.0 / 16.0);
        assert_eq!(signed_rank(&[1.0, 1.0]), 1.0);
    }

    #[test]
    fn the_interval_is_the_same_every_time_and_holds_the_median() {
        let pairs = pairs(3, 7, 0.02, 1.05);
        let first = ratio(&pairs, Better::Lower).unwrap();
        assert_eq!(first, ratio(&pairs, Better::Lower).unwrap());
        let (low, high) = first.interval.unwrap();
        assert!(low < first.median && first.median < high, "{first:?}");
        let mut ratios: Vec<f64> = pairs.iter().map(|(a, b)| b / a).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        assert_eq!((low, high), (ratios[1], ratios[5]), "of seven, the second and the sixth");
    }
}
