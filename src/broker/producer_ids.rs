//! Producer ids, from blocks that the controller reserves durably.
//!
//! Ids are never handed out twice: a block is used only after its reservation is committed, and what is left of it when the
//! process ends is never used.

use std::cell::{Cell, RefCell};

use super::topics;
use crate::controller::ProducerIdBlock;
use crate::quorum::Quorum;
use crate::runtime::sync::{Receiver, Sender, oneshot};
use crate::types::{BrokerId, ErrorCode, ProducerId};

/// The ids that this shard may hand out, and those who wait for the next block.
#[derive(Default)]
pub(super) struct ProducerIds {
    block: Cell<Option<ProducerIdBlock>>,
    reserving: Cell<bool>,
    waiting: RefCell<Vec<Sender<()>>>,
}

impl ProducerIds {
    /// The next id.
    pub(super) async fn next(&self, quorum: &Quorum, broker: BrokerId) -> Result<ProducerId, ErrorCode> {
        loop {
            if let Some(id) = self.take() {
                return Ok(id);
            }
            if self.reserving.replace(true) {
                self.wait().await;
                continue;
            }
            let reserved = quorum.try_propose_with(|controller| controller.allocate_producer_ids(broker)).await;
            self.reserving.set(false);
            self.waiting.borrow_mut().drain(..).for_each(|waiting| waiting.send(()));
            let block = reserved.map_err(|error| topics::propose_error_code(&error))?.map_err(|error| error.code())?;
            self.block.set(Some(block));
        }
    }

    fn take(&self) -> Option<ProducerId> {
        let block = self.block.take()?;
        let id = block.first;
        let next = ProducerId::new(id.value().checked_add(1)?);
        let rest = next.filter(|_| block.count > 1);
        self.block.set(rest.map(|first| ProducerIdBlock { first, count: block.count - 1 }));
        Some(id)
    }

    fn wait(&self) -> Receiver<()> {
        let (sender, receiver) = oneshot();
        self.waiting.borrow_mut().push(sender);
        receiver
    }
}
