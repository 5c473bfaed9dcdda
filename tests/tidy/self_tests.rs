//! Every rule is fed what it must refuse, and what it must leave alone.
//!
//! The snippets stand in texts, which the rules do not look into: this file is tidy itself.

use super::source::tokens;
use super::*;

const HEADER: &str = "//! One.\n//! Two.\n//! Three.\n";

/// The violations of a file with a good header and this body.
fn found(path: &str, body: &str) -> Vec<String> {
    let text = format!("{HEADER}{body}");
    check(&Source::new(path, &text)).iter().map(Violation::to_string).collect()
}

#[track_caller]
fn fires(path: &str, body: &str, expected: &str) {
    let violations = found(path, body);
    assert!(violations.len() == 1 && violations[0].contains(expected), "{body}: {violations:?}");
}

#[track_caller]
fn silent(path: &str, body: &str) {
    assert_eq!(found(path, body), Vec::<String>::new(), "{body}");
}

#[test]
fn upward_and_sideways_names_are_found_however_they_are_written() {
    for body in [
        "use crate::storage::Log;",
        "use crate::{types::Offset, storage::{Log, Segment}};",
        "fn f() -> crate::storage::Log { g() }",
        "use super::storage::Log;",
        "mod inner { use super::super::storage::Log; }",
        "macro_rules! m { () => { $crate::storage::Log }; }",
    ] {
        fires("src/runtime/mod.rs", body, "'runtime' (layer 2) names 'storage'");
    }
    fires("src/wire/a/b.rs", "use super::super::super::record::Batch;", "'wire' (layer 1) names 'record'");
    fires("src/controller/a.rs", "use crate::runtime::Instant;", "names 'runtime'");
    fires("src/types/a.rs", "use crate::*;", "names '*'");
    fires("src/storage/a.rs", "use crate::surprise::X;", "names 'surprise'");
    fires("src/surprise/mod.rs", "", "not in the table of layers");
}

#[test]
fn names_of_lower_layers_and_of_the_own_module_are_fine() {
    silent("src/storage/a.rs", "use crate::{config::{Key, keys}, runtime::File, types::Offset};\nuse super::b::X;");
    silent("src/storage/a/b.rs", "use super::super::c;\nmod tests { use super::*; use crate::storage::d; }");
    silent(
        "src/types/a.rs",
        "//! See [`crate::storage`].\n/* crate::broker::X */ const A: &str = \"crate::broker::X\";",
    );
    silent("src/wire/a.rs", "pub(crate) fn f() {}\npub(in crate::wire) fn g() {}");
    silent("src/main.rs", "use corelane::broker::serve;");
    silent("tests/durable.rs", "use corelane::storage::Log;\nuse std::fs;");
}

#[test]
fn pure_modules_are_pure() {
    fires("src/coordinator/a.rs", "async fn f() {}", "'async'");
    fires("src/replication/a.rs", "use std::sync::Mutex;", "'Mutex'");
    silent("src/storage/a.rs", "async fn f() {}");
}

#[test]
fn only_runtime_opens_the_doors() {
    for (body, door) in [
        ("use std::fs::File;", "'fs'"),
        ("use std::{io, net::TcpStream};", "'net'"),
        ("fn f() { std::thread::yield_now() }", "'thread'"),
        ("use std::time::Instant;", "'time'"),
        ("use glommio::spawn_local;", "'glommio'"),
        ("use io_uring::IoUring;", "'io_uring'"),
        ("let x = rand::random();", "'rand'"),
        ("use std::hash::RandomState;", "'RandomState'"),
    ] {
        fires("src/broker/a.rs", body, door);
        silent("src/runtime/real/a.rs", body);
    }
    silent("src/broker/a.rs", "use core::net::SocketAddr;\nuse core::time::Duration;\nuse std::io;");
    fires("loadgen/src/a.rs", "use glommio::spawn_local;", "'glommio'");
    silent("loadgen/src/a.rs", "use std::time::Instant;");
}

#[test]
fn a_second_event_loop_stays_in_admin() {
    for body in ["use tokio::net::TcpListener;", "fn f() { hyper::Method::GET; }", "use hyper_util::rt::TokioIo;"] {
        fires("src/broker/a.rs", body, "is named outside admin");
        fires("loadgen/src/a.rs", body, "is named outside admin");
        silent("src/admin/http.rs", body);
    }
    fires("src/admin/http.rs", "use std::net::TcpStream;", "'net'");
}

#[test]
fn unsafe_code_stays_in_its_two_places() {
    fires("src/storage/a.rs", "fn f() { unsafe { g() } }", "'unsafe'");
    fires("loadgen/src/a.rs", "#![allow(unsafe_code)]", "'unsafe_code'");
    silent("src/runtime/a.rs", "#![allow(unsafe_code)]\nfn f() { unsafe { g() } }");
    silent("src/wire/generated/mod.rs", "#![allow(unsafe_code)]");
}

#[test]
fn a_file_without_a_header_is_found() {
    for text in ["fn f() {}\n", "//! One.\n", "//! One.\n//!\n//!\nfn f() {}\n", "\n//! A.\n//! B.\n//! C.\n"] {
        assert_eq!(check_header(&Source::new("src/types/a.rs", text)).len(), 1, "{text:?}");
    }
    assert_eq!(check_header(&Source::new("src/types/a.rs", "//! One.\n//!\n//! Two.\n")).len(), 0);
    assert_eq!(check_header(&Source::new("src/types/a/tests.rs", "//! One.\n")).len(), 0);
    assert_eq!(check_header(&Source::new("src/types/a/tests.rs", "use super::*;\n")).len(), 1);
    assert_eq!(check_header(&Source::new("scripts/x", "#!/usr/bin/env bash\nset -e\n")).len(), 1);
    assert_eq!(check_header(&Source::new("scripts/x", "#!/usr/bin/env bash\n# A\n# B\n# C\n")).len(), 0);
}

#[test]
fn leftovers_are_found() {
    for (body, word) in [
        (concat!("fn f() { to", "do!() }"), "todo"),
        (concat!("fn f() { unimple", "mented!() }"), "unimplemented"),
        (concat!("fn f() { db", "g!(1) }"), "dbg"),
        (concat!("// FIX", "ME: later"), concat!("FIX", "ME")),
        (concat!("// X", "XX"), concat!("X", "XX")),
    ] {
        fires("src/types/a.rs", body, word);
    }
    silent("src/types/a.rs", "const NAME: &str = \"dir.XXXXXX\";");
}

#[test]
fn long_lines_machine_paths_and_issue_numbers_are_found() {
    fires("src/types/a.rs", &format!("// {}", "é".repeat(128)), "131 characters");
    silent("src/types/a.rs", &format!("// {}", "é".repeat(127)));
    fires("src/types/a.rs", concat!("const P: &str = \"/ro", "ot/x\";"), "path of one machine");
    silent("src/types/a.rs", concat!("const P: &str = \"a/wo", "rk/x\";"));
    for body in [concat!("// see is", "sue 7"), concat!("// PR ", "#12"), concat!("// fixed (", "#12)")] {
        fires("src/types/a.rs", body, "number of an issue");
    }
    silent("src/types/a.rs", "// KIP-516, rule 7, RFC 4648 (section 5), an issue of the client");
}

