"""What this machine has for storage drivers, and what each driver would give and lose on it.

The machine's facts are probed, nothing is mounted and nothing left behind. What is said of a driver follows from its capabilities
and its probe alone, so that it holds for anyone's driver.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lamina.api.copytree import kept_here
from lamina.api.types import Behaviour, Fidelity, Probe, WhiteoutFormat
from lamina.linux import mount as lm
from lamina.linux import mountinfo
from lamina.linux.fs import can_clone, filesystem_type, mount_id, nearest_directory, tells_types
from lamina.usecases.system import DriverStatus

FILE_SYSTEMS = ("overlay", "aufs", "btrfs", "xfs", "zfs", "bcachefs", "fuse", "erofs")
"""Those that storage drivers are made of."""
PROGRAMS = ("fuse-overlayfs", "btrfs", "zfs", "mount.composefs")
FEATURES = {"lowerdir+": (6, 7), "idmapped overlay": (5, 19)}
"""What drivers can make use of, and the Linux that brought it (kernelnewbies.org; overlayfs.rst)."""

_LOST = {
    Fidelity.OWNER: "files don't keep their owners",
    Fidelity.MODE: "files don't keep their modes, setuid and the like included",
    Fidelity.NANOSECONDS: "times are kept to the second only: make(1) and caches may take files for changed, or for unchanged",
    Fidelity.HARD_LINKS: "hard links break: a change through one name of an image's file leaves its other names as they were",
    Fidelity.HOLES: "sparse files are filled: they take as much disk as they are long",
    Fidelity.DEVICES: "device files aren't kept",
    Fidelity.SOCKETS: "sockets aren't kept",
    Fidelity.USER_XATTRS: "user.* attributes aren't kept",
    Fidelity.TRUSTED_XATTRS: "trusted.* attributes aren't kept",
    Fidelity.FILE_CAPABILITIES: "file capabilities aren't kept: ping and its like may fail for users",
    Fidelity.ACLS: "ACLs aren't kept",
}
_MISSED = {
    Behaviour.DIRECTORY_RENAME: "renaming a directory of the image is EXDEV: mv(1) copies it, programs that don't know fail",
    Behaviour.OPEN_FILES: "what was opened for reading before the first write to a file goes on showing the old file",
    Behaviour.MAPPINGS: "a memory map made before the first write to a file goes on showing the old bytes",
    Behaviour.LOCKS: "a lock taken before the first write to a file doesn't exclude one taken after it",
    Behaviour.STABLE_INODES: "a file's inode number changes with its first change: tools that watch inodes are misled",
    Behaviour.DIRECTORY_LINKS: "a directory's link count doesn't tell its subdirectories",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Facts. `file_systems` says of each how it is there: "loaded", "module" or ""; `programs` where each is, "" if nowhere."""

    kernel: str
    features: dict[str, bool]
    file_systems: dict[str, str]
    programs: dict[str, str]
    fuse_device: bool
    place: str
    fstype: str
    free_bytes: int
    total_bytes: int
    free_inodes: int
    writable: bool
    reflink: bool
    entry_types: bool
    project_quota: bool
    keeps: frozenset[Fidelity]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One driver on this machine."""

    status: DriverStatus
    gives: tuple[str, ...]
    loses: tuple[str, ...]
    reason: str
    remedies: tuple[str, ...]


def examine_machine(root_dir: str) -> Machine:
    """Probe what matters for drivers whose layers lie below `root_dir`."""
    place = nearest_directory(root_dir)
    space = os.statvfs(place)
    try:
        reflink, keeps, writable = can_clone(place), kept_here(place), True
    except OSError:  # read-only, or not ours
        reflink, keeps, writable = False, frozenset(), False
    version = lm.kernel_version()
    loaded, modules = _loaded(), _modules()
    return Machine(
        kernel=os.uname().release,
        features={name: version >= since for name, since in FEATURES.items()},
        file_systems={name: "loaded" if name in loaded else "module" if name in modules else "" for name in FILE_SYSTEMS},
        programs={name: _program(name) for name in PROGRAMS},
        fuse_device=os.path.exists("/dev/fuse"),
        place=place,
        fstype=filesystem_type(place),
        free_bytes=space.f_bavail * space.f_frsize,
        total_bytes=space.f_blocks * space.f_frsize,
        free_inodes=space.f_favail,
        writable=writable,
        reflink=reflink,
        entry_types=tells_types(place),
        project_quota=_has_project_quota(place),
        keeps=keeps,
    )


def diagnose(status: DriverStatus) -> Diagnosis:
    """Say what a driver gives and loses here, and if it can't work, what would help."""
    probe = status.probe
    if probe is None:
        advice = "install another release of it, or remove it; nothing else needs it"
        return Diagnosis(status=status, gives=(), loses=(), reason=status.problem, remedies=(advice,))
    remedies: tuple[str, ...] = (probe.hint,) if probe.hint else ()
    if not probe.usable and not remedies:
        remedies = ("the driver doesn't say what would help: its documentation may",)
    return Diagnosis(
        status=status,
        gives=tuple(_gives(probe)),
        loses=tuple(_loses(probe)),
        reason=probe.reason,
        remedies=remedies,
    )


