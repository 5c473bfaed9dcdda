# aiokafka in the client matrix; program.py says what the commands do.
#
# Every request of the administration is run to its end on one event loop. The client hands answers through as they came, so
# their error codes are looked at here.

import asyncio

import program
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

# What describe_configs calls the source of a key that was set for the topic itself.
TOPIC_SOURCE = 1


async def send_all(bootstrap, topic, codec, lines):
    settings = {"enable_idempotence": True, "compression_type": None if codec == "none" else codec}
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, **settings) as producer:
        sent = []
        for record in lines:
            more = {"partition": record.partition, "timestamp_ms": record.time_ms, "headers": record.headers}
            sent.append((record, await producer.send(topic, record.value, record.key, **more)))
        for record, future in sent:
            place = await asyncio.wait_for(future, program.SILENCE_SECONDS)
            program.must_be_at(record, place.partition, place.offset)


async def read_all(bootstrap, topics, path):
    # Without a group this client assigns every partition of its topics to itself.
    settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "group_id": None}
    async with AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, **settings) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        reading = program.Reading(path, {tuple(place): end for place, end in ends.items()})
        while reading.goes_on():
            for batch in (await consumer.getmany(timeout_ms=1000)).values():
                for record in batch:
                    reading.add(record.topic, record.partition, record.offset, record.timestamp, record.key, record.value,
                                record.headers)


def produce(*arguments):
    asyncio.run(send_all(*arguments))


def consume(*arguments):
    asyncio.run(read_all(*arguments))


def accepted(code, message):
    if code != 0:
        raise for_code(code)(message)


class Admin:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.loop = asyncio.new_event_loop()
        self.client = self.run(self.started(AIOKafkaAdminClient))

    def run(self, call):
        return self.loop.run_until_complete(asyncio.wait_for(call, program.SILENCE_SECONDS))

    async def started(self, kind):
        client = kind(bootstrap_servers=self.bootstrap)
        await client.start()
        return client

    def create(self, topic, partitions, *configs):
        new = NewTopic(topic, int(partitions), 1, topic_configs=program.pairs(configs))
        for _, code, message, *_ in self.run(self.client.create_topics([new])).topic_errors:
            accepted(code, message)

    def list(self):
        return self.run(self.client.list_topics())

    def describe(self, topic):
        return [f"{partition['partition']}={partition['leader']}"
                for partition in self.run(self.client.describe_topics([topic]))[0]["partitions"]]

    def cluster(self):
        cluster = self.run(self.client.describe_cluster())
        nodes = [f"{node['node_id']}={node['host']}:{node['port']}" for node in cluster["brokers"]]
        return [cluster["controller_id"], *nodes]

    def partitions(self, topic, total):
        self.run(self.client.create_partitions({topic: NewPartitions(int(total))}))

    def entries(self, topic):
        answer = self.run(self.client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))[0]
        code, message, _, _, entries = answer.resources[0]
        accepted(code, message)
        return entries

    def configs(self, topic):
        return [f"{entry[0]}={entry[1]}" for entry in self.entries(topic)]

    def altered(self, topic):
        return [entry[0] for entry in self.entries(topic) if entry[3] == TOPIC_SOURCE]

    def replace(self, topic, *configs):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, program.pairs(configs))
        for answer in self.run(self.client.alter_configs([resource])):
            for code, message, *_ in answer.resources:
                accepted(code, message)

    def produce(self, topic, partition, *times_ms):
        async def send():
            async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
                for time_ms in times_ms:
                    await producer.send_and_wait(topic, b"admin", partition=int(partition), timestamp_ms=int(time_ms))

        self.run(send())

    def offset(self, topic, partition, which):
        async def ask():
            place = TopicPartition(topic, int(partition))
            async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap) as consumer:
                if which == "earliest":
                    return (await consumer.beginning_offsets([place]))[place]
                if which == "latest":
                    return (await consumer.end_offsets([place]))[place]
                found = (await consumer.offsets_for_times({place: int(which)}))[place]
                return -1 if found is None else found.offset

        return [self.run(ask())]

    def delete_records(self, topic, partition, before):
        place = TopicPartition(topic, int(partition))
        return [self.run(self.client.delete_records({place: RecordsToDelete(int(before))}))[place]]

    def delete(self, topic):
        for _, code, *_ in self.run(self.client.delete_topics([topic])).topic_error_codes:
            accepted(code, "delete")


program.main(produce, consume, Admin)
