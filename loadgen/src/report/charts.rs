//! Which lines of which results go into which chart.
//!
//! A single result has its percentiles in one chart, a colour each. Several have a chart per percentile, a colour per result:
//! otherwise nobody could tell twelve lines apart. Latencies have logarithmic axes, since their tail is what is looked at.

use super::chart::{Chart, Dot, Rule, Series, Stroke, Width};
use super::scale::{Axis, Kind, Unit};
use super::{Named, ReportError};
use crate::gate::Slo;
use crate::metric::{Metric, Point, Span};
use crate::result::{Interval, IntervalLatency, Latency, ResultFile, RunState, SweepStep};

type Percentile = (&'static str, f64, fn(&IntervalLatency) -> u64);

/// What an interval has, with its quantile.
const PERCENTILES: [Percentile; 4] = [
    ("p50", 0.5, |latency| latency.p50_us),
    ("p99", 0.99, |latency| latency.p99_us),
    ("p99.9", 0.999, |latency| latency.p999_us),
    ("max", 1.0, |latency| latency.max_us),
];
/// Those whose course is shown; the others are in the percentile curves.
const OVER_TIME: [Span; 3] = [Span::Response, Span::Service, Span::EndToEnd];
/// The colour of the hiccups beside the latencies of one result.
const HICCUP_COLOUR: usize = 7;
/// A step between 99 % and 99.9 % and so on, for every fifth of its halves, as HdrHistogram's plotter has it.
const STEPS_PER_HALF_DISTANCE: u32 = 5;

fn time_axis() -> Axis {
    Axis::new("seconds since the load began", Unit::Seconds, Kind::Elapsed)
}

fn latency_axis() -> Axis {
    Axis::new("ms", Unit::Latency, Kind::Log)
}

/// The end of the longest warm-up.
fn warmup_end(results: &[Named<'_>]) -> Option<f64> {
    let intervals = results.iter().flat_map(|result| &result.file.series);
    intervals.filter(|interval| interval.warmup).map(|interval| interval.at_s).reduce(f64::max)
}

/// A line of `value` over the intervals of `file`.
fn over_time(file: &ResultFile, value: impl Fn(&Interval) -> Option<f64>) -> Vec<(f64, Option<f64>)> {
    file.series.iter().map(|interval| (interval.at_s, value(interval))).collect()
}

/// Records per second, in and out.
pub(super) fn throughput(results: &[Named<'_>]) -> Chart {
    let mut chart = Chart::new(
        "throughput",
        "Records acknowledged (in) and handed to consumers (out)",
        time_axis(),
        Axis::new("records/s", Unit::Rate, Kind::FromZero),
    );
    chart.warmup = warmup_end(results);
    for (index, Named { name, file }) in results.iter().enumerate() {
        let (prefix, colours) =
            if results.len() == 1 { (String::new(), [0, 1]) } else { (format!("{name} "), [index; 2]) };
        let strokes = if results.len() == 1 { [Stroke::Solid; 2] } else { [Stroke::Solid, Stroke::Dashed] };
        let lines = [
            ("in", file.result.records_in, over_time(file, |interval| Some(interval.rate_in))),
            ("out", file.result.records_out, over_time(file, |interval| Some(interval.rate_out))),
        ];
        for (line, (name, records, points)) in lines.into_iter().enumerate().filter(|(_, (_, records, _))| *records > 0)
        {
            debug_assert!(records > 0);
            let name = format!("{prefix}{name}");
            chart.series.push(Series { name, colour: colours[line], stroke: strokes[line], points });
        }
        if let (1, Some(target)) = (results.len(), file.result.rate_target) {
            chart.bounds.push(Rule { at: target, name: "target".to_owned() });
        }
    }
    chart
}

fn interval_latency(interval: &Interval, span: Span, value: fn(&IntervalLatency) -> u64) -> Option<f64> {
    interval.latency.get(span.name()).map(|latency| value(latency) as f64)
}

/// The word across a chart of latencies that count for nothing beyond the median.
fn stamp(results: &[Named<'_>]) -> Option<&'static str> {
    let has = |state| results.iter().any(|result| result.file.result.state == state);
    match () {
        () if has(RunState::Invalid) => Some("INVALID: VOID"),
        () if has(RunState::Saturated) => Some("SATURATED: TAIL VOID"),
        () => None,
    }
}

/// Whether `span` means something in `file`: without a schedule the waiting for one does not.
fn is_shown(file: &ResultFile, span: Span) -> bool {
    file.result.latency.contains_key(span.name())
        && (file.result.state != RunState::Unpaced || matches!(span, Span::Service | Span::Fetch | Span::Connect))
}

/// The percentiles of every interval.
pub(super) fn latency_over_time(results: &[Named<'_>]) -> Vec<Chart> {
    // With a schedule the response says what the service time does, and more.
    let is_said =
        |span: Span| span == Span::Service && results.iter().all(|result| is_shown(result.file, Span::Response));
    let is_shown = |span: Span| !is_said(span) && results.iter().any(|result| is_shown(result.file, span));
    let shown = OVER_TIME.into_iter().filter(|span| is_shown(*span));
    match results {
        [only] => shown.map(|span| percentiles_over_time(only.file, span, results)).collect(),
        _ => {
            let each = |span: Span| PERCENTILES.map(|percentile| results_over_time(results, span, percentile));
            shown.flat_map(each).collect()
        }
    }
}

fn percentiles_over_time(file: &ResultFile, span: Span, results: &[Named<'_>]) -> Chart {
    let mut chart = Chart::new(format!("{}-over-time", span.name()), title(span), time_axis(), latency_axis());
    (chart.warmup, chart.stamp) = (warmup_end(results), stamp(results));
    for (colour, (name, _, value)) in PERCENTILES.into_iter().enumerate() {
        let points = over_time(file, |interval| interval_latency(interval, span, value));
        chart.series.push(Series { name: name.to_owned(), colour, stroke: Stroke::Solid, points });
    }
    let points = over_time(file, |interval| (interval.hiccup_max_us > 0).then_some(interval.hiccup_max_us as f64));
    if points.iter().any(|point| point.1.is_some()) {
        let name = "longest hiccup of the machine".to_owned();
        chart.series.push(Series { name, colour: HICCUP_COLOUR, stroke: Stroke::Dotted, points });
    }
    chart
}

fn results_over_time(results: &[Named<'_>], span: Span, (percentile, _, value): Percentile) -> Chart {
    let name = format!("{}-{percentile}-over-time", span.name());
    let mut chart = Chart::new(name, format!("{}: {percentile}", title(span)), time_axis(), latency_axis());
    (chart.width, chart.warmup) = (Width::Half, warmup_end(results));
    chart.stamp = if percentile == "p50" { None } else { stamp(results) };
    for (colour, Named { name, file }) in results.iter().enumerate().filter(|(_, result)| is_shown(result.file, span)) {
        let points = over_time(file, |interval| interval_latency(interval, span, value));
        chart.series.push(Series { name: (*name).to_owned(), colour, stroke: Stroke::Solid, points });
    }
    chart
}

fn title(span: Span) -> &'static str {
    match span {
        Span::Response => "Response (intended to acknowledged)",
        Span::Service => "Service (sent to acknowledged)",
        Span::Slip => "Slip (intended to sent)",
        Span::EndToEnd => "End to end (intended to handed to the consumer)",
        Span::Fetch => "Fetch (a fetch that brought records)",
        Span::Connect => "Connect (begun to the first answer)",
    }
}

/// The whole distributions, with the machine's own hiccups beside them.
pub(super) fn percentiles(results: &[Named<'_>]) -> Result<Vec<Chart>, ReportError> {
    let axes = || (Axis::new("percentile", Unit::Quantile, Kind::Nines), latency_axis());
    let mut charts = Vec::new();
    if let [only] = results {
        let (x, y) = axes();
        let mut chart = Chart::new("latency-by-percentile", "All latencies of the run", x, y);
        chart.stamp = stamp(results);
        for (colour, span) in Span::ALL.into_iter().enumerate().filter(|(_, span)| is_shown(only.file, *span)) {
            let points = curve(only, span.name(), only.file.result.latency.get(span.name()))?;
            chart.series.push(Series { name: span.name().to_owned(), colour, stroke: Stroke::Solid, points });
        }
        let points = curve(only, "hiccup", only.file.result.hiccup.as_ref())?;
        let name = "hiccups of the machine".to_owned();
        chart.series.push(Series { name, colour: HICCUP_COLOUR, stroke: Stroke::Dotted, points });
        return Ok(vec![chart]);
    }
    for span in Span::ALL.into_iter().filter(|span| results.iter().any(|result| is_shown(result.file, *span))) {
        let (x, y) = axes();
        let mut chart = Chart::new(format!("{}-by-percentile", span.name()), title(span), x, y);
        (chart.width, chart.stamp) = (Width::Half, stamp(results));
        for (colour, result) in results.iter().enumerate().filter(|(_, result)| is_shown(result.file, span)) {
            let points = curve(result, span.name(), result.file.result.latency.get(span.name()))?;
            chart.series.push(Series { name: result.name.to_owned(), colour, stroke: Stroke::Solid, points });
            let points = curve(result, "hiccup", result.file.result.hiccup.as_ref())?;
            let name = format!("{} hiccups", result.name);
            chart.series.push(Series { name, colour, stroke: Stroke::Dotted, points });
        }
        charts.push(chart);
    }
    Ok(charts)
}

/// Quantiles as 1/(1−q), up to the one that a single sample is.
fn curve(
    result: &Named<'_>,
    latency_name: &str,
    latency: Option<&Latency>,
) -> Result<Vec<(f64, Option<f64>)>, ReportError> {
    let Some(latency) = latency else { return Ok(Vec::new()) };
    let histogram = latency.histogram().map_err(|error| ReportError::Histogram {
        name: result.name.to_owned(),
        latency: latency_name.to_owned(),
        error,
    })?;
    // Samples beyond the histogram's end are the slowest: the curve ends where they begin.
    let (count, part) = (latency.count as f64, histogram.len() as f64 / latency.count.max(1) as f64);
    let steps = histogram.iter_quantiles(STEPS_PER_HALF_DISTANCE);
    let point = |quantile: f64, value: u64| {
        let place = (1.0 / (1.0 - quantile * part)).min(count.max(1.0));
        (place, Some(value as f64))
    };
    Ok(steps.map(|step| point(step.quantile_iterated_to(), step.value_iterated_to())).collect())
}

/// Latency by throughput of a result that is a sweep, with a caption.
pub(super) fn sweep(result: &Named<'_>) -> Option<(String, Vec<Chart>)> {
    let sweep = result.file.sweep.as_ref()?;
    let spans = [Span::Response, Span::EndToEnd];
    let shown = spans.into_iter().filter(|span| sweep.steps.iter().any(|step| step.latency.contains_key(span.name())));
    let found = match sweep.knee {
        Some(knee) => format!("highest rate that met it in every repeat: {}", Unit::Rate.exact(knee)),
        None => "no rate met it in every repeat".to_owned(),
    };
    let caption = format!(
        "{}: SLO {}; {found}. Filled: met; hollow: not met, or saturated. Lines join the worst repeat of each rate.",
        result.name, sweep.slo
    );
    Some((caption, shown.map(|span| sweep_chart(result, span, &sweep.steps, &sweep.slo)).collect()))
}

fn sweep_chart(result: &Named<'_>, span: Span, steps: &[SweepStep], slo: &str) -> Chart {
    let x = Axis::new("records/s acknowledged", Unit::Rate, Kind::FromZero);
    let name = format!("{}-by-throughput", span.name());
    let mut chart = Chart::new(name, format!("{}, by throughput", title(span)), x, latency_axis());
    let knee = result.file.sweep.as_ref().and_then(|sweep| sweep.knee);
    chart.marks.extend(knee.map(|at| Rule { at, name: format!("knee: {}", Unit::Rate.exact(at)) }));
    for (colour, (name, _, value)) in PERCENTILES.into_iter().enumerate().filter(|(_, (name, ..))| *name != "max") {
        let of = |step: &SweepStep| step.latency.get(span.name()).map(|latency| value(latency) as f64);
        let mut ordered: Vec<&SweepStep> = steps.iter().collect();
        ordered.sort_by(|a, b| a.rate_target.total_cmp(&b.rate_target));
        let worst = |repeats: &[&SweepStep]| {
            let found = repeats.iter().filter_map(|step| Some((step.rate_in, of(step)?)));
            found.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(rate, latency)| (rate, Some(latency)))
        };
        let points = ordered.chunk_by(|a, b| a.rate_target == b.rate_target).filter_map(worst).collect();
        chart.series.push(Series { name: name.to_owned(), colour, stroke: Stroke::Solid, points });
        let counts = |step: &SweepStep| step.met && matches!(step.state, RunState::Ok);
        let dot = |step: &SweepStep| Some(Dot { at: (step.rate_in, of(step)?), colour, counts: counts(step) });
        chart.dots.extend(steps.iter().filter_map(dot));
    }
    let objectives = slo.parse::<Slo>().map(|slo| slo.objectives().to_vec()).unwrap_or_default();
    chart.bounds.extend(objectives.into_iter().filter_map(|objective| match objective.metric {
        Metric::Latency(of, Point::Quantile(_)) if of == span => {
            Some(Rule { at: objective.bound, name: objective.to_string() })
        }
        _ => None,
    }));
    chart
}
