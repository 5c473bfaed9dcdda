# The administration of the client matrix: one sequence of requests and checks, for whatever client answers them.
#
# A client's program (`admin` in program.py) turns a request into a call of its own and answers with plain fields; what the
# answers must be is said here, once. A step that the client has no call for must be named in the client's `lacks`, and one
# that is named there must be lacking: a step is never silently left out.

import os
import queue
import signal
import subprocess
import threading
import time

DAY_MS, HOUR_MS, WEEK_MS = 86_400_000, 3_600_000, 604_800_000
AGE_MS = 600_000
RECORDS = 10
# Seconds for one answer (a command of a JVM under load included), and for a deletion or a new partition to be seen.
ANSWER_SECONDS, SEEN_SECONDS = 90, 10


class Failure(Exception):
    """An answer that is not what a Kafka broker would have given; the text says which."""


class Lacks(Exception):
    """The client has no call for this."""


class Program:
    """The process of a program that answers requests, one line each."""

    def __init__(self, command, complaints):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
                                        text=True, encoding="utf-8", start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def ask(self, *request):
        """The fields of the answer."""
        try:
            self.process.stdin.write("\t".join(map(str, request)) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=ANSWER_SECONDS)
        except (BrokenPipeError, queue.Empty):
            line = None
        if line is None:
            raise Failure(f"{request[0]}: no answer (exit {self.process.poll()})")
        state, *fields = line.split("\t")
        if state == "lacks":
            raise Lacks(request[0])
        if state != "ok":
            raise Failure(f"{request[0]}: {' '.join(fields)[:400]}")
        return fields

    def end(self):
        """Ends the program: by the end of its input, else with all that it started."""
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def must(holds, what, found):
    if not holds:
        raise Failure(f"{what}, found {found}")


def until(found, holds, what):
    """Asks again until it holds: metadata may follow a change by some milliseconds."""
    deadline = time.monotonic() + SEEN_SECONDS
    while True:
        answer = found()
        if holds(answer):
            return
        must(time.monotonic() < deadline, what, answer)
        time.sleep(0.2)


def numbers(fields):
    """`3=17` fields as a dictionary of numbers."""
    return {int(name): int(value) for name, value in (field.split("=") for field in fields)}


