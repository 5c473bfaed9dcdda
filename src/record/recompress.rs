//! A produced batch in another codec than it came with (`compression.type`).
//!
//! The records are unpacked and packed again as the bytes that they are: offset and timestamp deltas, keys, values and headers
//! stay what they were, and so does all of the header but length, codec and CRC. A batch that has the wanted codec already
//! should not come here: nothing is to be gained, at any level.
//!
//! The batch is unpacked a second time after `validate_produce` has walked it: that is the price of topics that want this.
//! Buffers are used again, up to a size; nothing is allocated for shards that never recompress.
//!
//! Source: `LogValidator` of Apache Kafka (the target's size counts against `max.message.bytes` again).

use zerocopy::{FromBytes, IntoBytes};

use super::header::{BatchHeader, HEADER_BYTES, LOG_OVERHEAD, batch_crc};
use super::pack::{Compression, Compressors, PackError};
use super::produce::{ProduceRules, ProducedBatch};
use super::unpack::{Decompressors, RETAINED_BYTES_MAX, UnpackError};
use crate::types::ErrorCode;

/// Why a batch is not to be had in the codec of its topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecompressError {
    /// It is larger than the topic takes.
    #[error("the batch has {found} bytes in the topic's codec, max.message.bytes is {max}")]
    TooLarge {
        /// Bytes of the batch.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// It does not unpack.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
}

impl RecompressError {
    /// The code that the client is answered with.
    pub const fn code(&self) -> ErrorCode {
        match self {
            RecompressError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            RecompressError::Unpack(_) => ErrorCode::InvalidRecord,
            RecompressError::Pack(_) => ErrorCode::UnknownServerError,
        }
    }
}

/// A shard's buffers and contexts for recompression.
#[derive(Default)]
pub struct Recompressor {
    compressors: Compressors,
    plain: Vec<u8>,
    batch: Vec<u8>,
}

impl Recompressor {
    /// Nothing yet.
    pub fn new() -> Recompressor {
        Recompressor::default()
    }

    /// Has `take` look at `batch` packed by `to`, under the rules by which it was validated.
    pub fn recompressed<R>(
        &mut self,
        batch: &ProducedBatch<'_>,
        to: Compression,
        rules: &ProduceRules,
        decompressors: &mut Decompressors,
        take: impl FnOnce(&ProducedBatch<'_>) -> R,
    ) -> Result<R, RecompressError> {
        let result = self.recompress(batch, to, rules, decompressors).map(|batch| take(&batch));
        for buffer in [&mut self.plain, &mut self.batch] {
            buffer.clear();
            buffer.shrink_to(RETAINED_BYTES_MAX);
        }
        result
    }

    fn recompress(
        &mut self,
        batch: &ProducedBatch<'_>,
        to: Compression,
        rules: &ProduceRules,
        decompressors: &mut Decompressors,
    ) -> Result<ProducedBatch<'_>, RecompressError> {
        let packed = &batch.bytes()[HEADER_BYTES..];
        self.batch.resize(HEADER_BYTES, 0);
        match decompressors.unpack(batch.codec(), packed, &rules.decompress) {
            None => self.compressors.pack(to, packed, &mut self.batch)?,
            Some(mut unpacked) => {
                unpacked.drain(&mut self.plain)?;
                self.compressors.pack(to, &self.plain, &mut self.batch)?;
            }
        }
        let (found, max) = (self.batch.len(), rules.batch_bytes_max);
        let Some(length) = i32::try_from(found - LOG_OVERHEAD).ok().filter(|_| found <= max) else {
            return Err(RecompressError::TooLarge { found, max });
        };
        let mut header = *batch.header();
        header.batch_length.set(length);
        header.attributes.set(header.attributes().with_codec(to.codec()).bits());
        header.crc.set(batch_crc(&header, &self.batch[HEADER_BYTES..]));
        self.batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        let (header, _) = BatchHeader::ref_from_prefix(&self.batch).expect("its header was written just now");
        Ok(batch.with_bytes(header, &self.batch, to.codec()))
    }
}

impl std::fmt::Debug for Recompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recompressor").finish_non_exhaustive()
    }
}
