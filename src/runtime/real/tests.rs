//! Real shards on this machine: files, sockets, timers, dropped futures, overflow, teardown.
//!
//! What changes the whole process (limits, signals, aborts) runs in a process of its own: the test binary starts itself with
//! the name of an ignored test.
#![allow(unsafe_code)]

mod ends;
mod pulse;
mod wrong_sleep;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::pin::{Pin, pin};
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;

use super::ring::Ring;
use super::slot::{Held, Orphan};
use super::*;
use crate::runtime::context::{Backend, current};
use crate::runtime::sync::Notify;
use crate::runtime::{
    Buffer, Class, Durability, Duration, File, Instant, Listener, OpenMode, Slice, SocketAddr, Stream, Task, connect,
    directory, random_u64, sleep, sleep_until, spawn, terminated, timeout, yield_now,
};
use crate::types::Piece;

const MIB: usize = 1 << 20;

fn on_shard<T: 'static>(main: impl Future<Output = T> + 'static) -> T {
    run(&Options::default(), main).expect("this machine runs shards")
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn this_ring() -> Rc<Ring> {
    match current() {
        Backend::Real(shard) => shard.ring.clone(),
        Backend::Sim(_) => unreachable!("a real shard"),
    }
}

/// Bytes that tell their place: no two blocks are alike.
fn pattern(bytes: usize, seed: u64) -> Buffer {
    let mut buffer = Buffer::with_capacity(bytes);
    let mut state = seed | 1;
    buffer.append_with(bytes, |room| {
        for word in room.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
        }
    });
    buffer
}

/// Polls once and drops the future.
async fn poll_once_and_drop(future: impl Future) {
    let mut future = Box::pin(future);
    let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await;
    std::hint::black_box(polled);
}

