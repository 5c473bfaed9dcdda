//! Bugs that are planted on purpose, to prove that the seeds find them.
//!
//! Each bug is switched on for the threads of its run alone and must break a promise within the seeds of a run of CI; how many
//! it took is printed. A bug that is not found says that the harness is too blunt, not that the bug is harmless.

use corelane::storage::planted::{Bug, plant};

use crate::runner::{self, Layer, SEEDS};

/// Seeds that are tried together: those that a thread has begun when another finds the bug are of no account.
fn seeds_until_found(bug: Bug) -> Option<(u64, String)> {
    let start = runner::number("CORELANE_SIM_START", 1);
    plant(Some(bug));
    let found = (0..SEEDS).find_map(|number| {
        let failure = runner::run_one(Layer::Log, start.wrapping_add(number)).err()?;
        Some((number + 1, failure.message))
    });
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found() {
    // The panics of the seeds that find a bug are what is wanted: they are told in one line each.
    std::panic::set_hook(Box::new(|_| {}));
    let searches: Vec<_> =
        Bug::ALL.into_iter().map(|bug| (bug, std::thread::spawn(move || seeds_until_found(bug)))).collect();
    let found: Vec<_> =
        searches.into_iter().map(|(bug, search)| (bug, search.join().expect("a search does not panic"))).collect();
    drop(std::panic::take_hook());
    for (bug, found) in found {
        match found {
            Some((seeds, message)) => runner::print(&format!("{}: found after {seeds} seeds: {message}", bug.name())),
            None => panic!("{} is not found by {SEEDS} seeds", bug.name()),
        }
    }
}
