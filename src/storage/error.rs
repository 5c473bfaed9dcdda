//! What can go wrong with a log: one enum per operation, each variant with the offsets, files and positions that it is about.
//!
//! Three kinds: *retry* (no room now, recovering), *reject* (the client's fault) and *fatal* (corruption, a failed disk). The
//! partition maps them to Kafka's error codes; this file knows no codes.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use super::producers::SequenceError;
use super::recovery::RecoveryCase;
use crate::types::Offset;

/// Bytes on disk that are not what was written there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} at byte {position}: expected {expected}, found {found}", file.display())]
pub struct Corruption {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub position: u64,
    /// What belongs there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// An operation of the system on a file failed. Cheap to clone: many waiters hear of one failure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {}: {source}", file.display())]
pub struct IoFailure {
    /// What was tried: `open`, `read`, `write`, `sync`, …
    pub operation: &'static str,
    /// The file or directory.
    pub file: PathBuf,
    /// What the system said.
    pub source: Rc<io::Error>,
}

impl IoFailure {
    /// The failure of `operation` on `file`.
    pub fn new(operation: &'static str, file: impl Into<PathBuf>, source: io::Error) -> IoFailure {
        IoFailure { operation, file: file.into(), source: Rc::new(source) }
    }

    /// Whether the disk, or the user's share of it, is full. A full disk closes no log.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Why a log cannot be opened or created. It stays offline; nothing on disk was cut.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] IoFailure),
    /// Files in a state that no power cut explains.
    #[error("corruption ({case}) in {corruption}")]
    Corrupt {
        /// The row of the recovery table.
        case: RecoveryCase,
        /// Where and what.
        corruption: Corruption,
    },
}

/// Why a batch is not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The append buffers are full of what the disk has not taken yet: retry.
    #[error("the append buffers are full")]
    Backpressure,
    /// A write failed and is being made good: retry.
    #[error("the log recovers from a failed write")]
    Recovering,
    /// A write failed and could not be made good, or the log is closed: the partition is offline.
    #[error("the log is closed")]
    Closed,
    /// The disk is nearly full: retry once there is room.
    #[error("the disk is full")]
    DiskFull,
    /// The producer's sequence or epoch does not fit: the client's fault.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The batch is longer than a write or a segment can be: the client's fault.
    #[error("a batch of {bytes} bytes, at most {bytes_max} fit")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// What fits.
        bytes_max: u64,
    },
}

/// Why a read gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log does not hold the offset.
    #[error("offset {offset} lies outside the log, {log_start} to {log_end}")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset of the log.
        log_start: Offset,
        /// The offset behind its last record.
        log_end: Offset,
    },
    /// The batch that holds the offset is damaged.
    #[error("corruption in {corruption}")]
    Corrupt {
        /// Where and what.
        corruption: Corruption,
        /// The next offset that can be read again, if it is known.
        resumes_at: Option<Offset>,
    },
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] IoFailure),
}

/// Why something that must be durable is not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DurabilityError {
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] IoFailure),
    /// The log failed, or was closed meanwhile.
    #[error("the log is closed")]
    Closed,
}

/// Why records are not deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeleteRecordsError {
    /// The offset lies behind the committed end.
    #[error("offset {before} lies behind the committed end {committed_end}")]
    OutOfRange {
        /// What was asked for.
        before: Offset,
        /// The end of what may be deleted.
        committed_end: Offset,
    },
    /// The new start could not be made durable.
    #[error(transparent)]
    NotDurable(#[from] DurabilityError),
}

/// Why a log was closed without a clean checkpoint.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CloseError {
    /// Not all that was accepted is durable, or the checkpoint is not; the next open recovers the log.
    #[error("the log was closed as it was: {0}")]
    NotDurable(#[from] DurabilityError),
}
