//! One shard's place in a mesh: the credits of its requests, the slots of their replies, and what has arrived.
//!
//! A credit is a request's right to be on the way: at most `window` are out towards each shard, given first come, first served,
//! and passed on when the reply has come or the request was not sent. Whoever leaves shuts the lanes towards itself first and
//! tells the others then, so that no request falls in between.
//!
//! What this file does not do: it says nothing of how a shard sends and receives; those are the handles of [`super`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use super::lane::{Lanes, Parcel};
use super::slots::Slots;
use super::{Bell, Collect, Incoming, Left, Pending, Reply};
use crate::runtime::sync::Sender;
use crate::runtime::{real, sim};
use crate::types::ShardId;

/// How this shard reaches the others.
pub(super) enum Carrier {
    Real(Rc<real::Shard>),
    Sim(sim::Carrier),
}

/// What a shard knows of another one.
pub(super) struct Peer<Q: Send + 'static, R: Send + 'static> {
    pub(super) slots: Slots<R>,
    /// Requests without a reply, and credits that were given out for them: at most `window`.
    pub(super) in_flight: u32,
    /// Who waits for a credit. Empty unless all are in use.
    pub(super) waiting: VecDeque<Sender<Credit<Q, R>>>,
    has_left: bool,
}

impl<Q: Send + 'static, R: Send + 'static> Default for Peer<Q, R> {
    fn default() -> Peer<Q, R> {
        Peer { slots: Slots::default(), in_flight: 0, waiting: VecDeque::new(), has_left: false }
    }
}

/// A request that waits in the inbox.
pub(super) struct Arrived<Q> {
    from: ShardId,
    slot: u32,
    request: Q,
}

impl<Q: Send + 'static> Arrived<Q> {
    pub(super) fn incoming<R: Send + 'static>(self, endpoint: &Rc<Endpoint<Q, R>>) -> Incoming<Q, R> {
        let reply = Reply { endpoint: endpoint.clone(), to: self.from, slot: self.slot, is_answered: false };
        Incoming { request: self.request, reply }
    }
}

/// The state of an inbox.
pub(super) struct Arrivals<Q> {
    pub(super) requests: Vec<Arrived<Q>>,
    pub(super) waker: Option<Waker>,
    pub(super) is_closed: bool,
}

impl<Q> Default for Arrivals<Q> {
    fn default() -> Arrivals<Q> {
        Arrivals { requests: Vec::new(), waker: None, is_closed: false }
    }
}

/// Whether the lanes are being emptied. What runs meanwhile (destructors of requests) may send to its own shard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Collecting {
    No,
    Yes,
    Again,
}

/// One shard's place in the mesh; it is left when the last handle is dropped.
pub(super) struct Endpoint<Q: Send + 'static, R: Send + 'static> {
    lanes: Arc<Lanes<Q, R>>,
    pub(super) shard: ShardId,
    pub(super) carrier: Carrier,
    peers: Vec<RefCell<Peer<Q, R>>>,
    pub(super) arrived: RefCell<Arrivals<Q>>,
    /// Swapped with a lane's content; empty between uses.
    scratch: RefCell<Vec<Parcel<Q, R>>>,
    collecting: Cell<Collecting>,
}

/// What becomes of the wish to send.
pub(super) enum Room<Q: Send + 'static, R: Send + 'static> {
    Credit(Credit<Q, R>),
    Full,
    Left,
}

impl<Q: Send + 'static, R: Send + 'static> Endpoint<Q, R> {
    pub(super) fn new(lanes: Arc<Lanes<Q, R>>, shard: ShardId, carrier: Carrier) -> Rc<Endpoint<Q, R>> {
        let peers = (0..lanes.shards()).map(|_| RefCell::default()).collect();
        Rc::new(Endpoint {
            lanes,
            shard,
            carrier,
            peers,
            arrived: RefCell::default(),
            scratch: RefCell::default(),
            collecting: Cell::new(Collecting::No),
        })
    }

    pub(super) fn peer(&self, shard: ShardId) -> &RefCell<Peer<Q, R>> {
        &self.peers[usize::from(shard.0)]
    }

    pub(super) fn ask_credit(self: &Rc<Self>, to: ShardId) -> Room<Q, R> {
        let mut peer = self.peer(to).borrow_mut();
        if peer.has_left {
            return Room::Left;
        }
        if peer.in_flight == self.lanes.window() {
            return Room::Full;
        }
        debug_assert!(peer.waiting.is_empty(), "a free credit goes to whoever waits");
        peer.in_flight += 1;
        Room::Credit(Credit { endpoint: self.clone(), to, is_spent: false })
    }

    pub(super) fn wait_in_line(&self, to: ShardId, waiter: Sender<Credit<Q, R>>) {
        let mut peer = self.peer(to).borrow_mut();
        // Those who gave up would pile up behind a shard that stands still.
        peer.waiting.retain(|other| !other.is_abandoned());
        peer.waiting.push_back(waiter);
    }

    pub(super) fn send(self: &Rc<Self>, mut credit: Credit<Q, R>, request: Q) -> Result<Pending<Q, R>, Left<Q>> {
        let to = credit.to;
        let slot = {
            let mut peer = self.peer(to).borrow_mut();
            if peer.has_left {
                drop(peer);
                return Err(Left(request));
            }
            peer.slots.insert()
        };
        credit.is_spent = true;
        let pending = Pending { endpoint: self.clone(), to, slot: Some(slot) };
        self.dispatch(to, Parcel::Request { slot, request });
        Ok(pending)
    }

