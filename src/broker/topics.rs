//! What the cluster's image says of topics, made true on this broker's disk.
//!
//! Creation: metadata first, directory second; a partition whose directory is missing at start gets one. Deletion: a tombstone
//! in the metadata first, then the partition serves no more, its directory moves to `trash`, and the tombstone ends when
//! nothing of the topic lies in its place any more. So a crash at any point leaves a state that the next start finishes.
//!
//! A directory that neither a topic nor a tombstone explains is moved to `lost` for a person to look at, never deleted.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use thiserror::Error;
use tracing::{error, info, warn};

use super::configs;
use super::data_directory::{DataDirectoryError, PartitionDirectory};
use super::shard::Shard;
use crate::config::TopicConfig;
use crate::controller::{
    CreateTopic, CreateTopicError, CreateTopics, CreatedTopic, DeleteTopic, DeletedTopic, DeletedTopicResult, Topic,
    TopicRules,
};
use crate::partition::{Partition, log_options};
use crate::quorum::ProposeError;
use crate::runtime::directory;
use crate::runtime::{Class, Duration, Task, random_u128, spawn, timeout};
use crate::storage::{Log, OpenError, RecoveryCase};
use crate::types::{ErrorCode, PartitionId, ShardId, TopicId, TopicName, TopicPartition};

/// Partitions of one topic at most. Each costs a directory, a segment and about 10 KiB of memory.
const TOPIC_PARTITIONS_MAX: usize = 100_000;
/// Partitions of the cluster at most.
const CLUSTER_PARTITIONS_MAX: usize = 1_000_000;
/// Partitions that are opened at a time: enough to keep the disk busy with their scans.
const OPENING_MAX: usize = 32;

/// What became of a topic that was to be created, by the name in the request.
pub(super) type Creation = (String, Result<CreatedTopic, CreateTopicError>);

/// What a client is told that has waited for less time than new partitions take.
pub(super) const STILL_MADE: &str = "committed; the partitions are still being made and can be used soon";

/// Partitions that wait to be opened.
type OpenQueue = Rc<RefCell<Vec<(Arc<Topic>, PartitionId)>>>;

/// Why a partition cannot be served.
#[derive(Debug, Error)]
pub(super) enum TopicError {
    #[error(transparent)]
    Directory(#[from] DataDirectoryError),
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error("the topic's configuration: {0}")]
    Config(String),
}

/// What a start found.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Opened {
    pub(super) partitions: usize,
    /// Partitions that had to be scanned because the last stop was not clean.
    pub(super) recovered: usize,
    pub(super) failed: usize,
}

impl Opened {
    /// What two starts found together.
    fn and(self, other: Opened) -> Opened {
        Opened {
            partitions: self.partitions + other.partitions,
            recovered: self.recovered + other.recovered,
            failed: self.failed + other.failed,
        }
    }
}

/// The code that a client is answered with when its change is not committed.
pub(super) fn propose_error_code(error: &ProposeError) -> ErrorCode {
    match error {
        ProposeError::TooLarge { .. } => ErrorCode::PolicyViolation,
        ProposeError::Full { .. } | ProposeError::Closed { .. } => ErrorCode::KafkaStorageError,
        ProposeError::Unfit(_) => ErrorCode::UnknownServerError,
    }
}

/// What new topics are measured by.
pub(super) fn rules(shard: &Shard) -> TopicRules {
    TopicRules {
        partitions_default: shard.config().partitions_default,
        replication_factor_default: shard.config().replication_factor_default,
        topic_partitions_max: TOPIC_PARTITIONS_MAX,
        cluster_partitions_max: CLUSTER_PARTITIONS_MAX,
    }
}

/// Whether a topic may set this key to this value.
pub(super) fn check_config(shard: &Shard, key: &str, value: &str) -> Result<(), String> {
    shard.config().topic([(key, value)]).map(drop).map_err(|error| error.to_string())
}

