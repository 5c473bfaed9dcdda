//! A fetch whose partitions lie on several shards.
//!
//! Every shard that owns some of them gets one message, reads, and waits there if it has to; all parts count the bytes that are
//! missing together. The first part that is done, because the bytes are there, something failed or the time is up, hurries the
//! others, which answer with what they have. The parts are put together in the client's order, and what goes beyond the
//! limits is left out for the next fetch. A part has its share of the bytes, by its number of partitions, and may exceed it with
//! one batch, so little is read in vain.
//!
//! Invariant: a part that waits is in the books of its shard under the asking shard and its ticket, so that it can be hurried.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;

use super::read::{Limits, Read, Wanted, read_until};
use crate::broker::mail::{Answer, AnswerTo, Ask, PendingAnswer};
use crate::broker::shard::Shard;
use crate::partition::{MissingBytes, ParkedFetch};
use crate::runtime::{Class, spawn};
use crate::types::ShardId;

/// The part of a fetch that one shard owns.
pub(in crate::broker) struct FetchAsk {
    ticket: u64,
    wanted: Vec<Wanted>,
    limits: Limits,
    missing_bytes: MissingBytes,
}

/// The fetches of other shards that are being answered here.
#[derive(Default)]
pub(in crate::broker) struct AskedFetches {
    parked: RefCell<BTreeMap<(ShardId, u64), Rc<ParkedFetch>>>,
}

impl AskedFetches {
    /// Has the fetch answered with what there is. One that is answered already is left alone.
    pub(in crate::broker) fn hurry(&self, from: ShardId, ticket: u64) {
        if let Some(parked) = self.parked.borrow().get(&(from, ticket)) {
            parked.hurry();
        }
    }
}

/// Takes another shard's request in.
pub(in crate::broker) fn enter(shard: &Rc<Shard>, ask: FetchAsk, reply: AnswerTo) {
    let FetchAsk { ticket, wanted, limits, missing_bytes } = ask;
    let key = (reply.to(), ticket);
    let parked = ParkedFetch::sharing(missing_bytes);
    // In the books before anything that was sent behind the request is looked at.
    shard.asked_fetches.parked.borrow_mut().insert(key, parked.clone());
    let shard = shard.clone();
    spawn(Class::Fetch, async move {
        let mut reads = Vec::with_capacity(wanted.len());
        read_until(&shard, &wanted, &limits, || parked, &mut reads).await;
        shard.asked_fetches.parked.borrow_mut().remove(&key);
        reply.send(Answer::Fetched(reads));
    });
}

/// What one of the other shards was asked.
struct Part {
    owner: ShardId,
    /// Where its partitions stand in the client's order.
    places: Vec<usize>,
    pending: Option<PendingAnswer>,
    reads: Vec<Read>,
}

