//! Scanning the batches of a log behind a known point, and telling what lies where they end.
//!
//! A batch counts only if its base offset is the expected next one, its epoch is not lower than the last, its length is sane
//! and its CRC is good. The first thing that is not such a batch ends the log, or is corruption; [`classify_end`] says which.
//! Nothing is written here.

use core::time::Duration;

use super::super::cursor::Cursor;
use super::super::epochs::LeaderEpochs;
use super::super::error::{Corruption, IoFailure};
use super::super::format::{SegmentHeader, is_zero};
use super::super::index::{IndexedBatch, SparseIndex};
use super::super::planted::{self, Bug};
use super::super::producers::{ProducerBatch, ProducerStates};
use super::super::segment::{LogPoint, position_u32};
use super::cases::{RecoveryCase, RecoveryReport};
use crate::record::{BatchError, BatchHeader, FrameError, HEADER_BYTES, UncheckedBatch};
use crate::types::limits::{BLOCK_BYTES, SECTOR_BYTES};
use crate::types::{LeaderEpoch, Offset};

const BLOCK: u64 = BLOCK_BYTES as u64;
const SECTOR: u64 = SECTOR_BYTES as u64;

/// Bytes read at a time.
pub(super) const WINDOW_BYTES: usize = 1 << 20;

/// What a scan builds from the batches that it passes.
pub(super) struct Scan {
    /// Where it stands: behind the last good batch.
    pub point: LogPoint,
    pub epochs: LeaderEpochs,
    pub producers: ProducerStates,
    /// Of the segment that it stands in.
    pub index: SparseIndex,
    /// The time that producers expire by.
    pub now: Duration,
}

/// Why something is not the next batch.
pub(super) enum Rejection {
    /// No batch is framed there.
    Frame(FrameError),
    /// One is framed, and it is bad.
    Batch { bytes: usize, cause: BatchError },
    /// A good one that does not belong there.
    Unexpected { base_offset: Option<Offset>, leader_epoch: Option<LeaderEpoch> },
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rejection::Frame(cause) => cause.fmt(f),
            Rejection::Batch { cause, .. } => cause.fmt(f),
            Rejection::Unexpected { base_offset, leader_epoch } => {
                write!(f, "a batch with base offset {base_offset:?} and {leader_epoch:?}")
            }
        }
    }
}

impl Scan {
    /// Passes the good batches at the cursor, until something else comes: says what.
    pub(super) async fn run(
        &mut self,
        cursor: &mut Cursor,
        report: &mut RecoveryReport,
    ) -> Result<Rejection, IoFailure> {
        loop {
            let bytes = match cursor.frame().await? {
                Err(cause) => return Ok(Rejection::Frame(cause)),
                Ok(framed) => match self.check(&framed) {
                    Err(rejection) => return Ok(rejection),
                    Ok(()) => {
                        self.pass(framed.header(), framed.bytes().len());
                        framed.bytes().len()
                    }
                },
            };
            cursor.skip(bytes);
            report.batches_scanned += 1;
            report.bytes_scanned += bytes as u64;
        }
    }

    fn check(&self, framed: &UncheckedBatch<'_>) -> Result<(), Rejection> {
        let header = framed.header();
        let bytes = framed.bytes().len();
        match framed.check() {
            Err(BatchError::Crc { .. }) if planted::is_planted(Bug::SkipCrc) && header.last_offset_delta() >= 0 => {}
            Err(cause) => return Err(Rejection::Batch { bytes, cause }),
            Ok(_) => {}
        }
        let (base_offset, leader_epoch) = (header.base_offset(), header.leader_epoch());
        let last_epoch = self.epochs.latest().map(|latest| latest.epoch);
        if base_offset != Some(self.point.offset) || leader_epoch.is_none() || leader_epoch < last_epoch {
            return Err(Rejection::Unexpected { base_offset, leader_epoch });
        }
        Ok(())
    }

    fn pass(&mut self, header: &BatchHeader, bytes: usize) {
        let LogPoint { position, offset, .. } = self.point;
        let records = header.last_offset_delta().unsigned_abs() + 1;
        let max_timestamp = header.max_timestamp();
        if let Some(epoch) = header.leader_epoch() {
            self.epochs.assign(epoch, offset);
        }
        if let (Some(producer), Some(epoch), Some(first_sequence)) =
            (header.producer_id(), header.producer_epoch(), header.base_sequence())
        {
            let batch = ProducerBatch { producer, epoch, first_sequence, records };
            self.producers.replay(&batch, offset, max_timestamp, self.now);
        }
        let length = u32::try_from(bytes).expect("a batch is smaller than a segment");
        let position_in_file = position_u32(position);
        self.index.push(&IndexedBatch {
            base_offset: offset,
            position: position_in_file,
            bytes: length,
            max_timestamp,
        });
        self.point.position = position + bytes as u64;
        self.point.offset = offset.plus(u64::from(records));
    }
}

