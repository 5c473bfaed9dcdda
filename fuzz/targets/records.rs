//! Record batches: what a leader demands of one, and what every reader may then rely on.
//!
//! Whatever a batch holds, it is judged alike by a decompressor that has never been used and by one that has seen many
//! broken batches. A batch that passes is stamped and read back as a log does: one good batch, as many records as it says,
//! its offsets in order. A batch that does not pass, but whose CRC fits, is read all the same, as a follower's or a damaged
//! log's would be: that may fail, and must end.

use std::cell::RefCell;

use corelane::record::{
    BatchHeader, BatchScanner, CRC_REGION_AT, Codec, DecompressLimits, Decompressors, HEADER_BYTES, LOG_OVERHEAD,
    MAGIC, MAGIC_AT, ProduceRules, RecordReader, TimestampType, validate_produce,
};
use corelane::types::{ErrorCode, LeaderEpoch, Offset, Timestamp};

/// Bytes of a batch at most, beyond any input.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// What may come out of a compressed batch: less than a broker's limits, so that a bomb costs the fuzzer no minutes.
const LIMITS: DecompressLimits = DecompressLimits { bytes_max: 8 << 20, ratio_max: 1000, ratio_free_bytes: 1 << 20 };

/// Decompression state as a shard keeps it.
pub(crate) struct Scratch(Decompressors);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch(Decompressors::new())
    }
}

/// A batch behind a byte that chooses the topic's rules and whether length, magic and CRC are set right first.
pub(crate) fn produced_batch(input: &[u8]) {
    let Some((&choices, batch)) = input.split_first() else { return };
    let mut batch = batch.to_vec();
    if choices & 1 == 0 {
        mend(&mut batch);
    }
    judge(&batch, &rules(choices));
}

/// gzip, behind a byte that counts the records.
pub(crate) fn unpack_gzip(input: &[u8]) {
    unpack(Codec::Gzip, input);
}

/// Snappy, raw or in xerial's frames, behind a byte that counts the records.
pub(crate) fn unpack_snappy(input: &[u8]) {
    unpack(Codec::Snappy, input);
}

/// An LZ4 frame behind a byte that counts the records.
pub(crate) fn unpack_lz4(input: &[u8]) {
    unpack(Codec::Lz4, input);
}

/// Zstandard frames behind a byte that counts the records.
pub(crate) fn unpack_zstd(input: &[u8]) {
    unpack(Codec::Zstd, input);
}

fn unpack(codec: Codec, input: &[u8]) {
    let Some((&count, packed)) = input.split_first() else { return };
    judge(&batch_of(codec, u32::from(count) + 1, packed), &rules(0));
}

/// A batch with a right CRC, of `count` records that are `packed` as they lie.
pub(crate) fn batch_of(codec: Codec, count: u32, packed: &[u8]) -> Vec<u8> {
    let mut batch = vec![0; HEADER_BYTES];
    batch[CRC_REGION_AT + 1] =
        Codec::ALL.iter().position(|known| *known == codec).expect("every codec is listed") as u8;
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[43..57].fill(0xff);
    batch[57..HEADER_BYTES].copy_from_slice(&count.to_be_bytes());
    batch.extend_from_slice(packed);
    mend(&mut batch);
    batch
}

/// Sets length, magic and CRC of the batch that `bytes` are, so that what lies behind them is looked at.
pub(crate) fn mend(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let length = u32::try_from(bytes.len() - LOG_OVERHEAD).expect("inputs are far below 4 GiB");
    bytes[8..LOG_OVERHEAD].copy_from_slice(&length.to_be_bytes());
    bytes[MAGIC_AT] = MAGIC;
    let crc = crc32c::crc32c(&bytes[CRC_REGION_AT..]);
    bytes[CRC_REGION_AT - 4..CRC_REGION_AT].copy_from_slice(&crc.to_be_bytes());
}

fn now() -> Timestamp {
    Timestamp::new(1_700_000_000_000).expect("positive")
}

fn rules(choices: u8) -> ProduceRules {
    ProduceRules {
        batch_bytes_max: BATCH_BYTES_MAX,
        zstd_allowed: choices & 2 == 0,
        key_required: choices & 4 != 0,
        timestamp_type: if choices & 8 == 0 { TimestampType::Create } else { TimestampType::LogAppend },
        timestamp_before_max_ms: if choices & 16 == 0 { u64::MAX } else { 3_600_000 },
        timestamp_after_max_ms: if choices & 32 == 0 { u64::MAX } else { 3_600_000 },
        decompress: LIMITS,
    }
}

/// Whether a leader would append this batch.
pub(crate) fn validate(batch: &[u8], zstd_allowed: bool, scratch: &mut Scratch) -> bool {
    let rules = ProduceRules { zstd_allowed, ..rules(0) };
    validate_produce(batch, now(), &rules, &mut scratch.0).is_ok()
}

/// What a validation came to: what there is to compare. Of an error what the client is told: which of two faults of broken
/// data zstd meets first depends on the buffers that its context has from earlier.
type Judgement = Result<(u32, Codec, Option<Timestamp>), ErrorCode>;

fn judgement(batch: &[u8], rules: &ProduceRules, decompressors: &mut Decompressors) -> Judgement {
    let produced = validate_produce(batch, now(), rules, decompressors).map_err(|error| error.code())?;
    Ok((produced.record_count(), produced.codec(), produced.max_timestamp()))
}

thread_local! {
    /// Decompressors that have seen every batch before this one.
    static USED: RefCell<Decompressors> = RefCell::new(Decompressors::new());
}

fn judge(batch: &[u8], rules: &ProduceRules) {
    USED.with_borrow_mut(|used| {
        let fresh = judgement(batch, rules, &mut Decompressors::new());
        let again = judgement(batch, rules, used);
        assert_eq!(fresh, again, "decompressors carry something from batch to batch");
        match fresh {
            Ok((count, ..)) => {
                let produced = validate_produce(batch, now(), rules, used).expect("it passed twice");
                let stamp = produced.stamp(Offset::ZERO.plus(7), LeaderEpoch::ZERO);
                let mut stored = batch.to_vec();
                stamp.apply(&mut stored);
                assert_eq!(read(&stored, used), Some(Ok(count)), "a batch that passed is read back");
            }
            // It may fail or not; it must not panic, and it must end.
            Err(_) => drop(read(batch, used)),
        }
    });
}

/// The number of records in the one batch that `log` is; an error's text if they cannot be read; `None` if there is no
/// batch.
fn read(log: &[u8], decompressors: &mut Decompressors) -> Option<Result<u32, String>> {
    let mut batches = BatchScanner::new(log, 0, BATCH_BYTES_MAX);
    let batch = batches.next()?.ok()?;
    assert_eq!(BatchHeader::view(log).and_then(BatchHeader::batch_bytes), Some(batch.bytes().len()));
    let searched = batch.find_timestamp(now(), decompressors, &LIMITS);
    let mut reader = RecordReader::new(&batch, decompressors, &LIMITS);
    let mut count = 0;
    while let Some(record) = reader.next_record() {
        match record {
            Ok(record) => {
                let headers = record.headers();
                let announced = headers.len();
                assert_eq!(headers.count(), announced, "every header of a record that was read");
                count += 1;
            }
            Err(error) => return Some(Err(error.to_string())),
        }
    }
    assert!(searched.is_ok(), "records that can be read can be searched: {searched:?}");
    Some(Ok(count))
}
