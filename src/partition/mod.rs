//! A partition that this broker leads: its log, its leadership, and who waits for it.
//!
//! The high watermark is what a consumer may see: on a single replica the end of what the promise of the topic covers
//! (durable, or written with write caching). Every record handed out lies below it. The last stable offset is the high
//! watermark, since there are no transactions.
//!
//! A log that a failed write has closed is tried again by the partition, with a growing pause, until the disk works; meanwhile
//! the partition refuses appends, and what is committed stays readable. One line is logged when it fails and one when it is
//! back, however many tries lie in between.
//!
//! What this module does not do: it decodes no request and knows no connection.

mod options;
#[cfg(test)]
mod tests;
mod waits;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use thiserror::Error;
use tracing::{error, warn};

use crate::config::TopicConfig;
use crate::record::{Codec, Compression, ProduceRules, ProducedBatch};
use crate::runtime::{Class, Duration, sleep, spawn};
use crate::storage::epochs::EpochEnd;
use crate::storage::producers::{ActiveProducer, SequenceError};
use crate::storage::{
    AppendError, Appended, Batches, Corruption, DeleteRecordsError, Log, LogEvent, LogOptions, ReadError, ReadLimits,
    TimedOffset,
};
use crate::types::{ErrorCode, LeaderEpoch, Offset, Timestamp, TopicName, TopicPartition};

pub use options::{APPEND_MEMORY_PERCENT, log_options, storage_options};
pub use waits::{MissingBytes, ParkedFetch, Parking};

use options::{compression, produce_rules};
use waits::Waits;

/// The pause before a failed log is tried again, at first. It doubles with every try that fails.
const RECOVERY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// That pause at most: how long a disk that works again may go unnoticed. A try costs a write that fails.
const RECOVERY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why records that were appended are not committed. Whether they will ever be seen is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CommitError {
    /// The log failed.
    #[error("the log failed before the records were committed")]
    Failed,
    /// The topic was deleted.
    #[error("the topic was deleted before the records were committed")]
    Deleted,
}

/// How a partition stopped serving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Failed,
    Deleted,
}

/// A partition that this broker leads.
pub struct Partition {
    id: TopicPartition,
    topic: TopicName,
    log: Log,
    leader_epoch: LeaderEpoch,
    config: RefCell<Rc<TopicConfig>>,
    rules: Cell<ProduceRules>,
    compression: Cell<Option<Compression>>,
    ended: Cell<Option<Ended>>,
    /// Before the next try of a log that has failed.
    recovery_pause: Cell<Duration>,
    /// The last corruption that the operator was told of.
    told: RefCell<Option<Corruption>>,
    waits: Rc<Waits>,
}

impl Partition {
    /// The partition `id` of `topic`, led in `leader_epoch`, on an open log.
    pub fn new(
        topic: TopicName,
        id: TopicPartition,
        log: Log,
        leader_epoch: LeaderEpoch,
        config: TopicConfig,
    ) -> Rc<Partition> {
        let partition = Rc::new(Partition {
            id,
            topic,
            log,
            leader_epoch,
            rules: Cell::new(produce_rules(&config)),
            compression: Cell::new(compression(&config)),
            config: RefCell::new(Rc::new(config)),
            ended: Cell::new(None),
            recovery_pause: Cell::new(RECOVERY_PAUSE_MIN),
            told: RefCell::new(None),
            waits: Rc::default(),
        });
        let observer = Rc::downgrade(&partition);
        partition.log.observe(move |event| {
            if let Some(partition) = observer.upgrade() {
                partition.observe(&event);
            }
        });
        partition
    }

    fn observe(self: &Rc<Self>, event: &LogEvent) {
        let (topic, partition) = (&self.topic, self.id.partition);
        match event {
            LogEvent::Committed { end, bytes, .. } => self.waits.advance(*end, *bytes),
            // Deleted is for good.
            LogEvent::Failed(_) | LogEvent::Recovered if self.ended.get() == Some(Ended::Deleted) => {}
            LogEvent::Failed(failure) => {
                if self.ended.replace(Some(Ended::Failed)).is_none() {
                    error!(%topic, %partition, %failure, "the log has failed; it is tried again until the disk works");
                    self.waits.wake_all();
                }
                self.try_again_later();
            }
            LogEvent::Recovered => {
                warn!(%topic, %partition, "the log has recovered from a failure");
                self.ended.set(None);
                self.recovery_pause.set(RECOVERY_PAUSE_MIN);
            }
            LogEvent::Started { .. } => {}
        }
    }

