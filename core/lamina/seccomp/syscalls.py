"""The table of system calls: name to number, for each architecture that a filter can be made for.

Its data are the kernel's own (`data/syscalls`). Not here: what may be called.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

X32_BIT = 0x40000000
"""Set in the number of an x86_64 call that is meant by the ABI x32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One calling convention: how a filter tells it, and where the table has its numbers."""

    column: str
    audit: int
    """AUDIT_ARCH_*: `arch` of struct seccomp_data."""
    bit: int = 0
    """Added to each of its numbers."""


ARCHITECTURES = {
    "SCMP_ARCH_X86_64": Architecture(column="x86_64", audit=0xC000003E),
    "SCMP_ARCH_X86": Architecture(column="i386", audit=0x40000003),
    "SCMP_ARCH_X32": Architecture(column="x32", audit=0xC000003E, bit=X32_BIT),
    "SCMP_ARCH_AARCH64": Architecture(column="aarch64", audit=0xC00000B7),
    "SCMP_ARCH_ARM": Architecture(column="arm", audit=0x40000028),
    "SCMP_ARCH_RISCV64": Architecture(column="riscv64", audit=0xC00000F3),
}
"""By the names that profiles use, libseccomp's."""

NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "riscv64": "SCMP_ARCH_RISCV64"}
"""A machine by uname(2) to its own architecture."""


@cache
def numbers(column: str) -> dict[str, int]:
    """Every call of an architecture: name to number, without x32's bit."""
    lines = Path(__file__).with_name("data").joinpath("syscalls").read_text(encoding="ascii").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    index = rows[0].index(column)
    return {row[0]: int(row[index]) for row in rows[1:] if row[index] != "-"}
