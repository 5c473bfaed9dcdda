//! What a lane has received and not yet written: frames, where they lie in memory and where they will lie in the file.
//!
//! ```text
//! frame    | length u32 | payload |                                              big-endian; the length of the payload
//! segment  | header block | frame | frame | … | zeros |
//! chunk                 ^ start, on a block boundary of the segment
//! ```
//! Bytes are received straight into a chunk, at the place that they have in the segment: positions in memory and in the file
//! agree modulo the block size, so that a write takes them from where they came and nothing is copied but what does not fit the
//! chunk or the segment. As in the broker's log, a write ends with a whole frame and a frame lies in one segment.
//!
//! The checksum is computed here, when a frame is whole. No I/O.

use std::collections::VecDeque;

use corelane::runtime::{Buffer, Slice};
use corelane::storage::format::FIRST_BATCH_AT;
use corelane::types::limits::BLOCK_BYTES;

/// Bytes of a frame's length field.
pub(crate) const LENGTH_BYTES: usize = 4;
/// Bytes of a payload at most, about Kafka's `max.message.bytes`.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of a chunk: those of the largest write of a broker's log, and two of the longest frames.
const CHUNK_BYTES: usize = 2 << 20;

const _: () = assert!(CHUNK_BYTES >= BLOCK_BYTES + LENGTH_BYTES + PAYLOAD_BYTES_MAX);

/// A frame that no producer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame has 1 to {PAYLOAD_BYTES_MAX} bytes of payload, this one {0}")]
pub(crate) struct WrongLength(pub(crate) usize);

/// Whole frames of one chunk, to be written together.
#[derive(Debug)]
pub(crate) struct Run {
    /// The segment that they belong to.
    pub(crate) segment: u64,
    /// Where [`Run::bytes`] begin in it: a block boundary.
    pub(crate) position: u64,
    /// From that boundary to the end of the last frame.
    pub(crate) bytes: Slice,
    /// Bytes in front of the first frame, less than a block: they were written before.
    pub(crate) before: usize,
    /// CRC32C of each payload.
    pub(crate) sums: Vec<u32>,
}

impl Run {
    /// The frames as they came.
    pub(crate) fn frames(&self) -> Slice {
        self.bytes.slice(self.before..self.bytes.len())
    }
}

/// The end of what was received, and the runs in front of it that wait for their write.
pub(crate) struct Tail {
    segment: u64,
    /// Where the chunk begins in the segment.
    start: u64,
    /// Bytes of the chunk up to the end of the last whole frame.
    whole: usize,
    /// Bytes of the last whole frame: what the next one is expected to have.
    frame_bytes: usize,
    segment_bytes: u64,
    runs: VecDeque<Run>,
}

impl Tail {
    /// An empty one, and its first chunk. A frame that would lead a segment beyond `segment_bytes` begins the next one.
    pub(crate) fn new(segment_bytes: u64) -> (Tail, Buffer) {
        let tail =
            Tail { segment: 0, start: FIRST_BATCH_AT, whole: 0, frame_bytes: 0, segment_bytes, runs: VecDeque::new() };
        (tail, Buffer::with_capacity(CHUNK_BYTES))
    }

    /// The oldest run that waits.
    pub(crate) fn take_run(&mut self) -> Option<Run> {
        self.runs.pop_front()
    }

    /// Takes in what was appended to the chunk. Gives the chunk to receive into next, which has room, and the bytes of the
    /// frames that have become whole.
    pub(crate) fn take_in(&mut self, mut chunk: Buffer) -> Result<(Buffer, usize), WrongLength> {
        let (mut from, mut sums, mut bytes) = (self.whole, Vec::new(), 0);
        loop {
            let begun = &chunk[self.whole..];
            let expected = frame_bytes(begun)?.unwrap_or(self.frame_bytes.max(LENGTH_BYTES));
            let end = self.start + (self.whole + expected) as u64;
            let is_whole = begun.len() >= expected && !begun.is_empty();
            if is_whole && end > self.segment_bytes && self.start + self.whole as u64 > FIRST_BATCH_AT {
                self.add_run(&chunk, from, std::mem::take(&mut sums));
                chunk = self.next_segment(&chunk);
                from = 0;
            } else if is_whole {
                sums.push(crc32c::crc32c(&begun[LENGTH_BYTES..expected]));
                self.whole += expected;
                self.frame_bytes = expected;
                bytes += expected;
            } else {
                self.add_run(&chunk, from, sums);
                // One that is expected to fit may turn out longer when its length has come: it moves then.
                let fits = self.whole + expected <= chunk.capacity();
                return Ok((if fits { chunk } else { self.next_chunk(&chunk) }, bytes));
            }
        }
    }

    /// The whole frames behind `from` are to be written: with those before them, if these still wait in the same chunk.
    fn add_run(&mut self, chunk: &Buffer, from: usize, sums: Vec<u32>) {
        if sums.is_empty() {
            return;
        }
        let boundary = |at: usize| at - at % BLOCK_BYTES;
        let end = self.start + from as u64;
        match self.runs.back_mut() {
            Some(run) if run.segment == self.segment && run.position >= self.start => {
                assert_eq!(run.position + run.bytes.len() as u64, end, "frames lie one behind the other");
                let first = usize::try_from(run.position - self.start).expect("within the chunk");
                run.bytes = chunk.slice(first..self.whole);
                run.sums.extend(sums);
            }
            _ => self.runs.push_back(Run {
                segment: self.segment,
                position: self.start + boundary(from) as u64,
                bytes: chunk.slice(boundary(from)..self.whole),
                before: from % BLOCK_BYTES,
                sums,
            }),
        }
    }

