# Corelane as a system under test: the release build of this repository.
#
# Class C is what it does by default; class B is write caching, which leaves the flush for later. One shard runs on each
# core that the broker is pinned to. Retention is looked at every second, so that a run of seconds passes it.

import hashlib
import re

import peer


class Peer(peer.System):
    title = "Corelane"
    classes = {"B": ["write.caching=true"], "C": ["write.caching=false"]}
    flags = ["--listen", "127.0.0.1:0", "--admin-listen", "none", "--set", "log.retention.check.interval.ms=1000"]
    # The binary; scripts/bench sets it.
    binary = None

    def install(self, place, log):
        self.version = hashlib.sha256(self.binary.read_bytes()).hexdigest()[:12]

    def command(self, place):
        return [self.binary, "serve", "--data-dir", place / "data", *self.flags]

    def address(self, place, log):
        found = re.search(r"^corelane ready .*\blisten=([^, ]+)", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        return found and found[1]

    def settings(self):
        return f"corelane serve --data-dir … {' '.join(self.flags)}\n"
