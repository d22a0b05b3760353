"""Kill each command that changes the store before each call by which it changes anything: the old state or the new, nothing third.

The commands are `changing.py`'s script, held against the command line's own tables, so that a new command is killed too or says why
not. A command runs in a fork of this process under ptrace(2) (`lamina/linux/ptrace.py`) and is killed before its n-th changing
call; what it has started, a monitor say, lives on and ends by itself. `test_show_9_kill.py` kills those too.

The short form kills at a call of each command, chosen by `LAMINA_SEED`; the long one (`make crash`) at every one, or at
`LAMINA_POINTS` of each command.
"""

import contextlib
import gc
import json
import os
import pkgutil
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import leaks
import pytest
from cases import DRIVERS, each_driver
from changing import ELSEWHERE, READ_ONLY, Change, command_line, in_a_fork, modules, redirect, running_script, script
from states import contradictions, database_rows, neither, state_by_name

import lamina
from lamina import finish
from lamina.engine import Engine
from lamina.errors import LaminaError
from lamina.linux import process, ptrace

LONG = os.environ.get("LAMINA_KILLS") == "all"
SEED = os.environ.get("LAMINA_SEED", "1")
PARTS = 4 if LONG else 1
"""Among how many tests a driver's kills are dealt out, for several workers."""
POINTS = int(os.environ.get("LAMINA_POINTS", "1000000" if LONG else "1"))
"""Calls of each command before which it is killed, on each driver in the long form, on one of them in the short."""


