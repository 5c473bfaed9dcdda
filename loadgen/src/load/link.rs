//! A producer's connection to one broker: what waits to go through it and what is in flight on it.
//!
//! Answers come in the order of the requests, so requests in flight are a queue, and one task awaits its front. A connection
//! that breaks answers all of them with an error and is made again by [`Link::reconnect`]; the link itself stays. It decides
//! nothing about what it carries.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::BytesMut;
use corelane::runtime::sync::{Notify, Receiver};
use corelane::runtime::{Duration, Instant, Slice};
use corelane::wire::client::produce::{PRODUCE_MAX, ProduceRequestEncoder};
use corelane::wire::produce::Acks;
use corelane::wire::{Api, ApiKey};

use super::lane::Batch;
use super::plan::Plan;
use crate::client::connection::Answer;
use crate::client::{ClientError, Connection, ConnectionOptions};

/// Between two attempts to connect: a broker restarts in tens of milliseconds.
const RETRY: Duration = Duration::from_millis(50);
/// How long a broker may wait for its replicas: Kafka's default of its clients.
const PRODUCE_TIMEOUT: Duration = Duration::from_secs(30);

/// How a request is answered.
pub(super) enum Pending {
    /// By an answer.
    Answer(Answer),
    /// Not at all: it ends when the socket has taken it.
    Sent(Receiver<()>),
}

/// What came of a request.
pub(super) enum Ended {
    /// Answered, in this version.
    Answered(Api, Slice),
    /// Handed to the socket; there will be no answer.
    Told,
    /// Neither.
    Lost,
}

/// A request that is in flight.
pub(super) struct InFlight {
    pending: Option<Pending>,
    api: Api,
    /// When it was sent.
    pub(super) sent_ns: u64,
    /// Its batches, by the number of their partitions in the plan, in that order.
    pub(super) batches: Vec<(usize, Batch)>,
}

/// See the head of this file.
pub(super) struct Link {
    /// The broker.
    pub(super) address: SocketAddr,
    /// Which of the producer's connections to it this is.
    pub(super) slot: usize,
    options: ConnectionOptions,
    connection: RefCell<Option<Connection>>,
    is_connecting: Cell<bool>,
    retry_at: Cell<u64>,
    in_flight: RefCell<VecDeque<InFlight>>,
    /// Something is in flight, or the end has come.
    arrival: Notify,
    has_ended: Cell<bool>,
    /// Lanes with something to send, each once, in the order of their turns.
    pub(super) ready: RefCell<VecDeque<usize>>,
    /// Since when something is ready while every slot is taken.
    blocked_since: Cell<Option<u64>>,
}

impl Link {
    pub(super) fn new(address: SocketAddr, slot: usize, options: ConnectionOptions) -> Rc<Link> {
        Rc::new(Link {
            address,
            slot,
            options,
            connection: RefCell::new(None),
            is_connecting: Cell::new(false),
            retry_at: Cell::new(0),
            in_flight: RefCell::default(),
            arrival: Notify::new(),
            has_ended: Cell::new(false),
            ready: RefCell::default(),
            blocked_since: Cell::new(None),
        })
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.borrow().len()
    }

    /// Whether a request can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.connection.borrow().as_ref().is_some_and(|connection| !connection.is_closed())
    }

    /// Whether it is time to connect.
    pub(super) fn wants_connection(&self, now_ns: u64) -> bool {
        !self.is_open() && !self.is_connecting.get() && now_ns >= self.retry_at.get()
    }

    /// When it will be time to connect, unless it is being done.
    pub(super) fn retry_at(&self) -> Option<u64> {
        (!self.is_open() && !self.is_connecting.get()).then(|| self.retry_at.get())
    }

    /// Connects, once.
    pub(super) async fn reconnect(&self) -> Result<(), ClientError> {
        self.is_connecting.set(true);
        let opened = Connection::open(self.address, &self.options).await;
        self.is_connecting.set(false);
        let result = opened.map(|connection| drop(self.connection.replace(Some(connection))));
        if result.is_err() {
            self.retry_at.set(Instant::now().plus(RETRY).nanos());
        }
        result
    }

    /// Sends a request of batches whose partitions are in order; on an error they come back and never left.
    pub(super) fn send(
        &self,
        plan: &Plan,
        acks: Acks,
        batches: Vec<(usize, Batch)>,
        buffer: &mut BytesMut,
    ) -> Result<(), Vec<(usize, Batch)>> {
        let Some(connection) = self.connection.borrow().clone() else { return Err(batches) };
        let Ok(api) = connection.api(ApiKey::Produce, PRODUCE_MAX) else { return Err(batches) };
        let topics = || batches.chunk_by(|(one, _), (other, _)| topic_of(plan, *one) == topic_of(plan, *other));
        let encode = |correlation, client_id: &str| {
            let waits = (acks, PRODUCE_TIMEOUT);
            let count = topics().count();
            let mut request = ProduceRequestEncoder::new((api, correlation), client_id, waits, count, buffer);
            for of_topic in topics() {
                request.topic(&plan.topics[topic_of(plan, of_topic[0].0)], of_topic.len());
                for (partition, batch) in of_topic {
                    request.partition(plan.partitions[*partition].index, batch.bytes.clone());
                }
            }
            Ok(request.finish())
        };
        let pending = match acks {
            Acks::None => connection.tell(encode).map(Pending::Sent),
            Acks::Leader | Acks::All => connection.call(encode).map(Pending::Answer),
        };
        let Ok(pending) = pending else { return Err(batches) };
        let sent_ns = Instant::now().nanos();
        self.in_flight.borrow_mut().push_back(InFlight { pending: Some(pending), api, sent_ns, batches });
        self.arrival.notify();
        Ok(())
    }

    /// Waits for the end of the oldest request in flight; `None` once the link has ended and nothing is in flight.
    pub(super) async fn next_end(&self) -> Option<(InFlight, Ended)> {
        let (pending, api) = loop {
            let front = self.in_flight.borrow_mut().front_mut().map(|front| (front.pending.take(), front.api));
            match front {
                Some((pending, api)) => break (pending.expect("one task awaits the front"), api),
                None if self.has_ended.get() => return None,
                None => self.arrival.notified().await,
            }
        };
        let ended = match pending {
            Pending::Answer(answer) => match answer.receive().await {
                Ok(frame) => Ended::Answered(api, frame),
                Err(_) => Ended::Lost,
            },
            Pending::Sent(sent) => {
                if sent.await.is_some() {
                    Ended::Told
                } else {
                    Ended::Lost
                }
            }
        };
        let request = self.in_flight.borrow_mut().pop_front().expect("nobody else takes the front");
        Some((request, ended))
    }

    /// The broker made no sense: the connection is of no use any more.
    pub(super) fn give_up_connection(&self) {
        self.connection.replace(None);
    }

    /// Notes whether something is held up by the number of requests in flight.
    pub(super) fn set_blocked(&self, is_blocked: bool, now_ns: u64) {
        match (is_blocked, self.blocked_since.get()) {
            (true, None) => self.blocked_since.set(Some(now_ns)),
            (false, Some(_)) => self.blocked_since.set(None),
            _ => {}
        }
    }

    /// For how long something has been held up, in nanoseconds.
    pub(super) fn blocked_for(&self, now_ns: u64) -> Option<u64> {
        self.blocked_since.get().map(|since| now_ns.saturating_sub(since))
    }

    /// Nothing more will be sent.
    pub(super) fn end(&self) {
        self.has_ended.set(true);
        self.arrival.notify();
    }
}

fn topic_of(plan: &Plan, partition: usize) -> usize {
    plan.partitions[partition].topic
}
