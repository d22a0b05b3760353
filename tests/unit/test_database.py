"""The database: its schema's steps, its transactions, and what it says when it can't be used."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lamina.errors import LaminaError, StateError
from lamina.store import database as module
from lamina.store.database import MIGRATIONS, Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lamina.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(str(path))
    yield database
    database.close()


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_new_database_has_the_whole_schema_and_is_private(database: Database, path: Path):
    assert {"operations", "layers", "containers", "volumes", "volume_users", "images"} <= tables(database.connection)
    assert version(path) == len(MIGRATIONS)
    assert database.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert path.stat().st_mode & 0o077 == 0


def test_nothing_is_opened_before_it_is_used(path: Path):
    Database(str(path)).close()
    assert not path.exists()


def test_opening_again_finds_what_was_written(path: Path):
    first = Database(str(path))
    with first.transaction() as tx:
        tx.execute("INSERT INTO operations (name, pid, started, boot) VALUES ('x', 1, 2, 'b')")
    first.close()
    assert first.connection.execute("SELECT name FROM operations").fetchone()[0] == "x"
    first.close()


def test_a_newer_databases_version_is_refused_with_a_hint_and_nothing_changes(path: Path, database: Database):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")
    before = path.read_bytes()
    with pytest.raises(StateError, match=r"written by a newer lamina \(its version 999") as caught:
        _ = database.connection
    assert "--root" in caught.value.hint
    assert path.read_bytes() == before


class TestALaterStep:
    @pytest.fixture(autouse=True)
    def _two_steps(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = Database(str(path))
        with old.transaction() as tx:
            tx.execute("INSERT INTO operations (name, pid, started, boot) VALUES ('kept', 1, 2, 'b')")
        old.close()
        monkeypatch.setattr(module, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE later (x);\nCREATE TABLE still_later (y);"))

    def test_is_made_once_and_the_old_rows_stay(self, database: Database, path: Path):
        assert {"later", "still_later"} <= tables(database.connection)
        assert database.connection.execute("SELECT name FROM operations").fetchone()[0] == "kept"
        database.close()
        assert tables(database.connection)

    def test_keeps_a_copy_of_what_was_before(self, database: Database, path: Path):
        _ = database.connection
        with closing(sqlite3.connect(f"{path}.version-{len(MIGRATIONS)}")) as copy:
            assert "later" not in tables(copy)
            assert copy.execute("SELECT name FROM operations").fetchone()[0] == "kept"
        assert Path(f"{path}.version-{len(MIGRATIONS)}").stat().st_mode & 0o777 == 0o600

    def test_works_though_a_killed_one_has_left_its_copy(self, database: Database, path: Path):
        Path(f"{path}.version-{len(MIGRATIONS)}").write_bytes(b"")
        Path(f"{path}.version-{len(MIGRATIONS)}.{os.getpid()}").write_bytes(b"half")
        assert "later" in tables(database.connection)

    def test_that_fails_leaves_the_version_as_it_was(self, database: Database, path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE later (x);\nCREATE TABLE operations (y);"))
        with pytest.raises(LaminaError, match="can't be used: table operations already exists"):
            _ = database.connection
        assert version(path) == len(MIGRATIONS)
        with closing(sqlite3.connect(path)) as connection:
            assert "later" not in tables(connection)

    @pytest.mark.timeout(60)
    def test_is_made_once_by_many_at_once(self, path: Path):
        children = []
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                try:
                    found = "later" in tables(Database(str(path)).connection)
                except BaseException:  # noqa: BLE001 - a child of pytest must not go on as pytest
                    found = False
                os._exit(0 if found else 1)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8


@pytest.mark.timeout(60)
def test_many_processes_may_make_a_new_database_at_once(path: Path):
    children = []
    for _ in range(16):
        pid = os.fork()
        if pid == 0:
            try:
                with Database(str(path)).transaction() as tx:
                    tx.execute("INSERT INTO operations (name, pid, started, boot) VALUES ('x', 1, 2, 'b')")
            except BaseException as error:  # noqa: BLE001 - as above
                print(error)
                os._exit(1)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 16
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM operations").fetchone()[0] == 16


def test_a_transaction_that_fails_leaves_nothing(database: Database):
    with pytest.raises(ZeroDivisionError), database.transaction() as tx:
        tx.execute("INSERT INTO operations (name, pid, started, boot) VALUES ('x', 1, 2, 'b')")
        1 / 0  # noqa: B018
    assert not database.connection.in_transaction
    assert database.connection.execute("SELECT count(*) FROM operations").fetchone()[0] == 0


def test_a_commit_that_fails_leaves_no_transaction_behind(database: Database):
    connection = database.connection
    connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE child (p REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")
    connection.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as tx:
        tx.execute("INSERT INTO child VALUES (7)")  # found out by the commit
    assert not connection.in_transaction


def test_a_transaction_inside_another_is_part_of_it(database: Database):
    with pytest.raises(ZeroDivisionError), database.transaction() as outer:
        with database.transaction(durable=True) as inner:
            assert inner is outer
            inner.execute("INSERT INTO operations (name, pid, started, boot) VALUES ('x', 1, 2, 'b')")
        assert database.connection.in_transaction
        1 / 0  # noqa: B018
    assert database.connection.execute("SELECT count(*) FROM operations").fetchone()[0] == 0


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)])
def test_a_durable_transaction_waits_for_the_disk_and_another_does_not(database: Database, durable: bool, synchronous: int):
    with database.transaction(durable=durable) as tx:
        assert tx.execute("PRAGMA synchronous").fetchone()[0] == synchronous


@pytest.mark.parametrize("content", [b"this is not a database, however long one looks at it", os.urandom(8192)])
def test_a_file_that_is_no_database_is_said_so_with_its_path(path: Path, database: Database, content: bytes):
    path.write_bytes(content)
    with pytest.raises(LaminaError, match="can't be used") as caught:
        _ = database.connection
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


def test_a_place_that_is_not_there_is_said_with_its_path(tmp_path: Path):
    with pytest.raises(LaminaError, match="can't be opened"):
        _ = Database(str(tmp_path / "none" / "lamina.db")).connection
