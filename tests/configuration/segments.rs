//! Keys that decide how logs are cut into segments, and what of them is deleted: seen by the first offset that is left, which
//! moves a segment at a time.
//!
//! The one key that nothing on the wire shows is `index.interval.bytes`: it is seen by the size of the index beside a sealed
//! segment.

use std::path::PathBuf;
use std::time::Duration;

use super::Setting;
use super::clients::wire::{BATCH_TIME, batch, timed};
use super::clients::{eventually, noise};

/// The broker looks for segments to delete every 50 ms: after this it has looked again and again.
const SEVERAL_LOOKS: Duration = Duration::from_millis(500);

/// The first offset of the topic.
fn earliest(setting: &mut Setting) -> i64 {
    setting.client.list_offset(7, &setting.topic, 0, -2).offset
}

/// Produces this many batches of about 100 KiB, one record each.
fn produce(setting: &mut Setting, count: u64) {
    for number in 0..count {
        setting.client.append(&setting.topic, 0, &batch(&[&noise(number, 100 << 10)]));
    }
}

#[track_caller]
fn stays(setting: &mut Setting, offset: i64) {
    assert_eq!(settled(setting), offset, "nothing is deleted");
}

/// The first offset once what was decided before is done.
fn settled(setting: &mut Setting) -> i64 {
    std::thread::sleep(SEVERAL_LOOKS);
    earliest(setting)
}

fn moves(setting: &mut Setting, beyond: i64) {
    eventually("segments are deleted", || (earliest(setting) > beyond).then_some(()));
}

pub(crate) fn segment_bytes(setting: &mut Setting) {
    // Whatever is sealed goes: what is left tells where the active segment begins.
    setting.create_topic(&[("retention.bytes", "1")]);
    produce(setting, 15);
    stays(setting, 0);
    setting.set("1048576");
    produce(setting, 1);
    moves(setting, 0);
    setting.reset();
    let begun = settled(setting);
    produce(setting, 15);
    stays(setting, begun);
}

pub(crate) fn segment_ms(setting: &mut Setting) {
    setting.create_topic(&[("retention.bytes", "1")]);
    produce(setting, 2);
    stays(setting, 0);
    setting.set("1");
    produce(setting, 1);
    moves(setting, 0);
    setting.reset();
    produce(setting, 1);
    let begun = settled(setting);
    produce(setting, 2);
    stays(setting, begun);
}

/// The file beside the sealed segment `sequence`.
fn seal(setting: &Setting, sequence: usize) -> PathBuf {
    let partitions = setting.data_dir.join("p");
    let prefix = format!("{}-0.", setting.topic);
    let entries = std::fs::read_dir(&partitions).expect("the directory of partitions");
    let mut entries = entries.map(|entry| entry.expect("an entry").path());
    let directory =
        entries.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)));
    let mut seals: Vec<PathBuf> = std::fs::read_dir(directory.expect("the partition's directory"))
        .expect("the partition's directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seal"))
        .collect();
    seals.sort();
    seals.get(sequence).cloned().unwrap_or_default()
}

fn seal_bytes(setting: &Setting, sequence: usize) -> u64 {
    eventually("a segment is sealed", || std::fs::metadata(seal(setting, sequence)).ok().map(|file| file.len()))
}

pub(crate) fn index_interval(setting: &mut Setting) {
    setting.create_topic(&[("segment.bytes", "1048576")]);
    let fill = |setting: &mut Setting| {
        for number in 0..210 {
            setting.client.append(&setting.topic, 0, &batch(&[&noise(number, 5 << 10)]));
        }
    };
    fill(setting);
    let dense = seal_bytes(setting, 0);
    // The segment that is active now was begun before.
    setting.set("1000000");
    fill(setting);
    fill(setting);
    let sparse = seal_bytes(setting, 2);
    assert!(dense > 2 * sparse, "{dense} and {sparse} bytes for some 200 entries and for 2");
    setting.reset();
    fill(setting);
    fill(setting);
    assert!(seal_bytes(setting, 4) > 2 * sparse);
}

pub(crate) fn cleanup_policy(setting: &mut Setting) {
    setting.create_topic(&[("segment.bytes", "1048576"), ("retention.bytes", "1")]);
    setting.set("");
    produce(setting, 25);
    stays(setting, 0);
    setting.set("delete");
    moves(setting, 0);
    setting.set("");
    let kept = settled(setting);
    produce(setting, 25);
    stays(setting, kept);
    setting.reset();
    moves(setting, kept);
}

pub(crate) fn retention_ms(setting: &mut Setting) {
    setting.create_topic(&[]);
    let old = |setting: &mut Setting| setting.client.append(&setting.topic, 0, &timed(BATCH_TIME, b"years ago"));
    old(setting);
    stays(setting, 0);
    setting.set("3600000");
    moves(setting, 0);
    setting.reset();
    let kept = old(setting);
    stays(setting, kept);
}

pub(crate) fn retention_bytes(setting: &mut Setting) {
    setting.create_topic(&[("segment.bytes", "1048576")]);
    produce(setting, 35);
    stays(setting, 0);
    setting.set("1500000");
    moves(setting, 0);
    // Two segments are left at most, of ten batches each.
    eventually("all that exceeds the size is deleted", || (earliest(setting) >= 15).then_some(()));
    setting.reset();
    let kept = settled(setting);
    produce(setting, 25);
    stays(setting, kept);
}
