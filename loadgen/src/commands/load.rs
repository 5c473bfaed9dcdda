//! `e2e`, `produce`, `consume`: a run, its table, its files, its gate.
//!
//! One run each; what runs again and again builds on the functions here. What is measured, and what a run is worth, is decided
//! in [`crate::load`].

use std::io::BufWriter;
use std::path::Path;

use corelane::runtime::Duration;

use super::live::Live;
use super::{advise, client_exit, fail, file_error, print, read_result, write_file, write_json};
use crate::cli::{
    ConsumeArguments, E2eArguments, Exit, GateArguments, OutputArguments, ProduceArguments, ResultLine,
    TargetArguments, UsageError,
};
use crate::export::hlog::{self, Recorded};
use crate::export::{csv, hgrm};
use crate::load::measure::{Latencies, LatencyKind};
use crate::load::options::{LoadOptions, StartAt};
use crate::load::{self, LoadError, LoadResult, WorkerError};
use crate::machine::ProcessUsage;
use crate::report::{self, Named};
use crate::result::{Interval, ResultFile, RunState, SCHEMA};
use crate::{gate, machine, table};

/// A run with producers and consumers.
pub fn e2e(arguments: E2eArguments) -> ResultLine {
    measure("e2e", e2e_options(&arguments), &arguments.target, &arguments.output, &arguments.gate)
}

/// What such a run is made of.
pub(super) fn e2e_options(arguments: &E2eArguments) -> Result<LoadOptions, UsageError> {
    let E2eArguments { target, run, pace, producers, data, consumers, backlog, .. } = arguments;
    let properties = target.properties()?;
    let producers = producers.options(pace.pace(data), data, &properties)?;
    let consumers = consumers.options(backlog, StartAt::Latest, &properties)?;
    run.load(target, &properties, Some(producers), Some(consumers))
}

/// A run with producers only.
pub fn produce(arguments: ProduceArguments) -> ResultLine {
    let ProduceArguments { target, run, pace, producers, data, output, gate } = arguments;
    let options = target.properties().and_then(|properties| {
        let producers = producers.options(pace.pace(&data), &data, &properties)?;
        run.load(&target, &properties, Some(producers), None)
    });
    measure("produce", options, &target, &output, &gate)
}

/// A run with consumers only.
pub fn consume(arguments: ConsumeArguments) -> ResultLine {
    let ConsumeArguments { target, run, consumers, output, gate } = arguments;
    let options = target.properties().and_then(|properties| {
        let consumers = consumers.options(&Default::default(), StartAt::Earliest, &properties)?;
        run.load(&target, &properties, None, Some(consumers))
    });
    measure("consume", options, &target, &output, &gate)
}

fn measure(
    command: &str,
    options: Result<LoadOptions, UsageError>,
    target: &TargetArguments,
    output: &OutputArguments,
    gate: &GateArguments,
) -> ResultLine {
    let mut options = match options {
        Ok(options) => options,
        Err(error) => return fail(&error, Exit::Usage),
    };
    if let Some(interval) = output.interval {
        options.interval = interval;
    }
    let rate_target = options.rate_target(options.duration.as_secs_f64());
    let prepared = prepare(output, gate, options.broker_pid).and_then(|baseline| {
        if let (Some(path), Some(baseline)) = (&gate.baseline, &baseline) {
            gate::fits(baseline, command, rate_target).map_err(|error| file_error(path, error))?;
        }
        Ok(baseline)
    });
    let baseline = match prepared {
        Ok(baseline) => baseline,
        Err(error) => return fail(&error, Exit::Usage),
    };
    let measured = match run(options, output.quiet) {
        Ok(measured) => measured,
        Err(error) => return failed(&error),
    };
    let file = match result_file(command, target, output, &measured) {
        Ok(file) => file,
        Err(error) => return fail(&error, Exit::Invalid),
    };
    conclude(&file, &measured, output, gate, baseline.as_ref())
}

