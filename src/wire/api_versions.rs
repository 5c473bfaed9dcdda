//! The answer to ApiVersions: the advertised table, in every version, to clients from the past and from the future.
//!
//! Rule 1: a request of an unknown version is answered in version 0 with UNSUPPORTED_VERSION and the full table (KIP-511), so
//! that the client can ask again. Rule 2: the response's header is version 0 always. Rule 3: features whose minimum is 0 are
//! left out below version 4, whose readers refuse them (KAFKA-17011). Rule 7: Produce is listed from version 0.
//!
//! One feature is finalized: `metadata.version`, by whose level user interfaces tell which version of Kafka they talk to
//! (rule 25). The level is that of the release whose ranges the table has. Clients decide nothing by it: they go by the table.
//! `transaction.version`, `group.version` and their like switch behaviour of clients on and are not named before that works.

use bytes::Bytes;

use super::control::{EncodeError, Response, encode_response};
use super::frame::CorrelationId;
use super::messages::{ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, StrBytes, SupportedFeatureKey};
use super::table::{Api, TABLE};
use crate::types::ErrorCode;

/// A feature that this broker supports at a range of levels and that is in force at the highest (KIP-584).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Kafka's name.
    pub name: &'static str,
    /// The lowest level.
    pub min: i16,
    /// The highest level, which is in force.
    pub max: i16,
}

/// The features that are advertised. Kafka's levels of `metadata.version`: 7 is 3.3-IV3, the lowest that the 4 line takes;
/// 29 is 4.2-IV1.
pub const FEATURES: &[Feature] = &[Feature { name: "metadata.version", min: 7, max: 29 }];

/// Rises with a change of what is in force, which nothing changes yet.
const FINALIZED_EPOCH: i64 = 0;

/// The first version that has features.
const FEATURES_FROM: i16 = 3;

/// The answer to a request of a known version.
pub fn response(version: i16) -> ApiVersionsResponse {
    table(ErrorCode::None, version, FEATURES)
}

/// The whole frame that answers a request of an unknown version.
pub fn unsupported(correlation: CorrelationId) -> Result<Bytes, EncodeError> {
    let body = table(ErrorCode::UnsupportedVersion, 0, FEATURES);
    encode_response(Api::API_VERSIONS_0, correlation, Response::ApiVersions(body))
}

fn table(error: ErrorCode, version: i16, features: &[Feature]) -> ApiVersionsResponse {
    let rows = TABLE.iter().map(|row| {
        ApiVersion::default().with_api_key(row.key.code()).with_min_version(row.min).with_max_version(row.max)
    });
    let response = ApiVersionsResponse::default().with_error_code(error.code()).with_api_keys(rows.collect());
    if version < FEATURES_FROM {
        return response;
    }
    let known = features.iter().filter(|feature| version >= 4 || feature.min > 0);
    let supported = known.map(|feature| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version(feature.min)
            .with_max_version(feature.max)
    });
    let finalized = features.iter().map(|feature| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version_level(feature.max)
            .with_max_version_level(feature.max)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(FINALIZED_EPOCH)
        .with_finalized_features(finalized.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ApiKey;

    /// The rows in the classic encoding, worked out by hand: key, min, max.
    const ROWS: &[u8] = &[
        0, 0, 0, 0, 0, 13, // Produce
        0, 1, 0, 4, 0, 18, // Fetch
        0, 2, 0, 1, 0, 11, // ListOffsets
        0, 3, 0, 0, 0, 13, // Metadata
        0, 18, 0, 0, 0, 4, // ApiVersions
        0, 19, 0, 2, 0, 7, // CreateTopics
        0, 20, 0, 1, 0, 6, // DeleteTopics
        0, 21, 0, 0, 0, 2, // DeleteRecords
        0, 22, 0, 0, 0, 5, // InitProducerId
        0, 23, 0, 2, 0, 4, // OffsetForLeaderEpoch
        0, 32, 0, 1, 0, 4, // DescribeConfigs
        0, 33, 0, 0, 0, 2, // AlterConfigs
        0, 35, 0, 1, 0, 4, // DescribeLogDirs
        0, 37, 0, 0, 0, 3, // CreatePartitions
        0, 44, 0, 0, 0, 1, // IncrementalAlterConfigs
        0, 60, 0, 0, 0, 2, // DescribeCluster
        0, 61, 0, 0, 0, 0, // DescribeProducers
        0, 75, 0, 0, 0, 0, // DescribeTopicPartitions
    ];

    /// Tagged fields 0 to 2: supported 7 to 29, epoch 0, finalized 29 to 29 (the greatest level comes first).
    const FEATURE_FIELDS: &[u8] = b"\x03\
        \x00\x17\x02\x11metadata.version\x00\x07\x00\x1d\x00\
        \x01\x08\x00\x00\x00\x00\x00\x00\x00\x00\
        \x02\x17\x02\x11metadata.version\x00\x1d\x00\x1d\x00";

    fn frame(version: i16) -> Bytes {
        let api = Api::new(ApiKey::ApiVersions, version).expect("in the table");
        encode_response(api, CorrelationId(7), response(version).into()).expect("encodes")
    }

    #[test]
    fn golden_bytes_of_version_0() {
        let expected = [&[0, 0, 0, 118, 0, 0, 0, 7, 0, 0, 0, 0, 0, 18][..], ROWS].concat();
        assert_eq!(frame(0), expected);
    }

    #[test]
    fn rule_2_golden_bytes_of_version_3_with_a_header_of_version_0() {
        let rows: Vec<u8> = ROWS.chunks(6).flat_map(|row| [row, &[0]].concat()).collect();
        let expected = [&[0, 0, 0, 198, 0, 0, 0, 7, 0, 0, 19][..], &rows, &[0, 0, 0, 0], FEATURE_FIELDS].concat();
        assert_eq!(frame(3), expected);
    }

    #[test]
    fn rule_1_an_unknown_version_gets_version_0_with_error_35_and_the_full_table() {
        let expected = [&[0, 0, 0, 118, 0, 0, 0, 7, 0, 35, 0, 0, 0, 18][..], ROWS].concat();
        assert_eq!(unsupported(CorrelationId(7)).expect("encodes"), expected);
    }

    #[test]
    fn rule_3_features_with_minimum_0_are_left_out_below_version_4() {
        let features = [Feature { name: "zero", min: 0, max: 1 }, Feature { name: "one", min: 1, max: 1 }];
        let named = |version| {
            let body = table(ErrorCode::None, version, &features);
            body.supported_features.iter().map(|feature| feature.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(named(3), ["one"]);
        assert_eq!(named(4), ["zero", "one"]);
    }

    #[test]
    fn rule_7_produce_is_listed_from_version_0() {
        let body = response(4);
        assert_eq!((body.api_keys[0].api_key, body.api_keys[0].min_version), (0, 0));
    }
}
