//! SLOs and baselines against whole results.
//!
//! Every figure is met and missed once, and what cannot be judged fails. How texts are read is tested beside the reader.

use loadgen::gate::{BaselineError, Slo, changes};
use loadgen::result::{DurabilityClass, ResultFile, RunState};

use super::sample;

fn judged(slo: &str, file: &ResultFile) -> Vec<bool> {
    slo.parse::<Slo>().unwrap().judge(&file.result).into_iter().map(|judgement| judgement.met).collect()
}

#[test]
fn objectives_are_held_against_the_run() {
    let run = sample::paced(1, 1.0);
    let slo =
        "p50<1ms,p99<50ms,p99<1ms,rate>=0.99,rate>=99.9%,errors=0,loss=0,faults=0,cpu<3,cpu<2.5,rate_in>150k,mean>1us";
    let expected = [true, true, false, true, false, true, true, true, true, false, true, true];
    assert_eq!(judged(slo, &run), expected);
    let text: Vec<String> =
        "p99<1us,cpu<3".parse::<Slo>().unwrap().judge(&run.result).iter().map(ToString::to_string).collect();
    assert!(text[0].starts_with("p99<1us: FAILED, ") && text[0].ends_with(" ms"), "{text:?}");
    assert_eq!(text[1], "cpu<3: met, 2.98 s/GB");
}

#[test]
fn a_bound_is_exact() {
    let run = sample::paced(1, 1.0);
    let p99 = run.result.latency["response"].p99_us;
    assert_eq!(judged(&format!("p99<{p99}us,p99<={p99}us,p99>{p99}us,p99={p99}us"), &run), [false, true, false, true]);
}

#[test]
fn what_was_not_measured_fails() {
    let mut run = sample::paced(1, 1.0);
    run.result.latency.remove("e2e");
    run.result.broker = None;
    run.result.verify = None;
    assert_eq!(
        judged("e2e.p99<1s,e2e.p99>0s,cpu<99,loss=0,faults=0,p99<1s", &run),
        [false, false, false, false, false, true]
    );
    assert_eq!(judged("p99<1s,rate>=0.1,service.p99<1s,rate_in>1", &sample::unpaced(1)), [false, false, true, true]);
}

#[test]
fn a_saturated_or_invalid_run_fails_every_objective() {
    let mut run = sample::saturated(1);
    assert_eq!(judged("p50<1s,p99<1s,rate>=0.1,errors=0", &run), [false; 4]);
    run.result.state = RunState::Invalid;
    assert_eq!(judged("p50<1s,errors=0", &run), [false; 2]);
}

#[test]
fn a_regression_names_its_figures() {
    let regressed = |run: &ResultFile, allowed: f64| -> Vec<String> {
        let found = changes(&sample::paced(1, 1.0), run, allowed).unwrap();
        found.iter().filter(|change| change.regressed).map(|change| change.metric.to_string()).collect()
    };
    assert!(regressed(&sample::paced(1, 1.0), 0.0).is_empty(), "a run is no worse than itself");
    let slower = ["response.p50", "response.p99", "service.p50", "service.p99", "e2e.p50", "e2e.p99"];
    assert_eq!(regressed(&sample::paced(1, 1.2), 0.05), slower);
    assert!(regressed(&sample::paced(1, 1.2), 0.25).is_empty());
    assert!(regressed(&sample::paced(1, 0.5), 0.0).is_empty(), "faster is no regression");

    let mut dearer = sample::paced(1, 1.0);
    dearer.result.broker.as_mut().unwrap().cpu_s_per_gb *= 1.06;
    dearer.result.rate_out *= 0.94;
    assert_eq!(regressed(&dearer, 0.05), ["rate_out", "cpu"]);
    dearer.result.latency.remove("e2e");
    assert_eq!(regressed(&dearer, 0.1), ["e2e.p50", "e2e.p99"], "what is missing is a regression");
    let found = changes(&sample::paced(1, 1.0), &dearer, 0.05).unwrap();
    assert_eq!(found[2].to_string(), "cpu: REGRESSED, 2.98 s/GB before, 3.16 s/GB now (+6.0 %)");
}

#[test]
fn a_saturated_run_regresses_against_a_sound_baseline() {
    let found = changes(&sample::paced(1, 1.0), &sample::saturated(1), 100.0).unwrap();
    let named: Vec<String> = found.iter().filter(|change| change.regressed).map(ToString::to_string).collect();
    assert!(named.iter().any(|text| text.ends_with("now void: the run is saturated")), "{named:?}");
}

#[test]
fn runs_that_have_little_in_common_are_refused() {
    let run = sample::paced(1, 1.0);
    let refused = |change: fn(&mut ResultFile)| {
        let mut baseline = run.clone();
        change(&mut baseline);
        changes(&baseline, &run, 0.05).unwrap_err()
    };
    let class = BaselineError::Class(DurabilityClass::A, DurabilityClass::C);
    assert_eq!(refused(|file| file.class = DurabilityClass::A), class);
    assert!(matches!(refused(|file| file.result.rate_target = None), BaselineError::Schedule(None, Some(_))));
    assert!(matches!(refused(|file| file.command = "produce".to_owned()), BaselineError::Command(..)));
    let void = BaselineError::Void(RunState::Saturated);
    assert_eq!(refused(|file| file.result.state = RunState::Saturated), void);
}
