//! What the mailboxes promise, in both worlds: order, bounds, no deadlock, no lost slot, an end for everyone who waits.
//!
//! A scenario is what every shard of a mesh does. It runs on real shards, woken by messages between rings and once more by
//! eventfds alone, and on a range of seeds.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::runtime::sim::{NodeId, Simulation, SimulationOptions};
use crate::runtime::{Class, Duration, Instant, sleep, spawn, yield_now};

type Numbers = Mesh<u64, u64>;
type NumberInbox = Inbox<u64, u64>;

/// The request that says that a shard has sent its last.
const DONE: u64 = u64::MAX;
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum World {
    /// Woken by messages between rings.
    Messages,
    /// Woken by eventfds.
    Eventfds,
    Seed(u64),
}

fn worlds(seeds: u64) -> impl Iterator<Item = World> {
    [World::Messages, World::Eventfds].into_iter().chain((0..seeds).map(World::Seed))
}

fn forbid_messages() {
    match current() {
        Backend::Real(shard) => shard.forbid_messages(),
        Backend::Sim(_) => unreachable!("a real shard"),
    }
}

/// Runs `scenario` on every shard of a mesh and returns what they returned, in their order.
#[track_caller]
fn run_in<T, F>(
    world: World,
    mesh: &Numbers,
    scenario: impl Fn(Numbers, ShardId) -> F + Send + Sync + 'static,
) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (mesh, shards) = (mesh.clone(), mesh.lanes.shards());
    if let World::Seed(seed) = world {
        let simulation = Simulation::new(seed, SimulationOptions::default());
        let node = simulation.add_node(shards);
        let mut outputs = Vec::new();
        let running: Vec<_> = (0..shards)
            .map(|shard| simulation.start(node, ShardId(shard), scenario(mesh.clone(), ShardId(shard))))
            .collect();
        for mut output in running {
            let wait = async move { poll_fn(|context| Pin::new(&mut output).poll(context)).await };
            let output = simulation.block_on(wait).unwrap_or_else(|stuck| panic!("{stuck}"));
            outputs.push(output.expect("nobody kills the node"));
        }
        return outputs;
    }
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let main = move |shard| {
            let future = scenario(mesh.clone(), shard);
            async move {
                if world == World::Eventfds {
                    forbid_messages();
                }
                future.await
            }
        };
        let _ = sender.send(real::run_shards(shards, |_| real::Options::default(), main));
    });
    let outputs = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{world:?}: a shard hangs"));
    outputs.expect("this machine runs shards")
}

/// Answers every request until all shards are done. Returns the number of requests in each batch.
async fn serve(mut inbox: NumberInbox, shards: u16, mut answer: impl FnMut(ShardId, u64) -> u64) -> Vec<usize> {
    let (mut batch, mut sizes, mut done) = (Vec::new(), Vec::new(), 0);
    while done < shards {
        sizes.push(inbox.receive(&mut batch).await);
        assert_eq!(sizes.last(), Some(&batch.len()));
        for Incoming { request, reply } in batch.drain(..) {
            if request == DONE {
                done += 1;
                reply.send(DONE);
            } else {
                let answered = answer(reply.to(), request);
                reply.send(answered);
            }
        }
    }
    sizes
}

async fn tell_all_done(post: &Post<u64, u64>, shards: u16) {
    for to in (0..shards).map(ShardId) {
        assert_eq!(post.request(to, DONE).await, Some(DONE));
    }
}

#[test]
fn every_shard_asks_every_shard() {
    for shards in 2..=4 {
        for world in worlds(10) {
            run_in(world, &Mesh::new(shards), move |mesh, shard| async move {
                let (post, inbox) = mesh.join(shard).expect("a free place");
                let own = u64::from(shard.0);
                let server = spawn(
                    Class::Produce,
                    serve(inbox, shards, move |from, asked| asked * 1_000 + u64::from(from.0) * 10 + own),
                );
                for round in 0..50 {
                    for to in 0..shards {
                        let answer = post.request(ShardId(to), round).await;
                        assert_eq!(answer, Some(round * 1_000 + own * 10 + u64::from(to)));
                    }
                }
                tell_all_done(&post, shards).await;
                server.await;
            });
        }
    }
}

