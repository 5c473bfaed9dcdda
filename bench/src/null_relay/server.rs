//! The relay: receive, CRC32C, write, acknowledge, send on. One thread, and nothing of Kafka.
//!
//! It is a shard of the broker's runtime: the same ring, sockets, files, memory and tasks that the broker's own requests run on.
//! So what the broker costs more than this is what its log and its protocol cost. (The bare ring of `bench echo` leaves out the
//! runtime too.)
//!
//! A lane is a producer's connection, a consumer's, and a directory. Each client says first what it is: `P` or `C` and the number
//! of its lane, 3 bytes; it is answered with one byte once both are there. Frames ([`super::tail`]) then come from the producer,
//! each is answered with [`ACK_BYTES`] bytes, the length 4 and the CRC32C of its payload, once it is written; from then on it
//! is sent to the consumer as it came. What comes during a write is the next write.
//!
//! A lane that fails in any way, or whose producer ends, closes both connections and removes its files.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{BufMut, BytesMut};
use corelane::runtime::sync::Notify;
use corelane::runtime::{Buffer, Class, Listener, Slice, Stream, real, spawn};
use corelane::types::Piece;

use super::segment::{Durable, Segments};
use super::tail::{LENGTH_BYTES, Run, Tail};
use crate::serving::announce;

/// Bytes of an acknowledgement.
pub(crate) const ACK_BYTES: usize = LENGTH_BYTES + size_of::<u32>();
/// Bytes of what a client says first.
pub(crate) const GREETING_BYTES: usize = 3;
/// What a client is answered when its lane is whole.
pub(crate) const WELCOME: &[u8] = b"!";

/// Bytes of a lane that are received and not sent on at which nothing more is received: a consumer that does not keep up holds
/// its producer up, at the price of so much memory.
const BEHIND_BYTES_MAX: usize = 8 << 20;

/// How the relay is started.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where to listen; port 0 is a free one, and the first line of the output says which
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// Where each lane makes a directory for its segments, which it removes when it ends
    #[arg(long)]
    pub(crate) directory: PathBuf,
    /// When a frame is acknowledged: B written, C flushed
    #[arg(long, value_enum)]
    pub(crate) class: Durable,
    /// Bytes at which a segment ends
    #[arg(long, default_value_t = super::SEGMENT_BYTES, value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 30))]
    pub(crate) segment_bytes: u64,
    /// Segments of a lane that are there at most
    #[arg(long, default_value_t = super::SEGMENTS_MAX, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) segments_max: u16,
    /// The core that the relay stays on
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

/// Serves until the process is killed.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let shard = real::Options { core: options.core };
    let options = options.clone();
    real::run(&shard, async move { serve(&options, announce).await }).map_err(io::Error::other)?
}

/// Serves on the current shard. `ready` is told where.
pub(crate) async fn serve(options: &Options, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let listener = Listener::bind(options.listen)?;
    ready(listener.local_address());
    let lobby = Rc::new(Lobby { options: options.clone(), waiting: RefCell::default() });
    loop {
        let (stream, lobby) = (listener.accept().await?, lobby.clone());
        spawn(Class::Produce, async move {
            if let Err(error) = lobby.greet(stream).await {
                eprintln!("null relay: {error}");
            }
        });
    }
}

/// What a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// It sends frames.
    Producer,
    /// It is sent frames.
    Consumer,
}

/// What a client of lane `lane` says first.
pub(crate) fn greeting(role: Role, lane: u16) -> [u8; GREETING_BYTES] {
    let [high, low] = lane.to_be_bytes();
    [if role == Role::Producer { b'P' } else { b'C' }, high, low]
}

/// Where clients wait for the other one of their lane.
struct Lobby {
    options: Options,
    waiting: RefCell<HashMap<u16, (Role, Stream)>>,
}

impl Lobby {
    async fn greet(&self, stream: Stream) -> io::Result<()> {
        let mut buffer = Buffer::with_capacity(GREETING_BYTES);
        while buffer.len() < GREETING_BYTES {
            let (received, back) = stream.receive(buffer).await;
            buffer = back;
            if received? == 0 {
                return Ok(());
            }
        }
        let (role, lane) = match buffer[..] {
            [b'P', high, low] => (Role::Producer, u16::from_be_bytes([high, low])),
            [b'C', high, low] => (Role::Consumer, u16::from_be_bytes([high, low])),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a client did not say what it is")),
        };
        let other = self.waiting.borrow_mut().remove(&lane);
        let (producer, consumer) = match (role, other) {
            (Role::Producer, Some((Role::Consumer, consumer))) => (stream, consumer),
            (Role::Consumer, Some((Role::Producer, producer))) => (producer, stream),
            // The first one; one of the same role that waited before is closed.
            _ => {
                self.waiting.borrow_mut().insert(lane, (role, stream));
                return Ok(());
            }
        };
        relay(producer, consumer, &self.options.directory.join(format!("lane-{lane}")), &self.options).await
    }
}

