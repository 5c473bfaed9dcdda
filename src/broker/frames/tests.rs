//! Frames of every size, out of arbitrary pieces, within memory and time that others need too.
//!
//! They run over a socket of the simulated world; what the memory itself promises is tested beside it.

use super::*;
use crate::runtime::sim::{Simulation, SimulationOptions};
use crate::runtime::{Class, Duration, Listener, SocketAddr, connect, sleep, spawn, timeout};
use crate::types::{Piece, ShardId};

const FRAME_BYTES_MAX: usize = 8 << 20;
const PATIENCE: Patience = Patience { first_request: Duration::from_secs(10), request: Duration::from_secs(30) };

/// For tests of memory, not of time.
const UNHURRIED: Patience = Patience { first_request: Duration::from_secs(3600), request: Duration::from_secs(3600) };

/// What `body` returns on a shard of a node that has this address.
fn on_a_shard<T: 'static, F: Future<Output = T> + 'static>(seed: u64, body: impl FnOnce(SocketAddr) -> F) -> T {
    let simulation = Simulation::new(seed, SimulationOptions::default());
    let node = simulation.add_node(1);
    let address = SocketAddr::new(simulation.address(node), 9092);
    simulation.run_on(node, ShardId(0), body(address)).expect("it ends").expect("nobody killed the node")
}

/// A client's end of a connection, and the reader of its frames.
async fn connection(address: SocketAddr, memory: &Rc<RequestMemory>) -> (Stream, FrameReader) {
    let listener = Listener::bind(address).expect("free");
    let connecting = spawn(Class::Produce, connect(address));
    let frames = FrameReader::new(listener.accept().await.expect("connected"), memory, UNHURRIED);
    (connecting.await.expect("it listens"), frames)
}

/// Sends all of `bytes`.
async fn send(stream: &Stream, bytes: Vec<u8>) {
    let (sent, _) = stream.send(vec![Piece::Encoded(bytes.into())]).await;
    sent.expect("nobody ends the connection");
}

/// The lengths of the frames that a reader finds in `sent`, fed over a socket in arbitrary pieces, and how it ended.
fn read(seed: u64, sent: Vec<u8>) -> (Vec<usize>, Result<(), String>) {
    on_a_shard(seed, |address| async move {
        let listener = Listener::bind(address).expect("free");
        spawn(Class::Produce, async move {
            let stream = connect(address).await.expect("it listens");
            let pieces = vec![Piece::Encoded(sent.into())];
            let _ = stream.send(pieces).await;
            stream.shutdown();
        });
        let memory = RequestMemory::new(32 << 20, FRAME_BYTES_MAX);
        let mut frames = FrameReader::new(listener.accept().await.expect("connected"), &memory, PATIENCE);
        let mut lengths = Vec::new();
        loop {
            match frames.next().await {
                Ok(Some(frame)) => {
                    assert!(frame.iter().all(|&byte| usize::from(byte) == lengths.len() % 251), "bytes of frame");
                    lengths.push(frame.len());
                }
                Ok(None) => break (lengths, Ok(())),
                Err(error) => break (lengths, Err(error.to_string())),
            }
        }
    })
}

fn encode(lengths: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, &length) in lengths.iter().enumerate() {
        bytes.extend_from_slice(&u32::try_from(length).expect("small").to_be_bytes());
        bytes.resize(bytes.len() + length, u8::try_from(number % 251).expect("below 251"));
    }
    bytes
}

#[test]
fn frames_of_every_size_arrive_whole() {
    for seed in 0..20 {
        let lengths = [0, 1, 4091, 4092, 4093, 5000, 100, 300_000, 3, 2_500_000, 64, 0, 70_000];
        assert_eq!(read(seed, encode(&lengths)), (lengths.to_vec(), Ok(())), "seed {seed}");
        let many: Vec<usize> = (0..500).map(|number| number * 7 % 400).collect();
        assert_eq!(read(seed, encode(&many)), (many, Ok(())), "seed {seed}");
    }
}

#[test]
fn lengths_that_cannot_be_end_the_connection() {
    let ended = |bytes: &[u8]| read(3, bytes.to_vec()).1.expect_err("ended");
    assert!(ended(&[0xff; 4]).contains("-1 bytes"));
    assert!(ended(&[0x7f, 0xff, 0xff, 0xff]).contains("socket.request.max.bytes=8388608"));
    assert!(ended(&[0, 0, 0, 9, 1]).contains("8 bytes before the end"));
    assert!(ended(&[0, 0]).contains("2 bytes before the end"));
}

