# One block: a system started on a fresh folder and cold caches, one load of loadgen's on it, the floors beside it.
#
# In this order: the floors, a clean folder, the page cache dropped, the broker, the load, the proof that the load did
# what the row says, the end of the broker, what reached the device, the record. Whatever fails is named with the block.
# It decides nothing about what a figure is worth but whether the load had settled before it was measured.

import collections
import os
import re
import time

import floors
import folder
import machine
import peer
import processes
import workloads

# The warm-up rule: three windows of 5 s that differ by less than 5 %.
WINDOW_SECONDS, WINDOWS, WINDOW_DIFFERENCE = 5, 3, 0.05
# Beyond warm-up and measurement: topics made, a queue drained, a file written.
LOAD_EXTRA_SECONDS = 90
SWEEP_SECONDS, SWEEP_STEP_SECONDS = 420, 5
# loadgen's exit codes whose result counts: ok, and saturated (its tail is void).
KEPT_EXITS = (0, 5)


class Block(collections.namedtuple("Block", "workload grade round system")):
    """One system's half of a pair."""

    @property
    def row(self):
        return f"{self.workload.name}-{self.grade}"

    @property
    def key(self):
        return f"{self.row}/{self.round}-{self.system}"


def windows(series, key):
    """The averages of `key` over the last window of the warm-up and the first ones measured; None where a window lacks data."""
    start = max((step["at_s"] for step in series if step["warmup"]), default=0.0)
    found = []
    for number in range(WINDOWS):
        begin = start + (number - 1) * WINDOW_SECONDS
        steps = [step for step in series if begin < step["at_s"] - step["seconds"] / 2 < begin + WINDOW_SECONDS]
        covered = sum(step["seconds"] for step in steps)
        # An interval may be cut by the end of the warm-up; a window of which a fifth is missing says nothing.
        if covered < WINDOW_SECONDS * 0.8 or any(step.get(key) is None for step in steps):
            return None
        found.append(sum(step[key] * step["seconds"] for step in steps) / covered)
    return found


def settled(result):
    """Whether the load had settled when its measurement began. Without a schedule its rate shows that; with one the rate is
    given, and the broker's CPU shows it."""
    key = "rate_in" if result["result"]["rate_target"] is None else "broker_cpu"
    found = windows(result["series"], key)
    steady = found is not None and max(found) > 0 and (max(found) - min(found)) / max(found) < WINDOW_DIFFERENCE
    return {"by": key, "windows": found, "settled": steady}


def retention_passed(address, topic="loadgen"):
    """Whether the first partition has lost its oldest segments; that takes a roll as well."""
    answer = peer.ask(address, "-Q", "-t", f"{topic}:0:-2") or ""
    found = re.search(r"offset (\d+)", answer)
    return found is not None and int(found[1]) > 0


