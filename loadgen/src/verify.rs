//! `verify check`: every partition from its log start to its high watermark, held against the journals of those who wrote it.
//!
//! The half before it is a load like any other that keeps a journal ([`crate::load`]), so that anything may happen in between.
//! Partitions are read one after the other, so the memory is that of the journals and of one answer. What the broker says of
//! itself is checked too: batches by their CRC, offsets by their order, and that it hands out what lies below the high
//! watermark that it told. Errors that pass (a broker that has just started) are waited out for a while; corruption is not.

use std::path::PathBuf;

use bytes::Bytes;
use corelane::record::{BatchScanner, DecompressLimits, Decompressors, RecordReader};
use corelane::runtime::{Duration, Instant, SocketAddr, sleep};
use corelane::types::{Offset, PartitionId};
use corelane::wire::ApiKey;
use corelane::wire::client::messages::{FetchPartition, FetchRequest, FetchTopic};
use hdrhistogram::Histogram;

use crate::client::{Bootstrap, ClientError, Connection, LogEnd, list_offset, topic_name};
use crate::history::{History, HistoryError, PartitionCheck, Report};
use crate::journal::file::{self, JournalError};

/// The last version of Fetch that names topics by their names.
const FETCH_MAX: i16 = 12;
/// Bytes of an answer that are asked for; a larger batch comes whole all the same.
const FETCH_BYTES: i32 = 4 << 20;
/// Bytes of a batch at most: what a broker's length field may claim.
const BATCH_BYTES_MAX: usize = 100 << 20;
/// How long a broker may answer with errors that pass, or with nothing below its own high watermark.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before the next attempt.
const RETRY: Duration = Duration::from_millis(50);
/// Kafka's errors that pass by themselves: UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER,
/// REQUEST_TIMED_OUT, THROTTLING_QUOTA_EXCEEDED.
const PASSING: [i16; 5] = [3, 5, 6, 7, 89];

/// What is checked.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Where to find the brokers.
    pub bootstrap: Bootstrap,
    /// The journals of all runs on one topic.
    pub journals: Vec<PathBuf>,
}

/// What a check found, and how long it took.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it found.
    pub report: Report,
    /// From the first fetch to the last.
    pub elapsed: Duration,
    /// The 99th percentile of the time of a fetch; `None` if there was nothing to fetch.
    pub fetch_p99: Option<Duration>,
}

/// A check that could not be done: it says nothing about the log.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A broker cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A journal that contradicts itself.
    #[error("{path}: {source}")]
    History {
        /// The journal.
        path: PathBuf,
        /// The contradiction.
        source: HistoryError,
    },
    /// Journals of several topics, or of none.
    #[error("the journals are of topics {0:?}; a check is of one")]
    Topics(Vec<String>),
}

/// Reads journals into a history. Blocks.
pub fn read_journals(paths: &[PathBuf]) -> Result<History, CheckError> {
    let mut history = History::new();
    for path in paths {
        let failed = |source| CheckError::History { path: path.clone(), source };
        let (mut begun, mut result) = (false, Ok(()));
        let header = file::read(path, |header, line| {
            if !begun {
                begun = true;
                result = history.begin(header);
            }
            if result.is_ok() {
                result = history.add(line);
            }
        });
        let header = header?;
        if !begun {
            result = history.begin(&header);
        }
        result.map_err(failed)?;
    }
    Ok(history)
}

/// Reads the whole topic and holds it against the journals.
pub async fn check(options: &CheckOptions) -> Result<Checked, CheckError> {
    let history = read_journals(&options.journals)?;
    let topics: Vec<String> = history.topics().into_iter().map(str::to_owned).collect();
    let [topic] = topics.as_slice() else { return Err(CheckError::Topics(topics)) };
    let first = options.bootstrap.connect().await?;
    let leaders = options.bootstrap.leaders(&first, topic).await?;
    let started = Instant::now();
    let mut reader = TopicReader {
        topic,
        options,
        connection: first,
        decompressors: Decompressors::default(),
        fetch_us: Histogram::new_with_max(3_600_000_000, 3).expect("the bounds are valid"),
    };
    let mut report = Report::default();
    for (index, leader) in (0..).zip(leaders) {
        let partition = PartitionId::new(index).expect("not negative");
        report.merge(reader.check(&history, partition, leader).await?);
    }
    let p99 = Duration::from_micros(reader.fetch_us.value_at_quantile(0.99));
    let fetch_p99 = (!reader.fetch_us.is_empty()).then_some(p99);
    Ok(Checked { report, elapsed: Instant::now().since(started), fetch_p99 })
}

