# The clients of the matrix: what each one is called, which version is pinned, what it can say, and how it is installed and run.
#
# The versions themselves stand in the clients' own files (requirements, package.json, go.mod, pom.xml); what is shown is read from
# what was installed. It decides nothing about results.

import os
import pathlib
import re
import shutil
import subprocess

from records import Limits

HERE = pathlib.Path(__file__).resolve().parent
ALL_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
# Steps of admin.py for which several clients have no call.
NO_INCREMENTAL = ("alter_configs", "reset_configs")
# The first Node that brings zstd, with which @platformatic/kafka compresses.
NODE_ZSTD = (22, 15)
NODE_MIN, GO_MIN, JAVA_MIN = (20, 0), (1, 26), (17,)


class Missing(Exception):
    """A runtime that this machine does not have; the text says which."""


class Client:
    """One row of the matrix. The program takes the commands that program.py describes."""

    def __init__(self, name, kind, *, folder=None, codecs=ALL_CODECS, limits=Limits(), blurs=(), lacks=(), admin=True,
                 frames_snappy=False, reads_framed_snappy=True):
        self.name, self.kind, self.folder = name, kind, folder or name
        self.codecs, self.limits, self.blurs = codecs, limits, blurs
        # The steps of admin.py for which it has no call; whether it has any administration.
        self.lacks, self.admin = lacks, admin
        # Whether it writes snappy in the frames that Kafka's own client has around the blocks, and whether it reads them.
        self.frames_snappy, self.reads_framed_snappy = frames_snappy, reads_framed_snappy
        self.command, self.version = [], "-"


def version_of(*command):
    """The first version that a command prints, as numbers."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return ()
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", done.stdout + done.stderr)
    return tuple(int(part) for part in found.groups() if part is not None) if found else ()


def needs(what, found, least):
    if found < least:
        have = ".".join(map(str, found)) or "none"
        raise Missing(f"needs {what} {'.'.join(map(str, least))} or newer, there is {have}")


def run(command, folder, seconds=600, **more):
    """Runs a step of an installation; its output is shown only where it fails."""
    environment = {**os.environ, **more}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command[:4]))} .. ended with {done.returncode}: "
                           f"{(done.stdout + done.stderr)[-1500:]}")
    return done.stdout


def is_done(mark, inputs):
    """Whether the installation that left the mark was made from files that say the same."""
    return mark.exists() and mark.read_text() == stamp(inputs)


def stamp(inputs):
    return "\n".join(path.read_text() for path in inputs)


class System:
    """A command of the system."""

    def install(self, client, _):
        if shutil.which("kcat") is None:
            raise Missing("needs kcat; scripts/setup clients installs it")
        found = version_of("kcat", "-V")
        client.command = ["python3", HERE / client.folder / "main.py"]
        client.version = ".".join(map(str, found))


class Python:
    """A package in an environment of its own."""

    def __init__(self, package, requirements="requirements.txt"):
        self.package, self.requirements = package, requirements

    def install(self, client, target):
        listed = HERE / client.folder / self.requirements
        place, mark = target / client.name, target / client.name / "complete"
        if not is_done(mark, [listed]):
            shutil.rmtree(place, ignore_errors=True)
            run(["python3", "-m", "venv", place], target)
            run([place / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r", listed],
                target)
            mark.write_text(stamp([listed]))
        client.command = [place / "bin/python", HERE / client.folder / "main.py"]
        client.version = re.search(rf"^{self.package}==(\S+)", listed.read_text(), re.MULTILINE)[1]


class Node:
    """A package of npm, beside which the program is copied: modules are looked for from where a program lies."""

    def __init__(self, package):
        self.package = package

    def install(self, client, target):
        found = version_of("node", "--version")
        needs("Node", found, NODE_MIN)
        if shutil.which("npm") is None:
            raise Missing("needs npm; scripts/setup clients installs it")
        folder, place = HERE / client.folder, target / client.name
        lists = [folder / "package.json", folder / "package-lock.json"]
        mark = place / "complete"
        if not is_done(mark, lists):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for path in lists:
                shutil.copy(path, place)
            run(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], place)
            mark.write_text(stamp(lists))
        for path in (folder / "main.mjs", HERE / "program.mjs"):
            shutil.copy(path, place)
        client.command = ["node", place / "main.mjs"]
        client.version = re.search(rf'"{self.package}": "([^"]+)"', lists[0].read_text())[1]
        if client.name == "platformatic-kafka" and found < NODE_ZSTD:
            client.codecs = tuple(codec for codec in client.codecs if codec != "zstd")


class Go:
    """A program that is compiled; the cache of modules is the user's."""

    def __init__(self, module):
        self.module = module

    def install(self, client, target):
        needs("Go", version_of("go", "version"), GO_MIN)
        folder, program = HERE / client.folder, target / client.name
        run(["go", "build", "-trimpath", "-o", program, "."], folder, GOFLAGS="-mod=readonly -buildvcs=false")
        client.command = [program]
        client.version = re.search(rf"^\s*{self.module} v(\S+)", (folder / "go.mod").read_text(), re.MULTILINE)[1]


