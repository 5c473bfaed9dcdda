//! CreatePartitions: the request in the controller's terms, its answer in the wire's.
//!
//! The answer goes out when the partitions are committed and can be used, with a result for every topic of the request; after
//! `timeout_ms` with REQUEST_TIMED_OUT for those that cannot be used yet, as for new topics.
//! Partitions that the topic had are not touched: whoever fetches from them or waits there notices nothing.
//!
//! Source: KIP-195.

use std::rc::Rc;

use super::shard::Shard;
use super::topics::{self, Opening};
use crate::controller::{CreatePartitions, CreatePartitionsError, GrowTopic, GrownTopic};
use crate::quorum::ProposeError;
use crate::types::ErrorCode;
use crate::wire::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult, StrBytes,
    TopicName,
};

/// What became of a topic that was to grow, by the name in the request.
type Growth = (String, Result<GrownTopic, CreatePartitionsError>);

pub(super) async fn answer(shard: &Rc<Shard>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let names: Vec<TopicName> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let topics = request.topics.iter().map(wanted).collect();
    let results = match create(shard, CreatePartitions { topics, validate_only: request.validate_only }).await {
        Ok((grown, opening)) => {
            let usable = topics::usable_within(request.timeout_ms, opening).await;
            grown.into_iter().map(|growth| describe(growth, usable)).collect()
        }
        Err(error) => {
            let code = topics::propose_error_code(&error);
            names.into_iter().map(|name| refused(name, code, error.to_string())).collect()
        }
    };
    CreatePartitionsResponse::default().with_results(results)
}

fn wanted(topic: &CreatePartitionsTopic) -> GrowTopic {
    let assignments = topic.assignments.as_ref().map(|assignments| {
        let brokers =
            assignments.iter().map(|assignment| assignment.broker_ids.iter().map(|broker| broker.0).collect());
        brokers.collect()
    });
    GrowTopic { name: topic.name.to_string(), partitions: topic.count, assignments }
}

/// Adds partitions: decided and committed when it returns, topic by topic, and usable when the task has ended. On the first
/// shard.
async fn create(shard: &Rc<Shard>, request: CreatePartitions) -> Result<(Vec<Growth>, Opening), ProposeError> {
    let rules = topics::rules(shard);
    let validate_only = request.validate_only;
    let first = shard.first();
    let grown = first.quorum.propose_with(move |controller| controller.create_partitions(&request, &rules)).await?;
    let topics = grown.iter().filter_map(|(_, result)| result.as_ref().ok()).filter(|_| !validate_only);
    let opening = topics::open_added(shard, topics.map(|topic| (topic.id, topic.added.len())).collect());
    Ok((grown, opening))
}

fn refused(name: TopicName, code: ErrorCode, message: String) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult::default()
        .with_name(name)
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(message)))
}

fn describe((name, result): Growth, usable: bool) -> CreatePartitionsTopicResult {
    let name = TopicName(StrBytes::from_string(name));
    match result {
        Ok(_) if !usable => refused(name, ErrorCode::RequestTimedOut, topics::STILL_MADE.to_string()),
        Ok(_) => CreatePartitionsTopicResult::default().with_name(name),
        Err(error) => refused(name, error.code(), error.to_string()),
    }
}
