//! Results in the forms that other tools read: the series as CSV, histograms as HdrHistogram's logs and distributions.
//!
//! | module | what | read by |
//! |---|---|---|
//! | [`csv`] | one line per interval | spreadsheets, pandas, R |
//! | [`hlog`] | one histogram per interval and latency | HdrHistogram's log processors and viewers |
//! | [`hgrm`] | the distribution of one latency, in milliseconds | HdrHistogram's plotter |
//!
//! They write to what they are given and neither open nor close files.

pub mod csv;
pub mod hgrm;
pub mod hlog;
