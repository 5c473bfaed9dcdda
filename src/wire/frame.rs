//! What stands in front of a body: the header of a request, and the length and header of a response.
//!
//! ```text
//! request   length u32 | api key i16 | version i16 | correlation i32 | client id (classic nullable string) | tags (v2) | body
//! response  length u32 | correlation i32 | tags (v1) | body
//! ```
//! A frame's bytes here are what follows the length of a request: who receives it checks that length. The client id keeps
//! its classic encoding in every version, so that ApiVersions of a version from the future can still be answered.
//!
//! Source: Kafka's `RequestHeader.json` (versions 1 and 2; 0 belonged to an API that is gone), `ResponseHeader.json`, KIP-482.

use std::fmt;

use thiserror::Error;

use super::cursor::{Cursor, Expected, Malformed};
use super::table::{Api, ApiKey, UnsupportedApi};

/// Bytes of a frame's length field.
pub const LENGTH_BYTES: usize = 4;

/// The number by which a client recognizes the response; echoed, never looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CorrelationId(pub i32);

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The header of a request and where its body starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHeader<'a> {
    /// The API and version, one of the table.
    pub api: Api,
    /// To be echoed in the response.
    pub correlation: CorrelationId,
    /// How the client calls itself; clients may leave it out.
    pub client_id: Option<&'a str>,
    /// Bytes from the start of the frame to the body.
    pub body_offset: usize,
}

/// A frame whose header is not one of a request that this broker takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HeaderError {
    /// ApiVersions of an unknown version: answered by [`super::api_versions::unsupported`], and the connection goes on
    /// (rule 1). Neither the rest of the header nor the body is read.
    #[error("ApiVersions v{version} is not known")]
    UnknownApiVersions {
        /// The version asked for.
        version: i16,
        /// To be echoed.
        correlation: CorrelationId,
    },
    /// An unknown key, or an unknown version of another API: the connection is closed.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedApi),
    /// Not a header: the connection is closed.
    #[error("request header: expected {expected} at byte {position} of the frame")]
    Malformed {
        /// Bytes from the start of the frame, its length field not counted.
        position: usize,
        /// What should have been there.
        expected: Expected,
    },
}

impl From<Malformed> for HeaderError {
    fn from(malformed: Malformed) -> HeaderError {
        HeaderError::Malformed { position: malformed.position, expected: malformed.expected }
    }
}

/// Reads the header of a request from the bytes of its frame, the length field not included.
pub fn parse_header(frame: &[u8]) -> Result<RequestHeader<'_>, HeaderError> {
    let mut cursor = Cursor::classic(frame);
    let (key, version) = (cursor.i16()?, cursor.i16()?);
    let correlation = CorrelationId(cursor.i32()?);
    let api = match Api::lookup(key, version) {
        Ok(api) => api,
        Err(UnsupportedApi::Version { key: ApiKey::ApiVersions, version }) => {
            return Err(HeaderError::UnknownApiVersions { version, correlation });
        }
        Err(unsupported) => return Err(unsupported.into()),
    };
    let client_id = cursor.nullable_string()?;
    let mut cursor = cursor.with_flexible(api.request_header_version() >= 2);
    cursor.skip_tagged_fields()?;
    Ok(RequestHeader { api, correlation, client_id, body_offset: cursor.position() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_classic_header() {
        let frame = [0, 3, 0, 1, 0, 0, 0, 7, 0, 2, b'm', b'e', 0xff, 0xff, 0xff, 0xff];
        let header = parse_header(&frame).expect("well formed");
        assert_eq!(header.api, Api::new(ApiKey::Metadata, 1).expect("in the table"));
        assert_eq!(header.correlation, CorrelationId(7));
        assert_eq!(header.client_id, Some("me"));
        assert_eq!(&frame[header.body_offset..], [0xff; 4]);
    }

    #[test]
    fn a_flexible_header_skips_its_tagged_fields() {
        let frame = [0, 18, 0, 3, 0, 0, 0, 7, 0xff, 0xff, 1, 5, 2, 1, 2, 0xbb];
        let header = parse_header(&frame).expect("well formed");
        assert_eq!(header.client_id, None);
        assert_eq!(&frame[header.body_offset..], [0xbb]);
    }

    #[test]
    fn rule_1_an_unknown_version_of_api_versions_is_recognized_without_reading_on() {
        let frame = [0, 18, 0x7f, 0xff, 0, 0, 0, 9];
        let answer = HeaderError::UnknownApiVersions { version: 0x7fff, correlation: CorrelationId(9) };
        assert_eq!(parse_header(&frame), Err(answer));
        assert_eq!(parse_header(&[&frame[..], &[0xff; 9]].concat()), Err(answer));
    }

    #[test]
    fn rule_1_any_other_unknown_key_or_version_is_refused() {
        let unknown_key = HeaderError::Unsupported(UnsupportedApi::Key { key: 99, version: 0 });
        assert_eq!(parse_header(&[0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff]), Err(unknown_key));
        let unknown_version = HeaderError::Unsupported(UnsupportedApi::Version { key: ApiKey::Fetch, version: 19 });
        assert_eq!(parse_header(&[0, 1, 0, 19, 0, 0, 0, 1, 0xff, 0xff]), Err(unknown_version));
    }

    #[test]
    fn every_truncated_header_is_refused() {
        let whole = [0, 18, 0, 3, 0, 0, 0, 7, 0, 2, b'm', b'e', 1, 5, 2, 1, 2];
        assert!(parse_header(&whole).is_ok());
        for length in 0..whole.len() {
            let refused = parse_header(&whole[..length]);
            assert!(matches!(refused, Err(HeaderError::Malformed { .. })), "{length}: {refused:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(frame in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(header) = parse_header(&frame) {
                prop_assert!(header.body_offset <= frame.len());
            }
        }
    }
}
