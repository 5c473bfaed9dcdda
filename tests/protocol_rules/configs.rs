//! Configurations as clients are told them, and as they change them.
//!
//! The tests share a broker, so what they change of the broker itself has no effect on the topics of others: the level of a
//! codec that nobody has the broker use. That changes take effect is the subject of `tests/configuration`.

use std::collections::BTreeSet;

use corelane::config::{Change, keys};
use corelane::record::Codec;
use corelane::types::ErrorCode;
use corelane::wire::messages::{
    ApiVersionsRequest, DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, StrBytes,
};

use super::Shared;
use super::clients::configs::{
    APPEND, Answered, DEFAULT, DELETE, OF_ALL_BROKERS, OF_BROKER, OF_TOPIC, Resource, SET, STATIC, SUBTRACT,
};
use super::clients::wire::{Client, batch, batches, code, fetch_request, partitions};

/// A key whose value matters to nobody here.
const HARMLESS: &str = "compression.zstd.level";
/// Kafka's number of a broker's loggers, which are not offered.
const BROKER_LOGGER: i8 = 8;

fn entry<'a>(entries: &'a [DescribeConfigsResourceResult], name: &str) -> &'a DescribeConfigsResourceResult {
    entries.iter().find(|entry| &*entry.name == name).unwrap_or_else(|| panic!("no entry {name}"))
}

fn value(entry: &DescribeConfigsResourceResult) -> Option<&str> {
    entry.value.as_deref()
}

/// The synonyms of an entry as (name, value, source).
fn synonyms(entry: &DescribeConfigsResourceResult) -> Vec<(&str, &str, i8)> {
    let told = entry.synonyms.iter();
    told.map(|synonym| (&*synonym.name, synonym.value.as_deref().expect("a value"), synonym.source)).collect()
}

fn names(entries: &[DescribeConfigsResourceResult]) -> BTreeSet<&str> {
    entries.iter().map(|entry| &*entry.name).collect()
}

#[test]
fn rule_25_a_topic_is_described_with_all_its_keys_in_every_version() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-25", 1, &[("retention.ms", "1000")]);
    let expected: BTreeSet<&str> = keys::of_topics().map(|(name, _)| name).collect();
    for version in 1..=4 {
        let result = client.describe(version, Resource::topic("rule-25"), &[]);
        assert_eq!((code(result.error_code), result.error_message.as_deref()), (ErrorCode::None, None));
        assert_eq!((names(&result.configs), result.configs.len()), (expected.clone(), expected.len()));
        for entry in &result.configs {
            assert!(entry.value.is_some() && !entry.read_only && !entry.is_sensitive, "{}", entry.name);
            let documented = entry.documentation.as_deref().is_some_and(|text| text.ends_with('.'));
            assert_eq!((documented, entry.config_type != 0), (version >= 3, version >= 3), "{}", entry.name);
        }
        let own = entry(&result.configs, "retention.ms");
        assert_eq!((value(own), own.config_source), (Some("1000"), OF_TOPIC));
        let default = entry(&result.configs, "cleanup.policy");
        assert_eq!((value(default), default.config_source), (Some("delete"), DEFAULT));
    }
}

#[test]
fn rule_25_types_are_kafkas() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-25-types", 1, &[]);
    let topic = client.describe(4, Resource::topic("rule-25-types"), &[]).configs;
    let broker = client.describe(4, Resource::broker("1"), &[]).configs;
    for (entries, name, expected) in [
        (&topic, "write.caching", 1),
        (&topic, "compression.type", 2),
        (&topic, "message.timestamp.type", 2),
        (&topic, "min.insync.replicas", 3),
        (&topic, "compression.gzip.level", 3),
        (&topic, "retention.ms", 5),
        (&topic, "cleanup.policy", 7),
        (&broker, "auto.create.topics.enable", 1),
        (&broker, "node.id", 3),
        (&broker, "log.retention.bytes", 5),
        (&broker, "listeners", 7),
    ] {
        assert_eq!(entry(entries, name).config_type, expected, "{name}");
    }
}

