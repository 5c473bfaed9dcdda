//! Memory for transfers: slabs aligned to a block, written once from front to back by one owner and read by many.
//!
//! A [`Buffer`] is the only writer of a slab and only ever writes behind the bytes it holds; a [`Slice`] is a share in bytes
//! that were already there. So what a slice shows never changes, it can be read by the kernel or by another shard while the
//! owner goes on appending, and sending, writing and serving all work on the same bytes. The count of owners is atomic:
//! the last one gives the slab back, to a small stock of its own thread or to the allocator.
//!
//! What this file does not do: it keeps no budget; whoever asks for a buffer accounts for it.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use bytes::Bytes;

use crate::types::limits::BLOCK_BYTES;

/// Bytes of the largest slab that is kept for reuse; larger ones are rare and go back to the allocator at once.
const STOCKED_SLAB_BYTES_MAX: usize = 4 << 20;
/// Bytes that a thread keeps for reuse at most: a few of the largest slabs.
const STOCK_BYTES_MAX: usize = 16 << 20;
/// Bytes of the stock that are left to slabs of at most [`SMALL_SLAB_BYTES_MAX`]: with large ones alone in it, every receive and
/// every write of a partial block would go to the allocator.
const STOCK_SMALL_BYTES: usize = 2 << 20;
const SMALL_SLAB_BYTES_MAX: usize = 64 << 10;
/// Size classes of the stock: powers of two from one block up.
const STOCK_CLASSES: usize = (STOCKED_SLAB_BYTES_MAX / BLOCK_BYTES).ilog2() as usize + 1;

const _: () =
    assert!(STOCKED_SLAB_BYTES_MAX.is_power_of_two() && STOCK_BYTES_MAX >= STOCKED_SLAB_BYTES_MAX + STOCK_SMALL_BYTES);

struct Slab {
    owners: AtomicUsize,
    bytes: NonNull<u8>,
    capacity: usize,
}

impl Slab {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES).expect("a capacity below isize::MAX")
    }

    fn class(capacity: usize) -> Option<usize> {
        let stocked = capacity.is_power_of_two() && capacity <= STOCKED_SLAB_BYTES_MAX;
        stocked.then(|| (capacity / BLOCK_BYTES).ilog2() as usize)
    }

    fn capacity_for(bytes_min: usize) -> usize {
        if bytes_min <= STOCKED_SLAB_BYTES_MAX {
            bytes_min.max(BLOCK_BYTES).next_power_of_two()
        } else {
            bytes_min.next_multiple_of(BLOCK_BYTES)
        }
    }

    /// A slab with one owner. All its bytes are initialised: zeros, or what an earlier use left there.
    fn take(bytes_min: usize) -> NonNull<Slab> {
        let capacity = Slab::capacity_for(bytes_min);
        let stocked = STOCK.try_with(|stock| stock.borrow_mut().take(capacity)).ok().flatten();
        stocked.unwrap_or_else(|| {
            let layout = Slab::layout(capacity);
            // SAFETY: the layout's size is at least one block.
            let bytes = unsafe { alloc_zeroed(layout) };
            let bytes = NonNull::new(bytes).unwrap_or_else(|| handle_alloc_error(layout));
            let slab = Box::new(Slab { owners: AtomicUsize::new(1), bytes, capacity });
            NonNull::from(Box::leak(slab))
        })
    }

    /// Frees the slab.
    ///
    /// # Safety
    /// `slab` came from [`Slab::take`] and nobody else holds it.
    unsafe fn free(slab: NonNull<Slab>) {
        // SAFETY: `take` leaked this box and the caller is its only holder.
        let slab = unsafe { Box::from_raw(slab.as_ptr()) };
        // SAFETY: allocated in `take` with the layout of the same capacity.
        unsafe { dealloc(slab.bytes.as_ptr(), Slab::layout(slab.capacity)) };
    }
}

/// A counted share in a slab.
struct Share {
    slab: NonNull<Slab>,
}

// SAFETY: the count is atomic, and the bytes behind a share are written through `Buffer` alone, which is unique, and only
// where no slice looks.
unsafe impl Send for Share {}
// SAFETY: as above; a `&Share` gives read access to the count and the capacity only.
unsafe impl Sync for Share {}

