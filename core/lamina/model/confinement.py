"""What a container may do to the kernel, as asked for: capabilities, system calls, labels, privilege. No I/O.

A container of which nothing is asked has None here and gets the defaults, which `runtime/plan.py` knows; so it imports nothing of
this. A named tuple, which costs a start a third of what a dataclass does; write its fields by keyword.
Not here: namespaces and the like (`isolation.py`), shares of the machine (`limits.py`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class Confinement(NamedTuple):
    """One container's `--privileged`, `--cap-add`, `--cap-drop` and `--security-opt`."""

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    """Names without CAP_, or ALL."""
    cap_drop: tuple[str, ...] = ()
    seccomp: str = ""
    """"" for the default profile, `unconfined`, or a profile's JSON text as it was when the container was created."""
    no_new_privileges: bool = False
    apparmor: str = ""
    """A profile's name, `unconfined`, or "" for the default where the host has AppArmor."""
    labels: tuple[str, ...] = ()
    """SELinux: `disable`, `user:…`, `role:…`, `type:…`, `level:…`."""
    unmasked_paths: tuple[str, ...] = ()
    """What of the masked and read-only paths is left open; `ALL` for every one (`systempaths=unconfined`)."""

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return self._asdict()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the stored form."""
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
        return cls(**values)