/// Opens every partition of the image that lies on this broker, each on the shard that owns it, and puts right what an
/// interrupted change left behind. On the first shard.
pub(super) async fn open_all(shard: &Rc<Shard>) -> Result<Opened, DataDirectoryError> {
    sort_out(shard).await?;
    let opened = shard.call_all(|shard| async move {
        let image = shard.image();
        let wanted = image.topics().flat_map(|topic| missing(&shard, topic)).collect();
        open_concurrently(&shard, wanted).await
    });
    Ok(opened.await.into_iter().fold(Opened::default(), Opened::and))
}

/// The partitions of a topic that belong on this shard and are not served yet.
fn missing(shard: &Shard, topic: &Arc<Topic>) -> Vec<(Arc<Topic>, PartitionId)> {
    let is_missing = |index| {
        let at = TopicPartition { topic: topic.id, partition: index };
        shard.owner(at) == Ok(shard.id()) && !shard.serves(at.topic, at.partition)
    };
    let here = topic.partitions.iter().filter(|partition| partition.replicas.contains(&shard.node()));
    here.map(|partition| partition.index)
        .filter(|index| is_missing(*index))
        .map(|index| (topic.clone(), index))
        .collect()
}

async fn open_concurrently(shard: &Rc<Shard>, wanted: Vec<(Arc<Topic>, PartitionId)>) -> Opened {
    let mut opened = Opened { partitions: wanted.len(), ..Opened::default() };
    let workers = wanted.len().min(OPENING_MAX);
    let queue = Rc::new(RefCell::new(wanted));
    let workers = (0..workers).map(|_| spawn(Class::Produce, open_queued(shard.clone(), queue.clone())));
    for worker in workers.collect::<Vec<_>>() {
        let part = worker.await;
        opened.recovered += part.recovered;
        opened.failed += part.failed;
    }
    opened
}

async fn open_queued(shard: Rc<Shard>, queue: OpenQueue) -> Opened {
    let mut opened = Opened::default();
    loop {
        let next = queue.borrow_mut().pop();
        let Some((topic, partition)) = next else { return opened };
        match open(&shard, &topic, partition).await {
            Ok(was_clean) => opened.recovered += usize::from(!was_clean),
            Err(error) => {
                error!(topic = %topic.name, %partition, %error, "partition is offline");
                opened.failed += 1;
            }
        }
    }
}

/// Opens one partition, or makes it where it was not made before. `true` if no scan was needed.
async fn open(shard: &Rc<Shard>, topic: &Topic, partition: PartitionId) -> Result<bool, TopicError> {
    let at = TopicPartition { topic: topic.id, partition };
    let path = shard.data.partition(&PartitionDirectory::new(&topic.name, topic.id, partition));
    let config = topic_config(shard, topic)?;
    let options = log_options(&config, &shard.config());
    let epoch = topic.partition(partition).map(|partition| partition.leader_epoch).unwrap_or_default();
    let (log, clean) = match directory::list(&path).await {
        Ok(entries) if !entries.is_empty() => {
            let (log, report) = Log::open(&shard.storage, &path, at, options).await?;
            let clean = report.was_clean();
            if !clean {
                let cases: Vec<&str> = report.cases().map(RecoveryCase::name).collect();
                let (batches, stale_bytes) = (report.batches_scanned, report.stale_bytes);
                info!(topic = %topic.name, %partition, batches, stale_bytes, ?cases, "partition recovered");
            }
            (log, clean)
        }
        _ => (Log::create(&shard.storage, &path, at, options).await?, true),
    };
    let partition = Partition::new(topic.name.clone(), at, log, epoch, config);
    shard.add_partition(at, partition.clone());
    configs::apply_to_opened(shard, &partition);
    Ok(clean)
}

fn topic_config(shard: &Shard, topic: &Topic) -> Result<TopicConfig, TopicError> {
    shard.config().topic(&topic.configs).map_err(|error| TopicError::Config(error.to_string()))
}

