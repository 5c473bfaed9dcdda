//! What a run is worth: whether it kept its schedule, and if not, why not. Pure.
//!
//! A paced run is *saturated* if what it measured is the queue in front of the broker, or the load generator itself: then the
//! latencies beyond the median are void. A stall of the broker is no saturation, so that its latencies count: signs of
//! saturation are those that stay.

use corelane::runtime::Duration;

use super::measure::Sample;
use crate::result::RunState;

/// Records that end so long after the end of the measured window still count for the rate: those that were under way then, or
/// held up by a stall that began before it.
pub(super) const COUNT_GRACE: Duration = Duration::from_secs(2);
/// The share of its schedule that a paced run has to achieve.
const RATE_SHARE_MIN: f64 = 0.99;
/// The share of a thread's time that it may use of its core: beyond it, waiting for the CPU shows in the latencies.
const CPU_SHARE_MAX: f64 = 0.8;
/// The share of an unpaced run's time from which on the load generator was what bounded it.
const CPU_SHARE_BOUND: f64 = 0.95;
/// The share of looks that may find records held up by the limit of requests in flight. A stall of a second in ten is a
/// tenth; a limit that is too low for the rate is met all the time.
const AT_LIMIT_SHARE_MAX: f64 = 0.25;
/// Quarters of a run whose least lag and least backlog are compared.
const PARTS: usize = 4;
/// How far producers may be behind at the end, or consumers, before growth counts: a hiccup of this machine.
const GROWN_LAG_NS: u64 = 20_000_000;
const GROWN_BACKLOG_SECONDS: f64 = 0.05;

/// What a run is judged by.
pub(super) struct Evidence<'a> {
    /// Records per second that were to be; `None` without a schedule.
    pub(super) rate_target: Option<f64>,
    /// Acknowledged records per second.
    pub(super) rate_in: f64,
    /// What was measured, all together.
    pub(super) total: &'a Sample,
    /// By interval of the measured window, the least lag of producers in nanoseconds and the least backlog of consumers in
    /// records.
    pub(super) least: &'a [(Option<u64>, Option<u64>)],
    /// The highest share of its time that a thread used.
    pub(super) cpu_share: f64,
    /// Why the run was ended early, if it was.
    pub(super) stopped_because: Option<&'a str>,
}

/// Judges a run; the reasons are for people.
pub(super) fn judge(evidence: &Evidence<'_>) -> (RunState, Vec<String>) {
    let mut invalid = Vec::new();
    if let Some(because) = evidence.stopped_because {
        invalid.push(because.to_owned());
    }
    if evidence.total.errors > 0 && evidence.rate_in == 0.0 {
        invalid.push("nothing was acknowledged".to_owned());
    }
    if !invalid.is_empty() {
        return (RunState::Invalid, invalid);
    }
    let Some(target) = evidence.rate_target else {
        let mut reasons = Vec::new();
        if evidence.cpu_share > CPU_SHARE_BOUND {
            reasons.push(format!("loadgen-bound: a thread used {:.0} % of its core", evidence.cpu_share * 100.0));
        }
        return (RunState::Unpaced, reasons);
    };
    let mut reasons = Vec::new();
    if evidence.rate_in < RATE_SHARE_MIN * target {
        reasons.push(format!("{:.1} % of the rate was achieved", evidence.rate_in / target * 100.0));
    }
    if evidence.total.dropped > 0 {
        reasons.push(format!("{} records were dropped", evidence.total.dropped));
    }
    let at_limit = evidence.total.looks_at_limit as f64 / evidence.total.looks.max(1) as f64;
    if at_limit > AT_LIMIT_SHARE_MAX {
        reasons
            .push(format!("the limit of requests in flight held records up for {:.0} % of the time", at_limit * 100.0));
    }
    let lag: Vec<u64> = evidence.least.iter().filter_map(|(lag, _)| *lag).collect();
    if grew(&lag, GROWN_LAG_NS) {
        reasons.push("producers fell further and further behind".to_owned());
    }
    let backlog: Vec<u64> = evidence.least.iter().filter_map(|(_, backlog)| *backlog).collect();
    if grew(&backlog, (target * GROWN_BACKLOG_SECONDS) as u64) {
        reasons.push("consumers fell further and further behind".to_owned());
    }
    if evidence.cpu_share > CPU_SHARE_MAX {
        reasons.push(format!("a thread of load used {:.0} % of its core", evidence.cpu_share * 100.0));
    }
    (if reasons.is_empty() { RunState::Ok } else { RunState::Saturated }, reasons)
}

