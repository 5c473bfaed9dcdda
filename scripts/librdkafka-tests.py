# librdkafka's own test suite against this broker: which of its tests run, and what came of each.
#
# scripts/librdkafka-tests.tsv lists every test of the suite; a test that it does not name, or that the suite does not have,
# fails the run, so that a new version of librdkafka is looked at. Each test is a process of its own, against one broker per
# configuration that the suite knows ("scenario"). A test that runs must say that it passed: one that skips itself, or whose
# sub-test never started, has failed. It neither builds the suite nor the broker, and judges no speed.
# Run by scripts/librdkafka-tests, which builds the suite and says how it is used.

import argparse
import collections
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

# The version of Kafka that the suite is told: it asks of the broker what that one does. Newer than any it knows of.
KAFKA_VERSION = "4.2.0.0"
# The suite's limits are those of an idle machine with several cores.
TIMEOUT_MULTIPLIER = 2
# Seconds for one test (its own limits are lower), for a start or drain of the broker, and for librdkafka's own threads.
TEST_SECONDS = 900
BROKER_SECONDS = 60
# What the suite's scenarios (its scenarios/*.json) set on the broker; replication_factor is left at what one node has.
SCENARIOS = {
    "default": {"num.partitions": 4, "auto.create.topics.enable": "true"},
    "noautocreate": {"num.partitions": 4, "auto.create.topics.enable": "false"},
}
# The verdicts of the list, and what each may be followed by: when a test runs, or what is missing for it.
VERDICTS = {
    "run": ("ci", "full"),
    "local": ("-",),
    "skip": ("groups", "transactions", "security", "compaction", "cluster", "tools", "other"),
}

Test = collections.namedtuple("Test", "name local known_issue scenario")
Row = collections.namedtuple("Row", "name subtest verdict detail why")


class Failure(Exception):
    """What keeps the run from going on; the text says why."""


def tests_of(source):
    """The tests that the suite's test.c declares, by name."""
    table = re.search(r"^struct test tests\[\] = \{(.*?)^\s*\{NULL\}\};", source, re.M | re.S)
    if not table:
        raise Failure("test.c has no table of tests that this script could read")
    tests = {}
    for declared in re.finditer(r"\b_TEST\((\w+),([^,]*?)[,)](.*?)(?=\b_TEST\(|\Z)", table.group(1), re.S):
        name, flags, rest = declared.groups()
        scenario = re.search(r'\.scenario = "(\w+)', rest)
        known_issue = re.search(r"TEST_F_KNOWN_ISSUE\b", flags)
        tests[name] = Test(name, "TEST_F_LOCAL" in flags, bool(known_issue), scenario.group(1) if scenario else "default")
    return tests


def subtests_of(source):
    """The functions of a test's file that are sub-tests."""
    found, function = [], None
    for line in source.splitlines():
        begun = re.match(r"(?:[A-Za-z_][\w ]*[ *])?(\w+)\(", line)
        if begun and not line.endswith(";"):
            function = begun.group(1)
        if re.search(r"\bSUB_TEST(_QUICK)?\(", line) and function not in found:
            found.append(function)
    return found