/// Partitions that are being made, if there are any: a task that runs on if nobody waits for it.
pub(super) type Opening = Option<Task<()>>;

/// Creates topics: decided and committed when it returns, topic by topic; their partitions can be used when the task has ended.
/// On the first shard.
pub(super) async fn create(shard: &Rc<Shard>, request: CreateTopics) -> Result<(Vec<Creation>, Opening), ProposeError> {
    let rules = rules(shard);
    let decider = shard.clone();
    let validate_only = request.validate_only;
    let first = shard.first();
    let created = first.quorum.propose_with(move |controller| {
        controller.create_topics(&request, &rules, &|key, value| check_config(&decider, key, value))
    });
    let created = created.await?;
    let made = created.iter().filter_map(|(_, result)| result.as_ref().ok()).filter(|_| !validate_only);
    let placed = made.map(|topic| (topic.id, shard.owners().borrow_mut().place(topic.id, topic.partitions)));
    let placed: Vec<(TopicId, ShardId)> = placed.collect();
    let topics = placed.iter().map(|(topic, _)| *topic).collect();
    let opening = open_while_held(shard, placed, topics);
    Ok((created, opening))
}

/// Lets every shard know of `topics`, of which `placed` are new, and opens what is missing of them. Their files are not removed
/// meanwhile, also if they are deleted.
fn open_while_held(shard: &Rc<Shard>, placed: Vec<(TopicId, ShardId)>, topics: Vec<TopicId>) -> Opening {
    if topics.is_empty() {
        return None;
    }
    shard.first().hold(&topics);
    let shard = shard.clone();
    Some(spawn(Class::Produce, async move {
        shard.publish(placed).await;
        open_missing(&shard, topics.clone()).await;
        shard.first().let_go(&topics);
    }))
}

/// Waits until new partitions can be used, at most so many milliseconds as a client has said; whether they can.
pub(super) async fn usable_within(timeout_ms: i32, opening: Opening) -> bool {
    let Some(opening) = opening else { return true };
    timeout(Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)), opening).await.is_ok()
}

/// Opens the partitions of these topics that are not served yet, each on its shard.
async fn open_missing(shard: &Rc<Shard>, ids: Vec<TopicId>) {
    let opened = shard.call_all(move |shard| {
        let ids = ids.clone();
        async move {
            let image = shard.image();
            let topics = ids.iter().filter_map(|id| image.topic(*id));
            let wanted = topics.flat_map(|topic| missing(&shard, topic)).collect();
            open_concurrently(&shard, wanted).await;
        }
    });
    opened.await;
}

/// Makes the partitions that were just added to topics, so many to each, on the shards that own them.
pub(super) fn open_added(shard: &Rc<Shard>, added: Vec<(TopicId, usize)>) -> Opening {
    for (topic, count) in &added {
        shard.owners().borrow_mut().grow(*topic, *count);
    }
    open_while_held(shard, Vec::new(), added.into_iter().map(|(topic, _)| topic).collect())
}

/// Creates a topic with the broker's defaults, since a client asked for it. The answer to the client while it is made is
/// retriable.
pub(super) async fn create_automatically(shard: &Rc<Shard>, name: &TopicName) -> Result<(), ErrorCode> {
    let topic = CreateTopic {
        name: name.to_string(),
        id: TopicId::from_random(random_u128()),
        partitions: None,
        replication_factor: None,
        assignments: Vec::new(),
        configs: Vec::new(),
    };
    let created = create(shard, CreateTopics { topics: vec![topic], validate_only: false }).await;
    let (created, opening) = created.map_err(|error| propose_error_code(&error))?;
    if let Some(opening) = opening {
        opening.await;
    }
    match created.into_iter().next() {
        Some((_, Err(error))) if error.code() != ErrorCode::TopicAlreadyExists => Err(error.code()),
        _ => Ok(()),
    }
}

