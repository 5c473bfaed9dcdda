//! What the steps of a search are held against. Pure: a run in, the reason why it does not do out.
//!
//! Two things are asked for: an SLO, which a saturated run never meets, or only that the load was kept up, which is what the
//! OpenMessaging Benchmark asks for (`RateController.java`) where it looks for the highest rate: producers that are not
//! behind their schedule, and consumers that are not behind producers. That says nothing about latencies: a run that
//! is saturated by the rules of latencies, since batches wait for a free request, may keep up for ever.

use std::fmt;

use crate::figures;
use crate::gate::Slo;
use crate::result::{Interval, Outcome, RunState, Verification};
use crate::table;

/// How far anybody may be behind: so many records, as in the benchmark, or so many seconds of the rate, which is what a
/// broker that keeps up may have under way. In a step of 5 s the latter is 1 % of its rate.
const BEHIND_RECORDS: f64 = 1000.0;
const BEHIND_SECONDS: f64 = 0.05;
/// Intervals at the end of a run of which the better one counts: a hiccup in the last moment is no backlog.
const LAST: usize = 2;

/// See the head of this file.
#[derive(Clone, Debug)]
pub enum Criterion {
    /// Every objective is met.
    Slo(Slo),
    /// The load was kept up.
    KeptUp,
}

impl Criterion {
    /// Why a run on a steady schedule, which ended `end_s` seconds after the load began, does not meet it; `None` if it does.
    pub fn why_not(&self, outcome: &Outcome, series: &[Interval], end_s: f64) -> Option<String> {
        if let Some(verify) = outcome.verify.as_ref().filter(|verify| !Verification::is_clean(verify)) {
            return Some(table::verification(verify));
        }
        match (self, outcome.state) {
            (_, RunState::Invalid) | (Criterion::Slo(_), RunState::Saturated | RunState::Unpaced) => {
                Some(format!("{}: {}", outcome.state.name(), outcome.reasons.join("; ")))
            }
            (Criterion::Slo(slo), RunState::Ok) => {
                let failed = slo.judge(outcome).into_iter().filter(|judgement| !judgement.met);
                let failed: Vec<String> = failed.map(|judgement| judgement.to_string()).collect();
                (!failed.is_empty()).then(|| failed.join("; "))
            }
            (Criterion::KeptUp, _) => fell_behind(outcome.rate_target?, series, end_s),
        }
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Criterion::Slo(slo) => slo.fmt(f),
            Criterion::KeptUp => f.write_str("kept up"),
        }
    }
}

/// Who was behind at the end of the schedule, unless nobody was.
fn fell_behind(rate: f64, series: &[Interval], end_s: f64) -> Option<String> {
    let (mut acked, mut producers, mut consumers) = (0.0, Vec::new(), Vec::new());
    // Ends of intervals are sums of their lengths, and those are no sums of powers of two.
    for interval in series.iter().filter(|interval| interval.at_s <= end_s + 1e-6) {
        acked += interval.rate_in * interval.seconds;
        producers.push(rate * interval.at_s - acked);
        consumers.push(interval.backlog as f64);
    }
    if producers.is_empty() {
        return Some("it ended before its first interval did".to_owned());
    }
    let limit = BEHIND_RECORDS.max(rate * BEHIND_SECONDS);
    for (who, behind) in [("producers", producers), ("consumers", consumers)] {
        let least = behind.iter().rev().take(LAST).copied().reduce(f64::min).unwrap_or(f64::INFINITY);
        if least > limit {
            return Some(format!("{who} were {} records behind", figures::count(least as u64)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five seconds in which so many records a second were acknowledged and handed out, then the rest.
    fn series(rate_in: f64, rate_out: f64) -> Vec<Interval> {
        let interval = |index: u32| {
            let at_s = f64::from(index) * 0.5;
            let backlog = ((rate_in - rate_out) * at_s) as u64;
            Interval { at_s, seconds: 0.5, rate_in, rate_out, backlog, ..Interval::default() }
        };
        let drain = Interval { at_s: 5.5, seconds: 0.5, rate_in: 1e6, ..Interval::default() };
        (1..=10).map(interval).chain([drain]).collect()
    }

    #[test]
    fn whoever_falls_behind_is_told() {
        let why = |rate, rate_in, rate_out| fell_behind(rate, &series(rate_in, rate_out), 5.0);
        assert_eq!(why(100e3, 100e3, 100e3), None);
        assert_eq!(why(100e3, 99.1e3, 99.1e3), None, "50 ms of the rate are under way");
        assert_eq!(why(100e3, 98e3, 98e3).unwrap(), "producers were 9\u{202f}000 records behind");
        assert_eq!(why(100e3, 100e3, 98e3).unwrap(), "consumers were 9\u{202f}000 records behind");
        assert_eq!(why(1e3, 900.0, 900.0), None, "a thousand records are under way at any rate");
    }

    #[test]
    fn a_hiccup_in_the_last_moment_is_no_backlog() {
        let mut stalled = series(100e3, 100e3);
        stalled[9].rate_in = 0.0;
        assert_eq!(fell_behind(100e3, &stalled, 5.0), None);
        stalled[8].rate_in = 0.0;
        assert!(fell_behind(100e3, &stalled, 5.0).is_some());
    }

    #[test]
    fn a_run_of_which_nothing_is_known_did_not_keep_up() {
        assert!(fell_behind(100e3, &[], 5.0).is_some());
    }
}
