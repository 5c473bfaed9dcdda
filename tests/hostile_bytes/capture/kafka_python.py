# kafka-python doing all that needs no group, so that scripts/capture-frames can record its requests.
#
# What the broker does not speak yet fails on the client's side and is named on standard error; nothing is checked here: the
# recorded frames are what counts. Usage: kafka_python.py BOOTSTRAP

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic

TOPIC = "kafka-python-records"


def attempt(name, step):
    try:
        step()
        print(f"{name}: ok", file=sys.stderr)
    except Exception as error:  # whatever a client library may raise
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)


def administer(bootstrap):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=8000)
    configs = {"segment.bytes": "1048576"}
    attempt("create", lambda: admin.create_topics([NewTopic(TOPIC, 3, 1, topic_configs=configs)]))
    attempt("create gone", lambda: admin.create_topics([NewTopic("kafka-python-gone", 1, 1)]))
    attempt("validate", lambda: admin.create_topics([NewTopic("kafka-python-never", 2, 1)], validate_only=True))
    attempt("list", admin.list_topics)
    attempt("describe", lambda: admin.describe_topics([TOPIC]))
    attempt("cluster", admin.describe_cluster)
    resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC, configs={"retention.ms": "3600000"})
    attempt("configs", lambda: admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)]))
    attempt("alter", lambda: admin.alter_configs([resource]))
    attempt("partitions", lambda: admin.create_partitions({TOPIC: NewPartitions(4)}))
    attempt("log dirs", admin.describe_log_dirs)
    attempt("delete", lambda: admin.delete_topics(["kafka-python-gone"]))
    return admin


def produce(bootstrap, **options):
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, request_timeout_ms=8000, **options)
    for number in range(30):
        value = None if number % 7 == 6 else b"a value that is repeated " * number
        key = None if number % 3 == 2 and value else b"key-%d" % number
        headers = [("header", b"of a record"), ("empty", b"")] if number % 5 == 0 else []
        producer.send(TOPIC, key=key, value=value, partition=number % 3, headers=headers)
    producer.flush(timeout=15)
    producer.close(timeout=5)


def consume(bootstrap, isolation):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level=isolation, fetch_max_wait_ms=50,
                             enable_auto_commit=False, group_id=None)
    partitions = [TopicPartition(TOPIC, number) for number in range(2)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    for _ in range(8):
        consumer.poll(timeout_ms=200)
    attempt("times", lambda: consumer.offsets_for_times({partitions[0]: 1}))
    attempt("ends", lambda: consumer.end_offsets(partitions))
    attempt("beginnings", lambda: consumer.beginning_offsets(partitions))
    attempt("topics", consumer.topics)
    consumer.close()


def main(bootstrap):
    admin = administer(bootstrap)
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        attempt(f"produce {codec}", lambda: produce(bootstrap, compression_type=codec))
    for acks in [0, 1]:
        attempt(f"produce acks={acks}", lambda: produce(bootstrap, acks=acks, enable_idempotence=False))
    for isolation in ["read_uncommitted", "read_committed"]:
        attempt(f"consume {isolation}", lambda: consume(bootstrap, isolation))
    attempt("delete records", lambda: admin.delete_records({TopicPartition(TOPIC, 0): 1}))
    admin.close()


main(sys.argv[1])
