//! The advertised table: every API that this broker speaks, with its versions. One row per API; to speak another one, add
//! its row here and follow the compiler, which asks for its schema and its messages.
//!
//! Invariant: a row stands here when, and only when, every version of its range works. The ranges are ours, not the codec's.
//! The one claim beyond what is served is Produce 0–2: they must be listed (rule 7 below) and answer UNSUPPORTED_VERSION.
//!
//! Sources: Kafka 4.2's message schemas; KAFKA-18659 for Produce 0 (without it librdkafka silently stops compressing);
//! KIP-511 for the response header of ApiVersions, which is never flexible.

use std::fmt;

use thiserror::Error;

macro_rules! apis {
    ($($(#[$doc:meta])* $name:ident = $key:literal, $min:literal ..= $max:literal, flexible $flexible:literal;)+) => {
        /// The API of a request, one of those in the table.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        pub enum ApiKey {
            $($(#[$doc])* $name = $key,)+
        }

        /// The advertised table, ordered by key.
        pub const TABLE: &[Row] = &[
            $(Row { key: ApiKey::$name, name: stringify!($name), min: $min, max: $max, flexible_from: $flexible },)+
        ];

        impl ApiKey {
            /// The row of this API.
            pub const fn row(self) -> &'static Row {
                match self {
                    $(ApiKey::$name => &Row {
                        key: ApiKey::$name, name: stringify!($name), min: $min, max: $max, flexible_from: $flexible,
                    },)+
                }
            }

            /// The API with this number on the wire.
            pub const fn from_code(code: i16) -> Option<ApiKey> {
                match code {
                    $($key => Some(ApiKey::$name),)+
                    _ => None,
                }
            }
        }
    };
}

apis! {
    /// Appends record batches. Versions 0–2 are only listed; they answer UNSUPPORTED_VERSION.
    Produce = 0, 0..=13, flexible 9;
    /// Reads record batches.
    Fetch = 1, 4..=18, flexible 12;
    /// Finds offsets by time, or the ends of a log.
    ListOffsets = 2, 1..=11, flexible 6;
    /// Describes brokers, topics and partitions.
    Metadata = 3, 0..=13, flexible 9;
    /// Lists this table.
    ApiVersions = 18, 0..=4, flexible 3;
    /// Creates topics.
    CreateTopics = 19, 2..=7, flexible 5;
    /// Deletes topics.
    DeleteTopics = 20, 1..=6, flexible 4;
    /// Raises the log start offset.
    DeleteRecords = 21, 0..=2, flexible 2;
    /// Hands out producer ids.
    InitProducerId = 22, 0..=5, flexible 2;
    /// Finds where leader epochs end.
    OffsetForLeaderEpoch = 23, 2..=4, flexible 4;
    /// Describes the configuration of topics and brokers.
    DescribeConfigs = 32, 1..=4, flexible 4;
    /// Replaces what a topic's or broker's configuration sets.
    AlterConfigs = 33, 0..=2, flexible 2;
    /// Describes the data directory and the size of the logs in it.
    DescribeLogDirs = 35, 1..=4, flexible 2;
    /// Adds partitions to topics.
    CreatePartitions = 37, 0..=3, flexible 2;
    /// Changes single keys of a topic's or broker's configuration.
    IncrementalAlterConfigs = 44, 0..=1, flexible 1;
    /// Describes the brokers.
    DescribeCluster = 60, 0..=2, flexible 0;
    /// Describes the idempotent producers of partitions.
    DescribeProducers = 61, 0..=0, flexible 0;
    /// Describes topics and their partitions, page by page.
    DescribeTopicPartitions = 75, 0..=0, flexible 0;
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The API.
    pub key: ApiKey,
    /// Kafka's name of it.
    pub name: &'static str,
    /// The lowest version advertised.
    pub min: i16,
    /// The highest version advertised.
    pub max: i16,
    /// The first version with compact lengths and tagged fields (KIP-482).
    pub flexible_from: i16,
}

impl ApiKey {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key or version that is not in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum UnsupportedApi {
    /// No row has this key.
    #[error("API key {key} (version {version}) is not spoken here")]
    Key {
        /// The key of the request.
        key: i16,
        /// The version of the request.
        version: i16,
    },
    /// The row does not hold this version.
    #[error("{key} is spoken in versions {min} to {max}, not {version}", min = .key.row().min, max = .key.row().max)]
    Version {
        /// The API.
        key: ApiKey,
        /// The version of the request.
        version: i16,
    },
}

/// An API at one version of its row: what every decoder and encoder of this module is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Api {
    key: ApiKey,
    version: i16,
}

impl Api {
    /// Looks up a key and version as a request header carries them.
    pub const fn lookup(key: i16, version: i16) -> Result<Api, UnsupportedApi> {
        match ApiKey::from_code(key) {
            Some(known) => Api::new(known, version),
            None => Err(UnsupportedApi::Key { key, version }),
        }
    }

    /// This API at this version; an error if its row does not hold it.
    pub const fn new(key: ApiKey, version: i16) -> Result<Api, UnsupportedApi> {
        if version < key.row().min || version > key.row().max {
            return Err(UnsupportedApi::Version { key, version });
        }
        Ok(Api { key, version })
    }

    /// ApiVersions at version 0: what a request of an unknown version of it is answered with.
    pub const API_VERSIONS_0: Api = Api { key: ApiKey::ApiVersions, version: 0 };

    /// The API.
    pub const fn key(self) -> ApiKey {
        self.key
    }

    /// The version.
    pub const fn version(self) -> i16 {
        self.version
    }

    /// Whether lengths are compact and structures end in tagged fields.
    pub const fn is_flexible(self) -> bool {
        self.version >= self.key.row().flexible_from
    }

    /// The version of the request's header: 1, or 2 where the body is flexible.
    pub const fn request_header_version(self) -> i16 {
        if self.is_flexible() { 2 } else { 1 }
    }

    /// The version of the response's header: 0, or 1 where the body is flexible; always 0 for ApiVersions, since its
    /// client does not know yet what this broker speaks.
    pub const fn response_header_version(self) -> i16 {
        match self.key {
            ApiKey::ApiVersions => 0,
            _ if self.is_flexible() => 1,
            _ => 0,
        }
    }

    /// Every API at every version of the table.
    pub fn all() -> impl Iterator<Item = Api> {
        TABLE.iter().flat_map(|row| (row.min..=row.max).map(|version| Api { key: row.key, version }))
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.key, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ordered_and_found_by_key() {
        assert!(TABLE.windows(2).all(|rows| rows[0].key.code() < rows[1].key.code()));
        for row in TABLE {
            assert_eq!(ApiKey::from_code(row.key.code()), Some(row.key));
            assert_eq!(row.key.row(), row);
            assert!(row.min <= row.max, "{row:?}");
        }
    }

    #[test]
    fn lookup_refuses_what_is_not_in_the_table() {
        assert_eq!(Api::lookup(4242, 3), Err(UnsupportedApi::Key { key: 4242, version: 3 }));
        assert_eq!(Api::lookup(-1, 0), Err(UnsupportedApi::Key { key: -1, version: 0 }));
        for row in TABLE {
            for version in [row.min - 1, row.max + 1, i16::MIN, i16::MAX] {
                let refused = UnsupportedApi::Version { key: row.key, version };
                assert_eq!(Api::lookup(row.key.code(), version), Err(refused));
            }
            for version in row.min..=row.max {
                let api = Api::lookup(row.key.code(), version).expect("in the row");
                assert_eq!((api.key(), api.version()), (row.key, version));
            }
        }
        let refused = Api::lookup(1, 3).expect_err("below the range");
        assert_eq!(refused.to_string(), "Fetch is spoken in versions 4 to 18, not 3");
    }

    #[test]
    fn produce_is_advertised_from_0_so_that_librdkafka_compresses() {
        assert_eq!((ApiKey::Produce.row().min, ApiKey::Produce.row().max), (0, 13));
    }

    /// The codec's own table, generated from Kafka's schemas, is the oracle for header versions and names.
    #[test]
    fn header_versions_agree_with_kafkas_schemas() {
        for api in Api::all() {
            let oracle = kafka_protocol::messages::ApiKey::try_from(api.key().code()).expect("known to the codec");
            assert_eq!(format!("{oracle:?}"), api.key().name());
            let version = if api.key() == ApiKey::Produce { api.version().max(3) } else { api.version() };
            let version = if api.key() == ApiKey::ListOffsets { version.min(10) } else { version };
            assert_eq!(api.request_header_version(), oracle.request_header_version(version), "{api}");
            assert_eq!(api.response_header_version(), oracle.response_header_version(version), "{api}");
        }
    }
}
