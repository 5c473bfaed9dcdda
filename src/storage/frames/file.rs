//! The files of a frame log: making, reading, settling, appending, finding.
//!
//! A file gets its name after its content and its length are durable. What [`open_newest`] returns is durable too: the last
//! write of an earlier process may only have been in a cache, so it is written once more. From the end of the log to the end
//! of the file there are zeros, made durable before anything is appended there, so that an append needs no allocation.
//!
//! One file is open at a time and its owner makes one call at a time; the queue in front is the matter of the module above.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::format::{FRAMES_START, FileHeader, Scan, WRITE_BYTES_MAX, put_frame, scan};
use super::{OpenError, Replayed};
use crate::runtime::directory::{self, EntryKind};
use crate::runtime::{Buffer, Durability, File, OpenMode, Slice};
use crate::types::limits::BLOCK_BYTES;

/// Bytes of zeros that are written ahead of the log at a time, so that an append lands on blocks that need no allocation.
/// Metadata changes are rare: this is room for some thousand of them, and costs an idle broker 256 KiB of disk.
pub(super) const SPACE_STEP_BYTES: usize = 256 << 10;
/// Bytes of a file at most: a bound on what a start takes into memory. A cluster of 100 000 partitions has a snapshot of 20 MB.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 30;
/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

const _: () = assert!(SPACE_STEP_BYTES.is_multiple_of(BLOCK_BYTES) && FRAMES_START < SPACE_STEP_BYTES);

/// The file that is appended to. The writer takes it while it writes.
pub(super) struct Active {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) header: FileHeader,
    /// Where the next write goes.
    pub(super) end: u64,
    /// The length of the file; all of it from `end` on is zeros, durably.
    space: u64,
    pub(super) next_number: u64,
}

/// Opens the newest file in `directory`, settles it, and removes older and unfinished ones.
pub(super) async fn open_newest(directory: &Path) -> Result<(Active, Replayed), OpenError> {
    let Some((sequence, older)) = find_newest(directory).await? else {
        return Err(OpenError::Missing { directory: directory.to_path_buf() });
    };
    let path = directory.join(file_name(sequence));
    let (file, content) = read_file(&path).await?;
    let header = FileHeader::decode(&content);
    let header = header.map_err(|source| OpenError::Header { file: path.clone(), source })?;
    let corrupt = |position: usize, expected: String, found: String| OpenError::Corrupt {
        file: path.clone(),
        position: position as u64,
        expected,
        found,
    };
    if header.sequence != sequence {
        return Err(corrupt(0, format!("sequence {sequence}"), format!("sequence {}", header.sequence)));
    }
    let scan = scan(&content, &header).map_err(|bad| corrupt(bad.position, bad.expected, bad.found))?;
    settle(&file, &content, &scan).await.map_err(|source| io_error("write", &path, source))?;
    for name in older {
        remove(&directory.join(name)).await?;
    }
    directory::sync(directory).await.map_err(|source| io_error("sync", directory, source))?;

    let (end, space, next_number) = (scan.next_write() as u64, content.len() as u64, scan.next_number);
    let active = Active { file, path, header, end, space, next_number };
    let content = Bytes::from(content);
    let cut = |ranges: Vec<Range<usize>>| ranges.into_iter().map(|range| content.slice(range)).collect();
    let torn_bytes = scan.torn_to.map_or(0, |torn_to| torn_to - scan.end);
    let replayed = Replayed { snapshot: cut(scan.snapshot), frames: cut(scan.frames), torn_bytes };
    Ok((active, replayed))
}

/// Why a write did not happen.
pub(super) enum Failure {
    /// The disk is full. Nothing was written.
    NoRoom(io::Error),
    /// The file would exceed [`FILE_BYTES_MAX`]. Nothing was written.
    Outgrown,
    /// Anything may have been written.
    Broken(io::Error),
}

