//! Bugs that are planted to prove that the tests find them. Without the feature `planted-bugs` nothing of this is compiled in.
//!
//! One bug at a time, named by the environment variable `CORELANE_PLANT` when the process starts, or by [`plant`] in a test of
//! the same thread. What it never does: change anything while no bug is named.

/// A bug to plant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Recovery takes a batch whose CRC is wrong.
    SkipCrc,
    /// Recovery leaves stale bytes behind the end of the log.
    SkipZeroing,
    /// Batches count as committed before they are durable.
    AckBeforeDurable,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Bug; 3] = [Bug::SkipCrc, Bug::SkipZeroing, Bug::AckBeforeDurable];

    /// Its name in `CORELANE_PLANT`.
    pub const fn name(self) -> &'static str {
        match self {
            Bug::SkipCrc => "skip-crc",
            Bug::SkipZeroing => "skip-zeroing",
            Bug::AckBeforeDurable => "ack-before-durable",
        }
    }
}

#[cfg(feature = "planted-bugs")]
mod active {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = Cell::new(from_environment());
    }

    fn from_environment() -> Option<Bug> {
        let name = std::env::var("CORELANE_PLANT").ok()?;
        let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
        assert!(bug.is_some(), "CORELANE_PLANT={name:?} names no bug");
        bug
    }

    /// Plants `bug`, or none, in what this thread runs from now on.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(in crate::storage) fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use active::plant;

#[cfg(feature = "planted-bugs")]
pub(super) use active::is_planted;

/// Whether `bug` is planted: never, in a build without the feature.
#[cfg(not(feature = "planted-bugs"))]
pub(super) const fn is_planted(_bug: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_unless_asked() {
        assert!(Bug::ALL.into_iter().all(|bug| !is_planted(bug)) || std::env::var_os("CORELANE_PLANT").is_some());
    }
}
