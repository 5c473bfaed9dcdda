# confluent-kafka (librdkafka for Python) in the client matrix; program.py says what the commands do.
#
# It is also the one that makes the topics, writes the canonical set and reads back what others wrote. It reads by assignment,
# with the name of a group that it never joins.

import program
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource
from confluent_kafka.admin import NewPartitions, NewTopic, OffsetSpec, ResourceType

SECONDS = program.SILENCE_SECONDS


def produce(bootstrap, topic, codec, lines):
    acknowledged, failures = [0], []

    def delivered(record):
        def report(error, message):
            try:
                if error is not None:
                    raise RuntimeError(str(error))
                program.must_be_at(record, message.partition(), message.offset())
                acknowledged[0] += 1
            except Exception as failure:
                failures.append(failure)

        return report

    settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "compression.type": codec, "linger.ms": 5}
    producer = Producer(settings)
    for record in lines:
        more = {"partition": record.partition, "timestamp": record.time_ms, "headers": record.headers}
        while True:
            try:
                producer.produce(topic, record.value, record.key, on_delivery=delivered(record), **more)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(SECONDS)
    if failures or left or acknowledged[0] != len(lines):
        raise RuntimeError(f"{len(failures)} deliveries failed ({failures[:1]}), {left} unanswered")


def consume(bootstrap, topics, path):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "matrix", "enable.auto.commit": False,
                         "auto.offset.reset": "error"})
    places = [(name, partition) for name in topics
              for partition in consumer.list_topics(name, SECONDS).topics[name].partitions]
    ends = {place: consumer.get_watermark_offsets(TopicPartition(*place), SECONDS)[1] for place in places}
    reading = program.Reading(path, ends)
    consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])
    while reading.goes_on():
        for message in consumer.consume(1000, 1.0):
            if message.error() is not None:
                if message.error().code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                    continue
                raise RuntimeError(str(message.error()))
            reading.add(message.topic(), message.partition(), message.offset(), message.timestamp()[1], message.key(),
                        message.value(), message.headers() or [])
    consumer.close()


class Admin:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.client = AdminClient({"bootstrap.servers": bootstrap})

    def one(self, futures):
        return next(iter(futures.values())).result(SECONDS)

    def create(self, topic, partitions, *configs):
        self.one(self.client.create_topics([NewTopic(topic, int(partitions), 1, config=program.pairs(configs))]))

    def list(self):
        return self.client.list_topics(timeout=SECONDS).topics

    def describe(self, topic):
        described = self.one(self.client.describe_topics(TopicCollection([topic])))
        return [f"{partition.id}={partition.leader.id}" for partition in described.partitions]

    def cluster(self):
        cluster = self.client.describe_cluster().result(SECONDS)
        return [cluster.controller.id, *(f"{node.id}={node.host}:{node.port}" for node in cluster.nodes)]

    def partitions(self, topic, total):
        self.one(self.client.create_partitions([NewPartitions(topic, int(total))]))

    def configs(self, topic):
        entries = self.one(self.client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])).values()
        return [f"{entry.name}={entry.value}" for entry in entries]

    def altered(self, topic):
        entries = self.one(self.client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])).values()
        return [entry.name for entry in entries if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value]

    def alter_one_by_one(self, topic, operation, pairs):
        entries = [ConfigEntry(name, value, incremental_operation=operation) for name, value in pairs.items()]
        self.one(self.client.incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)]))

    def alter(self, topic, *configs):
        self.alter_one_by_one(topic, AlterConfigOpType.SET, program.pairs(configs))

    def reset(self, topic, *names):
        self.alter_one_by_one(topic, AlterConfigOpType.DELETE, dict.fromkeys(names))

    def replace(self, topic, *configs):
        self.one(self.client.alter_configs([ConfigResource(ResourceType.TOPIC, topic, set_config=program.pairs(configs))]))

    def produce(self, topic, partition, *times_ms):
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for time_ms in times_ms:
            producer.produce(topic, b"admin", partition=int(partition), timestamp=int(time_ms))
        if producer.flush(SECONDS):
            raise TimeoutError("records are not acknowledged")

    def offset(self, topic, partition, which):
        named = {"earliest": OffsetSpec.earliest, "latest": OffsetSpec.latest}
        spec = named[which]() if which in named else OffsetSpec.for_timestamp(int(which))
        return [self.one(self.client.list_offsets({TopicPartition(topic, int(partition)): spec})).offset]

    def delete_records(self, topic, partition, before):
        return [self.one(self.client.delete_records([TopicPartition(topic, int(partition), int(before))])).low_watermark]

    def delete(self, topic):
        self.one(self.client.delete_topics([topic]))


program.main(produce, consume, Admin)
