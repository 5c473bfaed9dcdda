//! The relay on a real shard and a real disk: what it writes, when it acknowledges, what comes out, what it leaves behind.
//!
//! Client and relay share one shard, so a client that has its acknowledgement looks into the file before the relay runs again.
//! A panic on a shard ends the process: what is found there is handed out and judged outside.

use std::fs;
use std::path::Path;

use corelane::storage::format::{FIRST_BATCH_AT, segment_path};

use super::server::{Options as ServerOptions, serve};
use super::*;

/// Bytes of a test's segment: a few frames.
const TEST_SEGMENT_BYTES: u64 = 200_000;

/// The first ends with a block, the second 42 bytes before the end of one; then small and large ones, around blocks and around
/// what counts as a large commit.
const SIZES: [usize; 13] = [4092, 4050, 1, 100, 4088, 4096, 10_000, 65_536, 131_072, 190_000, 70_000, 3, 300_000];

/// Runs `test` beside a relay on a new shard, in a directory of its own.
fn beside_a_relay<T: 'static, F>(class: Durable, test: impl FnOnce(Stream, Stream, PathBuf) -> F + 'static) -> T
where
    F: Future<Output = io::Result<T>> + 'static,
{
    let scratch = Scratch::new(&std::env::temp_dir()).expect("the directory for temporary files is writable");
    let options = ServerOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        directory: scratch.path().to_owned(),
        class,
        segment_bytes: TEST_SEGMENT_BYTES,
        segments_max: 2,
        core: None,
    };
    let lane = scratch.path().join("lane-0");
    let main = async move {
        let (sender, address) = corelane::runtime::sync::oneshot();
        spawn(Class::Produce, async move { serve(&options, |address| sender.send(address)).await });
        let address = address.await.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let (producer, consumer) = lane_clients(address, 0).await?;
        test(producer, consumer, lane).await
    };
    real::run(&real::Options::default(), main).expect("a shard starts").expect("no client fails")
}

fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * index / 3 + bytes) as u8).collect()
}

async fn send(stream: &Stream, bytes: Vec<u8>) -> io::Result<()> {
    stream.send(vec![Piece::Encoded(bytes.into())]).await.0
}

/// The next `bytes` bytes; fewer where the stream ends.
async fn receive(stream: &Stream, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        let (received, buffer) = stream.receive(Buffer::with_capacity(4096)).await;
        if !matches!(received, Ok(1..)) {
            break;
        }
        all.extend_from_slice(&buffer);
    }
    all
}

/// Waits until `path` is gone, for 5 seconds at most.
async fn gone(path: &Path) -> bool {
    for _ in 0..5_000 {
        if !path.exists() {
            return true;
        }
        sleep(Duration::from_millis(1)).await;
    }
    false
}

fn ack(payload: &[u8]) -> Vec<u8> {
    [4_u32.to_be_bytes(), crc32c::crc32c(payload).to_be_bytes()].concat()
}

/// Where a frame lies: its segment and its position there.
fn places() -> Vec<(u64, u64)> {
    let (mut segment, mut end) = (0, FIRST_BATCH_AT);
    let place = |bytes: usize| {
        let bytes = 4 + bytes as u64;
        if end > FIRST_BATCH_AT && end + bytes > TEST_SEGMENT_BYTES {
            (segment, end) = (segment + 1, FIRST_BATCH_AT);
        }
        end += bytes;
        (segment, end - bytes)
    };
    SIZES.map(place).to_vec()
}

#[test]
fn what_is_acknowledged_lies_in_its_segment_and_what_comes_out_is_what_went_in() {
    assert!(places().iter().any(|(segment, _)| *segment >= 4), "the sizes do not roll: {:?}", places());
    for class in [Durable::No, Durable::Yes] {
        let found = beside_a_relay(class, |producer, consumer, lane| async move {
            let mut found = Vec::new();
            for (bytes, (segment, position)) in SIZES.into_iter().zip(places()) {
                let sent = frame(&payload(bytes));
                send(&producer, sent.clone()).await?;
                let ack = receive(&producer, ACK_BYTES).await;
                let file = fs::read(segment_path(&lane, segment))?;
                let at = usize::try_from(position).map_err(io::Error::other)?;
                let written = file.get(at..at + sent.len()).map(<[u8]>::to_vec);
                let behind = file.get(at + sent.len()..at + sent.len() + 64).map(<[u8]>::to_vec);
                found.push((bytes, ack, written, behind, receive(&consumer, sent.len()).await));
            }
            Ok(found)
        });
        assert_eq!(found.len(), SIZES.len());
        for (bytes, acked, written, behind, out) in found {
            let payload = payload(bytes);
            assert_eq!(acked, ack(&payload), "the acknowledgement of {bytes} bytes, {class:?}");
            assert!(written.as_ref() == Some(&frame(&payload)), "{bytes} bytes in the file, {class:?}");
            assert_eq!(behind, Some(vec![0; 64]), "zeros follow {bytes} bytes, {class:?}");
            assert!(out == frame(&payload), "{bytes} bytes that came out, {class:?}");
        }
    }
}

