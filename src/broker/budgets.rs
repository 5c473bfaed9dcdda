//! The memory of a shard, divided into budgets that do not borrow from each other.
//!
//! ```text
//! | append and tail cache | requests in flight | responses | cold reads | state of clients | slack |
//!          45 %                  15 %              15 %         10 %           10 %          5 %
//! ```
//! | budget | who keeps it |
//! |---|---|
//! | append | `storage`, by the option that `partition` gives it |
//! | requests | [`requests`]: what clients have sent and what is worked on |
//! | responses | [`responses`]: what waits to be sent, with the slabs that it keeps alive |
//! | reads | [`permits`]: what is read from disk at a time |
//! | state | producers and groups by their own limits, fetch sessions by theirs |
//!
//! Slack is for what nobody counts: a slab that is copied into a larger one and so is there twice for a moment, lists, stacks.
//! Outside of the whole lies what a connection costs without any request: a block for receiving, bounded by
//! `max.connections`.
//!
//! Pure accounting: nothing here allocates what it counts.
//!
//! Source: DESIGN.md, "Runtime: a shard per core".

use std::rc::Rc;

use super::fetch_sessions;
use crate::config::BrokerConfig;
use crate::partition::APPEND_MEMORY_PERCENT;

pub(super) mod permits;
pub(super) mod requests;
pub(super) mod responses;

use permits::Permits;
use requests::RequestMemory;
use responses::ResponseMemory;

/// Shares of a shard's memory, in percent.
const REQUESTS_PERCENT: u64 = 15;
const RESPONSES_PERCENT: u64 = 15;
const READS_PERCENT: u64 = 10;
const STATE_PERCENT: u64 = 10;
const SLACK_PERCENT: u64 = 5;

const _: () = assert!(
    APPEND_MEMORY_PERCENT + REQUESTS_PERCENT + RESPONSES_PERCENT + READS_PERCENT + STATE_PERCENT + SLACK_PERCENT == 100
);
const _: () = assert!(fetch_sessions::MEMORY_PERCENT < STATE_PERCENT, "producers and groups have state, too");
// A frame's slab is copied into one at least twice as large; the largest frame takes half of the requests' share.
const _: () = assert!(REQUESTS_PERCENT / 4 < SLACK_PERCENT);

/// Bytes of each budget of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shares {
    pub(super) requests: usize,
    pub(super) responses: usize,
    pub(super) reads: usize,
}

impl Shares {
    /// The shares of one of `shards` shards that have the configured memory together.
    pub(super) fn new(config: &BrokerConfig, shards: u16) -> Shares {
        let all = config.memory_bytes / u64::from(shards);
        let share = |percent| usize::try_from(all / 100 * percent).expect("what memory holds is addressable");
        Shares { requests: share(REQUESTS_PERCENT), responses: share(RESPONSES_PERCENT), reads: share(READS_PERCENT) }
    }
}

/// The budgets of one shard that the broker keeps.
pub(super) struct Budgets {
    /// What clients have sent and what is worked on.
    pub(super) requests: Rc<RequestMemory>,
    /// What waits to be sent.
    pub(super) responses: Rc<ResponseMemory>,
    /// What is read from disk.
    pub(super) reads: Rc<Permits>,
}

impl Budgets {
    /// Budgets of which nothing is taken.
    pub(super) fn new(config: &BrokerConfig, shards: u16) -> Budgets {
        let shares = Shares::new(config, shards);
        let frame_bytes_max = usize::try_from(config.request_bytes_max).unwrap_or(usize::MAX);
        Budgets {
            requests: RequestMemory::new(shares.requests, frame_bytes_max),
            responses: ResponseMemory::new(shares.responses),
            reads: Permits::new(shares.reads),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn the_least_memory_of_a_shard_holds_a_request_and_its_answer() {
        for (memory, shards) in [(64 << 20, 1), (128 << 20, 2), (1 << 30, 1), (64 << 30, 8)] {
            let config = BrokerConfig::new(Settings::new(), shards, memory).expect("valid");
            let shares = Shares::new(&config, shards);
            let all = shares.requests + shares.responses + shares.reads;
            assert!(all as u64 <= memory / u64::from(shards) / 2);
            let budgets = Budgets::new(&config, shards);
            assert!(budgets.requests.frame_bytes_max() >= 4 << 20);
            assert!(budgets.requests.frame_bytes_max() <= shares.requests / 2);
        }
    }
}
