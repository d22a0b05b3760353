"""A container's log: Docker's json-file, whatever pieces the output comes in."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as some

from lamina.runtime.frames import STDERR, STDOUT
from lamina.runtime.logs import LINE_BYTES, LogWriter


def written(path: Path) -> list[tuple[str, str]]:
    return [(record["stream"], record["log"]) for record in map(json.loads, path.read_text(encoding="utf-8").splitlines())]


def test_a_line_is_one_record_and_a_part_of_one_waits_for_its_end(tmp_path: Path):
    log = LogWriter(str(tmp_path / "log"))
    log.write(STDOUT, b"one\ntw")
    assert written(tmp_path / "log") == [("stdout", "one\n")]
    log.write(STDOUT, b"o\n")
    assert written(tmp_path / "log") == [("stdout", "one\n"), ("stdout", "two\n")]
    log.close()


def test_the_two_streams_wait_apart(tmp_path: Path):
    log = LogWriter(str(tmp_path / "log"))
    log.write(STDOUT, b"out ")
    log.write(STDERR, b"err\n")
    log.write(STDOUT, b"put\n")
    log.close()
    assert written(tmp_path / "log") == [("stderr", "err\n"), ("stdout", "out put\n")]


def test_what_has_no_newline_is_written_when_its_stream_ends(tmp_path: Path):
    log = LogWriter(str(tmp_path / "log"))
    log.write(STDOUT, b"half")
    log.write(STDERR, b"other")
    log.end_of_stream(STDOUT)
    assert written(tmp_path / "log") == [("stdout", "half")]
    log.close()
    assert written(tmp_path / "log") == [("stdout", "half"), ("stderr", "other")]


def test_a_long_line_is_cut_at_sixteen_kibibytes_and_only_its_last_part_ends_the_line(tmp_path: Path):
    for pieces in ([b"x" * (2 * LINE_BYTES + 5) + b"\n"], [b"x" * 5000] * 7 + [b"\n"], [b"x" * LINE_BYTES, b"\n"]):
        path = tmp_path / f"log{len(pieces)}"
        log = LogWriter(str(path))
        for piece in pieces:
            log.write(STDOUT, piece)
        log.close()
        texts = [text for _, text in written(path)]
        assert "".join(texts).encode() == b"".join(pieces)
        assert all(len(text) == LINE_BYTES and not text.endswith("\n") for text in texts[:-1])
        assert texts[-1].endswith("\n")


@settings(deadline=None)
@given(some.lists(some.tuples(some.sampled_from([STDOUT, STDERR]), some.text("ab\né\x00", max_size=30))))
def test_nothing_is_lost_or_reordered_within_a_stream(tmp_path_factory, pieces: list[tuple[int, str]]):
    path = tmp_path_factory.mktemp("log") / "log"
    log = LogWriter(str(path))
    for kind, text in pieces:
        log.write(kind, text.encode())
    log.close()
    for kind, name in ((STDOUT, "stdout"), (STDERR, "stderr")):
        assert "".join(text for stream, text in written(path) if stream == name) == "".join(t for k, t in pieces if k == kind)


def test_a_character_cut_between_two_writes_is_whole_in_the_log(tmp_path: Path):
    log = LogWriter(str(tmp_path / "log"))
    log.write(STDOUT, "é".encode()[:1])
    log.write(STDOUT, "é\n".encode()[1:])
    log.close()
    assert written(tmp_path / "log") == [("stdout", "é\n")]


def test_a_character_is_not_cut_where_a_long_line_is(tmp_path: Path):
    line = "x" * (LINE_BYTES - 1) + "é" * LINE_BYTES + "€😀\n"
    for size in (1 << 20, 1000):
        path = tmp_path / f"log{size}"
        log = LogWriter(str(path))
        data = line.encode()
        for start in range(0, len(data), size):
            log.write(STDOUT, data[start : start + size])
        log.close()
        assert "".join(text for _, text in written(path)) == line


def test_bytes_that_are_no_text_are_marked_and_cut_all_the_same(tmp_path: Path):
    log = LogWriter(str(tmp_path / "log"))
    log.write(STDOUT, b"\x80" * (LINE_BYTES + 10) + b"\n")
    log.close()
    assert [len(text) for _, text in written(tmp_path / "log")] == [LINE_BYTES, 11]


def test_a_log_with_a_limit_is_so_many_files_and_its_newest_records_are_in_them(tmp_path: Path):
    path = tmp_path / "log"
    log = LogWriter(str(path), file_bytes=1000, files=3)
    for number in range(200):
        log.write(STDOUT, b"%d\n" % number)
    log.close()
    files = [tmp_path / name for name in ("log.2", "log.1", "log")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(1000 <= file.stat().st_size < 1100 for file in files[:2])
    kept = [int(text) for file in files for _, text in written(file)]
    assert kept == list(range(kept[0], 200))
    log = LogWriter(str(path), file_bytes=1000, files=3)  # another start goes on where it was
    log.write(STDOUT, b"200\n" * 20)
    log.close()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_log_of_one_file_begins_anew_at_its_limit(tmp_path: Path):
    log = LogWriter(str(tmp_path / "log"), file_bytes=500)
    for number in range(100):
        log.write(STDOUT, b"%d\n" % number)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log").stat().st_size < 600
    assert written(tmp_path / "log")[-1] == ("stdout", "99\n")