struct TopicReader<'o> {
    topic: &'o str,
    options: &'o CheckOptions,
    connection: Connection,
    decompressors: Decompressors,
    fetch_us: Histogram<u64>,
}

/// What a fetch brought.
enum Fetched {
    Records(Bytes),
    Failed(i16),
}

impl TopicReader<'_> {
    async fn check(
        &mut self,
        history: &History,
        partition: PartitionId,
        leader: SocketAddr,
    ) -> Result<Report, ClientError> {
        if self.connection.address() != leader {
            self.connection = Connection::open(leader, &self.options.bootstrap.options).await?;
        }
        let log_start = list_offset(&self.connection, self.topic, partition, LogEnd::Earliest).await?;
        let high_watermark = list_offset(&self.connection, self.topic, partition, LogEnd::Latest).await?;
        let mut check = history.check(partition, log_start);
        let mut deadline = Instant::now().plus(PATIENCE);
        while check.next_offset() < high_watermark {
            let next = check.next_offset();
            let fault = match self.fetch(partition, next).await? {
                Fetched::Records(records) => self.take(&mut check, &records),
                Fetched::Failed(code) if PASSING.contains(&code) => None,
                Fetched::Failed(code) => Some(format!("the broker answers error {code}")),
            };
            let out_of_time = || Some("the broker hands out nothing more".to_owned());
            if check.next_offset() > next {
                deadline = Instant::now().plus(PATIENCE);
            } else {
                sleep(RETRY).await;
            }
            if let Some(why) = fault.or_else(|| if Instant::now() > deadline { out_of_time() } else { None }) {
                let at = check.next_offset();
                check.unreadable(at, why);
                break;
            }
        }
        Ok(check.finish(high_watermark))
    }

    async fn fetch(&mut self, partition: PartitionId, offset: Offset) -> Result<Fetched, ClientError> {
        let mut asked = FetchPartition::default();
        asked.partition = partition.value();
        asked.current_leader_epoch = -1;
        asked.fetch_offset = offset.value();
        asked.last_fetched_epoch = -1;
        asked.log_start_offset = -1;
        asked.partition_max_bytes = FETCH_BYTES;
        let mut topic = FetchTopic::default();
        topic.topic = topic_name(self.topic);
        topic.partitions = vec![asked];
        let mut request = FetchRequest::default();
        request.replica_id = (-1).into();
        request.max_wait_ms = 100;
        request.min_bytes = 1;
        request.max_bytes = FETCH_BYTES;
        request.session_epoch = -1;
        request.topics = vec![topic];
        let started = Instant::now();
        let response = self.connection.send(ApiKey::Fetch, FETCH_MAX, &request)?.receive().await?;
        self.fetch_us.saturating_record(Instant::now().since(started).as_micros() as u64);
        if response.error_code != 0 {
            return Ok(Fetched::Failed(response.error_code));
        }
        let answer = response.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
        let what = || format!("a fetch of {}-{partition} at {offset}", self.topic);
        let answer = answer.ok_or_else(|| ClientError::Missing { what: what() })?;
        match answer.error_code {
            0 => Ok(Fetched::Records(answer.records.unwrap_or_default())),
            code => Ok(Fetched::Failed(code)),
        }
    }

    /// Hands the records on. Yields what is wrong with the bytes, if anything.
    fn take(&mut self, check: &mut PartitionCheck<'_>, records: &[u8]) -> Option<String> {
        let from = check.next_offset();
        for batch in BatchScanner::new(records, 0, BATCH_BYTES_MAX) {
            let batch = match batch {
                Ok(batch) => batch,
                // A broker may cut the last batch of an answer off.
                Err(error) if error.incomplete().is_some() => return None,
                Err(error) => return Some(error.to_string()),
            };
            let limits = DecompressLimits::default();
            let mut reader = RecordReader::new(&batch, &mut self.decompressors, &limits);
            while let Some(record) = reader.next_record() {
                let record = match record {
                    Ok(record) => record,
                    Err(error) => return Some(error.to_string()),
                };
                let Ok(delta) = u64::try_from(record.offset_delta) else {
                    return Some(format!("a record's offset delta is {}", record.offset_delta));
                };
                let offset = batch.base_offset().plus(delta);
                // The first batch begins before the offset that was asked for, if that lies inside it.
                if offset >= from {
                    check.record(offset, record.value);
                }
            }
        }
        None
    }
}
