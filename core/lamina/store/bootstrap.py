"""A small base image out of the host's own programs, so that nothing need be fetched to try a container.

From busybox with all its applets if the host has it, else from the host's shell and core tools; either with the libraries that they
load. The same host gives the same image: times are those of the newest program, and nothing else of the host gets in.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

from lamina.archive.compression import Writable
from lamina.errors import NotFoundError
from lamina.model.image_config import Defaults
from lamina.model.reference import Reference
from lamina.store.elf import loaded_files
from lamina.store.image_build import add_layer_image
from lamina.store.images import Image, ImageStore
from lamina.store.layer_ingest import Progress

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELLS = ("dash", "bash", "ash", "ksh", "sh")
# fmt: off
_TOOLS = (
    "basename", "cat", "chgrp", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dirname", "du", "echo", "env", "expr",
    "false", "find", "grep", "gzip", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv",
    "nproc", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "setsid", "sha256sum", "sleep", "sort", "stat",
    "stty", "sync", "tail", "tar", "tee", "test", "touch", "tr", "true", "tty", "umount", "uname", "uniq", "wc", "which",
    "whoami", "xargs", "yes",
)
# fmt: on
_DIRECTORIES: Mapping[str, int] = {
    **dict.fromkeys(("bin", "dev", "etc", "home", "lib", "proc", "run", "sbin", "sys", "usr", "usr/bin", "usr/sbin", "var"), 0o755),
    "root": 0o700,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
}
_FILES: Mapping[str, str] = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "etc/hostname": "",
    "etc/resolv.conf": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass(slots=True, kw_only=True)
class _Root:
    """The root file system to be: host files by their path in it, symlinks, texts."""

    copies: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def add_program(self, path: str, source: str) -> None:
        """Put a program in, with its loader and libraries."""
        self.copies[path] = source
        loader, libraries = loaded_files(source)
        if not loader:
            return
        self.copies[loader.lstrip("/")] = os.path.realpath(loader)
        # One directory for all, that of the C library: the loader looks there without a cache, wherever the host had the others.
        libc = next((where for name, where in libraries.items() if name.startswith("libc.")), loader)
        for name, where in libraries.items():
            self.copies[os.path.join(os.path.dirname(libc), name).lstrip("/")] = os.path.realpath(where)


def bootstrap(
    images: ImageStore, *, names: Sequence[Reference], busybox: str | None = None, progress: Progress | None = None
) -> Image:
    """Make the image and name it. `busybox` is the program to use, "" for the host's core tools, None to choose.

    Raise NotFoundError if the host has neither busybox nor a shell.
    """
    program = find_program("busybox") if busybox is None else busybox
    root = _busybox_root(program) if program else _tools_root()
    newest_s = max(int(os.stat(source).st_mtime) for source in root.copies.values())

    def write_layer(out: Writable) -> None:
        _write_root(root, newest_s, out)

    return add_layer_image(
        images,
        base=None,
        write_layer=write_layer,
        defaults=Defaults(cmd=("sh",), env=(f"PATH={PATH}",)),
        created_by=f"lamina image bootstrap # {'busybox' if program else 'core tools'} of the host",
        names=names,
        created_ns=newest_s * 10**9,
        progress=progress,
    )


def find_program(name: str) -> str:
    """Find a program of the host; "" if there is none."""
    for directory in PATH.split(":"):
        path = os.path.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def _busybox_root(program: str) -> _Root:
    root = _Root()
    root.add_program("bin/busybox", program)
    for path in _applets(program):
        if path not in root.copies and os.path.dirname(path) and os.path.basename(path) != "busybox":  # no /linuxrc
            root.links[path] = "/bin/busybox"
    root.links["bin/sh"] = "/bin/busybox"
    return root


def _applets(program: str) -> list[str]:
    """Ask busybox where its applets belong; an old or small one tells only their names."""
    for option, directory in (("--list-full", ""), ("--list", "bin")):
        run = subprocess.run([program, option], capture_output=True, text=True, timeout=30, check=False)
        if run.returncode == 0 and run.stdout.strip():
            return [os.path.normpath(os.path.join(directory, line.strip().lstrip("/"))) for line in run.stdout.splitlines() if line]
    raise NotFoundError(f"'{program}' doesn't say which applets it has", hint="remove it, and the host's core tools are used")


def _tools_root() -> _Root:
    root = _Root()
    shell = next((path for path in map(find_program, _SHELLS) if path), "")
    if not shell:
        raise NotFoundError("the host has no busybox and no shell to make an image of", hint="install busybox-static")
    root.add_program("bin/sh", shell)
    for name in _TOOLS:
        path = find_program(name)
        if path:
            root.add_program(f"bin/{name}", path)
    root.links["usr/bin/env"] = "/bin/env"
    return root


def _write_root(root: _Root, mtime_s: int, out: Writable) -> None:
    """Write the tar, its members in the order of their paths."""
    from tarfile import DIRTYPE, PAX_FORMAT, SYMTYPE, TarFile, TarInfo  # 14 ms

    directories = dict(_DIRECTORIES)
    for path in (*root.copies, *root.links):
        while path := os.path.dirname(path):
            directories.setdefault(path, 0o755)
    with TarFile.open(mode="w|", fileobj=out, format=PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for path in sorted({*directories, *_FILES, *root.copies, *root.links}):
            info = TarInfo(path)
            info.mtime, info.mode = mtime_s, directories.get(path, 0o644)
            if path in directories:
                info.type = DIRTYPE
                tar.addfile(info)
            elif path in root.links:
                info.type, info.linkname, info.mode = SYMTYPE, root.links[path], 0o777
                tar.addfile(info)
            elif path in root.copies:
                with open(root.copies[path], "rb") as source:
                    info.size, info.mode = os.fstat(source.fileno()).st_size, 0o755
                    tar.addfile(info, source)
            else:
                content = _FILES[path].encode()
                info.size = len(content)
                tar.addfile(info, BytesIO(content))