class Bench:
    """What all blocks share: the tools, the cores, the times."""

    def __init__(self, tools, systems, cpus, times, tags):
        # Paths by name; systems by name, of peer.System; (broker's, loadgen's) cores or None; (warm-up, duration) in seconds.
        self.tools, self.systems, self.cpus = tools, systems, cpus
        self.warmup, self.duration = times
        self.tags = tags

    def load_command(self, subcommand, workload, topic):
        command = [self.tools["loadgen"], subcommand, *workloads.COMMON, *workload.flags]
        command += ["--cpu-list", self.cpus[1]] if self.cpus[1] else []
        for pair in topic:
            command += ["--topic-config", pair]
        for tag in self.tags:
            command += ["--tag", tag]
        return command

    def started(self, stem, name):
        """The system on a fresh folder, and what became of the page cache."""
        place = stem.parent / "data"
        peer.clean(place)
        page_cache = machine.drop_page_cache()
        return peer.Broker(self.systems[name], place, stem.with_name(stem.name + ".broker.log"), self.cpus[0]), page_cache

    def measure(self, block, stem, rate):
        """Runs a block and gives its record, without the result that loadgen wrote beside it."""
        began, busy = time.time(), os.getloadavg()[0]
        stem.parent.mkdir(parents=True, exist_ok=True)
        found = None
        if self.tools["bench"]:
            found = floors.measure(self.tools["bench"], block.workload, block.grade, self.cpus, stem)
        broker, page_cache = self.started(stem, block.system)
        try:
            device = machine.device_written(broker.place)
            code, result = self.load(block, stem, rate, broker)
            broker.process.check()
            proved = retention_passed(broker.address) if "roll" in block.workload.name else None
            in_time = broker.stop()
            after = machine.device_written(broker.place)
        finally:
            broker.stop()
            peer.clean(broker.place)
        if proved is False:
            raise processes.Failure("no segment was rolled and deleted: the row does not show what it says")
        return {
            "workload": block.workload.name, "class": block.grade, "round": block.round, "system": block.system,
            "started": began, "seconds": time.time() - began, "load_average_before": busy, "tags": self.tags, "exit": code,
            "rate_target": rate, "floors": found, "page_cache": page_cache, "warm_up": settled(result),
            "retention_passed": proved, "ended_when_asked": in_time,
            "device_written": None if device is None or after is None else after - device,
        }

    def load(self, block, stem, rate, broker):
        """loadgen's exit code and its result, which is checked for being of use."""
        output, log = stem.with_name(stem.name + ".loadgen.json"), stem.with_name(stem.name + ".loadgen.log")
        output.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
        topic = [*self.systems[block.system].classes[block.grade], *block.workload.topic]
        command = self.load_command("e2e", block.workload, topic)
        # Without a rate it is as fast as it goes.
        command += ["--rate", str(rate)] if rate else []
        command += ["--class", block.grade]
        command += ["--bootstrap-server", broker.address, "--broker-pid", str(broker.pid), "--warmup", f"{self.warmup}s",
                    "--duration", f"{self.duration}s", "--interval", "1s", "--quiet", "--json", str(output)]
        for key, value in (("system", block.system), ("workload", block.workload.name), ("class", block.grade),
                           ("round", block.round)):
            command += ["--tag", f"{key}={value}"]
        process = processes.Process(command, log, self.cpus[1])
        code = process.wait(self.warmup + self.duration + LOAD_EXTRA_SECONDS)
        if code not in KEPT_EXITS:
            raise process.failure(f"loadgen ended with {code}; the broker's log: {broker.process.log}"
                                  f"{processes.last_lines(broker.process.log)}\n")
        result = folder.read_whole(output)
        wrong = unfit(result, block.grade)
        if wrong:
            raise process.failure(wrong)
        return code, result

    def sweep(self, system, grade, path):
        """The knee of a system in a class, in records per second; None where no rate met the SLO."""
        stem = path.with_suffix("")
        stem.parent.mkdir(parents=True, exist_ok=True)
        workload = workloads.by_name(workloads.KNEE_OF)
        broker, _ = self.started(stem, system)
        try:
            command = self.load_command("sweep", workload, self.systems[system].classes[grade])
            command += ["--bootstrap-server", broker.address, "--broker-pid", str(broker.pid), "--slo", workloads.KNEE_SLO,
                        "--repeats", str(workloads.KNEE_REPEATS), "--warmup", f"{SWEEP_STEP_SECONDS}s",
                        "--duration", f"{SWEEP_STEP_SECONDS}s", "--quiet", "--json", str(path)]
            process = processes.Process(command, stem.with_name(stem.name + ".loadgen.log"), self.cpus[1])
            code = process.wait(SWEEP_SECONDS)
            found = folder.read_whole(path)
            if not found or "sweep" not in found:
                raise process.failure(f"the sweep ended with {code} and left no result")
            return found["sweep"].get("knee")
        finally:
            broker.stop()
            peer.clean(broker.place)


def unfit(result, grade):
    """Why a result is of no use; None where it is."""
    if not isinstance(result, dict) or "result" not in result:
        return "loadgen left no result"
    outcome = result["result"]
    if outcome["state"] == "invalid":
        return "the run is invalid: " + "; ".join(outcome["reasons"])
    if not outcome.get("broker"):
        return "the result lacks the broker's cost"
    if result["class"] not in (grade, "unknown"):
        return f"the broker acknowledged in class {result['class']}, not in {grade}"
    faults = {key: count for key, count in (outcome.get("verify") or {}).items()
              if key in ("lost", "duplicated", "reordered", "corrupt", "misplaced", "phantom") and count}
    return f"records did not arrive as they were written: {faults}" if faults else None
