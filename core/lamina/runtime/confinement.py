"""How a container is confined: Docker's defaults, and what of them a container was asked to have otherwise.

Defaults: moby's oci/defaults.go (paths) and oci/caps/defaults.go (capabilities). What a process then does about it is in
`process_steps.py` and `mount_steps.py`.
"""

import os
from typing import TYPE_CHECKING

from lamina.dataclasses import dataclass
from lamina.linux.process import CAPABILITIES

if TYPE_CHECKING:
    from lamina.model.confinement import Confinement

DEFAULT_CAPABILITIES = tuple(
    CAPABILITIES.index(name)
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "NET_RAW",
        "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP",
    )
)  # fmt: skip
ALL_CAPABILITIES = tuple(range(len(CAPABILITIES)))

MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/interrupts", "/sys/firmware", "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/cpu*/thermal_throttle",
)  # fmt: skip
"""A `*` stands for a number."""
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_PROFILE = "lamina-default"
"""Of AppArmor; its text is the file of this name beside this one."""
FILTER_REVISION = "d5002b49f494"
"""Of the compiler and its data: the beginning of their digest (`tests/unit/test_seccomp.py` says what it must be)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confined:
    """What holds for one process of a container. Without a word it is everything that the engine itself may."""

    capabilities: tuple[int, ...] = ALL_CAPABILITIES
    """Those that the engine doesn't have are left out when the process starts."""
    seccomp: bytes | None = None
    """The compiled filter."""
    no_new_privileges: bool = False
    is_privileged: bool = False
    has_system_paths: bool = True
    """Whether /proc and /sys are seen as they are, nothing masked and nothing made read-only."""
    apparmor: str = ""
    selinux: str = ""
    file_label: str = ""
    """Of SELinux, for what is mounted for the container."""


def confine(asked: "Confinement | None", *, filter_dir: str, extended: bool = False) -> Confined:
    """Say what holds for a container of which `asked` was asked; `extended` for the process of an `exec --privileged` in it.

    Reads the compiled filter, or compiles it the first time; loads the default AppArmor profile unless it is loaded. Raises
    `UsageError` where there can be no filter, `NotUsableError` where the profile doesn't load.
    """
    apparmor = "" if extended else apparmor_profile(asked, loads=True)
    if asked is None:
        capabilities = ALL_CAPABILITIES if extended else DEFAULT_CAPABILITIES
        filter_ = _filter(filter_dir, _bits(capabilities))
        return Confined(capabilities=capabilities, seccomp=filter_, has_system_paths=False, apparmor=apparmor)
    capabilities = ALL_CAPABILITIES if extended or asked.privileged else adjusted(asked.cap_add, asked.cap_drop)
    profile = asked.seccomp or ("unconfined" if asked.privileged else "")
    text = "" if profile == "builtin" else profile
    seccomp = None if profile == "unconfined" else _filter(filter_dir, _bits(capabilities), text)
    return Confined(
        capabilities=capabilities,
        seccomp=seccomp,
        no_new_privileges=asked.no_new_privileges,
        is_privileged=asked.privileged,
        has_system_paths=asked.privileged or asked.system_paths_unconfined,
        apparmor=apparmor,
        selinux=asked.process_label,
        file_label=asked.file_label,
    )


def apparmor_profile(asked: "Confinement | None", *, loads: bool = False) -> str:
    """Say which AppArmor profile a container has, "" for none: the one that was asked for, else the default one.

    That one is left out for a privileged container, and where it is neither loaded nor can be: in a system without the parser, or
    without AppArmor. It is loaded if `loads`. Raises `NotUsableError` if that fails.
    """
    profile = asked.apparmor if asked is not None else ""
    if profile not in {"", DEFAULT_PROFILE}:
        return "" if profile == "unconfined" else profile
    if not profile and (not os.path.isdir("/sys/module/apparmor") or (asked is not None and asked.privileged)):
        return ""
    from lamina.linux import apparmor  # for those who have it

    if not apparmor.is_loaded(DEFAULT_PROFILE):
        if not apparmor.parser():
            return profile
        if loads:
            apparmor.load(os.path.join(os.path.dirname(__file__), DEFAULT_PROFILE))
    return DEFAULT_PROFILE


def adjusted(add: tuple[str, ...], drop: tuple[str, ...]) -> tuple[int, ...]:
    """Add to and drop from the defaults as Docker does: ALL added is all but the dropped, ALL dropped only the added."""
    added = {CAPABILITIES.index(name) for name in add if name != "ALL"}
    dropped = {CAPABILITIES.index(name) for name in drop if name != "ALL"}
    if "ALL" in add:
        return tuple(number for number in ALL_CAPABILITIES if number not in dropped)
    if "ALL" in drop:
        return tuple(sorted(added))
    return tuple(sorted({*DEFAULT_CAPABILITIES} - dropped | added))


def _bits(capabilities: tuple[int, ...]) -> int:
    return sum(1 << number for number in capabilities)


def _filter(directory: str, capabilities: int, profile: str = "") -> bytes:
    """Give the filter of a profile's JSON text, "" for the default one, for capabilities as bits; compile it if it is new.

    Its file's name says all that it was made of, so it never goes stale, and a start opens that file and imports no compiler.
    """
    system = os.uname()
    version = ".".join(system.release.split("-")[0].split(".")[:2])
    path = f"{directory}/{_digest(profile)}-{FILTER_REVISION}-{capabilities:x}-{system.machine}-{version}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        from lamina.seccomp.cache import make

        return make(path, machine=system.machine, version=version, capabilities=capabilities, profile=profile)
    try:
        return os.read(fd, 1 << 16)  # more than the kernel takes: 4096 instructions of 8 bytes
    finally:
        os.close(fd)


def _digest(profile: str) -> str:
    if not profile:
        return "default"
    from hashlib import sha256  # for those who have a profile of their own

    return sha256(profile.encode()).hexdigest()[:32]
