//! Changes of what topics and brokers set of the configuration.
//!
//! A resource is changed whole or not at all; an error of one leaves the others alone. What becomes of a list is decided by
//! the value in force, so that a word can be added to a list that was only inherited. Only changes become records. Values are
//! stored as the key's type writes them, whatever the client wrote around them.
//!
//! It does not know the partitions to which a change applies, nor when it takes effect.
//!
//! Source: AlterConfigs 0–2 and IncrementalAlterConfigs 0–1 of Kafka 4.2; KIP-226 (brokers), KIP-339 (lists).

use std::collections::BTreeMap;

use super::image::{ClusterImage, ConfigOverrides};
use super::record::{ConfigResource, MetadataRecord};
use super::{Controller, Decision};
use crate::config::{BrokerConfig, ConfigError, DynamicSettings, Key, Level};
use crate::types::{BrokerId, ErrorCode, TopicName, TopicNameError};

/// A request to change configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterConfigs {
    /// What is to be changed.
    pub resources: Vec<AlterResource>,
    /// Check and answer only, change nothing.
    pub validate_only: bool,
}

/// A topic or broker to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterResource {
    /// Which one.
    pub resource: NamedResource,
    /// How.
    pub alteration: Alteration,
}

/// A topic or broker as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedResource {
    /// The topic of this name.
    Topic(String),
    /// The broker of this id; all brokers if it is empty.
    Broker(String),
    /// What has no configuration here.
    Other {
        /// The number of its type.
        kind: i8,
    },
}

/// How a configuration is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// It is these keys and values, and nothing else from before.
    Replace(Vec<(String, Option<String>)>),
    /// Single keys change.
    Change(Vec<KeyChange>),
}

/// A change of one key, as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key.
    pub key: String,
    /// What to do; the number if there is no such operation.
    pub operation: Result<ConfigOperation, i8>,
    /// The value, or the words of a list.
    pub value: Option<String>,
}

/// What is done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigOperation {
    /// It gets the value.
    Set,
    /// It gets back what it would have had.
    Delete,
    /// The words are added to the list, unless they are in it.
    Append,
    /// The words are taken out of the list.
    Subtract,
}

/// Why a configuration is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterConfigError {
    /// The type of the resource has no configuration here.
    #[error("resources of type {kind} have no configuration here; topics are 2, brokers 4")]
    Kind {
        /// The number of the type.
        kind: i8,
    },
    /// No topic has a name like this.
    #[error("{0}")]
    TopicName(#[from] TopicNameError),
    /// No topic has this name.
    #[error("no topic has this name")]
    UnknownTopic,
    /// Another broker, or none.
    #[error(
        "this is broker {node}; a broker's own configuration is changed there, and that of all brokers without an id"
    )]
    OtherBroker {
        /// The broker that was asked.
        node: BrokerId,
    },
    /// The request names the resource more than once.
    #[error("the request names this resource more than once")]
    Repeated,
    /// The request names a key more than once.
    #[error("the request names the key '{key}' more than once")]
    KeyRepeated {
        /// The key.
        key: String,
    },
    /// A value is missing.
    #[error("the key '{key}' has no value")]
    NoValue {
        /// The key.
        key: &'static str,
    },
    /// No such operation.
    #[error("there is no operation {operation} on the key '{key}'; SET is 0, DELETE 1, APPEND 2, SUBTRACT 3")]
    Operation {
        /// The key.
        key: &'static str,
        /// The number.
        operation: i8,
    },
    /// An operation on lists for a key that is none.
    #[error("'{key}' is no list, so that nothing can be appended to it or subtracted from it")]
    NoList {
        /// The key.
        key: &'static str,
    },
    /// The key or its value is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl AlterConfigError {
    /// Kafka's code for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            AlterConfigError::TopicName(_) => ErrorCode::InvalidTopicException,
            AlterConfigError::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
            AlterConfigError::Kind { .. }
            | AlterConfigError::OtherBroker { .. }
            | AlterConfigError::Repeated
            | AlterConfigError::KeyRepeated { .. }
            | AlterConfigError::NoValue { .. }
            | AlterConfigError::Operation { .. }
            | AlterConfigError::Config(ConfigError::ReadOnly { .. }) => ErrorCode::InvalidRequest,
            AlterConfigError::NoList { .. } | AlterConfigError::Config(_) => ErrorCode::InvalidConfig,
        }
    }
}

