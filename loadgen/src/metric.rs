//! The figures of a result by name, so that SLOs, baselines, comparisons and reports mean the same by a name.
//!
//! | name | what | unit | better |
//! |---|---|---|---|
//! | `p99`, `e2e.p99.9`, `service.max`, … | a latency: one of [`Span::ALL`], `response` where there is no name | µs | lower |
//! | `rate` | achieved part of the schedule | 1 | higher |
//! | `rate_in`, `rate_out` | records per second that were acknowledged, handed to consumers | records/s | higher |
//! | `cpu` | `cpu_s_per_gb` of the broker | s/GB | lower |
//! | `errors`, `loss`, `faults` | errors; records lost; faults of all kinds that verification counts | 1 | lower |
//!
//! It also decides what a figure is worth: an invalid run has none, a saturated one no latency beyond the median, and one
//! without a schedule no latency that starts at the schedule. Percentiles come from the histogram alone, and samples beyond
//! its end count: a percentile that lies among them is infinite.

use std::fmt;
use std::str::FromStr;

use crate::result::{HistogramError, Latency, Outcome, RunState, Verification};

/// What [`Metric::from_str`] takes, for messages.
pub const KNOWN: &str = "p50 p90 p99 p99.9 p99.99 (any pN) mean max, alone or after response. service. slip. e2e. fetch. \
                         connect.; rate rate_in rate_out cpu errors loss faults";

/// Between which two points a latency is taken; [`Outcome::latency`] says what each means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Span {
    /// Intended to acknowledged.
    Response,
    /// Sent to acknowledged.
    Service,
    /// Intended to sent.
    Slip,
    /// Intended to handed to the consumer.
    EndToEnd,
    /// A fetch that brought records.
    Fetch,
    /// A connection being begun to the broker's first answer on it.
    Connect,
}

impl Span {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Span; 6] = [Span::Response, Span::Service, Span::Slip, Span::EndToEnd, Span::Fetch, Span::Connect];

    /// As in result files.
    pub const fn name(self) -> &'static str {
        match self {
            Span::Response => "response",
            Span::Service => "service",
            Span::Slip => "slip",
            Span::EndToEnd => "e2e",
            Span::Fetch => "fetch",
            Span::Connect => "connect",
        }
    }

    /// Whether it begins at the schedule, without which it means nothing.
    const fn is_scheduled(self) -> bool {
        matches!(self, Span::Response | Span::Slip | Span::EndToEnd)
    }
}

/// A point of a distribution.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Point {
    /// From 0 to 1.
    Quantile(f64),
    /// The mean.
    Mean,
    /// The slowest.
    Max,
}

impl Point {
    /// In microseconds.
    pub fn of(self, latency: &Latency) -> Result<f64, HistogramError> {
        match self {
            Point::Max | Point::Mean if latency.overflow > 0 => Ok(f64::INFINITY),
            Point::Max => Ok(latency.max_us as f64),
            Point::Mean => Ok(latency.mean_us),
            Point::Quantile(quantile) => {
                let histogram = latency.histogram()?;
                if latency.overflow == 0 {
                    return Ok(histogram.value_at_quantile(quantile) as f64);
                }
                let rank = (quantile * latency.count as f64).ceil().max(1.0);
                let kept = histogram.len() as f64;
                Ok(if rank > kept { f64::INFINITY } else { histogram.value_at_quantile(rank / kept) as f64 })
            }
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Mean => f.write_str("mean"),
            Point::Max => f.write_str("max"),
            // The product is off by an ulp; eight decimals of it are not.
            Point::Quantile(quantile) => write!(f, "p{}", (quantile * 1e10).round() / 1e8),
        }
    }
}

/// Which way a figure gets better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// A rate.
    Higher,
    /// A latency, a cost, a fault.
    Lower,
}

/// A figure of a result.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Metric {
    /// In microseconds.
    Latency(Span, Point),
    /// The achieved part of the schedule, 1 is all.
    Rate,
    /// Acknowledged records per second.
    RateIn,
    /// Records per second that consumers were handed.
    RateOut,
    /// The broker's CPU seconds per 10⁹ bytes.
    Cpu,
    /// Errors.
    Errors,
    /// Acknowledged records that no consumer was handed.
    Loss,
    /// Faults of all kinds.
    Faults,
}

/// Why a result has no such figure.
#[derive(Debug, thiserror::Error)]
pub enum NoFigure {
    /// The run had no such samples, or was not asked for it.
    #[error("not measured")]
    NotMeasured,
    /// The run's state takes its meaning.
    #[error("void: the run is {}", .0.name())]
    Void(RunState),
    /// The file is damaged.
    #[error(transparent)]
    Histogram(#[from] HistogramError),
}

impl Metric {
    /// The figure in `outcome`, in the unit of the table above.
    pub fn read(self, outcome: &Outcome) -> Result<f64, NoFigure> {
        if outcome.state == RunState::Invalid {
            return Err(NoFigure::Void(outcome.state));
        }
        let figure = match self {
            Metric::Latency(span, point) => return read_latency(outcome, span, point),
            Metric::Rate => outcome.rate_target.filter(|target| *target > 0.0).map(|target| outcome.rate_in / target),
            Metric::RateIn => (outcome.records_in > 0).then_some(outcome.rate_in),
            Metric::RateOut => (outcome.records_out > 0).then_some(outcome.rate_out),
            Metric::Cpu => outcome.broker.map(|broker| broker.cpu_s_per_gb),
            Metric::Errors => Some(outcome.errors as f64),
            Metric::Loss => outcome.verify.map(|verify| verify.lost as f64),
            Metric::Faults => outcome.verify.map(|verify| faults(&verify) as f64),
        };
        figure.ok_or(NoFigure::NotMeasured)
    }

