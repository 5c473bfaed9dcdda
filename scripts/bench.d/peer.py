# What a system under test is to the benchmark, and the life of one: install, start, wait, stop, clean.
#
# A system is a folder of peers/ with a peer.py that defines `Peer`, a subclass of System below. It says only what
# differs: how to get it, its command, its address, and what makes a topic acknowledge in a durability class. Everything
# that must be the same for all of them (cores, a fresh directory, the wait for a first answer, the end) is here.

import importlib.util
import pathlib
import shutil
import subprocess
import time

import processes

PEERS = pathlib.Path(__file__).resolve().parent / "peers"
ANSWER_SECONDS = 60
STOP_SECONDS = 30


class System:
    """What a peer.py says. `version` and `settings` are for the record; install() may set them."""

    title, version = "?", "?"
    # By durability class, the topic's configuration that gives it: a list of key=value. A class that is missing is not offered.
    classes = {}

    def install(self, place, log):
        """Gets what is needed, into the folder `place`; fails with processes.Failure."""

    def command(self, place):
        """The broker's command for a fresh folder `place`, into which it writes what the broker reads."""
        raise NotImplementedError

    def address(self, place, log):
        """`host:port` where clients are served, None while it is not known yet."""
        raise NotImplementedError

    def settings(self):
        """For the record: how it is run, as text."""
        raise NotImplementedError


class Broker:
    """A running system on a fresh folder."""

    def __init__(self, system, place, log, cpus):
        self.system, self.place = system, place
        clean(place)
        place.mkdir(parents=True)
        log.unlink(missing_ok=True)
        self.process = processes.Process(system.command(place), log, cpus)
        self.pid = self.process.pid
        self.address = self.wait_for_answer()

    def wait_for_answer(self):
        """The address, once a client's question is answered there."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            self.process.check()
            address = self.system.address(self.place, self.process.log)
            if address and ask(address, "-L", "-m", "2") is not None:
                return address
            time.sleep(0.1)
        raise self.process.failure(f"{self.system.title} does not answer after {ANSWER_SECONDS} s")

    def stop(self):
        """Whether it ended when asked to."""
        return self.process.stop(STOP_SECONDS)


def ask(address, *question):
    """What kcat prints, None where it fails."""
    try:
        done = subprocess.run(["kcat", "-b", address, *question], capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


def clean(place):
    shutil.rmtree(place, ignore_errors=True)


def names():
    return sorted(path.parent.name for path in PEERS.glob("*/peer.py"))


def load(name):
    """The system of a folder of peers/."""
    spec = importlib.util.spec_from_file_location(f"peer_{name}", PEERS / name / "peer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Peer()
