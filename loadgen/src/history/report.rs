//! What a check found: named anomalies with examples, and how many records it saw of which kind.
//!
//! Reports of partitions add up to one of the topic. Every anomaly is counted, the first few are told in full, so that a
//! check of a broken log does not fill the memory. Whether an anomaly is an error is not decided here: each of them is one.

use std::collections::BTreeMap;
use std::fmt;

use corelane::types::{Offset, PartitionId};

/// Findings that are told in full, per anomaly.
const EXAMPLES_MAX: usize = 10;

/// A way in which a log breaks its promise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Anomaly {
    /// An acknowledged record is not there.
    LostWrite,
    /// A record is there twice.
    Duplicate,
    /// A record comes after a later one of the same writer.
    Reordered,
    /// An acknowledged record has another offset than the one that was answered.
    WrongOffset,
    /// A value is not one that a run wrote.
    Corrupt,
    /// A record of another partition.
    Misplaced,
    /// A record that was definitely refused.
    RefusedVisible,
    /// A record that its run never sent.
    Phantom,
    /// Offsets between two records, or below the high watermark, belong to no record.
    OffsetGap,
    /// An offset that is not above the one before.
    NonmonotonicRead,
    /// An idempotent writer's record is missing below one that is there.
    SequenceGap,
    /// The broker does not hand out what lies below its high watermark.
    Unreadable,
}

impl Anomaly {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Anomaly::LostWrite => "lost-write",
            Anomaly::Duplicate => "duplicate",
            Anomaly::Reordered => "reordered",
            Anomaly::WrongOffset => "wrong-offset",
            Anomaly::Corrupt => "corrupt",
            Anomaly::Misplaced => "misplaced",
            Anomaly::RefusedVisible => "refused-visible",
            Anomaly::Phantom => "phantom",
            Anomaly::OffsetGap => "offset-gap",
            Anomaly::NonmonotonicRead => "nonmonotonic-read",
            Anomaly::SequenceGap => "sequence-gap",
            Anomaly::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An anomaly and where it shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Which one.
    pub anomaly: Anomaly,
    /// The partition.
    pub partition: PartitionId,
    /// Where it shows, or where the record should be.
    pub offset: Offset,
    /// What was expected and found.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: partition {} offset {}: {}", self.anomaly, self.partition, self.offset, self.what)
    }
}

/// Records by kind.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Records that were read.
    pub read: u64,
    /// Acknowledged records at or above the log start, there or not.
    pub acked: u64,
    /// Acknowledged records below the log start: retention took them.
    pub expired: u64,
    /// Records with an unknown result that are there.
    pub unknown_visible: u64,
    /// Records with an unknown result that are not there.
    pub unknown_absent: u64,
    /// Records that were refused.
    pub refused: u64,
    /// Stamped records of runs without a journal here.
    pub foreign: u64,
}

/// What a check found.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Report {
    /// How many records of which kind.
    pub tally: Tally,
    counts: BTreeMap<Anomaly, u64>,
    examples: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// How often an anomaly was found, in records.
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.counts.get(&anomaly).copied().unwrap_or(0)
    }

    /// Every anomaly that was found and how often, in records.
    pub fn counts(&self) -> impl Iterator<Item = (Anomaly, u64)> {
        self.counts.iter().map(|(anomaly, count)| (*anomaly, *count))
    }

    /// The first findings of each anomaly.
    pub fn examples(&self) -> &[Finding] {
        &self.examples
    }

    /// Adds the report of another partition.
    pub fn merge(&mut self, other: Report) {
        let Tally { read, acked, expired, unknown_visible, unknown_absent, refused, foreign } = other.tally;
        self.tally.read += read;
        self.tally.acked += acked;
        self.tally.expired += expired;
        self.tally.unknown_visible += unknown_visible;
        self.tally.unknown_absent += unknown_absent;
        self.tally.refused += refused;
        self.tally.foreign += foreign;
        for (anomaly, count) in other.counts {
            *self.counts.entry(anomaly).or_default() += count;
        }
        for finding in other.examples {
            self.keep(finding);
        }
    }

    /// Adds a finding that stands for `count` records.
    pub(super) fn add(&mut self, finding: Finding, count: u64) {
        *self.counts.entry(finding.anomaly).or_default() += count;
        self.keep(finding);
    }

    fn keep(&mut self, finding: Finding) {
        let kept = self.examples.iter().filter(|example| example.anomaly == finding.anomaly).count();
        if kept < EXAMPLES_MAX {
            self.examples.push(finding);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { read, acked, expired, unknown_visible, unknown_absent, refused, foreign } = self.tally;
        write!(f, "read={read} acked={acked} expired={expired} unacked-visible={unknown_visible}")?;
        write!(f, " unacked-absent={unknown_absent} refused={refused} foreign={foreign}")?;
        for (anomaly, count) in &self.counts {
            write!(f, " {anomaly}={count}")?;
        }
        self.examples.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}
