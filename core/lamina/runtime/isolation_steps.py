"""Steps of containers that are born with more than the usual: limits, another's /dev/shm, a user namespace of their own.

Here too is the table of how a plan becomes one in a user namespace (`with_own_users`): what only the host's root may do, clone the
host's trees and give them other ids, comes first; then the namespace is entered, and all the rest is done by its root.
"""

import os
from collections.abc import Sequence

from lamina.errors import UsageError
from lamina.linux import libc, namespace, process
from lamina.linux import mount as lm
from lamina.linux.fs import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from lamina.linux.namespace import ID_COUNT
from lamina.linux.procfs import filesystem_magic, write_in_proc
from lamina.model.isolation import ULIMITS, Ulimit
from lamina.runtime.device_steps import MakeDevices
from lamina.runtime.mount_steps import BindInRoot, FillDev, MountInRoot, NewRoot
from lamina.runtime.steps import END_OF_REPORT, LeaveNamespaces, Place, Step, enter_users

TMPFS_MAGIC = 0x01021994


class AdjustOomScore(Step):
    """Say how readily the kernel ends this process when memory is short (proc_pid_oom_score_adj(5))."""

    fields = ("value",)
    value: int

    def describe(self) -> str:
        return f"echo {self.value} > /proc/self/oom_score_adj"

    def apply(self, place: Place) -> None:
        write_in_proc("self/oom_score_adj", str(self.value))


class RaiseLimits(Step):
    """Raise hard limits while this process may; whoever may not is told so here, before anything is made."""

    fields = ("limits",)
    limits: tuple[Ulimit, ...]

    def describe(self) -> str:
        return "; ".join(f"prlimit --{name}=:{_said(hard)}" for name, _soft, hard in self.limits)

    def apply(self, place: Place) -> None:
        for name, _, hard in self.limits:
            soft, now = process.limit(ULIMITS[name])
            if _exceeds(hard, now):
                _set(name, soft, hard)


class LimitResources(Step):
    """Set the limits as they were asked for: last, so that none stands in the way of the other steps."""

    fields = ("limits",)
    limits: tuple[Ulimit, ...]

    def describe(self) -> str:
        return "; ".join(f"prlimit --{name}={_said(soft)}:{_said(hard)}" for name, soft, hard in self.limits)

    def apply(self, place: Place) -> None:
        for name, soft, hard in self.limits:
            _set(name, soft, hard)


def _set(name: str, soft: int, hard: int) -> None:
    try:
        process.set_limit(ULIMITS[name], soft, hard)
    except OSError as error:
        raise OSError(error.errno, f"the limit can't be {_said(soft)}:{_said(hard)}", name) from None


def _said(value: int) -> str:
    return "unlimited" if value < 0 else str(value)


def _exceeds(one: int, other: int) -> bool:
    return other >= 0 and (one < 0 or one > other)


