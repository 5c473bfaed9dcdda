//! Journals as files: appended to by a run, read back by a check.
//!
//! A [`JournalWriter`] collects lines in memory and a thread of its own writes whole blocks behind the run's back, so that no
//! acknowledgement waits for the disk of the journal; what was not written when the process dies is unknown to the check.
//! Every thread of load writes to the same one. [`read`] hands out line by line and never holds more than a piece of the file.
//! A journal that is not ended may end inside a line, which is left out. It does not judge what the lines say.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{END, Entry, JournalHeader, Line, LineError, Outcome};

/// Bytes that are written or read at once: large enough that a journal costs no time to speak of.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes that wait to be written at most, before who adds more has to wait: 300 000 batches.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// Bytes of a line at most: a header with the longest name of a topic stays far below.
const LINE_BYTES_MAX: usize = 1 << 10;

const _: () = assert!(PIECE_BYTES < WAITING_BYTES_MAX);

/// A journal that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file fails.
    #[error("the journal {path}: {source}")]
    File {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a journal, or damaged.
    #[error("the journal {path}, line {number}: {source}")]
    Line {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        number: u64,
        /// What is wrong.
        source: LineError,
    },
}

/// What a journal tells, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalTally {
    /// Batches that were acknowledged.
    pub acked_batches: u64,
    /// Records that were acknowledged.
    pub acked_records: u64,
    /// Records with an unknown result.
    pub unknown_records: u64,
    /// Records that were refused, by Kafka's error code; 0 are those that were never sent.
    pub refused_records: BTreeMap<i16, u64>,
}

impl JournalTally {
    fn add(&mut self, entry: &Entry) {
        let records = u64::from(entry.count);
        match entry.outcome {
            Outcome::Acked(_) => {
                (self.acked_batches, self.acked_records) = (self.acked_batches + 1, self.acked_records + records)
            }
            Outcome::Refused(code) => *self.refused_records.entry(code).or_default() += records,
            Outcome::Unknown => self.unknown_records += records,
        }
    }
}

#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
    call: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    tally: JournalTally,
    has_ended: bool,
    has_failed: bool,
}

impl Waiting {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A journal that is being written. Clones write to the same one.
#[derive(Clone)]
pub struct JournalWriter {
    waiting: Arc<Waiting>,
}

/// The thread that writes a journal; ended after the last entry.
pub struct JournalEnd {
    waiting: Arc<Waiting>,
    thread: JoinHandle<Result<(), JournalError>>,
}

/// Creates the journal `path`, which does not exist yet.
pub fn create(path: &Path, header: &JournalHeader) -> Result<(JournalWriter, JournalEnd), JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    let mut file = fs::File::create_new(path).map_err(failed)?;
    let waiting = Arc::new(Waiting::default());
    waiting.state().lines = format!("{header}\n").into_bytes();
    let thread = {
        let (waiting, path) = (waiting.clone(), path.to_owned());
        move || {
            let result = write_all(&waiting, &mut file);
            waiting.state().has_failed = result.is_err();
            result.map_err(|source| JournalError::File { path, source })
        }
    };
    let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(thread).map_err(failed)?;
    Ok((JournalWriter { waiting: waiting.clone() }, JournalEnd { waiting, thread }))
}

fn write_all(waiting: &Waiting, file: &mut fs::File) -> io::Result<()> {
    let mut lines = Vec::new();
    loop {
        let is_short = |state: &mut State| state.lines.len() < PIECE_BYTES && !state.has_ended;
        let mut state = waiting.call.wait_while(waiting.state(), is_short).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut lines, &mut state.lines);
        let has_ended = state.has_ended;
        drop(state);
        file.write_all(&lines)?;
        lines.clear();
        if has_ended {
            return Ok(());
        }
    }
}

impl JournalWriter {
    /// Adds an entry.
    pub fn push(&self, entry: &Entry) {
        let mut state = self.waiting.state();
        state.tally.add(entry);
        writeln!(state.lines, "{entry}").expect("memory takes every line");
        if state.lines.len() >= PIECE_BYTES {
            self.waiting.call.notify_one();
        }
    }

    /// Whether so little waits to be written that more may be sent. A journal that has failed has no room.
    pub fn has_room(&self) -> bool {
        let state = self.waiting.state();
        state.lines.len() <= WAITING_BYTES_MAX && !state.has_failed
    }

    /// Whether the file failed, so that going on proves nothing.
    pub fn has_failed(&self) -> bool {
        self.waiting.state().has_failed
    }
}

