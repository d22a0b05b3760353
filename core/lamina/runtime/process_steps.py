"""Steps that make the process what it shall be: its terminal, user, working directory, privileges, program. Like `steps.py`."""

import errno
import os

from lamina.linux import mount as lm
from lamina.linux import process
from lamina.runtime.steps import Place, Step
from lamina.runtime.users import Identity, resolve_user


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
