//! Two brokers measured in interleaved blocks, for `compare`: A and B, then B and A, and so on.
//!
//! Each half of a block is a run of e2e with the same options, on topics that are made for it and deleted after it where the
//! broker knows how. The halves change places from block to block, so that what drifts does not always befall the same one.
//! A run that is invalid ends the measurement: what would be compared then is not what was asked for. A saturated one does
//! not: that a broker does not keep up is a finding.
//!
//! It restarts no broker and clears no cache: that needs to know the broker, and is for scripts.

use std::path::{Path, PathBuf};

use corelane::runtime::random_u64;
use corelane::runtime::real::{self, StartError};

use super::compare::Pair;
use super::load::{e2e_options, load_exit, result_file, result_line, run};
use super::{file_error, print, write_json};
use crate::cli::{BlockLoadArguments, BlocksArguments, E2eArguments, Exit, ResultLine, Side, UsageError};
use crate::client::{Bootstrap, ClientError, delete_topic};
use crate::figures;
use crate::load::LoadError;
use crate::machine::ProcError;
use crate::metric::{Metric, Point, Span};
use crate::result::{ResultFile, RunState};

/// What was measured.
pub(super) struct Measured {
    /// Of each block the result of A and that of B.
    pub(super) pairs: Vec<Pair>,
    /// How it ends: with the worst of the runs.
    pub(super) line: ResultLine,
}

/// Why a measurement came to no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BlockError {
    /// Options, or a file.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A run without a result.
    #[error("{run}: {error}")]
    Load { run: String, error: LoadError },
    /// A run whose result counts for nothing.
    #[error("{run} is invalid: {reasons}")]
    Invalid { run: String, reasons: String },
    /// The machine does not tell what it is.
    #[error(transparent)]
    Machine(#[from] ProcError),
    /// The machine lacks something.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl BlockError {
    /// How the subcommand ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            BlockError::Usage(_) => Exit::Usage,
            BlockError::Load { error, .. } => load_exit(error),
            BlockError::Invalid { .. } | BlockError::Machine(_) | BlockError::Start(_) => Exit::Invalid,
        }
    }
}

/// Measures both sides in every block, and says so run by run.
pub(super) fn measure(
    sides: [Side<'_>; 2],
    blocks: &BlocksArguments,
    load: &BlockLoadArguments,
) -> Result<Measured, BlockError> {
    if let Some(folder) = &blocks.keep {
        std::fs::create_dir_all(folder).map_err(|error| file_error(folder, error))?;
    }
    let run_id = real::run(&real::Options::default(), async { random_u64() })?;
    let (mut pairs, mut line) = (Vec::new(), ResultLine::done());
    for number in 1..=blocks.blocks {
        let half = |side: Side<'_>| {
            let topic = format!("loadgen-{run_id:016x}-{number}-{}", side.name);
            let file = measure_one(side, number, load.e2e(side, topic, number), blocks.quiet)?;
            if let Some(folder) = &blocks.keep {
                write_json(&path_of(folder, number, side), &file)?;
            }
            Ok::<_, BlockError>(file)
        };
        let [a, b] = sides;
        let pair = if number % 2 == 1 {
            let first = half(a)?;
            (first, half(b)?)
        } else {
            let first = half(b)?;
            (half(a)?, first)
        };
        for file in [&pair.0, &pair.1] {
            line = worse(line, result_line(file));
        }
        pairs.push(pair);
    }
    if let Some(folder) = &blocks.keep {
        let pair = |number| sides.map(|side| path_of(folder, number, side).display().to_string()).join(":");
        let pairs: Vec<String> = (1..=blocks.blocks).map(pair).collect();
        print(&format_args!("kept: loadgen compare --pairs {}", pairs.join(",")));
    }
    Ok(Measured { pairs, line })
}

fn path_of(folder: &Path, number: u32, side: Side<'_>) -> PathBuf {
    folder.join(format!("{number}-{}.json", side.name))
}

