//! Requests as frames: a 4-byte big-endian length and that many bytes (Kafka protocol guide, "Network").
//!
//! Memory grows as bytes arrive, and each slab is taken from the shard's memory for requests first: a frame for which there
//! is none is left in the client's hands until there is. The receive buffer follows the connection: small while requests are
//! small, so that an idle one costs a block, and larger once receives fill it and memory is plenty. Time is granted as
//! [`Patience`] says: a client that sends a request by single bytes does not keep its buffer for ever. Time in which the frame
//! waits for memory does not count.
//!
//! What this file does not do: it looks into no frame, but for whether it is a Produce request: those wait for memory that
//! others are given from a reserve.

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Deref;
use std::rc::Rc;

use thiserror::Error;

use super::budgets::requests::{ReceiveMemory, RequestMemory, SlabMemory};
use crate::metrics::Limit;
use crate::runtime::{Buffer, Duration, Instant, Slice, Stream, timeout};
use crate::wire::ApiKey;

/// Bytes of the length in front of a frame.
const LENGTH_BYTES: usize = 4;
/// Bytes of a connection's first receive buffer: a block, what thousands of idle connections cost each.
const RECEIVE_BYTES_MIN: usize = 4 << 10;
/// Bytes of the receive buffer of a busy connection: beyond it larger receives save nothing.
const RECEIVE_BYTES_MAX: usize = 256 << 10;
/// Bytes of an API's key, the first of a frame.
const API_KEY_BYTES: usize = 2;

/// Bytes of a frame for which a second is granted beyond the time that every frame has: half of what the slowest mobile link
/// moves.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From its beginning to the end of its first request.
    pub(super) first_request: Duration,
    /// From the first bytes of a later request to its end, for a short one; longer ones get more in proportion.
    pub(super) request: Duration,
}

/// The time that is granted to move `bytes` bytes, where `base` is granted to move any.
fn granted(base: Duration, bytes: usize) -> Duration {
    base + Duration::from_millis(bytes as u64 * 1000 / BYTES_PER_SECOND_MIN)
}

/// Why no further frame can be read. Each one ends the connection.
#[derive(Debug, Error)]
pub(super) enum FrameError {
    /// The length is negative.
    #[error("a frame of {0} bytes")]
    Negative(i32),
    /// The length exceeds `socket.request.max.bytes`, or what memory allows.
    #[error("a frame of {bytes} bytes, more than socket.request.max.bytes={bytes_max}")]
    TooLarge {
        /// Bytes that the client announced.
        bytes: usize,
        /// Bytes that are allowed.
        bytes_max: usize,
    },
    /// The client went away in the middle of a frame.
    #[error("the connection ended {missing} bytes before the end of a frame")]
    Truncated {
        /// Bytes that were still to come.
        missing: usize,
    },
    /// The frame came slowly while others waited for the memory that it held.
    #[error("the client sends slowly while memory for requests is short")]
    Shed,
    /// The client sent nothing, or not all of its first request, in time.
    #[error("no request within connections.handshake.timeout.ms={0}")]
    NoRequest(u128),
    /// The rest of a request did not come in time.
    #[error("{missing} bytes of a request are missing after {waited:?}, see request.receive.timeout.ms")]
    Slow {
        /// Bytes that were still to come.
        missing: usize,
        /// How long they were waited for.
        waited: Duration,
    },
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Socket(#[from] io::Error),
}

impl FrameError {
    /// The limit that was met, if it was one.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            FrameError::TooLarge { .. } => Some(Limit::RequestBytes),
            FrameError::Shed => Some(Limit::RequestMemory),
            FrameError::NoRequest(_) => Some(Limit::Handshake),
            FrameError::Slow { .. } => Some(Limit::Receive),
            FrameError::Negative(_) | FrameError::Truncated { .. } | FrameError::Socket(_) => None,
        }
    }
}

