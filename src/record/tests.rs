//! Tests of record batches as a whole: bytes made by an encoder that we did not write, round trips, and hostile input.
//!
//! The golden batches come from kafka-python 3.0.12 (`DefaultRecordBatchBuilder`), its codecs python-lz4, zstandard, cramjam
//! and zlib: three records, with equal header keys, null and empty keys and values, and a timestamp before the first one's.

mod recompress;

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::types::{ErrorCode, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

const PLAIN: &str = "\
    0000000000000000000000cf0000000002e4623b110000000000020000018bcfe5687b0000018bcfe57b88000000000000126700037fff\
    fffe000000039a02000000066b6579f00176616c75652076616c75652076616c75652076616c75652076616c75652076616c7565207661\
    6c75652076616c75652076616c75652076616c75652076616c75652076616c75652076616c75652076616c75652076616c75652076616c\
    75652076616c75652076616c75652076616c75652076616c756520060268023102680104c3bc000c002d020100000e009a4c04000100\
";
const GZIP: &str = "\
    0000000000000000000000730000000002717241660001000000020000018bcfe5687b0000018bcfe57b88ffffffffffffffffffffffff\
    ffff000000031f8b0800a56c046b02ff9bc5c4c0c0c0969d5af981b12c31a7345581fe241b53069321530623cbe13d0c3c0cba4c8c0c0c\
    7c0cb37c5818181900302454a49e000000\
";
const SNAPPY_XERIAL: &str = "\
    00000000000000000000007b0000000002adc11c060002000000020000018bcfe5687b0000018bcfe57b88ffffffffffffffffffffffff\
    ffff0000000382534e41505059000000000100000001000000369e01409a02000000066b6579f00176616c756520fe0600c60600680602\
    68023102680104c3bc000c002d020100000e009a4c04000100\
";
const LZ4: &str = "\
    00000000000000000000007b000000000279adcc390003000000020000018bcfe5687b0000018bcfe57b88ffffffffffffffffffffffff\
    ffff0000000304224d1868409e00000000000000d433000000ff029a02000000066b6579f00176616c75652006005ff00c060268023102\
    680104c3bc000c002d020100000e009a4c0400010000000000\
";
const ZSTD: &str = "\
    00000000000000000000006e0000000002d5d9a6410004000000020000018bcfe5687b0000018bcfe57b88ffffffffffffffffffffffff\
    ffff0000000328b52ffd209ea50100c4029a02000000066b6579f00176616c756520060268023102680104c3bc000c002d020100000e00\
    9a4c0400010001005fd2b204\
";
const SNAPPY_RAW: &str = "\
    000000000000000000000067000000000297d3a8840002000000020000018bcfe5687b0000018bcfe57b88ffffffffffffffffffffffff\
    ffff000000039e01409a02000000066b6579f00176616c756520fe0600c6060068060268023102680104c3bc000c002d020100000e009a\
    4c04000100\
";

const NOW: i64 = 1_700_000_006_000;

const RULES: ProduceRules = ProduceRules {
    batch_bytes_max: 1 << 20,
    zstd_allowed: true,
    key_required: false,
    timestamp_type: TimestampType::Create,
    timestamp_before_max_ms: u64::MAX,
    timestamp_after_max_ms: 3_600_000,
    decompress: DecompressLimits::DEFAULT,
};

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::new(millis).unwrap()
}

fn header(key: &'static str, value: Option<&'static [u8]>) -> Header<'static> {
    Header { key: key.as_bytes(), value }
}

fn append_golden(builder: &mut BatchBuilder) {
    let headers = [header("h", Some(b"1")), header("h", None), header("ü", Some(b""))];
    builder.append(Some(at(1_700_000_000_123)), Some(b"key"), Some(&b"value ".repeat(20)), &headers);
    builder.append(Some(at(1_700_000_000_100)), None, Some(b""), &[]);
    builder.append(Some(at(1_700_000_005_000)), Some(b""), None, &[]);
}

/// A good batch of the golden records.
fn batch(codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    append_golden(&mut builder);
    builder.finish().unwrap().unwrap().to_vec()
}

/// Makes length and CRC right again after a change.
fn reseal(batch: &mut [u8]) {
    let length = (batch.len() - LOG_OVERHEAD) as i32;
    let (header, records) = BatchHeader::mut_from_prefix(batch).unwrap();
    header.batch_length.set(length);
    header.crc.set(batch_crc(header, records));
}

