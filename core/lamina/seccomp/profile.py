"""A seccomp profile in Docker's form becomes rules, and what of them holds on a machine for a set of capabilities. No I/O.

The form: https://github.com/opencontainers/runtime-spec, config-linux.md "Seccomp", with Docker's `archMap`, `includes` and
`excludes`. A profile is somebody's text: whatever can't be meant is a `UsageError` that says where.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina import json
from lamina.errors import UsageError
from lamina.linux.process import CAPABILITIES
from lamina.model.machine import ARCHITECTURES as GO_NAMES
from lamina.seccomp.syscalls import ARCHITECTURES, NATIVE

EPERM, ENOSYS = 1, 38
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
_ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_LOG": 0x7FFC0000,
}  # fmt: skip
"""SECCOMP_RET_*, seccomp(2). The lower 16 bits are the error's number, or what a tracer is told."""
_WITH_DATA = {"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"}
OPERATORS = frozenset({"EQ", "NE", "LT", "LE", "GE", "GT", "MASKED_EQ"})
_FLAGS = {"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"}
"""What a profile may ask for and loses nothing without: one thread has no others, and since Linux 5.16 no filter asks for SSBD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What one argument of a call must be, all 64 bits of it. For MASKED_EQ `value` is the mask and `second` what must be left."""

    index: int
    operator: str
    value: int
    second: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """On what a rule depends, beside the call itself."""

    capabilities: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    """Go's names: amd64, arm64."""
    kernel: tuple[int, int] | None = None
    """The first kernel that it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is done about some calls if all comparisons hold."""

    names: tuple[str, ...]
    action: int
    """What the filter returns, SECCOMP_RET_*."""
    comparisons: tuple[Comparison, ...] = ()
    includes: Condition = Condition()
    excludes: Condition = Condition()

    def holds(self, machine: str, capabilities: frozenset[str], kernel: tuple[int, int]) -> bool:
        """Whether it is for this machine, these capabilities and this kernel: Docker's reading of `includes` and `excludes`."""
        yes, no = self.includes, self.excludes
        return (
            yes.capabilities <= capabilities
            and (not yes.machines or machine in yes.machines)
            and (yes.kernel is None or kernel >= yes.kernel)
            and not no.capabilities & capabilities
            and machine not in no.machines
            and (no.kernel is None or kernel < no.kernel)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A whole profile. What no rule names gets `default`."""

    default: int
    architectures: Mapping[str, tuple[str, ...]]
    """A machine's architecture to all that programs on it may use. Empty: only the machine's own."""
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of a profile holds on one machine."""

    default: int
    architectures: tuple[str, ...]
    rules: tuple[Rule, ...]
    named: frozenset[str]
    """Every call that the profile knows of, whether its rules hold or not."""


def select(profile: Profile, *, machine: str, capabilities: frozenset[str], kernel: tuple[int, int]) -> Selection:
    """Choose what holds on a machine (as uname(2) names it), for capabilities (without CAP_) and a kernel. Raises `UsageError`."""
    native = NATIVE.get(machine)
    if native is None:
        raise UsageError(f"there is no seccomp filter for '{machine}'", hint="--security-opt seccomp=unconfined runs without one")
    go_name = GO_NAMES.get(machine, (machine, ""))[0]
    return Selection(
        default=profile.default,
        architectures=tuple(dict.fromkeys((native, *profile.architectures.get(native, ())))),
        rules=tuple(rule for rule in profile.rules if rule.holds(go_name, capabilities, kernel)),
        named=frozenset(name for rule in profile.rules for name in rule.names),
    )


def parse(text: str, *, name: str = "seccomp profile") -> Profile:
    """Read a profile's JSON text; `name` is for errors. Raises `UsageError`."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"'{name}' is not JSON: {error}") from None
    try:
        return _profile(document)
    except _Meaningless as error:
        raise UsageError(f"'{name}' is no seccomp profile: {error}") from None


class _Meaningless(ValueError):
    """What can't be meant, in words."""


def _of(document: Any, key: str, kind: type, default: Any = None) -> Any:
    if not isinstance(document, Mapping):
        raise _Meaningless("an object is missing")
    value = document.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Meaningless(f"'{key}' is not of the type that it must have")
    return value


def _texts(document: Any, key: str) -> tuple[str, ...]:
    found = _of(document, key, list, [])
    if not all(isinstance(each, str) for each in found):
        raise _Meaningless(f"'{key}' is not a list of texts")
    return tuple(found)


def _profile(document: Any) -> Profile:
    for key in ("listenerPath", "listenerMetadata"):
        if _of(document, key, str, ""):
            raise _Meaningless(f"'{key}' asks for a listener, which there is none of")
    for flag in _texts(document, "flags"):
        if flag not in _FLAGS:
            raise _Meaningless(f"flag '{flag}' is unknown")
    listed = _texts(document, "architectures")
    mapped = {
        _of(each, "architecture", str, ""): tuple(one for one in _texts(each, "subArchitectures") if one in ARCHITECTURES)
        for each in _of(document, "archMap", list, [])
    }
    if listed and mapped:
        raise _Meaningless("'architectures' and 'archMap' can't both be given")
    for each in (*listed, *mapped):
        if not each.startswith("SCMP_ARCH_"):
            raise _Meaningless(f"architecture '{each}' is unknown")
    known = tuple(one for one in listed if one in ARCHITECTURES)
    return Profile(
        default=_action(document, "defaultAction", "defaultErrnoRet"),
        architectures=mapped or dict.fromkeys(NATIVE.values(), known),
        rules=tuple(_rule(each) for each in _of(document, "syscalls", list, [])),
    )


def _action(document: Any, key: str, errno_key: str) -> int:
    word = _of(document, key, str, "")
    if word not in _ACTIONS:
        raise _Meaningless(f"{key} '{word}' is unknown")
    number = _of(document, errno_key, int, EPERM)
    if not 0 <= number < 4096:  # MAX_ERRNO: the kernel would cut a greater one
        raise _Meaningless(f"{errno_key} {number} is no error's number")
    return _ACTIONS[word] | (number if word in _WITH_DATA else 0)


def _rule(document: Any) -> Rule:
    names = (*_texts(document, "names"), *filter(None, (_of(document, "name", str, ""),)))
    if not names:
        raise _Meaningless("a rule names no system call")
    return Rule(
        names=names,
        action=_action(document, "action", "errnoRet"),
        comparisons=tuple(_comparison(each) for each in _of(document, "args", list, [])),
        includes=_condition(_of(document, "includes", dict, {})),
        excludes=_condition(_of(document, "excludes", dict, {})),
    )


def _comparison(document: Any) -> Comparison:
    operator = _of(document, "op", str, "").removeprefix("SCMP_CMP_")
    index, value, second = (_of(document, key, int, 0) for key in ("index", "value", "valueTwo"))
    if operator not in OPERATORS:
        raise _Meaningless(f"op '{operator}' is unknown")
    if not 0 <= index < 6:
        raise _Meaningless(f"index {index}: a system call has six arguments")
    if not all(0 <= each < 1 << 64 for each in (value, second)):
        raise _Meaningless("a value is not a number of 64 bits")
    return Comparison(index=index, operator=operator, value=value, second=second)


def _condition(document: Any) -> Condition:
    capabilities = [name.upper().removeprefix("CAP_") for name in _texts(document, "caps")]
    for name in capabilities:
        if name not in CAPABILITIES:
            raise _Meaningless(f"capability '{name}' is unknown")
    return Condition(capabilities=frozenset(capabilities), machines=frozenset(_texts(document, "arches")), kernel=_kernel(document))


def _kernel(document: Any) -> tuple[int, int] | None:
    text = _of(document, "minKernel", str, "")
    if not text:
        return None
    parts: Sequence[str] = text.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise _Meaningless(f"minKernel '{text}' is not of the form 4.8")
    return int(parts[0]), int(parts[1])
