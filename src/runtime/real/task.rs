//! Tasks that count whether they are runnable.
//!
//! glommio does not tell whether a task waits for its turn, and the pump must know it: it may block in the kernel only when
//! nobody does. So every task of ours is polled with a waker that counts first and then wakes glommio's. The count is exact
//! for wakes on the shard's own thread and early by an instant for wakes from others.
//!
//! The same wrapper ends the tasks of a shard that ends: glommio would leak those that wait, with all they hold.
//!
//! A third gain: clones of these wakers are not counted by glommio, whose counter of wakers per task is 16 bits wide.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use pin_project_lite::pin_project;

use super::pump::Pump;
use crate::runtime::Duration;

/// Tasks of one shard that wait for their turn, and the turns that were given. Read by other threads too.
#[derive(Default)]
pub(in crate::runtime) struct Load {
    runnable: AtomicUsize,
    /// Beginnings and ends of turns.
    turns: AtomicUsize,
    /// Milliseconds for which the shard has stood still, as its guard saw it last.
    stuck_millis: AtomicU64,
}

impl Load {
    /// Whether no task waits for its turn.
    pub(super) fn is_idle(&self) -> bool {
        self.runnable.load(Ordering::Acquire) == 0
    }

    /// How many turns began and ended; it wraps. Odd while a turn is under way: see [`Load::is_in_turn`].
    pub(super) fn turns(&self) -> usize {
        self.turns.load(Ordering::Relaxed)
    }

    /// Whether a task was having its turn when this was [`Load::turns`].
    pub(super) fn is_in_turn(turns: usize) -> bool {
        !turns.is_multiple_of(2)
    }

    /// A turn begins or ends. Called by the shard alone.
    fn count_turn(&self) {
        self.turns.store(self.turns().wrapping_add(1), Ordering::Relaxed);
    }

    /// For how long the shard has stood still: tasks wait, or one has its turn, and no turn began or ended.
    pub(in crate::runtime) fn stuck_for(&self) -> Duration {
        Duration::from_millis(self.stuck_millis.load(Ordering::Relaxed))
    }

    /// Called by the guard alone, and by tests of those who ask.
    pub(in crate::runtime) fn set_stuck_for(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if self.stuck_millis.load(Ordering::Relaxed) != millis {
            self.stuck_millis.store(millis, Ordering::Relaxed);
        }
    }
}

pub(super) struct TaskWaker {
    /// Set while the task waits for its turn, and for ever once it has ended.
    runnable: AtomicBool,
    load: Arc<Load>,
    inner: OnceLock<Waker>,
}

impl TaskWaker {
    fn new(load: Arc<Load>) -> Arc<TaskWaker> {
        load.runnable.fetch_add(1, Ordering::AcqRel);
        Arc::new(TaskWaker { runnable: AtomicBool::new(true), load, inner: OnceLock::new() })
    }

    /// The task's turn has come.
    fn begin(&self, inner: &Waker) {
        self.load.count_turn();
        if self.runnable.swap(false, Ordering::AcqRel) {
            self.load.runnable.fetch_sub(1, Ordering::AcqRel);
        }
        // A task's waker of glommio stays the same for the task's life.
        self.inner.get_or_init(|| inner.clone());
    }

    /// Its turn is over.
    fn end(&self) {
        self.load.count_turn();
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.runnable.swap(true, Ordering::AcqRel) {
            return;
        }
        self.load.runnable.fetch_add(1, Ordering::AcqRel);
        if let Some(inner) = self.inner.get() {
            inner.wake_by_ref();
        }
    }
}

/// Takes a task out of the count when it ends, in whatever way.
struct Counted {
    waker: Arc<TaskWaker>,
    pump: Rc<Pump>,
    seat: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.waker.runnable.swap(true, Ordering::AcqRel) {
            self.waker.load.runnable.fetch_sub(1, Ordering::AcqRel);
        }
        self.pump.tasks().remove(self.seat);
        // Nobody else tells the pump when this was the last runnable task.
        self.pump.after_poll();
    }
}

/// The living tasks of one shard, to wake all of them when the shard ends.
#[derive(Default)]
pub(super) struct Tasks {
    seats: RefCell<Vec<Option<Arc<TaskWaker>>>>,
    free: RefCell<Vec<usize>>,
}

impl Tasks {
    fn insert(&self, waker: Arc<TaskWaker>) -> usize {
        let mut seats = self.seats.borrow_mut();
        let seat = self.free.borrow_mut().pop().unwrap_or_else(|| {
            seats.push(None);
            seats.len() - 1
        });
        seats[seat] = Some(waker);
        seat
    }

    fn remove(&self, seat: usize) {
        let waker = self.seats.borrow_mut()[seat].take();
        drop(waker);
        self.free.borrow_mut().push(seat);
    }

    /// Whether no task lives.
    pub(super) fn is_empty(&self) -> bool {
        self.free.borrow().len() == self.seats.borrow().len()
    }

    /// Makes every task runnable.
    pub(super) fn wake_all(&self) {
        self.seats.borrow().iter().flatten().for_each(TaskWaker::wake_by_ref);
    }
}

/// `future`, one of the tasks that move the shard itself, as one that is counted and tells `pump` as all others, but is polled
/// to its end.
pub(super) fn counted_own<F: Future<Output = ()>>(
    load: &Arc<Load>,
    pump: Rc<Pump>,
    future: F,
) -> impl Future<Output = ()> + use<F> {
    let own = TaskWaker::new(load.clone());
    async move {
        let waker = Waker::from(own.clone());
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            own.begin(context.waker());
            let result = future.as_mut().poll(&mut Context::from_waker(&waker));
            own.end();
            pump.after_poll();
            result
        })
        .await;
        // A wake that comes late counts nothing.
        own.runnable.store(true, Ordering::Release);
    }
}

/// `future` as a task that is counted in `load` and tells `pump` when its turn is over. Once the pump is closing, the task's
/// next turn drops the future instead of polling it.
pub(super) fn counted<F: Future<Output = ()>>(
    load: &Arc<Load>,
    pump: Rc<Pump>,
    future: F,
) -> impl Future<Output = ()> + use<F> {
    let waker = TaskWaker::new(load.clone());
    let seat = pump.tasks().insert(waker.clone());
    CountedTask { future: Some(future), waker: waker.clone().into(), counted: Counted { waker, pump, seat } }
}

pin_project! {
    /// See [`counted`]. Not an async block: that would hold the future twice, as what it captured and as what it polls.
    struct CountedTask<F> {
        // Dropped before the count is told of its end.
        #[pin]
        future: Option<F>,
        // What the future is polled with.
        waker: Waker,
        counted: Counted,
    }
}

impl<F: Future<Output = ()>> Future for CountedTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut task = self.project();
        let Counted { waker, pump, .. } = task.counted;
        waker.begin(context.waker());
        let result = match task.future.as_mut().as_pin_mut() {
            Some(future) if !pump.is_closing() => future.poll(&mut Context::from_waker(task.waker)),
            _ => Poll::Ready(()),
        };
        if result.is_ready() {
            task.future.set(None);
        }
        waker.end();
        pump.after_poll();
        result
    }
}
