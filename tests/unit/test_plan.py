"""The plan of a container as data: which steps, in which order, without root and without a kernel."""

from dataclasses import replace

from lamina.api.types import Attachment, NetworkNamespace
from lamina.linux import mount as lm
from lamina.model.container import ContainerConfig
from lamina.model.mount import Mount, MountFlag
from lamina.runtime import mount_steps as ms
from lamina.runtime import process_steps as ps
from lamina.runtime import steps as st
from lamina.runtime.confinement import ALL_CAPABILITIES, DEFAULT_CAPABILITIES, MASKED_PATHS, READ_ONLY_PATHS, Confined
from lamina.runtime.plan import (
    DEFAULT_PATH,
    PlannedMount,
    command_environment,
    plan,
    plan_entering,
)

ID = "0123456789ab" + "c" * 52
CONFIG = ContainerConfig(image="busybox", command=("echo", "hi"), env=("A=1",))
NEW = Attachment(namespace=NetworkNamespace.NEW)
HOST = Attachment(namespace=NetworkNamespace.HOST)
FILES = [("/c/hostname", "/etc/hostname"), ("/c/hosts", "/etc/hosts"), ("/c/resolv.conf", "/etc/resolv.conf")]
CONFINED = Confined(capabilities=DEFAULT_CAPABILITIES, seccomp=b"12345678", has_system_paths=False)
SAFE = lm.MS_NOSUID | lm.MS_NODEV | lm.MS_NOEXEC


def planned(
    config: ContainerConfig = CONFIG, attachment: Attachment = NEW, mounts: tuple[PlannedMount, ...] = (), *,
    confined: Confined = CONFINED,
) -> list[st.Step]:  # fmt: skip
    return plan(root="/union", config=config, container_id=ID, attachment=attachment, mounts=mounts, files=FILES, confined=confined)


def bound(target: str, source: str = "/host", **more: bool) -> PlannedMount:
    return PlannedMount(target=target, mount=Mount(type="bind", source=source, target=""), **{"read_only": False, **more})


def user_targets(steps: list[st.Step]) -> list[str]:
    return [step.target for step in steps if isinstance(step, ms.BindInRoot) and not step.internal]


def names(steps: list[st.Step]) -> list[str]:
    return [type(step).__name__ for step in steps]


def test_the_whole_plan_of_a_container_with_a_volume():
    environment = [f"PATH={DEFAULT_PATH}", "HOSTNAME=0123456789ab", "A=1"]
    assert planned(mounts=(bound("/data", read_only=True),)) == [
        st.LeaveNamespaces(kinds=("mnt", "uts", "ipc", "cgroup", "net")),
        st.LoopbackUp(),
        st.WriteSysctls(
            values=(("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", "0 2147483647")), required=False
        ),
        ms.PrivateMounts(),
        ms.NewRoot(path="/union"),
        ms.MountInRoot(type="proc", target="/proc", flags=SAFE, options=()),
        ms.MountInRoot(
            type="tmpfs", target="/dev", flags=lm.MS_NOSUID | lm.MS_STRICTATIME, options=(("mode", "755"), ("size", "65536k"))
        ),
        ms.FillDev(),
        ms.MountInRoot(
            type="devpts", target="/dev/pts", flags=lm.MS_NOSUID | lm.MS_NOEXEC,
            options=(("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")),
        ),
        ms.MountInRoot(type="tmpfs", target="/dev/shm", flags=SAFE, options=(("mode", "1777"), ("size", "67108864"))),
        ms.MountInRoot(type="mqueue", target="/dev/mqueue", flags=SAFE, options=()),
        ms.MountInRoot(type="sysfs", target="/sys", flags=SAFE | lm.MS_RDONLY, options=()),
        ms.BindInRoot(source="/c/hostname", target="/etc/hostname", read_only=False, recursive=False, internal=True),
        ms.BindInRoot(source="/c/hosts", target="/etc/hosts", read_only=False, recursive=False, internal=True),
        ms.BindInRoot(source="/c/resolv.conf", target="/etc/resolv.conf", read_only=False, recursive=False, internal=True),
        ms.BindInRoot(source="/host", target="/data", read_only=True, recursive=True, internal=False),
        ms.MaskPaths(paths=MASKED_PATHS),
        ms.ReadOnlyPaths(paths=READ_ONLY_PATHS),
        ms.PivotRoot(path="/union"),
        st.SetHostname(hostname="0123456789ab"),
        ps.FindUser(user="", groups=(), environment=environment),
        ps.WorkingDirectory(path="/", makes=True),
        ps.NewSessionKeyring(),
        ps.BecomeUser(capabilities=DEFAULT_CAPABILITIES),
        ps.FindProgram(name_of_program="echo", environment=environment),
        ps.LimitPrivileges(capabilities=DEFAULT_CAPABILITIES, seccomp=b"12345678", no_new_privileges=False),
        ps.Execute(arguments=("echo", "hi"), environment=environment, init=False),
    ]  # fmt: skip


