//! The search against brokers that are known: exact ones, whose runs are listed, and noisy ones, drawn from seeds.

use super::*;
use crate::load::schedule::Random;

const OPTIONS: SearchOptions = SearchOptions { rate_min: 1e3, rate_max: 1e7, resolution: 0.05, repeats: 3 };

/// Searches to the end; `met` is told the number of the run and its rate. The runs and how the search ended.
fn search(options: &SearchOptions, mut met: impl FnMut(usize, f64) -> bool) -> (Vec<f64>, End) {
    let (mut search, mut rates) = (Search::new(options), Vec::new());
    loop {
        match search.next() {
            Next::Done(end) => return (rates, end),
            Next::Run(rate) => {
                rates.push(rate);
                search.record(met(rates.len() - 1, rate));
            }
        }
    }
}

/// Rungs of 41 %: each second one is a double.
const COARSE: SearchOptions = SearchOptions { rate_min: 1000.0, rate_max: 16_000.0, resolution: 0.415, repeats: 2 };

#[test]
fn every_run_of_an_exact_search_is_as_planned() {
    let (rates, end) = search(&COARSE, |_, rate| rate <= 6000.0);
    let scouted = [1000.0, 2000.0, 4000.0, 8000.0, 8000.0, 5657.0];
    let confirmed = [5657.0, 5657.0, 8000.0, 8000.0];
    assert_eq!(rates, [&scouted[..], &confirmed[..]].concat());
    assert_eq!(end, End::Knee(5657.0));
}

#[test]
fn one_stall_costs_a_repeat_and_not_the_rung() {
    let (_, calm) = search(&OPTIONS, |_, rate| rate <= 200e3);
    let runs = search(&OPTIONS, |_, rate| rate <= 200e3).0.len();
    for stalled in 0..runs {
        let (rates, end) = search(&OPTIONS, |run, rate| rate <= 200e3 && run != stalled);
        assert_eq!(end, calm, "a stall in run {stalled}");
        assert!(rates.len() <= runs + OPTIONS.repeats as usize, "{} runs instead of {runs}", rates.len());
    }
}

#[test]
fn a_broker_that_got_slower_is_found_out_and_so_is_a_faster_one() {
    // Once the second pass begins, the broker bears half, or twice as much.
    let slower = |run: usize, rate: f64| rate <= if run < 6 { 6000.0 } else { 3000.0 };
    assert_eq!(search(&COARSE, slower).1, End::Knee(2828.0));
    let faster = |run: usize, rate: f64| rate <= if run < 6 { 6000.0 } else { 12_000.0 };
    assert_eq!(search(&COARSE, faster).1, End::Knee(11_310.0));
}

#[test]
fn the_ends_of_the_ladder_are_told_from_a_knee() {
    let (rates, end) = search(&OPTIONS, |_, _| true);
    assert_eq!(end, End::Beyond(1e7));
    assert_eq!(rates[rates.len() - 3..], [1e7; 3]);
    let (rates, end) = search(&OPTIONS, |_, _| false);
    assert_eq!((rates.as_slice(), end), (&[1e3; 2][..], End::Below));
    let only = SearchOptions { rate_max: 1e3, ..OPTIONS };
    assert_eq!(search(&only, |_, _| true), (vec![1e3; 4], End::Beyond(1e3)));
}

#[test]
fn rungs_are_as_close_as_was_asked_for_and_no_closer_than_needed() {
    for (rate_min, rate_max, resolution) in [(1e3, 1e7, 0.05), (0.5, 3.0, 0.01), (123.0, 124.0, 0.05), (7.0, 7e9, 1.0)]
    {
        let ladder = Ladder::new(rate_min, rate_max, resolution);
        let rates: Vec<f64> = (0..=ladder.last).map(|rung| ladder.rate(rung)).collect();
        assert_eq!((rates[0], rates[rates.len() - 1]), (rate_min, rate_max));
        for pair in rates.windows(2) {
            let part = pair[1] / pair[0] - 1.0;
            // Rates have four digits.
            assert!(part > 0.0 && part < resolution + 0.002, "{pair:?}");
        }
        let exact = (rate_max / rate_min).ln() / resolution.ln_1p();
        assert!(f64::from(ladder.last) < exact + 1.0);
    }
}

/// A broker whose p99 rises with the load, as a queue's does, and is some part off from run to run; some runs meet a stall.
struct Broker {
    capacity: f64,
    /// The p99 of an idle broker, as a part of the SLO's bound.
    idle: f64,
    noise: f64,
    stalls: f64,
    random: Random,
}

impl Broker {
    fn meets(&mut self, rate: f64) -> bool {
        // Normal, by the sum of twelve.
        let normal = (0..12).map(|_| self.random.unit()).sum::<f64>() - 6.0;
        let stalled = self.random.unit() < self.stalls;
        let load = rate / self.capacity;
        load < 1.0 && !stalled && self.idle / (1.0 - load) * (self.noise * normal).exp() < 1.0
    }

    /// What it bears without noise.
    fn knee(&self) -> f64 {
        self.capacity * (1.0 - self.idle)
    }
}

#[test]
fn repeated_sweeps_of_a_noisy_broker_find_the_same_knee() {
    for (idle, noise, stalls) in [(0.05, 0.1, 0.02), (0.25, 0.1, 0.02), (0.05, 0.3, 0.0), (0.1, 0.0, 0.05)] {
        let (mut knees, mut runs) = (Vec::new(), 0);
        for seed in 0..500 {
            let mut broker = Broker { capacity: 300e3, idle, noise, stalls, random: Random::new(seed) };
            let (rates, end) = search(&OPTIONS, |_, rate| broker.meets(rate));
            // Two stalls at the lowest rate, once in hundreds of sweeps, and there is none.
            knees.push(end.rate().unwrap_or(0.0) / broker.knee());
            runs += rates.len();
        }
        knees.sort_unstable_by(f64::total_cmp);
        let middle = knees[knees.len() / 2];
        let near = knees.iter().filter(|knee| (*knee / middle - 1.0).abs() <= 0.1).count();
        let what = format!("idle {idle}, noise {noise}, stalls {stalls}: median {middle:.3} of the true one");
        assert!((0.9..1.02).contains(&middle), "{what}");
        assert!(near * 100 >= knees.len() * 98, "{what}, {near} of {} near it", knees.len());
        assert!(runs / knees.len() <= 32, "{what}, {} runs", runs / knees.len());
    }
}

#[test]
fn a_search_ends_whatever_the_verdicts_are() {
    // Scout: a doubling per rung of its own, the halving between two of them, two runs each. Confirm: there and back.
    let ladder = Ladder::new(OPTIONS.rate_min, OPTIONS.rate_max, OPTIONS.resolution);
    let halvings = |rungs: u32| rungs.ilog2() + 1;
    let scouted = (ladder.last.div_ceil(ladder.doubling) + 1 + halvings(ladder.doubling)) * FAILURES;
    let confirmed = (2 * halvings(ladder.last) + 1) * FAILURES * OPTIONS.repeats;
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let often = random.unit();
        let (rates, _) = search(&OPTIONS, |_, _| random.unit() < often);
        assert!(rates.len() <= (scouted + confirmed) as usize, "{} runs", rates.len());
    }
}
