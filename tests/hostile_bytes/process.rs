//! What the kernel says of a process: its memory, its descriptors, its limits.
//!
//! Source: proc(5), prlimit(1).

use std::fs;
use std::process::Command;

/// Bytes of a line of `/proc/<process>/status` that counts KiB.
fn status(process: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).expect("the process is there");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_else(|| panic!("no {field}"));
    let kib = line.trim_start_matches(':').trim().trim_end_matches("kB").trim();
    kib.parse::<u64>().expect("a number of KiB") * 1024
}

/// Bytes of memory that process `pid` holds now.
pub(crate) fn resident_memory(pid: u32) -> u64 {
    status(&pid.to_string(), "VmRSS")
}

/// Bytes of memory that this process held at most so far.
pub(crate) fn peak_memory() -> u64 {
    status("self", "VmHWM")
}

/// How many descriptors process `pid` has open.
pub(crate) fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there").count()
}

/// The soft limit of open files of process `pid`.
pub(crate) fn file_limit(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process is there");
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the limit is listed");
    line.split_whitespace().next().expect("a soft limit").parse().expect("a number")
}

/// Sets the soft limit of open files of process `pid`; the hard one stays.
pub(crate) fn set_file_limit(pid: u32, limit: u64) {
    let arguments = ["--pid", &pid.to_string(), &format!("--nofile={limit}:")];
    let status = Command::new("prlimit").args(arguments).status().expect("prlimit(1) of util-linux is there");
    assert!(status.success(), "prlimit {arguments:?}");
}
