//! Where operations in flight live: a vector of slots with a free list, each slot owning what the kernel may still touch.
//!
//! A slot is taken when an operation starts and given back when both have happened: the kernel has completed it, and the
//! waiting future has taken the result or was dropped. The generation in a key keeps a late cancellation from hitting the
//! slot's next user.
//!
//! What this file does not do: it talks to no kernel. Whatever it drops, it hands out first, so that destructors run when
//! the slots are not borrowed.

use std::rc::Rc;
use std::task::{Context, Waker};

use super::descriptor::Descriptor;
use super::operation::Memory;

/// What an operation in flight keeps alive, and what is to be done if nobody waits for it any more.
pub(super) struct Held {
    /// The descriptor it works on.
    #[expect(dead_code, reason = "held for its drop, which closes it")]
    pub(super) descriptor: Option<Rc<Descriptor>>,
    /// The memory that it reads or writes.
    pub(super) memory: Memory,
    /// What becomes of it without its future.
    pub(super) orphan: Orphan,
}

/// What becomes of an operation whose future was dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphan {
    /// It ends soon by itself and its result is nobody's.
    Finish,
    /// It may wait for ever: it is cancelled.
    Cancel,
    /// It ends soon by itself with a descriptor, which is closed.
    Close,
    /// It may wait for ever, and if it ends after all its descriptor is closed.
    CancelOrClose,
}

impl Orphan {
    pub(super) fn cancels(self) -> bool {
        matches!(self, Orphan::Cancel | Orphan::CancelOrClose)
    }

    fn closes(self) -> bool {
        matches!(self, Orphan::Close | Orphan::CancelOrClose)
    }
}

/// The result of an operation: what io_uring put into the completion, and what was held.
pub(super) struct Completion {
    /// A count or descriptor, or a negated errno.
    pub(super) result: i32,
    /// Everything the operation owned.
    pub(super) held: Held,
}

/// Names an operation from its start until its slot is given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(super) fn user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_user_data(user_data: u64) -> Key {
        Key { index: (user_data & u64::from(u32::MAX)) as u32, generation: (user_data >> 32) as u32 }
    }
}

enum State {
    Free {
        next: Option<u32>,
    },
    /// In the kernel's hands, with a future that waits.
    InFlight {
        held: Held,
        waker: Option<Waker>,
    },
    /// In the kernel's hands; the future was dropped.
    Orphaned {
        held: Held,
    },
    /// Completed; the future has not looked yet.
    Done(Completion),
}

struct Slot {
    generation: u32,
    state: State,
}

/// What the ring does about a completion or a dropped future, once the slots are no longer borrowed.
pub(super) enum After {
    Nothing,
    Wake(Waker),
    /// Drop what was held, and close the descriptor that came too late.
    Discard {
        held: Held,
        descriptor: Option<i32>,
    },
    Cancel(Key),
}

/// The operations of one ring.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Option<u32>,
    in_flight: usize,
}

impl Slots {
    /// Operations that the kernel has not completed.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A slot for an operation in flight.
    pub(super) fn insert(&mut self, held: Held) -> Key {
        self.in_flight += 1;
        self.take(State::InFlight { held, waker: None })
    }

    /// A slot for an operation in flight that nobody will wait for.
    pub(super) fn insert_orphan(&mut self, held: Held) -> Key {
        self.in_flight += 1;
        self.take(State::Orphaned { held })
    }

    /// A slot for an operation that failed before it reached the kernel.
    pub(super) fn insert_done(&mut self, completion: Completion) -> Key {
        self.take(State::Done(completion))
    }