/// Whether the least value of each part of the run is above that of the part before, and ends above `floor`.
fn grew(values: &[u64], floor: u64) -> bool {
    if values.len() < 2 * PARTS {
        // Too short for a trend: only a last value that no stall explains.
        return values.iter().copied().min().is_some_and(|least| values.len() > 1 && least > floor);
    }
    let part = values.len().div_ceil(PARTS);
    let least: Vec<u64> = values.chunks(part).filter_map(|part| part.iter().copied().min()).collect();
    least.windows(2).all(|pair| pair[0] < pair[1]) && least.last().is_some_and(|last| *last > floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence<'a>(total: &'a Sample, least: &'a [(Option<u64>, Option<u64>)]) -> Evidence<'a> {
        let (rate_target, rate_in, cpu_share) = (Some(1000.0), 999.0, 0.3);
        Evidence { rate_target, rate_in, total, least, cpu_share, stopped_because: None }
    }

    #[test]
    fn a_run_that_kept_its_schedule_is_ok() {
        let total = Sample { looks: 100, looks_at_limit: 10, ..Sample::default() };
        // A stall of one second now and then leaves no trend.
        let least: Vec<_> = (0..30).map(|at| (Some(if at % 10 == 3 { 900_000_000 } else { 1000 }), Some(5))).collect();
        assert_eq!(judge(&evidence(&total, &least)), (RunState::Ok, Vec::new()));
    }

    #[test]
    fn every_sign_of_saturation_is_told() {
        let calm = Sample { looks: 100, ..Sample::default() };
        let says = |evidence: Evidence<'_>, what: &str| {
            let (state, reasons) = judge(&evidence);
            assert_eq!(state, RunState::Saturated, "{what}");
            assert!(reasons.len() == 1 && reasons[0].contains(what), "{reasons:?}");
        };
        says(Evidence { rate_in: 980.0, ..evidence(&calm, &[]) }, "98.0 %");
        says(Evidence { cpu_share: 0.9, ..evidence(&calm, &[]) }, "90 % of its core");
        says(evidence(&Sample { dropped: 3, ..calm.clone() }, &[]), "3 records were dropped");
        says(evidence(&Sample { looks_at_limit: 60, ..calm.clone() }, &[]), "60 % of the time");
        let lag: Vec<_> = (0..20).map(|at| (Some(at * 10_000_000), None)).collect();
        says(evidence(&calm, &lag), "producers fell");
        let backlog: Vec<_> = (0..20).map(|at| (Some(0), Some(at * 10))).collect();
        says(evidence(&calm, &backlog), "consumers fell");
    }

    #[test]
    fn without_a_schedule_nothing_is_saturated() {
        let total = Sample::default();
        let unpaced = || Evidence { rate_target: None, ..evidence(&total, &[]) };
        assert_eq!(judge(&unpaced()), (RunState::Unpaced, Vec::new()));
        let (state, reasons) = judge(&Evidence { cpu_share: 0.99, ..unpaced() });
        assert!(state == RunState::Unpaced && reasons[0].starts_with("loadgen-bound"));
        let (state, _) = judge(&Evidence { stopped_because: Some("interrupted"), ..unpaced() });
        assert_eq!(state, RunState::Invalid);
    }
}
