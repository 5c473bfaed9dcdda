//! Sequences of idempotent producers: what is a duplicate, what is a gap, and what a new epoch starts with.
//!
//! Every producer id comes from the broker, so that the tests do not meet in each other's state. What happens to that state
//! over a restart is tested with librdkafka.

use corelane::types::{ErrorCode, ProducerId};
use corelane::wire::messages::{InitProducerIdRequest, StrBytes, TransactionalId};

use super::Shared;
use super::clients::wire::{BATCH_TIME, Client, code, sequenced};

/// What the broker answers to a batch of `count` records from `base_sequence` on: the error and the base offset.
fn send(
    client: &mut Client,
    topic: &str,
    (id, epoch): (ProducerId, i16),
    base_sequence: i32,
    count: usize,
) -> (ErrorCode, i64) {
    let values: Vec<&[u8]> = vec![b"value"; count];
    let answer = client.produce(topic, 0, &sequenced(id, epoch, base_sequence, &values));
    (code(answer.error_code), answer.base_offset)
}

#[test]
fn rule_14_a_duplicate_is_answered_with_its_original_offset() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-14", 1, &[]);
    let producer = (client.init_producer_id(), 0);
    for (sequence, offset) in [(0, 0), (2, 2), (4, 4), (6, 6), (8, 8)] {
        assert_eq!(send(&mut client, "rule-14", producer, sequence, 2), (ErrorCode::None, offset));
    }
    // The last five are known, in any order and as often as they come.
    for sequence in [8, 0, 4, 4, 2, 6] {
        assert_eq!(send(&mut client, "rule-14", producer, sequence, 2), (ErrorCode::None, i64::from(sequence)));
    }
    assert_eq!(client.fetch("rule-14", 0, 0).high_watermark, 10, "none of them was appended again");
    // A sixth makes the first one too old to be told where it is; that it was there is still known.
    assert_eq!(send(&mut client, "rule-14", producer, 10, 1), (ErrorCode::None, 10));
    assert_eq!(send(&mut client, "rule-14", producer, 0, 2).0, ErrorCode::DuplicateSequenceNumber);
    assert_eq!(send(&mut client, "rule-14", producer, 2, 2), (ErrorCode::None, 2));
    // Another connection is the same producer.
    assert_eq!(send(&mut shared.client(), "rule-14", producer, 10, 1), (ErrorCode::None, 10));
    assert_eq!(client.fetch("rule-14", 0, 0).high_watermark, 11);
}

#[test]
fn rule_14_a_duplicate_is_answered_with_its_original_append_time() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-14-time", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let batch = sequenced(client.init_producer_id(), 0, 0, &[b"value"]);
    let first = client.produce("rule-14-time", 0, &batch);
    assert!(first.log_append_time_ms > BATCH_TIME);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let again = client.produce("rule-14-time", 0, &batch);
    assert_eq!((code(again.error_code), again.base_offset), (ErrorCode::None, 0));
    assert_eq!(again.log_append_time_ms, first.log_append_time_ms);
}

#[test]
fn rule_14_a_gap_is_out_of_order() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-14-gap", 1, &[]);
    let producer = (client.init_producer_id(), 0);
    assert_eq!(send(&mut client, "rule-14-gap", producer, 0, 3), (ErrorCode::None, 0));
    assert_eq!(send(&mut client, "rule-14-gap", producer, 4, 1).0, ErrorCode::OutOfOrderSequenceNumber);
    // Half of it is a duplicate, half is new: neither.
    assert_eq!(send(&mut client, "rule-14-gap", producer, 2, 2).0, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(send(&mut client, "rule-14-gap", producer, 3, 1), (ErrorCode::None, 3));
}

#[test]
fn rule_14_a_stale_epoch_is_refused_and_a_new_one_starts_at_0() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-14-epoch", 1, &[]);
    let id = client.init_producer_id();
    assert_eq!(send(&mut client, "rule-14-epoch", (id, 0), 0, 1), (ErrorCode::None, 0));
    assert_eq!(send(&mut client, "rule-14-epoch", (id, 1), 1, 1).0, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(send(&mut client, "rule-14-epoch", (id, 1), 0, 1), (ErrorCode::None, 1));
    assert_eq!(send(&mut client, "rule-14-epoch", (id, 0), 1, 1).0, ErrorCode::InvalidProducerEpoch);
    assert_eq!(send(&mut client, "rule-14-epoch", (id, 1), 1, 1), (ErrorCode::None, 2));
}

#[test]
fn rule_14_an_id_without_state_starts_anywhere_and_sequences_wrap_to_0() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-14-wrap", 1, &[]);
    let producer = (client.init_producer_id(), 0);
    // 2³¹−3, 2³¹−2, then 2³¹−1, 0, 1.
    assert_eq!(send(&mut client, "rule-14-wrap", producer, i32::MAX - 2, 2), (ErrorCode::None, 0));
    assert_eq!(send(&mut client, "rule-14-wrap", producer, i32::MAX, 3), (ErrorCode::None, 2));
    assert_eq!(send(&mut client, "rule-14-wrap", producer, i32::MAX, 3), (ErrorCode::None, 2), "a duplicate");
    assert_eq!(send(&mut client, "rule-14-wrap", producer, 3, 1).0, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(send(&mut client, "rule-14-wrap", producer, 2, 1), (ErrorCode::None, 5));
    assert_eq!(client.fetch("rule-14-wrap", 0, 0).high_watermark, 6);
}

#[test]
fn rule_14_partitions_keep_their_own_sequences() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-14-two", 2, &[]);
    let id = client.init_producer_id();
    for sequence in 0..3 {
        for partition in 0..2 {
            let answer = client.produce("rule-14-two", partition, &sequenced(id, 0, sequence, &[b"value"]));
            assert_eq!((code(answer.error_code), answer.base_offset), (ErrorCode::None, i64::from(sequence)));
        }
    }
}

#[test]
fn rule_14_ids_never_repeat_and_transactional_ones_are_refused() {
    let shared = Shared::broker();
    let (mut one, mut other) = (shared.client(), shared.client());
    let mut ids: Vec<i64> =
        (0..50).flat_map(|_| [one.init_producer_id(), other.init_producer_id()]).map(|id| id.value()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100);
    for version in 0..=5 {
        for (id, expected) in [("a transaction", ErrorCode::InvalidTxnState), ("", ErrorCode::InvalidRequest)] {
            let id = TransactionalId(StrBytes::from_static_str(id));
            let request =
                InitProducerIdRequest::default().with_transactional_id(Some(id)).with_transaction_timeout_ms(1000);
            assert_eq!(code(one.call(version, &request).error_code), expected, "version {version}");
        }
        let plain = one.call(version, &InitProducerIdRequest::default().with_transactional_id(None));
        assert_eq!((code(plain.error_code), plain.producer_epoch), (ErrorCode::None, 0), "version {version}");
    }
}
