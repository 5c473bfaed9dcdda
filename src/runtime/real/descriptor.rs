//! An open descriptor, closed when its last user is gone: the handle, its clones, and every operation in flight on it.
//!
//! Sockets are closed on the spot. Files are closed by a worker of the kernel, because the last close of an unlinked file
//! frees its space, which can take long.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Weak;

use io_uring::types;

use super::ring::Ring;

/// An owned descriptor.
pub(super) struct Descriptor {
    /// `None` only once it is given away or dropped.
    fd: Option<OwnedFd>,
    closer: Weak<Ring>,
}

impl Descriptor {
    /// A socket: closing it is quick.
    pub(super) fn socket(fd: OwnedFd) -> Descriptor {
        Descriptor { fd: Some(fd), closer: Weak::new() }
    }

    /// A file, closed through `ring` as long as it is there.
    pub(super) fn file(fd: OwnedFd, ring: Weak<Ring>) -> Descriptor {
        Descriptor { fd: Some(fd), closer: ring }
    }

    /// Gives the descriptor to somebody else, open.
    pub(super) fn into_fd(mut self) -> OwnedFd {
        self.fd.take().expect("given away or dropped once")
    }

    /// For io_uring.
    pub(super) fn target(&self) -> types::Fd {
        types::Fd(self.raw())
    }

    /// For system calls.
    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_ref().expect("taken with the descriptor alone").as_raw_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        match self.closer.upgrade() {
            Some(ring) => ring.close(fd),
            None => drop(fd),
        }
    }
}
