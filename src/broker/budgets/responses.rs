//! The memory of responses: what waits to be sent, with every slab that it keeps alive.
//!
//! A slice of a log's buffer costs nothing to send but keeps its whole slab from being used again, however short the slice.
//! So a slab counts whole, once for the shard however many connections send from it: a thousand consumers at the end of one
//! log keep one slab. Beside the slabs count the bytes that were encoded. A connection counts the bytes that it has to send.
//!
//! A response is there when it is counted, so counting never waits. What waits is the connection, before it takes the next
//! request: as long as it has more to send than its share, or all connections together more than there is. A fetch asks
//! first what its answer may hold. When slabs pass half of the budget, slices that are short against theirs are copied.
//!
//! What this file does not do: it neither sends nor times out; a write that does not end is ended elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};

use smallvec::SmallVec;

use crate::runtime::sync::Notify;
use crate::runtime::{Buffer, SlabId, Slice};
use crate::types::{Piece, Pieces};

/// The share of all that one connection may have to send: four that read nothing leave the others nothing, and are ended by
/// the deadline of their writes.
const CONNECTIONS_MIN: usize = 4;
/// Bytes that an answer may hold although there is no room: a batch of the default size is read in one piece.
const ANSWER_BYTES_MIN: usize = 64 << 10;
/// A slice is short if its slab is at least so many times as long.
const SHORT_FACTOR: usize = 8;

/// Memory for responses of one shard.
pub(in crate::broker) struct ResponseMemory {
    bytes_max: usize,
    encoded_bytes: Cell<usize>,
    slabs_bytes: Cell<usize>,
    slabs: RefCell<HashMap<SlabId, Slab>>,
    waiting: RefCell<VecDeque<Weak<Sender>>>,
}

/// A slab that responses keep alive.
struct Slab {
    bytes: usize,
    slices: usize,
}

/// A connection, as the others see it.
#[derive(Default)]
struct Sender {
    bytes: Cell<usize>,
    is_waiting: Cell<bool>,
    call: Notify,
}

/// What one connection has to send.
pub(in crate::broker) struct SendMemory {
    memory: Rc<ResponseMemory>,
    sender: Rc<Sender>,
}

/// A response that counts until this is dropped: when it has been sent.
pub(in crate::broker) struct Queued {
    memory: Rc<ResponseMemory>,
    sender: Rc<Sender>,
    encoded_bytes: usize,
    bytes: usize,
    slabs: SmallVec<[SlabId; 8]>,
}

impl ResponseMemory {
    /// Memory of which nothing is taken.
    pub(in crate::broker) fn new(bytes_max: usize) -> Rc<ResponseMemory> {
        Rc::new(ResponseMemory {
            bytes_max,
            encoded_bytes: Cell::new(0),
            slabs_bytes: Cell::new(0),
            slabs: RefCell::default(),
            waiting: RefCell::default(),
        })
    }

    /// Bytes that are taken.
    pub(in crate::broker) fn taken(&self) -> usize {
        self.encoded_bytes.get() + self.slabs_bytes.get()
    }

    fn sender_bytes_max(&self) -> usize {
        self.bytes_max / CONNECTIONS_MIN
    }

    fn add(&self, slice: &Slice) -> SlabId {
        let id = slice.slab();
        let mut slabs = self.slabs.borrow_mut();
        let slab = slabs.entry(id).or_insert_with(|| {
            self.slabs_bytes.set(self.slabs_bytes.get() + slice.pinned_bytes());
            Slab { bytes: slice.pinned_bytes(), slices: 0 }
        });
        slab.slices += 1;
        id
    }

    fn remove(&self, id: SlabId) {
        let mut slabs = self.slabs.borrow_mut();
        let slab = slabs.get_mut(&id).expect("it was added");
        slab.slices -= 1;
        if slab.slices == 0 {
            self.slabs_bytes.set(self.slabs_bytes.get() - slab.bytes);
            slabs.remove(&id);
        }
    }

    /// Lets one connection look that waits for room for all, if there is some; it lets the next one look.
    fn call_next(&self) {
        while self.taken() < self.bytes_max {
            let Some(first) = self.waiting.borrow_mut().pop_front() else { return };
            if let Some(sender) = first.upgrade().filter(|sender| sender.is_waiting.take()) {
                sender.call.notify();
                return;
            }
        }
    }
}

