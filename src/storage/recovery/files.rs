//! The files of a log as recovery finds them: names, checkpoints, headers; and removing what nothing refers to.
//!
//! Nothing is removed here on the word of a checkpoint that is not known to be durable. What the files hold is read elsewhere.

use std::io;
use std::path::Path;

use super::super::checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, SlotError, choose};
use super::super::error::{Corruption, IoFailure, OpenError};
use super::super::format::{
    FIRST_BATCH_AT, FileName, SegmentHeader, checkpoint_path, is_zero, seal_path, segment_path,
};
use super::super::lifecycle::{recovery_point, settle_checkpoint};
use super::cases::RecoveryCase;
use super::{Recovery, first_sequence, producer_limits};
use crate::runtime::{Buffer, File, OpenMode, directory};
use crate::types::Offset;
use crate::types::limits::BLOCK_BYTES;

impl Recovery<'_> {
    /// Reads the names in the directory. `false` if there is none.
    pub(super) async fn list(&mut self) -> Result<bool, OpenError> {
        let entries = match directory::list(self.directory).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            listed => listed.map_err(|error| IoFailure::new("list", self.directory, error))?,
        };
        for entry in entries {
            match FileName::parse(&entry.name) {
                Some(FileName::Segment(sequence)) => {
                    self.files.segments.insert(sequence);
                }
                Some(FileName::Seal(sequence)) => {
                    self.files.seals.insert(sequence);
                }
                Some(FileName::Fresh(_) | FileName::FreshSeal(_)) => {
                    self.files.unfinished.push(self.directory.join(entry.name));
                }
                Some(FileName::Checkpoint) => {}
                None => {
                    tracing::warn!(file = %self.directory.join(entry.name).display(), "not a log's file, left alone")
                }
            }
        }
        Ok(true)
    }

    /// The newest usable checkpoint, and whether both slots are in order. `None` if the log was never written to.
    pub(super) async fn find_checkpoint(&mut self) -> Result<Option<(Checkpoint, bool)>, OpenError> {
        let mut slots = Vec::with_capacity(2);
        for slot in 0..2 {
            let path = checkpoint_path(self.directory, slot);
            slots.push(match directory::read(&path, CHECKPOINT_BYTES_MAX).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                read => Some(read.map_err(|error| IoFailure::new("read", path, error))?),
            });
        }
        let limits = producer_limits(&self.options);
        let bytes = [slots[0].as_deref(), slots[1].as_deref()];
        let found = match choose(bytes, self.partition, limits, self.storage.uptime()) {
            Ok(chosen) => match chosen.checkpoint {
                Some(checkpoint) => {
                    let other = chosen.other.filter(|other| *other != SlotError::Missing || checkpoint.generation > 1);
                    if let Some(other) = &other {
                        self.report.hit(RecoveryCase::SlotUnusable);
                        tracing::warn!(log = %self.directory.display(), %other, "a checkpoint's slot is not usable");
                    }
                    return Ok(Some((checkpoint, other.is_none())));
                }
                None => "no checkpoint".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        // A log is begun by its first checkpoint: without any, nothing was acknowledged, unless segments say otherwise.
        for sequence in self.files.segments.iter().copied().collect::<Vec<_>>() {
            let path = segment_path(self.directory, sequence);
            if !is_zero(&self.read_block(&path, 0).await?) {
                let file = checkpoint_path(self.directory, 0);
                let expected = format!("a checkpoint, since {} has a header", path.display());
                return self.refuse(RecoveryCase::CheckpointLost, Corruption { file, position: 0, expected, found });
            }
        }
        Ok(None)
    }

    /// The block at `position` of a file; shorter at the file's end.
    pub(super) async fn read_block(&self, path: &Path, position: u64) -> Result<Vec<u8>, IoFailure> {
        let failed = |operation| move |error| IoFailure::new(operation, path, error);
        let file = File::open(path, OpenMode::Read).await.map_err(failed("open"))?;
        let (read, block) = file.read_at(position, BLOCK_BYTES, Buffer::with_capacity(BLOCK_BYTES)).await;
        read.map_err(failed("read"))?;
        Ok(block.to_vec())
    }

    /// Makes the chosen checkpoint durable, unless nothing relies on it before the log's first write. Gives whether it did.
    pub(super) async fn settle(&self, checkpoint: &Checkpoint, whole: bool) -> Result<bool, OpenError> {
        let first = first_sequence(checkpoint);
        let leftovers = !self.files.unfinished.is_empty() || self.files.segments.iter().any(|&it| it < first);
        let relied_upon = !checkpoint.clean || !whole || leftovers;
        if relied_upon {
            settle_checkpoint(self.directory, checkpoint.generation).await?;
        }
        Ok(relied_upon)
    }

    /// Removes what nothing refers to: files that were being prepared, and segments before the first one of the checkpoint.
    pub(super) async fn remove_leftovers(&mut self, checkpoint: &Checkpoint) -> Result<(), OpenError> {
        for path in std::mem::take(&mut self.files.unfinished) {
            self.report.hit(RecoveryCase::UnfinishedFile);
            self.remove(&path).await?;
        }
        let first = first_sequence(checkpoint);
        let kept = self.files.segments.split_off(&first);
        for sequence in std::mem::replace(&mut self.files.segments, kept) {
            self.report.hit(RecoveryCase::RetiredSegment);
            self.remove(&segment_path(self.directory, sequence)).await?;
        }
        let kept = self.files.seals.split_off(&first);
        for sequence in std::mem::replace(&mut self.files.seals, kept) {
            self.remove(&seal_path(self.directory, sequence)).await?;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, path: &Path) -> Result<(), IoFailure> {
        match directory::remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IoFailure::new("remove", path, error)),
            _ => Ok(()),
        }
    }

    /// The header of segment `sequence`, whose base offset must be `base`; `None` if the segment was not begun.
    pub(super) async fn begun_header(
        &mut self,
        checkpoint: &Checkpoint,
        sequence: u64,
        base: Offset,
    ) -> Result<Option<SegmentHeader>, OpenError> {
        let point = recovery_point(checkpoint);
        let used = sequence == point.sequence && point.position > FIRST_BATCH_AT;
        if !self.files.segments.contains(&sequence) {
            return if used { self.refuse_missing(sequence) } else { Ok(None) };
        }
        let path = segment_path(self.directory, sequence);
        if !used && is_zero(&self.read_block(&path, 0).await?) {
            return Ok(None);
        }
        self.decode_header(&path, sequence, base).await.map(Some)
    }

    /// The header in block 0, which must be that of segment `sequence` of this log, with base offset `base`.
    pub(super) async fn decode_header(
        &mut self,
        path: &Path,
        sequence: u64,
        base: Offset,
    ) -> Result<SegmentHeader, OpenError> {
        let block = self.read_block(path, 0).await?;
        let (case, found) = match SegmentHeader::decode(&block) {
            Ok(header) if header.partition == self.partition && header.sequence == sequence => {
                if header.base_offset == base {
                    return Ok(header);
                }
                (RecoveryCase::SegmentsApart, format!("base offset {}", header.base_offset))
            }
            Ok(header) => {
                let found = format!("the header of segment {} of {}", header.sequence, header.partition);
                (RecoveryCase::HeaderDamaged, found)
            }
            Err(error) => (RecoveryCase::HeaderDamaged, error.to_string()),
        };
        let expected = format!("the header of segment {sequence} of {}, base offset {base}", self.partition);
        self.refuse(case, Corruption { file: path.to_path_buf(), position: 0, expected, found })
    }

    /// Whether the segment behind `sequence` has a header, good or bad.
    pub(super) async fn next_is_begun(&self, sequence: u64) -> Result<bool, IoFailure> {
        if !self.files.segments.contains(&(sequence + 1)) {
            return Ok(false);
        }
        let path = segment_path(self.directory, sequence + 1);
        Ok(!is_zero(&self.read_block(&path, 0).await?))
    }

    /// Removes prepared segments from `sequence` on. One with a header cannot be there: a segment before it would be missing.
    pub(super) async fn unused_behind(&mut self, sequence: u64) -> Result<(), OpenError> {
        for unused in self.files.segments.split_off(&sequence) {
            let path = segment_path(self.directory, unused);
            if !is_zero(&self.read_block(&path, 0).await?) {
                return self.refuse_missing(sequence);
            }
            self.report.hit(RecoveryCase::UnusedSpace);
            self.remove(&path).await?;
        }
        Ok(())
    }

    pub(super) fn refuse_missing<T>(&mut self, sequence: u64) -> Result<T, OpenError> {
        let corruption = Corruption {
            file: segment_path(self.directory, sequence),
            position: 0,
            expected: "a segment".to_owned(),
            found: "no file".to_owned(),
        };
        self.refuse(RecoveryCase::SegmentMissing, corruption)
    }
}
