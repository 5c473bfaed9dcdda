//! Fetch sessions by KIP-227: sequences of requests with the answers that Kafka gives.

mod bounds;
mod client;
mod requests;

use requests::{Asked, World, id, image, marks};

use super::*;

/// Opens a session of these partitions, all found and told without records.
fn opened(world: &mut World, asked: Asked) -> FetchSessionId {
    world.fetch(&asked.session(0, 0)).expect("a full fetch").session.expect("there is room")
}

#[test]
fn rule_16_a_fetch_without_a_session_is_told_everything_and_opens_none() {
    for version in [4, 7, 12, 13, 18] {
        let mut world = World::new();
        let asked = Asked::new(version).partitions("a", &[0, 1]).partitions("b", &[0]);
        for _ in 0..2 {
            let told = world.fetch(&asked).expect("a full fetch");
            assert_eq!((told.session, told.partitions), (None, vec![("a", 0), ("a", 1), ("b", 0)]), "v{version}");
        }
        assert_eq!(world.sessions.sessions.len(), 0);
    }
}

#[test]
fn rule_16_a_session_is_told_what_changed() {
    for version in [7, 12, 13, 18] {
        let mut world = World::new();
        let asked = Asked::new(version);
        let full =
            world.fetch(&asked.clone().partitions("a", &[0, 1]).partitions("b", &[0]).session(0, 0)).expect("full");
        let session = full.session.expect("there is room");
        assert_eq!(full.partitions, [("a", 0), ("a", 1), ("b", 0)], "v{version}");
        let mut epoch = 0;
        let mut next = |world: &mut World| {
            epoch += 1;
            let told = world.fetch(&asked.clone().session(session.0, epoch)).expect("the session goes on");
            assert_eq!(told.session, Some(session));
            assert_eq!(told.wanted, 3);
            told.partitions
        };
        assert_eq!(next(&mut world), [], "nothing is new");
        world.told("a", 1).high_watermark = requests::offset(7);
        assert_eq!(next(&mut world), [("a", 1)], "the high watermark");
        world.told("b", 0).last_stable_offset = requests::offset(1);
        assert_eq!(next(&mut world), [("b", 0)], "the last stable offset");
        world.told("a", 0).log_start_offset = requests::offset(1);
        assert_eq!(next(&mut world), [("a", 0)], "the log start offset");
        assert_eq!(next(&mut world), [], "nothing is new");
        world.records.insert(("b", 0), 100);
        assert_eq!(next(&mut world), [("b", 0)], "records");
        assert_eq!(next(&mut world), [("b", 0)], "records again, although nothing moved");
        world.records.clear();
        world.told("a", 1).error = ErrorCode::NotLeaderOrFollower;
        assert_eq!(next(&mut world), [("a", 1)], "an error");
        assert_eq!(next(&mut world), [("a", 1)], "the same error");
        world.told("a", 1).error = ErrorCode::None;
        assert_eq!(next(&mut world), [("a", 1)], "the end of the error, although no offset moved");
        assert_eq!(next(&mut world), [], "nothing is new");
        world.told("a", 0).preferred_read_replica = crate::types::BrokerId::new(2);
        assert_eq!(next(&mut world), [("a", 0)], "a better replica");
    }
}

/// A partition that failed in the full fetch is told as soon as it works, even with the offsets that came with the error.
#[test]
fn rule_16_an_error_told_first_is_followed_by_its_end() {
    let mut world = World::new();
    world.told("a", 0).error = ErrorCode::OffsetOutOfRange;
    let session = opened(&mut world, Asked::new(12).partitions("a", &[0]));
    world.told("a", 0).error = ErrorCode::None;
    let told = world.fetch(&Asked::new(12).session(session.0, 1)).expect("the session goes on");
    assert_eq!(told.partitions, [("a", 0)]);
}

