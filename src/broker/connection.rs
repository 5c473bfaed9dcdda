//! One client's connection, and the reader that starts its requests in the order of their arrival; its answers leave in the
//! same order by way of `writer`.
//!
//! Produces may overlap: the reader appends the next one while earlier ones wait for the disk, and each partition sees them
//! in the order of their arrival. Every other request starts when the earlier answers of the connection are settled.
//! A frame that is not a well-formed request of an advertised API ends the connection, with one line in the log.
//!
//! Source: Kafka protocol guide, "Network" (ordering); KIP-511 (ApiVersions of an unknown version).

use std::cell::Cell;
use std::rc::Rc;

use thiserror::Error;
use tracing::{debug, warn};

use super::admissions::Admission;
use super::budgets::responses::SendMemory;
use super::fetch::Scratch;
use super::frames::{FrameError, FrameReader, Patience};
use super::listeners::ListenerId;
use super::responses::Responses;
use super::router::{self, RequestError};
use super::shard::Shard;
use super::timing::Timed;
use super::writer;
use crate::metrics::Limit;
use crate::runtime::{Class, Duration, Instant, SocketAddr, Stream, spawn};

/// Why a connection ended before the client ended it.
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl ConnectionError {
    fn limit(&self) -> Option<Limit> {
        match self {
            ConnectionError::Frame(error) => error.limit(),
            ConnectionError::Request(error) => error.limit(),
        }
    }
}

/// A connection, as the shard knows it.
pub(super) struct Connection {
    stream: Stream,
    peer: SocketAddr,
    listener: ListenerId,
    responses: Responses,
    /// What the answers that are queued take.
    sending: SendMemory,
    /// A request is being worked on that has put no answer into the queue yet.
    working: Cell<bool>,
    draining: Cell<bool>,
    last_request: Cell<Instant>,
    /// The lists of the last fetch, emptied, for the next one.
    fetch_scratch: Cell<Scratch>,
}

/// Serves a client on this shard until the connection ends.
pub(super) fn start(shard: &Rc<Shard>, stream: Stream, listener: ListenerId, admission: Admission) {
    if shard.is_draining() {
        return;
    }
    let shard = shard.clone();
    spawn(Class::Produce, async move {
        let connection = Rc::new(Connection::new(&shard, stream, listener));
        let number = shard.connected(connection.clone());
        connection.serve(shard.clone()).await;
        shard.disconnected(number);
        drop(admission);
    });
}

impl Connection {
    fn new(shard: &Shard, stream: Stream, listener: ListenerId) -> Connection {
        Connection {
            peer: stream.peer_address(),
            stream,
            listener,
            responses: Responses::new(),
            sending: SendMemory::new(&shard.budgets().responses),
            working: Cell::new(false),
            draining: Cell::new(false),
            last_request: Cell::new(Instant::now()),
            fetch_scratch: Cell::default(),
        }
    }

    /// The socket.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The other end.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The answers that wait to be sent.
    pub(super) fn responses(&self) -> &Responses {
        &self.responses
    }

    /// The memory of the answers that wait to be sent.
    pub(super) fn sending(&self) -> &SendMemory {
        &self.sending
    }

    /// The lists that fetches of this connection, which never overlap, use one after the other.
    pub(super) fn fetch_scratch(&self) -> &Cell<Scratch> {
        &self.fetch_scratch
    }

    /// The listener that the client came in by.
    pub(super) fn listener(&self) -> ListenerId {
        self.listener
    }

    /// Serves the client until it or an error ends the connection; returns when everything is answered that can be.
    pub(super) async fn serve(self: Rc<Self>, shard: Rc<Shard>) {
        let writer = spawn(Class::Produce, writer::write(self.clone(), shard.clone()));
        let outcome = self.read(&shard).await;
        self.responses.end();
        writer.await;
        self.stream.shutdown();
        match outcome {
            Ok(()) => debug!(peer = %self.peer, "connection ended"),
            Err(ConnectionError::Frame(FrameError::Socket(error))) => {
                debug!(peer = %self.peer, %error, "connection ended")
            }
            Err(error) => {
                if let Some(limit) = error.limit() {
                    shard.metrics.limits_met.at(limit).add(1);
                }
                warn!(peer = %self.peer, %error, "connection closed");
            }
        }
    }

    /// Ends the connection as soon as every request that has arrived is answered.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.end_if_drained();
    }

    /// Ends the connection if it owes nothing and its last request came `idle_max` ago or earlier.
    pub(super) fn end_if_idle(&self, shard: &Shard, idle_max: Duration) {
        let idle = !self.working.get() && self.responses.is_idle();
        if idle && Instant::now().since(self.last_request.get()) >= idle_max {
            debug!(peer = %self.peer, "connection is idle for connections.max.idle.ms");
            shard.metrics.limits_met.at(Limit::Idle).add(1);
            self.stream.shutdown();
        }
    }

    /// Ends the connection: nothing more can be sent.
    pub(super) fn fail(&self) {
        self.responses.fail();
        self.stream.shutdown();
    }

    /// Ends the connection if it is to be drained and owes nothing.
    pub(super) fn end_if_drained(&self) {
        if self.draining.get() && !self.working.get() && self.responses.is_idle() {
            self.stream.shutdown();
        }
    }

    async fn read(&self, shard: &Rc<Shard>) -> Result<(), ConnectionError> {
        let config = shard.config();
        let patience = Patience { first_request: config.handshake_timeout, request: config.receive_timeout };
        let mut frames = FrameReader::new(self.stream.clone(), &shard.budgets().requests, patience);
        while let Some(frame) = frames.next().await? {
            self.working.set(true);
            self.last_request.set(Instant::now());
            let timed = Timed::new(&frame, self.last_request.get());
            self.responses.room().await;
            self.sending.room().await;
            if self.responses.has_failed() {
                return Ok(());
            }
            if !router::overlaps(&frame) {
                self.responses.all_settled().await;
            }
            let (frame, memory) = frame.into_parts();
            match router::answer(shard, self, frame).await? {
                Some(mut response) => {
                    // Answers keep no slices of their requests, but batches on their way to other shards do.
                    response.count(memory, &self.sending);
                    self.responses.push(response, timed);
                }
                None => self.responses.skip(timed),
            }
            self.working.set(false);
            self.end_if_drained();
        }
        Ok(())
    }
}
