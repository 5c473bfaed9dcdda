//! Keys that decide when an acknowledged record is on stable storage: seen by what is left of it after the power was cut.
//!
//! A whole broker runs in a simulated machine, as `corelane serve` runs it, and is spoken to over simulated sockets. Of what was
//! only written the power cut keeps each sector or not, by the seed: of 40 batches, each in sectors of its own, some are gone.
//! Checkpoints, which make things durable as well, are put off, so that only the key at work can do so.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use corelane::broker::{Broker, ListenerPlan};
use corelane::config::{BrokerConfig, Key, Settings};
use corelane::runtime::sim::{NodeId, PowerCut, Simulation, SimulationOptions};
use corelane::runtime::{Duration, sleep};
use corelane::types::{ErrorCode, ShardId};
use corelane::wire::ApiKey;
use corelane::wire::client::messages::ProduceResponse;
use corelane::wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse, ListOffsetsPartition,
    ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};

use super::Scope;
use super::clients::configs::{SET, answers, incremental};
use super::clients::wire::{batch, code, produce_request, topic_name};
use super::sim_client::{Client, api};

const SHARD: ShardId = ShardId(0);
const TOPIC: &str = "topic";
/// Records that are produced, a batch each.
const RECORDS: i64 = 40;
/// Longer than any flush takes that is wanted at once.
const A_WHILE: Duration = Duration::from_secs(2);
/// An hour: a flush by time that no test waits for.
const LATE_MS: &str = "3600000";

/// A key at work in a machine of its own.
pub(crate) struct Machine {
    key: &'static Key,
    scope: Scope,
    simulation: Simulation,
    node: NodeId,
    address: SocketAddr,
    settings: Vec<(&'static str, String)>,
}

/// Shows the effect of a key wherever it can be set.
pub(crate) fn show(key: &'static Key, effect: fn(&Machine)) {
    for (seed, &scope) in (1..).zip(Scope::of(key)) {
        effect(&Machine::new(seed, key, scope, &[]));
    }
}

impl Machine {
    fn new(seed: u64, key: &'static Key, scope: Scope, settings: &[(&'static str, &str)]) -> Machine {
        let simulation = Simulation::new(seed, SimulationOptions::default());
        let node = simulation.add_node(1);
        let address = SocketAddr::new(simulation.address(node), 9092);
        let mut all = vec![
            ("listeners", address.to_string()),
            ("log.dirs", "/data".to_owned()),
            ("checkpoint.interval.ms", LATE_MS.to_owned()),
            ("log.flush.interval.ms", LATE_MS.to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let machine = Machine { key, scope, simulation, node, address, settings: all };
        machine.start();
        machine.create_topic();
        machine
    }

    /// Another machine for the same key, whose broker is started with write caching.
    fn caching(&self) -> Machine {
        Machine::new(self.simulation.seed() + 100, self.key, self.scope, &[("write.caching", "true")])
    }

    /// Runs on the client's machine.
    fn on_client<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        self.simulation.block_on(future).unwrap_or_else(|stuck| panic!("{stuck}"))
    }

    /// Starts a broker and waits until it serves.
    fn start(&self) {
        let mut settings = Settings::new();
        for (name, value) in &self.settings {
            settings.add_set(name, value).unwrap_or_else(|error| panic!("{error}"));
        }
        let config = BrokerConfig::new(settings, 1, 64 << 20).unwrap_or_else(|error| panic!("{error}"));
        let plans = config.listeners.iter().map(ListenerPlan::new).collect::<Result<Vec<_>, _>>();
        let plans = plans.unwrap_or_else(|error| panic!("{error}"));
        let ready = Rc::new(Cell::new(false));
        let told = ready.clone();
        let broker = Broker::new(config, plans).run(SHARD, move |_| told.set(true));
        let broker = async move { broker.await.expect("it serves") };
        drop(self.simulation.start(self.node, SHARD, broker));
        let up = self.simulation.run_until(Duration::from_secs(30), || ready.get());
        up.unwrap_or_else(|stuck| panic!("the broker does not start: {stuck}"));
    }

    fn create_topic(&self) {
        let address = self.address;
        self.on_client(async move {
            let topic = CreatableTopic::default()
                .with_name(topic_name(TOPIC))
                .with_num_partitions(1)
                .with_replication_factor(1)
                .with_configs(Vec::<CreatableTopicConfig>::new());
            let request = CreateTopicsRequest::default().with_timeout_ms(4_000).with_topics(vec![topic]);
            let mut client = Client::connect(address).await.expect("connected");
            let response: CreateTopicsResponse =
                client.call(api(ApiKey::CreateTopics, 7), &request).await.expect("answered");
            assert_eq!(code(response.topics[0].error_code), ErrorCode::None);
        });
    }

    fn set(&self, value: &'static str) {
        let (address, resource, name) = (self.address, self.scope.resource(TOPIC), self.scope.name(self.key));
        let request = incremental(&[(resource, &[(name, SET, Some(value))])]);
        self.on_client(async move {
            let mut client = Client::connect(address).await.expect("connected");
            let api = api(ApiKey::IncrementalAlterConfigs, 1);
            let answered = answers(&request, client.call(api, &request).await.expect("answered"));
            assert_eq!(answered, [(ErrorCode::None, String::new())]);
        });
    }

    /// Produces [`RECORDS`], each acknowledged before the next is sent.
    fn produce(&self) {
        let address = self.address;
        self.on_client(async move {
            let mut client = Client::connect(address).await.expect("connected");
            for number in 0..RECORDS {
                let value = vec![u8::try_from(number).expect("few"); 600];
                let request = produce_request(TOPIC, 0, &batch(&[&value]), -1);
                let response: ProduceResponse =
                    client.call(api(ApiKey::Produce, 12), &request).await.expect("answered");
                assert_eq!(code(response.responses[0].partition_responses[0].error_code), ErrorCode::None);
            }
        });
    }

    fn wait(&self) {
        self.on_client(async { sleep(A_WHILE).await });
    }

    /// Cuts the power, starts the broker again, and tells how many records are left.
    fn left_after_power_cut(&self) -> i64 {
        self.simulation.power_cut(self.node, PowerCut::OldOrNew);
        self.simulation.restart(self.node);
        self.start();
        let address = self.address;
        self.on_client(async move {
            let partition = ListOffsetsPartition::default().with_partition_index(0).with_timestamp(-1);
            let topic = ListOffsetsTopic::default().with_name(topic_name(TOPIC)).with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
            let mut client = Client::connect(address).await.expect("connected");
            let response: ListOffsetsResponse =
                client.call(api(ApiKey::ListOffsets, 7), &request).await.expect("answered");
            response.topics[0].partitions[0].offset
        })
    }
}

