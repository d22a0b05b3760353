"""`top` with options: the host's ps(1), its rows cut down to a container's processes.

The container's own ps is never run: it could be anything, and would run with the rights of whoever looks (CVE-2022-1227 elsewhere).
"""

import os
import re
import subprocess
from collections.abc import Collection, Sequence

from lamina.errors import LaminaError, UsageError

TIMEOUT_S = 10
SEARCHED = "/usr/bin:/bin"


def host_ps(options: Sequence[str], pids: Collection[int]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Give the titles and the rows that ps prints for these pids. Raises `UsageError` if the options leave the pid out."""
    for option in options:
        if re.search(r"=\s*PID\b", option):
            raise UsageError(f"'{option}' gives another column the title PID", hint="rows are told apart by that column")
    try:
        done = subprocess.run(  # a fixed program, no shell; the options are the caller's own words
            ["ps", *options], capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
            env={"PATH": SEARCHED, "LC_ALL": "C.UTF-8", **({"TZ": os.environ["TZ"]} if "TZ" in os.environ else {})},
        )  # fmt: skip
    except FileNotFoundError:
        raise LaminaError("the host has no ps", hint="leave the options out, or install procps") from None
    except subprocess.TimeoutExpired:
        raise LaminaError(f"ps gave no answer within {TIMEOUT_S} seconds") from None
    if done.returncode:
        raise UsageError(f"ps failed: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    lines = done.stdout.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise UsageError("the output of ps has no column PID", hint="ask for it too, as in -o pid,comm")
    column, last = titles.index("PID"), len(titles) - 1
    rows = []
    for line in lines[1:]:
        cells = line.split(None, last)  # only the last column may have blanks in it
        if len(cells) > column and cells[column].isdigit() and int(cells[column]) in pids:
            rows.append(tuple(cells))
    return tuple(titles), rows
