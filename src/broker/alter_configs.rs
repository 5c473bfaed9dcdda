//! AlterConfigs: what a topic or broker sets itself is replaced as a whole; a key that the request leaves out is reset.
//!
//! One answer for each resource of the request, in its order. It goes out when the change is durable and in force here.
//!
//! Source: AlterConfigs 0–2 of Kafka 4.2; KIP-133.

use std::rc::Rc;

use super::configs::{alter, named_resource};
use super::shard::Shard;
use crate::controller::{AlterConfigs, AlterResource, Alteration};
use crate::types::ErrorCode;
use crate::wire::messages::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse, StrBytes,
};

pub(super) async fn answer(shard: &Rc<Shard>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let resources = request.resources.iter().map(wanted).collect();
    let results = alter(shard, AlterConfigs { resources, validate_only: request.validate_only }).await;
    let responses = request.resources.into_iter().zip(results).map(|(resource, result)| {
        let (code, message) = result.err().unzip();
        AlterConfigsResourceResponse::default()
            .with_error_code(code.unwrap_or(ErrorCode::None).code())
            .with_error_message(message.map(StrBytes::from_string))
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

fn wanted(resource: &AlterConfigsResource) -> AlterResource {
    let pairs = resource.configs.iter();
    let pairs = pairs.map(|pair| (pair.name.to_string(), pair.value.as_ref().map(StrBytes::to_string)));
    AlterResource {
        resource: named_resource(resource.resource_type, &resource.resource_name),
        alteration: Alteration::Replace(pairs.collect()),
    }
}
