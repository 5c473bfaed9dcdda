//! How many sessions there are, whose place a new one takes, what they cost, and whose ids are whose.
//!
//! Memory and allocations are counted by the allocator of this test binary. What a session is counted as must not be less
//! than what it takes.

use super::requests::{Asked, World, image};
use super::*;
use crate::config::{BrokerConfig, Settings};

const SECOND: Duration = Duration::from_secs(1);

fn slots(sessions_max: usize) -> World {
    World::with_limits(SessionLimits { sessions_max, bytes_max: 1 << 20 })
}

fn open(world: &mut World, partitions: i32) -> Option<FetchSessionId> {
    let indexes: Vec<i32> = (0..partitions).collect();
    world.fetch(&Asked::new(13).partitions("a", &indexes).session(0, 0)).expect("a full fetch").session
}

/// Goes on with a session, whose epoch the caller keeps.
fn touch(world: &mut World, session: FetchSessionId, epoch: i32) -> Result<(), ErrorCode> {
    world.fetch(&Asked::new(13).session(session.0, epoch)).map(drop).map_err(|refused| refused.error)
}

#[test]
fn without_slots_there_are_no_sessions() {
    let mut world = slots(0);
    assert_eq!(open(&mut world, 3), None);
}

#[test]
fn an_idle_session_gives_way_and_no_other() {
    let mut world = slots(2);
    let [first, second] = [1, 1].map(|partitions| open(&mut world, partitions).expect("a free slot"));
    assert_eq!(world.sessions.owner(first), Some(ShardId(0)));
    world.wait(SECOND);
    touch(&mut world, first, 1).expect("it is there");
    assert_eq!(open(&mut world, 9), None, "both are young");
    world.wait(IDLE_MAX - SECOND);
    assert_eq!(open(&mut world, 9), None, "the second one is unused for exactly the time that it has");
    world.wait(Duration::from_nanos(1));
    let third = open(&mut world, 1).expect("the second one is idle");
    assert_eq!(touch(&mut world, second, 1), Err(ErrorCode::FetchSessionIdNotFound));
    touch(&mut world, first, 2).expect("it was used since");
    touch(&mut world, third, 1).expect("it is there");
}

#[test]
fn an_old_session_gives_way_to_a_larger_one() {
    let mut world = slots(3);
    let sessions = [3, 2, 4].map(|partitions| open(&mut world, partitions).expect("a free slot"));
    let touch_all = |world: &mut World, epoch| sessions.map(|session| touch(world, session, epoch).is_ok());
    world.wait(IDLE_MAX);
    assert_eq!(touch_all(&mut world, 1), [true; 3]);
    assert_eq!(open(&mut world, 9), None, "none is older than the time that it is safe");
    world.wait(SECOND);
    assert_eq!(touch_all(&mut world, 2), [true; 3]);
    assert_eq!(open(&mut world, 2), None, "an equal one is not larger");
    let larger = open(&mut world, 3).expect("the one with two partitions gives way");
    assert_eq!(touch_all(&mut world, 3), [true, false, true]);
    assert_eq!(open(&mut world, 3), None, "the new one is young, the smallest old one as large");
    // The size counts that a session has now.
    let grown = Asked::new(13).partitions("b", &[0, 1, 2]).session(sessions[0].0, 4);
    world.fetch(&grown).expect("it goes on");
    open(&mut world, 5).expect("of six and four partitions the four give way");
    assert_eq!(touch(&mut world, sessions[0], 5), Ok(()));
    assert_eq!(touch(&mut world, sessions[2], 4), Err(ErrorCode::FetchSessionIdNotFound));
    touch(&mut world, larger, 1).expect("it is there");
}

#[test]
fn memory_bounds_all_sessions_together() {
    let bytes_max = 2 * (session::SESSION_BYTES + session::TOPIC_BYTES + 10 * session::PARTITION_BYTES);
    let mut world = World::with_limits(SessionLimits { sessions_max: 100, bytes_max });
    let [first, second] = [10, 10].map(|partitions| open(&mut world, partitions).expect("exactly that fits"));
    assert_eq!(world.sessions.bytes, bytes_max);
    assert_eq!(open(&mut world, 1), None);
    let told =
        world.fetch(&Asked::new(13).partitions("a", &[3]).forget("a", &[4]).session(first.0, 1)).expect("goes on");
    assert_eq!(told.wanted, 9, "a change adds nothing");
    let grown = world.fetch(&Asked::new(13).partitions("a", &[10, 11]).session(first.0, 2)).expect_err("one too many");
    assert_eq!(grown.error, ErrorCode::FetchSessionIdNotFound);
    assert_eq!(world.sessions.bytes, bytes_max / 2, "it ended");
    open(&mut world, 10).expect("its room is free");

    // Smaller sessions give way for their slot, not for their memory; idle ones do for both.
    world.wait(IDLE_MAX + SECOND);
    touch(&mut world, second, 1).expect("it is there");
    assert_eq!(open(&mut world, 11), None, "the idle one's ten and one more");
    assert_eq!(world.sessions.sessions.len(), 1);
    open(&mut world, 10).expect("room of the idle one");
}

#[test]
fn names_count() {
    let mut world = World::new();
    let long = "not/a topic";
    world.fetch(&Asked::new(12).partitions(long, &[0]).session(0, 0)).expect("full").session.expect("room");
    let expected = session::SESSION_BYTES + session::TOPIC_BYTES + session::PARTITION_BYTES + long.len();
    assert_eq!(world.sessions.bytes, expected);
}