/// A frame of `bytes` bytes with its length, of the API with this key.
fn frame(key: i16, bytes: usize) -> Vec<u8> {
    let mut frame = encode(&[bytes]);
    frame[LENGTH_BYTES..LENGTH_BYTES + API_KEY_BYTES].copy_from_slice(&key.to_be_bytes());
    frame
}

/// Runs `client` for each number below `clients` over a connection of its own, and reads the frames of all of them into
/// 16 MiB of memory; each is worked on for a moment. Returns what ended the connections.
fn crowd<F: Future<Output = ()> + 'static>(
    seed: u64,
    clients: usize,
    client: impl Fn(usize, Stream) -> F + 'static,
) -> Vec<Result<usize, String>> {
    on_a_shard(seed, |address| async move {
        let memory = RequestMemory::new(16 << 20, usize::MAX);
        let listener = Listener::bind(address).expect("free");
        let mut readers = Vec::new();
        for number in 0..clients {
            let connecting = spawn(Class::Produce, connect(address));
            let mut frames = FrameReader::new(listener.accept().await.expect("connected"), &memory, UNHURRIED);
            spawn(Class::Produce, client(number, connecting.await.expect("it listens")));
            let memory = memory.clone();
            readers.push(spawn(Class::Produce, async move {
                let mut count = 0;
                loop {
                    match frames.next().await {
                        Ok(Some(frame)) => {
                            count += 1;
                            sleep(Duration::from_millis(20)).await;
                            drop(frame);
                        }
                        Ok(None) => return Ok(count),
                        Err(error) => return Err(error.to_string()),
                    }
                    assert!(memory.taken() <= 16 << 20);
                }
            }));
        }
        let mut ends = Vec::new();
        for reader in readers {
            ends.push(reader.await);
        }
        assert_eq!(memory.taken(), 0);
        ends
    })
}

#[test]
fn half_sent_frames_lock_nobody_and_small_requests_pass() {
    const PRODUCERS: usize = 16;
    for seed in 0..4 {
        let ends = crowd(seed, PRODUCERS + 1, |number, stream| async move {
            if number < PRODUCERS {
                let bytes = frame(0, 3 << 20);
                let (half, rest) = bytes.split_at(3 << 19);
                send(&stream, half.to_vec()).await;
                sleep(Duration::from_millis(500)).await;
                send(&stream, rest.to_vec()).await;
            } else {
                for _ in 0..50 {
                    let begun = Instant::now();
                    send(&stream, frame(1, 40 << 10)).await;
                    let time = Instant::now().since(begun);
                    assert!(time < Duration::from_secs(1), "a fetch of 40 KiB was received after {time:?}");
                    sleep(Duration::from_millis(20)).await;
                }
            }
            stream.shutdown();
        });
        let mut expected = vec![Ok(1); PRODUCERS];
        expected.push(Ok(50));
        assert_eq!(ends, expected, "seed {seed}");
    }
}

#[test]
fn a_client_that_stops_in_a_frame_ends_when_others_need_its_memory() {
    const STOPPED: usize = 20;
    let ends = crowd(5, STOPPED + 1, |number, stream| async move {
        if number < STOPPED {
            send(&stream, frame(0, 4 << 20)[..1 << 19].to_vec()).await;
            // Until the broker ends the connection, or the others are done.
            let received = stream.receive(Buffer::with_capacity(1));
            let _ = timeout(Duration::from_secs(60), received).await;
        } else {
            sleep(Duration::from_secs(1)).await;
            for _ in 0..3 {
                send(&stream, frame(0, 6 << 20)).await;
            }
        }
        stream.shutdown();
    });
    assert_eq!(ends[STOPPED], Ok(3));
    let slow = ends.iter().filter(|end| end.as_ref().is_err_and(|end| end.contains("sends slowly"))).count();
    let cut = ends.iter().filter(|end| end.as_ref().is_err_and(|end| end.contains("before the end"))).count();
    assert_eq!(slow + cut, STOPPED);
    assert!(slow > 0, "{ends:?}");
}