def test_volumes_are_bound_when_the_root_is_ready_and_before_it_is_pivoted_to():
    found = names(planned(mounts=(bound("/data"),)))
    last_bind = max(index for index, name in enumerate(found) if name == "BindInRoot")
    assert found.index("NewRoot") < found.index("MountInRoot") < last_bind < found.index("PivotRoot")
    assert found.index("PrivateMounts") < found.index("NewRoot")


def test_privileges_go_after_the_last_mount_and_right_before_the_command():
    assert names(planned())[-4:] == ["BecomeUser", "FindProgram", "LimitPrivileges", "Execute"]


def test_a_privileged_container_hides_nothing_of_the_kernels():
    steps = planned(confined=Confined(is_privileged=True))
    assert not {"MaskPaths", "ReadOnlyPaths"} & set(names(steps))
    (sys,) = [step for step in steps if isinstance(step, ms.MountInRoot) and step.target == "/sys"]
    assert not sys.flags & lm.MS_RDONLY
    assert steps[-2] == ps.LimitPrivileges(capabilities=ALL_CAPABILITIES, seccomp=None, no_new_privileges=False)


def test_labels_are_said_before_the_process_is_the_user_and_only_if_there_are_any():
    found = names(planned(confined=Confined(apparmor="mine")))
    assert found[found.index("LabelProgram") + 1 :][:2] == ["NewSessionKeyring", "BecomeUser"], "the keyring gets the label, too"
    assert "LabelProgram" not in names(planned())


def test_the_hosts_network_leaves_the_net_namespace_out():
    steps = planned(attachment=HOST)
    assert steps[0] == st.LeaveNamespaces(kinds=("mnt", "uts", "ipc", "cgroup"))
    assert "LoopbackUp" not in names(steps)
    assert "JoinNamespace" not in names(steps)


def test_a_network_to_join_is_entered_after_the_other_namespaces_were_left():
    steps = planned(attachment=Attachment(namespace=NetworkNamespace.JOIN, path="/proc/7/ns/net"))
    left, joined = st.LeaveNamespaces(kinds=("mnt", "uts", "ipc", "cgroup")), st.JoinNamespace(kind="net", path="/proc/7/ns/net")
    assert steps[:2] == [left, joined]


def test_loopback_stays_down_if_the_network_says_so():
    assert "LoopbackUp" not in names(planned(attachment=Attachment(namespace=NetworkNamespace.NEW, loopback=False)))


def test_a_read_only_root_becomes_so_when_all_mount_points_are_made():
    found = names(planned(replace(CONFIG, read_only=True), mounts=(bound("/data"),)))
    assert found[found.index("ReadOnlyRoot") + 1] == "PivotRoot"
    assert found.count("ReadOnlyRoot") == 1
    assert "ReadOnlyRoot" not in names(planned())


