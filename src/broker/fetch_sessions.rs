//! Fetch sessions: a client names its partitions once and afterwards only what changes, and is told only what changed.
//!
//! ```text
//! request ── begin ──> Fetch ── wanted ──> the partitions to read ── read them, wait ──> Told of each ── answer ──> Answer
//!            (closes, continues, changes)       (as often as needed)                        (opens a session)
//! ```
//! Plain data: no I/O, no clock, no waiting. Between the steps nothing is borrowed, so a fetch may wait as long as it likes; if
//! its session ends or goes on meanwhile, the next step says so. A fetch of a session that neither adds nor forgets
//! partitions allocates nothing.
//!
//! The sessions of a shard belong to the connections that the shard serves. The id of a session says its shard: each shard
//! draws from a range of its own, at random, so that an id from before a restart meets no session. A client that goes on
//! with a session over a connection to another shard gets FETCH_SESSION_ID_NOT_FOUND and opens a new one, as it does after a
//! restart; [`FetchSessions::owner`] tells whose the old one is, so that it can be closed there.
//!
//! Bounds: so many sessions, and so many bytes for all of them. A session unused for [`IDLE_MAX`] gives way to a new one, and
//! one that is older than that to a larger one; a client that finds no room fetches without a session. Where a session grows
//! beyond the memory it ends, and its client opens a new one or finds no room.
//!
//! Source: KIP-227, with Kafka 4.2's order of checks (`FetchManager`) and of eviction (`FetchSessionCacheShard`).

use std::collections::{BTreeSet, HashMap};

use crate::config::BrokerConfig;
use crate::controller::ClusterImage;
use crate::runtime::{Duration, Instant};
use crate::types::{ErrorCode, ShardId, TopicId};
use crate::wire::fetch::{FetchPartition, FetchRequest, FetchSessionId, SessionRequest};

mod answer;
mod ordered;
mod session;

pub(super) use answer::Answer;
use answer::{RequestPartitions, Wanted};
use ordered::{Ordered, Place};
pub(super) use session::Told;
use session::{Included, Session};

/// How long a session is safe from every other: unused for longer it gives way to any new one, and older than this it gives
/// way to a larger one. Kafka's `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// Share of a shard's memory that its sessions may take, in percent: a fifth of the tenth for the state of clients. At
/// 64 MiB for a shard that is room for some 3 000 partitions of sessions, at 1 GiB for 55 000.
pub(super) const MEMORY_PERCENT: u64 = 2;

/// Bounds of the sessions of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionLimits {
    /// How many sessions there may be.
    sessions_max: usize,
    /// Bytes that all of them together may be counted as.
    bytes_max: usize,
}

impl SessionLimits {
    /// The share of one of `shards` shards. `max.incremental.fetch.session.cache.slots` is kept exactly by all of them
    /// together; the first shards take what does not divide.
    pub(super) fn new(config: &BrokerConfig, shard: ShardId, shards: u16) -> SessionLimits {
        let (all, of) = (config.fetch_sessions_max, u32::from(shards));
        let sessions_max = all / of + u32::from(u32::from(shard.0) < all % of);
        let bytes_max = config.memory_bytes / u64::from(shards) / 100 * MEMORY_PERCENT;
        let fits = "what memory holds is addressable";
        SessionLimits { sessions_max: sessions_max as usize, bytes_max: usize::try_from(bytes_max).expect(fits) }
    }
}

/// A fetch that is refused as a whole: the error stands before an empty list of topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    /// Why.
    pub(super) error: ErrorCode,
    /// The session that the answer names.
    pub(super) session: Option<FetchSessionId>,
}

/// What a fetch reads and is answered with.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Fetch {
    /// The partitions of the request, all of them told.
    Sessionless,
    /// The same, and a session of them if there is room.
    Opening,
    /// The partitions of a session, told where something is new.
    Incremental(Continued),
}

/// A session at the epoch that one fetch brought it to.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Continued {
    id: FetchSessionId,
    place: Place,
    epoch: i32,
}

/// The fetch sessions of one shard.
pub(super) struct FetchSessions {
    limits: SessionLimits,
    ids: SessionIds,
    /// The one that was not used for longest comes first.
    sessions: Ordered<Session>,
    places: HashMap<FetchSessionId, Place>,
    /// Sessions that a larger one may replace, by their number of partitions.
    replaceable: BTreeSet<(usize, FetchSessionId)>,
    bytes: usize,
    /// What the answer that is being encoded includes; kept for its memory.
    included: Vec<Included>,
}