    /// Tries the failed log again after the pause. Each try ends in one event, so there is one such task at most.
    fn try_again_later(self: &Rc<Self>) {
        let pause = self.recovery_pause.get();
        self.recovery_pause.set((pause * 2).min(RECOVERY_PAUSE_MAX));
        let partition = Rc::downgrade(self);
        spawn(Class::Background, async move {
            sleep(pause).await;
            if let Some(partition) = partition.upgrade() {
                partition.log.recover();
            }
        });
    }

    /// Topic id and index.
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// The topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The epoch in which this broker leads it.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The topic's configuration.
    pub fn config(&self) -> Rc<TopicConfig> {
        self.config.borrow().clone()
    }

    /// Takes another configuration at once; `options` are those that it makes for the log, which says of each when it takes
    /// effect.
    pub fn reconfigure(&self, config: &TopicConfig, options: &LogOptions) {
        if **self.config.borrow() != *config {
            self.rules.set(produce_rules(config));
            self.compression.set(compression(config));
            *self.config.borrow_mut() = Rc::new(config.clone());
        }
        let options = options.clone().sane();
        if self.log.options() != options {
            self.log.set_options(options);
        }
    }

    /// What a produced batch is measured by; the request's version decides about zstd.
    pub fn produce_rules(&self) -> ProduceRules {
        self.rules.get()
    }

    /// What a batch with this codec is to be packed by before it is appended; `None` if it stays as it is.
    pub fn recompression(&self, codec: Codec) -> Option<Compression> {
        self.compression.get().filter(|wanted| wanted.codec() != codec)
    }

    /// Whether what is appended may be read only by those who know zstd (KIP-110).
    pub fn stores_zstd(&self) -> bool {
        self.compression.get().is_some_and(|wanted| wanted.codec() == Codec::Zstd)
    }

    /// The log, for those who look after all logs of a shard.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The first offset that can be read.
    pub fn log_start(&self) -> Offset {
        self.log.log_start()
    }

    /// The first offset that is not committed: consumers see what lies below it.
    pub fn high_watermark(&self) -> Offset {
        self.log.committed_end()
    }