/// Reads `wanted`, wherever it lies, once; `reads` are in the order of `wanted`.
pub(super) async fn read_across(shard: &Rc<Shard>, wanted: &[Wanted], limits: &Limits, reads: &mut Vec<Read>) {
    let missing_bytes = Arc::new(AtomicU64::new(limits.bytes_min.max(1) as u64));
    let ticket = shard.next_ticket();
    let (own_places, mut parts) = split(shard.id(), wanted);
    let share = |count: usize| Limits { bytes_max: (limits.bytes_max / wanted.len() * count).max(1), ..*limits };
    for part in &mut parts {
        let asked = FetchAsk {
            ticket,
            wanted: part.places.iter().map(|place| wanted[*place]).collect(),
            limits: share(part.places.len()),
            missing_bytes: missing_bytes.clone(),
        };
        part.pending = Some(shard.ask(part.owner, Ask::Fetch(asked)).await);
    }
    let parked = ParkedFetch::sharing(missing_bytes);
    let own_wanted: Vec<Wanted> = own_places.iter().map(|place| wanted[*place]).collect();
    let own_limits = share(own_places.len());
    let mut own_reads = Vec::with_capacity(own_places.len());
    {
        let mut own = pin!(read_until(shard, &own_wanted, &own_limits, || parked.clone(), &mut own_reads));
        let (mut own_done, mut hurried) = (own_places.is_empty(), false);
        poll_fn(|context| {
            loop {
                let mut done = false;
                if !own_done && own.as_mut().poll(context).is_ready() {
                    (own_done, done) = (true, true);
                }
                for part in &mut parts {
                    done |= part.poll(context);
                }
                if own_done && parts.iter().all(|part| part.pending.is_none()) {
                    return Poll::Ready(());
                }
                if !done || std::mem::replace(&mut hurried, true) {
                    return Poll::Pending;
                }
                parked.hurry();
                hurry(shard, ticket, &parts);
            }
        })
        .await;
    }
    reads.clear();
    reads.resize_with(wanted.len(), || Read::Unread);
    parts.push(Part { owner: shard.id(), places: own_places, pending: None, reads: own_reads });
    for part in parts {
        for (place, read) in part.places.into_iter().zip(part.reads) {
            reads[place] = read;
        }
    }
    trim(wanted, limits.bytes_max, reads);
}

/// The places of the partitions that `here` owns, and the parts of the other shards.
fn split(here: ShardId, wanted: &[Wanted]) -> (Vec<usize>, Vec<Part>) {
    let (mut own, mut parts) = (Vec::new(), Vec::<Part>::new());
    for (place, wanted) in wanted.iter().enumerate() {
        if wanted.owner == here {
            own.push(place);
            continue;
        }
        match parts.iter_mut().find(|part| part.owner == wanted.owner) {
            Some(part) => part.places.push(place),
            None => {
                let (owner, places) = (wanted.owner, vec![place]);
                parts.push(Part { owner, places, pending: None, reads: Vec::new() });
            }
        }
    }
    (own, parts)
}

impl Part {
    /// Whether its answer has just come. A shard that has left never answers: the process is about to end.
    fn poll(&mut self, context: &mut std::task::Context<'_>) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        match std::pin::Pin::new(pending).poll(context) {
            Poll::Pending => return false,
            Poll::Ready(Some(Answer::Fetched(reads))) => self.reads = reads,
            Poll::Ready(None) => {
                let left = || Read::Failed { ends: None, code: crate::types::ErrorCode::KafkaStorageError };
                self.reads = self.places.iter().map(|_| left()).collect();
            }
            Poll::Ready(Some(_)) => unreachable!("a fetch is answered with what was read"),
        }
        self.pending = None;
        true
    }
}

/// Hurries the parts that still wait.
fn hurry(shard: &Rc<Shard>, ticket: u64, parts: &[Part]) {
    for part in parts.iter().filter(|part| part.pending.is_some()) {
        let (shard, to) = (shard.clone(), part.owner);
        match shard.post.try_send(to, Ask::Hurry(ticket)) {
            Ok(_) => {}
            Err(_) => {
                // The mailbox is full: as soon as there is room, beside the fetch.
                spawn(Class::Fetch, async move { drop(shard.ask(to, Ask::Hurry(ticket)).await) });
            }
        }
    }
}

/// Leaves out what goes beyond the limits: all records of a partition behind the first that has any. A part has read its own
/// first partition whole, which need not be the first of all.
fn trim(wanted: &[Wanted], bytes_max: usize, reads: &mut [Read]) {
    let (mut left, mut first) = (bytes_max, true);
    for (wanted, read) in wanted.iter().zip(reads) {
        let Read::Records { batches, .. } = read else { continue };
        if batches.is_empty() {
            continue;
        }
        if batches.bytes > left.min(wanted.bytes_max as usize) && !first {
            batches.slices.clear();
            batches.bytes = 0;
        }
        left = left.saturating_sub(batches.bytes);
        first = false;
    }
}
