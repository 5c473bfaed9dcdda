//! Whole brokers of several shards in a simulated machine, served over simulated sockets, through power cuts, kills and stops.
//! Every life has a number of shards of its own, on the data of the ones before.
//!
//! The driver gives the broker lives; clients work through them and write the history. In the end everything is healed, every
//! client brings what it has open to its end, and all of every partition is read back and compared. Nothing of the broker is
//! replaced: it runs what `corelane serve` runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use corelane::broker::{Broker, ListenerPlan, StartError};
use corelane::config::{BrokerConfig, Settings};
use corelane::runtime::Duration;
use corelane::runtime::sim::{DiskFaults, NodeId, PerMillion, PowerCut, Random, Simulation, SimulationOptions, Stuck};
use corelane::types::{ErrorCode, ShardId};
use corelane::wire::ApiKey;
use corelane::wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse, ListOffsetsPartition,
    ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic, StrBytes,
};

use crate::broker_clients::{
    ProducerTask, Shared, Target, administrate, consume, fetch_request, fetched_partition, topic_name,
};
use crate::client::{Client, Lost, api};
use crate::history::{PartitionHistory, Promise};
use crate::scratch;
use crate::totals::Totals;
use crate::wide_consumer::consume_all;

const SHARD: ShardId = ShardId(0);
/// Shards of a broker at most.
const SHARDS_MAX: u16 = 4;
const PORT: u16 = 9092;
/// Acknowledged batches of a seed at least.
const APPENDS_MIN: u64 = 500;
const LIVES_MAX: u64 = 300;
const DISK_BYTES: u64 = 512 << 20;
const MEMORY_BYTES: u64 = SHARDS_MAX as u64 * (64 << 20);
/// How long a broker may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// How long clients may take to bring what is open to its end once all is well.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// With write caching: `flush.ms`, the timer's tick, and the flush itself on a busy disk.
const FLUSH_MS: u64 = 50;
const FLUSH_BOUND: Duration = Duration::from_millis(FLUSH_MS + 150);

