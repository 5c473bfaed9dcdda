//! A line chart as SVG: axes, grid, lines, marks and a legend, in colours that a style sheet sets: the page's, or a file's own.
//!
//! It knows nothing of results: numbers and names come in, text goes out. A line breaks where a point has no value, so that
//! a stall shows as a gap, and a line with more points than pixels keeps the least and the greatest of every stretch, so that
//! no peak is lost. The picture is whole without a script; what the script shows on hovering is in `data-points`.

use super::escape;
use super::scale::{Axis, Range, Tick};

/// Points of a line beyond which it is thinned: more than a screen has pixels for.
const POINTS_MAX: usize = 1_200;
pub(super) const HEIGHT: f64 = 300.0;
pub(super) const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 40.0;
/// Colours of the style sheet; line styles change when they are used up.
const COLOURS: usize = 8;

/// How wide a chart is drawn: text has the same size in both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// The whole page.
    Full,
    /// Two beside each other.
    Half,
}

impl Width {
    pub(super) const fn units(self) -> f64 {
        match self {
            Width::Full => 1_000.0,
            Width::Half => 490.0,
        }
    }
}

/// Where a chart is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Medium {
    /// On a page, whose script is told the values of the points.
    Page,
    /// In a file of its own.
    Picture,
}

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stroke {
    Solid,
    Dashed,
    Dotted,
}

impl Stroke {
    const fn class(self) -> &'static str {
        match self {
            Stroke::Solid => "solid",
            Stroke::Dashed => "dashed",
            Stroke::Dotted => "dotted",
        }
    }
}

/// A line.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) colour: usize,
    pub(super) stroke: Stroke,
    /// In the order of x.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A single point with a shape of its own.
pub(super) struct Dot {
    pub(super) at: (f64, f64),
    pub(super) colour: usize,
    /// Whether it stands for something that counts; what does not is hollow.
    pub(super) counts: bool,
}

/// A line across the chart with a word to it.
pub(super) struct Rule {
    pub(super) at: f64,
    pub(super) name: String,
}

/// A chart; what is empty is not drawn.
pub(super) struct Chart {
    /// Its own among the charts of a result, for a file's name.
    pub(super) name: String,
    pub(super) title: String,
    pub(super) width: Width,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    pub(super) dots: Vec<Dot>,
    /// Vertical, at x.
    pub(super) marks: Vec<Rule>,
    /// Horizontal, at y.
    pub(super) bounds: Vec<Rule>,
    /// From the left edge to this x the chart is shaded.
    pub(super) warmup: Option<f64>,
    /// Written across it where it counts for nothing.
    pub(super) stamp: Option<&'static str>,
}

