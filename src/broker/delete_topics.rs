//! DeleteTopics: the request in the controller's terms, its answer in the wire's.
//!
//! The answer goes out when the deletion is committed; the files go later, so that `timeout_ms` has nothing to bound. Up to
//! version 5 topics are named in one list; from version 6 on each is given by name or by id (KIP-516).

use std::rc::Rc;

use uuid::Uuid;

use super::shard::Shard;
use super::topics;
use crate::controller::{DeleteTopic, DeletedTopicResult};
use crate::types::{ErrorCode, TopicId};
use crate::wire::messages::{DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse, StrBytes, TopicName};

/// The first version that can give ids.
const IDS_FROM: i16 = 6;

pub(super) async fn answer(shard: &Rc<Shard>, version: i16, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let wanted: Vec<DeleteTopic> = if version >= IDS_FROM {
        let topics = request.topics.iter().map(|topic| DeleteTopic {
            name: topic.name.as_ref().map(|name| name.to_string()),
            id: (!topic.topic_id.is_nil()).then(|| TopicId::from_bytes(topic.topic_id.into_bytes())),
        });
        topics.collect()
    } else {
        let names = request.topic_names.iter();
        names.map(|name| DeleteTopic { name: Some(name.to_string()), id: None }).collect()
    };
    let results = match topics::delete(shard, wanted.clone()).await {
        Ok(deleted) => deleted.into_iter().map(describe).collect(),
        Err(error) => {
            let refused = |topic| result(topic, Some((topics::propose_error_code(&error), error.to_string())));
            wanted.into_iter().map(refused).collect()
        }
    };
    DeleteTopicsResponse::default().with_responses(results)
}

fn describe(deleted: DeletedTopicResult) -> DeletableTopicResult {
    match deleted.result {
        Ok((id, name)) => result(DeleteTopic { name: Some(name.to_string()), id: Some(id) }, None),
        Err(error) => result(deleted.request, Some((error.code(), error.to_string()))),
    }
}

fn result(topic: DeleteTopic, error: Option<(ErrorCode, String)>) -> DeletableTopicResult {
    let (code, message) = error.unzip();
    DeletableTopicResult::default()
        .with_name(topic.name.map(|name| TopicName(StrBytes::from_string(name))))
        .with_topic_id(topic.id.map_or(Uuid::nil(), |id| Uuid::from_bytes(id.bytes())))
        .with_error_code(code.unwrap_or(ErrorCode::None).code())
        .with_error_message(message.map(StrBytes::from_string))
}