/// A topic of the seed.
struct Topic {
    name: String,
    partitions: i32,
    configs: Vec<(&'static str, String)>,
    promise: Promise,
}

struct BrokerWorld {
    simulation: Simulation,
    node: NodeId,
    random: Random,
    config: BrokerConfig,
    faults: DiskFaults,
    topics: Vec<Topic>,
    shared: Rc<Shared>,
    totals: Totals,
}

/// A life of the broker.
#[derive(Default)]
struct Life {
    ready: Cell<bool>,
    recovered: Cell<usize>,
    /// Shards that have not ended.
    running: Cell<u16>,
    /// How the shards that have ended did.
    outcome: RefCell<Option<Result<(), StartError>>>,
    /// How the whole broker ended.
    ended: RefCell<Option<Result<(), StartError>>>,
}

fn draw_topics(random: &mut Random) -> Vec<Topic> {
    let count = 2 + random.index(2);
    let topic = |number: usize| {
        let caches = random.happens(PerMillion(300_000));
        let retention = random.happens(PerMillion(200_000));
        let mut configs = vec![("segment.bytes", (1 << 20).to_string())];
        configs.push(("segment.ms", random.choose(&["150", "1000", "604800000"]).to_string()));
        configs.push(("index.interval.bytes", random.choose(&["512", "4096"]).to_string()));
        if caches {
            configs.push(("write.caching", "true".to_owned()));
            configs.push(("flush.ms", FLUSH_MS.to_string()));
        }
        if retention {
            configs.push(("retention.bytes", (256 << 10).to_string()));
        }
        Topic {
            name: format!("topic-{number}"),
            partitions: 1 + i32::try_from(random.below(3)).expect("a few"),
            configs,
            promise: Promise { flush_bound: caches.then_some(FLUSH_BOUND), retention },
        }
    };
    (0..count).map(topic).collect()
}

fn broker_config(address: SocketAddr, random: &mut Random) -> BrokerConfig {
    let mut settings = Settings::new();
    let pairs = [
        ("listeners", address.to_string()),
        ("log.dirs", "/data".to_owned()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("log.retention.check.interval.ms", "700".to_owned()),
        ("checkpoint.interval.ms", random.choose(&["100", "1000", "5000"]).to_string()),
        ("log.dir.reserve.bytes", (1 << 20).to_string()),
        ("shutdown.timeout.ms", "5000".to_owned()),
    ];
    for (name, value) in &pairs {
        settings.add_set(name, value).unwrap_or_else(|error| panic!("{error}"));
    }
    BrokerConfig::new(settings, SHARDS_MAX, MEMORY_BYTES).unwrap_or_else(|error| panic!("{error}"))
}

fn draw_faults(random: &mut Random) -> DiskFaults {
    if !random.happens(PerMillion(200_000)) {
        return DiskFaults::default();
    }
    let mut rate = || PerMillion(*random.choose(&[0, 200, 2_000]));
    let (read_errors, write_errors, sync_errors) = (rate(), rate(), rate());
    DiskFaults { read_errors, write_errors, sync_errors, slowdown: *random.choose(&[1, 4]), ..DiskFaults::default() }
}

impl BrokerWorld {
    fn new(seed: u64) -> BrokerWorld {
        let mut random = Random::fork(seed, 78);
        let options =
            SimulationOptions { disk_bytes: DISK_BYTES, steps_max: 30_000_000, ..SimulationOptions::default() };
        let simulation = Simulation::new(seed, options);
        let node = simulation.add_node(SHARDS_MAX);
        let address = SocketAddr::new(simulation.address(node), PORT);
        let topics = draw_topics(&mut random);
        let mut targets = Vec::new();
        for topic in &topics {
            for index in 0..topic.partitions {
                let (name, number) = (format!("{}-{index}", topic.name), targets.len() as u64);
                let history = RefCell::new(PartitionHistory::new(name, number, topic.promise));
                targets.push(Rc::new(Target { topic: topic.name.clone(), index, history }));
            }
        }
        let faults = draw_faults(&mut random);
        let config = broker_config(address, &mut random);
        let shared = Shared::new(address, targets, faults != DiskFaults::default());
        BrokerWorld { simulation, node, random, config, faults, topics, shared, totals: Totals::default() }
    }

    fn run_until(&self, within: Duration, done: impl FnMut() -> bool) -> bool {
        match self.simulation.run_until(within, done) {
            Ok(()) => true,
            Err(Stuck::TimedOut { .. }) => false,
            Err(stuck) => panic!("{stuck}"),
        }
    }

    /// Runs on the client's node.
    fn on_client<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        self.simulation.block_on(future).unwrap_or_else(|stuck| panic!("{stuck}"))
    }

    /// Starts the broker; it need not have come up when this returns.
    fn start(&mut self) -> Rc<Life> {
        self.totals.lives += 1;
        self.shared.stopping.set(false);
        let life = Rc::new(Life::default());
        let plans = self.config.listeners.iter().map(ListenerPlan::new).collect::<Result<Vec<_>, _>>();
        let plans = plans.unwrap_or_else(|error| panic!("{error}"));
        let shards = 1 + self.random.index(usize::from(SHARDS_MAX)) as u16;
        let mut config = self.config.clone();
        config.shards = shards;
        let broker = Broker::new(config, plans);
        for shard in (0..shards).map(ShardId) {
            let (broker, shared) = (broker.clone(), life.clone());
            let body = async move {
                let told = shared.clone();
                let served = broker.run(shard, move |ready| {
                    told.ready.set(true);
                    told.recovered.set(ready.recovered);
                });
                let outcome = served.await;
                // The last one to end says that all of it has; an error is the first shard's.
                shared.running.set(shared.running.get() - 1);
                let mut ended = shared.outcome.borrow_mut();
                if outcome.is_err() || ended.is_none() {
                    *ended = Some(outcome);
                }
                if shared.running.get() == 0 {
                    *shared.ended.borrow_mut() = ended.take();
                }
            };
            life.running.set(life.running.get() + 1);
            drop(self.simulation.start(self.node, shard, body));
        }
        life
    }

    /// Waits until the broker is up; `false` if its life ended before.
    fn wait_ready(&self, life: &Life, faults: bool) -> bool {
        let (simulation, node) = (&self.simulation, self.node);
        let over = || !simulation.is_running(node) || life.ended.borrow().is_some();
        let came = self.run_until(START_MAX, || life.ready.get() || over());
        assert!(came, "the broker has not started after {START_MAX:?}");
        if let Some(Err(error)) = &*life.ended.borrow() {
            assert!(faults, "the broker does not start: {error}");
        }
        life.ready.get() && !over()
    }

    /// Starts a broker that nothing disturbs.
    fn start_healed(&mut self) -> Rc<Life> {
        self.heal();
        // A fuse that has burnt down takes effect with the operation that it struck.
        self.run_until(Duration::from_millis(200), || !self.simulation.is_running(self.node));
        if !self.simulation.is_running(self.node) {
            self.power_cut();
        }
        let life = self.start();
        assert!(self.wait_ready(&life, false), "nothing ends this life");
        life
    }

    fn heal(&self) {
        self.simulation.set_disk_faults(self.node, DiskFaults::default());
        self.simulation.set_disk_capacity(self.node, DISK_BYTES);
    }

    fn kill(&self) {
        tracing::debug!(now = ?self.simulation.now(), "the broker is killed");
        self.simulation.kill(self.node);
        self.simulation.restart(self.node);
    }

    /// The power has gone, or goes now.
    fn power_cut(&self) {
        if self.simulation.is_running(self.node) {
            self.simulation.power_cut(self.node, PowerCut::OldOrNew);
        }
        let now = self.simulation.now();
        tracing::debug!(?now, "the power is gone");
        for target in &self.shared.targets {
            target.history.borrow_mut().power_cut(now, self.shared.faults);
        }
        self.simulation.restart(self.node);
    }

    /// Stops the broker as SIGTERM does.
    fn stop(&mut self, life: &Life, faults: bool) {
        tracing::debug!(now = ?self.simulation.now(), "the broker is asked to stop");
        self.shared.stopping.set(true);
        self.shared.stops.set(self.shared.stops.get() + 1);
        self.simulation.terminate(self.node);
        let (simulation, node) = (&self.simulation, self.node);
        let ended = self.run_until(START_MAX, || life.ended.borrow().is_some() || !simulation.is_running(node));
        assert!(ended, "the broker does not stop");
        if !self.simulation.is_running(self.node) {
            return self.power_cut();
        }
        if let Some(Err(error)) = &*life.ended.borrow() {
            assert!(faults, "the broker stops with {error}");
        }
        self.totals.closes += 1;
        self.kill();
    }

    /// One life between two crashes.
    fn live(&mut self) {
        let faulty = self.shared.faults;
        let early = faulty && self.random.coin();
        self.heal();
        if early {
            self.simulation.set_disk_faults(self.node, self.faults);
        }
        // A fuse that is lit does not go out before the power does.
        let cut_early = self.random.happens(PerMillion(100_000));
        if cut_early {
            let operations = 1 + self.random.below(150);
            self.simulation.power_cut_after(self.node, operations, PowerCut::OldOrNew);
        }
        let life = self.start();
        if !self.wait_ready(&life, early) {
            return if self.simulation.is_running(self.node) { self.kill() } else { self.power_cut() };
        }
        self.simulation.set_disk_faults(self.node, self.faults);
        let end = if cut_early { 0 } else { self.random.below(10) };
        if end < 6 {
            let operations = 1 + self.random.below(600);
            self.simulation.power_cut_after(self.node, operations, PowerCut::OldOrNew);
        }
        let until = self.shared.acknowledged.get() + 10 + self.random.below(250);
        let (simulation, node, shared) = (&self.simulation, self.node, self.shared.clone());
        let over = || !simulation.is_running(node) || life.ended.borrow().is_some();
        self.run_until(Duration::from_secs(3), || shared.acknowledged.get() >= until || over());
        if !self.simulation.is_running(self.node) {
            return self.power_cut();
        }
        match end {
            0..=5 => self.power_cut(),
            6..=7 => self.kill(),
            _ => self.stop(&life, faulty),
        }
        self.heal();
    }

    async fn create(address: SocketAddr, topics: Vec<CreatableTopic>) -> Result<(), Lost> {
        let mut client = Client::connect(address).await?;
        let request = CreateTopicsRequest::default().with_timeout_ms(4_000).with_topics(topics);
        let response: CreateTopicsResponse = client.call(api(ApiKey::CreateTopics, 7), &request).await?;
        for topic in &response.topics {
            assert_eq!(topic.error_code, 0, "{}: {:?}", topic.name.0, topic.error_message);
        }
        Ok(())
    }

    fn create_topics(&self) {
        let topics = self.topics.iter().map(|topic| {
            let configs = topic.configs.iter().map(|(name, value)| {
                CreatableTopicConfig::default()
                    .with_name(StrBytes::from_static_str(name))
                    .with_value(Some(StrBytes::from_string(value.clone())))
            });
            CreatableTopic::default()
                .with_name(topic_name(&topic.name))
                .with_num_partitions(topic.partitions)
                .with_replication_factor(1)
                .with_configs(configs.collect())
        });
        let created = self.on_client(BrokerWorld::create(self.shared.address, topics.collect()));
        assert_eq!(created, Ok(()), "nothing disturbs the creation of the topics");
    }

    fn start_clients(&mut self) {
        let client = self.simulation.client();
        let launch = |future: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
            self.shared.running.set(self.shared.running.get() + 1);
            drop(self.simulation.start(client, SHARD, future));
        };
        for target in &self.shared.targets {
            for producer in 0..1 + self.random.index(2) {
                let random = Random::new(self.random.bits());
                launch(Box::pin(ProducerTask::new(&self.shared, target, producer == 0, random).run()));
            }
            let random = Random::new(self.random.bits());
            launch(Box::pin(consume(self.shared.clone(), target.clone(), random)));
        }
        launch(Box::pin(consume_all(self.shared.clone(), Random::new(self.random.bits()))));
        launch(Box::pin(administrate(self.shared.clone(), Random::new(self.random.bits()))));
        launch(Box::pin(scratch::churn(self.shared.clone(), Random::new(self.random.bits()))));
    }

