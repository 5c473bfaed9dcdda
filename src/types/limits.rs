//! Limits that the disk format and the protocol fix. Each says its unit, why it has this value and what it costs.
//!
//! What a user may choose is not here but in `config`; relations between limits are asserted at compile time, at the end.
//! Source: open(2) on O_DIRECT; KIP-98; Kafka's `Topic.MAX_NAME_LENGTH`.

/// Bytes of the unit in which files are written and buffers are aligned: the page size, at least the logical block size of
/// every device that Linux supports for O_DIRECT.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes of a disk sector: the unit that a power cut leaves old or new, never a mixture.
pub const SECTOR_BYTES: usize = 512;

/// Zero bytes that follow every write, so that nothing stale can be taken for the next record batch. It exceeds the
/// 61-byte batch header, so a zeroed tail can never hold the length field of a plausible batch.
pub const ZERO_TAIL_BYTES: usize = 64;

/// Bytes of a topic's name at most (Kafka's `Topic.MAX_NAME_LENGTH`).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Batches per producer whose sequences are remembered (KIP-98: a client keeps at most five requests in flight).
pub const PRODUCER_BATCHES_MAX: usize = 5;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(ZERO_TAIL_BYTES > 61 && ZERO_TAIL_BYTES < SECTOR_BYTES);
