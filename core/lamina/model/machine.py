"""This machine by Go's names, which images use. Alone in its module, so that `version` can say it without importing images."""

import os

ARCHITECTURES = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "i386": ("386", ""), "i486": ("386", ""), "i586": ("386", ""),
    "i686": ("386", ""), "aarch64": ("arm64", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6"), "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6"), "armv5tel": ("arm", "v5"), "loongarch64": ("loong64", ""),
}  # fmt: skip
"""What uname(2) and people call an architecture, to its name in images and the variant that goes with it."""


def machine_architecture() -> str:
    """Give the architecture that we run on; one without another name has its own."""
    machine = os.uname().machine
    return ARCHITECTURES.get(machine, (machine, ""))[0]
