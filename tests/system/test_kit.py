"""The first-party drivers pass the conformance kit, by its pytest class and by the command; and every skip is explained here."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cases import PROGRAM

from lamina.testing import StorageDriverSuite
from lamina.testing.check import GROUPS, Skipped, all_checks
from lamina.testing.disks import disk_with_quotas

NO_QUOTAS = dict.fromkeys(
    (
        "a-quota-bounds-what-a-container-writes",
        "a-quota-counts-neither-the-image-nor-other-containers",
        "a-quota-holds-for-what-is-copied-up-and-made-in-directories-of-below",
        "a-quota-ends-with-its-layer",
    ),
    "the kernel has no project quotas; test_quota.py needs one that has",
)
NO_TMPFILE = {"a-file-without-a-name-can-get-one": "this kernel's overlayfs has no O_TMPFILE (Linux 6.1 hasn't)"}
EXPLAINED: Mapping[str, Mapping[str, str]] = {
    "vfs": {
        "the-claimed-whiteout-format-is-what-lies-on-disk[deleted file]": "a full tree has no whiteouts",
        "the-claimed-whiteout-format-is-what-lies-on-disk[deleted directory]": "a full tree has no whiteouts",
        "the-claimed-whiteout-format-is-what-lies-on-disk[replaced directory]": "a full tree has no whiteouts",
    },
    "overlay": {
        "kept-on-copy-up[hard links]": "copying up one name leaves the others below (overlayfs.rst; index=off)",
        "kept-on-copy-up[hard-linked symlinks]": "copying up one name leaves the others below (overlayfs.rst; index=off)",
        "a-write-through-one-name-is-seen-through-all": "copying up one name leaves the others below (overlayfs.rst; index=off)",
        "a-mapping-made-before-the-first-change-sees-it": "a shared mapping stays one of the lower file (overlayfs.rst)",
        "a-directorys-link-count-tells-its-subdirectories": "overlayfs says 1 for a merged directory",
        "an-xattr-that-can-not-be-kept-is-an-error": "a union can't lie on a file system without xattrs, and says so",
        "renaming-a-directory-of-below": "EXDEV: redirect_dir is off, so that a layer's directory alone says what it is",
    },
    "aufs": {
        "kept-on-copy-up[hard links]": "mounted by overlayfs, as there",
        "kept-on-copy-up[hard-linked symlinks]": "mounted by overlayfs, as there",
        "a-write-through-one-name-is-seen-through-all": "mounted by overlayfs, as there",
        "a-mapping-made-before-the-first-change-sees-it": "mounted by overlayfs, as there",
        "a-directorys-link-count-tells-its-subdirectories": "mounted by overlayfs, as there",
        "an-xattr-that-can-not-be-kept-is-an-error": "a union can't lie on a file system without xattrs, and says so",
        "renaming-a-directory-of-below": "EXDEV, as on aufs itself",
        "device-and-inode-stay-when-first-changed[file]": "at rest a layer has no note of where a file came from",
        "device-and-inode-stay-when-first-changed[symlink]": "at rest a layer has no note of where a file came from",
        "device-and-inode-stay-when-first-changed[directory]": "it does, but the claim is for files and symlinks too",
        "a-view-stays-right-when-the-layer-comes-to-rest": "it is turned into aufs's format then, and the view says so",
        "a-chain-of-layers-shows-what-each-brought[128]": "aufs unites 127 branches",
        "a-chain-of-layers-shows-what-each-brought[500]": "aufs unites 127 branches",
    },
}  # fmt: skip
"""What isn't a pass, for each driver, and why that is right."""


@cache
def explained(driver: str) -> Mapping[str, str]:
    """Why what isn't a pass on this kernel isn't."""
    found = dict(EXPLAINED[driver])
    with tempfile.TemporaryDirectory() as place:
        try:
            with disk_with_quotas(f"{place}/disk", "xfs"):
                pass
        except Skipped:
            found |= NO_QUOTAS
        if driver != "vfs" and not overlayfs_knows_files_without_a_name(place):
            found |= NO_TMPFILE
    return found


def overlayfs_knows_files_without_a_name(place: str) -> bool:
    program = "import os, sys; os.open('merged', os.O_TMPFILE | os.O_RDWR)"
    script = "mkdir lower upper work merged && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{script} && exec "$0" -c "{program}"', sys.executable],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or "Operation not supported" in done.stderr, done.stderr
    return done.returncode == 0


