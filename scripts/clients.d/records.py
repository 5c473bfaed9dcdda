# The records of the client matrix: made from a seed and an index, written as lines, compared line by line.
#
# What a program is told to send, what another one read, and what was expected are files of the same lines, so that comparing
# is comparing lines:
#
#     topic  partition  offset  timestamp  key  value  headers      separated by tabs
#
# A key or value is `-` for null or hexadecimal (empty for empty); headers are NAME:VALUE in hexadecimal, separated by commas,
# in order; a timestamp is in milliseconds, or `-` where the client cannot choose it. Only this file makes records: the
# programs of all languages are given its lines. It does not talk to a broker.

import random

PARTITIONS = 2
SEED = 20
# 2023-11-14: far from now, so that a timestamp that a client or the broker made up is noticed.
BASE_MS = 1_700_000_000_000
# One value in so many is large, up to so many bytes: several of them pass what one fetch of a partition holds.
LARGE_EVERY, LARGE_BYTES = 200, 120_000
# Into so many blocks the records of a topic fall, where the client wants them in blocks.
BLOCKS = 8
WORDS = "order shipped paid customer stream offset partition Grüße 流 basket total currency".split()


def text_or_null(data):
    return "-" if data is None else data.hex()


def line_of(topic, partition, offset, time_ms, key, value, headers):
    """One line, without its end. Key, value and header values are bytes or None, header names text; headers a list of pairs."""
    fields = ",".join(f"{name.encode().hex()}:{text_or_null(value)}" for name, value in headers)
    return f"{topic}\t{partition}\t{offset}\t{time_ms}\t{text_or_null(key)}\t{text_or_null(value)}\t{fields}"


def bytes_or_null(text):
    return None if text == "-" else bytes.fromhex(text)


class Record:
    """A line taken apart."""

    __slots__ = ("topic", "partition", "offset", "time_ms", "key", "value", "headers")

    def __init__(self, line):
        topic, partition, offset, time_ms, key, value, headers = line.rstrip("\n").split("\t")
        self.topic, self.partition, self.offset = topic, int(partition), int(offset)
        self.time_ms = None if time_ms == "-" else int(time_ms)
        self.key, self.value = bytes_or_null(key), bytes_or_null(value)
        pairs = (pair.split(":") for pair in headers.split(",") if pair)
        self.headers = [(bytes.fromhex(name).decode(), bytes_or_null(value)) for name, value in pairs]


def read(path):
    with open(path, encoding="ascii") as lines:
        return [Record(line) for line in lines]


class Limits:
    """What the programming interface of a client can say when it writes. All of it unless told otherwise."""

    def __init__(self, *, times=True, partitions=PARTITIONS, plain=False, null_headers=True, both_null=True,
                 grouped=False, blocks=False):
        # Whether it chooses timestamps; to how many partitions it can address records.
        self.times, self.partitions = times, partitions
        # Only printable keys, values and headers without separators, as a line of a console's input.
        self.plain = plain
        # Whether the value of a header may be null, and key and value of one record both.
        self.null_headers, self.both_null = null_headers, both_null
        # Headers are an object: those of one name are neighbours.
        self.grouped = grouped
        # Records come in blocks of one partition and one set of headers without zero bytes; in a block either nothing is null
        # or nothing is empty.
        self.blocks = blocks


def words(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count))


def make_key(rng, limits):
    kind = rng.random()
    if kind < 0.10:
        return None
    if kind < 0.15:
        return b""
    if kind < 0.75 or limits.plain:
        return f"customer-{rng.randrange(500)}".encode()
    return rng.randbytes(rng.randrange(1, 40))


