# Real tables through a real broker: published by one client, read back by another, compared per key.
#
# One pass is produced by confluent-kafka (with timestamps of its own, idempotent), one by kcat. The other client reads each
# back, after a clean restart and after kill -9 straight behind the last acknowledgement, and from a timestamp. Equal means: the
# SHA-256 over the records of a key, in order, is that of what was published. It does not measure speed.
# Run by scripts/tables, which makes the environment and says how it is used.

import argparse
import csv
import hashlib
import importlib.util
import json
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

# Table: its file in the package, and the record's key.
TABLES = {
    "stocks": ("stocks.csv", lambda row: row["symbol"]),
    "sf_temps": ("sf-temps.csv", lambda row: row["date"][:10]),
    "seattle_weather": ("seattle-weather.csv", lambda row: row["weather"]),
    "airports": ("airports.csv", lambda row: row["state"] + "/" + row["iata"]),
    "us_employment": ("us-employment.csv", lambda row: row["month"][:4]),
}
PARTITIONS = 3
DAY_MS = 24 * 3600 * 1000
# Seconds for a start (with recovery) or a drain of the broker, and for the silence of a client that should be reading.
BROKER_SECONDS = 60
SILENCE_SECONDS = 30


class Failure(Exception):
    """A check that did not hold; the text says which."""


class Digests:
    """SHA-256 and number of records per key. Order within a key counts, order between keys does not."""

    def __init__(self, with_time):
        self.with_time = with_time
        self.hashes = {}
        self.records = 0

    def add(self, key, value, time_ms):
        entry = self.hashes.get(key)
        if entry is None:
            entry = self.hashes[key] = [hashlib.sha256(), 0]
        entry[0].update(b"%d:%d:" % (time_ms if self.with_time else 0, len(value)))
        entry[0].update(value)
        entry[1] += 1
        self.records += 1

    def must_equal(self, other, what):
        mine = {key: (entry[1], entry[0].hexdigest()) for key, entry in self.hashes.items()}
        theirs = {key: (entry[1], entry[0].hexdigest()) for key, entry in other.hashes.items()}
        if mine != theirs:
            keys = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
            lines = [f"  {key!r}: expected {mine.get(key)}, read {theirs.get(key)}" for key in keys[:5]]
            raise Failure(f"{what}: {len(keys)} of {len(mine)} keys differ\n" + "\n".join(lines))


class Topic:
    """A table as published: what was sent, and a time in the middle of it."""

    def __init__(self, name, with_time):
        self.name = name
        self.sent = Digests(with_time)
        self.middle_ms = None

    def empty(self):
        return Digests(self.sent.with_time)


def rows_of(table):
    """The rows of a table as (key, JSON text without its closing brace)."""
    file, key_of = TABLES[table]
    folder = pathlib.Path(importlib.util.find_spec("vega_datasets").submodule_search_locations[0]) / "_data"
    with open(folder / file, encoding="utf-8", newline="") as lines:
        rows = [(key_of(row), {name: number_or_text(text) for name, text in row.items()}) for row in csv.DictReader(lines)]
    return [(key.encode(), json.dumps(row, separators=(",", ":"))[:-1].encode()) for key, row in rows]


def number_or_text(text):
    return float(text) if re.fullmatch(r"-?\d+\.\d+", text) else int(text) if re.fullmatch(r"-?[1-9]\d{0,8}|0", text) else text


def records_of(table, bytes_wanted, start_ms):
    """Yields (key, value, time, whether half is done): the rows again and again, a millisecond apart."""
    rows, sent, time_ms = rows_of(table), 0, start_ms
    while sent < bytes_wanted:
        for key, row in rows:
            value = b'%s,"at":%d}' % (row, time_ms)
            yield key, value, time_ms, 2 * sent >= bytes_wanted
            sent += len(key) + len(value)
            time_ms += 1
            if sent >= bytes_wanted:
                break


