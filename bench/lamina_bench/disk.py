"""A disk of the benchmark's own, or the tests', where the machine's would make figures that no other machine has.

An ext4 without a journal, as some virtual machines have for their root, looks at each inode of a group that was deleted in the last
minutes before it makes a file there (`recently_deleted` in fs/ext4/ialloc.c): 8,000 files that are unpacked where others have just
been removed take five times as long, with every engine, or don't, as chance has it.
"""

import os
import subprocess

DISK_BYTES = 32 << 30
"""Of a file with holes: only what is used takes space."""


def has_journal(directory: str) -> bool:
    """Whether the file system of a directory is another than an ext4 without a journal."""
    device = os.stat(directory).st_dev
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
    try:
        with open(f"/sys/fs/ext4/{name}/journal_task", encoding="ascii") as file:
            return file.read().strip() != "<none>"
    except FileNotFoundError:
        return True


def mount_own(directory: str, *, make: tuple[str, ...] = (), options: str = "loop") -> None:
    """Mount an empty ext4 with a journal there, in a file that has no name any more. Raises `OSError`, `CalledProcessError`.

    `make` are more words for mkfs.ext4(8), `options` those of the mount.
    """
    image = f"{directory}.disk"
    with open(image, "wb") as file:
        file.truncate(DISK_BYTES)
    try:
        environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
        for words in (["mkfs.ext4", "-q", "-F", "-m", "0", *make, image], ["mount", "-o", options, image, directory]):
            subprocess.run(words, check=True, capture_output=True, env=environment)
    finally:
        os.unlink(image)