impl SendMemory {
    /// A connection that has nothing to send.
    pub(in crate::broker) fn new(memory: &Rc<ResponseMemory>) -> SendMemory {
        SendMemory { memory: memory.clone(), sender: Rc::default() }
    }

    /// Bytes that this connection has to send.
    #[cfg(test)]
    pub(in crate::broker) fn bytes(&self) -> usize {
        self.sender.bytes.get()
    }

    /// Waits until the connection may take another request: it has less to send than its share, and so have all together.
    pub(in crate::broker) async fn room(&self) {
        let _look = Look(self);
        loop {
            if self.sender.bytes.get() >= self.memory.sender_bytes_max() {
                // It was not its turn but the next one's.
                self.memory.call_next();
            } else if self.memory.taken() < self.memory.bytes_max {
                return;
            } else if !self.sender.is_waiting.replace(true) {
                self.memory.waiting.borrow_mut().push_back(Rc::downgrade(&self.sender));
            }
            self.sender.call.notified().await;
        }
    }

    /// Bytes of records that an answer may hold, if `wanted` are asked for: what is left to the connection and to all, and
    /// a little where nothing is left, so that every answer makes progress.
    pub(in crate::broker) fn answer_bytes(&self, wanted: usize) -> usize {
        let own = self.memory.sender_bytes_max().saturating_sub(self.sender.bytes.get());
        let all = self.memory.bytes_max.saturating_sub(self.memory.taken());
        wanted.min(own.min(all).max(ANSWER_BYTES_MIN))
    }

    /// Counts a response that is about to be queued, after copying slices of it if slabs take too much.
    pub(in crate::broker) fn queue(&self, pieces: &mut Pieces<Slice>) -> Queued {
        if self.memory.slabs_bytes.get() > self.memory.bytes_max / 2 {
            *pieces = copy_short(std::mem::take(pieces));
        }
        let mut encoded_bytes = 0;
        let mut slabs: SmallVec<[SlabId; 8]> = SmallVec::new();
        for piece in pieces.as_slice() {
            match piece {
                Piece::Encoded(bytes) => encoded_bytes += bytes.len(),
                Piece::Shared(slice) if slabs.last() == Some(&slice.slab()) => {}
                Piece::Shared(slice) => slabs.push(self.memory.add(slice)),
            }
        }
        let bytes = pieces.bytes();
        self.memory.encoded_bytes.set(self.memory.encoded_bytes.get() + encoded_bytes);
        self.sender.bytes.set(self.sender.bytes.get() + bytes);
        Queued { memory: self.memory.clone(), sender: self.sender.clone(), encoded_bytes, bytes, slabs }
    }
}

/// While it lives the connection may be called. Afterwards it is the next one's turn, however the wait ended.
struct Look<'a>(&'a SendMemory);

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.0.sender.is_waiting.set(false);
        self.0.memory.call_next();
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let memory = &self.memory;
        memory.encoded_bytes.set(memory.encoded_bytes.get() - self.encoded_bytes);
        self.slabs.drain(..).for_each(|slab| memory.remove(slab));
        self.sender.bytes.set(self.sender.bytes.get() - self.bytes);
        self.sender.call.notify();
        memory.call_next();
    }
}

/// The same bytes, with short slices in buffers of their own. Neighbours that are copied share one.
fn copy_short(pieces: Pieces<Slice>) -> Pieces<Slice> {
    let is_short = |piece: &Piece<Slice>| match piece {
        Piece::Encoded(_) => false,
        Piece::Shared(slice) => slice.len().saturating_mul(SHORT_FACTOR) <= slice.pinned_bytes(),
    };
    let mut copied = Vec::new();
    let all = pieces.into_vec();
    for together in all.chunk_by(|one, other| is_short(one) && is_short(other)) {
        if is_short(&together[0]) {
            let mut buffer = Buffer::with_capacity(together.iter().map(|piece| piece.as_ref().len()).sum());
            together.iter().for_each(|piece| buffer.append(piece.as_ref()));
            copied.push(Piece::Shared(buffer.freeze()));
        } else {
            copied.push(together[0].clone());
        }
    }
    copied.into()
}

#[cfg(test)]
mod tests;
