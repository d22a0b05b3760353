"""`RUN --mount=…`: a line of comma-separated options, read twice. What it means is the build's affair.

First when the file is parsed, where options with variables are passed over, so that a misspelt option is found before anything is
built; then by `Run.expanded`, with every variable replaced.
"""

import re
from collections.abc import Callable

from lamina.dataclasses import dataclass
from lamina.dockerfile.errors import ExpandError
from lamina.dockerfile.words import shown, suggestion

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_KEYS = {
    **{key: key for key in ("type", "from", "source", "target", "id", "sharing", "required", "size", "mode", "uid", "gid", "env")},
    "src": "source",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "readwrite": "readwrite",
    "rw": "readwrite",
}
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?) ?([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_ESCAPES = frozenset("$\\`'\"")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """`RUN --mount=…`. `text` is it as it was written; options with variables have their value only after `Run.expanded`."""

    text: str = ""
    type: str = "bind"
    """bind, cache, tmpfs, secret or ssh."""
    target: str = ""
    source: str = ""
    from_: str = ""
    """A stage, an image, or "" for the context."""
    id: str = ""
    read_only: bool = True
    """Writes to a bind mount that isn't read-only are thrown away; a cache isn't read-only unless it is asked for."""
    sharing: str = "shared"
    """Of a cache: shared, private or locked."""
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int | None = None
    env: str = ""
    """Of a secret: the variable that holds it, instead of a file or, with a target, beside it."""


def parse_mount(text: str, expand: Callable[[str], str] | None = None) -> RunMount:
    """Read a mount. Without `expand` the values that it might change are passed over. Raise ExpandError."""
    options: dict[str, str | None] = {}
    waiting: set[str] = set()
    for field in _fields(text):
        written, equals, value = field.partition("=")
        key = _KEYS.get(written.lower())
        if key is None:
            near = suggestion(written, _KEYS)
            hint = f"did you mean '{near}'?" if near else f"it is one of {', '.join(dict.fromkeys(_KEYS.values()))}"
            raise ExpandError(f"--mount has no option '{shown(written)}'", hint=hint)
        if not equals and key not in {"readonly", "readwrite", "required"}:
            raise ExpandError(f"the mount's option '{written}' has no value", hint=f"write {written}=VALUE")
        if key == "from" and "$" in value[:-1] and expand is None:
            raise ExpandError(
                f"a mount's 'from' can't be a variable, '{shown(value)}'",
                hint="name a stage made with FROM $VARIABLE AS NAME and use its name",
            )
        waiting.discard(key)
        if expand is not None:
            value = expand(value)
        elif _ESCAPES.intersection(value):
            waiting.add(key)
            options.pop(key, None)
            continue
        options[key] = value if equals else None
        if key in {"readonly", "readwrite"}:  # the one given last says
            options.pop("readwrite" if key == "readonly" else "readonly", None)
    return _mount(text, options, waiting)


def _mount(text: str, options: dict[str, str | None], waiting: set[str]) -> RunMount:
    kind = _one_of("type", options.get("type") or "bind", _TYPES)
    if "type" not in waiting:
        _check(kind, options, waiting)
    read_only = kind not in {"cache", "tmpfs"}
    if "readonly" in options:
        read_only = _boolean("readonly", options["readonly"])
    elif "readwrite" in options:
        read_only = not _boolean("readwrite", options["readwrite"])
    name = options.get("id") or options.get("source") or (options.get("target") or "").rpartition("/")[2]
    return RunMount(
        text=text,
        type=kind,
        target=options.get("target") or "",
        source=options.get("source") or "",
        from_=options.get("from") or "",
        id=options.get("id") or "",
        read_only=read_only,
        sharing=_one_of("sharing", options.get("sharing") or "shared", _SHARING),
        required="required" in options and _boolean("required", options["required"]),
        mode=_number(options, "mode", 8),
        uid=_number(options, "uid", 10),
        gid=_number(options, "gid", 10),
        size_bytes=_size(options.get("size")),
        env=(options["env"] or name) if "env" in options else "",
    )


def _check(kind: str, options: dict[str, str | None], waiting: set[str]) -> None:
    """Refuse what a mount of this kind can't have."""
    allowed_for = {
        "required": {"secret", "ssh"},
        "size": {"tmpfs"},
        "sharing": {"cache"},
        **{key: {"secret", "ssh", "cache"} for key in ("mode", "uid", "gid")},
    }
    for key, kinds in allowed_for.items():
        if key in options and kind not in kinds:
            raise ExpandError(f"a {kind} mount can't have '{key}'", hint=f"it is for {' and '.join(sorted(kinds))}")
    if kind == "secret":
        if "from" in options:
            raise ExpandError("a secret mount can't have 'from'", hint="a secret comes from `--secret` of the build")
        if not {"source", "target", "id"}.intersection(waiting) and not any(options.get(key) for key in ("source", "target", "id")):
            raise ExpandError("a secret mount needs 'id' or 'target'", hint="write id=NAME, the name that `--secret` gives it")
        if options.get("source") and options.get("id"):
            raise ExpandError("a secret mount can't have both 'source' and 'id'", hint="they mean the same; keep 'id'")


def _fields(text: str) -> list[str]:
    """Read one line of comma-separated values, as RFC 4180 has them: a field in quotes may hold commas, and quotes doubled."""
    fields: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            field: list[str] = []
            while True:
                end = text.find('"', at + 1)
                if end < 0:
                    raise ExpandError(f"the mount '{shown(text)}' has a quote that doesn't end")
                field.append(text[at + 1 : end])
                at = end + 1
                if not text.startswith('"', at):
                    break
                field.append('"')
            if at < len(text) and text[at] != ",":
                raise ExpandError(f"the mount '{shown(text)}' goes on behind a quote", hint="put the whole option into the quotes")
            fields.append("".join(field))
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            fields.append(text[at:end])
            if '"' in fields[-1]:
                raise ExpandError(
                    f"the mount '{shown(text)}' has a quote within an option", hint="put the whole option into the quotes"
                )
            at = end
        if at >= len(text):
            return fields
        at += 1


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> str:
    if value.lower() not in allowed:
        near = suggestion(value, allowed)
        hint = f"did you mean {near}?" if near else f"it is one of {', '.join(allowed)}"
        raise ExpandError(f"the mount's {key} '{shown(value)}' isn't known", hint=hint)
    return value.lower()


def _boolean(key: str, value: str | None) -> bool:
    if value is None or value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ExpandError(f"the mount's {key} '{shown(value)}' is neither true nor false")


def _number(options: dict[str, str | None], key: str, base: int) -> int | None:
    value = options.get(key)
    if value is None:
        return None
    digits = "01234567" if base == 8 else "0123456789"
    if not value or value.strip(digits) or len(value) > 40 or int(value, base) >= 1 << 32:
        raise ExpandError(f"the mount's {key} '{shown(value)}' is no number" + (" in octal" if base == 8 else ""))
    return int(value, base)


def _size(value: str | None) -> int | None:
    if value is None:
        return None
    match = _SIZE.fullmatch(value)
    size = int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " ")) if match else 1 << 63
    if size >= 1 << 63:
        raise ExpandError(f"the mount's size '{shown(value)}' is no size", hint="write it as 64m or 1g")
    return size
