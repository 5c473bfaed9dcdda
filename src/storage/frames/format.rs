//! The bytes of a frame log's file: header, frames, and finding their end.
//!
//! No write touches a block that holds an acknowledged frame, whatever becomes of the sectors that are being written. The salt
//! is random, so no value that somebody stores in the log can pass for a frame of it. The snapshot was durable before the file
//! got its name, and a write begins only when the one before is durable. So a bad frame is the torn end of the log only if no
//! frame of a *later* write stands anywhere behind it; else it is corruption.
//!
//! A frame without payload marks a clean end: it is there so that damage to the last frame before it shows.
//!
//! This file reads and makes bytes; it does no I/O.

use std::ops::Range;

use bytes::BufMut;

use super::super::codec::{DecodeError, ENVELOPE_BYTES, Envelope};
use crate::types::limits::BLOCK_BYTES;

/// The file:
///
/// ```text
/// block 0   envelope "CLmeta" (see codec) with the body
///             sequence u64 · salt u64 · first number u64 · snapshot frames u32 · snapshot end u64
/// 4096      writes, each from a multiple of 4096 on: frames, each at a multiple of 8, then zeros up to the next block
///             0   length u32   of head and payload, 24 at least; 0: no frame
///             4   crc32c u32   of salt, length, number, first of write, payload
///             8   number u64   rises by one from frame to frame, through all files
///             16  first of write u64   number of the first frame that was written together with this one
///             24  payload, then zeros up to a multiple of 8
/// behind    zeros, to the end of the file
/// ```
const FILE: Envelope = Envelope { what: "metadata log", magic: *b"CLmeta\0\0", version: 1 };

/// Where the first frame begins.
pub(super) const FRAMES_START: usize = BLOCK_BYTES;
/// Bytes of a frame's head.
pub(super) const HEAD_BYTES: usize = 24;
const ALIGN: usize = 8;

/// Bytes of one write at most, a multiple of the block. It bounds what a torn end can span, and the memory of a group commit.
pub(super) const WRITE_BYTES_MAX: usize = 8 << 20;
/// Bytes of a frame's payload at most: what fits into one write.
pub(super) const PAYLOAD_BYTES_MAX: usize = WRITE_BYTES_MAX - HEAD_BYTES;

const _: () = assert!(WRITE_BYTES_MAX.is_multiple_of(BLOCK_BYTES) && BLOCK_BYTES.is_multiple_of(ALIGN));
const _: () = assert!(ENVELOPE_BYTES + 36 <= FRAMES_START && HEAD_BYTES.is_multiple_of(ALIGN));

/// What the header block says of its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileHeader {
    /// The number in the file's name.
    pub(super) sequence: u64,
    /// Random; part of every checksum.
    pub(super) salt: u64,
    /// The number of the first frame.
    pub(super) first_number: u64,
    /// How many frames the snapshot takes.
    pub(super) snapshot_frames: u32,
    /// Where the snapshot ends, in bytes from the start of the file.
    pub(super) snapshot_end: u64,
}

impl FileHeader {
    /// The header block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = FILE.encode(|body| {
            body.put_u64(self.sequence);
            body.put_u64(self.salt);
            body.put_u64(self.first_number);
            body.put_u32(self.snapshot_frames);
            body.put_u64(self.snapshot_end);
        });
        bytes.resize(FRAMES_START, 0);
        bytes
    }

    /// Reads the header block that `file` begins with.
    pub(super) fn decode(file: &[u8]) -> Result<FileHeader, DecodeError> {
        let mut reader = FILE.open(file)?;
        let header = FileHeader {
            sequence: reader.u64()?,
            salt: reader.u64()?,
            first_number: reader.u64()?,
            snapshot_frames: reader.u32()?,
            snapshot_end: reader.u64()?,
        };
        reader.finish()?;
        Ok(header)
    }
}

/// Bytes that a frame with this payload takes.
pub(super) const fn frame_bytes(payload: usize) -> usize {
    (HEAD_BYTES + payload).next_multiple_of(ALIGN)
}

