//! The only door to the machine: tasks, time, randomness, memory, files, directories, sockets, signals,
//! mailboxes between shards.
//!
//! A shard is one executor on one thread. Everything here acts on the shard that the calling task runs on; nothing above
//! this module names glommio, io-uring, the operating system's clock or a random source. Two worlds stand behind the same
//! types, chosen where the shard is started and nowhere else:
//!
//! - [`real`]: a glommio executor with an io_uring of our own beside it.
//! - [`sim`]: many shards of many nodes on one thread, driven by a seeded heap of events, with a disk and a network that
//!   fail as the fault model says.
//!
//! Beside the shards there may be a [`side`] thread, for what blocks or brings an event loop of its own.
//!
//! What this module does not do: it knows nothing of records, logs or Kafka.

mod clock;
mod context;
pub mod directory;
mod file;
pub mod mailbox;
mod memory;
mod network;
mod pulse;
pub mod real;
pub mod side;
pub mod sim;
pub mod startup;
pub mod sync;
mod task;

pub use clock::{Elapsed, Instant, sleep, sleep_until, timeout, wall_clock};
pub use context::{metrics, random_u64, random_u128, terminated};
pub use core::time::Duration;
pub use file::{Durability, File, OpenMode};
pub use memory::{Buffer, SlabId, Slice};
pub use network::{DetachedStream, IpAddr, Listener, SocketAddr, Stream, can_connect, connect};
pub use pulse::{Pulse, pulse};
pub use task::{Class, Task, spawn, yield_now};