    fn run_seed(&mut self) {
        let life = self.start_healed();
        self.create_topics();
        self.start_clients();
        self.stop(&life, false);
        while self.shared.acknowledged.get() < APPENDS_MIN || self.simulation.counters().power_cuts == 0 {
            assert!(self.totals.lives < LIVES_MAX, "{} acknowledgements", self.shared.acknowledged.get());
            self.live();
        }
        let life = self.start_healed();
        // Everybody is served again, not only those who bring things to their end.
        let before: Vec<u64> = self.acknowledged();
        let waiting = || {
            let now = self.acknowledged();
            let waits = |target: usize| now[target] <= before[target];
            (0..now.len()).filter(|&target| waits(target)).collect::<Vec<_>>()
        };
        let served = self.run_until(SETTLE_MAX, || waiting().is_empty());
        assert!(served, "partitions {:?} take nothing although all is well", waiting());
        self.shared.stop.set(true);
        let shared = self.shared.clone();
        assert!(self.run_until(SETTLE_MAX, || shared.running.get() == 0), "clients do not come to their end");
        self.read_back();
        self.stop(&life, false);
        let life = self.start_healed();
        assert_eq!(life.recovered.get(), 0, "a broker that was stopped in order has nothing to recover");
        self.read_back();
    }

    /// Acknowledged batches by partition.
    fn acknowledged(&self) -> Vec<u64> {
        self.shared.targets.iter().map(|target| target.history.borrow().acknowledged).collect()
    }

