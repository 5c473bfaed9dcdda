//! The append buffers of a log, which are its tail cache: a chain of buffers that the batches lie in as they lie in the file.
//!
//! ```text
//! file    | header | batches ............................ zeros |
//! chunks           | chunk 1 (full)  | chunk 2 (full)  | ch. 3 ..|
//! ```
//!
//! Each chunk begins on a block boundary of its segment, and all chunks of a segment but the last are full, so file position
//! and buffer position agree modulo the block size: writes and fetches take slices of the chunks, nothing is copied twice.
//! The last, partial block of a write goes out through a bounce block, since more bytes will be appended behind it while
//! the device reads. Pure memory: what may be released is the log's decision, the budget is the shard's.

use std::collections::VecDeque;

use super::format::FIRST_BATCH_AT;
use super::read::Slices;
use crate::runtime::{Buffer, Slice};
use crate::types::Offset;
use crate::types::limits::{BLOCK_BYTES, ZERO_TAIL_BYTES};

/// Bytes of the chunk that a silent log keeps: its partial tail block, which the next write begins with.
pub(super) const CHUNK_BYTES_MIN: usize = BLOCK_BYTES;
/// Bytes of the first chunk that a log grows into: a few small batches.
const CHUNK_BYTES_FIRST: usize = 4 * BLOCK_BYTES;
/// Bytes of a chunk at most, unless one batch needs more: a megabyte keeps a busy log at few pieces per write, and is what a
/// log that falls silent holds on to until another log wants it.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Bytes up to which chunks are powers of two, as the slabs that they lie in are.
const POWER_OF_TWO_BYTES_MAX: usize = 4 << 20;

/// A batch whose bytes all lie in the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TailBatch {
    pub base_offset: Offset,
    pub sequence: u64,
    pub position: u64,
    pub bytes: u32,
}

impl TailBatch {
    fn end(&self) -> u64 {
        self.position + u64::from(self.bytes)
    }

    fn place(&self) -> (u64, u64) {
        (self.sequence, self.position)
    }
}

struct Chunk {
    sequence: u64,
    /// Where it begins in its segment.
    start: u64,
    buffer: Buffer,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// The bytes `from..to` of the segment, as far as they lie here.
    fn slice(&self, from: u64, to: u64) -> Option<Slice> {
        let (from, to) = (from.max(self.start), to.min(self.end()));
        (from < to).then(|| self.buffer.slice(self.index(from)..self.index(to)))
    }

    fn index(&self, position: u64) -> usize {
        usize::try_from(position - self.start).expect("a position in this buffer")
    }
}

/// The chain.
pub(super) struct Tail {
    chunks: VecDeque<Chunk>,
    batches: VecDeque<TailBatch>,
    /// Bytes of memory that the chunks hold.
    memory_bytes: usize,
    chunk_bytes_next: usize,
}

/// How long a new chunk is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ChunkBytes {
    /// Less would not do.
    pub least: usize,
    /// What fits the log's pace.
    pub wished: usize,
}

/// What releasing chunks came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Release {
    /// So many bytes of memory are free; 0 if nothing is held that may ever go.
    Freed(usize),
    /// So many bytes are free, of chunks too small to be worth it; the one behind them is not durable yet.
    Part(usize),
    /// What is held is not durable yet.
    Busy,
}

/// What a read of the chain gives: whole batches, one behind the other.
pub(super) struct TailRead {
    pub slices: Slices,
    pub bytes: usize,
    /// The offset behind the last of them.
    pub end: Offset,
}

impl Tail {
    /// A chain that goes on behind `block`, the bytes of segment `sequence` from block boundary `start` to its end.
    pub(super) fn new(sequence: u64, start: u64, block: &[u8]) -> Tail {
        assert!(start >= FIRST_BATCH_AT && start.is_multiple_of(BLOCK_BYTES as u64) && block.len() < BLOCK_BYTES);
        let mut buffer = Buffer::with_capacity(CHUNK_BYTES_MIN);
        buffer.append(block);
        let memory_bytes = buffer.capacity();
        let chunks = VecDeque::from([Chunk { sequence, start, buffer }]);
        Tail { chunks, batches: VecDeque::new(), memory_bytes, chunk_bytes_next: CHUNK_BYTES_FIRST }
    }

