//! The series of a result as CSV (RFC 4180, with line feeds): a header row, then one row per interval, warm-up included.
//!
//! Every result has the same columns in the same order, so that files can be put under each other; a latency that an interval
//! does not have is an empty field. Units are in the names. New columns are added at the end.

use std::io::{self, Write};

use crate::metric::Span;
use crate::result::{Interval, IntervalLatency, ResultFile};

type LatencyColumn = (&'static str, fn(&IntervalLatency) -> u64);

const LATENCY_COLUMNS: [LatencyColumn; 5] = [
    ("p50_us", |latency| latency.p50_us),
    ("p99_us", |latency| latency.p99_us),
    ("p999_us", |latency| latency.p999_us),
    ("max_us", |latency| latency.max_us),
    ("count", |latency| latency.count),
];

/// Writes the header and every interval of `file`.
pub fn write(file: &ResultFile, mut out: impl Write) -> io::Result<()> {
    let fixed =
        "at_s,seconds,warmup,rate_in,rate_out,bytes_in,bytes_out,backlog,errors,own_cpu,broker_cpu,hiccup_max_us";
    write!(out, "{fixed}")?;
    for span in Span::ALL {
        for (column, _) in LATENCY_COLUMNS {
            write!(out, ",{}_{column}", span.name())?;
        }
    }
    writeln!(out)?;
    file.series.iter().try_for_each(|interval| row(interval, &mut out))
}

fn row(interval: &Interval, out: &mut impl Write) -> io::Result<()> {
    let Interval { at_s, seconds, rate_in, rate_out, bytes_in, bytes_out, backlog, errors, own_cpu, .. } = interval;
    write!(out, "{at_s:.3},{seconds:.3},{},{rate_in:.1},{rate_out:.1}", u8::from(interval.warmup))?;
    write!(out, ",{bytes_in:.0},{bytes_out:.0},{backlog},{errors},{own_cpu:.3},")?;
    if let Some(broker_cpu) = interval.broker_cpu {
        write!(out, "{broker_cpu:.3}")?;
    }
    write!(out, ",{}", interval.hiccup_max_us)?;
    for span in Span::ALL {
        let latency = interval.latency.get(span.name());
        for (_, value) in LATENCY_COLUMNS {
            match latency {
                Some(latency) => write!(out, ",{}", value(latency))?,
                None => write!(out, ",")?,
            }
        }
    }
    writeln!(out)
}
