//! Which batches are taken, what the answer to the others is, and what a broker changes in those that it takes.
//!
//! Positions in a batch are those of the drawing in `corelane::record`'s header module. One partition's error leaves the
//! others alone; nothing that is refused is ever seen by a consumer.

use bytes::Bytes;
use corelane::record::{Codec, TimestampType};
use corelane::types::ErrorCode;
use corelane::wire::client::messages::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelane::wire::messages::{ApiVersionsRequest, MetadataRequest, MetadataRequestTopic, StrBytes, TransactionalId};
use corelane::wire::{ApiKey, CorrelationId};

use super::Shared;
use super::clients::wire::{
    BATCH_TIME, Client, PRODUCE_BY_ID, PRODUCE_BY_NAME, batch, batches, code, compressed, fetch_request,
    produce_request, timed, topic_name,
};
use super::clients::{eventually, noise};

const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const PRODUCER_ID_AT: usize = 43;
const BASE_SEQUENCE_AT: usize = 53;
const RECORD_COUNT_AT: usize = 57;

/// `batch` with `bytes` written over it at `position`, and a CRC that fits again.
fn patched(mut batch: Vec<u8>, position: usize, bytes: &[u8]) -> Vec<u8> {
    batch[position..position + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// What the broker answers to `batch` in a request of this version.
fn answer(client: &mut Client, version: i16, topic: &str, batch: &[u8]) -> ErrorCode {
    let request = produce_request(topic, 0, batch, -1);
    code(client.call(version, &request).responses[0].partition_responses[0].error_code)
}

/// A classic Produce request of versions 0 to 2 for one partition: no codec writes them any more.
fn old_produce(version: i16, correlation: i32, topic: &str, acks: i16) -> Vec<u8> {
    let mut frame = vec![0, 0];
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&correlation.to_be_bytes());
    frame.extend_from_slice(&(-1i16).to_be_bytes());
    frame.extend_from_slice(&acks.to_be_bytes());
    frame.extend_from_slice(&1000i32.to_be_bytes());
    frame.extend_from_slice(&1i32.to_be_bytes());
    frame.extend_from_slice(&(topic.len() as i16).to_be_bytes());
    frame.extend_from_slice(topic.as_bytes());
    frame.extend_from_slice(&1i32.to_be_bytes());
    frame.extend_from_slice(&0i32.to_be_bytes());
    let records = batch(&[b"refused"]);
    frame.extend_from_slice(&(records.len() as i32).to_be_bytes());
    frame.extend_from_slice(&records);
    frame
}

#[test]
fn rule_07_produce_is_listed_from_version_0_which_answers_unsupported_version() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-07", 1, &[]);
    let listed = client.call(0, &ApiVersionsRequest::default()).api_keys;
    let produce = listed.iter().find(|api| api.api_key == ApiKey::Produce.code()).expect("Produce is listed");
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    for version in 0..=2 {
        let correlation = 1000 + i32::from(version);
        client.send_frame(&old_produce(version, correlation, "rule-07", 1));
        let frame = client.receive_frame();
        let mut expected = CorrelationId(correlation).0.to_be_bytes().to_vec();
        expected.extend_from_slice(&[0, 0, 0, 1, 0, 7]);
        expected.extend_from_slice(b"rule-07");
        // One partition, index 0, error 35, no offset.
        expected.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 35]);
        expected.extend_from_slice(&(-1i64).to_be_bytes());
        if version >= 2 {
            expected.extend_from_slice(&(-1i64).to_be_bytes());
        }
        if version >= 1 {
            expected.extend_from_slice(&[0; 4]);
        }
        assert_eq!(frame, expected, "version {version}");
    }
    assert_eq!(client.fetch("rule-07", 0, 0).high_watermark, 0);
}

#[test]
fn rule_09_acks_0_gets_no_answer() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-09", 1, &[]);
    for version in [3, 8, 9, PRODUCE_BY_NAME] {
        let unanswered = client.encode(version, &produce_request("rule-09", 0, &batch(&[b"silent"]), 0)).0;
        client.send_bytes(&unanswered);
    }
    // The next answer on the connection is that of the next request.
    assert_eq!(code(client.call(0, &ApiVersionsRequest::default()).error_code), ErrorCode::None);
    eventually("the records are there", || (client.fetch("rule-09", 0, 0).high_watermark == 4).then_some(()));
}

