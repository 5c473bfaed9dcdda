//! Kafka's record batches, format version 2: reading, checking, stamping and building them.
//!
//! | from | to | by |
//! |---|---|---|
//! | bytes of a Produce request | [`ProducedBatch`], then its [`Stamp`] | [`validate_produce`] |
//! | bytes of a log | [`RecordBatch`]es, or what is wrong where | [`BatchScanner`] |
//! | a `RecordBatch` | its [`Record`]s; an offset by its time | [`RecordReader`], [`RecordBatch::find_timestamp`] |
//! | records | a batch | [`BatchBuilder`] |
//! | a `ProducedBatch` | the same in another codec | [`Recompressor`] |
//!
//! A batch is stored and served byte for byte as it came, but for the stamp and, where a topic wants it, the codec. Nothing here
//! does I/O, knows the time or keeps state beyond buffers that are used again. No input panics, and none takes memory or time on
//! its mere claim.

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod batch;
mod builder;
mod header;
mod pack;
mod produce;
mod reader;
mod recompress;
mod scan;
mod stamp;
mod unpack;
mod varint;
mod walk;

#[cfg(test)]
mod tests;

pub use batch::{BatchError, FrameError, RecordBatch, UncheckedBatch};
pub use builder::BatchBuilder;
pub use header::{
    Attributes, BatchHeader, CRC_REGION_AT, Codec, HEADER_BYTES, LOG_OVERHEAD, MAGIC, MAGIC_AT, Producer,
    TimestampType, UnknownCodec, batch_crc,
};
pub use pack::{Compression, PackError};
pub use produce::{ProduceError, ProduceRules, ProducedBatch, validate_produce};
pub use reader::{Header, Headers, Record, RecordReader};
pub use recompress::{RecompressError, Recompressor};
pub use scan::{BatchScanner, ScanCause, ScanError};
pub use stamp::{Stamp, StampTime};
pub use unpack::{DecompressLimits, Decompressors, UnpackError};
pub use walk::{RecordError, RecordFault, RecordField};