#[test]
fn rule_25_a_broker_is_described_by_its_id_with_all_its_keys() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let entries = client.describe(4, Resource::broker("1"), &[]).configs;
    assert_eq!(names(&entries), keys::ALL.iter().map(|key| key.name).collect());
    for key in keys::ALL {
        assert_eq!(entry(&entries, key.name).read_only, key.change == Change::ReadOnly, "{}", key.name);
    }
    let listeners = entry(&entries, "listeners");
    assert_eq!((value(listeners), listeners.config_source), (Some("127.0.0.1:0"), STATIC));
    assert_eq!(synonyms(listeners), [("listeners", "127.0.0.1:0", STATIC), ("listeners", "localhost:9092", DEFAULT)]);
    // What nothing sets has no value; what a coarser key or the machine decides has the one in force.
    assert_eq!(value(entry(&entries, "advertised.listeners")), None);
    assert_eq!(value(entry(&entries, "log.retention.ms")), Some("604800000"));
    assert!(value(entry(&entries, "memory.bytes")).is_some_and(|bytes| bytes.parse::<u64>().is_ok()));
}

#[test]
fn rule_25_synonyms_come_in_kafkas_order_when_they_are_asked_for() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-25-synonyms", 1, &[(HARMLESS, "4")]);
    client.set(Resource::broker("1"), HARMLESS, "5");
    client.set(Resource::ALL_BROKERS, HARMLESS, "6");
    let topic = Resource::topic("rule-25-synonyms");
    let broker = [(HARMLESS, "5", OF_BROKER), (HARMLESS, "6", OF_ALL_BROKERS), (HARMLESS, "3", DEFAULT)];
    let described = client.described(topic, HARMLESS);
    assert_eq!((value(&described), described.config_source), (Some("4"), OF_TOPIC));
    assert_eq!(synonyms(&described), [&[(HARMLESS, "4", OF_TOPIC)], &broker[..]].concat());
    let described = client.described(Resource::broker("1"), HARMLESS);
    assert_eq!((value(&described), described.config_source), (Some("5"), OF_BROKER));
    assert_eq!(synonyms(&described), broker);

    // What was set of all brokers is told without an id, and nothing else is.
    let all = client.describe(4, Resource::ALL_BROKERS, &[]).configs;
    assert_eq!(names(&all), BTreeSet::from([HARMLESS]));
    assert_eq!((value(&all[0]), all[0].config_source), (Some("6"), OF_ALL_BROKERS));
    assert_eq!(synonyms(&all[0]), [(HARMLESS, "6", OF_ALL_BROKERS)]);

    // The default stands on the coarsest key, in its unit.
    let described = client.described(topic, "retention.ms");
    assert_eq!(value(&described), Some("604800000"));
    assert_eq!(synonyms(&described), [("log.retention.hours", "168", DEFAULT)]);

    let asked = DescribeConfigsResource::default()
        .with_resource_type(topic.0)
        .with_resource_name(StrBytes::from_static_str("rule-25-synonyms"))
        .with_configuration_keys(None);
    let response = client.call(4, &DescribeConfigsRequest::default().with_resources(vec![asked.clone(), asked]));
    assert_eq!(response.results.len(), 1, "one resource, one answer");
    let plain = &response.results[0].configs;
    assert!(plain.iter().all(|entry| entry.synonyms.is_empty() && entry.documentation.is_none()));
    client.reset(Resource::broker("1"), HARMLESS);
    client.reset(Resource::ALL_BROKERS, HARMLESS);
    assert_eq!(client.describe(4, Resource::ALL_BROKERS, &[]).configs.len(), 0);
}

#[test]
fn rule_25_keys_narrow_the_answer_down() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-25-keys", 1, &[]);
    for version in 1..=4 {
        let result = client.describe(version, Resource::topic("rule-25-keys"), &["cleanup.policy", "no.such.key"]);
        assert_eq!((code(result.error_code), names(&result.configs)), (ErrorCode::None, ["cleanup.policy"].into()));
        let result = client.describe(version, Resource::broker("1"), &["no.such.key"]);
        assert_eq!((code(result.error_code), result.configs.len()), (ErrorCode::None, 0));
    }
}

#[test]
fn rule_25_what_cannot_be_described_says_why() {
    let shared = Shared::broker();
    let mut client = shared.client();
    for (resource, expected) in [
        (Resource::topic("rule-25-unknown"), ErrorCode::UnknownTopicOrPartition),
        (Resource::topic("rule 25"), ErrorCode::InvalidTopicException),
        (Resource::topic(""), ErrorCode::InvalidTopicException),
        (Resource::broker("2"), ErrorCode::InvalidRequest),
        (Resource::broker("one"), ErrorCode::InvalidRequest),
        (Resource(BROKER_LOGGER, "1"), ErrorCode::InvalidRequest),
        (Resource(0, ""), ErrorCode::InvalidRequest),
        (Resource(-1, "x"), ErrorCode::InvalidRequest),
    ] {
        for version in 1..=4 {
            let result = client.describe(version, resource, &[]);
            assert_eq!((code(result.error_code), result.configs.len()), (expected, 0), "{resource:?}");
            assert!(result.error_message.is_some_and(|message| !message.is_empty()), "{resource:?}");
        }
    }
}