/// The golden batch with other fields in its header.
fn with_header(change: impl Fn(&mut BatchHeader)) -> Vec<u8> {
    let mut bytes = batch(Codec::None);
    change(BatchHeader::mut_from_prefix(&mut bytes).unwrap().0);
    reseal(&mut bytes);
    bytes
}

/// A batch that says it has `count` records, with these bytes as its records.
fn batch_of(codec: Codec, count: i32, records: &[u8]) -> Vec<u8> {
    let mut bytes = with_header(|header| {
        header.attributes.set(Attributes::new(codec).bits());
        header.record_count.set(count);
        header.last_offset_delta.set(count - 1);
    });
    bytes.truncate(HEADER_BYTES);
    bytes.extend_from_slice(records);
    reseal(&mut bytes);
    bytes
}

fn validate(bytes: &[u8]) -> Result<ProducedBatch<'_>, ProduceError> {
    validate_produce(bytes, at(NOW), &RULES, &mut Decompressors::new())
}

fn checked(bytes: &[u8]) -> RecordBatch<'_> {
    UncheckedBatch::frame(bytes, usize::MAX).unwrap().check().unwrap()
}

type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    timestamp: Option<Timestamp>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
}

fn read_all(batch: &RecordBatch<'_>, decompressors: &mut Decompressors) -> Result<Vec<Owned>, RecordError> {
    let mut reader = RecordReader::new(batch, decompressors, &DecompressLimits::DEFAULT);
    let mut all = Vec::new();
    while let Some(record) = reader.next_record() {
        let record = record?;
        assert_eq!(record.offset_delta as usize, all.len());
        all.push(Owned {
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect(),
        });
    }
    assert!(reader.next_record().is_none());
    Ok(all)
}

fn golden_records() -> Vec<Owned> {
    let headers =
        vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"h".to_vec(), None), ("ü".as_bytes().to_vec(), Some(vec![]))];
    let record = |millis, key: Option<&[u8]>, value: Option<&[u8]>, headers| Owned {
        timestamp: Some(at(millis)),
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers,
    };
    vec![
        record(1_700_000_000_123, Some(b"key"), Some(&b"value ".repeat(20)), headers),
        record(1_700_000_000_100, None, Some(b""), vec![]),
        record(1_700_000_005_000, Some(b""), None, vec![]),
    ]
}

#[test]
fn the_builder_writes_the_golden_bytes() {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.set_producer(Some(Producer {
        id: ProducerId::new(4711).unwrap(),
        epoch: ProducerEpoch::new(3).unwrap(),
        base_sequence: Sequence::new(i32::MAX - 1).unwrap(),
    }));
    append_golden(&mut builder);
    let mut golden = unhex(PLAIN);
    assert_eq!((builder.record_count(), builder.bytes()), (3, golden.len()));
    // That encoder leaves epoch 0 where a client has none.
    golden[12..16].fill(0xff);
    assert_eq!(builder.finish().unwrap().unwrap(), golden);
    assert_eq!(builder.finish().unwrap(), None, "the records are gone");
}

#[test]
fn golden_batches_of_every_codec_are_read() {
    let mut decompressors = Decompressors::new();
    for (text, codec) in [
        (PLAIN, Codec::None),
        (GZIP, Codec::Gzip),
        (SNAPPY_XERIAL, Codec::Snappy),
        (SNAPPY_RAW, Codec::Snappy),
        (LZ4, Codec::Lz4),
        (ZSTD, Codec::Zstd),
    ] {
        let bytes = unhex(text);
        let batch = checked(&bytes);
        assert_eq!((batch.codec(), batch.record_count(), batch.last_offset()), (codec, 3, Offset::ZERO.plus(2)));
        assert_eq!(batch.max_timestamp(), Timestamp::new(1_700_000_005_000));
        assert_eq!(read_all(&batch, &mut decompressors), Ok(golden_records()), "{codec}");
        let produced = validate_produce(&bytes, at(NOW), &RULES, &mut decompressors).unwrap();
        assert_eq!(produced.max_timestamp(), batch.max_timestamp());
        assert_eq!(produced.bytes(), bytes);
    }
    let bytes = unhex(PLAIN);
    let producer = validate(&bytes).unwrap().producer().unwrap();
    let numbers = (producer.id.value(), producer.epoch.value(), producer.base_sequence.value());
    assert_eq!(numbers, (4711, 3, i32::MAX - 1));
}

