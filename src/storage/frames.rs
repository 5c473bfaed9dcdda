//! The metadata frame log: opaque payloads, each durable before it is acknowledged, in one file that is replaced when it is
//! outgrown.
//!
//! One write is under way at a time; what is appended meanwhile is the next one. Payloads come back at the next open in the
//! order of the calls. A write that failed closes the log until it is opened again, for nothing is known of what it left
//! behind. A disk without room is no failure: nothing has been written then, every waiting payload is refused, and the log
//! goes on.
//!
//! A directory holds `<sequence>.log`, the newest of which counts, and `<sequence>.new` while a file is being made. A file
//! gets its name when its snapshot is durable, and the one before is removed after that. This module is the queue of payloads
//! and what becomes of them; [`file`] makes, reads and writes files, [`format`] says what their bytes are and how a torn end
//! is told from corruption. What payloads mean is the matter of the caller.

mod file;
mod format;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use self::file::{Active, FILE_BYTES_MAX, Failure, MakeError, make_file, open_newest, remove};
use self::format::{FRAMES_START, FileHeader, PAYLOAD_BYTES_MAX, WRITE_BYTES_MAX, frame_bytes};
use super::codec::DecodeError;
use crate::runtime::sync::{Receiver, Sender, oneshot};
use crate::runtime::{Class, random_u64, spawn};

/// Bytes behind the snapshot from which on a log counts as outgrown, if the snapshot is smaller: a start reads and replays
/// that much in well under a second.
const OUTGROWN_BYTES_MIN: u64 = 8 << 20;
const _: () = assert!(OUTGROWN_BYTES_MIN + (WRITE_BYTES_MAX as u64) < FILE_BYTES_MAX);

/// Bytes of a payload at most.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

/// Where the payloads of a file lie, for the fuzz targets alone: they feed it files that no log ever wrote. `None` if it
/// would not be opened.
#[doc(hidden)]
pub fn fuzz_file(content: &[u8]) -> Option<Vec<Range<usize>>> {
    let header = FileHeader::decode(content).ok()?;
    let scan = format::scan(content, &header).ok()?;
    Some([scan.snapshot, scan.frames].concat())
}

/// Why a frame log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory has no log.
    #[error("{directory} holds no metadata log")]
    Missing {
        /// The directory.
        directory: PathBuf,
    },
    /// The file does not begin with a header of this format. [`DecodeError::Version`] is a newer one.
    #[error("{file}: {source}")]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong with its header.
        source: DecodeError,
    },
    /// A frame that was durable cannot be read any more.
    #[error("{file} is corrupt at {position}: expected {expected}, found {found}")]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where the bad frame begins, in bytes.
        position: u64,
        /// What should be there.
        expected: String,
        /// What is there, or shows that it was.
        found: String,
    },
    /// The file is larger than any that is written.
    #[error("{file} has {bytes} bytes, at most {FILE_BYTES_MAX} are read")]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file system failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Why a payload is not durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The payload is too large for a frame. Nothing was written.
    #[error("a metadata frame of {bytes} bytes exceeds {FRAME_PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// The payload's length.
        bytes: usize,
    },
    /// The disk has no room. Nothing was written; it may be tried again.
    #[error("no room for the metadata log: {reason}")]
    Full {
        /// What the file system says.
        reason: Rc<str>,
    },
    /// A write failed, or the log was closed. Whether the payload will be there at the next open is not known.
    #[error("the metadata log is closed: {reason}")]
    Closed {
        /// Why.
        reason: Rc<str>,
    },
}

/// What a log tells its observer, before those who wait for it hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameEvent {
    /// Every payload with a ticket below this is durable.
    Durable {
        /// The first ticket that is not.
        end: Ticket,
    },
    /// Every payload that was not durable is refused: none of them was written.
    Refused,
    /// Nothing more becomes durable.
    Closed,
}

/// The place of an append in the order of all appends since the log was opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(u64);

