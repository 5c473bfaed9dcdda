//! The simulated network: listeners, connections between nodes, and what delays, cuts and resets them.
//!
//! A connection is two pipes. A pipe carries bytes in order: what a task sends waits in `unsent` until the window lets it
//! through, is in flight in chunks of the seed's choice, and lies in `arrived` until it is received. A cut holds back what is
//! in flight in that direction; healing lets it go on, as TCP's retransmission would. A send goes on also when its future is
//! dropped. The end of a process ends its connections with a reset or an end of stream; a power cut ends them silently, and
//! the peer learns of it only after a while.
//!
//! What this file does not do: it loses no bytes of a connection that lives, because TCP does not.

mod sockets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;

use super::World;
use super::clock::Action;
use super::node::{NodeId, Process};
use super::random::{PerMillion, Random};
use super::trace::Kind;
pub(in super::super) use sockets::{DetachedStream, Listener, Stream};

/// How the network behaves; delays in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetworkOptions {
    /// Shortest delay of a chunk.
    pub delay_min: u64,
    /// Longest delay of a chunk that is not an outlier.
    pub delay_max: u64,
    /// Chance of a chunk to be delayed by a retransmission.
    pub retransmissions: PerMillion,
    /// Delay of a retransmission.
    pub retransmission_delay: u64,
    /// Bytes that may be in flight or unread in one direction of a connection.
    pub window_bytes: usize,
    /// Chance of a chunk of at most 16 bytes.
    pub tiny_chunks: PerMillion,
}

impl Default for NetworkOptions {
    fn default() -> NetworkOptions {
        NetworkOptions {
            delay_min: 20_000,
            delay_max: 500_000,
            retransmissions: PerMillion(1_000),
            retransmission_delay: 200_000_000,
            window_bytes: 256 << 10,
            tiny_chunks: PerMillion(50_000),
        }
    }
}

/// How often something that a cut holds back is tried again.
const RETRY_NANOS: u64 = 1_000_000_000;
/// Longest time until a peer learns that the machine at the other end lost its power.
const SILENCE_NANOS_MAX: u64 = 5_000_000_000;
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// Which of a connection's two ends: the one that connected or the one that accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Client,
    Server,
}