impl Chart {
    pub(super) fn new(name: impl Into<String>, title: impl Into<String>, x: Axis, y: Axis) -> Chart {
        let (series, dots, marks, bounds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (width, name, title) = (Width::Full, name.into(), title.into());
        Chart { name, title, width, x, y, series, dots, marks, bounds, warmup: None, stamp: None }
    }

    /// The chart as a figure of HTML; empty where there is nothing to show.
    pub(super) fn html(&self) -> String {
        let Some(drawing) = self.drawing(Medium::Page) else { return String::new() };
        let (class, title) = (if self.width == Width::Half { " half" } else { "" }, escape(&self.title));
        let (width, legend) = (self.width.units(), self.legend());
        format!(
            r#"<figure class="chart{class}"><figcaption>{title}</figcaption>{legend}
<div class="scroll"><svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{title}">{drawing}</svg></div></figure>
"#
        )
    }

    /// What lies on the chart's area, as elements of SVG; `None` where there is nothing to show.
    pub(super) fn drawing(&self, medium: Medium) -> Option<String> {
        let plot = Plot::new(self)?;
        let mut svg = plot.grid(self);
        svg.push_str(&plot.annotations(self));
        for (index, series) in self.series.iter().enumerate() {
            let line = plot.line(series);
            svg.push_str(&match medium {
                Medium::Page => format!("<g data-series=\"{index}\" {}>{line}</g>", plot.values(series, self)),
                Medium::Picture => line,
            });
        }
        self.dots.iter().for_each(|dot| svg.push_str(&plot.dot(dot)));
        if let Some(stamp) = self.stamp {
            let (x, y) = (plot.left + plot.width / 2.0, TOP + plot.height / 2.0);
            svg.push_str(&format!(r#"<text class="stamp" x="{x:.1}" y="{y:.1}">{stamp}</text>"#));
        }
        Some(svg)
    }

    fn legend(&self) -> String {
        if self.series.len() < 2 {
            return String::new();
        }
        let key = |(index, series): (usize, &Series)| {
            let (look, name) = (look(series), escape(&series.name));
            format!(
                r#"<button type="button" data-series="{index}">
<svg viewBox="0 0 26 8"><path class="{look}" d="M1 4H25"/></svg>{name}</button>"#
            )
        };
        format!(r#"<div class="legend">{}</div>"#, self.series.iter().enumerate().map(key).collect::<String>())
    }
}

/// The classes of a line.
pub(super) fn look(series: &Series) -> String {
    // When the colours are used up, the next round of them is dashed.
    let stroke =
        if series.colour >= COLOURS && series.stroke == Stroke::Solid { Stroke::Dashed } else { series.stroke };
    format!("line c{} {}", series.colour % COLOURS, stroke.class())
}

/// Where the values of a chart lie on it, in the units of its view box.
struct Plot {
    x: Range,
    y: Range,
    left: f64,
    width: f64,
    height: f64,
}

impl Plot {
    fn new(chart: &Chart) -> Option<Plot> {
        let points = || chart.series.iter().flat_map(|series| series.points.iter());
        let xs = points()
            .filter(|point| point.1.is_some())
            .map(|point| point.0)
            .chain(chart.dots.iter().map(|dot| dot.at.0));
        let ys = points().filter_map(|point| point.1).chain(chart.dots.iter().map(|dot| dot.at.1));
        let ys = ys.chain(chart.bounds.iter().map(|bound| bound.at));
        let (width, height) = (chart.width.units() - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        Some(Plot { x: chart.x.range(xs)?, y: chart.y.range(ys)?, left: LEFT, width, height })
    }

    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (self.left + self.x.part(x) * self.width, TOP + (1.0 - self.y.part(y)) * self.height)
    }

    fn grid(&self, chart: &Chart) -> String {
        let (left, right, bottom) = (self.left, self.left + self.width, TOP + self.height);
        let mut svg = String::new();
        if let Some(end) = chart.warmup {
            let width = self.x.part(end).clamp(0.0, 1.0) * self.width;
            let height = self.height;
            svg.push_str(&format!(
                r#"<rect class="warmup" x="{left}" y="{TOP}" width="{width:.1}" height="{height}"/>
<text class="quiet" x="{:.1}" y="{:.1}">warm-up</text>"#,
                left + 4.0,
                TOP + 13.0
            ));
        }
        // A label takes about seven units a character; on the vertical axis it takes a line.
        let room = |tick: &Tick| 7.0 * tick.label.chars().count() as f64 + 12.0;
        for tick in self.x.ticks(self.width, room) {
            let x = left + self.x.part(tick.at) * self.width;
            svg.push_str(&format!(r#"<path class="rule" d="M{x:.1} {TOP}V{bottom}"/>"#));
            if !tick.label.is_empty() {
                let (y, label) = (bottom + 16.0, tick.label);
                svg.push_str(&format!(r#"<text class="tick middle" x="{x:.1}" y="{y:.1}">{label}</text>"#));
            }
        }
        for tick in self.y.ticks(self.height, |_| 22.0) {
            let y = TOP + (1.0 - self.y.part(tick.at)) * self.height;
            svg.push_str(&format!(r#"<path class="rule" d="M{left} {y:.1}H{right}"/>"#));
            if !tick.label.is_empty() {
                let (x, y, label) = (left - 7.0, y + 4.0, tick.label);
                svg.push_str(&format!(r#"<text class="tick end" x="{x:.1}" y="{y:.1}">{label}</text>"#));
            }
        }
        let (x_name, y_name) = (escape(&chart.x.name), escape(&chart.y.name));
        svg.push_str(&format!(
            r#"<path class="axis" d="M{left} {TOP}V{bottom}H{right}"/>
<text class="name end" x="{right}" y="{:.1}">{x_name}</text>
<text class="name" x="4" y="13">{y_name}</text>"#,
            bottom + 33.0
        ));
        svg
    }

    fn annotations(&self, chart: &Chart) -> String {
        let mut svg = String::new();
        let (left, right, bottom) = (self.left, self.left + self.width, TOP + self.height);
        for mark in &chart.marks {
            let x = left + self.x.part(mark.at) * self.width;
            // Beside the line, on the side where there is room.
            let (text_x, class) = if x > left + self.width / 2.0 { (x - 5.0, " end") } else { (x + 5.0, "") };
            let (y, name) = (TOP + 13.0, escape(&mark.name));
            svg.push_str(&format!(
                r#"<path class="mark" d="M{x:.1} {TOP}V{bottom}"/>
<text class="note{class}" x="{text_x:.1}" y="{y}">{name}</text>"#
            ));
        }
        for bound in &chart.bounds {
            let y = TOP + (1.0 - self.y.part(bound.at)) * self.height;
            let (text_y, name) = (y - 5.0, escape(&bound.name));
            svg.push_str(&format!(
                r#"<path class="mark" d="M{left} {y:.1}H{right}"/><text class="note" x="{:.1}" y="{text_y:.1}">{name}</text>"#,
                left + 5.0
            ));
        }
        svg
    }

    fn line(&self, series: &Series) -> String {
        let (mut path, mut pen_up) = (String::new(), true);
        for (x, y) in thinned(&series.points) {
            let Some(value) = y else {
                pen_up = true;
                continue;
            };
            let (px, py) = self.place(x, value);
            // A single point between two gaps is a line of no length, which round ends make a dot.
            path.push_str(&if pen_up { format!("M{px:.1} {py:.1}h0") } else { format!("L{px:.1} {py:.1}") });
            pen_up = false;
        }
        format!(r#"<path class="{}" d="{path}"/>"#, look(series))
    }

    /// What a line's points stand for, as attributes for the script: their places and both values in words.
    fn values(&self, series: &Series, chart: &Chart) -> String {
        let tip = |(x, y): (f64, Option<f64>)| {
            let (px, py) = self.place(x, y?);
            let (x, value) = (chart.x.unit.exact(x), chart.y.unit.exact(y?));
            Some(format!(r#"[{px:.1},{py:.1},"{x}","{value}"]"#))
        };
        let tips: Vec<String> = thinned(&series.points).into_iter().filter_map(tip).collect();
        format!(r#"data-name="{}" data-points="[{}]""#, escape(&series.name), escape(&tips.join(",")))
    }

    fn dot(&self, dot: &Dot) -> String {
        let (x, y) = self.place(dot.at.0, dot.at.1);
        let (colour, class) = (dot.colour % COLOURS, if dot.counts { "dot" } else { "dot hollow" });
        format!(r#"<circle class="{class} c{colour}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#)
    }
}

/// At most about [`POINTS_MAX`] of `points`: of each stretch the least, the greatest and, if there is one, a gap.
fn thinned(points: &[(f64, Option<f64>)]) -> Vec<(f64, Option<f64>)> {
    if points.len() <= POINTS_MAX {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(POINTS_MAX / 3);
    let keep = |stretch: &[(f64, Option<f64>)]| {
        let numbered = || stretch.iter().enumerate().filter_map(|(index, point)| Some((index, point.1?)));
        let least = numbered().min_by(|a, b| a.1.total_cmp(&b.1)).map(|found| found.0);
        let greatest = numbered().max_by(|a, b| a.1.total_cmp(&b.1)).map(|found| found.0);
        let gap = stretch.iter().position(|point| point.1.is_none());
        let mut kept: Vec<usize> = [least, greatest, gap].into_iter().flatten().collect();
        kept.sort_unstable();
        kept.dedup();
        kept.into_iter().map(|index| stretch[index]).collect::<Vec<_>>()
    };
    points.chunks(stretch).flat_map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::scale::{Kind, Unit};

    #[test]
    fn thinning_keeps_peaks_dips_and_gaps() {
        let mut points: Vec<(f64, Option<f64>)> = (0..100_000).map(|i| (f64::from(i), Some(10.0))).collect();
        (points[50_001].1, points[70_003].1, points[20_002].1) = (Some(99.0), Some(1.0), None);
        let kept = thinned(&points);
        assert!(kept.len() <= POINTS_MAX, "{}", kept.len());
        for at in [50_001, 70_003, 20_002] {
            assert!(kept.contains(&points[at]), "{:?}", points[at]);
        }
        assert!(kept.is_sorted_by_key(|point| point.0));
        assert_eq!(thinned(&points[..1000]).len(), 1000);
    }

    #[test]
    fn a_gap_breaks_the_line_and_nothing_gives_no_chart() {
        let axis = |kind| Axis { name: "a<b".to_owned(), unit: Unit::Seconds, kind };
        let mut chart = Chart::new("n", "t", axis(Kind::Elapsed), axis(Kind::FromZero));
        assert_eq!(chart.html(), "");
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(3.0)), (3.0, Some(2.0))];
        chart.series.push(Series { name: "x".to_owned(), colour: 9, stroke: Stroke::Solid, points });
        let html = chart.html();
        let path = html.split(r#"line c1 dashed" d=""#).nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert!(html.contains("a&lt;b") && !html.contains("a<b"));
    }
}
