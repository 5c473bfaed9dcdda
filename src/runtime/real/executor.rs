//! Starting and ending shards: one glommio executor and one ring per thread.
//!
//! glommio gives the executor, its task queues with shares and the thread's placement; everything else goes through the
//! ring. A shard ends when its main future does: from then on no task is polled, all are dropped, and every operation is
//! cancelled and awaited before the ring is. A panic on a shard's thread is logged and aborts the process
//! (exit by SIGABRT, 134): half a broker is worse than none.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::io::Write;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::panic;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use glommio::io::BufferedFile;
use glommio::{Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, Shares, TaskQueueHandle};

use super::Shard;
use super::guard::Guard;
use super::limits::{self, StartError};
use super::pump::Pump;
use super::ring::Ring;
use super::task::{Load, counted, counted_own};
use crate::runtime::Duration;
use crate::runtime::context::{self, Backend};
use crate::runtime::sync;
use crate::runtime::task::Class;
use crate::types::ShardId;

/// Bytes that glommio registers for its own files, which we do not use: its least. It pins three times as much.
const GLOMMIO_MEMORY_BYTES: usize = 64 << 10;
/// Entries of glommio's three rings: it holds a timer and an eventfd there.
const GLOMMIO_RING_ENTRIES: usize = 32;

/// glommio's default. A shorter one makes it sleep although tasks are runnable, much more often.
const PREEMPTION: Duration = Duration::from_millis(100);

/// How a shard is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The core that the shard's thread stays on; `None` leaves it to the scheduler, as there are more shards than cores.
    pub core: Option<usize>,
}

thread_local! {
    /// What this thread is, if a panic on it ends the process.
    static VITAL: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs `main` on a shard of its own, on the calling thread, until it returns.
///
/// # Errors
/// What the machine lacks: see [`StartError`].
///
/// # Panics
/// On a thread that runs a shard already. A panic of `main` or of any task aborts the process.
pub fn run<T: 'static>(options: &Options, main: impl Future<Output = T> + 'static) -> Result<T, StartError> {
    limits::check(1)?;
    run_checked(options, PREEMPTION, main)
}

/// Runs `count` shards on threads of their own, each with the future that `main` makes for it there, until all have returned.
/// Yields their results in the order of the shards.
///
/// # Errors
/// What the machine lacks for one of them: none has run then.
pub fn run_shards<T, F>(
    count: u16,
    options: impl Fn(ShardId) -> Options,
    main: impl Fn(ShardId) -> F + Send + Sync + 'static,
) -> Result<Vec<T>, StartError>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    limits::check(usize::from(count))?;
    let main = Arc::new(main);
    let gate = Arc::new(Gate::new(count));
    let mut threads = Vec::with_capacity(usize::from(count));
    let mut outcome = Ok(());
    for number in 0..count {
        let shard = ShardId(number);
        let (options, main, arriving) = (options(shard), main.clone(), gate.clone());
        let body = move || {
            let prepared = prepare(&options, PREEMPTION);
            let all_are_there = arriving.pass(prepared.is_ok());
            let prepared = prepared?;
            Ok(all_are_there.then(|| prepared.run(async move { main(shard).await })))
        };
        match thread::Builder::new().name(format!("shard-{number}")).spawn(body) {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                (number..count).for_each(|_| gate.fail());
                outcome = Err(StartError::Thread { source });
                break;
            }
        }
    }
    let mut results = Vec::with_capacity(threads.len());
    for thread in threads {
        match thread.join().expect("a panic on a shard aborts the process") {
            Ok(result) => results.extend(result),
            Err(error) => outcome = Err(error),
        }
    }
    outcome.map(|()| results)
}

/// Where shards that are about to start wait for each other: none starts unless all can, since they wait for each other's
/// answers.
struct Gate {
    state: Mutex<GateState>,
    everybody: Condvar,
}

struct GateState {
    missing: u16,
    failed: bool,
}

impl Gate {
    fn new(count: u16) -> Gate {
        Gate { state: Mutex::new(GateState { missing: count, failed: false }), everybody: Condvar::new() }
    }

    fn arrive(&self, is_ready: bool) -> MutexGuard<'_, GateState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.missing -= 1;
        state.failed |= !is_ready;
        self.everybody.notify_all();
        state
    }

    /// A shard will not come.
    fn fail(&self) {
        drop(self.arrive(false));
    }

    /// Waits until every shard has arrived; whether all are ready.
    fn pass(&self, is_ready: bool) -> bool {
        let state = self.arrive(is_ready);
        let waited = self.everybody.wait_while(state, |state| state.missing > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).failed
    }
}

/// Runs one shard, with glommio's preemption timer set to `preemption`.
pub(super) fn run_checked<T: 'static>(
    options: &Options,
    preemption: Duration,
    main: impl Future<Output = T> + 'static,
) -> Result<T, StartError> {
    prepare(options, preemption).map(|prepared| prepared.run(main))
}

/// A shard of the calling thread that has everything that it needs of the machine.
struct Prepared {
    executor: LocalExecutor,
    ring: Rc<Ring>,
    load: Arc<Load>,
    guard: Rc<Guard>,
    preemption: Duration,
}