impl Active {
    /// Writes the frames of one group durably.
    pub(super) async fn append(&mut self, payloads: &[&[u8]]) -> Result<(), Failure> {
        let first = self.next_number;
        let mut bytes = Vec::new();
        for (number, payload) in (first..).zip(payloads) {
            put_frame(&mut bytes, self.header.salt, number, first, payload);
        }
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        assert!(bytes.len() <= WRITE_BYTES_MAX, "{} bytes in one write", bytes.len());
        let end = self.end + bytes.len() as u64;
        self.make_room(end).await?;
        write(&self.file, self.end, &bytes, Durability::Durable).await.map_err(Failure::Broken)?;
        self.end = end;
        self.next_number += payloads.len() as u64;
        Ok(())
    }

    /// Extends the file with durable zeros in whole steps until it is at least `length` bytes long.
    async fn make_room(&mut self, length: u64) -> Result<(), Failure> {
        if length <= self.space {
            return Ok(());
        }
        let step = SPACE_STEP_BYTES as u64;
        let space = length.next_multiple_of(step);
        if space > FILE_BYTES_MAX {
            return Err(Failure::Outgrown);
        }
        self.file.allocate(self.space, space - self.space).await.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::NoRoom(error),
            _ => Failure::Broken(error),
        })?;
        zero(&self.file, self.space, space).await.map_err(Failure::Broken)?;
        self.file.sync().await.map_err(Failure::Broken)?;
        self.space = space;
        Ok(())
    }
}

/// Writes `bytes`, whole blocks, at `position`.
async fn write(file: &File, position: u64, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let mut buffer = Buffer::with_capacity(bytes.len());
    buffer.append(bytes);
    file.write_at(position, vec![buffer.freeze()], durability).await.0
}

/// Writes zeros from `start` to `end`, both on block boundaries. Not durable.
async fn zero(file: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = Buffer::with_capacity(SPACE_STEP_BYTES);
    buffer.append_zeros(SPACE_STEP_BYTES);
    let zeros: Slice = buffer.freeze();
    for position in (start..end).step_by(SPACE_STEP_BYTES) {
        let bytes = usize::try_from(end - position).map_or(SPACE_STEP_BYTES, |rest| rest.min(SPACE_STEP_BYTES));
        file.write_at(position, vec![zeros.slice(0..bytes)], Durability::Written).await.0?;
    }
    Ok(())
}

/// Makes what a scan found durable: the last write once more, since it may only have been in a cache, and zeros where its
/// torn end was.
async fn settle(file: &File, content: &[u8], scan: &Scan) -> io::Result<()> {
    let start = scan.last_write;
    let end = scan.torn_to.unwrap_or(scan.end).next_multiple_of(BLOCK_BYTES);
    let mut bytes = content[start..scan.end].to_vec();
    bytes.resize(end - start, 0);
    for (index, piece) in bytes.chunks(READ_BYTES).enumerate() {
        write(file, (start + index * READ_BYTES) as u64, piece, Durability::Durable).await?;
    }
    // The length, and whatever else an earlier process left to the kernel.
    file.sync().await
}

