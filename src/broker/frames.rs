//! Requests as frames: a 4-byte big-endian length and that many bytes (Kafka protocol guide, "Network").
//!
//! Memory grows as bytes arrive, and each slab is taken from the shard's memory for requests first: a frame for which there
//! is none is left in the client's hands until there is. The receive buffer follows the connection: small while requests are
//! small, so that an idle one costs a block, and larger once receives fill it and memory is plenty. Time is granted as
//! [`Patience`] says: a client that sends a request by single bytes does not keep its buffer for ever. Time in which the frame
//! waits for memory does not count.
//!
//! What this file does not do: it looks into no frame, but for whether it is a Produce request: those wait for memory that
//! others are given from a reserve.

use std::io;
use std::ops::Deref;
use std::rc::Rc;

use thiserror::Error;

use super::budgets::requests::{ReceiveMemory, RequestMemory, SlabMemory};
use crate::metrics::Limit;
use crate::runtime::{Buffer, Duration, Instant, Slice, Stream, timeout};
use crate::wire::ApiKey;

/// Bytes of the length in front of a frame.
const LENGTH_BYTES: usize = 4;
/// Bytes of a connection's first receive buffer: a block, what thousands of idle connections cost each.
const RECEIVE_BYTES_MIN: usize = 4 << 10;
/// Bytes of the receive buffer of a busy connection: beyond it larger receives save nothing.
const RECEIVE_BYTES_MAX: usize = 256 << 10;
/// Bytes of an API's key, the first of a frame.
const API_KEY_BYTES: usize = 2;

/// Bytes of a frame for which a second is granted beyond the time that every frame has: half of what the slowest mobile link
/// moves.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From its beginning to the end of its first request.
    pub(super) first_request: Duration,
    /// From the first bytes of a later request to its end, for a short one; longer ones get more in proportion.
    pub(super) request: Duration,
}

/// The time that is granted to move `bytes` bytes, where `base` is granted to move any.
fn granted(base: Duration, bytes: usize) -> Duration {
    base + Duration::from_millis(bytes as u64 * 1000 / BYTES_PER_SECOND_MIN)
}

/// Why no further frame can be read. Each one ends the connection.
#[derive(Debug, Error)]
pub(super) enum FrameError {
    /// The length is negative.
    #[error("a frame of {0} bytes")]
    Negative(i32),
    /// The length exceeds `socket.request.max.bytes`, or what memory allows.
    #[error("a frame of {bytes} bytes, more than socket.request.max.bytes={bytes_max}")]
    TooLarge {
        /// Bytes that the client announced.
        bytes: usize,
        /// Bytes that are allowed.
        bytes_max: usize,
    },
    /// The client went away in the middle of a frame.
    #[error("the connection ended {missing} bytes before the end of a frame")]
    Truncated {
        /// Bytes that were still to come.
        missing: usize,
    },
    /// The frame came slowly while others waited for the memory that it held.
    #[error("the client sends slowly while memory for requests is short")]
    Shed,
    /// The client sent nothing, or not all of its first request, in time.
    #[error("no request within connections.handshake.timeout.ms={0}")]
    NoRequest(u128),
    /// The rest of a request did not come in time.
    #[error("{missing} bytes of a request are missing after {waited:?}, see request.receive.timeout.ms")]
    Slow {
        /// Bytes that were still to come.
        missing: usize,
        /// How long they were waited for.
        waited: Duration,
    },
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Socket(#[from] io::Error),
}

impl FrameError {
    /// The limit that was met, if it was one.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            FrameError::TooLarge { .. } => Some(Limit::RequestBytes),
            FrameError::Shed => Some(Limit::RequestMemory),
            FrameError::NoRequest(_) => Some(Limit::Handshake),
            FrameError::Slow { .. } => Some(Limit::Receive),
            FrameError::Negative(_) | FrameError::Truncated { .. } | FrameError::Socket(_) => None,
        }
    }
}

/// A request, with the memory that it lies in.
pub(super) struct Frame {
    bytes: Slice,
    memory: Rc<SlabMemory>,
}

impl Frame {
    /// The bytes, and what is to be kept as long as they or slices of them are.
    pub(super) fn into_parts(self) -> (Slice, Rc<SlabMemory>) {
        (self.bytes, self.memory)
    }
}

