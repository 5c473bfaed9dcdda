//! What a shard measures about itself: counters, gauges, histograms, and the catalogue that names them.
//!
//! Every shard owns one [`ShardMetrics`] and is the only one that writes it, with plain loads and stores; a [`Reading`] of it
//! may be held by any thread, which reads the same memory. So a scrape asks no shard for anything: a shard that is stuck does
//! not hold it up, and it holds up no shard. What it reads is not one instant: each number is right by itself.
//!
//! | file | subject |
//! |---|---|
//! | `cell` | one number, or one for each value of a label |
//! | `histogram` | durations, counted in buckets |
//! | `catalogue` | every metric, defined once: a metric more is a line more there |
//! | `text` | the catalogue as Prometheus reads it |
//!
//! What this module does not do: it has no clock and opens no socket. Who measures brings the number; `admin` serves the text.

mod catalogue;
mod cell;
mod histogram;
#[cfg(test)]
mod tests;
mod text;

pub use catalogue::{ApiCode, Budget, CATALOGUE, Limit, Metric, Reading, Recording, SendKind, ShardMetrics};
pub use cell::{Counter, Family, Gauge, Label};
pub use histogram::Histogram;
pub use text::{ApiNames, CONTENT_TYPE, Kind, render};
