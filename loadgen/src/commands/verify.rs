//! `verify`: the writing half and the reading half.
//!
//! Each is a run of its own with a result line of its own, so that anything may happen in between.

use std::sync::Arc;

use corelane::runtime::{Class, Duration, real, spawn, terminated};

use super::{client_exit, fail, print};
use crate::cli::{Exit, ResultLine, Verify};
use crate::result::RunState;
use crate::verify::{self, CheckError, CheckOptions, Progress, WriteError, WriteOptions};

/// Runs one of the halves.
pub fn verify(verify: Verify) -> ResultLine {
    let result = match verify {
        Verify::Write(arguments) => arguments.options().map(write),
        Verify::Check(arguments) => arguments.options().map(check),
    };
    result.unwrap_or_else(|error| fail(&error, Exit::Usage))
}

fn write(options: WriteOptions) -> ResultLine {
    let run = async {
        let progress = Arc::new(Progress::default());
        let stopping = progress.clone();
        drop(spawn(Class::Background, async move {
            terminated().await;
            stopping.stop();
        }));
        verify::write(options, progress).await
    };
    let summary = match real::run(&real::Options::default(), run) {
        Err(error) => return fail(&error, Exit::Invalid),
        Ok(Err(error)) => {
            let exit = match &error {
                WriteError::Client(error) => client_exit(error),
                WriteError::Journal(_) => Exit::Usage,
            };
            return fail(&error, exit);
        }
        Ok(Ok(summary)) => summary,
    };
    let refused: u64 = summary.refused_records.values().sum();
    print(&format_args!(
        "acked={} unknown={} refused={refused} batches={} bytes={} seconds={:.3}",
        summary.acked_records,
        summary.unknown_records,
        summary.acked_batches,
        summary.acked_bytes,
        summary.elapsed.as_secs_f64(),
    ));
    for (code, records) in &summary.refused_records {
        print(&format_args!("refused with error {code}: {records}"));
    }
    if let Some(error) = &summary.disconnected {
        print(&format_args!("disconnected: {error}"));
    }
    let exit = match &summary.disconnected {
        _ if refused > 0 => Exit::Invalid,
        Some(_) if summary.unknown_records > 0 => Exit::Connect,
        _ => Exit::Done,
    };
    ResultLine {
        state: state(exit),
        rate: rate(summary.acked_records, summary.elapsed),
        p99: summary.response_p99,
        exit,
    }
}

fn check(options: CheckOptions) -> ResultLine {
    let run = async move { verify::check(&options).await };
    let checked = match real::run(&real::Options::default(), run) {
        Err(error) => return fail(&error, Exit::Invalid),
        Ok(Err(error)) => {
            let exit = match &error {
                CheckError::Client(error) => client_exit(error),
                _ => Exit::Usage,
            };
            return fail(&error, exit);
        }
        Ok(Ok(checked)) => checked,
    };
    print(&checked.report);
    let exit = if checked.report.is_clean() { Exit::Done } else { Exit::Data };
    ResultLine {
        state: state(exit),
        rate: rate(checked.report.tally.read, checked.elapsed),
        p99: checked.fetch_p99,
        exit,
    }
}

fn state(exit: Exit) -> RunState {
    if exit == Exit::Done { RunState::Ok } else { RunState::Invalid }
}

fn rate(records: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { records as f64 / seconds } else { 0.0 }
}
