//! One client's connection: a reader that starts its requests in the order of their arrival, and a writer that answers them
//! in the same order.
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
use super::fetch::Scratch;
use super::frames::{FrameError, FrameReader, Patience};
use super::listeners::ListenerId;
use super::responses::{Response, Responses};
use super::router::{self, RequestError};
use super::shard::Shard;
use super::timing::Timed;
use crate::runtime::{Class, Duration, Elapsed, Instant, Slice, SocketAddr, Stream, spawn, timeout};
use crate::types::Piece;

/// Bytes of answers that are sent at once at most, so that a client sees the first ones while the rest is prepared.
const SEND_BYTES_MAX: usize = 1 << 20;

/// Why a connection ended before the client ended it.
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A connection, as the shard knows it.
pub(super) struct Connection {
    stream: Stream,
    peer: SocketAddr,
    listener: ListenerId,
    responses: Responses,
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
        let connection = Rc::new(Connection::new(stream, listener));
        let number = shard.connected(connection.clone());
        connection.serve(shard.clone()).await;
        shard.disconnected(number);
        drop(admission);
    });
}

impl Connection {
    fn new(stream: Stream, listener: ListenerId) -> Connection {
        Connection {
            peer: stream.peer_address(),
            stream,
            listener,
            responses: Responses::new(),
            working: Cell::new(false),
            draining: Cell::new(false),
            last_request: Cell::new(Instant::now()),
            fetch_scratch: Cell::default(),
        }
    }

    /// The answers that wait to be sent.
    pub(super) fn responses(&self) -> &Responses {
        &self.responses
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
        let writer = spawn(Class::Produce, write(self.clone(), shard.clone()));
        let outcome = self.read(&shard).await;
        self.responses.end();
        writer.await;
        self.stream.shutdown();
        match outcome {
            Ok(()) => debug!(peer = %self.peer, "connection ended"),
            Err(ConnectionError::Frame(FrameError::Socket(error))) => {
                debug!(peer = %self.peer, %error, "connection ended")
            }
            Err(error) => warn!(peer = %self.peer, %error, "connection closed"),
        }
    }

    /// Ends the connection as soon as every request that has arrived is answered.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.end_if_drained();
    }

    /// Ends the connection if it owes nothing and its last request came `idle_max` ago or earlier.
    pub(super) fn end_if_idle(&self, idle_max: Duration) {
        let idle = !self.working.get() && self.responses.is_idle();
        if idle && Instant::now().since(self.last_request.get()) >= idle_max {
            debug!(peer = %self.peer, "connection is idle for connections.max.idle.ms");
            self.stream.shutdown();
        }
    }

    /// Ends the connection: nothing more can be sent.
    fn fail(&self) {
        self.responses.fail();
        self.stream.shutdown();
    }

    fn end_if_drained(&self) {
        if self.draining.get() && !self.working.get() && self.responses.is_idle() {
            self.stream.shutdown();
        }
    }

    async fn read(&self, shard: &Rc<Shard>) -> Result<(), ConnectionError> {
        let config = shard.config();
        let patience = Patience { first_request: config.handshake_timeout, request: config.receive_timeout };
        let mut frames = FrameReader::new(self.stream.clone(), shard.limits().frame_bytes_max, patience);
        while let Some(frame) = frames.next().await? {
            self.working.set(true);
            self.last_request.set(Instant::now());
            let timed = Timed::new(&frame, self.last_request.get());
            self.responses.room().await;
            if self.responses.has_failed() {
                return Ok(());
            }
            if !router::overlaps(&frame) {
                self.responses.all_settled().await;
            }
            match router::answer(shard, self, frame).await? {
                Some(response) => self.responses.push(response, timed),
                None => self.responses.skip(timed),
            }
            self.working.set(false);
            self.end_if_drained();
        }
        Ok(())
    }
}

/// Sends the answers of `connection` in order, until the reader has ended and all are sent.
async fn write(connection: Rc<Connection>, shard: Rc<Shard>) {
    let responses = &connection.responses;
    let mut pieces: Vec<Piece<Slice>> = Vec::new();
    while let Some(first) = responses.next().await {
        let mut next = Some(first);
        let (mut bytes, mut count) = (0, 0);
        while let Some(response) = next {
            let Some(more) = settle(&connection, &shard, response, &mut pieces, &mut count).await else { return };
            bytes += more;
            count += 1;
            next = if bytes < SEND_BYTES_MAX { responses.pop() } else { None };
        }
        if !send(&connection, &shard, &mut pieces, count).await {
            return;
        }
        connection.end_if_drained();
    }
}

/// Adds an answer to `pieces` once it is there, and returns its bytes. What is ready before it is sent first if it has to
/// wait. `None` if sending failed.
async fn settle(
    connection: &Connection,
    shard: &Shard,
    response: Response,
    pieces: &mut Vec<Piece<Slice>>,
    count: &mut usize,
) -> Option<usize> {
    match response {
        Response::Ready(ready) => {
            let bytes = ready.bytes();
            let mut list = ready.into_vec();
            pieces.append(&mut list);
            connection.responses.give_list(list);
            Some(bytes)
        }
        Response::Produced(mut answer) => {
            if *count > 0 && !answer.is_settled() {
                if !send(connection, shard, pieces, *count).await {
                    return None;
                }
                *count = 0;
            }
            let settled = answer.settle(shard).await;
            connection.responses.settled();
            answer.give_back(shard);
            match settled {
                Ok(Some(encoded)) => {
                    let bytes = encoded.len();
                    pieces.push(Piece::Encoded(encoded));
                    Some(bytes)
                }
                Ok(None) => Some(0),
                Err(error) => {
                    // What was answered before it still goes out.
                    send(connection, shard, pieces, *count).await;
                    *count = 0;
                    warn!(peer = %connection.peer, %error, "connection closed");
                    connection.fail();
                    None
                }
            }
        }
    }
}

/// Sends `pieces`, `count` answers. `false`, and the connection ends, if that fails or the client does not take them in time.
async fn send(connection: &Connection, shard: &Shard, pieces: &mut Vec<Piece<Slice>>, count: usize) -> bool {
    connection.responses.hand_over(count);
    loop {
        // The time is granted for each part, so that a slow client gets long answers too.
        let rest = pieces.split_off(part_len(pieces));
        let sending = connection.stream.send(std::mem::take(pieces));
        match timeout(shard.config().send_timeout, sending).await {
            Ok((Ok(()), list)) if rest.is_empty() => {
                *pieces = list;
                connection.responses.sent(count);
                return true;
            }
            Ok((Ok(()), _)) => *pieces = rest,
            Ok((Err(error), _)) => {
                debug!(peer = %connection.peer, %error, "answers could not be sent");
                connection.fail();
                return false;
            }
            Err(Elapsed) => {
                let peer = connection.peer;
                warn!(%peer, "connection closed: answers are not taken within response.send.timeout.ms");
                connection.fail();
                return false;
            }
        }
    }
}

/// How many of `pieces` are sent at once: so many as come to [`SEND_BYTES_MAX`], or the first one.
fn part_len(pieces: &[Piece<Slice>]) -> usize {
    let mut bytes = 0;
    let fits = |piece: &&Piece<Slice>| {
        bytes += piece.as_ref().len();
        bytes <= SEND_BYTES_MAX
    };
    pieces.iter().take_while(fits).count().max(1).min(pieces.len())
}
