//! The real world: a glommio executor with an io_uring of our own beside it, one pair per shard.
//!
//! | file | subject |
//! |---|---|
//! | [`executor`] | start and end of shards, panics |
//! | [`pump`], [`guard`] | when the ring is served, where an idle shard sleeps, and who wakes it from a wrong sleep |
//! | [`ring`], [`slot`], [`operation`] | submissions, completions, who owns what is in flight |
//! | [`task`], [`timer`], [`clock`] | tasks that count, deadlines, clocks |
//! | [`reserve`] | descriptors set aside for files |
//! | [`descriptor`], [`file`], [`directory`], [`socket`], [`signal`] | the operations |
//! | [`mailbox`] | bells between shards |
//! | [`limits`] | what the machine must offer |
//! | [`floor`] | a bare ring, to measure against |
//!
//! glommio's own files, sockets, channels and timers are not used, but for one eventfd that it reads.

mod clock;
mod descriptor;
mod directory;
mod executor;
mod file;
pub mod floor;
mod guard;
mod limits;
mod mailbox;
mod operation;
mod pump;
mod reserve;
mod ring;
mod signal;
mod slot;
mod socket;
mod task;
#[cfg(test)]
mod tests;
mod timer;

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;

use glommio::TaskQueueHandle;

use self::pump::Pump;
use self::ring::Ring;
use self::timer::TimerKey;
use super::clock::Instant;
use super::directory::{Entry, Space};
use super::file::OpenMode;
use super::mailbox::Collect;
use super::network::SocketAddr;
use super::task::Class;
use crate::metrics::Recording;
use crate::types::Timestamp;

pub use self::clock::thread_cpu_nanos;
pub(super) use self::directory::Lock;
pub(super) use self::executor::abort_if_this_thread_panics;
pub use self::executor::{Options, run, run_shards};
pub(super) use self::file::File;
pub use self::limits::StartError;
pub(super) use self::mailbox::Bell;
pub(super) use self::socket::{DetachedStream, Listener, Stream};
pub(super) use self::task::Load;

/// What the facade's calls act on: the objects of one shard.
pub(super) struct Shard {
    ring: Rc<Ring>,
    pump: Rc<Pump>,
    load: Arc<Load>,
    queues: [TaskQueueHandle; Class::ALL.len()],
    random: clock::Random,
    metrics: Recording,
    /// Whether the warning about a file system without O_DIRECT was given.
    buffered: Cell<bool>,
}

impl Shard {
    fn new(ring: Rc<Ring>, pump: Rc<Pump>, load: Arc<Load>, queues: [TaskQueueHandle; Class::ALL.len()]) -> Shard {
        let (random, metrics) = (clock::Random::default(), Recording::default());
        Shard { ring, pump, load, queues, random, metrics, buffered: Cell::new(false) }
    }

    pub(super) fn metrics(&self) -> &Recording {
        &self.metrics
    }

    pub(super) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    pub(super) fn random_u64(&self) -> u64 {
        self.random.next()
    }

    pub(super) fn expect_termination(&self) {
        self.pump.expect_termination();
    }

    pub(super) async fn terminated(&self) {
        self.pump.terminated().await;
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(clock::monotonic_nanos())
    }

    pub(super) fn wall_clock(&self) -> Timestamp {
        clock::wall_clock()
    }

    pub(super) async fn sleep_until(&self, deadline: Instant) {
        if clock::monotonic_nanos() >= deadline.nanos() {
            return;
        }
        let mut sleep = Sleep { ring: &self.ring, key: None };
        std::future::poll_fn(|context| {
            let due = match sleep.key {
                Some(key) => sleep.ring.poll_timer(key, context),
                None => {
                    sleep.key = Some(sleep.ring.add_timer(deadline.nanos(), context.waker().clone()));
                    false
                }
            };
            if due { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(super) async fn yield_now(&self) {
        // Another class may have been waiting longer: let glommio choose.
        glommio::executor().yield_task_queue_now().await;
    }

    pub(super) fn spawn(&self, class: Class, future: impl Future<Output = ()> + 'static) {
        let queue = match class {
            Class::Produce => self.queues[0],
            Class::Fetch => self.queues[1],
            Class::Bulk => self.queues[2],
            Class::Background => self.queues[3],
        };
        executor::spawn_into(queue, &self.load, &self.pump, future);
    }

    pub(super) async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<File> {
        File::open(&self.ring, path, mode, &self.buffered).await
    }

    pub(super) async fn create_directory(&self, path: &Path) -> io::Result<()> {
        directory::create(&self.ring, path).await
    }

    pub(super) async fn list_directory(&self, path: &Path) -> io::Result<Vec<Entry>> {
        directory::list(path)
    }

    pub(super) async fn sync_directory(&self, path: &Path) -> io::Result<()> {
        directory::sync(&self.ring, path).await
    }

    pub(super) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        directory::rename(&self.ring, from, to).await
    }

    pub(super) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        directory::unlink(&self.ring, path, 0).await
    }

    pub(super) async fn remove_directory(&self, path: &Path) -> io::Result<()> {
        directory::unlink(&self.ring, path, libc::AT_REMOVEDIR).await
    }

    pub(super) async fn space(&self, path: &Path) -> io::Result<Space> {
        directory::space(path)
    }

    pub(super) async fn lock(&self, path: &Path, note: &str) -> io::Result<Lock> {
        Lock::take(&self.ring, path, note)
    }

    pub(super) fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        Listener::bind(&self.ring, address)
    }

    pub(super) fn listen_to_bell(&self, listener: Weak<dyn Collect>) -> io::Result<Arc<Bell>> {
        self.ring.listen_to_bell(listener)
    }

    pub(super) fn ring_bell(&self, bell: &Arc<Bell>) {
        self.ring.ring_bell(bell);
    }

    #[cfg(test)]
    pub(super) fn forbid_messages(&self) {
        self.ring.bells().forbid_messages();
    }

    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        Stream::connect(&self.ring, address).await
    }

    pub(super) fn reserve_is_whole(&self) -> bool {
        self.ring.reserve().is_whole()
    }

    pub(super) fn attach(&self, detached: DetachedStream) -> Stream {
        Stream::attach(&self.ring, detached)
    }
}

/// A deadline that is forgotten when its future ends or is dropped.
struct Sleep<'a> {
    ring: &'a Rc<Ring>,
    key: Option<TimerKey>,
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.ring.remove_timer(key);
        }
    }
}