    /// A reply has come or a credit was not used: somebody else may send.
    fn release_credit(self: &Rc<Self>, to: ShardId) {
        loop {
            let next = {
                let mut peer = self.peer(to).borrow_mut();
                let next = peer.waiting.pop_front();
                if next.is_none() {
                    peer.in_flight -= 1;
                }
                next
            };
            match next {
                Some(waiter) if waiter.is_abandoned() => {}
                Some(waiter) => return waiter.send(Credit { endpoint: self.clone(), to, is_spent: false }),
                None => return,
            }
        }
    }

    pub(super) fn dispatch(self: &Rc<Self>, to: ShardId, parcel: Parcel<Q, R>) {
        self.carry(to, parcel);
        if to == self.shard && matches!(self.carrier, Carrier::Real(_)) {
            self.clone().collect();
        }
    }

    /// Puts a parcel on its lane and rings the bell of another shard.
    fn carry(&self, to: ShardId, parcel: Parcel<Q, R>) {
        let from = self.shard;
        match &self.carrier {
            Carrier::Real(here) => {
                self.lanes.between(from, to).push(parcel);
                match self.lanes.bell(to) {
                    Some(Bell::Real(bell)) if to != from => here.ring_bell(bell),
                    Some(Bell::Sim(_)) => unreachable!("a mesh belongs to one world"),
                    // Its own shard looks by itself, and one that has not joined will.
                    Some(Bell::Real(_)) | None => {}
                }
            }
            Carrier::Sim(carrier) => {
                let lanes = self.lanes.clone();
                carrier.carry(to, move || {
                    lanes.between(from, to).push(parcel);
                    match lanes.bell(to) {
                        Some(Bell::Sim(bell)) => Some(*bell),
                        Some(Bell::Real(_)) => unreachable!("a mesh belongs to one world"),
                        None => None,
                    }
                });
            }
        }
    }

    fn take_in(self: &Rc<Self>, from: ShardId, parcel: Parcel<Q, R>) {
        match parcel {
            Parcel::Request { slot, request } => {
                let mut arrivals = self.arrived.borrow_mut();
                if arrivals.is_closed {
                    drop(arrivals);
                    drop(Arrived { from, slot, request }.incoming(self));
                } else {
                    arrivals.requests.push(Arrived { from, slot, request });
                }
            }
            Parcel::Reply { slot, reply } => {
                let arrival = self.peer(from).borrow_mut().slots.arrive(slot, reply);
                arrival.tell();
                self.release_credit(from);
            }
            Parcel::Left => {
                let (arrivals, waiting) = {
                    let mut peer = self.peer(from).borrow_mut();
                    peer.has_left = true;
                    (peer.slots.fail_all(), std::mem::take(&mut peer.waiting))
                };
                arrivals.into_iter().for_each(Waker::wake);
                // Dropping a sender tells its waiter.
                drop(waiting);
            }
        }
    }

    pub(super) fn close_inbox(&self) {
        let waker = {
            let mut arrivals = self.arrived.borrow_mut();
            arrivals.is_closed = true;
            arrivals.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Moves everything from the lanes into slots and the inbox. Says whether requests are waiting there.
    fn empty_lanes(self: &Rc<Self>) -> bool {
        for from in (0..self.lanes.shards()).map(ShardId) {
            let mut parcels = self.scratch.take();
            self.lanes.between(from, self.shard).take(&mut parcels);
            for parcel in parcels.drain(..) {
                self.take_in(from, parcel);
            }
            self.scratch.replace(parcels);
        }
        !self.arrived.borrow().requests.is_empty()
    }
}

impl<Q: Send + 'static, R: Send + 'static> Collect for Endpoint<Q, R> {
    fn collect(self: Rc<Self>) {
        if self.collecting.get() != Collecting::No {
            return self.collecting.set(Collecting::Again);
        }
        let mut is_waiting = false;
        loop {
            self.collecting.set(Collecting::Yes);
            is_waiting |= self.empty_lanes();
            if self.collecting.get() == Collecting::Yes {
                break;
            }
        }
        self.collecting.set(Collecting::No);
        let waker = if is_waiting { self.arrived.borrow_mut().waker.take() } else { None };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<Q: Send + 'static, R: Send + 'static> Drop for Endpoint<Q, R> {
    fn drop(&mut self) {
        let others = (0..self.lanes.shards()).map(ShardId).filter(|&other| other != self.shard);
        // First shut the lanes here: a request that is too late for that is failed by the notice that follows.
        self.lanes.between(self.shard, self.shard).close();
        for other in others {
            self.lanes.between(other, self.shard).close();
            self.carry(other, Parcel::Left);
        }
    }
}

/// The right to send one request. Dropping an unused one passes it on.
pub(super) struct Credit<Q: Send + 'static, R: Send + 'static> {
    endpoint: Rc<Endpoint<Q, R>>,
    to: ShardId,
    is_spent: bool,
}

impl<Q: Send + 'static, R: Send + 'static> Drop for Credit<Q, R> {
    fn drop(&mut self) {
        if !self.is_spent {
            self.endpoint.release_credit(self.to);
        }
    }
}
