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
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;

use io_uring::{opcode, squeue};

use super::descriptor::Descriptor;
use super::file::TRANSFER_BYTES_MAX;
use super::operation::{Memory, Operation};
use super::ring::Ring;
use super::slot::{Completion, Held, Orphan};
use crate::runtime::memory::{Buffer, Slice};
use crate::types::Piece;

/// Connections that wait to be accepted at most; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Seconds without traffic before the kernel asks a peer whether it is there, between questions, and questions in all: a peer
/// that vanished is noticed after two minutes.
const KEEP_ALIVE_IDLE_S: i32 = 60;
const KEEP_ALIVE_INTERVAL_S: i32 = 10;
const KEEP_ALIVE_PROBES: i32 = 6;

fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: reads one integer, whose length is given.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_options(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, KEEP_ALIVE_PROBES)
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
        // Sets SO_REUSEADDR, without which a restart finds its port in TIME_WAIT, and not SO_REUSEPORT.
        let listener = TcpListener::bind(address)?;
        set_options(listener.as_raw_fd())?;
        // SAFETY: takes two integers; listening again sets a new backlog.
        if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } != 0 {
            return Err(io::Error::last_os_error());
        }
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
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: takes three integers.
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else knows it.
        let descriptor = Rc::new(Descriptor::socket(unsafe { OwnedFd::from_raw_fd(fd) }));
        set_options(fd)?;
        let (address, length) = encode_address(address);
        let entry = opcode::Connect::new(descriptor.target(), (&raw const *address).cast(), length).build();
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

/// The address as connect(2) reads it, and its length.
fn encode_address(address: SocketAddr) -> (Box<libc::sockaddr_storage>, libc::socklen_t) {
    // SAFETY: a C struct of integers, for which all zeros is a value.
    let mut storage: Box<libc::sockaddr_storage> = Box::new(unsafe { std::mem::zeroed() });
    let length = match address {
        SocketAddr::V4(address) => {
            let encoded = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is large enough and aligned for every kind of address.
            unsafe { (&raw mut *storage).cast::<libc::sockaddr_in>().write(encoded) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let encoded = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut *storage).cast::<libc::sockaddr_in6>().write(encoded) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}
