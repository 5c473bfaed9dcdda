//! The lanes of a mesh: one queue for every ordered pair of shards, shared by the two threads.
//!
//! A lane has one sender and one receiver. The sender appends under a lock that is held for a push; the receiver swaps the
//! whole content for an empty vector, so a batch costs one lock and, after warm-up, no allocation. Its length is bounded by
//! the credits, which is asserted: requests by the sender's, replies by the receiver's.
//!
//! What this file does not do: it wakes nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::Bell;
use crate::types::ShardId;

/// What goes from one shard to another.
pub(super) enum Parcel<Q, R> {
    /// A request, and the sender's slot for its reply.
    Request { slot: u32, request: Q },
    /// The reply to the receiver's request of that slot; `None` if there will be none.
    Reply { slot: u32, reply: Option<R> },
    /// The sender has left; nothing follows.
    Left,
}

struct Content<Q, R> {
    parcels: Vec<Parcel<Q, R>>,
    /// The receiver has left.
    is_closed: bool,
}

/// The parcels from one shard to another.
pub(super) struct Lane<Q, R> {
    /// Whether there may be something in it: spares the receiver the lock.
    is_filled: AtomicBool,
    content: Mutex<Content<Q, R>>,
    length_max: usize,
}

impl<Q, R> Lane<Q, R> {
    fn new(window: u32) -> Lane<Q, R> {
        let content = Mutex::new(Content { parcels: Vec::new(), is_closed: false });
        // Requests, replies and the last notice.
        Lane { is_filled: AtomicBool::new(false), content, length_max: 2 * window as usize + 1 }
    }

    fn content(&self) -> MutexGuard<'_, Content<Q, R>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a parcel; drops it if the receiver has left.
    pub(super) fn push(&self, parcel: Parcel<Q, R>) {
        let mut content = self.content();
        if content.is_closed {
            // Its destructor is not run under the lock.
            drop(content);
            return drop(parcel);
        }
        content.parcels.push(parcel);
        assert!(content.parcels.len() <= self.length_max, "credits bound what is in flight");
        self.is_filled.store(true, Ordering::Release);
    }

    /// Moves everything into `parcels`, which is empty, and keeps its memory instead.
    pub(super) fn take(&self, parcels: &mut Vec<Parcel<Q, R>>) {
        debug_assert!(parcels.is_empty());
        // A push that is not seen here rings the bell afterwards.
        if !self.is_filled.load(Ordering::Acquire) {
            return;
        }
        let mut content = self.content();
        self.is_filled.store(false, Ordering::Release);
        std::mem::swap(&mut content.parcels, parcels);
    }

    /// The receiver leaves: drops what is there and whatever comes.
    pub(super) fn close(&self) {
        let parcels = {
            let mut content = self.content();
            content.is_closed = true;
            std::mem::take(&mut content.parcels)
        };
        drop(parcels);
    }
}

/// All lanes of a mesh, and the bells of those who have joined.
pub(super) struct Lanes<Q, R> {
    shards: u16,
    window: u32,
    /// Row by row: by sender, then receiver.
    lanes: Vec<Lane<Q, R>>,
    bells: Vec<OnceLock<Bell>>,
}

impl<Q, R> Lanes<Q, R> {
    pub(super) fn new(shards: u16, window: u32) -> Lanes<Q, R> {
        let count = usize::from(shards) * usize::from(shards);
        let lanes = (0..count).map(|_| Lane::new(window)).collect();
        Lanes { shards, window, lanes, bells: (0..shards).map(|_| OnceLock::new()).collect() }
    }

    pub(super) fn shards(&self) -> u16 {
        self.shards
    }

    pub(super) fn window(&self) -> u32 {
        self.window
    }

    pub(super) fn between(&self, from: ShardId, to: ShardId) -> &Lane<Q, R> {
        assert!(from.0 < self.shards && to.0 < self.shards, "the mesh has {} shards", self.shards);
        &self.lanes[usize::from(from.0) * usize::from(self.shards) + usize::from(to.0)]
    }

    /// The bell of a shard; `None` if it has not joined.
    pub(super) fn bell(&self, shard: ShardId) -> Option<&Bell> {
        self.bells[usize::from(shard.0)].get()
    }

    /// Publishes the bell of a shard that joins. Lanes are locked after it on one side and before it on the other, so that
    /// a parcel is either seen by a look that follows, or its sender sees the bell.
    pub(super) fn take_place(&self, shard: ShardId, bell: Bell) {
        let place = self.bells.get(usize::from(shard.0));
        let place = place.unwrap_or_else(|| panic!("the mesh has {} shards", self.shards));
        assert!(place.set(bell).is_ok(), "a shard joins a mesh once");
    }
}