def test_every_command_is_killed_or_says_why_not(tmp_path: Path) -> None:
    killed = {each.module for each in [*script(tmp_path, "vfs", "overlay"), *(change for _, change, _ in running_script("always"))]}
    assert not killed & (READ_ONLY | ELSEWHERE.keys())
    assert killed | READ_ONLY | ELSEWHERE.keys() == modules(), "tests/system/changing.py must know every command"


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have all that commands import, cache and put off done in this process, so that no fork has to, which would take longest."""
    if not LONG:
        return
    for each in pkgutil.walk_packages(lamina.__path__, "lamina."):
        if not each.name.endswith("__main__"):
            import_module(each.name)
    place = tmp_path_factory.mktemp("warm")
    for driver, other in zip(DRIVERS, (*DRIVERS[1:], DRIVERS[0]), strict=True):
        (place / driver).mkdir()
        for change in script(place / driver, driver, other):
            assert command_line(place / f"root.{driver}", driver, change.words) == change.code
            seen(place / f"root.{driver}", driver)
    gc.collect()  # a command leaves its connection to the database to its process's end
    shutil.rmtree(place)


@pytest.mark.parametrize("part", range(PARTS))
@each_driver
@pytest.mark.usefixtures("own_mounts", "warm")
@pytest.mark.timeout(36000 if LONG else 400)
def test_a_command_killed_at_any_call_has_done_all_or_nothing(driver: str, part: int, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    root, before, after = tmp_path / "root", tmp_path / "before", tmp_path / "after"
    random = Random(f"{SEED} {driver}")
    failures: list[str] = []
    kills = tried = 0
    for number, change in enumerate(script(tmp_path / "given", driver, DRIVERS[DRIVERS.index(driver) - 1])):
        if not LONG and number % len(DRIVERS) != DRIVERS.index(driver):  # in the short form each has one driver
            assert in_a_fork(lambda change=change: command_line(root, driver, change.words), tmp_path / "output") == change.code
            continue
        old = seen(root, driver)
        copy(root, before)
        calls = carry_out(root, driver, change, tmp_path)
        new = seen(root, driver)
        copy(root, after)
        known: set[str] = set()
        points = sorted(random.sample(range(len(calls)), min(POINTS, len(calls))))[part::PARTS]
        tried += len(points)
        for point in points:
            copy(before, root)
            watched = ptrace.watch(lambda change=change: said(root, driver, change, tmp_path), kill_at=point)
            wait_until_alone()
            kills += watched.killed
            when = f"`{change.name}` killed before call {point + 1} of {len(calls)}, {calls[point]}"
            failures += [f"{when}: {each}" for each in find_wrong(root, driver, change, tmp_path, old=old, new=new, known=known)]
        copy(after, root)
    print(f"seed {SEED}: killed at {kills} of {tried} calls on {driver}")
    assert not failures, f"{kills} kills:\n" + "\n".join(failures)
    assert kills > 10


@pytest.mark.parametrize(
    ("driver", "policy"), list(product(DRIVERS, ("no", "always"))) if LONG else [("overlay", "no")], indirect=["driver"]
)
@pytest.mark.usefixtures("own_mounts", "warm")
@pytest.mark.timeout(36000 if LONG else 400)
def test_a_command_for_a_running_container_may_be_killed_at_any_call(
    driver: str, policy: str, tmp_path: Path, prepared_roots: dict[str, Path]
) -> None:
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    root, random = tmp_path / "root", Random(SEED)
    copy(prepared_roots[driver], root)
    failures: list[str] = []
    kills = tried = 0
    for before, change, after in running_script(policy):
        bring(root, driver, before, policy, tmp_path)
        calls = ptrace.watch(lambda change=change: said(root, driver, change, tmp_path)).calls
        points = sorted(random.sample(range(len(calls)), min(POINTS, len(calls))))
        tried += len(points)
        for point in points:
            bring(root, driver, before, policy, tmp_path)
            kills += ptrace.watch(lambda change=change: said(root, driver, change, tmp_path), kill_at=point).killed
            when = f"`{change.name}` killed before call {point + 1} of {len(calls)}, {calls[point]}"
            failures += [f"{when}: {each}" for each in wrong_in_the_end(root, driver, after)]
    bring(root, driver, "missing", policy, tmp_path)
    wait_until_alone()
    assert not unsettled(root, driver, frozenset({"missing"}))
    print(f"seed {SEED}: killed at {kills} of {tried} calls on {driver} with --restart {policy}")
    assert not failures, f"{kills} kills:\n" + "\n".join(failures)
    assert kills >= len(running_script(policy))


@pytest.mark.parametrize("driver", DRIVERS if LONG else ["vfs"], indirect=True)
@pytest.mark.usefixtures("own_mounts", "warm")
@pytest.mark.timeout(36000 if LONG else 400)
def test_the_keeper_of_a_restart_may_be_killed_at_any_call(driver: str, tmp_path: Path, prepared_roots: dict[str, Path]) -> None:
    """It is what a monitor becomes, `lamina.finish`, when its container has ended: it settles and starts it."""
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    root, random = tmp_path / "root", Random(SEED)
    copy(prepared_roots[driver], root)
    failures: list[str] = []

    def end() -> None:
        """Kill the container, and before that its monitor, whose place `keep` takes."""
        bring(root, driver, "running", "always", tmp_path)
        its_own = {int(str(pid)) for pid in leaks.rows(root, "SELECT monitor_pid, pid FROM containers")[0]}
        deadline = time.monotonic() + 20
        while [pid for pid, words in leaks.descendants().items() if "lamina.finish" in words and pid not in its_own]:
            assert time.monotonic() < deadline  # the keeper before this one, whose start would fail without its monitor
            leaks.reap(set())
            time.sleep(0.01)
        for pid in its_own:
            leaks.end({pid})

    def take_the_place() -> None:
        with contextlib.closing(sqlite3.connect(root / "lamina.db", isolation_level=None)) as connection:
            mine = (os.getpid(), process.start_time(os.getpid()))
            connection.execute("UPDATE containers SET monitor_pid = ?, monitor_started = ?, restart_delay_ms = 0", mine)

    def keep() -> None:
        redirect(tmp_path / "output")
        take_the_place()
        sys.argv = ["finish", str(root), str(root / "run"), str(leaks.rows(root, "SELECT id FROM containers")[0][0])]
        assert finish.main() == 0

    end()
    first = len(ptrace.watch(take_the_place).calls)
    whole = ptrace.watch(keep)
    assert not whole.error, whole.error
    assert not wrong_in_the_end(root, driver, frozenset({"running"}))
    all_points = range(first, len(whole.calls))
    points = sorted(random.sample(all_points, min(POINTS, len(all_points))))
    kills = 0
    for point in points:
        end()
        kills += ptrace.watch(keep, kill_at=point).killed
        when = f"killed before call {point + 1} of {len(whole.calls)}, {whole.calls[point]}"
        failures += [f"{when}: {each}" for each in wrong_in_the_end(root, driver, frozenset({"running"}))]
    bring(root, driver, "missing", "always", tmp_path)
    wait_until_alone()
    print(f"seed {SEED}: killed at {kills} of {len(points)} calls of a keeper on {driver}")
    assert not failures, f"{kills} kills:\n" + "\n".join(failures)
    assert kills


def bring(root: Path, driver: str, status: str, policy: str, tmp_path: Path) -> None:
    """Bring `alive` into a state."""
    with Engine(root_dir=str(root), storage_driver=driver) as engine:
        is_now = status_of(engine)
    if is_now == status:
        return
    steps = ["rm -f alive"] if is_now != "missing" else []
    steps += [] if status == "missing" else [f"run -d --restart {policy} --name alive base sleep 1000"]
    more = {"paused": ["pause alive"], "exited": ["kill alive", "wait alive"], "shut down": ["system stop -t 0"]}
    for step in [*steps, *more.get(status, [])]:
        code = in_a_fork(lambda step=step: command_line(root, driver, tuple(step.split())), tmp_path / "output")
        assert code == 0, f"{step}: {(tmp_path / 'output').read_text()}"


def status_of(engine: Engine) -> str:
    """Say how `alive` is."""
    for each in engine.context.records.all():
        if each.name == "alive":
            return "shut down" if each.status == "exited" and each.stopped_by == "shutdown" else str(each.status)
    return "missing"


def wrong_in_the_end(root: Path, driver: str, statuses: frozenset[str]) -> list[str]:
    """Say what is wrong with `alive` and the store when what a killed process has started had its time to come to its end."""
    deadline = time.monotonic() + 20
    while wrong := unsettled(root, driver, statuses):
        leaks.reap(set())
        if time.monotonic() > deadline:
            return wrong
        time.sleep(0.02)
    return []


def unsettled(root: Path, driver: str, statuses: frozenset[str]) -> list[str]:
    """List what disagrees, a state of `alive` that isn't among those that it may have, and that it runs without a process."""
    wrong: list[str] = []
    with Engine(root_dir=str(root), storage_driver=driver, warn=wrong.append) as engine:
        status = status_of(engine)
        wrong += [] if status in statuses else [f"alive is {status}"]
        for each in engine.containers.all(running_only=True):
            wrong += [] if process.is_alive(each.pid, each.record.pid_started) else [f"{each.name} has no process"]
        return [*wrong, *contradictions(engine)]


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