    /// The first offset of an open transaction, of which there are none: the high watermark.
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark()
    }

    /// The epoch of the leader that appended the record at `offset`.
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.log.leader_epoch_for(offset)
    }

    /// Where the largest epoch that is not above `asked` ends, as far as consumers see the log; `None` if `asked` is above the
    /// current one, which nobody can know here.
    ///
    /// The current epoch counts from its first moment: before it has written anything it begins and ends where the log does.
    /// An epoch older than all that are known ends where the first known one begins.
    pub fn epoch_end(&self, asked: LeaderEpoch) -> Option<EpochEnd> {
        if asked > self.leader_epoch {
            return None;
        }
        let visible = self.high_watermark();
        if asked == self.leader_epoch {
            return Some(EpochEnd { epoch: asked, end: visible });
        }
        let known = self.log.end_offset_for(asked);
        // Above all that have written: the last of them ends where the current one will begin.
        let last = || EpochEnd { epoch: self.log.epoch_at_end().unwrap_or(asked), end: visible };
        let found = known.unwrap_or_else(last);
        Some(EpochEnd { epoch: found.epoch, end: found.end.min(visible) })
    }

    /// The idempotent producers that it remembers, by id.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        self.log.active_producers()
    }

    /// Bytes of its segments, up to the log end.
    pub fn size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }

    /// Appends a batch. It is committed once [`Partition::committed`] says so.
    pub fn append(&self, batch: &ProducedBatch<'_>) -> Result<Appended, AppendError> {
        self.log.append(batch, self.leader_epoch)
    }

    /// What became of the records before `end`; `None` while that is open.
    pub fn outcome(&self, end: Offset) -> Option<Result<(), CommitError>> {
        if self.log.committed_end() >= end {
            return Some(Ok(()));
        }
        self.ended.get().map(|ended| match ended {
            Ended::Failed => Err(CommitError::Failed),
            Ended::Deleted => Err(CommitError::Deleted),
        })
    }

    /// Waits until the records before `end` are committed, or can no longer be.
    pub async fn committed(&self, end: Offset) -> Result<(), CommitError> {
        self.waits.committed(end, || self.outcome(end)).await
    }

    /// Whole batches from the one that holds `from` on, below the high watermark, if they lie in memory.
    ///
    /// At most `bytes_max` bytes; with `first_batch_whole` the first batch is given however long it is.
    pub fn read_tail(&self, from: Offset, bytes_max: usize, first_batch_whole: bool) -> Option<Batches> {
        self.log.read_tail(from, self.read_limits(bytes_max, first_batch_whole))
    }

    /// The same from wherever they lie; from disk beside those who find what they want in memory.
    pub async fn read(&self, from: Offset, bytes_max: usize, first_batch_whole: bool) -> Result<Batches, ReadError> {
        let (log, limits) = (self.log.clone(), self.read_limits(bytes_max, first_batch_whole));
        let read = spawn(Class::Bulk, async move { log.read(from, limits).await }).await;
        read.inspect_err(|error| self.tell_failure(error))
    }

    fn read_limits(&self, bytes_max: usize, first_batch_whole: bool) -> ReadLimits {
        ReadLimits { bytes_max, end: self.high_watermark(), first_batch_whole }
    }

    /// One line for what an operator has to look at. A client that asks again and again for the same damaged batch causes no
    /// further one.
    fn tell_failure(&self, error: &ReadError) {
        let (topic, partition) = (&self.topic, self.id.partition);
        match error {
            ReadError::OutOfRange { .. } => {}
            ReadError::Corrupt { corruption, .. } => {
                let known = self.told.replace(Some(corruption.clone()));
                if known.as_ref() != Some(corruption) {
                    error!(%topic, %partition, "corruption in {corruption}");
                }
            }
            ReadError::Io(failure) => error!(%topic, %partition, %failure, "a read failed"),
        }
    }

    /// The first record at or after `at`.
    pub async fn offset_for_timestamp(&self, at: Timestamp) -> Result<Option<TimedOffset>, ReadError> {
        self.log.offset_for_timestamp(at, self.high_watermark()).await
    }

    /// The record with the latest timestamp.
    pub async fn max_timestamp(&self) -> Result<Option<TimedOffset>, ReadError> {
        self.log.max_timestamp(self.high_watermark()).await
    }

    /// Deletes the records before `before`, durably; returns the first offset that can be read.
    pub async fn delete_records(&self, before: Offset) -> Result<Offset, DeleteRecordsError> {
        self.log.delete_records(before).await
    }

    /// Lets `fetch` hear of bytes that become visible here, until the parking is dropped.
    pub fn park(&self, fetch: &Rc<ParkedFetch>) -> Parking {
        self.waits.park(fetch)
    }

    /// Lets everybody who waits look again.
    pub fn wake(&self) {
        self.waits.wake_all();
    }

    /// The topic is deleted: whoever waits hears of it.
    pub fn delete(&self) {
        self.ended.set(Some(Ended::Deleted));
        self.waits.wake_all();
    }
}

/// The code that a client is answered with when an append is refused.
pub fn append_error_code(error: &AppendError) -> ErrorCode {
    match error {
        // A retry finds room, or the log recovered.
        AppendError::Backpressure | AppendError::Recovering | AppendError::Closed | AppendError::DiskFull => {
            ErrorCode::KafkaStorageError
        }
        AppendError::Sequence(SequenceError::StaleEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        AppendError::Sequence(SequenceError::OutOfOrder { .. }) => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::Sequence(SequenceError::DuplicateTooOld { .. }) => ErrorCode::DuplicateSequenceNumber,
        AppendError::TooLarge { .. } => ErrorCode::RecordListTooLarge,
    }
}

/// The code that a client is answered with when a read fails.
pub fn read_error_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt { .. } => ErrorCode::CorruptMessage,
        ReadError::Io(_) => ErrorCode::KafkaStorageError,
    }
}

/// The code that a client is answered with when records are not deleted.
pub fn delete_records_error_code(error: &DeleteRecordsError) -> ErrorCode {
    match error {
        DeleteRecordsError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        DeleteRecordsError::NotDurable(_) => ErrorCode::KafkaStorageError,
    }
}