impl Deref for Frame {
    type Target = Slice;

    fn deref(&self) -> &Slice {
        &self.bytes
    }
}

/// Reads the frames of one connection.
pub(super) struct FrameReader {
    stream: Stream,
    frame_bytes_max: usize,
    memory: ReceiveMemory,
    buffer: Buffer,
    /// Where the next frame begins in the buffer.
    start: usize,
    receive_bytes: usize,
    patience: Patience,
    /// When the first request is due, until it is there.
    first_due: Option<Instant>,
    /// When the bytes of the frame that is being received began to come.
    begun: Option<Instant>,
}

impl FrameReader {
    pub(super) fn new(stream: Stream, memory: &Rc<RequestMemory>, patience: Patience) -> FrameReader {
        let ended = stream.clone();
        FrameReader {
            stream,
            frame_bytes_max: memory.frame_bytes_max(),
            memory: ReceiveMemory::new(memory, move || ended.shutdown()),
            buffer: Buffer::with_capacity(RECEIVE_BYTES_MIN),
            start: 0,
            receive_bytes: RECEIVE_BYTES_MIN,
            patience,
            first_due: Some(Instant::now().plus(patience.first_request)),
            begun: None,
        }
    }

    /// The next frame without its length; `None` when the client has ended the connection between two frames.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let wanted = match self.next_length()? {
                Some(length) if self.held() - LENGTH_BYTES >= length => return Ok(Some(self.take(length))),
                Some(length) => LENGTH_BYTES + length,
                None => LENGTH_BYTES,
            };
            if let Some(is_produce) = self.is_produce() {
                self.memory.in_frame(wanted, is_produce, Instant::now());
            }
            self.make_room(wanted).await;
            let room = self.buffer.remaining();
            match self.receive(wanted).await? {
                Ok(0) | Err(_) if self.memory.is_shed() => return Err(FrameError::Shed),
                Ok(0) if self.held() == 0 => return Ok(None),
                Ok(0) => return Err(FrameError::Truncated { missing: wanted - self.held() }),
                Ok(bytes) => {
                    self.memory.received(bytes);
                    if bytes == room {
                        self.receive_bytes = (self.receive_bytes * 2).min(RECEIVE_BYTES_MAX);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives more bytes, within the time that a frame of `wanted` bytes has; between two requests without a limit.
    async fn receive(&mut self, wanted: usize) -> Result<io::Result<usize>, FrameError> {
        let held = self.held();
        if held > 0 && self.begun.is_none() {
            self.begun = Some(Instant::now());
        }
        let frame_due = self.begun.map(|begun| (begun, begun.plus(granted(self.patience.request, wanted))));
        let received = self.stream.receive(std::mem::take(&mut self.buffer));
        let (received, buffer) = match (self.first_due, frame_due) {
            (None, None) => received.await,
            (None, Some((begun, due))) => {
                let received = timeout(due.since(Instant::now()), received).await;
                let slow = |_| FrameError::Slow { missing: wanted - held, waited: Instant::now().since(begun) };
                received.map_err(slow)?
            }
            (Some(due), _) => {
                let received = timeout(due.since(Instant::now()), received).await;
                received.map_err(|_| FrameError::NoRequest(self.patience.first_request.as_millis()))?
            }
        };
        self.buffer = buffer;
        Ok(received)
    }

    fn held(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn next_length(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.buffer[self.start..].first_chunk() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let bytes = usize::try_from(length).map_err(|_| FrameError::Negative(length))?;
        if bytes > self.frame_bytes_max {
            return Err(FrameError::TooLarge { bytes, bytes_max: self.frame_bytes_max });
        }
        Ok(Some(bytes))
    }

    /// Whether the next frame is a Produce request; `None` until its first bytes are there.
    fn is_produce(&self) -> Option<bool> {
        let key = self.buffer[self.start..].get(LENGTH_BYTES..LENGTH_BYTES + API_KEY_BYTES)?;
        Some(key == ApiKey::Produce.code().to_be_bytes())
    }

    /// Takes the next frame, which is there whole. When memory is short and nothing is behind it, the slab goes with it, and
    /// a small one leaves the slab.
    fn take(&mut self, length: usize) -> Frame {
        let is_produce = self.is_produce() == Some(true);
        let begin = self.start + LENGTH_BYTES;
        self.start = begin + length;
        (self.first_due, self.begun) = (None, None);
        self.memory.frame_ends();
        let frame = Frame { bytes: self.buffer.slice(begin..self.start), memory: self.memory.slab() };
        if self.held() > 0 || self.memory.keeps(self.buffer.capacity()) {
            return frame;
        }
        self.memory.gives_up();
        self.buffer = Buffer::with_capacity(RECEIVE_BYTES_MIN);
        self.start = 0;
        if is_produce || length > RECEIVE_BYTES_MIN {
            return frame;
        }
        let mut copy = Buffer::with_capacity(length);
        copy.append(&frame.bytes);
        Frame { bytes: copy.freeze(), memory: self.memory.uncounted() }
    }

    /// Makes room for at least one more byte of a frame of which `wanted` bytes are to be held in all.
    async fn make_room(&mut self, wanted: usize) {
        let held = self.held();
        if held == 0 && self.buffer.clear() {
            self.start = 0;
            return self.rest();
        }
        let room = self.buffer.remaining();
        let worth_it = wanted > LENGTH_BYTES || room >= self.receive_bytes / 4;
        if self.start + wanted <= self.buffer.capacity() && worth_it {
            return;
        }
        let wanted = wanted.min((2 * held).max(self.memory.trusted_bytes()));
        if self.start == 0 && room > 0 && self.buffer.capacity() >= wanted {
            return;
        }
        if wanted < self.receive_bytes && self.memory.prefers(self.receive_bytes) {
            self.renew(self.receive_bytes);
        } else if self.memory.takes(Buffer::capacity_for(wanted)) {
            self.renew(wanted);
        } else if room == 0 {
            let waits_from = Instant::now();
            self.memory.takes_in_turn(Buffer::capacity_for(wanted)).await;
            let waited = Instant::now().since(waits_from);
            self.begun = self.begun.map(|begun| begun.plus(waited));
            self.first_due = self.first_due.map(|due| due.plus(waited));
            self.renew(wanted);
        }
    }

    /// Chooses the slab to wait for the next frame with; the present one is empty.
    fn rest(&mut self) {
        if !self.memory.keeps(self.buffer.capacity()) {
            self.memory.gives_up();
            self.renew(RECEIVE_BYTES_MIN);
        }
        if self.buffer.capacity() < self.receive_bytes && self.memory.prefers(self.receive_bytes) {
            self.renew(self.receive_bytes);
        }
    }

    /// Goes on in a new slab, for which memory was taken.
    fn renew(&mut self, bytes: usize) {
        let mut buffer = Buffer::with_capacity(bytes);
        buffer.append(&self.buffer[self.start..]);
        self.buffer = buffer;
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sim::{Simulation, SimulationOptions};
    use crate::runtime::{Class, Duration, Listener, SocketAddr, connect, sleep, spawn, timeout};
    use crate::types::{Piece, ShardId};

    const FRAME_BYTES_MAX: usize = 8 << 20;
    const PATIENCE: Patience = Patience { first_request: Duration::from_secs(10), request: Duration::from_secs(30) };

    /// Sends all of `bytes`.
    async fn send(stream: &Stream, bytes: Vec<u8>) {
        let (sent, _) = stream.send(vec![Piece::Encoded(bytes.into())]).await;
        sent.expect("nobody ends the connection");
    }

    /// The lengths of the frames that a reader finds in `sent`, fed over a socket in arbitrary pieces, and how it ended.
    fn read(seed: u64, sent: Vec<u8>) -> (Vec<usize>, Result<(), String>) {
        let simulation = Simulation::new(seed, SimulationOptions::default());
        let node = simulation.add_node(1);
        let address = SocketAddr::new(simulation.address(node), 9092);
        let body = async move {
            let listener = Listener::bind(address).expect("free");
            spawn(Class::Produce, async move {
                let stream = connect(address).await.expect("it listens");
                let pieces = vec![Piece::Encoded(sent.into())];
                let _ = stream.send(pieces).await;
                stream.shutdown();
            });
            let memory = RequestMemory::new(32 << 20, FRAME_BYTES_MAX);
            let mut frames = FrameReader::new(listener.accept().await.expect("connected"), &memory, PATIENCE);
            let mut lengths = Vec::new();
            loop {
                match frames.next().await {
                    Ok(Some(frame)) => {
                        assert!(frame.iter().all(|&byte| usize::from(byte) == lengths.len() % 251), "bytes of frame");
                        lengths.push(frame.len());
                    }
                    Ok(None) => break (lengths, Ok(())),
                    Err(error) => break (lengths, Err(error.to_string())),
                }
            }
        };
        simulation.run_on(node, ShardId(0), body).expect("it ends").expect("nobody killed the node")
    }

    fn encode(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, &length) in lengths.iter().enumerate() {
            bytes.extend_from_slice(&u32::try_from(length).expect("small").to_be_bytes());
            bytes.resize(bytes.len() + length, u8::try_from(number % 251).expect("below 251"));
        }
        bytes
    }

    #[test]
    fn frames_of_every_size_arrive_whole() {
        for seed in 0..20 {
            let lengths = [0, 1, 4091, 4092, 4093, 5000, 100, 300_000, 3, 2_500_000, 64, 0, 70_000];
            assert_eq!(read(seed, encode(&lengths)), (lengths.to_vec(), Ok(())), "seed {seed}");
            let many: Vec<usize> = (0..500).map(|number| number * 7 % 400).collect();
            assert_eq!(read(seed, encode(&many)), (many, Ok(())), "seed {seed}");
        }
    }

    #[test]
    fn lengths_that_cannot_be_end_the_connection() {
        let ended = |bytes: &[u8]| read(3, bytes.to_vec()).1.expect_err("ended");
        assert!(ended(&[0xff; 4]).contains("-1 bytes"));
        assert!(ended(&[0x7f, 0xff, 0xff, 0xff]).contains("socket.request.max.bytes=8388608"));
        assert!(ended(&[0, 0, 0, 9, 1]).contains("8 bytes before the end"));
        assert!(ended(&[0, 0]).contains("2 bytes before the end"));
    }

    /// For tests of memory, not of time.
    const UNHURRIED: Patience =
        Patience { first_request: Duration::from_secs(3600), request: Duration::from_secs(3600) };

    /// A frame of `bytes` bytes with its length, of the API with this key.
    fn frame(key: i16, bytes: usize) -> Vec<u8> {
        let mut frame = encode(&[bytes]);
        frame[LENGTH_BYTES..LENGTH_BYTES + API_KEY_BYTES].copy_from_slice(&key.to_be_bytes());
        frame
    }

    /// Runs `client` for each number below `clients` over a connection of its own, and reads the frames of all of them into
    /// 16 MiB of memory; each is worked on for a moment. Returns what ended the connections.
    fn crowd<F: Future<Output = ()> + 'static>(
        seed: u64,
        clients: usize,
        client: impl Fn(usize, Stream) -> F + 'static,
    ) -> Vec<Result<usize, String>> {
        let simulation = Simulation::new(seed, SimulationOptions::default());
        let node = simulation.add_node(1);
        let address = SocketAddr::new(simulation.address(node), 9092);
        let body = async move {
            let memory = RequestMemory::new(16 << 20, usize::MAX);
            let listener = Listener::bind(address).expect("free");
            let mut readers = Vec::new();
            for number in 0..clients {
                let connecting = spawn(Class::Produce, connect(address));
                let mut frames = FrameReader::new(listener.accept().await.expect("connected"), &memory, UNHURRIED);
                spawn(Class::Produce, client(number, connecting.await.expect("it listens")));
                let memory = memory.clone();
                readers.push(spawn(Class::Produce, async move {
                    let mut count = 0;
                    loop {
                        match frames.next().await {
                            Ok(Some(frame)) => {
                                count += 1;
                                sleep(Duration::from_millis(20)).await;
                                drop(frame);
                            }
                            Ok(None) => return Ok(count),
                            Err(error) => return Err(error.to_string()),
                        }
                        assert!(memory.taken() <= 16 << 20);
                    }
                }));
            }
            let mut ends = Vec::new();
            for reader in readers {
                ends.push(reader.await);
            }
            assert_eq!(memory.taken(), 0);
            ends
        };
        simulation.run_on(node, ShardId(0), body).expect("it ends").expect("nobody killed the node")
    }

    #[test]
    fn half_sent_frames_lock_nobody_and_small_requests_pass() {
        const PRODUCERS: usize = 16;
        for seed in 0..4 {
            let ends = crowd(seed, PRODUCERS + 1, |number, stream| async move {
                if number < PRODUCERS {
                    let bytes = frame(0, 3 << 20);
                    let (half, rest) = bytes.split_at(3 << 19);
                    send(&stream, half.to_vec()).await;
                    sleep(Duration::from_millis(500)).await;
                    send(&stream, rest.to_vec()).await;
                } else {
                    for _ in 0..50 {
                        let begun = Instant::now();
                        send(&stream, frame(1, 40 << 10)).await;
                        let time = Instant::now().since(begun);
                        assert!(time < Duration::from_secs(1), "a fetch of 40 KiB was received after {time:?}");
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                stream.shutdown();
            });
            let mut expected = vec![Ok(1); PRODUCERS];
            expected.push(Ok(50));
            assert_eq!(ends, expected, "seed {seed}");
        }
    }

    #[test]
    fn a_client_that_stops_in_a_frame_ends_when_others_need_its_memory() {
        const STOPPED: usize = 20;
        let ends = crowd(5, STOPPED + 1, |number, stream| async move {
            if number < STOPPED {
                send(&stream, frame(0, 4 << 20)[..1 << 19].to_vec()).await;
                // Until the broker ends the connection, or the others are done.
                let received = stream.receive(Buffer::with_capacity(1));
                let _ = timeout(Duration::from_secs(60), received).await;
            } else {
                sleep(Duration::from_secs(1)).await;
                for _ in 0..3 {
                    send(&stream, frame(0, 6 << 20)).await;
                }
            }
            stream.shutdown();
        });
        assert_eq!(ends[STOPPED], Ok(3));
        let slow = ends.iter().filter(|end| end.as_ref().is_err_and(|end| end.contains("sends slowly"))).count();
        let cut = ends.iter().filter(|end| end.as_ref().is_err_and(|end| end.contains("before the end"))).count();
        assert_eq!(slow + cut, STOPPED);
        assert!(slow > 0, "{ends:?}");
    }

    #[test]
    fn a_frame_keeps_no_more_than_it_needs_when_memory_is_short() {
        let simulation = Simulation::new(6, SimulationOptions::default());
        let node = simulation.add_node(1);
        let address = SocketAddr::new(simulation.address(node), 9092);
        let body = async move {
            let memory = RequestMemory::new(16 << 20, usize::MAX);
            let listener = Listener::bind(address).expect("free");
            let connecting = spawn(Class::Produce, connect(address));
            let mut frames = FrameReader::new(listener.accept().await.expect("connected"), &memory, UNHURRIED);
            let client = connecting.await.expect("it listens");
            spawn(Class::Produce, async move {
                // Slabs of 4 MiB are more than what may be kept of 6 MiB for all frames.
                for (key, bytes) in [(0, 4 << 20), (1, 4 << 20), (0, 100), (1, 100)] {
                    send(&client, frame(key, bytes - LENGTH_BYTES)).await;
                }
                client.shutdown();
            });
            for large in [0, 1] {
                let frame = frames.next().await.expect("well formed").expect("a frame");
                assert_eq!((frame.len(), frame.pinned_bytes()), ((4 << 20) - LENGTH_BYTES, 4 << 20), "{large}");
                assert_eq!(memory.taken(), 4 << 20);
                drop(frame);
            }
            while let Some(frame) = frames.next().await.expect("well formed") {
                assert_eq!(frame.len(), 100 - LENGTH_BYTES);
                assert!(frame.pinned_bytes() <= RECEIVE_BYTES_MAX && memory.taken() <= RECEIVE_BYTES_MAX);
            }
        };
        simulation.run_on(node, ShardId(0), body).expect("it ends").expect("nobody killed the node");
    }

    /// A small frame behind a large one lies in its slab, and is copied out of it so that it can be waited for.
    #[test]
    fn a_small_request_leaves_a_large_slab_when_memory_is_short() {
        let simulation = Simulation::new(7, SimulationOptions::default());
        let node = simulation.add_node(1);
        let address = SocketAddr::new(simulation.address(node), 9092);
        let body = async move {
            let memory = RequestMemory::new(16 << 20, usize::MAX);
            let listener = Listener::bind(address).expect("free");
            let connecting = spawn(Class::Produce, connect(address));
            let mut frames = FrameReader::new(listener.accept().await.expect("connected"), &memory, UNHURRIED);
            let client = connecting.await.expect("it listens");
            let mut bytes = frame(0, (3 << 20) + 1);
            bytes.extend(frame(1, 100));
            spawn(Class::Produce, async move { send(&client, bytes).await });
            let large = frames.next().await.expect("well formed").expect("a frame");
            let small = frames.next().await.expect("well formed").expect("a frame");
            assert_eq!((large.pinned_bytes(), small.pinned_bytes()), (4 << 20, RECEIVE_BYTES_MIN));
            assert_eq!(memory.taken(), 4 << 20);
            drop(large);
            assert_eq!(memory.taken(), 0);
            assert_eq!(small.len(), 100);
        };
        simulation.run_on(node, ShardId(0), body).expect("it ends").expect("nobody killed the node");
    }

    /// How a reader of a client ends that sends `sent`, a piece every `pause`, and when.
    fn read_slowly(sent: Vec<Vec<u8>>, pause: Duration) -> (String, Duration) {
        let simulation = Simulation::new(5, SimulationOptions::default());
        let node = simulation.add_node(1);
        let address = SocketAddr::new(simulation.address(node), 9092);
        let body = async move {
            let listener = Listener::bind(address).expect("free");
            spawn(Class::Produce, async move {
                let stream = connect(address).await.expect("it listens");
                for piece in sent {
                    let _ = stream.send(vec![Piece::Encoded(piece.into())]).await;
                    crate::runtime::sleep(pause).await;
                }
                // Stays connected, and silent.
                crate::runtime::sleep(Duration::from_secs(1000)).await;
                stream.shutdown();
            });
            let memory = RequestMemory::new(32 << 20, FRAME_BYTES_MAX);
            let mut frames = FrameReader::new(listener.accept().await.expect("connected"), &memory, PATIENCE);
            let begun = Instant::now();
            loop {
                match frames.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break ("ended".to_string(), Instant::now().since(begun)),
                    Err(error) => break (error.to_string(), Instant::now().since(begun)),
                }
            }
        };
        simulation.run_on(node, ShardId(0), body).expect("it ends").expect("nobody killed the node")
    }

    #[test]
    fn a_client_has_so_long_for_its_requests_and_no_longer() {
        let second = Duration::from_secs(1);
        let within = |(reason, at): (String, Duration), expected: &str, from: u64| {
            assert!(reason.contains(expected), "{reason}");
            assert!(at >= second * u32::try_from(from).expect("small") && at < second * 1000, "{at:?}");
            at
        };
        let silent = within(read_slowly(Vec::new(), second), "connections.handshake.timeout.ms=10000", 10);
        assert!(silent < second * 11, "{silent:?}");
        let by_bytes = [0, 0, 1, 0].into_iter().chain([9; 20]).map(|byte| vec![byte]).collect();
        within(read_slowly(by_bytes, second), "connections.handshake.timeout.ms=10000", 10);

        let first = encode(&[4]);
        let mut second_by_bytes = vec![first.clone(), vec![0, 0, 1, 0]];
        second_by_bytes.extend(vec![vec![9]; 100]);
        let slow = within(read_slowly(second_by_bytes, second), "request.receive.timeout.ms", 30);
        assert!(slow < second * 33, "{slow:?}");

        let length = 2 << 20;
        let mut large = vec![first.clone(), u32::to_be_bytes(length).to_vec()];
        large.extend(vec![vec![9; 65536]; 32]);
        let (reason, at) = read_slowly(large, second + second / 4);
        assert_eq!(reason, "ended", "slow, and fast enough for its length");
        assert!(at > second * 1000, "{at:?}");

        let (reason, at) = read_slowly(vec![first], second);
        assert_eq!(reason, "ended", "between requests there is no limit here");
        assert!(at > second * 1000, "{at:?}");
    }
}
