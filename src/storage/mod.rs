//! The partition log on disk, and the log of metadata frames.
//!
//! | module | what lives there |
//! |---|---|
//! | `log` | [`Log`]: the state of one log, its ends, its handles |
//! | `append`, `tail` | accepting batches into the append buffers, which are the tail cache |
//! | `writer`, [`commit`] | one write in flight per log, and how it becomes durable |
//! | `space` | zeroed space ahead of the appends, the next segment |
//! | `read`, `lookup` | batches by offset, offsets by time |
//! | `lifecycle`, `retire` | checkpoints, sealing, close; retention, DeleteRecords |
//! | [`recovery`] | finding the end of a log: one table of cases |
//! | `shard`, `descriptors`, `due`, `gate` | what the logs of a shard share |
//! | [`format`], `segment`, [`options`], [`error`] | the segment file; a segment in memory; settings; errors |
//! | [`codec`] | the envelope of the checksummed files beside a log, and reading them without trust |
//! | [`producers`] | what idempotence remembers of each producer (pure) |
//! | [`epochs`] | the leader epochs of a log and where each began (pure) |
//! | [`index`] | the sparse offset and time index of one segment (pure) |
//! | [`seal`] | the file beside a sealed segment (pure) |
//! | [`retention`] | which segments may go (pure) |
//! | [`checkpoint`] | the two slots from which a start resumes (pure) |
//! | [`planted`] | bugs for the tests to find; compiled only with a feature |

#![warn(clippy::cast_possible_truncation)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation))]

mod append;
pub mod checkpoint;
pub mod codec;
pub mod commit;
mod cursor;
mod descriptors;
mod due;
pub mod epochs;
pub mod error;
pub mod format;
pub mod frames;
mod gate;
pub mod index;
mod lifecycle;
mod log;
mod lookup;
pub mod options;
pub mod planted;
pub mod producers;
mod read;
pub mod recovery;
pub mod retention;
mod retire;
pub mod seal;
mod segment;
mod shard;
mod space;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub use append::Appended;
pub use error::{
    AppendError, CloseError, Corruption, DeleteRecordsError, DurabilityError, IoFailure, OpenError, ReadError,
};
pub use log::{Log, LogEvent};
pub use lookup::TimedOffset;
pub use options::{LogOptions, StorageOptions};
pub use read::{Batches, ReadLimits, Slices};
pub use recovery::{RecoveryCase, RecoveryReport};
pub use shard::Storage;
