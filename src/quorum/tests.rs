//! The quorum on the simulated disk: decisions see each other, images move with durability, restarts bring everything back.

use core::time::Duration;

use super::*;
use crate::runtime::sim::{DiskFault, NodeId, PowerCut, Simulation, SimulationOptions};
use crate::runtime::{Class, directory, spawn};
use crate::types::{ProducerId, ShardId};

const SHARD: ShardId = ShardId(0);

fn directory() -> &'static Path {
    Path::new("/meta")
}

fn world(seed: u64) -> (Simulation, NodeId) {
    let simulation = Simulation::new(seed, SimulationOptions::default());
    let node = simulation.add_node(1);
    on(&simulation, node, async {
        directory::create(directory()).await.unwrap();
        directory::sync(Path::new("/")).await.unwrap();
    });
    (simulation, node)
}

fn on<T: 'static>(simulation: &Simulation, node: NodeId, future: impl Future<Output = T> + 'static) -> T {
    simulation.run_on(node, SHARD, future).unwrap().expect("the process lives on")
}

async fn open() -> Quorum {
    Quorum::open(directory(), Start::New).await.unwrap().0
}

/// Reserves the next ten producer ids of the accepted state; answers the first of them.
fn reserve(controller: &Controller) -> Decision<i64> {
    let first = controller.image().next_producer_id().map_or(0, ProducerId::value);
    let next = ProducerId::new(first + 10).unwrap();
    Decision { records: vec![MetadataRecord::ProducerIdsReserved { next, broker: None }], response: first }
}

fn reserved(image: &ClusterImage) -> i64 {
    image.next_producer_id().map_or(0, ProducerId::value)
}

#[test]
fn decisions_see_what_was_accepted_and_readers_what_is_committed() {
    let (simulation, node) = world(1);
    on(&simulation, node, async {
        let quorum = open().await;
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let quorum = quorum.clone();
                spawn(Class::Produce, async move {
                    let first = quorum.propose_with(reserve).await.unwrap();
                    assert!(reserved(&quorum.image()) >= first + 10, "answered before it was committed");
                    first
                })
            })
            .collect();
        let mut firsts = Vec::new();
        for task in tasks {
            firsts.push(task.await);
        }
        firsts.sort_unstable();
        assert_eq!(firsts, (0..50).map(|number| 10 * number).collect::<Vec<i64>>(), "no id twice, none skipped");
        assert_eq!(quorum.image().version(), Offset::ZERO.plus(50));
    });
}

#[test]
fn an_answer_without_records_waits_for_what_it_rests_on() {
    let (simulation, node) = world(2);
    on(&simulation, node, async {
        let quorum = open().await;
        let writer = quorum.clone();
        let first = spawn(Class::Produce, async move { writer.propose_with(reserve).await.unwrap() });
        crate::runtime::yield_now().await;
        let look = |controller: &Controller| Decision { records: Vec::new(), response: reserved(controller.image()) };
        while quorum.propose_with(look).await.unwrap() == 0 {
            crate::runtime::yield_now().await;
        }
        assert_eq!(reserved(&quorum.image()), 10, "what was answered is committed");
        assert_eq!(first.await, 0);
    });
}

#[test]
fn a_failed_decision_changes_nothing() {
    let (simulation, node) = world(3);
    on(&simulation, node, async {
        let quorum = open().await;
        let refused = quorum.try_propose_with(|_| Err::<Decision<()>, _>("no")).await;
        assert_eq!(refused, Ok(Err("no")));
        quorum.propose_with(reserve).await.unwrap();
        let back = MetadataRecord::ProducerIdsReserved { next: ProducerId::new(3).unwrap(), broker: None };
        let unfit = quorum.propose(vec![back]).await;
        assert!(matches!(unfit, Err(ProposeError::Unfit(ReplayError::ProducerIds { .. }))));
        assert_eq!((reserved(&quorum.image()), quorum.image().version()), (10, Offset::ZERO.plus(1)));
        assert_eq!(quorum.propose_with(reserve).await, Ok(10));
    });
}

