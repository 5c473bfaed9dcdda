# The cells of the client matrix: one client produces, consumes or administers, and what came of it is judged here.
#
# A cell runs the client's program (program.py says how) within a time limit of its own, in a process group of its own, and ends
# with None or with the reason of its failure. Who writes, who reads and what was expected is decided here; what a record is,
# in records.py, and what an answer of the administration must be, in admin.py.

import os
import signal
import subprocess
import time

import admin
import records

# Seconds for all that one cell does; commands that are a JVM each take longest.
CELL_SECONDS = 300
# Lines of a failed program that are shown.
SHOWN_LINES = 3


class Failed(Exception):
    """A cell that failed; the text is the reason."""


class Written:
    """The topics that a client has written, and what any reader must find in them."""

    def __init__(self, writer):
        self.writer, self.lines = writer, {}

    def for_reader(self, reader):
        """What a reader has the codecs for."""
        framed = self.writer.frames_snappy and not reader.reads_framed_snappy
        codecs = [codec for codec in self.lines if codec in reader.codecs and not (framed and codec == "snappy")]
        return [line for codec in codecs for line in self.lines[codec]]


class Bench:
    """The broker under test, the folder of this run, and the two clients that read back what others wrote."""

    def __init__(self, bootstrap, folder, count, reference, second):
        self.bootstrap, self.folder, self.count = bootstrap, folder, count
        self.reference, self.second = reference, second
        # Topics of earlier runs against the same broker are not in the way.
        self.prefix = f"matrix-{os.getpid()}-{int(time.time())}"
        self.deadline = 0.0

    def begin_cell(self):
        self.deadline = time.monotonic() + CELL_SECONDS

    def run(self, client, *arguments):
        """Runs the client's program within what is left of the cell's time."""
        log = self.folder / f"{client.name}-{arguments[0]}.log"
        command = [*map(str, client.command), *map(str, arguments)]
        with open(log, "a+", encoding="utf-8", errors="replace") as output:
            began = output.seek(0, os.SEEK_END)
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
            try:
                code = process.wait(max(self.deadline - time.monotonic(), 1))
            except subprocess.TimeoutExpired:
                raise Failed(f"{arguments[0]} ran out of time ({CELL_SECONDS} s for the cell); see {log}") from None
            finally:
                end_group(process)
            if code != 0:
                output.seek(began)
                last = " / ".join(output.read().strip().splitlines()[-SHOWN_LINES:])
                raise Failed(f"{' '.join(map(str, arguments[:1]))} ended with {code}: {last[:600]}")

    def asked(self, client):
        with open(self.folder / f"{client.name}-admin.log", "a", encoding="utf-8") as log:
            return admin.Program([*map(str, client.command), "admin", self.bootstrap], log)

    def make_topics(self, topics, partitions):
        asked = self.asked(self.reference)
        try:
            for topic in topics:
                # The records are years old: retention must not take them away.
                asked.ask("create", topic, partitions, "retention.ms=-1")
        finally:
            asked.end()

    def remove_topics(self):
        """Leaves a broker that is not ours without the topics of this run."""
        asked = self.asked(self.reference)
        try:
            for topic in asked.ask("list"):
                if topic.startswith(self.prefix):
                    asked.ask("delete", topic)
        finally:
            asked.end()

    def read(self, client, topics, name):
        """What a client reads from topics: the lines of its file."""
        path = self.folder / f"{client.name}-{name}.read"
        self.run(client, "consume", self.bootstrap, path, *topics)
        return path.read_text(encoding="ascii").splitlines()

    def write(self, client, part):
        """Lets a client write one topic per codec. The records are known, but for the timestamps of those that choose none."""
        written, topics = Written(client), {codec: f"{self.prefix}-{part}-{codec}" for codec in client.codecs}
        count = -(-self.count // len(topics))
        self.make_topics(topics.values(), client.limits.partitions)
        for codec, topic in topics.items():
            lines = records.make(part, codec, topic, count, client.limits)
            path = self.folder / f"{topic}.sent"
            path.write_text("".join(line + "\n" for line in lines), encoding="ascii")
            try:
                self.run(client, "produce", self.bootstrap, topic, codec, path)
            except Failed as failure:
                raise Failed(f"{codec}: {failure}") from None
            written.lines[codec] = lines
        return written

    def reader_for(self, client, same_library):
        return self.second if client.name in same_library else self.reference

    def produce(self, client, part, same_library):
        """The produce cell: another client must read back exactly what this one was told to write."""
        self.begin_cell()
        began_ms = int(time.time() * 1000)
        written = self.write(client, part)
        reader = self.reader_for(client, same_library)
        expected = [line for lines in written.lines.values() for line in lines]
        found = self.read(reader, topics_of(expected), f"back-{part}")
        unlike = records.difference(expected, found, reader.blurs, (began_ms - 1, int(time.time() * 1000) + 1))
        if unlike:
            raise Failed(f"read back by {reader.name}: {unlike}")
        if not client.limits.times:
            # From here on the timestamps are known: every reader must find those that this one found.
            by_topic = {topic: [] for topic in topics_of(expected)}
            for line in found:
                by_topic[line.split("\t", 1)[0]].append(line)
            written.lines = {codec: by_topic[lines[0].split("\t", 1)[0]] for codec, lines in written.lines.items()}
        return written

    def consume(self, client, sources):
        """The consume cell: what others wrote is read exactly, from each source the codecs that this client knows."""
        self.begin_cell()
        for written in sources:
            expected = written.for_reader(client)
            found = self.read(client, topics_of(expected), f"from-{written.writer.name}")
            unlike = records.difference(expected, found, client.blurs)
            if unlike:
                raise Failed(f"written by {written.writer.name}: {unlike}")

    def administer(self, client):
        self.begin_cell()
        program, other = self.asked(client), self.asked(self.reference)
        try:
            failures = admin.run(program, other, f"{self.prefix}-admin-{client.name}", client.lacks, self.deadline)
        finally:
            program.end()
            other.end()
        if failures:
            raise Failed("; ".join(failures))


def topics_of(lines):
    return list(dict.fromkeys(line.split("\t", 1)[0] for line in lines))


def end_group(process):
    """Ends what a program started and left behind, and itself where it still runs."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
