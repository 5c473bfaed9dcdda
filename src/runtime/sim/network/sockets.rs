//! Listeners and streams as tasks see them: the sockets of a simulated process.
//!
//! A socket is a number of the network's table and the end that its holder has. Dropping the last handle closes the end, if
//! the process still lives; when a process ends, the network has closed its sockets already.
//!
//! Sources: tcp(7), listen(2), shutdown(2).

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::super::World;
use super::super::node::{NodeId, Shard};
use super::super::trace::Kind;
use super::{Connection, End, EndState, Listening, Network, RETRY_NANOS, Side, node_ip};
use crate::runtime::memory::{Buffer, Slice};
use crate::types::Piece;

/// How often a connect tries to get through a cut, once in [`RETRY_NANOS`].
const CONNECT_TRIES_MAX: u32 = 10;
/// Connections that wait to be accepted, per listener (somaxconn's order).
const BACKLOG_MAX: usize = 1024;

fn reset_error() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// A listening socket of a simulated process.
pub(in crate::runtime) struct Listener {
    shard: Rc<Shard>,
    address: SocketAddr,
}

impl Shard {
    pub(in crate::runtime) fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        let world = self.world();
        let node = self.process.node;
        let ours = address.ip() == node_ip(node) || address.ip().is_loopback() || address.ip().is_unspecified();
        if !ours {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut network = world.network.borrow_mut();
        let port = if address.port() == 0 { network.ephemeral_port(node) } else { address.port() };
        if network.listeners.contains_key(&(node, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let address = SocketAddr::new(address.ip(), port);
        let incarnation = self.process.incarnation;
        let listening = Listening { incarnation, address, backlog: VecDeque::new(), acceptor: None };
        network.listeners.insert((node, port), listening);
        Ok(Listener { shard: Rc::new(self.clone()), address })
    }

    pub(in crate::runtime) async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let world = self.world();
        let from = self.process.node;
        let to = Network::node_of(address.ip(), from, world.node_count()).ok_or(io::ErrorKind::HostUnreachable)?;
        for _ in 0..CONNECT_TRIES_MAX {
            let (there, back) = {
                let mut network = world.network.borrow_mut();
                (network.delay(from, to), network.delay(to, from))
            };
            let cut = |world: &Rc<World>| {
                let network = world.network.borrow();
                network.is_cut(from, to) || network.is_cut(to, from) || !world.has_power(to)
            };
            if cut(&world) {
                world.clock.wait(RETRY_NANOS).await;
                continue;
            }
            world.clock.wait(there).await;
            let accepted = self.arrive_at(&world, address, to);
            world.clock.wait(back).await;
            match accepted? {
                Some(stream) => return Ok(stream),
                None => world.clock.wait(RETRY_NANOS).await,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    pub(in crate::runtime) fn attach(&self, detached: DetachedStream) -> Stream {
        let DetachedStream { process, incarnation, id, side, local, peer } = detached;
        let own = &self.process;
        assert_eq!((process, incarnation), (own.node, own.incarnation), "a connection stays in its process");
        Stream::new(Rc::new(self.clone()), id, side, local, peer)
    }

    /// A connection request has come to `to`; `None` if the backlog is full.
    fn arrive_at(&self, world: &Rc<World>, address: SocketAddr, to: NodeId) -> io::Result<Option<Stream>> {
        let from = self.process.node;
        let mut network = world.network.borrow_mut();
        let network = &mut *network;
        let own_port = network.ephemeral_port(from);
        let listening = network
            .listeners
            .get_mut(&(to, address.port()))
            .filter(|listening| listening.address.ip().is_unspecified() || listening.address.ip() == address.ip());
        let listening = listening.ok_or(io::ErrorKind::ConnectionRefused)?;
        if listening.backlog.len() >= BACKLOG_MAX {
            return Ok(None);
        }
        network.last_connection += 1;
        let id = network.last_connection;
        let own_ip = if address.ip().is_loopback() { address.ip() } else { node_ip(from) };
        let own = SocketAddr::new(own_ip, own_port);
        let end = |node, incarnation, address| End { node, incarnation, address, state: EndState::Open };
        let ends = [end(from, self.process.incarnation, own), end(to, listening.incarnation, address)];
        network.connections.insert(id, Connection { ends, pipes: Default::default() });
        listening.backlog.push_back(id);
        if let Some(acceptor) = listening.acceptor.take() {
            acceptor.wake();
        }
        world.record(Kind::Connect, from, u64::from(address.port()), id);
        world.count(|counters| counters.connections += 1);
        Ok(Some(Stream::new(Rc::new(self.clone()), id, Side::Client, own, address)))
    }
}

impl Listener {
    pub(in crate::runtime) fn local_address(&self) -> SocketAddr {
        self.address
    }

    pub(in crate::runtime) async fn accept(&self) -> io::Result<Stream> {
        let world = self.shard.world();
        let key = (self.shard.process.node, self.address.port());
        let accepted = std::future::poll_fn(|context: &mut Context<'_>| {
            let mut network = world.network.borrow_mut();
            let network = &mut *network;
            let Some(listening) = network.listeners.get_mut(&key) else {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::NotConnected)));
            };
            while let Some(id) = listening.backlog.pop_front() {
                if let Some(connection) = network.connections.get(&id) {
                    let [client, server] = &connection.ends;
                    return Poll::Ready(Ok((id, server.address, client.address)));
                }
            }
            listening.acceptor = Some(context.waker().clone());
            Poll::Pending
        });
        let (id, local, peer) = accepted.await?;
        Ok(Stream::new(self.shard.clone(), id, Side::Server, local, peer))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.shard.process.is_alive() {
            return;
        }
        let Some(world) = self.shard.try_world() else { return };
        let key = (self.shard.process.node, self.address.port());
        let listening = world.network.borrow_mut().listeners.remove(&key);
        for id in listening.into_iter().flat_map(|listening| listening.backlog) {
            world.vanish(id, Side::Server, false);
        }
    }
}