def test_a_read_only_root_makes_the_engines_files_read_only_and_not_the_users_volumes():
    steps = planned(replace(CONFIG, read_only=True), mounts=(bound("/data"),))
    binds = {step.target: step.read_only for step in steps if isinstance(step, ms.BindInRoot)}
    assert binds == {"/etc/hostname": True, "/etc/hosts": True, "/etc/resolv.conf": True, "/data": False}


def test_a_terminal_is_opened_inside_the_root():
    found = names(planned(replace(CONFIG, tty=True)))
    assert found.index("PivotRoot") < found.index("OpenTerminal") < found.index("FindUser")
    assert "OpenTerminal" not in names(planned())


def test_a_mount_comes_before_those_below_it_however_they_were_given():
    mounts = (bound("/a/b/c"), bound("/z"), bound("/a/b"), bound("/a"))
    found = user_targets(planned(mounts=mounts))
    assert found == ["/z", "/a", "/a/b", "/a/b/c"]


def test_a_users_mount_over_the_engines_files_wins():
    steps = planned(mounts=(bound("/etc/hosts", "/mine"),))
    assert [step.source for step in steps if isinstance(step, ms.BindInRoot) and step.target == "/etc/hosts"] == ["/mine"]


def test_a_drivers_read_only_mount_is_read_only_whatever_the_user_asked():
    mount = PlannedMount(
        target="/v", mount=Mount(type="bind", source="/s", target="", flags=MountFlag.BIND | MountFlag.RDONLY), read_only=False
    )
    assert [step.read_only for step in planned(mounts=(mount,)) if isinstance(step, ms.BindInRoot) and not step.internal] == [True]


def test_a_tmpfs_keeps_its_flags_and_gets_the_requests_read_only():
    mount = Mount(type="tmpfs", target="", flags=MountFlag.NOSUID, options=(("size", "1m"),))
    steps = planned(mounts=(PlannedMount(target="/t", mount=mount, read_only=True),))
    assert ms.MountInRoot(type="tmpfs", target="/t", flags=lm.MS_NOSUID | lm.MS_RDONLY, options=(("size", "1m"),)) in steps


def test_planning_twice_gives_equal_plans_that_share_nothing():
    first, second = planned(), planned()
    assert first == second
    first[-1].environment.append("HOME=/")
    assert first != second


def test_the_environment_is_the_usual_then_the_terminals_then_the_containers():
    assert command_environment(replace(CONFIG, tty=True, hostname="h", env=("PATH=/x", "TERM=dumb", "B=2")), ID) == (
        "PATH=/x",
        "HOSTNAME=h",
        "TERM=dumb",
        "B=2",
    )


def test_a_second_process_enters_by_setns_and_mounts_nothing():
    steps = plan_entering(
        pid=42, container_id=ID, config=replace(CONFIG, user="app", working_dir="/w"), arguments=["ls"], environment=["B=2"],
        user="", working_dir="", tty=True, confined=CONFINED,
    )  # fmt: skip
    assert names(steps) == [
        "JoinNamespaces", "OpenTerminal", "FindUser", "WorkingDirectory", "NewSessionKeyring", "BecomeUser", "FindProgram",
        "LimitPrivileges", "Execute",
    ]  # fmt: skip
    assert steps[0] == st.JoinNamespaces(pid=42, kinds=("mnt", "uts", "ipc", "cgroup", "net"))
    assert (steps[2].user, steps[3].path, steps[3].makes) == ("app", "/w", False)
    assert steps[-1].environment[-3:] == ["A=1", "TERM=xterm", "B=2"]


def test_what_is_said_at_an_exec_wins_over_the_containers_own():
    steps = plan_entering(
        pid=42, container_id=ID, config=replace(CONFIG, user="app", working_dir="/w"), arguments=["ls"], environment=["A=2"],
        user="0", working_dir="/x", tty=False, confined=CONFINED,
    )  # fmt: skip
    assert (steps[1].user, steps[2].path) == ("0", "/x")
    assert "A=2" in steps[-1].environment
    assert "A=1" not in steps[-1].environment