#[test]
fn rule_16_a_wrong_epoch_is_refused_and_the_session_kept() {
    let mut world = World::new();
    let session = opened(&mut world, Asked::new(12).partitions("a", &[0]));
    for epoch in [2, 7, i32::MAX, -2, i32::MIN] {
        let refused = world.fetch(&Asked::new(12).partitions("b", &[0]).session(session.0, epoch)).expect_err("wrong");
        assert_eq!(refused, Refused { error: ErrorCode::InvalidFetchSessionEpoch, session: None });
    }
    let told = world.fetch(&Asked::new(12).session(session.0, 1)).expect("the session goes on");
    assert_eq!(told.wanted, 1, "a refused request adds nothing");
    let again = world.fetch(&Asked::new(12).session(session.0, 1)).expect_err("the epoch is 2 now");
    assert_eq!(again.error, ErrorCode::InvalidFetchSessionEpoch);
}

#[test]
fn rule_16_an_unknown_id_is_refused() {
    let mut world = World::new();
    let session = opened(&mut world, Asked::new(12).partitions("a", &[0]));
    for unknown in [0, -1, session.0 ^ 1, i32::MAX, i32::MIN] {
        let refused = world.fetch(&Asked::new(12).session(unknown, 1)).expect_err("unknown");
        assert_eq!(refused, Refused { error: ErrorCode::FetchSessionIdNotFound, session: None });
    }
}

#[test]
fn rule_16_names_and_ids_do_not_mix() {
    for (first, then) in [(12, 13), (7, 18), (13, 12), (18, 7)] {
        let mut world = World::new();
        let session = opened(&mut world, Asked::new(first).partitions("a", &[0]));
        let refused = world.fetch(&Asked::new(then).partitions("b", &[0]).session(session.0, 1)).expect_err("mixed");
        assert_eq!(refused, Refused { error: ErrorCode::FetchSessionTopicIdError, session: None });
        let wrong_epoch =
            world.fetch(&Asked::new(then).session(session.0, 2)).expect_err("the epoch is looked at first");
        assert_eq!(wrong_epoch.error, ErrorCode::InvalidFetchSessionEpoch);
        world.fetch(&Asked::new(first).session(session.0, 1)).expect("the session goes on");
    }
}

#[test]
fn rule_16_a_full_fetch_ends_the_session_that_it_names() {
    let mut world = World::new();
    let asked = Asked::new(12).partitions("a", &[0]);
    let first = opened(&mut world, asked.clone());
    let second = world.fetch(&asked.clone().session(first.0, 0)).expect("full").session.expect("there is room");
    assert_ne!(first, second);
    assert_eq!(
        world.fetch(&asked.clone().session(first.0, 1)).expect_err("it ended").error,
        ErrorCode::FetchSessionIdNotFound
    );
    let last = world.fetch(&asked.clone().session(second.0, -1)).expect("full");
    assert_eq!((last.session, last.partitions), (None, vec![("a", 0)]));
    assert_eq!((world.sessions.sessions.len(), world.sessions.bytes), (0, 0));
    world.fetch(&asked.session(second.0, -1)).expect("a session that is gone is no error here");
}

#[test]
fn rule_16_partitions_are_added_changed_and_forgotten() {
    for version in [12, 13] {
        let mut world = World::new();
        let asked = Asked::new(version);
        let session = opened(&mut world, asked.clone().partitions("a", &[0, 1]));
        let told = world.fetch(&asked.clone().partitions("b", &[3]).session(session.0, 1)).expect("goes on");
        assert_eq!((told.wanted, told.partitions), (3, vec![("b", 3)]), "what is added is told");
        let told = world.fetch(&asked.clone().at(9).partitions("a", &[1]).session(session.0, 2)).expect("goes on");
        assert_eq!((told.offsets, told.partitions), (vec![0, 9, 0], vec![]), "what is changed is told only if new");
        let both = asked.clone().partitions("a", &[2]).forget("a", &[0, 2]).forget("b", &[0]).forget("c", &[0]);
        let told = world.fetch(&both.session(session.0, 3)).expect("goes on");
        assert_eq!((told.offsets, told.partitions), (vec![9, 0], vec![]), "forgetting comes last");
        let told = world.fetch(&asked.clone().partitions("a", &[0]).session(session.0, 4)).expect("goes on");
        assert_eq!(told.partitions, [("a", 0)], "what was forgotten is new again");
    }
}

