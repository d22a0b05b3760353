"""Image archives as tars being written: files of known size, all of root's and of 1970, so that nothing but content counts.

Not here: the tar of a layer (`lamina.archive.writer`), and which files an archive has.
"""

from collections.abc import Callable

from lamina.archive.compression import CHUNK_BYTES, Readable, Writable
from lamina.archive.tarheader import BLOCK_BYTES
from lamina.errors import IntegrityError

RECORD_BYTES = 10240  # tar(5): an archive is padded to whole records

Progress = Callable[[int], None]


def file_header(path: str, size_bytes: int) -> bytes:
    """Make what stands before a file's bytes."""
    from tarfile import GNU_FORMAT, TarInfo  # 14 ms

    info = TarInfo(path)
    info.size, info.mode = size_bytes, 0o644
    return info.tobuf(GNU_FORMAT)


def folder_header(path: str) -> bytes:
    """Make a directory's member."""
    from tarfile import DIRTYPE, GNU_FORMAT, TarInfo

    info = TarInfo(f"{path}/")
    info.type, info.mode = DIRTYPE, 0o755
    return info.tobuf(GNU_FORMAT)


def padding(size_bytes: int) -> bytes:
    """What fills a file's last block up."""
    return bytes(-size_bytes % BLOCK_BYTES)


def end_mark(done_bytes: int) -> bytes:
    """What ends an archive that has so many bytes."""
    return bytes(2 * BLOCK_BYTES) + bytes(-(done_bytes + 2 * BLOCK_BYTES) % RECORD_BYTES)


class TarOut:
    """A tar written from beginning to end, each path once."""

    def __init__(self, out: Writable, progress: Progress | None = None) -> None:
        self._out, self._progress = out, progress
        self._done_bytes = 0
        self._left_bytes = 0
        self._paths: set[str] = set()

    def begin(self, path: str, size_bytes: int) -> bool:
        """Begin a file; `copy` its bytes next. False if the path is there already."""
        if path in self._paths:
            return False
        folder = path.rpartition("/")[0]
        if folder and folder not in self._paths:
            self._begin_folder(folder)
        self._write(file_header(path, size_bytes))
        self._paths.add(path)
        self._left_bytes = size_bytes
        return True

    def _begin_folder(self, path: str) -> None:
        above = path.rpartition("/")[0]
        if above and above not in self._paths:
            self._begin_folder(above)
        self._write(folder_header(path))
        self._paths.add(path)

    def copy(self, source: Readable) -> None:
        """Write the bytes of the file just begun."""
        size_bytes = self._left_bytes
        while data := source.read(CHUNK_BYTES):
            self._left_bytes -= len(data)
            self._write(data)
        if self._left_bytes != 0:
            raise IntegrityError(f"a blob has {size_bytes - self._left_bytes} bytes where {size_bytes} were recorded")
        self._write(padding(size_bytes))

    def document(self, path: str, content: bytes) -> None:
        """Write a small file."""
        if self.begin(path, len(content)):
            self._write(content + padding(len(content)))

    def finish(self) -> None:
        """Write the end mark."""
        self._write(end_mark(self._done_bytes))

    def _write(self, data: bytes) -> None:
        if data:
            self._out.write(data)
            self._done_bytes += len(data)
            if self._progress is not None:
                self._progress(self._done_bytes)
