"""What a monitor and its clients say to each other: frames of one kind byte, four length bytes (big endian) and a payload."""

import os
import struct

STDIN = 0  # client to monitor: bytes for the container; empty: end of file
STDOUT = 1  # monitor to client
STDERR = 2
RESIZE = 3  # client to monitor: rows and columns as decimal text, "24 80"
EXIT = 4  # monitor to client: the exit code as decimal text; the last frame
BEGIN = 9  # creator to monitor: all that the child needs is there
READY = 5  # monitor to creator: "PID\0made mount point\0…"; the child waits to be let go
GO = 6  # creator to monitor: execute the command
STARTED = 7  # monitor to creator: the command has been executed
FAILED = 8  # monitor to creator: "EXIT_CODE\0ERRNO\0STEP\0MESSAGE"; nothing of the container is left

HEADER = struct.Struct(">BI")
MAX_PAYLOAD_BYTES = 1 << 20


def pack(kind: int, payload: bytes = b"") -> bytes:
    """Make a frame."""
    return HEADER.pack(kind, len(payload)) + payload


class Parser:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def has_some(self) -> bool:
        """Whether part of a frame has come, and its rest not yet."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes as they came and give the frames that are complete; raises `ValueError` for what can't be one."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            end = HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, bytes(self._buffer[HEADER.size : end])))
            del self._buffer[:end]
        return frames


def write_all(fd: int, data: bytes) -> None:
    """Write every byte to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