/// What lies behind the last good batch of the last segment.
pub(super) struct End {
    pub case: RecoveryCase,
    /// Where the last byte lies that is not zero, plus one; the end of the log if there is none.
    pub stale_end: u64,
    /// How many bytes behind the end are not zero.
    pub stale_bytes: u64,
    /// What to report if the case is corruption.
    pub corruption: Option<Corruption>,
}

/// Tells what ends the log at the cursor, where the segment is the last one that was begun. `scanned`: batches were passed.
pub(super) async fn classify_end(
    cursor: &mut Cursor,
    header: &SegmentHeader,
    offset: Offset,
    rejection: &Rejection,
    scanned: bool,
) -> Result<End, IoFailure> {
    let at = cursor.position();
    let missing = missing_sectors(cursor, offset, rejection).await?;
    let (stale_end, stale_bytes) = find_stale(cursor).await?;
    cursor.seek(at);
    let end = |case| End { case, stale_end, stale_bytes, corruption: None };
    let expected = || format!("the batch of offset {offset}, or zeros");
    let refuse = |case, found: String| {
        let corruption = Some(cursor.corruption(expected(), found));
        End { case, stale_end, stale_bytes, corruption }
    };
    if stale_bytes == 0 {
        return Ok(end(if scanned { RecoveryCase::NewBatches } else { RecoveryCase::NoNewBatches }));
    }
    let reach = stale_end - (at - at % BLOCK);
    if reach > u64::from(header.unsynced_bytes_max) {
        let window = header.unsynced_bytes_max;
        let found = format!("{rejection}, and bytes up to {stale_end}, although at most {window} bytes can be torn");
        return Ok(refuse(RecoveryCase::BeyondWindow, found));
    }
    Ok(match missing {
        Missing::Everything => end(RecoveryCase::TornFront),
        Missing::InHeader => end(RecoveryCase::TornHeader),
        Missing::InBatch => end(RecoveryCase::TornBatch),
        Missing::Nothing => refuse(RecoveryCase::DamagedBatch, format!("{rejection}, with bytes in every sector")),
    })
}

/// Which sectors of a bad batch are missing.
enum Missing {
    /// The header is all zeros.
    Everything,
    InHeader,
    InBatch,
    Nothing,
}

/// Looks for sectors of the bad batch at the cursor that the write did not reach.
async fn missing_sectors(cursor: &mut Cursor, offset: Offset, rejection: &Rejection) -> Result<Missing, IoFailure> {
    let at = cursor.position();
    cursor.fill(HEADER_BYTES).await?;
    let header = &cursor.bytes()[..cursor.bytes().len().min(HEADER_BYTES)];
    if is_zero(header) {
        return Ok(Missing::Everything);
    }
    if header.len() < HEADER_BYTES || has_missing_part(header, at, offset) {
        return Ok(Missing::InHeader);
    }
    let bytes = match rejection {
        // The file ends inside the batch: its last sectors were never there.
        Rejection::Frame(FrameError::Incomplete { .. }) => return Ok(Missing::InBatch),
        Rejection::Batch { bytes, .. } => *bytes,
        Rejection::Frame(_) | Rejection::Unexpected { .. } => return Ok(Missing::Nothing),
    };
    cursor.fill(bytes).await?;
    let torn = has_missing_part(&cursor.bytes()[..bytes], at, offset);
    Ok(if torn { Missing::InBatch } else { Missing::Nothing })
}

/// Whether the part of `batch`, which lies at `at`, in one of the sectors is all zeros. The batch begins with its base offset,
/// whose own zeros say nothing.
fn has_missing_part(batch: &[u8], at: u64, offset: Offset) -> bool {
    let base = offset.value().to_be_bytes();
    let known_zeros = base.iter().take_while(|&&byte| byte == 0).count();
    let mut start = 0;
    while start < batch.len() {
        let sector_end = SECTOR - (at + start as u64) % SECTOR;
        let end = batch.len().min(start + usize::try_from(sector_end).expect("less than a sector"));
        if end > known_zeros && is_zero(&batch[start..end]) {
            return true;
        }
        start = end;
    }
    false
}

/// From the cursor to the end of the file: where the last byte lies that is not zero, plus one, and how many there are.
async fn find_stale(cursor: &mut Cursor) -> Result<(u64, u64), IoFailure> {
    let mut stale_end = cursor.position();
    let mut stale_bytes = 0;
    loop {
        cursor.fill(1).await?;
        let bytes = cursor.bytes();
        let length = bytes.len();
        if length == 0 {
            return Ok((stale_end, stale_bytes));
        }
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            stale_end = cursor.position() + last as u64 + 1;
            stale_bytes += bytes.iter().filter(|&&byte| byte != 0).count() as u64;
        }
        cursor.skip(length);
    }
}