/// What is done with a result: its table, its files, its gate.
pub(super) fn conclude(
    file: &ResultFile,
    measured: &LoadResult,
    output: &OutputArguments,
    gate: &GateArguments,
    baseline: Option<&ResultFile>,
) -> ResultLine {
    if !output.quiet {
        print(&table::result(file));
    }
    let line = result_line(file);
    let written = write_outputs(output, file, file, recorded(measured));
    match written.and_then(|()| judge(gate, baseline, file)) {
        Ok(exit) if line.exit == Exit::Done => ResultLine { exit, ..line },
        Ok(_) => line,
        // What was measured was measured.
        Err(error) => ResultLine { exit: fail(&error, Exit::Usage).exit, ..line },
    }
}

/// Finds out before a run what would be in vain after it: files that cannot be written, a baseline that cannot be read, a
/// process that is not there. Yields the baseline.
pub(super) fn prepare(
    output: &OutputArguments,
    gate: &GateArguments,
    broker_pid: Option<u32>,
) -> Result<Option<ResultFile>, UsageError> {
    let OutputArguments { json, csv, hlog, hgrm, report, .. } = output;
    for path in [json, csv, hlog, hgrm, report].into_iter().flatten() {
        let was_there = path.exists();
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|error| file_error(path, error))?;
        // A run that fails leaves no empty file behind.
        if !was_there {
            std::fs::remove_file(path).map_err(|error| file_error(path, error))?;
        }
    }
    broker_pid.map(ProcessUsage::of).transpose()?;
    gate.baseline.as_deref().map(read_result).transpose()
}

/// Runs a load and shows what it does.
pub(super) fn run(options: LoadOptions, is_quiet: bool) -> Result<LoadResult, LoadError> {
    let scheduled = options.num_records.is_none().then_some(options.warmup + options.duration);
    let live = std::sync::Arc::new(Live::new(is_quiet, scheduled));
    let watching = live.clone();
    let result = load::run(options, move |interval| watching.show(interval));
    live.end();
    result
}

/// Says why there is no result, and what helps.
pub(super) fn failed(error: &LoadError) -> ResultLine {
    let line = fail(error, load_exit(error));
    if let LoadError::Worker(WorkerError::Client(error)) = error {
        advise(error);
    }
    line
}

/// How a run without a result ends.
pub(super) fn load_exit(error: &LoadError) -> Exit {
    match error {
        LoadError::Worker(WorkerError::Client(error)) => client_exit(error),
        LoadError::Worker(WorkerError::Payload(_)) | LoadError::Journal(_) => Exit::Usage,
        _ => Exit::Invalid,
    }
}

/// The result as it is kept.
pub(super) fn result_file(
    command: &str,
    target: &TargetArguments,
    output: &OutputArguments,
    measured: &LoadResult,
) -> Result<ResultFile, machine::ProcError> {
    let servers = target.properties().map(|properties| target.servers(&properties)).unwrap_or_default();
    Ok(ResultFile {
        schema: SCHEMA,
        tool: concat!("loadgen ", env!("CARGO_PKG_VERSION")).to_owned(),
        command: command.to_owned(),
        git: env!("LOADGEN_GIT").to_owned(),
        args: std::env::args().skip(1).collect(),
        tags: output.tag.iter().cloned().collect(),
        started_ms: measured.started_ms,
        machine: machine::describe()?,
        target: measured.plan.target(&servers),
        class: output.class.unwrap_or(measured.plan.class),
        result: measured.outcome.clone(),
        series: measured.intervals(),
        sweep: None,
    })
}

/// The histograms of every interval.
pub(super) fn recorded(measured: &LoadResult) -> impl Iterator<Item = Recorded<'_>> {
    measured.series.iter().flat_map(|collected| {
        let named = LatencyKind::ALL.iter().zip(&collected.sample.latencies);
        named.filter_map(|(kind, latencies)| of_interval(&collected.interval, kind.name(), latencies))
    })
}

