//! Configurations over the wire: requests that describe and change them, in words that tests read well.
//!
//! The requests are values, so that the tests on a socket and those in the simulator send the same. Nothing is retried, and
//! nothing is checked here but that answers have the form that they must have.

use corelane::types::ErrorCode;
use corelane::wire::messages::{
    AlterConfigsRequest, AlterConfigsResource, AlterableConfig, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeConfigsResourceResult, DescribeConfigsResult, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterConfigsResponse, IncrementalAlterableConfig, StrBytes,
};

use super::wire::{Client, code};

/// Kafka's numbers of operations.
pub(crate) const SET: i8 = 0;
pub(crate) const DELETE: i8 = 1;
pub(crate) const APPEND: i8 = 2;
pub(crate) const SUBTRACT: i8 = 3;

/// Kafka's numbers of sources.
pub(crate) const OF_TOPIC: i8 = 1;
pub(crate) const OF_BROKER: i8 = 2;
pub(crate) const OF_ALL_BROKERS: i8 = 3;
pub(crate) const STATIC: i8 = 4;
pub(crate) const DEFAULT: i8 = 5;

/// A topic or broker by Kafka's number of its type and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resource<'a>(pub(crate) i8, pub(crate) &'a str);

impl<'a> Resource<'a> {
    pub(crate) const ALL_BROKERS: Resource<'static> = Resource(4, "");

    pub(crate) fn topic(name: &'a str) -> Resource<'a> {
        Resource(2, name)
    }

    pub(crate) fn broker(id: &'a str) -> Resource<'a> {
        Resource(4, id)
    }
}

/// What became of a resource: the code, and what it says to people.
pub(crate) type Answered = (ErrorCode, String);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A key, what is done to it, and the value for that.
pub(crate) type Change<'a> = (&'a str, i8, Option<&'a str>);

/// A request that changes single keys: (resource, [(key, operation, value)]).
pub(crate) fn incremental(changes: &[(Resource<'_>, &[Change<'_>])]) -> IncrementalAlterConfigsRequest {
    let resources = changes.iter().map(|(Resource(kind, name), keys)| {
        let configs = keys.iter().map(|(key, operation, value)| {
            IncrementalAlterableConfig::default()
                .with_name(text(key))
                .with_config_operation(*operation)
                .with_value(value.map(text))
        });
        IncrementalAlterConfigsResource::default()
            .with_resource_type(*kind)
            .with_resource_name(text(name))
            .with_configs(configs.collect())
    });
    IncrementalAlterConfigsRequest::default().with_resources(resources.collect())
}

/// The answers of all resources, each of which has to be the one that was asked for.
#[track_caller]
pub(crate) fn answers(
    request: &IncrementalAlterConfigsRequest,
    response: IncrementalAlterConfigsResponse,
) -> Vec<Answered> {
    assert_eq!(request.resources.len(), response.responses.len(), "one answer for each resource");
    let pairs = request.resources.iter().zip(response.responses);
    let answers = pairs.map(|(asked, answer)| {
        let named = (answer.resource_type, &answer.resource_name);
        assert_eq!(named, (asked.resource_type, &asked.resource_name));
        (code(answer.error_code), answer.error_message.map(|message| message.to_string()).unwrap_or_default())
    });
    answers.collect()
}

impl Client {
    /// Changes keys of resources.
    #[track_caller]
    pub(crate) fn change(&mut self, changes: &[(Resource<'_>, &[Change<'_>])]) -> Vec<Answered> {
        let request = incremental(changes);
        let response = self.call(1, &request);
        answers(&request, response)
    }

    /// Changes one key.
    #[track_caller]
    pub(crate) fn change_one(
        &mut self,
        resource: Resource<'_>,
        key: &str,
        operation: i8,
        value: Option<&str>,
    ) -> Answered {
        self.change(&[(resource, &[(key, operation, value)])]).remove(0)
    }

    /// Sets one key, which has to succeed.
    #[track_caller]
    pub(crate) fn set(&mut self, resource: Resource<'_>, key: &str, value: &str) {
        assert_eq!(self.change_one(resource, key, SET, Some(value)), (ErrorCode::None, String::new()), "{key}={value}");
    }

    /// Resets one key, which has to succeed.
    #[track_caller]
    pub(crate) fn reset(&mut self, resource: Resource<'_>, key: &str) {
        assert_eq!(self.change_one(resource, key, DELETE, None), (ErrorCode::None, String::new()), "{key}");
    }

    /// Replaces what a resource sets.
    #[track_caller]
    pub(crate) fn replace(&mut self, version: i16, resource: Resource<'_>, pairs: &[(&str, Option<&str>)]) -> Answered {
        let configs = pairs.iter();
        let configs =
            configs.map(|(key, value)| AlterableConfig::default().with_name(text(key)).with_value(value.map(text)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(resource.0)
            .with_resource_name(text(resource.1))
            .with_configs(configs.collect());
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.call(version, &request).responses.remove(0);
        (code(answer.error_code), answer.error_message.map(|message| message.to_string()).unwrap_or_default())
    }

    /// Describes one resource, with synonyms and documentation; no keys are all.
    pub(crate) fn describe(&mut self, version: i16, resource: Resource<'_>, keys: &[&str]) -> DescribeConfigsResult {
        let keys = Some(keys.iter().map(|key| text(key)).collect()).filter(|keys: &Vec<StrBytes>| !keys.is_empty());
        let asked = DescribeConfigsResource::default()
            .with_resource_type(resource.0)
            .with_resource_name(text(resource.1))
            .with_configuration_keys(keys);
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![asked])
            .with_include_synonyms(true)
            .with_include_documentation(version >= 3);
        let mut response = self.call(version, &request);
        assert_eq!(response.results.len(), 1, "one answer for each resource");
        let result = response.results.remove(0);
        assert_eq!((result.resource_type, &*result.resource_name), (resource.0, resource.1));
        result
    }

    /// One key of a resource, which has to be there.
    #[track_caller]
    pub(crate) fn described(&mut self, resource: Resource<'_>, key: &str) -> DescribeConfigsResourceResult {
        let mut result = self.describe(4, resource, &[key]);
        assert_eq!((code(result.error_code), result.configs.len()), (ErrorCode::None, 1), "{key} of {resource:?}");
        result.configs.remove(0)
    }

    /// The value of a key and the number of its source.
    #[track_caller]
    pub(crate) fn value(&mut self, resource: Resource<'_>, key: &str) -> (String, i8) {
        let entry = self.described(resource, key);
        (entry.value.map(|value| value.to_string()).unwrap_or_default(), entry.config_source)
    }
}