impl Controller {
    /// Changes configurations, as the broker with the configuration `broker` is asked to. Answers resource by resource, in the
    /// order of the request.
    pub fn alter_configs(
        &self,
        request: &AlterConfigs,
        broker: &BrokerConfig,
    ) -> Decision<Vec<Result<(), AlterConfigError>>> {
        let named = |wanted: &AlterResource| self.image().find_resource(&wanted.resource, broker.node_id);
        let named: Vec<_> = request.resources.iter().map(named).collect();
        let mut times: BTreeMap<ConfigResource, usize> = BTreeMap::new();
        named.iter().flatten().for_each(|resource| *times.entry(*resource).or_default() += 1);
        let mut records = Vec::new();
        let mut alter = |(wanted, named): (&AlterResource, Result<ConfigResource, AlterConfigError>)| {
            let resource = named?;
            if times.get(&resource) != Some(&1) {
                return Err(AlterConfigError::Repeated);
            }
            let change = ResourceChange::new(self, resource, broker);
            records.extend(change.records(&wanted.alteration)?);
            Ok(())
        };
        let response = request.resources.iter().zip(named).map(&mut alter).collect();
        Decision { records: if request.validate_only { Vec::new() } else { records }, response }
    }
}

impl ClusterImage {
    /// The resource that a client means at the broker `node`.
    pub fn find_resource(&self, named: &NamedResource, node: BrokerId) -> Result<ConfigResource, AlterConfigError> {
        match named {
            NamedResource::Topic(name) => {
                let name = TopicName::new(name)?;
                let topic = self.topic_by_name(name.as_str());
                topic.map(|topic| ConfigResource::Topic(topic.id)).ok_or(AlterConfigError::UnknownTopic)
            }
            NamedResource::Broker(id) if id.is_empty() => Ok(ConfigResource::AllBrokers),
            NamedResource::Broker(id) if id.parse() == Ok(node.value()) => Ok(ConfigResource::Broker(node)),
            NamedResource::Broker(_) => Err(AlterConfigError::OtherBroker { node }),
            NamedResource::Other { kind } => Err(AlterConfigError::Kind { kind: *kind }),
        }
    }

    /// What is set of the broker `node` and of all brokers, and what is wrong with that which cannot be used.
    pub fn dynamic_settings(&self, node: BrokerId) -> (DynamicSettings, Vec<ConfigError>) {
        let pairs = |broker| {
            let configs = self.broker_configs(broker).into_iter().flat_map(|configs| configs.iter());
            configs.map(|(key, value)| (key.as_str(), value.as_str()))
        };
        DynamicSettings::read(pairs(Some(node)), pairs(None))
    }
}

/// New values of keys; `None` resets one.
type NewValues = BTreeMap<String, Option<String>>;

/// One resource whose configuration is to change.
struct ResourceChange<'a> {
    controller: &'a Controller,
    resource: ConfigResource,
    level: Level,
    current: &'a ConfigOverrides,
    broker: &'a BrokerConfig,
}

