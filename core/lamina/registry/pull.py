"""`pull`: an image from any source into the store, verified before it is visible, its layers unpacked while they come.

Layers come in parallel (`fetch.py`). Meanwhile they are decompressed, their diff_ids and tars checked, and unpacked onto a storage
driver, once and in their order: from the files that are still growing. What came is then recorded in one transaction. After an
error nothing is left: no blob, no unpacked layer that wasn't there before.
"""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lamina.archive.compression import Compression, Decompressed
from lamina.archive.layer import LayerTar
from lamina.dataclasses import dataclass, field
from lamina.errors import ArchiveError, IntegrityError, LaminaError, NotFoundError, NotUsableError
from lamina.model.digest import Digest
from lamina.model.image import (
    CONFIG_TYPES,
    INDEX_TYPES,
    LAYER_TYPES,
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Index,
    Manifest,
    Platform,
)
from lamina.model.image_config import ImageConfig
from lamina.model.platforms import choose, fits, offered, this_machine
from lamina.registry.fetch import Fetch, Fetches
from lamina.registry.remote import RegistrySource
from lamina.registry.report import Report, State, Transferred, tell_nobody
from lamina.registry.transport import Document
from lamina.store.image_places import remember_blobs
from lamina.store.images import LayerBlob
from lamina.store.layer_ingest import DEFAULT_MAX_BYTES, Budget, check_layer
from lamina.store.layers import Unpacking, check_depth
from lamina.store.operations import Operation

if TYPE_CHECKING:
    from lamina.api.entries import LayerReader
    from lamina.model.reference import Reference
    from lamina.registry.transport import Source
    from lamina.store.content import Ingest
    from lamina.store.images import Image, ImageStore

