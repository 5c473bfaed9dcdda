//! One connection to a broker: requests go out in order as fast as the socket takes them, answers come back in order.
//!
//! A request is queued by [`Connection::send`] and answered through its [`Reply`]; any number may be under way. Two tasks
//! serve the socket, one sends whatever is queued in one piece, one cuts the stream into answers, which share the receive
//! buffer's memory. Any fault closes the connection for good: every reply that is still waited for then says so, and whether
//! the broker acted on its request is unknown. A broker that owes answers and is silent for the length of the time limit is
//! such a fault. It never connects again by itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;

use corelane::runtime::sync::{Notify, Receiver, Sender, oneshot};
use corelane::runtime::{Buffer, Class, Duration, Instant, Slice, SocketAddr, sleep, spawn, timeout};
use corelane::types::Piece;
use corelane::wire::client::{decode_response, encode_request, response_correlation};
use corelane::wire::frame::LENGTH_BYTES;
use corelane::wire::messages::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};
use corelane::wire::{Api, ApiKey, CorrelationId};
use kafka_protocol::protocol::Request;

use super::ClientError;
use super::transport::{Dial, Transport};

/// Bytes of the receive buffer at least; an answer that is larger gets one of its own.
const RECEIVE_BYTES: usize = 256 << 10;
/// Bytes of an answer at most: what is larger is not a Kafka broker's. As `socket.request.max.bytes` of the other direction.
const ANSWER_BYTES_MAX: usize = 100 << 20;
/// How often silence is looked for.
const WATCH: Duration = Duration::from_millis(250);

/// How a client calls itself and how long it waits.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// The client id of every request.
    pub client_id: String,
    /// How long a connection attempt, or a broker that owes answers, may be silent.
    pub silence_max: Duration,
    /// How connections are made.
    pub dial: Dial,
}

impl Default for ConnectionOptions {
    /// `loadgen` with 30 s, the request time-out of Kafka's clients.
    fn default() -> ConnectionOptions {
        ConnectionOptions { client_id: "loadgen".to_owned(), silence_max: Duration::from_secs(30), dial: Dial::Network }
    }
}

struct Shared {
    stream: Transport,
    client_id: String,
    versions: RefCell<Vec<ApiVersion>>,
    next: Cell<i32>,
    waiting: RefCell<VecDeque<(CorrelationId, Sender<Slice>)>>,
    queued: RefCell<Vec<Piece<Slice>>>,
    /// Who waits for the socket to take what is queued.
    told: RefCell<Vec<Sender<()>>>,
    call: Notify,
    /// When the broker was heard of last, or asked while it owed nothing.
    heard: Cell<Instant>,
    closed: Cell<bool>,
}

impl Shared {
    /// Ends both tasks and every wait.
    fn close(&self) {
        if !self.closed.replace(true) {
            self.stream.shutdown();
            self.call.notify();
            let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
            drop(waiting);
            self.told.borrow_mut().clear();
        }
    }
}

/// A connection. Clones share it; the last one that is dropped closes it.
#[derive(Clone)]
pub struct Connection {
    guard: Rc<Guard>,
}

struct Guard {
    shared: Rc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// An answer that is waited for, as the bytes that it consists of.
pub struct Answer {
    frame: Receiver<Slice>,
    /// The connection lives as long as answers are waited for.
    guard: Rc<Guard>,
}

/// An answer that is waited for.
pub struct Reply<T> {
    api: Api,
    correlation: CorrelationId,
    answer: Answer,
    message: PhantomData<T>,
}

impl Connection {
    /// Connects to `address` and asks which versions the broker speaks.
    ///
    /// # Errors
    /// What connect(2) says; [`ClientError::Silent`]; a broker that is none.
    pub async fn open(address: SocketAddr, options: &ConnectionOptions) -> Result<Connection, ClientError> {
        let failed = |source| ClientError::Connect { address, source };
        let connected = timeout(options.silence_max, options.dial.connect(address)).await;
        let stream = connected.map_err(|_| ClientError::Silent(address))?.map_err(failed)?;
        let shared = Rc::new(Shared {
            stream,
            client_id: options.client_id.clone(),
            versions: RefCell::default(),
            next: Cell::new(0),
            waiting: RefCell::default(),
            queued: RefCell::default(),
            told: RefCell::default(),
            call: Notify::new(),
            heard: Cell::new(Instant::now()),
            closed: Cell::new(false),
        });
        drop(spawn(Class::Produce, send_all(shared.clone())));
        drop(spawn(Class::Produce, receive_all(shared.clone())));
        drop(spawn(Class::Produce, watch(shared.clone(), options.silence_max)));
        let connection = Connection { guard: Rc::new(Guard { shared }) };
        connection.learn_versions().await?;
        Ok(connection)
    }