def rows_of(text):
    """The rows of the list; its header says what their columns are."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 4:
            raise Failure(f"line {number} of the list has {len(fields)} columns instead of 4")
        name, verdict, detail, why = fields
        if detail not in VERDICTS.get(verdict, ()) or verdict == "skip" and why == "-":
            raise Failure(f"line {number} of the list: '{verdict} {detail} {why}' is none of its forms")
        test, _, subtest = name.partition("/")
        rows.append(Row(test, subtest, verdict, detail, why))
    return rows


def title(name, subtest):
    return f"{name}/{subtest}" if subtest else name


def file_of(tests_directory, name):
    """The file that holds a test; tests of one number share one."""
    files = [path for path in tests_directory.glob(f"{name[:4]}-*.c*") if path.suffix in (".c", ".cpp")]
    if len(files) != 1:
        raise Failure(f"{len(files)} files hold test {name}")
    return files[0]


def differences(tests, rows, subtests):
    """What keeps the list from being that of the suite; `subtests` gives those of a test."""
    listed = collections.defaultdict(list)
    for row in rows:
        listed[row.name].append(row.subtest)
        if row.name in tests and tests[row.name].local and row.verdict == "run":
            yield f"{row.name} needs no broker but is listed as {row.verdict}"
    for name in tests.keys() - listed.keys():
        yield f"{name} is not in the list"
    for name in listed.keys() - tests.keys():
        yield f"{name} is in the list but not in the suite"
    for name, mine in listed.items():
        for subtest in {subtest for subtest in mine if mine.count(subtest) > 1}:
            yield f"{name}/{subtest} is in the list twice"
        if name not in tests or mine == [""]:
            continue
        theirs = subtests(name)
        yield from (f"{name}/{subtest} is not in the list" for subtest in theirs if subtest not in mine)
        yield from (f"{name}/{subtest} is in the list but not in the suite" for subtest in mine if subtest not in theirs)


class Broker:
    """The broker's process on a data directory of its own and a free port, configured for one scenario."""

    def __init__(self, binary, directory, scenario):
        self.log = directory / f"broker-{scenario}.log"
        command = [binary, "serve", "--data-dir", str(directory / f"data-{scenario}"), "--listen", "127.0.0.1:0"]
        command += ["--admin-listen", "none"]
        for key, value in SCENARIOS[scenario].items():
            command += ["--set", f"{key}={value}"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        lines = queue.Queue()
        threading.Thread(target=lambda out: lines.put(out.readline()), args=[self.process.stdout], daemon=True).start()
        try:
            line = lines.get(timeout=BROKER_SECONDS).decode()
        except queue.Empty:
            line = ""
        found = re.match(r"corelane ready .*\blisten=([^, ]+)", line)
        if not found:
            self.end()
            raise Failure(f"the broker did not start (exit {self.process.returncode}); see {self.log}")
        self.address = found.group(1)

    def ended(self):
        """The exit code of a broker that has ended by itself, else None."""
        return self.process.poll()

    def drain(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(BROKER_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failure(f"the broker runs on {BROKER_SECONDS} s after SIGTERM") from None
        if code != 0:
            raise Failure(f"the broker ended with {code} instead of 0; see {self.log}")

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Run:
    """One process of the suite's runner: a test, one of its sub-tests, or tests that it cannot tell apart."""

    def __init__(self, test, subtest):
        self.test, self.subtest = test, subtest
        self.title = title(test.name, subtest)
        # The runner chooses by the digits of a name, by what needs a broker, and by scenario.
        self.key = (test.name[:4], subtest, test.local, test.known_issue, test.scenario)

    def go(self, options, directory, address):
        """Gives the state, seconds and a line about each test that ran, by name."""
        suite = options.suite
        stem = directory / self.title.replace("/", "-")
        report, log = stem.with_suffix(".json"), stem.with_suffix(".log")
        configuration = stem.with_suffix(".conf")
        lines = [f"test.timeout.multiplier={TIMEOUT_MULTIPLIER}", *([f"bootstrap.servers={address}"] if address else [])]
        configuration.write_text("\n".join(lines) + "\n")
        # The suite takes CI for a slow machine and leaves tests out there; here it is to do the same everywhere.
        environment = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("TEST")}
        environment |= {
            "TESTS": self.test.name[:4],
            "TEST_KAFKA_VERSION": KAFKA_VERSION,
            "TEST_REPORT": str(report),
            "RDKAFKA_TEST_CONF": str(configuration),
            "LD_LIBRARY_PATH": f"{suite / 'src'}:{suite / 'src-cpp'}",
        }
        if self.subtest:
            environment["SUBTESTS"] = f"{self.subtest}:"
        if options.debug:
            environment["TEST_DEBUG"] = options.debug
        command = [str(suite / "tests" / "test-runner"), "-p1", "-s", self.test.scenario]
        command.append("-l" if self.test.local else "-L")
        for wanted, flag in ((self.test.known_issue, "-k"), (options.ci, "-Q"), (options.idempotent, "-P")):
            command += [flag] if wanted else []
        with open(log, "wb") as output:
            process = subprocess.Popen(command, cwd=suite / "tests", env=environment, stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=subprocess.STDOUT)
            try:
                code = process.wait(TEST_SECONDS)
            except subprocess.TimeoutExpired:
                code = f"no end within {TEST_SECONDS} s"
            finally:
                process.kill()
                process.wait()
        return self.outcomes(code, report, log.read_text(errors="replace"))

    def outcomes(self, code, report, output):
        output = re.sub(r"\x1b\[[0-9;]*m", "", output)
        try:
            states = {name: entry for name, entry in json.loads(report.read_text())["tests"].items() if name != "<MAIN>"}
        except (OSError, ValueError):
            return {self.test.name: ("failed", 0.0, f"no report; exit {code}; {last_failure(output)}")}
        found = {}
        for name, entry in states.items():
            if not name.startswith(self.test.name[:4]):
                continue
            state, about = entry["state"], ""
            if state == "PASSED" and self.subtest and not re.search(rf"\[ {self.subtest}:.*: PASS \(", output):
                skip = re.search(rf"\[ {self.subtest}:.*: SKIP: (.*) \]", output)
                state, about = ("SKIPPED", skip.group(1)) if skip else ("FAILED", "no such sub-test began")
            elif state == "PASSED" and code != 0:
                state, about = "FAILED", f"passed, but the runner ended with {code}; {last_failure(output)}"
            elif state == "SKIPPED":
                skip = re.search(rf"^\[{name}\b.*SKIPPING TEST: (.*)", output, re.M)
                about = skip.group(1) if skip else ""
            elif state != "PASSED":
                about = last_failure(output)
            found[name] = ({"PASSED": "passed", "SKIPPED": "skipped"}.get(state, "failed"), float(entry["duration"]), about)
        return found


def last_failure(output):
    """What the suite says about the first thing that failed, on one line."""
    failure = re.search(r'^### Test "[^"]*" failed at ([\w.-]+:\d+):\S* at .*###\n(.*)', output, re.M)
    if failure:
        return f"{failure.group(1)}: {failure.group(2)}"
    lines = output.strip().splitlines()
    return lines[-1] if lines else "no output"


class Suite:
    """The runs over the brokers, and the table of what came of them."""

    def __init__(self, options, directory):
        self.options, self.directory = options, directory
        self.brokers, self.failed, self.could_run, self.passed = {}, [], [], 0

    def broker(self, scenario):
        held = self.brokers.get(scenario)
        if held is None or held.ended() is not None:
            held = self.brokers[scenario] = Broker(self.options.broker, self.directory, scenario)
        return held

    def take(self, run, rows):
        broker = None if run.test.local else self.broker(run.test.scenario)
        address = broker and broker.address
        began = time.monotonic()
        outcomes = run.go(self.options, self.directory, address)
        if broker and broker.ended() is not None:
            about = f"the broker ended with {broker.ended()}; see {broker.log}"
            outcomes = {row.name: ("failed", time.monotonic() - began, about) for row in rows}
        for row in rows:
            name = title(row.name, row.subtest)
            state, seconds, about = outcomes.get(row.name, ("failed", 0.0, "it did not run"))
            if state == "passed" and row.verdict == "skip":
                self.could_run.append(name)
                about = f"listed as skipped: {row.detail}, {row.why}"
            elif state == "passed":
                self.passed += 1
            elif row.verdict != "skip":
                self.failed.append(name)
                state, about = "FAILED", f"it skipped itself: {about}" if state == "skipped" else about
            print(f"{name:<60} {state:<8} {seconds:>7.1f} s  {about}".rstrip(), flush=True)

    def drain(self):
        for broker in self.brokers.values():
            if broker.ended() is None:
                broker.drain()

    def end(self):
        for broker in self.brokers.values():
            broker.end()


def chosen(rows, options):
    """The rows of the verdict that is asked for; of those the named ones, or with --ci the ones marked so."""
    verdict = "skip" if options.try_skipped else "local" if options.local else "run"
    for row in rows:
        named = not options.tests or any(wanted in title(row.name, row.subtest) for wanted in options.tests)
        if row.verdict == verdict and named and (row.detail == "ci" or not options.ci):
            yield row


def self_test():
    """The script's own parts, on a suite that is made up."""
    tests = tests_of("""
struct test tests[] = {
    {.name = "<MAIN>", .flags = TEST_F_LOCAL},
    _TEST(0001_plain, 0),
    _TEST(0002_local, TEST_F_LOCAL | TEST_F_KNOWN_ISSUE_OSX, _THRES(.ucpu = 1.0)),
    _TEST(0003_known,
          TEST_F_KNOWN_ISSUE,
          .scenario = "noautocreate,ak23"),
    {NULL}};
""")
    assert [*tests.values()] == [
        Test("0001_plain", False, False, "default"),
        Test("0002_local", True, False, "default"),
        Test("0003_known", False, True, "noautocreate"),
    ], tests
    subtests = subtests_of("""
static void
do_one(int a,
       int b) {
        SUB_TEST_QUICK("%d", a);
        SUB_TEST_PASS();
}
static rd_kafka_t *do_other(void) {
        SUB_TEST();
}
static void forward(void);
""")
    assert subtests == ["do_one", "do_other"], subtests

    for wrong in ("0001_plain\trun\tci", "0001_plain\trun\tgroups\t-", "0001_plain\tskip\tgroups\t-", "0001_plain\tmaybe\t-\t-"):
        try:
            rows_of(wrong)
        except Failure:
            continue
        raise AssertionError(f"{wrong!r} was taken for a row")
    right = ["0001_plain/do_one\trun\tci\t-", "0001_plain/do_other\tskip\tgroups\twhy", "0002_local\tlocal\t-\t-"]
    right.append("0003_known\trun\tfull\t-")
    differing = {
        "": right,
        "0003_known is not in the list": right[:3],
        "0001_plain/do_other is not in the list": [right[0], *right[2:]],
        "0001_plain/do_one is in the list twice": [right[0], *right],
        "0001_plain/gone is in the list but not in the suite": [*right, "0001_plain/gone\trun\tci\t-"],
        "0004_gone is in the list but not in the suite": [*right, "0004_gone\trun\tci\t-"],
        "0002_local needs no broker but is listed as run": [*right[:2], "0002_local\trun\tci\t-", right[3]],
    }
    for difference, lines in differing.items():
        found = list(differences(tests, rows_of("# a comment\n" + "\n".join(lines)), lambda _: subtests))
        assert found == [difference] * bool(difference), (difference, found)

    with tempfile.TemporaryDirectory() as directory:
        self_test_outcomes(pathlib.Path(directory) / "report.json", Run(tests["0001_plain"], "do_one"))
        self_test_outcomes(pathlib.Path(directory) / "report.json", Run(tests["0001_plain"], ""))


def self_test_outcomes(report, run):
    """Only a test that says itself that it passed has passed."""
    begun, passed = "\x1b[35m[ do_one:7: 1 ]\n", "\x1b[32m[ do_one:7: 1: PASS (0.10s) ]\n"
    skipped = "[0001_plain  / 0.1s] WARN: SKIPPING TEST: no such thing\n"
    failed = '### Test "0001_plain (do_one:7: 1)" failed at 0001-plain.c:9:do_one() at Mon: ###\nit broke\n'
    cases = [
        ("PASSED", 0, begun + passed, "passed", ""),
        ("PASSED", -6, begun + passed + "assert", "failed", "the runner ended with -6"),
        ("SKIPPED", 0, skipped, "skipped", "no such thing"),
        ("FAILED", 1, begun + failed, "failed", "0001-plain.c:9: it broke"),
        ("RUNNING", "no end within 900 s", begun, "failed", "do_one"),
        (None, -11, begun, "failed", "no report; exit -11"),
    ]
    if run.subtest:
        cases.append(("PASSED", 0, "", "failed", "no such sub-test began"))
        cases.append(("PASSED", 0, begun + "[ do_one:7: 1: SKIP: not here ]\n", "skipped", "not here"))
    for state, code, output, expected, about in cases:
        report.unlink(missing_ok=True)
        if state:
            report.write_text(json.dumps({"tests": {run.test.name: {"state": state, "duration": 1.5}}}))
        found = run.outcomes(code, report, output)[run.test.name]
        assert found[0] == expected and about in found[2], (state, code, found)


def terminated(*_):
    raise Failure("ended by a signal")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--target", type=pathlib.Path)
    parser.add_argument("--suite", type=pathlib.Path)
    parser.add_argument("--list", type=pathlib.Path)
    parser.add_argument("--broker")
    parser.add_argument("--ci", action="store_true")
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--try-skipped", action="store_true")
    parser.add_argument("--idempotent", action="store_true")
    parser.add_argument("--debug", default="")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("tests", nargs="*")
    options = parser.parse_args()
    if options.self_test:
        self_test()
        print("librdkafka-tests: its own parts work")
        return 0
    signal.signal(signal.SIGTERM, terminated)
    tests_directory = options.suite / "tests"
    suite, directory = None, None
    try:
        tests = tests_of((tests_directory / "test.c").read_text())
        rows = rows_of(options.list.read_text())
        differing = sorted(differences(tests, rows, lambda name: subtests_of(file_of(tests_directory, name).read_text())))
        if differing:
            raise Failure("the list is not that of the suite:\n  " + "\n  ".join(differing))
        runs = {}
        for row in chosen(rows, options):
            run = Run(tests[row.name], row.subtest)
            runs.setdefault(run.key, (run, []))[1].append(row)
        if not runs:
            raise Failure("no test has such a name, or none of them is to run")
        directory = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=options.target.resolve()))
        suite = Suite(options, directory)
        for run, of_run in runs.values():
            suite.take(run, of_run)
        suite.drain()
    except Failure as failure:
        print(f"librdkafka-tests: {failure}", file=sys.stderr)
        return 1
    finally:
        if suite:
            suite.end()
    skipped = collections.Counter(row.detail for row in rows if row.verdict == "skip")
    if suite.could_run:
        print(f"could be run: {' '.join(suite.could_run)}")
    if suite.failed:
        print(f"failed: {' '.join(suite.failed)}\nlibrdkafka-tests: kept {directory}", file=sys.stderr)
    elif not options.keep:
        shutil.rmtree(directory)
    lacking = ", ".join(f"{count} {what}" for what, count in skipped.most_common())
    print(f"librdkafka-tests: {suite.passed} passed, {len(suite.failed)} failed; skipped by the list: {lacking}")
    return 1 if suite.failed else 0


if __name__ == "__main__":
    sys.exit(main())
