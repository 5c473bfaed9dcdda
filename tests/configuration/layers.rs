//! Which of several values wins, and that what was changed outlasts the process.
//!
//! `max.message.bytes` stands for all keys: its effect shows at once. A value of a topic wins over that of the broker, that over
//! the one of all brokers, that over what the broker was started with, that over the default.

use corelane::types::ErrorCode;

use super::clients::configs::{DELETE, OF_ALL_BROKERS, OF_BROKER, OF_TOPIC, Resource, SET, STATIC};
use super::clients::noise;
use super::clients::wire::{Client, batch, code};
use super::support::{BrokerOptions, Scratch};

const KEY: &str = "message.max.bytes";
const TOPIC_KEY: &str = "max.message.bytes";

/// The largest batch that the topic takes, of 1, 2, 3 … KiB; found over the wire.
fn kib_max(client: &mut Client, topic: &str) -> u64 {
    let fits = |kib: &u64| {
        let value = noise(*kib, usize::try_from((kib << 10) - 100).expect("a few KiB"));
        code(client.produce(topic, 0, &batch(&[&value])).error_code) == ErrorCode::None
    };
    (1..12).take_while(fits).last().unwrap_or(0)
}

#[test]
fn the_strongest_value_that_is_set_wins() {
    let scratch = Scratch::new("configuration-layers");
    let options = BrokerOptions::new(&scratch.path().join("data")).set(KEY, "2048");
    let broker = options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let mut client = Client::connect(broker.address());
    client.create_topic("own", 1, &[]);
    client.create_topic("other", 1, &[]);
    let (own, this) = (Resource::topic("own"), Resource::broker("1"));
    let both = |client: &mut Client| (kib_max(client, "own"), kib_max(client, "other"));
    assert_eq!((both(&mut client), client.value(own, TOPIC_KEY)), ((2, 2), ("2048".into(), STATIC)));
    client.set(Resource::ALL_BROKERS, KEY, "4096");
    assert_eq!((both(&mut client), client.value(own, TOPIC_KEY)), ((4, 4), ("4096".into(), OF_ALL_BROKERS)));
    client.set(this, KEY, "3072");
    assert_eq!((both(&mut client), client.value(own, TOPIC_KEY)), ((3, 3), ("3072".into(), OF_BROKER)));
    client.set(own, TOPIC_KEY, "5120");
    assert_eq!((both(&mut client), client.value(own, TOPIC_KEY)), ((5, 3), ("5120".into(), OF_TOPIC)));
    // A topic that is made now follows the broker from the start.
    client.create_topic("late", 1, &[]);
    assert_eq!(kib_max(&mut client, "late"), 3);
    client.reset(this, KEY);
    assert_eq!(both(&mut client), (5, 4));
    client.reset(own, TOPIC_KEY);
    client.reset(Resource::ALL_BROKERS, KEY);
    assert_eq!((both(&mut client), client.value(own, TOPIC_KEY)), ((2, 2), ("2048".into(), STATIC)));
}

#[test]
fn what_was_changed_is_in_force_after_kill_9_and_after_an_orderly_stop() {
    let scratch = Scratch::new("configuration-restart");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let broker = options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let mut client = Client::connect(broker.address());
    client.create_topic("own", 1, &[(TOPIC_KEY, "1024")]);
    client.create_topic("other", 1, &[]);
    client.set(Resource::topic("own"), TOPIC_KEY, "5120");
    client.set(Resource::ALL_BROKERS, KEY, "2048");
    client.set(Resource::broker("1"), KEY, "3072");
    broker.kill();
    let broker = options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let mut client = Client::connect(broker.address());
    assert_eq!((kib_max(&mut client, "own"), kib_max(&mut client, "other")), (5, 3));
    client.reset(Resource::broker("1"), KEY);
    assert_eq!(broker.terminate().code(), Some(0));
    let broker = options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let mut client = Client::connect(broker.address());
    assert_eq!((kib_max(&mut client, "own"), kib_max(&mut client, "other")), (5, 2));
    assert_eq!(client.value(Resource::broker("1"), KEY), ("2048".into(), OF_ALL_BROKERS));
}

#[test]
fn what_is_only_validated_changes_nothing() {
    let scratch = Scratch::new("configuration-validated");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let broker = options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let mut client = Client::connect(broker.address());
    client.create_topic("own", 1, &[(TOPIC_KEY, "2048")]);
    let own = Resource::topic("own");
    for (value, expected) in [("1024", ErrorCode::None), ("-1", ErrorCode::InvalidConfig)] {
        let request = super::clients::configs::incremental(&[(own, &[(TOPIC_KEY, SET, Some(value))])]);
        let answer = client.call(1, &request.with_validate_only(true)).responses.remove(0);
        assert_eq!(code(answer.error_code), expected);
    }
    let request = super::clients::configs::incremental(&[(own, &[(TOPIC_KEY, DELETE, None)])]);
    assert_eq!(code(client.call(1, &request.with_validate_only(true)).responses[0].error_code), ErrorCode::None);
    assert_eq!((kib_max(&mut client, "own"), client.value(own, TOPIC_KEY)), (2, ("2048".into(), OF_TOPIC)));
}
