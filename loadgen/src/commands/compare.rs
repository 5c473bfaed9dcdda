//! `compare`: results against each other, those of files or of two brokers that are measured first.
//!
//! Where the results come from makes no difference to what is found in them. A comparison has no rate of its own; its exit
//! code tells whether the runs that it made are worth something, not who is better.

use std::path::PathBuf;

use super::report::name_of;
use super::{blocks, fail, file_error, print, read_result, write_file, write_json};
use crate::cli::{CompareArguments, Exit, ResultLine, UsageError};
use crate::compare::{self, Comparison};
use crate::report::{self, Named};
use crate::result::ResultFile;
use crate::table;

/// A result of A and one of B.
pub(super) type Pair = (ResultFile, ResultFile);

/// Compares two results, results that were measured in pairs, or two brokers.
pub fn compare(arguments: CompareArguments) -> ResultLine {
    if let Some(sides) = arguments.blocks.sides() {
        return match blocks::measure(sides, &arguments.blocks, &arguments.load) {
            Ok(measured) => match conclude(&measured.pairs, ["A, block 1", "B, block 1"], &arguments) {
                Ok(()) => measured.line,
                Err(error) => fail(&error, Exit::Usage),
            },
            Err(error) => fail(&error, error.exit()),
        };
    }
    match of_files(&arguments) {
        Ok(()) => ResultLine::done(),
        Err(error) => fail(&error, Exit::Usage),
    }
}

fn of_files(arguments: &CompareArguments) -> Result<(), UsageError> {
    let paths = match arguments.files.as_slice() {
        [one, other] => vec![(one.clone(), other.clone())],
        _ => paths_of(&arguments.pairs)?,
    };
    let names = paths.first().map(|(a, b)| [name_of(a), name_of(b)]).unwrap_or_default();
    conclude(&read_pairs(&paths)?, names.each_ref().map(String::as_str), arguments)
}

/// Says what was found in `pairs`, whose first is called `names`.
fn conclude(pairs: &[Pair], names: [&str; 2], arguments: &CompareArguments) -> Result<(), UsageError> {
    let comparison = of_pairs(pairs)?;
    print(&table::comparison(&comparison));
    if let Some(path) = &arguments.json {
        write_json(path, &comparison)?;
    }
    if let (Some(path), Some((a, b))) = (&arguments.report, pairs.first()) {
        let results = [Named { name: names[0], file: a }, Named { name: names[1], file: b }];
        let page = report::html(&results, Some(&comparison)).map_err(|error| file_error(path, error))?;
        write_file(path, page.as_bytes())?;
    }
    Ok(())
}

/// The paths in pairs like `a.json:b.json`.
pub(super) fn paths_of(pairs: &[String]) -> Result<Vec<(PathBuf, PathBuf)>, UsageError> {
    let split = |pair: &String| {
        let (one, other) = pair.split_once(':').ok_or_else(|| UsageError::Pair(pair.clone()))?;
        Ok((PathBuf::from(one), PathBuf::from(other)))
    };
    pairs.iter().map(split).collect()
}

pub(super) fn read_pairs(paths: &[(PathBuf, PathBuf)]) -> Result<Vec<Pair>, UsageError> {
    paths.iter().map(|(one, other)| Ok((read_result(one)?, read_result(other)?))).collect()
}

pub(super) fn of_pairs(pairs: &[Pair]) -> Result<Comparison, UsageError> {
    let pairs: Vec<_> = pairs.iter().map(|(one, other)| (one, other)).collect();
    compare::compare(&pairs).map_err(|error| UsageError::Pair(error.to_string()))
}
