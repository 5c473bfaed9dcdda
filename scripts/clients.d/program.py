# The command line of a program of the client matrix, for those in Python; the ones in other languages have the same.
#
#     PROGRAM produce BOOTSTRAP TOPIC CODEC FILE    sends the records of FILE (the lines of records.py), each to its partition
#                                                   with its timestamp, waits for every acknowledgement and compares its offset
#     PROGRAM consume BOOTSTRAP FILE TOPIC...       reads every partition from its start to its end, without a group, into FILE
#     PROGRAM admin BOOTSTRAP                       answers the requests of admin.py, one line each, from standard input
#
# A failure is a text on standard error and exit code 1; whether what was read is right is not a program's to judge. In `admin`
# an answer is `ok` with fields, `error` with a text, or `lacks` where the client has no such call, separated by tabs.

import sys
import time
import traceback

import records

# Seconds without anything new after which a program gives up; the whole cell has a limit of its own, which the caller keeps.
SILENCE_SECONDS = 20


class Reading:
    """What a consumer has still to read, and the file that takes it. The ends are {(topic, partition): offset}."""

    def __init__(self, path, ends):
        self.file = open(path, "w", encoding="ascii")
        self.left = {place: end for place, end in ends.items() if end > 0}
        self.last = time.monotonic()

    def add(self, topic, partition, offset, time_ms, key, value, headers):
        line = records.line_of(topic, partition, offset, time_ms, key, value, headers)
        print(line, file=self.file)
        self.last = time.monotonic()
        if offset + 1 >= self.left.get((topic, partition), offset + 2):
            del self.left[topic, partition]

    def goes_on(self):
        if not self.left:
            self.file.close()
            return False
        if time.monotonic() - self.last > SILENCE_SECONDS:
            raise TimeoutError(f"nothing read for {SILENCE_SECONDS} s, not at the end of {sorted(self.left)[:3]}")
        return True


def must_be_at(record, partition, offset):
    """An acknowledgement names the place that the line says."""
    if (partition, offset) != (record.partition, record.offset):
        raise ValueError(f"acknowledged at {partition}/{offset} instead of {record.partition}/{record.offset}")


def answer(admin, request):
    name, *arguments = request.split("\t")
    call = getattr(admin, name.replace("-", "_"), None)
    if call is None:
        return ["lacks"]
    try:
        fields = call(*arguments)
    except Exception as error:
        return ["error", f"{type(error).__name__}: {error}".replace("\n", " ").replace("\t", " ")]
    return ["ok", *map(str, fields or [])]


def pairs(arguments):
    """KEY=VALUE arguments as a dictionary."""
    return dict(argument.split("=", 1) for argument in arguments)


def main(produce, consume, admin):
    """Runs one command. produce(bootstrap, topic, codec, records), consume(bootstrap, topics, path), admin(bootstrap)."""
    command, bootstrap, *rest = sys.argv[1:]
    try:
        if command == "produce":
            topic, codec, path = rest
            produce(bootstrap, topic, codec, records.read(path))
        elif command == "consume":
            consume(bootstrap, rest[1:], rest[0])
        elif command == "admin":
            calls = admin(bootstrap)
            for request in sys.stdin:
                print("\t".join(answer(calls, request.rstrip("\n"))), flush=True)
        else:
            sys.exit(f"unknown command {command!r}")
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{command}: {type(error).__name__}: {error}")
