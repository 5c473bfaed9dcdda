//! What a swarm finds out before it begins: the topic's partitions and leaders, addresses, and whether the machine's limits
//! allow for so many connections.
//!
//! Connection after connection goes to the next partition, and to its leader. Where the cluster is a single broker, they go to
//! the addresses of `--bootstrap-server` in turn instead, those that take connections: all of them are that broker, and each
//! gives another range of local ports, of which one address has some ten thousand.
//!
//! Sources: ip(7) (`ip_local_port_range`), getrlimit(2), proc(5) (`/proc/pid/limits`).

use std::net::SocketAddr;
use std::path::Path;

use corelane::runtime::wall_clock;
use corelane::types::Timestamp;
use corelane::wire::client::fetch::FETCH_MAX;
use corelane::wire::client::produce::PRODUCE_MAX;
use corelane::wire::messages::MetadataRequest;
use corelane::wire::{Api, ApiKey};
use rustix::process::{Resource, getrlimit};

use super::{Ask, SwarmOptions};
use crate::client::{Bootstrap, ClientError, Connection};
use crate::load::plan::Plan;

/// The last version of Metadata that names topics by their names.
pub(super) const METADATA_MAX: i16 = 9;
/// Descriptors of a process beside its connections: executors, rings, logs, files. A round number above what either process
/// was seen to have.
const OTHER_FILES: u64 = 200;

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct SwarmPlan {
    /// Topics, partitions, leaders, as of any run.
    pub load: Plan,
    /// Where connections go in turn; empty: to the leader of their partition.
    pub addresses: Vec<SocketAddr>,
    /// When it was made.
    pub made: Timestamp,
    /// What is asked, in which version.
    pub(super) api: Option<(Ask, Api)>,
}

impl SwarmPlan {
    /// Creates the topic, if that is asked for, and finds out the rest.
    pub(super) async fn make(options: &SwarmOptions) -> Result<SwarmPlan, ClientError> {
        let load = Plan::make(&options.load).await?;
        let bootstrap = &options.load.bootstrap;
        let connection = bootstrap.connect().await?;
        let mut nothing = MetadataRequest::default();
        nothing.topics = Some(Vec::new());
        let cluster = connection.send(ApiKey::Metadata, METADATA_MAX, &nothing)?.receive().await?;
        let addresses = if cluster.brokers.len() == 1 { open_addresses(bootstrap).await } else { Vec::new() };
        let api = match &options.requests {
            None => None,
            Some(requests) => Some((requests.ask, version(&connection, requests.ask)?)),
        };
        Ok(SwarmPlan { load, addresses, made: wall_clock(), api })
    }

    /// Where connection `number` goes, and which partition is its own.
    pub(super) fn place(&self, number: u32) -> (SocketAddr, usize) {
        let number = number as usize;
        let partition = number % self.load.partitions.len();
        let address = match self.addresses.len() {
            0 => self.load.partitions[partition].leader,
            count => self.addresses[number % count],
        };
        (address, partition)
    }

    /// Connections for the address that gets the most.
    fn most_per_address(&self, connections: u32) -> u64 {
        let mut counts = std::collections::HashMap::<SocketAddr, u64>::new();
        (0..connections).for_each(|number| *counts.entry(self.place(number).0).or_default() += 1);
        counts.into_values().max().unwrap_or(0)
    }

    /// Whether the machine allows for as many connections.
    pub(super) fn check_limits(&self, options: &SwarmOptions) -> Result<(), LimitError> {
        let needed = u64::from(options.connections) + OTHER_FILES;
        // The runtime raises the soft limit to the hard one.
        let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let broker = options.load.broker_pid.and_then(|pid| {
            let limits = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("limits")).ok()?;
            open_files(&limits)
        });
        for (whose, limit) in [("loadgen", Some(own)), ("the broker", broker)] {
            if let Some(limit) = limit.filter(|limit| *limit < needed) {
                return Err(LimitError::OpenFiles { whose, limit, needed });
            }
        }
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let most = self.most_per_address(options.connections);
        match local_ports(&range) {
            Some(ports) if ports < most => Err(LimitError::Ports { most, ports }),
            _ => Ok(()),
        }
    }
}

/// The addresses of a single broker that take connections.
async fn open_addresses(bootstrap: &Bootstrap) -> Vec<SocketAddr> {
    let mut open = Vec::new();
    for &address in bootstrap.addresses() {
        if Connection::open(address, &bootstrap.options).await.is_ok() {
            open.push(address);
        }
    }
    open
}

fn version(connection: &Connection, ask: Ask) -> Result<Api, ClientError> {
    match ask {
        Ask::Metadata => connection.api(ApiKey::Metadata, METADATA_MAX),
        Ask::Produce => connection.api(ApiKey::Produce, PRODUCE_MAX),
        Ask::Fetch => connection.api(ApiKey::Fetch, FETCH_MAX),
    }
}

/// More connections than the machine gives.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// RLIMIT_NOFILE of one of the processes.
    #[error(
        "{whose} may open {limit} files and needs {needed}: raise the limit (`ulimit -n {needed}` in the shell that starts \
         it, LimitNOFILE= of a systemd unit), or open fewer connections"
    )]
    OpenFiles {
        /// The process.
        whose: &'static str,
        /// Its limit.
        limit: u64,
        /// What it needs.
        needed: u64,
    },
    /// Local ports.
    #[error(
        "{most} connections to one address need as many local ports, and there are {ports}: name more addresses of the broker \
         (--bootstrap-server 127.0.0.1:9092,127.0.0.2:9092,… where it listens on 0.0.0.0), or widen \
         net.ipv4.ip_local_port_range"
    )]
    Ports {
        /// Connections to one address.
        most: u64,
        /// Ports of the range.
        ports: u64,
    },
}

/// The soft limit on open files in /proc/pid/limits; `None` where there is none.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// How many ports lie between the two of `ip_local_port_range`, both included.
fn local_ports(range: &str) -> Option<u64> {
    let mut ends = range.split_ascii_whitespace().map_while(|end| end.parse::<u64>().ok());
    let (first, last) = (ends.next()?, ends.next()?);
    (first <= last).then(|| last - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             95000                95000                processes \n\
                      Max open files            1024                 20000                files     \n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files            unlimited            unlimited            files\n"), None);
        assert_eq!(local_ports("32768\t60999\n"), Some(28_232));
        assert_eq!((local_ports(""), local_ports("60999 32768"), local_ports("x y")), (None, None, None));
    }
}
