"""How containers are confined, seen from outside: whether what was asked can be had here, and what `inspect` and `info` say."""

import os
from typing import Any

from lamina.errors import NotUsableError
from lamina.linux import apparmor, process, selinux
from lamina.model.confinement import Confinement
from lamina.runtime.confinement import MASKED_PATHS, READ_ONLY_PATHS, apparmor_profile, confine


def check_confinement(asked: Confinement, filter_dir: str) -> None:
    """Refuse what this machine or this engine can't give. Raises `NotUsableError`, `UsageError`; compiles the filter."""
    own = process.own_capabilities()
    for name in asked.cap_add:
        if name != "ALL" and process.CAPABILITIES.index(name) not in own:
            raise NotUsableError(f"capability '{name}' can't be given", hint="the engine doesn't have it itself")
    if asked.apparmor not in {"", "unconfined"} and not apparmor.is_enabled():
        raise NotUsableError(f"the AppArmor profile '{asked.apparmor}' can't be applied: the kernel runs without AppArmor")
    if asked.labels and "disable" not in asked.labels and not selinux.is_enabled():
        raise NotUsableError(f"the label '{asked.labels[0]}' can't be applied: the kernel runs without SELinux")
    confine(asked, filter_dir=filter_dir)


def confinement_document(asked: Confinement | None) -> dict[str, Any]:
    """What `inspect` shows of it in `HostConfig`, for None the defaults."""
    asked = asked or Confinement()
    has_system_paths = asked.privileged or asked.system_paths_unconfined
    return {
        "Privileged": asked.privileged,
        "CapAdd": _named(asked.cap_add),
        "CapDrop": _named(asked.cap_drop),
        "SecurityOpt": asked.security_options or None,
        "MaskedPaths": None if has_system_paths else list(MASKED_PATHS),
        "ReadonlyPaths": None if has_system_paths else list(READ_ONLY_PATHS),
    }


def label_document(asked: Confinement | None) -> dict[str, str]:
    """What `inspect` shows of labels."""
    profile = apparmor_profile(asked)
    asked = asked or Confinement()
    return {
        "MountLabel": asked.file_label,
        "ProcessLabel": asked.process_label,
        "AppArmorProfile": profile or ("unconfined" if apparmor.is_enabled() else ""),
    }


def _named(capabilities: tuple[str, ...]) -> list[str] | None:
    return [name if name == "ALL" else f"CAP_{name}" for name in capabilities] or None


def security_options() -> list[str]:
    """What `info` says: the security modules and filters that containers here can be confined by, in Docker's words."""
    from lamina.seccomp.syscalls import NATIVE  # with its table: `inspect` needs none

    found = [f"name=apparmor,profile={apparmor_profile(None) or 'unconfined'}"] if apparmor.is_enabled() else []
    found += ["name=seccomp,profile=builtin"] if os.uname().machine in NATIVE else []
    return found + (["name=selinux"] if selinux.is_enabled() else [])
