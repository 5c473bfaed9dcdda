//! Memory for transfers: slabs aligned to a block, written once from front to back by one owner and read by many.
//!
//! A [`Buffer`] is the only writer of a slab and only ever writes behind the bytes it holds; a [`Slice`] is a share in bytes
//! that were already there. So what a slice shows never changes, it can be read by the kernel or by another shard while the
//! owner goes on appending, and sending, writing and serving all work on the same bytes. The count of owners is atomic:
//! the last one gives the slab back (`slab`).
//!
//! What this file does not do: it keeps no budget; whoever asks for a buffer accounts for it.
#![allow(unsafe_code)]

mod slab;

use std::fmt;
use std::ops::{Deref, Range};

use bytes::Bytes;

use self::slab::{Share, Slab};
use crate::types::limits::BLOCK_BYTES;

/// The only writer of a slab: holds `len()` bytes and has room for `remaining()` more.
///
/// Bytes that it holds never change, except through [`Buffer::clear`], which wants that nobody shares them.
pub struct Buffer {
    share: Share,
    length: usize,
}

impl Buffer {
    /// An empty buffer with room for `bytes` bytes or more; the start is aligned to [`BLOCK_BYTES`].
    pub fn with_capacity(bytes: usize) -> Buffer {
        Buffer { share: Share::take(bytes), length: 0 }
    }

    /// The capacity of a buffer that is made for `bytes` bytes.
    pub fn capacity_for(bytes: usize) -> usize {
        Slab::capacity_for(bytes)
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that it can hold in all.
    pub fn capacity(&self) -> usize {
        self.share.slab().capacity()
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.capacity() - self.length
    }

    /// Bytes up to the next multiple of [`BLOCK_BYTES`]; 0 on a boundary.
    pub fn remaining_in_block(&self) -> usize {
        self.length.next_multiple_of(BLOCK_BYTES) - self.length
    }

    /// Appends a copy of `bytes`, which fit.
    pub fn append(&mut self, bytes: &[u8]) {
        self.append_with(bytes.len(), |room| room.copy_from_slice(bytes));
    }

    /// Appends `count` zero bytes, which fit.
    pub fn append_zeros(&mut self, count: usize) {
        self.append_with(count, |room| room.fill(0));
    }

    /// Appends `count` bytes, which fit, as `write` leaves them: it sees what an earlier use left there.
    pub fn append_with<R>(&mut self, count: usize, write: impl FnOnce(&mut [u8]) -> R) -> R {
        let result = write(&mut self.spare()[..count]);
        self.length += count;
        result
    }

    /// The room behind the bytes held. What is written there is held once [`Buffer::advance`] says so.
    pub fn spare(&mut self) -> &mut [u8] {
        let slab = self.share.slab();
        // SAFETY: the slab's bytes are initialised, `length <= capacity`, and behind `length` nobody looks but this buffer,
        // which is borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(slab.bytes().add(self.length), slab.capacity() - self.length) }
    }

    /// Holds the next `count` bytes of the room as well.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "{count} bytes do not fit into {}", self.remaining());
        self.length += count;
    }

    /// Forgets all bytes, to write from the front again. `false`, and nothing happens, while a slice shares them.
    #[must_use]
    pub fn clear(&mut self) -> bool {
        let only = self.share.is_only();
        if only {
            self.length = 0;
        }
        only
    }

    /// Whether slices of it are alive.
    pub fn is_shared(&self) -> bool {
        !self.share.is_only()
    }

    /// A share in the bytes `range` of those held.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} of {} bytes", self.length);
        Slice { share: self.share.clone(), start: range.start, length: range.len() }
    }

    /// All bytes held, and no more writing.
    pub fn freeze(self) -> Slice {
        Slice { start: 0, length: self.length, share: self.share }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `length` bytes are initialised and change only through `clear`, which borrows mutably.
        unsafe { std::slice::from_raw_parts(self.share.slab().bytes(), self.length) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.length, self.capacity())
    }
}