/// Off, an acknowledgement means durable; on, it means written; off again, also what was acknowledged meanwhile is durable.
pub(crate) fn write_caching(machine: &Machine) {
    machine.produce();
    assert_eq!(machine.left_after_power_cut(), RECORDS);
    machine.set("true");
    machine.produce();
    let left = machine.left_after_power_cut();
    assert!((RECORDS..2 * RECORDS).contains(&left), "{left} are left: what was only written should not all be");

    machine.produce();
    machine.set("false");
    // A durable write makes what was written before it durable first.
    machine.produce();
    assert_eq!(machine.left_after_power_cut(), left + 2 * RECORDS);

    // On again, within a segment that was begun for it.
    machine.set("true");
    machine.produce();
    machine.set("false");
    machine.set("true");
    machine.produce();
    let last = machine.left_after_power_cut();
    assert!((left + 2 * RECORDS..left + 4 * RECORDS).contains(&last), "{last} are left");
}

/// With write caching: nothing is flushed for an hour, then what waits is flushed as soon as the key says so.
fn flushes(machine: &Machine, value: &'static str) {
    let machine = machine.caching();
    machine.produce();
    machine.wait();
    let left = machine.left_after_power_cut();
    assert!(left < RECORDS, "nothing should have been flushed");
    machine.produce();
    machine.set(value);
    machine.wait();
    assert_eq!(machine.left_after_power_cut(), left + RECORDS);
    machine.produce();
    machine.wait();
    assert_eq!(machine.left_after_power_cut(), left + 2 * RECORDS, "also after a start");
}

pub(crate) fn flush_ms(machine: &Machine) {
    flushes(machine, "50");
}

pub(crate) fn flush_messages(machine: &Machine) {
    flushes(machine, "1");
}

pub(crate) fn flush_bytes(machine: &Machine) {
    flushes(machine, "1");
}
