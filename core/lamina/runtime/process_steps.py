"""Steps that make the process what it shall be: its terminal, user, working directory, privileges, program. Like `steps.py`."""

import errno
import os

from lamina.linux import mount as lm
from lamina.linux import process, terminal, unix_socket
from lamina.linux.fs import RESOLVE_NO_MAGICLINKS, openat2
from lamina.linux.mount import AT_FDCWD
from lamina.linux.procfs import write_in_proc
from lamina.runtime.steps import Place, Step
from lamina.runtime.users import Identity, resolve_groups, resolve_user


class OpenTerminal(Step):
    """Open a terminal of the container's own devpts, make it standard input, output and error, and hand its other end out."""

    fields = ("console",)
    console: bool
    """Whether it is seen as /dev/console too."""

    def describe(self) -> str:
        return "open /dev/ptmx; setsid --ctty" + ("; mount --bind /dev/pts/0 /dev/console" if self.console else "")

    def apply(self, place: Place) -> None:
        master, slave = terminal.open_pair("/dev/pts/ptmx")
        rows, columns = place.terminal_size
        if rows and columns:
            terminal.set_size(master, rows, columns)
        if self.console:
            flags = os.O_CREAT | os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
            console_fd = os.open("/dev/console", flags, 0o600)
            tree = lm.open_tree("", dir_fd=slave)  # both ends by descriptor (CVE-2025-52565 in other engines)
            try:
                place.refuse_inside_proc(console_fd)
                lm.move_mount(tree, target_fd=console_fd)
            finally:
                os.close(tree)
                os.close(console_fd)
        unix_socket.send_descriptor(unix_socket.opened(os.dup(place.console_socket_fd)), master)
        os.close(master)
        terminal.make_controlling(slave)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        if slave > 2:
            os.close(slave)


class FindUser(Step):
    """Turn the user's name into numbers, by the container's own files."""

    fields = ("user", "groups", "environment")
    user: str
    groups: tuple[str, ...]
    """Supplementary groups beside those that /etc/group lists the user in."""
    environment: list[str]

    def describe(self) -> str:
        return f"id {self.user or '0:0'}"

    def apply(self, place: Place) -> None:
        place.identity = resolve_user(self.user)
        if self.groups:
            place.identity.groups = tuple(dict.fromkeys((*place.identity.groups, *resolve_groups(self.groups))))
        if not any(item.startswith("HOME=") for item in self.environment):
            self.environment.append("HOME=" + place.identity.home)
        for fd in (0, 1, 2):  # so that /dev/stdout can be opened again by the user (moby#31243)
            try:
                if os.fstat(fd).st_rdev != 0x103:
                    os.fchown(fd, place.identity.uid, -1)
            except OSError:
                pass


class WorkingDirectory(Step):
    """Go where the command starts; a container's own is made if it is missing, an `exec`'s isn't. Docker's rule.

    No magic link of /proc is followed: with the host's PID namespace /proc/1/root is the host's root, where an image's word would
    otherwise make directories.
    """

    fields = ("path", "makes")
    path: str
    makes: bool

    def describe(self) -> str:
        return f"mkdir -p {self.path} && cd {self.path}" if self.makes else f"cd {self.path}"

    def apply(self, place: Place) -> None:
        try:
            self._enter(openat2(AT_FDCWD, self.path, os.O_PATH | os.O_DIRECTORY, RESOLVE_NO_MAGICLINKS))
        except OSError as error:
            if error.errno == errno.ENOENT and self.makes:
                self._make(place)
            elif error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "a link of /proc leads to the working directory", self.path) from None
            else:
                raise OSError(error.errno, os.strerror(error.errno or 0), self.path) from None
        if not os.getcwd().startswith("/"):  # "(unreachable)…": a directory outside the root (CVE-2024-21626)
            raise OSError(errno.ENOENT, "the working directory is outside the container", self.path)

    def _make(self, place: Place) -> None:
        place.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._enter(place.mountpoint(self.path, directory=True))
        os.close(place.root_fd)
        place.root_fd = -1
        if place.identity is not None:
            os.chown(".", place.identity.uid, place.identity.gid)

    def _enter(self, directory_fd: int) -> None:
        os.fchdir(directory_fd)
        os.close(directory_fd)


class NewSessionKeyring(Step):
    """Leave the engine's session keyring, so that no key in it can be found or read."""

    def describe(self) -> str:
        return "keyctl new_session"

    def apply(self, place: Place) -> None:
        process.new_session_keyring()


