"""A container's processes, read from the host's /proc: `top`. No program of the container is run (CVE-2022-1227 elsewhere)."""

import os
import time
from collections.abc import Iterable

TITLES = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


def table(pids: Iterable[int]) -> list[tuple[str, ...]]:
    """Give one row for each of the processes, in the columns of `ps -ef`: see `TITLES`. Pids are the host's."""
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/stat", encoding="utf-8") as file:
        boot = next(int(line.split()[1]) for line in file if line.startswith("btime"))
    rows: list[tuple[str, ...]] = []
    for each in pids:
        try:
            with open(f"/proc/{each}/stat", "rb") as file:
                head, _, tail = file.read().rpartition(b")")
            with open(f"/proc/{each}/cmdline", "rb") as file:
                words = file.read().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
            uid = os.stat(f"/proc/{each}").st_uid
        except OSError:
            continue  # it has just ended
        fields = tail.split()
        started = boot + int(fields[19]) / ticks
        seconds = (int(fields[11]) + int(fields[12])) // ticks
        age = max(time.time() - started, 1)
        rows.append(
            (
                _user_name(uid),
                str(each),
                fields[1].decode(),
                str(int(min(seconds / age * 100, 99))),
                time.strftime("%H:%M" if age < 86400 else "%b%d", time.localtime(started)),
                _terminal_name(int(fields[4])),
                f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
                words or f"[{head.partition(b'(')[2].decode('utf-8', 'replace')}]",
            )
        )
    return rows


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal_name(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    return "?" if device == 0 else f"{major}:{minor}"
