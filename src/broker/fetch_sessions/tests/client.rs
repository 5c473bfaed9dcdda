//! A client that applies incremental answers sees what full fetches would have told it, whatever happens in between.
//!
//! The client keeps its half of KIP-227 as the Java client does: it sends what it added, changed and forgot, expects the next
//! epoch, and starts over on an error. The broker's partitions are a table that steps change at will. The session's half is
//! checked against a list: which partitions are read, in which order and how, and which of them are told.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::requests::{Asked, Key, World, image, offset};
use super::*;

const KEYS: [Key; 6] = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0), ("c", 1)];

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Forget(usize),
    Seek(usize),
    HighWatermark(usize),
    LastStable(usize),
    LogStart(usize),
    Records(usize, bool),
    Error(usize, bool),
    /// Topics come and go.
    Topics([bool; 3]),
    Fetch,
    /// The answer to a fetch is lost, and the client does not know.
    LostFetch,
    /// The connection is lost, and the client opens a new session in place of the old one.
    Reconnect,
    /// The broker forgets the session.
    Evict,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..KEYS.len();
    let step = prop_oneof![
        3 => key.clone().prop_map(Step::Add),
        2 => key.clone().prop_map(Step::Forget),
        2 => key.clone().prop_map(Step::Seek),
        2 => key.clone().prop_map(Step::HighWatermark),
        1 => key.clone().prop_map(Step::LastStable),
        1 => key.clone().prop_map(Step::LogStart),
        3 => (key.clone(), any::<bool>()).prop_map(|(key, has)| Step::Records(key, has)),
        2 => (key, any::<bool>()).prop_map(|(key, failed)| Step::Error(key, failed)),
        1 => any::<[bool; 3]>().prop_map(Step::Topics),
        10 => Just(Step::Fetch),
        1 => Just(Step::LostFetch),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Evict),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 0..120)
}

/// What a client knows of a partition.
type View = (ErrorCode, [Option<crate::types::Offset>; 3]);

/// A client, and beside it the list that its session should be.
struct Client {
    version: i16,
    /// What it wants to read, and from where.
    wants: BTreeMap<Key, i64>,
    session: Option<(FetchSessionId, i32)>,
    /// What it believes that the session holds.
    sent: BTreeMap<Key, i64>,
    views: BTreeMap<Key, View>,
    /// The partitions in the order in which the session reads them.
    order: Vec<Key>,
}

impl Client {
    fn request(&self, session: (i32, i32)) -> Asked {
        let full = session.1 <= 0;
        let mut asked = Asked::new(self.version).session(session.0, session.1);
        for (&(topic, index), &offset) in &self.wants {
            if full || self.sent.get(&(topic, index)) != Some(&offset) {
                asked = asked.at(offset).partitions(topic, &[index]);
            }
        }
        for (topic, index) in self.sent.keys().filter(|key| !full && !self.wants.contains_key(key)) {
            asked = asked.forget(topic, &[*index]);
        }
        asked
    }

    /// Fetches, and checks what comes back against `truth`. `arrives` says whether the client sees the answer.
    fn fetch(&mut self, world: &mut World, truth: &dyn Fn(Key) -> View, arrives: bool) -> Result<(), TestCaseError> {
        let session = self.session.map_or((0, 0), |(id, epoch)| (id.0, epoch));
        let asked = self.request(session);
        let answer = match world.fetch(&asked) {
            Ok(answer) => answer,
            Err(refused) => {
                let expected = [ErrorCode::FetchSessionIdNotFound, ErrorCode::InvalidFetchSessionEpoch];
                prop_assert!(session.1 > 0 && expected.contains(&refused.error), "{:?}", refused);
                // A client that did not miss anything has no wrong epoch, and starts over in any case.
                self.forget_session();
                return Ok(());
            }
        };
        let full = answer.session.is_none() || session.1 <= 0;
        self.expect_order(full);
        let offsets: Vec<i64> = self.order.iter().map(|key| self.wants[key]).collect();
        prop_assert_eq!(&answer.offsets, &offsets, "the offsets that are read, in order");
        let tells = |key: &Key| {
            let unlike = self.views.get(key) != Some(&truth(*key));
            let failed = truth(*key).0 != ErrorCode::None;
            full || unlike || failed || world.records.contains_key(key)
        };
        let expected: Vec<Key> = self.order.iter().copied().filter(tells).collect();
        prop_assert_eq!(&answer.partitions, &expected, "told of {:?}", &self.order);
        if answer.session.is_some() && session.1 > 0 {
            let moved = |key: &Key| world.records.contains_key(key) && truth(*key).0 == ErrorCode::None;
            let (with_records, without): (Vec<Key>, Vec<Key>) = self.order.iter().copied().partition(moved);
            self.order = [without, with_records].concat();
        }
        if !arrives {
            return Ok(());
        }
        for key in &answer.partitions {
            self.views.insert(*key, truth(*key));
        }
        self.views.retain(|key, _| self.wants.contains_key(key));
        self.sent = self.wants.clone();
        self.session = answer.session.map(|id| (id, if session.1 <= 0 { 1 } else { session.1 + 1 }));
        if self.session.is_none() {
            self.sent.clear();
        }
        // This is the promise.
        for key in self.wants.keys() {
            prop_assert_eq!(self.views.get(key), Some(&truth(*key)), "{:?}", key);
        }
        Ok(())
    }

