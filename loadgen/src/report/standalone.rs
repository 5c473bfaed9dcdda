//! A chart as an SVG file of its own, with its title and its legend drawn.
//!
//! Everything that it needs is inside: the colours are those of a page in the light, on white, and written out, since not every
//! program that shows SVG knows variables in style sheets. It takes no pointer and has no dark form.

use super::chart::{Chart, HEIGHT, LEFT, Medium, look};
use super::escape;

const STYLE: &str = include_str!("svg.css");
/// The line of the title, and one of the legend.
const TITLE: f64 = 30.0;
const ROW: f64 = 20.0;
/// A key's stroke with the space behind it, a character of its name, and the space to the next key; names are not measured,
/// since fonts differ.
const STROKE: f64 = 32.0;
const CHARACTER: f64 = 7.2;
const SPACE: f64 = 18.0;

/// The file's content; `None` where there is nothing to show.
pub(super) fn svg(chart: &Chart) -> Option<String> {
    let drawing = chart.drawing(Medium::Picture)?;
    let (legend, rows) = legend(chart);
    let (width, head) = (chart.width.units(), TITLE + rows as f64 * ROW);
    let (height, title) = (head + HEIGHT, escape(&chart.title));
    Some(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<title>{title}</title>
<style>
{STYLE}</style>
<rect class="paper" width="{width}" height="{height}"/>
<text class="title" x="4" y="20">{title}</text>
{legend}<g transform="translate(0 {head})">
{drawing}</g>
</svg>
"#
    ))
}

/// The keys of the lines, and in how many rows they stand; none for a single line.
fn legend(chart: &Chart) -> (String, usize) {
    if chart.series.len() < 2 {
        return (String::new(), 0);
    }
    let (mut svg, mut x, mut row) = (String::new(), LEFT, 0);
    for series in &chart.series {
        let width = STROKE + CHARACTER * series.name.chars().count() as f64 + SPACE;
        if x > LEFT && x + width > chart.width.units() {
            (x, row) = (LEFT, row + 1);
        }
        let (look, name) = (look(series), escape(&series.name));
        let (y, end, text) = (TITLE + row as f64 * ROW + 10.0, x + 26.0, x + STROKE);
        svg.push_str(&format!(
            r#"<path class="{look}" d="M{x:.1} {y}H{end:.1}"/><text class="key" x="{text:.1}" y="{}">{name}</text>
"#,
            y + 4.0
        ));
        x += width;
    }
    (svg, row + 1)
}