#[test]
fn a_proposal_is_replayed_whole_or_not_at_all() {
    let (simulation, node) = world(4);
    on(&simulation, node, async {
        let quorum = open().await;
        let records = [7, 9, 8].map(|next| {
            let next = ProducerId::new(next).unwrap();
            MetadataRecord::ProducerIdsReserved { next, broker: None }
        });
        assert!(matches!(quorum.propose(records.to_vec()).await, Err(ProposeError::Unfit(_))));
        assert_eq!(quorum.image().version(), Offset::ZERO);
        quorum.propose(records[..2].to_vec()).await.unwrap();
        assert_eq!(quorum.image().version(), Offset::ZERO.plus(2));
    });
}

#[test]
fn a_restart_brings_back_the_image() {
    let (simulation, node) = world(5);
    let before = on(&simulation, node, async {
        let quorum = open().await;
        for _ in 0..20 {
            quorum.propose_with(reserve).await.unwrap();
        }
        quorum.image()
    });
    simulation.power_cut(node, PowerCut::OldOrNew);
    simulation.restart(node);
    let (after, loaded) = on(&simulation, node, async {
        let (quorum, loaded) = Quorum::open(directory(), Start::Existing).await.unwrap();
        (quorum.image(), loaded)
    });
    assert_eq!(after, before);
    assert_eq!(loaded, Loaded { records: 20, torn_bytes: 0 });
}

#[test]
fn an_outgrown_log_begins_again_with_a_snapshot() {
    let (simulation, node) = world(6);
    let before = on(&simulation, node, async {
        let quorum = open().await;
        // 8 MiB in blocks of 4 KiB: one proposal each, since they are made one after the other.
        for _ in 0..2100 {
            quorum.propose_with(reserve).await.unwrap();
        }
        assert_eq!(quorum.inner.log.sequence(), Some(2));
        quorum.close().await.unwrap();
        quorum.image()
    });
    simulation.kill(node);
    simulation.restart(node);
    let (after, loaded) = on(&simulation, node, async {
        let (quorum, loaded) = Quorum::open(directory(), Start::Existing).await.unwrap();
        assert_eq!(quorum.propose_with(reserve).await, Ok(21_000));
        (quorum.image(), loaded)
    });
    assert_eq!(after.version(), before.version().next());
    assert!(loaded.records < 100, "{loaded:?}");
}