class Sequence:
    """The steps, in order. `other` is a client that writes the records where this one has no producer."""

    def __init__(self, program, other, topic):
        self.ask, self.other, self.topic = program.ask, other, topic
        self.leaders = {}

    def create_topic(self):
        self.ask("create", self.topic, 2, f"retention.ms={DAY_MS}", "max.message.bytes=2000000")

    def create_topic_again(self):
        self.refused("exist", "create", self.topic, 2)

    def create_topic_wrongly(self):
        wrong = f"{self.topic}-wrong"
        self.refused("", "create", wrong, 2, "retention.ms=soon")
        must(wrong not in self.ask("list"), "a topic with a wrong config does not come to be", wrong)

    def refused(self, word, *request):
        try:
            found = self.ask(*request)
        except Failure as failure:
            must("no answer" not in str(failure) and word in str(failure).lower(), f"refused with '{word}'", failure)
            return
        raise Failure(f"{' '.join(map(str, request))} was accepted: {found}")

    def list_topics(self):
        until(lambda: self.ask("list"), lambda names: self.topic in names, f"{self.topic} is listed")

    def describe_topic(self):
        until(lambda: self.ask("describe", self.topic), lambda found: len(found) == 2, "two partitions")
        self.leaders = numbers(self.ask("describe", self.topic))
        must(sorted(self.leaders) == [0, 1], "partitions 0 and 1", self.leaders)

    def describe_cluster(self):
        controller, *nodes = self.ask("cluster")
        named = dict(node.split("=") for node in nodes)
        must(named and (controller == "-" or controller in named), "the controller is one of the brokers", [controller, *nodes])
        must(all(str(leader) in named for leader in self.leaders.values()), "leaders are brokers", [self.leaders, *nodes])

    def create_partitions(self):
        self.ask("partitions", self.topic, 3)
        until(lambda: self.ask("describe", self.topic), lambda found: sorted(numbers(found)) == [0, 1, 2], "three partitions")
        self.refused("", "partitions", self.topic, 2)

    def describe_configs(self):
        found = dict(field.split("=", 1) for field in self.ask("configs", self.topic))
        must(found.get("retention.ms") == str(DAY_MS), f"retention.ms={DAY_MS}", found.get("retention.ms"))
        must(found.get("max.message.bytes") == "2000000", "max.message.bytes=2000000", found.get("max.message.bytes"))
        must(found.get("cleanup.policy") == "delete", "cleanup.policy=delete, its default", found.get("cleanup.policy"))
        altered = self.ask("altered", self.topic)
        must(sorted(altered) == ["max.message.bytes", "retention.ms"], "two keys of the topic itself", altered)

    def values(self, *names):
        found = dict(field.split("=", 1) for field in self.ask("configs", self.topic))
        return tuple(found.get(name) for name in names)

    def alter_configs(self):
        self.ask("alter", self.topic, f"retention.ms={HOUR_MS}")
        until(lambda: self.values("retention.ms", "max.message.bytes"), lambda found: found == (str(HOUR_MS), "2000000"),
              "the altered key changes and the other stays")
        self.refused("", "alter", self.topic, "retention.ms=soon")

    def reset_configs(self):
        self.ask("reset", self.topic, "retention.ms")
        until(lambda: self.values("retention.ms", "max.message.bytes"), lambda found: found == (str(WEEK_MS), "2000000"),
              "the reset key has its default and the other stays")
        altered = self.ask("altered", self.topic)
        must(altered == ["max.message.bytes"], "one key of the topic itself", altered)

    def replace_configs(self):
        self.ask("replace", self.topic, f"retention.ms={HOUR_MS}")
        until(lambda: sorted(self.ask("altered", self.topic)), lambda found: found == ["retention.ms"],
              "a key that is not mentioned goes back to its default")
        must(self.values("retention.ms") == (str(HOUR_MS),), f"retention.ms={HOUR_MS}", self.values("retention.ms"))

    def list_offsets(self):
        # Not so long ago that any retention that the steps set would delete them.
        first_ms = int(time.time() * 1000) - AGE_MS
        times = [first_ms + 1000 * index for index in range(RECORDS)]
        try:
            self.ask("produce", self.topic, 0, *times)
        except Lacks:
            self.other.ask("produce", self.topic, 0, *times)
        wanted = {"earliest": "0", "latest": str(RECORDS), times[4] + 1: "5", times[9]: "9"}
        for which, offset in wanted.items():
            found = self.ask("offset", self.topic, 0, which)
            must(found == [offset], f"offset {offset} for {which}", found)
        found = self.ask("offset", self.topic, 1, "latest")
        must(found == ["0"], "an empty partition ends at 0", found)

    def delete_records(self):
        found = self.ask("delete-records", self.topic, 0, 4)
        must(found in (["4"], ["-"]), "low watermark 4", found)
        for which, offset in {"earliest": "4", "latest": str(RECORDS)}.items():
            found = self.ask("offset", self.topic, 0, which)
            must(found == [offset], f"offset {offset} for {which}", found)
        self.refused("", "delete-records", self.topic, 0, RECORDS + 1)

    def log_dirs(self):
        sizes = numbers(self.ask("log-dirs", self.topic, 0, 1))
        must({0, 1} <= sizes.keys() and sizes[0] > sizes[1] >= 0, "partition 0 is larger than 1, which is empty", sizes)

    def delete_topic(self):
        self.ask("delete", self.topic)
        until(lambda: self.ask("list"), lambda names: self.topic not in names, f"{self.topic} is no longer listed")


STEPS = ("create_topic", "create_topic_again", "create_topic_wrongly", "list_topics", "describe_topic", "describe_cluster",
         "create_partitions", "describe_configs", "alter_configs", "reset_configs", "replace_configs", "list_offsets",
         "delete_records", "log_dirs", "delete_topic")


def run(program, other, topic, lacks, deadline):
    """Every step until the deadline (of the monotonic clock); the texts of those that failed."""
    sequence, failures = Sequence(program, other, topic), []
    for step in STEPS:
        if time.monotonic() > deadline:
            return [*failures, f"{step} and what follows: out of time"]
        try:
            getattr(sequence, step)()
            if step in lacks:
                failures.append(f"{step}: works, but the table says that the client has no such call")
        except Lacks as lack:
            if step not in lacks:
                failures.append(f"{step}: the client has no call '{lack}'")
        except Failure as failure:
            failures.append(f"{step}: {failure}")
        except Exception as error:
            failures.append(f"{step}: an answer that cannot be read: {type(error).__name__} {error}")
        if step == "create_topic" and failures:
            break
    return failures


