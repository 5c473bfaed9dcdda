//! Values of options, from text: durations, rates, sizes, lists, distributions.
//!
//! Every parser says what it would have taken. Nothing here knows which option a value is for.

use std::ops::RangeInclusive;
use std::str::FromStr;

use corelane::runtime::Duration;

use crate::load::keys::KeyDistribution;
use crate::load::options::{Overload, StartAt};
use crate::load::schedule::{Arrival, Pace};
use crate::stamp::STAMP_BYTES;

/// `key=value`.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it has the form key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `250ms`, `30s`, `5m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| "it begins with a number")?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err("its unit is ms, s, m or h".to_owned()),
    };
    milliseconds.map(Duration::from_millis).ok_or_else(|| "it is too long".to_owned())
}

/// `1024`, `100..2000` with both ends included.
pub(super) fn sizes(text: &str) -> Result<RangeInclusive<usize>, String> {
    let size = |text: &str| usize::from_str(text).map_err(|_| format!("{text:?} is no number of bytes"));
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let (least, most) = (size(least)?, size(most)?);
    if least < STAMP_BYTES {
        return Err(format!("a value holds a stamp, so it has {STAMP_BYTES} bytes or more"));
    }
    if least <= most { Ok(least..=most) } else { Err("the second size is below the first".to_owned()) }
}

/// `500`, `10k`, `1.5M`, `2G`: a number above 0, in thousands, millions or thousand millions.
pub(super) fn scaled(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.char_indices().next_back() {
        Some((at, 'k')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no number, with k, M or G behind it or not"))?;
    let value = number * factor;
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err("it is above 0".to_owned()) }
}

/// `500`, `10k`, `1.5M`: the same where only whole numbers make sense.
pub(super) fn count(text: &str) -> Result<u64, String> {
    // Up to 2⁵³ every whole number is one of 64 bits of floating point.
    const COUNT_MAX: f64 = 9e15;
    let value = scaled(text)?;
    if value.fract() == 0.0 && value <= COUNT_MAX { Ok(value as u64) } else { Err("it is a whole number".to_owned()) }
}

/// A rate, or −1 for none.
pub(super) fn rate(text: &str) -> Result<Option<f64>, String> {
    if text == "-1" { Ok(None) } else { scaled(text).map(Some).map_err(|error| format!("{error}; -1: no schedule")) }
}

/// `10k..1M/60s`: from, to, over.
pub(super) fn ramp(text: &str) -> Result<Pace, String> {
    let form = "it has the form 10k..1M/60s";
    let (rates, over) = text.split_once('/').ok_or(form)?;
    let (from, to) = rates.split_once("..").ok_or(form)?;
    Ok(Pace { from: scaled(from)?, to: scaled(to)?, over: duration(over)? })
}

/// Periods of a burst unless they are given.
const BURST: Duration = Duration::from_millis(100);

/// `uniform`, `poisson`, `burst`, `burst:250ms`.
pub(super) fn arrival(text: &str) -> Result<Arrival, String> {
    match text {
        "uniform" => Ok(Arrival::Uniform),
        "poisson" => Ok(Arrival::Poisson),
        "burst" => Ok(Arrival::Burst(BURST)),
        _ => match text.strip_prefix("burst:").map(duration) {
            Some(Ok(period)) if !period.is_zero() => Ok(Arrival::Burst(period)),
            Some(Ok(_)) => Err("a burst has a period above 0".to_owned()),
            Some(Err(error)) => Err(error),
            None => Err("it is uniform, poisson, burst or burst:PERIOD".to_owned()),
        },
    }
}

/// `queue`, `drop`, `abort`.
pub(super) fn overload(text: &str) -> Result<Overload, String> {
    match text {
        "queue" => Ok(Overload::Queue),
        "drop" => Ok(Overload::Drop),
        "abort" => Ok(Overload::Abort),
        _ => Err("it is queue, drop or abort".to_owned()),
    }
}

/// `earliest`, `latest`.
pub(super) fn start_at(text: &str) -> Result<StartAt, String> {
    match text {
        "earliest" => Ok(StartAt::Earliest),
        "latest" => Ok(StartAt::Latest),
        _ => Err("it is earliest or latest".to_owned()),
    }
}

/// `none`, `rr`, `uniform`, `zipf:1.1`, `hot:0.9`.
pub(super) fn key_distribution(text: &str) -> Result<KeyDistribution, String> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    match text.split_once(':') {
        None if text == "none" => Ok(KeyDistribution::None),
        None if text == "rr" => Ok(KeyDistribution::RoundRobin),
        None if text == "uniform" => Ok(KeyDistribution::Uniform),
        Some(("zipf", theta)) => {
            number(theta).map(KeyDistribution::Zipf).ok_or_else(|| "zipf: has a number of 0 or more".to_owned())
        }
        Some(("hot", share)) => number(share)
            .filter(|share| *share <= 1.0)
            .map(KeyDistribution::Hot)
            .ok_or_else(|| "hot: has the share of the hot key, from 0 to 1".to_owned()),
        _ => Err("it is none, rr, uniform, zipf:THETA or hot:SHARE".to_owned()),
    }
}

/// From 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "it is a number from 0 to 1")?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("it is a number from 0 to 1".to_owned()) }
}

/// `0,2-3`: cores.
pub(super) fn cores(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("{text:?} is no list of cores like 0,2-3");
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last > 1023 {
            return Err(wrong());
        }
        cores.extend(first..=last);
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_read() {
        assert_eq!(sizes("1024"), Ok(1024..=1024));
        assert_eq!(sizes("100..2000"), Ok(100..=2000));
        for wrong in ["39", "100..99", "x", "..", "100..", "-1"] {
            assert!(sizes(wrong).is_err(), "{wrong}");
        }
        for (text, milliseconds) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for wrong in ["", "s", "30", "1d", "-1s", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_ramps_and_arrivals_are_read() {
        assert_eq!((rate("-1"), rate("250"), rate("1.5M")), (Ok(None), Ok(Some(250.0)), Ok(Some(1.5e6))));
        for wrong in ["0", "-2", "x", "k", "", "1e999"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!((count("250"), count("1.5M")), (Ok(250), Ok(1_500_000)));
        for wrong in ["0", "1.5", "-1", "10000000G"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
        let expected = Pace { from: 1e4, to: 1e6, over: Duration::from_secs(60) };
        assert_eq!(ramp("10k..1M/60s"), Ok(expected));
        assert!(ramp("10k..1M").is_err() && ramp("1M/60s").is_err());
        assert_eq!(arrival("burst:250ms"), Ok(Arrival::Burst(Duration::from_millis(250))));
        assert!(arrival("burst:0ms").is_err() && arrival("sometimes").is_err());
    }

    #[test]
    fn keys_shares_and_cores_are_read() {
        assert_eq!(key_distribution("zipf:1.1"), Ok(KeyDistribution::Zipf(1.1)));
        assert_eq!(key_distribution("hot:0.9"), Ok(KeyDistribution::Hot(0.9)));
        for wrong in ["zipf", "zipf:x", "zipf:-1", "hot:2", "none:1", ""] {
            assert!(key_distribution(wrong).is_err(), "{wrong}");
        }
        assert_eq!(cores("0,2-3"), Ok(vec![0, 2, 3]));
        assert!(cores("").is_err() && cores("3-2").is_err() && cores("0-4000").is_err());
        assert!(share("0.5").is_ok() && share("1.5").is_err() && share("NaN").is_err());
    }
}
