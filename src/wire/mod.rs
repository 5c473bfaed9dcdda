//! Kafka requests and responses: from the bytes of a frame to values, and back.
//!
//! | module | what it does |
//! |---|---|
//! | [`table`] | which APIs and versions are spoken: one row each |
//! | [`frame`] | the request header; the length and header in front of a response |
//! | `schema`, `bounds` | proof that every length of a control-plane request fits into its frame, before anything is allocated |
//! | [`control`] | the control plane: [`messages`] decoded and encoded by the `kafka-protocol` crate |
//! | [`api_versions`] | the table as an answer |
//! | [`produce`], [`fetch`] | the hot path, by hand: requests read in place, records sent from the log's own buffers |
//! | [`client`] | the other side: framed requests, decoded responses |
//! | [`generated`] | flatbuffers code, generated from `schema/` |
//!
//! Invariant: no input panics, recurses without bound or allocates more than a small multiple of its own length. What is
//! not done here: record batches (`record`), sending (`broker`), and any decision about what to answer.
//!
//! Source: Kafka's protocol guide and the message schemas `clients/src/main/resources/common/message/*.json`.

pub mod api_versions;
mod bounds;
pub mod client;
pub mod control;
mod cursor;
pub mod fetch;
pub mod frame;
pub mod generated;
pub mod messages;
pub mod produce;
mod schema;
pub mod table;
mod topic;
mod writer;

pub use control::{Request, Response, decode_request, decode_request_within, encode_response};
pub use cursor::{DecodeError, ELEMENTS_MAX, Expected, List};
pub use frame::{CorrelationId, HeaderError, RequestHeader, parse_header};
pub use table::{Api, ApiKey, UnsupportedApi};
pub use topic::{CurrentLeader, NodeEndpoint, TopicKey};
