//! How a process ends: signals, and a panic on a shard.
//!
//! Each of these ends a process, so it runs in one of its own, which the test starts.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::runtime::side;

#[test]
fn the_first_signal_is_told_and_the_second_kills() {
    assert_passed(&in_own_process("ends::child_is_told_of_a_signal"));
    let output = in_own_process("ends::child_ignores_a_signal");
    assert_eq!(output.status.signal(), Some(libc::SIGTERM), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("told once"), "{output:?}");
}

#[test]
fn every_parked_shard_is_told_of_a_signal() {
    assert_passed(&in_own_process("ends::child_shards_sleep_until_a_signal"));
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_shards_sleep_until_a_signal() {
    let signalled_at = Arc::new(AtomicU64::new(0));
    let told_at = signalled_at.clone();
    // Long after every shard has gone to sleep, from a thread that is none of them.
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        told_at.store(super::clock::monotonic_nanos(), Ordering::SeqCst);
        signal_this_process();
    });
    let shard = |_| async {
        // Bounded, so that a shard that is not told fails the test.
        let _ = timeout(Duration::from_secs(10), terminated()).await;
        super::clock::monotonic_nanos()
    };
    let woken = run_shards(3, |_| Options::default(), shard).expect("this machine runs shards");
    sender.join().expect("it sends");
    let sent = signalled_at.load(Ordering::SeqCst);
    for woken in woken {
        let late = Duration::from_nanos(woken.checked_sub(sent).expect("not before the signal"));
        assert!(late < Duration::from_secs(1), "told after {late:?}");
    }
}

fn signal_this_process() {
    // SAFETY: takes two integers.
    assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGTERM) }, 0);
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_is_told_of_a_signal() {
    on_shard(async {
        let mut asked = pin!(terminated());
        assert!(Pin::as_mut(&mut asked).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let waiting = spawn(Class::Produce, terminated());
        sleep(Duration::from_millis(5)).await;
        signal_this_process();
        asked.await;
        waiting.await;
        terminated().await;
    });
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_ignores_a_signal() {
    on_shard(async {
        spawn(Class::Produce, async {
            terminated().await;
            println!("told once");
        });
        sleep(Duration::from_millis(5)).await;
        signal_this_process();
        sleep(Duration::from_millis(20)).await;
        signal_this_process();
        loop {
            std::hint::spin_loop();
        }
    });
}

#[test]
fn a_panic_on_a_shard_aborts_the_process() {
    let output = in_own_process("ends::child_panics_in_a_task");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("a shard panicked") && text.contains("half a broker"), "{text}");
}

#[test]
fn a_panic_on_a_side_thread_aborts_the_process() {
    let output = in_own_process("ends::child_panics_beside");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("a side thread panicked") && text.contains("nothing to look into"), "{text}");
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_panics_beside() {
    let thread = side::start("beside", || panic!("nothing to look into")).expect("a thread");
    thread.join();
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_panics_in_a_task() {
    on_shard(async {
        spawn(Class::Background, async { panic!("half a broker") });
        sleep(Duration::from_secs(5)).await;
    });
}
