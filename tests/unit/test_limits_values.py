"""What limits mean: how options are read, and what either version of cgroups is given for them. No cgroup is touched."""

import pytest

from lamina.cli.limits_options import read_limits
from lamina.errors import UsageError
from lamina.linux.cgroup import Hierarchies
from lamina.linux.device_filter import assemble
from lamina.model.limits import Device, DeviceRate, Limits, numbers_of
from lamina.runtime.limits import cpu_weight, io_weight, settings

NAMES = ("memory", "cpu", "pids", "cpuset")
FIRST = Hierarchies({**{name: f"/v1/{name}" for name in NAMES}, "blkio": "/v1/blkio"}, "")
SECOND = Hierarchies(dict.fromkeys((*NAMES, "io"), "/v2"), "/v2")
MIXED = Hierarchies({"memory": "/v1/memory", "cpu": "/v2", "pids": "/v2"}, "/v2")


def given(limits: Limits, machine: Hierarchies) -> dict[str, str]:
    return {each.file: each.value for each in settings(limits, machine)}


def test_either_version_is_given_its_own_files():
    limits = Limits(
        memory_bytes=64 << 20, memory_swap_bytes=96 << 20, memory_reservation_bytes=32 << 20, nano_cpus=1_500_000_000,
        cpu_shares=1024, cpuset_cpus="0-1", pids=100, blkio_weight=500,
    )  # fmt: skip
    assert given(limits, FIRST) == {
        "memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "100663296", "memory.soft_limit_in_bytes": "33554432",
        "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000", "cpu.shares": "1024", "cpuset.cpus": "0-1", "pids.max": "100",
        "blkio.weight": "500",
    }  # fmt: skip
    assert given(limits, SECOND) == {
        "memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "33554432", "cpu.max": "150000 100000",
        "cpu.weight": "100", "cpuset.cpus": "0-1", "pids.max": "100", "io.weight": "4950",
    }  # fmt: skip


def test_a_hybrid_machine_is_given_each_controllers_own():
    limits = Limits(memory_bytes=64 << 20, nano_cpus=500_000_000)
    assert set(given(limits, MIXED)) == {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.max"}


@pytest.mark.parametrize(
    ("both", "first", "second"),
    [(0, "134217728", "67108864"), (-1, "-1", "max"), (64 << 20, "67108864", "0"), (80 << 20, "83886080", "16777216")],
)
def test_swap_is_said_together_with_memory_and_is_twice_that_if_it_is_not_said(both: int, first: str, second: str):
    limits = Limits(memory_bytes=64 << 20, memory_swap_bytes=both)
    assert given(limits, FIRST)["memory.memsw.limit_in_bytes"] == first
    assert given(limits, SECOND)["memory.swap.max"] == second
    option = next(each.option for each in settings(limits, SECOND) if each.file == "memory.swap.max")
    assert option == ("--memory-swap" if both else "")  # what nobody asked for is not refused


def test_no_limit_is_said_in_the_kernels_words():
    assert given(Limits(pids=-1, cpu_quota_us=-1), SECOND) == {"pids.max": "max", "cpu.max": "max 100000"}
    assert given(Limits(cpu_quota_us=-1), FIRST) == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1"}
    assert given(Limits(), FIRST) == given(Limits(), SECOND) == {}


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (512, 59), (1024, 100), (262144, 10000)])
def test_shares_become_weights_so_that_the_usual_is_the_usual(shares: int, weight: int):
    assert cpu_weight(shares) == weight


def test_a_weight_of_disks_is_in_proportion():
    assert [io_weight(weight) for weight in (10, 505, 1000)] == [1, 5000, 10000]


def test_options_become_limits():
    options = {
        "memory": "1.5g", "memory_swap": "-1", "cpus": "1.5", "pids": -1, "device_write_iops": ("/dev/sda:100",),
        "device_read_bps": ("/dev/sda:1mb",), "devices": ("/dev/fuse", "/dev/sda:r", "/dev/snd:/dev/sound:rw"),
        "device_rules": ("c 10:* rwm",), "other": 1,
    }  # fmt: skip
    assert read_limits(options) == Limits(
        memory_bytes=1536 << 20, memory_swap_bytes=-1, nano_cpus=1_500_000_000, pids=-1,
        device_rates=(DeviceRate("/dev/sda", "read", "bps", 1 << 20), DeviceRate("/dev/sda", "write", "iops", 100)),
        devices=(Device("/dev/fuse", "/dev/fuse"), Device("/dev/sda", "/dev/sda", "r"), Device("/dev/snd", "/dev/sound", "rw")),
        device_rules=("c 10:* rwm",),
    )  # fmt: skip
    assert options == {"other": 1}
    assert read_limits({"memory": "", "cpu_shares": 0}) is None


@pytest.mark.parametrize("text", ["", ".", "1,5", "-1", "1e3", "0.0000000001", "٣"])
def test_a_number_of_processors_is_a_decimal_number(text: str):
    with pytest.raises(UsageError):
        read_limits({"cpus": text or "x"})


def test_limits_are_stored_and_read_again():
    limits = Limits(
        memory_bytes=6 << 20, devices=(Device("/dev/a", "/dev/b", "r"),), device_rates=(DeviceRate("/d", "read", "bps", 1),)
    )
    assert Limits.from_json(limits.to_json()) == limits
    assert limits.checked(processors=1) == limits


def test_lists_of_processors_are_read():
    assert numbers_of("0-2,5,7-7\n") == {0, 1, 2, 5, 7}
    assert numbers_of("") == set()


def test_the_filter_of_devices_is_eight_bytes_an_instruction_and_ends_in_denying():
    nothing = assemble(())
    assert len(nothing) == 8 * 8
    assert nothing[-16:] == bytes([0xB7, 0, 0, 0, 0, 0, 0, 0]) + bytes([0x95]) + bytes(7)
    assert len(assemble(("a *:* rwm",))) == len(nothing) + 2 * 8
    assert len(assemble(("c 1:3 r",))) == len(nothing) + (2 + 4 + 2) * 8
    with pytest.raises(ValueError, match="no device rule"):
        assemble(("c 1:3 x",))
