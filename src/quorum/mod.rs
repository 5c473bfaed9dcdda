//! The quorum: proposed metadata records, durable and in order, and the cluster image that they make.
//!
//! A quorum of one member. Two states stand side by side. The *accepted* one, a [`Controller`], has every record that was
//! proposed: deciding and replaying happen on it in one step, so that a decision sees every earlier one, committed or not, and
//! two requests for one name cannot both succeed. The *committed* image has what is durable: it alone is seen outside, and it
//! moves when the log says so, before any proposer hears. If the disk has no room the accepted state falls back to the
//! committed one, and all that was built on it is refused; if a write fails the quorum is closed until the next start, for
//! nobody knows what is on the disk.
//!
//! When the log has outgrown its bound a snapshot of the accepted image begins a new file, in order with the records around it.
//! Which records follow from a request is the controller's matter, their bytes the schema's, files and frames the frame log's.

mod payload;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::controller::{self, ClusterImage, Controller, Decision, MetadataRecord, ReplayError};
use crate::runtime::sync::Notify;
use crate::storage::codec;
use crate::storage::frames::{AppendError, FRAME_PAYLOAD_BYTES_MAX, FrameEvent, FrameLog, OpenError, Replayed, Ticket};
use crate::types::Offset;
pub use payload::PayloadError;

/// What a payload of the metadata log holds, for the fuzz targets alone: they feed it bytes that no log ever wrote.
#[doc(hidden)]
pub fn fuzz_payload(bytes: &[u8]) -> Result<(Offset, Vec<MetadataRecord>), PayloadError> {
    payload::decode(bytes).map(|payload| (payload.offset, payload.records))
}

/// Whether a metadata log is expected to be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The data directory is being made: a log is created unless an interrupted start has created it.
    New,
    /// The data directory was in use: a missing log is an error, never an empty cluster.
    Existing,
}

/// Why the metadata cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A frame is intact and its content cannot be read.
    #[error("metadata frame {frame} of {directory}: {source}")]
    Payload {
        /// The directory of the log.
        directory: String,
        /// The frame, counted from the start of the log's newest file.
        frame: usize,
        /// What is wrong with it.
        source: PayloadError,
    },
    /// The frames are intact and contradict each other.
    #[error("metadata frame {frame} of {directory}: {source}")]
    Replay {
        /// The directory of the log.
        directory: String,
        /// The frame, counted from the start of the log's newest file.
        frame: usize,
        /// What does not fit.
        source: ReplayError,
    },
    /// A frame begins at another offset than the one before ends.
    #[error("metadata frame {frame} of {directory} is of offset {found}, expected {expected}")]
    Gap {
        /// The directory of the log.
        directory: String,
        /// The frame, counted from the start of the log's newest file.
        frame: usize,
        /// The offset that is due.
        expected: Offset,
        /// The offset in the frame.
        found: Offset,
    },
}

impl QuorumError {
    /// Whether a newer version of this program has written the log, so that nothing is wrong with it.
    pub fn is_newer_format(&self) -> bool {
        use controller::DecodeError as Record;
        match self {
            QuorumError::Log(OpenError::Header { source, .. }) => matches!(source, codec::DecodeError::Version { .. }),
            QuorumError::Payload { source, .. } => {
                matches!(source, PayloadError::Record(Record::Format { .. } | Record::Kind { .. }))
            }
            _ => false,
        }
    }

    /// Whether the log is damaged, as opposed to missing, unreadable for the moment, or of a newer version.
    pub fn is_corruption(&self) -> bool {
        let damaged = match self {
            QuorumError::Log(error) => matches!(error, OpenError::Header { .. } | OpenError::Corrupt { .. }),
            QuorumError::Payload { .. } | QuorumError::Replay { .. } | QuorumError::Gap { .. } => true,
        };
        damaged && !self.is_newer_format()
    }
}

/// Why a proposal is not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The records do not fit the cluster: a bug of whoever decided. Nothing was written.
    #[error("proposed metadata does not fit: {0}")]
    Unfit(#[from] ReplayError),
    /// The records take more bytes than a frame holds. Nothing was written; a smaller request may succeed.
    #[error("proposed metadata takes {bytes} bytes, at most {FRAME_PAYLOAD_BYTES_MAX} are possible")]
    TooLarge {
        /// What they take.
        bytes: usize,
    },
    /// The disk has no room for this proposal, or for one that it builds on. Nothing was written; it may be tried again.
    #[error("no room for metadata: {reason}")]
    Full {
        /// What the file system says.
        reason: Rc<str>,
    },
    /// The metadata log failed or was closed. Whether the proposal is in it shows at the next start.
    #[error("the metadata log is closed: {reason}")]
    Closed {
        /// Why.
        reason: Rc<str>,
    },
}

