//! The history checker: journals of what was acknowledged against the records that are in the log.
//!
//! A [`History`] is built from journals; then every partition is read once from its log start to its high watermark, by any
//! client, and each record handed to a [`PartitionCheck`]. What it proves: every acknowledged record is there exactly once, at
//! its offset, in the order of its writer; offsets are dense; nothing is there that was refused or never sent; every value is
//! what was written. A record with an unknown result may be there or not, but not twice; in its place it has to be only with
//! an idempotent writer, whose records have no holes either: another one goes on over a new connection, while a broker may
//! still be at work on what came through the old one. The anomalies carry the names that Jepsen gave to such things.
//!
//! Memory: 40 bytes a batch in the journals, and one bit a record of the partition under check; values are not kept. It does
//! no I/O. Not checked: order in real time between writers.

use std::collections::HashMap;

use corelane::types::{Offset, PartitionId};

use crate::journal::{Entry, JournalHeader, Line, Outcome};
use crate::stamp::{RunId, Stamp, WriterId};

mod report;

pub use report::{Anomaly, Finding, Report, Tally};

/// Records that a journal without an end may lack at its end, per writer and partition: far more than it keeps in memory.
const UNTOLD_RECORDS_MAX: u64 = 1 << 24;

/// A journal that contradicts itself or another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Two journals of one run.
    #[error("run {0} has two journals")]
    Twice(RunId),
    /// An entry of a writer or partition that the header does not have.
    #[error("run {run} has no such writer or partition: {entry:?}")]
    Stranger {
        /// The run.
        run: RunId,
        /// The entry.
        entry: Entry,
    },
    /// An entry that does not come after the ones before it.
    #[error("run {run}: the entry does not follow sequence {last}: {entry:?}")]
    Order {
        /// The run.
        run: RunId,
        /// The last sequence told before.
        last: u64,
        /// The entry.
        entry: Entry,
    },
    /// A line after the end.
    #[error("run {0}: its journal goes on after its end")]
    AfterEnd(RunId),
}

#[derive(Clone, Copy)]
struct Batch {
    sequence: u64,
    count: u32,
    outcome: Outcome,
}

impl Batch {
    fn end(&self) -> u64 {
        self.sequence + u64::from(self.count)
    }
}

/// What one writer sent to one partition, in order.
type Sent = Vec<Batch>;

struct Run {
    header: JournalHeader,
    /// Whether the journal tells everything.
    ended: bool,
    /// By writer, then partition.
    sent: Vec<Sent>,
}

impl Run {
    fn index(&self, writer: WriterId, partition: PartitionId) -> Option<usize> {
        let (JournalHeader { partitions, writers, .. }, number) = (&self.header, partition.value().unsigned_abs());
        let known = writer.0 < *writers && number < *partitions;
        known.then_some(writer.0 as usize * *partitions as usize + number as usize)
    }
}

/// Everything that a set of runs on one topic knows.
#[derive(Default)]
pub struct History {
    runs: Vec<Run>,
    by_id: HashMap<RunId, usize>,
}

impl History {
    /// A history without runs.
    pub fn new() -> History {
        History::default()
    }

    /// Adds a run; its lines follow by [`History::add`].
    pub fn begin(&mut self, header: &JournalHeader) -> Result<(), HistoryError> {
        if self.by_id.insert(header.run, self.runs.len()).is_some() {
            return Err(HistoryError::Twice(header.run));
        }
        let sent = vec![Sent::new(); header.partitions as usize * header.writers as usize];
        self.runs.push(Run { header: header.clone(), ended: false, sent });
        Ok(())
    }

    /// Adds a line of the run that was begun last.
    ///
    /// # Panics
    /// If no run was begun.
    pub fn add(&mut self, line: Line) -> Result<(), HistoryError> {
        let run = self.runs.last_mut().expect("a run was begun");
        let id = run.header.run;
        if run.ended {
            return Err(HistoryError::AfterEnd(id));
        }
        let entry = match line {
            Line::End => {
                run.ended = true;
                return Ok(());
            }
            Line::Entry(entry) => entry,
        };
        let index = run.index(entry.writer, entry.partition);
        let sent = &mut run.sent[index.ok_or(HistoryError::Stranger { run: id, entry })?];
        let next = sent.last().map_or(0, Batch::end);
        if entry.sequence < next {
            return Err(HistoryError::Order { run: id, last: next - 1, entry });
        }
        sent.push(Batch { sequence: entry.sequence, count: entry.count, outcome: entry.outcome });
        Ok(())
    }

