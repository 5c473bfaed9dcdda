//! Options of `sweep`: those of a run with producers and consumers, but for its rate, and those of the search for one.
//!
//! A step has to be short, since there are many: the times of a run have other defaults here. Every step begins behind what
//! the steps before it left in the topics, so options that would read that are refused, and so is what would end the sweep
//! instead of a step.

use clap::Args;
use corelane::runtime::Duration;

use super::{
    ConsumerArguments, DataArguments, OutputArguments, ProducerArguments, RunArguments, TargetArguments, UsageError,
    values,
};
use crate::gate::{Slo, allowance};
use crate::load::options::{LoadOptions, Overload, StartAt};
use crate::load::schedule::Pace;
use crate::sweep::SearchOptions;

/// Times of a step, unless given; intervals are short enough that a step shows whether something grows.
const DURATION: Duration = Duration::from_secs(5);
const WARMUP: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(500);
/// What `--interval` has at least.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The same load with the times of a step, where its own are not shorter.
pub fn short_steps(options: &LoadOptions) -> LoadOptions {
    let (duration, warmup) = (options.duration.min(DURATION), options.warmup.min(WARMUP));
    let interval = (duration / 4).clamp(INTERVAL_MIN, INTERVAL);
    LoadOptions { duration, warmup, interval, ..options.clone() }
}

/// The options of `loadgen sweep`.
#[derive(Clone, Debug, Args)]
#[command(mut_arg("duration", |arg| arg.default_value("5s").help("Measured time of a step")))]
#[command(mut_arg("warmup", |arg| arg.default_value("1s").help("Time before it")))]
#[command(mut_arg("interval", |arg| arg.help("Length of an interval [default: 500ms]")))]
#[allow(missing_docs, reason = "each part says what it is")]
pub struct SweepArguments {
    #[command(flatten)]
    pub search: SearchArguments,
    #[command(flatten)]
    pub target: TargetArguments,
    #[command(flatten)]
    pub run: RunArguments,
    #[command(flatten)]
    pub producers: ProducerArguments,
    #[command(flatten)]
    pub data: DataArguments,
    #[command(flatten)]
    pub consumers: ConsumerArguments,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// What is searched.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Search")]
pub struct SearchArguments {
    /// What a step is to achieve; a saturated one achieves nothing
    #[arg(long, value_name = "OBJECTIVES", default_value = "p99<20ms,rate>=0.99")]
    pub slo: Slo,
    /// Steps in a row that have to achieve it at the knee
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
    /// The rate of the first step, in records per second; there is no knee below it
    #[arg(long, value_name = "RATE", default_value = "1k", value_parser = values::scaled)]
    pub min_rate: f64,
    /// The highest rate
    #[arg(long, value_name = "RATE", default_value = "10M", value_parser = values::scaled)]
    pub max_rate: f64,
    /// How close to the knee the search comes, from 1% to 100%
    #[arg(long, value_name = "PART", default_value = "5%", value_parser = resolution)]
    pub resolution: f64,
}

fn resolution(text: &str) -> Result<f64, String> {
    let resolution = allowance(text)?;
    if (0.01..=1.0).contains(&resolution) { Ok(resolution) } else { Err("it is from 1% to 100%".to_owned()) }
}

impl SearchArguments {
    /// What to search.
    pub fn options(&self) -> Result<SearchOptions, UsageError> {
        let SearchArguments { min_rate: rate_min, max_rate: rate_max, resolution, repeats, .. } = *self;
        if rate_min > rate_max {
            return Err(UsageError::Sweep("--min-rate is above --max-rate"));
        }
        Ok(SearchOptions { rate_min, rate_max, resolution, repeats })
    }
}

impl SweepArguments {
    /// The options of the first step; the others have another rate.
    pub fn options(&self) -> Result<LoadOptions, UsageError> {
        let properties = self.target.properties()?;
        let pace = Some(Pace::steady(self.search.options()?.rate_min));
        let producers = self.producers.options(pace, &self.data, &properties)?;
        let consumers = self.consumers.options(&Default::default(), StartAt::Latest, &properties)?;
        if consumers.from != StartAt::Latest {
            return Err(UsageError::Sweep("a step that begins with the oldest records would read those of the others"));
        }
        if producers.overload == Overload::Abort {
            return Err(UsageError::Sweep("--on-overload abort would end the sweep; drop ends what cannot be sent"));
        }
        let mut options = self.run.load(&self.target, &properties, Some(producers), Some(consumers))?;
        options.interval = self.output.interval.unwrap_or(INTERVAL);
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Command, CommandLine};

    fn parse(arguments: &[&str]) -> Result<SweepArguments, clap::Error> {
        let line = ["loadgen", "sweep", "--bootstrap-server", "127.0.0.1:9092"].iter().chain(arguments);
        match CommandLine::try_parse_from(line)?.command() {
            Command::Sweep(arguments) => Ok(*arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn steps_are_short_unless_they_are_to_be_long() {
        let options = parse(&[]).unwrap().options().unwrap();
        assert_eq!((options.warmup, options.duration, options.interval), (WARMUP, DURATION, INTERVAL));
        let searched = parse(&[]).unwrap().search.options().unwrap();
        assert_eq!(searched, SearchOptions::default());
        assert_eq!(options.producers.unwrap().pace, Some(Pace::steady(searched.rate_min)));
        let longer = ["--duration", "20s", "--warmup", "3s", "--interval", "1s"];
        let options = parse(&longer).unwrap().options().unwrap();
        let seconds = [options.warmup, options.duration, options.interval].map(|time| time.as_secs());
        assert_eq!(seconds, [3, 20, 1]);
    }

    #[test]
    fn what_cannot_be_searched_is_refused() {
        for refused in [["--rate", "5"], ["--ramp", "1k..2k/5s"], ["--backlog-bytes", "5M"], ["--resolution", "0.5%"]] {
            assert!(parse(&refused).is_err(), "{refused:?}");
        }
        let contradictions = [
            &["--min-rate", "2k", "--max-rate", "1k"][..],
            &["--from", "earliest"],
            &["--command-property", "auto.offset.reset=earliest"],
            &["--on-overload", "abort"],
        ];
        for refused in contradictions {
            let error = parse(refused).unwrap().options().unwrap_err();
            assert!(matches!(error, UsageError::Sweep(_)), "{refused:?}: {error}");
        }
    }
}
