//! What the seeds of a run added up to, and what they must add up to at least.
//!
//! A harness that reaches nothing finds nothing: the rows of the recovery table, torn writes and stale bytes are counted, and
//! a run whose counts are too low fails like one that lost a record.

use std::collections::BTreeMap;
use std::fmt;

use corelane::runtime::sim::Counters;
use corelane::storage::{RecoveryCase, RecoveryReport};

/// Hits of each row of the recovery table that a run of the default size must reach.
pub(crate) const ROW_HITS_MIN: u64 = 50;

/// Counts of one seed or of many.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) seeds: u64,
    pub(crate) appends: u64,
    pub(crate) lives: u64,
    pub(crate) power_cuts: u64,
    pub(crate) kills: u64,
    pub(crate) closes: u64,
    pub(crate) disk_errors: u64,
    pub(crate) writes_torn: u64,
    pub(crate) writes_lost: u64,
    pub(crate) corruptions: u64,
    pub(crate) recoveries: u64,
    /// Recoveries that found bytes behind the end of the log.
    pub(crate) stale_hits: u64,
    pub(crate) stale_bytes: u64,
    pub(crate) batches_scanned: u64,
    pub(crate) connections: u64,
    pub(crate) rows: BTreeMap<&'static str, u64>,
}

impl Totals {
    /// Adds what the simulation itself counted.
    pub(crate) fn add_counters(&mut self, counters: &Counters) {
        self.power_cuts += counters.power_cuts;
        self.kills += counters.kills;
        self.disk_errors += counters.disk_errors;
        self.writes_torn += counters.writes_torn;
        self.writes_lost += counters.writes_lost;
        self.corruptions += counters.corruptions;
        self.connections += counters.connections;
    }

    /// Adds what a recovery reports.
    pub(crate) fn add_report(&mut self, report: &RecoveryReport) {
        self.recoveries += 1;
        self.stale_hits += u64::from(report.stale_bytes > 0);
        self.stale_bytes += report.stale_bytes;
        self.batches_scanned += report.batches_scanned;
        for case in report.cases() {
            *self.rows.entry(case.name()).or_default() += u64::from(report.hits(case));
        }
    }

    /// Adds a refusal that names its row.
    pub(crate) fn add_refusal(&mut self, case: RecoveryCase) {
        self.recoveries += 1;
        *self.rows.entry(case.name()).or_default() += 1;
    }

    /// Adds another run's counts.
    pub(crate) fn add(&mut self, other: &Totals) {
        let Totals { rows, .. } = other;
        self.seeds += other.seeds;
        self.appends += other.appends;
        self.lives += other.lives;
        self.power_cuts += other.power_cuts;
        self.kills += other.kills;
        self.closes += other.closes;
        self.disk_errors += other.disk_errors;
        self.writes_torn += other.writes_torn;
        self.writes_lost += other.writes_lost;
        self.corruptions += other.corruptions;
        self.recoveries += other.recoveries;
        self.stale_hits += other.stale_hits;
        self.stale_bytes += other.stale_bytes;
        self.batches_scanned += other.batches_scanned;
        self.connections += other.connections;
        for (row, hits) in rows {
            *self.rows.entry(row).or_default() += hits;
        }
    }

    /// The rows of the table that were met less than `least` times.
    pub(crate) fn rows_below(&self, least: u64) -> Vec<&'static str> {
        let hits = |case: &RecoveryCase| self.rows.get(case.name()).copied().unwrap_or(0);
        RecoveryCase::ALL.iter().filter(|case| hits(case) < least).map(|case| case.name()).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seeds {} · appends {} · lives {}", self.seeds, self.appends, self.lives)?;
        writeln!(
            f,
            "power cuts {} · kills {} · closes {} · disk errors {} · corruptions {} · connections {}",
            self.power_cuts, self.kills, self.closes, self.disk_errors, self.corruptions, self.connections
        )?;
        writeln!(
            f,
            "torn writes {} · lost writes {} · recoveries {} · stale-block hits {} ({} bytes) · batches scanned {}",
            self.writes_torn,
            self.writes_lost,
            self.recoveries,
            self.stale_hits,
            self.stale_bytes,
            self.batches_scanned
        )?;
        writeln!(f, "recovery rows:")?;
        for case in RecoveryCase::ALL {
            writeln!(f, "  {:<16} {:>8}", case.name(), self.rows.get(case.name()).unwrap_or(&0))?;
        }
        Ok(())
    }
}