#[test]
fn the_header_rules_of_produce() {
    let invalid = ErrorCode::InvalidRecord;
    type Change = fn(&mut BatchHeader);
    let rows: [(Change, ProduceError, ErrorCode); 10] = [
        (|h| h.record_count.set(2), ProduceError::RecordCount { found: 2, last_offset_delta: 2 }, invalid),
        (|h| h.record_count.set(-1), ProduceError::RecordCount { found: -1, last_offset_delta: 2 }, invalid),
        (|h| h.last_offset_delta.set(-1), ProduceError::RecordCount { found: 3, last_offset_delta: -1 }, invalid),
        (|h| h.attributes.set(1 << 5), ProduceError::Control, invalid),
        (|h| h.attributes.set(1 << 6), ProduceError::DeleteHorizon, invalid),
        (|h| h.attributes.set(1 << 4), ProduceError::TransactionalWithoutProducer, invalid),
        (|h| h.attributes.set(1 << 3), ProduceError::LogAppendTime, ErrorCode::InvalidTimestamp),
        (|h| h.attributes.set(5), ProduceError::UnknownCodec { found: 5 }, ErrorCode::UnsupportedCompressionType),
        (
            |h| (h.producer_id.set(7), h.producer_epoch.set(0)).1,
            ProduceError::Producer { producer_id: 7, epoch: 0, base_sequence: -1 },
            invalid,
        ),
        (
            |h| (h.producer_id.set(7), h.base_sequence.set(0)).1,
            ProduceError::Producer { producer_id: 7, epoch: -1, base_sequence: 0 },
            invalid,
        ),
    ];
    for (change, error, code) in rows {
        assert_eq!(validate(&with_header(change)).unwrap_err(), error);
        assert_eq!(error.code(), code, "{error}");
    }
    // What a client says of offset and leader epoch does not matter.
    let odd = with_header(|h| (h.base_offset.set(-5), h.leader_epoch.set(-9)).1);
    assert!(validate(&odd).is_ok());
    assert!(matches!(
        UncheckedBatch::frame(&odd, 1000).unwrap().check(),
        Err(BatchError::Offsets { base: -5, delta: 2 })
    ));
}

#[test]
fn produce_takes_exactly_one_batch_of_format_2() {
    let good = batch(Codec::None);
    assert_eq!(validate(&[]).unwrap_err(), ProduceError::Empty);
    let two = [&good[..], &good[..]].concat();
    assert_eq!(validate(&two).unwrap_err(), ProduceError::MoreThanOne { bytes: good.len() });
    for magic in [0, 1] {
        let mut old = good.clone();
        old[MAGIC_AT] = magic;
        // A message of the old formats may be shorter than a header of this one.
        old[8..12].copy_from_slice(&14i32.to_be_bytes());
        let error = validate(&old[..26]).unwrap_err();
        assert_eq!(error, ProduceError::Frame(FrameError::Magic { found: magic }));
        assert_eq!(error.code(), ErrorCode::UnsupportedForMessageFormat);
    }
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(validate(&flipped).unwrap_err().code(), ErrorCode::CorruptMessage);
    let small = ProduceRules { batch_bytes_max: good.len() - 1, ..RULES };
    let error = validate_produce(&good, at(NOW), &small, &mut Decompressors::new()).unwrap_err();
    assert_eq!(error, ProduceError::TooLarge { found: good.len(), max: good.len() - 1 });
    assert_eq!(error.code(), ErrorCode::MessageTooLarge);
    let old_request = ProduceRules { zstd_allowed: false, ..RULES };
    let zstd = batch(Codec::Zstd);
    let error = validate_produce(&zstd, at(NOW), &old_request, &mut Decompressors::new()).unwrap_err();
    assert_eq!(error, ProduceError::CodecNotAllowed { codec: Codec::Zstd });
    assert_eq!(error.code(), ErrorCode::UnsupportedCompressionType);
}

