"""The corpus of Dockerfiles (`dockerfiles/`): how a case is written down, its context made, and an image read and said in words.

A case is a folder: `Dockerfile` (and what else has to be a file, as `.dockerignore`) and `case.toml`. Trees are texts of one
notation, contexts and images alike, a path a line:

    d 755 0:0 app                    a directory, its mode and owner
    f 644 0:0 app/a "one\\n"          a file with its content, as JSON
    f 644 0:0 "with blank" ""
    l 777 0:0 app/link "a"           a symlink
    h app/other "app/a"              another name of a file
    p 600 0:0 pipe                   a fifo; s is a socket
    c 666 0:0 null "1:3"             a device; b is a block device
    - etc/hosts                      in an image alone: what its base had, and it has not

An image is said as what it differs in from its base (`corpus/busybox`, or nothing), its configuration too. Times, and the root
directory itself, are left out. An image is read from its layers by this file's own few lines, so that what is said owes nothing to
the code under test.
"""

import io
import json
import os
import re
import socket
import stat
import tarfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.archive.compression import Decompressed

PLACE = Path(__file__).with_name("dockerfiles")
BASE = "corpus/busybox"
_PATH = r'(?P<path>"(?:[^"\\]|\\.)*"|\S+)'
_LINE = re.compile(rf'(?P<kind>[dflpscb]) (?P<mode>[0-7]+) (?P<uid>\d+):(?P<gid>\d+) {_PATH}(?: (?P<rest>".*"))?')
_HARD = re.compile(rf'h {_PATH} (?P<rest>".*")')
_TAR_KINDS = {
    tarfile.REGTYPE: "f", tarfile.AREGTYPE: "f", tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.FIFOTYPE: "p",
    tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One path. `data` is a file's content, a symlink's target, a device's numbers."""

    kind: str
    mode: int
    owner: tuple[int, int] = (0, 0)
    data: bytes = b""
    same_as: str = ""
    """Another name of this path's file: of several the first by alphabet has none."""


Tree = dict[str, Node]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One folder of the corpus."""

    name: str
    about: str
    covers: tuple[str, ...] = ()
    """What of the language it shows."""
    args: tuple[str, ...] = ()
    """Of `lamina build`. `{context}` and `{outside}` are directories, `{url}` is where `served` is served, `{base}` the base
    image by its digest."""
    env: Mapping[str, str] = field(default_factory=dict)
    context: Tree = field(default_factory=dict)
    outside: Tree = field(default_factory=dict)
    served: Tree = field(default_factory=dict)
    archives: Mapping[str, Tree] = field(default_factory=dict)
    """What is in the archives of the context, by their paths; their endings say how they are packed."""
    given: str = "directory"
    """How the context comes: `directory`, `tar` (on standard input), or `nothing` (the Dockerfile itself is there)."""
    dockerfile_on_stdin: bool = False
    before: tuple[str, ...] = ()
    """Arguments of a build that must come first."""
    tree: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    """A build that must fail: its one line."""
    peers: Mapping[str, str] = field(default_factory=dict)
    """Who makes something else of it, and why."""
    scratch: bool = False
    """The image is said in full, not as what it differs in from the base."""


def cases() -> list[Case]:
    """All of the corpus."""
    return [read_case(place.parent) for place in sorted(PLACE.glob("*/case.toml"))]


def read_case(place: Path) -> Case:
    """Read a case's folder."""
    written = tomllib.loads((place / "case.toml").read_text(encoding="utf-8"))
    for name in ("context", "outside", "served"):
        written[name] = parse_tree(written.get(name, ""))
    written["archives"] = {path: parse_tree(text) for path, text in written.get("archives", {}).items()}
    written["tree"] = tuple(written.get("tree", "").splitlines())
    for name in ("args", "before", "covers"):
        written[name] = tuple(written.get(name, ()))
    return Case(name=place.name, **written)


def parse_tree(text: str) -> Tree:
    """Read the notation."""
    tree: Tree = {}
    for line in filter(None, text.splitlines()):
        match = _LINE.fullmatch(line) or _HARD.fullmatch(line)
        if match is None:
            raise ValueError(f"not a line of a tree: {line}")
        path, rest = (
            json.loads(text) if text.startswith('"') else text for text in (match["path"], match.groupdict().get("rest") or "")
        )
        if line.startswith("h"):
            tree[path] = Node(kind="h", mode=0, same_as=rest)
        else:
            owner = (int(match["uid"]), int(match["gid"]))
            tree[path] = Node(kind=match["kind"], mode=int(match["mode"], 8), owner=owner, data=os.fsencode(rest))
    return tree


def make_context(case: Case, place: Path) -> None:
    """Make a case's context: the files of its folder, and what it declares. The archives with the tools that everybody has."""
    place.mkdir()
    for source in PLACE.joinpath(case.name).rglob("*"):
        if source.is_file() and source.name != "case.toml":
            target = place / source.relative_to(PLACE / case.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(0o644)
    make_tree(case.context, place)
    for path, tree in case.archives.items():
        place.joinpath(path).write_bytes(packed(tree, path))
        place.joinpath(path).chmod(0o644)


def make_tree(tree: Tree, place: Path) -> None:
    """Make what is declared; directories get their modes last."""
    for path, node in tree.items():
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if node.kind == "h":
            os.link(place / node.same_as, target)
            continue
        if node.kind == "d":
            target.mkdir(exist_ok=True)
        elif node.kind == "f":
            target.write_bytes(node.data)
        elif node.kind == "l":
            target.symlink_to(os.fsdecode(node.data))
        elif node.kind == "s":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(target))  # sun_path has room for 108 bytes
        else:
            kind = {"p": stat.S_IFIFO, "c": stat.S_IFCHR, "b": stat.S_IFBLK}[node.kind]
            os.mknod(target, kind | 0o600, os.makedev(*_device(node)) if node.data else 0)
        os.chown(target, *node.owner, follow_symlinks=False)
    for path, node in sorted(tree.items(), reverse=True):
        if node.kind not in {"h", "l"}:
            place.joinpath(path).chmod(node.mode)


def packed(tree: Tree, name: str) -> bytes:
    """A tar of a tree, packed as its name's ending says."""
    out = io.BytesIO()
    ending = name.rpartition(".")[2].removeprefix("t").removeprefix("ar")
    with tarfile.open(fileobj=out, mode=f"w:{ending}" if ending in {"gz", "xz", "bz2"} else "w", format=tarfile.PAX_FORMAT) as tar:
        for path, node in tree.items():
            info = tarfile.TarInfo(path)
            info.type = next((kind for kind, letter in _TAR_KINDS.items() if letter == node.kind), tarfile.LNKTYPE)
            attributes = tree.get(node.same_as, node)  # a link's header repeats those of the file
            info.mode, (info.uid, info.gid), info.mtime = attributes.mode, attributes.owner, 1_500_000_000
            if node.kind == "f":
                info.size = len(node.data)
            elif node.kind in {"c", "b"}:
                info.devmajor, info.devminor = _device(node)
            info.linkname = node.same_as or (os.fsdecode(node.data) if node.kind == "l" else "")
            tar.addfile(info, io.BytesIO(node.data) if node.kind == "f" else None)
    return out.getvalue()


def _device(node: Node) -> tuple[int, int]:
    major, minor = node.data.decode().split(":")
    return int(major), int(minor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image comes to."""

    tree: Tree
    config: Mapping[str, Any]

    def said(self, base: "Image | None") -> tuple[list[str], dict[str, Any]]:
        """Say what it differs in from its base, or all: the tree's lines, and the configuration."""
        under = base or Image(tree={}, config={})
        lines = [_said(path, node) for path, node in sorted(self.tree.items()) if under.tree.get(path) != node]
        gone = sorted(path for path in under.tree if path not in self.tree)
        lines += [f"- {_quoted(path)}" for path in gone if os.path.dirname(path) not in gone]
        config = {key: value for key, value in self.config.items() if under.config.get(key) != value}
        return lines, config | {key: "none" for key in under.config if key not in self.config}


def _said(path: str, node: Node) -> str:
    if node.same_as:
        return f"h {_quoted(path)} {json.dumps(node.same_as)}"
    words = [node.kind, f"{node.mode:o}", f"{node.owner[0]}:{node.owner[1]}", _quoted(path)]
    if node.kind in {"f", "l", "c", "b"}:
        words.append(json.dumps(os.fsdecode(node.data), ensure_ascii=False))
    return " ".join(words)


def _quoted(path: str) -> str:
    return path if re.fullmatch(r'[^\s"\\]+', path) else json.dumps(path)


def read_archive(content: io.BufferedIOBase) -> Image:
    """Read what `docker save` writes: one image."""
    with tarfile.open(fileobj=content) as tar:

        def member(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None, name
            return file.read()

        (found,) = json.loads(member("manifest.json"))
        layers = (member(name) for name in found["Layers"])
        return Image(tree=flattened(layers), config=said_config(json.loads(member(found["Config"]))))


def read_layout(layout: Path, image_id: str) -> Image:
    """Read an image from an OCI layout on disk by its id, the digest of its configuration."""

    def blob(digest: str) -> bytes:
        return layout.joinpath("blobs", *digest.split(":")).read_bytes()

    for each in json.loads(layout.joinpath("index.json").read_bytes())["manifests"]:
        manifest = json.loads(blob(each["digest"]))
        if manifest.get("config", {}).get("digest") == image_id:
            return Image(
                tree=flattened(blob(one["digest"]) for one in manifest["layers"]), config=said_config(json.loads(blob(image_id)))
            )
    raise ValueError(f"{image_id} is not in {layout}")


def flattened(layers: Iterable[bytes]) -> Tree:
    """Lay layers upon each other (OCI image specification, layer.md)."""
    tree: dict[str, list[Node]] = {}  # names of one file share their list
    for layer in layers:
        mine: set[str] = set()
        plain = Decompressed(io.BytesIO(layer))
        with tarfile.open(fileobj=io.BytesIO(plain.read()), mode="r:") as tar:
            for member in tar:
                path = os.path.normpath(member.name).lstrip("/")
                above, name = os.path.split(path)
                if name == ".wh..wh..opq":
                    _remove(tree, above, mine, itself=False)
                elif name.startswith(".wh."):
                    _remove(tree, os.path.join(above, name[4:]), mine, itself=True)
                elif path != ".":
                    if path in tree and not (member.isdir() and tree[path][0].kind == "d"):
                        _remove(tree, path, set(), itself=True)
                    tree[path] = tree[os.path.normpath(member.linkname).lstrip("/")] if member.islnk() else [_node(tar, member)]
                    mine.add(path)
                    while above and above not in tree:
                        tree[above] = [Node(kind="d", mode=0o755)]
                        above = os.path.dirname(above)
    first = {id(node): path for path, node in sorted(tree.items(), reverse=True)}
    return {
        path: node[0] if first[id(node)] == path else Node(kind="h", mode=0, same_as=first[id(node)]) for path, node in tree.items()
    }


def read_tree(content: io.BytesIO) -> Tree:
    """Read a whole file system from one tar."""
    return flattened([content.getvalue()])


def _remove(tree: dict[str, list[Node]], path: str, kept: set[str], *, itself: bool) -> None:
    for each in [one for one in tree if one.startswith(f"{path}/" if path else "") or (itself and one == path)]:
        if each not in kept:
            del tree[each]


def _node(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Node:
    kind = _TAR_KINDS[member.type]
    data = b""
    if kind == "f":
        file = tar.extractfile(member)
        data = file.read() if file else b""
    elif kind == "l":
        data = os.fsencode(member.linkname)
    elif kind in {"c", "b"}:
        data = f"{member.devmajor}:{member.devminor}".encode()
    return Node(kind=kind, mode=0o777 if kind == "l" else member.mode & 0o7777, owner=(member.uid, member.gid), data=data)


_SETS = ("ExposedPorts", "Volumes")
_KEYS = ("User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "StopSignal", "Healthcheck", "Shell", "OnBuild", *_SETS)


def said_config(document: Mapping[str, Any]) -> dict[str, Any]:
    """An image's configuration without what says nothing: empty values, the tool's own label, the working directory `/`."""
    config = document.get("config") or {}
    said = {key: sorted(config[key]) if key in _SETS else config[key] for key in _KEYS if config.get(key)}
    if said.get("WorkingDir") == "/":
        del said["WorkingDir"]
    if "Labels" in said:
        said["Labels"] = {key: value for key, value in said["Labels"].items() if not key.startswith("io.buildah.")}
    if "Healthcheck" in said:
        said["Healthcheck"] = {key: value for key, value in said["Healthcheck"].items() if value}
    if document.get("author"):
        said["Author"] = document["author"]
    return {key: value for key, value in said.items() if value}


def differences(found: tuple[Sequence[str], Mapping[str, Any]], wanted: tuple[Sequence[str], Mapping[str, Any]]) -> list[str]:
    """Say how two images that were said differ."""
    words = [f"has: {line}" for line in found[0] if line not in wanted[0]]
    words += [f"lacks: {line}" for line in wanted[0] if line not in found[0]]
    for key in sorted({*found[1], *wanted[1]}):
        if found[1].get(key) != wanted[1].get(key):
            words.append(f"{key} is {found[1].get(key)!r} instead of {wanted[1].get(key)!r}")
    return words


PEERS = ("docker 28.5", "docker 20.10", "docker 20.10 classic", "buildah 1.43", "buildah 1.28")
"""Whom the cases were compared with. `docker` alone is its builder BuildKit."""


def summary(all_cases: Sequence[Case]) -> str:
    """How many cases each of them makes alike, for the documentation."""
    rows = ["| | same image | another image | can't build it |", "|---|---|---|---|"]
    for peer in PEERS:
        reasons = [case.peers[peer] for case in all_cases if peer in case.peers]
        unable = sum(reason.startswith("can’t: ") for reason in reasons)
        rows.append(f"| {peer} | {len(all_cases) - len(reasons)} | {len(reasons) - unable} | {unable} |")
    return "\n".join(rows)


def table(all_cases: Sequence[Case]) -> str:
    """The table for the documentation: `=` is the same image, `≠` another one, `✗` none."""
    rows = [f"| Dockerfile | {' | '.join(PEERS)} |", f"|---|{'---|' * len(PEERS)}"]
    reasons: list[str] = []
    for case in all_cases:
        cells = []
        for peer in PEERS:
            reason = case.peers.get(peer, "")
            if not reason:
                cells.append("=")
                continue
            if reason not in reasons:
                reasons.append(reason)
            cells.append(f"{'✗' if reason.startswith('can’t: ') else '≠'} {reasons.index(reason) + 1}")
        rows.append(f"| [{case.name}](../tests/system/dockerfiles/{case.name}/Dockerfile) | {' | '.join(cells)} |")
    texts = [reason.removeprefix("can’t: ") for reason in reasons]
    notes = [f"{number}. {text[:1].upper()}{text[1:]}" for number, text in enumerate(texts, 1)]
    return "\n".join([*rows, "", *notes])


if __name__ == "__main__":  # what docs/compared-with-docker.md has to say
    buildable = [case for case in cases() if not case.error]
    print(f"{summary(buildable)}\n\n{table(buildable)}")