/// Tells the slabs that are alive apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SlabId(usize);

/// A share in bytes that never change. Cheap to clone, and `Send`.
#[derive(Clone)]
pub struct Slice {
    share: Share,
    start: usize,
    length: usize,
}

impl Slice {
    /// A share in the bytes `range` of this slice.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} of {} bytes", self.length);
        Slice { share: self.share.clone(), start: self.start + range.start, length: range.len() }
    }

    /// Whether start and length are multiples of [`BLOCK_BYTES`], as direct transfers need them.
    pub fn is_aligned(&self) -> bool {
        self.start.is_multiple_of(BLOCK_BYTES) && self.length.is_multiple_of(BLOCK_BYTES)
    }

    /// Bytes of the slab that this slice keeps alive: what a slow reader really costs.
    pub fn pinned_bytes(&self) -> usize {
        self.share.slab().capacity()
    }

    /// Which slab it is, while it lives: slices of one slab have the same.
    pub fn slab(&self) -> SlabId {
        SlabId(std::ptr::from_ref(self.share.slab()).addr())
    }

    /// The same bytes as [`Bytes`], without a copy.
    pub fn into_bytes(self) -> Bytes {
        if self.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start + length` lay within the bytes held when the slice was made; they do not change while it lives,
        // because `Buffer` writes behind them and `clear` refuses while a share is alive.
        unsafe { std::slice::from_raw_parts(self.share.slab().bytes().add(self.start), self.length) }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_while_the_buffer_grows() {
        let mut buffer = Buffer::with_capacity(10_000);
        assert!(buffer.capacity() >= 10_000 && buffer.is_empty());
        buffer.append(b"first");
        let first = buffer.slice(0..5);
        buffer.append(b"second");
        assert_eq!(&*first, b"first");
        assert_eq!(&*buffer.slice(5..11), b"second");
        assert_eq!(&*first.slice(1..3), b"ir");
        assert_eq!(&*buffer, b"firstsecond");
    }

    #[test]
    fn a_shared_buffer_is_not_cleared() {
        let mut buffer = Buffer::with_capacity(1);
        buffer.append(b"x");
        let slice = buffer.slice(0..1);
        assert!(!buffer.clear() && buffer.is_shared());
        drop(slice);
        assert!(buffer.clear() && buffer.is_empty());
    }

    #[test]
    fn slabs_are_aligned_and_reused() {
        let buffer = Buffer::with_capacity(5000);
        let address = buffer.as_ptr();
        assert!(address.addr().is_multiple_of(BLOCK_BYTES));
        let slice = buffer.freeze();
        assert!(slice.is_aligned());
        drop(slice);
        assert_eq!(Buffer::with_capacity(8192).as_ptr(), address);
        assert_eq!(Buffer::with_capacity((4 << 20) + 1).capacity(), (4 << 20) + BLOCK_BYTES);
    }

    #[test]
    fn slices_end_on_other_threads() {
        let mut buffer = Buffer::with_capacity(4096);
        buffer.append_zeros(4096);
        let slices: Vec<Slice> = (0..64).map(|start| buffer.slice(start..4096)).collect();
        drop(buffer);
        let threads = slices
            .into_iter()
            .map(|slice| std::thread::spawn(move || slice.iter().map(|&b| u64::from(b)).sum::<u64>()));
        assert!(threads.into_iter().all(|thread| thread.join().expect("no panic") == 0));
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn advancing_past_the_end_is_a_bug() {
        Buffer::with_capacity(4096).advance(4097);
    }

    #[test]
    fn bytes_share_the_slab() {
        let mut buffer = Buffer::with_capacity(4096);
        buffer.append(b"abc");
        let bytes = buffer.slice(1..3).into_bytes();
        drop(buffer);
        assert_eq!(&bytes[..], b"bc");
    }
}
