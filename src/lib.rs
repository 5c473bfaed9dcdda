//! Corelane, a Kafka-compatible event-streaming broker for Linux.
//!
//! One shard per core, each owning its partitions; io_uring with O_DIRECT to disk; metadata as a replicated log. The modules
//! are layers: a module names only modules of lower layers, and modules of one layer do not know each other.
//!
//! | layer | module | what lives there |
//! |---|---|---|
//! | 0 | [`types`] | offsets, epochs, ids, Kafka error codes, limits |
//! | 1 | [`config`] | every broker and topic key, defined once |
//! | 1 | [`metrics`] | what a shard counts, and the catalogue of it |
//! | 1 | [`record`] | record batches v2: zero-copy header, validation, stamping, codecs |
//! | 1 | [`wire`] | Kafka requests and responses; flatbuffers code in [`wire::generated`] |
//! | 2 | [`runtime`] | tasks, time, memory, files, sockets: the only door to the machine, real or simulated |
//! | 3 | [`controller`] | pure: the cluster's image, and the handlers that change it by records |
//! | 3 | [`storage`] | the partition's log: append, read, recovery, retention; the metadata log's frames |
//! | 4 | [`partition`] | a log with its leadership and those who wait for it |
//! | 4 | [`quorum`] | from proposed metadata records to committed ones |
//! | 5 | [`broker`] | one core's world: connections, router, a file per API |
//! | 6 | [`admin`] | metrics and health over HTTP, on a side thread |
//! | 7 | [`cli`] | command line, exit codes, log output, ready line |

pub mod admin;
pub mod broker;
pub mod cli;
pub mod config;
pub mod controller;
pub mod metrics;
pub mod partition;
pub mod quorum;
pub mod record;
pub mod runtime;
pub mod storage;
pub mod types;
pub mod wire;
