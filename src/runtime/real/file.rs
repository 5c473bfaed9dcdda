//! Files on the ring: open, transfers past the page cache, sync, size.
//!
//! Files are opened with O_DIRECT, so that the page cache holds none of their pages: with pages there, a durable write onto
//! allocated blocks is handed to a worker thread of the kernel at twice the cost. Pages that another program has left are
//! dropped when a file is opened for writing. Where the file system refuses O_DIRECT, files go through the page cache, and a
//! warning says so once.
//!
//! Sources: open(2), pwritev2(2) for RWF_DSYNC, fallocate(2), statx(2), posix_fadvise(2).
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::descriptor::Descriptor;
use super::operation::Memory;
use super::reserve;
use super::ring::Ring;
use super::slot::{Completion, Held, Orphan};
use crate::runtime::file::{Durability, OpenMode};
use crate::runtime::memory::{Buffer, Slice};
use crate::types::limits::BLOCK_BYTES;

/// Bytes of one transfer at most: below the kernel's own limit (MAX_RW_COUNT, 2 GiB less a page), and whole blocks.
pub(super) const TRANSFER_BYTES_MAX: u32 = 1 << 30;
/// Permissions of created files, before the umask.
const FILE_MODE: u32 = 0o644;

const _: () = assert!((TRANSFER_BYTES_MAX as usize).is_multiple_of(BLOCK_BYTES));

/// An open file. Clones share the descriptor.
#[derive(Clone)]
pub(crate) struct File {
    ring: Rc<Ring>,
    descriptor: Rc<Descriptor>,
}

/// A path for a system call.
pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// The working directory, to which relative paths are relative.
pub(super) fn here() -> types::Fd {
    types::Fd(libc::AT_FDCWD)
}

/// Opens `path` with exactly `flags`, closed on exec. Where no descriptor is left the shard's reserve gives one.
pub(super) async fn open_raw(ring: &Rc<Ring>, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    match try_open(ring, path, flags).await {
        Err(error) if reserve::is_want(&error) && ring.reserve().give() => try_open(ring, path, flags).await,
        opened => opened,
    }
}

async fn try_open(ring: &Rc<Ring>, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let from = c_path(path)?;
    let entry = opcode::OpenAt::new(here(), from.as_ptr()).flags(flags | libc::O_CLOEXEC).mode(FILE_MODE).build();
    let held = Held { descriptor: None, memory: Memory::Paths { _from: from, _to: None }, orphan: Orphan::Close };
    // SAFETY: the path's bytes are on the heap and held.
    let completion = unsafe { ring.start(entry, held) }.await;
    completion.count()?;
    // SAFETY: the operation has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(completion.result) })
}

