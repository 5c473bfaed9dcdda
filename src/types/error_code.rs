//! Kafka's error codes, as answers carry them.
//!
//! Only codes that this broker answers are listed; what each means for the connection is decided where it is answered.
//! Source: `org.apache.kafka.common.protocol.Errors` (names and numbers).

use std::fmt;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $kafka:literal;)+) => {
        /// A Kafka error code. `None` is success.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(i16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $code,)+
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),+];

            /// The name that Kafka gives it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $kafka,)+
                }
            }
        }
    };
}

error_codes! {
    /// An error that no other code describes.
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR";
    /// Success.
    None = 0, "NONE";
    /// The offset lies outside the log.
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE";
    /// A record batch failed its checksum, or is not well formed.
    CorruptMessage = 2, "CORRUPT_MESSAGE";
    /// No such topic or partition, as far as this broker knows yet.
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION";
    /// The partition has no leader now.
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE";
    /// This broker does not lead the partition.
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER";
    /// The time of the request ran out; its effect is unknown.
    RequestTimedOut = 7, "REQUEST_TIMED_OUT";
    /// A batch exceeds `max.message.bytes`.
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE";
    /// The coordinator of the group or the transactional id is loading or absent.
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE";
    /// A topic's name is not allowed, or the topic is internal.
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION";
    /// A produce request exceeds the segment size.
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE";
    /// Fewer replicas are in sync than `min.insync.replicas`.
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS";
    /// Acks other than 0, 1 and −1.
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS";
    /// A timestamp lies too far from the broker's clock.
    InvalidTimestamp = 32, "INVALID_TIMESTAMP";
    /// The version of the request is not supported.
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION";
    /// A topic of that name exists.
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS";
    /// A number of partitions below 1, or not above today's.
    InvalidPartitions = 37, "INVALID_PARTITIONS";
    /// A replication factor below 1 or above the number of brokers.
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR";
    /// A replica assignment that does not fit.
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT";
    /// A configuration key or value is not valid.
    InvalidConfig = 40, "INVALID_CONFIG";
    /// This broker is not the controller.
    NotController = 41, "NOT_CONTROLLER";
    /// The request contradicts itself or asks for what cannot be.
    InvalidRequest = 42, "INVALID_REQUEST";
    /// Record batches of a format before version 2.
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT";
    /// A policy forbids it.
    PolicyViolation = 44, "POLICY_VIOLATION";
    /// A sequence number left a gap.
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER";
    /// A sequence number was seen before, too long ago to name its offset.
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER";
    /// A newer epoch of the producer id exists.
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH";
    /// The transaction is in a state that forbids it.
    InvalidTxnState = 48, "INVALID_TXN_STATE";
    /// The producer id does not belong to the transactional id.
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING";
    /// The disk failed, or is full.
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR";
    /// The broker has no state of this producer id.
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID";
    /// No such fetch session.
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND";
    /// A fetch session's epoch is not the expected one.
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH";
    /// The leader epoch of the request is older than the broker's.
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH";
    /// The leader epoch of the request is newer than the broker's.
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH";
    /// A codec that this version of the request does not know.
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE";
    /// A record is not valid.
    InvalidRecord = 87, "INVALID_RECORD";
    /// The broker has no room for this now; try again.
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED";
    /// No topic has this id.
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID";
    /// The topic of this name has another id.
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID";
    /// A fetch session was used with names and with ids.
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR";
    /// The request was meant for a controller.
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE";
    /// The request names a kind of endpoint that there is not.
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The code of this number, if it is one that this broker answers.
    pub fn from_code(code: i16) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|known| known.code() == code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(ErrorCode::from_code(code.code()), Some(*code), "{code} at {index}");
        }
    }
}