/// An append that is under way: a future of its outcome. Dropping it changes nothing.
#[derive(Debug)]
pub struct Append {
    /// Its place.
    pub ticket: Ticket,
    outcome: Result<Waiting, AppendError>,
}

type Outcome = Result<(), AppendError>;

struct Waiting(Receiver<Outcome>);

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}

impl Append {
    /// Waits until the payload is durable.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn durable(self) -> Outcome {
        let lost = || AppendError::Closed { reason: "its writer ended".into() };
        self.outcome?.0.await.unwrap_or_else(|| Err(lost()))
    }
}

/// What an open log held.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// The payloads of the snapshot that the file begins with.
    pub snapshot: Vec<Bytes>,
    /// The payloads that were appended since.
    pub frames: Vec<Bytes>,
    /// Bytes of a torn end that were found and zeroed.
    pub torn_bytes: usize,
}

/// What waits for the writer.
enum Work {
    /// A payload; `None` waits for those before it only.
    Append { payload: Option<Vec<u8>>, ticket: Ticket, done: Sender<Outcome> },
    /// The payloads of a snapshot of everything before it, to begin a new file with.
    Switch { snapshot: Vec<Vec<u8>> },
}

type Observer = Rc<dyn Fn(FrameEvent)>;

struct Inner {
    directory: PathBuf,
    active: RefCell<Option<Active>>,
    work: RefCell<VecDeque<Work>>,
    writing: Cell<bool>,
    next_ticket: Cell<u64>,
    closed: RefCell<Option<Rc<str>>>,
    observer: RefCell<Option<Observer>>,
    /// Bytes of frames behind the snapshot, and the bound from which on the log counts as outgrown.
    grown: Cell<u64>,
    grown_max: Cell<u64>,
    switching: Cell<bool>,
}

/// An open frame log. Clones share it.
#[derive(Clone)]
pub struct FrameLog {
    inner: Rc<Inner>,
}

impl FrameLog {
    /// Creates an empty log in `directory`, which exists, or opens the one that a start that did not get far left there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn create(directory: &Path) -> Result<(FrameLog, Replayed), OpenError> {
        match FrameLog::open(directory).await {
            Err(OpenError::Missing { .. }) => {}
            other => return other,
        }
        let first =
            FileHeader { sequence: 1, salt: random_u64(), first_number: 0, snapshot_frames: 0, snapshot_end: 0 };
        let active = make_file(directory, first, &[]).await.map_err(|error| error.into_open())?;
        Ok((FrameLog::start(directory, active), Replayed::default()))
    }

    /// Opens the log in `directory`: reads it, makes sure that what it returns is durable, zeroes a torn end.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(directory: &Path) -> Result<(FrameLog, Replayed), OpenError> {
        let (active, replayed) = open_newest(directory).await?;
        Ok((FrameLog::start(directory, active), replayed))
    }

    fn start(directory: &Path, active: Active) -> FrameLog {
        let snapshot_bytes = active.header.snapshot_end - FRAMES_START as u64;
        let inner = Inner {
            directory: directory.to_path_buf(),
            grown: Cell::new(active.end.saturating_sub(active.header.snapshot_end)),
            grown_max: Cell::new(snapshot_bytes.max(OUTGROWN_BYTES_MIN)),
            active: RefCell::new(Some(active)),
            work: RefCell::new(VecDeque::new()),
            writing: Cell::new(false),
            next_ticket: Cell::new(0),
            closed: RefCell::new(None),
            observer: RefCell::new(None),
            switching: Cell::new(false),
        };
        FrameLog { inner: Rc::new(inner) }
    }

    /// Calls `observer` for every event from now on, from the log's own task. It must not wait.
    pub fn observe(&self, observer: impl Fn(FrameEvent) + 'static) {
        *self.inner.observer.borrow_mut() = Some(Rc::new(observer));
    }

    /// Appends a payload of 1 to [`FRAME_PAYLOAD_BYTES_MAX`] bytes. Its place in the log is that of this call, whether or not
    /// the outcome is awaited.
    pub fn append(&self, payload: Vec<u8>) -> Append {
        assert!(!payload.is_empty(), "a frame without payload marks a clean end");
        self.inner.push(Some(payload))
    }

    /// Waits for everything that was appended before, and shares its fate.
    pub fn barrier(&self) -> Append {
        self.inner.push(None)
    }

    /// Whether a snapshot should replace what the log has become. Stays `false` while one is under way.
    pub fn outgrown(&self) -> bool {
        self.inner.grown.get() >= self.inner.grown_max.get() && !self.inner.switching.get()
    }

    /// Begins a new file with `snapshot`, which stands for everything appended so far, and removes the file before. Later
    /// appends follow it. A payload has the size of one that is appended. If the new file cannot be made the log stays on the
    /// old one, and counts as outgrown again when it has grown by as much once more.
    pub fn switch(&self, snapshot: Vec<Vec<u8>>) {
        if let Some(payload) = snapshot.iter().find(|payload| payload.len() > PAYLOAD_BYTES_MAX) {
            tracing::error!(bytes = payload.len(), "a record is too large for a snapshot: the metadata log only grows");
            self.inner.grown.set(0);
            return;
        }
        if self.inner.closed.borrow().is_none() {
            self.inner.switching.set(true);
            self.inner.enqueue(Work::Switch { snapshot });
        }
    }

    /// The number of the file that is appended to; it rises with every switch.
    pub fn sequence(&self) -> Option<u64> {
        self.inner.active.borrow().as_ref().map(|active| active.header.sequence)
    }

    /// Marks a clean end behind everything that was appended, and closes the log.
    ///
    /// # Errors
    /// That of the last write.
    pub async fn close(&self) -> Outcome {
        let end = self.inner.push(Some(Vec::new()));
        end.durable().await?;
        self.inner.close(Vec::new(), "it was closed".into());
        Ok(())
    }
}