impl File {
    /// Opens or creates `path`. `buffered` remembers whether the warning about a missing O_DIRECT was given.
    pub(super) async fn open(ring: &Rc<Ring>, path: &Path, mode: OpenMode, buffered: &Cell<bool>) -> io::Result<File> {
        let flags = match mode {
            OpenMode::Read => libc::O_RDONLY,
            OpenMode::Write => libc::O_RDWR,
            OpenMode::Create => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        };
        let fd = match open_raw(ring, path, flags | libc::O_DIRECT).await {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                if !buffered.replace(true) {
                    tracing::warn!(path = %path.display(), "the file system has no O_DIRECT: files go through the page cache");
                }
                // Some file systems create the file before they refuse the flag.
                open_raw(ring, path, flags & !libc::O_EXCL).await?
            }
            other => other?,
        };
        let file = File { ring: ring.clone(), descriptor: Rc::new(Descriptor::file(fd, Rc::downgrade(ring))) };
        if mode == OpenMode::Write {
            let entry = opcode::Fadvise::new(file.descriptor.target(), 0, libc::POSIX_FADV_DONTNEED).build();
            // Advice: where it is not taken, writes only cost more.
            let _ = file.run(entry, Memory::Nothing).await;
        }
        Ok(file)
    }

    /// Runs an operation on this file that ends by itself.
    async fn run(&self, entry: squeue::Entry, memory: Memory) -> Completion {
        let held = Held { descriptor: Some(self.descriptor.clone()), memory, orphan: Orphan::Finish };
        // SAFETY: the callers below point their entries into `memory`, whose variants lie on the heap, or nowhere.
        unsafe { self.ring.start(entry, held) }.await
    }

    /// See the facade. A count that is not whole blocks is the end of the file.
    pub(crate) async fn read_at(&self, position: u64, bytes: usize, mut buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let mut total = 0;
        while total < bytes {
            let wanted = u32::try_from(bytes - total).unwrap_or(TRANSFER_BYTES_MAX).min(TRANSFER_BYTES_MAX);
            let room = buffer.spare().as_mut_ptr();
            let entry = opcode::Read::new(self.descriptor.target(), room, wanted).offset(position + total as u64);
            let completion = self.run(entry.build(), Memory::Buffer(buffer)).await;
            let result = completion.count();
            buffer = completion.into_buffer();
            match result {
                Ok(count) => {
                    buffer.advance(count);
                    total += count;
                    if count == 0 || !count.is_multiple_of(BLOCK_BYTES) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(total), buffer)
    }

    /// See the facade.
    pub(crate) async fn write_at(
        &self,
        mut position: u64,
        pieces: Vec<Slice>,
        durability: Durability,
    ) -> (io::Result<()>, Vec<Slice>) {
        let flags = match durability {
            Durability::Written => 0,
            Durability::Durable => libc::RWF_DSYNC,
        };
        let mut transfer = self.ring.take_transfer();
        transfer.load_slices(pieces);
        let mut outcome = Ok(());
        while outcome.is_ok() && !transfer.is_done() {
            let entry = transfer.write(self.descriptor.target(), position, flags);
            let completion = self.run(entry, Memory::Transfer(transfer)).await;
            let result = completion.count();
            transfer = completion.into_transfer();
            match result {
                Ok(0) => outcome = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    transfer.advance(count);
                    position += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => outcome = Err(error),
            }
        }
        let pieces = transfer.take_slices();
        self.ring.give_transfer(transfer);
        (outcome, pieces)
    }

    /// See the facade.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        let entry = opcode::Fsync::new(self.descriptor.target()).build();
        self.run(entry, Memory::Nothing).await.count().map(drop)
    }

    /// See the facade.
    pub(crate) async fn allocate(&self, position: u64, bytes: u64) -> io::Result<()> {
        let entry = opcode::Fallocate::new(self.descriptor.target(), bytes).offset(position).build();
        self.run(entry, Memory::Nothing).await.count().map(drop)
    }

    /// See the facade.
    pub(crate) async fn length(&self) -> io::Result<u64> {
        // SAFETY: statx is a C struct of integers, for which all zeros is a value.
        let mut attributes: Box<libc::statx> = Box::new(unsafe { std::mem::zeroed() });
        let target = (&raw mut *attributes).cast::<types::statx>();
        let entry = opcode::Statx::new(self.descriptor.target(), c"".as_ptr(), target)
            .flags(libc::AT_EMPTY_PATH)
            .mask(libc::STATX_SIZE)
            .build();
        let completion = self.run(entry, Memory::Attributes(attributes)).await;
        completion.count()?;
        match completion.held.memory {
            Memory::Attributes(attributes) => Ok(attributes.stx_size),
            _ => unreachable!("started with attributes"),
        }
    }

    /// See the facade.
    pub(crate) async fn set_length(&self, bytes: u64) -> io::Result<()> {
        if self.ring.truncates() {
            let entry = opcode::Ftruncate::new(self.descriptor.target(), bytes).build();
            return self.run(entry, Memory::Nothing).await.count().map(drop);
        }
        let bytes = libc::off64_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: ftruncate takes two integers; the descriptor is open.
        let result = unsafe { libc::ftruncate64(self.descriptor.raw(), bytes) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
