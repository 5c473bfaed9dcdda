//! Keys that decide what becomes of produced batches: which are taken, what time and codec they get, and how long a producer
//! is remembered.
//!
//! Every effect is seen before the key is set, while it is, and after it was reset.

use corelane::record::{Codec, RecordBatch, TimestampType};
use corelane::types::{ErrorCode, Timestamp};

use super::Setting;
use super::clients::wire::{BATCH_TIME, batch, batches, code, compressed, sequenced, timed};
use super::clients::{eventually, noise};

/// What the broker answers to a batch.
fn answer(setting: &mut Setting, batch: &[u8]) -> ErrorCode {
    code(setting.client.produce(&setting.topic, 0, batch).error_code)
}

/// Milliseconds since 1970, by the clock that broker and test share.
#[allow(clippy::disallowed_methods)]
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("not that late")
}

pub(crate) fn min_insync_replicas(setting: &mut Setting) {
    setting.create_topic(&[]);
    assert_eq!(answer(setting, &batch(&[b"1 of 1"])), ErrorCode::None);
    setting.set("2");
    assert_eq!(answer(setting, &batch(&[b"1 of 2"])), ErrorCode::NotEnoughReplicas);
    setting.reset();
    assert_eq!(answer(setting, &batch(&[b"1 of 1"])), ErrorCode::None);
}

pub(crate) fn max_message_bytes(setting: &mut Setting) {
    setting.create_topic(&[]);
    let (small, large) = (batch(&[&noise(1, 1000)]), batch(&[&noise(2, 2_500_000)]));
    assert_eq!(answer(setting, &small), ErrorCode::None);
    assert_eq!(answer(setting, &large), ErrorCode::MessageTooLarge);
    setting.set("500");
    assert_eq!(answer(setting, &small), ErrorCode::MessageTooLarge);
    setting.set("3000000");
    assert_eq!(answer(setting, &large), ErrorCode::None);
    setting.reset();
    assert_eq!(answer(setting, &large), ErrorCode::MessageTooLarge);
}

pub(crate) fn timestamp_type(setting: &mut Setting) {
    setting.create_topic(&[]);
    let produce = |setting: &mut Setting| {
        let answer = setting.client.produce(&setting.topic, 0, &timed(BATCH_TIME, b"value"));
        assert_eq!(code(answer.error_code), ErrorCode::None);
        let fetched = setting.client.fetch(&setting.topic, 0, answer.base_offset);
        let found = batches(&fetched);
        let told = (found[0].attributes().timestamp_type(), found[0].max_timestamp().map_or(-1, Timestamp::millis));
        (answer, told)
    };
    let (answer, stored) = produce(setting);
    assert_eq!((answer.log_append_time_ms, stored), (-1, (TimestampType::Create, BATCH_TIME)));

    setting.set("LogAppendTime");
    let before = now();
    let (answer, (timestamp_type, max_timestamp)) = produce(setting);
    let appended = answer.log_append_time_ms;
    assert!((before..=now()).contains(&appended), "{appended} is not the time of the append, about {before}");
    assert_eq!((timestamp_type, max_timestamp), (TimestampType::LogAppend, appended), "one time for both");
    // The time of the append is what offsets are found by, and the latest that the log holds.
    for wanted in [BATCH_TIME + 1, appended, -3] {
        let found = setting.client.list_offset(7, &setting.topic, 0, wanted);
        assert_eq!((found.offset, found.timestamp), (answer.base_offset, appended), "{wanted}");
    }

    setting.reset();
    let (answer, stored) = produce(setting);
    assert_eq!((answer.log_append_time_ms, stored), (-1, (TimestampType::Create, BATCH_TIME)));
}

pub(crate) fn timestamp_before(setting: &mut Setting) {
    setting.create_topic(&[]);
    let old = timed(BATCH_TIME, b"old");
    assert_eq!(answer(setting, &old), ErrorCode::None);
    setting.set("60000");
    assert_eq!(answer(setting, &old), ErrorCode::InvalidTimestamp);
    assert_eq!(answer(setting, &timed(now() - 1000, b"new")), ErrorCode::None);
    setting.reset();
    assert_eq!(answer(setting, &old), ErrorCode::None);
}

