//! Mail between the shards of a simulated process: every parcel arrives by an event of its own.
//!
//! Parcels of one pair of shards arrive in the order in which they were sent; between pairs the seed chooses: most take
//! microseconds, a few a millisecond, as behind a shard that computes. What is on its way when the process ends is dropped.
//!
//! What this file does not do: lanes, slots and credits are the facade's own, the same as in the real world.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::World;
use super::clock::Action;
use super::executor::Entered;
use super::node::Shard;
use super::random::{PerMillion, Random};
use super::trace::Kind;
use crate::runtime::mailbox::Collect;
use crate::types::ShardId;

/// Longest time on the way to a shard that waits, in nanoseconds.
const DELAY_NANOS_MAX: u64 = 20_000;
/// Chance of a parcel to arrive while the shard computes.
const BUSY: PerMillion = PerMillion(20_000);
/// Longest time that a shard computes without a look into its lanes.
const BUSY_NANOS_MAX: u64 = 2_000_000;

/// Names who is told of what arrives at one place of a mesh.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::runtime) struct BellId(u64);

struct Hearer {
    shard: Rc<Shard>,
    listener: Weak<dyn Collect>,
}

/// Who hears which bell, in all processes of a simulation.
pub(super) struct Mail {
    hearers: BTreeMap<BellId, Hearer>,
    last_bell: u64,
    random: Random,
}

impl Mail {
    pub(super) fn new(random: Random) -> Mail {
        Mail { hearers: BTreeMap::new(), last_bell: 0, random }
    }

    fn delay(&mut self) -> u64 {
        let longest = if self.random.happens(BUSY) { BUSY_NANOS_MAX } else { DELAY_NANOS_MAX };
        self.random.within(500..=longest)
    }
}

impl World {
    fn ring_bell(&self, bell: BellId) {
        let mail = self.mail.borrow();
        let heard = mail.hearers.get(&bell).map(|hearer| (hearer.shard.clone(), hearer.listener.upgrade()));
        drop(mail);
        if let Some((shard, Some(listener))) = heard {
            let _entered = Entered::new(&shard);
            listener.collect();
        }
    }
}

/// How one shard's parcels get to the others.
pub(in crate::runtime) struct Carrier {
    shard: Rc<Shard>,
    /// When the last parcel to each shard arrives, so that none overtakes it.
    arrives_at: RefCell<Vec<u64>>,
}

impl Carrier {
    pub(in crate::runtime) fn new(shard: Rc<Shard>, shards: u16) -> Carrier {
        Carrier { shard, arrives_at: RefCell::new(vec![0; usize::from(shards)]) }
    }

    /// Lets `listener` look into its lanes whenever something has arrived there.
    pub(in crate::runtime) fn listen_to_bell(&self, listener: Weak<dyn Collect>) -> BellId {
        let world = self.shard.world();
        let mut mail = world.mail.borrow_mut();
        mail.hearers.retain(|_, hearer| hearer.listener.strong_count() > 0);
        mail.last_bell += 1;
        let bell = BellId(mail.last_bell);
        mail.hearers.insert(bell, Hearer { shard: self.shard.clone(), listener });
        bell
    }

    /// Calls `deliver` when a parcel to the shard `to` arrives, and rings the bell that it returns.
    pub(in crate::runtime) fn carry(&self, to: ShardId, deliver: impl FnOnce() -> Option<BellId> + 'static) {
        let process = self.shard.process.clone();
        let Some(world) = self.shard.try_world().filter(|_| process.is_alive()) else { return };
        let now = world.clock.now();
        let delay = world.mail.borrow_mut().delay();
        let arrives_at = &mut self.arrives_at.borrow_mut()[usize::from(to.0)];
        // Of two events at one time the one that was scheduled first happens first.
        *arrives_at = (now + delay).max(*arrives_at);
        let route = u64::from(self.shard.number.0) << 16 | u64::from(to.0);
        let arrive = move |world: &Rc<World>| {
            if !process.is_alive() {
                return;
            }
            world.record(Kind::Mail, process.node, route, 0);
            world.count(|counters| counters.mail += 1);
            if let Some(bell) = deliver() {
                world.ring_bell(bell);
            }
        };
        world.clock.schedule(*arrives_at - now, Action::Run(Box::new(arrive)));
    }
}
