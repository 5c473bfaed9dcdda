//! The figures and the facts of results as HTML tables, a column per result.
//!
//! A latency that its run's state voids is struck out, not left out: who looks for it sees that it counts for nothing. A
//! p99.9 that the machine's own hiccups come near is marked, since it says more about the machine than about the broker.

use super::{Named, colour, escape};
use crate::figures;
use crate::metric::{Metric, NoFigure, Point, Span};
use crate::result::{BrokerCost, DurabilityClass, Latency, Outcome, ResultFile, RunState, Verification};
use crate::table::{bytes_per_second, verification};

const POINTS: [Point; 7] = [
    Point::Quantile(0.5),
    Point::Quantile(0.9),
    Point::Quantile(0.99),
    Point::Quantile(0.999),
    Point::Quantile(0.9999),
    Point::Max,
    Point::Mean,
];
/// A p99.9 counts as the broker's where that of the hiccups is below this part of it.
const HICCUP_PART_MAX: f64 = 0.25;

/// What an acknowledgement means.
pub(super) fn durability(class: DurabilityClass) -> &'static str {
    match class {
        DurabilityClass::A => "class A: acknowledged from the memory of the process",
        DurabilityClass::B => "class B: in the kernel's hands before the acknowledgement",
        DurabilityClass::C => "class C: flushed to stable storage before the acknowledgement",
        DurabilityClass::Unknown => "durability class unknown",
    }
}

/// The figures that are looked at first; none where none counts.
pub(super) fn tiles(file: &ResultFile) -> String {
    let outcome = &file.result;
    if outcome.state == RunState::Invalid {
        return String::new();
    }
    let tile = |name: &str, value: String| format!("<div class=\"tile\"><span>{name}</span><b>{value}</b></div>");
    let mut html = tile("in", figures::records_per_second(outcome.rate_in));
    html.push_str(&tile("bytes in", bytes_per_second(outcome.bytes_in, outcome.seconds)));
    if let Some(target) = outcome.rate_target {
        html.push_str(&tile("of the schedule", figures::percent(outcome.rate_in / target)));
    }
    if outcome.records_out > 0 {
        html.push_str(&tile("out", figures::records_per_second(outcome.rate_out)));
    }
    for span in [Span::Response, Span::EndToEnd, Span::Service] {
        for point in [Point::Quantile(0.5), Point::Quantile(0.99), Point::Quantile(0.999)] {
            let metric = Metric::Latency(span, point);
            let is_said = span == Span::Service && outcome.latency.contains_key(Span::Response.name());
            if let (Ok(value), false) = (metric.read(outcome), is_said) {
                html.push_str(&tile(&metric.to_string(), figures::with_unit(metric, value)));
            }
        }
    }
    if let Ok(cost) = Metric::Cpu.read(outcome) {
        html.push_str(&tile("broker CPU", figures::with_unit(Metric::Cpu, cost)));
    }
    format!("<div class=\"tiles\">{html}</div>")
}

