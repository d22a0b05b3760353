"""Users of a container's own (`--userns private`): strangers to the host and each other, on files that keep their ids on disk."""

import json
import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from cases import FOREVER, Lamina, driver_of, each_driver, namespaces, own_dir, wait_until
from leaks import rows

from lamina.errors import LaminaError
from lamina.linux import namespace
from lamina.model.confinement import Confinement
from lamina.model.isolation import Isolation
from lamina.runtime.steps import JoinNamespaces, Place, enter_users

PRIVATE = ("--userns", "private")
CHANGES = "mkdir /made; echo x > /made/file; chown 7:8 /made/file; chmod 4750 /made/file; mknod /made/fifo p; rm -r /test"
TIMES = "touch -h -d '2001-02-03 04:05:06' /made/file /made/fifo /made /"


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    return driver_of(request)


def ids_of(pid: int) -> tuple[list[str], list[str]]:
    """A process's user ids on the host, and the map of its user namespace."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    shown = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    return shown, Path(f"/proc/{pid}/uid_map").read_text(encoding="ascii").split()


def in_child(work: Callable[[], object]) -> str:
    """Do the work in a child; gives the result as text, or the error's."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(work())
        except OSError as error:
            text = error.strerror or ""
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        return pipe.read()


@pytest.mark.vm  # before 6.7 an overlay is mounted in another way
@each_driver
def test_root_is_a_stranger_outside_and_files_keep_the_ids_of_the_image(lamina: Lamina, tmp_path: Path):
    bound = tmp_path / "bound"
    bound.mkdir()
    (bound / "roots").write_text("of the host's root\n", encoding="utf-8")
    (bound / "roots").chmod(0o600)
    first = lamina.background(*PRIVATE, "-v", f"{bound}:/bound", "-v", "named:/named", "--name", "first", "base", *FOREVER)
    other = lamina.background(*PRIVATE, "base", *FOREVER)

    # Two strangers
    assert ids_of(lamina.pid(first)) == (["100000"] * 4, ["0", "100000", "65536"])
    assert ids_of(lamina.pid(other)) == (["165536"] * 4, ["0", "165536", "65536"])
    assert lamina("exec", first, "id", "-u") == "0"
    inside = namespaces(lamina.pid(first))
    assert not [kind for kind in inside if kind not in {"time", "time_for_children"} and inside[kind] == namespaces("self")[kind]]

    # The image's files are the image's users'; what is written has the same ids on disk, in layer, volume and bind mount
    listed = "stat -c '%u:%g %n' / /bin/busybox /home/alice /dev/null /dev/pts /etc/hosts /bound/roots /proc/1/status /tmp"
    owners = {line.split()[1]: line.split()[0] for line in lamina("exec", first, "sh", "-c", listed).splitlines()}
    assert owners.pop("/home/alice") == "1000:1000"
    assert set(owners.values()) == {"0:0"}
    lamina("exec", first, "sh", "-c", f"{CHANGES}; touch /named/zero /bound/zero; chown 1000:1000 /named/zero; cat /bound/roots")
    made = own_dir(lamina, first) / "made/file"
    assert (made.stat().st_uid, made.stat().st_gid, made.stat().st_mode & 0o7777) == (7, 8, 0o4750)
    assert ((bound / "zero").stat().st_uid, (bound / "zero").stat().st_gid) == (0, 0)
    volume = Path(json.loads(lamina("volume", "inspect", "named"))[0]["Mountpoint"])
    assert (volume / "zero").stat().st_uid == 1000

    # So is what is copied in and out while it runs
    lamina("cp", str(bound / "zero"), "first:/made/in")
    lamina("cp", "-a", str(volume / "zero"), "first:/named/in")
    assert lamina("exec", first, "stat", "-c", "%u", "/made/in", "/named/in").split() == ["0", "1000"]
    done = lamina.result("cp", "first:/made/file", "-")
    with tarfile.open(fileobj=BytesIO(done.stdout.encode())) as archive:
        assert (archive.getmember("file").uid, archive.getmember("file").gid) == (7, 8)

    # `commit` and `diff` find what they find without
    plain = lamina.background("base", *FOREVER)
    for container, image in ((other, "with"), (plain, "without")):
        lamina("exec", container, "sh", "-c", f"{CHANGES}; {TIMES}")
        lamina("commit", container, image)
    assert lamina.diff_ids("with") == lamina.diff_ids("without")
    assert lamina("diff", other) == lamina("diff", plain)

    # The range is the container's for its life, and then the next one's
    lamina("restart", "-t", "0", first)
    assert ids_of(lamina.pid(first))[1][1] == "100000"
    assert lamina("exec", first, "stat", "-c", "%u", "/made/file") == "7"
    with lamina.library() as engine:
        assert engine.system.info()["UserNamespaces"] == {"Available": True, "InUse": 2}
    lamina("rm", "-f", first)
    assert rows(lamina.root, "SELECT number FROM id_ranges") == [(1,)]
    assert lamina("run", "--rm", *PRIVATE, "with", "sh", "-c", "cat /proc/self/uid_map; stat -c %u /made/file").split() == [
        "0", "100000", "65536", "7",
    ]  # fmt: skip


