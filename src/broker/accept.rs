//! Taking connections in: each goes to the shard that has the fewest, or is refused.
//!
//! All sockets are accepted on the first shard, so that the books of connections have one order and a connection costs one
//! hand-over, not one for each request. A refusal is a closed connection, as in Kafka; the log tells how many there were, at most
//! once a second.

use core::cell::Cell;
use std::rc::Rc;

use tracing::warn;

use super::connection;
use super::listeners::ListenerId;
use super::mail::Ask;
use super::shard::Shard;
use crate::metrics::Limit;
use crate::runtime::{Duration, Instant, Listener, can_connect, sleep};

/// How long the loop pauses when the process has no descriptors left: those of ended connections come back.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two log lines of the same kind.
const QUIET: Duration = Duration::from_secs(1);

/// What happens too often to be told each time.
#[derive(Default)]
struct Told {
    at: Cell<Option<Instant>>,
    count: Cell<u64>,
}

impl Told {
    /// Counts one; how many are to be told of now, if it is time.
    fn count(&self) -> Option<u64> {
        self.count.set(self.count.get() + 1);
        let now = Instant::now();
        if self.at.get().is_some_and(|at| now.since(at) < QUIET) {
            return None;
        }
        self.at.set(Some(now));
        Some(self.count.take())
    }
}

/// Takes connections of `socket` in until the shard drains.
pub(super) async fn accept(shard: Rc<Shard>, socket: Listener, listener: ListenerId) {
    let (refused, failed) = (Told::default(), Told::default());
    loop {
        let stream = match socket.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                if let Some(times) = failed.count() {
                    warn!(%error, times, "no connection can be accepted now");
                }
                sleep(PAUSE).await;
                continue;
            }
        };
        if shard.is_draining() {
            return;
        }
        let peer = stream.peer_address();
        if !can_connect() {
            shard.metrics.limits_met.at(Limit::Descriptors).add(1);
            if let Some(connections) = refused.count() {
                warn!(%peer, connections, "connection refused: what descriptors are left is for files");
            }
            stream.shutdown();
            continue;
        }
        match shard.admissions.admit(peer.ip(), shard.connection_limits()) {
            Ok(admission) if admission.shard() == shard.id() => connection::start(&shard, stream, listener, admission),
            Ok(admission) => {
                let to = admission.shard();
                drop(shard.ask(to, Ask::Connection { stream: stream.detach(), listener, admission }).await);
            }
            Err(refusal) => {
                shard.metrics.limits_met.at(refusal.limit()).add(1);
                if let Some(connections) = refused.count() {
                    warn!(%peer, connections, "connection refused: {refusal}");
                }
                stream.shutdown();
            }
        }
    }
}
