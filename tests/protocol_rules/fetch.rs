//! Which batches a fetch gives out, when it answers, and offsets by time.
//!
//! Fetches are sessionless unless a test says otherwise. Times are measured generously: what has to be prompt is far from
//! what has to be waited for.

use std::time::Duration;

use corelane::types::ErrorCode;
use corelane::wire::client::messages::FetchRequest;

use super::Shared;
use super::clients::noise;
use super::clients::wire::{
    BATCH_TIME, Client, FETCH_BY_ID, FETCH_BY_NAME, batch, batches, code, fetch_partition, fetch_request, partitions,
    timed, topic_name,
};
use super::support::now;

/// The base offsets of the batches that `request` gives, partition by partition.
fn fetched(client: &mut Client, request: &FetchRequest) -> Vec<Vec<i64>> {
    let answers = client.fetch_all(request);
    answers.iter().map(|data| batches(data).iter().map(|batch| batch.base_offset().value()).collect()).collect()
}

#[test]
fn rule_15_an_offset_inside_a_batch_gives_the_whole_batch() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-15", 1, &[]);
    for values in [3, 4, 2] {
        client.append("rule-15", 0, &batch(&vec![&b"value"[..]; values]));
    }
    for (offset, expected) in [(0, &[0, 3, 7][..]), (2, &[0, 3, 7]), (3, &[3, 7]), (6, &[3, 7]), (8, &[7]), (9, &[])] {
        assert_eq!(
            fetched(&mut client, &fetch_request(&[("rule-15", 0, offset, 1 << 20)])),
            [expected],
            "from {offset}"
        );
    }
}

#[test]
fn rule_15_the_first_partition_ignores_the_limits_and_after_it_both_hold() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-15-limits", 4, &[]);
    let large = noise(15, 10_000);
    for partition in 1..4 {
        client.append("rule-15-limits", partition, &batch(&[&large]));
        client.append("rule-15-limits", partition, &batch(&[&large]));
    }
    let wanted = |bytes_max| [0, 1, 2, 3].map(|partition| ("rule-15-limits", partition, 0, bytes_max));
    // One byte allowed: the first partition that holds anything gives one batch, the later ones nothing.
    let nothing: &[i64] = &[];
    let one_byte = fetch_request(&wanted(1));
    assert_eq!(fetched(&mut client, &one_byte), [nothing, &[0], nothing, nothing]);
    assert_eq!(
        fetched(&mut client, &fetch_request(&wanted(1 << 20)).with_max_bytes(1)),
        [nothing, &[0], nothing, nothing]
    );
    // Room for one batch in each partition, and for two in all.
    let request = fetch_request(&wanted(11_000)).with_max_bytes(22_000);
    assert_eq!(fetched(&mut client, &request), [nothing, &[0], &[0], nothing]);
    let request = fetch_request(&wanted(11_000));
    assert_eq!(fetched(&mut client, &request), [nothing, &[0], &[0], &[0]]);
    assert_eq!(fetched(&mut client, &fetch_request(&wanted(1 << 20))), [nothing, &[0, 1], &[0, 1], &[0, 1]]);
}

#[test]
fn rule_15_a_fetch_that_wants_more_than_it_may_get_does_not_wait_for_it() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-15-more", 1, &[]);
    client.append("rule-15-more", 0, &batch(&[&noise(15, 10_000)]));
    let wanted = fetch_request(&[("rule-15-more", 0, 0, 1 << 20)]);
    let request = wanted.with_min_bytes(1 << 20).with_max_bytes(9_000).with_max_wait_ms(20_000);
    let begun = now();
    assert_eq!(fetched(&mut client, &request), [[0]]);
    assert!(now().duration_since(begun) < Duration::from_secs(10));
}

