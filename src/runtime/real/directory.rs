//! Names of files on the ring, and the three calls that have no operation there: listing, free space, locks.
//!
//! Those three block the shard for as long as they take; they belong to start, to slow periodic checks and to recovery.
//!
//! Sources: openat(2), renameat2(2), unlinkat(2), mkdirat(2), statvfs(3), flock(2).
#![allow(unsafe_code)]

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::file::{c_path, here, open_raw};
use super::operation::Memory;
use super::ring::Ring;
use super::slot::{Held, Orphan};
use crate::runtime::directory::{Entry, EntryKind, Space};

/// Permissions of created directories, before the umask.
const DIRECTORY_MODE: u32 = 0o755;

async fn run(ring: &Rc<Ring>, entry: squeue::Entry, memory: Memory) -> io::Result<()> {
    let held = Held { descriptor: None, memory, orphan: Orphan::Finish };
    // SAFETY: the callers below point their entries into the paths in `memory`, whose bytes lie on the heap.
    unsafe { ring.start(entry, held) }.await.count().map(drop)
}

pub(super) async fn create(ring: &Rc<Ring>, path: &Path) -> io::Result<()> {
    let from = c_path(path)?;
    let entry = opcode::MkDirAt::new(here(), from.as_ptr()).mode(DIRECTORY_MODE).build();
    run(ring, entry, Memory::Paths { _from: from, _to: None }).await
}

pub(super) async fn rename(ring: &Rc<Ring>, from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    let entry = opcode::RenameAt::new(here(), from.as_ptr(), here(), to.as_ptr()).build();
    run(ring, entry, Memory::Paths { _from: from, _to: Some(to) }).await
}

pub(super) async fn unlink(ring: &Rc<Ring>, path: &Path, flags: i32) -> io::Result<()> {
    let from = c_path(path)?;
    let entry = opcode::UnlinkAt::new(here(), from.as_ptr()).flags(flags).build();
    run(ring, entry, Memory::Paths { _from: from, _to: None }).await
}

pub(super) async fn sync(ring: &Rc<Ring>, path: &Path) -> io::Result<()> {
    let fd = open_raw(ring, path, libc::O_RDONLY | libc::O_DIRECTORY).await?;
    let descriptor = Rc::new(super::descriptor::Descriptor::file(fd, Rc::downgrade(ring)));
    let entry = opcode::Fsync::new(types::Fd(descriptor.raw())).build();
    let held = Held { descriptor: Some(descriptor), memory: Memory::Nothing, orphan: Orphan::Finish };
    // SAFETY: the entry has no addresses.
    unsafe { ring.start(entry, held) }.await.count().map(drop)
}

pub(super) fn list(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for found in fs::read_dir(path)? {
        let found = found?;
        let kind = match found.file_type()? {
            kind if kind.is_file() => EntryKind::File,
            kind if kind.is_dir() => EntryKind::Directory,
            _ => EntryKind::Other,
        };
        entries.push(Entry { name: found.file_name().to_string_lossy().into_owned(), kind });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

pub(super) fn space(path: &Path) -> io::Result<Space> {
    let path = c_path(path)?;
    // SAFETY: statvfs is a C struct of integers, for which all zeros is a value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: reads the path, which is terminated, and writes the struct.
    if unsafe { libc::statvfs(path.as_ptr(), &mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Space { total_bytes: bytes(found.f_blocks), free_bytes: bytes(found.f_bavail) })
}

/// A locked file; unlocked when it is closed for the last time.
///
/// The ring holds it too. A killed process is gone before its last writes are: with the ring, the lock outlives them, so
/// that nobody reads or repairs a directory into which a dead process still writes.
pub(crate) struct Lock {
    _file: fs::File,
    ring: Rc<Ring>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.ring.let_go() {
            tracing::warn!(%error, "the ring keeps its lock until it ends");
        }
    }
}

impl Lock {
    /// Bytes of another holder's note that are read at most.
    const NOTE_BYTES_MAX: u64 = 256;

    pub(super) fn take(ring: &Rc<Ring>, path: &Path, note: &str) -> io::Result<Lock> {
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_CLOEXEC).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.take(Self::NOTE_BYTES_MAX).read_to_string(&mut holder)?;
                return Err(io::Error::new(io::ErrorKind::WouldBlock, holder.trim().to_owned()));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{note}")?;
        ring.hold(file.as_fd())?;
        Ok(Lock { _file: file, ring: ring.clone() })
    }
}
