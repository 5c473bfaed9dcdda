//! `swarm`: many connections, their table, their files, their gate.
//!
//! The result line's rate is that of answered requests and its percentile that of their responses; without requests both are
//! of the connecting.

use std::sync::Arc;

use corelane::runtime::Duration;

use super::live::Live;
use super::load::{judge, main_latency, of_interval, prepare, write_outputs};
use super::{advise, client_exit, fail, print};
use crate::cli::{Exit, ResultLine, SwarmArguments, UsageError};
use crate::machine;
use crate::result::{ResultFile, RunState, SCHEMA};
use crate::swarm::{self, SwarmError, SwarmFile, SwarmOptions, SwarmResult, table};

/// Runs a swarm.
pub fn swarm(arguments: SwarmArguments) -> ResultLine {
    let options = match arguments.options() {
        Ok(options) => options,
        Err(error) => return fail(&error, Exit::Usage),
    };
    let baseline = match prepare(&arguments.output, &arguments.gate, options.load.broker_pid) {
        Ok(baseline) => baseline,
        Err(error) => return fail(&error, Exit::Usage),
    };
    if let Err(error) = check_baseline(&arguments, &options, baseline.as_ref()) {
        return fail(&error, Exit::Usage);
    }
    let tags = own_tags(&options);
    let measured = match run(options, arguments.output.quiet) {
        Ok(measured) => measured,
        Err(error) => {
            let line = fail(&error, exit(&error));
            if let SwarmError::Client(error) = &error {
                advise(error);
            }
            return line;
        }
    };
    let file = match swarm_file(&arguments, tags, &measured) {
        Ok(file) => file,
        Err(error) => return fail(&error, Exit::Invalid),
    };
    if !arguments.output.quiet {
        print(&table::result(&file));
    }
    let recorded = measured.series.iter().flat_map(|(interval, tally)| {
        tally.latencies().filter_map(|(name, latencies)| of_interval(interval, name, latencies))
    });
    if let Err(error) = write_outputs(&arguments.output, &file.file, &file, recorded) {
        return fail(&error, Exit::Usage);
    }
    let mut line = result_line(&file);
    match judge(&arguments.gate, baseline.as_ref(), &file.file) {
        Ok(exit) if line.exit == Exit::Done => line.exit = exit,
        Ok(_) => {}
        Err(error) => return fail(&error, Exit::Usage),
    }
    line
}

/// What tells one swarm from another, as tags, where all readers of results show it.
fn own_tags(options: &SwarmOptions) -> [(&'static str, String); 2] {
    let request = options.requests.map_or("none", |requests| requests.ask.name());
    [("connections", options.connections.to_string()), ("request", request.to_owned())]
}

/// A baseline of other connections says nothing.
fn check_baseline(
    arguments: &SwarmArguments,
    options: &SwarmOptions,
    baseline: Option<&ResultFile>,
) -> Result<(), UsageError> {
    let Some((path, baseline)) = arguments.gate.baseline.as_ref().zip(baseline) else { return Ok(()) };
    for (tag, now) in own_tags(options) {
        if let Some(before) = baseline.tags.get(tag).filter(|before| **before != now) {
            return Err(UsageError::Baseline { path: path.clone(), tag, before: before.clone(), now });
        }
    }
    Ok(())
}

fn run(options: SwarmOptions, is_quiet: bool) -> Result<SwarmResult, SwarmError> {
    let connecting = options.connect_rate.map_or(0.0, |rate| f64::from(options.connections) / rate);
    let connecting = Duration::from_secs_f64(connecting);
    let under_requests = options.requests.map_or(Duration::ZERO, |_| options.load.warmup + options.load.duration);
    let live = Arc::new(Live::new(is_quiet, Some(connecting + options.idle + under_requests)));
    let watching = live.clone();
    let result = swarm::run(options, move |progress| watching.show_swarm(progress));
    live.end();
    result
}

/// How a run without a result ends.
fn exit(error: &SwarmError) -> Exit {
    match error {
        SwarmError::Client(error) => client_exit(error),
        SwarmError::Lost(_) => Exit::Connect,
        SwarmError::Process(_) => Exit::Usage,
        SwarmError::Start(_) | SwarmError::Limit(_) => Exit::Invalid,
    }
}

/// The result as it is kept.
fn swarm_file(
    arguments: &SwarmArguments,
    own_tags: [(&'static str, String); 2],
    measured: &SwarmResult,
) -> Result<SwarmFile, machine::ProcError> {
    let (target, output) = (&arguments.target, &arguments.output);
    let servers = target.properties().map(|properties| target.servers(&properties)).unwrap_or_default();
    let swarm = measured.swarm.clone();
    let own = own_tags.map(|(key, value)| (key.to_owned(), value));
    let file = ResultFile {
        schema: SCHEMA,
        tool: concat!("loadgen ", env!("CARGO_PKG_VERSION")).to_owned(),
        command: "swarm".to_owned(),
        git: env!("LOADGEN_GIT").to_owned(),
        args: std::env::args().skip(1).collect(),
        tags: output.tag.iter().cloned().chain(own).collect(),
        started_ms: measured.plan.made.millis().unsigned_abs(),
        machine: machine::describe()?,
        target: measured.plan.load.target(&servers),
        class: output.class.unwrap_or(measured.plan.load.class),
        result: measured.outcome.clone(),
        series: measured.series.iter().map(|(interval, _)| interval.clone()).collect(),
        sweep: None,
    };
    Ok(SwarmFile { file, swarm })
}

fn result_line(file: &SwarmFile) -> ResultLine {
    let result = &file.file.result;
    let exit = match result.state {
        RunState::Ok | RunState::Unpaced => Exit::Done,
        RunState::Saturated | RunState::Invalid => Exit::Invalid,
    };
    let rate = if result.rate_target.is_some() { result.rate_in } else { file.swarm.connect_rate };
    let p99 = main_latency(&file.file).map(|latency| Duration::from_micros(latency.p99_us));
    ResultLine { state: result.state, rate, p99, exit }
}
