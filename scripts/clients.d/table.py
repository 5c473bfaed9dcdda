# The clients of the matrix: what each one is called, what it can say, and of which kind its installation is.
#
# The versions stand in the clients' own files (requirements, package.json, go.mod, pom.xml) and are read from there. It decides
# nothing about results.

from installs import Command, Go, Java, Node, Python
from records import Limits

ALL_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
# Steps of admin.py for which several clients have no call.
NO_INCREMENTAL = ("alter_configs", "reset_configs")


class Client:
    """One row of the matrix. The program takes the commands that program.py describes."""

    def __init__(self, name, kind, *, folder=None, limits=Limits(), blurs=(), lacks=(), admin=True, frames_snappy=False,
                 reads_framed_snappy=True):
        self.name, self.kind, self.folder = name, kind, folder or name
        self.limits, self.blurs = limits, blurs
        # The steps of admin.py for which it has no call; whether it has any administration.
        self.lacks, self.admin = lacks, admin
        # Whether it writes snappy in the frames that Kafka's own client has around the blocks, and whether it reads them.
        self.frames_snappy, self.reads_framed_snappy = frames_snappy, reads_framed_snappy
        # What the installation finds out: how the program is called, the client's version, the codecs that it has here.
        self.command, self.version, self.codecs = [], "-", ALL_CODECS


KAFKA_PYTHON = Limits(null_headers=False, both_null=False)
CLIENTS = (
    Client("confluent-kafka", Python("confluent-kafka"), lacks=("log_dirs",)),
    Client("kcat", Command(), limits=Limits(times=False, blocks=True), blurs=("as-kcat-prints",), admin=False),
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