impl From<AppendError> for ProposeError {
    fn from(error: AppendError) -> ProposeError {
        match error {
            AppendError::TooLarge { bytes } => ProposeError::TooLarge { bytes },
            AppendError::Full { reason } => ProposeError::Full { reason },
            AppendError::Closed { reason } => ProposeError::Closed { reason },
        }
    }
}

/// What loading found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Records that were replayed, those of the snapshot included.
    pub records: usize,
    /// Bytes of a torn end that were cut off: proposals that nobody was told of.
    pub torn_bytes: usize,
}

struct State {
    accepted: Controller,
    committed: Arc<ClusterImage>,
    /// The image after each proposal that is not durable yet, in order.
    pending: VecDeque<(Ticket, Arc<ClusterImage>)>,
    closed: bool,
}

struct Inner {
    log: FrameLog,
    state: RefCell<State>,
    watches: RefCell<Vec<Weak<Notify>>>,
}

/// The metadata log of one member. Clones share it.
#[derive(Clone)]
pub struct Quorum {
    inner: Rc<Inner>,
}

impl Quorum {
    /// Opens the log in `directory`, which exists, and replays it.
    ///
    /// # Errors
    /// See [`QuorumError`].
    pub async fn open(directory: &Path, start: Start) -> Result<(Quorum, Loaded), QuorumError> {
        let (log, replayed) = match start {
            Start::New => FrameLog::create(directory).await?,
            Start::Existing => FrameLog::open(directory).await?,
        };
        let torn_bytes = replayed.torn_bytes;
        let (accepted, records) = replay(directory, replayed)?;
        let committed = accepted.image().clone();
        let state = State { accepted, committed, pending: VecDeque::new(), closed: false };
        let inner = Rc::new(Inner { log, state: RefCell::new(state), watches: RefCell::default() });
        let observer = Rc::downgrade(&inner);
        inner.log.observe(move |event| {
            if let Some(inner) = observer.upgrade() {
                inner.follow(event);
            }
        });
        Ok((Quorum { inner }, Loaded { records, torn_bytes }))
    }

    /// The committed image: what is durable, and nothing else.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.inner.state.borrow().committed.clone()
    }

    /// Follows the committed image from what it is now.
    pub fn watch(&self) -> ImageWatch {
        let call = Rc::new(Notify::new());
        self.inner.watches.borrow_mut().push(Rc::downgrade(&call));
        ImageWatch { inner: self.inner.clone(), seen: self.image().version(), call }
    }

    /// Lets `decide` look at everything that was accepted and commits the records that it returns, all or none; then gives
    /// its response. `decide` runs before the first await, so decisions are made in the order of the calls; without
    /// records, the response waits until what the decision may have rested on is committed.
    ///
    /// Dropping the future does not take the proposal back.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_with<R>(&self, decide: impl FnOnce(&Controller) -> Decision<R>) -> Result<R, ProposeError> {
        let (append, response) = {
            let mut state = self.inner.state.borrow_mut();
            let Decision { records, response } = decide(&state.accepted);
            let append = if records.is_empty() {
                if state.pending.is_empty() && !state.closed {
                    return Ok(response);
                }
                self.inner.log.barrier()
            } else {
                let payload = payload::encode(state.accepted.image().version(), &records);
                if payload.len() > FRAME_PAYLOAD_BYTES_MAX {
                    return Err(ProposeError::TooLarge { bytes: payload.len() });
                }
                let mut next = state.accepted.clone();
                for record in &records {
                    let offset = next.image().version();
                    next.replay(offset, record)?;
                }
                self.switch_if_outgrown(&state);
                let append = self.inner.log.append(payload);
                if !state.closed {
                    state.pending.push_back((append.ticket, next.image().clone()));
                    state.accepted = next;
                }
                append
            };
            (append, response)
        };
        append.durable().await?;
        Ok(response)
    }

    /// As [`Quorum::propose_with`], for a decision that can fail; the failure waits as a response does.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn try_propose_with<R, E>(
        &self,
        decide: impl FnOnce(&Controller) -> Result<Decision<R>, E>,
    ) -> Result<Result<R, E>, ProposeError> {
        self.propose_with(|controller| match decide(controller) {
            Ok(decision) => Decision { records: decision.records, response: Ok(decision.response) },
            Err(error) => Decision { records: Vec::new(), response: Err(error) },
        })
        .await
    }

    /// Commits records that were decided elsewhere, all or none.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, records: Vec<MetadataRecord>) -> Result<(), ProposeError> {
        self.propose_with(|_| Decision { records, response: () }).await
    }

    /// Commits what was proposed, marks a clean end, and closes the log.
    ///
    /// # Errors
    /// [`ProposeError::Full`] and [`ProposeError::Closed`], if the end could not be written.
    pub async fn close(&self) -> Result<(), ProposeError> {
        self.inner.log.close().await.map_err(ProposeError::from)
    }

    fn switch_if_outgrown(&self, state: &State) {
        if self.inner.log.outgrown() {
            self.inner.log.switch(payload::encode_snapshot(state.accepted.image()));
        }
    }
}