#[test]
fn record_rules_name_the_record() {
    for codec in Codec::ALL {
        let bytes = batch(codec);
        let mut scratch = Decompressors::new();
        let keyed = ProduceRules { key_required: true, ..RULES };
        let error = validate_produce(&bytes, at(NOW), &keyed, &mut scratch).unwrap_err();
        assert_eq!((error, error.record_index()), (ProduceError::KeyMissing { index: 1 }, Some(1)));
        assert_eq!(error.code(), ErrorCode::InvalidRecord);
        // The third record is 1 000 ms older than the clock, the second 5 900.
        let strict = ProduceRules { timestamp_before_max_ms: 5_899, ..RULES };
        let error = validate_produce(&bytes, at(NOW), &strict, &mut scratch).unwrap_err();
        assert!(matches!(error, ProduceError::Timestamp { index: 1, found: 1_700_000_000_100, .. }), "{error}");
        assert_eq!(error.code(), ErrorCode::InvalidTimestamp);
        let exact = ProduceRules { timestamp_before_max_ms: 5_900, ..RULES };
        assert!(validate_produce(&bytes, at(NOW), &exact, &mut scratch).is_ok());
        let early = at(1_700_000_004_999);
        let ahead = ProduceRules { timestamp_after_max_ms: 0, ..RULES };
        let error = validate_produce(&bytes, early, &ahead, &mut scratch).unwrap_err();
        assert_eq!(error.record_index(), Some(2));
        // Under LogAppendTime the records' own times do not count.
        let append = ProduceRules { timestamp_type: TimestampType::LogAppend, ..ahead };
        assert_eq!(validate_produce(&bytes, early, &append, &mut scratch).unwrap().max_timestamp(), Some(early));
    }
}

#[test]
fn records_without_a_time_are_taken() {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.append(None, None, Some(b"v"), &[]);
    let bytes = builder.finish().unwrap().unwrap().to_vec();
    assert_eq!(validate(&bytes).unwrap().max_timestamp(), None);
    assert_eq!(read_all(&checked(&bytes), &mut Decompressors::new()).unwrap()[0].timestamp, None);
    let overflow = with_header(|h| h.base_timestamp.set(i64::MAX));
    assert!(matches!(validate(&overflow), Err(ProduceError::Timestamp { index: 0, .. })));
}

#[test]
fn hostile_records_are_refused() {
    use RecordFault::{Length, Truncated, Unused, Varint};
    use RecordField::*;
    // length, attributes, timestamp delta, offset delta, key, value, headers: the least record has 7 bytes.
    let least = [0x0c, 0, 0, 0, 1, 1, 0];
    assert!(validate(&batch_of(Codec::None, 1, &least)).is_ok());
    let rows: [(&[u8], RecordFault); 17] = [
        (&[], Truncated { field: RecordField::Length }),
        (&[0x80], Truncated { field: RecordField::Length }),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0], Varint { field: RecordField::Length }),
        (&[0xff, 0xff, 0xff, 0xff, 0x1f], Varint { field: RecordField::Length }),
        (&[1], Length { field: RecordField::Length, found: -1, left: 0 }),
        (&[0], Truncated { field: Attributes }),
        (&[0x0c], Truncated { field: Attributes }),
        (&[0x0a, 0, 0, 0, 1, 1, 0], Truncated { field: HeaderCount }),
        (&[0x0e, 0, 0, 0, 1, 1, 0, 0], Unused { left: 1 }),
        (&[0x0c, 0, 0, 0, 3, 1, 0], Length { field: Key, found: -2, left: 2 }),
        (&[0x0c, 0, 0, 0, 6, 1, 0], Length { field: Key, found: 3, left: 2 }),
        (&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], {
            Length { field: Value, found: i32::MAX, left: i32::MAX as usize - 9 }
        }),
        (&[0x20, 0, 0, 0, 1, 20, 0], Truncated { field: Value }),
        (&[0x0c, 0, 0, 0, 1, 1, 1], Length { field: HeaderCount, found: -1, left: 0 }),
        (&[0x14, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], {
            Length { field: HeaderCount, found: i32::MAX, left: 0 }
        }),
        (&[0x10, 0, 0, 0, 1, 1, 2, 1, 1], Length { field: HeaderKey, found: -1, left: 1 }),
        (&[0x10, 0, 0, 0, 1, 1, 2, 0, 3], Length { field: HeaderValue, found: -2, left: 0 }),
    ];
    for (records, fault) in rows {
        let bytes = batch_of(Codec::None, 1, records);
        let expected = RecordError::Malformed { index: 0, fault };
        assert_eq!(validate(&bytes).unwrap_err(), ProduceError::Records(expected), "{records:x?}");
        // Compressed, the same bytes come through the stream, which may see the end earlier, and as well refuses.
        let mut packed = Vec::new();
        pack::Compressors::default().pack(Compression::new(Codec::Lz4), records, &mut packed).unwrap();
        let bytes = batch_of(Codec::Lz4, 1, &packed);
        assert_eq!(validate(&bytes).unwrap_err(), ProduceError::Records(expected), "{records:x?} packed");
        let checked = checked(&bytes);
        assert!(read_all(&checked, &mut Decompressors::new()).is_err(), "{records:x?} read");
    }
    let trailing = [&least[..], &[0]].concat();
    let expected = RecordError::Trailing { count: 1 };
    assert_eq!(validate(&batch_of(Codec::None, 1, &trailing)).unwrap_err(), ProduceError::Records(expected));
    let gap = [&least[..], &[0x0c, 0, 0, 4, 1, 1, 0]].concat();
    let error = validate(&batch_of(Codec::None, 2, &gap)).unwrap_err();
    assert_eq!(error, ProduceError::OffsetDelta { index: 1, found: 2 });
    let many = validate(&batch_of(Codec::None, i32::MAX, &least)).unwrap_err();
    assert_eq!(many.record_index(), Some(1), "a count takes no memory and no time");
}

