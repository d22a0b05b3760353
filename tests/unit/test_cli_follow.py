"""A log's last lines, a stretch of time, and lines to come."""

import json
import os
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from lamina.linux.process import start_time
from lamina.model.container import Container, ContainerConfig, Status
from lamina.runtime.frames import STDOUT
from lamina.runtime.logs import LogWriter
from lamina.usecases import follow
from lamina.usecases.follow import LogFiles, read_lines

START_NS = 1_700_000_000_000_000_000


def stamp(number: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_700_000_000 + number)) + ".000000000Z"


def record(number: int) -> str:
    return json.dumps({"log": f"{number}\n", "stream": "stdout", "time": stamp(number)}) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text("".join(map(record, range(1000))), encoding="utf-8")
    return path


def numbers(path: Path, **options: object) -> list[int]:
    return [int(line.text) for line in read_lines(str(path), **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [7, 100, 1 << 16])
@pytest.mark.parametrize("tail", [0, 1, 2, 999, 1000, 5000])
def test_the_last_lines_are_found_from_the_end(log: Path, tail: int, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(follow, "BLOCK_BYTES", block)
    assert numbers(log, tail=tail) == list(range(1000))[1000 - min(tail, 1000) :]


def test_a_stretch_of_time_has_both_its_ends(log: Path):
    second = 1_000_000_000
    assert numbers(log, since_ns=START_NS + 990 * second) == list(range(990, 1000))
    assert numbers(log, until_ns=START_NS + 3 * second) == [0, 1, 2, 3]
    assert numbers(log, since_ns=START_NS + 5 * second, until_ns=START_NS + 6 * second) == [5, 6]
    assert numbers(log, since_ns=-second) == list(range(1000))


def test_a_log_that_is_not_there_is_empty(tmp_path: Path):
    assert numbers(tmp_path / "none") == []


def test_a_line_that_a_crash_cut_in_two_is_left_out_and_a_half_one_waits(log: Path):
    with log.open("a", encoding="utf-8") as file:
        file.write('{"log": "x\n' + record(1000) + '{"log": "half')
    assert numbers(log, tail=3) == [1000]  # three lines by their ends, of which one is whole
    assert numbers(log)[-1] == 1000


def running(pid: int) -> Container:
    return Container(
        id="x", name="x", image_id="x", driver="x", created_ns=0, status=Status.RUNNING, config=ContainerConfig(image="x"),
        parents=(), monitor_pid=pid, monitor_started=start_time(pid),
    )  # fmt: skip


def test_following_what_does_not_run_is_reading(log: Path):
    assert numbers(log, tail=2, follow=lambda: None) == [998, 999]


def test_following_gives_lines_as_they_come_and_ends_with_the_monitor(log: Path):
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        os.read(read_end, 1)  # lives until its parent lets go
        os._exit(0)
    os.close(read_end)

    def write() -> None:
        for number in (1000, 1001):
            time.sleep(0.2)
            text = record(number)
            with log.open("a", encoding="utf-8") as file:
                file.write(text[:10])
                file.flush()
                time.sleep(0.15)  # seen half written
                file.write(text[10:])
        os.close(write_end)

    writer = threading.Thread(target=write)
    writer.start()
    spent = time.process_time()
    assert numbers(log, tail=1, follow=lambda: running(pid)) == [999, 1000, 1001]
    assert time.process_time() - spent < 0.1  # it sleeps in between
    writer.join()
    os.waitpid(pid, 0)


def test_following_ends_at_a_point_in_time(log: Path):
    begun = time.monotonic()
    until = time.time_ns() + 300_000_000
    numbers(log, tail=1, until_ns=until, follow=lambda: running(os.getpid()))
    assert 0.2 < time.monotonic() - begun < 5


def test_a_log_of_several_files_is_read_as_one(tmp_path: Path):
    path = tmp_path / "log"
    for name, some in (("log.2", range(10)), ("log.1", range(10, 20)), ("log", range(20, 25))):
        (tmp_path / name).write_text("".join(map(record, some)), encoding="utf-8")
    assert numbers(path) == list(range(25))
    for tail in (0, 3, 5, 6, 15, 16, 24, 100):
        assert numbers(path, tail=tail) == list(range(max(0, 25 - tail), 25))
    path.unlink()  # between the rename and the new file's making
    assert numbers(path) == list(range(20))
    assert numbers(path, tail=4) == [16, 17, 18, 19]


def test_what_is_written_between_the_last_look_and_the_rename_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "log"
    path.write_text(record(0))
    look = LogFiles._next

    def late(files: LogFiles, inode: int) -> BinaryIO | None:
        if not (tmp_path / "log.1").exists():
            with path.open("a") as file:
                file.write(record(1))
            path.rename(tmp_path / "log.1")
            path.write_text(record(2))
        return look(files, inode)

    monkeypatch.setattr(LogFiles, "_next", late)
    assert numbers(path) == [0, 1, 2]


@pytest.mark.parametrize("files", [1, 3])
def test_following_goes_on_over_renames_and_neither_loses_nor_repeats_a_line(
    tmp_path: Path, files: int, monkeypatch: pytest.MonkeyPatch
):
    """Files hold ten lines each; who looks more often than ten lines come loses nothing even of a log of a single file."""
    monkeypatch.setattr(follow, "INTERVAL_MS", 1)
    path = tmp_path / "log"
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    os.close(read_end)
    log = LogWriter(str(path), file_bytes=700, files=files)
    log.write(STDOUT, b"0\n")
    found: list[int] = []

    def write() -> None:
        for number in range(1, 600):
            time.sleep(0.002)
            while files > 1 and number - len(found) > 10:  # a reader may be slow, but not so slow that a file is deleted unread
                time.sleep(0.002)
            log.write(STDOUT, b"%d\n" % number)
        log.close()
        os.close(write_end)

    writer = threading.Thread(target=write)
    writer.start()
    for line in read_lines(str(path), follow=lambda: running(pid)):
        found.append(int(line.text))
    writer.join()
    os.waitpid(pid, 0)
    assert len(found) == len(set(found))
    assert found == sorted(found)
    assert found == list(range(600)) if files > 1 else found[-1] == 599
    assert len(list(tmp_path.iterdir())) == files