#[test]
fn rule_09_an_error_with_acks_0_closes_the_connection() {
    let shared = Shared::broker();
    let mut neighbour = shared.client();
    neighbour.create_topic("rule-09-error", 1, &[]);
    let mut corrupt = batch(&[b"corrupt"]);
    *corrupt.last_mut().expect("bytes") ^= 1;
    for (topic, batch) in [("rule-09-unknown", batch(&[b"lost"])), ("rule-09-error", corrupt)] {
        let mut client = shared.client();
        client.send(9, &produce_request(topic, 0, &batch, 0));
        client.assert_closed();
    }
    shared.await_log(&["acks=0", "CORRUPT_MESSAGE", "127.0.0.1"]);
    assert_eq!(neighbour.append("rule-09-error", 0, &batch(&[b"kept"])), 0);
}

#[test]
fn rule_10_a_partition_gets_exactly_one_batch_of_version_2() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-10", 1, &[]);
    let good = batch(&[b"a", b"b"]);
    let mut magic = good.clone();
    for (name, batch, expected) in [
        ("no batch", Vec::new(), ErrorCode::InvalidRecord),
        ("two batches", [good.clone(), good.clone()].concat(), ErrorCode::InvalidRecord),
        ("half a batch", good[..good.len() / 2].to_vec(), ErrorCode::CorruptMessage),
        (
            "magic 0",
            {
                magic[MAGIC_AT] = 0;
                magic.clone()
            },
            ErrorCode::UnsupportedForMessageFormat,
        ),
        (
            "magic 1",
            {
                magic[MAGIC_AT] = 1;
                magic.clone()
            },
            ErrorCode::UnsupportedForMessageFormat,
        ),
        (
            "magic 3",
            {
                magic[MAGIC_AT] = 3;
                magic.clone()
            },
            ErrorCode::CorruptMessage,
        ),
    ] {
        assert_eq!(answer(&mut client, PRODUCE_BY_NAME, "rule-10", &batch), expected, "{name}");
    }
    assert_eq!(client.fetch("rule-10", 0, 0).high_watermark, 0, "nothing of them was appended");
    assert_eq!(client.append("rule-10", 0, &good), 0);
}

#[test]
fn rule_10_headers_and_records_are_checked_before_they_are_appended() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-10-checked", 1, &[]);
    let good = batch(&[b"a", b"b"]);
    let mut crc = good.clone();
    *crc.last_mut().expect("bytes") ^= 1;
    let bits = |bits: u16| patched(good.clone(), ATTRIBUTES_AT, &bits.to_be_bytes());
    let last = good.len() - 1;
    for (name, batch, expected) in [
        ("a CRC that does not fit", crc, ErrorCode::CorruptMessage),
        (
            "a count above the deltas",
            patched(good.clone(), RECORD_COUNT_AT, &3i32.to_be_bytes()),
            ErrorCode::InvalidRecord,
        ),
        ("a count of 0", patched(good.clone(), RECORD_COUNT_AT, &0i32.to_be_bytes()), ErrorCode::InvalidRecord),
        ("a negative count", patched(good.clone(), RECORD_COUNT_AT, &(-1i32).to_be_bytes()), ErrorCode::InvalidRecord),
        (
            "a last offset delta beyond",
            patched(good.clone(), LAST_OFFSET_DELTA_AT, &9i32.to_be_bytes()),
            ErrorCode::InvalidRecord,
        ),
        ("a control batch", bits(1 << 5), ErrorCode::InvalidRecord),
        ("log append time", bits(1 << 3), ErrorCode::InvalidTimestamp),
        ("codec 5", bits(5), ErrorCode::UnsupportedCompressionType),
        ("a codec that it is not", bits(Codec::Gzip as u16), ErrorCode::InvalidRecord),
        (
            "an id without a sequence",
            patched(good.clone(), PRODUCER_ID_AT, &7i64.to_be_bytes()),
            ErrorCode::InvalidRecord,
        ),
        // The last record's number of headers: −1 as a zigzag varint.
        ("records that are none", patched(good.clone(), last, &[1]), ErrorCode::InvalidRecord),
        ("a record longer than the batch", patched(good.clone(), 61, &[0x7e]), ErrorCode::InvalidRecord),
    ] {
        assert_eq!(answer(&mut client, PRODUCE_BY_NAME, "rule-10-checked", &batch), expected, "{name}");
    }
    let sequence = patched(good.clone(), BASE_SEQUENCE_AT, &0i32.to_be_bytes());
    assert_ne!(answer(&mut client, 9, "rule-10-other", &sequence), ErrorCode::None, "a topic that is not there");
    assert_eq!(client.fetch("rule-10-checked", 0, 0).high_watermark, 0, "nothing of them was appended");
}