#[test]
fn bytes_after_the_compressed_records_are_refused() {
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let mut bytes = batch(codec);
        bytes.push(0);
        reseal(&mut bytes);
        let error = validate(&bytes).unwrap_err();
        assert!(matches!(error, ProduceError::Records(RecordError::Ending { count: 3, .. })), "{codec}: {error}");
        assert_eq!((error.code(), error.record_index()), (ErrorCode::InvalidRecord, None));
    }
}

#[test]
fn every_truncation_is_noticed() {
    for codec in Codec::ALL {
        let whole = batch(codec);
        for cut in 1..whole.len() {
            let part = &whole[..cut];
            let need = if cut < LOG_OVERHEAD { HEADER_BYTES } else { whole.len() };
            let error = BatchScanner::new(part, 0, 1 << 20).next().unwrap().unwrap_err();
            assert_eq!(error.incomplete(), Some(need), "{codec} cut at {cut}");
            assert_eq!(validate(part).unwrap_err().code(), ErrorCode::CorruptMessage);
        }
        // The same with length and CRC of the shorter batch.
        for cut in HEADER_BYTES..whole.len() {
            let mut part = whole[..cut].to_vec();
            reseal(&mut part);
            assert!(matches!(validate(&part), Err(ProduceError::Records(_))), "{codec} cut at {cut}");
            assert!(read_all(&checked(&part), &mut Decompressors::new()).is_err(), "{codec} cut at {cut}");
        }
    }
}

#[test]
fn every_flipped_bit_under_the_crc_is_noticed() {
    for codec in Codec::ALL {
        let mut good = batch(codec);
        let stamp = validate(&good.clone()).unwrap().stamp(Offset::ZERO, LeaderEpoch::ZERO);
        stamp.apply(&mut good);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 0x80 >> (bit % 8);
            let refused = UncheckedBatch::frame(&bad, 1 << 20).map_or(true, |batch| batch.check().is_err());
            // Base offset and leader epoch are stamped outside the CRC: only their signs show.
            let stamped = bit / 8 < 8 || (12..16).contains(&(bit / 8));
            let sign = bit == 0 || bit == 12 * 8;
            assert_eq!(refused, !stamped || sign, "{codec} bit {bit}");
        }
    }
}