#[test]
fn rule_16_a_session_without_partitions_ends() {
    let mut world = World::new();
    let session = opened(&mut world, Asked::new(13).partitions("a", &[0]));
    let asked = Asked::new(13).partitions("b", &[1]).forget("a", &[0]).forget("b", &[1]);
    let told = world.fetch(&asked.session(session.0, 1)).expect("answered without a session");
    assert_eq!((told.session, told.partitions), (None, vec![("b", 1)]), "as Kafka: what the request names is told");
    assert_eq!((world.sessions.sessions.len(), world.sessions.bytes), (0, 0));
    assert_eq!(
        world.fetch(&Asked::new(13).session(session.0, 2)).expect_err("gone").error,
        ErrorCode::FetchSessionIdNotFound
    );
}

/// Indexes that no partition can have are echoed with their error, as any other.
#[test]
fn any_index_and_name_is_kept() {
    let mut world = World::new();
    let session = opened(&mut world, Asked::new(12).partitions("", &[-3, i32::MIN]).partitions("not/a topic", &[0]));
    let told = world.fetch(&Asked::new(12).session(session.0, 1)).expect("goes on");
    assert_eq!(told.partitions, [("", -3), ("", i32::MIN), ("not/a topic", 0)]);
    assert!(told.topics.iter().all(|topic| *topic == Err(ErrorCode::UnknownTopicOrPartition)));
}

#[test]
fn partitions_with_records_go_to_the_end() {
    let mut world = World::new();
    let session = opened(&mut world, Asked::new(13).partitions("a", &[0, 1, 2]).partitions("b", &[0]));
    // Bytes for one partition of each answer: in turn each of those that have records.
    world.partitions_served = 1;
    for key in [("a", 0), ("a", 2), ("b", 0)] {
        world.records.insert(key, 10);
    }
    world.told("a", 1).high_watermark = requests::offset(5);
    let mut served = Vec::new();
    for epoch in 1..7 {
        served.push(world.fetch(&Asked::new(13).session(session.0, epoch)).expect("goes on").partitions);
    }
    let turns =
        [vec![("a", 0), ("a", 1)], vec![("a", 2)], vec![("b", 0)], vec![("a", 0)], vec![("a", 2)], vec![("b", 0)]];
    assert_eq!(served, turns, "an offset that moved is told and keeps its place");
}

#[test]
fn neighbours_of_a_topic_are_one_topic_of_the_answer() {
    let mut world = World::new();
    let session = opened(&mut world, Asked::new(13).partitions("a", &[0, 1, 2]).partitions("b", &[0, 1]));
    world.records.insert(("a", 1), 10);
    let grouped =
        |world: &mut World, epoch| world.fetch(&Asked::new(13).session(session.0, epoch)).expect("goes on").groups;
    assert_eq!(grouped(&mut world, 1), [("a", vec![1])]);
    // The order is a0 a2 b0 b1 a1 now.
    world.records.extend([(("a", 0), 10), (("a", 2), 10), (("b", 1), 10)]);
    assert_eq!(grouped(&mut world, 2), [("a", vec![0, 2]), ("b", vec![1]), ("a", vec![1])]);
}

#[test]
fn an_id_that_is_not_known_yet_is_resolved_later() {
    let mut world = World::new();
    world.image = image(1, &[("a", 1)]);
    let session = opened(&mut world, Asked::new(13).partitions("a", &[0]).partitions("b", &[0]));
    let topics =
        |world: &mut World, epoch| world.fetch(&Asked::new(13).session(session.0, epoch)).expect("goes on").topics;
    assert_eq!(topics(&mut world, 1), [Ok(id("a")), Err(ErrorCode::UnknownTopicId)]);
    world.image = image(2, &[("a", 1), ("b", 2)]);
    assert_eq!(topics(&mut world, 2), [Ok(id("a")), Ok(id("b"))]);
    world.image = image(3, &[("a", 1)]);
    assert_eq!(topics(&mut world, 3), [Ok(id("a")), Err(ErrorCode::UnknownTopicOrPartition)], "deleted");
    world.image = image(4, &[("a", 1), ("b", 9)]);
    assert_eq!(topics(&mut world, 4), [Ok(id("a")), Err(ErrorCode::InconsistentTopicId)], "made again");
    world.image = image(5, &[("b", 9)]);
    let asked = Asked::new(13).partitions("again", &[0]).forget("b", &[0]).session(session.0, 5);
    let told = world.fetch(&asked).expect("goes on");
    let topics = [Err(ErrorCode::UnknownTopicOrPartition), Ok(TopicId::from_bytes([9; 16]))];
    assert_eq!((told.topics, told.partitions), (topics.to_vec(), vec![("a", 0), ("again", 0)]));
}

