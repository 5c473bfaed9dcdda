//! Reading partitions of this shard for a fetch, and waiting until there is enough.
//!
//! The partitions are read in the client's order. The first one that has anything is served whole, whatever the limits say;
//! after it both limits hold (rule 15). If that is less than the minimum the fetch parks and looks once more: from then on every
//! partition that moves on tells it how many bytes arrived, and it reads again when they are enough, when something failed, or
//! when its time is up. None of that looks at partitions that did not move.

use std::rc::Rc;

use crate::broker::shard::Shard;
use crate::partition::{ParkedFetch, Partition, read_error_code};
use crate::runtime::{Instant, timeout};
use crate::storage::Batches;
use crate::types::{ErrorCode, LeaderEpoch, Offset, ShardId, TopicPartition};

/// A partition that is to be read.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Wanted {
    /// The index as the client gave it.
    pub(super) index: i32,
    /// The partition, or why there is none.
    pub(super) at: Result<TopicPartition, ErrorCode>,
    /// The shard that owns it; where it is refused, the one that was asked.
    pub(super) owner: ShardId,
    /// Where to begin; `None` where no offset can be meant.
    pub(super) from: Option<Offset>,
    /// Bytes of this partition at most.
    pub(super) bytes_max: u32,
    /// The epoch in which the client takes it to be led.
    pub(super) leader_epoch: Option<LeaderEpoch>,
}

/// The ends of a partition as a client is told them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::broker) struct Ends {
    pub(super) high_watermark: Offset,
    pub(super) last_stable_offset: Offset,
    pub(super) log_start_offset: Offset,
}

/// What one partition answers.
pub(in crate::broker) enum Read {
    /// Nothing was read yet.
    Unread,
    /// Its records, perhaps none yet.
    Records {
        ends: Ends,
        batches: Batches,
    },
    Failed {
        ends: Option<Ends>,
        code: ErrorCode,
    },
    /// Another broker leads it.
    Moved,
}

/// Until when a fetch goes on.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Limits {
    /// Bytes of records in one answer at most.
    pub(super) bytes_max: usize,
    /// Bytes for which it waits.
    pub(super) bytes_min: usize,
    /// How long it waits for them.
    pub(super) deadline: Instant,
    /// Whether the client knows zstd (KIP-110): a topic that is stored in zstd is given to no other.
    pub(super) zstd_known: bool,
}

impl Read {
    /// Bytes of records that were read.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Read::Records { batches, .. } => batches.bytes,
            _ => 0,
        }
    }
}

impl Ends {
    fn of(partition: &Partition) -> Ends {
        Ends {
            high_watermark: partition.high_watermark(),
            last_stable_offset: partition.last_stable_offset(),
            log_start_offset: partition.log_start(),
        }
    }
}

/// Reads until the fetch that `park` gives, if it has to wait, says that there is enough, there is something to tell, or no time
/// is left.
pub(super) async fn read_until(
    shard: &Rc<Shard>,
    wanted: &[Wanted],
    limits: &Limits,
    park: impl FnOnce() -> Rc<ParkedFetch>,
    reads: &mut Vec<Read>,
) {
    // Most fetches find enough at once: they park nowhere.
    let bytes = read_all(shard, wanted, limits, reads).await;
    if is_enough(shard, limits, wanted, reads, bytes) {
        return;
    }
    let parked = park();
    // Parked before reading, so that nothing that arrives in between is missed.
    let image = shard.image();
    let led = wanted.iter().filter_map(|wanted| shard.partition(&image, wanted.at.ok()?).ok());
    let parkings: Vec<_> = led.map(|partition| partition.park(&parked)).collect();
    let bytes = read_all(shard, wanted, limits, reads).await;
    if is_enough(shard, limits, wanted, reads, bytes) || parkings.is_empty() {
        return;
    }
    reads.clear();
    parked.arrived(bytes as u64);
    let left = limits.deadline.since(Instant::now());
    // Ready or late: there is one more look either way.
    let _ = timeout(left, parked.ready()).await;
    drop(parkings);
    read_all(shard, wanted, limits, reads).await;
}

/// Whether what was read, `bytes` bytes of records, is to be answered without waiting for more.
pub(super) fn is_enough(shard: &Shard, limits: &Limits, wanted: &[Wanted], reads: &[Read], bytes: usize) -> bool {
    // A partition that failed, or whose next batch is too large for what is left, gets no better by waiting.
    let is_over = |(wanted, read): (&Wanted, &Read)| match read {
        Read::Records { ends, batches } => {
            batches.is_empty() && wanted.from.is_some_and(|from| from < ends.high_watermark)
        }
        _ => true,
    };
    bytes >= limits.bytes_min
        || shard.is_draining()
        || limits.deadline <= Instant::now()
        || wanted.iter().zip(reads).any(is_over)
}

/// Reads every partition once into `reads`, and says how many bytes of records came together.
async fn read_all(shard: &Rc<Shard>, wanted: &[Wanted], limits: &Limits, reads: &mut Vec<Read>) -> usize {
    reads.clear();
    let image = shard.image();
    let mut left = limits.bytes_max;
    let mut bytes = 0;
    for wanted in wanted {
        let found = wanted.at.and_then(|at| shard.led_partition(&image, at, wanted.leader_epoch));
        let read = match found {
            Ok(partition) if !limits.zstd_known && partition.stores_zstd() => {
                Read::Failed { ends: Some(Ends::of(&partition)), code: ErrorCode::UnsupportedCompressionType }
            }
            Ok(partition) => read_one(shard, &partition, wanted, left, bytes == 0).await,
            Err(ErrorCode::NotLeaderOrFollower) => Read::Moved,
            Err(code) => Read::Failed { ends: None, code },
        };
        if let Read::Records { batches, .. } = &read {
            bytes += batches.bytes;
            left = left.saturating_sub(batches.bytes);
        }
        reads.push(read);
    }
    bytes
}

async fn read_one(shard: &Shard, partition: &Rc<Partition>, wanted: &Wanted, left: usize, first: bool) -> Read {
    let failed = |code| Read::Failed { ends: Some(Ends::of(partition)), code };
    let Some(from) = wanted.from else { return failed(ErrorCode::OffsetOutOfRange) };
    let bytes_max = left.min(wanted.bytes_max as usize);
    if let Some(batches) = partition.read_tail(from, bytes_max, first) {
        return Read::Records { ends: Ends::of(partition), batches };
    }
    // Until the answer is counted as one.
    let _memory = shard.budgets().reads.take(bytes_max).await;
    match partition.read(from, bytes_max, first).await {
        Ok(batches) => Read::Records { ends: Ends::of(partition), batches },
        Err(error) => failed(read_error_code(&error)),
    }
}