impl Side {
    const fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// The bytes that one end sends to the other.
#[derive(Default)]
struct Pipe {
    unsent: VecDeque<Bytes>,
    in_flight: VecDeque<Bytes>,
    arrived: VecDeque<Bytes>,
    /// Bytes in flight and arrived.
    window_used: usize,
    /// When the last chunk that is in flight arrives, so that none overtakes it.
    arrives_at: u64,
    /// The sender has sent its last byte; it is the end of the stream when everything has arrived.
    finishing: bool,
    finished: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn forget_bytes(&mut self) {
        self.unsent.clear();
        self.in_flight.clear();
        self.arrived.clear();
        self.window_used = 0;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EndState {
    Open,
    /// shutdown(2) was called: what comes is dropped, reads end.
    Shut,
    /// No handle is left, or the process is gone.
    Closed,
    Reset,
}

struct End {
    node: NodeId,
    incarnation: u64,
    address: SocketAddr,
    state: EndState,
}

struct Connection {
    ends: [End; 2],
    /// By the side that sends.
    pipes: [Pipe; 2],
}

impl Connection {
    fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    fn sent_by(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side as usize]
    }

    /// The nodes that bytes of `side` go from and to.
    fn route(&self, side: Side) -> (NodeId, NodeId) {
        (self.ends[side as usize].node, self.ends[side.other() as usize].node)
    }

    fn is_over(&self) -> bool {
        let over = |end: &End| matches!(end.state, EndState::Closed | EndState::Reset);
        let quiet = |pipe: &Pipe| pipe.unsent.is_empty() && pipe.in_flight.is_empty();
        self.ends.iter().all(over) && self.pipes.iter().all(quiet)
    }
}

struct Listening {
    incarnation: u64,
    address: SocketAddr,
    backlog: VecDeque<u64>,
    acceptor: Option<Waker>,
}

/// All sockets of all nodes.
pub(super) struct Network {
    pub(super) options: NetworkOptions,
    listeners: BTreeMap<(NodeId, u16), Listening>,
    connections: BTreeMap<u64, Connection>,
    last_connection: u64,
    next_port: u16,
    cuts: BTreeSet<(NodeId, NodeId)>,
    random: Random,
}

/// The address of a node: 10.0.x.y, from its number.
pub(super) fn node_ip(node: NodeId) -> IpAddr {
    let [high, low] = (node.0 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

impl Network {
    pub(super) fn new(options: NetworkOptions, random: Random) -> Network {
        Network {
            options,
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            last_connection: 0,
            next_port: *EPHEMERAL_PORTS.start(),
            cuts: BTreeSet::new(),
            random,
        }
    }

    /// The node that `ip` belongs to, seen from `from`.
    fn node_of(ip: IpAddr, from: NodeId, nodes: usize) -> Option<NodeId> {
        if ip.is_loopback() || ip.is_unspecified() {
            return Some(from);
        }
        (0..nodes).map(|index| NodeId(index as u16)).find(|&node| node_ip(node) == ip)
    }

    fn ephemeral_port(&mut self, node: NodeId) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = if port == *EPHEMERAL_PORTS.end() { *EPHEMERAL_PORTS.start() } else { port + 1 };
            if !self.listeners.contains_key(&(node, port)) {
                return port;
            }
        }
    }

    fn delay(&mut self, from: NodeId, to: NodeId) -> u64 {
        let NetworkOptions { delay_min, delay_max, retransmissions, retransmission_delay, .. } = self.options;
        if from == to {
            return self.random.within(2_000..=30_000);
        }
        let late = if self.random.happens(retransmissions) { retransmission_delay } else { 0 };
        late + self.random.within(delay_min..=delay_max.max(delay_min))
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.contains(&(from, to))
    }

    fn chunk_bytes(&mut self, bytes_max: usize) -> usize {
        let limit = if self.random.happens(self.options.tiny_chunks) {
            16
        } else {
            *self.random.choose(&[1_460, 16 << 10, 256 << 10])
        };
        let bytes_max = bytes_max.min(limit);
        if self.random.coin() { bytes_max } else { 1 + self.random.index(bytes_max) }
    }
}

impl World {
    /// Lets what `side` sent travel as far as the window allows.
    fn push(self: &Rc<World>, id: u64, side: Side) {
        loop {
            let mut network = self.network.borrow_mut();
            let network = &mut *network;
            let Some(connection) = network.connections.get_mut(&id) else { return };
            let (from, to) = connection.route(side);
            let pipe = &mut connection.pipes[side as usize];
            let room = network.options.window_bytes.saturating_sub(pipe.window_used);
            let waiting = pipe.unsent.front().map_or(0, Bytes::len);
            if waiting == 0 || room == 0 {
                if waiting == 0
                    && let Some(writer) = pipe.writer.take()
                {
                    writer.wake();
                }
                if waiting > 0 || !pipe.finishing || pipe.finished {
                    return;
                }
                pipe.finished = true;
            }
            let bytes = if waiting == 0 { 0 } else { network.chunk_bytes(waiting.min(room)) };
            let delay = network.delay(from, to);
            let connection = network.connections.get_mut(&id).expect("just found");
            let pipe = connection.sent_by(side);
            if bytes > 0 {
                let front = pipe.unsent.front_mut().expect("just found");
                let chunk = front.split_to(bytes);
                if front.is_empty() {
                    pipe.unsent.pop_front();
                }
                pipe.window_used += bytes;
                self.record(Kind::Send, from, bytes as u64, u64::from(crc32c::crc32c(&chunk)));
                pipe.in_flight.push_back(chunk);
            } else {
                // An empty chunk is the end of the stream.
                pipe.in_flight.push_back(Bytes::new());
                self.record(Kind::Finish, from, 0, id);
            }
            pipe.arrives_at = pipe.arrives_at.max(self.clock.now() + delay);
            let delay = pipe.arrives_at - self.clock.now();
            self.clock.schedule(delay, Action::Run(Box::new(move |world| world.arrive(id, side))));
        }
    }

    /// The oldest chunk that `side` sent has come to the other end, if the way is free.
    fn arrive(self: &Rc<World>, id: u64, side: Side) {
        let mut network = self.network.borrow_mut();
        let network = &mut *network;
        let Some(connection) = network.connections.get_mut(&id) else { return };
        let (from, to) = connection.route(side);
        if network.cuts.contains(&(from, to)) {
            return;
        }
        let receiver = connection.end(side.other()).state;
        let pipe = connection.sent_by(side);
        let Some(chunk) = pipe.in_flight.pop_front() else { return };
        self.record(Kind::Arrive, to, chunk.len() as u64, id);
        self.count(|counters| counters.network_bytes += chunk.len() as u64);
        match receiver {
            EndState::Open => {
                pipe.arrived.push_back(chunk);
                if let Some(reader) = pipe.reader.take() {
                    reader.wake();
                }
            }
            EndState::Shut if chunk.is_empty() => {}
            EndState::Closed if chunk.is_empty() => {}
            // Nobody will read it: the sender is told so.
            EndState::Shut | EndState::Closed => {
                pipe.window_used -= chunk.len();
                let delay = network.delay(to, from);
                self.schedule_reset(id, side, delay);
            }
            EndState::Reset => {}
        }
        network.forget_if_over(id);
    }

    fn schedule_reset(self: &Rc<World>, id: u64, side: Side, delay: u64) {
        self.clock.schedule(delay, Action::Run(Box::new(move |world| world.reset(id, side))));
    }

