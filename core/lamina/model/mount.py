"""A mount as a value: what drivers answer with and what core carries out (`lamina.linux.mount.attach`)."""

from enum import IntFlag

from lamina.dataclasses import dataclass


class MountFlag(IntFlag):
    """Per-mount attributes, by mount(2)'s names and numbers."""

    NONE = 0
    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    NOATIME = 1024
    BIND = 4096
    REC = 16384
    RELATIME = 1 << 21
    STRICTATIME = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount to make.

    `type` is a file system of the kernel ("overlay", "tmpfs"), "bind" for a directory or file seen elsewhere, or "fuse.NAME" for
    the program NAME run as mount(8) runs its helpers. `target` is an absolute path; several mounts of one target are made in the
    order given (a `REMOUNT` changes the one before). `options` are the file system's own parameters, in order, each a key with a
    value or None for a bare flag; a key may come again (`lowerdir+`).
    """

    type: str
    target: str
    source: str = "none"
    flags: MountFlag = MountFlag.NONE
    options: tuple[tuple[str, str | None], ...] = ()

    def describe(self) -> str:
        """Say the mount as a mount(8) command line."""
        names = [
            flag.name.lower()
            for flag in MountFlag
            if flag and flag in self.flags and flag.name and flag.name not in {"BIND", "REC"}
        ]
        # aufs's own words end in a colon: br:PATH=rw, append:PATH=ro+wh
        names += [key if value is None else f"{key}{'' if key.endswith(':') else '='}{value}" for key, value in self.options]
        if self.type == "bind":
            how = "--rbind" if MountFlag.REC in self.flags else "--bind"
            return f"mount {how} {'-o ' + ','.join(names) + ' ' if names else ''}{self.source} {self.target}"
        return f"mount -t {self.type} {'-o ' + ','.join(names) + ' ' if names else ''}{self.source} {self.target}"
