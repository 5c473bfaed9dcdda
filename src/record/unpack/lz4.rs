//! The LZ4 frame format, one frame per batch, blocks independent or linked, checksums verified where the frame has them.
//!
//! The decoder owns its input (the library reads from a value, not from a borrow that changes with each batch), so the
//! compressed bytes are copied once. It is used again only after a frame that ended cleanly and only for frames of the same
//! shape: the library sizes its buffers by the shape and does not say where in a frame it is.
//! Source: lz4/lz4 `doc/lz4_Frame_format.md` (1.6); `Lz4BlockInputStream` of Apache Kafka.

use std::io::{self, Read};

use lz4_flex::frame::FrameDecoder;

use super::{RETAINED_BYTES_MAX, UnpackError};
use crate::record::header::Codec;

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// In the flags byte: blocks do not refer to each other.
const INDEPENDENT: u8 = 1 << 5;

/// The byte of the largest block size whose buffers are kept: 1 MiB, three buffers of it with linked blocks.
const RETAINED_BLOCK_SIZE: u8 = 6 << 4;

/// What sizes the decoder's buffers: linked or independent blocks, and the byte of the largest block size.
type Shape = (bool, u8);

/// A decoder, its input, and whether it stands between frames.
pub(super) struct Context {
    decoder: FrameDecoder<Packed>,
    shape: Shape,
    between_frames: bool,
}

/// The compressed bytes. `starved` is set when more were wanted than there are: the library takes an end inside a frame, at
/// a block's border, for the end of the frame.
#[derive(Default)]
struct Packed {
    bytes: Vec<u8>,
    at: usize,
    starved: bool,
}

impl Read for Packed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = &self.bytes[self.at..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        self.starved |= count < out.len();
        Ok(count)
    }
}

/// Reads one batch.
pub(super) enum Reader<'s> {
    /// Nothing is compressed in nothing.
    Empty,
    /// The bytes are no LZ4 frame.
    NoFrame,
    /// A frame.
    Frame(&'s mut Context),
}

impl<'s> Reader<'s> {
    pub(super) fn new(context: &'s mut Option<Box<Context>>, packed: &[u8]) -> Reader<'s> {
        let shape = match packed {
            [] => return Reader::Empty,
            [a, b, c, d, flags, block, ..] if [*a, *b, *c, *d] == MAGIC => (flags & INDEPENDENT != 0, *block),
            _ => return Reader::NoFrame,
        };
        let mut bytes = match context.take() {
            Some(mut used) => {
                let input = used.decoder.get_mut();
                let bytes = std::mem::take(&mut input.bytes);
                if used.between_frames && used.shape == shape && shape.1 <= RETAINED_BLOCK_SIZE {
                    *context = Some(used);
                }
                bytes
            }
            None => Vec::new(),
        };
        if bytes.capacity() > RETAINED_BYTES_MAX {
            bytes = Vec::new();
        }
        bytes.clear();
        bytes.extend_from_slice(packed);
        let context = context.get_or_insert_with(|| {
            Box::new(Context { decoder: FrameDecoder::new(Packed::default()), shape, between_frames: true })
        });
        *context.decoder.get_mut() = Packed { bytes, at: 0, starved: false };
        context.between_frames = false;
        Reader::Frame(context)
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        let context = match self {
            Reader::Empty => return Ok(0),
            Reader::NoFrame => return Err(corrupt("no LZ4 frame")),
            Reader::Frame(context) if context.between_frames => return Ok(0),
            Reader::Frame(context) => context,
        };
        let count = context.decoder.read(out).map_err(|_| corrupt("the frame"))?;
        if count == 0 {
            let input = context.decoder.get_ref();
            if input.starved {
                return Err(corrupt("it ends inside the frame"));
            }
            if input.at < input.bytes.len() {
                return Err(corrupt("bytes follow the frame"));
            }
            context.between_frames = true;
        }
        Ok(count)
    }
}

fn corrupt(what: &'static str) -> UnpackError {
    UnpackError::Corrupt { codec: Codec::Lz4, what }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    fn packed(info: FrameInfo, data: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(context: &mut Option<Box<Context>>, packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let mut reader = Reader::new(context, packed);
        let (mut all, mut out) = (Vec::new(), [0; 1000]);
        loop {
            match reader.read(&mut out)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&out[..count]),
            }
        }
    }

    #[test]
    fn one_context_reads_frames_of_every_shape_also_after_broken_ones() {
        let data: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
        let mut context = None;
        for round in 0..2 {
            for size in [BlockSize::Max64KB, BlockSize::Max4MB, BlockSize::Max256KB] {
                for mode in [BlockMode::Independent, BlockMode::Linked] {
                    let info = FrameInfo::new().block_size(size).block_mode(mode).content_checksum(true);
                    let frame = packed(info, &data);
                    assert_eq!(unpacked(&mut context, &frame).as_ref(), Ok(&data), "round {round}");
                    assert_eq!(unpacked(&mut context, &frame).as_ref(), Ok(&data), "again, round {round}");
                    assert!(unpacked(&mut context, &frame[..frame.len() / 2]).is_err());
                }
            }
        }
    }

    #[test]
    fn an_end_at_a_blocks_border_is_noticed() {
        let frame = packed(FrameInfo::new(), b"abc");
        let mut context = None;
        for cut in 1..frame.len() {
            assert!(unpacked(&mut context, &frame[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(unpacked(&mut context, &frame).as_deref(), Ok(&b"abc"[..]));
        assert_eq!(unpacked(&mut context, &[]).as_deref(), Ok(&b""[..]));
        let twice = [frame.clone(), frame].concat();
        assert_eq!(unpacked(&mut context, &twice), Err(corrupt("bytes follow the frame")));
    }
}
