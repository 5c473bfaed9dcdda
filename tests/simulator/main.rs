//! The promises of the storage and of whole brokers, kept over thousands of seeded crashes in a simulated world.
//!
//! | module | what it does |
//! |---|---|
//! | `runner` | seeds on threads, totals, the command that replays a failure |
//! | `log_world`, `log_work`, `log_model` | `storage::Log` on a simulated disk: lives of work, and what must be left of each |
//! | `payload` | batches that can be told apart |
//! | `damage` | logs that are damaged on purpose: refused, and nothing cut |
//! | `broker_world`, `broker_clients`, `scratch`, `client`, `history` | whole brokers, their clients, and what those know |
//! | `totals` | what the seeds added up to |
//! | `planted` | with the feature `planted-bugs`: that bugs are found |
//!
//! `CORELANE_SIM_START` is the first seed, `CORELANE_SIM_SEEDS` how many there are; `scripts/simulate` sets them. A seed that
//! failed once is kept in `regressions.txt` and runs every time.

mod broker_clients;
mod broker_world;
mod client;
mod damage;
mod history;
mod log_model;
mod log_work;
mod log_world;
mod payload;
#[cfg(feature = "planted-bugs")]
mod planted;
mod runner;
mod scratch;
mod totals;
mod wide_consumer;

use totals::ROW_HITS_MIN;

#[test]
fn seeds_keep_every_promise() {
    let totals = runner::seeds();
    if runner::is_whole_run() {
        let seldom = totals.rows_below(ROW_HITS_MIN);
        assert!(seldom.is_empty(), "rows of the recovery table met less than {ROW_HITS_MIN} times: {seldom:?}");
        assert!(totals.stale_hits >= ROW_HITS_MIN && totals.writes_torn >= ROW_HITS_MIN);
    }
}

#[test]
fn seeds_that_failed_once_pass() {
    runner::regressions();
}
