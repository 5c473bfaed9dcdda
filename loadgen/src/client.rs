//! A Kafka client of our own: connections, and the few calls that a run makes before and after its load.
//!
//! | module | what it does |
//! |---|---|
//! | [`connection`] | pipelined requests over one socket |
//! | [`transport`] | a socket, or memory in its place |
//! | this one | where partitions are, their ends, topics created and deleted, producer ids |
//!
//! Names of brokers are resolved before a run starts ([`Bootstrap::resolve`]): a broker must advertise an address, or a name
//! that `--bootstrap-server` has too. Nothing here retries but [`Bootstrap::connect`], which tries each address once.

use std::collections::HashMap;
use std::io;

use corelane::runtime::{IpAddr, SocketAddr, startup};
use corelane::types::{Offset, PartitionId, ProducerEpoch, ProducerId};
use corelane::wire::ApiKey;
use corelane::wire::client::ResponseError;
use corelane::wire::control::EncodeError;
use corelane::wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    DescribeConfigsResource, InitProducerIdRequest, ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
    MetadataRequest, MetadataRequestTopic, MetadataResponse, StrBytes, TopicName,
};

use crate::result::DurabilityClass;

pub mod connection;
pub mod transport;

pub use connection::{Connection, ConnectionOptions, Reply};

/// Milliseconds that a broker may take for creating or deleting topics: Kafka's default of its clients.
const ADMIN_TIMEOUT_MS: i32 = 30_000;
/// Kafka's code of a topic that exists already.
const TOPIC_ALREADY_EXISTS: i16 = 36;
/// The last versions that name topics by their names and whose fields are all that is needed here.
const METADATA_MAX: i16 = 9;
const CREATE_TOPICS_MAX: i16 = 7;
const DELETE_TOPICS_MAX: i16 = 5;
const LIST_OFFSETS_MAX: i16 = 7;
const INIT_PRODUCER_ID_MAX: i16 = 4;
const DESCRIBE_CONFIGS_MAX: i16 = 4;
/// The type of a topic among Kafka's resources.
const TOPIC_RESOURCE: i8 = 2;

/// Why a client cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A name without an address.
    #[error("cannot resolve {server:?}: {source}")]
    Resolve {
        /// What was to be resolved.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// No connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No connection in time.
    #[error("{0} does not answer")]
    Silent(SocketAddr),
    /// The connection broke, or was closed, before the answer.
    #[error("the connection to {0} is closed")]
    Closed(SocketAddr),
    /// An answer that makes no sense.
    #[error("{address}: {source}")]
    Answer {
        /// Whose.
        address: SocketAddr,
        /// What is wrong with it.
        source: ResponseError,
    },
    /// A request that cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An API that the broker does not speak in any version known here.
    #[error("the broker does not speak {} in a version known here", .0.name())]
    NotSpoken(ApiKey),
    /// An error of Kafka's.
    #[error("{what}: the broker answers error {code}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Kafka's code.
        code: i16,
    },
    /// An answer that does not tell what was asked.
    #[error("{what}: the broker's answer does not say")]
    Missing {
        /// What was asked for.
        what: String,
    },
    /// A broker that is named, not addressed, by a name that was not resolved at the start.
    #[error("the broker advertises {0:?}: no address, and not a name of --bootstrap-server")]
    Unresolved(String),
}

/// UNKNOWN_TOPIC_OR_PARTITION.
const UNKNOWN_TOPIC: i16 = 3;

/// Kafka's errors that pass by themselves: UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER,
/// REQUEST_TIMED_OUT, THROTTLING_QUOTA_EXCEEDED.
const PASSING: [i16; 5] = [3, 5, 6, 7, 89];

impl ClientError {
    /// Whether it is a broker's word that is true for a while only.
    pub fn passes(&self) -> bool {
        matches!(self, ClientError::Refused { code, .. } if PASSING.contains(code))
    }

    /// Whether a broker says that it knows no such topic.
    pub fn is_unknown_topic(&self) -> bool {
        matches!(self, ClientError::Refused { code: UNKNOWN_TOPIC, .. })
    }

    fn refused(what: String, code: i16) -> Result<(), ClientError> {
        if code == 0 { Ok(()) } else { Err(ClientError::Refused { what, code }) }
    }
}

/// Where to find a first broker, resolved.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    addresses: Vec<SocketAddr>,
    hosts: HashMap<String, IpAddr>,
    /// How connections are made.
    pub options: ConnectionOptions,
}

