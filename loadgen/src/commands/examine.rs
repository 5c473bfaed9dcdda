//! `doctor`: whether this machine is fit to measure on.
//!
//! It prints what was found and says how it ends; the probes and their limits are in [`crate::doctor`].

use super::{fail, print, write_json};
use crate::cli::{DoctorArguments, Exit, ResultLine};
use crate::doctor::{DoctorOptions, examine};

/// Examines the machine. One that is not fit ends as an invalid run does.
pub fn doctor(arguments: DoctorArguments) -> ResultLine {
    let report = match examine(&DoctorOptions { directory: arguments.data_dir }) {
        Ok(report) => report,
        Err(error) => return fail(&error, Exit::Invalid),
    };
    print(&report);
    if let Some(path) = &arguments.json
        && let Err(error) = write_json(path, &report)
    {
        return fail(&error, Exit::Usage);
    }
    if report.fit { ResultLine::done() } else { ResultLine::failed(Exit::Invalid) }
}