    async fn learn_versions(&self) -> Result<(), ClientError> {
        // The oldest version: every broker answers it without a second attempt, and newer ones tell nothing that is needed.
        let reply = self.send_as(Api::API_VERSIONS_0, &ApiVersionsRequest::default())?;
        let response: ApiVersionsResponse = reply.receive().await?;
        *self.shared().versions.borrow_mut() = response.api_keys;
        Ok(())
    }

    fn shared(&self) -> &Shared {
        &self.guard.shared
    }

    /// The other end.
    pub fn address(&self) -> SocketAddr {
        self.shared().stream.peer_address()
    }

    /// Whether it can no longer be used.
    pub fn is_closed(&self) -> bool {
        self.shared().closed.get()
    }

    /// The highest version of an API that both sides speak, `highest` at most.
    pub fn api(&self, key: ApiKey, highest: i16) -> Result<Api, ClientError> {
        let versions = self.shared().versions.borrow();
        let range = versions.iter().find(|range| range.api_key == key.code());
        let version = range.map(|range| (range.min_version, range.max_version.min(highest)));
        let api = version.and_then(|(min, max)| Api::new(key, max).ok().filter(|_| min <= max));
        api.ok_or(ClientError::NotSpoken(key))
    }

    /// Queues a request in the highest version that both sides speak, `highest` at most.
    pub fn send<R: Request>(&self, key: ApiKey, highest: i16, request: &R) -> Result<Reply<R::Response>, ClientError> {
        self.send_as(self.api(key, highest)?, request)
    }

    fn send_as<R: Request>(&self, api: Api, request: &R) -> Result<Reply<R::Response>, ClientError> {
        let mut used = CorrelationId(0);
        let answer = self.call(|correlation, client_id| {
            used = correlation;
            Ok(vec![Piece::Encoded(encode_request(api, correlation, Some(client_id), request)?)])
        })?;
        Ok(Reply { api, correlation: used, answer, message: PhantomData })
    }

    /// Queues a request that `encode` writes, given its correlation id and the client's.
    ///
    /// # Errors
    /// [`ClientError::Closed`]; what `encode` says.
    pub fn call(
        &self,
        encode: impl FnOnce(CorrelationId, &str) -> Result<Vec<Piece<Slice>>, ClientError>,
    ) -> Result<Answer, ClientError> {
        let correlation = self.queue(encode)?;
        let shared = self.shared();
        let (sender, frame) = oneshot();
        let mut waiting = shared.waiting.borrow_mut();
        if waiting.is_empty() {
            shared.heard.set(Instant::now());
        }
        waiting.push_back((correlation, sender));
        Ok(Answer { frame, guard: self.guard.clone() })
    }

    /// Queues a request that gets no answer, as [`Connection::call`]; what is given back is ready once the socket has taken
    /// it, and `None` if it never will.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn tell(
        &self,
        encode: impl FnOnce(CorrelationId, &str) -> Result<Vec<Piece<Slice>>, ClientError>,
    ) -> Result<Receiver<()>, ClientError> {
        self.queue(encode)?;
        let (sender, sent) = oneshot();
        self.shared().told.borrow_mut().push(sender);
        Ok(sent)
    }

