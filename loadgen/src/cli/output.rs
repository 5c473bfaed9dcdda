//! Options about results: where they go, and what they are held against.
//!
//! Nothing is written unless it is asked for, but for the table and the result line.

use std::path::PathBuf;

use clap::Args;
use corelane::runtime::Duration;

use super::values;
use crate::gate::{Slo, allowance};
use crate::result::DurabilityClass;

/// Where results go.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArguments {
    /// Writes the result, histograms included
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the series, a line for each interval
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Writes the histograms of every interval in HdrHistogram's log format
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Writes the percentiles of the latency that counts in HdrHistogram's text format
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Writes a page of HTML
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Writes every chart of that page into this folder, as an SVG file each
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
    /// Length of an interval [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    pub interval: Option<Duration>,
    /// Prints the result line only
    #[arg(long)]
    pub quiet: bool,
    /// Notes something in the result; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::assignment)]
    pub tag: Vec<(String, String)>,
    /// What an acknowledgement means, where the broker does not tell: A, B, C
    #[arg(long, value_name = "CLASS", value_parser = class)]
    pub class: Option<DurabilityClass>,
}

/// What a result is held against.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gate")]
pub struct GateArguments {
    /// What the run is to achieve, like p99<5ms,e2e.p99.9<20ms,rate>=0.99
    #[arg(long, value_name = "OBJECTIVES")]
    pub slo: Option<Slo>,
    /// An earlier result that this one must not be worse than
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// By how much it may be worse
    #[arg(long, value_name = "PART", default_value = "5%", value_parser = allowance, requires = "baseline")]
    pub max_regress: f64,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = values::duration(text)?;
    if interval < Duration::from_millis(100) { Err("it is 100ms or more".to_owned()) } else { Ok(interval) }
}

fn class(text: &str) -> Result<DurabilityClass, String> {
    match text {
        "A" => Ok(DurabilityClass::A),
        "B" => Ok(DurabilityClass::B),
        "C" => Ok(DurabilityClass::C),
        _ => Err("it is A, B or C".to_owned()),
    }
}