    /// Reads every partition from its start to its end and checks all of it.
    fn read_back(&self) {
        for target in &self.shared.targets {
            let (address, target) = (self.shared.address, target.clone());
            let read = self.on_client(async move { read_back(address, &target).await });
            assert_eq!(read, Ok(()), "nothing disturbs this");
        }
    }
}

/// The log start (−2) or the high watermark (−1) of a partition.
async fn list_offset(client: &mut Client, target: &Target, which: i64) -> Result<i64, Lost> {
    let partition = ListOffsetsPartition::default().with_partition_index(target.index).with_timestamp(which);
    let topic = ListOffsetsTopic::default().with_name(topic_name(&target.topic)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
    let response: ListOffsetsResponse = client.call(api(ApiKey::ListOffsets, 7), &request).await?;
    let partition = &response.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0, "{}-{}: ListOffsets", target.topic, target.index);
    Ok(partition.offset)
}

async fn read_back(address: SocketAddr, target: &Target) -> Result<(), Lost> {
    let mut client = Client::connect(address).await?;
    let (mut start, end) = (list_offset(&mut client, target, -2).await?, list_offset(&mut client, target, -1).await?);
    target.history.borrow_mut().told_start(start);
    let mut batches = BTreeMap::new();
    let mut from = start;
    while from < end {
        let request = fetch_request(&target.topic, target.index, from, 0, 1 << 20);
        let partition = fetched_partition(client.call(api(ApiKey::Fetch, 12), &request).await?);
        if partition.error_code == ErrorCode::OffsetOutOfRange.code() && partition.log_start_offset > from {
            // Retention went on meanwhile; that it may is checked with the new start.
            start = partition.log_start_offset;
            target.history.borrow_mut().told_start(start);
            batches = batches.split_off(&start);
            from = from.max(start);
            continue;
        }
        assert_eq!(partition.error_code, 0, "{}-{}: a fetch from {from}", target.topic, target.index);
        assert_eq!(partition.high_watermark, end, "nobody appends any more");
        let mut history = target.history.borrow_mut();
        let records = partition.records.as_deref().unwrap_or_default();
        let seen = history.fetched(from, end, records);
        assert!(seen.batches > 0, "{}-{}: nothing at {from}, the end is {end}", target.topic, target.index);
        batches.extend(history.stamps(records));
        from = seen.end;
    }
    target.history.borrow().whole(start, &batches);
    Ok(())
}

/// Runs a seed; gives its counts and the hash of its trace.
pub(crate) fn run(seed: u64) -> (Totals, u64) {
    let mut world = BrokerWorld::new(seed);
    world.run_seed();
    let mut totals = world.totals.clone();
    totals.seeds = 1;
    totals.appends = world.shared.acknowledged.get();
    totals.add_counters(&world.simulation.counters());
    (totals, world.simulation.trace_hash())
}
