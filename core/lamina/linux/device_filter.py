"""A cgroup's device rules in version 2: a BPF program that is asked whether a device may be opened or made.

The program is assembled here, an instruction a line: each rule compares and allows; what no rule allows is denied. Version 1 has a
controller for this (`devices.allow`), whose words the rules have. Sources: the kernel's cgroup-v2.rst ("Device controller"),
include/uapi/linux/bpf.h, bpf-docs' instruction-set.rst; bpf(2).
"""

import ctypes
import os
import re
from collections.abc import Iterable, Iterator

from lamina.linux.libc import SYS_BPF, failed, syscall

RULE = re.compile(r"([abc]) (\d+|\*):(\d+|\*) ([rwm]{1,3})")
"""A kind, a device's numbers or `*`, what may be done: read, write, mknod(2)."""

_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_BPF_PROG_TYPE_CGROUP_DEVICE = 15
_BPF_CGROUP_DEVICE = 6
_BPF_F_ALLOW_MULTI = 2
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

_LOAD, _COPY, _SET, _AND, _SHIFT_RIGHT, _JUMP_UNLESS_EQUAL, _EXIT = 0x61, 0xBF, 0xB7, 0x57, 0x77, 0x55, 0x95
_KIND, _WANTED, _MAJOR, _MINOR, _REST = 2, 3, 4, 5, 6
"""Registers. Register 1 points to what is asked: `struct bpf_cgroup_dev_ctx`; register 0 is the answer."""


def assemble(rules: Iterable[str]) -> bytes:
    """Give the program that allows what any of the rules allows. Raises `ValueError` for a rule that isn't one."""
    code = [
        _instruction(_LOAD, _KIND, source=1, offset=0),  # access_type: what is wanted, shifted by 16, and the kind
        _instruction(_COPY, _WANTED, source=_KIND),
        _instruction(_SHIFT_RIGHT, _WANTED, value=16),
        _instruction(_AND, _KIND, value=0xFFFF),
        _instruction(_LOAD, _MAJOR, source=1, offset=4),
        _instruction(_LOAD, _MINOR, source=1, offset=8),
    ]
    for rule in rules:
        code += _allow(rule)
    code += [_instruction(_SET, 0, value=0), _instruction(_EXIT, 0)]
    return b"".join(code)


def _allow(rule: str) -> Iterator[bytes]:
    found = RULE.fullmatch(rule)
    if found is None:
        raise ValueError(f"'{rule}' is no device rule")
    kind, major, minor, access = found.groups()
    denied = 7 - sum(_ACCESS[each] for each in set(access))
    conditions: list[tuple[int, int]] = []  # a register, and what must be in it
    if kind != "a":
        conditions.append((_KIND, _KINDS[kind]))
    if denied:
        conditions.append((_REST, 0))
    conditions += [(register, int(number)) for register, number in ((_MAJOR, major), (_MINOR, minor)) if number != "*"]
    first = [_instruction(_COPY, _REST, source=_WANTED), _instruction(_AND, _REST, value=denied)] if denied else []
    yield from first
    for index, (register, value) in enumerate(conditions):
        over = len(conditions) - index - 1 + 2  # the other conditions, and the two that allow
        yield _instruction(_JUMP_UNLESS_EQUAL, register, offset=over, value=value)
    yield _instruction(_SET, 0, value=1)
    yield _instruction(_EXIT, 0)


def _instruction(code: int, register: int, *, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return bytes((code, register | source << 4)) + offset.to_bytes(2, "little", signed=True) + value.to_bytes(4, "little")


class _Load(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32), ("count", ctypes.c_uint32), ("instructions", ctypes.c_uint64), ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32), ("log_size", ctypes.c_uint32), ("log", ctypes.c_uint64),
    ]  # fmt: skip


class _Attach(ctypes.Structure):
    _fields_ = [("target", ctypes.c_uint32), ("program", ctypes.c_uint32), ("type", ctypes.c_uint32), ("flags", ctypes.c_uint32)]


def attach(directory: str, rules: Iterable[str]) -> None:
    """Have a version 2 cgroup, and all below it, keep to these rules from now on. Raises `OSError`."""
    program = assemble(rules)
    code, license_name = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"Apache")
    load = _Load(_BPF_PROG_TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code), ctypes.addressof(license_name))
    program_fd = _bpf(_BPF_PROG_LOAD, load)
    try:
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(_BPF_PROG_ATTACH, _Attach(directory_fd, program_fd, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI))
        finally:
            os.close(directory_fd)
    finally:
        os.close(program_fd)  # the cgroup keeps it, until it is removed


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    result = syscall(SYS_BPF, ctypes.c_int(command), ctypes.byref(attributes), ctypes.c_uint(ctypes.sizeof(attributes)))
    if result < 0:
        raise failed("bpf")
    return result
