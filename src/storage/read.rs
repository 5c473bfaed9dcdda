//! Reading batches by offset: from the append buffers if they lie there, else from disk.
//!
//! A read gives whole batches, byte for byte, the one that holds the asked offset first. What comes from disk is CRC-checked
//! before it is given; the append buffers hold what was checked when it came. A damaged batch is an error only for the read
//! that begins with it: one that begins before it ends before it, one that begins behind it passes over it by its length, or
//! starts behind it by the index.
//!
//! The caller bounds reads by the high watermark; nothing beyond the log end exists here.

use std::rc::Rc;

use smallvec::{SmallVec, smallvec};

use super::cursor::{Cursor, Found};
use super::descriptors::OpenSegment;
use super::error::{Corruption, IoFailure, ReadError};
use super::format::{FIRST_BATCH_AT, seal_path, segment_path};
use super::index::SparseIndex;
use super::log::{HeaderState, Inner, Log, Phase, State};
use super::recovery::producer_limits;
use super::seal::Seal;
use super::segment::{LogPoint, Segment, SegmentReader, position_u32};
use crate::record::{RecordBatch, UncheckedBatch};
use crate::runtime::{File, OpenMode, Slice, directory};
use crate::types::Offset;
use crate::types::limits::BLOCK_BYTES;

/// Bytes read from disk for one read at most, unless one batch is longer: enough to keep a disk busy, little enough that a
/// cold reader does not hold much memory.
const READ_BYTES_MAX: usize = 1 << 20;
/// Bytes read beyond what was asked for: the distance between two index entries, and the rest of two blocks.
const READ_BYTES_EXTRA: usize = 3 * BLOCK_BYTES;

/// What a read may give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimits {
    /// Bytes at most.
    pub bytes_max: usize,
    /// Only batches that end at or before this offset (exclusive): the high watermark, or the last stable offset.
    pub end: Offset,
    /// Whether the first batch is given even if it is longer than `bytes_max`.
    pub first_batch_whole: bool,
}

/// A list of slices that needs no memory of its own while it is short: a read of the append buffers seldom meets more than
/// two chunks.
pub type Slices = SmallVec<[Slice; 2]>;

/// Whole batches, one behind the other.
#[derive(Clone, Debug)]
pub struct Batches {
    /// Their bytes, in order; a batch may lie across two slices.
    pub slices: Slices,
    /// The sum of the slices' lengths.
    pub bytes: usize,
    /// The offset behind the last of them: where to read on. The asked offset if there are none.
    pub end: Offset,
}

