"""The aufs driver's writable layer on its way between its form at rest and the one that overlayfs writes; killed at every step."""

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.store import views
from lamina_aufs.driver import Driver
from lamina_aufs.method import Method

KEY, PARENTS = "rw", ["base"]
CHANGING = (
    "chmod", "link", "mkdir", "mknod", "removexattr", "rename", "rmdir", "setxattr", "symlink", "unlink", "utime", "open",
)  # fmt: skip
"""The calls of `os` that change something on disk, or may."""


@pytest.fixture
def mounted_home(root_dir: str) -> str:
    """A home whose layer `rw` was written through overlayfs and then unmounted, and is still in overlayfs's form."""
    driver = Driver(Method.OVERLAY)
    driver.storage_prepare(root_dir, "base", [], {})
    base = Path(root_dir, "diff", "base")
    for folder in ("etc/deep/er", "opt", "var/lib"):
        (base / folder).mkdir(parents=True)
    for name in ("etc/a", "etc/b", "etc/deep/c", "etc/deep/er/d", "opt/x", "var/lib/y", "top"):
        (base / name).write_text(name)
    driver.storage_seal(root_dir, "base")
    driver.storage_prepare(root_dir, KEY, PARENTS, {})
    driver.storage_before_mount(root_dir, KEY, PARENTS)
    view = driver.storage_mounts(root_dir, KEY, PARENTS, readonly=False)
    views.attach(view)
    root = Path(view.root)
    for name in ("etc/a", "etc/deep/c", "top"):
        (root / name).unlink()
    shutil.rmtree(root / "opt")
    (root / "opt").mkdir()
    (root / "opt" / "new").write_text("new")
    (root / "etc" / "b").write_text("changed")
    (root / "var" / "lib" / "y").chmod(0o600)
    (root / ".wh.var").write_text("not a whiteout of var")
    (root / "etc" / ".wh.deep").mkdir()
    for folder in ("etc/deep", "etc", "opt", "var/lib", "."):
        os.utime(root / folder, ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))
    views.detach(view)
    return root_dir


def to_rest(home: str) -> None:
    Driver(Method.OVERLAY).storage_after_unmount(home, KEY)


def to_mounted(home: str) -> None:
    Driver(Method.OVERLAY).storage_before_mount(home, KEY, PARENTS)


def test_the_form_at_rest_is_the_one_of_aufs(mounted_home: str) -> None:
    to_rest(mounted_home)
    layer = Path(mounted_home, "diff", KEY)
    names = sorted(str(path.relative_to(layer)) for path in layer.rglob("*"))
    assert names == [
        ".wh..wh.aufs", ".wh..wh.orph", ".wh..wh.plnk", ".wh.top", "etc", "etc/.wh.a", "etc/b", "etc/deep", "etc/deep/.wh.c", "opt",
        "opt/.wh..wh..opq", "opt/new", "var", "var/lib", "var/lib/y",
    ]  # fmt: skip
    base = (layer / ".wh..wh.aufs").stat()
    assert (stat.S_IMODE(base.st_mode), base.st_uid, base.st_size, base.st_nlink) == (0o444, 0, 0, 5)
    assert all(
        (layer / name).stat().st_ino == base.st_ino for name in (".wh.top", "etc/.wh.a", "etc/deep/.wh.c", "opt/.wh..wh..opq")
    )
    assert not any(os.listxattr(path) for path in [layer, *layer.rglob("*")])


def test_directories_keep_their_times(mounted_home: str) -> None:
    for convert in (to_rest, to_mounted, to_rest):
        convert(mounted_home)
        for folder in ("etc/deep", "etc", "opt", "var/lib", "."):
            assert os.stat(f"{mounted_home}/diff/{KEY}/{folder}").st_mtime_ns == 1_600_000_000_987_654_321, folder


def test_names_of_the_container_that_look_like_whiteouts_leave_the_layer_and_hide_nothing(mounted_home: str) -> None:
    to_rest(mounted_home)
    with views.seen(Driver(Method.OVERLAY).storage_mounts(mounted_home, KEY, PARENTS, readonly=True)) as root:
        assert sorted(os.listdir(root)) == ["etc", "opt", "var"]
        assert sorted(os.listdir(f"{root}/etc")) == ["b", "deep"]
    refused = sorted(os.listdir(f"{mounted_home}/work/{KEY}/refused"))
    assert [name.partition("-")[2] for name in refused] == [".wh.var", ".wh.deep"]


