//! What each subcommand does: from its options to its result line.
//!
//! They print to standard output what people want to see, and errors to standard error; files are written where options ask
//! for them. The measuring, judging and drawing is done elsewhere.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use crate::cli::{Exit, ResultLine, UsageError};
use crate::client::ClientError;
use crate::result::{ResultFile, SCHEMA};

mod blocks;
mod compare;
mod examine;
mod live;
mod load;
mod replay;
mod report;
mod selftest;
mod serve;
mod swarm;
mod sweep;
mod verify;

pub use compare::compare;
pub use examine::doctor;
pub use load::{consume, e2e, produce};
pub use replay::replay;
pub use report::report;
pub use selftest::selftest;
pub use swarm::swarm;
pub use sweep::sweep;
pub use verify::verify;

/// Writes a line to standard output; a reader that has gone away is no failure.
pub fn print(line: &dyn Display) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

/// Says what went wrong.
pub fn fail(error: &dyn Display, exit: Exit) -> ResultLine {
    eprintln!("loadgen: {error}");
    ResultLine::failed(exit)
}

/// A broker that answers with an error is there: what was asked of it is wrong.
fn client_exit(error: &ClientError) -> Exit {
    match error {
        _ if error.is_unknown_topic() => Exit::Usage,
        ClientError::Refused { .. } | ClientError::Missing { .. } | ClientError::NotSpoken(_) => Exit::Invalid,
        _ => Exit::Connect,
    }
}

/// Says what helps, where that is known.
fn advise(error: &ClientError) {
    if error.is_unknown_topic() {
        eprintln!("loadgen: there is no such topic; --create makes it");
    }
}

fn file_error(path: &Path, what: impl Display) -> UsageError {
    UsageError::File { path: path.to_owned(), what: what.to_string() }
}

/// Reads a result file.
fn read_result(path: &Path) -> Result<ResultFile, UsageError> {
    let text = std::fs::read_to_string(path).map_err(|error| file_error(path, error))?;
    let file: ResultFile = serde_json::from_str(&text).map_err(|error| file_error(path, error))?;
    if file.schema > SCHEMA {
        return Err(file_error(path, format!("a result of schema {}, of a newer loadgen", file.schema)));
    }
    Ok(file)
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), UsageError> {
    std::fs::write(path, content).map_err(|error| file_error(path, error))
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), UsageError> {
    let mut text = serde_json::to_vec(value).map_err(|error| file_error(path, error))?;
    text.push(b'\n');
    write_file(path, &text)
}
