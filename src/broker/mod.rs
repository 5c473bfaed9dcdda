//! The broker: from a configuration to served clients, and back to a clean stop.
//!
//! Start: the data directory is locked and checked, the metadata log replayed, the broker registered, every partition opened,
//! the listeners bound; only then the ready line. Stop: no new connections, every request that has arrived is answered, every
//! log is closed clean. What happens when in between lies in the modules below.
//!
//! | module | what it does |
//! |---|---|
//! | `data_directory` | whose directory it is and where things lie in it |
//! | `listeners`, `frames`, `connection`, `responses` | sockets, requests as frames, order of answers |
//! | `router` | from a frame to the handler of its API |
//! | `produce`, `fetch`, `list_offsets`, `delete_records`, `init_producer_id` | one API of the data plane each |
//! | `metadata`, `create_topics`, `delete_topics` | one API of the control plane each |
//! | `producer_ids` | ids from durably reserved blocks |
//! | `shard` | what the handlers of one core share |
//! | `topics` | the cluster's image made true on disk |
//! | `upkeep` | retention, checkpoints and the removal of files, in the background |

mod connection;
mod create_topics;
mod data_directory;
mod delete_records;
mod delete_topics;
mod fetch;
mod frames;
mod init_producer_id;
mod list_offsets;
mod listeners;
mod metadata;
mod produce;
mod producer_ids;
mod responses;
mod router;
mod shard;
mod topics;
mod upkeep;

use std::rc::Rc;

use thiserror::Error;
use tracing::{error, info, warn};

use crate::config::BrokerConfig;
use crate::controller::{self, RegisterBroker};
use crate::partition::storage_options;
use crate::quorum::{ProposeError, Quorum, QuorumError, Start};
use crate::runtime::{Class, Instant, Listener, SocketAddr, random_u128, sleep, spawn, terminated, timeout};
use crate::storage::Storage;
use crate::types::{BrokerId, ClusterId, Incarnation};

use connection::Connection;
pub use data_directory::{DataDirectory, DataDirectoryError};
use listeners::{BoundListener, ListenerId};
pub use listeners::{ListenError, ListenerPlan};
use shard::{Parts, Shard};

/// How long an accept loop pauses when the process has no descriptors left.
const ACCEPT_PAUSE: core::time::Duration = core::time::Duration::from_millis(50);

/// Why a broker does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    /// The metadata log cannot be used.
    #[error(transparent)]
    Metadata(#[from] QuorumError),
    /// The broker could not be registered.
    #[error("the broker could not be registered: {0}")]
    Registration(#[from] ProposeError),
    /// An address cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// A broker that serves, as its ready line tells it.
#[derive(Clone, Debug)]
pub struct Ready {
    /// This broker.
    pub node: BrokerId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The bound addresses.
    pub listening: Vec<SocketAddr>,
    /// Partitions that are led.
    pub partitions: usize,
    /// Partitions that had to be scanned.
    pub recovered: usize,
    /// From the start of the process's work to now.
    pub elapsed: core::time::Duration,
}

/// Runs a broker on the current shard until it is asked to end, and calls `ready` once it serves.
pub async fn serve(
    config: BrokerConfig,
    plans: Vec<ListenerPlan>,
    ready: impl FnOnce(&Ready),
) -> Result<(), StartError> {
    let begun = Instant::now();
    let config = Rc::new(config);
    let data = DataDirectory::open(&config.data_dir, config.node_id).await?;
    let start = if data.is_new() { Start::New } else { Start::Existing };
    let (quorum, loaded) = Quorum::open(&data.metadata(), start).await?;
    info!(records = loaded.records, torn_bytes = loaded.torn_bytes, "metadata loaded");
    if data.is_new() {
        data.keep_identity().await?;
    }
    let mut listeners = Vec::with_capacity(plans.len());
    for plan in &plans {
        listeners.push(plan.bind().await?);
    }
    register(&quorum, config.node_id, &listeners).await?;
    let storage = Storage::new(storage_options(&config, 1));
    let endpoints = listeners.iter().map(|listener| listener.advertised.clone()).collect();
    let listening = listeners.iter().flat_map(|listener| &listener.sockets).map(Listener::local_address).collect();
    let shard = Shard::new(Parts { config, data, storage, quorum, endpoints });
    let opened = topics::open_all(&shard).await?;
    if opened.failed > 0 {
        error!(offline = opened.failed, "partitions are offline; the lines above say why");
    }
    upkeep::start(&shard);
    for (index, listener) in listeners.into_iter().enumerate() {
        for socket in listener.sockets {
            spawn(Class::Produce, accept(shard.clone(), socket, ListenerId(index)));
        }
    }
    info!(frame_bytes_max = shard.limits().frame_bytes_max, "serving");
    ready(&Ready {
        node: shard.node(),
        cluster: shard.cluster(),
        listening,
        partitions: opened.partitions,
        recovered: opened.recovered,
        elapsed: Instant::now().since(begun),
    });
    terminated().await;
    stop(&shard).await;
    Ok(())
}

async fn register(quorum: &Quorum, node: BrokerId, listeners: &[BoundListener]) -> Result<(), ProposeError> {
    let told = listeners.iter().map(|listener| controller::Listener {
        name: "PLAINTEXT".to_string(),
        host: listener.advertised.host.clone(),
        port: listener.advertised.port,
    });
    let request = RegisterBroker {
        broker: node,
        incarnation: Incarnation::from_random(random_u128()),
        listeners: told.collect(),
        clean_shutdown: None,
    };
    quorum.propose_with(move |controller| controller.register_broker(&request)).await.map(drop)
}

/// Takes connections in until the shard drains.
async fn accept(shard: Rc<Shard>, socket: Listener, listener: ListenerId) {
    loop {
        match socket.accept().await {
            Ok(_) if shard.is_draining() => return,
            Ok(stream) if shard.connections_len() >= shard.config().connections_max as usize => {
                warn!(peer = %stream.peer_address(), "connection refused: max.connections reached");
                stream.shutdown();
            }
            Ok(stream) => {
                let shard = shard.clone();
                spawn(Class::Produce, async move {
                    let connection = Rc::new(Connection::new(stream, listener));
                    let number = shard.connected(connection.clone());
                    connection.serve(shard.clone()).await;
                    shard.disconnected(number);
                });
            }
            Err(error) => {
                // No descriptors: those of ended connections come back.
                warn!(%error, "no connection can be accepted now");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers what has arrived, then closes every log clean.
async fn stop(shard: &Rc<Shard>) {
    info!("stopping");
    if timeout(shard.config().shutdown_timeout, shard.drain()).await.is_err() {
        warn!(connections = shard.connections_len(), "shutdown.timeout.ms is over; connections are cut");
    }
    upkeep::stop(shard);
    for partition in shard.partitions() {
        if let Err(error) = partition.log().clone().close().await {
            let (topic, index) = (partition.topic(), partition.id().partition);
            error!(%topic, partition = %index, %error, "the log is not closed clean");
        }
    }
    if let Err(error) = shard.quorum.close().await {
        error!(%error, "the metadata log is not closed clean");
    }
}

impl StartError {
    /// Whether an address is taken, or not this machine's.
    pub fn is_bind(&self) -> bool {
        matches!(self, StartError::Listen(_))
    }

    /// Whether the metadata are damaged, as against unreadable.
    pub fn is_corrupt_metadata(&self) -> bool {
        matches!(self, StartError::Metadata(error) if error.is_corruption())
    }
}
