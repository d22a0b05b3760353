"""Writes to /proc go to /proc: a file that something was mounted over, or a /proc that is none, is refused (CVE-2025-52881)."""

import errno
import os
from pathlib import Path

import pytest

from lamina.linux import mount
from lamina.linux.procfs import open_in_proc, write_in_proc


@pytest.fixture(autouse=True)
def mounts(own_mounts: None) -> None:
    """What is mounted over /proc here is seen by no other test."""


def test_a_file_of_ones_own_process_is_written():
    write_in_proc("self/oom_score_adj", "1")
    assert Path("/proc/self/oom_score_adj").read_text(encoding="ascii").strip() == "1"
    write_in_proc("self/oom_score_adj", "0")


def test_a_file_of_proc_mounted_over_another_is_refused_as_is_any_other_file(tmp_path: Path):
    other = tmp_path / "other"
    other.write_text("untouched", encoding="ascii")
    for source in ("/proc/self/timerslack_ns", str(other)):
        mount.mount(source, "/proc/self/oom_score_adj", None, mount.MS_BIND)
        with pytest.raises(OSError, match="openat2") as caught:
            write_in_proc("self/oom_score_adj", "1")
        assert caught.value.errno == errno.EXDEV
        mount.unmount("/proc/self/oom_score_adj")
    assert other.read_text(encoding="ascii") == "untouched"


def test_a_proc_that_is_none_is_refused(tmp_path: Path):
    mount.mount("tmpfs", "/proc", "tmpfs")
    with pytest.raises(OSError, match="root of a procfs"):
        open_in_proc("sys/kernel/hostname", os.O_RDONLY)
    mount.unmount("/proc")
    mount.mount("/proc/self", "/proc", None, mount.MS_BIND)
    with pytest.raises(OSError, match="root of a procfs"):
        open_in_proc("oom_score_adj", os.O_RDONLY)
    mount.unmount("/proc")


def test_links_in_proc_are_not_followed():
    with pytest.raises(OSError, match="openat2") as caught:
        open_in_proc("self/cwd", os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP
