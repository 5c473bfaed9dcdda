//! Faults of a disk: by rate, drawn from the seed, or on request for the next operation on a matching path.
//!
//! The fault model that they serve: an I/O error leaves any subset of a write's sectors behind; a failed sync leaves what it
//! should have made durable in doubt for good; a bit flips in what was durable; a write lands somewhere else and reports
//! success. Power cuts are the disk's own subject.

use super::random::{PerMillion, Random};

/// What a fault can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    /// A read fails with EIO and delivers nothing.
    ReadError,
    /// A durable sector of what a read covers has lost a bit for good.
    BitFlip,
    /// A write fails with EIO; any subset of its sectors is written.
    WriteError,
    /// A write goes to other blocks of the same file and reports success.
    MisdirectedWrite,
    /// A sync of a file fails with EIO: what it covers is never made durable by a later sync, unless written again.
    SyncError,
    /// Reserving space fails with ENOSPC, whatever the capacity.
    NoSpace,
    /// A change of names or of a directory fails with EIO and does not happen.
    NameError,
}

/// The faults of a disk by rate; none by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskFaults {
    /// Chance of a read.
    pub read_errors: PerMillion,
    /// Chance of a read.
    pub bit_flips: PerMillion,
    /// Chance of a write.
    pub write_errors: PerMillion,
    /// Chance of a write.
    pub misdirected_writes: PerMillion,
    /// Chance of a sync.
    pub sync_errors: PerMillion,
    /// Factor on the time of every operation; 1 is a healthy disk.
    pub slowdown: u32,
}

impl Default for DiskFaults {
    fn default() -> DiskFaults {
        DiskFaults {
            read_errors: PerMillion::NEVER,
            bit_flips: PerMillion::NEVER,
            write_errors: PerMillion::NEVER,
            misdirected_writes: PerMillion::NEVER,
            sync_errors: PerMillion::NEVER,
            slowdown: 1,
        }
    }
}

/// The kinds of operations that faults strike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Read,
    Write,
    Sync,
    Reserve,
    Names,
}

struct Request {
    fault: DiskFault,
    path_part: String,
}

/// The faults that wait on one disk.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) rates: DiskFaults,
    requests: Vec<Request>,
}

impl DiskFault {
    fn strikes(self) -> Operation {
        match self {
            DiskFault::ReadError | DiskFault::BitFlip => Operation::Read,
            DiskFault::WriteError | DiskFault::MisdirectedWrite => Operation::Write,
            DiskFault::SyncError => Operation::Sync,
            DiskFault::NoSpace => Operation::Reserve,
            DiskFault::NameError => Operation::Names,
        }
    }
}

impl Faults {
    /// Lets the next operation that `fault` can strike, on a path that contains `path_part`, meet it.
    pub(super) fn request(&mut self, fault: DiskFault, path_part: &str) {
        self.requests.push(Request { fault, path_part: path_part.to_owned() });
    }

    /// The fault that an operation on `path` meets.
    pub(super) fn draw(&mut self, operation: Operation, path: &str, random: &mut Random) -> Option<DiskFault> {
        let requested =
            self.requests.iter().position(|it| it.fault.strikes() == operation && path.contains(&it.path_part));
        if let Some(index) = requested {
            return Some(self.requests.remove(index).fault);
        }
        let rates: &[(PerMillion, DiskFault)] = match operation {
            Operation::Read => {
                &[(self.rates.read_errors, DiskFault::ReadError), (self.rates.bit_flips, DiskFault::BitFlip)]
            }
            Operation::Write => &[
                (self.rates.write_errors, DiskFault::WriteError),
                (self.rates.misdirected_writes, DiskFault::MisdirectedWrite),
            ],
            Operation::Sync => &[(self.rates.sync_errors, DiskFault::SyncError)],
            Operation::Reserve | Operation::Names => &[],
        };
        rates.iter().find(|(chance, _)| random.happens(*chance)).map(|&(_, fault)| fault)
    }
}
