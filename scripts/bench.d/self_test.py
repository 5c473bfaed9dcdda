# The self-test of scripts/bench: its whole protocol, on stand-ins for broker, load and floors.
#
# A run goes through the same code as a real one, from its options to its report; only the programs that it starts are
# stand_in.py, and the page cache and the device's counter are left alone. What is checked is what a reader of the results
# relies on: order, equal flags, resumption, ratios, what is not quoted, labels, and that nothing is left running.

import contextlib
import importlib.machinery
import importlib.util
import io
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))

import block  # noqa: E402
import folder  # noqa: E402
import machine  # noqa: E402
import peer  # noqa: E402
import processes  # noqa: E402
import ratios  # noqa: E402
import stand_in  # noqa: E402
import workloads  # noqa: E402

STAND_IN = HERE / "stand_in.py"
WAIT_SECONDS = 30


class StandIn(peer.System):
    title, version = "Stand-in", "1"
    classes = {"B": ["durable=no"], "C": ["durable=yes"]}

    def command(self, place):
        return [STAND_IN, "serve"]

    def address(self, place, log):
        return "127.0.0.1:1"

    def settings(self):
        return "none\n"


def bench_module():
    """scripts/bench itself, with what touches the machine replaced."""
    loader = importlib.machinery.SourceFileLoader("bench", str(HERE.parent / "bench"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench", loader))
    loader.exec_module(module)
    base = pathlib.Path(os.environ["STAND_IN_BASE"])
    module.target_directory = lambda: base
    module.git_commit = lambda: "0" * 40
    peer.load = lambda name: StandIn()
    peer.ask = lambda address, *question: "loadgen [0] offset 7\n"
    machine.drop_page_cache = lambda: "dropped"
    counter = itertools.count(0, 10**9)
    machine.device_written = lambda place: next(counter)
    return module


class Case:
    """A run in a directory of its own."""

    def __init__(self, base, faults=None):
        self.base = pathlib.Path(tempfile.mkdtemp(dir=base))
        self.journal = self.base / "journal"
        self.journal.touch()
        (self.base / "faults").write_text(json.dumps(faults or {}), encoding="utf-8")
        os.environ.update(STAND_IN_BASE=str(self.base), STAND_IN_JOURNAL=str(self.journal),
                          STAND_IN_FAULTS=str(self.base / "faults"))
        self.bench, self.said = bench_module(), []

    def run(self, *words):
        """The exit code of a run with these options, and what stdout said."""
        tools = [word for tool in ("corelane", "loadgen", "bench") for word in (f"--{tool}", str(STAND_IN))]
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = self.bench.measure(self.bench.arguments([*tools, *words]), self.said.append)
        assert not processes.running
        return code, output.getvalue()

    def calls(self):
        return [json.loads(line) for line in self.journal.read_text(encoding="utf-8").splitlines()]

    def blocks(self):
        return [call["block"] for call in self.calls() if "block" in call]

    def place(self):
        return next((self.base / "bench").glob("*Z-*"))

    def summary(self):
        return json.loads((self.place() / "summary.json").read_text(encoding="utf-8"))

    def row(self, workload, grade):
        return next(row for row in self.summary()["rows"] if (row["workload"], row["class"]) == (workload, grade))


def a_quick_run_is_whole_and_labelled(base):
    case = Case(base)
    code, output = case.run("--quick")
    assert code == 0, case.said
    assert len(case.blocks()) == 24 and len(set(case.blocks())) == 24
    order = [name.split("/")[1] for name in case.blocks() if name.startswith("keyed-B")]
    assert order == ["0-corelane", "0-kafka", "1-kafka", "1-corelane", "2-corelane", "2-kafka"], order
    row = case.row("throughput-1k", "C")
    assert row["ratios"]["rate"] == {"median": 2.0, "low": 2.0, "high": 2.0, "wins": 3, "pairs": 3}, row
    assert row["ratios"]["cpu"]["median"] == 0.25 and row["ratios"]["cpu"]["wins"] == 3
    assert row["figures"]["kafka"]["relay"] == stand_in.CPU["kafka"] / stand_in.RELAY_CPU
    assert row["figures"]["corelane"]["echo"] == stand_in.ECHO_RATE
    paced = case.row("latency-50", "C")
    assert paced["rate_target"] == 50_000 and paced["ratios"]["rate"] is None, paced
    assert paced["ratios"]["e2e_p99.9"]["median"] == 0.5 and not paced["notes"], paced
    place = case.place()
    marked = [place / "RESULTS.md", place / "report.html", *(place / "compare").glob("*.txt")]
    assert len(marked) == 2 + 4
    for path in marked:
        assert "NOT FOR PUBLICATION" in path.read_text(encoding="utf-8"), path
    assert "not-for-publication" in place.name and case.summary()["not_for_publication"] and "NOT FOR PUBLICATION" in output
    assert all("label=not-for-publication" in call["args"] for call in case.calls() if "block" in call)
    assert not list(place.rglob("data"))


def shared(words):
    """A command line without what must differ between two blocks."""
    own = ("--bootstrap-server", "--broker-pid", "--json", "--tag")
    return [word for at, word in enumerate(words) if word not in own and (at == 0 or words[at - 1] not in own)]


def both_systems_get_the_same_flags(base):
    case = Case(base)
    case.run("--quick", "--only", "keyed", "--pairs", "1", "--cpus", "broker=0,loadgen=0")
    ours, theirs = (shared(call["args"]) for call in case.calls() if "block" in call)
    assert ours == theirs, (ours, theirs)
    text = " ".join(ours)
    for part in ("e2e --create", " ".join(workloads.KEYED), "--cpu-list 0", "--class B",
                 "--topic-config durable=no", "--duration 10s"):
        assert part in text, (part, text)
    relays = [" ".join(call["args"]) for call in case.calls() if call.get("floor") == "null_relay"]
    assert len(relays) == 2 and all("--class B --batch-bytes 1000 --record-bytes 100" in line for line in relays), relays
    assert all("--core 0 --load-core 0" in line for line in relays), relays


def a_full_run_may_be_published(base):
    case = Case(base)
    code, output = case.run("--only", "throughput-1k", "--only", "latency-50", "--cpus", "none")
    assert code == 0, case.said
    assert len(case.blocks()) == 4 * 14
    assert [call["sweep"] for call in case.calls() if "sweep" in call] == ["corelane", "kafka"] * 2
    assert not case.summary()["not_for_publication"] and "NOT FOR PUBLICATION" not in output
    assert case.row("latency-50", "B")["rate_target"] == stand_in.KNEES["kafka"] / 2
    crossing = case.row("throughput-1k", "C/B")
    assert crossing["crosses"] and crossing["notes"][0].startswith("CROSSES CLASSES"), crossing
    assert sum(row["crosses"] for row in case.summary()["rows"]) == 1
    assert all("-C/" in pair[0] and "-B/" in pair[1] for pair in crossing["files"])


def only_what_is_not_whole_is_run_again(base):
    case = Case(base)
    case.run("--quick", "--only", "keyed")
    place, before = case.place(), len(case.blocks())
    (place / "blocks/keyed-B/0-kafka.json").unlink()
    torn = place / "blocks/keyed-B/2-corelane.loadgen.json"
    torn.write_text(torn.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    (place / "blocks/keyed-B/1-kafka.json").write_bytes((place / "blocks/keyed-B/1-corelane.json").read_bytes())
    code, _ = case.run("--resume", str(place))
    assert code == 0
    assert case.blocks()[before:] == ["keyed-B/0-kafka", "keyed-B/1-kafka", "keyed-B/2-corelane"], case.blocks()[before:]
    case.bench.git_commit = lambda: "1" * 40
    try:
        case.run("--resume", str(place))
    except processes.Failure as failure:
        assert "another run's: git was" in str(failure), failure
    else:
        raise AssertionError("a run of another commit went on")


def a_failed_block_is_named_and_its_pair_left_out(base):
    case = Case(base, {"keyed-B/1-kafka": "fails", "keyed-B/2-kafka": "lost"})
    code, output = case.run("--quick", "--only", "keyed")
    assert code == 1 and case.row("keyed", "B")["pairs"] == 1
    first, second = case.summary()["failures"]
    assert "keyed-B/1-kafka" in first["step"], first
    for part in ("ended with 4", "command:", "--key-dist", "| records are not what was written"):
        assert part in first["why"], first
    assert "'lost': 3" in second["why"], second
    assert "FAILED" in output and "not all blocks were measured" in output


def a_run_that_keeps_failing_ends(base):
    case = Case(base, {f"keyed-B/{number}-{system}": "fails" for number in range(3) for system in ("corelane", "kafka")})
    code, _ = case.run("--quick", "--only", "keyed")
    assert code == 1 and len(case.blocks()) == 3, case.blocks()
    assert "--resume" in case.said[-2] + case.said[-1], case.said


def what_the_rules_void_is_not_quoted(base):
    case = Case(base, {"latency-50-C/0-corelane": "saturated", "throughput-1k-C/1-kafka": "unsettled",
                       "throughput-100-C/1-corelane": "hiccups"})
    code, _ = case.run("--quick")
    assert code == 0
    paced, steady, noisy = (case.row(*name) for name in (("latency-50", "C"), ("throughput-1k", "C"), ("throughput-100", "C")))
    assert paced["ratios"]["ack_p50"] and not paced["ratios"]["ack_p99"] and not paced["ratios"]["e2e_p99.9"]
    assert any("SATURATED in 1 of 3" in note for note in paced["notes"]) and "made up" in str(paced["notes"])
    assert any("Stand-in: not settled after the warm-up in 1 of 3" in note for note in steady["notes"])
    assert noisy["ratios"]["ack_p99"] and not noisy["ratios"]["ack_p99.9"]


def the_budget_ends_a_run(base):
    case = Case(base)
    code, output = case.run("--quick", "--budget", "0.0000001")
    assert code == 1 and not case.blocks() and "budget" in output and "NOT FOR PUBLICATION" in output


def gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def nothing_is_left_running(base):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        case = Case(base, {"keyed-B/0-corelane": "hang"})
        child = subprocess.Popen([sys.executable, __file__], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + WAIT_SECONDS
        pids = []
        # The broker and its load, which write down their ids in either order.
        while len(pids) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            pids = [call["pid"] for call in case.calls() if "block" in call or "broker" in call]
        assert len(pids) == 2 and not any(map(gone, pids)), pids
        child.send_signal(number)
        code = child.wait(WAIT_SECONDS)
        assert code == (-number if number == signal.SIGKILL else 1), (number, code)
        while not all(map(gone, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert all(map(gone, pids)), (number, pids)


def hang():
    """The child of the test above: scripts/bench as it is, in a block that hangs."""
    bench = bench_module()
    tools = [word for tool in ("corelane", "loadgen", "bench") for word in (f"--{tool}", str(STAND_IN))]
    sys.argv = ["bench", "--quick", "--only", "keyed", "--pairs", "1", *tools]
    return bench.main()


def a_step_has_bounded_time(base):
    process = processes.Process(["sleep", "60"], base / "hanging.log")
    try:
        process.wait(0.3)
    except processes.Failure as failure:
        assert "did not end within 0.3 s" in str(failure) and gone(process.pid)
    else:
        raise AssertionError("it did not end, and nobody saw it")


def small_parts_work(base):
    assert ratios.of_pairs([(1, 0)], True) is None
    mixed = ratios.of_pairs([(1, 2), (3, 2), (4, 2)], False)
    assert (mixed["median"], mixed["wins"], mixed["low"], mixed["high"]) == (1.5, 1, 0.5, 2.0), mixed
    flat = [{"at_s": at + 1.0, "seconds": 1.0, "warmup": at < 5, "x": 10.0} for at in range(15)]
    assert block.windows(flat, "x") == [10.0, 10.0, 10.0]
    assert block.windows(flat[5:], "x") is None and block.windows(flat, "y") is None
    uneven = [{**step, "x": 9.0} if step["warmup"] else step for step in flat]
    paced = {"result": {"rate_target": None}, "series": [{**step, "rate_in": step["x"]} for step in uneven]}
    assert not block.settled(paced)["settled"]
    assert block.unfit({"result": {"state": "invalid", "reasons": ["why"]}, "class": "B"}, "B") == "the run is invalid: why"
    good = stand_in.result(stand_in.load_arguments("--bootstrap-server x --broker-pid 1 --warmup 5s --duration 10s --json x "
                                                   "--record-size 100".split()), "kafka", None)
    assert block.unfit(good, "B") is None and "class A, not in B" in block.unfit({**good, "class": "A"}, "B")
    assert workloads.rows([], True) == [(workloads.by_name(name), grade) for name, grade in (
        ("throughput-100", "C"), ("throughput-1k", "C"), ("latency-50", "C"), ("keyed", "B"))]
    for workload in workloads.WORKLOADS:
        assert set(workload.quick) <= set(workload.classes) <= {"B", "C"}, workload
    bench = Case(base).bench
    for words, short in (("", False), ("--pairs 7", False), ("--pairs 6", True), ("--no-floors", True), ("--quick", True)):
        assert bool(bench.is_short(bench.arguments(words.split()))) is short, words
    folder.write(base / "x.json", {"a": 1})
    assert folder.read_whole(base / "x.json") == {"a": 1} and folder.read_whole(base / "y.json") is None


TESTS = (small_parts_work, a_step_has_bounded_time, a_quick_run_is_whole_and_labelled, both_systems_get_the_same_flags,
         a_full_run_may_be_published, only_what_is_not_whole_is_run_again, a_failed_block_is_named_and_its_pair_left_out,
         a_run_that_keeps_failing_ends, what_the_rules_void_is_not_quoted, the_budget_ends_a_run, nothing_is_left_running)


def main(target):
    """Runs every test in a directory below `target`, which is removed."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-self-test-", dir=target) as base:
        for test in TESTS:
            began = time.monotonic()
            test(pathlib.Path(base))
            print(f"bench: self-test: {test.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    print("bench: its own parts work")
    return 0


# As a program it is the child of one test.
if __name__ == "__main__":
    sys.exit(hang())
