//! The machine's clocks and its source of random numbers.
//!
//! Sources: clock_gettime(2), getrandom(2).
#![allow(unsafe_code)]

use std::cell::RefCell;

use crate::types::Timestamp;

/// Nanoseconds of CLOCK_MONOTONIC, which the ring's timers count by.
pub(super) fn monotonic_nanos() -> u64 {
    nanos(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds that the calling thread has spent on a CPU (CLOCK_THREAD_CPUTIME_ID), for measurements: a look is a system
/// call.
pub fn thread_cpu_nanos() -> u64 {
    nanos(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Milliseconds since 1970 of CLOCK_REALTIME.
pub(super) fn wall_clock() -> Timestamp {
    let millis = i64::try_from(nanos(libc::CLOCK_REALTIME) / 1_000_000).expect("64 bits of nanoseconds");
    Timestamp::new(millis).expect("not negative")
}

fn nanos(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes the struct it is given; these clocks exist on every Linux.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "the clock exists");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Random numbers of the kernel, fetched a few at a time: a system call costs more than the numbers.
#[derive(Default)]
pub(super) struct Random {
    stock: RefCell<Vec<u64>>,
}

impl Random {
    const STOCK: usize = 32;

    pub(super) fn next(&self) -> u64 {
        let mut stock = self.stock.borrow_mut();
        if let Some(number) = stock.pop() {
            return number;
        }
        let mut numbers = [0_u64; Self::STOCK];
        // SAFETY: writes at most the given number of bytes into the array; any bytes make numbers.
        let filled = unsafe { libc::getrandom(numbers.as_mut_ptr().cast(), size_of_val(&numbers), 0) };
        assert_eq!(filled, size_of_val(&numbers) as isize, "getrandom(2) gives up to 256 bytes whole");
        stock.extend_from_slice(&numbers[1..]);
        numbers[0]
    }
}