impl Bootstrap {
    /// Resolves `host:port,…`. Blocks: called before a shard runs.
    pub fn resolve(servers: &str, options: ConnectionOptions) -> Result<Bootstrap, ClientError> {
        let mut bootstrap = Bootstrap { addresses: Vec::new(), hosts: HashMap::new(), options };
        for server in servers.split(',') {
            let failed = |source| ClientError::Resolve { server: server.to_owned(), source };
            let pair = server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
            let (host, port) = pair.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
            let addresses = startup::resolve(host, port).map_err(failed)?;
            bootstrap.hosts.insert(host.to_owned(), addresses[0].ip());
            bootstrap.addresses.extend(addresses);
        }
        Ok(bootstrap)
    }

    /// A broker whose address is known.
    pub fn at(address: SocketAddr, options: ConnectionOptions) -> Bootstrap {
        Bootstrap { addresses: vec![address], hosts: HashMap::new(), options }
    }

    /// Where the brokers to begin with are, in their order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A connection to the first broker that takes one.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let mut first = None;
        for &address in &self.addresses {
            match Connection::open(address, &self.options).await {
                Ok(connection) => return Ok(connection),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.expect("there is an address"))
    }

    fn address(&self, host: &str, port: i32) -> Result<SocketAddr, ClientError> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let ip = bare.parse().ok().or_else(|| self.hosts.get(host).copied());
        let port = u16::try_from(port).ok();
        ip.zip(port).map(SocketAddr::from).ok_or_else(|| ClientError::Unresolved(format!("{host}:{port:?}")))
    }

    /// Where the leader of each partition of `topic` is, by partition.
    pub async fn leaders(&self, connection: &Connection, topic: &str) -> Result<Vec<SocketAddr>, ClientError> {
        let missing = || ClientError::Missing { what: format!("the leaders of {topic}") };
        let response = metadata(connection, Some(topic)).await?;
        let found = response.topics.first().ok_or_else(missing)?;
        ClientError::refused(format!("the metadata of {topic}"), found.error_code)?;
        let mut partitions: Vec<_> = found.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        let mut leaders = Vec::with_capacity(partitions.len());
        for (index, partition) in (0..).zip(partitions) {
            ClientError::refused(format!("partition {index} of {topic}"), partition.error_code)?;
            let broker = response.brokers.iter().find(|broker| broker.node_id == partition.leader_id);
            let broker = broker.filter(|_| partition.partition_index == index).ok_or_else(missing)?;
            leaders.push(self.address(&broker.host, broker.port)?);
        }
        if leaders.is_empty() { Err(missing()) } else { Ok(leaders) }
    }
}

async fn metadata(connection: &Connection, topic: Option<&str>) -> Result<MetadataResponse, ClientError> {
    let named = |name| {
        let mut topic = MetadataRequestTopic::default();
        topic.name = Some(topic_name(name));
        vec![topic]
    };
    let mut request = MetadataRequest::default();
    request.topics = topic.map(named);
    request.allow_auto_topic_creation = false;
    connection.send(ApiKey::Metadata, METADATA_MAX, &request)?.receive().await
}

/// Replicas of the first partition of `topic`.
pub async fn replicas(connection: &Connection, topic: &str) -> Result<usize, ClientError> {
    let response = metadata(connection, Some(topic)).await?;
    let first = response.topics.first().and_then(|topic| topic.partitions.first());
    Ok(first.map_or(0, |partition| partition.replica_nodes.len()))
}

/// The names of all topics.
pub async fn topics(connection: &Connection) -> Result<Vec<String>, ClientError> {
    let response = metadata(connection, None).await?;
    Ok(response.topics.iter().filter_map(|topic| Some(topic.name.as_ref()?.0.to_string())).collect())
}

/// A topic that is to be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// Replicas of each.
    pub replication_factor: i16,
    /// Its configuration, keys and values.
    pub configs: Vec<(String, String)>,
}

/// Creates a topic. `false` if there is one of that name.
pub async fn create_topic(connection: &Connection, topic: &NewTopic) -> Result<bool, ClientError> {
    let config = |(key, value): &(String, String)| {
        let mut config = CreatableTopicConfig::default();
        config.name = StrBytes::from_string(key.clone());
        config.value = Some(StrBytes::from_string(value.clone()));
        config
    };
    let mut creatable = CreatableTopic::default();
    creatable.name = topic_name(&topic.name);
    creatable.num_partitions = topic.partitions;
    creatable.replication_factor = topic.replication_factor;
    creatable.configs = topic.configs.iter().map(config).collect();
    let mut request = CreateTopicsRequest::default();
    request.topics = vec![creatable];
    request.timeout_ms = ADMIN_TIMEOUT_MS;
    let what = || format!("creating topic {}", topic.name);
    let response = connection.send(ApiKey::CreateTopics, CREATE_TOPICS_MAX, &request)?.receive().await?;
    let result = response.topics.first().ok_or_else(|| ClientError::Missing { what: what() })?;
    if result.error_code == TOPIC_ALREADY_EXISTS {
        return Ok(false);
    }
    ClientError::refused(what(), result.error_code).map(|()| true)
}

