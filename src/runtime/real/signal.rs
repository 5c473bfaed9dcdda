//! The request to end: SIGTERM and SIGINT.
//!
//! The first signal writes an eventfd that every shard polls, and gives both signals their default action back; so the second
//! one ends the process at once, whatever the shards are doing. Until a shard asks for the request the default action holds.
//!
//! Sources: sigaction(2), signal-safety(7), eventfd(2).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use io_uring::{opcode, types};

use super::operation::Memory;
use super::ring::Ring;
use super::slot::{Held, Orphan};

const SIGNALS: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// The eventfd for the handler, which can be told nothing else: signals belong to the process, not to a shard.
static REQUEST: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(_signal: libc::c_int) {
    for signal in SIGNALS {
        // SAFETY: signal(2) is safe inside a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    super::executor::write_eventfd(REQUEST.load(Ordering::Relaxed));
}

/// The eventfd that becomes readable, and stays so, with the first signal. Installs the handlers when called first.
fn request() -> io::Result<RawFd> {
    static INSTALLED: OnceLock<Result<RawFd, i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| install().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)));
    installed.map_err(io::Error::from_raw_os_error)
}

fn install() -> io::Result<RawFd> {
    // SAFETY: takes two integers. The descriptor stays open for the life of the process.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    REQUEST.store(fd, Ordering::Relaxed);
    // SAFETY: sigaction is a C struct for which all zeros is a value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    for signal in SIGNALS {
        // SAFETY: the handler does only what signal-safety(7) allows: signal, write and an atomic load.
        if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(fd)
}

/// Returns once the process was asked to end.
pub(super) async fn terminated(ring: &Rc<Ring>) {
    let fd = request().expect("two handlers and a descriptor can be had");
    let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build();
    let held = Held { descriptor: None, memory: Memory::Nothing, orphan: Orphan::Cancel };
    // SAFETY: the entry has no addresses, and its descriptor is never closed.
    let completion = unsafe { ring.start(entry, held) }.await;
    completion.count().expect("an eventfd can be polled");
}