#[test]
fn frames_that_come_together_are_each_acknowledged_and_come_out_in_order() {
    for class in [Durable::No, Durable::Yes] {
        let payloads: Vec<Vec<u8>> = (0..400).map(|number| payload(1 + number * 97 % 20_011)).collect();
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
        let (sent, bytes) = (stream.clone(), stream.len());
        let (acks, out) = beside_a_relay(class, move |producer, consumer, _| async move {
            let sending = producer.clone();
            let send = spawn(Class::Produce, async move { send(&sending, sent).await });
            let consume = spawn(Class::Fetch, async move { receive(&consumer, bytes).await });
            let acks = receive(&producer, 400 * ACK_BYTES).await;
            send.await?;
            Ok((acks, consume.await))
        });
        assert_eq!(acks, payloads.iter().flat_map(|payload| ack(payload)).collect::<Vec<_>>(), "{class:?}");
        assert!(out == stream, "what comes out is not what went in, {class:?}");
    }
}

#[test]
fn a_frame_that_cannot_be_written_is_neither_acknowledged_nor_sent_on() {
    let (acks, out) = beside_a_relay(Durable::No, |producer, consumer, lane| async move {
        send(&producer, frame(&payload(150_000))).await?;
        let mut acks = receive(&producer, ACK_BYTES).await;
        let mut out = receive(&consumer, 150_004).await;
        // The segment of the second frame cannot be made.
        fs::write(segment_path(&lane, 1), "in the way")?;
        send(&producer, frame(&payload(150_000))).await?;
        acks.extend(receive(&producer, ACK_BYTES).await);
        out.extend(receive(&consumer, 150_004).await);
        Ok((acks, out))
    });
    assert_eq!((acks, out.len()), (ack(&payload(150_000)), 150_004));
}

#[test]
fn old_segments_go_and_a_lane_that_ends_leaves_nothing() {
    let (files, is_gone) = beside_a_relay(Durable::Yes, |producer, consumer, lane| async move {
        for _ in 0..5 {
            send(&producer, frame(&payload(150_000))).await?;
            receive(&producer, ACK_BYTES).await;
            receive(&consumer, 150_004).await;
        }
        let mut files: Vec<PathBuf> = fs::read_dir(&lane)?.flatten().map(|entry| entry.path()).collect();
        files.sort();
        let numbers = [3, 4].map(|number| segment_path(&lane, number));
        producer.shutdown();
        Ok((files == numbers, gone(&lane).await))
    });
    assert!(files, "the last two of five segments are there");
    assert!(is_gone, "the lane's directory is removed");
}

#[test]
fn a_producer_that_sends_no_frame_is_closed() {
    let (answer, is_gone) = beside_a_relay(Durable::No, |producer, _, lane| async move {
        send(&producer, vec![0; 4]).await?;
        Ok((receive(&producer, 1).await, gone(&lane).await))
    });
    assert_eq!((answer, is_gone), (vec![], true));
}

#[test]
fn the_result_is_json_with_the_agreed_names() {
    let arguments = ["null-relay", "--class", "C", "--batch-bytes", "1000", "--record-bytes", "100"];
    let options = <Options as clap::FromArgMatches>::from_arg_matches(
        &<Options as Args>::augment_args(clap::Command::new("null-relay")).get_matches_from(arguments),
    )
    .expect("good options");
    let run = Run { requests: 4_000_000, seconds: 2.0, before: 1.0, after: 3.0 };
    let text = serde_json::to_string(&Report::new(&options, "machine".to_owned(), &run)).expect("numbers and text");
    let json: serde_json::Value = serde_json::from_str(&text).expect("one object");
    let expected = serde_json::json!({
        "schema": 1, "kind": "null_relay", "machine": "machine", "class": "C", "batch_bytes": 1000, "record_bytes": 100,
        "lanes": 1, "in_flight": 5, "records_per_s": 20e6, "bytes_per_s": 2e9, "cpu_s_per_gb": 0.5, "seconds": 2.0,
    });
    assert_eq!(json, expected);
}
