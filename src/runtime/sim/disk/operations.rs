//! File and directory operations as tasks see them: submitted to the node's disk, completed after a time of the seed's choice.
//!
//! An operation belongs to the disk once it is submitted: it completes also when its future was dropped. An operation of a
//! process that has died returns an error, which nobody but a test that kept a handle can see.

use std::any::Any;
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::super::World;
use super::super::clock::Action;
use super::super::fault::{DiskFault, Operation};
use super::super::node::Shard;
use super::super::random::{PerMillion, Random};
use super::super::trace::Kind;
use super::contents::{Block, Write};
use super::names::Inode;
use super::{BLOCK, Disk, input_output_error, no_space};
use crate::runtime::directory::{Entry, EntryKind, Space};
use crate::runtime::file::{Durability, OpenMode};
use crate::runtime::memory::{Buffer, Slice};
use crate::runtime::sync::{Receiver, oneshot};
use crate::types::limits::BLOCK_BYTES;

/// One operation in a hundred takes this many times as long: a disk that collects garbage, a journal that commits.
const OUTLIER_CHANCE: PerMillion = PerMillion(10_000);
const OUTLIER_FACTOR: u64 = 30;

/// Nanoseconds that an operation takes on a healthy disk, by the order of a data-centre SSD.
fn latency(operation: Operation, bytes: u64, random: &mut Random) -> u64 {
    let time = match operation {
        Operation::Read => random.within(20_000..=150_000) + bytes / 2,
        Operation::Write => random.within(10_000..=150_000) + bytes,
        Operation::Sync => random.within(100_000..=2_000_000),
        Operation::Reserve => random.within(5_000..=100_000),
        Operation::Names => random.within(5_000..=80_000),
    };
    if random.happens(OUTLIER_CHANCE) { time * OUTLIER_FACTOR } else { time }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the process of this handle has ended")
}

/// What an operation is, for its time, its faults and the trace.
#[derive(Clone, Copy)]
struct Request<'a> {
    operation: Operation,
    kind: Kind,
    path: &'a str,
    bytes: u64,
    content: u64,
}

fn names_request(path: &Path) -> Request<'_> {
    let path = path.to_str().unwrap_or_default();
    Request { operation: Operation::Names, kind: Kind::Metadata, path, bytes: 0, content: checksum(path.as_bytes()) }
}

fn checksum(bytes: &[u8]) -> u64 {
    u64::from(crc32c::crc32c(bytes))
}

impl Shard {
    /// Submits an operation. `start` gets the disk, the fault that was drawn and puts the operation under way.
    fn submit<T>(
        &self,
        request: Request<'_>,
        start: impl FnOnce(&mut Disk, Option<DiskFault>, crate::runtime::sync::Sender<T>) -> u64,
    ) -> io::Result<Receiver<T>> {
        let world = self.world();
        let disk = world.disk(self.process.node).ok_or(io::ErrorKind::Unsupported)?;
        if !self.process.is_alive() {
            return Err(gone());
        }
        let Request { operation, kind, path, bytes, content } = request;
        let (sender, receiver) = oneshot();
        let (number, delay) = {
            let disk = &mut *disk.borrow_mut();
            let fault = disk.faults.draw(operation, path, &mut disk.random);
            if let Some(fault) = fault {
                world.record(Kind::Fault, self.process.node, fault as u64, checksum(path.as_bytes()));
                world.count(|counters| match fault {
                    DiskFault::BitFlip | DiskFault::MisdirectedWrite => counters.corruptions += 1,
                    _ => counters.disk_errors += 1,
                });
            }
            let delay = latency(operation, bytes, &mut disk.random) * u64::from(disk.faults.rates.slowdown.max(1));
            (start(disk, fault, sender), delay)
        };
        world.record(kind, self.process.node, bytes, content);
        let finish = Box::new(move |_: &Rc<World>| disk.borrow_mut().finish(number));
        world.clock.schedule(delay, Action::Run(finish));
        world.burn_fuse(self.process.node, delay);
        Ok(receiver)
    }

