//! Deadlines of a shard's sleeping tasks: a heap that knows where each of its entries stands.
//!
//! Entries leave in the order of their deadlines, equal ones in the order of their arrival. A deadline that is no longer
//! wanted is taken out at once, so that time-outs which never fire do not pile up. After warm-up nothing is allocated.
//!
//! What this file does not do: it knows no clock and arms nothing; the ring keeps one kernel timer on the first deadline.

use std::task::{Context, Waker};

/// A deadline on the heap. `number` breaks ties: it counts all deadlines that ever were.
#[derive(Clone, Copy)]
struct Entry {
    deadline: u64,
    number: u64,
    seat: u32,
}

impl Entry {
    fn is_before(self, other: Entry) -> bool {
        (self.deadline, self.number) < (other.deadline, other.number)
    }
}

/// What stays in one place while entries move on the heap.
enum Seat {
    Free { next: Option<u32> },
    Waiting { position: u32, waker: Waker },
    Fired,
}

/// Names a deadline until its owner gives it back by [`Timers::remove`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TimerKey(u32);

/// Deadlines in nanoseconds of the monotonic clock, and who waits for them.
#[derive(Default)]
pub(super) struct Timers {
    heap: Vec<Entry>,
    seats: Vec<Seat>,
    free: Option<u32>,
    count: u64,
}

impl Timers {
    /// Adds a deadline.
    pub(super) fn insert(&mut self, deadline: u64, waker: Waker) -> TimerKey {
        let position = index(self.heap.len());
        let waiting = Seat::Waiting { position, waker };
        let seat = match self.free {
            Some(seat) => {
                let Seat::Free { next } = std::mem::replace(&mut self.seats[seat as usize], waiting) else {
                    unreachable!("the free list holds free seats only")
                };
                self.free = next;
                seat
            }
            None => {
                self.seats.push(waiting);
                index(self.seats.len() - 1)
            }
        };
        self.heap.push(Entry { deadline, number: self.count, seat });
        self.count += 1;
        self.rise(position as usize);
        TimerKey(seat)
    }

    /// Whether the deadline has passed; if not, `context` is woken when it does.
    pub(super) fn poll(&mut self, key: TimerKey, context: &Context<'_>) -> bool {
        match &mut self.seats[key.0 as usize] {
            Seat::Fired => true,
            Seat::Waiting { waker, .. } => {
                if !waker.will_wake(context.waker()) {
                    waker.clone_from(context.waker());
                }
                false
            }
            Seat::Free { .. } => unreachable!("a key names its seat until it is removed"),
        }
    }

    /// Forgets the deadline, passed or not.
    pub(super) fn remove(&mut self, key: TimerKey) {
        let free = Seat::Free { next: self.free };
        match std::mem::replace(&mut self.seats[key.0 as usize], free) {
            Seat::Waiting { position, .. } => self.take(position as usize),
            Seat::Fired => {}
            Seat::Free { .. } => unreachable!("a key is removed once"),
        }
        self.free = Some(key.0);
    }

    /// The first deadline.
    pub(super) fn first(&self) -> Option<u64> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// Takes the first deadline out if it is not after `now`, and returns who waits for it.
    pub(super) fn fire(&mut self, now: u64) -> Option<Waker> {
        let first = *self.heap.first().filter(|entry| entry.deadline <= now)?;
        self.take(0);
        match std::mem::replace(&mut self.seats[first.seat as usize], Seat::Fired) {
            Seat::Waiting { waker, .. } => Some(waker),
            _ => unreachable!("an entry's seat waits"),
        }
    }

    /// Takes the entry at `position` off the heap; its seat is the caller's business.
    fn take(&mut self, position: usize) {
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.settle(position);
            self.sink(position);
            self.rise(position);
        }
    }

    fn rise(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if !self.heap[position].is_before(self.heap[parent]) {
                break;
            }
            self.swap(position, parent);
            position = parent;
        }
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let right_first = right < self.heap.len() && self.heap[right].is_before(self.heap[left]);
            let child = if right_first { right } else { left };
            if !self.heap[child].is_before(self.heap[position]) {
                return;
            }
            self.swap(position, child);
            position = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.settle(a);
        self.settle(b);
    }

    /// Tells the seat of the entry at `at` where its entry stands.
    fn settle(&mut self, at: usize) {
        if let Seat::Waiting { position, .. } = &mut self.seats[self.heap[at].seat as usize] {
            *position = index(at);
        }
    }
}

fn index(position: usize) -> u32 {
    u32::try_from(position).expect("fewer than 2^32 tasks sleep")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deadlines in the order in which they fire, all at once.
    fn drain(timers: &mut Timers) -> Vec<u64> {
        let mut fired = Vec::new();
        while let Some(first) = timers.first() {
            assert!(timers.fire(first.wrapping_sub(1)).is_none() || first == 0, "fires before its time");
            timers.fire(first).expect("the first is due");
            fired.push(first);
        }
        fired
    }

    #[test]
    fn deadlines_fire_in_order_whatever_was_removed() {
        let mut timers = Timers::default();
        let mut state = 7_u64;
        let mut expected = Vec::new();
        let mut removed = Vec::new();
        for round in 0..2_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let deadline = 1 + (state >> 33) % 1_000;
            let key = timers.insert(deadline, Waker::noop().clone());
            if round % 3 == 0 {
                removed.push(key)
            } else {
                expected.push(deadline)
            }
            if round % 9 == 8 {
                removed.drain(..).for_each(|key| timers.remove(key));
            }
        }
        removed.drain(..).for_each(|key| timers.remove(key));
        expected.sort_unstable();
        assert_eq!(drain(&mut timers), expected);
        assert!(timers.seats.len() < 2_000, "seats are used again");
    }

    #[test]
    fn equal_deadlines_fire_in_the_order_of_arrival() {
        let mut timers = Timers::default();
        let keys: Vec<TimerKey> = (0..100).map(|_| timers.insert(5, Waker::noop().clone())).collect();
        let context = Context::from_waker(Waker::noop());
        for fired in 0..keys.len() {
            timers.fire(5).expect("due");
            for (at, &key) in keys.iter().enumerate() {
                assert_eq!(timers.poll(key, &context), at <= fired);
            }
        }
        assert!(timers.fire(u64::MAX).is_none());
    }
}
