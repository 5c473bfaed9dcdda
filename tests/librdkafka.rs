//! librdkafka, a client that was written elsewhere, against a real broker: whatever it writes is read back equal, in order,
//! by another instance of it.
//!
//! The tests share one broker and have topics of their own; the one that restarts a broker has that for itself. Groups do not
//! exist yet, so consumers are assigned their partitions and commit nothing.

mod clients;
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clients::librdkafka::{
    self as client, Found, Record, Sender, admin, admin_options, assert_same, config, create_topic, produce,
    produce_in_order, producer_config, read, wait_for,
};
use clients::wire::{BATCH_TIME, Client, batches, compressed};
use clients::{SOON, eventually, noise};
use corelane::record::Codec;
use corelane::wire::Api;
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use support::{BrokerOptions, Scratch, SharedBroker, fixed_port, now};

const MIB: usize = 1 << 20;
/// A time to stamp records with.
const BASE_TIME: i64 = 1_700_000_000_000;

/// The broker that the tests share.
fn shared_broker() -> Arc<SharedBroker> {
    SharedBroker::running("librdkafka")
}

/// `count` records that compress: rows of a table, keyed.
fn rows(count: usize) -> Vec<Record> {
    let row = |number: usize| {
        let value = format!(r#"{{"symbol":"CLNE","row":{number},"price":{}.25,"currency":"EUR"}}"#, number * 7 % 1000);
        Record::new(format!("key-{}", number % 17).as_bytes(), value.as_bytes())
    };
    (0..count).map(row).collect()
}

fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = producer_config(bootstrap);
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

/// The codecs of the batches that the broker stored.
fn stored_codecs(shared: &SharedBroker, topic: &str) -> Vec<Codec> {
    let data = Client::connect(shared.address()).fetch(topic, 0, 0);
    batches(&data).iter().map(|batch| batch.codec()).collect()
}

/// The codec that librdkafka really sends. It takes the presence of FindCoordinator (key 10) for that of LZ4, since both
/// came with Kafka 0.8.2: without groups there is no such API, and LZ4 is sent uncompressed.
fn sent_codec(codec: Codec) -> Codec {
    let takes_lz4 = Api::lookup(10, 0).is_ok();
    if codec == Codec::Lz4 && !takes_lz4 { Codec::None } else { codec }
}

#[test]
fn every_codec_with_every_acks_is_read_back_equal() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    let records = rows(300);
    for codec in Codec::ALL {
        for acks in ["0", "1", "all"] {
            let topic = format!("codec-{codec}-acks-{acks}");
            create_topic(&bootstrap, &topic, 1, &[]);
            // Whole batches: librdkafka leaves one that does not get smaller as it is.
            let batches = [("linger.ms", "100"), ("batch.num.messages", "100")];
            let settings = [batches[0], batches[1], ("compression.type", codec.name()), ("acks", acks)];
            let config = producer(&bootstrap, &settings);
            let deliveries = produce(&config, &topic, 0, &records);
            for (offset, delivery) in (0..).zip(deliveries) {
                let expected = (acks != "0").then_some(offset);
                assert_eq!(delivery, Ok((0, expected)), "{topic}");
            }
            let found = eventually("everything is there", || {
                let found = read(&client::config(&bootstrap), &topic, 0, Offset::Beginning);
                // With acks=0 nobody said that it is there already.
                (acks != "0" || found.len() == records.len()).then_some(found)
            });
            assert_same(&found, 0, &records);
            // librdkafka stops compressing without a word where it thinks that the broker is old.
            let (stored, expected) = (stored_codecs(&shared, &topic), sent_codec(codec));
            assert!(!stored.is_empty() && stored.iter().all(|found| *found == expected), "{topic}: {stored:?}");
        }
    }
}

#[test]
fn batches_of_every_codec_that_others_made_are_read() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    let mut other = Client::connect(shared.address());
    for codec in Codec::ALL {
        let topic = format!("made-{codec}");
        create_topic(&bootstrap, &topic, 1, &[]);
        let values: Vec<Vec<u8>> = rows(200).into_iter().filter_map(|row| row.value).collect();
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        assert_eq!(other.append(&topic, 0, &compressed(codec, &values)), 0);
        assert_eq!(stored_codecs(&shared, &topic), [codec]);
        let record =
            |value: &&[u8]| Record { value: Some(value.to_vec()), timestamp: Some(BATCH_TIME), ..Record::default() };
        let records: Vec<Record> = values.iter().map(record).collect();
        assert_same(&read(&config(&bootstrap), &topic, 0, Offset::Beginning), 0, &records);
    }
}

