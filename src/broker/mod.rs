//! The broker: from a configuration to served clients, and back to a clean stop.
//!
//! Start: the data directory is locked and checked, the metadata log replayed, the broker registered, every partition opened,
//! the listeners bound; only then the ready line. Stop: no new connections, every request that has arrived is answered, every
//! log is closed clean. What happens when in between lies in the modules below.
//!
//! | module | what it does |
//! |---|---|
//! | `start` | from shards that run to a broker that serves, and back |
//! | `data_directory` | whose directory it is and where things lie in it |
//! | `listeners`, `accept`, `admissions` | sockets, and which shard a connection goes to |
//! | `budgets` | the memory of a shard and who waits for it |
//! | `frames`, `connection`, `responses`, `writer` | requests as frames, order of answers |
//! | `router` | from a frame to the handler of its API |
//! | `produce`, `fetch`, `list_offsets`, `delete_records`, `init_producer_id` | one API of the data plane each |
//! | `offset_for_leader_epoch`, `describe_producers`, `describe_log_dirs` | the same, for what partitions say of themselves |
//! | `metadata`, `create_topics`, `create_partitions`, `delete_topics` | one API of the control plane each |
//! | `describe_cluster`, `describe_topic_partitions` | the same, for what the image alone says |
//! | `authorized_operations` | what a client may do, as answers say it |
//! | `fetch_sessions` | what clients fetch, and what they were told of it |
//! | `shard`, `first` | what the handlers of one core share, and what the first shard has beside |
//! | `mail`, `owners` | what shards ask each other, and which of them owns which partition |
//! | `describe_configs`, `alter_configs`, `incremental_alter_configs` | likewise |
//! | `configs` | the configuration in force, and its changes brought to partitions |
//! | `producer_ids` | ids from durably reserved blocks |
//! | `topics` | the cluster's image made true on disk |
//! | `status` | what others may know of the broker while it runs |
//! | `timing` | how long requests take |
//! | `upkeep` | retention, checkpoints and the removal of files, in the background |

mod accept;
mod admissions;
mod alter_configs;
mod authorized_operations;
mod budgets;
mod configs;
mod connection;
mod create_partitions;
mod create_topics;
mod data_directory;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod fetch;
mod fetch_sessions;
mod first;
mod frames;
mod incremental_alter_configs;
mod init_producer_id;
mod list_offsets;
mod listeners;
mod mail;
mod metadata;
mod offset_for_leader_epoch;
mod owners;
mod produce;
mod producer_ids;
mod responses;
mod router;
mod shard;
mod start;
mod status;
mod timing;
mod topics;
mod upkeep;
mod writer;

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::config::BrokerConfig;
use crate::quorum::{ProposeError, QuorumError};
use crate::runtime::SocketAddr;
use crate::types::{BrokerId, ClusterId, ShardId};

use admissions::Admissions;
pub use data_directory::{DataDirectory, DataDirectoryError};
pub use listeners::{ListenError, ListenerPlan};
use mail::BrokerMesh;
pub use status::{Phase, Status, StuckShard};

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
    Registration(String),
    /// An address cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A shard has no mailbox.
    #[error("shard {shard} cannot be reached by the others: {source}")]
    Mailbox {
        /// The shard.
        shard: ShardId,
        /// What the machine lacks.
        source: io::Error,
    },
    /// A shard does not answer the first one.
    #[error("shard {0} does not begin")]
    Silent(ShardId),
}

impl From<ProposeError> for StartError {
    fn from(error: ProposeError) -> StartError {
        StartError::Registration(error.to_string())
    }
}

/// A broker that serves, as its ready line tells it.
#[derive(Clone, Debug)]
pub struct Ready {
    /// This broker.
    pub node: BrokerId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its shards.
    pub shards: u16,
    /// The bound addresses.
    pub listening: Vec<SocketAddr>,
    /// Partitions that are led.
    pub partitions: usize,
    /// Partitions that had to be scanned.
    pub recovered: usize,
    /// From the start of the process's work to now.
    pub elapsed: core::time::Duration,
}

/// A broker, before its shards run and for all of them. Clones are the same.
#[derive(Clone)]
pub struct Broker {
    config: Arc<BrokerConfig>,
    plans: Arc<Vec<ListenerPlan>>,
    mesh: BrokerMesh,
    admissions: Admissions,
    status: Arc<Status>,
}

impl Broker {
    /// A broker of as many shards as `config` says, which listens by `plans`.
    pub fn new(config: BrokerConfig, plans: Vec<ListenerPlan>) -> Broker {
        let shards = config.shards;
        Broker {
            config: Arc::new(config),
            plans: Arc::new(plans),
            mesh: mail::mesh(shards),
            admissions: Admissions::new(shards),
            status: Status::new(),
        }
    }

    /// How many shards are to run.
    pub fn shards(&self) -> u16 {
        self.config.shards
    }

    /// What others may know of it while it runs.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Runs `shard` of the broker on the current one until the process is asked to end. Every shard of the broker must be
    /// run, each once. The first one calls `ready` once all serve.
    ///
    /// # Errors
    /// Why the broker does not start, on the first shard; the others end without one.
    pub async fn run(self, shard: ShardId, ready: impl FnOnce(&Ready)) -> Result<(), StartError> {
        start::run(self, shard, ready).await
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