class Imitation:
    """A client and a broker in one, for the check below: right in every answer but for one fault, if any."""

    def __init__(self, fault=None):
        self.fault, self.topics, self.deleted = fault, {}, 0

    def ask(self, name, *arguments):
        return getattr(self, name.replace("-", "_"))(*map(str, arguments))

    def wrong(self, *names):
        return self.fault in names

    def create(self, topic, partitions, *configs):
        if topic in self.topics and not self.wrong("create again"):
            raise Failure("TOPIC_ALREADY_EXISTS: it exists")
        if "retention.ms=soon" in configs and not self.wrong("create wrongly"):
            raise Failure("INVALID_CONFIG")
        self.topics[topic] = {"partitions": int(partitions), "records": 0, "own": dict(pair.split("=") for pair in configs)}
        return []

    def list(self):
        return [] if self.wrong("list") else list(self.topics)

    def describe(self, topic):
        return [f"{partition}=1" for partition in range(self.topics[topic]["partitions"])]

    def cluster(self):
        return ["1", "2=localhost:1"] if self.wrong("cluster") else ["1", "1=localhost:1"]

    def partitions(self, topic, total):
        if int(total) < self.topics[topic]["partitions"] and not self.wrong("fewer partitions"):
            raise Failure("INVALID_PARTITIONS")
        if not self.wrong("partitions"):
            self.topics[topic]["partitions"] = int(total)
        return []

    def configs(self, topic):
        default = {"retention.ms": str(WEEK_MS), "max.message.bytes": "1048588", "cleanup.policy": "delete"}
        found = default | ({} if self.wrong("configs") else self.topics[topic]["own"])
        return [f"{name}={value}" for name, value in found.items()]

    def altered(self, topic):
        return [*self.topics[topic]["own"], *(["cleanup.policy"] if self.wrong("altered") else [])]

    def alter(self, topic, config):
        if config.endswith("=soon"):
            raise Failure("INVALID_CONFIG")
        if self.wrong("alter forgets"):
            self.topics[topic]["own"].clear()
        self.topics[topic]["own"].update([config.split("=")])
        return []

    def reset(self, topic, name):
        if not self.wrong("reset"):
            del self.topics[topic]["own"][name]
        return []

    def replace(self, topic, config):
        self.topics[topic]["own"] = dict([config.split("=")]) | ({"max.message.bytes": "1"} if self.wrong("replace") else {})
        return []

    def produce(self, topic, _, *times):
        self.topics[topic].update(records=len(times), times=times)
        return []

    def offset(self, topic, partition, which):
        times = self.topics[topic]["times"] if partition == "0" else ()
        late = [offset for offset, time_ms in enumerate(times) if which.isdigit() and int(time_ms) >= int(which)]
        found = {"earliest": self.deleted, "latest": len(times)}.get(which, late[0] if late else -1)
        return [str(found + (1 if self.wrong(f"offset {which}") or self.wrong("offset time") and which.isdigit() else 0))]

    def delete_records(self, topic, _, before):
        if int(before) > self.topics[topic]["records"]:
            raise Failure("OFFSET_OUT_OF_RANGE")
        self.deleted = 0 if self.wrong("delete records") else int(before)
        return [before]

    def log_dirs(self, topic, *_):
        return ["0=0", "1=0", "2=0"] if self.wrong("log dirs") else ["0=99", "1=0", "2=0"]

    def delete(self, topic):
        if not self.wrong("delete"):
            del self.topics[topic]
        return []


# A fault of the imitation, and the step that must notice it.
FAULTS = {"create again": "create_topic_again", "create wrongly": "create_topic_wrongly", "list": "list_topics",
          "cluster": "describe_cluster", "partitions": "create_partitions", "fewer partitions": "create_partitions",
          "configs": "describe_configs", "altered": "describe_configs", "alter forgets": "alter_configs",
          "reset": "reset_configs", "replace": "replace_configs", "offset earliest": "list_offsets",
          "offset latest": "list_offsets", "offset time": "list_offsets", "delete records": "delete_records",
          "log dirs": "log_dirs", "delete": "delete_topic"}


def check_itself():
    """Every fault is noticed by its step, and a client without faults has none."""
    global SEEN_SECONDS
    kept, SEEN_SECONDS = SEEN_SECONDS, 0
    try:
        for fault, step in {None: None, **FAULTS}.items():
            imitation = Imitation(fault)
            failures = run(imitation, imitation, "topic", (), time.monotonic() + ANSWER_SECONDS)
            assert any(failure.startswith(f"{step}:") for failure in failures) if step else failures == [], (fault, failures)
        imitation = Imitation()
        assert run(imitation, imitation, "topic", ("log_dirs",), time.monotonic() + ANSWER_SECONDS), "a step that works"
    finally:
        SEEN_SECONDS = kept
