//! Runs seeds, one simulation per thread, adds up what they did, and names the command that replays a failure.
//!
//! A seed is a pure function: which thread runs it and what ran before do not matter. One in a hundred runs twice, and both
//! runs must leave the same trace. The process's environment says how many seeds; nothing is drawn from a clock.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::totals::Totals;
use crate::{broker_world, damage, log_world};

/// Seeds unless `CORELANE_SIM_SEEDS` says otherwise.
pub(crate) const SEEDS: u64 = 500;
/// One seed in so many runs twice.
const REPLAYED: u64 = 100;

/// What a seed is run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layer {
    /// `storage::Log`, without sockets.
    Log,
    /// Logs that are damaged on purpose.
    Damage,
    /// Whole brokers and their clients.
    Broker,
}

impl Layer {
    pub(crate) const ALL: [Layer; 3] = [Layer::Log, Layer::Damage, Layer::Broker];

    fn name(self) -> &'static str {
        match self {
            Layer::Log => "log",
            Layer::Damage => "damage",
            Layer::Broker => "broker",
        }
    }

    /// Runs a seed: its counts and the hash of its trace.
    fn run(self, seed: u64) -> (Totals, u64) {
        match self {
            Layer::Log => log_world::run(seed),
            Layer::Damage => damage::run(seed),
            Layer::Broker => broker_world::run(seed),
        }
    }
}

/// A seed that broke a promise.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) layer: Layer,
    pub(crate) seed: u64,
    pub(crate) message: String,
}

/// A number from the environment.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is not a number")),
        Err(_) => default,
    }
}

/// Prints past the capture of the test runner: the totals are to be seen when all is well.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads a closed pipe; that is no reason to fail.
    let _ = writeln!(out, "{text}");
}

/// Shows the log lines of the code under test if `CORELANE_SIM_LOG` names a level: for the replay of one seed.
pub(crate) fn show_log() {
    let Ok(level) = std::env::var("CORELANE_SIM_LOG") else { return };
    let level: tracing::Level = level.parse().unwrap_or_else(|_| panic!("CORELANE_SIM_LOG={level:?} is no level"));
    // A second test of this process finds it set.
    let _ = tracing_subscriber::fmt().with_max_level(level).without_time().try_init();
}

/// Runs one seed of one layer; a panic becomes a failure.
pub(crate) fn run_one(layer: Layer, seed: u64) -> Result<(Totals, u64), Failure> {
    catch_unwind(AssertUnwindSafe(|| layer.run(seed))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let message = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Failure { layer, seed, message: message.unwrap_or_else(|| "a panic without a text".to_owned()) }
    })
}

fn replayed(layer: Layer, seed: u64) -> Result<(Totals, u64), Failure> {
    let (totals, first) = run_one(layer, seed)?;
    let (_, second) = run_one(layer, seed)?;
    if first != second {
        let message = format!("two runs of the seed left different traces: {first:016x} and {second:016x}");
        return Err(Failure { layer, seed, message });
    }
    Ok((totals, first))
}

/// Runs `count` seeds from `start`; the first failure ends it.
pub(crate) fn run_all(layer: Layer, start: u64, count: u64) -> Result<Totals, Failure> {
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Totals::default());
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || failure.lock().expect("no thread panics").is_some() {
                return;
            }
            let seed = start.wrapping_add(number);
            let twice = number.is_multiple_of(REPLAYED);
            match if twice { replayed(layer, seed) } else { run_one(layer, seed) } {
                Ok((counts, _)) => totals.lock().expect("no thread panics").add(&counts),
                Err(failed) => {
                    failure.lock().expect("no thread panics").get_or_insert(failed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    match failure.into_inner().expect("no thread panics") {
        Some(failure) => Err(failure),
        None => Ok(totals.into_inner().expect("no thread panics")),
    }
}

impl Failure {
    /// Fails the test, with the command that shows the failure again.
    pub(crate) fn report(self) -> ! {
        let Failure { layer, seed, message } = self;
        let layer = layer.name();
        print(&format!(
            "seed {seed} of the {layer} layer failed: {message}\nreplay: CORELANE_SIM_LAYER={layer} \
             CORELANE_SIM_START={seed} CORELANE_SIM_SEEDS=1 cargo test --test simulator seeds_keep_every_promise"
        ));
        panic!("seed {seed} of the {layer} layer: {message}");
    }
}

/// Whether the environment asks for a run of all layers that is long enough to be measured by its totals.
pub(crate) fn is_whole_run() -> bool {
    std::env::var_os("CORELANE_SIM_LAYER").is_none() && number("CORELANE_SIM_SEEDS", SEEDS) >= SEEDS
}

/// Runs the seeds that the environment asks for and prints what they added up to.
pub(crate) fn seeds() -> Totals {
    show_log();
    let wanted = std::env::var("CORELANE_SIM_LAYER").ok();
    let is_wanted = |layer: &Layer| wanted.as_ref().is_none_or(|name| name == layer.name());
    let layers: Vec<Layer> = Layer::ALL.into_iter().filter(is_wanted).collect();
    assert!(!layers.is_empty(), "CORELANE_SIM_LAYER={wanted:?} is no layer");
    let (start, count) = (number("CORELANE_SIM_START", 1), number("CORELANE_SIM_SEEDS", SEEDS));
    let mut all = Totals::default();
    for &layer in &layers {
        let totals = run_all(layer, start, count).unwrap_or_else(|failure| failure.report());
        print(&format!(
            "{} layer, {count} seeds from {start}, {} twice:\n{totals}",
            layer.name(),
            count.div_ceil(REPLAYED)
        ));
        all.add(&totals);
    }
    if layers.len() > 1 {
        print(&format!("all layers:\n{all}"));
    }
    all
}

/// Runs the seeds that failed once.
pub(crate) fn regressions() {
    for line in include_str!("regressions.txt").lines() {
        let fields: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let [name, seed] = fields[..] else { continue };
        let layer = Layer::ALL.into_iter().find(|layer| layer.name() == name);
        let layer = layer.unwrap_or_else(|| panic!("regressions.txt: there is no layer {name:?}"));
        let seed = seed.parse().unwrap_or_else(|_| panic!("regressions.txt: {seed:?} is not a seed"));
        if let Err(failure) = run_one(layer, seed) {
            failure.report();
        }
    }
}
