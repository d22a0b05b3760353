"""What was open, mapped, locked or watched before a file of the image is first written to."""

import errno
import fcntl
import mmap
import os
from collections.abc import Callable

from lamina.compare.catalogue import inside
from lamina.linux import uncommon


def _write_over(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text)
    os.close(fd)


@inside(
    "A descriptor opened for reading before the first write",
    why="tail -f, log shippers and databases that read through an old descriptor never see what is written later.",
    plain="sees the write",
)
def open_descriptor() -> str:
    fd = os.open("f1", os.O_RDONLY)
    _write_over("f1", b"NEW")
    return "sees the write" if os.pread(fd, 3, 0) == b"NEW" else "keeps the old content"


@inside(
    "fstat of a descriptor opened before the first write, against stat of the path after it",
    why="nginx, tail -F and logrotate compare the two to learn whether the file was replaced, and open it again if it seems so.",
    plain="one file",
)
def descriptor_identity() -> str:
    fd = os.open("f1", os.O_RDONLY)
    _write_over("f1", b"NEW")
    return "one file" if os.path.samestat(os.fstat(fd), os.stat("f1")) else "two files"


@inside(
    "A shared mapping made before the first write",
    why="Databases and search engines that map their files (LMDB, SQLite, Lucene) read old data next to new.",
    plain="sees the write",
)
def shared_mapping() -> str:
    fd = os.open("f1", os.O_RDONLY)
    with mmap.mmap(fd, 4, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as mapping:
        mapping[:]
        _write_over("f1", b"NEW")
        return "sees the write" if mapping[:3] == b"NEW" else "keeps the old content"


@inside(
    "Writing through a shared mapping of a file of the image",
    why="Linkers, databases and anything that maps a file to change it: the change has to be in the file.",
    plain="is in the file",
)
def mapped_write() -> str:
    fd = os.open("f1", os.O_RDWR)
    with mmap.mmap(fd, 12, flags=mmap.MAP_SHARED) as mapping:
        mapping[:3] = b"NEW"
        mapping.flush()
    with open("f1", "rb") as file:
        return "is in the file" if file.read(3) == b"NEW" else "is lost"


def _excluded(lock: Callable[[int, int], object]) -> str:
    fd = os.open("f1", os.O_RDONLY)
    lock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    pid = os.fork()
    if pid == 0:
        try:
            lock(os.open("f1", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os._exit(1 if error.errno in {errno.EAGAIN, errno.EACCES} else 2)
        os._exit(0)
    return {0: "doesn't exclude it", 1: "excludes it"}.get(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "fails")


@inside(
    "A flock(2) taken before the file was first opened for writing, and one taken after",
    why="Package managers and daemons lock a file of the image read-only first; two of them could run at once.",
    plain="excludes it",
)
def flock_lock() -> str:
    return _excluded(fcntl.flock)


@inside(
    "A record lock (fcntl(2)) taken before the file was first opened for writing, and one taken after",
    why="SQLite, Samba and Berkeley DB lock records; two writers at once destroy the file.",
    plain="excludes it",
)
def record_lock() -> str:
    return _excluded(fcntl.lockf)


@inside(
    "inotify on a file of the image, told of the first write",
    why="Development servers, systemd path units and configuration reloaders wait for it, and would wait for ever.",
    plain="is told",
)
def watched_file() -> str:
    fd = uncommon.watch("f1")
    with open("f1", "a", encoding="utf-8") as file:
        file.write("more\n")
    return "is told" if uncommon.events(fd) & uncommon.IN_MODIFY else "isn't told"


@inside(
    "inotify on a directory of the image, told of a new file",
    why="Spoolers and hot-reloading servers watch directories for new files.",
    plain="is told",
)
def watched_directory() -> str:
    fd = uncommon.watch("d1")
    with open("d1/new", "w", encoding="utf-8"):
        pass
    return "is told" if uncommon.events(fd) & uncommon.IN_CREATE else "isn't told"


@inside(
    "A watch set before the first write, told of the second one",
    why="A watch that stays with the old file is silent from the second change on, and nobody notices on the first.",
    plain="is told",
)
def watched_second_write() -> str:
    fd = uncommon.watch("f1")
    for _ in range(2):
        uncommon.events(fd)
        with open("f1", "a", encoding="utf-8") as file:
            file.write("more\n")
    return "is told" if uncommon.events(fd) & uncommon.IN_MODIFY else "isn't told"


@inside(
    "Reading a file that was deleted while it was open",
    why="Updates of running programs replace libraries that are in use; what runs must go on.",
    plain="old content",
)
def unlinked_read() -> str:
    fd = os.open("f1", os.O_RDONLY)
    os.unlink("f1")
    return "old content" if os.pread(fd, 12, 0) == b"f1-from-ro2\n" else "something else"


@inside(
    "chmod through a descriptor of a file that was deleted meanwhile",
    why="Programs that prepare a file under no name, as some installers and editors do, get an error that nobody expects.",
    plain="ok",
)
def unlinked_chmod() -> str:
    fd = os.open("f1", os.O_RDONLY)
    os.unlink("f1")
    os.fchmod(fd, 0o600)
    return "ok" if os.fstat(fd).st_mode & 0o777 == 0o600 else "no effect"


@inside(
    "Opening a running program for writing",
    why="ETXTBSY keeps an upgrade from writing into a program that runs; without it the program crashes.",
    plain="ETXTBSY",
)
def running_program() -> str:
    os.close(os.open(os.path.realpath("/proc/1/exe"), os.O_WRONLY))
    return "ok"
