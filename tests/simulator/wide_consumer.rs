//! A consumer that reads every partition with one request, so that its fetches go across all shards.
//!
//! Beside what every fetch must show it holds the limits of the whole answer: fewer bytes than the minimum only when the time
//! is up, a partition has an error or a batch that does not fit, or the broker stops; and more bytes than the maximum only for
//! the first partition that has any.

use std::rc::Rc;

use corelane::runtime::sim::Random;
use corelane::runtime::{Duration, Instant, sleep};
use corelane::wire::ApiKey;
use corelane::wire::client::messages::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use corelane::wire::messages::BrokerId;

use crate::broker_clients::{Shared, take, topic_name};
use crate::client::{Client, Lost, api};

const MAX_WAIT: Duration = Duration::from_millis(300);

/// Tails all partitions until the seed is over.
pub(crate) async fn consume_all(shared: Rc<Shared>, mut random: Random) {
    let mut from = vec![0; shared.targets.len()];
    while !shared.stop.get() {
        let _ = consume_on(&shared, &mut random, &mut from).await;
        sleep(Duration::from_millis(20 + random.below(200))).await;
    }
    shared.running.set(shared.running.get() - 1);
}

async fn consume_on(shared: &Shared, random: &mut Random, from: &mut [i64]) -> Result<(), Lost> {
    let mut client = Client::connect(shared.address).await?;
    while !shared.stop.get() {
        let bytes_min = *random.choose(&[1, 1, 20_000]);
        let bytes_max = *random.choose(&[1, 30_000, 1 << 20]);
        // Any order: what comes first may exceed the limits.
        let mut order: Vec<usize> = (0..from.len()).collect();
        order.rotate_left(random.index(from.len()));
        let request = request(shared, &order, from, bytes_min, bytes_max);
        let (asked_at, stops, stopping) = (Instant::now(), shared.stops.get(), shared.stopping.get());
        let response: FetchResponse = client.call(api(ApiKey::Fetch, 12), &request).await?;
        let waited = Instant::now().since(asked_at);
        assert_eq!(response.error_code, 0, "a fetch without a session has no error of its own");
        let partitions: Vec<PartitionData> =
            response.responses.into_iter().flat_map(|topic| topic.partitions).collect();
        assert_eq!(partitions.len(), order.len(), "every partition that was asked for is answered");
        let is_over = |place: usize, data: &PartitionData| {
            let is_empty = data.records.as_ref().is_none_or(|records| records.is_empty());
            data.error_code != 0 || is_empty && data.high_watermark > from[place]
        };
        let over = order.iter().zip(&partitions).any(|(place, data)| is_over(*place, data));
        let may_be_early = over || stopping || shared.stops.get() > stops;
        hold_limits(&partitions, if may_be_early { 0 } else { bytes_min.min(bytes_max) }, bytes_max, waited);
        for (place, partition) in order.into_iter().zip(&partitions) {
            let target = &shared.targets[place];
            assert_eq!(partition.partition_index, target.index, "answers stand in the order of the request");
            from[place] = take(target, from[place], partition);
        }
    }
    Ok(())
}

fn request(shared: &Shared, order: &[usize], from: &[i64], bytes_min: i32, bytes_max: i32) -> FetchRequest {
    let topics = order.iter().map(|&place| {
        let target = &shared.targets[place];
        let partition = FetchPartition::default()
            .with_partition(target.index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(from[place])
            .with_partition_max_bytes(1 << 20);
        FetchTopic::default().with_topic(topic_name(&target.topic)).with_partitions(vec![partition])
    });
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(MAX_WAIT.as_millis()).expect("short"))
        .with_min_bytes(bytes_min)
        .with_max_bytes(bytes_max)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(topics.collect())
}

fn hold_limits(partitions: &[PartitionData], bytes_min: i32, bytes_max: i32, waited: Duration) {
    let lengths: Vec<usize> =
        partitions.iter().map(|partition| partition.records.as_ref().map_or(0, |records| records.len())).collect();
    let bytes: usize = lengths.iter().sum();
    let enough = bytes >= usize::try_from(bytes_min).expect("not negative");
    assert!(enough || waited >= MAX_WAIT, "{bytes} bytes of {bytes_min} after {waited:?}");
    let first = lengths.iter().copied().find(|length| *length > 0).unwrap_or(0);
    let most = usize::try_from(bytes_max).expect("positive").max(first);
    assert!(bytes <= most, "{bytes} bytes, {bytes_max} were asked for and the first partition has {first}");
}
