//! Clients for the tests that talk to real brokers.
//!
//! [`wire`] is a socket and the messages, for what a client library would never send or would hide, and [`configs`] the
//! configuration over it; [`librdkafka`] is a client that was written elsewhere and decides everything for itself. None of
//! them starts a broker: that is `support`.
#![allow(dead_code, reason = "every test uses a part of it")]

pub(crate) mod configs;
pub(crate) mod librdkafka;
pub(crate) mod wire;

use std::time::Duration;

/// How long anything may take that a healthy broker does at once. Generous: debug builds on a busy machine are slow.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Looks until `found` finds something, [`SOON`] at most.
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = super::support::now() + SOON;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(super::support::now() < deadline, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same `length` bytes for the same `seed`, and no two seeds alike; they do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
