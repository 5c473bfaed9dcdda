//! Tables for people: units, and what is said first.
//!
//! The layout is the library's and is not held to the character.

use loadgen::compare::compare;
use loadgen::result::ResultFile;
use loadgen::table;

use super::sample;

#[test]
fn a_run_is_told_in_milliseconds_and_megabytes() {
    let run = sample::paced(1, 1.0);
    let text = table::result(&run);
    for shown in [
        "ok (durability class C, 40.0 s)",
        "200 k/s, 205 MB/s (99.8 % of 200 k/s)",
        "clean, 8\u{202f}000\u{202f}000 delivered",
        "2.98 s/GB, RSS 310 MB",
        "0.420 cores on 2 threads",
        "p99.99",
    ] {
        assert!(text.contains(shown), "{shown} in\n{text}");
    }
    let p99 = loadgen::figures::milliseconds(run.result.latency["response"].p99_us as f64);
    let row = text.lines().find(|line| line.trim_start().starts_with("response")).unwrap();
    assert!(row.contains(&p99) && !row.contains('('), "{row}");
}

#[test]
fn what_is_void_is_in_brackets_and_said_first() {
    let text = table::result(&sample::saturated(1));
    assert!(text.starts_with("SATURATED: "), "{text}");
    assert!(text.contains("  - achieved 83 % of the schedule\n") && text.contains("(in brackets: void)"));
    let row = text.lines().find(|line| line.trim_start().starts_with("response")).unwrap();
    assert_eq!(row.matches('(').count(), 6, "all but the median: {row}");
    let unpaced = table::result(&sample::unpaced(1));
    assert!(unpaced.starts_with("UNPACED: ") && !unpaced.contains("response"), "{unpaced}");
}

#[test]
fn a_comparison_says_what_to_make_of_it() {
    let files: Vec<(ResultFile, ResultFile)> =
        (0..7).map(|seed| (sample::paced(seed, 1.0), sample::paced(50 + seed, 0.8))).collect();
    let pairs: Vec<(&ResultFile, &ResultFile)> = files.iter().map(|(a, b)| (a, b)).collect();
    let text = table::comparison(&compare(&pairs).unwrap());
    let row = text.lines().find(|line| line.trim_start().starts_with("response.p50")).unwrap();
    assert!(row.contains("7/7") && row.contains("better by"), "{row}");
    assert!(text.starts_with("7 pairs, medians\n"), "{text}");
    let mixed = [(&files[0].0, &files[0].1), (&files[1].0, &sample::saturated(3))];
    let text = table::comparison(&compare(&mixed).unwrap());
    assert!(text.starts_with("CAUTION: SATURATED") && text.contains("B: void: the run is saturated"), "{text}");
}