#[test]
fn bombs_are_stopped() {
    let value = vec![0u8; 8 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new(codec);
        builder.append(Some(at(NOW)), None, Some(&value), &[]);
        let bomb = builder.finish().unwrap().unwrap();
        let packed = bomb.len() - HEADER_BYTES;
        let by_bytes = DecompressLimits { bytes_max: 1 << 20, ..DecompressLimits::DEFAULT };
        let by_ratio = DecompressLimits { ratio_max: 3, ratio_free_bytes: 1 << 20, ..DecompressLimits::DEFAULT };
        for decompress in [by_bytes, by_ratio] {
            let bytes_max = if decompress == by_bytes { 1 << 20 } else { (3 * packed).max(1 << 20) };
            let rules = ProduceRules { decompress, ..RULES };
            let mut scratch = Decompressors::new();
            let error = validate_produce(bomb, at(NOW), &rules, &mut scratch).unwrap_err();
            let fault = RecordFault::Unpack(UnpackError::TooLarge { bytes_max, packed });
            assert_eq!(error, ProduceError::Records(RecordError::Malformed { index: 0, fault }), "{codec}");
            assert_eq!(error.code(), ErrorCode::MessageTooLarge);
            let checked = checked(bomb);
            let mut reader = RecordReader::new(&checked, &mut scratch, &decompress);
            assert!(reader.next_record().unwrap().is_err() && reader.next_record().is_none(), "{codec}");
        }
        assert!(validate(bomb).is_ok(), "{codec}: within the defaults");
    }
}

#[test]
fn a_stamp_changes_what_it_says_and_nothing_else() {
    let good = batch(Codec::Lz4);
    let produced = validate(&good).unwrap();
    let mut stamped = good.clone();
    let epoch = LeaderEpoch::new(9).unwrap();
    let stamp = produced.stamp(Offset::ZERO.plus(1000), epoch);
    stamp.apply(&mut stamped);
    assert_eq!(stamp.header(&good).as_bytes(), &stamped[..HEADER_BYTES]);
    assert_eq!(stamped[16..], good[16..], "no new CRC where only offset and epoch change");
    let batch = checked(&stamped);
    assert_eq!((batch.base_offset().value(), batch.next_offset().value()), (1000, 1003));
    assert_eq!(batch.leader_epoch(), Some(epoch));

    let append = ProduceRules { timestamp_type: TimestampType::LogAppend, ..RULES };
    let produced = validate_produce(&good, at(NOW), &append, &mut Decompressors::new()).unwrap();
    produced.stamp(Offset::ZERO, epoch).apply(&mut stamped);
    let batch = checked(&stamped);
    assert_eq!(batch.attributes().timestamp_type(), TimestampType::LogAppend);
    assert_eq!(batch.max_timestamp(), Some(at(NOW)));
    let records = read_all(&batch, &mut Decompressors::new()).unwrap();
    assert!(records.iter().all(|record| record.timestamp == Some(at(NOW))));

    // A wrong max timestamp would mislead the time index: the right one and a new CRC go in.
    let mut lying = with_header(|h| h.max_timestamp.set(i64::MAX));
    let stamp = validate(&lying.clone()).unwrap().stamp(Offset::ZERO, epoch);
    stamp.apply(&mut lying);
    assert_eq!(checked(&lying).max_timestamp(), Timestamp::new(1_700_000_005_000));
}

#[test]
fn a_scan_stops_at_what_is_no_batch() {
    let good = batch(Codec::None);
    let size = good.len() as u64;
    let three = good.repeat(3);
    assert_eq!(BatchScanner::new(&three, 4096, 1 << 20).filter(Result::is_ok).count(), 3);

    let mut scanner = BatchScanner::new(&three[..three.len() - 1], 4096, 1 << 20);
    assert!(scanner.by_ref().take(2).all(|batch| batch.is_ok()));
    let error = scanner.next().unwrap().unwrap_err();
    assert_eq!((error.position, error.incomplete()), (4096 + 2 * size, Some(good.len())));
    assert!(scanner.next().is_none() && scanner.next_unchecked().is_none());
    assert_eq!(scanner.position(), 4096 + 2 * size);

    let mut broken = three.clone();
    broken[good.len() + HEADER_BYTES] ^= 1;
    let found: Vec<_> = BatchScanner::new(&broken, 0, 1 << 20).collect();
    assert_eq!(found.len(), 2);
    let error = found[1].unwrap_err();
    assert_eq!((error.position, error.incomplete(), error.code()), (size, None, ErrorCode::CorruptMessage));
    assert!(matches!(error.cause, ScanCause::Batch(BatchError::Crc { .. })));
    let mut unchecked = BatchScanner::new(&broken, 0, 1 << 20);
    assert_eq!(std::iter::from_fn(|| unchecked.next_unchecked()).filter(Result::is_ok).count(), 3);

    let zeros = [0; 100];
    let error = BatchScanner::new(&zeros, 0, 1 << 20).next().unwrap().unwrap_err();
    assert_eq!(error.cause, ScanCause::Frame(FrameError::Length { found: 0, max: (1 << 20) - LOG_OVERHEAD }));
    let error = BatchScanner::new(&good, 0, good.len() - 1).next().unwrap().unwrap_err();
    assert!(matches!(error.cause, ScanCause::Frame(FrameError::Length { .. })));
}

