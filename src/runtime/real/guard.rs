//! A thread beside each shard that wakes it from a sleep that it should not have fallen into.
//!
//! glommio 0.9.0 goes to sleep although tasks are runnable if its preemption timer fires before the first task of a turn. It
//! sleeps until some event comes, and on a quiet shard none may ever come: a timer of glommio's own is no help, since the task
//! that arms it may be the one that waits. So somebody else looks: runnable tasks, none that has its turn, and no turn since
//! the last look mean that the shard sleeps, and it is woken. It may fall asleep again before any task had its turn, so it is
//! woken at every look until one had. A shard that sleeps rightly is left alone.
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

/// Between two looks at a shard that works: how long a wrong sleep lasts at most.
const PERIOD: Duration = Duration::from_millis(10);
/// Between two looks at a shard that has long been idle. Waking up for a look costs some 50 µs, which is what a silent broker
/// would spend most of its time with.
const IDLE_PERIOD_MAX: Duration = Duration::from_millis(160);

/// What the thread and the shard share.
struct Watch {
    load: Arc<Load>,
    ended: AtomicBool,
    /// Whether the task that is woken has work of its own, which nobody counts: it starts the shard, and it ends it.
    busy: AtomicBool,
    /// Of the shard's own task that is there to be woken: glommio's own waker, which ends its sleep however often it is used.
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
        let mut period = PERIOD;
        while !self.ended.load(Ordering::Acquire) {
            thread::park_timeout(period);
            let turns = self.load.turns();
            let waits = turns == seen && !self.load.is_idle();
            let holds = turns == seen && Load::is_in_turn(turns);
            still = if waits || holds { still.saturating_add(1) } else { 0 };
            self.load.set_stuck_for(PERIOD.saturating_mul(still));
            let busy = turns == seen && self.busy.load(Ordering::Acquire);
            let is_idle = turns == seen && !waits && !holds && !busy;
            period = if is_idle { (period * 2).min(IDLE_PERIOD_MAX) } else { PERIOD };
            if (waits || busy)
                && !holds
                && let Some(waker) = &*self.waker()
            {
                waker.wake_by_ref();
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
        let watch = Arc::new(Watch {
            load: load.clone(),
            ended: AtomicBool::new(false),
            busy: AtomicBool::new(true),
            waker: Mutex::new(None),
        });
        let shared = watch.clone();
        let thread = thread::Builder::new().name("guard".to_owned()).spawn(move || shared.look())?;
        Ok(Rc::new(Guard { watch, thread: RefCell::new(Some(thread)) }))
    }

    /// From now on the calling task of the shard is the one that is woken, and it is busy. It must be none that is counted: the
    /// waker of such a one wakes glommio once per turn of the task at most. Called before any counted task is there.
    pub(super) async fn attend(&self) {
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        *self.watch.waker() = Some(waker);
    }

    /// Whether the task that attends may have a turn to take, and is to be woken like those that are counted.
    pub(super) fn set_busy(&self, busy: bool) {
        self.watch.busy.store(busy, Ordering::Release);
    }

    /// Ends the thread, once, on the shard's own: glommio's wakers are best dropped there.
    pub(super) fn end(&self) {
        self.watch.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().expect("it does not panic");
        }
        drop(self.watch.waker().take());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}
