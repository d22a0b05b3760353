"""What is asked of namespaces, limits and sysctls, as texts and as values; and how a plan becomes one in a user namespace."""

from dataclasses import replace
from pathlib import Path

import pytest

from lamina.api.entries import Entry, EntryKind
from lamina.api.types import Attachment, NetworkNamespace, View
from lamina.archive.shifted import ShiftedOwners
from lamina.cli.isolation_options import read_isolation
from lamina.errors import ConflictError, NotUsableError, UsageError
from lamina.model.container import ContainerConfig
from lamina.model.isolation import Isolation, Ulimit, parse_sysctl, parse_ulimit, sysctl_name
from lamina.model.mount import Mount
from lamina.runtime import steps as st
from lamina.runtime.confinement import Confined
from lamina.runtime.plan import Spaces, plan
from lamina.store import id_ranges, views
from lamina.store.database import Database

CONFIG = ContainerConfig(image="busybox", command=("true",))


def planned(asked: Isolation, spaces: Spaces | None = None) -> list[st.Step]:
    return plan(
        root="/union", config=replace(CONFIG, isolation=asked), container_id="c" * 64,
        attachment=Attachment(namespace=NetworkNamespace.NEW), mounts=(), files=[("/c/hosts", "/etc/hosts")],
        confined=Confined(capabilities=(), seccomp=None, has_system_paths=False), spaces=spaces or Spaces(),
    )  # fmt: skip


def names(steps: list[st.Step]) -> list[str]:
    return [type(step).__name__ for step in steps]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nofile=1024", (1024, 1024)), ("nofile=10:20", (10, 20)), ("core=-1", (-1, -1)), ("core=0:unlimited", (0, -1)),
        ("nproc=9223372036854775807", (9223372036854775807, 9223372036854775807)),
    ],
)  # fmt: skip
def test_a_ulimit_has_a_soft_and_a_hard_limit(text: str, expected: tuple[int, int]):
    assert parse_ulimit(text)[1:] == expected


