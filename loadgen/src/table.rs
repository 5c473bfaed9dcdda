//! Results as tables for people, on a terminal: a run, and a comparison.
//!
//! Latencies are milliseconds. What counts for nothing is not shown as if it did: a void latency is marked, and the state and
//! its reasons come first. Nothing here is meant to be parsed; scripts read the JSON or the last line of the output.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, Table};

use crate::compare::{Comparison, Ratio, Row};
use crate::figures;
use crate::metric::{Metric, NoFigure, Point, Span};
use crate::result::{Outcome, ResultFile, RunState, Verification};

const POINTS: [Point; 7] = [
    Point::Quantile(0.5),
    Point::Quantile(0.9),
    Point::Quantile(0.99),
    Point::Quantile(0.999),
    Point::Quantile(0.9999),
    Point::Max,
    Point::Mean,
];

/// A run: what it is worth, its rates, latencies, verification, cost.
pub fn result(file: &ResultFile) -> String {
    let outcome = &file.result;
    let mut text = state(outcome);
    text.push_str(&rates(file).to_string());
    text.push('\n');
    text.push_str(&with_note(outcome));
    text
}

/// The latencies, and what is to be known about them.
pub(crate) fn with_note(outcome: &Outcome) -> String {
    if outcome.latency.is_empty() {
        return String::new();
    }
    let note = note(outcome).map_or(String::new(), |note| format!("{note}\n"));
    format!("{}\n{note}", latencies(outcome))
}

/// What a run is worth, where that is less than everything, and why.
pub(crate) fn state(outcome: &Outcome) -> String {
    let shout = match outcome.state {
        RunState::Ok => return String::new(),
        RunState::Saturated => "SATURATED: the load was not kept up, and latencies beyond the median are void",
        RunState::Unpaced => "UNPACED: there was no schedule; throughput, CPU and service time count",
        RunState::Invalid => "INVALID: no figure of this run counts",
    };
    let reasons = outcome.reasons.iter().map(|reason| format!("  - {reason}\n"));
    format!("{shout}\n{}", reasons.collect::<String>())
}

fn note(outcome: &Outcome) -> Option<&'static str> {
    match outcome.state {
        RunState::Ok => None,
        RunState::Saturated | RunState::Invalid => Some("(in brackets: void)"),
        RunState::Unpaced => {
            let scheduled = [Span::Response, Span::Slip, Span::EndToEnd];
            let is_there = scheduled.iter().any(|span| outcome.latency.contains_key(span.name()));
            is_there.then_some("(in brackets: void, for want of a schedule)")
        }
    }
}

/// An empty table.
pub(crate) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table
}

fn rates(file: &ResultFile) -> Table {
    let outcome = &file.result;
    let mut table = table();
    let mut fact = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    fact("state", format!("{} (durability class {:?}, {:.1} s)", outcome.state.name(), file.class, outcome.seconds));
    let rate = |records: f64, bytes: u64| {
        format!("{}, {}", figures::records_per_second(records), bytes_per_second(bytes, outcome.seconds))
    };
    let target = outcome.rate_target.map(|target| {
        let part = figures::percent(outcome.rate_in / target);
        format!(" ({part} of {})", figures::records_per_second(target))
    });
    fact("in", rate(outcome.rate_in, outcome.bytes_in) + &target.unwrap_or_default());
    if outcome.records_out > 0 {
        fact("out", rate(outcome.rate_out, outcome.bytes_out));
    }
    fact("errors", figures::count(outcome.errors));
    if let Some(verify) = &outcome.verify {
        fact("verification", verification(verify));
    }
    if let Some(broker) = &outcome.broker {
        let cost = figures::with_unit(Metric::Cpu, broker.cpu_s_per_gb);
        let (rss, written) = (figures::bytes(broker.rss), figures::bytes(broker.written));
        let switches = figures::count(broker.ctx);
        fact("broker", format!("{cost}, RSS {rss}, {switches} context switches, {written} written"));
    }
    let own = &outcome.own;
    fact("loadgen", format!("{} cores on {} threads", figures::significant(own.cpu), own.threads));
    table
}

/// `bytes` over `seconds`; of no time at all there is no rate.
pub fn bytes_per_second(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 { figures::megabytes_per_second(bytes as f64 / seconds) } else { "–".to_owned() }
}

/// One line on whether everything arrived.
pub fn verification(verify: &Verification) -> String {
    let Verification { lost, duplicated, reordered, corrupt, misplaced, phantom, delivered, .. } = *verify;
    let faults = [
        (lost, "lost"),
        (duplicated, "duplicated"),
        (reordered, "reordered"),
        (corrupt, "corrupt"),
        (misplaced, "misplaced"),
        (phantom, "phantom"),
    ];
    let found = faults.iter().filter(|(records, _)| *records > 0);
    let found: Vec<String> = found.map(|(records, name)| format!("{} {name}", figures::count(*records))).collect();
    match found.is_empty() {
        true => format!("clean, {} delivered", figures::count(delivered)),
        false => format!("FAULTS: {}; {} delivered", found.join(", "), figures::count(delivered)),
    }
}

fn latencies(outcome: &Outcome) -> Table {
    let mut table = table();
    let heads = POINTS.iter().map(Point::to_string);
    table.set_header(["latency, ms".to_owned()].into_iter().chain(heads).chain(["samples".to_owned()]));
    for span in Span::ALL {
        let Some(latency) = outcome.latency.get(span.name()) else { continue };
        let cell = |point: &Point| match (Metric::Latency(span, *point).read(outcome), point.of(latency)) {
            (Ok(value), _) => figures::milliseconds(value),
            (Err(NoFigure::Void(_)), Ok(value)) => format!("({})", figures::milliseconds(value)),
            _ => "-".to_owned(),
        };
        let cells = POINTS.iter().map(cell).chain([figures::count(latency.count)]);
        let cells = cells.map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        table.add_row([Cell::new(span.name())].into_iter().chain(cells));
    }
    table
}

/// A comparison: cautions first, then a row per figure.
pub fn comparison(comparison: &Comparison) -> String {
    let mut table = table();
    table.set_header(["figure", "A", "B", "B/A", "95 % interval", "B wins", "verdict on B"]);
    for Row { metric, ratio } in &comparison.rows {
        match ratio {
            Ok(ratio) => table.add_row([metric.to_string()].into_iter().chain(ratio_cells(*metric, ratio))),
            Err(why) => table.add_row([&metric.to_string(), "", "", "", "", "", why.as_str()]),
        };
    }
    let cautions: String = comparison.cautions.iter().map(|caution| format!("CAUTION: {caution}\n")).collect();
    let pairs = match comparison.pairs {
        1 => "1 pair".to_owned(),
        pairs => format!("{pairs} pairs, medians"),
    };
    format!("{cautions}{pairs}\n{table}\n")
}

/// What a table of ratios shows of one: A, B, their ratio, its interval, wins, verdict.
pub fn ratio_cells(metric: Metric, ratio: &Ratio) -> [String; 6] {
    [
        figures::with_unit(metric, ratio.a),
        figures::with_unit(metric, ratio.b),
        format!("{:.3}", ratio.median),
        ratio.interval.map_or("-".to_owned(), |(low, high)| format!("{low:.3} … {high:.3}")),
        format!("{}/{}", ratio.wins, ratio.pairs),
        ratio.verdict.to_string(),
    ]
}