#[test]
fn an_idempotent_producer_is_read_back_equal_with_every_codec() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    for codec in Codec::ALL {
        let topic = format!("idempotent-{codec}");
        create_topic(&bootstrap, &topic, 1, &[]);
        let records = rows(2000);
        // Many small batches, five in flight: what sequences have to put in order.
        let settings =
            [("enable.idempotence", "true"), ("compression.type", codec.name()), ("batch.num.messages", "50")];
        let first = produce_in_order(&producer(&bootstrap, &settings), &topic, 0, &records);
        assert_eq!(first, 0);
        assert_same(&read(&config(&bootstrap), &topic, 0, Offset::Beginning), 0, &records);
    }
}

#[test]
fn keys_values_and_headers_keep_their_shapes() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    let fields = [None, Some(Vec::new()), Some(vec![0]), Some(b"text".to_vec()), Some(vec![0xff, 0, 0xfe])];
    let header = |key: &str, value: Option<&[u8]>| (key.to_owned(), value.map(<[u8]>::to_vec));
    let headers = [
        vec![],
        vec![header("a", Some(b"1"))],
        vec![header("twice", Some(b"first")), header("other", None), header("twice", Some(b"second"))],
        vec![header("twice", Some(b"same")), header("twice", Some(b"same")), header("twice", None)],
        vec![header("empty", Some(b"")), header("", Some(b"no name")), header("bytes", Some(&[0xff, 0, 0x80]))],
        (0..100).map(|number| header(&format!("many-{number}"), Some(&[number; 20]))).collect(),
    ];
    let mut records = Vec::new();
    for key in &fields {
        for value in &fields {
            for headers in &headers {
                let (key, value, headers) = (key.clone(), value.clone(), headers.clone());
                records.push(Record { key, value, headers, timestamp: None });
            }
        }
    }
    for codec in Codec::ALL {
        let topic = format!("shapes-{codec}");
        create_topic(&bootstrap, &topic, 1, &[]);
        let config = producer(&bootstrap, &[("compression.type", codec.name())]);
        assert_eq!(produce_in_order(&config, &topic, 0, &records), 0);
        assert_same(&read(&client::config(&bootstrap), &topic, 0, Offset::Beginning), 0, &records);
    }
}

#[test]
fn records_of_1_byte_to_1_mib_are_read_back_equal() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    let mut sizes = vec![1, 2, 3, 63, 64, 65, 127, 128, 4095, 4096, 4097, 65_535, 65_536, MIB - 1, MIB];
    // Around every block and both sides of every length of a varint, then back to small ones.
    sizes.extend([8191, 8192, 16_383, 16_384, 1 << 17, 300_000, 5, 1]);
    let records: Vec<Record> =
        sizes.iter().enumerate().map(|(seed, &size)| Record::new(b"size", &noise(seed as u64, size))).collect();
    for codec in ["none", "lz4", "zstd"] {
        let topic = format!("sizes-{codec}");
        create_topic(&bootstrap, &topic, 1, &[("max.message.bytes", "2097152")]);
        let settings = [("message.max.bytes", "2097152"), ("compression.type", codec), ("enable.idempotence", "true")];
        assert_eq!(produce_in_order(&producer(&bootstrap, &settings), &topic, 0, &records), 0);
        assert_same(&read(&config(&bootstrap), &topic, 0, Offset::Beginning), 0, &records);
    }
    // Without the topic's own limit the largest is refused for good, and the others are not affected.
    create_topic(&bootstrap, "sizes-default", 1, &[]);
    let settings = [("message.max.bytes", "2097152"), ("batch.num.messages", "1"), ("linger.ms", "0")];
    let deliveries = produce(&producer(&bootstrap, &settings), "sizes-default", 0, &records);
    for (record, delivery) in records.iter().zip(deliveries) {
        // max.message.bytes is 1 MiB and 12 bytes, and the batch's header alone has 61.
        let too_large = record.value.as_ref().is_some_and(|value| value.len() >= MIB - 1);
        assert_eq!(delivery.err(), too_large.then_some(RDKafkaErrorCode::MessageSizeTooLarge));
    }
}

#[test]
fn keys_choose_partitions_and_keep_their_order() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    create_topic(&bootstrap, "keyed", 8, &[]);
    let records = rows(4000);
    let mut sender = Sender::new(&producer(&bootstrap, &[("enable.idempotence", "true")]), "keyed");
    records.iter().for_each(|record| sender.send(record, None));
    let deliveries = sender.finish();
    let mut partition_of_key = HashMap::new();
    let mut expected: HashMap<i32, Vec<Record>> = HashMap::new();
    for (record, delivery) in records.iter().zip(deliveries) {
        let (partition, offset) = delivery.expect("delivered");
        let own = expected.entry(partition).or_default();
        assert_eq!(offset, Some(own.len() as i64));
        own.push(record.clone());
        assert_eq!(*partition_of_key.entry(&record.key).or_insert(partition), partition, "one partition for one key");
    }
    assert!(expected.len() > 1, "17 keys meet in one partition");
    for partition in 0..8 {
        let found = read(&config(&bootstrap), "keyed", partition, Offset::Beginning);
        assert_same(&found, 0, expected.get(&partition).map_or(&[], Vec::as_slice));
    }
}

#[test]
fn timestamps_are_kept_and_offsets_are_found_by_them() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    create_topic(&bootstrap, "times", 1, &[]);
    let mut records = rows(500);
    for (second, record) in (0..).zip(&mut records) {
        record.timestamp = Some(BASE_TIME + second * 1000);
    }
    let config = producer(&bootstrap, &[("batch.num.messages", "7")]);
    assert_eq!(produce_in_order(&config, "times", 0, &records), 0);
    let config = client::config(&bootstrap);
    assert_same(&read(&config, "times", 0, Offset::Beginning), 0, &records);

    let consumer = client::consumer(&config, "times", 0, Offset::Beginning);
    let offset_at = |time: i64| {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset("times", 0, Offset::Offset(time)).expect("a time");
        let found = consumer.offsets_for_times(wanted, SOON).expect("the broker answers");
        found.find_partition("times", 0).expect("the partition").offset()
    };
    for (time, offset) in
        [(0, 0), (BASE_TIME, 0), (BASE_TIME + 1, 1), (BASE_TIME + 123_000, 123), (BASE_TIME + 123_001, 124)]
    {
        assert_eq!(offset_at(time), Offset::Offset(offset), "{time}");
    }
    assert_eq!(offset_at(BASE_TIME + 499_000), Offset::Offset(499));
    assert_eq!(offset_at(BASE_TIME + 499_001), Offset::End, "nothing is that late");
}

#[test]
fn log_append_time_is_the_brokers() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    create_topic(&bootstrap, "append-time", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let mut records = rows(10);
    records.iter_mut().for_each(|record| record.timestamp = Some(BASE_TIME));
    produce_in_order(&producer_config(&bootstrap), "append-time", 0, &records);
    let found = read(&config(&bootstrap), "append-time", 0, Offset::Beginning);
    let untimed: Vec<Record> = records.iter().map(Record::untimed).collect();
    assert_same(&found, 0, &untimed);
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as i64;
    for found in found {
        let time = found.record.timestamp.expect("a timestamp");
        assert!((now - 60_000..=now + 1000).contains(&time), "{time} is not now, {now}");
    }
}

#[test]
fn reading_starts_where_the_client_wants() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    create_topic(&bootstrap, "starts", 1, &[]);
    let records = rows(100);
    produce_in_order(&producer(&bootstrap, &[("batch.num.messages", "9")]), "starts", 0, &records);
    let config = config(&bootstrap);
    for (from, first) in [
        (Offset::Beginning, 0),
        (Offset::Offset(0), 0),
        (Offset::Offset(50), 50),
        (Offset::OffsetTail(3), 97),
        (Offset::End, 100),
    ] {
        assert_same(&read(&config, "starts", 0, from), first as i64, &records[first..]);
    }
    let watermarks = || {
        let consumer = client::consumer(&config, "starts", 0, Offset::Beginning);
        consumer.fetch_watermarks("starts", 0, SOON).expect("the broker answers")
    };
    assert_eq!(watermarks(), (0, 100));
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("starts", 0, Offset::Offset(40)).expect("an offset");
    let deleted = wait_for(admin(&bootstrap).delete_records(&before, &admin_options())).expect("the broker answers");
    assert_eq!(deleted.find_partition("starts", 0).expect("the partition").offset(), Offset::Offset(40));
    assert_eq!(watermarks(), (40, 100));
    assert_same(&read(&config, "starts", 0, Offset::Beginning), 40, &records[40..]);
    // An offset that is gone is out of range, and the reset policy decides.
    let mut reset = config.clone();
    reset.set("auto.offset.reset", "earliest");
    let consumer = {
        let consumer: rdkafka::consumer::BaseConsumer =
            reset.set("group.id", "corelane-tests").set("enable.auto.commit", "false").create().expect("valid");
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset("starts", 0, Offset::Offset(10)).expect("an offset");
        consumer.assign(&assignment).expect("assigned");
        consumer
    };
    let first = eventually("the consumer is reset", || match consumer.poll(Duration::from_millis(100)) {
        Some(Ok(message)) => Some(client::detach(&message)),
        _ => None,
    });
    assert_eq!(first.offset, 40);
}

