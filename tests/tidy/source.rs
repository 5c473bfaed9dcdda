//! A source file as the rules see it: its path, its text and its tokens, comments and texts set apart from code.
//!
//! Any bytes are cut into tokens, whether they compile or not. It reads text, not types: a name that a macro builds is not
//! seen. It knows no rule.

use std::fmt;

/// A place that breaks a rule.
pub(crate) struct Violation {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// What a piece of source is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Name,
    Sign,
    Text,
    Comment,
}

/// A piece of source with the line on which it begins, from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) class: Class,
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// A file that is read: its path from the root of the repository, its text, and, for Rust, its tokens.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    pub(crate) tokens: Vec<Token<'a>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(path: &'a str, text: &'a str) -> Source<'a> {
        let tokens = if path.ends_with(".rs") { tokens(text) } else { Vec::new() };
        Source { path, text, tokens }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_generated(&self) -> bool {
        self.path.contains("/generated/")
    }

    /// The path of the module in its crate: `src/a/b.rs` and `src/a/b/mod.rs` are `[a, b]`, `src/lib.rs` is `[]`.
    pub(crate) fn module_path(&self) -> Option<Vec<&'a str>> {
        let inside = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let mut path: Vec<&str> = inside.split('/').collect();
        if matches!(path.last(), Some(&"mod")) || matches!(path.as_slice(), ["lib" | "main"]) {
            path.pop();
        }
        Some(path)
    }

    /// The module of the layer table that this file belongs to.
    pub(crate) fn layer_module(&self) -> Option<&'a str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    pub(crate) fn in_module(&self, name: &str) -> bool {
        self.layer_module() == Some(name)
    }

    /// Names and signs only.
    pub(crate) fn code(&self) -> Vec<Token<'a>> {
        self.tokens.iter().copied().filter(|token| matches!(token.class, Class::Name | Class::Sign)).collect()
    }

    pub(crate) fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation { path: self.path.to_owned(), line, what: what.into() }
    }
}

/// Cuts Rust source into tokens. Texts and comments are one token each; every sign is its own, but `::` is one.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
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

pub(crate) fn token_at(rest: &str, first: char) -> (Class, usize) {
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

pub(crate) fn block_comment(rest: &str) -> usize {
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
pub(crate) fn quoted(rest: &str) -> Option<usize> {
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

pub(crate) fn character_or_lifetime(rest: &str) -> (Class, usize) {
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
pub(crate) fn names_below<'a>(code: &[Token<'a>], after: usize) -> Vec<Token<'a>> {
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
pub(crate) fn modules_named<'a>(source: &Source<'a>) -> Vec<Token<'a>> {
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
