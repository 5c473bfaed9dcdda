//! Cutting a byte slice into record batches, for recovery and for reads from disk.
//!
//! A [`BatchScanner`] goes forward by the lengths of the batches and stops for good at the first thing that is not a batch;
//! it never searches for the next one, since a record's value may hold bytes that look like a batch. It knows nothing of
//! offsets and epochs expected next: whether a good batch *belongs* here is the log's question.
//!
//! Source: the read loop of `ByteBufferLogInputStream` of Apache Kafka.

use super::batch::{BatchError, FrameError, RecordBatch, UncheckedBatch};
use crate::types::ErrorCode;

/// What stopped a scan, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {position}: {cause}")]
pub struct ScanError {
    /// Where the batch starts, in bytes from the origin that the scanner was given.
    pub position: u64,
    /// What is wrong with it.
    pub cause: ScanCause,
}

/// What is wrong with the bytes at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanCause {
    /// No batch is framed there.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A batch is framed there, and it is bad.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl ScanError {
    /// The bytes that the batch needs, if the slice only ended too early: read on with at least so many.
    pub fn incomplete(&self) -> Option<usize> {
        match self.cause {
            ScanCause::Frame(FrameError::Incomplete { need, .. }) => Some(need),
            _ => None,
        }
    }

    /// The code that a client is answered with: always CORRUPT_MESSAGE.
    pub const fn code(&self) -> ErrorCode {
        ErrorCode::CorruptMessage
    }
}

/// Cuts a slice into batches. As an iterator it yields good batches and at most one error, the last thing it yields; it ends
/// without one where the slice ends with a batch.
#[derive(Clone, Debug)]
pub struct BatchScanner<'a> {
    rest: &'a [u8],
    position: u64,
    batch_bytes_max: usize,
}

impl<'a> BatchScanner<'a> {
    /// Scans `bytes`, whose first byte lies at `origin` (a file position, for messages). A batch longer than
    /// `batch_bytes_max` is an error.
    pub fn new(bytes: &'a [u8], origin: u64, batch_bytes_max: usize) -> BatchScanner<'a> {
        BatchScanner { rest: bytes, position: origin, batch_bytes_max }
    }

    /// Where the next batch starts, in bytes from the origin; after an error, where the bad one starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next batch, framed but with its CRC not compared: for bytes that were checked before.
    pub fn next_unchecked(&mut self) -> Option<Result<UncheckedBatch<'a>, ScanError>> {
        if self.rest.is_empty() {
            return None;
        }
        match UncheckedBatch::frame(self.rest, self.batch_bytes_max) {
            Ok(batch) => {
                self.advance(batch.bytes().len());
                Some(Ok(batch))
            }
            Err(cause) => Some(Err(self.stop(cause.into()))),
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
        self.position += bytes as u64;
    }

    fn stop(&mut self, cause: ScanCause) -> ScanError {
        self.rest = &[];
        ScanError { position: self.position, cause }
    }
}

impl<'a> Iterator for BatchScanner<'a> {
    type Item = Result<RecordBatch<'a>, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let checked = UncheckedBatch::frame(self.rest, self.batch_bytes_max)
            .map_err(ScanCause::from)
            .and_then(|framed| framed.check().map_err(ScanCause::from));
        Some(match checked {
            Ok(batch) => {
                self.advance(batch.bytes().len());
                Ok(batch)
            }
            Err(cause) => Err(self.stop(cause)),
        })
    }
}
