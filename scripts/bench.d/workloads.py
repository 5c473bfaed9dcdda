# The workloads of the benchmark: one row each, with the durability classes it is measured in.
#
# `rate` is None for as fast as it goes, or a share of the knee: the highest rate at which the slower of the two systems
# meets KNEE_SLO in that class. Both systems get the same flags and the same rate. Flags that all rows share are in
# COMMON.

import collections

Workload = collections.namedtuple("Workload", "name classes quick rate flags topic shows")

COMMON = ("--create", "--replication-factor", "1", "--producers", "1", "--consumers", "1", "--threads", "1", "--acks", "all")
# Beyond it a queue grows somewhere; well above what a hiccup of a shared machine makes of an unloaded broker.
KNEE_SLO = "e2e.p99<50ms,rate>=0.99"
KNEE_REPEATS = 2
# The workload whose flags a sweep has, and that stands in for a knee in a quick run.
KNEE_OF = "throughput-1k"

SMALL = ("--record-size", "100", "--partitions", "4", "--batch-size", "131072")
LARGE = ("--record-size", "1024", "--partitions", "4", "--batch-size", "131072")
KEYED = ("--record-size", "100", "--partitions", "12", "--batch-records", "10", "--keys", "100000", "--key-dist", "zipf:0.99")
MANY = ("--record-size", "1024", "--partitions", "1000", "--batch-size", "16384", "--keys", "100000", "--key-dist", "uniform")
ROLLED = ("--record-size", "1024", "--partitions", "1", "--batch-size", "131072")
# Kept are some seconds of the load, more than a consumer falls behind and less than a block writes.
ROLLING = ("segment.bytes=8388608", "retention.bytes=67108864")

WORKLOADS = (
    Workload("throughput-100", "BC", "C", None, SMALL, (), "small records as fast as they go: the cost of a record"),
    Workload("throughput-1k", "BC", "C", None, LARGE, (), "larger records as fast as they go: the cost of a byte"),
    Workload("latency-10", "B", "", 0.1, LARGE, (), "latency on a broker with little to do"),
    Workload("latency-50", "BC", "C", 0.5, LARGE, (), "latency at half of what the slower system bears"),
    Workload("latency-80", "B", "", 0.8, LARGE, (), "latency close to the knee of the slower system"),
    Workload("keyed", "B", "B", None, KEYED, (), "keys of uneven use in batches of 10: the cost of a request and a batch"),
    Workload("partitions-1000", "B", "", None, MANY, (), "1 000 partitions: batches stay small, files are many"),
    Workload("roll-retention", "B", "", 0.5, ROLLED, ROLLING, "latency while segments roll and old ones are deleted"),
)


def by_name(name):
    return next(workload for workload in WORKLOADS if workload.name == name)


def flag(workload, name):
    """The value of a flag, as text; None where the workload does not set it."""
    return next((value for found, value in zip(workload.flags, workload.flags[1:]) if found == name), None)


def batch_bytes(workload):
    """Bytes of records in a full batch."""
    records = flag(workload, "--batch-records")
    return int(flag(workload, "--record-size")) * int(records) if records else int(flag(workload, "--batch-size"))


def rows(only, quick):
    """(workload, class) in the order of the table: those named in `only`, all where it is empty."""
    chosen = [workload for workload in WORKLOADS if not only or workload.name in only]
    return [(workload, grade) for workload in chosen for grade in (workload.quick if quick else workload.classes)]


def show():
    """The table for people; * marks the classes of a quick run."""
    print(f"{'workload':<16} {'classes':<8} {'rate':<12} shows")
    for workload in WORKLOADS:
        classes = " ".join(grade + ("*" if grade in workload.quick else "") for grade in workload.classes)
        rate = "max" if workload.rate is None else f"{workload.rate:.0%} of knee"
        print(f"{workload.name:<16} {classes:<8} {rate:<12} {workload.shows}\n{'':<25} {' '.join(workload.flags)}")
    print("\n* in a --quick run as well. Flags of every row: " + " ".join(COMMON))