#[test]
fn a_full_disk_takes_back_what_was_accepted_and_nothing_else() {
    let (simulation, node) = world(7);
    let handle = simulation.clone();
    on(&simulation, node, async move {
        let quorum = open().await;
        quorum.propose_with(reserve).await.unwrap();
        // The room that is written ahead ends after some blocks.
        let mut refused = 0;
        let mut last = 0;
        handle.fail_next(node, DiskFault::NoSpace, "/meta");
        for _ in 0..200 {
            match quorum.propose_with(reserve).await {
                Ok(first) => {
                    assert_eq!(first, last + 10, "ids that were refused are handed out again");
                    last = first;
                }
                Err(ProposeError::Full { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(refused, 1);
    });
}

#[test]
fn a_failed_write_closes_the_quorum_and_the_committed_image_stays() {
    let (simulation, node) = world(8);
    let handle = simulation.clone();
    on(&simulation, node, async move {
        let quorum = open().await;
        quorum.propose_with(reserve).await.unwrap();
        let mut watch = quorum.watch();
        handle.fail_next(node, DiskFault::WriteError, "/meta");
        assert!(matches!(quorum.propose_with(reserve).await, Err(ProposeError::Closed { .. })));
        assert!(matches!(quorum.propose_with(reserve).await, Err(ProposeError::Closed { .. })));
        let look = |_: &Controller| Decision { records: Vec::new(), response: () };
        assert!(matches!(quorum.propose_with(look).await, Err(ProposeError::Closed { .. })));
        assert_eq!(reserved(&quorum.image()), 10);
        assert!(watch.changed().await.is_none());
    });
}

#[test]
fn a_watch_sees_the_newest_image() {
    let (simulation, node) = world(9);
    on(&simulation, node, async {
        let quorum = open().await;
        let mut watch = quorum.watch();
        let follower = spawn(Class::Produce, async move {
            let mut seen = Vec::new();
            while let Some(image) = watch.changed().await {
                seen.push(reserved(&image));
            }
            seen
        });
        for _ in 0..5 {
            quorum.propose_with(reserve).await.unwrap();
            crate::runtime::sleep(Duration::from_millis(1)).await;
        }
        quorum.close().await.unwrap();
        let seen = follower.await;
        assert_eq!(seen, [10, 20, 30, 40, 50]);
        let (quorum, _) = Quorum::open(directory(), Start::Existing).await.unwrap();
        assert_eq!(quorum.inner.watches.borrow().len(), 0);
    });
}

#[test]
fn damage_is_corruption_and_a_missing_log_is_not() {
    let (simulation, node) = world(10);
    let missing = on(&simulation, node, async { Quorum::open(directory(), Start::Existing).await.map(|_| ()) });
    assert!(matches!(&missing, Err(error @ QuorumError::Log(OpenError::Missing { .. })) if !error.is_corruption()));
    on(&simulation, node, async {
        let quorum = open().await;
        quorum.propose_with(reserve).await.unwrap();
        quorum.propose_with(reserve).await.unwrap();
    });
    simulation.kill(node);
    simulation.flip_bit(node, Path::new("/meta/00000000000000000001.log"), 4096 + 30, 1).unwrap();
    simulation.restart(node);
    let damaged = on(&simulation, node, async { Quorum::open(directory(), Start::Existing).await.map(|_| ()) });
    assert!(matches!(&damaged, Err(error) if error.is_corruption()), "{damaged:?}");
}

/// Frames that are intact and do not follow each other.
#[test]
fn a_gap_between_frames_is_corruption() {
    let (simulation, node) = world(11);
    let result = on(&simulation, node, async {
        let (log, _) = FrameLog::create(directory()).await.unwrap();
        let next = ProducerId::new(5).unwrap();
        let records = [MetadataRecord::ProducerIdsReserved { next, broker: None }];
        log.append(payload::encode(Offset::ZERO, &records)).durable().await.unwrap();
        log.append(payload::encode(Offset::ZERO.plus(2), &records)).durable().await.unwrap();
        Quorum::open(directory(), Start::Existing).await.map(|_| ())
    });
    assert!(matches!(&result, Err(error @ QuorumError::Gap { frame: 1, .. }) if error.is_corruption()), "{result:?}");
}

/// Ids that were answered are never answered again, whatever operation the power fails in.
#[test]
fn power_cuts_take_back_no_answer() {
    for seed in 0..40 {
        let (simulation, node) = world(seed);
        let answered = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..8 {
            simulation.power_cut_after(node, 1 + simulation.draw(30), PowerCut::OldOrNew);
            let answered = answered.clone();
            simulation.start(node, SHARD, async move {
                let quorum = open().await;
                loop {
                    let (one, other) = (quorum.clone(), quorum.clone());
                    let one = spawn(Class::Produce, async move { one.propose_with(reserve).await });
                    let other = spawn(Class::Produce, async move { other.propose_with(reserve).await });
                    let pair = [one.await.unwrap(), other.await.unwrap()];
                    answered.borrow_mut().extend(pair);
                }
            });
            let handle = simulation.clone();
            simulation.run_until(Duration::from_secs(60), || !handle.is_running(node)).unwrap();
            simulation.restart(node);
        }
        let mut ids = answered.borrow().clone();
        let count = ids.len();
        assert!(count > 0, "seed {seed}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "seed {seed}: an id was answered twice");
    }
}
