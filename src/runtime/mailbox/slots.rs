//! Where replies are awaited: one slot per request that was sent to one shard.
//!
//! A slot is taken with the request and given back when both have happened: the reply has come, and the waiting future has
//! taken it or was dropped. So a reply always finds its slot, and a slot is never another request's while a reply is on its
//! way. Exactly one reply comes per request.
//!
//! What this file does not do: it counts no credits. A reply that nobody has taken yet keeps its slot, but is not in flight.

use std::task::{Context, Poll, Waker};

enum Slot<R> {
    Free { next: Option<u32> },
    Waiting(Option<Waker>),
    Abandoned,
    Arrived(Option<R>),
}

/// What a reply that came leaves to do once the slots are no longer borrowed.
pub(super) struct Arrival<R> {
    waker: Option<Waker>,
    unwanted: Option<R>,
}

impl<R> Arrival<R> {
    /// Wakes who waits; drops what nobody waits for.
    pub(super) fn tell(self) {
        let Arrival { waker, unwanted } = self;
        drop(unwanted);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The slots for the replies of one shard.
pub(super) struct Slots<R> {
    slots: Vec<Slot<R>>,
    free: Option<u32>,
}

impl<R> Default for Slots<R> {
    fn default() -> Slots<R> {
        Slots { slots: Vec::new(), free: None }
    }
}

impl<R> Slots<R> {
    /// A slot for a request that is being sent.
    pub(super) fn insert(&mut self) -> u32 {
        if let Some(index) = self.free {
            let Slot::Free { next } = self.replace(index, Slot::Waiting(None)) else {
                unreachable!("the free list holds free slots only")
            };
            self.free = next;
            return index;
        }
        self.slots.push(Slot::Waiting(None));
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 replies are kept")
    }

    fn replace(&mut self, index: u32, slot: Slot<R>) -> Slot<R> {
        std::mem::replace(&mut self.slots[index as usize], slot)
    }

    fn give_back(&mut self, index: u32) -> Slot<R> {
        let slot = self.replace(index, Slot::Free { next: self.free });
        self.free = Some(index);
        slot
    }

    /// Takes the reply out and gives the slot back; else `context` is woken when it comes.
    pub(super) fn poll(&mut self, index: u32, context: &Context<'_>) -> Poll<Option<R>> {
        if let Slot::Waiting(waker) = &mut self.slots[index as usize] {
            if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        let Slot::Arrived(reply) = self.give_back(index) else {
            unreachable!("a future's slot waits or has its reply")
        };
        Poll::Ready(reply)
    }

    /// The waiting future was dropped. Returns the reply that it did not take.
    pub(super) fn abandon(&mut self, index: u32) -> Option<R> {
        match self.replace(index, Slot::Abandoned) {
            Slot::Waiting(_) => None,
            Slot::Arrived(reply) => {
                self.give_back(index);
                reply
            }
            Slot::Free { .. } | Slot::Abandoned => unreachable!("a future is dropped once"),
        }
    }

    /// The reply has come.
    pub(super) fn arrive(&mut self, index: u32, reply: Option<R>) -> Arrival<R> {
        match self.replace(index, Slot::Arrived(reply)) {
            Slot::Waiting(waker) => Arrival { waker, unwanted: None },
            Slot::Abandoned => {
                let Slot::Arrived(unwanted) = self.give_back(index) else { unreachable!("set above") };
                Arrival { waker: None, unwanted }
            }
            Slot::Free { .. } | Slot::Arrived(_) => unreachable!("one reply comes per request"),
        }
    }

    /// No reply will come any more. Returns whom to wake.
    pub(super) fn fail_all(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for index in 0..self.slots.len() {
            match &mut self.slots[index] {
                Slot::Waiting(waker) => {
                    wakers.extend(waker.take());
                    self.slots[index] = Slot::Arrived(None);
                }
                Slot::Abandoned => drop(self.give_back(index as u32)),
                Slot::Free { .. } | Slot::Arrived(_) => {}
            }
        }
        wakers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_once_reply_and_future_are_done() {
        let mut slots = Slots::default();
        let context = Context::from_waker(Waker::noop());
        let (first, second) = (slots.insert(), slots.insert());
        assert!(slots.poll(first, &context).is_pending());
        assert!(slots.arrive(first, Some(7)).waker.is_some());
        assert_eq!(slots.insert(), 2, "the reply was not taken yet");
        assert_eq!(slots.poll(first, &context), Poll::Ready(Some(7)));
        assert_eq!(slots.insert(), first);

        assert_eq!(slots.abandon(second), None);
        assert_eq!(slots.insert(), 3, "the reply is on its way");
        assert_eq!(slots.arrive(second, Some(8)).unwanted, Some(8));
        assert_eq!(slots.insert(), second);
        slots.arrive(second, Some(9)).tell();
        assert_eq!(slots.abandon(second), Some(9));
    }

    #[test]
    fn failing_ends_every_wait() {
        let mut slots = Slots::<u32>::default();
        let context = Context::from_waker(Waker::noop());
        let [waiting, quiet, abandoned, arrived] = std::array::from_fn(|_| slots.insert());
        assert!(slots.poll(waiting, &context).is_pending());
        slots.abandon(abandoned);
        slots.arrive(arrived, Some(1)).tell();
        assert_eq!(slots.fail_all().len(), 1);
        assert_eq!(slots.poll(waiting, &context), Poll::Ready(None));
        assert_eq!(slots.poll(quiet, &context), Poll::Ready(None));
        assert_eq!(slots.poll(arrived, &context), Poll::Ready(Some(1)));
        let mut free: Vec<u32> = (0..4).map(|_| slots.insert()).collect();
        free.sort_unstable();
        assert_eq!(free, [waiting, quiet, abandoned, arrived]);
    }
}
