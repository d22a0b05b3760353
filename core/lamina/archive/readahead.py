"""Reading ahead: a thread that fetches the next chunks of a stream while its reader works on the last one."""

import queue
import threading
from collections.abc import Callable

_AHEAD_CHUNKS = 16


class ReadAhead:
    """A thread that produces chunks ahead of who reads them. Its exception is raised in the reader, at its place in the stream."""

    def __init__(self, produce: Callable[[int], bytes], chunk_bytes: int) -> None:
        self._produce = produce
        self._chunk_bytes = chunk_bytes
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD_CHUNKS)
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
        while self._thread.is_alive():
            try:
                while True:
                    self._chunks.get_nowait()
            except queue.Empty:
                pass
            self._thread.join(0.01)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                data = self._produce(self._chunk_bytes)
                self._chunks.put(data)
                if not data:
                    return
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the reader
            self._chunks.put(error)
