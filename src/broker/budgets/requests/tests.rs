//! Who gets memory for requests, in which order, and that it all comes back.

use std::cell::Cell;

use super::*;
use crate::runtime::sim::{Simulation, SimulationOptions};
use crate::runtime::{Class, Task, sleep, spawn};
use crate::types::ShardId;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const ALL: usize = 16 * MIB;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs `body` on a simulated shard with 16 MiB for requests: 6 open, 2 small, 8 to finish. In the end all of it is free.
fn with_memory<F: Future<Output = ()> + 'static>(seed: u64, body: impl FnOnce(Rc<RequestMemory>) -> F + 'static) {
    let simulation = Simulation::new(seed, SimulationOptions::default());
    let node = simulation.add_node(1);
    let run = async move {
        let memory = RequestMemory::new(ALL, usize::MAX);
        let pools = [&memory.open, &memory.small, &memory.finish].map(|pool| pool.bytes_max / MIB);
        assert_eq!((pools, memory.frame_bytes_max()), ([6, 2, 8], 8 * MIB - 4));
        body(memory.clone()).await;
        assert_eq!(memory.taken(), 0);
        assert!(memory.nobody_waits() && memory.readers.borrow().is_empty());
    };
    simulation.run_on(node, ShardId(0), run).expect("it ends").expect("nobody killed the node");
}

fn reader(memory: &Rc<RequestMemory>) -> ReceiveMemory {
    ReceiveMemory::new(memory, || panic!("nobody is slow"))
}

/// A connection with a part of a frame of `bytes` bytes.
fn producer(memory: &Rc<RequestMemory>, bytes: usize) -> ReceiveMemory {
    let reader = reader(memory);
    reader.in_frame(bytes, true, Instant::now());
    reader
}

/// Connections that hold a mebibyte each of a frame of `bytes` bytes, until open has no more.
fn half_received(memory: &Rc<RequestMemory>, bytes: usize) -> Vec<ReceiveMemory> {
    let mut readers = Vec::new();
    loop {
        let reader = producer(memory, bytes);
        if !reader.takes(MIB) {
            return readers;
        }
        readers.push(reader);
    }
}

async fn gets_now(reader: &ReceiveMemory, bytes: usize) -> bool {
    timeout(Duration::ZERO, reader.takes_in_turn(bytes)).await.is_ok()
}

