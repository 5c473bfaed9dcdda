//! The load: connections that each keep a number of requests in flight, on a shard of the runtime.
//!
//! All requests of a load are the same bytes and all answers have the same length, so that neither is looked at while it runs.
//! A connection ([`Flow`]) has two tasks. The sender keeps the pipeline full, several requests in one send where several are
//! missing; the receiver counts whole answers that have come back. So neither can wait for the other while the socket's buffers
//! are full.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use corelane::runtime::sync::Notify;
use corelane::runtime::{Buffer, Class, Duration, Instant, Slice, Stream, connect, real, sleep, spawn};
use corelane::types::Piece;

/// Bytes received at once at most.
const RECEIVE_BYTES_MAX: usize = 256 << 10;

/// What the client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Connections, all at once.
    pub(crate) connections: usize,
    /// Requests in flight per connection.
    pub(crate) pipeline: usize,
    /// The bytes of every request.
    pub(crate) request: Vec<u8>,
    /// Bytes of every answer.
    pub(crate) answer_bytes: usize,
}

/// What a run came to.
pub(crate) struct Run<C> {
    /// Requests that were answered between the two looks at the cost.
    pub(crate) requests: u64,
    /// Seconds between them.
    pub(crate) seconds: f64,
    /// The cost before them.
    pub(crate) before: C,
    /// The cost after them.
    pub(crate) after: C,
}

/// One connection under load: the state that its two tasks share.
pub(crate) struct Flow {
    request_bytes: u64,
    answer_bytes: u64,
    pipeline: u64,
    bytes_sent: Cell<u64>,
    bytes_received: Cell<u64>,
    has_ended: Cell<bool>,
    room: Notify,
}

impl Flow {
    /// Starts to load `stream`, until the process ends or [`Flow::end`] is called.
    pub(crate) fn start(stream: Stream, load: &Load, content: &Slice) -> Rc<Flow> {
        let flow = Rc::new(Flow::new(load));
        spawn(Class::Produce, send(stream.clone(), flow.clone(), content.clone()));
        spawn(Class::Produce, receive(stream, flow.clone()));
        flow
    }

    fn new(load: &Load) -> Flow {
        Flow {
            request_bytes: load.request.len() as u64,
            answer_bytes: load.answer_bytes as u64,
            pipeline: load.pipeline as u64,
            bytes_sent: Cell::new(0),
            bytes_received: Cell::new(0),
            has_ended: Cell::new(false),
            room: Notify::new(),
        }
    }

    /// Whole answers so far.
    pub(crate) fn answered(&self) -> u64 {
        self.bytes_received.get() / self.answer_bytes
    }

    /// Sends nothing more.
    pub(crate) fn end(&self) {
        self.has_ended.set(true);
    }

    /// Bytes of requests sent so far, or about to be.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent.get()
    }

    /// Whether every request that was sent has its answer, and nothing else came.
    pub(crate) fn is_answered(&self) -> bool {
        self.bytes_received.get() * self.request_bytes == self.bytes_sent.get() * self.answer_bytes
    }

    /// Bytes of the requests that may be sent now.
    fn missing_bytes(&self) -> u64 {
        if self.has_ended.get() {
            return 0;
        }
        (self.pipeline + self.answered()) * self.request_bytes - self.bytes_sent.get()
    }
}

/// Runs the load for `time`, after a tenth of it to warm up, and looks at the cost before and after.
pub(crate) fn drive<C: 'static>(
    address: SocketAddr,
    load: &Load,
    time: Duration,
    cost: impl Fn() -> io::Result<C> + 'static,
) -> io::Result<Run<C>> {
    let load = load.clone();
    let main = async move {
        let content = content(&load.request, load.pipeline);
        let mut flows = Vec::new();
        for _ in 0..load.connections {
            flows.push(Flow::start(connect(address).await?, &load, &content));
        }
        watch(&flows, time / 10, time, cost).await
    };
    real::run(&real::Options::default(), main).map_err(io::Error::other)?
}

/// Looks at the cost and at what was answered when `warm_up` has passed, and again `time` later.
pub(crate) async fn watch<C>(
    flows: &[Rc<Flow>],
    warm_up: Duration,
    time: Duration,
    cost: impl Fn() -> io::Result<C>,
) -> io::Result<Run<C>> {
    let answered = || flows.iter().map(|flow| flow.answered()).sum::<u64>();
    sleep(warm_up).await;
    let (begin, answered_before, before) = (Instant::now(), answered(), cost()?);
    sleep(time).await;
    let seconds = Instant::now().since(begin).as_secs_f64();
    Ok(Run { requests: answered() - answered_before, seconds, before, after: cost()? })
}

/// `content` is as many requests as the pipeline holds.
async fn send(stream: Stream, flow: Rc<Flow>, content: Slice) {
    let mut pieces = Vec::with_capacity(1);
    loop {
        let bytes = flow.missing_bytes();
        if bytes == 0 {
            flow.room.notified().await;
            continue;
        }
        flow.bytes_sent.set(flow.bytes_sent.get() + bytes);
        pieces.push(Piece::Shared(content.slice(0..usize::try_from(bytes).expect("at most the content"))));
        let (sent, back) = stream.send(pieces).await;
        pieces = back;
        sent.expect("the server lives as long as the run");
    }
}

async fn receive(stream: Stream, flow: Rc<Flow>) {
    let whole = usize::try_from(flow.answer_bytes * flow.pipeline).unwrap_or(RECEIVE_BYTES_MAX);
    let mut buffer = Buffer::with_capacity(whole.min(RECEIVE_BYTES_MAX));
    loop {
        let (received, back) = stream.receive(buffer).await;
        buffer = back;
        let count = received.expect("the server lives as long as the run");
        assert!(count > 0 && buffer.clear(), "the server keeps the connection, and nobody the bytes");
        flow.bytes_received.set(flow.bytes_received.get() + count as u64);
        if flow.missing_bytes() > 0 {
            flow.room.notify();
        }
    }
}

/// As many requests as a connection keeps in flight, one behind the other.
pub(crate) fn content(request: &[u8], pipeline: usize) -> Slice {
    let mut buffer = Buffer::with_capacity(request.len() * pipeline);
    for _ in 0..pipeline {
        buffer.append(request);
    }
    buffer.freeze()
}