    /// Which way it gets better.
    pub const fn better(self) -> Better {
        match self {
            Metric::Rate | Metric::RateIn | Metric::RateOut => Better::Higher,
            _ => Better::Lower,
        }
    }
}

fn read_latency(outcome: &Outcome, span: Span, point: Point) -> Result<f64, NoFigure> {
    let latency = outcome.latency.get(span.name()).filter(|latency| latency.count > 0).ok_or(NoFigure::NotMeasured)?;
    let is_tail = !matches!(point, Point::Quantile(quantile) if quantile <= 0.5);
    let is_void = match outcome.state {
        RunState::Ok => false,
        RunState::Saturated => is_tail,
        RunState::Unpaced => span.is_scheduled(),
        RunState::Invalid => true,
    };
    if is_void { Err(NoFigure::Void(outcome.state)) } else { Ok(point.of(latency)?) }
}

/// What an honest broker has none of.
pub fn faults(verify: &Verification) -> u64 {
    let Verification { lost, duplicated, reordered, corrupt, misplaced, phantom, .. } = *verify;
    lost + duplicated + reordered + corrupt + misplaced + phantom
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Latency(span, point) => write!(f, "{}.{point}", span.name()),
            Metric::Rate => f.write_str("rate"),
            Metric::RateIn => f.write_str("rate_in"),
            Metric::RateOut => f.write_str("rate_out"),
            Metric::Cpu => f.write_str("cpu"),
            Metric::Errors => f.write_str("errors"),
            Metric::Loss => f.write_str("loss"),
            Metric::Faults => f.write_str("faults"),
        }
    }
}

/// A name that no figure has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no figure named {0:?}; known are {KNOWN}")]
pub struct UnknownMetric(String);

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(text: &str) -> Result<Metric, UnknownMetric> {
        let metric = match text {
            "rate" => Some(Metric::Rate),
            "rate_in" => Some(Metric::RateIn),
            "rate_out" => Some(Metric::RateOut),
            "cpu" => Some(Metric::Cpu),
            "errors" => Some(Metric::Errors),
            "loss" => Some(Metric::Loss),
            "faults" => Some(Metric::Faults),
            _ => latency(text),
        };
        metric.ok_or_else(|| UnknownMetric(text.to_owned()))
    }
}

fn latency(text: &str) -> Option<Metric> {
    let named = Span::ALL.iter().find_map(|span| Some((*span, text.strip_prefix(span.name())?.strip_prefix('.')?)));
    let (span, point) = named.unwrap_or((Span::Response, text));
    let point = match point {
        "mean" => Point::Mean,
        "max" => Point::Max,
        _ => Point::Quantile(quantile(point.strip_prefix('p')?)?),
    };
    Some(Metric::Latency(span, point))
}

/// `99.9` is 0.999: the digits with the point moved, since dividing would miss the nearest number by an ulp.
fn quantile(percent: &str) -> Option<f64> {
    let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) || percent.ends_with('.') || percent.len() > 12 {
        return None;
    }
    let quantile: f64 = format!("{whole}{part}e-{}", part.len() + 2).parse().ok()?;
    (quantile > 0.0 && quantile <= 1.0).then_some(quantile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::latency_histogram;

    #[test]
    fn names_are_read_and_shown_alike() {
        let names =
            ["response.p99.9", "e2e.p99.99", "service.max", "slip.mean", "fetch.p50", "rate", "rate_in", "rate_out"];
        for name in names.into_iter().chain(["cpu", "errors", "loss", "faults", "e2e.p12.5", "e2e.p99.999", "e2e.p100"])
        {
            assert_eq!(name.parse::<Metric>().unwrap().to_string(), name);
        }
        assert_eq!("p99.9".parse(), Ok(Metric::Latency(Span::Response, Point::Quantile(0.999))));
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        for wrong in ["", "p", "p0", "p101", "p99.", "p.9", "p-1", "p9e1", "e2e", "e2e.", "e2e.x", "latency.p99", "P99"]
        {
            let error = wrong.parse::<Metric>().unwrap_err();
            assert!(error.to_string().contains("e2e."), "{wrong}: {error}");
        }
    }

    #[test]
    fn samples_beyond_the_end_of_the_histogram_count() {
        let mut histogram = latency_histogram();
        (1..=90).for_each(|value| histogram.record(value).unwrap());
        let latency = Latency::new(&histogram, 10);
        assert_eq!(Point::Quantile(0.5).of(&latency).unwrap(), 50.0);
        assert_eq!(Point::Quantile(0.9).of(&latency).unwrap(), 90.0);
        assert!(Point::Quantile(0.91).of(&latency).unwrap().is_infinite());
        assert!(Point::Max.of(&latency).unwrap().is_infinite() && Point::Mean.of(&latency).unwrap().is_infinite());
    }
}