class Java:
    """Kafka's artifacts from Maven, and the program, compiled or in Python."""

    def install(self, client, target):
        needs("Java", version_of("java", "-version"), JAVA_MIN)
        folder, place = HERE / "java", target / "java"
        lists, mark = [folder / "pom.xml"], place / "complete"
        if not is_done(mark, lists):
            if shutil.which("mvn") is None:
                raise Missing("needs Maven; scripts/setup clients installs it")
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            run(["mvn", "--batch-mode", "--quiet", "-f", folder / "pom.xml", "dependency:copy-dependencies",
                 "-DincludeScope=runtime", f"-DoutputDirectory={place / 'lib'}"], target)
            mark.write_text(stamp(lists))
        shutil.copy(folder / "log4j2.properties", place)
        client.version = re.search(r"<version>(4\.[\d.]+)</version>", lists[0].read_text())[1]
        if client.name == "kafka-tools":
            client.command = ["python3", HERE / client.folder / "main.py"]
            return
        if shutil.which("javac") is None:
            raise Missing("needs a JDK, not only a JRE; scripts/setup clients installs it")
        jars = f"{place / 'lib'}/*"
        run(["javac", "-Xlint:all", "-Werror", "-cp", jars, "-d", place / "classes", folder / "Program.java"], target)
        client.command = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
                          f"-Dlog4j2.configurationFile={place / 'log4j2.properties'}", "-cp", f"{place / 'classes'}:{jars}",
                          "Program"]


KAFKA_PYTHON = Limits(null_headers=False, both_null=False)
CLIENTS = (
    Client("confluent-kafka", Python("confluent-kafka"), lacks=("log_dirs",)),
    Client("kcat", System(), limits=Limits(times=False, blocks=True), blurs=("as-kcat-prints",), admin=False),
    Client("kafka-python", Python("kafka-python"), limits=KAFKA_PYTHON, frames_snappy=True, lacks=("replace_configs",)),
    Client("kafka-python-2", Python("kafka-python", "requirements-2.txt"), folder="kafka-python", limits=KAFKA_PYTHON,
           frames_snappy=True, lacks=(*NO_INCREMENTAL, "delete_records", "log_dirs")),
    Client("aiokafka", Python("aiokafka"), limits=Limits(both_null=False), frames_snappy=True,
           lacks=(*NO_INCREMENTAL, "log_dirs")),
    Client("kafkajs", Node("kafkajs"), limits=Limits(null_headers=False, grouped=True), blurs=("grouped",),
           lacks=(*NO_INCREMENTAL, "log_dirs")),
    Client("platformatic-kafka", Node("@platformatic/kafka"), reads_framed_snappy=False),
    Client("franz-go", Go("github.com/twmb/franz-go")),
    Client("sarama", Go("github.com/IBM/sarama"), frames_snappy=True),
    Client("java", Java(), frames_snappy=True, lacks=("replace_configs",)),
    Client("kafka-tools", Java(), limits=Limits(times=False, partitions=1, plain=True), frames_snappy=True,
           lacks=("replace_configs",)),
)
# The three that continuous integration runs: of three languages, with every call of the administration between them.
CI = ("confluent-kafka", "franz-go", "java")
# The one that makes topics, writes the canonical set and reads back what others wrote, and the one that does so for it and
# for kcat, which is the same library.
REFERENCE, SECOND = "confluent-kafka", "kafka-python"
SAME_LIBRARY = ("confluent-kafka", "kcat")
