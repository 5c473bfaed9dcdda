//! Killed, not lost: whatever a broker acknowledged before kill −9 is there afterwards, once, in order, at its offset.
//!
//! Rounds on one data directory. In each, a writer with many requests in flight fills eight partitions of 1 MiB segments; the
//! broker is killed after 0.05–3 s and at least a thousand acknowledgements, and started again; then librdkafka, a client that
//! shares no code with broker or writer, reads every partition whole, and the checker holds what it read against the
//! writer's journals. Kinds of rounds take turns: acks=all without retries, the same with `write.caching`, and an idempotent
//! writer that goes on over the restart. A topic lives for a few rounds, so that logs are recovered more than once, and by
//! another number of shards each time: two, three or one. One round in ten is worse: killed again while it recovers, or killed
//! while topics are created and deleted.
//!
//! `CORELANE_KILL_ROUNDS` sets the number of rounds (20), `CORELANE_KILL_SEED` repeats the moments of a run as far as real
//! time lets it. Power cuts are not this test's: what the kernel has survives a kill.

mod support;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use corelane::runtime::real;
use corelane::types::{Offset, PartitionId};
use loadgen::client::{self, Bootstrap, ConnectionOptions, NewTopic};
use loadgen::history::{PartitionCheck, Report};
use loadgen::journal::file::JournalTally;
use loadgen::load::options::{ProducerOptions, TopicOptions, TopicShape};
use loadgen::load::schedule::Pace;
use loadgen::load::{self, LoadOptions, Progress};
use loadgen::verify::{self, CheckOptions, read_journals};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, TopicPartitionList};

use support::{Broker, BrokerOptions, Scratch, fixed_port, now};

const PARTITIONS: i32 = 8;
/// Acknowledged records before a kill, at least.
const ACKS_MIN: u64 = 10_000;
/// Rounds of a kind on one topic.
const ROUNDS_PER_TOPIC: usize = 3;
/// Bytes of values per second: several rolls of each partition in the longer rounds, and logs that are read back in seconds.
const RATE_BYTES: f64 = (32 << 20) as f64;
/// Bytes of a value at least.
const RECORD_BYTES_MIN: usize = 50;
/// What must happen on a busy machine within this time, or the round has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The broker's exit code when it cannot bind.
const PORT_BUSY: i32 = 3;
/// How long a port may stay busy after its owner was killed: 12 ms were seen on an idle machine.
const PORT_FREE_WITHIN: Duration = Duration::from_secs(5);

/// How a round's writer writes, and where to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Durable,
    WriteCaching,
    Idempotent,
}

/// What makes one round in ten worse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    None,
    KilledInRecovery,
    TopicsComeAndGo,
}

/// What a round does; the same for every run.
fn plan(round: usize) -> (Kind, Trouble) {
    let kind = match (round + round / 10) % 4 {
        0 | 2 => Kind::Durable,
        1 => Kind::WriteCaching,
        _ => Kind::Idempotent,
    };
    let trouble = match (round % 10, round / 10 % 2) {
        (9, 0) => Trouble::KilledInRecovery,
        (9, _) => Trouble::TopicsComeAndGo,
        _ => Trouble::None,
    };
    (kind, trouble)
}

/// Moments and sizes (splitmix64).
struct Random {
    state: Cell<u64>,
}

impl Random {
    fn within(&self, least: u64, most: u64) -> u64 {
        self.state.set(self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut mixed = self.state.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        least + (mixed ^ (mixed >> 31)) % (most - least + 1)
    }

    fn milliseconds(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.within(least, most))
    }
}

fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect("a number"))
}

/// Runs a future of the load generator on a shard of its own.
fn run<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    real::run(&real::Options::default(), future).expect("a shard starts")
}

/// A topic that some rounds share, and the journals of its writers.
struct Topic {
    name: String,
    journals: Vec<PathBuf>,
}

struct Rounds {
    scratch: Scratch,
    options: BrokerOptions,
    starts: usize,
    bootstrap: Bootstrap,
    random: Random,
    topics: BTreeMap<Kind, Topic>,
    /// Topics that were created or deleted beside the writers and whose fate is known.
    present: BTreeSet<String>,
    absent: BTreeSet<String>,
    total: Total,
}

