"""What every privileged test has: a mount namespace that isn't the machine's, and a directory of its own.

Tests of the whole (`test_show_*`) have more: each driver in turn, a root directory with the images `busybox` and `base` unpacked on
that driver, a mount namespace for this test alone, and a check that nothing is left when it is over.
"""

import compileall
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import archives
import leaks
import pytest
from cases import DRIVERS, Lamina
from outside import TOP, Environment

from lamina.engine import Engine
from lamina.linux import mount, mountinfo, namespace, netns, process
from lamina.store.image_archive import load
from lamina_bench.disk import mount_own

collect_ignore = [] if os.environ.get("LAMINA_PEERS") == "1" and "DOCKER_HOST" in os.environ else ["test_peer_builds.py"]
if os.environ.get("LAMINA_VM") != "apparmor":
    collect_ignore += ["test_apparmor.py", "test_quota.py"]  # need a kernel with AppArmor, and with project quotas
if os.environ.get("LAMINA_VM") != "selinux":
    collect_ignore.append("test_selinux.py")
HASH_SEED = "00000000-0000-0000-0000-000000000003"
"""Of the order in which names are listed, on which it depends which name of a hard link fuse-overlayfs copies up, and how well."""


@pytest.fixture(scope="session", autouse=True)
def private_mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave the machine's mount namespace, once for the whole run: what a test mounts, nobody else sees.

    Where pytest makes its directories there is then a disk of the run's own, in a file without a name, and temporary files go there
    too. A machine's ext4 may have no journal, and such a one is slow where much was deleted: the tests, which make and delete,
    spent more than half of their time there.
    """
    namespace.unshare(namespace.CLONE_NEWNS)
    mount.make_private()
    for folder in ("core", "plugins"):  # where PYTHONDONTWRITEBYTECODE is set, each command would compile them all again
        compileall.compile_dir(str(TOP / folder), quiet=2)
    place = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        has_disk = disk_at(place)
        if has_disk:
            (place / "tmp").mkdir()
            patch.setenv("TMPDIR", str(place / "tmp"))
            patch.setattr(tempfile, "tempdir", None)
        yield
        if has_disk:
            mount.unmount(str(place), detach=True)


def disk_at(place: Path) -> bool:
    """Mount a disk of the run's own, which takes only the space that is used; without loop devices there is none."""
    make = ("-E", f"lazy_itable_init=1,lazy_journal_init=1,hash_seed={HASH_SEED}")
    try:
        mount_own(str(place), make=make, options="loop,nobarrier,discard,noinit_itable")
    except subprocess.CalledProcessError:
        return False
    return True


@pytest.fixture(autouse=True)
def orphans_as_found() -> Iterator[None]:
    """Whoever makes this process a subreaper does so for one test: the next one's orphans fall to the machine's init again."""
    yield
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 0)


@pytest.fixture
def root_dir(tmp_path: Path) -> Iterator[str]:
    """A directory for one test, under which no mount may be left."""
    yield str(tmp_path)
    left = [each.target for each in mountinfo.mounts() if each.target.startswith(f"{tmp_path}/")]
    for target in reversed(left):
        mount.unmount(target, detach=True)
    assert not left, "mounts were left behind"


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Each storage driver in turn."""
    return str(request.param)


class PreparedRoots(dict[str, Path]):
    """Root directories to copy, by driver, each made when it is first asked for: with `busybox` and `base` unpacked."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.archive = archives.image(place / "base.tar", "base:latest", archives.base_layers())

    def __missing__(self, driver: str) -> Path:
        root = self[driver] = self.place / driver
        with Engine(root_dir=str(root), storage_driver=driver) as engine, open(self.archive, "rb") as stream:
            engine.images.bootstrap("busybox")
            load(engine.images.store, stream)
            for name in ("busybox", "base"):
                engine.containers.create(name, ["true"]).remove()
        assert not leaks.left_on_disk(root)
        return root


@pytest.fixture(scope="session")
def prepared_roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedRoots]:
    """Root directories to copy, one for each driver: `busybox` (bootstrapped) and `base` (loaded), unpacked there; no container."""
    place = tmp_path_factory.mktemp("prepared")
    yield PreparedRoots(place)
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with lamina, to copy: making one takes pip longer than most tests."""
    return Environment.made(tmp_path_factory.mktemp("installed") / "venv")


@pytest.fixture
def own_mounts() -> Iterator[None]:
    """A mount namespace for this test alone: what it leaves mounted ends with it, and is seen by no other test."""
    here = os.getcwd()
    outer = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    namespace.unshare(namespace.CLONE_NEWNS)
    mount.make_private()
    try:
        yield
    finally:
        namespace.setns(outer, namespace.CLONE_NEWNS)
        os.close(outer)
        os.chdir(here)


@pytest.fixture
def own_network() -> Iterator[None]:
    """A network namespace for this test alone, which is "the host's" to its containers: ports never clash.

    It forwards IPv4, whatever the machine does, whose value a new namespace would take: no test depends on it unasked.
    """
    with contextlib.ExitStack() as stack:
        outer = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, outer)
        namespace.unshare(namespace.CLONE_NEWNET)
        stack.callback(namespace.setns, outer, namespace.CLONE_NEWNET)
        namespace.loopback_up()
        netns.set_sysctls([("net/ipv4/ip_forward", "1")])
        yield


@pytest.fixture
def lamina(driver: str, tmp_path: Path, prepared_roots: PreparedRoots, own_mounts: None) -> Iterator[Lamina]:
    """The command line on a root directory of this test's own, with the driver whose turn it is; nothing may be left at its end."""
    root = tmp_path / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", str(prepared_roots[driver]), str(root)], check=True)
    with leaks.nothing_left(root):
        yield Lamina(root, driver)
    shutil.rmtree(root)