    fn take(&mut self, state: State) -> Key {
        if let Some(index) = self.free {
            let slot = &mut self.slots[index as usize];
            let State::Free { next } = slot.state else { unreachable!("the free list holds free slots only") };
            self.free = next;
            slot.state = state;
            return Key { index, generation: slot.generation };
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 operations in flight");
        self.slots.push(Slot { generation: 0, state });
        Key { index, generation: 0 }
    }

    /// Swaps the slot's state for "free", which becomes true only if the caller says so by [`Slots::give_back`].
    fn take_state(&mut self, key: Key) -> State {
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(slot.generation, key.generation, "an operation's slot was given back too early");
        std::mem::replace(&mut slot.state, State::Free { next: None })
    }

    fn give_back(&mut self, key: Key) {
        let slot = &mut self.slots[key.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = State::Free { next: self.free };
        self.free = Some(key.index);
    }

    /// Takes the result out if it is there; else `context` is woken when it is.
    pub(super) fn poll(&mut self, key: Key, context: &Context<'_>) -> Option<Completion> {
        let slot = &mut self.slots[key.index as usize];
        assert_eq!(slot.generation, key.generation, "an operation's slot was given back too early");
        if let State::InFlight { waker, .. } = &mut slot.state {
            if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            return None;
        }
        let State::Done(completion) = self.take_state(key) else {
            unreachable!("a future's slot is in flight or done")
        };
        self.give_back(key);
        Some(completion)
    }

    /// The kernel has completed the operation.
    pub(super) fn complete(&mut self, key: Key, result: i32) -> After {
        self.in_flight -= 1;
        match self.take_state(key) {
            State::InFlight { held, waker } => {
                self.slots[key.index as usize].state = State::Done(Completion { result, held });
                waker.map_or(After::Nothing, After::Wake)
            }
            State::Orphaned { held } => {
                self.give_back(key);
                let descriptor = (held.orphan.closes() && result >= 0).then_some(result);
                After::Discard { held, descriptor }
            }
            State::Free { .. } | State::Done(_) => unreachable!("the kernel completes an operation once"),
        }
    }

    /// The waiting future was dropped.
    pub(super) fn abandon(&mut self, key: Key) -> After {
        match self.take_state(key) {
            State::InFlight { held, .. } => {
                let cancels = held.orphan.cancels();
                self.slots[key.index as usize].state = State::Orphaned { held };
                if cancels { After::Cancel(key) } else { After::Nothing }
            }
            State::Done(Completion { result, held }) => {
                self.give_back(key);
                let descriptor = (held.orphan.closes() && result >= 0).then_some(result);
                After::Discard { held, descriptor }
            }
            State::Free { .. } | State::Orphaned { .. } => unreachable!("a future is dropped once"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(orphan: Orphan) -> Held {
        Held { descriptor: None, memory: Memory::Nothing, orphan }
    }

    #[test]
    fn a_slot_is_used_again_under_another_key() {
        let mut slots = Slots::default();
        let context = Context::from_waker(Waker::noop());
        let first = slots.insert(held(Orphan::Finish));
        assert_eq!(Key::from_user_data(first.user_data()), first);
        assert!(slots.poll(first, &context).is_none());
        assert!(matches!(slots.complete(first, 7), After::Wake(_)));
        assert_eq!(slots.in_flight(), 0);
        assert_eq!(slots.poll(first, &context).expect("done").result, 7);

        let second = slots.insert(held(Orphan::Finish));
        assert_eq!(second.index, first.index);
        assert_ne!(second.user_data(), first.user_data());
    }

    #[test]
    fn an_orphan_keeps_its_slot_until_the_kernel_is_done() {
        let mut slots = Slots::default();
        let key = slots.insert(held(Orphan::CancelOrClose));
        assert!(matches!(slots.abandon(key), After::Cancel(cancelled) if cancelled == key));
        let other = slots.insert(held(Orphan::Finish));
        assert_ne!(other.index, key.index, "the kernel may still write there");
        assert!(matches!(slots.complete(key, 5), After::Discard { descriptor: Some(5), .. }));
        assert_eq!(slots.insert(held(Orphan::Finish)).index, key.index);
        assert!(matches!(slots.abandon(other), After::Nothing));
        assert!(matches!(slots.complete(other, 5), After::Discard { descriptor: None, .. }));
    }

    #[test]
    fn a_result_nobody_took_is_discarded() {
        let mut slots = Slots::default();
        let key = slots.insert(held(Orphan::Close));
        assert!(matches!(slots.complete(key, 9), After::Nothing));
        assert!(matches!(slots.abandon(key), After::Discard { descriptor: Some(9), .. }));
        assert_eq!(slots.in_flight(), 0);
    }
}
