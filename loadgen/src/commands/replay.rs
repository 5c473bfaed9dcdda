//! `replay`: a workload file of the OpenMessaging Benchmark as a run.
//!
//! With `producerRate: 0` the highest rate that producers and consumers keep up with is looked for first. The benchmark changes
//! the rate of one long run every few seconds, up and down for ever; here it is the search of `sweep` with the benchmark's
//! criterion, which has an end. A little below the rate that was found the load is then run as long as the file says, and that
//! is the result: of a load that was given no schedule, so that its throughput counts and its latencies do not.

use std::path::Path;

use corelane::runtime::real;

use super::load::{conclude, load_exit, prepare, result_file, run};
use super::sweep::{find, why_not, with_rate};
use super::{fail, file_error};
use crate::cli::{Exit, ReplayArguments, ResultLine, UsageError, short_steps};
use crate::load::measure::LatencyKind;
use crate::load::plan::Plan;
use crate::load::{LoadError, LoadOptions, LoadResult};
use crate::replay::{ReplayPlan, Workload};
use crate::result::{Outcome, RunState, Sweep};
use crate::sweep::SearchOptions;
use crate::sweep::criterion::Criterion;

/// The part of the highest rate that the long run has, as in the benchmark: at the highest rate itself whatever is slow for a
/// moment is never caught up with.
const LONG_RUN: f64 = 0.95;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("topic {topic} has {found} partitions, and the workload wants {wanted}: choose another --topic")]
    Partitions { topic: String, found: usize, wanted: u32 },
}

/// Runs the workload.
pub fn replay(arguments: ReplayArguments) -> ResultLine {
    let prepared = read(&arguments.workload).and_then(|plan| {
        let (target, options) = (arguments.target(&plan)?, arguments.options(&plan)?);
        let baseline = prepare(&arguments.output, &arguments.gate, options.broker_pid)?;
        Ok((plan, target, options, baseline))
    });
    let (plan, target, options, baseline) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return fail(&error, Exit::Usage),
    };
    let measured = check_topics(&options, &plan).and_then(|()| measure(options, arguments.output.quiet));
    let (measured, sweep) = match measured {
        Ok(measured) => measured,
        Err(ReplayError::Load(error)) => return fail(&error, load_exit(&error)),
        Err(error) => return fail(&error, Exit::Usage),
    };
    let mut file = match result_file("replay", &target, &arguments.output, &measured) {
        Ok(file) => file,
        Err(error) => return fail(&error, Exit::Invalid),
    };
    file.sweep = sweep;
    file.tags.entry("workload".to_owned()).or_insert(plan.name);
    conclude(&file, &measured, &arguments.output, &arguments.gate, baseline.as_ref())
}

fn read(path: &Path) -> Result<ReplayPlan, UsageError> {
    let text = std::fs::read_to_string(path).map_err(|error| file_error(path, error))?;
    let workload = Workload::parse(&text).map_err(|error| file_error(path, error))?;
    workload.plan().map_err(|error| file_error(path, error))
}

/// Makes the topics; those that are there already may be others than the workload's.
fn check_topics(options: &LoadOptions, plan: &ReplayPlan) -> Result<(), ReplayError> {
    let asked = options.clone();
    let made = real::run(&real::Options::default(), async move { Plan::make(&asked).await });
    let made = made.map_err(LoadError::from)?.map_err(LoadError::from)?;
    for (number, topic) in made.topics.iter().enumerate() {
        let found = made.partitions.iter().filter(|partition| partition.topic == number).count();
        let wanted = plan.partitions_per_topic;
        if found != wanted as usize {
            return Err(ReplayError::Partitions { topic: topic.to_string(), found, wanted });
        }
    }
    Ok(())
}

/// The workload's run, and the search for its rate where it has none. A search that finds none leaves its last step.
fn measure(options: LoadOptions, is_quiet: bool) -> Result<(LoadResult, Option<Sweep>), ReplayError> {
    if options.producers.as_ref().is_some_and(|producers| producers.pace.is_some()) {
        return Ok((run(options, is_quiet)?, None));
    }
    let found = find(&short_steps(&options), &SearchOptions::default(), &Criterion::KeptUp, is_quiet)?;
    let Some(rate) = found.sweep.knee else { return Ok((found.run, Some(found.sweep))) };
    let options = with_rate(&options, LONG_RUN * rate);
    let mut measured = run(options.clone(), is_quiet)?;
    if measured.outcome.state != RunState::Invalid {
        let behind = why_not(&Criterion::KeptUp, &options, &measured);
        forget_schedule(&mut measured.outcome, behind);
    }
    Ok((measured, Some(found.sweep)))
}

/// The schedule was found, and not given: the throughput counts, and what bounded it are the signs of saturation, and who was
/// behind at the end.
fn forget_schedule(outcome: &mut Outcome, behind: Option<String>) {
    (outcome.state, outcome.rate_target) = (RunState::Unpaced, None);
    outcome.latency.retain(|name, _| [LatencyKind::Service, LatencyKind::Fetch].iter().any(|kind| kind.name() == name));
    outcome.reasons.extend(behind);
}
