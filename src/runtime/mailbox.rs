//! Mailboxes between the shards of a process: requests with one reply each, bounded, in order, taken in batches.
//!
//! A [`Mesh`] joins all shards with each other. On its shard, [`Mesh::join`] gives a [`Post`], which sends requests to any
//! shard (its own, too), and the [`Inbox`] of those that arrive. A request reserves the slot of its reply: between two
//! shards at most `window` requests are on the way or being worked on, in each direction, so replies never wait for room and
//! every lane is bounded. Requests from one shard to another arrive in the order in which they were sent.
//!
//! **No deadlock**: whoever owes a reply must not wait for room. Such a task uses [`Post::try_send`], never [`Post::send`];
//! then two shards whose mailboxes are full both ways drain each other.
//!
//! What this module does not do: it copies and measures nothing. A request is as large as its sender makes it; its bytes
//! are charged to a budget by whoever made them. Waking the other shard is the world's part (`real`, `sim`).

mod endpoint;
mod lane;
mod slots;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use self::endpoint::{Carrier, Endpoint, Room};
use self::lane::{Lanes, Parcel};
use super::context::{Backend, current};
use super::sync::oneshot;
use super::{real, sim};
use crate::types::ShardId;

/// Requests on the way or being worked on from one shard to another. A lane's memory is the requests' and replies' own size
/// times this; with fewer, a shard that is behind by one scheduling round (about a millisecond) holds the others up.
pub const WINDOW: u32 = 256;

/// How a shard is told that something has come.
pub(super) enum Bell {
    Real(Arc<real::Bell>),
    Sim(sim::BellId),
}

/// What a world calls on a shard after its bell was rung.
pub(super) trait Collect {
    /// Takes in everything that has arrived.
    fn collect(self: Rc<Self>);
}

/// The mailboxes between all shards of a process. Made before the shards start; clones are the same mesh.
///
/// `Q` is what is asked, `R` what is answered.
pub struct Mesh<Q, R> {
    lanes: Arc<Lanes<Q, R>>,
}

impl<Q, R> Clone for Mesh<Q, R> {
    fn clone(&self) -> Mesh<Q, R> {
        Mesh { lanes: self.lanes.clone() }
    }
}

impl<Q: Send + 'static, R: Send + 'static> Mesh<Q, R> {
    /// A mesh of `shards` shards with [`WINDOW`] requests per pair and direction.
    pub fn new(shards: u16) -> Mesh<Q, R> {
        Mesh::with_window(shards, WINDOW)
    }

    /// A mesh of `shards` shards with at most `window` requests under way per pair and direction.
    ///
    /// # Panics
    /// Without a shard or without a window.
    pub fn with_window(shards: u16, window: u32) -> Mesh<Q, R> {
        assert!(shards > 0 && window > 0);
        Mesh { lanes: Arc::new(Lanes::new(shards, window)) }
    }

    /// Takes the place of `shard`, which is the calling one. What was sent to it before is waiting in its inbox.
    ///
    /// # Errors
    /// No descriptors are left (EMFILE, ENFILE): in the real world a shard that can be called has two.
    ///
    /// # Panics
    /// If the place does not exist or was taken before.
    pub fn join(&self, shard: ShardId) -> io::Result<(Post<Q, R>, Inbox<Q, R>)> {
        let carrier = match current() {
            Backend::Real(shard) => Carrier::Real(shard),
            Backend::Sim(here) => Carrier::Sim(sim::Carrier::new(here, self.lanes.shards())),
        };
        let endpoint = Endpoint::new(self.lanes.clone(), shard, carrier);
        let listener: Weak<Endpoint<Q, R>> = Rc::downgrade(&endpoint);
        let bell = match &endpoint.carrier {
            Carrier::Real(here) => Bell::Real(here.listen_to_bell(listener)?),
            Carrier::Sim(carrier) => Bell::Sim(carrier.listen_to_bell(listener)),
        };
        self.lanes.take_place(shard, bell);
        // Whoever sent before it could see the bell has rung none.
        endpoint.clone().collect();
        Ok((Post { endpoint: endpoint.clone() }, Inbox { endpoint }))
    }
}

/// The request could not be sent, because the other shard has left the mesh. Gives it back.
#[derive(PartialEq, Eq, thiserror::Error)]
#[error("the shard has left")]
pub struct Left<Q>(pub Q);

/// Why [`Post::try_send`] did not send. Gives the request back.
#[derive(PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<Q> {
    /// As many requests as may be are under way to that shard, or others wait to send one.
    #[error("the mailbox is full")]
    Full(Q),
    /// The other shard has left the mesh.
    #[error("the shard has left")]
    Left(Q),
}

// By hand: requests need no Debug, and would fill the log.
impl<Q> fmt::Debug for Left<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Left")
    }
}

impl<Q> fmt::Debug for TrySendError<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "Full",
            TrySendError::Left(_) => "Left",
        })
    }
}

/// The sending side of a shard. Clones are the same.
pub struct Post<Q: Send + 'static, R: Send + 'static> {
    endpoint: Rc<Endpoint<Q, R>>,
}

impl<Q: Send + 'static, R: Send + 'static> Clone for Post<Q, R> {
    fn clone(&self) -> Post<Q, R> {
        Post { endpoint: self.endpoint.clone() }
    }
}

impl<Q: Send + 'static, R: Send + 'static> Post<Q, R> {
    /// The shard that sends.
    pub fn shard(&self) -> ShardId {
        self.endpoint.shard
    }

