//! What the broker computes for a request, without any I/O.
//!
//! - `validate`: everything that is proved of a produced batch before it is appended, its CRC included; bytes are those of the
//!   batch as it comes, compressed or not.
//! - `decode_produce`: the header and the body of a request, and its partitions found again as the broker iterates them. It looks
//!   at no record, so it depends on the number of partitions alone.
//! - `encode_fetch`: the pieces around the records of an answer. The records stay where they are.
//! - `index`: where to begin to read in a segment of 1 GiB, by offset and by time.

use std::hint::black_box;
use std::time::Duration;

use bench::requests::{CORRELATION, Shape, fetch_api, produce_to};
use bytes::BytesMut;
use corelane::record::{Codec, DecompressLimits, Decompressors, ProduceRules, TimestampType, validate_produce};
use corelane::runtime::{Buffer, Slice};
use corelane::storage::index::{IndexedBatch, SparseIndex};
use corelane::types::{ErrorCode, Offset, Piece, Timestamp};
use corelane::wire::fetch::{FetchHead, FetchResponseEncoder, FetchedPartition};
use corelane::wire::produce::ProduceRequest;
use corelane::wire::{TopicKey, parse_header};
use criterion::{BenchmarkId, Criterion, Throughput};

const PARTITIONS: [usize; 2] = [1, 64];

/// What a topic demands by default.
const RULES: ProduceRules = ProduceRules {
    batch_bytes_max: 1 << 20,
    zstd_allowed: true,
    key_required: false,
    timestamp_type: TimestampType::Create,
    timestamp_before_max_ms: i64::MAX as u64,
    timestamp_after_max_ms: 3_600_000,
    decompress: DecompressLimits::DEFAULT,
};

pub(crate) fn run(criterion: &mut Criterion) {
    validate(criterion);
    decode_produce(criterion);
    encode_fetch(criterion);
    index(criterion);
}

/// A time in 2023, of the batches and of the broker.
fn now() -> Timestamp {
    Timestamp::new(1_700_000_000_000).expect("not negative")
}

fn validate(criterion: &mut Criterion) {
    let shapes = [(1, 100, Codec::None), (160, 100, Codec::None), (63, 1024, Codec::None), (63, 1024, Codec::Lz4)];
    let mut group = criterion.benchmark_group("validate");
    for (records, value_bytes, codec) in shapes {
        let shape = Shape { records, value_bytes };
        let batch = shape.batch_in(codec, now()).expect("a batch");
        let mut decompressors = Decompressors::new();
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(BenchmarkId::new(shape.name(), codec), |bencher| {
            bencher.iter(|| {
                let produced = validate_produce(black_box(&batch), now(), &RULES, &mut decompressors);
                assert_eq!(produced.expect("a good batch").record_count() as usize, records);
            });
        });
    }
    group.finish();
}

fn decode_produce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode_produce");
    for partitions in PARTITIONS {
        let batch = Shape { records: 1, value_bytes: 100 }.batch(now()).expect("a batch");
        let request = produce_to(i32::try_from(partitions).expect("few"), &batch).expect("a request");
        let frame = &request[size_of::<i32>()..];
        group.throughput(Throughput::Elements(partitions as u64));
        group.bench_function(BenchmarkId::new("partitions", partitions), |bencher| {
            bencher.iter(|| {
                let header = parse_header(black_box(frame)).expect("a good header");
                let request = ProduceRequest::parse(header.api, &frame[header.body_offset..]).expect("a good body");
                let records = request.topics.flat_map(|topic| topic.partitions).filter_map(|part| part.records);
                assert_eq!(records.map(<[u8]>::len).sum::<usize>(), partitions * batch.len());
            });
        });
    }
    group.finish();
}

fn encode_fetch(criterion: &mut Criterion) {
    let batch = Shape { records: 160, value_bytes: 100 }.batch(now()).expect("a batch");
    let mut records = Buffer::with_capacity(batch.len());
    records.append(&batch);
    let records = records.freeze();
    let offset = Some(Offset::ZERO.plus(1_000_000));
    let fetched = |index| FetchedPartition {
        high_watermark: offset,
        last_stable_offset: offset,
        log_start_offset: Some(Offset::ZERO),
        ..FetchedPartition::failed(index, ErrorCode::None)
    };
    let head = FetchHead { throttle: Duration::ZERO, error: ErrorCode::None, session: None };
    let mut group = criterion.benchmark_group("encode_fetch");
    for partitions in PARTITIONS {
        let (mut buffer, mut list): (BytesMut, Vec<Piece<Slice>>) = Default::default();
        group.throughput(Throughput::Elements(partitions as u64));
        group.bench_function(BenchmarkId::new("partitions", partitions), |bencher| {
            bencher.iter(|| {
                let encoder = FetchResponseEncoder::new(fetch_api(), CORRELATION, &head, 1, &mut buffer);
                let mut encoder = encoder.reusing(std::mem::take(&mut list));
                encoder.topic(TopicKey::Name("a-topic-of-some-length"), partitions);
                for index in 0..partitions as i32 {
                    encoder.partition(&fetched(index), [records.clone()]);
                }
                let pieces = encoder.finish(&[]);
                assert!(pieces.bytes() > partitions * records.len());
                list = black_box(pieces).into_vec();
                list.clear();
            });
        });
    }
    group.finish();
}

fn index(criterion: &mut Criterion) {
    const BATCH_BYTES: u32 = 16 << 10;
    const BATCHES: u32 = (1 << 30) / BATCH_BYTES;
    const RECORDS: u64 = 160;
    let mut index = SparseIndex::new(Offset::ZERO, 4096, 4096);
    for number in 0..BATCHES {
        index.push(&IndexedBatch {
            base_offset: Offset::ZERO.plus(u64::from(number) * RECORDS),
            position: 4096 + number * BATCH_BYTES,
            bytes: BATCH_BYTES,
            max_timestamp: Timestamp::new(now().millis() + i64::from(number)),
        });
    }
    let mut group = criterion.benchmark_group("index");
    // Scattered over the segment, so that the search finds none of its steps in the cache because of the one before.
    let mut state = 0_u32;
    let mut batch = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state % BATCHES
    };
    group.bench_function("offset", |bencher| {
        bencher.iter(|| {
            let number = batch();
            let position = index.position_for(black_box(Offset::ZERO.plus(u64::from(number) * RECORDS)));
            assert_eq!(position, 4096 + number * BATCH_BYTES);
        });
    });
    group.bench_function("time", |bencher| {
        bencher.iter(|| {
            let number = batch();
            let at = Timestamp::new(now().millis() + i64::from(number)).expect("not negative");
            // The batch of that time is the first whose entry has a maximum before it that is older.
            assert_eq!(index.position_for_time(black_box(at)), 4096 + number * BATCH_BYTES);
        });
    });
    group.finish();
}
