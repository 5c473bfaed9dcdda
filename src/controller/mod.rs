//! The controller: what the cluster consists of, and the decisions that change it.
//!
//! **Pure.** A handler looks at the image and a request, and returns a [`Decision`]: the records that carry it out and the
//! answer to give once they are committed. It changes nothing. [`Controller::replay`] is the only writer: the caller proposes
//! the records, waits until they are committed, replays them, then answers, and only then runs the next handler, so that every
//! handler sees what the ones before it decided. Loading the log at start is replay as well. Random ids come in with requests.
//!
//! It does not store the log, serve metadata, or touch a partition's files: others act on the images it makes.
//!
//! Source: KIP-631 (the metadata log), KIP-516 (topic ids).

#![warn(clippy::disallowed_types)]

mod brokers;
mod configs;
mod image;
mod partitions;
mod placement;
mod producer_ids;
mod record;
mod shared_map;
mod topics;

use std::sync::Arc;

pub use brokers::RegisterBroker;
pub use configs::{
    AlterConfigError, AlterConfigs, AlterResource, Alteration, ConfigOperation, KeyChange, NamedResource,
};
pub use image::{ClusterImage, ConfigOverrides, DeletedTopic, ReplayError, Topic};
pub use partitions::{CreatePartitions, CreatePartitionsError, GrowTopic, GrownTopic};
pub use placement::AssignmentError;
pub use producer_ids::{AllocateProducerIdsError, PRODUCER_ID_BLOCK, ProducerIdBlock};
pub use record::{BrokerRegistration, ConfigResource, DecodeError, Listener, MetadataRecord, Partition};
pub use topics::{
    ConfigCheck, CreateTopic, CreateTopicError, CreateTopics, CreatedTopic, DeleteTopic, DeleteTopicError,
    DeletedTopicResult, ManualAssignment, TopicRules,
};

use crate::types::Offset;

/// What a handler decided.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a decision takes effect when its records are committed and replayed"]
pub struct Decision<R> {
    /// The records to commit, in order. If there are none the answer can go out at once.
    pub records: Vec<MetadataRecord>,
    /// The answer, true once the records are committed.
    pub response: R,
}

/// The cluster's state machine.
#[derive(Clone, Debug, Default)]
pub struct Controller {
    image: Arc<ClusterImage>,
}

impl Controller {
    /// The controller of an empty cluster.
    pub fn new() -> Controller {
        Controller::default()
    }

    /// The controller that continues from `image`.
    pub fn from_image(image: ClusterImage) -> Controller {
        Controller { image: Arc::new(image) }
    }

    /// The cluster as it is now. A clone of this stays as it is.
    pub fn image(&self) -> &Arc<ClusterImage> {
        &self.image
    }

    /// Takes in a committed record, which stands at `offset` of the metadata log. An error says that the log does not belong to
    /// this image, and leaves the image unchanged; there is no way on from it.
    pub fn replay(&mut self, offset: Offset, record: &MetadataRecord) -> Result<(), ReplayError> {
        Arc::make_mut(&mut self.image).apply(offset, record)
    }
}

#[cfg(test)]
mod tests;
