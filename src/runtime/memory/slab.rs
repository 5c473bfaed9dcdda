//! Slabs: blocks of memory with a count of owners, and the stock of each thread from which they are taken again.
//!
//! A slab belongs to the thread that made it. Whoever lets it go last gives it back there: to the stock if that is the same
//! thread, and otherwise to the thread's [`Home`], which it empties when its stock runs out. Without that a thread whose slabs
//! end elsewhere, as those of a shard do that reads for the connections of another one, would have new memory from the kernel,
//! page by page, for each of them, while the other one's stock stays full.
//!
//! What is kept is bounded, by thread; the rest goes back to the allocator at once.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::{NonNull, null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

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
/// Bytes that wait in a home at most.
const HOME_BYTES_MAX: usize = 8 << 20;

const _: () =
    assert!(STOCKED_SLAB_BYTES_MAX.is_power_of_two() && STOCK_BYTES_MAX >= STOCKED_SLAB_BYTES_MAX + STOCK_SMALL_BYTES);

pub(super) struct Slab {
    owners: AtomicUsize,
    bytes: NonNull<u8>,
    capacity: usize,
    home: &'static Home,
    /// The slab below it, while it waits in its home.
    below: AtomicPtr<Slab>,
}

impl Slab {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES).expect("a capacity below isize::MAX")
    }

    fn class(capacity: usize) -> Option<usize> {
        let stocked = capacity.is_power_of_two() && capacity <= STOCKED_SLAB_BYTES_MAX;
        stocked.then(|| (capacity / BLOCK_BYTES).ilog2() as usize)
    }

    /// The capacity of a slab that is to hold so many bytes.
    pub(super) fn capacity_for(bytes_min: usize) -> usize {
        if bytes_min <= STOCKED_SLAB_BYTES_MAX {
            bytes_min.max(BLOCK_BYTES).next_power_of_two()
        } else {
            bytes_min.next_multiple_of(BLOCK_BYTES)
        }
    }

    /// The first of [`Slab::capacity`] initialised bytes, aligned to a block.
    pub(super) fn bytes(&self) -> *mut u8 {
        self.bytes.as_ptr()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// A new slab with one owner, all zeros.
    fn new(capacity: usize, home: &'static Home) -> NonNull<Slab> {
        let layout = Slab::layout(capacity);
        // SAFETY: the layout's size is at least one block.
        let bytes = unsafe { alloc_zeroed(layout) };
        let bytes = NonNull::new(bytes).unwrap_or_else(|| handle_alloc_error(layout));
        let (owners, below) = (AtomicUsize::new(1), AtomicPtr::new(null_mut()));
        NonNull::from(Box::leak(Box::new(Slab { owners, bytes, capacity, home, below })))
    }

    /// Frees the slab.
    ///
    /// # Safety
    /// `slab` came from [`Slab::new`] and nobody else holds it.
    unsafe fn free(slab: NonNull<Slab>) {
        // SAFETY: `new` leaked this box and the caller is its only holder.
        let slab = unsafe { Box::from_raw(slab.as_ptr()) };
        // SAFETY: allocated in `new` with the layout of the same capacity.
        unsafe { dealloc(slab.bytes.as_ptr(), Slab::layout(slab.capacity)) };
    }
}

/// A counted share in a slab.
pub(super) struct Share {
    slab: NonNull<Slab>,
}

// SAFETY: the count is atomic, and the bytes behind a share are written through `Buffer` alone, which is unique, and only
// where no slice looks.
unsafe impl Send for Share {}
// SAFETY: as above; a `&Share` gives read access to the count and the capacity only.
unsafe impl Sync for Share {}

impl Share {
    /// The only share in a slab for so many bytes. They are initialised: zeros, or what an earlier use left there.
    pub(super) fn take(bytes_min: usize) -> Share {
        let capacity = Slab::capacity_for(bytes_min);
        let taken = STOCK.try_with(|stock| stock.borrow_mut().take(capacity));
        // A thread that ends has no stock any more.
        Share { slab: taken.unwrap_or_else(|_| Slab::new(capacity, &NOWHERE)) }
    }

    pub(super) fn slab(&self) -> &Slab {
        // SAFETY: the slab lives as long as any share in it.
        unsafe { self.slab.as_ref() }
    }

    pub(super) fn is_only(&self) -> bool {
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
            // SAFETY: the count has just reached zero and neither the stock nor the home holds it.
            unsafe { Slab::free(self.slab) };
        }
    }
}

