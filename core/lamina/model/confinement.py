"""What a container may do to the kernel, as asked for: capabilities, system calls, labels, privilege. No I/O.

A container of which nothing is asked has None here and gets the defaults (`runtime/confinement.py`); so it imports nothing of this.
A named tuple, which costs a start a third of what a dataclass does; write its fields by keyword.
Not here: namespaces and the like (`isolation.py`), shares of the machine (`limits.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from lamina.errors import UsageError
from lamina.linux.process import CAPABILITIES

UNCONFINED = "unconfined"
LABEL_PARTS = ("user", "role", "type", "level", "filetype")
"""What can be said of a container's SELinux label: its four parts, in order, and the type of its files."""


class Confinement(NamedTuple):
    """One container's `--privileged`, `--cap-add`, `--cap-drop` and `--security-opt`."""

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    """Names without CAP_, or ALL."""
    cap_drop: tuple[str, ...] = ()
    seccomp: str = ""
    """"" for the default: the built-in profile, or none if privileged. `builtin`, `unconfined`, or the text of a profile."""
    no_new_privileges: bool = False
    apparmor: str = ""
    """A profile's name, or `unconfined`; "" for the default one, or none if privileged."""
    labels: tuple[str, ...] = ()
    """SELinux: `disable`, or a part of `LABEL_PARTS` and its value, `type:…`."""
    system_paths_unconfined: bool = False
    """Whether nothing of /proc and /sys is masked or read-only."""
    process_label: str = ""
    """SELinux: what its processes have, the whole of it, "" for none; settled when the container is created."""
    file_label: str = ""
    """And what its files have."""

    @property
    def security_options(self) -> list[str]:
        """What `--security-opt` would be, as `inspect` shows it."""
        said = ["no-new-privileges"] if self.no_new_privileges else []
        said += [f"seccomp={self.seccomp}"] if self.seccomp else []
        said += [f"apparmor={self.apparmor}"] if self.apparmor else []
        said += [f"label={label}" for label in self.labels]
        return said + (["systempaths=unconfined"] if self.system_paths_unconfined else [])

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return self._asdict()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read the stored form; keys of a newer release are left aside."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in document.items() if key in cls._fields
        }
        return cls(**values)


def check_capability(text: str) -> str:
    """Give a capability's name as it is kept: upper case, without CAP_; or ALL. Raises `UsageError`."""
    name = text.strip().upper().removeprefix("CAP_")
    if name != "ALL" and name not in CAPABILITIES:
        raise UsageError(f"invalid capability '{text}'", hint="capabilities(7) lists them; ALL means every one")
    return name


def read_security_options(texts: Sequence[str], read_profile: Callable[[str], str]) -> dict[str, Any]:
    """Read `--security-opt`s into fields of a `Confinement`; `read_profile` gives the text of a file. Raises `UsageError`."""
    values: dict[str, Any] = {}
    labels: list[str] = []
    for text in texts:
        key, value = _parted(text)
        if key == "no-new-privileges":
            if value not in {"", "true", "false"}:
                raise UsageError(f"invalid security option '{text}'", hint="no-new-privileges is true or false")
            values["no_new_privileges"] = value != "false"
        elif key == "systempaths" and value == UNCONFINED:
            values["system_paths_unconfined"] = True
        elif key == "seccomp" and value:
            values["seccomp"] = value if value in {UNCONFINED, "builtin"} else read_profile(value)
        elif key == "apparmor" and value:
            if any(char.isspace() for char in value):
                raise UsageError(f"invalid security option '{text}'", hint="a profile's name has no spaces")
            values["apparmor"] = value
        elif key == "label" and (value == "disable" or (value.partition(":")[0] in LABEL_PARTS and value.partition(":")[2])):
            labels.append(value)
        else:
            raise UsageError(
                f"invalid security option '{text}'",
                hint="write seccomp=FILE, no-new-privileges, apparmor=NAME, label=type:NAME or the like, or systempaths=unconfined",
            )
    return {**values, "labels": tuple(labels)} if labels else values


def _parted(text: str) -> tuple[str, str]:
    """Part an option at `=`, or as Docker once wrote it at `:`."""
    key, equals, value = text.partition("=")
    if not equals:
        key, _, value = text.partition(":")
    return key.lower(), value
