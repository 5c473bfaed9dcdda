# The processes of a benchmark: started on their cores, bounded in time, ended by their process ids.
#
# Each leads a session of its own, so that an interrupt reaches them in this program's order and not all at once; the
# kernel ends one whose parent is gone (setpriv --pdeathsig), so that nothing outlives even a kill -9 of this program.
# What a process prints goes to its log, whose last lines are in the error when it fails. It knows nothing of brokers or
# loads.

import os
import shlex
import signal
import subprocess

# Lines of a log that an error quotes.
QUOTED_LINES = 8
# Seconds that a killed process may take to be gone; what waits longer hangs in the kernel.
GONE_SECONDS = 10

running = []


class Failure(Exception):
    """A step failed; the text says which, with its command and the last lines of its log."""


def last_lines(log):
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "".join(f"\n  | {line[:300]}" for line in lines[-QUOTED_LINES:])


class Process:
    """A process that has been started. `cpus` is a list as taskset takes it, None leaves it where the kernel puts it."""

    def __init__(self, command, log, cpus=None):
        self.command, self.log = [str(part) for part in command], log
        pinned = ["taskset", "--cpu-list", cpus] if cpus else []
        prefix = ["setpriv", "--pdeathsig", "KILL", *pinned]
        with open(log, "ab") as output:
            self.process = subprocess.Popen([*prefix, *self.command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            start_new_session=True)
        running.append(self)
        self.pid = self.process.pid

    def failure(self, what):
        return Failure(f"{what}\n  command: {shlex.join(self.command)}\n  log: {self.log}{last_lines(self.log)}")

    def check(self):
        """Fails where the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise self.failure(f"ended with {code}")

    def wait(self, seconds):
        """The exit code. Fails, with the process ended, after `seconds`."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop(1)
            raise self.failure(f"did not end within {seconds} s") from None
        self.stop(0)
        return code

    def stop(self, seconds):
        """Asks it to end and kills what is left after `seconds`. Gives whether it ended by itself in that time."""
        in_time = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                in_time = False
        try:
            # Its session may hold children of it: they are in the group that its id names.
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(GONE_SECONDS)
        if self in running:
            running.remove(self)
        return in_time


def run(command, log, seconds, cpus=None):
    """Runs a command to its end and gives its exit code."""
    return Process(command, log, cpus).wait(seconds)


def succeed(command, log, seconds, cpus=None):
    """Runs a command that must end with 0."""
    process = Process(command, log, cpus)
    code = process.wait(seconds)
    if code != 0:
        raise process.failure(f"ended with {code}")


def end_all():
    """Ends whatever is still running, at the end of the program or of a broken block."""
    for process in list(running):
        process.stop(1)
