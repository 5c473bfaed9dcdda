//! What an answer to a Produce request says about a batch: acknowledged, refused or unknown.
//!
//! A refusal is definite only if its code says that nothing was appended; every code that is not known to say so is unknown.
//! Whether a batch is sent again is its sender's business. It decides and does nothing.
//!
//! Source: `org.apache.kafka.common.protocol.Errors`; KIP-98 for the sequence errors.

use corelane::types::Offset;

use crate::journal::Outcome;

/// The batch is in the log already, and too old for its offset to be known.
const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
/// Nothing was appended, and the same batch may be taken later: CORRUPT_MESSAGE, UNKNOWN_TOPIC_OR_PARTITION,
/// LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, NOT_ENOUGH_REPLICAS, OUT_OF_ORDER_SEQUENCE_NUMBER,
/// THROTTLING_QUOTA_EXCEEDED.
const REFUSED_FOR_NOW: [i16; 7] = [2, 3, 5, 6, 19, 45, 89];
/// Nothing was appended, and never will be: RECORD_TOO_LARGE, INVALID_TOPIC, RECORD_LIST_TOO_LARGE, INVALID_REQUIRED_ACKS,
/// the authorization failures, INVALID_TIMESTAMP, UNSUPPORTED_VERSION, POLICY_VIOLATION, UNSUPPORTED_FOR_MESSAGE_FORMAT,
/// INVALID_REQUEST, INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE, UNKNOWN_PRODUCER_ID, UNSUPPORTED_COMPRESSION_TYPE,
/// INVALID_RECORD, UNKNOWN_TOPIC_ID.
const REFUSED_FOR_GOOD: [i16; 17] = [10, 17, 18, 21, 29, 31, 32, 35, 42, 43, 44, 47, 48, 59, 76, 87, 100];

/// Somebody else leads the partition, or nobody does yet: UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE,
/// NOT_LEADER_OR_FOLLOWER.
const LEADERSHIP: [i16; 3] = [3, 5, 6];

/// What an answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The batch is in the log, with this offset if the broker still knows it.
    Acked(Option<Offset>),
    /// Nothing was appended, and the same batch may be taken later.
    RefusedForNow(i16),
    /// Nothing was appended, and never will be.
    RefusedForGood(i16),
    /// It may be in the log or not.
    Unknown,
}

impl Verdict {
    /// What the batch counts as if it is not sent again.
    pub fn outcome(self) -> Outcome {
        match self {
            Verdict::Acked(offset) => Outcome::Acked(offset),
            Verdict::RefusedForNow(code) | Verdict::RefusedForGood(code) => Outcome::Refused(code),
            Verdict::Unknown => Outcome::Unknown,
        }
    }

    /// Whether another broker should be asked for the partition's leader.
    pub fn asks_for_leader(self) -> bool {
        matches!(self, Verdict::RefusedForNow(code) if LEADERSHIP.contains(&code))
    }
}

/// Judges what a broker answered for a batch: Kafka's error code and the offset.
pub fn judge(code: i16, base_offset: Option<Offset>) -> Verdict {
    match code {
        0 => Verdict::Acked(base_offset),
        DUPLICATE_SEQUENCE_NUMBER => Verdict::Acked(None),
        code if REFUSED_FOR_GOOD.contains(&code) => Verdict::RefusedForGood(code),
        code if REFUSED_FOR_NOW.contains(&code) => Verdict::RefusedForNow(code),
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_carry_their_offset() {
        assert_eq!(judge(0, Offset::new(7)), Verdict::Acked(Offset::new(7)));
        assert_eq!(judge(46, None), Verdict::Acked(None));
    }

    #[test]
    fn only_what_certainly_was_not_appended_is_refused() {
        assert_eq!(judge(10, None), Verdict::RefusedForGood(10));
        assert_eq!(judge(6, None), Verdict::RefusedForNow(6));
        // A time-out, a failed disk, too few replicas after the append, a code from the future.
        for code in [-1, 7, 20, 56, 999] {
            assert_eq!(judge(code, None), Verdict::Unknown, "code {code}");
        }
    }

    #[test]
    fn leadership_is_asked_for_only_where_it_was_denied() {
        assert!([3, 5, 6].iter().all(|code| judge(*code, None).asks_for_leader()));
        assert!([0, 7, 10, 19, 89].iter().all(|code| !judge(*code, None).asks_for_leader()));
    }
}
