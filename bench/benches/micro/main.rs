//! Micro-benchmarks of the functions that the broker calls on its hot path: `cargo bench -p bench`, or shorter, for machines that
//! only check that they run, `cargo bench -p bench -- --quick`. A word after `--` runs those whose name holds it.
//!
//! | file | what it shows |
//! |---|---|
//! | `pure` | what a batch or a request costs in CPU: validation, decoding, encoding, index look-ups |
//! | `shards` | what the runtime adds: an append into a real log, a mailbox hop, a round trip over a socket |
//! | `durable` | which way of making small appends durable is fastest on this disk, and for how many files |
//!
//! Times of `shards` and `durable` depend on the machine and on whatever else runs on it, those of `pure` on its processor alone.
//! What whole requests cost, and what the floor under them is, `bench cost` and `bench null-relay` show.

mod durable;
mod pure;
mod shards;

use std::path::Path;
use std::time::Duration;

use bench::scratch::Scratch;
use criterion::Criterion;

fn main() {
    let criterion =
        Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(TIME);
    let mut criterion = criterion.configure_from_args();
    pure::run(&mut criterion);
    shards::run(&mut criterion);
    durable::run(&mut criterion);
    criterion.final_summary();
}

/// How long one benchmark takes, at most with `--quick`. It bounds what is written to the disk.
const TIME: Duration = Duration::from_secs(2);

/// A directory on the disk that cargo builds on, which `/tmp` may not be.
fn scratch() -> Scratch {
    Scratch::new(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the target directory is writable")
}