    /// A reset has come to the end `side`.
    fn reset(self: &Rc<World>, id: u64, side: Side) {
        let mut network = self.network.borrow_mut();
        let Some(connection) = network.connections.get_mut(&id) else { return };
        let (from, to) = connection.route(side.other());
        if network.is_cut(from, to) {
            drop(network);
            self.schedule_reset(id, side, RETRY_NANOS);
            return;
        }
        let connection = network.connections.get_mut(&id).expect("just found");
        let end = connection.end(side);
        if matches!(end.state, EndState::Open | EndState::Shut) {
            end.state = EndState::Reset;
            let node = end.node;
            self.record(Kind::Reset, node, 0, id);
            self.count(|counters| counters.resets += 1);
        }
        for pipe in &mut connection.pipes {
            pipe.forget_bytes();
            pipe.wake();
        }
        network.forget_if_over(id);
    }

    /// No handle of the end `side` is left: what it sent still goes out, then the stream ends.
    fn close_end(self: &Rc<World>, id: u64, side: Side) {
        let unread = {
            let mut network = self.network.borrow_mut();
            let Some(connection) = network.connections.get_mut(&id) else { return };
            let end = connection.end(side);
            if end.state == EndState::Reset {
                end.state = EndState::Closed;
                network.forget_if_over(id);
                return;
            }
            end.state = EndState::Closed;
            connection.sent_by(side).finishing = true;
            let incoming = connection.sent_by(side.other());
            incoming.arrived.drain(..).any(|chunk| !chunk.is_empty())
        };
        if unread {
            let delay = self.network.borrow_mut().delay_of(id, side);
            self.schedule_reset(id, side.other(), delay);
        }
        self.push(id, side);
        self.network.borrow_mut().forget_if_over(id);
    }

    /// Ends the sockets of a process. `silently`: its machine lost the power too.
    pub(super) fn end_sockets(self: &Rc<World>, process: &Process, silently: bool) {
        let (node, incarnation) = (process.node, process.incarnation);
        let mut closed = Vec::new();
        let mut abandoned = Vec::new();
        {
            let mut network = self.network.borrow_mut();
            network.listeners.retain(|&(at, _), listener| {
                let ours = at == node && listener.incarnation == incarnation;
                if ours {
                    abandoned.extend(listener.backlog.drain(..));
                }
                !ours
            });
            for (&id, connection) in &mut network.connections {
                for side in [Side::Client, Side::Server] {
                    let end = connection.end(side);
                    if end.node == node && end.incarnation == incarnation && end.state != EndState::Closed {
                        closed.push((id, side));
                    }
                }
            }
        }
        for (id, side) in closed {
            let resets = self.network.borrow_mut().random.coin();
            if silently || resets || abandoned.contains(&id) {
                self.vanish(id, side, silently);
            } else {
                self.close_end(id, side);
            }
        }
    }

    /// The end `side` is gone with all that it had not delivered; the other one is reset after a while.
    fn vanish(self: &Rc<World>, id: u64, side: Side, silently: bool) {
        let delay = {
            let mut network = self.network.borrow_mut();
            let network = &mut *network;
            let Some(connection) = network.connections.get_mut(&id) else { return };
            connection.end(side).state = EndState::Closed;
            connection.sent_by(side).forget_bytes();
            if silently { network.random.within(0..=SILENCE_NANOS_MAX) } else { network.delay_of(id, side) }
        };
        self.schedule_reset(id, side.other(), delay);
    }

    /// Cuts or heals the way of bytes from one node to another; the opposite way is a way of its own.
    pub(super) fn set_cut(self: &Rc<World>, from: NodeId, to: NodeId, cut: bool) {
        let mut held = Vec::new();
        {
            let mut network = self.network.borrow_mut();
            if cut {
                network.cuts.insert((from, to));
                return;
            }
            if !network.cuts.remove(&(from, to)) {
                return;
            }
            for (&id, connection) in &network.connections {
                for side in [Side::Client, Side::Server] {
                    if connection.route(side) == (from, to) {
                        held.extend(connection.pipes[side as usize].in_flight.iter().map(|_| (id, side)));
                    }
                }
            }
        }
        // Events of the time of the cut have passed without effect; those still to come find nothing left to do.
        for (id, side) in held {
            let delay = self.network.borrow_mut().options.delay_max;
            self.clock.schedule(delay, Action::Run(Box::new(move |world| world.arrive(id, side))));
        }
    }
}

impl Network {
    fn delay_of(&mut self, id: u64, side: Side) -> u64 {
        let Some(connection) = self.connections.get(&id) else { return 0 };
        let (from, to) = connection.route(side);
        self.delay(from, to)
    }

    /// Connections that are not over.
    #[cfg(test)]
    pub(super) fn open_connections(&self) -> usize {
        self.connections.len()
    }

    fn forget_if_over(&mut self, id: u64) {
        if self.connections.get(&id).is_some_and(Connection::is_over) {
            self.connections.remove(&id);
        }
    }
}
