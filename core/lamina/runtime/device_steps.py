"""The step that gives a container devices that others don't have. See `steps.py`."""

import os

from lamina.linux import mount as lm
from lamina.runtime.steps import Place, Step


class MakeDevices(Step):
    """Make device nodes: in the container's own /dev; elsewhere a mount of such a node, so that no layer has it."""

    fields = ("nodes",)
    nodes: tuple[tuple[str, int, int, int, int], ...]
    """Path in the container, mode with its kind, the device's number, uid, gid."""

    def describe(self) -> str:
        kinds = {0o060000: "b", 0o020000: "c"}
        return "; ".join(
            f"mknod -m {mode & 0o777:o} $ROOT{path} {kinds[mode & 0o170000]} {os.major(number)} {os.minor(number)}"
            for path, mode, number, _uid, _gid in self.nodes
        )

    def apply(self, place: Place) -> None:
        for path, mode, number, uid, gid in self.nodes:
            inside = path.startswith("/dev/")
            name = path.removeprefix("/dev/") if inside else ".lamina-device"
            for end in [index for index, char in enumerate(name) if char == "/"]:
                try:
                    os.mkdir(name[:end], 0o755, dir_fd=place.dev_fd)
                except FileExistsError:
                    pass
            try:
                os.unlink(name, dir_fd=place.dev_fd)
            except FileNotFoundError:
                pass
            os.mknod(name, mode, number, dir_fd=place.dev_fd)
            os.chown(name, uid, gid, dir_fd=place.dev_fd, follow_symlinks=False)
            os.chmod(name, mode & 0o7777, dir_fd=place.dev_fd)
            if not inside:
                place.attach(lm.open_tree(name, dir_fd=place.dev_fd, follow=False), path, read_only=False)
                os.unlink(name, dir_fd=place.dev_fd)
