//! A file system without room: producers are told, nothing that was acknowledged is lost, and it goes on once there is room.
//!
//! The file system is a real one of 64 MiB, ext4 in a file behind a loop device. That takes root and `mkfs.ext4`; where
//! either is missing the tests are skipped, see `super::skip`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use corelane::types::ErrorCode;
use corelane::wire::messages::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use rdkafka::error::RDKafkaErrorCode;

use super::clients::librdkafka::{Record, produce, producer_config};
use super::clients::wire::{Client, batch, code, topic_name};
use super::clients::{SOON, eventually};
use super::support::{BrokerOptions, Scratch, now};
use super::{append_until_refused, assert_readable, skip, start, value};

const DISK_BYTES: u64 = 64 << 20;
const RECORD_BYTES: usize = 200_000;
/// Some looks of the broker at the free space.
const LOOKS: Duration = Duration::from_millis(2_500);
/// More records than the disk has room for.
const RECORDS_TOO_MANY: u64 = DISK_BYTES / RECORD_BYTES as u64;

/// A mounted file system of [`DISK_BYTES`], unmounted when its owner goes.
struct SmallDisk {
    mounted_at: PathBuf,
}

impl SmallDisk {
    /// Makes one in `scratch`; `None`, and `test` is skipped, where that is not possible.
    fn mount(scratch: &Scratch, test: &str) -> Option<SmallDisk> {
        let skipped = |reason: String| {
            skip(test, &reason);
            None
        };
        if std::fs::metadata(scratch.path()).expect("it was just made").uid() != 0 {
            return skipped("mounting a file system takes root".to_owned());
        }
        let (image, mounted_at) = (scratch.path().join("disk"), scratch.path().join("mounted"));
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(DISK_BYTES))
            .expect("the scratch directory has room");
        std::fs::create_dir(&mounted_at).expect("the scratch directory is writable");
        match run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image)) {
            Err(reason) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
                panic!("scripts/setup installs mkfs.ext4, and CI allows no skip: {reason}")
            }
            Err(reason) => return skipped(reason),
            Ok(()) => {}
        }
        match run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted_at)) {
            Ok(()) => Some(SmallDisk { mounted_at }),
            Err(reason) => skipped(reason),
        }
    }

    /// Takes all the room that there is, but for `left` bytes, with a file that [`SmallDisk::make_room`] removes.
    fn fill(&self, left: u64) {
        let ballast = std::fs::File::create(self.ballast()).expect("there is room for a name");
        let zeros = vec![0; 64 << 10];
        let mut written = 0;
        loop {
            if self.free_bytes() <= left {
                break;
            }
            match std::os::unix::fs::FileExt::write_at(&ballast, &zeros, written) {
                Ok(bytes) => written += bytes as u64,
                Err(_) => break,
            }
            ballast.sync_data().expect("what was written has its blocks");
        }
        assert!(written > 0, "the disk was full before");
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("it was written");
    }

    fn ballast(&self) -> PathBuf {
        self.mounted_at.join("ballast")
    }

    fn free_bytes(&self) -> u64 {
        let output =
            Command::new("stat").args(["-f", "-c", "%a %S"]).arg(&self.mounted_at).output().expect("stat runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        assert_eq!(numbers.len(), 2, "{text}");
        numbers[0] * numbers[1]
    }

    fn data_dir(&self) -> PathBuf {
        self.mounted_at.join("data")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that still holds files there keeps the plain one from working.
        let unmounted = run(Command::new("umount").arg(&self.mounted_at));
        if let Err(reason) = unmounted.or_else(|_| run(Command::new("umount").arg("-l").arg(&self.mounted_at))) {
            eprintln!("{} stays mounted: {reason}", self.mounted_at.display());
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

fn options(data_dir: &Path) -> BrokerOptions {
    BrokerOptions::new(data_dir).set("log.segment.bytes", "4194304")
}

/// Appends record `number` of `topic` until it is taken; what was refused meanwhile may have been written.
fn append_again(client: &mut Client, topic: &str, number: u64) -> i64 {
    eventually("appends work again", || {
        let answer = client.produce(topic, 0, &batch(&[&value(number, RECORD_BYTES)]));
        (code(answer.error_code) == ErrorCode::None).then_some(answer.base_offset)
    })
}

/// Appends to an empty topic until nothing is taken any more; returns the end. Every refusal is a clear one. What is refused
/// once may be taken after the broker's next look: what a log has zeroed ahead counts twice in between.
fn append_until_full(client: &mut Client, topic: &str) -> u64 {
    let mut end = 0;
    loop {
        let (reached, refused) = append_until_refused(client, topic, end, RECORDS_TOO_MANY, RECORD_BYTES);
        assert_eq!(refused, ErrorCode::KafkaStorageError);
        if reached == end {
            return end;
        }
        end = reached;
        std::thread::sleep(LOOKS);
    }
}

fn delete_records(client: &mut Client, topic: &str, before: u64) {
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(before as i64);
    let topic = DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let answer = client.call(2, &request).topics.remove(0).partitions.remove(0);
    assert_eq!((code(answer.error_code), answer.low_watermark), (ErrorCode::None, before as i64));
}

#[test]
fn a_disk_that_producers_filled_takes_records_again_once_old_ones_are_deleted() {
    let scratch = Scratch::new("full-disk");
    let Some(disk) = SmallDisk::mount(&scratch, "a disk that producers filled") else { return };
    let mut broker = start(&options(&disk.data_dir()));
    let mut client = Client::connect(broker.address());
    client.create_topic("filled", 1, &[]);
    client.create_topic("other", 1, &[]);
    assert_eq!(append_until_refused(&mut client, "other", 0, 3, 100), (3, ErrorCode::None));
    let acknowledged = append_until_full(&mut client, "filled");
    assert!(acknowledged * RECORD_BYTES as u64 > DISK_BYTES / 4, "only {acknowledged} records had room");
    // The disk is everybody's; what is there can be read, and a client library sees the same error.
    let other = client.produce("other", 0, &batch(&[&value(3, RECORD_BYTES)]));
    assert_eq!(code(other.error_code), ErrorCode::KafkaStorageError);
    let mut config = producer_config(&broker.bootstrap());
    config.set("message.send.max.retries", "0");
    let delivery = produce(&config, "filled", 0, &[Record::new(b"key", &value(0, RECORD_BYTES))]);
    assert_eq!(delivery, [Err(RDKafkaErrorCode::KafkaStorageError)]);
    assert!(broker.is_running(), "{}", broker.stderr());
    assert_eq!(assert_readable(&mut client, "filled", 0, acknowledged, RECORD_BYTES), acknowledged);
    assert_readable(&mut client, "other", 0, 3, 100);

    delete_records(&mut client, "filled", acknowledged - 5);
    assert_eq!(append_again(&mut client, "filled", acknowledged), acknowledged as i64);
    let end = acknowledged + 20;
    assert_eq!(append_until_refused(&mut client, "filled", acknowledged + 1, end, RECORD_BYTES).0, end);
    assert_eq!(assert_readable(&mut client, "filled", acknowledged - 5, end, RECORD_BYTES), end);
    let ended = broker.terminate();
    assert_eq!(ended.code(), Some(0), "{ended}");
    let broker = start(&options(&disk.data_dir()));
    let mut client = Client::connect(broker.address());
    assert_eq!(assert_readable(&mut client, "filled", acknowledged - 5, end, RECORD_BYTES), end);
    assert_readable(&mut client, "other", 0, 3, 100);
}

#[test]
fn a_disk_that_something_else_filled_takes_records_again_once_that_is_gone() {
    let scratch = Scratch::new("filled-disk");
    let Some(disk) = SmallDisk::mount(&scratch, "a disk that something else filled") else { return };
    let mut broker = start(&options(&disk.data_dir()));
    let mut client = Client::connect(broker.address());
    client.create_topic("squeezed", 1, &[]);
    assert_eq!(append_until_refused(&mut client, "squeezed", 0, 10, RECORD_BYTES), (10, ErrorCode::None));
    disk.fill(1 << 20);
    // The broker looks at the free space now and then, not at every append.
    let deadline = now() + SOON;
    let mut acknowledged = 10;
    loop {
        let (end, refused) =
            append_until_refused(&mut client, "squeezed", acknowledged, acknowledged + 1, RECORD_BYTES);
        acknowledged = end;
        if refused != ErrorCode::None {
            assert_eq!(refused, ErrorCode::KafkaStorageError);
            break;
        }
        assert!(now() < deadline, "appends go on at {} free bytes", disk.free_bytes());
    }
    assert!(broker.is_running(), "{}", broker.stderr());
    assert_readable(&mut client, "squeezed", 0, acknowledged, RECORD_BYTES);
    disk.make_room();
    let next = append_again(&mut client, "squeezed", acknowledged) as u64;
    assert_eq!(next, acknowledged, "what was refused for want of room was not written");
    assert_eq!(assert_readable(&mut client, "squeezed", 0, acknowledged + 1, RECORD_BYTES), acknowledged + 1);
}

#[test]
fn a_write_without_room_leaves_the_log_open() {
    let scratch = Scratch::new("no-reserve");
    let Some(disk) = SmallDisk::mount(&scratch, "a write without room") else { return };
    // Without the reserve nothing is refused early: the system's own "no space left" reaches the writer.
    let options = options(&disk.data_dir()).set("log.dir.reserve.bytes", "0");
    let mut broker = start(&options);
    let mut client = Client::connect(broker.address());
    client.create_topic("brim", 1, &[]);
    disk.fill(8 << 20);
    let (acknowledged, refused) = append_until_refused(&mut client, "brim", 0, RECORDS_TOO_MANY, RECORD_BYTES);
    // The record whose write met the end waits for room. Its producer waits as long as it said, and is told that nobody
    // knows; whoever comes after it is told at once.
    assert!(matches!(refused, ErrorCode::RequestTimedOut | ErrorCode::KafkaStorageError), "{refused}");
    let later = client.produce("brim", 0, &batch(&[&value(acknowledged, RECORD_BYTES)]));
    assert_eq!(code(later.error_code), ErrorCode::KafkaStorageError);
    assert!(broker.is_running(), "{}", broker.stderr());
    assert_readable(&mut client, "brim", 0, acknowledged, RECORD_BYTES);
    disk.make_room();
    let next = append_again(&mut client, "brim", acknowledged) as u64;
    assert!((acknowledged..=acknowledged + 1).contains(&next), "{next} after {acknowledged}");
    assert_eq!(assert_readable(&mut client, "brim", 0, acknowledged + 1, RECORD_BYTES), next + 1);
    broker.kill();
    let broker = start(&options);
    let mut client = Client::connect(broker.address());
    assert_eq!(assert_readable(&mut client, "brim", 0, acknowledged + 1, RECORD_BYTES), next + 1);
}
