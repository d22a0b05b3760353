"""A disk that remembers every write and every flush, and gives what a power cut at any moment would have left of it.

It is a file in a FUSE file system of one process of ours, with a loop device over it: a real ext4, xfs or btrfs above sends its
writes and flushes, loop turns a flush into fsync(2) of the file, and all arrive here in their order. A disk may keep what it was
given since its last completed flush, or any part of it in any order; so

    the disk after a cut = all writes before the last flush + any of the later ones, block by block

No more reordering than that is tried: a block is never torn, and older than the last flush it is never lost.

The server runs as a process of its own, which never touches the disk that it serves. Sources: linux/fuse.h, fuse(4),
drivers/block/loop.c (lo_req_flush).
"""

import contextlib
import os
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lamina.linux import mount, mountinfo, namespace, process

BLOCK_BYTES = 4096
"""What a disk writes whole: less than a page of the kernel's is never asked for by the file systems here, but for xfs's log."""

MAKERS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=8", "-E", "lazy_itable_init=1,lazy_journal_init=1"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
SIZES = {"ext4": 256 << 20, "xfs": 320 << 20, "btrfs": 256 << 20}
FORMS = {
    "ext4": ("ext4", "commit=300"),
    "ext4-writeback": ("ext4", "commit=300,data=writeback,noauto_da_alloc"),
    "xfs": ("xfs", "nouuid"),
    "btrfs": ("btrfs", "commit=300"),
}
"""Name to file system and mount options. Timers that write by themselves are slow, so that nobody lives by their luck;
`noauto_da_alloc` takes ext4's help for those away who rename without fsync(2)."""

_WRITE, _FLUSH, _MARK = 0, 1, 2
_RECORD = struct.Struct("<IIQ")  # kind, length of what follows, offset
_LINUX_DEV_FUSE = "/dev/fuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that the disk was given: a write, a flush, or a mark of who uses it. `at` is where its bytes lie in the log."""

    kind: int
    offset: int
    length: int
    at: int

    @property
    def is_flush(self) -> bool:
        return self.kind == _FLUSH

    @property
    def is_mark(self) -> bool:
        return self.kind == _MARK


