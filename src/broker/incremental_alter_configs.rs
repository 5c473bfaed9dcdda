//! IncrementalAlterConfigs: single keys of a topic or broker are set, reset, or have words added to or taken from their list.
//!
//! One answer for each resource of the request, in its order. It goes out when the change is durable and in force here.
//!
//! Source: IncrementalAlterConfigs 0–1 of Kafka 4.2; KIP-339.

use std::rc::Rc;

use super::configs::{alter, named_resource};
use super::shard::Shard;
use crate::controller::{AlterConfigs, AlterResource, Alteration, ConfigOperation, KeyChange};
use crate::types::ErrorCode;
use crate::wire::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource, IncrementalAlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse, IncrementalAlterableConfig, StrBytes,
};

pub(super) async fn answer(
    shard: &Rc<Shard>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let resources = request.resources.iter().map(wanted).collect();
    let results = alter(shard, AlterConfigs { resources, validate_only: request.validate_only }).await;
    let responses = request.resources.into_iter().zip(results).map(|(resource, result)| {
        let (code, message) = result.err().unzip();
        IncrementalAlterConfigsResourceResponse::default()
            .with_error_code(code.unwrap_or(ErrorCode::None).code())
            .with_error_message(message.map(StrBytes::from_string))
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn wanted(resource: &IncrementalAlterConfigsResource) -> AlterResource {
    AlterResource {
        resource: named_resource(resource.resource_type, &resource.resource_name),
        alteration: Alteration::Change(resource.configs.iter().map(change).collect()),
    }
}

fn change(config: &IncrementalAlterableConfig) -> KeyChange {
    KeyChange {
        key: config.name.to_string(),
        operation: operation(config.config_operation),
        value: config.value.as_ref().map(StrBytes::to_string),
    }
}

/// The operation of this number: Kafka's `AlterConfigOp.OpType`.
fn operation(number: i8) -> Result<ConfigOperation, i8> {
    match number {
        0 => Ok(ConfigOperation::Set),
        1 => Ok(ConfigOperation::Delete),
        2 => Ok(ConfigOperation::Append),
        3 => Ok(ConfigOperation::Subtract),
        number => Err(number),
    }
}