MAX_INDEX_DEPTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull has brought."""

    image: "Image"
    digest: Digest
    """Of the manifest or index at the source: what it is pulled again by."""
    is_new: bool
    """Whether anything here is other than before."""
    warning: str = ""


def pull(
    source: "Source",
    images: "ImageStore",
    *,
    names: "Sequence[Reference]",
    run_dir: str,
    platform: Platform | None = None,
    unpacking: Unpacking | None = None,
    report: Report = tell_nobody,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Pulled:
    """Bring an image into the store under these names; `platform` chooses from an index, else this machine does.

    Raises `NotFoundError`, `TransferError`, `IntegrityError`, `ArchiveError` and what a registry refuses.
    """
    one = _Pull(
        source=source,
        images=images,
        names=names,
        run_dir=run_dir,
        platform=platform,
        unpacking=unpacking,
        report=report,
        max_bytes=max_bytes,
    )
    try:
        return one.run()
    except IntegrityError:
        if not isinstance(source, RegistrySource) or not source.distrust_mirrors():
            raise
        return one.run()  # it was a mirror that gave something else; what was right needn't come again


def select(source: "Source", document: Document, wanted: Platform | None, *, depth: int = 0) -> Document:
    """Follow indexes to the manifest for a platform; a manifest is itself. Raises `NotFoundError`."""
    if document.media_type not in INDEX_TYPES:
        return document
    if depth >= MAX_INDEX_DEPTH:
        raise ArchiveError(f"'{source.described}' is an index of indexes of indexes")
    index = Index.from_bytes(document.content, f"the index of '{source.described}'")
    chosen = choose(index.manifests, wanted or this_machine())
    if chosen is None and len(index.manifests) == 1 and index.manifests[0].platform is None:
        chosen = index.manifests[0]
    if chosen is None:
        has = offered(index.manifests)
        raise NotFoundError(
            f"'{source.described}' has no image for {wanted or this_machine()}",
            hint=f"it has {has}: choose one with --platform" if has else "it names no platform",
        )
    found = source.document(chosen.digest)
    if found.digest != chosen.digest or len(found.content) != chosen.size_bytes:
        raise IntegrityError(f"'{source.described}': the manifest {chosen.digest} is another one: {found.digest}")
    return select(source, found, wanted, depth=depth + 1)


def read_manifest(source: "Source", document: Document) -> Manifest:
    """Read the manifest of an image that can run: what else registries hold is refused by name."""
    manifest = Manifest.from_bytes(document.content, f"the manifest of '{source.described}'")
    if manifest.config.media_type not in CONFIG_TYPES:
        raise ArchiveError(
            f"'{source.described}' is no image but an artifact of the type '{manifest.config.media_type[:100]}'",
            hint="only images can be pulled",
        )
    for layer in manifest.layers:
        if layer.media_type not in LAYER_TYPES:
            raise ArchiveError(f"'{source.described}': a layer has the unknown type '{layer.media_type[:100]}'")
        if layer.digest.algorithm != "sha256":
            raise ArchiveError(f"'{source.described}': the digest algorithm {layer.digest.algorithm} is not supported")
    if manifest.config.digest.algorithm != "sha256" or manifest.config.size_bytes > MAX_DOCUMENT_BYTES:
        raise ArchiveError(f"'{source.described}': its configuration has {manifest.config.size_bytes} bytes and can't be used")
    return manifest


@dataclass(slots=True, kw_only=True)
class _Pull:
    source: "Source"
    images: "ImageStore"
    names: "Sequence[Reference]"
    run_dir: str
    platform: Platform | None
    unpacking: Unpacking | None
    report: Report
    max_bytes: int
    found: dict[Digest, LayerBlob] = field(default_factory=dict)

    def run(self) -> Pulled:
        """Do it; take away what was done if it fails."""
        root = self.source.document()
        document = select(self.source, root, self.platform)
        manifest = read_manifest(self.source, document)
        known_as = [(name, root.digest) for name in dict.fromkeys(each.name for each in self.names)]
        operation = Operation(name="pull")
        try:
            with self.images.ingest() as ingest:
                before = [self._named(each) for each in self.names]
                known = self.images.recognise(manifest.config.digest, names=self.names, known_as=known_as)
                if known is not None:
                    pulled = Pulled(image=known, digest=root.digest, is_new=any(each != known.id for each in before))
                else:
                    image, warning = self._bring(ingest, document, manifest, known_as, operation)
                    pulled = Pulled(image=image, digest=root.digest, is_new=True, warning=warning)
        except BaseException:
            self._undo(operation)
            raise
        self._end(operation)
        if pulled.is_new:  # one that failed while this one went on had to leave what it had
            self._collect()
        if isinstance(self.source, RegistrySource):
            with self.images.database.transaction() as tx:
                blobs = [manifest.config.digest, *(layer.digest for layer in manifest.layers)]
                remember_blobs(tx, self.source.reference.domain, self.source.reference.path, blobs)
        return pulled

    def _named(self, name: "Reference") -> Digest | None:
        try:
            return self.images.resolve(name.canonical).id
        except LaminaError:
            return None

    def _bring(
        self, ingest: "Ingest", document: Document, manifest: Manifest, known_as: list[tuple[str, Digest]], operation: Operation
    ) -> "tuple[Image, str]":
        lock = threading.Lock()
        fetch_config = self._fetch(manifest.config, ingest, lock, tell_nobody)
        fetch_config.run()
        fetch_config.close()
        fetch_config.wait()
        content = self.images.content.read(manifest.config.digest)
        config = ImageConfig.from_bytes(content, f"the configuration of '{self.source.described}'")
        warning = self._check(manifest, config)
        unique = {layer.digest: layer for layer in manifest.layers}
        self._check_space(unique.values())
        fetches = {digest: self._fetch(layer, ingest, lock, self.report) for digest, layer in unique.items()}
        with Fetches(list(fetches.values())):
            budget = Budget.of(self.max_bytes)
            self._unpack(manifest, config, fetches, budget, operation)
            for number, layer in enumerate(manifest.layers):
                if layer.digest not in self.found:
                    self._learn(layer, config.diff_ids[number], fetches[layer.digest], budget)
            for fetch in fetches.values():
                fetch.wait()
        layers = [self.found[layer.digest] for layer in manifest.layers]
        return self.images.add(
            ingest, manifest=document.content, config=content, layers=layers, names=self.names, known_as=known_as
        ), warning

    def _fetch(self, descriptor: Descriptor, ingest: "Ingest", lock: threading.Lock, report: Report) -> Fetch:
        return Fetch(descriptor, self.source, self.images.content, ingest, run_dir=self.run_dir, report=report, lock=lock)

    def _check(self, manifest: Manifest, config: ImageConfig) -> str:
        """Refuse what can't become a container here; gives what to warn of."""
        described = self.source.described
        if len(config.diff_ids) != len(manifest.layers):
            raise IntegrityError(
                f"'{described}': the manifest has {len(manifest.layers)} layers, the configuration {len(config.diff_ids)}"
            )
        if config.os != "linux":
            raise NotUsableError(f"'{described}' is an image for {config.os}, which can't run here", hint="choose one for linux")
        if self.platform is not None and not fits(config.platform, self.platform):
            raise NotFoundError(
                f"'{described}' is for {config.platform}, not for {self.platform}",
                hint="leave --platform out, or choose another image",
            )
        if self.platform is None and not fits(config.platform, this_machine()):
            return f"the image '{described}' is for {config.platform}, and this machine is {this_machine()}"
        return ""

    def _check_space(self, layers: Iterable[Descriptor]) -> None:
        """Refuse before the first byte what can't have a place here, such as a layer that is said to have an exbibyte."""
        content = self.images.content
        wanted = sum(layer.size_bytes for layer in layers if not content.exists(layer.digest))
        space = os.statvfs(content.tmp_dir)
        free = space.f_bavail * space.f_frsize
        if wanted > free:
            place = content.tmp_dir
            raise LaminaError(
                f"'{self.source.described}': its layers take {wanted >> 20} MiB, and {free >> 20} MiB are free in '{place}'",
                hint="free some space, or let --root be on a larger disk",
            )

    def _unpack(
        self, manifest: Manifest, config: ImageConfig, fetches: Mapping[Digest, Fetch], budget: Budget, operation: Operation
    ) -> None:
        """Unpack onto the driver what it doesn't have, learning on the way what the layers are."""
        if self.unpacking is None or not manifest.layers:
            return
        layers, driver = self.unpacking.layers, self.unpacking.driver
        keys = [chain.hex for chain in config.chain_ids]
        try:
            check_depth(driver, len(keys))
        except NotUsableError:
            return  # another driver may unite so many; who runs it on this one is told
        layers.intend(driver, keys, operation)

        @contextlib.contextmanager
        def open_layer(index: int) -> "Iterator[LayerReader]":
            layer, diff_id = manifest.layers[index], config.diff_ids[index]
            with self._read(layer, diff_id, fetches[layer.digest], budget) as plain:
                yield LayerTar(plain, require_end=False)

        layers.unpack(driver, keys, open_layer, operation)

    def _learn(self, layer: Descriptor, diff_id: Digest, fetch: Fetch, budget: Budget) -> None:
        """Find out what a layer is that wasn't unpacked: known already, or by reading it."""
        fetch.wait()
        known = self.images.layer_blob(layer.digest, layer.media_type)
        if known is not None:
            if known.diff_id != diff_id:
                raise self._wrong(layer, diff_id, known.diff_id)
            self.found[layer.digest] = known
            if not fetch.was_there:
                self._tell(layer, State.DONE)
            return
        with self._read(layer, diff_id, fetch, budget) as plain:
            check_layer(plain)

    @contextlib.contextmanager
    def _read(self, layer: Descriptor, diff_id: Digest, fetch: Fetch, budget: Budget) -> "Iterator[Decompressed]":
        """Give a layer's tar while the blob comes. At its end it is what manifest and configuration name, or an error."""
        with fetch.open() as raw:
            limit = budget.left_bytes
            if not fetch.was_there:
                self._tell(layer, State.UNPACKING)
            with Decompressed(raw, limit_bytes=limit, threaded=True) as plain:
                try:
                    if plain.compression not in {Compression.NONE, Compression.GZIP, Compression.ZSTD}:
                        raise ArchiveError(f"'{self.source.described}': layer {layer.digest} is packed with {plain.compression}")
                    yield plain
                    plain.finish()
                except ArchiveError as error:
                    fetch.wait()  # what can't be read may be what was never meant to come: its digest says that
                    raise ArchiveError(
                        f"'{self.source.described}': layer {layer.digest}: {error.message}", hint=error.hint
                    ) from None
                except BaseException:
                    fetch.cancel()  # else the thread that unpacks would wait for more of it
                    raise
            budget.spend(plain.size_bytes)
            if plain.digest != layer.digest:  # of a blob that was there before
                raise IntegrityError(f"layer {layer.digest} is damaged in the image store", hint="remove the images that have it")
            if plain.diff_id != diff_id:
                raise self._wrong(layer, diff_id, Digest(plain.diff_id))
            fetch.wait()
            blob = LayerBlob(
                digest=layer.digest,
                media_type=layer.media_type,
                stored_bytes=layer.size_bytes,
                diff_id=diff_id,
                size_bytes=plain.size_bytes,
            )
            self.images.remember_layer(blob)
            self.found[layer.digest] = blob
            if not fetch.was_there:
                self._tell(layer, State.DONE)

    def _wrong(self, layer: Descriptor, diff_id: Digest, found: Digest) -> IntegrityError:
        return IntegrityError(
            f"'{self.source.described}': layer {layer.digest} unpacks to {found} where the configuration names {diff_id}",
            hint="don't trust this image",
        )

    def _tell(self, layer: Descriptor, state: State) -> None:
        self.report(Transferred(digest=layer.digest, state=state, done_bytes=layer.size_bytes, total_bytes=layer.size_bytes))

    def _undo(self, operation: Operation) -> None:
        """Take away what was unpacked for an image that doesn't come, and blobs that nothing has."""
        with contextlib.suppress(LaminaError, OSError):
            if self.unpacking is not None and operation.id is not None:
                self.unpacking.layers.undo_intended(operation.id, self.images.layer_keys)
        self.found.clear()
        self._end(operation)
        self._collect()

    def _collect(self) -> None:
        """Delete blobs that nothing has, unless somebody is adding some right now: who is the last does it."""
        with contextlib.suppress(LaminaError, OSError):
            self.images.delete_unreferenced_blobs(wait=False)

    def _end(self, operation: Operation) -> None:
        with self.images.database.transaction() as tx:
            if self.unpacking is not None:
                self.unpacking.layers.forget_intended(tx, operation.id)
            operation.end_unless_owning(tx)
