//! The clients of a simulated broker: producers that pipeline and try again, consumers that tail and read back, an admin.
//!
//! Each is a task of the client node and lives through the broker's crashes: it connects again and goes on. What it learns
//! goes into the history; which errors are definite and which leave the outcome open is decided here, in one place.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use corelane::record::Producer;
use corelane::runtime::sim::{PerMillion, Random};
use corelane::runtime::{Duration, Instant, sleep, wall_clock};
use corelane::types::{ErrorCode, ProducerEpoch, ProducerId, Sequence};
use corelane::wire::ApiKey;
use corelane::wire::client::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData, PartitionProduceData, ProduceRequest,
    ProduceResponse, TopicProduceData,
};
use corelane::wire::messages::{
    BrokerId, DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
    InitProducerIdRequest, InitProducerIdResponse, StrBytes, TopicName,
};

use crate::client::{Client, Lost, api};
use crate::history::PartitionHistory;
use crate::payload::{Maker, Sent, Sizes, Stamp};

/// A partition that clients use.
pub(crate) struct Target {
    pub(crate) topic: String,
    pub(crate) index: i32,
    pub(crate) history: RefCell<PartitionHistory>,
}

/// What the clients share with the driver.
pub(crate) struct Shared {
    pub(crate) address: SocketAddr,
    pub(crate) targets: Vec<Rc<Target>>,
    /// No new work; what is open is brought to its end.
    pub(crate) stop: Cell<bool>,
    /// The broker is being stopped: it answers what waits.
    pub(crate) stopping: Cell<bool>,
    /// How often it was.
    pub(crate) stops: Cell<u64>,
    /// Clients that have not ended.
    pub(crate) running: Cell<usize>,
    /// Batches that were acknowledged.
    pub(crate) acknowledged: Cell<u64>,
    /// Whether faults of the disk are part of this seed.
    pub(crate) faults: bool,
    producers: Cell<u64>,
    connections: Cell<u64>,
}

impl Shared {
    pub(crate) fn new(address: SocketAddr, targets: Vec<Rc<Target>>, faults: bool) -> Rc<Shared> {
        Rc::new(Shared {
            address,
            targets,
            stop: Cell::new(false),
            stopping: Cell::new(false),
            stops: Cell::new(0),
            running: Cell::new(0),
            acknowledged: Cell::new(0),
            faults,
            producers: Cell::new(0),
            connections: Cell::new(0),
        })
    }

    pub(crate) fn next_producer(&self) -> u64 {
        self.producers.set(self.producers.get() + 1);
        self.producers.get()
    }

