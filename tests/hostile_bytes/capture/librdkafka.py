# librdkafka (confluent-kafka) doing all that needs no group, so that scripts/capture-frames can record its requests.
#
# What the broker does not speak yet fails on the client's side and is named on standard error; nothing is checked here: the
# recorded frames are what counts. Usage: librdkafka.py BOOTSTRAP

import sys

from confluent_kafka import Consumer, IsolationLevel, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec,
)

TOPIC = "librdkafka-records"


def attempt(name, step):
    try:
        step()
        print(f"{name}: ok", file=sys.stderr)
    except Exception as error:  # whatever a client library may raise
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)


def results(futures):
    """Waits for the outcome of each part of an admin operation."""
    for future in futures.values() if isinstance(futures, dict) else [futures]:
        future.result(timeout=10)


def administer(bootstrap):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    limit = {"request_timeout": 8}
    topics = [NewTopic(TOPIC, 3, 1, config={"segment.bytes": "1048576"}), NewTopic("librdkafka-gone", 1, 1)]
    attempt("create", lambda: results(admin.create_topics(topics, **limit)))
    never = [NewTopic("librdkafka-never", 2, 1)]
    attempt("validate", lambda: results(admin.create_topics(never, validate_only=True, **limit)))
    attempt("list", lambda: admin.list_topics(timeout=8))
    attempt("describe", lambda: results(admin.describe_topics(TopicCollection([TOPIC]), **limit)))
    attempt("cluster", lambda: results(admin.describe_cluster(**limit)))
    resource = ConfigResource(ConfigResource.Type.TOPIC, TOPIC)
    attempt("configs", lambda: results(admin.describe_configs([resource], **limit)))
    change = [ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)]
    altered = ConfigResource(ConfigResource.Type.TOPIC, TOPIC, incremental_configs=change)
    attempt("alter", lambda: results(admin.incremental_alter_configs([altered], **limit)))
    attempt("partitions", lambda: results(admin.create_partitions([NewPartitions(TOPIC, 4)], **limit)))
    specs = [OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.max_timestamp(), OffsetSpec.for_timestamp(1)]
    for spec in specs:
        wanted = {TopicPartition(TOPIC, 0): spec}
        for isolation in [IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED]:
            attempt("offsets", lambda: results(admin.list_offsets(wanted, isolation_level=isolation, **limit)))
    attempt("delete", lambda: results(admin.delete_topics(["librdkafka-gone"], **limit)))
    return admin


def produce(bootstrap, **options):
    settings = {key.replace("_", "."): value for key, value in options.items()}
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "message.timeout.ms": 9000, **settings})
    for number in range(30):
        value = None if number % 7 == 6 else b"a value that is repeated " * number
        key = None if number % 3 == 2 else b"key-%d" % number
        headers = [("header", b"of a record"), ("empty", None)] if number % 5 == 0 else None
        producer.produce(TOPIC, value, key, partition=number % 3, headers=headers)
    producer.flush(15)


def consume(bootstrap, isolation):
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "nobody", "enable.auto.commit": False, "check.crcs": True,
        "isolation.level": isolation, "fetch.wait.max.ms": 50, "client.rack": "rack",
    })
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(2)])
    for _ in range(60):
        consumer.poll(0.05)
    attempt("times", lambda: consumer.offsets_for_times([TopicPartition(TOPIC, 0, 1)], timeout=5))
    attempt("ends", lambda: consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=5))
    consumer.close()


def main(bootstrap):
    admin = administer(bootstrap)
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        attempt(f"produce {codec}", lambda: produce(bootstrap, compression_type=codec, enable_idempotence=True))
    for acks in [0, 1, -1]:
        attempt(f"produce acks={acks}", lambda: produce(bootstrap, acks=acks))
    for isolation in ["read_uncommitted", "read_committed"]:
        attempt(f"consume {isolation}", lambda: consume(bootstrap, isolation))
    attempt("delete records", lambda: results(admin.delete_records([TopicPartition(TOPIC, 0, 1)], request_timeout=8)))


main(sys.argv[1])
