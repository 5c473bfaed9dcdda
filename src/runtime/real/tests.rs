//! Real shards on this machine: timers, dropped futures, overflow, sharing, teardown; what is of files, sockets and ends
//! alone has a file of its own.
//!
//! What changes the whole process (limits, signals, aborts) runs in a process of its own: the test binary starts itself with
//! the name of an ignored test.
#![allow(unsafe_code)]

mod ends;
mod files;
mod pulse;
mod sockets;
mod wrong_sleep;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
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
    Buffer, Class, Durability, Duration, File, Instant, Listener, OpenMode, SocketAddr, Stream, Task, connect,
    directory, sleep, sleep_until, spawn, terminated, timeout, yield_now,
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
