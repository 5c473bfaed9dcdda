//! Frames with something wrong in them, the same for the same seed and number.
//!
//! A mutated frame is a well-formed one after one to three changes: of bits and numbers anywhere, of counts and lengths where
//! the frame really has them, of extent (cut, doubled, removed, spliced with another frame), of key and version. Half of the
//! Produce frames get their batches' checksums back afterwards, so that what lies behind them is looked at. It knows no
//! broker and no decoder beyond what tells it where counts lie.

use corelane::wire::produce::ProduceRequest;
use corelane::wire::table::TABLE;
use corelane::wire::{ApiKey, parse_header};

use super::corpus::Frame;
use super::targets::grow::{number_at, varint, with_number};
use super::targets::random::Random;
use super::targets::records::mend;

/// Changes of one frame at most, beside one to a count or a length.
const CHANGES_MAX: usize = 2;
/// Bytes of a frame at most: doubling does not add up.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// What numbers are set to.
const NUMBERS: [i64; 12] = [
    -1,
    0,
    1,
    2,
    -2,
    i8::MAX as i64,
    i16::MAX as i64,
    i32::MAX as i64,
    i32::MIN as i64,
    i64::MAX,
    i64::MIN,
    0x0100_0000,
];

/// The frame number `number` of a seed. It may be well formed: some changes change nothing that matters.
pub(crate) fn frame(frames: &[Frame], seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::stream(seed, number);
    let base = random.choose(frames).clone();
    // Short frames are cut at every byte in turn, whatever else is drawn.
    if base.bytes.len() < 128 && random.once_in(16) {
        let end = random.below(base.bytes.len() + 1);
        return base.bytes[..end].to_vec();
    }
    let (mut bytes, others_min) =
        if random.once_in(2) { (change_place(&base, &mut random), 0) } else { (base.bytes.clone(), 1) };
    for _ in 0..others_min + random.below(CHANGES_MAX) {
        change(&mut bytes, frames, &mut random);
        if bytes.is_empty() {
            return bytes;
        }
    }
    bytes.truncate(FRAME_BYTES_MAX);
    if random.once_in(2) {
        mend_batches(&mut bytes);
    }
    bytes
}

/// Sets a count or a length to what it should not be.
fn change_place(base: &Frame, random: &mut Random) -> Vec<u8> {
    let frame = &base.bytes;
    if base.places.is_empty() {
        return frame.clone();
    }
    let place = *random.choose(&base.places);
    let number = number_at(frame, place);
    let left = i32::try_from(frame.len() - place.at).unwrap_or(i32::MAX);
    let claim = match random.below(10) {
        0 => -1,
        1 => 0,
        2 => i32::MAX,
        3 => i32::MIN,
        4 => number.wrapping_add(1),
        5 => number.wrapping_sub(1),
        // As many as just fit, if they take a byte or four each.
        6 => left,
        7 => left / 4,
        8 => number.wrapping_mul(2),
        _ => random.next() as i32,
    };
    let mut changed = with_number(frame, place, claim);
    // An array that says it is longer and is: its first elements once more.
    if place.counts && random.once_in(4) {
        let begin = (place.at + place.bytes).min(frame.len());
        let end = begin + random.below(frame.len() - begin + 1);
        let at = begin.min(changed.len());
        changed.splice(at..at, frame[begin..end].iter().copied());
    }
    changed
}

fn change(bytes: &mut Vec<u8>, frames: &[Frame], random: &mut Random) {
    let length = bytes.len();
    let at = place_of_change(bytes, random);
    match random.below(12) {
        0 | 1 => {
            for _ in 0..=random.below(4) {
                let at = place_of_change(bytes, random);
                bytes[at] ^= 1 << random.below(8);
            }
        }
        2 => bytes[at] = *random.choose(&[0, 1, 0x7f, 0x80, 0xff]),
        3 => set_number(bytes, at, random),
        4 => set_varint(bytes, at, random),
        5 => bytes.truncate(at),
        6 => {
            let end = at + random.below(length - at) + 1;
            bytes.drain(at..end);
        }
        7 => {
            let end = at + random.below(length - at) + 1;
            let again = bytes[at..end].to_vec();
            bytes.splice(end..end, again);
        }
        8 => {
            let other = &random.choose(frames).bytes;
            let from = random.below(other.len());
            bytes.splice(at.., other[from..].iter().copied());
        }
        9 => {
            let noise: Vec<u8> = (0..=random.below(16)).map(|_| random.byte()).collect();
            bytes.splice(at..at, noise);
        }
        10 => change_api(bytes, random),
        // The body of one request with the header of another.
        _ => {
            let other = random.choose(frames);
            let (Ok(own), Ok(header)) = (parse_header(bytes), parse_header(&other.bytes)) else { return };
            let start = own.body_offset;
            bytes.splice(..start, other.bytes[..header.body_offset].iter().copied());
        }
    }
}

/// A byte of the frame; seldom one of the header, which is soon broken and then hides everything behind it.
fn place_of_change(bytes: &[u8], random: &mut Random) -> usize {
    let body = parse_header(bytes).map_or(0, |header| header.body_offset);
    let from = if body == bytes.len() || random.once_in(8) { 0 } else { body };
    from + random.below(bytes.len() - from)
}

/// Writes a number of 1, 2, 4 or 8 bytes over what lies at `at`.
fn set_number(bytes: &mut [u8], at: usize, random: &mut Random) {
    let size = (*random.choose(&[1, 2, 4, 8])).min(bytes.len() - at);
    let number = random.choose(&NUMBERS).to_be_bytes();
    bytes[at..at + size].copy_from_slice(&number[8 - size..]);
}

/// Puts a varint in the place of the byte at `at`: extreme, or longer than any varint is.
fn set_varint(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let encoded = match random.below(6) {
        0 => varint(u32::MAX),
        1 => varint(i32::MAX as u32 + 1),
        2 => varint(1 << 20),
        3 => vec![0xff; 10],
        4 => vec![0x80; 11],
        _ => vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    };
    bytes.splice(at..=at, encoded);
}

/// Sets key or version, most often to others of the table.
fn change_api(bytes: &mut [u8], random: &mut Random) {
    if bytes.len() < 4 {
        return;
    }
    let row = random.choose(TABLE);
    if random.once_in(2) {
        bytes[..2].copy_from_slice(&row.key.code().to_be_bytes());
    }
    let version = match random.below(4) {
        0 => random.next() as i16,
        _ => row.min + random.below((row.max - row.min + 1) as usize) as i16,
    };
    bytes[2..4].copy_from_slice(&version.to_be_bytes());
}

/// Gives every batch of a Produce frame that can still be read its length, magic and CRC back.
fn mend_batches(frame: &mut [u8]) {
    let mut places = Vec::new();
    if let Ok(header) = parse_header(frame)
        && header.api.key() == ApiKey::Produce
        && let Ok(request) = ProduceRequest::parse(header.api, &frame[header.body_offset..])
    {
        let start = frame.as_ptr().addr();
        for partition in request.topics.flat_map(|topic| topic.partitions) {
            let records = partition.records.unwrap_or_default();
            let at = records.as_ptr().addr().wrapping_sub(start);
            places.push(at..at + records.len());
        }
    }
    for place in places.into_iter().filter(|place| !place.is_empty()) {
        mend(&mut frame[place]);
    }
}
