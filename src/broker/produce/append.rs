//! One partition's batch: checked and appended on the shard that owns the partition.
//!
//! A batch that meets full append buffers waits for room, as long as its request may.

use std::rc::Rc;

use crate::broker::shard::Shard;
use crate::partition::{CommitError, Partition, append_error_code};
use crate::record::{BatchHeader, Codec, ProduceRules, ProducedBatch, RecompressError, validate_produce};
use crate::runtime::{Instant, timeout, wall_clock, yield_now};
use crate::storage::{AppendError, Appended};
use crate::types::{ErrorCode, Offset, Timestamp, TopicPartition};
use crate::wire::produce::Acks;

/// What a request says of all its batches.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Terms {
    pub(super) acks: Acks,
    pub(super) zstd_allowed: bool,
    pub(super) deadline: Instant,
}

/// What became of one partition's batch, once that is known.
pub(in crate::broker) enum Produced {
    /// As the request wanted it: committed, or with acks=0 appended.
    Done { base_offset: Offset, log_append_time: Option<Timestamp>, log_start: Offset },
    /// Not.
    Failed { code: ErrorCode, reason: Option<String>, record: Option<u32> },
    /// Another broker leads the partition.
    Moved,
}

/// A batch in the log of this shard, to be committed.
pub(super) struct Open {
    partition: Rc<Partition>,
    appended: Appended,
}

impl Produced {
    pub(super) fn refused(code: ErrorCode, reason: impl ToString) -> Produced {
        Produced::Failed { code, reason: Some(reason.to_string()), record: None }
    }

    pub(super) fn failed(code: ErrorCode) -> Produced {
        Produced::Failed { code, reason: None, record: None }
    }
}

impl Open {
    /// What became of the batch; `None` while that is open.
    pub(super) fn outcome(&self) -> Option<Produced> {
        self.partition.outcome(self.appended.end).map(|outcome| match outcome {
            Ok(()) => self.done(),
            Err(CommitError::Failed) => Produced::failed(ErrorCode::KafkaStorageError),
            Err(CommitError::Deleted) => Produced::failed(ErrorCode::UnknownTopicOrPartition),
        })
    }

    /// The batch as it is appended, whether it is committed or not.
    pub(super) fn done(&self) -> Produced {
        Produced::Done {
            base_offset: self.appended.base_offset,
            log_append_time: self.appended.log_append_time,
            log_start: self.partition.log_start(),
        }
    }

    /// Waits until the outcome is known, until `deadline` at most. What is open then is not known: the records may still be
    /// committed.
    pub(super) async fn settle(&self, deadline: Instant) -> Produced {
        if self.outcome().is_none() {
            let left = deadline.since(Instant::now());
            // What is open after the deadline is told as such below; what is not needs no time any more.
            let _ = timeout(left, self.partition.committed(self.appended.end)).await;
        }
        self.outcome().unwrap_or_else(|| Produced::failed(ErrorCode::RequestTimedOut))
    }
}

/// Appends `records` to a partition of this shard.
pub(super) async fn append(
    shard: &Rc<Shard>,
    terms: &Terms,
    at: TopicPartition,
    records: &[u8],
) -> Result<Open, Produced> {
    let partition = match shard.partition(&shard.image(), at) {
        Ok(partition) => partition,
        Err(ErrorCode::NotLeaderOrFollower) => return Err(Produced::Moved),
        Err(code) => return Err(Produced::refused(code, code.name())),
    };
    let config = partition.config();
    if terms.acks == Acks::All && config.insync_replicas_min > 1 {
        let reason = format!("1 replica is in sync, min.insync.replicas is {}", config.insync_replicas_min);
        return Err(Produced::refused(ErrorCode::NotEnoughReplicas, reason));
    }
    let rules = ProduceRules { zstd_allowed: terms.zstd_allowed, ..partition.produce_rules() };
    let appended = append_when_there_is_room(shard, terms, &partition, &rules, records).await;
    // Unpacking and packing take long enough for others to be let in before the next batch.
    if is_compressed(records) || partition.recompression(Codec::None).is_some() {
        yield_now().await;
    }
    appended.map(|appended| Open { partition, appended })
}

async fn append_when_there_is_room(
    shard: &Rc<Shard>,
    terms: &Terms,
    partition: &Rc<Partition>,
    rules: &ProduceRules,
    records: &[u8],
) -> Result<Appended, Produced> {
    let mut late = false;
    loop {
        let validated = {
            let mut decompressors = shard.decompressors.borrow_mut();
            validate_produce(records, wall_clock(), rules, &mut decompressors)
        };
        let produced = validated.map_err(|error| Produced::Failed {
            code: error.code(),
            record: error.record_index(),
            reason: Some(error.to_string()),
        })?;
        if produced.is_transactional() {
            return Err(Produced::refused(ErrorCode::InvalidTxnState, "transactions are not supported"));
        }
        let appended = append_in_codec(shard, partition, &produced, rules)
            .map_err(|error| Produced::refused(error.code(), error))?;
        match appended {
            Err(AppendError::Backpressure) if !late => {
                let left = terms.deadline.since(Instant::now());
                late = timeout(left, shard.storage.room()).await.is_err();
            }
            appended => return appended.map_err(|error| Produced::refused(append_error_code(&error), error)),
        }
    }
}

/// Appends a batch in the codec of its topic, which in most topics is the one that it has.
fn append_in_codec(
    shard: &Shard,
    partition: &Partition,
    batch: &ProducedBatch<'_>,
    rules: &ProduceRules,
) -> Result<Result<Appended, AppendError>, RecompressError> {
    let Some(to) = partition.recompression(batch.codec()) else { return Ok(partition.append(batch)) };
    let mut decompressors = shard.decompressors.borrow_mut();
    let mut recompressor = shard.recompressor.borrow_mut();
    recompressor.recompressed(batch, to, rules, &mut decompressors, |batch| partition.append(batch))
}

/// Whether the batch at the front of `records` is compressed, as far as its header goes.
fn is_compressed(records: &[u8]) -> bool {
    BatchHeader::view(records).is_some_and(|header| header.attributes().codec() != Ok(Codec::None))
}