impl FetchSessions {
    /// No sessions. Ids are drawn from the range of `shard`, one of `shards`, by the random `seed`.
    pub(super) fn new(limits: SessionLimits, shard: ShardId, shards: u16, seed: u64) -> FetchSessions {
        FetchSessions {
            limits,
            ids: SessionIds::new(shard, shards, seed),
            sessions: Ordered::with_capacity(0),
            places: HashMap::new(),
            replaceable: BTreeSet::new(),
            bytes: 0,
            included: Vec::new(),
        }
    }

    /// Does what the request wants with sessions: closes one, or continues and changes one.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH or FETCH_SESSION_TOPIC_ID_ERROR; a session that exists is as
    /// it was. FETCH_SESSION_ID_NOT_FOUND, too, for a session that ends because it has grown beyond the memory.
    pub(super) fn begin(&mut self, request: &FetchRequest<'_>, now: Instant) -> Result<Fetch, Refused> {
        match request.session {
            SessionRequest::Sessionless { closes } => {
                closes.into_iter().for_each(|id| self.close(id));
                Ok(Fetch::Sessionless)
            }
            SessionRequest::Open { closes } => {
                closes.into_iter().for_each(|id| self.close(id));
                Ok(Fetch::Opening)
            }
            SessionRequest::Continue { id, epoch } => self.proceed(request, id, epoch, now),
        }
    }

    /// The partitions to read, in order, each with its topic's id in `image` or the error to tell of it. It may be asked
    /// again, with a newer image.
    ///
    /// # Errors
    /// As [`FetchSessions::answer`].
    pub(super) fn wanted<'a>(
        &'a mut self,
        fetch: &Fetch,
        request: &FetchRequest<'a>,
        image: &'a ClusterImage,
    ) -> Result<impl Iterator<Item = (Result<TopicId, ErrorCode>, FetchPartition)> + 'a, Refused> {
        match fetch {
            Fetch::Sessionless | Fetch::Opening => Ok(Wanted::Request(RequestPartitions::new(request.topics, image))),
            Fetch::Incremental(continued) => {
                self.check(continued)?;
                Ok(Wanted::Session(self.sessions[continued.place].wanted(image)))
            }
        }
    }

    /// Ends the fetch: takes in what is `told` of every partition that was wanted, in the same order, and says what of it the
    /// answer holds. A fetch that opens a session gets it here, if there is room.
    ///
    /// # Errors
    /// The session was closed or replaced meanwhile (FETCH_SESSION_ID_NOT_FOUND), or another request took it further
    /// (INVALID_FETCH_SESSION_EPOCH): what was read is not answered.
    pub(super) fn answer<'a>(
        &'a mut self,
        fetch: Fetch,
        request: &FetchRequest<'a>,
        told: impl IntoIterator<Item = Told>,
        now: Instant,
    ) -> Result<Answer<'a>, Refused> {
        match fetch {
            Fetch::Sessionless => Ok(Answer::full(None, request.topics)),
            Fetch::Opening => Ok(Answer::full(self.open(request, told, now), request.topics)),
            Fetch::Incremental(continued) => {
                self.check(&continued)?;
                self.sessions[continued.place].tell(told, &mut self.included);
                Ok(Answer::incremental(&self.sessions[continued.place], &self.included))
            }
        }
    }

    /// How many sessions are open.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The shard that a session of this id belongs to; `None` for an id that no shard gives.
    pub(super) fn owner(&self, id: FetchSessionId) -> Option<ShardId> {
        self.ids.owner(id)
    }

    /// Ends a session; nothing happens if there is none of this id.
    pub(super) fn close(&mut self, id: FetchSessionId) {
        if let Some(place) = self.places.get(&id) {
            self.remove(*place);
        }
    }

    fn check(&self, continued: &Continued) -> Result<(), Refused> {
        match self.sessions.get(continued.place).filter(|session| session.id() == continued.id) {
            None => Err(Refused { error: ErrorCode::FetchSessionIdNotFound, session: None }),
            Some(session) if session.epoch() != continued.epoch => {
                Err(Refused { error: ErrorCode::InvalidFetchSessionEpoch, session: Some(continued.id) })
            }
            Some(_) => Ok(()),
        }
    }

    fn proceed(
        &mut self,
        request: &FetchRequest<'_>,
        id: FetchSessionId,
        epoch: i32,
        now: Instant,
    ) -> Result<Fetch, Refused> {
        let refused = |error| Refused { error, session: None };
        let place = *self.places.get(&id).ok_or(refused(ErrorCode::FetchSessionIdNotFound))?;
        let session = &mut self.sessions[place];
        if session.epoch() != epoch {
            return Err(refused(ErrorCode::InvalidFetchSessionEpoch));
        }
        if session.names_topics_by_id() != request.names_topics_by_id() {
            return Err(refused(ErrorCode::FetchSessionTopicIdError));
        }
        self.bytes -= session.bytes();
        let updated = session.update(request, self.limits.bytes_max - self.bytes);
        self.bytes += session.bytes();
        if updated.is_err() {
            self.remove(place);
            return Err(refused(ErrorCode::FetchSessionIdNotFound));
        }
        if session.is_empty() {
            self.remove(place);
            return Ok(Fetch::Sessionless);
        }
        session.advance();
        let epoch = session.epoch();
        self.touch(place, now);
        Ok(Fetch::Incremental(Continued { id, place, epoch }))
    }

    /// Opens a session if there is room, or if others give way.
    fn open(
        &mut self,
        request: &FetchRequest<'_>,
        told: impl IntoIterator<Item = Told>,
        now: Instant,
    ) -> Option<FetchSessionId> {
        let partitions: usize = request.topics.map(|topic| topic.partitions.len()).sum();
        let bytes_least = session::SESSION_BYTES + partitions * session::PARTITION_BYTES;
        if !self.make_room(bytes_least, partitions, now) {
            return None;
        }
        let id = self.ids.draw(|id| self.places.contains_key(&id));
        let session = Session::open(id, request, told, now);
        if session.bytes() > self.limits.bytes_max - self.bytes {
            return None;
        }
        self.bytes += session.bytes();
        let place = self.sessions.push(session);
        self.places.insert(id, place);
        Some(id)
    }

    /// Whether a session of so many bytes and partitions may be opened. Idle sessions give way to it; smaller ones do so for
    /// their slot alone, since many of them are worth more than one that takes the memory of all.
    fn make_room(&mut self, bytes: usize, partitions: usize, now: Instant) -> bool {
        let limits = self.limits;
        while self.sessions.len() >= limits.sessions_max || self.bytes + bytes > limits.bytes_max {
            let idlest = self.sessions.first();
            match idlest.filter(|place| now.since(self.sessions[*place].used) > IDLE_MAX) {
                Some(idle) => self.remove(idle),
                None => break,
            }
        }
        if self.sessions.len() >= limits.sessions_max
            && let Some((smallest, id)) = self.replaceable.first().copied()
            && partitions > smallest
            && self.bytes + bytes <= limits.bytes_max
        {
            self.close(id);
        }
        self.sessions.len() < limits.sessions_max && self.bytes + bytes <= limits.bytes_max
    }

    /// The session was used: the idlest ones come before it, and it is listed by its size once it is old enough.
    fn touch(&mut self, place: Place, now: Instant) {
        self.sessions.move_to_end(place);
        let session = &mut self.sessions[place];
        session.used = now;
        let listed = (now.since(session.opened()) > IDLE_MAX).then_some(session.len());
        if listed != session.listed {
            if let Some(before) = session.listed {
                self.replaceable.remove(&(before, session.id()));
            }
            if let Some(listed) = listed {
                self.replaceable.insert((listed, session.id()));
            }
            session.listed = listed;
        }
    }

    fn remove(&mut self, place: Place) {
        let session = self.sessions.remove(place);
        self.places.remove(&session.id()).expect("every session has its place");
        self.bytes -= session.bytes();
        if let Some(listed) = session.listed {
            self.replaceable.remove(&(listed, session.id()));
        }
    }
}

