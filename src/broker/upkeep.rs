//! The work beside the clients': checkpoints, retention, idle connections, the files of deleted topics.
//!
//! One task each for all partitions or connections of the shard, in the background class. An idle partition has no timer of
//! its own and costs nothing: checkpoints visit the logs that were written to, and retention goes round all partitions once in
//! `log.retention.check.interval.ms`, a few at a time. The tasks end when the shard drains.

use std::rc::Rc;

use tracing::warn;

use super::shard::{FIRST, Shard};
use super::topics;
use crate::metrics::Budget;
use crate::runtime::{Class, Duration, Instant, sleep, spawn, yield_now};

/// How often dirty logs are looked at: a fraction of the shortest `checkpoint.interval.ms`.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(500);

/// Partitions that retention takes out of the books at a time.
const RETENTION_SLICE: usize = 64;

/// How often connections are looked at: rarely enough to cost nothing with thousands of them.
const IDLE_LOOK_MIN: Duration = Duration::from_millis(100);
const IDLE_LOOK_MAX: Duration = Duration::from_secs(60);

/// Starts the shard's upkeep; it ends when the shard drains.
pub(super) fn start(shard: &Rc<Shard>) {
    spawn(Class::Background, retention(shard.clone()));
    spawn(Class::Background, checkpoints(shard.clone()));
    spawn(Class::Background, idle_connections(shard.clone()));
    if shard.id() == FIRST {
        spawn(Class::Background, topics::remove_deleted(shard.clone()));
    }
}

/// Ends what waits for a call.
pub(super) fn stop(shard: &Rc<Shard>) {
    if shard.id() == FIRST {
        shard.first().trash.notify();
    }
}

async fn retention(shard: Rc<Shard>) {
    loop {
        sleep(shard.config().retention_check_interval).await;
        let mut last = None;
        loop {
            let slice = shard.partitions_after(last, RETENTION_SLICE);
            let Some(end) = slice.last() else { break };
            last = Some(end.id());
            for partition in slice {
                if shard.is_draining() {
                    return;
                }
                partition.log().expire_producers();
                if let Err(error) = partition.log().enforce_retention().await {
                    warn!(topic = %partition.topic(), partition = %partition.id().partition, %error, "retention is put off");
                }
                yield_now().await;
            }
        }
    }
}

/// Ends connections that were silent for `connections.max.idle.ms`, at most an eighth of that late.
async fn idle_connections(shard: Rc<Shard>) {
    let idle_max = shard.config().connection_idle_max;
    while !shard.is_draining() {
        sleep((idle_max / 8).clamp(IDLE_LOOK_MIN, IDLE_LOOK_MAX)).await;
        for connection in shard.connections() {
            connection.end_if_idle(&shard, idle_max);
        }
    }
}

async fn checkpoints(shard: Rc<Shard>) {
    loop {
        if let Err(error) = shard.storage.watch_disk(shard.data.root()).await {
            warn!(%error, "the free space of the data directory is not known");
        }
        tell_memory(&shard);
        let now = Instant::now();
        while let Some(log) = shard.storage.take_checkpoint_due(now) {
            if let Err(error) = log.checkpoint_if_due().await {
                warn!(log = %log.directory().display(), %error, "no checkpoint");
            }
        }
        sleep(CHECKPOINT_LOOK).await;
        if shard.is_draining() {
            return;
        }
    }
}

/// Puts what the budgets and sessions hold now where others can read it.
fn tell_memory(shard: &Shard) {
    let (memory, budgets) = (&shard.metrics.memory_bytes, shard.budgets());
    memory.at(Budget::Requests).set(budgets.requests.taken() as u64);
    memory.at(Budget::Responses).set(budgets.responses.taken() as u64);
    memory.at(Budget::Reads).set(budgets.reads.taken() as u64);
    shard.metrics.fetch_sessions.set(shard.fetch_sessions.borrow().len() as u64);
}
