//! Checking, stamping, scanning and reading record batches allocates nothing once a shard is warm.
//!
//! Counted by an allocator that this test binary installs, which sees Rust's allocations: zstd's context is C's, made once.
//! Not shown here: the buffers around a batch, which are the runtime's.

use corelane::record::{
    BatchBuilder, BatchScanner, Codec, DecompressLimits, Decompressors, ProduceRules, RecordReader, TimestampType,
    validate_produce,
};
use corelane::types::{LeaderEpoch, Offset, Timestamp};

const RULES: ProduceRules = ProduceRules {
    batch_bytes_max: 1 << 20,
    zstd_allowed: true,
    key_required: true,
    timestamp_type: TimestampType::LogAppend,
    timestamp_before_max_ms: u64::MAX,
    timestamp_after_max_ms: 3_600_000,
    decompress: DecompressLimits::DEFAULT,
};

const RECORDS: usize = 200;

fn now() -> Timestamp {
    Timestamp::new(1_700_000_000_000).expect("positive")
}

fn build(builder: &mut BatchBuilder, log: &mut Vec<u8>, value: &[u8]) {
    for _ in 0..RECORDS {
        builder.append(Some(now()), Some(b"key"), Some(value), &[]);
    }
    log.clear();
    log.extend_from_slice(builder.finish().expect("it compresses").expect("it has records"));
}

/// A batch's whole way through a broker: validated, stamped, found in the log, searched, read.
fn check(scratch: &mut Decompressors, log: &mut [u8], value: &[u8]) {
    let stamp = {
        let batch = validate_produce(log, now(), &RULES, scratch).expect("it is good");
        batch.stamp(Offset::ZERO.plus(7), LeaderEpoch::ZERO)
    };
    stamp.apply(log);
    for batch in BatchScanner::new(log, 0, 1 << 20) {
        let batch = batch.expect("it is good");
        assert!(batch.find_timestamp(now(), scratch, &DecompressLimits::DEFAULT).expect("it is good").is_some());
        let mut reader = RecordReader::new(&batch, scratch, &DecompressLimits::DEFAULT);
        let mut count = 0;
        while let Some(record) = reader.next_record() {
            assert_eq!(record.expect("it is good").value, Some(value));
            count += 1;
        }
        assert_eq!(count, RECORDS);
    }
}

#[test]
fn a_warm_shard_allocates_nothing_per_batch() {
    let value: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 5) as u8).collect();
    for codec in Codec::ALL {
        let (mut builder, mut scratch, mut log) = (BatchBuilder::new(codec), Decompressors::new(), Vec::new());
        let first = allocation_counter::measure(|| build(&mut builder, &mut log, &value));
        assert!(first.count_total > 0, "the counter counts");
        check(&mut scratch, &mut log, &value);
        let built = allocation_counter::measure(|| build(&mut builder, &mut log, &value));
        // The library has no LZ4 frame encoder that can be used again; clients pay for it, not the broker.
        assert!(built.count_total == 0 || codec == Codec::Lz4, "{codec}: {built:?}");
        let checked = allocation_counter::measure(|| check(&mut scratch, &mut log, &value));
        // A search that stops inside an LZ4 frame leaves a decoder that does not serve again: itself and its two buffers.
        let search_allocations = if codec == Codec::Lz4 { 3 } else { 0 };
        assert_eq!(checked.count_total, search_allocations, "{codec}: {checked:?}");
    }
}
