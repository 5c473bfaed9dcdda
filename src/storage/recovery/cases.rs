//! The table of recovery: every state in which a log can be found, what it means, and what is done. A test per row.
//!
//! | row | found | done |
//! |---|---|---|
//! | `Clean` | a clean checkpoint, zeros behind its point | nothing is scanned |
//! | `NeverWritten` | no checkpoint, or a torn first one, and no segment with a header | the log is created anew |
//! | `SlotUnusable` | one checkpoint slot torn or damaged | the other one counts, and is not believed to be clean |
//! | `CheckpointLost` | segments with headers, no usable checkpoint | refused |
//! | `UnfinishedFile` | a file that was being prepared | removed |
//! | `UnusedSpace` | a prepared segment without a header | removed: its first write was not acknowledged |
//! | `RetiredSegment` | a segment before the first one of the checkpoint | removed: the log start had passed it |
//! | `SealMissing` | a segment that has ended, without a good seal | its index is built from its batches |
//! | `SegmentMissing` | a segment of the checkpoint, or between two others, is not there | refused |
//! | `HeaderDamaged` | block 0 is neither zero nor this segment's header | refused |
//! | `NoNewBatches` | zeros at the recovery point and behind | synced |
//! | `NewBatches` | good batches behind the recovery point, then zeros | written again, synced |
//! | `RolledOn` | the next segment begins where this one ends | the scan goes on there |
//! | `TornHeader` | the header of the batch at the end misses a sector | zeroed from the end on |
//! | `TornBatch` | the batch at the end misses a sector | zeroed from the end on |
//! | `TornFront` | zeros at the end, and bytes of a write behind them | zeroed from the end on |
//! | `DamagedBatch` | a bad batch of which no sector is missing | refused |
//! | `BeyondWindow` | bytes further behind the end than a write in flight can reach | refused |
//! | `BadBeforeNext` | a bad batch, although the next segment was begun | refused |
//! | `SegmentsApart` | the next segment's base offset is not this one's end | refused |
//!
//! **Torn or damaged.** A write goes onto zeros (or onto the same bytes), and each sector of it is old or new after a power cut.
//! So a batch that a power cut has torn misses at least one sector: its part in that sector is zeros. A bad batch with bytes
//! in every sector was whole once and is damaged, however near to the end it lies.

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RecoveryCase {
    /// The log was closed in order.
    Clean,
    /// The creation of the log did not come to its end.
    NeverWritten,
    /// One of the two checkpoint slots is torn or damaged.
    SlotUnusable,
    /// There is a log but no usable checkpoint of it.
    CheckpointLost,
    /// A file was being prepared.
    UnfinishedFile,
    /// A segment was prepared and never begun, or its first write was torn.
    UnusedSpace,
    /// A segment was below the log start already.
    RetiredSegment,
    /// A segment has ended and was not sealed, or its seal is damaged.
    SealMissing,
    /// A segment that must be there is not.
    SegmentMissing,
    /// A segment's header is not the one that belongs there.
    HeaderDamaged,
    /// Nothing was written behind the recovery point.
    NoNewBatches,
    /// Good batches lie behind the recovery point.
    NewBatches,
    /// The log goes on in the next segment.
    RolledOn,
    /// The last write was torn in the header of a batch.
    TornHeader,
    /// The last write was torn in the records of a batch.
    TornBatch,
    /// Of the last write only what came later is there.
    TornFront,
    /// A batch was changed after it was written.
    DamagedBatch,
    /// There are bytes where no write can have been in flight.
    BeyondWindow,
    /// A batch is bad in a segment that the log had left.
    BadBeforeNext,
    /// Two segments do not follow each other.
    SegmentsApart,
}

impl RecoveryCase {
    /// Every row, in the order of the table.
    pub const ALL: [RecoveryCase; 20] = [
        RecoveryCase::Clean,
        RecoveryCase::NeverWritten,
        RecoveryCase::SlotUnusable,
        RecoveryCase::CheckpointLost,
        RecoveryCase::UnfinishedFile,
        RecoveryCase::UnusedSpace,
        RecoveryCase::RetiredSegment,
        RecoveryCase::SealMissing,
        RecoveryCase::SegmentMissing,
        RecoveryCase::HeaderDamaged,
        RecoveryCase::NoNewBatches,
        RecoveryCase::NewBatches,
        RecoveryCase::RolledOn,
        RecoveryCase::TornHeader,
        RecoveryCase::TornBatch,
        RecoveryCase::TornFront,
        RecoveryCase::DamagedBatch,
        RecoveryCase::BeyondWindow,
        RecoveryCase::BadBeforeNext,
        RecoveryCase::SegmentsApart,
    ];

