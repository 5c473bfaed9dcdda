//! What can be changed while a broker runs, and that it then changes: for each such key one test that sets it over the wire and
//! sees its effect.
//!
//! A key that a topic may set is set of a topic, then of the broker, then of all brokers, and each time a topic without its own
//! value has to behave accordingly. `every_key_that_can_be_changed_has_a_test_of_its_effect` fails for a key without a row in
//! the table below. What is told of configurations, and what is refused, is the subject of `protocol_rules` (25, 26).
//!
//! | module | keys |
//! |---|---|
//! | `records` | what becomes of produced batches |
//! | `segments` | how logs are cut and what is deleted |
//! | `power` | what is durable when: in a simulated machine, whose power can be cut |
//! | `layers` | which value wins, and that it outlasts the process |
//! | `client` | librdkafka's own admin calls |

mod client;
#[path = "../clients/mod.rs"]
mod clients;
mod layers;
mod power;
mod records;
mod segments;
#[path = "../simulator/client.rs"]
mod sim_client;
#[path = "../support/mod.rs"]
mod support;

use clients::configs::Resource;
use clients::wire::Client;
use corelane::config::{Change, Key, keys};
use support::{Broker, BrokerOptions, Scratch};

/// Where a key is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Topic,
    Broker,
    AllBrokers,
}

impl Scope {
    /// Where this key can be set.
    fn of(key: &Key) -> &'static [Scope] {
        const ALL: &[Scope] = &[Scope::Topic, Scope::Broker, Scope::AllBrokers];
        if key.topic.is_some() { ALL } else { &ALL[1..] }
    }

    fn resource(self, topic: &str) -> Resource<'_> {
        match self {
            Scope::Topic => Resource::topic(topic),
            Scope::Broker => Resource::broker("1"),
            Scope::AllBrokers => Resource::ALL_BROKERS,
        }
    }

    /// The key's name there.
    fn name(self, key: &'static Key) -> &'static str {
        match self {
            Scope::Topic => key.topic.expect("a key of topics"),
            Scope::Broker | Scope::AllBrokers => key.name,
        }
    }
}

/// A key at work on a topic of a broker that has nothing else to do.
struct Setting {
    key: &'static Key,
    scope: Scope,
    client: Client,
    topic: String,
    data_dir: std::path::PathBuf,
}

impl Setting {
    /// Creates the topic, with values of its own for other keys than the one at work.
    fn create_topic(&mut self, configuration: &[(&str, &str)]) {
        self.client.create_topic(&self.topic, 1, configuration);
    }

    #[track_caller]
    fn set(&mut self, value: &str) {
        self.client.set(self.scope.resource(&self.topic), self.scope.name(self.key), value);
    }

    #[track_caller]
    fn reset(&mut self) {
        self.client.reset(self.scope.resource(&self.topic), self.scope.name(self.key));
    }
}

/// A broker that looks for segments to delete all the time and deletes none unless told so.
fn broker(scratch: &Scratch) -> Broker {
    let options = BrokerOptions::new(&scratch.path().join("data"))
        .set("log.retention.check.interval.ms", "50")
        .set("log.retention.ms", "-1");
    options.start().unwrap_or_else(|ended| panic!("{ended}"))
}

/// Shows the effect of a key wherever it can be set.
fn show(key: &'static Key, effect: fn(&mut Setting)) {
    let scratch = Scratch::new("configuration");
    let broker = broker(&scratch);
    for &scope in Scope::of(key) {
        let topic = format!("{scope:?}").to_lowercase();
        let client = Client::connect(broker.address());
        let data_dir = scratch.path().join("data");
        effect(&mut Setting { key, scope, client, topic, data_dir });
    }
}

macro_rules! effects {
    ($($test:ident: $key:ident, $show:path, $effect:path;)+) => {
        $(#[test]
        fn $test() {
            $show(&keys::$key, $effect);
        })+

        /// The keys whose effect is shown.
        const SHOWN: &[&Key] = &[$(&keys::$key),+];
    };
}

effects! {
    min_insync_replicas: MIN_INSYNC_REPLICAS, show, records::min_insync_replicas;
    max_message_bytes: MESSAGE_MAX_BYTES, show, records::max_message_bytes;
    message_timestamp_type: LOG_MESSAGE_TIMESTAMP_TYPE, show, records::timestamp_type;
    message_timestamp_before_max_ms: LOG_MESSAGE_TIMESTAMP_BEFORE_MAX_MS, show, records::timestamp_before;
    message_timestamp_after_max_ms: LOG_MESSAGE_TIMESTAMP_AFTER_MAX_MS, show, records::timestamp_after;
    compression_type: COMPRESSION_TYPE, show, records::compression_type;
    compression_gzip_level: COMPRESSION_GZIP_LEVEL, show, records::gzip_level;
    compression_zstd_level: COMPRESSION_ZSTD_LEVEL, show, records::zstd_level;
    producer_id_expiration_ms: PRODUCER_ID_EXPIRATION_MS, show, records::producer_expiration;
    segment_bytes: LOG_SEGMENT_BYTES, show, segments::segment_bytes;
    segment_ms: LOG_ROLL_MS, show, segments::segment_ms;
    index_interval_bytes: LOG_INDEX_INTERVAL_BYTES, show, segments::index_interval;
    cleanup_policy: LOG_CLEANUP_POLICY, show, segments::cleanup_policy;
    retention_ms: LOG_RETENTION_MS, show, segments::retention_ms;
    retention_bytes: LOG_RETENTION_BYTES, show, segments::retention_bytes;
    write_caching: WRITE_CACHING, power::show, power::write_caching;
    flush_ms: LOG_FLUSH_INTERVAL_MS, power::show, power::flush_ms;
    flush_messages: LOG_FLUSH_INTERVAL_MESSAGES, power::show, power::flush_messages;
    flush_bytes: FLUSH_BYTES, power::show, power::flush_bytes;
}

#[test]
fn every_key_that_can_be_changed_has_a_test_of_its_effect() {
    let names = |keys: &[&'static Key]| keys.iter().map(|key| key.name).collect::<std::collections::BTreeSet<_>>();
    let dynamic: Vec<_> = keys::ALL.iter().copied().filter(|key| key.change == Change::Dynamic).collect();
    assert_eq!(names(&dynamic), names(SHOWN));
    assert_eq!(names(SHOWN).len(), SHOWN.len(), "a key stands in the table twice");
}