impl Inner {
    fn push(self: &Rc<Inner>, payload: Option<Vec<u8>>) -> Append {
        let number = self.next_ticket.get();
        let ticket = Ticket(number);
        if let Some(reason) = self.closed.borrow().clone() {
            return Append { ticket, outcome: Err(AppendError::Closed { reason }) };
        }
        let bytes = payload.as_ref().map_or(0, Vec::len);
        if bytes > PAYLOAD_BYTES_MAX {
            return Append { ticket, outcome: Err(AppendError::TooLarge { bytes }) };
        }
        self.next_ticket.set(number + 1);
        let (done, outcome) = oneshot();
        self.enqueue(Work::Append { payload, ticket, done });
        Append { ticket, outcome: Ok(Waiting(outcome)) }
    }

    fn enqueue(self: &Rc<Inner>, work: Work) {
        self.work.borrow_mut().push_back(work);
        if !self.writing.replace(true) {
            spawn(Class::Produce, self.clone().write_all());
        }
    }

    fn tell(&self, event: FrameEvent) {
        let observer = self.observer.borrow().clone();
        if let Some(observer) = observer {
            observer(event);
        }
    }

    /// The writer: runs while there is work.
    async fn write_all(self: Rc<Inner>) {
        while let Some(group) = self.take_group() {
            let active = self.active.take().expect("only the writer takes it, and there is one");
            let active = match group {
                Group::Payloads(waiting) => self.write_group(active, waiting).await,
                Group::Snapshot(snapshot) => self.switch_file(active, snapshot).await,
            };
            *self.active.borrow_mut() = Some(active);
        }
        self.writing.set(false);
    }

    /// The next work: payloads that fit into one write together, or one snapshot.
    fn take_group(&self) -> Option<Group> {
        let mut work = self.work.borrow_mut();
        let mut payloads = Vec::new();
        let mut bytes = 0;
        while let Some(next) = work.pop_front() {
            match next {
                Work::Append { payload, ticket, done } => {
                    bytes += payload.as_ref().map_or(0, |payload| frame_bytes(payload.len()));
                    if !payloads.is_empty() && bytes > WRITE_BYTES_MAX {
                        work.push_front(Work::Append { payload, ticket, done });
                        break;
                    }
                    payloads.push(Payload { payload, ticket, done });
                }
                Work::Switch { snapshot } if payloads.is_empty() => return Some(Group::Snapshot(snapshot)),
                switch @ Work::Switch { .. } => {
                    work.push_front(switch);
                    break;
                }
            }
        }
        (!payloads.is_empty()).then_some(Group::Payloads(payloads))
    }

