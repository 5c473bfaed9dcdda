//! A broker that is none: it keeps batches in memory, answers as fast as it can, and breaks its promises on demand.
//!
//! | module | what it does |
//! |---|---|
//! | `log` | a partition's batches, and the faults that befall them |
//! | `answers` | a request in, an answer out |
//! | this one | connections: over sockets, or in memory of the calling shard |
//!
//! It serves two ends: to measure the load generator with everything but a broker behind it, and to prove that it finds what a
//! broker does wrong. It has one topic of any name, leads all of its partitions, and knows neither idempotence nor time. It
//! trusts its client and says nothing helpful about bad requests: the connection ends.

mod answers;
mod log;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError, mpsc};

use bytes::BytesMut;
use corelane::runtime::sync::Notify;
use corelane::runtime::{Buffer, Class, Duration, Instant, Listener, real, side, sleep_until, spawn};
use corelane::wire::frame::LENGTH_BYTES;

use self::log::PartitionLog;
use crate::client::transport::{Dial, Transport};

/// Bytes of the receive buffer.
const RECEIVE_BYTES: usize = 2 << 20;
/// Bytes of a request at most.
const REQUEST_BYTES_MAX: usize = 100 << 20;

/// What a synthetic broker is like.
#[derive(Clone, Debug)]
pub struct SyntheticOptions {
    /// Partitions of its topic.
    pub partitions: u32,
    /// Bytes that each partition keeps.
    pub retained_bytes: usize,
    /// What it does wrong.
    pub faults: Faults,
}

/// What a synthetic broker does wrong; by default nothing. A number n befalls every n-th batch of a partition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Acknowledges it and throws it away.
    pub lose: Option<u64>,
    /// Appends it twice.
    pub repeat: Option<u64>,
    /// Appends it behind the next one.
    pub swap: Option<u64>,
    /// Changes a byte of it, and its checksum with it.
    pub corrupt: Option<u64>,
    /// Appends it to the partition before.
    pub misplace: Option<u64>,
    /// Acknowledges nothing of it, although it is appended.
    pub forget: Option<u64>,
    /// Does nothing at all for a while, again and again.
    pub stall: Option<Stall>,
    /// Uses more CPU, by this part of all that its thread uses otherwise: a planted slowdown.
    pub slow_down: f64,
}

thread_local! {
    /// The broker that connections in memory of this thread lead to.
    static HERE: RefCell<Option<Rc<SyntheticBroker>>> = const { RefCell::new(None) };
}

/// What brokers in memory are like, from their next first connection on.
static IN_MEMORY: Mutex<Option<SyntheticOptions>> = Mutex::new(None);

/// Connects by memory: every thread that does so has a broker of its own, which is like this.
pub fn in_memory(options: SyntheticOptions) -> Dial {
    *IN_MEMORY.lock().unwrap_or_else(PoisonError::into_inner) = Some(options);
    Dial::With(connect_here)
}

fn connect_here(address: SocketAddr) -> io::Result<Transport> {
    let options = IN_MEMORY.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let options = options.ok_or(io::ErrorKind::ConnectionRefused)?;
    HERE.with(|here| {
        let mut here = here.borrow_mut();
        let broker = here.get_or_insert_with(|| SyntheticBroker::new(options, address));
        Ok(broker.connect())
    })
}

/// Serves from a thread of its own, until the process ends. Yields where it listens, on a free port of the loopback.
///
/// # Errors
/// What the machine lacks for a shard, or for a listening socket.
pub fn serve_beside(options: SyntheticOptions, core: Option<usize>) -> io::Result<SocketAddr> {
    let (sender, told) = mpsc::channel();
    side::start("synthetic", move || {
        let failed = sender.clone();
        let body = async move {
            let address = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = match Listener::bind(address) {
                Ok(listener) => listener,
                Err(error) => return drop(sender.send(Err(error))),
            };
            // Nobody waits for the address any more if the process is ending.
            let _ = sender.send(Ok(listener.local_address()));
            let broker = SyntheticBroker::new(options, listener.local_address());
            if let Err(error) = broker.serve(listener).await {
                tracing::warn!(%error, "the synthetic broker ends");
            }
        };
        if let Err(error) = real::run(&real::Options { core }, body) {
            let _ = failed.send(Err(io::Error::other(error)));
        }
    })?;
    told.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?
}

