//! `verify`: proof that a broker loses, repeats, reorders and damages nothing, also while it is killed.
//!
//! Two halves, so that anything may happen in between. [`write`] sends stamped records with many requests in flight and
//! journals what became of each batch; [`check`] reads every partition from its start to its high watermark and holds the log
//! against the journals. A run without idempotence sends every batch once: what is not answered stays unknown. An idempotent
//! run sends it again, on a new connection if need be, until it is answered.
//!
//! | module | what it does |
//! |---|---|
//! | [`write`](mod@write) | a run: its writers, its pace, its end |
//! | `lane` | one writer's batches to one partition, in order |
//! | `link` | one writer's connection to one broker, made again if the run allows it |
//! | [`check`](mod@check) | the read-back |

pub mod check;
mod lane;
mod link;
pub mod write;

pub use check::{CheckError, CheckOptions, check};
pub use write::{Acks, Progress, WriteError, WriteOptions, WriteSummary, write};
