# Apache Kafka as a system under test: its published artifacts from Maven on the machine's JDK, one node in KRaft mode.
#
# The storage is formatted once; a block gets a copy of the formatted directory, which is as fresh and saves a JVM's
# start. Class B is what it does by default; class C flushes every message. Retention is looked at every second, from the
# first second on.

import re
import shutil
import socket
import subprocess

import peer
import processes

HERE = peer.PEERS / "kafka"
JAVA_MIN = 17
JVM = ["-Xms1g", "-Xmx1g", "-XX:+UseG1GC"]
CLUSTER = "Y29yZWxhbmUtYmVuY2gtMQ"
SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.initial.task.delay.ms=1000
log.retention.check.interval.ms=1000
"""


class Peer(peer.System):
    title = "Apache Kafka"
    classes = {"B": [], "C": ["flush.messages=1"]}

    def install(self, place, log):
        done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
        found = re.search(r'version "(\d+)', done.stderr)
        if done.returncode != 0 or not found or int(found[1]) < JAVA_MIN:
            raise processes.Failure(f"Apache Kafka needs Java {JAVA_MIN} or newer; scripts/setup bench installs it")
        pom = (HERE / "pom.xml").read_text(encoding="utf-8")
        self.version = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([^<]+)", pom)[1]
        self.java, self.place, mark = done.stderr.splitlines()[0], place, place / "complete"
        if mark.exists() and mark.read_text(encoding="utf-8") == pom:
            return
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        processes.succeed(["mvn", "--batch-mode", "--quiet", "-f", HERE / "pom.xml", "dependency:copy-dependencies",
                           "-DincludeScope=runtime", f"-DoutputDirectory={place / 'lib'}"], log, 600)
        configuration = self.configuration(place, 9092, 9093)
        processes.succeed([*self.java_command(), "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", configuration],
                          log, 60)
        (place / "data").rename(place / "formatted")
        mark.write_text(pom, encoding="utf-8")

    def configuration(self, place, port, controller_port):
        """Writes server.properties for a broker below `place` and gives its path."""
        lines = [f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
                 f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}",
                 f"controller.quorum.voters=1@127.0.0.1:{controller_port}", f"log.dirs={place / 'data'}"]
        path = place / "server.properties"
        path.write_text(SETTINGS + "\n".join(lines) + "\n", encoding="utf-8")
        return path

    def java_command(self, *options):
        return ["java", *options, f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}", "-cp", f"{self.place / 'lib'}/*"]

    def command(self, place):
        shutil.copytree(self.place / "formatted", place / "data")
        port, controller_port = free_ports(2)
        self.here = f"127.0.0.1:{port}"
        return [*self.java_command(*JVM), "kafka.Kafka", self.configuration(place, port, controller_port)]

    def address(self, place, log):
        return self.here

    def settings(self):
        return f"# {self.java}\n# java {' '.join(JVM)} kafka.Kafka server.properties\n{SETTINGS}"


def free_ports(count):
    """Ports that nothing listens on now; another process might take one before the broker does, and the start then fails."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports
