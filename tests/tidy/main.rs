//! Style and structure as tests: the layers of the modules, the doors to the machine, headers, sizes, leftovers.
//!
//! Every rule is a function from one file, cut into tokens, to its violations, so that the self-tests can feed each rule a bad
//! snippet and see it fire. The compiler's and clippy's own lints are set in `Cargo.toml` and `clippy.toml`.

#[cfg(test)]
mod self_tests;
mod source;

use std::path::Path;
use std::process::Command;

use source::{Class, Source, Token, Violation, modules_named, names_below};

/// The modules of `src/` and their layers: a module names only modules of lower layers.
const LAYERS: &[(&str, u8)] = &[
    ("types", 0),
    ("config", 1),
    ("metrics", 1),
    ("record", 1),
    ("wire", 1),
    ("runtime", 2),
    ("storage", 3),
    ("replication", 3),
    ("controller", 3),
    ("coordinator", 3),
    ("security", 3),
    ("partition", 4),
    ("quorum", 4),
    ("broker", 5),
    ("admin", 6),
    ("cli", 7),
    ("main", 7),
    ("lib", 7),
];

/// Modules without I/O, async, clock and randomness; of the layers below they name only 0 and 1.
const PURE: &[&str] = &["replication", "controller", "coordinator"];

/// Modules that must switch on a clippy lint for themselves, and the lint.
const LINTS: &[(&str, &str)] = &[
    ("storage", "cast_possible_truncation"),
    ("record", "cast_possible_truncation"),
    ("replication", "cast_possible_truncation"),
    ("replication", "disallowed_types"),
    ("controller", "disallowed_types"),
    ("coordinator", "disallowed_types"),
];

const TOP_REQUIRED: &[&str] = &["Cargo.toml", "src", "schema", "bench", "loadgen", "tests", "scripts", "README.md"];
const TOP_ALLOWED: &[&str] = &["Cargo.lock", "LICENSE", "fuzz"];

/// rustfmt keeps code within 120; a comment may run over a little before it must be wrapped.
const LINE_CHARACTERS_MAX: usize = 130;
const HEADER_LINES_MIN: usize = 3;
/// Beyond these a file or a function is more than one subject; below them it is judgement.
const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 100;
/// Files (`path`) and functions (`path::name`) that may be longer, each with its reason beside it.
const LONG_ALLOWED: &[&str] = &[];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn check_layers(source: &Source) -> Vec<Violation> {
    let Some(own) = source.layer_module().filter(|_| source.is_rust()) else { return Vec::new() };
    let Some(own_layer) = layer(own) else {
        return vec![source.violation(1, format!("module '{own}' is not in the table of layers"))];
    };
    let mut violations = Vec::new();
    for token in modules_named(source) {
        let other = token.text;
        let allowed = match layer(other) {
            _ if other == own || matches!(own, "lib" | "main") => true,
            Some(other_layer) if PURE.contains(&own) => other_layer <= 1,
            Some(other_layer) => other_layer < own_layer,
            None => false,
        };
        if !allowed {
            violations.push(source.violation(token.line, format!("'{own}' (layer {own_layer}) names '{other}'")));
        }
    }
    violations
}

fn check_pure(source: &Source) -> Vec<Violation> {
    if !PURE.iter().any(|module| source.in_module(module)) {
        return Vec::new();
    }
    let impure = |token: &Token| matches!(token.text, "async" | "await" | "Mutex" | "RwLock");
    let found = source.code().into_iter().filter(impure);
    found.map(|token| source.violation(token.line, format!("a pure module has '{}'", token.text))).collect()
}