#[test]
fn rule_10_zstd_is_taken_from_version_7_on() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-10-zstd", 1, &[]);
    let zstd = compressed(Codec::Zstd, &[&[b'z'; 1000]]);
    for version in 3..7 {
        let refused = answer(&mut client, version, "rule-10-zstd", &zstd);
        assert_eq!(refused, ErrorCode::UnsupportedCompressionType, "version {version}");
    }
    for version in 7..=PRODUCE_BY_NAME {
        assert_eq!(answer(&mut client, version, "rule-10-zstd", &zstd), ErrorCode::None, "version {version}");
    }
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4] {
        let older = compressed(codec, &[&[b'z'; 1000]]);
        assert_eq!(answer(&mut client, 3, "rule-10-zstd", &older), ErrorCode::None, "{codec} in version 3");
    }
}

#[test]
fn rule_10_timestamps_too_far_from_the_brokers_are_refused() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let limits = [("message.timestamp.before.max.ms", "3600000"), ("message.timestamp.after.max.ms", "3600000")];
    client.create_topic("rule-10-times", 1, &limits);
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as i64;
    for (name, time, expected) in [
        ("now", now, ErrorCode::None),
        ("two hours late", now - 7_200_000, ErrorCode::InvalidTimestamp),
        ("two hours early", now + 7_200_000, ErrorCode::InvalidTimestamp),
    ] {
        assert_eq!(answer(&mut client, 9, "rule-10-times", &timed(time, b"x")), expected, "{name}");
    }
}

#[test]
fn rule_10_acks_other_than_0_1_and_all_are_refused() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-10-acks", 1, &[]);
    for acks in [2, -2, i16::MAX, i16::MIN] {
        let request = produce_request("rule-10-acks", 0, &batch(&[b"x"]), acks);
        let answer = client.call(9, &request);
        assert_eq!(code(answer.responses[0].partition_responses[0].error_code), ErrorCode::InvalidRequiredAcks);
    }
    assert_eq!(client.fetch("rule-10-acks", 0, 0).high_watermark, 0);
}

#[test]
fn rule_11_an_answer_holds_exactly_the_partitions_of_the_request() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-11", 2, &[]);
    let data = |index, records: Vec<u8>| {
        PartitionProduceData::default().with_index(index).with_records(Some(Bytes::from(records)))
    };
    let topic = |name, data| TopicProduceData::default().with_name(topic_name(name)).with_partition_data(data);
    let mut corrupt = batch(&[b"corrupt"]);
    *corrupt.last_mut().expect("bytes") ^= 1;
    let topics = vec![
        topic(
            "rule-11",
            vec![
                data(1, corrupt),
                data(0, batch(&[b"good"])),
                data(7, batch(&[b"nowhere"])),
                data(-1, batch(&[b"nowhere"])),
            ],
        ),
        topic("rule-11-unknown", vec![data(0, batch(&[b"nowhere"]))]),
    ];
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(topics);
    for version in 3..=PRODUCE_BY_NAME {
        let answered: Vec<_> = client
            .call(version, &request)
            .responses
            .into_iter()
            .flat_map(|topic| topic.partition_responses.into_iter().map(move |found| (topic.name.to_string(), found)))
            .map(|(name, found)| (name, found.index, code(found.error_code)))
            .collect();
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let expected = [
            ("rule-11", 1, ErrorCode::CorruptMessage),
            ("rule-11", 0, ErrorCode::None),
            ("rule-11", 7, unknown),
            ("rule-11", -1, unknown),
            ("rule-11-unknown", 0, unknown),
        ];
        assert_eq!(answered, expected.map(|(name, index, code)| (name.to_owned(), index, code)), "version {version}");
    }
}

#[test]
fn rule_11_topics_are_produced_to_by_id_from_version_13_on() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let id = client.create_topic("rule-11-id", 1, &[]);
    for (id, expected) in
        [(id, ErrorCode::None), (corelane::wire::messages::Uuid::from_bytes([9; 16]), ErrorCode::UnknownTopicId)]
    {
        let mut request = produce_request("", 0, &batch(&[b"by id"]), -1);
        request.topic_data[0].topic_id = id;
        let answer = client.call(PRODUCE_BY_ID, &request).responses.remove(0);
        assert_eq!((answer.topic_id, code(answer.partition_responses[0].error_code)), (id, expected));
    }
}

