//! Listeners: the sockets of the broker, and the address that clients of each are told.
//!
//! A [`ListenerPlan`] is made before the shards start, since looking names up blocks. `localhost` is 127.0.0.1 and, where the
//! machine has it, [::1], on the same port. A client is always told the address of the listener that it came in by.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::io;

use thiserror::Error;

use crate::config::{BindHost, Listener as ListenerConfig};
use crate::runtime::{Duration, Instant, IpAddr, Listener, SocketAddr, sleep, startup};

/// How long an address may be in use before that is an error: the kernel takes the ring of a killed broker apart after its
/// process is gone, and until then an accept that was waiting there holds the socket.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// The index of a listener in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ListenerId(pub(super) usize);

/// Where one listener binds.
#[derive(Clone, Debug)]
pub struct ListenerPlan {
    /// Must be bound.
    addresses: Vec<IpAddr>,
    /// Bound where the machine has it.
    optional: Option<IpAddr>,
    port: u16,
    advertised_host: String,
    advertised_port: Option<u16>,
}

/// An address cannot be bound or looked up.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// What was to be bound.
    pub address: String,
    /// The system's answer.
    pub source: io::Error,
}

impl ListenerPlan {
    /// Looks up what `listener` names. Blocks.
    pub fn new(listener: &ListenerConfig) -> Result<ListenerPlan, ListenError> {
        let v6_any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let (addresses, optional) = match &listener.host {
            BindHost::Localhost => (vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], Some(IpAddr::V6(Ipv6Addr::LOCALHOST))),
            BindHost::Every => (vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)], Some(v6_any)),
            BindHost::Address(address) => (vec![*address], None),
            BindHost::Name(name) => {
                let found = startup::resolve(name, listener.port)
                    .map_err(|source| ListenError { address: format!("{name}:{}", listener.port), source })?;
                (found.iter().map(SocketAddr::ip).collect(), None)
            }
        };
        Ok(ListenerPlan {
            addresses,
            optional,
            port: listener.port,
            advertised_host: listener.advertised.host.clone(),
            advertised_port: listener.advertised.port,
        })
    }

    /// Binds every address of the plan. An address in use is tried again for [`BUSY_PATIENCE`].
    pub(super) async fn bind(&self) -> Result<BoundListener, ListenError> {
        let deadline = Instant::now().plus(BUSY_PATIENCE);
        loop {
            match self.try_bind() {
                Err(busy) if busy.source.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    sleep(BUSY_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn try_bind(&self) -> Result<BoundListener, ListenError> {
        let mut sockets: Vec<Listener> = Vec::new();
        let optional = self.optional.map(|address| (address, true));
        for (address, may_fail) in self.addresses.iter().map(|&address| (address, false)).chain(optional) {
            // All addresses share one port: the one that the first got.
            let port = sockets.first().map_or(self.port, |first| first.local_address().port());
            let address = SocketAddr::new(address, port);
            match Listener::bind(address) {
                Ok(socket) => sockets.push(socket),
                Err(error) if may_fail && is_absent(&error) => {}
                Err(source) => return Err(ListenError { address: address.to_string(), source }),
            }
        }
        let port = sockets.first().map_or(self.port, |first| first.local_address().port());
        Ok(BoundListener {
            sockets,
            advertised: Endpoint { host: self.advertised_host.clone(), port: self.advertised_port.unwrap_or(port) },
        })
    }
}

/// The machine does not have this address at all.
fn is_absent(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// A listener that clients can connect to.
pub(super) struct BoundListener {
    pub(super) sockets: Vec<Listener>,
    pub(super) advertised: Endpoint,
}

/// An address as clients are told it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}