fn in_own_process(test: &str) -> Output {
    let name = format!("runtime::real::tests::{test}");
    let program = std::env::current_exe().expect("this test's binary");
    Command::new(program)
        .args(["--exact", &name, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .expect("it starts")
}

#[track_caller]
fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

async fn pair() -> (Stream, Stream) {
    let listener = Listener::bind(loopback()).expect("a free port");
    let client = connect(listener.local_address()).await.expect("listening");
    let server = listener.accept().await.expect("connected");
    assert_eq!(client.peer_address(), server.local_address());
    assert_eq!(client.local_address(), server.peer_address());
    (client, server)
}

/// Receives exactly `bytes` bytes.
async fn receive_all(stream: &Stream, bytes: usize) -> Buffer {
    let mut buffer = Buffer::with_capacity(bytes);
    while buffer.len() < bytes {
        let (result, back) = stream.receive(buffer).await;
        assert!(result.expect("connected") > 0, "the stream ended early");
        buffer = back;
    }
    buffer
}

#[test]
fn what_was_written_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    on_shard(async move {
        let file = File::open(&path, OpenMode::Create).await.expect("new");
        let exists = File::open(&path, OpenMode::Create).await.err().expect("it exists");
        assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
        file.allocate(0, MIB as u64).await.expect("space");
        assert_eq!(file.length().await.expect("open"), MIB as u64);

        // More pieces than one system call takes.
        let content = pattern(5 * MIB, 1).freeze();
        let pieces = (0..1280).map(|block| content.slice(block * 4096..(block + 1) * 4096)).collect();
        let (result, pieces) = file.write_at(4096, pieces, Durability::Durable).await;
        result.expect("written");
        assert!(pieces.is_empty() && pieces.capacity() >= 1280, "the list comes back for reuse");
        file.write_at(0, vec![content.slice(0..4096)], Durability::Written).await.0.expect("written");
        file.sync().await.expect("synced");
        assert_eq!(file.length().await.expect("open"), 5 * MIB as u64 + 4096);

        let (result, buffer) = file.read_at(4096, 5 * MIB, Buffer::with_capacity(5 * MIB)).await;
        assert_eq!(result.expect("read"), 5 * MIB);
        assert!(*buffer == *content);
        assert_eq!(cached_pages(&path), 0, "the page cache holds none of it");
        std::fs::read(&path).expect("another program reads it");
        assert!(cached_pages(&path) > 0);
        File::open(&path, OpenMode::Write).await.expect("it exists");
        assert_eq!(cached_pages(&path), 0, "opening it for writing drops what others left");

        file.set_length(8192).await.expect("cut");
        assert_eq!(file.length().await.expect("open"), 8192);
    });
}

/// Pages of the file that the page cache holds (mincore(2)).
fn cached_pages(path: &Path) -> usize {
    use std::os::fd::AsRawFd;
    let file = std::fs::File::open(path).expect("it exists");
    let length = usize::try_from(file.metadata().expect("open").len()).expect("small");
    let mut pages = vec![0_u8; length.div_ceil(4096)];
    // SAFETY: maps the file afresh, looks at which pages are resident, and unmaps it; the vector has a byte for each page.
    unsafe {
        let map = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        assert_eq!(libc::mincore(map, length, pages.as_mut_ptr()), 0);
        libc::munmap(map, length);
    }
    pages.iter().filter(|&&page| page & 1 == 1).count()
}

#[test]
fn reading_past_the_end_gives_no_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    on_shard(async move {
        let file = File::open(&path, OpenMode::Create).await.expect("new");
        file.write_at(0, vec![pattern(8192, 3).freeze()], Durability::Written).await.0.expect("written");
        file.set_length(5000).await.expect("cut");
        let (result, buffer) = file.read_at(0, 65536, Buffer::with_capacity(65536)).await;
        assert_eq!((result.expect("read"), buffer.len()), (5000, 5000));
        let (result, buffer) = file.read_at(8192, 4096, Buffer::with_capacity(4096)).await;
        assert_eq!((result.expect("read"), buffer.len()), (0, 0));

        let read_only = File::open(&path, OpenMode::Read).await.expect("it exists");
        let (result, pieces) = read_only.write_at(0, vec![pattern(4096, 4).freeze()], Durability::Written).await;
        assert_eq!(result.expect_err("opened for reading").raw_os_error(), Some(libc::EBADF));
        assert!(pieces.is_empty());
        let absent = File::open(&path.with_extension("absent"), OpenMode::Read).await.err().expect("absent");
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn directories_and_locks() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().to_path_buf();
    on_shard(async move {
        let inner = root.join("inner");
        directory::create(&inner).await.expect("new");
        assert_eq!(directory::create(&inner).await.expect_err("it exists").kind(), io::ErrorKind::AlreadyExists);
        directory::replace(&inner.join("b"), b"first").await.expect("replaced");
        directory::replace(&inner.join("b"), b"second").await.expect("replaced");
        directory::rename(&inner.join("b"), &inner.join("a")).await.expect("renamed");
        directory::create(&inner.join("c")).await.expect("new");
        directory::sync(&inner).await.expect("synced");
        let names: Vec<(String, directory::EntryKind)> =
            directory::list(&inner).await.expect("listed").into_iter().map(|entry| (entry.name, entry.kind)).collect();
        assert_eq!(names, [("a".into(), directory::EntryKind::File), ("c".into(), directory::EntryKind::Directory)]);
        assert_eq!(directory::read(&inner.join("a"), 100).await.expect("read"), b"second");
        assert!(directory::remove(&inner).await.is_err(), "not empty");
        directory::remove_file(&inner.join("a")).await.expect("removed");
        directory::remove(&inner.join("c")).await.expect("removed");
        directory::remove(&inner).await.expect("removed");
        let space = directory::space(&root).await.expect("mounted");
        assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes, "{space:?}");
        assert!(directory::absolute("a/./b".as_ref()).is_ok_and(|path| path.is_absolute() && path.ends_with("a/b")));

        let lock = directory::lock(&root.join("LOCK"), "pid 7").await.expect("free");
        let error = directory::lock(&root.join("LOCK"), "pid 8").await.err().expect("taken");
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::WouldBlock, "pid 7"));
        drop(lock);
        directory::lock(&root.join("LOCK"), "pid 9").await.expect("free again");
    });
}

