"""Rules become a program in the kernel's classic BPF, which is asked at each system call.

The program looks at the architecture, then finds the call's number by halving the range of numbers, whose neighbours with the same
answer are one interval: about ten comparisons for any call, and the kernel remembers for most that the answer is always yes
(seccomp_cache_prepare in kernel/seccomp.c). Only calls whose arguments matter have those compared.

What it means, as with libseccomp: a rule without comparisons wins over those with, of these the first that holds; a call of an
architecture that isn't listed kills the process. A call newer than every one that the profile knows is answered with ENOSYS where
the default is an error, so that the C library falls back to an older one. Sources: seccomp(2), linux/bpf_common.h, linux/filter.h.
"""

import struct
from collections.abc import Mapping, Sequence

from lamina.errors import UsageError
from lamina.seccomp.profile import ENOSYS, ERRNO, Comparison, Selection
from lamina.seccomp.syscalls import ARCHITECTURES, X32_BIT, Architecture, numbers

KILL_PROCESS = 0x80000000
_LOAD, _RETURN, _AND, _JUMP, _EQUAL, _GREATER, _AT_LEAST = 0x20, 0x06, 0x54, 0x05, 0x15, 0x25, 0x35
_NUMBER_OFFSET, _ARCH_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
"""In struct seccomp_data. Every architecture here is little-endian: an argument's lower half comes first."""
_INSTRUCTIONS_MAX = 4096
"""BPF_MAXINSNS."""
_SHORT_JUMP = 255
_ACTION = 0x7FFF0000
"""SECCOMP_RET_ACTION without the bit of KILL_PROCESS."""
_PRIVATE = 0x1000
"""From here on are ARM's own calls, far above all others: they say nothing of how new a profile is."""

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, value: struct sock_filter."""
Guarded = tuple[tuple[Comparison, ...], int]
"""Comparisons that must all hold, and the answer then."""
Answer = int | tuple[Guarded, ...]
"""What a call gets: always the same, or that of the first that holds, else the default."""


def compile_filter(selection: Selection) -> bytes:
    """Compile to an array of struct sock_filter. Raises `UsageError` if it is more than the kernel takes."""
    together: dict[int, list[Architecture]] = {}
    for name in selection.architectures:
        architecture = ARCHITECTURES[name]
        together.setdefault(architecture.audit, []).append(architecture)
    program: list[Instruction] = [(_LOAD, 0, 0, _ARCH_OFFSET)]
    for audit, architectures in together.items():
        body = [(_LOAD, 0, 0, _NUMBER_OFFSET), *_search(_intervals(selection, architectures), selection.default)]
        program += [(_EQUAL, 1, 0, audit), (_JUMP, 0, 0, len(body)), *body]
    program.append((_RETURN, 0, 0, KILL_PROCESS))
    if len(program) > _INSTRUCTIONS_MAX:
        raise UsageError(f"the seccomp profile makes {len(program)} instructions; the kernel takes {_INSTRUCTIONS_MAX}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _answers(selection: Selection, table: Mapping[str, int]) -> dict[int, Answer]:
    """Say for each call that has another answer than the default what it is."""
    always: dict[int, int] = {}
    guarded: dict[int, list[Guarded]] = {}
    for rule in selection.rules:
        if rule.action == selection.default:
            continue
        for number in (table[name] for name in rule.names if name in table):
            if rule.comparisons:
                guarded.setdefault(number, []).append((rule.comparisons, rule.action))
            else:
                always.setdefault(number, rule.action)
    return {**{number: tuple(each) for number, each in guarded.items()}, **always}


def _intervals(selection: Selection, architectures: Sequence[Architecture]) -> list[tuple[int, Answer]]:
    """List where each answer begins, in order of the numbers; the first begins at 0."""
    starts: dict[int, Answer] = {0: selection.default}
    for each in architectures:
        table = numbers(each.column)
        if selection.default & _ACTION == ERRNO:
            newest = max((table[name] for name in selection.named if table.get(name, _PRIVATE) < _PRIVATE), default=-1)
            starts[each.bit + newest + 1] = ERRNO | ENOSYS
        starts.setdefault(each.bit, selection.default)
        for number, answer in sorted(_answers(selection, table).items()):
            starts[each.bit + number] = answer
            starts.setdefault(each.bit + number + 1, selection.default)
    if [each.column for each in architectures] == ["x86_64"]:
        starts[X32_BIT] = KILL_PROCESS
    listed = sorted(starts.items())
    return [(at, answer) for index, (at, answer) in enumerate(listed) if index == 0 or listed[index - 1][1] != answer]


def _search(intervals: Sequence[tuple[int, Answer]], default: int) -> list[Instruction]:
    """Find the interval that the loaded number is in, and answer."""
    if len(intervals) == 1:
        answer = intervals[0][1]
        return [(_RETURN, 0, 0, answer)] if isinstance(answer, int) else _compare(answer, default)
    middle = len(intervals) // 2
    below, above = _search(intervals[:middle], default), _search(intervals[middle:], default)
    if len(below) <= _SHORT_JUMP:
        return [(_AT_LEAST, len(below), 0, intervals[middle][0]), *below, *above]
    return [(_AT_LEAST, 0, 1, intervals[middle][0]), (_JUMP, 0, 0, len(below)), *below, *above]


def _compare(guarded: Sequence[Guarded], default: int) -> list[Instruction]:
    """Give the answer of the first whose comparisons all hold, else the default."""
    program: list[Instruction] = []
    for comparisons, action in guarded:
        holds: list[Instruction] = [(_RETURN, 0, 0, action)]
        for comparison in reversed(comparisons):
            holds = _hold(comparison, holds)
        program += holds
    return [*program, (_RETURN, 0, 0, default)]


def _hold(comparison: Comparison, then: list[Instruction]) -> list[Instruction]:
    """Compare both halves of an argument, the upper one first; go on with `then`, or behind it."""
    lower = _ARGUMENTS_OFFSET + 8 * comparison.index
    high, low = divmod(comparison.second if comparison.operator == "MASKED_EQ" else comparison.value, 1 << 32)
    past = len(then)
    if comparison.operator == "MASKED_EQ":
        mask_high, mask_low = divmod(comparison.value, 1 << 32)
        return [
            (_LOAD, 0, 0, lower + 4), (_AND, 0, 0, mask_high), (_EQUAL, 0, past + 3, high & mask_high),
            (_LOAD, 0, 0, lower), (_AND, 0, 0, mask_low), (_EQUAL, 0, past, low & mask_low), *then,
        ]  # fmt: skip
    if comparison.operator in {"EQ", "NE"}:
        is_equal = comparison.operator == "EQ"
        first = (_EQUAL, 0, past + 2, high) if is_equal else (_EQUAL, 0, 2, high)
        second = (_EQUAL, 0, past, low) if is_equal else (_EQUAL, past, 0, low)
        return [(_LOAD, 0, 0, lower + 4), first, (_LOAD, 0, 0, lower), second, *then]
    code = _AT_LEAST if comparison.operator in {"GE", "LT"} else _GREATER
    greater, smaller = (0, past) if comparison.operator in {"GE", "GT"} else (past, 0)
    return [
        (_LOAD, 0, 0, lower + 4), (_GREATER, greater + 3, 0, high), (_EQUAL, 0, smaller + 2, high),
        (_LOAD, 0, 0, lower), (code, greater, smaller, low), *then,
    ]  # fmt: skip
