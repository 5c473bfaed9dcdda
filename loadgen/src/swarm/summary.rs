//! What a swarm came to: its figures, and whether they count.
//!
//! The result file is that of any run, with the latencies `connect`, `response` and `service`, answered requests as records,
//! and an object `swarm` beside it, so that whatever reads results reads it. A run counts only if every connection was made
//! and was still there at the end, and its schedules were kept.

use serde::{Deserialize, Serialize};

use super::SwarmOptions;
use super::conduct::{Conducted, Look, Shared};
use crate::machine::ProcessUsage;
use crate::result::{Latency, Outcome, OwnCost, ResultFile, RunState};

/// The share of its schedule that a run has to achieve.
const RATE_SHARE_MIN: f64 = 0.99;
/// How much later than it was due the last connection may be begun: a hiccup of this machine.
const BEGIN_LATE_MAX_S: f64 = 0.02;
/// The share of a core that a thread may use.
const CPU_SHARE_MAX: f64 = 0.8;

/// A result file of a swarm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SwarmFile {
    /// As of any run.
    #[serde(flatten)]
    pub file: ResultFile,
    /// What only a swarm has.
    pub swarm: Swarm,
}

/// What only a swarm has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swarm {
    /// What was asked: `none`, `metadata`, `produce`, `fetch`.
    pub request: String,
    /// Connections that were to be.
    pub connections: u64,
    /// Connections that were made.
    pub opened: u64,
    /// Connections that could not be made.
    pub failed: u64,
    /// Connections that were made and then lost; in the end every one was asked once more.
    pub broken: u64,
    /// Connections to begin per second; absent if as fast as they were answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_rate_target: Option<f64>,
    /// Connections made per second, from when the first was due to when the last was made.
    pub connect_rate: f64,
    /// What they cost the broker, where its pid is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<SwarmCost>,
    /// What they cost the load generator.
    #[serde(rename = "self")]
    pub own: SwarmCost,
}

/// What connections cost a process. The kernel's memory for sockets is not in it; memory that the process has kept from
/// connections of earlier runs is not counted again, so that a process that was just started shows the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SwarmCost {
    /// Resident memory before the first connection, in bytes.
    pub rss_before: u64,
    /// With every connection made.
    pub rss_connected: u64,
    /// Under requests; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_loaded: Option<u64>,
    /// A second after everything was closed.
    pub rss_after: u64,
    /// Bytes of resident memory that each connection added before the first request.
    pub bytes_per_connection: f64,
    /// The same under requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_connection_loaded: Option<f64>,
    /// Microseconds of CPU for making a connection, its request for the versions included.
    pub cpu_us_per_connect: f64,
    /// Cores in use while nothing was asked; absent if the run ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_idle: Option<f64>,
    /// Cores in use under requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_loaded: Option<f64>,
    /// Microseconds of CPU for a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_request: Option<f64>,
}

/// Adds up what was seen.
pub(super) fn sum_up(options: &SwarmOptions, shared: &Shared, seen: &Conducted, after: &Look) -> (Outcome, Swarm) {
    let total = &seen.total;
    let (_, last_connected) = shared.last_connections();
    let connect_seconds = last_connected.saturating_sub(seen.connect_start_ns) as f64 / 1e9;
    let swarm = Swarm {
        request: options.requests.map_or("none", |requests| requests.ask.name()).to_owned(),
        connections: u64::from(options.connections),
        opened: total.opened,
        failed: total.failed,
        broken: total.broken,
        connect_rate_target: options.connect_rate,
        connect_rate: if total.opened > 0 { total.opened as f64 / connect_seconds.max(1e-9) } else { 0.0 },
        broker: cost(seen, after, |look| look.broker.as_ref()),
        own: cost(seen, after, |look| Some(&look.own)).unwrap_or_default(),
    };
    // Requests due in the planned time are counted, so that is what they are divided by, unless it was cut short.
    let seconds = match &seen.measured {
        None => 0.0,
        Some((begin, end)) if shared.is_cut_short() => end.seconds_since(begin),
        Some(_) => options.load.duration.as_secs_f64(),
    };
    let rate_target = options.requests.map(|requests| requests.rate);
    let rate_in = if seconds > 0.0 { total.measured as f64 / seconds } else { 0.0 };
    let (state, reasons) = judge(options, shared, seen, rate_in);
    let record_bytes = options.requests.filter(|requests| requests.ask == super::Ask::Produce);
    let outcome = Outcome {
        state,
        reasons,
        seconds,
        rate_target,
        rate_in,
        rate_out: 0.0,
        records_in: total.measured,
        records_out: 0,
        bytes_in: record_bytes.map_or(0, |requests| requests.record_bytes as u64 * total.measured),
        bytes_out: total.measured_bytes,
        errors: total.errors + total.failed + total.broken,
        latency: total
            .latencies()
            .filter(|(_, latencies)| latencies.count() > 0)
            .map(|(name, latencies)| (name.to_owned(), Latency::new(&latencies.histogram, latencies.overflow)))
            .collect(),
        hiccup: (!seen.hiccups.is_empty()).then(|| Latency::new(&seen.hiccups, 0)),
        // Gigabytes are not what a swarm is about: see [`Swarm::broker`].
        broker: None,
        own: OwnCost {
            cpu: swarm.own.cpu_loaded.or(swarm.own.cpu_idle).unwrap_or(0.0),
            threads: options.load.threads.into(),
        },
        verify: None,
    };
    (outcome, swarm)
}

