//! The metrics as text: Prometheus' exposition format, version 0.0.4.
//!
//! A writer of our own, since what it has to do is little: the crate `prometheus-client` keeps its metrics in a registry of
//! its own types and writes OpenMetrics, which is another format. Names, labels and help texts are constants of the
//! program that need no escaping; a test holds them to that.
//!
//! All series of a metric stand together, as the format wants it: for each metric, every shard.
//! Source: Prometheus, "Exposition formats", text-based format.

use std::fmt::{self, Write};

use super::catalogue::{ApiCode, Budget, CATALOGUE, Limit, Metric, Reading, SendKind};
use super::cell::{Counter, Family, Gauge, Label};
use super::histogram::Histogram;
use crate::types::ShardId;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bytes that one series takes, about, to have room from the start.
const SERIES_BYTES: usize = 96;

/// The name of the API with this key.
pub type ApiNames = fn(i16) -> Option<&'static str>;

/// What kind of number a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        })
    }
}

/// Every metric of the catalogue with the series of every shard.
pub fn render(shards: &[(ShardId, Reading)], api_names: ApiNames) -> String {
    let mut text = String::with_capacity(CATALOGUE.len() * (shards.len() + 2) * SERIES_BYTES);
    for metric in CATALOGUE {
        let Metric { name, kind, .. } = metric;
        push(&mut text, format_args!("# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help()));
        for (shard, reading) in shards {
            let mut series = Series { text: &mut text, name, shard: *shard, label: None, api_names };
            (metric.write)(&reading.0, &mut series);
        }
    }
    text
}

fn push(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes whatever it is given");
}

/// Writes the series of one metric of one shard.
pub(super) struct Series<'a> {
    text: &'a mut String,
    name: &'static str,
    shard: ShardId,
    label: Option<(&'static str, &'static str)>,
    api_names: ApiNames,
}

impl Series<'_> {
    /// One line: `name{shard="0",label="…"<more>} value`.
    fn line(&mut self, suffix: &str, more: fmt::Arguments<'_>, value: fmt::Arguments<'_>) {
        let Series { text, name, shard, .. } = self;
        push(text, format_args!("{name}{suffix}{{shard=\"{}\"", shard.0));
        if let Some((label, value)) = self.label {
            push(text, format_args!(",{label}=\"{value}\""));
        }
        push(text, format_args!("{more}}} {value}\n"));
    }

    fn plain(&mut self, value: u64) {
        self.line("", format_args!(""), format_args!("{value}"));
    }
}

/// A type that metrics of the catalogue may have.
pub(super) trait Render {
    /// The kind.
    const KIND: Kind;
    /// The label beside `shard`.
    const LABEL: Option<&'static str> = None;

    /// Writes the series.
    fn render(&self, series: &mut Series<'_>);
}

impl Render for Counter {
    const KIND: Kind = Kind::Counter;

    fn render(&self, series: &mut Series<'_>) {
        series.plain(self.get());
    }
}

impl Render for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn render(&self, series: &mut Series<'_>) {
        series.plain(self.get());
    }
}

impl Render for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn render(&self, series: &mut Series<'_>) {
        let mut all = 0;
        for (bound, count) in self.cumulative() {
            match bound {
                Some(micros) => {
                    let bound = Decimal { whole: micros / 1_000_000, fraction: micros % 1_000_000, digits: 6 };
                    series.line("_bucket", format_args!(",le=\"{bound}\""), format_args!("{count}"));
                }
                None => series.line("_bucket", format_args!(",le=\"+Inf\""), format_args!("{count}")),
            }
            all = count;
        }
        let nanos = self.sum_nanos();
        let sum = Decimal { whole: nanos / 1_000_000_000, fraction: nanos % 1_000_000_000, digits: 9 };
        series.line("_sum", format_args!(""), format_args!("{sum}"));
        // The count is the last bucket's even if samples came in between.
        series.line("_count", format_args!(""), format_args!("{all}"));
    }
}

impl<L: LabelText, M: Render + Default> Render for Family<L, M> {
    const KIND: Kind = M::KIND;
    const LABEL: Option<&'static str> = Some(L::NAME);

    fn render(&self, series: &mut Series<'_>) {
        for (index, member) in self.members() {
            // Without a name it would be no member of the catalogue.
            let Some(value) = L::text(index, series.api_names) else { continue };
            series.label = Some((L::NAME, value));
            member.render(series);
        }
        series.label = None;
    }
}

/// A label whose values have a text.
pub(super) trait LabelText: Label {
    /// The text of the value with this number.
    fn text(index: usize, api_names: ApiNames) -> Option<&'static str>;
}

impl LabelText for SendKind {
    fn text(index: usize, _api_names: ApiNames) -> Option<&'static str> {
        SendKind::VALUES.get(index).copied()
    }
}

impl LabelText for Budget {
    fn text(index: usize, _api_names: ApiNames) -> Option<&'static str> {
        Budget::VALUES.get(index).copied()
    }
}

impl LabelText for Limit {
    fn text(index: usize, _api_names: ApiNames) -> Option<&'static str> {
        Limit::VALUES.get(index).copied()
    }
}

impl LabelText for ApiCode {
    fn text(index: usize, api_names: ApiNames) -> Option<&'static str> {
        api_names(i16::try_from(index).ok()?)
    }
}

/// A number with `digits` digits behind the point, those at the end left out that are zero.
struct Decimal {
    whole: u64,
    fraction: u64,
    digits: usize,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decimal { whole, mut fraction, mut digits } = *self;
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        while fraction.is_multiple_of(10) {
            (fraction, digits) = (fraction / 10, digits - 1);
        }
        write!(f, "{whole}.{fraction:0digits$}")
    }
}
