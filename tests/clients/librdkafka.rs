//! librdkafka as the tests use it: records in, what became of each; records out, all that are there.
//!
//! Producers and consumers are made for one call and share nothing, so that what is read has come from the broker. Consumers
//! are assigned partitions by hand and commit nothing; the group id is there because the library asks for one.
//!
//! Source: librdkafka's CONFIGURATION.md.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::SOON;
use crate::support::now;

/// A record as a client writes and reads it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds; the time of sending if absent.
    pub(crate) timestamp: Option<i64>,
}

impl Record {
    /// A record with this key and value.
    pub(crate) fn new(key: &[u8], value: &[u8]) -> Record {
        Record { key: Some(key.to_vec()), value: Some(value.to_vec()), ..Record::default() }
    }

    /// The same without its timestamp, for comparing what was given none.
    pub(crate) fn untimed(&self) -> Record {
        Record { timestamp: None, ..self.clone() }
    }
}

/// A record that was read, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) record: Record,
}

/// What became of a record that was sent: partition and offset (absent with acks=0), or the error.
pub(crate) type Delivery = Result<(i32, Option<i64>), RDKafkaErrorCode>;

/// A configuration for any client of the broker at `bootstrap`.
pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("client.id", "corelane-tests");
    // A restarted broker is found again at once, not after seconds.
    config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "200").set("retry.backoff.ms", "20");
    config
}

/// A configuration for producers: everything in order, each record given up after a minute.
pub(crate) fn producer_config(bootstrap: &str) -> ClientConfig {
    let mut config = config(bootstrap);
    config.set("message.timeout.ms", "60000").set("linger.ms", "5").set("retry.backoff.max.ms", "200");
    config
}

/// Keeps what became of each record, by its number.
#[derive(Clone, Default)]
pub(crate) struct Deliveries(Arc<Mutex<Vec<(usize, Delivery)>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let delivery = match result {
            Ok(message) => Ok((message.partition(), Some(message.offset()).filter(|offset| *offset >= 0))),
            Err((error, _)) => Err(error.rdkafka_error_code().expect("a delivery fails with a code")),
        };
        self.0.lock().expect("no other holder panics").push((number, delivery));
    }
}

/// A producer of records to one topic.
pub(crate) struct Sender {
    producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
    topic: String,
    sent: usize,
}

impl Sender {
    /// A producer with this configuration.
    pub(crate) fn new(config: &ClientConfig, topic: &str) -> Sender {
        let deliveries = Deliveries::default();
        let producer = config.create_with_context(deliveries.clone()).expect("a valid configuration");
        Sender { producer, deliveries, topic: topic.to_owned(), sent: 0 }
    }

    /// Queues a record, for `partition` or for the one that its key gives.
    pub(crate) fn send(&mut self, record: &Record, partition: Option<i32>) {
        let mut message = BaseRecord::with_opaque_to(&self.topic, self.sent);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.timestamp = record.timestamp;
        message.partition = partition;
        if !record.headers.is_empty() {
            let header = |headers: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
                headers.insert(Header { key, value: value.as_deref() })
            };
            message.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), header));
        }
        self.sent += 1;
        let deadline = now() + SOON;
        while let Err((error, returned)) = self.producer.send(message) {
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            assert!(full && now() < deadline, "a record cannot be queued: {error}");
            self.producer.poll(Duration::from_millis(10));
            message = returned;
        }
        self.producer.poll(Duration::ZERO);
    }

    /// Serves the producer for a while.
    pub(crate) fn poll(&self, time: Duration) {
        self.producer.poll(time);
    }

    /// How many records have been decided about.
    pub(crate) fn decided(&self) -> usize {
        self.deliveries.0.lock().expect("no other holder panics").len()
    }

    /// Waits for all records and says what became of each, in the order of sending.
    pub(crate) fn finish(self) -> Vec<Delivery> {
        self.producer.flush(Duration::from_secs(90)).expect("every record is decided about");
        let mut deliveries = std::mem::take(&mut *self.deliveries.0.lock().expect("no other holder panics"));
        deliveries.sort_by_key(|(number, _)| *number);
        let numbers: Vec<usize> = deliveries.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (0..self.sent).collect::<Vec<_>>(), "each record is decided about once");
        deliveries.into_iter().map(|(_, delivery)| delivery).collect()
    }
}

