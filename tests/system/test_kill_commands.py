"""Kill each command that changes the store before each call by which it changes anything: the old state or the new, nothing third.

The commands are `changing.py`'s script, held against the command line's own tables, so that a new command is killed too or says why
not. A command runs in a fork of this process under ptrace(2) (`lamina/linux/ptrace.py`) and is killed before its n-th changing
call; what it has started, a monitor say, lives on and ends by itself. `test_show_9_kill.py` kills those too.

The short form kills at a call of each command, chosen by `LAMINA_SEED`; the long one (`make crash`) at every one, or at
`LAMINA_POINTS` of each command.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from random import Random
from typing import Any

import leaks
import pytest
from cases import DRIVERS, each_driver
from changing import ELSEWHERE, READ_ONLY, Change, command_line, in_a_fork, modules, redirect, running_script, script
from states import contradictions, database_rows, neither, state_by_name

from lamina.engine import Engine
from lamina.linux import process, ptrace

LONG = os.environ.get("LAMINA_KILLS") == "all"
SEED = os.environ.get("LAMINA_SEED", "1")
POINTS = int(os.environ.get("LAMINA_POINTS", "1000000" if LONG else "1"))
"""Calls of each command before which it is killed, on each driver in the long form, on one of them in the short."""


def test_every_command_is_killed_or_says_why_not(tmp_path: Path) -> None:
    killed = {each.module for each in [*script(tmp_path, "vfs", "overlay"), *(change for _, change, _ in running_script())]}
    assert not killed & (READ_ONLY | ELSEWHERE.keys())
    assert killed | READ_ONLY | ELSEWHERE.keys() == modules(), "tests/system/changing.py must know every command"


@each_driver
@pytest.mark.timeout(36000 if LONG else 400)
def test_a_command_killed_at_any_call_has_done_all_or_nothing(driver: str, tmp_path: Path, own_mounts: None) -> None:
    (tmp_path / "given").mkdir()
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    root, before, after = tmp_path / "root", tmp_path / "before", tmp_path / "after"
    random = Random(f"{SEED} {driver}")
    failures: list[str] = []
    kills = 0
    for number, change in enumerate(script(tmp_path / "given", driver, DRIVERS[DRIVERS.index(driver) - 1])):
        if not LONG and number % len(DRIVERS) != DRIVERS.index(driver):  # in the short form each has one driver
            assert in_a_fork(lambda change=change: command_line(root, driver, change.words), tmp_path / "output") == change.code
            continue
        old = look(root, driver, tmp_path)
        copy(root, before)
        calls = carry_out(root, driver, change, tmp_path)
        new = look(root, driver, tmp_path)
        copy(root, after)
        points = sorted(random.sample(range(len(calls)), min(POINTS, len(calls))))
        for point in points:
            copy(before, root)
            watched = ptrace.watch(lambda change=change: said(root, driver, change, tmp_path), kill_at=point)
            wait_until_alone()
            kills += watched.killed
            when = f"`{change.name}` killed before call {point + 1} of {len(calls)}, {calls[point]}"
            failures += [f"{when}: {each}" for each in find_wrong(root, driver, change, tmp_path, old=old, new=new)]
        copy(after, root)
    print(f"seed {SEED}: {kills} kills on {driver}")
    assert not failures, f"{kills} kills:\n" + "\n".join(failures)
    assert kills > 10


@pytest.mark.timeout(36000 if LONG else 400)
def test_a_command_for_a_running_container_may_be_killed_at_any_call(
    tmp_path: Path, prepared_roots: dict[str, Path], own_mounts: None
) -> None:
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    root, driver, random = tmp_path / "root", "overlay", Random(SEED)
    copy(prepared_roots[driver], root)
    failures: list[str] = []
    kills = 0
    for before, change, after in running_script():
        bring(root, driver, before, tmp_path)
        calls = ptrace.watch(lambda change=change: said(root, driver, change, tmp_path)).calls
        for point in sorted(random.sample(range(len(calls)), min(POINTS, len(calls)))):
            bring(root, driver, before, tmp_path)
            kills += ptrace.watch(lambda change=change: said(root, driver, change, tmp_path), kill_at=point).killed
            deadline = time.monotonic() + 10
            while wrong := unsettled(root, driver, after):  # what it has started may be on its way to its end
                leaks.reap(set())
                if time.monotonic() > deadline:
                    failures += [f"`{change.name}` killed before call {point + 1} of {len(calls)}, {calls[point]}: {wrong}"]
                    break
                time.sleep(0.02)
    bring(root, driver, "missing", tmp_path)
    wait_until_alone()
    assert not unsettled(root, driver, frozenset({"missing"}))
    assert not failures, f"{kills} kills:\n" + "\n".join(failures)
    assert kills >= len(running_script())


def bring(root: Path, driver: str, status: str, tmp_path: Path) -> None:
    """Bring `alive` into a state."""
    with Engine(root_dir=str(root), storage_driver=driver) as engine:
        is_now = status_of(engine)
    if is_now == status:
        return
    steps = ["rm -f alive"] if is_now != "missing" else []
    steps += [] if status == "missing" else ["run -d --name alive base sleep 1000"]
    steps += {"paused": ["pause alive"], "exited": ["kill alive", "wait alive"]}.get(status, [])
    for step in steps:
        code = in_a_fork(lambda step=step: command_line(root, driver, tuple(step.split())), tmp_path / "output")
        assert code == 0, f"{step}: {(tmp_path / 'output').read_text()}"


def status_of(engine: Engine) -> str:
    """Say how `alive` is."""
    return next((str(each.status) for each in engine.containers.all() if each.name == "alive"), "missing")


def unsettled(root: Path, driver: str, statuses: frozenset[str]) -> list[str]:
    """List what disagrees, and a state of `alive` that isn't among those that it may have."""
    wrong: list[str] = []
    with Engine(root_dir=str(root), storage_driver=driver, warn=wrong.append) as engine:
        status = status_of(engine)
        return [*wrong, *contradictions(engine), *([] if status in statuses else [f"alive is {status}"])]


