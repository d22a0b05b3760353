"""The volume driver `local`: a directory of its own for each volume, or a mount that the volume's options describe.

A map of `home` (`/var/lib/lamina/volumes`), where `<name>` is as Docker has it:

    <name>/_data/               the volume's files; stays empty when options say that they are elsewhere
    .removed/<name>-<random>/   a volume that is being deleted; what a killed engine left here goes with the next removal

A volume with options is mounted anew for each container: two containers share what a device or a host directory holds, while a
tmpfs is each container's own and ends with it. (Docker mounts it on the host once; here the host doesn't see the mounts.)
"""

import os
import re

from lamina.api.hookspecs import hookimpl
from lamina.api.types import API_VERSION, VolumeSpec
from lamina.errors import UsageError
from lamina.linux.fs import remove_tree
from lamina.model.mount import Mount, MountFlag
from lamina_local.options import parse

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class LocalVolumes:
    """Directories on this machine. Each method is a hook; its contract is in `lamina.api.hookspecs`."""

    name = "local"
    api_version = API_VERSION

    @hookimpl
    def volume_create(self, home: str, spec: VolumeSpec) -> bool:
        """Make the directories; what a killed engine made of them already is completed."""
        parse(spec.options)
        volume = _volume_dir(home, spec)
        _make_directory(f"{home}/.removed", 0o700)  # while there is room: on a full disk a removal has none for it
        made = _make_directory(volume, 0o701)
        try:
            _make_directory(f"{volume}/_data", 0o755)
        except BaseException:
            if made:
                os.rmdir(volume)
            raise
        return True

    @hookimpl
    def volume_mounts(self, home: str, spec: VolumeSpec) -> list[Mount]:
        """One mount: of the volume's own directory, or of what its options name."""
        device = parse(spec.options)
        if device is not None:
            return [device.mount()]
        return [Mount(type="bind", source=f"{_volume_dir(home, spec)}/_data", target="", flags=MountFlag.BIND | MountFlag.REC)]

    @hookimpl
    def volume_remove(self, home: str, spec: VolumeSpec) -> bool:
        """Rename the volume aside, so that its name is free or taken and never half there, then delete. A device is let be."""
        volume, removed = _volume_dir(home, spec), f"{home}/.removed"
        os.makedirs(removed, mode=0o700, exist_ok=True)
        try:
            os.rename(volume, f"{removed}/{spec.name}-{os.urandom(6).hex()}")
        except FileNotFoundError:
            pass
        for name in os.listdir(removed):
            remove_tree(f"{removed}/{name}")
        return True

    @hookimpl
    def volume_mountpoint(self, home: str, spec: VolumeSpec) -> str:
        """Where the host finds the files: nowhere, if they are only in a mount that a container has."""
        device = parse(spec.options)
        if device is None:
            return f"{_volume_dir(home, spec)}/_data"
        return device.device if device.is_bind else ""


def _volume_dir(home: str, spec: VolumeSpec) -> str:
    if not _NAME.fullmatch(spec.name):
        raise UsageError(f"'{spec.name}' can't be a volume's name", hint="use letters, digits, '_', '.' and '-'")
    return f"{home}/{spec.name}"


def _make_directory(path: str, mode: int) -> bool:
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    os.chmod(path, mode)  # mkdir(2) takes the umask away, chmod(2) doesn't
    return True


plugin = LocalVolumes()
