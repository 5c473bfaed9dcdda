//! The other side of the wire: framed requests and decoded responses, for the load generator, the tests and the simulator.
//!
//! Here messages are those of the `kafka-protocol` crate, all of its APIs, Produce and Fetch included. Encoding copies records
//! once; decoding a response from `Bytes` shares them. What a broker answers is trusted: the bounds check guards brokers
//! from clients, not clients from brokers. Who makes load uses [`produce`] and [`fetch`], which copy and allocate next to
//! nothing. No connection is made here.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Request};
use thiserror::Error;

pub mod fetch;
pub mod produce;

use super::control::{EncodeError, EncodeReason, codec_version};
use super::cursor::{Cursor, DecodeError, Expected, Malformed};
use super::frame::{CorrelationId, LENGTH_BYTES};
use super::table::{Api, ApiKey};

/// The message types that only clients need.
pub mod messages {
    pub use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
    pub use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    pub use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    pub use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
    pub use kafka_protocol::messages::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
}

/// A response that a client cannot take.
#[derive(Debug, Error)]
pub enum ResponseError {
    /// It is not what its API and version say.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It answers another request.
    #[error("a response to request {found}, while {expected} is waited for")]
    Correlation {
        /// The request that is waited for.
        expected: CorrelationId,
        /// The request that is answered.
        found: CorrelationId,
    },
}

/// Encodes a whole request frame, its length field included.
pub fn encode_request<R: Request>(
    api: Api,
    correlation: CorrelationId,
    client_id: Option<&str>,
    body: &R,
) -> Result<Bytes, EncodeError> {
    encode(api, correlation, client_id, body).map_err(|reason| EncodeError { api, reason })
}

fn encode<R: Request>(
    api: Api,
    correlation: CorrelationId,
    client_id: Option<&str>,
    body: &R,
) -> Result<Bytes, EncodeReason> {
    if R::KEY != api.key().code() {
        let other = super::table::TABLE.iter().map(|row| row.key).find(|key| key.code() == R::KEY);
        return Err(other.map_or(EncodeReason::Codec(format!("API key {}", R::KEY)), EncodeReason::OtherApi));
    }
    let version = codec_version(api);
    let client_id = client_id.map(str::as_bytes);
    let id_length = i16::try_from(client_id.map_or(0, <[u8]>::len))
        .map_err(|_| EncodeReason::Long(client_id.map_or(0, <[u8]>::len)))?;
    let flexible = api.request_header_version() >= 2;
    let header = 2 + 2 + 4 + 2 + client_id.map_or(0, <[u8]>::len) + usize::from(flexible);
    let length = header + body.compute_size(version).map_err(EncodeReason::codec)?;
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + length);
    frame.put_i32(i32::try_from(length).map_err(|_| EncodeReason::Long(length))?);
    frame.put_i16(api.key().code());
    frame.put_i16(api.version());
    frame.put_i32(correlation.0);
    frame.put_i16(if client_id.is_some() { id_length } else { -1 });
    frame.put_slice(client_id.unwrap_or_default());
    if flexible {
        frame.put_u8(0);
    }
    body.encode(&mut frame, version).map_err(EncodeReason::codec)?;
    Ok(frame.freeze())
}

/// The correlation id of a response, from its frame without the length field; `None` if the frame is too short.
pub fn response_correlation(frame: &[u8]) -> Option<CorrelationId> {
    frame.first_chunk().map(|bytes| CorrelationId(i32::from_be_bytes(*bytes)))
}

/// Decodes a response from its frame, the length field not included. `R` is the response of `api`.
pub fn decode_response<R: Decodable>(api: Api, expected: CorrelationId, mut frame: Bytes) -> Result<R, ResponseError> {
    let length = frame.len();
    let malformed = |left: usize, expected| DecodeError { api, position: length - left, expected };
    let found = response_correlation(&frame).ok_or(malformed(length, Expected::Bytes(4)))?;
    if found != expected {
        return Err(ResponseError::Correlation { expected, found });
    }
    frame.advance(4);
    if api.response_header_version() >= 1 {
        skip_tagged_fields(api, &mut frame).map_err(|expected| malformed(frame.len(), expected))?;
    }
    let version = match api.key() {
        // A broker that does not know the version of the request answers in version 0.
        ApiKey::ApiVersions if frame.starts_with(&crate::types::ErrorCode::UnsupportedVersion.code().to_be_bytes()) => {
            0
        }
        _ => codec_version(api),
    };
    R::decode(&mut frame, version).map_err(|_| malformed(frame.len(), Expected::Decodable).into())
}

/// Reads what stands before the body of a response that is read in place.
fn read_response_header(api: Api, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    cursor.i32()?;
    if api.response_header_version() >= 1 {
        cursor.skip_tagged_fields()?;
    }
    Ok(())
}

fn skip_tagged_fields(api: Api, frame: &mut Bytes) -> Result<(), Expected> {
    let mut cursor = Cursor::new(frame, api);
    cursor.skip_tagged_fields().map_err(|malformed| malformed.expected)?;
    let header = cursor.position();
    frame.advance(header);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{ApiVersionsResponse, MetadataRequest};
    use crate::wire::{api_versions, parse_header};

    fn api(key: ApiKey, version: i16) -> Api {
        Api::new(key, version).expect("in the table")
    }

    #[test]
    fn golden_bytes_of_a_request() {
        let frame = encode_request(api(ApiKey::Metadata, 9), CorrelationId(7), Some("me"), &MetadataRequest::default());
        let expected = [0, 0, 0, 18, 0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'm', b'e', 0, 1, 1, 0, 0, 0];
        assert_eq!(frame.expect("encodes")[..], expected);
    }

    #[test]
    fn a_body_of_another_api_is_refused() {
        let refused = encode_request(api(ApiKey::Fetch, 4), CorrelationId(7), None, &MetadataRequest::default());
        assert_eq!(refused.expect_err("refused").to_string(), "cannot encode for Fetch v4: this is a body of Metadata");
    }

    #[test]
    fn requests_are_read_back_by_the_header_parser() {
        for api in Api::all().filter(|api| api.key() == ApiKey::Metadata) {
            let frame = encode_request(api, CorrelationId(-3), None, &MetadataRequest::default()).expect("encodes");
            let header = parse_header(&frame[LENGTH_BYTES..]).expect("parses");
            assert_eq!((header.api, header.correlation, header.client_id), (api, CorrelationId(-3), None));
        }
    }

    #[test]
    fn rule_1_as_a_client_sees_it() {
        let frame = api_versions::unsupported(CorrelationId(1)).expect("encodes").slice(LENGTH_BYTES..);
        let body: ApiVersionsResponse =
            decode_response(api(ApiKey::ApiVersions, 4), CorrelationId(1), frame.clone()).expect("decodes");
        assert_eq!((body.error_code, body.api_keys.len()), (35, crate::wire::table::TABLE.len()));
        let other = decode_response::<ApiVersionsResponse>(api(ApiKey::ApiVersions, 4), CorrelationId(2), frame);
        assert!(matches!(other, Err(ResponseError::Correlation { .. })));
    }
}