def make_value(rng, index, limits):
    if index % LARGE_EVERY == LARGE_EVERY - 1:
        size = rng.randrange(LARGE_BYTES // 2, LARGE_BYTES)
        # Half of them hardly compress, so that large requests are there with every codec.
        noisy = rng.randbytes(size) if index % (2 * LARGE_EVERY) < LARGE_EVERY else (words(rng, 40).encode() * size)[:size]
        return noisy.hex().encode()[:size] if limits.plain else noisy
    kind = rng.random()
    if kind < 0.08:
        return None
    if kind < 0.13:
        return b""
    if kind < 0.75 or limits.plain:
        return f'{{"index":{index},"note":"{words(rng, rng.randrange(1, 30))}"}}'.encode()
    return rng.randbytes(rng.randrange(1, 400))


def make_headers(rng, limits):
    if rng.random() < 0.4:
        return []
    headers = []
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice(["trace", "trace", "source", "größe", "x-retry"])
        kind = rng.random()
        if kind < 0.15 and limits.null_headers:
            value = None
        elif kind < 0.25 and not limits.plain:
            value = b""
        elif kind < 0.60 or limits.plain:
            value = f"{name}-{rng.randrange(1000)}".encode()
        else:
            value = rng.randbytes(rng.randrange(1, 24))
        headers.append((name, value))
    if rng.random() < 0.3:
        # The same name again, next to the others and with another value: order and number count.
        headers.append((headers[0][0], b"again"))
    return headers


def make(writer, codec, topic, count, limits=Limits()):
    """The lines of one topic, in the order in which they are to be sent."""
    lines, ends = [], [0] * PARTITIONS
    for index in range(count):
        rng = random.Random(f"{SEED}/{writer}/{codec}/{index}")
        key, value = make_key(rng, limits), make_value(rng, index, limits)
        if not limits.both_null and key is None and value is None:
            key = b""
        block = index * BLOCKS // count
        around = random.Random(f"{SEED}/{writer}/{codec}/block/{block}") if limits.blocks else rng
        headers, partition = make_headers(around, limits), around.randrange(limits.partitions)
        if limits.grouped:
            names = [name for name, _ in headers]
            headers.sort(key=lambda header: names.index(header[0]))
        if limits.blocks:
            nothing = None if block % 2 else b""
            key, value = key or nothing, value or nothing
            headers = [(name, value and value.replace(b"\0", b"\1")) for name, value in headers]
        time_ms = BASE_MS + 10 * index + rng.randrange(-400, 400) if limits.times else "-"
        lines.append(line_of(topic, partition, ends[partition], time_ms, key, value, headers))
        ends[partition] += 1
    return lines


def grouped(headers):
    """Headers as an object of a language holds them: names in the order of their first value."""
    names = list(dict.fromkeys(pair.split(":")[0] for pair in headers.split(",") if pair))
    pairs = [pair for pair in headers.split(",") if pair]
    return ",".join(pair for name in names for pair in pairs if pair.split(":")[0] == name)


def nulls_are_empty(headers):
    return headers.replace(":-", ":")


def as_kcat_prints(headers):
    """How kcat's %h shows them: NAME=VALUE with commas, values up to their first zero byte."""
    if headers.startswith("~"):
        return headers
    pairs = [pair.split(":") for pair in headers.split(",") if pair]
    shown = [(bytes.fromhex(name), b"NULL" if value == "-" else bytes.fromhex(value).split(b"\0")[0]) for name, value in pairs]
    return "~" + b",".join(name + b"=" + value for name, value in shown).hex()


# What a reader cannot tell apart, by name: applied to the headers of both sides before they are compared.
BLURS = {"grouped": grouped, "nulls-are-empty": nulls_are_empty, "as-kcat-prints": as_kcat_prints}


def seen_by(line, blurs):
    head, headers = line.rsplit("\t", 1)
    for blur in blurs:
        headers = BLURS[blur](headers)
    return f"{head}\t{headers}"


def by_place(lines):
    """Lines by (topic, partition), in the order in which they stand."""
    places = {}
    for line in lines:
        topic, partition, _ = line.split("\t", 2)
        places.setdefault((topic, partition), []).append(line)
    return places


def shortened(line):
    return "\t".join(field if len(field) <= 60 else f"{field[:60]}.. ({len(field)} characters)" for field in line.split("\t"))


def difference(expected, found, blurs=(), now_ms=None):
    """None where `found` is what was expected, partition by partition in order, or a text that names the first difference.

    now_ms is a pair: timestamps that the writer could not choose lie between the two.
    """
    wanted, got = by_place(expected), by_place(found)
    if wanted.keys() != got.keys():
        return f"records of {sorted(got)} instead of {sorted(wanted)}"
    for place, lines in wanted.items():
        others = got[place]
        for want, have in zip(lines, others):
            want, have = seen_by(want, blurs), seen_by(have, blurs)
            fields = want.split("\t")
            if fields[3] == "-" and now_ms is not None:
                time_ms = have.split("\t")[3]
                if not (time_ms.isdigit() and now_ms[0] <= int(time_ms) <= now_ms[1]):
                    return f"timestamp {time_ms} is not of the time of sending {now_ms}: {shortened(have)}"
                fields[3] = time_ms
                want = "\t".join(fields)
            if want != have:
                return f"sent {shortened(want)!r}, read {shortened(have)!r}"
        if len(lines) != len(others):
            return f"{len(others)} records in {place} instead of {len(lines)}"
    return None


def check_itself():
    """Every kind of damage is noticed; what is equal is equal."""
    lines = make("someone", "none", "t", 400)
    assert lines == make("someone", "none", "t", 400) and lines != make("someone", "gzip", "t", 400)
    assert difference(lines, list(lines)) is None
    records = [Record(line) for line in lines]
    kinds = {
        "null key": any(r.key is None for r in records),
        "empty key": any(r.key == b"" for r in records),
        "null value": any(r.value is None for r in records),
        "empty value": any(r.value == b"" for r in records),
        "large": any(len(r.value or b"") > LARGE_BYTES // 2 for r in records),
        "no headers": any(not r.headers for r in records),
        "same name": any(len({name for name, _ in r.headers}) < len(r.headers) for r in records),
        "null header": any(value is None for r in records for _, value in r.headers),
        "empty header": any(value == b"" for r in records for _, value in r.headers),
        "times out of order": any(a.time_ms > b.time_ms for a, b in zip(records, records[1:])),
    }
    assert all(kinds.values()), kinds
    for record, line in zip(records, lines):
        assert line == line_of(*(getattr(record, name) for name in Record.__slots__))
    first = lines[0].split("\t")
    for field in range(7):
        changed = first.copy()
        changed[field] = {0: "u", 1: "1" if first[1] == "0" else "0"}.get(field, first[field] + "0")
        assert difference(lines, ["\t".join(changed), *lines[1:]]), f"field {field}"
    assert difference(lines, lines[:-1]) and difference(lines, [*lines, lines[-1]]) and difference(lines, [])
    places = by_place(lines)
    second = next(iter(places.values()))[1]
    assert difference(lines, [second, *(line for line in lines if line != second)])
    assert difference(["t\t0\t0\t-\t\t\t"], ["t\t0\t0\t7\t\t\t"], now_ms=(5, 9)) is None
    assert difference(["t\t0\t0\t-\t\t\t"], ["t\t0\t0\t4\t\t\t"], now_ms=(5, 9))
    assert grouped("61:01,62:02,61:03") == "61:01,61:03,62:02" and grouped("") == ""
    assert as_kcat_prints("61:-,62:410042") == "~" + b"a=NULL,b=A".hex()
