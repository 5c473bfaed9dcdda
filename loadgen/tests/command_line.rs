//! What can be known to be in vain is told before a run, with the exit code of its cause.
//!
//! No broker is there in these tests: a run that gets as far as connecting ends with 2, so that 1 shows that it did not. Options
//! that cannot be parsed are tested where they are defined.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::Command;

/// The exit code, standard output's last line, and standard error.
fn loadgen(arguments: &str) -> (i32, String, String) {
    let fixed = ["--bootstrap-server", "127.0.0.1:1"];
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments.split(' ')).args(fixed).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    (output.status.code().unwrap(), stdout.lines().next_back().unwrap_or_default().to_owned(), stderr)
}

#[test]
fn what_is_in_vain_is_told_before_the_run() {
    for subcommand in ["e2e", "produce", "consume", "swarm"] {
        let (code, line, _) = loadgen(subcommand);
        assert_eq!((code, line.as_str()), (2, "RESULT state=invalid rate=0 p99_ms=- exit=2"), "{subcommand}");
        for (option, says) in [
            ("--baseline /nonexistent/baseline.json", "/nonexistent/baseline.json"),
            ("--json /nonexistent/result.json", "/nonexistent/result.json"),
            ("--report /nonexistent/page.html", "/nonexistent/page.html"),
            ("--broker-pid 4194305", "process 4194305 is gone"),
            ("--cpu-list 1023", "core 1023"),
        ] {
            let (code, line, stderr) = loadgen(&format!("{subcommand} {option}"));
            assert_eq!((code, line.as_str()), (1, "RESULT state=invalid rate=0 p99_ms=- exit=1"), "{option}: {stderr}");
            assert!(stderr.contains(says), "{subcommand} {option}: {stderr}");
        }
    }
}