#[test]
fn rule_25_the_finalized_metadata_version_tells_which_kafka_this_is() {
    let shared = Shared::broker();
    let mut client = shared.client();
    for version in 0..=4 {
        let answer = client.call(version, &ApiVersionsRequest::default());
        let finalized = answer.finalized_features.iter();
        let finalized: Vec<_> = finalized.map(|feature| (&*feature.name, feature.max_version_level)).collect();
        let expected: &[(&str, i16)] = if version < 3 { &[] } else { &[("metadata.version", 29)] };
        assert_eq!(finalized, expected, "version {version}");
    }
}

fn is_fine(answered: &Answered) -> bool {
    *answered == (ErrorCode::None, String::new())
}

fn policy(client: &mut Client, topic: &str) -> (String, i8) {
    client.value(Resource::topic(topic), "cleanup.policy")
}

#[test]
fn rule_26_words_are_appended_to_a_list_and_subtracted_from_it() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-26-list", 1, &[]);
    let topic = Resource::topic("rule-26-list");
    for (operation, word, expected) in [
        (APPEND, "delete", "delete"),
        (APPEND, "delete", "delete"),
        (SUBTRACT, "delete", ""),
        (SUBTRACT, "delete", ""),
        (APPEND, "delete", "delete"),
    ] {
        assert!(is_fine(&client.change_one(topic, "cleanup.policy", operation, Some(word))));
        assert_eq!(policy(&mut client, "rule-26-list"), (expected.to_owned(), OF_TOPIC));
    }
    let (error, message) = client.change_one(topic, "cleanup.policy", APPEND, Some("compact"));
    assert_eq!(error, ErrorCode::InvalidConfig, "{message}");
    for operation in [APPEND, SUBTRACT] {
        let (error, message) = client.change_one(topic, "retention.ms", operation, Some("1"));
        assert_eq!(
            (error, message.contains("'retention.ms' is no list")),
            (ErrorCode::InvalidConfig, true),
            "{message}"
        );
    }
    assert!(is_fine(&client.change_one(topic, "cleanup.policy", DELETE, None)));
    assert_eq!(policy(&mut client, "rule-26-list"), ("delete".to_owned(), DEFAULT));
}

