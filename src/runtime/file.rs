//! Files of fixed, aligned blocks: the door to the disk.
//!
//! Every transfer is direct where the file system can (open(2), O_DIRECT): positions and lengths are multiples of
//! [`BLOCK_BYTES`] and memory comes from [`Buffer`]. A file stays open until its last operation has completed, also when
//! the handle or the waiting future was dropped; the operation owns its buffers until then.

use std::io;
use std::path::Path;

use super::context::{Backend, current, record};
use super::memory::{Buffer, Slice};
use super::{real, sim};
use crate::types::limits::BLOCK_BYTES;

/// How far a write has come when it returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The kernel has it: it survives the death of the process, not of the machine.
    Written,
    /// It lies on stable storage (pwritev2(2), RWF_DSYNC). Only this write: earlier ones need [`File::sync`].
    Durable,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; it must not exist. It is durable once it *and* its directory have been synced.
    Create,
}

#[derive(Clone)]
enum Handle {
    Real(real::File),
    Sim(sim::File),
}

/// An open file. Clones share it.
#[derive(Clone)]
pub struct File {
    handle: Handle,
}

impl File {
    /// Opens or creates `path`.
    ///
    /// # Errors
    /// As open(2): `NotFound`, `AlreadyExists`, `PermissionDenied`, no descriptors left (EMFILE) …
    pub async fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
        let handle = match current() {
            Backend::Real(shard) => Handle::Real(shard.open(path, mode).await?),
            Backend::Sim(shard) => Handle::Sim(shard.open(path, mode).await?),
        };
        Ok(File { handle })
    }

    /// Reads up to `bytes` bytes at `position` and appends them to `buffer`; fewer only at the end of the file.
    ///
    /// `position`, `bytes` and `buffer.len()` are multiples of [`BLOCK_BYTES`]; `buffer` has room for `bytes`. Returns the
    /// number of bytes that were read, and the buffer, also after an error.
    pub async fn read_at(&self, position: u64, bytes: usize, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        assert!(position.is_multiple_of(BLOCK_BYTES as u64) && bytes.is_multiple_of(BLOCK_BYTES));
        assert!(buffer.len().is_multiple_of(BLOCK_BYTES) && buffer.remaining() >= bytes);
        match &self.handle {
            Handle::Real(file) => file.read_at(position, bytes, buffer).await,
            Handle::Sim(file) => file.read_at(position, bytes, buffer).await,
        }
    }

    /// Writes the pieces one after the other at `position`, all of them or an error.
    ///
    /// `position` and the length of every piece are multiples of [`BLOCK_BYTES`] and every piece is aligned to it; the
    /// bytes do not change while the write is under way, since a [`Slice`] never changes. After an error any subset of the
    /// sectors may have been written. Gives the list back, emptied, for the next write.
    pub async fn write_at(
        &self,
        position: u64,
        pieces: Vec<Slice>,
        durability: Durability,
    ) -> (io::Result<()>, Vec<Slice>) {
        assert!(position.is_multiple_of(BLOCK_BYTES as u64));
        debug_assert!(pieces.iter().all(|piece| piece.is_aligned()));
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let (written, pieces) = match &self.handle {
            Handle::Real(file) => file.write_at(position, pieces, durability).await,
            Handle::Sim(file) => file.write_at(position, pieces, durability).await,
        };
        if written.is_ok() {
            record(|metrics| metrics.device_written_bytes.add(bytes as u64));
        }
        (written, pieces)
    }

    /// Makes everything durable that was written to this file, and its length (fsync(2)).
    ///
    /// After an error nothing is known about any write since the last success (it is not to be tried again).
    pub async fn sync(&self) -> io::Result<()> {
        match &self.handle {
            Handle::Real(file) => file.sync().await,
            Handle::Sim(file) => file.sync().await,
        }
    }

    /// Reserves space and extends the file to at least `position + bytes`; new bytes read as zeros (fallocate(2)).
    pub async fn allocate(&self, position: u64, bytes: u64) -> io::Result<()> {
        match &self.handle {
            Handle::Real(file) => file.allocate(position, bytes).await,
            Handle::Sim(file) => file.allocate(position, bytes).await,
        }
    }

    /// The length in bytes.
    pub async fn length(&self) -> io::Result<u64> {
        match &self.handle {
            Handle::Real(file) => file.length().await,
            Handle::Sim(file) => file.length().await,
        }
    }

    /// Cuts or extends (with zeros) the file to `bytes` (ftruncate(2)).
    pub async fn set_length(&self, bytes: u64) -> io::Result<()> {
        match &self.handle {
            Handle::Real(file) => file.set_length(bytes).await,
            Handle::Sim(file) => file.set_length(bytes).await,
        }
    }
}
