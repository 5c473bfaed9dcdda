//! Two results held against each other: per figure the median of pairwise ratios B/A, its interval, wins, and a verdict.
//!
//! The unit of evidence is a pair: a run of A and a run of B in one block, close in time, so that what the machine does to both
//! falls out of their ratio. What is made of the pairs, and why, says [`statistics`]. A verdict is one figure's alone and errs
//! in one of twenty comparisons of equals: of twenty figures expect one to "differ".
//!
//! Two single files are one pair: their ratios are shown and nothing is concluded. The intervals of a run are not repeats of
//! it: they share the process, its files and the page cache, so their spread says nothing of how much the next run would
//! differ. Histograms are neither added up nor averaged over runs.
//!
//! A figure that one side lacks or that its state voids in any pair has no ratio: to leave such pairs out would judge the
//! side by its good runs.

mod statistics;

pub use statistics::{CONFIDENCE, PAIRS_MIN, Ratio, Verdict, ratio};

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::{Serialize, Serializer};

use crate::metric::{Metric, NoFigure, Point, Span};
use crate::result::{ResultFile, RunState};

/// The figures that are compared, in the order in which they are shown.
pub const COMPARED: [Metric; 14] = [
    Metric::RateIn,
    Metric::RateOut,
    Metric::Cpu,
    Metric::Latency(Span::Response, Point::Quantile(0.5)),
    Metric::Latency(Span::Response, Point::Quantile(0.99)),
    Metric::Latency(Span::Response, Point::Quantile(0.999)),
    Metric::Latency(Span::Service, Point::Quantile(0.5)),
    Metric::Latency(Span::Service, Point::Quantile(0.99)),
    Metric::Latency(Span::Service, Point::Quantile(0.999)),
    Metric::Latency(Span::EndToEnd, Point::Quantile(0.5)),
    Metric::Latency(Span::EndToEnd, Point::Quantile(0.99)),
    Metric::Latency(Span::EndToEnd, Point::Quantile(0.999)),
    Metric::Latency(Span::Connect, Point::Quantile(0.5)),
    Metric::Latency(Span::Connect, Point::Quantile(0.99)),
];

/// What a comparison found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// Pairs that were given.
    pub pairs: usize,
    /// What the runs do not have in common although it decides the figures, and what is wrong with them.
    pub cautions: Vec<String>,
    /// One per figure that any of the runs has.
    pub rows: Vec<Row>,
}

/// What was found for a figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Which one.
    #[serde(serialize_with = "as_text")]
    pub metric: Metric,
    /// The ratio, or why there is none.
    #[serde(flatten, serialize_with = "ratio_or_reason")]
    pub ratio: Result<Ratio, String>,
}

fn as_text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Either the fields of a ratio, or `why` there is none.
fn ratio_or_reason<S: Serializer>(ratio: &Result<Ratio, String>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Shown<'a> {
        Ratio(&'a Ratio),
        Reason { why: &'a str },
    }
    match ratio {
        Ok(ratio) => Shown::Ratio(ratio),
        Err(why) => Shown::Reason { why },
    }
    .serialize(serializer)
}

/// No pair was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is nothing to compare: a comparison needs a pair of results")]
pub struct NoPairs;

/// Compares the second result of every pair with the first.
pub fn compare(pairs: &[(&ResultFile, &ResultFile)]) -> Result<Comparison, NoPairs> {
    if pairs.is_empty() {
        return Err(NoPairs);
    }
    let rows = COMPARED.iter().filter_map(|metric| row(*metric, pairs)).collect();
    Ok(Comparison { pairs: pairs.len(), cautions: cautions(pairs), rows })
}

fn row(metric: Metric, pairs: &[(&ResultFile, &ResultFile)]) -> Option<Row> {
    let (mut values, mut missing) = (Vec::with_capacity(pairs.len()), Vec::new());
    for (a, b) in pairs {
        match (metric.read(&a.result), metric.read(&b.result)) {
            (Ok(a), Ok(b)) => values.push((a, b)),
            (a, b) => missing.push((a.err(), b.err())),
        }
    }
    let is_absent = |side: &Option<NoFigure>| matches!(side, Some(NoFigure::NotMeasured));
    if values.is_empty() && missing.iter().all(|(a, b)| is_absent(a) && is_absent(b)) {
        return None;
    }
    let why = |side: &str, error: &NoFigure| format!("{side}: {error} ({} of {} pairs)", missing.len(), pairs.len());
    let ratio = match missing.first() {
        Some((Some(error), _)) => Err(why("A", error)),
        Some((None, Some(error))) => Err(why("B", error)),
        _ => ratio(&values, metric.better()).map_err(|error| error.to_string()),
    };
    Some(Row { metric, ratio })
}

fn cautions(pairs: &[(&ResultFile, &ResultFile)]) -> Vec<String> {
    let mut cautions = Vec::new();
    let mut differing = |what: &str, text: &dyn Fn(&ResultFile) -> String| {
        let of = |side: &dyn Fn(&(&ResultFile, &ResultFile)) -> String| pairs.iter().map(side).collect::<BTreeSet<_>>();
        let (a, b) = (of(&|pair| text(pair.0)), of(&|pair| text(pair.1)));
        if a.union(&b).count() > 1 {
            let listed = |side: BTreeSet<String>| Vec::from_iter(side).join(", ");
            cautions.push(format!("{what}: A {}, B {}", listed(a), listed(b)));
        }
    };
    differing("the durability class is not the same", &|file| format!("{:?}", file.class));
    differing("the machine is not the same", &|file| format!("{} ({})", file.machine.host, file.machine.cpu));
    differing("the command is not the same", &|file| file.command.clone());
    differing("the schedule is not the same", &|file| {
        file.result.rate_target.map_or("none".to_owned(), |rate| format!("{rate} records/s"))
    });
    differing("partitions × replicas are not the same", &|file| {
        format!("{} × {}", file.target.partitions, file.target.replication_factor)
    });
    let count = |is: fn(&ResultFile) -> bool| {
        let of = |files: Vec<&ResultFile>| files.into_iter().filter(|file| is(file)).count();
        (of(pairs.iter().map(|pair| pair.0).collect()), of(pairs.iter().map(|pair| pair.1).collect()))
    };
    let mut note = |what: &dyn Display, (a, b): (usize, usize)| {
        if a + b > 0 {
            cautions.push(format!("{what}: {a} runs of A and {b} of B"));
        }
    };
    note(
        &"SATURATED, so that the latencies beyond the median are void",
        count(|f| f.result.state == RunState::Saturated),
    );
    note(&"INVALID, so that no figure counts", count(|file| file.result.state == RunState::Invalid));
    note(&"verification found faults", count(|file| file.result.verify.is_some_and(|verify| !verify.is_clean())));
    cautions
}
