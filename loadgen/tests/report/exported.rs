//! Exports: columns that stay where they are, and the text of the percentile distribution.
//!
//! The distribution is held against that of HdrHistogram for Java. Interval logs are tested beside their writer.

use loadgen::export::{csv, hgrm};
use loadgen::result::latency_histogram;

use super::sample;

#[test]
fn the_series_has_a_row_per_interval_and_stable_columns() {
    let run = sample::paced(1, 1.0);
    let mut written = Vec::new();
    csv::write(&run, &mut written).unwrap();
    let text = String::from_utf8(written).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 1 + run.series.len());
    assert!(rows.iter().all(|row| row.len() == 12 + 6 * 5), "every row has every column");
    assert_eq!(rows[0][..6], ["at_s", "seconds", "warmup", "rate_in", "rate_out", "bytes_in"]);
    assert_eq!(rows[0][11..14], ["hiccup_max_us", "response_p50_us", "response_p99_us"]);
    assert_eq!((rows[0][36], rows[0][41]), ("fetch_count", "connect_count"), "new columns are the last");
    assert_eq!((rows[1][0], rows[1][2], rows[1][12]), ("1.000", "1", ""), "the warm-up has no latencies");
    let interval = &run.series[10];
    let latency = &interval.latency["response"];
    assert_eq!(rows[11][2], "0");
    assert_eq!(rows[11][3], format!("{:.1}", interval.rate_in));
    assert_eq!(
        rows[11][12..17],
        [latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us, latency.count].map(|v| v.to_string())
    );
}

/// What HdrHistogram 2.2.2 for Java prints of the same values with a scaling ratio of 1000.
const DISTRIBUTION: &str = include_str!("distribution.hgrm");

#[test]
fn the_distribution_is_what_other_tools_print() {
    let mut histogram = latency_histogram();
    (1..=1_000).for_each(|value| histogram.record(value * 7).unwrap());
    histogram.record(1_500_000).unwrap();
    let mut written = Vec::new();
    hgrm::write(&histogram, &mut written).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), DISTRIBUTION);
}

#[test]
fn an_empty_distribution_has_a_head_and_a_foot() {
    let mut written = Vec::new();
    hgrm::write(&latency_histogram(), &mut written).unwrap();
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains("Value     Percentile") && text.contains("Total count    =            0]"), "{text}");
    assert!(!text.contains("NaN"), "{text}");
}
