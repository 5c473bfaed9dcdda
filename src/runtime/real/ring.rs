//! The shard's io_uring: starts operations, enters the kernel, gives out completions, keeps the kernel timers.
//!
//! Starting an operation only writes a submission entry; the pump submits a whole turn's entries with one system call.
//! Task work is deferred (IORING_SETUP_DEFER_TASKRUN), so completions appear only while the shard is in the kernel, and that
//! they wait shows as one flag in shared memory. Every operation is in a slot that owns its memory and descriptor until its
//! completion has been seen; [`Ring::shut_down`] cancels and awaits all of them before anything is freed.
//!
//! What this file does not do: it decides neither when to submit nor when to sleep (see `pump`).
//! Sources: io_uring_setup(2), io_uring_enter(2), io_uring_register(2).
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Waker};

use io_uring::types::{CancelBuilder, TimeoutFlags, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, opcode, squeue, types};

use super::limits::{self, StartError};
use super::mailbox::{Bells, Signal};
use super::operation::{Memory, Operation, Transfer};
use super::reserve::Reserve;
use super::slot::{After, Completion, Held, Key, Orphan, Slots};
use super::timer::{TimerKey, Timers};

/// Submissions that fit before a system call is needed: one turn of some hundred connections. 64 bytes each.
const SUBMISSION_ENTRIES: u32 = 1024;
/// Completions that fit before the kernel keeps a list of its own (which costs, but loses nothing). 16 bytes each.
const COMPLETION_ENTRIES: u32 = 8192;
/// How long the shard blocks in its own ring before it lets glommio sleep.
const TICK_NANOS: u32 = 500_000;
/// Emptied transfers that are kept for reuse.
const TRANSFERS_KEPT: usize = 256;

/// Completions that belong to no slot.
const IGNORED: u64 = u64::MAX;
const TICK: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;

/// The ring of one shard.
pub(super) struct Ring {
    /// `None` once it has been shut down.
    uring: RefCell<Option<IoUring>>,
    slots: RefCell<Slots>,
    /// Submissions that found the queue full.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    #[expect(clippy::vec_box, reason = "the kernel knows their addresses: they are handed on in their boxes")]
    transfers: RefCell<Vec<Box<Transfer>>>,
    /// Completions taken off the queue, being given out.
    batch: RefCell<Vec<(u64, i32)>>,
    timers: RefCell<Timers>,
    timer: KernelTimer,
    tick: KernelTimer,
    /// Completions ever seen, other than the ring's own.
    completed: Cell<u64>,
    /// `completed` when the tick was armed.
    completed_at_tick: Cell<u64>,
    quiet_tick: Cell<bool>,
    closed: Cell<bool>,
    eventfd: OwnedFd,
    reserve: Reserve,
    /// What rings between shards.
    bells: Bells,
    truncates: bool,
    /// Extra flags for a blocking enter: a waiting shard is not "waiting for the disk".
    wait_flags: EnterFlags,
}

/// A kernel timer that is armed or not, with the memory for its time. The kernel reads that when the entry is submitted.
struct KernelTimer {
    armed: Cell<Option<u64>>,
    time: Box<Cell<Timespec>>,
}

impl KernelTimer {
    fn new() -> KernelTimer {
        KernelTimer { armed: Cell::new(None), time: Box::new(Cell::new(Timespec::new())) }
    }

    fn set(&self, nanos: u64) -> *const Timespec {
        let time = Timespec::new().sec(nanos / 1_000_000_000).nsec((nanos % 1_000_000_000) as u32);
        self.time.set(time);
        self.time.as_ptr().cast_const()
    }
}

