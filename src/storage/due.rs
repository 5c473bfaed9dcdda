//! Which logs of a shard wait for a checkpoint, and when each is due.
//!
//! A log is in the list from its first append after a checkpoint until it has nothing behind its last one, and at most once,
//! so the list is never longer than there are logs, and a log that nobody writes to is never looked at. It is due when its
//! last checkpoint is old enough, or at once when enough bytes came. An append to a log that is in the list costs a comparison.
//!
//! What this file does not do: it writes no checkpoint; whoever takes a log out calls [`Log::checkpoint_if_due`], which puts
//! it back if need be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::log::{Inner, Log, Phase, State};
use super::shard::Storage;
use crate::runtime::{Duration, Instant};

/// How long a log rests after it was looked at and could not be checkpointed, or has grown again at once.
const REST: Duration = Duration::from_secs(1);

/// The logs of a shard that wait, by the time when they are due, and their number.
#[derive(Default)]
pub(super) struct DueCheckpoints {
    logs: RefCell<BTreeMap<(Instant, u64), Weak<Inner>>>,
}

impl DueCheckpoints {
    /// Forgets a log that is no more.
    pub(super) fn forget(&self, due: Option<Instant>, number: u64) {
        if let Some(due) = due {
            self.logs.borrow_mut().remove(&(due, number));
        }
    }
}

impl State {
    /// When the next checkpoint is due, if there is something behind the last one.
    fn checkpoint_due(&self) -> Option<Instant> {
        let last = &self.checkpoint;
        let (interval, bytes_max) = (self.options.checkpoint_interval, self.options.checkpoint_bytes);
        let by_bytes = self.appended_bytes - last.appended_bytes >= bytes_max;
        (self.accepted > last.point).then(|| if by_bytes { last.at } else { last.at.plus(interval) })
    }
}

impl Inner {
    /// To be called when the log has grown.
    pub(super) fn note_growth(self: &Rc<Self>, state: &State) {
        let Some(due) = state.checkpoint_due() else { return };
        if self.checkpoint_due.get().is_none_or(|known| due < known) {
            self.set_checkpoint_due(Some(due));
        }
    }

    /// To be called when the log was looked at.
    pub(super) fn note_checkpoint(self: &Rc<Self>) {
        let rested = Instant::now().plus(REST);
        let due = {
            let state = self.state.borrow();
            let closed = state.closing || matches!(state.phase, Phase::Closed);
            if closed { None } else { state.checkpoint_due() }
        };
        self.set_checkpoint_due(due.map(|due| due.max(rested)));
    }

    fn set_checkpoint_due(self: &Rc<Self>, due: Option<Instant>) {
        let mut logs = self.storage.due_checkpoints.logs.borrow_mut();
        if let Some(before) = self.checkpoint_due.replace(due) {
            logs.remove(&(before, self.number));
        }
        if let Some(due) = due {
            logs.insert((due, self.number), Rc::downgrade(self));
        }
    }
}

impl Storage {
    /// Takes out a log whose checkpoint is due at `now`; [`Log::checkpoint_if_due`] is to be called for it. To be asked until
    /// there is none, now and then, by one task of the shard.
    pub fn take_checkpoint_due(&self, now: Instant) -> Option<Log> {
        let mut logs = self.due_checkpoints.logs.borrow_mut();
        while let Some(first) = logs.first_entry() {
            if first.key().0 > now {
                break;
            }
            // What the log itself holds of its due time stays: it does not come back before it was looked at.
            if let Some(log) = first.remove().upgrade() {
                return Some(Log(log));
            }
        }
        None
    }

    /// How many logs wait for a checkpoint.
    pub fn checkpoints_waiting(&self) -> usize {
        self.due_checkpoints.logs.borrow().len()
    }
}
