//! Tasks of a shard and their scheduling classes.
//!
//! A task runs on the shard that spawned it and never moves. Dropping a [`Task`] detaches it: tasks end by returning, told
//! so by a flag, because cancelling a pending task leaks in glommio 0.9.0.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::context::{Backend, current};
use super::sync::{Receiver, Sender, oneshot};

/// A scheduling class: the work of a shard is shared out between the classes by weight, not by number of tasks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Connections, produce and replication.
    Produce,
    /// Answers to fetches.
    Fetch,
    /// Catch-up and cold reads.
    Bulk,
    /// Opening, zeroing, sealing, retention, checkpoints.
    Background,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Class; 4] = [Class::Produce, Class::Fetch, Class::Bulk, Class::Background];

    /// The class's share of the shard's time, relative to the others'.
    pub const fn shares(self) -> usize {
        match self {
            Class::Produce => 1000,
            Class::Fetch => 600,
            Class::Bulk => 150,
            Class::Background => 100,
        }
    }
}

/// A spawned task. Awaiting it yields its output; dropping it lets it run on.
pub struct Task<T> {
    output: Receiver<T>,
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // A panic in a task aborts the process, and a killed simulated node drops both ends: the output always comes.
        Pin::new(&mut self.output).poll(context).map(|output| output.expect("a task ends by returning"))
    }
}

pin_project! {
    /// Sends what the future yields. Not an async block: that would hold the future twice, as what it captured and as what it
    /// polls, and a connection's future takes kilobytes.
    struct Reporting<F, T> {
        #[pin]
        future: Option<F>,
        sender: Option<Sender<T>>,
    }
}

impl<F: Future<Output = T>, T> Future for Reporting<F, T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut task = self.project();
        let Some(future) = task.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        future.poll(context).map(|output| {
            // Who awaits the task finds what it held set free.
            task.future.set(None);
            if let Some(sender) = task.sender.take() {
                sender.send(output);
            }
        })
    }
}

/// Starts `future` on the current shard.
pub fn spawn<T: 'static>(class: Class, future: impl Future<Output = T> + 'static) -> Task<T> {
    let (sender, output) = oneshot();
    let body = Reporting { future: Some(future), sender: Some(sender) };
    match current() {
        Backend::Real(shard) => shard.spawn(class, body),
        Backend::Sim(shard) => shard.spawn(class, Box::pin(body)),
    }
    Task { output }
}

/// Lets the other tasks of the shard run, of every class. Work that takes long calls it every 50 microseconds or so: a shard
/// serves nobody else meanwhile.
pub async fn yield_now() {
    if let Backend::Real(shard) = current() {
        return shard.yield_now().await;
    }
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