/// One run on topics of its own.
fn measure_one(side: Side<'_>, number: u32, arguments: E2eArguments, is_quiet: bool) -> Result<ResultFile, BlockError> {
    let name = format!("block {number}, {}", side.name.to_uppercase());
    let options = e2e_options(&arguments)?;
    let (bootstrap, topics) = (options.bootstrap.clone(), options.topics.names.clone());
    let measured = run(options, is_quiet);
    real::run(&real::Options::default(), async move { delete(&bootstrap, &topics).await })?;
    let measured = measured.map_err(|error| BlockError::Load { run: name.clone(), error })?;
    let file = result_file("e2e", &arguments.target, &arguments.output, &measured)?;
    if file.result.state == RunState::Invalid {
        return Err(BlockError::Invalid { run: name, reasons: file.result.reasons.join("; ") });
    }
    if !is_quiet {
        print(&format_args!("{name}: {}", summary(&file)));
    }
    Ok(file)
}

/// Deletes the topics of a run. What cannot be deleted stays, and is told of unless the broker deletes none at all.
async fn delete(bootstrap: &Bootstrap, topics: &[String]) {
    let deleted = async {
        let connection = bootstrap.connect().await?;
        for topic in topics {
            delete_topic(&connection, topic).await?;
        }
        Ok(())
    };
    match deleted.await {
        Ok(()) => {}
        Err(ClientError::NotSpoken(_)) => tracing::debug!("the broker does not delete topics"),
        Err(error) => tracing::warn!(%error, "a topic of a finished run stays"),
    }
}

/// A run in a line.
fn summary(file: &ResultFile) -> String {
    let outcome = &file.result;
    let shown = [
        Metric::RateIn,
        Metric::Cpu,
        Metric::Latency(Span::Response, Point::Quantile(0.5)),
        Metric::Latency(Span::Response, Point::Quantile(0.99)),
    ];
    let figure = |metric: &Metric| {
        let value = metric.read(outcome).ok()?;
        Some(format!("{metric} {}", figures::with_unit(*metric, value)))
    };
    let figures: Vec<String> = shown.iter().filter_map(figure).collect();
    format!("{}, {}", outcome.state.name(), figures.join(", "))
}

/// Of two ends the one that says more against what was measured, without the rate of either.
fn worse(one: ResultLine, other: ResultLine) -> ResultLine {
    let rank = |line: &ResultLine| {
        let state = match line.state {
            RunState::Ok => 0,
            RunState::Unpaced => 1,
            RunState::Saturated => 2,
            RunState::Invalid => 3,
        };
        (line.exit == Exit::Data, state)
    };
    let ResultLine { state, exit, .. } = if rank(&other) > rank(&one) { other } else { one };
    ResultLine { state, exit, ..ResultLine::done() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(state: RunState, exit: Exit) -> ResultLine {
        ResultLine { state, rate: 5.0, p99: None, exit }
    }

    #[test]
    fn a_measurement_ends_as_its_worst_run() {
        let (ok, unpaced) = (line(RunState::Ok, Exit::Done), line(RunState::Unpaced, Exit::Done));
        let (saturated, lost) = (line(RunState::Saturated, Exit::Invalid), line(RunState::Ok, Exit::Data));
        let end = |lines: &[ResultLine]| lines.iter().copied().fold(ResultLine::done(), worse).to_string();
        assert_eq!(end(&[ok, ok]), "RESULT state=ok rate=0 p99_ms=- exit=0");
        assert_eq!(end(&[unpaced, unpaced]), "RESULT state=unpaced rate=0 p99_ms=- exit=0");
        assert_eq!(end(&[ok, saturated, ok]), "RESULT state=saturated rate=0 p99_ms=- exit=5");
        assert_eq!(end(&[saturated, lost, ok]), "RESULT state=ok rate=0 p99_ms=- exit=4");
    }
}
