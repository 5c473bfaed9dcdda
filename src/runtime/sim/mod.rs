//! The simulated world: nodes with disks and wall clocks, a network, virtual time, on one thread, from one seed.
//!
//! The simulation runs the production code of every node against the same facade as the real world. All that could differ
//! between two runs is drawn from the seed, so a seed replays exactly: the trace hash says whether it did. Time moves when
//! nothing is ready, and a little with every poll, so that a task that spins does not stop it.
//!
//! A [`Simulation`] drives; its [`Handle`] acts on the world, also from inside the tasks of the client, the node without a
//! disk that tests run on.
//!
//! What this module does not do: it models no speed. Latencies are there to vary orders, not to be measured.

mod clock;
mod disk;
mod executor;
mod fault;
mod mailbox;
mod network;
mod node;
mod random;
#[cfg(test)]
mod tests;
mod trace;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::ops::Deref;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use core::time::Duration;

use super::clock::Instant;
use super::sync::{Receiver, oneshot};
use crate::types::{ShardId, Timestamp};
use clock::{Action, Clock};
use disk::Disk;
pub(super) use disk::File;
pub use disk::PowerCut;
use executor::{Entered, Executor};
pub use fault::{DiskFault, DiskFaults};
use mailbox::Mail;
pub(super) use mailbox::{BellId, Carrier};
pub use network::NetworkOptions;
pub(super) use network::{DetachedStream, Listener, Stream};
use network::{Network, node_ip};
pub use node::NodeId;
pub(super) use node::Shard;
use node::{Node, Process};
pub use random::{PerMillion, Random};
pub use trace::Counters;
use trace::{Entry, Kind, Trace};

/// What a simulation is like besides its seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimulationOptions {
    /// Bytes of each node's disk.
    pub disk_bytes: u64,
    /// How far a node's wall clock is off at most, in either direction, in milliseconds.
    pub wall_clock_skew_ms_max: u64,
    /// How late a timer fires at most, in nanoseconds.
    pub timer_lateness_max: u64,
    /// Steps (polls and events) of the whole simulation: beyond them it is taken for a livelock.
    pub steps_max: u64,
    /// The network between the nodes.
    pub network: NetworkOptions,
}

impl Default for SimulationOptions {
    fn default() -> SimulationOptions {
        SimulationOptions {
            disk_bytes: 1 << 30,
            wall_clock_skew_ms_max: 500,
            timer_lateness_max: 200_000,
            steps_max: 50_000_000,
            network: NetworkOptions::default(),
        }
    }
}

/// Why a simulation stopped before it got where it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stuck {
    /// Every task waits for another one, for ever.
    #[error("seed {seed}: nothing is left to happen at {at:?}")]
    Idle {
        /// The seed.
        seed: u64,
        /// When.
        at: Instant,
    },
    /// [`SimulationOptions::steps_max`] is reached.
    #[error("seed {seed}: still running at {at:?} after {steps} steps")]
    TooManySteps {
        /// The seed.
        seed: u64,
        /// When.
        at: Instant,
        /// The number of steps.
        steps: u64,
    },
    /// The condition did not come true in time.
    #[error("seed {seed}: the time ran out at {at:?}")]
    TimedOut {
        /// The seed.
        seed: u64,
        /// When.
        at: Instant,
    },
}

/// Everything there is.
pub(crate) struct World {
    seed: u64,
    options: SimulationOptions,
    clock: Clock,
    executor: Executor,
    network: RefCell<Network>,
    mail: RefCell<Mail>,
    nodes: RefCell<Vec<Node>>,
    fuses: RefCell<Vec<Fuse>>,
    random: RefCell<Random>,
    trace: RefCell<Trace>,
    counters: RefCell<Counters>,
    steps: Cell<u64>,
}

/// A power cut that waits for a number of disk operations.
struct Fuse {
    node: NodeId,
    operations: u64,
    cut: PowerCut,
}

/// The subjects that draw from generators of their own.
const EXECUTOR_LABEL: u64 = 1;
const NETWORK_LABEL: u64 = 2;
const WORLD_LABEL: u64 = 3;
const MAIL_LABEL: u64 = 4;
/// Plus the node's number.
const DISK_LABEL: u64 = 1 << 32;
const NODE_LABEL: u64 = 2 << 32;

