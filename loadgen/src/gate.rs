//! Gates of continuous integration: a run against an SLO, and a run against an earlier one.
//!
//! `p99<5ms,e2e.p99.9<20ms,rate>=0.99`: objectives with commas between them, each a figure by its name ([`crate::metric`]), one
//! of `<` `<=` `>` `>=` `=`, and a bound. Bounds of latencies have a unit (ns, us, ms, s), those of `rate` may end in `%`, those
//! of `rate_in` and `rate_out` in `k` or `M`; `cpu` is in seconds per GB. What was not measured fails its objective, and a
//! saturated or invalid run fails every one: a gate that passes for want of evidence is none.
//!
//! A baseline is one run, so it guards against gross regressions only, and leaves out what changes most between runs of the
//! same thing: percentiles above the 99th. What tells small differences from noise is [`crate::compare`].

use std::fmt;
use std::str::FromStr;

use crate::figures;
use crate::metric::{Better, Metric, NoFigure, Point, Span, UnknownMetric};
use crate::result::{DurabilityClass, Outcome, ResultFile, RunState};

/// What a run is to achieve.
#[derive(Clone, PartialEq, Debug)]
pub struct Slo(Vec<Objective>);

/// One part of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Objective {
    /// The figure.
    pub metric: Metric,
    /// How it is to lie to the bound.
    pub relation: Relation,
    /// In the figure's unit.
    pub bound: f64,
    text: String,
}

/// How a figure is to lie to its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `=`
    Equal,
}

impl Relation {
    fn holds(self, figure: f64, bound: f64) -> bool {
        match self {
            Relation::Below => figure < bound,
            Relation::AtMost => figure <= bound,
            Relation::Above => figure > bound,
            Relation::AtLeast => figure >= bound,
            Relation::Equal => figure == bound,
        }
    }
}

/// What became of an objective.
#[derive(Debug)]
pub struct Judgement {
    /// Which one.
    pub objective: Objective,
    /// What the run has.
    pub figure: Result<f64, NoFigure>,
    /// Whether it is met.
    pub met: bool,
}

impl Slo {
    /// Its parts, in the order in which they were given.
    pub fn objectives(&self) -> &[Objective] {
        &self.0
    }

    /// Holds a run against every objective. It met the SLO if it met each.
    pub fn judge(&self, outcome: &Outcome) -> Vec<Judgement> {
        let is_void = matches!(outcome.state, RunState::Saturated | RunState::Invalid);
        let judge = |objective: &Objective| {
            let figure = if is_void { Err(NoFigure::Void(outcome.state)) } else { objective.metric.read(outcome) };
            let met = figure.as_ref().is_ok_and(|figure| objective.relation.holds(*figure, objective.bound));
            Judgement { objective: objective.clone(), figure, met }
        };
        self.0.iter().map(judge).collect()
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|objective| objective.text.as_str()).collect();
        f.write_str(&texts.join(","))
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.met { "met" } else { "FAILED" };
        write!(f, "{}: {verdict}, ", self.objective)?;
        match &self.figure {
            Ok(figure) => f.write_str(&figures::with_unit(self.objective.metric, *figure)),
            Err(error) => write!(f, "{error}"),
        }
    }
}

/// A text that is no SLO.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SloError {
    /// There is nothing between two commas.
    #[error("an objective is empty")]
    Empty,
    /// Nothing is compared.
    #[error("{0:?} has none of < <= > >= =")]
    NoRelation(String),
    /// The figure is unknown.
    #[error("{0:?}: {1}")]
    Metric(String, UnknownMetric),
    /// The bound cannot be read.
    #[error("{objective:?}: {bound:?} is no bound of it; that is a number of zero or more {form}")]
    Bound {
        /// The objective.
        objective: String,
        /// Its bound.
        bound: String,
        /// What may follow the number.
        form: &'static str,
    },
}

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Slo, SloError> {
        text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().map(Slo)
    }
}

