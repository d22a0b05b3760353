"""A Docker data directory (`/var/lib/docker`) read as it lies, without Docker: images, layers, containers, volumes.

It is read through a clone of its mount that is read-only and leaves access times alone (open_tree(2), mount_setattr(2)), so
nothing in it can change. Not here: what becomes of what is found (`usecases/adopt.py`), what a container's documents mean
(`docker_config.py`), and putting a layer's tar together (`tar_split.py`).

A map, as Docker 1.10 (2016) and all later ones with the same storage have it; DRIVER is `overlay2` or `aufs`:

    image/DRIVER/repositories.json                  {"Repositories": {NAME: {REFERENCE: IMAGE ID}}}
    image/DRIVER/imagedb/content/sha256/<hex>       an image's configuration; its digest is the image's id
    image/DRIVER/imagedb/metadata/sha256/<hex>/parent   the image that it was built on here, if any
    image/DRIVER/layerdb/sha256/<chain ID>/         cache-id, diff (the diff_id), parent (a chain ID), size, tar-split.json.gz
    image/DRIVER/layerdb/mounts/<container>/        mount-id, init-id, parent (a chain ID)
    overlay2/<cache-id>/diff, aufs/diff/<cache-id>  a layer's files, or a container's own by its mount-id
    containers/<id>/                                config.v2.json, hostconfig.json, hostname, hosts, the log
    volumes/<name>/_data                            a volume's files; opts.json for one that is mounted from elsewhere
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina import json
from lamina.api.types import WhiteoutFormat
from lamina.archive import paths
from lamina.errors import ArchiveError, LaminaError, NotFoundError, UsageError
from lamina.linux.mount import MS_NOATIME, MS_RDONLY, open_tree, set_attributes
from lamina.model.digest import Digest
from lamina.model.reference import Reference

_MAX_DOCUMENT_BYTES = 64 << 20
_LOCKED_WHILE_IT_RUNS = (
    "volumes/metadata.db",
    "network/files/local-kv.db",
    "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
    "buildkit/metadata_v2.db",
)
"""Databases that a running daemon holds by flock(2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDriver:
    """One of Docker's storage drivers: how its layers lie. `name` is also that of the driver here that has the same form."""

    name: str
    whiteouts: WhiteoutFormat
    layer_path: str


GRAPH_DRIVERS = {
    each.name: each
    for each in (
        GraphDriver(name="overlay2", whiteouts=WhiteoutFormat.OVERLAY, layer_path="overlay2/{}/diff"),
        GraphDriver(name="aufs", whiteouts=WhiteoutFormat.AUFS, layer_path="aufs/diff/{}"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerImage:
    """An image as Docker has it. An intermediate one has no name and another was built on it: `docker images` doesn't list it."""

    id: Digest
    graph: GraphDriver
    names: tuple[Reference, ...]
    is_intermediate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerContainer:
    """A container as Docker has it: two JSON documents, and where its own layer lies."""

    id: str
    name: str
    image_id: str
    graph: GraphDriver
    mount_id: str
    config: Mapping[str, Any]
    host_config: Mapping[str, Any]

    @property
    def is_running(self) -> bool:
        """Whether Docker wrote down that it runs."""
        state = self.config.get("State") or {}
        return bool(state.get("Running") or state.get("Paused") or state.get("Restarting"))


@dataclass(slots=True, kw_only=True)
class DockerData:
    """An open data directory. `path` is how the user named it; `root` is where it can be read."""

    path: str
    root: str
    graphs: tuple[GraphDriver, ...]
    problems: list[str] = field(default_factory=list)
    """What couldn't be read while listing, a line each."""

    def images(self) -> list[DockerImage]:
        """List all images, parents before those built on them as far as that is known."""
        found = []
        for graph in self.graphs:
            folder = f"{self.root}/image/{graph.name}/imagedb"
            names = self._names(graph)
            ids = [name for name in _listdir(f"{folder}/content/sha256") if _is_hex(name)]
            parents = {each: _read_text(f"{folder}/metadata/sha256/{each}/parent").removeprefix("sha256:") for each in ids}
            built_on = set(parents.values())
            for each in sorted(ids, key=lambda one: (_depth(one, parents), one)):
                image_id = Digest(f"sha256:{each}")
                own = tuple(names.get(image_id, ()))
                found.append(DockerImage(id=image_id, graph=graph, names=own, is_intermediate=not own and each in built_on))
        return found

    def config(self, image: DockerImage) -> bytes:
        """Read an image's configuration. Raise `ArchiveError` if it isn't the one that its name says."""
        path = f"image/{image.graph.name}/imagedb/content/sha256/{image.id.hex}"
        content = self._bytes(path)
        if Digest.of(content) != image.id:
            raise ArchiveError(f"'{self.path}/{path}' is damaged: its digest is {Digest.of(content)}")
        return content

    def layer_dir(self, graph: GraphDriver, cache_id: str) -> str:
        """Where a layer's files lie, by its cache-id or mount-id."""
        return f"{self.root}/{graph.layer_path.format(cache_id)}"

    def cache_id(self, graph: GraphDriver, chain: Digest, diff_id: Digest) -> str:
        """Give a layer's cache-id. Raise `NotFoundError` if Docker doesn't have the layer, `ArchiveError` if it has another."""
        folder = self.layer_record(graph, chain)
        cache_id, recorded = _read_text(f"{folder}/cache-id"), _read_text(f"{folder}/diff")
        if not cache_id or "/" in cache_id or cache_id.startswith("."):
            raise NotFoundError(
                f"layer {chain.short} isn't in '{self.path}'", hint="Docker wouldn't find it either; pull the image again"
            )
        if recorded != str(diff_id):
            raise ArchiveError(f"layer {chain.short} in '{self.path}' is recorded as {recorded or 'nothing'}, not {diff_id}")
        if not os.path.isdir(self.layer_dir(graph, cache_id)):
            raise NotFoundError(f"the files of layer {chain.short} aren't in '{self.path}/{graph.layer_path.format(cache_id)}'")
        return cache_id

    def layer_record(self, graph: GraphDriver, chain: Digest) -> str:
        """Where Docker keeps what it knows of a layer."""
        return f"{self.root}/image/{graph.name}/layerdb/sha256/{chain.hex}"

    def containers(self) -> list[DockerContainer]:
        """List the containers; what can't be read is a line in `problems`."""
        found = []
        for container_id in sorted(name for name in _listdir(f"{self.root}/containers") if _is_hex(name)):
            try:
                found.append(self._container(container_id))
            except LaminaError as error:
                self.problems.append(f"container '{container_id[:12]}' can't be adopted: {error.message}")
        return found

    def volumes(self) -> list[str]:
        """List the volumes of the driver `local`."""
        return sorted(name for name in _listdir(f"{self.root}/volumes") if os.path.isdir(f"{self.root}/volumes/{name}/_data"))

    def volume_options(self, name: str) -> dict[str, str]:
        """Give a volume's own mount options, as `docker volume create --opt` took them; empty for a plain one."""
        if not os.path.exists(f"{self.root}/volumes/{name}/opts.json"):
            return {}
        options = self._document(f"volumes/{name}/opts.json")
        named = {"type": "MountType", "device": "MountDevice", "o": "MountOpts"}
        return {key: str(options[field]) for key, field in named.items() if options.get(field)}

    def daemon_lock(self) -> str:
        """Give the path of a file by which a running Docker daemon shows itself; "" if none seems to run on this directory."""
        for name in _LOCKED_WHILE_IT_RUNS:
            try:
                fd = os.open(f"{self.root}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"{self.path}/{name}"
            finally:
                os.close(fd)
        return ""

    def _container(self, container_id: str) -> DockerContainer:
        config = self._document(f"containers/{container_id}/config.v2.json")
        name = str(config.get("Driver") or "")
        graph = next((each for each in self.graphs if each.name == name), None)
        if graph is None:
            raise LaminaError(f"it is on Docker's storage driver '{name}'")
        mount_id = _read_text(f"{self.root}/image/{name}/layerdb/mounts/{container_id}/mount-id")
        if not mount_id or "/" in mount_id or not os.path.isdir(self.layer_dir(graph, mount_id)):
            raise NotFoundError("its own layer isn't there")
        self._check_owners(graph, _read_text(f"{self.root}/image/{name}/layerdb/mounts/{container_id}/init-id"))
        return DockerContainer(
            id=container_id,
            name=str(config.get("Name") or "").removeprefix("/") or container_id[:12],
            image_id=str(config.get("Image") or ""),
            graph=graph,
            mount_id=mount_id,
            config=config,
            host_config=self._document(f"containers/{container_id}/hostconfig.json"),
        )

    def _check_owners(self, graph: GraphDriver, init_id: str) -> None:
        """Refuse files whose owners are shifted: with userns-remap, what is root's in the container isn't root's on the disk."""
        try:
            owner = os.lstat(f"{self.layer_dir(graph, init_id)}/dev").st_uid if init_id else 0
        except FileNotFoundError:
            return
        if owner:
            raise LaminaError(
                f"its files' owners are shifted by {owner} (userns-remap)", hint="use `docker export` and `lamina import`"
            )

    def _names(self, graph: GraphDriver) -> dict[Digest, list[Reference]]:
        """Read the names that images have; those with a digest name a registry's manifest, which isn't kept, and are left out."""
        path = f"image/{graph.name}/repositories.json"
        found: dict[Digest, list[Reference]] = {}
        if not os.path.exists(f"{self.root}/{path}"):
            return found
        repositories = self._document(path).get("Repositories")
        for references in (repositories if isinstance(repositories, dict) else {}).values():
            for text, image_id in (references if isinstance(references, dict) else {}).items():
                try:
                    reference, digest = Reference.parse(text), Digest(image_id)
                except UsageError as error:
                    self.problems.append(f"a name in '{self.path}/{path}' can't be read: {error.message}")
                    continue
                if reference.digest is None:
                    found.setdefault(digest, []).append(reference)
        return found

    def _document(self, path: str) -> dict[str, Any]:
        try:
            document = json.loads(self._bytes(path))
        except ValueError as error:
            raise ArchiveError(f"'{self.path}/{path}' can't be read: {error}") from error
        if not isinstance(document, dict):
            raise ArchiveError(f"'{self.path}/{path}' is not a JSON object")
        return document

    def _bytes(self, path: str) -> bytes:
        try:
            with open(f"{self.root}/{path}", "rb") as file:
                content = file.read(_MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            raise NotFoundError(f"'{self.path}/{path}' can't be read: {(error.strerror or '').lower()}") from error
        if len(content) > _MAX_DOCUMENT_BYTES:
            raise ArchiveError(f"'{self.path}/{path}' is longer than {_MAX_DOCUMENT_BYTES} bytes")
        return content


@contextlib.contextmanager
def opened(path: str) -> Iterator[DockerData]:
    """Open a data directory for reading. Raise `LaminaError` for what is none, or one in a form that can't be read."""
    try:
        mount_fd = open_tree(path)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
            raise
        raise NotFoundError(f"the directory '{path}' doesn't exist", hint="Docker's is /var/lib/docker") from error
    try:
        set_attributes(mount_fd, MS_RDONLY | MS_NOATIME)
        root = f"/proc/self/fd/{mount_fd}"
        found = set(_listdir(f"{root}/image"))
        graphs = tuple(graph for name, graph in GRAPH_DRIVERS.items() if os.path.isdir(f"{root}/image/{name}/layerdb"))
        if not graphs:
            raise _not_readable(path, root, found)
        yield DockerData(path=path.rstrip("/") or "/", root=root, graphs=graphs)
    finally:
        os.close(mount_fd)


def _not_readable(path: str, root: str, drivers: set[str]) -> LaminaError:
    if drivers:
        return LaminaError(
            f"'{path}' has layers of Docker's storage driver '{min(drivers)}', which can't be read without it",
            hint=f"what can be read is {' and '.join(GRAPH_DRIVERS)}",
        )
    if os.path.isdir(f"{root}/graph"):
        return LaminaError(
            f"'{path}' is in the form of Docker before 1.10, which has no image ids by content",
            hint="let Docker 1.10 to 23 migrate it",
        )
    if any("snapshotter" in name for name in _listdir(f"{root}/containerd/daemon")):
        return LaminaError(
            f"the images of '{path}' are in containerd's store, which can't be read", hint="use `docker save` and `lamina load`"
        )
    return LaminaError(
        f"'{paths.shown(path)}' is not a Docker data directory: it has no 'image'", hint="Docker's is /var/lib/docker"
    )


def _depth(image: str, parents: Mapping[str, str]) -> int:
    depth = 0
    while image and depth < len(parents):
        image, depth = parents.get(image, ""), depth + 1
    return depth


def _is_hex(name: str) -> bool:
    return len(name) == 64 and all(char in "0123456789abcdef" for char in name)


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_text(path: str) -> str:
    """Read one of Docker's one-line files; "" if it isn't there, or was emptied by a power cut."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip()
    except OSError:
        return ""