def seen(root: Path, driver: str) -> dict[str, Any]:
    """Open the store, as every command does, and say what there is, as JSON would; `wrong` is what disagrees."""
    warnings: list[str] = []
    with Engine(root_dir=str(root), storage_driver=driver, warn=warnings.append) as engine:
        found = json.loads(json.dumps({**state_by_name(engine), "wrong": [*warnings, *contradictions(engine)]}))
    rows = database_rows(root)
    with Engine(root_dir=str(root), storage_driver=driver, warn=warnings.append):
        pass
    found["wrong"] += [] if database_rows(root) == rows else ["recovering again isn't the same as once"]
    return found


def told(work: Callable[[], object], tmp_path: Path) -> Any:
    """Do something in a fork, and give what it gives."""
    output, answer = tmp_path / "output", tmp_path / "answer.json"

    def tell() -> None:
        answer.write_text(json.dumps(work()))

    assert in_a_fork(tell, output) == 0, output.read_text()
    return json.loads(answer.read_text())


def find_wrong(
    root: Path, driver: str, change: Change, tmp_path: Path, *, old: dict[str, Any], new: dict[str, Any], known: set[str]
) -> list[str]:
    """List what is neither old nor new, what disagrees, and whether the command can't be said again.

    That is said once for each state that kills of this command have led to: `known` are the fingerprints of those it was said in.
    """

    def say_and_see() -> tuple[int, dict[str, Any]]:
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
        code = command_line(root, driver, change.words)
        wait_until_alone()
        return code, seen(root, driver)

    try:
        found, state = seen(root, driver), fingerprint(root)
        wrong = [each for each in neither(found, old, new) if not (change.is_partial and each.startswith("container "))]
        if state in known:
            return wrong
        code, again = told(say_and_see, tmp_path)
    except (AssertionError, OSError, LaminaError) as error:
        return [str(error)]
    if code not in change.again:
        wrong.append(f"said again it ended with {code}: {(tmp_path / 'output').read_text()}")
    # What was new already may have become two of it.
    wrong += neither(again, new, new) if found == old else again["wrong"]
    if not wrong:
        known.add(state)
    return wrong


def fingerprint(root: Path) -> str:
    """Say all that there is of a store, files and rows, but for what differs each time: ids, digests and times."""
    found = [f"{name} {row}" for name, rows in database_rows(root).items() for row in rows]
    for folder, _, names in os.walk(root):
        for name in [".", *names]:
            if not name.startswith("lamina.db"):
                info = os.lstat(f"{folder}/{name}")
                found.append(f"{folder}/{name} {info.st_mode} {info.st_nlink} {info.st_size}")
    return "\n".join(sorted(re.sub(r"[0-9a-f]{12,}|[0-9]{10,}", "*", each) for each in found))


def copy(source: Path, target: Path) -> None:
    """Make `target` what `source` is."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "--archive", "--reflink=auto", source, target], check=True)


def wait_until_alone() -> None:
    """Let what a killed command had started come to its end, whose parent this process becomes."""
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = [pid for pid in children() if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if not left:
            return
        assert time.monotonic() < deadline, f"processes are left: {leaks.descendants()}"
        time.sleep(0.005)


def children() -> list[int]:
    """List this process's children, all of them its main thread's."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()]
