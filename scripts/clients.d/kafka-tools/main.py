# Kafka's own commands in the client matrix, from its published artifacts; program.py says what the commands here do.
#
# Written to by the console producer, the performance tool and the verifiable producer; read by the console consumer, one
# partition at a time, whose output is set apart by separators that no record holds. The console producer takes lines of text,
# stamps records itself and chooses the partition. Each command is a process of its own.

import glob
import json
import os
import re
import subprocess
import tempfile

import program
import records

# Where installs.py has put the artifacts and the configuration of the log.
INSTALLED = os.environ["MATRIX_INSTALLED"]
# A compiler that starts soon instead of one that runs fast: each command lives for a second.
OPTIONS = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Dfile.encoding=UTF-8",
           f"-Dlog4j2.configurationFile={INSTALLED}/java/log4j2.properties"]
COMMAND_SECONDS = 60
NULL = "matrix-null"
FIELD_END, HEADER_END, RECORD_END = "\x1f\x1d\x1ck\x1f", "\x1f\x1d\x1ch\x1f", "\x1f\x1d\x1ce\x1f"


def run(name, *arguments, stdin=b""):
    """What a command prints; an exception with its complaint where it fails."""
    jars = ":".join(sorted(glob.glob(f"{INSTALLED}/java/lib/*.jar")))
    done = subprocess.run(["java", *OPTIONS, "-cp", jars, f"org.apache.kafka.tools.{name}", *arguments], input=stdin,
                          capture_output=True, timeout=COMMAND_SECONDS, check=False)
    said = (done.stdout[-2000:] + done.stderr).decode(errors="replace")
    if done.returncode != 0 or re.search(r"\bERROR\b|Error while executing|Exception", said):
        found = re.search(r"[^\n]*(Exception|ERROR|Error)[^\n]*", said)
        raise RuntimeError(f"{name} ended with {done.returncode}: {found[0] if found else said[-500:]}")
    return done.stdout


def text(name, *arguments):
    return run(name, *arguments).decode()


def offsets(bootstrap, which, topics=(), place=None):
    """{(topic, partition): offset}"""
    wanted = ["--topic-partitions", place] if place else ["--topic", "|".join(topics)]
    printed = text("GetOffsetShell", "--bootstrap-server", bootstrap, *wanted, "--time", which)
    found = (line.rsplit(":", 2) for line in printed.splitlines())
    return {(topic, int(partition)): int(offset or -1) for topic, partition, offset in found}


def input_line(record):
    def shown(data):
        return NULL if data is None else data.decode()

    headers = ",".join(f"{name}:{shown(value)}" for name, value in record.headers) or NULL
    return f"{headers}\t{shown(record.key)}\t{shown(record.value)}\n".encode()


def produce(bootstrap, topic, codec, lines):
    reading = ["parse.key=true", "parse.headers=true", f"null.marker={NULL}"]
    run("ConsoleProducer", "--bootstrap-server", bootstrap, "--topic", topic, "--compression-codec", codec,
        *(word for one in reading for word in ("--reader-property", one)), stdin=b"".join(map(input_line, lines)))
    count = len(lines)
    run("ProducerPerformance", "--bootstrap-server", bootstrap, "--topic", f"{topic}-performance", "--throughput", "-1",
        "--num-records", str(count), "--record-size", "300", "--command-property", f"compression.type={codec}")
    wanted = {topic: count, f"{topic}-performance": count}
    if codec == "none":
        printed = text("VerifiableProducer", "--bootstrap-server", bootstrap, "--topic", f"{topic}-verifiable",
                       "--max-messages", str(count), "--acks", "-1")
        acknowledged = sum(json.loads(line)["name"] == "producer_send_success" for line in printed.splitlines())
        if acknowledged != count:
            raise RuntimeError(f"VerifiableProducer: {acknowledged} of {count} acknowledged")
        wanted[f"{topic}-verifiable"] = count
    ends = offsets(bootstrap, "latest", wanted)
    for name, number in wanted.items():
        found = sum(offset for place, offset in ends.items() if place[0] == name)
        if found != number:
            raise RuntimeError(f"{name} holds {found} records instead of {number}")