def test_a_program_that_got_out_can_do_what_any_user_can(lamina: Lamina, tmp_path: Path):
    """As who it is in the container, but with the host's files in sight: what a hole in the walls would give it."""
    secret = tmp_path / "secret"
    secret.write_text("of the host's root\n", encoding="utf-8")
    secret.chmod(0o600)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    pid = lamina.pid(lamina.background(*PRIVATE, "base", *FOREVER))
    neighbour = lamina.pid(lamina.background(*PRIVATE, "base", *FOREVER))
    plain = lamina.pid(lamina.background("base", *FOREVER))

    def out(work: Callable[[], object], *, user_namespace_of: int) -> str:
        def get_out() -> object:
            enter_users(os.open(f"/proc/{user_namespace_of}/ns/user", os.O_RDONLY), 0)
            return work()

        return in_child(get_out)

    assert in_child(secret.read_text) == "of the host's root\n"
    assert out(os.geteuid, user_namespace_of=pid) == "0"
    for work in (
        secret.read_text, lambda: secret.write_text("x"), lambda: os.kill(neighbour, 0), lambda: os.kill(plain, 0),
        lambda: os.readlink(f"/proc/{neighbour}/root"), lambda: os.chown(secret, 0, 0),
        lambda: os.mknod(tmp_path / "disk", 0o60600, 0x800),
        lambda: namespace.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY), namespace.CLONE_NEWNS),
    ):  # fmt: skip
        assert out(work, user_namespace_of=pid) in {"Permission denied", "Operation not permitted"}
    assert secret.read_text(encoding="utf-8") == "of the host's root\n"


def test_capabilities_are_worth_something_over_its_own_namespaces_alone(lamina: Lamina):
    """Those over the host's are worth nothing, whatever was added."""
    all_there_are = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined")
    container = lamina.background(*PRIVATE, *all_there_are, "base", *FOREVER)

    def does(command: str) -> bool:
        return lamina.result("exec", container, "sh", "-c", command).returncode == 0

    for command in (
        "mount -t tmpfs none /tmp", "mount -t proc none /tmp", "hostname other", "ip link set lo down && ip link set lo up",
        "echo 1 > /proc/sys/net/ipv4/ip_forward", "chroot / true", "echo 4096 > /proc/sys/kernel/msgmax",
    ):  # fmt: skip
        assert does(command), command
    for command in (
        "! date -s @$(date +%s) 2>&1 | grep -q permitted", "mknod /tmp/disk b 8 0", "echo h > /proc/sysrq-trigger", "dmesg -c",
        "p=/proc/sys/kernel/core_pattern; v=$(cat $p); echo $v > $p", "p=/proc/sys/vm/swappiness; v=$(cat $p); echo $v > $p",
        "mount -t ext4 /dev/null /mnt", "mount -o remount,rw /sys && echo 0 > /sys/kernel/mm/ksm/run", "test -w /dev/kmsg",
        "echo -1000 > /proc/1/oom_score_adj",
    ):  # fmt: skip
        assert not does(command), command


def test_a_terminal_standard_streams_and_a_user_of_the_image(lamina: Lamina):
    script = "id -u; echo again > /dev/stdout; touch /home/alice/file && stat -c %u /home/alice/file; cat /proc/self/uid_map"
    shown = lamina("run", "--rm", *PRIVATE, "-u", "alice", "base", "sh", "-c", script)
    assert shown.split()[:4] == ["1000", "again", "1000", "0"]
    container = lamina.background(
        "-t", *PRIVATE, "base", "sh", "-c", "tty; stat -c '%u %g' /dev/pts/0; test -c /dev/console && sleep 1000000"
    )
    wait_until(lambda: lamina("logs", container).split() == ["/dev/pts/0", "0", "5"], "the terminal")
    assert lamina("exec", "-u", "alice", container, "sh", "-c", "id -u; echo to stdout > /dev/stdout") == "1000\nto stdout"
    config = lamina.document(container)["HostConfig"]
    assert config["UsernsMode"] == "private"
    lamina("pause", container)
    lamina("unpause", container)
    lamina("stop", "-t", "0", container)


def test_a_network_of_its_own_with_its_ports(lamina: Lamina, own_network: None):
    del own_network
    container = lamina.background(*PRIVATE, "--network", "bridge", "-p", "127.0.0.1:8080:80", "base", "httpd", "-f", "-h", "/test")
    fetch = ("run", "--rm", "--network", "host", "base", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/inside")
    wait_until(lambda: lamina.result(*fetch).returncode == 0, "an answer")
    assert lamina("exec", container, "ping", "-c", "1", "-W", "2", "127.0.0.1")
    lamina("rm", "-f", container)


def test_what_belongs_to_others_is_refused(lamina: Lamina):
    own = Isolation(user_namespace="private")
    with lamina.library() as engine:
        engine.containers.create("base", FOREVER, name="other")
        for options in (
            {"network": "host"}, {"network": "container:other"}, {"isolation": own._replace(pid="host")},
            {"isolation": own._replace(ipc="host")}, {"isolation": own._replace(pid="container:other")},
            {"confinement": Confinement(privileged=True)},
        ):  # fmt: skip
            with pytest.raises(LaminaError, match="users of") as caught:
                engine.containers.create("base", ["true"], **{"isolation": own, **options})
            assert caught.value.hint == "leave --userns out"
        assert [each.name for each in engine.containers.all()] == ["other"]
    assert rows(lamina.root, "SELECT * FROM id_ranges") == []
    error = lamina.error("run", "--rm", *PRIVATE, "-v", "/proc:/host", "base", "true", code=125)
    assert "can't show the ids of a user namespace (no idmapped mounts): '/proc'" in error


def test_file_capabilities_that_are_set_inside_are_those_of_the_image(lamina: Lamina):
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    container = lamina.background(*PRIVATE, "base", *FOREVER)
    pid = lamina.pid(container)

    def set_inside() -> str:
        JoinNamespaces(pid=pid, kinds=("mnt", "user")).apply(Place())
        Path("/able").touch()
        os.setxattr("/able", "security.capability", capability)
        return "set"

    assert in_child(set_inside) == "set"
    assert os.getxattr(own_dir(lamina, container) / "able", "security.capability") == capability
