//! Axes: how values lie on a line, and where on it ticks make sense.
//!
//! Linear axes have ticks at 1, 2 and 5 times a power of ten, logarithmic ones at every such number as far as there is room,
//! and the percentile axis at 0, 50, 90, 99, 99.9 % and so on, each nine as far from the next as the one before.

use crate::figures;

/// What an axis measures; decides how its values are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    /// Seconds.
    Seconds,
    /// Microseconds, written as milliseconds.
    Latency,
    /// Records per second.
    Rate,
    /// A quantile as 1/(1−q).
    Quantile,
}

impl Unit {
    /// As short as it can be: for a tick.
    fn short(self, value: f64) -> String {
        match self {
            Unit::Seconds => plain(value),
            Unit::Latency => plain(value / 1e3),
            Unit::Rate if value.abs() >= 1e9 => format!("{} G", plain(value / 1e9)),
            Unit::Rate if value.abs() >= 1e6 => format!("{} M", plain(value / 1e6)),
            Unit::Rate if value.abs() >= 1e3 => format!("{} k", plain(value / 1e3)),
            Unit::Rate => plain(value),
            Unit::Quantile => format!("{} %", plain(100.0 - 100.0 / value)),
        }
    }

    /// With its unit: for hovering.
    pub(super) fn exact(self, value: f64) -> String {
        match self {
            Unit::Seconds => format!("{} s", plain(value)),
            Unit::Latency => format!("{} ms", figures::milliseconds(value)),
            Unit::Rate => figures::records_per_second(value),
            Unit::Quantile => self.short(value),
        }
    }
}

/// The shortest text of `value` in nine significant places.
fn plain(value: f64) -> String {
    format!("{}", (value * 1e6).round() / 1e6)
}

/// How values lie on an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Linear from zero to a round number.
    FromZero,
    /// Linear from zero to the greatest value and no further.
    Elapsed,
    /// Logarithmic.
    Log,
    /// Logarithmic in 1/(1−q), from 1.
    Nines,
}

/// An axis before its values are known.
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) kind: Kind,
}

/// A place on an axis; without a label it is a line of the grid alone.
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

/// An axis with its ends.
pub(super) struct Range {
    unit: Unit,
    kind: Kind,
    low: f64,
    high: f64,
}

impl Axis {
    pub(super) fn new(name: &str, unit: Unit, kind: Kind) -> Axis {
        Axis { name: name.to_owned(), unit, kind }
    }

    /// The axis over `values`; absent where there is nothing that it can show.
    pub(super) fn range(&self, values: impl Iterator<Item = f64>) -> Option<Range> {
        let is_shown = |value: &f64| value.is_finite() && (self.kind != Kind::Log || *value > 0.0);
        let ends = values.filter(is_shown).fold(None, |ends: Option<(f64, f64)>, value| {
            Some(ends.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        });
        let (least, greatest) = ends?;
        let (low, high) = match self.kind {
            Kind::FromZero => (0.0, if greatest > 0.0 { nice_above(greatest * 1.02) } else { 1.0 }),
            Kind::Elapsed => (0.0, if greatest > 0.0 { greatest } else { 1.0 }),
            Kind::Log => (round_125(least * 0.999, false), round_125(greatest * 1.001, true)),
            Kind::Nines => (1.0, greatest.max(10.0)),
        };
        Some(Range { unit: self.unit, kind: self.kind, low, high })
    }
}

impl Range {
    /// 0 at the low end, 1 at the high one.
    pub(super) fn part(&self, value: f64) -> f64 {
        match self.kind {
            Kind::FromZero | Kind::Elapsed => (value - self.low) / (self.high - self.low),
            Kind::Log | Kind::Nines => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        }
    }

    /// Ticks on an axis `length` units long, where the label of a tick needs `room` of them.
    pub(super) fn ticks(&self, length: f64, room: impl Fn(&Tick) -> f64) -> Vec<Tick> {
        let tick = |at: f64| Tick { at, label: self.unit.short(at) };
        match self.kind {
            Kind::FromZero | Kind::Elapsed => {
                let longest = [self.low, self.high].map(|end| room(&tick(round_to(end, self.high)))).into_iter();
                let count = (length / longest.fold(40.0, f64::max)).clamp(2.0, 10.0);
                let step = nice_above((self.high - self.low) / count);
                let (first, last) = ((self.low / step).ceil() as i64, (self.high / step * 1.000_001).floor() as i64);
                (first..=last).map(|index| tick(index as f64 * step)).collect()
            }
            Kind::Log => self.log_ticks(length, room),
            Kind::Nines => {
                let decades = (0..=12).map(|nines| 10f64.powi(nines)).take_while(|at| *at <= self.high * 1.000_001);
                let mut ticks: Vec<Tick> = decades.map(tick).collect();
                let between = [ticks[0].at, 2.0, 4.0, 10.0].map(tick);
                if self.fit(&between, length, room) {
                    ticks.splice(1..1, [2.0, 4.0].map(tick));
                }
                ticks
            }
        }
    }

