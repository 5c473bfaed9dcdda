//! The floor: a server with nothing between the sockets and the kernel but a ring.
//!
//! No executor, no tasks, no timers, nothing that a broker could do without: what it costs per request is what the shard's
//! requests are compared with. It uses the same ring flags, the same operations and one buffer per connection. It sends back
//! what it received, or for every request of a given length an answer of a given length.
//!
//! What this file does not do: it is not part of the broker; only measurements use it.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{IoUring, opcode, squeue, types};

const ENTRIES: u32 = 4096;
/// The lowest bits of `user_data` say what has completed, the others on which connection.
const KIND_BITS: u32 = 2;
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

/// What is sent back.
enum Reply {
    /// Every byte that came.
    Echo,
    /// For every `request_bytes` bytes that came, `answer_bytes` bytes of `content`, which goes round.
    Answer { request_bytes: usize, answer_bytes: usize, content: Box<[u8]> },
}

impl Reply {
    /// The bytes to send next, of `owed` bytes of which `sent` are sent; `received` is what an echo sends.
    fn rest<'a>(&'a self, received: &'a [u8], owed: usize, sent: usize) -> &'a [u8] {
        match self {
            Reply::Echo => &received[sent..owed],
            Reply::Answer { content, .. } => {
                let rest = &content[sent % content.len()..];
                &rest[..rest.len().min(owed - sent)]
            }
        }
    }
}

struct Connection {
    socket: OwnedFd,
    buffer: Box<[u8]>,
    /// Bytes of the request that has begun to come.
    begun: usize,
    /// Bytes to be sent before the next receive, and how many of them are sent.
    owed: usize,
    sent: usize,
}

impl Connection {
    fn receive(&mut self) -> squeue::Entry {
        let length = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        opcode::Recv::new(types::Fd(self.socket.as_raw_fd()), self.buffer.as_mut_ptr(), length).build()
    }

    fn send(&self, reply: &Reply) -> squeue::Entry {
        let rest = reply.rest(&self.buffer, self.owed, self.sent);
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        opcode::Send::new(types::Fd(self.socket.as_raw_fd()), rest.as_ptr(), length).flags(flags).build()
    }
}

/// The server: a listening socket and its connections. A connection that ended leaves its place empty.
struct Floor {
    ring: IoUring,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    buffer_bytes: usize,
    reply: Reply,
}

/// Sends every byte back to where it came from, on the calling thread, for ever. `ready` is told the bound address.
///
/// # Errors
/// Those of bind(2), io_uring_setup(2), io_uring_enter(2) and accept(2).
pub fn echo(address: SocketAddr, buffer_bytes: usize, ready: impl FnOnce(SocketAddr)) -> io::Result<Infallible> {
    serve(address, buffer_bytes, Reply::Echo, ready)
}

/// Sends `answer_bytes` bytes for every `request_bytes` bytes that come, both at least 1; else as [`echo`].
///
/// # Errors
/// As [`echo`].
pub fn answer(
    address: SocketAddr,
    buffer_bytes: usize,
    request_bytes: usize,
    answer_bytes: usize,
    ready: impl FnOnce(SocketAddr),
) -> io::Result<Infallible> {
    assert!(request_bytes > 0 && answer_bytes > 0);
    // Several answers in one send where several are owed, as a broker does it.
    let repeats = (buffer_bytes / answer_bytes).max(1);
    let content = vec![b'x'; answer_bytes * repeats].into_boxed_slice();
    let reply = Reply::Answer { request_bytes, answer_bytes, content };
    serve(address, buffer_bytes, reply, ready)
}

fn serve(
    address: SocketAddr,
    buffer_bytes: usize,
    reply: Reply,
    ready: impl FnOnce(SocketAddr),
) -> io::Result<Infallible> {
    let listener = TcpListener::bind(address)?;
    let ring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(2 * ENTRIES).build(ENTRIES)?;
    ready(listener.local_addr()?);
    Floor { ring, listener, connections: Vec::new(), buffer_bytes, reply }.run()
}

impl Floor {
    fn run(mut self) -> io::Result<Infallible> {
        self.accept()?;
        let mut completed = Vec::new();
        loop {
            self.ring.submit_and_wait(1)?;
            completed.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
            for (user_data, result) in completed.drain(..) {
                let connection = usize::try_from(user_data >> KIND_BITS).expect("an index");
                match user_data & ((1 << KIND_BITS) - 1) {
                    ACCEPT => self.accepted(result)?,
                    RECEIVE => self.received(connection, result)?,
                    _ => self.sent(connection, result)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let null = std::ptr::null_mut;
        let entry = opcode::Accept::new(types::Fd(self.listener.as_raw_fd()), null(), null().cast());
        self.push(entry.flags(libc::SOCK_CLOEXEC).build().user_data(ACCEPT))
    }

    fn accepted(&mut self, result: i32) -> io::Result<()> {
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        // SAFETY: just accepted, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        let one = 1_i32;
        let option = (&raw const one).cast();
        // SAFETY: reads one integer, whose length is given. Without the option the echo only comes later.
        unsafe { libc::setsockopt(result, libc::IPPROTO_TCP, libc::TCP_NODELAY, option, size_of::<i32>() as u32) };
        let buffer = vec![0; self.buffer_bytes].into_boxed_slice();
        self.connections.push(Some(Connection { socket, buffer, begun: 0, owed: 0, sent: 0 }));
        self.accept()?;
        self.go_on(self.connections.len() - 1, RECEIVE)
    }

    fn received(&mut self, index: usize, result: i32) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        match usize::try_from(result) {
            Ok(count @ 1..) => {
                connection.sent = 0;
                connection.owed = match &self.reply {
                    Reply::Echo => count,
                    Reply::Answer { request_bytes, answer_bytes, .. } => {
                        let came = connection.begun + count;
                        connection.begun = came % request_bytes;
                        came / request_bytes * answer_bytes
                    }
                };
                let next = if connection.owed > 0 { SEND } else { RECEIVE };
                self.go_on(index, next)
            }
            _ => {
                self.connections[index] = None;
                Ok(())
            }
        }
    }

    fn sent(&mut self, index: usize, result: i32) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let Ok(count) = usize::try_from(result) else {
            self.connections[index] = None;
            return Ok(());
        };
        connection.sent += count;
        let next = if connection.sent < connection.owed { SEND } else { RECEIVE };
        self.go_on(index, next)
    }

    /// Starts the connection's one operation.
    fn go_on(&mut self, index: usize, kind: u64) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let entry = if kind == SEND { connection.send(&self.reply) } else { connection.receive() };
        self.push(entry.user_data((index as u64) << KIND_BITS | kind))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: the entry points into the connection's boxed buffer, which stays until its one operation has completed, since a
        // connection is dropped only when that has, or into the reply, which stays as long as the ring.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| io::ErrorKind::ResourceBusy.into())
    }
}
