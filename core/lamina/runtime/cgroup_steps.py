"""Steps about the container's own cgroup: entering it, and seeing it. See `steps.py`."""

import os

from lamina.dataclasses import dataclass
from lamina.linux import cgroup
from lamina.linux import mount as lm
from lamina.runtime.steps import Place, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCgroup:
    """The container's cgroup in one hierarchy."""

    name: str
    """In the container's /sys/fs/cgroup: the hierarchy's, or "" where version 2 is all there is."""
    directory: str
    entrance: str
    """The file into which a process writes 0 to be in it."""


class EnterCgroup(Step):
    """Enter the container's cgroup, so far as the process wasn't born in it. From this first step on everything is counted."""

    fields = ("entrances",)
    entrances: tuple[str, ...]

    def describe(self) -> str:
        return "; ".join(f"echo 0 > {entrance}" for entrance in self.entrances)

    @property
    def slow_entrance(self) -> str:
        """The one of version 2, "" for none: its writer waits for a grace period of RCU, and whoever is born behind it doesn't."""
        return next((each for each in self.entrances if each.endswith("/cgroup.procs")), "")

    def apply(self, place: Place) -> None:
        for entrance in self.entrances:
            if not (place.is_born_inside and entrance == self.slow_entrance):
                cgroup.write(entrance, "0")


class ShowCgroup(Step):
    """Let the container see its own cgroup at /sys/fs/cgroup, and no other one."""

    fields = ("shown", "read_only")
    shown: tuple[tuple[str, str], ...]
    """Name in /sys/fs/cgroup and directory, one for each hierarchy; the name is "" where version 2 is all there is."""
    read_only: bool

    def describe(self) -> str:
        how = "--bind -o ro" if self.read_only else "--bind"
        words = [] if self.shown[0][0] == "" else [f"mount -t tmpfs tmpfs $ROOT{cgroup.MOUNT_POINT}"]
        return "; ".join(words + [f"mount {how} {path} $ROOT{cgroup.MOUNT_POINT}/{name}".rstrip("/") for name, path in self.shown])

    def apply(self, place: Place) -> None:
        flags = lm.MS_NOSUID | lm.MS_NODEV | lm.MS_NOEXEC | (lm.MS_RDONLY if self.read_only else 0)
        if self.shown[0][0] == "":
            tree_fd = lm.open_tree(self.shown[0][1])
            lm.set_attributes(tree_fd, flags)
            self._attach(place, tree_fd)
            os.close(tree_fd)
            return
        top_fd = lm.fsmount("tmpfs", (("mode", "755"),), flags=flags & ~lm.MS_RDONLY, source="tmpfs")
        self._attach(place, top_fd)
        for name, path in self.shown:
            os.mkdir(name, 0o755, dir_fd=top_fd)
            tree_fd = lm.open_tree(path)
            lm.move_mount(tree_fd, name, target_fd=top_fd)  # by name: nobody else is in this new file system
            os.close(tree_fd)
            if "," in name:  # controllers that share a hierarchy are found by each one's name, too
                for each in name.split(","):
                    os.symlink(name, each, dir_fd=top_fd)
        lm.set_attributes(top_fd, flags, recursive=True)
        os.close(top_fd)

    def _attach(self, place: Place, fd: int) -> None:
        target_fd = place.mountpoint(cgroup.MOUNT_POINT, directory=True)
        lm.move_mount(fd, target_fd=target_fd)
        os.close(target_fd)