/// Virtual nanoseconds that one poll costs at most: about what a task does between two waits.
const POLL_NANOS_MAX: u64 = 1_000;

impl World {
    fn record(&self, kind: Kind, node: NodeId, size: u64, content: u64) {
        self.trace.borrow_mut().record(Entry { at: self.clock.now(), kind, node, size, content });
    }

    fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut self.counters.borrow_mut());
    }

    fn node_count(&self) -> usize {
        self.nodes.borrow().len()
    }

    fn with_node<R>(&self, node: NodeId, act: impl FnOnce(&mut Node) -> R) -> R {
        act(&mut self.nodes.borrow_mut()[usize::from(node.0)])
    }

    fn has_power(&self, node: NodeId) -> bool {
        self.with_node(node, |node| node.has_power)
    }

    fn disk(&self, node: NodeId) -> Option<Rc<RefCell<Disk>>> {
        self.with_node(node, |node| node.disk.clone())
    }

    fn timer_lateness(&self) -> u64 {
        self.random.borrow_mut().within(0..=self.options.timer_lateness_max)
    }

    /// Does one thing: an event that is due, else a ready task, else the next event up to `limit`. `false` if there is none.
    fn step(self: &Rc<World>, limit: u64) -> bool {
        let due = self.clock.next_at();
        if due.is_none_or(|at| at > self.clock.now()) && self.executor.has_ready() {
            if let Some(polled) = self.executor.poll_one() {
                self.count(|counters| counters.polls += 1);
                let number = u64::from(polled.shard.number.0);
                self.record(Kind::Poll, polled.shard.process.node, polled.slot as u64, number);
                let cost = self.random.borrow_mut().within(50..=POLL_NANOS_MAX);
                self.clock.advance_to(self.clock.now() + cost);
            }
            return true;
        }
        if due.is_none_or(|at| at > limit) {
            return false;
        }
        match self.clock.take_next() {
            Some(Action::Wake(timer)) => {
                if let Some(timer) = timer.upgrade() {
                    self.record(Kind::Timer, NodeId(0), 0, 0);
                    timer.fire();
                }
            }
            Some(Action::Run(action)) => action(self),
            None => return false,
        }
        true
    }

    /// Steps until `done`, at most until `limit`.
    fn run(self: &Rc<World>, limit: u64, mut done: impl FnMut() -> bool) -> Result<bool, Stuck> {
        let _note = NoteOfPanic(self);
        while !done() {
            let steps = self.steps.get() + 1;
            self.steps.set(steps);
            if steps > self.options.steps_max {
                return Err(Stuck::TooManySteps { seed: self.seed, at: self.at(), steps });
            }
            if self.clock.now() > limit || !self.step(limit) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn at(&self) -> Instant {
        Instant::from_nanos(self.clock.now())
    }

    /// Ends the node's process, if it has one: tasks, then sockets. The disk is the caller's.
    fn end_process(self: &Rc<World>, node: NodeId, silently: bool) {
        let Some(process) = self.with_node(node, |node| node.process.take()) else { return };
        process.die();
        self.executor.discard(&process);
        self.end_sockets(&process, silently);
    }

    fn power_cut(self: &Rc<World>, node: NodeId, cut: PowerCut) {
        self.record(Kind::PowerCut, node, cut as u64, 0);
        self.fuses.borrow_mut().retain(|fuse| fuse.node != node);
        self.with_node(node, |node| node.has_power = false);
        self.end_process(node, true);
        let mut counters = self.counters.borrow_mut();
        counters.power_cuts += 1;
        if let Some(disk) = self.disk(node) {
            disk.borrow_mut().power_cut(cut, &mut counters);
        }
    }

    /// A disk operation that takes `delay` was submitted.
    fn burn_fuse(self: &Rc<World>, node: NodeId, delay: u64) {
        let mut burnt = Vec::new();
        self.fuses.borrow_mut().retain_mut(|fuse| {
            let ours = fuse.node == node;
            fuse.operations -= u64::from(ours);
            let over = ours && fuse.operations == 0;
            if over {
                burnt.push(fuse.cut);
            }
            !over
        });
        for cut in burnt {
            let at = self.random.borrow_mut().within(0..=delay);
            self.clock.schedule(at, Action::Run(Box::new(move |world| world.power_cut(node, cut))));
        }
    }
}

/// Names the seed, and what happened last, when a task panics.
struct NoteOfPanic<'a>(&'a World);

