//! Waiting for other tasks of the same shard: a one-value channel and a wake-up call.
//!
//! Single-threaded: nothing here is `Send`. Wakers are kept once per waiter, so that no task collects more than one.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

struct Shared<T> {
    value: Cell<Option<T>>,
    waker: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

impl<T> Shared<T> {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// The sending end of a [`oneshot`].
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

/// The receiving end of a [`oneshot`]: a future of `Some(value)`, or of `None` once the sender is gone.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
}

/// A channel for one value.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared { value: Cell::new(None), waker: RefCell::new(None), closed: Cell::new(false) });
    (Sender { shared: shared.clone() }, Receiver { shared })
}

impl<T> Sender<T> {
    /// Hands the value over. It is dropped if nobody waits for it any more.
    pub fn send(self, value: T) {
        self.shared.value.set(Some(value));
        // Dropping `self` closes the channel and wakes the receiver.
    }

    /// Whether the receiver is gone.
    pub fn is_abandoned(&self) -> bool {
        Rc::strong_count(&self.shared) == 1
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.closed.set(true);
        self.shared.wake();
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.shared.value.take() {
            return Poll::Ready(Some(value));
        }
        if self.shared.closed.get() {
            return Poll::Ready(None);
        }
        keep_waker(&mut self.shared.waker.borrow_mut(), context);
        Poll::Pending
    }
}

fn keep_waker(slot: &mut Option<Waker>, context: &Context<'_>) {
    match slot {
        Some(known) if known.will_wake(context.waker()) => {}
        _ => *slot = Some(context.waker().clone()),
    }
}

/// A wake-up call for one waiting task. A call while nobody waits is kept, once.
///
/// A second task that waits replaces the first: give every waiting task a call of its own.
#[derive(Default)]
pub struct Notify {
    called: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Notify {
    /// A call that has not been made.
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes the waiting task, or lets the next wait return at once.
    pub fn notify(&self) {
        self.called.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits for a call and takes it.
    pub async fn notified(&self) {
        std::future::poll_fn(|context| {
            if self.called.take() {
                return Poll::Ready(());
            }
            keep_waker(&mut self.waker.borrow_mut(), context);
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_value_arrives_once_and_a_lost_sender_is_seen() {
        let (sender, mut receiver) = oneshot();
        assert!(poll_once(&mut receiver).is_pending());
        sender.send(7);
        assert_eq!(poll_once(&mut receiver), Poll::Ready(Some(7)));

        let (sender, mut receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(poll_once(&mut receiver), Poll::Ready(None));

        let (sender, receiver) = oneshot::<u8>();
        assert!(!sender.is_abandoned());
        drop(receiver);
        assert!(sender.is_abandoned());
    }

    #[test]
    fn a_call_before_the_wait_is_kept_once() {
        let call = Notify::new();
        call.notify();
        call.notify();
        assert!(poll_once(&mut std::pin::pin!(call.notified())).is_ready());
        assert!(poll_once(&mut std::pin::pin!(call.notified())).is_pending());
    }
}
