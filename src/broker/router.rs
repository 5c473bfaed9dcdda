//! From a frame to its answer: the header is read, the API's handler runs, its answer is encoded.
//!
//! What is not a well-formed request of the advertised table is an error that ends the connection; what is well formed and
//! cannot be done is an error code in the answer. Rule 1 of ApiVersions is the one exception.

use std::rc::Rc;

use thiserror::Error;

use super::connection::Connection;
use super::responses::Response;
use super::shard::{FIRST, Shard};
use super::{
    alter_configs, create_partitions, create_topics, delete_records, delete_topics, describe_cluster, describe_configs,
    describe_log_dirs, describe_producers, describe_topic_partitions, fetch, incremental_alter_configs,
    init_producer_id, list_offsets, metadata, offset_for_leader_epoch, produce,
};
use crate::metrics::Limit;
use crate::runtime::Slice;
use crate::types::Pieces;
use crate::wire::control::EncodeError;
use crate::wire::{
    self, ApiKey, DecodeError, Expected, HeaderError, Request, RequestHeader, api_versions, decode_request_within,
    encode_response, parse_header,
};

/// Why a request ends its connection.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Body(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("produce with acks=0 failed, and there is no answer to say so: {0}")]
    Unacknowledged(String),
}

impl RequestError {
    /// The limit that was met, if it was one.
    pub(super) fn limit(&self) -> Option<Limit> {
        match self {
            RequestError::Body(error) if error.expected == Expected::FewerElements => Some(Limit::RequestElements),
            _ => None,
        }
    }
}

/// Whether this request may start while earlier answers of its connection still wait for the disk.
pub(super) fn overlaps(frame: &[u8]) -> bool {
    matches!(parse_header(frame), Ok(header) if header.api.key() == ApiKey::Produce)
}

/// Runs the request in `frame`; `None` if it gets no answer.
pub(super) async fn answer(
    shard: &Rc<Shard>,
    connection: &Connection,
    frame: Slice,
) -> Result<Option<Response>, RequestError> {
    let header = match parse_header(&frame) {
        Err(HeaderError::UnknownApiVersions { correlation, .. }) => {
            return Ok(Some(ready(api_versions::unsupported(correlation)?)));
        }
        header => header?,
    };
    match header.api.key() {
        ApiKey::Produce => produce::answer(shard, connection, &header, &frame).await,
        ApiKey::Fetch => Ok(Some(fetch::answer(shard, connection, &header, &frame).await?)),
        // Boxed: no connection holds room for what the rarest of its requests would need.
        _ => Ok(Some(Box::pin(control(shard, connection, &header, frame.clone())).await?)),
    }
}

/// Runs a request of the control plane.
async fn control(
    shard: &Rc<Shard>,
    connection: &Connection,
    header: &RequestHeader<'_>,
    frame: Slice,
) -> Result<Response, RequestError> {
    let version = header.api.version();
    let body = frame.into_bytes().slice(header.body_offset..);
    let response: wire::Response = match decode_request_within(shard.config().request_elements_max, header.api, body)? {
        Request::ApiVersions(_) => api_versions::response(version).into(),
        Request::Metadata(request) => metadata::answer(shard, connection.listener(), version, request).await.into(),
        Request::CreateTopics(request) => {
            shard.call(FIRST, move |first| async move { create_topics::answer(&first, request).await }).await.into()
        }
        Request::DeleteTopics(request) => shard
            .call(FIRST, move |first| async move { delete_topics::answer(&first, version, request).await })
            .await
            .into(),
        Request::ListOffsets(request) => list_offsets::answer(shard, version, request).await.into(),
        Request::DeleteRecords(request) => delete_records::answer(shard, request).await.into(),
        Request::InitProducerId(request) => {
            shard.call(FIRST, move |first| async move { init_producer_id::answer(&first, request).await }).await.into()
        }
        Request::OffsetForLeaderEpoch(request) => offset_for_leader_epoch::answer(shard, request).await.into(),
        Request::DescribeLogDirs(request) => describe_log_dirs::answer(shard, request).await.into(),
        Request::CreatePartitions(request) => {
            shard.call(FIRST, move |first| async move { create_partitions::answer(&first, request).await }).await.into()
        }
        Request::DescribeCluster(request) => describe_cluster::answer(shard, connection.listener(), &request).into(),
        Request::DescribeProducers(request) => describe_producers::answer(shard, request).await.into(),
        Request::DescribeTopicPartitions(request) => {
            let partitions_max = shard.config().page_partitions_max;
            describe_topic_partitions::answer(&shard.image(), partitions_max, &request).into()
        }
        Request::DescribeConfigs(request) => describe_configs::answer(shard, request).await.into(),
        Request::AlterConfigs(request) => {
            shard.call(FIRST, move |first| async move { alter_configs::answer(&first, request).await }).await.into()
        }
        Request::IncrementalAlterConfigs(request) => shard
            .call(FIRST, move |first| async move { incremental_alter_configs::answer(&first, request).await })
            .await
            .into(),
    };
    Ok(ready(encode_response(header.api, header.correlation, response)?))
}

fn ready(frame: bytes::Bytes) -> Response {
    let mut pieces: Pieces<Slice> = Pieces::new();
    pieces.push_encoded(frame);
    Response::ready(pieces)
}
