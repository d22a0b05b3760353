"""Calls that move a file's bytes."""

import fcntl
import mmap
import os

from lamina.compare import samples
from lamina.compare.catalogue import inside, outside
from lamina.compare.lab import Lab
from lamina.linux import uncommon
from lamina.linux.fs import FICLONE


@inside(
    "Punching a hole into a file of the image (fallocate)",
    why="Databases and virtual machines give space back with it.",
    plain="ok",
)
def punch_hole() -> str:
    fd = os.open("big", os.O_RDWR)
    uncommon.punch_hole(fd, 0, 65536)
    return "ok" if os.pread(fd, 65536, 0) == bytes(65536) and os.pread(fd, 1, 65536 + 7) != b"\0" else "wrong content"


@inside(
    "Reserving space in a file of the image (posix_fallocate)",
    why="Databases and download managers reserve before they write, so as not to fail half-way.",
    plain="ok",
)
def reserve() -> str:
    fd = os.open("f1", os.O_RDWR)
    os.posix_fallocate(fd, 0, 8192)
    return "ok" if os.fstat(fd).st_size == 8192 else "wrong size"


@inside(
    "copy_file_range(2) from a file of the image to a new one",
    why="cp, Go and Rust programs copy with it; an error there that isn't the expected one stops them.",
    plain="ok",
)
def copy_range() -> str:
    source, target = os.open("big", os.O_RDONLY), os.open("d1/copy", os.O_RDWR | os.O_CREAT)
    done = os.copy_file_range(source, target, 65536)
    return "ok" if done == 65536 and os.pread(target, 65536, 0) == os.pread(source, 65536, 0) else "wrong content"


@inside(
    "Cloning a new file (FICLONE)",
    why="cp --reflink makes copies that take no space; whether it can is the disk's affair as much as the driver's.",
    plain="EOPNOTSUPP",
)
def clone() -> str:
    source, target = os.open("d1/one", os.O_RDWR | os.O_CREAT), os.open("d1/two", os.O_RDWR | os.O_CREAT)
    os.write(source, samples.pattern(4096))
    fcntl.ioctl(target, FICLONE, source)
    return "ok"


@inside(
    "Opening a file of the image with O_DIRECT, and reading it",
    why="Databases such as MySQL, ScyllaDB and Oracle read past the page cache.",
    plain="ok",
)
def direct_read() -> str:
    fd = os.open("big", os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as buffer:
        return "ok" if os.preadv(fd, [buffer], 0) == 4096 and buffer[:] == samples.pattern(4096) else "wrong content"


@inside(
    "Writing to a file of the image with O_DIRECT",
    why="The same databases write this way; what is refused at the first write only is found late.",
    plain="ok",
)
def direct_write() -> str:
    fd = os.open("big", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as buffer:
        buffer[:] = b"\1" * 4096
        os.pwritev(fd, [buffer], 4096)
    with open("big", "rb") as file:
        content = file.read(8192)
    return "ok" if content == samples.pattern(4096) + b"\1" * 4096 else "wrong content"


def _truncate() -> None:
    os.truncate("f1", 0)
    os.close(os.open("big", os.O_WRONLY | os.O_TRUNC))


def _sizes() -> list[int]:
    return [os.stat(name).st_size for name in ("f1", "big")]


@outside(
    "Truncating files of the image to nothing, after the container was started again",
    why="Cleaning up logs with `: > file` in a container; the old content must not come back.",
    plain="stay empty",
)
def truncate(lab: Lab) -> str:
    lab.inside(_truncate)
    lab.restart()
    return "stay empty" if lab.inside(_sizes) == [0, 0] else "the old content is back"


@outside(
    "Truncating a large file of the image",
    why="Nothing of it is needed any more, so nothing should be copied.",
    plain="copies nothing",
)
def truncate_cost(lab: Lab) -> str:
    before = lab.used_bytes()
    lab.inside(_truncate)
    return "copies the whole file" if lab.used_bytes() - before >= samples.BIG_BYTES else "copies nothing"


def _sync() -> str:
    fd = os.open("d1", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    with open("d1/a", "a", encoding="utf-8") as file:
        file.write("x")
        file.flush()
        os.fsync(file.fileno())
    return "ok"


@inside(
    "fsync(2) of a directory and of a file of the image",
    why="Databases and package managers make their work durable with it, and refuse to go on where it fails.",
    plain="ok",
)
def sync() -> str:
    return _sync()
