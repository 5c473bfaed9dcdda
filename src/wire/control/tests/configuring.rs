//! Requests and responses of the APIs that describe and change configurations, with every field of a version set.
//!
//! Samples for the tests beside this file, which send them through both codecs in every version. They decide nothing.

use super::*;

/// A request that uses every field that its version has.
pub(super) fn full_request(api: Api) -> Request {
    let version = api.version();
    match api.key() {
        ApiKey::DescribeConfigs => {
            let resource = |keys| {
                DescribeConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text("orders"))
                    .with_configuration_keys(keys)
            };
            DescribeConfigsRequest::default()
                .with_resources(vec![resource(None), resource(Some(vec![text("retention.ms"), text("x")]))])
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3)
                .into()
        }
        ApiKey::AlterConfigs => {
            let config = |value| AlterableConfig::default().with_name(text("retention.ms")).with_value(value);
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("orders"))
                .with_configs(vec![config(Some(text("1"))), config(None)]);
            AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true).into()
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = |operation, value| {
                IncrementalAlterableConfig::default()
                    .with_name(text("cleanup.policy"))
                    .with_config_operation(operation)
                    .with_value(value)
            };
            let resource = IncrementalAlterConfigsResource::default()
                .with_resource_type(4)
                .with_resource_name(text("1"))
                .with_configs(vec![config(2, Some(text("delete"))), config(1, None)]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true).into()
        }
        other => unreachable!("{other} is no API of configurations"),
    }
}

/// A response with every field set.
pub(super) fn full_response(key: ApiKey) -> Response {
    match key {
        ApiKey::DescribeConfigs => {
            let synonym = DescribeConfigsSynonym::default()
                .with_name(text("log.retention.ms"))
                .with_value(Some(text("1")))
                .with_source(3);
            let config = DescribeConfigsResourceResult::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("1")))
                .with_config_source(3)
                .with_synonyms(vec![synonym])
                .with_config_type(5)
                .with_documentation(Some(text("How long.")));
            let unset = DescribeConfigsResourceResult::default().with_name(text("memory.bytes")).with_value(None);
            let result = DescribeConfigsResult::default()
                .with_error_message(Some(text("no")))
                .with_resource_type(2)
                .with_resource_name(text("orders"))
                .with_configs(vec![config, unset]);
            DescribeConfigsResponse::default().with_results(vec![result]).into()
        }
        ApiKey::AlterConfigs => {
            let response = AlterConfigsResourceResponse::default()
                .with_error_code(40)
                .with_error_message(Some(text("no")))
                .with_resource_type(2)
                .with_resource_name(text("orders"));
            AlterConfigsResponse::default().with_responses(vec![response]).into()
        }
        ApiKey::IncrementalAlterConfigs => {
            let response = IncrementalAlterConfigsResourceResponse::default()
                .with_error_code(40)
                .with_error_message(None)
                .with_resource_type(4)
                .with_resource_name(text(""));
            IncrementalAlterConfigsResponse::default().with_responses(vec![response]).into()
        }
        other => unreachable!("{other} is no API of configurations"),
    }
}
