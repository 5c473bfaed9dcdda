//! The live line: what a run does, second by second, on standard error while it is a terminal.
//!
//! It shows the last interval and nothing else, so that it never has to be explained; what it showed is in the series.

use corelane::runtime::Duration;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::figures;
use crate::result::Interval;
use crate::swarm::{Progress, Step};

/// See the head of this file.
pub(super) struct Live {
    bar: ProgressBar,
    /// How long the run is to last, where that is known.
    seconds: Option<f64>,
}

impl Live {
    /// The line of a run that lasts so long, warm-up included.
    pub(super) fn new(is_quiet: bool, scheduled: Option<Duration>) -> Live {
        let seconds = scheduled.map(|scheduled| scheduled.as_secs_f64());
        let target = if is_quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(seconds.map(|seconds| seconds.ceil() as u64), target);
        let template =
            if seconds.is_some() { "{spinner} {pos:>4}/{len} s  {msg}" } else { "{spinner} {pos:>4} s  {msg}" };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
        Live { bar, seconds }
    }

    /// Shows an interval.
    pub(super) fn show(&self, interval: &Interval) {
        let end = self.seconds.unwrap_or(f64::INFINITY);
        self.bar.set_position(interval.at_s.min(end) as u64);
        let waits = if interval.at_s > end + interval.seconds { "waits for what is under way  " } else { "" };
        self.bar.set_message(format!("{waits}{}", line(interval)));
    }

    /// Shows how a swarm goes.
    pub(super) fn show_swarm(&self, progress: &Progress<'_>) {
        self.bar.set_position(progress.seconds.min(self.seconds.unwrap_or(f64::INFINITY)) as u64);
        self.bar.set_message(swarm_line(progress));
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn line(interval: &Interval) -> String {
    let mut parts = Vec::new();
    if interval.warmup {
        parts.push("warm-up".to_owned());
    }
    let rate = |name: &str, records: f64, bytes: f64| {
        format!("{name} {} {}", figures::records_per_second(records), figures::megabytes_per_second(bytes))
    };
    if interval.rate_in > 0.0 {
        parts.push(rate("in", interval.rate_in, interval.bytes_in));
    }
    if interval.rate_out > 0.0 {
        parts.push(rate("out", interval.rate_out, interval.bytes_out));
    }
    let ms = |micros: u64| figures::milliseconds(micros as f64);
    let acks = interval.latency.get("response").or_else(|| interval.latency.get("service"));
    if let Some(acks) = acks {
        let (p50, p99, p999, max) = (ms(acks.p50_us), ms(acks.p99_us), ms(acks.p999_us), ms(acks.max_us));
        parts.push(format!("p50 {p50} p99 {p99} p99.9 {p999} max {max} ms"));
    }
    if let Some(e2e) = interval.latency.get("e2e") {
        parts.push(format!("e2e p99 {} ms", ms(e2e.p99_us)));
    }
    if interval.backlog > 0 {
        parts.push(format!("backlog {}", figures::count(interval.backlog)));
    }
    if interval.errors > 0 {
        parts.push(format!("errors {}", interval.errors));
    }
    parts.push(format!("own CPU {:.0} %", interval.own_cpu * 100.0));
    parts.join("  ")
}

fn swarm_line(progress: &Progress<'_>) -> String {
    let step = match progress.step {
        Step::Connect => "connected",
        Step::Load => "under requests",
        Step::Probe => "asked again",
        Step::Close => "closing",
    };
    let mut parts = vec![format!("{step}  connections {}", progress.opened)];
    if progress.lost > 0 {
        parts.push(format!("lost {}", progress.lost));
    }
    parts.extend(progress.interval.map(line));
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::result::IntervalLatency;

    #[test]
    fn the_line_says_what_there_is_and_no_more() {
        let mut interval = Interval { rate_in: 1_250_000.0, bytes_in: 125e6, own_cpu: 0.42, ..Interval::default() };
        let text = line(&interval);
        assert!(text.contains("1.25 M/s") && text.contains("125 MB/s") && text.ends_with("own CPU 42 %"), "{text}");
        assert!(!text.contains("out") && !text.contains("p50") && !text.contains("backlog"), "{text}");
        let latency = IntervalLatency { p50_us: 1_000, p99_us: 2_500, p999_us: 3_000, max_us: 4_000, count: 1 };
        interval.latency = BTreeMap::from([("e2e".to_owned(), latency), ("response".to_owned(), latency)]);
        (interval.warmup, interval.backlog, interval.errors) = (true, 12, 3);
        let text = line(&interval);
        assert!(text.starts_with("warm-up  in") && text.contains("e2e p99 2.5"), "{text}");
        assert!(text.contains("backlog 12  errors 3"), "{text}");
    }
}
