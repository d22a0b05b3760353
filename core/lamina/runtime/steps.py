"""The steps by which a process becomes a container, as data: each can say itself (`describe`) and do itself (`apply`).

They run in the child, between fork and execve, in the order of their list (`plan.py`). Everything here may import only os, sys,
ctypes and `lamina.linux`: what a container's init imports, each start pays for. So they are plain classes, not dataclasses.

Here are what all steps have in common, what they pass on to each other, and the steps about namespaces; those about mounts are in
`mount_steps.py`, those about the process itself in `process_steps.py`.

Paths inside the root are opened beneath a descriptor of the root (openat2, RESOLVE_IN_ROOT) and mounts are attached to the
descriptor that was opened, never to a name: a symlink in an image, or one that is swapped in meanwhile through a shared volume,
can't lead a mount out of the root (CVE-2021-30465, CVE-2024-45310 in other engines).
"""

import errno
import os

from lamina.linux import mount as lm
from lamina.linux import namespace, process
from lamina.linux.fs import RESOLVE_NO_SYMLINKS, open_in_root
from lamina.linux.procfs import PROC_SUPER_MAGIC, filesystem_magic, write_in_proc
from lamina.runtime.users import Identity

COVERABLE_IN_PROC = frozenset(
    "/proc/" + name
    for name in (
        "cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime",
        "sys/crypto/fips_enabled", "sys/kernel/ns_last_pid",
    )
)  # fmt: skip
"""What tells of the machine and may be told otherwise, as lxcfs does; runc has the same list (libcontainer/rootfs_linux.go)."""


END_OF_REPORT = b"\0\0"
"""Ends what the first process says to the monitor, words that a zero byte parts: none is empty, and a path may have line ends."""


class Place:
    """What the steps pass on to each other: the root's descriptor and what was made in it."""

    def __init__(self) -> None:
        self.is_born_inside = False
        """Whether the process was in its cgroup of version 2 from the first."""
        self.root_fd = -1
        self.dev_fd = -1
        self.console_socket_fd = -1
        self.report_fd = -1
        self.held: dict[str, int] = {}
        """Detached mounts that were made while the host was in sight, by where they come in the root."""
        self.made: list[str] = []
        self.terminal_size: tuple[int, int] = (0, 0)
        self.identity: Identity | None = None
        self.program = ""

    def tree(self, source: str, target: str, *, recursive: bool) -> int:
        """Give the host's tree that is to be seen at `target` as a detached mount: the one that is held, or a clone made now."""
        held = self.held.pop(target, -1)
        return held if held >= 0 else lm.open_tree(source, recursive=recursive)

    def attach(self, tree_fd: int, target: str, *, read_only: bool, recursive: bool = True, remember: bool = True) -> None:
        """Attach a detached tree at `target` in the root, making what is missing. Closes the tree's descriptor."""
        try:
            if read_only:
                lm.set_attributes(tree_fd, lm.MS_RDONLY, recursive=recursive)
            directory = os.fstat(tree_fd).st_mode & 0o170000 == 0o040000
            target_fd = self.mountpoint(target, directory=directory, remember=remember)
            try:
                self.refuse_inside_proc(target_fd)
                lm.move_mount(tree_fd, target_fd=target_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(tree_fd)

    def mountpoint(self, target: str, *, directory: bool, remember: bool = False, follow: bool = True) -> int:
        """Open the file or directory at `target` in the root, making what is missing; returns an O_PATH descriptor.

        Without `follow` a symlink on the way is an error, ELOOP, and not followed in the root.
        """
        links = 0 if follow else RESOLVE_NO_SYMLINKS
        parts = [part for part in target.split("/") if part]
        if not parts:
            raise OSError(errno.EINVAL, "the root can't be mounted on", target)
        path = "/".join(parts)
        try:
            fd = open_in_root(self.root_fd, path, os.O_PATH, resolve=links)
        except FileNotFoundError:
            self._make(parts, directory=directory, remember=remember, links=links)
            fd = open_in_root(self.root_fd, path, os.O_PATH, resolve=links)
        is_directory = os.fstat(fd).st_mode & 0o170000 == 0o040000
        if is_directory != directory:
            os.close(fd)
            if directory:
                raise OSError(errno.ENOTDIR, "the container has a file where a directory is to be mounted", target)
            raise OSError(errno.EISDIR, "the container has a directory where a file is to be mounted", target)
        return fd

    def _make(self, parts: list[str], *, directory: bool, remember: bool, links: int) -> None:
        """Make what the last of the parts names, and first those before it that are missing."""
        *above, name = parts
        try:
            parent_fd = open_in_root(self.root_fd, "/".join(above), os.O_PATH | os.O_DIRECTORY, resolve=links)
        except FileNotFoundError:
            self._make(above, directory=True, remember=remember, links=links)
            parent_fd = open_in_root(self.root_fd, "/".join(above), os.O_PATH | os.O_DIRECTORY, resolve=links)
        try:
            before = os.fstat(parent_fd)
            if directory:
                os.mkdir(name, 0o755, dir_fd=parent_fd)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent_fd))
            if remember:  # then the directory's time isn't the container's doing either
                os.utime(f"/proc/self/fd/{parent_fd}", ns=(before.st_atime_ns, before.st_mtime_ns))
                self.made.append(f"{self.path_in_root(parent_fd)}/{name}".strip("/"))
        except FileExistsError:
            raise OSError(errno.ELOOP, "a symlink that leads nowhere is in the way", "/" + "/".join(parts)) from None
        finally:
            os.close(parent_fd)

    def path_in_root(self, fd: int) -> str:
        """Say where in the root something is, whatever symlinks led there."""
        top = os.readlink(f"/proc/self/fd/{self.root_fd}").rstrip("/")
        return os.readlink(f"/proc/self/fd/{fd}")[len(top) :]

    def refuse_inside_proc(self, target_fd: int) -> None:
        """Raise EPERM for a mount point in /proc, wherever it was said to be: only files that don't lead or steer may be covered.

        Else a volume could take the place of what the masks cover, or of files that the engine writes to (CVE-2019-19921,
        CVE-2023-27561, CVE-2025-52881 in other engines).
        """
        if filesystem_magic(target_fd) == PROC_SUPER_MAGIC:
            path = self.path_in_root(target_fd)
            if path not in COVERABLE_IN_PROC:
                raise OSError(errno.EPERM, "nothing can be mounted there", path)