/// All percentiles of all latencies, result by result.
pub(super) fn latencies(results: &[Named<'_>]) -> String {
    let heads: String = POINTS.iter().map(|point| format!("<th>{point}</th>")).collect();
    let mut is_marked = false;
    let mut rows = String::new();
    for (index, Named { name, file }) in results.iter().enumerate() {
        let hiccup = file.result.hiccup.as_ref();
        let latencies = Span::ALL.iter().filter_map(|span| {
            let latency = file.result.latency.get(span.name())?;
            Some((span.name(), latency, Some(*span)))
        });
        for (latency_name, latency, span) in latencies.chain(hiccup.map(|latency| ("hiccups", latency, None))) {
            let whose =
                if results.len() > 1 { format!("{}{} ", colour(results, index), escape(name)) } else { String::new() };
            let cells: String = POINTS.iter().map(|point| latency_cell(&file.result, latency, span, *point)).collect();
            is_marked |= cells.contains('⚑');
            let (count, overflow) = (figures::count(latency.count), figures::count(latency.overflow));
            rows.push_str(&format!(
                "<tr><th>{whose}{latency_name}</th>{cells}<td>{count}</td><td>{overflow}</td></tr>"
            ));
        }
    }
    if rows.is_empty() {
        return rows;
    }
    let mark = if is_marked {
        "<p>⚑ The machine's own hiccups reach a quarter of it: it is not the broker's alone.</p>"
    } else {
        ""
    };
    format!(
        r#"<p>Milliseconds. Struck out: void.</p><div class="scroll"><table>
<thead><tr><th>latency</th>{heads}<th>samples</th><th>beyond 1 h</th></tr></thead>
<tbody>{rows}</tbody></table></div>{mark}"#
    )
}

fn latency_cell(outcome: &Outcome, latency: &Latency, span: Option<Span>, point: Point) -> String {
    let Ok(value) = point.of(latency) else { return "<td>damaged</td>".to_owned() };
    let text = figures::milliseconds(value);
    let Some(span) = span else { return format!("<td>{text}</td>") };
    if let Err(NoFigure::Void(_)) = Metric::Latency(span, point).read(outcome) {
        return format!("<td><s>{text}</s></td>");
    }
    let hiccup = outcome.hiccup.as_ref().map_or(0.0, |hiccup| hiccup.p999_us as f64);
    let is_the_machine = point == Point::Quantile(0.999) && hiccup >= HICCUP_PART_MAX * value;
    format!("<td>{text}{}</td>", if is_the_machine { " ⚑" } else { "" })
}

/// A row of a table with a column per result: its name, and its value in each.
type Fact<'a> = (&'a str, &'a dyn Fn(&ResultFile) -> Option<String>);

/// A table with a column per result; rows that no result has are left out.
fn columns(results: &[Named<'_>], rows: &[Fact<'_>]) -> String {
    let head =
        |(index, result): (usize, &Named<'_>)| format!("<th>{}{}</th>", colour(results, index), escape(result.name));
    let heads = match results {
        [_] => String::new(),
        _ => format!("<thead><tr><th></th>{}</tr></thead>", results.iter().enumerate().map(head).collect::<String>()),
    };
    let row = |(name, value): &Fact<'_>| {
        let values: Vec<Option<String>> = results.iter().map(|result| value(result.file)).collect();
        if values.iter().all(Option::is_none) {
            return String::new();
        }
        let cell = |value: &Option<String>| format!("<td>{}</td>", value.as_deref().map_or("–".to_owned(), escape));
        format!("<tr><th>{name}</th>{}</tr>", values.iter().map(cell).collect::<String>())
    };
    let rows: String = rows.iter().map(row).collect();
    format!("<div class=\"scroll\"><table class=\"facts\">{heads}<tbody>{rows}</tbody></table></div>")
}

/// What was measured beside latencies.
pub(super) fn outcomes(results: &[Named<'_>]) -> String {
    let broker = |value: fn(&BrokerCost) -> String| move |file: &ResultFile| file.result.broker.as_ref().map(value);
    let verified = |value: fn(&Verification) -> u64| {
        move |file: &ResultFile| file.result.verify.as_ref().map(|verify| figures::count(value(verify)))
    };
    let count = |value: fn(&Outcome) -> u64| move |file: &ResultFile| Some(figures::count(value(&file.result)));
    columns(
        results,
        &[
            ("state", &|file| Some(file.result.state.name().to_owned())),
            ("measured", &|file| Some(format!("{:.1} s", file.result.seconds))),
            ("schedule", &|file| Some(file.result.rate_target.map_or("none".to_owned(), figures::records_per_second))),
            ("in", &|file| Some(figures::records_per_second(file.result.rate_in))),
            ("out", &|file| Some(figures::records_per_second(file.result.rate_out))),
            ("bytes in", &|file| Some(bytes_per_second(file.result.bytes_in, file.result.seconds))),
            ("bytes out", &|file| Some(bytes_per_second(file.result.bytes_out, file.result.seconds))),
            ("records in", &count(|outcome| outcome.records_in)),
            ("records out", &count(|outcome| outcome.records_out)),
            ("errors", &count(|outcome| outcome.errors)),
            ("verification", &|file| file.result.verify.as_ref().map(verification)),
            ("not acknowledged, delivered", &verified(|verify| verify.unacked_delivered)),
            ("not acknowledged, not delivered", &verified(|verify| verify.unacked_lost)),
            ("of other runs", &verified(|verify| verify.foreign)),
            ("broker: CPU per GB", &broker(|broker| figures::with_unit(Metric::Cpu, broker.cpu_s_per_gb))),
            ("broker: CPU", &broker(|broker| format!("{} s", figures::significant(broker.cpu_s)))),
            ("broker: resident memory", &broker(|broker| figures::bytes(broker.rss))),
            ("broker: context switches", &broker(|broker| figures::count(broker.ctx))),
            ("broker: written", &broker(|broker| figures::bytes(broker.written))),
            ("load generator", &|file| {
                let own = file.result.own;
                Some(format!("{} cores on {} threads", figures::significant(own.cpu), own.threads))
            }),
        ],
    )
}

/// What ran where, against what, and how.
pub(super) fn setup(results: &[Named<'_>]) -> String {
    let words = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    columns(
        results,
        &[
            ("began", &|file| Some(figures::utc(file.started_ms))),
            ("command", &|file| Some(format!("loadgen {}", file.args.join(" ")))),
            ("tags", &|file| {
                let tags: Vec<String> = file.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
                words(&tags.join(", "))
            }),
            ("durability", &|file| words(durability(file.class))),
            ("brokers", &|file| words(&file.target.bootstrap)),
            ("topics", &|file| words(&file.target.topics.join(", "))),
            ("partitions × replicas", &|file| {
                Some(format!("{} × {}", file.target.partitions, file.target.replication_factor))
            }),
            ("machine", &|file| words(&file.machine.host)),
            ("system", &|file| words(&file.machine.kernel)),
            ("processor", &|file| Some(format!("{}, {} cores", file.machine.cpu, file.machine.cores))),
            ("memory", &|file| Some(figures::bytes(file.machine.memory_bytes))),
            ("tool", &|file| Some(file.tool.clone())),
            ("commit", &|file| words(&file.git)),
        ],
    )
}
