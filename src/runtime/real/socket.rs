//! TCP sockets on the ring.
//!
//! Sockets are blocking ones: io_uring polls by itself and would answer EAGAIN for non-blocking ones. Options are set on the
//! listening socket, whose connections inherit them (tcp(7), socket(7)), so that accepting costs no further calls for them.
//! A send goes out whole: MSG_WAITALL lets the kernel continue a short one, and what is short after all is continued here.
//!
//! An accept belongs to its listener, not to the future that waits: a future that is dropped leaves it under way, and the
//! connection to the next one.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;

use io_uring::{opcode, squeue};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::descriptor::Descriptor;
use super::file::TRANSFER_BYTES_MAX;
use super::operation::{Memory, Operation};
use super::ring::Ring;
use super::slot::{Completion, Held, Orphan};
use crate::runtime::Duration;
use crate::runtime::memory::{Buffer, Slice};
use crate::types::Piece;

/// Connections that wait to be accepted at most; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// How long a connection is silent before the kernel asks the peer whether it is there, how long between questions, and how
/// many of them: a peer that vanished is noticed after two minutes.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_PROBES: u32 = 6;

/// An IPv4 or IPv6 socket for TCP, with the options that all of ours have.
fn new_socket(address: &SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_IDLE)
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_PROBES);
    socket.set_tcp_keepalive(&keep_alive)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// A listening socket.
pub(crate) struct Listener {
    ring: Rc<Ring>,
    descriptor: Rc<Descriptor>,
    address: SocketAddr,
    /// The accept under way.
    pending: RefCell<Option<Operation>>,
    accepting: Cell<bool>,
}

impl Listener {
    pub(super) fn bind(ring: &Rc<Ring>, address: SocketAddr) -> io::Result<Listener> {
        let listener = new_socket(&address)?;
        // A restart finds its port in TIME_WAIT. Two brokers on one port would be another matter: no SO_REUSEPORT.
        listener.set_reuse_address(true)?;
        if address.is_ipv6() {
            // [::] leaves 0.0.0.0 to a socket of its own, whatever the system's bindv6only says.
            listener.set_only_v6(true)?;
        }
        listener.bind(&address.into())?;
        listener.listen(BACKLOG)?;
        let listener = TcpListener::from(listener);
        let address = listener.local_addr()?;
        let descriptor = Rc::new(Descriptor::socket(listener.into()));
        let (pending, accepting) = (RefCell::new(None), Cell::new(false));
        Ok(Listener { ring: ring.clone(), descriptor, address, pending, accepting })
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// See the facade. One task at a time accepts.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        let _turn = AcceptTurn::take(&self.accepting);
        loop {
            let completion = poll_fn(|context| {
                let mut pending = self.pending.borrow_mut();
                let operation = pending.get_or_insert_with(|| self.start_accept());
                Pin::new(operation).poll(context)
            })
            .await;
            self.pending.replace(None);
            match completion.count() {
                Ok(_) => {
                    // SAFETY: the operation has just made this descriptor, and nobody else knows it.
                    let fd = unsafe { OwnedFd::from_raw_fd(completion.result) };
                    // A peer that has gone already has no address: not worth a word.
                    if let Ok(stream) = Stream::new(&self.ring, TcpStream::from(fd)) {
                        return Ok(stream);
                    }
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn start_accept(&self) -> Operation {
        let null = std::ptr::null_mut;
        let entry =
            opcode::Accept::new(self.descriptor.target(), null(), null().cast()).flags(libc::SOCK_CLOEXEC).build();
        let held =
            Held { descriptor: Some(self.descriptor.clone()), memory: Memory::Nothing, orphan: Orphan::CancelOrClose };
        // SAFETY: the entry has no addresses.
        unsafe { self.ring.start(entry, held) }
    }
}

/// Keeps a second task from waiting beside the first, whose wake-up it would take.
struct AcceptTurn<'a>(&'a Cell<bool>);

impl AcceptTurn<'_> {
    fn take(accepting: &Cell<bool>) -> AcceptTurn<'_> {
        assert!(!accepting.replace(true), "one task at a time accepts from a listener");
        AcceptTurn(accepting)
    }
}

impl Drop for AcceptTurn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Whether an error of accept(2) is about a connection that failed while it waited (its ERRORS and NOTES).
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EAGAIN
                | libc::EPERM
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
        )
    )
}

/// A connection that is bound to no ring.
pub(crate) struct DetachedStream {
    fd: OwnedFd,
    peer: SocketAddr,
    local: SocketAddr,
}

