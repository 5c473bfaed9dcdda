//! Pages: what is on them, and that they need nothing from elsewhere.
//!
//! They are read as text; how they look, scripts/report-check shows.

use std::path::PathBuf;

use loadgen::compare::compare;
use loadgen::report::{Named, ReportError, html};
use loadgen::result::{ResultFile, RunState, Verification};

use super::sample;

fn page(results: &[(&str, &ResultFile)]) -> String {
    let results: Vec<Named> = results.iter().map(|(name, file)| Named { name, file }).collect();
    html(&results, None).unwrap()
}

/// Keeps the page for the browser, where one is to look at it.
fn keep(name: &str, page: &str) {
    if let Some(folder) = std::env::var_os("REPORT_PAGES") {
        std::fs::write(PathBuf::from(folder).join(format!("{name}.html")), page).unwrap();
    }
}

#[test]
fn a_page_needs_nothing_but_itself() {
    let page = page(&[("run.json", &sample::paced(1, 1.0))]);
    keep("single", &page);
    for foreign in ["http://", "https://", "src=", "@import", "url("] {
        let found = page.replace("http://www.w3.org/2000/svg", "").find(foreign);
        assert!(found.is_none(), "{foreign}");
    }
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for void in ["NaN", "inf", "Some(", "None"] {
        let body = page.split("<script>").next().unwrap();
        assert!(!body.contains(void), "{void} in {:?}", body.split(void).next().unwrap().chars().rev().take(80));
    }
}

#[test]
fn a_single_result_is_shown_whole() {
    let page = page(&[("run.json", &sample::paced(1, 1.0))]);
    for shown in [
        "loadgen e2e: run.json",
        "Throughput over time",
        "Response (intended to acknowledged)",
        "End to end (intended to handed to the consumer)",
        "Latency by percentile",
        "99.99 %",
        "hiccups of the machine",
        "class C: flushed to stable storage",
        "2.98 s/GB",
        "clean, ",
        "bench-1",
        "Imaginary CPU @ 3.0 GHz, 2 cores",
        "--rate 200k",
        "0123456789ab",
        "2026-09-21 14:13:20 UTC",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(!page.contains("<b>bold</b>") && page.contains("note=&lt;b&gt;bold&lt;/b&gt;"), "tags are text");
    assert!(!page.contains("class=\"stamp\"") && !page.contains("<s>"), "nothing is void");
}

#[test]
fn a_saturated_run_is_said_loudly_and_its_tail_is_struck_out() {
    let run = sample::saturated(2);
    let page = page(&[("slow.json", &run)]);
    keep("saturated", &page);
    assert!(page.contains("<strong>SATURATED</strong>") && page.contains("SATURATED: TAIL VOID"));
    assert!(page.contains("<li>achieved 83 % of the schedule</li>"));
    // p90, p99, p99.9, p99.99, max and mean of five latencies; the medians stand.
    assert_eq!(page.matches("<s>").count(), 30);
    assert!(!page.contains("response.p99</span>") && page.contains("response.p50</span>"), "no tile for what is void");
}

#[test]
fn a_run_without_a_schedule_shows_service_times_alone() {
    let page = page(&[("max.json", &sample::unpaced(3))]);
    keep("unpaced", &page);
    assert!(page.contains("<strong>UNPACED</strong>") && page.contains("loadgen-bound"));
    assert!(page.contains("Service (sent to acknowledged)") && !page.contains("Response (intended"));
}

#[test]
fn several_results_have_a_colour_each_and_two_are_compared() {
    let (a, mut b) = (sample::paced(4, 1.0), sample::paced(5, 1.3));
    b.machine.host = "bench-2".to_owned();
    let page = page(&[("before.json", &a), ("after.json", &b)]);
    keep("two", &page);
    assert!(page.contains("B against A") && page.contains("no verdict below 6 pairs"));
    assert!(page.contains("the machine is not the same"), "cautions are shown");
    assert!(page.contains("Response (intended to acknowledged): p99.9"));
    assert_eq!(page.matches("<div class=\"grid\">").count(), 2, "charts over time and by percentile, two in a row");
    let three = [("a", &a), ("b", &b), ("c", &a)].map(|(name, file)| Named { name, file });
    let three = html(&three, None).unwrap();
    keep("three", &three);
    assert!(!three.contains("B against A") && three.contains("3 results"));
}

#[test]
fn pairs_are_shown_with_their_intervals() {
    let files: Vec<(ResultFile, ResultFile)> =
        (0..8).map(|seed| (sample::paced(seed, 1.0), sample::paced(100 + seed, 1.2))).collect();
    let pairs: Vec<(&ResultFile, &ResultFile)> = files.iter().map(|(a, b)| (a, b)).collect();
    let comparison = compare(&pairs).unwrap();
    let results = [Named { name: "A, block 1", file: &files[0].0 }, Named { name: "B, block 1", file: &files[0].1 }];
    let page = html(&results, Some(&comparison)).unwrap();
    keep("pairs", &page);
    assert!(page.contains("8 pairs") && page.contains("worse by 2") && page.contains("0/8"));
    assert!(page.matches("class=\"interval\"").count() >= 9, "an interval per figure");
}

#[test]
fn a_sweep_shows_its_knee_and_its_slo() {
    let page = page(&[("sweep.json", &sample::sweep(6))]);
    keep("sweep", &page);
    assert!(page.contains("knee: 300 k/s") && page.contains("p99&lt;5ms"));
    // Nine rates, three repeats, three percentiles, two latencies.
    let dots = page.matches("<circle class=\"dot").count();
    assert_eq!(dots, 9 * 3 * 3 * 2);
    let hollow = page.matches("<circle class=\"dot hollow").count();
    let missed = sample::sweep(6).sweep.unwrap().steps.iter().filter(|step| !step.met).count();
    assert_eq!(hollow, missed * 3 * 2);
}

#[test]
fn odd_results_have_pages_too() {
    let mut run = sample::paced(7, 1.0);
    run.series.clear();
    run.result.latency.clear();
    (run.result.hiccup, run.result.broker, run.result.verify) = (None, None, None);
    run.result.state = RunState::Invalid;
    run.result.seconds = 0.0;
    run.result.reasons = vec!["<no record> was acknowledged".to_owned()];
    let invalid = page(&[("a & \"b\".json", &run)]);
    keep("invalid", &invalid);
    assert!(invalid.contains("&lt;no record&gt;") && invalid.contains("a &amp; &quot;b&quot;.json"));
    assert!(!invalid.contains("<figure"), "there is nothing to draw");
    assert!(!invalid.contains("class=\"tile\"") && !invalid.contains('∞'), "no figure counts");

    let mut faulty = sample::paced(7, 1.0);
    faulty.result.verify = Some(Verification { lost: 3, delivered: 10, ..Verification::default() });
    assert!(page(&[("f", &faulty)]).contains("FAULTS: 3 lost; 10 delivered"));
    faulty.result.latency.get_mut("e2e").unwrap().hdr = "AAAA".to_owned();
    let error = html(&[Named { name: "f", file: &faulty }], None).unwrap_err();
    assert!(error.to_string().starts_with("f, latency e2e: not a histogram"), "{error}");
    assert!(matches!(html(&[], None), Err(ReportError::Empty)));
}
