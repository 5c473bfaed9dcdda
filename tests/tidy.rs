//! Style and structure as tests: the layers of the modules, the doors to the machine, headers, sizes, leftovers.
//!
//! A source file is cut into tokens (comments and texts set apart), and every rule is a function from one file to its
//! violations, so that the self-tests below can feed each rule a bad snippet and see it fire. It reads text, not types: a
//! name that a macro builds is not seen. The compiler's and clippy's own lints are set in `Cargo.toml` and `clippy.toml`.

use std::fmt;
use std::path::Path;
use std::process::Command;

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

/// Keys that become no value: their range is a single word, so there is nothing to decide by.
const SINGLE_VALUED: &[&str] = &["LOG_CLEANUP_POLICY"];

/// A place that breaks a rule.
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// What a piece of source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Name,
    Sign,
    Text,
    Comment,
}

/// A piece of source with the line on which it begins, from 1.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    class: Class,
    text: &'a str,
    line: usize,
}

/// A file that is read: its path from the root of the repository, its text, and, for Rust, its tokens.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
    tokens: Vec<Token<'a>>,
}

impl<'a> Source<'a> {
    fn new(path: &'a str, text: &'a str) -> Source<'a> {
        let tokens = if path.ends_with(".rs") { tokens(text) } else { Vec::new() };
        Source { path, text, tokens }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_generated(&self) -> bool {
        self.path.contains("/generated/")
    }

    /// The path of the module in its crate: `src/a/b.rs` and `src/a/b/mod.rs` are `[a, b]`, `src/lib.rs` is `[]`.
    fn module_path(&self) -> Option<Vec<&'a str>> {
        let inside = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let mut path: Vec<&str> = inside.split('/').collect();
        if matches!(path.last(), Some(&"mod")) || matches!(path.as_slice(), ["lib" | "main"]) {
            path.pop();
        }
        Some(path)
    }

    /// The module of the layer table that this file belongs to.
    fn layer_module(&self) -> Option<&'a str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    fn in_module(&self, name: &str) -> bool {
        self.layer_module() == Some(name)
    }

    /// Names and signs only.
    fn code(&self) -> Vec<Token<'a>> {
        self.tokens.iter().copied().filter(|token| matches!(token.class, Class::Name | Class::Sign)).collect()
    }

    fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation { path: self.path.to_owned(), line, what: what.into() }
    }
}

/// Cuts Rust source into tokens. Texts and comments are one token each; every sign is its own, but `::` is one.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let first = rest.chars().next().expect("at is a boundary inside the text");
        if first.is_whitespace() {
            line += usize::from(first == '\n');
            at += first.len_utf8();
            continue;
        }
        let (class, length) = token_at(rest, first);
        let token = &rest[..length];
        found.push(Token { class, text: token, line });
        line += token.matches('\n').count();
        at += length;
    }
    found
}

fn token_at(rest: &str, first: char) -> (Class, usize) {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    if rest.starts_with("//") {
        return (Class::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Class::Comment, block_comment(rest));
    }
    if let Some(length) = quoted(rest) {
        return (Class::Text, length);
    }
    if first == '\'' {
        return character_or_lifetime(rest);
    }
    if name(first) {
        return (Class::Name, rest.find(|c| !name(c)).unwrap_or(rest.len()));
    }
    (Class::Sign, if rest.starts_with("::") { 2 } else { first.len_utf8() })
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a text (plain, byte, C or raw) that begins here.
fn quoted(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r')).filter(|length| *length <= 2)?;
    let body = &rest[prefix..];
    if rest[..prefix].contains('r') {
        let hashes = body.find(|c| c != '#')?;
        let inner = body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(prefix + hashes + 1 + inner.find(&end).map_or(inner.len(), |found| found + end.len()));
    }
    let inner = body.strip_prefix('"')?;
    let mut escaped = false;
    for (index, byte) in inner.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(prefix + 1 + index + 1),
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    Some(rest.len())
}

fn character_or_lifetime(rest: &str) -> (Class, usize) {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            (Class::Text, rest[from..].find('\'').map_or(rest.len(), |found| from + found + 1))
        }
        (Some(_), Some((at, '\''))) => (Class::Text, at + 1),
        _ => (Class::Sign, 1),
    }
}

