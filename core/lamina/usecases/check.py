"""`system check`: does what lies on disk, what is mounted and what runs agree with the database, and every byte with its digest.

Here is what all parts of the check share, and their order: images first, for they are what layers are made again from. A check runs
beside other commands: what it holds against the database it has looked at first, and before it calls anything wrong it takes that
thing's lock and looks once more. It reads; only with `repair` it changes something, never a container's own files or a volume's.

check_images.py    blobs, the index, what images are made of
check_layers.py    unpacked layers, byte by byte, and their folders
check_state.py     rows that belong to nothing, containers' and volumes' folders, temporary files, places in networks
check_kernel.py    mounts and cgroups that belong to nobody
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lamina.errors import LaminaError
from lamina.model.digest import Digest
from lamina.usecases.context import Context
from lamina.usecases.volumes import Volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str
    """blob, image, index, layer, container, volume, network, mount, cgroup, record or file."""
    subject: str
    """Which one: a digest, an id, a name, a path."""
    problem: str
    advice: str
    """What would put it right; empty once it is."""
    repaired: str = ""
    """What was done about it."""

    @property
    def is_left(self) -> bool:
        return not self.repaired

    def to_json(self) -> dict[str, Any]:
        """What `--format json` shows of it."""
        return {
            "Kind": self.kind,
            "Subject": self.subject,
            "Problem": self.problem,
            "Repaired": bool(self.repaired),
            "Repair": self.repaired,
            "Advice": self.advice,
        }


@dataclass(slots=True, kw_only=True)
class Check:
    """One run of the check. `told` hears of each finding as it is made, after its repair if that is wanted."""

    context: Context
    volumes: Volumes
    repairs: bool
    reads_bytes: bool
    told: Callable[[Finding], None]
    findings: list[Finding] = field(default_factory=list)
    bad_blobs: set[Digest] = field(default_factory=set)
    """Damaged or missing: nothing can be worked out from them."""

    def found(
        self, kind: str, subject: str, problem: str, *, advice: str = "", repair: Callable[[], str | None] | None = None
    ) -> None:
        """Note a finding. `repair`, if there is one and it is wanted, says what it did; None if in truth it could do nothing.

        `advice` is for what no repair can do; what one could do is told of by naming `--repair`.
        """
        done = ""
        if repair is not None and self.repairs:
            try:
                done = repair() or ""
            except (OSError, LaminaError) as error:
                problem += f"; repairing it failed: {error}"
        left = "" if done else advice or ("`lamina system check --repair` puts it right" if repair is not None else "")
        finding = Finding(kind=kind, subject=subject, problem=problem, advice=left, repaired=done)
        self.findings.append(finding)
        self.told(finding)


def check(
    context: Context, volumes: Volumes, *, repair: bool, reads_bytes: bool, told: Callable[[Finding], None] = lambda _finding: None
) -> list[Finding]:
    """Check everything; without `reads_bytes` no blob and no layer is read, only looked for."""
    from lamina.usecases.check_images import check_images
    from lamina.usecases.check_kernel import check_kernel
    from lamina.usecases.check_layers import check_layers
    from lamina.usecases.check_state import check_state

    run = Check(context=context, volumes=volumes, repairs=repair, reads_bytes=reads_bytes, told=told)
    for part in (check_state, check_images, check_kernel, check_layers):
        try:
            part(run)
        except (OSError, LaminaError, sqlite3.DatabaseError) as error:  # what one part can't read keeps no other from looking
            run.found("record", part.__name__.replace("_", " "), f"it could not be finished: {error}")
    return run.findings
