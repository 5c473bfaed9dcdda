//! What is made of results: pages, tables, comparisons, gates and exports, through the public interface.
//!
//! Results are made up from seeds (`sample`), so that every state of a run and every odd figure is there; that a real run
//! writes such results is not shown here. `REPORT_PAGES` names a folder into which the pages are written for
//! scripts/report-check, which looks at them with a browser.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod compared;
mod exported;
mod gated;
mod pages;
mod pictures;
mod sample;
mod tabled;
