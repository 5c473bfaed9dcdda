//! A thread beside the shards, and the listening sockets that it serves: for what blocks, or has an event loop of its own.
//!
//! It shares no core's data: what passes between it and a shard is atomic or `Send`. A panic on it is logged and aborts the
//! process, as one on a shard does: it has no state that could be trusted afterwards, a broker that cannot be looked into is
//! half a broker, and the release build aborts on every panic anyway.
//!
//! What this file does not do: it brings no event loop, and the simulator has no side threads.

use std::io;
pub use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::real::abort_if_this_thread_panics;
use super::{Duration, SocketAddr};

/// A thread that runs.
#[derive(Debug)]
pub struct SideThread(JoinHandle<()>);

/// Starts a thread of this name (at most 15 bytes are seen outside) that runs `body`.
///
/// # Errors
/// If the machine gives no thread.
pub fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<SideThread> {
    let run = move || {
        abort_if_this_thread_panics(Some("a side thread"));
        body();
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map(SideThread)
}

impl SideThread {
    /// Waits until it has returned. Blocks.
    pub fn join(self) {
        self.0.join().expect("a panic on a side thread aborts the process");
    }
}

/// A socket that listens on `address` and never blocks. It may be bound again at once after the process has ended
/// (SO_REUSEADDR), and never by two processes (no SO_REUSEPORT).
///
/// # Errors
/// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Holds the calling thread, which runs no shard, for `time`.
pub fn pause(time: Duration) {
    thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_side_thread_has_its_name_and_is_waited_for() {
        let (sender, told) = mpsc::channel();
        let thread = start("beside", move || {
            let name = thread::current().name().map(str::to_owned);
            sender.send(name).expect("somebody listens");
        });
        thread.expect("a thread").join();
        assert_eq!(told.recv().expect("it has run").as_deref(), Some("beside"));
    }

    #[test]
    fn a_port_is_one_listeners() {
        let first = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = first.local_addr().expect("bound");
        assert_eq!(listen(address).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        assert_eq!(first.accept().expect_err("nobody connects").kind(), io::ErrorKind::WouldBlock);
        drop(first);
        listen(address).expect("free again");
    }
}
