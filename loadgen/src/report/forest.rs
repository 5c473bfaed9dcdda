//! Ratios B/A with their intervals, one row a figure: the table of a comparison with a picture in it.
//!
//! The scale is logarithmic, so that half and twice are equally far from 1, and the same in every row.

use super::escape;
use crate::compare::{Comparison, Ratio, Row, Verdict};
use crate::table::ratio_cells;

const WIDTH: f64 = 220.0;
/// The scale reaches at least this far, so that a difference of a thousandth does not look like a gulf.
const REACH_MIN: f64 = 1.1;
/// And not further than this: one wild ratio would press all others into the middle.
const REACH_MAX: f64 = 8.0;

/// The comparison.
pub(super) fn html(comparison: &Comparison) -> String {
    let ratios = || comparison.rows.iter().filter_map(|row| row.ratio.as_ref().ok());
    let ends = ratios().flat_map(|ratio| {
        let (low, high) = ratio.interval.unwrap_or((ratio.median, ratio.median));
        [low, high, 1.0 / low, 1.0 / high]
    });
    let reach = (ends.fold(1.0, f64::max) * 1.05).clamp(REACH_MIN, REACH_MAX);
    let rows: String = comparison.rows.iter().map(|found| row(found, reach)).collect();
    let cautions: String =
        comparison.cautions.iter().map(|caution| format!("<p class=\"caution\">{}</p>", escape(caution))).collect();
    let evidence = match comparison.pairs {
        1 => "One pair: ratios without a verdict, since one run of each does not tell a difference from chance."
            .to_owned(),
        pairs => format!("{pairs} pairs. Medians, the median of pairwise ratios, and its 95 % bootstrap interval."),
    };
    format!(
        r#"{cautions}<p>{evidence}</p><div class="scroll"><table><thead><tr><th>figure</th><th>A</th><th>B</th><th>B/A</th>
<th class="picture">{:.2} … 1 … {reach:.2}</th><th>95 % interval</th>
<th>B wins</th><th class="words">verdict on B</th></tr></thead>
<tbody>{rows}</tbody></table></div>"#,
        1.0 / reach
    )
}

fn row(row: &Row, reach: f64) -> String {
    let metric = row.metric;
    let ratio = match &row.ratio {
        Ok(ratio) => ratio,
        Err(why) => {
            return format!(r#"<tr><th>{metric}</th><td colspan="6"></td><td class="words">{}</td></tr>"#, escape(why));
        }
    };
    let [a, b, median, interval, wins, verdict] = ratio_cells(metric, ratio);
    let class = class(ratio);
    format!(
        r#"<tr class="{class}"><th>{metric}</th><td>{a}</td><td>{b}</td><td>{median}</td>
<td class="picture">{}</td><td>{interval}</td><td>{wins}</td><td class="words">{verdict}</td></tr>"#,
        picture(ratio, reach)
    )
}

fn class(ratio: &Ratio) -> &'static str {
    match ratio.verdict {
        Verdict::Better(_) => "better",
        Verdict::Worse(_) => "worse",
        Verdict::NoDifference | Verdict::TooFewPairs => "even",
    }
}

fn picture(ratio: &Ratio, reach: f64) -> String {
    let place = |ratio: f64| WIDTH * (f64::midpoint((ratio.ln() / reach.ln()).clamp(-1.0, 1.0), 1.0) * 0.96 + 0.02);
    let (middle, at) = (place(1.0), place(ratio.median));
    let bar = ratio.interval.map_or(String::new(), |(low, high)| {
        format!(r#"<path class="interval" d="M{:.1} 10H{:.1}"/>"#, place(low), place(high))
    });
    format!(
        r#"<svg class="forest" viewBox="0 0 {WIDTH} 20" aria-hidden="true">
<path class="axis" d="M{middle:.1} 0V20"/>{bar}<circle cx="{at:.1}" cy="10" r="4"/></svg>"#
    )
}
