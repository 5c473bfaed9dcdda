# What a run found: ratios first, figures second, as JSON and as a Markdown table.
#
# A pair counts when both of its blocks are whole. A figure that a rule voids in one block (a tail behind a saturated run,
# a p99.9 that the machine's own hiccups come near to) is not quoted for the row at all: what is left would be the lucky
# blocks. A figure is the median of the blocks' own; percentiles are never averaged. Ratios are Corelane's over the
# peer's.

import statistics

import block
import ratios

PAIRS_MIN = 7
# p99.9 is quoted where the hiccups' is below this part of it.
HICCUP_SHARE = 0.25
PERCENTILES = {"p50": "p50_us", "p99": "p99_us", "p99.9": "p999_us"}
# Name, title, whether more is better, and how a figure is written.
METRICS = (
    ("rate", "records/s", True, lambda value: f"{value:,.0f}"),
    ("cpu", "CPU s/GB", False, lambda value: f"{value:.2f}"),
    *((f"ack_{name}", f"ack {name} ms", False, lambda value: f"{value / 1000:.2f}") for name in PERCENTILES),
    *((f"e2e_{name}", f"e2e {name} ms", False, lambda value: f"{value / 1000:.2f}") for name in PERCENTILES),
    ("rss", "RSS MiB", False, lambda value: f"{value / 2**20:.0f}"),
    ("device", "device bytes per byte", False, lambda value: f"{value:.2f}"),
)
# Shown as figures only.
EXTRA = (
    ("bytes", "MB/s", True, lambda value: f"{value / 1e6:.1f}"),
    ("relay", "CPU ÷ null relay", False, lambda value: f"{value:.1f}"),
    ("echo", "echo requests/CPU s", True, lambda value: f"{value:,.0f}"),
    ("hiccup", "hiccup p99.9 ms", False, lambda value: f"{value / 1000:.2f}"),
)


def quotable(outcome, kind, name):
    """A percentile in µs, None where it was not measured or the rules void it."""
    latency = outcome["latency"].get(kind)
    if latency is None or (name != "p50" and outcome["state"] == "saturated"):
        return None
    value = latency[PERCENTILES[name]]
    if name == "p99.9":
        hiccup = outcome.get("hiccup")
        if hiccup is None or hiccup["p999_us"] >= value * HICCUP_SHARE:
            return None
    return value


def figures(record):
    """Every metric of a block by name, None where there is none to quote."""
    outcome, found = record["result"]["result"], record["floors"]
    paced = outcome["rate_target"] is not None
    # A schedule's rate is given, not found.
    values = {"rate": None if paced else outcome["rate_in"], "cpu": outcome["broker"]["cpu_s_per_gb"],
              "bytes": outcome["bytes_in"] / outcome["seconds"], "rss": outcome["broker"]["rss"],
              "hiccup": (outcome.get("hiccup") or {}).get("p999_us"), "relay": None, "echo": None, "device": None}
    for name in PERCENTILES:
        values[f"ack_{name}"] = quotable(outcome, "response" if paced else "service", name)
        values[f"e2e_{name}"] = quotable(outcome, "e2e", name) if paced else None
    if found:
        values["relay"] = values["cpu"] / found["null_relay"]["cpu_s_per_gb"]
        values["echo"] = found["echo"]["loads"][0]["requests_per_cpu_s"]
    # The device's count takes in the warm-up, so the payload does as well.
    payload = sum(step["bytes_in"] * step["seconds"] for step in record["result"]["series"])
    if record["device_written"] is not None and payload > 0:
        values["device"] = record["device_written"] / payload
    return values


def medians(blocks):
    """The median of each metric, None where a block has none to quote."""
    columns = {name: [figures(record)[name] for record in blocks] for name, *_ in METRICS + EXTRA}
    return {name: None if None in column else statistics.median(column) for name, column in columns.items()}


def notes(title, records):
    """What the reader of a row must know about a system's blocks."""
    outcomes = [record["result"]["result"] for record in records]
    found = []
    saturated = sum(outcome["state"] == "saturated" for outcome in outcomes)
    if saturated:
        found.append(f"{title}: SATURATED in {saturated} of {len(outcomes)} blocks, its tail is void")
    unsettled = sum(not record["warm_up"]["settled"] for record in records)
    if unsettled:
        found.append(f"{title}: not settled after the warm-up in {unsettled} of {len(records)} blocks")
    found += sorted({f"{title}: {reason}" for outcome in outcomes for reason in outcome["reasons"]})
    if any(not record["ended_when_asked"] for record in records):
        found.append(f"{title}: had to be killed at the end of a block")
    return found


