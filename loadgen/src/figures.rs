//! Figures as people read them: milliseconds, records and bytes per second, sizes, times of day.
//!
//! Three significant digits where the figure was measured, all digits where it was counted. What scripts read does not come
//! from here: result files and CSV keep their units and digits.

use crate::metric::{Better, Metric};

/// A latency in milliseconds, given in microseconds: `0.012`, `1.23`, `45.6`, `789`.
pub fn milliseconds(microseconds: f64) -> String {
    if microseconds.is_finite() { significant(microseconds / 1e3) } else { "> 1 h".to_owned() }
}

/// With a prefix: `1.23 k`, `45.6 M`, `789 `; the unit follows.
pub fn scaled(value: f64) -> String {
    const PREFIXES: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // A figure that rounds up to the next prefix belongs to it.
    match PREFIXES.iter().find(|(scale, _)| value.abs() >= scale * 0.9995) {
        Some((scale, prefix)) => format!("{} {prefix}", significant(value / scale)),
        None => format!("{} ", significant(value)),
    }
}

/// Records per second.
pub fn records_per_second(value: f64) -> String {
    format!("{}/s", scaled(value))
}

/// Bytes per second in MB/s (10⁶), as disks and networks are sold.
pub fn megabytes_per_second(bytes: f64) -> String {
    format!("{} MB/s", significant(bytes / 1e6))
}

/// Bytes, in powers of ten.
pub fn bytes(value: u64) -> String {
    format!("{}B", scaled(value as f64))
}

/// A count with its thousands apart: `1 234 567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A part of 1 in percent.
pub fn percent(part: f64) -> String {
    format!("{} %", significant(part * 100.0))
}

/// The figure of `metric` with its unit.
pub fn with_unit(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Latency(..) => format!("{} ms", milliseconds(value)),
        Metric::Rate => percent(value),
        Metric::RateIn | Metric::RateOut => records_per_second(value),
        Metric::Cpu => format!("{} s/GB", significant(value)),
        Metric::Errors | Metric::Loss | Metric::Faults => count(value as u64),
    }
}

/// Whether `after` is better than `before`.
pub fn is_better(better: Better, before: f64, after: f64) -> bool {
    match better {
        Better::Higher => after > before,
        Better::Lower => after < before,
    }
}

/// Three significant digits, never an exponent; whole numbers keep all of theirs.
pub fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { "∞".to_owned() };
    }
    let magnitude = |value: f64| value.abs().log10().floor() as i32;
    let decimals = (2 - magnitude(value)).clamp(0, 6);
    // Rounding can bring a digit more: 9.999 is 10.0, not 10.00.
    let scale = 10f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    let decimals = if rounded == 0.0 { decimals } else { decimals.min((2 - magnitude(rounded)).clamp(0, 6)) };
    format!("{rounded:.*}", decimals as usize)
}

/// `2026-01-31 23:59:59 UTC` of milliseconds since 1970.
pub fn utc(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March have their leap day last; 400 of them always have 146 097 days (H. Hinnant, "chrono-
    // Compatible Low-Level Date Algorithms", civil_from_days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.001234, "0.00123"),
            (0.9999, "1.00"),
            (9.999, "10.0"),
            (99.95, "100"),
            (1234.5, "1235"),
            (-1.5, "-1.50"),
            (f64::INFINITY, "∞"),
        ] {
            assert_eq!(significant(value), text, "{value}");
        }
        assert_eq!(milliseconds(1234.0), "1.23");
        assert_eq!(milliseconds(f64::INFINITY), "> 1 h");
        assert_eq!(records_per_second(999_600.0), "1.00 M/s");
        assert_eq!(records_per_second(12.0), "12.0 /s");
        assert_eq!(bytes(1_500_000), "1.50 MB");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(123), "123");
    }

    #[test]
    fn days_are_found_in_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_827_696, "2000-02-29 12:34:56 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds * 1000 + 999), text);
        }
    }
}
