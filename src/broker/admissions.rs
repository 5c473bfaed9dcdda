//! Who may connect: the books of all open connections, by shard and by address.
//!
//! One object for all shards: a connection is entered where it is accepted and struck off where it ends, which may be another
//! shard. The lock is taken twice in the life of a connection and held for a look-up.
//!
//! Invariant: an [`Admission`] is one connection in the books; dropping it strikes the connection off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::metrics::Limit;
use crate::runtime::IpAddr;
use crate::types::ShardId;

/// Why a connection is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum Refusal {
    #[error("max.connections={0} is reached")]
    All(usize),
    #[error("max.connections.per.ip={0} is reached")]
    Address(usize),
}

impl Refusal {
    /// The limit that was met.
    pub(super) fn limit(self) -> Limit {
        match self {
            Refusal::All(_) => Limit::Connections,
            Refusal::Address(_) => Limit::ConnectionsPerIp,
        }
    }
}

/// Connections at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ConnectionLimits {
    /// In all (`max.connections`).
    pub(super) all: usize,
    /// From one address (`max.connections.per.ip`).
    pub(super) per_address: usize,
}

struct Books {
    shards: Vec<usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// The books of a broker. Clones are the same.
#[derive(Clone)]
pub(super) struct Admissions {
    books: Arc<Mutex<Books>>,
}

/// A connection in the books.
pub(super) struct Admission {
    books: Arc<Mutex<Books>>,
    shard: ShardId,
    address: IpAddr,
}

fn open(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Admissions {
    /// No connection, on `shards` shards.
    pub(super) fn new(shards: u16) -> Admissions {
        let books = Books { shards: vec![0; usize::from(shards)], addresses: HashMap::new() };
        Admissions { books: Arc::new(Mutex::new(books)) }
    }

    /// Enters a connection from `address`, for the shard that has the fewest.
    pub(super) fn admit(&self, address: IpAddr, limits: ConnectionLimits) -> Result<Admission, Refusal> {
        let mut books = open(&self.books);
        if books.shards.iter().sum::<usize>() >= limits.all {
            return Err(Refusal::All(limits.all));
        }
        let of_address = books.addresses.get(&address).copied().unwrap_or(0);
        if of_address >= limits.per_address {
            return Err(Refusal::Address(limits.per_address));
        }
        books.addresses.insert(address, of_address + 1);
        let (index, count) = books.shards.iter_mut().enumerate().min_by_key(|(_, count)| **count).expect("a shard");
        *count += 1;
        let shard = ShardId(u16::try_from(index).expect("fewer than 65 536 shards"));
        drop(books);
        Ok(Admission { books: self.books.clone(), shard, address })
    }
}

impl Admission {
    /// The shard that serves the connection.
    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut books = open(&self.books);
        books.shards[usize::from(self.shard.0)] -= 1;
        if let Some(count) = books.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                books.addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    #[test]
    fn the_least_loaded_shard_is_chosen_and_limits_hold() {
        let admissions = Admissions::new(2);
        let limits = ConnectionLimits { all: 4, per_address: 3 };
        let admit = |last| admissions.admit(address(last), limits);
        let mut open: Vec<Admission> = (0..3).map(|_| admit(1).expect("room")).collect();
        assert_eq!(open.iter().map(|one| one.shard().0).collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!(admit(1).err(), Some(Refusal::Address(3)));
        open.push(admit(2).expect("another address"));
        assert_eq!(admit(3).err(), Some(Refusal::All(4)));
        drop(open.remove(0));
        assert_eq!(admit(1).expect("room again").shard(), ShardId(0));
        drop(open);
        let books = super::open(&admissions.books);
        assert!(books.addresses.is_empty() && books.shards == [0, 0]);
    }
}
