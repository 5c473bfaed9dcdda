//! CreateTopics: the request in the controller's terms, its answer in the wire's.
//!
//! The answer goes out when the topics are committed and their partitions can be used; after `timeout_ms` with
//! REQUEST_TIMED_OUT for those that are committed and cannot, which they soon will be. −1 is the broker's default (KIP-464); from
//! version 5 on the answer describes the topic with its configuration (KIP-525).

use std::rc::Rc;

use uuid::Uuid;

use super::configs::source_number;
use super::shard::Shard;
use super::topics;
use crate::config::ConfigEntry;
use crate::controller::{CreateTopic, CreateTopicError, CreateTopics, CreatedTopic, ManualAssignment};
use crate::runtime::random_u128;
use crate::types::{ErrorCode, TopicId};
use crate::wire::messages::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse, StrBytes,
    TopicName,
};

pub(super) async fn answer(shard: &Rc<Shard>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let names: Vec<TopicName> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let wanted =
        CreateTopics { topics: request.topics.iter().map(wanted).collect(), validate_only: request.validate_only };
    let results = match topics::create(shard, wanted).await {
        Ok((created, opening)) => {
            let usable = topics::usable_within(request.timeout_ms, opening).await;
            created.into_iter().map(|(name, result)| describe(shard, name, result, usable)).collect()
        }
        Err(error) => {
            let code = topics::propose_error_code(&error);
            names.into_iter().map(|name| refused(name, code, error.to_string())).collect()
        }
    };
    CreateTopicsResponse::default().with_topics(results)
}

fn wanted(topic: &CreatableTopic) -> CreateTopic {
    let assignments = topic.assignments.iter().map(|assignment| ManualAssignment {
        partition: assignment.partition_index,
        brokers: assignment.broker_ids.iter().map(|broker| broker.0).collect(),
    });
    let configs = topic.configs.iter();
    CreateTopic {
        name: topic.name.to_string(),
        id: TopicId::from_random(random_u128()),
        partitions: (topic.num_partitions != -1).then_some(topic.num_partitions),
        replication_factor: (topic.replication_factor != -1).then_some(topic.replication_factor),
        assignments: assignments.collect(),
        configs: configs.map(|entry| (entry.name.to_string(), entry.value.as_ref().map(StrBytes::to_string))).collect(),
    }
}

fn refused(name: TopicName, code: ErrorCode, message: String) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(message)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}

fn describe(
    shard: &Shard,
    name: String,
    result: Result<CreatedTopic, CreateTopicError>,
    usable: bool,
) -> CreatableTopicResult {
    let name = TopicName(StrBytes::from_string(name));
    match result {
        Err(error) => refused(name, error.code(), error.to_string()),
        Ok(_) if !usable => refused(name, ErrorCode::RequestTimedOut, topics::STILL_MADE.to_string()),
        Ok(created) => {
            let entries = shard.config().topic_entries(&created.configs).unwrap_or_default();
            CreatableTopicResult::default()
                .with_name(name)
                .with_topic_id(Uuid::from_bytes(created.id.bytes()))
                .with_num_partitions(i32::try_from(created.partitions).unwrap_or(i32::MAX))
                .with_replication_factor(i16::try_from(created.replication_factor).unwrap_or(i16::MAX))
                .with_configs(Some(entries.into_iter().map(entry).collect()))
        }
    }
}

fn entry(entry: ConfigEntry) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(StrBytes::from_static_str(entry.name))
        .with_read_only(entry.is_read_only())
        .with_value(entry.value.as_ref().map(|value| StrBytes::from_string(value.to_string())))
        .with_config_source(source_number(entry.source))
}