impl JournalEnd {
    /// Writes the end, waits until everything is in the file, and tells what it holds.
    pub fn finish(self) -> Result<JournalTally, JournalError> {
        {
            let mut state = self.waiting.state();
            state.lines.extend_from_slice(format!("{END}\n").as_bytes());
            state.has_ended = true;
        }
        self.waiting.call.notify_one();
        self.thread.join().expect("the writing thread does not panic")?;
        Ok(std::mem::take(&mut self.waiting.state().tally))
    }
}

/// Reads a journal: its header, then through `take` each of its lines in order. Blocks.
pub fn read(path: &Path, mut take: impl FnMut(&JournalHeader, Line)) -> Result<JournalHeader, JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    let mut file = BufReader::with_capacity(PIECE_BYTES, fs::File::open(path).map_err(failed)?);
    let mut header: Option<JournalHeader> = None;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        file.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).map_err(failed)?;
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
        let wrong = |source| JournalError::Line { path: path.to_owned(), number, source };
        let is_whole = line.ends_with(b"\n");
        if !is_whole && (line.len() == LINE_BYTES_MAX || header.is_none()) {
            return Err(wrong(LineError { line: text.into_owned() }));
        }
        match &header {
            _ if !is_whole => break,
            None => header = Some(text.parse().map_err(wrong)?),
            Some(header) => take(header, text.parse().map_err(wrong)?),
        }
    }
    Ok(header.expect("a journal without a header has an error"))
}

#[cfg(test)]
mod tests {
    use corelane::types::PartitionId;

    use super::*;
    use crate::stamp::{RunId, WriterId};

    fn header() -> JournalHeader {
        JournalHeader { run: RunId(1), topic: "t".to_owned(), partitions: 1, writers: 1, idempotent: false }
    }

    fn entry(sequence: u64, outcome: Outcome) -> Entry {
        let partition = PartitionId::new(0).expect("not negative");
        Entry { writer: WriterId(0), partition, sequence, count: 2, outcome }
    }

    #[test]
    fn what_is_written_from_several_threads_is_read_back() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("journal");
        let (writer, end) = create(&path, &header()).unwrap();
        assert!(matches!(create(&path, &header()), Err(JournalError::File { .. })), "it is there already");
        const ENTRIES: u64 = 20_000;
        std::thread::scope(|scope| {
            for half in 0..2 {
                let writer = writer.clone();
                scope.spawn(move || {
                    (0..ENTRIES).for_each(|at| writer.push(&entry(4 * at + 2 * half, Outcome::Acked(None))));
                });
            }
        });
        writer.push(&entry(4 * ENTRIES, Outcome::Unknown));
        writer.push(&entry(4 * ENTRIES + 2, Outcome::Refused(9)));
        let tally = end.finish().unwrap();
        let wanted = JournalTally {
            acked_batches: 2 * ENTRIES,
            acked_records: 4 * ENTRIES,
            unknown_records: 2,
            refused_records: BTreeMap::from([(9, 2)]),
        };
        assert_eq!(tally, wanted);
        let (mut sequences, mut ends) = (Vec::new(), 0);
        let found = read(&path, |_, line| match line {
            Line::Entry(entry) => sequences.push(entry.sequence),
            Line::End => ends += 1,
        });
        assert_eq!((found.unwrap(), ends), (header(), 1));
        sequences.sort_unstable();
        assert!(sequences.into_iter().eq((0..2 * ENTRIES + 2).map(|at| 2 * at)));
    }

    #[test]
    fn cut_short_is_read_up_to_the_last_whole_line_and_nonsense_is_told_by_its_line() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("journal");
        let read_back = |text: &str| {
            fs::write(&path, text).unwrap();
            let mut lines = 0;
            read(&path, |_, _| lines += 1).map(|_| lines)
        };
        let head = header();
        assert_eq!(read_back(&format!("{head}\nu 0 0 0 2\nu 0 0 2")).unwrap(), 1);
        assert_eq!(read_back(&format!("{head}\n")).unwrap(), 0);
        let wrong = |text: &str| match read_back(text) {
            Err(JournalError::Line { number, .. }) => number,
            other => panic!("{other:?}"),
        };
        assert_eq!(wrong(""), 1);
        assert_eq!(wrong(&head.to_string()), 1);
        assert_eq!(wrong(&format!("{head}\nu 0 0 0 2\nnonsense\n")), 3);
        assert_eq!(wrong(&format!("{head}\n{}", "u".repeat(LINE_BYTES_MAX))), 2);
    }
}