impl<'a> ResourceChange<'a> {
    fn new(controller: &'a Controller, resource: ConfigResource, broker: &'a BrokerConfig) -> ResourceChange<'a> {
        static NOTHING: ConfigOverrides = ConfigOverrides::new();
        let image = controller.image();
        let (level, current) = match resource {
            ConfigResource::Topic(id) => (Level::Topic, image.topic(id).map(|topic| &topic.configs)),
            ConfigResource::Broker(id) => (Level::Broker, image.broker_configs(Some(id)).map(|configs| &**configs)),
            ConfigResource::AllBrokers => (Level::Broker, image.broker_configs(None).map(|configs| &**configs)),
        };
        ResourceChange { controller, resource, level, current: current.unwrap_or(&NOTHING), broker }
    }

    /// The records that make the alteration.
    fn records(&self, alteration: &Alteration) -> Result<Vec<MetadataRecord>, AlterConfigError> {
        let wanted = match alteration {
            Alteration::Replace(pairs) => self.replaced(pairs)?,
            Alteration::Change(changes) => self.changed(changes)?,
        };
        let new = wanted.into_iter().filter(|(key, value)| self.current.get(key) != value.as_ref());
        let resource = self.resource;
        Ok(new.map(|(key, value)| MetadataRecord::ConfigChanged { resource, key, value }).collect())
    }

    fn replaced(&self, pairs: &[(String, Option<String>)]) -> Result<NewValues, AlterConfigError> {
        let mut wanted: NewValues = self.current.keys().map(|key| (key.clone(), None)).collect();
        let mut given = NewValues::new();
        for (name, value) in pairs {
            let (key, value) = self.set(name, value.as_deref())?;
            insert_once(&mut given, key, value)?;
        }
        wanted.append(&mut given);
        Ok(wanted)
    }

    fn changed(&self, changes: &[KeyChange]) -> Result<NewValues, AlterConfigError> {
        let mut wanted = NewValues::new();
        for change in changes {
            let value = change.value.as_deref();
            let (key, value) = match change.operation {
                Ok(ConfigOperation::Set) => self.set(&change.key, value)?,
                Ok(ConfigOperation::Delete) => (self.deleted(&change.key)?, None),
                Ok(ConfigOperation::Append) => self.relist(&change.key, value, append)?,
                Ok(ConfigOperation::Subtract) => self.relist(&change.key, value, subtract)?,
                Err(operation) => {
                    let (key, _) = self.level.key(&change.key)?;
                    return Err(AlterConfigError::Operation { key, operation });
                }
            };
            insert_once(&mut wanted, key, value)?;
        }
        Ok(wanted)
    }

    fn set(&self, name: &str, value: Option<&str>) -> Result<(String, Option<String>), AlterConfigError> {
        let (key, _) = self.level.key(name)?;
        let value = value.ok_or(AlterConfigError::NoValue { key })?;
        let (key, value) = self.level.parse(name, value)?;
        Ok((key.to_owned(), Some(value.to_string())))
    }

    /// A key that is set can be reset, also one that this version does not know.
    fn deleted(&self, name: &str) -> Result<String, AlterConfigError> {
        if !self.current.contains_key(name) {
            self.level.key(name)?;
        }
        Ok(name.to_owned())
    }

    /// The list in force after `change` with the words.
    fn relist(
        &self,
        name: &str,
        words: Option<&str>,
        change: impl Fn(&mut Vec<String>, &str),
    ) -> Result<(String, Option<String>), AlterConfigError> {
        let (key, row) = self.level.key(name)?;
        if !row.kind.is_list() {
            return Err(AlterConfigError::NoList { key });
        }
        let words = words.ok_or(AlterConfigError::NoValue { key })?;
        let mut list = self.list_in_force(key, row);
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            change(&mut list, word);
        }
        self.set(name, Some(&list.join(",")))
    }

    fn list_in_force(&self, name: &str, key: &'static Key) -> Vec<String> {
        // What of the settings cannot be used is not in force, and was told when it was left out.
        let (dynamic, _) = self.controller.image().dynamic_settings(self.broker.node_id);
        self.broker.with_dynamic(dynamic).list(key, self.current.get(name).map(String::as_str))
    }
}

fn append(list: &mut Vec<String>, word: &str) {
    if !list.iter().any(|present| present == word) {
        list.push(word.to_owned());
    }
}

fn subtract(list: &mut Vec<String>, word: &str) {
    list.retain(|present| present != word);
}

