//! Batches that can be told apart: every record's key says who made it, and the exact bytes are kept to compare with.
//!
//! A batch that comes back is right only if it equals what was sent, byte for byte, but for the two fields that the leader
//! stamps. The key of its first record finds what was sent, so that a batch of another log, another producer or another
//! life is known as such. Nothing here checks offsets.

use std::rc::Rc;

use corelane::record::{BatchBuilder, Codec, DecompressLimits, Decompressors, Producer, RecordBatch, RecordReader};
use corelane::runtime::sim::{PerMillion, Random};
use corelane::types::{LeaderEpoch, Offset, Timestamp};

/// Where the base offset and the leader epoch lie in a batch's header.
const BASE_OFFSET_AT: usize = 0;
const LEADER_EPOCH_AT: usize = 12;
const KEY_BYTES: usize = 24;

/// Who made a batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Stamp {
    /// The log that it was made for.
    pub(crate) log: u64,
    /// Its producer.
    pub(crate) producer: u64,
    /// Its number in that producer's life.
    pub(crate) number: u64,
}

impl Stamp {
    fn key(self) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        for (field, value) in key.chunks_exact_mut(8).zip([self.log, self.producer, self.number]) {
            field.copy_from_slice(&value.to_be_bytes());
        }
        key
    }

    /// The stamp of a batch, by the key of its first record; `None` if it is not one of ours.
    pub(crate) fn of(batch: &RecordBatch<'_>, decompressors: &mut Decompressors) -> Option<Stamp> {
        let mut reader = RecordReader::new(batch, decompressors, &DecompressLimits::DEFAULT);
        let key: [u8; KEY_BYTES] = reader.next_record()?.ok()?.key?.try_into().ok()?;
        let field = |index: usize| u64::from_be_bytes(key[index * 8..][..8].try_into().expect("8 bytes"));
        Some(Stamp { log: field(0), producer: field(1), number: field(2) })
    }
}

/// How large the batches of a producer are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sizes {
    /// 1 byte to about 20 KiB, most of them small, now and then one of some 100 KiB if it may be so large.
    Mixed {
        /// Bytes of a batch at most.
        bytes_max: usize,
    },
    /// All alike, of one record, and whole sectors long: what a stale batch needs to fit behind another one.
    Sectors {
        /// Bytes of a batch.
        bytes: usize,
    },
}

/// Bytes of a batch of one record beside its value, at most.
const OVERHEAD_BYTES: usize = 61 + KEY_BYTES + 24;

impl Sizes {
    /// Sizes for a producer whose batches have `bytes_max` bytes at most.
    pub(crate) fn draw(random: &mut Random, bytes_max: usize) -> Sizes {
        if random.coin() { Sizes::Mixed { bytes_max } } else { Sizes::Sectors { bytes: 512 * (1 + random.index(8)) } }
    }

    fn values(self, random: &mut Random) -> Vec<usize> {
        let bytes_max = match self {
            Sizes::Sectors { bytes } => return vec![value_bytes(bytes)],
            Sizes::Mixed { bytes_max } => bytes_max,
        };
        let room = bytes_max - OVERHEAD_BYTES;
        if room > 300_000 && random.happens(PerMillion(8_000)) {
            return vec![130_000 + random.index(150_000)];
        }
        let records = if random.happens(PerMillion(300_000)) { 1 + random.index(12) } else { 1 };
        let mut left = room;
        let mut values = Vec::with_capacity(records);
        for _ in 0..records {
            let value = match random.below(10) {
                0 => 1,
                1..=4 => random.index(100),
                5..=8 => 100 + random.index(1_900),
                _ => 2_000 + random.index(18_000),
            };
            let Some(rest) = left.checked_sub(value + KEY_BYTES + 24) else { break };
            left = rest;
            values.push(value);
        }
        if values.is_empty() { vec![1] } else { values }
    }
}

/// Bytes of the value that makes a batch of one record `bytes` bytes long.
fn value_bytes(bytes: usize) -> usize {
    // Two lengths of the record are varints of one byte below 64 and of two up to 8 191.
    (0..bytes).rev().find(|&value| one_record_bytes(value) == bytes).expect("a whole number of sectors can be reached")
}

fn one_record_bytes(value: usize) -> usize {
    let varint = |number: usize| (1..).find(|&bytes| number << 1 < 1 << (7 * bytes)).expect("a number has a length");
    // Attributes, two deltas, key, value, no headers.
    let body = 3 + 1 + KEY_BYTES + varint(value) + value + 1;
    61 + varint(body) + body
}

/// A batch as a client sends it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Who made it.
    pub(crate) stamp: Stamp,
    /// Its records.
    pub(crate) records: u32,
    /// Its bytes.
    pub(crate) bytes: Rc<[u8]>,
}

/// Makes batches.
pub(crate) struct Maker {
    plain: BatchBuilder,
    packed: BatchBuilder,
    filler: Vec<u8>,
}

impl Maker {
    /// A maker whose values are drawn from `random`.
    pub(crate) fn new(random: &mut Random) -> Maker {
        let mut filler = vec![0; 1 << 16];
        random.fill(&mut filler);
        let codec = *random.choose(&[Codec::Lz4, Codec::Snappy, Codec::Zstd]);
        Maker { plain: BatchBuilder::new(Codec::None), packed: BatchBuilder::new(codec), filler }
    }

    /// Makes a batch; one in ten of mixed sizes is compressed.
    pub(crate) fn make(
        &mut self,
        random: &mut Random,
        stamp: Stamp,
        sizes: Sizes,
        producer: Option<Producer>,
        now: Timestamp,
    ) -> Sent {
        let packs = matches!(sizes, Sizes::Mixed { .. }) && random.happens(PerMillion(100_000));
        let builder = if packs { &mut self.packed } else { &mut self.plain };
        builder.set_producer(producer);
        let mut records = 0;
        let mut value = Vec::new();
        for bytes in sizes.values(random) {
            value.clear();
            while value.len() < bytes {
                let from = random.index(self.filler.len() / 2);
                let piece = &self.filler[from..][..(bytes - value.len()).min(self.filler.len() / 2)];
                value.extend_from_slice(piece);
            }
            builder.append(Some(now), Some(&stamp.key()), Some(&value), &[]);
            records += 1;
        }
        let bytes = builder.finish().expect("it packs").expect("it has records");
        if let Sizes::Sectors { bytes: wanted } = sizes {
            assert_eq!(bytes.len(), wanted);
        }
        Sent { stamp, records, bytes: bytes.into() }
    }
}

/// What a leader makes of the bytes that a client sent.
pub(crate) fn stamped(sent: &[u8], base_offset: Offset, leader_epoch: LeaderEpoch) -> Rc<[u8]> {
    let mut bytes: Rc<[u8]> = sent.into();
    let content = Rc::get_mut(&mut bytes).expect("nobody else has it yet");
    content[BASE_OFFSET_AT..][..8].copy_from_slice(&base_offset.value().to_be_bytes());
    content[LEADER_EPOCH_AT..][..4].copy_from_slice(&leader_epoch.value().to_be_bytes());
    bytes
}