#[test]
fn requests_of_a_pair_arrive_in_order_and_in_batches() {
    const REQUESTS: u64 = 2_000;
    for world in worlds(10) {
        let sizes = run_in(world, &Mesh::with_window(3, 64), |mesh, shard| async move {
            let (post, inbox) = mesh.join(shard).expect("a free place");
            let mut next = [0; 3];
            let server = spawn(
                Class::Produce,
                serve(inbox, 3, move |from, asked| {
                    let next = &mut next[usize::from(from.0)];
                    assert_eq!(asked, *next, "from {from}");
                    *next += 1;
                    asked
                }),
            );
            let senders: Vec<_> = (0..3)
                .map(|to| {
                    let post = post.clone();
                    spawn(Class::Produce, async move {
                        let mut replies = VecDeque::new();
                        for number in 0..REQUESTS {
                            replies.push_back((number, post.send(ShardId(to), number).await.expect("it stays")));
                        }
                        // More replies wait here than may be in flight.
                        for (number, reply) in replies {
                            assert_eq!(reply.await, Some(number));
                        }
                    })
                })
                .collect();
            for sender in senders {
                sender.await;
            }
            tell_all_done(&post, 3).await;
            server.await
        });
        for sizes in sizes {
            assert_eq!(sizes.iter().sum::<usize>() as u64, 3 * REQUESTS + 3);
            assert!(sizes.len() as u64 * 2 < 3 * REQUESTS, "{} batches in {world:?}", sizes.len());
        }
    }
}

#[test]
fn full_mailboxes_both_ways_drain() {
    const WINDOW: u32 = 4;
    for world in worlds(20) {
        run_in(world, &Mesh::with_window(2, WINDOW), |mesh, shard| async move {
            let (post, inbox) = mesh.join(shard).expect("a free place");
            let other = ShardId(1 - shard.0);
            let mut replies: Vec<_> =
                (0..u64::from(WINDOW)).map(|number| post.try_send(other, number).expect("room")).collect();
            assert!(matches!(post.try_send(other, 9), Err(TrySendError::Full(9))));
            // Looked at before this turn ends: no reply can have been taken in.
            let mut one_more = Box::pin(post.send(other, 9));
            let is_sent = poll_fn(|context| Poll::Ready(one_more.as_mut().poll(context).is_ready())).await;
            assert!(!is_sent, "full");
            drop(one_more);
            // Many more wait for room than there is, on both sides, before anybody answers.
            let waiting: Vec<_> = (0..100)
                .map(|number| {
                    let post = post.clone();
                    spawn(Class::Produce, async move { post.request(other, number).await == Some(number) })
                })
                .collect();
            yield_now().await;
            let asking = post.clone();
            let server = spawn(
                Class::Produce,
                serve(inbox, 2, move |from, asked| {
                    // Who owes a reply asks others only if there is room at once.
                    if let Ok(unheard) = asking.try_send(from, asked) {
                        drop(unheard);
                    }
                    asked
                }),
            );
            for waiting in waiting {
                assert!(waiting.await);
            }
            for (number, reply) in replies.drain(..).enumerate() {
                assert_eq!(reply.await, Some(number as u64));
            }
            tell_all_done(&post, 2).await;
            server.await;
        });
    }
}

