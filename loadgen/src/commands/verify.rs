//! `verify`: the writing half and the reading half.
//!
//! Each is a run of its own with a result line of its own, so that anything may happen in between.

use corelane::runtime::{Duration, real};

use super::{client_exit, fail, print};
use crate::cli::{Exit, ResultLine, Verify};
use crate::journal::file::JournalTally;
use crate::load::LoadOptions;
use crate::result::RunState;
use crate::verify::{self, CheckError, CheckOptions};

/// The error code under which a journal counts what no broker was ever asked to take.
const NEVER_SENT: i16 = 0;

/// Runs one of the halves.
pub fn verify(verify: Verify) -> ResultLine {
    let result = match verify {
        Verify::Write(arguments) => arguments.options().map(|options| write(options, arguments.quiet)),
        Verify::Check(arguments) => arguments.options().map(check),
    };
    result.unwrap_or_else(|error| fail(&error, Exit::Usage))
}

fn write(options: LoadOptions, is_quiet: bool) -> ResultLine {
    let measured = match super::load::run(options, is_quiet) {
        Ok(measured) => measured,
        Err(error) => return super::load::failed(&error),
    };
    let (outcome, tally) = (&measured.outcome, measured.journal.expect("the run had a journal"));
    let mut refused = tally.refused_records;
    let unsent = refused.remove(&NEVER_SENT).unwrap_or(0);
    let JournalTally { acked_batches, acked_records, unknown_records, .. } = tally;
    print(&format_args!(
        "acked={acked_records} unknown={unknown_records} refused={} unsent={unsent} batches={acked_batches} seconds={:.3}",
        refused.values().sum::<u64>(),
        outcome.seconds,
    ));
    for (code, records) in &refused {
        print(&format_args!("refused with error {code}: {records}"));
    }
    let exit = match unknown_records + unsent {
        _ if !refused.is_empty() => Exit::Invalid,
        0 => Exit::Done,
        _ => Exit::Connect,
    };
    let latency = outcome.latency.get("response").or_else(|| outcome.latency.get("service"));
    let p99 = latency.map(|latency| Duration::from_micros(latency.p99_us));
    ResultLine { state: state(exit), rate: outcome.rate_in, p99, exit }
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