#[test]
fn a_frame_keeps_no_more_than_it_needs_when_memory_is_short() {
    on_a_shard(6, |address| async move {
        let memory = RequestMemory::new(16 << 20, usize::MAX);
        let (client, mut frames) = connection(address, &memory).await;
        spawn(Class::Produce, async move {
            // Slabs of 4 MiB are more than what may be kept of 6 MiB for all frames.
            for (key, bytes) in [(0, 4 << 20), (1, 4 << 20), (0, 100), (1, 100)] {
                send(&client, frame(key, bytes - LENGTH_BYTES)).await;
            }
            client.shutdown();
        });
        for large in [0, 1] {
            let frame = frames.next().await.expect("well formed").expect("a frame");
            assert_eq!((frame.len(), frame.pinned_bytes()), ((4 << 20) - LENGTH_BYTES, 4 << 20), "{large}");
            assert_eq!(memory.taken(), 4 << 20);
            drop(frame);
        }
        while let Some(frame) = frames.next().await.expect("well formed") {
            assert_eq!(frame.len(), 100 - LENGTH_BYTES);
            assert!(frame.pinned_bytes() <= RECEIVE_BYTES_MAX && memory.taken() <= RECEIVE_BYTES_MAX);
        }
    });
}

/// A small frame behind a large one lies in its slab, and is copied out of it so that it can be waited for.
#[test]
fn a_small_request_leaves_a_large_slab_when_memory_is_short() {
    on_a_shard(7, |address| async move {
        let memory = RequestMemory::new(16 << 20, usize::MAX);
        let (client, mut frames) = connection(address, &memory).await;
        let mut bytes = frame(0, (3 << 20) + 1);
        bytes.extend(frame(1, 100));
        spawn(Class::Produce, async move { send(&client, bytes).await });
        let large = frames.next().await.expect("well formed").expect("a frame");
        let small = frames.next().await.expect("well formed").expect("a frame");
        assert_eq!((large.pinned_bytes(), small.pinned_bytes()), (4 << 20, RECEIVE_BYTES_MIN));
        assert_eq!(memory.taken(), 4 << 20);
        drop(large);
        assert_eq!(memory.taken(), 0);
        assert_eq!(small.len(), 100);
    });
}

/// How a reader of a client ends that sends `sent`, a piece every `pause`, and when.
fn read_slowly(sent: Vec<Vec<u8>>, pause: Duration) -> (String, Duration) {
    on_a_shard(5, |address| async move {
        let listener = Listener::bind(address).expect("free");
        spawn(Class::Produce, async move {
            let stream = connect(address).await.expect("it listens");
            for piece in sent {
                let _ = stream.send(vec![Piece::Encoded(piece.into())]).await;
                sleep(pause).await;
            }
            // Stays connected, and silent.
            sleep(Duration::from_secs(1000)).await;
            stream.shutdown();
        });
        let memory = RequestMemory::new(32 << 20, FRAME_BYTES_MAX);
        let mut frames = FrameReader::new(listener.accept().await.expect("connected"), &memory, PATIENCE);
        let begun = Instant::now();
        loop {
            match frames.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break ("ended".to_string(), Instant::now().since(begun)),
                Err(error) => break (error.to_string(), Instant::now().since(begun)),
            }
        }
    })
}

#[test]
fn a_client_has_so_long_for_its_requests_and_no_longer() {
    let second = Duration::from_secs(1);
    let within = |(reason, at): (String, Duration), expected: &str, from: u64| {
        assert!(reason.contains(expected), "{reason}");
        assert!(at >= second * u32::try_from(from).expect("small") && at < second * 1000, "{at:?}");
        at
    };
    let silent = within(read_slowly(Vec::new(), second), "connections.handshake.timeout.ms=10000", 10);
    assert!(silent < second * 11, "{silent:?}");
    let by_bytes = [0, 0, 1, 0].into_iter().chain([9; 20]).map(|byte| vec![byte]).collect();
    within(read_slowly(by_bytes, second), "connections.handshake.timeout.ms=10000", 10);

    let first = encode(&[4]);
    let mut second_by_bytes = vec![first.clone(), vec![0, 0, 1, 0]];
    second_by_bytes.extend(vec![vec![9]; 100]);
    let slow = within(read_slowly(second_by_bytes, second), "request.receive.timeout.ms", 30);
    assert!(slow < second * 33, "{slow:?}");

    let length = 2 << 20;
    let mut large = vec![first.clone(), u32::to_be_bytes(length).to_vec()];
    large.extend(vec![vec![9; 65536]; 32]);
    let (reason, at) = read_slowly(large, second + second / 4);
    assert_eq!(reason, "ended", "slow, and fast enough for its length");
    assert!(at > second * 1000, "{at:?}");

    let (reason, at) = read_slowly(vec![first], second);
    assert_eq!(reason, "ended", "between requests there is no limit here");
    assert!(at > second * 1000, "{at:?}");
}