#[test]
fn rule_15_offsets_out_of_range_come_with_the_log_start_offset() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-15-range", 1, &[]);
    for offset in 0..10 {
        assert_eq!(client.append("rule-15-range", 0, &batch(&[b"value"])), offset);
    }
    delete_records(&mut client, "rule-15-range", 4);
    for (offset, expected) in [
        (-1, ErrorCode::OffsetOutOfRange),
        (0, ErrorCode::OffsetOutOfRange),
        (3, ErrorCode::OffsetOutOfRange),
        (4, ErrorCode::None),
        (10, ErrorCode::None),
        (11, ErrorCode::OffsetOutOfRange),
        (i64::MAX, ErrorCode::OffsetOutOfRange),
    ] {
        let data = client.fetch("rule-15-range", 0, offset);
        assert_eq!((code(data.error_code), data.log_start_offset), (expected, 4), "offset {offset}");
        assert!(data.records.is_some(), "records are empty, never null");
    }
    let unknown = client.fetch_all(&fetch_request(&[("rule-15-range", 9, 0, 1), ("rule-15-unknown", 0, 0, 1)]));
    assert!(unknown.iter().all(|data| code(data.error_code) == ErrorCode::UnknownTopicOrPartition));
    assert!(unknown.iter().all(|data| data.records.is_some()), "records are empty, never null");
}

fn delete_records(client: &mut Client, topic: &str, before: i64) {
    use corelane::wire::messages::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(before);
    let topic = DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let answer = client.call(2, &request).topics.remove(0).partitions.remove(0);
    assert_eq!((code(answer.error_code), answer.low_watermark), (ErrorCode::None, before));
}

#[test]
fn rule_15_every_version_gives_the_same_records() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let id = client.create_topic("rule-15-versions", 1, &[]);
    client.append("rule-15-versions", 0, &batch(&[b"one", b"two"]));
    for version in 4..=18 {
        let mut request = fetch_request(&[("rule-15-versions", 0, 0, 1 << 20)]);
        if version >= FETCH_BY_ID {
            request.topics[0].topic = topic_name("");
            request.topics[0].topic_id = id;
        }
        let data = partitions(client.call(version, &request)).remove(0);
        assert_eq!((code(data.error_code), data.high_watermark), (ErrorCode::None, 2), "version {version}");
        assert_eq!(batches(&data).len(), 1, "version {version}");
    }
}

/// How long `action` takes.
fn timed_call<T>(action: impl FnOnce() -> T) -> (T, Duration) {
    let begin = now();
    let result = action();
    (result, begin.elapsed())
}

#[test]
fn rule_17_a_fetch_waits_for_max_wait_and_not_longer() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-17", 2, &[]);
    client.append("rule-17", 0, &batch(&[b"value"]));
    let both = [("rule-17", 0, 0, 1 << 20), ("rule-17", 1, 0, 1 << 20)];
    let waiting = |wait, bytes| fetch_request(&both).with_max_wait_ms(wait).with_min_bytes(bytes);
    let (found, took) = timed_call(|| fetched(&mut client, &waiting(30_000, 1)));
    assert_eq!(found, [vec![0], vec![]], "enough is there");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (found, took) = timed_call(|| fetched(&mut client, &waiting(700, 1 << 20)));
    assert_eq!(found, [vec![0], vec![]], "what there is when the time is up");
    assert!((Duration::from_millis(690)..Duration::from_secs(10)).contains(&took), "{took:?}");
    let (_, took) = timed_call(|| fetched(&mut client, &waiting(0, 1 << 20)));
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn rule_17_a_parked_fetch_answers_when_min_bytes_have_come() {
    let shared = Shared::broker();
    let (mut consumer, mut producer) = (shared.client(), shared.client());
    producer.create_topic("rule-17-parked", 2, &[]);
    let value = noise(17, 1000);
    let both = [("rule-17-parked", 0, 0, 1 << 20), ("rule-17-parked", 1, 0, 1 << 20)];
    let request = fetch_request(&both).with_max_wait_ms(60_000).with_min_bytes(3000);
    let sent = consumer.send(FETCH_BY_NAME, &request);
    // Bytes in both partitions count together; the third batch makes them enough.
    for (partition, expected) in [(0, 0), (1, 0), (1, 1)] {
        assert_eq!(producer.append("rule-17-parked", partition, &batch(&[&value])), expected);
    }
    let answer = partitions(consumer.receive(sent));
    let counts: Vec<_> = answer.iter().map(|data| batches(data).len()).collect();
    assert_eq!(counts, [1, 2]);
}

