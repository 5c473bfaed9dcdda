//! Reading the records of a batch one after the other, compressed or not, and finding one by its time.
//!
//! A [`RecordReader`] lends each [`Record`] until the next is asked for: keys and values are slices of the batch, or of the
//! decompression window. It stops for good at the first error. It does not check what `validate_produce` checks beyond the
//! form of the records: after compaction offset deltas have gaps.
//!
//! Source: `DefaultRecordBatch.iterator` of Apache Kafka; KIP-33 (time index) for the look-up.

use super::batch::RecordBatch;
use super::header::TimestampType;
use super::unpack::{DecompressLimits, Decompressors, Unpacked};
use super::walk::{self, Fields, Input, Plain, RecordError, RecordFault};
use crate::types::{Offset, Timestamp};

/// One record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'r> {
    /// Its offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Its timestamp minus the batch's base timestamp, as written.
    pub timestamp_delta: i64,
    /// Its time: its own, or the batch's under LogAppendTime. `None` if the producer gave none.
    pub timestamp: Option<Timestamp>,
    /// Its key; `None` is null, which is not empty.
    pub key: Option<&'r [u8]>,
    /// Its value; `None` is null, a tombstone where a topic is compacted.
    pub value: Option<&'r [u8]>,
    headers: &'r [u8],
    header_count: u32,
}

impl<'r> Record<'r> {
    /// The headers in their order, equal keys included.
    pub fn headers(&self) -> Headers<'r> {
        Headers { input: Plain { rest: self.headers }, left: self.header_count }
    }
}

/// A header of a record (KIP-82). The key is UTF-8 by convention; the broker does not look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'r> {
    /// The key, never null, equal keys may follow each other.
    pub key: &'r [u8],
    /// The value; `None` is null.
    pub value: Option<&'r [u8]>,
}

/// The headers of a record.
pub struct Headers<'r> {
    input: Plain<'r>,
    left: u32,
}

impl<'r> Iterator for Headers<'r> {
    type Item = Header<'r>;

    fn next(&mut self) -> Option<Header<'r>> {
        self.left = self.left.checked_sub(1)?;
        // The record was walked to its end when it was read, so this one parses.
        let (key, value) = walk::walk_header(&mut self.input).ok()?;
        Some(Header { key, value })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Reads the records of one batch. Not an `Iterator`: each record is lent until the next is asked for.
pub struct RecordReader<'s, 'a> {
    records: Records<'s, 'a>,
    clock: RecordClock,
    index: u32,
    count: u32,
    failed: bool,
}

enum Records<'s, 'a> {
    Plain(Plain<'a>),
    Packed(Unpacked<'s, 'a>),
}

impl<'s, 'a> RecordReader<'s, 'a> {
    /// Starts at the first record. Fewer or more records than the header says are an error at the end.
    pub fn new(
        batch: &RecordBatch<'a>,
        decompressors: &'s mut Decompressors,
        limits: &DecompressLimits,
    ) -> RecordReader<'s, 'a> {
        let records = match decompressors.unpack(batch.codec(), batch.records(), limits) {
            Some(unpacked) => Records::Packed(unpacked),
            None => Records::Plain(Plain { rest: batch.records() }),
        };
        let count = batch.record_count();
        RecordReader { records, clock: RecordClock::new(batch), index: 0, count, failed: false }
    }

    /// The next record; `None` after the last, or after an error.
    pub fn next_record(&mut self) -> Option<Result<Record<'_>, RecordError>> {
        if self.failed || self.index > self.count {
            return None;
        }
        let index = self.index;
        self.index += 1;
        if index == self.count {
            let end = match &mut self.records {
                Records::Plain(plain) => walk::expect_end(plain, index),
                Records::Packed(unpacked) => walk::expect_end(unpacked, index),
            };
            return end.err().map(Err);
        }
        // Set before the record is lent, taken back when it is good: the borrow lasts until the caller is done.
        self.failed = true;
        let body = match &mut self.records {
            Records::Plain(plain) => plain_body(plain),
            Records::Packed(unpacked) => packed_body(unpacked),
        };
        let clock = self.clock;
        let read = body.and_then(|body| parse(body, clock));
        self.failed = read.is_err();
        Some(read.map_err(|fault| RecordError::Malformed { index, fault }))
    }
}

fn plain_body<'a>(plain: &mut Plain<'a>) -> Result<&'a [u8], RecordFault> {
    let length = walk::walk_length(plain)?;
    let field = walk::RecordField::Length;
    plain.take(length)?.ok_or(RecordFault::Truncated { field })
}

fn packed_body<'u>(unpacked: &'u mut Unpacked<'_, '_>) -> Result<&'u [u8], RecordFault> {
    let length = walk::walk_length(unpacked)?;
    let field = walk::RecordField::Length;
    unpacked.taken(length)?.ok_or(RecordFault::Truncated { field })
}

fn parse(body: &[u8], clock: RecordClock) -> Result<Record<'_>, RecordFault> {
    let Fields { timestamp_delta, offset_delta, key, value, header_count, header_bytes } =
        walk::walk_body(&mut Plain { rest: body }, body.len())?;
    let headers = &body[body.len() - header_bytes..];
    let timestamp = clock.timestamp(timestamp_delta);
    Ok(Record { offset_delta, timestamp_delta, timestamp, key, value, headers, header_count })
}

/// How the records of a batch come to their times.
#[derive(Clone, Copy)]
enum RecordClock {
    /// The delta counts from here; the base may be −1 (no times).
    Create { base: i64 },
    /// The time of the append.
    LogAppend { at: Option<Timestamp> },
}

impl RecordClock {
    fn new(batch: &RecordBatch<'_>) -> RecordClock {
        match batch.attributes().timestamp_type() {
            TimestampType::Create => RecordClock::Create { base: batch.header().base_timestamp.get() },
            TimestampType::LogAppend => RecordClock::LogAppend { at: batch.max_timestamp() },
        }
    }

    fn timestamp(self, delta: i64) -> Option<Timestamp> {
        match self {
            RecordClock::Create { base } => base.checked_add(delta).and_then(Timestamp::new),
            RecordClock::LogAppend { at } => at,
        }
    }
}

impl RecordBatch<'_> {
    /// The first record at `time` or later: its offset and its time. Keys and values only pass by, so the memory is one
    /// window also for a compressed batch.
    pub fn find_timestamp(
        &self,
        time: Timestamp,
        decompressors: &mut Decompressors,
        limits: &DecompressLimits,
    ) -> Result<Option<(Offset, Timestamp)>, RecordError> {
        match decompressors.unpack(self.codec(), self.records(), limits) {
            Some(mut unpacked) => self.find_in(&mut unpacked, time),
            None => self.find_in(&mut Plain { rest: self.records() }, time),
        }
    }

    fn find_in<I: Input>(&self, input: &mut I, time: Timestamp) -> Result<Option<(Offset, Timestamp)>, RecordError> {
        let clock = RecordClock::new(self);
        for index in 0..self.record_count() {
            let malformed = |fault| RecordError::Malformed { index, fault };
            let length = walk::walk_length(input).map_err(malformed)?;
            let fields = walk::walk_body(input, length).map_err(malformed)?;
            if let Some(found) = clock.timestamp(fields.timestamp_delta).filter(|&found| found >= time) {
                // A negative delta is not written by anyone who checks; it must not lead below the batch.
                let delta = u64::try_from(fields.offset_delta).unwrap_or(0);
                return Ok(Some((self.base_offset().plus(delta), found)));
            }
        }
        Ok(None)
    }
}