#[derive(Default, Debug)]
struct Total {
    kills: u64,
    kills_in_recovery: u64,
    acks: u64,
    read: u64,
    acked: u64,
    unacked_visible: u64,
    unacked_absent: u64,
    topics_changed: u64,
    busy_ports: u64,
}

#[test]
fn what_was_acknowledged_before_kill_9_is_there_once_in_order_at_its_offset() {
    let count = number("CORELANE_KILL_ROUNDS").unwrap_or(20) as usize;
    let seed = number("CORELANE_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{count} rounds, seed {seed}");
    let scratch = Scratch::new("killed-not-lost");
    let options = BrokerOptions::new(&scratch.path().join("data"));
    let mut rounds = Rounds {
        scratch,
        options,
        starts: 0,
        bootstrap: Bootstrap::resolve("127.0.0.1:1", ConnectionOptions::default()).expect("an address"),
        random: Random { state: Cell::new(seed) },
        topics: BTreeMap::new(),
        present: BTreeSet::new(),
        absent: BTreeSet::new(),
        total: Total::default(),
    };
    let mut broker = rounds.start(fixed_port());
    for round in 0..count {
        broker = rounds.round(round, broker);
    }
    assert_eq!(broker.terminate().code(), Some(0), "it drains in order after all that");
    println!("{:?}", rounds.total);
}

impl Rounds {
    /// How the broker starts next.
    fn next_options(&mut self, port: u16) -> BrokerOptions {
        let shards = ["2", "2", "3", "2", "1"][self.starts % 5];
        self.starts += 1;
        self.options.clone().port(port).argument("--shards").argument(shards)
    }

    /// Starts the broker on `port` and points all clients there.
    ///
    /// The kernel tears a killed process's ring down some milliseconds after the process is gone, and its listening socket
    /// with it: until then the port is busy, and whoever wants the same one has to try again.
    fn start(&mut self, port: u16) -> Broker {
        let server = format!("127.0.0.1:{port}");
        self.bootstrap = Bootstrap::resolve(&server, ConnectionOptions::default()).expect("an address");
        let options = self.next_options(port);
        let began = now();
        loop {
            match options.start() {
                Ok(broker) => return broker,
                Err(ended) if ended.code() == Some(PORT_BUSY) && now() - began < PORT_FREE_WITHIN => {
                    self.total.busy_ports += 1;
                    thread::sleep(Duration::from_millis(5));
                }
                Err(ended) => panic!("{ended}"),
            }
        }
    }

    fn round(&mut self, round: usize, broker: Broker) -> Broker {
        let (kind, trouble) = plan(round);
        let began = now();
        self.choose_topic(round, kind);
        let progress = Arc::new(Progress::default());
        let writer = self.write(round, kind, progress.clone());
        let churn = (trouble == Trouble::TopicsComeAndGo).then(|| self.change_topics(round));
        let moment = self.random.milliseconds(50, 3000);
        self.wait(&progress, ACKS_MIN, moment, &broker);
        let port = broker.address().port();
        let ended = broker.kill();
        self.total.kills += 1;
        if trouble == Trouble::KilledInRecovery {
            self.kill_in_recovery();
        }
        // An idempotent writer finds the broker where it was. Otherwise it comes back on another port, so that nothing makes
        // it wait for what the dead process still has under way.
        let broker = self.start(if kind == Kind::Idempotent { port } else { fixed_port() });
        if kind == Kind::Idempotent {
            self.wait(&progress, progress.acked_records() + ACKS_MIN / 2, Duration::ZERO, &broker);
        }
        progress.stop();
        let mut tally = writer.join().expect("the writer does not panic");
        // What no broker was asked to take while there was none; everything else was taken or not answered.
        let unsent = tally.refused_records.remove(&0).unwrap_or(0);
        assert!(tally.acked_records >= ACKS_MIN, "{tally:?}");
        assert!(tally.refused_records.is_empty(), "{tally:?}\n{}", ended.stderr);
        if kind == Kind::Idempotent {
            assert_eq!((tally.unknown_records, unsent), (0, 0), "every batch is answered in the end: {tally:?}");
        }
        if let Some(churn) = churn {
            self.known_topics(churn.join().expect("the client does not panic"));
        }

        let report = self.read_back(kind, round);
        let recovered = broker.ready().recovered;
        println!(
            "round {round}: {kind:?}, {trouble:?}, killed after {moment:?}, {} acks, {recovered} recovered, {} read, {:?}",
            tally.acked_batches,
            report.tally.read,
            now() - began,
        );
        assert!(report.is_clean(), "{report}\nbefore the kill:\n{}\nafter it:\n{}", ended.stderr, broker.stderr());
        self.total.acks += tally.acked_batches;
        self.total.read += report.tally.read;
        self.total.acked += report.tally.acked;
        self.total.unacked_visible += report.tally.unknown_visible;
        self.total.unacked_absent += report.tally.unknown_absent;
        broker
    }