/// Where the slabs of a thread wait that others let go: a stack onto which anybody pushes and from which the thread alone takes,
/// everything at once.
///
/// A thread's home outlives it, since its slabs may: a few bytes for each thread that ever took a slab.
struct Home {
    /// The slab on top, null, or [`CLOSED`].
    top: AtomicPtr<Slab>,
    /// Bytes of the slabs in it, and of those that are about to be.
    bytes: AtomicUsize,
}

/// The top of a home whose thread has ended.
const CLOSED: *mut Slab = without_provenance_mut(1);

/// The home of slabs that no thread wants back.
static NOWHERE: Home = Home { top: AtomicPtr::new(CLOSED), bytes: AtomicUsize::new(0) };

impl Home {
    fn is_of(&self, slab: &Slab) -> bool {
        std::ptr::eq(self, slab.home)
    }

    /// Takes a slab that nobody owns; `false` if there is no room for it, or nobody to want it.
    fn give_back(&self, slab: NonNull<Slab>) -> bool {
        // SAFETY: the caller has just dropped the last share, so the slab is alive and nobody else's.
        let (capacity, below) = unsafe { (slab.as_ref().capacity, &slab.as_ref().below) };
        if self.bytes.fetch_add(capacity, Ordering::Relaxed) + capacity > HOME_BYTES_MAX {
            self.bytes.fetch_sub(capacity, Ordering::Relaxed);
            return false;
        }
        let mut top = self.top.load(Ordering::Relaxed);
        while top != CLOSED {
            below.store(top, Ordering::Relaxed);
            // Release: what was read and written in the slab lies before whatever its thread does with it.
            match self.top.compare_exchange_weak(top, slab.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => top = now,
            }
        }
        self.bytes.fetch_sub(capacity, Ordering::Relaxed);
        false
    }

    /// Leaves `instead` in place of the slabs, and calls `each` with them. By the home's thread.
    fn take_all(&self, instead: *mut Slab, mut each: impl FnMut(NonNull<Slab>)) {
        let mut top = self.top.swap(instead, Ordering::Acquire);
        while let Some(slab) = NonNull::new(top) {
            // SAFETY: the slabs of the stack are alive and nobody's; the swap has made them this thread's.
            let (below, capacity) = unsafe { (slab.as_ref().below.load(Ordering::Relaxed), slab.as_ref().capacity) };
            self.bytes.fetch_sub(capacity, Ordering::Relaxed);
            each(slab);
            top = below;
        }
    }
}

/// Slabs that wait for their next use on this thread.
struct Stock {
    classes: [Vec<NonNull<Slab>>; STOCK_CLASSES],
    bytes: usize,
    home: Option<&'static Home>,
}

thread_local! {
    static STOCK: RefCell<Stock> =
        const { RefCell::new(Stock { classes: [const { Vec::new() }; STOCK_CLASSES], bytes: 0, home: None }) };
}