#[test]
fn a_name_means_the_topic_that_has_it_now() {
    let mut world = World::new();
    world.image = image(1, &[("a", 1)]);
    let session = opened(&mut world, Asked::new(12).partitions("a", &[0]));
    let topics =
        |world: &mut World, epoch| world.fetch(&Asked::new(12).session(session.0, epoch)).expect("goes on").topics;
    assert_eq!(topics(&mut world, 1), [Ok(id("a"))]);
    world.image = image(2, &[]);
    assert_eq!(topics(&mut world, 2), [Err(ErrorCode::UnknownTopicOrPartition)]);
    world.image = image(3, &[("a", 7)]);
    assert_eq!(topics(&mut world, 3), [Ok(TopicId::from_bytes([7; 16]))]);
}

/// A fetch that waits sees the topics of the image that it is read with, not of the one that it began with.
#[test]
fn a_waiting_fetch_sees_a_newer_image() {
    let mut world = World::new();
    world.image = image(1, &[("a", 1)]);
    let session = opened(&mut world, Asked::new(13).partitions("a", &[0]));
    let body = Asked::new(13).session(session.0, 1).body();
    let request = body.parse();
    let fetch = world.sessions.begin(&request, world.now).expect("goes on");
    for (image, expected) in
        [(world.image.clone(), Ok(id("a"))), (image(2, &[]), Err(ErrorCode::UnknownTopicOrPartition))]
    {
        let wanted: Vec<_> = world.sessions.wanted(&fetch, &request, &image).expect("goes on").collect();
        assert_eq!(wanted[0].0, expected);
    }
}

#[test]
fn a_fetch_whose_session_moved_on_is_refused() {
    let mut world = World::new();
    let session = opened(&mut world, Asked::new(13).partitions("a", &[0]));
    let bodies = [1, 2].map(|epoch| Asked::new(13).session(session.0, epoch).body());
    let [first, second] = bodies.each_ref().map(|body| body.parse());
    let waiting = world.sessions.begin(&first, world.now).expect("goes on");
    let overtaking = world.sessions.begin(&second, world.now).expect("goes on");
    let overtaken = Refused { error: ErrorCode::InvalidFetchSessionEpoch, session: Some(session) };
    assert_eq!(world.sessions.wanted(&waiting, &first, &world.image).err(), Some(overtaken));
    let told = [Told::of(&marks(0), 0)];
    assert_eq!(world.sessions.answer(waiting, &first, told, world.now).err(), Some(overtaken));

    world.sessions.close(session);
    let gone = Refused { error: ErrorCode::FetchSessionIdNotFound, session: None };
    assert_eq!(world.sessions.wanted(&overtaking, &second, &world.image).err(), Some(gone));
    // Another session in its place changes nothing.
    opened(&mut world, Asked::new(13).partitions("a", &[0]));
    assert_eq!(world.sessions.answer(overtaking, &second, told, world.now).err(), Some(gone));
}

#[test]
#[should_panic(expected = "every partition that was read is told")]
fn telling_less_than_was_read_is_a_bug() {
    let mut world = World::new();
    let session = opened(&mut world, Asked::new(13).partitions("a", &[0, 1]));
    let body = Asked::new(13).session(session.0, 1).body();
    let request = body.parse();
    let fetch = world.sessions.begin(&request, world.now).expect("goes on");
    let _ = world.sessions.answer(fetch, &request, [Told::of(&marks(0), 0)], world.now);
}