#[test]
fn long_files_and_functions_are_found_unless_they_are_listed() {
    let body = |lines: usize| format!("fn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2));
    silent("src/types/a.rs", &body(FUNCTION_LINES_MAX));
    fires("src/types/a.rs", &body(FUNCTION_LINES_MAX + 1), "function 'long' has 101 lines");
    let text = format!("{HEADER}{}", "const A: [u8; 1] = [0];\n".repeat(FILE_LINES_MAX));
    let source = Source::new("src/types/a.rs", &text);
    assert_eq!(check_sizes(&source, &[]).len(), 1);
    assert_eq!(check_sizes(&source, &["src/types/a.rs"]).len(), 0);
    let text = format!("{HEADER}{}", body(200));
    assert_eq!(check_sizes(&Source::new("src/types/a.rs", &text), &["src/types/a.rs::long"]).len(), 0);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    const A: u8 = 0;\n".repeat(FILE_LINES_MAX));
    silent("src/types/a.rs", &tests);
}

#[test]
fn modules_switch_on_their_lints() {
    fires("src/record/mod.rs", "", "cast_possible_truncation");
    silent("src/record/mod.rs", "#![warn(clippy::cast_possible_truncation)]");
    silent("src/record/batch.rs", "");
    fires("src/controller/mod.rs", "", "disallowed_types");
}

#[test]
fn the_top_level_is_checked_both_ways() {
    let mut entries = TOP_REQUIRED.to_vec();
    entries.extend([".ci", "Cargo.lock", "deny.toml", "LICENSE", "fuzz"]);
    assert!(check_top_level(&entries).is_empty());
    entries.push("notes.md");
    assert_eq!(check_top_level(&entries).len(), 1);
    assert_eq!(check_top_level(&entries[1..]).len(), 2);
}

#[test]
fn configuration_that_nothing_reads_is_found() {
    let keys = Source::new("src/config/keys.rs", "keys! { NODE_ID = { name: \"node.id\" }; }");
    let values = Source::new("src/config/broker.rs", "struct B { pub node_id: i32 } fn f() { number(&keys::NODE_ID) }");
    let reader = Source::new("src/broker/mod.rs", "fn f() { config.node_id }");
    let other = Source::new("src/broker/mod.rs", "fn f() { config.other }");
    assert!(unread_configuration(&[keys, values, reader]).is_empty());
    let keys = Source::new("src/config/keys.rs", "keys! { NODE_ID = { name: \"node.id\" }; }");
    let values = Source::new("src/config/broker.rs", "struct B { pub node_id: i32 }");
    assert_eq!(unread_configuration(&[keys, values, other]).len(), 2);
}

#[test]
fn metrics_that_nothing_counts_are_found() {
    let table = "macro_rules! catalogue { ($a:ty) => {} }\ncatalogue! {\n/// A.\na: Counter = \"a\";\n\
                 /// B.\nb: Family<X, Gauge> = \"b\";\n}\nstruct S { c: u8 }";
    let source = |path, text| Source::new(path, text);
    let uncounted = |text| {
        let catalogue = source("src/metrics/catalogue.rs", table);
        let unit_test = source("src/broker/tests.rs", "fn f() { m.b.at(X::Y).get(); }");
        uncounted_metrics(&[catalogue, source("src/broker/a.rs", text), unit_test])
    };
    assert!(uncounted("fn f() { m.a.add(1); m.b.at(X::Y).set(1); }").is_empty());
    assert_eq!(uncounted("fn f() { m.a.add(1); }"), ["nothing counts the metric 'b'"]);
}

#[test]
fn generated_code_is_left_alone() {
    let text = "fn f() { unsafe { g() } }";
    assert!(check(&Source::new("src/wire/generated/metadata.rs", text)).is_empty());
    assert!(!check(&Source::new("src/storage/metadata.rs", text)).is_empty());
}

#[test]
fn texts_characters_and_lifetimes_are_told_apart() {
    let text =
        r##"let a = 'x'; let b: &'a str = "\"unsafe"; let c = '\''; let d = r#"un"safe"#; let e = b'"'; f::<'b>()"##;
    let names: Vec<&str> = tokens(text).iter().filter(|t| t.class == Class::Name).map(|t| t.text).collect();
    assert_eq!(names, ["let", "a", "let", "b", "a", "str", "let", "c", "let", "d", "let", "e", "b", "f", "b"]);
    assert_eq!(tokens("/* a /* b */ unsafe */ x").len(), 2);
    assert_eq!(tokens("\"a\nb\"\nx").last().map(|token| token.line), Some(3));
}