/// Deletes a topic.
pub async fn delete_topic(connection: &Connection, name: &str) -> Result<(), ClientError> {
    let mut request = DeleteTopicsRequest::default();
    request.topic_names = vec![topic_name(name)];
    request.timeout_ms = ADMIN_TIMEOUT_MS;
    let what = || format!("deleting topic {name}");
    let response = connection.send(ApiKey::DeleteTopics, DELETE_TOPICS_MAX, &request)?.receive().await?;
    let result = response.responses.first().ok_or_else(|| ClientError::Missing { what: what() })?;
    ClientError::refused(what(), result.error_code)
}

/// An end of a partition's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogEnd {
    /// The log start offset.
    Earliest,
    /// The high watermark.
    Latest,
}

/// Where a partition's log starts, or where what may be read ends.
pub async fn list_offset(
    connection: &Connection,
    topic: &str,
    partition: PartitionId,
    end: LogEnd,
) -> Result<Offset, ClientError> {
    let mut asked = ListOffsetsPartition::default();
    asked.partition_index = partition.value();
    asked.current_leader_epoch = -1;
    asked.timestamp = match end {
        LogEnd::Earliest => -2,
        LogEnd::Latest => -1,
    };
    let mut of_topic = ListOffsetsTopic::default();
    of_topic.name = topic_name(topic);
    of_topic.partitions = vec![asked];
    let mut request = ListOffsetsRequest::default();
    request.replica_id = (-1).into();
    request.topics = vec![of_topic];
    let what = || format!("the {end:?} offset of {topic}-{partition}");
    let response = connection.send(ApiKey::ListOffsets, LIST_OFFSETS_MAX, &request)?.receive().await?;
    let answer = response.topics.first().and_then(|topic| topic.partitions.first());
    let answer = answer.ok_or_else(|| ClientError::Missing { what: what() })?;
    ClientError::refused(what(), answer.error_code)?;
    Offset::new(answer.offset).ok_or_else(|| ClientError::Missing { what: what() })
}

/// What an acknowledgement of `topic` means, as far as its configuration tells: Corelane's `write.caching`, or Kafka's
/// `flush.messages`. A broker that has neither, or does not let itself be asked, tells nothing.
pub async fn durability_class(connection: &Connection, topic: &str) -> Result<DurabilityClass, ClientError> {
    let mut resource = DescribeConfigsResource::default();
    (resource.resource_type, resource.resource_name) = (TOPIC_RESOURCE, StrBytes::from_string(topic.to_owned()));
    let mut request = DescribeConfigsRequest::default();
    request.resources = vec![resource];
    let asked = match connection.send(ApiKey::DescribeConfigs, DESCRIBE_CONFIGS_MAX, &request) {
        Err(ClientError::NotSpoken(_)) => return Ok(DurabilityClass::Unknown),
        asked => asked?,
    };
    let response = asked.receive().await?;
    let configs = response.results.first().map(|result| &result.configs[..]).unwrap_or_default();
    let value =
        |name: &str| configs.iter().find(|config| &*config.name == name).and_then(|config| config.value.as_deref());
    Ok(match (value("write.caching"), value("flush.messages")) {
        (Some("false"), _) | (None, Some("1")) => DurabilityClass::C,
        (Some("true"), _) | (None, Some(_)) => DurabilityClass::B,
        _ => DurabilityClass::Unknown,
    })
}

/// A new producer id with its epoch, for an idempotent producer.
pub async fn producer_id(connection: &Connection) -> Result<(ProducerId, ProducerEpoch), ClientError> {
    let mut request = InitProducerIdRequest::default();
    // The codec's default is an empty name, which is no name at all.
    request.transactional_id = None;
    request.transaction_timeout_ms = ADMIN_TIMEOUT_MS;
    request.producer_id = (-1).into();
    request.producer_epoch = -1;
    let what = || "a producer id".to_owned();
    let response = connection.send(ApiKey::InitProducerId, INIT_PRODUCER_ID_MAX, &request)?.receive().await?;
    ClientError::refused(what(), response.error_code)?;
    let (id, epoch) = (ProducerId::new(response.producer_id.0), ProducerEpoch::new(response.producer_epoch));
    id.zip(epoch).ok_or_else(|| ClientError::Missing { what: what() })
}

/// A topic's name as the codec wants it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
