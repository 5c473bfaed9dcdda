//! What others may see of a run and do to it while it is under way, from any thread.
//!
//! It is one count and one flag: whoever watches decides by what was acknowledged so far when something else is to happen, or
//! that the run is to end. What was measured comes with the result, or interval by interval.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Progress {
    acked_records: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Records that were acknowledged.
    pub fn acked_records(&self) -> u64 {
        self.acked_records.load(Ordering::Relaxed)
    }

    /// Ends the run: nothing new is made, what is under way is waited for, and what waits for a broker that is away is given up.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn add_acked(&self, records: u64) {
        self.acked_records.fetch_add(records, Ordering::Relaxed);
    }
}