class HoldSharedMemory(Step):
    """Take hold of another container's /dev/shm: in its mount namespace it is cloned, back in one's own it is mounted."""

    fields = ("pid",)
    pid: int

    def describe(self) -> str:
        return f"nsenter --mount --target {self.pid} # hold its /dev/shm"

    def apply(self, place: Place) -> None:
        opened = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (f"/proc/{self.pid}/ns/mnt", "/proc/self/ns/mnt", "/")]
        theirs, ours, root = opened
        namespace.setns(theirs, namespace.CLONE_NEWNS)
        there = os.open("/", os.O_PATH | os.O_CLOEXEC)
        shm = openat2(there, "dev/shm", os.O_PATH | os.O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
        if filesystem_magic(shm) != TMPFS_MAGIC:
            raise OSError(0, "the joined container has no /dev/shm", "/dev/shm")
        place.held["/dev/shm"] = lm.open_tree("", dir_fd=shm)
        namespace.setns(ours, namespace.CLONE_NEWNS)
        os.fchdir(root)
        os.chroot(".")  # setns(2) made it the namespace's root, which need not have been this process's
        for fd in (*opened, there, shm):
            os.close(fd)


class HoldTrees(Step):
    """Clone the host's trees that the container is to see, each as a mount that is nowhere yet and shows the container's ids.

    On disk everything stays as it is: what is 0 there is the container's root (mount_setattr(2), MOUNT_ATTR_IDMAP).
    """

    fields = ("trees", "first_id")
    trees: tuple[tuple[str, str, bool, bool], ...]
    """Where it comes in the root, where it is, whether with the mounts in it, whether its ids are the disk's still."""
    first_id: int

    def describe(self) -> str:
        ids = f"b:0:{self.first_id}:{ID_COUNT}"
        return "; ".join(
            f"mount {'--rbind' if recursive else '--bind'}{f' -o X-mount.idmap={ids}' if idmapped else ''} {source} $HELD{target}"
            for target, source, recursive, idmapped in self.trees
        )

    def apply(self, place: Place) -> None:
        users = namespace.new_users(self.first_id)
        for target, source, recursive, idmapped in self.trees:
            fd = place.tree(source, target, recursive=recursive)
            place.held[target] = fd
            if idmapped:
                try:
                    lm.idmap(fd, users, recursive=recursive)
                except OSError as error:
                    raise OSError(
                        error.errno, "its file system can't show the ids of a user namespace (no idmapped mounts)", source
                    ) from None
        os.close(users)


class HoldDev(Step):
    """Make the file system of /dev while devices may be made, which in a user namespace nobody may: mknod(2), EPERM."""

    fields = ("flags", "options", "first_id")
    flags: int
    options: tuple[tuple[str, str | None], ...]
    first_id: int

    def describe(self) -> str:
        words = ",".join(key if value is None else f"{key}={value}" for key, value in self.options)
        return f"mount -t tmpfs -o {words},uid={self.first_id},gid={self.first_id} tmpfs $HELD/dev"

    def apply(self, place: Place) -> None:
        owner = (("uid", str(self.first_id)), ("gid", str(self.first_id)))
        place.held["/dev"] = place.dev_fd = lm.fsmount("tmpfs", (*self.options, *owner), flags=self.flags, source="tmpfs")


class ShiftDev(Step):
    """Give what is in /dev to the same users of the container."""

    fields = ("first_id",)
    first_id: int

    def describe(self) -> str:
        return f"chown -hR +{self.first_id} $HELD/dev/*"

    def apply(self, place: Place) -> None:
        for _path, directories, files, folder_fd in os.fwalk(".", dir_fd=place.dev_fd):
            for name in (*directories, *files):
                found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
                os.chown(name, found.st_uid + self.first_id, found.st_gid + self.first_id, dir_fd=folder_fd, follow_symlinks=False)


class EnterUsers(Step):
    """Become root of a user namespace of one's own, and the first process of a PID namespace that belongs to it.

    Everything from here on is done with capabilities over what belongs to this namespace alone; on the host this process is an
    ordinary user. It forks once more, as only a child is in a new PID namespace: the parent says its number and is gone.
    """

    fields = ("first_id",)
    first_id: int

    def describe(self) -> str:
        words = f"--map-users 0:{self.first_id}:{ID_COUNT} --map-groups 0:{self.first_id}:{ID_COUNT}"
        return f"unshare --user {words} --pid --fork --setuid 0 --setgid 0"

    def apply(self, place: Place) -> None:
        users = namespace.new_users(self.first_id)
        enter_users(users, self.first_id)
        namespace.unshare(namespace.CLONE_NEWPID)
        child = os.fork()
        if child:
            os.write(place.report_fd, b"pid\0%d" % child + END_OF_REPORT)
            if libc.listener is not None:
                libc.listener.ends()
            os._exit(0)
        os.setsid()


def with_own_users(steps: Sequence[Step], *, first_id: int, root_is_mapped: bool) -> list[Step]:
    """Make of a plan one that happens in a user namespace of its own, entered just before the other namespaces are left.

    `root_is_mapped`: the union shows the container's ids already, as its layers do.
    """
    at = next(index for index, step in enumerate(steps) if isinstance(step, LeaveNamespaces))
    trees = [("/", step.path, False, not root_is_mapped) for step in steps if isinstance(step, NewRoot)]
    trees += [(step.target, step.source, step.recursive, True) for step in steps if isinstance(step, BindInRoot)]
    made = (FillDev, MakeDevices)
    dev = next(step for step in steps if isinstance(step, MountInRoot) and step.target == "/dev")
    fill = [step for step in steps if isinstance(step, made)]
    rest = [step for step in steps[at:] if not isinstance(step, made)]
    for step in fill:
        if isinstance(step, MakeDevices) and (outside := [node[0] for node in step.nodes if not node[0].startswith("/dev/")]):
            raise UsageError(f"a container with users of its own has devices in /dev alone, not at '{outside[0]}'")
    return [
        *steps[:at],
        HoldTrees(trees=tuple(trees), first_id=first_id),
        HoldDev(flags=dev.flags, options=dev.options, first_id=first_id),
        *fill,
        ShiftDev(first_id=first_id),
        EnterUsers(first_id=first_id),
        *rest,
    ]
