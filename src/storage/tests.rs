//! The log over the simulated disk: what its tests share. Paths, sizes and seeds are fixed, so a failure repeats.

mod basics;
mod failures;
mod power_cuts;
mod reads;
mod retiring;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::*;
use crate::record::{
    BatchBuilder, Codec, DecompressLimits, Decompressors, ProduceRules, Producer, TimestampType, validate_produce,
};
use crate::runtime::sim::{NodeId, Simulation, SimulationOptions};
use crate::types::{
    LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, ShardId, Timestamp, TopicId, TopicPartition,
};

pub(super) const SHARD: ShardId = ShardId(0);
pub(super) const EPOCH: LeaderEpoch = LeaderEpoch::ZERO;

pub(super) fn offset(value: i64) -> Offset {
    Offset::new(value).expect("not negative")
}

pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::new(millis).expect("not negative")
}

pub(super) fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId::new(3).expect("not negative") }
}

pub(super) fn directory_path() -> PathBuf {
    PathBuf::from("/log")
}

/// Small segments and writes, so that rolls and splits happen.
pub(super) fn small_options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        index_interval_bytes: 1024,
        append_write_bytes_max: 64 << 10,
        flush_bytes: 32 << 10,
        retention_age: None,
        ..LogOptions::default()
    }
}

/// A world with one node.
pub(super) fn world(seed: u64) -> (Simulation, NodeId) {
    let simulation = Simulation::new(seed, SimulationOptions::default());
    let node = simulation.add_node(1);
    (simulation, node)
}

/// Runs a task on a shard of the node, to its end.
pub(super) fn run<T: 'static>(simulation: &Simulation, node: NodeId, task: impl Future<Output = T> + 'static) -> T {
    simulation.run_on(node, SHARD, task).expect("it is not stuck").expect("the process lives")
}

pub(super) fn storage() -> Rc<Storage> {
    Storage::new(StorageOptions { free_bytes_min: 0, ..StorageOptions::default() })
}

pub(super) async fn create(storage: &Rc<Storage>) -> Log {
    Log::create(storage, &directory_path(), partition(), small_options()).await.expect("a new log")
}

pub(super) async fn open(storage: &Rc<Storage>) -> (Log, RecoveryReport) {
    open_at(storage, &directory_path(), small_options()).await
}

pub(super) async fn open_at(storage: &Rc<Storage>, path: &Path, options: LogOptions) -> (Log, RecoveryReport) {
    Log::open(storage, path, partition(), options).await.expect("a log that opens")
}

/// The bytes of a batch of `records` records with values of `value_bytes` bytes of `fill`, at `timestamp` and the following
/// milliseconds.
pub(super) fn batch(records: u32, value_bytes: usize, fill: u8, timestamp: i64, producer: Option<Producer>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.set_producer(producer);
    for record in 0..records {
        builder.append(Some(time(timestamp + i64::from(record))), Some(b"key"), Some(&vec![fill; value_bytes]), &[]);
    }
    builder.finish().expect("no codec").expect("records").to_vec()
}

pub(super) fn producer(id: i64, epoch: i16, sequence: i32) -> Producer {
    Producer {
        id: ProducerId::new(id).expect("not negative"),
        epoch: ProducerEpoch::new(epoch).expect("not negative"),
        base_sequence: Sequence::new(sequence).expect("not negative"),
    }
}

/// Appends the bytes of a batch.
pub(super) fn append_bytes(log: &Log, bytes: &[u8]) -> Result<Appended, AppendError> {
    let rules = ProduceRules {
        batch_bytes_max: 1 << 30,
        zstd_allowed: true,
        key_required: false,
        timestamp_type: TimestampType::Create,
        timestamp_before_max_ms: u64::MAX,
        timestamp_after_max_ms: u64::MAX,
        decompress: DecompressLimits::DEFAULT,
    };
    let mut decompressors = Decompressors::new();
    let produced = validate_produce(bytes, time(0), &rules, &mut decompressors).expect("a good batch");
    log.append(&produced, EPOCH)
}

/// Appends a batch of `records` records of `value_bytes` bytes.
pub(super) fn append(log: &Log, records: u32, value_bytes: usize) -> Appended {
    append_bytes(log, &batch(records, value_bytes, b'v', 1000, None)).expect("room")
}

pub(super) const ALL: ReadLimits = ReadLimits { bytes_max: 1 << 20, end: Offset::MAX, first_batch_whole: true };

/// The bytes of some batches, in one piece.
pub(super) fn joined(batches: &Batches) -> Vec<u8> {
    let bytes: Vec<u8> = batches.slices.iter().flat_map(|slice| slice.iter().copied()).collect();
    assert_eq!(bytes.len(), batches.bytes);
    bytes
}

/// Everything from the log start to the log end.
pub(super) async fn read_all(log: &Log) -> Vec<u8> {
    let mut all = Vec::new();
    let mut from = log.log_start();
    while from < log.log_end() {
        let batches = log.read(from, ALL).await.expect("good batches");
        assert!(batches.end > from, "a read goes on");
        all.extend(joined(&batches));
        from = batches.end;
    }
    all
}