    /// Runs `effect` on the disk as one operation that takes effect when it completes. A drawn fault replaces it by an error.
    async fn operate<T: 'static>(
        &self,
        request: Request<'_>,
        effect: impl FnOnce(&mut Disk) -> io::Result<T> + 'static,
    ) -> io::Result<T> {
        let receiver = self.submit(request, |disk, fault, sender| {
            disk.begin(Box::new(move |disk| {
                sender.send(match fault {
                    None => effect(disk),
                    Some(DiskFault::NoSpace) => Err(no_space()),
                    Some(_) => Err(input_output_error()),
                });
            }))
        })?;
        receiver.await.unwrap_or_else(|| Err(gone()))
    }

    pub(in crate::runtime) async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<File> {
        let owned = path.to_path_buf();
        let open = move |disk: &mut Disk| {
            let inode = match mode {
                OpenMode::Create => disk.create_file(&owned)?,
                OpenMode::Read | OpenMode::Write => disk.find_file(&owned)?,
            };
            let open = disk.files.get(&inode).map(|file| file.open.clone());
            Ok((inode, open.ok_or(io::ErrorKind::NotFound)?))
        };
        let (inode, keeps_open) = self.operate(names_request(path), open).await?;
        let path = path.to_str().unwrap_or_default().into();
        Ok(File { shard: Rc::new(self.clone()), inode, path, writable: mode != OpenMode::Read, keeps_open })
    }

    pub(in crate::runtime) async fn create_directory(&self, path: &Path) -> io::Result<()> {
        let owned = path.to_path_buf();
        self.operate(names_request(path), move |disk| disk.create_directory(&owned)).await
    }

    pub(in crate::runtime) async fn list_directory(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let owned = path.to_path_buf();
        let list = move |disk: &mut Disk| {
            let directory = disk.names.find_directory(&owned)?;
            let entry = |(name, inode): (&String, Inode)| {
                let kind = if disk.names.is_directory(inode) { EntryKind::Directory } else { EntryKind::File };
                Entry { name: name.clone(), kind }
            };
            Ok(disk.names.entries(directory).map(entry).collect())
        };
        self.operate(names_request(path), list).await
    }

    pub(in crate::runtime) async fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let world = self.world();
        let disk = world.disk(self.process.node).ok_or(io::ErrorKind::Unsupported)?;
        let (directory, mark) = {
            let disk = disk.borrow();
            (disk.names.find_directory(path)?, disk.names.mark())
        };
        let request = Request { operation: Operation::Names, kind: Kind::Sync, ..names_request(path) };
        let sync = move |disk: &mut Disk| {
            disk.names.harden(directory, mark);
            disk.sweep();
            Ok(())
        };
        self.operate(request, sync).await?;
        world.count(|counters| counters.directory_syncs += 1);
        Ok(())
    }

    pub(in crate::runtime) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (source, target) = (from.to_path_buf(), to.to_path_buf());
        self.operate(names_request(from), move |disk| disk.rename(&source, &target)).await
    }

    pub(in crate::runtime) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let owned = path.to_path_buf();
        self.operate(names_request(path), move |disk| disk.remove_file(&owned)).await
    }

    pub(in crate::runtime) async fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let owned = path.to_path_buf();
        self.operate(names_request(path), move |disk| disk.remove_directory(&owned)).await
    }

    pub(in crate::runtime) async fn space(&self, path: &Path) -> io::Result<Space> {
        let owned = path.to_path_buf();
        let space = move |disk: &mut Disk| disk.names.find(&owned).map(|_| disk.space());
        self.operate(names_request(path), space).await
    }

    pub(in crate::runtime) async fn lock(&self, path: &Path, note: &str) -> io::Result<Lock> {
        let (owned, note) = (path.to_path_buf(), note.to_owned());
        let held = self.operate(names_request(path), move |disk| disk.lock(&owned, &note)).await?;
        Ok(Lock { _held: held })
    }
}