class Broker:
    """The broker's process on a data directory, on a free port."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.process, self.address = None, None

    def start(self):
        command = [self.binary, "serve", "--data-dir", str(self.directory / "data"), "--listen", "127.0.0.1:0"]
        command += ["--admin-listen", "none"]
        with open(self.directory / "broker.log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        lines = queue.Queue()
        threading.Thread(target=lambda out: lines.put(out.readline()), args=[self.process.stdout], daemon=True).start()
        try:
            line = lines.get(timeout=BROKER_SECONDS).decode()
        except queue.Empty:
            raise Failure(f"no ready line within {BROKER_SECONDS} s; see {self.directory}/broker.log") from None
        self.address = listen_address(line)
        if self.address is None:
            raise Failure(f"the broker did not start (exit {self.process.poll()}); see {self.directory}/broker.log")
        print(line.rstrip(), flush=True)

    def stop(self, number):
        self.process.send_signal(number)
        try:
            code = self.process.wait(BROKER_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failure(f"the broker runs on {BROKER_SECONDS} s after signal {number}") from None
        if number == signal.SIGTERM and code != 0:
            raise Failure(f"the broker ended with {code} instead of 0 after SIGTERM")

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def listen_address(ready_line):
    found = re.match(r"corelane ready .*\blisten=([^, ]+)", ready_line)
    return found and found.group(1)


def create(address, topics, segment_bytes):
    new = [NewTopic(topic.name, PARTITIONS, 1, config={"segment.bytes": str(segment_bytes)}) for topic in topics]
    # Kept until the answers are there: a client that is no longer referenced ends what it has asked for.
    admin = AdminClient({"bootstrap.servers": address})
    for name, created in admin.create_topics(new).items():
        try:
            created.result(SILENCE_SECONDS)
        except Exception as error:
            raise Failure(f"create topic {name}: {error}") from error


def publish_confluent(address, topic, records):
    errors = []
    settings = {
        "bootstrap.servers": address,
        "enable.idempotence": True,
        "linger.ms": 5,
        "delivery.report.only.error": True,
        "on_delivery": lambda error, _: errors.append(error),
    }
    producer = Producer(settings)
    for key, value, time_ms, half in records:
        while True:
            try:
                producer.produce(topic.name, value, key, timestamp=time_ms)
                break
            except BufferError:
                producer.poll(0.1)
        topic.sent.add(key, value, time_ms)
        if half and topic.middle_ms is None:
            topic.middle_ms = time_ms
    left = producer.flush(SILENCE_SECONDS * 2)
    if errors or left:
        raise Failure(f"{topic.name}: {len(errors)} deliveries failed ({errors[:1]}), {left} are not acknowledged")


def publish_kcat(address, topic, records):
    command = ["kcat", "-P", "-b", address, "-t", topic.name, "-K", "\t", "-X", "enable.idempotence=true"]
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=complaints) as process:
            for key, value, time_ms, half in records:
                process.stdin.write(key + b"\t" + value + b"\n")
                topic.sent.add(key, value, time_ms)
                if half and topic.middle_ms is None:
                    # kcat stamps a record when it reads it: what follows in the pipe is stamped later than this.
                    process.stdin.flush()
                    topic.middle_ms = int(time.time() * 1000)
            process.stdin.close()
            code = process.wait()
        complaints.seek(0)
        text = complaints.read().decode(errors="replace")
    if code != 0 or "ailed" in text or "ERROR" in text:
        raise Failure(f"{topic.name}: kcat ended with {code}: {text[:500]}")


def read_kcat(address, topic, from_ms=None):
    """Yields (key, value, time) of every record, or of those from a time on."""
    start = "beginning" if from_ms is None else f"s@{from_ms}"
    command = ["kcat", "-C", "-q", "-e", "-b", address, "-t", topic.name, "-o", start, "-f", "%T\t%k\t%s\n"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        complete = False
        try:
            for line in process.stdout:
                time_ms, key, value = line[:-1].split(b"\t", 2)
                yield key, value, int(time_ms)
            complete = True
        finally:
            if not complete:
                process.kill()
        if process.wait() != 0:
            raise Failure(f"{topic.name}: kcat ended with {process.returncode}")


def read_confluent(address, topic, from_ms=None):
    """Yields (key, value, time) of every record, or of those from a time on."""
    settings = {
        "bootstrap.servers": address,
        "group.id": "tables",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
    }
    consumer = Consumer(settings)
    try:
        partitions = consumer.list_topics(topic.name, SILENCE_SECONDS).topics[topic.name].partitions
        starts = [TopicPartition(topic.name, partition, OFFSET_BEGINNING) for partition in partitions]
        if from_ms is not None:
            times = [TopicPartition(topic.name, partition, from_ms) for partition in partitions]
            starts = consumer.offsets_for_times(times, SILENCE_SECONDS)
        consumer.assign(starts)
        reading, last = set(partitions), time.monotonic()
        while reading:
            messages = consumer.consume(1000, 1.0)
            if messages:
                last = time.monotonic()
            elif time.monotonic() - last > SILENCE_SECONDS:
                raise Failure(f"{topic.name}: nothing for {SILENCE_SECONDS} s, partitions {sorted(reading)} have not ended")
            for message in messages:
                error = message.error()
                if error is None:
                    yield message.key(), message.value(), message.timestamp()[1]
                elif error.code() == KafkaError._PARTITION_EOF:
                    reading.discard(message.partition())
                elif not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                    raise Failure(f"{topic.name}: {error}")
    finally:
        consumer.close()


def check_all(topic, read, address, when):
    """Everything is there, equal and in order. Gives the digests of what lies at and after the topic's middle."""
    whole, late = topic.empty(), topic.empty()
    for key, value, time_ms in read(address, topic):
        whole.add(key, value, time_ms)
        if time_ms >= topic.middle_ms:
            late.add(key, value, time_ms)
    topic.sent.must_equal(whole, f"{topic.name} {when}, {read.__name__}")
    print(f"{topic.name}: {whole.records} records of {len(whole.hashes)} keys equal {when} ({read.__name__})", flush=True)
    return late