/// One end of a connection. Clones share it; the last one closes it.
#[derive(Clone)]
pub(in crate::runtime) struct Stream {
    socket: Rc<Socket>,
}

struct Socket {
    shard: Rc<Shard>,
    id: u64,
    side: Side,
    local: SocketAddr,
    peer: SocketAddr,
    /// Another shard has the connection now.
    detached: Cell<bool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.detached.get()
            && self.shard.process.is_alive()
            && let Some(world) = self.shard.try_world()
        {
            world.close_end(self.id, self.side);
        }
    }
}

/// An end of a connection that no shard has.
pub(in crate::runtime) struct DetachedStream {
    process: NodeId,
    incarnation: u64,
    id: u64,
    side: Side,
    local: SocketAddr,
    peer: SocketAddr,
}

impl DetachedStream {
    pub(in crate::runtime) fn peer_address(&self) -> SocketAddr {
        self.peer
    }
}

impl Stream {
    fn new(shard: Rc<Shard>, id: u64, side: Side, local: SocketAddr, peer: SocketAddr) -> Stream {
        Stream { socket: Rc::new(Socket { shard, id, side, local, peer, detached: Cell::new(false) }) }
    }

    pub(in crate::runtime) fn detach(self) -> DetachedStream {
        assert_eq!(Rc::strong_count(&self.socket), 1, "nobody else holds it, and nothing is under way on it");
        self.socket.detached.set(true);
        let Socket { ref shard, id, side, local, peer, .. } = *self.socket;
        let (process, incarnation) = (shard.process.node, shard.process.incarnation);
        DetachedStream { process, incarnation, id, side, local, peer }
    }

    pub(in crate::runtime) fn peer_address(&self) -> SocketAddr {
        self.socket.peer
    }

    pub(in crate::runtime) fn local_address(&self) -> SocketAddr {
        self.socket.local
    }

    pub(in crate::runtime) async fn receive(&self, mut buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let Socket { id, side, ref shard, .. } = *self.socket;
        let world = shard.world();
        let result = std::future::poll_fn(|context: &mut Context<'_>| {
            let mut network = world.network.borrow_mut();
            let Some(connection) = network.connections.get_mut(&id) else {
                return Poll::Ready(Err(reset_error()));
            };
            match connection.end(side).state {
                EndState::Open => {}
                EndState::Shut | EndState::Closed => return Poll::Ready(Ok(0)),
                EndState::Reset => return Poll::Ready(Err(reset_error())),
            }
            let pipe = connection.sent_by(side.other());
            let mut received = 0;
            while let Some(chunk) = pipe.arrived.front_mut() {
                if chunk.is_empty() {
                    // The end of the stream stays, for whoever asks again.
                    return Poll::Ready(Ok(received));
                }
                let count = chunk.len().min(buffer.remaining());
                if count == 0 {
                    break;
                }
                buffer.append(&chunk.split_to(count));
                received += count;
                if chunk.is_empty() {
                    pipe.arrived.pop_front();
                }
            }
            if received == 0 {
                pipe.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            pipe.window_used -= received;
            Poll::Ready(Ok(received))
        })
        .await;
        if matches!(result, Ok(bytes) if bytes > 0) {
            world.push(id, side.other());
        }
        (result, buffer)
    }

    pub(in crate::runtime) async fn send(&self, mut pieces: Vec<Piece<Slice>>) -> (io::Result<()>, Vec<Piece<Slice>>) {
        let Socket { id, side, ref shard, .. } = *self.socket;
        let world = shard.world();
        {
            let mut network = world.network.borrow_mut();
            if let Some(connection) = network.connections.get_mut(&id)
                && connection.end(side).state == EndState::Open
            {
                let pipe = connection.sent_by(side);
                assert!(pipe.unsent.is_empty(), "a stream has one send under way at most");
                pipe.unsent.extend(pieces.drain(..).map(into_bytes).filter(|bytes| !bytes.is_empty()));
            }
        }
        pieces.clear();
        world.push(id, side);
        let result = std::future::poll_fn(|context: &mut Context<'_>| {
            let mut network = world.network.borrow_mut();
            let Some(connection) = network.connections.get_mut(&id) else {
                return Poll::Ready(Err(reset_error()));
            };
            match connection.end(side).state {
                EndState::Open => {}
                EndState::Shut | EndState::Closed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                EndState::Reset => return Poll::Ready(Err(reset_error())),
            }
            let pipe = connection.sent_by(side);
            if pipe.unsent.is_empty() {
                return Poll::Ready(Ok(()));
            }
            pipe.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        (result, pieces)
    }

    pub(in crate::runtime) fn shutdown(&self) {
        let Socket { id, side, ref shard, .. } = *self.socket;
        let world = shard.world();
        {
            let mut network = world.network.borrow_mut();
            let Some(connection) = network.connections.get_mut(&id) else { return };
            let end = connection.end(side);
            if end.state != EndState::Open {
                return;
            }
            end.state = EndState::Shut;
            connection.sent_by(side.other()).wake();
            let pipe = connection.sent_by(side);
            pipe.finishing = true;
            pipe.wake();
        }
        world.push(id, side);
    }
}

fn into_bytes(piece: Piece<Slice>) -> Bytes {
    match piece {
        Piece::Encoded(bytes) => bytes,
        Piece::Shared(slice) => slice.into_bytes(),
    }
}
