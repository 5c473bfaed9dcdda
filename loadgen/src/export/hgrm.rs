//! A histogram as the percentile distribution that HdrHistogram's tools print and its plotter reads; values in milliseconds.
//!
//! Five steps per halving of the distance to 100 %, as the tools choose. The columns are those of the Java original's
//! `outputPercentileDistribution`, byte for byte, with a divisor of 1 000 for histograms in microseconds.

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Steps between 50 % and 75 %, 75 % and 87.5 %, and so on.
const STEPS_PER_HALF_DISTANCE: u32 = 5;
const MICROSECONDS_PER_MILLISECOND: f64 = 1_000.0;

/// Writes the distribution of `histogram`, which is in microseconds.
pub fn write(histogram: &Histogram<u64>, mut out: impl Write) -> io::Result<()> {
    let digits = usize::from(histogram.sigfig());
    let milliseconds = |value: f64| value / MICROSECONDS_PER_MILLISECOND;
    write!(out, "{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut total = 0;
    for step in histogram.iter_quantiles(STEPS_PER_HALF_DISTANCE) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (milliseconds(step.value_iterated_to() as f64), step.quantile_iterated_to());
        write!(out, "{value:12.digits$} {quantile:.12} {total:10}")?;
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (milliseconds(histogram.mean()), milliseconds(histogram.stdev()));
    writeln!(out, "#[Mean    = {mean:12.digits$}, StdDeviation   = {deviation:12.digits$}]")?;
    let (max, count) = (milliseconds(histogram.max() as f64), histogram.len());
    writeln!(out, "#[Max     = {max:12.digits$}, Total count    = {count:12}]")?;
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", histogram.buckets(), sub_buckets(histogram))
}

/// Cells per bucket: the power of two that holds twice the resolution.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10u64.pow(u32::from(histogram.sigfig()))).next_power_of_two()
}
