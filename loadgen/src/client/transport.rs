//! What a connection's bytes go through: a socket, or memory of the same shard.
//!
//! The memory is for measuring the engine without its socket calls and for tests: a pair of bounded pipes, whose bytes are copied
//! once on the receiving side, as the kernel would. Everything else about a connection is the same.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use corelane::runtime::sync::Notify;
use corelane::runtime::{Buffer, Slice, SocketAddr, Stream, connect};
use corelane::types::Piece;

/// Bytes on the way in a pipe, beyond which a sender waits.
const PIPE_BYTES_MAX: usize = 8 << 20;

/// How connections are made.
#[derive(Clone, Copy, Debug, Default)]
pub enum Dial {
    /// By TCP.
    #[default]
    Network,
    /// By this function of the calling shard.
    With(fn(SocketAddr) -> io::Result<Transport>),
}

impl Dial {
    /// Connects.
    ///
    /// # Errors
    /// What connect(2) says; `ConnectionRefused` for a socket that met itself.
    pub async fn connect(self, address: SocketAddr) -> io::Result<Transport> {
        let stream = match self {
            Dial::Network => connect(address).await?,
            Dial::With(connect) => return connect(address),
        };
        // A port that nobody listens on can be the one that this socket itself was given.
        if stream.local_address() == stream.peer_address() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Transport::Socket(stream))
    }
}

/// See the head of this file. Clones share it.
#[derive(Clone)]
pub enum Transport {
    /// A socket.
    Socket(Stream),
    /// One end of a pair in memory.
    Memory(MemoryEnd),
}

impl Transport {
    /// Two ends in memory, as if `address` had been connected to.
    pub fn pair(address: SocketAddr) -> (Transport, Transport) {
        let (there, back) = (Rc::new(Pipe::default()), Rc::new(Pipe::default()));
        let client = MemoryEnd { address, incoming: back.clone(), outgoing: there.clone() };
        let server = MemoryEnd { address, incoming: there, outgoing: back };
        (Transport::Memory(client), Transport::Memory(server))
    }

    /// The other end.
    pub fn peer_address(&self) -> SocketAddr {
        match self {
            Transport::Socket(stream) => stream.peer_address(),
            Transport::Memory(end) => end.address,
        }
    }

    /// Receives what is there, at least one byte, into the room of `buffer`. 0 is the end.
    pub async fn receive(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        match self {
            Transport::Socket(stream) => stream.receive(buffer).await,
            Transport::Memory(end) => end.incoming.receive(buffer).await,
        }
    }

    /// Sends the pieces in order, all of them or an error, and gives the emptied list back.
    pub async fn send(&self, pieces: Vec<Piece<Slice>>) -> (io::Result<()>, Vec<Piece<Slice>>) {
        match self {
            Transport::Socket(stream) => stream.send(pieces).await,
            Transport::Memory(end) => end.outgoing.send(pieces).await,
        }
    }

    /// Ends both directions.
    pub fn shutdown(&self) {
        match self {
            Transport::Socket(stream) => stream.shutdown(),
            Transport::Memory(end) => {
                end.incoming.close();
                end.outgoing.close();
            }
        }
    }
}

/// One end of a pair in memory.
#[derive(Clone)]
pub struct MemoryEnd {
    address: SocketAddr,
    incoming: Rc<Pipe>,
    outgoing: Rc<Pipe>,
}

/// Bytes on their way in one direction. One task sends, one receives.
#[derive(Default)]
struct Pipe {
    pieces: RefCell<VecDeque<Piece<Slice>>>,
    /// How much of the first piece was received.
    taken: Cell<usize>,
    bytes: Cell<usize>,
    arrival: Notify,
    room: Notify,
    is_closed: Cell<bool>,
}

impl Pipe {
    async fn send(&self, mut pieces: Vec<Piece<Slice>>) -> (io::Result<()>, Vec<Piece<Slice>>) {
        while self.bytes.get() > PIPE_BYTES_MAX && !self.is_closed.get() {
            self.room.notified().await;
        }
        if self.is_closed.get() {
            pieces.clear();
            return (Err(io::ErrorKind::BrokenPipe.into()), pieces);
        }
        let bytes: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        self.bytes.set(self.bytes.get() + bytes);
        self.pieces.borrow_mut().extend(pieces.drain(..));
        self.arrival.notify();
        (Ok(()), pieces)
    }

    async fn receive(&self, mut buffer: Buffer) -> (io::Result<usize>, Buffer) {
        while self.bytes.get() == 0 && !self.is_closed.get() {
            self.arrival.notified().await;
        }
        let (mut pieces, before) = (self.pieces.borrow_mut(), buffer.len());
        while let Some(piece) = pieces.front().filter(|_| buffer.remaining() > 0) {
            let rest = &piece.as_ref()[self.taken.get()..];
            let count = rest.len().min(buffer.remaining());
            buffer.append(&rest[..count]);
            if count == rest.len() {
                pieces.pop_front();
                self.taken.set(0);
            } else {
                self.taken.set(self.taken.get() + count);
            }
        }
        let count = buffer.len() - before;
        self.bytes.set(self.bytes.get() - count);
        self.room.notify();
        (Ok(count), buffer)
    }

    fn close(&self) {
        self.is_closed.set(true);
        self.arrival.notify();
        self.room.notify();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use corelane::runtime::real;

    use super::*;

    #[test]
    fn a_pair_in_memory_carries_bytes_both_ways_and_ends() {
        let body = async {
            let (client, server) = Transport::pair(SocketAddr::from(([127, 0, 0, 1], 1)));
            let encoded = |bytes: &'static [u8]| Piece::<Slice>::Encoded(Bytes::from_static(bytes));
            let (sent, emptied) = client.send(vec![encoded(b"first "), encoded(b"second")]).await;
            assert!(sent.is_ok() && emptied.is_empty());
            let (received, buffer) = server.receive(Buffer::with_capacity(4096)).await;
            assert_eq!((received.expect("bytes"), &buffer[..]), (12, &b"first second"[..]));
            server.send(vec![encoded(b"back")]).await.0.expect("open");
            let (received, _) = client.receive(buffer).await;
            assert_eq!(received.expect("bytes"), 4);
            client.shutdown();
            let (received, _) = server.receive(Buffer::with_capacity(4096)).await;
            assert_eq!(received.expect("the end"), 0);
            assert!(server.send(vec![encoded(b"x")]).await.0.is_err());
        };
        real::run(&real::Options::default(), body).expect("a shard");
    }
}