#[test]
fn rule_26_keys_change_one_by_one_and_a_refusal_names_key_value_and_range() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-26-keys", 1, &[("retention.ms", "1000")]);
    let topic = Resource::topic("rule-26-keys");
    assert!(is_fine(&client.change(&[(topic, &[("flush.ms", SET, Some("7")), ("segment.ms", SET, Some("8"))])])[0]));
    assert_eq!(client.value(topic, "retention.ms"), ("1000".into(), OF_TOPIC), "it was not named");
    assert_eq!(client.value(topic, "segment.ms"), ("8".into(), OF_TOPIC));
    for (key, operation, value, expected, words) in [
        (
            "segment.bytes",
            SET,
            Some("5"),
            ErrorCode::InvalidConfig,
            &["segment.bytes", "'5'", "1048576 to 2147483647"][..],
        ),
        ("retention.msx", SET, Some("5"), ErrorCode::InvalidConfig, &["retention.msx", "'retention.ms'"]),
        ("log.retention.ms", SET, Some("5"), ErrorCode::InvalidConfig, &["use 'retention.ms' here"]),
        ("num.partitions", SET, Some("5"), ErrorCode::InvalidConfig, &["num.partitions"]),
        ("retention.ms", SET, None, ErrorCode::InvalidRequest, &["'retention.ms' has no value"]),
        ("retention.ms", 4, Some("5"), ErrorCode::InvalidRequest, &["operation 4"]),
        ("no.such.key", DELETE, None, ErrorCode::InvalidConfig, &["no.such.key"]),
    ] {
        let (error, message) = client.change_one(topic, key, operation, value);
        assert_eq!(error, expected, "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    assert_eq!(client.value(topic, "retention.ms"), ("1000".into(), OF_TOPIC), "nothing changed");
}

#[test]
fn rule_26_each_resource_is_changed_whole_or_not_at_all() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-26-a", 1, &[]);
    client.create_topic("rule-26-b", 1, &[]);
    let (a, b, unknown) = (Resource::topic("rule-26-a"), Resource::topic("rule-26-b"), Resource::topic("rule-26-c"));
    let answers = client.change(&[
        (a, &[("flush.ms", SET, Some("7")), ("flush.bytes", SET, Some("0"))]),
        (unknown, &[("flush.ms", SET, Some("7"))]),
        (b, &[("flush.ms", SET, Some("7"))]),
        (Resource::broker("1"), &[("node.id", SET, Some("2"))]),
        (Resource::broker("2"), &[(HARMLESS, SET, Some("2"))]),
        (Resource(BROKER_LOGGER, "1"), &[("root", SET, Some("DEBUG"))]),
    ]);
    let codes: Vec<ErrorCode> = answers.iter().map(|(code, _)| *code).collect();
    let expected = [
        ErrorCode::InvalidConfig,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::None,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
    ];
    assert_eq!(codes, expected, "{answers:?}");
    assert_eq!(client.value(a, "flush.ms").1, DEFAULT);
    assert_eq!(client.value(b, "flush.ms"), ("7".into(), OF_TOPIC));

    // Named twice, neither counts.
    let twice: &[_] = &[("flush.ms", SET, Some("8"))];
    let answers = client.change(&[(a, twice), (b, &[("flush.ms", SET, Some("9"))]), (a, twice)]);
    let codes: Vec<ErrorCode> = answers.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest, ErrorCode::None, ErrorCode::InvalidRequest]);
    let (error, message) = client.change(&[(a, &[("flush.ms", SET, Some("8")), ("flush.ms", DELETE, None)])]).remove(0);
    assert_eq!((error, message.contains("'flush.ms'")), (ErrorCode::InvalidRequest, true), "{message}");
    assert_eq!(client.value(a, "flush.ms").1, DEFAULT);
    assert_eq!(client.value(b, "flush.ms"), ("9".into(), OF_TOPIC));
}

#[test]
fn rule_26_alter_configs_replaces_everything_in_every_version() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-26-replace", 1, &[]);
    let topic = Resource::topic("rule-26-replace");
    for version in 0..=2 {
        let first = [("retention.ms", Some("1000")), ("flush.ms", Some("7"))];
        assert!(is_fine(&client.replace(version, topic, &first)));
        assert_eq!(client.value(topic, "retention.ms"), ("1000".into(), OF_TOPIC));
        assert!(is_fine(&client.replace(version, topic, &[("segment.ms", Some("8"))])));
        assert_eq!(client.value(topic, "segment.ms"), ("8".into(), OF_TOPIC));
        assert_eq!((client.value(topic, "retention.ms").1, client.value(topic, "flush.ms").1), (DEFAULT, DEFAULT));
        let wrong = [("segment.ms", Some("9")), ("flush.ms", Some("0"))];
        let (error, message) = client.replace(version, topic, &wrong);
        assert_eq!(
            (error, message.contains("'flush.ms' ranges from 1")),
            (ErrorCode::InvalidConfig, true),
            "{message}"
        );
        assert_eq!(client.replace(version, topic, &[("segment.ms", None)]).0, ErrorCode::InvalidRequest);
        assert_eq!(client.value(topic, "segment.ms"), ("8".into(), OF_TOPIC), "a refusal changes nothing");
        assert!(is_fine(&client.replace(version, topic, &[])));
        assert_eq!(client.value(topic, "segment.ms").1, DEFAULT);
    }
}

#[test]
fn a_topic_that_is_stored_in_zstd_is_given_only_to_clients_that_know_it() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("stored-in-zstd", 1, &[("compression.type", "zstd")]);
    client.append("stored-in-zstd", 0, &batch(&[&[b'x'; 1000]]));
    let request = fetch_request(&[("stored-in-zstd", 0, 0, 1 << 20)]);
    for version in 4..=12 {
        let fetched = partitions(client.call(version, &request)).remove(0);
        if version < 10 {
            assert_eq!(code(fetched.error_code), ErrorCode::UnsupportedCompressionType, "version {version}");
            assert_eq!(fetched.records.as_deref().unwrap_or_default().len(), 0, "version {version}");
        } else {
            assert_eq!(batches(&fetched)[0].codec(), Codec::Zstd, "version {version}");
        }
    }
}
