"""The steps by which a process becomes a container, as data: each can say itself (`describe`) and do itself (`apply`).

They run in the child, between fork and execve, in the order of their list (`plan.py`). Everything here may import only os, sys,
ctypes and `lamina.linux`: what a container's init imports, each start pays for. So they are plain classes, not dataclasses.

Paths inside the root are opened beneath a descriptor of the root (openat2, RESOLVE_IN_ROOT) and mounts are attached to the
descriptor that was opened, never to a name: a symlink in an image, or one that is swapped in meanwhile through a shared volume,
can't lead a mount out of the root (CVE-2021-30465, CVE-2024-45310 in other engines).
"""

import errno
import os

from lamina.linux import mount as lm
from lamina.linux import namespace, process
from lamina.linux.fs import open_in_root
from lamina.runtime.users import Identity, resolve_user


class Place:
    """What the steps pass on to each other: the root's descriptor and what was made in it."""

    def __init__(self) -> None:
        self.root_fd = -1
        self.dev_fd = -1
        self.console_socket_fd = -1
        self.made: list[str] = []
        self.terminal_size: tuple[int, int] = (0, 0)
        self.identity: Identity | None = None

    def attach(self, tree_fd: int, target: str, *, read_only: bool, recursive: bool = True, remember: bool = True) -> None:
        """Attach a detached tree at `target` in the root, making what is missing. Closes the tree's descriptor."""
        try:
            if read_only:
                lm.set_attributes(tree_fd, lm.MS_RDONLY, recursive=recursive)
            directory = os.stat(f"/proc/self/fd/{tree_fd}").st_mode & 0o170000 == 0o040000
            target_fd = self.mountpoint(target, directory=directory, remember=remember)
            try:
                lm.move_mount(tree_fd, target_fd=target_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(tree_fd)

    def mountpoint(self, target: str, *, directory: bool, remember: bool = False) -> int:
        """Open the file or directory at `target` in the root, making what is missing; returns an O_PATH descriptor."""
        parts = [part for part in target.split("/") if part]
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            last = depth == len(parts)
            try:
                fd = open_in_root(self.root_fd, path, os.O_PATH)
            except FileNotFoundError:
                parent_fd = open_in_root(self.root_fd, "/".join(parts[: depth - 1]), os.O_PATH | os.O_DIRECTORY)
                try:
                    before = os.stat(f"/proc/self/fd/{parent_fd}")
                    if directory or not last:
                        os.mkdir(parts[depth - 1], 0o755, dir_fd=parent_fd)
                    else:
                        os.close(
                            os.open(parts[depth - 1], os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent_fd)
                        )
                    if remember:  # then the directory's time isn't the container's doing either
                        os.utime(f"/proc/self/fd/{parent_fd}", ns=(before.st_atime_ns, before.st_mtime_ns))
                        self.made.append(self._real_path(parent_fd, parts[depth - 1]))
                except FileExistsError:
                    raise OSError(errno.ELOOP, "a symlink that leads nowhere is in the way", "/" + path) from None
                finally:
                    os.close(parent_fd)
                fd = open_in_root(self.root_fd, path, os.O_PATH)
            if last:
                is_directory = os.stat(f"/proc/self/fd/{fd}").st_mode & 0o170000 == 0o040000
                if is_directory != directory:
                    os.close(fd)
                    if directory:
                        raise OSError(errno.ENOTDIR, "the container has a file where a directory is to be mounted", target)
                    raise OSError(errno.EISDIR, "the container has a directory where a file is to be mounted", target)
                return fd
            os.close(fd)
        raise OSError(errno.EINVAL, "the root can't be mounted on", target)

    def _real_path(self, parent_fd: int, name: str) -> str:
        """Say where in the root something was made, whatever symlinks led there."""
        top = os.readlink(f"/proc/self/fd/{self.root_fd}").rstrip("/")
        return f"{os.readlink(f'/proc/self/fd/{parent_fd}')[len(top) :]}/{name}".strip("/")


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

    All are opened before the first is entered: after that /proc, and the pid, may be another's.
    """

    fields = ("pid", "kinds")
    pid: int
    kinds: tuple[str, ...]

    def describe(self) -> str:
        return f"nsenter --target {self.pid} " + " ".join("--" + {"mnt": "mount"}.get(kind, kind) for kind in self.kinds)

    def apply(self, place: Place) -> None:
        opened = [
            (os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC), namespace.KINDS[kind]) for kind in self.kinds
        ]
        for fd, flag in opened:
            namespace.setns(fd, flag)
            os.close(fd)
        os.chdir("/")


class LoopbackUp(Step):
    """Bring lo up."""

    def describe(self) -> str:
        return "ip link set lo up"

    def apply(self, place: Place) -> None:
        namespace.loopback_up()


class PrivateMounts(Step):
    """Keep every mount from here on out of the host's sight."""

    def describe(self) -> str:
        return "mount --make-rprivate /"

    def apply(self, place: Place) -> None:
        lm.make_private("/")


class NewRoot(Step):
    """Make the union a mount of its own in this namespace, the root to be."""

    fields = ("path",)
    path: str

    def describe(self) -> str:
        return f"mount --bind {self.path} {self.path}"

    def apply(self, place: Place) -> None:
        fd = lm.open_tree(self.path)
        lm.move_mount(fd, self.path)
        place.root_fd = fd


class MountInRoot(Step):
    """Mount a kernel file system somewhere in the root."""

    fields = ("type", "target", "flags", "options")
    type: str
    target: str
    flags: int
    options: tuple[tuple[str, str | None], ...]

    def describe(self) -> str:
        words = [name for bit, name in _FLAG_NAMES if self.flags & bit]
        words += [key if value is None else f"{key}={value}" for key, value in self.options]
        return f"mount -t {self.type} {'-o ' + ','.join(words) + ' ' if words else ''}{self.type} $ROOT{self.target}"

    def apply(self, place: Place) -> None:
        target_fd = place.mountpoint(self.target, directory=True, remember=self.type != "tmpfs" or self.target == "/dev")
        try:
            fd = lm.fsmount(self.type, self.options, flags=self.flags, source=self.type)
            lm.move_mount(fd, target_fd=target_fd)
        finally:
            os.close(target_fd)
        if self.target == "/dev":
            place.dev_fd = fd
        else:
            os.close(fd)


_FLAG_NAMES = (
    (lm.MS_RDONLY, "ro"),
    (lm.MS_NOSUID, "nosuid"),
    (lm.MS_NODEV, "nodev"),
    (lm.MS_NOEXEC, "noexec"),
    (lm.MS_STRICTATIME, "strictatime"),
)


class FillDev(Step):
    """Make the few devices and links that a program may expect, in the fresh tmpfs at /dev."""

    DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
    LINKS = (
        ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"), ("core", "/proc/kcore"),
    )  # fmt: skip

    def describe(self) -> str:
        nodes = "; ".join(f"mknod -m 666 $ROOT/dev/{name} c {major} {minor}" for name, major, minor in self.DEVICES)
        return nodes + "; " + "; ".join(f"ln -s {text} $ROOT/dev/{name}" for name, text in self.LINKS)

    def apply(self, place: Place) -> None:
        old = os.umask(0)
        for name, major, minor in self.DEVICES:
            os.mknod(name, 0o020666, os.makedev(major, minor), dir_fd=place.dev_fd)
        for name, text in self.LINKS:
            os.symlink(text, name, dir_fd=place.dev_fd)
        os.umask(old)


class BindInRoot(Step):
    """Let a directory or a file of the host be seen in the root."""

    fields = ("source", "target", "read_only", "recursive", "internal")
    source: str
    target: str
    read_only: bool
    recursive: bool
    internal: bool

    def describe(self) -> str:
        words = f"mount {'--rbind' if self.recursive else '--bind'} {self.source} $ROOT{self.target}"
        return words + (f"; mount -o remount,bind,ro $ROOT{self.target}" if self.read_only else "")

    def apply(self, place: Place) -> None:
        tree_fd = lm.open_tree(self.source, recursive=self.recursive)
        place.attach(tree_fd, self.target, read_only=self.read_only, recursive=self.recursive, remember=self.internal)


class MaskPaths(Step):
    """Cover what the kernel tells too much by: files with the container's own null device, directories with an empty tmpfs."""

    fields = ("paths",)
    paths: tuple[str, ...]

    def describe(self) -> str:
        return "; ".join(f"mount --bind $ROOT/dev/null $ROOT{path}" for path in self.paths)

    def apply(self, place: Place) -> None:
        for path in self.paths:
            try:
                target_fd = open_in_root(place.root_fd, path, os.O_PATH)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                if os.stat(f"/proc/self/fd/{target_fd}").st_mode & 0o170000 == 0o040000:
                    fd = lm.fsmount("tmpfs", (("size", "0"), ("nr_inodes", "1")), flags=lm.MS_RDONLY)
                else:
                    fd = lm.open_tree("null", dir_fd=place.dev_fd, follow=False)
                try:
                    lm.move_mount(fd, target_fd=target_fd)
                finally:
                    os.close(fd)
            finally:
                os.close(target_fd)


class ReadOnlyPaths(Step):
    """Make parts of /proc readable only."""

    fields = ("paths",)
    paths: tuple[str, ...]

    def describe(self) -> str:
        return "; ".join(f"mount --rbind -o ro $ROOT{path} $ROOT{path}" for path in self.paths)

    def apply(self, place: Place) -> None:
        for path in self.paths:
            try:
                target_fd = open_in_root(place.root_fd, path, os.O_PATH)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                tree = lm.open_tree("", dir_fd=target_fd, recursive=True)
                try:
                    lm.set_attributes(tree, lm.MS_RDONLY, recursive=True)
                    lm.move_mount(tree, target_fd=target_fd)
                finally:
                    os.close(tree)
            finally:
                os.close(target_fd)


class ReadOnlyRoot(Step):
    """Make the root itself read-only; what is mounted in it stays as it is."""

    def describe(self) -> str:
        return "mount -o remount,bind,ro $ROOT"

    def apply(self, place: Place) -> None:
        lm.set_attributes(place.root_fd, lm.MS_RDONLY)


class PivotRoot(Step):
    """Make the root this process's root, and let go of the host's."""

    fields = ("path",)
    path: str

    def describe(self) -> str:
        return f"cd {self.path} && pivot_root . . && umount -l ."

    def apply(self, place: Place) -> None:
        os.fchdir(place.root_fd)
        lm.pivot_root(".")
        os.close(place.root_fd)
        if place.dev_fd >= 0:
            os.close(place.dev_fd)
        place.root_fd = place.dev_fd = -1


class SetHostname(Step):
    """Name the container."""

    fields = ("hostname",)
    hostname: str

    def describe(self) -> str:
        return f"hostname {self.hostname}"

    def apply(self, place: Place) -> None:
        namespace.sethostname(self.hostname)


class OpenTerminal(Step):
    """Open a terminal of the container's own devpts, make it standard input, output and error, and hand its other end out."""

    fields = ("console",)
    console: bool
    """Whether it is seen as /dev/console too."""

    def describe(self) -> str:
        return "open /dev/ptmx; setsid --ctty" + ("; mount --bind /dev/pts/0 /dev/console" if self.console else "")

    def apply(self, place: Place) -> None:
        from lamina.linux import terminal

        master, slave = terminal.open_pair("/dev/pts/ptmx")
        rows, columns = place.terminal_size
        if rows and columns:
            terminal.set_size(master, rows, columns)
        if self.console:
            os.close(os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            tree = lm.open_tree("", dir_fd=slave)
            try:
                lm.move_mount(tree, "/dev/console")
            finally:
                os.close(tree)
        terminal.send_descriptor(place.console_socket_fd, master)
        os.close(master)
        terminal.make_controlling(slave)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        if slave > 2:
            os.close(slave)


class FindUser(Step):
    """Turn the user's name into numbers, by the container's own files."""

    fields = ("user", "environment")
    user: str
    environment: list[str]

    def describe(self) -> str:
        return f"id {self.user or '0:0'}"

    def apply(self, place: Place) -> None:
        place.identity = resolve_user(self.user)
        if not any(item.startswith("HOME=") for item in self.environment):
            self.environment.append("HOME=" + place.identity.home)
        for fd in (0, 1, 2):  # so that /dev/stdout can be opened again by the user (moby#31243)
            try:
                if os.fstat(fd).st_rdev != 0x103:
                    os.fchown(fd, place.identity.uid, -1)
            except OSError:
                pass


class WorkingDirectory(Step):
    """Go where the command starts; a container's own is made if it is missing, an `exec`'s isn't. Docker's rule."""

    fields = ("path", "makes")
    path: str
    makes: bool

    def describe(self) -> str:
        return f"mkdir -p {self.path} && cd {self.path}" if self.makes else f"cd {self.path}"

    def apply(self, place: Place) -> None:
        try:
            os.chdir(self.path)
        except FileNotFoundError:
            if not self.makes:
                raise
            os.makedirs(self.path, exist_ok=True)
            if place.identity is not None and self.path != "/":
                os.chown(self.path, place.identity.uid, place.identity.gid)
            os.chdir(self.path)
        if not os.getcwd().startswith("/"):  # "(unreachable)…": a directory outside the root (CVE-2024-21626)
            raise OSError(errno.ENOENT, "the working directory is outside the container", self.path)


class LimitPrivileges(Step):
    """Keep only these capabilities, and become the user."""

    fields = ("capabilities",)
    capabilities: tuple[int, ...]

    def describe(self) -> str:
        return "capsh --drop=all but " + ",".join("cap_" + process.CAPABILITIES[number].lower() for number in self.capabilities)

    def apply(self, place: Place) -> None:
        keep = frozenset(self.capabilities) & process.own_capabilities()
        process.drop_bounding_set(keep)
        identity = place.identity or Identity(uid=0, gid=0, groups=(), home="/")
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        if identity.uid == 0:
            process.set_capabilities(keep)


class Execute(Step):
    """Become the command."""

    fields = ("arguments", "environment", "init")
    arguments: tuple[str, ...]
    environment: list[str]
    init: bool

    def describe(self) -> str:
        return "exec " + " ".join(self.arguments)

    def apply(self, place: Place) -> None:
        environment = dict(item.partition("=")[::2] for item in self.environment)
        path = find_program(self.arguments[0], environment.get("PATH", ""))
        os.execve(path, self.arguments, environment)


def find_program(name: str, search_path: str) -> str:
    """Find a program by PATH, inside the root that this process now has."""
    if not name:
        raise OSError(errno.ENOENT, "no such file or directory", name)
    if "/" in name:
        os.stat(name)
        return name
    refused = None
    for directory in search_path.split(":"):
        path = f"{directory or '.'}/{name}"
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            refused = OSError(errno.EACCES, "permission denied", path)
    raise refused or OSError(errno.ENOENT, "executable file not found in $PATH", name)
