//! The request to end: SIGTERM and SIGINT.
//!
//! The first signal sets a flag, writes the eventfd of every shard that asked, which is what ends a shard's sleep wherever it
//! is, and gives both signals their default action back; so the second one ends the process at once, whatever the shards are
//! doing. A shard looks at the flag whenever its eventfd was read. Until a shard asks the default action holds.
//!
//! Signals belong to the process, not to a shard, and a handler can be told nothing: hence the statics. A handler may run at
//! any time, so what it walks is never freed.
//!
//! Sources: sigaction(2), signal-safety(7), eventfd(2).
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::task::{Poll, Waker};

const SIGNALS: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// Whether the first signal has come.
static REQUESTED: AtomicBool = AtomicBool::new(false);
/// The shards to be woken, the newest first.
static SLEEPERS: AtomicPtr<Sleeper> = AtomicPtr::new(ptr::null_mut());

/// A shard as the handler sees it. It stays for the life of the process, with a descriptor of its own: a few bytes and one
/// descriptor for each shard that ever asked.
struct Sleeper {
    eventfd: OwnedFd,
    next: *const Sleeper,
}

extern "C" fn on_signal(_signal: libc::c_int) {
    for signal in SIGNALS {
        // SAFETY: signal(2) is safe inside a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // Before the list is read: a shard that is not in it yet sees the flag after it has put itself there.
    REQUESTED.store(true, Ordering::SeqCst);
    let mut next = SLEEPERS.load(Ordering::SeqCst).cast_const();
    // SAFETY: null, or a sleeper that was complete when it was published and is never changed or freed.
    while let Some(sleeper) = unsafe { next.as_ref() } {
        super::executor::write_eventfd(sleeper.eventfd.as_raw_fd());
        next = sleeper.next;
    }
}

/// Installs the handlers when called first.
fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| install_now().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)));
    installed.map_err(io::Error::from_raw_os_error)
}

fn install_now() -> io::Result<()> {
    // SAFETY: sigaction is a C struct for which all zeros is a value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    for signal in SIGNALS {
        // SAFETY: the handler does only what signal-safety(7) allows: signal, write, loads and stores of atomics.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Has the handler write `eventfd`.
fn publish(eventfd: OwnedFd) {
    let sleeper = Box::leak(Box::new(Sleeper { eventfd, next: ptr::null() }));
    let mut first = SLEEPERS.load(Ordering::SeqCst);
    loop {
        sleeper.next = first;
        match SLEEPERS.compare_exchange(first, sleeper, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return,
            Err(other) => first = other,
        }
    }
}

/// The tasks of one shard that wait for the request.
#[derive(Default)]
pub(super) struct Termination {
    is_published: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Termination {
    /// The shard's eventfd was read: tells the tasks that wait if the request is why.
    pub(super) fn look(&self) {
        if REQUESTED.load(Ordering::SeqCst) {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// From now on a signal is a request. `eventfd` is what ends the shard's sleep.
    pub(super) fn expect(&self, eventfd: &OwnedFd) {
        if !self.is_published.replace(true) {
            let own = eventfd.try_clone().expect("a descriptor can be had");
            publish(own);
            install().expect("two handlers can be installed");
        }
    }

    /// Returns once the process was asked to end.
    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            if REQUESTED.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
