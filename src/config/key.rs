//! One configuration key: its names, type, range, default and documentation, and the check of a value against them.
//!
//! A [`Value`] exists only if it passed its key's check, so what reads it later need not check again.
//! It does not know where a value came from; `settings` does. Source of the types: Kafka's `ConfigDef.Type`.

use std::fmt;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain count or id.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Unit {
    /// Milliseconds in one unit of time; 1 for what is no time.
    pub const fn milliseconds(self) -> i64 {
        match self {
            Unit::Minutes => 60_000,
            Unit::Hours => 3_600_000,
            Unit::Count | Unit::Bytes | Unit::Milliseconds => 1,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unit::Count => "",
            Unit::Bytes => " bytes",
            Unit::Milliseconds => " ms",
            Unit::Minutes => " minutes",
            Unit::Hours => " hours",
        })
    }
}

/// The width that Kafka declares for a number; DescribeConfigs reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
}

/// The type and range of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// An integer in `min..=max`.
    Number {
        /// Kafka's declared width.
        width: Width,
        /// The least value allowed. Where it is −1, −1 means "no limit".
        min: i64,
        /// The greatest value allowed.
        max: i64,
        /// What it counts.
        unit: Unit,
    },
    /// An integer in `min..=max`, or the one that stands for a codec's own level.
    Level {
        /// The least level.
        min: i64,
        /// The greatest level.
        max: i64,
        /// The codec's own level, which may lie outside of `min..=max`.
        usual: i64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A comma-separated list of some of these words, each once; it may be empty.
    Words(&'static [&'static str]),
    /// A comma-separated list, which its reader checks.
    List,
}

impl Kind {
    /// A 32-bit number in `min..=max`.
    pub const fn int(min: i64, max: i64, unit: Unit) -> Kind {
        assert!(min <= max && min >= -1 && max <= i32::MAX as i64);
        Kind::Number { width: Width::Int, min, max, unit }
    }

    /// A 64-bit number in `min..=max`.
    pub const fn long(min: i64, max: i64, unit: Unit) -> Kind {
        assert!(min <= max && min >= -1);
        Kind::Number { width: Width::Long, min, max, unit }
    }

    /// Whether values are lists, to which words can be added and from which they can be taken.
    pub const fn is_list(self) -> bool {
        matches!(self, Kind::Words(_) | Kind::List)
    }
}

/// Whether a running broker takes a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only at start.
    ReadOnly,
    /// While running.
    Dynamic,
}

/// A row of the table in [`super::keys`].
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// The broker-level name.
    pub name: &'static str,
    /// The topic-level name of which this is the broker's default; absent for keys of the broker alone.
    pub topic: Option<&'static str>,
    /// Type and range.
    pub kind: Kind,
    /// The default, as a user would write it; absent where a coarser key or the machine decides.
    pub default: Option<&'static str>,
    /// Keys that say the same in a coarser unit, tried in this order when this one is not set.
    pub coarser: &'static [&'static Key],
    /// Whether it changes while the broker runs.
    pub change: Change,
    /// One or two sentences for people.
    pub documentation: &'static str,
}

/// A value that passed its key's check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a [`Kind::Boolean`].
    Boolean(bool),
    /// Of a [`Kind::Number`] or a [`Kind::Level`], in range.
    Number(i64),
    /// Of a [`Kind::Choice`], one of its words.
    Choice(&'static str),
    /// Of a [`Kind::List`] or a [`Kind::Words`]: the entries, trimmed, none of them empty.
    List(Vec<String>),
}

impl fmt::Display for Value {
    /// As a user would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(value) => value.fmt(f),
            Value::Number(value) => value.fmt(f),
            Value::Choice(value) => f.write_str(value),
            Value::List(entries) => f.write_str(&entries.join(",")),
        }
    }
}