/// The ids that one shard gives: a range of the positive numbers of 32 bits, the next shard's behind it.
struct SessionIds {
    shard: ShardId,
    shards: u16,
    state: u64,
}

impl SessionIds {
    fn new(shard: ShardId, shards: u16, seed: u64) -> SessionIds {
        assert!(shard.0 < shards, "{shard} of {shards} shards");
        SessionIds { shard, shards, state: seed }
    }

    fn range(&self) -> u32 {
        i32::MAX.unsigned_abs() / u32::from(self.shards)
    }

    fn owner(&self, id: FetchSessionId) -> Option<ShardId> {
        let number = u32::try_from(id.0).ok()?.checked_sub(1)?;
        let shard = u16::try_from(number / self.range()).ok()?;
        (shard < self.shards).then_some(ShardId(shard))
    }

    /// An id that is not taken: a random one, or the first free one behind it in the range.
    fn draw(&mut self, is_taken: impl Fn(FetchSessionId) -> bool) -> FetchSessionId {
        let range = self.range();
        let first = self.random() % u64::from(range);
        let behind = |step: u64| {
            let within =
                u32::try_from((first + step) % u64::from(range)).expect("below the range, which is of 32 bits");
            let id = u32::from(self.shard.0) * range + within + 1;
            FetchSessionId(i32::try_from(id).expect("the ranges of all shards end at the largest i32"))
        };
        (0..u64::from(range))
            .map(behind)
            .find(|id| !is_taken(*id))
            .expect("a shard has more ids than memory for sessions")
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests;
