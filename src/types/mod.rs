//! The vocabulary of the broker: offsets, epochs, identifiers, Kafka error codes and limits.
//!
//! Everything here is a plain value: no I/O, no clock, no allocation beyond names. Every other module may name this one
//! and this one names none. Nothing inside the program uses −1 for "absent": the wire codec maps it to `Option`.

mod error_code;
mod ids;
pub mod limits;
mod offset;
mod pieces;

pub use error_code::ErrorCode;
pub use ids::{
    BrokerEpoch, BrokerId, ClusterId, Incarnation, ParseIdError, PartitionEpoch, PartitionId, ProducerEpoch,
    ProducerId, Sequence, ShardId, TopicId, TopicName, TopicNameError, TopicPartition,
};
pub use offset::{LeaderEpoch, Offset, Timestamp};
pub use pieces::{Piece, Pieces};
