//! How a process ends: signals, and a panic on a shard.
//!
//! Each of these ends a process, so it runs in one of its own, which the test starts.

use std::os::unix::process::ExitStatusExt;

use super::*;

#[test]
fn the_first_signal_is_told_and_the_second_kills() {
    assert_passed(&in_own_process("ends::child_is_told_of_a_signal"));
    let output = in_own_process("ends::child_ignores_a_signal");
    assert_eq!(output.status.signal(), Some(libc::SIGTERM), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("told once"), "{output:?}");
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
#[ignore = "started by another test, in a process of its own"]
fn child_panics_in_a_task() {
    on_shard(async {
        spawn(Class::Background, async { panic!("half a broker") });
        sleep(Duration::from_secs(5)).await;
    });
}