class CrashDisk:
    """The disk, mounted at `place` in `folder`, while the block of `crash_disk` runs."""

    def __init__(self, folder: Path, form: str) -> None:
        self.form, self.folder, self.place = form, folder, folder / "disk"
        self.fstype, self.options = FORMS[form]
        self.base, self.log = folder / "base.img", folder / "disk.log"
        self._now, self._fuse = folder / "now.img", folder / "fuse"

    def mark(self, text: str) -> None:
        """Note in the log that something is so from here on."""
        fd = os.open(self._fuse / "mark", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Make the file system, serve it, mount it."""
        make_file_system(self.base, self.fstype)
        subprocess.run(["cp", "--sparse=always", self.base, self._now], check=True)
        self._fuse.mkdir()
        self.place.mkdir()
        with contextlib.ExitStack() as undo:
            fd = os.open(_LINUX_DEV_FUSE, os.O_RDWR)
            try:
                mount.mount("disk", str(self._fuse), "fuse", 0, f"fd={fd},rootmode=40000,user_id=0,group_id=0")
                stopped = undo.enter_context(contextlib.ExitStack())  # the server ends when nothing of it is mounted
                undo.callback(mount.unmount, str(self._fuse), detach=True)
                server = subprocess.Popen([sys.executable, __file__, str(fd), self._now, self.log], pass_fds=[fd])
                stopped.callback(server.wait, 30)
            finally:
                os.close(fd)
            mount_file(self._fuse / "disk", self.place, self.options)
            undo.callback(mount.unmount, str(self.place))
            yield


def make_file_system(path: Path, fstype: str) -> None:
    """Make a file with an empty file system."""
    with path.open("wb") as file:
        file.truncate(SIZES[fstype])
    places = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run([*MAKERS[fstype], path], check=True, env=places, stdout=subprocess.DEVNULL)


def mount_file(path: Path, place: Path, options: str) -> None:
    """Mount a file's file system; the loop device goes with the mount."""
    subprocess.run(["mount", "-o", f"loop,{options}", path, place], check=True)


@contextlib.contextmanager
def next_boot(disk: CrashDisk, image: Path, place: Path) -> Iterator[None]:
    """Have what a cut has left where the disk was, in a mount namespace and a boot of its own; for a process made for it."""
    namespace.unshare(namespace.CLONE_NEWNS)
    boot_id = place / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    mount.mount(str(boot_id), "/proc/sys/kernel/random/boot_id", None, mount.MS_BIND)
    process.boot_id.cache_clear()  # the process that this is a fork of may have asked
    mount_file(image, disk.place, disk.options)
    image.unlink()
    try:
        yield
    finally:
        for target in reversed([each.target for each in mountinfo.mounts() if each.target.startswith(f"{disk.place}")]):
            mount.unmount(target, detach=True)


class Replay:
    """What the disk was given, and what cuts would have left. Cuts are asked for in the order of their moments."""

    def __init__(self, disk: CrashDisk) -> None:
        self.disk = disk
        self.events = list(_read_log(disk.log))
        self._durable = disk.folder / "durable.img"
        self._done = 0
        """How many events the durable image has."""
        subprocess.run(["cp", "--sparse=always", disk.base, self._durable], check=True)

    def marks(self) -> list[tuple[int, str]]:
        """List the marks: how many events came before each, and its text."""
        with self.disk.log.open("rb") as log:
            return [
                (number, os.pread(log.fileno(), each.length, each.at).decode())
                for number, each in enumerate(self.events)
                if each.is_mark
            ]

    def cut(self, moment: int, random: Random | None, image: Path) -> int:
        """Write what is left when the power goes after `moment` events; gives how many writes weren't flushed.

        Without `random` none of those is left, with it a part of them.
        """
        flushed = max((number + 1 for number in range(self._done, moment) if self.events[number].is_flush), default=self._done)
        with self.disk.log.open("rb") as log, self._durable.open("r+b") as durable:
            for event in self.events[self._done : flushed]:
                if event.kind == _WRITE:
                    os.pwrite(durable.fileno(), os.pread(log.fileno(), event.length, event.at), event.offset)
            self._done = max(self._done, flushed)
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", self._durable, image], check=True)
            later = [event for event in self.events[self._done : moment] if event.kind == _WRITE]
            if random is not None:
                kept = random.random()  # sometimes nearly all, sometimes nearly none
                with image.open("r+b") as file:
                    for event in later:
                        _write_some(log.fileno(), file.fileno(), event, random, kept)
        return len(later)


def _write_some(log_fd: int, fd: int, event: Event, random: Random, kept: float) -> None:
    for start in range(0, event.length, BLOCK_BYTES):
        if random.random() < kept:
            data = os.pread(log_fd, min(BLOCK_BYTES, event.length - start), event.at + start)
            os.pwrite(fd, data, event.offset + start)


def _read_log(path: Path) -> Iterator[Event]:
    with path.open("rb") as log:
        while header := log.read(_RECORD.size):
            kind, length, offset = _RECORD.unpack(header)
            at = log.tell()
            yield Event(kind=kind, offset=offset, length=length, at=at)
            log.seek(at + length)


_NODES = {1: (0o40555, 0), 2: (0o100600, 0), 3: (0o100200, 0)}
_NAMES = {b"disk": 2, b"mark": 3}
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE_OP, _RELEASE, _FSYNC, _FLUSH_OP, _INIT = (
    1,
    2,
    3,
    4,
    14,
    15,
    16,
    18,
    20,
    25,
    26,
)
_DESTROY, _BATCH_FORGET = 38, 42
_MAX_WRITE_BYTES = 1 << 20
_MAX_PAGES, _BIG_WRITES = 1 << 22, 1 << 5
_DIRECT_IO = 1
_ENOENT, _ENOSYS = 2, 38


def serve(fuse_fd: int, disk_path: str, log_path: str) -> None:
    """Answer the kernel until it unmounts."""
    disk_fd = os.open(disk_path, os.O_RDWR | os.O_CLOEXEC)
    size_bytes = os.fstat(disk_fd).st_size
    header = struct.Struct("<IIQQIIII")
    with open(log_path, "wb", buffering=1 << 20) as log:

        def attributes(node: int) -> bytes:
            mode, _ = _NODES[node]
            size = size_bytes if node == 2 else 0
            return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, BLOCK_BYTES, 0)

        def answer(operation: int, node: int, body: bytes) -> bytes | int | None:
            if operation == _WRITE_OP:
                offset, length = struct.unpack_from("<QI", body, 8)
                data = memoryview(body)[40 : 40 + length]
                log.write(_RECORD.pack(_MARK if node == 3 else _WRITE, length, offset))
                log.write(data)
                if node == 2:
                    os.pwrite(disk_fd, data, offset)
                return struct.pack("<II", length, 0)
            if operation == _READ:
                offset, length = struct.unpack_from("<QI", body, 8)
                return os.pread(disk_fd, length, offset)
            if operation == _FSYNC:
                log.write(_RECORD.pack(_FLUSH, 0, 0))
                return b""
            if operation == _INIT:
                flags = struct.unpack_from("<4I", body)[3] & (_MAX_PAGES | _BIG_WRITES)
                pages = _MAX_WRITE_BYTES // 4096
                return struct.pack("<4IHHIIHHI28x", 7, 31, 0, flags, 12, 9, _MAX_WRITE_BYTES, 1, pages, 0, 0)
            if operation == _LOOKUP:
                found = _NAMES.get(body.rstrip(b"\0"))
                return struct.pack("<4QII", found, 0, 3600, 3600, 0, 0) + attributes(found) if found else -_ENOENT
            if operation in {_GETATTR, _SETATTR}:
                return struct.pack("<QII", 3600, 0, 0) + attributes(node)
            if operation == _OPEN:
                return struct.pack("<QII", 0, _DIRECT_IO, 0)
            if operation in {_RELEASE, _FLUSH_OP, _DESTROY}:
                return b""
            return None if operation in {_FORGET, _BATCH_FORGET} else -_ENOSYS

        while True:
            try:
                request = os.read(fuse_fd, _MAX_WRITE_BYTES + 4096)
            except OSError as error:
                if error.errno in {2, 4}:  # interrupted, or a request that was taken back
                    continue
                return  # ENODEV: unmounted
            _length, operation, unique, node, *_ = header.unpack_from(request)
            said = answer(operation, node, request[header.size :])
            if said is not None:
                code, payload = (said, b"") if isinstance(said, int) else (0, said)
                os.write(fuse_fd, struct.pack("<IiQ", 16 + len(payload), code, unique) + payload)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], sys.argv[3])
