"""What tests of transports say things with: places in a directory of the test's own, copying as simply as can be, tars by hand."""

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import archives
import pytest

from lamina.archive.compression import Decompressed
from lamina.errors import LaminaError
from lamina.model.digest import Digest
from lamina.model.image import INDEX_TYPES, Descriptor, Index, Manifest
from lamina.model.reference import Reference
from lamina.registry.places import Place, Transport, open_destination, open_source, parse_place
from lamina.registry.transport import Destination, Document, Source
from lamina.store.content import ContentStore
from lamina.store.database import Database
from lamina.store.images import ImageStore

HAS_PEERS = os.environ.get("LAMINA_PEERS") == "1"
FILES = ("docker-archive", "oci", "oci-archive", "dir")
DAEMON_NAME = f"lamina-test-{os.getpid()}:1"
EVERYWHERE = (*FILES, *(("docker-daemon",) if HAS_PEERS else ()))
LAYERS = [
    archives.layer({"etc": archives.folder(), "etc/one": "one\n" * 5000, "etc/link": archives.link("one")}),
    archives.layer({"etc/two": "two\n" * 5000, "etc/one": "another one\n"}),
]


def place(text: str | Path) -> Place:
    return parse_place(str(text), bare=Transport.STORE)


def in_form(form: str, directory: Path, name: str = "it") -> str:
    """A place of this form, in a directory of the test's own."""
    return {
        "docker-archive": f"docker-archive:{directory}/{name}.tar:place/app:1",
        "oci": f"oci:{directory}/{name}.layout:1",
        "oci-archive": f"oci-archive:{directory}/{name}.oci.tar:1",
        "dir": f"dir:{directory}/{name}.dir",
        "docker-daemon": f"docker-daemon:{DAEMON_NAME}",
    }[form]


def new_store(directory: Path) -> ImageStore:
    """An empty image store."""
    root = directory / "store"
    root.mkdir()
    return ImageStore(ContentStore(str(root)), Database(str(root / "lamina.db")))


class Copying:
    """Copies between places, as simply as can be: what is tested are the places."""

    def __init__(self, images: ImageStore) -> None:
        self.images = images

    def __call__(self, source: str, target: str, *, names: bool = False) -> Document:
        where = place(target)
        opened = open_source(place(source), self.images, plain_layers=where.transport.wants_plain_layers)
        try:
            return self.put(opened, target, names=opened.names if names else ())
        finally:
            opened.close()

    def put(self, source: Source, target: str, *, names: Sequence[Reference] = ()) -> Document:
        destination = open_destination(place(target), self.images, names=names)
        try:
            return transfer(source, destination)
        finally:
            destination.close()

    def read(self, source: str) -> "Found":
        opened = open_source(place(source), self.images)
        try:
            return Found(opened)
        finally:
            opened.close()


def transfer(source: Source, destination: Destination) -> Document:
    root = source.document()
    children = []
    if root.media_type in INDEX_TYPES:
        children = [source.document(one.digest) for one in Index.from_bytes(root.content).manifests]

    def move(descriptor: Descriptor) -> None:
        if not destination.has_blob(descriptor):
            with source.blob(descriptor) as content:
                destination.put_blob(descriptor, content)

    for document in children or [root]:
        manifest = Manifest.from_bytes(document.content)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(move, (manifest.config, *manifest.layers)))
    for document in children:
        destination.put_document(document, is_root=False)
    destination.put_document(root, is_root=True)
    return root


class Found:
    """What a source offers, read and checked."""

    def __init__(self, source: Source) -> None:
        self.names = [name.familiar for name in source.names]
        self.root = source.document()
        self.config = b""
        self.diff_ids: list[str] = []
        if self.root.media_type in INDEX_TYPES:
            return
        manifest = Manifest.from_bytes(self.root.content)
        self.config = blob_of(source, manifest.config)
        for layer in manifest.layers:
            plain = Decompressed(io.BytesIO(blob_of(source, layer)))
            plain.finish()
            self.diff_ids.append(plain.diff_id)

    @property
    def config_digest(self) -> str:
        return sha(self.config)


def blob_of(source: Source, descriptor: Descriptor) -> bytes:
    with source.blob(descriptor) as content:
        data = b"".join(iter(lambda: content.read(10_001), b""))
    assert len(data) == descriptor.size_bytes
    assert Digest.of(data) == descriptor.digest
    half = descriptor.size_bytes // 2
    with source.blob(descriptor, half) as content:
        assert b"".join(iter(lambda: content.read(777_777), b"")) == data[half:]
    return data


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


DIFF_IDS = [sha(layer) for layer in LAYERS]


def skopeo(*words: str) -> bytes:
    done = subprocess.run(["skopeo", *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, hidden ones too."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def fails(error: type[LaminaError], message: str, call: Callable[[], object], *, hint: str = "") -> None:
    with pytest.raises(error) as caught:
        call()
    assert message in caught.value.message
    assert hint in caught.value.hint


def write_tar(path: Path, members: dict[str, Any], **options: Any) -> Path:
    """A tar of files; a value (type, link) is another kind of member."""
    with tarfile.open(path, "w", **options) as tar:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(value, tuple):
                info.type, info.linkname = value
                tar.addfile(info)
            else:
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
    return path


def read_tar(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
