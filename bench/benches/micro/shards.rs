//! What the runtime adds to a request, on real shards.
//!
//! - `append`: CPU time of the thread in [`Partition::append`], the call that a produce request makes: sequence check, copy,
//!   index. The log writes meanwhile, with write caching, and is waited for between groups of appends; that is not in it.
//! - `mailbox`: a request to another shard and its reply, by the wall clock: one at a time, where a shard that sleeps has to be
//!   woken, and 64 at a time, where many go with one call. A hop is half of it.
//! - `ring`: 16 bytes to a socket of the same shard and back, by the wall clock: two sends and two receives on one ring. One at a
//!   time shows the latency of a turn, 64 connections show what each costs when turns are full.
//!
//! Every sample has a shard of its own; starting it is not in the time.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bench::broker::{open_partition, other};
use bench::requests::Shape;
use corelane::partition::Partition;
use corelane::record::{Decompressors, validate_produce};
use corelane::runtime::mailbox::{Inbox, Mesh, Post};
use corelane::runtime::{Buffer, Class, Instant, Listener, Stream, connect, real, spawn, startup, wall_clock};
use corelane::types::{Offset, Piece, ShardId};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Appends between two looks at the clock and at the log: 4 MiB of the largest batches, which is about two of the log's writes.
const APPENDS: u64 = 64;

/// Bytes of a request of the echo.
const ECHO_BYTES: usize = 16;

pub(crate) fn run(criterion: &mut Criterion) {
    append(criterion);
    mailbox(criterion);
    ring(criterion);
}

/// Runs a measurement on a shard of its own.
pub(crate) fn on_shard(measurement: impl Future<Output = io::Result<Duration>> + 'static) -> Duration {
    let result = real::run(&real::Options::default(), measurement).expect("a shard starts");
    result.expect("nothing fails that is measured")
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for (records, value_bytes) in [(1, 100), (160, 100), (63, 1024)] {
        let shape = Shape { records, value_bytes };
        group.bench_function(shape.name(), |bencher| {
            bencher.iter_custom(|count| {
                let scratch = crate::scratch();
                let directory = scratch.path().to_owned();
                on_shard(async move {
                    let (_storage, partition) = open_partition(&directory, true).await?;
                    appends(&partition, shape, count).await
                })
            });
        });
    }
    group.finish();
}

/// CPU time of `count` appends.
async fn appends(partition: &Partition, shape: Shape, count: u64) -> io::Result<Duration> {
    let (batch, mut decompressors) = (shape.batch(wall_clock())?, Decompressors::new());
    let validated = validate_produce(&batch, wall_clock(), &partition.produce_rules(), &mut decompressors);
    let batch = validated.map_err(io::Error::other)?;
    let (mut nanos, mut left) = (0, count);
    while left > 0 {
        let appends = left.min(APPENDS);
        let mut end = Offset::ZERO;
        let begin = real::thread_cpu_nanos();
        for _ in 0..appends {
            end = partition.append(&batch).map_err(other)?.end;
        }
        nanos += real::thread_cpu_nanos() - begin;
        partition.committed(end).await.map_err(io::Error::other)?;
        left -= appends;
    }
    Ok(Duration::from_nanos(nanos))
}

/// What the shards of the mailbox benchmark ask each other: a number to be given back, or nothing, to end.
type Question = Option<u64>;

fn mailbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(1));
    for under_way in [1, 64] {
        group.bench_function(BenchmarkId::new("under_way", under_way), |bencher| {
            bencher.iter_custom(|count| questions(under_way, count));
        });
    }
    group.finish();
}

/// Time of `count` questions of the first shard to the second, so many at a time.
fn questions(under_way: u64, count: u64) -> Duration {
    let mesh: Mesh<Question, u64> = Mesh::new(2);
    let pins = startup::cores() > 1;
    let options = move |shard: ShardId| real::Options { core: startup::core(usize::from(shard.0)).filter(|_| pins) };
    let times = real::run_shards(2, options, move |shard| {
        let mesh = mesh.clone();
        async move {
            let (post, inbox) = mesh.join(shard).expect("descriptors are left");
            if shard == ShardId(0) { ask(&post, under_way, count).await } else { answer(inbox).await }
        }
    });
    times.expect("two shards start")[0]
}

