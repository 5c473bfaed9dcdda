//! The shape of every control-plane request, as constants: what [`super::bounds`] walks. To add an API, add its fields.
//!
//! A field has a type, the versions that have it and the versions in which it may be null. Whether lengths are compact
//! follows from the version alone (the table's `flexible_from`), as in Kafka. No request of the control plane has a tagged
//! field that Kafka defines, so all of them are skipped; the walk must learn to enter them before one is added.
//!
//! Invariant: schemas nest at most [`DEPTH_MAX`] deep, checked when this file is compiled, so walking one needs a bounded
//! stack. Constants cannot refer to themselves, so no schema is recursive. Fields of versions that are not in the table
//! are left out. Not here: Produce and Fetch, whose decoders check their own bounds.
//!
//! Source: Kafka 4.2, `clients/src/main/resources/common/message/<Name>Request.json`; names are those of the files.

use super::table::ApiKey;

/// How deep arrays and structures may nest.
pub(super) const DEPTH_MAX: usize = 8;

/// The type of a field.
#[derive(Debug)]
pub(super) enum Kind {
    /// One byte: a boolean or a small number.
    Int8,
    /// Two bytes.
    Int16,
    /// Four bytes.
    Int32,
    /// Eight bytes.
    Int64,
    /// Sixteen bytes.
    Uuid,
    /// UTF-8 with a length.
    String,
    /// An array of one type.
    Array(&'static Kind),
    /// A structure, in flexible versions ended by tagged fields.
    Struct(&'static [Field]),
    /// A structure behind a byte that says whether it is there: 1, or −1 for null.
    Optional(&'static [Field]),
}

/// A field of a structure.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) kind: Kind,
    since: i16,
    until: i16,
    nullable_since: i16,
}

impl Field {
    const fn new(kind: Kind) -> Field {
        Field { kind, since: 0, until: i16::MAX, nullable_since: i16::MAX }
    }

    const fn since(self, version: i16) -> Field {
        Field { since: version, ..self }
    }

    const fn until(self, version: i16) -> Field {
        Field { until: version, ..self }
    }

    const fn nullable_since(self, version: i16) -> Field {
        Field { nullable_since: version, ..self }
    }

    /// Whether this version has the field.
    pub(super) fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }

    /// Whether it may be null in this version.
    pub(super) const fn is_nullable(&self, version: i16) -> bool {
        version >= self.nullable_since
    }
}

impl Kind {
    /// Bytes that a value takes at least in this version. The walk refuses an array whose elements cannot fit.
    pub(super) fn least_bytes(&self, version: i16, flexible: bool) -> usize {
        match self {
            Kind::Int8 => 1,
            Kind::Int16 => 2,
            Kind::Int32 => 4,
            Kind::Int64 => 8,
            Kind::Uuid => 16,
            Kind::String if flexible => 1,
            Kind::String => 2,
            Kind::Array(_) if flexible => 1,
            Kind::Array(_) => 4,
            Kind::Struct(fields) => {
                let present = fields.iter().filter(|field| field.is_in(version));
                let tagged_fields = usize::from(flexible);
                present.map(|field| field.kind.least_bytes(version, flexible)).sum::<usize>() + tagged_fields
            }
            Kind::Optional(_) => 1,
        }
    }

    const fn depth(&self) -> usize {
        match self {
            Kind::Array(element) => 1 + element.depth(),
            Kind::Struct(fields) | Kind::Optional(fields) => depth(fields),
            _ => 1,
        }
    }
}

const fn depth(fields: &[Field]) -> usize {
    let (mut deepest, mut index) = (0, 0);
    while index < fields.len() {
        let depth = fields[index].kind.depth();
        if depth > deepest {
            deepest = depth;
        }
        index += 1;
    }
    deepest + 1
}

const fn int8() -> Field {
    Field::new(Kind::Int8)
}

const fn int16() -> Field {
    Field::new(Kind::Int16)
}

const fn int32() -> Field {
    Field::new(Kind::Int32)
}

const fn int64() -> Field {
    Field::new(Kind::Int64)
}

const fn uuid() -> Field {
    Field::new(Kind::Uuid)
}

const fn string() -> Field {
    Field::new(Kind::String)
}

const fn array(element: &'static Kind) -> Field {
    Field::new(Kind::Array(element))
}

const fn optional(fields: &'static [Field]) -> Field {
    Field::new(Kind::Optional(fields))
}

const LIST_OFFSETS: &[Field] = &[
    int32(),         // ReplicaId
    int8().since(2), // IsolationLevel
    array(&Kind::Struct(&[
        string(), // Name
        array(&Kind::Struct(&[
            int32(),          // PartitionIndex
            int32().since(4), // CurrentLeaderEpoch
            int64(),          // Timestamp
        ])),
    ])),
    int32().since(10), // TimeoutMs
];

const METADATA: &[Field] = &[
    array(&Kind::Struct(&[
        uuid().since(10),            // TopicId
        string().nullable_since(10), // Name
    ]))
    .nullable_since(1),
    int8().since(4),           // AllowAutoTopicCreation
    int8().since(8).until(10), // IncludeClusterAuthorizedOperations
    int8().since(8),           // IncludeTopicAuthorizedOperations
];

const API_VERSIONS: &[Field] = &[
    string().since(3), // ClientSoftwareName
    string().since(3), // ClientSoftwareVersion
];

const CREATE_TOPICS: &[Field] = &[
    array(&Kind::Struct(&[
        string(), // Name
        int32(),  // NumPartitions
        int16(),  // ReplicationFactor
        array(&Kind::Struct(&[
            int32(),             // PartitionIndex
            array(&Kind::Int32), // BrokerIds
        ])),
        array(&Kind::Struct(&[
            string(),                   // Name
            string().nullable_since(0), // Value
        ])),
    ])),
    int32(),         // timeoutMs
    int8().since(1), // validateOnly
];

const DELETE_TOPICS: &[Field] = &[
    array(&Kind::Struct(&[
        string().nullable_since(6), // Name
        uuid(),                     // TopicId
    ]))
    .since(6),
    array(&Kind::String).until(5), // TopicNames
    int32(),                       // TimeoutMs
];

const DELETE_RECORDS: &[Field] = &[
    array(&Kind::Struct(&[
        string(), // Name
        array(&Kind::Struct(&[
            int32(), // PartitionIndex
            int64(), // Offset
        ])),
    ])),
    int32(), // TimeoutMs
];

const INIT_PRODUCER_ID: &[Field] = &[
    string().nullable_since(0), // TransactionalId
    int32(),                    // TransactionTimeoutMs
    int64().since(3),           // ProducerId
    int16().since(3),           // ProducerEpoch
];

const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    int32().since(3), // ReplicaId
    array(&Kind::Struct(&[
        string(), // Topic
        array(&Kind::Struct(&[
            int32(), // Partition
            int32(), // CurrentLeaderEpoch
            int32(), // LeaderEpoch
        ])),
    ])),
];

