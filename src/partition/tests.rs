//! A partition whose disk fails: refused meanwhile, back by itself, told once. And where its leader epochs end.

use std::path::Path;

use super::*;
use crate::config::{BrokerConfig, Settings};
use crate::record::{BatchBuilder, Codec, Decompressors, validate_produce};
use crate::runtime::sim::{DiskFault, Simulation, SimulationOptions};
use crate::runtime::{Instant, sleep_until};
use crate::storage::{LogOptions, Storage, StorageOptions};
use crate::types::{PartitionId, ShardId, TopicId};

/// What the path of a segment holds, whatever it was opened by.
const SEGMENT: &str = "/log/00000";

async fn partition() -> Rc<Partition> {
    let storage = Storage::new(StorageOptions { free_bytes_min: 0, ..StorageOptions::default() });
    let id = TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId::new(0).expect("0") };
    let log = Log::create(&storage, Path::new("/log"), id, LogOptions::default()).await.expect("a new log");
    let broker = BrokerConfig::new(Settings::new(), 1, 1 << 30).expect("the defaults are good");
    let none: [(&str, &str); 0] = [];
    let config = broker.topic(none).expect("the defaults are good");
    Partition::new(TopicName::new("t").expect("legal"), id, log, LeaderEpoch::ZERO, config)
}

fn append(partition: &Partition) -> Result<Appended, AppendError> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(Timestamp::new(0), None, Some(b"value"), &[]);
    let batch = builder.finish().expect("no codec").expect("a record");
    let mut decompressors = Decompressors::new();
    let now = Timestamp::new(0).expect("not negative");
    let produced = validate_produce(batch, now, &partition.produce_rules(), &mut decompressors).expect("good");
    partition.append(&produced)
}

/// Until the time that began with `failed_at` is `millis` milliseconds old.
async fn until(failed_at: Instant, millis: u64) {
    sleep_until(failed_at.plus(Duration::from_millis(millis))).await;
}

#[test]
fn a_failed_log_is_tried_again_with_a_growing_pause() {
    let simulation = Simulation::new(1, SimulationOptions::default());
    let node = simulation.add_node(1);
    let handle = (*simulation).clone();
    let body = async move {
        let partition = partition().await;
        let first = append(&partition).expect("room");
        partition.committed(first.end).await.expect("a healthy disk");
        sleep(Duration::from_secs(1)).await;
        // The write, making it good, and the tries after 1, 3, 7, 15 and 31 s.
        (0..7).for_each(|_| handle.fail_next(node, DiskFault::WriteError, SEGMENT));
        let second = append(&partition).expect("it is not known to fail yet");
        assert_eq!(partition.committed(second.end).await, Err(CommitError::Failed));
        let failed_at = Instant::now();
        for millis in [0, 900, 1100, 2900, 3100, 14_900, 15_100, 30_900, 31_100, 60_900] {
            until(failed_at, millis).await;
            let refused = append(&partition).expect_err("it has failed");
            assert_eq!(append_error_code(&refused), ErrorCode::KafkaStorageError, "{millis}");
            assert_eq!(partition.outcome(first.end), Some(Ok(())), "what was committed stays so");
            assert_eq!(partition.outcome(second.end), Some(Err(CommitError::Failed)), "{millis}");
        }
        // The pause has grown to its bound, 30 s: the next try is the one that works.
        until(failed_at, 61_100).await;
        assert_eq!(partition.outcome(second.end), Some(Ok(())));
        let third = append(&partition).expect("it is back");
        partition.committed(third.end).await.expect("a healthy disk");

        // The next failure begins with a short pause again.
        sleep(Duration::from_secs(1)).await;
        (0..2).for_each(|_| handle.fail_next(node, DiskFault::WriteError, SEGMENT));
        let fourth = append(&partition).expect("room");
        assert_eq!(partition.committed(fourth.end).await, Err(CommitError::Failed));
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(partition.outcome(fourth.end), Some(Ok(())));
    };
    simulation.run_on(node, ShardId(0), body).expect("it is not stuck").expect("the process lives");
}

#[test]
fn a_deleted_partition_stays_deleted_when_its_log_fails() {
    let simulation = Simulation::new(2, SimulationOptions::default());
    let node = simulation.add_node(1);
    let handle = (*simulation).clone();
    let body = async move {
        let partition = partition().await;
        sleep(Duration::from_secs(1)).await;
        (0..2).for_each(|_| handle.fail_next(node, DiskFault::WriteError, SEGMENT));
        let appended = append(&partition).expect("room");
        partition.delete();
        sleep(Duration::from_millis(500)).await;
        assert!(!partition.log().is_open(), "it has failed");
        assert_eq!(partition.outcome(appended.end), Some(Err(CommitError::Deleted)));
    };
    simulation.run_on(node, ShardId(0), body).expect("it is not stuck").expect("the process lives");
}

#[test]
fn epochs_end_where_the_next_one_wrote_and_the_current_one_at_the_high_watermark() {
    let simulation = Simulation::new(3, SimulationOptions::default());
    let node = simulation.add_node(1);
    let epoch = |value| LeaderEpoch::new(value).expect("not negative");
    let body = async move {
        let first = partition().await;
        let led_in = |value| {
            let config = TopicConfig::clone(&first.config());
            Partition::new(first.topic().clone(), first.id(), first.log().clone(), epoch(value), config)
        };
        let ends = |partition: &Partition, asked: &[i32]| {
            let ends = asked.iter().map(|&asked| partition.epoch_end(epoch(asked)));
            ends.map(|end| end.map(|end| (end.epoch.value(), end.end.value()))).collect::<Vec<_>>()
        };
        assert_eq!(ends(&first, &[0, 1]), [Some((0, 0)), None], "it ends where it begins");
        assert_eq!(ends(&led_in(2), &[0, 1, 2]), [Some((0, 0)), Some((1, 0)), Some((2, 0))], "nobody has written");
        // A log tells the partition that was made on it last.
        let writer = led_in(0);
        for _ in 0..2 {
            let appended = append(&writer).expect("room");
            writer.committed(appended.end).await.expect("a healthy disk");
        }
        assert_eq!(ends(&first, &[0, 1]), [Some((0, 2)), None]);

        let third = led_in(3);
        assert_eq!(ends(&third, &[0, 1, 3, 4]), [Some((0, 2)), Some((0, 2)), Some((3, 2)), None]);
        let appended = append(&third).expect("room");
        assert_eq!(ends(&third, &[0, 2, 3]), [Some((0, 2)), Some((0, 2)), Some((3, 2))], "not committed: not seen");
        third.committed(appended.end).await.expect("a healthy disk");
        assert_eq!(ends(&third, &[0, 2, 3]), [Some((0, 2)), Some((0, 2)), Some((3, 3))]);

        let fifth = led_in(5);
        assert_eq!(ends(&fifth, &[2, 3, 4, 5, 6]), [Some((0, 2)), Some((3, 3)), Some((3, 3)), Some((5, 3)), None]);
        let offset = |value| Offset::new(value).expect("not negative");
        fifth.delete_records(offset(3)).await.expect("a healthy disk");
        assert_eq!(ends(&fifth, &[0, 3, 5]), [Some((0, 3)), Some((3, 3)), Some((5, 3))], "nothing is left of them");
    };
    simulation.run_on(node, ShardId(0), body).expect("it is not stuck").expect("the process lives");
}
