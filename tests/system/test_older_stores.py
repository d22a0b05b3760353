"""A store that an older version has written is taken over with all that is in it, and a copy of its database is kept."""

import contextlib
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from cases import Lamina, driver_of

from lamina.errors import StateError
from lamina.store import database
from lamina.store.database import MIGRATIONS, Database

VERSIONS = range(1, len(MIGRATIONS))


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def schema(path: Path) -> set[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {(name, sql) for name, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")}


def columns(connection: sqlite3.Connection, name: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA {name.partition('.')[0]}.table_info({name.partition('.')[2]})")]


def write_older(path: Path, version: int, source: Path) -> None:
    """Make a database by the first steps of the schema alone, as the version of then did, with those rows of `source` it had."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA journal_mode = WAL")
        for script in MIGRATIONS[:version]:
            old.executescript(script)
        old.execute(f"PRAGMA user_version = {version}")
        old.execute("ATTACH ? AS now", (str(source),))
        for (table,) in old.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            common = ", ".join(name for name in columns(old, f"main.{table}") if name in columns(old, f"now.{table}"))
            old.execute(f"INSERT INTO main.{table} ({common}) SELECT {common} FROM now.{table}")


@pytest.mark.timeout(600)
def test_the_store_of_every_earlier_version_goes_on(lamina: Lamina, tmp_path: Path):
    lamina("run", "--name", "kept", "--network", "none", "-v", "data:/data", "base", "sh", "-c", "echo mine >>/data/f; cat /data/f")
    now, wanted = tmp_path / "now.db", schema(lamina.root / "lamina.db")
    with contextlib.closing(sqlite3.connect(lamina.root / "lamina.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(now),))
    for times, version in enumerate(VERSIONS, start=2):
        for name in ("lamina.db", "lamina.db-wal", "lamina.db-shm"):
            (lamina.root / name).unlink(missing_ok=True)
        write_older(lamina.root / "lamina.db", version, now)
        with lamina.library() as engine:
            container = engine.containers.get("kept")
            container.start()
            assert container.wait() == 0
            assert container.logs().count("mine") == times * (times + 1) // 2
            assert engine.system.check(reads_bytes=False) == [], version
        assert schema(lamina.root / "lamina.db") == wanted, version
        copy = lamina.root / f"lamina.db.version-{version}"
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == version
            assert connection.execute("SELECT name FROM containers").fetchall() == [("kept",)]
    lamina("rm", "kept")
    lamina("volume", "rm", "data")


def test_a_migration_that_is_killed_anywhere_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, older = tmp_path / "source.db", tmp_path / "older.db"
    made = Database(str(source))
    with made.transaction() as tx:
        tx.execute("INSERT INTO operations (name, pid, started, boot) VALUES ('kept', 1, 2, 'b')")
    made.close()
    write_older(older, 1, source)
    statements = database._statements
    (tmp_path / "store").mkdir()
    path = tmp_path / "store/lamina.db"
    for kill_at in (1, 2, 7, 1000):
        shutil.copy(older, path)
        child = os.fork()
        if child == 0:
            left = [kill_at]

            def one_by_one(script: str, left: list[int] = left) -> list[str]:
                given = list(statements(script))
                left[0] -= len(given)
                if left[0] <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return given

            database._statements = one_by_one  # type: ignore[assignment]
            _ = Database(str(path)).connection
            os._exit(0)
        _pid, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) == (kill_at < 1000)
        again = Database(str(path))
        assert again.connection.execute("SELECT name FROM operations").fetchone()[0] == "kept"
        assert again.connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        again.close()
        assert schema(path) == schema(source)
        for each in path.parent.iterdir():
            if each.is_file():
                each.unlink()


def test_the_copy_put_back_is_the_store_of_before(tmp_path: Path):
    source, path = tmp_path / "source.db", tmp_path / "lamina.db"
    Database(str(source)).connection.close()
    write_older(path, 2, source)
    Database(str(path)).connection.close()
    for name in ("lamina.db", "lamina.db-wal", "lamina.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "lamina.db.version-2", path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 2
    Database(str(path)).connection.close()
    assert schema(path) == schema(source)


def test_a_store_of_a_newer_version_is_refused_by_every_command_and_stays_as_it_is(lamina: Lamina):
    with contextlib.closing(sqlite3.connect(lamina.root / "lamina.db")) as connection:
        connection.execute("PRAGMA user_version = 999")
    for words in (("ps",), ("run", "--rm", "base", "true"), ("images",), ("system", "check")):
        line = lamina.error(*words, code=125 if words[0] == "run" else 1)
        assert "was written by a newer lamina" in line
    with pytest.raises(StateError), lamina.library():
        pass
    with contextlib.closing(sqlite3.connect(lamina.root / "lamina.db")) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def test_files_beside_the_database_that_cannot_be_read_are_written_anew(lamina: Lamina):
    (lamina.root / "plugins.json").write_text('{"version": 999, "what": "is this"}', encoding="utf-8")
    (lamina.root / "image/index.json").write_text("{", encoding="utf-8")
    assert lamina("run", "--rm", "--network", "none", "base", "echo", "on") == "on"
    lamina("tag", "base", "more")
    lamina("rmi", "more")
    assert lamina("system", "check", "--fast") == ""
