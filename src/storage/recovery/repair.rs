//! Making a found end of a log durable: what was accepted behind the recovery point is written again, what lies behind the end
//! is zeroed, all of it is synced.
//!
//! A read shows what the page cache or the device holds; neither has to be durable, and a sync that failed before a restart
//! may have left pages that no later sync writes. So the bytes are written, not only synced. Writing the same bytes again, or
//! zeros over what is not part of the log, can be cut off by power at any sector without harm: the next scan finds the same.

use std::path::Path;

use super::super::error::IoFailure;
use super::super::planted::{self, Bug};
use super::super::shard::Storage;
use super::cases::RecoveryReport;
use crate::runtime::{Buffer, Durability, File};
use crate::types::limits::BLOCK_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Bytes that are read and written again at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// The last segment as it was found. Positions in it.
#[derive(Clone, Copy)]
pub(super) struct FoundTail {
    /// Everything before is durable.
    pub from: u64,
    /// The end of the log.
    pub end: u64,
    /// Where the bytes end that are not zero, if they go beyond the end of the log.
    pub stale_end: Option<u64>,
}

/// Makes the tail durable. Gives the bytes of the last, partial block of the log.
pub(super) async fn make_durable(
    storage: &Storage,
    file: &File,
    path: &Path,
    tail: FoundTail,
    report: &mut RecoveryReport,
) -> Result<Vec<u8>, IoFailure> {
    let FoundTail { from, end, stale_end } = tail;
    assert!(from <= end && stale_end.is_none_or(|stale| stale > end));
    if end > from || stale_end.is_some() {
        let mut position = from - from % BLOCK;
        let to = stale_end.unwrap_or(end).next_multiple_of(BLOCK);
        while position < to {
            let bytes = (to - position).min(PIECE_BYTES);
            rewrite(file, path, position, bytes, end).await?;
            position += bytes;
        }
        report.bytes_rewritten += end - from;
    }
    storage.metrics().syncs.add(1);
    file.sync().await.map_err(|error| IoFailure::new("sync", path, error))?;
    last_block(file, path, end).await
}

/// Writes the `bytes` bytes at `position` again, with zeros from `end` on.
async fn rewrite(file: &File, path: &Path, position: u64, bytes: u64, end: u64) -> Result<(), IoFailure> {
    let bytes = usize::try_from(bytes).expect("at most a piece");
    let (read, found) = file.read_at(position, bytes, Buffer::with_capacity(bytes)).await;
    read.map_err(|error| IoFailure::new("read", path, error))?;
    let kept = if planted::is_planted(Bug::SkipZeroing) { u64::MAX } else { end.saturating_sub(position) };
    let kept = found.len().min(usize::try_from(kept).unwrap_or(usize::MAX));
    let mut again = Buffer::with_capacity(bytes);
    again.append(&found[..kept]);
    again.append_zeros(bytes - kept);
    let (written, _) = file.write_at(position, vec![again.freeze()], Durability::Written).await;
    written.map_err(|error| IoFailure::new("write", path, error))
}

/// The bytes from the last block boundary before `end` to `end`.
async fn last_block(file: &File, path: &Path, end: u64) -> Result<Vec<u8>, IoFailure> {
    let used = usize::try_from(end % BLOCK).expect("less than a block");
    if used == 0 {
        return Ok(Vec::new());
    }
    let (read, block) = file.read_at(end - used as u64, BLOCK_BYTES, Buffer::with_capacity(BLOCK_BYTES)).await;
    read.map_err(|error| IoFailure::new("read", path, error))?;
    Ok(block[..used].to_vec())
}