async fn ask(post: &Post<Question, u64>, under_way: u64, count: u64) -> Duration {
    const OTHER: ShardId = ShardId(1);
    // The other shard has joined, and both are awake.
    assert_eq!(post.request(OTHER, Some(0)).await, Some(0));
    let begin = Instant::now();
    let mut pending = Vec::new();
    let mut asked = 0;
    while asked < count {
        let now = under_way.min(count - asked);
        for number in asked..asked + now {
            pending.push(post.send(OTHER, Some(number)).await.expect("the other shard is there"));
        }
        for (number, answer) in (asked..).zip(pending.drain(..)) {
            assert_eq!(answer.await, Some(number));
        }
        asked += now;
    }
    let time = Instant::now().since(begin);
    post.request(OTHER, None).await;
    time
}

async fn answer(mut inbox: Inbox<Question, u64>) -> Duration {
    let (mut batch, mut has_ended) = (Vec::new(), false);
    while !has_ended {
        inbox.receive(&mut batch).await;
        for incoming in batch.drain(..) {
            has_ended |= incoming.request.is_none();
            incoming.reply.send(incoming.request.unwrap_or_default());
        }
    }
    Duration::ZERO
}

fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(1));
    for connections in [1, 64] {
        group.bench_function(BenchmarkId::new("connections", connections), |bencher| {
            bencher.iter_custom(|count| on_shard(echoes(connections, count)));
        });
    }
    group.finish();
}

/// Time of `count` round trips in all, at the least one for each of the connections.
async fn echoes(connections: u64, count: u64) -> io::Result<Duration> {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let mut clients = Vec::new();
    for _ in 0..connections {
        let client = connect(listener.local_address()).await?;
        spawn(Class::Produce, echo(listener.accept().await?));
        clients.push(client);
    }
    let each = count.div_ceil(connections);
    let begin = Instant::now();
    let tasks: Vec<_> = clients.into_iter().map(|client| spawn(Class::Produce, round_trips(client, each))).collect();
    for task in tasks {
        task.await?;
    }
    Ok(scaled(Instant::now().since(begin), each * connections, count))
}

/// The time of `count` of something of which `done` took `time`.
pub(crate) fn scaled(time: Duration, done: u64, count: u64) -> Duration {
    time.mul_f64(count as f64 / done as f64)
}

async fn round_trips(client: Stream, count: u64) -> io::Result<()> {
    let mut content = Buffer::with_capacity(ECHO_BYTES);
    content.append(&[b'x'; ECHO_BYTES]);
    let content = content.freeze();
    let (mut buffer, mut pieces) = (Buffer::with_capacity(ECHO_BYTES), Vec::new());
    for _ in 0..count {
        pieces.push(Piece::Shared(content.clone()));
        let (sent, back) = client.send(pieces).await;
        sent?;
        pieces = back;
        let mut received = 0;
        while received < ECHO_BYTES {
            let (result, back) = client.receive(buffer).await;
            buffer = back;
            match result? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => received += bytes,
            }
        }
        assert!(buffer.clear(), "nobody shares it");
    }
    Ok(())
}

/// Sends back what comes until the connection ends.
async fn echo(stream: Stream) -> io::Result<()> {
    let (mut buffer, mut pieces) = (Buffer::with_capacity(ECHO_BYTES), Vec::new());
    loop {
        let (received, back) = stream.receive(buffer).await;
        buffer = back;
        if received? == 0 {
            return Ok(());
        }
        pieces.push(Piece::Shared(buffer.slice(0..buffer.len())));
        let (sent, back) = stream.send(pieces).await;
        sent?;
        pieces = back;
        assert!(buffer.clear(), "what was sent is shared by nobody");
    }
}
