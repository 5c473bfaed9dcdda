//! Going through the batches of a segment's file, forward, by their lengths: what reads, look-ups and recovery have in common.
//!
//! A cursor holds a window of aligned blocks and reads the next one when a batch leads out of it. It tells whether a good
//! batch lies at its position; whether that batch *belongs* there is asked by whoever knows the log. Bytes behind the limit
//! that it was given are not looked at.

use std::path::{Path, PathBuf};

use super::error::{Corruption, IoFailure};

use crate::record::{FrameError, HEADER_BYTES, RecordBatch, ScanCause, UncheckedBatch};
use crate::runtime::{Buffer, File, Slice};
use crate::types::limits::BLOCK_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Bytes of a batch at most: a segment's.
const BATCH_BYTES_MAX: usize = usize::MAX >> 33;

const _: () = assert!(BATCH_BYTES_MAX as u64 == super::format::SEGMENT_BYTES_MAX);

/// A position in a segment's file and the blocks around it.
pub(super) struct Cursor {
    file: File,
    path: PathBuf,
    /// Where the bytes end that may be looked at.
    limit: u64,
    window_bytes: usize,
    window: Slice,
    window_start: u64,
    position: u64,
}

/// What lies at a position.
pub(super) enum Found<'c> {
    /// A batch, with a good CRC if that was asked for.
    Batch(RecordBatch<'c>),
    /// Something else, or nothing.
    Bad(ScanCause),
}

impl Cursor {
    /// At `position` of `file`; reads `window_bytes` at a time, more if a batch needs it, and nothing behind `limit`.
    pub(super) fn new(file: File, path: &Path, position: u64, limit: u64, window_bytes: usize) -> Cursor {
        let window_bytes = window_bytes.max(BLOCK_BYTES).next_multiple_of(BLOCK_BYTES);
        let window = Buffer::with_capacity(BLOCK_BYTES).freeze();
        Cursor { file, path: path.to_path_buf(), limit, window_bytes, window, window_start: 0, position }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Goes on `bytes` bytes further.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.position += bytes as u64;
    }

    /// Goes on elsewhere.
    pub(super) fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// The bytes from the position to the end of the window, without those behind the limit.
    pub(super) fn bytes(&self) -> &[u8] {
        let Some(start) = self.position.checked_sub(self.window_start) else { return &[] };
        let index = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(self.window.len());
        let end = index(self.limit.saturating_sub(self.window_start));
        self.window.get(index(start)..end).unwrap_or_default()
    }

    /// The bytes `from..to` of the file, which lie in the window.
    pub(super) fn slice(&self, from: u64, to: u64) -> Slice {
        let index = |position: u64| usize::try_from(position - self.window_start).expect("a position in the window");
        self.window.slice(index(from)..index(to))
    }

    /// Has at least `bytes` bytes from the position on in the window, or all that there are before limit and end of file.
    pub(super) async fn fill(&mut self, bytes: usize) -> Result<(), IoFailure> {
        if self.bytes().len() >= bytes || self.position >= self.limit {
            return Ok(());
        }
        let end = self.window_start + self.window.len() as u64;
        if self.window_start <= self.position && end >= self.limit {
            return Ok(());
        }
        let start = self.position - self.position % BLOCK;
        let wanted = (self.position + bytes as u64).max(start + self.window_bytes as u64);
        let wanted = wanted.min(self.limit).next_multiple_of(BLOCK) - start;
        let wanted = usize::try_from(wanted).expect("a window is smaller than a segment");
        let (read, buffer) = self.file.read_at(start, wanted, Buffer::with_capacity(wanted)).await;
        read.map_err(|error| IoFailure::new("read", &self.path, error))?;
        self.window = buffer.freeze();
        self.window_start = start;
        // A file that ends early ends the reading too.
        if self.window.len() < wanted {
            self.limit = self.limit.min(start + self.window.len() as u64);
        }
        Ok(())
    }

    /// Has the whole batch at the position in the window, if there is one; else says why not.
    pub(super) async fn frame(&mut self) -> Result<Result<UncheckedBatch<'_>, FrameError>, IoFailure> {
        self.fill(HEADER_BYTES).await?;
        if let Err(FrameError::Incomplete { need, .. }) = UncheckedBatch::frame(self.bytes(), BATCH_BYTES_MAX) {
            self.fill(need).await?;
        }
        Ok(UncheckedBatch::frame(self.bytes(), BATCH_BYTES_MAX))
    }

    /// The batch at the position, checked.
    pub(super) async fn batch(&mut self) -> Result<Found<'_>, IoFailure> {
        Ok(match self.frame().await? {
            Err(cause) => Found::Bad(cause.into()),
            Ok(framed) => match framed.check() {
                Ok(batch) => Found::Batch(batch),
                Err(cause) => Found::Bad(cause.into()),
            },
        })
    }

    /// Corruption at the position.
    pub(super) fn corruption(&self, expected: impl Into<String>, found: impl std::fmt::Display) -> Corruption {
        Corruption {
            file: self.path.clone(),
            position: self.position,
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}