#[test]
fn half_received_frames_finish_one_after_the_other() {
    with_memory(1, |memory| async move {
        let readers = half_received(&memory, 4 * MIB);
        assert_eq!((readers.len(), memory.open.taken()), (6, 6 * MIB));
        let ended: Rc<RefCell<Vec<usize>>> = Rc::default();
        // The youngest asks first.
        let tasks: Vec<Task<()>> = readers
            .into_iter()
            .enumerate()
            .rev()
            .map(|(number, reader)| {
                let ended = ended.clone();
                spawn(Class::Produce, async move {
                    sleep(10 * (6 - u32::try_from(number).expect("small")) * millis(1)).await;
                    for bytes in [2 * MIB, 4 * MIB] {
                        reader.takes_in_turn(bytes).await;
                    }
                    sleep(millis(200)).await;
                    ended.borrow_mut().push(number);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        // 8 MiB finish two frames that miss 3 MiB each. The first two to ask found nobody else waiting.
        let mut ended = ended.take();
        ended[2..4].sort_unstable();
        ended[4..].sort_unstable();
        assert_eq!(ended, [5, 4, 0, 1, 2, 3]);
    });
}

#[test]
fn the_largest_frame_finishes_whatever_the_others_hold() {
    with_memory(2, |memory| async move {
        let largest = producer(&memory, memory.frame_bytes_max() + 4);
        assert!(largest.takes(64 * KIB));
        let others = half_received(&memory, 8 * MIB);
        assert!(gets_now(&largest, 8 * MIB).await);
        assert!(!gets_now(&others[0], 2 * MIB).await, "the reserve serves one of this size at a time");
        drop(largest);
        assert!(gets_now(&others[0], 2 * MIB).await);
        assert!(memory.taken() <= ALL);
    });
}

#[test]
fn no_new_frame_gets_memory_when_open_is_spent() {
    with_memory(3, |memory| async move {
        let mut readers = half_received(&memory, 2 * MIB);
        let new = producer(&memory, 2 * MIB);
        assert!(!gets_now(&new, 64 * KIB).await);
        assert!(gets_now(&new, BLOCK_BYTES).await, "its block it has");
        drop(readers.pop());
        assert!(gets_now(&new, 64 * KIB).await);
    });
}

#[test]
fn older_frames_come_first_and_large_ones_are_not_overtaken() {
    with_memory(4, |memory| async move {
        let mut readers = half_received(&memory, MIB);
        let order: Rc<RefCell<Vec<&str>>> = Rc::default();
        let waits = |name: &'static str, reader: ReceiveMemory, bytes: usize| {
            let order = order.clone();
            spawn(Class::Produce, async move {
                reader.takes_in_turn(bytes).await;
                order.borrow_mut().push(name);
                sleep(millis(50)).await;
            })
        };
        let [old, young] = [2 * MIB, 64 * KIB].map(|bytes| producer(&memory, bytes));
        let young = waits("young", young, 64 * KIB);
        sleep(millis(5)).await;
        let old = waits("old", old, 2 * MIB);
        sleep(millis(5)).await;
        drop(readers.pop());
        sleep(millis(5)).await;
        assert!(order.borrow().is_empty(), "a mebibyte is free, and the old frame wants two");
        drop(readers.pop());
        sleep(millis(5)).await;
        assert_eq!(*order.borrow(), ["old"]);
        young.await;
        old.await;
        assert_eq!(*order.borrow(), ["old", "young"]);
    });
}

#[test]
fn small_requests_pass_while_producers_wait() {
    with_memory(5, |memory| async move {
        let readers = half_received(&memory, 2 * MIB);
        let waiting = producer(&memory, 2 * MIB);
        let waiting = spawn(Class::Produce, async move { waiting.takes_in_turn(64 * KIB).await });
        sleep(millis(1)).await;
        let mut small = Vec::new();
        for _ in 0..2 * MIB / (64 * KIB) {
            let reader = reader(&memory);
            reader.in_frame(40 * KIB, false, Instant::now());
            assert!(gets_now(&reader, 64 * KIB).await);
            small.push(reader);
        }
        let produce = producer(&memory, 40 * KIB);
        assert!(!gets_now(&produce, 64 * KIB).await, "a produce request is never small");
        let large = reader(&memory);
        large.in_frame(SMALL_FRAME_BYTES_MAX + 1, false, Instant::now());
        assert!(!gets_now(&large, 64 * KIB).await);
        let one_more = reader(&memory);
        one_more.in_frame(40 * KIB, false, Instant::now());
        assert!(!gets_now(&one_more, 64 * KIB).await, "the reserve is spent");
        drop(small.pop());
        assert!(gets_now(&one_more, 64 * KIB).await);
        drop(readers);
        waiting.await;
    });
}

#[test]
fn slow_frames_are_shed_the_slowest_first_and_no_more_than_needed() {
    with_memory(6, |memory| async move {
        let ended: Rc<RefCell<Vec<usize>>> = Rc::default();
        // A mebibyte each; the speed in bytes for each tenth of a second.
        let speeds = [200 * KIB, 3 * KIB, 0, 5 * KIB, 7 * KIB, KIB];
        let mut clients = Vec::new();
        for (number, speed) in speeds.into_iter().enumerate() {
            let told = ended.clone();
            let reader = ReceiveMemory::new(&memory, move || told.borrow_mut().push(number));
            reader.in_frame(8 * MIB, true, Instant::now());
            assert!(reader.takes(MIB));
            clients.push(spawn(Class::Produce, async move {
                for _ in 0..100 {
                    sleep(millis(100)).await;
                    reader.received(speed);
                    if reader.is_shed() {
                        return;
                    }
                }
            }));
        }
        // Nobody waits: nobody is too slow.
        sleep(Duration::from_secs(5)).await;
        assert!(ended.borrow().is_empty());
        let new = producer(&memory, 2 * MIB);
        new.takes_in_turn(MIB).await;
        assert_eq!(*ended.borrow(), [2], "the one that sends nothing holds what is missing");
        let more = producer(&memory, 8 * MIB);
        more.takes_in_turn(2 * MIB).await;
        assert_eq!(*ended.borrow(), [2, 5, 1]);
        drop((new, more));
        for client in clients {
            client.await;
        }
        assert_eq!(ended.borrow().len(), 3, "none without need");
    });
}

/// What a client sent long ago does not help it.
#[test]
fn a_frame_that_stops_is_slow() {
    with_memory(7, |memory| async move {
        let ended = Rc::new(Cell::new(false));
        let told = ended.clone();
        let stopped = ReceiveMemory::new(&memory, move || told.set(true));
        stopped.in_frame(8 * MIB, true, Instant::now());
        assert!(stopped.takes(5 * MIB));
        stopped.received(5 * MIB);
        let begun = Instant::now();
        let new = producer(&memory, 2 * MIB);
        let waiting = spawn(Class::Produce, async move { new.takes_in_turn(2 * MIB).await });
        while !ended.get() {
            sleep(millis(50)).await;
        }
        assert!(Instant::now().since(begun) < 3 * SPEED_TIME);
        drop(stopped);
        waiting.await;
    });
}

/// Waiting for memory is not the client's slowness.
#[test]
fn a_frame_that_waits_is_not_slow() {
    with_memory(8, |memory| async move {
        let readers = half_received(&memory, 8 * MIB);
        let mut tasks: Vec<Task<()>> = Vec::new();
        for reader in readers {
            // The first one gets 7 MiB and keeps them for long, but is worked on, not received.
            tasks.push(spawn(Class::Produce, async move {
                reader.takes_in_turn(2 * MIB).await;
                reader.frame_ends();
                sleep(Duration::from_secs(20)).await;
            }));
            sleep(millis(1)).await;
        }
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn a_slab_counts_until_its_last_frame_is_gone() {
    with_memory(9, |memory| async move {
        let reader = producer(&memory, MIB);
        assert!(reader.takes(MIB));
        let frames = [reader.slab(), reader.slab()];
        reader.frame_ends();
        assert!(reader.keeps(MIB), "memory is plenty");
        reader.in_frame(2 * MIB, true, Instant::now());
        assert!(reader.takes(2 * MIB));
        assert_eq!(memory.taken(), 3 * MIB, "a second slab beside the first");
        let [first, second] = frames;
        drop(first);
        assert_eq!(memory.taken(), 3 * MIB);
        drop(second);
        assert_eq!(memory.taken(), 2 * MIB);
        reader.frame_ends();
        reader.gives_up();
        assert_eq!(memory.taken(), 0);
    });
}

#[test]
fn a_block_counts_once_frames_keep_it_from_its_connection() {
    with_memory(10, |memory| async move {
        let reader = reader(&memory);
        let frame = reader.slab();
        assert_eq!(memory.taken(), 0, "every connection has one");
        assert!(reader.takes(BLOCK_BYTES));
        assert_eq!(memory.taken(), BLOCK_BYTES, "the one that the frame keeps");
        let held = half_received(&memory, 2 * MIB);
        let second = reader.slab();
        assert!(memory.open.free.get() >= BLOCK_BYTES, "a mebibyte does not fit, a block does");
        assert!(gets_now(&reader, BLOCK_BYTES).await);
        drop((frame, second, held));
        assert_eq!(memory.taken(), 0);
    });
}

#[test]
fn a_reserve_is_left_when_the_frame_is_done() {
    with_memory(11, |memory| async move {
        let mut others = half_received(&memory, 4 * MIB);
        let last = others.pop().expect("there are some");
        assert!(gets_now(&last, 4 * MIB).await);
        assert_eq!(memory.finish.taken(), 3 * MIB);
        last.frame_ends();
        assert!(!last.keeps(4 * MIB), "memory is short");
        others.clear();
        assert!(!last.keeps(4 * MIB), "more than half of open");
        assert!(last.keeps(2 * MIB));
        assert_eq!((memory.open.taken(), memory.finish.taken()), (2 * MIB, 0));
        assert!(last.keeps(BLOCK_BYTES));
        assert_eq!(memory.taken(), 0);
    });
}

/// Many connections with frames of every size, that are worked on for a while, given up, or sent too slowly.
#[test]
fn everything_comes_back_and_nobody_waits_for_ever() {
    for seed in 0..40 {
        with_memory(seed, |memory| async move {
            let frames_done = Rc::new(Cell::new(0));
            let tasks: Vec<Task<()>> = (0..30)
                .map(|number| {
                    let (memory, frames_done) = (memory.clone(), frames_done.clone());
                    spawn(Class::Produce, async move {
                        for _ in 0..8 {
                            connection(&memory, number, &frames_done).await;
                            // Everything that is worked on has ended by then.
                            sleep(millis(200)).await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            assert!(frames_done.get() > 30, "{} frames", frames_done.get());
        });
    }
}

fn random(bound: u64) -> u64 {
    crate::runtime::random_u64() % bound
}

/// A connection of several frames. It ends when it is shed, or in the middle of a frame at random.
async fn connection(memory: &Rc<RequestMemory>, number: u64, frames_done: &Cell<u64>) {
    let is_shed = Rc::new(Cell::new(false));
    let told = is_shed.clone();
    let reader = ReceiveMemory::new(memory, move || told.set(true));
    let mut slab_bytes = BLOCK_BYTES;
    for _ in 0..random(6) {
        let bytes = 1 + usize::try_from(random(8 << 20) >> random(12)).expect("small");
        reader.in_frame(bytes, !number.is_multiple_of(3), Instant::now());
        let mut received = 0;
        while received < bytes {
            if received >= slab_bytes || slab_bytes < BLOCK_BYTES {
                let wanted = Buffer::capacity_for(bytes.min((2 * received).max(reader.trusted_bytes())));
                if !reader.takes(wanted) {
                    let given_up = timeout(millis(random(5000)), reader.takes_in_turn(wanted)).await;
                    if given_up.is_err() && random(4) == 0 {
                        return;
                    }
                    if given_up.is_err() {
                        reader.takes_in_turn(wanted).await;
                    }
                }
                slab_bytes = wanted;
            }
            assert!(memory.taken() <= ALL);
            let step = slab_bytes.min(bytes) - received;
            let stalls = random(40) == 0;
            sleep(millis(if stalls { 20_000 } else { random(20) })).await;
            if is_shed.get() || random(200) == 0 {
                return;
            }
            received += step;
            reader.received(step);
        }
        reader.frame_ends();
        frames_done.set(frames_done.get() + 1);
        let worked_on = reader.slab();
        let work = spawn(Class::Produce, async move {
            sleep(millis(random(100))).await;
            drop(worked_on);
        });
        if random(2) == 0 {
            work.await;
        }
        if !reader.keeps(slab_bytes) {
            reader.gives_up();
            slab_bytes = BLOCK_BYTES;
        } else if slab_bytes < 256 * KIB && reader.prefers(256 * KIB) {
            slab_bytes = 256 * KIB;
        }
    }
}