#[test]
fn a_time_finds_the_first_record_not_earlier() {
    let mut scratch = Decompressors::new();
    for codec in Codec::ALL {
        let bytes = batch(codec);
        let batch = checked(&bytes);
        let mut find = |millis| batch.find_timestamp(at(millis), &mut scratch, &DecompressLimits::DEFAULT).unwrap();
        let found = |offset, millis| Some((Offset::ZERO.plus(offset), at(millis)));
        assert_eq!(find(0), found(0, 1_700_000_000_123));
        assert_eq!(find(1_700_000_000_124), found(2, 1_700_000_005_000));
        assert_eq!(find(1_700_000_005_001), None);
    }
}

fn arb_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        Just(None),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        // Longer than the window.
        (any::<u8>(), 60_000..140_000usize).prop_map(|(byte, length)| Some(vec![byte; length])),
    ]
}

fn arb_record() -> impl Strategy<Value = Owned> {
    let timestamp = proptest::option::of((0..NOW).prop_map(at));
    let headers = proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..5), arb_bytes()), 0..3);
    (timestamp, arb_bytes(), arb_bytes(), headers).prop_map(|(timestamp, key, value, headers)| Owned {
        timestamp,
        key,
        value,
        headers,
    })
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(
        batches in proptest::collection::vec((0..5usize, proptest::collection::vec(arb_record(), 1..8)), 1..4)
    ) {
        let rules = ProduceRules { batch_bytes_max: 1 << 30, ..RULES };
        let mut scratch = Decompressors::new();
        for (codec, records) in batches {
            let mut builder = BatchBuilder::new(Codec::ALL[codec]);
            for record in &records {
                let headers: Vec<_> =
                    record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
                builder.append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
            }
            let bytes = builder.finish().unwrap().unwrap();
            let produced = validate_produce(bytes, at(NOW), &rules, &mut scratch).unwrap();
            prop_assert_eq!(produced.max_timestamp(), records.iter().filter_map(|record| record.timestamp).max());
            prop_assert_eq!(produced.stamp(Offset::ZERO, LeaderEpoch::ZERO).header(bytes).crc(), checked(bytes).header().crc());
            prop_assert_eq!(read_all(&checked(bytes), &mut scratch).unwrap(), records);
        }
    }

    #[test]
    fn garbage_under_a_good_crc_never_panics(
        codec in 0..5usize,
        count in prop_oneof![0..5i32, any::<i32>()],
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        raw in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        fields: [u8; 12],
    ) {
        let mut bytes = batch(Codec::ALL[codec]);
        if let Some(raw) = raw {
            bytes.truncate(HEADER_BYTES);
            bytes.extend_from_slice(&raw);
        }
        for (place, byte) in flips {
            let place = place.index(bytes.len() - HEADER_BYTES + 1) + HEADER_BYTES - 1;
            bytes[place] ^= byte;
        }
        let header = BatchHeader::mut_from_prefix(&mut bytes).unwrap().0;
        header.record_count.set(count);
        header.last_offset_delta.set(count.wrapping_sub(1));
        if fields[0] < 64 {
            header.base_timestamp.as_mut_bytes()[..8].copy_from_slice(&fields[4..]);
        }
        reseal(&mut bytes);
        let mut scratch = Decompressors::new();
        let accepted = validate_produce(&bytes, at(NOW), &RULES, &mut scratch).is_ok();
        if let Ok(batch) = UncheckedBatch::frame(&bytes, 1 << 20).unwrap().check() {
            let found = batch.find_timestamp(at(NOW), &mut scratch, &DecompressLimits::DEFAULT);
            prop_assert!(found.is_ok() || !accepted);
            let mut reader = RecordReader::new(&batch, &mut scratch, &DecompressLimits::DEFAULT);
            while let Some(record) = reader.next_record() {
                prop_assert!(record.is_ok() || !accepted, "what was accepted is readable");
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(validate(&bytes).is_err());
        prop_assert!(BatchScanner::new(&bytes, 0, 1 << 20).all(|batch| batch.is_err()));
    }
}
