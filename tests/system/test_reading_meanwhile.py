"""A container's files are read while it is started, ends, or is written to: what is read is right, or is said to be wrong.

On aufs a layer changes its form between mounted and at rest; a whiteout, seen in the wrong one, brings back what was deleted.
"""

import io
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import Lamina, wait_until

pytestmark = pytest.mark.vm  # before 6.7 an overlay is mounted in another way

_SCRIPT = (
    "rm /bin/vi /usr/bin/awk; rm -r /etc; mkdir /etc /many; for i in $(seq 2000); do echo $i > /many/$i; done; echo ready; "
    "exec sleep 1000"
)


@pytest.fixture
def running(lamina: Lamina) -> Iterator[str]:
    """A container that has deleted things of its image, and runs."""
    lamina.background("--name", "box", "busybox", "sh", "-c", _SCRIPT)
    wait_until(lambda: lamina("logs", "box") == "ready", "its files")
    yield "box"
    lamina("rm", "-f", "box")


def _begun(lamina: Lamina, *words: str) -> subprocess.Popen[bytes]:
    """Begin a command that writes an archive, and read nothing but its first block."""
    process = subprocess.Popen(lamina.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    process.first = process.stdout.read(512)  # type: ignore[attr-defined]
    return process


_TIME_TO_SPOIL_IT_S = 1.0
"""For what must wait, or must do no harm, to have done what it can."""


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, set[str], str]:
    """Read the rest; give the exit code, the names in the archive, and the errors."""
    out, errors = process.communicate(timeout=60)
    with tarfile.open(fileobj=io.BytesIO(process.first + out)) as archive:  # type: ignore[attr-defined]
        return process.returncode, {name.removeprefix("./").rstrip("/") for name in archive.getnames()}, errors.decode()


def _check(names: set[str]) -> None:
    odd = {name for name in names if ".wh." in name or name.endswith(("bin/vi", "bin/awk", "etc/passwd"))}
    assert not odd, "what was deleted, or what says so"
    assert {f"many/{number}" for number in range(1, 2001)} <= names


def test_a_container_that_ends_while_it_is_exported(lamina: Lamina, running: str) -> None:
    process = _begun(lamina, "export", running)
    killing = subprocess.Popen(lamina.command("kill", running), stdout=subprocess.DEVNULL)
    time.sleep(_TIME_TO_SPOIL_IT_S)
    code, names, errors = _ended(process)
    assert (code, errors) == (0, "")
    _check(names)
    assert killing.wait(60) == 0
    wait_until(lambda: lamina.status(running) == "exited", "its end")
    assert "D /bin/vi" in lamina("diff", running)


def test_a_container_at_rest_that_is_started_while_it_is_copied(lamina: Lamina, running: str) -> None:
    lamina("kill", running)
    lamina("wait", running)
    process = _begun(lamina, "cp", f"{running}:/", "-")
    lamina("start", running)  # which doesn't wait
    time.sleep(_TIME_TO_SPOIL_IT_S)
    code, names, errors = _ended(process)
    assert (code, errors) == (0, "")
    _check(names)


def test_a_container_at_rest_that_is_written_to_while_it_is_copied(lamina: Lamina, running: str, tmp_path: Path) -> None:
    lamina("kill", running)
    lamina("wait", running)
    process = _begun(lamina, "cp", f"{running}:/", "-")
    writing = subprocess.Popen(lamina.command("cp", "/etc/hostname", f"{running}:/many/hostname"), stdout=subprocess.DEVNULL)
    time.sleep(_TIME_TO_SPOIL_IT_S)
    code, names, errors = _ended(process)
    assert (code, errors) == (0, "")
    _check(names)
    assert writing.wait(60) == 0
    assert "A /many/hostname" in lamina("diff", running)


def test_who_reads_and_reads_is_not_waited_for_and_told(lamina: Lamina, running: str) -> None:
    lamina("kill", running)
    lamina("wait", running)
    process = _begun(lamina, "cp", f"{running}:/", "-")
    lamina("cp", "/etc/hostname", f"{running}:/many/hostname")
    assert "D /bin/vi" in lamina("diff", running)
    code, names, errors = _ended(process)
    if lamina.driver == "aufs":
        assert code == 1, errors
        assert "was written to, while it was read" in errors
        assert len(errors.splitlines()) == 1
    else:
        assert (code, errors) == (0, "")
        _check(names)


def test_who_reads_makes_nobody_wait_where_a_layer_has_one_form(lamina: Lamina, running: str) -> None:
    process = _begun(lamina, "export", running)
    with lamina.library() as engine:
        locks = Path(engine.context.run_dir, "locks")
    assert bool(list(locks.glob("reading-*"))) is (lamina.driver == "aufs")
    process.communicate(timeout=60)
    assert not list(locks.glob("reading-*"))
