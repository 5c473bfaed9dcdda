# kafka-python in the client matrix, both the long-lived 2.0.2 and the newest; program.py says what the commands do.
#
# Producer and consumer are called alike in both; the calls for administration are not, so there is a class for each. 2.0.2 has
# no idempotent producer, and its administration hands answers through as they came: their error codes are looked at here.

import program
from kafka import KafkaConsumer, KafkaProducer, TopicPartition, __version__
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import for_code

SECONDS = program.SILENCE_SECONDS
IS_OLD = __version__.startswith("2.")
# What describe_configs calls the source of a key that was set for the topic itself.
TOPIC_SOURCE = 1


def produce(bootstrap, topic, codec, lines):
    settings = {"acks": "all", "compression_type": None if codec == "none" else codec, "linger_ms": 5}
    if not IS_OLD:
        settings["enable_idempotence"] = True
    producer = KafkaProducer(bootstrap_servers=bootstrap, **settings)
    sent = []
    for record in lines:
        more = {"partition": record.partition, "timestamp_ms": record.time_ms, "headers": record.headers}
        sent.append((record, producer.send(topic, record.value, record.key, **more)))
    producer.flush(SECONDS)
    for record, future in sent:
        place = future.get(SECONDS)
        program.must_be_at(record, place.partition, place.offset)
    producer.close(SECONDS)


def consume(bootstrap, topics, path):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none", enable_auto_commit=False)
    places = [TopicPartition(name, partition) for name in topics for partition in consumer.partitions_for_topic(name)]
    consumer.assign(places)
    ends = consumer.end_offsets(places)
    consumer.seek_to_beginning(*places)
    reading = program.Reading(path, {tuple(place): end for place, end in ends.items()})
    while reading.goes_on():
        for batch in consumer.poll(1000).values():
            for record in batch:
                reading.add(record.topic, record.partition, record.offset, record.timestamp, record.key, record.value,
                            record.headers)
    consumer.close()


def topic_resource(topic, configs=None):
    return ConfigResource(ConfigResourceType.TOPIC, topic, configs)


class Calls:
    """What both versions do in the same way."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.client = KafkaAdminClient(bootstrap_servers=bootstrap)
        self.consumer = KafkaConsumer(bootstrap_servers=bootstrap)

    def list(self):
        return self.client.list_topics()

    def produce(self, topic, partition, *times_ms):
        producer = KafkaProducer(bootstrap_servers=self.bootstrap)
        for time_ms in times_ms:
            producer.send(topic, b"admin", partition=int(partition), timestamp_ms=int(time_ms)).get(SECONDS)
        producer.close(SECONDS)

    def offset(self, topic, partition, which):
        place = TopicPartition(topic, int(partition))
        if which == "earliest":
            return [self.consumer.beginning_offsets([place])[place]]
        if which == "latest":
            return [self.consumer.end_offsets([place])[place]]
        found = self.consumer.offsets_for_times({place: int(which)})[place]
        return [-1 if found is None else found.offset]


class OldCalls(Calls):
    def accepted(self, answer, errors):
        for error in errors:
            if error[1] != 0:
                raise for_code(error[1])(f"{error[2:]} in {type(answer).__name__}")

    def create(self, topic, partitions, *configs):
        answer = self.client.create_topics([NewTopic(topic, int(partitions), 1, topic_configs=program.pairs(configs))])
        self.accepted(answer, answer.topic_errors)

    def describe(self, topic):
        return [f"{partition['partition']}={partition['leader']}"
                for partition in self.client.describe_topics([topic])[0]["partitions"]]

    def cluster(self):
        cluster = self.client.describe_cluster()
        nodes = [f"{node['node_id']}={node['host']}:{node['port']}" for node in cluster["brokers"]]
        return [cluster["controller_id"], *nodes]

    def partitions(self, topic, total):
        from kafka.admin import NewPartitions

        answer = self.client.create_partitions({topic: NewPartitions(int(total))})
        self.accepted(answer, answer.topic_errors)

    def entries(self, topic):
        answer = self.client.describe_configs([topic_resource(topic)])[0]
        code, message, _, _, entries = answer.resources[0]
        self.accepted(answer, [(topic, code, message)])
        return entries

    def configs(self, topic):
        return [f"{entry[0]}={entry[1]}" for entry in self.entries(topic)]

    def altered(self, topic):
        return [entry[0] for entry in self.entries(topic) if entry[3] == TOPIC_SOURCE]

    def replace(self, topic, *configs):
        answer = self.client.alter_configs([topic_resource(topic, program.pairs(configs))])
        self.accepted(answer, [(topic, *resource[:2]) for resource in answer.resources])

    def delete(self, topic):
        answer = self.client.delete_topics([topic])
        self.accepted(answer, [(*error, None) for error in answer.topic_error_codes])


class NewCalls(Calls):
    def create(self, topic, partitions, *configs):
        wanted = {"num_partitions": int(partitions), "replication_factor": 1, "configs": program.pairs(configs)}
        self.client.create_topics({topic: wanted})

    def describe(self, topic):
        return [f"{partition['partition_index']}={partition['leader_id']}"
                for partition in self.client.describe_topics([topic])[0]["partitions"]]

    def cluster(self):
        cluster = self.client.describe_cluster()
        nodes = [f"{node['broker_id']}={node['host']}:{node['port']}" for node in cluster["brokers"]]
        return [cluster["controller_id"], *nodes]

    def partitions(self, topic, total):
        self.client.create_partitions({topic: int(total)})

    def configs(self, topic):
        found = self.client.describe_configs([topic_resource(topic)], config_filter="all")
        return [f"{name}={entry['value']}" for name, entry in found["topic"][topic].items()]

    def altered(self, topic):
        return self.client.describe_configs([topic_resource(topic)])["topic"][topic]

    def accepted(self, topic, answer):
        if answer["topic"][topic] != "OK":
            raise RuntimeError(answer["topic"][topic])

    def alter(self, topic, *configs):
        resource = topic_resource(topic, program.pairs(configs))
        self.accepted(topic, self.client.alter_configs([resource], incremental=True, raise_on_unknown=False))

    def reset(self, topic, *names):
        self.accepted(topic, self.client.reset_configs([topic_resource(topic, list(names))], incremental=True))

    def delete_records(self, topic, partition, before):
        place = TopicPartition(topic, int(partition))
        return [self.client.delete_records({place: int(before)})[place]["low_watermark"]]

    def log_dirs(self, topic, *_):
        found = self.client.describe_log_dirs([topic])
        folders = [folder for broker in found for folder in broker["log_dirs"]]
        return [f"{partition['partition_index']}={partition['partition_size']}" for folder in folders
                for named in folder["topics"] if named["name"] == topic for partition in named["partitions"]]

    def delete(self, topic):
        self.client.delete_topics([topic])


program.main(produce, consume, OldCalls if IS_OLD else NewCalls)
