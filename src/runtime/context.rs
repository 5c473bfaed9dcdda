//! The shard that the running task belongs to: one thread-local handle, real or simulated.
//!
//! A real shard sets it once, when its executor starts; the simulator sets it around every poll.

use std::cell::RefCell;
use std::rc::Rc;

use super::{real, sim};
use crate::metrics::{Recording, ShardMetrics};

/// The world behind the facade's types.
#[derive(Clone)]
pub(super) enum Backend {
    Real(Rc<real::Shard>),
    Sim(Rc<sim::Shard>),
}

thread_local! {
    static CURRENT: RefCell<Option<Backend>> = const { RefCell::new(None) };
}

/// Makes `backend` the current one of this thread and returns the one before.
pub(super) fn replace(backend: Option<Backend>) -> Option<Backend> {
    CURRENT.with(|current| current.replace(backend))
}

/// The current shard.
///
/// # Panics
/// Outside a shard: a bug of the caller, since only tasks of a shard may use the runtime.
pub(super) fn current() -> Backend {
    CURRENT.with(|current| current.borrow().clone()).expect("the runtime is used by tasks of a shard only")
}

/// Where the current shard records what it measures.
pub fn metrics() -> Recording {
    match current() {
        Backend::Real(shard) => shard.metrics().clone(),
        Backend::Sim(shard) => shard.metrics().clone(),
    }
}

/// Records something of the current shard, at the cost of a look at the thread's own memory.
pub(super) fn record(record: impl FnOnce(&ShardMetrics)) {
    CURRENT.with(|current| match &*current.borrow() {
        Some(Backend::Real(shard)) => record(shard.metrics()),
        Some(Backend::Sim(shard)) => record(shard.metrics()),
        None => unreachable!("the runtime is used by tasks of a shard only"),
    });
}

/// 64 random bits; in the simulator drawn from the seed.
pub fn random_u64() -> u64 {
    match current() {
        Backend::Real(shard) => shard.random_u64(),
        Backend::Sim(shard) => shard.random_u64(),
    }
}

/// 128 random bits, for ids.
pub fn random_u128() -> u128 {
    u128::from(random_u64()) << 64 | u128::from(random_u64())
}

/// Ready once the process is asked to end (SIGTERM or SIGINT), from the call on and not only from the first poll. A second
/// signal ends it at once.
pub fn terminated() -> impl Future<Output = ()> {
    let here = current();
    if let Backend::Real(shard) = &here {
        shard.expect_termination();
    }
    async move {
        match here {
            Backend::Real(shard) => shard.terminated().await,
            Backend::Sim(shard) => shard.terminated().await,
        }
    }
}