impl Drop for NoteOfPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulation seed {} at {:?}; last events:", self.0.seed, self.0.at());
            if let Ok(trace) = self.0.trace.try_borrow() {
                trace.recent().for_each(|entry| eprintln!("  {entry}"));
            }
        }
    }
}

/// A simulation that can be run. Dropping it drops every task.
pub struct Simulation {
    handle: Handle,
}

/// Acts on the world of a simulation. Clones act on the same world.
#[derive(Clone)]
pub struct Handle {
    world: Rc<World>,
}

impl Deref for Simulation {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Simulation {
    /// A world with a client and nothing else; its time is 0.
    pub fn new(seed: u64, options: SimulationOptions) -> Simulation {
        let world = Rc::new(World {
            seed,
            options,
            clock: Clock::default(),
            executor: Executor::new(Random::fork(seed, EXECUTOR_LABEL)),
            network: RefCell::new(Network::new(options.network, Random::fork(seed, NETWORK_LABEL))),
            mail: RefCell::new(Mail::new(Random::fork(seed, MAIL_LABEL))),
            nodes: RefCell::default(),
            fuses: RefCell::default(),
            random: RefCell::new(Random::fork(seed, WORLD_LABEL)),
            trace: RefCell::default(),
            counters: RefCell::default(),
            steps: Cell::new(0),
        });
        let handle = Handle { world };
        handle.add_machine(1, None);
        Simulation { handle }
    }

    /// Runs until `done` is true; it is looked at between steps.
    ///
    /// # Errors
    /// [`Stuck::TimedOut`] when `within` has passed first, and the others.
    pub fn run_until(&self, within: Duration, done: impl FnMut() -> bool) -> Result<(), Stuck> {
        let limit = self.world.at().plus(within).nanos();
        if self.world.run(limit, done)? {
            return Ok(());
        }
        self.world.clock.advance_to(limit);
        Err(Stuck::TimedOut { seed: self.world.seed, at: self.world.at() })
    }

    /// Runs for `time`.
    ///
    /// # Errors
    /// [`Stuck::TooManySteps`].
    pub fn run_for(&self, time: Duration) -> Result<(), Stuck> {
        match self.run_until(time, || false) {
            Err(Stuck::TimedOut { .. }) => Ok(()),
            other => other,
        }
    }

    /// Runs `future` on the client until it is ready.
    ///
    /// # Errors
    /// [`Stuck::Idle`] when nothing is left to happen first; [`Stuck::TooManySteps`].
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Result<T, Stuck> {
        let output = self.run_on(self.client(), ShardId(0), future)?;
        Ok(output.expect("the client is never killed"))
    }

    /// Runs `future` on a shard of a node until it is ready; `None` if the process ended first.
    ///
    /// # Errors
    /// As [`Simulation::block_on`].
    pub fn run_on<T: 'static>(
        &self,
        node: NodeId,
        shard: ShardId,
        future: impl Future<Output = T> + 'static,
    ) -> Result<Option<T>, Stuck> {
        let mut output = self.start(node, shard, future);
        let mut result = None;
        let ended = self.world.run(u64::MAX, || {
            // Nobody is woken: the output is looked at after every step.
            if let Poll::Ready(taken) = Pin::new(&mut output).poll(&mut Context::from_waker(Waker::noop())) {
                result = Some(taken);
            }
            result.is_some()
        })?;
        if ended { Ok(result.flatten()) } else { Err(Stuck::Idle { seed: self.world.seed, at: self.world.at() }) }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        for node in 0..self.world.node_count() {
            self.world.end_process(NodeId(node as u16), true);
        }
        self.world.clock.clear();
    }
}

