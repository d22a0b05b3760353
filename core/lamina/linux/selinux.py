"""SELinux: whether it is on, which labels its policy knows, and how files are labelled.

A label is USER:ROLE:TYPE:LEVEL, one text. Sources: selinuxfs (security/selinux/selinuxfs.c), selinux_lxc_contexts_path(3),
selinux_config(5), setfilecon(3).
"""

import errno
import os

from lamina.linux.fs import SELINUX_LABEL

FILE_SYSTEM = "/sys/fs/selinux"
CONFIG = "/etc/selinux/config"


def is_enabled() -> bool:
    """Whether the kernel confines by SELinux, with a policy loaded."""
    return os.path.exists(f"{FILE_SYSTEM}/enforce")


def is_known(label: str) -> bool:
    """Whether the loaded policy has this label."""
    fd = os.open(f"{FILE_SYSTEM}/context", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, label.encode() + b"\0")
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    finally:
        os.close(fd)
    return True


def policy_file(name: str) -> str:
    """Read a file of the policy's `contexts`; "" if there is none."""
    try:
        with open(CONFIG, encoding="utf-8") as file:
            kind = next((line.partition("=")[2].strip() for line in file if line.startswith("SELINUXTYPE=")), "")
        with open(f"{os.path.dirname(CONFIG)}/{kind}/contexts/{name}", encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def shared(label: str) -> str:
    """The same label for what is everybody's: without the categories that keep one container's files from another."""
    return ":".join([*label.split(":", 3)[:3], "s0"])


def has_label(path: str, label: str) -> bool:
    """Whether a file, not followed, has exactly this label."""
    return os.getxattr(path, SELINUX_LABEL, follow_symlinks=False) == label.encode() + b"\0"


def relabel(path: str, label: str) -> None:
    """Label a file, or a directory and all below it, itself last; a file system that keeps no labels stays as it is.

    Symlinks are labelled and never followed, also if one is put in a directory's place meanwhile.
    """
    try:
        for _, folders, files, folder_fd in os.fwalk(path):
            for name in (*folders, *files):
                try:
                    _label(f"/proc/self/fd/{folder_fd}/{name}", label)
                except FileNotFoundError:  # somebody else who uses it has just removed it
                    pass
        _label(path, label)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


def _label(path: str, label: str) -> None:
    if not has_label(path, label):
        os.setxattr(path, SELINUX_LABEL, label.encode() + b"\0", follow_symlinks=False)