def row(run, workload, grades):
    """One row: `grades` are the classes of (Corelane, the peer), which differ where the row crosses classes."""
    ours, theirs = run.systems
    titles = {name: run.bench.systems[name].title for name in run.systems}
    pairs = []
    for number in range(run.plan["pairs"]):
        halves = [block.Block(workload, grade, number, name) for grade, name in zip(grades, run.systems)]
        records = [run.folder.record(half) for half in halves]
        if all(records):
            pairs.append((halves, records))
    if not pairs:
        return None
    sides = {name: [records[at] for _, records in pairs] for at, name in enumerate(run.systems)}
    columns = {name: [figures(record) for record in records] for name, records in sides.items()}
    found = {}
    for name, _, more, _ in METRICS:
        together = list(zip(*([values[name] for values in columns[side]] for side in (ours, theirs))))
        found[name] = None if any(None in pair for pair in together) else ratios.of_pairs(together, more)
    crosses = len(set(grades)) > 1
    said = [f"CROSSES CLASSES: {titles[ours]} in {grades[0]}, {titles[theirs]} in {grades[1]}"] if crosses else []
    said += [note for name in run.systems for note in notes(titles[name], sides[name])]
    files = [tuple(str(run.folder.stem(half)) + ".loadgen.json" for half in halves) for halves, _ in pairs]
    return {"workload": workload.name, "class": "/".join(grades) if crosses else grades[0], "crosses": crosses,
            "shows": workload.shows, "rate_target": pairs[0][1][0]["rate_target"], "pairs": len(pairs), "ratios": found,
            "figures": {name: medians(sides[name]) for name in run.systems}, "notes": said, "files": files,
            "page_cache": sorted({record["page_cache"] for _, records in pairs for record in records})}


def rows(run):
    """The rows of the run's plan, and beside them Corelane in class C against the peer in B where nothing paces them."""
    planned = run.rows()
    found = [row(run, workload, (grade, grade)) for workload, grade in planned]
    for workload in dict.fromkeys(workload for workload, _ in planned):
        if workload.rate is None and {(workload, "B"), (workload, "C")} <= set(planned):
            found.append(row(run, workload, ("C", "B")))
    return [one for one in found if one]


def why_not_published(run, made_of, found):
    """Why the figures are not for publication; empty where they are."""
    reasons = ["a quick run"] if run.plan["quick"] else []
    least = min((one["pairs"] for one in found), default=0)
    if least < PAIRS_MIN:
        reasons.append(f"a row with fewer than {PAIRS_MIN} pairs: {least}")
    if run.unfinished or run.failures:
        reasons.append("not all blocks were measured")
    if not run.bench.tools["bench"]:
        reasons.append("measured without the floors")
    if made_of["git"].endswith("-dirty"):
        reasons.append("the sources had uncommitted changes")
    if any(cache != "dropped" for one in found for cache in one["page_cache"]):
        reasons.append("the page cache was not dropped")
    return reasons


def table(head, body):
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def ratio_text(found):
    if found is None:
        return "–"
    return f"{found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}] {found['wins']}/{found['pairs']}"


def markdown(summary):
    """The results for a README."""
    ours, theirs = summary["systems"]
    text = f"# {ours['title']} beside {theirs['title']} {theirs['version']}\n\n"
    if summary["not_for_publication"]:
        text += f"**NOT FOR PUBLICATION**: {'; '.join(summary['not_for_publication'])}.\n\n"
    made_of, machine = summary["made_of"], summary["machine"]
    text += (f"Commit {made_of['git']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
             f"{machine['kernel']}, {machine['disk']}. Cores: {made_of['cpus']}. Warm-up {made_of['warmup']} s, measured "
             f"{made_of['duration']} s, a fresh directory for each block; the page cache: "
             f"{', '.join(sorted({cache for one in summary['rows'] for cache in one['page_cache']})) or '-'}.\n\n")
    text += (f"## {ours['title']} over {theirs['title']}\n\nMedian of the ratios of pairs [95 % interval] wins/pairs. More is "
             "better in the first column, less in the others. ack is intended to acknowledged where there is a schedule, sent to "
             "acknowledged where there is none. –: not measured, or void by the rules.\n\n")
    head = ["workload", "class", "records/s due", *(title.replace(" ms", "").replace(" MiB", "") for _, title, *_ in METRICS)]
    body = []
    for one in summary["rows"]:
        due = "max" if one["rate_target"] is None else f"{one['rate_target']:,}"
        body.append([one["workload"], one["class"], due, *(ratio_text(one["ratios"][name]) for name, *_ in METRICS)])
    text += table(head, body) + "\n## Figures\n\nMedians of the blocks.\n\n"
    body = []
    for one in summary["rows"]:
        for side in summary["systems"]:
            values = one["figures"][side["name"]]
            body.append([one["workload"], one["class"], side["title"],
                         *("–" if values[name] is None else write(values[name]) for name, _, _, write in METRICS + EXTRA)])
    text += table(["workload", "class", "system", *(title for _, title, *_ in METRICS + EXTRA)], body)
    text += "\n## Notes\n\n"
    for one in summary["rows"]:
        text += "".join(f"- {one['workload']} {one['class']}: {note}\n" for note in [one["shows"], *one["notes"]])
    for failure in summary["failures"]:
        text += f"- FAILED {failure['step']}: {failure['why'].splitlines()[0]}\n"
    return text + (f"- {summary['unfinished']}\n" if summary["unfinished"] else "")