    /// Whether the labels of `ticks` do not touch.
    fn fit(&self, ticks: &[Tick], length: f64, room: impl Fn(&Tick) -> f64) -> bool {
        ticks.windows(2).all(|pair| {
            let apart = (self.part(pair[1].at) - self.part(pair[0].at)) * length;
            apart >= f64::midpoint(room(&pair[0]), room(&pair[1]))
        })
    }

    fn log_ticks(&self, length: f64, room: impl Fn(&Tick) -> f64) -> Vec<Tick> {
        let (from, to) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let inside = |at: &f64| *at >= self.low * 0.999 && *at <= self.high * 1.001;
        let at_steps = |steps: &[f64]| -> Vec<Tick> {
            let places = (from..=to).flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
            places.filter(inside).map(|at| Tick { at, label: self.unit.short(at) }).collect()
        };
        let finest = at_steps(&[1.0, 2.0, 5.0]);
        if self.fit(&finest, length, room) {
            return finest;
        }
        let mut ticks = at_steps(&[1.0]);
        if ticks.len() < 2 {
            // Less than two decades that are too short for every step: the ends always have room.
            ticks = [self.low, self.high].map(|at| Tick { at, label: self.unit.short(at) }).into();
        }
        ticks
    }
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is not below `value`.
fn nice_above(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0];
    steps.into_iter().find(|step| step * power >= value * 0.999_999).map_or(10.0 * power, |step| step * power)
}

/// The nearest of 1, 2 and 5 times a power of ten, upwards or downwards.
fn round_125(value: f64, upwards: bool) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let found = if upwards {
        steps.into_iter().find(|step| step * power >= value)
    } else {
        steps.into_iter().rev().find(|step| step * power <= value)
    };
    found.unwrap_or(1.0) * power
}

/// Two digits of `value`, on the scale of `whole`: what a tick near it looks like.
fn round_to(value: f64, whole: f64) -> f64 {
    if whole == 0.0 {
        return value;
    }
    let step = 10f64.powf(whole.abs().log10().floor() - 1.0);
    (value / step).round() * step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(kind: Kind, unit: Unit, values: &[f64]) -> Vec<String> {
        let range = Axis::new("", unit, kind).range(values.iter().copied()).unwrap();
        range.ticks(400.0, |tick| 7.0 * tick.label.len() as f64 + 12.0).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_where_people_expect_them() {
        assert_eq!(labels(Kind::Elapsed, Unit::Seconds, &[0.0, 30.0]), ["0", "5", "10", "15", "20", "25", "30"]);
        assert_eq!(
            labels(Kind::FromZero, Unit::Rate, &[487_000.0]),
            ["0 k", "100 k", "200 k", "300 k", "400 k", "500 k"].map(|label| if label == "0 k" { "0" } else { label })
        );
        assert_eq!(labels(Kind::Log, Unit::Latency, &[900.0, 21_000.0]), ["0.5", "1", "2", "5", "10", "20", "50"]);
        assert_eq!(labels(Kind::Log, Unit::Latency, &[12.0, 3e7]), ["0.01", "0.1", "1", "10", "100", "1000", "10000"]);
        let nines = ["0 %", "50 %", "75 %", "90 %", "99 %"];
        assert_eq!(labels(Kind::Nines, Unit::Quantile, &[1.0, 500.0]), nines);
        let crowded = labels(Kind::Nines, Unit::Quantile, &[1.0, 2e7]);
        assert_eq!(crowded[..3], ["0 %", "90 %", "99 %"], "50 % and 75 % would touch");
    }

    #[test]
    fn values_without_a_place_are_left_out_and_equal_ones_have_room() {
        let none = [f64::INFINITY, f64::NAN, 0.0];
        assert!(Axis::new("", Unit::Latency, Kind::Log).range(none.into_iter()).is_none());
        for kind in [Kind::FromZero, Kind::Elapsed, Kind::Log, Kind::Nines] {
            let range = Axis::new("", Unit::Seconds, kind).range([7.0, 7.0].into_iter()).unwrap();
            assert!((0.0..=1.0).contains(&range.part(7.0)), "{kind:?}");
            assert!(range.low < range.high && !range.ticks(400.0, |_| 40.0).is_empty(), "{kind:?}");
        }
    }
}