impl Handle {
    fn add_machine(&self, shards: u16, disk_bytes: Option<u64>) -> NodeId {
        let world = &self.world;
        let number = u16::try_from(world.node_count()).expect("fewer than 65 536 nodes");
        let node = NodeId(number);
        let skew_max = world.options.wall_clock_skew_ms_max;
        let skew = world.random.borrow_mut().within(0..=2 * skew_max).cast_signed() - skew_max.cast_signed();
        let disk = disk_bytes.map(|bytes| {
            let random = Random::fork(world.seed, DISK_LABEL + u64::from(number));
            Rc::new(RefCell::new(Disk::new(bytes, random)))
        });
        world.nodes.borrow_mut().push(Node {
            process: None,
            incarnations: 0,
            has_power: false,
            disk,
            shards,
            skew_ms: skew,
            random: Random::fork(world.seed, NODE_LABEL + u64::from(number)),
        });
        self.restart(node);
        node
    }

    /// Adds a node with an empty disk and a process of `shards` shards.
    pub fn add_node(&self, shards: u16) -> NodeId {
        assert!(shards > 0);
        self.add_machine(shards, Some(self.world.options.disk_bytes))
    }

    /// The node that tests run on: it has no disk and is never killed.
    pub fn client(&self) -> NodeId {
        NodeId(0)
    }

    /// The address of a node.
    pub fn address(&self, node: NodeId) -> IpAddr {
        node_ip(node)
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.world.seed
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.world.at()
    }

    /// A number below `bound`, which is not 0, for the decisions of a test.
    pub fn draw(&self, bound: u64) -> u64 {
        self.world.random.borrow_mut().below(bound)
    }

