//! Opening a log: finding its end, making it durable, zeroing what lies behind it. Also making a new log.
//!
//! The newest usable checkpoint says up to where the log is known; the batches behind that point are scanned, segment by
//! segment; what ends them is one row of the table in [`cases`]. Then what was accepted behind the point is written again and
//! the stale bytes behind the end are zeroed, both synced before anybody is served: what a read has shown may still be in
//! the page cache only. Corruption is refused and nothing on disk is changed by then, except for files that nothing refers to.
//!
//! Sources: the recovery table of TigerBeetle's journal (the idea of one table, a test per row); the torn-write argument in
//! [`cases`] is ours.

mod cases;
mod files;
mod repair;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub use cases::{RecoveryCase, RecoveryReport};
use scan::{Rejection, Scan, WINDOW_BYTES, classify_end};

use super::checkpoint::{Checkpoint, SegmentSummary};
use super::cursor::Cursor;
use super::error::{Corruption, IoFailure, OpenError};
use super::format::{FIRST_BATCH_AT, SegmentHeader, checkpoint_path, is_zero, seal_path, segment_path};
use super::index::SparseIndex;
use super::lifecycle::{recovery_point, settle_checkpoint};
use super::log::{CheckpointState, HeaderState, Inner, Phase, State};
use super::options::LogOptions;
use super::producers::{ProducerLimits, ProducerStates};
use super::segment::{Age, LogPoint, Segment, position_u32};
use super::shard::Storage;
use super::space::Space;
use super::tail::Tail;
use crate::runtime::{Buffer, Class, File, Instant, OpenMode, directory, spawn, wall_clock};
use crate::types::limits::{BLOCK_BYTES, ZERO_TAIL_BYTES};
use crate::types::{LeaderEpoch, Offset, TopicPartition};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The producers' limits among the options.
pub(super) fn producer_limits(options: &LogOptions) -> ProducerLimits {
    ProducerLimits { count_max: options.producers_max, expiry: options.producer_expiry }
}

/// What the names in a log's directory say.
#[derive(Default)]
struct Files {
    segments: BTreeSet<u64>,
    seals: BTreeSet<u64>,
    unfinished: Vec<PathBuf>,
}

/// A log on its way to being open.
struct Recovery<'r> {
    storage: &'r Rc<Storage>,
    directory: &'r Path,
    partition: TopicPartition,
    options: LogOptions,
    report: RecoveryReport,
    files: Files,
}

/// The end of a log, found.
struct FoundEnd {
    scan: Scan,
    /// The segments up to the end, the last one active.
    segments: VecDeque<Rc<Segment>>,
    /// The file of the last one, and its length; `None` if it was not begun.
    file: Option<(File, u64)>,
    /// Where the last byte lies that is not zero, plus one, if one lies behind the end.
    stale_end: Option<u64>,
}

/// Makes a new log.
pub(super) async fn create(
    storage: &Rc<Storage>,
    directory: &Path,
    partition: TopicPartition,
    options: LogOptions,
) -> Result<Rc<Inner>, OpenError> {
    open(storage, directory, partition, options).await.and_then(|(inner, report)| {
        let fresh = report.hits(RecoveryCase::NeverWritten) > 0;
        let end = inner.state.borrow().accepted.offset;
        if fresh || end == Offset::ZERO {
            return Ok(inner);
        }
        let corruption = Corruption {
            file: directory.to_path_buf(),
            position: 0,
            expected: "no log".to_owned(),
            found: format!("a log with {end} records"),
        };
        Err(OpenError::Corrupt { case: RecoveryCase::SegmentsApart, corruption })
    })
}

/// Opens a log.
pub(super) async fn open(
    storage: &Rc<Storage>,
    directory: &Path,
    partition: TopicPartition,
    options: LogOptions,
) -> Result<(Rc<Inner>, RecoveryReport), OpenError> {
    let files = Files::default();
    let report = RecoveryReport::default();
    let mut recovery = Recovery { storage, directory, partition, options, report, files };
    let inner = recovery.run().await.inspect_err(|error| {
        if let OpenError::Corrupt { case, corruption } = error {
            let Corruption { file, position, expected, found } = corruption;
            tracing::error!(%case, file = %file.display(), position, expected, found, "corruption, the log stays offline");
            storage.metrics().corruptions.add(1);
        }
    })?;
    Ok((inner, recovery.report))
}

