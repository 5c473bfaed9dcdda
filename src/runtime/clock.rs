//! Time: a monotonic clock in nanoseconds, the wall clock in milliseconds, and timers.
//!
//! Sources: clock_gettime(2), CLOCK_MONOTONIC and CLOCK_REALTIME; in the simulator a virtual clock.

use core::time::Duration;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::context::{Backend, current};
use crate::types::Timestamp;

/// A point of the monotonic clock. Only differences mean something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The current time of the shard.
    pub fn now() -> Instant {
        match current() {
            Backend::Real(shard) => shard.now(),
            Backend::Sim(shard) => shard.now(),
        }
    }

    /// The point `nanos` nanoseconds after the clock's own start.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the clock's own start.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this point; zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point `delay` later, saturating.
    #[must_use]
    pub const fn plus(self, delay: Duration) -> Instant {
        let nanos = delay.as_nanos();
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        Instant(self.0.saturating_add(nanos))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

/// The wall clock. It may jump; nothing but timestamps and retention may depend on it.
pub fn wall_clock() -> Timestamp {
    match current() {
        Backend::Real(shard) => shard.wall_clock(),
        Backend::Sim(shard) => shard.wall_clock(),
    }
}

/// Waits for `delay`.
pub async fn sleep(delay: Duration) {
    sleep_until(Instant::now().plus(delay)).await;
}

/// Waits until the monotonic clock reaches `deadline`; at once if it has.
pub async fn sleep_until(deadline: Instant) {
    match current() {
        Backend::Real(shard) => shard.sleep_until(deadline).await,
        Backend::Sim(shard) => shard.sleep_until(deadline).await,
    }
}

/// The time of a [`timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time ran out")]
pub struct Elapsed;

/// Runs `future` until it is ready or `delay` has passed, whichever is first. A future that is ready wins.
///
/// The future is dropped when the time runs out: pass only futures that may be cancelled.
pub async fn timeout<F: Future>(delay: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut timer = std::pin::pin!(sleep(delay));
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if let Poll::Ready(output) = Pin::as_mut(&mut future).poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::as_mut(&mut timer).poll(context).map(|()| Err(Elapsed))
    })
    .await
}