/// A lock on a file; the disk watches whether it is alive.
pub(in crate::runtime) struct Lock {
    _held: Rc<dyn Any>,
}

/// An open file of a simulated process.
#[derive(Clone)]
pub(in crate::runtime) struct File {
    shard: Rc<Shard>,
    inode: Inode,
    path: Rc<str>,
    writable: bool,
    /// The disk counts the clones to know whether the file is open.
    keeps_open: Rc<()>,
}

impl File {
    fn request(&self, operation: Operation, kind: Kind, bytes: u64, content: u64) -> Request<'_> {
        Request { operation, kind, path: &self.path, bytes, content }
    }

    pub(in crate::runtime) async fn read_at(
        &self,
        position: u64,
        bytes: usize,
        buffer: Buffer,
    ) -> (io::Result<usize>, Buffer) {
        let request = self.request(Operation::Read, Kind::Read, bytes as u64, position);
        let (inode, open) = (self.inode, self.keeps_open.clone());
        let submitted = self.shard.submit(request, |disk, fault, sender| {
            disk.begin(Box::new(move |disk| {
                let mut buffer = buffer;
                let result = read(disk, inode, position, bytes, fault, &mut buffer);
                drop(open);
                sender.send((result, buffer));
            }))
        });
        let completed = match submitted {
            Ok(receiver) => receiver.await,
            Err(_) => None,
        };
        self.shard.world().count(|counters| counters.reads += 1);
        completed.unwrap_or_else(|| (Err(gone()), Buffer::with_capacity(bytes)))
    }

    pub(in crate::runtime) async fn write_at(
        &self,
        position: u64,
        mut pieces: Vec<Slice>,
        durability: Durability,
    ) -> (io::Result<()>, Vec<Slice>) {
        assert!(pieces.iter().all(Slice::is_aligned), "{}: a piece of a write is not aligned", self.path);
        if !self.writable {
            return (Err(io::ErrorKind::PermissionDenied.into()), Vec::new());
        }
        let mut content = 0_u32;
        let mut blocks: Vec<Block> = Vec::new();
        for piece in pieces.drain(..) {
            content = crc32c::crc32c_append(content, &piece);
            let whole = piece.as_chunks::<BLOCK_BYTES>().0.iter();
            blocks.extend(whole.map(|block| Block::new(*block)));
        }
        let bytes = (blocks.len() * BLOCK_BYTES) as u64;
        self.shard.world().count(|counters| {
            counters.writes += 1;
            counters.write_bytes += bytes;
            counters.writes_durable += u64::from(durability == Durability::Durable);
        });
        let content = position.rotate_left(32) ^ u64::from(content);
        let request = self.request(Operation::Write, Kind::Write, bytes, content);
        let (inode, open) = (self.inode, self.keeps_open.clone());
        let submitted = self.shard.submit(request, |disk, fault, sender| {
            if let Err(error) = disk.reserve(inode, position, bytes) {
                return disk.begin(Box::new(move |_| sender.send(Err(error))));
            }
            disk.begin_write(inode, Write { first: position / BLOCK, blocks, durability }, move |disk, number| {
                let result = finish_write(disk, inode, number, bytes, fault);
                drop(open);
                sender.send(result);
            })
        });
        let result = match submitted {
            Ok(receiver) => receiver.await.unwrap_or_else(|| Err(gone())),
            Err(error) => Err(error),
        };
        (result, pieces)
    }

    pub(in crate::runtime) async fn sync(&self) -> io::Result<()> {
        let inode = self.inode;
        let request = self.request(Operation::Sync, Kind::Sync, 0, checksum(self.path.as_bytes()));
        let open = self.keeps_open.clone();
        let receiver = self.shard.submit(request, |disk, fault, sender| {
            let mark = disk.files.get(&inode).map_or(0, |file| file.contents.mark());
            disk.begin(Box::new(move |disk| {
                let Disk { files, random, .. } = disk;
                let result = match (files.get_mut(&inode), fault) {
                    (None, _) => Err(io::ErrorKind::NotFound.into()),
                    (Some(file), None) => {
                        file.contents.harden(mark);
                        Ok(())
                    }
                    (Some(file), Some(_)) => {
                        file.contents.doom(mark, random);
                        Err(input_output_error())
                    }
                };
                drop(open);
                sender.send(result);
            }))
        })?;
        receiver.await.unwrap_or_else(|| Err(gone()))?;
        self.shard.world().count(|counters| counters.syncs += 1);
        Ok(())
    }

    pub(in crate::runtime) async fn allocate(&self, position: u64, bytes: u64) -> io::Result<()> {
        let inode = self.inode;
        let allocate = move |disk: &mut Disk| {
            disk.reserve(inode, position, bytes)?;
            disk.contents(inode)?.extend(position + bytes);
            Ok(())
        };
        self.change(Kind::Allocate, position.rotate_left(32) ^ bytes, allocate).await
    }

    pub(in crate::runtime) async fn length(&self) -> io::Result<u64> {
        let inode = self.inode;
        let request = self.request(Operation::Reserve, Kind::Metadata, 0, 0);
        let request = Request { operation: Operation::Names, ..request };
        self.shard.operate(request, move |disk| disk.contents(inode).map(|contents| contents.length())).await
    }

    pub(in crate::runtime) async fn set_length(&self, bytes: u64) -> io::Result<()> {
        let inode = self.inode;
        let set_length = move |disk: &mut Disk| {
            disk.contents(inode)?.set_length(bytes);
            Ok(())
        };
        self.change(Kind::SetLength, bytes, set_length).await
    }

    async fn change(
        &self,
        kind: Kind,
        content: u64,
        effect: impl FnOnce(&mut Disk) -> io::Result<()> + 'static,
    ) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let open = self.keeps_open.clone();
        let effect = move |disk: &mut Disk| {
            let result = effect(disk);
            drop(open);
            result
        };
        self.shard.operate(self.request(Operation::Reserve, kind, 0, content), effect).await
    }
}

