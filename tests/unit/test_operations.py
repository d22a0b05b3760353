"""Operations and locks: whose work is unfinished, and who may go on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.linux.process import boot_id, start_time
from lamina.store.database import Database
from lamina.store.operations import Operation, dead_operations, locked


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(str(tmp_path / "lamina.db"))
    yield database
    database.close()


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    (tmp_path / "locks").mkdir()
    return str(tmp_path)


def count(database: Database) -> int:
    return int(database.connection.execute("SELECT count(*) FROM operations").fetchone()[0])


def record(database: Database, *, pid: int, started: int | None, boot: str) -> int:
    with database.transaction() as tx:
        cursor = tx.execute("INSERT INTO operations (name, pid, started, boot) VALUES ('x', ?, ?, ?)", (pid, started, boot))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def test_an_operation_is_one_row_however_often_it_begins(database: Database):
    operation = Operation(name="create")
    with database.transaction() as tx:
        assert operation.begin(tx) == operation.begin(tx)
    assert count(database) == 1
    with database.transaction() as tx:
        operation.end(tx)
        operation.end(tx)
    assert count(database) == 0


def test_our_own_operation_is_alive(database: Database):
    with database.transaction() as tx:
        Operation(name="create").begin(tx)
    assert dead_operations(database) == []


def test_an_operation_is_dead_when_its_process_is_gone_or_another_has_its_number_or_the_boot_is_past(database: Database):
    mine = start_time(os.getpid())
    gone = subprocess.Popen(["true"])
    started = start_time(gone.pid)
    gone.wait()
    expected = [
        record(database, pid=gone.pid, started=started or 1, boot=boot_id()),
        record(database, pid=os.getpid(), started=(mine or 0) + 1, boot=boot_id()),
        record(database, pid=os.getpid(), started=mine, boot="another"),
        record(database, pid=0, started=0, boot=boot_id()),
    ]
    record(database, pid=os.getpid(), started=mine, boot=boot_id())
    assert dead_operations(database) == expected


def test_a_process_that_is_dead_but_not_reaped_counts_as_gone(database: Database):
    child = subprocess.Popen(["sleep", "100"])
    dead = record(database, pid=child.pid, started=start_time(child.pid), boot=boot_id())
    assert dead_operations(database) == []
    os.kill(child.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not dead_operations(database) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert dead_operations(database) == [dead]
    child.wait()


def test_a_failed_operation_stays_while_something_carries_its_number(database: Database):
    operation = Operation(name="create")
    with database.transaction() as tx:
        number = operation.begin(tx)
        tx.execute("INSERT INTO layers (driver, key, state, operation) VALUES ('d', 'k', 'preparing', ?)", (number,))
    with database.transaction() as tx:
        operation.end_unless_owning(tx)
    assert count(database) == 1
    with database.transaction() as tx:
        tx.execute("DELETE FROM layers")
        operation.end_unless_owning(tx)
    assert count(database) == 0


HOLDER = """
import os, sys, time
from lamina.store.operations import locked
with locked(sys.argv[1], "name", shared=sys.argv[2] == "shared"):
    if sys.argv[3] == "fork" and os.fork() == 0:
        os.close(1)
        time.sleep(3)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.readline()
print("done", flush=True)
"""


class Holder:
    """Another process that holds the lock until it is told."""

    def __init__(self, run_dir: str, *, shared: bool = False, forks: bool = False) -> None:
        words = [sys.executable, "-c", HOLDER, run_dir, "shared" if shared else "alone", "fork" if forks else "-"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def let_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self) -> "Holder":
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.communicate()


def taken_within(run_dir: str, seconds: float, *, shared: bool = False) -> bool:
    got = threading.Event()

    def take() -> None:
        with locked(run_dir, "name", shared=shared):
            got.set()

    threading.Thread(target=take, daemon=True).start()
    return got.wait(seconds)


def test_a_lock_is_one_processs_at_a_time_and_its_file_goes_with_the_last(run_dir: str):
    with Holder(run_dir) as first:
        assert first.line() == "held"  # before the second is started: which of two gets it first nobody knows
        with Holder(run_dir) as second:
            assert not taken_within(run_dir, 0.3)
            first.let_go()
            assert first.line() == "done"
            assert second.line() == "held"
            second.let_go()
            assert second.line() == "done"
    assert taken_within(run_dir, 10)
    deadline = time.monotonic() + 5
    while os.listdir(f"{run_dir}/locks") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.listdir(f"{run_dir}/locks") == []


def test_a_killed_holder_lets_go(run_dir: str):
    with Holder(run_dir) as holder:
        assert holder.line() == "held"
        holder.process.kill()
        holder.process.wait()
        assert taken_within(run_dir, 10)
    time.sleep(0.05)
    assert os.listdir(f"{run_dir}/locks") == []


def test_a_forked_child_does_not_keep_what_its_parent_has_let_go_of(run_dir: str):
    with Holder(run_dir, forks=True) as holder:
        assert holder.line() == "held"
        holder.let_go()
        assert holder.line() == "done"
        assert taken_within(run_dir, 1.5)


def test_sharers_hold_it_together_and_keep_the_others_out(run_dir: str):
    with Holder(run_dir, shared=True) as first, Holder(run_dir, shared=True) as second:
        assert (first.line(), second.line()) == ("held", "held")
        first.let_go()
        assert first.line() == "done"
        assert not taken_within(run_dir, 0.3)
        second.let_go()
        assert taken_within(run_dir, 10)


def test_an_exception_lets_go_too(run_dir: str):
    with pytest.raises(ZeroDivisionError), locked(run_dir, "name"):
        1 / 0  # noqa: B018
    assert os.listdir(f"{run_dir}/locks") == []


COUNT = """
import sys
from lamina.store.operations import locked
for _ in range(int(sys.argv[3])):
    with locked(sys.argv[1], "name"):
        with open(sys.argv[2]) as file:
            number = int(file.read())
        with open(sys.argv[2], "w") as file:
            file.write(str(number + 1))
"""


@pytest.mark.timeout(120)
def test_no_two_are_ever_in_it_though_its_file_comes_and_goes(run_dir: str, tmp_path: Path):
    (tmp_path / "count").write_text("0")
    words = [sys.executable, "-c", COUNT, run_dir, str(tmp_path / "count"), "300"]
    processes = [subprocess.Popen(words) for _ in range(5)]
    assert [process.wait() for process in processes] == [0] * 5
    assert (tmp_path / "count").read_text() == "1500"
    assert os.listdir(f"{run_dir}/locks") == []
