//! Metrics and health over HTTP, on a thread beside the shards.
//!
//! The thread is started before the shards, so that it can tell of a start that takes long, and ended after them, so that it
//! can tell of a drain. Whatever it answers it reads from memory that the shards write: no question reaches a shard, so a
//! stuck shard does not hold an answer up, and no asker slows a shard. There is no access control and no TLS: by default it is
//! reached from this machine alone, and nothing can be changed through it.
//!
//! | file | subject |
//! |---|---|
//! | `routes` | what is answered to which request |
//! | `http` | connections and their bounds |
//!
//! Only this module names the HTTP library and its event loop.

mod http;
mod routes;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::io;
use std::sync::Arc;

use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::broker::Status;
use crate::config::{AdminListener, BindHost};
use crate::runtime::side::{self, SideThread, TcpListener};
use crate::runtime::{Duration, IpAddr, SocketAddr, startup};

/// Tries to bind an address that is in use, and the pause between two: as long as the listeners of clients try it, for the
/// same reason, a broker before this one that is not quite gone.
const BUSY_TRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Why nothing is served.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The address cannot be bound or looked up.
    #[error("cannot listen on {address} (admin.listener): {source}")]
    Listen {
        /// What was to be bound.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// No thread, or no event loop for it.
    #[error("cannot start the admin thread: {0}")]
    Thread(#[source] io::Error),
}

impl AdminError {
    /// Whether an address is taken, or not this machine's.
    pub fn is_bind(&self) -> bool {
        matches!(self, AdminError::Listen { .. })
    }
}

/// A server that answers. Dropping it ends the server too, but does not wait for that.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    thread: SideThread,
}

impl Admin {
    /// Binds what `listener` names and answers from then on with what `status` shows. Blocks while the address is in use, two
    /// seconds at most.
    pub fn start(listener: &AdminListener, status: Arc<Status>) -> Result<Admin, AdminError> {
        let socket = bind_patiently(listener)?;
        let address = socket.local_addr().map_err(AdminError::Thread)?;
        let event_loop = Builder::new_current_thread().enable_io().enable_time().build().map_err(AdminError::Thread)?;
        let socket = {
            let _entered = event_loop.enter();
            tokio::net::TcpListener::from_std(socket).map_err(AdminError::Thread)?
        };
        let (end, ended) = oneshot::channel();
        let body = move || run(&event_loop, http::serve(socket, status), ended);
        let thread = side::start("admin", body).map_err(AdminError::Thread)?;
        Ok(Admin { address, end, thread })
    }

    /// Where it answers, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every socket and waits until the thread has returned.
    pub fn stop(self) {
        // It listens as long as it runs.
        let _ = self.end.send(());
        self.thread.join();
    }
}

/// Runs `serving` until told to end, or until whoever could tell is gone.
fn run(event_loop: &Runtime, serving: impl Future<Output = ()> + Send + 'static, ended: oneshot::Receiver<()>) {
    let serving = event_loop.spawn(serving);
    event_loop.block_on(async {
        let _ = ended.await;
    });
    serving.abort();
}

fn bind_patiently(listener: &AdminListener) -> Result<TcpListener, AdminError> {
    let addresses = addresses(listener)?;
    for tries_left in (0..BUSY_TRIES).rev() {
        match bind(&addresses) {
            Err((address, source)) if source.kind() != io::ErrorKind::AddrInUse || tries_left == 0 => {
                return Err(AdminError::Listen { address: address.to_string(), source });
            }
            Err((address, _)) => {
                if tries_left == BUSY_TRIES - 1 {
                    tracing::info!(%address, "the address is in use; it is tried again for 2 s");
                }
                side::pause(BUSY_PAUSE);
            }
            Ok(socket) => return Ok(socket),
        }
    }
    unreachable!("the last try returns")
}

/// The first of the addresses that can be bound; if none can, why the last one cannot.
fn bind(addresses: &[SocketAddr]) -> Result<TcpListener, (SocketAddr, io::Error)> {
    let mut outcome = None;
    for &address in addresses {
        match side::listen(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => outcome = Some((address, error)),
        }
    }
    Err(outcome.expect("there is an address"))
}

/// What `listener` names, in the order to be tried; at least one.
fn addresses(listener: &AdminListener) -> Result<Vec<SocketAddr>, AdminError> {
    let port = listener.port;
    let at = |address: IpAddr| SocketAddr::new(address, port);
    Ok(match &listener.host {
        BindHost::Localhost => vec![at(Ipv4Addr::LOCALHOST.into())],
        // The first one takes IPv4 too, where the machine has IPv6.
        BindHost::Every => vec![at(Ipv6Addr::UNSPECIFIED.into()), at(Ipv4Addr::UNSPECIFIED.into())],
        BindHost::Address(address) => vec![at(*address)],
        BindHost::Name(name) => startup::resolve(name, port)
            .map_err(|source| AdminError::Listen { address: format!("{name}:{port}"), source })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Phase;

    fn at(host: BindHost, port: u16) -> AdminListener {
        AdminListener { host, port }
    }

    fn start(listener: &AdminListener) -> Result<Admin, AdminError> {
        Admin::start(listener, Status::for_test(Phase::Serving, &[]))
    }

    #[test]
    fn a_stopped_server_leaves_its_port_free() {
        let first = start(&at(BindHost::Localhost, 0)).expect("a free port");
        assert!(first.address().ip().is_loopback() && first.address().port() != 0);
        let port = first.address().port();
        first.stop();
        start(&at(BindHost::Localhost, port)).expect("it is free").stop();
    }

    #[test]
    fn a_dropped_server_ends_too() {
        let dropped = start(&at(BindHost::Every, 0)).expect("a free port");
        let port = dropped.address().port();
        drop(dropped);
        // The thread needs a moment, for which the next one waits.
        start(&at(BindHost::Every, port)).expect("it is free soon").stop();
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_it() {
        let first = start(&at(BindHost::Localhost, 0)).expect("a free port");
        let error = start(&at(BindHost::Localhost, first.address().port())).expect_err("it is taken");
        assert!(error.is_bind() && error.to_string().contains(&first.address().to_string()), "{error}");
        first.stop();
        let elsewhere = BindHost::Address(Ipv4Addr::new(192, 0, 2, 1).into());
        assert!(start(&at(elsewhere, 0)).expect_err("not this machine's").is_bind());
    }
}