/// Deletes topics: decided, committed, no longer served. Their files go in the background. On the first shard.
pub(super) async fn delete(
    shard: &Rc<Shard>,
    request: Vec<DeleteTopic>,
) -> Result<Vec<DeletedTopicResult>, ProposeError> {
    let deleted = shard.change(move |controller| controller.delete_topics(&request)).await?;
    shard.first().trash.notify();
    Ok(deleted)
}

/// Removes the files of deleted topics, whenever there are some; runs as long as the first shard.
pub(super) async fn remove_deleted(shard: Rc<Shard>) {
    let first = shard.first();
    loop {
        first.trash.notified().await;
        if shard.is_draining() {
            return;
        }
        let image = shard.image();
        let is_due = |topic: &&Arc<DeletedTopic>| topic.brokers.contains(&shard.node()) && !first.is_held(topic.id);
        for deleted in image.deleted_topics().filter(is_due) {
            if let Err(error) = remove(&shard, deleted.id, &deleted.name).await {
                error!(topic = %deleted.name, %error, "the files of a deleted topic are not removed yet");
            }
        }
        if let Err(error) = shard.data.empty_trash().await {
            error!(%error, "trash is not emptied");
        }
    }
}

async fn remove(shard: &Rc<Shard>, id: TopicId, name: &TopicName) -> Result<(), DataDirectoryError> {
    let removed = shard.call_all({
        let name = name.clone();
        move |shard| {
            let name = name.clone();
            async move { remove_partitions(&shard, id, &name).await }
        }
    });
    removed.await.into_iter().collect::<Result<(), _>>()?;
    let node = shard.node();
    match shard.change(move |controller| controller.files_removed(id, node)).await {
        Ok(()) => info!(topic = %name, %id, "topic removed"),
        Err(error) => warn!(topic = %name, %error, "the end of a removal is not recorded; the next start repeats it"),
    }
    Ok(())
}

/// Serves the partitions of a deleted topic that this shard owns no more, and moves their files out of the way.
async fn remove_partitions(shard: &Rc<Shard>, id: TopicId, name: &TopicName) -> Result<(), DataDirectoryError> {
    for partition in shard.remove_topic(id).into_iter().flatten() {
        partition.delete();
        if let Err(error) = partition.log().clone().close().await {
            warn!(topic = %name, %error, "the log of a deleted topic is not closed clean");
        }
        let directory = PartitionDirectory::new(name, id, partition.id().partition);
        shard.data.discard(&directory).await?;
    }
    shard.owners().borrow_mut().forget(id);
    Ok(())
}

/// At start: moves the directories of deleted topics to `trash` and unexplained ones to `lost`.
async fn sort_out(shard: &Rc<Shard>) -> Result<(), DataDirectoryError> {
    let image = shard.image();
    let known: BTreeSet<PartitionDirectory> = image
        .topics()
        .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition.index)))
        .map(|(topic, partition)| PartitionDirectory::new(&topic.name, topic.id, partition))
        .collect();
    for found in shard.data.list_partitions().await? {
        if known.contains(&found) {
            continue;
        }
        let deleted = image.deleted_topics().any(|topic| found.is_of(&topic.name, topic.id));
        if deleted {
            shard.data.discard(&found).await?;
        } else {
            let now = shard.data.quarantine(&found).await?;
            warn!(directory = %found, kept = %now.display(), "a directory that no topic explains is set aside");
        }
    }
    let node = shard.node();
    for deleted in image.deleted_topics().filter(|topic| topic.brokers.contains(&node)) {
        let id = deleted.id;
        if let Err(error) = shard.change(move |controller| controller.files_removed(id, node)).await {
            warn!(topic = %deleted.name, %error, "the end of a removal is not recorded");
        }
    }
    shard.first().trash.notify();
    Ok(())
}
