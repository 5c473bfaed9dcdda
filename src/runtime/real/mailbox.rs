//! Bells between shards: how one shard's thread tells another's that something lies in a lane for it.
//!
//! A bell that is rung is a flag, which the other shard sees when it looks at its ring, and something that gets it out of its
//! sleep: a message to its io_uring (IORING_OP_MSG_RING), which is a completion there, wherever it sleeps, and none here. The
//! message goes out with the turn's other submissions. Where that does not work (a kernel without it, this shard's ring shut
//! down, the other one's dying) the eventfd is written that ends the other shard's sleep in glommio; in its ring it sleeps
//! for one tick at most. A bell that was rung and not heard yet is not rung again, so a busy shard is told once per turn.
//!
//! The ring keeps every bell that it ever rang, since a submission names the bell's descriptor until the kernel has it.
//!
//! Sources: io_uring_enter(2), IORING_OP_MSG_RING (Linux 5.18), IOSQE_CQE_SKIP_SUCCESS (5.17).

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Weak;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::{opcode, squeue, types};

use super::ring::Ring;
use crate::runtime::mailbox::Collect;

/// The upper 47 bits of the `user_data` of what the bells submit. No slot has such a key: its index would be above
/// 2^32 - 2^18, and as many slots do not fit in memory.
const SIGNALS: u64 = u64::MAX << 17;
const HEARD: u64 = SIGNALS | 1 << 16;

/// What a completion says about bells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signal {
    /// Another shard's message.
    Heard,
    /// The message to the bell of this number was not delivered.
    Failed(u16),
}

impl Signal {
    /// What `user_data` means; `None` for operations and the ring's own timers.
    pub(super) fn of(user_data: u64) -> Option<Signal> {
        match user_data {
            HEARD => Some(Signal::Heard),
            _ if user_data >> 16 == SIGNALS >> 16 => Some(Signal::Failed(user_data as u16)),
            _ => None,
        }
    }

    fn user_data(self) -> u64 {
        match self {
            Signal::Heard => HEARD,
            Signal::Failed(number) => SIGNALS | u64::from(number),
        }
    }
}

/// The bell of one shard, for all threads.
pub(in crate::runtime) struct Bell {
    /// Set by whoever rings, cleared by the shard before it looks into its lanes.
    is_rung: AtomicBool,
    /// A descriptor of the shard's ring of its own: the number stays this ring's when the ring is shut down.
    ring: OwnedFd,
    /// What ends the shard's sleep in glommio.
    eventfd: OwnedFd,
}

impl Bell {
    fn write_eventfd(&self) {
        super::executor::write_eventfd(self.eventfd.as_raw_fd());
    }
}

/// The bells that one shard has to do with.
pub(super) struct Bells {
    own: OnceCell<Arc<Bell>>,
    listeners: RefCell<Vec<Weak<dyn Collect>>>,
    /// Every bell that was rung; its index is its number.
    rung: RefCell<Vec<Arc<Bell>>>,
    /// Whether rings can send each other messages.
    sends_messages: Cell<bool>,
}

impl Bells {
    pub(super) fn new(sends_messages: bool) -> Bells {
        Bells {
            own: OnceCell::new(),
            listeners: RefCell::default(),
            rung: RefCell::default(),
            sends_messages: Cell::new(sends_messages),
        }
    }

    fn number(&self, bell: &Arc<Bell>) -> u16 {
        let mut rung = self.rung.borrow_mut();
        let known = rung.iter().position(|other| Arc::ptr_eq(other, bell));
        let index = known.unwrap_or_else(|| {
            rung.push(bell.clone());
            rung.len() - 1
        });
        u16::try_from(index).expect("a process has fewer than 65 536 shards")
    }

    /// From now on every bell is rung by its eventfd, as on a kernel without messages.
    #[cfg(test)]
    pub(super) fn forbid_messages(&self) {
        self.sends_messages.set(false);
    }
}

impl Ring {
    /// Lets `listener` look into its lanes whenever the shard's bell is rung. Returns the bell, which the shard has from its
    /// first listener on.
    pub(super) fn listen_to_bell(&self, listener: Weak<dyn Collect>) -> io::Result<Arc<Bell>> {
        let bells = self.bells();
        let bell = match bells.own.get() {
            Some(bell) => bell.clone(),
            None => {
                let (ring, eventfd) = (self.duplicate()?, self.eventfd().try_clone()?);
                let bell = Arc::new(Bell { is_rung: AtomicBool::new(false), ring, eventfd });
                bells.own.get_or_init(|| bell).clone()
            }
        };
        let mut listeners = bells.listeners.borrow_mut();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
        Ok(bell)
    }

    /// Rings the bell of another shard, which then looks into its lanes.
    pub(super) fn ring_bell(&self, bell: &Arc<Bell>) {
        // Release: what was put into a lane is seen by the look that follows the clearing.
        if bell.is_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.is_closed() || !self.bells().sends_messages.get() {
            return bell.write_eventfd();
        }
        let failed = Signal::Failed(self.bells().number(bell)).user_data();
        let message = opcode::MsgRingData::new(types::Fd(bell.ring.as_raw_fd()), 0, Signal::Heard.user_data(), None);
        self.push(message.build().flags(squeue::Flags::SKIP_SUCCESS).user_data(failed));
    }

    /// A completion about bells has come. The flag says the rest: see [`Ring::hear_bell`].
    pub(super) fn take_signal(&self, signal: Signal, result: i32) {
        if let Signal::Failed(number) = signal {
            // The other ring is going, or memory is short.
            tracing::debug!(errno = -result, "a message to another shard's ring failed");
            self.bells().rung.borrow()[usize::from(number)].write_eventfd();
        }
    }

    /// Whether this shard's bell was rung and not heard yet: a load.
    pub(super) fn is_rung(&self) -> bool {
        self.bells().own.get().is_some_and(|own| own.is_rung.load(Ordering::Relaxed))
    }

    /// Looks into the lanes if the shard's bell was rung. Says whether it was.
    pub(super) fn hear_bell(&self) -> bool {
        let Some(own) = self.bells().own.get() else { return false };
        // Acquire: what was put into a lane before the bell was rung is seen there; what comes later rings it again.
        if !self.is_rung() || !own.is_rung.swap(false, Ordering::AcqRel) {
            return false;
        }
        let listener = |index: usize| self.bells().listeners.borrow().get(index).map(Weak::upgrade);
        let mut index = 0;
        // Not borrowed while it looks: that runs destructors of what is refused.
        while let Some(listener) = listener(index) {
            if let Some(listener) = listener {
                listener.collect();
            }
            index += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_told_apart() {
        for signal in [Signal::Heard, Signal::Failed(0), Signal::Failed(7), Signal::Failed(u16::MAX)] {
            assert_eq!(Signal::of(signal.user_data()), Some(signal));
        }
        for other in [0, 1 << 32, u64::MAX, u64::MAX - 1, u64::MAX - 2, u64::from(u32::MAX)] {
            assert_eq!(Signal::of(other), None);
        }
    }
}
