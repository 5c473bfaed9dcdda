//! What only the first shard has: the data directory's lock, the metadata log, and with it every change of the cluster.
//!
//! Other shards run what changes the cluster here, as a job. A change is answered when it is committed and every shard knows
//! the cluster with it, so that the client that asked for it finds it whichever shard it talks to next.
//!
//! What this file does not do: it decides nothing; that is the controller's matter.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::configs;
use super::mail::{Ask, View, answer_of};
use super::producer_ids::ProducerIds;
use super::shard::{FIRST, Shard};
use crate::controller::{Controller, Decision};
use crate::quorum::{ProposeError, Quorum};
use crate::runtime::directory::Lock;
use crate::runtime::sync::Notify;
use crate::types::{ShardId, TopicId};

/// The first shard's own.
pub(super) struct First {
    pub(super) quorum: Quorum,
    pub(super) producer_ids: ProducerIds,
    /// Called when there may be something to do about deleted topics.
    pub(super) trash: Notify,
    /// Topics of which partitions are being made, with how many requests do so. Their files are not removed before all of
    /// these have come to their end.
    held: RefCell<BTreeMap<TopicId, usize>>,
    _lock: Lock,
}

impl First {
    pub(super) fn new(quorum: Quorum, lock: Lock) -> First {
        First {
            quorum,
            producer_ids: ProducerIds::default(),
            trash: Notify::new(),
            held: RefCell::default(),
            _lock: lock,
        }
    }

    /// Keeps the files of topics from being removed.
    pub(super) fn hold(&self, topics: &[TopicId]) {
        let mut held = self.held.borrow_mut();
        topics.iter().for_each(|topic| *held.entry(*topic).or_default() += 1);
    }

    /// Ends one [`First::hold`]. What was deleted in the meantime has waited for this.
    pub(super) fn let_go(&self, topics: &[TopicId]) {
        let mut held = self.held.borrow_mut();
        for topic in topics {
            let left = held.remove(topic).map_or(0, |count| count - 1);
            if left > 0 {
                held.insert(*topic, left);
            }
        }
        self.trash.notify();
    }

    pub(super) fn is_held(&self, topic: TopicId) -> bool {
        self.held.borrow().contains_key(&topic)
    }
}

impl Shard {
    /// Commits what `decide` decides, and lets every shard know. On the first shard.
    pub(super) async fn change<R>(
        self: &Rc<Self>,
        decide: impl FnOnce(&Controller) -> Decision<R>,
    ) -> Result<R, ProposeError> {
        let response = self.first().quorum.propose_with(decide).await?;
        self.publish(Vec::new()).await;
        Ok(response)
    }

    /// Lets every shard know the committed cluster, and where new topics begin; returns when all do. On the first shard.
    pub(super) async fn publish(self: &Rc<Self>, placed: Vec<(TopicId, ShardId)>) {
        let view = View { image: self.first().quorum.image(), placed: Arc::new(placed) };
        self.see(&view);
        let mut told = Vec::new();
        for other in FIRST.0 + 1..self.shards() {
            told.push(self.ask(ShardId(other), Ask::View(view.clone())).await);
        }
        configs::apply(self).await;
        for pending in told {
            answer_of(pending).await;
        }
    }
}
