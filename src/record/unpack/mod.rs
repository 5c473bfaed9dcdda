//! Decompression of a batch's records as a stream, in bounded memory.
//!
//! [`Decompressors`] is what a shard keeps: one window and one context per codec, made at first use and used again for every
//! batch. [`Unpacked`] is one batch's records coming out of it, through the window; more than a window of them is in memory
//! only where one record is larger, or for a raw Snappy block, which has no smaller unit. What comes out is counted, and
//! [`DecompressLimits`] stops it: a batch of a few hundred bytes can claim gigabytes.
//!
//! The checksums inside the formats are verified, since a client that verifies them could not read the batch otherwise.
//! Source: KIP-110; `Compression` and its implementations of Apache Kafka, for which forms clients write.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use super::header::Codec;
use super::varint::VARLONG_BYTES_MAX;
use super::walk::Input;

pub(super) use snappy::XERIAL_HEADER;

/// Bytes of the window at first: what a codec is asked for at once. It stays in the core's second-level cache.
const WINDOW_BYTES: usize = 64 * 1024;

/// Bytes that a buffer or a context may keep from one batch to the next; larger ones are given back.
/// 8 MiB holds zstd's window at its default level (2 MiB) and any usual batch; a shard keeps at most four such.
pub(super) const RETAINED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How much may come out of a compressed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecompressLimits {
    /// Bytes at most, whatever the ratio. A MiB costs 1 to 3 ms of the shard's time with gzip, 0.4 to 1 ms with the others.
    pub bytes_max: usize,
    /// Bytes out per byte in at most, beyond `ratio_free_bytes`. Logs and JSON reach 10 to 50.
    pub ratio_max: usize,
    /// Bytes that may come out at any ratio: small batches of one repeated value reach thousands.
    pub ratio_free_bytes: usize,
}

impl DecompressLimits {
    /// 64 MiB, 1 000 to 1 beyond 16 MiB.
    pub const DEFAULT: DecompressLimits =
        DecompressLimits { bytes_max: 64 * 1024 * 1024, ratio_max: 1000, ratio_free_bytes: 16 * 1024 * 1024 };

    /// Bytes that may come out of `packed` bytes.
    fn bytes_out_max(&self, packed: usize) -> usize {
        packed.saturating_mul(self.ratio_max).max(self.ratio_free_bytes).min(self.bytes_max)
    }
}

impl Default for DecompressLimits {
    fn default() -> Self {
        DecompressLimits::DEFAULT
    }
}

/// Why records do not come out of their compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Not the codec's format, a checksum of it that does not hold, or an end inside it.
    #[error("the {codec} data is broken: {what}")]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// What is wrong.
        what: &'static str,
    },
    /// More comes out than [`DecompressLimits`] allow.
    #[error("more than {bytes_max} bytes come out of {packed} compressed ones")]
    TooLarge {
        /// Bytes allowed.
        bytes_max: usize,
        /// Bytes of compressed data.
        packed: usize,
    },
}

/// A shard's decompression state, used again for every batch. Nothing is allocated before the first compressed batch.
#[derive(Default)]
pub struct Decompressors {
    window: Vec<u8>,
    gzip: Option<Box<gzip::Context>>,
    snappy: snappy::Context,
    lz4: Option<Box<lz4::Context>>,
    zstd: Option<zstd::Context>,
}

impl Decompressors {
    /// Nothing yet.
    pub fn new() -> Decompressors {
        Decompressors::default()
    }

    /// Starts to unpack `packed`, for a codec other than [`Codec::None`]; `None` for that one.
    pub(super) fn unpack<'s, 'a>(
        &'s mut self,
        codec: Codec,
        packed: &'a [u8],
        limits: &DecompressLimits,
    ) -> Option<Unpacked<'s, 'a>> {
        let bytes_max = limits.bytes_out_max(packed.len());
        let source = match codec {
            Codec::None => return None,
            Codec::Gzip => Source::Gzip(gzip::Reader::new(self.gzip.get_or_insert_default(), packed)),
            Codec::Snappy => Source::Snappy(snappy::Reader::new(&mut self.snappy, packed, bytes_max)),
            Codec::Lz4 => Source::Lz4(lz4::Reader::new(&mut self.lz4, packed)),
            Codec::Zstd => Source::Zstd(zstd::Reader::new(&mut self.zstd, packed)),
        };
        if self.window.len() > RETAINED_BYTES_MAX || self.window.is_empty() {
            self.window = vec![0; WINDOW_BYTES];
        }
        let window = &mut self.window;
        Some(Unpacked {
            source,
            window,
            start: 0,
            end: 0,
            ended: false,
            broken: None,
            produced: 0,
            bytes_max,
            packed: packed.len(),
        })
    }
}

