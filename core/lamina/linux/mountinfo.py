"""What is mounted: /proc/PID/mountinfo. Source: proc_pid_mountinfo(5)."""

from typing import NamedTuple


class MountInfo(NamedTuple):
    """One line of /proc/PID/mountinfo."""

    id: int
    device: str
    root: str
    target: str
    options: str
    fstype: str
    source: str
    super_options: str = ""
    """Those of the file system as a whole, in its own words."""


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def mounts(pid: int | str = "self") -> list[MountInfo]:
    """Read the mounts of a process's mount namespace, in the order in which they were made."""
    found = []
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for line in lines:
            left, _, right = line.rstrip("\n").partition(" - ")
            fields, kind = left.split(" "), right.split(" ")
            found.append(
                MountInfo(
                    int(fields[0]),
                    fields[2],
                    _unescape(fields[3]),
                    _unescape(fields[4]),
                    fields[5],
                    kind[0],
                    _unescape(kind[1]),
                    _unescape(kind[2]) if len(kind) > 2 else "",
                )
            )
    return found