def test_both_ways_and_back_change_nothing(mounted_home: str) -> None:
    to_rest(mounted_home)
    at_rest = state(mounted_home)
    to_mounted(mounted_home)
    mounted = state(mounted_home)
    assert not any("/.wh." in path for path in mounted if path.startswith("diff/rw/"))
    for convert, expected in ((to_mounted, mounted), (to_rest, at_rest), (to_rest, at_rest), (to_mounted, mounted)):
        convert(mounted_home)
        assert state(mounted_home) == expected


def test_a_layer_without_deletions_is_ready_without_being_read(root_dir: str) -> None:
    driver = Driver(Method.OVERLAY)
    driver.storage_prepare(root_dir, "base", [], {})
    driver.storage_prepare(root_dir, KEY, PARENTS, {})
    for _ in range(2):
        Path(root_dir, "diff", KEY, "file").write_text("x")
        assert not [path for path in scanned(lambda: to_mounted(root_dir)) if "/diff/rw" in path]
        to_rest(root_dir)


def test_the_bookkeeping_entries_come_back_as_they_were(mounted_home: str) -> None:
    to_rest(mounted_home)
    os.link(f"{mounted_home}/diff/{KEY}/etc/b", f"{mounted_home}/diff/{KEY}/.wh..wh.plnk/15.1257")
    to_mounted(mounted_home)
    assert not [name for name in os.listdir(f"{mounted_home}/diff/{KEY}") if name.startswith(".wh.")]
    to_rest(mounted_home)
    assert os.path.samefile(f"{mounted_home}/diff/{KEY}/etc/b", f"{mounted_home}/diff/{KEY}/.wh..wh.plnk/15.1257")


@pytest.mark.parametrize("first", [to_rest, to_mounted])
@pytest.mark.parametrize("then", [to_rest, to_mounted])
def test_a_killed_conversion_is_made_whole_by_the_next(first: Callable, then: Callable, mounted_home: str) -> None:
    if first is to_mounted:
        to_rest(mounted_home)
    begin = save(mounted_home)
    first(mounted_home)
    then(mounted_home)
    expected = state(mounted_home)
    step, finished = 0, False
    while not finished:
        restore(begin, mounted_home)
        finished = not killed_at(step, lambda: first(mounted_home))
        then(mounted_home)
        assert state(mounted_home) == expected, f"killed before change {step}"
        step += 1
    assert step > 30, "so many changes there are at least"


def killed_at(step: int, run: Callable[[], None]) -> bool:
    """Run in a child that is killed before its change number `step`. False if it ended before."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(call: Callable) -> Callable:
            def change(*args: object, **kwargs: object) -> object:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return call(*args, **kwargs)

            return change

        for name in CHANGING:
            setattr(os, name, counted(getattr(os, name)))
        try:
            run()
        except BaseException:  # noqa: BLE001 - the child must not go on as a second pytest
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, -signal.SIGKILL}
    return code != 0


def scanned(run: Callable[[], None]) -> list[str]:
    """Run, and list the directories that were read meanwhile."""
    paths, scandir = [], os.scandir

    def noting(path: str | int) -> object:
        paths.append(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path)
        return scandir(path)

    os.scandir = noting
    try:
        run()
    finally:
        os.scandir = scandir
    return paths


def save(home: str) -> str:
    copy = f"{home}.saved"
    subprocess.run(["cp", "-a", home, copy], check=True)
    return copy


def restore(copy: str, home: str) -> None:
    shutil.rmtree(home)
    subprocess.run(["cp", "-a", copy, home], check=True)


def state(home: str) -> dict[str, tuple]:
    """All that is to be seen of the layer and, at rest, its companions, but for what a kill may leave to be swept.

    Mounted, a name of the container's own that begins with `.wh.` may still be there or be refused already: both are right.
    """
    Driver(Method.OVERLAY).storage_sweep(home)
    form = os.readlink(f"{home}/work/{KEY}/form")
    found = {"form": (form,)}
    for top in (f"{home}/diff/{KEY}", *([f"{home}/companions/{KEY}"] if form != "overlay" else [])):
        for folder, folders, files in os.walk(top):
            for path in (folder, *(f"{folder}/{name}" for name in folders + files)):
                if form != "overlay" or "/.wh." not in path:
                    found[os.path.relpath(path, home)] = attributes(path, with_times="/diff/" in path)
    return found


def attributes(path: str, *, with_times: bool) -> tuple:
    """Mode, owner, time and xattrs, without the time of what a conversion makes anew and what overlayfs makes for itself."""
    status = os.lstat(path)
    is_made = stat.S_ISCHR(status.st_mode) or "/.wh." in path
    xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
    for name in ("origin", "impure", "uuid"):
        xattrs.pop(f"trusted.overlay.{name}", None)
    return stat.filemode(status.st_mode), status.st_uid, status.st_mtime_ns if with_times and not is_made else 0, xattrs