#[test]
fn rule_12_a_batch_above_max_message_bytes_is_too_large() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-12", 1, &[("max.message.bytes", "1000")]);
    client.create_topic("rule-12-default", 1, &[]);
    let of_size = |bytes: usize| {
        let overhead = batch(&[&noise(1, 800)]).len() - 800;
        let made = batch(&[&noise(1, bytes - overhead)]);
        assert_eq!(made.len(), bytes);
        made
    };
    assert_eq!(answer(&mut client, 9, "rule-12", &of_size(1000)), ErrorCode::None);
    assert_eq!(answer(&mut client, 9, "rule-12", &of_size(1001)), ErrorCode::MessageTooLarge);
    let zeros = vec![0; 10_000];
    let packed = compressed(Codec::Zstd, &[&zeros]);
    assert!(packed.len() < 1000);
    assert_eq!(answer(&mut client, 9, "rule-12", &packed), ErrorCode::None, "it counts as it comes");
    let large = noise(2, 1 << 20);
    assert_eq!(answer(&mut client, 9, "rule-12-default", &batch(&[&large[..1_048_000]])), ErrorCode::None);
    assert_eq!(answer(&mut client, 9, "rule-12-default", &batch(&[&large])), ErrorCode::MessageTooLarge);
}

#[test]
fn rule_13_offset_and_leader_epoch_are_stamped_and_the_crc_stays() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-13", 1, &[]);
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name("rule-13")));
    let metadata = client.call(12, &MetadataRequest::default().with_topics(Some(vec![topic])));
    let epoch = metadata.topics[0].partitions[0].leader_epoch;
    assert!(epoch >= 0);
    let clean = batch(&[b"one", b"two", b"three"]);
    // A client's own offset and leader epoch mean nothing.
    let mut odd = clean.clone();
    odd[..8].copy_from_slice(&1234i64.to_be_bytes());
    odd[12..16].copy_from_slice(&77i32.to_be_bytes());
    for (expected, produced) in [(0, &clean), (3, &odd), (6, &clean)] {
        assert_eq!(client.append("rule-13", 0, produced), expected);
    }
    let data = client.fetch("rule-13", 0, 0);
    let stored = batches(&data);
    let offsets: Vec<_> = stored.iter().map(|batch| batch.base_offset().value()).collect();
    assert_eq!(offsets, [0, 3, 6]);
    for found in stored {
        assert_eq!(found.leader_epoch().map(|epoch| epoch.value()), Some(epoch));
        assert_eq!(found.bytes()[MAGIC_AT..], clean[MAGIC_AT..], "everything else is as it was sent");
    }
}

#[test]
fn rule_13_log_append_time_is_stamped_with_a_new_crc() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-13-time", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let answer = client.produce("rule-13-time", 0, &batch(&[b"one", b"two"]));
    assert_eq!(code(answer.error_code), ErrorCode::None);
    assert!(answer.log_append_time_ms > BATCH_TIME);
    let data = client.fetch("rule-13-time", 0, 0);
    // `batches` has checked the CRC.
    let stored = batches(&data)[0];
    assert_eq!(stored.attributes().timestamp_type(), TimestampType::LogAppend);
    assert_eq!(stored.max_timestamp().map(|time| time.millis()), Some(answer.log_append_time_ms));
}

#[test]
fn rule_14_transactions_are_refused_while_there_are_none() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-14-transactions", 1, &[]);
    let id = TransactionalId(StrBytes::from_static_str("a transaction"));
    let request = produce_request("rule-14-transactions", 0, &batch(&[b"x"]), -1).with_transactional_id(Some(id));
    let refused = client.call(9, &request);
    assert_eq!(code(refused.responses[0].partition_responses[0].error_code), ErrorCode::InvalidTxnState);
    let producer = client.init_producer_id();
    let sequenced = super::clients::wire::sequenced(producer, 0, 0, &[b"x"]);
    let transactional = patched(sequenced, ATTRIBUTES_AT, &(1u16 << 4).to_be_bytes());
    assert_eq!(answer(&mut client, 9, "rule-14-transactions", &transactional), ErrorCode::InvalidTxnState);
    let fetched = client.fetch_all(&fetch_request(&[("rule-14-transactions", 0, 0, 1 << 20)])).remove(0);
    assert_eq!((fetched.high_watermark, fetched.last_stable_offset), (0, 0));
}