impl Stock {
    fn home(&mut self) -> &'static Home {
        let new = || &*Box::leak(Box::new(Home { top: AtomicPtr::new(null_mut()), bytes: AtomicUsize::new(0) }));
        self.home.get_or_insert_with(new)
    }

    /// A slab with one owner.
    fn take(&mut self, capacity: usize) -> NonNull<Slab> {
        let home = self.home();
        let Some(class) = Slab::class(capacity) else { return Slab::new(capacity, home) };
        if self.classes[class].is_empty() && !home.top.load(Ordering::Relaxed).is_null() {
            home.take_all(null_mut(), |slab| self.put_or_free(slab));
        }
        let Some(slab) = self.classes[class].pop() else { return Slab::new(capacity, home) };
        self.bytes -= capacity;
        // SAFETY: slabs in the stock have no owner; this one gets its first.
        unsafe { slab.as_ref() }.owners.store(1, Ordering::Relaxed);
        slab
    }

    /// Keeps a slab that nobody owns, here or at its home; `false` if there is no room for it.
    fn keep(&mut self, slab: NonNull<Slab>) -> bool {
        // SAFETY: the caller has just dropped the last share, so the slab is alive and nobody else's.
        let (capacity, home) = unsafe { (slab.as_ref().capacity, slab.as_ref().home) };
        match Slab::class(capacity) {
            None => false,
            // SAFETY: as above.
            Some(_) if !self.home.is_some_and(|own| own.is_of(unsafe { slab.as_ref() })) => home.give_back(slab),
            Some(class) => self.put(slab, class, capacity),
        }
    }

    fn put(&mut self, slab: NonNull<Slab>, class: usize, capacity: usize) -> bool {
        let left_free = if capacity > SMALL_SLAB_BYTES_MAX { STOCK_SMALL_BYTES } else { 0 };
        if self.bytes + capacity + left_free > STOCK_BYTES_MAX {
            return false;
        }
        self.bytes += capacity;
        self.classes[class].push(slab);
        true
    }

    fn put_or_free(&mut self, slab: NonNull<Slab>) {
        // SAFETY: it comes from the home of this thread, alive and nobody's.
        let capacity = unsafe { slab.as_ref() }.capacity;
        let kept = Slab::class(capacity).is_some_and(|class| self.put(slab, class, capacity));
        if !kept {
            // SAFETY: nobody else holds it.
            unsafe { Slab::free(slab) };
        }
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        for slab in self.classes.iter_mut().flat_map(|class| class.drain(..)) {
            // SAFETY: the stock is the only holder of what it keeps.
            unsafe { Slab::free(slab) };
        }
        if let Some(home) = self.home {
            // SAFETY: what is in the home is nobody's.
            home.take_all(CLOSED, |slab| unsafe { Slab::free(slab) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn kept(class: usize) -> usize {
        STOCK.with(|stock| stock.borrow().classes[class].len())
    }

    fn home_bytes() -> usize {
        STOCK.with(|stock| stock.borrow_mut().home().bytes.load(Ordering::Relaxed))
    }

    fn drop_elsewhere(shares: Vec<Share>) {
        thread::spawn(move || drop(shares)).join().expect("no panic");
    }

    #[test]
    fn large_slabs_leave_room_for_small_ones_in_the_stock() {
        let large: Vec<Share> = (0..8).map(|_| Share::take(STOCKED_SLAB_BYTES_MAX)).collect();
        drop(large);
        drop(Share::take(1));
        let large_kept = (STOCK_BYTES_MAX - STOCK_SMALL_BYTES) / STOCKED_SLAB_BYTES_MAX;
        assert_eq!((kept(0), kept(STOCK_CLASSES - 1)), (1, large_kept));
    }

    #[test]
    fn slabs_come_home_from_other_threads() {
        let shares: Vec<Share> = (0..3).map(|_| Share::take(1 << 20)).collect();
        let mut made: Vec<usize> = shares.iter().map(|share| share.slab.addr().get()).collect();
        drop_elsewhere(shares);
        assert_eq!(home_bytes(), 3 << 20);
        let again: Vec<Share> = (0..3).map(|_| Share::take(1 << 20)).collect();
        let mut taken: Vec<usize> = again.iter().map(|share| share.slab.addr().get()).collect();
        made.sort_unstable();
        taken.sort_unstable();
        assert_eq!((taken, home_bytes()), (made, 0));
    }

    #[test]
    fn a_home_holds_so_much_and_no_more() {
        drop_elsewhere((0..12).map(|_| Share::take(1 << 20)).collect());
        assert_eq!(home_bytes(), HOME_BYTES_MAX);
        drop_elsewhere(vec![Share::take(STOCKED_SLAB_BYTES_MAX + 1)]);
        drop(Share::take(1 << 20));
        assert_eq!((home_bytes(), kept(8)), (0, HOME_BYTES_MAX >> 20));
    }

    #[test]
    fn slabs_outlive_the_thread_that_made_them() {
        let (share, home) = thread::spawn(|| {
            let (share, other) = (Share::take(1), Share::take(1));
            drop_elsewhere(vec![other]);
            let home = share.slab().home;
            (share, home)
        })
        .join()
        .expect("no panic");
        assert_eq!((home.top.load(Ordering::Relaxed), home.bytes.load(Ordering::Relaxed)), (CLOSED, 0));
        assert!(!home.give_back(share.slab));
    }

    #[test]
    fn many_threads_give_back_at_once() {
        for _ in 0..8 {
            let given = || (0..8).map(|_| Share::take(1)).collect::<Vec<_>>();
            let threads = (0..4).map(|_| given()).map(|shares| thread::spawn(move || drop(shares))).collect::<Vec<_>>();
            let meanwhile = given();
            for thread in threads {
                thread.join().expect("no panic");
            }
            drop(meanwhile);
        }
        let _last = Share::take(1);
        assert!(STOCK.with(|stock| stock.borrow().bytes) <= STOCK_BYTES_MAX);
    }
}
