# kcat in the client matrix; program.py says what the commands do. It has no administration.
#
# One process of kcat writes to one partition with one set of headers, and takes what is empty either for null or for empty:
# neighbouring records that agree in these go through the same process. It stamps records itself. What it reads is printed with
# the lengths in front; of headers only its own rendering is there (as_kcat_prints of records.py).

import itertools
import re
import subprocess

import program
import records

# Neither occurs in a record by chance.
KEY_END, RECORD_END = "\x1f\x1d\x1ck\x1f", "\x1f\x1d\x1ce\x1f"
HEAD = re.compile(rb"(\d+) (\d+) (\d+) (-?\d+) (-?\d+) ")


def kcat(*arguments, stdin=b""):
    done = subprocess.run(["kcat", *arguments], input=stdin, capture_output=True, check=False)
    complaint = done.stderr.decode(errors="replace")
    if done.returncode != 0 or "ailed" in complaint or "ERROR" in complaint:
        raise RuntimeError(f"kcat {arguments[0]} ended with {done.returncode}: {complaint[:500]}")
    return done.stdout


def runs(lines):
    """Neighbours that one process can send: (whether what is empty is null, records)."""
    for _, some in itertools.groupby(lines, lambda record: (record.partition, record.headers)):
        run, null = [], None
        for record in some:
            kinds = {part is None for part in (record.key, record.value) if not part}
            if len(kinds) == 2:
                raise ValueError("kcat cannot send a record with something null and something empty")
            if kinds and null not in (None, *kinds):
                yield null, run
                run, null = [], None
            run.append(record)
            null = next(iter(kinds), null)
        yield null, run


def produce(bootstrap, topic, codec, lines):
    for null, run in runs(lines):
        partition = run[0].partition
        marks = [part for name, value in run[0].headers
                 for part in ("-H", name.encode() if value is None else name.encode() + b"=" + value)]
        text = b"".join((record.key or b"") + KEY_END.encode() + (record.value or b"") + RECORD_END.encode() for record in run)
        kcat("-P", "-b", bootstrap, "-t", topic, "-p", str(partition), "-z", codec, "-K", KEY_END, "-D", RECORD_END,
             "-X", "enable.idempotence=true", *(["-Z"] if null else []), *marks, stdin=text)


def parts(text):
    """The records of kcat's output: partition, offset, time, key, value, rendering of the headers."""
    at = 0
    while at < len(text):
        head = HEAD.match(text, at)
        if head is None:
            raise ValueError(f"kcat printed {text[at : at + 60]!r} where a record begins")
        partition, offset, time_ms, key_length, value_length = map(int, head.groups())
        at = head.end()
        key = text[at : at + key_length] if key_length >= 0 else None
        at += max(key_length, 0)
        value = text[at : at + value_length] if value_length >= 0 else None
        at += max(value_length, 0)
        end = text.index(RECORD_END.encode(), at)
        yield partition, offset, time_ms, key, value, text[at:end]
        at = end + len(RECORD_END)


def ask_for_time(bootstrap, topic, times):
    """Asks where a time begins that lies in the middle of a partition. times: {partition: times by offset}"""
    for partition, by_offset in times.items():
        wanted_ms = sorted(by_offset)[len(by_offset) // 2]
        first = next(offset for offset, time_ms in enumerate(by_offset) if time_ms >= wanted_ms)
        answer = kcat("-Q", "-b", bootstrap, "-t", f"{topic}:{partition}:{wanted_ms}").decode().split()
        if answer != [topic, f"[{partition}]", "offset", str(first)]:
            raise ValueError(f"kcat -Q for {wanted_ms} of {topic}/{partition} says {answer}, it begins at {first}")


def consume(bootstrap, topics, path):
    with open(path, "w", encoding="ascii") as file:
        for topic in topics:
            form = f"%p %o %T %K %S %k%s%h{RECORD_END}"
            text = kcat("-C", "-q", "-e", "-b", bootstrap, "-t", topic, "-o", "beginning", "-f", form)
            times = {}
            for *fields, headers in parts(text):
                print(f"{records.line_of(topic, *fields, [])}~{headers.hex()}", file=file)
                times.setdefault(fields[0], []).append(fields[2])
            ask_for_time(bootstrap, topic, times)


class Admin:
    def __init__(self, bootstrap):
        raise NotImplementedError("kcat has no administration")


program.main(produce, consume, Admin)
