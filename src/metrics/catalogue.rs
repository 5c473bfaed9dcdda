//! The catalogue: every metric of a shard, defined once. A metric more is one line of the table, with its documentation.
//!
//! The table makes the fields of [`ShardMetrics`], which a shard writes through its [`Recording`], and the rows of
//! [`CATALOGUE`], by which a [`Reading`] is written out. The type of a field is the kind of its metric; the field's
//! documentation is the help text of the metric and its row in the README, which a test compares.
//!
//! Names are `corelane_<noun>_<unit>[_total]`, in bytes and seconds; what has no unit is a plain count. All have the label
//! `shard`. Nothing here says when a number changes: whoever owns the event counts it.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use super::cell::{Counter, Family, Gauge, Label};
use super::histogram::Histogram;
use super::text::{Kind, Render, Series};

/// One metric, as the outside knows it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// The name in full.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The label that it has beside `shard`.
    pub label: Option<&'static str>,
    documentation: &'static str,
    pub(super) write: fn(&ShardMetrics, &mut Series<'_>),
}

impl Metric {
    /// What it counts, in a sentence or two.
    pub fn help(&self) -> &'static str {
        self.documentation.trim()
    }
}

macro_rules! catalogue {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $name:literal;)+) => {
        /// The metrics of one shard.
        #[derive(Debug, Default)]
        // Two shards never write the same pair of cache lines, which processors fetch together.
        #[repr(align(128))]
        pub struct ShardMetrics {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        /// Every metric, in the order of the table.
        pub const CATALOGUE: &[Metric] = &[
            $(Metric {
                name: $name,
                kind: <$type as Render>::KIND,
                label: <$type as Render>::LABEL,
                documentation: concat!($($doc),+),
                write: |metrics, series| metrics.$field.render(series),
            },)+
        ];
    };
}

catalogue! {
    // Clients.

    /// Bytes of record batches that were appended for producers.
    produce_bytes: Counter = "corelane_produce_bytes_total";
    /// Bytes of record batches in answers to fetches.
    fetch_bytes: Counter = "corelane_fetch_bytes_total";
    /// Bytes of answers that the kernel has taken whole, by how it took them.
    send_bytes: Family<SendKind, Counter> = "corelane_send_bytes_total";
    /// From a request that has arrived whole to its answer being handed to the socket, or to its end if it gets no answer.
    requests: Family<ApiCode, Histogram> = "corelane_request_seconds";
    /// From a batch that lies in the append buffers to its being committed: durable, or written with write caching.
    appends: Histogram = "corelane_append_seconds";
    /// Open connections of clients.
    connections: Gauge = "corelane_connections";
    /// What this shard asked of others: parts of clients' requests, connections handed over, work on the cluster's metadata.
    cross_shard_requests: Counter = "corelane_cross_shard_requests_total";
    /// Connections refused or ended, and sessions not opened, by the limit that was met.
    limits_met: Family<Limit, Counter> = "corelane_limits_met_total";
    /// Fetch sessions that are open.
    fetch_sessions: Gauge = "corelane_fetch_sessions";
    /// Memory in use, by the budget that it is charged to.
    memory_bytes: Family<Budget, Gauge> = "corelane_memory_bytes";

    // Storage.

    /// Bytes written to files, whatever for.
    device_written_bytes: Counter = "corelane_device_written_bytes_total";
    /// Writes of batches that were carried out.
    commits: Counter = "corelane_commits_total";
    /// Bytes of the writes of batches, zero tails and rewritten blocks included.
    commit_bytes: Counter = "corelane_commit_bytes_total";
    /// Small writes of batches that had to extend their file.
    unprepared_commits: Counter = "corelane_unprepared_commits_total";
    /// Syncs of segments.
    syncs: Counter = "corelane_syncs_total";
    /// Bytes that were zeroed ahead of appends.
    prewritten_bytes: Counter = "corelane_prewritten_bytes_total";
    /// Segments that were begun.
    rolls: Counter = "corelane_rolls_total";
    /// Segments whose space had to be prepared while batches waited.
    unprepared_rolls: Counter = "corelane_unprepared_rolls_total";
    /// Idempotent producers that were forgotten because a partition had too many.
    producers_evicted: Counter = "corelane_producers_evicted_total";
    /// Segments that were removed.
    segments_removed: Counter = "corelane_segments_removed_total";
    /// Checkpoints that were written.
    checkpoints: Counter = "corelane_checkpoints_total";
    /// Damaged batches that were met, by reads and by recovery.
    corruptions: Counter = "corelane_corruptions_total";
    /// Failures of a write or sync.
    failures: Counter = "corelane_write_failures_total";
    /// Logs that are closed by a failure now.
    failed_logs: Gauge = "corelane_log_failed";
}

