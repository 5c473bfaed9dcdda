//! Requests as frames: a 4-byte big-endian length and that many bytes (Kafka protocol guide, "Network").
//!
//! Memory grows as bytes arrive: a length alone buys nothing beyond [`TRUSTED_BYTES`]. The receive buffer follows the
//! connection: small while requests are small, so that an idle one costs a block, and larger once receives fill it. Time is
//! granted as to [`Patience`]: a client that sends a request by single bytes does not keep its buffer for ever.
//!
//! What this file does not do: it does not look into a frame.

use std::io;

use thiserror::Error;

use crate::runtime::{Buffer, Duration, Instant, Slice, Stream, timeout};

/// Bytes of the length in front of a frame.
const LENGTH_BYTES: usize = 4;
/// Bytes of a connection's first receive buffer: a block, what thousands of idle connections cost each.
const RECEIVE_BYTES_MIN: usize = 4 << 10;
/// Bytes of the receive buffer of a busy connection: beyond it larger receives save nothing.
const RECEIVE_BYTES_MAX: usize = 256 << 10;
/// Bytes that a length may ask for at once. Larger frames get room for twice what has arrived.
const TRUSTED_BYTES: usize = 1 << 20;

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
    /// The length exceeds `socket.request.max.bytes`.
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

/// Reads the frames of one connection.
pub(super) struct FrameReader {
    stream: Stream,
    frame_bytes_max: usize,
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
    pub(super) fn new(stream: Stream, frame_bytes_max: usize, patience: Patience) -> FrameReader {
        let receive_bytes = RECEIVE_BYTES_MIN;
        FrameReader {
            stream,
            frame_bytes_max,
            buffer: Buffer::with_capacity(receive_bytes),
            start: 0,
            receive_bytes,
            patience,
            first_due: Some(Instant::now().plus(patience.first_request)),
            begun: None,
        }
    }

    /// The next frame without its length; `None` when the client has ended the connection between two frames.
    pub(super) async fn next(&mut self) -> Result<Option<Slice>, FrameError> {
        loop {
            let wanted = match self.next_length()? {
                Some(length) if self.held() - LENGTH_BYTES >= length => {
                    let begin = self.start + LENGTH_BYTES;
                    self.start = begin + length;
                    (self.first_due, self.begun) = (None, None);
                    return Ok(Some(self.buffer.slice(begin..begin + length)));
                }
                Some(length) => LENGTH_BYTES + length,
                None => LENGTH_BYTES,
            };
            self.make_room(wanted);
            let room = self.buffer.remaining();
            match self.receive(wanted).await? {
                0 if self.held() == 0 => return Ok(None),
                0 => return Err(FrameError::Truncated { missing: wanted - self.held() }),
                bytes if bytes == room => self.receive_bytes = (self.receive_bytes * 2).min(RECEIVE_BYTES_MAX),
                _ => {}
            }
        }
    }

    /// Receives more bytes, within the time that a frame of `wanted` bytes has; between two requests without a limit. Says how
    /// many came.
    async fn receive(&mut self, wanted: usize) -> Result<usize, FrameError> {
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
        Ok(received?)
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

    /// Makes room for at least one more byte of a frame of which `wanted` bytes are to be held in all.
    fn make_room(&mut self, wanted: usize) {
        let held = self.held();
        if held == 0 && self.buffer.capacity() >= self.receive_bytes && self.buffer.clear() {
            self.start = 0;
            return;
        }
        let room = self.buffer.remaining();
        let fits = self.start + wanted <= self.buffer.capacity();
        let worth_it = wanted > LENGTH_BYTES || room >= self.receive_bytes / 4;
        let growing = self.start == 0 && self.buffer.capacity() >= TRUSTED_BYTES && room > 0;
        if fits && worth_it || growing {
            return;
        }
        let granted = wanted.min((2 * held).max(TRUSTED_BYTES));
        let mut buffer = Buffer::with_capacity(granted.max(self.receive_bytes));
        buffer.append(&self.buffer[self.start..]);
        self.buffer = buffer;
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sim::{Simulation, SimulationOptions};
    use crate::runtime::{Class, Listener, SocketAddr, connect, spawn};
    use crate::types::{Piece, ShardId};

    const FRAME_BYTES_MAX: usize = 8 << 20;
    const PATIENCE: Patience = Patience { first_request: Duration::from_secs(10), request: Duration::from_secs(30) };

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
            let mut frames = FrameReader::new(listener.accept().await.expect("connected"), FRAME_BYTES_MAX, PATIENCE);
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
            let mut frames = FrameReader::new(listener.accept().await.expect("connected"), FRAME_BYTES_MAX, PATIENCE);
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
        let by_bytes = vec![vec![0]; 20];
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