/// The first names below a path: `{a, b::c}` gives a and b, `a::b` gives a, `*` gives `*`. `after` is the index after `::`.
fn names_below<'a>(code: &[Token<'a>], after: usize) -> Vec<Token<'a>> {
    let Some(first) = code.get(after) else { return Vec::new() };
    if first.text != "{" {
        return vec![*first];
    }
    let (mut names, mut depth, mut expected) = (Vec::new(), 0usize, false);
    for token in &code[after..] {
        match token.text {
            "{" => (depth, expected) = (depth + 1, depth == 0),
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," => expected = depth == 1,
            _ if expected => {
                names.push(*token);
                expected = false;
            }
            _ => {}
        }
    }
    names
}

/// The top-level modules of the crate that a file names, by `crate::x`, or by `super::` up to the root.
fn modules_named<'a>(source: &Source<'a>) -> Vec<Token<'a>> {
    let Some(path) = source.module_path() else { return Vec::new() };
    let code = source.code();
    let mut named = Vec::new();
    // Braces that are open, and for each whether it is the body of an inline module.
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let followed = code.get(at + 1).is_some_and(|next| next.text == "::");
        match code[at].text {
            "{" => braces.push(at >= 2 && code[at - 2].text == "mod"),
            "}" => drop(braces.pop()),
            "crate" | "corelane" if followed => named.extend(names_below(&code, at + 2)),
            "super" if followed => {
                let mut depth = path.len() + braces.iter().filter(|module| **module).count();
                while code[at].text == "super" && code.get(at + 1).is_some_and(|next| next.text == "::") {
                    depth = depth.saturating_sub(1);
                    at += 2;
                }
                if depth == 0 {
                    named.extend(names_below(&code, at));
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    named
}

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
    let rules =
        [check_layers, check_pure, check_doors, check_unsafe, check_header, check_leftovers, check_lines, check_lints];
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
                if uses < 2 && !SINGLE_VALUED.contains(&first) {
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

#[test]
fn every_value_of_the_configuration_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<String> = repository_files().into_iter().filter(|path| path.starts_with("src/")).collect();
    let texts: Vec<String> = files.iter().map(|path| std::fs::read_to_string(root.join(path)).expect(path)).collect();
    let sources: Vec<Source> = files.iter().zip(&texts).map(|(path, text)| Source::new(path, text)).collect();
    let unread = unread_configuration(&sources);
    assert!(unread.is_empty(), "{}", unread.join("\n"));
}

#[cfg(test)]
mod tests {
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
        let values =
            Source::new("src/config/broker.rs", "struct B { pub node_id: i32 } fn f() { number(&keys::NODE_ID) }");
        let reader = Source::new("src/broker/mod.rs", "fn f() { config.node_id }");
        let other = Source::new("src/broker/mod.rs", "fn f() { config.other }");
        assert!(unread_configuration(&[keys, values, reader]).is_empty());
        let keys = Source::new("src/config/keys.rs", "keys! { NODE_ID = { name: \"node.id\" }; }");
        let values = Source::new("src/config/broker.rs", "struct B { pub node_id: i32 }");
        assert_eq!(unread_configuration(&[keys, values, other]).len(), 2);
    }

    #[test]
    fn generated_code_is_left_alone() {
        let text = "fn f() { unsafe { g() } }";
        assert!(check(&Source::new("src/wire/generated/metadata.rs", text)).is_empty());
        assert!(!check(&Source::new("src/storage/metadata.rs", text)).is_empty());
    }

    #[test]
    fn texts_characters_and_lifetimes_are_told_apart() {
        let text = r##"let a = 'x'; let b: &'a str = "\"unsafe"; let c = '\''; let d = r#"un"safe"#; let e = b'"'; f::<'b>()"##;
        let names: Vec<&str> = tokens(text).iter().filter(|t| t.class == Class::Name).map(|t| t.text).collect();
        assert_eq!(names, ["let", "a", "let", "b", "a", "str", "let", "c", "let", "d", "let", "e", "b", "f", "b"]);
        assert_eq!(tokens("/* a /* b */ unsafe */ x").len(), 2);
        assert_eq!(tokens("\"a\nb\"\nx").last().map(|token| token.line), Some(3));
    }
}
