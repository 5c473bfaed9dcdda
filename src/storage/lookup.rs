//! Offsets by time: what ListOffsets asks for.
//!
//! The index leads to the first batch that can hold the answer; from there batches are read, CRC-checked, and their records
//! looked through. Only what lies on disk is looked at, which is all that is committed. Offsets below the log start are never
//! given. Source: KIP-33 (time index), KIP-734 (the offset of the largest timestamp).

use std::rc::Rc;

use super::cursor::Found;
use super::error::ReadError;
use super::format::FIRST_BATCH_AT;
use super::log::{Inner, Log};
use super::read::Located;
use super::segment::Segment;
use crate::record::{DecompressLimits, RecordBatch, RecordReader};
use crate::types::{LeaderEpoch, Offset, Timestamp};

/// Bytes read from disk at a time.
const WINDOW_BYTES: usize = 64 << 10;

/// A record, by what ListOffsets says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOffset {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// The epoch that wrote it.
    pub leader_epoch: Option<LeaderEpoch>,
}

impl Log {
    /// The first record at or behind the log start, and below `end`, whose timestamp is `at` or later.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn offset_for_timestamp(&self, at: Timestamp, end: Offset) -> Result<Option<TimedOffset>, ReadError> {
        for segment in self.0.segments_below(end) {
            if segment.max_timestamp().is_some_and(|max| max >= at)
                && let Some(found) = self.0.first_at(&segment, at, end).await?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp below `end`; the first of those that share it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn max_timestamp(&self, end: Offset) -> Result<Option<TimedOffset>, ReadError> {
        // The candidates, largest timestamp first. One that turns out to lie at or behind `end`, or below the log start,
        // says nothing of the rest of its segment, which is then looked through for what is left.
        let mut best: Option<TimedOffset> = None;
        for segment in self.0.segments_below(end) {
            let Some(max) = segment.max_timestamp() else { continue };
            if best.is_some_and(|best| best.timestamp >= max) {
                continue;
            }
            let found = match self.0.first_at(&segment, max, end).await? {
                Some(found) => Some(found),
                None => self.0.largest_below(&segment, end).await?,
            };
            if let Some(found) = found
                && best.is_none_or(|best| best.timestamp < found.timestamp)
            {
                best = Some(found);
            }
        }
        Ok(best)
    }
}

impl Inner {
    /// The segments with records at or behind the log start and below `end`, oldest first.
    fn segments_below(&self, end: Offset) -> Vec<Rc<Segment>> {
        let state = self.state.borrow();
        let start = state.log_start;
        let live = state.segments.iter().filter(|segment| {
            segment.base_offset() < end && segment.end.get().is_none_or(|segment_end| segment_end.offset > start)
        });
        live.cloned().collect()
    }

    /// The first record of the segment at `at` or later, at or behind the log start and below `end`.
    async fn first_at(
        self: &Rc<Self>,
        segment: &Segment,
        at: Timestamp,
        end: Offset,
    ) -> Result<Option<TimedOffset>, ReadError> {
        let mut first = None;
        let begin = |located: &Located| {
            located.with_index(|index| index.map_or(FIRST_BATCH_AT, |index| index.position_for_time(at).into()))
        };
        self.walk(segment, end, begin, |batch, start| {
            if batch.max_timestamp().is_none_or(|max| max < at) {
                return false;
            }
            first = self.find_record(batch, start, end, |timestamp| timestamp >= at);
            first.is_some()
        })
        .await?;
        Ok(first)
    }

    /// The first record with the largest timestamp of the segment, among those at or behind the log start and below `end`.
    async fn largest_below(self: &Rc<Self>, segment: &Segment, end: Offset) -> Result<Option<TimedOffset>, ReadError> {
        let mut best: Option<TimedOffset> = None;
        self.walk(
            segment,
            end,
            |_| FIRST_BATCH_AT,
            |batch, start| {
                let above = |timestamp: Timestamp| best.is_none_or(|best| timestamp > best.timestamp);
                if batch.max_timestamp().is_some_and(above) {
                    let Some(max) = self.largest_in(batch, start, end) else { return false };
                    if above(max.timestamp) {
                        best = Some(max);
                    }
                }
                false
            },
        )
        .await?;
        Ok(best)
    }

    /// Shows the batches of a segment from `begin` on that hold offsets below `end`, with the log start, until `look` has
    /// seen enough. A segment that retention takes meanwhile has nothing to show.
    async fn walk(
        self: &Rc<Self>,
        segment: &Segment,
        end: Offset,
        begin: impl Fn(&Located) -> u64,
        mut look: impl FnMut(&RecordBatch<'_>, Offset) -> bool,
    ) -> Result<(), ReadError> {
        let located = loop {
            let (start, readable) = {
                let state = self.state.borrow();
                (state.log_start.max(segment.base_offset()), state.written.offset)
            };
            if start >= end.min(readable) {
                return Ok(());
            }
            if let Some(located) = self.locate(start).await? {
                break located;
            }
        };
        if located.segment().sequence() != segment.sequence() {
            return Ok(());
        }
        let start = self.state.borrow().log_start;
        let mut cursor = located.cursor(self, begin(&located), WINDOW_BYTES);
        while cursor.position() < located.end.position {
            let bytes = match cursor.batch().await? {
                Found::Batch(batch) if batch.base_offset() >= end || look(&batch, start) => return Ok(()),
                Found::Batch(batch) => batch.bytes().len(),
                Found::Bad(cause) => {
                    return Err(self.corrupt(&located, &cursor, start, "a batch".to_owned(), cause));
                }
            };
            cursor.skip(bytes);
        }
        Ok(())
    }

    /// The first record of a batch, at or behind `start` and below `end`, whose timestamp is `wanted`.
    fn find_record(
        &self,
        batch: &RecordBatch<'_>,
        start: Offset,
        end: Offset,
        wanted: impl Fn(Timestamp) -> bool,
    ) -> Option<TimedOffset> {
        let mut decompressors = self.storage.decompressors.borrow_mut();
        let mut reader = RecordReader::new(batch, &mut decompressors, &DecompressLimits::DEFAULT);
        // A batch with a good CRC whose records make no sense was accepted so: it holds no times.
        while let Some(Ok(record)) = reader.next_record() {
            let offset = batch.base_offset().plus(u64::try_from(record.offset_delta).unwrap_or(0));
            if offset < start || offset >= end {
                continue;
            }
            if let Some(timestamp) = record.timestamp.filter(|&timestamp| wanted(timestamp)) {
                return Some(TimedOffset { offset, timestamp, leader_epoch: batch.leader_epoch() });
            }
        }
        None
    }

    /// The first record with the largest timestamp of a batch, at or behind `start` and below `end`.
    fn largest_in(&self, batch: &RecordBatch<'_>, start: Offset, end: Offset) -> Option<TimedOffset> {
        let largest = std::cell::Cell::new(None);
        self.find_record(batch, start, end, |timestamp| {
            largest.set(largest.get().max(Some(timestamp)));
            false
        });
        let largest: Timestamp = largest.get()?;
        self.find_record(batch, start, end, |timestamp| timestamp == largest)
    }
}