    /// Goes on in a new segment, with the bytes behind the last whole frame.
    fn next_segment(&mut self, chunk: &Buffer) -> Buffer {
        let next = moved(&chunk[self.whole..]);
        self.segment += 1;
        (self.start, self.whole) = (FIRST_BATCH_AT, 0);
        next
    }

    /// Goes on in a new chunk of the same segment, which begins with the partial block of the last one.
    fn next_chunk(&mut self, chunk: &Buffer) -> Buffer {
        let boundary = self.whole - self.whole % BLOCK_BYTES;
        let next = moved(&chunk[boundary..]);
        self.start += boundary as u64;
        self.whole -= boundary;
        next
    }
}

/// A chunk that begins with these bytes.
fn moved(bytes: &[u8]) -> Buffer {
    let mut chunk = Buffer::with_capacity(CHUNK_BYTES);
    chunk.append(bytes);
    chunk
}

/// Bytes of the frame that begins here, once its length has come.
fn frame_bytes(begun: &[u8]) -> Result<Option<usize>, WrongLength> {
    let Some(length) = begun.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    match length {
        1..=PAYLOAD_BYTES_MAX => Ok(Some(LENGTH_BYTES + length)),
        _ => Err(WrongLength(length)),
    }
}

/// A frame with this payload.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("at most PAYLOAD_BYTES_MAX");
    [&length.to_be_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(number: usize, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|index| (index * 31 + number * 7) as u8).collect()
    }

    /// The segments that the runs make, each from its first block of frames on; the sums; how many runs there were.
    fn written(runs: impl IntoIterator<Item = Run>) -> (Vec<Vec<u8>>, Vec<u32>, usize) {
        let (mut segments, mut sums, mut count): (Vec<Vec<u8>>, _, _) = (Vec::new(), Vec::new(), 0);
        for run in runs {
            let segment = usize::try_from(run.segment).expect("small");
            segments.resize(segments.len().max(segment + 1), Vec::new());
            let at = usize::try_from(run.position - FIRST_BATCH_AT).expect("behind the header");
            assert!(at.is_multiple_of(BLOCK_BYTES) && run.before < BLOCK_BYTES);
            assert_eq!(segments[segment].len(), at + run.before, "no gap, and nothing twice");
            assert_eq!(segments[segment][at..], run.bytes[..run.before], "the partial block is written again");
            segments[segment].extend_from_slice(&run.frames());
            sums.extend(run.sums);
            count += 1;
        }
        (segments, sums, count)
    }

    /// Feeds `stream` in pieces of `piece` bytes; takes the runs every `every` pieces.
    fn feed(stream: &[u8], piece: usize, every: usize, segment_bytes: u64) -> (Vec<Vec<u8>>, Vec<u32>, usize) {
        let (mut tail, mut chunk) = Tail::new(segment_bytes);
        let (mut runs, mut at, mut pieces, mut whole) = (Vec::new(), 0, 0, 0);
        while at < stream.len() {
            let bytes = piece.min(chunk.remaining()).min(stream.len() - at);
            assert!(bytes > 0, "the chunk has room");
            chunk.append(&stream[at..at + bytes]);
            at += bytes;
            let (next, frames) = tail.take_in(chunk).expect("good lengths");
            chunk = next;
            whole += frames;
            pieces += 1;
            if pieces % every == 0 {
                runs.extend(std::iter::from_fn(|| tail.take_run()));
            }
        }
        runs.extend(std::iter::from_fn(|| tail.take_run()));
        assert_eq!(whole, stream.len());
        written(runs)
    }

    #[test]
    fn frames_come_out_whole_in_order_and_with_the_sums_of_all_their_bytes() {
        for (bytes, count) in [(1, 40), (100, 50), (4092, 20), (65_536, 80), (PAYLOAD_BYTES_MAX, 5)] {
            let payloads: Vec<_> = (0..count).map(|number| payload(number, bytes)).collect();
            let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
            let sums: Vec<u32> = payloads.iter().map(|payload| crc32c::crc32c(payload)).collect();
            for piece in [997, 70_000, usize::MAX] {
                for every in [1, 5, usize::MAX] {
                    let (segments, found, runs) = feed(&stream, piece, every, u64::MAX);
                    assert_eq!((segments, found), (vec![stream.clone()], sums.clone()), "{bytes} {piece} {every}");
                    assert!(every != usize::MAX || runs <= 1 + stream.len() / (CHUNK_BYTES - BLOCK_BYTES - bytes));
                }
            }
        }
    }

    #[test]
    fn a_segment_ends_with_the_last_frame_that_fits_it() {
        let frames: Vec<_> = (0..10).map(|number| frame(&payload(number, 996))).collect();
        let segment_bytes = FIRST_BATCH_AT + 3 * 1000 + 999;
        for piece in [10, 2500, usize::MAX] {
            let (segments, sums, _) = feed(&frames.concat(), piece, usize::MAX, segment_bytes);
            assert_eq!(segments, frames.chunks(3).map(<[_]>::concat).collect::<Vec<_>>(), "pieces of {piece}");
            assert_eq!(sums.len(), 10);
        }
        // A frame that fits no segment has one to itself.
        assert_eq!(feed(&frames[..2].concat(), usize::MAX, 1, FIRST_BATCH_AT).0, frames[..2]);
    }

    #[test]
    fn no_frame_is_empty_or_too_long() {
        for length in [0, PAYLOAD_BYTES_MAX + 1, 0xffff_ffff] {
            let (mut tail, mut chunk) = Tail::new(u64::MAX);
            chunk.append(&u32::try_from(length).expect("a length").to_be_bytes());
            assert_eq!(tail.take_in(chunk).map(|_| ()), Err(WrongLength(length)));
        }
    }
}
