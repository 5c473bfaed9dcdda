//! Producer ids, handed to brokers in blocks.
//!
//! A block is reserved by a committed record before its first id is used, so no id is ever given out twice; what a broker has
//! not used when it stops is lost, which 2⁶³ ids can bear.
//!
//! Source: KIP-730.

use super::record::MetadataRecord;
use super::{Controller, Decision};
use crate::types::{BrokerId, ErrorCode, ProducerId};

/// Ids of a block. One metadata record each: 1 000 keeps them rare, and a crash wastes less than that.
pub const PRODUCER_ID_BLOCK: u32 = 1_000;

/// A block of producer ids: `first`, `first` + 1, ..., `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first id.
    pub first: ProducerId,
    /// How many ids there are.
    pub count: u32,
}

/// Why no producer ids are to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateProducerIdsError {
    /// The broker is not registered (yet); retry.
    #[error("broker {broker} is not registered")]
    NotRegistered {
        /// The broker that asked.
        broker: BrokerId,
    },
    /// All 2⁶³ ids were handed out.
    #[error("all producer ids were handed out")]
    Exhausted,
}

impl AllocateProducerIdsError {
    /// What a client that waits for an id is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            AllocateProducerIdsError::NotRegistered { .. } => ErrorCode::CoordinatorNotAvailable,
            AllocateProducerIdsError::Exhausted => ErrorCode::UnknownServerError,
        }
    }
}

impl Controller {
    /// Reserves the next [`PRODUCER_ID_BLOCK`] ids for a broker.
    pub fn allocate_producer_ids(
        &self,
        broker: BrokerId,
    ) -> Result<Decision<ProducerIdBlock>, AllocateProducerIdsError> {
        if self.image().broker(broker).is_none() {
            return Err(AllocateProducerIdsError::NotRegistered { broker });
        }
        let first = self.image().next_producer_id().map_or(0, ProducerId::value);
        let next = first.checked_add(i64::from(PRODUCER_ID_BLOCK)).and_then(ProducerId::new);
        let (Some(first), Some(next)) = (ProducerId::new(first), next) else {
            return Err(AllocateProducerIdsError::Exhausted);
        };
        Ok(Decision {
            records: vec![MetadataRecord::ProducerIdsReserved { next, broker: Some(broker) }],
            response: ProducerIdBlock { first, count: PRODUCER_ID_BLOCK },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::tests::{broker, commit, controller_of};
    use crate::types::Offset;

    #[test]
    fn blocks_follow_each_other() {
        let mut controller = controller_of(1);
        for block in 0..3 {
            let decision = controller.allocate_producer_ids(broker(1)).expect("registered");
            let given = commit(&mut controller, decision);
            assert_eq!((given.first.value(), given.count), (block * 1_000, 1_000));
        }
    }

    #[test]
    fn unknown_brokers_get_none() {
        let error = controller_of(1).allocate_producer_ids(broker(7));
        assert_eq!(error, Err(AllocateProducerIdsError::NotRegistered { broker: broker(7) }));
    }

    #[test]
    fn ids_end_instead_of_wrapping() {
        let mut controller = controller_of(1);
        let next = ProducerId::new(i64::MAX - 999).expect("not negative");
        let last = MetadataRecord::ProducerIdsReserved { next, broker: None };
        controller.replay(Offset::ZERO.plus(10), &last).expect("fits");
        assert_eq!(controller.allocate_producer_ids(broker(1)), Err(AllocateProducerIdsError::Exhausted));
    }
}
