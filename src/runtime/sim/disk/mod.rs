//! The disk of a simulated node: files, names, space, locks, operations under way, and what a power cut leaves of them.
//!
//! It outlives processes. Operations complete in an order of the seed's choice; a change of names or of a length takes effect
//! as a whole when it completes, the sectors of a write one by one. When a process dies with its machine alive, each of its
//! operations has happened, has not, or (a write) has in part; after a power cut the models of [`contents`] and [`names`]
//! decide.
//!
//! What this file does not do: it knows neither tasks nor time; `operations` is the side that the facade calls.

mod contents;
mod names;
mod operations;
mod space;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::{Rc, Weak};

use contents::{Block, Contents, Write};
use names::{Inode, Names, Place, ROOT};
pub(in super::super) use operations::File;

use super::fault::Faults;
use super::random::Random;
use super::trace::Counters;
use crate::runtime::directory::Space;
use crate::types::limits::BLOCK_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// What a power cut does to sectors that are being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerCut {
    /// Each is old or new: what one node must survive.
    OldOrNew,
    /// One sector of each write in flight holds garbage: it must be detected.
    Garbage,
    /// One sector of each write in flight cannot be read (EIO) until it is written again: it must be detected.
    Unreadable,
}

struct FileNode {
    contents: Contents,
    /// Every open handle holds a clone.
    open: Rc<()>,
    lock: Weak<()>,
}

impl FileNode {
    fn new() -> FileNode {
        FileNode { contents: Contents::default(), open: Rc::new(()), lock: Weak::new() }
    }
}

/// An operation that was submitted and has not completed.
struct Underway {
    /// The file that it writes to, if it is a write.
    writes: Option<Inode>,
    effect: Box<dyn FnOnce(&mut Disk)>,
}

/// A disk. See the module.
pub(super) struct Disk {
    names: Names,
    files: BTreeMap<Inode, FileNode>,
    capacity_blocks: u64,
    underway: BTreeMap<u64, Underway>,
    /// Of inodes and operations: never used twice.
    last_number: u64,
    pub(super) faults: Faults,
    random: Random,
}

fn no_space() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

fn input_output_error() -> io::Error {
    // EIO has no kind of its own.
    io::Error::from_raw_os_error(5)
}

impl Disk {
    pub(super) fn new(capacity_bytes: u64, random: Random) -> Disk {
        Disk {
            names: Names::new(),
            files: BTreeMap::new(),
            capacity_blocks: capacity_bytes / BLOCK,
            underway: BTreeMap::new(),
            last_number: ROOT.0,
            faults: Faults::default(),
            random,
        }
    }

