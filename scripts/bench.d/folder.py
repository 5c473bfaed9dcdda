# The folder of a run's results: where everything lies, and which blocks are whole.
#
# A block's record is written last and at once (a new name, then a rename): a block that was interrupted has none and is
# run again. What a run was made of (commit, binaries, options) is in run.json; another program must not go on with it.

import json
import os

import processes


def write(path, value):
    """Writes JSON so that the file is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def read_whole(path):
    """The JSON of a file, None where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class Folder:
    """The folder of one run."""

    def __init__(self, path):
        self.path = path

    def stem(self, block):
        """The path that the files of a block begin with."""
        return self.path / "blocks" / block.row / f"{block.round}-{block.system}"

    def record(self, block):
        """The record of a block with its result as `result`, None unless both are whole and are this block's."""
        stem = self.stem(block)
        record = read_whole(stem.with_name(stem.name + ".json"))
        result = read_whole(stem.with_name(stem.name + ".loadgen.json"))
        if not isinstance(record, dict) or record.get("block") != block.key:
            return None
        if not isinstance(result, dict) or "state" not in result.get("result", {}) or not result.get("series"):
            return None
        return {**record, "result": result}

    def write_record(self, block, record):
        stem = self.stem(block)
        write(stem.with_name(stem.name + ".json"), {"block": block.key, **record})

    def knee(self, grade, system):
        return self.path / "knees" / f"{grade}-{system}.json"

    def run(self):
        """What the run was made of; fails where the folder holds none."""
        found = read_whole(self.path / "run.json")
        if found is None:
            raise processes.Failure(f"{self.path} holds no run: run.json is missing or broken")
        return found

    def same_run(self, now):
        """Fails unless the run was made of the same: `now` is what would go on with it."""
        before = self.run()["made_of"]
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if changed:
            what = "; ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed)
            raise processes.Failure(f"{self.path} is another run's: {what}")
