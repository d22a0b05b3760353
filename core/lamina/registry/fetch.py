"""Blobs on their way into the store, several at once, each readable while it comes.

A blob is hashed as it is written. A stream that breaks off goes on from where it broke. A blob that another process of this machine
is fetching is waited for and not fetched again. Threads here touch files and connections alone: the database is the caller's.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

from lamina.archive.compression import Readable
from lamina.errors import IntegrityError, LaminaError, TransferError
from lamina.model.image import Descriptor
from lamina.registry.client import FIRST_WAIT_S, LONGEST_WAIT_S
from lamina.registry.report import Report, State, Transferred
from lamina.store.operations import locked

if TYPE_CHECKING:
    from lamina.registry.transport import Source
    from lamina.store.content import BlobWriter, ContentStore, Ingest

PARALLEL = 3
"""As many layers come at once as with Docker."""
ATTEMPTS = 5
"""How often a blob is asked for without that one more byte of it comes, at a place that doesn't say."""
_CHUNK_BYTES = 1 << 17
_LOOK_S = 0.05
"""How often is looked whether another process has finished with a blob."""


class CancelledError(LaminaError):
    """The transfer as a whole has failed, and this blob isn't wanted any more."""


class Fetch:
    """One blob. `run` fetches it, in a thread; `open` reads it, in another."""

    def __init__(
        self, descriptor: Descriptor, source: "Source", content: "ContentStore", ingest: "Ingest", *, run_dir: str, report: Report,
        lock: threading.Lock,
    ) -> None:  # fmt: skip
        self.descriptor = descriptor
        self.was_there = False
        self._source, self._content, self._ingest, self._run_dir, self._report, self._lock = (
            source,
            content,
            ingest,
            run_dir,
            report,
            lock,
        )
        self._state = threading.Condition()
        self._fd = -1
        self._written = 0
        self._is_done = False
        self._failed: BaseException | None = None
        self._cancelled = threading.Event()
        self._stream: object = None

    def run(self) -> None:
        """Fetch it. An error is kept for who reads; nothing of the blob is left then."""
        try:
            self._fetch()
        except BaseException as error:  # noqa: BLE001  whatever it is, it belongs to the reader
            with self._state:
                self._failed = error
                self._state.notify_all()

    def _fetch(self) -> None:
        digest = self.descriptor.digest
        if self._is_there():
            self._found()
            return
        self._tell(State.WAITING)
        with locked(self._run_dir, f"blob-{digest.hex}", pause=self._pause):
            if self._is_there():  # somebody else has fetched it meanwhile
                self._found()
                return
            self._check_wanted()
            with self._lock:
                writer = self._ingest.writer()
            with writer:
                with self._state:
                    self._fd = writer.open_growing()
                    self._state.notify_all()
                self._download(writer)
                if writer.digest != digest:
                    raise IntegrityError(
                        f"'{self._source.described}': what came as blob {digest} has the digest {writer.digest}",
                        hint="it was changed on its way or where it lies; nothing of it was kept",
                    )
                writer.close()
                with self._lock:
                    writer.commit(digest=digest, size_bytes=self.descriptor.size_bytes)
        with self._state:
            self._is_done = True
            self._state.notify_all()
        self._tell(State.DOWNLOADED)

    def _pause(self) -> None:
        self._cancelled.wait(_LOOK_S)
        self._check_wanted()

    def _is_there(self) -> bool:
        return self._content.exists(self.descriptor.digest)

    def _found(self) -> None:
        with self._state:
            self.was_there = self._is_done = True
            self._state.notify_all()
        self._tell(State.PRESENT)

    def _download(self, writer: "BlobWriter") -> None:
        failures, wait_s = 0, FIRST_WAIT_S
        while self._written < self.descriptor.size_bytes or not self.descriptor.size_bytes:
            self._tell(State.DOWNLOADING)
            before = self._written
            try:
                with self._source.blob(self.descriptor, self._written) as stream:
                    self._stream = stream
                    self._check_wanted()
                    self._copy(stream, writer)
                return
            except TransferError as error:
                self._check_wanted()
                failures = 1 if self._written > before else failures + 1
                wait_s = FIRST_WAIT_S if self._written > before else min(wait_s * 2, LONGEST_WAIT_S)
                if failures >= getattr(self._source, "attempts", ATTEMPTS):
                    raise
                self._tell(State.AGAIN, detail=error.message)
                self._cancelled.wait(wait_s)
                self._check_wanted()
            finally:
                self._stream = None

    def _copy(self, stream: Readable, writer: "BlobWriter") -> None:
        size = self.descriptor.size_bytes
        while data := stream.read(_CHUNK_BYTES):
            if self._written + len(data) > size:
                raise IntegrityError(f"'{self._source.described}': blob {self.descriptor.digest} is longer than its {size} bytes")
            writer.write(data)
            writer.flush()
            with self._state:
                self._written += len(data)
                self._state.notify_all()
            self._check_wanted()
            self._tell(State.DOWNLOADING)
        if self._written < size:
            raise TransferError(
                f"'{self._source.described}': blob {self.descriptor.digest} broke off after {self._written} of {size} bytes"
            )

    def _check_wanted(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError("the transfer was given up")

    def _tell(self, state: State, *, detail: str = "") -> None:
        self._report(
            Transferred(
                digest=self.descriptor.digest,
                state=state,
                done_bytes=self._written,
                total_bytes=self.descriptor.size_bytes,
                detail=detail,
            )
        )

    @contextlib.contextmanager
    def open(self) -> Iterator[Readable]:
        """Read the blob from its beginning, as it comes. The end is given when its digest has been found right."""
        with self._state:
            self._state.wait_for(lambda: self._fd >= 0 or self._is_done or self._failed is not None)
            if self._failed is not None:
                raise self._failed
            fd = os.dup(self._fd) if self._fd >= 0 else -1
        if fd < 0:
            with self._content.open(self.descriptor.digest) as file:
                yield file
            return
        try:
            yield _Growing(self, fd)
        finally:
            os.close(fd)

    def read_at(self, fd: int, offset: int, size: int) -> bytes:
        """Wait for bytes and give them; b"" at the end."""
        with self._state:
            self._state.wait_for(lambda: self._written > offset or self._is_done or self._failed is not None)
            if self._failed is not None:
                raise self._failed
            available = self._written
        return os.pread(fd, min(size, available - offset), offset) if available > offset else b""

    def wait(self) -> None:
        """Wait until the blob is in the store, or raise what went wrong."""
        with self._state:
            self._state.wait_for(lambda: self._is_done or self._failed is not None)
            if self._failed is not None:
                raise self._failed

    def cancel(self) -> None:
        """Let everybody who waits for it go."""
        self._cancelled.set()
        with self._state:
            if not self._is_done and self._failed is None:
                self._failed = CancelledError("the transfer was given up")
            self._state.notify_all()
        interrupt = getattr(self._stream, "interrupt", None)
        if interrupt is not None:
            interrupt()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Growing:
    """Reads a blob that is still coming."""

    def __init__(self, fetch: Fetch, fd: int) -> None:
        self._fetch, self._fd, self._at = fetch, fd, 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._fetch.read_at(self._fd, self._at, size if size >= 0 else 1 << 18)
        self._at += len(data)
        return data


class Fetches:
    """Threads that fetch blobs, the first first. Leave the `with` block and they have ended."""

    def __init__(self, fetches: Sequence[Fetch]) -> None:
        self._fetches = fetches
        self._queue: queue.SimpleQueue[Fetch | None] = queue.SimpleQueue()
        for each in fetches:
            self._queue.put(each)
        self._threads = [
            threading.Thread(target=self._work, name=f"fetch {number}", daemon=True)
            for number in range(min(PARALLEL, len(fetches)))
        ]
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        while (fetch := self._queue.get()) is not None:
            fetch.run()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is not None:
            for fetch in self._fetches:
                fetch.cancel()
        for thread in self._threads:
            thread.join()
        for fetch in self._fetches:
            fetch.close()