def console_records(printed):
    """Takes the output of the console consumer apart: offset, time, key, value, headers."""
    for chunk in printed.split(RECORD_END.encode())[:-1]:
        time_ms, offset, headers, key, value = chunk.split(FIELD_END.encode())
        pairs = [] if headers == b"NO_HEADERS" else [one.split(b":", 1) for one in headers.split(HEADER_END.encode())]
        key, value = (None if data == NULL.encode() else data for data in (key, value))
        headers = [(name.decode(), None if data == NULL.encode() else data) for name, data in pairs]
        yield int(offset.removeprefix(b"Offset:")), int(time_ms.removeprefix(b"CreateTime:")), key, value, headers


def consume(bootstrap, topics, path):
    shown = [f"print.{what}=true" for what in ("timestamp", "offset", "headers", "key", "value")]
    shown += [f"key.separator={FIELD_END}", f"headers.separator={HEADER_END}", f"line.separator={RECORD_END}"]
    shown += [f"null.literal={NULL}"]
    with open(path, "w", encoding="ascii") as file:
        for (topic, partition), end in sorted(offsets(bootstrap, "latest", topics).items()):
            if end > 0:
                printed = run("consumer.ConsoleConsumer", "--bootstrap-server", bootstrap, "--topic", topic, "--partition",
                              str(partition), "--offset", "earliest", "--max-messages", str(end), "--timeout-ms", "20000",
                              *(word for one in shown for word in ("--formatter-property", one)))
                for offset, *fields in console_records(printed):
                    print(records.line_of(topic, partition, offset, *fields), file=file)


class Admin:
    def __init__(self, bootstrap):
        self.server = ["--bootstrap-server", bootstrap]
        self.bootstrap = bootstrap

    def create(self, topic, partitions, *configs):
        marks = [word for config in configs for word in ("--config", config)]
        run("TopicCommand", *self.server, "--create", "--topic", topic, "--partitions", partitions, *marks)

    def list(self):
        return text("TopicCommand", *self.server, "--list").split()

    def describe(self, topic):
        printed = text("TopicCommand", *self.server, "--describe", "--topic", topic)
        return [f"{partition}={leader}" for partition, leader in re.findall(r"Partition: (\d+)\tLeader: (\d+)", printed)]

    def cluster(self):
        printed = text("BrokerApiVersionsCommand", *self.server)
        if not re.search(r"\bProduce\(0\): 0 to \d+ \[usable: \d+\]", printed):
            raise RuntimeError(f"no usable Produce in {printed[:300]}")
        return ["-", *(f"{node}={place}" for place, node in re.findall(r"^(\S+:\d+) \(id: (\d+) ", printed, re.MULTILINE))]

    def partitions(self, topic, total):
        run("TopicCommand", *self.server, "--alter", "--topic", topic, "--partitions", total)

    def config_lines(self, topic, *more):
        printed = text("ConfigCommand", *self.server, "--describe", *more, "--entity-type", "topics", "--entity-name", topic)
        return re.findall(r"^  ([a-z.]+)=(.*?) sensitive=", printed, re.MULTILINE)

    def configs(self, topic):
        return [f"{name}={value}" for name, value in self.config_lines(topic, "--all")]

    def altered(self, topic):
        return [name for name, _ in self.config_lines(topic)]

    def change(self, topic, *how):
        run("ConfigCommand", *self.server, "--alter", *how, "--entity-type", "topics", "--entity-name", topic)

    def alter(self, topic, *configs):
        self.change(topic, "--add-config", ",".join(configs))

    def reset(self, topic, *names):
        self.change(topic, "--delete-config", ",".join(names))

    def offset(self, topic, partition, which):
        return [offsets(self.bootstrap, which, place=f"{topic}:{partition}")[topic, int(partition)]]

    def delete_records(self, topic, partition, before):
        wanted = {"partitions": [{"topic": topic, "partition": int(partition), "offset": int(before)}], "version": 1}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(wanted, file)
            file.flush()
            printed = text("DeleteRecordsCommand", *self.server, "--offset-json-file", file.name)
        return re.findall(r"low_watermark: (\d+)", printed)

    def log_dirs(self, topic, *_):
        printed = text("LogDirsCommand", *self.server, "--describe", "--topic-list", topic)
        found = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
        places = [place for broker in found["brokers"] for folder in broker["logDirs"] for place in folder["partitions"]]
        return [f"{place['partition'].rsplit('-', 1)[1]}={place['size']}" for place in places]

    def delete(self, topic):
        run("TopicCommand", *self.server, "--delete", "--topic", topic)


program.main(produce, consume, Admin)
