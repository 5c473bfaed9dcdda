//! Directories: names of files, and when a name is durable.
//!
//! A name that was created, renamed or removed is durable once its directory has been synced ([`sync`]); a rename within
//! one directory is atomic. Whole small files are replaced by [`replace`] and read by [`read`].

use std::io;
use std::path::{Path, PathBuf};

use super::context::{Backend, current};
use super::file::{Durability, File, OpenMode};
use super::memory::Buffer;
use crate::types::limits::BLOCK_BYTES;

/// What stands under a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link, socket or device: nothing of ours.
    Other,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The name, without its directory. Names that are not UTF-8 are given with replacement characters.
    pub name: String,
    /// What stands under it.
    pub kind: EntryKind,
}

macro_rules! forward {
    ($shard:ident => $call:expr) => {
        match current() {
            Backend::Real($shard) => $call,
            Backend::Sim($shard) => $call,
        }
    };
}

/// Creates one directory; its parent exists.
///
/// # Errors
/// As mkdir(2), among them `AlreadyExists`.
pub async fn create(path: &Path) -> io::Result<()> {
    forward!(shard => shard.create_directory(path).await)
}

/// The entries, sorted by name; `.` and `..` are left out.
pub async fn list(path: &Path) -> io::Result<Vec<Entry>> {
    forward!(shard => shard.list_directory(path).await)
}

/// Makes the names in the directory durable (fsync(2) on it).
pub async fn sync(path: &Path) -> io::Result<()> {
    forward!(shard => shard.sync_directory(path).await)
}

/// Gives a file or directory another name on the same file system, replacing a file of that name (rename(2)).
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    forward!(shard => shard.rename(from, to).await)
}

/// Removes a file's name; its space is freed when it is no longer open (unlink(2)).
pub async fn remove_file(path: &Path) -> io::Result<()> {
    forward!(shard => shard.remove_file(path).await)
}

/// Removes an empty directory (rmdir(2)).
pub async fn remove(path: &Path) -> io::Result<()> {
    forward!(shard => shard.remove_directory(path).await)
}

/// The size of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Bytes of it in all.
    pub total_bytes: u64,
    /// Bytes that an unprivileged user may still write.
    pub free_bytes: u64,
}

/// The size of the file system that holds `path` (statvfs(3)).
pub async fn space(path: &Path) -> io::Result<Space> {
    forward!(shard => shard.space(path).await)
}

/// Bytes of the file system that an unprivileged user may still write.
pub async fn free_bytes(path: &Path) -> io::Result<u64> {
    space(path).await.map(|space| space.free_bytes)
}

/// The path from the root of the file system, links not followed.
///
/// # Errors
/// If `path` is relative and the working directory is gone.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    match current() {
        Backend::Real(_) => std::path::absolute(path),
        Backend::Sim(_) => Ok(path.to_path_buf()),
    }
}

/// An exclusive lock on a file, held until it is dropped or the process ends (flock(2)).
pub struct Lock {
    _held: Box<dyn std::any::Any>,
}

/// Creates `path` if needed, locks it and writes `note` and a line feed into it.
///
/// # Errors
/// `WouldBlock` with the other holder's note as its text when it is locked.
pub async fn lock(path: &Path, note: &str) -> io::Result<Lock> {
    let held: Box<dyn std::any::Any> = forward!(shard => Box::new(shard.lock(path, note).await?));
    Ok(Lock { _held: held })
}

/// Replaces the small file `path` durably and atomically by `content`: either the old or the new one is there after a crash.
pub async fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut fresh: PathBuf = path.to_path_buf();
    fresh.as_mut_os_string().push(".new");
    match remove_file(&fresh).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::open(&fresh, OpenMode::Create).await?;
    let mut buffer = Buffer::with_capacity(content.len().next_multiple_of(BLOCK_BYTES));
    buffer.append(content);
    buffer.append_zeros(buffer.remaining_in_block());
    file.write_at(0, vec![buffer.freeze()], Durability::Written).await.0?;
    file.set_length(content.len() as u64).await?;
    file.sync().await?;
    rename(&fresh, path).await?;
    sync(directory).await
}

/// Reads the whole file `path`, at most `bytes_max` bytes.
///
/// # Errors
/// `NotFound`; `FileTooLarge` if it is longer.
pub async fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path, OpenMode::Read).await?;
    let length = file.length().await?;
    let length = usize::try_from(length).ok().filter(|&bytes| bytes <= bytes_max);
    let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
    let rounded = length.next_multiple_of(BLOCK_BYTES);
    let (result, buffer) = file.read_at(0, rounded, Buffer::with_capacity(rounded)).await;
    result?;
    Ok(buffer[..length.min(buffer.len())].to_vec())
}