#[test]
fn the_slots_are_split_exactly() {
    for (slots, shards) in [(1000, 1), (1000, 3), (7, 4), (2, 8), (0, 5), (i32::MAX, 1024)] {
        let mut settings = Settings::new();
        let key = "max.incremental.fetch.session.cache.slots";
        settings.add_set(key, &slots.to_string()).expect("in its range");
        let config = BrokerConfig::new(settings, shards, 64 << 30).expect("valid");
        let limits: Vec<_> = (0..shards).map(|shard| SessionLimits::new(&config, ShardId(shard), shards)).collect();
        assert_eq!(limits.iter().map(|limits| limits.sessions_max).sum::<usize>(), slots as usize);
        let most = limits.iter().map(|limits| limits.sessions_max).max();
        assert!(limits.iter().all(|limits| Some(limits.sessions_max + 1) >= most), "{slots} over {shards}");
        let bytes: usize = limits.iter().map(|limits| limits.bytes_max).sum();
        assert!((1.9..=2.0).contains(&(bytes as f64 / (64u64 << 30) as f64 * 100.0)), "two percent of all memory");
    }
}

#[test]
fn ids_say_whose_they_are() {
    for shards in [1, 2, 3, 1000, 1024] {
        let mut seen = std::collections::BTreeSet::new();
        for shard in [0, shards / 2, shards - 1].map(ShardId) {
            let mut ids = SessionIds::new(shard, shards, 3);
            for _ in 0..200 {
                let id = ids.draw(|id| seen.contains(&(id, shard)));
                assert!(id.0 > 0, "{id:?}");
                assert_eq!(ids.owner(id), Some(shard));
                seen.insert((id, shard));
            }
        }
        let ids = SessionIds::new(ShardId(0), shards, 3);
        assert_eq!((ids.owner(FetchSessionId(1)), ids.owner(FetchSessionId(0))), (Some(ShardId(0)), None));
        let last = i32::MAX - i32::MAX % i32::from(shards as i16);
        assert_eq!(ids.owner(FetchSessionId(last)), Some(ShardId(shards - 1)));
        assert_eq!(ids.owner(FetchSessionId(last).0.checked_add(1).map_or(FetchSessionId(-1), FetchSessionId)), None);
    }
}

#[test]
fn ids_are_random_and_one_that_is_taken_is_stepped_over() {
    let draw = |seed| SessionIds::new(ShardId(5), 8, seed).draw(|_| false);
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let taken = draw(1);
    let next = SessionIds::new(ShardId(5), 8, 1).draw(|id| id == taken);
    assert_eq!(next.0, taken.0 + 1);
    // From the last id of the range it goes on with the first one.
    let ids = SessionIds::new(ShardId(5), 8, 0);
    let first = 5 * ids.range() as i32 + 1;
    let only = SessionIds::new(ShardId(5), 1024, 1);
    assert_eq!(ids.owner(FetchSessionId(first)), Some(ShardId(5)));
    let free = 5 * only.range() as i32 + 1;
    assert_eq!(SessionIds::new(ShardId(5), 1024, 1).draw(|id| id.0 != free).0, free);
}

#[test]
fn a_steady_session_allocates_nothing() {
    let mut world = World::new();
    let indexes: Vec<i32> = (0..50).collect();
    let asked = Asked::new(13).partitions("a", &indexes).partitions("b", &indexes);
    let session = world.fetch(&asked.session(0, 0)).expect("full").session.expect("room");
    let offsets = requests::marks(5);
    for epoch in 1..200 {
        let body = Asked::new(13).at(i64::from(epoch)).partitions("b", &[7, 8]).session(session.0, epoch).body();
        let image = image(3, &[("a", 1), ("b", 2)]);
        let mut included = 0;
        let counted = allocation_counter::measure(|| {
            let request = body.parse();
            let fetch = world.sessions.begin(&request, world.now).expect("goes on");
            let wanted = world.sessions.wanted(&fetch, &request, &image).expect("goes on").count();
            assert_eq!(wanted, 100);
            let told = (0..wanted).map(|read| Told::of(&offsets, usize::from(read % 2 == 1)));
            let answer = world.sessions.answer(fetch, &request, told, world.now).expect("goes on");
            included = answer.topics().map(|topic| topic.reads.count()).sum();
        });
        assert_eq!(included, if epoch == 1 { 100 } else { 50 });
        assert!(counted.count_total == 0 || epoch == 1, "epoch {epoch}: {counted:?}");
    }
}

#[test]
fn sessions_take_no_more_than_they_are_counted_as() {
    for (sessions, partitions) in [(5, 1), (33, 1), (33, 3), (17, 9), (9, 100), (1, 1025), (1, 4097)] {
        let mut world = World::with_limits(SessionLimits { sessions_max: sessions, bytes_max: 1 << 30 });
        let body = Asked::new(13).partitions("a", &[0]).session(0, 0).body();
        let mut held = 0;
        for _ in 0..sessions {
            let mut session = FetchSessionId(0);
            held += allocation_counter::measure(|| {
                let request = body.parse();
                let fetch = world.sessions.begin(&request, world.now).expect("full");
                let told = [Told::of(&requests::marks(0), 0)];
                let opened = world.sessions.answer(fetch, &request, told, world.now).expect("full").session();
                session = opened.expect("room");
            })
            .bytes_current;
            // Grown by steps, since that takes the most memory.
            for index in 1..partitions {
                let body = Asked::new(13).partitions("a", &[index]).session(session.0, index).body();
                let begun = || assert!(world.sessions.begin(&body.parse(), world.now).is_ok());
                held += allocation_counter::measure(begun).bytes_current;
            }
        }
        let counted = world.sessions.bytes as i64;
        assert!(held <= counted, "{sessions} of {partitions} partitions: {held} bytes held, {counted} counted");
        assert!(held > counted / 4, "{sessions} of {partitions} partitions: {held} bytes held, {counted} counted");
    }
}
