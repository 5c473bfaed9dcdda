//! DescribeConfigs: every key of a topic or broker with its value in force, where that comes from, and what it hides.
//!
//! A topic has all topic keys; this broker, by its id, all of its keys; the empty name of a broker is what was set of all
//! brokers, and nothing else. Keys that the client names narrow that down; none, or null, are all. A resource that is named
//! again is answered once: clients look answers up by resource, and a small request stays unable to ask for a huge answer.
//!
//! No key of this broker is a secret, so none is told to be sensitive.
//!
//! Source: DescribeConfigs 1–4 of Kafka 4.2; `ConfigHelper` of Apache Kafka; KIP-226, KIP-569 (types and documentation).

use std::collections::BTreeSet;
use std::rc::Rc;

use super::configs::{named_resource, source_number, type_number};
use super::shard::Shard;
use crate::config::{ConfigEntry, Synonym};
use crate::controller::{AlterConfigError, ConfigResource};
use crate::runtime::yield_now;
use crate::types::ErrorCode;
use crate::wire::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResponse,
    DescribeConfigsResult, DescribeConfigsSynonym, StrBytes,
};

/// Resources that are described before others are let in.
const RESOURCES_AT_ONCE: usize = 32;

/// What the client wants to know beside the values.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

pub(super) async fn answer(shard: &Rc<Shard>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let wanted = Wanted { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let mut named = BTreeSet::new();
    let mut results = Vec::new();
    for resource in request.resources {
        if !named.insert((resource.resource_type, resource.resource_name.clone())) {
            continue;
        }
        if !results.is_empty() && results.len().is_multiple_of(RESOURCES_AT_ONCE) {
            yield_now().await;
        }
        results.push(describe(shard, resource, wanted));
    }
    DescribeConfigsResponse::default().with_results(results)
}

fn describe(shard: &Shard, resource: DescribeConfigsResource, wanted: Wanted) -> DescribeConfigsResult {
    let result = match entries(shard, &resource) {
        Ok(entries) => {
            let keys = resource.configuration_keys.filter(|keys| !keys.is_empty());
            let asked = |entry: &ConfigEntry| {
                keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.name))
            };
            let entries = entries.into_iter().filter(asked).map(|entry| encode(entry, wanted));
            DescribeConfigsResult::default().with_error_message(None).with_configs(entries.collect())
        }
        Err((code, reason)) => DescribeConfigsResult::default()
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(reason))),
    };
    result.with_resource_type(resource.resource_type).with_resource_name(resource.resource_name)
}

fn entries(shard: &Shard, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, (ErrorCode, String)> {
    let refused = |error: AlterConfigError| (error.code(), error.to_string());
    let named = named_resource(resource.resource_type, &resource.resource_name);
    let image = shard.image();
    let config = shard.config();
    match image.find_resource(&named, shard.node()).map_err(refused)? {
        ConfigResource::Broker(_) => Ok(config.entries()),
        ConfigResource::AllBrokers => Ok(config.dynamic_default_entries()),
        ConfigResource::Topic(id) => {
            let topic = image.topic(id).ok_or_else(|| refused(AlterConfigError::UnknownTopic))?;
            config.topic_entries(&topic.configs).map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))
        }
    }
}

fn encode(entry: ConfigEntry, wanted: Wanted) -> DescribeConfigsResourceResult {
    let synonyms = entry.synonyms.iter().filter(|_| wanted.synonyms).map(encode_synonym).collect();
    let documentation = wanted.documentation.then(|| StrBytes::from_static_str(entry.key.documentation.trim()));
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(entry.name))
        .with_value(entry.value.as_ref().map(|value| StrBytes::from_string(value.to_string())))
        .with_read_only(entry.is_read_only())
        .with_config_source(source_number(entry.source))
        .with_synonyms(synonyms)
        .with_config_type(type_number(entry.key.kind))
        .with_documentation(documentation)
}

fn encode_synonym(synonym: &Synonym) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(StrBytes::from_static_str(synonym.name))
        .with_value(Some(StrBytes::from_string(synonym.value.to_string())))
        .with_source(source_number(synonym.source))
}
