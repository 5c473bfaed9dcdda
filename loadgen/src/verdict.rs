//! What an answer to a Produce request says about its batch: acknowledged, refused, unknown, or to be sent again.
//!
//! A refusal is definite only if its code says that nothing was appended; every code that is not known to say so is unknown.
//! Only an idempotent batch is ever sent again: the broker recognizes it. It decides and does nothing.
//!
//! Source: `org.apache.kafka.common.protocol.Errors`; KIP-98 for the sequence errors.

use corelane::types::Offset;
use corelane::wire::client::messages::ProduceResponse;

use crate::client::ClientError;
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

/// What an answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing more will be known.
    Settled(Outcome),
    /// To be sent again. `Refused` or `Unknown`, whichever it is if it is not.
    Again(Outcome),
}

impl Verdict {
    /// What the batch counts as if it is not sent again.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Verdict::Settled(outcome) | Verdict::Again(outcome) => outcome,
        }
    }
}

/// Judges the answer to a request with one batch.
pub(super) fn judge(answer: &Result<ProduceResponse, ClientError>, idempotent: bool) -> Verdict {
    let again = |outcome| if idempotent { Verdict::Again(outcome) } else { Verdict::Settled(outcome) };
    let partition = answer.as_ref().ok().and_then(|response| response.responses.first()?.partition_responses.first());
    let Some(partition) = partition else { return again(Outcome::Unknown) };
    match partition.error_code {
        0 => Verdict::Settled(Outcome::Acked(Offset::new(partition.base_offset))),
        DUPLICATE_SEQUENCE_NUMBER if idempotent => Verdict::Settled(Outcome::Acked(None)),
        code if REFUSED_FOR_GOOD.contains(&code) => Verdict::Settled(Outcome::Refused(code)),
        code if REFUSED_FOR_NOW.contains(&code) => again(Outcome::Refused(code)),
        _ => again(Outcome::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use corelane::wire::client::messages::{PartitionProduceResponse, TopicProduceResponse};

    use super::*;

    fn answer(error_code: i16, base_offset: i64) -> Result<ProduceResponse, ClientError> {
        let mut partition = PartitionProduceResponse::default();
        (partition.error_code, partition.base_offset) = (error_code, base_offset);
        let mut topic = TopicProduceResponse::default();
        topic.partition_responses = vec![partition];
        let mut response = ProduceResponse::default();
        response.responses = vec![topic];
        Ok(response)
    }

    #[test]
    fn acknowledgements_carry_their_offset() {
        for idempotent in [false, true] {
            let acked = Verdict::Settled(Outcome::Acked(Offset::new(7)));
            assert_eq!(judge(&answer(0, 7), idempotent), acked);
        }
        assert_eq!(judge(&answer(46, -1), true), Verdict::Settled(Outcome::Acked(None)));
    }

    #[test]
    fn only_what_certainly_was_not_appended_is_refused() {
        assert_eq!(judge(&answer(10, -1), true), Verdict::Settled(Outcome::Refused(10)));
        assert_eq!(judge(&answer(6, -1), false), Verdict::Settled(Outcome::Refused(6)));
        // A time-out, a failed disk, too few replicas after the append, a code from the future, no answer for the batch.
        for code in [-1, 7, 20, 56, 999] {
            assert_eq!(judge(&answer(code, -1), false), Verdict::Settled(Outcome::Unknown), "code {code}");
        }
        assert_eq!(judge(&Ok(ProduceResponse::default()), false), Verdict::Settled(Outcome::Unknown));
    }

    #[test]
    fn only_idempotent_batches_are_sent_again() {
        assert_eq!(judge(&answer(56, -1), true), Verdict::Again(Outcome::Unknown));
        assert_eq!(judge(&answer(45, -1), true), Verdict::Again(Outcome::Refused(45)));
        let closed = || Err(ClientError::Closed((core::net::Ipv4Addr::LOCALHOST, 1).into()));
        assert_eq!(judge(&closed(), true), Verdict::Again(Outcome::Unknown));
        assert_eq!(judge(&closed(), false), Verdict::Settled(Outcome::Unknown));
    }
}
