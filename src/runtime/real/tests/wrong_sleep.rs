//! A shard whose executor goes to sleep although tasks are runnable is woken by its guard.
//!
//! glommio does so if its preemption timer fires before the first task of a turn: here that timer is short enough for it to
//! happen in some of the rounds. Without the guard's wake the shard of such a round stands still for good.

use std::sync::mpsc;

use super::super::executor::run_checked;
use super::*;

/// Shards that are run, one after the other; some in a hundred fall asleep.
const ROUNDS: usize = 80;
/// Turns that each task takes.
const TURNS: u32 = 2_000;
/// About what a turn takes. Much less, and glommio runs no task at all.
const PREEMPTION: Duration = Duration::from_micros(50);

/// A task that takes turns, with a sleep now and then.
async fn take_turns(class: Class) -> u32 {
    let work = async move {
        for turn in 0..TURNS {
            if turn % 100 == 0 {
                sleep(Duration::from_micros(200)).await;
            }
            yield_now().await;
        }
        TURNS
    };
    spawn(class, work).await
}

async fn four_tasks() -> u32 {
    let classes = [Class::Produce, Class::Background, Class::Fetch, Class::Produce];
    let mut sum = 0;
    for task in classes.map(|class| spawn(class, take_turns(class))) {
        sum += task.await;
    }
    sum
}

#[test]
fn a_shard_that_sleeps_with_runnable_tasks_is_woken() {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        for _ in 0..ROUNDS {
            let sum = run_checked(&Options::default(), PREEMPTION, four_tasks()).expect("this machine runs shards");
            sender.send(sum).expect("somebody waits");
        }
    });
    for round in 0..ROUNDS {
        let sum = ended.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("round {round} stands still"));
        assert_eq!(sum, 4 * TURNS);
    }
}
