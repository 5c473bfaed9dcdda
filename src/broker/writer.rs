//! The writer of a connection: takes its answers front to back, waits for those that are not settled, and sends as many at
//! once as are ready.
//!
//! What an answer takes of the shard's memory is given back when it has been sent. A client that does not take its answers in
//! time loses its connection; the time is granted for each part of about a mebibyte, so that a slow one gets long answers too.
//!
//! What this file does not do: it encodes nothing but by asking an answer that has settled.

use std::rc::Rc;

use tracing::{debug, warn};

use super::budgets::responses::Queued;
use super::connection::Connection;
use super::produce::ProduceAnswer;
use super::responses::Response;
use super::shard::Shard;
use crate::metrics::Limit;
use crate::runtime::{Elapsed, Slice, timeout};
use crate::types::Piece;

/// Bytes of answers that are sent at once at most, so that a client sees the first ones while the rest is prepared.
const SEND_BYTES_MAX: usize = 1 << 20;

/// The connection can send no more.
struct Failed;

/// Answers that are ready to be sent together.
struct Outgoing {
    connection: Rc<Connection>,
    shard: Rc<Shard>,
    pieces: Vec<Piece<Slice>>,
    /// What the answers take until they are sent.
    queued: Vec<Queued>,
    bytes: usize,
    count: usize,
}

/// Sends the answers of `connection` in order, until the reader has ended and all are sent, or sending fails.
pub(super) async fn write(connection: Rc<Connection>, shard: Rc<Shard>) {
    let (pieces, queued) = (Vec::new(), Vec::new());
    let mut outgoing = Outgoing { connection: connection.clone(), shard, pieces, queued, bytes: 0, count: 0 };
    while let Some(first) = connection.responses().next().await {
        if outgoing.send_from(first).await.is_err() {
            return;
        }
        connection.end_if_drained();
    }
}

impl Outgoing {
    /// Sends `first` and what is ready behind it.
    async fn send_from(&mut self, first: Response) -> Result<(), Failed> {
        let mut next = Some(first);
        while let Some(response) = next {
            self.add(response).await?;
            next = if self.bytes < SEND_BYTES_MAX { self.connection.responses().pop() } else { None };
        }
        self.send().await
    }

    /// Adds an answer once it is there. What is ready before it is sent first if it has to wait.
    async fn add(&mut self, response: Response) -> Result<(), Failed> {
        match response {
            Response::Ready { pieces, queued } => {
                self.bytes += pieces.bytes();
                let mut list = pieces.into_vec();
                self.pieces.append(&mut list);
                self.connection.responses().give_list(list);
                self.queued.extend(queued);
            }
            Response::Produced(answer) => self.add_produced(answer).await?,
        }
        self.count += 1;
        Ok(())
    }

    async fn add_produced(&mut self, mut answer: Box<ProduceAnswer>) -> Result<(), Failed> {
        if self.count > 0 && !answer.is_settled() {
            self.send().await?;
        }
        let settled = answer.settle(&self.shard).await;
        self.connection.responses().settled();
        answer.give_back(&self.shard);
        match settled {
            Ok(encoded) => {
                self.bytes += encoded.as_ref().map_or(0, |encoded| encoded.len());
                self.pieces.extend(encoded.map(Piece::Encoded));
                Ok(())
            }
            Err(error) => {
                // What was answered before it still goes out.
                self.send().await?;
                warn!(peer = %self.connection.peer(), %error, "connection closed");
                self.connection.fail();
                Err(Failed)
            }
        }
    }

    /// Sends what was added. The connection ends if that fails.
    async fn send(&mut self) -> Result<(), Failed> {
        self.connection.responses().hand_over(self.count);
        let patience = self.shard.config().send_timeout;
        loop {
            let rest = self.pieces.split_off(part_len(&self.pieces));
            let sending = self.connection.stream().send(std::mem::take(&mut self.pieces));
            let peer = self.connection.peer();
            match timeout(patience, sending).await {
                Ok((Ok(()), list)) => self.pieces = if rest.is_empty() { list } else { rest },
                Ok((Err(error), _)) => {
                    debug!(%peer, %error, "answers could not be sent");
                    self.connection.fail();
                    return Err(Failed);
                }
                Err(Elapsed) => {
                    self.shard.metrics.limits_met.at(Limit::Send).add(1);
                    warn!(%peer, "connection closed: answers are not taken within response.send.timeout.ms");
                    self.connection.fail();
                    return Err(Failed);
                }
            }
            if self.pieces.is_empty() {
                break;
            }
        }
        self.queued.clear();
        self.connection.responses().sent(std::mem::take(&mut self.count));
        self.bytes = 0;
        Ok(())
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
