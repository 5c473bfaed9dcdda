//! `report`: a page of results that are there already.
//!
//! It reads files and writes one; what is on the page is decided in [`crate::report`]. Results may have been measured in
//! pairs that are not on the page themselves.

use std::path::Path;

use super::compare::{of_pairs, paths_of, read_pairs};
use super::{fail, file_error, read_result, write_file};
use crate::cli::{Exit, ReportArguments, ResultLine, UsageError};
use crate::report::{self, Named};

/// Makes the page.
pub fn report(arguments: ReportArguments) -> ResultLine {
    match make(&arguments) {
        Ok(()) => ResultLine::done(),
        Err(error) => fail(&error, Exit::Usage),
    }
}

fn make(arguments: &ReportArguments) -> Result<(), UsageError> {
    let files = arguments.files.iter().map(|path| read_result(path)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = arguments.files.iter().map(|path| name_of(path)).collect();
    let comparison = match arguments.pairs.as_slice() {
        [] => None,
        pairs => Some(of_pairs(&read_pairs(&paths_of(pairs)?)?)?),
    };
    let results: Vec<Named<'_>> = names.iter().zip(&files).map(|(name, file)| Named { name, file }).collect();
    let page = report::html(&results, comparison.as_ref());
    let page = page.map_err(|error| file_error(&arguments.out, error))?;
    write_file(&arguments.out, page.as_bytes())
}

/// What a page calls a result: its file's name without the ending.
pub(super) fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}
