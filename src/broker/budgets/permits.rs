//! A number of bytes to be taken and given back, first come, first served.
//!
//! Whoever wants more than is free waits; those behind wait too, even if they want less, so that a large one gets its turn.
//! One that wants more than there is gets all of it. A permit is given back when it is dropped, and a wait that is dropped
//! leaves nothing behind. The waiting are as many as the tasks that wait: a connection has one at a time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::runtime::sync::Notify;

/// So many bytes for all that take permits.
pub(in crate::broker) struct Permits {
    bytes_max: usize,
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    bytes: usize,
    granted: Cell<bool>,
    call: Notify,
}

/// Bytes that are taken until this is dropped.
pub(in crate::broker) struct Permit {
    permits: Rc<Permits>,
    bytes: usize,
}

/// A place in the queue.
struct Waiting {
    permits: Rc<Permits>,
    waiter: Rc<Waiter>,
}

impl Permits {
    /// All of `bytes_max` bytes are free.
    pub(in crate::broker) fn new(bytes_max: usize) -> Rc<Permits> {
        Rc::new(Permits { bytes_max, free: Cell::new(bytes_max), waiting: RefCell::default() })
    }

    /// Takes `bytes`, or everything if that is less, as soon as it is this one's turn.
    pub(in crate::broker) async fn take(self: &Rc<Self>, bytes: usize) -> Permit {
        let bytes = bytes.min(self.bytes_max);
        if self.waiting.borrow().is_empty() && bytes <= self.free.get() {
            self.free.set(self.free.get() - bytes);
            return Permit { permits: self.clone(), bytes };
        }
        let waiter = Rc::new(Waiter { bytes, granted: Cell::new(false), call: Notify::new() });
        self.waiting.borrow_mut().push_back(waiter.clone());
        let waiting = Waiting { permits: self.clone(), waiter };
        waiting.waiter.call.notified().await;
        // From here on the permit answers for the bytes.
        waiting.waiter.granted.set(false);
        Permit { permits: self.clone(), bytes }
    }

    /// Bytes that are taken.
    pub(in crate::broker) fn taken(&self) -> usize {
        self.bytes_max - self.free.get()
    }

    fn give_back(&self, bytes: usize) {
        self.free.set(self.free.get() + bytes);
        self.grant();
    }

    fn grant(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.pop_front_if(|first| first.bytes <= self.free.get()) {
            self.free.set(self.free.get() - first.bytes);
            first.granted.set(true);
            first.call.notify();
        }
    }
}

impl Permit {
    /// Bytes that are taken.
    #[cfg(test)]
    pub(in crate::broker) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what exceeds `bytes`.
    #[cfg(test)]
    pub(in crate::broker) fn shrink(&mut self, bytes: usize) {
        let more = self.bytes.saturating_sub(bytes);
        self.bytes -= more;
        self.permits.give_back(more);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.give_back(self.bytes);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.waiter.granted.get() {
            self.permits.give_back(self.waiter.bytes);
            return;
        }
        self.permits.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        // Who stood behind may fit.
        self.permits.grant();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    type Take = Pin<Box<dyn Future<Output = Permit>>>;

    fn take(permits: &Rc<Permits>, bytes: usize) -> Take {
        let permits = permits.clone();
        Box::pin(async move { permits.take(bytes).await })
    }

    fn poll(take: &mut Take) -> Option<Permit> {
        match take.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn they_are_served_in_order() {
        let permits = Permits::new(10);
        let mut first = poll(&mut take(&permits, 6)).expect("free");
        let mut large = take(&permits, 8);
        let mut small = take(&permits, 1);
        assert!(poll(&mut large).is_none() && poll(&mut small).is_none(), "the small one waits behind the large one");
        first.shrink(2);
        assert_eq!((first.bytes(), permits.taken()), (2, 10));
        let large = poll(&mut large).expect("it fits now");
        assert!(poll(&mut small).is_none());
        drop(large);
        assert_eq!(poll(&mut small).expect("its turn").bytes(), 1);
        drop(first);
        assert_eq!(permits.taken(), 0);
        assert_eq!(poll(&mut take(&permits, 11)).expect("all there is").bytes(), 10);
    }

    #[test]
    fn a_wait_that_is_given_up_lets_the_next_one_pass() {
        let permits = Permits::new(10);
        let held = poll(&mut take(&permits, 5)).expect("free");
        let mut large = take(&permits, 6);
        let mut small = take(&permits, 5);
        assert!(poll(&mut large).is_none() && poll(&mut small).is_none());
        drop(large);
        let small = poll(&mut small).expect("nobody is before it");
        // One that was called and never looked gives back what it was granted.
        let mut unseen = take(&permits, 10);
        assert!(poll(&mut unseen).is_none());
        drop((held, small));
        assert_eq!(permits.taken(), 10);
        drop(unseen);
        assert_eq!(permits.taken(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        Poll(prop::sample::Index),
        GiveUp(prop::sample::Index),
        Drop(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0usize..150).prop_map(Step::Take),
            any::<prop::sample::Index>().prop_map(Step::Poll),
            any::<prop::sample::Index>().prop_map(Step::GiveUp),
            any::<prop::sample::Index>().prop_map(Step::Drop),
        ];
        prop::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_given_twice(steps in steps()) {
            let permits = Permits::new(100);
            let (mut takes, mut held): (Vec<Take>, Vec<Permit>) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Take(bytes) => takes.push(take(&permits, bytes)),
                    Step::Poll(at) if !takes.is_empty() => {
                        let at = at.index(takes.len());
                        if let Some(permit) = poll(&mut takes[at]) {
                            held.push(permit);
                            drop(takes.remove(at));
                        }
                    }
                    Step::GiveUp(at) if !takes.is_empty() => drop(takes.remove(at.index(takes.len()))),
                    Step::Drop(at) if !held.is_empty() => drop(held.remove(at.index(held.len()))),
                    _ => {}
                }
                prop_assert!(held.iter().map(Permit::bytes).sum::<usize>() <= permits.taken());
                prop_assert!(permits.taken() <= 100);
            }
            // Everyone who still waits is served in the end.
            held.clear();
            while !takes.is_empty() {
                let waiting = takes.len();
                takes.retain_mut(|take| poll(take).is_none());
                prop_assert!(takes.len() < waiting, "{} wait for ever", waiting);
            }
            prop_assert_eq!(permits.taken(), 0);
            prop_assert!(permits.waiting.borrow().is_empty());
        }
    }
}
