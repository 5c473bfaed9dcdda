//! What a client may do, in the bit fields of answers that are asked for it: bit n stands for Kafka's operation number n.
//!
//! There are no access rules, so every client may do whatever can be done to a resource; Kafka without an authorizer says
//! the same. A client that does not ask is told [`OPERATIONS_NOT_ASKED`](crate::wire::control::OPERATIONS_NOT_ASKED).
//!
//! Source: KIP-430; `AclOperation` (numbers) and `AclEntry.supportedOperations` (which a resource has) of Kafka 4.2.

const READ: u8 = 3;
const WRITE: u8 = 4;
const CREATE: u8 = 5;
const DELETE: u8 = 6;
const ALTER: u8 = 7;
const DESCRIBE: u8 = 8;
const CLUSTER_ACTION: u8 = 9;
const DESCRIBE_CONFIGS: u8 = 10;
const ALTER_CONFIGS: u8 = 11;
const IDEMPOTENT_WRITE: u8 = 12;

/// Whatever can be done to a topic.
pub(super) const TOPIC: i32 = bits(&[READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS]);

/// Whatever can be done to the cluster.
pub(super) const CLUSTER: i32 =
    bits(&[CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE]);

const fn bits(operations: &[u8]) -> i32 {
    let (mut bits, mut index) = (0, 0);
    while index < operations.len() {
        bits |= 1 << operations[index];
        index += 1;
    }
    bits
}