#[test]
fn metadata_names_the_broker_and_the_partitions() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    create_topic(&bootstrap, "described", 3, &[]);
    let admin = admin(&bootstrap);
    let metadata = admin.inner().fetch_metadata(Some("described"), SOON).expect("the broker answers");
    let brokers: Vec<_> = metadata.brokers().iter().map(|broker| (broker.id(), broker.host(), broker.port())).collect();
    assert_eq!(brokers, [(1, "127.0.0.1", i32::from(shared.address().port()))]);
    let partitions = metadata.topics()[0].partitions();
    let described: Vec<_> =
        partitions.iter().map(|found| (found.id(), found.leader(), found.replicas(), found.isr())).collect();
    let one = &[1][..];
    assert_eq!(described, [(0, 1, one, one), (1, 1, one, one), (2, 1, one, one)]);
    let all = admin.inner().fetch_metadata(None, SOON).expect("the broker answers");
    assert!(all.topics().iter().any(|topic| topic.name() == "described"));
    let cluster = admin.inner().fetch_cluster_id(SOON);
    assert_eq!(cluster, Some(shared.ready().cluster.to_string()));
}

#[test]
fn an_unknown_topic_is_created_by_a_producer_and_not_by_a_consumer() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    let mut impatient = config(&bootstrap);
    // How long an unknown topic counts as one that is being made.
    impatient.set("topic.metadata.propagation.max.ms", "1000").set("topic.metadata.refresh.fast.interval.ms", "200");
    let consumer = client::consumer(&impatient, "on-demand", 0, Offset::Beginning);
    let error = eventually("the consumer hears of it", || match consumer.poll(Duration::from_millis(100)) {
        Some(Err(error)) => error.rdkafka_error_code(),
        _ => None,
    });
    let unknown =
        [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownPartition, RDKafkaErrorCode::UnknownTopic];
    assert!(unknown.contains(&error), "{error:?}");
    let records = rows(20);
    produce_in_order(&producer_config(&bootstrap), "on-demand", 0, &records);
    assert_same(&read(&config(&bootstrap), "on-demand", 0, Offset::Beginning), 0, &records);
}

#[test]
fn topics_are_created_and_deleted_by_the_admin_client() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    let admin = admin(&bootstrap);
    let create = |name: &str, partitions, replicas, configuration: &[(&str, &str)]| {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        let topic = configuration.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let mut results = wait_for(admin.create_topics([&topic], &admin_options())).expect("the broker answers");
        results.remove(0).map_err(|(_, code)| code)
    };
    let delete = |name: &str| {
        let mut results = wait_for(admin.delete_topics(&[name], &admin_options())).expect("the broker answers");
        results.remove(0).map_err(|(_, code)| code)
    };
    assert_eq!(create("managed", 2, 1, &[("retention.ms", "60000")]), Ok("managed".to_owned()));
    assert_eq!(create("managed", 2, 1, &[]), Err(RDKafkaErrorCode::TopicAlreadyExists));
    assert_eq!(create("not/legal", 1, 1, &[]), Err(RDKafkaErrorCode::InvalidTopic));
    assert_eq!(create("too-many", 1, 2, &[]), Err(RDKafkaErrorCode::InvalidReplicationFactor));
    assert_eq!(create("unknown-key", 1, 1, &[("retention.msec", "1")]), Err(RDKafkaErrorCode::InvalidConfig));
    assert_eq!(create("bad-value", 1, 1, &[("retention.ms", "soon")]), Err(RDKafkaErrorCode::InvalidConfig));
    let old = rows(10);
    produce_in_order(&producer_config(&bootstrap), "managed", 1, &old);
    assert_eq!(delete("managed"), Ok("managed".to_owned()));
    assert_eq!(delete("managed"), Err(RDKafkaErrorCode::UnknownTopicOrPartition));
    let all = admin.inner().fetch_metadata(None, SOON).expect("the broker answers");
    assert!(all.topics().iter().all(|topic| topic.name() != "managed"));
    // A topic of the same name is another topic: nothing of the old one is in it.
    assert_eq!(create("managed", 2, 1, &[]), Ok("managed".to_owned()));
    let new = rows(5);
    assert_eq!(produce_in_order(&producer_config(&bootstrap), "managed", 1, &new), 0);
    assert_same(&read(&config(&bootstrap), "managed", 1, Offset::Beginning), 0, &new);
}

