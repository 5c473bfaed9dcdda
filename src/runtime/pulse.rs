//! Whether a shard moves, as seen from another thread.
//!
//! A shard that has nothing to do sleeps and is well. One that has something to do and does not move is *stuck*: tasks wait
//! for their turn, or one task has its turn, and no turn has begun or ended since. Its guard thread looks every 10 ms and keeps
//! the time, so that asking needs nothing of the shard.
//!
//! What this file does not do: it does not say how long is too long.

use std::sync::Arc;

use super::context::{Backend, current};
use super::{Duration, real};

/// The pulse of one shard, to be felt from any thread.
#[derive(Clone)]
pub struct Pulse {
    /// `None` for a simulated shard, whose tasks end every turn before anybody can look.
    load: Option<Arc<real::Load>>,
}

/// The pulse of the current shard.
pub fn pulse() -> Pulse {
    let load = match current() {
        Backend::Real(shard) => Some(shard.load().clone()),
        Backend::Sim(_) => None,
    };
    Pulse { load }
}

impl Pulse {
    /// For how long the shard has been stuck, to 10 ms; zero if it moves, sleeps, or has ended.
    pub fn stuck_for(&self) -> Duration {
        self.load.as_ref().map_or(Duration::ZERO, |load| load.stuck_for())
    }
}

#[cfg(test)]
impl Pulse {
    /// Of a shard that has been stuck for `time`.
    pub(crate) fn of_shard_stuck_for(time: Duration) -> Pulse {
        let load = Arc::new(real::Load::default());
        load.set_stuck_for(time);
        Pulse { load: Some(load) }
    }
}
