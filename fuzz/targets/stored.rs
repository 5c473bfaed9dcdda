//! The files of the data directory, as a start finds them after a fault of the disk that its checksum does not show.
//!
//! Every such file lies in a checksummed envelope or frame; inputs are bodies, which are given a right checksum. What is
//! decoded is encoded and decoded once more: it must be the same, so that nothing is accepted that is understood only by
//! half. What a start then does with it is not looked at.

use core::time::Duration;

use corelane::controller::{ClusterImage, MetadataRecord};
use corelane::quorum;
use corelane::storage::checkpoint::{Checkpoint, RecoveryPoint, SegmentSummary};
use corelane::storage::epochs::LeaderEpochs;
use corelane::storage::format::SegmentHeader;
use corelane::storage::frames;
use corelane::storage::index::{IndexedBatch, SparseIndex};
use corelane::storage::producers::{ProducerBatch, ProducerLimits, ProducerStates};
use corelane::storage::seal::{AbortedTransaction, Seal, SegmentIdentity};
use corelane::types::{
    LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId, TopicPartition,
};

use super::seeds::{NOW, envelope};

const LIMITS: ProducerLimits = ProducerLimits { count_max: 1000, expiry: Duration::from_secs(60) };

/// Bytes of an envelope before its body.
const ENVELOPE_BYTES: usize = 20;

/// The body of a segment's header.
pub(crate) fn segment_header(body: &[u8]) {
    let _ = SegmentHeader::decode(body);
    let block = envelope("a segment's header", *b"CLsegmnt", body);
    if let Ok(header) = SegmentHeader::decode(&block) {
        assert_eq!(header.encode(), block, "a header that is read is written the same");
    }
}

/// The body of a checkpoint.
pub(crate) fn checkpoint(body: &[u8]) {
    let _ = Checkpoint::decode(body, LIMITS, NOW);
    let slot = envelope("checkpoint", *b"CLckpt\0\0", body);
    if let Ok(decoded) = Checkpoint::decode(&slot, LIMITS, NOW) {
        let again = decoded.encode(NOW);
        let decoded = Checkpoint::decode(&again, LIMITS, NOW).expect("what was written is read");
        assert_eq!(decoded.encode(NOW), again, "a checkpoint that is read is written the same");
    }
}

/// The body of a seal.
pub(crate) fn seal(body: &[u8]) {
    let _ = Seal::decode(body, LIMITS, NOW);
    let file = envelope("seal", *b"CLseal\0\0", body);
    if let Ok(decoded) = Seal::decode(&file, LIMITS, NOW) {
        let again = decoded.encode(NOW);
        let decoded = Seal::decode(&again, LIMITS, NOW).expect("what was written is read");
        assert_eq!(decoded.encode(NOW), again, "a seal that is read is written the same");
    }
}

/// The payload of a frame of the metadata log: an offset, and records that are replayed as a start does.
pub(crate) fn metadata_payload(payload: &[u8]) {
    let Ok((offset, records)) = quorum::fuzz_payload(payload) else { return };
    let mut image = ClusterImage::new();
    for (number, record) in (0..).zip(&records) {
        let again = MetadataRecord::decode(&record.encode());
        assert_eq!(again.as_ref(), Ok(record), "a record that is read is written the same");
        if image.apply(offset.plus(number), record).is_err() {
            break;
        }
    }
    let _ = ClusterImage::from_snapshot(offset, &records);
}

/// A file of the metadata log. Its header, and the frames that stand where one begins, get checksums that fit.
pub(crate) fn metadata_file(input: &[u8]) {
    let _ = frames::fuzz_file(input);
    let mut file = input.to_vec();
    mend_metadata_file(&mut file);
    if let Some(payloads) = frames::fuzz_file(&file) {
        let bytes: usize = payloads.iter().map(|payload| payload.len()).sum();
        assert!(
            payloads.iter().all(|payload| payload.end <= file.len()) && bytes <= file.len(),
            "payloads of the file"
        );
    }
}

/// Where frames begin, and what they are aligned to: see the drawing in `storage::frames`.
const FRAMES_START: usize = 4096;
const FRAME_ALIGN: usize = 8;
const FRAME_HEAD_BYTES: usize = 24;
/// The bytes of the header's body: sequence, salt, first number, snapshot frames, snapshot end.
const FILE_BODY_BYTES: usize = 36;

fn mend_metadata_file(file: &mut [u8]) {
    if file.len() < ENVELOPE_BYTES + FILE_BODY_BYTES {
        return;
    }
    let header = envelope("metadata log", *b"CLmeta\0\0", &file[ENVELOPE_BYTES..ENVELOPE_BYTES + FILE_BODY_BYTES]);
    file[..header.len()].copy_from_slice(&header);
    let salt: [u8; 8] = std::array::from_fn(|at| file[ENVELOPE_BYTES + 8 + at]);
    let mut at = FRAMES_START;
    while at + FRAME_HEAD_BYTES <= file.len() {
        let length = u32::from_be_bytes(std::array::from_fn(|byte| file[at + byte])) as usize;
        if length < FRAME_HEAD_BYTES || at + length > file.len() {
            at += FRAME_ALIGN;
            continue;
        }
        let crc = [&file[at..at + 4], &file[at + 8..at + length]]
            .iter()
            .fold(crc32c::crc32c(&salt), |crc, part| crc32c::crc32c_append(crc, part));
        file[at + 4..at + 8].copy_from_slice(&crc.to_be_bytes());
        at += length.next_multiple_of(FRAME_ALIGN);
    }
}