#[test]
fn dropped_futures_lose_no_slot_and_no_turn() {
    for world in worlds(10) {
        run_in(world, &Mesh::with_window(2, 2), |mesh, shard| async move {
            let (post, inbox) = mesh.join(shard).expect("a free place");
            let other = ShardId(1 - shard.0);
            let server = spawn(Class::Produce, serve(inbox, 2, |_, asked| asked));
            for round in 0..300 {
                // One that is sent and not waited for, and two that may still wait for room, one of which gives up.
                drop(post.send(other, round).await.expect("it stays"));
                let mut given_up = Box::pin(post.send(other, round));
                let polled = poll_fn(|context| Poll::Ready(given_up.as_mut().poll(context).is_ready())).await;
                let next = spawn(Class::Produce, {
                    let post = post.clone();
                    async move { post.request(other, round).await }
                });
                if !polled {
                    yield_now().await;
                }
                drop(given_up);
                assert_eq!(next.await, Some(round));
            }
            tell_all_done(&post, 2).await;
            // The replies that nobody waits for have come before the last one.
            let left = {
                let peer = post.endpoint.peer(other).borrow();
                (peer.in_flight, peer.waiting.len())
            };
            assert_eq!(left, (0, 0));
            server.await;
        });
    }
}

/// Shard 1 leaves with requests unanswered, unreceived and unsent.
async fn lose_the_other(mesh: Numbers, shard: ShardId) {
    let (post, mut inbox) = mesh.join(shard).expect("a free place");
    if shard == ShardId(1) {
        let mut batch = Vec::new();
        while batch.is_empty() {
            inbox.receive(&mut batch).await;
        }
        sleep(Duration::from_millis(2)).await;
        return;
    }
    let waiting: Vec<_> = (0..6)
        .map(|number| {
            let post = post.clone();
            spawn(Class::Produce, async move { post.request(ShardId(1), number).await })
        })
        .collect();
    for waiting in waiting {
        assert_eq!(waiting.await, None);
    }
    // The news of the end has come.
    while let Ok(pending) = post.send(ShardId(1), 7).await {
        assert_eq!(pending.await, None);
    }
    assert!(matches!(post.try_send(ShardId(1), 8), Err(TrySendError::Left(8))));
    assert_eq!(post.request(ShardId(1), 9).await, None);

    // The others are still there.
    let server = spawn(Class::Produce, serve(inbox, 1, |_, asked| asked + 1));
    assert_eq!(post.request(ShardId(0), 1).await, Some(2));
    assert_eq!(post.request(ShardId(0), DONE).await, Some(DONE));
    server.await;
}

#[test]
fn a_shard_that_leaves_ends_every_wait() {
    for world in worlds(30) {
        run_in(world, &Mesh::with_window(2, 4), lose_the_other);
    }
}

#[test]
fn a_closed_inbox_gives_out_what_it_has_and_refuses_the_rest() {
    for world in worlds(10) {
        run_in(world, &Mesh::with_window(1, 8), |mesh, shard| async move {
            let (post, mut inbox) = mesh.join(shard).expect("a free place");
            let first = post.send(shard, 1).await.expect("it stays");
            let mut batch = Vec::new();
            assert_eq!(inbox.receive(&mut batch).await, 1);
            let second = post.send(shard, 2).await.expect("it stays");
            sleep(Duration::from_millis(5)).await;
            post.close();
            let refused = post.send(shard, 3).await.expect("it stays");
            assert_eq!(refused.await, None);
            assert_eq!(inbox.receive(&mut batch).await, 1);
            assert_eq!(inbox.receive(&mut batch).await, 0);
            for incoming in batch {
                incoming.reply.send(incoming.request * 10);
            }
            assert_eq!((first.await, second.await), (Some(10), Some(20)));

            let unreceived = post.send(shard, 4).await.expect("it stays");
            drop(inbox);
            assert_eq!(unreceived.await, None);
        });
    }
}

#[test]
fn what_was_sent_before_a_shard_joined_is_waiting_for_it() {
    for world in worlds(10) {
        run_in(world, &Mesh::new(2), |mesh, shard| async move {
            if shard == ShardId(1) {
                sleep(Duration::from_millis(5)).await;
            }
            let (post, inbox) = mesh.join(shard).expect("a free place");
            let server = spawn(Class::Produce, serve(inbox, 2, |_, asked| asked));
            assert_eq!(post.request(ShardId(1 - shard.0), 5).await, Some(5));
            tell_all_done(&post, 2).await;
            server.await;
        });
    }
}