def said(root: Path, driver: str, change: Change, tmp_path: Path) -> None:
    """Say a command line, in the process that may be killed."""
    redirect(tmp_path / "output")
    code = command_line(root, driver, change.words)
    if code != change.code:
        raise RuntimeError(f"{change.name} ended with {code}: {(tmp_path / 'output').read_text()}")


def carry_out(root: Path, driver: str, change: Change, tmp_path: Path) -> tuple[str, ...]:
    """Let a command do its work; gives its changing calls."""
    whole = ptrace.watch(lambda: said(root, driver, change, tmp_path))
    wait_until_alone()
    assert not whole.error, whole.error
    return whole.calls


def look(root: Path, driver: str, tmp_path: Path) -> dict[str, Any]:
    """See what there is, as the next command does, in a process of its own."""

    def see() -> None:
        warnings: list[str] = []
        with Engine(root_dir=str(root), storage_driver=driver, warn=warnings.append) as engine:
            found = {**state_by_name(engine), "wrong": [*warnings, *contradictions(engine)]}
        rows = database_rows(root)
        with Engine(root_dir=str(root), storage_driver=driver, warn=warnings.append):
            pass
        found["wrong"] += [] if database_rows(root) == rows else ["recovering again isn't the same as once"]
        (tmp_path / "state.json").write_text(json.dumps(found))

    output = tmp_path / "looked"
    assert in_a_fork(see, output) == 0, output.read_text()
    found: dict[str, Any] = json.loads((tmp_path / "state.json").read_text())
    return found


def find_wrong(root: Path, driver: str, change: Change, tmp_path: Path, *, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List what is neither old nor new, what disagrees, and whether the command can't be said again."""
    try:
        found = look(root, driver, tmp_path)
        wrong = [each for each in neither(found, old, new) if not (change.is_partial and each.startswith("container "))]
        output = tmp_path / "output"
        code = in_a_fork(lambda: command_line(root, driver, change.words), output)
        if code not in change.again:
            wrong.append(f"said again it ended with {code}: {output.read_text()}")
        wait_until_alone()
        again = look(root, driver, tmp_path)
        if found == old:
            return wrong + neither(again, new, new)
        return [*wrong, *again["wrong"]]  # what was new already may have become two of it
    except AssertionError as error:
        return [str(error)]


def copy(source: Path, target: Path) -> None:
    """Make `target` what `source` is."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "--archive", "--reflink=auto", source, target], check=True)


def wait_until_alone() -> None:
    """Let what a killed command had started come to its end."""
    deadline = time.monotonic() + 20
    while True:
        leaks.reap(set())
        left = {pid: words for pid, words in leaks.descendants().items() if "resource_tracker" not in words}  # multiprocessing's
        if not left:
            return
        assert time.monotonic() < deadline, f"processes are left: {left}"
        time.sleep(0.005)
