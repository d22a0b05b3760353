"""Reading ahead: a thread that fetches the next chunks of a stream while its reader works on the last one.

The two hand chunks over by C's queues, and large ones: each time that one thread waits for the other or for the interpreter's lock
costs as much as unpacking a few kilobytes.
"""

import queue
import threading
from collections.abc import Callable

_AHEAD_BYTES = 4 << 20


class ReadAhead:
    """A thread that produces chunks ahead of who reads them. Its exception is raised in the reader, at its place in the stream."""

    def __init__(self, produce: Callable[[int], bytes], chunk_bytes: int) -> None:
        self._produce = produce
        self._chunk_bytes = chunk_bytes
        self._chunks: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        """One for each chunk that may be made before the reader takes one."""
        for _ in range(max(2, _AHEAD_BYTES // chunk_bytes)):
            self._free.put(None)
        self._stopped = threading.Event()
        self._rest = b""
        self._failed: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="unpack", daemon=True)
        self._thread.start()

    def read(self, size: int) -> bytes:
        if self._failed is not None:
            raise self._failed
        if not self._rest and not self._ended:
            item = self._chunks.get()
            self._free.put(None)
            if isinstance(item, BaseException):
                self._failed = item
                raise item
            self._rest = item
            self._ended = not item
        data = self._rest
        if len(data) <= size:
            self._rest = b""
            return data
        self._rest = data[size:]
        return data[:size]

    def stop(self) -> None:
        self._stopped.set()
        self._free.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                self._free.get()
                if self._stopped.is_set():
                    return
                data = self._produce(self._chunk_bytes)
                self._chunks.put(data)
                if not data:
                    return
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the reader
            self._chunks.put(error)