impl DetachedStream {
    pub(crate) fn peer_address(&self) -> SocketAddr {
        self.peer
    }
}

/// A connection. Clones share the descriptor.
#[derive(Clone)]
pub(crate) struct Stream {
    ring: Rc<Ring>,
    descriptor: Rc<Descriptor>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Stream {
    fn new(ring: &Rc<Ring>, socket: TcpStream) -> io::Result<Stream> {
        let (peer, local) = (socket.peer_addr()?, socket.local_addr()?);
        let descriptor = Rc::new(Descriptor::socket(socket.into()));
        Ok(Stream { ring: ring.clone(), descriptor, peer, local })
    }

    pub(super) async fn connect(ring: &Rc<Ring>, address: SocketAddr) -> io::Result<Stream> {
        let descriptor = Rc::new(Descriptor::socket(new_socket(&address)?.into()));
        let address = Box::new(SockAddr::from(address));
        let entry = opcode::Connect::new(descriptor.target(), address.as_ptr().cast(), address.len()).build();
        let memory = Memory::Address { _address: address };
        let held = Held { descriptor: Some(descriptor.clone()), memory, orphan: Orphan::Cancel };
        // SAFETY: the entry points to the boxed address, which is held.
        let completion = unsafe { ring.start(entry, held) }.await;
        completion.count()?;
        drop(completion);
        let (peer, local) = addresses(&descriptor)?;
        Ok(Stream { ring: ring.clone(), descriptor, peer, local })
    }

    pub(super) fn attach(ring: &Rc<Ring>, detached: DetachedStream) -> Stream {
        let DetachedStream { fd, peer, local } = detached;
        Stream { ring: ring.clone(), descriptor: Rc::new(Descriptor::socket(fd)), peer, local }
    }

    /// See the facade.
    pub(crate) fn detach(self) -> DetachedStream {
        let Stream { descriptor, peer, local, .. } = self;
        let descriptor = Rc::into_inner(descriptor).expect("nobody else holds it, and nothing is under way on it");
        DetachedStream { fd: descriptor.into_fd(), peer, local }
    }

    pub(crate) fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Runs an operation that ends when the peer does something, or never.
    async fn run(&self, entry: squeue::Entry, memory: Memory) -> Completion {
        let held = Held { descriptor: Some(self.descriptor.clone()), memory, orphan: Orphan::Cancel };
        // SAFETY: the callers below point their entries into `memory`, whose variants lie on the heap.
        unsafe { self.ring.start(entry, held) }.await
    }

    /// See the facade.
    pub(crate) async fn receive(&self, mut buffer: Buffer) -> (io::Result<usize>, Buffer) {
        loop {
            let room = buffer.spare();
            let length = u32::try_from(room.len()).unwrap_or(TRANSFER_BYTES_MAX);
            let entry = opcode::Recv::new(self.descriptor.target(), room.as_mut_ptr(), length).build();
            let completion = self.run(entry, Memory::Buffer(buffer)).await;
            let result = completion.count();
            buffer = completion.into_buffer();
            match result {
                Ok(count) => {
                    buffer.advance(count);
                    return (Ok(count), buffer);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
            }
        }
    }

    /// See the facade.
    pub(crate) async fn send(&self, pieces: Vec<Piece<Slice>>) -> (io::Result<()>, Vec<Piece<Slice>>) {
        let mut transfer = self.ring.take_transfer();
        transfer.load_pieces(pieces);
        let mut outcome = Ok(());
        while outcome.is_ok() && !transfer.is_done() {
            let entry = transfer.send(self.descriptor.target());
            let completion = self.run(entry, Memory::Transfer(transfer)).await;
            let result = completion.count();
            transfer = completion.into_transfer();
            match result {
                Ok(0) => outcome = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => transfer.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => outcome = Err(error),
            }
        }
        let pieces = transfer.take_pieces();
        self.ring.give_transfer(transfer);
        (outcome, pieces)
    }

    /// See the facade. A socket that is no longer connected is shut down already.
    pub(crate) fn shutdown(&self) {
        // SAFETY: takes two integers; the descriptor is open.
        unsafe { libc::shutdown(self.descriptor.raw(), libc::SHUT_RDWR) };
    }
}

/// The peer's and our own address of a connected socket.
fn addresses(descriptor: &Descriptor) -> io::Result<(SocketAddr, SocketAddr)> {
    // SAFETY: borrowed for these two calls only: forgetting it keeps the descriptor open.
    let socket = std::mem::ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(descriptor.raw()) });
    Ok((socket.peer_addr()?, socket.local_addr()?))
}