class TestVfs(StorageDriverSuite):
    plugin = "lamina_vfs:plugin"
    explained = property(lambda _self: explained("vfs"))


class TestOverlay(StorageDriverSuite):
    plugin = "lamina_overlay:plugin"
    explained = property(lambda _self: explained("overlay"))


class TestAufs(StorageDriverSuite):
    plugin = "lamina_aufs:plugin"
    explained = property(lambda _self: explained("aufs"))


def test_there_are_more_than_150_checks_in_every_group_some() -> None:
    checks = all_checks()
    assert len(checks) > 150
    assert {check.group for check in checks} == set(GROUPS)
    assert len({check.name for check in checks}) == len(checks)


def test_each_check_says_why_it_matters() -> None:
    assert [check.name for check in all_checks() if not check.about.endswith((".", "?"))] == []


@pytest.mark.timeout(300)
def test_the_command_says_the_same_as_the_class(tmp_path: Path) -> None:
    name = "overlay"
    command = [PROGRAM, "driver", "test", name, "--dir", str(tmp_path), "--format", "json", "--junit", str(tmp_path / "junit.xml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    document = json.loads(done.stdout)
    failed = {check["Name"]: check["Reason"] for check in document["Checks"] if check["Verdict"] == "fail"}
    assert failed == {}
    assert (done.returncode, document["Passed"], document["Driver"]) == (0, True, name)
    assert len(document["Checks"]) == len(all_checks())
    assert {check["Name"] for check in document["Checks"] if check["Verdict"] != "pass"} == set(explained(name))
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
    assert len(cases) == len(document["Checks"])
    assert sum(case.find("skipped") is not None for case in cases) == len(explained(name))
    assert os.listdir(tmp_path) == ["junit.xml"]


def run(*words: str, here: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that finds the modules of `here` and of the tests."""
    environment = {**os.environ, "PYTHONPATH": f"{here}:{os.path.dirname(__file__)}"}
    return subprocess.run(words, cwd=here, capture_output=True, text=True, check=False, env=environment)


def test_an_author_uses_the_kit_as_the_page_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/plugins/testing.md").read_text(encoding="utf-8")
    suite, new_check = (block.partition("```")[0] for block in page.split("```python\n")[1:])
    (tmp_path / "lamina_mine.py").write_text("from broken_drivers import ForgetsAKey\nplugin = ForgetsAKey()\n")
    (tmp_path / "test_mine.py").write_text(suite)
    chosen = "keys and exactly or probe or quota"
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, "test_mine.py", here=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED test_mine.py::TestMine::test_driver[life cycle: the-keys-are-exactly-the-layers]" in done.stdout
    assert "storage driver broken" in done.stdout
    assert " passed" in done.stdout
    (tmp_path / "mine_checks.py").write_text(new_check)
    program = (
        "import mine_checks; from lamina.testing.check import _checks; from lamina.testing.run import run_check, installed; "
        "print(run_check(_checks[-1], installed('vfs'), '.').verdict.value)"
    )
    done = run(sys.executable, "-c", program, here=tmp_path)
    assert done.stdout == "pass\n", done.stdout + done.stderr


def test_the_command_fails_for_a_broken_driver_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from broken_drivers import ForgetsAKey\nplugin = ForgetsAKey()\n")
    done = run(
        PROGRAM, "driver", "test", "mine:plugin", "--dir", ".", "--check", "the-keys-*", "--check", "the-probe-*", here=tmp_path
    )
    assert done.returncode == 1, done.stderr
    assert "the-keys-are-exactly-the-layers" in done.stdout
    assert "why: Empty, filled, sealed, mounted: each once" in done.stdout


def test_what_is_asked_for_wrongly_is_one_line(tmp_path: Path) -> None:
    for words, wanted in (
        (["nosuch"], "storage driver 'nosuch' is not installed"),
        (["vfs", "--group", "nosuch"], "there is no group of checks 'nosuch'"),
        (["vfs", "--check", "nosuch"], "no check is called so"),
        (["no.such:plugin"], "can't be loaded"),
    ):
        done = run(PROGRAM, "driver", "test", *words, here=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert wanted in done.stderr
        assert len(done.stderr.splitlines()) == 1