impl Batches {
    fn none(at: Offset) -> Batches {
        Batches { slices: Slices::new(), bytes: 0, end: at }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// A segment that is being read.
pub(super) struct Located {
    pub reader: SegmentReader,
    /// Where its readable bytes end, and the offset behind them.
    pub end: LogPoint,
    open: OpenFile,
}

enum OpenFile {
    Active(File),
    Ended(Rc<OpenSegment>),
}

impl Located {
    pub(super) fn segment(&self) -> &Segment {
        self.reader.segment()
    }

    /// Looks something up in the index.
    pub(super) fn with_index<R>(&self, look: impl FnOnce(Option<&SparseIndex>) -> R) -> R {
        match &self.open {
            OpenFile::Ended(open) if open.index.is_some() => look(open.index.as_ref()),
            _ => look(self.segment().index.borrow().as_ref()),
        }
    }

    /// A cursor at `position`.
    pub(super) fn cursor(&self, inner: &Inner, position: u64, window_bytes: usize) -> Cursor {
        let file = match &self.open {
            OpenFile::Active(file) => file.clone(),
            OpenFile::Ended(open) => open.file.clone(),
        };
        let path = segment_path(&inner.directory, self.segment().sequence());
        Cursor::new(file, &path, position, self.end.position, window_bytes)
    }
}

impl Log {
    /// Whole batches from the one that holds `from`, out of the append buffers alone. `None` if that one does not lie there
    /// any more: then [`Log::read`] finds it on disk.
    pub fn read_tail(&self, from: Offset, limits: ReadLimits) -> Option<Batches> {
        let state = self.0.state.borrow();
        if from < state.log_start || from > state.accepted.offset {
            return None;
        }
        if from >= limits.end.min(state.accepted.offset) {
            return Some(Batches::none(from));
        }
        let ReadLimits { bytes_max, end, first_batch_whole } = limits;
        let read = state.tail.read(from, end, state.accepted.offset, bytes_max, first_batch_whole)?;
        let end = if read.bytes == 0 { from } else { read.end };
        Some(Batches { slices: read.slices, bytes: read.bytes, end })
    }

    /// Whole batches from the one that holds `from`. None if `from` is the end of what may be read. One call reads from one
    /// segment at most, and may give less than the limits allow.
    ///
    /// # Errors
    /// See [`ReadError`]. A damaged batch is also logged, with file and position, and counted.
    pub async fn read(&self, from: Offset, limits: ReadLimits) -> Result<Batches, ReadError> {
        loop {
            if let Some(batches) = self.read_tail(from, limits) {
                return Ok(batches);
            }
            let Some(located) = self.0.locate(from).await? else { continue };
            return self.0.read_located(&located, from, limits).await;
        }
    }
}

impl State {
    fn out_of_range(&self, offset: Offset) -> ReadError {
        ReadError::OutOfRange { offset, log_start: self.log_start, log_end: self.accepted.offset }
    }

    /// The segment that holds `offset`, and where its readable bytes end.
    fn find(&self, offset: Offset) -> Option<(Rc<Segment>, LogPoint)> {
        let after = self.segments.partition_point(|segment| segment.base_offset() <= offset);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        // Beyond `written` there is nothing on disk, also in a segment that has ended.
        let end = segment.end.get().unwrap_or(self.accepted).min(self.written);
        (end.sequence == segment.sequence()).then(|| (segment.clone(), end))
    }
}

impl Inner {
    /// The segment that holds `offset`, open for reading. `None` if the log has changed meanwhile: look again.
    pub(super) async fn locate(self: &Rc<Self>, offset: Offset) -> Result<Option<Located>, ReadError> {
        let (reader, end, active) = {
            let state = self.state.borrow();
            if offset < state.log_start || offset >= state.accepted.offset {
                return Err(state.out_of_range(offset));
            }
            let Some((segment, end)) = state.find(offset) else { return Err(state.out_of_range(offset)) };
            if offset >= end.offset {
                return Err(state.out_of_range(offset));
            }
            let active = segment.sequence() == state.written.sequence && segment.index.borrow().is_some();
            (SegmentReader::new(segment), end, active.then(|| state.file.clone()))
        };
        let open = match active {
            Some(Some(file)) => OpenFile::Active(file),
            Some(None) => OpenFile::Active(self.open_active(reader.segment().sequence()).await?),
            None => OpenFile::Ended(self.open_ended(reader.segment()).await?),
        };
        // The index may have moved into the seal while the file was opened.
        let located = Located { reader, end, open };
        Ok(located.with_index(|index| index.is_some()).then_some(located))
    }

    /// Opens the segment that is written, for its reader and for the writer after it.
    async fn open_active(&self, sequence: u64) -> Result<File, IoFailure> {
        let path = segment_path(&self.directory, sequence);
        let file = File::open(&path, OpenMode::Write).await.map_err(|error| IoFailure::new("open", path, error))?;
        let mut state = self.state.borrow_mut();
        let is_open = matches!(state.phase, Phase::Open);
        if is_open && state.written.sequence == sequence && state.file.is_none() && state.header == HeaderState::Durable
        {
            state.file = Some(file.clone());
        }
        Ok(file)
    }

    /// A segment that has ended, through the cache.
    async fn open_ended(&self, segment: &Segment) -> Result<Rc<OpenSegment>, IoFailure> {
        let key = (self.number, segment.sequence());
        if let Some(open) = self.storage.descriptors.find(key) {
            if open.index.is_some() || segment.index.borrow().is_some() {
                return Ok(open);
            }
            // It was opened before it was sealed; since then its index lies in the seal.
            self.storage.descriptors.forget(key);
        }
        let path = segment_path(&self.directory, segment.sequence());
        let file = File::open(&path, OpenMode::Read).await.map_err(|error| IoFailure::new("open", path, error))?;
        let in_memory = segment.index.borrow().is_some();
        let index = if in_memory { None } else { Some(self.read_index(segment).await) };
        Ok(self.storage.descriptors.keep(key, OpenSegment { file, index }))
    }

    /// The index of a sealed segment. Without a good seal, one that makes every look-up begin at the segment's start.
    async fn read_index(&self, segment: &Segment) -> SparseIndex {
        let path = seal_path(&self.directory, segment.sequence());
        let limits = producer_limits(&self.state.borrow().options);
        let failed = match directory::read(&path, super::codec::BODY_BYTES_MAX).await {
            Err(error) => error.to_string(),
            Ok(bytes) => match Seal::decode(&bytes, limits, self.storage.uptime()) {
                Ok(seal) if seal.segment.partition == self.partition && seal.segment.sequence == segment.sequence() => {
                    return seal.index;
                }
                Ok(_) => "it belongs to another segment".to_owned(),
                Err(error) => error.to_string(),
            },
        };
        tracing::warn!(seal = %path.display(), failed, "reading without an index");
        SparseIndex::new(segment.base_offset(), position_u32(FIRST_BATCH_AT), u32::MAX)
    }

    /// Batches of a located segment.
    async fn read_located(&self, located: &Located, from: Offset, limits: ReadLimits) -> Result<Batches, ReadError> {
        let start = located.with_index(|index| index.map(|index| index.position_for(from)));
        let window_bytes = limits.bytes_max.clamp(1, READ_BYTES_MAX) + READ_BYTES_EXTRA;
        let position = start.map_or(FIRST_BATCH_AT, u64::from);
        let mut cursor = located.cursor(self, position, window_bytes);
        self.walk_to(located, &mut cursor, from).await?;

        // The first batch decides whether there is anything; the others come as far as the window reaches.
        let (first_bytes, mut end) = match cursor.batch().await? {
            Found::Batch(batch) if holds(&batch, from) => (batch.bytes().len(), batch.next_offset()),
            Found::Batch(batch) => {
                let found = format!("offsets {} to {}", batch.base_offset(), batch.last_offset());
                return Err(self.corrupt(located, &cursor, from, format!("the batch of offset {from}"), found));
            }
            Found::Bad(cause) => {
                return Err(self.corrupt(located, &cursor, from, format!("the batch of offset {from}"), cause));
            }
        };
        if end > limits.end || (first_bytes > limits.bytes_max && !limits.first_batch_whole) {
            return Ok(Batches::none(from));
        }
        let begin = cursor.position();
        let mut bytes = first_bytes;
        cursor.skip(first_bytes);
        while let Ok(framed) = UncheckedBatch::frame(cursor.bytes(), limits.bytes_max.saturating_sub(bytes)) {
            let Ok(batch) = framed.check() else { break };
            if batch.base_offset() != end || batch.next_offset() > limits.end {
                break;
            }
            end = batch.next_offset();
            bytes += batch.bytes().len();
            let length = batch.bytes().len();
            cursor.skip(length);
        }
        Ok(Batches { slices: smallvec![cursor.slice(begin, begin + bytes as u64)], bytes, end })
    }

    /// Moves the cursor to the batch that holds `offset`, by the headers of the batches before it; their CRCs do not matter.
    pub(super) async fn walk_to(
        &self,
        located: &Located,
        cursor: &mut Cursor,
        offset: Offset,
    ) -> Result<(), ReadError> {
        let mut expected: Option<Offset> = None;
        loop {
            let step = match cursor.frame().await? {
                Err(cause) => Err(cause.to_string()),
                Ok(framed) => {
                    let header = framed.header();
                    let base = header.base_offset();
                    let next =
                        u64::try_from(header.last_offset_delta()).ok().and_then(|delta| Some(base?.plus(delta).next()));
                    match (base, next) {
                        (Some(base), Some(next)) if base <= offset && expected.is_none_or(|it| it == base) => {
                            Ok((next, framed.bytes().len()))
                        }
                        _ => Err(format!("a batch with base offset {base:?}")),
                    }
                }
            };
            match step {
                Ok((next, _)) if next > offset => return Ok(()),
                Ok((next, bytes)) => {
                    expected = Some(next);
                    cursor.skip(bytes);
                }
                Err(found) => {
                    let expected =
                        expected.map_or_else(|| "a batch".to_owned(), |it| format!("the batch of offset {it}"));
                    return Err(self.corrupt(located, cursor, offset, expected, found));
                }
            }
        }
    }

    /// Reports a damaged batch, where the cursor stands, met on the way to `offset`.
    pub(super) fn corrupt(
        &self,
        located: &Located,
        cursor: &Cursor,
        offset: Offset,
        expected: String,
        found: impl std::fmt::Display,
    ) -> ReadError {
        let corruption = cursor.corruption(expected, found);
        let position = position_u32(cursor.position());
        let next_entry = located.with_index(|index| index.and_then(|index| index.offset_behind(position)));
        let resumes_at = next_entry.filter(|&next| next > offset).or(Some(located.end.offset));
        self.report(&corruption);
        ReadError::Corrupt { corruption, resumes_at }
    }

    /// Logs and counts corruption.
    pub(super) fn report(&self, corruption: &Corruption) {
        let Corruption { file, position, expected, found } = corruption;
        tracing::error!(file = %file.display(), position, expected, found, "corruption");
        self.storage.metrics().corruptions.add(1);
    }
}

fn holds(batch: &RecordBatch<'_>, offset: Offset) -> bool {
    (batch.base_offset()..=batch.last_offset()).contains(&offset)
}
