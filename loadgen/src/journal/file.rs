//! Journals as files: appended to by a run, read back by a check.
//!
//! A [`JournalWriter`] collects lines in memory and a task of its own writes whole blocks behind the run's back, so that no
//! acknowledgement waits for the disk of the journal; what was not written when the process dies is unknown to the check.
//! [`read`] hands out line by line and never holds more than a piece of the file. A journal that is not ended may end inside
//! a line, which is left out. It does not judge what the lines say.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use corelane::runtime::sync::Notify;
use corelane::runtime::{Buffer, Class, Durability, Duration, File, OpenMode, Task, sleep, spawn};
use corelane::types::limits::BLOCK_BYTES;

use super::{END, Entry, JournalHeader, Line, LineError};

/// Bytes that are written or read at once: large enough that a journal costs no time to speak of.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes that wait to be written at most, before who adds more has to wait: 300 000 batches.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// Bytes of a line at most: a header with the longest name of a topic stays far below.
const LINE_BYTES_MAX: usize = 1 << 10;
/// How long who has to wait sleeps between looks.
const WAIT: Duration = Duration::from_millis(1);

const _: () = assert!(PIECE_BYTES.is_multiple_of(BLOCK_BYTES) && PIECE_BYTES < WAITING_BYTES_MAX);

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

struct Waiting {
    lines: RefCell<Vec<u8>>,
    call: Notify,
    ended: Cell<bool>,
    failed: Cell<bool>,
}

/// A journal that is being written. Clones write to the same one.
#[derive(Clone)]
pub struct JournalWriter {
    waiting: Rc<Waiting>,
}

/// The task that writes a journal; awaited after the last entry.
pub struct JournalEnd {
    waiting: Rc<Waiting>,
    task: Task<Result<(), JournalError>>,
}

/// Creates the journal `path`, which does not exist yet.
pub async fn create(path: &Path, header: &JournalHeader) -> Result<(JournalWriter, JournalEnd), JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    let file = File::open(path, OpenMode::Create).await.map_err(failed)?;
    let waiting = Rc::new(Waiting {
        lines: RefCell::new(format!("{header}\n").into_bytes()),
        call: Notify::new(),
        ended: Cell::new(false),
        failed: Cell::new(false),
    });
    let body = {
        let (waiting, path) = (waiting.clone(), path.to_owned());
        async move {
            let result = write_all(&waiting, &file).await;
            waiting.failed.set(result.is_err());
            result.map_err(|source| JournalError::File { path, source })
        }
    };
    let task = spawn(Class::Produce, body);
    Ok((JournalWriter { waiting: waiting.clone() }, JournalEnd { waiting, task }))
}

async fn write_all(waiting: &Waiting, file: &File) -> io::Result<()> {
    let mut position = 0;
    loop {
        let ended = waiting.ended.get();
        let ready = waiting.lines.borrow().len();
        let bytes = if ended { ready } else { ready / BLOCK_BYTES * BLOCK_BYTES }.min(PIECE_BYTES);
        if bytes == 0 {
            if ended {
                break;
            }
            waiting.call.notified().await;
            continue;
        }
        let mut buffer = Buffer::with_capacity(bytes);
        buffer.append(&waiting.lines.borrow()[..bytes]);
        waiting.lines.borrow_mut().drain(..bytes);
        buffer.append_zeros(buffer.remaining_in_block());
        file.write_at(position, vec![buffer.freeze()], Durability::Written).await.0?;
        position += bytes as u64;
    }
    file.set_length(position).await
}

impl JournalWriter {
    /// Adds an entry.
    pub fn push(&self, entry: &Entry) {
        use io::Write;
        let mut lines = self.waiting.lines.borrow_mut();
        writeln!(lines, "{entry}").expect("memory takes every line");
        if lines.len() >= PIECE_BYTES {
            self.waiting.call.notify();
        }
    }

    /// Waits while too much waits to be written. `false` if the journal has failed: see [`JournalEnd::finish`].
    pub async fn has_room(&self) -> bool {
        while self.waiting.lines.borrow().len() > WAITING_BYTES_MAX && !self.waiting.failed.get() {
            sleep(WAIT).await;
        }
        !self.waiting.failed.get()
    }
}

impl JournalEnd {
    /// Writes the end, and waits until everything is in the file.
    pub async fn finish(self) -> Result<(), JournalError> {
        self.waiting.lines.borrow_mut().extend_from_slice(format!("{END}\n").as_bytes());
        self.waiting.ended.set(true);
        self.waiting.call.notify();
        self.task.await
    }
}

/// Reads a journal: its header, then through `take` each of its lines in order.
pub async fn read(path: &Path, mut take: impl FnMut(&JournalHeader, Line)) -> Result<JournalHeader, JournalError> {
    let failed = |source| JournalError::File { path: path.to_owned(), source };
    let file = File::open(path, OpenMode::Read).await.map_err(failed)?;
    let mut header: Option<JournalHeader> = None;
    let (mut number, mut position, mut rest) = (0, 0, Vec::new());
    loop {
        let (result, buffer) = file.read_at(position, PIECE_BYTES, Buffer::with_capacity(PIECE_BYTES)).await;
        let bytes = result.map_err(failed)?;
        rest.extend_from_slice(&buffer[..bytes]);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in rest[..whole].split_inclusive(|byte| *byte == b'\n') {
            number += 1;
            let line = String::from_utf8_lossy(&line[..line.len() - 1]);
            let wrong = |source| JournalError::Line { path: path.to_owned(), number, source };
            match &header {
                None => header = Some(line.parse().map_err(wrong)?),
                Some(header) => take(header, line.parse().map_err(wrong)?),
            }
        }
        rest.drain(..whole);
        if rest.len() > LINE_BYTES_MAX {
            let line = String::from_utf8_lossy(&rest[..LINE_BYTES_MAX]).into_owned();
            return Err(JournalError::Line { path: path.to_owned(), number: number + 1, source: LineError { line } });
        }
        if bytes < PIECE_BYTES {
            break;
        }
        position += bytes as u64;
    }
    let empty = || JournalError::Line { path: path.to_owned(), number: 1, source: LineError { line: String::new() } };
    header.ok_or_else(empty)
}
