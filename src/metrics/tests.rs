//! The catalogue keeps its form, the text its format, and the README its table.

use core::time::Duration;

use super::*;
use crate::types::ShardId;

fn api_name(code: i16) -> Option<&'static str> {
    match code {
        0 => Some("Produce"),
        1 => Some("Fetch"),
        _ => None,
    }
}

/// The lines of these metrics.
fn lines<'a>(text: &'a str, names: &[&str]) -> Vec<&'a str> {
    let of = |line: &&str| {
        let bare = line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")).unwrap_or(line);
        let name = bare.split(['{', ' ']).next().unwrap_or_default();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        names.contains(&name) || names.contains(&base)
    };
    text.lines().filter(of).collect()
}

#[test]
fn the_text_is_as_prometheus_reads_it() {
    let (first, second) = (Recording::default(), Recording::default());
    first.produce_bytes.add(40);
    first.produce_bytes.add(2);
    first.send_bytes.at(SendKind::Sent).add(7);
    first.memory_bytes.at(Budget::Append).set(9);
    first.memory_bytes.at(Budget::Append).set(8);
    second.connections.set(3);
    let text = render(&[(ShardId(0), first.reading()), (ShardId(1), second.reading())], api_name);
    let names = ["corelane_produce_bytes_total", "corelane_send_bytes_total", "corelane_connections"];
    let found = lines(&text, &[names.as_slice(), &["corelane_memory_bytes"]].concat());
    let expected = r#"# HELP corelane_produce_bytes_total Bytes of record batches that were appended for producers.
# TYPE corelane_produce_bytes_total counter
corelane_produce_bytes_total{shard="0"} 42
corelane_produce_bytes_total{shard="1"} 0
# HELP corelane_send_bytes_total Bytes of answers that the kernel has taken whole, by how it took them.
# TYPE corelane_send_bytes_total counter
corelane_send_bytes_total{shard="0",kind="sent"} 7
corelane_send_bytes_total{shard="1",kind="sent"} 0
# HELP corelane_connections Open connections of clients.
# TYPE corelane_connections gauge
corelane_connections{shard="0"} 0
corelane_connections{shard="1"} 3
# HELP corelane_memory_bytes Memory in use, by the budget that it is charged to.
# TYPE corelane_memory_bytes gauge
corelane_memory_bytes{shard="0",budget="append"} 8
corelane_memory_bytes{shard="0",budget="requests"} 0
corelane_memory_bytes{shard="0",budget="responses"} 0
corelane_memory_bytes{shard="0",budget="reads"} 0
corelane_memory_bytes{shard="1",budget="append"} 0
corelane_memory_bytes{shard="1",budget="requests"} 0
corelane_memory_bytes{shard="1",budget="responses"} 0
corelane_memory_bytes{shard="1",budget="reads"} 0"#;
    assert_eq!(found.join("\n"), expected);
    assert!(text.ends_with('\n'));
}

#[test]
fn histograms_have_buckets_a_sum_and_a_count() {
    let shard = Recording::default();
    let fetch = ApiCode::new(1).expect("a key");
    for micros in [3, 5, 5, 20, 50_000_000] {
        shard.requests.at(fetch).record(Duration::from_micros(micros));
    }
    // An API without a name is none of ours.
    shard.requests.at(ApiCode::new(9).expect("a key")).record(Duration::ZERO);
    let text = render(&[(ShardId(4), shard.reading())], api_name);
    let found = lines(&text, &["corelane_request_seconds"]);
    assert_eq!(found[1], "# TYPE corelane_request_seconds histogram");
    let bucket =
        |bound, count| format!("corelane_request_seconds_bucket{{shard=\"4\",api=\"Fetch\",le=\"{bound}\"}} {count}");
    let of = |bound: &str| *found.iter().find(|line| line.contains(&format!("le=\"{bound}\""))).expect(bound);
    for (bound, count) in [
        ("0.000004", 1),
        ("0.000006", 3),
        ("0.000016", 3),
        ("0.000024", 4),
        ("1.048576", 4),
        ("33.554432", 4),
        ("+Inf", 5),
    ] {
        assert_eq!(of(bound), bucket(bound, count));
    }
    assert_eq!(
        found[found.len() - 2..],
        [
            "corelane_request_seconds_sum{shard=\"4\",api=\"Fetch\"} 50.000033",
            "corelane_request_seconds_count{shard=\"4\",api=\"Fetch\"} 5"
        ]
    );
    assert!(found.iter().skip(2).all(|line| line.contains("api=\"Fetch\"")), "{found:?}");
}

#[test]
fn every_name_has_the_form_of_its_kind_and_needs_no_escape() {
    let mut names = std::collections::HashSet::new();
    for metric in CATALOGUE {
        let name = metric.name;
        assert!(names.insert(name), "{name} twice");
        let noun = name.strip_prefix("corelane_").expect("the prefix of all names");
        assert!(noun.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_seconds"), metric.kind == Kind::Histogram, "{name}");
        assert!(!["_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix)), "{name}");
        assert!(metric.help().ends_with('.') && !metric.help().contains(['\\', '\n']), "{name}");
        assert!(metric.label.is_none_or(|label| !["shard", "le"].contains(&label)), "{name}");
    }
    for value in SendKind::VALUES.into_iter().chain(Budget::VALUES).chain(Limit::VALUES) {
        assert!(value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{value}");
    }
}

/// The table of the README, made from the catalogue.
fn table() -> String {
    let mut table = "| metric | kind | labels | what it counts |\n|---|---|---|---|\n".to_owned();
    for metric in CATALOGUE {
        let labels = metric.label.map_or_else(|| "`shard`".to_owned(), |label| format!("`shard`, `{label}`"));
        table += &format!("| `{}` | {} | {labels} | {} |\n", metric.name, metric.kind, metric.help());
    }
    table
}

#[test]
fn the_readme_has_the_catalogue_as_it_is() {
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&table()), "the table of metrics in README.md should be:\n{}", table());
}