/// A file of the metadata log with these writes, each of some payloads.
pub(crate) fn metadata_file_of(writes: &[&[&[u8]]]) -> Vec<u8> {
    let (salt, first) = (0x5a17u64, 1u64);
    let body = [1u64.to_be_bytes(), salt.to_be_bytes(), first.to_be_bytes()].concat();
    let body = [&body[..], &0u32.to_be_bytes(), &(FRAMES_START as u64).to_be_bytes()].concat();
    let mut file = envelope("metadata log", *b"CLmeta\0\0", &body);
    file.resize(FRAMES_START, 0);
    let mut number = first;
    for payloads in writes {
        let first_of_write = number;
        for payload in *payloads {
            let length = (FRAME_HEAD_BYTES + payload.len()) as u32;
            file.extend_from_slice(&[length.to_be_bytes(), [0; 4]].concat());
            file.extend_from_slice(&[number.to_be_bytes(), first_of_write.to_be_bytes()].concat());
            file.extend_from_slice(payload);
            file.resize(file.len().next_multiple_of(FRAME_ALIGN), 0);
            number += 1;
        }
        file.resize(file.len().next_multiple_of(FRAMES_START), 0);
    }
    mend_metadata_file(&mut file);
    file
}

fn partition() -> TopicPartition {
    let partition = PartitionId::new(3).expect("not negative");
    TopicPartition { topic: TopicId::from_bytes([0xab; 16]), partition }
}

fn at(value: i64) -> Offset {
    Offset::new(value).expect("not negative")
}

/// The bodies of headers to begin with.
pub(crate) fn segment_headers() -> Vec<Vec<u8>> {
    let header = SegmentHeader {
        partition: partition(),
        leader_epoch: LeaderEpoch::ZERO,
        sequence: 5,
        base_offset: at(1000),
        created: Timestamp::new(1_700_000_000_000).expect("positive"),
        write_bytes_max: 1 << 20,
        unsynced_bytes_max: 1 << 21,
    };
    vec![header.encode().split_off(ENVELOPE_BYTES)]
}

fn index() -> SparseIndex {
    let mut index = SparseIndex::new(at(1000), FRAMES_START as u32, 512);
    for number in 0..8u32 {
        index.push(&IndexedBatch {
            base_offset: at(1000 + i64::from(number)),
            position: FRAMES_START as u32 + number * 400,
            bytes: 400,
            max_timestamp: Timestamp::new(i64::from(number) * 7 % 5),
        });
    }
    index
}

fn epochs() -> LeaderEpochs {
    let mut epochs = LeaderEpochs::new();
    epochs.assign(LeaderEpoch::ZERO, Offset::ZERO);
    epochs.assign(LeaderEpoch::new(4).expect("positive"), at(1003));
    epochs
}

fn producers() -> ProducerStates {
    let mut producers = ProducerStates::new(LIMITS);
    for number in 0..4i64 {
        let batch = ProducerBatch {
            producer: ProducerId::new(number % 3).expect("positive"),
            epoch: ProducerEpoch::new(0).expect("zero"),
            first_sequence: Sequence::new(if number < 3 { 0 } else { 2 }).expect("positive"),
            records: 2,
        };
        producers.replay(&batch, at(1000 + 2 * number), Timestamp::new(5), NOW);
    }
    producers
}

/// The bodies of seals to begin with.
pub(crate) fn seals() -> Vec<Vec<u8>> {
    let aborted = AbortedTransaction {
        producer: ProducerId::new(1).expect("positive"),
        first: at(1000),
        last: at(1002),
        last_stable: at(1000),
    };
    let seal = Seal {
        segment: SegmentIdentity {
            partition: partition(),
            sequence: 5,
            base_offset: at(1000),
            next_offset: at(1008),
            bytes: 8000,
        },
        index: index(),
        epochs: epochs(),
        aborted: vec![aborted],
        producers: producers(),
    };
    vec![seal.encode(NOW).split_off(ENVELOPE_BYTES)]
}

/// The bodies of checkpoints to begin with, one clean and one not.
pub(crate) fn checkpoints() -> Vec<Vec<u8>> {
    let segment = |sequence, base, next, sealed_at| SegmentSummary {
        sequence,
        base_offset: at(base),
        next_offset: at(next),
        bytes: 8000,
        max_timestamp: Timestamp::new(4),
        sealed_at,
    };
    let checkpoint = |clean| Checkpoint {
        generation: 6,
        clean,
        partition: partition(),
        log_start: at(10),
        recovery_point: RecoveryPoint { sequence: 5, position: 8000, next_offset: at(1008) },
        segments: vec![segment(4, 0, 1000, Timestamp::new(9)), segment(5, 1000, 1008, None)],
        epochs: epochs(),
        producers: producers(),
        active_index: Some(index()).filter(|_| clean),
    };
    [true, false]
        .map(|clean| {
            let slot = checkpoint(clean).encode(NOW);
            // The padding of the slot is not part of the body.
            let length = u32::from_be_bytes(std::array::from_fn(|byte| slot[16 + byte])) as usize;
            slot[ENVELOPE_BYTES..ENVELOPE_BYTES + length].to_vec()
        })
        .to_vec()
}