    async fn write_group(&self, mut active: Active, waiting: Vec<Payload>) -> Active {
        let payloads: Vec<&[u8]> = waiting.iter().filter_map(|waiting| waiting.payload.as_deref()).collect();
        let before = active.end;
        let result = if payloads.is_empty() { Ok(()) } else { active.append(&payloads).await };
        self.grown.set(self.grown.get() + (active.end - before));
        match result {
            Ok(()) => {
                let last = waiting.last().expect("a group is not empty").ticket;
                self.tell(FrameEvent::Durable { end: Ticket(last.0 + 1) });
                waiting.into_iter().for_each(|waiting| waiting.done.send(Ok(())));
            }
            Err(Failure::NoRoom(error)) => self.refuse(waiting, error.to_string().into()),
            Err(Failure::Outgrown) => {
                self.grown.set(self.grown_max.get());
                self.refuse(waiting, "its file has reached its largest size".into());
            }
            Err(Failure::Broken(error)) => self.close(waiting, error.to_string().into()),
        }
        active
    }

    /// Everybody who waits for a payload: first `group`, then what is in the queue. Snapshots in it are forgotten, since they
    /// stand for payloads that will not be.
    fn drain(&self, group: Vec<Payload>) -> impl Iterator<Item = Sender<Outcome>> {
        self.switching.set(false);
        let queue = std::mem::take(&mut *self.work.borrow_mut());
        let queued = queue.into_iter().filter_map(|work| match work {
            Work::Append { done, .. } => Some(done),
            Work::Switch { .. } => None,
        });
        group.into_iter().map(|payload| payload.done).chain(queued)
    }

    fn refuse(&self, group: Vec<Payload>, reason: Rc<str>) {
        let waiting = self.drain(group);
        self.tell(FrameEvent::Refused);
        waiting.for_each(|done| done.send(Err(AppendError::Full { reason: reason.clone() })));
    }

    fn close(&self, group: Vec<Payload>, reason: Rc<str>) {
        *self.closed.borrow_mut() = Some(reason.clone());
        let waiting = self.drain(group);
        self.tell(FrameEvent::Closed);
        waiting.for_each(|done| done.send(Err(AppendError::Closed { reason: reason.clone() })));
    }

    async fn switch_file(&self, active: Active, snapshot: Vec<Vec<u8>>) -> Active {
        let header = FileHeader {
            sequence: active.header.sequence + 1,
            salt: random_u64(),
            first_number: active.next_number,
            snapshot_frames: 0,
            snapshot_end: 0,
        };
        self.switching.set(false);
        self.grown.set(0);
        match make_file(&self.directory, header, &snapshot).await {
            Ok(next) => {
                self.grown_max.set((next.header.snapshot_end - FRAMES_START as u64).max(OUTGROWN_BYTES_MIN));
                let old = active.path;
                drop(active.file);
                if let Err(error) = remove(&old).await {
                    tracing::warn!(%error, "an outgrown metadata log stays until the next start");
                }
                next
            }
            Err(MakeError::Before { path, source, .. }) => {
                tracing::warn!(path = %path.display(), error = %source, "the metadata log stays on its outgrown file");
                active
            }
            // Either file may be the one that the next start finds: nothing may be added to either.
            Err(MakeError::After { source, .. }) => {
                self.close(Vec::new(), source.to_string().into());
                active
            }
        }
    }
}

struct Payload {
    payload: Option<Vec<u8>>,
    ticket: Ticket,
    done: Sender<Outcome>,
}

enum Group {
    Payloads(Vec<Payload>),
    Snapshot(Vec<Vec<u8>>),
}

#[cfg(test)]
mod tests;
