//! The `loadgen` binary: reads the command line, runs the subcommand on one shard and prints its result.
//!
//! It owns standard output, whose last line is always the result line, and the exit code. Errors go to standard error. SIGINT
//! and SIGTERM end a run in order: what is under way is waited for and the journal is closed.

use std::io::Write;
use std::sync::Arc;

use clap::Parser;
use corelane::runtime::{Class, Duration, real, spawn, terminated};
use loadgen::cli::{Command, CommandLine, Exit, ResultLine, Verify};
use loadgen::client::ClientError;
use loadgen::verify::{self, CheckError, CheckOptions, Progress, WriteError, WriteOptions};

fn main() -> Exit {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // Where nobody reads, nobody needs to be told.
            let _ = error.print();
            return if exit == Exit::Done { exit } else { end(ResultLine::failed(exit)) };
        }
    };
    let Command::Verify(verify) = line.command;
    let result = match verify {
        Verify::Write(arguments) => arguments.options().map(write),
        Verify::Check(arguments) => arguments.options().map(check),
    };
    end(result.unwrap_or_else(|error| fail(&error, Exit::Usage)))
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
    print(&format!(
        "acked={} unknown={} refused={refused} batches={} bytes={} seconds={:.3}",
        summary.acked_records,
        summary.unknown_records,
        summary.acked_batches,
        summary.acked_bytes,
        summary.elapsed.as_secs_f64(),
    ));
    for (code, records) in &summary.refused_records {
        print(&format!("refused with error {code}: {records}"));
    }
    if let Some(error) = &summary.disconnected {
        print(&format!("disconnected: {error}"));
    }
    let exit = match &summary.disconnected {
        _ if refused > 0 => Exit::Invalid,
        Some(_) if summary.unknown_records > 0 => Exit::Connect,
        _ => Exit::Done,
    };
    ResultLine { rate: rate(summary.acked_records, summary.elapsed), p99: summary.response_p99, exit }
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
    print(&checked.report.to_string());
    let exit = if checked.report.is_clean() { Exit::Done } else { Exit::Data };
    ResultLine { rate: rate(checked.report.tally.read, checked.elapsed), p99: checked.fetch_p99, exit }
}

/// A broker that answers with an error is there: what was asked of it is wrong.
fn client_exit(error: &ClientError) -> Exit {
    match error {
        ClientError::Refused { .. } | ClientError::Missing { .. } | ClientError::NotSpoken(_) => Exit::Invalid,
        _ => Exit::Connect,
    }
}

fn rate(records: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { records as f64 / seconds } else { 0.0 }
}

fn fail(error: &dyn std::error::Error, exit: Exit) -> ResultLine {
    eprintln!("loadgen: {error}");
    ResultLine::failed(exit)
}

fn end(line: ResultLine) -> Exit {
    print(&line.to_string());
    line.exit
}

/// Writes a line to standard output; a reader that has gone away is no failure.
fn print(line: &str) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}