/// Sends `records` to `partition` of `topic` and waits for them.
pub(crate) fn produce(config: &ClientConfig, topic: &str, partition: i32, records: &[Record]) -> Vec<Delivery> {
    let mut sender = Sender::new(config, topic);
    records.iter().for_each(|record| sender.send(record, Some(partition)));
    sender.finish()
}

/// Sends `records` to `partition` and demands that they take consecutive offsets in this order; returns the first.
pub(crate) fn produce_in_order(config: &ClientConfig, topic: &str, partition: i32, records: &[Record]) -> i64 {
    let offsets: Vec<i64> = produce(config, topic, partition, records)
        .into_iter()
        .map(|delivery| delivery.expect("delivered").1.expect("acknowledged with an offset"))
        .collect();
    let first = *offsets.first().expect("at least one record");
    assert_eq!(offsets, (first..first + offsets.len() as i64).collect::<Vec<_>>());
    first
}

/// A consumer that is assigned `partition` of `topic` from `from` on.
pub(crate) fn consumer(config: &ClientConfig, topic: &str, partition: i32, from: Offset) -> BaseConsumer {
    let mut config = config.clone();
    config
        .set("group.id", "corelane-tests")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    config.set("enable.partition.eof", "true").set("check.crcs", "true").set("auto.offset.reset", "error");
    // Metadata requests of consumers create no topics, so that an unknown one is an error here.
    config.set("allow.auto.create.topics", "false");
    let consumer: BaseConsumer = config.create().expect("a valid configuration");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, from).expect("a valid offset");
    consumer.assign(&assignment).expect("partitions can be assigned");
    consumer
}

/// Every record from `from` to the end of the partition, in order.
pub(crate) fn read(config: &ClientConfig, topic: &str, partition: i32, from: Offset) -> Vec<Found> {
    let consumer = consumer(config, topic, partition, from);
    let mut found = Vec::new();
    let mut deadline = now() + SOON;
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                found.push(detach(&message));
                deadline = now() + SOON;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return found,
            Some(Err(error)) => assert!(is_passing(&error), "reading {topic}-{partition}: {error}"),
            None => assert!(now() < deadline, "nothing more of {topic}-{partition} after {} records", found.len()),
        }
    }
}

/// Whether librdkafka goes on by itself after this error: connections that come back, and the coordinator of a group that is
/// not used here.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Resolve)
            | Some(RDKafkaErrorCode::UnsupportedFeature)
    )
}

/// A record as it was read.
pub(crate) fn detach(message: &impl Message) -> Found {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Found {
        partition: message.partition(),
        offset: message.offset(),
        record: Record {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            timestamp: message.timestamp().to_millis(),
        },
    }
}

/// Demands that `found` are `records`, in order and at consecutive offsets from `first` on.
pub(crate) fn assert_same(found: &[Found], first: i64, records: &[Record]) {
    for (index, (found, expected)) in found.iter().zip(records).enumerate() {
        assert_eq!(found.offset, first + index as i64, "the offset of record {index}");
        let read = if expected.timestamp.is_some() { found.record.clone() } else { found.record.untimed() };
        // Not assert_eq: a record may have a megabyte.
        assert!(read == *expected, "record {index} differs: {} against {}", outline(&read), outline(expected));
    }
    assert_eq!(found.len(), records.len(), "the number of records");
}

fn outline(record: &Record) -> String {
    let bytes = |field: &Option<Vec<u8>>| match field {
        Some(bytes) => format!("{} bytes {:02x?}…", bytes.len(), &bytes[..bytes.len().min(16)]),
        None => "null".to_owned(),
    };
    let (key, value) = (bytes(&record.key), bytes(&record.value));
    format!("key {key}, value {value}, headers {:?}, timestamp {:?}", record.headers, record.timestamp)
}

/// An admin client of the broker at `bootstrap`.
pub(crate) fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    config(bootstrap).create().expect("a valid configuration")
}

/// What admin operations may take.
pub(crate) fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(SOON)).operation_timeout(Some(SOON))
}

/// Creates a topic with this configuration.
pub(crate) fn create_topic(bootstrap: &str, name: &str, partitions: i32, configuration: &[(&str, &str)]) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = configuration.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let results = wait_for(admin(bootstrap).create_topics([&topic], &admin_options())).expect("the broker answers");
    assert_eq!(results, [Ok(name.to_owned())]);
}

/// Runs a future to its end on this thread.
pub(crate) fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