impl Ring {
    /// Makes the ring, on the thread that will use it.
    pub(super) fn new() -> Result<Rc<Ring>, StartError> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETION_ENTRIES)
            .dontfork()
            .build(SUBMISSION_ENTRIES)
            .map_err(limits::ring_error)?;
        let source = |source| StartError::Ring { source };
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe).map_err(source)?;
        // SAFETY: eventfd takes two integers.
        let eventfd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if eventfd < 0 {
            return Err(source(io::Error::last_os_error()));
        }
        // SAFETY: just opened, and nobody else knows it.
        let eventfd = unsafe { OwnedFd::from_raw_fd(eventfd) };
        uring.submitter().register_eventfd(eventfd.as_raw_fd()).map_err(source)?;
        let quiet_waits = uring.params().is_feature_no_iowait();
        let ring = Ring {
            uring: RefCell::new(Some(uring)),
            slots: RefCell::default(),
            backlog: RefCell::default(),
            transfers: RefCell::default(),
            batch: RefCell::default(),
            timers: RefCell::default(),
            timer: KernelTimer::new(),
            tick: KernelTimer::new(),
            completed: Cell::new(0),
            completed_at_tick: Cell::new(0),
            quiet_tick: Cell::new(false),
            closed: Cell::new(false),
            reserve: Reserve::new(&eventfd).map_err(source)?,
            eventfd,
            bells: Bells::new(probe.is_supported(opcode::MsgRingData::CODE)),
            truncates: probe.is_supported(opcode::Ftruncate::CODE),
            wait_flags: if quiet_waits { EnterFlags::NO_IOWAIT } else { EnterFlags::empty() },
        };
        ring.set_eventfd(false);
        Ok(Rc::new(ring))
    }

    /// Keeps the open file behind `fd` open until the kernel has given back every operation of this ring, also if the process
    /// is killed: the kernel takes a ring apart after its process is gone (io_uring_register(2), IORING_REGISTER_FILES).
    /// One file at a time.
    pub(super) fn hold(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.uring.borrow().as_ref() {
            Some(uring) => uring.submitter().register_files(&[fd.as_raw_fd()]),
            None => Ok(()),
        }
    }

    /// Lets go of the file that [`Ring::hold`] keeps.
    pub(super) fn let_go(&self) -> io::Result<()> {
        match self.uring.borrow().as_ref() {
            Some(uring) => uring.submitter().unregister_files(),
            None => Ok(()),
        }
    }

    /// Whether ftruncate(2) is an operation of this kernel (6.9).
    pub(super) fn truncates(&self) -> bool {
        self.truncates
    }

    /// The bells of this shard and of those that it rings.
    pub(super) fn bells(&self) -> &Bells {
        &self.bells
    }

    /// The descriptors that are set aside for files.
    pub(super) fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// Another descriptor of the ring, for others to send messages to; it keeps the ring's memory until it is closed.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        let uring = self.uring.borrow();
        let uring = uring.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::ECANCELED))?;
        // SAFETY: the ring's own descriptor is open as long as the ring is borrowed.
        unsafe { BorrowedFd::borrow_raw(uring.as_raw_fd()) }.try_clone_to_owned()
    }

    /// Whether [`Ring::shut_down`] has begun: nothing is started any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// The descriptor that is written when a completion waits and [`Ring::set_eventfd`] has asked for it.
    pub(super) fn eventfd(&self) -> &OwnedFd {
        &self.eventfd
    }

    /// Starts an operation.
    ///
    /// # Safety
    /// Every address in `entry` points into `held`, to memory that does not move with it, or to memory that outlives the
    /// process's last shard.
    pub(super) unsafe fn start(self: &Rc<Ring>, entry: squeue::Entry, held: Held) -> Operation {
        if self.closed.get() {
            let cancelled = Completion { result: -libc::ECANCELED, held };
            let key = self.slots.borrow_mut().insert_done(cancelled);
            return Operation::new(self.clone(), key);
        }
        let key = self.slots.borrow_mut().insert(held);
        self.push(entry.user_data(key.user_data()));
        Operation::new(self.clone(), key)
    }

    /// Closes a descriptor on a worker of the kernel.
    pub(super) fn close(&self, fd: OwnedFd) {
        if self.closed.get() {
            return drop(fd);
        }
        let entry = opcode::Close::new(types::Fd(fd.into_raw_fd())).build().flags(squeue::Flags::ASYNC);
        let held = Held { descriptor: None, memory: Memory::Nothing, orphan: Orphan::Finish };
        let key = self.slots.borrow_mut().insert_orphan(held);
        self.push(entry.user_data(key.user_data()));
    }

    /// An empty transfer.
    pub(super) fn take_transfer(&self) -> Box<Transfer> {
        self.transfers.borrow_mut().pop().unwrap_or_else(Transfer::new)
    }

    /// Gives an emptied transfer back.
    pub(super) fn give_transfer(&self, transfer: Box<Transfer>) {
        let mut kept = self.transfers.borrow_mut();
        if kept.len() < TRANSFERS_KEPT {
            kept.push(transfer);
        }
    }

    pub(super) fn poll(&self, key: Key, context: &Context<'_>) -> Option<Completion> {
        self.slots.borrow_mut().poll(key, context)
    }

    pub(super) fn abandon(&self, key: Key) {
        let after = self.slots.borrow_mut().abandon(key);
        self.follow_up(after);
    }

    /// Starts an operation of the ring itself: one without addresses, whose completion belongs to no slot.
    pub(super) fn push(&self, entry: squeue::Entry) {
        let mut backlog = self.backlog.borrow_mut();
        if !backlog.is_empty() || !self.push_now(&entry) {
            backlog.push_back(entry);
        }
    }

    /// `false` if the queue stays full although it was submitted.
    fn push_now(&self, entry: &squeue::Entry) -> bool {
        let mut uring = self.uring.borrow_mut();
        let uring = uring.as_mut().expect("nothing is pushed once the ring is shut down");
        if uring.submission().is_full() {
            // Fails while completions overflow; then the entry waits in the backlog.
            let _ = uring.submit();
        }
        // SAFETY: the addresses in the entry are good until its completion, as `start` demands; the ring's own entries
        // point to boxes of the ring, or to nothing.
        unsafe { uring.submission().push(entry) }.is_ok()
    }

    /// Whether there is something to submit, to reap or to hear, or a timer to arm: a few loads of shared memory.
    pub(super) fn has_work(&self) -> bool {
        self.is_rung() || self.unarmed_deadline().is_some() || self.has_entries()
    }

    fn has_entries(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let Some(uring) = uring.as_mut() else { return false };
        let submissions = uring.submission();
        let waiting = !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow();
        drop(submissions);
        waiting || !uring.completion().is_empty()
    }

    /// Submits and reaps what there is, without waiting, and hears the bell. Says whether anything completed or rang.
    pub(super) fn turn(&self) -> bool {
        self.arm_timer();
        if !self.has_entries() {
            return self.hear_bell();
        }
        self.enter(0);
        // Behind the completions, one of which may be the message that it was rung.
        self.reap() | self.hear_bell()
    }

    /// Submits, waits for a completion but not longer than one tick, reaps, and hears the bell. `false` if a whole tick was
    /// quiet.
    pub(super) fn wait(&self) -> bool {
        if self.hear_bell() {
            return true;
        }
        self.arm_timer();
        if self.tick.armed.get().is_none() {
            let time = self.tick.set(u64::from(TICK_NANOS));
            self.tick.armed.set(Some(0));
            self.completed_at_tick.set(self.completed.get());
            self.push(opcode::Timeout::new(time).build().user_data(TICK));
        }
        self.quiet_tick.set(false);
        self.enter(1);
        self.reap();
        self.hear_bell() || !self.quiet_tick.get()
    }

    /// Switches the eventfd's notifications. With the fence, a completion that is not seen by a look after switching them on
    /// is signalled.
    pub(super) fn set_eventfd(&self, on: bool) {
        if let Some(uring) = self.uring.borrow_mut().as_mut() {
            let completions = uring.completion();
            if on { completions.enable_eventfd() } else { completions.disable_eventfd() }
        }
        fence(Ordering::SeqCst);
    }

    fn enter(&self, wanted: u32) {
        {
            let mut backlog = self.backlog.borrow_mut();
            while backlog.front().is_some_and(|entry| self.push_now(entry)) {
                backlog.pop_front();
            }
        }
        let mut uring = self.uring.borrow_mut();
        let uring = uring.as_mut().expect("the pump ends before the ring");
        let to_submit = u32::try_from(uring.submission().len()).expect("at most SUBMISSION_ENTRIES");
        let flags = if wanted > 0 { EnterFlags::GETEVENTS | self.wait_flags } else { EnterFlags::GETEVENTS };
        // SAFETY: no argument is passed, and what the entries point to is good (see `push_now`).
        let result = unsafe { uring.submitter().enter::<()>(to_submit, wanted, flags.bits(), None) };
        match result.map_err(|error| error.raw_os_error()) {
            // Interrupted by a signal, short of memory, or completions overflow: the next turn goes on.
            Ok(_) | Err(Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(error) => panic!("io_uring_enter failed: errno {error:?}"),
        }
    }

    /// Gives out the completions in the queue. Says whether there were any but the ring's own.
    fn reap(&self) -> bool {
        let before = self.completed.get();
        let mut batch = self.batch.take();
        loop {
            if let Some(uring) = self.uring.borrow_mut().as_mut() {
                batch.extend(uring.completion().map(|entry| (entry.user_data(), entry.result())));
            }
            if batch.is_empty() {
                break;
            }
            for (user_data, result) in batch.drain(..) {
                self.complete(user_data, result);
            }
        }
        self.batch.replace(batch);
        self.completed.get() != before
    }

    fn complete(&self, user_data: u64, result: i32) {
        match user_data {
            IGNORED => {}
            TICK => {
                self.tick.armed.set(None);
                let fired = result == -libc::ETIME;
                self.quiet_tick.set(fired && self.completed.get() == self.completed_at_tick.get());
            }
            TIMER => {
                self.completed.set(self.completed.get() + 1);
                self.timer.armed.set(None);
                self.fire_timers();
            }
            _ => {
                self.completed.set(self.completed.get() + 1);
                if let Some(signal) = Signal::of(user_data) {
                    return self.take_signal(signal, result);
                }
                let after = self.slots.borrow_mut().complete(Key::from_user_data(user_data), result);
                self.follow_up(after);
            }
        }
    }

    fn follow_up(&self, after: After) {
        match after {
            After::Nothing => {}
            After::Wake(waker) => waker.wake(),
            After::Discard { held, descriptor } => {
                if let Some(fd) = descriptor {
                    // SAFETY: the operation has just made this descriptor for a future that is gone: nobody knows it.
                    drop(unsafe { OwnedFd::from_raw_fd(fd) });
                }
                drop(held);
            }
            After::Cancel(key) if !self.closed.get() => {
                self.push(opcode::AsyncCancel::new(key.user_data()).build().user_data(IGNORED));
            }
            After::Cancel(_) => {}
        }
    }

    /// Adds a deadline, in nanoseconds of the monotonic clock.
    pub(super) fn add_timer(&self, deadline: u64, waker: Waker) -> TimerKey {
        self.timers.borrow_mut().insert(deadline, waker)
    }

    /// Whether the deadline has passed; if not, `context` is woken when it does.
    pub(super) fn poll_timer(&self, key: TimerKey, context: &Context<'_>) -> bool {
        self.timers.borrow_mut().poll(key, context)
    }

    /// Forgets a deadline.
    pub(super) fn remove_timer(&self, key: TimerKey) {
        // The kernel's timer stays: firing for nothing once is cheaper than moving it every time.
        self.timers.borrow_mut().remove(key);
    }

    fn fire_timers(&self) {
        let now = super::clock::monotonic_nanos();
        loop {
            let due = self.timers.borrow_mut().fire(now);
            let Some(waker) = due else { break };
            waker.wake();
        }
    }

    /// The first deadline, if the kernel's timer would fire after it.
    fn unarmed_deadline(&self) -> Option<u64> {
        let first = self.timers.borrow().first().filter(|_| !self.closed.get())?;
        self.timer.armed.get().is_none_or(|armed| first < armed).then_some(first)
    }

    /// Sees to it that the kernel's timer fires no later than the first deadline. It is armed when the kernel is entered, and
    /// not before: who was woken by the last deadline has set the next one by then. Programming the clock is the dearest part
    /// of a short sleep where the machine is a virtual one.
    fn arm_timer(&self) {
        let Some(first) = self.unarmed_deadline() else { return };
        match self.timer.armed.get() {
            Some(_) => {
                // If it has fired meanwhile, its completion is on the way and arms it anew.
                let time = self.timer.set(first);
                let update = opcode::TimeoutUpdate::new(TIMER, time).flags(TimeoutFlags::ABS);
                self.push(update.build().user_data(IGNORED));
            }
            None => {
                let time = self.timer.set(first);
                self.push(opcode::Timeout::new(time).flags(TimeoutFlags::ABS).build().user_data(TIMER));
            }
        }
        self.timer.armed.set(Some(first));
    }

    /// Cancels every operation, waits for the kernel to give all of them back, and closes the ring. What is started
    /// afterwards fails with ECANCELED.
    pub(super) fn shut_down(&self) {
        // What the last tasks left behind goes out: farewells ring the bells of other shards, and complete nothing here.
        self.turn();
        self.closed.set(true);
        let mut cancel = true;
        while self.slots.borrow().in_flight() > 0 {
            if cancel {
                self.push(opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(IGNORED));
            }
            // Transfers of a disk end by themselves and take their time. What was between two states when the first
            // cancellation came is met by the one after the next tick.
            cancel = !self.wait();
        }
        self.uring.replace(None);
    }

    #[cfg(test)]
    pub(super) fn is_shut_down(&self) -> bool {
        self.uring.borrow().is_none()
    }

    /// Operations that the kernel has not completed.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.slots.borrow().in_flight()
    }
}
