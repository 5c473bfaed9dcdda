//! Bits that flip on the disk: found by their checksum, named in the log, never served and never silently cut away.
//!
//! Only the files of a stopped broker are touched. What was damaged stays damaged: there is no replica to repair it from.

use std::path::{Path, PathBuf};

use corelane::record::UncheckedBatch;
use corelane::types::ErrorCode;

use super::clients::wire::{Client, batches, code};
use super::support::{Broker, BrokerOptions, Scratch};
use super::{append_until_refused, assert_readable, clients, files, flip_bit, partition_directory, start};

/// Where the first batch of a segment lies, behind its header block.
const FIRST_BATCH_AT: usize = 4096;
const RECORD_BYTES: usize = 50_000;
/// Records of the damaged topic: several segments of 1 MiB.
const RECORDS: u64 = 80;

/// A batch in a segment file.
struct Stored {
    position: usize,
    offset: i64,
    bytes: usize,
}

fn stored_batches(segment: &Path) -> Vec<Stored> {
    let contents = std::fs::read(segment).expect("the segment is there");
    let mut found: Vec<Stored> = Vec::new();
    let mut position = FIRST_BATCH_AT;
    while let Ok(unchecked) = UncheckedBatch::frame(&contents[position..], contents.len()) {
        let offset = unchecked.header().base_offset().expect("an offset").value();
        found.push(Stored { position, offset, bytes: unchecked.bytes().len() });
        position += unchecked.bytes().len();
    }
    assert!(!found.is_empty(), "{} holds batches", segment.display());
    found
}

/// Demands that everything but the record at `bad` is served, that one is CORRUPT_MESSAGE, and the log says where it lies.
#[track_caller]
fn assert_damage_is_told(broker: &Broker, segment: &Path, bad: &Stored) {
    let mut client = Client::connect(broker.address());
    let mut next = 0;
    let mut refused = 0;
    while next < RECORDS as i64 {
        let data = client.fetch("damaged", 0, next);
        match code(data.error_code) {
            ErrorCode::None => {
                let found = batches(&data);
                assert!(!found.is_empty(), "nothing at offset {next}");
                for stored in found {
                    assert_eq!(stored.base_offset().value(), next);
                    assert_ne!(next, bad.offset, "a damaged batch was served");
                    next += 1;
                }
            }
            ErrorCode::CorruptMessage => {
                assert_eq!(next, bad.offset, "only the damaged batch is refused");
                assert_eq!(data.records.map(|records| records.len()), Some(0));
                (next, refused) = (next + 1, refused + 1);
            }
            other => panic!("{other} at offset {next}"),
        }
    }
    assert_eq!(refused, 1);
    let file = segment.file_name().expect("a file").to_string_lossy().into_owned();
    let words = [file.as_str(), &bad.position.to_string(), "expected", "found", "damaged"];
    clients::eventually(&format!("a log line with {words:?}"), || {
        let log = broker.stderr();
        log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    });
    // The neighbours on the same shard notice nothing, and the partition itself takes what comes.
    assert_readable(&mut client, "neighbour", 0, 10, 100);
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_costs_that_batch_and_nothing_else() {
    let scratch = Scratch::new("flipped-bit");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let broker = start(&options);
    let mut client = Client::connect(broker.address());
    client.create_topic("damaged", 1, &[("segment.bytes", "1048576")]);
    client.create_topic("neighbour", 1, &[]);
    assert_eq!(append_until_refused(&mut client, "damaged", 0, RECORDS, RECORD_BYTES).0, RECORDS);
    assert_eq!(append_until_refused(&mut client, "neighbour", 0, 10, 100).0, 10);
    assert_eq!(broker.terminate().code(), Some(0));

    let segments = files(&partition_directory(options.data_dir(), "damaged"), "log");
    assert!(segments.len() >= 4, "{segments:?}");
    let segment = &segments[1];
    let batches = stored_batches(segment);
    let bad = &batches[batches.len() / 2];
    flip_bit(segment, (bad.position + bad.bytes / 2) as u64);

    let broker = start(&options);
    assert_damage_is_told(&broker, segment, bad);
    let mut client = Client::connect(broker.address());
    assert_eq!(append_until_refused(&mut client, "damaged", RECORDS, RECORDS + 5, RECORD_BYTES).0, RECORDS + 5);
    // Whether the start after it is clean or a recovery, the damage is neither forgotten nor cut away.
    assert_eq!(broker.terminate().code(), Some(0));
    let broker = start(&options);
    assert_damage_is_told(&broker, segment, bad);
    broker.kill();
    let broker = start(&options);
    assert_damage_is_told(&broker, segment, bad);
}

/// The metadata log and where `text` lies in it.
fn find_in_metadata(data_dir: &Path, text: &str) -> (PathBuf, u64) {
    let mut logs = files(&data_dir.join("meta"), "log");
    let path = logs.pop().expect("there is a metadata log");
    let contents = std::fs::read(&path).expect("it can be read");
    let found = contents.windows(text.len()).position(|window| window == text.as_bytes());
    (path, found.expect("the topic's name is in the metadata") as u64)
}

#[test]
fn damaged_metadata_ends_with_5_and_names_file_and_position() {
    let scratch = Scratch::new("damaged-metadata");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let broker = start(&options);
    let mut client = Client::connect(broker.address());
    for topic in ["first-topic", "second-topic", "third-topic"] {
        client.create_topic(topic, 1, &[]);
    }
    assert_eq!(append_until_refused(&mut client, "first-topic", 0, 5, 100).0, 5);
    assert_eq!(broker.terminate().code(), Some(0));
    let (path, position) = find_in_metadata(options.data_dir(), "first-topic");
    flip_bit(&path, position);
    for _ in 0..2 {
        let ended = match options.start() {
            Err(ended) => ended,
            Ok(broker) => panic!("a broker started on damaged metadata\n{}", broker.stderr()),
        };
        assert_eq!(ended.code(), Some(5), "{ended}");
        let file = path.file_name().expect("a file").to_string_lossy().into_owned();
        let told =
            ended.stderr.lines().any(|line| [&file, "expected", "found"].iter().all(|word| line.contains(*word)));
        assert!(told, "no line names {file}: {ended}");
    }
    // Nothing was cut away or written over: with the bit as it was everything is there.
    flip_bit(&path, position);
    let broker = start(&options);
    assert_eq!(broker.ready().partitions, 3);
    assert_readable(&mut Client::connect(broker.address()), "first-topic", 0, 5, 100);
}
