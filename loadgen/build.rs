//! Tells the program which commit it is built from, so that each of its results says so.
//!
//! It is empty where there is no checkout, or no git: a build from an archive is as good. A tree with changes that are not
//! committed is marked. Nothing else of the build depends on it.

use std::process::Command;

fn main() {
    // Whatever moves HEAD writes to its log; without one, every build looks.
    println!("cargo::rerun-if-changed=../.git/logs/HEAD");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rustc-env=LOADGEN_GIT={}", commit().unwrap_or_default());
}

fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]).output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