class LabelProgram(Step):
    """Say under which label of AppArmor or SELinux the command will run: these take effect at its execve."""

    fields = ("apparmor", "selinux")
    apparmor: str
    selinux: str

    def describe(self) -> str:
        said = [f"aa-exec --profile={self.apparmor}"] if self.apparmor else []
        return "; ".join(said + ([f"runcon {self.selinux}"] if self.selinux else []))

    def apply(self, place: Place) -> None:
        if self.selinux:
            write_in_proc("self/attr/keycreate", self.selinux)
            write_in_proc("self/attr/exec", self.selinux)
        if self.apparmor:
            folder = "self/attr/apparmor" if os.path.isdir("/proc/self/attr/apparmor") else "self/attr"  # before Linux 5.8
            try:
                write_in_proc(f"{folder}/exec", f"exec {self.apparmor}")
            except FileNotFoundError:
                raise OSError(errno.ENOENT, "no such AppArmor profile is loaded", self.apparmor) from None


class BecomeUser(Step):
    """Become the user, and settle what capabilities its command can ever have; this process's own go in `LimitPrivileges`."""

    fields = ("capabilities",)
    capabilities: tuple[int, ...]

    def describe(self) -> str:
        return "capsh --drop=all but " + ",".join("cap_" + process.CAPABILITIES[number].lower() for number in self.capabilities)

    def apply(self, place: Place) -> None:
        process.drop_bounding_set(frozenset(self.capabilities))
        identity = place.identity or Identity(uid=0, gid=0, groups=(), home="/")
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        if identity.uid != 0:
            process.prctl(process.PR_SET_KEEPCAPS, 1)  # until `LimitPrivileges`; they are no longer effective, though
            os.setresuid(identity.uid, identity.uid, identity.uid)
            process.prctl(process.PR_SET_DUMPABLE, 0)  # which the change of the user has set as fs.suid_dumpable says


class FindProgram(Step):
    """Find the program, as the user and in the root that this process now has.

    It may not be reached through a magic link of /proc, nor may its interpreter: /proc/self/exe is still the engine's own
    interpreter, which the container would so get hold of (CVE-2019-5736).
    """

    fields = ("name_of_program", "environment")
    name_of_program: str
    environment: list[str]

    def describe(self) -> str:
        return f"command -v {self.name_of_program}"

    def apply(self, place: Place) -> None:
        environment = dict(item.partition("=")[::2] for item in self.environment)
        place.program = find_program(self.name_of_program, environment.get("PATH", ""))
        refuse_magic_links(place.program)


class LimitPrivileges(Step):
    """Give up what the command isn't to have: gaining privileges, system calls, capabilities.

    A filter needs CAP_SYS_ADMIN to be loaded unless no privileges can be gained, so after it there is only capset(2) and execve(2).
    """

    fields = ("capabilities", "seccomp", "no_new_privileges")
    capabilities: tuple[int, ...]
    seccomp: bytes | None
    no_new_privileges: bool

    def describe(self) -> str:
        said = ["setpriv --no-new-privs"] if self.no_new_privileges else []
        said += [f"seccomp: {len(self.seccomp) // 8} instructions"] if self.seccomp is not None else []
        return "; ".join([*said, "capset"])

    def apply(self, place: Place) -> None:
        own = process.own_capabilities()
        is_root = place.identity is None or place.identity.uid == 0
        keep = frozenset(self.capabilities) & own if is_root else frozenset[int]()
        if self.no_new_privileges:
            process.set_capabilities(keep)
            process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
            if self.seccomp is not None:
                process.set_filter(self.seccomp)
            return
        if self.seccomp is not None:
            if not is_root:
                process.set_capabilities(own, own & {process.CAP_SYS_ADMIN})
            process.set_filter(self.seccomp)
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
        os.execve(place.program, self.arguments, environment)


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


INTERPRETERS_MAX = 5
"""How many `#!` lines may lead to each other: BINPRM_MAX_RECURSION in fs/exec.c, and one."""
_HEAD_BYTES = 256
"""How much of a file the kernel looks for a `#!` line in: BINPRM_BUF_SIZE."""


def refuse_magic_links(path: str) -> None:
    """Raise ELOOP if a program, or its `#!` line's interpreter, is reached through a magic link (/proc/PID/exe, root, fd/N)."""
    for _ in range(INTERPRETERS_MAX):
        head = _head(path)
        if not head.startswith(b"#!"):
            return
        words = head[2:].split(b"\n")[0].split()
        if not words:
            return
        path = os.fsdecode(words[0])


def _head(path: str) -> bytes:
    """Read where a program begins, even one that the user may execute and not read; nothing of what execve will refuse."""
    try:
        fd = _open_program(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a link of /proc leads to the program", path) from None
        return b""
    try:
        return os.read(fd, _HEAD_BYTES)
    except OSError:
        return b""  # a directory
    finally:
        os.close(fd)


def _open_program(path: str) -> int:
    try:
        return openat2(AT_FDCWD, path, _READING, RESOLVE_NO_MAGICLINKS)
    except PermissionError:
        if os.geteuid() == 0:
            raise
    own = process.own_capabilities()
    process.set_capabilities(own, own & {process.CAP_DAC_READ_SEARCH})
    try:
        return openat2(AT_FDCWD, path, _READING, RESOLVE_NO_MAGICLINKS)
    finally:
        process.set_capabilities(own, frozenset())


_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