#[test]
fn fifty_megabytes_are_fetched_in_large_answers() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    create_topic(&bootstrap, "large", 1, &[]);
    let records: Vec<Record> = (0..100).map(|seed| Record::new(&[seed as u8], &noise(seed, 500_000))).collect();
    let settings = [("queue.buffering.max.kbytes", "131072"), ("enable.idempotence", "true")];
    assert_eq!(produce_in_order(&producer(&bootstrap, &settings), "large", 0, &records), 0);
    let mut config = config(&bootstrap);
    config.set("fetch.max.bytes", "67108864").set("max.partition.fetch.bytes", "67108864");
    config.set("receive.message.max.bytes", "100000000").set("queued.max.messages.kbytes", "131072");
    // All of it is to come in one answer.
    config.set("fetch.min.bytes", "50000000").set("fetch.wait.max.ms", "10000").set("socket.timeout.ms", "60000");
    assert_same(&read(&config, "large", 0, Offset::Beginning), 0, &records);
}

#[test]
fn a_waiting_consumer_gets_records_promptly() {
    let shared = shared_broker();
    let bootstrap = shared.bootstrap();
    create_topic(&bootstrap, "prompt", 1, &[]);
    let mut patient = config(&bootstrap);
    // Without a broker that answers as soon as there is something it would be a minute.
    patient.set("fetch.wait.max.ms", "60000").set("fetch.min.bytes", "1").set("socket.timeout.ms", "90000");
    let consumer = client::consumer(&patient, "prompt", 0, Offset::Beginning);
    // A fetch of its own has been answered before the first record is sent.
    let _ = consumer.poll(Duration::from_millis(500));
    let records = rows(5);
    for (offset, record) in (0..).zip(&records) {
        let begin = now();
        produce_in_order(&producer(&bootstrap, &[("linger.ms", "0")]), "prompt", 0, std::slice::from_ref(record));
        let found: Found = eventually("the record comes", || match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => Some(client::detach(&message)),
            _ => None,
        });
        assert_eq!((found.offset, found.record.untimed()), (offset, record.clone()));
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}

#[test]
fn an_idempotent_producer_goes_on_over_restarts_without_loss_or_duplicates() {
    let scratch = Scratch::new("librdkafka-restart");
    let options = BrokerOptions::new(&scratch.path().join("data")).port(fixed_port());
    let start = || options.start().unwrap_or_else(|ended| panic!("{ended}"));
    let mut broker = start();
    let bootstrap = broker.bootstrap();
    create_topic(&bootstrap, "restarted", 1, &[("segment.bytes", "1048576")]);
    let settings = [("enable.idempotence", "true"), ("batch.num.messages", "20"), ("linger.ms", "1")];
    let mut sender = Sender::new(&producer(&bootstrap, &settings), "restarted");
    let records: Vec<Record> =
        (0..6000u32).map(|number| Record::new(&number.to_be_bytes(), &noise(number.into(), 500))).collect();
    for (part, records) in records.chunks(1500).enumerate() {
        let decided = sender.decided();
        records.iter().for_each(|record| sender.send(record, Some(0)));
        // In the middle of this part, with requests in flight.
        let deadline = now() + SOON;
        while sender.decided() < decided + 300 {
            assert!(now() < deadline, "{} records are decided about\n{}", sender.decided(), broker.stderr());
            sender.poll(Duration::from_millis(1));
        }
        match part {
            0 => assert_eq!(broker.terminate().code(), Some(0)),
            1 | 2 => drop(broker.kill()),
            _ => break,
        }
        broker = start();
    }
    for (offset, delivery) in (0..).zip(sender.finish()) {
        assert_eq!(delivery, Ok((0, Some(offset))));
    }
    assert_same(&read(&config(&bootstrap), "restarted", 0, Offset::Beginning), 0, &records);
    // What was read from the last process is also what is on disk.
    let ended = broker.terminate();
    assert_eq!(ended.code(), Some(0), "{ended}");
    let broker = start();
    assert_eq!(broker.ready().recovered, 0, "a clean stop leaves nothing to recover");
    assert_same(&read(&config(&bootstrap), "restarted", 0, Offset::Beginning), 0, &records);
}
