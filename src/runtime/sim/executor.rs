//! The tasks of every node on one thread: which is ready, and which of the ready ones runs next.
//!
//! The seed chooses among all ready tasks, of whatever node, shard and class, since correct code may depend on no order
//! between tasks. A task is polled, and dropped, with its own shard as the current one. A dead process has no tasks: the one
//! that is running when its own process is killed is dropped right after its poll.
//!
//! What this file does not do: it knows no time.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

use super::super::context::{self, Backend};
use super::node::{Process, Shard};
use super::random::Random;

type Body = Pin<Box<dyn Future<Output = ()>>>;

/// A place of the task table and how often it had been used before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TaskId {
    slot: usize,
    generation: u64,
}

/// The ready tasks. Behind a lock because wakers must be `Send`; nobody ever waits for it.
#[derive(Default)]
struct Ready(Mutex<Vec<TaskId>>);

impl Ready {
    fn push(&self, task: TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

pub(super) struct TaskWaker {
    task: TaskId,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.push(self.task);
        }
    }
}

impl TaskWaker {
    /// Puts a task that was held back among the ready ones.
    pub(super) fn queue(&self) {
        self.ready.push(self.task);
    }
}

struct Task {
    shard: Rc<Shard>,
    waker: Arc<TaskWaker>,
    body: Body,
}

impl Task {
    fn discard(self) {
        let _entered = Entered::new(&self.shard);
        drop(self.body);
    }
}

/// Makes a shard the current one for as long as it lives.
pub(super) struct Entered(Option<Backend>);

impl Entered {
    pub(super) fn new(shard: &Rc<Shard>) -> Entered {
        Entered(context::replace(Some(Backend::Sim(shard.clone()))))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        context::replace(self.0.take());
    }
}

#[derive(Default)]
struct Slot {
    generation: u64,
    /// Empty while the task runs.
    task: Option<Task>,
}

/// All tasks of a simulation.
pub(super) struct Executor {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    ready: Arc<Ready>,
    random: RefCell<Random>,
}

/// The task that was polled.
pub(super) struct Polled {
    pub(super) slot: usize,
    pub(super) shard: Rc<Shard>,
}

impl Executor {
    pub(super) fn new(random: Random) -> Executor {
        Executor {
            slots: RefCell::default(),
            free: RefCell::default(),
            ready: Arc::default(),
            random: RefCell::new(random),
        }
    }

    /// Adds a task that is ready. The process of `shard` is alive.
    pub(super) fn spawn(&self, shard: Rc<Shard>, body: Body) {
        assert!(shard.process.is_alive());
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot::default());
            slots.len() - 1
        });
        let task = TaskId { slot, generation: slots[slot].generation };
        let waker = Arc::new(TaskWaker { task, queued: AtomicBool::new(true), ready: self.ready.clone() });
        slots[slot].task = Some(Task { shard, waker, body });
        self.ready.push(task);
    }

    /// Whether a task is ready. May be true when only wakers of ended tasks were called.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Polls one ready task of the seed's choice; `None` if what was ready has ended or is frozen.
    pub(super) fn poll_one(&self) -> Option<Polled> {
        let id = {
            let mut ready = self.ready.0.lock().unwrap_or_else(PoisonError::into_inner);
            if ready.is_empty() {
                return None;
            }
            let chosen = self.random.borrow_mut().index(ready.len());
            ready.swap_remove(chosen)
        };
        let task = {
            let mut slots = self.slots.borrow_mut();
            let slot = &mut slots[id.slot];
            if slot.generation != id.generation {
                return None;
            }
            if slot.task.as_ref().is_some_and(|task| task.shard.process.holds_back(&task.waker)) {
                return None;
            }
            slot.task.take()?
        };
        let shard = task.shard.clone();
        let _entered = Entered::new(&shard);
        // Declared behind `_entered`: a panic drops the body while its shard is still the current one.
        let mut task = task;
        task.waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.waker.clone());
        let ended = task.body.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if ended || !shard.process.is_alive() {
            self.release(id.slot);
            drop(task);
        } else {
            self.slots.borrow_mut()[id.slot].task = Some(task);
        }
        Some(Polled { slot: id.slot, shard })
    }

    fn release(&self, slot: usize) {
        self.slots.borrow_mut()[slot].generation += 1;
        self.free.borrow_mut().push(slot);
    }

    /// Drops every task of a process that has died.
    pub(super) fn discard(&self, process: &Rc<Process>) {
        assert!(!process.is_alive());
        let belongs = |slot: &Slot| slot.task.as_ref().is_some_and(|task| Rc::ptr_eq(&task.shard.process, process));
        let slots: Vec<usize> = {
            let slots = self.slots.borrow();
            (0..slots.len()).filter(|&slot| belongs(&slots[slot])).collect()
        };
        for slot in slots {
            let task = self.slots.borrow_mut()[slot].task.take();
            self.release(slot);
            if let Some(task) = task {
                task.discard();
            }
        }
    }
}