impl Inner {
    /// Follows the log: called from its task, before anybody who waits for it hears.
    fn follow(&self, event: FrameEvent) {
        let mut state = self.state.borrow_mut();
        match event {
            FrameEvent::Durable { end } => {
                let mut moved = false;
                while let Some((_, image)) = state.pending.pop_front_if(|(ticket, _)| *ticket < end) {
                    state.committed = image;
                    moved = true;
                }
                if !moved {
                    return;
                }
            }
            FrameEvent::Refused => {
                state.pending.clear();
                state.accepted = Controller::from_image((*state.committed).clone());
                return;
            }
            FrameEvent::Closed => state.closed = true,
        }
        drop(state);
        self.watches.borrow_mut().retain(|call| {
            let call = call.upgrade();
            call.iter().for_each(|call| call.notify());
            call.is_some()
        });
    }
}

/// Replays what the log held.
fn replay(directory: &Path, replayed: Replayed) -> Result<(Controller, usize), QuorumError> {
    let directory = || directory.display().to_string();
    let mut snapshot = Vec::new();
    let mut version = Offset::ZERO;
    let first = replayed.snapshot.len();
    for (frame, bytes) in replayed.snapshot.iter().enumerate() {
        let payload = payload::decode(bytes);
        let payload = payload.map_err(|source| QuorumError::Payload { directory: directory(), frame, source })?;
        if frame > 0 && payload.offset != version {
            let (expected, found) = (version, payload.offset);
            return Err(QuorumError::Gap { directory: directory(), frame, expected, found });
        }
        version = payload.offset;
        snapshot.extend(payload.records);
    }
    let image = ClusterImage::from_snapshot(version, &snapshot);
    let image = image.map_err(|source| QuorumError::Replay { directory: directory(), frame: 0, source })?;
    let mut controller = Controller::from_image(image);
    let mut records = snapshot.len();
    for (frame, bytes) in (first..).zip(&replayed.frames) {
        let payload = payload::decode(bytes);
        let payload = payload.map_err(|source| QuorumError::Payload { directory: directory(), frame, source })?;
        let (expected, found) = (controller.image().version(), payload.offset);
        if expected != found {
            return Err(QuorumError::Gap { directory: directory(), frame, expected, found });
        }
        for record in &payload.records {
            let offset = controller.image().version();
            let fits = controller.replay(offset, record);
            fits.map_err(|source| QuorumError::Replay { directory: directory(), frame, source })?;
        }
        records += payload.records.len();
    }
    Ok((controller, records))
}

/// Follows the committed image, for one task.
pub struct ImageWatch {
    inner: Rc<Inner>,
    seen: Offset,
    call: Rc<Notify>,
}

impl ImageWatch {
    /// The committed image, which counts as seen.
    pub fn image(&mut self) -> Arc<ClusterImage> {
        let image = self.inner.state.borrow().committed.clone();
        self.seen = image.version();
        image
    }

    /// Waits until the committed image is another one than the last that was seen; images in between are skipped. `None`
    /// once the quorum is closed and its last image was seen.
    pub async fn changed(&mut self) -> Option<Arc<ClusterImage>> {
        loop {
            let (version, closed) = {
                let state = self.inner.state.borrow();
                (state.committed.version(), state.closed)
            };
            if version != self.seen {
                return Some(self.image());
            }
            if closed {
                return None;
            }
            self.call.notified().await;
        }
    }
}

#[cfg(test)]
mod tests;