/// Why a text is not a value of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Neither `true` nor `false`.
    #[error("is 'true' or 'false'")]
    NotBoolean,
    /// Not an integer of 64 bits.
    #[error("is an integer from {min} to {max}{unit}")]
    NotNumber {
        /// The least value allowed.
        min: i64,
        /// The greatest value allowed.
        max: i64,
        /// What it counts.
        unit: Unit,
    },
    /// An integer outside the range.
    #[error("ranges from {min} to {max}{unit}")]
    OutOfRange {
        /// The least value allowed.
        min: i64,
        /// The greatest value allowed.
        max: i64,
        /// What it counts.
        unit: Unit,
    },
    /// None of the words.
    #[error("is one of: {}", words.join(", "))]
    NotChoice {
        /// The words.
        words: &'static [&'static str],
    },
    /// No level of the codec.
    #[error("ranges from {min} to {max}, or is {usual}")]
    NotLevel {
        /// The least value allowed.
        min: i64,
        /// The greatest value allowed.
        max: i64,
        /// The codec's own level.
        usual: i64,
    },
    /// A list with another entry than the words, or with one of them twice.
    #[error("is a list of these, each once, or of none: {}", words.join(", "))]
    NotWords {
        /// The words.
        words: &'static [&'static str],
    },
    /// A list without entries, or with an empty one.
    #[error("is a comma-separated list of at least one entry, none of them empty")]
    EmptyEntry,
}

impl Key {
    /// Checks `text` against the type and range.
    pub fn parse(&self, text: &str) -> Result<Value, ValueError> {
        let text = text.trim();
        match self.kind {
            Kind::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => Err(ValueError::NotBoolean),
            },
            Kind::Number { min, max, unit, .. } => match text.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(Value::Number(number)),
                Ok(_) => Err(ValueError::OutOfRange { min, max, unit }),
                Err(_) => Err(ValueError::NotNumber { min, max, unit }),
            },
            Kind::Level { min, max, usual } => match text.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) || number == usual => Ok(Value::Number(number)),
                _ => Err(ValueError::NotLevel { min, max, usual }),
            },
            Kind::Choice(words) => match words.iter().find(|word| **word == text) {
                Some(word) => Ok(Value::Choice(word)),
                None => Err(ValueError::NotChoice { words }),
            },
            Kind::Words(_) if text.is_empty() => Ok(Value::List(Vec::new())),
            Kind::Words(words) => {
                let entries = entries(text);
                let repeats = |at: usize| entries[..at].contains(&entries[at]);
                let known = |entry: &String| words.contains(&entry.as_str());
                if !entries.iter().all(known) || (0..entries.len()).any(repeats) {
                    return Err(ValueError::NotWords { words });
                }
                Ok(Value::List(entries))
            }
            Kind::List => {
                let entries = entries(text);
                if entries.iter().any(String::is_empty) {
                    return Err(ValueError::EmptyEntry);
                }
                Ok(Value::List(entries))
            }
        }
    }

    /// The unit of a number; [`Unit::Count`] for anything else.
    pub const fn unit(&self) -> Unit {
        match self.kind {
            Kind::Number { unit, .. } => unit,
            _ => Unit::Count,
        }
    }
}

/// The entries of a comma-separated list, trimmed.
fn entries(text: &str) -> Vec<String> {
    text.split(',').map(|entry| entry.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind) -> Key {
        let documentation = "";
        Key { name: "k", topic: None, kind, default: None, coarser: &[], change: Change::ReadOnly, documentation }
    }

    #[test]
    fn words_are_known_and_come_once_or_not_at_all() {
        let words = key(Kind::Words(&["a", "b"]));
        let list = |entries: &[&str]| Ok(Value::List(entries.iter().map(|entry| (*entry).to_owned()).collect()));
        assert_eq!(words.parse(" "), list(&[]));
        assert_eq!(words.parse("b"), list(&["b"]));
        assert_eq!(words.parse("b , a"), list(&["b", "a"]));
        for wrong in ["c", "a,", ",", "a,a", "a b"] {
            assert_eq!(words.parse(wrong), Err(ValueError::NotWords { words: &["a", "b"] }), "{wrong}");
        }
    }

    #[test]
    fn a_level_is_in_its_range_or_the_usual_one() {
        let level = key(Kind::Level { min: 1, max: 9, usual: -1 });
        for good in [-1, 1, 9] {
            assert_eq!(level.parse(&good.to_string()), Ok(Value::Number(good)));
        }
        for wrong in ["0", "10", "-2", "high", ""] {
            let error = level.parse(wrong).expect_err(wrong);
            assert_eq!(error.to_string(), "ranges from 1 to 9, or is -1");
        }
    }
}
