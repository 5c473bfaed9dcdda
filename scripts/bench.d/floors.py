# The floors that a block is measured beside: a relay without Kafka's logic, and an echo on the bare ring.
#
# Both are subcommands of the `bench` binary that start their own server and load. Their command lines are here and nowhere
# else. They are measured before the broker of the block starts: the relay in the class of the block, on the same disk and
# cores (the first of each side, it has one thread), with batches of the workload's full size. With a schedule a broker's
# batches are smaller, and its ratio to the relay is to the best case.

import re

import folder
import processes
import workloads

RELAY_MS, RELAY_WARMUP_MS = 1000, 200
# The echo has two loads, one request in flight per connection and several.
ECHO_MS = 500
LIMIT_SECONDS = 30
# What is read of each.
READ = {"null_relay": "cpu_s_per_gb", "echo": "loads"}


def commands(binary, workload, grade, cpus, stem):
    """The command lines of the floors by kind; each writes its JSON to the path of output(stem, kind)."""
    relay = [binary, "null-relay", "--class", grade, "--batch-bytes", str(workloads.batch_bytes(workload)),
             "--record-bytes", workloads.flag(workload, "--record-size"), "--warmup-ms", str(RELAY_WARMUP_MS),
             "--run-ms", str(RELAY_MS), "--directory", stem.parent, "--json", output(stem, "null_relay")]
    for name, cores in zip(("--core", "--load-core"), cpus):
        relay += [name, re.match(r"\d+", cores)[0]] if cores else []
    return {"null_relay": relay, "echo": [binary, "echo", "--run-ms", str(ECHO_MS), "--json", output(stem, "echo")]}


def output(stem, kind):
    return stem.with_name(f"{stem.name}.{kind}.json")


def measure(binary, workload, grade, cpus, stem):
    """Both floors, as their JSON objects by kind; their files begin with the path `stem`."""
    found = {}
    for kind, command in commands(binary, workload, grade, cpus, stem).items():
        log = stem.with_name(f"{stem.name}.{kind}.log")
        for old in (log, output(stem, kind)):
            old.unlink(missing_ok=True)
        # The echo has no cores of its own for either side; it gets those of both.
        processes.succeed(command, log, LIMIT_SECONDS, ",".join(cpus) if kind == "echo" and all(cpus) else None)
        found[kind] = folder.read_whole(output(stem, kind))
        if not isinstance(found[kind], dict) or found[kind].get("kind") != kind or not found[kind].get(READ[kind]):
            raise processes.Failure(f"the floor {kind} left no result in {output(stem, kind)}")
    return found