    /// Partitions that the runs wrote to: 0 to this.
    pub fn partitions(&self) -> u32 {
        self.runs.iter().map(|run| run.header.partitions).max().unwrap_or(0)
    }

    /// The topics of the runs, each once. A check is of one topic.
    pub fn topics(&self) -> Vec<&str> {
        let mut topics: Vec<&str> = self.runs.iter().map(|run| run.header.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// Starts the check of a partition that is read from `log_start` on. What was acknowledged below is not looked for.
    pub fn check(&self, partition: PartitionId, log_start: Offset) -> PartitionCheck<'_> {
        let mut streams = Vec::new();
        let mut by_writer = HashMap::new();
        for run in &self.runs {
            for writer in (0..run.header.writers).map(WriterId) {
                let Some(index) = run.index(writer, partition) else { continue };
                by_writer.insert((run.header.run, writer), streams.len());
                streams.push(Stream::new(run, writer, &run.sent[index]));
            }
        }
        PartitionCheck { partition, log_start, next: log_start, streams, by_writer, report: Report::default() }
    }
}

/// What has been read so far of one writer's records in the partition under check.
struct Stream<'h> {
    run: &'h Run,
    writer: WriterId,
    sent: &'h [Batch],
    seen: Bits,
    /// The sequence after the highest one read.
    next: u64,
    /// The batch of the last record: the next record is most likely in it or in the one after it.
    cursor: usize,
}

impl<'h> Stream<'h> {
    fn new(run: &'h Run, writer: WriterId, sent: &'h [Batch]) -> Stream<'h> {
        Stream { run, writer, sent, seen: Bits::default(), next: 0, cursor: 0 }
    }

    /// The batch that `sequence` was sent in.
    fn batch(&mut self, sequence: u64) -> Option<Batch> {
        let near = self.sent[self.cursor..].iter().take(2).position(|batch| sequence < batch.end());
        let index = match near {
            Some(step) if self.sent[self.cursor].sequence <= sequence => self.cursor + step,
            _ => self.sent.partition_point(|batch| batch.end() <= sequence),
        };
        let batch = self.sent.get(index).filter(|batch| batch.sequence <= sequence)?;
        self.cursor = index;
        Some(*batch)
    }

    /// Whether the run may have sent it, as far as its journal tells.
    fn may_have_sent(&self, sequence: u64) -> bool {
        let end = self.sent.last().map_or(0, Batch::end);
        !self.run.ended && (end..end + UNTOLD_RECORDS_MAX).contains(&sequence)
    }
}

/// A set of sequences, one bit each.
#[derive(Default)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Adds `at`; `false` if it was there.
    fn insert(&mut self, at: u64) -> bool {
        let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        fresh
    }

    fn contains(&self, at: u64) -> bool {
        self.words.get((at / 64) as usize).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}

/// The check of one partition: takes its records in the order in which they are read.
pub struct PartitionCheck<'h> {
    partition: PartitionId,
    log_start: Offset,
    next: Offset,
    streams: Vec<Stream<'h>>,
    by_writer: HashMap<(RunId, WriterId), usize>,
    report: Report,
}