fn prepare(options: &Options, preemption: Duration) -> Result<Prepared, StartError> {
    if let Some(files) = limits::raise_file_limit() {
        tracing::debug!(files, "limit on open files");
    }
    let placement = options.core.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .preempt_timer(PREEMPTION)
        .io_memory(GLOMMIO_MEMORY_BYTES)
        .ring_depth(GLOMMIO_RING_ENTRIES)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .make()
        .map_err(|error| StartError::Executor { reason: error.to_string() })?;
    let ring = Ring::new()?;
    let load = Arc::new(Load::default());
    let guard = Guard::start(&load).map_err(|source| StartError::Thread { source })?;
    Ok(Prepared { executor, ring, load, guard, preemption })
}

impl Prepared {
    fn run<T: 'static>(self, main: impl Future<Output = T> + 'static) -> T {
        let was_vital = abort_if_this_thread_panics(Some("a shard"));
        let result = self.executor.run(drive(self.ring, self.load, self.guard, self.preemption, main));
        context::replace(None);
        VITAL.set(was_vital);
        result
    }
}

/// Sets the shard up, runs `main` on it, and shuts the ring down.
async fn drive<T: 'static>(
    ring: Rc<Ring>,
    load: Arc<Load>,
    guard: Rc<Guard>,
    preemption: Duration,
    main: impl Future<Output = T> + 'static,
) -> T {
    guard.attend().await;
    let pump = Pump::new(ring.clone(), load.clone());
    // A shorter timer than the executor's is the wish of the queues: at the first turn there is nobody to be woken yet.
    let latency = if preemption < PREEMPTION { Latency::Matters(preemption) } else { Latency::NotImportant };
    let queues = Class::ALL.map(|class| {
        let name = format!("{class:?}");
        glommio::executor().create_task_queue(Shares::Static(class.shares()), latency, &name)
    });
    let shard = Rc::new(Shard::new(ring.clone(), pump.clone(), load.clone(), queues));
    let before = context::replace(Some(Backend::Real(shard.clone())));
    assert!(before.is_none(), "a thread runs one shard");

    let own = queues[0];
    let pumping = spawn_native(counted_own(&load, pump.clone(), pump.clone().run()), own);
    let watching = spawn_native(counted_own(&load, pump.clone(), pump.clone().watch_eventfd()), own);
    let (sender, output) = sync::oneshot();
    let ending = guard.clone();
    shard.spawn(Class::Produce, async move {
        let output = main.await;
        ending.set_busy(true);
        sender.send(output)
    });
    guard.set_busy(false);
    let output = output.await.expect("a panic aborts the process, so main returns");

    pump.close();
    while !pump.tasks().is_empty() {
        glommio::executor().yield_task_queue_now().await;
    }
    for task in [pumping, watching] {
        task.await;
    }
    guard.end();
    ring.shut_down();
    output
}

fn spawn_native(future: impl Future<Output = ()> + 'static, queue: TaskQueueHandle) -> glommio::task::JoinHandle<()> {
    glommio::spawn_local_into(future, queue).expect("the queue exists").detach()
}

/// Starts a task in the queue of its class.
pub(super) fn spawn_into(
    queue: TaskQueueHandle,
    load: &Arc<Load>,
    pump: &Rc<Pump>,
    future: impl Future<Output = ()> + 'static,
) {
    spawn_native(counted(load, pump.clone(), future), queue);
}

/// An eventfd as a file of glommio, through which its reactor can be woken.
pub(super) fn glommio_file(eventfd: &OwnedFd) -> BufferedFile {
    let own = eventfd.try_clone().expect("a descriptor for the shard's start").into_raw_fd();
    // SAFETY: just duplicated, and nobody else knows it; glommio closes it.
    unsafe { BufferedFile::from_raw_fd(own) }
}

/// Adds one to an eventfd. Safe inside a signal handler.
pub(super) fn write_eventfd(eventfd: RawFd) {
    let one = 1_u64;
    // SAFETY: reads eight bytes. It fails only for a bad descriptor or a full counter, which is as good as written.
    unsafe { libc::write(eventfd, (&raw const one).cast(), size_of::<u64>()) };
}

/// From now on a panic on the calling thread, which is `what`, ends the process after it has been logged; with `None` it
/// does not. Panics on other threads are left alone. Returns what the thread was before.
pub(in crate::runtime) fn abort_if_this_thread_panics(what: Option<&'static str>) -> Option<&'static str> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let Some(what) = VITAL.try_with(Cell::get).ok().flatten() else { return before(panic) };
            let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            let text = message(panic.payload());
            tracing::error!(place, text, "{what} panicked");
            // Straight to the descriptor: whatever captures or filters the log, the last words are seen.
            let backtrace = std::backtrace::Backtrace::capture();
            let _ = writeln!(std::io::stderr(), "{what} panicked at {place}: {text}\n{backtrace}");
            std::process::abort();
        }));
    });
    VITAL.replace(what)
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
