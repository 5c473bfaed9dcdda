//! The work beside the clients': checkpoints, retention, idle connections, the files of deleted topics.
//!
//! One task each for all partitions or connections of the shard, in the background class; an idle partition has no timer of
//! its own. The tasks end when the shard drains.

use std::rc::Rc;

use tracing::warn;

use super::shard::Shard;
use super::topics;
use crate::runtime::{Class, Duration, sleep, spawn, yield_now};

/// How often dirty logs are looked at: a fraction of the shortest `checkpoint.interval.ms`.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(500);

/// How often connections are looked at: rarely enough to cost nothing with thousands of them.
const IDLE_LOOK_MIN: Duration = Duration::from_millis(100);
const IDLE_LOOK_MAX: Duration = Duration::from_secs(60);

/// Starts the shard's upkeep; it ends when the shard drains.
pub(super) fn start(shard: &Rc<Shard>) {
    spawn(Class::Background, retention(shard.clone()));
    spawn(Class::Background, checkpoints(shard.clone()));
    spawn(Class::Background, idle_connections(shard.clone()));
    spawn(Class::Background, topics::remove_deleted(shard.clone()));
}

/// Ends what waits for a call.
pub(super) fn stop(shard: &Rc<Shard>) {
    shard.trash.notify();
}

async fn retention(shard: Rc<Shard>) {
    loop {
        sleep(shard.config().retention_check_interval).await;
        for partition in shard.partitions() {
            if shard.is_draining() {
                return;
            }
            if let Err(error) = partition.log().enforce_retention().await {
                warn!(topic = %partition.topic(), partition = %partition.id().partition, %error, "retention is put off");
            }
            yield_now().await;
        }
    }
}

/// Ends connections that were silent for `connections.max.idle.ms`, at most an eighth of that late.
async fn idle_connections(shard: Rc<Shard>) {
    let idle_max = shard.config().connection_idle_max;
    while !shard.is_draining() {
        sleep((idle_max / 8).clamp(IDLE_LOOK_MIN, IDLE_LOOK_MAX)).await;
        for connection in shard.connections() {
            connection.end_if_idle(idle_max);
        }
    }
}

async fn checkpoints(shard: Rc<Shard>) {
    loop {
        sleep(CHECKPOINT_LOOK).await;
        if shard.is_draining() {
            return;
        }
        if let Err(error) = shard.storage.watch_disk(shard.data.root()).await {
            warn!(%error, "the free space of the data directory is not known");
        }
        for partition in shard.partitions() {
            if let Err(error) = partition.log().checkpoint_if_due().await {
                warn!(topic = %partition.topic(), partition = %partition.id().partition, %error, "no checkpoint");
            }
        }
    }
}
