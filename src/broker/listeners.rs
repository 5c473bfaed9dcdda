//! Listeners: the sockets of the broker, and the address that clients of each are told.
//!
//! A [`ListenerPlan`] is made before the shards start, since looking names up blocks. `localhost` is 127.0.0.1 and, where the
//! machine has it, [::1], on the same port. A client is always told the address of the listener that it came in by.
//!
//! An address in use is tried again for two seconds, with one line in the log, before it is an error: the kernel takes the
//! ring of a killed broker apart after its process is gone, and until then an accept that was waiting there holds the socket.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::io;

use thiserror::Error;
use tracing::info;

use crate::config::{BindHost, Listener as ListenerConfig};
use crate::runtime::{Duration, Instant, IpAddr, Listener, SocketAddr, sleep, startup};

/// How long an address may be in use before that is an error: the start of a second broker on it takes this
/// much longer to fail.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
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
        let mut told = false;
        loop {
            match self.try_bind() {
                Err(busy) if busy.source.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    if !std::mem::replace(&mut told, true) {
                        info!(address = %busy.address, "the address is in use; it is tried again for 2 s");
                    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sim::{Simulation, SimulationOptions};
    use crate::runtime::{Class, spawn};
    use crate::types::ShardId;

    fn plan(address: IpAddr) -> ListenerPlan {
        let advertised_host = "a.host".to_string();
        ListenerPlan { addresses: vec![address], optional: None, port: 9092, advertised_host, advertised_port: None }
    }

    #[test]
    fn an_address_in_use_is_waited_for_with_a_bound() {
        let simulation = Simulation::new(1, SimulationOptions::default());
        let node = simulation.add_node(1);
        let plan = plan(simulation.address(node));
        let body = async move {
            let first = plan.bind().await.expect("a free address");
            assert_eq!((first.advertised.host.as_str(), first.advertised.port), ("a.host", 9092));
            let begun = Instant::now();
            let refused = plan.bind().await.err().expect("it is in use");
            assert_eq!(refused.source.kind(), io::ErrorKind::AddrInUse);
            let waited = Instant::now().since(begun);
            assert!(waited >= BUSY_PATIENCE && waited <= BUSY_PATIENCE + BUSY_PAUSE * 2, "{waited:?}");

            let begun = Instant::now();
            spawn(Class::Background, async move {
                sleep(Duration::from_secs(1)).await;
                drop(first);
            });
            plan.bind().await.expect("it is free again in time");
            assert!(Instant::now().since(begun) >= Duration::from_secs(1));
        };
        simulation.run_on(node, ShardId(0), body).expect("it is not stuck").expect("the process lives");
    }
}
