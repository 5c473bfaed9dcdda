//! Compression of a batch's records, in the forms that every Kafka client reads: gzip, xerial-framed Snappy in blocks of
//! 32 KiB, LZ4 frames of independent 64 KiB blocks, zstd. Contexts are made at first use and kept.
//!
//! A context whose memory grew beyond what is worth keeping is given back after the batch.
//!
//! Source: the codecs' defaults in Apache Kafka (`compression.gzip.level` and so on, KIP-390); the readers in `unpack`.

use std::io::Write;

use flate2::{Compress, Crc, FlushCompress, Status};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use zstd::zstd_safe::{self, CCtx, CParameter};

use super::header::Codec;
use super::unpack::{RETAINED_BYTES_MAX, XERIAL_HEADER};

/// Bytes of a block of xerial's framing, its default.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Kafka's default level of zstd.
const ZSTD_LEVEL: i32 = 3;
/// gzip: no name, no time, unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A codec and how hard it tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compression {
    codec: Codec,
    level: Option<i32>,
}

impl Compression {
    /// The codec at its own level.
    pub const fn new(codec: Codec) -> Compression {
        Compression { codec, level: None }
    }

    /// gzip at a level from 1 to 9.
    pub const fn gzip(level: u32) -> Compression {
        assert!(level >= 1 && level <= 9, "gzip has levels 1 to 9");
        Compression { codec: Codec::Gzip, level: Some(level as i32) }
    }

    /// zstd at a level; those that it does not have are taken for the nearest one.
    pub const fn zstd(level: i32) -> Compression {
        Compression { codec: Codec::Zstd, level: Some(level) }
    }

    /// The codec.
    pub const fn codec(self) -> Codec {
        self.codec
    }
}

/// Compression state, used again for every batch.
#[derive(Default)]
pub(super) struct Compressors {
    gzip: Option<(Option<i32>, Compress)>,
    snappy: Option<snap::raw::Encoder>,
    zstd: Option<CCtx<'static>>,
}

/// The library refused to compress: out of memory, or a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot compress with {codec}: {reason}")]
pub struct PackError {
    /// The codec.
    pub codec: Codec,
    /// What the library says.
    pub reason: String,
}

impl PackError {
    fn new(codec: Codec, reason: impl ToString) -> PackError {
        PackError { codec, reason: reason.to_string() }
    }
}

impl Compressors {
    /// Appends `plain` to `out`, compressed.
    pub(super) fn pack(&mut self, to: Compression, plain: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
        match to.codec {
            Codec::None => {
                out.extend_from_slice(plain);
                Ok(())
            }
            Codec::Gzip => self.gzip(to.level, plain, out),
            Codec::Snappy => self.snappy(plain, out),
            Codec::Lz4 => lz4(plain, out),
            Codec::Zstd => self.zstd(to.level.unwrap_or(ZSTD_LEVEL), plain, out),
        }
    }

    fn gzip(&mut self, level: Option<i32>, plain: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
        let own = level.and_then(|level| u32::try_from(level).ok()).map(flate2::Compression::new);
        let new = || (level, Compress::new(own.unwrap_or_default(), false));
        let (_, deflate) = match &mut self.gzip {
            Some(kept) if kept.0 == level => kept,
            other => other.insert(new()),
        };
        deflate.reset();
        out.extend_from_slice(&GZIP_HEADER);
        loop {
            #[allow(clippy::cast_possible_truncation, reason = "not above the length of `plain`")]
            let rest = &plain[deflate.total_in() as usize..];
            out.reserve(rest.len() / 2 + 64);
            let status = deflate
                .compress_vec(rest, out, FlushCompress::Finish)
                .map_err(|error| PackError::new(Codec::Gzip, error))?;
            if status == Status::StreamEnd {
                break;
            }
        }
        let mut crc = Crc::new();
        crc.update(plain);
        out.extend_from_slice(&crc.sum().to_le_bytes());
        out.extend_from_slice(&crc.amount().to_le_bytes());
        Ok(())
    }

    fn snappy(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
        let encoder = self.snappy.get_or_insert_with(snap::raw::Encoder::new);
        out.extend_from_slice(&XERIAL_HEADER);
        for block in plain.chunks(XERIAL_BLOCK_BYTES) {
            let length_at = out.len();
            let block_at = length_at + size_of::<u32>();
            out.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
            let bytes =
                encoder.compress(block, &mut out[block_at..]).map_err(|error| PackError::new(Codec::Snappy, error))?;
            out[length_at..block_at].copy_from_slice(&u32::try_from(bytes).expect("a block has 32 KiB").to_be_bytes());
            out.truncate(block_at + bytes);
        }
        Ok(())
    }

    fn zstd(&mut self, level: i32, plain: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
        let failed = |code| PackError::new(Codec::Zstd, zstd_safe::get_error_name(code));
        let context = self.zstd.get_or_insert_with(CCtx::create);
        context.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
        let at = out.len();
        out.resize(at + zstd_safe::compress_bound(plain.len()), 0);
        let bytes = context.compress2(&mut out[at..], plain).map_err(failed)?;
        out.truncate(at + bytes);
        if context.sizeof() > RETAINED_BYTES_MAX {
            self.zstd = None;
        }
        Ok(())
    }
}

fn lz4(plain: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(plain).map_err(|error| PackError::new(Codec::Lz4, error))?;
    encoder.finish().map_err(|error| PackError::new(Codec::Lz4, error))?;
    Ok(())
}