    /// Starts `future` on a shard of a node whose process is running. The receiver gives `None` if the process ends first.
    pub fn start<T: 'static>(
        &self,
        node: NodeId,
        shard: ShardId,
        future: impl Future<Output = T> + 'static,
    ) -> Receiver<T> {
        let (process, shards) = self.world.with_node(node, |node| (node.process.clone(), node.shards));
        let process = process.expect("the process of the node is running");
        assert!(shard.0 < shards, "the node has {shards} shards");
        self.world.record(Kind::Start, node, u64::from(shard.0), 0);
        let (sender, receiver) = oneshot();
        let shard = Rc::new(Shard::new(&self.world, process, shard));
        let body = Box::pin(async move { sender.send(future.await) });
        self.world.executor.spawn(shard, body);
        receiver
    }

    /// Whether the node's process is running.
    pub fn is_running(&self, node: NodeId) -> bool {
        self.world.with_node(node, |node| node.process.is_some())
    }

    /// Ends the process of a node at once; its machine lives on, with everything that the kernel had.
    pub fn kill(&self, node: NodeId) {
        assert!(node != self.client(), "the client is never killed");
        self.world.record(Kind::Kill, node, 0, 0);
        self.world.count(|counters| counters.kills += 1);
        self.world.end_process(node, false);
        if let Some(disk) = self.world.disk(node) {
            disk.borrow_mut().process_died();
        }
    }

    /// Takes the power from a node: its process ends, and its disk keeps what was durable and some of the rest.
    pub fn power_cut(&self, node: NodeId, cut: PowerCut) {
        assert!(node != self.client(), "the client is never cut off");
        self.world.power_cut(node, cut);
    }

    /// Takes the power from a node while its `operations`-th disk operation from now is under way.
    pub fn power_cut_after(&self, node: NodeId, operations: u64, cut: PowerCut) {
        assert!(node != self.client() && operations > 0);
        self.world.fuses.borrow_mut().push(Fuse { node, operations, cut });
    }

    /// Gives a node whose process has ended power and a new process, without tasks.
    pub fn restart(&self, node: NodeId) {
        self.world.with_node(node, |machine| {
            assert!(machine.process.is_none(), "the process of the node is running");
            machine.incarnations += 1;
            machine.has_power = true;
            machine.process = Some(Rc::new(Process::new(node, machine.incarnations)));
        });
        self.world.record(Kind::Restart, node, 0, 0);
    }

    fn process(&self, node: NodeId) -> Rc<Process> {
        let process = self.world.with_node(node, |node| node.process.clone());
        process.expect("the process of the node is running")
    }

    /// Asks the process of a node to end, as SIGTERM does.
    pub fn terminate(&self, node: NodeId) {
        self.process(node).ask_to_end();
    }

    /// Stops the tasks of a node, as SIGSTOP does; disk and network go on.
    pub fn freeze(&self, node: NodeId) {
        self.process(node).set_frozen(true);
    }

    /// Lets the tasks of a frozen node run on.
    pub fn thaw(&self, node: NodeId) {
        self.process(node).set_frozen(false);
    }

    /// The wall clock of a node.
    pub fn wall_clock(&self, node: NodeId) -> Timestamp {
        let now = self.world.clock.now();
        self.world.with_node(node, |node| node.wall_clock(now))
    }

    /// Moves the wall clock of a node, forwards or back.
    pub fn jump_wall_clock(&self, node: NodeId, milliseconds: i64) {
        self.world.with_node(node, |node| node.skew_ms = node.skew_ms.saturating_add(milliseconds));
    }

    fn with_disk<R>(&self, node: NodeId, act: impl FnOnce(&mut Disk) -> R) -> R {
        let disk = self.world.disk(node).expect("the client has no disk");
        act(&mut disk.borrow_mut())
    }

    /// Sets the faults of a node's disk by rate.
    pub fn set_disk_faults(&self, node: NodeId, faults: DiskFaults) {
        self.with_disk(node, |disk| disk.faults.rates = faults);
    }

    /// Lets the next operation that `fault` can strike, on a path that contains `path_part`, meet it. The path is the one
    /// that the file was opened by.
    pub fn fail_next(&self, node: NodeId, fault: DiskFault, path_part: &str) {
        self.with_disk(node, |disk| disk.faults.request(fault, path_part));
    }

    /// Sets the size of a node's disk; what is on it stays.
    pub fn set_disk_capacity(&self, node: NodeId, bytes: u64) {
        self.with_disk(node, |disk| disk.set_capacity(bytes));
    }

    /// Overwrites bytes of a file where they lie, durably and past every cache: latent corruption.
    ///
    /// # Errors
    /// As for opening `path`.
    pub fn corrupt(&self, node: NodeId, path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.world.count(|counters| counters.corruptions += 1);
        self.with_disk(node, |disk| disk.corrupt(path, position, bytes))
    }

    /// Flips bit `bit` (0–7) of the byte at `position` of a file where it lies.
    ///
    /// # Errors
    /// As for opening `path`.
    pub fn flip_bit(&self, node: NodeId, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        self.world.count(|counters| counters.corruptions += 1);
        self.with_disk(node, |disk| disk.flip_bit(path, position, bit))
    }

    /// The whole content of a file as a read would see it now; takes no time and meets no fault.
    ///
    /// # Errors
    /// As for opening `path`; EIO for a sector that is unreadable.
    pub fn peek(&self, node: NodeId, path: &Path) -> io::Result<Vec<u8>> {
        self.with_disk(node, |disk| disk.peek(path))
    }

    /// Cuts the way of bytes from one node to another; the way back stays.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.world.set_cut(from, to, true);
    }

    /// Heals the way of bytes from one node to another.
    pub fn heal(&self, from: NodeId, to: NodeId) {
        self.world.set_cut(from, to, false);
    }

    /// What happened so far, in numbers.
    pub fn counters(&self) -> Counters {
        *self.world.counters.borrow()
    }

    /// A hash of everything that happened so far: equal for equal seeds and equal code, and nothing else.
    pub fn trace_hash(&self) -> u64 {
        self.world.trace.borrow().hash()
    }

    /// Runs `act` with a shard of the client as the current one, for code of a test outside any task.
    pub fn enter<R>(&self, act: impl FnOnce() -> R) -> R {
        let shard = Rc::new(Shard::new(&self.world, self.process(self.client()), ShardId(0)));
        let _entered = Entered::new(&shard);
        act()
    }
}
