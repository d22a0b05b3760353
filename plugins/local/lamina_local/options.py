"""The options of a local volume, `type`, `device` and `o`: mount(8)'s words parsed once into a value. No I/O.

They are those of Docker's `local` driver: `--opt type=tmpfs --opt device=tmpfs --opt o=size=100m,uid=1000`,
`--opt type=none --opt o=bind --opt device=/path`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lamina.errors import UsageError
from lamina.model.mount import Mount, MountFlag

KNOWN = ("type", "device", "o")

SET_FLAGS = {
    "ro": MountFlag.RDONLY,
    "nosuid": MountFlag.NOSUID,
    "nodev": MountFlag.NODEV,
    "noexec": MountFlag.NOEXEC,
    "noatime": MountFlag.NOATIME,
    "relatime": MountFlag.RELATIME,
    "strictatime": MountFlag.STRICTATIME,
    "bind": MountFlag.BIND,
    "rbind": MountFlag.BIND | MountFlag.REC,
}
CLEAR_FLAGS = {
    "rw": MountFlag.RDONLY,
    "suid": MountFlag.NOSUID,
    "dev": MountFlag.NODEV,
    "exec": MountFlag.NOEXEC,
    "atime": MountFlag.NOATIME,
    "defaults": MountFlag.NONE,
}
"""mount(8), "Filesystem-independent mount options": a later word undoes an earlier one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a volume with options is a mount of."""

    type: str
    device: str
    flags: MountFlag
    options: tuple[tuple[str, str | None], ...]

    @property
    def is_bind(self) -> bool:
        """Whether it is a directory of the host's."""
        return MountFlag.BIND in self.flags

    def mount(self) -> Mount:
        """Say it as a mount whose target the engine fills in."""
        return Mount(
            type="bind" if self.is_bind else self.type, source=self.device, target="", flags=self.flags, options=self.options
        )


def parse(options: Mapping[str, str]) -> Device | None:
    """Read a volume's options; None if there are none and the volume is a directory of its own.

    Raises `UsageError` for an option that isn't known, is missing, or contradicts another.
    """
    for key in options:
        if key not in KNOWN:
            raise UsageError(f"the local volume driver doesn't know the option '{key}'", hint=f"it knows {', '.join(KNOWN)}")
    if not options:
        return None
    for key in ("type", "device"):
        if not options.get(key):
            raise UsageError(f"a local volume with options needs the option '{key}'", hint="give both, type and device")
    flags, own = _parse_words(options.get("o", ""))
    device = Device(type=options["type"], device=options["device"], flags=flags, options=own)
    if device.is_bind:
        if device.type not in {"none", "bind"}:
            raise UsageError(f"the volume option 'o=bind' doesn't go with 'type={device.type}'", hint="use type=none")
        if own:
            raise UsageError(f"a bind mount takes no option '{own[0][0]}'")
        if not os.path.isabs(device.device):
            raise UsageError(f"the volume's device '{device.device}' is not an absolute path")
    elif device.type in {"none", "bind"}:
        raise UsageError(f"the volume option 'type={device.type}' needs 'o=bind'")
    return device


def _parse_words(text: str) -> tuple[MountFlag, tuple[tuple[str, str | None], ...]]:
    flags, own = MountFlag.NONE, []
    for word in filter(None, text.split(",")):
        if word in SET_FLAGS:
            flags |= SET_FLAGS[word]
        elif word in CLEAR_FLAGS:
            flags &= ~CLEAR_FLAGS[word]
        else:
            key, equals, value = word.partition("=")
            own.append((key, value if equals else None))
    return flags, tuple(own)