impl PartitionCheck<'_> {
    /// The offset that the next record must have.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// Takes the next record. A `None` value is a record without a value: nothing that a run writes.
    pub fn record(&mut self, offset: Offset, value: Option<&[u8]>) {
        self.report.tally.read += 1;
        if offset < self.next {
            self.find(Anomaly::NonmonotonicRead, offset, format!("read after {}", self.next.value() - 1));
        } else if offset > self.next {
            let missing = offset.since(self.next);
            self.find(Anomaly::OffsetGap, self.next, format!("{missing} offsets are not there"));
        }
        self.next = self.next.max(offset.next());
        let stamp = match Stamp::read(value.unwrap_or_default()) {
            Ok(stamp) => stamp,
            Err(error) => return self.find(Anomaly::Corrupt, offset, error.to_string()),
        };
        if stamp.partition != self.partition {
            return self.find(Anomaly::Misplaced, offset, format!("{} belongs to {}", name(&stamp), stamp.partition));
        }
        match self.by_writer.get(&(stamp.run, stamp.writer)) {
            Some(&index) => self.of_stream(index, offset, &stamp),
            None => self.report.tally.foreign += 1,
        }
    }

    fn of_stream(&mut self, index: usize, offset: Offset, stamp: &Stamp) {
        let stream = &mut self.streams[index];
        let batch = stream.batch(stamp.sequence);
        if batch.is_none() && !stream.may_have_sent(stamp.sequence) {
            return self.find(Anomaly::Phantom, offset, format!("{} was never sent", name(stamp)));
        }
        if !stream.seen.insert(stamp.sequence) {
            return self.find(Anomaly::Duplicate, offset, format!("{} is there before", name(stamp)));
        }
        let after = stream.next;
        stream.next = after.max(stamp.sequence + 1);
        // A whole batch may come late, and nothing inside of it.
        let may_be_late = !stream.run.header.idempotent
            && batch.is_some_and(|batch| batch.outcome == Outcome::Unknown && batch.end() < after);
        if stamp.sequence < after && !may_be_late {
            self.find(Anomaly::Reordered, offset, format!("{} comes after sequence {}", name(stamp), after - 1));
        }
        match batch.map(|batch| (batch, batch.outcome)) {
            Some((batch, Outcome::Acked(Some(base)))) => {
                let acked = base.plus(stamp.sequence - batch.sequence);
                if acked != offset {
                    self.find(Anomaly::WrongOffset, offset, format!("{} was acknowledged at {acked}", name(stamp)));
                }
            }
            Some((_, Outcome::Acked(None))) => {}
            Some((_, Outcome::Refused(code))) => {
                self.find(Anomaly::RefusedVisible, offset, format!("{} was refused with error {code}", name(stamp)));
            }
            Some((_, Outcome::Unknown)) | None => self.report.tally.unknown_visible += 1,
        }
    }

    /// Notes that the records from `offset` on could not be read; nothing more is expected of the partition's reader.
    pub fn unreadable(&mut self, offset: Offset, why: String) {
        self.find(Anomaly::Unreadable, offset, why);
    }

    /// Ends the check: everything below `high_watermark` was read.
    pub fn finish(mut self, high_watermark: Offset) -> Report {
        if self.next < high_watermark {
            let missing = high_watermark.since(self.next);
            self.find(
                Anomaly::OffsetGap,
                self.next,
                format!("{missing} offsets up to the high watermark are not there"),
            );
        }
        for stream in std::mem::take(&mut self.streams) {
            self.finish_stream(&stream);
        }
        self.report
    }

    fn finish_stream(&mut self, stream: &Stream<'_>) {
        for batch in stream.sent {
            let base = match batch.outcome {
                Outcome::Acked(base) => base,
                Outcome::Refused(_) => {
                    self.report.tally.refused += u64::from(batch.count);
                    continue;
                }
                Outcome::Unknown => {
                    let absent = (batch.sequence..batch.end()).filter(|at| !stream.seen.contains(*at)).count();
                    self.report.tally.unknown_absent += absent as u64;
                    continue;
                }
            };
            // Without its offset, nothing tells whether a record was there before the log start moved.
            let kept =
                |step: u64| base.map_or(self.log_start == Offset::ZERO, |base| base.plus(step) >= self.log_start);
            let expected = (0..u64::from(batch.count)).filter(|step| kept(*step)).count() as u64;
            let lost =
                (0..u64::from(batch.count)).filter(|step| kept(*step) && !stream.seen.contains(batch.sequence + step));
            let (first, lost) =
                lost.fold((None, 0), |(first, lost): (Option<u64>, u64), step| (first.or(Some(step)), lost + 1));
            self.report.tally.acked += expected;
            self.report.tally.expired += u64::from(batch.count) - expected;
            if let Some(step) = first {
                let what = format!(
                    "{lost} acknowledged records from writer {} sequence {} of run {} on are not there",
                    stream.writer,
                    batch.sequence + step,
                    stream.run.header.run
                );
                self.find_many(Anomaly::LostWrite, base.map_or(Offset::ZERO, |base| base.plus(step)), what, lost);
            }
        }
        if stream.run.header.idempotent && self.log_start == Offset::ZERO {
            let holes = (0..stream.next).filter(|at| !stream.seen.contains(*at)).count() as u64;
            if holes > 0 {
                let what = format!("{holes} sequences below {} of idempotent writer {}", stream.next, stream.writer);
                self.find_many(Anomaly::SequenceGap, self.next, what, holes);
            }
        }
    }

    fn find(&mut self, anomaly: Anomaly, offset: Offset, what: String) {
        self.find_many(anomaly, offset, what, 1);
    }

    fn find_many(&mut self, anomaly: Anomaly, offset: Offset, what: String, count: u64) {
        self.report.add(Finding { anomaly, partition: self.partition, offset, what }, count);
    }
}

fn name(stamp: &Stamp) -> String {
    format!("sequence {} of writer {} of run {}", stamp.sequence, stamp.writer, stamp.run)
}

#[cfg(test)]
mod tests;