/// Round trips from shard 0 to shard 1, in nanoseconds, in order of size; `pause` lies before each.
fn round_trips(world: World, count: u64, pause: Duration, is_busy: bool) -> Vec<u64> {
    let measured = run_in(world, &Mesh::new(2), move |mesh, shard| async move {
        let (post, inbox) = mesh.join(shard).expect("a free place");
        let stop = Rc::new(Cell::new(false));
        let work = (is_busy && shard == ShardId(1)).then(|| {
            let stop = stop.clone();
            spawn(Class::Background, async move {
                while !stop.get() {
                    let start = Instant::now();
                    while Instant::now().since(start) < Duration::from_micros(50) {}
                    yield_now().await;
                }
            })
        });
        let server = spawn(Class::Produce, serve(inbox, 2, |_, asked| asked));
        let mut times = Vec::new();
        for number in 0..if shard == ShardId(0) { count } else { 0 } {
            if !pause.is_zero() {
                sleep(pause).await;
            }
            let start = Instant::now();
            assert_eq!(post.request(ShardId(1), number).await, Some(number));
            times.push(Instant::now().since(start).as_nanos() as u64);
        }
        tell_all_done(&post, 2).await;
        server.await;
        stop.set(true);
        if let Some(work) = work {
            work.await;
        }
        times.sort_unstable();
        times
    });
    measured.into_iter().next().expect("shard 0")
}

fn report(what: &str, times: &[u64]) {
    let micros = |place: usize| times[(times.len() * place / 100).min(times.len() - 1)] as f64 / 1e3;
    println!("{what}: p50 {:.1} us, p99 {:.1} us, max {:.1} us", micros(50), micros(99), micros(100));
}

#[test]
fn a_shard_is_reached_wherever_it_sleeps_or_works() {
    for world in [World::Messages, World::Eventfds] {
        let waiting = round_trips(world, 2_000, Duration::ZERO, false);
        report(&format!("{world:?}, waiting in its ring"), &waiting);
        let parked = round_trips(world, 50, Duration::from_millis(10), false);
        report(&format!("{world:?}, parked"), &parked);
        let busy = round_trips(world, 300, Duration::from_millis(1), true);
        report(&format!("{world:?}, busy"), &busy);
        for times in [waiting, parked, busy] {
            // A lost wake-up takes until a watchdog's turn, and then for ever; a machine that is shared is slow, too.
            assert!(times[times.len() / 2] < 20_000_000, "{world:?}: {} ns", times[times.len() / 2]);
        }
    }
}

