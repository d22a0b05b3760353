"""Platforms: this machine's, what a person writes, and which image of an index runs where. No I/O but uname(2).

The orders of preference are those of containerd's package platforms: a 64-bit machine runs 32-bit images of its family too, and
an ARM machine those of older variants.
"""

import os
from collections.abc import Sequence

from lamina.errors import UsageError
from lamina.model.image import Descriptor, Platform
from lamina.model.machine import ARCHITECTURES

_UNSAID = {("arm64", "v8"), ("amd64", "v1")}
"""Variants that an architecture has without saying so."""
_ARM = ("v8", "v7", "v6", "v5")


def this_machine() -> Platform:
    """Give the platform that we run on."""
    return _platform("linux", os.uname().machine, "")


def parse_platform(text: str) -> Platform:
    """Read `OS/ARCHITECTURE[/VARIANT]`, or an architecture alone. Raises `UsageError`."""
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts = ["linux", parts[0]] if parts[0] != "linux" else ["linux", this_machine().architecture]
    if not 2 <= len(parts) <= 3 or not all(part and part.replace("_", "").replace("-", "").isalnum() for part in parts):
        raise UsageError(f"invalid platform '{text}'", hint="write OS/ARCHITECTURE[/VARIANT], such as linux/amd64")
    return _platform(parts[0], parts[1], parts[2] if len(parts) == 3 else "")


def _platform(system: str, architecture: str, variant: str) -> Platform:
    name, implied = ARCHITECTURES.get(architecture, (architecture, ""))
    variant = variant or implied
    return Platform(os=system, architecture=name, variant="" if (name, variant) in _UNSAID else variant)


def _normal(platform: Platform) -> tuple[str, str, str]:
    plain = _platform(platform.os, platform.architecture, platform.variant)
    return plain.os, plain.architecture, plain.variant


def runs(wanted: Platform) -> list[tuple[str, str, str]]:
    """List what a machine of this platform runs, the best first."""
    system, architecture, variant = _normal(wanted)
    found = [(system, architecture, variant)]
    if architecture == "amd64":
        level = int(variant[1:]) if variant[:1] == "v" and variant[1:].isdecimal() else 1
        found += [(system, "amd64", f"v{each}" if each > 1 else "") for each in range(level - 1, 0, -1)]
        found.append((system, "386", ""))
    elif architecture == "arm64":
        found += [(system, "arm64", "")] if variant else []
        found += [(system, "arm", each) for each in _ARM]
    elif architecture == "arm":
        variant = variant or "v7"
        found += [(system, "arm", each) for each in _ARM[_ARM.index(variant) + 1 :]] if variant in _ARM else []
        found.append((system, "arm", ""))
    return list(dict.fromkeys(found))


def fits(has: Platform, wanted: Platform) -> bool:
    """Whether an image of one platform runs on another."""
    return _normal(has) in runs(wanted)


def choose(manifests: Sequence[Descriptor], wanted: Platform) -> Descriptor | None:
    """Choose the best image of an index for a platform, the first of several equal ones; None if none runs there."""
    order = runs(wanted)
    ranked = [
        (order.index(_normal(each.platform)), number)
        for number, each in enumerate(manifests)
        if each.platform is not None and _normal(each.platform) in order
    ]
    return manifests[min(ranked)[1]] if ranked else None


def offered(manifests: Sequence[Descriptor]) -> str:
    """Name the platforms of an index, for a message; what builders attach (`unknown/unknown`) is left out."""
    names = [str(each.platform) for each in manifests if each.platform is not None and each.platform.os not in {"", "unknown"}]
    return ", ".join(dict.fromkeys(names))
