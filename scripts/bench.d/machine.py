# The machine that a benchmark runs on: its record, its page cache, and the bytes that reach a device.
#
# A device's counter takes in what other processes write; the record says how busy the machine was. It changes nothing but
# the page cache, and says why where it may not.

import os
import pathlib
import platform
import re
import subprocess

SECTOR_BYTES = 512


def read(path, pattern):
    """The first group that `pattern` finds in a file; empty where there is none."""
    try:
        found = re.search(pattern, pathlib.Path(path).read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""


def record(folder):
    """What the machine is, for the results; `folder` lies on the disk that is written."""
    mount = subprocess.run(["findmnt", "--noheadings", "--target", folder, "--output", "SOURCE,FSTYPE,OPTIONS"],
                           capture_output=True, text=True, check=False).stdout.strip()
    return {
        "host": platform.node(),
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": read("/proc/cpuinfo", r"^model name\s*:\s*(.*)$"),
        "cores": len(os.sched_getaffinity(0)),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", r"(.*)") or "not told",
        "virtual": "yes" if re.search(r"\bhypervisor\b", read("/proc/cpuinfo", r"^flags\s*:(.*)$")) else "not told",
        "memory_bytes": int(read("/proc/meminfo", r"^MemTotal:\s+(\d+)") or 0) * 1024,
        "disk": mount,
        "load_average": os.getloadavg()[0],
    }


def drop_page_cache():
    """Writes what is dirty and drops what is clean. Gives `dropped`, or why it may not."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("1\n", encoding="ascii")
    except OSError as error:
        return f"not dropped: {error.strerror}"
    return "dropped"


def device_written(folder):
    """Bytes written so far to the device that holds `folder`, once all that is dirty is there; None where it is not told."""
    os.sync()
    device = os.stat(folder).st_dev
    try:
        fields = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(fields[6]) * SECTOR_BYTES
