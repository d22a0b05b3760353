"""Which cgroup a process is in, and how a freezer is spoken to, with files that stand for the kernel's."""

import os
from pathlib import Path

import pytest

from lamina.errors import StateError
from lamina.runtime import freezer
from lamina.runtime.freezer import Hierarchy, cgroup_named, find_hierarchy

V2 = Hierarchy(path="/sys/fs/cgroup", version=2)
V1 = Hierarchy(path="/sys/fs/cgroup/freezer", version=1)
HYBRID = "12:cpu,cpuacct:/a\n7:freezer:/frozen/here\n1:name=systemd:/s\n0::/user.slice/x.scope\n"


@pytest.mark.parametrize(
    ("text", "hierarchy", "path"),
    [
        ("0::/\n", V2, "/sys/fs/cgroup/"),
        ("0::/user.slice/x.scope\n", V2, "/sys/fs/cgroup/user.slice/x.scope"),
        (HYBRID, V2, "/sys/fs/cgroup/user.slice/x.scope"),
        (HYBRID, V1, "/sys/fs/cgroup/freezer/frozen/here"),
        ("7:cpu,freezer:/both\n", V1, "/sys/fs/cgroup/freezer/both"),
        ("0::/\n", V1, "/sys/fs/cgroup/freezer"),
        ("", V2, "/sys/fs/cgroup"),
        ("nonsense\n0::/ok\n", V2, "/sys/fs/cgroup/ok"),
        ("0::/a:b:c\n", V2, "/sys/fs/cgroup/a:b:c"),
        ("0::/a\x0cb\u2028c\n", V2, "/sys/fs/cgroup/a\x0cb\u2028c"),
    ],
)
def test_a_processs_cgroup_is_found_in_the_hierarchy_with_the_freezer(text: str, hierarchy: Hierarchy, path: str):
    assert cgroup_named(text, hierarchy) == path


def test_a_paused_containers_cgroup_has_its_id():
    assert V2.cgroup("abc") == "/sys/fs/cgroup/lamina-abc"


@pytest.mark.parametrize(
    ("version", "files", "frozen", "thawed"),
    [
        (2, ("cgroup.freeze", "cgroup.events"), ("1", "populated 1\nfrozen 1\n"), ("0", "populated 1\nfrozen 0\n")),
        (1, ("freezer.state", "freezer.state"), ("FROZEN", ""), ("THAWED", "")),
    ],
)
def test_each_version_has_its_own_words(
    tmp_path: Path, version: int, files: tuple[str, str], frozen: tuple[str, str], thawed: tuple[str, str]
):
    control, status = files
    hierarchy = Hierarchy(path=str(tmp_path), version=version)
    for wanted, (word, answer) in ((True, frozen), (False, thawed)):
        (tmp_path / status).write_text(answer)
        hierarchy.set_frozen(str(tmp_path), frozen=wanted)
        assert (tmp_path / control).read_text() == word


def test_what_does_not_freeze_in_time_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(freezer, "FREEZE_TIMEOUT_S", 0.02)
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(StateError, match="could not be frozen") as caught:
        Hierarchy(path=str(tmp_path), version=2).set_frozen(str(tmp_path), frozen=True)
    assert "try again" in caught.value.hint


def test_this_machines_freezer_is_a_directory_or_there_is_none():
    try:
        found = find_hierarchy()
    except StateError as error:
        assert "cgroup2" in error.hint
    else:
        assert os.path.isdir(found.path)
        assert found.version in {1, 2}
