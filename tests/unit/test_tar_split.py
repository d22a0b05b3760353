"""A layer's tar is put together again byte for byte, from files where they lie and all else from tar-split's lines."""

import base64
import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from lamina.errors import ArchiveError
from lamina.store.tar_split import TarSplit, _crc_table


def crc(content: bytes) -> str:
    """CRC-64 (ISO) as Go's hash/crc64 gives it."""
    value, table = 0xFFFFFFFFFFFFFFFF, _crc_table()
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return base64.b64encode((value ^ 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")).decode()


def split(path: Path, files: dict[str, bytes]) -> bytes:
    """Write a tar with these files, and what tar-split would keep of it; gives the tar."""
    out = io.BytesIO()
    lines: list[dict[str, object]] = []
    done = 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            padded = len(content) + -len(content) % 512
            header = out.getvalue()[done : len(out.getvalue()) - padded]
            lines.append({"type": 2, "payload": base64.b64encode(header).decode(), "position": len(lines)})
            entry: dict[str, object] = {"type": 1, "size": len(content), "payload": crc(content), "position": len(lines)}
            try:
                name.encode()
                entry["name"] = name
            except UnicodeEncodeError:
                entry["name_raw"] = base64.b64encode(os.fsencode(name)).decode()
            lines.append(entry)
            done = len(out.getvalue()) - padded + len(content)
    lines.append({"type": 2, "payload": base64.b64encode(out.getvalue()[done:]).decode(), "position": len(lines)})
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return out.getvalue()


def read(source: TarSplit) -> bytes:
    out = b""
    while data := source.read(1000):
        out += data
    return out


def lay(directory: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        place = Path(os.fsdecode(os.fsencode(str(directory)) + b"/" + os.fsencode(name)))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    directory.mkdir(exist_ok=True)
    return str(directory)


def test_the_tar_is_the_same(tmp_path: Path) -> None:
    files = {"a": b"1" * 3000, "d/empty": b"", "d/b": bytes(512), "odd-\udcff": b"raw", "./e/../c": b"x"}
    wanted = split(tmp_path / "split", files)
    laid = {**{name: content for name, content in files.items() if ".." not in name}, "c": b"x", "e/f": b""}
    source = TarSplit(str(tmp_path / "split"), [lay(tmp_path / "layer", laid)])
    assert read(source) == wanted
    assert source.find_damage() == ""
    assert TarSplit(str(tmp_path / "split"), [str(tmp_path / "layer")]).read() == wanted


def test_crc_is_that_of_go() -> None:
    # hash/crc64's own test (crc64_test.go): ISO of "abc" is 0x3776c42000000000
    assert base64.b64decode(crc(b"abc")) == bytes.fromhex("3776c42000000000")


def test_a_name_may_lead_through_a_symlink_of_a_layer_below(tmp_path: Path) -> None:
    wanted = split(tmp_path / "split", {"lib/x": b"content", "far/y": b"other"})
    top, below = lay(tmp_path / "top", {"usr/lib/x": b"content", "usr/lib/y": b"other"}), tmp_path / "below"
    (below / "usr/lib").mkdir(parents=True)
    (below / "lib").symlink_to("usr/lib")
    (below / "far").symlink_to("/lib")
    assert read(TarSplit(str(tmp_path / "split"), [top, str(below)])) == wanted
    with pytest.raises(ArchiveError, match="'lib/x' isn't there"):
        read(TarSplit(str(tmp_path / "split"), [top]))


def test_nothing_outside_of_the_layer_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    layer = Path(lay(tmp_path / "layer", {"d/x": b""}))
    (layer / "absolute").symlink_to(tmp_path)
    (layer / "relative").symlink_to("..")
    (layer / "file").symlink_to(tmp_path / "secret")
    for name in ("../secret", "absolute/secret", "relative/secret", "file", "/secret", "d"):
        split(tmp_path / "split", {name: b"secret"})
        with pytest.raises(ArchiveError):
            read(TarSplit(str(tmp_path / "split"), [str(layer)]))


def test_a_link_that_leads_round_has_an_end(tmp_path: Path) -> None:
    layer = Path(lay(tmp_path / "layer", {"x": b""}))
    (layer / "round").symlink_to("round")
    split(tmp_path / "split", {"round/f": b"1"})
    with pytest.raises(ArchiveError, match="isn't there"):
        read(TarSplit(str(tmp_path / "split"), [str(layer)]))


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    split(tmp_path / "split", {"a": b"one", "b": b"two"})
    source = TarSplit(str(tmp_path / "split"), [lay(tmp_path / "layer", {"a": b"one", "b": b"TWO"})])
    assert source.find_damage() == "b"
    lay(tmp_path / "layer", {"a": b"longer"})
    with pytest.raises(ArchiveError, match="'a' has another size"):
        read(TarSplit(str(tmp_path / "split"), [str(tmp_path / "layer")]))


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"{}", b'{"type":3}', b'{"type":2,"payload":"?"}', b'{"type":1,"name":"a","size":-1}', b'{"type":1,"size":1}',
     b'{"type":1,"name":"a\\u0000","size":1}', b'{"type":1,"name":5,"size":1}', b'{"type":2,"payload":5}'],
)  # fmt: skip
def test_lines_that_are_none_are_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "split").write_bytes(gzip.compress(line + b"\n"))
    with pytest.raises(ArchiveError, match="line 1 of its tar-split"):
        read(TarSplit(str(tmp_path / "split"), [lay(tmp_path / "layer", {})]))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    split(tmp_path / "split", {"a": b"one"})
    whole = (tmp_path / "split").read_bytes()
    layer = lay(tmp_path / "layer", {"a": b"one"})
    for damaged in (whole[:-20], whole[:10] + b"xxxx" + whole[14:], b"not gzip"):
        (tmp_path / "split").write_bytes(damaged)
        with pytest.raises(ArchiveError, match="is damaged"):
            read(TarSplit(str(tmp_path / "split"), [layer]))