    pub(super) fn set_capacity(&mut self, bytes: u64) {
        self.capacity_blocks = bytes / BLOCK;
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Starts an operation and returns its number.
    fn begin(&mut self, effect: Box<dyn FnOnce(&mut Disk)>) -> u64 {
        let number = self.next_number();
        self.underway.insert(number, Underway { writes: None, effect });
        number
    }

    /// Starts a write: as [`Disk::begin`], with the bytes known from now on.
    fn begin_write(&mut self, inode: Inode, write: Write, effect: impl FnOnce(&mut Disk, u64) + 'static) -> u64 {
        let number = self.next_number();
        if let Some(file) = self.files.get_mut(&inode) {
            file.contents.submit(number, write);
        }
        let effect = Box::new(move |disk: &mut Disk| effect(disk, number));
        self.underway.insert(number, Underway { writes: Some(inode), effect });
        number
    }

    /// Completes the operation `number`, if the process that asked still lives.
    fn finish(&mut self, number: u64) {
        if let Some(underway) = self.underway.remove(&number) {
            (underway.effect)(self);
        }
    }

    /// The process has died, its machine has not.
    pub(super) fn process_died(&mut self) {
        for (number, underway) in std::mem::take(&mut self.underway) {
            let happens = self.random.coin();
            match underway.writes {
                _ if happens => (underway.effect)(self),
                Some(inode) => self.abandon(inode, number),
                None => {}
            }
        }
        self.release_locks();
        self.sweep();
    }

    fn abandon(&mut self, inode: Inode, number: u64) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.contents.abandon(number, &mut self.random);
        }
    }

    fn release_locks(&mut self) {
        for file in self.files.values_mut() {
            file.lock = Weak::new();
        }
    }

    /// The power is gone; the process has died before.
    pub(super) fn power_cut(&mut self, cut: PowerCut, counters: &mut Counters) {
        for underway in std::mem::take(&mut self.underway).into_values() {
            if underway.writes.is_none() && self.random.coin() {
                (underway.effect)(self);
            }
        }
        counters.names_lost += self.names.power_cut(&mut self.random);
        for file in self.files.values_mut() {
            file.contents.power_cut(cut, &mut self.random, counters);
        }
        self.release_locks();
        self.sweep();
    }

    /// Frees files that have no name, can get none back and are not open.
    fn sweep(&mut self) {
        let referenced = self.names.referenced();
        self.names.forget_unless(&referenced);
        self.files.retain(|inode, file| referenced.contains(inode) || Rc::strong_count(&file.open) > 1);
    }

    fn space(&mut self) -> Space {
        Space { total_bytes: self.capacity_blocks * BLOCK, free_bytes: self.free_blocks() * BLOCK }
    }

    fn free_blocks(&mut self) -> u64 {
        self.sweep();
        let used: u64 = self.files.values().map(|file| file.contents.space_blocks()).sum();
        self.capacity_blocks.saturating_sub(used)
    }

    /// Takes space for these bytes of a file.
    fn reserve(&mut self, inode: Inode, position: u64, bytes: u64) -> io::Result<()> {
        let missing = self.files.get(&inode).map_or(0, |file| file.contents.missing_blocks(position, bytes));
        if missing == 0 {
            return Ok(());
        }
        if missing > self.free_blocks() {
            return Err(no_space());
        }
        self.contents(inode)?.reserve(position, bytes);
        Ok(())
    }

    fn contents(&mut self, inode: Inode) -> io::Result<&mut Contents> {
        self.files.get_mut(&inode).map(|file| &mut file.contents).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn place(&self, path: &Path) -> io::Result<Place> {
        self.names.place(path)?.ok_or_else(|| io::ErrorKind::AlreadyExists.into())
    }

    fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        let place = self.place(path)?;
        if self.names.at(&place).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Inode(self.next_number());
        self.files.insert(inode, FileNode::new());
        self.names.change(vec![(place, Some(inode))]);
        Ok(inode)
    }

    fn find_file(&self, path: &Path) -> io::Result<Inode> {
        let inode = self.names.find(path)?;
        if self.names.is_directory(inode) { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(inode) }
    }

    fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let place = self.place(path)?;
        if self.names.at(&place).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Inode(self.next_number());
        self.names.add_directory(inode);
        self.names.change(vec![(place, Some(inode))]);
        Ok(())
    }

    fn is_empty_directory(&self, inode: Inode) -> bool {
        self.names.is_directory(inode) && self.names.entries(inode).next().is_none()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let inode = self.names.at(&from).ok_or(io::ErrorKind::NotFound)?;
        let moves_directory = self.names.is_directory(inode);
        if let Some(replaced) = self.names.at(&to) {
            if replaced == inode {
                return Ok(());
            }
            match (moves_directory, self.names.is_directory(replaced)) {
                (true, false) => return Err(io::ErrorKind::NotADirectory.into()),
                (false, true) => return Err(io::ErrorKind::IsADirectory.into()),
                (true, true) if !self.is_empty_directory(replaced) => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        self.names.change(vec![(from, None), (to, Some(inode))]);
        Ok(())
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        let place = self.place(path)?;
        self.names.change(vec![(place, None)]);
        Ok(())
    }

    fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.names.find_directory(path)?;
        if !self.is_empty_directory(inode) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let place = self.place(path)?;
        self.names.change(vec![(place, None)]);
        Ok(())
    }

    /// Locks the file at `path`, which is created if needed, and writes `note` into it.
    fn lock(&mut self, path: &Path, note: &str) -> io::Result<Rc<()>> {
        let inode = match self.find_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_file(path)?,
            found => found?,
        };
        let number = self.next_number();
        let random = &mut self.random;
        let file = self.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        if file.lock.strong_count() > 0 {
            let mut text = Vec::new();
            let _ = file.contents.read(0, BLOCK, random, |bytes| text.extend_from_slice(bytes));
            let text = String::from_utf8_lossy(&text).trim_end().to_owned();
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        let text = format!("{note}\n");
        assert!(text.len() <= BLOCK_BYTES, "a note is a line");
        let mut block = [0; BLOCK_BYTES];
        block[..text.len()].copy_from_slice(text.as_bytes());
        let durability = crate::runtime::file::Durability::Written;
        file.contents.set_length(0);
        file.contents.submit(number, Write { first: 0, blocks: vec![Block::new(block)], durability });
        file.contents.complete(number);
        file.contents.set_length(text.len() as u64);
        let held = Rc::new(());
        file.lock = Rc::downgrade(&held);
        Ok(held)
    }

    /// Changes bytes of a file where they lie, past every cache.
    pub(super) fn corrupt(&mut self, path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
        let inode = self.find_file(path)?;
        let contents = self.contents(inode)?;
        assert!(position + bytes.len() as u64 <= contents.length(), "only what is there can be corrupted");
        for (at, &byte) in (position..).zip(bytes) {
            contents.corrupt(at, |found| *found = byte);
        }
        Ok(())
    }

    /// Flips one bit of a file where it lies.
    pub(super) fn flip_bit(&mut self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let inode = self.find_file(path)?;
        let contents = self.contents(inode)?;
        assert!(position < contents.length(), "only what is there can be corrupted");
        contents.corrupt(position, |found| *found ^= 1 << (bit % 8));
        Ok(())
    }

    /// What a read of the whole file would give now.
    pub(super) fn peek(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = self.find_file(path)?;
        let mut random = Random::new(0);
        let contents = self.contents(inode)?;
        let mut bytes = Vec::new();
        let read = contents.read(0, contents.length(), &mut random, |block| bytes.extend_from_slice(block));
        read.map(|_| bytes).map_err(|_| input_output_error())
    }
}
