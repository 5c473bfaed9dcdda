//! Batches from other shards: appended in the order in which each shard sent them, answered when they are committed.
//!
//! Every asking shard has a lane, worked off front to back by one task, so that what a connection sent first is appended
//! first; waiting for the disk happens beside the lane. A lane holds what the mailbox lets through, no more. The frame is given
//! back as soon as its batches are in the logs.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use super::append::{Open, Produced, Terms, append};
use crate::broker::mail::{Answer, AnswerTo};
use crate::broker::shard::Shard;
use crate::runtime::sync::Notify;
use crate::runtime::{Class, Slice, spawn};
use crate::types::{ShardId, TopicPartition};
use crate::wire::produce::Acks;

/// The part of a Produce request that one shard owns.
pub(in crate::broker) struct ProduceAsk {
    pub(super) terms: Terms,
    /// The request, in which the records lie.
    pub(super) frame: Slice,
    pub(super) batches: Vec<AskedBatch>,
}

/// One partition's batch.
pub(in crate::broker) struct AskedBatch {
    pub(super) at: TopicPartition,
    /// Where its records lie in the frame.
    pub(super) records: Range<usize>,
}

/// What one shard has sent and is not appended yet.
#[derive(Default)]
struct Lane {
    waiting: RefCell<VecDeque<(ProduceAsk, AnswerTo)>>,
    call: Notify,
}

/// The lanes from all other shards, made as they are needed.
#[derive(Default)]
pub(in crate::broker) struct Lanes {
    lanes: RefCell<BTreeMap<ShardId, Rc<Lane>>>,
}

/// Takes a request in; its answer comes when all of it is settled.
pub(in crate::broker) fn enter(shard: &Rc<Shard>, ask: ProduceAsk, reply: AnswerTo) {
    let mut lanes = shard.produce_lanes.lanes.borrow_mut();
    let lane = lanes.entry(reply.to()).or_insert_with(|| {
        let lane = Rc::new(Lane::default());
        spawn(Class::Produce, work_off(shard.clone(), lane.clone()));
        lane
    });
    lane.waiting.borrow_mut().push_back((ask, reply));
    lane.call.notify();
}

/// Runs as long as the shard.
async fn work_off(shard: Rc<Shard>, lane: Rc<Lane>) {
    loop {
        let next = lane.waiting.borrow_mut().pop_front();
        match next {
            Some((ask, reply)) => append_all(&shard, ask, reply).await,
            None => lane.call.notified().await,
        }
    }
}

async fn append_all(shard: &Rc<Shard>, ask: ProduceAsk, reply: AnswerTo) {
    let ProduceAsk { terms, frame, batches } = ask;
    let mut appended = Vec::with_capacity(batches.len());
    for batch in batches {
        appended.push(append(shard, &terms, batch.at, &frame[batch.records]).await);
    }
    drop(frame);
    if terms.acks == Acks::None {
        let done = appended.into_iter().map(|outcome| outcome.map_or_else(|produced| produced, |open| open.done()));
        return reply.send(Answer::Produced(done.collect()));
    }
    spawn(Class::Produce, async move { reply.send(Answer::Produced(settle_all(appended, &terms).await)) });
}

async fn settle_all(appended: Vec<Result<Open, Produced>>, terms: &Terms) -> Vec<Produced> {
    let mut settled = Vec::with_capacity(appended.len());
    for outcome in appended {
        settled.push(match outcome {
            Ok(open) => open.settle(terms.deadline).await,
            Err(produced) => produced,
        });
    }
    settled
}
