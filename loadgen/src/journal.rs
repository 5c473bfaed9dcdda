//! The journal of a run: what became of every batch that it sent, so that a later check can tell lost from never acked.
//!
//! Text, one line a batch, some 25 bytes: readable without a tool, about as short as a binary form, a line never larger than
//! what it tells of. An entry covers `count` records from `sequence` on, of one writer in one partition:
//! ```text
//! loadgen-journal 1 run=00c0ffee00c0ffee topic=events partitions=8 writers=2 idempotent=true
//! a <writer> <partition> <sequence> <count> <base offset>      acknowledged
//! d <writer> <partition> <sequence> <count>                    acknowledged as a duplicate, whose offset is not known
//! f <writer> <partition> <sequence> <count> <error code>       definitely refused
//! u <writer> <partition> <sequence> <count>                    unknown: no answer, or one that does not tell
//! end
//! ```
//! Entries of one writer and partition are in the order of their sequences and do not overlap. Without its `end` the journal
//! is one of a run that died: what comes after its last line is unknown. Nothing is read or written here: see [`file`].

pub mod file;

use std::fmt;
use std::str::FromStr;

use corelane::types::{Offset, PartitionId};

use crate::stamp::{RunId, WriterId};

const TITLE: &str = "loadgen-journal";
const VERSION: &str = "1";
const END: &str = "end";

/// The first line of a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalHeader {
    /// The run.
    pub run: RunId,
    /// The topic that it wrote to.
    pub topic: String,
    /// Its partitions, 0 to this.
    pub partitions: u32,
    /// The run's writers, 0 to this.
    pub writers: u32,
    /// Whether the writers were idempotent and sent again what was not answered.
    pub idempotent: bool,
}

impl fmt::Display for JournalHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JournalHeader { run, topic, partitions, writers, idempotent } = self;
        write!(f, "{TITLE} {VERSION} run={run} topic={topic} partitions={partitions}")?;
        write!(f, " writers={writers} idempotent={idempotent}")
    }
}

/// What is known of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Acknowledged: its first record has this offset. `None` if the broker only said that it has the batch already.
    Acked(Option<Offset>),
    /// Refused with this Kafka error code, one that says that nothing was appended.
    Refused(i16),
    /// It may be in the log or not.
    Unknown,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Who sent it.
    pub writer: WriterId,
    /// Where to.
    pub partition: PartitionId,
    /// The sequence of its first record.
    pub sequence: u64,
    /// Its records.
    pub count: u32,
    /// What is known.
    pub outcome: Outcome,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { writer, partition, sequence, count, outcome } = self;
        let kind = match outcome {
            Outcome::Acked(Some(_)) => 'a',
            Outcome::Acked(None) => 'd',
            Outcome::Refused(_) => 'f',
            Outcome::Unknown => 'u',
        };
        write!(f, "{kind} {writer} {partition} {sequence} {count}")?;
        match outcome {
            Outcome::Acked(Some(offset)) => write!(f, " {offset}"),
            Outcome::Refused(code) => write!(f, " {code}"),
            _ => Ok(()),
        }
    }
}

/// A line of a journal after the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// A batch.
    Entry(Entry),
    /// The run ended in order; everything that it sent is told above.
    End,
}

/// A line that no journal has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a line of a journal: {line:?}")]
pub struct LineError {
    /// The line.
    pub line: String,
}

impl LineError {
    fn new(line: &str) -> LineError {
        LineError { line: line.to_owned() }
    }
}

impl FromStr for JournalHeader {
    type Err = LineError;

    fn from_str(line: &str) -> Result<JournalHeader, LineError> {
        parse_header(line).ok_or_else(|| LineError::new(line))
    }
}

fn parse_header(line: &str) -> Option<JournalHeader> {
    let mut words = line.split(' ');
    if (words.next(), words.next()) != (Some(TITLE), Some(VERSION)) {
        return None;
    }
    let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
    let header = JournalHeader {
        run: value("run")?.parse().ok()?,
        topic: value("topic")?.to_owned(),
        partitions: value("partitions")?.parse().ok()?,
        writers: value("writers")?.parse().ok()?,
        idempotent: value("idempotent")?.parse().ok()?,
    };
    words.next().is_none().then_some(header)
}

impl FromStr for Line {
    type Err = LineError;

    fn from_str(line: &str) -> Result<Line, LineError> {
        if line == END {
            return Ok(Line::End);
        }
        parse_entry(line).map(Line::Entry).ok_or_else(|| LineError::new(line))
    }
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let writer = WriterId(words.next()?.parse().ok()?);
    let partition = PartitionId::new(words.next()?.parse().ok()?)?;
    let sequence: u64 = words.next()?.parse().ok()?;
    let count: u32 = words.next()?.parse().ok()?;
    sequence.checked_add(u64::from(count))?;
    let outcome = match kind {
        "a" => Outcome::Acked(Some(Offset::new(words.next()?.parse().ok()?)?)),
        "d" => Outcome::Acked(None),
        "f" => Outcome::Refused(words.next()?.parse().ok()?),
        "u" => Outcome::Unknown,
        _ => return None,
    };
    let whole = count > 0 && words.next().is_none();
    whole.then_some(Entry { writer, partition, sequence, count, outcome })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> JournalHeader {
        JournalHeader { run: RunId(0xc0ffee), topic: "t".to_owned(), partitions: 8, writers: 2, idempotent: true }
    }

    fn entry(outcome: Outcome) -> Entry {
        let partition = PartitionId::new(5).expect("not negative");
        Entry { writer: WriterId(1), partition, sequence: 100, count: 16, outcome }
    }

    #[test]
    fn the_form_is_fixed_and_reads_back() {
        let line = "loadgen-journal 1 run=0000000000c0ffee topic=t partitions=8 writers=2 idempotent=true";
        assert_eq!(header().to_string(), line);
        assert_eq!(line.parse(), Ok(header()));
        for (outcome, line) in [
            (Outcome::Acked(Offset::new(7)), "a 1 5 100 16 7"),
            (Outcome::Acked(None), "d 1 5 100 16"),
            (Outcome::Refused(-1), "f 1 5 100 16 -1"),
            (Outcome::Unknown, "u 1 5 100 16"),
        ] {
            assert_eq!(entry(outcome).to_string(), line);
            assert_eq!(line.parse(), Ok(Line::Entry(entry(outcome))));
        }
        assert_eq!("end".parse(), Ok(Line::End));
    }

    #[test]
    fn cut_and_lengthened_lines_are_refused() {
        let text = header().to_string();
        for word in 0..text.split(' ').count() {
            let cut: Vec<&str> = text.split(' ').take(word).collect();
            assert!(cut.join(" ").parse::<JournalHeader>().is_err());
        }
        for line in ["", "a", "a 1 5 100 16", "a 1 5 100 16 -7", "a 1 5 100 16 7 8", "d 1 5 100", "x 1 5 100 16"] {
            assert_eq!(line.parse::<Line>(), Err(LineError::new(line)));
        }
        for line in ["u 1 -5 100 16", "u 1 5 100 0", "u 1 5 18446744073709551615 1", "ends"] {
            assert!(line.parse::<Line>().is_err(), "{line}");
        }
    }
}