#[test]
fn dropped_futures_leave_memory_to_the_kernel_until_it_is_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    on_shard(async move {
        let file = File::open(&path, OpenMode::Create).await.expect("new");
        let content = pattern(MIB, 5).freeze();
        file.write_at(0, vec![content.clone()], Durability::Durable).await.0.expect("written");
        let (client, server) = pair().await;
        for _ in 0..500 {
            // The slabs of dropped reads are used again at once if they are given back too early.
            poll_once_and_drop(file.read_at(0, MIB, Buffer::with_capacity(MIB))).await;
            poll_once_and_drop(server.receive(Buffer::with_capacity(65536))).await;
            let mine = pattern(65536, 9);
            yield_now().await;
            assert!(*mine == *pattern(65536, 9), "somebody wrote into memory that is not his");
        }
        poll_once_and_drop(File::open(&path, OpenMode::Read)).await;
        let ring = this_ring();
        let settled = async {
            while ring.in_flight() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), settled).await.expect("every dropped operation ends");

        // A cancelled receive takes nothing from the stream.
        client.send(vec![Piece::Shared(content.slice(0..100))]).await.0.expect("connected");
        assert_eq!(*receive_all(&server, 100).await, content[..100]);
        let (result, buffer) = file.read_at(0, MIB, Buffer::with_capacity(MIB)).await;
        assert!(result.expect("read") == MIB && *buffer == *content);
    });
}

/// Sleeps of 300 tasks at once: their deadlines in the order in which they woke, and the median of their delays. `None` if the
/// machine was so busy that a deadline had passed before all slept.
async fn sleep_together(round: u64) -> Option<(Vec<Instant>, Duration)> {
    let start = Instant::now();
    let order = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<Task<Duration>> = (0..300_u64)
        .map(|number| {
            let order = order.clone();
            let deadline = start.plus(Duration::from_micros(5_000 + (round + number * 7919) % 20_000));
            spawn(Class::Produce, async move {
                sleep_until(deadline).await;
                order.borrow_mut().push(deadline);
                Instant::now().since(deadline)
            })
        })
        .collect();
    yield_now().await;
    let slept = Instant::now() < start.plus(Duration::from_millis(5));
    let mut late = Vec::new();
    for task in tasks {
        late.push(task.await);
    }
    late.sort();
    slept.then(|| (order.take(), late[late.len() / 2]))
}

#[test]
fn sleeps_are_precise_and_in_order() {
    on_shard(async {
        let start = Instant::now();
        let mut best = Duration::MAX;
        for round in 0..30 {
            let Some((order, median)) = sleep_together(round).await else { continue };
            assert!(order.is_sorted(), "earlier deadlines come first");
            best = best.min(median);
        }
        // The best of thirty: a busy machine spoils single rounds, a coarse timer would spoil all of them.
        assert!(best < Duration::from_millis(1), "late by {best:?} in the median of the best round");

        // An earlier deadline moves the kernel's timer forward, a dropped one does no harm.
        let long = spawn(Class::Background, sleep(Duration::from_millis(300)));
        poll_once_and_drop(sleep(Duration::from_millis(1))).await;
        let before = Instant::now();
        sleep(Duration::from_millis(5)).await;
        let took = Instant::now().since(before);
        assert!(took >= Duration::from_millis(5) && took < Duration::from_millis(200), "{took:?}");
        long.await;
        assert!(Instant::now().since(before) >= Duration::from_millis(290));
        sleep_until(start).await;
        timeout(Duration::from_millis(1), sleep(Duration::from_secs(60))).await.expect_err("too long");
    });
}

#[test]
fn bytes_go_through_sockets_as_they_are() {
    on_shard(async {
        let (client, server) = pair().await;
        client.send(vec![Piece::Encoded(bytes::Bytes::from_static(b"x"))]).await.0.expect("connected");
        assert_eq!(*receive_all(&server, 1).await, *b"x");

        // More pieces than one system call takes, more bytes than the socket's buffers hold, in both directions at once.
        let content = pattern(4 * MIB, 11).freeze();
        let pieces = || -> Vec<Piece<Slice>> {
            (0..4096).map(|at| Piece::Shared(content.slice(at * 1024..(at + 1) * 1024))).collect()
        };
        let back = {
            let (client, pieces) = (client.clone(), pieces());
            spawn(Class::Fetch, async move { client.send(pieces).await })
        };
        let forth = {
            let (server, pieces) = (server.clone(), pieces());
            spawn(Class::Produce, async move { server.send(pieces).await })
        };
        assert!(*receive_all(&server, 4 * MIB).await == *content);
        assert!(*receive_all(&client, 4 * MIB).await == *content);
        for sender in [back, forth] {
            let (result, pieces) = sender.await;
            result.expect("sent");
            assert!(pieces.is_empty() && pieces.capacity() >= 4096);
        }

        let waiting = {
            let server = server.clone();
            spawn(Class::Produce, async move { server.receive(Buffer::with_capacity(10)).await.0 })
        };
        yield_now().await;
        server.shutdown();
        assert_eq!(waiting.await.expect("the end"), 0);
        assert_eq!(client.receive(Buffer::with_capacity(10)).await.0.expect("the end"), 0);
        let (result, pieces) = server.send(vec![Piece::Shared(content.slice(0..10))]).await;
        assert_eq!(result.expect_err("shut down").kind(), io::ErrorKind::BrokenPipe);
        assert!(pieces.is_empty());
    });
}