def _gives(probe: Probe) -> Iterator[str]:
    able = probe.capabilities
    if able.whiteouts is WhiteoutFormat.NONE:
        yield "no copy at the first write: a container's layer is a whole tree from the start"
    else:
        yield f"a container's layer begins empty and holds only what it changes, in the {able.whiteouts} form that other tools read"
    if able.native_diff:
        yield "diff and commit read the container's own layer and nothing else"
    if able.max_depth is None:
        yield "images of any depth"
    if able.quota:
        yield "a limit on how much a container may write"
    if not set(Fidelity) - able.preserves:
        yield "everything about a file is kept"
    if not set(Behaviour) - able.behaves:
        yield "a container's root behaves as a plain file system in all that is looked at"
    elif kept := sorted(each.value for each in able.behaves):
        yield f"as on a plain file system: {', '.join(kept)}"


def _loses(probe: Probe) -> Iterator[str]:
    able = probe.capabilities
    if able.whiteouts is not WhiteoutFormat.NONE:
        yield "the first write to an image's file copies all of it: seconds for a database of gigabytes"
    else:
        yield f"each container has a whole tree of its own, made by: {probe.method or 'a way not told'}"
    if not able.native_diff:
        yield "diff and commit compare whole trees: their time grows with the image"
    if able.max_depth is not None:
        yield f"images of at most {able.max_depth - 1} layers"
    if not able.quota:
        yield "no limit on how much a container may write"
    yield from (_LOST[each] for each in Fidelity if each not in able.preserves)
    yield from (_MISSED[each] for each in Behaviour if each not in able.behaves)
    if able.forbidden_prefix:
        yield f"names that begin with '{able.forbidden_prefix}' can't be made"
    if able.max_name_bytes < 255:
        yield f"names are at most {able.max_name_bytes} bytes long, not 255"


def _loaded() -> set[str]:
    with open("/proc/filesystems", encoding="utf-8") as lines:
        return {line.split()[-1] for line in lines}


def _modules() -> set[str]:
    """The modules that the kernel could load by itself."""
    try:
        with open(f"/lib/modules/{os.uname().release}/modules.dep", encoding="utf-8") as lines:
            return {os.path.basename(line.partition(":")[0]).partition(".")[0] for line in lines}
    except OSError:
        return set()


def _program(name: str) -> str:
    folders = os.environ.get("PATH", os.defpath).split(":")
    return next((f"{folder}/{name}" for folder in folders if folder and os.access(f"{folder}/{name}", os.X_OK)), "")


def _has_project_quota(place: str) -> bool:
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        found = mount_id(fd)
    finally:
        os.close(fd)
    return counts_projects(next((each.super_options for each in mountinfo.mounts() if each.id == found), ""))


def counts_projects(super_options: str) -> bool:
    """Whether a file system mounted with these options holds project quotas (ext4(5), xfs(5))."""
    return bool({"prjquota", "pquota"} & set(super_options.split(",")))


def doctor_document(machine: Machine, diagnoses: list[Diagnosis]) -> dict[str, Any]:
    """What `driver doctor` shows as JSON."""
    return {
        "Machine": {
            "Kernel": machine.kernel,
            "Features": machine.features,
            "FileSystems": machine.file_systems,
            "Programs": machine.programs,
            "FuseDevice": machine.fuse_device,
            "Place": machine.place,
            "FileSystem": machine.fstype,
            "FreeBytes": machine.free_bytes,
            "TotalBytes": machine.total_bytes,
            "FreeInodes": machine.free_inodes,
            "Writable": machine.writable,
            "Reflink": machine.reflink,
            "EntryTypes": machine.entry_types,
            "ProjectQuota": machine.project_quota,
            "Keeps": sorted(each.value for each in machine.keeps),
        },
        "Drivers": [
            {
                "Name": each.status.name,
                "Default": each.status.is_default,
                "Usable": each.status.probe is not None and each.status.probe.usable,
                "Method": each.status.probe.method if each.status.probe is not None else "",
                "Gives": list(each.gives),
                "Loses": list(each.loses),
                "Reason": each.reason,
                "Remedies": list(each.remedies),
            }
            for each in diagnoses
        ],
    }
