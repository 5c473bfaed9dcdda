//! Bytes from clients that mean no good: they are answered or their connection is closed, and nobody else notices.
//!
//! The decoders first, in process and by the million, then the broker as it runs. Every frame can be made again from a seed
//! and its number. More than CI has time for is `scripts/hostile`; what coverage finds is `scripts/fuzz`.
//!
//! | module | what it proves |
//! |---|---|
//! | [`corpus`], [`mutate`] | the frames: of real clients, of every row of the table; and what is done to them |
//! | [`decoders`] | no panic, bounded memory, bounded time, frame by frame |
//! | [`replay`] | the fuzz targets (`targets`, shared with `fuzz/`) on their seeds and their corpus |
//! | [`attack`] | a broker under mutated frames: alive, small, and as good as before to a good client |
//! | [`single`] | single attacks: lengths, claims, clients that do not read, no descriptors left |

mod attack;
#[path = "../clients/mod.rs"]
mod clients;
mod corpus;
mod decoders;
mod mutate;
mod process;
mod replay;
mod single;
#[path = "../support/mod.rs"]
mod support;
#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps the tests that measure, and those that fill a machine, from running beside each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number in an environment variable, if it is set.
fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Bytes as people repeat them, the first kilobyte.
fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(1024).map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes: {shown}", bytes.len())
}
