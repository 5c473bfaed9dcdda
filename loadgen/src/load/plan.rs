//! What a run finds out before it begins: topics made, leaders, where logs end, producer ids, what an ack is worth.
//!
//! It is made once, on a shard of its own, and then read by every thread of load. Partitions of all topics are numbered through
//! from 0; that number is the one in stamps.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use corelane::runtime::{Duration, random_u64, sleep};
use corelane::types::{Offset, PartitionId, ProducerEpoch, ProducerId};

use super::options::{ConsumerOptions, LoadOptions, StartAt, TopicOptions};
use crate::client::{self, ClientError, Connection, LogEnd, NewTopic, create_topic, list_offset, producer_id};
use crate::result::{DurabilityClass, Target};
use crate::stamp::RunId;

/// How often brokers are asked again that have just made a topic, and how long it takes until then: ten seconds in all.
const ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// A partition of a run.
#[derive(Clone, Debug)]
pub struct PlannedPartition {
    /// The index of its topic in [`Plan::topics`].
    pub topic: usize,
    /// Its number in the topic.
    pub index: i32,
    /// Where its leader is.
    pub leader: SocketAddr,
    /// Where consumers begin.
    pub start: Offset,
    /// Where the log ended when the run began.
    pub end: Offset,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The run.
    pub run: RunId,
    /// The topics' names.
    pub topics: Vec<Arc<str>>,
    /// All partitions, topic by topic.
    pub partitions: Vec<PlannedPartition>,
    /// The id of each producer, with idempotence.
    pub producer_ids: Vec<Option<(ProducerId, ProducerEpoch)>>,
    /// Replicas of the first partition.
    pub replication_factor: usize,
    /// What an acknowledgement means, as far as the broker tells.
    pub class: DurabilityClass,
}

impl Plan {
    /// Creates the topics, if that is asked for, and finds out the rest.
    pub async fn make(options: &LoadOptions) -> Result<Plan, ClientError> {
        let connection = options.bootstrap.connect().await?;
        create_topics(&connection, &options.topics).await?;
        let mut partitions = Vec::new();
        for (topic, name) in options.topics.names.iter().enumerate() {
            // A topic that nobody has just made does not come by waiting.
            let comes = |error: &ClientError| options.topics.create.is_some() || !error.is_unknown_topic();
            let leaders = patiently(comes, async || options.bootstrap.leaders(&connection, name).await).await?;
            for (index, leader) in (0..).zip(leaders) {
                let (start, end) = (Offset::ZERO, Offset::ZERO);
                partitions.push(PlannedPartition { topic, index, leader, start, end });
            }
        }
        if let Some(consumers) = &options.consumers {
            find_ends(options, consumers, &mut partitions).await?;
        }
        let mut producer_ids = Vec::new();
        if let Some(producers) = &options.producers {
            for _ in 0..producers.count {
                producer_ids.push(if producers.idempotence { Some(producer_id(&connection).await?) } else { None });
            }
        }
        let first = &options.topics.names[0];
        let class = client::durability_class(&connection, first).await?;
        let replication_factor = client::replicas(&connection, first).await?;
        let topics = options.topics.names.iter().map(|name| Arc::from(name.as_str())).collect();
        Ok(Plan { run: RunId(random_u64()), topics, partitions, producer_ids, replication_factor, class })
    }

    /// The number of a partition in the plan.
    pub fn number_of(&self, topic: &str, index: i32) -> Option<usize> {
        let of_topic = self.topics.iter().position(|name| **name == *topic)?;
        let own = self.partitions_of(of_topic);
        own.start.checked_add(usize::try_from(index).ok()?).filter(|number| own.contains(number))
    }

    /// The partitions of a topic.
    pub fn partitions_of(&self, topic: usize) -> Range<usize> {
        let first = |topic| self.partitions.partition_point(|partition| partition.topic < topic);
        first(topic)..first(topic + 1)
    }

    /// The target as results name it.
    pub fn target(&self, bootstrap: &str) -> Target {
        Target {
            bootstrap: bootstrap.to_owned(),
            topics: self.topics.iter().map(|topic| topic.to_string()).collect(),
            partitions: self.partitions.len(),
            replication_factor: self.replication_factor,
        }
    }
}

async fn create_topics(connection: &Connection, topics: &TopicOptions) -> Result<(), ClientError> {
    let Some(shape) = &topics.create else { return Ok(()) };
    for name in &topics.names {
        let new = NewTopic {
            name: name.clone(),
            partitions: shape.partitions,
            replication_factor: shape.replication_factor,
            configs: shape.configs.clone(),
        };
        create_topic(connection, &new).await?;
    }
    Ok(())
}

/// Asks again while the answer is one that passes, unless `comes` knows better: topics that were made a moment ago have no
/// leaders yet, or leaders that do not know it yet.
async fn patiently<T>(
    comes: impl Fn(&ClientError) -> bool,
    mut ask: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    for _ in 1..ATTEMPTS {
        match ask().await {
            Err(error) if error.passes() && comes(&error) => sleep(PAUSE).await,
            result => return result,
        }
    }
    ask().await
}

/// Fills in where the logs begin and end for consumers.
async fn find_ends(
    options: &LoadOptions,
    consumers: &ConsumerOptions,
    partitions: &mut [PlannedPartition],
) -> Result<(), ClientError> {
    let mut connections: Vec<Connection> = Vec::new();
    for partition in partitions {
        let known = connections.iter().find(|connection| connection.address() == partition.leader).cloned();
        let connection = match known {
            Some(connection) => connection,
            None => {
                let connection = Connection::open(partition.leader, &options.bootstrap.options).await?;
                connections.push(connection.clone());
                connection
            }
        };
        let topic = &options.topics.names[partition.topic];
        let id = PartitionId::new(partition.index).expect("not negative");
        let connection = &connection;
        let ask = |end| patiently(|_| true, async move || list_offset(connection, topic, id, end).await);
        partition.end = ask(LogEnd::Latest).await?;
        partition.start = match consumers.from {
            StartAt::Latest => partition.end,
            StartAt::Earliest => ask(LogEnd::Earliest).await?,
        };
    }
    Ok(())
}