/// Only `runtime` opens the doors to the machine. The tools beside the broker are programs of their own, but take
/// executors and rings from `runtime` too.
fn check_doors(source: &Source) -> Vec<Violation> {
    if source.in_module("runtime") || source.path.starts_with("bench/") {
        return Vec::new();
    }
    let in_broker = source.path.starts_with("src/");
    let code = source.code();
    let mut violations = Vec::new();
    for (at, token) in code.iter().enumerate() {
        let path_follows = code.get(at + 1).is_some_and(|next| next.text == "::");
        let found: Vec<Token> = match token.text {
            "glommio" | "io_uring" => vec![*token],
            "getrandom" | "fastrand" | "thread_rng" | "RandomState" if in_broker => vec![*token],
            "rand" if in_broker && path_follows => vec![*token],
            "std" if in_broker && path_follows => names_below(&code, at + 2)
                .into_iter()
                .filter(|name| matches!(name.text, "net" | "fs" | "thread" | "time"))
                .collect(),
            _ => Vec::new(),
        };
        let message = |door: Token| format!("'{}' is named outside runtime", door.text);
        violations.extend(found.into_iter().map(|door| source.violation(door.line, message(door))));
    }
    violations
}

/// The HTTP library and its event loop stay in `admin`: a shard has an executor of its own.
fn check_event_loop(source: &Source) -> Vec<Violation> {
    if source.in_module("admin") || !source.is_rust() {
        return Vec::new();
    }
    let foreign = |token: &Token| matches!(token.text, "tokio" | "hyper" | "hyper_util" | "http_body_util" | "axum");
    let found = source.code().into_iter().filter(foreign);
    found.map(|token| source.violation(token.line, format!("'{}' is named outside admin", token.text))).collect()
}

fn check_unsafe(source: &Source) -> Vec<Violation> {
    if source.in_module("runtime") || source.path.starts_with("src/wire/generated/") {
        return Vec::new();
    }
    let found = source.code().into_iter().filter(|token| matches!(token.text, "unsafe" | "unsafe_code"));
    found.map(|token| source.violation(token.line, format!("'{}' outside runtime", token.text))).collect()
}

fn check_header(source: &Source) -> Vec<Violation> {
    let marker = if source.is_rust() { "//!" } else { "#" };
    let body = source.text.lines().skip_while(|line| line.starts_with("#!/"));
    let header: Vec<&str> = body.take_while(|line| line.starts_with(marker)).collect();
    let written = header.iter().filter(|line| line.len() > marker.len()).count();
    // The tests of one module say what they need to beside the module.
    let (lines_min, written_min) = if source.path.ends_with("/tests.rs") { (1, 1) } else { (HEADER_LINES_MIN, 2) };
    if header.len() >= lines_min && written >= written_min {
        return Vec::new();
    }
    let what = format!("a header of {} lines; at least {lines_min} say what it is and what it is not", header.len());
    vec![source.violation(1, what)]
}

/// Whether `word` stands in `text` with no letter, digit or underscore beside it.
fn has_word(text: &str, word: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word)
        .any(|(at, _)| !joins(text[..at].chars().next_back()) && !joins(text[at + word.len()..].chars().next()))
}

fn check_leftovers(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    let code = source.code();
    for pair in code.windows(2) {
        if matches!(pair[0].text, "todo" | "unimplemented" | "dbg") && pair[1].text == "!" {
            violations.push(source.violation(pair[0].line, format!("'{}!' is left over", pair[0].text)));
        }
    }
    for (index, line) in source.text.lines().enumerate() {
        for word in [concat!("FIX", "ME"), concat!("X", "XX"), concat!("TO", "DO")] {
            if has_word(line, word) {
                violations.push(source.violation(index + 1, format!("'{word}' is left over")));
            }
        }
    }
    violations
}

fn check_lines(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let characters = line.chars().count();
        if characters > LINE_CHARACTERS_MAX {
            violations.push(source.violation(index + 1, format!("{characters} characters in a line")));
        }
        for place in [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")] {
            let begins =
                |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '}' | '_'));
            if line.match_indices(place).any(|(at, _)| begins(at)) {
                violations.push(source.violation(index + 1, format!("'{place}' is a path of one machine")));
            }
        }
        if numbers_an_issue(line) {
            violations.push(source.violation(index + 1, "the number of an issue: say why, not where it was discussed"));
        }
    }
    violations
}

