//! Who waits for a partition to move on: produces for their records to be committed, fetches for bytes to arrive.
//!
//! Both cost nothing while nothing happens, and a step of the partition touches those that it serves and no others: produces
//! wait in a queue ordered by offset, and a parked fetch counts the bytes that it still misses instead of looking again.
//! A waiting task has one entry at most, whose waker is replaced, never added to.
//!
//! What this file does not do: it has no timer; a wait that is given up removes its entry when it is dropped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use crate::runtime::sync::Notify;
use crate::types::Offset;

/// A produce that waits until the partition is committed up to `end`.
struct CommitWait {
    end: Offset,
    ticket: u64,
    waker: Waker,
}

/// The bytes that a fetch misses to its minimum, counted by all shards on which it waits.
pub type MissingBytes = Arc<AtomicU64>;

/// A fetch that waits on this shard for bytes, of any of its partitions together.
#[derive(Default)]
pub struct ParkedFetch {
    missing_bytes: MissingBytes,
    ready: Notify,
}

impl ParkedFetch {
    /// A fetch that misses `bytes` bytes (at least one) to its minimum.
    pub fn new(bytes: u64) -> Rc<ParkedFetch> {
        ParkedFetch::sharing(Arc::new(AtomicU64::new(bytes.max(1))))
    }

    /// The part of a fetch that waits here; `missing_bytes` is that of its other parts too. The part whose bytes are the last
    /// missing ones is the one that becomes ready.
    pub fn sharing(missing_bytes: MissingBytes) -> Rc<ParkedFetch> {
        Rc::new(ParkedFetch { missing_bytes, ready: Notify::new() })
    }

    /// Makes the fetch ready, whatever is missing.
    pub fn hurry(&self) {
        self.ready.notify();
    }

    /// Waits until the bytes have arrived, or something else happened that the client should see.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// So many bytes arrived: the fetch is ready once none are missing.
    pub fn arrived(&self, bytes: u64) {
        // Nothing is published by this counter: the records are read on the shard that appended them.
        let subtract = |missing: u64| Some(missing.saturating_sub(bytes));
        let before = self.missing_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
        if before.is_ok_and(|before| before <= bytes) {
            self.ready.notify();
        }
    }
}

/// The place of a parked fetch in one partition. Dropping it gives the place back.
pub struct Parking {
    waits: Rc<Waits>,
    place: usize,
}

impl Drop for Parking {
    fn drop(&mut self) {
        self.waits.fetches.borrow_mut()[self.place] = None;
        self.waits.places_free.borrow_mut().push(self.place);
    }
}

/// The waiting tasks of one partition.
#[derive(Default)]
pub(super) struct Waits {
    commits: RefCell<VecDeque<CommitWait>>,
    tickets: Cell<u64>,
    fetches: RefCell<Vec<Option<Rc<ParkedFetch>>>>,
    places_free: RefCell<Vec<usize>>,
}

impl Waits {
    /// Waits until `outcome` says something. It is asked again whenever the partition is committed up to `end`, and when
    /// [`Waits::wake_all`] is called.
    pub(super) async fn committed<T>(&self, end: Offset, outcome: impl Fn() -> Option<T>) -> T {
        let place = CommitPlace { waits: self, end, ticket: Cell::new(None) };
        poll_fn(|context| match outcome() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                self.wait(&place, context.waker());
                Poll::Pending
            }
        })
        .await
    }

    fn wait(&self, place: &CommitPlace<'_>, waker: &Waker) {
        let mut commits = self.commits.borrow_mut();
        if let Some(known) = place.find(&commits) {
            commits[known].waker.clone_from(waker);
            return;
        }
        let ticket = self.tickets.get();
        self.tickets.set(ticket + 1);
        place.ticket.set(Some(ticket));
        // Waits come nearly in the order of their offsets: the place is at the back or close to it.
        let behind = commits.iter().rev().take_while(|wait| wait.end > place.end).count();
        let index = commits.len() - behind;
        commits.insert(index, CommitWait { end: place.end, ticket, waker: waker.clone() });
    }

    /// The partition is committed up to `end`, `bytes` bytes further than before.
    pub(super) fn advance(&self, end: Offset, bytes: u64) {
        let mut commits = self.commits.borrow_mut();
        while commits.front().is_some_and(|wait| wait.end <= end) {
            if let Some(wait) = commits.pop_front() {
                wait.waker.wake();
            }
        }
        for fetch in self.fetches.borrow().iter().flatten() {
            fetch.arrived(bytes);
        }
    }

    /// Something happened that every waiting task should look at: the log failed, or the partition goes away.
    pub(super) fn wake_all(&self) {
        for wait in self.commits.borrow_mut().drain(..) {
            wait.waker.wake();
        }
        for fetch in self.fetches.borrow().iter().flatten() {
            fetch.arrived(u64::MAX);
        }
    }

    /// Lets `fetch` hear of the bytes that arrive here, until the parking is dropped.
    pub(super) fn park(self: &Rc<Self>, fetch: &Rc<ParkedFetch>) -> Parking {
        let mut fetches = self.fetches.borrow_mut();
        let place = self.places_free.borrow_mut().pop().unwrap_or_else(|| {
            fetches.push(None);
            fetches.len() - 1
        });
        fetches[place] = Some(fetch.clone());
        Parking { waits: self.clone(), place }
    }
}