#[test]
fn a_hundred_thousand_messages_pass() {
    const TASKS: u64 = 128;
    const REQUESTS: u64 = 100_000 / TASKS + 1;
    let results = run_in(World::Messages, &Mesh::new(2), |mesh, shard| async move {
        let (post, inbox) = mesh.join(shard).expect("a free place");
        let server = spawn(Class::Produce, serve(inbox, 2, |_, asked| asked + 1));
        let start = Instant::now();
        let senders: Vec<_> = (0..TASKS)
            .map(|task| {
                let post = post.clone();
                spawn(Class::Produce, async move {
                    for number in 0..REQUESTS {
                        let asked = task << 32 | number;
                        assert_eq!(post.request(ShardId(1 - post.shard().0), asked).await, Some(asked + 1));
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await;
        }
        let took = Instant::now().since(start);
        tell_all_done(&post, 2).await;
        (took, server.await)
    });
    for (took, sizes) in results {
        let requests = sizes.iter().sum::<usize>();
        assert_eq!(requests as u64, TASKS * REQUESTS + 2);
        println!("{requests} requests each way in {took:?}, {} batches", sizes.len());
    }
}

#[test]
fn a_farewell_is_heard_although_the_ring_is_gone() {
    let mesh = Numbers::with_window(2, 4);
    let (ready, is_ready) = mpsc::channel();
    let other = thread::spawn({
        let mesh = mesh.clone();
        move || {
            real::run(&real::Options::default(), async move {
                let (post, _inbox) = mesh.join(ShardId(0)).expect("a free place");
                let pending = post.send(ShardId(1), 1).await.expect("it stays");
                ready.send(()).expect("the test waits");
                pending.await
            })
        }
    });
    is_ready.recv().expect("shard 0 runs");
    // What main returns is dropped when its shard is gone.
    let kept = real::run(&real::Options::default(), async move { mesh.join(ShardId(1)).expect("a free place") });
    thread::sleep(Duration::from_millis(20));
    assert!(!other.is_finished(), "shard 1 has not left yet");
    drop(kept);
    assert_eq!(other.join().expect("it ends").expect("it ran"), None);
}

fn start_echo(simulation: &Simulation, node: NodeId, mesh: &Numbers, shard: ShardId) {
    let mesh = mesh.clone();
    simulation.start(node, shard, async move {
        let (post, inbox) = mesh.join(shard).expect("a free place");
        serve(inbox, u16::MAX, |_, asked| asked).await;
        drop(post);
    });
}

/// A run with a kill in the middle. Returns the trace's hash, the requests answered in each life, and the parcels.
fn run_with_kill(seed: u64) -> (u64, [u64; 2], u64) {
    let simulation = Simulation::new(seed, SimulationOptions::default());
    let node = simulation.add_node(3);
    let mut answered = [0; 2];
    for life in &mut answered {
        let mesh = Numbers::with_window(3, 4);
        start_echo(&simulation, node, &mesh, ShardId(1));
        start_echo(&simulation, node, &mesh, ShardId(2));
        let count = Rc::new(Cell::new(0));
        let counting = count.clone();
        simulation.start(node, ShardId(0), async move {
            let (post, _inbox) = mesh.join(ShardId(0)).expect("a free place");
            let asking: Vec<_> = (0..10)
                .map(|task| {
                    let (post, count) = (post.clone(), counting.clone());
                    spawn(Class::Produce, async move {
                        loop {
                            let answer = post.request(ShardId(1 + task % 2), count.get()).await;
                            assert!(answer.is_some(), "a killed process has nobody to tell");
                            count.set(count.get() + 1);
                        }
                    })
                })
                .collect();
            for task in asking {
                task.await
            }
        });
        simulation.run_for(Duration::from_millis(3)).expect("it runs");
        simulation.kill(node);
        *life = count.get();
        simulation.run_for(Duration::from_millis(3)).expect("it runs");
        assert_eq!(count.get(), *life, "nothing of the dead process goes on");
        simulation.restart(node);
    }
    (simulation.trace_hash(), answered, simulation.counters().mail)
}

#[test]
fn a_seed_replays_its_mail_and_a_kill_ends_it() {
    let mut hashes = BTreeSet::new();
    for seed in 0..20 {
        let run = run_with_kill(seed);
        assert_eq!(run, run_with_kill(seed), "seed {seed}");
        let (hash, [first, second], mail) = run;
        assert!(first > 20 && second > 20 && mail > 2 * (first + second) - 20, "{run:?}");
        hashes.insert(hash);
    }
    assert_eq!(hashes.len(), 20);
}

#[test]
fn the_seed_chooses_the_order_between_pairs() {
    let arrival = |seed| {
        let orders = run_in(World::Seed(seed), &Mesh::new(3), |mesh, shard| async move {
            let (post, mut inbox) = mesh.join(shard).expect("a free place");
            let mut order = Vec::new();
            if shard != ShardId(0) {
                // Shard 2 sends a little later.
                sleep(Duration::from_micros(u64::from(shard.0))).await;
                assert_eq!(post.request(ShardId(0), u64::from(shard.0)).await, Some(0));
                return order;
            }
            let mut batch = Vec::new();
            while order.len() < 2 {
                inbox.receive(&mut batch).await;
                for Incoming { request, reply } in batch.drain(..) {
                    order.push(request);
                    reply.send(0);
                }
            }
            sleep(Duration::from_millis(50)).await;
            order
        });
        orders.into_iter().next().expect("shard 0")
    };
    let orders: BTreeSet<Vec<u64>> = (0..50).map(arrival).collect();
    assert_eq!(orders.into_iter().collect::<Vec<_>>(), [[1, 2], [2, 1]]);
}