/// A request, with the memory that it lies in.
pub(super) struct Frame {
    bytes: Slice,
    memory: Rc<SlabMemory>,
}

impl Frame {
    /// The bytes, and what is to be kept as long as they or slices of them are.
    pub(super) fn into_parts(self) -> (Slice, Rc<SlabMemory>) {
        (self.bytes, self.memory)
    }
}

impl Deref for Frame {
    type Target = Slice;

    fn deref(&self) -> &Slice {
        &self.bytes
    }
}

/// Reads the frames of one connection.
pub(super) struct FrameReader {
    stream: Stream,
    frame_bytes_max: usize,
    memory: ReceiveMemory,
    /// Absent while the kernel writes to it.
    buffer: Option<Buffer>,
    /// Where the next frame begins in the buffer.
    start: usize,
    receive_bytes: usize,
    patience: Patience,
    /// When the first request is due, until it is there.
    first_due: Option<Instant>,
    /// When the bytes of the frame that is being received began to come.
    begun: Option<Instant>,
}

impl FrameReader {
    pub(super) fn new(stream: Stream, memory: &Rc<RequestMemory>, patience: Patience) -> FrameReader {
        let ended = stream.clone();
        FrameReader {
            stream,
            frame_bytes_max: memory.frame_bytes_max(),
            memory: ReceiveMemory::new(memory, move || ended.shutdown()),
            buffer: Some(Buffer::with_capacity(RECEIVE_BYTES_MIN)),
            start: 0,
            receive_bytes: RECEIVE_BYTES_MIN,
            patience,
            first_due: Some(Instant::now().plus(patience.first_request)),
            begun: None,
        }
    }

