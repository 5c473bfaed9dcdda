//! Charts as files of their own: well-formed, whole, and with nothing that needs a page.
//!
//! They are read as text; `REPORT_PAGES` keeps them for people to look at.

use std::collections::BTreeSet;
use std::path::PathBuf;

use loadgen::report::{Named, Picture, pictures};
use loadgen::result::ResultFile;

use super::sample;

fn drawn(file: &ResultFile) -> Vec<Picture> {
    pictures(&Named { name: "run", file }).unwrap()
}

fn names(pictures: &[Picture]) -> Vec<&str> {
    pictures.iter().map(|picture| picture.file_name.as_str()).collect()
}

/// Fails unless every element that is opened is closed again, in the right order.
fn check_elements(svg: &str) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag ends");
        assert!(!text.contains('>') || open.last() == Some(&"style"), "{text}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.split([' ', '\n']).next().unwrap();
        match name.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed)),
            None if tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    // An ampersand begins one of the five names, or a number.
    for rest in svg.split('&').skip(1) {
        assert!(["amp;", "lt;", "gt;", "quot;", "#39;"].iter().any(|name| rest.starts_with(name)), "{rest:.20}");
    }
}

#[test]
fn every_chart_of_a_page_is_a_picture() {
    let pictures = drawn(&sample::paced(1, 1.0));
    assert_eq!(
        names(&pictures),
        ["throughput.svg", "response-over-time.svg", "e2e-over-time.svg", "latency-by-percentile.svg"]
    );
    for Picture { file_name, svg } in &pictures {
        check_elements(svg);
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1000\""), "{file_name}");
        assert!(svg.contains("class=\"line c0 solid\"") && svg.contains("class=\"key\""), "{file_name}");
        for page in ["var(", "data-", "<button", "url(", "@import"] {
            assert!(!svg.contains(page), "{page} in {file_name}");
        }
        if let Some(folder) = std::env::var_os("REPORT_PAGES") {
            std::fs::write(PathBuf::from(folder).join(file_name), svg).unwrap();
        }
    }
    assert!(pictures[3].svg.contains(">hiccups of the machine</text>"), "the legend is drawn");
}

#[test]
fn other_results_have_other_charts() {
    let sweep = drawn(&sample::sweep(6));
    assert_eq!(names(&sweep)[..2], ["response-by-throughput.svg", "e2e-by-throughput.svg"]);
    assert!(sweep[0].svg.contains("class=\"dot hollow c0\"") && sweep[0].svg.contains("p99&lt;5ms"));
    sweep.iter().for_each(|picture| check_elements(&picture.svg));
    assert_eq!(names(&sweep).into_iter().collect::<BTreeSet<_>>().len(), sweep.len(), "no file is written twice");
    let unpaced = drawn(&sample::unpaced(3));
    assert_eq!(names(&unpaced), ["throughput.svg", "service-over-time.svg", "latency-by-percentile.svg"]);
    let saturated = drawn(&sample::saturated(2));
    assert!(saturated[1].svg.contains(">SATURATED: TAIL VOID</text>") && !saturated[0].svg.contains("VOID"));
}

#[test]
fn the_colours_are_those_of_a_page_in_the_light() {
    let page = include_str!("../../src/report/page.css").split("@media").next().unwrap();
    let picture = include_str!("../../src/report/svg.css");
    let colours = picture.split('#').skip(1).map(|rest| rest.split([' ', ';']).next().unwrap());
    let unknown: Vec<&str> = colours.filter(|colour| !page.contains(&format!("#{colour};"))).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
