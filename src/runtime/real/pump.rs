//! The task that moves the ring: it submits once per turn, gives completions out, and decides where the shard sleeps.
//!
//! It runs in the queue of the connections, whose order makes a turn one pass over them. While other tasks are runnable it
//! rests; each task's turn ends with a look at the ring (a few loads), and the pump is woken when something waits there or
//! when nobody else is runnable. Then there are two places to sleep:
//!
//! 1. in the ring, for one tick at most: cheap, but glommio's own events do not come through;
//! 2. in glommio, woken by the ring's eventfd, after a quiet tick: nothing runs until something happens.
//!
//! Every few milliseconds a *breath*, a detour through glommio's reactor, serves wakes from other threads under load.
//! The second look after switching the eventfd on, and before sleeping, is what makes a lost wake-up impossible.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::clock::monotonic_nanos;
use super::ring::Ring;
use super::signal::Termination;
use super::task::{Load, Tasks};

/// Nanoseconds between two breaths: what a wake from another thread waits at worst. A breath costs some system calls.
const BREATH_NANOS: u64 = 4_000_000;
/// Nanoseconds after which a breath that other tasks hold up no longer keeps the ring waiting.
const BREATH_PATIENCE_NANOS: u64 = 200_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Runs, or waits for its turn.
    Running,
    /// Lets the runnable tasks run.
    Resting,
    /// Waits for glommio's reactor to have turned.
    Breathing { since: u64 },
    /// Sleeps in glommio until the eventfd is written.
    Parked,
}

/// The state of a shard's pump, shared with every task.
pub(super) struct Pump {
    ring: Rc<Ring>,
    load: Arc<Load>,
    tasks: Tasks,
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
    closing: Cell<bool>,
    termination: Termination,
}

impl Pump {
    pub(super) fn new(ring: Rc<Ring>, load: Arc<Load>) -> Rc<Pump> {
        let state = Cell::new(State::Running);
        Rc::new(Pump {
            ring,
            load,
            tasks: Tasks::default(),
            state,
            waker: RefCell::new(None),
            closing: Cell::new(false),
            termination: Termination::default(),
        })
    }

    /// The turn of another task is over.
    pub(super) fn after_poll(&self) {
        let due = match self.state.get() {
            State::Running => false,
            State::Resting => self.load.is_idle() || self.ring.has_work(),
            State::Breathing { since } => {
                self.ring.has_work() && monotonic_nanos().saturating_sub(since) > BREATH_PATIENCE_NANOS
            }
            State::Parked => self.ring.has_work(),
        };
        if due {
            self.nudge();
        }
    }

    /// Wakes the pump wherever it waits, but in the ring.
    pub(super) fn nudge(&self) {
        if self.state.replace(State::Running) != State::Running
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// The shard's living tasks.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Lets the pump's tasks return; every other task is dropped at its next turn, which comes at once.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.tasks.wake_all();
        self.nudge();
        self.write_eventfd();
    }

    /// Whether [`Pump::close`] was called.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// From now on a signal is a request to end.
    pub(super) fn expect_termination(&self) {
        self.termination.expect(self.ring.eventfd());
    }

    /// Returns once the process was asked to end.
    pub(super) async fn terminated(&self) {
        self.termination.wait().await;
    }

    /// The pump's task.
    pub(super) async fn run(self: Rc<Pump>) {
        let mut breath_due = monotonic_nanos() + BREATH_NANOS;
        while !self.closing.get() {
            let now = monotonic_nanos();
            if now >= breath_due {
                breath_due = now + BREATH_NANOS;
                self.write_eventfd();
                self.wait(State::Breathing { since: now }).await;
            }
            // With nobody to run, submitting and waiting are one system call.
            if !self.load.is_idle() {
                self.ring.turn();
            } else if !self.ring.wait() && self.load.is_idle() {
                self.park().await;
            }
            if !self.load.is_idle() {
                self.wait(State::Resting).await;
            }
        }
    }

    async fn park(&self) {
        self.state.set(State::Parked);
        self.ring.set_eventfd(true);
        if self.ring.turn() || self.ring.has_work() || !self.load.is_idle() {
            self.state.set(State::Running);
        } else {
            self.wait(State::Parked).await;
        }
        self.ring.set_eventfd(false);
    }

    /// Waits until the state is `Running` again, which [`Pump::nudge`] sees to; not at all once the pump is closing.
    async fn wait(&self, state: State) {
        self.state.set(state);
        poll_fn(|context| {
            if self.state.get() == State::Running || self.closing.get() {
                self.state.set(State::Running);
                return Poll::Ready(());
            }
            self.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Reads the eventfd through glommio and wakes the pump, until the pump is closed. This is how a completion, a breath, or
    /// the request to end gets glommio out of its sleep.
    pub(super) async fn watch_eventfd(self: Rc<Pump>) {
        let eventfd = super::executor::glommio_file(self.ring.eventfd());
        while !self.closing.get() {
            eventfd.read_at(0, 8).await.expect("an eventfd can be read");
            self.termination.look();
            self.nudge();
        }
    }

    fn write_eventfd(&self) {
        super::executor::write_eventfd(self.ring.eventfd().as_raw_fd());
    }
}