impl Share {
    fn slab(&self) -> &Slab {
        // SAFETY: the slab lives as long as any share in it.
        unsafe { self.slab.as_ref() }
    }

    fn is_only(&self) -> bool {
        // Acquire pairs with the Release of the last other owner: its reads lie before whatever is written now.
        self.slab().owners.load(Ordering::Acquire) == 1
    }
}

impl Clone for Share {
    fn clone(&self) -> Share {
        let owners = self.slab().owners.fetch_add(1, Ordering::Relaxed);
        assert!(owners < isize::MAX as usize, "the count of owners of a slab overflowed");
        Share { slab: self.slab }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.slab().owners.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let kept = STOCK.try_with(|stock| stock.borrow_mut().keep(self.slab)).unwrap_or(false);
        if !kept {
            // SAFETY: the count has just reached zero and the stock does not hold it.
            unsafe { Slab::free(self.slab) };
        }
    }
}

/// Slabs that wait for their next use on this thread.
struct Stock {
    classes: [Vec<NonNull<Slab>>; STOCK_CLASSES],
    bytes: usize,
}

thread_local! {
    static STOCK: RefCell<Stock> = const { RefCell::new(Stock { classes: [const { Vec::new() }; STOCK_CLASSES], bytes: 0 }) };
}

impl Stock {
    fn take(&mut self, capacity: usize) -> Option<NonNull<Slab>> {
        let slab = self.classes[Slab::class(capacity)?].pop()?;
        self.bytes -= capacity;
        // SAFETY: slabs in the stock have no owner; this one gets its first.
        unsafe { slab.as_ref() }.owners.store(1, Ordering::Relaxed);
        Some(slab)
    }

    fn keep(&mut self, slab: NonNull<Slab>) -> bool {
        // SAFETY: the caller has just dropped the last share, so the slab is alive and nobody else's.
        let capacity = unsafe { slab.as_ref() }.capacity;
        let Some(class) = Slab::class(capacity) else { return false };
        let left_free = if capacity > SMALL_SLAB_BYTES_MAX { STOCK_SMALL_BYTES } else { 0 };
        if self.bytes + capacity + left_free > STOCK_BYTES_MAX {
            return false;
        }
        self.bytes += capacity;
        self.classes[class].push(slab);
        true
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        for slab in self.classes.iter_mut().flat_map(|class| class.drain(..)) {
            // SAFETY: the stock is the only holder of what it keeps.
            unsafe { Slab::free(slab) };
        }
    }
}

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
        let share = Share { slab: Slab::take(bytes) };
        debug_assert!(share.slab().bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES));
        Buffer { share, length: 0 }
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
        self.share.slab().capacity
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
        unsafe { std::slice::from_raw_parts_mut(slab.bytes.as_ptr().add(self.length), slab.capacity - self.length) }
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
        unsafe { std::slice::from_raw_parts(self.share.slab().bytes.as_ptr(), self.length) }
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
        self.share.slab().capacity
    }

    /// Which slab it is, while it lives: slices of one slab have the same.
    pub fn slab(&self) -> SlabId {
        SlabId(self.share.slab.addr().get())
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
        unsafe { std::slice::from_raw_parts(self.share.slab().bytes.as_ptr().add(self.start), self.length) }
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
        assert_eq!(Buffer::with_capacity(STOCKED_SLAB_BYTES_MAX + 1).capacity(), STOCKED_SLAB_BYTES_MAX + BLOCK_BYTES);
    }

    #[test]
    fn large_slabs_leave_room_for_small_ones_in_the_stock() {
        let large: Vec<Buffer> = (0..8).map(|_| Buffer::with_capacity(STOCKED_SLAB_BYTES_MAX)).collect();
        drop(large);
        drop(Buffer::with_capacity(1));
        let kept = STOCK.with(|stock| stock.borrow().classes.each_ref().map(Vec::len));
        let large_kept = (STOCK_BYTES_MAX - STOCK_SMALL_BYTES) / STOCKED_SLAB_BYTES_MAX;
        assert_eq!((kept[0], kept[STOCK_CLASSES - 1]), (1, large_kept));
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