pub(crate) fn timestamp_after(setting: &mut Setting) {
    setting.create_topic(&[]);
    let ahead = |minutes: i64| timed(now() + minutes * 60_000, b"ahead");
    assert_eq!(answer(setting, &ahead(10)), ErrorCode::None);
    assert_eq!(answer(setting, &ahead(120)), ErrorCode::InvalidTimestamp);
    setting.set("60000");
    assert_eq!(answer(setting, &ahead(10)), ErrorCode::InvalidTimestamp);
    setting.set("36000000");
    assert_eq!(answer(setting, &ahead(120)), ErrorCode::None);
    setting.reset();
    assert_eq!(answer(setting, &ahead(120)), ErrorCode::InvalidTimestamp);
}

/// Has the broker take `batch`, and shows `look` the batch that it stored.
fn stored<T>(setting: &mut Setting, batch: &[u8], look: impl Fn(&RecordBatch<'_>) -> T) -> T {
    let offset = setting.client.append(&setting.topic, 0, batch);
    let fetched = setting.client.fetch(&setting.topic, 0, offset);
    look(&batches(&fetched)[0])
}

pub(crate) fn compression_type(setting: &mut Setting) {
    setting.create_topic(&[]);
    let values: Vec<&[u8]> = vec![b"value value value"; 50];
    let codecs = |setting: &mut Setting| {
        let stored_as = |codec| stored(setting, &compressed(codec, &values), |batch| batch.codec());
        Codec::ALL.map(stored_as)
    };
    assert_eq!(codecs(setting), Codec::ALL, "as the producer wants it");
    for codec in Codec::ALL {
        setting.set(if codec == Codec::None { "uncompressed" } else { codec.name() });
        assert_eq!(codecs(setting), [codec; 5], "{codec}");
    }
    setting.set("producer");
    assert_eq!(codecs(setting), Codec::ALL, "as the producer wants it");
    setting.set("gzip");
    setting.reset();
    assert_eq!(codecs(setting), Codec::ALL, "as the producer wants it");
}

/// Text that packs smaller the harder a codec tries.
fn text() -> Vec<u8> {
    let words = (0..20_000).map(|number| format!("{} of {} ", number * 7919 % 10_007, number));
    words.collect::<String>().into_bytes()
}

fn level(setting: &mut Setting, compression: &str, levels: [&str; 3]) {
    setting.create_topic(&[("compression.type", compression)]);
    let plain = batch(&[&text()]);
    let bytes = |setting: &mut Setting| stored(setting, &plain, |batch| batch.bytes().len());
    let usual = bytes(setting);
    let [least, same, most] = levels.map(|level| {
        setting.set(level);
        bytes(setting)
    });
    assert!(least > usual && usual > most, "{least}, {usual}, {most} bytes");
    assert_eq!(same, usual, "the codec's own level");
    setting.reset();
    assert_eq!(bytes(setting), usual);
}

pub(crate) fn gzip_level(setting: &mut Setting) {
    level(setting, "gzip", ["1", "6", "9"]);
}

pub(crate) fn zstd_level(setting: &mut Setting) {
    level(setting, "zstd", ["-50", "3", "19"]);
}

pub(crate) fn producer_expiration(setting: &mut Setting) {
    setting.create_topic(&[]);
    let producer = setting.client.init_producer_id();
    let mut sequence = 0;
    let mut skip = |setting: &mut Setting, by: i32| {
        let answered = answer(setting, &sequenced(producer, 0, sequence + by, &[b"value"]));
        if answered == ErrorCode::None {
            sequence += by + 1;
        }
        answered
    };
    assert_eq!(skip(setting, 0), ErrorCode::None);
    assert_eq!(skip(setting, 10), ErrorCode::OutOfOrderSequenceNumber, "the producer is remembered");
    setting.set("1");
    // A producer that is forgotten may begin anywhere.
    eventually("the producer is forgotten", || (skip(setting, 10) == ErrorCode::None).then_some(()));
    setting.reset();
    // Time enough for a few looks: it is not forgotten any more.
    let producer = setting.client.init_producer_id();
    assert_eq!(answer(setting, &sequenced(producer, 0, 0, &[b"value"])), ErrorCode::None);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(answer(setting, &sequenced(producer, 0, 5, &[b"value"])), ErrorCode::OutOfOrderSequenceNumber);
}