/// A histogram of an interval, unless it is empty.
pub(super) fn of_interval<'a>(
    interval: &Interval,
    tag: &'static str,
    latencies: &'a Latencies,
) -> Option<Recorded<'a>> {
    let length = Duration::from_secs_f64(interval.seconds);
    let start = Duration::from_secs_f64(interval.at_s).saturating_sub(length);
    let histogram = &latencies.histogram;
    (!histogram.is_empty()).then_some(Recorded { start, length, tag, histogram })
}

/// Writes a result in every form that is asked for; `json` is what is kept of it.
pub(super) fn write_outputs<'a>(
    output: &OutputArguments,
    file: &ResultFile,
    json: &impl serde::Serialize,
    recorded: impl Iterator<Item = Recorded<'a>>,
) -> Result<(), UsageError> {
    if let Some(path) = &output.json {
        write_json(path, json)?;
    }
    if let Some(path) = &output.csv {
        csv::write(file, create(path)?).map_err(|error| file_error(path, error))?;
    }
    if let Some(path) = &output.hlog {
        hlog::write(create(path)?, file.started_ms, recorded).map_err(|error| file_error(path, error))?;
    }
    if let Some(path) = &output.hgrm {
        let latency = main_latency(file).ok_or_else(|| file_error(path, "no latency was measured"))?;
        let histogram = latency.histogram().map_err(|error| file_error(path, error))?;
        hgrm::write(&histogram, create(path)?).map_err(|error| file_error(path, error))?;
    }
    if let Some(path) = &output.report {
        let named = [Named { name: &file.command, file }];
        let page = report::html(&named, None).map_err(|error| file_error(path, error))?;
        write_file(path, page.as_bytes())?;
    }
    if let Some(folder) = &output.svg {
        std::fs::create_dir_all(folder).map_err(|error| file_error(folder, error))?;
        let named = Named { name: &file.command, file };
        for picture in report::pictures(&named).map_err(|error| file_error(folder, error))? {
            write_file(&folder.join(&picture.file_name), picture.svg.as_bytes())?;
        }
    }
    Ok(())
}

fn create(path: &Path) -> Result<BufWriter<std::fs::File>, UsageError> {
    std::fs::File::create(path).map(BufWriter::new).map_err(|error| file_error(path, error))
}

/// The latency that counts: of a schedule the response, without one the service, of consumers alone the fetch, of connections
/// without requests the connecting.
pub(super) fn main_latency(file: &ResultFile) -> Option<&crate::result::Latency> {
    ["response", "service", "fetch", "connect"].iter().find_map(|name| file.result.latency.get(*name))
}

/// What a run ends with, gates aside.
pub(super) fn result_line(file: &ResultFile) -> ResultLine {
    let result = &file.result;
    let is_clean = result.verify.as_ref().is_none_or(crate::result::Verification::is_clean);
    let exit = match result.state {
        _ if !is_clean => Exit::Data,
        RunState::Ok | RunState::Unpaced => Exit::Done,
        RunState::Saturated | RunState::Invalid => Exit::Invalid,
    };
    let rate = if file.command == "consume" { result.rate_out } else { result.rate_in };
    // The tail of a run that did not keep its schedule is void.
    let counts = result.state != RunState::Saturated;
    let p99 = main_latency(file).filter(|_| counts).map(|latency| Duration::from_micros(latency.p99_us));
    ResultLine { state: result.state, rate, p99, exit }
}

/// Holds a result against its SLO and its baseline.
pub(super) fn judge(
    gate: &GateArguments,
    baseline: Option<&ResultFile>,
    file: &ResultFile,
) -> Result<Exit, UsageError> {
    let mut exit = Exit::Done;
    if let (Some(path), Some(baseline)) = (&gate.baseline, baseline) {
        let changes = gate::changes(baseline, file, gate.max_regress).map_err(|error| file_error(path, error))?;
        for change in &changes {
            print(change);
            if change.regressed {
                exit = Exit::Regression;
            }
        }
    }
    if let Some(slo) = &gate.slo {
        for judgement in slo.judge(&file.result) {
            print(&judgement);
            if !judgement.met {
                exit = Exit::Slo;
            }
        }
    }
    Ok(exit)
}
