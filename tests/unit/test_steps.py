"""What each step says of itself. What it does needs root: `tests/system`."""

import pytest

from lamina.linux import mount as lm
from lamina.model.isolation import Ulimit
from lamina.runtime import isolation_steps as its
from lamina.runtime import mount_steps as ms
from lamina.runtime import process_steps as ps
from lamina.runtime import steps as st

DESCRIPTIONS = [
    (st.LeaveNamespaces(kinds=("mnt", "uts", "ipc", "net")), "unshare --mount --uts --ipc --net"),
    (st.JoinNamespace(kind="net", path="/proc/7/ns/net"), "nsenter --net=/proc/7/ns/net"),
    (st.JoinNamespaces(pid=7, kinds=("mnt", "net")), "nsenter --target 7 --mount --net"),
    (st.LoopbackUp(), "ip link set lo up"),
    (
        st.WriteSysctls(values=(("net/a", "1"), ("fs/c", "2")), required=True),
        "echo '1' > /proc/sys/net/a; echo '2' > /proc/sys/fs/c",
    ),
    (its.AdjustOomScore(value=-5), "echo -5 > /proc/self/oom_score_adj"),
    (its.RaiseLimits(limits=(Ulimit("core", 0, -1),)), "prlimit --core=:unlimited"),
    (its.LimitResources(limits=(Ulimit("core", 0, -1), Ulimit("cpu", 1, 2))), "prlimit --core=0:unlimited; prlimit --cpu=1:2"),
    (its.HoldSharedMemory(pid=7), "nsenter --mount --target 7 # hold its /dev/shm"),
    (
        its.HoldTrees(trees=(("/", "/u", False, False), ("/d", "/s", True, True)), first_id=100000),
        "mount --bind /u $HELD/; mount --rbind -o X-mount.idmap=b:0:100000:65536 /s $HELD/d",
    ),
    (its.HoldDev(flags=0, options=(("mode", "755"),), first_id=9), "mount -t tmpfs -o mode=755,uid=9,gid=9 tmpfs $HELD/dev"),
    (its.ShiftDev(first_id=9), "chown -hR +9 $HELD/dev/*"),
    (
        its.EnterUsers(first_id=9),
        "unshare --user --map-users 0:9:65536 --map-groups 0:9:65536 --pid --fork --setuid 0 --setgid 0",
    ),
    (ms.PrivateMounts(), "mount --make-rprivate /"),
    (ms.NewRoot(path="/union"), "mount --bind /union /union"),
    (
        ms.MountInRoot(type="tmpfs", target="/t", flags=lm.MS_RDONLY | lm.MS_NOEXEC, options=(("size", "1m"), ("huge", None))),
        "mount -t tmpfs -o ro,noexec,size=1m,huge tmpfs $ROOT/t",
    ),
    (ms.MountInRoot(type="proc", target="/proc", flags=0, options=()), "mount -t proc proc $ROOT/proc"),
    (
        ms.BindInRoot(source="/s", target="/t", read_only=False, recursive=True, internal=False),
        "mount --rbind /s $ROOT/t",
    ),
    (
        ms.BindInRoot(source="/s", target="/t", read_only=True, recursive=False, internal=False),
        "mount --bind /s $ROOT/t; mount -o remount,bind,ro $ROOT/t",
    ),
    (
        ms.MaskPaths(paths=("/proc/keys", "/sys/firmware")),
        "mount --bind $ROOT/dev/null $ROOT/proc/keys; mount --bind $ROOT/dev/null $ROOT/sys/firmware",
    ),
    (ms.ReadOnlyPaths(paths=("/proc/sys",)), "mount --rbind -o ro $ROOT/proc/sys $ROOT/proc/sys"),
    (ms.ReadOnlyRoot(), "mount -o remount,bind,ro $ROOT"),
    (ms.PivotRoot(path="/union"), "cd /union && pivot_root . . && umount -l ."),
    (st.SetHostname(hostname="box"), "hostname box"),
    (ps.OpenTerminal(console=True), "open /dev/ptmx; setsid --ctty; mount --bind /dev/pts/0 /dev/console"),
    (ps.OpenTerminal(console=False), "open /dev/ptmx; setsid --ctty"),
    (ps.FindUser(user="", groups=(), environment=[]), "id 0:0"),
    (ps.FindUser(user="app:staff", groups=(), environment=[]), "id app:staff"),
    (ps.WorkingDirectory(path="/w", makes=True), "mkdir -p /w && cd /w"),
    (ps.WorkingDirectory(path="/w", makes=False), "cd /w"),
    (ps.NewSessionKeyring(), "keyctl new_session"),
    (ps.LabelProgram(apparmor="mine", selinux="a:b:c:s0"), "aa-exec --profile=mine; runcon a:b:c:s0"),
    (ps.BecomeUser(capabilities=(0, 7)), "capsh --drop=all but cap_chown,cap_setuid"),
    (ps.FindProgram(name_of_program="echo", environment=[]), "command -v echo"),
    (ps.LimitPrivileges(capabilities=(), seccomp=None, no_new_privileges=False), "capset"),
    (
        ps.LimitPrivileges(capabilities=(), seccomp=bytes(16), no_new_privileges=True),
        "setpriv --no-new-privs; seccomp: 2 instructions; capset",
    ),
    (ps.Execute(arguments=("echo", "hi"), environment=[], init=False), "exec echo hi"),
]


@pytest.mark.parametrize(("step", "text"), DESCRIPTIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_step_says_itself_as_a_command_line(step: st.Step, text: str):
    assert step.describe() == text


def test_devices_are_described_one_by_one():
    text = ms.FillDev().describe()
    assert "mknod -m 666 $ROOT/dev/null c 1 3; " in text
    assert text.endswith("ln -s /proc/kcore $ROOT/dev/core")


def test_every_kind_of_step_is_described_here():
    described = {type(step) for step, _ in DESCRIPTIONS} | {ms.FillDev}
    values = [
        value
        for module in (st, ms, ps, its)
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    kinds = {value for value in values if issubclass(value, st.Step)} - {st.Step}
    assert kinds == described


def test_a_steps_name_is_words():
    assert ms.PivotRoot(path="/").name == "pivot root"


def test_an_unknown_or_missing_field_is_an_error_of_the_plans_author():
    with pytest.raises(TypeError, match="no field 'other'"):
        ms.PivotRoot(path="/", other=1)
    with pytest.raises(KeyError):
        ms.PivotRoot()


def test_steps_compare_by_kind_and_fields():
    assert st.SetHostname(hostname="a") == st.SetHostname(hostname="a")
    assert st.SetHostname(hostname="a") != st.SetHostname(hostname="b")
    assert ms.ReadOnlyRoot() != ms.PrivateMounts()
    assert repr(st.SetHostname(hostname="a")) == "SetHostname(hostname='a')"


def test_a_program_is_found_in_the_first_directory_that_can_execute_it(tmp_path):
    for name, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text("")
        (tmp_path / name / "tool").chmod(mode)
    path = f"{tmp_path}/none:{tmp_path}/first:{tmp_path}/second"
    assert ps.find_program("tool", path) == f"{tmp_path}/second/tool"
    with pytest.raises(PermissionError):
        ps.find_program("tool", f"{tmp_path}/first")
    with pytest.raises(FileNotFoundError, match=r"not found in \$PATH"):
        ps.find_program("tool", f"{tmp_path}/none")
    with pytest.raises(FileNotFoundError):
        ps.find_program("", path)
    with pytest.raises(FileNotFoundError):
        ps.find_program(f"{tmp_path}/none/tool", path)