impl FromStr for Objective {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Objective, SloError> {
        const RELATIONS: [(&str, Relation); 5] = [
            ("<=", Relation::AtMost),
            (">=", Relation::AtLeast),
            ("<", Relation::Below),
            (">", Relation::Above),
            ("=", Relation::Equal),
        ];
        if text.is_empty() {
            return Err(SloError::Empty);
        }
        let at = text.find(['<', '>', '=']).ok_or_else(|| SloError::NoRelation(text.to_owned()))?;
        let (name, rest) = text.split_at(at);
        let split = |(sign, relation): &(&str, Relation)| Some((*relation, rest.strip_prefix(sign)?.trim()));
        let found = RELATIONS.iter().find_map(split);
        let (relation, bound) = found.ok_or_else(|| SloError::NoRelation(text.to_owned()))?;
        let metric: Metric = name.trim().parse().map_err(|error| SloError::Metric(text.to_owned(), error))?;
        let (units, form) = units(metric);
        let wrong = || SloError::Bound { objective: text.to_owned(), bound: bound.to_owned(), form };
        let bound = number(bound, units).ok_or_else(wrong)?;
        Ok(Objective { metric, relation, bound, text: text.to_owned() })
    }
}

/// What may follow a bound and what it multiplies, and the same for people.
const fn units(metric: Metric) -> (&'static [(&'static str, f64)], &'static str) {
    match metric {
        Metric::Latency(..) => (&[("ns", 1e-3), ("us", 1.0), ("ms", 1e3), ("s", 1e6)], "with ns, us, ms or s"),
        Metric::Rate => (&[("%", 0.01), ("", 1.0)], "or of percent"),
        Metric::RateIn | Metric::RateOut => (&[("k", 1e3), ("M", 1e6), ("", 1.0)], "with k, M or nothing"),
        Metric::Cpu | Metric::Errors | Metric::Loss | Metric::Faults => (&[("", 1.0)], "with nothing after it"),
    }
}

/// The first unit that `text` ends in counts.
fn number(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (digits, scale) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    digits.parse::<f64>().ok().map(|number| number * scale)
}

/// Figures that are held against a baseline; the service time where there was no schedule.
const GUARDED: [Metric; 11] = [
    Metric::RateIn,
    Metric::RateOut,
    Metric::Cpu,
    Metric::Latency(Span::Response, Point::Quantile(0.5)),
    Metric::Latency(Span::Response, Point::Quantile(0.99)),
    Metric::Latency(Span::Service, Point::Quantile(0.5)),
    Metric::Latency(Span::Service, Point::Quantile(0.99)),
    Metric::Latency(Span::EndToEnd, Point::Quantile(0.5)),
    Metric::Latency(Span::EndToEnd, Point::Quantile(0.99)),
    Metric::Latency(Span::Connect, Point::Quantile(0.5)),
    Metric::Latency(Span::Connect, Point::Quantile(0.99)),
];
/// Schedules closer than this are the same.
const SCHEDULE_TOLERANCE: f64 = 0.01;

/// A figure of the baseline and of the run.
#[derive(Debug)]
pub struct Change {
    /// Which one.
    pub metric: Metric,
    /// The baseline's.
    pub before: f64,
    /// The run's.
    pub after: Result<f64, NoFigure>,
    /// Whether it is worse by more than is allowed, or missing.
    pub regressed: bool,
}

/// A run that a baseline says nothing about.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum BaselineError {
    /// Different acknowledgements.
    #[error("the baseline has durability class {0:?} and the run {1:?}")]
    Class(DurabilityClass, DurabilityClass),
    /// Different schedules.
    #[error("the baseline has {}, the run {}", schedule(*.0), schedule(*.1))]
    Schedule(Option<f64>, Option<f64>),
    /// Different subcommands.
    #[error("the baseline is of `{0}` and the run of `{1}`")]
    Command(String, String),
    /// Nothing that counts.
    #[error("the baseline is {}: it has no figures to hold a run against", .0.name())]
    Void(RunState),
}

fn schedule(rate: Option<f64>) -> String {
    rate.map_or_else(|| "no schedule".to_owned(), |rate| format!("a schedule of {rate:.0} records/s"))
}

/// Fails where a baseline says nothing about a run of this subcommand with this schedule, in records per second.
pub fn fits(baseline: &ResultFile, command: &str, rate_target: Option<f64>) -> Result<(), BaselineError> {
    if baseline.command != command {
        return Err(BaselineError::Command(baseline.command.clone(), command.to_owned()));
    }
    let is_same_schedule = match (baseline.result.rate_target, rate_target) {
        (Some(before), Some(after)) => (after - before).abs() <= SCHEDULE_TOLERANCE * before,
        (before, after) => before.is_none() && after.is_none(),
    };
    if !is_same_schedule {
        return Err(BaselineError::Schedule(baseline.result.rate_target, rate_target));
    }
    match baseline.result.state {
        RunState::Saturated | RunState::Invalid => Err(BaselineError::Void(baseline.result.state)),
        RunState::Ok | RunState::Unpaced => Ok(()),
    }
}