/// A word for an issue with a number behind it, or a number in parentheses after `#`.
fn numbers_an_issue(line: &str) -> bool {
    let lower = line.to_lowercase();
    let words: Vec<&str> =
        lower.split([' ', '\t', '(', ')', ',', '.', ':', ';']).filter(|word| !word.is_empty()).collect();
    let number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let named = words.windows(2).any(|pair| {
        matches!(pair[0], "issue" | "pr" | "ticket") && number(pair[1].strip_prefix('#').unwrap_or(pair[1]))
    });
    named || lower.match_indices("(#").any(|(at, _)| lower[at + 2..].split(')').next().is_some_and(number))
}

/// Lines of code before the file's tests begin.
fn lines_before_tests(source: &Source) -> usize {
    let lines: Vec<&str> = source.text.lines().collect();
    let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests"));
    tests.unwrap_or(lines.len())
}

fn check_sizes(source: &Source, allowed: &[&str]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let lines = lines_before_tests(source);
    if lines > FILE_LINES_MAX && !allowed.contains(&source.path) {
        violations.push(source.violation(1, format!("{lines} lines before the tests, {FILE_LINES_MAX} at most")));
    }
    let code = source.code();
    for (at, token) in code.iter().enumerate() {
        let Some(name) = code.get(at + 1).filter(|next| token.text == "fn" && next.class == Class::Name) else {
            continue;
        };
        let length = function_lines(&code[at..]);
        let listed = allowed.contains(&format!("{}::{}", source.path, name.text).as_str());
        if length > FUNCTION_LINES_MAX && !listed {
            let what = format!("function '{}' has {length} lines, {FUNCTION_LINES_MAX} at most", name.text);
            violations.push(source.violation(token.line, what));
        }
    }
    violations
}

