//! `sweep`: runs the steps that a search asks for, shows them as they end, and keeps the run at the knee.
//!
//! A step is a run of its own on the topics of the others, whose records its consumers begin behind. A step whose data is
//! faulty, or that did not do what it was to do, ends the sweep and is its result: no rate is worth anything then.

use std::fmt;

use super::load::{load_exit, prepare, recorded, result_file, result_line, run, write_outputs};
use super::{fail, print};
use crate::cli::{Exit, GateArguments, ResultLine, SweepArguments};
use crate::figures;
use crate::load::options::LoadOptions;
use crate::load::schedule::Pace;
use crate::load::{LoadError, LoadResult};
use crate::metric::{Metric, Point, Span};
use crate::result::{IntervalLatency, Latency, Outcome, RunState, Sweep, SweepStep, Verification};
use crate::sweep::criterion::Criterion;
use crate::sweep::{End, Judged, Next, Search, SearchOptions};

/// Finds the knee.
pub fn sweep(arguments: SweepArguments) -> ResultLine {
    let SweepArguments { search, target, output, .. } = &arguments;
    let (options, searched) = match arguments.options().and_then(|options| Ok((options, search.options()?))) {
        Ok(options) => options,
        Err(error) => return fail(&error, Exit::Usage),
    };
    if let Err(error) = prepare(output, &GateArguments::default(), options.broker_pid) {
        return fail(&error, Exit::Usage);
    }
    let criterion = Criterion::Slo(search.slo.clone());
    let found = match find(&options, &searched, &criterion, output.quiet) {
        Ok(found) => found,
        Err(error) => return fail(&error, load_exit(&error)),
    };
    let mut file = match result_file("sweep", target, output, &found.run) {
        Ok(file) => file,
        Err(error) => return fail(&error, Exit::Invalid),
    };
    file.sweep = Some(found.sweep);
    if let Err(error) = write_outputs(output, &file, &file, recorded(&found.run)) {
        return fail(&error, Exit::Usage);
    }
    let line = result_line(&file);
    match found.end {
        Some(End::Below) => ResultLine { exit: Exit::Slo, ..line },
        _ => line,
    }
}

/// What a sweep found.
pub(super) struct Found {
    /// How the search ended; `None` if a step ended it.
    pub(super) end: Option<End>,
    /// The steps.
    pub(super) sweep: Sweep,
    /// The last run at the knee; the last run of all where there is no knee.
    pub(super) run: LoadResult,
}

/// Searches for the highest rate at which this load meets `criterion`. Blocks until it is found.
pub(super) fn find(
    options: &LoadOptions,
    searched: &SearchOptions,
    criterion: &Criterion,
    is_quiet: bool,
) -> Result<Found, LoadError> {
    let show = |line: &dyn fmt::Display| {
        if !is_quiet {
            print(line)
        }
    };
    show(&format_args!("{criterion}, {} times in a row\n{HEAD}", searched.repeats));
    let (mut search, mut steps) = (Search::new(searched), Vec::new());
    // The last run of the rung that was met last, and the last that met no rung.
    let (mut at_knee, mut last) = (None, None);
    let (end, kept) = loop {
        let rate = match search.next() {
            Next::Run(rate) => rate,
            Next::Done(end) => break (Some(end), if end.rate().is_some() { at_knee } else { last }),
        };
        let measured = run(with_rate(options, rate), is_quiet)?;
        let why_not = why_not(criterion, options, &measured);
        steps.push(step(rate, why_not.is_none(), &measured.outcome));
        show(&Row { rate, outcome: &measured.outcome, why_not: why_not.as_deref() });
        if !is_sound(&measured.outcome) {
            break (None, Some(measured));
        }
        match search.record(why_not.is_none()) {
            Judged::Met => at_knee = Some(measured),
            Judged::Open | Judged::Refused => last = Some(measured),
        }
    };
    let run = kept.expect("a search ends with a rung that was run");
    let knee = end.and_then(End::rate);
    show(&Conclusion { end, searched });
    Ok(Found { end, sweep: Sweep { slo: criterion.to_string(), knee, steps }, run })
}

/// The same load at another rate.
pub(super) fn with_rate(options: &LoadOptions, rate: f64) -> LoadOptions {
    let mut options = options.clone();
    options.producers.as_mut().expect("a load with a rate has producers").pace = Some(Pace::steady(rate));
    options
}

/// Whether the run did what it was to do, at whatever rate, and the brokers kept their promises.
fn is_sound(outcome: &Outcome) -> bool {
    outcome.state != RunState::Invalid && outcome.verify.as_ref().is_none_or(Verification::is_clean)
}

/// Why a run of this load does not meet `criterion`; `None` if it does.
pub(super) fn why_not(criterion: &Criterion, options: &LoadOptions, measured: &LoadResult) -> Option<String> {
    let end = options.warmup + options.duration;
    criterion.why_not(&measured.outcome, &measured.intervals(), end.as_secs_f64())
}

fn step(rate_target: f64, met: bool, outcome: &Outcome) -> SweepStep {
    let percentiles = |latency: &Latency| {
        let Latency { p50_us, p99_us, p999_us, max_us, count, .. } = *latency;
        IntervalLatency { p50_us, p99_us, p999_us, max_us, count }
    };
    SweepStep {
        rate_target,
        rate_in: outcome.rate_in,
        bytes_in: outcome.bytes_in as f64 / outcome.seconds,
        state: outcome.state,
        met,
        latency: outcome.latency.iter().map(|(name, latency)| (name.clone(), percentiles(latency))).collect(),
    }
}

/// Above the rows.
const HEAD: &str = concat!(
    "                                        response, ms                       e2e, ms\n",
    "      rate   achieved        p50       p99     p99.9       p50       p99     p99.9   met"
);
/// What the rows show of each span.
const POINTS: [Point; 3] = [Point::Quantile(0.5), Point::Quantile(0.99), Point::Quantile(0.999)];

/// A step as a row; latencies that are void are in brackets.
struct Row<'a> {
    rate: f64,
    outcome: &'a Outcome,
    why_not: Option<&'a str>,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = figures::records_per_second;
        write!(f, "{:>10} {:>10} ", rate(self.rate), rate(self.outcome.rate_in))?;
        for span in [Span::Response, Span::EndToEnd] {
            for point in POINTS {
                let value = self.outcome.latency.get(span.name()).and_then(|latency| point.of(latency).ok());
                let text = value.map_or("-".to_owned(), figures::milliseconds);
                let counts = Metric::Latency(span, point).read(self.outcome).is_ok();
                write!(f, "{:>10}", if counts || value.is_none() { text } else { format!("({text})") })?;
            }
        }
        match self.why_not {
            None => f.write_str("   yes"),
            Some(why_not) => write!(f, "   no: {why_not}"),
        }
    }
}

/// The last line of the steps.
struct Conclusion<'a> {
    end: Option<End>,
    searched: &'a SearchOptions,
}

impl fmt::Display for Conclusion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SearchOptions { rate_min, rate_max, resolution, repeats } = *self.searched;
        let rate = figures::records_per_second;
        match self.end {
            Some(End::Knee(knee)) => {
                let within = figures::percent(resolution);
                write!(f, "knee {} (to {within}): met {repeats} times in a row", rate(knee))
            }
            Some(End::Beyond(_)) => write!(f, "knee {} or above, where --max-rate ends the search", rate(rate_max)),
            Some(End::Below) => write!(f, "no knee: {} is too much already", rate(rate_min)),
            None => f.write_str("no knee: the sweep was ended by its last step"),
        }
    }
}