/// Appends the frame `number` of a write that begins with the frame `first_of_write`.
pub(super) fn put_frame(bytes: &mut Vec<u8>, salt: u64, number: u64, first_of_write: u64, payload: &[u8]) {
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX && bytes.len().is_multiple_of(ALIGN));
    let length = u32::try_from(HEAD_BYTES + payload.len()).expect("payloads are far below 4 GiB");
    let start = bytes.len();
    bytes.put_u32(length);
    bytes.put_u32(0);
    bytes.put_u64(number);
    bytes.put_u64(first_of_write);
    bytes.extend_from_slice(payload);
    let crc = checksum(salt, &bytes[start..]);
    bytes[start + 4..start + 8].copy_from_slice(&crc.to_be_bytes());
    bytes.resize(start + frame_bytes(payload.len()), 0);
}

/// The checksum of a frame's head and payload; the field that holds it is left out.
fn checksum(salt: u64, frame: &[u8]) -> u32 {
    let salted = crc32c::crc32c(&salt.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(salted, &frame[..4]), &frame[8..])
}

/// A frame whose checksum holds.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Frame {
    number: u64,
    first_of_write: u64,
    payload: Range<usize>,
    end: usize,
}

/// The frame at `position`; `None` if none is there, whatever is there instead.
fn frame_at(file: &[u8], position: usize, salt: u64) -> Option<Frame> {
    let bytes = file.get(position..)?;
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().map(u32::from_be_bytes).ok();
    let field = |at: usize| bytes.get(at..at + 8)?.try_into().map(u64::from_be_bytes).ok();
    let (length, crc) = (word(0)? as usize, word(4)?);
    if !(HEAD_BYTES..=HEAD_BYTES + PAYLOAD_BYTES_MAX).contains(&length) {
        return None;
    }
    let whole = length.next_multiple_of(ALIGN);
    let (frame, padding) = bytes.get(..whole)?.split_at(length);
    if checksum(salt, frame) != crc || padding.iter().any(|&byte| byte != 0) {
        return None;
    }
    let payload = position + HEAD_BYTES..position + length;
    Some(Frame { number: field(8)?, first_of_write: field(16)?, payload, end: position + whole })
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Scan {
    /// Where the payloads of the snapshot lie.
    pub(super) snapshot: Vec<Range<usize>>,
    /// Where the payloads of the frames behind it lie.
    pub(super) frames: Vec<Range<usize>>,
    /// The position behind the last frame.
    pub(super) end: usize,
    /// The position of the first frame of the last write: everything before it is durable.
    pub(super) last_write: usize,
    /// The number of the next frame.
    pub(super) next_number: u64,
    /// Where the torn end stops, if there is one: from `end` to here are bytes that were never acknowledged.
    pub(super) torn_to: Option<usize>,
}

impl Scan {
    /// Where the next write goes.
    pub(super) fn next_write(&self) -> usize {
        self.end.next_multiple_of(BLOCK_BYTES)
    }

    /// Where another write would begin; `None` if the rest of the block is not all zeros.
    fn due(&self, file: &[u8]) -> Option<usize> {
        let rest = file.get(self.end..self.next_write())?;
        rest.iter().all(|&byte| byte == 0).then(|| self.next_write())
    }
}

/// A frame that was durable and cannot be read any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Corruption {
    /// Where the bad frame begins.
    pub(super) position: usize,
    /// What should be there.
    pub(super) expected: String,
    /// What shows that it was there.
    pub(super) found: String,
}

/// Finds the frames of `file`, which begins with `header`, and their end.
pub(super) fn scan(file: &[u8], header: &FileHeader) -> Result<Scan, Corruption> {
    let mut scan = Scan {
        snapshot: Vec::new(),
        frames: Vec::new(),
        end: FRAMES_START,
        last_write: FRAMES_START,
        next_number: header.first_number,
        torn_to: None,
    };
    let mut write = header.first_number;
    while let Some((position, frame)) = next_frame(file, header.salt, &scan, write) {
        if frame.first_of_write == frame.number {
            (write, scan.last_write) = (frame.number, position);
        }
        let in_snapshot = scan.snapshot.len() < header.snapshot_frames as usize;
        if in_snapshot {
            scan.snapshot.push(frame.payload);
        } else if !frame.payload.is_empty() {
            scan.frames.push(frame.payload);
        }
        (scan.end, scan.next_number) = (frame.end, frame.number + 1);
    }
    check_snapshot(&scan, header)?;
    let dirty = file.get(scan.end..).and_then(|rest| rest.iter().rposition(|&byte| byte != 0));
    scan.torn_to = dirty.map(|last| scan.end + last + 1);
    if let Some(torn_to) = scan.torn_to {
        check_torn(file, &scan, header, torn_to)?;
    }
    Ok(scan)
}