/// Lines from `fn` to the end of its body; 1 for a declaration without one.
fn function_lines(code: &[Token]) -> usize {
    let (mut depth, mut brackets) = (0usize, 0usize);
    for token in code {
        match token.text {
            "(" | "[" => brackets += 1,
            ")" | "]" => brackets = brackets.saturating_sub(1),
            ";" if depth == 0 && brackets == 0 => return 1,
            "{" => depth += 1,
            "}" if depth == 1 => return token.line - code[0].line + 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    1
}

fn check_lints(source: &Source) -> Vec<Violation> {
    let missing = |(module, lint): &&(&str, &str)| {
        let root = [format!("src/{module}.rs"), format!("src/{module}/mod.rs")];
        root.iter().any(|path| path == source.path) && !source.code().iter().any(|token| token.text == *lint)
    };
    let message = |(_, lint): &(&str, &str)| source.violation(1, format!("does not have #![warn(clippy::{lint})]"));
    LINTS.iter().filter(missing).map(message).collect()
}

fn check_top_level(entries: &[&str]) -> Vec<String> {
    let permitted = |name: &str| {
        let listed = TOP_REQUIRED.contains(&name) || TOP_ALLOWED.contains(&name);
        listed || name.starts_with('.') || name.ends_with(".toml")
    };
    let extra =
        entries.iter().filter(|name| !permitted(name)).map(|name| format!("'{name}' does not belong at the top"));
    let missing = TOP_REQUIRED.iter().filter(|name| !entries.contains(name)).map(|name| format!("'{name}' is missing"));
    extra.chain(missing).collect()
}

fn check(source: &Source) -> Vec<Violation> {
    if source.is_generated() {
        return Vec::new();
    }
    let rules = [
        check_layers,
        check_pure,
        check_doors,
        check_event_loop,
        check_unsafe,
        check_header,
        check_leftovers,
        check_lines,
        check_lints,
    ];
    let mut violations: Vec<Violation> = rules.iter().flat_map(|rule| rule(source)).collect();
    violations.extend(check_sizes(source, LONG_ALLOWED));
    violations
}

/// Every file of the repository that is not ignored, from its root.
fn repository_files() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(arguments).current_dir(root).output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    names.split('\0').filter(|name| !name.is_empty() && root.join(name).exists()).map(str::to_owned).collect()
}

/// Rust anywhere; shell and Python by their first line.
fn is_source(path: &str, text: &str) -> bool {
    path.ends_with(".rs") || path.ends_with(".py") || text.starts_with("#!/")
}

#[test]
fn the_sources_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut violations, mut read) = (Vec::new(), 0);
    for path in repository_files() {
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        if is_source(&path, &text) {
            read += 1;
            violations.extend(check(&Source::new(&path, &text)).iter().map(Violation::to_string));
        }
    }
    assert!(read > 10, "only {read} source files were found");
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn the_top_level_is_the_designs() {
    let files = repository_files();
    let mut entries: Vec<&str> = files.iter().filter_map(|path| path.split('/').next()).collect();
    entries.sort_unstable();
    entries.dedup();
    let violations = check_top_level(&entries);
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// Keys of the configuration's table, and values made of them, that nothing reads: whatever is parsed must work.
fn unread_configuration(sources: &[Source]) -> Vec<String> {
    let in_table = |source: &&Source| source.in_module("config");
    let (own, others): (Vec<&Source>, Vec<&Source>) = sources.iter().partition(in_table);
    let mut unread = Vec::new();
    for source in &own {
        let code = source.code();
        for at in 0..code.len().saturating_sub(2) {
            let [first, second, third] = [at, at + 1, at + 2].map(|index| code[index].text);
            if source.path.ends_with("/keys.rs") && (second, third) == ("=", "{") {
                let uses = own.iter().flat_map(|source| source.code()).filter(|token| token.text == first).count();
                if uses < 2 {
                    unread.push(format!("the key {first} becomes no value"));
                }
            }
            let holds_values = source.path.ends_with("/broker.rs") || source.path.ends_with("/topic.rs");
            if holds_values && first == "pub" && third == ":" && !others.iter().any(|source| reads(source, second)) {
                unread.push(format!("nothing reads the value '{second}' of {}", source.path));
            }
        }
    }
    unread
}

/// Whether a field of this name is read, as `.name`.
fn reads(source: &Source, field: &str) -> bool {
    source.code().windows(2).any(|pair| pair[0].text == "." && pair[1].text == field)
}

/// Metrics of the catalogue that nothing outside it and outside tests touches: they would be served and say nothing.
fn uncounted_metrics(sources: &[Source]) -> Vec<String> {
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    let counts = |source: &&Source| !source.in_module("metrics") && !is_test(source.path);
    let users: Vec<&Source> = sources.iter().filter(counts).collect();
    let catalogue = sources.iter().find(|source| source.path == "src/metrics/catalogue.rs").expect("the catalogue");
    let code = catalogue.code();
    let begins = |at: usize| code[at].text == "catalogue" && code[at + 1].text == "!" && code[at + 2].text == "{";
    let table = (0..code.len() - 2).find(|&at| begins(at)).expect("the table") + 3;
    let rows = &code[table..];
    let length = rows.iter().position(|token| token.text == "}").expect("its end");
    let fields = (0..length).filter(|&at| (at == 0 || rows[at - 1].text == ";") && rows[at + 1].text == ":");
    let uncounted = fields.filter(|&at| !users.iter().any(|source| reads(source, rows[at].text)));
    uncounted.map(|at| format!("nothing counts the metric '{}'", rows[at].text)).collect()
}

/// Runs a rule that looks at all of `src/` together.
fn over_sources(rule: impl Fn(&[Source]) -> Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<String> = repository_files().into_iter().filter(|path| path.starts_with("src/")).collect();
    let texts: Vec<String> = files.iter().map(|path| std::fs::read_to_string(root.join(path)).expect(path)).collect();
    let sources: Vec<Source> = files.iter().zip(&texts).map(|(path, text)| Source::new(path, text)).collect();
    let found = rule(&sources);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_value_of_the_configuration_is_read() {
    over_sources(unread_configuration);
}

#[test]
fn every_metric_is_counted() {
    over_sources(uncounted_metrics);
}
