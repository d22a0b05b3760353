"""What the figures were measured on, and whether it was quiet."""

import os
import platform
import time

from lamina.linux import mountinfo
from lamina_bench.lab import PEERS, Lab
from lamina_bench.report import Machine
from lamina_bench.work import AbsentError, FailedError

LOAD_LIMIT = 0.25
"""Runnable tasks a core, averaged over a minute, above which figures are worth little."""
BUSY_LIMIT = 0.10
"""The same as a share of processor time, during a second."""


def facts(lab: Lab) -> Machine:
    """Describe machine and engines."""
    versions, absent = [("lamina", lab.lamina.version())], []
    for name in PEERS:
        try:
            versions.append((name, lab.engine(name).version()))
        except (AbsentError, FailedError) as error:
            absent.append((name, str(error)))
    return Machine(
        processor=_field("/proc/cpuinfo", "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=platform.release(),
        system=_field("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        filesystem=_filesystem(lab.dir),
        python=platform.python_version(),
        versions=tuple(versions),
        absent=tuple(absent),
    )


def load() -> float:
    """The load average of a minute."""
    return os.getloadavg()[0]


def busy_share(seconds: float = 1.0) -> float:
    """How much of all cores' time is used just now (proc(5), /proc/stat; idle and iowait are not used)."""
    before = _times()
    time.sleep(seconds)
    spent = [b - a for a, b in zip(before, _times(), strict=True)]
    return 1 - (spent[3] + spent[4]) / max(sum(spent), 1)


def is_quiet(load_before: float, busy_before: float) -> bool:
    """Whether measuring is worth while."""
    return load_before <= LOAD_LIMIT * len(os.sched_getaffinity(0)) and busy_before <= BUSY_LIMIT


def _times() -> list[int]:
    with open("/proc/stat", encoding="ascii") as file:
        return [int(each) for each in file.readline().split()[1:9]]


def _field(path: str, name: str, parting: str = ":") -> str:
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(parting)
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return ""


def _filesystem(path: str) -> str:
    mounts = [each for each in mountinfo.mounts() if f"{path}/".startswith(each.target.rstrip("/") + "/")]
    return max(mounts, key=lambda each: len(each.target)).fstype if mounts else "unknown"
