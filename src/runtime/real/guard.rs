//! A thread beside each shard that wakes it from a sleep that it should not have fallen into.
//!
//! glommio 0.9.0 goes to sleep although tasks are runnable if its preemption timer fires before the first task of a turn. It
//! sleeps until some event comes, and on a quiet shard none may ever come: a timer of glommio's own is no help, since the task
//! that arms it may be the one that waits. So somebody else looks: runnable tasks and no turn since the last look mean that
//! the shard sleeps, or that one turn takes very long, which a wake does not hurt. A shard that sleeps rightly is left alone.
//!
//! It also keeps the time for which a shard has stood still, for those who ask after its health: tasks wait, or one of them
//! has its turn, and no turn began or ended since. Looks are counted, not time: a process that was stopped for an hour has
//! not stood still.
//!
//! What this file does not do: it does not tell who holds a shard up.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle};

use super::task::Load;
use crate::runtime::Duration;

/// Between two looks: how long a wrong sleep lasts at most. A look costs some microseconds.
const PERIOD: Duration = Duration::from_millis(10);

/// What the thread and the shard share.
struct Watch {
    load: Arc<Load>,
    ended: AtomicBool,
    /// Of the shard's own task that is there to be woken.
    waker: Mutex<Option<Waker>>,
}

impl Watch {
    fn waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's work.
    fn look(&self) {
        let mut seen = self.load.turns();
        let mut still = 0_u32;
        while !self.ended.load(Ordering::Acquire) {
            thread::park_timeout(PERIOD);
            let turns = self.load.turns();
            let waits = turns == seen && !self.load.is_idle();
            let holds = turns == seen && Load::is_in_turn(turns);
            still = if waits || holds { still.saturating_add(1) } else { 0 };
            self.load.set_stuck_for(PERIOD.saturating_mul(still));
            if waits {
                let waker = self.waker().take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            seen = turns;
        }
        // A shard that has ended is not stuck.
        self.load.set_stuck_for(Duration::ZERO);
    }
}

/// The thread, and its end of the watch.
pub(super) struct Guard {
    watch: Arc<Watch>,
    thread: RefCell<Option<JoinHandle<()>>>,
}

impl Guard {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the machine gives no thread.
    pub(super) fn start(load: &Arc<Load>) -> std::io::Result<Rc<Guard>> {
        let watch = Arc::new(Watch { load: load.clone(), ended: AtomicBool::new(false), waker: Mutex::new(None) });
        let shared = watch.clone();
        let thread = thread::Builder::new().name("guard".to_owned()).spawn(move || shared.look())?;
        Ok(Rc::new(Guard { watch, thread: RefCell::new(Some(thread)) }))
    }

    /// A task of the shard; ends with [`Guard::end`].
    pub(super) async fn be_woken(self: Rc<Guard>) {
        poll_fn(|context| {
            if self.watch.ended.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            *self.watch.waker() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Ends the thread and the task, once.
    pub(super) fn end(&self) {
        self.watch.ended.store(true, Ordering::Release);
        let waker = self.watch.waker().take();
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().expect("it does not panic");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}
