//! A simulated machine: its process of the moment, its disk, its wall clock; and the shard that a task runs on.
//!
//! A process is one life of a node. When it ends, everything that holds it sees that it is no longer alive; the next one has
//! a higher incarnation. A shard is what the facade reaches through the current context.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::World;
use super::disk::Disk;
use super::executor::TaskWaker;
use super::random::Random;
use crate::metrics::Recording;
use crate::runtime::clock::Instant;
use crate::runtime::task::Class;
use crate::types::{ShardId, Timestamp};

/// A machine of the simulation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub(super) u16);

impl NodeId {
    /// The node's number in order of creation; the client's is 0.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// The wall clock's time at the start of a simulation: 2026-01-01 00:00:00 UTC, in milliseconds.
const WALL_CLOCK_START_MS: u64 = 1_767_225_600_000;

pub(super) struct Node {
    pub(super) process: Option<Rc<Process>>,
    pub(super) incarnations: u64,
    pub(super) has_power: bool,
    /// The client has none.
    pub(super) disk: Option<Rc<RefCell<Disk>>>,
    pub(super) shards: u16,
    /// Milliseconds that the wall clock is ahead.
    pub(super) skew_ms: i64,
    pub(super) random: Random,
}

impl Node {
    pub(super) fn wall_clock(&self, now: u64) -> Timestamp {
        let start = Timestamp::EPOCH.plus_millis(WALL_CLOCK_START_MS + now / 1_000_000);
        if self.skew_ms < 0 {
            start.minus_millis(self.skew_ms.unsigned_abs())
        } else {
            start.plus_millis(self.skew_ms.unsigned_abs())
        }
    }
}

/// One life of a node.
pub(super) struct Process {
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
    alive: Cell<bool>,
    asked_to_end: Cell<bool>,
    end_waiters: RefCell<Vec<Waker>>,
    /// While the process is frozen: its tasks that are ready.
    frozen: RefCell<Option<Vec<Arc<TaskWaker>>>>,
}

impl Process {
    pub(super) fn new(node: NodeId, incarnation: u64) -> Process {
        Process {
            node,
            incarnation,
            alive: Cell::new(true),
            asked_to_end: Cell::new(false),
            end_waiters: RefCell::default(),
            frozen: RefCell::default(),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.get()
    }

    pub(super) fn die(&self) {
        self.alive.set(false);
    }

    pub(super) fn ask_to_end(&self) {
        self.asked_to_end.set(true);
        for waker in self.end_waiters.take() {
            waker.wake();
        }
    }

    pub(super) fn set_frozen(&self, frozen: bool) {
        let mut held = self.frozen.borrow_mut();
        if frozen {
            held.get_or_insert_default();
        } else {
            for task in held.take().into_iter().flatten() {
                task.queue();
            }
        }
    }

    /// Keeps a ready task back if the process is frozen.
    pub(super) fn holds_back(&self, task: &Arc<TaskWaker>) -> bool {
        let mut held = self.frozen.borrow_mut();
        held.as_mut().map(|held| held.push(task.clone())).is_some()
    }
}

/// A shard of a process: what the facade calls.
#[derive(Clone)]
pub(in crate::runtime) struct Shard {
    world: Weak<World>,
    pub(super) process: Rc<Process>,
    pub(super) number: ShardId,
    metrics: Recording,
}

impl Shard {
    pub(super) fn new(world: &Rc<World>, process: Rc<Process>, number: ShardId) -> Shard {
        Shard { world: Rc::downgrade(world), process, number, metrics: Recording::default() }
    }

    pub(in crate::runtime) fn metrics(&self) -> &Recording {
        &self.metrics
    }

    pub(super) fn world(&self) -> Rc<World> {
        self.world.upgrade().expect("the simulation outlives its tasks")
    }

    pub(super) fn try_world(&self) -> Option<Rc<World>> {
        self.world.upgrade()
    }

    pub(in crate::runtime) fn random_u64(&self) -> u64 {
        self.world().with_node(self.process.node, |node| node.random.bits())
    }

    pub(in crate::runtime) fn now(&self) -> Instant {
        Instant::from_nanos(self.world().clock.now())
    }

    pub(in crate::runtime) fn wall_clock(&self) -> Timestamp {
        let world = self.world();
        let now = world.clock.now();
        world.with_node(self.process.node, |node| node.wall_clock(now))
    }

    pub(in crate::runtime) async fn sleep_until(&self, deadline: Instant) {
        let world = self.world();
        if let Some(delay) = deadline.nanos().checked_sub(world.clock.now()).filter(|&delay| delay > 0) {
            let lateness = world.timer_lateness();
            world.clock.wait(delay.saturating_add(lateness)).await;
        }
    }

    /// Starts a task of this shard. The class is not looked at: between tasks any order must be right.
    pub(in crate::runtime) fn spawn(&self, _class: Class, body: Pin<Box<dyn Future<Output = ()>>>) {
        // What a dying process spawns while its tasks are dropped never runs.
        if self.process.is_alive() {
            self.world().executor.spawn(Rc::new(self.clone()), body);
        }
    }

    pub(in crate::runtime) async fn terminated(&self) {
        std::future::poll_fn(|context: &mut Context<'_>| {
            if self.process.asked_to_end.get() {
                return Poll::Ready(());
            }
            self.process.end_waiters.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