/// What the tasks of a lane share.
struct Lane {
    tail: RefCell<Tail>,
    /// Bytes received in whole frames and not sent on.
    behind: Cell<usize>,
    acks: RefCell<BytesMut>,
    outgoing: RefCell<Vec<Slice>>,
    /// The producer sends nothing more.
    has_ended: Cell<bool>,
    /// Nothing more is going to be acknowledged.
    is_written: Cell<bool>,
    work: Notify,
    room: Notify,
    for_acks: Notify,
    for_outgoing: Notify,
}

/// Serves one lane until its producer ends.
async fn relay(producer: Stream, consumer: Stream, directory: &Path, options: &Options) -> io::Result<()> {
    let mut segments = Segments::create(directory.to_owned(), options.class, usize::from(options.segments_max)).await?;
    let (tail, chunk) = Tail::new(options.segment_bytes);
    let lane = Rc::new(Lane {
        tail: RefCell::new(tail),
        behind: Cell::new(0),
        acks: RefCell::default(),
        outgoing: RefCell::default(),
        has_ended: Cell::new(false),
        is_written: Cell::new(false),
        work: Notify::new(),
        room: Notify::new(),
        for_acks: Notify::new(),
        for_outgoing: Notify::new(),
    });
    for client in [&producer, &consumer] {
        client.send(vec![Piece::Encoded(WELCOME.into())]).await.0?;
    }
    let ends = [producer.clone(), consumer.clone()];
    let close = move || ends.iter().for_each(Stream::shutdown);
    let tasks = [
        spawn(Class::Produce, guarded(lane.clone().receive(producer.clone(), chunk), close.clone())),
        spawn(Class::Produce, guarded(lane.clone().acknowledge(producer), close.clone())),
        spawn(Class::Fetch, guarded(lane.clone().send_on(consumer), close.clone())),
    ];
    let written = lane.write(&mut segments).await;
    lane.is_written.set(true);
    if written.is_err() {
        close();
    }
    for waiting in [&lane.room, &lane.for_acks, &lane.for_outgoing] {
        waiting.notify();
    }
    let mut outcome = written;
    for task in tasks {
        outcome = outcome.and(task.await);
    }
    close();
    segments.remove().await.and(outcome)
}

/// Closes the lane's connections if the task fails, so that the others end too.
async fn guarded(task: impl Future<Output = io::Result<()>>, close: impl Fn()) -> io::Result<()> {
    task.await.inspect_err(|_| close())
}

impl Lane {
    async fn receive(self: Rc<Self>, producer: Stream, chunk: Buffer) -> io::Result<()> {
        let received = self.receive_all(&producer, chunk).await;
        self.has_ended.set(true);
        self.work.notify();
        received
    }

    async fn receive_all(&self, producer: &Stream, mut chunk: Buffer) -> io::Result<()> {
        while !self.is_written.get() {
            if self.behind.get() >= BEHIND_BYTES_MAX {
                self.room.notified().await;
                continue;
            }
            let (received, back) = producer.receive(chunk).await;
            if received? == 0 {
                break;
            }
            let taken = self.tail.borrow_mut().take_in(back);
            let (next, bytes) = taken.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            chunk = next;
            self.behind.set(self.behind.get() + bytes);
            self.work.notify();
        }
        Ok(())
    }

    /// Writes what has come, and lets it be acknowledged and sent on, until the producer has ended.
    async fn write(&self, segments: &mut Segments) -> io::Result<()> {
        loop {
            let run = self.tail.borrow_mut().take_run();
            match run {
                Some(run) => {
                    segments.write(&run).await?;
                    self.written(&run);
                }
                None if self.has_ended.get() => return Ok(()),
                None => self.work.notified().await,
            }
        }
    }

    fn written(&self, run: &Run) {
        let mut acks = self.acks.borrow_mut();
        for &sum in &run.sums {
            acks.put_u32(size_of::<u32>() as u32);
            acks.put_u32(sum);
        }
        self.outgoing.borrow_mut().push(run.frames());
        self.for_acks.notify();
        self.for_outgoing.notify();
    }

    async fn acknowledge(self: Rc<Self>, producer: Stream) -> io::Result<()> {
        loop {
            let acks = self.acks.borrow_mut().split().freeze();
            if !acks.is_empty() {
                producer.send(vec![Piece::Encoded(acks)]).await.0?;
            } else if self.is_written.get() {
                return Ok(());
            } else {
                self.for_acks.notified().await;
            }
        }
    }

    async fn send_on(self: Rc<Self>, consumer: Stream) -> io::Result<()> {
        let mut pieces = Vec::new();
        loop {
            pieces.extend(self.outgoing.borrow_mut().drain(..).map(Piece::Shared));
            if !pieces.is_empty() {
                let bytes: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
                let (sent, back) = consumer.send(pieces).await;
                sent?;
                pieces = back;
                self.behind.set(self.behind.get() - bytes);
                self.room.notify();
            } else if self.is_written.get() {
                return Ok(());
            } else {
                self.for_outgoing.notified().await;
            }
        }
    }
}