    /// Its name, as reports print it.
    pub const fn name(self) -> &'static str {
        match self {
            RecoveryCase::Clean => "clean",
            RecoveryCase::NeverWritten => "never-written",
            RecoveryCase::SlotUnusable => "slot-unusable",
            RecoveryCase::CheckpointLost => "checkpoint-lost",
            RecoveryCase::UnfinishedFile => "unfinished-file",
            RecoveryCase::UnusedSpace => "unused-space",
            RecoveryCase::RetiredSegment => "retired-segment",
            RecoveryCase::SealMissing => "seal-missing",
            RecoveryCase::SegmentMissing => "segment-missing",
            RecoveryCase::HeaderDamaged => "header-damaged",
            RecoveryCase::NoNewBatches => "no-new-batches",
            RecoveryCase::NewBatches => "new-batches",
            RecoveryCase::RolledOn => "rolled-on",
            RecoveryCase::TornHeader => "torn-header",
            RecoveryCase::TornBatch => "torn-batch",
            RecoveryCase::TornFront => "torn-front",
            RecoveryCase::DamagedBatch => "damaged-batch",
            RecoveryCase::BeyondWindow => "beyond-window",
            RecoveryCase::BadBeforeNext => "bad-before-next",
            RecoveryCase::SegmentsApart => "segments-apart",
        }
    }

    /// Whether a log in this state is refused: no power cut and no crash explains it.
    pub const fn is_corruption(self) -> bool {
        matches!(
            self,
            RecoveryCase::CheckpointLost
                | RecoveryCase::SegmentMissing
                | RecoveryCase::HeaderDamaged
                | RecoveryCase::DamagedBatch
                | RecoveryCase::BeyondWindow
                | RecoveryCase::BadBeforeNext
                | RecoveryCase::SegmentsApart
        )
    }

    /// Whether the last write was torn.
    pub const fn is_torn(self) -> bool {
        matches!(self, RecoveryCase::TornHeader | RecoveryCase::TornBatch | RecoveryCase::TornFront)
    }
}

impl std::fmt::Display for RecoveryCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How a log was found, and what was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    hits: [u32; RecoveryCase::ALL.len()],
    /// Batches that were scanned behind the recovery point.
    pub batches_scanned: u64,
    /// Their bytes.
    pub bytes_scanned: u64,
    /// Bytes that were written again since they were not known to be durable.
    pub bytes_rewritten: u64,
    /// Bytes behind the end of the log that were not zero, and are now.
    pub stale_bytes: u64,
}

impl RecoveryReport {
    pub(super) fn hit(&mut self, case: RecoveryCase) {
        self.hits[case as usize] += 1;
    }

    /// How often a row of the table was met.
    pub fn hits(&self, case: RecoveryCase) -> u32 {
        self.hits[case as usize]
    }

    /// The rows that were met.
    pub fn cases(&self) -> impl Iterator<Item = RecoveryCase> + '_ {
        RecoveryCase::ALL.into_iter().filter(|&case| self.hits(case) > 0)
    }

    /// Whether the log was closed in order.
    pub fn was_clean(&self) -> bool {
        self.hits(RecoveryCase::Clean) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_every_row_once() {
        let text = include_str!("cases.rs");
        for (index, case) in RecoveryCase::ALL.into_iter().enumerate() {
            assert_eq!(case as usize, index);
            assert_eq!(text.matches(&format!("//! | `{case:?}` |")).count(), 1, "{case:?} is drawn once");
            assert_eq!(RecoveryCase::ALL.iter().filter(|other| other.name() == case.name()).count(), 1);
            let row = format!("//! | `{case:?}` |");
            let refused = text.lines().any(|line| line.starts_with(&row) && line.ends_with("| refused |"));
            assert_eq!(refused, case.is_corruption(), "{case:?}");
        }
    }
}
