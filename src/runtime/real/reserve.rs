//! Descriptors that a shard sets aside, for the files that it must be able to open when the process has none left.
//!
//! A roll of a segment opens a file; if connections could take the last descriptor, partitions would stop for want of one. So
//! opening a file may use the reserve, and connections are taken only while it is whole. It is taken at the shard's start,
//! when numbers are low, so that it is of use also after the limit was lowered on the running process (prlimit(1)).
//!
//! What this file does not do: it makes no room; descriptors come back when connections end and sealed files are closed.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

/// Descriptors of a shard's reserve: rolls that happen at the same time, each for as long as its old segment is still open.
const DESCRIPTORS: usize = 16;

/// The reserve of one shard: copies of a descriptor that is open anyway.
pub(super) struct Reserve {
    source: OwnedFd,
    held: RefCell<Vec<OwnedFd>>,
}

impl Reserve {
    /// A whole reserve of copies of `source`.
    pub(super) fn new(source: &OwnedFd) -> io::Result<Reserve> {
        let reserve = Reserve { source: source.try_clone()?, held: RefCell::default() };
        reserve.fill()?;
        Ok(reserve)
    }

    fn fill(&self) -> io::Result<()> {
        let mut held = self.held.borrow_mut();
        while held.len() < DESCRIPTORS {
            held.push(self.source.try_clone()?);
        }
        Ok(())
    }

    /// Takes back what was given out, as far as there are descriptors; whether the reserve is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.fill().is_ok()
    }

    /// Gives one descriptor up to whoever opens something next; `false` if none is left.
    pub(super) fn give(&self) -> bool {
        self.held.borrow_mut().pop().is_some()
    }
}

/// Whether a call failed for want of descriptors, of the process or of the system.
pub(super) fn is_want(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_given_out_is_taken_back() {
        let source = OwnedFd::from(File::open("/dev/null").expect("it is there"));
        let reserve = Reserve::new(&source).expect("there are descriptors");
        assert!((0..DESCRIPTORS).all(|_| reserve.give()));
        assert!(!reserve.give());
        assert!(reserve.is_whole());
        assert_eq!(reserve.held.borrow().len(), DESCRIPTORS);
    }
}
