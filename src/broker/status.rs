//! What others may know of a broker while it runs: how far it has come, whether its shards move, what they measure.
//!
//! Made before the shards and shared with the side thread that is asked. The broker says when it serves and when it drains,
//! and each shard puts its handles in once, when it starts; from then on nobody needs a shard to look at it. The lock is
//! taken for these few moments and by whoever looks, never by a shard at work.
//!
//! What this file does not do: it judges nothing and formats nothing.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::Reading;
use crate::runtime::{Duration, Pulse, metrics, pulse};
use crate::types::ShardId;

/// How far a broker has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// Not every partition is open, or not every listener accepts.
    Starting,
    /// Clients are served.
    Serving,
    /// It has been asked to end: what has arrived is answered, nothing new is taken.
    Draining,
}

/// A shard that has stood still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StuckShard {
    /// Which one.
    pub shard: ShardId,
    /// For how long.
    pub time: Duration,
}

struct ShardHandles {
    shard: ShardId,
    reading: Reading,
    pulse: Pulse,
}

/// The state of a broker as others see it.
#[derive(Default)]
pub struct Status {
    phase: AtomicU8,
    shards: Mutex<Vec<ShardHandles>>,
}

impl Status {
    /// Of a broker that starts.
    pub fn new() -> Arc<Status> {
        Arc::default()
    }

    fn shards(&self) -> MutexGuard<'_, Vec<ShardHandles>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current shard, which is this one of the broker, can be looked at from now on.
    pub(super) fn add_this_shard(&self, shard: ShardId) {
        self.add(shard, metrics().reading(), pulse());
    }

    fn add(&self, shard: ShardId, reading: Reading, pulse: Pulse) {
        let mut shards = self.shards();
        shards.push(ShardHandles { shard, reading, pulse });
        shards.sort_by_key(|handles| handles.shard);
    }

    /// The broker has come so far.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// How far the broker has come.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// What the shards that have started measure, in their order.
    pub fn readings(&self) -> Vec<(ShardId, Reading)> {
        self.shards().iter().map(|handles| (handles.shard, handles.reading.clone())).collect()
    }

    /// The shard that has stood still for longest, if one has for `time` or longer.
    pub fn stuck_shard(&self, time: Duration) -> Option<StuckShard> {
        let shards = self.shards();
        let found = shards.iter().map(|handles| StuckShard { shard: handles.shard, time: handles.pulse.stuck_for() });
        found.filter(|stuck| stuck.time >= time).max_by_key(|stuck| stuck.time)
    }
}

#[cfg(test)]
impl Status {
    /// Of a broker in `phase`, whose shards have been stuck for these times.
    pub(crate) fn for_test(phase: Phase, stuck: &[Duration]) -> Arc<Status> {
        let status = Status::new();
        status.enter(phase);
        for (number, time) in (0..).zip(stuck) {
            let recording = crate::metrics::Recording::default();
            recording.commits.add(u64::from(number) + 1);
            status.add(ShardId(number), recording.reading(), Pulse::of_shard_stuck_for(*time));
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_starts_serves_and_drains() {
        let status = Status::new();
        assert_eq!(status.phase(), Phase::Starting);
        for phase in [Phase::Serving, Phase::Draining] {
            status.enter(phase);
            assert_eq!(status.phase(), phase);
        }
    }

    #[test]
    fn the_shard_that_has_stood_still_for_longest_is_told() {
        let times = [0, 11, 12, 10].map(Duration::from_secs);
        let status = Status::for_test(Phase::Serving, &times);
        let longest = StuckShard { shard: ShardId(2), time: times[2] };
        assert_eq!(status.stuck_shard(Duration::from_secs(11)), Some(longest));
        assert_eq!(status.stuck_shard(Duration::from_secs(13)), None);
        assert_eq!(status.readings().len(), 4);
    }
}