#[test]
fn a_half_closed_connection_still_takes_the_answer() {
    on_shard(async {
        let listener = Listener::bind(loopback()).expect("a free port");
        let address = listener.local_address();
        let peer = thread::spawn(move || {
            let mut socket = std::net::TcpStream::connect(address).expect("listening");
            socket.write_all(b"question").expect("connected");
            socket.shutdown(Shutdown::Write).expect("connected");
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).expect("connected");
            answer
        });
        let stream = listener.accept().await.expect("connected");
        let question = receive_all(&stream, 8).await;
        assert_eq!(stream.receive(Buffer::with_capacity(10)).await.0.expect("the end"), 0);
        stream.send(vec![Piece::Shared(question.freeze())]).await.0.expect("half open");
        drop(stream);
        assert_eq!(peer.join().expect("no panic"), b"question");
    });
}

#[test]
fn dropping_an_accept_loses_no_connection() {
    on_shard(async {
        let listener = Listener::bind(loopback()).expect("a free port");
        let address = listener.local_address();
        const CONNECTIONS: usize = 200;
        let clients = spawn(Class::Fetch, async move {
            let mut clients = Vec::new();
            for _ in 0..CONNECTIONS {
                clients.push(connect(address).await.expect("listening"));
            }
            clients
        });
        let mut accepted = Vec::new();
        while accepted.len() < CONNECTIONS {
            poll_once_and_drop(listener.accept()).await;
            if let Ok(stream) = timeout(Duration::from_micros(random_u64() % 200), listener.accept()).await {
                accepted.push(stream.expect("connected").peer_address());
            }
        }
        let clients = clients.await;
        let mut expected: Vec<SocketAddr> = clients.iter().map(Stream::local_address).collect();
        expected.sort();
        accepted.sort();
        assert_eq!(accepted, expected);

        let taken = Listener::bind(address).err().expect("in use");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        sleep(Duration::from_millis(20)).await;
        let refused = connect(address).await.err().expect("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        Listener::bind(address).expect("the port is free again, connections or not");
    });
}

#[test]
fn running_out_of_descriptors_is_an_error_of_accept() {
    assert_passed(&in_own_process("child_runs_out_of_descriptors"));
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_runs_out_of_descriptors() {
    on_shard(async {
        let listener = Listener::bind(loopback()).expect("a free port");
        let client = connect(listener.local_address()).await.expect("listening");
        let limit = |soft| {
            let files = libc::rlimit { rlim_cur: soft, rlim_max: 4096 };
            // SAFETY: reads the struct.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &files) }, 0);
        };
        limit(3);
        let error = listener.accept().await.err().expect("no descriptor");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        limit(4096);
        let server = listener.accept().await.expect("the connection has waited");
        assert_eq!(server.peer_address(), client.local_address());
    });
}

/// Waits for the eventfd to become readable.
async fn readable(ring: &Rc<Ring>, fd: i32) -> i32 {
    let entry = io_uring::opcode::PollAdd::new(io_uring::types::Fd(fd), libc::POLLIN as u32).build();
    let held = Held { descriptor: None, memory: operation::Memory::Nothing, orphan: Orphan::Cancel };
    // SAFETY: the entry has no addresses.
    unsafe { ring.start(entry, held) }.await.result
}

#[test]
fn more_completions_than_the_queue_holds_are_not_lost() {
    const OPERATIONS: usize = 20_000;
    on_shard(async {
        let ring = this_ring();
        // SAFETY: takes two integers; left open for the process.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        let tasks: Vec<Task<i32>> = (0..OPERATIONS)
            .map(|_| {
                let ring = ring.clone();
                spawn(Class::Produce, async move { readable(&ring, fd).await })
            })
            .collect();
        sleep(Duration::from_millis(50)).await;
        assert!(ring.in_flight() >= OPERATIONS);
        executor::write_eventfd(fd);
        for task in tasks {
            assert_eq!(task.await, i32::from(libc::POLLIN));
        }
        assert_eq!(ring.in_flight(), 0);
    });
}

#[test]
fn a_shard_ends_with_operations_in_flight() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    for round in 0..20 {
        let path = path.with_extension(round.to_string());
        let held = Rc::new(());
        let holders = [held.clone(), held.clone(), held.clone()];
        let (ring, peer) = on_shard(async move {
            let [sleeper, waiter, fresh] = holders;
            spawn(Class::Bulk, async move {
                sleep(Duration::from_secs(3_600)).await;
                drop(sleeper);
            });
            spawn(Class::Bulk, async move {
                // Knows itself: nobody else could ever wake it.
                let call = Rc::new(Notify::new());
                call.clone().notified().await;
                drop(waiter);
            });
            let file = File::open(&path, OpenMode::Create).await.expect("new");
            let listener = Listener::bind(loopback()).expect("a free port");
            let peer = std::net::TcpStream::connect(listener.local_address()).expect("listening");
            let stream = listener.accept().await.expect("connected");
            let waiting = stream.clone();
            spawn(Class::Produce, async move { drop(waiting.receive(Buffer::with_capacity(MIB)).await) });
            let full = pattern(16 * MIB, 1).freeze();
            spawn(Class::Fetch, async move { drop(stream.send(vec![Piece::Shared(full)]).await) });
            spawn(Class::Bulk, async move { drop(listener.accept().await) });
            spawn(Class::Background, async move {
                let content = pattern(4 * MIB, 1).freeze();
                drop(file.write_at(0, vec![content], Durability::Durable).await);
            });
            for _ in 0..round % 4 {
                yield_now().await;
            }
            spawn(Class::Background, async move { drop(fresh) });
            (this_ring(), peer)
        });
        assert_eq!(Rc::strong_count(&held), 1, "every task is gone with what it held");
        assert_eq!(ring.in_flight(), 0, "nothing is in the kernel's hands");
        assert!(ring.is_shut_down());
        drop(peer);
    }
}

#[test]
fn an_idle_shard_costs_nothing_and_wakes_at_once() {
    on_shard(async {
        let thread_nanos = || {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: writes the struct.
            assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
            Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
        };
        let (client, server) = pair().await;
        let echo = spawn(Class::Produce, async move {
            loop {
                let (result, buffer) = server.receive(Buffer::with_capacity(100)).await;
                if result.expect("connected") == 0 {
                    break;
                }
                server.send(vec![Piece::Shared(buffer.freeze())]).await.0.expect("connected");
            }
        });
        let before = thread_nanos();
        sleep(Duration::from_secs(1)).await;
        let used = thread_nanos() - before;
        assert!(used < Duration::from_millis(10), "an idle second costs {used:?}");

        // Out of the deep sleep, again and again: a lost wake-up would be found by the time-out.
        for round in 0..100 {
            sleep(Duration::from_millis(round % 4)).await;
            client.send(vec![Piece::Encoded(bytes::Bytes::from_static(b"x"))]).await.0.expect("connected");
            timeout(Duration::from_secs(2), receive_all(&client, 1)).await.expect("an answer");
        }
        client.shutdown();
        echo.await;
    });
}

#[test]
fn sockets_and_files_share_the_ring() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_path_buf();
    on_shard(async move {
        let listener = Listener::bind(loopback()).expect("a free port");
        let address = listener.local_address();
        // Each connection's bytes go to a file and back.
        spawn(Class::Produce, async move {
            for number in 0.. {
                let stream = listener.accept().await.expect("connected");
                let path = path.join(format!("{number}"));
                spawn(Class::Produce, async move {
                    let file = File::open(&path, OpenMode::Create).await.expect("new");
                    for round in 0..20_u64 {
                        let block = receive_all(&stream, 65536).await.freeze();
                        file.write_at(round * 65536, vec![block], Durability::Durable).await.0.expect("written");
                        let (result, block) = file.read_at(round * 65536, 65536, Buffer::with_capacity(65536)).await;
                        assert_eq!(result.expect("read"), 65536);
                        stream.send(vec![Piece::Shared(block.freeze())]).await.0.expect("connected");
                    }
                });
            }
        });
        let clients: Vec<Task<()>> = (0..16)
            .map(|seed| {
                spawn(Class::Fetch, async move {
                    let stream = connect(address).await.expect("listening");
                    for round in 0..20 {
                        let block = pattern(65536, seed * 100 + round).freeze();
                        stream.send(vec![Piece::Shared(block.clone())]).await.0.expect("connected");
                        assert!(*receive_all(&stream, 65536).await == *block);
                    }
                })
            })
            .collect();
        for client in clients {
            client.await;
        }
    });
}