impl Recovery<'_> {
    async fn run(&mut self) -> Result<Rc<Inner>, OpenError> {
        if !self.list().await? {
            return self.make_new().await;
        }
        let Some((checkpoint, whole)) = self.find_checkpoint().await? else { return self.make_new().await };
        let settled = self.settle(&checkpoint, whole).await?;
        self.remove_leftovers(&checkpoint).await?;
        if checkpoint.clean && whole {
            if let Some(inner) = self.open_clean(&checkpoint, settled).await? {
                return Ok(inner);
            }
            settle_checkpoint(self.directory, checkpoint.generation).await?;
        }
        let found = self.find_end(&checkpoint).await?;
        self.repair(checkpoint, whole, found).await
    }

    fn refuse<T>(&mut self, case: RecoveryCase, corruption: Corruption) -> Result<T, OpenError> {
        debug_assert!(case.is_corruption());
        self.report.hit(case);
        Err(OpenError::Corrupt { case, corruption })
    }

    /// Makes a new log: its directory, and its first checkpoint. What an earlier try has left is removed.
    async fn make_new(&mut self) -> Result<Rc<Inner>, OpenError> {
        self.report.hit(RecoveryCase::NeverWritten);
        let path = self.directory;
        let failed = |operation| move |error| IoFailure::new(operation, path, error);
        match directory::create(path).await {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("create")(error).into()),
            _ => {}
        }
        if let Some(parent) = self.directory.parent() {
            directory::sync(parent).await.map_err(|error| IoFailure::new("sync", parent, error))?;
        }
        let segments = self.files.segments.iter().map(|&sequence| segment_path(self.directory, sequence));
        let seals = self.files.seals.iter().map(|&sequence| seal_path(self.directory, sequence));
        let slots = [checkpoint_path(self.directory, 0), checkpoint_path(self.directory, 1)];
        for path in segments.chain(seals).chain(slots).chain(self.files.unfinished.iter().cloned()) {
            self.remove(&path).await?;
        }
        directory::sync(self.directory).await.map_err(failed("sync"))?;

        let header = self.options.segment_header(self.partition, 1, LeaderEpoch::ZERO, wall_clock());
        let segment = Rc::new(Segment::new(header, &self.options));
        let point = LogPoint::start_of(&header);
        let index = SparseIndex::new(point.offset, position_u32(FIRST_BATCH_AT), self.options.index_interval_bytes);
        let scan = Scan {
            point,
            epochs: Default::default(),
            producers: ProducerStates::new(producer_limits(&self.options)),
            index,
            now: self.storage.uptime(),
        };
        let found = FoundEnd { scan, segments: VecDeque::from([segment]), file: None, stale_end: None };
        let state = self.state(found, Offset::ZERO, 0, &[]);
        let inner = Inner::new(self.storage, self.directory, self.partition, state);
        inner.write_checkpoint_now().await?;
        spawn(Class::Background, inner.clone().make_ready(1));
        Ok(inner)
    }

    /// Opens a log that was closed in order. `None` if something is behind its end all the same.
    async fn open_clean(&mut self, checkpoint: &Checkpoint, settled: bool) -> Result<Option<Rc<Inner>>, OpenError> {
        let point = recovery_point(checkpoint);
        let mut segments = self.ended_segments(checkpoint).await?;
        let begun = self.begun_header(checkpoint, point.sequence, base_of(checkpoint)).await?;
        let is_begun = begun.is_some();
        let mut file = None;
        let mut block = Vec::new();
        let active = if let Some(header) = begun {
            let path = segment_path(self.directory, point.sequence);
            let start = point.position - point.position % BLOCK;
            let opened =
                File::open(&path, OpenMode::Write).await.map_err(|error| IoFailure::new("open", &path, error))?;
            let wanted = 2 * BLOCK_BYTES;
            let (read, bytes) = opened.read_at(start, wanted, Buffer::with_capacity(wanted)).await;
            read.map_err(|error| IoFailure::new("read", &path, error))?;
            let used = usize::try_from(point.position - start).expect("less than a block");
            if bytes.len() < used || !is_zero(&bytes[used..bytes.len().min(used + ZERO_TAIL_BYTES)]) {
                return Ok(None);
            }
            block.extend_from_slice(&bytes[..used]);
            let length = opened.length().await.map_err(|error| IoFailure::new("stat", &path, error))?;
            file = Some((opened, length));
            self.active_segment(header)
        } else {
            self.unused_behind(point.sequence).await?;
            let fresh = self.options.segment_header(self.partition, point.sequence, epoch_of(checkpoint), wall_clock());
            self.active_segment(SegmentHeader { base_offset: point.offset, ..fresh })
        };
        if is_begun {
            self.unused_behind(point.sequence + 1).await?;
        }
        segments.push_back(active);
        self.report.hit(RecoveryCase::Clean);
        let scan = self.scan_from(checkpoint);
        let found = FoundEnd { scan, segments, file, stale_end: None };
        let mut state = self.state(found, checkpoint.log_start, checkpoint.generation, &block);
        (state.checkpoint.clean, state.checkpoint.settled) = (true, settled);
        Ok(Some(Inner::new(self.storage, self.directory, self.partition, state)))
    }

    /// Finds the end of a log that was not closed in order.
    async fn find_end(&mut self, checkpoint: &Checkpoint) -> Result<FoundEnd, OpenError> {
        let mut segments = self.ended_segments(checkpoint).await?;
        let mut scan = self.scan_from(checkpoint);
        let batches_before = self.report.batches_scanned;
        loop {
            let sequence = scan.point.sequence;
            let scanned = self.report.batches_scanned > batches_before;
            let at_checkpoint = sequence == checkpoint.recovery_point.sequence;
            let base = if at_checkpoint { base_of(checkpoint) } else { scan.point.offset };
            let Some(header) = self.begun_header(checkpoint, sequence, base).await? else {
                return self.end_unbegun(segments, scan, scanned).await;
            };
            let segment = self.active_segment(header);
            let path = segment_path(self.directory, sequence);
            let file =
                File::open(&path, OpenMode::Write).await.map_err(|error| IoFailure::new("open", &path, error))?;
            let length = file.length().await.map_err(|error| IoFailure::new("stat", &path, error))?;
            let mut cursor = Cursor::new(file.clone(), &path, scan.point.position, length, WINDOW_BYTES);
            let rejection = scan.run(&mut cursor, &mut self.report).await?;
            if self.next_is_begun(sequence).await? {
                self.check_left(&mut cursor, &scan, &rejection).await?;
                self.report.hit(RecoveryCase::RolledOn);
                segments.push_back(self.leave(segment, &mut scan));
                continue;
            }
            let scanned = self.report.batches_scanned > batches_before;
            let end = classify_end(&mut cursor, &header, scan.point.offset, &rejection, scanned).await?;
            if let Some(corruption) = end.corruption {
                return self.refuse(end.case, corruption);
            }
            self.report.hit(end.case);
            self.report.stale_bytes += end.stale_bytes;
            self.unused_behind(sequence + 1).await?;
            segments.push_back(segment);
            let stale_end = (end.stale_bytes > 0).then_some(end.stale_end);
            return Ok(FoundEnd { scan, segments, file: Some((file, length)), stale_end });
        }
    }

    /// The log ends before the first batch of a segment that was not begun.
    async fn end_unbegun(
        &mut self,
        mut segments: VecDeque<Rc<Segment>>,
        scan: Scan,
        scanned: bool,
    ) -> Result<FoundEnd, OpenError> {
        self.report.hit(if scanned { RecoveryCase::NewBatches } else { RecoveryCase::NoNewBatches });
        self.unused_behind(scan.point.sequence).await?;
        let epoch = scan.epochs.latest().map_or(LeaderEpoch::ZERO, |latest| latest.epoch);
        let fresh = self.options.segment_header(self.partition, scan.point.sequence, epoch, wall_clock());
        segments.push_back(self.active_segment(SegmentHeader { base_offset: scan.point.offset, ..fresh }));
        Ok(FoundEnd { scan, segments, file: None, stale_end: None })
    }

    /// The scan state at the recovery point.
    fn scan_from(&self, checkpoint: &Checkpoint) -> Scan {
        let point = recovery_point(checkpoint);
        let fresh = || SparseIndex::new(point.offset, position_u32(FIRST_BATCH_AT), self.options.index_interval_bytes);
        let mut producers = checkpoint.producers.clone();
        producers.set_limits(producer_limits(&self.options));
        Scan {
            point,
            epochs: checkpoint.epochs.clone(),
            producers,
            index: checkpoint.active_index.clone().unwrap_or_else(fresh),
            now: self.storage.uptime(),
        }
    }

    fn active_segment(&self, header: SegmentHeader) -> Rc<Segment> {
        Rc::new(Segment::new(header, &self.options))
    }

    /// The segments that had ended at the checkpoint; those that were not sealed get their index back.
    async fn ended_segments(&mut self, checkpoint: &Checkpoint) -> Result<VecDeque<Rc<Segment>>, OpenError> {
        let point = recovery_point(checkpoint);
        let mut segments = VecDeque::new();
        for summary in checkpoint.segments.iter().filter(|summary| summary.sequence < point.sequence) {
            if !self.files.segments.contains(&summary.sequence) {
                return self.refuse_missing(summary.sequence);
            }
            let sealed = self.files.seals.contains(&summary.sequence);
            segments.push_back(self.ended_segment(summary, sealed).await?);
        }
        Ok(segments)
    }

    async fn ended_segment(&mut self, summary: &SegmentSummary, sealed: bool) -> Result<Rc<Segment>, OpenError> {
        let header = if sealed {
            // Its header is read when the segment is; a clean start opens none but the last one.
            let header = self.options.segment_header(self.partition, summary.sequence, LeaderEpoch::ZERO, wall_clock());
            SegmentHeader { base_offset: summary.base_offset, ..header }
        } else {
            let path = segment_path(self.directory, summary.sequence);
            self.decode_header(&path, summary.sequence, summary.base_offset).await?
        };
        let segment = Segment::new(header, &self.options);
        let end = LogPoint { sequence: summary.sequence, position: summary.bytes.into(), offset: summary.next_offset };
        if sealed {
            *segment.index.borrow_mut() = None;
            segment.sealed.set(true);
        } else {
            self.rebuild_index(&segment, end).await?;
        }
        segment.finish(end, summary.sealed_at.unwrap_or_else(wall_clock));
        segment.max_timestamp.set(summary.max_timestamp);
        Ok(Rc::new(segment))
    }

    /// Builds the index of a segment that has ended from its batches.
    async fn rebuild_index(&mut self, segment: &Segment, end: LogPoint) -> Result<(), OpenError> {
        self.report.hit(RecoveryCase::SealMissing);
        let sequence = segment.sequence();
        let path = segment_path(self.directory, sequence);
        let file = File::open(&path, OpenMode::Read).await.map_err(|error| IoFailure::new("open", &path, error))?;
        let mut cursor = Cursor::new(file, &path, FIRST_BATCH_AT, end.position, WINDOW_BYTES);
        let point = LogPoint::start_of(&segment.header);
        let index = segment.index.borrow_mut().take();
        let mut scan = Scan {
            point,
            epochs: Default::default(),
            producers: ProducerStates::new(producer_limits(&self.options)),
            index: index.expect("a new segment has one"),
            now: self.storage.uptime(),
        };
        let rejection = scan.run(&mut cursor, &mut self.report).await?;
        if scan.point != end {
            let corruption = cursor.corruption(format!("batches up to offset {}", end.offset), rejection);
            return self.refuse(RecoveryCase::BadBeforeNext, corruption);
        }
        *segment.index.borrow_mut() = Some(scan.index);
        *segment.at_end.borrow_mut() = Some(Box::new((scan.epochs, scan.producers)));
        Ok(())
    }

    /// The log has left the segment that the cursor stands in: zeros must lie there.
    async fn check_left(&mut self, cursor: &mut Cursor, scan: &Scan, rejection: &Rejection) -> Result<(), OpenError> {
        cursor.fill(ZERO_TAIL_BYTES).await?;
        let behind = cursor.bytes();
        if is_zero(&behind[..behind.len().min(ZERO_TAIL_BYTES)]) {
            return Ok(());
        }
        let next = scan.point.sequence + 1;
        let expected = format!("zeros behind offset {}, since segment {next} was begun", scan.point.offset);
        let corruption = cursor.corruption(expected, rejection);
        self.refuse(RecoveryCase::BadBeforeNext, corruption)
    }

    /// Ends a segment where the scan stands, and has the scan go on in the next one.
    fn leave(&self, segment: Rc<Segment>, scan: &mut Scan) -> Rc<Segment> {
        let LogPoint { sequence, offset, .. } = scan.point;
        let fresh = SparseIndex::new(offset, position_u32(FIRST_BATCH_AT), self.options.index_interval_bytes);
        *segment.index.borrow_mut() = Some(std::mem::replace(&mut scan.index, fresh));
        *segment.at_end.borrow_mut() = Some(Box::new((scan.epochs.clone(), scan.producers.clone())));
        segment.finish(scan.point, wall_clock());
        scan.point = LogPoint { sequence: sequence + 1, position: FIRST_BATCH_AT, offset };
        segment
    }

    /// Makes the found end durable, opens the log there and writes a checkpoint that says so.
    async fn repair(&mut self, checkpoint: Checkpoint, whole: bool, found: FoundEnd) -> Result<Rc<Inner>, OpenError> {
        let known = recovery_point(&checkpoint);
        let end = found.scan.point;
        let mut block = Vec::new();
        if let Some((file, _)) = &found.file {
            let path = segment_path(self.directory, end.sequence);
            // Up to the first batch nothing is known, not even the header.
            let known_there = end.sequence == known.sequence && known.position > FIRST_BATCH_AT;
            let from = if known_there { known.position } else { 0 };
            let found_end = repair::FoundTail { from, end: end.position, stale_end: found.stale_end };
            block = repair::make_durable(self.storage, file, &path, found_end, &mut self.report).await?;
        }
        let changed = end != known || found.stale_end.is_some() || !whole;
        let unsealed: Vec<_> =
            found.segments.iter().filter(|it| it.end.get().is_some() && !it.sealed.get()).cloned().collect();
        let state = self.state(found, checkpoint.log_start, checkpoint.generation, &block);
        let inner = Inner::new(self.storage, self.directory, self.partition, state);
        if changed {
            inner.write_checkpoint_now().await?;
        }
        for segment in unsealed {
            spawn(Class::Background, inner.clone().seal(segment));
        }
        Ok(inner)
    }

    /// The state of a log that ends where the scan does. `block` is what its last, partial block holds.
    fn state(&self, found: FoundEnd, log_start: Offset, generation: u64, block: &[u8]) -> State {
        let FoundEnd { scan, segments, file, .. } = found;
        let Scan { point, epochs, producers, index, .. } = scan;
        let active = segments.back().expect("the last one is active");
        let header = active.header;
        let is_empty = point.position == FIRST_BATCH_AT;
        *active.index.borrow_mut() = Some(index);
        if !is_empty {
            active.first_batch.set(Some(Age::from_wall_clock(header.created, wall_clock(), Instant::now())));
        }
        let (file, prewritten_end) = match file {
            Some((file, length)) => (Some(file), length - length % BLOCK),
            None => (None, 0),
        };
        let now = Instant::now();
        // A log that lost its last, not acknowledged records may end before a start that was set in them.
        let log_start = log_start.min(point.offset);
        State {
            caching: self.options.write_caching && header.allows_write_caching(),
            phase: Phase::Open,
            closing: false,
            tail: Tail::new(point.sequence, point.position - point.position % BLOCK, block),
            epochs,
            producers,
            log_start,
            appended_bytes: 0,
            accepted: point,
            written: point,
            durable: point,
            committed: point.offset,
            announced: point,
            uncommitted: VecDeque::new(),
            header: if file.is_some() { HeaderState::Durable } else { HeaderState::Due },
            file,
            header_wanted: false,
            flush_wanted: false,
            flushing: false,
            flush_timed: false,
            failure: None,
            era: 0,
            space: Space::new(prewritten_end),
            waiters: Vec::new(),
            writer: None,
            checkpoint: CheckpointState {
                generation,
                point,
                log_start,
                at: now,
                appended_bytes: 0,
                clean: false,
                settled: true,
                named: [false; 2],
                dirty_mark: None,
            },
            segments,
            options: self.options.clone(),
        }
    }
}

/// The oldest segment of a checkpoint.
fn first_sequence(checkpoint: &Checkpoint) -> u64 {
    checkpoint.segments.first().map_or(checkpoint.recovery_point.sequence, |segment| segment.sequence)
}

/// The base offset of the segment that the recovery point lies in.
fn base_of(checkpoint: &Checkpoint) -> Offset {
    let point = checkpoint.recovery_point;
    let listed = checkpoint.segments.last().filter(|segment| segment.sequence == point.sequence);
    listed.map_or(point.next_offset, |segment| segment.base_offset)
}

/// The epoch of the last record of a checkpoint.
fn epoch_of(checkpoint: &Checkpoint) -> LeaderEpoch {
    checkpoint.epochs.latest().map_or(LeaderEpoch::ZERO, |latest| latest.epoch)
}