    fn queue(
        &self,
        encode: impl FnOnce(CorrelationId, &str) -> Result<Vec<Piece<Slice>>, ClientError>,
    ) -> Result<CorrelationId, ClientError> {
        let shared = self.shared();
        if shared.closed.get() {
            return Err(ClientError::Closed(self.address()));
        }
        let correlation = CorrelationId(shared.next.get());
        shared.next.set(correlation.0.wrapping_add(1));
        let pieces = encode(correlation, &shared.client_id)?;
        shared.queued.borrow_mut().extend(pieces);
        shared.call.notify();
        Ok(correlation)
    }
}

impl Answer {
    /// Waits for the answer: its frame without the length field.
    ///
    /// # Errors
    /// [`ClientError::Closed`]: whether the broker acted on the request is unknown.
    pub async fn receive(self) -> Result<Slice, ClientError> {
        let Answer { frame, guard } = self;
        frame.await.ok_or_else(|| ClientError::Closed(guard.shared.stream.peer_address()))
    }
}

impl<T: kafka_protocol::protocol::Decodable> Reply<T> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`ClientError::Closed`]: whether the broker acted on the request is unknown.
    pub async fn receive(self) -> Result<T, ClientError> {
        let Reply { api, correlation, answer, .. } = self;
        let address = answer.guard.shared.stream.peer_address();
        let frame = answer.receive().await?.into_bytes();
        decode_response(api, correlation, frame).map_err(|source| ClientError::Answer { address, source })
    }
}

async fn send_all(shared: Rc<Shared>) {
    let mut pieces = Vec::new();
    while !shared.closed.get() {
        std::mem::swap(&mut pieces, &mut *shared.queued.borrow_mut());
        if pieces.is_empty() {
            shared.call.notified().await;
            continue;
        }
        let told = std::mem::take(&mut *shared.told.borrow_mut());
        let (result, emptied) = shared.stream.send(pieces).await;
        pieces = emptied;
        match result {
            Ok(()) => told.into_iter().for_each(|sender| sender.send(())),
            Err(_) => shared.close(),
        }
    }
}

async fn receive_all(shared: Rc<Shared>) {
    let mut buffer = Buffer::with_capacity(RECEIVE_BYTES);
    let mut start = 0;
    loop {
        let (result, filled) = shared.stream.receive(buffer).await;
        buffer = filled;
        if !result.is_ok_and(|bytes| bytes > 0) || shared.closed.get() {
            break;
        }
        shared.heard.set(Instant::now());
        let Some(missing) = take_answers(&shared, &buffer, &mut start) else { break };
        if buffer.remaining() < missing {
            let rest = &buffer[start..];
            let mut larger = Buffer::with_capacity((rest.len() + missing).max(RECEIVE_BYTES));
            larger.append(rest);
            (buffer, start) = (larger, 0);
        }
    }
    shared.close();
}

/// Hands out every whole answer from `start` on. Yields how many bytes the next one lacks at least; `None` if what came is no
/// answer that is waited for.
fn take_answers(shared: &Shared, buffer: &Buffer, start: &mut usize) -> Option<usize> {
    loop {
        let rest = &buffer[*start..];
        let Some(length) = rest.first_chunk::<LENGTH_BYTES>() else { return Some(LENGTH_BYTES - rest.len()) };
        let length = usize::try_from(i32::from_be_bytes(*length)).ok().filter(|&bytes| bytes <= ANSWER_BYTES_MAX)?;
        let whole = LENGTH_BYTES + length;
        if rest.len() < whole {
            return Some(whole - rest.len());
        }
        let frame = buffer.slice(*start + LENGTH_BYTES..*start + whole);
        *start += whole;
        let (expected, sender) = shared.waiting.borrow_mut().pop_front()?;
        if response_correlation(&frame) != Some(expected) {
            return None;
        }
        sender.send(frame);
    }
}

/// Closes the connection of a broker that owes an answer and says nothing.
async fn watch(shared: Rc<Shared>, silence_max: Duration) {
    while !shared.closed.get() {
        sleep(WATCH).await;
        let owes = !shared.waiting.borrow().is_empty();
        if owes && Instant::now().since(shared.heard.get()) > silence_max {
            shared.close();
        }
    }
}
