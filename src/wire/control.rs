//! The control plane's requests and responses, decoded and encoded by the `kafka-protocol` crate.
//!
//! Every request passes [`super::bounds`] first: the crate trusts lengths. Strings of a decoded request share the frame's
//! bytes, so a request keeps its frame alive; handlers copy what they keep.
//!
//! The crate ends before the table does for ListOffsets: version 11 has the fields of version 10 (KIP-1023 only adds a
//! special timestamp), so 10 is what the codec is asked for. The crate refuses to encode a field that a version lacks
//! unless it is absent; a response is fitted to its version here, so that handlers always fill in everything they know.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use thiserror::Error;

use super::bounds;
use super::cursor::{DecodeError, ELEMENTS_MAX, Expected};
use super::frame::{CorrelationId, LENGTH_BYTES};
use super::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ApiVersionsRequest, ApiVersionsResponse, CreatePartitionsRequest,
    CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest,
    DescribeConfigsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest,
    DescribeProducersResponse, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, InitProducerIdRequest, InitProducerIdResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};
use super::table::{Api, ApiKey};

/// What an authorized-operations field says when nobody asked for it, in Kafka's encoding.
pub const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

macro_rules! control_plane {
    ($($(#[$doc:meta])* $name:ident($request:ident, $response:ident);)+) => {
        /// A request of the control plane.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Request {
            $($(#[$doc])* $name($request),)+
        }

        /// A response of the control plane.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Response {
            $($(#[$doc])* $name($response),)+
        }

        impl Request {
            /// The API that it belongs to.
            pub const fn key(&self) -> ApiKey {
                match self { $(Request::$name(_) => ApiKey::$name,)+ }
            }

            fn decode(key: ApiKey, version: i16, body: &mut Bytes) -> Option<Request> {
                match key {
                    $(ApiKey::$name => $request::decode(body, version).ok().map(Request::$name),)+
                    ApiKey::Produce | ApiKey::Fetch => None,
                }
            }
        }

        impl Response {
            /// The API that it belongs to.
            pub const fn key(&self) -> ApiKey {
                match self { $(Response::$name(_) => ApiKey::$name,)+ }
            }

            fn compute_size(&self, version: i16) -> Result<usize, EncodeReason> {
                match self { $(Response::$name(body) => body.compute_size(version).map_err(EncodeReason::codec),)+ }
            }

            fn encode(&self, frame: &mut BytesMut, version: i16) -> Result<(), EncodeReason> {
                match self { $(Response::$name(body) => body.encode(frame, version).map_err(EncodeReason::codec),)+ }
            }
        }

        $(
            impl From<$request> for Request {
                fn from(body: $request) -> Request { Request::$name(body) }
            }

            impl From<$response> for Response {
                fn from(body: $response) -> Response { Response::$name(body) }
            }
        )+
    };
}

control_plane! {
    /// Offsets by time.
    ListOffsets(ListOffsetsRequest, ListOffsetsResponse);
    /// Brokers, topics, partitions.
    Metadata(MetadataRequest, MetadataResponse);
    /// The advertised table.
    ApiVersions(ApiVersionsRequest, ApiVersionsResponse);
    /// New topics.
    CreateTopics(CreateTopicsRequest, CreateTopicsResponse);
    /// Topics to delete.
    DeleteTopics(DeleteTopicsRequest, DeleteTopicsResponse);
    /// Records to delete.
    DeleteRecords(DeleteRecordsRequest, DeleteRecordsResponse);
    /// A producer id.
    InitProducerId(InitProducerIdRequest, InitProducerIdResponse);
    /// Configuration keys with their values.
    DescribeConfigs(DescribeConfigsRequest, DescribeConfigsResponse);
    /// Configurations to replace.
    AlterConfigs(AlterConfigsRequest, AlterConfigsResponse);
    /// Configuration keys to change.
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse);
    /// The ends of leader epochs.
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse);
    /// The data directory and its logs.
    DescribeLogDirs(DescribeLogDirsRequest, DescribeLogDirsResponse);
    /// More partitions.
    CreatePartitions(CreatePartitionsRequest, CreatePartitionsResponse);
    /// The brokers.
    DescribeCluster(DescribeClusterRequest, DescribeClusterResponse);
    /// The idempotent producers of partitions.
    DescribeProducers(DescribeProducersRequest, DescribeProducersResponse);
    /// Topics and partitions, page by page.
    DescribeTopicPartitions(DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse);
}

/// A response that cannot be written in its version: a bug of the handler that made it.
#[derive(Debug, Error)]
#[error("cannot encode for {api}: {reason}")]
pub struct EncodeError {
    /// The API and version asked for.
    pub api: Api,
    /// What stood in the way.
    pub reason: EncodeReason,
}

/// What stood in the way of an encoding.
#[derive(Debug, Error)]
pub enum EncodeReason {
    /// The body belongs to another API.
    #[error("this is a body of {0}")]
    OtherApi(ApiKey),
    /// More than 2 GiB.
    #[error("{0} bytes do not fit into a frame")]
    Long(usize),
    /// The codec's own words.
    #[error("{0}")]
    Codec(String),
}

impl EncodeReason {
    /// The crate reports with a type of its own error library; its text is all that it holds.
    pub(super) fn codec(error: impl std::fmt::Display) -> EncodeReason {
        EncodeReason::Codec(error.to_string())
    }
}

/// The version that the codec is asked for: its own last one where the table goes further with the same fields.
pub(super) const fn codec_version(api: Api) -> i16 {
    match (api.key(), api.version()) {
        (ApiKey::ListOffsets, 11) => 10,
        (_, version) => version,
    }
}

/// Decodes the body of a control-plane request: what follows the header in its frame. Bytes after the request are
/// ignored, as Kafka does.
///
/// Panics for Produce and Fetch, which [`super::produce`] and [`super::fetch`] decode.
pub fn decode_request(api: Api, body: Bytes) -> Result<Request, DecodeError> {
    decode_request_within(ELEMENTS_MAX, api, body)
}

/// The same, with `elements_max` elements of arrays at most; no more than [`ELEMENTS_MAX`].
pub fn decode_request_within(elements_max: usize, api: Api, body: Bytes) -> Result<Request, DecodeError> {
    let length = bounds::check(elements_max, api, &body)?;
    let mut body = body.slice(..length);
    // The walk covered all that the codec can trip over; a codec that disagrees refuses the request all the same.
    Request::decode(api.key(), codec_version(api), &mut body).ok_or(DecodeError {
        api,
        position: length - body.len(),
        expected: Expected::Decodable,
    })
}

/// Encodes a whole response frame, its length field included.
pub fn encode_response(api: Api, correlation: CorrelationId, response: Response) -> Result<Bytes, EncodeError> {
    let failed = |reason| EncodeError { api, reason };
    if response.key() != api.key() {
        return Err(failed(EncodeReason::OtherApi(response.key())));
    }
    let version = codec_version(api);
    let response = response.fit(version);
    let header = 4 + usize::from(api.response_header_version() >= 1);
    let length = header + response.compute_size(version).map_err(failed)?;
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + length);
    frame.put_i32(i32::try_from(length).map_err(|_| failed(EncodeReason::Long(length)))?);
    frame.put_i32(correlation.0);
    if api.response_header_version() >= 1 {
        frame.put_u8(0);
    }
    response.encode(&mut frame, version).map_err(failed)?;
    debug_assert_eq!(frame.len(), LENGTH_BYTES + length);
    Ok(frame.freeze())
}

impl Response {
    /// Clears what the version has no field for.
    fn fit(mut self, version: i16) -> Response {
        match &mut self {
            Response::ListOffsets(body) if version < 4 => {
                for partition in body.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    partition.leader_epoch = -1;
                }
            }
            Response::Metadata(body) => {
                if !(8..=10).contains(&version) {
                    body.cluster_authorized_operations = OPERATIONS_NOT_ASKED;
                }
                if version < 8 {
                    for topic in &mut body.topics {
                        topic.topic_authorized_operations = OPERATIONS_NOT_ASKED;
                    }
                }
            }
            Response::DescribeCluster(body) if version < 2 => {
                body.brokers.iter_mut().for_each(|broker| broker.is_fenced = false);
            }
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests;
