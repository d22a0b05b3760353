"""Archives that ADD unpacks: recognised by their content, read as the entries of files. Hostile ones are `archive`'s business.

As with Docker, an archive is what has a tar header at its beginning once it is unpacked, whatever its name is; an empty archive,
and one that is compressed in another way, is a file like others.
"""

import contextlib
import os
from collections.abc import Iterator

from lamina.archive.compression import Decompressed
from lamina.archive.layer import LayerTar
from lamina.archive.tarheader import BLOCK_BYTES, ZERO_BLOCK, parse
from lamina.errors import ArchiveError
from lamina.linux.fs import open_in_root


def is_archive(fd: int) -> bool:
    """Tell whether an open file is a tar archive, packed or not. Reads a little of it."""
    with os.fdopen(os.dup(fd), "rb", buffering=0) as raw:
        raw.seek(0)
        try:
            with Decompressed(raw, hashed=False) as plain:
                block = b""
                while len(block) < BLOCK_BYTES and (more := plain.read(BLOCK_BYTES - len(block))):
                    block += more
            if len(block) < BLOCK_BYTES or block == ZERO_BLOCK:
                return False
            parse(block, 0)
        except ArchiveError:
            return False
    return True


@contextlib.contextmanager
def opened_archive(root: str, path: str, *, limit_bytes: int) -> Iterator[LayerTar]:
    """Open an archive in a tree and read its entries. Names like a layer's whiteouts are names like others here."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    finally:
        os.close(root_fd)
    with os.fdopen(fd, "rb", buffering=0) as raw, Decompressed(raw, limit_bytes=limit_bytes, hashed=False, threaded=True) as plain:
        yield LayerTar(plain, limit_bytes=limit_bytes, require_end=False, whiteouts=False)