    /// The topic of this kind; a new one, and the old one deleted, once it has had its rounds.
    fn choose_topic(&mut self, round: usize, kind: Kind) {
        if self.topics.get(&kind).is_some_and(|topic| topic.journals.len() < ROUNDS_PER_TOPIC) {
            return;
        }
        let topic = Topic { name: format!("{kind:?}-{round}"), journals: Vec::new() };
        if let Some(old) = self.topics.insert(kind, topic) {
            let bootstrap = self.bootstrap.clone();
            let deleted = run(async move { client::delete_topic(&bootstrap.connect().await?, &old.name).await });
            deleted.expect("the topic is deleted");
        }
    }

    fn write(&mut self, round: usize, kind: Kind, progress: Arc<Progress>) -> JoinHandle<JournalTally> {
        let topic = self.topics.get_mut(&kind).expect("it was chosen");
        let journal = self.scratch.path().join(format!("{round}.journal"));
        topic.journals.push(journal.clone());
        let mut configs = vec![("segment.bytes".to_owned(), "1048576".to_owned())];
        if kind == Kind::WriteCaching || kind == Kind::Idempotent && round.is_multiple_of(2) {
            configs.push(("write.caching".to_owned(), "true".to_owned()));
        }
        let largest = self.random.within(100, 4000) as usize;
        let record_bytes = RECORD_BYTES_MIN..=largest;
        let mean = (RECORD_BYTES_MIN + largest) as f64 / 2.0;
        let is_idempotent = kind == Kind::Idempotent;
        let producers = ProducerOptions {
            count: self.random.within(1, 3) as u32,
            inflight_max: self.random.within(2, 5) as usize,
            batch_records: self.random.within(1, 32) as u32,
            pace: Some(Pace::steady(RATE_BYTES / mean)),
            idempotence: is_idempotent,
            retries: is_idempotent,
            delivery_timeout: PATIENCE,
            record_bytes,
            ..ProducerOptions::default()
        };
        let shape = TopicShape { partitions: PARTITIONS, replication_factor: 1, configs };
        let options = LoadOptions {
            topics: TopicOptions { names: vec![topic.name.clone()], create: Some(shape) },
            producers: Some(producers),
            duration: 2 * PATIENCE,
            journal: Some(journal),
            ..LoadOptions::new(self.bootstrap.clone(), &topic.name)
        };
        thread::spawn(move || {
            let result = load::run_beside(options, progress, |_| ()).expect("the run has a journal");
            result.journal.expect("it was asked for")
        })
    }