    /// Sends `request` to the shard `to` as soon as there is room, first come, first served, and returns a future of the
    /// reply. A task that owes a reply must not wait here: see [`Post::try_send`].
    ///
    /// A dropped future has sent nothing.
    ///
    /// # Errors
    /// The shard has left.
    ///
    /// # Panics
    /// If the mesh has no shard `to`.
    pub async fn send(&self, to: ShardId, request: Q) -> Result<Pending<Q, R>, Left<Q>> {
        let credit = match self.endpoint.ask_credit(to) {
            Room::Credit(credit) => Some(credit),
            Room::Full => {
                let (sender, receiver) = oneshot();
                self.endpoint.wait_in_line(to, sender);
                receiver.await
            }
            Room::Left => None,
        };
        match credit {
            Some(credit) => self.endpoint.send(credit, request),
            None => Err(Left(request)),
        }
    }

    /// Sends `request` to the shard `to` if there is room at once.
    ///
    /// # Errors
    /// There is none, or the shard has left.
    ///
    /// # Panics
    /// If the mesh has no shard `to`.
    pub fn try_send(&self, to: ShardId, request: Q) -> Result<Pending<Q, R>, TrySendError<Q>> {
        match self.endpoint.ask_credit(to) {
            Room::Credit(credit) => {
                self.endpoint.send(credit, request).map_err(|Left(request)| TrySendError::Left(request))
            }
            Room::Full => Err(TrySendError::Full(request)),
            Room::Left => Err(TrySendError::Left(request)),
        }
    }

    /// Sends `request` and waits for its reply; `None` if there will be none, as for [`Pending`], or the shard has left.
    pub async fn request(&self, to: ShardId, request: Q) -> Option<R> {
        self.send(to, request).await.ok()?.await
    }

    /// Ends this shard's inbox: what has arrived can still be received, what comes is refused.
    pub fn close(&self) {
        self.endpoint.close_inbox();
    }
}

/// The reply to a request that was sent: `Some(reply)`, or `None` if the other shard has left or refused to answer.
///
/// Dropping it leaves the slot to the reply on its way; the request is still carried out.
pub struct Pending<Q: Send + 'static, R: Send + 'static> {
    endpoint: Rc<Endpoint<Q, R>>,
    to: ShardId,
    /// `None` once the reply was taken.
    slot: Option<u32>,
}

impl<Q: Send + 'static, R: Send + 'static> Pending<Q, R> {
    /// Takes the reply if it is there, as awaiting would give it.
    ///
    /// # Panics
    /// If it was taken before.
    pub fn try_take(&mut self) -> Option<Option<R>> {
        match Pin::new(self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reply) => Some(reply),
            Poll::Pending => None,
        }
    }
}

impl<Q: Send + 'static, R: Send + 'static> Future for Pending<Q, R> {
    type Output = Option<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        let slot = self.slot.expect("a future is not polled after it was ready");
        let reply = self.endpoint.peer(self.to).borrow_mut().slots.poll(slot, context);
        if reply.is_ready() {
            self.slot = None;
        }
        reply
    }
}

impl<Q: Send + 'static, R: Send + 'static> Drop for Pending<Q, R> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let unwanted = self.endpoint.peer(self.to).borrow_mut().slots.abandon(slot);
            drop(unwanted);
        }
    }
}

/// The receiving side of a shard. Dropping it refuses what is in it and what comes.
pub struct Inbox<Q: Send + 'static, R: Send + 'static> {
    endpoint: Rc<Endpoint<Q, R>>,
}

impl<Q: Send + 'static, R: Send + 'static> Inbox<Q, R> {
    /// Waits for requests and appends all that have arrived to `batch`, those of one shard in their order. Returns how many;
    /// 0 is the end: the inbox was closed and is empty.
    pub async fn receive(&mut self, batch: &mut Vec<Incoming<Q, R>>) -> usize {
        poll_fn(|context| {
            let mut arrived = self.endpoint.arrived.borrow_mut();
            if arrived.requests.is_empty() && !arrived.is_closed {
                arrived.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let count = arrived.requests.len();
            batch.extend(arrived.requests.drain(..).map(|request| request.incoming(&self.endpoint)));
            Poll::Ready(count)
        })
        .await
    }
}

impl<Q: Send + 'static, R: Send + 'static> Drop for Inbox<Q, R> {
    fn drop(&mut self) {
        self.endpoint.close_inbox();
        let refused = std::mem::take(&mut self.endpoint.arrived.borrow_mut().requests);
        for request in refused {
            drop(request.incoming(&self.endpoint));
        }
    }
}

/// A request that arrived.
pub struct Incoming<Q: Send + 'static, R: Send + 'static> {
    /// What is asked.
    pub request: Q,
    /// Where the reply goes.
    pub reply: Reply<Q, R>,
}

/// The right, and the duty, to answer one request. Dropping it tells the asking shard that there will be no reply.
#[must_use = "a request is owed its reply"]
pub struct Reply<Q: Send + 'static, R: Send + 'static> {
    endpoint: Rc<Endpoint<Q, R>>,
    to: ShardId,
    slot: u32,
    is_answered: bool,
}

impl<Q: Send + 'static, R: Send + 'static> Reply<Q, R> {
    /// The shard that asked.
    pub fn to(&self) -> ShardId {
        self.to
    }

    /// Answers. Never waits; nobody hears it if the asking shard has left.
    pub fn send(mut self, reply: R) {
        self.is_answered = true;
        self.endpoint.dispatch(self.to, Parcel::Reply { slot: self.slot, reply: Some(reply) });
    }
}

impl<Q: Send + 'static, R: Send + 'static> Drop for Reply<Q, R> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.endpoint.dispatch(self.to, Parcel::Reply { slot: self.slot, reply: None });
        }
    }
}