    fn next_connection(&self) -> u64 {
        self.connections.set(self.connections.get() + 1);
        self.connections.get()
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A Produce request of one batch.
pub(crate) fn produce_request(topic: &str, index: i32, acks: i16, bytes: &[u8]) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(index).with_records(Some(Bytes::copy_from_slice(bytes)));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(4_000).with_topic_data(vec![topic])
}

/// A Fetch request for one partition.
pub(crate) fn fetch_request(topic: &str, index: i32, from: i64, wait_ms: i32, bytes_max: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(index)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(from)
        .with_partition_max_bytes(bytes_max);
    let topic = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(8 << 20)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// The one partition of a Fetch answer.
pub(crate) fn fetched_partition(response: FetchResponse) -> PartitionData {
    assert_eq!(response.error_code, 0, "a fetch without a session has no error of its own");
    let topic = response.responses.into_iter().next().expect("the topic that was asked for");
    topic.partitions.into_iter().next().expect("the partition that was asked for")
}

/// The code and base offset of the one partition of a Produce answer.
pub(crate) fn produced_partition(response: &ProduceResponse) -> (i16, i64) {
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

fn is(code: i16, errors: &[ErrorCode]) -> bool {
    errors.iter().any(|error| error.code() == code)
}

/// Outcomes that are open: the records may be there, now or later.
fn is_unknown(code: i16) -> bool {
    is(code, &[ErrorCode::KafkaStorageError, ErrorCode::RequestTimedOut])
}

/// Errors that go away by themselves while a broker starts.
fn is_transient(code: i16) -> bool {
    is(code, &[ErrorCode::UnknownTopicOrPartition, ErrorCode::NotLeaderOrFollower])
}

/// A producer to one partition.
pub(crate) struct ProducerTask {
    shared: Rc<Shared>,
    target: Rc<Target>,
    random: Random,
    maker: Maker,
    sizes: Sizes,
    acks: i16,
    version: i16,
    depth: usize,
    idempotent: bool,
    /// The id that the broker gave, and the next sequence.
    identity: Option<(ProducerId, Sequence)>,
    stamp: Stamp,
    unsettled: VecDeque<Sent>,
}

/// Why a producer leaves its connection.
enum Leave {
    Lost,
    /// To send again, in order.
    Again,
    /// With a new identity.
    Anew,
    /// All is done.
    Done,
}

impl ProducerTask {
    /// The first producer of a partition wants answers; others may not.
    pub(crate) fn new(shared: &Rc<Shared>, target: &Rc<Target>, is_first: bool, mut random: Random) -> ProducerTask {
        let idempotent = random.coin();
        let number = shared.next_producer();
        // Of each partition somebody has to be answered.
        let acks = match idempotent {
            true => -1,
            false if is_first => 1,
            false => *random.choose(&[-1, -1, 1, 1, 0]),
        };
        let log = target.history.borrow().number;
        ProducerTask {
            maker: Maker::new(&mut random),
            sizes: Sizes::draw(&mut random, 700_000),
            acks,
            version: *random.choose(&[7, 9, 11]),
            // A producer has at most as many batches under way as the broker remembers.
            depth: 1 + random.index(5),
            idempotent,
            identity: None,
            stamp: Stamp { log, producer: number, number: 0 },
            unsettled: VecDeque::new(),
            shared: shared.clone(),
            target: target.clone(),
            random,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            if self.shared.stop.get() && self.unsettled.is_empty() {
                break;
            }
            let leave = self.connection().await.unwrap_or(Leave::Lost);
            match leave {
                Leave::Done => break,
                Leave::Again => {}
                Leave::Anew => {
                    self.identity = None;
                    self.unsettled.clear();
                }
                // Without idempotence nothing is sent twice.
                Leave::Lost if self.idempotent => {}
                Leave::Lost => self.unsettled.clear(),
            }
            sleep(Duration::from_millis(5 + self.random.below(100))).await;
        }
        self.shared.running.set(self.shared.running.get() - 1);
    }

    async fn connection(&mut self) -> Result<Leave, Lost> {
        let mut client = Client::connect(self.shared.address).await?;
        let connected = Instant::now();
        if self.idempotent && self.identity.is_none() {
            let request = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(1_000)
                .with_producer_id((-1).into());
            let response: InitProducerIdResponse = client.call(api(ApiKey::InitProducerId, 4), &request).await?;
            if response.error_code != 0 {
                assert!(self.shared.faults, "InitProducerId: {}", response.error_code);
                return Err(Lost);
            }
            let id = ProducerId::new(response.producer_id.0).expect("an id that was given is not negative");
            self.identity = Some((id, Sequence::new(0).expect("not negative")));
        }
        let connection = self.shared.next_connection();
        let api = api(ApiKey::Produce, self.version);
        let mut under_way = VecDeque::new();
        for sent in &self.unsettled {
            let request = produce_request(&self.target.topic, self.target.index, self.acks, &sent.bytes);
            under_way.push_back(client.send(api, &request).await?);
        }
        loop {
            while under_way.len() < self.depth && !self.shared.stop.get() {
                let sent = self.make(connection);
                let request = produce_request(&self.target.topic, self.target.index, self.acks, &sent.bytes);
                if self.acks == 0 {
                    client.send(api, &request).await?;
                    break;
                }
                self.unsettled.push_back(sent);
                under_way.push_back(client.send(api, &request).await?);
                if self.random.happens(PerMillion(100_000)) {
                    break;
                }
            }
            if let Some(correlation) = under_way.pop_front() {
                let response = client.receive(api, correlation).await?;
                if let Some(leave) = self.settle(&response, connected) {
                    return Ok(leave);
                }
            } else if self.shared.stop.get() {
                return Ok(Leave::Done);
            }
            if self.random.happens(PerMillion(200_000)) || self.acks == 0 {
                sleep(Duration::from_micros(self.random.below(20_000))).await;
            }
            if self.random.happens(PerMillion(3_000)) {
                return Ok(Leave::Lost);
            }
        }
    }

    fn make(&mut self, connection: u64) -> Sent {
        self.stamp.number += 1;
        let epoch = ProducerEpoch::new(0).expect("not negative");
        let producer = self.identity.map(|(id, base_sequence)| Producer { id, epoch, base_sequence });
        let sent = self.maker.make(&mut self.random, self.stamp, self.sizes, producer, wall_clock());
        if let Some((_, sequence)) = &mut self.identity {
            *sequence = sequence.plus(sent.records);
        }
        let connection = (!self.idempotent).then_some(connection);
        self.target.history.borrow_mut().sent(sent.clone(), connection);
        sent
    }

    /// Takes the answer to the oldest batch under way; says whether to leave the connection.
    fn settle(&mut self, response: &ProduceResponse, connected: Instant) -> Option<Leave> {
        let (code, base) = produced_partition(response);
        let mut history = self.target.history.borrow_mut();
        if self.idempotent && (is_unknown(code) || is_transient(code)) {
            return Some(Leave::Again);
        }
        if code == ErrorCode::OutOfOrderSequenceNumber.code() {
            // A power cut took acknowledged batches of a topic that allows it: the sequence has a gap for good.
            assert!(
                history.is_cached() || self.shared.faults,
                "{}-{}: a sequence out of order although nothing may be lost",
                self.target.topic,
                self.target.index
            );
            return Some(Leave::Anew);
        }
        let sent = self.unsettled.pop_front().expect("an answer belongs to a batch");
        match code {
            0 => {
                history.acknowledged(sent.stamp, base, connected, Instant::now());
                self.shared.acknowledged.set(self.shared.acknowledged.get() + 1);
            }
            code if is_unknown(code) => {}
            code if is_transient(code) => history.refused(sent.stamp, code),
            code => panic!("{}-{}: {:?} is answered {code}", self.target.topic, self.target.index, sent.stamp),
        }
        None
    }
}

/// A consumer of one partition.
pub(crate) async fn consume(shared: Rc<Shared>, target: Rc<Target>, mut random: Random) {
    let mut from = 0;
    while !shared.stop.get() {
        let version = *random.choose(&[4, 8, 12]);
        let _ = consume_on(&shared, &target, &mut random, &mut from, version).await;
        sleep(Duration::from_millis(20 + random.below(200))).await;
    }
    shared.running.set(shared.running.get() - 1);
}

async fn consume_on(
    shared: &Shared,
    target: &Target,
    random: &mut Random,
    from: &mut i64,
    version: i16,
) -> Result<(), Lost> {
    let mut client = Client::connect(shared.address).await?;
    let api = api(ApiKey::Fetch, version);
    while !shared.stop.get() {
        let bytes_max = *random.choose(&[1, 4_096, 1 << 20]);
        let request = fetch_request(&target.topic, target.index, *from, 300, bytes_max);
        let partition = fetched_partition(client.call(api, &request).await?);
        *from = take(target, *from, &partition);
        if random.happens(PerMillion(30_000)) {
            let start = target.history.borrow().start_min;
            *from = start + random.below((*from - start).max(1).unsigned_abs()).cast_signed();
        }
        if random.happens(PerMillion(200_000)) {
            sleep(Duration::from_micros(random.below(30_000))).await;
        }
    }
    Ok(())
}

/// Checks one answer; returns where to read on.
pub(crate) fn take(target: &Target, from: i64, partition: &PartitionData) -> i64 {
    let mut history = target.history.borrow_mut();
    let code = partition.error_code;
    if code == ErrorCode::OffsetOutOfRange.code() {
        // Deleted meanwhile; or, with write caching, lost with the power.
        let start = partition.log_start_offset;
        assert!(
            history.is_cached() || start > from || start < 0,
            "{}-{}: offset {from} is out of range, the log starts at {start}",
            target.topic,
            target.index
        );
        return start.max(history.start_min);
    }
    // A broker that stops has closed its logs already.
    if is_transient(code) || code == ErrorCode::KafkaStorageError.code() {
        return from;
    }
    assert_eq!(code, 0, "{}-{}: a fetch from {from}", target.topic, target.index);
    history.told_high_watermark(partition.high_watermark);
    let records = partition.records.as_deref().unwrap_or_default();
    history.fetched(from, partition.high_watermark, records).end
}

/// Deletes records now and then.
pub(crate) async fn administrate(shared: Rc<Shared>, mut random: Random) {
    while !shared.stop.get() {
        sleep(Duration::from_millis(100 + random.below(1_500))).await;
        if shared.stop.get() {
            break;
        }
        let target = random.choose(&shared.targets).clone();
        let _ = delete_records(&shared, &target, &mut random).await;
    }
    shared.running.set(shared.running.get() - 1);
}

async fn delete_records(shared: &Shared, target: &Target, random: &mut Random) -> Result<(), Lost> {
    let before = {
        let mut history = target.history.borrow_mut();
        let (start, end) = (history.start_min, history.high_watermark.max(history.start_min));
        let share = *random.choose(&[10, 10, 3]);
        let before = start + random.below(((end - start) / share + 1).unsigned_abs()).cast_signed();
        history.start_max = history.start_max.max(before);
        before
    };
    let mut client = Client::connect(shared.address).await?;
    let partition = DeleteRecordsPartition::default().with_partition_index(target.index).with_offset(before);
    let topic = DeleteRecordsTopic::default().with_name(topic_name(&target.topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_timeout_ms(4_000).with_topics(vec![topic]);
    let response: DeleteRecordsResponse = client.call(api(ApiKey::DeleteRecords, 2), &request).await?;
    let partition = &response.topics[0].partitions[0];
    let mut history = target.history.borrow_mut();
    match partition.error_code {
        0 => {
            let now = partition.low_watermark;
            assert!(now >= before, "{}: starts at {now} after a deletion up to {before}", target.topic);
            history.start_min = history.start_min.max(before);
        }
        code if is_transient(code) => {}
        code if code == ErrorCode::KafkaStorageError.code() => {}
        // With write caching the high watermark may have gone back.
        code if code == ErrorCode::OffsetOutOfRange.code() && history.is_cached() => {}
        code => panic!("{}-{}: DeleteRecords up to {before}: {code}", target.topic, target.index),
    }
    Ok(())
}
