//! TCP sockets.
//!
//! A stream has one receive and one send under way at most; a send goes out whole and in order or fails. The descriptor and
//! the buffers outlive the last completion, also when the waiting future was dropped.

use std::io;
pub use std::net::{IpAddr, SocketAddr};

use super::context::{Backend, current, record};
use super::memory::{Buffer, Slice};
use super::{real, sim};
use crate::metrics::SendKind;
use crate::types::Piece;

enum ListenerHandle {
    Real(real::Listener),
    Sim(sim::Listener),
}

/// A listening socket, bound without SO_REUSEPORT: a second broker on the same port fails instead of sharing it.
pub struct Listener {
    handle: ListenerHandle,
}

impl Listener {
    /// Binds and listens. Port 0 picks a free one: see [`Listener::local_address`].
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let handle = match current() {
            Backend::Real(shard) => ListenerHandle::Real(shard.listen(address)?),
            Backend::Sim(shard) => ListenerHandle::Sim(shard.listen(address)?),
        };
        Ok(Listener { handle })
    }

    /// The bound address, with the real port.
    pub fn local_address(&self) -> SocketAddr {
        match &self.handle {
            ListenerHandle::Real(listener) => listener.local_address(),
            ListenerHandle::Sim(listener) => listener.local_address(),
        }
    }

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// Those that say something about the listener or the process (EMFILE, ENFILE, ENOMEM); errors of a single connection
    /// are skipped.
    pub async fn accept(&self) -> io::Result<Stream> {
        let handle = match &self.handle {
            ListenerHandle::Real(listener) => StreamHandle::Real(listener.accept().await?),
            ListenerHandle::Sim(listener) => StreamHandle::Sim(listener.accept().await?),
        };
        Ok(Stream { handle })
    }
}

#[derive(Clone)]
enum StreamHandle {
    Real(real::Stream),
    Sim(sim::Stream),
}

/// A TCP connection (TCP_NODELAY set). Clones share it.
#[derive(Clone)]
pub struct Stream {
    handle: StreamHandle,
}

/// Connects to `address`.
///
/// # Errors
/// As connect(2): `ConnectionRefused`, `TimedOut` …
pub async fn connect(address: SocketAddr) -> io::Result<Stream> {
    let handle = match current() {
        Backend::Real(shard) => StreamHandle::Real(shard.connect(address).await?),
        Backend::Sim(shard) => StreamHandle::Sim(shard.connect(address).await?),
    };
    Ok(Stream { handle })
}

/// A connection on its way from one shard to another: bound to neither. Dropping it closes it (in the simulator only the
/// end of its process does).
pub struct DetachedStream {
    handle: DetachedHandle,
}

enum DetachedHandle {
    Real(real::DetachedStream),
    Sim(sim::DetachedStream),
}

impl DetachedStream {
    /// The other end.
    pub fn peer_address(&self) -> SocketAddr {
        match &self.handle {
            DetachedHandle::Real(stream) => stream.peer_address(),
            DetachedHandle::Sim(stream) => stream.peer_address(),
        }
    }

    /// Binds the connection to the calling shard.
    ///
    /// # Panics
    /// In another world than the one that it was detached in.
    pub fn attach(self) -> Stream {
        let handle = match (current(), self.handle) {
            (Backend::Real(shard), DetachedHandle::Real(stream)) => StreamHandle::Real(shard.attach(stream)),
            (Backend::Sim(shard), DetachedHandle::Sim(stream)) => StreamHandle::Sim(shard.attach(stream)),
            _ => unreachable!("a connection stays in its world"),
        };
        Stream { handle }
    }
}

/// Whether there are descriptors for another connection, beside those that this shard sets aside for its files.
pub fn can_connect() -> bool {
    match current() {
        Backend::Real(shard) => shard.reserve_is_whole(),
        Backend::Sim(_) => true,
    }
}

impl Stream {
    /// Takes the connection from its shard, so that another one can [attach](DetachedStream::attach) it.
    ///
    /// # Panics
    /// If there is another handle, or an operation under way.
    pub fn detach(self) -> DetachedStream {
        let handle = match self.handle {
            StreamHandle::Real(stream) => DetachedHandle::Real(stream.detach()),
            StreamHandle::Sim(stream) => DetachedHandle::Sim(stream.detach()),
        };
        DetachedStream { handle }
    }

    /// The other end.
    pub fn peer_address(&self) -> SocketAddr {
        match &self.handle {
            StreamHandle::Real(stream) => stream.peer_address(),
            StreamHandle::Sim(stream) => stream.peer_address(),
        }
    }

    /// This end: the address that the client came in by.
    pub fn local_address(&self) -> SocketAddr {
        match &self.handle {
            StreamHandle::Real(stream) => stream.local_address(),
            StreamHandle::Sim(stream) => stream.local_address(),
        }
    }

    /// Receives what is there, at least one byte, and appends it to `buffer`, which has room. 0 is the end of the stream.
    pub async fn receive(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        assert!(buffer.remaining() > 0);
        match &self.handle {
            StreamHandle::Real(stream) => stream.receive(buffer).await,
            StreamHandle::Sim(stream) => stream.receive(buffer).await,
        }
    }

    /// Sends the pieces one after the other, all of them or an error, without copying shared ones. Gives the list back,
    /// emptied, for the next send.
    pub async fn send(&self, pieces: Vec<Piece<Slice>>) -> (io::Result<()>, Vec<Piece<Slice>>) {
        let bytes: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        let (sent, pieces) = match &self.handle {
            StreamHandle::Real(stream) => stream.send(pieces).await,
            StreamHandle::Sim(stream) => stream.send(pieces).await,
        };
        if sent.is_ok() {
            record(|metrics| metrics.send_bytes.at(SendKind::Sent).add(bytes as u64));
        }
        (sent, pieces)
    }

    /// Ends both directions: what waits on this stream returns (shutdown(2)).
    pub fn shutdown(&self) {
        match &self.handle {
            StreamHandle::Real(stream) => stream.shutdown(),
            StreamHandle::Sim(stream) => stream.shutdown(),
        }
    }
}
