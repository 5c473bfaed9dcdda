//! The rules of the Kafka protocol that naive brokers get wrong, each as a client on a raw socket sees it.
//!
//! Every test is named after its rule: who changes one changes the other. All tests share one broker and each has topics of
//! its own, so that they also show what neighbours on a shard do to each other: nothing. Codecs are tested byte by byte in
//! `wire` and `record`; here it is what the whole broker answers.
//!
//! | module | rules |
//! |---|---|
//! | `answers` | 4, 18, 20, 22: what answers say beside what was asked for |
//! | `frames` | 1–3, 5, 28: versions, order, what ends a connection |
//! | `metadata` | 8, 26: topics by name and id, and their creation |
//! | `partitions` | 26: topics that grow |
//! | `describing` | 6, and what the broker says of itself: cluster, directory, topics by pages, producers |
//! | `produce` | 7, 9–13: which batches are taken, and what is stamped |
//! | `idempotence` | 14: sequences |
//! | `sessions` | 16: what a client fetches again and again |
//! | `fetch` | 15, 17, 19: which batches are given out, when, and offsets by time |
//! | `configs` | 25, 26: configurations as they are told and changed |
//! | `leader_epochs` | 21: where leader epochs end |

mod answers;
#[path = "../clients/mod.rs"]
mod clients;
mod configs;
mod describing;
mod fetch;
mod frames;
mod idempotence;
mod leader_epochs;
mod metadata;
mod partitions;
mod produce;
mod sessions;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use clients::wire::Client;
use support::SharedBroker;

/// The broker that the tests share, as a client on a raw socket sees it.
struct Shared(Arc<SharedBroker>);

impl Shared {
    fn broker() -> Shared {
        Shared(SharedBroker::running("protocol-rules"))
    }

    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// A new connection.
    fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// Waits for a line of the log that contains all of `words`.
    #[track_caller]
    fn await_log(&self, words: &[&str]) {
        clients::eventually(&format!("a log line with {words:?}"), || {
            let log = self.0.stderr();
            log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
        });
    }
}
