//! A shard's pulse, felt from another thread: it stands still while one task holds the shard up or tasks wait in vain, and
//! neither while the shard is busy nor while it sleeps.
//!
//! Times are generous: the machine may be busy with other tests.

use std::sync::mpsc;

use super::*;
use crate::runtime::{Pulse, pulse};

/// Long enough to be told from a thread that waits for a core.
const LONG: Duration = Duration::from_millis(400);
/// A busy machine may keep a shard's thread waiting this long.
const SHORT: Duration = Duration::from_millis(200);

/// Runs `main` on a shard of its own, and `feel` meanwhile on this thread.
fn beside<F: Future<Output = ()> + 'static>(main: impl FnOnce() -> F + Send + 'static, feel: impl FnOnce(&Pulse)) {
    let (sender, pulses) = mpsc::channel();
    let shard = thread::spawn(move || {
        on_shard(async move {
            sender.send(pulse()).expect("somebody waits");
            main().await;
        });
    });
    let pulse = pulses.recv_timeout(Duration::from_secs(60)).expect("the shard starts");
    feel(&pulse);
    shard.join().expect("it does not panic");
}

/// The longest time for which the shard was found stuck within `time`.
fn stuck_within(pulse: &Pulse, time: Duration) -> Duration {
    let step = Duration::from_millis(5);
    let looks = time.as_millis() / step.as_millis();
    let look = |_| {
        thread::sleep(step);
        pulse.stuck_for()
    };
    (0..looks).map(look).max().unwrap_or_default()
}

#[test]
fn a_task_that_holds_the_shard_up_is_seen_and_its_end_too() {
    let holds = || async {
        // The only task there is: nobody waits, and yet the shard serves nobody.
        thread::sleep(LONG * 2);
        sleep(LONG * 2).await;
    };
    beside(holds, |pulse| {
        let stuck = stuck_within(pulse, LONG * 2);
        assert!(stuck >= LONG, "{stuck:?}");
        thread::sleep(SHORT);
        assert_eq!(pulse.stuck_for(), Duration::ZERO, "it sleeps now");
    });
}

#[test]
fn a_busy_shard_is_not_stuck() {
    let busy = || async {
        let end = Instant::now().plus(LONG * 2);
        while Instant::now() < end {
            yield_now().await;
        }
    };
    beside(busy, |pulse| {
        let stuck = stuck_within(pulse, LONG);
        assert!(stuck < SHORT, "{stuck:?}");
    });
}

#[test]
fn a_shard_that_sleeps_is_not_stuck() {
    beside(
        || sleep(LONG * 2),
        |pulse| {
            let stuck = stuck_within(pulse, LONG);
            assert!(stuck < SHORT, "{stuck:?}");
        },
    );
}
