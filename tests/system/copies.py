"""What tests of COPY and ADD say things with: a base image's tree, a context, and the layer that comes of an instruction."""

import io
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.api.types import WhiteoutFormat
from lamina.archive.apply import apply_layer
from lamina.archive.layer import LayerTar
from lamina.archive.writer import write_entries
from lamina.build.copying import Gathered, SourceTree, gather
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import Copy
from lamina.dockerfile.parse import parse


def instruction(text: str) -> Copy:
    (found,) = parse(f"FROM scratch\n{text}\n".encode()).stages[0].instructions
    assert isinstance(found, Copy)
    return found


def members(layer: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return tar.getmembers()


class Place:
    """A base image's tree and a context."""

    def __init__(self, top: Path) -> None:
        self.top, self.base, self.context, self.out = top, top / "base", top / "context", top / "out"
        self.base.mkdir()
        self.context.mkdir()
        self.base.chmod(0o755)
        self.described = "the build context"

    def gather(self, text: str, *, tree: Path | None = None) -> Gathered:
        source = SourceTree(path=str(tree or self.context), described=self.described)
        return gather(instruction(text), source, downloads_dir=str(self.top / "downloads"))

    def layer(self, text: str, *, tree: Path | None = None, limit_ns: int | None = None, working_dir: str = "/work") -> bytes:
        """The layer's tar."""
        copy = instruction(text)
        base = None if copy.link else str(self.base)
        out = io.BytesIO()
        write_entries(out, self.gather(text, tree=tree).entries(base_root=base, working_dir=working_dir, mtime_limit_ns=limit_ns))
        return out.getvalue()

    def names(self, text: str) -> list[str]:
        return [member.name for member in members(self.layer(text))]

    def build(self, text: str, *, tree: Path | None = None) -> Path:
        """Give the tree that comes out."""
        layer = self.layer(text, tree=tree)
        shutil.rmtree(self.out, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.base), str(self.out)], check=True)
        apply_layer(LayerTar(io.BytesIO(layer)), into=str(self.out), whiteouts=WhiteoutFormat.NONE, parent=lambda: None)
        return self.out

    def error(self, text: str) -> DockerfileError:
        with pytest.raises(DockerfileError) as error:
            self.layer(text)
        assert "\n" not in error.value.message
        return error.value


def shape(path: Path) -> tuple[int, int, int]:
    """Mode, uid and gid."""
    found = path.lstat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def make(path: Path, content: str = "", mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or path.name)
    os.chown(path, *owner)
    path.chmod(mode)
    return path


def make_dir(path: Path, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Path:
    path.mkdir(parents=True)
    os.chown(path, *owner)
    path.chmod(mode)
    return path


def packed(entries: list[tuple[str, dict[str, object]]], mode: str = "w") -> bytes:
    """A tar, each member by name and what is special about it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, special in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid, info.mtime = 0o644, 33, 34, 1000
            content = special.pop("content", b"")
            assert isinstance(content, bytes)
            for key, value in special.items():
                setattr(info, key, value)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