    /// Bytes of memory that it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    fn last(&self) -> &Chunk {
        self.chunks.back().expect("a chain has a chunk")
    }

    /// The chunk that appending `bytes` bytes takes; `None` if they fit. A new segment begins with one of
    /// [`CHUNK_BYTES_MIN`] of its own.
    pub(super) fn chunk_for(&self, bytes: usize, new_segment: bool) -> Option<ChunkBytes> {
        let room = if new_segment { CHUNK_BYTES_MIN } else { self.last().buffer.remaining() };
        let missing = bytes.checked_sub(room).filter(|&missing| missing > 0)?;
        if missing > POWER_OF_TWO_BYTES_MAX {
            let least = missing.next_multiple_of(BLOCK_BYTES);
            return Some(ChunkBytes { least, wished: least });
        }
        let least = missing.next_power_of_two().max(BLOCK_BYTES);
        Some(ChunkBytes { least, wished: least.max(self.chunk_bytes_next) })
    }

    /// Goes on in segment `sequence`, where its first batch will lie.
    pub(super) fn begin_segment(&mut self, sequence: u64) {
        assert!(sequence > self.last().sequence);
        self.push_chunk(sequence, FIRST_BATCH_AT, Buffer::with_capacity(CHUNK_BYTES_MIN));
    }

    fn push_chunk(&mut self, sequence: u64, start: u64, buffer: Buffer) {
        self.memory_bytes += buffer.capacity();
        self.chunks.push_back(Chunk { sequence, start, buffer });
    }

    /// Appends a batch: its header, then the rest. `chunk_bytes` lies in what [`Tail::chunk_for`] said of their sum; 0 if it
    /// said that they fit.
    pub(super) fn append(&mut self, batch: TailBatch, header: &[u8], records: &[u8], chunk_bytes: usize) {
        let last = self.last();
        assert!(last.sequence == batch.sequence && last.end() == batch.position, "batches lie one behind the other");
        debug_assert_eq!(header.len() + records.len(), batch.bytes as usize);
        self.batches.push_back(batch);
        self.put(header, chunk_bytes);
        self.put(records, chunk_bytes);
    }

    fn put(&mut self, bytes: &[u8], chunk_bytes: usize) {
        let last = self.chunks.back_mut().expect("a chain has a chunk");
        let (here, rest) = bytes.split_at(bytes.len().min(last.buffer.remaining()));
        last.buffer.append(here);
        if rest.is_empty() {
            return;
        }
        let (sequence, start) = (last.sequence, last.end());
        assert!(start.is_multiple_of(BLOCK_BYTES as u64) && chunk_bytes >= rest.len());
        let mut buffer = Buffer::with_capacity(chunk_bytes);
        buffer.append(rest);
        self.chunk_bytes_next = (chunk_bytes * 2).clamp(CHUNK_BYTES_FIRST, CHUNK_BYTES_MAX);
        self.push_chunk(sequence, start, buffer);
    }

    /// The pieces of a write of segment `sequence` from block boundary `from` to byte `to`, zero tail included. Their lengths
    /// are whole blocks; at least 64 bytes behind `to` are zero. `zeros` is a block of zeros.
    pub(super) fn pieces(&self, sequence: u64, from: u64, to: u64, zeros: &Slice, pieces: &mut Vec<Slice>) {
        const BLOCK: u64 = BLOCK_BYTES as u64;
        assert!(from.is_multiple_of(BLOCK) && from <= to && zeros.len() == BLOCK_BYTES);
        let whole = to - to % BLOCK;
        let chunks = || self.chunks.iter().filter(|chunk| chunk.sequence == sequence);
        let before: usize = pieces.iter().map(|piece| piece.len()).sum();
        pieces.extend(chunks().filter_map(|chunk| chunk.slice(from, whole)));
        if whole < to {
            let chunk = chunks().find(|chunk| chunk.start <= whole && to <= chunk.end());
            let chunk = chunk.expect("what is not durable lies in the chain");
            let mut bounce = Buffer::with_capacity(BLOCK_BYTES);
            bounce.append(&chunk.buffer[chunk.index(whole)..chunk.index(to)]);
            bounce.append_zeros(bounce.remaining_in_block());
            pieces.push(bounce.freeze());
        }
        let written: usize = pieces.iter().map(|piece| piece.len()).sum::<usize>() - before;
        assert_eq!(written as u64, to.next_multiple_of(BLOCK) - from, "the chain holds all that is to be written");
        if to.next_multiple_of(BLOCK) - to < ZERO_TAIL_BYTES as u64 {
            pieces.push(zeros.clone());
        }
    }

    /// How far a write of segment `sequence` from `from` may go with `bytes_max` bytes of batches: whole batches, at least
    /// one. `None` if no batch of the segment begins at or behind `from`. Gives the position and the number of batches.
    pub(super) fn write_end(&self, sequence: u64, from: u64, bytes_max: u64) -> Option<u64> {
        let first = self.batches.partition_point(|batch| batch.place() < (sequence, from));
        let after = self.batches.partition_point(|batch| (batch.sequence, batch.end()) <= (sequence, from + bytes_max));
        let last = self.batches.get(after.max(first + 1) - 1)?;
        (last.sequence == sequence && last.position >= from).then(|| last.end())
    }

    /// The offset behind the batch that ends at `end` of segment `sequence`; `log_end` for the last one.
    pub(super) fn offset_at(&self, sequence: u64, end: u64, log_end: Offset) -> Offset {
        let next = self.batches.partition_point(|batch| batch.place() < (sequence, end));
        self.batches.get(next).map_or(log_end, |batch| batch.base_offset)
    }

    /// Whole batches from the one that holds `from`, up to offset `end` and to `bytes_max` bytes; the first one is given
    /// whatever its length if `first_whole`. `None` if the batch of `from` does not lie in the chain.
    pub(super) fn read(
        &self,
        from: Offset,
        end: Offset,
        log_end: Offset,
        bytes_max: usize,
        first_whole: bool,
    ) -> Option<TailRead> {
        let first = self.batches.partition_point(|batch| batch.base_offset <= from).checked_sub(1)?;
        let mut read = TailRead { slices: Slices::new(), bytes: 0, end: self.batches[first].base_offset };
        let mut after = first;
        while let Some(batch) = self.batches.get(after) {
            let next = self.batches.get(after + 1).map_or(log_end, |next| next.base_offset);
            let fits = read.bytes + batch.bytes as usize <= bytes_max || (first_whole && after == first);
            if next > end || !fits {
                break;
            }
            read.bytes += batch.bytes as usize;
            read.end = next;
            after += 1;
        }
        self.collect(first, after, &mut read.slices);
        Some(read)
    }

    /// The bytes of the batches `first..after`, in as few slices as the chunks allow.
    fn collect(&self, first: usize, after: usize, slices: &mut Slices) {
        let Some(last) = after.checked_sub(1).filter(|&last| last >= first) else { return };
        let (first, last) = (self.batches[first], self.batches[last]);
        let begin = self.chunks.partition_point(|chunk| (chunk.sequence, chunk.end()) <= first.place());
        for chunk in self.chunks.range(begin..) {
            if (chunk.sequence, chunk.start) >= (last.sequence, last.end()) {
                break;
            }
            let from = if chunk.sequence == first.sequence { first.position } else { 0 };
            let to = if chunk.sequence == last.sequence { last.end() } else { u64::MAX };
            slices.extend(chunk.slice(from, to));
        }
    }

    /// Releases chunks that lie before `durable` (segment, position): the oldest one that is worth it, and smaller ones before
    /// it; if it is the last one, all but its partial block.
    pub(super) fn release(&mut self, durable: (u64, u64)) -> Release {
        let before = self.memory_bytes;
        let mut stopped = false;
        loop {
            let front = self.chunks.front().expect("a chain has a chunk");
            if self.chunks.len() == 1 && front.buffer.capacity() == CHUNK_BYTES_MIN {
                break;
            }
            if (front.sequence, front.end()) > durable {
                stopped = true;
                break;
            }
            let worth_it = front.buffer.capacity() > CHUNK_BYTES_MIN;
            if self.chunks.len() == 1 {
                self.shrink();
            } else {
                let chunk = self.chunks.pop_front().expect("it has two");
                self.memory_bytes -= chunk.buffer.capacity();
            }
            if worth_it {
                break;
            }
        }
        let front = self.chunks.front().expect("a chain has a chunk");
        let kept = (front.sequence, front.start);
        while self.batches.front().is_some_and(|batch| batch.place() < kept) {
            self.batches.pop_front();
        }
        match before - self.memory_bytes {
            0 if stopped => Release::Busy,
            bytes if stopped => Release::Part(bytes),
            bytes => Release::Freed(bytes),
        }
    }

    /// Keeps of the only chunk what lies in its last, partial block.
    fn shrink(&mut self) {
        let only = self.last();
        let start = only.end() - only.end() % BLOCK_BYTES as u64;
        let (sequence, kept) = (only.sequence, only.index(start));
        let mut buffer = Buffer::with_capacity(CHUNK_BYTES_MIN);
        buffer.append(&only.buffer[kept..]);
        self.chunks.clear();
        self.memory_bytes = 0;
        self.chunk_bytes_next = CHUNK_BYTES_FIRST;
        self.push_chunk(sequence, start, buffer);
    }
}
