//! What the doctor found: probes with figures, each held against its limit, and the verdict over all of them.
//!
//! A verdict follows from figures and limits alone, so whoever tests one needs no machine. The text of a threshold is made of
//! the limit that judges, so the two cannot differ. `fit` is false if one probe is bad: doubtful ones are for the reader to
//! weigh. It measures nothing and decides on no exit code.

use std::fmt;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::result::Machine;

/// The number of the form below.
const SCHEMA: u32 = 1;
/// Columns of the table: what a terminal has beside an editor.
const TABLE_COLUMNS: u16 = 120;

/// Everything that was looked at, as `--json` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    schema: u32,
    kind: &'static str,
    /// Whether figures from this machine, as it is now, mean something.
    pub fit: bool,
    /// The machine.
    pub machine: Machine,
    /// One after the other, in the order in which they were made.
    pub probes: Vec<Probe>,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Probe {
    /// Its name.
    pub name: &'static str,
    /// What was found, for people.
    pub measured: String,
    /// The numbers in it.
    pub figures: Vec<Figure>,
    /// What that means.
    pub verdict: Verdict,
    /// Where it stops being good, and where it becomes bad.
    pub threshold: String,
    /// Why it matters and what to do about it.
    pub why: &'static str,
}

/// A number with its unit.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// What it counts.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

/// What a probe means for measurements. The later one outweighs the earlier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing stands in the way.
    Good,
    /// The machine does not show it.
    Unknown,
    /// Results may be worse than they should be, or scatter.
    Doubtful,
    /// Results from here mean nothing.
    Bad,
}

/// Up to where a figure is good, and from there up to where it is doubtful; beyond that it is bad.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Limit {
    /// Small is good.
    Most { good: f64, doubtful: f64 },
    /// Small is good, and nothing is bad.
    MostGood(f64),
    /// Large is good.
    Least { good: f64, doubtful: f64 },
}

impl Limit {
    fn judge(self, value: f64) -> Verdict {
        let (good, doubtful) = match self {
            Limit::Most { good, doubtful } => (value <= good, value <= doubtful),
            Limit::MostGood(good) => (value <= good, true),
            Limit::Least { good, doubtful } => (value >= good, value >= doubtful),
        };
        match (good, doubtful) {
            (true, _) => Verdict::Good,
            (false, true) => Verdict::Doubtful,
            (false, false) => Verdict::Bad,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Most { good, doubtful } => write!(f, "good to {good}, bad above {doubtful}"),
            Limit::MostGood(good) => write!(f, "good to {good}"),
            Limit::Least { good, doubtful } => write!(f, "good from {good}, bad below {doubtful}"),
        }
    }
}

impl Probe {
    /// A probe that has found nothing yet.
    pub(super) fn new(name: &'static str, why: &'static str) -> Probe {
        let (measured, threshold) = (String::new(), String::new());
        Probe { name, measured, figures: Vec::new(), verdict: Verdict::Good, threshold, why }
    }

    /// Adds a number that counts.
    #[must_use]
    pub(super) fn figure(self, (name, unit): (&'static str, &'static str), value: f64, limit: Limit) -> Probe {
        let threshold = format!("{name} {limit} {unit}");
        let mut probe = self.noted((name, unit), value).threshold(threshold.trim_end());
        // What is no number is in no bounds.
        probe.verdict = probe.verdict.max(limit.judge(value));
        probe
    }

    /// Adds a number that is told, not judged.
    #[must_use]
    pub(super) fn noted(mut self, (name, unit): (&'static str, &'static str), value: f64) -> Probe {
        self.figures.push(Figure { name, value, unit });
        let digits = if value.abs() < 10.0 { 2 } else { 0 };
        let text = format!("{name} {value:.digits$} {unit}");
        self.told(text.trim_end())
    }

    /// Adds what was found in words.
    #[must_use]
    pub(super) fn told(mut self, text: &str) -> Probe {
        append(&mut self.measured, ", ", text);
        self
    }

    /// Adds what was found in words, with its verdict and what would be good.
    #[must_use]
    pub(super) fn stated(self, text: &str, verdict: Verdict, threshold: &str) -> Probe {
        let mut probe = self.told(text).threshold(threshold);
        probe.verdict = probe.verdict.max(verdict);
        probe
    }

    /// It could not be made, which is as bad as a bad result.
    #[must_use]
    pub(super) fn failed(self, error: &dyn std::error::Error) -> Probe {
        self.stated(&error.to_string(), Verdict::Bad, "it works")
    }

    fn threshold(mut self, text: &str) -> Probe {
        append(&mut self.threshold, "; ", text);
        self
    }
}

