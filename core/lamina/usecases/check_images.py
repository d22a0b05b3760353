"""The image store against its digests: every blob hashed, every image's documents read, the index held against the tables.

A blob that is in place is never written again, so it is read without a lock. A row goes before its blobs do: a blob that is missing
while its row is still there is lost.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterable

from lamina.errors import ArchiveError, IntegrityError, LaminaError, NotFoundError
from lamina.model.digest import Digest
from lamina.store.images import Image
from lamina.usecases.check import Check

_CHUNK_BYTES = 1 << 20
_SECOND_LOOK_S = 1.0


def check_images(run: Check) -> None:
    """Check blobs, then images, then the index."""
    images = run.context.images
    _check_blobs(run)
    for image in images.images():
        _check_image(run, image)
    if not images.index_is_true():

        def rewrite() -> str:
            images.rewrite_index()
            return "written anew from the database"

        run.found("index", "index.json", "the image layout's documents don't say what the database says", repair=rewrite)


def _check_blobs(run: Check) -> None:
    """Hash every blob; find those that are missing and those that nobody has."""
    content = run.context.images.content
    for digest in sorted(content.walk()) if run.reads_bytes else ():
        if _is_damaged(run, digest):
            run.bad_blobs.add(digest)
            _damaged(run, digest)
    for digest in sorted(run.context.images.kept_blobs()):
        if not content.exists(digest) and digest in run.context.images.kept_blobs():
            run.bad_blobs.add(digest)
            _missing(run, digest)
    orphans = _orphans(run)
    if orphans:
        time.sleep(_SECOND_LOOK_S)  # a row goes before its blobs: they may be on their way
        orphans &= _orphans(run)
    for digest in sorted(orphans):

        def collect(digest: Digest = digest) -> str | None:
            run.context.images.delete_unreferenced_blobs()
            return "deleted" if not content.exists(digest) else None

        run.found("blob", digest, "no image and no build has it", repair=collect)


def _orphans(run: Check) -> set[Digest]:
    """List the blobs that have no row, and will get none since nobody adds content; not those which are about to be deleted."""
    content = run.context.images.content
    with content.exclusive(wait=False) as held:
        if not held or (content.has_garbage and not run.repairs):
            return set()
        return set(content.walk()) - run.context.images.kept_blobs()


def _is_damaged(run: Check, digest: Digest) -> bool:
    found = hashlib.new(digest.algorithm)
    try:
        with run.context.images.content.open(digest) as file:
            while data := file.read(_CHUNK_BYTES):
                found.update(data)
    except NotFoundError:
        return False  # deleted meanwhile, with its image
    except OSError:
        return True  # EIO: the disk itself says that it is lost
    return found.hexdigest() != digest.hex


def _damaged(run: Check, digest: Digest) -> None:
    users = _users(run, digest)

    def delete() -> str | None:
        """Take the damaged blob away: else a pull would take it for there."""
        with run.context.images.content.exclusive() as held:
            if not held:
                return None  # others add content all the time
            if _is_damaged(run, digest):
                run.context.images.content.delete(digest)
        run.context.images.forget_build_steps(digest)
        return None if users else "deleted; nothing needed it but the build cache, which makes it again"

    problem = "its bytes don't have the digest that names it" + (f"; needed by {_list(users)}" if users else "")
    advice = f"{_again(users, run)}" if users else ""
    run.found("blob", digest, problem, advice=advice, repair=delete)


def _missing(run: Check, digest: Digest) -> None:
    users = _users(run, digest)

    def forget() -> str | None:
        run.context.images.forget_build_steps(digest)
        return None if users else "forgotten; nothing needed it but the build cache, which makes it again"

    problem = "it is missing" + (f"; needed by {_list(users)}" if users else "")
    run.found("blob", digest, problem, advice=_again(users, run) if users else "", repair=forget)


def _again(users: Iterable[str], run: Check) -> str:
    first = "" if run.repairs else "`lamina system check --repair` takes it away; then "
    return f"{first}pull or load again: {', '.join(users)}"


def _check_image(run: Check, image: Image) -> None:
    """Read an image's documents; what is wrong with their blobs has been told already."""
    images, bad = run.context.images, run.bad_blobs
    if {image.id, image.manifest} & bad:
        return
    problem = ""
    try:
        config, manifest = images.config(image), images.manifest(image)
        if len(manifest.layers) != len(config.diff_ids):
            problem = f"its manifest has {len(manifest.layers)} layers, its configuration {len(config.diff_ids)}"
        elif manifest.config.digest != image.id:
            problem = f"its manifest belongs to {manifest.config.digest}"
        else:
            for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
                known = None if layer.digest in bad else images.layer_blob(layer.digest, layer.media_type)
                if known is not None and known.stored_bytes != layer.size_bytes:
                    problem = f"its layer {layer.digest} has {known.stored_bytes} bytes, its manifest says {layer.size_bytes}"
                elif known is not None and known.diff_id != diff_id:
                    problem = f"its layer {layer.digest} is known to unpack to {known.diff_id}, its configuration says {diff_id}"
                elif known is None and layer.digest not in bad:
                    problem = f"nothing is known of its layer {layer.digest}"
    except (NotFoundError, IntegrityError, ArchiveError, LaminaError) as error:
        problem = error.message
    if problem:
        with contextlib.suppress(NotFoundError):
            images.get(image.id)  # else it was removed while we looked
            run.found("image", _name(run, image), problem, advice="remove it, then pull or load it again")


def _users(run: Check, digest: Digest) -> list[str]:
    rows = run.context.database.connection.execute("SELECT image_id FROM image_blobs WHERE digest = ?", (digest,)).fetchall()
    users = []
    for row in rows:
        with contextlib.suppress(NotFoundError):
            users.append(_name(run, run.context.images.get(row["image_id"])))
    return sorted(users)


def _name(run: Check, image: Image) -> str:
    names = run.context.images.names(image)
    return names[0].familiar if names else image.id.short


def _list(users: list[str]) -> str:
    return ", ".join(f"'{user}'" for user in users)
