//! Faults of a real machine: what a broker does about them, and what a client and an operator see.
//!
//! | module | faults |
//! |---|---|
//! | `start` | a directory, a port, a key or a limit that a broker cannot start with: its exit code and the line that says why |
//! | `stop` | signals: requests in flight, a second signal, a client that holds a connection up |
//! | `damage` | bits that flip on the disk: in a sealed segment, in the metadata |
//! | `full_disk` | a file system without room |
//!
//! A fault that cannot be made here (no root, no loop device) is skipped with a line of its own, which `scripts/test` counts;
//! see [`skip`]. Power cuts are not here: they are simulated.

#[path = "../clients/mod.rs"]
mod clients;
mod damage;
mod full_disk;
mod start;
mod stop;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Write, stderr};
use std::path::{Path, PathBuf};

use clients::noise;
use clients::wire::{Client, batch, batches, code};
use corelane::types::ErrorCode;
use support::{Broker, BrokerOptions};

/// Says that a test did not run, and why, past the capture of its output: a pass would be a lie.
fn skip(test: &str, reason: &str) {
    stderr().write_all(format!("\nskipped: {test}: {reason}\n").as_bytes()).expect("standard error is open");
}

/// Starts a broker or fails the test with its log.
#[track_caller]
fn start(options: &BrokerOptions) -> Broker {
    options.start().unwrap_or_else(|ended| panic!("{ended}"))
}

/// The value of the record that this test appends as number `number`.
fn value(number: u64, bytes: usize) -> Vec<u8> {
    noise(number, bytes)
}

/// Appends single-record batches `numbers` of `bytes` each until one is refused; each goes to the offset of its number.
/// Returns how many there are then, and the error of the one that was refused.
fn append_until_refused(client: &mut Client, topic: &str, from: u64, to: u64, bytes: usize) -> (u64, ErrorCode) {
    for number in from..to {
        let answer = client.produce(topic, 0, &batch(&[&value(number, bytes)]));
        match code(answer.error_code) {
            ErrorCode::None => assert_eq!(answer.base_offset, number as i64),
            refused => return (number, refused),
        }
    }
    (to, ErrorCode::None)
}

/// Demands that partition 0 holds the records of [`append_until_refused`] from `from` to before `to`, each at its offset.
/// What was refused with an error that leaves it open may lie behind them, well formed. Returns the end.
#[track_caller]
fn assert_readable(client: &mut Client, topic: &str, from: u64, to: u64, bytes: usize) -> u64 {
    let mut next = from;
    loop {
        let data = client.fetch(topic, 0, next as i64);
        assert_eq!(code(data.error_code), ErrorCode::None, "{topic} at offset {next}");
        let found = batches(&data);
        if found.is_empty() {
            assert!(next >= to, "{topic} ends at {next}, acknowledged are {to} records");
            return next;
        }
        for stored in found {
            assert_eq!(stored.base_offset().value(), next as i64, "{topic}");
            let expected = batch(&[&value(next, bytes)]);
            let same = expected.ends_with(stored.records());
            assert!(same || next >= to, "{topic}: record {next} is not the one that was acknowledged");
            next += 1;
        }
    }
}

/// The directory of partition 0 of a topic.
fn partition_directory(data_dir: &Path, topic: &str) -> PathBuf {
    let entries = std::fs::read_dir(data_dir.join("p")).expect("the data directory is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let begins = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with(&format!("{topic}-0.")))
    };
    let mut found: Vec<PathBuf> = paths.filter(begins).collect();
    assert_eq!(found.len(), 1, "one directory of {topic}-0");
    found.remove(0)
}

/// The files of a directory with this extension, in the order of their names.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    found.sort();
    found
}

/// Flips the lowest bit of the byte at `position`.
fn flip_bit(path: &Path, position: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the file is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).expect("the byte is there");
    byte[0] ^= 1;
    file.write_all_at(&byte, position).expect("the file is writable");
    file.sync_all().expect("it can be synced");
}