fn insert_once(values: &mut NewValues, key: String, value: Option<String>) -> Result<(), AlterConfigError> {
    match values.insert(key.clone(), value) {
        None => Ok(()),
        Some(_) => Err(AlterConfigError::KeyRepeated { key }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::controller::tests::{broker, commit, controller_of, create};
    use crate::types::TopicId;

    /// Broker 1, started with a few settings.
    fn started() -> BrokerConfig {
        let mut settings = Settings::new();
        settings.add_set("node.id", "1").expect("valid");
        settings.add_set("log.retention.bytes", "7").expect("valid");
        BrokerConfig::new(settings, 1, 1 << 30).expect("valid")
    }

    fn one(name: NamedResource, alteration: Alteration) -> AlterConfigs {
        AlterConfigs { resources: vec![AlterResource { resource: name, alteration }], validate_only: false }
    }

    fn topic() -> NamedResource {
        NamedResource::Topic("t".into())
    }

    fn change(key: &str, operation: ConfigOperation, value: Option<&str>) -> KeyChange {
        KeyChange { key: key.into(), operation: Ok(operation), value: value.map(str::to_owned) }
    }

    fn set(key: &str, value: &str) -> Alteration {
        Alteration::Change(vec![change(key, ConfigOperation::Set, Some(value))])
    }

    fn with_topic() -> (Controller, TopicId) {
        let mut controller = controller_of(2);
        let id = create(&mut controller, "t", 1);
        (controller, id)
    }

    #[track_caller]
    fn alter(controller: &mut Controller, request: &AlterConfigs) -> Vec<Result<(), AlterConfigError>> {
        let decision = controller.alter_configs(request, &started());
        commit(controller, decision)
    }

    #[track_caller]
    fn refusal(controller: &Controller, request: &AlterConfigs) -> AlterConfigError {
        let mut decision = controller.alter_configs(request, &started());
        assert_eq!(decision.records, []);
        decision.response.pop().expect("one answer").expect_err("refused")
    }

    fn own(controller: &Controller, topic: TopicId) -> Vec<(&str, &str)> {
        let topic = controller.image().topic(topic).expect("exists");
        topic.configs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    #[test]
    fn keys_are_set_and_reset_one_by_one() {
        let (mut controller, id) = with_topic();
        let both = Alteration::Change(vec![
            change("retention.ms", ConfigOperation::Set, Some(" 5 ")),
            change("segment.bytes", ConfigOperation::Set, Some("1048576")),
        ]);
        assert_eq!(alter(&mut controller, &one(topic(), both.clone())), [Ok(())]);
        assert_eq!(own(&controller, id), [("retention.ms", "5"), ("segment.bytes", "1048576")]);
        assert_eq!(controller.alter_configs(&one(topic(), both), &started()).records, [], "nothing changes");
        let reset = Alteration::Change(vec![
            change("retention.ms", ConfigOperation::Delete, None),
            change("retention.bytes", ConfigOperation::Delete, Some("ignored")),
        ]);
        assert_eq!(alter(&mut controller, &one(topic(), reset)), [Ok(())]);
        assert_eq!(own(&controller, id), [("segment.bytes", "1048576")]);
    }

    #[test]
    fn replacing_resets_what_is_not_named() {
        let (mut controller, id) = with_topic();
        let pairs = |pairs: &[(&str, &str)]| {
            Alteration::Replace(pairs.iter().map(|(key, value)| ((*key).into(), Some((*value).into()))).collect())
        };
        let first = pairs(&[("retention.ms", "5"), ("flush.ms", "6")]);
        assert_eq!(alter(&mut controller, &one(topic(), first)), [Ok(())]);
        let second = pairs(&[("flush.ms", "7"), ("segment.ms", "8")]);
        let records = controller.alter_configs(&one(topic(), second.clone()), &started()).records;
        assert_eq!(records.len(), 3, "one is reset, one changed, one new");
        assert_eq!(alter(&mut controller, &one(topic(), second)), [Ok(())]);
        assert_eq!(own(&controller, id), [("flush.ms", "7"), ("segment.ms", "8")]);
        assert_eq!(alter(&mut controller, &one(topic(), pairs(&[]))), [Ok(())]);
        assert_eq!(own(&controller, id), []);
    }

    #[test]
    fn brokers_have_their_own_values_and_those_of_all() {
        let (mut controller, _) = with_topic();
        let (this, all) = (NamedResource::Broker("1".into()), NamedResource::Broker(String::new()));
        assert_eq!(alter(&mut controller, &one(this.clone(), set("log.retention.ms", "1"))), [Ok(())]);
        assert_eq!(alter(&mut controller, &one(all, set("log.retention.ms", "2"))), [Ok(())]);
        let value = |id: Option<BrokerId>| {
            controller.image().broker_configs(id).and_then(|configs| configs.get("log.retention.ms")).cloned()
        };
        assert_eq!((value(Some(broker(1))), value(None)), (Some("1".into()), Some("2".into())));
        assert_eq!(value(Some(broker(2))), None);
        let reset = Alteration::Change(vec![change("log.retention.ms", ConfigOperation::Delete, None)]);
        assert_eq!(alter(&mut controller, &one(this, reset)), [Ok(())]);
        assert_eq!(controller.image().broker_configs(Some(broker(1))), None);
    }

    #[test]
    fn words_are_added_to_the_list_in_force_and_taken_from_it() {
        let (mut controller, id) = with_topic();
        let policy = |operation| Alteration::Change(vec![change("cleanup.policy", operation, Some("delete"))]);
        let all = NamedResource::Broker(String::new());
        for (name, operation, expected) in [
            // Inherited from the default; from then on the topic's own.
            (&topic(), ConfigOperation::Append, "delete"),
            (&topic(), ConfigOperation::Append, "delete"),
            (&topic(), ConfigOperation::Subtract, ""),
            (&topic(), ConfigOperation::Subtract, ""),
            (&topic(), ConfigOperation::Append, "delete"),
        ] {
            assert_eq!(alter(&mut controller, &one(name.clone(), policy(operation))), [Ok(())]);
            assert_eq!(own(&controller, id), [("cleanup.policy", expected)], "{operation:?}");
        }
        // What all brokers have is what a topic without its own inherits.
        assert_eq!(alter(&mut controller, &one(all, set("log.cleanup.policy", ""))), [Ok(())]);
        let reset = Alteration::Change(vec![change("cleanup.policy", ConfigOperation::Delete, None)]);
        assert_eq!(alter(&mut controller, &one(topic(), reset)), [Ok(())]);
        assert_eq!(alter(&mut controller, &one(topic(), policy(ConfigOperation::Subtract))), [Ok(())]);
        assert_eq!(own(&controller, id), [("cleanup.policy", "")]);
    }

    #[test]
    fn refusals_have_kafkas_codes_and_say_why() {
        let (controller, _) = with_topic();
        let changes = |changes: &[(&str, ConfigOperation, Option<&str>)]| {
            Alteration::Change(changes.iter().map(|(key, operation, value)| change(key, *operation, *value)).collect())
        };
        let unknown_operation =
            Alteration::Change(vec![KeyChange { operation: Err(4), ..change("flush.ms", ConfigOperation::Set, None) }]);
        let (named, wrong_name) = (NamedResource::Topic("u".into()), NamedResource::Topic("a b".into()));
        let broker = |id: &str| NamedResource::Broker(id.into());
        let twice = [("flush.ms", ConfigOperation::Set, Some("1")), ("flush.ms", ConfigOperation::Delete, None)];
        let pairs = |pairs: &[(&str, Option<&str>)]| {
            Alteration::Replace(pairs.iter().map(|(key, value)| ((*key).into(), value.map(str::to_owned))).collect())
        };
        use ConfigOperation::{Append, Delete, Set, Subtract};
        use ErrorCode::{InvalidConfig, InvalidRequest, InvalidTopicException, UnknownTopicOrPartition};
        let cases = [
            (NamedResource::Other { kind: 8 }, set("x", "1"), InvalidRequest, "type 8"),
            (named, set("flush.ms", "1"), UnknownTopicOrPartition, "no topic"),
            (wrong_name, set("flush.ms", "1"), InvalidTopicException, "' '"),
            (broker("2"), set("flush.bytes", "1"), InvalidRequest, "this is broker 1"),
            (broker("one"), set("flush.bytes", "1"), InvalidRequest, "this is broker 1"),
            (broker("1"), set("node.id", "2"), InvalidRequest, "'node.id' is read when the broker starts"),
            (broker(""), set("retention.ms", "2"), InvalidConfig, "use 'log.retention.ms' here"),
            (topic(), set("retention.msx", "2"), InvalidConfig, "the nearest one is 'retention.ms'"),
            (topic(), set("segment.bytes", "5"), InvalidConfig, "'segment.bytes' ranges from 1048576 to 2147483647"),
            (topic(), set("cleanup.policy", "compact"), InvalidConfig, "of none: delete"),
            (topic(), changes(&twice), InvalidRequest, "'flush.ms' more than once"),
            (topic(), changes(&[("flush.ms", Set, None)]), InvalidRequest, "'flush.ms' has no value"),
            (topic(), changes(&[("x", Delete, None)]), InvalidConfig, "unknown key 'x'"),
            (topic(), changes(&[("flush.ms", Append, Some("1"))]), InvalidConfig, "'flush.ms' is no list"),
            (topic(), changes(&[("flush.ms", Subtract, Some("1"))]), InvalidConfig, "'flush.ms' is no list"),
            (topic(), changes(&[("cleanup.policy", Append, None)]), InvalidRequest, "has no value"),
            (topic(), changes(&[("cleanup.policy", Append, Some("compact"))]), InvalidConfig, "'delete,compact'"),
            (topic(), unknown_operation, InvalidRequest, "no operation 4 on the key 'flush.ms'"),
            (topic(), pairs(&[("flush.ms", None)]), InvalidRequest, "'flush.ms' has no value"),
            (topic(), pairs(&[("flush.ms", Some("1")), ("flush.ms", Some("1"))]), InvalidRequest, "more than once"),
        ];
        for (name, alteration, code, text) in cases {
            let error = refusal(&controller, &one(name.clone(), alteration.clone()));
            assert_eq!(error.code(), code, "{name:?} {alteration:?}: {error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn a_resource_is_changed_whole_or_not_at_all_and_leaves_the_others_alone() {
        let (mut controller, id) = with_topic();
        let other = create(&mut controller, "other", 1);
        let half = Alteration::Change(vec![
            change("retention.ms", ConfigOperation::Set, Some("1")),
            change("flush.ms", ConfigOperation::Set, Some("0")),
        ]);
        let resource = |resource, alteration| AlterResource { resource, alteration };
        let twice = || resource(NamedResource::Broker("1".into()), set("flush.bytes", "1"));
        let resources = vec![
            resource(topic(), half),
            twice(),
            resource(NamedResource::Topic("other".into()), set("retention.ms", "1")),
            twice(),
        ];
        let response = alter(&mut controller, &AlterConfigs { resources, validate_only: false });
        let codes: Vec<_> = response.iter().map(|result| result.as_ref().map_err(AlterConfigError::code)).collect();
        let repeated = Err(ErrorCode::InvalidRequest);
        assert_eq!(codes, [Err(ErrorCode::InvalidConfig), repeated, Ok(&()), repeated]);
        assert_eq!((own(&controller, id), own(&controller, other)), (vec![], vec![("retention.ms", "1")]));
        assert_eq!(controller.image().broker_configs(Some(broker(1))), None);
    }

    #[test]
    fn validation_only_answers_alike_and_decides_nothing() {
        let (controller, _) = with_topic();
        for alteration in [set("retention.ms", "1"), set("retention.ms", "-2")] {
            let real = one(topic(), alteration);
            let tried = AlterConfigs { validate_only: true, ..real.clone() };
            let (real, tried) =
                (controller.alter_configs(&real, &started()), controller.alter_configs(&tried, &started()));
            assert_eq!((real.response, tried.records.len()), (tried.response, 0));
        }
    }

    #[test]
    fn what_a_newer_version_has_set_can_be_reset() {
        let (mut controller, id) = with_topic();
        let record = MetadataRecord::ConfigChanged {
            resource: ConfigResource::Topic(id),
            key: "future.key".into(),
            value: Some("1".into()),
        };
        commit(&mut controller, Decision { records: vec![record], response: () });
        let reset = Alteration::Change(vec![change("future.key", ConfigOperation::Delete, None)]);
        assert_eq!(alter(&mut controller, &one(topic(), reset)), [Ok(())]);
        assert_eq!(own(&controller, id), []);
    }
}
