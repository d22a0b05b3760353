"""What the first change of a file of the image costs, and what it brings along."""

import os
import stat

from lamina.compare import samples
from lamina.compare.catalogue import inside, outside
from lamina.compare.lab import Lab


def _append(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())


def _chown(path: str) -> None:
    os.chown(path, 7, 8)


def _chmod(path: str) -> None:
    os.chmod(path, 0o600)


def _open_for_writing(path: str) -> None:
    os.close(os.open(path, os.O_RDWR))


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read()


def _copied(before: int, after: int) -> str:
    return "copies the whole file" if after - before >= samples.BIG_BYTES else "copies nothing"


@outside(
    "Appending one byte to a large file of the image",
    why="Whoever ships large files to be written to in an image, such as a database's, pays a whole copy the first time.",
    plain="copies nothing",
)
def append_cost(lab: Lab) -> str:
    before = lab.used_bytes()
    lab.inside(_append, "big")
    return _copied(before, lab.used_bytes())


@outside(
    "Changing the owner of a large file of the image",
    why="`chown -R` at a container's start, which many entry points do, doubles the image's size on disk.",
    plain="copies nothing",
)
def chown_cost(lab: Lab) -> str:
    before = lab.used_bytes()
    lab.inside(_chown, "big")
    return _copied(before, lab.used_bytes())


@outside(
    "Changing the mode of a large file of the image",
    why="`chmod -R` in an image's later layer stores every file of the tree once more.",
    plain="copies nothing",
)
def chmod_cost(lab: Lab) -> str:
    before = lab.used_bytes()
    lab.inside(_chmod, "big")
    return _copied(before, lab.used_bytes())


@outside(
    "Opening a large file of the image for writing, and writing nothing",
    why="Programs that open everything for writing just in case (some databases and editors) make copies of what they only read.",
    plain="copies nothing",
)
def open_cost(lab: Lab) -> str:
    before = lab.used_bytes()
    lab.inside(_open_for_writing, "big")
    return _copied(before, lab.used_bytes())


@outside(
    "Reading a large file of the image",
    why="Reading must be free: images are shared by containers for that reason.",
    plain="copies nothing",
)
def read_cost(lab: Lab) -> str:
    before = lab.used_bytes()
    lab.inside(_read, "big")
    return _copied(before, lab.used_bytes())


@outside(
    "`diff` after a file was opened for writing and not written to",
    why="Whoever commits containers finds files in the new layer that nobody changed.",
    plain="not listed",
)
def diff_after_open(lab: Lab) -> str:
    lab.inside(_open_for_writing, "f1")
    lab.stop()
    return "listed" if any("/" + change.path == f"{lab.place}/f1" for change in lab.container.diff()) else "not listed"


def _sparse_blocks() -> int:
    with open("sparse", "r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_blocks


@outside(
    "Holes of a sparse file when it is first written to",
    why="Disk images and databases of virtual machines grow to their full size on disk.",
    plain="stay holes",
)
def holes_kept(lab: Lab) -> str:
    used = int(lab.inside(_sparse_blocks)) * 512
    return "stay holes" if used < samples.SPARSE_BYTES // 4 else "are filled"  # a few around the data may be filled


@inside(
    "SEEK_DATA on a sparse file of the image that nobody wrote to",
    why="cp, tar and qemu skip holes by it; without it they read and store every zero.",
    plain="finds the data",
)
def seek_data() -> str:
    fd = os.open("sparse", os.O_RDONLY)
    return "finds the data" if os.lseek(fd, 0, os.SEEK_DATA) == samples.SPARSE_AT else "says all is data"


@inside(
    "SEEK_DATA on a sparse file of the image after it was first written to",
    why="The same programs, after the first change: what was a small file on disk becomes a big archive.",
    plain="finds the data",
)
def seek_data_after_write() -> str:
    _append("sparse")
    fd = os.open("sparse", os.O_RDONLY)
    found = os.lseek(fd, 0, os.SEEK_DATA)
    return "finds the data" if samples.SPARSE_AT - (2 << 20) <= found <= samples.SPARSE_AT else "says all is data"


@inside(
    "A directory's modification time when a file in it is first written to",
    why="make, ccache and mail readers take a directory's new time as the sign of new names, and read it all again.",
    plain="stays",
)
def parent_mtime() -> str:
    _append("d1/a")
    return "stays" if os.stat("d1").st_mtime_ns == samples.OLD_NS else "becomes now"


@inside(
    "Modification time of a file, to the nanosecond, when its mode is changed",
    why="make and incremental backups compare times exactly; a lost fraction builds or stores everything anew.",
    plain="stays exactly",
)
def file_mtime() -> str:
    os.chmod("f1", 0o600)
    found = os.stat("f1").st_mtime_ns
    return {samples.OLD_NS: "stays exactly", samples.OLD_S * 10**9: "loses its fraction"}.get(found, "changes")


@inside(
    "Access time when a file of the image is read",
    why="Mail notifiers, tmpreaper and everything that deletes what wasn't used for long go by it.",
    plain="is set (relatime)",
)
def access_time() -> str:
    before = os.stat("f1").st_atime_ns
    with open("f1", "rb") as file:
        file.read()
    return "is set (relatime)" if os.stat("f1").st_atime_ns > before else "stays old"


@inside(
    "Owner, mode and setgid bit of the directories above a new file",
    why="A shared directory whose setgid bit is lost gives its new files to the wrong group.",
    plain="stay",
)
def parents_kept() -> str:
    with open("d1/sub/deep/new", "w", encoding="utf-8"):
        pass
    found = [(stat.S_IMODE(os.stat(path).st_mode), os.stat(path).st_uid) for path in ("d1", "d1/sub", "d1/sub/deep")]
    return "stay" if found == [(0o750, 1000), (0o2711, 0), (0o755, 0)] else "change"


@inside(
    "The setuid bit when root writes to the file",
    why="sudo and ping stop working if it is lost where root keeps it on a plain file system; installers patch such files.",
    plain="stays",
)
def setuid_after_write() -> str:
    _append("suid")
    return "stays" if os.stat("suid").st_mode & stat.S_ISUID else "is cleared"


@inside(
    "The setuid bit when the owner is changed",
    why="It has to go, or a chown would hand a program with another's rights to its new owner.",
    plain="is cleared",
)
def setuid_after_chown() -> str:
    os.chown("suid", 7, 8)
    return "stays" if os.stat("suid").st_mode & stat.S_ISUID else "is cleared"
