"""The options of `run` and `create` about privilege, capabilities, system calls, labels; their texts become a `Confinement`.

Its values are imported where an option asks for them: a container of which nothing is asked pays for nothing.
"""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lamina.model.confinement import Confinement

CONFINEMENT_OPTIONS: tuple[Any, ...] = (
    click.option("--privileged", is_flag=True, help="Give it every capability and device, and hide nothing of the kernel's files."),
    click.option("--cap-add", "cap_add", multiple=True, metavar="NAME|ALL", help="Give it a capability more."),
    click.option("--cap-drop", "cap_drop", multiple=True, metavar="NAME|ALL", help="Give it a capability less."),
    click.option(
        "--security-opt", "security_options", multiple=True, metavar="NAME[=VALUE]",
        help="seccomp=FILE|unconfined, no-new-privileges, apparmor=NAME, label=…, systempaths=unconfined.",
    ),
)  # fmt: skip


def read_confinement(options: dict[str, Any]) -> "Confinement | None":
    """Take this module's options out of all; give what they ask for, None for nothing. Raises `UsageError`."""
    privileged, cap_add, cap_drop, texts = (options.pop(name) for name in ("privileged", "cap_add", "cap_drop", "security_options"))
    if not (privileged or cap_add or cap_drop or texts):
        return None
    from lamina.model.confinement import Confinement, check_capability, read_security_options

    return Confinement(
        privileged=privileged,
        cap_add=tuple(sorted({check_capability(text) for text in cap_add})),
        cap_drop=tuple(sorted({check_capability(text) for text in cap_drop})),
        **read_security_options(texts, _read_profile),
    )


def _read_profile(path: str) -> str:
    """Read a seccomp profile, and see that it is one. Its text is kept without what only people need."""
    from lamina import json
    from lamina.cli.process_options import read_text
    from lamina.seccomp.profile import parse

    text = read_text(path)
    parse(text, name=path)
    return json.dumps(json.loads(text), separators=(",", ":"))