/// Holds `run` against `baseline`: every guarded figure that the baseline has. `allowed` is the part (0.05 is 5 %) by which a
/// figure may be worse. Fails where the two cannot be compared.
pub fn changes(baseline: &ResultFile, run: &ResultFile, allowed: f64) -> Result<Vec<Change>, BaselineError> {
    let (before, after) = (&baseline.result, &run.result);
    fits(baseline, &run.command, after.rate_target)?;
    if baseline.class != run.class {
        return Err(BaselineError::Class(baseline.class, run.class));
    }
    let change = |metric: &Metric| {
        let before = metric.read(before).ok()?;
        let after = metric.read(after);
        let is_worse = |after: f64| match metric.better() {
            Better::Higher => after < before * (1.0 - allowed),
            Better::Lower => after > before * (1.0 + allowed),
        };
        let regressed = after.as_ref().map_or(true, |after| is_worse(*after));
        Some(Change { metric: *metric, before, after, regressed })
    };
    Ok(GUARDED.iter().filter_map(change).collect())
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.regressed { "REGRESSED" } else { "ok" };
        write!(f, "{}: {verdict}, {} before, ", self.metric, figures::with_unit(self.metric, self.before))?;
        match &self.after {
            Ok(after) => {
                let part = after / self.before - 1.0;
                write!(f, "{} now ({:+.1} %)", figures::with_unit(self.metric, *after), part * 100.0)
            }
            Err(error) => write!(f, "now {error}"),
        }
    }
}

/// Reads what `--max-regress` takes: `5%`, or a part of 1 like `0.05`.
pub fn allowance(text: &str) -> Result<f64, String> {
    number(text, units(Metric::Rate).0).ok_or_else(|| format!("{text:?} is neither a percentage nor a part of 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_with_their_units() {
        let slo: Slo =
            "p99<5ms, e2e.p99.9 <= 20us,rate>=99%,rate_in>1.5M,errors=0,cpu<2.5,slip.max<2s".parse().unwrap();
        let read: Vec<_> = slo.objectives().iter().map(|part| (part.relation, part.bound)).collect();
        let expected = [
            (Relation::Below, 5_000.0),
            (Relation::AtMost, 20.0),
            (Relation::AtLeast, 0.99),
            (Relation::Above, 1_500_000.0),
            (Relation::Equal, 0.0),
            (Relation::Below, 2.5),
            (Relation::Below, 2_000_000.0),
        ];
        assert_eq!(read, expected);
        assert_eq!(slo.objectives()[0].metric, Metric::Latency(Span::Response, Point::Quantile(0.99)));
        assert_eq!(slo.to_string(), "p99<5ms,e2e.p99.9 <= 20us,rate>=99%,rate_in>1.5M,errors=0,cpu<2.5,slip.max<2s");
    }

    #[test]
    fn what_is_no_objective_is_refused() {
        let error = |text: &str| text.parse::<Slo>().unwrap_err();
        for wrong in ["", "p99<5ms,", ",p99<5ms"] {
            assert_eq!(error(wrong), SloError::Empty, "{wrong}");
        }
        assert_eq!(error("p99"), SloError::NoRelation("p99".to_owned()));
        let unknown = error("p99<5ms,ltency<1ms").to_string();
        assert!(unknown.contains("ltency") && unknown.contains("rate_in"), "{unknown}");
        for wrong in
            ["p99<5", "p99<ms", "p99<-1ms", "p99<5m", "p99<1e3ms", "p99==5ms", "rate>99ms", "errors<1%", "rate>inf"]
        {
            assert!(matches!(error(wrong), SloError::Bound { .. }), "{wrong}: {}", error(wrong));
        }
    }

    #[test]
    fn allowances_are_read() {
        assert_eq!(allowance("5%"), Ok(0.05));
        assert_eq!(allowance("0.05"), Ok(0.05));
        assert!(allowance("five").is_err() && allowance("-5%").is_err());
    }
}
