//! Metadata: which brokers there are, and which topics with their partitions and leaders.
//!
//! Null topics are all of them; an empty list is none from version 1 on (version 0 has no null: empty is all). Topics are
//! named or, from version 10 on, given by id; never both. An unknown topic is created when the request and
//! `auto.create.topics.enable` agree, never when all are asked for; until it can be used the answer is retriable.
//!
//! Source: Kafka protocol, Metadata 0–13; KIP-204 (auto creation), KIP-430 (authorized operations), KIP-516 (topic ids).

use std::rc::Rc;

use uuid::Uuid;

use super::authorized_operations;
use super::listeners::ListenerId;
use super::shard::{FIRST, Shard};
use super::topics;
use crate::controller::{ClusterImage, Topic};
use crate::types::{BrokerId, ErrorCode, TopicId, TopicName};
use crate::wire::control::OPERATIONS_NOT_ASKED;
use crate::wire::messages::{
    self, MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic, StrBytes,
};

/// Version from which an empty list of topics means none.
const EMPTY_MEANS_NONE_FROM: i16 = 1;
/// Version from which the request says whether it wants topics to be created; before, it always does.
const ASKS_FOR_CREATION_FROM: i16 = 4;

pub(super) async fn answer(
    shard: &Rc<Shard>,
    listener: ListenerId,
    version: i16,
    request: MetadataRequest,
) -> MetadataResponse {
    let all = request.topics.as_ref().is_none_or(|topics| topics.is_empty() && version < EMPTY_MEANS_NONE_FROM);
    let may_create = request.allow_auto_topic_creation || version < ASKS_FOR_CREATION_FROM;
    let mut topics: Vec<MetadataResponseTopic> = if all {
        let image = shard.image();
        image.topics().map(|topic| describe(&image, topic)).collect()
    } else {
        let mut described = Vec::new();
        for topic in request.topics.unwrap_or_default() {
            described.push(describe_asked(shard, topic, may_create).await);
        }
        described
    };
    if request.include_topic_authorized_operations {
        for found in topics.iter_mut().filter(|topic| topic.error_code == ErrorCode::None.code()) {
            found.topic_authorized_operations = authorized_operations::TOPIC;
        }
    }
    let cluster_operations = match request.include_cluster_authorized_operations {
        true => authorized_operations::CLUSTER,
        false => OPERATIONS_NOT_ASKED,
    };
    let image = shard.image();
    MetadataResponse::default()
        .with_cluster_authorized_operations(cluster_operations)
        .with_brokers(brokers(shard, &image, listener))
        .with_cluster_id(Some(StrBytes::from_string(shard.cluster().to_string())))
        .with_controller_id(broker_id(shard.node()))
        .with_topics(topics)
}

fn broker_id(broker: BrokerId) -> messages::BrokerId {
    messages::BrokerId(broker.value())
}

fn brokers(shard: &Shard, image: &ClusterImage, listener: ListenerId) -> Vec<MetadataResponseBroker> {
    let registered = image.brokers().filter_map(|broker| {
        let endpoint = shard.endpoint(image, broker.broker, listener)?;
        let described = MetadataResponseBroker::default()
            .with_node_id(broker_id(broker.broker))
            .with_host(StrBytes::from_string(endpoint.host))
            .with_port(i32::from(endpoint.port));
        Some(described)
    });
    registered.collect()
}

async fn describe_asked(shard: &Rc<Shard>, asked: MetadataRequestTopic, may_create: bool) -> MetadataResponseTopic {
    let id = TopicId::from_bytes(asked.topic_id.into_bytes());
    match (&asked.name, asked.topic_id.is_nil()) {
        (Some(name), true) => describe_named(shard, name, may_create).await,
        (None, false) => {
            let image = shard.image();
            match image.topic(id) {
                Some(topic) => describe(&image, topic),
                None => refused(&asked, ErrorCode::UnknownTopicId),
            }
        }
        _ => refused(&asked, ErrorCode::InvalidRequest),
    }
}

async fn describe_named(shard: &Rc<Shard>, name: &str, may_create: bool) -> MetadataResponseTopic {
    let image = shard.image();
    if let Some(topic) = image.topic_by_name(name) {
        return describe(&image, topic);
    }
    let unknown = |code| {
        let name = messages::TopicName(StrBytes::from_string(name.to_string()));
        MetadataResponseTopic::default().with_error_code(ErrorCode::code(code)).with_name(Some(name))
    };
    let Ok(legal) = TopicName::new(name) else { return unknown(ErrorCode::InvalidTopicException) };
    if !may_create || !shard.config().auto_create_topics {
        return unknown(ErrorCode::UnknownTopicOrPartition);
    }
    let created = shard.call(FIRST, move |first| async move { topics::create_automatically(&first, &legal).await });
    match created.await {
        Ok(()) => {
            let image = shard.image();
            image
                .topic_by_name(name)
                .map_or_else(|| unknown(ErrorCode::LeaderNotAvailable), |topic| describe(&image, topic))
        }
        Err(code) => unknown(code),
    }
}

fn refused(asked: &MetadataRequestTopic, code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(asked.name.clone())
        .with_topic_id(asked.topic_id)
}

fn describe(image: &ClusterImage, topic: &Topic) -> MetadataResponseTopic {
    let ids = |brokers: &[BrokerId]| brokers.iter().copied().map(broker_id).collect::<Vec<_>>();
    let partitions = topic.partitions.iter().map(|partition| {
        let leader = partition.leader.filter(|leader| image.broker(*leader).is_some());
        let code = if leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
        MetadataResponsePartition::default()
            .with_error_code(code.code())
            .with_partition_index(partition.index.value())
            .with_leader_id(leader.map_or(messages::BrokerId(-1), broker_id))
            .with_leader_epoch(partition.leader_epoch.value())
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
    });
    MetadataResponseTopic::default()
        .with_name(Some(messages::TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(Uuid::from_bytes(topic.id.bytes()))
        .with_partitions(partitions.collect())
}