/// A time in which nothing is received and nothing answered.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    /// From the beginning of one to the beginning of the next; the first comes half of that after the broker's start.
    pub every: Duration,
    /// Its length.
    pub length: Duration,
}

/// See the head of this file. It belongs to one shard.
pub struct SyntheticBroker {
    options: SyntheticOptions,
    address: Cell<SocketAddr>,
    started: Instant,
    partitions: RefCell<Vec<PartitionLog>>,
    /// Fetches that wait for records: each is called after every append.
    waiting: RefCell<Vec<Rc<Notify>>>,
    /// CPU that the planted slowdown has used so far, in nanoseconds.
    burnt_ns: Cell<u64>,
}

impl SyntheticBroker {
    /// A broker of the calling shard; clients are told `address`.
    pub fn new(options: SyntheticOptions, address: SocketAddr) -> Rc<SyntheticBroker> {
        let partitions = (0..options.partitions).map(|_| PartitionLog::new(options.retained_bytes)).collect();
        Rc::new(SyntheticBroker {
            options,
            address: Cell::new(address),
            started: Instant::now(),
            partitions: RefCell::new(partitions),
            waiting: RefCell::default(),
            burnt_ns: Cell::new(0),
        })
    }

    /// Serves whoever connects, until the shard ends.
    ///
    /// # Errors
    /// Those of accept(2).
    pub async fn serve(self: Rc<SyntheticBroker>, listener: Listener) -> io::Result<()> {
        self.address.set(listener.local_address());
        loop {
            let stream = listener.accept().await?;
            drop(spawn(Class::Produce, self.clone().serve_one(Transport::Socket(stream))));
        }
    }

    /// A connection to it in memory.
    pub fn connect(self: &Rc<SyntheticBroker>) -> Transport {
        let (client, server) = Transport::pair(self.address.get());
        drop(spawn(Class::Produce, self.clone().serve_one(server)));
        client
    }

    /// Answers the requests of a connection in their order, until it ends or one makes no sense.
    async fn serve_one(self: Rc<SyntheticBroker>, transport: Transport) {
        let (mut buffer, mut start) = (Buffer::with_capacity(RECEIVE_BYTES), 0);
        let mut encoded = BytesMut::new();
        'connection: loop {
            self.wait_for_stall().await;
            let (result, filled) = transport.receive(buffer).await;
            buffer = filled;
            if !result.is_ok_and(|bytes| bytes > 0) {
                break;
            }
            let mut answers = Vec::new();
            let missing = loop {
                let rest = &buffer[start..];
                let Some(length) = rest.first_chunk::<LENGTH_BYTES>() else { break LENGTH_BYTES - rest.len() };
                let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if length > REQUEST_BYTES_MAX {
                    break 'connection;
                }
                let whole = LENGTH_BYTES + length;
                if rest.len() < whole {
                    break whole - rest.len();
                }
                let frame = buffer.slice(start + LENGTH_BYTES..start + whole);
                start += whole;
                self.wait_for_stall().await;
                let Some(answer) = self.answer(&frame, &mut encoded).await else { break 'connection };
                answers.extend(answer);
            };
            if !answers.is_empty() {
                self.wait_for_stall().await;
                if transport.send(answers).await.0.is_err() {
                    break;
                }
            }
            if buffer.remaining() < missing {
                let mut larger = Buffer::with_capacity((buffer.len() - start + missing).max(RECEIVE_BYTES));
                larger.append(&buffer[start..]);
                (buffer, start) = (larger, 0);
            }
        }
        transport.shutdown();
    }

    /// Waits until no stall is under way.
    async fn wait_for_stall(&self) {
        let Some(stall) = self.options.faults.stall else { return };
        let (every, length) = (stall.every.as_nanos() as u64, stall.length.as_nanos() as u64);
        let since = Instant::now().nanos() - self.started.nanos() + every / 2;
        let (number, into) = (since / every, since % every);
        if number > 0 && into < length {
            sleep_until(self.started.plus(Duration::from_nanos(number * every - every / 2 + length))).await;
        }
    }

    /// Something was appended.
    fn call_waiting(&self) {
        for waiting in &*self.waiting.borrow() {
            waiting.notify();
        }
    }
}
