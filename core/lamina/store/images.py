"""Images: which ones there are and what they are called. Not their bytes (`content.py`), nor unpacked layers (`layers.py`).

An image's id is the digest of its configuration. The database is the truth; `index.json` of the layout is written from it after
each change, so that tools which know OCI layouts find the same images under the same names.

Order of recording: blobs durable, then the row that names them, then the index. Of deleting: the row, the index, then the blobs.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from lamina.dataclasses import dataclass, fields
from lamina.errors import ArchiveError, ConflictError, IntegrityError, NotFoundError, UsageError
from lamina.model.digest import Digest
from lamina.model.reference import Reference
from lamina.store.image_lookup import find_row, name_meant, no_such_image
from lamina.store.image_places import digests_of, forget_image, remember_digest
from lamina.store.operations import Operation

if TYPE_CHECKING:
    import sqlite3

    from lamina.model.image import Descriptor, Manifest
    from lamina.model.image_config import ImageConfig
    from lamina.store.content import ContentStore, Ingest
    from lamina.store.database import Database

SCHEMA = """
    CREATE TABLE images (
        id TEXT PRIMARY KEY,               -- digest of the configuration
        manifest TEXT NOT NULL,            -- digest
        manifest_type TEXT NOT NULL,
        manifest_bytes INTEGER NOT NULL,
        stored_bytes INTEGER NOT NULL,     -- all blobs, as they lie
        size_bytes INTEGER NOT NULL,       -- all layers, uncompressed
        created_ns INTEGER NOT NULL,
        added_ns INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE image_names (
        reference TEXT PRIMARY KEY,        -- canonical
        image_id TEXT NOT NULL REFERENCES images (id) DEFERRABLE INITIALLY DEFERRED
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX image_names_by_image ON image_names (image_id);
    CREATE TABLE image_blobs (             -- what garbage collection must keep
        image_id TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (image_id, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE layer_blobs (             -- what was found out when a blob was read as a layer
        digest TEXT PRIMARY KEY,
        diff_id TEXT NOT NULL,
        size_bytes INTEGER NOT NULL        -- uncompressed
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX layer_blobs_by_diff_id ON layer_blobs (diff_id);
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBlob:
    """A layer as it lies in the store, with what was found out by reading it."""

    digest: Digest
    media_type: str
    stored_bytes: int
    diff_id: Digest
    size_bytes: int
    """Of the uncompressed tar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of the store."""

    id: Digest
    manifest: Digest
    manifest_type: str
    manifest_bytes: int
    stored_bytes: int
    """Of all its blobs, shared ones included."""
    size_bytes: int
    """Of all its layers, uncompressed: what `images` shows."""
    created_ns: int
    added_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUser:
    """A container made from an image."""

    container_id: str
    is_running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What a removal did, as `rmi` prints it: names taken away, then ids of images deleted."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[Digest, ...] = ()


class ImageStore:
    """The images of one root directory."""

    def __init__(self, content: "ContentStore", database: "Database") -> None:
        self.content = content
        self.database = database

    def add(
        self,
        ingest: "Ingest",
        *,
        manifest: bytes,
        config: bytes,
        layers: Sequence[LayerBlob],
        names: Sequence[Reference] = (),
        known_as: Sequence[tuple[str, Digest]] = (),
    ) -> Image:
        """Record an image whose layers `ingest` has committed; make it visible whole, under its names, or not at all.

        `known_as` are repositories, each with the digest by which it knows the image.

        An image that is there already keeps its blobs, if they are whole, and gets the names. Raise IntegrityError or ArchiveError
        if the documents and layers don't belong together.
        """
        image, image_layers = self._check(manifest, config, layers)
        ingest.put(config)
        ingest.put(manifest)
        ingest.flush()
        with self._changing() as tx:
            known = self.find_whole(image.id)
            if known is not None:
                image = known
            else:
                self._delete_rows(tx, image.id)
                columns = [getattr(image, name) for name in _COLUMNS]
                tx.execute(f"INSERT INTO images ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(columns))})", columns)
                for digest in {image.id, image.manifest, *(layer.digest for layer in image_layers)}:
                    tx.execute("INSERT INTO image_blobs (image_id, digest) VALUES (?, ?)", (image.id, digest))
                for layer in image_layers:
                    tx.execute(
                        "INSERT OR REPLACE INTO layer_blobs (digest, diff_id, size_bytes) VALUES (?, ?, ?)",
                        (layer.digest, layer.diff_id, layer.size_bytes),
                    )
            for name in names:
                self._name(tx, image.id, name)
            for repository, digest in known_as:
                remember_digest(tx, image.id, repository, digest)
        return image

    def remember_layer(self, layer: LayerBlob) -> None:
        """Note what was found out of a blob that is there, before any image has it: another pull then need not find out."""
        with self.database.transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO layer_blobs (digest, diff_id, size_bytes) VALUES (?, ?, ?)",
                (layer.digest, layer.diff_id, layer.size_bytes),
            )

    def layer_keys(self) -> set[str]:
        """List the keys of all layers of all images, on whatever driver they are unpacked."""
        return {chain.hex for chain_ids in self._chains() for chain in chain_ids}

    def _chains(self) -> "Iterator[tuple[Digest, ...]]":
        for image in self.images():
            with contextlib.suppress(NotFoundError, IntegrityError, ArchiveError):  # a damaged image has none
                yield self.config(image).chain_ids

    def known_as(self, image: Image) -> list[tuple[str, Digest]]:
        """List the repositories that are known to have the image, each with the digest by which it knows it."""
        return digests_of(self.database.connection, image.id)

    def recognise(
        self, image_id: Digest, *, names: Sequence[Reference] = (), known_as: Sequence[tuple[str, Digest]] = ()
    ) -> Image | None:
        """Give an image that is here whole more names, and note by which digests repositories know it; None if it isn't here.

        So an image takes no space again, though it may come packed in another way.
        """
        image = self.find_whole(image_id)
        if image is None or (not known_as and set(names) <= set(self.names(image))):
            return image
        with self._changing() as tx:
            if self._by_id(tx, image_id) is None:
                return None  # somebody has just removed it
            for name in names:
                self._name(tx, image_id, name)
            for repository, digest in known_as:
                remember_digest(tx, image_id, repository, digest)
        return image

    def _check(self, manifest: bytes, config: bytes, layers: Sequence[LayerBlob]) -> tuple[Image, list[LayerBlob]]:
        from lamina.model.image import Manifest
        from lamina.model.image_config import ImageConfig

        document, parsed = Manifest.from_bytes(manifest), ImageConfig.from_bytes(config)
        image_id = Digest.of(config)
        if document.config.digest != image_id or document.config.size_bytes != len(config):
            raise IntegrityError(f"the configuration is {image_id}, the manifest names {document.config.digest}")
        if len(parsed.diff_ids) != len(document.layers):
            raise IntegrityError(f"the manifest has {len(document.layers)} layers, the configuration {len(parsed.diff_ids)}")
        found = {layer.digest: layer for layer in layers}
        ordered = []
        for descriptor, diff_id in zip(document.layers, parsed.diff_ids, strict=True):
            layer = found.get(descriptor.digest) or self.layer_blob(descriptor.digest, descriptor.media_type)
            if layer is None:
                raise IntegrityError(f"layer {descriptor.digest} is missing")
            if layer.diff_id != diff_id:
                raise IntegrityError(
                    f"layer {descriptor.digest} has the diff_id {layer.diff_id}, the configuration names {diff_id}"
                )
            if layer.stored_bytes != descriptor.size_bytes or self.content.size_bytes(layer.digest) != layer.stored_bytes:
                raise IntegrityError(
                    f"layer {layer.digest} has another size than the {descriptor.size_bytes} bytes of its manifest"
                )
            ordered.append(layer)
        unique = {layer.digest: layer.stored_bytes for layer in ordered}
        return Image(
            id=image_id,
            manifest=Digest.of(manifest),
            manifest_type=document.media_type,
            manifest_bytes=len(manifest),
            stored_bytes=len(manifest) + len(config) + sum(unique.values()),
            size_bytes=sum(layer.size_bytes for layer in ordered),
            created_ns=parsed.created_ns,
            added_ns=time.time_ns(),
        ), ordered

    def layer_blob(self, digest: Digest, media_type: str = "") -> LayerBlob | None:
        """Tell what is known of a layer's blob; None if it isn't there or was never read as a layer."""
        row = self.database.connection.execute("SELECT * FROM layer_blobs WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else self._layer(row, media_type)

    def layer_blob_of(self, diff_id: Digest) -> LayerBlob | None:
        """Find a blob of the store that holds the layer with this diff_id."""
        for row in self.database.connection.execute("SELECT * FROM layer_blobs WHERE diff_id = ? ORDER BY digest", (diff_id,)):
            layer = self._layer(row, "")
            if layer is not None:
                return layer
        return None

    def _layer(self, row: "sqlite3.Row", media_type: str) -> LayerBlob | None:
        digest = Digest(row["digest"])
        try:
            stored_bytes = self.content.size_bytes(digest)
            media_type = media_type or self._sniff_media_type(digest)
        except NotFoundError:
            return None
        return LayerBlob(
            digest=digest,
            media_type=media_type,
            stored_bytes=stored_bytes,
            diff_id=Digest(row["diff_id"]),
            size_bytes=row["size_bytes"],
        )

    def _sniff_media_type(self, digest: Digest) -> str:
        from lamina.model.image import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD

        with self.content.open(digest) as file:
            start = file.read(4)
        if start[:2] == b"\x1f\x8b":
            return OCI_LAYER_GZIP
        return OCI_LAYER_ZSTD if start == b"\x28\xb5\x2f\xfd" else OCI_LAYER

    def resolve(self, text: str) -> Image:
        """Find an image by name, id, digest or an id's beginning. Raise NotFoundError, or ConflictError if ambiguous."""
        return _image(find_row(self.database.connection, text))

    def get(self, image_id: str) -> Image:
        """Give the image of exactly this id."""
        image = self._by_id(self.database.connection, image_id)
        if image is None:
            raise no_such_image(image_id)
        return image

    def find_whole(self, image_id: Digest) -> Image | None:
        """Give the image of this id if it is there with all its blobs."""
        image = self._by_id(self.database.connection, image_id)
        if image is None or not all(self.content.exists(digest) for digest in self._blobs(self.database.connection, image_id)):
            return None
        return image

    def images(self) -> list[Image]:
        """List every image, named or not, the newest first."""
        rows = self.database.connection.execute("SELECT * FROM images ORDER BY created_ns DESC, id").fetchall()
        return [_image(row) for row in rows]

    def names(self, image: Image) -> list[Reference]:
        """List an image's names in alphabetical order."""
        return self._names(self.database.connection, image.id)

    def all_names(self) -> list[tuple[Reference, Digest]]:
        """List every name with the image's id."""
        rows = self.database.connection.execute("SELECT reference, image_id FROM image_names ORDER BY reference").fetchall()
        return [(Reference.parse(row["reference"]), Digest(row["image_id"])) for row in rows]

    def manifest(self, image: Image) -> "Manifest":
        from lamina.model.image import Manifest

        return Manifest.from_bytes(self.content.read(image.manifest))

    def config(self, image: Image) -> "ImageConfig":
        from lamina.model.image_config import ImageConfig

        return ImageConfig.from_bytes(self.content.read(image.id))

    def layers(self, image: Image) -> list[LayerBlob]:
        """List an image's layers, the base first. Raise NotFoundError if one has been lost."""
        layers = []
        for descriptor in self.manifest(image).layers:
            layer = self.layer_blob(descriptor.digest, descriptor.media_type)
            if layer is None:
                raise NotFoundError(f"layer {descriptor.digest} of image {image.id.short} is missing", hint="load the image again")
            layers.append(layer)
        return layers

    def tag(self, image: Image, reference: Reference) -> None:
        """Give an image one more name; another image that has it loses it."""
        if reference.digest is not None:
            raise UsageError(f"'{reference.familiar}' can't be given as a name: it has a digest", hint="use NAME:TAG")
        with self._changing() as tx:
            if self._by_id(tx, image.id) is None:
                raise no_such_image(image.id)
            self._name(tx, image.id, reference)

    def untag(self, reference: Reference) -> None:
        """Take a name away; the image stays."""
        with self._changing() as tx:
            if tx.execute("DELETE FROM image_names WHERE reference = ?", (reference.canonical,)).rowcount == 0:
                raise no_such_image(reference.familiar)

    def remove(
        self,
        text: str,
        *,
        users: Callable[[str], Sequence[ImageUser]],
        on_delete: "Callable[[sqlite3.Connection, Sequence[Digest]], None]" = lambda _tx, _chain_ids: None,
        force: bool = False,
        collect: bool = True,
    ) -> Removal:
        """Do what `rmi TEXT` does: take away the name, and with the last name, or by id, the image.

        `users` is asked inside the transaction which containers are made from an image. One that is in use is never deleted:
        ConflictError, or with `force`, and none of them running, it only loses its names. `on_delete` is told in it, too, the
        chain IDs of an image that goes.
        """
        with self._changing() as tx:
            image = self.resolve(text)
            names = self._names(tx, image.id)
            named = name_meant(text, names)
            going = [named] if named is not None else names
            keeps_names = len(going) < len(names)
            used_by = [] if keeps_names else list(users(image.id))
            if used_by and (not force or any(user.is_running for user in used_by)):
                raise _in_use(text, used_by)
            if named is None and len({name.name for name in names}) > 1 and not force:
                raise ConflictError(f"image '{text}' has names in several repositories", hint="remove it by name, or use --force")
            for name in going:
                tx.execute("DELETE FROM image_names WHERE reference = ?", (name.canonical,))
            deletes = not keeps_names and not used_by
            if deletes:
                with contextlib.suppress(NotFoundError, IntegrityError, ArchiveError):  # a damaged image can be removed too
                    on_delete(tx, self.config(image).chain_ids)
                self._delete_rows(tx, image.id)
                self.content.note_garbage()
        if deletes and collect:
            self.delete_unreferenced_blobs(wait=False)
        return Removal(untagged=tuple(name.familiar for name in going), deleted=(image.id,) if deletes else ())

    def delete_unreferenced_blobs(self, *, wait: bool = True) -> int:
        """Delete every blob that no image, build cache or running build has; return the bytes freed.

        Waits a while for those who add content, as what they add has no row yet. If somebody always does, or without `wait`, it
        is left to whoever is the last of them.
        """
        freed_bytes = 0
        with self.content.exclusive(wait=wait) as held:
            if not held:
                self.content.note_garbage()
                return 0
            self.content.forget_garbage()
            kept = self.kept_blobs()
            for digest in list(self.content.walk()):
                if digest not in kept:
                    freed_bytes += self.content.delete(digest)
            with self.database.transaction() as tx:
                tx.execute(f"DELETE FROM layer_blobs WHERE digest NOT IN ({_KEPT})")
        return freed_bytes

    def kept_blobs(self) -> set[Digest]:
        """List the blobs that images, the build cache and running builds have, whether they are there or not."""
        return {Digest(row[0]) for row in self.database.connection.execute(_KEPT)}

    def forget_build_steps(self, layer: Digest) -> int:
        """Drop every step of the build cache that came to a layer which turned out to be damaged; gives how many there were."""
        with self.database.transaction() as tx:
            return tx.execute("DELETE FROM build_cache WHERE layer = ?", (layer,)).rowcount

    def rewrite_index(self) -> None:
        """Write `index.json` from the tables; for recovery, all else here does it by itself."""
        self.content.prepare()
        with self.content.index_lock():
            self.content.write_layout()
            self._write_index()

    @contextlib.contextmanager
    def ingest(self) -> "Iterator[Ingest]":
        """Add content, as `ContentStore.ingest`, as an operation: what is left of one that was killed, recovery deletes."""
        operation = Operation(name="add images")
        with self.database.transaction() as tx:
            operation.begin(tx)
        try:
            with self.content.ingest() as ingest:
                yield ingest
        finally:
            with self.database.transaction() as tx:
                operation.end(tx)
            if self.content.has_garbage:
                self.delete_unreferenced_blobs(wait=False)

    @contextlib.contextmanager
    def _changing(self) -> "Iterator[sqlite3.Connection]":
        """Change the tables in one durable transaction and then the index, with no other change between."""
        self.content.prepare()
        operation = Operation(name="change images")
        with self.content.index_lock():
            with self.database.transaction(durable=True) as tx:
                operation.begin(tx)
                yield tx
            try:
                self._write_index()
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                self.delete_unreferenced_blobs(wait=False)  # what may have made room
                with contextlib.suppress(OSError):
                    self._write_index()  # if not, the tables are the truth, and the next change or `system check` writes it
            with self.database.transaction() as tx:
                operation.end(tx)

    def recover(self) -> None:
        """Put right what an operation that was killed may have left: blobs without an image, an index behind the tables."""
        self.delete_unreferenced_blobs(wait=False)
        self.rewrite_index()

    def index_is_true(self) -> bool:
        """Whether `index.json` says what the tables say; a layout that was never made does."""
        if not os.path.isdir(self.content.image_dir):
            return True
        self.content.prepare()
        with self.content.index_lock():
            return self.content.layout_is_whole(self._index())

    def _write_index(self) -> None:
        self.content.write_index(self._index())

    def _index(self) -> "list[Descriptor]":
        from lamina.store.image_index import image_index

        return image_index(self.database.connection)

    @staticmethod
    def _by_id(tx: "sqlite3.Connection", image_id: str) -> Image | None:
        row = tx.execute("SELECT * FROM images WHERE id = ?", (image_id,)).fetchone()
        return None if row is None else _image(row)

    @staticmethod
    def _blobs(tx: "sqlite3.Connection", image_id: str) -> list[Digest]:
        return [Digest(row[0]) for row in tx.execute("SELECT digest FROM image_blobs WHERE image_id = ?", (image_id,))]

    @staticmethod
    def _names(tx: "sqlite3.Connection", image_id: str) -> list[Reference]:
        rows = tx.execute("SELECT reference FROM image_names WHERE image_id = ? ORDER BY reference", (image_id,))
        return [Reference.parse(row[0]) for row in rows]

    @staticmethod
    def _name(tx: "sqlite3.Connection", image_id: str, reference: Reference) -> None:
        tx.execute(
            "INSERT INTO image_names (reference, image_id) VALUES (?, ?)"
            " ON CONFLICT (reference) DO UPDATE SET image_id = excluded.image_id",
            (reference.canonical, image_id),
        )

    @staticmethod
    def _delete_rows(tx: "sqlite3.Connection", image_id: str) -> None:
        tx.execute("DELETE FROM image_blobs WHERE image_id = ?", (image_id,))
        tx.execute("DELETE FROM images WHERE id = ?", (image_id,))
        forget_image(tx, image_id)


_COLUMNS = tuple(each.name for each in fields(Image))
_KEPT = (
    "SELECT digest FROM image_blobs UNION SELECT digest FROM build_blobs"
    " UNION SELECT layer FROM build_cache WHERE layer IS NOT NULL"
)


def _image(row: "sqlite3.Row") -> Image:
    values = dict(row)
    return Image(**{**values, "id": Digest(values["id"]), "manifest": Digest(values["manifest"])})


def _in_use(text: str, users: Sequence[ImageUser]) -> ConflictError:
    running = [user for user in users if user.is_running]
    user = (running or list(users))[0]
    if running:
        return ConflictError(f"image '{text}' is used by the running container {user.container_id[:12]}", hint="stop it first")
    return ConflictError(
        f"image '{text}' is used by the container {user.container_id[:12]}", hint="remove it first, or use --force to untag only"
    )