/// Why a new file could not be made.
pub(super) enum MakeError {
    /// It has no name that a start would look at.
    Before { action: &'static str, path: PathBuf, source: io::Error },
    /// It may have its name already.
    After { action: &'static str, path: PathBuf, source: io::Error },
}

impl MakeError {
    pub(super) fn into_open(self) -> OpenError {
        match self {
            MakeError::Before { action, path, source } | MakeError::After { action, path, source } => {
                OpenError::Io { action, path, source }
            }
        }
    }
}

/// Makes the file of `header` with `snapshot`, durable under its name. The snapshot's extent in `header` is filled in.
pub(super) async fn make_file(
    directory: &Path,
    mut header: FileHeader,
    snapshot: &[Vec<u8>],
) -> Result<Active, MakeError> {
    let mut bytes = vec![0; FRAMES_START];
    let first = header.first_number;
    for (number, payload) in (first..).zip(snapshot) {
        put_frame(&mut bytes, header.salt, number, first, payload);
    }
    let end = bytes.len();
    header.snapshot_end = end as u64;
    header.snapshot_frames = u32::try_from(snapshot.len()).expect("a snapshot has far fewer than 2^32 payloads");
    bytes[..FRAMES_START].copy_from_slice(&header.encode());
    let space = (end + 1).next_multiple_of(SPACE_STEP_BYTES);
    bytes.resize(space, 0);

    let path = directory.join(file_name(header.sequence));
    let fresh = path.with_extension("new");
    let before = |action| {
        let path = fresh.clone();
        move |source| MakeError::Before { action, path, source }
    };
    match directory::remove_file(&fresh).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(before("remove")(error)),
        _ => {}
    }
    let file = File::open(&fresh, OpenMode::Create).await.map_err(before("create"))?;
    file.allocate(0, space as u64).await.map_err(before("allocate"))?;
    for (index, piece) in bytes.chunks(READ_BYTES).enumerate() {
        let position = (index * READ_BYTES) as u64;
        write(&file, position, piece, Durability::Written).await.map_err(before("write"))?;
    }
    file.sync().await.map_err(before("sync"))?;
    let after = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| MakeError::After { action, path, source }
    };
    directory::rename(&fresh, &path).await.map_err(after("rename", &fresh))?;
    directory::sync(directory).await.map_err(after("sync", directory))?;
    let next_number = first + u64::from(header.snapshot_frames);
    let (end, space) = (end.next_multiple_of(BLOCK_BYTES) as u64, space as u64);
    Ok(Active { file, path, header, end, space, next_number })
}

fn file_name(sequence: u64) -> String {
    format!("{sequence:020}.log")
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { action, path: path.to_path_buf(), source }
}

pub(super) async fn remove(path: &Path) -> Result<(), OpenError> {
    directory::remove_file(path).await.map_err(|source| io_error("remove", path, source))
}

/// The sequence of the newest file in `directory`, and the names of older and unfinished ones.
async fn find_newest(directory: &Path) -> Result<Option<(u64, Vec<String>)>, OpenError> {
    let entries = directory::list(directory).await.map_err(|source| io_error("list", directory, source))?;
    let names = entries.into_iter().filter(|entry| entry.kind == EntryKind::File).map(|entry| entry.name);
    let (mut newest, mut older) = (None, Vec::new());
    for name in names {
        let sequence =
            name.strip_suffix(".log").filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok());
        match sequence {
            Some(sequence) => {
                // Names come sorted, so this one is newer than those before.
                older.extend(newest.replace(sequence).map(file_name));
            }
            None if name.ends_with(".new") => older.push(name),
            None => {}
        }
    }
    Ok(newest.map(|newest| (newest, older)))
}

/// Reads the whole file, which keeps open.
async fn read_file(path: &Path) -> Result<(File, Vec<u8>), OpenError> {
    let failed = |action| move |source| io_error(action, path, source);
    let file = File::open(path, OpenMode::Write).await.map_err(failed("open"))?;
    let bytes = file.length().await.map_err(failed("stat"))?;
    if bytes > FILE_BYTES_MAX {
        return Err(OpenError::TooLarge { file: path.to_path_buf(), bytes });
    }
    let mut content = Vec::new();
    while (content.len() as u64) < bytes {
        let buffer = Buffer::with_capacity(READ_BYTES);
        let (result, buffer) = file.read_at(content.len() as u64, READ_BYTES, buffer).await;
        result.map_err(failed("read"))?;
        if buffer.is_empty() {
            break;
        }
        content.extend_from_slice(&buffer);
    }
    // A read of a file that was cut within a block gives less than the block; the next write extends it.
    content.resize(content.len().next_multiple_of(BLOCK_BYTES), 0);
    Ok((file, content))
}