    /// The next frame without its length; `None` when the client has ended the connection between two frames.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let wanted = match self.next_length()? {
                Some(length) if self.held() - LENGTH_BYTES >= length => return Ok(Some(self.take(length))),
                Some(length) => LENGTH_BYTES + length,
                None => LENGTH_BYTES,
            };
            if let Some(is_produce) = self.is_produce() {
                self.memory.in_frame(wanted, is_produce, Instant::now());
            }
            self.make_room(wanted).await;
            let room = self.buffer().remaining();
            match self.receive(wanted).await? {
                Ok(0) | Err(_) if self.memory.is_shed() => return Err(FrameError::Shed),
                Ok(0) if self.held() == 0 => return Ok(None),
                Ok(0) => return Err(FrameError::Truncated { missing: wanted - self.held() }),
                Ok(bytes) => {
                    self.memory.received(bytes);
                    if bytes == room {
                        self.receive_bytes = (self.receive_bytes * 2).min(RECEIVE_BYTES_MAX);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives more bytes, within the time that a frame of `wanted` bytes has; between two requests without a limit.
    async fn receive(&mut self, wanted: usize) -> Result<io::Result<usize>, FrameError> {
        let held = self.held();
        if held > 0 && self.begun.is_none() {
            self.begun = Some(Instant::now());
        }
        let frame_due = self.begun.map(|begun| (begun, begun.plus(granted(self.patience.request, wanted))));
        let received = self.stream.receive(self.buffer.take().expect("nobody receives twice at a time"));
        let (received, buffer) = match (self.first_due, frame_due) {
            (None, None) => received.await,
            (None, Some((begun, due))) => {
                let received = timeout(due.since(Instant::now()), received).await;
                let slow = |_| FrameError::Slow { missing: wanted - held, waited: Instant::now().since(begun) };
                received.map_err(slow)?
            }
            (Some(due), _) => {
                let received = timeout(due.since(Instant::now()), received).await;
                received.map_err(|_| FrameError::NoRequest(self.patience.first_request.as_millis()))?
            }
        };
        self.buffer = Some(buffer);
        Ok(received)
    }

    fn buffer(&self) -> &Buffer {
        self.buffer.as_ref().expect("the kernel has given it back")
    }

    fn buffer_mut(&mut self) -> &mut Buffer {
        self.buffer.as_mut().expect("the kernel has given it back")
    }

    fn held(&self) -> usize {
        self.buffer().len() - self.start
    }

    fn next_length(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.buffer()[self.start..].first_chunk() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let bytes = usize::try_from(length).map_err(|_| FrameError::Negative(length))?;
        if bytes > self.frame_bytes_max {
            return Err(FrameError::TooLarge { bytes, bytes_max: self.frame_bytes_max });
        }
        Ok(Some(bytes))
    }

    /// Whether the next frame is a Produce request; `None` until its first bytes are there.
    fn is_produce(&self) -> Option<bool> {
        let key = self.buffer()[self.start..].get(LENGTH_BYTES..LENGTH_BYTES + API_KEY_BYTES)?;
        Some(key == ApiKey::Produce.code().to_be_bytes())
    }

    /// Takes the next frame, which is there whole. When memory is short and nothing is behind it, the slab goes with it, and
    /// a small one leaves the slab.
    fn take(&mut self, length: usize) -> Frame {
        let is_produce = self.is_produce() == Some(true);
        let begin = self.start + LENGTH_BYTES;
        self.start = begin + length;
        (self.first_due, self.begun) = (None, None);
        self.memory.frame_ends();
        let frame = Frame { bytes: self.buffer().slice(begin..self.start), memory: self.memory.slab() };
        if self.held() > 0 || self.memory.keeps(self.buffer().capacity()) {
            return frame;
        }
        self.memory.gives_up();
        self.buffer = Some(Buffer::with_capacity(RECEIVE_BYTES_MIN));
        self.start = 0;
        if is_produce || length > RECEIVE_BYTES_MIN {
            return frame;
        }
        let mut copy = Buffer::with_capacity(length);
        copy.append(&frame.bytes);
        Frame { bytes: copy.freeze(), memory: self.memory.uncounted() }
    }

    /// Makes room for at least one more byte of a frame of which `wanted` bytes are to be held in all.
    async fn make_room(&mut self, wanted: usize) {
        let held = self.held();
        if held == 0 && self.buffer_mut().clear() {
            self.start = 0;
            return self.rest();
        }
        let room = self.buffer().remaining();
        let worth_it = wanted > LENGTH_BYTES || room >= self.receive_bytes / 4;
        if self.start + wanted <= self.buffer().capacity() && worth_it {
            return;
        }
        let wanted = wanted.min((2 * held).max(self.memory.trusted_bytes()));
        if self.start == 0 && room > 0 && self.buffer().capacity() >= wanted {
            return;
        }
        if wanted < self.receive_bytes && self.memory.prefers(self.receive_bytes) {
            self.renew(self.receive_bytes);
        } else if self.memory.takes(Buffer::capacity_for(wanted)) {
            self.renew(wanted);
        } else if room == 0 {
            let waits_from = Instant::now();
            self.memory.takes_in_turn(Buffer::capacity_for(wanted)).await;
            let waited = Instant::now().since(waits_from);
            self.begun = self.begun.map(|begun| begun.plus(waited));
            self.first_due = self.first_due.map(|due| due.plus(waited));
            self.renew(wanted);
        }
    }

    /// Chooses the slab to wait for the next frame with; the present one is empty.
    fn rest(&mut self) {
        if !self.memory.keeps(self.buffer().capacity()) {
            self.memory.gives_up();
            self.renew(RECEIVE_BYTES_MIN);
        }
        if self.buffer().capacity() < self.receive_bytes && self.memory.prefers(self.receive_bytes) {
            self.renew(self.receive_bytes);
        }
    }

    /// Goes on in a new slab, for which memory was taken.
    fn renew(&mut self, bytes: usize) {
        let mut buffer = Buffer::with_capacity(bytes);
        buffer.append(&self.buffer()[self.start..]);
        self.buffer = Some(buffer);
        self.start = 0;
    }
}