/// How the kernel took bytes that were sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendKind {
    /// Copied into the socket's buffer by an ordinary send.
    Sent,
}

impl SendKind {
    pub(super) const VALUES: [&'static str; 1] = ["sent"];
}

impl Label for SendKind {
    const NAME: &'static str = "kind";
    const COUNT: usize = SendKind::VALUES.len();
    const FROM_START: bool = true;

    fn index(self) -> usize {
        self as usize
    }
}

/// A part of a shard's memory with a limit of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Budget {
    /// Append buffers, which are the cache of recent records too.
    Append,
    /// Requests that are received or worked on.
    Requests,
    /// Answers that wait to be sent.
    Responses,
    /// Reads from disk.
    Reads,
}

impl Budget {
    pub(super) const VALUES: [&'static str; 4] = ["append", "requests", "responses", "reads"];
}

impl Label for Budget {
    const NAME: &'static str = "budget";
    const COUNT: usize = Budget::VALUES.len();
    const FROM_START: bool = true;

    fn index(self) -> usize {
        self as usize
    }
}

/// A limit of what clients may take, named after its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// `max.connections`.
    Connections,
    /// `max.connections.per.ip`.
    ConnectionsPerIp,
    /// Descriptors, of which some are kept for files.
    Descriptors,
    /// `connections.handshake.timeout.ms`.
    Handshake,
    /// `request.receive.timeout.ms`.
    Receive,
    /// `response.send.timeout.ms`.
    Send,
    /// `connections.max.idle.ms`.
    Idle,
    /// `socket.request.max.bytes`.
    RequestBytes,
    /// `max.request.elements`.
    RequestElements,
    /// The memory for requests.
    RequestMemory,
    /// `max.incremental.fetch.session.cache.slots`, or the memory for sessions.
    FetchSessions,
}

impl Limit {
    pub(super) const VALUES: [&'static str; 11] = [
        "connections",
        "connections_per_ip",
        "descriptors",
        "handshake",
        "receive",
        "send",
        "idle",
        "request_bytes",
        "request_elements",
        "request_memory",
        "fetch_sessions",
    ];
}

impl Label for Limit {
    const NAME: &'static str = "limit";
    const COUNT: usize = Limit::VALUES.len();
    const FROM_START: bool = true;

    fn index(self) -> usize {
        self as usize
    }
}

/// The key of an API of the protocol, which its name stands for in the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApiCode(u8);

impl ApiCode {
    /// The key `code`; `None` outside 0–127. Kafka's are below 100 today.
    pub const fn new(code: i16) -> Option<ApiCode> {
        if code >= 0 && code < Self::COUNT as i16 { Some(ApiCode(code as u8)) } else { None }
    }
}

impl Label for ApiCode {
    const NAME: &'static str = "api";
    const COUNT: usize = 128;
    const FROM_START: bool = false;

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A shard's own handle of its metrics, the only one that writes. It cannot leave the shard's thread; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    metrics: Arc<ShardMetrics>,
    stays: PhantomData<*const ()>,
}

impl Recording {
    /// A handle for any thread, to read what is recorded here.
    pub fn reading(&self) -> Reading {
        Reading(self.metrics.clone())
    }
}

impl Deref for Recording {
    type Target = ShardMetrics;

    fn deref(&self) -> &ShardMetrics {
        &self.metrics
    }
}

/// The metrics of a shard as others see them: [`super::render`] writes them out.
#[derive(Clone, Debug)]
pub struct Reading(pub(super) Arc<ShardMetrics>);
