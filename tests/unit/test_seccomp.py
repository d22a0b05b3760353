"""Profiles and the programs that are made of them, decided by an interpreter of the kernel's machine, without a kernel.

The default profile is compared with what libseccomp makes of the same rules, call by call, where that library is installed.
"""

import ctypes
import json
import os
import struct
from hashlib import sha256
from pathlib import Path

import pytest

from lamina.errors import UsageError
from lamina.linux.process import CAPABILITIES
from lamina.model.confinement import Confinement
from lamina.runtime import confinement
from lamina.runtime.confinement import DEFAULT_CAPABILITIES, confine
from lamina.seccomp import cache
from lamina.seccomp.compiler import KILL_PROCESS, compile_filter
from lamina.seccomp.profile import ALLOW, ENOSYS, EPERM, ERRNO, parse, select
from lamina.seccomp.syscalls import ARCHITECTURES, NATIVE, X32_BIT, numbers

X86_64, I386 = ARCHITECTURES["SCMP_ARCH_X86_64"], ARCHITECTURES["SCMP_ARCH_X86"]
DEFAULT = frozenset(CAPABILITIES[number] for number in DEFAULT_CAPABILITIES)
REFUSED, UNKNOWN = ERRNO | EPERM, ERRNO | ENOSYS


def decide(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Run a program as the kernel does: struct seccomp_data in, the answer out (only the instructions that seccomp allows here)."""
    data = struct.pack("=iIQ6Q", number - (1 << 32) if number >> 31 else number, audit, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = at = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x06:
            return value
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            at += value
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[operation]
            at += if_true if holds else if_false


def compiled(profile: dict | str, *, capabilities: frozenset[str] = DEFAULT, machine: str = "x86_64", kernel=(6, 1)) -> bytes:
    text = profile if isinstance(profile, str) else json.dumps(profile)
    return compile_filter(select(parse(text), machine=machine, capabilities=capabilities, kernel=kernel))


def asked(program: bytes, name: str, *arguments: int, architecture=X86_64) -> int:
    return decide(program, architecture.audit, numbers(architecture.column)[name] + architecture.bit, *arguments)


def rule(*names: str, action: str = "SCMP_ACT_ALLOW", **more) -> dict:
    return {"names": list(names), "action": action, **more}


def profile(*rules: dict, default: str = "SCMP_ACT_ERRNO", **more) -> dict:
    return {"defaultAction": default, "syscalls": list(rules), **more}


@pytest.fixture(scope="module")
def by_default() -> bytes:
    return compiled(cache.default_profile())


PRIVILEGED = (
    "mount", "umount2", "unshare", "setns", "bpf", "perf_event_open", "keyctl", "add_key", "request_key", "kexec_load",
    "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon", "swapoff", "open_by_handle_at",
    "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "pivot_root", "quotactl", "settimeofday",
    "clock_settime", "fsopen", "fsmount", "fsconfig", "move_mount", "open_tree", "mount_setattr", "acct", "iopl", "ioperm",
    "syslog", "nfsservctl", "vhangup", "kcmp", "lookup_dcookie", "sethostname", "fanotify_init", "mbind",
)  # fmt: skip


@pytest.mark.parametrize("column", ["x86_64", "i386", "x32"])
def test_the_default_profile_refuses_what_changes_the_machine(by_default: bytes, column: str):
    (architecture,) = [each for each in ARCHITECTURES.values() if each.column == column]
    for name in set(PRIVILEGED) & numbers(column).keys():
        assert asked(by_default, name, architecture=architecture) == REFUSED, name
    for name in ("read", "openat", "execve", "futex", "getrandom", "chroot", "ptrace", "fchmodat2", "mseal"):
        assert asked(by_default, name, architecture=architecture) == ALLOW, name


def test_namespaces_are_made_by_nobody_without_the_capability(by_default: bytes):
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert asked(by_default, "clone", flag | 17) == REFUSED, hex(flag)
        assert asked(by_default, "clone", flag | 17 | 1 << 40) == REFUSED, "the upper half changes nothing"
    assert asked(by_default, "clone", 0x3D0F00) == ALLOW, "a thread"
    assert asked(by_default, "clone3") == UNKNOWN, "so the C library uses clone"
    mighty = compiled(cache.default_profile(), capabilities=DEFAULT | {"SYS_ADMIN"})
    for name in ("clone", "clone3", "unshare", "mount", "setns"):
        assert asked(mighty, name, 0x10000000) == ALLOW, name
    assert asked(mighty, "io_uring_setup") == REFUSED


def test_sockets_of_every_family_but_the_one_to_the_hypervisor(by_default: bytes):
    assert [family for family in range(48) if asked(by_default, "socket", family) != ALLOW] == [40]
    assert asked(by_default, "socket", 48) == REFUSED
    for upper in (1, 1 << 31):  # the kernel takes an int of it
        assert asked(by_default, "socket", 40 | upper << 32) == REFUSED
        assert asked(by_default, "socket", 2 | upper << 32) == ALLOW


def test_personalities_are_those_that_change_only_names(by_default: bytes):
    allowed = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
    assert all(asked(by_default, "personality", value) == ALLOW for value in allowed)
    assert asked(by_default, "personality", 0x40000) == REFUSED, "ADDR_NO_RANDOMIZE"
    assert asked(by_default, "personality", 8 | 1 << 32) == REFUSED


def test_calls_that_are_newer_than_the_profile_do_not_exist(by_default: bytes):
    for audit, bit in ((X86_64.audit, 0), (I386.audit, 0), (X86_64.audit, X32_BIT)):
        assert decide(by_default, audit, bit + 999) == UNKNOWN
    assert decide(by_default, X86_64.audit, numbers("x86_64")["file_setattr"] + 1) == UNKNOWN
    assert decide(by_default, X86_64.audit, 0xFFFFFFFF) == UNKNOWN, "minus one, of which tracers make use"


def test_an_architecture_that_is_not_listed_ends_the_process(by_default: bytes):
    assert decide(by_default, ARCHITECTURES["SCMP_ARCH_AARCH64"].audit, 0) == KILL_PROCESS
    alone = compiled(profile(rule("read"), architectures=["SCMP_ARCH_X86_64"]))
    assert decide(alone, I386.audit, numbers("i386")["read"]) == KILL_PROCESS
    assert decide(alone, X86_64.audit, numbers("x86_64")["read"] | X32_BIT) == KILL_PROCESS, "a way round the numbers"
    assert asked(alone, "read") == ALLOW


def test_capabilities_open_what_belongs_to_them():
    for capability, name in (
        ("DAC_READ_SEARCH", "open_by_handle_at"), ("SYS_TIME", "clock_settime"), ("SYS_MODULE", "finit_module"), ("BPF", "bpf"),
        ("SYS_BOOT", "reboot"), ("SYS_NICE", "mbind"), ("SYSLOG", "syslog"), ("PERFMON", "perf_event_open"),
    ):  # fmt: skip
        assert asked(compiled(cache.default_profile(), capabilities=frozenset({capability})), name) == ALLOW, name
    assert asked(compiled(cache.default_profile(), capabilities=frozenset()), "chroot") == REFUSED


OPERATORS = {
    "EQ": lambda value, first, _second: value == first,
    "NE": lambda value, first, _second: value != first,
    "LT": lambda value, first, _second: value < first,
    "LE": lambda value, first, _second: value <= first,
    "GE": lambda value, first, _second: value >= first,
    "GT": lambda value, first, _second: value > first,
    "MASKED_EQ": lambda value, first, second: value & first == second & first,
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_arguments_are_compared_in_all_64_bits(operator: str):
    some = (0, 1, 5, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, (5 << 32) + 5, (5 << 32) + 6, (6 << 32) + 4, (1 << 64) - 1)
    for first in some:
        for second in (0, (5 << 32) + 4) if operator == "MASKED_EQ" else (0,):
            arg = {"index": 3, "value": first, "valueTwo": second, "op": f"SCMP_CMP_{operator}"}
            program = compiled(profile(rule("read", args=[arg])))
            for value in some:
                expected = ALLOW if OPERATORS[operator](value, first, second) else REFUSED
                assert asked(program, "read", 9, 9, 9, value) == expected, (value, first, second)


def test_all_comparisons_of_a_rule_must_hold_and_any_rule_may():
    both = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 7, "op": "SCMP_CMP_GT"}]
    other = rule("read", args=[{"index": 0, "value": 3, "op": "SCMP_CMP_NE"}], action="SCMP_ACT_ERRNO", errnoRet=22)
    program = compiled(profile(rule("read", args=both), other))
    assert asked(program, "read", 1, 8) == ALLOW
    assert asked(program, "read", 1, 7) == ERRNO | 22
    assert asked(program, "read", 3, 8) == REFUSED
    assert asked(compiled(profile(other, rule("read"))), "read", 1) == ALLOW, "a rule without comparisons wins"


def test_includes_and_excludes_are_dockers():
    some = profile(
        rule("read", includes={"caps": ["CAP_CHOWN"], "minKernel": "5.0"}),
        rule("write", excludes={"caps": ["CAP_CHOWN"]}),
        rule("close", includes={"arches": ["arm64"]}),
        rule("lseek", includes={"minKernel": "6.10"}),
    )
    program = compiled(some, capabilities=frozenset({"CHOWN"}), kernel=(6, 9))
    assert [asked(program, name) for name in ("read", "write", "close", "lseek")] == [ALLOW, REFUSED, REFUSED, REFUSED]
    assert asked(compiled(some, kernel=(6, 10)), "lseek") == ALLOW
    arm = ARCHITECTURES["SCMP_ARCH_AARCH64"]
    assert asked(compiled(some, machine="aarch64"), "close", architecture=arm) == ALLOW


def test_defaults_and_actions_are_the_kernels():
    assert asked(compiled(profile(default="SCMP_ACT_ALLOW")), "mount") == ALLOW
    denied = compiled(profile(rule("mount", "kexec_load", action="SCMP_ACT_KILL_PROCESS"), default="SCMP_ACT_ALLOW"))
    assert (asked(denied, "mount"), asked(denied, "read")) == (KILL_PROCESS, ALLOW)
    assert decide(denied, X86_64.audit, 999) == ALLOW, "nothing is missing where all is allowed"
    assert asked(compiled(profile(default="SCMP_ACT_ERRNO", defaultErrnoRet=38)), "mount") == UNKNOWN
    assert asked(compiled(profile(rule("no_such_call"), default="SCMP_ACT_LOG")), "read") == 0x7FFC0000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "object is missing"),
        ("{}", "defaultAction '' is unknown"),
        ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "SCMP_ACT_NOTIFY"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}', "'syscalls' is not of the type"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]}', "names no system call"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}', "listener"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}', "flag 'X'"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["amd64"]}', "architecture 'amd64'"),
        ('{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}', "4096 is no error"),
        (json.dumps(profile(rule("read", args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]))), "six arguments"),
        (json.dumps(profile(rule("read", args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]))), "64 bits"),
        (json.dumps(profile(rule("read", args=[{"index": 0, "value": 1, "op": "EQUALS"}]))), "op 'EQUALS'"),
        (json.dumps(profile(rule("read", includes={"caps": ["CAP_X"]}))), "capability 'X'"),
        (json.dumps(profile(rule("read", includes={"minKernel": "six"}))), "minKernel 'six'"),
    ],
)
def test_what_is_no_profile_is_refused_in_words(text: str, says: str):
    with pytest.raises(UsageError) as caught:
        parse(text, name="mine.json")
    assert says in caught.value.message
    assert "'mine.json'" in caught.value.message


def test_a_profile_of_more_instructions_than_the_kernel_takes_is_refused():
    many = [rule("read", args=[{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]) for value in range(1000)]
    with pytest.raises(UsageError, match="4096"):
        compiled(profile(*many))


def test_every_name_of_the_default_profile_is_a_system_call():
    known = {name for architecture in ARCHITECTURES.values() for name in numbers(architecture.column)}
    assert {name for each in parse(cache.default_profile()).rules for name in each.names} <= known


def test_the_table_is_the_kernels_own_as_far_as_libseccomp_knows_it():
    library = ctypes.CDLL("libseccomp.so.2")
    for token, architecture in ARCHITECTURES.items():
        if token == "SCMP_ARCH_X32":
            continue  # its token isn't its AUDIT_ARCH
        for name, number in numbers(architecture.column).items():
            theirs = library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(architecture.audit), name.encode())
            assert theirs == number or theirs < 0, (token, name, number, theirs)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("more", [frozenset(), frozenset({"SYS_ADMIN", "BPF"})], ids=["default", "more"])
def test_the_default_profile_means_what_libseccomp_makes_of_it(machine: str, more: frozenset[str]):
    chosen = select(parse(cache.default_profile()), machine=machine, capabilities=DEFAULT | more, kernel=(6, 1))
    ours, theirs = compile_filter(chosen), by_libseccomp(chosen)
    arguments = [(0,), (1,), (8,), (40,), (0x20000,), (0x10000011,), (0x3D0F00,), (0xFFFFFFFF,)]
    for name in chosen.architectures[:2]:
        architecture = ARCHITECTURES[name]
        for call, number in numbers(architecture.column).items():
            if number >= 424 or call in {"socketcall", "ipc", "uretprobe", "uprobe"} or call == "socket":
                continue  # newer than the library, or said by it in a way of its own
            for words in arguments:
                found = decide(ours, architecture.audit, number, *words)
                assert found == decide(theirs, architecture.audit, number, *words), (name, call, words)


def by_libseccomp(selection) -> bytes:
    """Compile a selection by libseccomp."""

    class Comparison(ctypes.Structure):
        _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]

    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(selection.default)))
    library.seccomp_arch_remove(context, ctypes.c_uint32(0))
    for name in selection.architectures[:2]:
        assert library.seccomp_arch_add(context, ctypes.c_uint32(ARCHITECTURES[name].audit)) == 0
    words = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
    for each in selection.rules:
        for name in each.names:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1 or each.action == selection.default:
                continue
            compared = (Comparison * 6)(*(Comparison(c.index, words[c.operator], c.value, c.second) for c in each.comparisons))
            library.seccomp_rule_add_array(context, ctypes.c_uint32(each.action), number, len(each.comparisons), compared)
    file = os.memfd_create("bpf")
    try:
        assert library.seccomp_export_bpf(context, file) == 0
        return os.pread(file, 1 << 20, 0)
    finally:
        os.close(file)
        library.seccomp_release(context)


def asking(*add: str, **more: str) -> Confinement:
    return Confinement(cap_drop=("ALL",), cap_add=add, **more)


def test_a_filter_is_compiled_once_and_read_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, few = str(tmp_path / "filters"), frozenset({"CHOWN", "DAC_READ_SEARCH"})
    first = confine(asking(*few), filter_dir=folder).seccomp
    assert first == compiled(cache.default_profile(), capabilities=few, kernel=(99, 0))
    monkeypatch.setattr(cache, "make", lambda *_, **__: pytest.fail("compiled again"))
    assert confine(asking(*few), filter_dir=folder).seccomp == first
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "filters").iterdir()] == [0o600]


def test_a_filter_is_anothers_for_other_capabilities_or_another_profile(tmp_path: Path):
    mine = json.dumps(profile(rule("read")))
    asked = [asking(*add, seccomp=text) for add in ((), ("SYS_ADMIN",)) for text in ("", mine)]
    made = {confine(each, filter_dir=str(tmp_path)).seccomp for each in asked}
    assert len(made) == 3, "the profile of one's own doesn't ask for capabilities"
    assert len(list(tmp_path.iterdir())) == 4


def test_a_start_needs_no_disk_to_write_to():
    assert confine(None, filter_dir="/proc/nowhere").seccomp


def test_what_is_privileged_has_no_filter_unless_it_asks_for_one(tmp_path: Path):
    def kind(asked: Confinement, *, extended: bool = False) -> str:
        found = confine(asked, filter_dir=str(tmp_path), extended=extended).seccomp
        return "none" if found is None else "open" if asked_for_mount(found) == ALLOW else "closed"

    def asked_for_mount(program: bytes) -> int:
        return decide(program, *{"x86_64": (X86_64.audit, 165), "aarch64": (0xC00000B7, 40)}[os.uname().machine])

    assert kind(Confinement()) == "closed"
    assert kind(Confinement(), extended=True) == "open"
    assert kind(Confinement(privileged=True)) == "none"
    assert kind(Confinement(privileged=True, seccomp="builtin")) == "open"
    assert kind(Confinement(seccomp="unconfined"), extended=True) == "none"


def test_the_revision_in_the_names_of_filters_is_that_of_what_makes_them():
    folder = Path(cache.__file__).parent
    sources = ("compiler.py", "profile.py", "syscalls.py", "data/default.json", "data/syscalls")
    digest = sha256(b"".join((folder / name).read_bytes() for name in sources)).hexdigest()[:12]
    told = f"write FILTER_REVISION = {digest!r} into {confinement.__file__}: filters are compiled anew then"
    assert digest == confinement.FILTER_REVISION, told


def test_every_machine_that_has_a_filter_has_an_architecture():
    assert set(NATIVE.values()) <= set(ARCHITECTURES)
    for machine in NATIVE:
        assert compiled(cache.default_profile(), machine=machine)
    with pytest.raises(UsageError, match="s390x"):
        compiled(cache.default_profile(), machine="s390x")