fn append(text: &mut String, separator: &str, more: &str) {
    if !text.is_empty() {
        text.push_str(separator);
    }
    text.push_str(more);
}

impl DoctorReport {
    /// The verdict over `probes`.
    pub(super) fn new(machine: Machine, probes: Vec<Probe>) -> DoctorReport {
        let fit = probes.iter().all(|probe| probe.verdict < Verdict::Bad);
        DoctorReport { schema: SCHEMA, kind: "doctor", fit, machine, probes }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Good => "good",
            Verdict::Unknown => "unknown",
            Verdict::Doubtful => "doubtful",
            Verdict::Bad => "BAD",
        })
    }
}

/// A table of all probes, and a sentence for each that is not good.
impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { host, kernel, cpu, cores, memory_bytes } = &self.machine;
        let gib = *memory_bytes as f64 / f64::from(1 << 30);
        writeln!(f, "{host}: {kernel}, {cores} cores of {cpu}, {gib:.1} GiB of memory")?;
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(TABLE_COLUMNS).set_header(["probe", "measured", "verdict", "threshold"]);
        for Probe { name, measured, verdict, threshold, .. } in &self.probes {
            table.add_row([*name, measured, &verdict.to_string(), threshold]);
        }
        writeln!(f, "{}", table.trim_fmt())?;
        for probe in self.probes.iter().filter(|probe| probe.verdict > Verdict::Unknown) {
            writeln!(f, "{} is {}: {}", probe.name, probe.verdict, probe.why)?;
        }
        f.write_str(if self.fit { "fit to measure on" } else { "NOT fit to measure on" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Limit = Limit::Most { good: 1.0, doubtful: 5.0 };
    const LEAST: Limit = Limit::Least { good: 5.0, doubtful: 1.0 };

    #[test]
    fn limits_judge_at_their_edges() {
        let rows = [
            (MOST, 1.0, Verdict::Good),
            (MOST, 1.1, Verdict::Doubtful),
            (MOST, 5.0, Verdict::Doubtful),
            (MOST, 5.1, Verdict::Bad),
            (MOST, f64::NAN, Verdict::Bad),
            (Limit::MostGood(1.0), 1.0, Verdict::Good),
            (Limit::MostGood(1.0), 1e9, Verdict::Doubtful),
            (LEAST, 5.0, Verdict::Good),
            (LEAST, 4.9, Verdict::Doubtful),
            (LEAST, 1.0, Verdict::Doubtful),
            (LEAST, 0.9, Verdict::Bad),
        ];
        for (limit, value, verdict) in rows {
            assert_eq!(limit.judge(value), verdict, "{limit:?} {value}");
        }
    }

    #[test]
    fn the_worst_figure_decides_and_one_bad_probe_is_enough() {
        let good = Probe::new("a", "why a").figure(("p50", "µs"), 0.5, MOST);
        let bad = good.clone().figure(("p99", "µs"), 70.0, MOST).figure(("rate", "/s"), 9.0, LEAST);
        assert_eq!((good.verdict, bad.verdict), (Verdict::Good, Verdict::Bad));
        assert_eq!(bad.measured, "p50 0.50 µs, p99 70 µs, rate 9.00 /s");
        assert!(bad.threshold.starts_with("p50 good to 1, bad above 5 µs; p99 "), "{}", bad.threshold);
        let unknown = Probe::new("b", "").stated("not visible", Verdict::Unknown, "");
        let doubtful = Probe::new("c", "why c").stated("odd", Verdict::Doubtful, "even");
        let fit = DoctorReport::new(Machine::default(), vec![good.clone(), unknown, doubtful]);
        assert!(fit.fit && fit.to_string().ends_with("\nc is doubtful: why c\nfit to measure on"), "{fit}");
        let unfit = DoctorReport::new(Machine::default(), vec![good, bad]);
        assert!(!unfit.fit && unfit.to_string().ends_with("\na is BAD: why a\nNOT fit to measure on"), "{unfit}");
    }

    #[test]
    fn the_json_has_its_form() {
        let probe = Probe::new("steal", "because").figure(("steal", "%"), 2.5, MOST);
        let report = DoctorReport::new(Machine::default(), vec![probe]);
        let expected = serde_json::json!({
            "schema": 1, "kind": "doctor", "fit": true,
            "machine": {"host": "", "kernel": "", "cpu": "", "cores": 0, "memory_bytes": 0},
            "probes": [{
                "name": "steal", "measured": "steal 2.50 %", "verdict": "doubtful", "why": "because",
                "figures": [{"name": "steal", "value": 2.5, "unit": "%"}],
                "threshold": "steal good to 1, bad above 5 %",
            }],
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }
}
