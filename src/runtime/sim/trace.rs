//! What happened: a running hash over every event, and counters for the harness.
//!
//! Two runs of a seed are the same run exactly if their hashes are equal: each event goes in with its time, node, kind,
//! size and a checksum of its content. Nothing that differs between runs (addresses, real time) may be passed in here.

use std::fmt;

use super::node::NodeId;

/// The kinds of events in the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Poll,
    Timer,
    Start,
    Kill,
    PowerCut,
    Restart,
    Read,
    Write,
    Sync,
    Allocate,
    SetLength,
    Metadata,
    Fault,
    Connect,
    Send,
    Arrive,
    Finish,
    Reset,
    Mail,
}

/// One event of the trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) at: u64,
    pub(super) kind: Kind,
    pub(super) node: NodeId,
    /// Bytes, position or number, by kind.
    pub(super) size: u64,
    /// Checksum of the content, or 0.
    pub(super) content: u64,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { at, kind, node, size, content } = self;
        let (seconds, nanos) = (at / 1_000_000_000, at % 1_000_000_000);
        write!(f, "{seconds}.{nanos:09} node {} {kind:?} {size} {content:08x}", node.0)
    }
}

/// Events kept for the message of a run that failed.
const RECENT_ENTRIES_MAX: usize = 48;

/// The hash of all events so far, and the last few of them.
#[derive(Default)]
pub(super) struct Trace {
    hash: u64,
    recent: std::collections::VecDeque<Entry>,
}

impl Trace {
    pub(super) fn record(&mut self, entry: Entry) {
        let Entry { at, kind, node, size, content } = entry;
        for word in [at, u64::from(node.0) << 8 | u64::from(kind as u8), size, content] {
            let mixed = (self.hash.rotate_left(29) ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
            self.hash = mixed ^ (mixed >> 32);
        }
        // Polls are most of the events and tell a reader least.
        if kind != Kind::Poll {
            if self.recent.len() == RECENT_ENTRIES_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(entry);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn recent(&self) -> impl Iterator<Item = &Entry> {
        self.recent.iter()
    }
}

/// What the disks, the network and the tasks of a simulation did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Polls of tasks.
    pub polls: u64,
    /// Reads that completed.
    pub reads: u64,
    /// Writes that were submitted.
    pub writes: u64,
    /// Bytes of those writes.
    pub write_bytes: u64,
    /// Writes among them that asked to be durable.
    pub writes_durable: u64,
    /// Syncs of files that succeeded.
    pub syncs: u64,
    /// Syncs of directories that succeeded.
    pub directory_syncs: u64,
    /// Processes killed with their machine alive.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Writes not durable at a power cut of which some sectors survived and some did not, counting only sectors that the
    /// write changed.
    pub writes_torn: u64,
    /// Writes not durable at a power cut of which no sector survived, though they changed some.
    pub writes_lost: u64,
    /// Writes not durable at a power cut that survived whole.
    pub writes_kept: u64,
    /// Sectors whose last content a power cut took away.
    pub sectors_lost: u64,
    /// Sectors that a power cut left as garbage or unreadable.
    pub sectors_damaged: u64,
    /// Changes of names that a power cut took away.
    pub names_lost: u64,
    /// Files whose length a power cut took back to an older one.
    pub lengths_lost: u64,
    /// Errors that the disks gave because of a fault.
    pub disk_errors: u64,
    /// Bits flipped and writes misdirected.
    pub corruptions: u64,
    /// Connections that were established.
    pub connections: u64,
    /// Connections that were reset.
    pub resets: u64,
    /// Bytes that arrived over streams.
    pub network_bytes: u64,
    /// Parcels that arrived in mailboxes between shards: requests, replies, farewells.
    pub mail: u64,
}