impl std::fmt::Debug for Decompressors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressors").field("window_bytes", &self.window.len()).finish_non_exhaustive()
    }
}

/// One codec at work on one batch. `read` fills the front of `out` (not empty) and says how many bytes; 0 is the end.
enum Source<'s, 'a> {
    Gzip(gzip::Reader<'s, 'a>),
    Snappy(snappy::Reader<'s, 'a>),
    Lz4(lz4::Reader<'s>),
    Zstd(zstd::Reader<'s, 'a>),
}

impl Source<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        match self {
            Source::Gzip(reader) => reader.read(out),
            Source::Snappy(reader) => reader.read(out),
            Source::Lz4(reader) => reader.read(out),
            Source::Zstd(reader) => reader.read(out),
        }
    }
}

/// The unpacked records of one batch, through a window: `window[start..end]` has come out and is not consumed yet.
pub(super) struct Unpacked<'s, 'a> {
    source: Source<'s, 'a>,
    window: &'s mut Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    /// What broke the data after `window[..end]`. It is told when the bytes before it are consumed, so that the error names the
    /// record that it hits and not one that was read a few bytes ahead.
    broken: Option<UnpackError>,
    produced: usize,
    bytes_max: usize,
    packed: usize,
}

impl Unpacked<'_, '_> {
    /// Consumes the next `bytes` bytes and lends them together; `None` if there are fewer. The window grows to hold them.
    pub(super) fn taken(&mut self, bytes: usize) -> Result<Option<&[u8]>, UnpackError> {
        if bytes > self.bytes_max {
            return Err(self.too_large());
        }
        if self.window.len() < bytes {
            self.window.resize(bytes, 0);
        }
        self.fill(bytes)?;
        if self.end - self.start < bytes {
            return self.broken.map_or(Ok(None), Err);
        }
        let start = self.start;
        self.start += bytes;
        Ok(Some(&self.window[start..start + bytes]))
    }

    /// Appends everything that is left to `out`.
    pub(super) fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), UnpackError> {
        loop {
            self.fill(1)?;
            out.extend_from_slice(&self.window[self.start..self.end]);
            self.start = self.end;
            if self.ended {
                return self.broken.map_or(Ok(()), Err);
            }
        }
    }

    /// Lets bytes out until `wanted` are unconsumed or the data ends. `wanted` fits the window.
    fn fill(&mut self, wanted: usize) -> Result<(), UnpackError> {
        debug_assert!(wanted <= self.window.len());
        while self.end - self.start < wanted && !self.ended {
            if self.window.len() - self.start < wanted || self.start == self.end {
                self.window.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let count = self.source.read(&mut self.window[self.end..]).unwrap_or_else(|error| {
                self.broken = Some(error);
                0
            });
            self.ended = count == 0;
            self.end += count;
            self.produced += count;
            if self.produced > self.bytes_max {
                return Err(self.too_large());
            }
        }
        Ok(())
    }

    fn too_large(&self) -> UnpackError {
        UnpackError::TooLarge { bytes_max: self.bytes_max, packed: self.packed }
    }
}

impl Input for Unpacked<'_, '_> {
    type Piece = ();

    fn head(&mut self) -> Result<&[u8], UnpackError> {
        if self.end - self.start < VARLONG_BYTES_MAX {
            self.fill(VARLONG_BYTES_MAX)?;
        }
        match self.broken {
            Some(error) if self.start == self.end => Err(error),
            _ => Ok(&self.window[self.start..self.end]),
        }
    }

    fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.end - self.start);
        self.start += bytes;
    }

    fn take(&mut self, mut bytes: usize) -> Result<Option<()>, UnpackError> {
        loop {
            let step = bytes.min(self.end - self.start);
            self.start += step;
            bytes -= step;
            if bytes == 0 {
                return Ok(Some(()));
            }
            if self.ended {
                return self.broken.map_or(Ok(None), Err);
            }
            self.fill(1)?;
        }
    }
}