@pytest.mark.parametrize(
    "text",
    ["nofile", "nofile=", "nofile=x", "nofile=1:", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=-2", f"nofile={1 << 63}"],
)
def test_a_ulimit_that_cannot_be_meant_is_refused(text: str):
    with pytest.raises(UsageError, match="invalid ulimit"):
        parse_ulimit(text)


def test_a_sysctl_is_named_with_dots_or_slashes():
    assert parse_sysctl("net.ipv4.ip_forward=1") == ("net/ipv4/ip_forward", "1")
    assert parse_sysctl("net/ipv4/ip_forward=1") == ("net/ipv4/ip_forward", "1")
    assert parse_sysctl("net.ipv4.conf.eth0/100.rp_filter=2") == ("net/ipv4/conf/eth0.100/rp_filter", "2")
    assert parse_sysctl("kernel.sem=1 2 3 4") == ("kernel/sem", "1 2 3 4")
    assert sysctl_name("net/ipv4/conf/eth0.100/rp_filter") == "net.ipv4.conf.eth0/100.rp_filter"


@pytest.mark.parametrize(
    "text",
    [
        "kernel.core_pattern=|/x", "vm.overcommit_memory=1", "kernel.shm=1", "kernel.semx=1", "net=1", "net.=1", "net..a=1",
        "net/../kernel/core_pattern=x", "net.//.x=1", "/net/ipv4=1", "fs.file-max=1", "net.ipv4.ip_forward", "net.a\n=1",
        "net.a=1\n2", "KERNEL.sem=1", "net.ipv4.\u2028=1",
    ],
)  # fmt: skip
def test_a_sysctl_of_the_whole_machine_or_of_nothing_is_refused(text: str):
    with pytest.raises(UsageError, match="sysctl"):
        parse_sysctl(text)


def test_nothing_asked_is_none_and_zero_is_something():
    assert read_isolation({"pid": "", "ulimits": (), "oom_score_adj": None}) is None
    assert read_isolation({"oom_score_adj": 0}) == Isolation(oom_score_adj=0)
    options = {"userns": "auto", "cgroupns": "private", "image": "x"}
    assert read_isolation(options) == Isolation(user_namespace="private")
    assert options == {"image": "x"}


def test_the_last_ulimit_of_a_name_counts():
    assert read_isolation({"ulimits": ("core=1", "core=2")}) == Isolation(ulimits=(Ulimit("core", 2, 2),))


@pytest.mark.parametrize(("name", "value"), [("pid", "private"), ("pid", "container:"), ("uts", "private"), ("userns", "nomap")])
def test_a_mode_that_is_none_is_refused(name: str, value: str):
    with pytest.raises(UsageError, match=f"invalid --{name} '{value}'"):
        read_isolation({name: value})


def test_shared_memory_of_somebody_else_has_no_size_of_ones_own():
    with pytest.raises(ConflictError, match="--ipc host"):
        read_isolation({"ipc": "host", "shm_size": "1m"})


def test_what_is_stored_is_read_again():
    asked = Isolation(
        pid="host", ipc="shareable", ulimits=(Ulimit("core", 0, -1),), sysctls={"net/a": "1"}, groups=("a", "1"), oom_score_adj=0
    )
    assert Isolation.from_json(asked.to_json()) == asked
    assert Isolation.from_json({**asked.to_json(), "of a newer release": 1}) == asked


def test_namespaces_that_are_shared_are_not_left():
    steps = planned(Isolation(ipc="host", uts="host", cgroup_namespace="host"))
    (left,) = [step for step in steps if isinstance(step, st.LeaveNamespaces)]
    assert left.kinds == ("mnt", "net")
    assert "SetHostname" not in names(planned(Isolation(uts="host")))


def test_limits_are_raised_first_and_set_last():
    found = names(planned(Isolation(ulimits=(Ulimit("nofile", 3, 3),), oom_score_adj=5)))
    assert found[:2] == ["AdjustOomScore", "RaiseLimits"]
    assert found[-3:] == ["LimitResources", "LimitPrivileges", "Execute"]


def test_sysctls_are_written_before_any_file_of_the_image_is_in_sight():
    found = names(planned(Isolation(sysctls={"net/ipv4/ip_forward": "1"})))
    last = max(index for index, name in enumerate(found) if name == "WriteSysctls")
    assert found.index("LeaveNamespaces") < last < found.index("NewRoot")


def test_in_a_user_namespace_the_hosts_trees_are_held_first_and_the_rest_is_done_by_its_root():
    found = names(planned(Isolation(user_namespace="private"), Spaces(first_id=165536)))
    assert found[:6] == ["HoldTrees", "HoldDev", "FillDev", "ShiftDev", "EnterUsers", "LeaveNamespaces"]
    assert found.count("FillDev") == 1
    held = planned(Isolation(user_namespace="private"), Spaces(first_id=165536, root_is_mapped=True))[0]
    assert vars(held)["trees"] == (("/", "/union", False, False), ("/etc/hosts", "/c/hosts", False, True))


def test_a_range_is_the_lowest_that_nobody_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = {"/etc/subuid": [(100000, 165536), (300000, 300001)], "/etc/subgid": [(0, 5)]}
    monkeypatch.setattr(id_ranges, "_subordinate", given.__getitem__)
    database = Database(str(tmp_path / "db"))
    with database.transaction() as tx:
        found = [id_ranges.allocate(tx, name) for name in ("a", "b", "c")]
        assert found == [165536, 231072, 362144]  # 100000 is given to a user, and one in 296608 to 362143 is
        tx.execute("DELETE FROM id_ranges WHERE container_id = 'b'")
        assert id_ranges.allocate(tx, "d") == 231072
    assert id_ranges.first_id(database.connection, "c") == 362144
    assert id_ranges.first_id(database.connection, "b") == 0
    assert id_ranges.in_use(database.connection) == 3
    database.close()


def test_a_file_of_subordinate_ids_may_hold_anything(tmp_path: Path):
    file = tmp_path / "subuid"
    file.write_text("user:100000:65536\n\n# comment\nx:y:z\n1000:200000:10\nshort:1\n")
    assert id_ranges._subordinate(str(file)) == [(100000, 165536), (200000, 200010)]
    assert id_ranges._subordinate(str(tmp_path / "none")) == []


def test_which_views_can_show_other_ids():
    overlay, bind, fuse = (Mount(type=kind, target="/t") for kind in ("overlay", "bind", "fuse.fuse-overlayfs"))
    assert views.is_mapped_by_layers(View(root="/t", mounts=(overlay,)))
    assert not views.is_mapped_by_layers(View(root="/t", mounts=(bind,)))
    assert not views.is_mapped_by_layers(View(root="/t"))
    for mount in (fuse, Mount(type="aufs", target="/t")):
        with pytest.raises(NotUsableError, match="can't show users of a container's own"):
            views.is_mapped_by_layers(View(root="/t", mounts=(mount,)))


def test_owners_are_shifted_and_strangers_are_nobody():
    def shifted(uid: int, gid: int, *, first: int, to: int) -> tuple[int, int]:
        (entry,) = ShiftedOwners([Entry(path="a", kind=EntryKind.FILE, uid=uid, gid=gid)], first=first, to=to)
        return entry.uid, entry.gid

    assert shifted(100000, 165535, first=100000, to=0) == (0, 65535)
    assert shifted(0, 165536, first=100000, to=0) == (65534, 65534)
    assert shifted(0, 65535, first=0, to=100000) == (100000, 165535)
    assert shifted(65536, 100000, first=0, to=100000) == (165534, 165534)
