//! Well-formed requests of every API and version of the table, grown by asking the decoder what it misses.
//!
//! A body begins empty. Each time the decoder says which bytes it wants and where; they are drawn small, so that arrays get
//! elements and strings letters, and what it refuses is drawn again. So a row that is added to the table is covered at once,
//! nested arrays and tagged fields included, and nobody writes its fields down a second time. [`places`] finds in the same
//! way where a frame keeps its counts and lengths.
//!
//! What the fields mean is not known here: names of topics that exist, for instance, come from captured frames.

use bytes::Bytes;
use corelane::wire::fetch::FetchRequest;
use corelane::wire::produce::ProduceRequest;
use corelane::wire::{Api, ApiKey, DecodeError, Expected, decode_request, parse_header};

use super::random::Random;

/// Fields that a body is grown by at most before it is begun anew.
const STEPS_MAX: usize = 2000;
/// Bytes of a grown body at most: deep, not long.
const BODY_BYTES_MAX: usize = 4096;
/// Bodies that are begun at most. All rows of the table need a few tens.
const TRIES_MAX: usize = 1000;

/// A number that no array or string of a small frame can have.
const CLAIM: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];
const COMPACT_CLAIM: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x0f];

/// What the decoder of `api` says about a body.
pub(crate) fn decode_body(api: Api, body: &[u8]) -> Result<(), DecodeError> {
    match api.key() {
        ApiKey::Produce => ProduceRequest::parse(api, body).map(drop),
        ApiKey::Fetch => FetchRequest::parse(api, body).map(drop),
        _ => decode_request(api, Bytes::copy_from_slice(body)).map(drop),
    }
}

/// A whole frame without its length, with a header that fits.
pub(crate) fn frame(api: Api, body: &[u8]) -> Vec<u8> {
    let mut frame = header(api.key().code(), api.version());
    if api.request_header_version() >= 2 {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    frame
}

/// The part of a request's header that every version has.
pub(crate) fn header(key: i16, version: i16) -> Vec<u8> {
    const CLIENT_ID: &[u8] = b"hostile";
    let mut header = Vec::new();
    header.extend_from_slice(&key.to_be_bytes());
    header.extend_from_slice(&version.to_be_bytes());
    header.extend_from_slice(&7i32.to_be_bytes());
    header.extend_from_slice(&(CLIENT_ID.len() as u16).to_be_bytes());
    header.extend_from_slice(CLIENT_ID);
    header
}

/// A well-formed body of `api`.
pub(crate) fn body(api: Api, random: &mut Random) -> Vec<u8> {
    (0..TRIES_MAX).find_map(|_| grow(api, random)).unwrap_or_else(|| panic!("no body of {api} grows"))
}

fn grow(api: Api, random: &mut Random) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    for _ in 0..STEPS_MAX {
        let DecodeError { position, expected, .. } = match decode_body(api, &body) {
            Ok(()) => return Some(body),
            Err(error) => error,
        };
        match expected {
            Expected::Bytes(bytes) if position + bytes <= BODY_BYTES_MAX => {
                let missing = (position + bytes).saturating_sub(body.len());
                if missing == bytes {
                    push_field(&mut body, bytes, random)
                } else {
                    push_small(&mut body, missing, random)
                }
            }
            Expected::Elements(count) if count <= BODY_BYTES_MAX => push_small(&mut body, 1, random),
            _ if body.len() > position => body.truncate(position),
            // Refused at its very end: something before it is wrong.
            _ => body.truncate(random.below(position + 1)),
        }
    }
    None
}

/// A field of `bytes` bytes: most often the number of elements or letters that follow, or small anyhow.
fn push_field(body: &mut Vec<u8>, bytes: usize, random: &mut Random) {
    let small: i64 = *random.choose(&[0, 1, 1, 2, 2, 3, -1]);
    match bytes {
        // Compact lengths are one more than what they count.
        1 => body.push(*random.choose(&[0, 0, 1, 2, 2, 2, 3, 4])),
        2 | 4 | 8 => body.extend_from_slice(&small.to_be_bytes()[8 - bytes..]),
        _ => body.extend((0..bytes).map(|_| b'a' + random.byte() % 26)),
    }
}

fn push_small(body: &mut Vec<u8>, bytes: usize, random: &mut Random) {
    body.extend((0..bytes).map(|_| *random.choose(&[0, 0, 0, 1, 2])));
}

/// A place in a frame that says how much follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Bytes from the start of the frame.
    pub(crate) at: usize,
    /// Bytes that it takes as it is.
    pub(crate) bytes: usize,
    /// Whether it is a varint.
    pub(crate) compact: bool,
    /// Whether it counts the elements of an array, or tagged fields.
    pub(crate) counts: bool,
}

/// Every place of a well-formed frame that says how many elements or bytes follow.
pub(crate) fn places(frame: &[u8]) -> Vec<Place> {
    let Ok(header) = parse_header(frame) else { return Vec::new() };
    let (api, start) = (header.api, header.body_offset);
    let mut found = Vec::new();
    for at in start..frame.len() {
        let position = at - start;
        let claimed = |claim: &[u8]| {
            let body = [&frame[start..at], claim, &frame[at..]].concat();
            decode_body(api, &body).err().map(|error| (error.position, error.expected))
        };
        let place = if api.is_flexible() {
            let bytes = 1 + frame[at..].iter().take(4).take_while(|byte| **byte >= 0x80).count();
            match claimed(&COMPACT_CLAIM) {
                Some((here, Expected::Elements(_))) if here == position => Some((bytes, true)),
                Some((here, Expected::ShortString)) if here == position => Some((bytes, false)),
                Some((here, Expected::Bytes(long))) if here == position + 5 && long > 1 << 30 => Some((bytes, false)),
                _ => None,
            }
        } else {
            match claimed(&CLAIM) {
                Some((here, Expected::Elements(_))) if here == position => Some((4, true)),
                Some((here, Expected::Bytes(long))) if here == position + 4 && long > 1 << 30 => Some((4, false)),
                Some((here, Expected::Bytes(0x7fff))) if here == position + 2 => Some((2, false)),
                _ => None,
            }
        };
        found.extend(place.map(|(bytes, counts)| Place { at, bytes, compact: api.is_flexible(), counts }));
    }
    found
}

/// The frame with a claim of `number` at `place`, in the place's own encoding.
pub(crate) fn with_number(frame: &[u8], place: Place, number: i32) -> Vec<u8> {
    let encoded = if place.compact {
        // −1 is null, which is 0 here; every other number is one more.
        varint((number as u32).wrapping_add(1))
    } else {
        number.to_be_bytes()[4 - place.bytes..].to_vec()
    };
    [&frame[..place.at], &encoded, &frame[(place.at + place.bytes).min(frame.len())..]].concat()
}

/// The number that stands at `place`.
pub(crate) fn number_at(frame: &[u8], place: Place) -> i32 {
    let bytes = &frame[place.at..(place.at + place.bytes).min(frame.len())];
    if place.compact {
        let value = bytes.iter().rev().fold(0u32, |value, byte| value << 7 | u32::from(byte & 0x7f));
        return value.wrapping_sub(1) as i32;
    }
    bytes.iter().fold(0, |value, byte| value << 8 | i32::from(*byte))
}

/// An unsigned varint.
pub(crate) fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
