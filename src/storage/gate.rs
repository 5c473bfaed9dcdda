//! A lock between tasks of one shard: whoever waits gets it in the order of asking.
//!
//! It serialises slow operations of one log (checkpoints, retention) that wait in between. It protects no memory: tasks of a
//! shard never run at once. Waiting for it while holding a borrow of the log's state would be a bug; clippy refuses that.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::runtime::sync::{Sender, oneshot};

/// The lock.
#[derive(Default)]
pub(super) struct Gate {
    taken: Cell<bool>,
    waiting: RefCell<VecDeque<Sender<()>>>,
}

/// Its possession, until dropped.
pub(super) struct Passage<'g> {
    gate: &'g Gate,
}

impl Gate {
    /// Waits until nobody else holds it.
    pub(super) async fn pass(&self) -> Passage<'_> {
        if self.taken.replace(true) {
            let (sender, receiver) = oneshot();
            self.waiting.borrow_mut().push_back(sender);
            // Whoever leaves hands the possession over by this call; `taken` stays set meanwhile.
            receiver.await;
        }
        Passage { gate: self }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        loop {
            let next = self.gate.waiting.borrow_mut().pop_front();
            match next {
                Some(waiter) if waiter.is_abandoned() => {}
                Some(waiter) => return waiter.send(()),
                None => {
                    self.gate.taken.set(false);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn it_passes_in_the_order_of_asking() {
        let gate = Gate::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut first = pin!(gate.pass());
        let Poll::Ready(held) = first.as_mut().poll(&mut context) else { panic!("nobody holds it") };
        let mut second = pin!(gate.pass());
        let mut third = pin!(gate.pass());
        assert!(second.as_mut().poll(&mut context).is_pending() && third.as_mut().poll(&mut context).is_pending());
        drop(held);
        assert!(third.as_mut().poll(&mut context).is_pending());
        let Poll::Ready(held) = second.as_mut().poll(&mut context) else { panic!("it is the second's turn") };
        let mut late = pin!(gate.pass());
        assert!(late.as_mut().poll(&mut context).is_pending(), "there is no gap between two holders");
        drop(held);
        assert!(third.as_mut().poll(&mut context).is_ready());
        assert!(late.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn a_waiter_that_gave_up_is_passed_over() {
        let gate = Gate::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut first = pin!(gate.pass());
        let Poll::Ready(held) = first.as_mut().poll(&mut context) else { panic!("nobody holds it") };
        {
            let mut gone = pin!(gate.pass());
            assert!(gone.as_mut().poll(&mut context).is_pending());
        }
        drop(held);
        assert!(pin!(gate.pass()).poll(&mut context).is_ready());
    }
}
