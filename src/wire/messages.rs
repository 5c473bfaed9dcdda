//! The control plane's message types, as the `kafka-protocol` crate generates them from Kafka's schemas.
//!
//! They are named through here, so that what handlers see is one module. They are wire types: numbers where the program
//! has types, −1 for what is absent. Handlers translate at once. Not here: Produce and Fetch, which have types of their own.

pub use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
pub use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
pub use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
pub use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
pub use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
pub use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
pub use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
pub use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
pub use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
pub use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
pub use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
pub use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
pub use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
pub use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
pub use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
pub use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
pub use kafka_protocol::messages::describe_producers_request::TopicRequest as DescribeProducersTopic;
pub use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse as DescribeProducersPartitionResult, ProducerState, TopicResponse as DescribeProducersTopicResult,
};
pub use kafka_protocol::messages::describe_topic_partitions_request::{
    Cursor as TopicPartitionsCursor, TopicRequest as DescribeTopicPartitionsTopic,
};
pub use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor as NextTopicPartitionsCursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
pub use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource as IncrementalAlterConfigsResource, AlterableConfig as IncrementalAlterableConfig,
};
pub use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
pub use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
pub use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
pub use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
pub use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
pub use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
pub use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ApiVersionsRequest, ApiVersionsResponse, BrokerId,
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeProducersRequest, DescribeProducersResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProducerId, TopicName,
    TransactionalId,
};
pub use kafka_protocol::protocol::StrBytes;
pub use uuid::Uuid;

use crate::types::TopicId;

/// The result of one resource; the response of AlterConfigs has a type of the same name.
pub type IncrementalAlterConfigsResourceResponse =
    kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;

impl From<TopicId> for Uuid {
    fn from(id: TopicId) -> Uuid {
        Uuid::from_bytes(id.bytes())
    }
}

impl From<Uuid> for TopicId {
    fn from(id: Uuid) -> TopicId {
        TopicId::from_bytes(id.into_bytes())
    }
}