#[test]
fn rule_17_a_parked_fetch_holds_up_nobody_else() {
    let shared = Shared::broker();
    let (mut parked, mut client) = (shared.client(), shared.client());
    client.create_topic("rule-17-other", 1, &[]);
    let request = fetch_request(&[("rule-17-other", 0, 0, 1 << 20)]).with_max_wait_ms(60_000).with_min_bytes(1);
    let sent = parked.send(FETCH_BY_NAME, &request);
    let (offset, took) = timed_call(|| client.append("rule-17-other", 0, &batch(&[b"value"])));
    assert_eq!(offset, 0);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (answer, took) = timed_call(|| partitions(parked.receive(sent)));
    assert_eq!(batches(&answer[0]).len(), 1);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn rule_17_an_error_is_answered_at_once() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-17-error", 1, &[]);
    let wanted = [("rule-17-error", 0, 0, 1 << 20), ("rule-17-error", 5, 0, 1 << 20)];
    let request = fetch_request(&wanted).with_max_wait_ms(60_000).with_min_bytes(1);
    let (answers, took) = timed_call(|| client.fetch_all(&request));
    let codes: Vec<_> = answers.iter().map(|data| code(data.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn rule_19_list_offsets_finds_the_ends_and_offsets_by_time() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-19", 1, &[]);
    for (index, time) in [100, 200, 150, 400, 300].into_iter().enumerate() {
        assert_eq!(client.append("rule-19", 0, &timed(BATCH_TIME + time, b"value")), index as i64);
    }
    let mut find = |version, timestamp| {
        let found = client.list_offset(version, "rule-19", 0, timestamp);
        (code(found.error_code), found.offset, found.timestamp)
    };
    for version in 1..=11 {
        assert_eq!(find(version, -1), (ErrorCode::None, 5, -1), "latest, version {version}");
        assert_eq!(find(version, -2), (ErrorCode::None, 0, -1), "earliest, version {version}");
        // The first record at or after the time, in the order of the log.
        for (time, offset, found) in
            [(0, 0, 100), (100, 0, 100), (101, 1, 200), (200, 1, 200), (201, 3, 400), (400, 3, 400)]
        {
            let expected = (ErrorCode::None, offset, BATCH_TIME + found);
            assert_eq!(find(version, BATCH_TIME + time), expected, "{time}, version {version}");
        }
        assert_eq!(find(version, BATCH_TIME + 401), (ErrorCode::None, -1, -1), "not found, version {version}");
    }
    for (timestamp, first, offset, time) in
        [(-3, 7, 3, BATCH_TIME + 400), (-4, 8, 0, -1), (-5, 9, -1, -1), (-6, 11, -1, -1)]
    {
        for version in first..=11 {
            assert_eq!(find(version, timestamp), (ErrorCode::None, offset, time), "{timestamp}, version {version}");
        }
        assert_eq!(find(first - 1, timestamp).0, ErrorCode::UnsupportedVersion, "{timestamp} before version {first}");
    }
    delete_records(&mut client, "rule-19", 2);
    assert_eq!(client.list_offset(11, "rule-19", 0, -2).offset, 2);
    assert_eq!(client.list_offset(11, "rule-19", 0, BATCH_TIME).offset, 2, "deleted records are not found");
    let unknown = client.list_offset(11, "rule-19", 3, -1);
    assert_eq!((code(unknown.error_code), unknown.offset), (ErrorCode::UnknownTopicOrPartition, -1));
}

#[test]
fn rule_21_leader_epochs_are_checked_and_given() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-21", 1, &[]);
    client.append("rule-21", 0, &batch(&[b"value"]));
    let epoch = client.list_offset(11, "rule-21", 0, -1).leader_epoch;
    assert!(epoch >= 0);
    for (claimed, expected) in
        [(-1, ErrorCode::None), (epoch, ErrorCode::None), (epoch + 1, ErrorCode::UnknownLeaderEpoch)]
    {
        let mut request = fetch_request(&[("rule-21", 0, 0, 1 << 20)]);
        request.topics[0].partitions = vec![fetch_partition(0, 0, 1 << 20).with_current_leader_epoch(claimed)];
        assert_eq!(code(client.fetch_all(&request)[0].error_code), expected, "epoch {claimed}");
    }
}
