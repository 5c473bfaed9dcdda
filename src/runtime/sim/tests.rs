//! The promises of the simulated world: a seed replays, time and tasks behave, the network delivers in order until it is cut.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;

use super::*;
use crate::runtime::{
    Buffer, Class, Durability, Elapsed, File, Listener, OpenMode, Stream, connect, directory, random_u64, sleep, spawn,
    terminated, timeout, wall_clock, yield_now,
};
use crate::types::Piece;

const SHARD: ShardId = ShardId(0);

fn simulation(seed: u64) -> Simulation {
    Simulation::new(seed, SimulationOptions::default())
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A server on `node` that sends back what it gets, connection by connection.
fn start_echo(handle: &Handle, node: NodeId) -> SocketAddr {
    let address = SocketAddr::new(handle.address(node), 9092);
    handle.start(node, SHARD, async move {
        let listener = Listener::bind(address).unwrap();
        while let Ok(stream) = listener.accept().await {
            spawn(Class::Produce, async move {
                loop {
                    let (received, buffer) = stream.receive(Buffer::with_capacity(8192)).await;
                    if received.unwrap_or(0) == 0 {
                        break;
                    }
                    let (sent, _) = stream.send(vec![Piece::Shared(buffer.freeze())]).await;
                    if sent.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

async fn write_and_sync(path: &str, blocks: usize) {
    let file = File::open(path.as_ref(), OpenMode::Create).await.unwrap();
    for block in 0..blocks {
        let mut buffer = Buffer::with_capacity(4096);
        buffer.append_with(4096, |room| room.fill(random_u64() as u8));
        file.write_at(block as u64 * 4096, vec![buffer.freeze()], Durability::Written).await.0.unwrap();
    }
    file.sync().await.unwrap();
    directory::sync("/".as_ref()).await.unwrap();
}

/// A run that uses tasks, timers, disk, network, a kill and a power cut.
fn busy_run(seed: u64) -> (u64, Counters) {
    let simulation = simulation(seed);
    let node = simulation.add_node(2);
    let address = start_echo(&simulation, node);
    simulation.start(node, ShardId(1), async {
        for round in 0..1000 {
            write_and_sync(&format!("/file-{round}"), 4).await;
        }
    });
    simulation.start(simulation.client(), SHARD, async move {
        while let Ok(stream) = connect(address).await {
            let pieces = vec![Piece::Encoded(Bytes::from(vec![7; 10_000]))];
            let _ = timeout(millis(50), stream.send(pieces)).await;
            let _ = timeout(millis(50), stream.receive(Buffer::with_capacity(4096))).await;
        }
    });
    simulation.run_for(millis(20)).unwrap();
    simulation.kill(node);
    simulation.run_for(millis(5)).unwrap();
    simulation.restart(node);
    simulation.start(node, SHARD, async { write_and_sync("/after", 16).await });
    simulation.run_for(millis(3)).unwrap();
    simulation.power_cut(node, PowerCut::OldOrNew);
    (simulation.trace_hash(), simulation.counters())
}

#[test]
fn a_seed_replays_exactly_and_others_differ() {
    let mut hashes = BTreeSet::new();
    for seed in 0..20 {
        let (hash, counters) = busy_run(seed);
        assert_eq!((hash, counters), busy_run(seed), "seed {seed}");
        assert!(counters.writes > 20 && counters.network_bytes > 10_000 && counters.polls > 100, "{counters:?}");
        hashes.insert(hash);
    }
    assert_eq!(hashes.len(), 20);
}

#[test]
fn the_seed_chooses_among_ready_tasks() {
    let order = |seed| {
        let simulation = simulation(seed);
        simulation.block_on(async {
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = (0..4)
                .map(|number| {
                    let order = order.clone();
                    spawn(Class::Bulk, async move { order.borrow_mut().push(number) })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            order.take()
        })
    };
    let orders: BTreeSet<Vec<u32>> = (0..200).map(|seed| order(seed).unwrap()).collect();
    assert!(orders.len() >= 20, "{} of 24", orders.len());
}

#[test]
fn timers_fire_in_their_order_and_not_early() {
    let simulation = simulation(1);
    simulation
        .block_on(async {
            let start = Instant::now();
            let slow = spawn(Class::Produce, async {
                sleep(millis(20)).await;
                Instant::now()
            });
            sleep(millis(10)).await;
            let first = Instant::now();
            let second = slow.await;
            assert!(first.since(start) >= millis(10) && first.since(start) < millis(11));
            assert!(second.since(start) >= millis(20) && second.since(start) < millis(21));
            assert_eq!(timeout(millis(5), std::future::pending::<()>()).await, Err(Elapsed));
            assert_eq!(timeout(millis(5), async { 7 }).await, Ok(7));
        })
        .unwrap();
    // The timer of the time-out that was not needed keeps nothing alive and moves no clock.
    let at = simulation.now();
    assert!(matches!(simulation.block_on(std::future::pending::<()>()), Err(Stuck::Idle { seed: 1, .. })));
    assert!(simulation.now().since(at) < millis(1));
}

#[test]
fn wall_clocks_are_skewed_and_jump() {
    let simulation = simulation(5);
    let (one, two) = (simulation.add_node(1), simulation.add_node(1));
    let here = |node| simulation.run_on(node, SHARD, async { wall_clock() }).unwrap().unwrap();
    assert_ne!(here(one), here(two));
    let before = here(one);
    simulation.jump_wall_clock(one, -3_600_000);
    assert!((3_599_990..=3_600_000).contains(&before.millis_since(here(one))));
    simulation.run_for(Duration::from_secs(7200)).unwrap();
    assert!((3_600_000..3_600_100).contains(&here(one).millis_since(before)));
}

#[test]
fn a_livelock_is_an_error() {
    let options = SimulationOptions { steps_max: 1_000, ..SimulationOptions::default() };
    let simulation = Simulation::new(9, options);
    let stuck = simulation.block_on(async {
        loop {
            yield_now().await;
        }
    });
    assert!(matches!(stuck, Err(Stuck::TooManySteps { seed: 9, steps: 1_001, .. })), "{stuck:?}");
}

#[test]
fn a_kill_drops_every_task_on_its_own_node() {
    struct Farewell(Rc<Cell<u32>>);
    impl Drop for Farewell {
        fn drop(&mut self) {
            // Both need the context of the node; what is spawned never runs.
            let _ = random_u64();
            spawn(Class::Background, async { unreachable!("the process has ended") });
            self.0.set(self.0.get() + 1);
        }
    }
    let simulation = simulation(1);
    let node = simulation.add_node(2);
    let drops = Rc::new(Cell::new(0));
    for shard in [0, 1] {
        let farewell = Farewell(drops.clone());
        simulation.start(node, ShardId(shard), async move {
            sleep(Duration::from_secs(3600)).await;
            drop(farewell);
        });
    }
    let (handle, farewell) = (simulation.clone(), Farewell(drops.clone()));
    let killed_itself = simulation.run_on(node, SHARD, async move {
        let _farewell = farewell;
        yield_now().await;
        handle.kill(node);
        assert_eq!(Rc::strong_count(&_farewell.0), 2, "the others are gone");
        std::future::pending::<()>().await;
    });
    assert_eq!((killed_itself, drops.get()), (Ok(None), 3));
    simulation.run_for(millis(1)).unwrap();
    assert!(!simulation.is_running(node));
    simulation.restart(node);
    assert_eq!(simulation.run_on(node, SHARD, async { 5 }), Ok(Some(5)));
    // From outside any task there is no context but the one that the kill sets.
    let farewell = Farewell(drops.clone());
    simulation.start(node, SHARD, async move {
        let _farewell = farewell;
        std::future::pending::<()>().await;
    });
    simulation.run_for(millis(1)).unwrap();
    simulation.kill(node);
    assert_eq!(drops.get(), 4);
}

#[test]
fn a_process_is_asked_to_end_and_frozen() {
    let simulation = simulation(1);
    let node = simulation.add_node(1);
    let ticks = Rc::new(Cell::new(0));
    let counted = ticks.clone();
    simulation.start(node, SHARD, async move {
        spawn(Class::Produce, async move {
            loop {
                sleep(millis(1)).await;
                counted.set(counted.get() + 1);
            }
        });
        terminated().await;
        terminated().await;
    });
    simulation.run_for(millis(100)).unwrap();
    simulation.freeze(node);
    let frozen_at = ticks.get();
    assert!(frozen_at > 80);
    simulation.run_for(millis(100)).unwrap();
    assert_eq!(ticks.get(), frozen_at);
    simulation.thaw(node);
    simulation.run_for(millis(100)).unwrap();
    assert!(ticks.get() > frozen_at + 80);
    let ended = simulation.start(node, SHARD, async { terminated().await });
    simulation.terminate(node);
    assert_eq!(simulation.block_on(ended), Ok(Some(())));
}

async fn receive_all(stream: &Stream, bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Buffer::with_capacity(bytes);
    while buffer.len() < bytes {
        let (received, back) = stream.receive(buffer).await;
        buffer = back;
        if received? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.to_vec())
}

fn encoded(bytes: Vec<u8>) -> Vec<Piece<crate::runtime::Slice>> {
    vec![Piece::Encoded(bytes.into())]
}

/// A listener on a new node and both ends of a connection of the client to it, the server's first.
fn connected(simulation: &Simulation) -> (NodeId, Stream, Stream) {
    let node = simulation.add_node(1);
    let address = SocketAddr::new(simulation.address(node), 9092);
    let accepted = simulation.start(node, SHARD, async move {
        let listener = Listener::bind(address).unwrap();
        listener.accept().await.unwrap()
    });
    simulation.run_for(millis(1)).unwrap();
    let client = simulation.block_on(connect(address)).unwrap().unwrap();
    let server = simulation.block_on(accepted).unwrap().unwrap();
    assert_eq!((server.local_address(), client.peer_address()), (address, address));
    assert_eq!(server.peer_address(), client.local_address());
    (node, server, client)
}

#[test]
fn bytes_arrive_in_order_in_chunks_of_any_size() {
    let mut sizes = BTreeSet::new();
    for seed in 0..20 {
        let simulation = simulation(seed);
        let node = simulation.add_node(1);
        let address = start_echo(&simulation, node);
        simulation.run_for(millis(1)).unwrap();
        let seen = simulation.block_on(async move {
            let stream = connect(address).await.unwrap();
            let sent: Vec<u8> = (0..300_000_u32).map(|number| (number / 7) as u8).collect();
            let (out, bytes) = (stream.clone(), sent.clone());
            let sending = spawn(Class::Produce, async move { out.send(encoded(bytes)).await.0 });
            let (mut back, mut sizes) = (Vec::new(), BTreeSet::new());
            while back.len() < sent.len() {
                let (received, buffer) = stream.receive(Buffer::with_capacity(100_000)).await;
                sizes.insert(received.unwrap());
                back.extend_from_slice(&buffer);
            }
            sending.await.unwrap();
            assert!(back == sent);
            sizes
        });
        sizes.extend(seen.unwrap());
    }
    assert!(sizes.len() > 100 && *sizes.first().unwrap() <= 16, "{} sizes", sizes.len());
}

#[test]
fn a_reader_that_does_not_read_holds_the_sender_back() {
    let simulation = simulation(2);
    let (_, server, client) = connected(&simulation);
    let window = NetworkOptions::default().window_bytes;
    let sending = simulation.start(simulation.client(), SHARD, async move {
        let result = client.send(encoded(vec![1; 2 * window])).await.0;
        (result.is_ok(), client)
    });
    simulation.run_for(Duration::from_secs(10)).unwrap();
    assert_eq!(simulation.counters().network_bytes, window as u64);
    let read = simulation.block_on(async move { receive_all(&server, 2 * window).await.unwrap().len() });
    assert_eq!(read, Ok(2 * window));
    assert!(simulation.block_on(sending).unwrap().unwrap().0);
}

#[test]
fn addresses_are_taken_refused_or_unknown() {
    let simulation = simulation(1);
    let node = simulation.add_node(1);
    let address = |port| SocketAddr::new(simulation.address(node), port);
    let (own, unknown) = (address(9092), SocketAddr::new([10, 9, 9, 9].into(), 1));
    let error = move |address| async move { connect(address).await.err().map(|error| error.kind()) };
    assert_eq!(simulation.block_on(error(own)), Ok(Some(ErrorKind::ConnectionRefused)));
    assert_eq!(simulation.block_on(error(unknown)), Ok(Some(ErrorKind::HostUnreachable)));
    let bound = simulation.run_on(node, SHARD, async move {
        let listener = Listener::bind(own).unwrap();
        assert_eq!(Listener::bind(own).err().unwrap().kind(), ErrorKind::AddrInUse);
        assert_eq!(Listener::bind(unknown).err().unwrap().kind(), ErrorKind::AddrNotAvailable);
        let free = Listener::bind(SocketAddr::new([127, 0, 0, 1].into(), 0)).unwrap();
        assert!(free.local_address().port() > 0);
        // One that the world cannot reach, though the node itself can.
        let local = connect(free.local_address()).await.unwrap();
        drop(listener);
        Listener::bind(own).unwrap();
        (free.local_address().port(), local)
    });
    let (port, _) = bound.unwrap().unwrap();
    assert_eq!(simulation.block_on(error(address(port))), Ok(Some(ErrorKind::ConnectionRefused)));
    simulation.power_cut(node, PowerCut::OldOrNew);
    assert_eq!(simulation.block_on(error(own)), Ok(Some(ErrorKind::TimedOut)));
}

#[test]
fn an_end_that_is_closed_ends_the_stream_behind_its_bytes() {
    for seed in 0..20 {
        let simulation = simulation(seed);
        let (_, server, client) = connected(&simulation);
        let received = simulation.block_on(async move {
            client.send(encoded(vec![3; 5000])).await.0.unwrap();
            drop(client);
            let bytes = receive_all(&server, 5000).await.unwrap();
            let end = server.receive(Buffer::with_capacity(1)).await.0.unwrap();
            let again = server.receive(Buffer::with_capacity(1)).await.0.unwrap();
            // Nobody is there to read: the answer is a reset.
            let sent = server.send(encoded(vec![4; 10])).await.0.is_ok();
            sleep(Duration::from_secs(1)).await;
            let reset = server.receive(Buffer::with_capacity(1)).await.0.unwrap_err().kind();
            (bytes.len(), end, again, sent, reset)
        });
        assert_eq!(received, Ok((5000, 0, 0, true, ErrorKind::ConnectionReset)), "seed {seed}");
        assert_eq!(simulation.world.network.borrow().open_connections(), 0);
    }
}

#[test]
fn a_shutdown_ends_what_waits() {
    let simulation = simulation(4);
    let (_, server, client) = connected(&simulation);
    simulation
        .block_on(async move {
            let waiting = server.clone();
            let receiving =
                spawn(Class::Produce, async move { waiting.receive(Buffer::with_capacity(1)).await.0.unwrap() });
            sleep(millis(1)).await;
            server.shutdown();
            assert_eq!(receiving.await, 0);
            assert_eq!(server.send(encoded(vec![1])).await.0.unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(client.receive(Buffer::with_capacity(1)).await.0.unwrap(), 0);
        })
        .unwrap();
}

#[test]
fn a_kill_resets_or_ends_connections_and_a_power_cut_does_so_late() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let simulation = simulation(seed);
        let (node, server, client) = connected(&simulation);
        let by_power_cut = seed % 2 == 0;
        let at = simulation.now();
        match by_power_cut {
            true => simulation.power_cut(node, PowerCut::OldOrNew),
            false => simulation.kill(node),
        }
        let result = simulation.block_on(async move { client.receive(Buffer::with_capacity(1)).await.0 }).unwrap();
        let late = simulation.now().since(at) > millis(1000);
        seen.insert((by_power_cut, result.map_err(|error| error.kind()).ok(), late));
        drop(server);
    }
    let expected = [(false, None, false), (false, Some(0), false), (true, None, false), (true, None, true)];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_cut_holds_one_way_until_it_is_healed() {
    for seed in 0..20 {
        let simulation = simulation(seed);
        let (node, server, client) = connected(&simulation);
        let there = simulation.clone();
        simulation
            .block_on(async move {
                let own = there.client();
                there.cut(node, own);
                client.send(encoded(vec![1; 3000])).await.0.unwrap();
                assert_eq!(receive_all(&server, 3000).await.unwrap(), vec![1; 3000]);
                server.send(encoded(vec![2; 30_000])).await.0.unwrap();
                let mut answer = std::pin::pin!(receive_all(&client, 30_000));
                assert!(timeout(Duration::from_secs(5), answer.as_mut()).await.is_err());
                let address = server.local_address();
                let connecting = spawn(Class::Produce, async move { connect(address).await.map(drop) });
                sleep(millis(1500)).await;
                there.heal(node, own);
                assert_eq!(answer.await.unwrap(), vec![2; 30_000]);
                // The listener went with the task that had accepted.
                assert_eq!(connecting.await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            })
            .unwrap();
    }
}
