//! Virtual time: the heap of events to come, the monotonic clock that they drive, and timers.
//!
//! Events run in the order of (time, sequence in which they were scheduled); time is nanoseconds since the start of the
//! simulation and never goes back. A timer whose waiter is gone does not move the clock. The wall clock is a node's own: see
//! `World::wall_clock`.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::World;

type Change = Box<dyn FnOnce(&Rc<World>)>;

/// What an event does.
pub(super) enum Action {
    /// Wakes the waiter of a timer, if there still is one.
    Wake(Weak<Timer>),
    /// Changes the world: a transfer that completes, bytes that arrive.
    Run(Change),
}

struct Event {
    at: u64,
    sequence: u64,
    action: Action,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    /// Reversed, because `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Event) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// One wait for a time.
#[derive(Default)]
pub(super) struct Timer {
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The clock and what is going to happen.
#[derive(Default)]
pub(super) struct Clock {
    now: Cell<u64>,
    sequence: Cell<u64>,
    events: RefCell<BinaryHeap<Event>>,
}

impl Clock {
    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Moves the clock on; it never goes back.
    pub(super) fn advance_to(&self, at: u64) {
        self.now.set(self.now.get().max(at));
    }

    /// Lets `action` happen `delay` nanoseconds from now.
    pub(super) fn schedule(&self, delay: u64, action: Action) {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        let at = self.now.get().saturating_add(delay);
        self.events.borrow_mut().push(Event { at, sequence, action });
    }

    /// The time of the next event that still matters.
    pub(super) fn next_at(&self) -> Option<u64> {
        let mut events = self.events.borrow_mut();
        while let Some(event) = events.peek() {
            match &event.action {
                Action::Wake(timer) if timer.strong_count() == 0 => drop(events.pop()),
                _ => return Some(event.at),
            }
        }
        None
    }

    /// Takes the next event out and moves the clock to it.
    pub(super) fn take_next(&self) -> Option<Action> {
        let event = self.events.borrow_mut().pop()?;
        self.advance_to(event.at);
        Some(event.action)
    }

    /// Forgets everything that is going to happen.
    pub(super) fn clear(&self) {
        let events = std::mem::take(&mut *self.events.borrow_mut());
        drop(events);
    }

    /// Waits for `delay` nanoseconds.
    pub(super) async fn wait(&self, delay: u64) {
        let timer = Rc::new(Timer::default());
        self.schedule(delay, Action::Wake(Rc::downgrade(&timer)));
        std::future::poll_fn(|context: &mut Context<'_>| {
            if timer.fired.get() {
                return Poll::Ready(());
            }
            *timer.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Timer {
    pub(super) fn fire(&self) {
        self.fired.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}
