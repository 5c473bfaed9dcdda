# A run: its blocks in their order, each once, within a budget of time.
#
# Rounds are outermost and the systems of a pair take turns at being first (AB, BA, AB, ...), so that neither a slow hour
# of the machine nor the place in a pair favours one. A block that is whole is not run again. A failed block is named and
# left out, its pair does not count; after FAILURES_MAX of them the run ends. What the figures mean is results.py's.

import time

import block
import folder
import processes
import workloads

FAILURES_MAX = 3
SWEEP_BUDGET_SECONDS = 240


class Over(Exception):
    """The run ends before its last block; the text says why."""


class Run:
    """One run into a folder. `say` prints a line, with the run's label."""

    def __init__(self, bench, place, plan, say):
        # plan: rows of (workload, class), pairs, quick, budget in seconds.
        self.bench, self.folder, self.plan, self.say = bench, place, plan, say
        self.systems = list(bench.systems)
        self.deadline = time.monotonic() + plan["budget"]
        self.failures, self.unfinished = [], None
        self.longest = 0.0

    def rows(self):
        """The rows, and in a quick run before them those whose unpaced rate stands in for a knee."""
        rows = self.plan["rows"]
        if not self.plan["quick"]:
            return rows
        reference = workloads.by_name(workloads.KNEE_OF)
        needed = {grade for workload, grade in rows if workload.rate is not None}
        return [(reference, grade) for grade in sorted(needed) if (reference, grade) not in rows] + rows

    def blocks(self):
        for number in range(self.plan["pairs"]):
            order = self.systems if number % 2 == 0 else self.systems[::-1]
            for workload, grade in self.rows():
                for system in order:
                    yield block.Block(workload, grade, number, system)

    def go(self):
        """Runs what is not there yet. Failures are in `failures`; `unfinished` says why it stopped early."""
        everything = list(self.blocks())
        try:
            if not self.plan["quick"]:
                for grade in sorted({grade for workload, grade in self.rows() if workload.rate is not None}):
                    self.guarded(f"the knee in class {grade}", SWEEP_BUDGET_SECONDS, lambda grade=grade: self.rate_of(grade))
            for at, one in enumerate(everything, 1):
                if self.folder.record(one):
                    self.say(f"{at}/{len(everything)} {one.key}: there")
                    continue
                self.guarded(f"{at}/{len(everything)} {one.key}", self.longest, lambda one=one: self.one(one))
        except Over as stop:
            self.unfinished = str(stop)
            self.say(self.unfinished)

    def guarded(self, name, expected, call):
        """Runs a step unless the time or the patience is over."""
        if time.monotonic() + expected > self.deadline:
            raise Over(f"the budget of {self.plan['budget'] / 60:g} minutes is over before {name}; "
                       f"--resume {self.folder.path} goes on")
        try:
            self.say(f"{name}: {call()}")
        except processes.Failure as failure:
            self.failures.append({"step": name, "why": str(failure)})
            self.say(f"{name}: FAILED: {failure}")
            if len(self.failures) >= FAILURES_MAX:
                raise Over(f"{FAILURES_MAX} steps failed; --resume {self.folder.path} runs them again") from None
        finally:
            processes.end_all()

    def one(self, one):
        began = time.monotonic()
        rate = None if one.workload.rate is None else round(self.rate_of(one.grade)["knee"] * one.workload.rate)
        record = self.bench.measure(one, self.folder.stem(one), rate)
        self.folder.write_record(one, record)
        self.longest = max(self.longest, time.monotonic() - began)
        outcome = self.folder.record(one)["result"]["result"]
        return f"{outcome['state']}, {outcome['rate_in']:,.0f} records/s ({record['seconds']:.0f} s)"

    def rate_of(self, grade):
        """{knee of the slower system, of: by system, how}, found once and then kept."""
        path = self.folder.path / "knees" / f"{grade}.json"
        found = folder.read_whole(path)
        if found is None:
            found = self.unpaced_rates(grade) if self.plan["quick"] else self.swept_rates(grade)
            missing = [system for system, knee in found["of"].items() if not knee]
            if missing:
                raise processes.Failure(f"class {grade}: no rate for {', '.join(missing)} ({found['how']})")
            found["knee"] = min(found["of"].values())
            folder.write(path, found)
        return found

    def unpaced_rates(self, grade):
        """What the first pair of the reference row did without a schedule."""
        workload, rates = workloads.by_name(workloads.KNEE_OF), {}
        for system in self.systems:
            record = self.folder.record(block.Block(workload, grade, 0, system))
            rates[system] = record and record["result"]["result"]["rate_in"]
        return {"of": rates, "how": f"the unpaced rate of {workloads.KNEE_OF} in the first pair"}

    def swept_rates(self, grade):
        rates = {}
        for system in self.systems:
            path = self.folder.knee(grade, system)
            before = folder.read_whole(path) or {}
            rates[system] = before.get("sweep", {}).get("knee") or self.bench.sweep(system, grade, path)
        return {"of": rates, "how": f"the knee of a sweep of {workloads.KNEE_OF} under {workloads.KNEE_SLO}"}