class Step:
    """One thing that is done. Fields are given by keyword and kept under the same names."""

    fields: tuple[str, ...] = ()

    def __init__(self, **values: object) -> None:
        for name in self.fields:
            setattr(self, name, values.pop(name))
        if values:
            raise TypeError(f"{type(self).__name__} has no field '{next(iter(values))}'")

    @property
    def name(self) -> str:
        """The step's name in errors and traces, such as "pivot root"."""
        words = "".join(" " + char.lower() if char.isupper() else char for char in type(self).__name__)
        return words.strip()

    def describe(self) -> str:
        """Say the step as a command line or in plain words."""
        return self.name

    def apply(self, place: Place) -> None:
        """Do it; raises `OSError`."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in self.fields)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.fields)})"


class LeaveNamespaces(Step):
    """Leave the host's namespaces of these kinds for new ones."""

    fields = ("kinds",)
    kinds: tuple[str, ...]

    def describe(self) -> str:
        return "unshare " + " ".join("--" + {"mnt": "mount"}.get(kind, kind) for kind in self.kinds)

    def apply(self, place: Place) -> None:
        namespace.unshare(sum(namespace.KINDS[kind] for kind in self.kinds))


class JoinNamespace(Step):
    """Enter a namespace that is there already."""

    fields = ("kind", "path")
    kind: str
    path: str

    def describe(self) -> str:
        return f"nsenter --{self.kind}={self.path}"

    def apply(self, place: Place) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespace.setns(fd, namespace.KINDS[self.kind])
        finally:
            os.close(fd)


class JoinNamespaces(Step):
    """Enter another process's namespaces of these kinds: setns(2) on each of /proc/PID/ns/*.

    All are opened before the first is entered: after that /proc, and the pid, may be another's. `user` comes last: it takes the
    capabilities over all that isn't its own.
    """

    fields = ("pid", "kinds")
    pid: int
    kinds: tuple[str, ...]

    def describe(self) -> str:
        return f"nsenter --target {self.pid} " + " ".join("--" + {"mnt": "mount"}.get(kind, kind) for kind in self.kinds)

    def apply(self, place: Place) -> None:
        opened = [(os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC), kind) for kind in self.kinds]
        first_id = 0
        if "user" in self.kinds:
            with open(f"/proc/{self.pid}/uid_map", encoding="utf-8") as file:
                first_id = int(file.read().split()[1])
        for fd, kind in opened:
            if kind == "user":
                enter_users(fd, first_id)
            else:
                namespace.setns(fd, namespace.KINDS[kind])
                os.close(fd)
        os.chdir("/")


def enter_users(fd: int, first_id: int) -> None:
    """Enter a user namespace and become its root: until then one is nobody there. Closes the descriptor.

    `first_id` is who that is out here. To it go the pipes, too: a program opens /dev/stdout again by its name.
    """
    for stream in (0, 1, 2):
        if os.fstat(stream).st_mode & 0o170000 == 0o010000:
            os.fchown(stream, first_id, first_id)
    namespace.setns(fd, namespace.CLONE_NEWUSER)
    os.close(fd)
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    process.prctl(process.PR_SET_DUMPABLE, 0)  # which a change of the user sets as fs.suid_dumpable says


class LoopbackUp(Step):
    """Bring lo up."""

    def describe(self) -> str:
        return "ip link set lo up"

    def apply(self, place: Place) -> None:
        namespace.loopback_up()


class WriteSysctls(Step):
    """Set parameters of the new network and IPC namespaces. No file of the image is in sight yet: /proc is the host's."""

    fields = ("values", "required")
    values: tuple[tuple[str, str], ...]
    """Paths below /proc/sys, and what is written there."""
    required: bool
    """Whether it is an error that the kernel doesn't have one."""

    def describe(self) -> str:
        return "; ".join(f"echo '{value}' > /proc/sys/{path}" for path, value in self.values)

    def apply(self, place: Place) -> None:
        for path, value in self.values:
            try:
                write_in_proc(f"sys/{path}", value)
            except FileNotFoundError:
                if self.required:
                    raise OSError(errno.ENOENT, "the kernel has no such sysctl", path.replace("/", ".")) from None
            except OSError as error:
                raise OSError(error.errno, f"the kernel refuses '{value}'", path.replace("/", ".")) from None


class SetHostname(Step):
    """Name the container."""

    fields = ("hostname",)
    hostname: str

    def describe(self) -> str:
        return f"hostname {self.hostname}"

    def apply(self, place: Place) -> None:
        namespace.sethostname(self.hostname)
