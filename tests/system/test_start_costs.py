"""What quick commands ask of the kernel, counted: calls, files opened, processes, programs, waits for the disk. Nothing is timed.

The budgets are a sixth above what was counted when they were set. To exceed one is a decision, not an accident.
"""

import re
from collections import Counter
from pathlib import Path

import pytest
from cases import FOREVER, Lamina
from straces import strace

from lamina.linux import mountinfo
from lamina.linux.mount import kernel_version


@pytest.fixture
def driver() -> str:
    """The default driver."""
    return "overlay"


OPENS = {"open", "openat", "openat2"}
FORKED = r"^\d+ +(?:<\.\.\. )?(?:clone3?|v?fork)\b.*= \d+$"
"""One that has a child: the kernel begins a call anew that a signal has come before (ERESTARTNOINTR)."""
UNCOUNTED = {"clock_gettime", "gettimeofday"}
"""No calls where the clock can be read without one (vdso(7)); in an emulated machine it can't."""
WAITS = {"fsync", "fdatasync", "syncfs", "sync", "sync_file_range", "msync"}

BUDGETS = {  # words: calls, files opened, processes forked, programs executed
    ("version",): (1_050, 110, 0, 1),
    ("ps",): (1_560, 175, 0, 1),
    ("images",): (1_560, 175, 0, 1),
    ("inspect", "there"): (1_930, 232, 0, 1),
    ("exec", "there", "true"): (2_080, 245, 2, 2),
    ("run", "--rm", "--network", "none", "busybox", "true"): (3_370, 385, 2, 2),
}
"""A container costs two processes, its monitor and its first one, and one program, its command."""


def test_a_quick_command_asks_little_of_the_kernel_and_waits_for_no_disk(lamina: Lamina, tmp_path: Path):
    lamina.background("--name", "there", "--network", "none", "busybox", *FOREVER)
    over = {}
    for words, budget in BUDGETS.items():
        lamina(*words)  # what is remembered, such as the installed plugins, is
        output = tmp_path / "strace"
        assert strace(lamina.command(*words), output, everything=True).returncode == 0
        lines = output.read_text(encoding="utf-8", errors="replace")
        names = [name for name in re.findall(r"^\d+ +([a-z0-9_]+)\(", lines, re.MULTILINE) if name not in UNCOUNTED]
        counted = (
            len(names),
            sum(name in OPENS for name in names),
            len(re.findall(FORKED, lines, re.MULTILINE)),
            sum(name == "execve" for name in names),
        )
        assert not WAITS & set(names), words
        # An older kernel has an overlay mounted by a thread (`store/views.py`), which counts as a process does.
        more = int(words[0] == "run" and kernel_version() < (6, 7))
        assert counted[2:] == (budget[2] + more, budget[3]), words
        if any(found > most for found, most in zip(counted[:2], budget[:2], strict=True)):
            over[words[0]] = (counted, budget, Counter(names).most_common(12))
    assert not over


def test_what_is_removed_with_its_container_is_not_synced_at_its_end(lamina: Lamina):
    """Overlayfs syncs the whole file system below when it is unmounted, unless it is volatile."""
    lamina.background("--name", "goes", "--rm", "--network", "none", "busybox", *FOREVER)
    lamina.background("--name", "stays", "--network", "none", "busybox", *FOREVER)
    options = {each.target: each.super_options for each in mountinfo.mounts()}
    assert "volatile" in options[str(lamina.merged("goes"))]  # newer kernels show it as `fsync=volatile`
    assert "volatile" not in options[str(lamina.merged("stays"))]
    lamina("exec", "goes", "touch", "/new")
    assert lamina("diff", "goes") == "A /new"
    lamina("commit", "goes", "changed")
    lamina("stop", "-t", "0", "goes", "stays")
    assert lamina("ps", "-aq", "--filter", "name=goes") == ""
    lamina("start", "stays")
    assert lamina("run", "--rm", "--network", "none", "changed", "ls", "/new") == "/new"