def check_from_middle(topic, read, address, late):
    """A reader that starts at the middle's time gets the records at and after it, no more and no fewer."""
    found = topic.empty()
    for key, value, time_ms in read(address, topic, topic.middle_ms):
        found.add(key, value, time_ms)
    if not 0 < late.records <= topic.sent.records:
        raise Failure(f"{topic.name}: {late.records} records lie at or after {topic.middle_ms}")
    late.must_equal(found, f"{topic.name} from {topic.middle_ms}, {read.__name__}")
    print(f"{topic.name}: {found.records} records equal from {topic.middle_ms} ({read.__name__})", flush=True)


def run(broker, bytes_wanted):
    """The whole sequence; every failure is an exception."""
    broker.start()
    start_ms = int(time.time() * 1000) - DAY_MS
    by_confluent = {table: Topic(f"{table}-confluent", True) for table in TABLES}
    by_kcat = {table: Topic(f"{table}-kcat", False) for table in TABLES}
    share = bytes_wanted // len(TABLES)
    create(broker.address, [*by_confluent.values(), *by_kcat.values()], max(1 << 20, bytes_wanted // 64))
    for table, topic in by_confluent.items():
        publish_confluent(broker.address, topic, records_of(table, share, start_ms))
        check_all(topic, read_kcat, broker.address, "at once")
    broker.stop(signal.SIGTERM)
    broker.start()
    for topic in by_confluent.values():
        check_all(topic, read_kcat, broker.address, "after SIGTERM")
    for table, topic in by_kcat.items():
        publish_kcat(broker.address, topic, records_of(table, share, start_ms))
        check_all(topic, read_confluent, broker.address, "at once")
    last = Topic("stocks-last", True)
    create(broker.address, [last], 1 << 20)
    publish_confluent(broker.address, last, records_of("stocks", min(share, 4_000_000), start_ms))
    broker.stop(signal.SIGKILL)
    broker.start()
    pairs = [(topic, read_kcat) for topic in [*by_confluent.values(), last]]
    pairs += [(topic, read_confluent) for topic in by_kcat.values()]
    for topic, read in pairs:
        late = check_all(topic, read, broker.address, "after kill -9")
        for reader in (read_kcat, read_confluent):
            check_from_middle(topic, reader, broker.address, late)
    broker.stop(signal.SIGTERM)


def self_test():
    """The script's own parts; the clients talk to the small broker that is built into librdkafka."""
    assert (size("50MB"), size("1GB"), size("7")) == (50_000_000, 1_000_000_000, 7)
    assert listen_address("corelane ready version=0 listen=127.0.0.1:7,[::1]:7 admin=-") == "127.0.0.1:7"
    assert listen_address("") is None
    for table in TABLES:
        records = list(records_of(table, 300_000, 1_000))
        assert all(json.loads(value)["at"] == time_ms for _, value, time_ms, _ in records), table
        assert [time_ms for _, _, time_ms, _ in records] == list(range(1_000, 1_000 + len(records))), table
        assert sum(half for *_, half in records) < len(records) and records[-1][3], table
    wrong = {
        "swapped": [(b"k", b"b", 2), (b"k", b"a", 1)],
        "lost": [(b"k", b"a", 1)],
        "twice": [(b"k", b"a", 1), (b"k", b"b", 2), (b"k", b"b", 2)],
        "other time": [(b"k", b"a", 1), (b"k", b"b", 3)],
        "other key": [(b"k", b"a", 1), (b"l", b"b", 2)],
    }
    for what, records in {**wrong, "equal": [(b"k", b"a", 1), (b"k", b"b", 2)]}.items():
        right, other = Digests(True), Digests(True)
        right.add(b"k", b"a", 1)
        right.add(b"k", b"b", 2)
        for record in records:
            other.add(*record)
        try:
            right.must_equal(other, what)
            assert what == "equal", what
        except Failure:
            assert what in wrong, what
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "", "log_level": 0})
    address = str(next(iter(cluster.list_topics(timeout=10).brokers.values()))).split("/")[0]
    for publish, read in ((publish_confluent, read_kcat), (publish_kcat, read_confluent)):
        topic = Topic(f"stocks-{read.__name__}", publish is publish_confluent)
        publish(address, topic, records_of("stocks", 500_000, int(time.time() * 1000) - DAY_MS))
        late = check_all(topic, read, address, "at the built-in broker")
        assert 0 < late.records < topic.sent.records, late.records
        topic.sent.add(b"one", b"more", 0)
        try:
            check_all(topic, read, address, "with one that was not sent")
        except Failure:
            continue
        raise AssertionError("a record that is missing was not noticed")


def size(text):
    found = re.fullmatch(r"(\d+)(KB|MB|GB|)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number with KB, MB or GB")
    return int(found.group(1)) * {"": 1, "KB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}[found.group(2)]


def ran_out(*_):
    raise Failure("out of time")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", type=pathlib.Path, required=True)
    parser.add_argument("--bytes", type=size, default=50_000_000)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        self_test()
        print("tables: its own parts work")
        return 0
    directory = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=options.target / "tables"))
    broker = Broker(options.target / "release" / "corelane", directory)
    signal.signal(signal.SIGALRM, ran_out)
    signal.signal(signal.SIGTERM, ran_out)
    signal.alarm(120 + options.bytes // 400_000)
    try:
        run(broker, options.bytes)
    except Failure as failure:
        print(f"tables: {failure}\ntables: kept {directory}", file=sys.stderr)
        return 1
    finally:
        broker.end()
    if not options.keep:
        shutil.rmtree(directory)
    print(f"tables: every record equal, {options.bytes} bytes by each of two clients")
    return 0


if __name__ == "__main__":
    sys.exit(main())