/// A produce's entry in the queue, removed when its wait ends early.
struct CommitPlace<'a> {
    waits: &'a Waits,
    end: Offset,
    ticket: Cell<Option<u64>>,
}

impl CommitPlace<'_> {
    fn find(&self, commits: &VecDeque<CommitWait>) -> Option<usize> {
        let ticket = self.ticket.get()?;
        let first = commits.partition_point(|wait| wait.end < self.end);
        let same = commits.range(first..).take_while(|wait| wait.end == self.end);
        same.into_iter().position(|wait| wait.ticket == ticket).map(|index| first + index)
    }
}

impl Drop for CommitPlace<'_> {
    fn drop(&mut self) {
        let mut commits = self.waits.commits.borrow_mut();
        if let Some(index) = self.find(&commits) {
            commits.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn offset(value: i64) -> Offset {
        Offset::new(value).expect("not negative")
    }

    #[test]
    fn a_commit_serves_the_waits_that_it_covers() {
        let waits = Waits::default();
        let committed = Cell::new(Offset::ZERO);
        let reached = |value: i64| (committed.get() >= offset(value)).then_some(());
        let mut late = pin!(waits.committed(offset(9), || reached(9)));
        let mut early = pin!(waits.committed(offset(4), || reached(4)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(late.as_mut().poll(&mut context).is_pending());
        assert!(early.as_mut().poll(&mut context).is_pending());
        assert!(late.as_mut().poll(&mut context).is_pending());
        assert_eq!(waits.commits.borrow().iter().map(|wait| wait.end).collect::<Vec<_>>(), [offset(4), offset(9)]);
        committed.set(offset(5));
        waits.advance(offset(5), 100);
        assert!(early.as_mut().poll(&mut context).is_ready());
        assert!(late.as_mut().poll(&mut context).is_pending());
        assert_eq!(waits.commits.borrow().len(), 1);
    }

    #[test]
    fn a_wait_that_is_given_up_leaves_nothing() {
        let waits = Waits::default();
        {
            let mut wait = pin!(waits.committed(offset(1), || None::<()>));
            assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(waits.commits.borrow().len(), 1);
        }
        assert!(waits.commits.borrow().is_empty());
    }

    #[test]
    fn a_parked_fetch_counts_bytes_over_partitions() {
        let (one, two) = (Rc::new(Waits::default()), Rc::new(Waits::default()));
        let fetch = ParkedFetch::new(100);
        let parkings = [one.park(&fetch), two.park(&fetch)];
        let mut context = Context::from_waker(Waker::noop());
        one.advance(offset(1), 60);
        assert!(pin!(fetch.ready()).poll(&mut context).is_pending());
        two.advance(offset(1), 40);
        assert!(pin!(fetch.ready()).poll(&mut context).is_ready());
        drop(parkings);
        assert!(one.fetches.borrow().iter().all(Option::is_none));
        let again = ParkedFetch::new(1);
        let parking = one.park(&again);
        assert_eq!(parking.place, 0);
    }
}