/// The frame that follows what was found so far, and its position: the next one of the write that begins with frame `write`,
/// or behind zeros the first one of another write.
fn next_frame(file: &[u8], salt: u64, scan: &Scan, write: u64) -> Option<(usize, Frame)> {
    let follows = |position: usize, first_of_write: u64| {
        let frame = frame_at(file, position, salt)?;
        (frame.number == scan.next_number && frame.first_of_write == first_of_write).then_some((position, frame))
    };
    follows(scan.end, write).or_else(|| follows(scan.due(file)?, scan.next_number))
}

/// The snapshot was durable before its file had a name: it is whole or corrupt.
fn check_snapshot(scan: &Scan, header: &FileHeader) -> Result<(), Corruption> {
    let whole = scan.snapshot.len() == header.snapshot_frames as usize;
    let end = scan.snapshot.last().map_or(FRAMES_START, |payload| payload.end.next_multiple_of(ALIGN)) as u64;
    if whole && end == header.snapshot_end {
        return Ok(());
    }
    Err(Corruption {
        position: scan.end,
        expected: format!("a snapshot of {} frames up to {}", header.snapshot_frames, header.snapshot_end),
        found: format!("{} frames", scan.snapshot.len()),
    })
}

/// What stands behind the end must be able to come from the one write that was under way.
fn check_torn(file: &[u8], scan: &Scan, header: &FileHeader, torn_to: usize) -> Result<(), Corruption> {
    let expected = format!("frame {}", scan.next_number);
    let bad = scan.due(file).unwrap_or(scan.end);
    let write_end = scan.next_write() + WRITE_BYTES_MAX;
    if torn_to > write_end {
        let found = format!("data up to {torn_to}, further than one write can reach");
        return Err(Corruption { position: bad, expected, found });
    }
    for position in (scan.end..torn_to).step_by(ALIGN) {
        let Some(frame) = frame_at(file, position, header.salt) else { continue };
        // A frame of a later write, or the one that is due behind what should be zeros.
        if frame.first_of_write > scan.next_number || frame.number == scan.next_number {
            let found = format!("frame {} at {position}, which was written later", frame.number);
            return Err(Corruption { position: bad, expected, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::codec::{assert_every_damage_is_refused, hex};

    const SALT: u64 = 0x0123_4567_89ab_cdef;

    /// A file whose snapshot and writes have these payloads, and zeros behind.
    fn file(snapshot: &[&[u8]], writes: &[&[&[u8]]]) -> (FileHeader, Vec<u8>) {
        let mut bytes = vec![0; FRAMES_START];
        let mut snapshot_end = FRAMES_START as u64;
        let mut number = 7;
        for (index, write) in std::iter::once(&snapshot).chain(writes).enumerate() {
            let first = number;
            for payload in *write {
                put_frame(&mut bytes, SALT, number, first, payload);
                number += 1;
            }
            if index == 0 {
                snapshot_end = bytes.len() as u64;
            }
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        let snapshot_frames = snapshot.len() as u32;
        let header = FileHeader { sequence: 3, salt: SALT, first_number: 7, snapshot_frames, snapshot_end };
        bytes[..FRAMES_START].copy_from_slice(&header.encode());
        bytes.resize(bytes.len() + BLOCK_BYTES, 0);
        (header, bytes)
    }

    fn example() -> (FileHeader, Vec<u8>) {
        file(&[b"snap", b"shot"], &[&[b"one"], &[b"two", b"three"], &[b"four", b"five"]])
    }

    fn payloads<'a>(bytes: &'a [u8], scan: &Scan) -> Vec<&'a [u8]> {
        scan.snapshot.iter().chain(&scan.frames).map(|payload| &bytes[payload.clone()]).collect()
    }

    #[test]
    fn the_format_is_frozen() {
        let (header, bytes) = file(&[b"snap"], &[&[b"x"]]);
        let golden_header = [
            "434c6d6574610000 0001 0000 00fe1929 00000024",
            "0000000000000003 0123456789abcdef 0000000000000007 00000001 0000000000001020",
        ];
        assert_eq!(hex(&bytes[..56]), golden_header.concat().replace(' ', ""));
        let golden_frames = [
            "0000001c 6f36d060 0000000000000007 0000000000000007 736e617000000000",
            "00000019 296147f8 0000000000000008 0000000000000008 7800000000000000",
        ];
        let frames = [&bytes[FRAMES_START..FRAMES_START + 32], &bytes[2 * BLOCK_BYTES..2 * BLOCK_BYTES + 32]].concat();
        assert_eq!(hex(&frames), golden_frames.concat().replace(' ', ""));
        assert_eq!(FileHeader::decode(&bytes), Ok(header));
        assert_every_damage_is_refused(&bytes[..56], FileHeader::decode);
    }

    #[test]
    fn all_frames_are_found() {
        let (header, bytes) = example();
        let scan = scan(&bytes, &header).expect("intact");
        let expected: [&[u8]; 7] = [b"snap", b"shot", b"one", b"two", b"three", b"four", b"five"];
        assert_eq!(payloads(&bytes, &scan), expected);
        assert_eq!((scan.snapshot.len(), scan.next_number, scan.torn_to), (2, 14, None));
        assert_eq!((scan.last_write, scan.end), (4 * BLOCK_BYTES, 4 * BLOCK_BYTES + 2 * 32));
    }

    #[test]
    fn an_empty_file_has_no_frames() {
        let (header, bytes) = file(&[], &[]);
        let scan = scan(&bytes, &header).expect("intact");
        assert_eq!((scan.end, scan.next_number, scan.frames.len()), (FRAMES_START, 7, 0));
    }

    #[test]
    fn a_clean_end_is_no_payload() {
        let (header, bytes) = file(&[], &[&[b"one"], &[b""], &[b"two"], &[b""]]);
        let scan = scan(&bytes, &header).expect("intact");
        assert_eq!(payloads(&bytes, &scan), [b"one", b"two"]);
        assert_eq!(scan.next_number, 11);
    }

    /// Every single bit of every frame: damage to the last write is its torn end, any other damage is corruption.
    #[test]
    fn damage_is_torn_in_the_last_write_and_corruption_before_it() {
        let (header, mut bytes) = example();
        let intact = scan(&bytes, &header).expect("intact");
        for bit in FRAMES_START * 8..intact.next_write() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            match scan(&bytes, &header) {
                Ok(torn) if bit / 8 >= intact.last_write => {
                    assert!(torn.torn_to.is_some(), "bit {bit} of the last write");
                    assert_eq!(torn.frames.len() < intact.frames.len(), bit / 8 < intact.end, "bit {bit}");
                }
                Err(corruption) if bit / 8 < intact.last_write => {
                    assert!(corruption.position <= bit / 8, "bit {bit}");
                }
                other => panic!("bit {bit}: {other:?}"),
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_lost_file_end_is_torn_or_corruption() {
        let (header, bytes) = example();
        let intact = scan(&bytes, &header).expect("intact");
        for length in FRAMES_START..intact.end {
            let result = scan(&bytes[..length], &header);
            assert_eq!(result.is_err(), (length as u64) < header.snapshot_end, "{length}");
        }
    }

    #[test]
    fn bytes_further_off_than_a_write_are_corruption() {
        let (header, mut bytes) = file(&[], &[&[b"one"]]);
        bytes.resize(2 * WRITE_BYTES_MAX, 0);
        let next_write = FRAMES_START + BLOCK_BYTES;
        bytes[next_write + WRITE_BYTES_MAX - 1] = 1;
        assert!(scan(&bytes, &header).expect("torn").torn_to.is_some());
        bytes[next_write + WRITE_BYTES_MAX] = 1;
        assert!(scan(&bytes, &header).is_err());
    }

    #[test]
    fn frames_of_other_files_and_places_do_not_count() {
        let (header, bytes) = file(&[], &[&[b"one"]]);
        let foreign = FileHeader { salt: 1, ..header };
        assert_eq!(scan(&bytes, &foreign).expect("torn").frames.len(), 0);
        let later = FileHeader { first_number: 6, ..header };
        assert!(scan(&bytes, &later).is_err(), "frame 7 shows that frame 6 was durable");
    }
}
