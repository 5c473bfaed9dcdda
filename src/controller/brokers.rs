//! Registration of brokers.
//!
//! A broker registers at every start of its process and gets an epoch above all earlier ones. Unless it stopped cleanly in the
//! epoch before, it may have lost the end of its logs, which consumers or followers have seen; so every partition that it leads
//! gets a new leader epoch, by which they find out where to cut (KIP-101, KIP-320).

use super::record::{BrokerRegistration, Listener, MetadataRecord, Partition};
use super::{Controller, Decision};
use crate::types::{BrokerEpoch, BrokerId, Incarnation, TopicId};

/// A broker that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBroker {
    /// The broker.
    pub broker: BrokerId,
    /// This start of its process.
    pub incarnation: Incarnation,
    /// Where clients reach it.
    pub listeners: Vec<Listener>,
    /// The epoch in which it last stopped with everything on disk; `None` if it never did, or crashed since.
    pub clean_shutdown: Option<BrokerEpoch>,
}

impl Controller {
    /// Registers a broker. Answers the epoch of the registration; the same start registered again keeps its epoch.
    pub fn register_broker(&self, request: &RegisterBroker) -> Decision<BrokerEpoch> {
        let &RegisterBroker { broker, incarnation, clean_shutdown, .. } = request;
        let current = self.image().broker(broker);
        if let Some(current) = current.filter(|c| c.incarnation == incarnation && c.listeners == request.listeners) {
            return Decision { records: Vec::new(), response: current.epoch };
        }
        // Offsets of the metadata log only grow, so the next one is an epoch above all that were given out.
        let epoch = BrokerEpoch::new(self.image().version().value()).expect("offsets are not negative");
        let mut records = Vec::new();
        if let Some(current) = current
            && current.incarnation != incarnation
            && clean_shutdown != Some(current.epoch)
        {
            records.extend(self.new_leaderships(broker));
        }
        let listeners = request.listeners.clone();
        let registration = BrokerRegistration { broker, incarnation, listeners, epoch };
        records.push(MetadataRecord::BrokerRegistered(registration));
        Decision { records, response: epoch }
    }

    /// A new leader epoch for each partition that `leader` leads.
    fn new_leaderships(&self, leader: BrokerId) -> impl Iterator<Item = MetadataRecord> {
        self.image().topics().flat_map(move |topic| {
            let led = topic.partitions.iter().filter(move |partition| partition.leader == Some(leader));
            led.map(|partition| new_leadership(topic.id, partition))
        })
    }
}

fn new_leadership(topic: TopicId, partition: &Partition) -> MetadataRecord {
    MetadataRecord::PartitionChanged {
        topic,
        partition: partition.index,
        isr: partition.isr.clone(),
        leader: partition.leader,
        leader_epoch: partition.leader_epoch.next(),
        partition_epoch: partition.partition_epoch.next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::tests::{broker, commit, create, partition_at};
    use crate::types::{Offset, PartitionId};

    fn start(incarnation: u128, clean_shutdown: Option<BrokerEpoch>) -> RegisterBroker {
        RegisterBroker {
            broker: broker(1),
            incarnation: Incarnation::from_random(incarnation),
            listeners: vec![Listener { name: "PLAINTEXT".into(), host: "localhost".into(), port: 9092 }],
            clean_shutdown,
        }
    }

    #[test]
    fn registering_one_start_twice_changes_nothing() {
        let mut controller = Controller::new();
        let first = controller.register_broker(&start(1, None));
        let epoch = commit(&mut controller, first);
        let again = controller.register_broker(&start(1, None));
        assert_eq!(again, Decision { records: vec![], response: epoch });
    }

    #[test]
    fn every_start_has_a_higher_epoch() {
        let mut controller = Controller::new();
        let mut last = None;
        for incarnation in 0..5 {
            let decision = controller.register_broker(&start(incarnation, last));
            let epoch = commit(&mut controller, decision);
            assert!(last < Some(epoch));
            last = Some(epoch);
        }
    }

    #[test]
    fn a_start_after_a_crash_begins_new_leaderships_and_one_after_a_clean_stop_does_not() {
        let mut controller = Controller::new();
        let decision = controller.register_broker(&start(1, None));
        let epoch = commit(&mut controller, decision);
        let topic = create(&mut controller, "t", 3);

        let decision = controller.register_broker(&start(2, Some(epoch)));
        assert_eq!(decision.records.len(), 1);
        let epoch_clean = commit(&mut controller, decision);
        assert_eq!(partition_at(&controller, topic, 0).leader_epoch.value(), 0);

        // The epoch of a clean stop before the last one says nothing of the last one.
        for (incarnation, stale) in [(3, None), (4, Some(epoch)), (5, Some(epoch_clean))] {
            let before = partition_at(&controller, topic, 2);
            let decision = controller.register_broker(&start(incarnation, stale));
            assert_eq!(decision.records.len(), 4);
            let _ = commit(&mut controller, decision);
            let after = partition_at(&controller, topic, 2);
            assert_eq!(after.index, PartitionId::new(2).expect("not negative"));
            assert_eq!(after.leader_epoch, before.leader_epoch.next());
            assert_eq!((after.leader, &after.isr), (before.leader, &before.isr));
        }
    }

    #[test]
    fn new_addresses_of_one_start_are_a_new_epoch_but_no_new_leadership() {
        let mut controller = Controller::new();
        let decision = controller.register_broker(&start(1, None));
        let epoch = commit(&mut controller, decision);
        let _ = create(&mut controller, "t", 3);
        let mut moved = start(1, None);
        moved.listeners[0].port = 9093;
        let decision = controller.register_broker(&moved);
        assert_eq!(decision.records.len(), 1);
        assert!(decision.response > epoch);
        assert_eq!(decision.response.value(), Offset::ZERO.plus(2).value());
    }
}
