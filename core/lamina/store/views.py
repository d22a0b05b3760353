"""Views made real: the mounts that a driver answers with, carried out.

A container's union is attached at its place in the host's mount namespace, where commit, diff, cp and exec see it. Whatever else
needs a tree for a moment gets it *detached*: mounts that are nowhere but behind a descriptor, so that a killed process leaves none.
Mounts of a kind that can't be detached (aufs's remounts, FUSE helpers) are made at their place and taken away again.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from lamina.api.types import View
from lamina.errors import LaminaError
from lamina.linux import mount as lm
from lamina.linux import namespace
from lamina.linux.libc import told
from lamina.model.mount import Mount, MountFlag


def attach(view: View) -> None:
    """Make the view's mounts at its place in this mount namespace; on an error take back those already made."""
    made: list[str] = []
    try:
        for mount in view.mounts:
            os.makedirs(mount.target, mode=0o700, exist_ok=True)
            with told("mount", mount.describe):
                _attach_one(mount)
            if MountFlag.REMOUNT not in mount.flags:
                made.append(mount.target)
    except BaseException:
        for target in reversed(made):
            lm.unmount(target, detach=True)
        raise


def detach(view: View) -> None:
    """Take the view's mounts away, last first; no error for what isn't mounted.

    A place that only exists to be mounted on is left for the driver to remove.
    """
    for target in dict.fromkeys(mount.target for mount in reversed(view.mounts)):
        while True:
            try:
                with told("unmount", lambda target=target: f"umount -l {target}"):  # type: ignore[misc]
                    lm.unmount(target, detach=True)
            except OSError as error:
                if error.errno in {errno.EINVAL, errno.ENOENT}:
                    break  # not a mount point
                raise


@contextlib.contextmanager
def seen(view: View) -> Iterator[str]:
    """Give a path under which the view can be walked while the block runs: its root, or a descriptor's in /proc/self/fd."""
    if not view.mounts:
        yield view.root
    elif all(can_detach(mount) for mount in view.mounts) and len(view.mounts) == 1:
        with told("mount nowhere", lambda: f"{view.mounts[0].describe()} # detached: seen through a descriptor alone"):
            fd = detached(view.mounts[0])
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
    else:
        attach(view)
        try:
            yield view.root
        finally:
            detach(view)


def detached(mount: Mount) -> int:
    """Make one mount that is nowhere, and return its descriptor."""
    if mount.type == "bind":
        fd = lm.open_tree(mount.source, recursive=MountFlag.REC in mount.flags)
        flags = mount.flags & ~(MountFlag.BIND | MountFlag.REC)
        if flags:
            lm.set_attributes(fd, flags, recursive=MountFlag.REC in mount.flags)
        return fd
    try:
        return lm.fsmount(mount.type, mount.options, flags=mount.flags, source=mount.source)
    except OSError as error:
        if mount.type != "overlay" or error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EPERM}:
            raise
        return _overlay_by_string(mount, error)


def can_detach(mount: Mount) -> bool:
    """Whether a mount can be nowhere but behind a descriptor."""
    return not mount.type.startswith("fuse.") and mount.type != "aufs" and MountFlag.REMOUNT not in mount.flags


def _attach_one(mount: Mount) -> None:
    if mount.type.startswith("fuse."):
        _run_helper(mount)
    elif can_detach(mount):
        fd = detached(mount)
        try:
            lm.move_mount(fd, mount.target)
        finally:
            os.close(fd)
    else:
        data = ",".join(key if value is None else f"{key}{'' if key.endswith(':') else '='}{value}" for key, value in mount.options)
        lm.mount(mount.source, mount.target, mount.type, mount.flags, data)


def _overlay_by_string(mount: Mount, first: OSError) -> int:
    """Make a detached overlay mount on a kernel without `lowerdir+` (before 6.7), by mount(2) and one string.

    mount(2) needs a place. It gets one in a mount namespace that only a thread of ours is in, and that ends with the thread: so the
    host never sees the mount, and a kill leaves none.
    """
    import threading  # only old kernels pay for it

    made: list[int | OSError] = []

    def mount_and_clone() -> None:
        try:
            namespace.unshare(namespace.CLONE_NEWNS)  # unshares the working directory too: unshare(2), CLONE_NEWNS
            lm.make_private()
            _mount_by_string(mount)
            made.append(lm.open_tree("/proc"))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=mount_and_clone)
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        first.add_note(f"by mount(2): {result}")
        raise first from result
    return result


def _mount_by_string(mount: Mount) -> None:
    """Mount an overlay over this thread's /proc, a place that is always there and that it needs no more.

    Directories are named by their descriptors' numbers, in /proc/self/fd, so that seven hundred of them fit mount(2)'s page, and so
    that none has a `,` or `:` to escape.
    """
    held: list[int] = []

    def short(path: str) -> str:
        held.append(os.open(path, lm.O_PATH | os.O_CLOEXEC))
        return str(held[-1])

    try:
        words = ["lowerdir=" + ":".join([short(value) for key, value in mount.options if key == "lowerdir+" and value])]
        for key, value in mount.options:
            if key in {"upperdir", "workdir"} and value:
                words.append(f"{key}={short(value)}")
            elif key != "lowerdir+":
                words.append(key if value is None else f"{key}={value}")
        os.chdir("/proc/self/fd")
        lm.mount(mount.source, "/proc", "overlay", mount.flags, ",".join(words))
    finally:
        for fd in held:
            os.close(fd)


def _run_helper(mount: Mount) -> None:
    """Run a FUSE file system's program, which goes into the background by itself once it is mounted (mount.fuse(8))."""
    import subprocess

    name = mount.type.removeprefix("fuse.")
    words = ",".join(key if value is None else f"{key}={value}" for key, value in mount.options)
    try:
        done = subprocess.run(
            [name, "-o", words, mount.target], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError as error:
        raise LaminaError(f"the program '{name}' is not installed", hint=f"install the package {name}") from error
    if done.returncode:
        raise LaminaError(f"'{name}' could not mount '{mount.target}': {(done.stderr or done.stdout).strip()[-500:]}")