/// What it cost a process; `None` if that was not looked at.
fn cost<'a>(
    seen: &'a Conducted,
    after: &'a Look,
    process: impl Fn(&'a Look) -> Option<&'a ProcessUsage>,
) -> Option<SwarmCost> {
    let before = process(&seen.before)?;
    let cpu = |from: &'a Look, to: &'a Look| {
        let cost = process(to)?.since(process(from)?).ok()?;
        Some(cost.cpu.as_secs_f64())
    };
    let opened = seen.total.opened.max(1) as f64;
    let per_connection = |rss: u64| (rss as f64 - before.rss_bytes as f64) / opened;
    let mut cost =
        SwarmCost { rss_before: before.rss_bytes, rss_after: process(after)?.rss_bytes, ..SwarmCost::default() };
    if let Some(connected) = &seen.connected {
        cost.rss_connected = process(connected)?.rss_bytes;
        cost.bytes_per_connection = per_connection(cost.rss_connected);
        cost.cpu_us_per_connect = cpu(&seen.before, connected)? * 1e6 / opened;
        if let Some(idle) = &seen.idle {
            cost.cpu_idle = Some(cpu(connected, idle)? / idle.seconds_since(connected).max(1e-9));
        }
    }
    if let Some((begin, end)) = &seen.measured {
        let used = cpu(begin, end)?;
        let rss = process(end)?.rss_bytes;
        (cost.rss_loaded, cost.bytes_per_connection_loaded) = (Some(rss), Some(per_connection(rss)));
        cost.cpu_loaded = Some(used / end.seconds_since(begin).max(1e-9));
        cost.cpu_us_per_request = (seen.total.measured > 0).then(|| used * 1e6 / seen.total.measured as f64);
    }
    Some(cost)
}

/// What a run is worth; the reasons are for people.
fn judge(options: &SwarmOptions, shared: &Shared, seen: &Conducted, rate_in: f64) -> (RunState, Vec<String>) {
    let total = &seen.total;
    let (stopped_because, first_fault, first_error) = shared.notes();
    let mut invalid: Vec<String> = stopped_because.into_iter().collect();
    let first = first_fault.map_or(String::new(), |fault| format!("; the first: {fault}"));
    let untried = u64::from(options.connections) - total.opened - total.failed;
    if total.failed + untried > 0 {
        let missing = total.failed + untried;
        invalid.push(format!("{missing} of {} connections were not made{first}", options.connections));
    }
    if total.broken > 0 {
        invalid.push(format!("{} connections were lost{first}", total.broken));
    }
    if let Some(code) = first_error.filter(|_| total.measured == 0) {
        invalid.push(format!("no request was answered well; the first error is {code}"));
    }
    if !invalid.is_empty() {
        return (RunState::Invalid, invalid);
    }
    let mut reasons = Vec::new();
    if let Some(rate) = options.connect_rate {
        let (last_begun, _) = shared.last_connections();
        let begun_s = last_begun.saturating_sub(seen.connect_start_ns) as f64 / 1e9;
        let due_s = f64::from(options.connections - 1) / rate;
        if begun_s * RATE_SHARE_MIN > due_s + BEGIN_LATE_MAX_S {
            let achieved = f64::from(options.connections) / begun_s;
            reasons.push(format!("connections were begun at {achieved:.0}/s, not at {rate:.0}/s"));
        }
    }
    if let (Some(requests), Some((begin, end))) = (options.requests, &seen.measured) {
        if rate_in < RATE_SHARE_MIN * requests.rate {
            reasons.push(format!("{:.1} % of the rate was achieved", rate_in / requests.rate * 100.0));
        }
        let threads = f64::from(options.load.threads);
        let share = total.cpu_ns as f64 / 1e9 / end.seconds_since(begin).max(1e-9) / threads;
        if share > CPU_SHARE_MAX {
            reasons.push(format!("the threads of load used {:.0} % of their cores", share * 100.0));
        }
    }
    (if reasons.is_empty() { RunState::Ok } else { RunState::Saturated }, reasons)
}
