//! A client that was written elsewhere describes and changes configurations: librdkafka's admin calls.
//!
//! It decides by itself which versions it speaks and to whom, and parses what it is told. It has no call for single keys;
//! that is `protocol_rules`' to show.

use rdkafka::admin::{AlterConfig, ConfigEntry, ConfigSource, ResourceSpecifier};

use super::clients::librdkafka::{admin, admin_options, create_topic, wait_for};
use super::support::{BrokerOptions, Scratch};

#[test]
fn librdkafka_describes_and_replaces_configurations() {
    let scratch = Scratch::new("configuration-client");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let broker = options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "told", 1, &[("retention.ms", "60000")]);
    let admin = admin(&bootstrap);
    let describe = |resource: ResourceSpecifier<'_>| -> Vec<ConfigEntry> {
        let mut described =
            wait_for(admin.describe_configs([&resource], &admin_options())).expect("the broker answers");
        described.remove(0).expect("the resource is known").entries
    };
    let entries = describe(ResourceSpecifier::Topic("told"));
    assert_eq!(find(&entries, "retention.ms"), ("60000".into(), &ConfigSource::DynamicTopic, false));
    assert_eq!(find(&entries, "cleanup.policy"), ("delete".into(), &ConfigSource::Default, false));
    let entries = describe(ResourceSpecifier::Broker(1));
    assert_eq!(find(&entries, "node.id"), ("1".into(), &ConfigSource::Default, true));

    let alter = |config: AlterConfig<'_>| {
        let mut altered = wait_for(admin.alter_configs([&config], &admin_options())).expect("the broker answers");
        altered.remove(0).map(drop).map_err(|(_, code)| code)
    };
    let told = || AlterConfig::new(ResourceSpecifier::Topic("told"));
    assert_eq!(alter(told().set("segment.bytes", "2097152")), Ok(()));
    let entries = describe(ResourceSpecifier::Topic("told"));
    assert_eq!(find(&entries, "segment.bytes"), ("2097152".into(), &ConfigSource::DynamicTopic, false));
    assert_eq!(find(&entries, "retention.ms").1, &ConfigSource::Default, "it was replaced");
    // Its call does not tell the error of a single resource; what was refused has changed nothing.
    let _ = alter(told().set("segment.bytes", "1"));
    let entries = describe(ResourceSpecifier::Topic("told"));
    assert_eq!(find(&entries, "segment.bytes"), ("2097152".into(), &ConfigSource::DynamicTopic, false));
    assert_eq!(alter(AlterConfig::new(ResourceSpecifier::Broker(1)).set("log.retention.ms", "60000")), Ok(()));
    let entries = describe(ResourceSpecifier::Broker(1));
    assert_eq!(find(&entries, "log.retention.ms"), ("60000".into(), &ConfigSource::DynamicBroker, false));
}

/// The value of a key, where it comes from, and whether it is read-only.
fn find<'a>(entries: &'a [ConfigEntry], name: &str) -> (String, &'a ConfigSource, bool) {
    let entry = entries.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("no entry {name}"));
    (entry.value.clone().unwrap_or_default(), &entry.source, entry.is_read_only)
}