const DESCRIBE_LOG_DIRS: &[Field] = &[array(&Kind::Struct(&[
    string(),            // Topic
    array(&Kind::Int32), // Partitions
]))
.nullable_since(0)];

const CREATE_PARTITIONS: &[Field] = &[
    array(&Kind::Struct(&[
        string(), // Name
        int32(),  // Count
        array(&Kind::Struct(&[
            array(&Kind::Int32), // BrokerIds
        ]))
        .nullable_since(0),
    ])),
    int32(), // TimeoutMs
    int8(),  // ValidateOnly
];

const DESCRIBE_CLUSTER: &[Field] = &[
    int8(),          // IncludeClusterAuthorizedOperations
    int8().since(1), // EndpointType
    int8().since(2), // IncludeFencedBrokers
];

const DESCRIBE_PRODUCERS: &[Field] = &[array(&Kind::Struct(&[
    string(),            // Name
    array(&Kind::Int32), // PartitionIndexes
]))];

const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[
    array(&Kind::Struct(&[
        string(), // Name
    ])),
    int32(), // ResponsePartitionLimit
    optional(&[
        string(), // TopicName
        int32(),  // PartitionIndex
    ]),
];

const DESCRIBE_CONFIGS: &[Field] = &[
    array(&Kind::Struct(&[
        int8(),                                 // ResourceType
        string(),                               // ResourceName
        array(&Kind::String).nullable_since(0), // ConfigurationKeys
    ])),
    int8(),          // IncludeSynonyms
    int8().since(3), // IncludeDocumentation
];

const ALTER_CONFIGS: &[Field] = &[
    array(&Kind::Struct(&[
        int8(),   // ResourceType
        string(), // ResourceName
        array(&Kind::Struct(&[
            string(),                   // Name
            string().nullable_since(0), // Value
        ])),
    ])),
    int8(), // ValidateOnly
];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    array(&Kind::Struct(&[
        int8(),   // ResourceType
        string(), // ResourceName
        array(&Kind::Struct(&[
            string(),                   // Name
            int8(),                     // ConfigOperation
            string().nullable_since(0), // Value
        ])),
    ])),
    int8(), // ValidateOnly
];

/// The fields of this API's request; `None` for those of the hot path.
pub(super) const fn of(key: ApiKey) -> Option<&'static [Field]> {
    match key {
        ApiKey::Produce | ApiKey::Fetch => None,
        ApiKey::ListOffsets => Some(LIST_OFFSETS),
        ApiKey::Metadata => Some(METADATA),
        ApiKey::ApiVersions => Some(API_VERSIONS),
        ApiKey::CreateTopics => Some(CREATE_TOPICS),
        ApiKey::DeleteTopics => Some(DELETE_TOPICS),
        ApiKey::DeleteRecords => Some(DELETE_RECORDS),
        ApiKey::InitProducerId => Some(INIT_PRODUCER_ID),
        ApiKey::OffsetForLeaderEpoch => Some(OFFSET_FOR_LEADER_EPOCH),
        ApiKey::DescribeLogDirs => Some(DESCRIBE_LOG_DIRS),
        ApiKey::CreatePartitions => Some(CREATE_PARTITIONS),
        ApiKey::DescribeCluster => Some(DESCRIBE_CLUSTER),
        ApiKey::DescribeProducers => Some(DESCRIBE_PRODUCERS),
        ApiKey::DescribeTopicPartitions => Some(DESCRIBE_TOPIC_PARTITIONS),
        ApiKey::DescribeConfigs => Some(DESCRIBE_CONFIGS),
        ApiKey::AlterConfigs => Some(ALTER_CONFIGS),
        ApiKey::IncrementalAlterConfigs => Some(INCREMENTAL_ALTER_CONFIGS),
    }
}

const _: () = {
    let mut index = 0;
    while index < super::table::TABLE.len() {
        if let Some(fields) = of(super::table::TABLE[index].key) {
            assert!(depth(fields) <= DEPTH_MAX, "a schema nests too deep");
        }
        index += 1;
    }
};