    /// What the session reads after the request: what it held without what was forgotten, then what was added.
    fn expect_order(&mut self, full: bool) {
        if full {
            self.order = self.wants.keys().copied().collect();
            return;
        }
        self.order.retain(|key| self.wants.contains_key(key));
        for key in self.wants.keys() {
            if !self.order.contains(key) {
                self.order.push(*key);
            }
        }
    }

    fn forget_session(&mut self) {
        self.session = None;
        self.sent.clear();
        self.views.clear();
    }
}

fn play(version: i16, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let mut client = Client {
        version,
        wants: BTreeMap::new(),
        session: None,
        sent: BTreeMap::new(),
        views: BTreeMap::new(),
        order: vec![],
    };
    let mut topics = [true; 3];
    let mut images = 1;
    for (number, step) in (1..).zip(steps) {
        let moved = offset(number);
        match step {
            Step::Add(key) => drop(client.wants.entry(KEYS[key]).or_insert(0)),
            Step::Forget(key) => drop(client.wants.remove(&KEYS[key])),
            Step::Seek(key) => drop(client.wants.get_mut(&KEYS[key]).map(|offset| *offset = number)),
            Step::HighWatermark(key) => world.told(KEYS[key].0, KEYS[key].1).high_watermark = moved,
            Step::LastStable(key) => world.told(KEYS[key].0, KEYS[key].1).last_stable_offset = moved,
            Step::LogStart(key) => world.told(KEYS[key].0, KEYS[key].1).log_start_offset = moved,
            Step::Records(key, true) => drop(world.records.insert(KEYS[key], 10)),
            Step::Records(key, false) => drop(world.records.remove(&KEYS[key])),
            Step::Error(key, failed) => {
                let error = if failed { ErrorCode::NotLeaderOrFollower } else { ErrorCode::None };
                world.told(KEYS[key].0, KEYS[key].1).error = error;
            }
            Step::Topics(exist) => {
                topics = exist;
                images += 1;
                let all = [("a", 1), ("b", 2), ("c", 3)];
                let here: Vec<_> =
                    all.iter().zip(exist).filter(|(_, exists)| *exists).map(|(topic, _)| *topic).collect();
                world.image = image(images, &here);
            }
            Step::Fetch | Step::LostFetch => {
                let told: BTreeMap<Key, View> = KEYS.iter().map(|key| (*key, view(&mut world, *key))).collect();
                let exists =
                    |topic: &str| topics[["a", "b", "c"].iter().position(|name| *name == topic).expect("known")];
                let missing = (ErrorCode::UnknownTopicOrPartition, [None; 3]);
                let truth = |key: Key| if exists(key.0) { told[&key] } else { missing };
                client.fetch(&mut world, &truth, matches!(step, Step::Fetch))?;
            }
            Step::Reconnect => {
                if let Some((_, epoch)) = &mut client.session {
                    *epoch = 0;
                    client.sent.clear();
                    client.views.clear();
                }
            }
            Step::Evict => {
                if let Some((id, _)) = client.session {
                    world.sessions.close(id);
                }
            }
            Step::Close => {
                if let Some((id, _)) = client.session {
                    let closed = world.fetch(&client.request((id.0, -1))).expect("no error");
                    prop_assert_eq!(closed.session, None);
                    prop_assert!(!world.sessions.places.contains_key(&id));
                    client.forget_session();
                }
            }
        }
        prop_assert_eq!(world.sessions.sessions.len(), world.sessions.places.len());
        prop_assert_eq!(world.sessions.bytes, world.sessions.sessions.iter().map(Session::bytes).sum::<usize>());
    }
    Ok(())
}

fn view(world: &mut World, (topic, index): Key) -> View {
    let told = world.told(topic, index);
    (told.error, [told.high_watermark, told.last_stable_offset, told.log_start_offset])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_client_sees_what_full_fetches_would_tell(version in prop::sample::select(vec![7i16, 12, 13, 18]), steps in steps()) {
        play(version, steps)?;
    }
}