fn read(
    disk: &mut Disk,
    inode: Inode,
    position: u64,
    bytes: usize,
    fault: Option<DiskFault>,
    buffer: &mut Buffer,
) -> io::Result<usize> {
    let Disk { files, random, .. } = disk;
    let contents = &mut files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?.contents;
    let covered = contents.length().min(position + bytes as u64).saturating_sub(position);
    match fault {
        Some(DiskFault::BitFlip) if covered > 0 => {
            let (at, bit) = (position + random.below(covered), random.below(8));
            contents.corrupt(at, |byte| *byte ^= 1 << bit);
        }
        Some(DiskFault::BitFlip) | None => {}
        Some(_) => return Err(input_output_error()),
    }
    let read = contents.read(position, bytes as u64, random, |block| buffer.append(block));
    read.map(|bytes| bytes as usize).map_err(|_| input_output_error())
}

fn finish_write(disk: &mut Disk, inode: Inode, number: u64, bytes: u64, fault: Option<DiskFault>) -> io::Result<()> {
    let Disk { files, random, .. } = disk;
    let contents = &mut files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?.contents;
    match fault {
        None => contents.complete(number),
        Some(DiskFault::MisdirectedWrite) => {
            let room = (contents.length().div_ceil(BLOCK)).saturating_sub(bytes / BLOCK);
            let first = random.below(room + 1);
            contents.misdirect(number, first);
        }
        Some(_) => {
            contents.abandon(number, random);
            return Err(input_output_error());
        }
    }
    Ok(())
}