    /// Waits for acknowledgements, and for at least `delay`.
    fn wait(&self, progress: &Progress, acks: u64, delay: Duration, broker: &Broker) {
        let began = now();
        while progress.acked_records() < acks || now() - began < delay {
            let acked = progress.acked_records();
            assert!(now() - began < PATIENCE, "{acked} of {acks} acknowledgements\n{}", broker.stderr());
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn kill_in_recovery(&mut self) {
        for _ in 0..3 {
            let mut starting = self.next_options(fixed_port()).spawn();
            let was_ready = starting.is_ready_within(self.random.milliseconds(1, 100));
            let ended = starting.kill();
            assert_eq!(ended.code(), None, "it does not end by itself: {ended}");
            self.total.kills_in_recovery += u64::from(!was_ready);
        }
    }

    fn change_topics(&self, round: usize) -> JoinHandle<BTreeMap<String, Option<bool>>> {
        let bootstrap = self.bootstrap.clone();
        thread::spawn(move || run(change_topics(bootstrap, round)))
    }

    /// Adds what is known of topics, and compares everything that is known with what the broker has.
    fn known_topics(&mut self, changed: BTreeMap<String, Option<bool>>) {
        self.total.topics_changed += changed.len() as u64;
        for (name, there) in changed {
            match there {
                Some(true) => drop(self.present.insert(name)),
                Some(false) => drop(self.absent.insert(name)),
                None => {}
            }
        }
        let bootstrap = self.bootstrap.clone();
        let found = run(async move { client::topics(&bootstrap.connect().await?).await }).expect("the broker answers");
        let found: BTreeSet<String> = found.into_iter().collect();
        assert!(self.present.is_subset(&found), "created and lost: {:?}", self.present.difference(&found));
        assert!(self.absent.is_disjoint(&found), "deleted and back: {:?}", self.absent.intersection(&found));
    }

    /// Reads the round's topic whole with librdkafka, now and then with our own client as well.
    fn read_back(&self, kind: Kind, round: usize) -> Report {
        let topic = &self.topics[&kind];
        let journals = topic.journals.clone();
        let history = read_journals(&journals).expect("the journals are whole");
        let report = read_by_librdkafka(&self.bootstrap_server(), &topic.name, |partition, log_start| {
            history.check(partition, log_start)
        });
        if round.is_multiple_of(5) {
            let options = CheckOptions { bootstrap: self.bootstrap.clone(), journals: topic.journals.clone() };
            let own = run(async move { verify::check(&options).await }).expect("the check is done").report;
            assert_eq!(own.tally, report.tally, "two clients read the same\n{own}\n{report}");
            assert!(own.is_clean(), "{own}");
        }
        report
    }

    fn bootstrap_server(&self) -> String {
        self.bootstrap.addresses()[0].to_string()
    }
}

/// Creates and deletes topics until the broker is gone. Yields each name with whether its topic is there now, if known.
async fn change_topics(bootstrap: Bootstrap, round: usize) -> BTreeMap<String, Option<bool>> {
    let mut known = BTreeMap::new();
    let Ok(connection) = bootstrap.connect().await else { return known };
    for number in 0.. {
        let name = format!("churn-{round}-{number}");
        let topic = NewTopic { name: name.clone(), partitions: 2, replication_factor: 1, configs: Vec::new() };
        known.insert(name, None);
        if client::create_topic(&connection, &topic).await.is_err() {
            break;
        }
        known.insert(topic.name, Some(true));
        if number % 2 == 1 {
            let old = format!("churn-{round}-{}", number - 1);
            known.insert(old.clone(), None);
            if client::delete_topic(&connection, &old).await.is_err() {
                break;
            }
            known.insert(old, Some(false));
        }
    }
    known
}

/// Reads every partition from its start to its high watermark.
fn read_by_librdkafka<'h>(
    bootstrap: &str,
    topic: &str,
    check: impl Fn(PartitionId, Offset) -> PartitionCheck<'h>,
) -> Report {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "nobody's")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "20")
        .set("auto.offset.reset", "error")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    let mut partitions = Vec::new();
    for number in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(topic, number, PATIENCE).expect("the ends of the log");
        let (low, high) = (Offset::new(low).expect("an offset"), Offset::new(high).expect("an offset"));
        let first = rdkafka::Offset::Offset(low.value());
        list.add_partition_offset(topic, number, first).expect("a partition");
        partitions.push((check(PartitionId::new(number).expect("not negative"), low), high));
    }
    consumer.assign(&list).expect("an assignment");
    let mut last = now();
    while partitions.iter().any(|(check, high)| check.next_offset() < *high) && now() - last < PATIENCE {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                last = now();
                let offset = Offset::new(message.offset()).expect("an offset");
                let (check, high) = &mut partitions[message.partition() as usize];
                // What is appended after the high watermark was asked for is another round's.
                if offset < *high {
                    check.record(offset, message.payload());
                }
            }
            Some(Err(error)) => {
                let (check, _) = &mut partitions[0];
                let at = check.next_offset();
                check.unreadable(at, format!("librdkafka: {error}"));
                break;
            }
        }
    }
    let mut report = Report::default();
    for (check, high) in partitions {
        report.merge(check.finish(high));
    }
    report
}