#[test]
fn another_thread_wakes_a_task() {
    on_shard(async {
        for round in 0..200_u64 {
            let (to_thread, waker) = mpsc::channel::<Waker>();
            let (done, answer) = mpsc::channel::<u64>();
            let helper = thread::spawn(move || {
                let waker = waker.recv().expect("sent");
                thread::sleep(Duration::from_micros(round * 10));
                done.send(round).expect("awaited");
                waker.wake();
            });
            let mut to_thread = Some(to_thread);
            let answered = poll_fn(|context| {
                if let Some(to_thread) = to_thread.take() {
                    to_thread.send(context.waker().clone()).expect("awaited");
                }
                answer.try_recv().map_or(Poll::Pending, Poll::Ready)
            });
            assert_eq!(timeout(Duration::from_secs(2), answered).await, Ok(round));
            helper.join().expect("no panic");
        }
    });
}

#[test]
fn long_work_lets_others_in_and_gets_its_share() {
    on_shard(async {
        let (client, server) = pair().await;
        spawn(Class::Produce, async move {
            loop {
                let (result, buffer) = server.receive(Buffer::with_capacity(100)).await;
                if result.expect("connected") == 0 {
                    break;
                }
                server.send(vec![Piece::Shared(buffer.freeze())]).await.0.expect("connected");
            }
        });
        let (stop, worked) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(Duration::ZERO)));
        let work = {
            let (stop, worked) = (stop.clone(), worked.clone());
            spawn(Class::Background, async move {
                while !stop.get() {
                    let start = Instant::now();
                    while Instant::now().since(start) < Duration::from_micros(50) {
                        std::hint::spin_loop();
                    }
                    worked.set(worked.get() + Instant::now().since(start));
                    yield_now().await;
                }
            })
        };
        // Alone, the work gets nearly the whole shard: the pump does not turn for nothing.
        let start = Instant::now();
        sleep(Duration::from_millis(300)).await;
        let share = worked.get().as_secs_f64() / Instant::now().since(start).as_secs_f64();
        assert!(share > 0.7, "the work got {share:.2} of an idle shard");

        let mut times = Vec::new();
        for _ in 0..300 {
            let sent = Instant::now();
            client.send(vec![Piece::Encoded(bytes::Bytes::from_static(b"x"))]).await.0.expect("connected");
            receive_all(&client, 1).await;
            times.push(Instant::now().since(sent));
        }
        stop.set(true);
        work.await;
        client.shutdown();
        times.sort();
        // Four turns of 50 us each lie in one round trip. A tenth of them, because the machine may be busy.
        assert!(times[30] < Duration::from_millis(2), "{:?} at the tenth, {:?} at worst", times[30], times[299]);
    });
}

#[test]
fn classes_wait_for_each_other() {
    on_shard(async {
        let call = Rc::new(Notify::new());
        let answer = Rc::new(Notify::new());
        for class in Class::ALL {
            let (called, answering) = (call.clone(), answer.clone());
            let task = spawn(class, async move {
                called.notified().await;
                answering.notify();
                class
            });
            call.notify();
            answer.notified().await;
            assert_eq!(task.await, class);
        }
    });
}

#[test]
fn every_shard_returns_its_result() {
    let sums = run_shards(
        3,
        |_| Options::default(),
        |shard| async move {
            sleep(Duration::from_millis(5)).await;
            u64::from(shard.0) * 10
        },
    );
    assert_eq!(sums.expect("three shards start"), [0, 10, 20]);
    let pinned = run(&Options { core: Some(0) }, async { 7 });
    assert_eq!(pinned.expect("the first core exists"), 7);
    assert!(run(&Options { core: Some(100_000) }, async {}).is_err());
}
