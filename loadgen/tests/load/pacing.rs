//! Latency counts from when a record was due: a broker that stalls cannot hide it, and a broker that is too slow voids the run.
//!
//! The expected percentiles are computed from the stall alone, by hand, not by the code under test.

use corelane::runtime::Duration;
use loadgen::load::options::Overload;
use loadgen::load::schedule::{Arrival, Pace};
use loadgen::result::RunState;
use loadgen::synthetic::{Faults, Stall};

use super::{broker, producers, run, verified};

const SECOND_US: f64 = 1e6;

#[test]
fn a_stall_shows_in_the_percentiles_as_it_was() {
    let stall = Stall { every: Duration::from_secs(10), length: Duration::from_secs(1) };
    let (rate, seconds) = (1_000.0, 20.0);
    let result = run(broker(Faults { stall: Some(stall), ..Faults::default() }), |options| {
        options.duration = Duration::from_secs(seconds as u64);
        producers(options).pace = Some(Pace::steady(rate));
        // A client that sends on while nothing comes back: what waits, waits in the broker.
        producers(options).inflight_max = 5_000;
    });
    let outcome = &result.outcome;
    assert_eq!((outcome.state, outcome.reasons.as_slice()), (RunState::Ok, &[][..]));
    assert!(verified(&result).is_clean());
    for name in ["response", "e2e"] {
        let latency = &outcome.latency[name];
        assert_eq!(latency.count, (rate * seconds) as u64, "{name}: as many samples as the schedule has records");
        // A tenth of all records meets a stall, each with what is left of it: the share q above a tenth waits for
        // 1 s − (1 − q) / 0.1 s. So the 90th percentile is short, the 95th half a stall, the 99th nine tenths.
        let histogram = latency.histogram().expect("readable");
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / SECOND_US;
        for (quantile, expected) in [(0.95, 0.5), (0.98, 0.8), (0.99, 0.9)] {
            let found = at(quantile);
            assert!((found - expected).abs() < 0.1, "{name} {quantile}: {found:.3} s, by the stall {expected} s");
        }
        assert!(latency.p90_us < 200_000, "{name}: {} us", latency.p90_us);
        assert!((850_000..1_050_000).contains(&latency.p99_us), "{name}: {} us", latency.p99_us);
        assert!(latency.max_us >= 995_000, "{name}: {} us", latency.max_us);
    }
    // What the known tools measure: from the actual send, of batches. The stall nearly vanishes if requests are few.
    assert!(outcome.latency["service"].p50_us < 100_000);
}

#[test]
fn a_broker_that_is_too_slow_voids_the_run() {
    // It does nothing for half of the time.
    let stall = Stall { every: Duration::from_millis(100), length: Duration::from_millis(98) };
    let result = run(broker(Faults { stall: Some(stall), ..Faults::default() }), |options| {
        options.duration = Duration::from_secs(2);
        producers(options).pace = Some(Pace::steady(50_000.0));
        producers(options).inflight_max = 1;
        producers(options).request_bytes = 16_384;
    });
    assert_eq!(result.outcome.state, RunState::Saturated, "{:?}", result.outcome.reasons);
    assert!(!result.outcome.reasons.is_empty());
    assert!(verified(&result).is_clean());
}

#[test]
fn overload_can_drop_records_or_end_the_run() {
    let slow = || {
        let stall = Stall { every: Duration::from_millis(100), length: Duration::from_millis(98) };
        broker(Faults { stall: Some(stall), ..Faults::default() })
    };
    let overloaded = |overload| {
        run(slow(), move |options| {
            let producers = producers(options);
            producers.pace = Some(Pace::steady(20_000.0));
            (producers.inflight_max, producers.overload) = (1, overload);
        })
    };
    let dropping = overloaded(Overload::Drop);
    assert_eq!(dropping.outcome.state, RunState::Saturated);
    assert!(dropping.outcome.reasons.iter().any(|reason| reason.contains("dropped")), "{:?}", dropping.outcome.reasons);
    assert!(verified(&dropping).is_clean());
    let aborting = overloaded(Overload::Abort);
    assert_eq!(aborting.outcome.state, RunState::Invalid);
    assert!(aborting.outcome.reasons[0].contains("abort"), "{:?}", aborting.outcome.reasons);
}

#[test]
fn without_a_schedule_there_are_no_latencies_of_one() {
    let result = run(broker(Faults::default()), |options| producers(options).pace = None);
    let outcome = &result.outcome;
    assert_eq!((outcome.state, outcome.rate_target), (RunState::Unpaced, None));
    assert!(outcome.rate_in > 1_000.0 && verified(&result).is_clean());
    let names: Vec<&str> = outcome.latency.keys().map(String::as_str).collect();
    assert_eq!(names, ["fetch", "service"]);
}

#[test]
fn every_arrival_has_its_number_of_records() {
    for (arrival, tolerance) in
        [(Arrival::Uniform, 0), (Arrival::Burst(Duration::from_millis(50)), 0), (Arrival::Poisson, 350)]
    {
        let result = run(broker(Faults::default()), |options| producers(options).arrival = arrival);
        let found = result.outcome.latency["response"].count;
        assert!(found.abs_diff(super::RATE as u64) <= tolerance, "{arrival:?}: {found}");
        assert!(verified(&result).is_clean());
    }
    let ramp = Pace { from: 1_000.0, to: 3_000.0, over: Duration::from_secs(1) };
    let result = run(broker(Faults::default()), |options| producers(options).pace = Some(ramp));
    assert_eq!(result.outcome.latency["response"].count, 2_000);
}
