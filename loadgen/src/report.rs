//! Results as one page of HTML that needs nothing else: no network, no font, no script to be whole.
//!
//! | module | what it makes |
//! |---|---|
//! | `charts` | which lines of which results go into which chart |
//! | `chart`, `scale` | a chart as SVG; its axes |
//! | `standalone` | a chart as a file of its own |
//! | `forest` | ratios and their intervals as a picture |
//! | `tables` | the figures and the facts as tables |
//!
//! One result gets all its figures; several get one colour each, in charts of one figure. What a result is worth is said
//! before any of its figures, and charts of void latencies are stamped. It computes no figure of its own: they come from
//! [`crate::metric`] and [`crate::compare`], with the same rules of what counts.

mod chart;
mod charts;
mod forest;
mod scale;
mod standalone;
mod tables;

use self::chart::{Chart, Width};
use crate::compare::{Comparison, compare};
use crate::figures;
use crate::result::{HistogramError, ResultFile, RunState};

const STYLE: &str = include_str!("report/page.css");
const SCRIPT: &str = include_str!("report/page.js");

/// A result and what to call it.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The name of its file, for instance.
    pub name: &'a str,
    /// The result.
    pub file: &'a ResultFile,
}

/// A page that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is no result.
    #[error("a report needs at least one result")]
    Empty,
    /// A damaged result.
    #[error("{name}, latency {latency}: {error}")]
    Histogram {
        /// The result's name.
        name: String,
        /// The latency's name.
        latency: String,
        /// What is wrong with it.
        error: HistogramError,
    },
}

/// The page. `comparison` is of pairs of runs, which `results` need not be; without one, two results are compared as one pair.
pub fn html(results: &[Named<'_>], comparison: Option<&Comparison>) -> Result<String, ReportError> {
    let first = results.first().ok_or(ReportError::Empty)?;
    let one_pair = match results {
        [a, b] if comparison.is_none() => compare(&[(a.file, b.file)]).ok(),
        _ => None,
    };
    let title = match results {
        [only] => format!("loadgen {}: {}", only.file.command, only.name),
        _ => format!("{} results", results.len()),
    };
    let mut sections = vec![("", states(results))];
    if results.len() == 1 {
        sections.push(("", tables::tiles(first.file)));
    }
    if let Some(comparison) = comparison.or(one_pair.as_ref()) {
        sections.push(("B against A", forest::html(comparison)));
    }
    sections.extend([
        ("Latency by throughput", results.iter().map(sweep).collect()),
        ("Throughput over time", charts::throughput(results).html()),
        ("Latency over time", drawn(&charts::latency_over_time(results))),
        ("Latency by percentile", drawn(&charts::percentiles(results)?)),
        ("Latencies", tables::latencies(results)),
        ("Results", tables::outcomes(results)),
        ("Set-up", tables::setup(results)),
    ]);
    let body: String = sections.iter().map(|(name, html)| section(name, html)).collect();
    let (title, tool) = (escape(&title), escape(&first.file.tool));
    Ok(format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title><link rel="icon" href="data:,">
<style>{STYLE}</style></head>
<body><main><h1>{title}</h1>
{body}<footer>{tool}</footer></main>
<script>{SCRIPT}</script></body></html>
"#
    ))
}

/// A chart in a file of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picture {
    /// The file's name, with its ending.
    pub file_name: String,
    /// The whole file.
    pub svg: String,
}

/// Every chart of a result's page, as a file each.
pub fn pictures(result: &Named<'_>) -> Result<Vec<Picture>, ReportError> {
    let results = std::slice::from_ref(result);
    let mut charts = charts::sweep(result).map_or_else(Vec::new, |(_, charts)| charts);
    charts.push(charts::throughput(results));
    charts.extend(charts::latency_over_time(results));
    charts.extend(charts::percentiles(results)?);
    let picture =
        |chart: &Chart| Some(Picture { file_name: format!("{}.svg", chart.name), svg: standalone::svg(chart)? });
    Ok(charts.iter().filter_map(picture).collect())
}

/// What a sweep found; empty for other results.
fn sweep(result: &Named<'_>) -> String {
    let Some((caption, charts)) = charts::sweep(result) else { return String::new() };
    format!("<p>{}</p>{}", escape(&caption), drawn(&charts))
}

/// Charts one below the other, half ones beside each other.
fn drawn(charts: &[Chart]) -> String {
    let html: String = charts.iter().map(Chart::html).collect();
    let is_grid = charts.iter().any(|chart| chart.width == Width::Half);
    if is_grid && !html.is_empty() { format!("<div class=\"grid\">{html}</div>") } else { html }
}

/// Nothing for a section without content.
fn section(name: &str, html: &str) -> String {
    match (name, html) {
        (_, "") => String::new(),
        ("", html) => format!("<section>{html}</section>\n"),
        (name, html) => format!("<section><h2>{name}</h2>{html}</section>\n"),
    }
}

/// What every result is worth, and why.
fn states(results: &[Named<'_>]) -> String {
    let card = |(index, Named { name, file }): (usize, &Named<'_>)| {
        let outcome = &file.result;
        let meaning = match outcome.state {
            RunState::Ok => "The schedule was kept: every figure counts.",
            RunState::Saturated => "The load was not kept up: latencies beyond the median are void.",
            RunState::Unpaced => "There was no schedule: throughput, CPU and service time count.",
            RunState::Invalid => "The run did not do what it was to do: no figure counts.",
        };
        let reasons: String = outcome.reasons.iter().map(|reason| format!("<li>{}</li>", escape(reason))).collect();
        let reasons = if reasons.is_empty() { reasons } else { format!("<ul>{reasons}</ul>") };
        let (state, shout, name) = (outcome.state.name(), outcome.state.name().to_uppercase(), escape(name));
        let (colour, when) = (colour(results, index), figures::utc(file.started_ms));
        let durability = tables::durability(file.class);
        format!(
            r#"<div class="state {state}"><strong>{shout}</strong>
<div><b>{colour}{name}</b> · {when} · {durability}<br>{meaning}{reasons}</div></div>"#
        )
    };
    results.iter().enumerate().map(card).collect()
}

/// The square in the colour of a result, where there are several.
fn colour(results: &[Named<'_>], index: usize) -> String {
    if results.len() < 2 { String::new() } else { format!(r#"<i class="square c{}"></i>"#, index % 8) }
}

/// `text` as HTML text or as the value of an attribute in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
