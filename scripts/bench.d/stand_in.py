#!/usr/bin/env python3
# Stands in for loadgen, the floors and a broker in the self-test of scripts/bench: same command lines, results made up at
# once.
#
# It takes only the flags that the real programs have, and the same ones must be given. Each call is a line of the
# journal, so that the test sees what ran, in which order and with which process id. The file of faults says which block
# goes wrong and how. Its figures are round numbers that show in a table where they come from; nothing of them is a
# measurement.

import argparse
import json
import os
import pathlib
import sys
import time

# Records per second without a schedule, and CPU seconds per GB.
RATES = {"corelane": 200_000, "kafka": 100_000}
CPU = {"corelane": 1.0, "kafka": 4.0}
RELAY_CPU, ECHO_RATE = 0.5, 250_000
KNEES = {"corelane": 90_000, "kafka": 60_000}
HANG_SECONDS = 600


def setting(name):
    return pathlib.Path(os.environ[f"STAND_IN_{name}"])


def note(**what):
    with open(setting("JOURNAL"), "a", encoding="utf-8") as journal:
        journal.write(json.dumps({"pid": os.getpid(), "args": sys.argv[1:], **what}) + "\n")


def write(path, value):
    pathlib.Path(path).write_text(json.dumps(value), encoding="utf-8")


def load_arguments(words):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in ("bootstrap-server", "broker-pid", "warmup", "duration", "json"):
        parser.add_argument(f"--{flag}", required=True)
    for flag in ("rate", "interval", "slo", "repeats", "replication-factor", "partitions", "producers", "consumers", "threads",
                 "cpu-list", "acks", "batch-size", "batch-records", "record-size", "keys", "key-dist", "class"):
        parser.add_argument(f"--{flag}")
    for flag in ("create", "quiet"):
        parser.add_argument(f"--{flag}", action="store_true")
    for flag in ("tag", "topic-config"):
        parser.add_argument(f"--{flag}", action="append", default=[])
    return parser.parse_args(words)


def latency(p50):
    return {"p50_us": p50, "p90_us": p50 * 2, "p99_us": p50 * 4, "p999_us": p50 * 8, "p9999_us": p50 * 16, "max_us": p50 * 32,
            "mean_us": p50 * 1.5, "count": 1000, "overflow": 0, "hdr": ""}


def result(given, system, fault):
    """A result file of loadgen's form."""
    rate_target = None if given.rate is None else float(given.rate)
    rate = rate_target or RATES[system]
    warmup, duration = int(given.warmup[:-1]), int(given.duration[:-1])
    size = int(given.record_size)
    p50 = 1000 if system == "corelane" else 2000
    state = "unpaced" if rate_target is None else "saturated" if fault == "saturated" else "ok"
    steps = []
    for second in range(warmup + duration):
        now = rate * (0.5 + second / 20 if fault == "unsettled" else 1)
        steps.append({"at_s": second + 1.0, "seconds": 1.0, "warmup": second < warmup, "rate_in": now, "rate_out": now,
                      "bytes_in": now * size, "bytes_out": now * size, "latency": {}, "backlog": 0, "errors": 0,
                      "own_cpu": 0.5, "broker_cpu": now / RATES[system], "hiccup_max_us": 100})
    outcome = {"state": state, "reasons": ["made up"] if state == "saturated" else [], "seconds": duration,
               "rate_target": rate_target, "rate_in": rate, "rate_out": rate, "records_in": rate * duration,
               "records_out": rate * duration, "bytes_in": rate * size * duration, "bytes_out": rate * size * duration,
               "errors": 0, "latency": {kind: latency(p50) for kind in ("service", "response", "slip", "e2e", "fetch")},
               "hiccup": latency(1000 if fault == "hiccups" else 10),
               "broker": {"cpu_s_per_gb": CPU[system], "cpu_s": 1.0, "rss": 2**28, "ctx": 1, "written": 1},
               "self": {"cpu": 0.5, "threads": 1}, "verify": {"lost": 3 if fault == "lost" else 0, "duplicated": 0}}
    return {"schema": 1, "tool": "stand-in", "command": "e2e", "git": "", "args": sys.argv[1:], "started_ms": 0,
            "tags": dict(tag.split("=", 1) for tag in given.tag), "machine": {}, "target": {},
            "class": vars(given)["class"] or "unknown", "result": outcome, "series": steps}


def e2e(words):
    given = load_arguments(words)
    tags = dict(tag.split("=", 1) for tag in given.tag)
    block = f"{tags['workload']}-{tags['class']}/{tags['round']}-{tags['system']}"
    fault = json.loads(setting("FAULTS").read_text(encoding="utf-8")).get(block)
    note(block=block)
    if fault == "hang":
        time.sleep(HANG_SECONDS)
    if fault == "fails":
        print("records are not what was written")
        return 4
    write(given.json, result(given, tags["system"], fault))
    print("RESULT made up")
    return 5 if fault == "saturated" else 0


def sweep(words):
    given = load_arguments(words)
    system = "corelane" if "corelane" in pathlib.Path(given.json).name else "kafka"
    note(sweep=system)
    write(given.json, {**result(given, system, None), "sweep": {"slo": given.slo, "knee": KNEES[system], "steps": []}})
    return 0


def compare(words):
    assert words[0] == "--pairs" and len(words) == 2, words
    for pair in words[1].split(","):
        for path in pair.split(":"):
            json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    print(f"compared {len(words[1].split(','))} pairs")
    return 0


def report(words):
    assert words[0] == "--out" and len(words) > 2, words
    pathlib.Path(words[1]).write_text(f"<!doctype html><body class='x'>{len(words) - 2} files", encoding="utf-8")
    return 0


def floor(kind, words):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    required = {"null_relay": ("class", "batch-bytes", "record-bytes", "warmup-ms", "run-ms", "directory", "json"),
                "echo": ("run-ms", "json")}[kind]
    for flag in required:
        parser.add_argument(f"--{flag}", required=True)
    for flag in ("core", "load-core") if kind == "null_relay" else ():
        parser.add_argument(f"--{flag}", type=int)
    given = parser.parse_args(words)
    note(floor=kind)
    found = {"cpu_s_per_gb": RELAY_CPU} if kind == "null_relay" else {"loads": [{"requests_per_cpu_s": ECHO_RATE}]}
    write(given.json, {"schema": 1, "kind": kind, **found})
    return 0


def serve(_):
    note(broker=True)
    time.sleep(HANG_SECONDS)
    return 1


def main():
    command, words = sys.argv[1], sys.argv[2:]
    if command in ("null-relay", "echo"):
        return floor(command.replace("-", "_"), words)
    return {"e2e": e2e, "sweep": sweep, "compare": compare, "report": report, "serve": serve}[command](words)


if __name__ == "__main__":
    sys.exit(main())
