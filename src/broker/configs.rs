//! The configuration that a running broker has, and what follows when it is changed.
//!
//! Changes are decided by the controller and durable in the metadata; [`apply`] then brings this shard to what the image says:
//! the broker's own configuration first, then every partition whose topic it touches. It is to be called whenever the image
//! may have changed, on each shard, and costs next to nothing when no configuration has. What it does it reads from the image
//! of that instant, so that calls which overlap agree in the end.
//!
//! Here too: the numbers that the wire has for resources, operations, sources and types.
//!
//! Source: `ConfigResource.Type`, `AlterConfigOp.OpType` and `DescribeConfigsResponse` of Apache Kafka; KIP-226.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::shard::Shard;
use super::topics;
use crate::config::{BrokerConfig, Kind, Source, TopicConfig, Width};
use crate::controller::{AlterConfigs, ClusterImage, NamedResource, Topic};
use crate::partition::{Partition, log_options};
use crate::runtime::yield_now;
use crate::storage::LogOptions;
use crate::types::{BrokerId, ErrorCode, TopicId};

/// The numbers of `ConfigResource.Type`.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Topics that are brought up to date before others are let in.
const TOPICS_AT_ONCE: usize = 32;

/// The configuration that a shard has, and the image that it was taken from.
pub(super) struct CurrentConfig {
    config: RefCell<Rc<BrokerConfig>>,
    applied: RefCell<Option<Arc<ClusterImage>>>,
}

impl CurrentConfig {
    /// What the broker was started with.
    pub(super) fn new(start: Rc<BrokerConfig>) -> CurrentConfig {
        CurrentConfig { config: RefCell::new(start), applied: RefCell::new(None) }
    }

    /// The configuration in force.
    pub(super) fn get(&self) -> Rc<BrokerConfig> {
        self.config.borrow().clone()
    }

    /// Takes in the broker's part of `image`; returns the image before it.
    fn take(&self, image: &Arc<ClusterImage>, node: BrokerId) -> Option<Arc<ClusterImage>> {
        let before = self.applied.replace(Some(image.clone()));
        if !is_broker_same(before.as_deref(), image, node) {
            let (dynamic, errors) = image.dynamic_settings(node);
            for error in errors {
                warn!(%error, "a setting of the cluster is left out");
            }
            let config = self.get().with_dynamic(dynamic);
            *self.config.borrow_mut() = Rc::new(config);
        }
        before
    }
}

fn is_broker_same(before: Option<&ClusterImage>, image: &ClusterImage, node: BrokerId) -> bool {
    let Some(before) = before else { return false };
    [Some(node), None].into_iter().all(|broker| before.broker_configs(broker) == image.broker_configs(broker))
}

/// Brings this shard to the configurations of the image as it is now.
pub(super) async fn apply(shard: &Rc<Shard>) {
    let image = shard.image();
    let before = shard.configs.take(&image, shard.node());
    let touched: Vec<TopicId> = match before {
        Some(before) if is_broker_same(Some(&before), &image, shard.node()) => {
            let changed = image.topics_changed_since(&before);
            changed.filter(|topic| is_config_new(&before, topic)).map(|topic| topic.id).collect()
        }
        _ => image.topics().map(|topic| topic.id).collect(),
    };
    for (index, topic) in touched.into_iter().enumerate() {
        if index > 0 && index.is_multiple_of(TOPICS_AT_ONCE) {
            yield_now().await;
        }
        apply_to(shard, topic);
    }
}

/// A topic that is new since then may have been opened with what it was created with, and changed later.
fn is_config_new(before: &ClusterImage, topic: &Topic) -> bool {
    before.topic(topic.id).is_none_or(|known| known.configs != topic.configs)
}

/// Brings the partitions of a topic that this shard serves to what the image says now.
fn apply_to(shard: &Shard, id: TopicId) {
    let partitions = shard.partitions_of(id);
    if partitions.is_empty() {
        return;
    }
    if let Some((config, options)) = in_force(shard, id) {
        partitions.iter().for_each(|partition| partition.reconfigure(&config, &options));
    }
}

/// Brings a partition that has just been opened to what the image says now: it may have changed since the opening began.
pub(super) fn apply_to_opened(shard: &Shard, partition: &Partition) {
    if let Some((config, options)) = in_force(shard, partition.id().topic) {
        partition.reconfigure(&config, &options);
    }
}

/// What a topic has now; `None` if it was deleted, or if it has what this version does not take.
fn in_force(shard: &Shard, id: TopicId) -> Option<(TopicConfig, LogOptions)> {
    let (image, broker) = (shard.image(), shard.config());
    let topic = image.topic(id)?;
    match broker.topic(&topic.configs) {
        Ok(config) => {
            let options = log_options(&config, &broker);
            Some((config, options))
        }
        Err(error) => {
            error!(topic = %topic.name, %error, "the topic keeps the configuration that it had");
            None
        }
    }
}

/// Decides and commits changes, and brings this shard to them. Answers resource by resource, with Kafka's code and why.
pub(super) async fn alter(shard: &Rc<Shard>, request: AlterConfigs) -> Vec<Result<(), (ErrorCode, String)>> {
    let config = shard.config();
    let (count, validate_only) = (request.resources.len(), request.validate_only);
    let decided = shard.change(move |controller| controller.alter_configs(&request, &config)).await;
    match decided {
        Ok(results) => {
            let changed = results.iter().filter(|result| result.is_ok()).count();
            if !validate_only && changed > 0 {
                info!(resources = changed, "the configuration was changed");
            }
            results.into_iter().map(|result| result.map_err(|error| (error.code(), error.to_string()))).collect()
        }
        Err(error) => vec![Err((topics::propose_error_code(&error), error.to_string())); count],
    }
}

/// The resource of these words of the wire.
pub(super) fn named_resource(kind: i8, name: &str) -> NamedResource {
    match kind {
        TOPIC => NamedResource::Topic(name.to_owned()),
        BROKER => NamedResource::Broker(name.to_owned()),
        kind => NamedResource::Other { kind },
    }
}

/// The number of a source: `DescribeConfigsResponse.ConfigSource`.
pub(super) fn source_number(source: Source) -> i8 {
    match source {
        Source::Topic => 1,
        Source::DynamicBroker => 2,
        Source::DynamicDefault => 3,
        Source::Static => 4,
        Source::Default => 5,
    }
}

/// The number of a type: `DescribeConfigsResponse.ConfigType`.
pub(super) fn type_number(kind: Kind) -> i8 {
    match kind {
        Kind::Boolean => 1,
        Kind::Choice(_) => 2,
        Kind::Number { width: Width::Int, .. } | Kind::Level { .. } => 3,
        Kind::Number { width: Width::Long, .. } => 5,
        Kind::Words(_) | Kind::List => 7,
    }
}
