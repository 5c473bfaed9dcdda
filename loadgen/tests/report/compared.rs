//! Comparisons of whole results.
//!
//! It shows what is compared, what is void, and what is said about runs that have little in common. How often verdicts are
//! right is shown beside the statistics, with many more pairs than results could be made for.

use loadgen::compare::{Comparison, NoPairs, Row, Verdict, compare};
use loadgen::metric::Metric;
use loadgen::result::{DurabilityClass, ResultFile};

use super::sample;

fn compared(pairs: &[(ResultFile, ResultFile)]) -> Comparison {
    compare(&pairs.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()).unwrap()
}

fn row<'a>(comparison: &'a Comparison, name: &str) -> &'a Row {
    let metric: Metric = name.parse().unwrap();
    comparison.rows.iter().find(|row| row.metric == metric).unwrap()
}

fn pairs(factor: f64) -> Vec<(ResultFile, ResultFile)> {
    (0..7).map(|seed| (sample::paced(2 * seed, 1.0), sample::paced(2 * seed + 1, factor))).collect()
}

#[test]
fn runs_of_the_same_thing_do_not_differ() {
    let comparison = compared(&pairs(1.0));
    assert_eq!((comparison.pairs, comparison.cautions.len(), comparison.rows.len()), (7, 0, 12));
    for row in &comparison.rows {
        assert_eq!(row.ratio.as_ref().unwrap().verdict, Verdict::NoDifference, "{row:?}");
    }
}

#[test]
fn slower_runs_are_found_out_by_the_latencies_that_are_slower() {
    let comparison = compared(&pairs(1.2));
    for name in ["p50", "p99", "service.p50", "e2e.p50", "e2e.p99"] {
        let verdict = row(&comparison, name).ratio.as_ref().unwrap().verdict;
        assert!(matches!(verdict, Verdict::Worse(part) if (0.1..0.3).contains(&part)), "{name}: {verdict}");
    }
    assert_eq!(row(&comparison, "rate_in").ratio.as_ref().unwrap().verdict, Verdict::NoDifference);
}

#[test]
fn one_pair_has_ratios_and_no_verdict() {
    let comparison = compared(&[(sample::paced(1, 1.0), sample::paced(2, 3.0))]);
    let ratio = row(&comparison, "p50").ratio.as_ref().unwrap();
    assert!((2.9..3.1).contains(&ratio.median) && ratio.interval.is_none(), "{ratio:?}");
    assert_eq!((ratio.verdict, ratio.wins), (Verdict::TooFewPairs, 0));
    assert_eq!(compare(&[]), Err(NoPairs));
}

#[test]
fn a_figure_that_is_void_in_one_pair_has_no_ratio() {
    let mut given = pairs(1.0);
    given[3].1 = sample::saturated(9);
    let comparison = compared(&given);
    let why = row(&comparison, "p99").ratio.as_ref().unwrap_err();
    assert_eq!(why, "B: void: the run is saturated (1 of 7 pairs)");
    assert!(row(&comparison, "p50").ratio.is_ok() && row(&comparison, "cpu").ratio.is_ok());
    assert!(comparison.cautions.iter().any(|caution| caution.contains("0 runs of A and 1 of B")), "{comparison:?}");
}

#[test]
fn what_decides_the_figures_and_differs_is_said() {
    let mut b = sample::paced(2, 1.0);
    b.class = DurabilityClass::B;
    b.result.rate_target = Some(100_000.0);
    b.target.partitions = 1;
    b.result.verify.as_mut().unwrap().lost = 1;
    let cautions = compared(&[(sample::paced(1, 1.0), b)]).cautions;
    assert_eq!(
        cautions,
        [
            "the durability class is not the same: A C, B B",
            "the schedule is not the same: A 200000 records/s, B 100000 records/s",
            "partitions × replicas are not the same: A 8 × 1, B 1 × 1",
            "verification found faults: 0 runs of A and 1 of B",
        ]
    );
}

#[test]
fn what_neither_measured_is_no_figure() {
    let without = |seed| {
        let mut file = sample::paced(seed, 1.0);
        file.result.broker = None;
        file
    };
    let comparison = compared(&[(without(1), without(2))]);
    assert!(comparison.rows.iter().all(|row| row.metric != Metric::Cpu));
    let half = compared(&[(without(1), sample::paced(2, 1.0))]);
    assert_eq!(row(&half, "cpu").ratio.as_ref().unwrap_err(), "A: not measured (1 of 1 pairs)");
}
