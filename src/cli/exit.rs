//! How the process ends: one exit code per kind of cause, fixed for scripts and service files.
//!
//! The one definition of the numbers. A panic of a shard is not here: it aborts the process, which the shell shows as 134
//! (128 + SIGABRT). It decides nothing: whoever fails names the kind.

use std::process::{ExitCode, Termination};

/// The kind of end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Served and drained, or printed what was asked for.
    Drained = 0,
    /// The command line or the configuration is wrong.
    Usage = 1,
    /// The data directory is locked, unwritable or of a newer format.
    DataDirectory = 2,
    /// An address cannot be bound.
    Bind = 3,
    /// The ring, the kernel or a limit of the process does not allow it.
    System = 4,
    /// The metadata of the cluster is corrupt.
    MetadataCorrupt = 5,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}
